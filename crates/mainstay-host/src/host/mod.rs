//! The host: performs the engine's decisions on real processes, files and sockets.
//!
//! It runs one loop on one thread. The sources of events are child processes (`mainstay_sys`), the
//! log thread (`mainstay_logs`), the control socket (`control`), signals, probe results and the
//! engine's deadline. Each is translated into an [`Event`] or a request, and the engine's actions
//! are performed in order before the loop waits again. An idle host sleeps without a timer. The log
//! thread owns the services' output: a slow disk does not delay restarts, and frequent restarts do
//! not delay log lines.

mod alerts;
mod children;
mod clock;
mod control;
mod daemon;
mod delay;
mod facts;
mod helpers;
mod interrupts;
mod ledger;
mod managed;
mod notices;
mod notify;
mod orphaned;
mod possession;
mod probe;
mod recovery;
#[cfg(unix)]
mod release;
mod report;
mod requests;
mod screen;
mod snapshots;
mod sockets;
mod update;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use mainstay_core::engine::{
    Action, Engine, Event, Exit, RecoveredState, RunId, ServiceId, Snapshotted, Token,
};
use mainstay_core::failure::{Code, Failure, chain};
use mainstay_core::log::redact::RedactionKey;
use mainstay_core::registry::TextDigest;
use mainstay_core::spec::{ServiceName, Spec, redact::RedactWith};
use mainstay_core::time::Instant;
use mainstay_logs::{EventLog, LogEnds, LogEvent, Logs, Lost, Pipes, Places, SinkEvent, Task};
use mainstay_store::embedded::{self, Definition, Desired};
use mainstay_store::ledger::{Ledger, ManifestCopy};
use mainstay_store::snapshot::{CallOff, Which};
use mainstay_store::start_failure::StartFailure;
use mainstay_store::state_dir::{Lock, StateDir};
use mainstay_store::{completed, halted};
use mainstay_sys::{self as sys, Processes, Tree, TreeId};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

use self::alerts::{AlertEvent, Alerts};
use self::clock::{Clock, ToLoop};
use self::control::{Command, Server};
use self::daemon::Daemon;
use self::delay::Deadlines;
use self::helpers::Helper;
use self::interrupts::{Interrupt, Interrupts};
pub use self::managed::Started;
use self::notices::Notices;
use self::notify::NotifySocket;
pub use self::orphaned::{Orphans, orphans, stop_without_supervisor};
use self::possession::Possession;
use self::recovery::{RecoveredService, Recovery};
use self::report::Reporter;
pub use self::report::{Output, height as table_height};
use self::requests::{LOGS_BEHIND, Waiter};
use self::snapshots::Taking;
use self::sockets::Sockets;
use self::update::Update;
use crate::definitions;
use crate::launch;
use crate::output::Foreign;
use crate::preflight::{self, user_of};
use mainstay_api::endpoint;

/// The configuration of a supervisor: its services, state directory and output.
pub struct Options {
    /// The services to supervise.
    pub services: Services,
    /// The state directory.
    pub state: StateDir,
    /// The receiver of the supervisor's own messages.
    pub output: Output,
    /// The filter for the services' log lines. `None` if they are not shown.
    pub follow: Option<Foreign>,
    /// The service manager that started this process to run the single service of these specs, if
    /// any.
    pub manager: Option<Started>,
}

/// The services to supervise.
pub enum Services {
    /// Services of a manifest. The supervisor exits when all of them are down.
    OfManifest {
        /// The selected services.
        specs: Vec<Spec>,
        /// The manifest's name as the operator gave it.
        manifest: String,
        /// The manifest's contents.
        copy: ManifestCopy,
        /// The manifest's services that were not selected.
        left_out: Vec<String>,
    },
    /// The services installed in this state directory, now or later.
    Installed {
        /// Set if the supervisor exits when all of them are down.
        exits_when_done: bool,
    },
}

/// The delay after start-up before resources used only for start-up are released.
const SETTLED: Duration = Duration::from_millis(250);

/// The time within which a signal counts as a repetition of the first one. A wrapper or a terminal
/// may send the same signal to both the process group and the process, before the operator has seen
/// the prompt about a second signal.
const ECHO: Duration = Duration::from_millis(500);

/// A message to the event loop from one of its helpers.
enum Message {
    Engine(Event),
    /// Notifications from a run.
    Notices(Notices),
    Log(LogEvent),
    /// All output and notifications that a run sent before it exited have been processed.
    Exited(ServiceId, RunId),
    /// The time limit of a helper command has passed. `was_delayed` is set if this process was
    /// delayed meanwhile.
    HelperLate {
        id: TreeId,
        was_delayed: bool,
    },
    /// The log pipes have no keeper process and need one.
    KeepPipes,
    /// The client that requested the update with this candidate has disconnected.
    ClientLeft(ServiceId),
    Alert(AlertEvent),
    /// The result of copying a service's state.
    Copied(ServiceId, Token, Result<Snapshotted, String>),
    /// The events of the start are stored.
    Settled,
    /// A message about a service, for the operator.
    Remark(ServiceId, String),
}

