//! Processes of services and helpers: starting, signalling, reaping, probing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::engine::{
    Awaited, Event, Exit, ProbeFailure, RunId, ServiceId, StartFailure, Token, Unasked,
};
use mainstay_core::spec::{Argv, Probe, Ready, Senders, Signal, StopAsk, StopScope};
use mainstay_core::trace::TraceContext;
use mainstay_logs::Scope;
use mainstay_sys::{self as sys, Identity, Tree, Usage};

use super::notices::Notices;
use super::notify::{Heard, NotifySocket, Trust};
use super::probe::{self, No};
use super::spawn::{Share, spawn};
use super::{Executor, Held, Seat};
use crate::host::delay::{Limit, undelayed};
use crate::host::effects::{
    Answerers, Killed, Message, Origin, Part, Programs, REMOVED, Reaped, ReloadFailure, Ticket,
};
use crate::launch;
use crate::owner::Owner;
use crate::preflight;

/// The longest time that an exit waits for the log thread to process earlier output.
const RECENT_OUTPUT_TIMEOUT: Duration = Duration::from_secs(5);

/// The processes of a service that a predecessor left, as far as they are alive, and the address of
/// its notification socket.
pub(in crate::host) struct Adopted {
    pub(in crate::host) tree: Option<Tree>,
    pub(in crate::host) notify: Option<String>,
}

/// The destination of a child's output.
#[derive(Clone, Copy)]
enum Output {
    Log,
    Nowhere,
}

impl Executor {
    fn seat(&self, id: ServiceId) -> Result<&Seat, StartFailure> {
        self.seats.get(&id).ok_or_else(|| REMOVED.into())
    }

    fn seat_mut(&mut self, id: ServiceId) -> Result<&mut Seat, StartFailure> {
        self.seats.get_mut(&id).ok_or_else(|| REMOVED.into())
    }

    /// Returns the tree of this run, if there is one.
    fn tree(&self, id: ServiceId, run: RunId) -> Option<&Tree> {
        self.seats.get(&id)?.tree(run)
    }

    /// Looks at everything that could prevent a start, and claims what the run needs.
    fn make_ready(&mut self, id: ServiceId) -> Result<Option<std::fs::File>, StartFailure> {
        let seat = self.seat(id)?;
        let spec = Arc::clone(&seat.spec);
        if let Err(why) = &seat.account {
            return Err(why.clone());
        }
        let name = spec.name().as_str();
        let data = self.state.refuse_foreign_data(name, seat.user());
        data.map_err(|foreign| StartFailure::Permanent(foreign.to_string()))?;
        let reached = self.state.refuse_closed(name, seat.user());
        reached.map_err(|it| StartFailure::Permanent(format!("{it} (hint: {})", it.hint())))?;
        let seat = self.seat_mut(id)?;
        if !seat.sockets.are_ours()
            && let Some(taken) = preflight::taken(&spec)
        {
            return Err(taken.into());
        }
        seat.sockets.open(&spec)?;
        self.claim_state(&spec)
    }

    /// Tells the log thread that a run is about to start. Returns whether it needs to know when it
    /// has.
    fn announce(&mut self, id: ServiceId, part: Option<Part>) -> Result<bool, StartFailure> {
        let seat = self.seats.get_mut(&id).ok_or(REMOVED)?;
        let (spec, log) = (&seat.spec, &mut seat.log);
        let is_watched = matches!(spec.start().ready(), Some(Ready::Log(_)));
        let is_first = std::mem::replace(&mut log.are_unused, false);
        let tells_run = !is_first || log.tells_runs || is_watched || part.is_some();
        match part {
            Some(Part::Beside { .. }) => self.logs.starting_beside(log),
            _ if tells_run => self.logs.starting(spec.name(), log),
            _ => {}
        }
        if matches!(part, Some(Part::Alone | Part::Beside { .. })) {
            self.logs.remember(spec.name());
        }
        Ok(tells_run)
    }

