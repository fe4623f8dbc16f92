//! What a service manager, or an operator through it, tells a running service.

use std::ops::BitOr;

/// One thing that the service is told.
///
/// A control counts as done when the next one is asked for: until then the manager is shown a pending state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control {
    /// End: finish what is under way, and return from [`Service::run`](crate::Service::run).
    Stop(Stop),
    /// Stop working, but stay. Only with [`Accepts::PAUSE`].
    Pause,
    /// Work again. Only with [`Accepts::PAUSE`].
    Continue,
    /// Read the configuration again: SIGHUP, `SERVICE_CONTROL_PARAMCHANGE`. Only with [`Accepts::RELOAD`].
    Reload,
    /// Somebody logged on or off, or locked the screen (Windows). Only with [`Accepts::SESSION_CHANGE`].
    SessionChange(SessionChange),
    /// The power supply changed, or the machine sleeps or wakes (Windows). Only with [`Accepts::POWER`].
    Power(Power),
    /// Somebody set the clock (Windows). Only with [`Accepts::TIME_CHANGE`].
    TimeChange,
    /// The hardware profile changed (Windows): a `DBT_…` event of `SERVICE_CONTROL_HARDWAREPROFILECHANGE`. Only with
    /// [`Accepts::HARDWARE_PROFILE`].
    HardwareProfile(u32),
    /// What this code means is between the service and its users: 128 to 255 (Windows).
    Custom(u8),
}

/// Why the service has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stop {
    /// Somebody wants it to: SIGTERM, SIGINT, `SERVICE_CONTROL_STOP`, ctrl-c.
    Requested,
    /// The system shuts down, and gives all services together some seconds (Windows).
    Shutdown,
    /// The system is about to shut down, and waits as long as [`Windows::preshutdown`](crate::Windows::preshutdown) says (Windows).
    Preshutdown,
}

/// `SERVICE_CONTROL_SESSIONCHANGE`, see `WM_WTSSESSION_CHANGE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionChange {
    /// What happened.
    pub reason: SessionReason,
    /// To which session.
    pub session: u32,
}

/// `WTS_…` (winuser.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names of Microsoft's constants")]
pub enum SessionReason {
    ConsoleConnect,
    ConsoleDisconnect,
    RemoteConnect,
    RemoteDisconnect,
    Logon,
    Logoff,
    Lock,
    Unlock,
    RemoteControl,
    Create,
    Terminate,
    /// One that this version does not know.
    Other(u32),
}

/// `SERVICE_CONTROL_POWEREVENT`, see `WM_POWERBROADCAST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Power {
    /// From mains to battery or back, or the charge changed: `PBT_APMPOWERSTATUSCHANGE`.
    StatusChange,
    /// The machine goes to sleep: `PBT_APMSUSPEND`.
    Suspend,
    /// It woke because somebody is there: `PBT_APMRESUMESUSPEND`.
    ResumeByUser,
    /// It woke: `PBT_APMRESUMEAUTOMATIC`.
    Resume,
    /// One that this version does not know.
    Other(u32),
}

/// Which controls a service can do something with. [`Control::Stop`] and custom codes come to every service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepts(u8);

impl Accepts {
    /// [`Control::Pause`] and [`Control::Continue`].
    pub const PAUSE: Self = Self(1);
    /// [`Control::Reload`]; without it SIGHUP ends the program, as it ends any.
    pub const RELOAD: Self = Self(2);
    /// [`Control::SessionChange`].
    pub const SESSION_CHANGE: Self = Self(4);
    /// [`Control::Power`].
    pub const POWER: Self = Self(8);
    /// [`Control::TimeChange`].
    pub const TIME_CHANGE: Self = Self(16);
    /// [`Control::HardwareProfile`].
    pub const HARDWARE_PROFILE: Self = Self(32);

    /// Whether all of `other` is among them.
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
