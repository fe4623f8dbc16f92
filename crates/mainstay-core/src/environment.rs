//! Which variables of the supervisor's environment its services inherit.
//!
//! Variables that describe the supervisor itself (its sockets, credentials, watchdog) are passed to no service. Beyond that, a service of
//! the supervisor's own account inherits everything; a service of another account inherits [`BASE`] and what its manifest names.

/// What a service of another account inherits unless its own account sets it.
pub const BASE: [&str; 3] = ["PATH", "LANG", "TZ"];

/// Variables with a meaning for one process only: systemd.exec(5), sd_notify(3), sd_listen_fds(3), and mainstay's own.
const PRIVATE: [&str; 17] = [
    "CREDENTIALS_DIRECTORY",
    "FDSTORE",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MAINPID",
    "MAINSTAY_CONTAINMENT",
    "MAINSTAY_DATA_DIR",
    "MAINSTAY_READY_FD",
    "MAINSTAY_READY_PID",
    "MAINSTAY_RESTARTS",
    "MAINSTAY_SERVICE",
    "MAINSTAY_STATE_DIR",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "NOTIFY_SOCKET",
    "PIDFILE",
    "SYSTEMD_EXEC_PID",
];

/// The same, by how their names begin.
const PRIVATE_PREFIXES: [&str; 3] = ["LISTEN_", "MEMORY_PRESSURE_", "WATCHDOG_"];

/// Whether no service inherits this variable. `MAINSTAY_INSTANCE` is none of these: an outer supervisor finds orphans by it.
pub fn is_private(name: &str) -> bool {
    PRIVATE.contains(&name) || PRIVATE_PREFIXES.iter().any(|it| name.starts_with(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_the_supervisor_alone_is_private() {
        for name in [
            "MAINPID",
            "LISTEN_FDNAMES",
            "WATCHDOG_USEC",
            "MAINSTAY_STATE_DIR",
        ] {
            assert!(is_private(name), "{name}");
        }
        for name in [
            "PATH",
            "MAINPIDS",
            "MAINSTAY_INSTANCE",
            "AWS_SECRET_ACCESS_KEY",
        ] {
            assert!(!is_private(name), "{name}");
        }
    }
}
