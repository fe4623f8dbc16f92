//! Starting, signalling and reaping of services.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_core::engine::{
    Awaited, Event, Exit, Fact, Human, KillReason, RunId, ServiceId, StartFailure, StateName,
    Token, Unasked,
};
use mainstay_core::failure::chain;
use mainstay_core::spec::{self, Argv, Probe, Ready, Reload, Senders, Signal, Spec, StopScope};
use mainstay_core::time::Instant as Moment;
use mainstay_logs::Scope;
use mainstay_sys as sys;
use mainstay_sys::{Tree, aside};

use super::delay::undelayed;
use super::helpers::Purpose;
use super::notices::Notices;
use super::notify::{Heard, NotifySocket, Trust};
use super::probe::No;
use super::recovery::RecoveredService;
use super::update::Part;
use super::{Host, Message, Processes, Running, ServiceRuntime, other, probe};
use crate::launch;
use crate::owner::Owner;
use crate::preflight;
use crate::runs;

/// The first delay before a tree whose main process has exited is checked again, and the longest
/// one.
const FIRST_SWEEP: Duration = Duration::from_millis(20);
const SLOWEST_SWEEP: Duration = Duration::from_secs(2);

/// The reason that a request for a service that no longer exists fails.
const REMOVED: &str = "it was removed";
/// The longest time that an exit waits for the log thread to process earlier output.
const RECENT_OUTPUT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time limit of a reload command.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The delay before another attempt to start a keeper.
const KEEPER_PAUSE: Duration = Duration::from_secs(10);

impl Host {
    /// Starts a service's program and returns its process ID.
    pub(super) fn spawn(&mut self, id: ServiceId, run: RunId) -> Result<u32, StartFailure> {
        let runtime = self.runtimes.get(&id).ok_or(REMOVED)?;
        let spec = Arc::clone(&runtime.spec);
        if let Err(why) = &runtime.user {
            return Err(StartFailure::Permanent(why.clone()));
        }
        let name = spec.name().as_str();
        let data = self.state.refuse_foreign_data(name, other(&runtime.user));
        data.map_err(|foreign| StartFailure::Permanent(foreign.to_string()))?;
        let reached = self.state.refuse_closed(name, other(&runtime.user));
        reached.map_err(|it| StartFailure::Permanent(format!("{it} (hint: {})", it.hint())))?;
        let runtime = self.runtime_mut(id)?;
        if !runtime.sockets.are_ours()
            && let Some(taken) = preflight::taken(&spec)
        {
            return Err(taken.into());
        }
        runtime.sockets.open(&spec)?;
        let in_use = self.claim_state(&spec)?;
        let mut notify = None;
        if let Some(Ready::Notify(_)) = spec.start().ready() {
            let socket = self.listen(id, run, None);
            notify =
                Some(socket.map_err(|error| format!("open its notification socket: {error}"))?);
        }
        let restarts = self.restarts(id);
        let part = self.part_in_update(id)?;
        let log = &mut self.runtimes.get_mut(&id).ok_or(REMOVED)?.log;
        let is_watched = matches!(spec.start().ready(), Some(Ready::Log(_)));
        let is_first = std::mem::replace(&mut log.are_unused, false);
        let tells_run = !is_first || log.tells_runs || is_watched || part.is_some();
        match part {
            Some(Part::RolloutRole { .. }) => self.logs.starting_beside(log),
            _ if tells_run => self.logs.starting(spec.name(), log),
            _ => {}
        }
        if matches!(part, Some(Part::Alone | Part::RolloutRole { .. })) {
            self.logs.remember(spec.name());
        }
        let tree = self.start(id, spec.command(), Output::Log, notify.as_ref());
        if tells_run {
            let (pid, restarts) = match part {
                // Until the update is decided, all lines count as the old run's.
                Some(Part::RolloutRole { pid, restarts }) => (pid, restarts),
                _ => (tree.as_ref().map_or(0, Tree::pid), restarts),
            };
            let restarts = u32::try_from(restarts).unwrap_or(u32::MAX);
            self.logs.began(spec.name(), pid, restarts);
        }
        let tree = tree?;
        let pid = tree.pid();
        let runtime = self.runtime_mut(id)?;
        if let Some(socket) = &notify {
            socket.belongs_to(&tree);
        }
        runtime.notify = notify;
        runtime.running = Some(Running {
            run,
            tree,
            is_outdated: false,
            digest: runtime.digest.clone(),
            _in_use: in_use,
        });
        Ok(pid)
    }

