//! A host that a service manager started. Requests of the manager are translated into those of a
//! client of the control socket, and the state of the service is reported to the manager.

use std::rc::Rc;

use std::time::Duration;

use mainstay::{Context, Control, Status, Stop};
use mainstay_api::Route;
use mainstay_core::engine::Request;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, oneshot, watch};

use super::control::{Command, Reply};
use super::interrupts::Interrupt;

/// The service manager that started this host.
pub struct Started {
    /// The connection to the manager.
    pub context: Context,
    /// The time for which the manager is shown a pending start.
    pub start_timeout: Duration,
}

/// The host's connection to its service manager.
pub(super) struct Line {
    /// The single service that the manager controls.
    pub(super) service: String,
    pub(super) commands: UnboundedSender<Command>,
    pub(super) interrupts: UnboundedSender<Interrupt>,
    /// The progress of the service.
    pub(super) progress: Progress,
}

/// The state of the service that is reported to the manager.
#[derive(Clone, Default)]
pub(super) struct Progress {
    /// Notified when the service is ready.
    pub(super) is_ready: Rc<Notify>,
    /// Notified when the service fails so steadily that nobody should wait for it.
    pub(super) fails: Rc<Notify>,
    /// The reason that the service is not running; empty if it is.
    pub(super) text: watch::Sender<String>,
}

impl Line {
    /// Handles the manager's requests until it requests a stop. The manager sees the stop as
    /// pending until the process has exited.
    pub(super) async fn serve(self, started: Started) {
        let Started {
            mut context,
            start_timeout,
        } = started;
        tokio::task::spawn_local(show(self.progress.text.subscribe(), context.status()));
        let why = tokio::select! {
            () = self.progress.is_ready.notified() => None,
            () = self.progress.fails.notified() => Some("its starts fail repeatedly".to_owned()),
            () = tokio::time::sleep(start_timeout) => Some(format!("not within {start_timeout:?}")),
            stop = context.stop() => return self.stop(stop, context).await,
        };
        // A start that never ends would block the manager's own requests and everything that waits
        // for them. A manager that kills the host would make the next one count restarts from zero.
        // The host restarts the program, so the host is what counts as running.
        if let Some(why) = why {
            context.logger().warn(format!(
                "{} is not ready ({why}): it is reported as running while its start is retried",
                self.service
            ));
        }
        context.ready();
        loop {
            // A request is done when the service has settled.
            let (reply, replied) = oneshot::channel();
            match context.recv().await {
                Control::Stop(stop) => return self.stop(stop, context).await,
                Control::Pause => self.request(Request::Pause, reply),
                Control::Continue => self.request(Request::Continue, reply),
                Control::Reload => {
                    let name = self.service.clone();
                    // This fails only if the loop has ended.
                    let command = Command::new(Route::Reload { name }, reply);
                    let _ = self.commands.send(command);
                }
                _ => continue,
            }
            tokio::select! {
                answer = replied => complain(&context, answer),
                stop = context.stop() => return self.stop(stop, context).await,
            }
        }
    }

    fn request(&self, request: Request, reply: oneshot::Sender<Reply>) {
        let names = vec![self.service.clone()];
        // This fails only if the loop has ended.
        let command = Command::new(Route::Request { names, request }, reply);
        let _ = self.commands.send(command);
    }

    async fn stop(&self, _why: Stop, context: Context) {
        // This fails only if the loop has ended.
        let _ = self.interrupts.send(Interrupt::Stop);
        std::future::pending::<()>().await;
        drop(context);
    }
}

/// Passes the reason that the service is not running to the manager, whenever it changes.
async fn show(mut text: watch::Receiver<String>, status: Status) {
    while text.changed().await.is_ok() {
        let shown = text.borrow_and_update().clone();
        status.text(&shown);
    }
}

fn complain(context: &Context, answer: Result<Reply, oneshot::error::RecvError>) {
    if let Ok(reply) = answer
        && !reply.status.is_success()
    {
        context.logger().warn(reply.body);
    }
}