    fn listen(&self, id: ServiceId, run: RunId, known: Option<&str>) -> io::Result<NotifySocket> {
        let seat = self
            .seat(id)
            .map_err(|why| io::Error::other(why.to_string()))?;
        let to_loop = self.messages.clone();
        let notices = Notices::new(id, run);
        let name = seat.spec.name().as_str();
        let trust = Trust {
            senders: match seat.spec.start().ready() {
                Some(Ready::Notify(senders)) => *senders,
                _ => Senders::Tree,
            },
            user: seat.user(),
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
        let Some(seat) = self.seats.get_mut(&id) else {
            return Ok(());
        };
        let (Some(run), Some(socket)) = (seat.held.as_ref().map(|it| it.run), &seat.notify) else {
            return Ok(());
        };
        let Some(path) = socket.path().and_then(|path| path.to_str()) else {
            return Ok(());
        };
        let path = path.to_owned();
        seat.notify = None;
        let socket = self.listen(id, run, Some(&path))?;
        if let Some(seat) = self.seats.get_mut(&id)
            && let Some(held) = &seat.held
        {
            socket.belongs_to(&held.tree);
            seat.notify = Some(socket);
        }
        Ok(())
    }

    /// Starts a program with the service's working directory, environment and account.
    fn start(
        &mut self,
        id: ServiceId,
        argv: &Argv,
        origin: Origin,
        output: Output,
        notify: Option<&NotifySocket>,
    ) -> Result<Tree, StartFailure> {
        let seat = self.seats.get(&id).ok_or(REMOVED)?;
        let (spec, dir) = (&seat.spec, &seat.dir);
        let name = spec.name().as_str();
        let mut environment = launch::environment(spec, dir, seat.user(), &self.inherited)?;
        environment.insert("MAINSTAY_SERVICE".into(), name.into());
        environment.insert(
            "MAINSTAY_RESTARTS".into(),
            origin.restarts.to_string().into(),
        );
        environment.insert(sys::SUPERVISED_FROM.into(), self.state.mark().into());
        environment.insert("MAINSTAY_DATA_DIR".into(), self.state.data_dir(name).into());
        for (name, value) in origin.cause.iter().flat_map(TraceContext::variables) {
            environment.insert(name.into(), value.into());
        }
        if let Some(socket) = notify {
            environment.insert("NOTIFY_SOCKET".into(), socket.address().into());
        }
        let working_dir = launch::working_dir(spec, dir);
        let (streams, sockets) = match output {
            Output::Log => (
                [
                    sys::stream(seat.log.stdout()),
                    sys::stream(seat.log.stderr()),
                ],
                seat.sockets.list(),
            ),
            Output::Nowhere => ([&self.null, &self.null].map(sys::stream), &[][..]),
        };
        spawn(
            &mut self.processes,
            (seat, Share::All),
            argv,
            environment,
            &working_dir,
            (None, streams),
            sockets,
        )
    }

    /// Registers a helper and starts its time limit.
    pub(super) fn keep_helper(&mut self, ticket: Ticket, tree: Tree, limit: Duration) {
        self.helpers.insert(tree.id(), (ticket, tree));
        let messages = self.messages.clone();
        tokio::task::spawn_local(async move {
            let mut time = Limit::new(limit);
            time.over().await;
            let was_delayed = time.was_delayed();
            messages.send(Message::HelperLate {
                ticket,
                was_delayed,
            });
        });
    }

    /// Replaces the keeper of the pipes if it has ended.
    fn look_at_keeper(&mut self) {
        let keeper = self.processes.others().iter().copied();
        if let Some(pid) = { keeper }.find(|pid| self.logs.keeper_ended(*pid)) {
            self.reporter.notify(&format!(
                "the keeper of the log pipes (mainstay-keeper, pid {pid}) exited unexpectedly; starting another one"
            ));
            self.keep_pipes_again();
        }
    }
}

impl Programs for Executor {
    type Adopted = Adopted;

    fn spawn(
        &mut self,
        id: ServiceId,
        run: RunId,
        restarts: u64,
        part: Option<Part>,
    ) -> Result<u32, StartFailure> {
        let in_use = self.make_ready(id)?;
        let spec = Arc::clone(&self.seat(id)?.spec);
        let mut notify = None;
        if let Some(Ready::Notify(_)) = spec.start().ready() {
            let socket = self.listen(id, run, None);
            notify =
                Some(socket.map_err(|error| format!("open its notification socket: {error}"))?);
        }
        let tells_run = self.announce(id, part)?;
        // The service outlives the request that starts it.
        let cause = None;
        let origin = Origin { restarts, cause };
        let tree = self.start(id, spec.command(), origin, Output::Log, notify.as_ref());
        if tells_run {
            let (pid, restarts) = match part {
                // Until the update is decided, all lines count as the old run's.
                Some(Part::Beside { pid, restarts }) => (pid, restarts),
                _ => (tree.as_ref().map_or(0, Tree::pid), restarts),
            };
            let restarts = u32::try_from(restarts).unwrap_or(u32::MAX);
            self.logs.began(spec.name(), pid, restarts);
        }
        let tree = tree?;
        let pid = tree.pid();
        let seat = self.seat_mut(id)?;
        if let Some(socket) = &notify {
            socket.belongs_to(&tree);
        }
        seat.notify = notify;
        seat.held = Some(Held {
            run,
            tree,
            _in_use: in_use,
        });
        Ok(pid)
    }

