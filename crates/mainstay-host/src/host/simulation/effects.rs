//! The simulated clocks, processes and receivers of messages.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::engine::{
    Awaited, CommandFailure, Event, Exit, Fact, ProbeFailure, RunId, ServiceId, StartFailure,
    Token, Unasked,
};
use mainstay_core::spec::{Argv, Probe, Ready, ServiceName, Signal, Spec, StopAsk};
use mainstay_core::time::Instant;
use mainstay_logs::LogEvent;
use mainstay_sys::{Birth, Identity, Usage};
use tokio::sync::oneshot;

use super::specs::{QUIESCE, THAW};
use super::storage::pooled;
use super::world::{
    Coming, Helper, Machine, Main, Order, Purpose, Seat, Tree, Watched, World, note,
};
use crate::host::alert::Alert;
use crate::host::control::Reply;
use crate::host::effects::{
    Answerers, Deliveries, Killed, LastLines, Message, Origin, Outlets, Part, Programs, Published,
    Reaped, ReloadFailure, Ticket, Time, ToParent,
};

/// The processes of a service that a predecessor left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adopted {
    pub(super) pid: Option<u32>,
}

impl Time for World {
    fn now(&self) -> Instant {
        self.engine_time(self.clock)
    }

    fn calendar(&self, at: Instant) -> String {
        (self.zero + at.elapsed()).as_micros().to_string()
    }

    fn later(&mut self, pause: Duration, message: Message) {
        self.begin_effect();
        self.send(pause, message);
    }
}

impl World {
    /// Returns whether a restore of the service's state has not ended yet.
    fn is_restored(&self, id: ServiceId) -> bool {
        let name = self.seats.get(&id).map(|seat| seat.spec.name());
        let mut copies = self.copies.iter();
        copies.any(|it| it.is_restore && Some(&it.name) == name)
    }

    fn start_failure(&mut self, percent: u64) -> Option<StartFailure> {
        if self.trouble.lacks_processes {
            return Some(StartFailure::Lacking("no more processes".to_owned()));
        }
        if !self.fails(percent) {
            return None;
        }
        let why = "it cannot be started".to_owned();
        Some(match self.random.below(4) {
            0 => StartFailure::Transient(why),
            1 => StartFailure::Lacking(why),
            2 => StartFailure::Missing(why),
            _ => StartFailure::Permanent(why),
        })
    }

    fn purpose(&mut self, id: ServiceId, argv: &Argv) -> Purpose {
        match argv.program() {
            QUIESCE => {
                self.check_quiesce(id);
                let has_thaw = self.seats.get(&id).is_some_and(Seat::has_thaw);
                let mut trees = self.trees.iter_mut();
                if let Some(tree) = trees.find(|it| it.id == id && it.main == Main::Lives) {
                    tree.is_quiesced = has_thaw;
                }
                Purpose::Quiesce
            }
            THAW => Purpose::Thaw,
            _ => Purpose::Command,
        }
    }
}

impl Programs for World {
    type Adopted = Adopted;

    fn spawn(
        &mut self,
        id: ServiceId,
        run: RunId,
        restarts: u64,
        part: Option<Part>,
    ) -> Result<u32, StartFailure> {
        self.begin_effect();
        let mut failure = self.start_failure(8);
        if self.is_restored(id) {
            failure = Some("its state is being restored".to_owned().into());
        }
        note!(
            self,
            "   start {id:?} {run:?} restarts {restarts} {part:?} {failure:?}"
        );
        self.check_start(id, part);
        let Some(seat) = self.seats.get_mut(&id) else {
            return Err(StartFailure::Transient("it was removed".to_owned()));
        };
        if let Some(failure) = failure {
            return Err(failure);
        }
        seat.held = Some(run);
        seat.are_sockets_open = !seat.spec.listen().is_empty();
        let name = seat.spec.name().clone();
        let mut pid = 1000 + u32::try_from(self.random.next() % 4_000_000).unwrap_or(0);
        while self.trees.iter().any(|tree| tree.pid == pid) {
            pid += 1;
        }
        self.trees.push(Tree {
            name,
            id,
            run,
            pid,
            main: Main::Lives,
            ended: None,
            others: 0,
            is_frozen: false,
            is_killed: false,
            is_quiesced: false,
            is_asked: false,
            is_stubborn: false,
        });
        self.bring_to_life(id, run, pid);
        Ok(pid)
    }

