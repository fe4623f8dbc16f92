//! Snapshots of services' state directories, on the disk.
//!
//! ```text
//! STATE/snapshots/NAME/lock              held by whoever changes something here
//! STATE/snapshots/NAME/in-use            held by a supervisor for as long as the service runs, and by a restore
//! STATE/snapshots/NAME/ID/index.json     what was copied, and `index.sha256`, which vouches for it
//! STATE/snapshots/NAME/ID/tree/0/…       the contents of the files of the first directory
//! STATE/snapshots/NAME/restore-ID.json   a restore that has not ended
//! ```
//!
//! What is decided and written lies in `mainstay_core::snapshot`. A snapshot is whole or it cannot be seen: it is built under another
//! name, made safe, then renamed. A restore is all or nothing over all directories (`restore.rs`). Whoever takes the lock first ends
//! what a crash interrupted; so there is no state that would need a human.

mod copy;
mod descent;
mod disk;
mod restore;
mod store;
mod sys;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use self::disk::{Change, Seam};
pub(crate) use self::restore::Which;
pub(crate) use self::store::{Created, Listed, Occasion, Store};
use crate::failure::{Code, Failure};
use crate::guarded;

/// Why something did not work out.
#[derive(Debug)]
enum Trouble {
    /// The snapshot is not what it was.
    Damaged(String),
    Failed(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Lets everything happen, until it is called off: from then on nothing is made, but what was decided is completed, and what was not
/// is taken back.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallOff(Arc<AtomicBool>);

impl CallOff {
    pub(crate) fn call_off(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Seam for CallOff {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        let makes = matches!(
            change,
            Change::Create(_) | Change::Write(_) | Change::SetMetadata(_) | Change::SyncAll(_)
        );
        match makes && self.is_called_off() {
            true => Err(called_off()),
            false => Ok(()),
        }
    }

    fn is_called_off(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn called_off() -> io::Error {
    io::Error::other("it was called off")
}

/// What an operation on a file failed with.
fn doing<'a>(operation: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Failure + Copy + use<'a> {
    move |error| {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem => Code::CannotWrite,
            _ => Code::Failed,
        };
        let failure = Failure::new(code, format!("{operation} {}: {error}", path.display()));
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
