//! The seam between the [`Dispatcher`](super::dispatcher::Dispatcher), which decides the order of
//! everything, and the system. `executor/` performs these effects on a real one, `simulation/` on
//! one that fails in every way.
//!
//! No effect blocks. Whatever may take long (a resolver, a copy, a command) is begun here, and its
//! result arrives as a [`Message`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use mainstay_core::engine::{
    Awaited, CommandFailure, CopyFailure, Event, Exit, Fact, ProbeFailure, RolloutRole, RunId,
    ServiceId, Snapshotted, StartFailure, StateName, Token, Versions,
};
use mainstay_core::spec::{Argv, Probe, ServiceName, Signal, Spec, StopAsk};
use mainstay_core::time::Instant;
use mainstay_core::trace::TraceContext;
use mainstay_logs::LogEvent;
use mainstay_store::embedded::{Definition, Desired};
use mainstay_store::ledger::{Entry, ManifestCopy, Updated};
use mainstay_store::snapshot::{Occasion, Replaced, Which};
use mainstay_sys::{self as sys, Identity, Usage};
use tokio::sync::oneshot;

use super::alert::{Alert, AlertEvent};
use super::control::Reply;

/// A message to the dispatcher about something that was begun.
#[derive(Debug)]
pub(super) enum Message {
    Engine(Event),
    Log(LogEvent),
    /// All output and notifications that a run sent before it exited have been processed.
    Exited(ServiceId, RunId),
    /// The time limit of a helper has passed. `was_delayed` is set if this process was delayed
    /// meanwhile.
    HelperLate {
        ticket: Ticket,
        was_delayed: bool,
    },
    /// The client that requested the update with this candidate has disconnected.
    ClientLeft(ServiceId),
    Alert(AlertEvent),
    /// The definitions that [`Definitions::load`] has read.
    Loaded(Ticket, Result<Vec<Loaded>, Refused>),
    /// The definition that [`Definitions::check`] has checked.
    Checked(Ticket, Box<Result<Candidate, Reply>>),
    /// The result of copying a service's state.
    Copied(ServiceId, Token, Result<Snapshotted, CopyFailure>),
    /// A message about a service, for the operator.
    Remark(ServiceId, String),
}

/// The ID of something that was begun for a service or a client. Tickets are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(pub(super) u64);

/// The reason that a change was refused, as a response.
pub(super) type Refused = (hyper::StatusCode, String);

/// The account of a service, or the reason that it cannot be used. `None` is the supervisor's own.
pub(super) type Account = Result<Option<sys::User>, StartFailure>;

/// Returns whether both definitions, with their accounts, write the same log.
pub(super) fn share_log(
    (one, dir, account): (&Spec, &Path, &Account),
    (another, other_dir, other_account): (&Spec, &Path, &Account),
) -> bool {
    one.log() == another.log() && dir == other_dir && account == other_account
}

/// An installed definition, and the account that it runs as.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) definition: Definition,
    pub(super) user: Option<sys::User>,
    /// Remarks for the operator about a definition that works.
    pub(super) remarks: Vec<String>,
}

/// A child that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reaped {
    /// The main process of a run. Other processes of the run may live.
    Main(ServiceId, RunId, Exit, Instant),
    /// A helper. All of its processes are gone.
    Helper(Ticket, Exit, Instant),
}

/// The role of a start in an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A candidate, after the old run.
    Alone,
    /// A candidate, beside the old run with this process ID and number of restarts.
    Beside { pid: u32, restarts: u64 },
    /// The old definition again.
    Back,
}

/// The origin of a process, for its environment.
#[derive(Debug)]
pub(super) struct Origin {
    /// The number of automatic restarts of its service.
    pub(super) restarts: u64,
    /// The trace context of the request that caused it, if it ends with what the request began.
    pub(super) cause: Option<TraceContext>,
}

/// The result of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Killed {
    /// There was no process to kill.
    Nothing,
    /// The main process was alive.
    Main,
    /// Only other processes of the run were alive.
    Remains,
}

/// The processes that may answer a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answerers {
    Any,
    /// The processes of this run.
    Of(RunId),
}

