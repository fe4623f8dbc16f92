//! The executor: performs the dispatcher's [effects](super::effects) on the real system.
//!
//! Whatever may block is done by threads and tasks of their own, whose results are messages to the
//! loop. The log thread owns the services' output: a slow disk does not delay restarts, and
//! frequent restarts do not delay log lines.

mod alerts;
mod definitions;
mod notices;
mod notify;
mod outlets;
mod probe;
mod programs;
#[cfg(unix)]
mod release;
mod snapshots;
mod sockets;
mod spawn;
mod storage;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use mainstay_core::engine::{CommandFailure, Human, RunId, ServiceId, Token};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::log::redact::RedactionKey;
use mainstay_core::spec::{Spec, redact::RedactWith};
use mainstay_core::time::Instant;
use mainstay_logs::{EventLog, LogEnds, Logs, Lost, Pipes, Places};
use mainstay_store::embedded::Definition;
use mainstay_store::ledger::Ledger;
use mainstay_store::snapshot::CallOff;
use mainstay_store::state_dir::StateDir;
use mainstay_sys::{self as sys, Processes, Tree, TreeId};

pub(super) use self::notices::Notices;
use self::notify::NotifySocket;
pub(crate) use self::probe::{Asked, ask_probe};
pub(super) use self::programs::{Adopted, exit_of};
use self::sockets::Sockets;
use super::clock::{Clock, ToLoop};
use super::dispatcher::About;
use super::effects::{Account, Message, Ticket, Time};
use super::report::Reporter;
use super::{Output, Wake, failed};
use crate::{launch, preflight};

/// The delay before another attempt to start a keeper.
const KEEPER_PAUSE: Duration = Duration::from_secs(10);

/// The system, as the dispatcher uses it.
pub(super) struct Executor {
    pub(super) state: StateDir,
    pub(super) processes: Processes,
    seats: BTreeMap<ServiceId, Seat>,
    helpers: HashMap<TreeId, (Ticket, Tree)>,
    /// The threads that wait for the end of a request to a webhook.
    requests: BTreeMap<Ticket, mpsc::Sender<Result<(), CommandFailure>>>,
    pub(super) logs: Logs,
    pub(super) events: EventLog,
    /// The null device, for the output of helpers.
    null: File,
    pub(super) inherited: launch::Environment,
    pub(super) clock: Clock,
    pub(super) messages: ToLoop,
    pub(super) reporter: Reporter,
    pub(super) ledger: Option<Ledger>,
    /// The manifest's name, for the ledger.
    manifest: String,
    /// The orphan markers by which a later supervisor finds running processes: of those that this
    /// supervisor started, and of those that it adopted.
    pub(super) orphan_markers: Vec<String>,
    /// Set while a later supervisor could adopt the running services.
    pub(super) is_adoptable: bool,
}

/// The machine that an executor works on, and what is running there.
pub(super) struct Machine {
    pub(super) state: StateDir,
    pub(super) processes: Processes,
    pub(super) inherited: launch::Environment,
    /// The receiver of the supervisor's own messages.
    pub(super) output: Output,
    /// Set if some of the services are already running.
    pub(super) adopts: bool,
}

/// The resources of a definition of a service.
pub(super) struct Seat {
    spec: Arc<Spec>,
    dir: PathBuf,
    account: Account,
    log: LogEnds,
    notify: Option<NotifySocket>,
    sockets: Sockets,
    held: Option<Held>,
    /// The last copy of its state, and the last restore.
    copy: Option<(Token, CallOff)>,
    restore: Option<(Token, CallOff)>,
}

/// The processes of a run.
struct Held {
    run: RunId,
    tree: Tree,
    /// A lock that prevents a restore of the state while the run uses it.
    _in_use: Option<File>,
}

impl Seat {
    fn new(definition: &Definition, account: &Account, log: LogEnds) -> Self {
        Self {
            spec: Arc::clone(&definition.spec),
            dir: definition.dir.clone(),
            account: account.clone(),
            log,
            notify: None,
            sockets: Sockets::default(),
            held: None,
            copy: None,
            restore: None,
        }
    }

