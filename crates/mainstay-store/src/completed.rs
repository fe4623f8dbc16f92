//! The completion marker of a hosted service that was ready and exited cleanly. Its host has exited
//! by then, and its manager cannot distinguish it from a service that was never started. Services
//! that need it may start: the same rule as under one supervisor.

use std::fs;
use std::time::SystemTime;

use mainstay_sys as sys;
use mainstay_sys::private::write_private;

use crate::state_dir::StateDir;

/// Marks the service of this host as completed. Best effort: without the marker, its dependents do
/// not start, and report that.
pub fn store(state: &StateDir) {
    let _ = write_private(&state.completed_path(), b"");
}

/// Removes the marker, because the service is started again or was stopped by an operator.
pub fn clear(state: &StateDir) {
    let _ = fs::remove_file(state.completed_path());
}

/// Returns whether the service of this host has completed since the system booted: a job runs once
/// per boot. The boot ID is not used, because it is not the same in every sandbox.
pub fn is_stored(state: &StateDir) -> bool {
    let Ok(found) = fs::symlink_metadata(state.completed_path()) else {
        return false;
    };
    let age = found
        .modified()
        .map(|at| SystemTime::now().duration_since(at));
    let uptime = sys::uptime();
    // A time in the future dates from before the clock was set back. Not every system reports its
    // uptime.
    let is_recent = age.is_ok_and(|age| uptime.is_zero() || age.unwrap_or_default() <= uptime);
    found.is_file() && is_recent
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_completion_counts_in_its_own_boot() {
        let sandbox = mainstay_testkit::Sandbox::new();
        let state = StateDir::locate(Some(sandbox.path().to_owned())).unwrap();
        assert!(!is_stored(&state));
        store(&state);
        assert!(is_stored(&state));
        let file = fs::File::options()
            .append(true)
            .open(state.completed_path());
        let before_boot = SystemTime::now() - sys::uptime() - Duration::from_secs(1);
        file.unwrap().set_modified(before_boot).unwrap();
        assert_eq!(is_stored(&state), sys::uptime().is_zero());
        store(&state);
        clear(&state);
        assert!(!is_stored(&state));
    }
}
