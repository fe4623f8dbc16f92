//! A machine that consists of data: processes, storage, and everything that is going to happen.
//!
//! Its clock moves only between calls of the dispatcher. An effect that broke one of the rules that
//! concern effects alone is recorded as [`World::fault`]; `rules.rs` checks the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::engine::{Event, Exit, Notice, RunId, ServiceId, Token};
use mainstay_core::spec::{Ready, ServiceName, Spec, Still};
use mainstay_core::time::Instant;
use mainstay_logs::LogEvent;
use tokio::sync::oneshot;

use super::disk::Disk;
use super::random::Random;
use crate::host::alert::{Alert, AlertEvent};
use crate::host::control::Reply;
use crate::host::effects::{Message, Reaped, Ticket};

/// The number of effects that one call may have.
const MOST_EFFECTS: u32 = 20_000;

/// The panic payload that ends a call in which the supervisor is killed.
pub(super) struct Killed;

/// Adds a line to the transcript, if there is one.
macro_rules! note {
    ($world:expr, $($line:tt)+) => {
        if $world.transcript.is_some() {
            let line = format!($($line)+);
            $world.write(line);
        }
    };
}
pub(super) use note;

/// The kind of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    Usual,
    /// Rare events are common: supervisors are stopped, probes cannot be performed, and services
    /// have much to tell.
    Eventful,
}

/// Troubles of the machine, which last until they are over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    pub(super) storage_is_full: bool,
    pub(super) logs_are_behind: bool,
    /// Nothing can be started.
    pub(super) lacks_processes: bool,
    /// Killed processes do not end.
    pub(super) kills_hang: bool,
    /// Helpers and whoever else is asked do not answer.
    pub(super) answers_hang: bool,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) transcript: Option<Vec<String>>,
    /// The first rule that was broken.
    pub(super) fault: Option<String>,
    /// The uptime of the machine.
    pub(super) clock: Duration,
    /// The uptime at which the engine's time starts.
    pub(super) zero: Duration,
    /// The uptime at which the supervisor last went on after a suspension.
    pub(super) resumed: Duration,
    pub(super) trouble: Trouble,
    /// Set when nothing fails: in single cases, and at the end of a schedule.
    pub(super) is_kind: bool,
    pub(super) machine: Machine,
    pub(super) coming: BTreeMap<(Duration, u64), Coming>,
    serial: u64,
    pub(super) trees: Vec<Tree>,
    pub(super) helpers: BTreeMap<Ticket, Helper>,
    pub(super) reapable: Vec<Reaped>,
    pub(super) seats: BTreeMap<ServiceId, Seat>,
    /// The seats that were prepared in the current call and are neither seated nor discarded.
    pub(super) loose: BTreeSet<u64>,
    pub(super) copies: Vec<Copying>,
    pub(super) watched: Vec<Watched>,
    pub(super) storage: Disk,
    pub(super) orders: BTreeMap<&'static str, Order>,
    /// Set once the supervisor was told to end: nothing is started any more.
    pub(super) is_ending: bool,
    pub(super) alerts: AlertCount,
    /// The service of the last published fact.
    pub(super) told_of: Option<ServiceName>,
    /// The time of the last fact of each service and role.
    pub(super) told_at: BTreeMap<(ServiceName, u8), u64>,
    /// The number of published facts.
    pub(super) published: u64,
    /// The uptime at which the supervisor gives up the last alerts, once it has said so.
    pub(super) farewell: Option<Duration>,
    /// Set once a service of this supervisor has halted.
    pub(super) has_halted: bool,
    /// Set once the supervisor is stopping all services.
    pub(super) is_stopping: bool,
    /// Set once the supervisor has begun a ledger, or failed to.
    pub(super) was_ledger_begun: bool,
    /// The services that were released, latest last.
    pub(super) gone: Vec<ServiceId>,
    /// The runs that were released.
    pub(super) released: BTreeSet<(ServiceId, RunId)>,
    /// The copies and restores that were cancelled.
    pub(super) called_off: BTreeSet<Token>,
    pub(super) turn: Turn,
    /// The number of effects of the current call.
    pub(super) effects: u32,
    /// The number of effects after which the supervisor is killed.
    pub(super) dies_after: Option<u32>,
}

/// A signal to stop, by what came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The first one, or its echo.
    First,
    /// A second one, or one that counts as such.
    Second,
}

/// The effects of the current call, as far as a rule is about them.
#[derive(Default)]
pub(super) struct Turn {
    /// The runs whose last output is read.
    pub(super) reading: BTreeSet<(ServiceId, RunId)>,
    /// The services whose sockets were closed.
    pub(super) closed: BTreeSet<ServiceId>,
    /// Set if the call is about a time limit that passed while the supervisor was suspended.
    pub(super) was_delayed: bool,
    /// Set if the call is a signal to stop.
    pub(super) signal: Option<Signal>,
}

