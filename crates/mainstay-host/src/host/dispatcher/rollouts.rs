//! Updates: the part of the dispatcher in the trial of a new definition (`engine/trial.rs`), and
//! the responses to the client that requested it.
//!
//! The candidate has an ID and a record of its own, like any service. It writes to the service's
//! log, has its variables, and listens on the sockets that both definitions use. If it runs alone,
//! the log settings are those of its own definition; beside the old run, they are the same for
//! both.

use hyper::StatusCode;
use hyper::body::Bytes;
use mainstay_api::{Decision, GivenUp, Healthy};
use mainstay_core::engine::{
    Action, Event, Fact, Refusal, RolloutRole, ServiceId, StartFailure, StateName, Style,
    TrialFailure, TrialPhase, Tryout,
};
use mainstay_store::ledger::Updated;
use tokio::sync::oneshot;

use super::Dispatcher;
use super::changes::Pending;
use super::service::Service;
use crate::host::control::Reply;
use crate::host::effects::{Candidate, CandidateText, Effects, LastLines, Part, REMOVED, Setting};

/// The trials in progress.
#[derive(Default)]
pub(super) struct Rollouts(Vec<Rollout>);

/// A trial in progress, and the client that requested it.
struct Rollout {
    service: ServiceId,
    candidate: ServiceId,
    /// The style, which shows whether the old run continues meanwhile; `None` if there was no old
    /// run.
    style: Option<Style>,
    /// The client, which waits for the first decision.
    reply: Option<oneshot::Sender<Reply>>,
    /// The definition to store with the commit.
    written: Updated,
    /// Set if the candidate uses the log of its own definition.
    has_own_log: bool,
    /// The recent output of the candidate. Set when the candidate is gone.
    last_lines: Option<LastLines>,
}

impl Rollouts {
    fn of_service(&mut self, service: ServiceId) -> Option<&mut Rollout> {
        self.0.iter_mut().find(|it| it.service == service)
    }

    fn of_candidate(&mut self, candidate: ServiceId) -> Option<&mut Rollout> {
        self.0.iter_mut().find(|it| it.candidate == candidate)
    }

    fn take(&mut self, candidate: ServiceId) -> Option<Rollout> {
        let at = self.0.iter().position(|it| it.candidate == candidate)?;
        Some(self.0.remove(at))
    }
}

fn rolled_back(
    phase: TrialPhase,
    style: Option<Style>,
    why: &TrialFailure,
    last_lines: &[String],
) -> Reply {
    let given_up = GivenUp {
        style,
        ..GivenUp::new(phase, &why.to_string(), last_lines.to_vec())
    };
    Reply::with(StatusCode::CONFLICT, &given_up)
}

impl<E: Effects> Dispatcher<E> {
    /// Begins to check the definition that a client asks to try.
    pub(super) fn update(&mut self, pending: Pending, body: Bytes) {
        let name = pending.name().to_owned();
        let Some(id) = self.engine.find(&name) else {
            let unknown = self.unknown(&name);
            return pending.answer(unknown);
        };
        let candidate = CandidateText {
            name,
            version: self.services.get(&id).map_or(0, |service| service.version),
            body,
            setting: match (&self.about.manager, &self.about.daemon) {
                (Some(_), _) => Setting::Managed,
                (None, Some(_)) => Setting::Installed,
                (None, None) => Setting::OfManifest,
            },
        };
        let ticket = self.ticket();
        match self.changes.check(ticket, pending) {
            Ok(()) => self.effects.check(ticket, candidate),
            Err(pending) => {
                let why = "too many updates are being checked: try again later";
                pending.answer(Reply::error(StatusCode::SERVICE_UNAVAILABLE, why));
            }
        }
    }

