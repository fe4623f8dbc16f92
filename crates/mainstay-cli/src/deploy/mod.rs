//! Deployment: installations, updates and removals, with the system's managers and with the
//! embedded one, and the control of what is installed.

pub(crate) mod artifact;
pub(crate) mod embedded;
pub(crate) mod registered;
pub(crate) mod system;
pub(crate) mod update;

use std::path::{Path, PathBuf};

use mainstay_core::failure::{Code, Failure};
use mainstay_sys::aside::wait;
use mainstay_sys::guarded::{self, Refusal};

/// The setting that determines whether installed services start at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enablement {
    Enabled,
    Disabled,
}

/// Refuses to remove a directory whose disk does not respond: the removal would never end.
fn refuse_hung(dir: &Path) -> Result<(), Failure> {
    let looked_at = dir.to_owned();
    let seen = wait(dir.display().to_string(), move || {
        drop(looked_at.symlink_metadata());
    });
    seen.map_err(|error| {
        let message = format!("cannot remove {}: {error}", dir.display());
        Failure::new(Code::Busy, message).hint("try again when the disk responds")
    })
}

/// Refuses `operation` if something other than a regular file is in the place of one of these
/// files. Missing ones do not matter.
fn refuse_irregular(
    operation: &str,
    paths: impl IntoIterator<Item = PathBuf>,
) -> Result<(), Failure> {
    for path in paths {
        if let Err(error) = guarded::plain_file(&path)
            && let Some(Refusal::Kind(_)) = guarded::refusal(&error)
        {
            let message = format!("cannot {operation}: {}: {error}", path.display());
            let hint = "nothing was changed: move it away, and try again";
            return Err(Failure::new(Code::CannotWrite, message).hint(hint));
        }
    }
    Ok(())
}
