//! Why a supervisor that a service manager started could not begin. It has no terminal, and some managers keep no output, so the cause is
//! also stored: `status`, `start` and `events` show it until the next successful start.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use mainstay_core::time::rfc3339;
use serde::{Deserialize, Serialize};

use crate::failure::{Code, Failure};
use crate::state_dir::{self, StateDir};

/// Larger files are not ours.
const LARGEST: u64 = 64 * 1024;

/// A failed start. Stored: a change of its fields needs defaults.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StartFailure {
    /// RFC 3339.
    pub(crate) time: String,
    /// What the supervisor exited with.
    pub(crate) code: u8,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) hint: Option<String>,
}

impl StartFailure {
    /// Stores why this supervisor does not start. Best effort: the cause is returned and logged as well.
    pub(crate) fn store(state: &StateDir, failure: &Failure) {
        // Not where another supervisor lives, nor in a directory that others may change.
        if failure.code() != Code::Busy && state.prepare().is_ok() {
            Self::write(state, failure);
        }
    }

    /// The same for the supervisor of another account, whose directory that is. Its links are not followed.
    pub(crate) fn write(state: &StateDir, failure: &Failure) {
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
        let _ = state_dir::write_private(&state.start_failure_path(), &json);
    }

    /// The last start did not fail.
    pub(crate) fn clear(state: &StateDir) {
        let _ = fs::remove_file(state.start_failure_path());
    }

    /// Why the last start failed, if it did.
    pub(crate) fn load(state: &StateDir) -> Option<Self> {
        let path = state.start_failure_path();
        let found = fs::symlink_metadata(&path).ok()?;
        if !found.is_file() || found.len() > LARGEST {
            return None;
        }
        serde_json::from_slice(&fs::read(&path).ok()?).ok()
    }

    /// In one line.
    pub(crate) fn line(&self) -> String {
        let Self { message, code, .. } = self;
        format!("the last start failed with code {code}: {message}")
    }
}
