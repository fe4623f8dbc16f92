//! The features that the embedded service manager adds to a supervisor: services are added, changed
//! and removed while others keep running; SIGHUP is passed on to services; the exit code covers all
//! services.
//!
//! An installer writes the files first (`deploy/embedded.rs`), then names the services here. Either
//! all of their definitions are loaded or none.

use std::io;
use std::sync::Arc;

use hyper::StatusCode;
use mainstay_core::engine::{
    DesiredState, Fact, KillReason, RecoveredState, Refusal, ServiceId, StateName,
};
use mainstay_core::failure::chain;
use mainstay_core::report::{LastExit, StatusReport};
use mainstay_store::embedded::{self, Definition, Desired};
use tokio::sync::oneshot;

use super::control::Reply;
use super::helpers::Purpose;
use super::requests::{LOGS_BEHIND, Waiter, unless_logs_hang};
use super::{Host, SETTLED, ServiceRuntime, Successor, other};
use crate::{definitions, preflight};

/// Returns a message about the consequence of a desired state that could not be written, or removed
/// if it is `None`.
pub(super) fn unwritten(error: &io::Error, desired: Option<&Desired>) -> String {
    let consequence = match desired {
        Some(_) => "the next daemon will start it",
        None => "the next daemon will not start it",
    };
    format!("cannot write its desired state: {error}; {consequence}")
}

/// The manager of the services installed in a state directory.
pub(super) struct Daemon {
    pub(super) exits_when_done: bool,
    /// The problems that prevent installed services from being loaded.
    problems: Vec<String>,
    /// Set until the services that start with the daemon have settled and its parent has been
    /// notified.
    is_starting: bool,
    /// The exit code of the first service that halted; 1 if it has none.
    first_failure: Option<u32>,
    /// Set if, at the orderly end, a service had halted or had to be killed.
    ends_badly: bool,
}

impl Daemon {
    pub(super) fn new(exits_when_done: bool, problems: Vec<String>) -> Self {
        Self {
            exits_when_done,
            first_failure: (!problems.is_empty()).then_some(1),
            ends_badly: !problems.is_empty(),
            problems,
            is_starting: true,
        }
    }

    /// Returns the exit code; see docs/exit-codes.md.
    pub(super) fn exit_code(&self, interrupts: u32) -> u32 {
        match interrupts {
            0 => self.first_failure.unwrap_or(0),
            _ => u32::from(self.ends_badly),
        }
    }
}

/// The response to a refused change: its status and the reason.
type Refused = (StatusCode, String);

fn conflict(why: impl ToString) -> Refused {
    (StatusCode::CONFLICT, why.to_string())
}

fn failed(operation: &str, name: &str, error: &io::Error) -> Refused {
    let why = format!("cannot {operation} {name}: {error}");
    (StatusCode::INTERNAL_SERVER_ERROR, why)
}

impl Host {
    pub(super) fn report_problems(&mut self) {
        let problems = self.daemon.iter().flat_map(|daemon| &daemon.problems);
        for problem in problems {
            self.reporter.notify(problem);
        }
    }

    /// Writes a service's desired state, which outlives this daemon. A stop of the daemon itself is
    /// not a desired state.
    pub(super) fn record_desired(&mut self, id: ServiceId) {
        if self.daemon.is_none() || self.engine.is_shutting_down() {
            return;
        }
        let (Some(checkpoint), Some(runtime)) =
            (self.engine.checkpoint(id), self.runtimes.get_mut(&id))
        else {
            return;
        };
        let name = runtime.spec.name();
        if self.engine.find(name.as_str()) != Some(id) {
            return;
        }
        runtime.is_stopped &= checkpoint.desired == DesiredState::Down;
        let desired = match checkpoint.recovered {
            RecoveredState::Halted { why } => Some(Desired::Halted {
                why,
                restarts: checkpoint.restarts,
                last_exit: checkpoint.last_exit.map(LastExit::from),
            }),
            _ => runtime.is_stopped.then_some(Desired::Stopped),
        };
        if runtime.desired == desired {
            runtime.desired_problem = None;
            return;
        }
        let written = embedded::write_desired(&self.state, name.as_str(), desired.as_ref());
        let Err(error) = written else {
            runtime.desired = desired;
            if runtime.desired_problem.take().is_some() {
                let text = format!("{name}: its desired state was written");
                self.reporter.notify(&text);
            }
            return;
        };
        let problem = unwritten(&error, desired.as_ref());
        if runtime.desired_problem.as_ref() != Some(&problem) {
            self.reporter.notify(&format!("{name}: {problem}"));
        }
        runtime.desired_problem = Some(problem);
    }

