//! The stored reason why a supervisor could not start under a service manager. The supervisor has
//! no terminal, and some managers discard its output. `status`, `start` and `events` therefore show
//! the stored cause until the next successful start.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use mainstay_core::failure::{Code, Failure};
use mainstay_core::time::rfc3339;
use mainstay_sys::private::write_private;
use serde::{Deserialize, Serialize};

use crate::state_dir::StateDir;

/// The size limit. Larger files are not ours.
const LARGEST: u64 = 64 * 1024;

/// A failed start. Stored on disk, so new fields need defaults.
#[derive(Debug, Serialize, Deserialize)]
pub struct StartFailure {
    /// The time of the failure (RFC 3339).
    pub time: String,
    /// The supervisor's exit code.
    pub code: u8,
    /// The message, with the report that preceded it.
    pub message: String,
    /// The hint, if there was one.
    #[serde(default)]
    pub hint: Option<String>,
}

impl StartFailure {
    /// Stores the failure of this supervisor. Best effort: the cause is also returned and logged.
    pub fn store(state: &StateDir, failure: &Failure) {
        // Skipped if another supervisor uses the directory, or other accounts may change it.
        if failure.code() != Code::Busy && state.prepare().is_ok() {
            Self::write(state, failure);
        }
    }

    /// Stores the failure in a directory owned by the account of another supervisor. Links in it
    /// are not followed.
    pub fn write(state: &StateDir, failure: &Failure) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let stored = Self {
            time: rfc3339(now.unwrap_or_default()),
            code: failure.code() as u8,
            message: failure.report(),
            hint: failure.hint_text().map(str::to_owned),
        };
        let Ok(json) = serde_json::to_vec(&stored) else {
            return;
        };
        let _ = write_private(&state.start_failure_path(), &json);
    }

    /// Removes the stored failure after a successful start.
    pub fn clear(state: &StateDir) {
        let _ = fs::remove_file(state.start_failure_path());
    }

    /// Returns the cause of the last start's failure, if it failed.
    pub fn load(state: &StateDir) -> Option<Self> {
        let path = state.start_failure_path();
        let found = fs::symlink_metadata(&path).ok()?;
        if !found.is_file() || found.len() > LARGEST {
            return None;
        }
        serde_json::from_slice(&fs::read(&path).ok()?).ok()
    }

    /// Returns a one-line summary.
    pub fn line(&self) -> String {
        let Self { message, code, .. } = self;
        format!("the last start failed with code {code}: {message}")
    }
}