/// Runs the supervisor until every service is down, or the operator or service manager requests a
/// stop. Blocks.
///
/// Returns the exit code: 1 if a service halted and no stop was requested, or if a second interrupt
/// killed the services; 75 if the logs could not be completed because their disk hangs. Under a
/// service manager, a failure returns the service's own exit code, if it has one. For a daemon, see
/// `Daemon::exit_code`.
pub fn run(options: Options) -> Result<u32, Failure> {
    let lock = possession::take(&options.state)?;
    let state = options.state.clone();
    let (code, possession) = on_event_loop(Code::Failed, async {
        let (mut host, sources, server) = Host::new(options, lock)?;
        let code = host.supervise(sources).await;
        let possession = host.possession.take();
        let code = match (code, host.close()) {
            (0, Err(failure)) => failure.code() as u32,
            (code, _) => code,
        };
        server.close().await;
        Ok((code, possession))
    })?;
    mainstay_store::ledger::discard(&state);
    if let Some(possession) = possession {
        possession.into_lock().give_back();
    }
    Ok(code)
}

/// Runs work on an event loop of its own, and does not wait for a resolver that is still running
/// at the end. If the loop cannot be started, the failure has this code.
fn on_event_loop<T>(
    code: Code,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(code, format!("cannot start the event loop: {error}")))?;
    let done = tokio::task::LocalSet::new().block_on(&runtime, work);
    runtime.shutdown_background();
    done
}

/// The runtime data of one service.
struct ServiceRuntime {
    spec: Arc<Spec>,
    /// The base directory of the spec's relative paths.
    dir: PathBuf,
    /// The version of the installation; 0 if the service is not installed.
    version: u64,
    /// The definition that takes effect at the end of the current run.
    next: Option<Successor>,
    /// The digest of the definition's text, if known.
    digest: Option<TextDigest>,
    /// Set if an update changed the definition and the manifest may not contain the change yet.
    is_updated: bool,
    log: LogEnds,
    /// The tasks of its logs that fail, by the directory of the files.
    log_problems: BTreeMap<(PathBuf, Task), String>,
    /// Problems of sinks that accept no lines, by sink.
    sink_problems: BTreeMap<String, String>,
    notify: Option<NotifySocket>,
    user: User,
    sockets: Sockets,
    running: Option<Running>,
    /// Set if the last start failed because the program or a file that it needs was missing.
    lacks_part: bool,
    /// Set if an operator stopped the service by name and nobody has started it since.
    is_stopped: bool,
    /// The desired state as it was last written to disk.
    desired: Option<Desired>,
    /// The error of the last attempt to write the desired state. The write is retried.
    desired_problem: Option<String>,
    snapshot: Option<Taking>,
    /// The token of a snapshot that was cancelled before it began.
    called_off: Option<Token>,
    /// The token of the last restore, and the handle that cancels it.
    restore: Option<(Token, CallOff)>,
}

/// The account of a service, or the reason that it cannot be used. `None` is the supervisor's own.
type User = Result<Option<sys::User>, String>;

/// The next definition of a service, and its account.
struct Successor {
    definition: Definition,
    user: User,
}

impl ServiceRuntime {
    fn new(definition: Definition, user: User, log: LogEnds) -> Self {
        Self {
            spec: definition.spec,
            dir: definition.dir,
            version: definition.version,
            digest: definition.digest,
            next: None,
            is_updated: false,
            log,
            log_problems: BTreeMap::new(),
            sink_problems: BTreeMap::new(),
            notify: None,
            user,
            sockets: Sockets::default(),
            running: None,
            lacks_part: false,
            is_stopped: definition.desired == Some(Desired::Stopped),
            desired: definition.desired,
            desired_problem: None,
            snapshot: None,
            called_off: None,
            restore: None,
        }
    }

    /// Replaces the digest after the definition's text changed without changing its meaning.
    fn reword(&mut self, digest: Option<TextDigest>) {
        let running = self.running.as_mut().filter(|running| !running.is_outdated);
        if let Some(running) = running {
            running.digest.clone_from(&digest);
        }
        self.digest = digest;
    }
}

/// Returns the user if it is known and differs from the supervisor's own.
fn other(user: &User) -> Option<&sys::User> {
    user.as_ref().ok()?.as_ref()
}

/// A process tree that may have processes.
struct Running {
    run: RunId,
    tree: Tree,
    /// Set if an earlier definition started this run.
    is_outdated: bool,
    /// The digest of the definition that started this run, if known.
    digest: Option<TextDigest>,
    /// A lock that prevents a restore of the state while the run uses it.
    _in_use: Option<File>,
}

