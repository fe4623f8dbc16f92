//! The dispatcher: brings observations, requests of clients and the passing of time to the engine,
//! and performs the engine's decisions, in one order.
//!
//! Everything that happens to it is a call of one of its methods: a message, a request, an
//! interrupt, ended children, a deadline. Each call puts work into one queue and ends when the
//! queue is empty. An action that results from an action is performed before the next one; a result
//! that arrives later starts a call of its own. All that it does to the world goes through
//! [`Effects`](super::effects): with the same calls and the same effects, it does the same again,
//! so that `simulation/` can replay each of its lives from a seed.
//!
//! Each part owns its state and has a file of its own: `clients` those who wait for services,
//! `rollouts` updates on trial, `snapshots` copies and restores, `helpers` short-lived processes,
//! `alerts` the outboxes, `changes` definitions that are being read, `daemon` what the embedded
//! manager adds.

mod alerts;
mod changes;
mod clients;
pub(super) mod daemon;
mod facts;
mod helpers;
mod ledger;
mod logs;
mod removal;
mod requests;
mod rollouts;
mod runs;
mod service;
mod snapshots;
mod status;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hyper::body::Bytes;
use mainstay_core::engine::{
    Action, Checkpoint, Engine, Event, Exit, GraphError, RunId, ServiceId,
};
use mainstay_core::time::Instant;
use mainstay_store::embedded::Definition;
use mainstay_store::ledger::ManifestCopy;
use mainstay_store::snapshot::Which;
use tokio::sync::mpsc;

use self::alerts::Alerts;
use self::changes::Changes;
use self::clients::Clients;
use self::daemon::Daemon;
use self::helpers::Helpers;
pub(super) use self::ledger::unwritten;
use self::rollouts::Rollouts;
use self::runs::Ends;
use self::service::Service;
pub(super) use self::service::Taken;
use self::snapshots::Snapshots;
use super::delay::Deadlines;
use super::effects::{Account, Effects, Message, Ticket};
use super::interrupts::Interrupt;
use super::managed::Progress;

/// The delay after start-up before resources used only for start-up are released.
const SETTLED: Duration = Duration::from_millis(250);

/// The time within which a signal counts as a repetition of the first one. A wrapper or a terminal
/// may send the same signal to both the process group and the process, before the operator has seen
/// the prompt about a second signal.
const ECHO: Duration = Duration::from_millis(500);

/// A service when the dispatcher begins.
pub(super) struct Initial<S> {
    pub(super) definition: Definition,
    pub(super) account: Account,
    /// The resources that are prepared for the definition.
    pub(super) seat: S,
}

/// The supervisor that a dispatcher works for.
pub(super) struct About {
    /// The manifest's name as the operator gave it.
    pub(super) manifest: String,
    /// The manifest's services that this supervisor was started without.
    pub(super) left_out: Vec<String>,
    /// Set if this process manages the services installed here.
    pub(super) daemon: Option<Daemon>,
    /// Set if a service manager started this process for its single service: the progress of the
    /// service, as reported to the manager.
    pub(super) manager: Option<Progress>,
    /// The start of the engine's time, as uptime of the system.
    pub(super) zero: Duration,
    /// The seed of the jitter.
    pub(super) seed: u64,
}

/// Something to do.
enum Work {
    Action(Action),
    /// An event that occurred at this time.
    Event(Event, Instant),
}

/// The dispatcher. See the module documentation.
pub(super) struct Dispatcher<E: Effects> {
    pub(super) effects: E,
    engine: Engine,
    services: BTreeMap<ServiceId, Service>,
    queue: VecDeque<Work>,
    ends: Ends,
    helpers: Helpers,
    clients: Clients,
    changes: Changes,
    rollouts: Rollouts,
    snapshots: Snapshots,
    alerts: Alerts,
    listeners: Vec<mpsc::Sender<Bytes>>,
    /// The number of facts that were passed on.
    emitted: u64,
    about: About,
    next_ticket: u64,
    interrupts: u32,
    /// The time of the first interrupt.
    ending_since: Option<Instant>,
    /// Set if any service has ever halted.
    has_halted: bool,
    /// The time at which start-up ends.
    settles_at: Option<Instant>,
    /// The time of the next retry of failed writes.
    rewrites_at: Option<Instant>,
    deadlines: Deadlines,
}

impl<E: Effects> Dispatcher<E> {
    /// Creates a dispatcher of services that are down.
    ///
    /// # Errors
    /// If the definitions do not form a graph.
    pub(super) fn new(
        initial: Vec<Initial<E::Seat>>,
        about: About,
        mut effects: E,
    ) -> Result<Self, GraphError> {
        let specs = initial.iter().map(|it| it.definition.spec.clone());
        let engine = Engine::new(specs, about.seed)?;
        let mut services = BTreeMap::new();
        for (id, it) in engine.ids().zip(initial) {
            services.insert(id, Service::new(it.definition, it.account));
            effects.seat(id, it.seat);
        }
        Ok(Self {
            effects,
            engine,
            services,
            queue: VecDeque::new(),
            ends: Ends::default(),
            helpers: Helpers::default(),
            clients: Clients::default(),
            changes: Changes::default(),
            rollouts: Rollouts::default(),
            snapshots: Snapshots::default(),
            alerts: Alerts::default(),
            listeners: Vec::new(),
            emitted: 0,
            about,
            next_ticket: 0,
            interrupts: 0,
            ending_since: None,
            has_halted: false,
            settles_at: None,
            rewrites_at: None,
            deadlines: Deadlines::default(),
        })
    }

