//! The host: performs the engine's decisions on real processes, files and sockets.
//!
//! It runs one loop on one thread. The sources of events are child processes (`mainstay_sys`), the
//! log thread (`mainstay_logs`), the control socket (`control`), signals, probe results and
//! deadlines. The loop only passes them on to the [`Dispatcher`], which decides what follows from
//! them and performs it through the [`Executor`]. An idle host sleeps without a timer.

mod alert;
mod clock;
mod control;
mod delay;
mod dispatcher;
mod effects;
mod executor;
mod interrupts;
mod managed;
mod orphaned;
mod possession;
mod recovery;
mod report;
mod screen;
#[cfg(test)]
mod simulation;
mod viewers;

use std::io;
use std::time::Duration;

use mainstay_core::engine::{self, Checkpoint, Human};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::spec::Spec;
use mainstay_store::embedded::{self, Definition};
use mainstay_store::ledger::ManifestCopy;
use mainstay_store::start_failure::StartFailure;
use mainstay_store::state_dir::{Lock, StateDir};
use mainstay_store::{completed, halted};
use mainstay_sys::{self as sys, Processes};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use self::clock::ToLoop;
use self::control::{Audience, Command, Server};
use self::dispatcher::daemon::Daemon;
use self::dispatcher::{About, Dispatcher, Initial};
use self::effects::{Account, Message};
pub(crate) use self::executor::{Asked, ask_probe};
use self::executor::{Executor, Machine, Notices};
use self::interrupts::{Interrupt, Interrupts};
pub use self::managed::Started;
pub use self::orphaned::{Orphans, orphans, stop_without_supervisor};
use self::possession::Possession;
use self::recovery::{Recovery, Remains};
pub use self::report::Output;
pub use self::viewers::Viewers;
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
    /// The group whose members may view the services.
    pub viewers: Option<Viewers>,
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

/// The duration from which on the processing of one event is reported. It usually takes
/// microseconds, as calls that may block are made by threads.
const LONG_TURN: Duration = Duration::from_millis(500);

/// The time without requests after which the memory that they needed is released.
const QUIET: Duration = Duration::from_secs(2);

/// A message to the event loop from one of its helpers.
enum Wake {
    /// A message to the dispatcher.
    Message(Message),
    /// Notifications from a run.
    Notices(Notices),
    /// The log pipes have no keeper process and need one.
    KeepPipes,
    /// The events of the start are stored.
    Settled,
}

