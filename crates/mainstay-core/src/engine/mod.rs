//! The lifecycle of services: a state machine that turns events and the time into actions.
//!
//! The engine owns no child process, clock or socket. The host feeds [`Engine::step`] with its
//! observations and performs the returned [`Action`]s in order. Between events it sleeps until
//! [`Engine::deadline`] and then reports [`Event::Tick`]. Operator requests go through
//! [`Engine::request`], which may refuse them.
//!
//! Each service has a *goal* (up or down, set by operators) and a *state* (its actual condition);
//! neither overwrites the other. After every event the engine settles: it re-evaluates the services
//! whose situation may have changed (their own state, that of a need or of a dependent) until
//! nothing changes any more. Starts are therefore as parallel as the dependency graph allows, and a
//! stop is their mirror image.
//!
//! If the host is killed, a new engine resumes from the checkpoint of the old one
//! ([`Engine::checkpoint`], [`Engine::resume`]).
//!
//! Services can be added, redefined and removed while others run ([`Engine::define`],
//! [`Engine::remove`]). A new definition takes effect between two runs of the service; changed
//! needs take effect at once.
//!
//! A new definition of a service can be tried before it replaces the old one ([`Engine::try_out`],
//! `trial.rs`).
//!
//! Invariants, checked in `simulation/` over a million random events in each test run:
//! - A definition never has two children, and a service has two only during an update.
//! - Every wait has a deadline.
//! - A pause is bounded.
//! - A requested stop is never followed by a restart.
//! - A missing answer never counts as "yes".
//!
//! A service that waits for its needs relies on their deadlines. It halts with the reason if a need
//! is halted, or ended by itself before it was ready. It waits without a deadline only for a need
//! that an operator stopped or paused; its view names the need.

mod asking;
pub(crate) mod backoff;
mod contract;
mod fact;
mod foreground;
mod history;
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
    Ended, Exit, Human, HumanSeconds, RETRY_BASE, RETRY_LIMIT, StartFailure, classify,
};
pub use self::fact::{Fact, Halt, KillReason, News, Outcome};
pub use self::service::{Checkpoint, DesiredState, Failures, RecoveredState, Stage};
use self::service::{Role, Service, Settled, Situation};
use self::trial::Trial;
pub use self::trial::{
    COMMIT_TIMEOUT, RolloutRole, Style, TrialFailure, TrialPhase, TrialView, Tryout,
};
use crate::snapshot::{Reason, SnapshotId};
use crate::spec::{Probe, ServiceName, Spec, StopAsk};
use crate::time::Instant;

/// The ID of a service in an engine. Later services have greater IDs. IDs are never reused, so a
/// late event for a removed service matches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(u64);

/// The ID of one start of one service. IDs are never reused, so events of an earlier child are
/// recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// The ID of one question to the host. Tokens are never reused, so a late answer is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

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
    Answered(ServiceId, Token, Result<(), String>),
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
    Restored(ServiceId, Token, Result<SnapshotId, String>),
    /// The answer to [`Action::Snapshot`] and [`Action::KeepState`], also after
    /// [`Action::AbandonSnapshot`]: the result, or the reason for the failure.
    Snapshotted(ServiceId, Token, Result<Snapshotted, String>),
    /// A deadline has passed. The event is harmless at any other time.
    Tick,
    /// A deadline may have passed while the host did not run (it was suspended, or the machine is
    /// overloaded). Evidence from that time may not have reached the engine yet, so an expired
    /// deadline proves nothing.
    Late,
}

/// The reason why a question was not asked, or its answer was not received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// The host lacks a resource (descriptors, memory). The question is asked again after a pause.
    Lacking(String),
    /// The host did not run for a while. The question is asked again at once.
    Delayed,
}

impl Event {
    /// Returns the service that the event belongs to.
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

/// An operator's request for one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Starts the service and its needs. Cuts a backoff pause short and clears a halt.
    Start,
    /// Stops the service.
    Stop,
    /// Stops the service if it runs, then starts it.
    Restart,
    /// Suspends the service.
    Pause,
    /// Resumes the service.
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

/// The services that [`Engine::start`] affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launch {
    /// Services that are down.
    IfDown,
    /// All services; running ones are stopped first.
    Afresh,
}

