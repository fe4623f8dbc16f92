//! Single cases, which schedules reach too rarely: a few requests in a given order, on a machine
//! without troubles. All rules are checked, as in a schedule.

use std::time::Duration;

use hyper::body::Bytes;
use mainstay_api::{Decision, Reach, Route};
use mainstay_core::engine::{Request, StateName, TrialPhase};
use mainstay_store::embedded::Desired;

use super::disk::Installed;
use super::life::{Life, Mode};
use super::random::Random;
use super::world::{Coming, World};
use crate::host::effects::Message;

/// The longest time in which something that is expected happens.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// A variant of every service that has no needs and is ready when it runs.
const OTHER_VARIANT: usize = 6;

/// A daemon, and the service that a case is about.
struct Case {
    life: Life,
    name: &'static str,
}

impl Case {
    fn begin(seed: u64, name: &'static str) -> Self {
        Self::begin_with(seed, name, &[])
    }

    fn begin_with(seed: u64, name: &'static str, others: &[&'static str]) -> Self {
        let mode = Mode::Daemon {
            exits_when_done: false,
        };
        let (variant, version) = (0, 1);
        let names = others.iter().chain([&name]);
        let manifest = names.map(|name| (*name, Installed { variant, version }));
        let manifest = manifest.collect();
        let mut world = World::new(Random::new(seed), false);
        world.is_kind = true;
        let life = Life::with(mode, manifest, world).unwrap();
        Self { life, name }
    }

    fn state(&self) -> Option<StateName> {
        let engine = self.life.dispatcher.engine();
        let id = engine.find(self.name)?;
        engine.view(id).map(|view| view.state)
    }

    fn is_wanted(&self) -> bool {
        let engine = self.life.dispatcher.engine();
        engine
            .find(self.name)
            .is_some_and(|id| engine.is_wanted(id))
    }

    fn trial(&self) -> Option<TrialPhase> {
        let engine = self.life.dispatcher.engine();
        let trial = engine.find(self.name).and_then(|id| engine.trial(id));
        trial.map(|trial| trial.phase)
    }

    fn desired(&self) -> Option<&Desired> {
        self.life.dispatcher.effects.storage.desired.get(self.name)
    }

    fn send(&mut self, route: Route) {
        self.send_with(route, String::new());
    }

    fn send_with(&mut self, route: Route, body: String) {
        let (call, about, command) = self.life.prepare(route, None, Bytes::from(body));
        self.life.send(call, about, command).unwrap();
    }

    fn stop(&mut self) {
        self.send(Route::Stop {
            names: vec![self.name.to_owned()],
            reach: Reach::Named,
        });
    }

    fn update(&mut self, variant: usize) {
        let name = self.name.to_owned();
        self.send_with(Route::Update { name }, variant.to_string());
    }

    /// Lets something that is coming happen now.
    fn hasten(&mut self, is_meant: impl Fn(&Coming) -> bool) {
        let mut coming = self.life.world().coming.iter();
        let key = coming.find(|(_, it)| is_meant(it)).map(|(key, _)| *key);
        self.life.happen(key.unwrap()).unwrap();
    }

    /// Commits the update as soon as that is possible.
    fn commit(&mut self) {
        self.until(|case| case.trial() == Some(TrialPhase::Trial));
        self.try_to_commit();
        let accepted = &self.life.world().storage.accepted;
        assert_eq!(accepted[self.name].variant, OTHER_VARIANT);
    }

    fn try_to_commit(&mut self) {
        let (name, decision) = (self.name.to_owned(), Decision::Commit);
        self.send(Route::Decide { name, decision });
    }

    /// Lets time pass until something is so.
    #[track_caller]
    fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let end = self.life.world().clock + LONGEST_WAIT;
        while !is_so(self) {
            assert!(self.life.world().clock < end, "in vain: {:?}", self.state());
            if !self.life.one_event().unwrap() {
                self.life.advance(Duration::ZERO);
            }
        }
    }

    #[track_caller]
    fn until_answered(&mut self) {
        self.until(|case| case.life.clients.is_empty());
    }
}

