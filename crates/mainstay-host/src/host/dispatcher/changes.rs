//! Definitions that are being read or checked for a client. Both ask for accounts and look at
//! files, which may hang, so they are done away from the loop.
//!
//! Installed definitions are applied in the order of their requests: of two installations of a
//! service, the later one counts.

use std::collections::VecDeque;

use hyper::StatusCode;
use mainstay_api::Route;
use mainstay_core::trace::TraceContext;
use tokio::sync::oneshot;

use super::Dispatcher;
use super::clients::MOST_WAITERS;
use crate::host::control::{Conditions, Reply};
use crate::host::effects::{Candidate, Effects, Loaded, Refused, Ticket};

/// The requests whose definitions are being read or checked.
#[derive(Default)]
pub(super) struct Changes {
    /// Requests to load installed definitions, in order.
    loads: VecDeque<Load>,
    /// Requests to try a new definition.
    checks: Vec<Check>,
}

/// A request that is performed later. Its conditions must hold then, too.
pub(super) struct Pending {
    route: Route,
    trace: Option<TraceContext>,
    conditions: Option<Conditions>,
    reply: oneshot::Sender<Reply>,
}

struct Load {
    ticket: Ticket,
    pending: Pending,
    /// Set when the definitions were read.
    loaded: Option<Result<Vec<Loaded>, Refused>>,
}

struct Check {
    ticket: Ticket,
    pending: Pending,
}

impl Pending {
    pub(super) fn new(
        route: Route,
        trace: Option<TraceContext>,
        conditions: Option<Conditions>,
        reply: oneshot::Sender<Reply>,
    ) -> Self {
        Self {
            route,
            trace,
            conditions,
            reply,
        }
    }

    /// The name of the first service that the request is about.
    pub(super) fn name(&self) -> &str {
        self.route.names().first().map_or("", String::as_str)
    }

    pub(super) fn answer(self, reply: Reply) {
        let _ = self.reply.send(reply);
    }
}

impl Changes {
    /// Registers a request to try a definition. Hands it back if there are too many.
    pub(super) fn check(&mut self, ticket: Ticket, pending: Pending) -> Result<(), Box<Pending>> {
        if self.checks.len() >= MOST_WAITERS {
            return Err(Box::new(pending));
        }
        self.checks.push(Check { ticket, pending });
        Ok(())
    }
}

impl<E: Effects> Dispatcher<E> {
    /// Begins to load the installed definitions of a request.
    pub(super) fn define(&mut self, pending: Pending) {
        let names = pending.route.names().to_vec();
        if let Err((status, why)) = self.refuse_changes(&names) {
            return pending.answer(Reply::error(status, &why));
        }
        if self.changes.loads.len() >= MOST_WAITERS {
            let why = "too many definitions are being read: try again later";
            return pending.answer(Reply::error(StatusCode::SERVICE_UNAVAILABLE, why));
        }
        let ticket = self.ticket();
        self.changes.loads.push_back(Load {
            ticket,
            pending,
            loaded: None,
        });
        self.effects.load(ticket, names);
    }

    /// Applies definitions that were read, unless earlier ones are still missing. The services are
    /// installed, whether their client still waits or not.
    pub(super) fn loaded(&mut self, ticket: Ticket, loaded: Result<Vec<Loaded>, Refused>) {
        let mut loads = self.changes.loads.iter_mut();
        if let Some(load) = loads.find(|load| load.ticket == ticket) {
            load.loaded = Some(loaded);
        }
        while let Some(first) = self.changes.loads.front_mut()
            && let Some(loaded) = first.loaded.take()
            && let Some(Load { pending, .. }) = self.changes.loads.pop_front()
        {
            if let Some(unmet) = self.unmet(pending.conditions.as_ref(), &pending.route) {
                pending.answer(unmet);
                continue;
            }
            let names = pending.route.names();
            let done = loaded.and_then(|loaded| self.apply(names, loaded));
            pending.answer(match done {
                Ok(report) => Reply::document(&report),
                Err((status, why)) => Reply::error(status, &why),
            });
        }
    }

    /// Tries the definition that was checked, unless its client has left.
    pub(super) fn checked(&mut self, ticket: Ticket, checked: Result<Candidate, Reply>) {
        let mut checks = self.changes.checks.iter();
        let Some(at) = checks.position(|check| check.ticket == ticket) else {
            return;
        };
        let Check { pending, .. } = self.changes.checks.remove(at);
        if pending.reply.is_closed() {
            return;
        }
        match self.unmet(pending.conditions.as_ref(), &pending.route) {
            Some(unmet) => pending.answer(unmet),
            None => {
                let name = pending.name().to_owned();
                self.engine.set_request(pending.trace);
                self.try_out(&name, checked, pending.reply);
                self.engine.set_request(None);
            }
        }
    }
}
