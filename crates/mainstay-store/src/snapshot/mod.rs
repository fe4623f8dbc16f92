//! Snapshots of services' state directories on disk.
//!
//! ```text
//! STATE/snapshots/NAME/lock              held while something here is changed
//! STATE/snapshots/NAME/in-use            held while the service runs or is being restored
//! STATE/snapshots/NAME/ID/index.json     the list of copied files, and its checksum `index.sha256`
//! STATE/snapshots/NAME/ID/tree/0/…       the contents of the files of the first directory
//! STATE/snapshots/NAME/restore-ID.json   the journal of an unfinished restore
//! ```
//!
//! Decisions and formats are in `mainstay_core::snapshot`. A snapshot is visible only when it is
//! complete: it is built under another name, synced, then renamed. A restore is atomic across all
//! directories (`restore.rs`). The next process to take the lock finishes any operation that a
//! crash interrupted, so no state requires manual repair.

mod copy;
mod damage;
mod descent;
mod disk;
#[cfg(target_os = "linux")]
#[cfg(test)]
pub(crate) mod plug;
mod restore;
mod store;
mod sys;
#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mainstay_core::failure::{Code, Failure};
use mainstay_sys::guarded;

pub use self::damage::Damage;
pub use self::disk::{Change, Seam};
pub use self::restore::{Replaced, Which};
pub use self::store::{Created, Listed, Occasion, Store, Wait};

/// An error of a snapshot operation.
#[derive(Debug)]
enum SnapshotError {
    /// The snapshot differs from what was recorded.
    Damaged(Damage),
    Failed(Failure),
}

impl From<Failure> for SnapshotError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A [`Seam`] that permits every change until it is cancelled. After that nothing new is created;
/// committed work is completed, and uncommitted work is undone.
#[derive(Clone, Debug, Default)]
pub struct CallOff(Arc<AtomicBool>);

impl CallOff {
    /// Cancels the operation.
    pub fn call_off(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Seam for CallOff {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        let makes = matches!(
            change,
            Change::Create(_) | Change::Write(_) | Change::SetMetadata(_) | Change::SyncAll(_)
        );
        if makes && self.is_called_off() {
            Err(called_off())
        } else {
            Ok(())
        }
    }

    fn is_called_off(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn called_off() -> io::Error {
    io::Error::other("it was cancelled")
}

/// Converts an I/O error of `operation` on `path` into a failure.
fn doing<'a>(operation: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Failure + Copy + use<'a> {
    move |error| {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem => Code::CannotWrite,
            _ => Code::Failed,
        };
        let failure = Failure::new(
            code,
            format!("cannot {operation} {}: {error}", path.display()),
        );
        if let Some(hint) = guarded::hint(&error) {
            return failure.hint(hint);
        }
        match code {
            Code::PermissionDenied => failure
                .hint("state of another user can be copied and restored by root only: use sudo"),
            _ => failure,
        }
    }
}
