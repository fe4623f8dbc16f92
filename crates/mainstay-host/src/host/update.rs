//! Updates: the host's part in the trial of a new definition (`engine/trial.rs`), and the responses
//! to the client that requested it.
//!
//! The candidate has an ID and runtime data of its own, like any service. It writes to the
//! service's log, has its variables, and listens on the sockets that both definitions use. If it
//! runs alone, the log settings are those of its own definition; beside the old run, they are the
//! same for both.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use mainstay_api::{Decision, GivenUp, Healthy, TrialRequest};
use mainstay_core::engine::{
    Action, Event, Fact, Refusal, RolloutRole, ServiceId, StateName, Style, TrialFailure,
    TrialPhase, Tryout,
};
use mainstay_core::manifest::Format;
use mainstay_core::registry::TextDigest;
use mainstay_core::spec::{Ready, Spec};
use mainstay_store::embedded::Definition;
use mainstay_store::ledger::Updated;
use tokio::sync::oneshot;

use super::control::Reply;
use super::{Host, Message, ServiceRuntime, User, other};
use crate::manifest_file::Source;
use crate::preflight;

/// The longest trial.
const LONGEST_CANARY: Duration = Duration::from_secs(24 * 3600);

/// A trial in progress, and the client that requested it.
pub(super) struct Update {
    service: ServiceId,
    candidate: ServiceId,
    /// The style, which shows whether the old run continues meanwhile; `None` if there was no old
    /// run.
    style: Option<Style>,
    /// The client, which waits for the first decision.
    reply: Option<oneshot::Sender<Reply>>,
    /// The definition to write with the commit.
    written: Updated,
    /// Set if the candidate uses the log of its own definition.
    has_own_log: bool,
    /// The recent output of the candidate. Set when the candidate is gone.
    last_lines: Option<oneshot::Receiver<Vec<String>>>,
}

/// The role of a start in an update.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// A candidate, after the old run.
    Alone,
    /// A candidate, beside the old run with this process ID and number of restarts.
    RolloutRole { pid: u32, restarts: u64 },
    /// The old definition again.
    Back,
}

/// A definition that passed all checks.
struct CheckedDefinition {
    definition: Definition,
    user: User,
    written: Updated,
    canary: Duration,
}

fn rolled_back(
    phase: TrialPhase,
    style: Option<Style>,
    why: &TrialFailure,
    last_lines: &[String],
) -> Reply {
    let body = serde_json::json!(GivenUp {
        why: format!("the update was rolled back: {why}"),
        last_lines: last_lines.to_vec(),
        phase,
        style,
    });
    Reply::new(StatusCode::CONFLICT, body.to_string())
}

impl Host {
    /// Tries a new definition of a service. If that is not possible, nothing is changed.
    pub(super) fn update(&mut self, name: &str, body: &[u8], reply: oneshot::Sender<Reply>) {
        let Some(id) = self.engine.find(name) else {
            drop(reply.send(self.unknown(name)));
            return;
        };
        let begun = self
            .check_definition(name, id, body)
            .and_then(|checked| self.try_out(id, checked));
        let (candidate, actions) = match begun {
            Ok(begun) => begun,
            Err(refusal) => return drop(reply.send(refusal)),
        };
        let (answer, answered) = oneshot::channel();
        let messages = self.messages.clone();
        let mut reply = reply;
        tokio::task::spawn_local(async move {
            let is_delivered = tokio::select! {
                answer = answered => answer.is_ok_and(|answer| reply.send(answer).is_ok()),
                () = reply.closed() => false,
            };
            if !is_delivered {
                messages.send(Message::ClientLeft(candidate));
            }
        });
        if let Some(update) = self.updates.last_mut() {
            update.reply = Some(answer);
        }
        self.perform(actions);
        self.engine.ids().for_each(|id| self.record(id));
    }

