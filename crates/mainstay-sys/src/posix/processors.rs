//! Binding of this process and its children to processors; an empty list means all.

use std::io;

#[cfg(target_os = "linux")]
type Set = libc::cpu_set_t;
#[cfg(target_os = "freebsd")]
type Set = libc::cpuset_t;
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
type Set = ();

/// Checks that [`bind`] supports these processors.
pub(super) fn check(cpus: &[u16]) -> io::Result<()> {
    let known = 8 * size_of::<Set>();
    match cpus.iter().find(|cpu| usize::from(**cpu) >= known) {
        None => Ok(()),
        Some(_) if known == 0 => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this system does not support `cpus`",
        )),
        Some(cpu) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("this system has no processor {cpu}"),
        )),
    }
}

/// # Safety
/// The processors have passed [`check`]. It is async-signal-safe.
pub(super) unsafe fn bind(cpus: &[u16]) -> bool {
    if cpus.is_empty() {
        return true;
    }
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    // SAFETY: an all-zero bit set with one bit for each of these processors; 0 and -1 are this
    // process.
    unsafe {
        let mut set: Set = std::mem::zeroed();
        for cpu in cpus {
            libc::CPU_SET((*cpu).into(), &mut set);
        }
        #[cfg(target_os = "linux")]
        let refused = libc::sched_setaffinity(0, size_of::<Set>(), &set);
        #[cfg(target_os = "freebsd")]
        let refused = {
            let (level, which) = (libc::CPU_LEVEL_WHICH, libc::CPU_WHICH_PID);
            libc::cpuset_setaffinity(level, which, -1, size_of::<Set>(), &set)
        };
        refused == 0
    }
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    false
}