    fn adopt(&mut self, id: ServiceId, run: RunId, adopted: Adopted) {
        self.begin_effect();
        note!(self, "   adopt {id:?} {run:?} {adopted:?}");
        let tree = self
            .trees
            .iter_mut()
            .find(|tree| Some(tree.pid) == adopted.pid);
        if let (Some(tree), Some(seat)) = (tree, self.seats.get_mut(&id)) {
            (tree.id, tree.run, tree.is_asked) = (id, run, false);
            seat.held = Some(run);
        }
    }

    fn ask_to_stop(&mut self, id: ServiceId, run: RunId, ask: StopAsk) {
        self.begin_effect();
        note!(self, "   ask {id:?} to stop: {ask:?}");
        let exit = self.exit();
        let (main, others) = (self.random.within(3_000), self.random.within(3_000));
        let is_heard = self.is_kind || !self.random.chance(10);
        let others_end = self.random.chance(70);
        let Some(tree) = self.tree(id, run) else {
            return;
        };
        tree.is_asked = true;
        if !tree.is_stubborn && is_heard {
            let pid = tree.pid;
            self.soon(main, Coming::Exit(pid, exit));
            if others_end {
                self.soon(others, Coming::Others(pid));
            }
        }
    }

    fn kill(&mut self, id: ServiceId, run: RunId) -> Killed {
        self.begin_effect();
        let Some(tree) = self.tree(id, run).filter(|tree| !tree.is_empty()) else {
            return Killed::Nothing;
        };
        let (pid, main) = (tree.pid, tree.main);
        note!(self, "   kill {id:?} pid {pid}");
        self.kill_tree(pid);
        if main == Main::Lives {
            Killed::Main
        } else {
            Killed::Remains
        }
    }

    fn freeze(&mut self, id: ServiceId, run: RunId) -> io::Result<()> {
        self.begin_effect();
        let fails = self.fails(10);
        note!(
            self,
            "   freeze {id:?}{}",
            if fails { ": failed" } else { "" }
        );
        if fails {
            return Err(io::Error::other("the freezer is missing"));
        }
        if let Some(tree) = self.tree(id, run) {
            tree.is_frozen = true;
        }
        Ok(())
    }

    fn thaw(&mut self, id: ServiceId, run: RunId) {
        self.begin_effect();
        note!(self, "   thaw {id:?}");
        if let Some(tree) = self.tree(id, run) {
            tree.is_frozen = false;
        }
    }

    fn reload(
        &mut self,
        id: ServiceId,
        run: RunId,
        signal: Signal,
        _: bool,
    ) -> Result<(), ReloadFailure> {
        self.begin_effect();
        let fails = self.random.chance(20);
        match self.tree(id, run) {
            Some(_) if fails => Err(ReloadFailure::Unhandled(signal)),
            _ => Ok(()),
        }
    }

    fn reap(&mut self) -> Vec<Reaped> {
        self.begin_effect();
        let reaped = std::mem::take(&mut self.reapable);
        for it in &reaped {
            note!(self, "   reap {it:?}");
            if let Reaped::Helper(ticket, exit, _) = it
                && !self
                    .helpers
                    .get(ticket)
                    .is_some_and(|it| matches!(it.purpose, Purpose::Webhook(..)))
            {
                self.helper_reaped(*ticket, *exit);
            }
        }
        reaped
    }

    fn is_empty(&self, id: ServiceId, run: RunId) -> bool {
        let mut trees = self
            .trees
            .iter()
            .filter(|tree| tree.id == id && tree.run == run);
        trees.all(Tree::is_empty)
    }