/// The reason why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The request is not valid in this state.
    State(StateName),
    /// All services are being stopped.
    ShuttingDown,
    /// Processes of an earlier run are still alive, although they were killed.
    Remains,
    /// Other services need this one.
    Needed(Vec<ServiceName>),
    /// A new definition of the service is being tried.
    Updating,
    /// No new definition of the service is being tried.
    NotUpdating,
    /// The new definition does not form a valid graph with the other services.
    Misfit(GraphError),
    /// Another snapshot of the service has not ended yet.
    Snapshotting,
    /// The manifest does not configure snapshots for the service.
    NoSnapshots,
    /// The service no longer exists.
    Removed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => write!(f, "it is {state}"),
            Self::ShuttingDown => f.write_str("the supervisor is stopping all services"),
            Self::Remains => f.write_str("processes of its last run are still running"),
            Self::Needed(names) => {
                let verb = if names.len() == 1 { "needs" } else { "need" };
                let names: Vec<&str> = names.iter().map(ServiceName::as_str).collect();
                write!(f, "{} {verb} it", names.join(", "))
            }
            Self::Updating => f.write_str("it is being updated"),
            Self::NotUpdating => f.write_str("it is not being updated"),
            Self::Misfit(error) => error.fmt(f),
            Self::Snapshotting => f.write_str("another snapshot of it is in progress"),
            Self::NoSnapshots => f.write_str("its manifest has no `snapshot`"),
            Self::Removed => f.write_str("it was removed"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The state of a service as `status` names it: the seven states of the Service Control Manager,
/// and Mainstay's own.
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
    /// Processes of the service are alive, and nothing more can be determined. A supervisor never
    /// reports this state for its own services.
    Unknown,
}

impl StateName {
    /// Returns the name as it appears in `status --json`.
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

    /// Returns whether the state lasts until an event or an operator changes it.
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

/// The status of a service at one point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The state.
    pub state: StateName,
    /// The process ID of the main process, while there is one.
    pub pid: Option<u32>,
    /// The current run, while there is one.
    pub run: Option<RunId>,
    /// Set while the service is running or paused, that is, once it has become ready in this run.
    pub ready: bool,
    /// The time at which the service entered this state.
    pub since: Instant,
    /// The start of the current run.
    pub started: Option<Instant>,
    /// The number of automatic restarts.
    pub restarts: u64,
    /// The exit status of the last run.
    pub last_exit: Option<Exit>,
    /// Set if the service exceeded its restart limit and has not been ready for `reset_after`
    /// since.
    pub crash_looping: bool,
    /// The time of the next start, while the service is backing off.
    pub next_try: Option<Instant>,
    /// The reason for a halt, a wait or a backoff, or the status text that the service reported.
    pub detail: Option<String>,
}

