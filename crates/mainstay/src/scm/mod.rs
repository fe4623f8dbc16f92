//! The model of a Windows service: its settings, the order in which they are applied, and what is
//! undone after a failure.
//!
//! Every decision is made without Windows: [`settings`] translates a definition, and [`manage`]
//! applies it through [`Scm`]. The real implementation of [`Scm`] is in `sys`; tests use a stateful
//! fake.

mod command_line;
#[cfg(test)]
mod fake;
pub(crate) mod manage;
pub(crate) mod refusal;
pub(crate) mod rights;
mod settings;
mod shared;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::{Password, Trigger};

/// The status that the manager reports for a service (`SERVICE_STATUS_PROCESS`).
///
/// ```no_run
/// use std::time::Duration;
///
/// use mainstay::State;
///
/// # fn main() -> Result<(), mainstay::Error> {
/// let orders = mainstay::service("orders");
/// let mut status = orders.status()?;
/// while status.state.is_pending() {
///     status = orders.wait_for_change(status.state, Duration::from_secs(1))?;
/// }
/// match (status.state, status.exit_code()) {
///     (State::Stopped, Some(0)) => println!("stopped"),
///     (State::Stopped, code) => println!("failed: {code:?}"),
///     _ => println!("{status}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// The service's state.
    pub state: State,
    /// The process ID, if there is a process.
    pub pid: Option<u32>,
    /// The exit code of the last run. 0 is success; 1066 refers to [`ServiceStatus::own_code`].
    pub code: u32,
    /// The service-specific exit code, if [`ServiceStatus::code`] is 1066.
    pub own_code: u32,
    /// The checkpoint, which is incremented while a pending state makes progress.
    pub checkpoint: u32,
    /// The time within which the next checkpoint is reported.
    pub wait_hint: Duration,
}

/// The seven states of a service, with Microsoft's numbers.
///
/// ```
/// use mainstay::State;
///
/// assert_eq!(State::Running as u32, 4);
/// assert_eq!(State::StopPending.to_string(), "stop-pending");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum State {
    /// The service is not running.
    Stopped = 1,
    /// The service is starting.
    StartPending = 2,
    /// The service is stopping.
    StopPending = 3,
    /// The service is ready.
    Running = 4,
    /// The service is resuming after a pause.
    ContinuePending = 5,
    /// The service is pausing.
    PausePending = 6,
    /// The service is paused.
    Paused = 7,
}

impl ServiceStatus {
    /// Returns the status of a service that has not failed.
    #[cfg(unix)]
    pub(crate) fn new(state: State, pid: Option<u32>) -> Self {
        Self {
            state,
            pid,
            code: 0,
            own_code: 0,
            checkpoint: 0,
            wait_hint: Duration::ZERO,
        }
    }

    /// Adds the exit code of the service itself, where 0 is success.
    #[cfg(all(unix, feature = "managers"))]
    pub(crate) fn exited(self, own_code: u32) -> Self {
        let code = if own_code == 0 {
            0
        } else {
            refusal::SERVICE_SPECIFIC
        };
        Self {
            code,
            own_code,
            ..self
        }
    }

    /// Returns the exit code of the service itself, or `None` if the system reports another reason
    /// for the failure.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// if orders.status()?.exit_code() == Some(201) {
    ///     println!("its state failed to load");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn exit_code(&self) -> Option<u32> {
        match self.code {
            0 => Some(0),
            refusal::SERVICE_SPECIFIC => Some(self.own_code),
            _ => None,
        }
    }
}

impl State {
    /// Returns the state with Microsoft's number.
    #[cfg(windows)]
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Stopped,
            2 => Self::StartPending,
            3 => Self::StopPending,
            4 => Self::Running,
            5 => Self::ContinuePending,
            6 => Self::PausePending,
            7 => Self::Paused,
            _ => return None,
        })
    }

    /// Returns whether this is a transition to another state.
    ///
    /// ```
    /// use mainstay::State;
    ///
    /// assert!(State::StopPending.is_pending() && !State::Paused.is_pending());
    /// ```
    #[must_use]
    pub fn is_pending(self) -> bool {
        !matches!(self, Self::Stopped | Self::Running | Self::Paused)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::StartPending => "start-pending",
            Self::StopPending => "stop-pending",
            Self::Running => "running",
            Self::ContinuePending => "continue-pending",
            Self::PausePending => "pause-pending",
            Self::Paused => "paused",
        })
    }
}