struct Host {
    engine: Engine,
    runtimes: BTreeMap<ServiceId, ServiceRuntime>,
    processes: Processes,
    helpers: HashMap<TreeId, Helper>,
    logs: Logs,
    events: EventLog,
    /// The null device, for the output of probes.
    null: File,
    manifest: String,
    /// The manifest's services that this supervisor was started without.
    left_out: Vec<String>,
    state: StateDir,
    ledger: Option<Ledger>,
    /// The orphan markers by which a later supervisor finds running processes: of those that this
    /// supervisor started, and of those that it adopted.
    orphan_markers: Vec<String>,
    /// Set while a later supervisor could adopt the running services.
    is_adoptable: bool,
    /// The hold on the state directory. `None` while this process only stops the services of a dead
    /// supervisor.
    possession: Option<Possession>,
    inherited: launch::Environment,
    clock: Clock,
    /// The start of the engine's time, as uptime of the system.
    zero: Duration,
    messages: ToLoop,
    /// Exits to report when all earlier output and notifications of the run have been processed.
    exits: BTreeMap<(ServiceId, RunId), (Exit, Instant)>,
    /// Trees whose main process has exited and that still have processes.
    sweeping: Vec<(ServiceId, RunId)>,
    /// The time of the next retry of failed writes.
    rewrites_at: Option<std::time::Instant>,
    /// The time of the next check of `sweeping`, and the interval before it. The kernel may not
    /// report that a cgroup has become empty.
    sweeps_again: Option<(std::time::Instant, Duration)>,
    waiters: Vec<Waiter>,
    updates: Vec<Update>,
    listeners: Vec<mpsc::Sender<Bytes>>,
    reporter: Reporter,
    alerts: Alerts,
    interrupts: u32,
    /// The time of the first interrupt.
    ending_since: Option<std::time::Instant>,
    /// Set if any service has ever halted.
    has_halted: bool,
    /// The daemon's data, if this process manages the services installed here.
    daemon: Option<Daemon>,
    /// Set if a service manager started this process for its single service.
    has_manager: bool,
    /// The progress of the single service, as reported to the service manager.
    progress: managed::Progress,
    /// The time at which start-up ends.
    settles_at: Option<std::time::Instant>,
    deadlines: Deadlines,
}

/// The receiver of messages with the times at which they were sent.
type FromElsewhere = UnboundedReceiver<(std::time::Instant, Message)>;

/// The event sources of the loop, apart from child processes.
struct Sources {
    messages: FromElsewhere,
    commands: UnboundedReceiver<Command>,
    interrupts: Interrupts,
}

/// The parts from which [`Host::assemble`] builds a host.
struct Parts {
    definitions: Vec<Definition>,
    /// The account of each definition, in the same order.
    users: Vec<User>,
    manifest: String,
    daemon: Option<Daemon>,
    state: StateDir,
    processes: Processes,
    inherited: launch::Environment,
    output: Output,
    /// The start of the engine's time, as in [`Recovery::zero`].
    zero: Duration,
    /// Set if some of the services are already running.
    adopts: bool,
}

impl Host {
    /// Creates a supervisor. It recovers the services of its predecessor, takes possession of the
    /// state directory and resumes the engine.
    fn new(options: Options, mut lock: Lock) -> Result<(Self, Sources, Server), Failure> {
        let Options {
            services,
            state,
            output,
            follow,
            manager,
        } = options;
        let left = recovery::remains_of(&lock, &state);
        let mut daemon = None;
        let mut others = Vec::new();
        // Concurrent installs wait until this supervisor can receive requests.
        let mut _installing = None;
        let (definitions, manifest, copy) = match services {
            Services::OfManifest {
                specs,
                manifest,
                copy,
                left_out,
            } => {
                others = left_out;
                let digest = Some(&copy.digest);
                let of_dir = |spec| Definition::of_manifest(spec, &copy.dir, digest.cloned());
                (
                    specs.into_iter().map(of_dir).collect(),
                    manifest,
                    Some(copy),
                )
            }
            Services::Installed { exits_when_done } => {
                _installing = Some(embedded::lock(&state)?);
                let living = left.as_ref().map_or_else(Vec::new, recovery::living);
                let (definitions, problems) = definitions::all(&state, &living);
                daemon = Some(Daemon::new(exits_when_done, problems));
                (definitions, "the installed services".to_owned(), None)
            }
        };
        let inherited = launch::inherited();
        let mut processes = new_processes()?;
        // Recover first: orphaned processes may use the very ports that are checked next.
        let mut recovery = Recovery::recover((&lock, left), &state, &definitions, &mut processes)?;
        // A service that cannot be started must not prevent a daemon's other services from
        // starting, nor services that are running from being supervised again.
        let starts_afresh = !recovery.adopts();
        let mut users = Vec::with_capacity(definitions.len());
        for definition in &definitions {
            let Definition { spec, dir, .. } = definition;
            if let Some(problem) = &definition.problem {
                users.push(Err(problem.clone()));
                continue;
            }
            let user = user_of(spec);
            users.push(if daemon.is_none() && starts_afresh {
                let user = user?;
                preflight::check(spec, dir, user.as_ref(), &inherited)?;
                preflight::check_state(spec, &state, user.as_ref())?;
                Ok(user)
            } else {
                user.map_err(|failure| failure.message().to_owned())
            });
        }
        let mut orphan_markers = std::mem::take(&mut recovery.orphan_markers);
        orphan_markers.push(sys::orphan_marker(&processes));
        lock.sign(&manifest, &orphan_markers)
            .map_err(failed("write the lock"))?;
        let (mut host, received) = Self::assemble(Parts {
            definitions,
            users,
            manifest,
            daemon,
            state,
            processes,
            inherited,
            output,
            zero: recovery.zero,
            adopts: recovery.adopts(),
        })?;
        host.orphan_markers = orphan_markers;
        host.left_out = others;
        let (to_host, commands) = mpsc::unbounded_channel();
        let listener = endpoint::Listener::bind(host.state.path())
            .map_err(failed("open the control socket in the state directory"))?;
        let (to_server, listeners) = mpsc::unbounded_channel();
        let possession = Possession::new(&host.state, lock, listener.place(), to_server);
        host.possession = Some(possession.map_err(failed("watch the state directory"))?);
        let interrupts = match manager {
            Some(started) => {
                StartFailure::clear(&host.state);
                halted::clear(&host.state);
                completed::clear(&host.state);
                host.serve(started, &to_host)
            }
            None => Interrupts::new(),
        };
        let interrupts = interrupts.map_err(failed("listen for signals"))?;
        let (control_closes, closing) = oneshot::channel();
        let state = host.state.clone();
        let serving = control::serve(listener, listeners, to_host, state, closing);
        let control = tokio::task::spawn_local(serving);
        if let Some((screen, foreign)) = host.reporter.screen().zip(follow) {
            host.logs.follow(screen.for_lines(foreign));
        }
        for remark in std::mem::take(&mut recovery.remarks) {
            host.reporter.notify(&remark);
        }
        for runtime in host.runtimes.values() {
            let name = runtime.spec.name();
            for remark in preflight::remarks(&runtime.spec, &runtime.dir, &host.inherited) {
                host.reporter.notify(&format!("{name}: {remark}"));
            }
        }
        host.report_problems();
        let begin_ledger = |host: &mut Self| {
            host.begin_ledger(copy.as_ref());
            // The new ledger itself records which runs are outdated, so the updated definitions are
            // not needed.
            let _ = std::fs::remove_dir_all(host.state.updated_dir());
        };
        host.take_up(recovery.services, |_| true, begin_ledger);
        host.record_all_desired();
        host.rewrite_soon();
        host.logs.begin();
        let sources = Sources {
            messages: received,
            commands,
            interrupts,
        };
        let server = Server {
            control,
            closes: control_closes,
        };
        Ok((host, sources, server))
    }

