//! Delivery of alerts to a command and a webhook, in addition to the system's log (docs/alerts.md).
//! The core decides which alerts are sent and when a delivery is retried.
//!
//! Alerts wait in their service's outbox: in order for its command, and each with a schedule of its
//! own for its webhook. A service runs at most one command and one webhook request at a time. Both
//! are child processes like any helper (`executor/alerts.rs`). So nothing here blocks, except at
//! the end: see [`Dispatcher::end_alerts`].

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::alert::{Answer, Limiter, Next, Tries};
use mainstay_core::engine::{
    CommandFailure, Fact, Halt, Human, RolloutRole, ServiceId, StartFailure,
};
use mainstay_core::spec::{OnAlert, ServiceName, Spec};
use mainstay_core::time::Instant;

use super::Dispatcher;
use super::helpers::Purpose;
use crate::host::alert::{Alert, AlertEvent};
use crate::host::effects::{Effects, Message, REMOVED};

/// The number of alerts that may wait for one destination. Further alerts displace the oldest.
const WAITING: usize = 64;
/// The longest time that the supervisor waits for alerts before it exits: if it was told to stop,
/// and if it ends by itself, usually after a halt.
const FAREWELL: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(30)];

/// The alerts of all services.
#[derive(Default)]
pub(super) struct Alerts {
    outboxes: BTreeMap<ServiceName, Outbox>,
    /// The time at which delivery ends, and the number of interrupts when that was decided. Set
    /// when the supervisor is about to exit.
    ends: Option<(Instant, u32)>,
}

/// The outbox of one service. It outlives changes of the service's definition.
#[derive(Default)]
struct Outbox {
    limiter: Limiter,
    for_command: VecDeque<Arc<Alert>>,
    is_running: bool,
    /// The alert that was passed to the running command, unless it was given up.
    passed: Option<Arc<Alert>>,
    for_webhook: VecDeque<Delivery>,
    is_trying: bool,
}

/// An alert that a webhook has not accepted yet.
struct Delivery {
    alert: Arc<Alert>,
    service: ServiceId,
    /// The spec that configures the webhook.
    spec: Arc<Spec>,
    /// The directory of its manifest.
    dir: PathBuf,
    tries: Tries,
    due: Instant,
}

impl Alerts {
    /// Returns whether no alert is waiting or being delivered.
    pub(super) fn are_out(&self) -> bool {
        self.outboxes.values().all(Outbox::is_empty)
    }

    fn len(&self) -> usize {
        self.outboxes.values().map(Outbox::len).sum()
    }
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.for_command.is_empty() && self.passed.is_none() && self.for_webhook.is_empty()
    }

    fn len(&self) -> usize {
        self.for_command.len() + usize::from(self.passed.is_some()) + self.for_webhook.len()
    }
}

impl<E: Effects> Dispatcher<E> {
    /// Sends an alert, unless the recipient's limit is exceeded.
    pub(super) fn alert(
        &mut self,
        id: ServiceId,
        time: &str,
        role: Option<RolloutRole>,
        fact: &Fact,
    ) {
        if self.effects.is_silent() {
            return;
        }
        let Some(service) = self.services.get(&id) else {
            return;
        };
        let name = service.spec.name().clone();
        // During a trial there are two definitions. The recipients of the active one get the alerts
        // of both.
        let id = self.engine.find(name.as_str()).unwrap_or(id);
        let Some(service) = self.services.get(&id) else {
            return;
        };
        let (spec, dir) = (Arc::clone(&service.spec), service.dir.clone());
        let Some(on_alert) = spec.on_alert() else {
            return;
        };
        if let Fact::Halted {
            why: Halt::Need(need),
        } = fact
            && let Some(need) = self.engine.find(need.as_str())
            && let Some(need) = self.services.get(&need)
            && need.spec.on_alert() == Some(on_alert)
        {
            // The same recipient was alerted of the dependency.
            return;
        }
        let now = self.now();
        let outbox = self.alerts.outboxes.entry(name.clone()).or_default();
        let suppressed = match outbox.limiter.admit(on_alert.limit(), fact, now) {
            Ok(suppressed) => suppressed,
            Err(row) => {
                if let (1, Some(limit)) = (row, on_alert.limit()) {
                    self.effects.notify(&format!(
                        "{name}: more than {} alerts within {}: further alerts are counted but not sent, except halts and crash loops",
                        limit.alerts(),
                        Human(limit.window())
                    ));
                }
                return;
            }
        };
        let identity = (self.effects.alert_id(), &*self.effects.host_name());
        let cause = self.engine.cause(id).cloned();
        let alert = Alert::new(identity, time, (&name, role), fact, suppressed);
        let alert = Arc::new(Alert { cause, ..alert });
        let mut pushed_out = Vec::new();
        if on_alert.exec().is_some() {
            outbox.for_command.push_back(Arc::clone(&alert));
            if outbox.for_command.len() > WAITING {
                pushed_out.extend(outbox.for_command.pop_front());
            }
        }
        if let Some(webhook) = on_alert.webhook() {
            outbox.for_webhook.push_back(Delivery {
                alert,
                service: id,
                tries: Tries::new(webhook.deadline(), now, self.effects.seed()),
                due: now,
                spec: Arc::clone(&spec),
                dir,
            });
            if outbox.for_webhook.len() > WAITING {
                pushed_out.extend(outbox.for_webhook.pop_front().map(|it| it.alert));
            }
        }
        for alert in pushed_out {
            self.lost(&alert, "too many alerts are waiting");
        }
        self.run_alert_command(&name);
        self.try_webhook(&name);
    }

