//! The processes that deliver alerts: the alert command, and requests to a webhook. A request is
//! this program itself, so that no input from another machine is parsed in the supervisor.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use mainstay_core::alert::Answer;
use mainstay_core::engine::{CommandFailure, ServiceId, StartFailure};
use mainstay_core::failure::chain;
use mainstay_core::spec::{Limits, OnAlert, Spec};
use mainstay_core::trace::TraceContext;
use mainstay_store::state_dir::StateDir;
use mainstay_sys as sys;
use mainstay_sys::threads::{self, Stack};

use super::Executor;
use super::spawn::{Share, spawn};
use crate::host::alert::{Alert, AlertEvent};
use crate::host::effects::{Deliveries, Message, Programs as _, REMOVED, Ticket};
use crate::launch;
use crate::webhook::{self, NoResult};

/// The number of bytes of an alert command's output that are shown.
const SHOWN_OUTPUT: u64 = 2000;
/// The number of bytes of a request's output that are read. Its result is shorter.
const LONGEST_RESULT: u64 = 64 << 10;

impl Deliveries for Executor {
    /// Starts the alert command with the service's account and no other setting of its definition.
    /// A setting that prevents the service from starting must not prevent the alert about it.
    fn start_alert_command(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        alert: &Arc<Alert>,
        limit: Duration,
    ) -> Result<(), StartFailure> {
        let seat = self.seats.get(&id).ok_or(REMOVED)?;
        let spec = Arc::clone(&seat.spec);
        let Some(argv) = spec.on_alert().and_then(OnAlert::exec) else {
            return Err("its definition no longer contains a command".into());
        };
        let pipes = Pipes::new()?;
        let user = seat.account.as_ref().map_err(Clone::clone)?.as_ref();
        let mut environment = launch::inherited_by(&spec, user, &self.inherited);
        environment.insert("MAINSTAY_SERVICE".into(), spec.name().as_str().into());
        environment.insert(sys::SUPERVISED_FROM.into(), self.state.mark().into());
        let variables = alert.variables.iter().cloned();
        let cause = alert.cause.iter().flat_map(TraceContext::variables);
        for (name, value) in variables.chain(cause) {
            environment.insert(name.into(), value.into());
        }
        let tree = spawn(
            &mut self.processes,
            (seat, Share::Account),
            argv,
            environment,
            open_dir(&self.state),
            (Some(sys::stream(&pipes.input)), pipes.outputs()),
            &[],
        )?;
        self.keep_helper(ticket, tree, limit);
        let (name, messages) = (alert.service.clone(), self.messages.clone());
        let document = format!("{}\n", alert.document);
        let talking = pipes.talk(document.into_bytes(), SHOWN_OUTPUT, move |said| {
            let said = in_one_line(&said);
            if !said.is_empty() {
                messages.send(Message::Alert(AlertEvent::Said(name, said)));
            }
        });
        // The dispatcher does not know a helper that it could not start.
        talking.inspect_err(|_| self.kill_helper(ticket))
    }

    /// Starts this program as the process that sends an alert to a webhook. The key and the path of
    /// the URL are secrets, so the process gets the request through its standard input, and reads
    /// the key itself.
    fn start_request(
        &mut self,
        spec: &Spec,
        dir: &Path,
        ticket: Ticket,
        alert: &Arc<Alert>,
        limit: Duration,
    ) -> Result<(), StartFailure> {
        let webhook = spec.on_alert().and_then(OnAlert::webhook);
        let webhook = webhook.ok_or("its definition no longer contains a webhook")?;
        let request = webhook::request(
            webhook,
            dir,
            (&alert.id, &alert.document),
            alert.cause.as_ref(),
        );
        let request = request.map_err(|error| format!("create the request: {error}"))?;
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
        self.requests.insert(ticket, ended);
        self.keep_helper(ticket, tree, limit);
        let (name, alert) = (spec.name().clone(), Arc::clone(alert));
        let messages = self.messages.clone();
        let talking = pipes.talk(request, LONGEST_RESULT, move |output| {
            // The process has closed its output. The loop is about to reap it, unless that ends.
            let Ok(exit) = exit.recv() else { return };
            let exit = exit.map_err(NoResult::Process);
            let (answer, why) = exit.and_then(|()| webhook::result(&output)).unwrap_or_else(
                |why| match in_one_line(&output) {
                    said if said.is_empty() => (Answer::Nothing, why.to_string()),
                    said => (Answer::Nothing, format!("{why}: {said}")),
                },
            );
            messages.send(Message::Alert(AlertEvent::Tried(name, alert, answer, why)));
        });
        talking.inspect_err(|_| {
            self.requests.remove(&ticket);
            self.kill_helper(ticket);
        })
    }

    fn request_ended(&mut self, ticket: Ticket, result: Result<(), CommandFailure>) {
        if let Some(thread) = self.requests.remove(&ticket) {
            // The thread is gone if it could not be started.
            let _ = thread.send(result);
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
    fn new() -> Result<Self, StartFailure> {
        let pipe =
            || io::pipe().map_err(|error| StartFailure::from(format!("create a pipe: {error}")));
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
    ) -> Result<(), StartFailure> {
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
            .map_err(|error| format!("start a thread: {error}").into())
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
