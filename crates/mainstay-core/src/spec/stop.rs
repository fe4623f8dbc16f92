//! The stop of a service, and its reload.

use std::time::Duration;

use serde::Serialize;

use super::Argv;

/// The stop procedure of a service: one or more stop requests, a grace period, then a kill of the
/// whole process tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    pub(crate) graceful: Duration,
    pub(crate) ladder: Vec<StopStep>,
    pub(crate) scope: StopScope,
}

/// One stage of the stop procedure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopStep {
    pub(crate) ask: StopAsk,
    pub(crate) after: Duration,
}

/// A request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopAsk {
    /// A signal on Unix. On Windows, every signal is sent as Ctrl+C.
    Signal(Signal),
    /// `WM_CLOSE` to the service's windows (Windows; no effect elsewhere).
    Close,
}

impl Stop {
    /// Returns the time from the request to the kill.
    pub fn graceful(&self) -> Duration {
        self.graceful
    }
    /// Returns the stages of the stop procedure. There is at least one; the first is immediate, and
    /// delays do not decrease or exceed the grace period.
    pub fn ladder(&self) -> &[StopStep] {
        &self.ladder
    }
    /// Returns the processes that stop requests are sent to. The kill that may follow always covers
    /// the whole tree.
    pub fn scope(&self) -> StopScope {
        self.scope
    }
}

impl StopStep {
    /// Returns the request of this stage.
    pub fn ask(&self) -> StopAsk {
        self.ask
    }
    /// Returns the delay of this stage after the start of the stop.
    pub fn after(&self) -> Duration {
        self.after
    }
}

/// The processes that stop requests are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopScope {
    /// Every process of the service (`KillMode=control-group` of systemd).
    Tree,
    /// Only the main process, which must then stop its own children (`KillMode=mixed`).
    Main,
}

/// A signal that a manifest may name. `"TERM"`, `"SIGTERM"` and `"term"` are equivalent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are the documentation: signal(7)")]
pub enum Signal {
    Hup,
    Int,
    Quit,
    Usr1,
    Usr2,
    Term,
    Winch,
}

impl Signal {
    /// All signals, in the order of their usual numbers.
    pub const ALL: [Self; 7] = [
        Self::Hup,
        Self::Int,
        Self::Quit,
        Self::Usr1,
        Self::Usr2,
        Self::Term,
        Self::Winch,
    ];

    /// Returns the name without `SIG`, in upper case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hup => "HUP",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Term => "TERM",
            Self::Winch => "WINCH",
        }
    }
}

/// The way to make a service reload its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Sends this signal to the main process.
    Signal(Signal),
    /// Runs this command in the service's directory and environment; exit code 0 is success.
    Exec(Argv),
}
