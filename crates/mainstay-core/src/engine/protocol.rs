//! The protocol between the engine and its host: events report observations, actions are
//! instructions.

use std::fmt;
use std::time::Duration;

use super::contract::{Exit, Human, StartFailure};
use super::fact::Fact;
use super::id::{RunId, ServiceId, Token};
use super::request::Refusal;
use crate::snapshot::{Reason, SnapshotId};
use crate::spec::{Probe, StopAsk};

/// An observation by the host. The first event of each run is [`Event::Spawned`] or
/// [`Event::SpawnFailed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The child of [`Action::Spawn`] runs, with this process ID.
    Spawned(ServiceId, RunId, u32),
    /// The child could not be started; there is no process.
    SpawnFailed(ServiceId, RunId, StartFailure),
    /// The main process of a run ended and was reaped.
    Exited(ServiceId, RunId, Exit),
    /// The process tree of a run is empty. Sent once, after [`Event::Exited`].
    Emptied(ServiceId, RunId),
    /// The answer to [`Action::Ask`] or [`Action::ExpectLine`]: success, or the reason for the
    /// failure.
    Answered(ServiceId, Token, Result<(), ProbeFailure>),
    /// A question of [`Action::Ask`] could not be asked, for a reason on the host's side. This is
    /// no evidence, and the question is asked again.
    Unasked(ServiceId, Token, Unasked),
    /// A message on the notification socket of a run (sd_notify(3)).
    Notified(ServiceId, RunId, Notice),
    /// A failure of [`Action::Freeze`].
    FreezeFailed(ServiceId, RunId, String),
    /// The answer to [`Action::Forget`].
    Forgotten(ServiceId),
    /// The answer to [`Action::Restore`] and [`Action::RestoreSnapshot`]: the restored snapshot, or
    /// the reason for the failure.
    Restored(ServiceId, Token, Result<SnapshotId, CopyFailure>),
    /// The answer to [`Action::Snapshot`] and [`Action::KeepState`], also after
    /// [`Action::AbandonSnapshot`]: the result, or the reason for the failure.
    Snapshotted(ServiceId, Token, Result<Snapshotted, CopyFailure>),
    /// A deadline has passed. The event is harmless at any other time.
    Tick,
    /// A deadline may have passed while the host did not run (it was suspended, or the machine is
    /// overloaded). Evidence from that time may not have reached the engine yet, so an expired
    /// deadline proves nothing.
    Late,
}

impl Event {
    /// Returns the service that the event belongs to.
    pub(super) fn service(&self) -> Option<ServiceId> {
        match self {
            Self::Spawned(id, ..)
            | Self::SpawnFailed(id, ..)
            | Self::Exited(id, ..)
            | Self::Emptied(id, ..)
            | Self::Answered(id, ..)
            | Self::Unasked(id, ..)
            | Self::Notified(id, ..)
            | Self::FreezeFailed(id, ..)
            | Self::Restored(id, ..)
            | Self::Forgotten(id)
            | Self::Snapshotted(id, ..) => Some(*id),
            Self::Tick | Self::Late => None,
        }
    }
}

/// The reason why a short-lived command of a service failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandFailure {
    /// The program could not be started.
    NotStarted(StartFailure),
    /// The command took longer than this.
    TimedOut(Duration),
    /// The program exited with a failure.
    Exited(Exit),
}

impl fmt::Display for CommandFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(why) => why.fmt(f),
            Self::TimedOut(limit) => write!(f, "no response within {}", Human(*limit)),
            Self::Exited(exit) => exit.fmt(f),
        }
    }
}

/// The reason why a probe failed, or a line of output cannot be expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The command that runs this program failed. Its arguments may be secrets.
    Command(String, CommandFailure),
    /// The operation had no result within this time.
    TimedOut(String, Duration),
    /// The response to this request had this status.
    Status(String, u16),
    /// A process that does not belong to the service listens at the address.
    Stranger {
        /// The address.
        at: String,
        /// The process.
        who: String,
    },
    /// This file does not exist.
    Absent(String),
    /// An operation failed: its name and the cause.
    Failed(String),
    /// The service was removed.
    Removed,
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(_, why @ CommandFailure::NotStarted(_)) => why.fmt(f),
            Self::Command(program, why @ CommandFailure::TimedOut(_)) => {
                write!(f, "the probe command {program}: {why}")
            }
            Self::Command(program, why) => {
                write!(f, "the probe command {program} failed: {why}")
            }
            Self::TimedOut(operation, limit) => {
                write!(f, "{operation}: {}", CommandFailure::TimedOut(*limit))
            }
            Self::Status(request, status) => write!(f, "{request}: status {status}"),
            Self::Stranger { at, who } => write!(
                f,
                "{at} is answered by {who}, which is not one of its processes; `owner = \"any\"` accepts it"
            ),
            Self::Absent(path) => write!(f, "{path} does not exist"),
            Self::Failed(why) => f.write_str(why),
            Self::Removed => Refusal::Removed.fmt(f),
        }
    }
}

