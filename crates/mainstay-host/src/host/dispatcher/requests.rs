//! Requests from clients of the control socket.

use hyper::StatusCode;
use mainstay_api::{About, OPENAPI, Reach, Route};
use mainstay_core::engine::{
    Fact, Launch, Operation, Principal, Refusal, Request, ServiceId, StateName,
};
use mainstay_core::registry::TextDigest;
use mainstay_core::suggest::did_you_mean;
use tokio::sync::oneshot;

use super::Dispatcher;
use super::changes::Pending;
use super::clients::{Form, Waiter};
use crate::host::control::{Command, Conditions, Reply, Unmet};
use crate::host::effects::Effects;

/// The reason for refusing requests that involve the log thread.
pub(in crate::host) const LOGS_BEHIND: &str =
    "log writes are delayed because the disk does not respond: try again later";

/// Returns the hint for a request that is not valid in this state of a service.
fn hint_in(state: StateName, name: &str) -> Option<String> {
    (state == StateName::Paused).then(|| format!("resume it: mainstay continue {name}"))
}

impl<E: Effects> Dispatcher<E> {
    /// Performs a command, unless its sender has disconnected.
    pub(in crate::host) fn commanded(&mut self, command: Command) {
        if command.reply.is_closed() {
            return;
        }
        match self.unmet(command.conditions.as_ref(), &command.route) {
            Some(unmet) => drop(command.reply.send(unmet)),
            None => {
                self.engine.set_request(command.trace.clone());
                self.operate(command);
                self.engine.set_request(None);
            }
        }
    }

