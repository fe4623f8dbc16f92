//! Settings for the Windows Service Control Manager.

use std::time::Duration;

use crate::Trigger;

/// Settings for the Windows Service Control Manager only.
///
/// ```
/// use std::time::Duration;
///
/// use mainstay::{ErrorControl, ServiceSid, Start, Trigger};
///
/// let orders = mainstay::service("orders").start(Start::Manual).windows(|windows| {
///     windows
///         .preshutdown(Duration::from_secs(60))
///         .sid(ServiceSid::Restricted)
///         .privileges(["SeChangeNotifyPrivilege"])
///         .error_control(ErrorControl::Ignore)
///         .trigger(Trigger::network_up())
///         .command_on_failure(r"C:\orders\report.exe")
/// });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "nothing changes before the definition has it"]
pub struct Windows {
    pub(crate) preshutdown: Option<Duration>,
    pub(crate) load_order_group: Option<String>,
    pub(crate) sid: ServiceSid,
    pub(crate) privileges: Option<Vec<String>>,
    pub(crate) error_control: ErrorControl,
    pub(crate) shows_windows: bool,
    pub(crate) command_on_failure: Option<String>,
    pub(crate) reboot_message: Option<String>,
    pub(crate) triggers: Vec<Trigger>,
    pub(crate) security: Option<String>,
}

/// The service's SID type (`SERVICE_SID_INFO`): determines whether access control lists can name
/// the service itself.
///
/// ```
/// use mainstay::ServiceSid;
///
/// let orders = mainstay::service("orders").windows(|windows| windows.sid(ServiceSid::None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServiceSid {
    /// No service SID.
    None,
    /// `NT SERVICE\name` is in the process token.
    #[default]
    Unrestricted,
    /// The same, and the service can write only to objects that grant write access to its SID.
    Restricted,
}

/// The system's response if the service fails to start at boot (`dwErrorControl`).
///
/// ```
/// use mainstay::ErrorControl;
///
/// let orders = mainstay::service("orders")
///     .windows(|windows| windows.error_control(ErrorControl::Severe));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorControl {
    /// Continues the boot.
    Ignore,
    /// Logs the failure and continues the boot.
    #[default]
    Normal,
    /// Restarts with the last known good configuration.
    Severe,
    /// The same. If that configuration is already in use, the boot fails.
    Critical,
}

impl Windows {
    /// Requests a preshutdown notification, which arrives before all others, with this much time to
    /// stop.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let orders = mainstay::service("orders")
    ///     .windows(|windows| windows.preshutdown(Duration::from_secs(60)));
    /// ```
    pub fn preshutdown(self, timeout: Duration) -> Self {
        let preshutdown = Some(timeout);
        Self {
            preshutdown,
            ..self
        }
    }

    /// Sets the load order group.
    ///
    /// ```
    /// let orders = mainstay::service("orders")
    ///     .windows(|windows| windows.load_order_group("NetworkProvider"));
    /// ```
    pub fn load_order_group(self, group: impl Into<String>) -> Self {
        let load_order_group = Some(group.into());
        Self {
            load_order_group,
            ..self
        }
    }

    /// Sets the service's SID type, which determines whether access control lists can name the
    /// service. Default: they can.
    ///
    /// ```
    /// use mainstay::ServiceSid;
    ///
    /// let orders = mainstay::service("orders")
    ///     .windows(|windows| windows.sid(ServiceSid::Restricted));
    /// ```
    pub fn sid(self, sid: ServiceSid) -> Self {
        Self { sid, ..self }
    }

    /// Limits the process token to these privileges, such as `SeChangeNotifyPrivilege`. All others
    /// are removed.
    ///
    /// ```
    /// let orders = mainstay::service("orders")
    ///     .windows(|windows| windows.privileges(["SeTcbPrivilege"]));
    /// ```
    pub fn privileges<P: Into<String>>(self, privileges: impl IntoIterator<Item = P>) -> Self {
        let privileges = Some(privileges.into_iter().map(Into::into).collect());
        Self { privileges, ..self }
    }

    /// Adds a system event that starts or stops the service.
    ///
    /// ```
    /// use mainstay::Trigger;
    ///
    /// let orders = mainstay::service("orders")
    ///     .windows(|windows| windows.trigger(Trigger::network_up()));
    /// ```
    pub fn trigger(mut self, trigger: Trigger) -> Self {
        self.triggers.push(trigger);
        self
    }

    /// Sets the access control list that determines who may start, stop, query and change the
    /// service, in the Security Descriptor Definition Language (`D:…`). Default: the system's, or
    /// the one already set.
    ///
    /// ```
    /// let orders = mainstay::service("orders")
    ///     .windows(|windows| windows.security("D:(A;;GA;;;BA)"));
    /// ```
    pub fn security(self, sddl: impl Into<String>) -> Self {
        let security = Some(sddl.into());
        Self { security, ..self }
    }

    /// Sets the system's response if the service fails to start at boot. Default: it logs the
    /// failure.
    ///
    /// ```
    /// use mainstay::ErrorControl;
    ///
    /// let orders = mainstay::service("orders")
    ///     .windows(|windows| windows.error_control(ErrorControl::Ignore));
    /// ```
    pub fn error_control(self, error_control: ErrorControl) -> Self {
        Self {
            error_control,
            ..self
        }
    }

    /// Allows the service to show windows (`SERVICE_INTERACTIVE_PROCESS`), for
    /// [`Account::LocalSystem`](crate::Account::LocalSystem) only. Windows has ignored this since
    /// Vista unless configured otherwise.
    ///
    /// ```
    /// let orders = mainstay::service("orders").windows(|windows| windows.shows_windows());
    /// ```
    pub fn shows_windows(self) -> Self {
        Self {
            shows_windows: true,
            ..self
        }
    }

    /// Sets a command line to run on failures, after the last restart of
    /// [`Recovery::restart_after`](crate::Recovery::restart_after).
    ///
    /// ```
    /// let orders = mainstay::service("orders")
    ///     .windows(|windows| windows.command_on_failure("report.exe"));
    /// ```
    pub fn command_on_failure(self, command: impl Into<String>) -> Self {
        let command_on_failure = Some(command.into());
        Self {
            command_on_failure,
            ..self
        }
    }

    /// Reboots the machine on the failure that follows the last restart, and sends this message to
    /// users.
    ///
    /// ```
    /// let orders = mainstay::service("orders")
    ///     .windows(|windows| windows.reboot_on_failure("out of orders"));
    /// ```
    pub fn reboot_on_failure(self, message: impl Into<String>) -> Self {
        let reboot_message = Some(message.into());
        Self {
            reboot_message,
            ..self
        }
    }
}
