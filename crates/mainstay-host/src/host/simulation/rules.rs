//! The rules that hold after every call, checked against the world and the responses alone.

use std::time::Duration;

use hyper::StatusCode;
use mainstay_api::Route;
use mainstay_core::engine::{
    Checkpoint, RecoveredState, Request, ServiceId, StateName, TrialPhase,
};
use mainstay_core::time::Instant;
use mainstay_store::embedded::Desired;
use serde_json::Value;
use tokio::sync::oneshot::error::TryRecvError;

use super::life::{Check, Client, Life, Mode};
use super::world::{Main, Order, Purpose, Tree};
use crate::host::control::Reply;
use crate::host::effects::{Programs as _, Time as _};

/// The longest time in which a supervisor looks again at a run that has ended in part.
const SLOWEST_SWEEP: Duration = Duration::from_secs(2);

/// Ends a check with the reason, unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err(format!($($why)+));
        }
    };
}
pub(super) use ensure;

impl Life {
    pub(super) fn check(&mut self) -> Check {
        if let Some(fault) = self.world().fault.take() {
            return Err(fault);
        }
        ensure!(
            self.world().loose.is_empty(),
            "a prepared seat is neither used nor discarded"
        );
        self.check_clients()?;
        let states = self.states();
        self.check_processes(&states)?;
        self.check_seats()?;
        self.check_listeners()?;
        self.check_storage(&states)?;
        self.check_alerts()?;
        self.check_farewell()?;
        self.check_helpers()?;
        self.check_deadline(&states)
    }

    fn states(&self) -> Vec<(ServiceId, StateName)> {
        let engine = self.dispatcher.engine();
        let ids = engine.ids();
        ids.filter_map(|id| Some((id, engine.view(id)?.state)))
            .collect()
    }

    fn check_processes(&self, states: &[(ServiceId, StateName)]) -> Check {
        let world = &self.dispatcher.effects;
        for (id, _) in states {
            ensure!(world.seats.contains_key(id), "{id:?} has no seat");
        }
        for tree in world
            .trees
            .iter()
            .filter(|tree| world.is_held(tree.id, tree.run))
        {
            let copies = |it: &super::world::Copying| it.id == tree.id && !it.is_restore;
            let is_copied = world.copies.iter().any(copies);
            let state = self
                .dispatcher
                .engine()
                .view(tree.id)
                .map(|view| view.state);
            let is_paused = matches!(
                state,
                Some(StateName::Paused | StateName::PausePending | StateName::ContinuePending)
            );
            // A paused service whose stop waits for its dependents stays paused until then.
            let is_held = state == Some(StateName::StopPending) && !tree.is_asked;
            let is_still = is_paused || is_held || is_copied && state == Some(StateName::Running);
            ensure!(
                !tree.is_frozen || tree.is_killed || tree.main != Main::Lives || is_still,
                "{} stays suspended while it is {state:?}",
                tree.name
            );
            ensure!(
                tree.is_frozen || state != Some(StateName::Paused) || tree.main != Main::Lives,
                "{} is said to be paused, and runs",
                tree.name
            );
            let quiesces = |it: &super::world::Helper| {
                it.id == Some(tree.id) && matches!(it.purpose, Purpose::Quiesce | Purpose::Thaw)
            };
            let is_thawed_by_command = world.seats[&tree.id].has_thaw();
            ensure!(
                !tree.is_quiesced
                    || is_copied
                    || !is_thawed_by_command
                    || world.helpers.values().any(quiesces)
                    || tree.main != Main::Lives,
                "{} stays quiesced",
                tree.name
            );
        }
        Ok(())
    }

    fn check_storage(&self, states: &[(ServiceId, StateName)]) -> Check {
        let world = &self.dispatcher.effects;
        let storage = &world.storage;
        let retries = self.dispatcher.deadline().is_some();
        ensure!(
            storage.problem.is_none() || retries,
            "the ledger is not written again"
        );
        for (id, state) in states {
            let Some(seat) = world.seats.get(id) else {
                continue;
            };
            let name = seat.spec.name().as_str();
            let is_writing = storage.has_ledger && storage.problem.is_none();
            if is_writing && !world.is_ending {
                self.check_entry(*id, name)?;
            }
            let living = world.trees.iter().find(|tree| {
                tree.id == *id && seat.held == Some(tree.run) && tree.main == Main::Lives
            });
            // A service that could not be killed is halted. Its processes are not adopted.
            let living = living.filter(|_| *state != StateName::Halted);
            if storage.has_ledger
                && storage.problem.is_none()
                && let Some(tree) = living
            {
                let at = storage.owners.iter().position(|owner| owner == id);
                let child = at.and_then(|at| storage.entries[at].child.as_ref());
                ensure!(
                    child.is_some_and(|child| child.pid == tree.pid),
                    "the ledger does not name pid {} of {name}: {child:?}",
                    tree.pid
                );
            }
            if self.is_daemon() && !world.is_ending {
                let desired = storage.desired.get(name);
                let order = world.orders.get(name);
                let is_right = match order {
                    Some(Order::Down) => desired.is_some(),
                    Some(Order::Up) => match desired {
                        None => true,
                        Some(Desired::Halted { .. }) => *state == StateName::Halted,
                        Some(Desired::Stopped) => false,
                    },
                    _ => true,
                };
                ensure!(
                    is_right || retries,
                    "the desired state of {name} is {desired:?}, although it is ordered to be {order:?}"
                );
            }
        }
        Ok(())
    }