    fn release(&mut self, id: ServiceId, run: RunId) {
        self.begin_effect();
        note!(self, "   release {id:?} {run:?}");
        if !self.is_empty(id, run) {
            self.blame(format!("{id:?} is released while it has processes"));
        }
        self.trees.retain(|tree| (tree.id, tree.run) != (id, run));
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.held.take_if(|held| *held == run);
        }
        if !self.released.insert((id, run)) {
            self.blame(format!("{run:?} of {id:?} is released twice"));
        }
    }

    fn close_sockets(&mut self, id: ServiceId) {
        self.begin_effect();
        self.turn.closed.insert(id);
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.are_sockets_open = false;
        }
    }

    fn identity(&self, id: ServiceId) -> Option<(Identity, Option<String>)> {
        let seat = self.seats.get(&id)?;
        let run = seat.held?;
        let tree = self
            .trees
            .iter()
            .find(|tree| tree.id == id && tree.run == run)?;
        let identity = Identity {
            pid: tree.pid,
            birth: Birth { first: 0, last: 0 },
            tree: String::new(),
        };
        let has_socket = matches!(seat.spec.start().ready(), Some(Ready::Notify(_)));
        Some((identity, has_socket.then(|| "@notify".to_owned())))
    }

    fn usage(&self, _: ServiceId) -> Option<Usage> {
        None
    }

    fn read_recent(&mut self, id: ServiceId, run: RunId, awaited: Awaited) {
        self.begin_effect();
        note!(self, "   read what {id:?} wrote at last: {awaited:?}");
        self.turn.reading.insert((id, run));
        let pause = match awaited {
            Awaited::Notice => Duration::ZERO,
            Awaited::Line => {
                // The time limit.
                self.send(Duration::from_secs(5), Message::Exited(id, run));
                self.random.within(6_000)
            }
        };
        self.send(pause, Message::Exited(id, run));
    }

    fn ask(&mut self, id: ServiceId, of: Answerers, token: Token, probe: Probe, limit: Duration) {
        self.begin_effect();
        note!(self, "   ask {id:?} {of:?} {token:?} {probe:?}");
        let good = Message::Engine(Event::Answered(id, token, Ok(())));
        let bad = Message::Engine(Event::Answered(
            id,
            token,
            Err(ProbeFailure::Status("GET /".to_owned(), 503)),
        ));
        let most = u64::try_from(limit.as_millis()).unwrap_or(1);
        let first_unasked = match self.machine {
            Machine::Usual => 16,
            Machine::Eventful => 5,
        };
        match self.random.below(20) {
            _ if self.trouble.answers_hang => self.send(limit, bad),
            kind @ 0..=16 if kind < first_unasked => {
                let is_good = kind < first_unasked - 3;
                let pause = self.random.within(most);
                self.send(pause, if is_good { good } else { bad });
            }
            0..=16 => {
                let why = self
                    .random
                    .pick(&[Unasked::Delayed, Unasked::Lacking("no files".to_owned())]);
                let pause = self.random.within(most);
                self.send(pause, Message::Engine(Event::Unasked(id, token, why)));
            }
            // Late, twice, never.
            17 => self.send(limit + Duration::from_millis(1200), good),
            18 => {
                self.send(limit / 2, bad);
                self.send(limit / 2, good);
            }
            _ => {}
        }
    }

    fn refused(&self, id: ServiceId, token: Token, why: ProbeFailure) -> Event {
        if self.trouble.lacks_processes {
            Event::Unasked(id, token, Unasked::Lacking(why.to_string()))
        } else {
            Event::Answered(id, token, Err(why))
        }
    }

    fn expect_line(&mut self, id: ServiceId, token: Token, _: &str) -> Result<(), ProbeFailure> {
        self.begin_effect();
        if self.fails(3) {
            return Err(ProbeFailure::Failed(
                "the log thread does not respond".to_owned(),
            ));
        }
        let Some(seat) = self.seats.get_mut(&id) else {
            return Err(ProbeFailure::Removed);
        };
        if seat.held.is_none() {
            seat.expects = Some(token);
        } else {
            let service = seat.spec.name().clone();
            let pause = self.random.within(5_000);
            let token = token.0;
            self.send(pause, Message::Log(LogEvent::Matched { service, token }));
        }
        Ok(())
    }

    fn start_helper(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        argv: &Argv,
        _: Origin,
        limit: Duration,
    ) -> Result<(), StartFailure> {
        self.begin_effect();
        let failure = self.start_failure(4);
        note!(
            self,
            "   run {} of {id:?} {ticket:?} {failure:?}",
            argv.program()
        );
        if !self.seats.contains_key(&id) {
            return Err(StartFailure::Transient("it was removed".to_owned()));
        }
        if let Some(failure) = failure {
            // The supervisor reports that the command cannot be run.
            let is_thaw = argv.program() == THAW;
            if let Some(tree) = self.trees.iter_mut().find(|it| is_thaw && it.id == id) {
                tree.is_quiesced = false;
            }
            return Err(failure);
        }
        let purpose = self.purpose(id, argv);
        self.add_helper(ticket, Some(id), purpose, limit);
        Ok(())
    }

    fn kill_helper(&mut self, ticket: Ticket) {
        self.begin_effect();
        note!(self, "   kill {ticket:?}");
        let pause = self.random.within(20);
        if let Some(helper) = self.helpers.get_mut(&ticket) {
            helper.is_killed = true;
            if !self.trouble.kills_hang {
                self.soon(pause, Coming::Helper(ticket, Exit::Signal(9)));
            }
        }
    }

    fn containment(&self) -> String {
        "simulated".to_owned()
    }
}