    /// Returns the account if it is known and differs from the supervisor's own.
    fn user(&self) -> Option<&sys::User> {
        other(&self.account)
    }

    /// Returns the tree of this run, if there is one.
    fn tree(&self, run: RunId) -> Option<&Tree> {
        let held = self.held.as_ref().filter(|held| held.run == run);
        held.map(|held| &held.tree)
    }
}

/// Returns the account if it is known and differs from the supervisor's own.
pub(super) fn other(account: &Account) -> Option<&sys::User> {
    account.as_ref().ok()?.as_ref()
}

/// Returns whether secrets in the service's log are replaced by their hashes.
fn hashes_secrets(definition: &Definition) -> bool {
    let redact = definition.spec.log().redact();
    !redact.is_empty() && redact.with() == RedactWith::Hash
}

impl Executor {
    /// Makes the executor of these services, and a seat for each.
    pub(super) fn new(
        machine: Machine,
        about: &About,
        messages: ToLoop,
        services: &[(Definition, Account)],
    ) -> Result<(Self, Vec<Seat>), Failure> {
        let (state, is_daemon) = (machine.state, about.daemon.is_some());
        let mut pipes = Pipes::new(&state.pipes_dir()).map_err(failed("create the log pipes"))?;
        if machine.adopts {
            pipes.need();
        }
        let mut log_pipes = Vec::with_capacity(services.len());
        for (Definition { spec, .. }, account) in services {
            let made = pipes.make(spec.name(), spec.log(), other(account));
            log_pipes.push(made.map_err(|error| {
                let message = format!("cannot create the log pipe of {}: {error}", spec.name());
                Failure::new(Code::CannotWrite, message)
            })?);
        }
        pipes.keep().map_err(failed("start the log keeper"))?;
        // Services that are added later may need a key.
        let key = if is_daemon || services.iter().any(|(it, _)| hashes_secrets(it)) {
            state.redaction_key()?
        } else {
            RedactionKey::new([0; 32])
        };
        let places = Places {
            logs_dir: state.logs_dir(),
            spool_dir: state.spool_dir(),
        };
        let to_loop = messages.clone();
        let logs = Logs::start(places, pipes, key, move |event| {
            to_loop.send(Message::Log(event));
        })
        .map_err(failed("start the log thread"))?;
        let mut seats = Vec::with_capacity(services.len());
        for ((definition, account), pipes) in services.iter().zip(log_pipes) {
            let name = definition.spec.name();
            let opened = logs.open(name, definition.spec.log(), &definition.dir, pipes);
            let log = opened.map_err(|error| {
                let message = format!("cannot open the log of {name}: {error}");
                Failure::new(Code::CannotWrite, message)
            })?;
            // The directory must belong to the account, so it is not made while that is unknown.
            if let Ok(owner) = account {
                let created = state.create_data_dir(name.as_str(), owner.as_ref());
                created.map_err(failed("create the service's data directory"))?;
            }
            seats.push(Seat::new(definition, account, log));
        }
        let names = services.iter().map(|(it, _)| it.spec.name().as_str());
        let mut reporter = Reporter::new(machine.output, names);
        if is_daemon {
            reporter.alert_system_log();
        }
        let to_loop = messages.clone();
        let events = EventLog::new(state.events_dir(), move |event| {
            to_loop.send(Message::Log(event));
        });
        let executor = Self {
            processes: machine.processes,
            seats: BTreeMap::new(),
            helpers: HashMap::new(),
            requests: BTreeMap::new(),
            logs,
            events,
            null: sys::null().map_err(failed("open the null device"))?,
            inherited: machine.inherited,
            clock: Clock::new(sys::uptime().saturating_sub(about.zero)),
            messages,
            reporter,
            ledger: None,
            manifest: about.manifest.clone(),
            orphan_markers: Vec::new(),
            is_adoptable: true,
            state,
        };
        Ok((executor, seats))
    }

    /// Shows the operator what is worth a remark about the services.
    pub(super) fn remark(&mut self) {
        for seat in self.seats.values() {
            let name = seat.spec.name();
            for remark in preflight::remarks(&seat.spec, &seat.dir, &self.inherited) {
                self.reporter.notify(&format!("{name}: {remark}"));
            }
        }
    }

