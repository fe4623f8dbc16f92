//! Service definitions, used by the service manager and by the service's own process.

mod builder;
mod systemd;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::service::STATE_FAILED;
use crate::{Accepts, Manager, Password};

pub use systemd::Systemd;
pub use windows::{ErrorControl, ServiceSid, Windows};

/// Begins the definition of a service. `name` identifies it to the service manager, which limits
/// the names it accepts. The Service Control Manager accepts 1 to 256 characters without `/` and
/// `\`, such as `GoSampleService`. Unix managers accept letters, digits, `-`, `_`, `.` and `@`.
///
/// A definition is validated when it is used. All mistakes are reported at once.
///
/// # Examples
/// A program that uses this library:
///
/// ```
/// use std::time::Duration;
///
/// use mainstay::{Accepts, Account, Recovery, Start};
///
/// let orders = mainstay::service("orders")
///     .display_name("Orders")
///     .description("Accepts orders")
///     .version(env!("CARGO_PKG_VERSION"))
///     .account(Account::LocalService)
///     .needs("postgresql")
///     .env("ORDERS_PORT", "8080")
///     .start(Start::Delayed)
///     .start_timeout(Duration::from_secs(120))
///     .graceful(Duration::from_secs(20))
///     .recovery(Recovery::default())
///     .accepts(Accepts::RELOAD);
/// assert_eq!(orders.name(), "orders");
/// ```
///
/// A program that does not:
///
/// ```
/// use mainstay::{Limit, Readiness, Scope, Start, StopScope};
///
/// let redis = mainstay::service("redis")
///     .executable("/usr/bin/redis-server")
///     .arguments(["--port", "6379"])
///     .working_dir("/var/lib/redis")
///     .readiness(Readiness::Exec)
///     .stop_scope(StopScope::Tree)
///     .limit(Limit::OpenFiles, 65_536)
///     .nice(5)
///     .start(Start::Manual)
///     .scope(Scope::User);
/// ```
pub fn service(name: impl Into<String>) -> Definition {
    Definition {
        name: name.into(),
        display_name: None,
        description: None,
        version: None,
        log_dir: None,
        executable: None,
        arguments: None,
        working_dir: None,
        env: BTreeMap::new(),
        account: Account::default(),
        needs: Vec::new(),
        wants: Vec::new(),
        start: Start::default(),
        start_timeout: Duration::from_secs(60),
        graceful: Duration::from_secs(30),
        recovery: Recovery::default(),
        accepts: Accepts::default(),
        readiness: Readiness::default(),
        ready_check: None,
        stop_signal: "TERM".to_owned(),
        stop_scope: StopScope::default(),
        reload_signal: "HUP".to_owned(),
        reload_command: None,
        env_file: None,
        nice: None,
        cpus: Vec::new(),
        limits: BTreeMap::new(),
        listen: Vec::new(),
        watchdog: None,
        supervises: false,
        shared_process: None,
        manager: None,
        scope: Scope::default(),
        windows: Windows::default(),
        systemd: Systemd::default(),
    }
}

/// The definition of a service. Passwords and the values of environment variables never appear in
/// `Debug` output, errors or logs.
///
/// [`Definition::main`] makes a whole program of it. The methods do the same one by one:
///
/// ```no_run
/// use mainstay::State;
///
/// # fn main() -> Result<(), mainstay::Error> {
/// let orders = mainstay::service("orders").executable("/opt/orders/orders");
/// orders.install()?;
/// orders.start_now()?;
/// assert_eq!(orders.status()?.state, State::Running);
/// orders.stop()?;
/// orders.uninstall()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing happens before it is run, installed or controlled"]
#[cfg_attr(
    not(unix),
    expect(dead_code, reason = "for managers that are not here")
)]
pub struct Definition {
    pub(crate) name: String,
    pub(crate) display_name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) log_dir: Option<PathBuf>,
    pub(crate) executable: Option<PathBuf>,
    pub(crate) arguments: Option<Vec<OsString>>,
    pub(crate) working_dir: Option<PathBuf>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) account: Account,
    pub(crate) needs: Vec<String>,
    pub(crate) wants: Vec<String>,
    pub(crate) start: Start,
    pub(crate) start_timeout: Duration,
    pub(crate) graceful: Duration,
    pub(crate) recovery: Recovery,
    pub(crate) accepts: Accepts,
    pub(crate) readiness: Readiness,
    pub(crate) ready_check: Option<Vec<OsString>>,
    pub(crate) stop_signal: String,
    pub(crate) stop_scope: StopScope,
    pub(crate) reload_signal: String,
    pub(crate) reload_command: Option<Vec<OsString>>,
    pub(crate) env_file: Option<PathBuf>,
    pub(crate) nice: Option<i8>,
    pub(crate) cpus: Vec<u16>,
    pub(crate) limits: BTreeMap<Limit, u64>,
    pub(crate) listen: Vec<String>,
    pub(crate) watchdog: Option<Duration>,
    pub(crate) supervises: bool,
    /// The name of the program, if its process can run other services, too.
    pub(crate) shared_process: Option<String>,
    pub(crate) manager: Option<Manager>,
    pub(crate) scope: Scope,
    pub(crate) windows: Windows,
    pub(crate) systemd: Systemd,
}

