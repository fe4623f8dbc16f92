//! The stored report of a halted service. Its host has exited by then, and its manager only reports
//! it as stopped or failed.

use std::fs;

use mainstay_core::engine::StateName;
use mainstay_core::report::{ServiceReport, StatusReport};
use mainstay_sys::private::write_private;

use crate::state_dir::StateDir;

/// The size limit. Larger files are not ours.
const LARGEST: u64 = 64 * 1024;

/// Stores the last report of a halted service when its host exits. Best effort: the halt is also
/// logged.
pub fn store(state: &StateDir, report: &StatusReport) {
    let mut services = report.services.iter();
    let halted = services.find(|service| service.state == StateName::Halted);
    if let Some(json) = halted.and_then(|halted| serde_json::to_vec(halted).ok()) {
        let _ = write_private(&state.halted_path(), &json);
    }
}

/// Removes the report, because the service is not halted any more.
pub fn clear(state: &StateDir) {
    let _ = fs::remove_file(state.halted_path());
}

/// Returns the last report of a halted service.
pub fn load(state: &StateDir) -> Option<ServiceReport> {
    let path = state.halted_path();
    let found = fs::symlink_metadata(&path).ok()?;
    if !found.is_file() || found.len() > LARGEST {
        return None;
    }
    let report: ServiceReport = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    let stored_since = found.modified().ok().and_then(|at| at.elapsed().ok());
    let since_seconds = report.since_seconds.zip(stored_since);
    Some(ServiceReport {
        since_seconds: since_seconds.map(|(before, stored)| before + stored.as_secs()),
        ..report
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_halted_is_stored() {
        let sandbox = mainstay_testkit::Sandbox::new();
        let state = StateDir::locate(Some(sandbox.path().to_owned())).unwrap();
        let report = |state| ServiceReport {
            state,
            detail: Some("exit code 3".to_owned()),
            since_seconds: Some(60),
            ..ServiceReport::embedded("a")
        };
        let store_of = |names: &[StateName]| {
            let services = names.iter().map(|name| report(*name)).collect();
            let supervisor = None;
            store(
                &state,
                &StatusReport {
                    supervisor,
                    services,
                },
            );
        };
        store_of(&[StateName::Stopped]);
        assert_eq!(load(&state), None);
        store_of(&[StateName::Halted]);
        let loaded = load(&state).unwrap();
        assert_eq!(
            (loaded.state, loaded.detail.as_deref()),
            (StateName::Halted, Some("exit code 3"))
        );
        assert!(loaded.since_seconds.is_some_and(|seconds| seconds >= 60));
        fs::write(state.halted_path(), vec![b' '; LARGEST as usize + 1]).unwrap();
        assert_eq!(load(&state), None, "what is larger is not ours");
        clear(&state);
        assert_eq!(load(&state), None);
    }
}