    /// Returns the runtime data of a service.
    ///
    /// # Errors
    /// If the service was removed.
    fn runtime_mut(&mut self, id: ServiceId) -> Result<&mut ServiceRuntime, String> {
        self.runtimes.get_mut(&id).ok_or_else(|| REMOVED.to_owned())
    }

    fn restarts(&self, id: ServiceId) -> u64 {
        self.engine.view(id).map_or(0, |view| view.restarts)
    }

    fn listen(&self, id: ServiceId, run: RunId, known: Option<&str>) -> io::Result<NotifySocket> {
        let runtime = self.runtimes.get(&id);
        let ServiceRuntime { spec, user, .. } = runtime.ok_or_else(|| io::Error::other(REMOVED))?;
        let to_loop = self.messages.clone();
        let notices = Notices::new(id, run);
        let name = spec.name().as_str();
        let trust = Trust {
            senders: match spec.start().ready() {
                Some(Ready::Notify(senders)) => *senders,
                _ => Senders::Tree,
            },
            user: other(user),
        };
        NotifySocket::open(&self.state, name, &trust, known, move |heard| {
            let pid = match heard {
                Heard::Notice(notice) => return notices.push(notice, &to_loop),
                Heard::Stranger(pid) => pid,
            };
            let remark = format!(
                "ignored a notification from pid {pid}, which is not one of its processes or had already exited; `notify = \"all\"` accepts any process of its account"
            );
            to_loop.send(Message::Remark(id, remark));
        })
    }

    /// Creates the file of a service's notification socket again, after its directory was removed.
    pub(super) fn listen_again(&mut self, id: ServiceId) -> io::Result<()> {
        let Some(runtime) = self.runtimes.get_mut(&id) else {
            return Ok(());
        };
        let (Some(run), Some(socket)) =
            (runtime.running.as_ref().map(|it| it.run), &runtime.notify)
        else {
            return Ok(());
        };
        let Some(path) = socket.path().and_then(|path| path.to_str()) else {
            return Ok(());
        };
        let path = path.to_owned();
        runtime.notify = None;
        let socket = self.listen(id, run, Some(&path))?;
        if let Some(runtime) = self.runtimes.get_mut(&id)
            && let Some(running) = &runtime.running
        {
            socket.belongs_to(&running.tree);
            runtime.notify = Some(socket);
        }
        Ok(())
    }

    /// Registers the processes adopted for a service, after the engine has resumed it.
    pub(super) fn hold(&mut self, id: ServiceId, recovered: RecoveredService) {
        let Some(run) = self.engine.view(id).and_then(|view| view.run) else {
            return;
        };
        let notify = recovered.notify().map(|at| self.listen(id, run, Some(at)));
        let in_use = match (&recovered.tree, self.runtimes.get(&id)) {
            (Some(_), Some(runtime)) => self.claim_state(&runtime.spec),
            _ => Ok(None),
        };
        let Some(runtime) = self.runtimes.get_mut(&id) else {
            return;
        };
        let name = runtime.spec.name();
        runtime.notify = notify.transpose().unwrap_or_else(|error| {
            let what = format!("{name}: cannot reopen its notification socket: {error}");
            self.reporter.notify(&what);
            None
        });
        let is_outdated = recovered.is_outdated;
        let digest = recovered.digest().cloned();
        let digest = digest.or_else(|| runtime.digest.clone().filter(|_| !is_outdated));
        if let Some(tree) = recovered.tree {
            if let Some(socket) = &runtime.notify {
                socket.belongs_to(&tree);
            }
            let in_use = in_use.unwrap_or_else(|why| {
                self.reporter.notify(&format!("{name}: {why}"));
                None
            });
            runtime.running = Some(Running {
                run,
                tree,
                is_outdated,
                digest,
                _in_use: in_use,
            });
        }
    }