impl From<Message> for Wake {
    fn from(message: Message) -> Self {
        Self::Message(message)
    }
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
        let (mut host, server) = Host::new(options, lock)?;
        let code = host.supervise().await;
        let (closed, possession) = host.end();
        let code = match (code, closed) {
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

/// A supervisor: the dispatcher, and the sources of everything that happens to it.
struct Host {
    dispatcher: Dispatcher<Executor>,
    sources: Sources,
    /// The hold on the state directory. `None` while this process only stops the services of a dead
    /// supervisor.
    possession: Option<Possession>,
    /// The time at which to release the memory that only start-up or requests needed.
    releases_at: Option<std::time::Instant>,
}

/// The receiver of messages with the times at which they were sent.
type FromElsewhere = UnboundedReceiver<(std::time::Instant, Wake)>;

/// The event sources of the loop, apart from child processes.
struct Sources {
    messages: FromElsewhere,
    commands: UnboundedReceiver<Command>,
    interrupts: Interrupts,
}

/// An event of the loop.
enum Turn {
    Interrupt(Interrupt),
    /// Children have ended.
    Children,
    Message(std::time::Instant, Wake),
    Command(Box<Command>),
    Deadline,
    /// Something has happened to the state directory.
    Place,
    /// A repair of the state directory is due.
    Repair,
    Redraw,
    /// There have been no requests for a while.
    Quiet,
}

/// The time that the processing of an event takes. Meanwhile, no other service is supervised, so a
/// long one is reported.
struct Stopwatch {
    began: std::time::Instant,
    what: &'static str,
}

impl Stopwatch {
    fn start(turn: &Turn) -> Self {
        Self {
            began: std::time::Instant::now(),
            what: match turn {
                Turn::Interrupt(_) => "a signal",
                Turn::Children => "the end of a process",
                Turn::Message(..) => "a result",
                Turn::Command(_) => "a request",
                Turn::Deadline => "a deadline",
                Turn::Place | Turn::Repair => "a change of the state directory",
                Turn::Redraw => "the table",
                Turn::Quiet => "unused memory",
            },
        }
    }

    /// Returns a remark for the operator if it took too long.
    fn stop(self) -> Option<String> {
        let took = self.began.elapsed();
        (took >= LONG_TURN).then(|| {
            format!(
                "supervision paused for {} while {} was processed: a disk or the machine does not respond, or this process was suspended",
                Human(took),
                self.what
            )
        })
    }
}

/// The services that a supervisor is told to supervise.
struct Task {
    definitions: Vec<Definition>,
    manifest: String,
    copy: Option<ManifestCopy>,
    left_out: Vec<String>,
    daemon: Option<Daemon>,
    /// Concurrent installs wait until this supervisor can receive requests.
    _installing: Option<embedded::Lock>,
}

impl Task {
    fn of(services: Services, state: &StateDir, left: Option<&Remains>) -> Result<Self, Failure> {
        Ok(match services {
            Services::OfManifest {
                specs,
                manifest,
                copy,
                left_out,
            } => {
                let digest = Some(&copy.digest);
                let of_dir = |spec| Definition::of_manifest(spec, &copy.dir, digest.cloned());
                Self {
                    definitions: specs.into_iter().map(of_dir).collect(),
                    manifest,
                    copy: Some(copy),
                    left_out,
                    daemon: None,
                    _installing: None,
                }
            }
            Services::Installed { exits_when_done } => {
                let installing = embedded::lock(state)?;
                let living = left.map_or_else(Vec::new, recovery::living);
                let (definitions, problems) = definitions::all(state, &living);
                Self {
                    definitions,
                    manifest: "the installed services".to_owned(),
                    copy: None,
                    left_out: Vec::new(),
                    daemon: Some(Daemon::new(exits_when_done, problems)),
                    _installing: Some(installing),
                }
            }
        })
    }

    /// Finds the account of each service, and checks what is about to start.
    ///
    /// # Errors
    /// If a service cannot start. A service that cannot be started must not prevent a daemon's
    /// other services from starting, nor services that are running from being supervised again.
    fn accounts(
        &self,
        state: &StateDir,
        inherited: &launch::Environment,
        starts_afresh: bool,
    ) -> Result<Vec<Account>, Failure> {
        let unusable = |why: &str| engine::StartFailure::Permanent(why.to_owned());
        let account = |definition: &Definition| {
            let Definition { spec, dir, .. } = definition;
            if let Some(problem) = &definition.problem {
                return Ok(Err(unusable(problem)));
            }
            let user = user_of(spec);
            if self.daemon.is_some() || !starts_afresh {
                return Ok(user.map_err(|failure| unusable(failure.message())));
            }
            let user = user?;
            preflight::check(spec, dir, user.as_ref(), inherited)?;
            preflight::check_state(spec, state, user.as_ref())?;
            Ok(Ok(user))
        };
        self.definitions.iter().map(account).collect()
    }
}

impl Host {
    /// Creates a supervisor. It recovers the services of its predecessor, takes possession of the
    /// state directory and starts what is due.
    ///
    /// Not inlined, so that what it leaves on the stack can be released.
    #[inline(never)]
    fn new(options: Options, mut lock: Lock) -> Result<(Box<Self>, Server), Failure> {
        let Options {
            services,
            state,
            output,
            follow,
            manager,
            viewers,
        } = options;
        let left = recovery::remains_of(&lock, &state);
        let mut task = Task::of(services, &state, left.as_ref())?;
        let mut processes = new_processes()?;
        // Recover first: orphaned processes may use the very ports that are checked next.
        let mut recovery =
            Recovery::recover((&lock, left), &state, &task.definitions, &mut processes)?;
        let inherited = launch::inherited();
        let accounts = task.accounts(&state, &inherited, !recovery.adopts())?;
        let mut orphan_markers = std::mem::take(&mut recovery.orphan_markers);
        orphan_markers.push(sys::orphan_marker(&processes));
        lock.sign(&task.manifest, &orphan_markers)
            .map_err(failed("write the lock"))?;
        let (to_host, commands) = mpsc::unbounded_channel();
        let progress = manager.as_ref().map(|_| managed::Progress::default());
        let about = About {
            manifest: task.manifest.clone(),
            left_out: std::mem::take(&mut task.left_out),
            daemon: task.daemon.take(),
            manager: progress.clone(),
            zero: recovery.zero,
            seed: seed(),
        };
        let services = task.definitions.into_iter().zip(accounts).collect();
        let machine = Machine {
            adopts: recovery.adopts(),
            state,
            processes,
            inherited,
            output,
        };
        let (mut dispatcher, messages) = assemble(services, about, machine)?;
        dispatcher.effects.orphan_markers = orphan_markers;
        let state = dispatcher.effects.state.clone();
        let listener = endpoint::Listener::bind(state.path())
            .map_err(failed("open the control socket in the state directory"))?;
        let (to_server, listeners) = mpsc::unbounded_channel();
        let mut server = Server::default();
        let viewing = viewers::open(viewers, &state, &to_host, &mut server)?;
        let possession = Possession::new(&state, lock, (listener.place(), to_server), viewing);
        let possession = possession.map_err(failed("watch the state directory"))?;
        let interrupts = match manager.zip(progress) {
            Some((started, progress)) => {
                StartFailure::clear(&state);
                halted::clear(&state);
                completed::clear(&state);
                serve(&dispatcher, started, progress, &to_host)
            }
            None => Interrupts::new(),
        };
        let interrupts = interrupts.map_err(failed("listen for signals"))?;
        server.serve((listener, listeners), to_host, &state, Audience::Owner);
        let executor = &mut dispatcher.effects;
        if let Some((screen, foreign)) = executor.reporter.screen().zip(follow) {
            executor.logs.follow(screen.for_lines(foreign));
        }
        recovery.remarks.extend(possession.viewers_remark(&state));
        for remark in std::mem::take(&mut recovery.remarks) {
            executor.reporter.notify(&remark);
        }
        dispatcher.effects.remark();
        dispatcher.report_problems();
        dispatcher.effects.logs.need();
        let copy = task.copy.as_ref();
        match recovery.take() {
            Some(taken) => {
                let ids = dispatcher.engine().ids();
                let taken = ids.zip(taken).map(|(id, (it, taken))| (id, it, taken));
                dispatcher.take_over(taken.collect(), copy);
            }
            None => {
                let ids = dispatcher.engine().ids();
                let due = ids.map(|id| (id, Checkpoint::NEW));
                dispatcher.begin(due.collect(), copy);
            }
        }
        // The new ledger itself records which runs are outdated, so the updated definitions are not
        // needed.
        let _ = std::fs::remove_dir_all(state.updated_dir());
        dispatcher.record_all_desired();
        dispatcher.rewrite_soon();
        dispatcher.effects.logs.begin();
        let host = Self {
            dispatcher,
            sources: Sources {
                messages,
                commands,
                interrupts,
            },
            possession: Some(possession),
            releases_at: None,
        };
        Ok((Box::new(host), server))
    }

    /// Closes the logs, and returns the hold on the state directory.
    fn end(self: Box<Self>) -> (Result<(), Failure>, Option<Possession>) {
        let Self {
            dispatcher,
            possession,
            ..
        } = *self;
        (dispatcher.into_effects().close(), possession)
    }

    /// Runs the supervisor's loop, and returns the exit code.
    async fn supervise(&mut self) -> u32 {
        let executor = &mut self.dispatcher.effects;
        executor.reporter.flush();
        executor.logs.prepare();
        self.watch(Dispatcher::is_finished).await;
        let report = self.dispatcher.status();
        let has_manager = self.sources.interrupts.has_manager();
        let executor = &mut self.dispatcher.effects;
        executor.end_orphans();
        executor.reporter.finish(&report);
        if has_manager {
            halted::store(&executor.state, &report);
            let engine = self.dispatcher.engine();
            if engine.ids().all(|id| engine.has_completed(id)) {
                completed::store(&self.dispatcher.effects.state);
            }
        }
        self.dispatcher.exit_code()
    }

    /// Passes on events until `is_over`.
    async fn watch(&mut self, is_over: impl Fn(&Dispatcher<Executor>) -> bool) {
        while !is_over(&self.dispatcher) {
            self.dispatcher.effects.reporter.flush();
            let turn = self.next_turn().await;
            let watch = Stopwatch::start(&turn);
            self.take(turn);
            self.dispatcher.conclude();
            let reporter = &mut self.dispatcher.effects.reporter;
            if let Some(remark) = watch.stop() {
                reporter.notify(&remark);
            }
            if reporter.is_due() {
                let report = self.dispatcher.status();
                self.dispatcher.effects.reporter.draw(&report);
            }
        }
    }

    /// Waits for the next event. Cancel-safe.
    async fn next_turn(&mut self) -> Turn {
        let executor = &mut self.dispatcher.effects;
        let redraw = executor.reporter.next_draw();
        let wake = self.dispatcher.deadline();
        let executor = &mut self.dispatcher.effects;
        let wake = wake.map(|at| executor.clock.system(at));
        let repairs_at = self.possession.as_ref().and_then(Possession::repairs_at);
        let releases_at = self.releases_at;
        let Sources {
            messages,
            commands,
            interrupts,
        } = &mut self.sources;
        tokio::select! {
            biased;
            interrupt = interrupts.next() => Turn::Interrupt(interrupt),
            () = executor.processes.changed() => Turn::Children,
            Some((at, message)) = messages.recv() => Turn::Message(at, message),
            Some(command) = commands.recv() => Turn::Command(Box::new(command)),
            () = sleep_until(wake), if wake.is_some() => Turn::Deadline,
            () = possession::changed(self.possession.as_ref()) => Turn::Place,
            () = sleep_until(repairs_at), if repairs_at.is_some() => Turn::Repair,
            () = sleep_until(redraw), if redraw.is_some() => Turn::Redraw,
            () = sleep_until(releases_at), if releases_at.is_some() => Turn::Quiet,
        }
    }

    fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Interrupt(interrupt) => self.dispatcher.interrupted(interrupt),
            Turn::Children => self.dispatcher.reap(),
            Turn::Message(at, message) => self.woken(message, at),
            Turn::Command(command) => {
                self.releases_at = Some(std::time::Instant::now() + QUIET);
                self.dispatcher.commanded(*command);
            }
            Turn::Deadline => self.dispatcher.woken(),
            Turn::Place => self.look_at_possession(),
            Turn::Repair => self.repair_possession(),
            Turn::Redraw => {}
            Turn::Quiet => {
                self.releases_at = None;
                sys::release_memory();
            }
        }
    }

