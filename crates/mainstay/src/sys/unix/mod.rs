//! Unix: this process, its descriptors and its standard streams.

mod descriptor;
mod redirect;

pub(crate) use descriptor::{Kind, inherited};
pub(crate) use redirect::{Redirected, redirect};

use std::time::Duration;

/// Returns the effective user ID of this process.
pub(crate) fn user() -> u32 {
    // SAFETY: the call takes no arguments and cannot fail.
    #[expect(unsafe_code, reason = "std does not tell who we are")]
    unsafe {
        libc::geteuid()
    }
}

/// Returns the time of CLOCK_MONOTONIC, by which systemd compares times.
#[expect(unsafe_code, reason = "std tells no absolute monotonic time")]
pub(crate) fn monotonic() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes one timespec, which is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// Sends SIGTERM to the process. Returns whether it was sent.
#[cfg(feature = "managers")]
#[expect(unsafe_code, reason = "std signals no processes but its own children")]
pub(crate) fn terminate(pid: u32) -> bool {
    // SAFETY: it takes numbers only.
    libc::pid_t::try_from(pid).is_ok_and(|pid| unsafe { libc::kill(pid, libc::SIGTERM) } == 0)
}
