//! Settings for systemd.

use std::ffi::OsString;
use std::path::PathBuf;

/// Settings for systemd only. A unit is sandboxed as strictly as possible for an unknown program.
/// It can write only to its own state directory (`$STATE_DIRECTORY`) and to temporary files, has no
/// capabilities, cannot see devices or home directories, and cannot gain privileges.
///
/// ```
/// let orders = mainstay::service("orders").systemd(|systemd| {
///     systemd
///         .capability("CAP_NET_BIND_SERVICE")
///         .writable("/srv/orders")
///         .state_directory("orders")
///         .credential("database", "/etc/orders/database-password")
/// });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "nothing changes before the definition has it"]
pub struct Systemd {
    pub(crate) sandbox: bool,
    pub(crate) capabilities: Vec<String>,
    pub(crate) writable: Vec<PathBuf>,
    pub(crate) state_directory: Option<String>,
    pub(crate) credentials: Vec<(String, PathBuf)>,
    pub(crate) makes_code: bool,
    pub(crate) devices: bool,
    pub(crate) passed_variables: Vec<String>,
    pub(crate) notified_by_tree: bool,
    pub(crate) confines_root: bool,
    pub(crate) before_start: Option<Vec<OsString>>,
}

impl Default for Systemd {
    fn default() -> Self {
        Self {
            sandbox: true,
            capabilities: Vec::new(),
            writable: Vec::new(),
            state_directory: None,
            credentials: Vec::new(),
            makes_code: false,
            devices: false,
            passed_variables: Vec::new(),
            notified_by_tree: false,
            confines_root: false,
            before_start: None,
        }
    }
}

impl Systemd {
    /// Disables the sandbox. [`Account::LocalSystem`](crate::Account::LocalSystem) has none unless
    /// it is [requested](Systemd::confine_root).
    ///
    /// ```
    /// let orders = mainstay::service("orders").systemd(|systemd| systemd.without_sandbox());
    /// ```
    pub fn without_sandbox(self) -> Self {
        Self {
            sandbox: false,
            ..self
        }
    }

    /// Grants a capability, such as `CAP_NET_BIND_SERVICE` for ports below 1024: capabilities(7).
    ///
    /// ```
    /// let orders = mainstay::service("orders")
    ///     .systemd(|systemd| systemd.capability("CAP_NET_RAW"));
    /// ```
    pub fn capability(mut self, name: impl Into<String>) -> Self {
        self.capabilities.push(name.into());
        self
    }

    /// Sets the name of the service's private state directory, `/var/lib/NAME`. Default: the
    /// service's name.
    ///
    /// ```
    /// let orders = mainstay::service("orders").systemd(|systemd| systemd.state_directory("shop"));
    /// ```
    pub fn state_directory(self, name: impl Into<String>) -> Self {
        let state_directory = Some(name.into());
        Self {
            state_directory,
            ..self
        }
    }

    /// Passes a file that only root can read to the service, as `$CREDENTIALS_DIRECTORY/NAME`
    /// (systemd 247).
    ///
    /// ```
    /// let orders = mainstay::service("orders")
    ///     .systemd(|systemd| systemd.credential("key", "/etc/orders.key"));
    /// ```
    pub fn credential(mut self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.credentials.push((name.into(), path.into()));
        self
    }

    /// Allows the service to generate code at run time, as Java, Node.js and other just-in-time
    /// compilers do.
    ///
    /// ```
    /// let orders = mainstay::service("orders").systemd(|systemd| systemd.makes_code());
    /// ```
    pub fn makes_code(self) -> Self {
        Self {
            makes_code: true,
            ..self
        }
    }

    /// Allows access to the machine's devices.
    ///
    /// ```
    /// let orders = mainstay::service("orders").systemd(|systemd| systemd.devices());
    /// ```
    pub fn devices(self) -> Self {
        Self {
            devices: true,
            ..self
        }
    }

    /// Passes a variable of systemd's own environment to the service, which otherwise starts with a
    /// clean one: `PassEnvironment=`.
    ///
    /// ```
    /// let orders = mainstay::service("orders").systemd(|systemd| systemd.pass_variable("TZ"));
    /// ```
    pub fn pass_variable(mut self, name: impl Into<String>) -> Self {
        self.passed_variables.push(name.into());
        self
    }

    /// Enables the sandbox for [`Account::LocalSystem`](crate::Account::LocalSystem), too: for a
    /// supervisor that starts its programs as another user. The service keeps root's capabilities.
    ///
    /// ```
    /// let orders = mainstay::service("orders").systemd(|systemd| systemd.confine_root());
    /// ```
    pub fn confine_root(self) -> Self {
        Self {
            confines_root: true,
            ..self
        }
    }

    /// Sets a command that must succeed before the program is started: `ExecStartPre=+`. It runs
    /// with systemd's own rights and outside the sandbox, whatever the service's account.
    ///
    /// ```
    /// let orders = mainstay::service("orders")
    ///     .systemd(|systemd| systemd.before_start(["/opt/orders/migrate"]));
    /// ```
    pub fn before_start<A: Into<OsString>>(self, argv: impl IntoIterator<Item = A>) -> Self {
        let before_start = Some(argv.into_iter().map(Into::into).collect());
        Self {
            before_start,
            ..self
        }
    }

    /// Allows every process of the service to send notifications, not only the main process:
    /// `NotifyAccess=all`.
    ///
    /// ```
    /// let orders = mainstay::service("orders").systemd(|systemd| systemd.notified_by_tree());
    /// ```
    pub fn notified_by_tree(self) -> Self {
        Self {
            notified_by_tree: true,
            ..self
        }
    }

    /// Allows the service to write to an existing absolute path.
    ///
    /// ```
    /// let orders = mainstay::service("orders").systemd(|systemd| systemd.writable("/srv/orders"));
    /// ```
    pub fn writable(mut self, path: impl Into<PathBuf>) -> Self {
        self.writable.push(path.into());
        self
    }
}