    /// Reports that an alert was lost. This is never an alert itself, as that could repeat for
    /// ever.
    fn lost(&mut self, alert: &Alert, why: &str) {
        let Alert {
            service, message, ..
        } = alert;
        self.effects
            .notify(&format!("{service}: an alert was lost ({message}): {why}"));
    }

    pub(super) fn alert_event(&mut self, event: AlertEvent) {
        match event {
            AlertEvent::Tried(name, alert, answer, why) => {
                self.webhook_tried(&name, &alert, answer, &why);
            }
            AlertEvent::Due(name) => self.try_webhook(&name),
            AlertEvent::Said(name, text) => {
                let text = format!("{name}: the alert command reported: {text}");
                self.effects.notify(&text);
            }
            // The event only wakes the loop, which checks the time in any case.
            AlertEvent::Enough => {}
        }
    }

    /// Passes the next waiting alert to the service's command, if that is not running.
    fn run_alert_command(&mut self, name: &ServiceName) {
        while let Some(outbox) = self.alerts.outboxes.get_mut(name)
            && !outbox.is_running
            && let Some(alert) = outbox.for_command.pop_front()
        {
            let started = match self.engine.find(name.as_str()) {
                Some(id) => self.start_alert_command(id, &alert),
                None => Err(REMOVED.into()),
            };
            match started {
                Ok(()) => {
                    if let Some(outbox) = self.alerts.outboxes.get_mut(name) {
                        outbox.is_running = true;
                        outbox.passed = Some(alert);
                    }
                }
                Err(why) => self.lost(&alert, &why.to_string()),
            }
        }
    }

    fn start_alert_command(
        &mut self,
        id: ServiceId,
        alert: &Arc<Alert>,
    ) -> Result<(), StartFailure> {
        let service = self.services.get(&id).ok_or(REMOVED)?;
        let on_alert = service.spec.on_alert().filter(|it| it.exec().is_some());
        let limit = on_alert.ok_or("its definition no longer contains a command")?;
        let limit = limit.timeout();
        let ticket = self.ticket();
        self.effects.start_alert_command(id, ticket, alert, limit)?;
        let purpose = Purpose::Alert(alert.service.clone());
        self.helpers.add(ticket, id, purpose, limit);
        Ok(())
    }

    pub(super) fn alert_command_ended(
        &mut self,
        name: &ServiceName,
        answer: Result<(), CommandFailure>,
    ) {
        let outbox = self.alerts.outboxes.get_mut(name);
        let passed = outbox.and_then(|outbox| {
            outbox.is_running = false;
            outbox.passed.take()
        });
        if let (Some(alert), Err(why)) = (passed, answer) {
            self.lost(&alert, &format!("the alert command failed: {why}"));
        }
        self.run_alert_command(name);
    }

