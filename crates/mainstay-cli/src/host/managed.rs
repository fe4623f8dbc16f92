//! A host that a service manager started: what the manager wants becomes what a client of the control socket would ask for, and what becomes
//! of the service is what the manager is shown.

use std::rc::Rc;

use std::time::Duration;

use mainstay::{Context, Control, Status, Stop};
use mainstay_core::engine::Request;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, oneshot, watch};

use super::control::{Command, Operation, Reply};
use super::interrupts::Interrupt;

/// The service manager that started this host.
pub(crate) struct Started {
    pub(crate) context: Context,
    /// How long the manager is shown a pending start.
    pub(crate) start_timeout: Duration,
}

/// The host's end of the line to its manager.
pub(super) struct Line {
    /// The one service that the manager knows of.
    pub(super) service: String,
    pub(super) commands: UnboundedSender<Command>,
    pub(super) interrupts: UnboundedSender<Interrupt>,
    /// How its service is.
    pub(super) progress: Progress,
}

/// What the manager is told of its service.
#[derive(Clone, Default)]
pub(super) struct Progress {
    /// Notified when the service is ready.
    pub(super) is_ready: Rc<Notify>,
    /// Notified when the service fails so steadily that nobody should wait for it.
    pub(super) fails: Rc<Notify>,
    /// Why the service is not running; empty if it is.
    pub(super) text: watch::Sender<String>,
}

impl Line {
    /// Serves the manager until it requests a stop. After that a stop is pending for the manager until the process has ended.
    pub(super) async fn serve(self, started: Started) {
        let Started {
            mut context,
            start_timeout,
        } = started;
        tokio::task::spawn_local(show(self.progress.text.subscribe(), context.status()));
        let why = tokio::select! {
            () = self.progress.is_ready.notified() => None,
            () = self.progress.fails.notified() => Some("its starts keep failing".to_owned()),
            () = tokio::time::sleep(start_timeout) => Some(format!("not after {start_timeout:?}")),
            stop = context.stop() => return self.stop(stop, context).await,
        };
        // A start that goes on for ever would block the manager's own requests and whatever waits for them, and a manager that
        // ends the host would have the next one count restarts from zero. The host restarts the program, so it is the host that runs.
        if let Some(why) = why {
            context.logger().warn(format!(
                "{} is not ready ({why}): it is reported as running while its starts are retried",
                self.service
            ));
        }
        context.ready();
        loop {
            // What was asked for is done once the service has come to rest.
            let (reply, replied) = oneshot::channel();
            match context.recv().await {
                Control::Stop(stop) => return self.stop(stop, context).await,
                Control::Pause => self.request(Request::Pause, reply),
                Control::Continue => self.request(Request::Continue, reply),
                Control::Reload => {
                    let name = self.service.clone();
                    // Fails only where the loop has ended.
                    let operation = Operation::Reload { name };
                    let _ = self.commands.send(Command { operation, reply });
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
        let names = self.service.clone();
        // Fails only where the loop has ended.
        let operation = Operation::Request { names, request };
        let _ = self.commands.send(Command { operation, reply });
    }

    async fn stop(&self, _why: Stop, context: Context) {
        // Fails only where the loop has ended.
        let _ = self.interrupts.send(Interrupt::Stop);
        std::future::pending::<()>().await;
        drop(context);
    }
}

/// Has the manager show why the service is not running.
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
