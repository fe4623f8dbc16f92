//! The lifecycle of services: events and the time go in, actions come out.
//!
//! The engine holds no child, clock or socket. A host feeds [`Engine::step`] with what it saw and performs the [`Action`]s that come
//! back, in order; between events it sleeps until [`Engine::deadline`] and then reports [`Event::Tick`]. Requests of operators go
//! through [`Engine::request`], which may refuse.
//!
//! Each service has a *goal* (what operators want: up or down) and a *state* (what is); neither overwrites the other. After every
//! event the engine settles: services whose situation may have changed (their own state, a need's, a dependent's) are looked at
//! until nothing moves. So a start is as parallel as the graph allows, and a stop is its mirror image.
//!
//! Should the host be killed, a new engine takes up what the old one left ([`Engine::bequest`], [`Engine::resume`]).
//!
//! Services come, change and go while the others live on ([`Engine::define`], [`Engine::remove`]). What a service is changes between two
//! runs of it; whom it needs changes at once.
//!
//! A new definition of a service may be tried before it takes the old one's place ([`Engine::try_out`], `trial.rs`).
//!
//! Invariants, checked in `simulation.rs` over a million random events in each test run: never two children of one definition, and of one
//! service only during a trial; every
//! wait has a deadline; a pause is bounded; a requested stop is never followed by a restart; no answer never counts as "yes".
//! (A service that waits for its needs relies on their deadlines, and halts with the reason where a need is halted or ended by itself
//! before it was ready. It waits without a deadline only for a need that an operator stopped or paused; its view names the need.)

mod asking;
pub(crate) mod backoff;
mod contract;
mod fact;
mod foreground;
mod past;
mod service;
#[cfg(test)]
mod simulation;
mod state;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use self::backoff::Random;
pub use self::contract::{
    Ended, Exit, Human, HumanSeconds, RETRY_BASE, RETRY_LIMIT, StartFailure, judge,
};
pub use self::fact::{Fact, Halt, KillReason, News, Outcome};
pub use self::service::{Bequest, Failures, Left, Stage, Wish};
use self::service::{Role, Service, Settled, Situation};
use self::trial::Trial;
pub use self::trial::{Beside, COMMIT_PATIENCE, Flaw, Style, TrialPhase, TrialView, Tryout};
use crate::snapshot::{Reason, SnapshotId};
use crate::spec::{Probe, ServiceName, Spec, StopAsk};
use crate::time::Instant;

/// A service of an engine. Later services have greater ids. Never used twice, so that what comes late for a removed service finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(u64);

/// One start of one service. Never used twice, so that what belongs to an earlier child is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// One question. Never used twice, so that a late answer is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What the host saw. Of each run, first [`Event::Spawned`] or [`Event::SpawnFailed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The child of [`Action::Spawn`] runs.
    Spawned(ServiceId, RunId, u32),
    /// It could not be started; there is no child.
    SpawnFailed(ServiceId, RunId, StartFailure),
    /// The main process of a run ended and was reaped.
    Exited(ServiceId, RunId, Exit),
    /// After [`Event::Exited`]: nothing of the run's tree is left. Sent once.
    Emptied(ServiceId, RunId),
    /// The answer to [`Action::Ask`] or [`Action::ExpectLine`]: yes, or why not.
    Answered(ServiceId, Token, Result<(), String>),
    /// [`Action::Ask`] could not be done, for a reason of the host's own: that is no evidence, and the question is asked again.
    Unasked(ServiceId, Token, Unasked),
    /// It said something on its notification socket (sd_notify(3)).
    Notified(ServiceId, RunId, Notice),
    /// [`Action::Freeze`] failed.
    FreezeFailed(ServiceId, RunId, String),
    /// The answer to [`Action::Forget`].
    Forgotten(ServiceId),
    /// The answer to [`Action::Restore`] and [`Action::RestoreSnapshot`]: what was restored, or why nothing was.
    Restored(ServiceId, Token, Result<SnapshotId, String>),
    /// The answer to [`Action::Snapshot`] and [`Action::KeepState`], also after [`Action::AbandonSnapshot`]: what came of it, or why nothing did.
    Snapshotted(ServiceId, Token, Result<Snapshotted, String>),
    /// The deadline has come; also harmless at any other time.
    Tick,
    /// The same, but the host did not run for a while (it was suspended, or the machine is overloaded). Evidence that arrived
    /// meanwhile may not have reached the engine yet, so nothing is concluded from a deadline that passed.
    Late,
}

/// Why a question was not asked, or its answer was not heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// The host lacks a resource (descriptors, memory). It is asked again after a pause.
    Lacking(String),
    /// The host did not run for a while. It is asked again at once.
    Delayed,
}

