//! Clients that wait until services have settled.

use hyper::StatusCode;
use mainstay_core::engine::{Action, Request, ServiceId};
use mainstay_core::report::StatusReport;
use tokio::sync::oneshot;

use super::Dispatcher;
use crate::host::control::Reply;
use crate::host::effects::Effects;

/// The limit of pending requests. Beyond those of connected clients, removals stay pending after
/// their clients have disconnected.
pub(super) const MOST_WAITERS: usize = 256;

/// The clients that wait.
#[derive(Default)]
pub(super) struct Clients(Vec<Waiter>);

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
pub(super) enum Form {
    /// The entry of the single service.
    Entry,
    /// A document with the entries of all requested services.
    Document,
    /// The same, with every service that exists at the time of the response.
    Status,
}

impl Form {
    /// Returns the form of the response to a request that names these services.
    pub(super) fn of(ids: &[ServiceId]) -> Self {
        match ids {
            [_] => Self::Entry,
            _ => Self::Document,
        }
    }
}

impl Waiter {
    pub(super) fn for_request(
        (ids, request, form): (Vec<ServiceId>, Request, Form),
        needs: Vec<ServiceId>,
        reply: oneshot::Sender<Reply>,
    ) -> Self {
        let on = On::Services(ids, request, form);
        Self { on, needs, reply }
    }

    pub(super) fn for_removal(ids: Vec<ServiceId>, reply: oneshot::Sender<Reply>) -> Self {
        let (on, needs) = (On::Removal(ids), Vec::new());
        Self { on, needs, reply }
    }
}

impl Clients {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Drops removals that are part of this one and whose clients have disconnected. Returns
    /// whether the limit of pending requests is still reached.
    pub(super) fn merge_removals(&mut self, ids: &[ServiceId]) -> bool {
        self.0.retain(|waiter| match &waiter.on {
            On::Removal(earlier) if waiter.reply.is_closed() => {
                !earlier.iter().all(|id| ids.contains(id))
            }
            _ => true,
        });
        self.0.len() >= MOST_WAITERS
    }

    /// Moves the waiters of a service to its new ID.
    pub(super) fn pass_on(&mut self, from: ServiceId, to: ServiceId) {
        for waiter in &mut self.0 {
            let ids = match &mut waiter.on {
                On::Services(ids, ..) | On::Removal(ids) => ids,
            };
            for id in ids.iter_mut().filter(|id| **id == from) {
                *id = to;
            }
        }
    }
}

impl<E: Effects> Dispatcher<E> {
    /// Performs the actions of a request, whose client waits for the services to settle.
    pub(super) fn requested(&mut self, waiter: Waiter, actions: Vec<Action>) {
        self.clients.0.push(waiter);
        self.perform(actions);
        // The desired state of the service and its dependencies may have changed without any other
        // event.
        self.record_all();
    }

    /// Responds to the clients whose services have settled.
    pub(super) fn answer_waiters(&mut self) {
        for waiter in std::mem::take(&mut self.clients.0) {
            let rests = |id: ServiceId| self.engine.has_settled(id);
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
                    self.clients.0.push(Waiter { on, needs, reply });
                    continue;
                }
            };
            if let Some(answer) = answer {
                let _ = reply.send(answer);
            } else if !reply.is_closed() {
                self.clients.0.push(Waiter { on, needs, reply });
            }
        }
    }

    /// Returns the response to a request that was superseded by its opposite.
    fn overtaken(&self, id: ServiceId, request: Request) -> Option<Reply> {
        let is_wanted = self.engine.is_wanted(id);
        let is_tried = self.engine.trial(id).is_some();
        let name = self.services.get(&id)?.spec.name();
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
}