    /// Accepts requests from the service manager that started this process.
    fn serve(
        &mut self,
        started: Started,
        commands: &UnboundedSender<Command>,
    ) -> io::Result<Interrupts> {
        self.has_manager = true;
        let (interrupts, received) = mpsc::unbounded_channel();
        let line = managed::Line {
            service: self
                .runtimes
                .values()
                .next()
                .map_or_else(String::new, |runtime| runtime.spec.name().to_string()),
            commands: commands.clone(),
            interrupts,
            progress: self.progress.clone(),
        };
        tokio::task::spawn_local(line.serve(started));
        Interrupts::of_manager(received)
    }

    /// Creates a host of these services. It does not start anything.
    fn assemble(parts: Parts) -> Result<(Self, FromElsewhere), Failure> {
        let (messages, received) = mpsc::unbounded_channel();
        let messages = ToLoop(messages);
        let to_loop = messages.clone();
        let state = &parts.state;
        let mut pipes = Pipes::new(&state.pipes_dir()).map_err(failed("create the log pipes"))?;
        if parts.adopts {
            pipes.need();
        }
        let mut log_pipes = Vec::with_capacity(parts.definitions.len());
        for (Definition { spec, .. }, user) in parts.definitions.iter().zip(&parts.users) {
            let made = pipes.make(spec.name(), spec.log(), other(user));
            log_pipes.push(made.map_err(|error| {
                let message = format!("cannot create the log pipe of {}: {error}", spec.name());
                Failure::new(Code::CannotWrite, message)
            })?);
        }
        pipes.keep().map_err(failed("start the log keeper"))?;
        let hides = |Definition { spec, .. }: &Definition| {
            let redact = spec.log().redact();
            !redact.is_empty() && redact.with() == RedactWith::Hash
        };
        // Services that are added later may need a key.
        let key = if parts.daemon.is_some() || parts.definitions.iter().any(hides) {
            state.redaction_key()?
        } else {
            RedactionKey::new([0; 32])
        };
        let places = Places {
            logs_dir: state.logs_dir(),
            spool_dir: state.spool_dir(),
        };
        let logs = Logs::start(places, pipes, key, move |event| {
            to_loop.send(Message::Log(event));
        })
        .map_err(failed("start the log thread"))?;
        let specs: Vec<_> = parts
            .definitions
            .iter()
            .map(|it| Arc::clone(&it.spec))
            .collect();
        let mut all = Vec::new();
        for ((definition, user), pipes) in parts
            .definitions
            .into_iter()
            .zip(parts.users)
            .zip(log_pipes)
        {
            let name = definition.spec.name();
            let log = logs
                .open(name, definition.spec.log(), &definition.dir, pipes)
                .map_err(|error| {
                    Failure::new(
                        Code::CannotWrite,
                        format!("cannot open the log of {name}: {error}"),
                    )
                })?;
            // The directory must belong to the account, so it is not made while that is unknown.
            if let Ok(owner) = &user {
                let created = parts.state.create_data_dir(name.as_str(), owner.as_ref());
                created.map_err(failed("create the service's data directory"))?;
            }
            all.push(ServiceRuntime::new(definition, user, log));
        }
        let engine = Engine::new(specs, seed())
            .map_err(|error| Failure::new(Code::InvalidManifest, error.to_string()))?;
        let runtimes: BTreeMap<ServiceId, ServiceRuntime> = engine.ids().zip(all).collect();
        let names = runtimes
            .values()
            .map(|runtime| runtime.spec.name().as_str());
        let mut reporter = Reporter::new(parts.output, names);
        if parts.daemon.is_some() {
            reporter.alert_system_log();
        }
        let null = sys::null().map_err(failed("open the null device"))?;
        let age = sys::uptime().saturating_sub(parts.zero);
        let host = Self {
            engine,
            runtimes,
            processes: parts.processes,
            helpers: HashMap::new(),
            logs,
            events: facts::event_log(&parts.state, messages.clone()),
            null,
            manifest: parts.manifest,
            left_out: Vec::new(),
            state: parts.state,
            ledger: None,
            orphan_markers: Vec::new(),
            is_adoptable: true,
            possession: None,
            inherited: parts.inherited,
            clock: Clock::new(age),
            zero: parts.zero,
            messages,
            exits: BTreeMap::new(),
            sweeping: Vec::new(),
            rewrites_at: None,
            sweeps_again: None,
            waiters: Vec::new(),
            updates: Vec::new(),
            listeners: Vec::new(),
            reporter,
            alerts: Alerts::default(),
            interrupts: 0,
            ending_since: None,
            has_halted: false,
            daemon: parts.daemon,
            has_manager: false,
            progress: managed::Progress::default(),
            settles_at: None,
            deadlines: Deadlines::default(),
        };
        Ok((host, received))
    }