    fn adopt(&mut self, id: ServiceId, run: RunId, adopted: Adopted) {
        let notify = adopted.notify.map(|at| self.listen(id, run, Some(&at)));
        let in_use = match (&adopted.tree, self.seats.get(&id)) {
            (Some(_), Some(seat)) => self.claim_state(&seat.spec),
            _ => Ok(None),
        };
        let Some(seat) = self.seats.get_mut(&id) else {
            return;
        };
        let name = seat.spec.name();
        seat.notify = notify.transpose().unwrap_or_else(|error| {
            let what = format!("{name}: cannot reopen its notification socket: {error}");
            self.reporter.notify(&what);
            None
        });
        let Some(tree) = adopted.tree else { return };
        if let Some(socket) = &seat.notify {
            socket.belongs_to(&tree);
        }
        let in_use = in_use.unwrap_or_else(|why| {
            self.reporter.notify(&format!("{name}: {why}"));
            None
        });
        seat.held = Some(Held {
            run,
            tree,
            _in_use: in_use,
        });
    }

    fn ask_to_stop(&mut self, id: ServiceId, run: RunId, ask: StopAsk) {
        if let (Some(tree), Some(seat)) = (self.tree(id, run), self.seats.get(&id)) {
            // If this fails, the processes do not end, and the next step of the stop follows.
            let _ = tree.ask_to_stop(ask, seat.spec.stop().scope());
        }
    }

    fn kill(&mut self, id: ServiceId, run: RunId) -> Killed {
        let tree = self.tree(id, run).filter(|tree| !tree.is_empty());
        let Some(tree) = tree else {
            return Killed::Nothing;
        };
        // If this fails, the tree does not become empty, and the engine's deadline reports that.
        let _ = tree.kill();
        match tree.exit() {
            Some(_) => Killed::Remains,
            None => Killed::Main,
        }
    }

    fn freeze(&mut self, id: ServiceId, run: RunId) -> io::Result<()> {
        self.tree(id, run).map_or(Ok(()), Tree::freeze)
    }

    fn thaw(&mut self, id: ServiceId, run: RunId) {
        // If this fails, the service stays suspended, and its next stop ends in a kill.
        let _ = self.tree(id, run).map(Tree::thaw);
    }

    fn reload(
        &mut self,
        id: ServiceId,
        run: RunId,
        signal: Signal,
        is_named: bool,
    ) -> Result<(), ReloadFailure> {
        let Some(tree) = self.tree(id, run) else {
            return Ok(());
        };
        if !is_named && tree.handles(signal) != Some(true) {
            return Err(ReloadFailure::Unhandled(signal));
        }
        tree.signal(signal, StopScope::Main)
            .map_err(|error| ReloadFailure::Unsent(signal, error))
    }

    fn reap(&mut self) -> Vec<Reaped> {
        let mut reaped = Vec::new();
        for (tree_id, exit, at) in self.processes.reap() {
            let (exit, at) = (exit_of(exit), self.clock.engine(at));
            if let Some((ticket, tree)) = self.helpers.remove(&tree_id) {
                // Processes that the helper started must not stay.
                if !tree.is_empty() {
                    let _ = tree.kill();
                }
                reaped.push(Reaped::Helper(ticket, exit, at));
                continue;
            }
            let run = self.seats.iter().find_map(|(id, seat)| {
                let held = seat.held.as_ref()?;
                (held.tree.id() == tree_id).then_some((*id, held.run))
            });
            reaped.extend(run.map(|(id, run)| Reaped::Main(id, run, exit, at)));
        }
        self.look_at_keeper();
        reaped
    }

    fn is_empty(&self, id: ServiceId, run: RunId) -> bool {
        self.tree(id, run).is_none_or(Tree::is_empty)
    }

    fn release(&mut self, id: ServiceId, run: RunId) {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.notify = None;
            seat.held.take_if(|held| held.run == run);
        }
    }