impl fmt::Display for ServiceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        if let Some(pid) = self.pid {
            write!(f, ", pid {pid}")?;
        }
        if self.state.is_pending() {
            write!(f, ", checkpoint {}", self.checkpoint)?;
        }
        match (self.state, self.code) {
            (State::Stopped, refusal::SERVICE_SPECIFIC) => write!(f, ", code {}", self.own_code),
            (State::Stopped, refusal::NEVER_STARTED) => write!(f, ", never started"),
            (State::Stopped, 1..) => write!(f, ", system error {}", self.code),
            // The manager will restart the service.
            (State::StartPending, refusal::SERVICE_SPECIFIC) => {
                write!(f, ", restarting after code {}", self.own_code)
            }
            _ => Ok(()),
        }
    }
}

/// The start types `SERVICE_AUTO_START` and `SERVICE_DEMAND_START`.
const AUTO_START: u32 = 2;
const DEMAND_START: u32 = 3;

/// A setting that the manager stores for a service, each with its own call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Base(Base),
    Description(String),
    DelayedStart(bool),
    Failure(FailureActions),
    /// Set if the recovery actions also follow an exit with an error, not only a crash.
    FailureFlag(bool),
    /// The preshutdown timeout in milliseconds.
    Preshutdown(u32),
    /// The SID type, `SERVICE_SID_TYPE_…`.
    Sid(u32),
    Privileges(Vec<String>),
    Triggers(Vec<Trigger>),
    /// The access control list, as SDDL.
    Security(String),
    /// Set if the account may log on as a service.
    LogonRight(bool),
    Environment(Vec<(String, String)>),
    /// The program that contains the texts of the service's events. The event source is registered
    /// apart from the service.
    EventSource(Option<String>),
}

/// The kind of a [`Setting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Base,
    Description,
    DelayedStart,
    Failure,
    FailureFlag,
    Preshutdown,
    Sid,
    Privileges,
    Triggers,
    Security,
    LogonRight,
    Environment,
    EventSource,
}

/// The basic configuration, `QUERY_SERVICE_CONFIG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) display_name: String,
    pub(crate) shows_windows: bool,
    /// Set if the process of the service can run others, too (`SERVICE_WIN32_SHARE_PROCESS`).
    pub(crate) shares_process: bool,
    /// The start type: `SERVICE_AUTO_START` and so on.
    pub(crate) start_type: u32,
    /// The error control: `SERVICE_ERROR_NORMAL` and so on.
    pub(crate) error_control: u32,
    pub(crate) image_path: String,
    pub(crate) load_order_group: String,
    /// The dependencies. Groups have a `+` prefix.
    pub(crate) dependencies: Vec<String>,
    pub(crate) account: String,
    /// The password, which is never read back.
    pub(crate) password: Option<Password>,
}

/// The service types `SERVICE_WIN32_OWN_PROCESS`, `SERVICE_WIN32_SHARE_PROCESS` and
/// `SERVICE_INTERACTIVE_PROCESS`.
const OWN_PROCESS: u32 = 0x10;
pub(crate) const SHARE_PROCESS: u32 = 0x20;
pub(crate) const INTERACTIVE_PROCESS: u32 = 0x100;

impl Base {
    /// Returns the service type.
    pub(crate) fn service_type(&self) -> u32 {
        let process = if self.shares_process {
            SHARE_PROCESS
        } else {
            OWN_PROCESS
        };
        let interactive = if self.shows_windows {
            INTERACTIVE_PROCESS
        } else {
            0
        };
        process | interactive
    }
}

/// The recovery actions, `SERVICE_FAILURE_ACTIONS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FailureActions {
    /// The reset period in seconds.
    pub(crate) reset_after: u32,
    pub(crate) reboot_message: String,
    pub(crate) command: String,
    /// The actions: `SC_ACTION_…` and the delay in milliseconds.
    pub(crate) actions: Vec<(u32, u32)>,
}

impl FailureActions {
    /// Returns whether an action of this kind is among them.
    fn has(&self, kind: u32) -> bool {
        self.actions.iter().any(|(one, _)| *one == kind)
    }
}