    /// Resumes the engine from the recovered state of these services, and starts those that are
    /// due. Calls `between` after every adopted run is registered and before any action is
    /// performed.
    fn take_up(
        &mut self,
        recovered_services: Vec<RecoveredService>,
        is_ours: impl Fn(&RecoveredService) -> bool,
        between: impl FnOnce(&mut Self),
    ) {
        let recovered_services = self.engine.ids().zip(recovered_services);
        let recovered_services: Vec<_> = recovered_services
            .filter(|(_, recovered)| is_ours(recovered))
            .collect();
        let checkpoints = recovered_services
            .iter()
            .map(|(id, recovered)| (*id, recovered.checkpoint(self.zero)));
        let checkpoints: Vec<_> = checkpoints.collect();
        let has_ended = |left: &RecoveredState| {
            matches!(
                left,
                RecoveredState::Ended { .. } | RecoveredState::Gone { .. }
            )
        };
        let without_main = checkpoints
            .iter()
            .filter(|(_, it)| has_ended(&it.recovered));
        let without_main: Vec<ServiceId> = without_main.map(|(id, _)| *id).collect();
        self.logs.need();
        let now = self.now();
        let actions = self.engine.resume(checkpoints, now);
        let mut gone = Vec::new();
        for (id, recovered) in recovered_services {
            let exit = recovered.exit().filter(|_| without_main.contains(&id));
            if let Some(runtime) = self.runtimes.get_mut(&id) {
                runtime.is_stopped |= recovered.is_stopped();
            }
            self.hold(id, recovered);
            let run = self.engine.view(id).and_then(|view| view.run);
            gone.extend(run.zip(exit).map(|(run, exit)| (id, run, exit)));
        }
        between(self);
        self.perform(actions);
        for (id, run, exit) in gone {
            self.main_ended((id, run), exit, now);
        }
        self.sweep();
    }