    /// Starts a program with the service's working directory, environment and account.
    fn start(
        &mut self,
        id: ServiceId,
        argv: &Argv,
        output: Output,
        notify: Option<&NotifySocket>,
    ) -> Result<Tree, StartFailure> {
        let restarts = self.restarts(id);
        let runtime = self.runtimes.get(&id).ok_or_else(|| REMOVED.to_owned())?;
        let ServiceRuntime {
            spec,
            dir,
            user,
            log,
            sockets,
            ..
        } = runtime;
        let name = spec.name().as_str();
        let mut environment = launch::environment(spec, dir, other(user), &self.inherited)?;
        environment.insert("MAINSTAY_SERVICE".into(), name.into());
        environment.insert("MAINSTAY_RESTARTS".into(), restarts.to_string().into());
        environment.insert(sys::SUPERVISED_FROM.into(), self.state.mark().into());
        environment.insert("MAINSTAY_DATA_DIR".into(), self.state.data_dir(name).into());
        if let Some(socket) = notify {
            environment.insert("NOTIFY_SOCKET".into(), socket.address().into());
        }
        let working_dir = launch::working_dir(spec, dir);
        let (streams, sockets) = match output {
            Output::Log => (
                [sys::stream(log.stdout()), sys::stream(log.stderr())],
                sockets.list(),
            ),
            Output::Nowhere => ([&self.null, &self.null].map(sys::stream), &[][..]),
        };
        spawn(
            &mut self.processes,
            (runtime, Share::All),
            argv,
            environment,
            &working_dir,
            (None, streams),
            sockets,
        )
    }

    /// Returns the tree of this run, if it still exists.
    fn running(&self, id: ServiceId, run: RunId) -> Option<&Running> {
        let running = self.runtimes.get(&id)?.running.as_ref();
        running.filter(|running| running.run == run)
    }

    /// Applies `act` to the tree of a run and returns its error, if it failed.
    pub(super) fn with_tree(
        &self,
        id: ServiceId,
        run: RunId,
        act: impl FnOnce(&Tree, &Spec) -> io::Result<()>,
    ) -> Option<io::Error> {
        let running = self.running(id, run)?;
        act(&running.tree, &self.runtimes.get(&id)?.spec).err()
    }

    /// Kills the remaining processes of a tree.
    pub(super) fn kill(&mut self, id: ServiceId, run: RunId) {
        let running = self.running(id, run);
        let Some(running) = running.filter(|running| !running.tree.is_empty()) else {
            return;
        };
        // If this fails, the tree does not become empty, and the engine's deadline reports that.
        let _ = running.tree.kill();
        if running.tree.exit().is_some() {
            self.emit(
                id,
                &Fact::Killing {
                    why: KillReason::Remains,
                },
            );
        }
    }

    /// Reaps child processes.
    pub(super) fn reap(&mut self) {
        for (tree, exit, at) in self.processes.reap() {
            let at = self.clock.engine(at);
            if let Some(helper) = self.helpers.remove(&tree) {
                self.helper_ended(helper, as_the_engine_says(exit), at);
                continue;
            }
            let found = self.runtimes.iter().find_map(|(id, runtime)| {
                let running = runtime.running.as_ref()?;
                (running.tree.id() == tree).then_some((*id, running.run))
            });
            if let Some((id, run)) = found {
                self.main_ended((id, run), exit, at);
            }
        }
        self.sweep();
        let keeper = self.processes.others().iter().copied();
        if let Some(pid) = { keeper }.find(|pid| self.logs.keeper_ended(*pid)) {
            self.reporter.notify(&format!(
                "the keeper of the log pipes (mainstay-keeper, pid {pid}) exited unexpectedly; starting another one"
            ));
            self.keep_pipes();
        }
    }

    /// Reports the exit of a main process, after everything that may show that it was ready has
    /// been processed.
    pub(super) fn main_ended(
        &mut self,
        (id, run): (ServiceId, RunId),
        exit: sys::Exit,
        at: Moment,
    ) {
        let exit = as_the_engine_says(exit);
        match self.engine.awaits(id, run) {
            None => self.exited((id, run), exit, at),
            Some(awaited) => {
                self.exits.insert((id, run), (exit, at));
                self.read_recent_output(id, run, awaited);
            }
        }
    }