    /// Starts a process that keeps the log pipes open beyond this process's life. Retries if that
    /// fails.
    pub(super) fn keep_pipes_again(&mut self) {
        let seats = self.seats.values();
        let Err(error) = self.logs.keep(seats.map(|seat| &seat.log)) else {
            return;
        };
        self.reporter.notify(&format!(
            "cannot start a keeper of the log pipes: {error}; retrying in {}",
            Human(KEEPER_PAUSE)
        ));
        let messages = self.messages.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(KEEPER_PAUSE).await;
            messages.send(Wake::KeepPipes);
        });
    }

    /// Kills processes of services and helpers that have left their process trees.
    pub(super) fn end_orphans(&mut self) {
        let count = self.processes.end_orphans(self.logs.keeper());
        if count > 0 {
            self.reporter.notify(&format!(
                "killed {count} processes that services had left outside their process trees"
            ));
        }
    }

    /// Writes the remaining contents of the log pipes and reports lost lines.
    ///
    /// # Errors
    /// If the disk of the logs hangs. It is reported.
    pub(super) fn close(mut self) -> Result<(), Failure> {
        // Close our own ends of the pipes: a reader waits until the last writer has closed its end.
        self.seats.clear();
        self.close_events();
        let summary = self.logs.close(|| self.reporter.await_logs(&self.state));
        let Some(summary) = summary else {
            return Err(self.reporter.give_logs_up(&self.state));
        };
        let Lost { bytes, lines } = summary.lost;
        if bytes > 0 {
            self.reporter.notify(&format!(
                "{bytes} bytes ({lines} lines) of logs were lost in total: they could not be written to disk"
            ));
        }
        for (sink, service, Lost { bytes, lines }) in summary.sinks {
            self.reporter.notify(&format!(
                "{service}: {sink} did not receive the last {bytes} bytes ({lines} lines); the log files contain them"
            ));
        }
        Ok(())
    }

    /// Ends logging while services go on without a supervisor. Their output waits in the pipes for
    /// the next supervisor.
    ///
    /// # Errors
    /// As for [`Executor::close`].
    pub(super) fn leave(mut self) -> Result<(), Failure> {
        self.close_events();
        let left = self.logs.leave(|| self.reporter.await_logs(&self.state));
        match left {
            Some(_) => Ok(()),
            None => Err(self.reporter.give_logs_up(&self.state)),
        }
    }

    /// Waits a limited time until all events are stored.
    fn close_events(&mut self) {
        if !self.events.close() {
            let dir = self.state.events_dir();
            self.reporter.notify(&format!(
                "the last events were not stored: the disk of {} does not accept them",
                dir.display()
            ));
        }
    }

    /// Creates the services' files in a new state directory.
    pub(super) fn furnish(&mut self) {
        // The pipes had their names in the old directory. Without these, a later supervisor could
        // not read the services' output.
        self.ledger = None;
        self.is_adoptable = false;
        if let Err(error) = self.logs.make_dir_again() {
            self.reporter.notify(&format!(
                "cannot create the directory of the log pipes: {error}"
            ));
        }
        for seat in self.seats.values() {
            let name = seat.spec.name();
            let made = self.state.create_data_dir(name.as_str(), seat.user());
            if let Err(error) = made {
                let text = format!("{name}: cannot create its data directory: {error}");
                self.reporter.notify(&text);
            }
        }
        let ids: Vec<_> = self.seats.keys().copied().collect();
        for id in ids {
            if let Err(error) = self.listen_again(id) {
                let text = format!("cannot reopen a notification socket: {error}");
                self.reporter.notify(&text);
            }
        }
    }

    fn send(&self, message: Message) {
        self.messages.send(message);
    }
}

impl Time for Executor {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn calendar(&self, at: Instant) -> String {
        self.clock.calendar(at)
    }

    fn later(&mut self, pause: Duration, message: Message) {
        let messages = self.messages.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            messages.send(message);
        });
    }
}