/// Something that is going to happen.
pub(super) enum Coming {
    Message(Message),
    /// The main process with this ID exits.
    Exit(u32, Exit),
    /// The other processes of this tree exit.
    Others(u32),
    /// A helper exits.
    Helper(Ticket, Exit),
    /// The time limit of a helper that was started at this time passes.
    Late(Ticket, Duration),
    /// The files of definitions are read.
    Load(Ticket, Vec<String>),
    /// A copy or a restore ends.
    Copied(Token),
    Reply(oneshot::Sender<Reply>, Reply),
    /// A reply is made and sent.
    Respond(Box<dyn FnOnce()>),
}

impl Coming {
    /// Returns whether this continues the delivery of an alert.
    pub(super) fn is_of_alert(&self) -> bool {
        matches!(
            self,
            Self::Message(Message::Alert(AlertEvent::Tried(..) | AlertEvent::Due(_)))
        )
    }
}

/// The last request of an operator that concerns whether a service runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Up,
    /// Either: another service may need it, or the last order was lost.
    Any,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Main {
    Lives,
    Ended(Exit),
}

/// The processes of a run.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// The uptime at which the main process ended.
    pub(super) ended: Option<Duration>,
    pub(super) name: ServiceName,
    pub(super) id: ServiceId,
    pub(super) run: RunId,
    pub(super) pid: u32,
    pub(super) main: Main,
    pub(super) others: u32,
    pub(super) is_frozen: bool,
    pub(super) is_killed: bool,
    /// Set while the program has been made to stop changing its state.
    pub(super) is_quiesced: bool,
    pub(super) is_asked: bool,
    /// Set if the program ignores requests to stop.
    pub(super) is_stubborn: bool,
}

impl Tree {
    pub(super) fn is_empty(&self) -> bool {
        self.main != Main::Lives && self.others == 0
    }
}

#[derive(Clone, Debug)]
pub(super) struct Helper {
    /// The service, unless the helper goes on without it.
    pub(super) id: Option<ServiceId>,
    pub(super) purpose: Purpose,
    pub(super) is_killed: bool,
    pub(super) has_ended: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Purpose {
    Command,
    Quiesce,
    Thaw,
    Alert,
    Webhook(ServiceName, Arc<Alert>),
}

impl Purpose {
    /// Returns whether a helper with this purpose delivers an alert.
    pub(super) fn delivers(&self) -> bool {
        matches!(self, Self::Alert | Self::Webhook(..))
    }
}

/// The resources of a definition.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) number: u64,
    pub(super) spec: Arc<Spec>,
    pub(super) held: Option<RunId>,
    pub(super) are_sockets_open: bool,
    /// The line that the output is searched for.
    pub(super) expects: Option<Token>,
    pub(super) is_shared: bool,
}

impl Seat {
    /// Returns whether the definition has a command that undoes the effect of `quiesce`.
    pub(super) fn has_thaw(&self) -> bool {
        let still = self.spec.snapshot().map(|policy| policy.still());
        matches!(still, Some(Still::Commands { thaw: Some(_), .. }))
    }
}

/// A copy or a restore in progress.
pub(super) struct Copying {
    pub(super) name: ServiceName,
    pub(super) id: ServiceId,
    pub(super) token: Token,
    pub(super) is_restore: bool,
    pub(super) is_called_off: bool,
}

/// A client whose departure is reported.
pub(super) struct Watched {
    pub(super) candidate: ServiceId,
    pub(super) answered: oneshot::Receiver<Reply>,
    pub(super) reply: Option<oneshot::Sender<Reply>>,
}

/// The deliveries that are due, and their ends.
#[derive(Debug, Default)]
pub(super) struct AlertCount {
    pub(super) due: u32,
    pub(super) delivered: u32,
    pub(super) lost: u32,
    /// Set if the number that is due cannot be told: two definitions of a service have different
    /// recipients, or a delivery ended after it was given up.
    pub(super) is_unclear: bool,
}