    /// Begins the ledger, and starts every service that is due by its checkpoint, each as soon as
    /// its needs are ready.
    pub(super) fn begin(
        &mut self,
        checkpoints: Vec<(ServiceId, Checkpoint)>,
        copy: Option<&ManifestCopy>,
    ) {
        let actions = self.engine.resume(checkpoints, self.now());
        self.begin_ledger(copy);
        self.perform(actions);
        self.settle_soon();
    }

    /// Releases soon what was needed only for a start or a change.
    fn settle_soon(&mut self) {
        self.settles_at = Some(self.now() + SETTLED);
    }

    /// Ends the dispatcher, and with it the streams of its listeners.
    pub(super) fn into_effects(self) -> E {
        self.effects
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns a ticket that was not used before.
    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn now(&self) -> Instant {
        self.effects.now()
    }

    /// Returns the time at which [`Dispatcher::woken`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [
            self.engine.deadline(),
            self.ends.sweeps_at(),
            self.rewrites_at,
            self.settles_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub(super) fn woken(&mut self) {
        let now = self.now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.ends.sweeps_at()) {
            self.sweep_again();
        }
        if let Some(at) = self.engine.deadline().filter(|at| *at <= now) {
            let event = self.deadlines.event(now.since(at));
            self.step(event);
        }
        if is_due(self.rewrites_at) {
            self.rewrite();
        }
        if is_due(self.settles_at) {
            self.settles_at = None;
            self.effects.settle();
        }
    }

    /// Processes a message that was sent at `at`.
    pub(super) fn received(&mut self, message: Message, at: Instant) {
        match message {
            Message::Engine(event) => self.step_at(at, event),
            Message::Log(event) => self.log_event(event, at),
            Message::Exited(id, run) => self.output_was_read(id, run),
            Message::HelperLate {
                ticket,
                was_delayed,
            } => self.helper_late(ticket, was_delayed, at),
            Message::Alert(event) => self.alert_event(event),
            Message::ClientLeft(candidate) => self.client_left(candidate),
            Message::Loaded(ticket, loaded) => self.loaded(ticket, loaded),
            Message::Checked(ticket, checked) => self.checked(ticket, *checked),
            Message::Copied(id, token, result) => self.copied(id, token, result),
            Message::Remark(id, remark) => {
                if let Some(service) = self.services.get(&id) {
                    let text = format!("{}: {remark}", service.spec.name());
                    self.effects.notify(&text);
                }
            }
        }
    }

    /// Concludes a call of any other method: responds to the clients whose services have settled,
    /// and begins or ends the wait for the last alerts. The loop calls this before it waits again.
    pub(super) fn conclude(&mut self) {
        self.answer_waiters();
        self.engine.end_operations();
        self.tell_parent_when_calm();
        if self.is_done() {
            self.kill_helpers();
            self.end_alerts();
        } else {
            self.go_on_with_alerts();
        }
    }

    /// Returns whether the supervisor has nothing left to do.
    pub(super) fn is_finished(&self) -> bool {
        self.is_done() && self.helpers.is_empty() && self.alerts.are_out()
    }

    /// Returns whether nothing is running and nothing more will be started.
    pub(super) fn is_done(&self) -> bool {
        match &self.about.daemon {
            Some(daemon) => {
                let ends = daemon.exits_when_done || self.engine.is_shutting_down();
                ends && self.engine.is_down()
            }
            None => self.engine.is_finished(),
        }
    }

    /// Returns the exit code of the supervisor, at its end.
    pub(super) fn exit_code(&self) -> u32 {
        if let Some(daemon) = &self.about.daemon {
            return daemon.exit_code(self.interrupts);
        }
        let has_failed = self.has_halted && self.interrupts == 0 || self.interrupts > 1;
        match (has_failed, &self.about.manager) {
            (false, _) => 0,
            (true, None) => 1,
            (true, Some(_)) => {
                let id = self.engine.ids().next();
                id.and_then(|id| self.failure_of(id)).unwrap_or(1)
            }
        }
    }

    /// Returns the exit code of a service's last run, if that run failed.
    fn failure_of(&self, id: ServiceId) -> Option<u32> {
        match self.engine.view(id)?.last_exit? {
            Exit::Code(code) => Some(code.cast_unsigned()).filter(|code| *code != 0),
            exit => exit.contract_code().map(i32::cast_unsigned),
        }
    }