    fn close_sockets(&mut self, id: ServiceId) {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.sockets.close();
        }
    }

    fn identity(&self, id: ServiceId) -> Option<(Identity, Option<String>)> {
        let seat = self.seats.get(&id)?;
        let identity = seat.held.as_ref()?.tree.identity();
        let notify = seat.notify.as_ref();
        let notify = notify.and_then(|socket| socket.address().to_str());
        Some((identity, notify.map(str::to_owned)))
    }

    fn usage(&self, id: ServiceId) -> Option<Usage> {
        self.seats.get(&id)?.held.as_ref()?.tree.usage()
    }

    fn read_recent(&mut self, id: ServiceId, run: RunId, awaited: Awaited) {
        let to_loop = self.messages.clone();
        let exited = move || to_loop.send(Message::Exited(id, run));
        let Some(seat) = self.seats.get(&id) else {
            return exited();
        };
        match awaited {
            Awaited::Notice => {
                seat.notify.iter().for_each(NotifySocket::drain);
                exited();
            }
            Awaited::Line => {
                self.logs.drain(seat.spec.name(), exited.clone());
                // A full or slow disk must not delay the decision.
                tokio::task::spawn_local(async move {
                    undelayed(RECENT_OUTPUT_TIMEOUT).await;
                    exited();
                });
            }
        }
    }

    fn ask(&mut self, id: ServiceId, of: Answerers, token: Token, probe: Probe, limit: Duration) {
        let Some(seat) = self.seats.get(&id) else {
            return;
        };
        let base = launch::working_dir(&seat.spec, &seat.dir);
        let answerers = match of {
            Answerers::Of(run) if !seat.sockets.are_ours() => seat.tree(run).map(Tree::members),
            _ => None,
        };
        let messages = self.messages.clone();
        tokio::task::spawn_local(async move {
            let operation = probe::operation(&probe, &base);
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
            let event = match probe::within(limit, operation, question).await {
                Ok(()) => Event::Answered(id, token, Ok(())),
                Err(No::Delayed) => Event::Unasked(id, token, Unasked::Delayed),
                Err(No::Lacking(why)) => Event::Unasked(id, token, Unasked::Lacking(why)),
                Err(No::Answer(why)) => refused(id, token, why),
            };
            messages.send(Message::Engine(event));
        });
    }

    fn refused(&self, id: ServiceId, token: Token, why: ProbeFailure) -> Event {
        refused(id, token, why)
    }

    fn expect_line(
        &mut self,
        id: ServiceId,
        token: Token,
        regex: &str,
    ) -> Result<(), ProbeFailure> {
        let seat = self.seats.get(&id).ok_or(ProbeFailure::Removed)?;
        let scope = match seat.held {
            Some(_) => Scope::Unread,
            None => Scope::NextRun,
        };
        let expected = self
            .logs
            .expect_line(seat.spec.name(), regex, token.0, scope);
        expected.map_err(|error| ProbeFailure::Failed(error.to_string()))
    }

    fn start_helper(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        argv: &Argv,
        origin: Origin,
        limit: Duration,
    ) -> Result<(), StartFailure> {
        let tree = self.start(id, argv, origin, Output::Nowhere, None)?;
        self.keep_helper(ticket, tree, limit);
        Ok(())
    }

    fn kill_helper(&mut self, ticket: Ticket) {
        let helper = self.helpers.values().find(|(it, _)| *it == ticket);
        if let Some((_, tree)) = helper {
            // If this fails, its time limit ends it.
            let _ = tree.kill();
        }
    }

    fn containment(&self) -> String {
        self.processes.containment().to_string()
    }
}

/// Returns the event of a failed probe. If this process lacks file descriptors now, the probe may
/// not have been performed at all, even if its error does not show that (that of a failed name
/// resolution, for example).
fn refused(id: ServiceId, token: Token, why: ProbeFailure) -> Event {
    let spare: io::Result<Vec<_>> = (0..2).map(|_| io::pipe()).collect();
    match spare {
        Ok(_) => Event::Answered(id, token, Err(why)),
        Err(error) => {
            let why = format!("{why} (supervisor: {error})");
            Event::Unasked(id, token, Unasked::Lacking(why))
        }
    }
}

pub(in crate::host) fn exit_of(exit: sys::Exit) -> Exit {
    match (exit.code, exit.signal) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}
