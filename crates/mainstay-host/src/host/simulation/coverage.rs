//! The combinations of a service's state, a call and a trouble that were reached.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mainstay_api::{Decision, Route};
use mainstay_core::engine::{Event, Request, ServiceId, StateName};
use mainstay_logs::LogEvent;

use super::world::World;
use crate::host::dispatcher::Dispatcher;
use crate::host::effects::Message;
use crate::host::interrupts::Interrupt;

macro_rules! kinds {
    ($(#[$meta:meta])* $name:ident $list:ident: $($kind:ident)+) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $name { $($kind),+ }

        pub(super) const $list: &[$name] = &[$($name::$kind),+];
    };
}

kinds! {
    /// A call of the dispatcher.
    Call CALLS:
    Begin TakeOver Reap Woken
    Answered Unasked Notified Restored Log Exited HelperLate ClientLeft Alert Loaded Checked
    Copied Remark
    Stop Hangup Quit RotateLogs WriteState
    GetAbout GetOpenApi GetStatus GetEntry GetEvents StopAll StopNamed Start Restart Pause Continue Reload
    Snapshot RotateLog Update Commit Abort Define Forget
}

kinds! {
    /// A circumstance of a call.
    Force FORCES:
    Nothing StorageFull LogsBehind NoProcesses KillsHang AnswersHang Late Ending Trial Copying
    Restoring Frozen Quiesced
}

/// The states of services that a supervisor reports: all but the last one.
const STATES: &[StateName] = StateName::ALL.split_at(StateName::ALL.len() - 1).0;

/// The bit of a service that does not exist.
const ABSENT: usize = STATES.len();

impl Call {
    pub(super) fn of_route(route: &Route) -> Self {
        match route {
            Route::About => Self::GetAbout,
            Route::OpenApi => Self::GetOpenApi,
            Route::Status => Self::GetStatus,
            Route::Entry { .. } => Self::GetEntry,
            Route::Events => Self::GetEvents,
            Route::StopAll => Self::StopAll,
            Route::Stop { .. } => Self::StopNamed,
            Route::Request { request, .. } => match request {
                Request::Start => Self::Start,
                Request::Stop => Self::StopNamed,
                Request::Restart => Self::Restart,
                Request::Pause => Self::Pause,
                Request::Continue => Self::Continue,
            },
            Route::Reload { .. } => Self::Reload,
            Route::Snapshot { .. } => Self::Snapshot,
            Route::RotateLog { .. } => Self::RotateLog,
            Route::Update { .. } => Self::Update,
            Route::Decide {
                decision: Decision::Commit,
                ..
            } => Self::Commit,
            Route::Decide {
                decision: Decision::Abort,
                ..
            } => Self::Abort,
            Route::Define { .. } => Self::Define,
            Route::Forget { .. } => Self::Forget,
        }
    }

    pub(super) fn of_interrupt(interrupt: Interrupt) -> Self {
        match interrupt {
            Interrupt::Stop => Self::Stop,
            Interrupt::Hangup => Self::Hangup,
            Interrupt::Quit => Self::Quit,
            Interrupt::RotateLogs => Self::RotateLogs,
            Interrupt::WriteState => Self::WriteState,
        }
    }

    /// Returns the call for a message, and its subject.
    pub(super) fn of_message(message: &Message) -> (Self, Subject) {
        let one = |call, id: &ServiceId| (call, Subject::One(Some(*id)));
        match message {
            Message::Engine(event) => match event {
                Event::Unasked(id, ..) => one(Self::Unasked, id),
                Event::Notified(id, ..) => one(Self::Notified, id),
                Event::Restored(id, ..) => one(Self::Restored, id),
                Event::Answered(id, ..) => one(Self::Answered, id),
                event => unreachable!("the world does not send {event:?}"),
            },
            Message::Log(LogEvent::Matched { .. }) => (Self::Answered, Subject::All),
            Message::Log(_) => (Self::Log, Subject::All),
            Message::Exited(id, _) => one(Self::Exited, id),
            Message::HelperLate { .. } => (Self::HelperLate, Subject::All),
            Message::ClientLeft(id) => one(Self::ClientLeft, id),
            Message::Alert(_) => (Self::Alert, Subject::All),
            Message::Loaded(..) => (Self::Loaded, Subject::All),
            Message::Checked(..) => (Self::Checked, Subject::All),
            Message::Copied(id, ..) => one(Self::Copied, id),
            Message::Remark(id, _) => one(Self::Remark, id),
        }
    }
}

/// The services that a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    All,
    /// A single service, if it exists.
    One(Option<ServiceId>),
}