    /// Checks the definition in a request, and returns the response to one that cannot be tried.
    fn check_definition(
        &self,
        name: &str,
        id: ServiceId,
        body: &[u8],
    ) -> Result<CheckedDefinition, Reply> {
        let bad = |why: &str| Reply::error(StatusCode::BAD_REQUEST, why);
        let unfit = |why: &str| Reply::error(StatusCode::UNPROCESSABLE_ENTITY, why);
        let failed = |failure| Reply::failure(StatusCode::UNPROCESSABLE_ENTITY, &failure);
        let request: TrialRequest = serde_json::from_slice(body)
            .map_err(|error| bad(&format!("invalid request: {error}")))?;
        let format = Format::ALL
            .into_iter()
            .find(|format| format.name() == request.format);
        let format = format.ok_or_else(|| bad("`format` is toml, yaml or json"))?;
        if !request.base_dir.is_absolute() {
            return Err(bad("`base_dir` is not an absolute path"));
        }
        let canary = Duration::from_millis(request.canary_ms);
        if canary > LONGEST_CANARY {
            return Err(bad("`canary_ms` is longer than a day"));
        }
        let (text, dir) = (request.manifest, request.base_dir);
        let digest = TextDigest::of(&text, format, &dir.to_string_lossy(), None);
        let source = Source::of("the manifest".to_owned(), text.clone(), format, dir.clone());
        let specs = source.specs().map_err(|found| {
            let body = serde_json::json!({
                "error": source.count(&found).message(),
                "mistakes": found,
            });
            Reply::new(StatusCode::UNPROCESSABLE_ENTITY, body.to_string())
        })?;
        let spec = specs.into_iter().find(|spec| spec.name().as_str() == name);
        let spec = spec.ok_or_else(|| unfit(&format!("the manifest has no service {name}")))?;
        let spec = match (self.has_manager, &self.daemon) {
            (true, _) => spec.under_manager(cfg!(windows)),
            (false, Some(_)) => spec.beside_others(),
            (false, None) => spec,
        };
        let user = preflight::user_of(&spec).map_err(failed)?;
        preflight::check_files(&spec, &dir, user.as_ref(), &self.inherited).map_err(failed)?;
        let version = self.runtimes.get(&id).map_or(0, |runtime| runtime.version);
        Ok(CheckedDefinition {
            definition: Definition {
                version: request.version.unwrap_or(version),
                ..Definition::of_manifest(spec, &dir, Some(digest))
            },
            user: Ok(user),
            written: Updated::new(dir, format, text),
            canary,
        })
    }

    fn try_out(
        &mut self,
        service: ServiceId,
        checked: CheckedDefinition,
    ) -> Result<(ServiceId, Vec<Action>), Reply> {
        let CheckedDefinition {
            definition,
            user,
            written,
            canary,
        } = checked;
        let old = self.runtimes.get(&service);
        let old = old.ok_or_else(|| Reply::refused(&Refusal::Removed))?;
        let broken = |what: &str, error: std::io::Error| {
            let why = format!("cannot {what}: {error}");
            Reply::error(StatusCode::INTERNAL_SERVER_ERROR, &why)
        };
        let spec = Arc::clone(&definition.spec);
        let log = old.log.try_clone();
        let log = log.map_err(|error| broken("share its log", error))?;
        let sockets = old.sockets.share(&old.spec, &spec);
        let sockets = sockets.map_err(|error| broken("share its sockets", error))?;
        let is_same_log = has_same_log(old, &spec, &definition.dir, &user);
        let style = if is_same_log && may_overlap(&old.spec, &spec) {
            Style::Overlap
        } else {
            Style::Restart
        };
        let how = Tryout { style, canary };
        let old_state = self.engine.view(service).map(|view| view.state);
        let begun = self.engine.try_out(service, spec, how, self.now());
        let (candidate, actions) = begun.map_err(|refusal| Reply::refused(&refusal))?;
        let mut runtime = ServiceRuntime::new(definition, user, log);
        runtime.sockets = sockets;
        self.runtimes.insert(candidate, runtime);
        let was_up = old_state.is_some_and(|state| state != StateName::Stopped);
        let trial = self.engine.trial(service).filter(|_| was_up);
        self.updates.push(Update {
            service,
            candidate,
            style: trial.map(|trial| trial.style),
            reply: None,
            written,
            has_own_log: is_same_log,
            last_lines: None,
        });
        Ok((candidate, actions))
    }