impl Deliveries for World {
    fn start_alert_command(
        &mut self,
        id: ServiceId,
        ticket: Ticket,
        _: &Arc<Alert>,
        limit: Duration,
    ) -> Result<(), StartFailure> {
        self.begin_effect();
        note!(self, "   run the alert command of {id:?} {ticket:?}");
        let failure = self.start_failure(5);
        let name = self.seats.get(&id).map(|seat| seat.spec.name().clone());
        let is_same = |it: &Helper| match &it.purpose {
            Purpose::Alert => {
                let seat = it.id.and_then(|id| self.seats.get(&id));
                !it.has_ended && seat.map(|seat| seat.spec.name()) == name.as_ref()
            }
            _ => false,
        };
        if name.is_some() && self.helpers.values().any(is_same) {
            self.blame(format!("two alert commands of {id:?} run at once"));
        }
        match failure {
            Some(failure) => Err(failure),
            None => {
                self.add_helper(ticket, Some(id), Purpose::Alert, limit);
                Ok(())
            }
        }
    }

    fn start_request(
        &mut self,
        spec: &Spec,
        _: &Path,
        ticket: Ticket,
        alert: &Arc<Alert>,
        limit: Duration,
    ) -> Result<(), StartFailure> {
        self.begin_effect();
        note!(self, "   post an alert of {} {ticket:?}", spec.name());
        let name = spec.name();
        let is_same = |it: &Helper| match &it.purpose {
            Purpose::Webhook(other, _) => other == name && !it.has_ended,
            _ => false,
        };
        if self.helpers.values().any(is_same) {
            self.blame(format!("two requests to the webhook of {name} run at once"));
        }
        if let Some(failure) = self.start_failure(5) {
            return Err(failure);
        }
        self.add_helper(
            ticket,
            None,
            Purpose::Webhook(name.clone(), Arc::clone(alert)),
            limit,
        );
        Ok(())
    }

    fn request_ended(&mut self, ticket: Ticket, result: Result<(), CommandFailure>) {
        self.begin_effect();
        let Some(helper) = self.helpers.remove(&ticket) else {
            return self.blame(format!("{ticket:?} ends twice"));
        };
        if let Purpose::Webhook(name, alert) = helper.purpose {
            self.request_tried(name, alert, result.is_ok());
        }
    }
}

impl Outlets for World {
    fn notify(&mut self, text: &str) {
        self.begin_effect();
        note!(self, "   notify: {text}");
        if let Some((limit, _)) = text
            .strip_prefix("waiting up to ")
            .and_then(|rest| rest.split_once("s for the delivery of"))
        {
            let limit = Duration::from_secs(limit.parse().unwrap_or(0));
            self.farewell = Some(self.clock + limit);
        }
        if text.contains(": an alert was lost (") {
            self.alerts.lost += 1;
            self.alerts.is_unclear |= text.ends_with("the supervisor is exiting");
        }
    }