    /// Runs the supervisor's loop, and returns the exit code. The loop only translates events;
    /// [`Engine`] decides.
    async fn supervise(&mut self, mut sources: Sources) -> u32 {
        self.reporter.flush();
        self.logs.prepare();
        self.settles_at = Some(std::time::Instant::now() + SETTLED);
        self.watch(&mut sources, Host::is_finished).await;
        self.end_orphans();
        let report = self.status();
        self.reporter.finish(&report);
        if self.has_manager {
            halted::store(&self.state, &report);
            if self.engine.ids().all(|id| self.engine.has_completed(id)) {
                completed::store(&self.state);
            }
        }
        if let Some(daemon) = &self.daemon {
            return daemon.exit_code(self.interrupts);
        }
        let has_failed = self.has_halted && self.interrupts == 0 || self.interrupts > 1;
        match (has_failed, sources.interrupts.has_manager()) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => {
                let id = self.engine.ids().next();
                id.and_then(|id| self.failure_of(id)).unwrap_or(1)
            }
        }
    }

    /// Kills processes of services and helpers that have left their process trees.
    fn end_orphans(&mut self) {
        let count = self.processes.end_orphans(self.logs.keeper());
        if count > 0 {
            self.reporter.notify(&format!(
                "killed {count} processes that services had left outside their process trees"
            ));
        }
    }

    /// Returns the exit code of a service's last run, if that run failed.
    fn failure_of(&self, id: ServiceId) -> Option<u32> {
        match self.engine.view(id)?.last_exit? {
            Exit::Code(code) => Some(code.cast_unsigned()).filter(|code| *code != 0),
            exit => exit.contract_code().map(u32::from),
        }
    }

    /// Returns whether the supervisor has nothing left to do.
    fn is_finished(&self) -> bool {
        self.is_done() && self.helpers.is_empty() && self.alerts_are_out()
    }

    /// Returns whether nothing is running and nothing more will be started.
    fn is_done(&self) -> bool {
        match &self.daemon {
            Some(daemon) => {
                let ends = daemon.exits_when_done || self.engine.is_shutting_down();
                ends && self.engine.is_down()
            }
            None => self.engine.is_finished(),
        }
    }

    /// Processes events until `is_over`.
    async fn watch(&mut self, sources: &mut Sources, is_over: impl Fn(&Self) -> bool) {
        while !is_over(self) {
            self.reporter.flush();
            let wake = self.engine.deadline().map(|at| self.clock.system(at));
            let redraw = self.reporter.next_draw();
            let sweeps_at = self.sweeps_again.map(|(at, _)| at);
            let repairs_at = self.possession.as_ref().and_then(Possession::repairs_at);
            tokio::select! {
                biased;
                interrupt = sources.interrupts.next() => self.interrupted(interrupt),
                () = self.processes.changed() => self.reap(),
                Some((at, message)) = sources.messages.recv() => self.received(message, at),
                Some(command) = sources.commands.recv() => self.commanded(command),
                () = sleep_until(sweeps_at), if sweeps_at.is_some() => self.sweep_again(),
                () = sleep_until(wake), if wake.is_some() => {
                    let event = wake.map(|at| self.deadlines.event(at));
                    self.step(event.unwrap_or(Event::Tick));
                }
                () = possession::changed(self.possession.as_ref()) => self.look_at_possession(),
                () = sleep_until(repairs_at), if repairs_at.is_some() => self.repair_possession(),
                () = sleep_until(self.rewrites_at), if self.rewrites_at.is_some() => self.rewrite(),
                () = sleep_until(redraw), if redraw.is_some() => {}
                () = sleep_until(self.settles_at), if self.settles_at.is_some() => {
                    self.settles_at = None;
                    let in_use = self.runtimes.values().filter_map(|it| it.notify.as_ref());
                    notify::remove_stale(&self.state, in_use);
                    // Storing the events of the start is start-up work, too.
                    let messages = self.messages.clone();
                    self.events.settle(move || messages.send(Message::Settled));
                }
            }
            self.answer_waiters();
            self.notify_parent();
            if self.is_done() {
                self.kill_helpers();
                self.end_alerts();
            } else {
                self.go_on_with_alerts()
            }
            if self.reporter.is_due() {
                let report = self.status();
                self.reporter.draw(&report);
            }
        }
    }

    /// Writes the remaining contents of the log pipes and reports lost lines.
    ///
    /// # Errors
    /// If the disk of the logs hangs. It is reported.
    fn close(mut self) -> Result<(), Failure> {
        // Close our own ends of the pipes: a reader waits until the last writer has closed its end.
        self.runtimes.clear();
        self.close_events();
        let summary = self.logs.close(|| self.reporter.await_logs(&self.state));
        let Some(summary) = summary else {
            return Err(self.reporter.give_logs_up(&self.state));
        };
        let Lost { bytes, lines } = summary.lost;
        if bytes > 0 {
            self.reporter.notify(&format!(
                "{bytes} bytes ({lines} lines) of logs were lost in total: they could not be written to disk"
            ));
        }
        for (sink, service, Lost { bytes, lines }) in summary.sinks {
            self.reporter.notify(&format!(
                "{service}: {sink} did not receive the last {bytes} bytes ({lines} lines); the log files contain them"
            ));
        }
        Ok(())
    }

    /// Ends logging while services go on without a supervisor. Their output waits in the pipes for
    /// the next supervisor.
    ///
    /// # Errors
    /// As for [`Host::close`].
    fn leave(mut self) -> Result<(), Failure> {
        self.close_events();
        let left = self.logs.leave(|| self.reporter.await_logs(&self.state));
        match left {
            Some(_) => Ok(()),
            None => Err(self.reporter.give_logs_up(&self.state)),
        }
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn step(&mut self, event: Event) {
        self.step_at(self.now(), event);
    }

    /// Processes an event that occurred at `at`.
    fn step_at(&mut self, at: Instant, event: Event) {
        let actions = self.engine.step(event, at);
        self.perform(actions);
    }

    /// Starts a service's program and returns the result as an event.
    fn start_run(&mut self, id: ServiceId, run: RunId) -> Event {
        let spawned = self.spawn(id, run);
        if let Some(runtime) = self.runtimes.get_mut(&id) {
            runtime.lacks_part = spawned.as_ref().is_err_and(|why| why.is_missing());
        }
        match spawned {
            Ok(pid) => Event::Spawned(id, run, pid),
            Err(why) => Event::SpawnFailed(id, run, why),
        }
    }

    /// Performs actions in order. Actions that result from an action are performed before the next
    /// one.
    fn perform(&mut self, actions: Vec<Action>) {
        let mut open = VecDeque::new();
        put_first(actions, &mut open);
        while let Some(action) = open.pop_front() {
            let event = match action {
                Action::Spawn(id, run) => Some(self.start_run(id, run)),
                Action::AskToStop(id, run, ask) => {
                    self.with_tree(id, run, |tree, spec| {
                        tree.ask_to_stop(ask, spec.stop().scope()).map(drop)
                    });
                    None
                }
                Action::Kill(id, run) => {
                    self.kill(id, run);
                    None
                }
                Action::Freeze(id, run) => self
                    .with_tree(id, run, |tree, _| tree.freeze())
                    .map(|error| Event::FreezeFailed(id, run, error.to_string())),
                Action::Thaw(id, run) => {
                    self.with_tree(id, run, |tree, _| tree.thaw());
                    None
                }
                Action::Ask {
                    service,
                    of,
                    token,
                    probe,
                    timeout,
                } => self.ask((service, of), token, probe, timeout),
                Action::ExpectLine(id, token, regex) => self
                    .expect_line(id, token, &regex)
                    .err()
                    .map(|why| Event::Answered(id, token, Err(why))),
                Action::Restore {
                    service,
                    token,
                    before,
                } => {
                    self.restore((service, token), Which::Stable(before));
                    None
                }
                Action::Snapshot {
                    service,
                    token,
                    reason,
                    stable,
                    ..
                } => {
                    self.snapshot(service, token, reason, stable);
                    None
                }
                Action::AbandonSnapshot(id, token) => {
                    self.abandon_snapshot(id, token);
                    None
                }
                Action::AbandonRestore(id, token) => {
                    self.abandon_restore(id, token);
                    None
                }
                Action::KeepState {
                    service,
                    token,
                    stable,
                } => {
                    self.keep_state(service, token, stable);
                    None
                }
                Action::RestoreSnapshot {
                    service,
                    token,
                    snapshot,
                } => {
                    self.restore((service, token), Which::Exactly(snapshot));
                    None
                }
                Action::Forget(id) => {
                    self.forget_beside(id);
                    Some(Event::Forgotten(id))
                }
                Action::Record(id) => {
                    self.record(id);
                    None
                }
                Action::Emit(id, fact) => {
                    self.emit(id, &fact);
                    None
                }
            };
            if let Some(event) = event {
                let following = self.engine.step(event, self.now());
                put_first(following, &mut open);
            }
        }
        self.sweep();
    }

    /// Handles a signal of the operator: the first stop signal stops all services, the second kills
    /// them.
    fn interrupted(&mut self, interrupt: Interrupt) {
        match interrupt {
            Interrupt::Hangup if self.daemon.is_some() => return self.reload_all(),
            Interrupt::RotateLogs => return self.rotate_logs(),
            Interrupt::WriteState => return self.write_state(),
            Interrupt::Stop | Interrupt::Hangup | Interrupt::Quit => {}
        }
        let now = std::time::Instant::now();
        let is_echo = |ending: std::time::Instant| now.duration_since(ending) < ECHO;
        if interrupt != Interrupt::Quit && self.ending_since.is_some_and(is_echo) {
            return;
        }
        self.ending_since.get_or_insert(now);
        self.interrupts += 1;
        self.begin_end();
        if interrupt == Interrupt::Quit {
            // SIGQUIT counts as the second stop signal.
            self.interrupts = self.interrupts.max(2);
        }
        let at_once = self.interrupts > 1;
        let now = self.now();
        let actions = if at_once {
            self.engine.kill_all(now)
        } else {
            self.engine.stop_all(now)
        };
        self.reporter.notify(if at_once {
            "killing all services"
        } else {
            "stopping all services; a second request kills them"
        });
        self.perform(actions);
    }

    /// Starts a new log file for every service.
    fn rotate_logs(&mut self) {
        if self.logs.is_behind() {
            return self.reporter.notify(&format!("SIGUSR1: {LOGS_BEHIND}"));
        }
        self.reporter.notify("SIGUSR1: rotating all logs");
        for (&id, runtime) in &self.runtimes {
            let messages = self.messages.clone();
            self.logs.rotate(runtime.spec.name(), move |result| {
                if let Err(file_error) = result {
                    let remark = format!("cannot rotate its log: {}", chain(&file_error));
                    messages.send(Message::Remark(id, remark));
                }
            });
        }
    }

    /// Writes the state of every service and the number of pending operations to the supervisor's
    /// output.
    fn write_state(&mut self) {
        let report = self.status();
        self.reporter.notify(&format!(
            "SIGUSR2: pid {}, {} services, {} commands under way, {} requests waiting, {} listeners",
            std::process::id(),
            report.services.len(),
            self.helpers.len(),
            self.waiters.len(),
            self.listeners.len(),
        ));
        for line in crate::table::status(&report).text().lines() {
            self.reporter.notify(line);
        }
    }

    /// Processes a message that was sent at `at`.
    fn received(&mut self, message: Message, at: std::time::Instant) {
        let at = self.clock.engine(at);
        match message {
            Message::Engine(event) => self.step_at(at, event),
            Message::Notices(notices) => {
                for (at, event) in notices.take() {
                    self.step_at(self.clock.engine(at), event);
                }
            }
            Message::Log(event) => self.log_event(event, at),
            Message::Exited(id, run) => {
                if let Some((exit, at)) = self.exits.remove(&(id, run)) {
                    self.exited((id, run), exit, at);
                    self.sweep();
                }
            }
            Message::HelperLate { id, was_delayed } => self.helper_late(id, was_delayed, at),
            Message::KeepPipes => self.keep_pipes(),
            Message::Alert(event) => self.alert_event(event),
            Message::Settled => sys::settle_in(&self.processes),
            Message::ClientLeft(candidate) => self.client_left(candidate),
            Message::Copied(id, token, result) => self.copied(id, token, result),
            Message::Remark(id, remark) => {
                if let Some(runtime) = self.runtimes.get(&id) {
                    let name = runtime.spec.name();
                    self.reporter.notify(&format!("{name}: {remark}"));
                }
            }
        }
    }

    fn log_event(&mut self, event: LogEvent, at: Instant) {
        // Events of the log thread name services of this supervisor.
        let find = |name: &ServiceName| self.engine.find(name.as_str());
        match event {
            LogEvent::Matched { service, token } => {
                if let Some(id) = find(&service) {
                    // Only one of the two is waiting for this token.
                    let candidate = self.engine.trial(id).and_then(|trial| trial.candidate);
                    for id in candidate.into_iter().chain([id]) {
                        self.step_at(at, Event::Answered(id, Token(token), Ok(())));
                    }
                }
            }
            LogEvent::Failing {
                service,
                dir,
                task,
                file_error,
            } => {
                if let Some(id) = find(&service) {
                    let problem = format!("log: {}", chain(&file_error));
                    self.reporter.notify(&format!(
                        "{service}: {problem}; the service keeps running, and lost output is counted"
                    ));
                    if let Some(runtime) = self.runtimes.get_mut(&id) {
                        runtime.log_problems.insert((dir, task), problem);
                    }
                }
            }
            LogEvent::Recovered {
                service,
                dir,
                task,
                lost,
            } => {
                if let Some(id) = find(&service) {
                    let losses = match task {
                        Task::Writing => {
                            format!("; lost: {} bytes, {} lines", lost.bytes, lost.lines)
                        }
                        Task::Rotation | Task::Compression => String::new(),
                    };
                    self.reporter
                        .notify(&format!("{service}: {}{losses}", task.again()));
                    if let Some(runtime) = self.runtimes.get_mut(&id) {
                        runtime.log_problems.remove(&(dir, task));
                    }
                }
            }
            LogEvent::Sink(SinkEvent::Failing {
                sink,
                services,
                error,
            }) => {
                let problem = format!("{sink} does not accept lines: {error}");
                self.reporter.notify(&format!(
                    "{}: {problem}; the log files contain them; retrying",
                    list(&services)
                ));
                for id in services.iter().filter_map(find) {
                    if let Some(runtime) = self.runtimes.get_mut(&id) {
                        let problems = &mut runtime.sink_problems;
                        problems.insert(sink.to_string(), problem.clone());
                    }
                }
            }
            LogEvent::Sink(SinkEvent::Recovered {
                sink,
                services,
                dropped,
            }) => {
                let dropped = dropped.iter().map(|(service, Lost { bytes, lines })| {
                    format!("; it did not receive {bytes} bytes ({lines} lines) of {service}")
                });
                self.reporter.notify(&format!(
                    "{}: {sink} accepts lines again{}",
                    list(&services),
                    dropped.collect::<String>()
                ));
                for id in services.iter().filter_map(find) {
                    if let Some(runtime) = self.runtimes.get_mut(&id) {
                        runtime.sink_problems.remove(&sink.to_string());
                    }
                }
            }
        }
    }
}

fn list(services: &[ServiceName]) -> String {
    let names: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
    names.join(", ")
}

/// Puts `actions` before the pending ones. Facts among them come first, so that they are reported
/// when they happen.
fn put_first(actions: Vec<Action>, open: &mut VecDeque<Action>) {
    let is_fact = |action: &Action| matches!(action, Action::Emit(..));
    let (facts, rest): (Vec<_>, Vec<_>) = actions.into_iter().partition(is_fact);
    let in_order = facts.into_iter().chain(rest);
    in_order.rev().for_each(|action| open.push_front(action));
}

/// Sleeps until `at`, or forever if it is `None`.
async fn sleep_until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn new_processes() -> Result<Processes, Failure> {
    Processes::new("mainstay").map_err(failed("prepare to start processes"))
}

/// Returns a function that turns the error of an operation of the host itself into a [`Failure`].
fn failed(operation: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::new(Code::CannotWrite, format!("cannot {operation}: {error}"))
}

/// Returns a seed that differs in every process. Only jitter depends on it.
fn seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}
