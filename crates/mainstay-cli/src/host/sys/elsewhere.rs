//! What only Linux has, for the others: nothing to do, and nothing that would fail.

use std::io;

use super::Processes;

/// Nothing by which a successor could find what is left behind: a job dies with its holder, and kinship is not recorded elsewhere.
pub(crate) fn testament(_processes: &Processes) -> String {
    String::new()
}

/// Finds nothing.
pub(crate) fn end_remains(_testament: &str) -> io::Result<usize> {
    Ok(0)
}

/// Has nothing to do.
pub(crate) fn settle_in(_processes: &Processes) {}

/// Lets this thread run only where nobody else wants to: on Apple's systems, that includes the disk.
#[cfg(unix)]
pub(crate) fn yield_to_others() {
    #[cfg(target_vendor = "apple")]
    // SAFETY: takes numbers only, and concerns this thread only.
    let _only_a_hope =
        unsafe { libc::setpriority(libc::PRIO_DARWIN_THREAD, 0, libc::PRIO_DARWIN_BG) };
}

/// Has nothing to do: what was freed is not held on to.
pub(crate) fn give_memory_back() {}
