//! The subscribers of facts: the operator's screen, the event log, the ledger, the listeners of the
//! control socket, alerts, updates and the service manager.

use hyper::body::Bytes;
use mainstay_core::engine::{Fact, ServiceId, StateName};
use tokio::sync::{mpsc, oneshot};

use super::Dispatcher;
use crate::host::control::Reply;
use crate::host::effects::{Effects, Published};
use crate::host::report;

impl<E: Effects> Dispatcher<E> {
    /// Passes on a fact about a service.
    pub(super) fn emit(&mut self, id: ServiceId, fact: &Fact) {
        let role = self.engine.rollout_role(id);
        if role.is_none() {
            self.has_halted |= matches!(fact, Fact::Halted { .. });
            self.record_outcome(id, fact);
        }
        let state = self.engine.view(id).map(|view| view.state);
        self.show_progress(id, state);
        // During a trial, keep the sockets: the old definition may be restored and use them.
        if matches!(state, Some(StateName::Stopped | StateName::Halted))
            && self.engine.trial(id).is_none()
        {
            self.effects.close_sockets(id);
        }
        let changes_nothing = matches!(
            fact,
            Fact::Missed { .. }
                | Fact::Passed { .. }
                | Fact::Requested { .. }
                | Fact::Status { .. }
        );
        if !changes_nothing {
            self.record(id);
            self.show_manager(id);
        }
        let at = match fact {
            // The engine does not know of it yet.
            Fact::Requested { .. } => self.now(),
            _ => self.engine.now(),
        };
        let Some(service) = self.services.get_mut(&id) else {
            return;
        };
        // An exit may be observed late. No fact precedes the one before it.
        service.told_at = service.told_at.max(at);
        let time = self.effects.calendar(service.told_at);
        let name = service.spec.name();
        let sequence = self.emitted;
        self.emitted += 1;
        let about = (name.as_str(), role);
        let line = Bytes::from(report::json_line(&time, sequence, about, fact));
        self.effects.publish(&Published {
            time: &time,
            service: name,
            role,
            fact,
            line: &line,
        });
        // Drop listeners that have disconnected or are too far behind.
        self.listeners
            .retain(|listener| listener.try_send(line.clone()).is_ok());
        if fact.is_alert() {
            self.alert(id, &time, role, fact);
        }
        self.answer_update(id, fact);
    }

    /// Notifies the task that waits, for the service manager, until the service is up or fails for
    /// good.
    fn show_progress(&self, id: ServiceId, state: Option<StateName>) {
        let Some(progress) = &self.about.manager else {
            return;
        };
        match state {
            // A service without a readiness check counts as well.
            Some(StateName::Running) => progress.is_ready.notify_one(),
            Some(StateName::BackingOff) if self.engine.fails_steadily(id) => {
                progress.fails.notify_one();
            }
            _ => {}
        }
    }

    /// Reports the reason that the service is not running to the service manager that started this
    /// process.
    fn show_manager(&self, id: ServiceId) {
        let (Some(progress), Some(view)) = (&self.about.manager, self.engine.view(id)) else {
            return;
        };
        let text = match view.state {
            StateName::Running => String::new(),
            StateName::BackingOff | StateName::Halted | StateName::Waiting => {
                let why = view
                    .detail
                    .map_or_else(String::new, |why| format!(": {why}"));
                format!("{}{why}", view.state)
            }
            // In the other states, the reason for the current attempt remains relevant.
            _ => return,
        };
        let shown = &progress.text;
        shown.send_if_modified(|old| std::mem::replace(old, text.clone()) != text);
    }

    /// Sends all further facts to `listener`. Replies when all earlier ones are stored: a client
    /// that reads them next misses none.
    pub(super) fn subscribe(
        &mut self,
        listener: Option<mpsc::Sender<Bytes>>,
        reply: oneshot::Sender<Reply>,
    ) {
        self.listeners.retain(|listener| !listener.is_closed());
        self.listeners.extend(listener);
        self.effects.reply_when_stored(reply);
    }
}
