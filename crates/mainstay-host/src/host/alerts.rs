//! Delivery of alerts to a command and a webhook, in addition to the system's log (docs/alerts.md).
//! The core decides which alerts are sent and when a delivery is retried.
//!
//! Alerts wait in their service's outbox: in order for its command, and each with a schedule of its
//! own for its webhook. A service runs at most one command and one webhook request at a time. The
//! command is a child process like any helper, a request is a thread that lasts as long as the
//! request, and pauses are timers of the loop. So nothing here blocks, except at the end: see
//! [`Host::end_alerts`].

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mainstay_core::alert::{Answer, Limiter, Next, Tries};
use mainstay_core::engine::{Fact, Halt, Human, RolloutRole, ServiceId};
use mainstay_core::spec::{OnAlert, ServiceName, Spec};
use mainstay_sys as sys;
use serde::Serialize;

use super::children::{Purpose, Share, spawn};
use super::{Host, Message, report, seed};
use crate::launch;
use crate::webhook;

/// The number of alerts that may wait for one destination. Further alerts displace the oldest.
const WAITING: usize = 64;
/// The longest time that the supervisor waits for alerts before it exits: if it was told to stop,
/// and if it ends by itself, usually after a halt.
const FAREWELL: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(30)];
/// The number of bytes of an alert command's output that are shown.
const SHOWN_OUTPUT: u64 = 2000;

/// An alert to deliver.
pub(super) struct Alert {
    /// The ID, which is the same in every attempt.
    id: String,
    service: ServiceName,
    message: String,
    /// The environment variables for the command, in addition to the document.
    variables: [(&'static str, String); 5],
    document: Vec<u8>,
}

/// The event as it is reported everywhere, and the data that only recipients outside this machine
/// need.
#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    host: &'a str,
    /// The number of the service's alerts that were suppressed since the last one that was sent.
    suppressed: u64,
    #[serde(flatten)]
    line: report::Line<'a>,
}

/// An event of the delivery of alerts.
pub(super) enum AlertEvent {
    /// The result of a request to a service's webhook.
    Tried(ServiceName, Arc<Alert>, Answer, String),
    /// The pause of this service's webhook is over.
    Due(ServiceName),
    /// The time for the last alerts is over.
    Enough,
    /// The output of this service's alert command.
    Said(ServiceName, String),
}

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
    /// The alert that was passed to the running command.
    running: Option<Arc<Alert>>,
    for_webhook: VecDeque<Delivery>,
    is_trying: bool,
}

/// An alert that a webhook has not accepted yet.
struct Delivery {
    alert: Arc<Alert>,
    /// The spec that configures the webhook.
    spec: Arc<Spec>,
    /// The directory of its manifest.
    dir: PathBuf,
    tries: Tries,
    due: Instant,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.for_command.is_empty() && self.running.is_none() && self.for_webhook.is_empty()
    }

    fn len(&self) -> usize {
        self.for_command.len() + usize::from(self.running.is_some()) + self.for_webhook.len()
    }
}

impl Alert {
    fn new(
        time: &str,
        (service, role): (&ServiceName, Option<RolloutRole>),
        fact: &Fact,
        suppressed: u64,
    ) -> Self {
        let id = new_id();
        let line = report::Line::new(time, (service.as_str(), role), fact);
        let message = line.message.clone();
        let host = mainstay_logs::this_host();
        let document = serde_json::to_value(Document {
            id: &id,
            host: &host,
            suppressed,
            line,
        });
        let document = document.unwrap_or_default();
        let event = document["event"].as_str().unwrap_or_default().to_owned();
        Self {
            variables: [
                ("MAINSTAY_ALERT_ID", id.clone()),
                ("MAINSTAY_EVENT", event),
                ("MAINSTAY_MESSAGE", message.replace('\0', " ")),
                ("MAINSTAY_SUPPRESSED", suppressed.to_string()),
                ("MAINSTAY_TIME", time.to_owned()),
            ],
            id,
            service: service.clone(),
            message,
            document: document.to_string().into_bytes(),
        }
    }
}

