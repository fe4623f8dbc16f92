//! Starting a service: conditions, the program, and the evidence of readiness.

use std::mem;

use super::{ANSWER_TIMEOUT, Service};
use crate::engine::asking::Asking;
use crate::engine::backoff::pause;
use crate::engine::contract::{Ended, StartFailure};
use crate::engine::fact::Fact;
use crate::engine::id::{RunId, Token};
use crate::engine::protocol::{Action, Awaited, ProbeFailure};
use crate::engine::shared::Shared;
use crate::engine::state::{Attempt, Child, Evidence, Lost, Main, Phase, State, Watch};
use crate::spec::{Ready, ServiceName, Strategy};
use crate::time::Instant;

impl Service {
    /// Returns the evidence that may show that this run was ready, if that is not known yet.
    pub(in crate::engine) fn awaits(&self, run: RunId) -> Option<Awaited> {
        let State::Live {
            child,
            phase: Phase::Starting { evidence, .. },
        } = &self.state
        else {
            return None;
        };
        match evidence {
            _ if child.run != run => None,
            Evidence::Line(_) => Some(Awaited::Line),
            Evidence::Notice => Some(Awaited::Notice),
            Evidence::Existence | Evidence::Probe(_) => None,
        }
    }

    pub(in crate::engine) fn spawned(&mut self, run: RunId, pid: u32, shared: &mut Shared) {
        let restarts = self.history.restarts;
        let start_timeout = self.spec.start().timeout();
        let Some((child, phase)) = self
            .live(run)
            .filter(|(child, _)| child.main == Main::Called)
        else {
            return;
        };
        child.main = Main::Lives(pid);
        // The event that led to the start may be much older.
        child.began = shared.now;
        let mut is_ready = false;
        if let Phase::Starting { deadline, evidence } = phase {
            *deadline = shared.now + start_timeout;
            match evidence {
                Evidence::Existence => is_ready = true,
                Evidence::Probe(asking) => *asking = Some(Asking::from(shared.now)),
                Evidence::Line(_) | Evidence::Notice => {}
            }
        }
        let started = Fact::Started {
            pid,
            restarts,
            is_ready: self.spec.start().ready().is_none(),
        };
        self.emit(started, shared);
        if is_ready {
            self.ready(shared)
        } else {
            // The first probe runs at once.
            self.tick(shared)
        }
    }

    pub(in crate::engine) fn spawn_failed(
        &mut self,
        run: RunId,
        why: StartFailure,
        shared: &mut Shared,
    ) {
        match &mut self.state {
            State::Live { child, phase } if child.run == run && child.main == Main::Called => {
                let ended = match why {
                    StartFailure::Transient(why)
                    | StartFailure::Lacking(why)
                    | StartFailure::Missing(why) => Ended::SpawnFailed(why),
                    StartFailure::Permanent(why) => Ended::Unstartable(why),
                };
                match phase {
                    Phase::Stopping { .. } => self.gone(shared),
                    _ if mem::take(&mut self.is_restart_due) => {
                        self.history.forgive();
                        self.wait(shared);
                    }
                    _ => self.handle_end(ended, None, shared),
                }
            }
            State::Halted { remains, .. } if *remains == Some(run) => *remains = None,
            _ => {}
        }
    }

    /// Waits again for a need that is no longer ready, within the time limit of the conditions.
    pub(super) fn lost_a_need(&mut self, need: Option<&ServiceName>, shared: &Shared) {
        let State::Conditions { index, attempt, .. } = &self.state else {
            return;
        };
        let Some((wait, need)) = self.spec.wait_for().get(*index).zip(need) else {
            return self.wait(shared);
        };
        let times = attempt.lost.as_ref().map_or(0, |lost| lost.times) + 1;
        let attempt = Attempt {
            until: attempt.until,
            lost: Some(Lost {
                need: need.clone(),
                times,
                probe: wait.probe().to_string(),
            }),
        };
        self.wait_within(Some(attempt), shared);
    }

    /// Waits for the condition at `index`, or starts the program if there is none.
    pub(super) fn next_condition(&mut self, index: usize, shared: &mut Shared) {
        let Some(wait) = self.spec.wait_for().get(index) else {
            return self.spawn(shared);
        };
        let probe = wait.probe().to_string();
        let attempt = match &self.state {
            State::Waiting { attempt, .. } => attempt.clone(),
            State::Conditions { attempt, .. } => Some(attempt.clone()),
            _ => None,
        };
        let mut attempt = attempt.unwrap_or_else(|| Attempt {
            until: self
                .spec
                .wait_for()
                .iter()
                .fold(shared.now, |until, wait| until + wait.deadline()),
            lost: None,
        });
        if attempt.lost.is_none() {
            attempt.until = attempt.until.max(shared.now + wait.deadline());
        } else if attempt.until <= shared.now {
            // The tick that is due fails the attempt.
            return self.wait_within(Some(attempt), shared);
        }
        self.emit(Fact::WaitingFor { probe }, shared);
        let mut asking = Asking::from(shared.now);
        let deadline = (shared.now + wait.deadline()).min(attempt.until);
        let timeout = ANSWER_TIMEOUT.min(deadline.since(shared.now));
        asking.ask((self.id, None), wait.probe(), timeout, shared);
        let state = State::Conditions {
            index,
            deadline,
            asking,
            passes: 0,
            attempt,
        };
        self.enter(state, shared);
    }

