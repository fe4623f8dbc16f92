//! Who started this process.

use std::env;

/// What an installed image path on Windows ends with: the one sign that the Service Control Manager started the process. Nothing is probed.
pub const UNDER_SCM: &str = "--under-scm";

/// What runs services on a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Manager {
    /// The Windows Service Control Manager.
    WindowsScm,
    /// systemd, for the system or a user.
    Systemd,
    /// launchd (macOS).
    Launchd,
    /// OpenRC.
    OpenRc,
    /// mainstay's own supervisor.
    Mainstay,
    /// None that is known: somebody at a terminal, a script, a container, or a manager that says nothing of itself.
    None,
}

impl Manager {
    /// Who started this process, by what it has said: an argument on Windows, elsewhere the environment.
    pub fn current() -> Self {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        if env::args_os().any(|argument| argument == UNDER_SCM) {
            return Self::WindowsScm;
        }
        if is_set("MAINSTAY_DATA_DIR") {
            return Self::Mainstay;
        }
        // Children of a service inherit the variables of systemd; the pid in them is not theirs (systemd ≥ 248).
        let is_ours = match env::var("SYSTEMD_EXEC_PID") {
            Ok(pid) => pid == std::process::id().to_string(),
            Err(_) => is_set("INVOCATION_ID"),
        };
        if is_ours {
            return Self::Systemd;
        }
        if env::var("XPC_SERVICE_NAME").is_ok_and(|name| name != "0") {
            return Self::Launchd;
        }
        if is_set("RC_SVCNAME") {
            return Self::OpenRc;
        }
        Self::None
    }
}

/// Whether no service manager started this process, as far as can be told.
pub fn is_interactive() -> bool {
    Manager::current() == Manager::None
}
