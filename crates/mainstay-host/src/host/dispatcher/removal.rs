//! Removal of installed services while others run.

use hyper::StatusCode;
use mainstay_core::engine::{Refusal, ServiceId};
use tokio::sync::oneshot;

use super::Dispatcher;
use super::clients::Waiter;
use crate::host::control::Reply;
use crate::host::effects::Effects;

impl<E: Effects> Dispatcher<E> {
    /// Stops these services and removes them. Missing services are ignored. Responds when nothing
    /// is left of them.
    pub(super) fn forget(&mut self, names: &[String], reply: oneshot::Sender<Reply>) {
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
            Err(_) if self.clients.merge_removals(&ids) => {
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

    /// Releases what services had that the engine has removed.
    fn forgotten(&mut self, ids: &[ServiceId], reply: oneshot::Sender<Reply>) {
        self.kill_helpers_of(ids);
        for id in ids {
            if let Some(token) = self.snapshots.removed(*id) {
                self.effects.call_off(*id, token);
            }
            if let Some(gone) = self.services.remove(id) {
                let text = format!("{}: removed", gone.spec.name());
                self.effects.notify(&text);
            }
        }
        self.effects.forget(ids, reply);
        self.begin_ledger(None);
        self.settle_soon();
    }
}
