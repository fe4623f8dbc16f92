//! What a program under OpenRC does where it ends for good.

use std::os::unix::process::parent_id;
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::openrc::SUPERVISOR;
use crate::backend::shell::ends_for_good;
use crate::{Manager, Recovery};

/// How long a supervisor may take to note a signal.
const NOTED: Duration = Duration::from_secs(5);

/// Has OpenRC know that the service, which has ended with this code, stays down, if it does.
pub(super) fn settle(manager: Manager, recovery: &Recovery, code: u32) {
    if manager == Manager::OpenRc && ends_for_good(recovery, code) {
        end_supervisor();
    }
}

/// supervise-daemon would start us again, whatever our code is. Asked to end, it stops us, who are about to end, and has OpenRC know that the
/// service has stopped (supervise-daemon.c). A user who is not root may not ask.
fn end_supervisor() {
    let parent = parent_id();
    let comm = std::fs::read_to_string(format!("/proc/{parent}/comm"));
    if !comm.is_ok_and(|comm| comm.trim_end() == SUPERVISOR) {
        return;
    }
    let Ok(pid) = libc::pid_t::try_from(parent) else {
        return;
    };
    // SAFETY: it takes numbers; the process is our parent, and not reaped before it has ended.
    #[expect(unsafe_code, reason = "std signals no processes but its own children")]
    let is_told = unsafe { libc::kill(pid, libc::SIGTERM) } == 0;
    // If it learned first that we have ended, it would wait for us in vain, as long as a stop may take. Twice, as one look is none at an instant.
    let deadline = Instant::now() + NOTED;
    let mut noted = 0;
    while is_told && noted < 2 && parent_id() == parent && Instant::now() < deadline {
        noted = if has_noted(parent) { noted + 1 } else { 0 };
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a process sleeps, and no SIGTERM waits for it: proc(5), "status".
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
