//! Signal numbers, and the handling of signals in the supervisor and in a new child.

use std::ffi::c_int;
use std::ptr;

use mainstay_core::spec::Signal;

/// Returns the number of `signal` on this system.
pub(crate) fn number(signal: Signal) -> c_int {
    match signal {
        Signal::Hup => libc::SIGHUP,
        Signal::Int => libc::SIGINT,
        Signal::Quit => libc::SIGQUIT,
        Signal::Usr1 => libc::SIGUSR1,
        Signal::Usr2 => libc::SIGUSR2,
        Signal::Term => libc::SIGTERM,
        Signal::Winch => libc::SIGWINCH,
    }
}

/// Unblocks every signal and resets `SIGCHLD` to its default, no matter what the parent blocked or
/// ignored. Must be called before a second thread exists.
pub fn receive_signals() {
    // SAFETY: an empty set is valid, it outlives the call, and no handler is installed yet.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}

/// Ignores every signal that would end or stop this process and has no meaning for a supervisor.
/// Faults, signals from a terminal's user and signals with a handler stay as they are. Children get
/// the defaults back.
pub(crate) fn ignore_signals() {
    // Exceeding the file size limit must fail one write, not end the supervisor.
    let ignored = [
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGPIPE,
        libc::SIGXCPU,
        libc::SIGXFSZ,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ];
    #[cfg(target_os = "linux")]
    let ignored = (libc::SIGRTMIN()..=libc::SIGRTMAX())
        .chain([libc::SIGPOLL, libc::SIGPWR, libc::SIGSTKFLT])
        .chain(ignored);
    for signal in ignored {
        // SAFETY: no memory is involved. A number that the system refuses has no effect.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Resets every signal to its default. `execve` resets handlers by itself, but only after the mask
/// is lifted, when a signal would run the supervisor's handler in the child. It also leaves ignored
/// signals ignored (Rust ignores SIGPIPE; `nohup`, SIGHUP).
///
/// # Safety
/// Only in a new child.
pub(super) unsafe fn default_signals() {
    for signal in 1..=64 {
        // Linux: uses the system call directly, because the C library hides two real-time signals
        // from its wrapper.
        #[cfg(target_os = "linux")]
        // SAFETY: 32 zero bytes are a kernel sigaction of SIG_DFL on every architecture; none is
        // written back.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &[0_u64; 4], 0, 8);
        }
        #[cfg(not(target_os = "linux"))]
        // SAFETY: no memory is involved. Numbers that do not exist are refused, which is harmless.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Blocks every signal on this thread until dropped, so that no signal handler runs in a child that
/// shares this process's memory.
pub(crate) struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    pub(crate) fn new() -> Self {
        // SAFETY: both sets are local, and valid when zero.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self(before)
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by the system.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}