    /// Checks that the next supervisor would find a service as it is.
    fn check_entry(&self, id: ServiceId, name: &str) -> Check {
        let world = &self.dispatcher.effects;
        let storage = &world.storage;
        let Some(checkpoint) = self.dispatcher.engine().checkpoint(id) else {
            return Ok(());
        };
        let at = storage.owners.iter().position(|owner| *owner == id);
        let entry = at.map(|at| &storage.entries[at]);
        let Some(entry) = entry else {
            return Err(format!("{name} is not in the ledger"));
        };
        let millis = |at: Instant| mainstay_store::ledger::millis(world.zero + at.elapsed());
        let at = |ms| Instant::at(Duration::from_millis(ms).saturating_sub(world.zero));
        let lives = matches!(checkpoint.recovered, RecoveredState::Child { .. });
        if lives && world.identity(id).is_none() {
            // It ended before this supervisor began, which has still to read its output.
            return Ok(());
        }
        let left = entry.checkpoint(lives, at);
        let times = |it: &Checkpoint| match it.recovered {
            RecoveredState::Child { began, until, .. } => (Some(millis(began)), until.map(millis)),
            RecoveredState::Ended { began, .. } => (Some(millis(began)), None),
            _ => (None, None),
        };
        let (now, then) = (times(&checkpoint), times(&left));
        // A deadline that is extended because the supervisor was late is not recorded.
        let is_right = match (then.1, now.1) {
            (Some(then), Some(now)) => then <= now,
            (then, now) => then == now,
        };
        ensure!(
            then.0 == now.0 && is_right,
            "the ledger has other times of {name}: {then:?} instead of {now:?}"
        );
        let same = |it: &Checkpoint| {
            let state = match &it.recovered {
                RecoveredState::Child { stage, .. } => format!("{stage:?}"),
                RecoveredState::Ended {
                    ended, was_ready, ..
                } => format!("{ended:?} {was_ready}"),
                other => format!("{other:?}"),
            };
            let crash_loop = it.failures.crash_loop.is_some();
            (
                state,
                it.desired,
                it.restarts,
                it.failures.streak,
                crash_loop,
            )
        };
        ensure!(
            same(&checkpoint) == same(&left),
            "the ledger has another state of {name}: {:?} instead of {:?}",
            same(&left),
            same(&checkpoint)
        );
        if let RecoveredState::Halted { .. } = checkpoint.recovered
            && self.is_daemon()
            && !world.is_ending
        {
            let desired = storage.desired.get(name);
            ensure!(
                matches!(desired, Some(Desired::Halted { .. }))
                    || self.dispatcher.deadline().is_some(),
                "{name} is halted, and its desired state is {desired:?}"
            );
        }
        Ok(())
    }

    fn check_deadline(&self, states: &[(ServiceId, StateName)]) -> Check {
        let moving = states.iter().find(|(_, state)| {
            use StateName::{BackingOff, ContinuePending, PausePending, StartPending, StopPending};
            matches!(
                state,
                StartPending | StopPending | ContinuePending | PausePending | BackingOff
            )
        });
        if let Some((id, state)) = moving {
            let has_deadline = self.dispatcher.deadline().is_some();
            ensure!(has_deadline, "{id:?} is {state} without a deadline");
        }
        // The end of the last process of a run is not reported, so the supervisor has to look.
        let world = &self.dispatcher.effects;
        let engine = self.dispatcher.engine();
        let is_seen = |tree: &&Tree| {
            let view = engine.view(tree.id);
            view.is_some_and(|view| view.run == Some(tree.run) && view.pid.is_none())
        };
        if let Some(tree) = world.trees.iter().find(is_seen) {
            let soon = world.now() + SLOWEST_SWEEP;
            let looks = self.dispatcher.deadline().is_some_and(|at| at <= soon);
            ensure!(looks, "nobody looks whether all of {} has ended", tree.name);
        }
        Ok(())
    }