/// Returns the reason that no service can be in this state at a call.
fn impossible(state: usize, call: Call) -> Option<&'static str> {
    use Call::{
        Alert, Begin, Checked, GetAbout, GetEvents, GetOpenApi, GetStatus, Hangup, HelperLate,
        Loaded, Log, Quit, Reap, RotateLogs, Stop, StopAll, TakeOver, Woken, WriteState,
    };
    match (STATES.get(state), call) {
        (Some(StateName::ContinuePending | StateName::PausePending), _) => {
            Some("services are suspended and resumed at once")
        }
        (Some(StateName::Stopped), _) => None,
        (_, Begin | TakeOver) => Some("the services of a new supervisor are stopped"),
        (
            None,
            Alert | Checked | GetAbout | GetEvents | GetOpenApi | GetStatus | Hangup | HelperLate
            | Loaded | Log | Quit | Reap | RotateLogs | Stop | StopAll | Woken | WriteState,
        ) => Some("the call is not about a single service"),
        _ => None,
    }
}

/// Returns the reason that no service can be in this state at a call in a circumstance.
fn impossible_in(state: usize, call: Call, force: Force) -> Option<&'static str> {
    use Force::{Copying, Ending, Frozen, Nothing, Quiesced, Restoring, Trial};
    use StateName::{BackingOff, Paused, Running, Waiting};
    let begins_end = matches!(
        call,
        Call::Stop | Call::Hangup | Call::Quit | Call::StopNamed
    );
    let why = match (STATES.get(state), call, force) {
        (_, Call::Begin, Frozen | Quiesced) => "nothing runs on a new machine",
        (_, Call::Begin | Call::TakeOver, Copying | Restoring | Trial | Ending) => {
            "copies, trials and shutdowns end with their supervisor"
        }
        (_, Call::Stop | Call::Quit, Nothing) => "the call begins a shutdown",
        (Some(Paused), _, Nothing) => "a paused service is suspended",
        (Some(BackingOff | Paused | Running | Waiting), _, Ending) if !begins_end => {
            "a shutdown stops every service at once"
        }
        _ => return impossible(state, call),
    };
    Some(why)
}

/// The states in which services were at each call, with each force.
#[derive(Clone)]
pub(super) struct Coverage(Vec<u16>);

impl Default for Coverage {
    fn default() -> Self {
        Self(vec![0; CALLS.len() * FORCES.len()])
    }
}

