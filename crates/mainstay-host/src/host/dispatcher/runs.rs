//! Runs: starting, killing, probing and reloading services, and what is seen of their ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::engine::{
    Checkpoint, CommandFailure, Event, Exit, Fact, KillReason, ProbeFailure, RecoveredState, RunId,
    ServiceId, StartFailure, StateName, Token, Unasked,
};
use mainstay_core::spec::{Owner, Probe, Reload, Signal};
use mainstay_core::time::Instant;
use mainstay_store::ledger::ManifestCopy;

use super::Dispatcher;
use super::helpers::Purpose;
use super::service::{Running, Taken};
use crate::host::effects::{Answerers, Effects, Killed, Reaped, ReloadFailure};

/// The first delay before a tree whose main process has exited is checked again, and the longest
/// one. The kernel may not report that a cgroup has become empty.
const FIRST_SWEEP: Duration = Duration::from_millis(20);
const SLOWEST_SWEEP: Duration = Duration::from_secs(2);

/// The time limit of a reload command.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs that have ended in part.
#[derive(Default)]
pub(super) struct Ends {
    /// Exits to report when all earlier output and notifications of the run have been processed.
    unread: BTreeMap<(ServiceId, RunId), (Exit, Instant)>,
    /// Runs whose main process has exited and that still have processes.
    sweeping: Vec<(ServiceId, RunId)>,
    /// The time of the next check of `sweeping`, and the interval before it.
    again: Option<(Instant, Duration)>,
}

impl Ends {
    pub(super) fn sweeps_at(&self) -> Option<Instant> {
        self.again.map(|(at, _)| at)
    }

    /// Returns whether a run of this service has ended and is not released yet.
    pub(super) fn has_run_of(&self, id: ServiceId) -> bool {
        let mut runs = self.unread.keys().chain(&self.sweeping);
        runs.any(|(service, _)| *service == id)
    }
}

impl<E: Effects> Dispatcher<E> {
    /// Takes over services that a predecessor has left, then does the same as
    /// [`Dispatcher::begin`].
    pub(in crate::host) fn take_over(
        &mut self,
        services: Vec<(ServiceId, Checkpoint, Taken<E::Adopted>)>,
        copy: Option<&ManifestCopy>,
    ) {
        self.take(services, |it| it.begin_ledger(copy));
        self.settle_soon();
    }

    /// Takes over services of a ledger that goes on, without others.
    pub(in crate::host) fn take_over_some(
        &mut self,
        services: Vec<(ServiceId, Checkpoint, Taken<E::Adopted>)>,
    ) {
        let ids: Vec<ServiceId> = services.iter().map(|(id, ..)| *id).collect();
        self.take(services, |_| {});
        ids.into_iter().for_each(|id| self.record(id));
    }

    /// Resumes services. Calls `between` after every adopted run is registered and before any
    /// action is performed.
    fn take(
        &mut self,
        services: Vec<(ServiceId, Checkpoint, Taken<E::Adopted>)>,
        between: impl FnOnce(&mut Self),
    ) {
        let has_ended = |it: &Checkpoint| {
            matches!(
                it.recovered,
                RecoveredState::Ended { .. } | RecoveredState::Gone { .. }
            )
        };
        let now = self.now();
        let checkpoints = services.iter().map(|(id, it, _)| (*id, it.clone()));
        let actions = self.engine.resume(checkpoints, now);
        let (mut gone, mut quiesced) = (Vec::new(), Vec::new());
        for (id, checkpoint, taken) in services {
            quiesced.extend(taken.is_quiesced.then_some(id));
            let exit = taken.exit.filter(|_| has_ended(&checkpoint));
            self.hold(id, taken);
            let run = self.engine.view(id).and_then(|view| view.run);
            gone.extend(run.zip(exit).map(|(run, exit)| (id, run, exit)));
        }
        between(self);
        self.perform(actions);
        for (id, run, exit) in gone {
            self.main_ended((id, run), exit, now);
        }
        self.work();
        // The predecessor was killed between the quiesce command and the end of the thaw command.
        for id in quiesced {
            if self.running(id).is_some() {
                self.run_thaw_command(id);
            }
        }
    }

    /// Registers the processes adopted for a service, after the engine has resumed it.
    fn hold(&mut self, id: ServiceId, taken: Taken<E::Adopted>) {
        let run = self.engine.view(id).and_then(|view| view.run);
        let Some(service) = self.services.get_mut(&id) else {
            return;
        };
        service.is_stopped |= taken.is_stopped;
        let (Some(run), Some(adopted)) = (run, taken.adopted) else {
            return;
        };
        let is_outdated = taken.is_outdated;
        let current = || service.digest.clone().filter(|_| !is_outdated);
        service.running = Some(Running {
            run,
            is_outdated,
            is_quiesced: taken.is_quiesced,
            digest: taken.digest.or_else(current),
        });
        self.effects.adopt(id, run, adopted);
    }

    /// Starts a service's program and returns the result as an event.
    pub(super) fn start_run(&mut self, id: ServiceId, run: RunId) -> Event {
        let restarts = self.restarts(id);
        let spawned = self.part_in_update(id);
        let spawned = spawned.and_then(|part| self.effects.spawn(id, run, restarts, part));
        if let Some(service) = self.services.get_mut(&id) {
            service.lacks_part = spawned.as_ref().is_err_and(|why| why.is_missing());
            if spawned.is_ok() {
                service.running = Some(Running {
                    run,
                    is_outdated: false,
                    is_quiesced: false,
                    digest: service.digest.clone(),
                });
            }
        }
        match spawned {
            Ok(pid) => Event::Spawned(id, run, pid),
            Err(why) => Event::SpawnFailed(id, run, why),
        }
    }