/// The owner of a service, for managers that distinguish system services from user services.
///
/// ```
/// let orders = mainstay::service("orders").scope(mainstay::Scope::User);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// A system service, started at boot. Root is required to install it.
    #[default]
    System,
    /// A service of the user who installs it, started when that user logs in. Root is not required.
    /// Only systemd supports user services; Windows ignores the scope.
    User,
}

/// The condition under which a service counts as started (Unix).
///
/// ```
/// let orders = mainstay::service("orders").readiness(mainstay::Readiness::Exec);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Readiness {
    /// The service reports that it is ready: by [`Context::ready`](crate::Context::ready),
    /// [`notify::ready`](crate::notify::ready) or any other implementation of sd_notify(3).
    #[default]
    Notify,
    /// The process has started. For programs without readiness notification.
    Exec,
}

/// The processes that are asked to stop. After [`Definition::graceful`], all remaining processes
/// are killed, if the manager tracks them.
///
/// ```
/// let orders = mainstay::service("orders").stop_scope(mainstay::StopScope::Tree);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopScope {
    /// The main process only. It stops its own children.
    #[default]
    Main,
    /// Every process of the service.
    Tree,
}

/// A resource limit of setrlimit(2), applied to each process.
///
/// ```
/// let orders = mainstay::service("orders").limit(mainstay::Limit::CoreSize, 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// `RLIMIT_NOFILE`: open file descriptors.
    OpenFiles,
    /// `RLIMIT_NPROC`: processes and threads of the user.
    Processes,
    /// `RLIMIT_CORE`: size of a core dump, in bytes.
    CoreSize,
    /// `RLIMIT_MEMLOCK`: locked memory, in bytes.
    LockedMemory,
}

/// The start mode of a service.
///
/// ```
/// let orders = mainstay::service("orders").start(mainstay::Start::Delayed);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Start {
    /// Started at boot.
    #[default]
    Automatic,
    /// Started at boot, after the automatic services (Windows: about two minutes later; elsewhere
    /// the same as [`Start::Automatic`]).
    Delayed,
    /// Started on request only.
    Manual,
    /// Never started.
    Disabled,
}

/// The account that a service runs as.
///
/// ```no_run
/// use mainstay::{Account, Password};
///
/// # fn main() -> std::io::Result<()> {
/// let password = Password::from_file("/run/secrets/orders")?;
/// let account = Account::User(r"SHOP\orders".into(), Some(password));
/// let orders = mainstay::service("orders").account(account);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Account {
    /// An account for this service alone, with minimal rights: `NT SERVICE\name` on Windows.
    #[default]
    Virtual,
    /// `LocalService` on Windows: minimal rights, anonymous on the network.
    LocalService,
    /// `NetworkService` on Windows: minimal rights, the machine's identity on the network.
    NetworkService,
    /// Root on Unix, `LocalSystem` on Windows: unrestricted.
    LocalSystem,
    /// A group managed service account, `DOMAIN\name$`, whose password the domain manages
    /// (Windows).
    Managed(String),
    /// A user: `name`, `DOMAIN\name` or `name@domain`. Windows requires the password.
    User(String, Option<Password>),
}