    /// Performs a client's decision about the trial.
    pub(super) fn decide(&mut self, service: ServiceId, decision: Decision) -> Reply {
        match decision {
            Decision::Commit => self.commit(service),
            Decision::Abort if self.engine.trial(service).is_none() => {
                Reply::refused(&Refusal::NotUpdating)
            }
            Decision::Abort => {
                let actions = self.engine.abort(service, self.now());
                self.perform(actions);
                self.entry(service)
            }
        }
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
        let Some(runtime) = self.runtimes.get(&id) else {
            return Reply::refused(&Refusal::Removed);
        };
        let name = runtime.spec.name().clone();
        if let Some(at) = self.updates.iter().position(|it| it.candidate == id) {
            let update = self.updates.swap_remove(at);
            let problems = self.runtimes.get_mut(&service).map(|old| {
                let sink_problems = std::mem::take(&mut old.sink_problems);
                (std::mem::take(&mut old.log_problems), sink_problems)
            });
            if let Some(runtime) = self.runtimes.get_mut(&id) {
                (runtime.log_problems, runtime.sink_problems) = problems.unwrap_or_default();
                runtime.is_updated = true;
            }
            if !update.has_own_log
                && let Err(why) = self.take_own_log(id)
            {
                self.reporter.notify(&format!("{name}: {why}"));
            }
            self.logs.recall(&name, drop);
            if let Err(error) = update.written.write(&self.state, name.as_str()) {
                let what = format!("{name}: cannot store its new definition: {error}");
                self.reporter.notify(&what);
            }
        }
        self.pass_waiters_on(service, id);
        self.renew_ledger();
        if let Some(pid) = self.engine.view(id).and_then(|view| view.pid) {
            // Of the two runs that wrote to the log, this is the one that continues.
            self.logs.began(&name, pid, 0);
        }
        self.perform(actions);
        self.entry(id)
    }

    /// Aborts the update whose client has disconnected.
    pub(super) fn client_left(&mut self, candidate: ServiceId) {
        let update = self.updates.iter().find(|it| it.candidate == candidate);
        if let Some(service) = update.map(|update| update.service) {
            let actions = self.engine.abort(service, self.now());
            self.perform(actions);
        }
    }

    /// Responds to the client when the trial is decided.
    pub(super) fn answer_update(&mut self, id: ServiceId, fact: &Fact) {
        let Some(at) = self.updates.iter().position(|it| it.service == id) else {
            return;
        };
        match fact {
            Fact::Trial => {
                let report = Healthy {
                    report: self.report(id),
                    outcome: "healthy",
                };
                let answer = Reply::document(&report);
                if let Some(reply) = self.updates[at].reply.take() {
                    // If the client has disconnected, [`Message::ClientLeft`] reports that.
                    let _ = reply.send(answer);
                }
            }
            Fact::RolledBack { phase, why } => {
                let style = self.updates[at].style;
                self.recall_last_lines(self.updates[at].candidate);
                let update = self.updates.swap_remove(at);
                let (phase, why) = (*phase, why.clone());
                tokio::task::spawn_local(async move {
                    let last_lines = match update.last_lines {
                        Some(lines) => lines.await.unwrap_or_default(),
                        None => Vec::new(),
                    };
                    if let Some(reply) = update.reply {
                        let _ = reply.send(rolled_back(phase, style, &why, &last_lines));
                    }
                });
            }
            _ => {}
        }
    }

