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
use mainstay_sys::runs_replaced_file;

/// The setting that determines whether installed services start at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enablement {
    Enabled,
    Disabled,
}

/// Returns the remarks about those processes of a service that run a program file which has been
/// replaced or deleted.
pub(crate) fn replaced<const N: usize>(
    name: &str,
    processes: [(&str, Option<u32>); N],
) -> Vec<String> {
    let replaced = processes.into_iter();
    let replaced = replaced.filter(|(_, pid)| pid.is_some_and(runs_replaced_file));
    let remarks = replaced.map(|(what, _)| {
        format!(
            "{what} runs from a file that has been replaced or deleted: to run the new one, \
             restart it (mainstay restart {name})"
        )
    });
    remarks.collect()
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