    // Clients.

    fn check_clients(&mut self) -> Check {
        let mut at = 0;
        while at < self.clients.len() {
            let client = &mut self.clients[at];
            match client.response.try_recv() {
                Ok(reply) => {
                    let client = self.clients.swap_remove(at);
                    self.check_response(client, &reply)?;
                    continue;
                }
                Err(TryRecvError::Closed) => {
                    let route = &client.route;
                    return Err(format!("the client gets no response to {route:?}"));
                }
                Err(TryRecvError::Empty) => {}
            }
            let client = &self.clients[at];
            ensure!(
                !self.has_settled(client),
                "a client still waits for {:?}",
                client.route
            );
            at += 1;
        }
        Ok(())
    }

    /// Returns whether every service has settled, so that a client need not wait any longer.
    fn has_settled(&self, client: &Client) -> bool {
        if let Route::Snapshot { name } = &client.route {
            let is_there = self.dispatcher.engine().find(name).is_some();
            return !is_there || !self.is_copied(name);
        }
        let waits = matches!(
            client.route,
            Route::Stop { .. } | Route::StopAll | Route::Request { .. }
        );
        let engine = self.dispatcher.engine();
        let rests = |id: ServiceId| {
            let state = engine.view(id).map(|view| view.state);
            let is_settled = state.is_none_or(|it| match it {
                StateName::BackingOff => true,
                StateName::Waiting => engine.is_stuck(id),
                it => it.is_settled(),
            });
            engine.trial(id).is_none() && is_settled
        };
        waits && engine.len() == engine.ids().count() && engine.ids().all(rests)
    }

    /// Returns whether a snapshot of a service is in progress.
    fn is_copied(&self, name: &str) -> bool {
        let world = &self.dispatcher.effects;
        let engine = self.dispatcher.engine();
        // A helper of an ID that is gone may be that of the definition before an update.
        let is_it = |id: Option<ServiceId>| {
            id.is_some_and(|id| engine.find(name) == Some(id) || !engine.has(id))
        };
        let mut copies = world.copies.iter();
        let mut helpers = world.helpers.values();
        copies.any(|it| !it.is_restore && it.name.as_str() == name)
            || helpers.any(|it| is_it(it.id) && matches!(it.purpose, Purpose::Quiesce))
    }

    /// Checks that a response says what has become of the request.
    fn check_outcome(&self, client: &Client, reply: &Reply) -> Check {
        let Client {
            route, dependents, ..
        } = client;
        let engine = self.dispatcher.engine();
        let world = &self.dispatcher.effects;
        ensure!(
            !client.is_impossible || reply.status == StatusCode::PRECONDITION_FAILED,
            "{route:?} is performed in spite of its condition: {reply:?}"
        );
        let find = |name: &String| engine.find(name);
        let ids = || route.names().iter().filter_map(find);
        let are_known = route.names().iter().all(|name| find(name).is_some());
        let is_tried = || ids().any(|id| engine.trial(id).is_some());
        let is_ok = reply.status == StatusCode::OK;
        match route {
            Route::Request { names, .. } if reply.body.contains("superseded by a stop") => {
                let is_up = |name: &String| world.orders.get(&**name) == Some(&Order::Up);
                ensure!(
                    world.is_ending || !names.iter().all(is_up),
                    "{route:?} is undone by a stop that nobody requested"
                );
            }
            Route::Stop { .. } | Route::Request { .. } if !is_ok => ensure!(
                reply.status != StatusCode::NOT_FOUND || !are_known,
                "{route:?} is not performed, although all services exist"
            ),
            Route::Stop { .. } => {
                let is_wanted = |id: &ServiceId| engine.is_wanted(*id);
                let goes_on = ids().chain(dependents.iter().copied()).find(is_wanted);
                ensure!(goes_on.is_none(), "{route:?} does not stop {goes_on:?}");
            }
            Route::Request {
                names,
                request: Request::Start | Request::Restart,
            } if is_ok => {
                let orders = names.iter().filter_map(|name| world.orders.get(&**name));
                let is_down = orders.into_iter().any(|order| *order == Order::Down);
                ensure!(!is_down, "{route:?} is said to be done, but was undone");
            }
            Route::Define { .. } => ensure!(
                !is_ok || !(world.is_ending || is_tried()),
                "{route:?} is accepted at the wrong time"
            ),
            Route::Snapshot { name } if reply.body.contains("another snapshot") => {
                ensure!(self.is_copied(name), "a snapshot of {name} never ends");
            }
            Route::Decide { .. } if reply.status == StatusCode::UNPROCESSABLE_ENTITY => {
                let mut trials = ids().filter_map(|id| engine.trial(id));
                let goes_on = trials.any(|it| it.phase != TrialPhase::RollBack);
                ensure!(
                    !goes_on,
                    "a definition that does not fit is not rolled back"
                );
            }
            _ => {}
        }
        Ok(())
    }

