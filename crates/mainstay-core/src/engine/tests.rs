//! Tests of the engine's pure parts, for every input. `simulation/` and `tests/scenarios` cover
//! its behaviour over time.

use std::time::Duration;

use proptest::prelude::*;

use super::backoff::{Random, pause};
use super::contract::classify;
use super::simulation::spec;
use super::*;
use crate::spec::{Backoff, CodeAction, Policy, Recovery};

mod trials;

fn recovery(policy: Policy) -> Recovery {
    let mut recovery = spec(0, &[], &mut Random::new(1)).recovery().clone();
    (recovery.policy, recovery.codes) = (policy, BTreeMap::new());
    recovery
}

/// The table of DESIGN, and the cases that it leaves to `never`.
#[test]
fn the_contract_is_the_table() {
    use CodeAction::{Halt, Restart, Restore, Retry, Stop};
    let check = |ended: Ended, strict, restart, never| {
        for (policy, expect) in [
            (Policy::Strict, strict),
            (Policy::Restart, restart),
            (Policy::Never, never),
        ] {
            assert_eq!(
                classify(&recovery(policy), &ended),
                expect,
                "{policy:?}, {ended}"
            );
        }
    };
    let last = || "no".to_owned();
    check(Ended::Exit(Exit::Code(0)), Stop, Stop, Stop);
    check(Ended::Exit(Exit::Code(201)), Restore, Restore, Halt);
    check(Ended::Exit(Exit::Code(202)), Retry, Retry, Halt);
    for code in (-1..=300).filter(|code| ![0, 201, 202].contains(code)) {
        check(Ended::Exit(Exit::Code(code)), Halt, Restart, Halt);
    }
    for signal in 1..=128 {
        check(Ended::Exit(Exit::Signal(signal)), Halt, Restart, Halt);
    }
    for code in [i32::MIN, i32::MAX, -1_073_741_510] {
        check(Ended::Exit(Exit::Code(code)), Halt, Restart, Halt);
        check(Ended::Exit(Exit::Signal(code)), Halt, Restart, Halt);
    }
    check(Ended::Exit(Exit::Unknown), Halt, Restart, Halt);
    check(Ended::SpawnFailed(last()), Halt, Restart, Halt);
    // A failure that another attempt cannot fix is not retried.
    check(Ended::Unstartable(last()), Halt, Halt, Halt);
    check(Ended::Backgrounded { hint: last() }, Halt, Halt, Halt);
    let (after, probe) = (Duration::ZERO, last());
    check(Ended::NotReady { after, last: None }, Halt, Restart, Halt);
    check(
        Ended::ConditionMissed { probe, last: None },
        Halt,
        Restart,
        Halt,
    );
    check(
        Ended::LivenessLost {
            misses: 3,
            last: last(),
        },
        Halt,
        Restart,
        Halt,
    );
}

