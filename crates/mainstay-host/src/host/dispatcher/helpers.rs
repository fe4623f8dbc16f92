//! Short-lived processes of the supervisor: probes, reloads, quiesce and thaw commands, and
//! deliveries of alerts.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_core::engine::{
    CommandFailure, Event, Exit, ProbeFailure, ServiceId, StartFailure, Token, Unasked,
};
use mainstay_core::spec::{Argv, ServiceName};
use mainstay_core::time::Instant;

use super::Dispatcher;
use crate::host::effects::{Effects, Origin, Ticket};

/// The helpers that run, or have ended and are not reaped yet.
#[derive(Default)]
pub(super) struct Helpers(BTreeMap<Ticket, Helper>);

struct Helper {
    service: ServiceId,
    purpose: Purpose,
    limit: Duration,
    /// Set if its time limit ended it.
    is_late: bool,
}

pub(super) enum Purpose {
    /// A probe, with its program.
    Probe(Token, String),
    /// A reload of the service with this name.
    Reload(ServiceName),
    Quiesce(Token),
    Thaw,
    /// The alert command of the service with this name.
    Alert(ServiceName),
    /// A request to a webhook.
    Webhook,
}

impl Helpers {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a thaw command of this service is running.
    pub(super) fn is_thawing(&self, id: ServiceId) -> bool {
        let mut helpers = self.0.values();
        helpers.any(|it| it.service == id && matches!(it.purpose, Purpose::Thaw))
    }

    /// Registers a helper that was started.
    pub(super) fn add(
        &mut self,
        ticket: Ticket,
        service: ServiceId,
        purpose: Purpose,
        limit: Duration,
    ) {
        let is_late = false;
        let helper = Helper {
            service,
            purpose,
            limit,
            is_late,
        };
        self.0.insert(ticket, helper);
    }

    fn select(&self, is_meant: impl Fn(&Helper) -> bool) -> Vec<Ticket> {
        let meant = self.0.iter().filter(|(_, helper)| is_meant(helper));
        meant.map(|(ticket, _)| *ticket).collect()
    }
}

impl<E: Effects> Dispatcher<E> {
    /// Starts a command as the service.
    pub(super) fn start_helper(
        &mut self,
        id: ServiceId,
        argv: &Argv,
        purpose: Purpose,
        limit: Duration,
    ) -> Result<(), StartFailure> {
        let (ticket, restarts) = (self.ticket(), self.restarts(id));
        let cause = match purpose {
            // It is over when it has begun, and belongs to no operation of the engine.
            Purpose::Reload(_) => self.engine.request_context(),
            _ => self.engine.cause(id),
        };
        let cause = cause.cloned();
        let origin = Origin { restarts, cause };
        self.effects.start_helper(id, ticket, argv, origin, limit)?;
        self.helpers.add(ticket, id, purpose, limit);
        Ok(())
    }

    /// Kills a helper that has exceeded its time limit. Its exit is reaped like any other.
    pub(super) fn helper_late(&mut self, ticket: Ticket, was_delayed: bool, at: Instant) {
        // The helper may have exited while this process was suspended.
        self.reap();
        let Some(helper) = self.helpers.0.get_mut(&ticket) else {
            return;
        };
        helper.is_late = true;
        let (service, limit) = (helper.service, helper.limit);
        let probe = match &helper.purpose {
            Purpose::Probe(token, program) => Some((*token, program.clone())),
            _ => None,
        };
        self.effects.kill_helper(ticket);
        if let Some((token, program)) = probe {
            // The exit that the kill causes is not the probe's result, and may take time.
            let event = if was_delayed {
                Event::Unasked(service, token, Unasked::Delayed)
            } else {
                let why = ProbeFailure::Command(program, CommandFailure::TimedOut(limit));
                Event::Answered(service, token, Err(why))
            };
            self.step_at(at, event);
        }
    }

    /// Kills all helpers except those that deliver alerts. The results of the others are not needed
    /// any more. If that fails, their time limits end them.
    pub(super) fn kill_helpers(&mut self) {
        self.kill_those(|helper| !matches!(helper.purpose, Purpose::Alert(_) | Purpose::Webhook));
    }

    /// Kills the helpers of services that are being removed. A request to a webhook goes on: it is
    /// about them, not for them.
    pub(super) fn kill_helpers_of(&mut self, ids: &[ServiceId]) {
        self.kill_those(|helper| {
            ids.contains(&helper.service) && !matches!(helper.purpose, Purpose::Webhook)
        });
    }

    pub(super) fn kill_all_helpers(&mut self) {
        self.kill_those(|_| true);
    }

    fn kill_those(&mut self, is_meant: impl Fn(&Helper) -> bool) {
        for ticket in self.helpers.select(is_meant) {
            self.effects.kill_helper(ticket);
        }
    }

    pub(super) fn helper_ended(&mut self, ticket: Ticket, exit: Exit, at: Instant) {
        let Some(helper) = self.helpers.0.remove(&ticket) else {
            return;
        };
        let answer = match exit {
            Exit::Code(0) => Ok(()),
            _ if helper.is_late => Err(CommandFailure::TimedOut(helper.limit)),
            exit => Err(CommandFailure::Exited(exit)),
        };
        match helper.purpose {
            Purpose::Probe(token, program) => {
                let answer = answer.map_err(|why| ProbeFailure::Command(program, why));
                self.step_at(at, Event::Answered(helper.service, token, answer));
            }
            Purpose::Webhook => self.effects.request_ended(ticket, answer),
            Purpose::Reload(name) => self.effects.notify(&match answer {
                Ok(()) => format!("{name}: reloaded"),
                Err(why) => format!("{name}: the reload command failed: {why}"),
            }),
            Purpose::Quiesce(token) => self.quiesced(helper.service, token, answer),
            Purpose::Alert(name) => self.alert_command_ended(&name, answer),
            Purpose::Thaw => {
                self.note_quiesced(helper.service, false);
                if let Err(why) = answer
                    && let Some(service) = self.services.get(&helper.service)
                {
                    let name = service.spec.name();
                    let what = format!("{name}: the `thaw` command failed: {why}");
                    self.effects.notify(&what);
                }
            }
        }
    }
}
