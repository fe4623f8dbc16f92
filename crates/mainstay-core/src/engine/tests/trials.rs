//! Trials whose course the simulations reach too rarely.

use super::*;
use crate::snapshot::SnapshotId;

const HOW: Tryout = Tryout {
    style: Style::Restart,
    canary: Duration::ZERO,
    versions: None,
};

/// The time limit of a restore.
const RESTORE_TIMEOUT: u64 = 3600;

/// Returns a definition of a service that has snapshots.
fn with_snapshots(argument: u32) -> Arc<Spec> {
    let manifest = "[service.a]\nsnapshot = { after = '1s' }\ncommand = ['a', ";
    one(&format!("{manifest}'{argument}']\n"))
}

/// Returns the specification of one service.
fn one(manifest: &str) -> Arc<Spec> {
    specs(manifest).remove(0)
}

/// A restore that a rollback waits for in vain is cancelled, so that it cannot replace the state
/// later. Without the state, the service halts.
#[test]
fn a_rollback_cancels_a_restore_that_does_not_end() {
    let mut engine = Engine::new(vec![with_snapshots(0)], 1).unwrap();
    let (a, run) = spawned(&engine.start_all(at(0)));
    engine.step(Event::Spawned(a, run, 1), at(0));
    engine.try_out(a, with_snapshots(1), HOW, at(1)).unwrap();
    engine.step(Event::Exited(a, run, Exit::Code(0)), at(2));
    let actions = engine.step(Event::Emptied(a, run), at(2));
    let Some(Action::KeepState { token, .. }) = actions.last() else {
        panic!("no snapshot before the trial: {actions:?}");
    };
    let snapshot = SnapshotId::new(7, None);
    let kept = Event::Snapshotted(a, *token, Ok(Snapshotted::Taken(snapshot)));
    let candidate = spawned(&engine.step(kept, at(3)));
    let actions = fail(&mut engine, candidate, at(4));
    let Some(Action::RestoreSnapshot { token, .. }) = actions.last() else {
        panic!("no restore after the trial: {actions:?}");
    };
    let late = at(4 + RESTORE_TIMEOUT);
    assert_eq!(engine.deadline(), Some(late));
    let actions = engine.step(Event::Tick, late);
    let cancelled = Action::AbandonRestore(a, *token);
    assert!(actions.contains(&cancelled), "{actions:?}");
    assert_eq!(engine.view(a).unwrap().state, StateName::Halted);
    // The late answer changes nothing.
    assert_eq!(
        engine.step(Event::Restored(a, *token, Ok(snapshot)), late),
        []
    );
}

/// Begins a trial of a service that is backing off. Returns the IDs of the service and of the
/// candidate, and the token of the snapshot before the trial.
fn try_out_after_a_failure() -> (Engine, [ServiceId; 2], Token) {
    let mut engine = Engine::new(vec![with_snapshots(0)], 1).unwrap();
    let first = spawned(&engine.start_all(at(0)));
    fail(&mut engine, first, at(0));
    let service = first.0;
    assert_eq!(engine.view(service).unwrap().state, StateName::BackingOff);
    let begun = engine.try_out(service, with_snapshots(1), HOW, at(0));
    let (candidate, actions) = begun.unwrap();
    let Some(Action::KeepState { token, .. }) = actions.last() else {
        panic!("no snapshot before the trial: {actions:?}");
    };
    (engine, [service, candidate], *token)
}

/// A rollback restores the state before the trial also if the old definition had failed.
#[test]
fn a_rollback_restores_the_state_of_a_service_that_had_failed() {
    let (mut engine, [service, candidate], token) = try_out_after_a_failure();
    let before = SnapshotId::new(7, None);
    let kept = Event::Snapshotted(service, token, Ok(Snapshotted::Taken(before)));
    let run = spawned(&engine.step(kept, at(1)));
    assert_eq!(run.0, candidate);
    let actions = fail(&mut engine, run, at(2));
    let is_restored = |action: &Action| match action {
        Action::RestoreSnapshot { snapshot, .. } => *snapshot == before,
        _ => false,
    };
    assert!(actions.iter().any(is_restored), "{actions:?}");
}

/// A candidate is not started if there is no snapshot that a rollback could restore. The old
/// definition comes back.
#[test]
fn a_candidate_does_not_start_without_a_snapshot() {
    for kept in [
        Ok(Snapshotted::Unchanged),
        Err(CopyFailure::Files("no space".to_owned())),
    ] {
        let (mut engine, [service, _], token) = try_out_after_a_failure();
        let actions = engine.step(Event::Snapshotted(service, token, kept), at(1));
        assert_eq!(spawned(&actions).0, service);
    }
}

/// A stop with dependents reaches a new definition on trial that needs the service, and does not
/// take it for a service.
#[test]
fn a_stop_with_dependents_ends_a_trial_that_needs_the_service() {
    let define = |needs: &str| {
        specs(&format!(
            "[service.db]\ncommand = ['db']\n[service.api]\ncommand = ['api']\nneeds = {needs}\n"
        ))
    };
    let mut engine = Engine::new(define("[]"), 1).unwrap();
    let [db, api] = ["db", "api"].map(|name| engine.find(name).unwrap());
    engine.start_all(at(0));
    let needy = define("['db']");
    let new = needy.iter().find(|spec| spec.name().as_str() == "api");
    engine
        .try_out(api, Arc::clone(new.unwrap()), HOW, at(1))
        .unwrap();
    assert_eq!(engine.trial(api).unwrap().phase, TrialPhase::Stop);
    let (stopped, _) = engine.stop_with_dependents(&[db], at(2));
    assert_eq!(stopped, [db]);
    assert_eq!(engine.trial(api).unwrap().phase, TrialPhase::RollBack);
    assert!(engine.is_wanted(api));
}

/// A service that operators have stopped stays down through an update, also under the next host.
#[test]
fn an_update_keeps_the_desired_state() {
    let define = |argument: u32| one(&format!("[service.a]\ncommand = ['a', '{argument}']\n"));
    let mut engine = Engine::new(vec![define(0)], 1).unwrap();
    let (a, run) = spawned(&engine.start_all(at(0)));
    engine.step(Event::Spawned(a, run, 1), at(0));
    engine.stop(&[a], at(1));
    engine.step(Event::Exited(a, run, Exit::Code(0)), at(2));
    engine.step(Event::Emptied(a, run), at(2));
    engine.try_out(a, define(1), HOW, at(3)).unwrap();
    let (updated, _) = engine.commit(a, at(4)).unwrap();
    assert!(!engine.is_wanted(updated));
    let desired = engine.checkpoint(updated).unwrap().desired;
    assert_eq!(desired, DesiredState::Down);
}
