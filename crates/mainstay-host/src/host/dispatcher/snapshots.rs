//! Snapshots and restores of services' state. The engine decides when they happen; copies are made
//! by threads (`executor/snapshots.rs`).
//!
//! The steps of a snapshot are: the service's quiesce command, if it has one; the copy; its thaw
//! command; the result, for the engine. If the snapshot is cancelled, only the copy is skipped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use mainstay_api::{Done, Taken};
use mainstay_core::engine::{CommandFailure, CopyFailure, Event, ServiceId, Snapshotted, Token};
use mainstay_core::snapshot::Reason;
use mainstay_core::spec::Still;
use mainstay_store::snapshot::{Occasion, Replaced, Which};
use tokio::sync::oneshot;

use super::Dispatcher;
use super::helpers::Purpose;
use crate::host::control::Reply;
use crate::host::effects::Effects;

/// The time limit of each command around a copy.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Snapshots in progress.
#[derive(Default)]
pub(super) struct Snapshots {
    taking: BTreeMap<ServiceId, Taking>,
    /// Snapshots that were cancelled before they began.
    called_off: BTreeMap<ServiceId, Token>,
    /// The clients that requested snapshots.
    clients: BTreeMap<Token, oneshot::Sender<Reply>>,
}

/// A snapshot in progress.
struct Taking {
    token: Token,
    occasion: Occasion,
    /// Set once the quiesce command has run.
    is_quiesced: bool,
    is_called_off: bool,
}

impl Snapshots {
    fn begin(&mut self, id: ServiceId, token: Token, occasion: Occasion) {
        let taking = Taking {
            token,
            occasion,
            is_quiesced: false,
            is_called_off: false,
        };
        self.taking.insert(id, taking);
    }

    /// Returns the snapshot of a service with this token, while it is in progress.
    fn get(&mut self, id: ServiceId, token: Token) -> Option<&mut Taking> {
        let taking = self.taking.get_mut(&id);
        taking.filter(|taking| taking.token == token)
    }

    /// Ends the snapshot of a service with this token.
    fn end(&mut self, id: ServiceId, token: Token) -> Option<Taking> {
        self.get(id, token)?;
        self.taking.remove(&id)
    }

    /// Forgets the snapshot of a service that was removed, and returns its token.
    pub(super) fn removed(&mut self, id: ServiceId) -> Option<Token> {
        self.called_off.remove(&id);
        let token = self.taking.remove(&id)?.token;
        self.answer(token, &Err(CopyFailure::Removed));
        Some(token)
    }

    fn answer(&mut self, token: Token, result: &Result<Snapshotted, CopyFailure>) {
        if let Some(reply) = self.clients.remove(&token) {
            let _ = reply.send(match result {
                Ok(Snapshotted::Taken(snapshot)) => Reply::document(&Taken {
                    snapshot: *snapshot,
                }),
                Ok(Snapshotted::Unchanged) => Reply::document(&Done {}),
                Err(why) => Reply::error(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
            });
        }
    }
}

impl<E: Effects> Dispatcher<E> {
    /// Starts a snapshot for a client.
    pub(super) fn request_snapshot(&mut self, id: ServiceId, reply: oneshot::Sender<Reply>) {
        match self.engine.request_snapshot(id, self.now()) {
            Ok((token, actions)) => {
                self.snapshots.clients.insert(token, reply);
                self.perform(actions);
            }
            Err(refusal) => drop(reply.send(Reply::refused(&refusal))),
        }
    }

    /// Starts a copy of a service's state. [`Event::Snapshotted`] follows.
    pub(super) fn snapshot(&mut self, id: ServiceId, token: Token, reason: Reason, stable: bool) {
        let occasion = Occasion {
            reason,
            stable,
            only_if_changed: reason != Reason::Manual,
        };
        let Some(service) = self.services.get(&id) else {
            return;
        };
        if self.snapshots.called_off.remove(&id) == Some(token) {
            return self.end_copy(id, token, Err(CopyFailure::Cancelled));
        }
        let spec = Arc::clone(&service.spec);
        if self.helpers.is_thawing(id) {
            return self.end_copy(id, token, Err(CopyFailure::Thawing));
        }
        self.snapshots.begin(id, token, occasion);
        match spec.snapshot().map(|policy| policy.still()) {
            Some(Still::Commands { quiesce, thaw }) => {
                self.note_quiesced(id, thaw.is_some());
                let purpose = Purpose::Quiesce(token);
                if let Err(why) = self.start_helper(id, quiesce, purpose, COMMAND_LIMIT) {
                    self.quiesced(id, token, Err(CommandFailure::NotStarted(why)));
                }
            }
            _ => self.effects.copy(id, token, occasion),
        }
    }