    /// Starts a process that keeps the log pipes open beyond this process's life. Retries if that
    /// fails.
    pub(super) fn keep_pipes(&mut self) {
        let kept = self
            .logs
            .keep(self.runtimes.values().map(|runtime| &runtime.log));
        let Err(error) = kept else { return };
        self.reporter.notify(&format!(
            "cannot start a keeper of the log pipes: {error}; retrying in {}",
            Human(KEEPER_PAUSE)
        ));
        let messages = self.messages.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(KEEPER_PAUSE).await;
            messages.send(Message::KeepPipes);
        });
    }

    /// Processes the exit of a main process.
    pub(super) fn exited(&mut self, (id, run): (ServiceId, RunId), exit: Exit, at: Moment) {
        self.sweeping.push((id, run));
        self.sweeps_again = Some((Instant::now() + FIRST_SWEEP, FIRST_SWEEP));
        self.step_at(at, Event::Exited(id, run, exit));
    }

    /// Checks trees that are not empty yet, at growing intervals.
    pub(super) fn sweep_again(&mut self) {
        self.reap();
        let pause = self.sweeps_again.map_or(FIRST_SWEEP, |(_, pause)| pause);
        let pause = (pause * 2).min(SLOWEST_SWEEP);
        self.sweeps_again = (!self.sweeping.is_empty()).then(|| (Instant::now() + pause, pause));
    }

    /// Sends [`Message::Exited`] after everything that a run sent before it exited and that may
    /// show that it was ready.
    fn read_recent_output(&self, id: ServiceId, run: RunId, awaited: Awaited) {
        let to_loop = self.messages.clone();
        let exited = move || {
            to_loop.send(Message::Exited(id, run));
        };
        let Some(runtime) = self.runtimes.get(&id) else {
            return exited();
        };
        match awaited {
            Awaited::Notice => {
                runtime.notify.iter().for_each(NotifySocket::drain);
                exited();
            }
            Awaited::Line => {
                self.logs.drain(runtime.spec.name(), exited.clone());
                // A full or slow disk must not delay the decision.
                tokio::task::spawn_local(async move {
                    undelayed(RECENT_OUTPUT_TIMEOUT).await;
                    exited();
                });
            }
        }
    }

    /// Reports trees that have become empty to the engine.
    pub(super) fn sweep(&mut self) {
        let mut i = 0;
        while i < self.sweeping.len() {
            let (id, run) = self.sweeping[i];
            let Some(runtime) = self.runtimes.get_mut(&id) else {
                self.sweeping.swap_remove(i);
                continue;
            };
            let running = runtime.running.as_ref();
            if running.is_some_and(|running| running.run == run && !running.tree.is_empty()) {
                i += 1;
                continue;
            }
            self.sweeping.swap_remove(i);
            runtime.notify = None;
            // The next action may be a restore: release the state before it.
            runtime.running.take_if(|running| running.run == run);
            self.take_up_successor(id);
            self.step(Event::Emptied(id, run));
        }
    }

    /// Runs a probe. The result arrives as a message. Returns an event only if the probe could not
    /// be run.
    pub(super) fn ask(
        &mut self,
        (id, of): (ServiceId, Option<RunId>),
        token: Token,
        probe: Probe,
        limit: Duration,
    ) -> Option<Event> {
        if let Probe::Exec(argv) = &probe {
            let started = self.start_helper(id, argv, Purpose::Probe(token), limit);
            return match started {
                Ok(()) => None,
                Err(StartFailure::Lacking(why)) => {
                    Some(Event::Unasked(id, token, Unasked::Lacking(why)))
                }
                Err(failure) => Some(refused(id, token, failure.to_string())),
            };
        }
        let ServiceRuntime { spec, dir, .. } = self.runtimes.get(&id)?;
        let base = launch::working_dir(spec, dir);
        let answerers = of.and_then(|run| self.answerers(id, run));
        let messages = self.messages.clone();
        tokio::task::spawn_local(async move {
            let question = async {
                let at = probe::ask(&probe, &base).await?;
                let (Some(at), Some(members)) = (at, answerers) else {
                    return Ok(());
                };
                if probe::owner(at.clone(), members).await? == Owner::Unknown
                    && cfg!(target_os = "linux")
                {
                    let remark = format!(
                        "{at} accepts connections; the listening process cannot be determined and is assumed to belong to the service"
                    );
                    messages.send(Message::Remark(id, remark));
                }
                Ok(())
            };
            let answer = probe::within(limit, question).await;
            let event = match answer {
                Ok(()) => Event::Answered(id, token, Ok(())),
                Err(No::Delayed) => Event::Unasked(id, token, Unasked::Delayed),
                Err(No::Lacking(why)) => Event::Unasked(id, token, Unasked::Lacking(why)),
                Err(No::Answer(why)) => refused(id, token, why),
            };
            messages.send(Message::Engine(event));
        });
        None
    }

    /// Returns the processes that may answer the readiness probe of this run; `None` if any process
    /// may.
    fn answerers(&self, id: ServiceId, run: RunId) -> Option<sys::Members> {
        let is_starting = self.engine.view(id)?.state == StateName::StartPending;
        let runtime = self.runtimes.get(&id)?;
        let is_any = runtime.spec.start().owner() == spec::Owner::Any || runtime.sockets.are_ours();
        let running = self.running(id, run)?;
        (is_starting && !is_any).then(|| running.tree.members())
    }

    /// Watches for a line in the unread output of an adopted run, or in the output of the next run.
    pub(super) fn expect_line(
        &mut self,
        id: ServiceId,
        token: Token,
        regex: &str,
    ) -> Result<(), String> {
        let ServiceRuntime { spec, running, .. } = self.runtimes.get(&id).ok_or(REMOVED)?;
        let scope = match running {
            Some(_) => Scope::Unread,
            None => Scope::NextRun,
        };
        self.logs
            .expect_line(spec.name(), regex, token.0, scope)
            .map_err(|error| error.to_string())
    }

    /// Makes a running service reload its configuration in the way its manifest defines.
    pub(super) fn reload(&mut self, id: ServiceId) -> Result<(), String> {
        let state = self.engine.view(id).ok_or(REMOVED)?.state;
        if state != StateName::Running {
            return Err(format!("it is {state}"));
        }
        let runtime = self.runtimes.get(&id).ok_or(REMOVED)?;
        let spec = Arc::clone(&runtime.spec);
        let signal = match spec.reload() {
            Some(Reload::Exec(argv)) => {
                let purpose = Purpose::Reload(spec.name().clone());
                let started = self.start_helper(id, argv, purpose, RELOAD_TIMEOUT);
                return started.map_err(|failure| failure.to_string());
            }
            Some(Reload::Signal(signal)) => *signal,
            None => Signal::Hup,
        };
        let Some(running) = &runtime.running else {
            return Ok(());
        };
        if spec.reload().is_none() && running.tree.handles(signal) != Some(true) {
            return Err(format!(
                "it does not handle SIG{}, which would terminate it; set `reload` in its manifest",
                signal.name()
            ));
        }
        running
            .tree
            .signal(signal, StopScope::Main)
            .map_err(|error| format!("SIG{}: {error}", signal.name()))
    }

    pub(super) fn start_helper(
        &mut self,
        service: ServiceId,
        argv: &Argv,
        purpose: Purpose,
        limit: Duration,
    ) -> Result<(), StartFailure> {
        let tree = self.start(service, argv, Output::Nowhere, None)?;
        self.keep_helper(service, tree, purpose, limit);
        Ok(())
    }
}