impl Setting {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Base(_) => Kind::Base,
            Self::Description(_) => Kind::Description,
            Self::DelayedStart(_) => Kind::DelayedStart,
            Self::Failure(_) => Kind::Failure,
            Self::FailureFlag(_) => Kind::FailureFlag,
            Self::Preshutdown(_) => Kind::Preshutdown,
            Self::Sid(_) => Kind::Sid,
            Self::Privileges(_) => Kind::Privileges,
            Self::Triggers(_) => Kind::Triggers,
            Self::Security(_) => Kind::Security,
            Self::LogonRight(_) => Kind::LogonRight,
            Self::Environment(_) => Kind::Environment,
            Self::EventSource(_) => Kind::EventSource,
        }
    }

    /// Returns whether nothing is lost if the system does not support the setting.
    fn is_nothing(&self) -> bool {
        match self {
            Self::DelayedStart(is_set) | Self::FailureFlag(is_set) => !is_set,
            Self::Sid(kind) => *kind == 0,
            Self::Privileges(names) => names.is_empty(),
            Self::Triggers(triggers) => triggers.is_empty(),
            _ => false,
        }
    }
}

/// For people. Values of environment variables are not shown.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kind())?;
        match self {
            Self::Base(base) => write!(
                f,
                "{} as {}, start type {}",
                base.image_path, base.account, base.start_type
            ),
            Self::Description(text) => f.write_str(text),
            Self::DelayedStart(is_set) | Self::FailureFlag(is_set) | Self::LogonRight(is_set) => {
                write!(f, "{is_set}")
            }
            Self::Failure(failure) => {
                let (actions, seconds) = (&failure.actions, failure.reset_after);
                write!(f, "{actions:?}, anew after {seconds} s")
            }
            Self::Preshutdown(millis) => write!(f, "{millis} ms"),
            Self::Sid(kind) => write!(f, "type {kind}"),
            Self::Privileges(names) => f.write_str(&names.join(" ")),
            Self::Triggers(triggers) => write!(f, "{triggers:?}"),
            Self::Security(text) => f.write_str(text),
            Self::Environment(variables) => {
                let names: Vec<&str> = variables.iter().map(|(name, _)| &**name).collect();
                f.write_str(&names.join(" "))
            }
            Self::EventSource(program) => f.write_str(program.as_deref().unwrap_or("none")),
        }
    }
}

impl Kind {
    /// Returns whether the setting remains when the service is deleted.
    fn outlives_service(self) -> bool {
        matches!(self, Self::EventSource | Self::LogonRight)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "configuration",
            Self::Description => "description",
            Self::DelayedStart => "delayed start",
            Self::Failure => "failure actions",
            Self::FailureFlag => "actions for failures other than crashes",
            Self::Preshutdown => "preshutdown timeout",
            Self::Sid => "security identifier",
            Self::Privileges => "privileges",
            Self::Triggers => "triggers",
            Self::Security => "access control list",
            Self::LogonRight => "logon right of the account",
            Self::Environment => "environment",
            Self::EventSource => "Event Log source",
        })
    }
}

/// The manager's own calls. Errors are system errors with their numbers.
pub(crate) trait Scm {
    /// `CreateService`.
    fn create(&mut self, name: &str, base: &Base) -> io::Result<()>;
    /// `DeleteService`. The service is gone once no program holds it open.
    fn delete(&mut self, name: &str) -> io::Result<()>;
    /// `QueryServiceConfig`, `QueryServiceConfig2`, `QueryServiceObjectSecurity`,
    /// `LsaEnumerateAccountRights`, or the registry. Error 1060 if there is no such service.
    fn read(&mut self, name: &str, kind: Kind) -> io::Result<Setting>;
    /// `ChangeServiceConfig`, `ChangeServiceConfig2`, `SetServiceObjectSecurity`,
    /// `LsaAddAccountRights`, or the registry.
    fn write(&mut self, name: &str, setting: &Setting) -> io::Result<()>;
    /// `StartService`.
    fn start(&mut self, name: &str, arguments: &[OsString]) -> io::Result<()>;
    /// `ControlService`.
    fn control(&mut self, name: &str, code: u32) -> io::Result<()>;
    /// `QueryServiceStatusEx`.
    fn query(&mut self, name: &str) -> io::Result<ServiceStatus>;
    /// `EnumServicesStatusEx`: all services that are programs.
    fn names(&mut self) -> io::Result<Vec<String>>;
    /// `NotifyServiceStatusChange`: waits until the state differs from `seen`, for at most `time`.
    fn wait(&mut self, name: &str, seen: State, time: Duration);
    /// Sleeps for this long.
    fn sleep(&mut self, time: Duration);
    /// Returns a monotonic time.
    fn now(&self) -> Duration;
}