    /// Sends the alert that is due first to the service's webhook, unless a request is running.
    fn try_webhook(&mut self, name: &ServiceName) {
        let now = self.now();
        let Some(outbox) = self.alerts.outboxes.get_mut(name) else {
            return;
        };
        let due = outbox.for_webhook.iter().filter(|it| it.due <= now);
        let Some(next) = due.min_by_key(|it| it.due).filter(|_| !outbox.is_trying) else {
            return;
        };
        outbox.is_trying = true;
        let Delivery {
            service, spec, dir, ..
        } = next;
        let (service, spec, dir) = (*service, Arc::clone(spec), dir.clone());
        let alert = Arc::clone(&next.alert);
        let ticket = self.ticket();
        let webhook = spec.on_alert().and_then(OnAlert::webhook);
        let limit = webhook.map(|webhook| webhook.timeout()).unwrap_or_default();
        match self
            .effects
            .start_request(&spec, &dir, ticket, &alert, limit)
        {
            Ok(()) => self.helpers.add(ticket, service, Purpose::Webhook, limit),
            Err(why) => {
                let why = why.to_string();
                let tried = AlertEvent::Tried(name.clone(), alert, Answer::Nothing, why);
                self.effects.later(Duration::ZERO, Message::Alert(tried));
            }
        }
    }

    fn webhook_tried(&mut self, name: &ServiceName, alert: &Arc<Alert>, answer: Answer, why: &str) {
        let now = self.now();
        let Some(outbox) = self.alerts.outboxes.get_mut(name) else {
            return;
        };
        outbox.is_trying = false;
        let mut waiting = outbox.for_webhook.iter_mut();
        // The alert may have been given up meanwhile.
        if let Some(at) = waiting.position(|it| Arc::ptr_eq(&it.alert, alert)) {
            let delivery = &mut outbox.for_webhook[at];
            let next = delivery.tries.classify(answer, now);
            let next = match (next, self.alerts.ends) {
                (Next::Again(pause), Some((end, _))) if now + pause > end => Next::Lost,
                (next, _) => next,
            };
            let webhook = delivery.spec.on_alert().and_then(OnAlert::webhook);
            let url = webhook.map(|it| it.url().to_string()).unwrap_or_default();
            match next {
                Next::Delivered => drop(outbox.for_webhook.remove(at)),
                Next::Lost => {
                    outbox.for_webhook.remove(at);
                    self.lost(alert, &format!("{url}: {why}"));
                }
                Next::Again(pause) => {
                    delivery.due = now + pause;
                    if delivery.tries.failed() == 1 {
                        let problem =
                            format!("{name}: cannot deliver an alert to {url}: {why}; retrying");
                        self.effects.notify(&problem);
                    }
                    let due = AlertEvent::Due(name.clone());
                    self.effects.later(pause, Message::Alert(due));
                }
            }
        }
        self.try_webhook(name);
    }

    /// Waits for the delivery of alerts after the services are down. The supervisor exits as soon
    /// as the outboxes are empty or the time is over; the remaining alerts are reported as lost. A
    /// second interrupt ends the wait at once.
    pub(super) fn end_alerts(&mut self) {
        if self.alerts.are_out() {
            return;
        }
        let now = self.now();
        let [told, by_itself] = FAREWELL;
        match self.alerts.ends {
            Some((end, interrupts)) if interrupts == self.interrupts => {
                if now >= end {
                    self.give_alerts_up();
                }
            }
            _ if self.interrupts > 1 => self.give_alerts_up(),
            _ => {
                let left = match self.interrupts {
                    0 => by_itself,
                    _ => told,
                };
                self.alerts.ends = Some((now + left, self.interrupts));
                let enough = Message::Alert(AlertEvent::Enough);
                self.effects.later(left, enough);
                let text = format!(
                    "waiting up to {} for the delivery of {} alerts",
                    Human(left),
                    self.alerts.len()
                );
                self.effects.notify(&text);
                let names: Vec<_> = self.alerts.outboxes.keys().cloned().collect();
                for name in names {
                    // Do not wait for pauses that would end after the time limit.
                    let outbox = self.alerts.outboxes.get_mut(&name);
                    for delivery in outbox.into_iter().flat_map(|it| &mut it.for_webhook) {
                        if delivery.due > now + left {
                            delivery.due = now;
                        }
                    }
                    self.try_webhook(&name);
                }
            }
        }
    }

    /// Resumes unlimited delivery, as services are running again.
    pub(super) fn go_on_with_alerts(&mut self) {
        self.alerts.ends = None;
    }

    fn give_alerts_up(&mut self) {
        let mut lost = Vec::new();
        for outbox in self.alerts.outboxes.values_mut() {
            lost.extend(outbox.passed.take());
            lost.extend(outbox.for_command.drain(..));
            lost.extend(outbox.for_webhook.drain(..).map(|it| it.alert));
        }
        for alert in lost {
            self.lost(&alert, "the supervisor is exiting");
        }
        self.kill_all_helpers();
    }
}
