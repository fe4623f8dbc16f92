//! Facts: records of past events, for event lines, the `events` command and tests.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::contract::{Ended, Exit, Human, SignalName};
use super::principal::{Operation, Principal};
use super::rollout::{Style, TrialFailure, TrialPhase, Versions};
use crate::snapshot::{Reason, SnapshotId};
use crate::spec::ServiceName;
use crate::trace::TraceContext;

/// An event in the life of a service. `Display` formats it as one line without the service's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
#[non_exhaustive]
pub enum Fact {
    /// The service waits for its needs to become ready.
    Waiting {
        /// The needs that are not ready yet.
        on: Vec<ServiceName>,
    },
    /// The service waits for a `wait_for` condition.
    WaitingFor {
        /// The condition that is checked.
        probe: String,
    },
    /// The program runs.
    Started {
        /// The process ID.
        pid: u32,
        /// The number of automatic restarts that the supervisor has recorded.
        restarts: u64,
        /// Set if the service is ready: it needs no evidence, or was ready before.
        #[serde(rename = "ready")]
        is_ready: bool,
    },
    /// The service kept running after its last supervisor died, and is supervised again.
    Adopted {
        /// The process ID.
        pid: u32,
        /// The number of automatic restarts that the supervisor has recorded.
        restarts: u64,
        /// Set if the service is ready: it needs no evidence, or was ready before.
        #[serde(rename = "ready")]
        is_ready: bool,
    },
    /// The evidence of readiness was seen.
    Ready {
        /// The time since the start.
        #[serde(rename = "after_ms", with = "super::millis")]
        after: Duration,
    },
    /// The service sent a `STATUS=` message (sd_notify(3)).
    Status {
        /// The text of the message.
        text: String,
    },
    /// A liveness probe was missed.
    Missed {
        /// The number of misses in a row.
        misses: u32,
        /// The number of misses that restart the service.
        of: u32,
        /// The result of the probe.
        why: String,
    },
    /// A liveness probe passed after misses.
    Passed {
        /// The number of misses in a row before it.
        misses: u32,
    },
    /// The main process ended.
    Exited {
        /// The exit status.
        exit: Exit,
        /// The time since the start.
        #[serde(rename = "after_ms", with = "super::millis")]
        after: Duration,
        /// Set if the process ended while no supervisor ran. `after` then is the time until the
        /// next one found that out.
        #[serde(rename = "unseen", skip_serializing_if = "std::ops::Not::not")]
        is_unseen: bool,
        /// Set if a stop was in progress, and the signal that it sent ended the process.
        #[serde(rename = "requested", skip_serializing_if = "std::ops::Not::not")]
        is_requested: bool,
    },
    /// A run, or an attempt at one, failed. Later facts report what follows.
    Failed {
        /// The cause of the failure.
        why: Ended,
        /// The alert status of the failure.
        #[serde(skip)]
        news: News,
    },
    /// The service exceeded its restart limit and is restarted at its longest pause from now on.
    /// Reported at once, and every hour while it lasts.
    CrashLooping {
        /// The number of restarts that the limit allows.
        limit: u32,
        /// The window of the limit.
        #[serde(rename = "window_ms", with = "super::millis")]
        window: Duration,
        /// The duration of the crash loop so far.
        #[serde(rename = "for_ms", with = "super::millis")]
        lasts: Duration,
        /// The cause of the last failure.
        last: Ended,
    },
    /// The crash loop is over: the service has been ready for `reset_after`.
    Recovered {
        /// The duration of the crash loop.
        #[serde(rename = "after_ms", with = "super::millis")]
        after: Duration,
    },
    /// A change was requested of the service. Later facts report what follows.
    Requested {
        /// The change.
        operation: Operation,
        /// The requester.
        principal: Principal,
        /// The position of the request in the trace of its client.
        #[serde(rename = "traceparent", skip_serializing_if = "Option::is_none")]
        trace: Option<TraceContext>,
    },
    /// The service was asked to stop.
    Stopping {
        /// The grace period.
        #[serde(rename = "graceful_ms", with = "super::millis")]
        graceful: Duration,
    },
    /// An operator stops the service while others that need it keep running.
    StillNeeded {
        /// The services that keep running.
        by: Vec<ServiceName>,
    },
    /// The whole process tree is killed, because it did not stop in time or something was left.
    Killing {
        /// The reason.
        why: KillReason,
    },
    /// The service is stopped, and none of its processes are left.
    Stopped {
        /// The cause of the stop.
        outcome: Outcome,
    },
    /// The service will be started again after a pause.
    BackingOff {
        /// The length of the pause.
        #[serde(rename = "pause_ms", with = "super::millis")]
        pause: Duration,
        /// The number of the attempt in a row, counted from 1.
        attempt: u32,
    },
    /// The newest stable snapshot is to be restored.
    Restoring {
        /// An upper bound: the snapshot that failed to load. Only an older one is restored.
        before: Option<SnapshotId>,
    },
    /// A snapshot was restored.
    Restored {
        /// The ID of the snapshot.
        snapshot: SnapshotId,
    },
    /// A snapshot of the state is being taken.
    Snapshotting {
        /// The reason.
        reason: Reason,
    },
    /// A snapshot is complete.
    SnapshotTaken {
        /// The ID of the snapshot.
        snapshot: SnapshotId,
    },
    /// No snapshot is needed: nothing has changed since the last one.
    SnapshotUnneeded,
    /// A snapshot was cancelled, because the service did not run on undisturbed.
    SnapshotAbandoned,
    /// A snapshot failed.
    SnapshotFailed {
        /// The cause of the failure.
        why: String,
    },
    /// The service stays down until an operator intervenes.
    Halted {
        /// The reason.
        why: Halt,
    },
    /// All processes of the service are suspended.
    Paused,
    /// All processes of the service are resumed.
    Continued,
    /// The service could not be suspended.
    PauseFailed {
        /// The cause of the failure.
        why: String,
    },
    /// The service is being updated to a new definition.
    Updating {
        /// The style of the trial: whether the old run continues meanwhile. `None` if the service
        /// is stopped, so that there is no trial.
        style: Option<Style>,
        /// The versions before and after the update.
        #[serde(flatten)]
        versions: Option<Versions>,
    },
    /// The new definition waits for the commit.
    Trial {
        /// Set if it was started and is healthy; otherwise the service is stopped.
        #[serde(rename = "tried")]
        is_tried: bool,
    },
    /// The new definition was committed.
    Updated {
        /// Set if it was started before and is healthy; otherwise the service is stopped.
        #[serde(rename = "tried")]
        is_tried: bool,
        /// The versions before and after the update.
        #[serde(flatten)]
        versions: Option<Versions>,
    },
    /// The trial of the new definition failed, and the old one is in effect again.
    RolledBack {
        /// The phase in which the trial failed.
        phase: TrialPhase,
        /// The reason for the rollback.
        why: TrialFailure,
        /// The versions before and after the update.
        #[serde(flatten)]
        versions: Option<Versions>,
    },
}

