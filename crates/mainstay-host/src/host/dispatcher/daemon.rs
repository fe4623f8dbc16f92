//! The features that the embedded service manager adds to a supervisor: services are added, changed
//! and removed while others keep running; SIGHUP is passed on to services; the exit code covers all
//! services.
//!
//! An installer writes the files first (`deploy/embedded.rs`), then names the services here. Either
//! all of their definitions are loaded or none.

use std::sync::Arc;

use hyper::StatusCode;
use mainstay_core::engine::{Fact, KillReason, Refusal, ServiceId, StateName};
use mainstay_core::report::StatusReport;
use mainstay_store::embedded::Definition;

use super::Dispatcher;
use super::requests::LOGS_BEHIND;
use super::service::Service;
use crate::host::effects::{Effects, Loaded, Refused, ToParent};

/// The manager of the services installed in a state directory.
pub(in crate::host) struct Daemon {
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
    pub(in crate::host) fn new(exits_when_done: bool, problems: Vec<String>) -> Self {
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

fn conflict(why: impl ToString) -> Refused {
    (StatusCode::CONFLICT, why.to_string())
}

impl<E: Effects> Dispatcher<E> {
    pub(in crate::host) fn report_problems(&mut self) {
        let problems = self.about.daemon.iter().flat_map(|daemon| &daemon.problems);
        for problem in problems {
            self.effects.notify(problem);
        }
    }

    /// Tells whoever started us that all that starts with us has, or has failed.
    pub(super) fn tell_parent_when_calm(&mut self) {
        let daemon = self.about.daemon.as_mut();
        if let Some(daemon) = daemon.filter(|daemon| daemon.is_starting)
            && self.engine.is_calm()
        {
            daemon.is_starting = false;
            self.tell_parent(ToParent::Ready);
        }
    }

    fn tell_parent(&mut self, message: ToParent) {
        if let Err(error) = self.effects.tell_parent(message) {
            self.effects.notify(&format!("NOTIFY_SOCKET: {error}"));
        }
    }

    /// Records facts that determine the daemon's exit code.
    pub(super) fn record_outcome(&mut self, id: ServiceId, fact: &Fact) {
        let code = match fact {
            Fact::Halted { .. } => Some(self.failure_of(id).unwrap_or(1)),
            _ => None,
        };
        let is_ending = self.interrupts > 0;
        if let Some(daemon) = &mut self.about.daemon {
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
        if let Some(daemon) = &mut self.about.daemon
            && self.interrupts == 1
        {
            daemon.ends_badly |= any_is_halted;
            self.tell_parent(ToParent::Stopping);
        }
    }

    /// Reloads all services that support it, and leaves the others unchanged.
    pub(super) fn reload_all(&mut self) {
        let mut reloaded = Vec::new();
        for id in self.engine.ids() {
            let Some(service) = self.services.get(&id) else {
                continue;
            };
            let spec = Arc::clone(&service.spec);
            match self.reload(id) {
                Ok(()) => reloaded.push(spec.name().to_string()),
                Err(why) if spec.reload().is_some() => {
                    let text = format!("{}: not reloaded: {why}", spec.name());
                    self.effects.notify(&text);
                }
                Err(_) => {}
            }
        }
        self.effects.notify(&if reloaded.is_empty() {
            "SIGHUP: no service was reloaded".to_owned()
        } else {
            format!("SIGHUP: reload requested: {}", reloaded.join(", "))
        });
    }

    /// Returns the reason that these services cannot be changed now. The control socket has already
    /// checked the registry for another owner.
    pub(super) fn refuse_changes(&self, names: &[String]) -> Result<(), Refused> {
        if self.about.daemon.is_none() {
            let what = &self.about.manifest;
            let why = format!(
                "this supervisor is not `mainstay daemon`: it runs the services of {what} only"
            );
            return Err((StatusCode::METHOD_NOT_ALLOWED, why));
        }
        if self.effects.are_logs_behind() {
            return Err((StatusCode::SERVICE_UNAVAILABLE, LOGS_BEHIND.to_owned()));
        }
        if self.engine.is_shutting_down() {
            let why = Refusal::ShuttingDown.to_string();
            return Err((StatusCode::SERVICE_UNAVAILABLE, why));
        }
        let is_tried = |name: &&String| {
            let id = self.engine.find(name);
            id.is_some_and(|id| self.engine.trial(id).is_some())
        };
        let tried = names.iter().find(is_tried);
        let why = tried.map(|name| format!("{name}: {}", Refusal::Updating));
        why.map_or(Ok(()), |why| Err((StatusCode::LOCKED, why)))
    }

    /// Applies installed definitions that were read. New services are stopped; existing ones use
    /// the new definition from their next start on.
    pub(super) fn apply(
        &mut self,
        names: &[String],
        loaded: Vec<Loaded>,
    ) -> Result<StatusReport, Refused> {
        // This may have changed since the request.
        self.refuse_changes(names)?;
        let changed: Vec<Loaded> = loaded
            .into_iter()
            .filter_map(|it| self.changes(it))
            .collect();
        let prepared = self.prepare(&changed)?;
        let specs = changed.iter().map(|it| Arc::clone(&it.definition.spec));
        let actions = match self.engine.define(specs, self.now()) {
            Ok(actions) => actions,
            Err(misfit) => {
                self.discard(&changed, prepared);
                return Err(conflict(misfit));
            }
        };
        for (loaded, seat) in changed.into_iter().zip(prepared) {
            self.take_up(loaded, seat);
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

    /// Returns the definition, unless its service has it already: an update has applied it, or only
    /// the wording has changed.
    fn changes(&mut self, loaded: Loaded) -> Option<Loaded> {
        let definition = &loaded.definition;
        let id = self.engine.find(definition.spec.name().as_str());
        let Some(service) = id.and_then(|id| self.services.get_mut(&id)) else {
            return Some(loaded);
        };
        let is_same = *service.spec == *definition.spec && service.dir == definition.dir;
        if is_same && service.next.is_none() {
            (service.version, service.is_updated) = (definition.version, false);
            service.reword(definition.digest.clone());
            return None;
        }
        (!service.is_defined_as(definition)).then_some(loaded)
    }

    /// Prepares new services before they become visible: a seat for each, and none for those that
    /// exist. If one cannot be prepared, none is.
    fn prepare(&mut self, changed: &[Loaded]) -> Result<Vec<Option<E::Seat>>, Refused> {
        let mut prepared = Vec::with_capacity(changed.len());
        for Loaded {
            definition, user, ..
        } in changed
        {
            if self.engine.find(definition.spec.name().as_str()).is_some() {
                prepared.push(None);
                continue;
            }
            match self.effects.prepare(definition, &Ok(user.clone())) {
                Ok(seat) => prepared.push(Some(seat)),
                Err(refused) => {
                    self.discard(changed, prepared);
                    return Err(refused);
                }
            }
        }
        if prepared.iter().any(Option::is_some)
            && let Err(error) = self.effects.keep_pipes(&prepared)
        {
            self.discard(changed, prepared);
            let why = format!("cannot start the keeper of pipes: {error}");
            return Err((StatusCode::INTERNAL_SERVER_ERROR, why));
        }
        Ok(prepared)
    }

    fn discard(&mut self, changed: &[Loaded], prepared: Vec<Option<E::Seat>>) {
        for (Loaded { definition, .. }, seat) in changed.iter().zip(prepared) {
            if let Some(seat) = seat {
                self.effects.discard(definition.spec.name(), seat);
            }
        }
    }

    /// Registers a new service, or the next definition of an existing one.
    fn take_up(&mut self, loaded: Loaded, seat: Option<E::Seat>) {
        let name = loaded.definition.spec.name().clone();
        let Some(id) = self.engine.find(name.as_str()) else {
            return;
        };
        for remark in &loaded.remarks {
            self.effects.notify(&format!("{name}: {remark}"));
        }
        if let Some(seat) = seat {
            self.effects.seat(id, seat);
            let service = Service::new(loaded.definition, Ok(loaded.user));
            self.services.insert(id, service);
            self.effects.widen(&name);
            self.effects.notify(&format!("{name}: installed"));
        } else if let Some(service) = self.services.get_mut(&id) {
            service.next = Some(loaded);
            let is_up = service.running.as_mut().map(|run| run.is_outdated = true);
            self.effects.notify(&format!(
                "{name}: changed{}",
                is_up.map_or("", |()| "; restart it to apply the change")
            ));
            // A run that ended without a supervisor may have an exit that is not processed yet.
            if !self.ends.has_run_of(id) {
                self.take_up_successor(id);
            }
        }
    }

    /// Applies the next definition of a service that has no processes, as the engine already has.
    pub(super) fn take_up_successor(&mut self, id: ServiceId) {
        let service = self.services.get_mut(&id);
        let Some(service) = service.filter(|service| service.running.is_none()) else {
            return;
        };
        let Some(Loaded {
            definition, user, ..
        }) = service.next.take()
        else {
            return;
        };
        let account = Ok(user);
        let problems = self.effects.redefine(id, &definition, &account);
        let Definition {
            spec,
            dir,
            version,
            digest,
            ..
        } = definition;
        for problem in problems {
            self.effects.notify(&format!("{}: {problem}", spec.name()));
        }
        service.is_updated = false;
        (service.spec, service.dir, service.version) = (spec, dir, version);
        (service.account, service.digest) = (account, digest);
    }
}