/// Returns the event of a failed probe. If this process lacks file descriptors now, the probe may
/// not have been performed at all, even if its error does not show that (that of a failed name
/// resolution, for example).
fn refused(id: ServiceId, token: Token, why: String) -> Event {
    let spare: io::Result<Vec<_>> = (0..2).map(|_| io::pipe()).collect();
    match spare {
        Ok(_) => Event::Answered(id, token, Err(why)),
        Err(error) => {
            let why = format!("{why} (supervisor: {error})");
            Event::Unasked(id, token, Unasked::Lacking(why))
        }
    }
}

/// The settings of its service that a program is started with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// All of them: the service's program, and the commands that act on it or for it (probes,
    /// reload, quiesce, thaw).
    All,
    /// The account alone. Any other setting may be what prevents the service from running, and the
    /// alert command has to report that.
    Account,
}

/// Starts a program as a service's account.
pub(super) fn spawn(
    processes: &mut Processes,
    (runtime, share): (&ServiceRuntime, Share),
    argv: &Argv,
    environment: launch::Environment,
    working_dir: &Path,
    (stdin, [stdout, stderr]): (Option<sys::Stream<'_>>, [sys::Stream<'_>; 2]),
    sockets: &[sys::Socket],
) -> Result<Tree, StartFailure> {
    let ServiceRuntime {
        spec, dir, user, ..
    } = runtime;
    let is_all = share == Share::All;
    let look = Look {
        program: argv.program().to_owned(),
        dir: dir.clone(),
        search: environment.get(OsStr::new("PATH")).cloned(),
        // The file or its owner may have changed since the service was first started.
        unexposed: runs::as_root(other(user)).then(|| {
            let env_file = spec.env_file().filter(|_| is_all);
            env_file.map(|path| dir.join(path))
        }),
    };
    let program = look.run_aside(working_dir)?;
    let words: Vec<_> = std::iter::once(argv.program())
        .chain(argv.args().iter().map(String::as_str))
        .map(Into::into)
        .collect();
    let environment: Vec<_> = environment.into_iter().collect();
    processes
        .spawn(&sys::Command {
            name: spec.name().as_str(),
            program: &program,
            argv: &words,
            env: &environment,
            working_dir,
            stdin,
            stdout,
            stderr,
            user: other(user),
            capabilities: match spec.sandbox().filter(|_| is_all) {
                Some(sandbox) => &sandbox.capabilities,
                None => &[],
            },
            priority: spec.priority().filter(|_| is_all),
            cpus: if is_all { spec.cpus() } else { &[] },
            sockets,
            limits: match share {
                Share::All => spec.limits(),
                Share::Account => spec::Limits::default(),
            },
        })
        .map_err(|error| {
            let why = match error.hint() {
                Some(hint) => format!("{} ({hint})", chain(&error)),
                None => chain(&error),
            };
            match error.is_permanent {
                true => StartFailure::Permanent(why),
                false if error.is_lacking() => StartFailure::Lacking(why),
                false => StartFailure::of_path(why, error.cause()),
            }
        })
}

