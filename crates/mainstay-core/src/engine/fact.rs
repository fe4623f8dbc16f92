//! What happened: past facts, for event lines, `events`, and tests.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::contract::{Ended, Exit, Human};
use super::trial::{Flaw, Style, TrialPhase};
use crate::snapshot::{Reason, SnapshotId};
use crate::spec::ServiceName;

/// Something that happened to a service. `Display` is one line for people, without the service's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
#[non_exhaustive]
pub enum Fact {
    /// It waits for others to become ready.
    Waiting {
        /// The services that are not ready yet.
        on: Vec<ServiceName>,
    },
    /// It waits for a `wait_for` condition.
    WaitingFor {
        /// What is asked.
        probe: String,
    },
    /// Its program runs.
    Started {
        /// Process id.
        pid: u32,
        /// How often it was started again before, since the supervisor knows it.
        restarts: u64,
    },
    /// It ran on while its last supervisor was dead, and is supervised again.
    Adopted {
        /// Process id.
        pid: u32,
        /// How often it was started again before.
        restarts: u64,
    },
    /// Its evidence of readiness was seen.
    Ready {
        /// Since its start.
        #[serde(rename = "after_ms", serialize_with = "millis")]
        after: Duration,
    },
    /// It said so by `STATUS=` (sd_notify(3)).
    Status {
        /// Its own words.
        text: String,
    },
    /// A liveness probe was missed.
    Missed {
        /// Misses in a row.
        misses: u32,
        /// How many restart it.
        of: u32,
        /// What the probe brought.
        why: String,
    },
    /// Its main process ended.
    Exited {
        /// How.
        exit: Exit,
        /// Since its start.
        #[serde(rename = "after_ms", serialize_with = "millis")]
        after: Duration,
    },
    /// A run, or an attempt at one, failed; what follows comes next.
    Failed {
        /// Why.
        why: Ended,
        /// Whether this is an alert of its own.
        #[serde(skip)]
        news: News,
    },
    /// More restarts within the limit's window than it allows: the service is restarted at its
    /// longest pause from now on. Told at once, and every hour while it lasts.
    CrashLooping {
        /// How many restarts the limit allows.
        limit: u32,
        /// Within how long.
        #[serde(rename = "window_ms", serialize_with = "millis")]
        window: Duration,
        /// How long it has lasted.
        #[serde(rename = "for_ms", serialize_with = "millis")]
        lasts: Duration,
        /// What ended the last run.
        last: Ended,
    },
    /// It was crash-looping, and has been ready for `reset_after` since.
    Recovered {
        /// How long the crash loop lasted.
        #[serde(rename = "after_ms", serialize_with = "millis")]
        after: Duration,
    },
    /// It was asked to stop.
    Stopping {
        /// How long it has.
        #[serde(rename = "graceful_ms", serialize_with = "millis")]
        graceful: Duration,
    },
    /// An operator stops it while other services that need it keep running.
    StillNeeded {
        /// Those services.
        by: Vec<ServiceName>,
    },
    /// It did not stop in time, or something of it was left: its whole tree is killed.
    Killing {
        /// Why.
        why: KillReason,
    },
    /// It is stopped, and nothing of it is left.
    Stopped {
        /// What led to it.
        outcome: Outcome,
    },
    /// It will be started again after a pause.
    BackingOff {
        /// The pause.
        #[serde(rename = "pause_ms", serialize_with = "millis")]
        pause: Duration,
        /// Which in a row, from 1.
        attempt: u32,
    },
    /// A snapshot of its state is to be restored: the newest stable one.
    Restoring {
        /// Only one that is older than this, which was of no use.
        before: Option<SnapshotId>,
    },
    /// Its state is that of a snapshot again.
    Restored {
        /// Which.
        snapshot: SnapshotId,
    },
    /// A snapshot of its state is being taken.
    Snapshotting {
        /// Why.
        reason: Reason,
    },
    /// It is complete.
    SnapshotTaken {
        /// Its name.
        snapshot: SnapshotId,
    },
    /// It is not needed: nothing has changed since the last one.
    SnapshotUnneeded,
    /// It was called off: the service did not go on undisturbed.
    SnapshotAbandoned,
    /// It could not be taken.
    SnapshotFailed {
        /// Why.
        why: String,
    },
    /// It stays down until a human looks.
    Halted {
        /// Why.
        why: Halt,
    },
    /// All its processes are suspended.
    Paused,
    /// They go on.
    Continued,
    /// A suspension failed.
    PauseFailed {
        /// Why.
        why: String,
    },
    /// A new definition of it is tried.
    Updating {
        /// Whether the old run goes on meanwhile.
        style: Style,
    },
    /// The new definition is healthy, and waits for somebody to commit it.
    Trial,
    /// It is what the new definition says.
    Updated,
    /// The new definition was given up; it is what it was.
    RolledBack {
        /// How far the trial was.
        phase: TrialPhase,
        /// What led to it.
        why: Flaw,
    },
}

