//! Service managers, and detection of the one that started this process.

use std::env;
use std::fmt;

/// The argument that an installed image path on Windows ends with: the only sign that the Service
/// Control Manager started the process. Nothing is probed.
///
/// ```
/// let is_service = std::env::args().any(|argument| argument == mainstay::UNDER_SCM);
/// assert!(!is_service);
/// ```
pub const UNDER_SCM: &str = "--under-scm";

/// The environment variable with the name of a manager that does not identify itself.
pub(crate) const MANAGER_VARIABLE: &str = "MAINSTAY_MANAGER";

/// A service manager.
///
/// ```
/// use mainstay::Manager;
///
/// assert_eq!(Manager::from_name("systemd"), Some(Manager::Systemd));
/// assert_eq!(Manager::Systemd.to_string(), "systemd");
/// match Manager::current() {
///     Manager::None => println!("started by hand"),
///     manager => println!("started by {manager}"),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Manager {
    /// The Windows Service Control Manager.
    WindowsScm,
    /// systemd, for the system or a user.
    Systemd,
    /// OpenRC, with supervise-daemon.
    OpenRc,
    /// Scripts in /etc/init.d, as the Linux Standard Base describes them.
    Sysv,
    /// runit.
    Runit,
    /// s6.
    S6,
    /// dinit.
    Dinit,
    /// Upstart.
    Upstart,
    /// procd (OpenWrt).
    Procd,
    /// launchd (macOS): system daemons and user agents.
    Launchd,
    /// rc.d (FreeBSD).
    Rcd,
    /// The Service Management Facility (illumos, Solaris).
    Smf,
    /// The System Resource Controller (AIX).
    Aix,
    /// Mainstay's own supervisor.
    Mainstay,
    /// No known manager: a terminal, a script, a container, or a manager that does not identify
    /// itself.
    None,
}

impl Manager {
    /// Returns the manager that started this process, as identified by an argument on Windows and
    /// by the environment elsewhere.
    ///
    /// ```
    /// let is_service = mainstay::Manager::current() != mainstay::Manager::None;
    /// ```
    #[must_use]
    pub fn current() -> Self {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        if env::args_os().any(|argument| argument == UNDER_SCM) {
            return Self::WindowsScm;
        }
        if is_set("MAINSTAY_DATA_DIR") {
            return Self::Mainstay;
        }
        // Child processes of a service inherit systemd's variables, but with the service's PID
        // (systemd ≥ 248).
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
        if is_set("SMF_FMRI") {
            return Self::Smf;
        }
        if is_set("UPSTART_JOB") {
            return Self::Upstart;
        }
        // Set by the scripts that `install` writes, for managers that do not identify themselves.
        let said = env::var(MANAGER_VARIABLE).ok();
        said.and_then(|name| Self::from_name(&name))
            .unwrap_or(Self::None)
    }

    /// All managers that services can be installed into.
    ///
    /// ```
    /// use mainstay::Manager;
    ///
    /// assert!(Manager::ALL.contains(&Manager::Systemd));
    /// ```
    pub const ALL: [Self; NAMES.len()] = {
        let mut all = [Self::None; NAMES.len()];
        let mut index = 0;
        while index < NAMES.len() {
            all[index] = NAMES[index].0;
            index += 1;
        }
        all
    };

    /// Returns the manager's name on the command line.
    ///
    /// ```
    /// assert_eq!(mainstay::Manager::OpenRc.name(), "openrc");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(manager, _)| *manager == self)
            .map_or("none", |(_, name)| name)
    }

    /// Returns the manager with this name.
    ///
    /// ```
    /// use mainstay::Manager;
    ///
    /// assert_eq!(Manager::from_name("s6"), Some(Manager::S6));
    /// ```
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let found = NAMES.iter().find(|(_, its)| *its == name);
        found.map(|(manager, _)| *manager)
    }
}

const NAMES: [(Manager, &str); 14] = [
    (Manager::WindowsScm, "windows"),
    (Manager::Systemd, "systemd"),
    (Manager::OpenRc, "openrc"),
    (Manager::Sysv, "sysv"),
    (Manager::Runit, "runit"),
    (Manager::S6, "s6"),
    (Manager::Dinit, "dinit"),
    (Manager::Upstart, "upstart"),
    (Manager::Procd, "procd"),
    (Manager::Launchd, "launchd"),
    (Manager::Rcd, "rcd"),
    (Manager::Smf, "smf"),
    (Manager::Aix, "aix"),
    (Manager::Mainstay, "embedded"),
];

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The setting that determines whether a service starts at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enablement {
    Enabled,
    Disabled,
}

impl fmt::Display for Enablement {
    /// The verb that sets it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enable",
            Self::Disabled => "disable",
        })
    }
}

/// Returns whether no service manager started this process, as far as this can be determined.
///
/// ```
/// if mainstay::is_interactive() {
///     println!("press ctrl-c to stop");
/// }
/// ```
#[must_use]
pub fn is_interactive() -> bool {
    Manager::current() == Manager::None
}