/// The paths that a start depends on. If one lies on a mount whose server is gone, the child hangs
/// in its exec, and so does the parent, which waits for it.
#[derive(Debug)]
struct Look {
    program: String,
    dir: PathBuf,
    search: Option<OsString>,
    /// Set for a program that runs as root: its `env_file`, if it has one.
    unexposed: Option<Option<PathBuf>>,
}

impl Look {
    /// Finds the program and looks at the working directory, in one thread.
    fn run_aside(self, working_dir: &Path) -> Result<PathBuf, StartFailure> {
        let names = [
            format!("program {}", self.program),
            format!("working_dir {}", working_dir.display()),
        ];
        let subjects = [format!("{self:?}"), names[1].clone()];
        let place = working_dir.to_owned();
        let found = aside::wait_for_both(
            subjects,
            move || self.run(),
            move |program| {
                drop(program.as_ref().map(|_| place.metadata()));
                program
            },
        );
        found.map_err(|(index, error)| {
            let why = format!("{}: {error}", names[index]);
            match error.kind() {
                io::ErrorKind::TimedOut => StartFailure::Transient(why),
                _ => StartFailure::Lacking(why),
            }
        })?
    }

    /// Finds the program.
    fn run(self) -> Result<PathBuf, StartFailure> {
        let found = launch::find_program(&self.program, &self.dir, self.search.as_deref());
        let program = found.map_err(|error| {
            let why = format!("find program {}: {error}", self.program);
            match error.kind() {
                io::ErrorKind::PermissionDenied => StartFailure::Permanent(why),
                _ => StartFailure::of_path(why, &error),
            }
        })?;
        if let Some(env_file) = self.unexposed
            && let Some(why) = [Some(program.clone()), env_file]
                .into_iter()
                .flatten()
                .find_map(|path| runs::refusal(&path))
        {
            return Err(StartFailure::Permanent(why));
        }
        // Only whether it, and its interpreter, can be looked at: the exec says what is wrong.
        drop(launch::obstacle(&program));
        Ok(program)
    }
}

/// The destination of a child's output.
#[derive(Clone, Copy)]
enum Output {
    Log,
    Nowhere,
}

fn as_the_engine_says(exit: sys::Exit) -> Exit {
    match (exit.code, exit.signal) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}