/// A fact on its way to the operator's screen and into the event log.
#[derive(Debug)]
pub(super) struct Published<'a> {
    pub(super) time: &'a str,
    pub(super) service: &'a ServiceName,
    pub(super) role: Option<RolloutRole>,
    pub(super) fact: &'a Fact,
    /// The fact as a JSON line.
    pub(super) line: &'a Bytes,
}

/// A client's request to try a new definition of a service.
#[derive(Debug)]
pub(super) struct CandidateText {
    pub(super) name: String,
    /// The version of the definition in effect.
    pub(super) version: u64,
    pub(super) body: Bytes,
    pub(super) setting: Setting,
}

/// The definition that a client asks to try, checked.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) definition: Definition,
    pub(super) user: Option<sys::User>,
    /// The definition in the form that is stored with the commit.
    pub(super) written: Updated,
    pub(super) canary: Duration,
    pub(super) versions: Option<Versions>,
}

/// The conditions under which a new definition of a service would run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// The single service of a service manager.
    Managed,
    /// One of the services installed here.
    Installed,
    /// One of the services of a manifest.
    OfManifest,
}

/// The entries of a ledger, with the services that they belong to.
pub(super) type Entries = (Vec<ServiceId>, Vec<Entry>);

/// The last lines of output of a run.
pub(super) type LastLines = oneshot::Receiver<Vec<String>>;

/// Everything that the dispatcher can do to the world, and see of it.
pub(super) trait Effects:
    Time + Programs + Deliveries + Definitions + Storage + Snapshots + Outlets
{
}

impl<T> Effects for T where
    T: Time + Programs + Deliveries + Definitions + Storage + Snapshots + Outlets
{
}

/// Clocks and timers.
pub(super) trait Time {
    /// The present, in the engine's time.
    fn now(&self) -> Instant;

    /// The date and time at `at`, by the calendar clock as it was then.
    fn calendar(&self, at: Instant) -> String;

    /// Sends `message` after this pause.
    fn later(&mut self, pause: Duration, message: Message);
}

/// The reason that a request for a service that no longer exists fails.
pub(super) const REMOVED: &str = "it was removed";

/// The reason why a service was not reloaded.
#[derive(Debug)]
pub(super) enum ReloadFailure {
    Removed,
    /// The service is in this state.
    State(StateName),
    /// The command could not be started.
    NotStarted(StartFailure),
    /// The program does not handle this signal.
    Unhandled(Signal),
    /// This signal could not be sent.
    Unsent(Signal, io::Error),
}

impl fmt::Display for ReloadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str(REMOVED),
            Self::State(state) => write!(f, "it {}", state.predicate()),
            Self::NotStarted(why) => why.fmt(f),
            Self::Unhandled(signal) => write!(
                f,
                "it does not handle SIG{}, which would terminate it; set `reload` in its manifest",
                signal.name()
            ),
            Self::Unsent(signal, error) => write!(f, "SIG{}: {error}", signal.name()),
        }
    }
}

/// Processes of services and helpers. Runs and helpers that no longer exist are ignored.
pub(super) trait Programs {
    /// The processes of a service that a predecessor left.
    type Adopted;

    /// Starts a service's program and returns its process ID.
    fn spawn(
        &mut self,
        id: ServiceId,
        run: RunId,
        restarts: u64,
        part: Option<Part>,
    ) -> Result<u32, StartFailure>;

    /// Takes over the processes of a run that a predecessor started.
    fn adopt(&mut self, id: ServiceId, run: RunId, adopted: Self::Adopted);

    /// Asks the processes of a run to stop.
    fn ask_to_stop(&mut self, id: ServiceId, run: RunId, ask: StopAsk);

    /// Kills all processes of a run.
    fn kill(&mut self, id: ServiceId, run: RunId) -> Killed;

    /// Suspends all processes of a run.
    fn freeze(&mut self, id: ServiceId, run: RunId) -> io::Result<()>;

    /// Resumes all processes of a run.
    fn thaw(&mut self, id: ServiceId, run: RunId);

    /// Sends the signal by which a program reloads its configuration. Refuses one that would end
    /// it, unless the definition names that signal.
    fn reload(
        &mut self,
        id: ServiceId,
        run: RunId,
        signal: Signal,
        is_named: bool,
    ) -> Result<(), ReloadFailure>;

    /// The children that have ended since the last call.
    fn reap(&mut self) -> Vec<Reaped>;

    /// Returns whether no process of the run is left.
    fn is_empty(&self, id: ServiceId, run: RunId) -> bool;