    /// The same for all services. What could not be written, by this daemon or one that was killed,
    /// may find room now.
    pub(super) fn record_all_desired(&mut self) {
        let ids: Vec<ServiceId> = self.engine.ids().collect();
        ids.into_iter().for_each(|id| self.record_desired(id));
    }

    /// Tells whoever started us that all that starts with us has, or has failed.
    pub(super) fn notify_parent(&mut self) {
        if let Some(daemon) = self.daemon.as_mut().filter(|daemon| daemon.is_starting)
            && self.engine.is_calm()
        {
            daemon.is_starting = false;
            self.check_notified(mainstay::notify::ready());
        }
    }

    fn check_notified(&mut self, result: io::Result<bool>) {
        if let Err(error) = result {
            self.reporter.notify(&format!("NOTIFY_SOCKET: {error}"));
        }
    }

    /// Records facts that determine the daemon's exit code.
    pub(super) fn record_outcome(&mut self, id: ServiceId, fact: &Fact) {
        let code = match fact {
            Fact::Halted { .. } => Some(self.failure_of(id).unwrap_or(1)),
            _ => None,
        };
        let is_ending = self.interrupts > 0;
        if let Some(daemon) = &mut self.daemon {
            daemon.first_failure = daemon.first_failure.or(code);
            daemon.ends_badly |= is_ending
                && matches!(
                    fact,
                    Fact::Killing {
                        why: KillReason::GraceOver | KillReason::Requested
                    }
                );
        }
    }

    /// Prepares for the stop of all services.
    pub(super) fn begin_end(&mut self) {
        self.record_all_desired();
        let state = |id| self.engine.view(id).map(|view| view.state);
        let is_halted = |id| state(id) == Some(StateName::Halted);
        let any_is_halted = self.engine.ids().any(is_halted);
        if let Some(daemon) = &mut self.daemon
            && self.interrupts == 1
        {
            daemon.ends_badly |= any_is_halted;
            self.check_notified(mainstay::notify::stopping());
        }
    }

    /// Reloads all services that support it, and leaves the others unchanged.
    pub(super) fn reload_all(&mut self) {
        let mut reloaded = Vec::new();
        for id in self.engine.ids() {
            let Some(spec) = self
                .runtimes
                .get(&id)
                .map(|runtime| Arc::clone(&runtime.spec))
            else {
                continue;
            };
            match self.reload(id) {
                Ok(()) => reloaded.push(spec.name().to_string()),
                Err(why) if spec.reload().is_some() => {
                    self.reporter
                        .notify(&format!("{}: not reloaded: {why}", spec.name()));
                }
                Err(_) => {}
            }
        }
        self.reporter.notify(&if reloaded.is_empty() {
            "SIGHUP: no service was reloaded".to_owned()
        } else {
            format!("SIGHUP: reload requested: {}", reloaded.join(", "))
        });
    }

    /// Loads the installed definitions with these names. New services are stopped; existing ones
    /// use the new definition from their next start on.
    pub(super) fn define(&mut self, names: &[&str]) -> Result<StatusReport, Refused> {
        self.refuse_changes(names)?;
        let mut changed = Vec::new();
        for name in names {
            let definition = definitions::read(&self.state, name).map_err(conflict)?;
            let id = self.engine.find(name);
            if let Some(runtime) = id.and_then(|id| self.runtimes.get_mut(&id)) {
                let is_same = *runtime.spec == *definition.spec && runtime.dir == definition.dir;
                if is_same && runtime.next.is_none() {
                    // An update has already applied this definition, or only the wording has
                    // changed.
                    (runtime.version, runtime.is_updated) = (definition.version, false);
                    runtime.reword(definition.digest);
                    continue;
                }
            }
            let runtime = id.and_then(|id| self.runtimes.get(&id));
            let is_known = runtime.is_some_and(|runtime| {
                let (version, spec, dir) = match &runtime.next {
                    Some(Successor { definition: it, .. }) => (it.version, &it.spec, &it.dir),
                    None => (runtime.version, &runtime.spec, &runtime.dir),
                };
                (version, spec, dir) == (definition.version, &definition.spec, &definition.dir)
            });
            if !is_known {
                let user = preflight::user_of(&definition.spec);
                let user = user.map_err(|failure| conflict(failure.message()))?;
                changed.push((definition, user));
            }
        }
        let mut opened = Vec::new();
        let taken = self.prepare(&changed, &mut opened).and_then(|()| {
            let specs = changed.iter().map(|(definition, _)| &definition.spec);
            let defined = self.engine.define(specs.cloned(), self.now());
            defined.map_err(conflict)
        });
        let actions = match taken {
            Ok(actions) => actions,
            Err(refused) => {
                for (name, _) in opened {
                    self.logs.forget(&name, || {});
                }
                return Err(refused);
            }
        };
        let mut opened = opened.into_iter();
        for (definition, user) in changed {
            let name = definition.spec.name().clone();
            let Some(id) = self.engine.find(name.as_str()) else {
                continue;
            };
            let remarks = preflight::remarks(&definition.spec, &definition.dir, &self.inherited);
            for remark in remarks {
                self.reporter.notify(&format!("{name}: {remark}"));
            }
            let user = Ok(user);
            match self.runtimes.get_mut(&id) {
                None => {
                    if let Some((_, log)) = opened.next() {
                        self.runtimes
                            .insert(id, ServiceRuntime::new(definition, user, log));
                        self.reporter.widen(name.as_str());
                        self.reporter.notify(&format!("{name}: installed"));
                    }
                }
                Some(runtime) => {
                    runtime.next = Some(Successor { definition, user });
                    let is_up = runtime.running.as_mut().map(|run| run.is_outdated = true);
                    self.reporter.notify(&format!(
                        "{name}: changed{}",
                        is_up.map_or("", |()| "; restart it to apply the change")
                    ));
                    self.take_up_successor(id);
                }
            }
        }
        self.begin_ledger(None);
        self.perform(actions);
        self.settle_soon();
        let ids = names.iter().filter_map(|name| self.engine.find(name));
        Ok(StatusReport {
            supervisor: None,
            services: ids.filter_map(|id| self.report(id)).collect(),
        })
    }