    /// Tries a definition that was checked. If that is not possible, nothing is changed.
    pub(super) fn try_out(
        &mut self,
        name: &str,
        checked: Result<Candidate, Reply>,
        reply: oneshot::Sender<Reply>,
    ) {
        let Some(id) = self.engine.find(name) else {
            return drop(reply.send(self.unknown(name)));
        };
        let begun = checked.and_then(|candidate| self.begin_trial(id, candidate));
        let (rollout, actions) = match begun {
            Ok(begun) => begun,
            Err(refusal) => return drop(reply.send(refusal)),
        };
        let reply = self.effects.watch_client(reply, rollout.candidate);
        self.rollouts.0.push(Rollout {
            reply: Some(reply),
            ..rollout
        });
        self.perform(actions);
        self.record_all();
    }

    fn begin_trial(
        &mut self,
        service: ServiceId,
        candidate: Candidate,
    ) -> Result<(Rollout, Vec<Action>), Reply> {
        let Candidate {
            definition,
            user,
            written,
            canary,
            versions,
        } = candidate;
        let old = self.services.get(&service);
        let old = old.ok_or_else(|| Reply::refused(&Refusal::Removed))?;
        let account = Ok(user);
        let new = Service::new(definition.clone(), account.clone());
        let is_same_log = old.has_log_of(&new);
        let style = if is_same_log && Style::may_overlap(&old.spec, &new.spec) {
            Style::Overlap
        } else {
            Style::Restart
        };
        let seat = self.effects.share(service, &definition, &account);
        let seat = seat.map_err(|(status, why)| Reply::error(status, &why))?;
        let how = Tryout {
            style,
            canary,
            versions,
        };
        let old_state = self.engine.view(service).map(|view| view.state);
        let spec = definition.spec;
        let begun = self.engine.try_out(service, spec, how, self.now());
        let (candidate, actions) = begun.map_err(|refusal| Reply::refused(&refusal))?;
        self.effects.seat(candidate, seat);
        self.services.insert(candidate, new);
        let was_up = old_state.is_some_and(|state| state != StateName::Stopped);
        let trial = self.engine.trial(service).filter(|_| was_up);
        let rollout = Rollout {
            service,
            candidate,
            style: trial.map(|trial| trial.style),
            reply: None,
            written,
            has_own_log: is_same_log,
            last_lines: None,
        };
        Ok((rollout, actions))
    }

    /// Performs a client's decision about the trial.
    pub(super) fn decide(&mut self, service: ServiceId, decision: Decision) -> Reply {
        match decision {
            Decision::Commit => self.commit(service),
            Decision::Abort if self.engine.trial(service).is_none() => {
                Reply::refused(&Refusal::NotUpdating)
            }
            Decision::Abort => {
                self.abort(service);
                self.entry(service)
            }
        }
    }

    fn abort(&mut self, service: ServiceId) {
        let actions = self.engine.abort(service, self.now());
        self.perform(actions);
        // A run that was being stopped for the trial is followed by another one, without any other
        // event.
        self.record(service);
    }

    fn commit(&mut self, service: ServiceId) -> Reply {
        let (id, actions) = match self.engine.commit(service, self.now()) {
            Ok(committed) => committed,
            Err(refusal) => {
                // If the new definition turned out not to fit, roll it back.
                self.step(Event::Tick);
                return Reply::refused(&refusal);
            }
        };
        let [old, committed] = [service, id].map(|id| self.services.remove(&id));
        let (Some(mut old), Some(mut committed)) = (old, committed) else {
            return Reply::refused(&Refusal::Removed);
        };
        committed.replace(&mut old);
        committed.is_updated = true;
        let name = committed.spec.name().clone();
        self.services.extend([(service, old), (id, committed)]);
        if let Some(rollout) = self.rollouts.take(id) {
            if !rollout.has_own_log
                && let Err(why) = self.effects.take_own_log(id)
            {
                self.effects.notify(&format!("{name}: {why}"));
            }
            // The lines are not needed: nothing failed.
            drop(self.effects.recall(id));
            if let Err(error) = self.effects.store_update(&name, &rollout.written) {
                let what = format!("{name}: cannot store its new definition: {error}");
                self.effects.notify(&what);
            }
        }
        self.clients.pass_on(service, id);
        self.renew_ledger();
        if let Some(pid) = self.engine.view(id).and_then(|view| view.pid) {
            self.effects.log_began(id, pid);
        }
        self.perform(actions);
        self.entry(id)
    }