    /// Releases what a run without processes used: its tree, its state, its notification socket.
    fn release(&mut self, id: ServiceId, run: RunId);

    /// Closes the sockets on which the supervisor listens for a service.
    fn close_sockets(&mut self, id: ServiceId);

    /// The process, and the address of its notification socket, as the ledger describes them.
    fn identity(&self, id: ServiceId) -> Option<(Identity, Option<String>)>;

    fn usage(&self, id: ServiceId) -> Option<Usage>;

    /// Sends [`Message::Exited`] after everything that a run sent before it exited and that may
    /// show that it was ready.
    fn read_recent(&mut self, id: ServiceId, run: RunId, awaited: Awaited);

    /// Begins a probe that is not a command. [`Event::Answered`] or [`Event::Unasked`] follows.
    fn ask(&mut self, id: ServiceId, of: Answerers, token: Token, probe: Probe, limit: Duration);

    /// Returns the event of a probe that failed: none, if the reason may be a lack of resources in
    /// this process.
    fn refused(&self, id: ServiceId, token: Token, why: ProbeFailure) -> Event;

    /// Watches for a line in the unread output of the current run, or else in that of the next one.
    fn expect_line(&mut self, id: ServiceId, token: Token, regex: &str)
    -> Result<(), ProbeFailure>;

    /// Starts a command as the service. [`Message::HelperLate`] follows when its time is over.
    fn start_helper(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        argv: &Argv,
        origin: Origin,
        limit: Duration,
    ) -> Result<(), StartFailure>;

    fn kill_helper(&mut self, ticket: Ticket);

    /// A short description of how processes are contained.
    fn containment(&self) -> String;
}

/// Processes that deliver alerts. They are helpers, too.
pub(super) trait Deliveries {
    /// Starts the alert command as the service's account, and passes an alert to it.
    fn start_alert_command(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        alert: &Arc<Alert>,
        limit: Duration,
    ) -> Result<(), StartFailure>;

    /// Starts the process that sends an alert to a webhook. [`AlertEvent::Tried`] follows, after
    /// [`Deliveries::request_ended`].
    fn start_request(
        &mut self,
        spec: &Spec,
        dir: &Path,
        ticket: Ticket,
        alert: &Arc<Alert>,
        limit: Duration,
    ) -> Result<(), StartFailure>;

    /// Passes on how the process of a request has ended.
    fn request_ended(&mut self, ticket: Ticket, result: Result<(), CommandFailure>);
}

/// Definitions of services, and what is prepared for them: logs, sockets, directories.
pub(super) trait Definitions {
    /// The resources of a definition that is not in effect yet.
    type Seat;

    /// Begins to read installed definitions. [`Message::Loaded`] follows.
    fn load(&mut self, ticket: Ticket, names: Vec<String>);

    /// Begins to check the definition in a client's request. [`Message::Checked`] follows.
    fn check(&mut self, ticket: Ticket, candidate: CandidateText);

    /// Prepares a new service.
    fn prepare(
        &mut self,
        definition: &Definition,
        account: &Account,
    ) -> Result<Self::Seat, Refused>;

    /// Prepares another definition of a service, which uses its log and shares its sockets.
    fn share(
        &mut self,
        with: ServiceId,
        definition: &Definition,
        account: &Account,
    ) -> Result<Self::Seat, Refused>;

    /// Puts what was prepared into effect.
    fn seat(&mut self, id: ServiceId, seat: Self::Seat);

    /// Discards what was prepared for a new service.
    fn discard(&mut self, name: &ServiceName, seat: Self::Seat);

    /// Makes sure that the pipes of all seated services and of these outlive this process.
    fn keep_pipes(&mut self, more: &[Option<Self::Seat>]) -> io::Result<()>;

    /// Replaces the definition of a service without processes. Returns what did not work.
    fn redefine(
        &mut self,
        id: ServiceId,
        definition: &Definition,
        account: &Account,
    ) -> Vec<String>;

    /// Opens the log of a definition that runs alone, and gives its data directory to the account
    /// that it runs as.
    fn take_own_log(&mut self, id: ServiceId) -> Result<(), StartFailure>;

    /// Releases what a definition uses that has not become, or is no longer, its service's own.
    fn unseat(&mut self, id: ServiceId);