/// Whether a failure is an alert of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is.
    Alert,
    /// Another alert covers it: the crash loop that it belongs to, or the halt that says the same.
    Covered,
}

/// Why a tree is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillReason {
    /// `stop.graceful` is over.
    GraceOver,
    /// The main process is gone, these are its remains.
    Remains,
    /// An operator asked for it.
    Requested,
}

/// What led to a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was never started.
    New,
    /// It ended cleanly by itself.
    Completed,
    /// It was asked to.
    Requested,
}

/// Why a service stays down until a human looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Halt {
    /// Its policy does not restart after this.
    Policy(Ended),
    /// Too many restarts within the limit's window.
    TooManyRestarts {
        /// How many were allowed.
        limit: u32,
        /// Within how long.
        #[serde(rename = "window_ms", serialize_with = "millis")]
        window: Duration,
        /// What ended the last run.
        last: Ended,
    },
    /// It said 202 (dependency briefly away) once more than there are tries.
    RetriesExhausted {
        /// How many tries there were.
        tries: u32,
    },
    /// Its state failed to load (201) and could not be restored.
    NotRestored {
        /// Why not.
        why: String,
    },
    /// A service that it needs is halted.
    Need(ServiceName),
    /// A service that it needs ended by itself before it was ready.
    NeedEnded(ServiceName),
    /// Its program cannot be started until somebody changes something.
    Unstartable {
        /// Why.
        why: String,
    },
    /// Its main process exited with 0 soon after its start, and its children ran on.
    Backgrounded {
        /// How to keep this program in the foreground.
        hint: String,
    },
    /// It was halted under the last supervisor, which was killed.
    Inherited {
        /// Why.
        why: String,
    },
    /// Its processes outlived a kill (uninterruptible sleep, or no right to kill them).
    Unkillable {
        /// How long was waited.
        #[serde(rename = "after_ms", serialize_with = "millis")]
        after: Duration,
    },
}

impl Fact {
    /// Whether somebody should be told at once.
    pub fn is_alert(&self) -> bool {
        match self {
            // A predecessor has told it.
            Self::Halted { why } => !matches!(why, Halt::Inherited { .. }),
            Self::Failed { news, .. } => *news == News::Alert,
            Self::CrashLooping { .. }
            | Self::Recovered { .. }
            | Self::Restoring { .. }
            | Self::RolledBack { .. }
            | Self::SnapshotFailed { .. } => true,
            _ => false,
        }
    }
}

