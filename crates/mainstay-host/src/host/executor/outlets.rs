//! Messages to the operator, to logs, to clients, and to whoever started this process.

use std::io;
use std::time::Duration;

use hyper::StatusCode;
use mainstay_api::Done;
use mainstay_core::engine::{Fact, Human, ServiceId};
use mainstay_core::failure::chain;
use mainstay_core::spec::ServiceName;
use tokio::sync::oneshot;

use super::Executor;
use crate::host::control::Reply;
use crate::host::effects::{LastLines, Message, Outlets, Published, ToParent};
use crate::host::seed;

/// The longest wait of a client for the log thread.
const LOG_TIMEOUT: Duration = mainstay_logs::HANGS;

/// The time for which a new listener waits until earlier events are stored.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

impl Executor {
    /// Returns the function by which the log thread sends a response. If the thread does not
    /// respond in time, because the disk of the logs hangs, the client is told so, and what that
    /// means for it.
    pub(super) fn unless_logs_hang(
        &self,
        reply: oneshot::Sender<Reply>,
        meaning: &str,
    ) -> impl FnOnce(Reply) + Send + 'static {
        let late = format!(
            "the disk of {} did not respond for {}: {meaning}",
            self.state.logs_dir().display(),
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
}

impl Outlets for Executor {
    fn notify(&mut self, text: &str) {
        self.reporter.notify(text);
    }

    fn publish(&mut self, published: &Published<'_>) {
        let Published {
            time,
            service,
            role,
            fact,
            line,
        } = *published;
        let about = (service.as_str(), role);
        self.reporter.emit(time, about, fact, line);
        // A service may send any number of status messages.
        if !matches!(fact, Fact::Status { .. }) {
            self.events.append(service, line);
        }
    }

    fn is_silent(&self) -> bool {
        self.reporter.is_silent()
    }

    fn host_name(&self) -> String {
        mainstay_logs::this_host()
    }

    fn alert_id(&mut self) -> String {
        let mut bytes = [0; 16];
        // Without the system's random numbers, the ID is still unique on this machine.
        if getrandom::fill(&mut bytes).is_err() {
            bytes[..8].copy_from_slice(&seed().to_ne_bytes());
            bytes[8..].copy_from_slice(&seed().to_ne_bytes());
        }
        format!("alert_{:032x}", u128::from_ne_bytes(bytes))
    }

    fn seed(&mut self) -> u64 {
        seed()
    }

    fn widen(&mut self, name: &ServiceName) {
        self.reporter.widen(name.as_str());
    }

    fn tell_parent(&mut self, message: ToParent) -> io::Result<()> {
        let told = match message {
            ToParent::Ready => mainstay::notify::ready(),
            ToParent::Stopping => mainstay::notify::stopping(),
        };
        told.map(drop)
    }

    fn reply_when_stored(&mut self, reply: oneshot::Sender<Reply>) {
        let (stored, are_stored) = oneshot::channel();
        self.events.settle(move || {
            let _ = stored.send(());
        });
        tokio::task::spawn_local(async move {
            let _ = tokio::time::timeout(STORE_TIMEOUT, are_stored).await;
            let _ = reply.send(Reply::document(&Done {}));
        });
    }

    fn reply_with_lines(
        &mut self,
        lines: Option<LastLines>,
        reply: oneshot::Sender<Reply>,
        response: impl FnOnce(&[String]) -> Reply + 'static,
    ) {
        tokio::task::spawn_local(async move {
            let lines = match lines {
                Some(lines) => lines.await.unwrap_or_default(),
                None => Vec::new(),
            };
            let _ = reply.send(response(&lines));
        });
    }

    fn watch_client(
        &mut self,
        mut reply: oneshot::Sender<Reply>,
        candidate: ServiceId,
    ) -> oneshot::Sender<Reply> {
        let (answer, answered) = oneshot::channel();
        let messages = self.messages.clone();
        tokio::task::spawn_local(async move {
            let is_delivered = tokio::select! {
                answer = answered => answer.is_ok_and(|answer| reply.send(answer).is_ok()),
                () = reply.closed() => false,
            };
            if !is_delivered {
                messages.send(Message::ClientLeft(candidate));
            }
        });
        answer
    }

    fn are_logs_behind(&self) -> bool {
        self.logs.is_behind()
    }

    fn rotate_log(&mut self, id: ServiceId, reply: Option<oneshot::Sender<Reply>>) {
        let Some(seat) = self.seats.get(&id) else {
            return;
        };
        let Some(reply) = reply else {
            let messages = self.messages.clone();
            return self.logs.rotate(seat.spec.name(), move |result| {
                if let Err(file_error) = result {
                    let remark = format!("cannot rotate its log: {}", chain(&file_error));
                    messages.send(Message::Remark(id, remark));
                }
            });
        };
        let respond = self.unless_logs_hang(reply, "the log is rotated when it does");
        self.logs.rotate(seat.spec.name(), move |result| {
            respond(match result {
                Ok(()) => Reply::document(&Done {}),
                Err(file_error) => {
                    Reply::error(StatusCode::INTERNAL_SERVER_ERROR, &chain(&file_error))
                }
            });
        });
    }

    fn recall(&mut self, id: ServiceId) -> LastLines {
        let (lines, last_lines) = oneshot::channel();
        if let Some(seat) = self.seats.get(&id) {
            self.logs.recall(seat.spec.name(), move |last| {
                // This fails if nobody waits for the lines.
                let _ = lines.send(last);
            });
        }
        last_lines
    }

    fn log_began(&mut self, id: ServiceId, pid: u32) {
        if let Some(seat) = self.seats.get(&id) {
            self.logs.began(seat.spec.name(), pid, 0);
        }
    }
}
