//! The end of a run, whether it was asked to stop, failed or exited by itself.

use std::mem;
use std::time::Duration;

use super::{Goal, Service};
use crate::engine::contract::{Ended, Exit, signal_name};
use crate::engine::fact::{Fact, Halt, KillReason, News, Outcome};
use crate::engine::foreground;
use crate::engine::id::{RunId, ServiceId};
use crate::engine::protocol::Action;
use crate::engine::rollout::TrialFailure;
use crate::engine::shared::Shared;
use crate::engine::state::{Child, Main, Phase, State, StopStage, Then};
use crate::spec::{Spec, StopAsk, StopScope, StopStep};
use crate::time::Instant;

/// The time limit for killed processes to disappear.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for the children of a main process that exited with 0 to exit as well.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

impl Service {
    pub(in crate::engine) fn exited(&mut self, run: RunId, exit: Exit, shared: &mut Shared) {
        let scope = self.spec.stop().scope();
        let Some((child, _)) = self.live(run).filter(|(child, _)| child.main != Main::Gone) else {
            return;
        };
        child.main = Main::Gone;
        let after = shared.now.since(child.began);
        let is_unseen = child.is_unseen;
        self.abandon_snapshot(shared);
        let is_restart_due = self.is_restart_due;
        let Some((_, phase)) = self.live(run) else {
            return;
        };
        let is_asked = matches!(
            phase,
            Phase::Stopping {
                stage: StopStage::Asked { .. },
                ..
            }
        );
        let then = match phase {
            Phase::Stopping {
                stage: StopStage::Killed,
                ..
            } => None,
            // All processes were asked to stop, and have the rest of the time limit.
            Phase::Stopping { .. } if scope == StopScope::Tree => None,
            Phase::Stopping { then, .. } => Some(mem::replace(then, Then::Down)),
            _ if is_restart_due => Some(Then::Start),
            _ => Some(Then::Classify(Ended::Exit(exit))),
        };
        self.is_restart_due = false;
        self.history.last_exit = Some(exit);
        let exited = Fact::Exited {
            exit,
            after,
            is_unseen,
            is_requested: is_asked && self.asks_with(exit),
        };
        self.emit(exited, shared);
        if let Some(Then::Classify(ended @ Ended::Exit(_))) = &then {
            self.fail_trial(TrialFailure::Failed(ended.clone()));
        }
        if let (Some(then), State::Live { child, .. }) = (then, &self.state) {
            self.end_children(*child, then, shared.now, shared);
        }
    }

    /// Returns whether a process ended by a signal that a stop sends.
    fn asks_with(&self, exit: Exit) -> bool {
        let Exit::Signal(number) = exit else {
            return false;
        };
        let name = signal_name(number);
        let mut asks = self.spec.stop().ladder().iter().map(StopStep::ask);
        asks.any(|ask| matches!(ask, StopAsk::Signal(signal) if Some(signal.name()) == name))
    }

    /// Waits until no process of a run is left after its main process ended at `ended`. Kills the
    /// rest if it does not exit by itself.
    pub(super) fn end_children(
        &mut self,
        child: Child,
        then: Then,
        ended: Instant,
        shared: &mut Shared,
    ) {
        let is_quick = ended.since(child.began) <= self.spec.start().timeout();
        let (stage, until) = match then {
            // Children that outlive the main process by more than a moment run in the background.
            Then::Classify(Ended::Exit(Exit::Code(0)))
                if is_quick && !self.spec.recovery().codes().contains_key(&0) =>
            {
                (StopStage::Lingering, ended + LINGER_TIMEOUT)
            }
            _ => {
                shared.actions.push(Action::Kill(self.id, child.run));
                (StopStage::Killed, shared.now + KILL_TIMEOUT)
            }
        };
        self.pass_to(Phase::Stopping { then, stage, until }, shared);
    }

    /// Fails a service whose main process exited with 0 while its children kept running.
    pub(super) fn went_to_background(&mut self, shared: &mut Shared) {
        let State::Live {
            child,
            phase: Phase::Stopping { then, stage, until },
        } = &mut self.state
        else {
            return;
        };
        let run = child.run;
        (*stage, *until) = (StopStage::Killed, shared.now + KILL_TIMEOUT);
        if let Then::Classify(ended) = then
            && self.goal == Goal::Up
        {
            let hint = foreground::hint(self.spec.command().program());
            *ended = Ended::Backgrounded { hint };
            let (why, news) = (ended.clone(), News::Covered);
            self.emit(Fact::Failed { why, news }, shared);
        }
        shared.actions.push(Action::Kill(self.id, run));
    }

    pub(in crate::engine) fn emptied(&mut self, run: RunId, shared: &mut Shared) {
        match &mut self.state {
            State::Live { child, .. } if child.run == run && child.main == Main::Gone => {
                self.gone(shared);
            }
            State::Halted { remains, .. } if *remains == Some(run) => *remains = None,
            _ => {}
        }
    }

