//! The ledger entry of one service.

use std::time::Duration;

use mainstay_core::engine::{
    Checkpoint, DesiredState, Ended, Exit, Failures, RecoveredState, Stage, StateName,
};
use mainstay_core::registry::TextDigest;
use mainstay_core::report::LastExit;
use mainstay_core::spec::ServiceName;
use mainstay_core::time::Instant;
use mainstay_sys::{self as sys, Birth, Identity};
use serde::{Deserialize, Serialize};

use crate::embedded::Desired;

/// The ledger entry of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The name of the service.
    pub name: String,
    /// The state of the service.
    pub state: State,
    /// The time of the last state change.
    pub since_ms: u64,
    /// The time limit of a start or a stop.
    #[serde(default, skip_serializing_if = "is_default")]
    pub until_ms: Option<u64>,
    /// Set if the service is to be down.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unwanted: bool,
    /// Set if an operator stopped the service by name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_stopped: bool,
    /// The version of the installation that is running; 0 if the service is not installed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub version: u64,
    /// Set if an update changed the definition. The new definition is stored in the state directory
    /// and not in the copy of the manifest.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_updated: bool,
    /// The number of restarts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restarts: u64,
    /// The end of the last run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub last_exit: Option<LastExit>,
    /// The number of failures since the last good run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub streak: u32,
    /// The times of restarts within the window of the restart limit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub recent_ms: Vec<u64>,
    /// The start of the current crash loop, and the time of the next reminder about it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub crash_loop_ms: Option<(u64, u64)>,
    /// Set if a run that completed or ended had been ready.
    #[serde(default, skip_serializing_if = "is_default")]
    pub was_ready: bool,
    /// The reason for a halt or a backoff.
    #[serde(default, skip_serializing_if = "is_default")]
    pub why: Option<String>,
    /// The failure that ended the run, or that it is being stopped for, unless that is `last_exit`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failure: Option<Ended>,
    /// The need that keeps a halted service down, if that is the reason for the halt.
    #[serde(default, skip_serializing_if = "is_default")]
    pub blocked_by: Option<Blocked>,
    /// The main process of the run, which may have ended.
    #[serde(default, skip_serializing_if = "is_default")]
    pub child: Option<Child>,
}

/// The need that keeps a service halted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blocked {
    /// The name of the need.
    pub need: String,
    /// Set if the need ended before it was ready. Otherwise it is halted.
    pub has_ended: bool,
}

/// The main process of a run, and its tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// The process ID.
    pub pid: u32,
    /// The time when the process was started.
    pub birth: Birth,
    /// The containment of the tree, see [`Identity::tree`].
    pub tree: String,
    /// The time when the run began.
    pub began_ms: u64,
    /// The address of the notification socket that the process uses.
    #[serde(default, skip_serializing_if = "is_default")]
    pub notify: Option<String>,
    /// Set if an earlier definition than the one in the stored manifest started the run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_outdated: bool,
    /// Set from the start of a quiesce command to the end of the thaw command, which is due. The
    /// stored name is short, because an entry has little room.
    #[serde(rename = "due", default, skip_serializing_if = "is_default")]
    pub is_quiesced: bool,
    /// The digest of the definition that started the run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub digest: Option<TextDigest>,
}

/// The state of a service in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No process is running, and nothing prevents a start.
    Due,
    /// The service has completed and is not started again.
    Completed,
    /// The service has halted.
    Halted,
    /// A run is starting.
    Starting,
    /// A run is up.
    Running,
    /// A run is paused.
    Paused,
    /// The run is being stopped. If the service is wanted, it is started again afterwards.
    Stopping,
    /// The run is being stopped because it failed.
    Failing,
    /// The run has ended, and the next step is not decided yet.
    Ended,
}

impl Entry {
    /// Returns the main process, which may have ended.
    pub fn main(&self) -> Option<Identity> {
        self.child.as_ref().map(Child::identity)
    }

    /// Returns the main process if it is alive.
    pub fn living(&self) -> Option<Identity> {
        self.main().filter(sys::lives)
    }

