//! The host: it performs what the engine decides, on real processes, files and sockets.
//!
//! One thread, one loop. Its sources are child processes (`sys`), the log thread (`log`), the control socket (`control`), signals,
//! answers of probes, and the engine's deadline; each is translated into an [`Event`] or a request, and the engine's actions are
//! performed in order before the loop waits again. With nothing to do it sleeps without a timer. Output of services is not
//! handled here: the log thread owns it, so that a slow disk delays no restart and a busy restart no line.

mod alerts;
mod aside;
mod children;
mod clock;
mod control;
mod daemon;
mod delay;
mod interrupts;
mod launch;
mod ledger;
mod legacy;
mod log;
mod managed;
mod notices;
mod notify;
mod owner;
mod port;
mod possession;
mod preflight;
mod probe;
#[cfg(unix)]
mod release;
mod report;
mod requests;
mod screen;
mod snapshots;
mod sockets;
pub(crate) mod sys;
mod update;
mod without;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use mainstay_core::engine::{
    Action, Engine, Event, Exit, Fact, Left, RunId, ServiceId, Snapshotted, StateName, Token,
};
use mainstay_core::log::redact::{RedactWith, RedactionKey};
use mainstay_core::registry::TextDigest;
use mainstay_core::spec::{ServiceName, Spec};
use mainstay_core::time::Instant;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::alerts::{AlertEvent, Alerts};
use self::children::Helper;
use self::clock::{Clock, ToLoop};
use self::control::Command;
pub(crate) use self::control::{Reach, endpoint};
use self::daemon::Daemon;
use self::delay::Deadlines;
use self::interrupts::{Interrupt, Interrupts};
pub(crate) use self::launch::{LOG_LEVEL, credential, find_program, working_dir};
pub(crate) use self::ledger::Copy;
use self::ledger::Ledger;
use self::legacy::{Heir, Legacy};
pub(crate) use self::log::read as log_read;
use self::log::{LogEnds, LogEvent, Logs, Lost, Pipes, Places, SinkEvent};
pub(crate) use self::managed::Started;
use self::notices::Notices;
use self::notify::NotifySocket;
use self::possession::Possession;
pub(crate) use self::possession::supervisor;
pub(crate) use self::preflight::{losses, no_such_user, user_of, warnings};
use self::report::Reporter;
pub(crate) use self::report::{Output, height as table_height};
use self::requests::{LOGS_BEHIND, Waiter};
use self::snapshots::Taking;
use self::sockets::Sockets;
#[cfg(windows)]
pub(crate) use self::sys::run_as_helper;
use self::sys::{Processes, Tree, TreeId};
pub(crate) use self::update::TrialRequest;
use self::update::Update;
pub(crate) use self::without::{orphans, stop_without_supervisor};
use crate::completed;
use crate::embedded::{self, Definition, Desired};
use crate::failure::{Code, Failure, chain};
use crate::halted;
use crate::output::Foreign;
use crate::snapshot::{CallOff, Which};
use crate::start_failure::StartFailure;
use crate::state_dir::{Lock, StateDir};

/// What to supervise, and how to tell of it.
pub(crate) struct Options {
    pub(crate) services: Services,
    pub(crate) state: StateDir,
    pub(crate) output: Output,
    /// Show the services' lines too.
    pub(crate) follow: Option<Foreign>,
    /// The service manager that started us to run the one service of these specs, if one did.
    pub(crate) manager: Option<Started>,
}

/// Which services.
pub(crate) enum Services {
    /// Some of a manifest, for as long as they are not all down.
    OfManifest {
        specs: Vec<Spec>,
        /// As the operator named it.
        manifest: String,
        /// What it says.
        copy: Copy,
        /// Its other services.
        left_out: Vec<String>,
    },
    /// Those that are installed here, now or later.
    Installed {
        /// And only for as long as they are not all down.
        exits_when_done: bool,
    },
}

/// What start-up needs is given back so long after it.
const SETTLED: Duration = Duration::from_millis(250);

/// A signal that follows the first one within this time is the same request: a wrapper or a terminal sends it to the group and to
/// the process, and nobody has seen yet what a second one does.
const ECHO: Duration = Duration::from_millis(500);