    /// Kills the processes of a run. If that fails, the run does not become empty, and the engine's
    /// deadline reports that.
    pub(super) fn kill(&mut self, id: ServiceId, run: RunId) {
        if self.effects.kill(id, run) == Killed::Remains {
            let why = KillReason::Remains;
            self.emit(id, &Fact::Killing { why });
        }
    }

    /// Processes children that have ended.
    pub(in crate::host) fn reap(&mut self) {
        for reaped in self.effects.reap() {
            match reaped {
                Reaped::Main(id, run, exit, at) => self.main_ended((id, run), exit, at),
                Reaped::Helper(ticket, exit, at) => self.helper_ended(ticket, exit, at),
            }
        }
        self.work();
    }

    /// Reports the exit of a main process, after everything that may show that it was ready has
    /// been processed.
    fn main_ended(&mut self, (id, run): (ServiceId, RunId), exit: Exit, at: Instant) {
        match self.engine.awaits(id, run) {
            None => self.exited((id, run), exit, at),
            Some(awaited) => {
                self.ends.unread.insert((id, run), (exit, at));
                self.effects.read_recent(id, run, awaited);
            }
        }
    }

    /// Reports an exit that was held back until the output before it was processed.
    pub(super) fn output_was_read(&mut self, id: ServiceId, run: RunId) {
        if let Some((exit, at)) = self.ends.unread.remove(&(id, run)) {
            self.exited((id, run), exit, at);
        }
    }

    fn exited(&mut self, (id, run): (ServiceId, RunId), exit: Exit, at: Instant) {
        self.ends.sweeping.push((id, run));
        self.ends.again = Some((self.now() + FIRST_SWEEP, FIRST_SWEEP));
        self.step_at(at, Event::Exited(id, run, exit));
    }

    /// Checks runs that are not empty yet, at growing intervals.
    pub(super) fn sweep_again(&mut self) {
        self.reap();
        let pause = self.ends.again.map_or(FIRST_SWEEP, |(_, pause)| pause);
        let pause = (pause * 2).min(SLOWEST_SWEEP);
        let again = (self.now() + pause, pause);
        self.ends.again = (!self.ends.sweeping.is_empty()).then_some(again);
    }

    /// Returns the event of the next run that has no processes left. What the run used is released.
    pub(super) fn next_emptied(&mut self) -> Option<Event> {
        let is_over = |(id, run): &(ServiceId, RunId)| self.effects.is_empty(*id, *run);
        let at = self.ends.sweeping.iter().position(is_over)?;
        let (id, run) = self.ends.sweeping.remove(at);
        // The next action may be a restore: release the state before it.
        self.effects.release(id, run);
        if let Some(service) = self.services.get_mut(&id) {
            service.running.take_if(|running| running.run == run);
            self.take_up_successor(id);
        }
        Some(Event::Emptied(id, run))
    }

    /// Begins a probe. Returns an event only if the probe could not be begun.
    pub(super) fn ask(
        &mut self,
        (id, of): (ServiceId, Option<RunId>),
        token: Token,
        probe: Probe,
        limit: Duration,
    ) -> Option<Event> {
        let Probe::Exec(argv) = &probe else {
            let answerers = of.map_or(Answerers::Any, |run| self.answerers(id, run));
            self.effects.ask(id, answerers, token, probe, limit);
            return None;
        };
        let purpose = Purpose::Probe(token, argv.program().to_owned());
        match self.start_helper(id, argv, purpose, limit) {
            Ok(()) => None,
            Err(StartFailure::Lacking(why)) => {
                Some(Event::Unasked(id, token, Unasked::Lacking(why)))
            }
            Err(failure) => {
                let why = ProbeFailure::Command(
                    argv.program().to_owned(),
                    CommandFailure::NotStarted(failure),
                );
                Some(self.effects.refused(id, token, why))
            }
        }
    }

    /// Returns the processes that may answer the readiness probe of this run.
    fn answerers(&self, id: ServiceId, run: RunId) -> Answerers {
        let view = self.engine.view(id);
        let is_starting = view.is_some_and(|view| view.state == StateName::StartPending);
        let service = self.services.get(&id);
        let is_any = service.is_none_or(|it| it.spec.start().owner() == Owner::Any);
        if is_starting && !is_any && self.running(id) == Some(run) {
            Answerers::Of(run)
        } else {
            Answerers::Any
        }
    }

    /// Makes a running service reload its configuration in the way its manifest defines.
    pub(super) fn reload(&mut self, id: ServiceId) -> Result<(), ReloadFailure> {
        let state = self.engine.view(id).ok_or(ReloadFailure::Removed)?.state;
        if state != StateName::Running {
            return Err(ReloadFailure::State(state));
        }
        let service = self.services.get(&id).ok_or(ReloadFailure::Removed)?;
        let spec = Arc::clone(&service.spec);
        let (signal, is_named) = match spec.reload() {
            Some(Reload::Exec(argv)) => {
                let purpose = Purpose::Reload(spec.name().clone());
                let started = self.start_helper(id, argv, purpose, RELOAD_TIMEOUT);
                return started.map_err(ReloadFailure::NotStarted);
            }
            Some(Reload::Signal(signal)) => (*signal, true),
            None => (Signal::Hup, false),
        };
        match self.running(id) {
            Some(run) => self.effects.reload(id, run, signal, is_named),
            None => Ok(()),
        }
    }
}
