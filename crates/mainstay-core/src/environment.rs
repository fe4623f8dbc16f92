//! The variables that services inherit from the supervisor's environment.
//!
//! No service inherits variables that describe the supervisor itself (its sockets, credentials,
//! watchdog) or the request that started it (its trace). Otherwise, a service that runs as the
//! supervisor's account inherits everything. A service of another account inherits [`BASE`] and the
//! variables named in its manifest.

use crate::trace::TraceContext;

/// The variables that a service of another account inherits unless its own account sets them.
pub const BASE: [&str; 3] = ["PATH", "LANG", "TZ"];

/// Variables that are meant for a single process: systemd.exec(5), sd_notify(3), sd_listen_fds(3),
/// W3C Trace Context, and mainstay's own.
const PRIVATE: [&str; 19] = [
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
    TraceContext::PARENT_VARIABLE,
    TraceContext::STATE_VARIABLE,
];

/// Name prefixes of further variables of this kind.
const PRIVATE_PREFIXES: [&str; 3] = ["LISTEN_", "MEMORY_PRESSURE_", "WATCHDOG_"];

/// Returns whether no service inherits this variable. `MAINSTAY_INSTANCE` is inherited, because an
/// outer supervisor identifies orphans by it.
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
            "TRACEPARENT",
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