    /// Returns the role of a start in an update. A candidate that runs alone gets its own log.
    pub(super) fn part_in_update(&mut self, id: ServiceId) -> Result<Option<Part>, String> {
        let is_of = |it: &&mut Update| it.service == id || it.candidate == id;
        let Some(update) = self.updates.iter_mut().find(is_of) else {
            return Ok(None);
        };
        let trial = self.engine.trial(update.service);
        let overlaps = trial.is_some_and(|trial| trial.style == Style::Overlap);
        if update.candidate != id {
            return Ok((!overlaps).then_some(Part::Back));
        }
        if overlaps {
            let old = self.engine.view(update.service).ok_or("it was removed")?;
            let (pid, restarts) = (old.pid.unwrap_or(0), old.restarts);
            return Ok(Some(Part::RolloutRole { pid, restarts }));
        }
        if !std::mem::replace(&mut update.has_own_log, true) {
            self.take_own_log(id)?;
        }
        Ok(Some(Part::Alone))
    }

    /// Opens the log of a definition that runs alone, and gives its data directory to the account
    /// that it runs as.
    fn take_own_log(&mut self, id: ServiceId) -> Result<(), String> {
        let runtime = self.runtimes.get_mut(&id).ok_or("it was removed")?;
        let (spec, owner) = (&runtime.spec, other(&runtime.user));
        let log = self.logs.replace(spec, &runtime.dir, owner);
        let data_dir = self.state.create_data_dir(spec.name().as_str(), owner);
        runtime.log = log.map_err(|error| format!("cannot open its log: {error}"))?;
        data_dir.map_err(|error| format!("cannot create its data directory: {error}"))?;
        let kept = self
            .logs
            .keep(self.runtimes.values().map(|runtime| &runtime.log));
        kept.map_err(|error| format!("cannot preserve its log pipes: {error}"))
    }

    /// Releases a candidate that was rolled back, or a definition that a candidate has replaced.
    pub(super) fn forget_beside(&mut self, id: ServiceId) {
        let is_candidate = self.engine.rollout_role(id) == Some(RolloutRole::Candidate);
        let Some(gone) = self.runtimes.remove(&id).filter(|_| is_candidate) else {
            return;
        };
        let name = gone.spec.name();
        self.recall_last_lines(id);
        let Some(service) = self.engine.find(name.as_str()) else {
            return;
        };
        let runtime = self.runtimes.get(&service);
        if runtime.is_some_and(|it| !has_same_log(it, &gone.spec, &gone.dir, &gone.user))
            && let Err(why) = self.take_own_log(service)
        {
            self.reporter.notify(&format!("{name}: {why}"));
        }
    }

    /// Collects the recent output of a candidate that is gone, before the old definition writes
    /// something.
    fn recall_last_lines(&mut self, candidate: ServiceId) {
        let update = self.updates.iter_mut().find(|it| it.candidate == candidate);
        if let Some(update) = update.filter(|update| update.last_lines.is_none()) {
            let (lines, last_lines) = oneshot::channel();
            update.last_lines = Some(last_lines);
            if let Some(runtime) = self.runtimes.get(&update.service) {
                self.logs.recall(runtime.spec.name(), move |last| {
                    // This fails if nobody waits for the lines.
                    let _ = lines.send(last);
                });
            }
        }
    }
}

/// Returns whether both definitions may run at once. A state that is kept in snapshots belongs to
/// one program, so it rules that out. Only a program's own notification, or the fact that it runs,
/// is evidence about the new run alone: a probe could be answered by the old one.
fn may_overlap(old: &Spec, new: &Spec) -> bool {
    let is_told_apart = matches!(new.start().ready(), None | Some(Ready::Notify(_)));
    let is_stateful = old.snapshot().is_some() || new.snapshot().is_some();
    let is_same_place = !new.listen().is_empty() && old.listen() == new.listen();
    is_same_place && is_told_apart && !is_stateful
}

fn has_same_log(old: &ServiceRuntime, spec: &Spec, dir: &Path, user: &User) -> bool {
    old.spec.log() == spec.log() && old.dir == *dir && old.user == *user
}