    /// Returns the recovered state for the engine. `at` converts a time to the new host's clock;
    /// `lives` is set if the main process is alive.
    pub fn checkpoint(&self, lives: bool, at: impl Fn(u64) -> Instant) -> Checkpoint {
        let stage = match self.state {
            State::Starting => Some(Stage::Starting),
            State::Running => Some(Stage::Running),
            State::Paused => Some(Stage::Paused),
            State::Stopping => Some(Stage::Stopping),
            State::Failing => Some(Stage::Failing(self.failure())),
            State::Due | State::Completed | State::Halted | State::Ended => None,
        };
        let was_ready = self.was_ready;
        let since = at(self.since_ms);
        let began = self.child.as_ref().map_or(since, |it| at(it.began_ms));
        let recovered = match (self.state, stage, &self.child) {
            (_, Some(stage), Some(child)) if lives => RecoveredState::Child {
                pid: child.pid,
                began,
                since,
                until: self.until_ms.map(&at),
                stage,
            },
            (_, Some(stage), Some(child)) => RecoveredState::Gone {
                pid: child.pid,
                began,
                stage,
            },
            (State::Failing, ..) => RecoveredState::Ended {
                ended: self.failure(),
                was_ready,
                began,
                since,
            },
            (State::Ended, ..) => RecoveredState::Ended {
                ended: self
                    .failure
                    .clone()
                    .unwrap_or_else(|| Ended::Exit(self.last_exit.map_or(Exit::Unknown, exit_of))),
                was_ready,
                began,
                since,
            },
            (State::Completed, ..) => RecoveredState::Completed { was_ready },
            (State::Halted, ..) => match &self.blocked_by {
                Some(Blocked { need, has_ended }) => match ServiceName::new(need) {
                    Some(need) => RecoveredState::Blocked {
                        need,
                        has_ended: *has_ended,
                    },
                    None => RecoveredState::Nothing,
                },
                None => RecoveredState::Halted {
                    why: self.why.clone().unwrap_or_default(),
                },
            },
            _ => RecoveredState::Nothing,
        };
        Checkpoint {
            desired: if self.unwanted {
                DesiredState::Down
            } else {
                DesiredState::Up
            },
            restarts: self.restarts,
            last_exit: self.last_exit.map(exit_of),
            failures: Failures {
                streak: self.streak,
                recent: self.recent_ms.iter().map(|ms| at(*ms)).collect(),
                crash_loop: self
                    .crash_loop_ms
                    .map(|(since, remind)| (at(since), at(remind))),
            },
            since: Some(since),
            recovered,
        }
    }

    /// Returns the failure for which the service is being stopped.
    fn failure(&self) -> Ended {
        self.failure.clone().unwrap_or(Ended::Exit(Exit::Unknown))
    }

    /// Returns the state of the service while it has no supervisor.
    pub fn name_of_state(&self, lives: bool) -> StateName {
        match self.state {
            State::Starting if lives => StateName::StartPending,
            State::Running if lives => StateName::Running,
            State::Paused if lives => StateName::Paused,
            State::Stopping | State::Failing if lives => StateName::StopPending,
            State::Halted => StateName::Halted,
            State::Due if self.why.is_some() => StateName::BackingOff,
            _ => StateName::Stopped,
        }
    }

    /// Returns the reason that the service is not up although it should be.
    pub fn remark(&self, lives: bool) -> Option<String> {
        let remark = match self.state {
            _ if lives => return None,
            State::Halted => return self.why.clone(),
            State::Due if self.why.is_some() => {
                let why = self.why.as_deref().unwrap_or_default();
                return Some(format!("{why}; its supervisor was killed"));
            }
            State::Starting | State::Running | State::Paused => {
                "it exited after its supervisor was killed"
            }
            State::Completed => return None,
            _ if self.unwanted => return None,
            _ => "its supervisor was killed before it was started",
        };
        Some(remark.to_owned())
    }

    /// Returns whether the service is crash-looping and will be restarted.
    pub fn is_crash_looping(&self) -> bool {
        self.crash_loop_ms.is_some() && !self.unwanted
    }

    /// Records a stop by name.
    pub fn want_down(&mut self) {
        (self.unwanted, self.is_stopped) = (true, true);
    }

    /// Creates the entry of a service that is in this state from now on.
    pub fn new(name: &str, state: State) -> Self {
        Self {
            name: name.to_owned(),
            state,
            since_ms: millis(sys::uptime()),
            until_ms: None,
            unwanted: false,
            is_stopped: false,
            version: 0,
            is_updated: false,
            restarts: 0,
            last_exit: None,
            streak: 0,
            recent_ms: Vec::new(),
            crash_loop_ms: None,
            was_ready: false,
            why: None,
            failure: None,
            blocked_by: None,
            child: None,
        }
    }

    /// Returns the entry from which a service is recovered: that of the ledger, or else one made
    /// from the desired state. A stop by name that the ledger does not contain counts, because the
    /// ledger was not written in time. If the main process lives, the ledger counts: the service
    /// was started later, and the desired state could not be written.
    pub fn recovered(
        name: &str,
        of_ledger: Option<Self>,
        desired: Option<&Desired>,
        lives: bool,
    ) -> Option<Self> {
        let of_desired = || desired.map(|desired| Self::of_desired(name, desired));
        let mut entry = of_ledger.or_else(of_desired)?;
        if desired == Some(&Desired::Stopped) && !lives {
            entry.want_down();
        }
        Some(entry)
    }

    /// Returns the entry of a service that must stay down and that no ledger accounts for.
    pub fn of_desired(name: &str, desired: &Desired) -> Self {
        let entry = Self {
            unwanted: true,
            ..Self::new(name, State::Due)
        };
        match desired {
            Desired::Stopped => entry,
            Desired::Halted {
                why,
                restarts,
                last_exit,
            } => Self {
                state: State::Halted,
                unwanted: false,
                why: Some(why.clone()),
                restarts: *restarts,
                last_exit: *last_exit,
                ..entry
            },
        }
    }
}

impl Child {
    /// Returns the identity of the process.
    pub fn identity(&self) -> Identity {
        Identity {
            pid: self.pid,
            birth: self.birth,
            tree: self.tree.clone(),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn exit_of(last: LastExit) -> Exit {
    match (last.code, last.signal) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// Converts a duration to milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