#[test]
fn an_override_is_for_its_code_only() {
    for policy in [Policy::Strict, Policy::Restart, Policy::Never] {
        for code in (0..=255).chain([3010, -1, -1_073_741_819]) {
            for action in [CodeAction::Stop, CodeAction::Retry, CodeAction::Halt] {
                let usual = recovery(policy);
                let mut special = usual.clone();
                special.codes.insert(code, action);
                for other in (-1..=256).chain([code]) {
                    let ended = Ended::Exit(Exit::Code(other));
                    let expect = if other == code {
                        action
                    } else {
                        classify(&usual, &ended)
                    };
                    assert_eq!(classify(&special, &ended), expect);
                }
                if (129..=255).contains(&code) {
                    let ended = Ended::Exit(Exit::Signal(code - 128));
                    assert_eq!(classify(&special, &ended), action);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn a_pause_keeps_to_its_bounds(
        base in 0..=u64::MAX,
        factor in 1.0..=1000.0,
        longer in 0..=u64::MAX,
        n in prop_oneof![0..20_u32, any::<u32>()],
        seed: u64,
    ) {
        let max = Duration::from_nanos(base.saturating_add(longer));
        let base = Duration::from_nanos(base);
        let pause = pause(Backoff { base, factor, max }, n, &mut Random::new(seed));
        prop_assert!(pause <= max);
        prop_assert!(base.is_zero() == pause.is_zero() || base.as_nanos() < 2);
        if n == 0 || factor == 1.0 {
            prop_assert!(pause.as_secs_f64() >= base.as_secs_f64() * 0.9 - 2e-9);
            prop_assert!(pause.as_secs_f64() <= base.as_secs_f64() * 1.1 + 2e-9);
        }
        if base.as_secs_f64() * factor.powf(f64::from(n)) > max.as_secs_f64() {
            prop_assert!(pause.as_secs_f64() >= max.as_secs_f64() * 0.9 - 2e-9);
        }
    }

    #[test]
    fn only_a_graph_without_a_circle_makes_an_engine(
        needs in prop::collection::vec(prop::collection::btree_set(0..8_usize, 0..3), 8),
    ) {
        let specs = needs.iter().enumerate().map(|(i, needs)| {
            let needs: Vec<usize> = needs.iter().copied().collect();
            Arc::new(spec(i, &needs, &mut Random::new(1)))
        });
        // Everything that a service reaches along its needs.
        let mut reaches = needs.clone();
        for _ in 0..needs.len() {
            for i in 0..needs.len() {
                for j in reaches[i].clone() {
                    let further = reaches[j].clone();
                    reaches[i].extend(further);
                }
            }
        }
        let has_circle = (0..needs.len()).any(|i| reaches[i].contains(&i));
        match Engine::new(specs, 1) {
            Ok(_) => prop_assert!(!has_circle),
            Err(GraphError::Cycle(names)) => {
                let number = |name: &ServiceName| name.as_str()[1..].parse().unwrap();
                let circle: Vec<usize> = names.iter().map(number).collect();
                for (at, i) in circle.iter().enumerate() {
                    prop_assert!(needs[*i].contains(&circle[(at + 1) % circle.len()]));
                }
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}

#[test]
fn what_is_no_graph_is_refused() {
    let new = |specs: &[(usize, &[usize])]| {
        let specs = specs
            .iter()
            .map(|(i, needs)| Arc::new(spec(*i, needs, &mut Random::new(1))));
        Engine::new(specs, 1).unwrap_err().to_string()
    };
    assert_eq!(new(&[(1, &[]), (1, &[])]), "two services are named s1");
    assert_eq!(new(&[(1, &[2])]), "s1 needs s2, which is not defined");
    assert_eq!(
        new(&[(0, &[1]), (1, &[2]), (2, &[1])]),
        "dependency cycle: s1 s2"
    );
}

fn specs(manifest: &str) -> Vec<Arc<Spec>> {
    let text = format!("environment = \"development\"\n{manifest}");
    let specs = crate::manifest::parse(&text, crate::manifest::Format::Toml).unwrap();
    specs.into_iter().map(Arc::new).collect()
}

fn at(seconds: u64) -> Instant {
    Instant::at(Duration::from_secs(seconds))
}

/// Returns the only run that these actions start.
#[track_caller]
fn spawned(actions: &[Action]) -> (ServiceId, RunId) {
    let spawns = actions.iter().filter_map(|action| match action {
        Action::Spawn(id, run) => Some((*id, *run)),
        _ => None,
    });
    let spawns: Vec<_> = spawns.collect();
    assert_eq!(spawns.len(), 1, "{actions:?}");
    spawns[0]
}

fn facts(actions: &[Action]) -> Vec<String> {
    let facts = actions.iter().filter_map(|action| match action {
        Action::Emit(_, fact) => Some(fact.to_string()),
        _ => None,
    });
    facts.collect()
}

/// Starts the given run and makes it fail.
fn fail(engine: &mut Engine, (id, run): (ServiceId, RunId), now: Instant) -> Vec<Action> {
    engine.step(Event::Spawned(id, run, 1), now);
    engine.step(Event::Exited(id, run, Exit::Code(1)), now);
    engine.step(Event::Emptied(id, run), now)
}

/// A dependent that is started while its need is stopping makes the need start again, and waits for
/// that run.
#[test]
fn a_need_that_is_being_stopped_starts_again_for_a_dependent() {
    let specs = specs(
        "[service.db]\ncommand = ['db']\nstart = { ready = { notify = true } }\n\
         [service.api]\ncommand = ['api']\nneeds = ['db']\n",
    );
    let mut engine = Engine::new(specs, 1).unwrap();
    let (db, api) = (engine.find("db").unwrap(), engine.find("api").unwrap());
    let (_, old) = spawned(&engine.request(db, Request::Start, at(0)).unwrap());
    engine.step(Event::Spawned(db, old, 1), at(0));
    engine.step(Event::Notified(db, old, Notice::Ready), at(1));
    engine.request(db, Request::Stop, at(2)).unwrap();
    let actions = engine.request(api, Request::Start, at(3)).unwrap();
    assert_eq!(facts(&actions), ["waiting for db"]);
    assert!(!actions.iter().any(|it| matches!(it, Action::Spawn(..))));
    // The old run reports readiness too late.
    assert_eq!(
        engine.step(Event::Notified(db, old, Notice::Ready), at(3)),
        []
    );
    engine.step(Event::Exited(db, old, Exit::Code(0)), at(4));
    let (id, new) = spawned(&engine.step(Event::Emptied(db, old), at(4)));
    assert!(id == db && new != old);
    engine.step(Event::Spawned(db, new, 2), at(4));
    let (id, _) = spawned(&engine.step(Event::Notified(db, new, Notice::Ready), at(5)));
    assert_eq!(id, api);
}

/// Services that are restarted together stop in reverse order: each waits until its dependents have
/// stopped completely.
#[test]
fn a_restart_waits_for_the_stop_of_dependents() {
    let specs = specs(
        "[service.db]\ncommand = ['db']\n[service.api]\ncommand = ['api']\nneeds = ['db']\n\
         [service.web]\ncommand = ['web']\nneeds = ['api']\n",
    );
    let mut engine = Engine::new(specs, 1).unwrap();
    let ids = ["db", "api", "web"].map(|name| engine.find(name).unwrap());
    let mut next = engine.start_all(at(0));
    let runs = ids.map(|id| {
        let run = spawned(&next);
        assert_eq!(run.0, id);
        next = engine.step(Event::Spawned(run.0, run.1, 1), at(0));
        run
    });
    let asked = |actions: &[Action]| {
        let asked = actions.iter().filter_map(|action| match action {
            Action::AskToStop(id, ..) => Some(*id),
            _ => None,
        });
        asked.collect::<BTreeSet<_>>()
    };
    let mut actions = engine.start(&ids, Launch::Afresh, at(1)).unwrap();
    for (id, run) in runs.into_iter().rev() {
        assert_eq!(asked(&actions), BTreeSet::from([id]));
        // The end of the main process is not enough while children are left.
        let ended = engine.step(Event::Exited(id, run, Exit::Code(0)), at(2));
        assert_eq!(asked(&ended), BTreeSet::new());
        actions = engine.step(Event::Emptied(id, run), at(3));
    }
    assert_eq!(spawned(&actions).0, ids[0]);
}

/// Only the first exit of a run counts.
#[test]
fn a_run_exits_once() {
    let mut engine = Engine::new(specs("[service.a]\ncommand = ['a']\n"), 1).unwrap();
    let (id, run) = spawned(&engine.start_all(at(0)));
    engine.step(Event::Spawned(id, run, 1), at(0));
    let first = engine.step(Event::Exited(id, run, Exit::Code(3)), at(1));
    assert!(first.contains(&Action::Kill(id, run)));
    let before = engine.view(id);
    for exit in [Exit::Code(0), Exit::Code(3), Exit::Signal(9), Exit::Unknown] {
        assert_eq!(engine.step(Event::Exited(id, run, exit), at(2)), []);
        assert_eq!(engine.view(id), before);
    }
    let classified = engine.step(Event::Emptied(id, run), at(3));
    assert_eq!(facts(&classified)[0], "failed: exit code 3");
    assert_eq!(
        engine.step(Event::Exited(id, run, Exit::Code(3)), at(3)),
        []
    );
    assert_eq!(engine.step(Event::Emptied(id, run), at(3)), []);
    assert_eq!(engine.view(id).unwrap().restarts, 1);
}

/// Failures under the former definition count under the next one: only an operator's start clears
/// them.
#[test]
fn another_definition_forgives_nothing() {
    let define = |limit: u32, then: &str, argument: u32| {
        specs(&format!(
            "[service.a]\ncommand = ['a', '{argument}']\nrecovery = {{ delay = '1s', \
             limit = {{ restarts = {limit}, window = '1h', then = '{then}' }} }}\n"
        ))
    };
    for then in ["halt", "alert"] {
        let mut engine = Engine::new(define(2, then, 0), 1).unwrap();
        let mut next = engine.start_all(at(0));
        for i in 1..=2 {
            let now = u64::from(i) * 100;
            let classified = fail(&mut engine, spawned(&next), at(now));
            // Redefines the service while it backs off, and again while it runs.
            engine.define(define(2, then, i), at(now)).unwrap();
            let emitted = facts(&classified);
            assert!(
                emitted[1].ends_with(&format!("(consecutive attempt {i})")),
                "{emitted:?}"
            );
            next = engine.step(Event::Tick, at(now + 99));
            engine
                .define(define(2, then, 10 + i), at(now + 99))
                .unwrap();
        }
        let id = engine.find("a").unwrap();
        assert_eq!(engine.view(id).unwrap().restarts, 2);
        let emitted = facts(&fail(&mut engine, spawned(&next), at(300)));
        let expect = match then {
            "halt" => "halted: more than 2 restarts",
            _ => "crash-looping: more than 2 restarts",
        };
        assert!(
            emitted.iter().any(|fact| fact.starts_with(expect)),
            "{emitted:?}"
        );
        // A new definition does not end the crash loop either.
        engine.define(define(2, then, 99), at(300)).unwrap();
        assert_eq!(engine.view(id).unwrap().crash_looping, then == "alert");
    }
}

/// An operator's start resets the failure count, in every state of the service.
#[test]
fn an_operators_start_forgives() {
    for state in [
        "halted",
        "backing-off",
        "stopped",
        "running",
        "stop-pending",
    ] {
        let specs = specs(
            "[service.a]\ncommand = ['a']\nrecovery = { delay = '1s', \
             limit = { restarts = 1, window = '1h', then = 'halt' } }\n",
        );
        let mut engine = Engine::new(specs, 1).unwrap();
        let a = engine.find("a").unwrap();
        let next = engine.start_all(at(0));
        fail(&mut engine, spawned(&next), at(0));
        if state != "backing-off" {
            let (id, run) = spawned(&engine.step(Event::Tick, at(10)));
            engine.step(Event::Spawned(id, run, 2), at(10));
            if state == "stop-pending" || state == "stopped" {
                engine.request(a, Request::Stop, at(11)).unwrap();
            }
            if state == "halted" || state == "stopped" {
                engine.step(Event::Exited(id, run, Exit::Code(1)), at(11));
                engine.step(Event::Emptied(id, run), at(11));
            }
        }
        let view = engine.view(a).unwrap();
        assert_eq!(view.state.as_str(), state);
        let mut next = engine.request(a, Request::Restart, at(12)).unwrap();
        if let Some(run) = view.run {
            engine.step(Event::Exited(a, run, Exit::Code(1)), at(13));
            next = engine.step(Event::Emptied(a, run), at(13));
        }
        let emitted = facts(&fail(&mut engine, spawned(&next), at(14)));
        let last = emitted.last().map(String::as_str);
        let first = last.is_some_and(|fact| fact.ends_with("(consecutive attempt 1)"));
        assert!(first, "{state}: {emitted:?}");
    }
}

/// A trial neither ends a crash loop nor clears failures, whatever its outcome.
#[test]
fn a_trial_ends_no_crash_loop() {
    let define = |argument: u32| {
        specs(&format!(
            "[service.a]\ncommand = ['a', '{argument}']\nrecovery = {{ delay = '1s', max_delay = '1s', \
             limit = {{ restarts = 1, window = '1h', then = 'alert' }} }}\n"
        ))
    };
    for is_good in [false, true] {
        let mut engine = Engine::new(define(0), 1).unwrap();
        let next = engine.start_all(at(0));
        fail(&mut engine, spawned(&next), at(0));
        let next = engine.step(Event::Tick, at(10));
        let emitted = facts(&fail(&mut engine, spawned(&next), at(10)));
        assert!(
            emitted.iter().any(|fact| fact.starts_with("crash-looping")),
            "{emitted:?}"
        );
        let a = engine.find("a").unwrap();
        let how = Tryout {
            style: Style::Restart,
            canary: Duration::from_secs(1),
            versions: None,
        };
        let new = define(1).remove(0);
        let (candidate, actions) = engine.try_out(a, new, how, at(10)).unwrap();
        let (id, run) = spawned(&actions);
        assert_eq!(id, candidate);
        if is_good {
            engine.step(Event::Spawned(id, run, 2), at(10));
            engine.step(Event::Tick, at(11));
            let (id, _) = engine.commit(a, at(11)).unwrap();
            assert!(engine.view(id).unwrap().crash_looping);
            continue;
        }
        let actions = fail(&mut engine, (id, run), at(11));
        assert!(engine.view(a).unwrap().crash_looping);
        let emitted = facts(&fail(&mut engine, spawned(&actions), at(12)));
        assert!(engine.view(a).unwrap().crash_looping);
        let expect = "restarting in 1s (consecutive attempt 3)";
        assert_eq!(
            emitted.last().map(String::as_str),
            Some(expect),
            "{emitted:?}"
        );
        assert!(
            !emitted.iter().any(|fact| fact.starts_with("crash-looping")),
            "{emitted:?}"
        );
        // A stop by an operator during a trial ends the crash loop.
        let new = define(2).remove(0);
        engine.try_out(a, new, how, at(12)).unwrap();
        engine.stop(&[a], at(12));
        assert!(!engine.view(a).unwrap().crash_looping);
    }
}

/// A halted service keeps the time of its halt under a new host.
#[test]
fn a_halt_keeps_its_time_under_another_host() {
    let specs = specs("[service.a]\ncommand = ['a']\nrecovery = { policy = 'strict' }\n");
    let mut engine = Engine::new(specs.clone(), 1).unwrap();
    let a = engine.find("a").unwrap();
    let next = engine.start_all(at(0));
    fail(&mut engine, spawned(&next), at(3));
    let checkpoint = engine.checkpoint(a).unwrap();
    let mut engine = Engine::new(specs, 1).unwrap();
    engine.resume([(a, checkpoint)], at(20));
    assert_eq!(engine.view(a).unwrap().since, at(3));
}

/// A restart that waits for dependents is off if the service is stopped meanwhile, also if that
/// stop is withdrawn.
#[test]
fn a_stop_cancels_a_restart_that_has_not_begun() {
    let specs =
        specs("[service.db]\ncommand = ['db']\n[service.api]\ncommand = ['api']\nneeds = ['db']\n");
    let mut engine = Engine::new(specs, 1).unwrap();
    let [db, api] = ["db", "api"].map(|name| engine.find(name).unwrap());
    let (_, run) = spawned(&engine.start_all(at(0)));
    let (_, run) = spawned(&engine.step(Event::Spawned(db, run, 1), at(0)));
    engine.step(Event::Spawned(api, run, 2), at(0));
    engine.start(&[db, api], Launch::Afresh, at(1)).unwrap();
    assert_eq!(engine.view(db).unwrap().state, StateName::StopPending);
    // Such a service cannot be paused either.
    let paused = engine.request(db, Request::Pause, at(1));
    assert_eq!(paused, Err(Refusal::State(StateName::StopPending)));
    engine.stop(&[db], at(2));
    engine.request(db, Request::Start, at(3)).unwrap();
    assert_eq!(engine.view(db).unwrap().state, StateName::Running);
    engine.step(Event::Exited(api, run, Exit::Code(0)), at(4));
    let (id, _) = spawned(&engine.step(Event::Emptied(api, run), at(4)));
    assert_eq!(id, api);
    assert_eq!(engine.view(db).unwrap().state, StateName::Running);
}

/// Returns the token of a requested restore.
#[track_caller]
fn restore(actions: &[Action]) -> Token {
    let tokens = actions.iter().find_map(|action| match action {
        Action::Restore { token, .. } => Some(*token),
        _ => None,
    });
    tokens.unwrap_or_else(|| panic!("no restore: {actions:?}"))
}

/// Runs a service until its state is being restored. Returns its ID, and the token of the restore.
fn restoring() -> (Engine, ServiceId, Token) {
    let specs = specs("[service.a]\ncommand = ['a']\nsnapshot = { after = '1s' }\n");
    let mut engine = Engine::new(specs, 1).unwrap();
    let (a, run) = spawned(&engine.start_all(at(0)));
    engine.step(Event::Spawned(a, run, 1), at(0));
    engine.step(Event::Exited(a, run, Exit::Code(201)), at(1));
    let token = restore(&engine.step(Event::Emptied(a, run), at(1)));
    (engine, a, token)
}

/// A start that follows the cancellation of a restore requests it again: the program never runs
/// with the state that it has rejected.
#[test]
fn a_cancelled_restore_is_requested_again_by_a_start() {
    let (mut engine, a, token) = restoring();
    let actions = engine.stop(&[a], at(2));
    let cancelled = Action::AbandonRestore(a, token);
    assert!(actions.contains(&cancelled), "{actions:?}");
    engine.request(a, Request::Start, at(3)).unwrap();
    let late = Event::Restored(a, token, Err(CopyFailure::Cancelled));
    assert_ne!(restore(&engine.step(late, at(4))), token);
}

/// A service that fails before its requested restart has begun is started again, although its
/// recovery policy would not restart it.
#[test]
fn a_failure_does_not_prevent_a_requested_restart() {
    let specs = specs(
        "[service.db]\ncommand = ['db']\nrecovery = { policy = 'never' }\n\
         start = { timeout = '30s', ready = { notify = true } }\n\
         [service.api]\ncommand = ['api']\nneeds = ['db']\n",
    );
    let mut engine = Engine::new(specs, 1).unwrap();
    let [db, api] = ["db", "api"].map(|name| engine.find(name).unwrap());
    // Ready, and then on its way up again, while the dependent runs on.
    let (_, run) = spawned(&engine.start_all(at(0)));
    engine.step(Event::Spawned(db, run, 1), at(0));
    let (_, dependent) = spawned(&engine.step(Event::Notified(db, run, Notice::Ready), at(1)));
    engine.step(Event::Spawned(api, dependent, 2), at(1));
    engine.start(&[db], Launch::Afresh, at(2)).unwrap();
    engine.step(Event::Exited(db, run, Exit::Code(0)), at(2));
    let (_, run) = spawned(&engine.step(Event::Emptied(db, run), at(2)));
    engine.step(Event::Spawned(db, run, 3), at(2));
    engine.start(&[db, api], Launch::Afresh, at(3)).unwrap();
    let actions = engine.step(Event::Tick, at(40));
    assert!(facts(&actions)[0].starts_with("failed: "), "{actions:?}");
    engine.step(Event::Exited(db, run, Exit::Signal(15)), at(41));
    let (id, _) = spawned(&engine.step(Event::Emptied(db, run), at(41)));
    assert_eq!(id, db);
}

/// A service that is suspended for its snapshot cannot answer a question that was asked before.
#[test]
fn a_suspended_service_is_not_taken_for_dead() {
    let specs = specs(
        "[service.a]\ncommand = ['a']\nstart = { ready = { tcp = '127.0.0.1:1' } }\n\
         liveness = { every = '1s', misses = 1 }\n\
         snapshot = { after = '2s', pause = true }\n",
    );
    let mut engine = Engine::new(specs, 1).unwrap();
    let (a, run) = spawned(&engine.start_all(at(0)));
    let asked = |actions: &[Action]| {
        let tokens = actions.iter().find_map(|action| match action {
            Action::Ask { token, .. } => Some(*token),
            _ => None,
        });
        tokens.unwrap_or_else(|| panic!("no question: {actions:?}"))
    };
    let readiness = asked(&engine.step(Event::Spawned(a, run, 1), at(0)));
    engine.step(Event::Answered(a, readiness, Ok(())), at(0));
    let liveness = asked(&engine.step(Event::Tick, at(1)));
    let actions = engine.step(Event::Tick, at(2));
    assert!(actions.contains(&Action::Freeze(a, run)), "{actions:?}");
    let answer = Event::Answered(
        a,
        liveness,
        Err(ProbeFailure::Status("GET /".to_owned(), 503)),
    );
    assert_eq!(engine.step(answer, at(3)), []);
    assert_eq!(engine.view(a).unwrap().state, StateName::Running);
}

/// A restore does not outlive the service, which may be removed as soon as it is killed.
#[test]
fn a_kill_cancels_a_restore() {
    let (mut engine, a, token) = restoring();
    let cancelled = Action::AbandonRestore(a, token);
    let actions = engine.kill_all(at(2));
    assert!(actions.contains(&cancelled), "{actions:?}");
    assert_eq!(engine.view(a).unwrap().state, StateName::Stopped);
    // It is cancelled once, also if a stop came first.
    assert!(!engine.kill_all(at(3)).contains(&cancelled));
}