/// The reason why specs do not form an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GraphError {
    /// Two services share a name.
    Duplicate(ServiceName),
    /// A service needs one that does not exist.
    Missing {
        /// The dependent service.
        service: ServiceName,
        /// The missing need.
        need: ServiceName,
    },
    /// Services need each other in a cycle.
    Cycle(Vec<ServiceName>),
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(name) => write!(f, "two services are named {name}"),
            Self::Missing { service, need } => {
                write!(f, "{service} needs {need}, which is not defined")
            }
            Self::Cycle(names) => {
                f.write_str("dependency cycle:")?;
                for name in names {
                    write!(f, " {name}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for GraphError {}

/// The lifecycle of all services of a host. See the module documentation.
#[derive(Debug)]
pub struct Engine {
    services: BTreeMap<ServiceId, Service>,
    /// The ID of the next service.
    next_id: ServiceId,
    graph: Graph,
    shared: Shared,
    shutting_down: bool,
    trials: Vec<Trial>,
}

/// The dependency graph.
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

    /// Returns the given services and all services reachable from them.
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

/// The definition of every service, including candidates and superseded services.
type Definitions = BTreeMap<ServiceId, Arc<Spec>>;

/// The state shared by all services of an engine: the time of the current event, its actions, the
/// number sequence and the random generator.
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
    /// Returns an engine in which every service is stopped. `seed` affects the jitter only.
    ///
    /// # Errors
    /// If the specs do not form a graph. The specs of one complete manifest always do.
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

    /// Adds services, which start out stopped, and redefines those whose names exist. A new
    /// definition takes effect at once if nothing of the service runs, and otherwise at the end of
    /// the run. Changed needs take effect at once.
    ///
    /// # Errors
    /// If the specs and the other services do not form a graph; then nothing has changed.
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
        // The former needs must settle, too.
        Ok(self.settle(self.ids().collect()))
    }

    /// Returns the latest definition of every service, and the active service of every name.
    fn definitions(&self) -> (Definitions, BTreeMap<ServiceName, ServiceId>) {
        let (mut defined, mut ids) = (Definitions::new(), BTreeMap::new());
        for (&id, service) in &self.services {
            defined.insert(id, Arc::clone(service.definition()));
            if service.is_active() {
                ids.insert(service.spec().name().clone(), id);
            }
        }
        (defined, ids)
    }

    /// Removes services that have no processes. Later events for them have no effect.
    ///
    /// # Errors
    /// For the first service that others need, otherwise for the first one that is not down; then
    /// nothing has changed.
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

    /// Returns the number of services, including candidates and superseded services.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Returns whether there are no services.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Returns the IDs of all active services, in definition order.
    pub fn ids(&self) -> impl Iterator<Item = ServiceId> + use<> {
        let active = self.services.iter().filter(|(_, it)| it.is_active());
        let mut ids: Vec<_> = active.map(|(id, it)| (it.rank(), *id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id)
    }

    /// Returns the active service of this name.
    pub fn find(&self, name: &str) -> Option<ServiceId> {
        let mut services = self.services.iter();
        let found = services.find(|(_, it)| it.is_active() && it.spec().name().as_str() == name);
        found.map(|(id, _)| *id)
    }

    /// Returns the definition in effect: the one that the current run was started with. `None` if
    /// the service was removed.
    pub fn spec(&self, id: ServiceId) -> Option<&Arc<Spec>> {
        Some(self.services.get(&id)?.spec())
    }

    /// Returns the current status of a service. `None` if the service was removed.
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

    /// Returns the time at which the service entered its state: [`View::since`] without the rest.
    pub fn since(&self, id: ServiceId) -> Option<Instant> {
        Some(self.services.get(&id)?.since())
    }

    /// Returns the evidence that the host must read before it reports [`Event::Exited`] of this
    /// run. Evidence that was written or sent before the exit counts.
    pub fn awaits(&self, id: ServiceId, run: RunId) -> Option<Awaited> {
        self.services.get(&id)?.awaits(run)
    }

    /// Returns the time at which [`Event::Tick`] is due. `None` if nothing is due before another
    /// event.
    pub fn deadline(&self) -> Option<Instant> {
        let services = self.services.values();
        let deadlines = services.filter_map(Service::deadline);
        deadlines.chain(self.trial_deadline()).min()
    }

    /// Returns whether no service runs and none will without a request. Processes that survive a
    /// kill keep a host up, but do not prevent its shutdown once it was requested.
    pub fn is_down(&self) -> bool {
        let is_down =
            |service: &Service| service.is_down() && (self.shutting_down || !service.has_remains());
        self.services.values().all(is_down)
    }

    /// Returns whether no service is in transition. Services that wait for a need or back off are
    /// not in transition.
    pub fn is_calm(&self) -> bool {
        !self.services.values().any(Service::is_moving)
    }

    /// Returns whether a service with this ID exists.
    pub fn has(&self, id: ServiceId) -> bool {
        self.services.contains_key(&id)
    }

    /// Returns whether the shutdown of all services was requested.
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down
    }

    /// Returns whether the host may exit: nothing runs and nothing will, because a shutdown was
    /// requested or every service ended by itself. A service that an operator stopped by name keeps
    /// the host alive, because it may be started by name.
    pub fn is_finished(&self) -> bool {
        let was_stopped = self.services.values().any(Service::was_stopped);
        self.is_down() && (self.shutting_down || !was_stopped)
    }

    /// Returns the time of the last event or request.
    pub fn now(&self) -> Instant {
        self.shared.now
    }

    /// Processes an event that the host observed at `now`, which may be earlier than the time of
    /// the previous event. Events of earlier runs and late answers have no effect.
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
        // The service was removed.
        let Some(service) = self.services.get_mut(&id) else {
            return Vec::new();
        };
        // No event of a service precedes the last change of its state.
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

    /// Extends every deadline that has passed, or nearly so, by the time in which evidence can
    /// still arrive.
    fn postpone(&mut self) {
        let now = self.shared.now;
        for service in self.services.values_mut() {
            service.postpone(now);
        }
        self.postpone_trials();
    }

    /// Processes an operator's request.
    ///
    /// # Errors
    /// If the request is not valid now; then nothing has changed.
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

    /// Starts these services together with their needs, each as soon as its needs are ready.
    /// [`Launch::Afresh`] stops running ones, each as soon as nothing that needs it is stopping.
    ///
    /// # Errors
    /// For the first service that cannot be started now; then nothing has changed.
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

    /// Stops these services, each as soon as none of them that runs needs it. Other services that
    /// need one of them keep running; [`Fact::StillNeeded`] reports them at once.
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
                service.emit(Fact::StillNeeded { by }, &mut self.shared);
            }
        }
        self.settle(ids.to_vec())
    }

    /// Returns these services and all that need them, directly or indirectly.
    pub fn with_dependents(&self, ids: &[ServiceId]) -> Vec<ServiceId> {
        self.graph.dependents.reach(ids)
    }

    /// Returns these services and all their needs, direct and indirect.
    pub fn with_needs(&self, ids: &[ServiceId]) -> Vec<ServiceId> {
        self.graph.needs.reach(ids)
    }

    /// Returns the names of the running services that need this one and are not to be stopped.
    pub fn running_dependents(&self, id: ServiceId) -> Vec<ServiceName> {
        let dependents = self.graph.dependents.of(id).iter();
        let dependents = dependents.filter_map(|dependent| self.services.get(dependent));
        let running = dependents.filter(|it| it.is_active() && !it.wants_down() && it.is_live());
        running.map(|it| it.spec().name().clone()).collect()
    }

    /// Returns whether a service waits, directly or indirectly, for a need that is crash-looping or
    /// failing repeatedly, or that an operator stopped or paused.
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

    /// Returns whether a service is backing off after so many failures that waiting for its next
    /// attempt is pointless.
    pub fn fails_steadily(&self, id: ServiceId) -> bool {
        let service = self.services.get(&id);
        service.is_some_and(|it| it.is_failing() && it.is_out_of_reach())
    }

    /// Returns whether a service ended cleanly after it was ready, so that its dependents may
    /// start.
    pub fn has_completed(&self, id: ServiceId) -> bool {
        let service = self.services.get(&id);
        service.is_some_and(|it| it.is_down() && it.is_satisfied())
    }

    /// Returns whether the service should be up.
    pub fn is_wanted(&self, id: ServiceId) -> bool {
        let service = self.services.get(&id);
        service.is_some_and(|service| !service.wants_down())
    }

    /// Processes an operator's request for a snapshot of a running service. The returned token is
    /// that of the [`Event::Snapshotted`] to come.
    ///
    /// # Errors
    /// If the service is not running, or a snapshot is in progress; then nothing has changed.
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
                // A service that is paused or has remains refuses, and stays as it is.
                let _ = service.start(false, &mut self.shared);
            }
        }
        self.settle(self.ids().collect())
    }

    /// Returns the checkpoint of a service, from which a successor resumes if this engine's host is
    /// killed.
    pub fn checkpoint(&self, id: ServiceId) -> Option<Checkpoint> {
        Some(self.services.get(&id)?.checkpoint())
    }

    /// Resumes the services of a killed host in a new engine, instead of [`Engine::start_all`].
    /// Live services continue, services that should be down stay down, and the rest is started,
    /// each as soon as its needs are ready. Services that are not given stay stopped. The views of
    /// live services contain their runs.
    pub fn resume(
        &mut self,
        checkpoints: impl IntoIterator<Item = (ServiceId, Checkpoint)>,
        now: Instant,
    ) -> Vec<Action> {
        self.shared.now = now;
        for (id, checkpoint) in checkpoints {
            if let Some(service) = self.services.get_mut(&id) {
                service.inherit(checkpoint, &mut self.shared);
            }
        }
        self.settle(self.ids().collect())
    }

    /// Processes an operator's request to stop every service, each as soon as nothing that runs
    /// needs it. Any of them may be started again.
    pub fn request_stop_of_all(&mut self, now: Instant) -> Vec<Action> {
        self.shared.now = now;
        self.end_trials(|_| true);
        for service in self.services.values_mut() {
            service.want_down();
        }
        self.settle(self.ids().collect())
    }

    /// Stops every service, each as soon as nothing that runs needs it. Later starts are refused.
    pub fn stop_all(&mut self, now: Instant) -> Vec<Action> {
        self.shutting_down = true;
        self.shared.now = now;
        self.end_trials(|_| true);
        for service in self.services.values_mut() {
            service.want_end();
        }
        self.settle(self.ids().collect())
    }

    /// Kills every service at once, in no particular order, and starts none again.
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

    /// Starts the needs of the services in `started` that are not ready, directly and indirectly,
    /// and adds them to `started`.
    fn start_needs(&mut self, started: &mut Vec<ServiceId>) {
        let mut i = 0;
        while let Some(id) = started.get(i) {
            i += 1;
            for need in self.graph.needs.of(*id) {
                // A service on trial is brought back by its trial.
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

    /// Re-evaluates the services whose situation may have changed until nothing changes, and
    /// returns the actions.
    fn settle(&mut self, mut open: Vec<ServiceId>) -> Vec<Action> {
        // A request to a service may decide the trial of its candidate.
        open.extend(self.trials.iter().filter_map(Trial::candidate));
        self.settle_services(open);
        while let Some(changed) = self.advance() {
            self.settle_services(changed);
        }
        std::mem::take(&mut self.shared.actions)
    }

    fn settle_services(&mut self, mut open: Vec<ServiceId>) {
        // A change of one service may free its dependents (start) and its needs (stop).
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
                    self.emit(id, Fact::Waiting { on });
                }
                Settled::Moved => {
                    open.push(id);
                    open.extend(self.neighbours(id));
                }
            }
        }
    }

    fn emit(&mut self, id: ServiceId, fact: Fact) {
        self.shared.actions.push(Action::Emit(id, fact));
    }

    fn neighbours(&self, id: ServiceId) -> impl Iterator<Item = ServiceId> {
        let (dependents, needs) = (self.graph.dependents.of(id), self.graph.needs.of(id));
        dependents.iter().chain(needs).copied()
    }

    fn needs(&self, id: ServiceId) -> impl Iterator<Item = &Service> {
        let needs = self.graph.needs.of(id).iter();
        needs.filter_map(|need| self.services.get(need))
    }

    /// Returns the names of the needs that are not ready.
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
                if need.is_halted() {
                    Some(Halt::Need(name()))
                } else {
                    need.is_spent().then(|| Halt::NeedEnded(name()))
                }
            }),
            is_held: dependents.any(Service::is_leaving),
        }
    }
}

impl ServiceId {
    /// Returns this ID and advances to the next one.
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

    /// Returns a cycle of services, each followed by a service that it needs, if there is one.
    fn circle(&self, ids: impl Iterator<Item = ServiceId>) -> Option<Vec<ServiceId>> {
        // Kahn's algorithm: remove services without remaining needs.
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
        // The rest is in a cycle or needs one that is: following the needs leads back to a visited
        // service.
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