/// The alert status of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The failure is an alert of its own.
    Alert,
    /// Another alert covers the failure: its crash loop, or the halt for the same reason.
    Covered,
}

/// The reason why a process tree is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillReason {
    /// The grace period `stop.graceful` is over.
    GraceOver,
    /// The main process is gone, and its children are left.
    Remains,
    /// An operator requested it.
    Requested,
}

/// The cause of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The service was never started.
    New,
    /// The service ended cleanly by itself.
    Completed,
    /// The stop was requested.
    Requested,
}

impl Outcome {
    fn text(self) -> &'static str {
        match self {
            Self::New => "not started",
            Self::Completed => "stopped: it exited cleanly",
            Self::Requested => "stopped",
        }
    }
}

/// The reason why a service stays down until an operator intervenes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Halt {
    /// The restart policy does not restart the service after this failure.
    Policy(Ended),
    /// The service exceeded its restart limit.
    TooManyRestarts {
        /// The number of restarts that the limit allows.
        limit: u32,
        /// The window of the limit.
        #[serde(rename = "window_ms", with = "super::millis")]
        window: Duration,
        /// The cause of the last failure.
        last: Ended,
    },
    /// The service exited with 202 (dependency briefly away) once more than the number of retries.
    RetriesExhausted {
        /// The number of retries.
        tries: u32,
    },
    /// The state failed to load (exit code 201) and could not be restored.
    NotRestored {
        /// The cause of the failure.
        why: String,
    },
    /// A need of the service is halted.
    Need(ServiceName),
    /// A need of the service ended by itself before it was ready.
    NeedEnded(ServiceName),
    /// The program cannot be started until an operator changes something.
    Unstartable {
        /// The reason.
        why: String,
    },
    /// The main process exited with 0 soon after its start, and its children kept running.
    Backgrounded {
        /// The way to keep this program in the foreground.
        hint: String,
    },
    /// The service was halted under the last supervisor, which was killed.
    Inherited {
        /// The reason, as text.
        why: String,
    },
    /// Processes of the service survived a kill (uninterruptible sleep, or no permission to kill
    /// them).
    Unkillable {
        /// The time that was waited.
        #[serde(rename = "after_ms", with = "super::millis")]
        after: Duration,
    },
}

