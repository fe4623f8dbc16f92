//! Controls that a service manager, or an operator through it, sends to a running service.

use std::ops::BitOr;

/// A control sent to the service.
///
/// A control counts as completed when the service asks for the next one. Until then, the manager
/// shows a pending state.
///
/// ```
/// use mainstay::{Context, Control, Exit, Power, SessionReason, Stop};
///
/// fn recorder(mut context: Context) -> Result<(), Exit> {
///     loop {
///         match context.wait() {
///             Control::Stop(stop) => {
///                 // When the machine shuts down, there are only a few seconds left.
///                 let is_urgent = stop == Stop::Shutdown;
///                 let plan = if is_urgent { "dropping" } else { "saving" };
///                 context.logger().info(format!("{plan} the queue"));
///                 return Ok(());
///             }
///             Control::Reload => context.logger().info("reading the settings again"),
///             Control::Power(Power::Suspend) => context.logger().info("closing connections"),
///             Control::SessionChange(change) if change.reason == SessionReason::Lock => {
///                 context.logger().info(format!("session {} is locked", change.session));
///             }
///             // A code of the service's own: `recorder control 200`.
///             Control::Custom(200) => context.logger().info("starting a new file"),
///             _ => {}
///         }
///     }
/// }
/// # let test = mainstay::testing::Context::new::<&str>([]);
/// # test.tell(Control::Stop(Stop::Requested));
/// # assert!(recorder(test.service()).is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Control {
    /// Stop: finish the work in progress and return from [`Service::run`](crate::Service::run).
    Stop(Stop),
    /// Pause: stop working without exiting. Only with [`Accepts::PAUSE`].
    Pause,
    /// Resume after a pause. Only with [`Accepts::PAUSE`].
    Continue,
    /// Reload the configuration: SIGHUP, `SERVICE_CONTROL_PARAMCHANGE`. Only with
    /// [`Accepts::RELOAD`].
    Reload,
    /// A user logged on or off, or locked the screen (Windows). Only with
    /// [`Accepts::SESSION_CHANGE`].
    SessionChange(SessionChange),
    /// The power supply changed, or the machine is suspending or resuming (Windows). Only with
    /// [`Accepts::POWER`].
    Power(Power),
    /// The system clock was set (Windows). Only with [`Accepts::TIME_CHANGE`].
    TimeChange,
    /// The hardware profile changed (Windows): a `DBT_…` event of
    /// `SERVICE_CONTROL_HARDWAREPROFILECHANGE`. Only with [`Accepts::HARDWARE_PROFILE`].
    HardwareProfile(u32),
    /// A service-defined control code, 128 to 255 (Windows).
    Custom(u8),
}

/// The reason for a stop.
///
/// ```
/// use mainstay::Stop;
///
/// /// Returns the number of seconds that are left for the work in progress.
/// fn seconds(stop: Stop) -> u64 {
///     match stop {
///         Stop::Shutdown => 2,
///         _ => 30,
///     }
/// }
/// assert_eq!(seconds(Stop::Requested), 30);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stop {
    /// A stop was requested: SIGTERM, SIGINT, `SERVICE_CONTROL_STOP`, ctrl-c.
    Requested,
    /// The system is shutting down. All services together have a few seconds (Windows).
    Shutdown,
    /// The system is about to shut down and waits as long as
    /// [`Windows::preshutdown`](crate::Windows::preshutdown) allows (Windows).
    Preshutdown,
}

/// A session change, `SERVICE_CONTROL_SESSIONCHANGE`; see `WM_WTSSESSION_CHANGE`.
///
/// ```
/// use mainstay::{SessionChange, SessionReason};
///
/// fn is_locked(change: SessionChange) -> bool {
///     change.reason == SessionReason::Lock
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SessionChange {
    /// The type of change.
    pub reason: SessionReason,
    /// The session's ID.
    pub session: u32,
}

