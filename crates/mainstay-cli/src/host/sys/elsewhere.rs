//! What only Linux has, for the others: nothing to do, and nothing that would fail.

use std::fs::File;
use std::io;
use std::time::Duration;

use super::{Birth, Identity, Processes, Tree};

/// Nothing by which a successor could find what is left behind: a job dies with its holder, and kinship is not recorded elsewhere.
pub(crate) fn testament(_processes: &Processes) -> String {
    String::new()
}

/// The same.
pub(crate) fn testament_of(_mark: &str) -> String {
    String::new()
}

/// Nobody can tell.
pub(crate) fn home_of_pids() -> Option<String> {
    None
}

/// Nobody can tell.
pub(crate) fn supervisor_of(_mark: &str) -> Option<u32> {
    None
}

/// Notices nothing.
pub(crate) struct PlaceWatch;

impl PlaceWatch {
    #[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
    pub(crate) fn new(_mark: &str) -> io::Result<Self> {
        Ok(Self)
    }

    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the same shape on every system"
    )]
    pub(crate) fn look_at(&self, _dir: &File, _lock: &File) -> io::Result<()> {
        Ok(())
    }

    /// Never resolves.
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub(crate) async fn changed(&self) {
        std::future::pending().await
    }
}

/// Finds nothing.
pub(crate) fn end_remains(_testament: &str, _spared: &[Identity]) -> io::Result<usize> {
    Ok(0)
}

/// Finds nothing.
pub(crate) fn end_tree(_tree: &str) -> io::Result<usize> {
    Ok(0)
}

/// There is nothing to find it by.
pub(crate) fn end_service(_testament: &str, _service: &str) -> io::Result<usize> {
    Ok(0)
}

/// Finds nothing.
pub(crate) fn survivors(_testament: &str) -> Vec<super::Survivor> {
    Vec::new()
}

/// Unsupported.
pub(crate) fn exchange(_one: &std::path::Path, _other: &std::path::Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// None: nothing outlives a supervisor in a way that its successor could take up, so nothing is written down for it.
pub(crate) fn boot() -> Option<String> {
    None
}

/// Nobody asks, as there is no [`boot`].
pub(crate) fn uptime() -> Duration {
    Duration::ZERO
}

#[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
pub(crate) fn enter_system_mounts() -> io::Result<()> {
    Ok(())
}

/// Nobody asks, as there is no [`boot`].
pub(crate) fn own_identity() -> io::Result<Identity> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nobody can tell.
#[cfg(unix)]
pub(crate) fn is_dead(_pid: u32) -> bool {
    false
}

/// Nobody asks, as there is no [`boot`].
pub(crate) fn lives(_left: &Identity) -> bool {
    false
}

impl Processes {
    /// There is no keeper among them.
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub(crate) fn others(&self) -> &[u32] {
        &[]
    }

    /// Orphans do not come to us.
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub(crate) fn end_orphans(&mut self, _keeper: Option<u32>) -> usize {
        0
    }

    /// Unsupported.
    pub(crate) fn adopt_remains(&mut self, _left: &Identity) -> io::Result<Tree> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Unsupported.
    pub(crate) fn adopt(&mut self, _left: &Identity) -> io::Result<Tree> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Nobody tells which processes are part of a tree, so none is said not to be.
#[derive(Clone, Debug)]
pub(crate) struct Members;

impl Members {
    /// Always: it cannot be told.
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub(crate) fn has(&self, _pid: u32) -> bool {
        true
    }
}

impl Tree {
    /// See [`Members`].
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub(crate) fn members(&self) -> Members {
        Members
    }

    /// For nobody, as there is no [`boot`].
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            pid: self.pid(),
            birth: Birth { first: 0, last: 0 },
            tree: String::new(),
        }
    }
}

/// Nothing is kept for the next start of a service.
pub(crate) fn forget_service(_processes: &Processes, _name: &str) {}

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
