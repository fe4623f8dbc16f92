//! The steps of a schedule: everything that can happen to a supervisor, chosen by a seed each.

use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use mainstay_api::{Decision, Reach, Route};
use mainstay_core::engine::{
    CopyFailure, Event, Notice, Principal, Request, RunId, ServiceId, Snapshotted, Token, Unasked,
};
use mainstay_core::spec::{ServiceName, SinkTarget};
use mainstay_logs::{FileError, LogEvent, Lost, SinkEvent, Task};
use tokio::sync::{mpsc, oneshot};

use super::coverage::{Call, Subject};
use super::disk::Installed;
use super::life::{Check, Client, Life, Listener, Mode};
use super::random::Random;
use super::rules::ensure;
use super::specs::{NAMES, VARIANTS};
use super::storage::pooled;
use super::world::{Coming, Machine, Main, Order, Trouble, note};
use crate::host::alert::AlertEvent;
use crate::host::control::{Command, Conditions, Unmet};
use crate::host::dispatcher::Dispatcher;
use crate::host::effects::{Message, Ticket};
use crate::host::interrupts::Interrupt;

/// The longest virtual time and the largest number of events in which a supervisor on a machine
/// without troubles must end.
const LONGEST_END: Duration = Duration::from_secs(4 * 3600);
const MOST_EVENTS_TO_END: u32 = 30_000;
/// The longest time for the last alerts, with a margin.
const LONGEST_FAREWELL: Duration = Duration::from_secs(40);

/// An entity tag that no definition has.
const NO_TAG: &str = "none";

