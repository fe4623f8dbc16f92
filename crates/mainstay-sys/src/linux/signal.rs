//! Signals to processes that are not children of the supervisor, or may end meanwhile.

use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::proc::Stat;
use crate::posix::kill;

/// Performs `action` for each item, and returns the first error after all of them.
pub(super) fn each<T>(
    items: impl IntoIterator<Item = T>,
    action: impl FnMut(T) -> io::Result<()>,
) -> io::Result<()> {
    let results = items.into_iter().map(action);
    results.reduce(io::Result::and).unwrap_or(Ok(()))
}

/// Sends `signal` to the process that had `pid` while `is_ours` was true. A process that no longer
/// exists is not an error.
pub(super) fn send_if(pid: u32, signal: i32, is_ours: impl FnOnce() -> bool) -> io::Result<()> {
    let raw = pid.cast_signed();
    let (Some(pid), Some(named)) = (Pid::from_raw(raw), Signal::from_named_raw(signal)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let process = pidfd_open(pid, PidfdFlags::empty());
    // A descriptor stays bound to its process. If the check below sees another process, the
    // descriptor's is dead and the signal has no effect.
    if matches!(process, Err(Errno::SRCH)) || !is_ours() {
        return Ok(());
    }
    match process {
        Ok(process) => match pidfd_send_signal(process, named) {
            Err(Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        },
        // Linux before 5.3, a seccomp filter, or no descriptor left: keeps the time between check
        // and use minimal.
        Err(_) => kill(raw, signal),
    }
}

/// Sends `signal` to a process that was found before, unless it has ended since.
pub(super) fn send(process: &Stat, signal: i32) -> io::Result<()> {
    send_if(process.pid, signal, || {
        Stat::of(process.pid).is_some_and(|now| now.identity() == process.identity())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_pid_is_not_signalled() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut other = Stat::of(child.id()).unwrap();
        other.start -= 1; // an earlier process with this pid
        send(&other, libc::SIGKILL).unwrap();
        send_if(child.id(), libc::SIGKILL, || false).unwrap();
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}