    /// Returns the reason that these services cannot be changed now. The control socket has already
    /// checked the registry for another owner.
    fn refuse_changes(&self, names: &[&str]) -> Result<(), Refused> {
        if self.daemon.is_none() {
            let what = &self.manifest;
            let why = format!(
                "this supervisor is not `mainstay daemon`: it runs the services of {what} only"
            );
            return Err((StatusCode::METHOD_NOT_ALLOWED, why));
        }
        if self.logs.is_behind() {
            return Err((StatusCode::SERVICE_UNAVAILABLE, LOGS_BEHIND.to_owned()));
        }
        if self.engine.is_shutting_down() {
            let why = Refusal::ShuttingDown.to_string();
            Err((StatusCode::SERVICE_UNAVAILABLE, why))
        } else {
            let is_tried = |name: &&&str| {
                let id = self.engine.find(name);
                id.is_some_and(|id| self.engine.trial(id).is_some())
            };
            let tried = names.iter().find(is_tried);
            let why = tried.map(|name| format!("{name}: {}", Refusal::Updating));
            why.map_or(Ok(()), |why| Err((StatusCode::LOCKED, why)))
        }
    }

    /// Creates the resources of new services before the services become visible.
    fn prepare(
        &mut self,
        changed: &[(Definition, Option<mainstay_sys::User>)],
        opened: &mut Vec<(mainstay_core::spec::ServiceName, super::LogEnds)>,
    ) -> Result<(), Refused> {
        for (Definition { spec, dir, .. }, user) in changed {
            let name = spec.name();
            if self.engine.find(name.as_str()).is_some() {
                continue;
            }
            // An earlier service of this name may have left unread output.
            self.logs.close_pipes(name);
            let made = self.logs.make(name, spec.log(), user.as_ref());
            let log = made.and_then(|pipes| self.logs.open(name, spec.log(), dir, pipes));
            let log = log.map_err(|error| failed("open the log of", name.as_str(), &error))?;
            opened.push((name.clone(), log));
            let data_dir = self.state.create_data_dir(name.as_str(), user.as_ref());
            data_dir
                .map_err(|error| failed("create the data directory of", name.as_str(), &error))?;
        }
        if !opened.is_empty() {
            let runtime = self.runtimes.values().map(|runtime| &runtime.log);
            let kept = self
                .logs
                .keep(runtime.chain(opened.iter().map(|(_, log)| log)));
            kept.map_err(|error| failed("start the keeper of", "pipes", &error))?;
        }
        Ok(())
    }

    /// Applies the next definition of a service that has no processes, as the engine already has.
    pub(super) fn take_up_successor(&mut self, id: ServiceId) {
        let Some(runtime) = self
            .runtimes
            .get_mut(&id)
            .filter(|runtime| runtime.running.is_none())
        else {
            return;
        };
        let Some(Successor { definition, user }) = runtime.next.take() else {
            return;
        };
        runtime.is_updated = false;
        let Definition { spec, dir, .. } = &definition;
        let name = spec.name().clone();
        let is_same_log =
            runtime.spec.log() == spec.log() && runtime.dir == *dir && runtime.user == user;
        let owner = other(&user);
        let log = (!is_same_log).then(|| self.logs.replace(spec, dir, owner));
        let data_dir = self.state.create_data_dir(name.as_str(), owner);
        (runtime.spec, runtime.dir) = (definition.spec, definition.dir);
        (runtime.version, runtime.user) = (definition.version, user);
        runtime.digest = definition.digest;
        let mut problems = Vec::new();
        match log {
            Some(Ok(log)) => runtime.log = log,
            Some(Err(error)) => problems.push(format!(
                "its new log cannot be opened: {error}; the old log remains in use"
            )),
            None => {}
        }
        if !is_same_log {
            let kept = self
                .logs
                .keep(self.runtimes.values().map(|runtime| &runtime.log));
            let why = "if this daemon is killed, further output of the service is lost";
            problems.extend(
                kept.err()
                    .map(|error| format!("its log pipes cannot be preserved: {error}; {why}")),
            );
        }
        let why = data_dir.err();
        problems.extend(why.map(|error| format!("cannot create its data directory: {error}")));
        for problem in problems {
            self.reporter.notify(&format!("{name}: {problem}"));
        }
    }