/// A client that waits for a service gets its response when the service has become another one by
/// an update.
#[test]
fn a_client_waits_through_an_update() {
    for seed in 1..20 {
        let mut case = Case::begin(seed, "db");
        case.until(|case| case.state() == Some(StateName::Running));
        case.update(OTHER_VARIANT);
        case.send(Route::Request {
            names: vec![case.name.to_owned()],
            request: Request::Restart,
        });
        // The trial begins before the restart is done.
        case.hasten(|it| matches!(it, Coming::Message(Message::Checked(..))));
        case.commit();
        case.until_answered();
        assert_eq!(case.state(), Some(StateName::Running));
    }
}

/// The removal of a running service stops it.
#[test]
fn a_removal_stops_its_service() {
    for seed in 1..20 {
        let mut case = Case::begin(seed, "db");
        case.until(|case| case.state() == Some(StateName::Running));
        case.send(Route::Forget {
            names: vec![case.name.to_owned()],
            owner: None,
        });
        case.until_answered();
        assert_eq!(case.state(), None);
        assert!(case.life.world().trees.is_empty());
    }
}

/// A service that was stopped by name stays down when it has been updated, also under the next
/// supervisor.
#[test]
fn an_update_of_a_stopped_service_leaves_it_stopped() {
    let mut case = Case::begin(1, "db");
    case.until(|case| case.state() == Some(StateName::Running));
    case.stop();
    case.until_answered();
    case.update(OTHER_VARIANT);
    case.commit();
    case.until_answered();
    assert_eq!(case.desired(), Some(&Desired::Stopped));
    assert_eq!(case.state(), Some(StateName::Stopped));
    case.life.kill().unwrap();
    assert_eq!(case.state(), Some(StateName::Stopped));
    assert!(!case.is_wanted());
}

/// A stop by name counts if its supervisor is killed while it records it, whatever is recorded
/// first. A service whose processes live goes on if the ledger says so.
#[test]
fn a_stop_counts_from_its_first_record_on() {
    // The one waits for a condition, so that it is down at once; the other runs.
    for (name, state) in [("cache", StateName::Waiting), ("db", StateName::Running)] {
        let mut halves = 0;
        for effects in 0..20 {
            let mut case = Case::begin(1, name);
            case.until(|case| case.state() == Some(state));
            case.life.world().dies_after = Some(effects);
            case.stop();
            let is_recorded = case.desired() == Some(&Desired::Stopped);
            if case.life.lives == 1 {
                break;
            }
            halves += u32::from(is_recorded);
            let lives = state == StateName::Running;
            assert!(lives || case.is_wanted() != is_recorded, "{effects}");
        }
        assert!(halves > 0, "{name} is never stopped in part");
    }
}

/// A stop that is in the ledger, but could not be written as a desired state, is written by the
/// next supervisor.
#[test]
fn a_stop_in_the_ledger_becomes_a_desired_state() {
    let mut case = Case::begin(1, "db");
    case.until(|case| case.state() == Some(StateName::Running));
    case.stop();
    case.until_answered();
    case.life.world().storage.desired.clear();
    case.life.kill().unwrap();
    assert_eq!(case.desired(), Some(&Desired::Stopped));
}

/// A healthy candidate that does not fit the other definitions any more is rolled back by the
/// attempt to commit it.
#[test]
fn a_candidate_that_does_not_fit_any_more_is_rolled_back() {
    // Each needs the other.
    let (variant, of_cache) = (7, 5);
    let mut case = Case::begin_with(1, "db", &["cache"]);
    case.until(|case| case.state() == Some(StateName::Running));
    case.update(variant);
    case.until(|case| case.trial() == Some(TrialPhase::Trial));
    let names = vec!["cache".to_owned()];
    let define = Route::Define { names, owner: None };
    let (call, about, command) = case.life.prepare(define, None, Bytes::new());
    let installed = case.life.world().storage.installed.get_mut("cache");
    installed.unwrap().variant = of_cache;
    case.life.send(call, about, command).unwrap();
    case.hasten(|it| matches!(it, Coming::Load(..)));
    assert_eq!(case.trial(), Some(TrialPhase::Trial));
    case.try_to_commit();
    assert_eq!(case.trial(), Some(TrialPhase::RollBack));
    case.until(|case| case.trial().is_none());
    assert_eq!(case.state(), Some(StateName::Running));
}
