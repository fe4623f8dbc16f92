//! Rules about a call: what was before it, and what must follow.

use std::sync::Arc;

use mainstay_core::engine::{RunId, ServiceId, StateName, TrialPhase};
use mainstay_core::spec::ServiceName;

use super::coverage::Call;
use super::life::{Check, Life, Listener};
use super::rules::ensure;
use super::world::{Coming, Main, Signal, Tree, Turn};
use crate::host::effects::{Message, Reaped, Ticket};

/// The number of wake-ups in a row that a supervisor may have while all is down.
const MOST_IDLE_WAKES: u32 = 40;

/// The state before a call, as far as a rule compares it.
pub(super) struct Before {
    call: Call,
    /// The run that has ended first, if it may still show that it was ready.
    awaited: Option<(ServiceId, RunId)>,
    /// The processes that were killed.
    killed: usize,
}

impl Life {
    /// Takes note of what a call begins with.
    pub(super) fn turn(&self, call: Call) -> Before {
        let engine = self.dispatcher.engine();
        let world = &self.dispatcher.effects;
        let reapable = world.reapable.iter().filter(|_| call == Call::Reap);
        let mut ended = reapable.filter_map(|it| match it {
            Reaped::Main(id, run, ..) => Some((*id, *run)),
            Reaped::Helper(..) => None,
        });
        // What is done about the first may stop the others, whose output matters no longer.
        let first = ended.next();
        let awaited = first.filter(|(id, run)| engine.awaits(*id, *run).is_some());
        Before {
            call,
            awaited,
            killed: world.trees.iter().filter(|it| it.is_killed).count(),
        }
    }

    /// Checks a call that has ended.
    pub(super) fn check_turn(&mut self, before: Before) -> Check {
        let world = &self.dispatcher.effects;
        if let Some((id, run)) = before.awaited {
            let is_read = world.turn.reading.contains(&(id, run));
            ensure!(is_read, "{id:?} ends before its last output was read");
        }
        let tried = |id: &&ServiceId| self.dispatcher.engine().trial(**id).is_some();
        let closed = world.turn.closed.iter().find(tried);
        ensure!(
            closed.is_none(),
            "{closed:?} loses its sockets while it is tried"
        );
        let killed = world.trees.iter().filter(|it| it.is_killed).count();
        let spared = |it: &&Tree| {
            let lives = world.is_held(it.id, it.run) && it.main == Main::Lives;
            lives && !it.is_killed
        };
        match world.turn.signal {
            None => {}
            Some(Signal::First) => {
                ensure!(killed <= before.killed, "a first signal kills processes");
            }
            Some(Signal::Second) => {
                let spared = world.trees.iter().find(spared);
                ensure!(spared.is_none(), "a second signal does not kill {spared:?}");
                ensure!(
                    !self.dispatcher.is_done() || !world.is_delivering(),
                    "a second signal does not end the wait for the last alerts"
                );
            }
        }
        self.check_idle(before.call)?;
        self.world().turn = Turn::default();
        Ok(())
    }

    /// Checks that nothing wakes the supervisor up while there is nothing to do.
    fn check_idle(&mut self, call: Call) -> Check {
        let engine = self.dispatcher.engine();
        let world = &self.dispatcher.effects;
        let is_idle = call == Call::Woken
            && engine.is_down()
            && world.helpers.is_empty()
            && !world.trouble.storage_is_full
            && !world.trees.iter().any(|tree| tree.main == Main::Lives);
        self.idle_wakes = if is_idle { self.idle_wakes + 1 } else { 0 };
        ensure!(
            self.idle_wakes < MOST_IDLE_WAKES,
            "the supervisor wakes up although nothing happens"
        );
        Ok(())
    }

    /// Takes note of what must follow from a message.
    pub(super) fn follow(&mut self, message: &Message) -> Follow {
        let world = self.world();
        match message {
            Message::HelperLate {
                ticket,
                was_delayed,
            } => {
                world.turn.was_delayed = *was_delayed;
                match world.helpers.get(ticket) {
                    Some(helper) if helper.has_ended => Follow::IsNotLate(*ticket),
                    Some(_) => Follow::IsKilled(*ticket),
                    None => Follow::Nothing,
                }
            }
            Message::ClientLeft(candidate) if world.seats.contains_key(candidate) => {
                Follow::IsAborted(*candidate)
            }
            _ => Follow::Nothing,
        }
    }

    /// Checks that it has followed.
    pub(super) fn check_follow(&self, follow: Follow) -> Check {
        let world = &self.dispatcher.effects;
        let is_killed = |ticket| world.helpers.get(&ticket).map(|it| it.is_killed);
        match follow {
            Follow::Nothing => {}
            Follow::IsKilled(ticket) => ensure!(
                is_killed(ticket) != Some(false),
                "{ticket:?} goes on after its time limit"
            ),
            Follow::IsNotLate(ticket) => ensure!(
                is_killed(ticket).is_none(),
                "{ticket:?} is late, although it has ended"
            ),
            Follow::IsAborted(candidate) => {
                let engine = self.dispatcher.engine();
                let mut trials = engine.ids().filter_map(|id| engine.trial(id));
                let goes_on = trials.any(|trial| {
                    trial.candidate == Some(candidate) && trial.phase != TrialPhase::RollBack
                });
                ensure!(
                    !goes_on,
                    "{candidate:?} is tried for a client that has left"
                );
            }
        }
        Ok(())
    }