    /// Stops a live child that has failed, then decides what follows.
    pub(super) fn failed(&mut self, ended: Ended, shared: &mut Shared) {
        self.fail_trial(TrialFailure::Failed(ended.clone()));
        let news = if self.is_crash_looping() {
            News::Covered
        } else {
            News::Alert
        };
        let why = ended.clone();
        self.emit(Fact::Failed { why, news }, shared);
        self.begin_stop(Then::Classify(ended), shared);
    }

    /// Begins to stop a live child, unless it is stopping already.
    pub(super) fn begin_stop(&mut self, then: Then, shared: &mut Shared) {
        self.abandon_snapshot(shared);
        let until = shared.now + self.spec.stop().graceful();
        self.stop_by(then, (shared.now, until), shared);
    }

    /// Asks a live child to stop by `until`, unless it is stopping already. Steps of the ladder
    /// that were due since the stop began are taken, or repeated.
    pub(super) fn stop_by(
        &mut self,
        then: Then,
        (since, until): (Instant, Instant),
        shared: &mut Shared,
    ) {
        let State::Live { child, phase } = &self.state else {
            return;
        };
        let (run, is_paused) = (child.run, matches!(phase, Phase::Paused));
        if let Phase::Stopping { .. } = phase {
            return;
        }
        // A failure before the restart changes nothing: the service is started again in any case.
        let then = match (then, mem::take(&mut self.is_restart_due)) {
            (Then::Classify(_), true) => Then::Start,
            (then, _) => then,
        };
        let graceful = until.since(shared.now);
        self.emit(Fact::Stopping { graceful }, shared);
        let (steps, next) = climb(&self.spec, (self.id, run), since, 0, shared);
        if is_paused {
            shared.actions.push(Action::Thaw(self.id, run));
        }
        let phase = Phase::Stopping {
            then,
            stage: StopStage::Asked { since, steps, next },
            until,
        };
        self.pass_to(phase, shared);
        self.since = since;
    }

    /// Takes the next step of a stop if that is due.
    pub(super) fn continue_stop(&mut self, shared: &mut Shared) {
        let now = shared.now;
        let State::Live {
            child,
            phase: Phase::Stopping { stage, until, .. },
        } = &mut self.state
        else {
            return;
        };
        match stage {
            StopStage::Killed if *until <= now => {
                let after = KILL_TIMEOUT;
                let remains = Some(child.run);
                self.halt(Halt::Unkillable { after }, remains, shared);
            }
            StopStage::Lingering if *until <= now => self.went_to_background(shared),
            StopStage::Asked { .. } if *until <= now => {
                self.kill_tree(KillReason::GraceOver, shared);
            }
            StopStage::Asked { since, steps, next } if next.is_some_and(|next| next <= now) => {
                let run = (self.id, child.run);
                (*steps, *next) = climb(&self.spec, run, *since, *steps, shared);
            }
            _ => {}
        }
    }

    /// Kills the tree of a stopping run, once.
    pub(super) fn kill_tree(&mut self, why: KillReason, shared: &mut Shared) {
        let State::Live {
            child,
            phase:
                Phase::Stopping {
                    stage: stage @ (StopStage::Asked { .. } | StopStage::Lingering),
                    until,
                    ..
                },
        } = &mut self.state
        else {
            return;
        };
        *stage = StopStage::Killed;
        *until = shared.now + KILL_TIMEOUT;
        let run = child.run;
        self.emit(Fact::Killing { why }, shared);
        shared.actions.push(Action::Kill(self.id, run));
    }

    /// Handles the end of a stopping run: none of its processes are left.
    pub(super) fn gone(&mut self, shared: &mut Shared) {
        let State::Live {
            child,
            phase: Phase::Stopping { then, .. },
        } = &mut self.state
        else {
            return;
        };
        let child = *child;
        match mem::replace(then, Then::Down) {
            Then::Start => self.wait(shared),
            Then::Classify(ended) => self.handle_end(ended, Some(child), shared),
            Then::Down => self.stopped(Outcome::Requested, shared),
        }
    }
}

/// Takes the stop steps that are due. Returns the number of steps taken so far, and the time of the
/// next one.
fn climb(
    spec: &Spec,
    (service, run): (ServiceId, RunId),
    since: Instant,
    taken: usize,
    shared: &mut Shared,
) -> (usize, Option<Instant>) {
    let steps = spec.stop().ladder().iter().enumerate().skip(taken);
    for (number, step) in steps {
        let at = since + step.after();
        if at > shared.now {
            return (number, Some(at));
        }
        let ask = Action::AskToStop(service, run, step.ask());
        shared.actions.push(ask);
    }
    (spec.stop().ladder().len(), None)
}