/// The reason why a snapshot was not taken, or a state not restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFailure {
    /// A cancellation before anything was copied.
    Cancelled,
    /// The restore took too long.
    RestoreTimedOut,
    /// The service was removed.
    Removed,
    /// The `thaw` command of the previous snapshot is still running.
    Thawing,
    /// The `quiesce` command failed, for this reason.
    NotQuiesced(CommandFailure),
    /// The files could not be copied, for this reason.
    Files(String),
}

impl fmt::Display for CopyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("it was cancelled"),
            Self::RestoreTimedOut => f.write_str("the restore timed out"),
            Self::Removed => Refusal::Removed.fmt(f),
            Self::Thawing => f.write_str("the `thaw` command of the last one is still running"),
            Self::NotQuiesced(why) => write!(f, "the `quiesce` command failed: {why}"),
            Self::Files(why) => f.write_str(why),
        }
    }
}

/// The reason why a question was not asked, or its answer was not received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// The host lacks a resource (descriptors, memory). The question is asked again after a pause.
    Lacking(String),
    /// The host did not run for a while. The question is asked again at once.
    Delayed,
}

/// The result of a successful snapshot request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshotted {
    /// A snapshot was taken.
    Taken(SnapshotId),
    /// No snapshot was needed: the state equals the newest stable snapshot.
    Unchanged,
}

/// Evidence of readiness that a run emits by itself, possibly before its exit is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// A line of output.
    Line,
    /// A message on the notification socket.
    Notice,
}

/// A message from a service on its notification socket (sd_notify(3)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `READY=1`
    Ready,
    /// `STATUS=…`
    Status(String),
    /// `EXTEND_TIMEOUT_USEC=…`: the start or stop may take this much longer from now.
    ExtendTimeout(Duration),
}

/// An instruction to the host. Actions are performed in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Starts the program. The host answers [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn(ServiceId, RunId),
    /// Asks the run to stop, in the given way.
    AskToStop(ServiceId, RunId, StopAsk),
    /// Kills the whole process tree of the run.
    Kill(ServiceId, RunId),
    /// Suspends all processes of the run.
    Freeze(ServiceId, RunId),
    /// Resumes all processes of the run.
    Thaw(ServiceId, RunId),
    /// Runs the probe. The host answers [`Event::Answered`] within `timeout`.
    Ask {
        /// The service that the probe is for.
        service: ServiceId,
        /// The run that should answer; `None` for a `wait_for` condition.
        of: Option<RunId>,
        /// The token to return with the answer.
        token: Token,
        /// The probe to run.
        probe: Probe,
        /// The time limit for the answer.
        timeout: Duration,
    },
    /// Waits for a line of output that matches; the host answers [`Event::Answered`] at the first
    /// one. This action precedes its [`Action::Spawn`], so that even the first line of a quick
    /// program is seen.
    ExpectLine(ServiceId, Token, String),
    /// Restores the state from the newest intact stable snapshot. The host answers
    /// [`Event::Restored`]. The service has no processes.
    Restore {
        /// The service whose state is restored.
        service: ServiceId,
        /// The token to return with the answer.
        token: Token,
        /// An upper bound: only an older snapshot than this one is restored.
        before: Option<SnapshotId>,
    },
    /// Restores the state from the given snapshot. The host answers [`Event::Restored`].
    RestoreSnapshot {
        /// The service whose state is restored.
        service: ServiceId,
        /// The token to return with the answer.
        token: Token,
        /// The snapshot to restore.
        snapshot: SnapshotId,
    },
    /// Takes a snapshot of a service that is down, before a new definition of it runs. The host
    /// answers [`Event::Snapshotted`].
    KeepState {
        /// The service whose state is copied.
        service: ServiceId,
        /// The token to return with the answer.
        token: Token,
        /// Set if the service was healthy with this state.
        stable: bool,
    },
    /// Forgets a service without processes that will never run again. The host answers
    /// [`Event::Forgotten`].
    Forget(ServiceId),
    /// Takes a snapshot of the state of this run, if one is needed. The host answers
    /// [`Event::Snapshotted`]. If the snapshot policy suspends the service, [`Action::Freeze`]
    /// precedes.
    Snapshot {
        /// The service whose state is copied.
        service: ServiceId,
        /// The run that must continue meanwhile.
        run: RunId,
        /// The token to return with the answer.
        token: Token,
        /// The reason. A snapshot that no operator requested is skipped if nothing has changed.
        reason: Reason,
        /// Set if the service is healthy with this state.
        stable: bool,
    },
    /// Cancels a snapshot in progress and deletes it, unless it is already complete.
    AbandonSnapshot(ServiceId, Token),
    /// Cancels a restore and leaves the state as it was, unless the restore can no longer be
    /// undone. The host answers [`Event::Restored`] soon.
    AbandonRestore(ServiceId, Token),
    /// Records the checkpoint of the service, which has changed. [`Action::Emit`] implies this.
    Record(ServiceId),
    /// Reports a fact to all subscribers.
    Emit(ServiceId, Fact),
}