    /// Stops these services and removes them. Missing services are ignored. Responds when nothing
    /// is left of them.
    pub(super) fn forget(&mut self, names: &[&str], reply: oneshot::Sender<Reply>) {
        if let Err((status, why)) = self.refuse_changes(names) {
            let _ = reply.send(Reply::error(status, &why));
            return;
        }
        let ids = names.iter().filter_map(|name| self.engine.find(name));
        let ids: Vec<ServiceId> = ids.collect();
        match self.engine.remove(&ids) {
            Ok(()) => self.forgotten(&ids, reply),
            Err((id, refusal @ Refusal::Needed(_))) => {
                let why = format!("{}: {refusal}", self.name(id));
                let _ = reply.send(Reply::error(StatusCode::CONFLICT, &why));
            }
            Err(_) if self.merge_removals(&ids) => {
                let why = "too many removals are waiting for services to stop: try again later";
                let _ = reply.send(Reply::error(StatusCode::SERVICE_UNAVAILABLE, why));
            }
            Err(_) => {
                let actions = self.engine.stop(&ids, self.now());
                self.requested(Waiter::for_removal(ids, reply), actions);
            }
        }
    }

    /// Removes services that have settled.
    pub(super) fn remove(&mut self, ids: &[ServiceId], reply: oneshot::Sender<Reply>) {
        match self.engine.remove(ids) {
            Ok(()) => self.forgotten(ids, reply),
            Err((id, refusal)) => {
                let why = format!("{} was not removed: {refusal}", self.name(id));
                let _ = reply.send(Reply::error(StatusCode::CONFLICT, &why));
            }
        }
    }

    /// Releases the resources of services that the engine has removed.
    fn forgotten(&mut self, ids: &[ServiceId], reply: oneshot::Sender<Reply>) {
        for helper in self.helpers.values() {
            let is_request = matches!(helper.purpose, Purpose::Webhook(_));
            if ids.contains(&helper.service) && !is_request {
                // If this fails, its time limit ends it.
                let _ = helper.tree.kill();
            }
        }
        let mut gone: Vec<ServiceRuntime> = ids
            .iter()
            .filter_map(|id| self.runtimes.remove(id))
            .collect();
        for runtime in &mut gone {
            if let Some(taking) = runtime.snapshot.take() {
                taking.removed();
            }
        }
        let done = Reply::document(&serde_json::json!({}));
        let Some((last, others)) = gone.split_last() else {
            return drop(reply.send(done));
        };
        let meaning = "what it ran is stopped; uninstall it again when it does";
        let respond = unless_logs_hang(&self.state.logs_dir(), reply, meaning);
        for runtime in others {
            self.logs.forget(runtime.spec.name(), || {});
        }
        // The log thread processes requests in order: when the files of the last service are
        // closed, so are all others. Then those of its events are closed.
        let events = self.events.clone();
        self.logs.forget(last.spec.name(), move || {
            events.settle(move || respond(done));
        });
        for runtime in &gone {
            self.reporter
                .notify(&format!("{}: removed", runtime.spec.name()));
        }
        for runtime in gone {
            mainstay_sys::forget_service(&self.processes, runtime.spec.name().as_str());
        }
        if let Err(error) = self
            .logs
            .keep(self.runtimes.values().map(|runtime| &runtime.log))
        {
            self.reporter.notify(&format!(
                "cannot start the keeper of the log pipes: {}",
                chain(&error)
            ));
        }
        self.begin_ledger(None);
        self.settle_soon();
    }

    /// Returns the service's name, for messages.
    pub(super) fn name(&self, id: ServiceId) -> &str {
        let runtime = self.runtimes.get(&id);
        runtime.map_or("the service", |runtime| runtime.spec.name().as_str())
    }

    /// Schedules the release of resources that were needed only for a change.
    fn settle_soon(&mut self) {
        self.settles_at = Some(std::time::Instant::now() + SETTLED);
    }
}
