//! Stubs for the functions that only Linux supports. They do nothing, and most of them cannot fail.

use std::fs::File;
use std::io;
use std::time::Duration;

use crate::process::{Birth, Condition, Identity, Survivor};
use crate::{Processes, Tree};

/// Returns an empty orphan marker. A later supervisor cannot find processes left behind: a job dies
/// with its holder, and ancestry is not recorded on these systems.
pub fn orphan_marker(_processes: &Processes) -> String {
    String::new()
}

/// Returns an empty orphan marker.
pub fn orphan_marker_of(_mark: &str) -> String {
    String::new()
}

/// Returns `None`: unknown on these systems.
pub fn home_of_pids() -> Option<String> {
    None
}

/// Returns `None`: unknown on these systems.
pub fn supervisor_of(_mark: &str) -> Option<u32> {
    None
}

/// A watch that reports no changes.
pub struct PlaceWatch;

impl PlaceWatch {
    /// Creates such a watch.
    #[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
    pub fn new(_mark: &str) -> io::Result<Self> {
        Ok(Self)
    }

    /// Does nothing.
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the same shape on every system"
    )]
    pub fn look_at(&self, _dir: &File, _lock: &File) -> io::Result<()> {
        Ok(())
    }

    /// Never resolves.
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub async fn changed(&self) {
        std::future::pending().await
    }
}

/// Finds no processes.
pub fn end_remains(_testament: &str, _spared: &[Identity]) -> io::Result<usize> {
    Ok(0)
}

/// Finds no processes.
pub fn end_tree(_tree: &str, _spared: &[Identity]) -> io::Result<usize> {
    Ok(0)
}

/// Finds no processes, because nothing identifies them.
pub fn end_service(_testament: &str, _service: &str) -> io::Result<usize> {
    Ok(0)
}

/// Finds no processes.
pub fn survivors(_testament: &str) -> Vec<Survivor> {
    Vec::new()
}

/// Fails with `Unsupported`.
pub fn exchange(_one: &std::path::Path, _other: &std::path::Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns `None`: nothing outlives a supervisor in a way that a later one could adopt, so nothing
/// is recorded for it.
pub fn boot() -> Option<String> {
    None
}

/// Returns zero. Not called, because there is no [`boot`].
pub fn uptime() -> Duration {
    Duration::ZERO
}

/// Does nothing: there is one tree of mounts.
#[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
pub fn enter_system_mounts() -> io::Result<()> {
    Ok(())
}

/// Fails with `Unsupported`. Not called, because there is no [`boot`].
pub fn own_identity() -> io::Result<Identity> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns `false`: unknown on these systems.
#[cfg(unix)]
pub fn is_dead(_pid: u32) -> bool {
    false
}

/// Returns whether the process exists, where the system shows it.
pub fn condition(pid: u32) -> Condition {
    if crate::is_dead(pid) {
        Condition::Absent
    } else if cfg!(windows) {
        Condition::Present
    } else {
        Condition::Unknown
    }
}

/// Returns `false`: unknown on these systems.
pub fn runs_replaced_file(_pid: u32) -> bool {
    false
}

/// Returns `false`. Not called, because there is no [`boot`].
pub fn lives(_left: &Identity) -> bool {
    false
}

impl Processes {
    /// Returns no processes: there is no keeper among them.
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub fn others(&self) -> &[u32] {
        &[]
    }

    /// Returns 0: orphans are not reparented to this process.
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub fn end_orphans(&mut self, _keeper: Option<u32>) -> usize {
        0
    }

    /// Does nothing: nothing is recorded.
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub fn note_recorded(&mut self, _mains: impl IntoIterator<Item = Identity>) {}

    /// Fails with `Unsupported`.
    pub fn adopt_remains(&mut self, _left: &Identity) -> io::Result<Tree> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Fails with `Unsupported`.
    pub fn adopt(&mut self, _left: &Identity) -> io::Result<Tree> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A membership check that accepts every process, because the system does not report which
/// processes belong to a tree.
#[derive(Clone, Debug)]
pub struct Members;

impl Members {
    /// Returns `None`, because membership cannot be determined.
    pub fn recorded(_left: &Identity) -> Option<Self> {
        None
    }

    /// Returns `true`, because membership cannot be determined.
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub fn has(&self, _pid: u32) -> bool {
        true
    }
}

impl Tree {
    /// Returns a check that accepts every process; see [`Members`].
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub fn members(&self) -> Members {
        Members
    }

    /// Returns an identity that is not used, because there is no [`boot`].
    pub fn identity(&self) -> Identity {
        Identity {
            pid: self.pid(),
            birth: Birth { first: 0, last: 0 },
            tree: String::new(),
        }
    }
}

/// Does nothing: no resource is kept for the next start of a service.
pub fn forget_service(_processes: &Processes, _name: &str) {}

/// Does nothing.
pub fn settle_in(_processes: &Processes) {}

/// Lets this thread run only when the system is otherwise idle. On Apple's systems, this includes
/// the disk.
#[cfg(unix)]
pub fn yield_to_others() {
    #[cfg(target_vendor = "apple")]
    // SAFETY: takes numbers only, and affects this thread only.
    let _only_a_hope =
        unsafe { libc::setpriority(libc::PRIO_DARWIN_THREAD, 0, libc::PRIO_DARWIN_BG) };
}

/// Does nothing: freed memory is not retained.
pub fn give_memory_back() {}

/// Does nothing: implemented for Linux only.
pub fn release_memory() {}