/// What reaches the loop from its helpers.
enum Message {
    Engine(Event),
    /// A run says something of itself.
    Notices(Notices),
    Log(LogEvent),
    /// What a run said before it exited has been looked at.
    Exited(ServiceId, RunId),
    /// A helper command has had its time, unless we were delayed.
    HelperLate {
        id: TreeId,
        was_delayed: bool,
    },
    /// The pipes of logs have no keeper, and are to have one.
    KeepPipes,
    /// Whoever wants the update with this candidate is gone.
    ClientLeft(ServiceId),
    Alert(AlertEvent),
    /// The state of a service was copied, or was not.
    Copied(ServiceId, Token, Result<Snapshotted, String>),
    /// Something to be told of a service.
    Remark(ServiceId, String),
}

/// Supervises until every service is down or the operator, or the manager, says stop. Blocks. Returns what to exit with: 1 where a service was
/// halted, or had to be killed; for a manager that service's own code, if it had one.
pub(crate) fn run(options: Options) -> Result<u32, Failure> {
    let lock = possession::take(&options.state)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Failed, format!("start the event loop: {error}")))?;
    let local = tokio::task::LocalSet::new();
    let state = options.state.clone();
    let ended = local.block_on(&runtime, async {
        let (mut host, sources, server) = Host::new(options, lock)?;
        let code = host.supervise(sources).await;
        let possession = host.possession.take();
        host.close();
        server.close().await;
        Ok::<_, Failure>((code, possession))
    });
    drop(local);
    // A resolver that still looks for a name is not waited for.
    runtime.shutdown_background();
    let (code, possession) = ended?;
    ledger::discard(&state);
    if let Some(possession) = possession {
        possession.into_lock().give_back();
    }
    Ok(code)
}

/// A service as the host holds it.
struct Held {
    spec: Arc<Spec>,
    /// What relative paths in it are relative to.
    dir: PathBuf,
    /// Of its installation; 0 where it has none.
    version: u64,
    /// What it is from the end of its run on.
    next: Option<Successor>,
    /// Of the text that says what it is, where that is known.
    digest: Option<TextDigest>,
    /// It has become so by an update, and no manifest may say so yet.
    is_updated: bool,
    log: LogEnds,
    log_problem: Option<String>,
    /// By the sinks that take no lines.
    sink_problems: BTreeMap<String, String>,
    notify: Option<NotifySocket>,
    user: User,
    sockets: Sockets,
    running: Option<Running>,
    /// An operator stopped it by name, and nobody has started it since.
    is_stopped: bool,
    /// What is written down of that.
    desired: Option<Desired>,
    /// Why that could not be written. It is tried again.
    desired_problem: Option<String>,
    snapshot: Option<Taking>,
    /// A snapshot that is not to be begun.
    called_off: Option<Token>,
    /// The last restore.
    restore: Option<(Token, CallOff)>,
}

/// Whom it runs as, or why that cannot be.
type User = Result<Option<sys::User>, String>;

/// What a service becomes.
struct Successor {
    definition: Definition,
    user: User,
}

impl Held {
    fn new(definition: Definition, user: User, log: LogEnds) -> Self {
        Self {
            spec: definition.spec,
            dir: definition.dir,
            version: definition.version,
            digest: definition.digest,
            next: None,
            is_updated: false,
            log,
            log_problem: None,
            sink_problems: BTreeMap::new(),
            notify: None,
            user,
            sockets: Sockets::default(),
            running: None,
            is_stopped: definition.desired == Some(Desired::Stopped),
            desired: definition.desired,
            desired_problem: None,
            snapshot: None,
            called_off: None,
            restore: None,
        }
    }

    /// Another text says the same.
    fn reword(&mut self, digest: Option<TextDigest>) {
        let running = self.running.as_mut().filter(|running| !running.is_outdated);
        if let Some(running) = running {
            running.digest.clone_from(&digest);
        }
        self.digest = digest;
    }
}

/// The user, where there is one other than ours.
fn other(user: &User) -> Option<&sys::User> {
    user.as_ref().ok()?.as_ref()
}

/// A tree that may have processes.
struct Running {
    run: RunId,
    tree: Tree,
    /// It was started by an earlier definition.
    is_outdated: bool,
    /// Of the definition that it was started by, where that is known.
    digest: Option<TextDigest>,
    /// Keeps its state from being restored.
    _in_use: Option<File>,
}