impl Life {
    /// Takes one step.
    pub(super) fn step(&mut self, seed: u64) -> Check {
        self.world().random = Random::new(seed);
        if self.dispatcher.is_finished() {
            self.ended()?;
        }
        if self.is_over {
            return Ok(());
        }
        match self.below(100) {
            0..52 => self.time_passes(),
            66..70 if self.world().machine == Machine::Eventful => self.interrupt(Interrupt::Stop),
            52..70 => self.command(),
            70..72 => self.client_leaves(),
            72..75 => self.out_of_order(),
            75..78 => self.process_ends(),
            78..80 => self.trouble(),
            80..82 => {
                let pause = self.pick(&[200, 800, 5_000, 120_000, 4 * 3_600_000]);
                self.suspend(Duration::from_millis(pause));
                self.time_passes()
            }
            82 | 83 => self.log_event(),
            84 | 85 => self.stale_message(),
            86 => self.call(Call::Reap, Subject::All, Dispatcher::reap),
            87 => self.call(Call::Woken, Subject::All, Dispatcher::woken),
            88 => {
                let interrupt = self.pick(&[Interrupt::RotateLogs, Interrupt::WriteState]);
                self.interrupt(interrupt)
            }
            89 => self.signal(),
            90 if self.below(2) == 0 => self.kill(),
            91 => {
                self.world().dies_after = Some(0);
                let effects = self.below(12);
                self.world().dies_after = u32::try_from(effects).ok();
                self.time_passes()
            }
            92 => self.listen_to_events(),
            _ => self.time_passes(),
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.world().random.below(n)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.world().random.chance(percent)
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        self.world().random.pick(all)
    }

    fn time_passes(&mut self) -> Check {
        let events = 1 + self.below(3);
        for _ in 0..events {
            while !self.one_event()? {
                let is_idle =
                    self.dispatcher.deadline().is_none() && self.world().coming.is_empty();
                if is_idle || self.dispatcher.is_finished() {
                    return Ok(());
                }
                let late = if self.chance(5) {
                    self.world().random.within(3_000)
                } else {
                    Duration::ZERO
                };
                self.advance(late);
            }
        }
        Ok(())
    }

    /// Something happens before what was to happen earlier.
    fn out_of_order(&mut self) -> Check {
        let count = self.world().coming.len();
        if count == 0 {
            return Ok(());
        }
        let at = self.below(count);
        let mut keys = self.world().coming.iter();
        let Some((key, coming)) = keys.nth(at) else {
            return Ok(());
        };
        // A time limit does not pass early.
        let is_timer = matches!(
            coming,
            Coming::Late(..) | Coming::Message(Message::Alert(_))
        );
        let key = *key;
        if is_timer { Ok(()) } else { self.happen(key) }
    }

    fn process_ends(&mut self) -> Check {
        let exit = self.world().exit();
        let count = self.world().trees.len();
        if count > 0 {
            let at = self.below(count);
            let world = self.world();
            let (pid, main) = (world.trees[at].pid, world.trees[at].main);
            let coming = if main == Main::Lives {
                Coming::Exit(pid, exit)
            } else {
                Coming::Others(pid)
            };
            world.soon(Duration::ZERO, coming);
        }
        self.time_passes()
    }

    fn trouble(&mut self) -> Check {
        let mut trouble = Trouble::default();
        match self.below(10) {
            0 | 1 => trouble.storage_is_full = true,
            2 => trouble.logs_are_behind = true,
            3 | 4 => trouble.lacks_processes = true,
            5 => trouble.kills_hang = true,
            6 => trouble.answers_hang = true,
            _ => {}
        }
        self.world().set_trouble(trouble);
        Ok(())
    }

    fn signal(&mut self) -> Check {
        match self.below(24) {
            0 => self.interrupt(Interrupt::Stop),
            1 => self.interrupt(Interrupt::Quit),
            2 => {
                self.interrupt(Interrupt::Stop)?;
                let pause = self.pick(&[0, 100, 600]);
                self.suspend(Duration::from_millis(pause));
                self.interrupt(Interrupt::Stop)
            }
            3 => self.interrupt(Interrupt::Hangup),
            _ if self.is_daemon() => self.interrupt(Interrupt::Hangup),
            _ => Ok(()),
        }
    }

    fn log_event(&mut self) -> Check {
        let name = self.pick(&NAMES);
        let Some(service) = ServiceName::new(name) else {
            return Ok(());
        };
        let task = self.pick(&[Task::Writing, Task::Rotation, Task::Compression]);
        let sink = SinkTarget::Journald("/run/systemd/journal/socket".into());
        let lost = Lost { bytes: 7, lines: 1 };
        let services = vec![service.clone()];
        let event = match self.below(4) {
            0 => LogEvent::Failing {
                service,
                dir: "/log".into(),
                task,
                file_error: FileError {
                    operation: "write",
                    path: "/log/current.log".into(),
                    error: std::io::ErrorKind::StorageFull.into(),
                },
            },
            1 => LogEvent::Recovered {
                service,
                dir: "/log".into(),
                task,
                lost,
            },
            2 => LogEvent::Sink(SinkEvent::Failing {
                sink,
                services,
                error: "no such socket".to_owned(),
            }),
            _ => LogEvent::Sink(SinkEvent::Recovered {
                sink,
                services,
                dropped: vec![(service, lost)],
            }),
        };
        self.deliver(Message::Log(event))
    }

    fn deliver(&mut self, message: Message) -> Check {
        let world = self.world();
        let at = world.engine_time(world.clock);
        self.receive(message, at)
    }

    fn some_id(&mut self) -> Option<ServiceId> {
        let ids: Vec<ServiceId> = self.dispatcher.engine().ids().collect();
        (!ids.is_empty()).then(|| self.pick(&ids))
    }

    /// A message about something that does not exist, or not any more.
    fn stale_message(&mut self) -> Check {
        let gone = self.world().gone.clone();
        let gone = (!gone.is_empty() && self.chance(50)).then(|| self.pick(&gone));
        let Some(id) = gone.or_else(|| self.some_id()) else {
            return Ok(());
        };
        let (run, token) = (RunId(u64::MAX), Token(u64::MAX));
        let name = ServiceName::new(self.pick(&NAMES));
        let kinds = match self.world().machine {
            Machine::Usual => 9,
            Machine::Eventful => 11,
        };
        let message = match self.below(kinds) {
            0 => Message::Exited(id, run),
            1 => Message::Engine(Event::Answered(id, token, Ok(()))),
            2 => Message::HelperLate {
                ticket: Ticket(u64::MAX),
                was_delayed: false,
            },
            3 => Message::ClientLeft(id),
            4 => Message::Copied(id, token, Ok(Snapshotted::Unchanged)),
            5 => Message::Engine(Event::Restored(id, token, Err(CopyFailure::Cancelled))),
            6 => Message::Remark(id, "a remark".to_owned()),
            7 => Message::Alert(AlertEvent::Enough),
            9 => Message::Engine(Event::Unasked(id, token, Unasked::Delayed)),
            10 => Message::Engine(Event::Notified(id, run, Notice::Ready)),
            _ => match name {
                Some(name) => Message::Alert(AlertEvent::Due(name)),
                None => return Ok(()),
            },
        };
        self.deliver(message)
    }

    // Clients.

    fn client_leaves(&mut self) -> Check {
        let count = self.clients.len();
        if count > 0 {
            let at = self.below(count);
            let client = self.clients.swap_remove(at);
            note!(self.world(), "== a client leaves: {:?}", client.route);
            drop(client);
            self.world().attend_to_clients();
        }
        let count = self.listeners.len();
        if count > 0 && self.chance(50) {
            self.listeners.swap_remove(count - 1);
        }
        Ok(())
    }

    fn listen_to_events(&mut self) -> Check {
        for listener in &mut self.listeners {
            while listener.events.try_recv().is_ok() {
                listener.read += 1;
            }
        }
        Ok(())
    }

    fn names(&mut self) -> Vec<String> {
        let count = self.pick(&[1, 1, 1, 2, 3]);
        let mut names: Vec<String> = Vec::new();
        for _ in 0..count {
            let existing: Vec<String> = {
                let world = self.world();
                world
                    .seats
                    .values()
                    .map(|seat| seat.spec.name().to_string())
                    .collect()
            };
            let name = if existing.is_empty() || self.chance(15) {
                self.pick(&NAMES).to_owned()
            } else {
                self.pick(&existing)
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if self.chance(2) {
            names.push("nobody".to_owned());
        }
        names
    }

    fn route(&mut self) -> Route {
        let names = self.names();
        let name = names[0].clone();
        let request = |request| Route::Request {
            names: names.clone(),
            request,
        };
        match self.below(100) {
            0 => self.pick(&[Route::About, Route::OpenApi]),
            1..4 => Route::Status,
            4..7 => Route::Entry { name },
            7 | 8 => Route::Events,
            9 | 10 => Route::StopAll,
            11..19 => Route::Stop {
                names,
                reach: self.pick(&[Reach::Named, Reach::WithDependents]),
            },
            19..37 => request(Request::Start),
            37..44 => request(Request::Restart),
            44..49 => Route::Request {
                names: vec![name],
                request: Request::Pause,
            },
            49..54 => Route::Request {
                names: vec![name],
                request: Request::Continue,
            },
            54 => request(self.pick(&[Request::Pause, Request::Continue])),
            55..59 => Route::Reload { name },
            59..64 => Route::Snapshot { name },
            64 => Route::RotateLog { name },
            65..75 => Route::Update { name },
            75..82 => Route::Decide {
                name,
                decision: self.pick(&[Decision::Commit, Decision::Commit, Decision::Abort]),
            },
            82..91 => Route::Define { names, owner: None },
            _ => Route::Forget { names, owner: None },
        }
    }

    fn conditions(&mut self) -> Option<Conditions> {
        if !self.chance(5) {
            return None;
        }
        let name: HeaderName = self.pick(&[IF_MATCH, IF_NONE_MATCH]);
        let value = self.pick(&["*", "\"a\""]);
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        Conditions::of(&headers).ok().flatten()
    }

    /// A client sends a request.
    fn command(&mut self) -> Check {
        let mut route = self.route();
        // Installations and removals hold a lock.
        let changes = |route: &Route| matches!(route, Route::Define { .. } | Route::Forget { .. });
        let is_locked = self.clients.iter().any(|client| changes(&client.route))
            || self
                .world()
                .coming
                .values()
                .any(|it| matches!(it, Coming::Load(..)));
        if changes(&route) && is_locked {
            route = Route::Status;
        }
        let conditions = self.conditions();
        let mut body = Bytes::new();
        if let Route::Update { .. } = &route {
            let variant = self.below(VARIANTS);
            let text = if self.chance(5) {
                "nonsense".to_owned()
            } else {
                variant.to_string()
            };
            body = Bytes::from(text);
        }
        let (call, about, command) = self.prepare(route, conditions, body);
        if self.chance(3) {
            return self.in_vain(call, about, command);
        }
        self.send(call, about, command)
    }

    /// Creates a client and its request.
    pub(super) fn prepare(
        &mut self,
        route: Route,
        conditions: Option<Conditions>,
        body: Bytes,
    ) -> (Call, Subject, Command) {
        let (reply, response) = oneshot::channel();
        let mut listener = None;
        let mut events = None;
        let mut replaced = Vec::new();
        match &route {
            Route::Events => {
                let (to_client, from_host) = mpsc::channel(1 + self.below(8));
                let read = self.world().published;
                let events_of_client = Listener {
                    events: from_host,
                    read,
                };
                (listener, events) = (Some(to_client), Some(events_of_client));
            }
            Route::Define { names, .. } if self.is_daemon() => replaced = self.install(names),
            _ => {}
        }
        let before = Some((self.world().orders.clone(), self.world().is_ending));
        self.order(&route);
        let call = Call::of_route(&route);
        let engine = self.dispatcher.engine();
        let about = match route.names().first() {
            Some(name) => Subject::One(engine.find(name)),
            None => Subject::All,
        };
        note!(self.world(), "   {route:?} {conditions:?} {body:?}");
        let matches = conditions.as_ref().and_then(|it| it.check(Some(NO_TAG)));
        let is_impossible = matches == Some(Unmet::Match) && !route.names().is_empty();
        let dependents = self.dependents(&route);
        self.clients.push(Client {
            route: route.clone(),
            response,
            is_impossible,
            dependents,
            events,
            before,
            replaced,
        });
        let command = Command {
            route,
            principal: Principal::default(),
            trace: None,
            conditions,
            body,
            listener,
            reply,
        };
        (call, about, command)
    }

    /// Sends the request of the last client.
    pub(super) fn send(&mut self, call: Call, about: Subject, command: Command) -> Check {
        let done = self.call(call, about, |dispatcher| dispatcher.commanded(command));
        self.clients
            .iter_mut()
            .for_each(|client| client.before = None);
        done
    }

    /// Sends the request of the last client, which has left. Nothing changes.
    fn in_vain(&mut self, call: Call, about: Subject, command: Command) -> Check {
        let before = self.clients.pop().and_then(|client| client.before);
        if let Some((orders, was_ending)) = before {
            (self.world().orders, self.world().is_ending) = (orders, was_ending);
        }
        let wanted = |life: &Self| {
            let engine = life.dispatcher.engine();
            let ids = engine.ids().filter(|id| engine.is_wanted(*id));
            ids.collect::<Vec<_>>()
        };
        let (before, lives) = (wanted(self), self.lives);
        self.call(call, about, |dispatcher| dispatcher.commanded(command))?;
        // A supervisor that follows a killed one has its own goals.
        ensure!(
            self.lives != lives || wanted(self) == before,
            "a request is performed for a client that has left"
        );
        Ok(())
    }

    /// Returns the services that a request stops although it does not name them.
    fn dependents(&self, route: &Route) -> Vec<ServiceId> {
        let Route::Stop {
            names,
            reach: Reach::WithDependents,
        } = route
        else {
            return Vec::new();
        };
        let engine = self.dispatcher.engine();
        let ids: Vec<ServiceId> = names.iter().filter_map(|name| engine.find(name)).collect();
        engine.with_dependents(&ids)
    }

    /// Takes note of what a request means for the starts that may follow.
    fn order(&mut self, route: &Route) {
        let engine = self.dispatcher.engine();
        let is_known = route.names().iter().all(|name| engine.find(name).is_some());
        match route {
            Route::StopAll => {
                for id in engine.ids().collect::<Vec<_>>() {
                    let name = self
                        .dispatcher
                        .effects
                        .seats
                        .get(&id)
                        .map(|it| it.spec.name().to_string());
                    if let Some(name) = name {
                        self.world().order(&name, Order::Down);
                    }
                }
            }
            Route::Stop { names, reach } if is_known => {
                let ids: Vec<ServiceId> =
                    names.iter().filter_map(|name| engine.find(name)).collect();
                if *reach == Reach::WithDependents {
                    for id in engine.with_dependents(&ids) {
                        let seat = self.dispatcher.effects.seats.get(&id);
                        if let Some(name) = seat.map(|seat| seat.spec.name().to_string()) {
                            self.world().order(&name, Order::Any);
                        }
                    }
                }
                for name in names {
                    self.world().order(name, Order::Down);
                }
                self.world().is_ending |= self.mode == Mode::Managed;
            }
            Route::Request {
                names,
                request: Request::Start | Request::Restart,
            } if is_known => {
                for name in names {
                    self.reach_of(name);
                }
                for name in names {
                    self.world().order(name, Order::Up);
                }
            }
            Route::Forget { names, .. } | Route::Define { names, .. } => {
                for name in names.iter().filter(|name| NAMES.contains(&name.as_str())) {
                    self.world().order(name, Order::Any);
                }
            }
            _ => {}
        }
    }

    /// Writes new definitions, and returns the ones before.
    fn install(&mut self, names: &[String]) -> Vec<(&'static str, Option<Installed>)> {
        let mut replaced = Vec::new();
        for name in names.iter().filter(|name| NAMES.contains(&name.as_str())) {
            let variant = self.below(VARIANTS);
            let name = pooled(name);
            let installed = &mut self.world().storage.installed;
            let version = installed.get(name).map_or(0, |it| it.version) + 1;
            let before = installed.insert(name, Installed { variant, version });
            replaced.push((name, before));
        }
        replaced
    }

    /// Restores the definitions that were replaced by ones that were refused.
    pub(super) fn put_back(&mut self, replaced: Vec<(&'static str, Option<Installed>)>) {
        let installed = &mut self.world().storage.installed;
        for (name, before) in replaced {
            match before {
                Some(before) => drop(installed.insert(name, before)),
                None => drop(installed.remove(name)),
            }
        }
    }

    // The end.

    /// A supervisor has ended by itself or as it was told: the next one begins.
    fn ended(&mut self) -> Check {
        self.check_end()?;
        self.next_supervisor(false)
    }

    /// Stops everything on a machine that has no troubles any more.
    pub(super) fn finish(&mut self) -> Check {
        if self.is_over {
            return Ok(());
        }
        self.world().is_kind = true;
        self.world().dies_after = None;
        self.world().set_trouble(Trouble::default());
        let began = self.world().clock;
        let mut down_since = None;
        let interrupt = self.pick(&[Interrupt::Stop, Interrupt::Stop, Interrupt::Quit]);
        let mut is_impatient = self.chance(30);
        if !self.dispatcher.is_finished() {
            self.interrupt(interrupt)?;
        }
        for _ in 0..MOST_EVENTS_TO_END {
            if self.dispatcher.is_finished() {
                return self.check_end();
            }
            if !self.one_event()? {
                let is_idle =
                    self.dispatcher.deadline().is_none() && self.world().coming.is_empty();
                if is_idle && !self.dispatcher.is_finished() {
                    return Err("the supervisor waits for nothing, and does not end".to_owned());
                }
                self.advance(Duration::ZERO);
            }
            let engine = self.dispatcher.engine();
            let is_down = engine.is_down() && self.dispatcher.effects.helpers.is_empty();
            // An operator may not wait for the last alerts.
            if self.world().farewell.is_some() && std::mem::take(&mut is_impatient) {
                self.interrupt(Interrupt::Quit)?;
            }
            let clock = self.world().clock;
            let since = *down_since.get_or_insert(clock);
            if !is_down {
                down_since = None;
            } else if clock - since > LONGEST_FAREWELL {
                return Err("the supervisor goes on although all is down".to_owned());
            }
            if self.world().clock > began + LONGEST_END {
                break;
            }
        }
        Err("the supervisor does not end".to_owned())
    }
}