    fn check_response(&mut self, client: Client, reply: &Reply) -> Check {
        self.check_outcome(&client, reply)?;
        let Client {
            route,
            events,
            before,
            replaced,
            ..
        } = client;
        let is_ok = reply.status == StatusCode::OK;
        // A request that is refused at once changes nothing.
        if !is_ok && let Some((orders, was_ending)) = before {
            (self.world().orders, self.world().is_ending) = (orders, was_ending);
        }
        if let (Route::Events, Some(events)) = (&route, events) {
            self.listeners.push(events);
        }
        match &route {
            Route::Define { .. } if !is_ok => self.put_back(replaced),
            Route::Forget { names, .. } if is_ok => {
                let storage = &mut self.world().storage;
                for name in names {
                    storage.installed.remove(name.as_str());
                    storage.desired.remove(name);
                }
            }
            Route::Stop { .. } | Route::Request { .. } | Route::Entry { .. } if is_ok => {
                let body: Value = serde_json::from_str(&reply.body).map_err(|it| it.to_string())?;
                let all = match body.get("services").and_then(Value::as_array) {
                    Some(all) => all.clone(),
                    None => vec![body],
                };
                for report in &all {
                    self.check_report(report)?;
                    let state = report["state"].as_str().unwrap_or_default();
                    let is_moving = state.ends_with("-pending");
                    let is_read = matches!(route, Route::Entry { .. });
                    ensure!(
                        is_read || !is_moving,
                        "{route:?} is said to be done: {report}"
                    );
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks that a report agrees with the processes of the service.
    fn check_report(&self, report: &Value) -> Check {
        let world = &self.dispatcher.effects;
        let name = report["name"].as_str().unwrap_or_default();
        let state = report["state"].as_str().unwrap_or_default();
        let mut trees = world.trees.iter().filter(|it| it.name.as_str() == name);
        if let Some(pid) = report["pid"].as_u64() {
            // A process that ended before its supervisor began is named until its output is read.
            let is_gone = trees.clone().next().is_none();
            ensure!(
                is_gone || trees.any(|tree| u64::from(tree.pid) == pid),
                "{name} is said to have pid {pid}, which does not exist"
            );
        } else if state == "stopped" && !report["update"].is_object() {
            let lives = |it: &super::world::Tree| world.is_held(it.id, it.run) && !it.is_empty();
            // A superseded run may still be stopping.
            let seats = world
                .seats
                .values()
                .filter(|seat| seat.spec.name().as_str() == name);
            ensure!(
                seats.count() > 1 || !trees.any(lives),
                "{name} is said to be stopped, and has processes"
            );
        }
        Ok(())
    }

    // The end.

    /// Checks what must hold when a supervisor has ended.
    pub(super) fn check_end(&mut self) -> Check {
        let world = &self.dispatcher.effects;
        let engine = self.dispatcher.engine();
        for tree in &world.trees {
            let state = engine.view(tree.id).map(|view| view.state);
            // Those of a halted service could not be killed.
            let is_left = tree.is_empty() || state == Some(StateName::Halted);
            ensure!(is_left, "{} outlives its supervisor", tree.name);
        }
        ensure!(
            world.helpers.is_empty(),
            "helpers outlive their supervisor: {:?}",
            world.helpers
        );
        // Without signals, the exit code says whether a service has halted.
        if self.mode == Mode::Run && !world.is_ending {
            let (code, has_halted) = (self.dispatcher.exit_code(), world.has_halted);
            ensure!(
                (code != 0) == has_halted,
                "exit code {code}, and a service has halted: {has_halted}"
            );
        }
        let count = engine.len();
        ensure!(
            world.seats.len() == count,
            "{} seats of {count} services",
            world.seats.len()
        );
        let alerts = &world.alerts;
        ensure!(
            alerts.is_unclear || alerts.due == alerts.delivered + alerts.lost,
            "not every alert has an end: {alerts:?}"
        );
        for client in &self.clients {
            let may_be_cut_off = !matches!(
                client.route,
                Route::Stop { .. } | Route::StopAll | Route::Request { .. }
            );
            ensure!(
                may_be_cut_off,
                "{:?} gets no response before the end",
                client.route
            );
        }
        Ok(())
    }
}