    /// Removes services from this process, and responds when their files are closed.
    fn forget(&mut self, ids: &[ServiceId], reply: oneshot::Sender<Reply>);

    /// Releases resources that were needed only for a start or a change.
    fn settle(&mut self);
}

/// The reason why the ledger at this path could not be written.
#[derive(Debug, PartialEq)]
pub(super) struct LedgerProblem(pub(super) PathBuf, pub(super) String);

impl fmt::Display for LedgerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(path, why) = self;
        write!(
            f,
            "cannot write {}: {why}; if this supervisor is killed, its services may be killed instead of adopted",
            path.display()
        )
    }
}

/// The storage that outlives this process: the ledger, desired states, updated definitions.
pub(super) trait Storage {
    /// Begins the ledger, unless it has begun. Returns the error if that fails.
    fn begin_ledger(
        &mut self,
        copy: Option<&ManifestCopy>,
        entries: Entries,
    ) -> Result<(), LedgerProblem>;

    /// Writes a new ledger, if one was begun.
    fn renew_ledger(&mut self, entries: Entries);

    /// Writes one entry, if a ledger was begun.
    fn write_entry(&mut self, id: ServiceId, entry: Entry) -> io::Result<()>;

    /// The reason why the last write of the ledger failed.
    fn ledger_problem(&self) -> Option<LedgerProblem>;

    fn write_desired(&mut self, name: &ServiceName, desired: Option<&Desired>) -> io::Result<()>;

    /// Stores the definition of a committed update.
    fn store_update(&mut self, name: &ServiceName, written: &Updated) -> io::Result<()>;
}

/// Snapshots of the state of services.
pub(super) trait Snapshots {
    /// Begins a copy of a service's state. [`Message::Copied`] follows.
    fn copy(&mut self, id: ServiceId, token: Token, occasion: Occasion);

    /// Begins a restore of a service's state. [`Event::Restored`] follows.
    fn restore(&mut self, id: ServiceId, token: Token, which: Which, replaced: Replaced);

    /// Cancels a copy or restore. Its result still follows.
    fn call_off(&mut self, id: ServiceId, token: Token);
}

/// Receivers of messages: the operator, logs, clients, whoever started this process.
pub(super) trait Outlets {
    /// Shows the operator a message about the supervisor itself.
    fn notify(&mut self, text: &str);

    /// Shows and stores a fact.
    fn publish(&mut self, published: &Published<'_>);

    /// Returns whether the caller of this process reports the result, and nothing else is reported.
    fn is_silent(&self) -> bool;

    /// The name of this machine.
    fn host_name(&self) -> String;

    /// An ID for an alert that was not used before.
    fn alert_id(&mut self) -> String;

    /// A seed for jitter.
    fn seed(&mut self) -> u64;

    /// Makes room for the name of another service.
    fn widen(&mut self, name: &ServiceName);

    /// Tells whoever started this process that it is ready, or about to stop.
    fn tell_parent(&mut self, parent: ToParent) -> io::Result<()>;

    /// Responds when all facts published so far are stored, or after a limited time.
    fn reply_when_stored(&mut self, reply: oneshot::Sender<Reply>);

    /// Responds when the lines have been collected.
    fn reply_with_lines(
        &mut self,
        lines: Option<LastLines>,
        reply: oneshot::Sender<Reply>,
        response: impl FnOnce(&[String]) -> Reply + 'static,
    );

    /// Returns a sender in place of `reply`. If the client disconnects before it is used,
    /// [`Message::ClientLeft`] follows.
    fn watch_client(
        &mut self,
        reply: oneshot::Sender<Reply>,
        candidate: ServiceId,
    ) -> oneshot::Sender<Reply>;

    /// Returns whether requests that involve the logs would have to wait for their disk.
    fn are_logs_behind(&self) -> bool;

    /// Starts a new log file, and responds. Without a client, a failure is a remark.
    fn rotate_log(&mut self, id: ServiceId, reply: Option<oneshot::Sender<Reply>>);

    /// Collects the last lines of a service's output.
    fn recall(&mut self, id: ServiceId) -> LastLines;

    /// Tells the log which of two runs continues.
    fn log_began(&mut self, id: ServiceId, pid: u32);
}

/// A message to whoever started this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToParent {
    Ready,
    Stopping,
}
