//! Requests from clients of the control socket, handled by the host.

use std::path::Path;
use std::time::Duration;

use hyper::StatusCode;
use mainstay_core::engine::{Action, Human, Launch, Refusal, Request, ServiceId, StateName, Style};
use mainstay_core::failure::{Code, chain};
use mainstay_core::registry::TextDigest;
use mainstay_core::report::{ServiceReport, StatusReport, SupervisorReport, UpdateReport};
use tokio::sync::oneshot;

use super::Host;
use super::control::{Command, Conditions, Reply, Unmet};
use mainstay_api::{About, Reach, Route};

/// The reason for refusing requests that involve the log thread.
pub(super) const LOGS_BEHIND: &str =
    "log writes are delayed because the disk does not respond: try again later";

/// The longest wait of a client for the log thread.
const LOG_TIMEOUT: Duration = mainstay_logs::HANGS;

/// The limit of pending requests. Beyond those of connected clients, removals stay pending after
/// their clients have disconnected.
const MOST_WAITERS: usize = 256;

/// Returns the function by which the log thread sends a response. If the thread does not respond in
/// time, because the disk of `logs_dir` hangs, the client is told so, and what that means for it.
pub(super) fn unless_logs_hang(
    logs_dir: &Path,
    reply: oneshot::Sender<Reply>,
    meaning: &str,
) -> impl FnOnce(Reply) + Send + 'static {
    let late = format!(
        "the disk of {} did not respond for {}: {meaning}",
        logs_dir.display(),
        Human(LOG_TIMEOUT)
    );
    let (respond, response) = oneshot::channel();
    tokio::task::spawn_local(async move {
        let response = match tokio::time::timeout(LOG_TIMEOUT, response).await {
            Ok(Ok(response)) => response,
            // The supervisor ends.
            Ok(Err(_)) => return,
            Err(_) => Reply::error(StatusCode::SERVICE_UNAVAILABLE, &late),
        };
        let _ = reply.send(response);
    });
    move |response| drop(respond.send(response))
}

/// Returns the hint for a request that is not valid in this state of a service.
fn hint_in(state: StateName, name: &str) -> Option<String> {
    (state == StateName::Paused).then(|| format!("resume it: mainstay continue {name}"))
}

/// A client that waits until services have settled.
pub(super) struct Waiter {
    on: On,
    /// The dependencies of these services that have not settled since the request.
    needs: Vec<ServiceId>,
    reply: oneshot::Sender<Reply>,
}

enum On {
    /// Services, the request and the form of the response.
    Services(Vec<ServiceId>, Request, Form),
    /// Services to remove when they have settled.
    Removal(Vec<ServiceId>),
}

/// The form of a response.
#[derive(Clone, Copy)]
enum Form {
    /// The entry of the single service.
    Entry,
    /// A document with the entries of all requested services.
    Document,
    /// The same, with every service that exists at the time of the response.
    Status,
}

impl Form {
    /// Returns the form of the response to a request that names these services.
    fn of(ids: &[ServiceId]) -> Self {
        match ids {
            [_] => Self::Entry,
            _ => Self::Document,
        }
    }
}

impl Waiter {
    pub(super) fn for_removal(ids: Vec<ServiceId>, reply: oneshot::Sender<Reply>) -> Self {
        let (on, needs) = (On::Removal(ids), Vec::new());
        Self { on, needs, reply }
    }
}

impl Host {
    /// Performs a command, unless its sender has disconnected.
    pub(super) fn commanded(&mut self, command: Command) {
        if command.reply.is_closed() {
            return;
        }
        let conditions = command.conditions.as_ref();
        match conditions.and_then(|it| self.unmet(it, &command.route)) {
            Some(unmet) => drop(command.reply.send(unmet)),
            None => self.operate(command),
        }
    }