impl Coverage {
    /// Marks a call.
    pub(super) fn mark(&mut self, dispatcher: &Dispatcher<World>, call: Call, about: Subject) {
        let engine = dispatcher.engine();
        let bit = |id: ServiceId| {
            let state = engine.view(id).map(|view| view.state);
            let at = STATES.iter().position(|it| Some(*it) == state);
            1 << at.unwrap_or(ABSENT)
        };
        let states: u16 = match about {
            Subject::One(id) => id.map_or(1 << ABSENT, bit),
            Subject::All => engine.ids().map(bit).fold(0, |all, it| all | it),
        };
        let world = &dispatcher.effects;
        let trouble = world.trouble;
        let is_trial = engine.ids().any(|id| engine.trial(id).is_some());
        let in_force = [
            (Force::StorageFull, trouble.storage_is_full),
            (Force::LogsBehind, trouble.logs_are_behind),
            (Force::NoProcesses, trouble.lacks_processes),
            (Force::KillsHang, trouble.kills_hang),
            (Force::AnswersHang, trouble.answers_hang),
            (Force::Late, world.resumed == world.clock),
            (Force::Ending, world.is_ending),
            (Force::Trial, is_trial),
            (Force::Copying, world.copies.iter().any(|it| !it.is_restore)),
            (
                Force::Restoring,
                world.copies.iter().any(|it| it.is_restore),
            ),
            (Force::Frozen, world.trees.iter().any(|it| it.is_frozen)),
            (Force::Quiesced, world.trees.iter().any(|it| it.is_quiesced)),
        ];
        let row = call as usize * FORCES.len();
        let mut is_any = false;
        for (force, is_in_force) in in_force {
            if is_in_force {
                self.0[row + force as usize] |= states;
                is_any = true;
            }
        }
        if !is_any {
            self.0[row] |= states;
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (all, it) in self.0.iter_mut().zip(&other.0) {
            *all |= it;
        }
    }

    /// Returns whether a service in this state, or none, was there at this call.
    pub(super) fn has(&self, state: usize, call: Call) -> bool {
        FORCES.iter().any(|force| self.holds(state, call, *force))
    }

    /// Returns the number of combinations that were reached, and of those that can be.
    pub(super) fn count(&self) -> (usize, usize) {
        let reached = self.0.iter().map(|it| it.count_ones() as usize).sum();
        let possible = combinations()
            .filter(|(state, call, force)| impossible_in(*state, *call, *force).is_none());
        (reached, possible.count())
    }

    /// The pairs of a state and a call that were not reached without a reason, or reached in spite
    /// of one.
    pub(super) fn unexpected(&self) -> Vec<String> {
        let states = 0..=ABSENT;
        let pairs = states.flat_map(|state| CALLS.iter().map(move |call| (state, *call)));
        let differs = |(state, call): &(usize, Call)| {
            self.has(*state, *call) == impossible(*state, *call).is_some()
        };
        let unexpected = pairs.filter(differs);
        unexpected
            .map(|(state, call)| format!("{} {call:?}", name(state)))
            .collect()
    }

    /// The combinations with a circumstance that were not reached without a reason.
    pub(super) fn missing(&self) -> Vec<String> {
        let missing = |it: &(usize, Call, Force)| {
            let (state, call, force) = *it;
            !self.holds(state, call, force) && impossible_in(state, call, force).is_none()
        };
        named(combinations().filter(missing))
    }

    /// The combinations with a circumstance that were reached in spite of a reason.
    pub(super) fn refuted(&self) -> Vec<String> {
        let refuted = |it: &(usize, Call, Force)| {
            let (state, call, force) = *it;
            self.holds(state, call, force) && impossible_in(state, call, force).is_some()
        };
        named(combinations().filter(refuted))
    }

    /// Returns whether a service in this state, or none, was there at this call in a circumstance.
    fn holds(&self, state: usize, call: Call, force: Force) -> bool {
        self.0[call as usize * FORCES.len() + force as usize] & (1 << state) != 0
    }

    /// The number of combinations that were reached, and of those that cannot be: a line for each
    /// call and each reason.
    pub(super) fn table(&self) -> String {
        let mut table = String::new();
        let mut reasons = BTreeMap::<&str, usize>::new();
        for call in CALLS {
            let here = combinations().filter(|(_, it, _)| it == call);
            let (mut reached, mut possible) = (0, 0);
            for (state, call, force) in here {
                match impossible_in(state, call, force) {
                    Some(why) => *reasons.entry(why).or_default() += 1,
                    None => {
                        possible += 1;
                        reached += usize::from(self.holds(state, call, force));
                    }
                }
            }
            let _ = writeln!(table, "{call:?}: {reached} of {possible}");
        }
        for (why, count) in reasons {
            let _ = writeln!(table, "{count} impossible: {why}");
        }
        table
    }
}

/// All combinations of a state, a call and a circumstance.
fn combinations() -> impl Iterator<Item = (usize, Call, Force)> {
    let forces = |call| FORCES.iter().map(move |force| (call, *force));
    let calls = CALLS.iter().flat_map(move |call| forces(*call));
    calls.flat_map(|(call, force)| (0..=ABSENT).map(move |state| (state, call, force)))
}

fn named(combinations: impl Iterator<Item = (usize, Call, Force)>) -> Vec<String> {
    let text = |(state, call, force)| format!("{} {call:?} {force:?}", name(state));
    combinations.map(text).collect()
}

fn name(state: usize) -> &'static str {
    STATES.get(state).map_or("absent", |state| state.as_str())
}