    /// Starts a copy of the state of a service that is down, even if it has not changed.
    /// [`Event::Snapshotted`] follows.
    pub(super) fn keep_state(&mut self, id: ServiceId, token: Token, stable: bool) {
        let occasion = Occasion {
            reason: Reason::Update,
            stable,
            only_if_changed: false,
        };
        self.snapshots.begin(id, token, occasion);
        self.effects.copy(id, token, occasion);
    }

    /// Continues a snapshot after the quiesce command has exited.
    pub(super) fn quiesced(
        &mut self,
        id: ServiceId,
        token: Token,
        answer: Result<(), CommandFailure>,
    ) {
        let Some(taking) = self.snapshots.get(id, token) else {
            return;
        };
        // Even if the command failed, the thaw command undoes its effect.
        taking.is_quiesced = true;
        let (occasion, is_called_off) = (taking.occasion, taking.is_called_off);
        match answer {
            Ok(()) if is_called_off => self.end_copy(id, token, Err(CopyFailure::Cancelled)),
            Ok(()) => self.effects.copy(id, token, occasion),
            Err(why) => self.end_copy(id, token, Err(CopyFailure::NotQuiesced(why))),
        }
    }

    /// Processes the result of a copy.
    pub(super) fn copied(
        &mut self,
        id: ServiceId,
        token: Token,
        result: Result<Snapshotted, CopyFailure>,
    ) {
        self.end_copy(id, token, result);
        self.work();
    }

    fn end_copy(&mut self, id: ServiceId, token: Token, result: Result<Snapshotted, CopyFailure>) {
        if let Some(taking) = self.snapshots.end(id, token)
            && taking.is_quiesced
        {
            self.run_thaw_command(id);
        }
        self.snapshots.answer(token, &result);
        self.step_later(Event::Snapshotted(id, token, result));
    }

    /// Records whether a run waits for the thaw command, so that a successor runs it.
    pub(super) fn note_quiesced(&mut self, id: ServiceId, is_quiesced: bool) {
        let service = self.services.get_mut(&id);
        if let Some(running) = service.and_then(|service| service.running.as_mut()) {
            running.is_quiesced = is_quiesced;
            self.record(id);
        }
    }

    pub(super) fn run_thaw_command(&mut self, id: ServiceId) {
        let Some(service) = self.services.get(&id) else {
            return;
        };
        let spec = Arc::clone(&service.spec);
        if let Some(Still::Commands { thaw, .. }) = spec.snapshot().map(|policy| policy.still())
            && let Some(thaw) = thaw
            && let Err(why) = self.start_helper(id, thaw, Purpose::Thaw, COMMAND_LIMIT)
        {
            let what = format!("{}: cannot run the `thaw` command: {why}", spec.name());
            self.effects.notify(&what);
            self.note_quiesced(id, false);
        }
    }

    /// Cancels a snapshot. Its result still follows.
    pub(super) fn abandon_snapshot(&mut self, id: ServiceId, token: Token) {
        match self.snapshots.get(id, token) {
            Some(taking) => {
                taking.is_called_off = true;
                self.effects.call_off(id, token);
            }
            // The service could not be suspended for the snapshot, whose action comes next.
            None => drop(self.snapshots.called_off.insert(id, token)),
        }
    }

    /// Starts a restore of a service's state. [`Event::Restored`] follows.
    pub(super) fn restore(&mut self, (id, token): (ServiceId, Token), which: Which) {
        // A later restore in a row mostly replaces the state that the one before it has restored.
        // The service need not wait for a copy of that.
        let replaced = match which {
            Which::Stable(Some(_)) => Replaced::Discard,
            Which::Exactly(_) | Which::Stable(None) => Replaced::Keep,
        };
        self.effects.restore(id, token, which, replaced);
    }
}