    fn operate(&mut self, command: Command) {
        let Command {
            route,
            body,
            listener,
            reply,
            ..
        } = command;
        match route {
            Route::About => {
                let _ = reply.send(Reply::document(&About {
                    containment: self.processes.containment().to_string(),
                    manifest: self.manifest.clone(),
                    pid: std::process::id(),
                    version: env!("CARGO_PKG_VERSION"),
                }));
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
                let on = On::Services(all, Request::Stop, Form::Status);
                let needs = Vec::new();
                self.requested(Waiter { on, needs, reply }, actions);
            }
            Route::Events => self.subscribe(listener, reply),
            Route::Reload { name } => drop(reply.send(self.request_reload(&name))),
            Route::Define { names, .. } => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let _ = reply.send(match self.define(&names) {
                    Ok(report) => Reply::document(&report),
                    Err((status, why)) => Reply::error(status, &why),
                });
            }
            Route::Update { name } => self.update(&name, &body, reply),
            Route::Decide { name, decision } => {
                let _ = reply.send(match self.engine.find(&name) {
                    Some(id) => self.decide(id, decision),
                    None => self.unknown(&name),
                });
            }
            Route::Forget { names, .. } => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.forget(&names, reply);
            }
            Route::Snapshot { name } => match self.engine.find(&name) {
                Some(id) => self.request_snapshot(id, reply),
                None => drop(reply.send(self.unknown(&name))),
            },
            Route::RotateLog { name } => match self.engine.find(&name) {
                Some(id) => self.rotate_log(id, reply),
                None => drop(reply.send(self.unknown(&name))),
            },
            Route::Stop { names, reach } => self.stop(&names, reach, reply),
            Route::Request { names, request } => self.request(&names, request, reply),
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
                Reply::hinted(StatusCode::CONFLICT, &why, hint)
            }
        }
    }

    /// Returns the entity tag of a service's definition: the one it is running with, or will have
    /// from its next start on. Empty if unknown.
    fn etag(&self, id: ServiceId) -> &str {
        let digest = self
            .runtimes
            .get(&id)
            .and_then(|runtime| match &runtime.next {
                Some(next) => next.definition.digest.as_ref(),
                None => runtime.digest.as_ref(),
            });
        digest.map_or("", TextDigest::as_str)
    }

    /// Returns the response if one of the services does not meet the client's conditions.
    fn unmet(&self, conditions: &Conditions, route: &Route) -> Option<Reply> {
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

    /// Rotates a service's log. The log thread sends the response.
    fn rotate_log(&self, id: ServiceId, reply: oneshot::Sender<Reply>) {
        let Some(runtime) = self.runtimes.get(&id) else {
            return drop(reply.send(Reply::refused(&Refusal::Removed)));
        };
        if self.logs.is_behind() {
            return drop(reply.send(Reply::error(StatusCode::SERVICE_UNAVAILABLE, LOGS_BEHIND)));
        }
        let meaning = "the log is rotated when it does";
        let respond = unless_logs_hang(&self.state.logs_dir(), reply, meaning);
        self.logs.rotate(runtime.spec.name(), move |result| {
            respond(match result {
                Ok(()) => Reply::document(&serde_json::json!({})),
                Err(file_error) => {
                    Reply::error(StatusCode::INTERNAL_SERVER_ERROR, &chain(&file_error))
                }
            });
        });
    }

    /// Stops services together, dependents before their dependencies.
    fn stop(&mut self, names: &[String], reach: Reach, reply: oneshot::Sender<Reply>) {
        let mut ids = match self.named(names) {
            Ok(ids) => ids,
            Err(unknown) => return drop(reply.send(unknown)),
        };
        let form = match reach {
            Reach::Named => Form::of(&ids),
            Reach::WithDependents => Form::Document,
        };
        if reach == Reach::WithDependents {
            ids = self.engine.with_dependents(&ids);
        }
        self.stopped_by_name(&ids);
        let actions = if self.has_manager {
            // The service manager needs to see the service down, and is not notified of anything
            // but the end of this process.
            self.engine.stop_all(self.now())
        } else {
            self.engine.stop(&ids, self.now())
        };
        let (on, needs) = (On::Services(ids, Request::Stop, form), Vec::new());
        self.requested(Waiter { on, needs, reply }, actions);
    }

    /// Returns the services with these names, or the response if one does not exist.
    fn named(&self, names: &[String]) -> Result<Vec<ServiceId>, Reply> {
        let find = |name: &String| self.engine.find(name).ok_or_else(|| self.unknown(name));
        names.iter().map(find).collect()
    }

    fn stopped_by_name(&mut self, ids: &[ServiceId]) {
        for id in ids {
            if let Some(runtime) = self.runtimes.get_mut(id) {
                runtime.is_stopped = true;
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
                let on = On::Services(ids, request, form);
                self.requested(Waiter { on, needs, reply }, actions);
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

    /// Drops removals that are part of this one and whose clients have disconnected. Returns
    /// whether the limit of pending requests is still reached.
    pub(super) fn merge_removals(&mut self, ids: &[ServiceId]) -> bool {
        self.waiters.retain(|waiter| match &waiter.on {
            On::Removal(earlier) if waiter.reply.is_closed() => {
                !earlier.iter().all(|id| ids.contains(id))
            }
            _ => true,
        });
        self.waiters.len() >= MOST_WAITERS
    }

    pub(super) fn requested(&mut self, waiter: Waiter, actions: Vec<Action>) {
        self.waiters.push(waiter);
        self.perform(actions);
        // The desired state of the service and its dependencies may have changed without any other
        // event.
        self.engine.ids().for_each(|id| self.record(id));
    }

    /// Moves the waiters of a service to its new ID.
    pub(super) fn pass_waiters_on(&mut self, from: ServiceId, to: ServiceId) {
        for waiter in &mut self.waiters {
            let ids = match &mut waiter.on {
                On::Services(ids, ..) | On::Removal(ids) => ids,
            };
            for id in ids.iter_mut().filter(|id| **id == from) {
                *id = to;
            }
        }
    }

    pub(super) fn unknown(&self, name: &str) -> Reply {
        let message = match self.daemon {
            Some(_) => format!("no service named {name} is installed"),
            None if self.left_out.iter().any(|it| it == name) => format!(
                "this supervisor was started without {name}; run {} without names, or add {name}",
                self.manifest
            ),
            None => format!("{} has no service {name}", self.manifest),
        };
        Reply::error(StatusCode::NOT_FOUND, &message)
    }

    /// Responds to the clients whose services have settled. A backoff counts: the attempt has
    /// failed, and the client needs to be informed.
    pub(super) fn answer_waiters(&mut self) {
        for waiter in std::mem::take(&mut self.waiters) {
            let rests = |id: ServiceId| {
                let is_tried = self.engine.trial(id).is_some();
                // A service that another client removed counts as settled.
                !is_tried
                    && self.engine.view(id).is_none_or(|view| match view.state {
                        StateName::BackingOff => true,
                        StateName::Waiting => self.engine.is_stuck(id),
                        state => state.is_settled(),
                    })
            };
            let Waiter {
                on,
                mut needs,
                reply,
            } = waiter;
            needs.retain(|need| !rests(*need));
            let answer = match &on {
                On::Services(ids, request, form) => {
                    let overtaken = ids.iter().find_map(|id| self.overtaken(*id, *request));
                    overtaken.or_else(|| {
                        let rest = needs.is_empty() && ids.iter().copied().all(rests);
                        rest.then(|| self.document(ids, *form))
                    })
                }
                // Removals are completed even if their client has disconnected.
                On::Removal(ids) if ids.iter().all(|id| rests(*id)) => {
                    let mut ids = ids.clone();
                    ids.retain(|id| self.engine.has(*id));
                    self.remove(&ids, reply);
                    continue;
                }
                On::Removal(_) => {
                    self.waiters.push(Waiter { on, needs, reply });
                    continue;
                }
            };
            if let Some(answer) = answer {
                let _ = reply.send(answer);
            } else if !reply.is_closed() {
                self.waiters.push(Waiter { on, needs, reply });
            }
        }
    }

    /// Returns the response to a request that was superseded by its opposite.
    fn overtaken(&self, id: ServiceId, request: Request) -> Option<Reply> {
        let is_wanted = self.engine.is_wanted(id);
        let is_tried = self.engine.trial(id).is_some();
        let name = self.runtimes.get(&id)?.spec.name();
        let why = match request {
            Request::Stop if is_wanted => {
                format!("superseded by a start: {name} was started again before it had stopped")
            }
            Request::Start | Request::Restart if !is_wanted && !is_tried => {
                format!("superseded by a stop: {name} was stopped before it was ready")
            }
            _ => return None,
        };
        Some(Reply::error(StatusCode::CONFLICT, &why))
    }

    fn document(&self, ids: &[ServiceId], form: Form) -> Reply {
        match (form, ids) {
            (Form::Entry, [id]) => self.entry(*id),
            (Form::Status, _) => Reply::document(&self.status()),
            _ => Reply::document(&StatusReport {
                supervisor: None,
                services: ids.iter().filter_map(|id| self.report(*id)).collect(),
            }),
        }
    }

    /// Returns the status of the supervisor and of every service.
    pub(super) fn status(&self) -> StatusReport {
        StatusReport {
            supervisor: Some(SupervisorReport {
                pid: std::process::id(),
                alive: true,
                problem: self.ledger_problem(),
            }),
            services: self.engine.ids().filter_map(|id| self.report(id)).collect(),
        }
    }

    /// Returns a service's entry, as a response.
    pub(super) fn entry(&self, id: ServiceId) -> Reply {
        match self.report(id) {
            Some(report) => Reply::document(&report),
            None => Reply::refused(&Refusal::Removed),
        }
    }

    /// Returns the report of a service, unless it was removed.
    pub(super) fn report(&self, id: ServiceId) -> Option<ServiceReport> {
        let trial = self.engine.trial(id);
        // A candidate that runs in place of the service is shown as the service.
        let in_its_place = trial.filter(|trial| trial.style == Style::Restart);
        let in_its_place = in_its_place.and_then(|trial| trial.candidate);
        let is_up = |candidate: &ServiceId| {
            let view = self.engine.view(*candidate);
            view.is_some_and(|view| view.run.is_some())
        };
        let shown = in_its_place.filter(is_up).unwrap_or(id);
        let view = self.engine.view(shown)?;
        let runtime = self.runtimes.get(&id)?;
        let (since, ago) = (
            self.clock.calendar(view.since),
            self.now().since(view.since),
        );
        let next_try = view.next_try;
        let mut report =
            ServiceReport::new(runtime.spec.name().as_str(), view, since, ago.as_secs());
        report.next_try = next_try.map(|at| self.clock.calendar(at));
        report.next_try_seconds = next_try.map(|at| at.since(self.now()).as_secs());
        report.update = trial.map(|trial| {
            let view = trial.candidate.and_then(|id| self.engine.view(id));
            UpdateReport {
                phase: trial.phase,
                style: trial.style,
                state: view.as_ref().map_or(StateName::Stopped, |view| view.state),
                pid: view.and_then(|view| view.pid),
            }
        });
        if !self.engine.is_wanted(id) {
            let names = self.engine.running_dependents(id).into_iter();
            report.needed_by = names.map(|name| name.to_string()).collect();
        }
        let problems = runtime
            .log_problems
            .values()
            .chain(runtime.sink_problems.values());
        let problems: Vec<&str> = problems.map(String::as_str).collect();
        report.log_problem = (!problems.is_empty()).then(|| problems.join("; "));
        let unreadable = runtime.user.as_ref().err();
        report.state_problem = runtime.desired_problem.as_ref().or(unreadable).cloned();
        let version = runtime
            .next
            .as_ref()
            .map_or(runtime.version, |next| next.definition.version);
        report.version = (version > 0).then_some(version);
        let runtime = self.runtimes.get(&shown)?;
        report.definition_digest = match &runtime.running {
            Some(running) => running.digest.clone(),
            None => runtime.digest.clone(),
        };
        report.start_code = runtime.lacks_part.then_some(Code::MissingPart as u8);
        if let Some(usage) = runtime.running.as_ref().and_then(|it| it.tree.usage()) {
            report.cpu_ms = u64::try_from(usage.cpu.as_millis()).ok();
            report.memory_bytes = Some(usage.resident);
        }
        Some(report)
    }
}