impl Fact {
    /// Whether this alert is sent however many others were: it begins or ends a condition that
    /// nothing else will tell of.
    pub fn is_urgent(&self) -> bool {
        matches!(
            self,
            Self::Halted { .. } | Self::CrashLooping { .. } | Self::Recovered { .. }
        )
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { on } => write!(f, "waiting for {}", Names(on)),
            Self::WaitingFor { probe } => write!(f, "waiting for {probe}"),
            Self::Started { pid, restarts: 0 } => write!(f, "started, pid {pid}"),
            Self::Started { pid, restarts } => {
                write!(f, "started again, pid {pid} (restart {restarts})")
            }
            Self::Adopted { pid, .. } => {
                write!(f, "adopted, pid {pid}: it ran on without a supervisor")
            }
            Self::Ready { after } => write!(f, "ready after {}", Human(*after)),
            Self::Status { text } => write!(f, "says: {text}"),
            Self::Missed { misses, of, why } => {
                write!(f, "missed liveness probe {misses} of {of}: {why}")
            }
            Self::Exited { exit, after } => write!(f, "ended after {}: {exit}", Human(*after)),
            Self::Failed { why, .. } => write!(f, "failed: {why}"),
            Self::CrashLooping {
                limit,
                window,
                lasts,
                last,
            } => {
                match lasts.is_zero() {
                    true => f.write_str("crash-looping: ")?,
                    false => write!(f, "still crash-looping after {}: ", Human(*lasts))?,
                }
                write!(
                    f,
                    "more than {limit} restarts in {}; last failure: {last}",
                    Human(*window)
                )
            }
            Self::Recovered { after } => {
                write!(f, "recovered: crash-looping ended after {}", Human(*after))
            }
            Self::Stopping { graceful } => write!(f, "stopping, {} at most", Human(*graceful)),
            Self::StillNeeded { by } => {
                let (need, keep) = match by.len() {
                    1 => ("needs", "keeps"),
                    _ => ("need", "keep"),
                };
                let by = Names(by);
                write!(f, "stopping on request: {by} {need} it and {keep} running")
            }
            Self::Killing {
                why: KillReason::GraceOver,
            } => f.write_str("did not stop in time: killing it and all its children"),
            Self::Killing {
                why: KillReason::Remains,
            } => f.write_str("killing the children that it left behind"),
            Self::Killing {
                why: KillReason::Requested,
            } => f.write_str("killing it and all its children"),
            Self::Stopped {
                outcome: Outcome::New,
            } => f.write_str("not started"),
            Self::Stopped {
                outcome: Outcome::Completed,
            } => f.write_str("stopped: it ended cleanly"),
            Self::Stopped {
                outcome: Outcome::Requested,
            } => f.write_str("stopped"),
            Self::BackingOff { pause, attempt } => {
                write!(
                    f,
                    "restarting in {} (attempt {attempt} in a row)",
                    Human(*pause)
                )
            }
            Self::Restoring { before: None } => {
                f.write_str("its state failed to load: restoring the last stable snapshot")
            }
            Self::Restoring {
                before: Some(before),
            } => write!(
                f,
                "its state failed to load again: restoring the stable snapshot before {before}"
            ),
            Self::Restored { snapshot } => write!(f, "its state is that of snapshot {snapshot}"),
            Self::Snapshotting { reason } => write!(f, "taking a snapshot: {reason}"),
            Self::SnapshotTaken { snapshot } => write!(f, "snapshot {snapshot} is complete"),
            Self::SnapshotUnneeded => {
                f.write_str("no snapshot: its state has not changed since the last one")
            }
            Self::SnapshotAbandoned => f.write_str("no snapshot: it did not go on undisturbed"),
            Self::SnapshotFailed { why } => write!(f, "no snapshot: {why}"),
            Self::Halted { why } => write!(f, "halted: {why}"),
            Self::Paused => f.write_str("paused"),
            Self::Continued => f.write_str("continued"),
            Self::PauseFailed { why } => write!(f, "could not be paused: {why}"),
            Self::Updating {
                style: Style::Restart,
            } => f.write_str("trying a new definition in its place"),
            Self::Updating {
                style: Style::Overlap,
            } => f.write_str("trying a new definition beside it"),
            Self::Trial => f.write_str("the new definition is healthy"),
            Self::Updated => f.write_str("updated to the new definition"),
            Self::RolledBack { why, .. } => {
                write!(f, "the new definition was given up: {why}; rolled back")
            }
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(ended) => write!(f, "{ended}; its policy does not restart it"),
            Self::TooManyRestarts {
                limit,
                window,
                last,
            } => {
                write!(
                    f,
                    "more than {limit} restarts in {}; the last: {last}",
                    Human(*window)
                )
            }
            Self::RetriesExhausted { tries } => {
                write!(
                    f,
                    "its dependency did not come back within {tries} tries (202)"
                )
            }
            Self::NotRestored { why } => write!(f, "its state failed to load (201): {why}"),
            Self::Need(name) => write!(f, "it needs {name}, which is halted"),
            Self::NeedEnded(name) => {
                write!(f, "it needs {name}, which ended before it was ready")
            }
            Self::Unstartable { why } => write!(f, "cannot be started: {why}"),
            Self::Backgrounded { hint } => Ended::Backgrounded { hint: hint.clone() }.fmt(f),
            Self::Inherited { why } => f.write_str(why),
            Self::Unkillable { after } => {
                write!(
                    f,
                    "its processes still live {} after they were killed",
                    Human(*after)
                )
            }
        }
    }
}

/// Names of services, separated by commas.
struct Names<'a>(&'a [ServiceName]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Durations are whole milliseconds in JSON, in fields that say so.
pub(super) fn millis<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