struct Host {
    engine: Engine,
    held: BTreeMap<ServiceId, Held>,
    processes: Processes,
    helpers: HashMap<TreeId, Helper>,
    logs: Logs,
    /// Where the output of probes goes.
    null: File,
    manifest: String,
    /// Services of the manifest that this supervisor was started without.
    left_out: Vec<String>,
    state: StateDir,
    ledger: Option<Ledger>,
    /// How a successor finds what runs: what was started by us, and what was adopted.
    testaments: Vec<String>,
    /// A successor could go on with what runs.
    is_adoptable: bool,
    /// The state directory is ours; not where what a dead supervisor left is stopped.
    possession: Option<Possession>,
    inherited: launch::Environment,
    clock: Clock,
    /// When its time began, since the system started.
    zero: Duration,
    messages: ToLoop,
    /// Exits that are reported once what was said before them has been looked at.
    exits: BTreeMap<(ServiceId, RunId), (Exit, Instant)>,
    /// Trees whose main process is gone and which are not empty yet.
    sweeping: Vec<(ServiceId, RunId)>,
    /// When what could not be written down is written again.
    rewrites_at: Option<std::time::Instant>,
    /// When they are looked at again, and how long after the last look: the kernel's word that a cgroup is empty may not come.
    sweeps_again: Option<(std::time::Instant, Duration)>,
    waiters: Vec<Waiter>,
    updates: Vec<Update>,
    listeners: Vec<mpsc::Sender<Bytes>>,
    reporter: Reporter,
    alerts: Alerts,
    interrupts: u32,
    /// When the first of them came.
    ending_since: Option<std::time::Instant>,
    /// Some service was, at some time.
    has_halted: bool,
    /// We are the manager of the services that are installed here.
    daemon: Option<Daemon>,
    /// A service manager started us for our one service.
    has_manager: bool,
    /// Of the one service that our manager knows of.
    progress: managed::Progress,
    /// When start-up is over.
    settles_at: Option<std::time::Instant>,
    deadlines: Deadlines,
}

/// The control socket's task.
struct Server {
    control: JoinHandle<()>,
    closes: oneshot::Sender<Infallible>,
}

impl Server {
    /// Waits, for a moment, until every client has its answer.
    async fn close(self) {
        drop(self.closes);
        // It does not panic, and if it did there would be nothing left to save.
        let _ = self.control.await;
    }
}

/// Messages, with the times of their sending.
type FromElsewhere = UnboundedReceiver<(std::time::Instant, Message)>;

/// What the loop waits for, besides children.
struct Sources {
    messages: FromElsewhere,
    commands: UnboundedReceiver<Command>,
    interrupts: Interrupts,
}

/// What a host is made of.
struct Parts {
    definitions: Vec<Definition>,
    /// Of each.
    users: Vec<User>,
    manifest: String,
    daemon: Option<Daemon>,
    state: StateDir,
    processes: Processes,
    inherited: launch::Environment,
    output: Output,
    /// In [`Legacy::zero`]'s sense.
    zero: Duration,
    /// Some of the services run already.
    adopts: bool,
}

