//! Short-lived processes of the supervisor: probes, reloads, quiesce and thaw commands, and
//! deliveries of alerts.

use std::sync::mpsc;
use std::time::Duration;

use mainstay_core::engine::{Event, Exit, ServiceId, Token, Unasked};
use mainstay_core::spec::ServiceName;
use mainstay_core::time::Instant as Moment;
use mainstay_sys as sys;
use mainstay_sys::Tree;

use super::delay::Limit;
use super::probe::no_answer_within;
use super::{Host, Message};

/// A helper that runs.
pub(super) struct Helper {
    pub(super) service: ServiceId,
    pub(super) tree: Tree,
    pub(super) purpose: Purpose,
    limit: Duration,
    /// Set if its time limit ended it.
    is_late: bool,
}

pub(super) enum Purpose {
    Probe(Token),
    /// A reload of the service with this name.
    Reload(ServiceName),
    Quiesce(Token),
    Thaw,
    /// An alert of the service with this name.
    Alert(ServiceName),
    /// A request to a webhook, and the recipient of its exit.
    Webhook(mpsc::Sender<Result<(), String>>),
}

impl Host {
    /// Registers a helper and starts its time limit.
    pub(super) fn keep_helper(
        &mut self,
        service: ServiceId,
        tree: Tree,
        purpose: Purpose,
        limit: Duration,
    ) {
        let id = tree.id();
        self.helpers.insert(
            id,
            Helper {
                service,
                tree,
                purpose,
                limit,
                is_late: false,
            },
        );
        let messages = self.messages.clone();
        tokio::task::spawn_local(async move {
            let mut time = Limit::new(limit);
            time.over().await;
            let was_delayed = time.was_delayed();
            messages.send(Message::HelperLate { id, was_delayed });
        });
    }

    /// Kills a helper that has exceeded its time limit. Its exit is reaped like any other.
    pub(super) fn helper_late(&mut self, id: sys::TreeId, was_delayed: bool, at: Moment) {
        // The helper may have exited while this process was suspended.
        self.reap();
        let Some(helper) = self.helpers.get_mut(&id) else {
            return;
        };
        helper.is_late = true;
        let _ = helper.tree.kill();
        let (service, limit) = (helper.service, helper.limit);
        if let Purpose::Probe(token) = helper.purpose {
            // The exit that the kill causes is not the probe's result, and may take time.
            let event = if was_delayed {
                Event::Unasked(service, token, Unasked::Delayed)
            } else {
                Event::Answered(service, token, Err(no_answer_within(limit)))
            };
            self.step_at(at, event);
        }
    }

    /// Kills all helpers except those that deliver alerts. The results of the others are not needed
    /// any more.
    pub(super) fn kill_helpers(&self) {
        for helper in self.helpers.values() {
            if !matches!(helper.purpose, Purpose::Alert(_) | Purpose::Webhook(_)) {
                // If this fails, their time limit ends them.
                let _ = helper.tree.kill();
            }
        }
    }

    pub(super) fn helper_ended(&mut self, helper: Helper, exit: Exit, at: Moment) {
        // Processes that the helper started must not stay.
        if !helper.tree.is_empty() {
            let _ = helper.tree.kill();
        }
        let answer = match exit {
            Exit::Code(0) => Ok(()),
            _ if helper.is_late => Err(no_answer_within(helper.limit)),
            exit => Err(exit.to_string()),
        };
        let explained = |answer: Result<(), String>, what| {
            answer.map_err(|why| {
                if helper.is_late {
                    why
                } else {
                    format!("{what} failed: {why}")
                }
            })
        };
        match helper.purpose {
            Purpose::Probe(token) => {
                let answer = explained(answer, "the probe command");
                self.step_at(at, Event::Answered(helper.service, token, answer));
            }
            // The recipient is gone if its thread could not be started.
            Purpose::Webhook(ended) => drop(ended.send(explained(answer, "its process"))),
            Purpose::Reload(name) => match answer {
                Ok(()) => self.reporter.notify(&format!("{name}: reloaded")),
                Err(why) => self
                    .reporter
                    .notify(&format!("{name}: the reload command failed: {why}")),
            },
            Purpose::Quiesce(token) => self.quiesced(helper.service, token, answer),
            Purpose::Alert(name) => self.alert_command_ended(&name, answer),
            Purpose::Thaw => {
                if let Err(why) = answer
                    && let Some(runtime) = self.runtimes.get(&helper.service)
                {
                    let name = runtime.spec.name();
                    let what = format!("{name}: the `thaw` command failed: {why}");
                    self.reporter.notify(&what);
                }
            }
        }
    }
}