    /// Processes a message that was sent at `at`.
    fn woken(&mut self, message: Wake, at: std::time::Instant) {
        let executor = &mut self.dispatcher.effects;
        let at = executor.clock.engine(at);
        match message {
            Wake::Message(message) => self.dispatcher.received(message, at),
            Wake::Notices(notices) => {
                for (at, event) in notices.take() {
                    let at = self.dispatcher.effects.clock.engine(at);
                    self.dispatcher.received(Message::Engine(event), at);
                }
            }
            Wake::KeepPipes => executor.keep_pipes_again(),
            Wake::Settled => {
                sys::settle_in(&executor.processes);
                sys::release_memory();
            }
        }
    }
}

/// Makes the dispatcher of these services on a machine. It does not start anything.
fn assemble(
    services: Vec<(Definition, Account)>,
    about: About,
    machine: Machine,
) -> Result<(Dispatcher<Executor>, FromElsewhere), Failure> {
    let (messages, received) = mpsc::unbounded_channel();
    let (executor, seats) = Executor::new(machine, &about, ToLoop(messages), &services)?;
    let initial = services.into_iter().zip(seats);
    let initial = initial.map(|((definition, account), seat)| Initial {
        definition,
        account,
        seat,
    });
    let dispatcher = Dispatcher::new(initial.collect(), about, executor)
        .map_err(|error| Failure::new(Code::InvalidManifest, error.to_string()))?;
    Ok((dispatcher, received))
}

/// Accepts requests from the service manager that started this process.
fn serve(
    dispatcher: &Dispatcher<Executor>,
    started: Started,
    progress: managed::Progress,
    commands: &UnboundedSender<Command>,
) -> io::Result<Interrupts> {
    let (interrupts, received) = mpsc::unbounded_channel();
    let engine = dispatcher.engine();
    let spec = engine.ids().next().and_then(|id| engine.spec(id));
    let line = managed::Line {
        service: spec.map_or_else(String::new, |spec| spec.name().to_string()),
        commands: commands.clone(),
        interrupts,
        progress,
    };
    tokio::task::spawn_local(line.serve(started));
    Interrupts::of_manager(received)
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