impl Host {
    /// A supervisor: it has taken over what its predecessor left, holds the place, and has told the engine of everything.
    fn new(options: Options, mut lock: Lock) -> Result<(Self, Sources, Server), Failure> {
        let Options {
            services,
            state,
            output,
            follow,
            manager,
        } = options;
        let mut daemon = None;
        let mut others = Vec::new();
        // Whoever installs meanwhile waits until we can be told.
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
                let living = legacy::living(&lock, &state);
                let (definitions, problems) = embedded::all(&state, &living);
                daemon = Some(Daemon::new(exits_when_done, problems));
                (definitions, "what is installed here".to_owned(), None)
            }
        };
        let inherited = launch::inherited();
        let mut processes = new_processes()?;
        // First, as what is left may hold the very ports that are looked at next.
        let mut legacy = Legacy::take_over(&lock, &state, &definitions, &mut processes)?;
        // A service that cannot be started must not keep a daemon's other services from being
        // started, nor services that are running from being supervised again.
        let starts_afresh = !legacy.adopts();
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
        let mut testaments = std::mem::take(&mut legacy.testaments);
        testaments.push(sys::testament(&processes));
        lock.sign(&manifest, &testaments)
            .map_err(failed("sign the lock"))?;
        let (mut host, received) = Self::assemble(Parts {
            definitions,
            users,
            manifest,
            daemon,
            state,
            processes,
            inherited,
            output,
            zero: legacy.zero,
            adopts: legacy.adopts(),
        })?;
        host.testaments = testaments;
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
            host.logs.follow(screen.clone(), foreign);
        }
        for remark in std::mem::take(&mut legacy.remarks) {
            host.reporter.say(&remark);
        }
        for held in host.held.values() {
            let name = held.spec.name();
            for remark in preflight::remarks(&held.spec, &held.dir, &host.inherited) {
                host.reporter.say(&format!("{name}: {remark}"));
            }
        }
        host.say_problems();
        let begin_ledger = |host: &mut Self| {
            host.begin_ledger(copy.as_ref());
            // It says by itself what is outdated.
            let _ = std::fs::remove_dir_all(host.state.updated_dir());
        };
        host.take_up(legacy.heirs, |_| true, begin_ledger);
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

    /// Takes orders from the manager that started us.
    fn serve(
        &mut self,
        started: Started,
        commands: &UnboundedSender<Command>,
    ) -> io::Result<Interrupts> {
        self.has_manager = true;
        let (interrupts, received) = mpsc::unbounded_channel();
        let line = managed::Line {
            service: self
                .held
                .values()
                .next()
                .map_or_else(String::new, |held| held.spec.name().to_string()),
            commands: commands.clone(),
            interrupts,
            progress: self.progress.clone(),
        };
        tokio::task::spawn_local(line.serve(started));
        Interrupts::of_manager(received)
    }

    /// A host of these services, which does nothing yet.
    fn assemble(parts: Parts) -> Result<(Self, FromElsewhere), Failure> {
        let (messages, received) = mpsc::unbounded_channel();
        let messages = ToLoop(messages);
        let to_loop = messages.clone();
        let state = &parts.state;
        let mut pipes = Pipes::new(&state.pipes_dir()).map_err(failed("make the pipes of logs"))?;
        if parts.adopts {
            pipes.need();
        }
        let mut log_pipes = Vec::with_capacity(parts.definitions.len());
        for (Definition { spec, .. }, user) in parts.definitions.iter().zip(&parts.users) {
            let made = pipes.make(spec.name(), spec.log(), other(user));
            log_pipes.push(made.map_err(|error| {
                let message = format!("make the pipe of {}: {error}", spec.name());
                Failure::new(Code::CannotWrite, message)
            })?);
        }
        pipes.keep().map_err(failed("start the keeper of pipes"))?;
        let hides = |Definition { spec, .. }: &Definition| {
            let redact = spec.log().redact();
            !redact.is_empty() && redact.with() == RedactWith::Hash
        };
        // Whoever comes later may need it.
        let key = match parts.daemon.is_some() || parts.definitions.iter().any(hides) {
            true => state.redaction_key()?,
            false => RedactionKey::new([0; 32]),
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
        let mut held = Vec::new();
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
                        format!("open the log of {name}: {error}"),
                    )
                })?;
            // Nobody else than its account is to have it.
            if let Ok(owner) = &user {
                let created = parts.state.create_data_dir(name.as_str(), owner.as_ref());
                created.map_err(failed("create the service's data directory"))?;
            }
            held.push(Held::new(definition, user, log));
        }
        let engine = Engine::new(specs, seed())
            .map_err(|error| Failure::new(Code::InvalidManifest, error.to_string()))?;
        let held: BTreeMap<ServiceId, Held> = engine.ids().zip(held).collect();
        let names = held.values().map(|held| held.spec.name().as_str());
        let mut reporter = Reporter::new(parts.output, names);
        if parts.daemon.is_some() {
            reporter.tell_system();
        }
        let null = sys::null().map_err(failed("open the null device"))?;
        let age = sys::uptime().saturating_sub(parts.zero);
        let host = Self {
            engine,
            held,
            processes: parts.processes,
            helpers: HashMap::new(),
            logs,
            null,
            manifest: parts.manifest,
            left_out: Vec::new(),
            state: parts.state,
            ledger: None,
            testaments: Vec::new(),
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

    /// Tells the engine what was left of these services, which starts those that are to be started. Calls `between` when everything that
    /// was adopted is held, and nothing has been done yet.
    fn take_up(
        &mut self,
        heirs: Vec<Heir>,
        is_ours: impl Fn(&Heir) -> bool,
        between: impl FnOnce(&mut Self),
    ) {
        let heirs = self.engine.ids().zip(heirs);
        let heirs: Vec<_> = heirs.filter(|(_, heir)| is_ours(heir)).collect();
        let bequests = heirs
            .iter()
            .map(|(id, heir)| (*id, heir.bequest(self.zero)));
        let bequests: Vec<_> = bequests.collect();
        let has_ended = |left: &Left| matches!(left, Left::Ended { .. } | Left::Gone { .. });
        let without_main = bequests.iter().filter(|(_, it)| has_ended(&it.left));
        let without_main: Vec<ServiceId> = without_main.map(|(id, _)| *id).collect();
        self.logs.need();
        let now = self.now();
        let actions = self.engine.resume(bequests, now);
        let mut gone = Vec::new();
        for (id, heir) in heirs {
            let exit = heir.exit().filter(|_| without_main.contains(&id));
            if let Some(held) = self.held.get_mut(&id) {
                held.is_stopped |= heir.is_stopped();
            }
            self.hold(id, heir);
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

    /// The loop of a supervisor: it only translates; [`Engine`] decides.
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

    /// Ends what services and their helpers left that no stop of theirs reached.
    fn end_orphans(&mut self) {
        let count = self.processes.end_orphans(self.logs.keeper());
        if count > 0 {
            self.reporter.say(&format!(
                "killed {count} processes that services had left outside of their process trees"
            ));
        }
    }

    /// What a service ended with, if it was a failure.
    fn failure_of(&self, id: ServiceId) -> Option<u32> {
        match self.engine.view(id)?.last_exit? {
            Exit::Code(code) => Some(code.cast_unsigned()).filter(|code| *code != 0),
            exit => exit.contract_code().map(u32::from),
        }
    }

    /// Whether a supervisor has nothing left to do.
    fn is_finished(&self) -> bool {
        self.is_done() && self.helpers.is_empty() && self.alerts_are_out()
    }

    /// Whether nothing runs, and nothing is waited for that could.
    fn is_done(&self) -> bool {
        match &self.daemon {
            Some(daemon) => {
                let ends = daemon.exits_when_done || self.engine.is_shutting_down();
                ends && self.engine.is_down()
            }
            None => self.engine.is_finished(),
        }
    }

    /// Translates what happens until `is_over`.
    async fn watch(&mut self, sources: &mut Sources, is_over: impl Fn(&Self) -> bool) {
        while !is_over(self) {
            self.reporter.flush();
            let wake = self.engine.deadline().map(|at| self.clock.system(at));
            let redraw = self.reporter.next_draw();
            let sweeps_at = self.sweeps_again.map(|(at, _)| at);
            let mends_at = self.possession.as_ref().and_then(Possession::mends_at);
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
                () = sleep_until(mends_at), if mends_at.is_some() => self.mend_possession(),
                () = sleep_until(self.rewrites_at), if self.rewrites_at.is_some() => self.rewrite(),
                () = sleep_until(redraw), if redraw.is_some() => {}
                () = sleep_until(self.settles_at), if self.settles_at.is_some() => {
                    self.settles_at = None;
                    let in_use = self.held.values().filter_map(|held| held.notify.as_ref());
                    notify::remove_stale(&self.state, in_use);
                    sys::settle_in(&self.processes);
                }
            }
            self.answer_waiters();
            self.tell_parent();
            match self.is_done() {
                true => {
                    self.kill_helpers();
                    self.end_alerts();
                }
                false => self.go_on_with_alerts(),
            }
            if self.reporter.is_due() {
                let report = self.status();
                self.reporter.draw(&report);
            }
        }
    }

    /// Writes down what is still in the pipes.
    fn close(mut self) {
        // Our own ends of the pipes: where these are still open, a reader that waits for the last writer waits for us.
        self.held.clear();
        let summary = self.logs.close();
        let Lost { bytes, lines } = summary.lost;
        if bytes > 0 {
            self.reporter.say(&format!(
                "{bytes} bytes ({lines} lines) of logs were lost in all: the disk did not take them"
            ));
        }
        for (sink, service, Lost { bytes, lines }) in summary.sinks {
            self.reporter.say(&format!(
                "{service}: {sink} did not take its last {bytes} bytes ({lines} lines); the files have them"
            ));
        }
    }

    /// The same, where services go on without a supervisor: what they write waits for the next one.
    fn leave(self) {
        self.logs.leave();
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn step(&mut self, event: Event) {
        self.step_at(self.now(), event);
    }

    /// Takes in what was seen at `at`.
    fn step_at(&mut self, at: Instant, event: Event) {
        let actions = self.engine.step(event, at);
        self.perform(actions);
    }

    /// Performs actions in order; those that follow from what one brings about come before the next.
    fn perform(&mut self, actions: Vec<Action>) {
        let mut open = VecDeque::new();
        put_first(actions, &mut open);
        while let Some(action) = open.pop_front() {
            let event = match action {
                Action::Spawn(id, run) => Some(match self.spawn(id, run) {
                    Ok(pid) => Event::Spawned(id, run, pid),
                    Err(why) => Event::SpawnFailed(id, run, why),
                }),
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
                    self.restore((service, token), Which::Stable(before), before.is_none());
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
                    self.restore((service, token), Which::Exactly(snapshot), true);
                    None
                }
                Action::Forget(id) => {
                    self.forget_beside(id);
                    Some(Event::Forgotten(id))
                }
                Action::Tell(id, fact) => {
                    self.tell(id, &fact);
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

    fn tell(&mut self, id: ServiceId, fact: &Fact) {
        let beside = self.engine.beside(id);
        if beside.is_none() {
            self.has_halted |= matches!(fact, Fact::Halted { .. });
            self.judge(id, fact);
        }
        match self.engine.view(id).map(|view| view.state) {
            // Also where nothing says when it is ready.
            Some(StateName::Running) => self.progress.is_ready.notify_one(),
            Some(StateName::BackingOff) if self.engine.fails_steadily(id) => {
                self.progress.fails.notify_one();
            }
            // An old definition may come back to them.
            Some(StateName::Stopped | StateName::Halted) if self.engine.trial(id).is_none() => {
                if let Some(held) = self.held.get_mut(&id) {
                    held.sockets.close();
                }
            }
            _ => {}
        }
        if !matches!(fact, Fact::Missed { .. } | Fact::Status { .. }) {
            self.record(id);
            self.show_manager(id);
        }
        let time = self.clock.calendar(self.engine.now());
        let Some(held) = self.held.get(&id) else {
            return;
        };
        let name = held.spec.name().as_str();
        self.reporter.tell(&time, (name, beside), fact);
        if !self.listeners.is_empty() {
            let line = Bytes::from(report::json_line(&time, (name, beside), fact));
            // A listener that is gone, or too far behind, is cut off.
            self.listeners
                .retain(|listener| listener.try_send(line.clone()).is_ok());
        }
        if fact.is_alert() {
            self.alert(id, &time, beside, fact);
        }
        self.update_told(id, fact);
    }

    /// Tells the manager that started us why its service is not running.
    fn show_manager(&self, id: ServiceId) {
        let Some(view) = self.engine.view(id).filter(|_| self.has_manager) else {
            return;
        };
        let text = match view.state {
            StateName::Running => String::new(),
            StateName::BackingOff | StateName::Halted | StateName::Waiting => {
                let why = view
                    .detail
                    .map_or_else(String::new, |why| format!(": {why}"));
                format!("{}{why}", view.state)
            }
            // The reason for this attempt is still of interest.
            _ => return,
        };
        let shown = &self.progress.text;
        shown.send_if_modified(|old| std::mem::replace(old, text.clone()) != text);
    }

    /// What an operator's signal means: the first one stops, the second one kills.
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
            // It is the second one at once.
            self.interrupts = self.interrupts.max(2);
        }
        let at_once = self.interrupts > 1;
        let now = self.now();
        let actions = match at_once {
            true => self.engine.kill_all(now),
            false => self.engine.stop_all(now),
        };
        self.reporter.say(match at_once {
            true => "killing all services",
            false => "stopping all services; once more kills them",
        });
        self.perform(actions);
    }

    /// Begins a new log file for every service.
    fn rotate_logs(&mut self) {
        if self.logs.is_behind() {
            return self.reporter.say(&format!("SIGUSR1: {LOGS_BEHIND}"));
        }
        self.reporter.say("SIGUSR1: rotating all logs");
        for (&id, held) in &self.held {
            let messages = self.messages.clone();
            self.logs.rotate(held.spec.name(), move |result| {
                if let Err(trouble) = result {
                    let remark = format!("rotate its log: {}", chain(&trouble));
                    messages.send(Message::Remark(id, remark));
                }
            });
        }
    }

    /// Writes what is known of every service, and what is under way, where everything is told.
    fn write_state(&mut self) {
        let report = self.status();
        self.reporter.say(&format!(
            "SIGUSR2: pid {}, {} services, {} commands under way, {} requests waiting, {} listeners",
            std::process::id(),
            report.services.len(),
            self.helpers.len(),
            self.waiters.len(),
            self.listeners.len(),
        ));
        for line in crate::table::status(&report).text().lines() {
            self.reporter.say(line);
        }
    }

    /// Takes in a message that was sent at `at`.
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
            Message::ClientLeft(candidate) => self.client_left(candidate),
            Message::Copied(id, token, result) => self.copied(id, token, result),
            Message::Remark(id, remark) => {
                if let Some(held) = self.held.get(&id) {
                    let name = held.spec.name();
                    self.reporter.say(&format!("{name}: {remark}"));
                }
            }
        }
    }

    fn log_event(&mut self, event: LogEvent, at: Instant) {
        // Those of the log thread are ours.
        let find = |name: &ServiceName| self.engine.find(name.as_str());
        match event {
            LogEvent::Matched { service, token } => {
                if let Some(id) = find(&service) {
                    // It is new to one of the two.
                    let candidate = self.engine.trial(id).and_then(|trial| trial.candidate);
                    for id in candidate.into_iter().chain([id]) {
                        self.step_at(at, Event::Answered(id, Token(token), Ok(())));
                    }
                }
            }
            LogEvent::Failing { service, trouble } => {
                if let Some(id) = find(&service) {
                    let problem = format!("its log: {}", chain(&trouble));
                    self.reporter.say(&format!(
                        "{service}: {problem}; it runs on, and what is lost is counted"
                    ));
                    if let Some(held) = self.held.get_mut(&id) {
                        held.log_problem = Some(problem);
                    }
                }
            }
            LogEvent::Recovered { service, lost } => {
                if let Some(id) = find(&service) {
                    self.reporter.say(&format!(
                        "{service}: its log is written again; lost: {} bytes, {} lines",
                        lost.bytes, lost.lines
                    ));
                    if let Some(held) = self.held.get_mut(&id) {
                        held.log_problem = None;
                    }
                }
            }
            LogEvent::Sink(SinkEvent::Failing {
                sink,
                services,
                error,
            }) => {
                let problem = format!("{sink} takes no lines: {error}");
                self.reporter.say(&format!(
                    "{}: {problem}; the files have them, and it is tried again",
                    list(&services)
                ));
                for id in services.iter().filter_map(find) {
                    if let Some(held) = self.held.get_mut(&id) {
                        let problems = &mut held.sink_problems;
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
                    format!("; of {service} it never got {bytes} bytes ({lines} lines)")
                });
                self.reporter.say(&format!(
                    "{}: {sink} takes lines again{}",
                    list(&services),
                    dropped.collect::<String>()
                ));
                for id in services.iter().filter_map(find) {
                    if let Some(held) = self.held.get_mut(&id) {
                        held.sink_problems.remove(&sink.to_string());
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

/// Puts `actions` before what is open: first the facts among them, so that they are told when they happen.
fn put_first(actions: Vec<Action>, open: &mut VecDeque<Action>) {
    let is_fact = |action: &Action| matches!(action, Action::Tell(..));
    let (facts, rest): (Vec<_>, Vec<_>) = actions.into_iter().partition(is_fact);
    let in_order = facts.into_iter().chain(rest);
    in_order.rev().for_each(|action| open.push_front(action));
}

/// Sleeps until then; for ever where there is no then.
async fn sleep_until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn new_processes() -> Result<Processes, Failure> {
    Processes::new("mainstay").map_err(failed("prepare to start processes"))
}

/// Something that a host needs for itself could not be done.
fn failed(operation: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::new(Code::CannotWrite, format!("{operation}: {error}"))
}

/// Different in every process; only jitter depends on it.
fn seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}