    fn publish(&mut self, published: &Published<'_>) {
        self.begin_effect();
        let Published {
            service,
            role,
            fact,
            ..
        } = published;
        note!(self, "   {service} {role:?}: {fact:?}");
        self.published += 1;
        self.has_halted |= role.is_none() && matches!(fact, Fact::Halted { .. });
        self.check_fact(published);
        self.told_of = Some((*service).clone());
    }

    fn is_silent(&self) -> bool {
        false
    }

    fn host_name(&self) -> String {
        "host".to_owned()
    }

    fn alert_id(&mut self) -> String {
        self.begin_effect();
        let seats = self.seats.values();
        let seats = seats.filter(|seat| Some(seat.spec.name()) == self.told_of.as_ref());
        let mut due = seats.map(|seat| {
            let on_alert = seat.spec.on_alert();
            let command = on_alert.and_then(|it| it.exec()).is_some();
            let webhook = on_alert.and_then(|it| it.webhook()).is_some();
            u32::from(command) + u32::from(webhook)
        });
        let first = due.next().unwrap_or(0);
        self.alerts.is_unclear |= due.any(|other| other != first);
        self.alerts.due += first;
        format!("alert_{}", self.random.next())
    }

    fn seed(&mut self) -> u64 {
        self.random.next()
    }

    fn widen(&mut self, _: &ServiceName) {}

    fn tell_parent(&mut self, _: ToParent) -> io::Result<()> {
        self.begin_effect();
        if self.fails(10) {
            Err(io::Error::other("the socket is gone"))
        } else {
            Ok(())
        }
    }

    fn reply_when_stored(&mut self, reply: oneshot::Sender<Reply>) {
        self.begin_effect();
        let pause = self.random.within(1_000);
        self.soon(
            pause,
            Coming::Reply(reply, Reply::document(&serde_json::json!({}))),
        );
    }

    fn reply_with_lines(
        &mut self,
        lines: Option<LastLines>,
        reply: oneshot::Sender<Reply>,
        response: impl FnOnce(&[String]) -> Reply + 'static,
    ) {
        self.begin_effect();
        let lines = lines
            .and_then(|mut lines| lines.try_recv().ok())
            .unwrap_or_default();
        let pause = self.random.within(100);
        let respond = move || drop(reply.send(response(&lines)));
        self.soon(pause, Coming::Respond(Box::new(respond)));
    }

    fn watch_client(
        &mut self,
        reply: oneshot::Sender<Reply>,
        candidate: ServiceId,
    ) -> oneshot::Sender<Reply> {
        self.begin_effect();
        let (answer, answered) = oneshot::channel();
        self.watched.push(Watched {
            candidate,
            answered,
            reply: Some(reply),
        });
        answer
    }

    fn are_logs_behind(&self) -> bool {
        self.trouble.logs_are_behind
    }

    fn rotate_log(&mut self, id: ServiceId, reply: Option<oneshot::Sender<Reply>>) {
        self.begin_effect();
        if !self.seats.contains_key(&id) {
            self.blame(format!("{id:?} has no log to rotate"));
        }
        let pause = self.random.within(1_000);
        if let Some(reply) = reply {
            self.soon(
                pause,
                Coming::Reply(reply, Reply::document(&serde_json::json!({}))),
            );
        } else if self.fails(20) {
            self.send(
                pause,
                Message::Remark(id, "cannot rotate its log".to_owned()),
            );
        }
    }

    fn recall(&mut self, id: ServiceId) -> LastLines {
        self.begin_effect();
        let (lines, last_lines) = oneshot::channel();
        if self.seats.contains_key(&id) && !self.fails(20) {
            let _ = lines.send(vec!["the last line".to_owned()]);
        }
        last_lines
    }

    fn log_began(&mut self, id: ServiceId, _: u32) {
        self.begin_effect();
        if !self.seats.contains_key(&id) {
            self.blame(format!("the log of {id:?} has no seat"));
        }
    }
}

impl World {
    /// The orders that requests for these services imply.
    pub(super) fn order(&mut self, name: &str, order: Order) {
        self.orders.insert(pooled(name), order);
    }
}