/// A type of session change, `WTS_…` (winuser.h).
///
/// ```
/// use mainstay::SessionReason;
///
/// fn is_present(reason: SessionReason) -> bool {
///     matches!(reason, SessionReason::Logon | SessionReason::Unlock)
/// }
/// assert!(is_present(SessionReason::Logon));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionReason {
    /// The session is now the one at the console.
    ConsoleConnect,
    /// The session is no longer the one at the console.
    ConsoleDisconnect,
    /// A remote terminal was connected to the session.
    RemoteConnect,
    /// The remote terminal was disconnected from the session.
    RemoteDisconnect,
    /// A user logged on.
    Logon,
    /// A user logged off.
    Logoff,
    /// The session was locked.
    Lock,
    /// The session was unlocked.
    Unlock,
    /// Remote control of the session began or ended.
    RemoteControl,
    /// The session was created. Reserved by Microsoft.
    Create,
    /// The session was terminated. Reserved by Microsoft.
    Terminate,
    /// A type unknown to this version.
    Other(u32),
}

/// A power event, `SERVICE_CONTROL_POWEREVENT`; see `WM_POWERBROADCAST`.
///
/// ```
/// use mainstay::{Control, Power};
///
/// fn closes_connections(control: Control) -> bool {
///     control == Control::Power(Power::Suspend)
/// }
/// assert!(!closes_connections(Control::Power(Power::Resume)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Power {
    /// The machine switched between mains and battery, or the charge changed:
    /// `PBT_APMPOWERSTATUSCHANGE`.
    StatusChange,
    /// The machine is suspending: `PBT_APMSUSPEND`.
    Suspend,
    /// The machine resumed because of user activity: `PBT_APMRESUMESUSPEND`.
    ResumeByUser,
    /// The machine resumed: `PBT_APMRESUMEAUTOMATIC`.
    Resume,
    /// An event unknown to this version.
    Other(u32),
}

/// The controls that a service handles. Every service receives [`Control::Stop`] and custom codes.
///
/// ```
/// use mainstay::Accepts;
///
/// let accepts = Accepts::PAUSE | Accepts::RELOAD;
/// assert!(accepts.contains(Accepts::RELOAD));
/// assert!(!accepts.contains(Accepts::RELOAD | Accepts::POWER));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Accepts(u8);

impl Accepts {
    /// Accepts [`Control::Pause`] and [`Control::Continue`].
    ///
    /// ```
    /// use mainstay::Accepts;
    ///
    /// let orders = mainstay::service("orders").accepts(Accepts::PAUSE);
    /// ```
    pub const PAUSE: Self = Self(1);
    /// Accepts [`Control::Reload`]. Without it, SIGHUP terminates the program, as is its default.
    ///
    /// ```
    /// use mainstay::Accepts;
    ///
    /// let orders = mainstay::service("orders").accepts(Accepts::RELOAD);
    /// ```
    pub const RELOAD: Self = Self(2);
    /// Accepts [`Control::SessionChange`].
    ///
    /// ```
    /// use mainstay::Accepts;
    ///
    /// let orders = mainstay::service("orders").accepts(Accepts::SESSION_CHANGE);
    /// ```
    pub const SESSION_CHANGE: Self = Self(4);
    /// Accepts [`Control::Power`].
    ///
    /// ```
    /// use mainstay::Accepts;
    ///
    /// let orders = mainstay::service("orders").accepts(Accepts::POWER);
    /// ```
    pub const POWER: Self = Self(8);
    /// Accepts [`Control::TimeChange`].
    ///
    /// ```
    /// use mainstay::Accepts;
    ///
    /// let orders = mainstay::service("orders").accepts(Accepts::TIME_CHANGE);
    /// ```
    pub const TIME_CHANGE: Self = Self(16);
    /// Accepts [`Control::HardwareProfile`].
    ///
    /// ```
    /// use mainstay::Accepts;
    ///
    /// let orders = mainstay::service("orders").accepts(Accepts::HARDWARE_PROFILE);
    /// ```
    pub const HARDWARE_PROFILE: Self = Self(32);

    /// Returns whether every control of `other` is included.
    ///
    /// ```
    /// use mainstay::Accepts;
    ///
    /// let accepts = Accepts::PAUSE | Accepts::RELOAD;
    /// assert!(accepts.contains(Accepts::PAUSE) && !accepts.contains(Accepts::POWER));
    /// ```
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Accepts {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