    /// Asks about the current condition if that is due, or fails the attempt at its deadline.
    pub(super) fn check_condition(&mut self, shared: &mut Shared) {
        let now = shared.now;
        let State::Conditions {
            index,
            deadline,
            asking,
            attempt,
            ..
        } = &mut self.state
        else {
            return;
        };
        let Some(wait) = self.spec.wait_for().get(*index) else {
            return;
        };
        if *deadline <= now {
            let probe = wait.probe().to_string();
            let lost = attempt.lost.as_ref().map(Lost::to_string);
            let last: Vec<String> = lost.into_iter().chain(asking.last.take()).collect();
            let last = (!last.is_empty()).then(|| last.join("; "));
            self.handle_end(Ended::ConditionMissed { probe, last }, None, shared);
        } else if asking.is_due(now) {
            let timeout = ANSWER_TIMEOUT.min(deadline.since(now));
            asking.ask((self.id, None), wait.probe(), timeout, shared);
        }
    }

    pub(super) fn condition_answered(
        &mut self,
        answer: Result<(), ProbeFailure>,
        shared: &mut Shared,
    ) {
        let State::Conditions {
            index,
            asking,
            passes,
            ..
        } = &mut self.state
        else {
            return;
        };
        let Some(wait) = self.spec.wait_for().get(*index) else {
            return;
        };
        let (interval, enough) = match wait.strategy() {
            Strategy::Fixed { interval } => (interval, 1),
            Strategy::Backoff(backoff) => (pause(backoff, asking.count - 1, &mut shared.random), 1),
            Strategy::Probe { interval, passes } => (interval, passes),
        };
        match answer {
            Ok(()) => *passes += 1,
            Err(why) => {
                *passes = 0;
                asking.last = Some(why.to_string());
            }
        }
        if *passes >= enough {
            let next = *index + 1;
            self.next_condition(next, shared);
        } else {
            asking.again_in(interval, shared.now);
        }
    }

    fn spawn(&mut self, shared: &mut Shared) {
        let run = RunId(shared.number());
        let child = Child {
            run,
            began: shared.now,
            main: Main::Called,
            was_ready: false,
            is_kept: false,
            is_unseen: false,
        };
        let evidence = self.evidence_of(None, shared);
        shared.actions.push(Action::Spawn(self.id, run));
        self.history.status = None;
        let deadline = shared.now + self.spec.start().timeout();
        let phase = Phase::Starting { deadline, evidence };
        self.enter(State::Live { child, phase }, shared);
    }

    /// Asks for the evidence of readiness if that is due, or fails the start at its deadline.
    pub(super) fn check_readiness(&mut self, shared: &mut Shared) {
        let now = shared.now;
        let State::Live {
            child,
            phase: Phase::Starting { deadline, evidence },
        } = &mut self.state
        else {
            return;
        };
        let asking = match evidence {
            Evidence::Probe(asking) => asking.as_mut(),
            _ => None,
        };
        if *deadline <= now {
            let after = now.since(child.began);
            let last = asking.and_then(|asking| asking.last.take());
            self.failed(Ended::NotReady { after, last }, shared);
        } else if let (Some(asking), Some(Ready::Probe(probe))) =
            (asking, self.spec.start().ready())
            && asking.is_due(now)
        {
            let timeout = ANSWER_TIMEOUT.min(deadline.since(now));
            asking.ask((self.id, Some(child.run)), probe, timeout, shared);
        }
    }

    /// Handles the evidence of readiness.
    pub(super) fn ready(&mut self, shared: &mut Shared) {
        let State::Live { child, phase } = &mut self.state else {
            return;
        };
        if let (Main::Called, Phase::Starting { evidence, .. }) = (child.main, phase) {
            // The evidence arrived before the host reported the child. Only that report is missing.
            *evidence = Evidence::Existence;
            return;
        }
        child.was_ready = true;
        let after = shared.now.since(child.began);
        if self.spec.start().ready().is_some() {
            self.emit(Fact::Ready { after }, shared);
        }
        self.run(shared);
    }

    pub(super) fn run(&mut self, shared: &Shared) {
        let watch = self.spec.liveness().map(|liveness| Watch {
            asking: Asking::from(shared.now + liveness.every()),
            misses: 0,
        });
        let schedule = self.next_schedule(shared.now);
        self.pass_to(Phase::Running { watch, schedule }, shared);
    }

    /// Returns the evidence of readiness to wait for. If the child already runs, its probe starts
    /// at `asked_from`.
    pub(super) fn evidence_of(&self, asked_from: Option<Instant>, shared: &mut Shared) -> Evidence {
        match self.spec.start().ready() {
            None => Evidence::Existence,
            Some(Ready::Probe(_)) => Evidence::Probe(asked_from.map(Asking::from)),
            Some(Ready::Notify(_)) => Evidence::Notice,
            Some(Ready::Log(regex)) => {
                let token = Token(shared.number());
                let line = Action::ExpectLine(self.id, token, regex.clone());
                shared.actions.push(line);
                Evidence::Line(token)
            }
        }
    }
}
