//! The final exit of a program under OpenRC.

use std::os::unix::process::parent_id;
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::openrc::SUPERVISOR;
use crate::backend::shell::ends_for_good;
use crate::{Manager, Recovery, sys};

/// The maximum time for a supervisor to receive a signal.
const NOTED: Duration = Duration::from_secs(5);

/// Makes OpenRC mark the service as stopped if this exit code means that it stays down.
pub(super) fn settle(manager: Manager, recovery: &Recovery, code: u32) {
    if manager == Manager::OpenRc && ends_for_good(recovery, code) {
        end_supervisor();
    }
}

/// Ends supervise-daemon, which would otherwise restart this process whatever its exit code. On
/// SIGTERM, it stops this process, which is about to end anyway, and marks the service as stopped
/// in OpenRC (supervise-daemon.c). Only root may send it the signal.
fn end_supervisor() {
    let parent = parent_id();
    let comm = std::fs::read_to_string(format!("/proc/{parent}/comm"));
    if !comm.is_ok_and(|comm| comm.trim_end() == SUPERVISOR) {
        return;
    }
    // The process is our parent, which is not reaped before it has ended.
    let is_told = sys::terminate(parent);
    // If the supervisor saw our exit first, it would wait for us in vain, for as long as a stop may
    // take. Two successive checks are required because a single one can be wrong for an instant.
    let deadline = Instant::now() + NOTED;
    let mut noted = 0;
    while is_told && noted < 2 && parent_id() == parent && Instant::now() < deadline {
        noted = if has_noted(parent) { noted + 1 } else { 0 };
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns whether a process is sleeping with no SIGTERM pending: proc(5), "status".
fn has_noted(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
    let waits = |key: &str| {
        let set = value(key).and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        set.is_none_or(|set| set & 1 << (libc::SIGTERM - 1) != 0)
    };
    value("State:").is_some_and(|state| state.trim_start().starts_with('S'))
        && !waits("SigPnd:")
        && !waits("ShdPnd:")
}