impl Host {
    /// Sends an alert, unless the recipient's limit is exceeded.
    pub(super) fn alert(
        &mut self,
        id: ServiceId,
        time: &str,
        role: Option<RolloutRole>,
        fact: &Fact,
    ) {
        if self.reporter.is_silent() {
            return;
        }
        let Some(runtime) = self.runtimes.get(&id) else {
            return;
        };
        let name = runtime.spec.name().clone();
        // During a trial there are two definitions. The recipients of the active one get the alerts
        // of both.
        let id = self.engine.find(name.as_str()).unwrap_or(id);
        let Some(runtime) = self.runtimes.get(&id) else {
            return;
        };
        let spec = Arc::clone(&runtime.spec);
        let Some(on_alert) = spec.on_alert() else {
            return;
        };
        if let Fact::Halted {
            why: Halt::Need(need),
        } = fact
            && let Some(need) = self.engine.find(need.as_str())
            && let Some(runtime) = self.runtimes.get(&need)
            && runtime.spec.on_alert() == Some(on_alert)
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
                    self.reporter.notify(&format!(
                        "{name}: more than {} alerts within {}: further alerts are counted but not sent, except halts and crash loops",
                        limit.alerts(),
                        Human(limit.window())
                    ));
                }
                return;
            }
        };
        let alert = Arc::new(Alert::new(time, (&name, role), fact, suppressed));
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
                tries: Tries::new(webhook.deadline(), now, seed()),
                due: Instant::now(),
                spec: Arc::clone(&spec),
                dir: runtime.dir.clone(),
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
        self.reporter
            .notify(&format!("{service}: an alert was lost ({message}): {why}"));
    }

    pub(super) fn alert_event(&mut self, event: AlertEvent) {
        match event {
            AlertEvent::Tried(name, alert, answer, why) => {
                self.webhook_tried(&name, &alert, answer, &why);
            }
            AlertEvent::Due(name) => self.try_webhook(&name),
            AlertEvent::Said(name, text) => {
                self.reporter
                    .notify(&format!("{name}: the alert command reported: {text}"));
            }
            // The event only wakes the loop, which checks the time in any case.
            AlertEvent::Enough => {}
        }
    }

    /// Passes the next waiting alert to the service's command, if that is not running.
    fn run_alert_command(&mut self, name: &ServiceName) {
        while let Some(outbox) = self.alerts.outboxes.get_mut(name)
            && outbox.running.is_none()
            && let Some(alert) = outbox.for_command.pop_front()
        {
            let started = match self.engine.find(name.as_str()) {
                Some(id) => self.start_alert_command(id, &alert),
                None => Err("it was removed".to_owned()),
            };
            match started {
                Ok(()) => {
                    if let Some(outbox) = self.alerts.outboxes.get_mut(name) {
                        outbox.running = Some(alert);
                    }
                }
                Err(why) => self.lost(&alert, &why),
            }
        }
    }

    /// Starts the command with the service's account and no other setting of its definition. A
    /// setting that prevents the service from starting must not prevent the alert about it.
    fn start_alert_command(&mut self, id: ServiceId, alert: &Arc<Alert>) -> Result<(), String> {
        let runtime = self.runtimes.get(&id).ok_or("it was removed")?;
        let spec = Arc::clone(&runtime.spec);
        let command = spec
            .on_alert()
            .and_then(|it| Some((it.exec()?, it.timeout())));
        let Some((argv, limit)) = command else {
            return Err("its definition no longer contains a command".to_owned());
        };
        let failed = |error: io::Error| format!("create a pipe: {error}");
        let (input, mut to_command) = io::pipe().map_err(failed)?;
        let (from_command, output) = io::pipe().map_err(failed)?;
        let user = &runtime.user;
        let user = user.as_ref().map_err(String::clone)?.as_ref();
        let mut environment = launch::inherited_by(&spec, user, &self.inherited);
        environment.insert("MAINSTAY_SERVICE".into(), spec.name().as_str().into());
        environment.insert(sys::SUPERVISED_FROM.into(), self.state.mark().into());
        for (name, value) in &alert.variables {
            environment.insert(name.into(), value.into());
        }
        // This is the only directory that every account can enter.
        let working_dir = if cfg!(windows) {
            self.state.path()
        } else {
            Path::new("/")
        };
        let streams = [&output, &output].map(sys::stream);
        let input_stream = Some(sys::stream(&input));
        let tree = spawn(
            &mut self.processes,
            (runtime, Share::Account),
            argv,
            environment,
            working_dir,
            (input_stream, streams),
            &[],
        )
        .map_err(|failure| failure.to_string())?;
        drop((input, output));
        let name = alert.service.clone();
        self.keep_helper(id, tree, Purpose::Alert(name.clone()), limit);
        let (alert, messages) = (Arc::clone(alert), self.messages.clone());
        let talk = move || {
            // The command may ignore its input.
            let _ = to_command.write_all(&alert.document);
            let _ = to_command.write_all(b"\n");
            drop(to_command);
            let mut said = Vec::new();
            let mut from_command = from_command.take(SHOWN_OUTPUT);
            let _ = from_command.read_to_end(&mut said);
            // Read the rest, so that the command does not block on a full pipe.
            let _ = io::copy(&mut from_command.into_inner(), &mut io::sink());
            let said = String::from_utf8_lossy(&said);
            let said = said.split(|c: char| c.is_whitespace() || c.is_control());
            let said: Vec<&str> = said.filter(|word| !word.is_empty()).collect();
            let said = said.join(" ");
            if !said.is_empty() {
                messages.send(Message::Alert(AlertEvent::Said(name, said)));
            }
        };
        thread::Builder::new()
            .name("mainstay-alert".to_owned())
            .spawn(talk)
            .map(drop)
            .map_err(|error| format!("start a thread: {error}"))
    }

    pub(super) fn alert_command_ended(&mut self, name: &ServiceName, answer: Result<(), String>) {
        let outbox = self.alerts.outboxes.get_mut(name);
        let running = outbox.and_then(|outbox| outbox.running.take());
        if let (Some(alert), Err(why)) = (running, answer) {
            self.lost(&alert, &format!("the alert command failed: {why}"));
        }
        self.run_alert_command(name);
    }

    /// Sends the alert that is due first to the service's webhook, unless a request is running.
    fn try_webhook(&mut self, name: &ServiceName) {
        let Some(outbox) = self.alerts.outboxes.get_mut(name) else {
            return;
        };
        let now = Instant::now();
        let due = outbox.for_webhook.iter().filter(|it| it.due <= now);
        let Some(next) = due.min_by_key(|it| it.due).filter(|_| !outbox.is_trying) else {
            return;
        };
        outbox.is_trying = true;
        let (spec, dir, alert) = (
            Arc::clone(&next.spec),
            next.dir.clone(),
            Arc::clone(&next.alert),
        );
        let (name, messages) = (name.clone(), self.messages.clone());
        let report = {
            let alert = Arc::clone(&alert);
            move |(answer, why)| {
                messages.send(Message::Alert(AlertEvent::Tried(name, alert, answer, why)));
            }
        };
        let ask = {
            let report = report.clone();
            move || {
                if let Some(webhook) = spec.on_alert().and_then(OnAlert::webhook) {
                    let post = || webhook::post(webhook, &dir, &alert.id, &alert.document);
                    // The client resolves names in another thread and panics if it cannot start
                    // one.
                    let posted = panic::catch_unwind(AssertUnwindSafe(post));
                    let lost = |_| {
                        (
                            Answer::Nothing,
                            "the resolver thread could not be started".to_owned(),
                        )
                    };
                    report(posted.unwrap_or_else(lost));
                }
            }
        };
        let thread = thread::Builder::new().name("mainstay-alert".to_owned());
        if let Err(error) = thread.spawn(ask) {
            report((Answer::Nothing, format!("start a thread: {error}")));
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
                (Next::Again(pause), Some((end, _))) if Instant::now() + pause > end => Next::Lost,
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
                    delivery.due = Instant::now() + pause;
                    if delivery.tries.failed() == 1 {
                        let problem =
                            format!("{name}: cannot deliver an alert to {url}: {why}; retrying");
                        self.reporter.notify(&problem);
                    }
                    self.send_later(pause, AlertEvent::Due(name.clone()));
                }
            }
        }
        self.try_webhook(name);
    }

    fn send_later(&self, pause: Duration, event: AlertEvent) {
        let messages = self.messages.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            messages.send(Message::Alert(event));
        });
    }

    /// Returns whether no alert is waiting or being delivered.
    pub(super) fn alerts_are_out(&self) -> bool {
        self.alerts.outboxes.values().all(Outbox::is_empty)
    }

    /// Waits for the delivery of alerts after the services are down. The supervisor exits as soon
    /// as the outboxes are empty or the time is over; the remaining alerts are reported as lost. A
    /// second interrupt ends the wait at once.
    pub(super) fn end_alerts(&mut self) {
        if self.alerts_are_out() {
            return;
        }
        let now = Instant::now();
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
                self.send_later(left, AlertEvent::Enough);
                let count: usize = self.alerts.outboxes.values().map(Outbox::len).sum();
                self.reporter.notify(&format!(
                    "waiting up to {} for the delivery of {count} alerts",
                    Human(left)
                ));
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
        for (_, outbox) in std::mem::take(&mut self.alerts.outboxes) {
            let of_webhook = outbox.for_webhook.into_iter().map(|it| it.alert);
            let of_command = outbox.running.into_iter().chain(outbox.for_command);
            for alert in of_command.chain(of_webhook) {
                self.lost(&alert, "the supervisor is exiting");
            }
        }
        for helper in self.helpers.values() {
            // If this fails, its time limit ends it.
            let _ = helper.tree.kill();
        }
    }
}

/// Returns an ID that was not used before.
fn new_id() -> String {
    let mut bytes = [0; 16];
    // Without the system's random numbers, the ID is still unique on this machine.
    if getrandom::fill(&mut bytes).is_err() {
        bytes[..8].copy_from_slice(&seed().to_ne_bytes());
        bytes[8..].copy_from_slice(&seed().to_ne_bytes());
    }
    format!("alert_{:032x}", u128::from_ne_bytes(bytes))
}