    /// Handles a signal of the operator: the first stop signal stops all services, the second kills
    /// them.
    pub(super) fn interrupted(&mut self, interrupt: Interrupt) {
        match interrupt {
            Interrupt::Hangup if self.about.daemon.is_some() => return self.reload_all(),
            Interrupt::RotateLogs => return self.rotate_logs(),
            Interrupt::WriteState => return self.write_state(),
            Interrupt::Stop | Interrupt::Hangup | Interrupt::Quit => {}
        }
        let now = self.now();
        let is_echo = |ending: Instant| now.since(ending) < ECHO;
        if interrupt != Interrupt::Quit && self.ending_since.is_some_and(is_echo) {
            return;
        }
        self.ending_since.get_or_insert(now);
        self.interrupts += 1;
        self.begin_end();
        if interrupt == Interrupt::Quit {
            // SIGQUIT counts as the second stop signal.
            self.interrupts = self.interrupts.max(2);
        }
        let at_once = self.interrupts > 1;
        let actions = if at_once {
            self.engine.kill_all(now)
        } else {
            self.engine.stop_all(now)
        };
        self.effects.notify(if at_once {
            "killing all services"
        } else {
            "stopping all services; to kill them, press Ctrl-C or send the signal once more"
        });
        self.perform(actions);
    }

    fn step(&mut self, event: Event) {
        self.step_at(self.now(), event);
    }

    /// Processes an event that occurred at `at`, and everything that results from it.
    fn step_at(&mut self, at: Instant, event: Event) {
        self.queue.push_back(Work::Event(event, at));
        self.work();
    }

    /// Performs actions, and everything that results from them.
    fn perform(&mut self, actions: Vec<Action>) {
        self.put_first(actions);
        self.work();
    }

    /// Processes an event after the work that is already in the queue.
    fn step_later(&mut self, event: Event) {
        self.queue.push_back(Work::Event(event, self.now()));
    }

    /// Puts `actions` before the rest of the queue. Facts among them come first, so that they are
    /// reported when they happen.
    fn put_first(&mut self, actions: Vec<Action>) {
        let is_fact = |action: &Action| matches!(action, Action::Emit(..));
        let (facts, rest): (Vec<_>, Vec<_>) = actions.into_iter().partition(is_fact);
        for action in facts.into_iter().chain(rest).rev() {
            self.queue.push_front(Work::Action(action));
        }
    }

    /// Works until the queue is empty, and no run has just lost its last process.
    fn work(&mut self) {
        loop {
            let (event, at) = match self.queue.pop_front() {
                Some(Work::Action(action)) => match self.perform_one(action) {
                    Some(event) => (event, self.now()),
                    None => continue,
                },
                Some(Work::Event(event, at)) => (event, at),
                None => match self.next_emptied() {
                    Some(event) => (event, self.now()),
                    None => return,
                },
            };
            let actions = self.engine.step(event, at);
            self.put_first(actions);
        }
    }

    /// Performs an action, and returns its result if that is known at once.
    fn perform_one(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn(id, run) => return Some(self.start_run(id, run)),
            Action::AskToStop(id, run, ask) => self.effects.ask_to_stop(id, run, ask),
            Action::Kill(id, run) => self.kill(id, run),
            Action::Freeze(id, run) => {
                let frozen = self.effects.freeze(id, run);
                return frozen
                    .err()
                    .map(|error| Event::FreezeFailed(id, run, error.to_string()));
            }
            Action::Thaw(id, run) => self.effects.thaw(id, run),
            Action::Ask {
                service,
                of,
                token,
                probe,
                timeout,
            } => return self.ask((service, of), token, probe, timeout),
            Action::ExpectLine(id, token, regex) => {
                let expected = self.effects.expect_line(id, token, &regex);
                return expected
                    .err()
                    .map(|why| Event::Answered(id, token, Err(why)));
            }
            Action::Restore {
                service,
                token,
                before,
            } => self.restore((service, token), Which::Stable(before)),
            Action::RestoreSnapshot {
                service,
                token,
                snapshot,
            } => self.restore((service, token), Which::Exactly(snapshot)),
            Action::Snapshot {
                service,
                token,
                reason,
                stable,
                ..
            } => self.snapshot(service, token, reason, stable),
            Action::KeepState {
                service,
                token,
                stable,
            } => self.keep_state(service, token, stable),
            Action::AbandonSnapshot(id, token) => self.abandon_snapshot(id, token),
            Action::AbandonRestore(id, token) => self.effects.call_off(id, token),
            Action::Forget(id) => {
                self.forget_beside(id);
                return Some(Event::Forgotten(id));
            }
            Action::Record(id) => self.record(id),
            Action::Emit(id, fact) => self.emit(id, &fact),
        }
        None
    }

    /// Returns the service's name, for messages.
    fn name(&self, id: ServiceId) -> &str {
        let service = self.services.get(&id);
        service.map_or("the service", |service| service.spec.name().as_str())
    }

    /// The run of a service that may have processes.
    fn running(&self, id: ServiceId) -> Option<RunId> {
        Some(self.services.get(&id)?.running.as_ref()?.run)
    }

    fn restarts(&self, id: ServiceId) -> u64 {
        self.engine.view(id).map_or(0, |view| view.restarts)
    }
}
