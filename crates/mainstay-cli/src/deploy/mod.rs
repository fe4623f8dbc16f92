//! Deployment: installations, updates and removals, with the system's managers and with the
//! embedded one, and the control of what is installed.

pub(crate) mod artifact;
pub(crate) mod embedded;
pub(crate) mod registered;
pub(crate) mod system;
pub(crate) mod update;

use std::path::Path;

use mainstay_core::failure::{Code, Failure};
use mainstay_sys::aside::wait;

/// Refuses to remove a directory whose disk does not respond: the removal would never end.
fn refuse_hung(dir: &Path) -> Result<(), Failure> {
    let looked_at = dir.to_owned();
    let seen = wait(dir.display().to_string(), move || {
        drop(looked_at.symlink_metadata());
    });
    seen.map_err(|error| {
        let message = format!("remove {}: {error}", dir.display());
        Failure::new(Code::Busy, message).hint("try again when the disk responds")
    })
}