    /// Checks that a supervisor begins with the goals that were recorded: what lives goes on, and
    /// what was stopped stays down.
    pub(super) fn check_goals(&self, recorded: Vec<(ServiceName, bool)>) -> Check {
        let engine = self.dispatcher.engine();
        for (name, is_up) in recorded {
            let id = engine.find(name.as_str());
            let goal = if is_up { "up" } else { "down" };
            ensure!(
                id.is_none_or(|id| engine.is_wanted(id) == is_up),
                "{name} is recorded to be {goal}, and the next supervisor wants the opposite"
            );
        }
        Ok(())
    }

    /// Checks the helpers of a supervisor that has nothing left to do but to end.
    pub(super) fn check_helpers(&self) -> Check {
        let engine = self.dispatcher.engine();
        if !engine.is_shutting_down() || !engine.is_down() {
            return Ok(());
        }
        let world = &self.dispatcher.effects;
        let goes_on = world
            .helpers
            .iter()
            .find(|(_, it)| !it.is_killed && !it.has_ended && !it.purpose.delivers());
        ensure!(goes_on.is_none(), "{goes_on:?} delays the end");
        Ok(())
    }

    /// Checks that every listener that is still served has got every fact.
    pub(super) fn check_listeners(&self) -> Check {
        let published = self.dispatcher.effects.published;
        let waiting = self
            .clients
            .iter()
            .filter_map(|client| client.events.as_ref());
        for Listener { events, read } in self.listeners.iter().chain(waiting) {
            let count = read + events.len() as u64;
            ensure!(
                events.is_closed() || count == published,
                "a listener misses {} facts",
                published.saturating_sub(count)
            );
        }
        Ok(())
    }

    /// Checks the definitions, and the copies of services' states.
    pub(super) fn check_seats(&self) -> Check {
        let engine = self.dispatcher.engine();
        let world = &self.dispatcher.effects;
        for (id, seat) in &world.seats {
            let name = seat.spec.name();
            let Some(spec) = engine.spec(*id) else {
                continue;
            };
            ensure!(
                Arc::ptr_eq(spec, &seat.spec) || **spec == *seat.spec,
                "{name} is prepared for another definition"
            );
        }
        for copy in world.copies.iter().filter(|it| !it.is_restore) {
            let state = engine.view(copy.id).map(|view| view.state);
            let trial = engine.trial(copy.id).map(|trial| trial.phase);
            let is_right = state == Some(StateName::Running) || trial == Some(TrialPhase::Snapshot);
            let is_held = state == Some(StateName::StopPending);
            ensure!(
                copy.is_called_off || is_right || is_held,
                "the state of {} is copied while it is {state:?}",
                copy.name
            );
        }
        let mut restores = world.copies.iter().filter(|it| it.is_restore);
        let forgotten = restores.find(|copy| {
            let state = engine.view(copy.id).map(|view| view.state);
            let trial = engine.trial(copy.id).map(|trial| trial.phase);
            let is_starting = state == Some(StateName::StartPending) && engine.is_wanted(copy.id);
            let is_awaited = is_starting || trial == Some(TrialPhase::RollBack);
            !copy.is_called_off && !is_awaited
        });
        if let Some(copy) = forgotten {
            return Err(format!(
                "{} is restored, and nobody waits for it",
                copy.name
            ));
        }
        Ok(())
    }

    /// Checks that the last alerts are given up when the time for them is over.
    pub(super) fn check_farewell(&mut self) -> Check {
        let is_done = self.dispatcher.is_done();
        let world = self.world();
        world.farewell.take_if(|_| !is_done);
        let clock = world.clock;
        let is_noticed = world.reapable.is_empty() && world.next_at().is_none_or(|at| at > clock);
        let is_over = world.farewell.is_some_and(|end| end <= clock) && is_noticed;
        ensure!(
            !is_over || !world.is_delivering(),
            "the last alerts are not given up"
        );
        Ok(())
    }

    /// Checks that alerts that have no end are being delivered, or will be.
    pub(super) fn check_alerts(&self) -> Check {
        let world = &self.dispatcher.effects;
        let alerts = &world.alerts;
        if alerts.is_unclear || alerts.due <= alerts.delivered + alerts.lost {
            return Ok(());
        }
        let mut coming = world.coming.values();
        let is_coming = coming.any(Coming::is_of_alert)
            || world.helpers.values().any(|it| it.purpose.delivers());
        ensure!(
            is_coming,
            "alerts are neither delivered nor lost: {alerts:?}"
        );
        Ok(())
    }
}

/// The consequence that a message must have.
#[derive(Clone, Copy)]
pub(super) enum Follow {
    Nothing,
    IsKilled(Ticket),
    IsNotLate(Ticket),
    IsAborted(ServiceId),
}
