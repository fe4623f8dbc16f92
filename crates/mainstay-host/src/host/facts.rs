//! The subscribers of facts: the reporter, the ledger, the event log, the listeners of the control
//! socket, alerts, updates and the service manager.

use std::time::Duration;

use hyper::body::Bytes;
use mainstay_core::engine::{Fact, ServiceId, StateName};
use mainstay_logs::EventLog;
use mainstay_store::state_dir::StateDir;
use tokio::sync::{mpsc, oneshot};

use super::clock::ToLoop;
use super::control::Reply;
use super::{Host, Message, report};

/// The time for which a new listener waits until earlier events are stored.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns the event log of a supervisor, which reports problems to the loop.
pub(super) fn event_log(state: &StateDir, to_loop: ToLoop) -> EventLog {
    EventLog::new(state.events_dir(), move |event| {
        to_loop.send(Message::Log(event));
    })
}

impl Host {
    /// Passes on a fact about a service.
    pub(super) fn emit(&mut self, id: ServiceId, fact: &Fact) {
        let role = self.engine.rollout_role(id);
        if role.is_none() {
            self.has_halted |= matches!(fact, Fact::Halted { .. });
            self.record_outcome(id, fact);
        }
        match self.engine.view(id).map(|view| view.state) {
            // A service without a readiness check counts as well.
            Some(StateName::Running) => self.progress.is_ready.notify_one(),
            Some(StateName::BackingOff) if self.engine.fails_steadily(id) => {
                self.progress.fails.notify_one();
            }
            // During a trial, keep the sockets: the old definition may be restored and use them.
            Some(StateName::Stopped | StateName::Halted) if self.engine.trial(id).is_none() => {
                if let Some(runtime) = self.runtimes.get_mut(&id) {
                    runtime.sockets.close();
                }
            }
            _ => {}
        }
        if !matches!(fact, Fact::Missed { .. } | Fact::Status { .. }) {
            self.record(id);
            self.show_manager(id);
        }
        let time = self.clock.calendar(self.engine.now());
        let Some(runtime) = self.runtimes.get(&id) else {
            return;
        };
        let service = runtime.spec.name();
        let name = service.as_str();
        let line = Bytes::from(report::json_line(&time, (name, role), fact));
        self.reporter.emit(&time, (name, role), fact, &line);
        // A service may send any number of status messages.
        if !matches!(fact, Fact::Status { .. }) {
            self.events.append(service, &line);
        }
        // Drop listeners that have disconnected or are too far behind.
        self.listeners
            .retain(|listener| listener.try_send(line.clone()).is_ok());
        if fact.is_alert() {
            self.alert(id, &time, role, fact);
        }
        self.answer_update(id, fact);
    }

    /// Reports the reason that the service is not running to the service manager that started this
    /// process.
    fn show_manager(&self, id: ServiceId) {
        let Some(view) = self.engine.view(id).filter(|_| self.has_manager) else {
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
        let shown = &self.progress.text;
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
        let (stored, are_stored) = oneshot::channel();
        self.events.settle(move || {
            let _ = stored.send(());
        });
        tokio::task::spawn_local(async move {
            let _ = tokio::time::timeout(STORE_TIMEOUT, are_stored).await;
            let _ = reply.send(Reply::document(&serde_json::json!({})));
        });
    }

    /// Waits a limited time until all events are stored.
    pub(super) fn close_events(&mut self) {
        if !self.events.close() {
            let dir = self.state.events_dir();
            self.reporter.notify(&format!(
                "the last events were not stored: the disk of {} does not accept them",
                dir.display()
            ));
        }
    }
}
