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
mod cause;
mod checkpoint;
mod contract;
mod fact;
mod foreground;
mod graph;
mod history;
mod id;
mod millis;
mod operations;
mod principal;
mod protocol;
mod request;
mod rollout;
mod service;
mod shared;
#[cfg(test)]
mod simulation;
mod state;
#[cfg(test)]
mod tests;
mod trial;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::checkpoint::{Checkpoint, DesiredState, Failures, RecoveredState, Stage};
pub use self::contract::{Ended, Exit, Human, HumanSeconds, StartFailure};
pub(crate) use self::contract::{SignalName, signal_name, term};
pub use self::fact::{Fact, Halt, KillReason, News, Outcome};
pub use self::graph::GraphError;
use self::graph::{Definitions, Graph};
pub use self::id::{RunId, ServiceId, Token};
pub use self::principal::{Operation, Principal};
pub use self::protocol::{
    Action, Awaited, CommandFailure, CopyFailure, Event, Notice, ProbeFailure, Snapshotted, Unasked,
};
pub use self::request::{Launch, Refusal, Request};
pub use self::rollout::{
    RolloutRole, Style, TrialFailure, TrialPhase, TrialView, Tryout, Versions,
};
use self::service::{Role, Service, Settled, Situation};
use self::shared::Shared;
use self::trial::Trial;
pub use self::view::{Blocker, StateName, View};
use crate::spec::{ServiceName, Spec};
use crate::time::Instant;
use crate::trace::TraceContext;

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
    /// The trace context of the request that is performed now.
    request: Option<TraceContext>,
    /// The trace contexts of the requests that caused the operations in progress.
    causes: BTreeMap<ServiceName, TraceContext>,
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
            shared: Shared::new(seed),
            shutting_down: false,
            trials: Vec::new(),
            request: None,
            causes: BTreeMap::new(),
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
        let blocker = self.awaited(id, |need| need.trouble().is_some());
        view.blocker = blocker.map(|need| {
            let view = need.view();
            Blocker {
                name: need.spec().name().to_string(),
                state: view.state,
                has_run: view.pid.is_some() || view.last_exit.is_some(),
            }
        });
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

    /// Returns whether no service runs and none will without a request, and every trial has ended.
    /// Processes that survive a kill keep a host up, but do not prevent its shutdown once it was
    /// requested.
    pub fn is_down(&self) -> bool {
        let is_down =
            |service: &Service| service.is_down() && (self.shutting_down || !service.has_remains());
        self.trials.is_empty() && self.services.values().all(is_down)
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

    /// Returns these services and all active ones that need them, directly or indirectly.
    pub fn with_dependents(&self, ids: &[ServiceId]) -> Vec<ServiceId> {
        let mut reached = self.graph.dependents.reach(ids);
        reached.retain(|id| self.services.get(id).is_some_and(Service::is_active));
        reached
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
        self.awaited(id, Service::is_out_of_reach).is_some()
    }

    /// Returns a service that `is_meant`, of those that a waiting service waits for, directly or
    /// indirectly.
    fn awaited(&self, id: ServiceId, is_meant: impl Fn(&Service) -> bool) -> Option<&Service> {
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
                if is_meant(service) {
                    return Some(service);
                }
                open.extend(seen.insert(need).then_some(need));
            }
        }
        None
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

    /// Returns the checkpoint of a service, from which a successor resumes if this engine's host is
    /// killed.
    pub fn checkpoint(&self, id: ServiceId) -> Option<Checkpoint> {
        Some(self.services.get(&id)?.checkpoint())
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