/// The recovery policy: the manager's response when the service fails on its own.
///
/// The default is the part of the contract of exit codes (docs/exit-codes.md) that service managers
/// support: a failure is followed by a restart after a growing delay, an exit with 0 or 201
/// ([`Exit::state_failed`](crate::Exit::state_failed)) is not. Settings that the manager does not
/// support are in [`Installed::losses`](crate::Installed::losses).
///
/// ```
/// use std::time::Duration;
///
/// use mainstay::Recovery;
///
/// let recovery = Recovery {
///     restart_after: vec![Duration::from_secs(1), Duration::from_secs(10)],
///     limit: Some((5, Duration::from_secs(600))),
///     // 78: the configuration is invalid, which no restart mends.
///     halts: [78, 201].into(),
///     ..Recovery::default()
/// };
/// let orders = mainstay::service("orders").recovery(recovery);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The delays before the first restart, the second one, and so on. The last delay is repeated.
    /// If empty, the service is not restarted.
    pub restart_after: Vec<Duration>,
    /// The uptime after which the next failure uses the first delay again.
    pub reset_after: Duration,
    /// Restarts the service only after a crash, not after a regular exit with a nonzero code. For
    /// supervisors, which exit with such codes on purpose.
    pub crashes_only: bool,
    /// The start limit: the service stays down after more than this many starts within this time.
    /// Default: no limit.
    pub limit: Option<(u32, Duration)>,
    /// Exit codes after which the service stays down as failed (systemd's
    /// `RestartPreventExitStatus`). Default: 201.
    pub halts: BTreeSet<u8>,
    /// Exit codes other than 0 that count as success. A program that uses this library reports them
    /// to the Windows Service Control Manager as 0.
    pub clean: BTreeSet<u8>,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            restart_after: [1, 5, 30].map(Duration::from_secs).to_vec(),
            reset_after: Duration::from_secs(600),
            crashes_only: false,
            limit: None,
            halts: [STATE_FAILED.get() as u8].into(),
            clean: BTreeSet::new(),
        }
    }
}

impl Recovery {
    /// Returns whether the manager restarts the service after an exit with a code that asks for it.
    pub(crate) fn restarts_after_exits(&self) -> bool {
        !self.restart_after.is_empty() && !self.crashes_only
    }

    /// Returns the exit codes that keep the manager from a restart that would follow otherwise.
    pub(crate) fn final_codes(&self) -> &BTreeSet<u8> {
        static NONE: BTreeSet<u8> = BTreeSet::new();
        if self.restarts_after_exits() {
            &self.halts
        } else {
            &NONE
        }
    }
}

impl Account {
    /// Returns the Windows account name for the given service, such as `NT SERVICE\orders`.
    ///
    /// ```
    /// use mainstay::Account;
    ///
    /// assert_eq!(Account::Virtual.windows_name("orders"), r"NT SERVICE\orders");
    /// assert_eq!(Account::User("joe".into(), None).windows_name("orders"), r".\joe");
    /// ```
    #[must_use]
    pub fn windows_name(&self, service: &str) -> String {
        match self {
            Self::Virtual => format!("NT SERVICE\\{service}"),
            Self::LocalService => "NT AUTHORITY\\LocalService".to_owned(),
            Self::NetworkService => "NT AUTHORITY\\NetworkService".to_owned(),
            Self::LocalSystem => "LocalSystem".to_owned(),
            Self::User(name, _) if !name.contains(['\\', '@']) => format!(".\\{name}"),
            Self::Managed(name) | Self::User(name, _) => name.clone(),
        }
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition")
            .field("name", &self.name)
            .field("executable", &self.executable)
            .field("arguments", &self.arguments)
            .field("env", &self.env.keys())
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// Returns the reason why a name is invalid for Unix managers, which use it in file names and as a
/// word in scripts.
#[cfg(any(unix, test))]
pub(crate) fn wrong_name(name: &str) -> Option<String> {
    const LONGEST: usize = 200;
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    let is_good = (1..=LONGEST).contains(&name.len())
        && name.bytes().all(is_inner)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !name.ends_with(['-', '.', '@']);
    (!is_good).then(|| {
        format!(
            "a name consists of 1 to {LONGEST} characters A-Z, a-z, 0-9, -, _, . and @, starts with a letter or digit, and does not end with -, . or @"
        )
    })
}

/// Returns the reason why a name is invalid for the Service Control Manager ("CreateServiceW").
pub(crate) fn wrong_windows_name(name: &str) -> Option<String> {
    const LONGEST: usize = 256;
    let is_good = (1..=LONGEST).contains(&name.encode_utf16().count())
        && !name.contains(|char: char| char.is_control() || matches!(char, '/' | '\\'))
        && name.trim() == name;
    (!is_good).then(|| format!("a name has 1 to {LONGEST} characters, none of them / or \\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_decides_what_is_a_name() {
        let check = |name: &str, windows: bool, unix: bool| {
            let is_good = (
                wrong_windows_name(name).is_none(),
                wrong_name(name).is_none(),
            );
            assert_eq!(is_good, (windows, unix), "{name:?}");
        };
        let longest = "x".repeat(256);
        check("GoSampleService", true, true);
        check("com.example.orders_2", true, true);
        check("openvpn@office", true, true);
        check("Orders Service (EU)", true, false);
        check(&longest, true, false);
        check(&format!("{longest}x"), false, false);
        check("", false, false);
        check("a/b", false, false);
        check("a\\b", false, false);
        check("a\0b", false, false);
        check("../x", false, false);
        check("-x", true, false);
        check("$(reboot)", true, false);
    }
}