impl Event {
    /// Whose it is.
    fn service(&self) -> Option<ServiceId> {
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

/// What came of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshotted {
    /// It was taken.
    Taken(SnapshotId),
    /// The state is that of the newest stable one.
    Unchanged,
}

/// Evidence of readiness that a run gives by itself, and may have given before it was seen to exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// A line of its output.
    Line,
    /// A message on its notification socket.
    Notice,
}

/// What a service may say of itself (sd_notify(3)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `READY=1`
    Ready,
    /// `STATUS=…`
    Status(String),
    /// `EXTEND_TIMEOUT_USEC=…`: its start or stop takes this much longer from now.
    ExtendTimeout(Duration),
}

/// What the host has to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start the program; answer [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn(ServiceId, RunId),
    /// Ask the run to stop, in this way.
    AskToStop(ServiceId, RunId, StopAsk),
    /// Kill the whole tree of the run.
    Kill(ServiceId, RunId),
    /// Suspend all its processes.
    Freeze(ServiceId, RunId),
    /// Let them go on.
    Thaw(ServiceId, RunId),
    /// Ask the probe; answer [`Event::Answered`] within the duration. `of` is the child that should answer, where there is one.
    Ask {
        /// Who asks.
        service: ServiceId,
        /// The run that the answer is about; `None` for a `wait_for` condition.
        of: Option<RunId>,
        /// To be given back.
        token: Token,
        /// The question.
        probe: Probe,
        /// How long an answer may take.
        timeout: Duration,
    },
    /// Answer [`Event::Answered`] at the first line of output from now on that matches. It comes before its [`Action::Spawn`], so
    /// that not even the first line of a quick program is missed.
    ExpectLine(ServiceId, Token, String),
    /// Restore the state from the newest stable snapshot that is whole; answer [`Event::Restored`]. Nothing of the service runs.
    Restore {
        /// Whose state.
        service: ServiceId,
        /// To be given back.
        token: Token,
        /// Only one that is older than this.
        before: Option<SnapshotId>,
    },
    /// Restore the state from this snapshot; answer [`Event::Restored`].
    RestoreSnapshot {
        /// Whose state.
        service: ServiceId,
        /// To be given back.
        token: Token,
        /// Which.
        snapshot: SnapshotId,
    },
    /// Copy the state of a service that is down, before a new definition of it runs; answer [`Event::Snapshotted`].
    KeepState {
        /// Whose state.
        service: ServiceId,
        /// To be given back.
        token: Token,
        /// Whether the service was healthy with this state.
        stable: bool,
    },
    /// Nothing of it runs, and nothing comes of it any more: forget it, and answer [`Event::Forgotten`].
    Forget(ServiceId),
    /// Copy the state of this run, if it is to be copied; answer [`Event::Snapshotted`]. Where it is to be suspended for that, it is.
    Snapshot {
        /// Whose state.
        service: ServiceId,
        /// Which run must go on meanwhile.
        run: RunId,
        /// To be given back.
        token: Token,
        /// Why; one that nobody asked for is left out where nothing has changed.
        reason: Reason,
        /// Whether the service is healthy with this state.
        stable: bool,
    },
    /// Leave nothing of a snapshot that is being taken, unless it is complete.
    AbandonSnapshot(ServiceId, Token),
    /// Leave the state as it was before a restore, unless that is decided; answer [`Event::Restored`] soon.
    AbandonRestore(ServiceId, Token),
    /// Something happened: tell whoever listens.
    Tell(ServiceId, Fact),
}

/// What an operator asks of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Bring it up, and what it needs; a pause of a back-off is cut short, a halt forgotten.
    Start,
    /// Bring it down.
    Stop,
    /// Stop it if it runs, then start it.
    Restart,
    /// Suspend it.
    Pause,
    /// Let it go on.
    Continue,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Continue => "continue",
        })
    }
}

/// Which services [`Engine::start`] brings up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launch {
    /// Those that are down.
    IfDown,
    /// All: those that run are stopped first.
    Afresh,
}

/// Why a request is not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It makes no sense in this state.
    State(StateName),
    /// Everything is being stopped.
    ShuttingDown,
    /// Processes of an earlier run still live, although they were killed.
    Remains,
    /// These need it.
    Needed(Vec<ServiceName>),
    /// A new definition of it is being tried.
    Updating,
    /// None is.
    NotUpdating,
    /// The new definition makes no graph with the other services.
    Misfit(GraphError),
    /// Another snapshot of it has not ended yet.
    Snapshotting,
    /// Its manifest says of no state that it be kept.
    NoSnapshots,
    /// The service does not exist any more.
    Removed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => write!(f, "it is {state}"),
            Self::ShuttingDown => f.write_str("everything is being stopped"),
            Self::Remains => f.write_str("processes of its last run are still alive"),
            Self::Needed(names) => {
                let verb = if names.len() == 1 { "needs" } else { "need" };
                let names: Vec<&str> = names.iter().map(ServiceName::as_str).collect();
                write!(f, "{} {verb} it", names.join(", "))
            }
            Self::Updating => f.write_str("it is being updated"),
            Self::NotUpdating => f.write_str("it is not being updated"),
            Self::Misfit(error) => error.fmt(f),
            Self::Snapshotting => f.write_str("another snapshot of it has not ended yet"),
            Self::NoSnapshots => f.write_str("its manifest has no `snapshot`"),
            Self::Removed => f.write_str("it was removed"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The state of a service as `status` names it: the seven of the Service Control Manager, and three of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "SERVICE_STATUS, and the states of the engine by the same names"
)]
pub enum StateName {
    Stopped,
    StartPending,
    StopPending,
    Running,
    ContinuePending,
    PausePending,
    Paused,
    Waiting,
    BackingOff,
    Halted,
    /// Processes of it live, and nobody can tell more. No supervisor says so of its services.
    Unknown,
}