impl Fact {
    /// Returns whether the fact is an alert, to be sent at once.
    pub fn is_alert(&self) -> bool {
        match self {
            // The previous supervisor has reported it.
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

    /// Returns when a run ended, as far as that is known.
    fn when(&self) -> String {
        match self {
            Self::Exited { is_unseen, .. } if *is_unseen => {
                "while no supervisor was running".to_owned()
            }
            Self::Exited { after, .. } => format!("after {}", Human(*after)),
            _ => String::new(),
        }
    }

    /// Returns the text of a step of an update.
    fn of_update(&self) -> String {
        match self {
            Self::Updating { style, versions } => {
                let versions = versions.map(|versions| format!(" {versions}"));
                let how = match style {
                    Some(Style::Restart) => "restarting with the new definition",
                    Some(Style::Overlap) => "starting the new definition next to the old one",
                    None => "the service is stopped, so the new definition is not tried",
                };
                format!("updating{}: {how}", versions.unwrap_or_default())
            }
            Self::Trial { is_tried: true } => "the new definition is healthy".to_owned(),
            Self::Trial { is_tried: false } => "the new definition can be committed".to_owned(),
            Self::Updated { is_tried, versions } => {
                let versions = versions.map(|versions| versions.to_string());
                let versions = versions.unwrap_or_else(|| "to the new definition".to_owned());
                let untried = if *is_tried {
                    ""
                } else {
                    ", not tried: the service is stopped"
                };
                format!("updated {versions}{untried}")
            }
            Self::RolledBack { why, versions, .. } => {
                let version = versions.map(|Versions { to, .. }| format!(" to version {to}"));
                let version = version.unwrap_or_default();
                format!("the update{version} was rolled back: {why}")
            }
            _ => String::new(),
        }
    }

    /// Returns whether this alert is exempt from rate limiting: it begins or ends a condition that
    /// no other alert reports.
    pub(crate) fn is_urgent(&self) -> bool {
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
            Self::Requested {
                operation,
                principal,
                ..
            } => write!(f, "{operation} requested by {principal}"),
            Self::WaitingFor { probe } => write!(f, "waiting for {probe}"),
            Self::Started {
                pid, restarts: 0, ..
            } => write!(f, "started, pid {pid}"),
            Self::Started { pid, restarts, .. } => {
                write!(f, "started again, pid {pid} (restart {restarts})")
            }
            Self::Adopted { pid, .. } => {
                write!(f, "adopted, pid {pid}: it ran without a supervisor")
            }
            Self::Ready { after } => write!(f, "ready after {}", Human(*after)),
            Self::Status { text } => write!(f, "status: {text}"),
            Self::Missed { misses, of, why } => {
                write!(f, "missed liveness probe {misses} of {of}: {why}")
            }
            Self::Passed { misses: 1 } => f.write_str("liveness probe passed again after 1 miss"),
            Self::Passed { misses } => {
                write!(f, "liveness probe passed again after {misses} misses")
            }
            Self::Exited {
                exit: Exit::Signal(signal),
                is_requested: true,
                ..
            } => write!(f, "stopped by {} {}", SignalName(*signal), self.when()),
            Self::Exited { exit, .. } => write!(f, "exited {}: {exit}", self.when()),
            Self::Failed { why, .. } => write!(f, "failed: {why}"),
            Self::CrashLooping {
                limit,
                window,
                lasts,
                last,
            } => {
                if lasts.is_zero() {
                    f.write_str("crash-looping: ")?
                } else {
                    write!(f, "still crash-looping after {}: ", Human(*lasts))?
                }
                write!(
                    f,
                    "more than {limit} restarts within {}; last failure: {last}",
                    Human(*window)
                )
            }
            Self::Recovered { after } => {
                write!(f, "recovered: crash-looping ended after {}", Human(*after))
            }
            Self::Stopping { graceful } => write!(f, "stopping (timeout {})", Human(*graceful)),
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
            } => f.write_str("did not stop in time: killing all its processes"),
            Self::Killing {
                why: KillReason::Remains,
            } => f.write_str("killing its remaining processes"),
            Self::Killing {
                why: KillReason::Requested,
            } => f.write_str("killing all its processes"),
            Self::Stopped { outcome } => f.write_str(outcome.text()),
            Self::BackingOff { pause, attempt } => {
                write!(
                    f,
                    "restarting in {} (consecutive attempt {attempt})",
                    Human(*pause)
                )
            }
            Self::Restoring { before: None } => {
                f.write_str("its state failed to load: restoring the newest stable snapshot")
            }
            Self::Restoring {
                before: Some(before),
            } => write!(
                f,
                "its state failed to load again: restoring the stable snapshot before {before}"
            ),
            Self::Restored { snapshot } => write!(f, "restored snapshot {snapshot}"),
            Self::Snapshotting { reason } => write!(f, "taking a snapshot: {reason}"),
            Self::SnapshotTaken { snapshot } => write!(f, "snapshot {snapshot} is complete"),
            Self::SnapshotUnneeded => {
                f.write_str("no snapshot: its state has not changed since the previous one")
            }
            Self::SnapshotAbandoned => f.write_str("no snapshot: its run was interrupted"),
            Self::SnapshotFailed { why } => write!(f, "snapshot failed: {why}"),
            Self::Halted { why } => write!(f, "halted: {why}"),
            Self::Paused => f.write_str("paused"),
            Self::Continued => f.write_str("continued"),
            Self::PauseFailed { why } => write!(f, "pause failed: {why}"),
            Self::Updating { .. }
            | Self::Trial { .. }
            | Self::Updated { .. }
            | Self::RolledBack { .. } => f.write_str(&self.of_update()),
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(ended) => write!(f, "{ended}; its recovery policy does not restart it"),
            Self::TooManyRestarts {
                limit,
                window,
                last,
            } => {
                write!(
                    f,
                    "more than {limit} restarts within {}; last failure: {last}",
                    Human(*window)
                )
            }
            Self::RetriesExhausted { tries } => {
                write!(
                    f,
                    "its dependency was still unavailable after {tries} retries (exit code 202)"
                )
            }
            Self::NotRestored { why } => {
                write!(f, "state failed to load (exit code 201): {why}")
            }
            Self::Need(name) => write!(f, "it needs {name}, which is halted"),
            Self::NeedEnded(name) => {
                write!(f, "it needs {name}, which exited before it was ready")
            }
            Self::Unstartable { why } => write!(f, "cannot start: {why}"),
            Self::Backgrounded { hint } => Ended::Backgrounded { hint: hint.clone() }.fmt(f),
            Self::Inherited { why } => f.write_str(why),
            Self::Unkillable { after } => {
                write!(
                    f,
                    "its processes are still running {} after they were killed",
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