impl World {
    pub(super) fn new(random: Random, tells: bool) -> Self {
        // The machine has been up for a while, so that times before the start are valid.
        let clock = Duration::from_secs(100_000);
        Self {
            random,
            transcript: tells.then(Vec::new),
            fault: None,
            clock,
            zero: clock,
            resumed: Duration::ZERO,
            trouble: Trouble::default(),
            is_kind: false,
            machine: Machine::Usual,
            coming: BTreeMap::new(),
            serial: 0,
            trees: Vec::new(),
            helpers: BTreeMap::new(),
            reapable: Vec::new(),
            seats: BTreeMap::new(),
            loose: BTreeSet::new(),
            copies: Vec::new(),
            watched: Vec::new(),
            storage: Disk::default(),
            orders: BTreeMap::new(),
            is_ending: false,
            alerts: AlertCount::default(),
            told_of: None,
            told_at: BTreeMap::new(),
            published: 0,
            farewell: None,
            has_halted: false,
            is_stopping: false,
            was_ledger_begun: false,
            gone: Vec::new(),
            released: BTreeSet::new(),
            called_off: BTreeSet::new(),
            turn: Turn::default(),
            effects: 0,
            dies_after: None,
        }
    }

    pub(super) fn engine_time(&self, clock: Duration) -> Instant {
        Instant::at(clock.saturating_sub(self.zero))
    }

    /// Records that a rule was broken.
    pub(super) fn blame(&mut self, why: String) {
        note!(self, "!! {why}");
        self.fault.get_or_insert(why);
    }

    /// Returns whether something fails now that fails once in `n` times.
    pub(super) fn fails(&mut self, percent: u64) -> bool {
        !self.is_kind && self.random.chance(percent)
    }

    pub(super) fn write(&mut self, line: String) {
        let at = self.clock.as_secs_f64();
        if let Some(transcript) = &mut self.transcript {
            transcript.push(format!("{at:>14.6} {line}"));
        }
    }

    /// Begins an effect. The supervisor may be killed before it.
    pub(super) fn begin_effect(&mut self) {
        self.effects += 1;
        assert!(self.effects < MOST_EFFECTS, "a call does not end");
        if let Some(left) = &mut self.dies_after {
            if *left == 0 {
                self.dies_after = None;
                std::panic::resume_unwind(Box::new(Killed));
            }
            *left -= 1;
        }
    }

    // What is going to happen.

    pub(super) fn soon(&mut self, pause: Duration, coming: Coming) {
        self.serial += 1;
        self.coming
            .insert((self.clock + pause, self.serial), coming);
    }

    pub(super) fn send(&mut self, pause: Duration, message: Message) {
        self.soon(pause, Coming::Message(message));
    }