    fn operate(&mut self, command: Command) {
        let Command {
            route,
            principal,
            trace,
            conditions,
            body,
            listener,
            reply,
        } = command;
        if let Some(operation) = route.operation() {
            self.tell_request(&route, operation, &principal);
        }
        match route {
            Route::About => {
                let _ = reply.send(Reply::document(&About {
                    containment: self.effects.containment(),
                    manifest: self.about.manifest.clone(),
                    pid: std::process::id(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                }));
            }
            Route::OpenApi => {
                let _ = reply.send(Reply::new(StatusCode::OK, OPENAPI.to_owned()));
            }
            Route::Status => {
                let _ = reply.send(Reply::document(&self.status()));
            }
            Route::Entry { name } => {
                let _ = reply.send(match self.engine.find(&name) {
                    Some(id) => Reply {
                        etag: Some(self.etag(id).to_owned()),
                        ..self.entry(id)
                    },
                    None => self.unknown(&name),
                });
            }
            Route::StopAll => {
                let all: Vec<ServiceId> = self.engine.ids().collect();
                self.stopped_by_name(&all);
                let actions = self.engine.request_stop_of_all(self.now());
                let on = (all, Request::Stop, Form::Status);
                self.requested(Waiter::for_request(on, Vec::new(), reply), actions);
            }
            Route::Events => self.subscribe(listener, reply),
            Route::Reload { name } => drop(reply.send(self.request_reload(&name))),
            Route::Define { .. } => self.define(Pending::new(route, trace, conditions, reply)),
            Route::Update { .. } => {
                self.update(Pending::new(route, trace, conditions, reply), body);
            }
            Route::Decide { name, decision } => {
                let _ = reply.send(match self.engine.find(&name) {
                    Some(id) => self.decide(id, decision),
                    None => self.unknown(&name),
                });
            }
            Route::Forget { names, .. } => self.forget(&names, reply),
            Route::Snapshot { name } => match self.engine.find(&name) {
                Some(id) => self.request_snapshot(id, reply),
                None => drop(reply.send(self.unknown(&name))),
            },
            Route::RotateLog { name } => match self.engine.find(&name) {
                Some(_) if self.effects.are_logs_behind() => {
                    let behind = Reply::error(StatusCode::SERVICE_UNAVAILABLE, LOGS_BEHIND);
                    let _ = reply.send(behind);
                }
                Some(id) => self.effects.rotate_log(id, Some(reply)),
                None => drop(reply.send(self.unknown(&name))),
            },
            Route::Stop { names, reach } => self.stop(&names, reach, reply),
            Route::Request { names, request } => self.request(&names, request, reply),
        }
    }

    /// Records who requested a change of the services, for their events.
    fn tell_request(&mut self, route: &Route, operation: Operation, by: &Principal) {
        let ids: Vec<ServiceId> = match route {
            Route::StopAll => self.engine.ids().collect(),
            _ => {
                let names = route.names().iter();
                names.filter_map(|name| self.engine.find(name)).collect()
            }
        };
        for id in ids {
            let principal = by.clone();
            let trace = self.engine.request_context().cloned();
            let fact = Fact::Requested {
                operation,
                principal,
                trace,
            };
            self.emit(id, &fact);
        }
    }

    fn request_reload(&mut self, name: &str) -> Reply {
        let Some(id) = self.engine.find(name) else {
            return self.unknown(name);
        };
        match self.reload(id) {
            Ok(()) => self.entry(id),
            Err(why) => {
                let state = self.engine.view(id).map(|view| view.state);
                let hint = state.and_then(|state| hint_in(state, name));
                Reply::hinted(StatusCode::CONFLICT, &why.to_string(), hint)
            }
        }
    }

    /// Returns the entity tag of a service's definition: the one it is running with, or will have
    /// from its next start on. Empty if unknown.
    fn etag(&self, id: ServiceId) -> &str {
        let service = self.services.get(&id);
        let digest = service.and_then(|service| service.latest_digest());
        digest.map_or("", TextDigest::as_str)
    }

    /// Returns the response if one of the services does not meet the client's conditions.
    pub(super) fn unmet(&self, conditions: Option<&Conditions>, route: &Route) -> Option<Reply> {
        let conditions = conditions?;
        route.names().iter().find_map(|name| {
            let current = self.engine.find(name).map(|id| self.etag(id));
            let unmet = conditions.check(current)?;
            let reply = match (unmet, route) {
                (Unmet::NoneMatch, Route::Entry { .. }) => {
                    Reply::new(StatusCode::NOT_MODIFIED, String::new())
                }
                _ => {
                    let why = match current {
                        Some(_) => format!("the definition of {name} does not match the condition"),
                        None => format!("no service {name}"),
                    };
                    Reply::error(StatusCode::PRECONDITION_FAILED, &why)
                }
            };
            let etag = current.map(str::to_owned);
            Some(Reply { etag, ..reply })
        })
    }

    /// Stops services together, dependents before their dependencies.
    fn stop(&mut self, names: &[String], reach: Reach, reply: oneshot::Sender<Reply>) {
        let ids = match self.named(names) {
            Ok(ids) => ids,
            Err(unknown) => return drop(reply.send(unknown)),
        };
        let now = self.now();
        let form = match reach {
            Reach::Named => Form::of(&ids),
            Reach::WithDependents => Form::Document,
        };
        let (ids, actions) = match reach {
            // The service manager needs to see the service down, and is not notified of anything
            // but the end of this process.
            _ if self.about.manager.is_some() => (ids, self.engine.stop_all(now)),
            Reach::WithDependents => self.engine.stop_with_dependents(&ids, now),
            Reach::Named => {
                let actions = self.engine.stop(&ids, now);
                (ids, actions)
            }
        };
        self.stopped_by_name(&ids);
        let on = (ids, Request::Stop, form);
        self.requested(Waiter::for_request(on, Vec::new(), reply), actions);
    }

    /// Returns the services with these names, or the response if one does not exist.
    fn named(&self, names: &[String]) -> Result<Vec<ServiceId>, Reply> {
        let find = |name: &String| self.engine.find(name).ok_or_else(|| self.unknown(name));
        names.iter().map(find).collect()
    }

    fn stopped_by_name(&mut self, ids: &[ServiceId]) {
        for id in ids {
            if let Some(service) = self.services.get_mut(id) {
                service.is_stopped = true;
            }
        }
    }

    /// Starts or restarts services together, in dependency order; or performs another request on a
    /// single service.
    fn request(&mut self, names: &[String], request: Request, reply: oneshot::Sender<Reply>) {
        let ids = match self.named(names) {
            Ok(ids) => ids,
            Err(unknown) => return drop(reply.send(unknown)),
        };
        let now = self.now();
        let done = match (request, ids.as_slice()) {
            (Request::Start, ids) => self.engine.start(ids, Launch::IfDown, now),
            (Request::Restart, ids) => self.engine.start(ids, Launch::Afresh, now),
            (_, [id]) => {
                let done = self.engine.request(*id, request, now);
                done.map_err(|refusal| (*id, refusal))
            }
            _ => {
                let why = format!("{request} applies to one service only");
                return drop(reply.send(Reply::error(StatusCode::BAD_REQUEST, &why)));
            }
        };
        match done {
            Ok(actions) => {
                // A dependency that was stopping is started with the services, and must be up
                // before the request is done.
                let needs = match request {
                    Request::Start | Request::Restart => self.engine.with_needs(&ids),
                    _ => Vec::new(),
                };
                let form = Form::of(&ids);
                let on = (ids, request, form);
                self.requested(Waiter::for_request(on, needs, reply), actions);
            }
            Err((id, refusal)) => {
                let name = self.name(id);
                let words = match ids.as_slice() {
                    [_] => refusal.to_string(),
                    _ => format!("{name}: {refusal}"),
                };
                let hint = match refusal {
                    Refusal::State(state) => hint_in(state, name),
                    _ => None,
                };
                drop(reply.send(Reply::refused_in_words(&refusal, &words, hint)));
            }
        }
    }

    pub(super) fn unknown(&self, name: &str) -> Reply {
        let about = &self.about;
        let message = match about.daemon {
            Some(_) => format!("no service named {name} is installed"),
            None if about.left_out.iter().any(|it| it == name) => format!(
                "this supervisor was started without {name}; run {} without names, or add {name}",
                about.manifest
            ),
            None => format!("{} has no service {name}", about.manifest),
        };
        let specs = self.engine.ids().filter_map(|id| self.engine.spec(id));
        let near = did_you_mean(name, specs.map(|spec| spec.name().as_str()));
        Reply::hinted(StatusCode::NOT_FOUND, &message, near)
    }
}