impl StateName {
    /// As in `status --json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::StartPending => "start-pending",
            Self::StopPending => "stop-pending",
            Self::Running => "running",
            Self::ContinuePending => "continue-pending",
            Self::PausePending => "pause-pending",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::BackingOff => "backing-off",
            Self::Halted => "halted",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it stays like this until an event or an operator changes it.
    pub fn is_settled(self) -> bool {
        matches!(
            self,
            Self::Stopped | Self::Running | Self::Paused | Self::Halted
        )
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What can be said of a service now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Its state.
    pub state: StateName,
    /// The main process, while there is one.
    pub pid: Option<u32>,
    /// The run, while there is one.
    pub run: Option<RunId>,
    /// Whether its readiness was seen in this run.
    pub ready: bool,
    /// When it entered this state.
    pub since: Instant,
    /// When the current run began.
    pub started: Option<Instant>,
    /// How often it was started again by itself.
    pub restarts: u64,
    /// How its last run ended.
    pub last_exit: Option<Exit>,
    /// It was restarted more often than its limit allows, and has not been ready for `reset_after`
    /// since.
    pub crash_looping: bool,
    /// When a service that is backing off is started again.
    pub next_try: Option<Instant>,
    /// Why it is halted, waits or backs off, or what it says of itself.
    pub detail: Option<String>,
}

/// Why Specs do not make an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GraphError {
    /// Two services have one name.
    Duplicate(ServiceName),
    /// A service needs one that is not among them.
    Missing {
        /// Which needs it.
        service: ServiceName,
        /// What it needs.
        need: ServiceName,
    },
    /// These need each other in a circle.
    Cycle(Vec<ServiceName>),
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(name) => write!(f, "two services are named {name}"),
            Self::Missing { service, need } => {
                write!(f, "{service} needs {need}, which is not among the services")
            }
            Self::Cycle(names) => {
                f.write_str("services need each other in a circle:")?;
                for name in names {
                    write!(f, " {name}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for GraphError {}

/// The lifecycle of all services of a host. See the module's head.
#[derive(Debug)]
pub struct Engine {
    services: BTreeMap<ServiceId, Service>,
    /// Of the next service.
    next_id: ServiceId,
    graph: Graph,
    shared: Shared,
    shutting_down: bool,
    trials: Vec<Trial>,
}

/// Who needs whom.
#[derive(Debug, Default)]
struct Graph {
    needs: Edges,
    dependents: Edges,
}

/// The neighbours of every service in one direction.
#[derive(Debug, Default)]
struct Edges(BTreeMap<ServiceId, Vec<ServiceId>>);

impl Edges {
    fn of(&self, id: ServiceId) -> &[ServiceId] {
        self.0.get(&id).map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, from: ServiceId, to: ServiceId) {
        self.0.entry(from).or_default().push(to);
    }

    /// These and all that can be reached from them.
    fn reach(&self, ids: &[ServiceId]) -> Vec<ServiceId> {
        let mut all = ids.to_vec();
        let mut next = 0;
        while let Some(id) = all.get(next) {
            let neighbours = self.of(*id).iter().copied();
            let new: Vec<ServiceId> = neighbours.filter(|id| !all.contains(id)).collect();
            all.extend(new);
            next += 1;
        }
        all
    }

    /// Removes a service and every edge to it.
    fn remove(&mut self, id: ServiceId) {
        self.0.remove(&id);
        for neighbours in self.0.values_mut() {
            neighbours.retain(|neighbour| *neighbour != id);
        }
    }
}

/// The definition of every service, including those that are not on duty.
type Definitions = BTreeMap<ServiceId, Arc<Spec>>;

/// What the services of an engine share: the time of the current event, its actions, the numbers and the dice.
#[derive(Debug)]
struct Shared {
    now: Instant,
    actions: Vec<Action>,
    next_number: u64,
    random: Random,
}

impl Shared {
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

impl Engine {
    /// An engine in which every service is stopped. `seed` drives the jitter only.
    ///
    /// # Errors
    /// Where the Specs do not form a graph: they do if they come from one manifest, in full.
    pub fn new(specs: impl IntoIterator<Item = Arc<Spec>>, seed: u64) -> Result<Self, GraphError> {
        let mut engine = Self {
            services: BTreeMap::new(),
            next_id: ServiceId(0),
            graph: Graph::default(),
            shared: Shared {
                now: Instant::ZERO,
                actions: Vec::new(),
                next_number: 0,
                random: Random::new(seed),
            },
            shutting_down: false,
            trials: Vec::new(),
        };
        engine.define(specs, Instant::ZERO)?;
        Ok(engine)
    }

    /// Adds services, which are stopped, or has those of these names become something else: at once where nothing of them runs, else with
    /// the end of their run. Whom they need changes at once.
    ///
    /// # Errors
    /// Where the Specs and the other services do not form a graph; then nothing has changed.
    pub fn define(
        &mut self,
        specs: impl IntoIterator<Item = Arc<Spec>>,
        now: Instant,
    ) -> Result<Vec<Action>, GraphError> {
        let (mut defined, mut ids) = self.definitions();
        let mut changed = BTreeMap::new();
        let mut next_id = self.next_id;
        for spec in specs {
            let known = ids.get(spec.name()).copied();
            let id = known.unwrap_or_else(|| next_id.take());
            if changed.insert(id, Arc::clone(&spec)).is_some() {
                return Err(GraphError::Duplicate(spec.name().clone()));
            }
            ids.insert(spec.name().clone(), id);
            defined.insert(id, spec);
        }
        self.graph = Graph::new(&defined, &ids)?;
        self.next_id = next_id;
        self.shared.now = now;
        for (id, spec) in changed {
            match self.services.get_mut(&id) {
                Some(service) => service.redefine(spec),
                None => drop(self.services.insert(id, Service::new(id, spec, now))),
            }
        }
        // Those that they needed, too.
        Ok(self.settle(self.ids().collect()))
    }

    /// What everything shall be, and who is called by which name.
    fn definitions(&self) -> (Definitions, BTreeMap<ServiceName, ServiceId>) {
        let (mut defined, mut ids) = (Definitions::new(), BTreeMap::new());
        for (&id, service) in &self.services {
            defined.insert(id, Arc::clone(service.definition()));
            if service.is_on_duty() {
                ids.insert(service.spec().name().clone(), id);
            }
        }
        (defined, ids)
    }

    /// Forgets services of which nothing runs. Nothing that comes for them later has an effect.
    ///
    /// # Errors
    /// For the first of them that others need, else for the first that is not down; then nothing has changed.
    pub fn remove(&mut self, ids: &[ServiceId]) -> Result<(), (ServiceId, Refusal)> {
        for &id in ids {
            let others = self.graph.dependents.of(id).iter();
            let others = others.filter(|other| !ids.contains(other));
            let others = others.filter_map(|other| self.services.get(other));
            let names: Vec<ServiceName> = others.map(|it| it.spec().name().clone()).collect();
            if !names.is_empty() {
                return Err((id, Refusal::Needed(names)));
            }
        }
        for &id in ids {
            let service = self.services.get(&id).ok_or((id, Refusal::Removed))?;
            if self.trial(id).is_some() {
                return Err((id, Refusal::Updating));
            }
            if service.has_remains() {
                return Err((id, Refusal::Remains));
            }
            if !service.is_down() {
                return Err((id, Refusal::State(service.view().state)));
            }
        }
        ids.iter().for_each(|id| self.drop_service(*id));
        Ok(())
    }

    fn drop_service(&mut self, id: ServiceId) {
        self.services.remove(&id);
        self.graph.needs.remove(id);
        self.graph.dependents.remove(id);
    }

    /// How many services there are.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there is no service at all.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// All ids, in their order.
    pub fn ids(&self) -> impl Iterator<Item = ServiceId> + use<> {
        let on_duty = self.services.iter().filter(|(_, it)| it.is_on_duty());
        let mut ids: Vec<_> = on_duty.map(|(id, it)| (it.rank(), *id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id)
    }

    /// The service of this name.
    pub fn find(&self, name: &str) -> Option<ServiceId> {
        let mut services = self.services.iter();
        let found = services.find(|(_, it)| it.is_on_duty() && it.spec().name().as_str() == name);
        found.map(|(id, _)| *id)
    }

    /// What the service is: where it runs, what it was started as. `None`: it was removed.
    pub fn spec(&self, id: ServiceId) -> Option<&Arc<Spec>> {
        Some(self.services.get(&id)?.spec())
    }

    /// What can be said of it now. `None`: it was removed.
    pub fn view(&self, id: ServiceId) -> Option<View> {
        let mut view = self.services.get(&id)?.view();
        if view.state == StateName::Waiting && view.detail.is_none() {
            let missing = self.needs(id).filter(|need| !need.is_satisfied());
            let names: Vec<String> = missing
                .map(|need| match need.trouble() {
                    Some(trouble) => format!("{}, which {trouble}", need.spec().name()),
                    None => need.spec().name().to_string(),
                })
                .collect();
            view.detail = Some(format!("waiting for {}", names.join(", ")));
        }
        if self.services.get(&id)?.is_halted_for_a_need() {
            let mut needs = self.graph.needs.of(id).iter();
            let halted = needs.find(|need| self.services.get(need).is_some_and(Service::is_halted));
            let cause = halted.and_then(|need| self.view(*need)?.detail);
            if let (Some(detail), Some(cause)) = (&mut view.detail, cause) {
                *detail = format!("{detail}: {cause}");
            }
        }
        Some(view)
    }

    /// When it entered its state: what the view says, without the rest of it.
    pub fn since(&self, id: ServiceId) -> Option<Instant> {
        Some(self.services.get(&id)?.since())
    }

    /// What a host has to look at before it reports [`Event::Exited`] of this run: what was written or sent before the exit counts.
    pub fn awaits(&self, id: ServiceId, run: RunId) -> Option<Awaited> {
        self.services.get(&id)?.awaits(run)
    }

    /// When [`Event::Tick`] is due; `None`: not before another event.
    pub fn deadline(&self) -> Option<Instant> {
        let services = self.services.values();
        let deadlines = services.filter_map(Service::deadline);
        deadlines.chain(self.trial_deadline()).min()
    }

    /// Whether no service runs, and none will without a request. Processes that outlive their kill keep a host up, but cannot keep
    /// it from ending when it was asked to.
    pub fn is_down(&self) -> bool {
        let is_down =
            |service: &Service| service.is_down() && (self.shutting_down || !service.has_remains());
        self.services.values().all(is_down)
    }

    /// Whether nothing is on its way from one state to another, but for those that wait for who is not.
    pub fn is_calm(&self) -> bool {
        !self.services.values().any(Service::is_moving)
    }

    /// Whether there is a service of this id.
    pub fn has(&self, id: ServiceId) -> bool {
        self.services.contains_key(&id)
    }

    /// Whether everything was asked to end.
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down
    }

    /// Whether the host may end: nothing runs and nothing will, because everything was asked to end or ended by itself. What an
    /// operator stopped by name may be started by name, so that keeps the host alive.
    pub fn is_finished(&self) -> bool {
        let was_stopped = self.services.values().any(Service::was_stopped);
        self.is_down() && (self.shutting_down || !was_stopped)
    }

    /// The time of what was taken in last.
    pub fn now(&self) -> Instant {
        self.shared.now
    }

    /// Takes in what the host saw at `now`, which may be before the time of what was taken in last.
    /// Events of earlier runs and late answers change nothing.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        self.shared.now = now;
        let Some(id) = event.service() else {
            let mut due = Vec::new();
            if event == Event::Late {
                self.postpone();
            }
            let shared = &mut self.shared;
            for (id, service) in &mut self.services {
                if service.deadline().is_some_and(|at| at <= now) {
                    service.tick(shared);
                    due.push(*id);
                }
            }
            self.tick_trials();
            return self.settle(due);
        };
        if let Event::Restored(_, token, result) = &event
            && let Some(service) = self.trial_restored(*token, result)
        {
            return self.settle(vec![service]);
        }
        if let Event::Snapshotted(_, token, result) = &event
            && let Some(service) = self.trial_kept(*token, result)
        {
            return self.settle(vec![service]);
        }
        let shared = &mut self.shared;
        // Of one that was removed.
        let Some(service) = self.services.get_mut(&id) else {
            return Vec::new();
        };
        // Of one service, nothing is earlier than the last change of its state.
        shared.now = now.max(service.since());
        match event {
            Event::Spawned(_, run, pid) => service.spawned(run, pid, shared),
            Event::SpawnFailed(_, run, reason) => service.spawn_failed(run, reason, shared),
            Event::Exited(_, run, exit) => service.exited(run, exit, shared),
            Event::Emptied(_, run) => service.emptied(run, shared),
            Event::Answered(_, token, answer) => service.answered(token, answer, shared),
            Event::Unasked(_, token, why) => service.unasked(token, why, shared),
            Event::Notified(_, run, notice) => service.notified(run, notice, shared),
            Event::FreezeFailed(_, run, why) => service.freeze_failed(run, why, shared),
            Event::Restored(_, token, result) => service.restored(token, result, shared),
            Event::Forgotten(_) if matches!(service.role(), Role::Forgotten(_)) => {
                self.drop_service(id);
                return Vec::new();
            }
            Event::Snapshotted(_, token, result) => service.snapshotted(token, result, shared),
            Event::Forgotten(_) | Event::Tick | Event::Late => {}
        }
        self.settle(vec![id])
    }

    /// Gives every wait that is over, or nearly so, the time in which its evidence can still arrive.
    fn postpone(&mut self) {
        let now = self.shared.now;
        for service in self.services.values_mut() {
            service.postpone(now);
        }
        self.postpone_trials();
    }

    /// Takes in what an operator asks.
    ///
    /// # Errors
    /// Where the request makes no sense now; then nothing has changed.
    pub fn request(
        &mut self,
        id: ServiceId,
        request: Request,
        now: Instant,
    ) -> Result<Vec<Action>, Refusal> {
        if self.shutting_down && request != Request::Stop {
            return Err(Refusal::ShuttingDown);
        }
        if self.trial(id).is_some() && request != Request::Stop {
            return Err(Refusal::Updating);
        }
        if !self.has(id) {
            return Err(Refusal::Removed);
        }
        match request {
            Request::Stop => return Ok(self.stop(&[id], now)),
            Request::Start => return self.start(&[id], Launch::IfDown, now).map_err(|it| it.1),
            Request::Restart => return self.start(&[id], Launch::Afresh, now).map_err(|it| it.1),
            Request::Pause | Request::Continue => {}
        }
        self.shared.now = now;
        let service = self.services.get_mut(&id).ok_or(Refusal::Removed)?;
        match request {
            Request::Pause => service.pause(&mut self.shared)?,
            _ => service.resume(&mut self.shared)?,
        }
        Ok(self.settle(vec![id]))
    }

    /// Brings these services up together, with what they need: each as soon as its needs are ready. [`Launch::Afresh`] stops those
    /// that run, each as soon as nothing that needs it is on its way down.
    ///
    /// # Errors
    /// For the first that cannot be started now; then nothing has changed.
    pub fn start(
        &mut self,
        ids: &[ServiceId],
        launch: Launch,
        now: Instant,
    ) -> Result<Vec<Action>, (ServiceId, Refusal)> {
        let is_fresh = launch == Launch::Afresh;
        for &id in ids {
            let service = self.services.get(&id).ok_or((id, Refusal::Removed))?;
            let refusal = match () {
                () if self.shutting_down => Err(Refusal::ShuttingDown),
                () if self.trial(id).is_some() => Err(Refusal::Updating),
                () => service.check_start(is_fresh),
            };
            refusal.map_err(|refusal| (id, refusal))?;
        }
        self.shared.now = now;
        for &id in ids {
            if let Some(service) = self.services.get_mut(&id) {
                service
                    .start(is_fresh, &mut self.shared)
                    .map_err(|refusal| (id, refusal))?;
            }
        }
        let mut changed = ids.to_vec();
        self.start_needs(&mut changed);
        Ok(self.settle(changed))
    }

    /// Stops these services, each as soon as nothing runs among them that needs it. Other services that need one of them keep running,
    /// which is told at once.
    pub fn stop(&mut self, ids: &[ServiceId], now: Instant) -> Vec<Action> {
        self.shared.now = now;
        self.end_trials(|service| ids.contains(&service));
        let mut stopping = Vec::new();
        for id in ids {
            if let Some(service) = self.services.get_mut(id) {
                stopping.extend((!service.is_down()).then_some(*id));
                service.want_down();
            }
        }
        for id in stopping {
            let by = self.running_dependents(id);
            if let Some(service) = self.services.get(&id).filter(|_| !by.is_empty()) {
                service.tell(Fact::StillNeeded { by }, &mut self.shared);
            }
        }
        self.settle(ids.to_vec())
    }

    /// These services and all that need them, directly or through others.
    pub fn with_dependents(&self, ids: &[ServiceId]) -> Vec<ServiceId> {
        self.graph.dependents.reach(ids)
    }

    /// These services and all that they need, directly or through others.
    pub fn with_needs(&self, ids: &[ServiceId]) -> Vec<ServiceId> {
        self.graph.needs.reach(ids)
    }

    /// The services that need this one, run, and are not to be stopped.
    pub fn running_dependents(&self, id: ServiceId) -> Vec<ServiceName> {
        let dependents = self.graph.dependents.of(id).iter();
        let dependents = dependents.filter_map(|dependent| self.services.get(dependent));
        let running = dependents.filter(|it| it.is_on_duty() && !it.wants_down() && it.is_live());
        running.map(|it| it.spec().name().clone()).collect()
    }

    /// Whether a service waits for a need that is crash-looping, or that an operator keeps down or paused, perhaps through others.
    pub fn is_stuck(&self, id: ServiceId) -> bool {
        let (mut open, mut seen) = (vec![id], BTreeSet::from([id]));
        while let Some(id) = open.pop() {
            let is_waiting = |service: &Service| service.view().state == StateName::Waiting;
            if !self.services.get(&id).is_some_and(is_waiting) {
                continue;
            }
            for &need in self.graph.needs.of(id) {
                let Some(service) = self.services.get(&need).filter(|it| !it.is_satisfied()) else {
                    continue;
                };
                if service.is_out_of_reach() {
                    return true;
                }
                open.extend(seen.insert(need).then_some(need));
            }
        }
        false
    }

    /// Whether a service fails to start so steadily that nobody should wait for its next attempt.
    pub fn fails_steadily(&self, id: ServiceId) -> bool {
        let service = self.services.get(&id);
        service.is_some_and(|it| it.is_failing() && it.is_out_of_reach())
    }

    /// Whether a service ended cleanly after it was ready, so that what needs it may start.
    pub fn has_completed(&self, id: ServiceId) -> bool {
        let service = self.services.get(&id);
        service.is_some_and(|it| it.is_down() && it.is_satisfied())
    }

    /// Whether the service is to be up.
    pub fn is_wanted(&self, id: ServiceId) -> bool {
        let service = self.services.get(&id);
        service.is_some_and(|service| !service.wants_down())
    }

    /// Takes in that an operator wants a snapshot of a service that runs; the token is that of its [`Event::Snapshotted`].
    ///
    /// # Errors
    /// Where it does not run, or a snapshot is being taken; then nothing has changed.
    pub fn request_snapshot(
        &mut self,
        id: ServiceId,
        now: Instant,
    ) -> Result<(Token, Vec<Action>), Refusal> {
        self.shared.now = now;
        let service = self.services.get_mut(&id).ok_or(Refusal::Removed)?;
        let token = service.request_snapshot(&mut self.shared)?;
        Ok((token, self.settle(vec![id])))
    }

    /// Starts every service, each as soon as its needs are ready.
    pub fn start_all(&mut self, now: Instant) -> Vec<Action> {
        if self.shutting_down {
            return Vec::new();
        }
        self.shared.now = now;
        for id in self.ids() {
            if self.trial(id).is_none()
                && let Some(service) = self.services.get_mut(&id)
            {
                // One that is paused, or has remains, refuses and stays as it is.
                let _ = service.start(false, &mut self.shared);
            }
        }
        self.settle(self.ids().collect())
    }

    /// What a successor needs to go on with a service, should this engine's host be killed now.
    pub fn bequest(&self, id: ServiceId) -> Option<Bequest> {
        Some(self.services.get(&id)?.bequest())
    }

    /// Takes up what a killed host left, in a new engine, instead of [`Engine::start_all`]: what lives goes on, what is to be down stays
    /// down, and the rest is started, each as soon as its needs are ready. Services that are not named stay stopped. The runs of those that
    /// live are in their views.
    pub fn resume(
        &mut self,
        bequests: impl IntoIterator<Item = (ServiceId, Bequest)>,
        now: Instant,
    ) -> Vec<Action> {
        self.shared.now = now;
        for (id, bequest) in bequests {
            if let Some(service) = self.services.get_mut(&id) {
                service.inherit(bequest, &mut self.shared);
            }
        }
        self.settle(self.ids().collect())
    }

    /// Takes in that an operator stops every service, each as soon as nothing runs that needs it. Any may be started again.
    pub fn request_stop_of_all(&mut self, now: Instant) -> Vec<Action> {
        self.shared.now = now;
        self.end_trials(|_| true);
        for service in self.services.values_mut() {
            service.want_down();
        }
        self.settle(self.ids().collect())
    }

    /// Stops every service, each as soon as nothing runs that needs it. Later starts are refused.
    pub fn stop_all(&mut self, now: Instant) -> Vec<Action> {
        self.shutting_down = true;
        self.shared.now = now;
        self.end_trials(|_| true);
        for service in self.services.values_mut() {
            service.want_end();
        }
        self.settle(self.ids().collect())
    }

    /// Kills every service at once, in no order, and starts none again.
    pub fn kill_all(&mut self, now: Instant) -> Vec<Action> {
        self.shutting_down = true;
        self.shared.now = now;
        self.end_trials(|_| true);
        for service in self.services.values_mut() {
            service.want_end();
            service.kill(&mut self.shared);
        }
        self.settle(self.ids().collect())
    }

    /// Brings up what the services in `started` need, and what that needs, where it is not ready; adds all of it.
    fn start_needs(&mut self, started: &mut Vec<ServiceId>) {
        let mut i = 0;
        while let Some(id) = started.get(i) {
            i += 1;
            for need in self.graph.needs.of(*id) {
                // One on trial comes back by itself.
                let is_tried = self.trials.iter().any(|trial| trial.is_of(*need));
                let Some(service) = self.services.get_mut(need) else {
                    continue;
                };
                if !is_tried && !service.is_satisfied() && !started.contains(need) {
                    service.start_for_dependent(&mut self.shared);
                    started.push(*need);
                }
            }
        }
    }

    /// Looks at the services whose situation may have changed until nothing moves, and hands out the actions.
    fn settle(&mut self, mut open: Vec<ServiceId>) -> Vec<Action> {
        // What is asked of a service may be a verdict on its candidate.
        open.extend(self.trials.iter().filter_map(Trial::candidate));
        self.settle_services(open);
        while let Some(changed) = self.advance() {
            self.settle_services(changed);
        }
        std::mem::take(&mut self.shared.actions)
    }

    fn settle_services(&mut self, mut open: Vec<ServiceId>) {
        // A change of one may free its dependents (start) and its needs (stop).
        for i in 0..open.len() {
            open.extend(self.neighbours(open[i]));
        }
        open.reverse();
        while let Some(id) = open.pop() {
            let situation = self.situation(id);
            let Some(service) = self.services.get_mut(&id) else {
                continue;
            };
            service.take_up(&self.shared);
            match service.settle(&situation, &mut self.shared) {
                Settled::Still => {}
                Settled::Untold => {
                    let on = self.missing(id).cloned().collect();
                    self.tell(id, Fact::Waiting { on });
                }
                Settled::Moved => {
                    open.push(id);
                    open.extend(self.neighbours(id));
                }
            }
        }
    }

    fn tell(&mut self, id: ServiceId, fact: Fact) {
        self.shared.actions.push(Action::Tell(id, fact));
    }

    fn neighbours(&self, id: ServiceId) -> impl Iterator<Item = ServiceId> {
        let (dependents, needs) = (self.graph.dependents.of(id), self.graph.needs.of(id));
        dependents.iter().chain(needs).copied()
    }

    fn needs(&self, id: ServiceId) -> impl Iterator<Item = &Service> {
        let needs = self.graph.needs.of(id).iter();
        needs.filter_map(|need| self.services.get(need))
    }

    /// What it needs and is not ready.
    fn missing(&self, id: ServiceId) -> impl Iterator<Item = &ServiceName> {
        let missing = self.needs(id).filter(|need| !need.is_satisfied());
        missing.map(|need| need.spec().name())
    }

    fn situation(&self, id: ServiceId) -> Situation {
        let dependents = self.graph.dependents.of(id).iter();
        let mut dependents = dependents.filter_map(|it| self.services.get(it));
        Situation {
            missing: self.missing(id).next().cloned(),
            blocked: self.needs(id).find_map(|need| {
                let name = || need.spec().name().clone();
                match need.is_halted() {
                    true => Some(Halt::Need(name())),
                    false => need.is_spent().then(|| Halt::NeedEnded(name())),
                }
            }),
            is_held: dependents.any(Service::is_leaving),
        }
    }
}

impl ServiceId {
    /// Returns this id; what is left is the next one.
    fn take(&mut self) -> Self {
        let next = Self(self.0 + 1);
        std::mem::replace(self, next)
    }
}

impl Graph {
    fn new(
        specs: &Definitions,
        ids: &BTreeMap<ServiceName, ServiceId>,
    ) -> Result<Self, GraphError> {
        let mut graph = Self::default();
        for (&id, spec) in specs {
            for name in spec.needed_services() {
                let Some(&need) = ids.get(name) else {
                    let (service, need) = (spec.name().clone(), name.clone());
                    return Err(GraphError::Missing { service, need });
                };
                graph.needs.add(id, need);
                graph.dependents.add(need, id);
            }
        }
        match graph.circle(specs.keys().copied()) {
            Some(circle) => {
                let names = circle.iter().filter_map(|id| specs.get(id));
                let names = names.map(|spec| spec.name().clone());
                Err(GraphError::Cycle(names.collect()))
            }
            None => Ok(graph),
        }
    }

    /// Services that need each other in a circle, each the next one, if there are some.
    fn circle(&self, ids: impl Iterator<Item = ServiceId>) -> Option<Vec<ServiceId>> {
        // Kahn: take away what needs nothing that is left.
        let mut open: BTreeMap<_, _> = ids.map(|id| (id, self.needs.of(id).len())).collect();
        let free = open.iter().filter(|(_, needs)| **needs == 0);
        let mut free: Vec<ServiceId> = free.map(|(id, _)| *id).collect();
        while let Some(id) = free.pop() {
            open.remove(&id);
            for dependent in self.dependents.of(id) {
                if let Some(needs) = open.get_mut(dependent) {
                    *needs -= 1;
                    if *needs == 0 {
                        free.push(*dependent);
                    }
                }
            }
        }
        // What cannot be taken is in a circle, or needs what is: from need to need, one comes around.
        let mut path = vec![*open.keys().next()?];
        loop {
            let needs = self.needs.of(*path.last()?);
            let next = *needs.iter().find(|need| open.contains_key(need))?;
            if let Some(at) = path.iter().position(|&id| id == next) {
                return Some(path.split_off(at));
            }
            path.push(next);
        }
    }
}
