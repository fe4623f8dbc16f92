//! Delivery of alerts to a command and a webhook, in addition to the system's log (docs/alerts.md).
//! The core decides which alerts are sent and when a delivery is retried.
//!
//! Alerts wait in their service's outbox: in order for its command, and each with a schedule of its
//! own for its webhook. A service runs at most one command and one webhook request at a time. Both
//! are child processes like any helper: a request is this program itself, so that no input from
//! another machine is parsed in the supervisor. Pauses are timers of the loop. So nothing here
//! blocks, except at the end: see [`Host::end_alerts`].

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use mainstay_core::alert::{Answer, Limiter, Next, Tries};
use mainstay_core::engine::{Fact, Halt, Human, RolloutRole, ServiceId};
use mainstay_core::failure::chain;
use mainstay_core::spec::{Limits, OnAlert, ServiceName, Spec};
use mainstay_store::state_dir::StateDir;
use mainstay_sys as sys;
use mainstay_sys::threads::{self, Stack};
use serde::Serialize;

use super::children::{Share, spawn};
use super::helpers::Purpose;
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
/// The number of bytes of a request's output that are read. Its result is shorter.
const LONGEST_RESULT: u64 = 64 << 10;

/// An alert to deliver.
pub(super) struct Alert {
    /// The ID, which is the same in every attempt.
    id: String,
    service: ServiceName,
    message: String,
    /// The environment variables for the command, in addition to the document.
    variables: [(&'static str, String); 5],
    document: String,
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
    service: ServiceId,
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
            document: document.to_string(),
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
                service: id,
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
        let pipes = Pipes::new()?;
        let user = &runtime.user;
        let user = user.as_ref().map_err(String::clone)?.as_ref();
        let mut environment = launch::inherited_by(&spec, user, &self.inherited);
        environment.insert("MAINSTAY_SERVICE".into(), spec.name().as_str().into());
        environment.insert(sys::SUPERVISED_FROM.into(), self.state.mark().into());
        for (name, value) in &alert.variables {
            environment.insert(name.into(), value.into());
        }
        let tree = spawn(
            &mut self.processes,
            (runtime, Share::Account),
            argv,
            environment,
            open_dir(&self.state),
            (Some(sys::stream(&pipes.input)), pipes.outputs()),
            &[],
        )
        .map_err(|failure| failure.to_string())?;
        let name = alert.service.clone();
        self.keep_helper(id, tree, Purpose::Alert(name.clone()), limit);
        let messages = self.messages.clone();
        let document = format!("{}\n", alert.document);
        pipes.talk(document.into_bytes(), SHOWN_OUTPUT, move |said| {
            let said = in_one_line(&said);
            if !said.is_empty() {
                messages.send(Message::Alert(AlertEvent::Said(name, said)));
            }
        })
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
        let Delivery {
            service, spec, dir, ..
        } = next;
        let (service, spec, dir) = (*service, Arc::clone(spec), dir.clone());
        let alert = Arc::clone(&next.alert);
        if let Err(why) = self.start_request(service, &spec, &dir, &alert) {
            let tried = AlertEvent::Tried(name.clone(), alert, Answer::Nothing, why);
            self.messages.send(Message::Alert(tried));
        }
    }

    /// Starts this program as the process that sends an alert to a webhook. The key and the path of
    /// the URL are secrets, so the process gets the request through its standard input, and reads
    /// the key itself.
    fn start_request(
        &mut self,
        service: ServiceId,
        spec: &Spec,
        dir: &Path,
        alert: &Arc<Alert>,
    ) -> Result<(), String> {
        let webhook = spec.on_alert().and_then(OnAlert::webhook);
        let webhook = webhook.ok_or("its definition no longer contains a webhook")?;
        let request = webhook::request(webhook, dir, &alert.id, &alert.document)?;
        let pipes = Pipes::new()?;
        let program = launch::own_program().map_err(|error| format!("find mainstay: {error}"))?;
        let mut environment = self.inherited.clone();
        environment.extend(launch::credentials());
        environment.insert("MAINSTAY_SERVICE".into(), spec.name().as_str().into());
        environment.insert(sys::SUPERVISED_FROM.into(), self.state.mark().into());
        let environment: Vec<_> = environment.into_iter().collect();
        let [stdout, stderr] = pipes.outputs();
        let tree = self.processes.spawn(&sys::Command {
            name: spec.name().as_str(),
            program: &program,
            argv: &["mainstay".into(), webhook::VERB.into()],
            env: &environment,
            working_dir: open_dir(&self.state),
            stdin: Some(sys::stream(&pipes.input)),
            stdout,
            stderr,
            user: None,
            capabilities: &[],
            priority: None,
            cpus: &[],
            sockets: &[],
            limits: Limits::default(),
        });
        let tree = tree.map_err(|error| chain(&error))?;
        let (ended, exit) = mpsc::channel();
        self.keep_helper(service, tree, Purpose::Webhook(ended), webhook.timeout());
        let (name, alert, messages) = (
            spec.name().clone(),
            Arc::clone(alert),
            self.messages.clone(),
        );
        pipes.talk(request, LONGEST_RESULT, move |output| {
            // The process has closed its output. The loop is about to reap it, unless that ends.
            let Ok(exit) = exit.recv() else { return };
            let (answer, why) = exit.and_then(|()| webhook::result(&output)).unwrap_or_else(
                |why| match in_one_line(&output) {
                    said if said.is_empty() => (Answer::Nothing, why),
                    said => (Answer::Nothing, format!("{why}: {said}")),
                },
            );
            messages.send(Message::Alert(AlertEvent::Tried(name, alert, answer, why)));
        })
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

/// The pipes to and from a process that delivers an alert.
struct Pipes {
    input: PipeReader,
    to_process: PipeWriter,
    from_process: PipeReader,
    output: PipeWriter,
}

impl Pipes {
    fn new() -> Result<Self, String> {
        let pipe = || io::pipe().map_err(|error| format!("create a pipe: {error}"));
        let ((input, to_process), (from_process, output)) = (pipe()?, pipe()?);
        Ok(Self {
            input,
            to_process,
            from_process,
            output,
        })
    }

    /// Returns the standard output and the standard error of the process.
    fn outputs(&self) -> [sys::Stream<'_>; 2] {
        [&self.output, &self.output].map(sys::stream)
    }

    /// Starts a thread that writes a document to the process, reads its output to the end, and
    /// passes on the first `most` bytes.
    fn talk(
        self,
        document: Vec<u8>,
        most: u64,
        done: impl FnOnce(Vec<u8>) + Send + 'static,
    ) -> Result<(), String> {
        let (mut to_process, from_process) = (self.to_process, self.from_process);
        let talk = move || {
            // The process may ignore its input.
            let _ = to_process.write_all(&document);
            drop(to_process);
            let mut said = Vec::new();
            let mut from_process = from_process.take(most);
            let _ = from_process.read_to_end(&mut said);
            // Read the rest, so that the process does not block on a full pipe.
            let _ = io::copy(&mut from_process.into_inner(), &mut io::sink());
            done(said);
        };
        threads::spawn("mainstay-alert", Stack::Small, talk)
            .map(drop)
            .map_err(|error| format!("start a thread: {error}"))
    }
}

/// Returns a working directory that every account can enter.
fn open_dir(state: &StateDir) -> &Path {
    if cfg!(windows) {
        state.path()
    } else {
        Path::new("/")
    }
}

/// Formats the output of a process as one line.
fn in_one_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
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