    /// Aborts the update whose client has disconnected.
    pub(super) fn client_left(&mut self, candidate: ServiceId) {
        let rollout = self.rollouts.of_candidate(candidate);
        if let Some(service) = rollout.map(|rollout| rollout.service) {
            self.abort(service);
        }
    }

    /// Responds to the client when the trial is decided.
    pub(super) fn answer_update(&mut self, id: ServiceId, fact: &Fact) {
        match fact {
            Fact::Trial { .. } => {
                let answer = match self.report(id) {
                    Some(report) => Reply::document(&Healthy::new(report)),
                    None => Reply::refused(&Refusal::Removed),
                };
                let Some(rollout) = self.rollouts.of_service(id) else {
                    return;
                };
                if let Some(reply) = rollout.reply.take() {
                    // If the client has disconnected, [`Message::ClientLeft`] reports that.
                    let _ = reply.send(answer);
                }
            }
            Fact::RolledBack { phase, why, .. } => {
                let candidate = self.rollouts.of_service(id).map(|it| it.candidate);
                let Some(candidate) = candidate else { return };
                self.recall_last_lines(candidate);
                let Some(rollout) = self.rollouts.take(candidate) else {
                    return;
                };
                let (phase, style, why) = (*phase, rollout.style, why.clone());
                if let Some(reply) = rollout.reply {
                    let lines = rollout.last_lines;
                    self.effects.reply_with_lines(lines, reply, move |lines| {
                        rolled_back(phase, style, &why, lines)
                    });
                }
            }
            _ => {}
        }
    }

    /// Returns the role of a start in an update. A candidate that runs alone gets its own log.
    pub(super) fn part_in_update(&mut self, id: ServiceId) -> Result<Option<Part>, StartFailure> {
        let mut rollouts = self.rollouts.0.iter_mut();
        let Some(rollout) = rollouts.find(|it| it.service == id || it.candidate == id) else {
            return Ok(None);
        };
        let trial = self.engine.trial(rollout.service);
        let overlaps = trial.is_some_and(|trial| trial.style == Style::Overlap);
        if rollout.candidate != id {
            return Ok((!overlaps).then_some(Part::Back));
        }
        if overlaps {
            let old = self.engine.view(rollout.service).ok_or(REMOVED)?;
            let (pid, restarts) = (old.pid.unwrap_or(0), old.restarts);
            return Ok(Some(Part::Beside { pid, restarts }));
        }
        if !std::mem::replace(&mut rollout.has_own_log, true) {
            self.effects.take_own_log(id)?;
        }
        Ok(Some(Part::Alone))
    }

    /// Releases a candidate that was rolled back, or a definition that a candidate has replaced.
    pub(super) fn forget_beside(&mut self, id: ServiceId) {
        let is_candidate = self.engine.rollout_role(id) == Some(RolloutRole::Candidate);
        if is_candidate {
            self.recall_last_lines(id);
        }
        self.effects.unseat(id);
        let Some(gone) = self.services.remove(&id).filter(|_| is_candidate) else {
            return;
        };
        let name = gone.spec.name();
        let Some(service) = self.engine.find(name.as_str()) else {
            return;
        };
        let current = self.services.get(&service);
        if current.is_some_and(|it| !it.has_log_of(&gone))
            && let Err(why) = self.effects.take_own_log(service)
        {
            self.effects.notify(&format!("{name}: {why}"));
        }
    }

    /// Collects the recent output of a candidate that is gone, before the old definition writes
    /// something.
    fn recall_last_lines(&mut self, candidate: ServiceId) {
        let rollout = self.rollouts.of_candidate(candidate);
        if let Some(rollout) = rollout.filter(|rollout| rollout.last_lines.is_none()) {
            rollout.last_lines = Some(self.effects.recall(rollout.service));
        }
    }
}