    /// The time of the next thing that happens by itself.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.coming.first_key_value().map(|((at, _), _)| *at)
    }

    /// Returns whether a time limit that passed during a suspension is noticed before the exits of
    /// that time.
    pub(super) fn is_limit_next(&self) -> bool {
        let next = self.coming.first_key_value();
        let is_limit = next.is_some_and(|((at, _), coming)| {
            *at <= self.clock && matches!(coming, Coming::Late(..))
        });
        is_limit && self.resumed == self.clock
    }

    /// Lets one thing happen. Returns a message for the dispatcher, if it is one.
    pub(super) fn happen(&mut self, (at, serial): (Duration, u64)) -> Option<(Message, Instant)> {
        let coming = self.coming.remove(&(at, serial))?;
        let at = at.min(self.clock);
        let when = self.engine_time(at);
        match coming {
            Coming::Message(message) => return Some((message, when)),
            Coming::Exit(pid, exit) => self.main_exits(pid, exit, at),
            Coming::Others(pid) => {
                let is_frozen = |tree: &Tree| tree.is_frozen && !tree.is_killed;
                match self.trees.iter_mut().find(|tree| tree.pid == pid) {
                    Some(tree) if is_frozen(tree) => {
                        self.soon(Duration::from_secs(1), Coming::Others(pid));
                    }
                    Some(tree) => tree.others = 0,
                    None => {}
                }
            }
            Coming::Helper(ticket, exit) => {
                if let Some(helper) = self.helpers.get_mut(&ticket)
                    && !std::mem::replace(&mut helper.has_ended, true)
                {
                    let (id, is_thaw) = (helper.id, matches!(helper.purpose, Purpose::Thaw));
                    let mut trees = self.trees.iter_mut();
                    if let Some(tree) = trees.find(|tree| is_thaw && Some(tree.id) == id) {
                        tree.is_quiesced = false;
                    }
                    self.reapable.push(Reaped::Helper(ticket, exit, when));
                }
            }
            Coming::Late(ticket, since) => {
                let was_delayed = self.resumed > since;
                let late = Message::HelperLate {
                    ticket,
                    was_delayed,
                };
                return Some((late, when));
            }
            Coming::Load(ticket, names) => {
                let loaded = self.read_definitions(&names);
                return Some((Message::Loaded(ticket, loaded), when));
            }
            Coming::Copied(token) => return self.copying_ends(token).map(|it| (it, when)),
            Coming::Reply(sender, reply) => drop(sender.send(reply)),
            Coming::Respond(respond) => respond(),
        }
        None
    }

    fn main_exits(&mut self, pid: u32, exit: Exit, at: Duration) {
        let when = self.engine_time(at);
        let Some(tree) = self.trees.iter_mut().find(|tree| tree.pid == pid) else {
            return;
        };
        if tree.main != Main::Lives {
            return;
        }
        if tree.is_frozen && !tree.is_killed {
            return self.soon(Duration::from_secs(1), Coming::Exit(pid, exit));
        }
        tree.main = Main::Ended(exit);
        tree.ended = Some(at);
        let (id, run) = (tree.id, tree.run);
        note!(self, "   pid {pid} of {id:?} ends: {exit}");
        if self.is_held(id, run) {
            self.reapable.push(Reaped::Main(id, run, exit, when));
        }
    }

    // Processes.

    pub(super) fn is_held(&self, id: ServiceId, run: RunId) -> bool {
        self.seats
            .get(&id)
            .is_some_and(|seat| seat.held == Some(run))
    }

    /// Returns the tree of this run, while it is held.
    pub(super) fn tree(&mut self, id: ServiceId, run: RunId) -> Option<&mut Tree> {
        if !self.is_held(id, run) {
            return None;
        }
        self.trees
            .iter_mut()
            .find(|tree| tree.id == id && tree.run == run)
    }

    pub(super) fn exit(&mut self) -> Exit {
        match self.random.below(10) {
            0..5 => Exit::Code(self.random.pick(&[0, 0, 1, 3, 9, 75, 101, 201, 202])),
            5..7 => Exit::Code(0),
            7 | 8 => Exit::Signal(self.random.pick(&[6, 9, 11, 15])),
            _ => Exit::Unknown,
        }
    }

    /// Decides what a new process will do.
    pub(super) fn bring_to_life(&mut self, id: ServiceId, run: RunId, pid: u32) {
        let seat = self.seats.get_mut(&id);
        let Some((ready, expects)) =
            seat.map(|it| (it.spec.start().ready().cloned(), it.expects.take()))
        else {
            return;
        };
        let delay = self.random.within(3_000);
        let shows = self.is_kind || self.random.chance(80);
        match ready {
            Some(Ready::Notify(_)) if shows => self.notified(delay, id, run, Notice::Ready),
            Some(Ready::Log(_)) if shows => self.line_appears(delay, id, expects),
            _ => {}
        }
        let talks = match self.machine {
            Machine::Usual => 10,
            Machine::Eventful => 60,
        };
        if self.random.chance(talks) {
            let limit = Duration::from_secs(self.random.pick(&[0, 3, 20, 3600]));
            self.notified(delay / 2, id, run, Notice::ExtendTimeout(limit));
            self.notified(delay, id, run, Notice::Status("busy".to_owned()));
        }
        let others = if self.random.chance(30) {
            1 + self.random.below(3)
        } else {
            0
        };
        let is_stubborn = self.random.chance(20);
        if let Some(tree) = self.trees.iter_mut().find(|tree| tree.pid == pid) {
            tree.others = u32::try_from(others).unwrap_or(0);
            tree.is_stubborn = is_stubborn;
        }
        match self.random.below(10) {
            _ if self.is_kind => {}
            // It ends at once, or becomes a daemon.
            0 | 1 => {
                let exit = if others > 0 {
                    Exit::Code(0)
                } else {
                    self.exit()
                };
                let after = self.random.within(30);
                self.soon(after, Coming::Exit(pid, exit));
            }
            2 | 3 => {
                let (exit, after) = (self.exit(), self.random.within(60_000));
                self.soon(after, Coming::Exit(pid, exit));
            }
            _ => {}
        }
        if others > 0 && self.random.chance(50) {
            let after = self.random.within(20_000);
            self.soon(after, Coming::Others(pid));
        }
    }

    fn notified(&mut self, pause: Duration, id: ServiceId, run: RunId, notice: Notice) {
        self.send(pause, Message::Engine(Event::Notified(id, run, notice)));
    }

    fn line_appears(&mut self, pause: Duration, id: ServiceId, expects: Option<Token>) {
        let Some((seat, token)) = self.seats.get(&id).zip(expects) else {
            return;
        };
        let service = seat.spec.name().clone();
        let token = token.0;
        self.send(pause, Message::Log(LogEvent::Matched { service, token }));
    }

    /// Kills the processes of a tree, unless kills hang.
    pub(super) fn kill_tree(&mut self, pid: u32) {
        let after = [self.random.within(20), self.random.within(20)];
        let Some(tree) = self.trees.iter_mut().find(|tree| tree.pid == pid) else {
            return;
        };
        tree.is_killed = true;
        if !self.trouble.kills_hang {
            let [main, others] = after;
            self.soon(main, Coming::Exit(pid, Exit::Signal(9)));
            self.soon(others, Coming::Others(pid));
        }
    }

    /// Lets a trouble begin or end.
    pub(super) fn set_trouble(&mut self, trouble: Trouble) {
        let kills_again = self.trouble.kills_hang && !trouble.kills_hang;
        self.trouble = trouble;
        note!(self, "== {trouble:?}");
        if kills_again {
            let killed = self.trees.iter().filter(|tree| tree.is_killed);
            let pids: Vec<u32> = killed.map(|tree| tree.pid).collect();
            pids.into_iter().for_each(|pid| self.kill_tree(pid));
            let hang = self
                .helpers
                .iter()
                .filter(|(_, it)| it.is_killed && !it.has_ended);
            let tickets: Vec<Ticket> = hang.map(|(ticket, _)| *ticket).collect();
            for ticket in tickets {
                self.soon(Duration::ZERO, Coming::Helper(ticket, Exit::Signal(9)));
            }
        }
    }

    // Helpers.

    pub(super) fn add_helper(
        &mut self,
        ticket: Ticket,
        id: Option<ServiceId>,
        purpose: Purpose,
        limit: Duration,
    ) {
        let helper = Helper {
            id,
            purpose,
            is_killed: false,
            has_ended: false,
        };
        if self.helpers.insert(ticket, helper).is_some() {
            self.blame(format!("{ticket:?} is used twice"));
        }
        let now = self.clock;
        self.soon(limit, Coming::Late(ticket, now));
        let end = match self.random.below(10) {
            _ if self.trouble.answers_hang => None,
            0..6 => Some((Exit::Code(0), self.random.within(200))),
            6 => Some((Exit::Code(1), self.random.within(500))),
            7 | 8 => Some((self.exit(), self.random.within(10_000))),
            _ => None,
        };
        if let Some((exit, after)) = end {
            self.soon(after, Coming::Helper(ticket, exit));
        }
    }

    /// Returns whether a process delivers an alert and has not been told to end.
    pub(super) fn is_delivering(&self) -> bool {
        let mut helpers = self.helpers.values();
        helpers.any(|it| it.purpose.delivers() && !it.is_killed && !it.has_ended)
    }

    /// Takes note of what a reaped helper has done.
    pub(super) fn helper_reaped(&mut self, ticket: Ticket, exit: Exit) {
        let Some(helper) = self.helpers.remove(&ticket) else {
            return;
        };
        if let Purpose::Alert = helper.purpose
            && exit == Exit::Code(0)
        {
            self.alerts.delivered += 1;
        }
    }

    /// A process that sends a request to a webhook has ended, and its result is known.
    pub(super) fn request_tried(&mut self, name: ServiceName, alert: Arc<Alert>, is_over: bool) {
        use mainstay_core::alert::Answer;
        let retry = self.random.within(5_000);
        let answer = match self.random.below(10) {
            _ if !is_over => Answer::Nothing,
            0..6 => Answer::Status(204, None),
            6 => Answer::Status(410, None),
            7 => Answer::Status(429, Some(retry)),
            8 => Answer::Status(503, None),
            _ => Answer::Nothing,
        };
        let pause = self.random.within(20);
        let tried = AlertEvent::Tried(name, alert, answer, "as it answered".to_owned());
        self.send(pause, Message::Alert(tried));
    }

    // Clients.

    /// Passes on the answers of the clients whose departure is reported.
    pub(super) fn attend_to_clients(&mut self) {
        use oneshot::error::TryRecvError;
        let mut at = 0;
        while at < self.watched.len() {
            let watched = &mut self.watched[at];
            let is_delivered = match watched.answered.try_recv() {
                Ok(answer) => watched
                    .reply
                    .take()
                    .is_some_and(|it| it.send(answer).is_ok()),
                Err(TryRecvError::Closed) => false,
                Err(TryRecvError::Empty)
                    if watched.reply.as_ref().is_some_and(|it| it.is_closed()) =>
                {
                    false
                }
                Err(TryRecvError::Empty) => {
                    at += 1;
                    continue;
                }
            };
            let candidate = self.watched.swap_remove(at).candidate;
            if !is_delivered {
                let pause = self.random.within(20);
                self.send(pause, Message::ClientLeft(candidate));
            }
        }
    }
}
