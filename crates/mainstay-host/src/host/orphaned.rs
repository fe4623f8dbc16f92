//! Services whose supervisor was killed and that no other supervisor has adopted: their status, and
//! how they are stopped.
//!
//! A process that stops some of them supervises them meanwhile, with the usual stop sequence. It
//! does not touch the others: they remain in the dead supervisor's ledger, and the lock remains
//! signed.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainstay_api::{Reach, endpoint};
use mainstay_core::engine::{ServiceId, StateName};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::report::{ServiceReport, StatusReport, SupervisorReport};
use mainstay_core::time::rfc3339;
use mainstay_store::embedded::{self, Definition, Desired};
use mainstay_store::ledger::{self, Entry, Ledger, LedgerSnapshot, Survivors, Undefined};
use mainstay_store::state_dir::{Lock, Predecessor, StateDir};
use mainstay_sys as sys;
use tokio::sync::mpsc;

use super::dispatcher::{About, Dispatcher, unwritten};
use super::effects::Account;
use super::executor::{Executor, Machine};
use super::interrupts::Interrupts;
use super::recovery::{self, Recovery};
use super::{
    Host, Output, Sources, assemble, failed, new_processes, on_event_loop, possession, seed,
};
use crate::definitions;
use crate::launch;
use crate::output;
use crate::preflight;

/// The services that a dead supervisor left, according to its ledger.
pub struct Orphans {
    pub(crate) pid: u32,
    /// The status of the services.
    pub report: StatusReport,
    /// Set if the services are installed ones.
    are_installed: bool,
}

/// Returns the services that a killed supervisor left. Returns `None` if there is no such
/// supervisor, if it is alive, or if it left neither a ledger nor processes.
pub fn orphans(state: &StateDir) -> Option<Orphans> {
    if !state.may_be_orphaned() {
        return None;
    }
    let ledger_snapshot = match state.dead_holder() {
        Some((predecessor, manifest)) => {
            recovery::read_or_rebuild(state, (&predecessor, &manifest)).ok()??
        }
        None => LedgerSnapshot::read(state).ok()??,
    };
    if ledger_snapshot.is_kept() {
        return None;
    }
    let pid = ledger_snapshot.header.supervisor;
    let is_gone = |entry: &Entry| entry.living().is_none();
    // The ledger may be out of date if it could not be written.
    let survivors =
        if ledger_snapshot.rebuilt.is_some() || ledger_snapshot.entries.iter().any(is_gone) {
            Survivors::of(&ledger_snapshot.header.orphan_markers)
        } else {
            Survivors::default()
        };
    let rebuilt = ledger_snapshot.rebuilt.as_deref();
    let reports = ledger_snapshot.entries.iter().map(|entry| {
        let reported = report(entry);
        let is_known = rebuilt.is_none() && reported.pid.is_some();
        let living = survivors.said(&entry.name).filter(|_| !is_known);
        match living {
            Some(said) => unknown(reported, rebuilt, &said),
            None => reported,
        }
    });
    let mut services: Vec<ServiceReport> = reports.collect();
    if rebuilt.is_some() {
        let mut others = embedded::reports(state);
        for name in survivors.services() {
            let is_known = |it: &ServiceReport| it.name == name;
            if !services.iter().any(is_known) && !others.iter().any(is_known) {
                others.push(ServiceReport::embedded(name));
            }
        }
        others.retain(|it| !services.iter().any(|known| known.name == it.name));
        services.extend(
            others
                .into_iter()
                .map(|reported| match survivors.said(&reported.name) {
                    Some(said) => unknown(reported, rebuilt, &said),
                    None => reported,
                }),
        );
        services.sort_by(|one, other| one.name.cmp(&other.name));
    }
    let supervisor = Some(SupervisorReport {
        pid,
        alive: false,
        problem: ledger_snapshot.rebuilt.clone(),
        replaced: None,
    });
    let report = StatusReport {
        supervisor,
        services,
    };
    Some(Orphans {
        pid,
        report,
        are_installed: ledger_snapshot.is_of_installed(),
    })
}

/// Returns the report of a service that has living processes but whose state is unknown.
fn unknown(reported: ServiceReport, why: Option<&str>, living: &str) -> ServiceReport {
    let why = why.unwrap_or("the ledger does not list it");
    ServiceReport {
        state: StateName::Unknown,
        ready: false,
        detail: Some(format!("{living}; {why}")),
        ..reported
    }
}

impl Orphans {
    /// Returns a message for the operator, and a hint.
    pub fn remark(&self) -> (String, &'static str) {
        let lives =
            |service: &ServiceReport| service.pid.is_some() || service.state == StateName::Unknown;
        let pid = self.pid;
        let live_on = self.report.services.iter().any(lives);
        let what = if live_on {
            format!("the supervisor (pid {pid}) is no longer running, but its services are")
        } else {
            format!("the supervisor (pid {pid}) and its services are no longer running")
        };
        let hint = match (live_on, self.are_installed) {
            (true, false) => "`mainstay run FILE` adopts them, `mainstay stop` ends them",
            (true, true) => "`mainstay daemon` adopts them, `mainstay stop` ends them",
            (false, false) => "`mainstay run FILE` starts them again",
            (false, true) => "`mainstay daemon` starts them again",
        };
        (what, hint)
    }
}

fn report(entry: &Entry) -> ServiceReport {
    let living = entry.living();
    let lives = living.is_some();
    let ago = sys::uptime().saturating_sub(Duration::from_millis(entry.since_ms));
    let since = SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH);
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let state = entry.name_of_state(lives);
    ServiceReport {
        state,
        pid: living.map(|identity| identity.pid),
        ready: matches!(state, StateName::Running | StateName::Paused),
        since: Some(rfc3339(since)),
        since_seconds: Some(ago.as_secs()),
        restarts: entry.restarts,
        crash_looping: entry.is_crash_looping() && state != StateName::Halted,
        last_exit: entry.last_exit,
        version: (entry.version > 0).then_some(entry.version),
        definition_digest: entry.child.as_ref().and_then(|it| it.digest.clone()),
        detail: entry.remark(lives),
        ..ServiceReport::embedded(&entry.name)
    }
}

/// Stops these services of a dead supervisor, or all of them, in the way their manifest defines.
/// Returns their status, or `None` if no supervisor has left any. Blocks.
///
/// If the manifest cannot be read any more and no services are named, all of them are killed.
pub fn stop_without_supervisor(
    state: &StateDir,
    names: &[String],
    reach: Reach,
) -> Result<Option<StatusReport>, Failure> {
    let lock = possession::take(state)?;
    let Some((predecessor, ledger_snapshot)) = recovery::remains_of(&lock, state) else {
        return Ok(None);
    };
    let ledger_snapshot = match ledger_snapshot {
        Ok(Some(ledger_snapshot)) => ledger_snapshot,
        Ok(None) | Err(_) if !names.is_empty() => {
            let why = match ledger_snapshot {
                Err(error) => error.to_string(),
                Ok(_) => "the supervisor left no ledger".to_owned(),
            };
            let report = kill_named(&why, &predecessor, names, state)?;
            if report.is_some() {
                finish_if_over(&predecessor, state, lock)?;
            }
            return Ok(report);
        }
        Ok(None) => {
            let why = "the supervisor left no ledger".to_owned();
            if kill_all(why, &predecessor, names)? == 0 {
                return Ok(None);
            }
            give_back(state, lock);
            return Ok(Some(StatusReport::default()));
        }
        Err(error) => {
            kill_all(error.to_string(), &predecessor, names)?;
            give_back(state, lock);
            return Ok(Some(StatusReport::default()));
        }
    };
    let (known, mut strangers): (Vec<String>, Vec<String>) = names
        .iter()
        .cloned()
        .partition(|name| ledger_snapshot.has(name));
    let mut killed = Vec::new();
    match (&ledger_snapshot.rebuilt, strangers.first()) {
        (Some(why), _) => {
            if names.is_empty() {
                let survivors = Survivors::of(&predecessor.orphan_markers);
                let others = survivors
                    .services()
                    .filter(|name| !ledger_snapshot.has(name));
                strangers.extend(others.map(str::to_owned));
            }
            let Some(report) = kill_named(why, &predecessor, &strangers, state)? else {
                return Ok(None);
            };
            killed = report.services;
            if known.is_empty() && (!names.is_empty() || ledger_snapshot.entries.is_empty()) {
                finish_if_over(&predecessor, state, lock)?;
                return Ok(Some(StatusReport {
                    supervisor: None,
                    services: killed,
                }));
            }
        }
        (None, Some(name)) => {
            let manifest = &ledger_snapshot.header.manifest;
            let message = format!("cannot stop {name}: {manifest} has no such service");
            let there = ledger_snapshot
                .entries
                .iter()
                .map(|entry| entry.name.as_str());
            return Err(Failure::new(Code::Unknown, message).hint(services_there(there)));
        }
        (None, None) => {}
    }
    let names = &known[..];
    let specs = specs(&ledger_snapshot, state);
    let mut all = names.to_vec();
    if let (Ok(definitions), Reach::WithDependents) = (&specs, reach) {
        add_dependents(&mut all, definitions);
    }
    let is_named = |name: &str| all.is_empty() || all.iter().any(|named| named == name);
    let mut problems = Vec::new();
    if ledger_snapshot.is_of_installed() {
        let named = ledger_snapshot
            .entries
            .iter()
            .filter(|entry| is_named(&entry.name));
        for entry in named.filter(|entry| embedded::is_installed(state, &entry.name)) {
            let desired = Some(&Desired::Stopped);
            if let Err(error) = embedded::write_desired(state, &entry.name, desired) {
                problems.push((entry.name.clone(), unwritten(&error, desired)));
            }
        }
    }
    let mut report = match specs {
        Ok(definitions) => {
            let stopping = stop(state, &ledger_snapshot, definitions, is_named);
            on_event_loop(Code::CannotWrite, stopping)?
        }
        Err(why) => {
            kill_all(why.to_string(), &predecessor, names)?;
            let mut entries = ledger_snapshot.entries;
            entries.iter_mut().for_each(Entry::want_down);
            StatusReport {
                supervisor: None,
                services: entries.iter().map(report).collect(),
            }
        }
    };
    report.services.extend(killed);
    for (name, problem) in problems {
        let mut services = report.services.iter_mut();
        if let Some(service) = services.find(|it| it.name == name) {
            service.state_problem = Some(problem);
        }
    }
    let is_left = match recovery::remains_of(&lock, state) {
        // The services that were not named stay untouched, whatever their state.
        Some((_, Ok(Some(ledger_snapshot)))) if ledger_snapshot.rebuilt.is_some() => {
            !names.is_empty()
        }
        Some((_, Ok(Some(ledger_snapshot)))) => ledger_snapshot
            .entries
            .iter()
            .any(|entry| entry.living().is_some()),
        _ => false,
    };
    if !is_left {
        // End helpers, and what remained of services that had ended before.
        end(&predecessor)?;
        give_back(state, lock);
    }
    Ok(Some(report))
}

fn services_there<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        "no services are left".to_owned()
    } else {
        format!("services: {}", names.join(", "))
    }
}

/// Adds the services that depend on one of the named services, directly or indirectly.
fn add_dependents(names: &mut Vec<String>, definitions: &[Definition]) {
    let mut next = 0;
    while let Some(name) = names.get(next).cloned() {
        let needs_it = |it: &&Definition| it.spec.needed_services().any(|it| it.as_str() == name);
        let dependents = definitions.iter().filter(needs_it);
        for dependent in dependents.map(|it| it.spec.name().to_string()) {
            if !names.contains(&dependent) {
                names.push(dependent);
            }
        }
        next += 1;
    }
}

/// Kills all processes, as the way to stop them is unknown. Fails if services are named.
fn kill_all(why: String, predecessor: &Predecessor, names: &[String]) -> Result<usize, Failure> {
    if !names.is_empty() {
        let message = format!("cannot stop {}: {why}", names.join(", "));
        let hint = "`mainstay stop` without names kills all processes that the supervisor left";
        return Err(Failure::new(Code::Failed, message).hint(hint));
    }
    let count = end(predecessor)?;
    if count > 0 {
        output::complain(&format!(
            "{why}; the services could not be stopped gracefully: their {count} processes were killed"
        ));
    }
    Ok(count)
}

/// Kills the living processes of these services, as the way to stop them is unknown. The services
/// stay down. Returns their status, or `None` if no process of any service lives.
fn kill_named(
    why: &str,
    predecessor: &Predecessor,
    names: &[String],
    state: &StateDir,
) -> Result<Option<StatusReport>, Failure> {
    let survivors = Survivors::of(&predecessor.orphan_markers);
    if !names.is_empty() && survivors.services().next().is_none() {
        return Ok(None);
    }
    if let Some(name) = names.iter().find(|name| !survivors.has(name)) {
        let message =
            format!("cannot stop {name}: no process of such a service is running ({why})");
        let hint = services_there(survivors.services());
        return Err(Failure::new(Code::Unknown, message).hint(hint));
    }
    let mut report = StatusReport::default();
    for name in names {
        let mut count = 0;
        for orphan_marker in &predecessor.orphan_markers {
            count += sys::end_service(orphan_marker, name).map_err(|error| {
                Failure::new(
                    Code::Failed,
                    format!("cannot kill the processes of {name}: {error}"),
                )
            })?;
        }
        output::complain(&format!(
            "{why}; {name} could not be stopped gracefully: its {count} processes were killed"
        ));
        let mut stopped = ServiceReport::embedded(name);
        if embedded::is_installed(state, name) {
            let desired = Some(&Desired::Stopped);
            let written = embedded::write_desired(state, name, desired);
            stopped.state_problem = written.err().map(|error| unwritten(&error, desired));
        }
        report.services.push(stopped);
    }
    Ok(Some(report))
}

/// Removes the supervisor's files if no process of its services is left.
fn finish_if_over(predecessor: &Predecessor, state: &StateDir, lock: Lock) -> Result<(), Failure> {
    let survivors = Survivors::of(&predecessor.orphan_markers);
    if survivors.services().next().is_none() {
        // Only helpers may be left.
        end(predecessor)?;
        give_back(state, lock);
    }
    Ok(())
}

/// Removes the supervisor's files and releases the lock.
fn give_back(state: &StateDir, lock: Lock) {
    ledger::discard(state);
    endpoint::remove_stale(state.path());
    mainstay_logs::end_keeper(&state.pipes_dir());
    lock.give_back();
}

fn end(predecessor: &Predecessor) -> Result<usize, Failure> {
    let ends = predecessor.orphan_markers.iter();
    ends.map(|orphan_marker| recovery::end_remains(predecessor, orphan_marker, &[]))
        .sum()
}

/// The reason why the services in a ledger can only be killed.
enum Unknown {
    /// The ledger is damaged.
    Damaged,
    /// The definitions cannot be read.
    Undefined(Undefined),
    /// There is no definition of this service.
    Missing(String),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str("its ledger is damaged"),
            Self::Undefined(why) => why.fmt(f),
            Self::Missing(name) => write!(f, "its copy of the manifest does not define {name}"),
        }
    }
}

/// Returns the definitions of the services in the ledger, in its order.
///
/// # Errors
/// If a definition is unknown.
fn specs(ledger_snapshot: &LedgerSnapshot, state: &StateDir) -> Result<Vec<Definition>, Unknown> {
    if !ledger_snapshot.is_whole {
        return Err(Unknown::Damaged);
    }
    // Services of a rebuilt ledger without a manifest are stopped in the default way.
    let all = ledger_snapshot.definitions(state, definitions::installed);
    let mut all = match (all, &ledger_snapshot.rebuilt) {
        (Err(_), Some(_)) => Vec::new(),
        (all, _) => all.map_err(Unknown::Undefined)?,
    };
    let defined = ledger_snapshot.entries.iter().map(|entry| {
        let found = all
            .iter()
            .position(|it| it.spec.name().as_str() == entry.name);
        let known = found.map(|found| all.swap_remove(found));
        // A service that was uninstalled meanwhile is stopped like any other.
        let known = known.or_else(|| {
            let may_be_gone =
                ledger_snapshot.is_of_installed() || ledger_snapshot.rebuilt.is_some();
            may_be_gone.then(|| Definition::of_unknown(&entry.name))?
        });
        known.ok_or_else(|| Unknown::Missing(entry.name.clone()))
    });
    defined.collect()
}

/// Ends what is left of a service without a main process.
fn end_remains_of(entry: &Entry, ledger_snapshot: &LedgerSnapshot) -> Result<(), Failure> {
    let Some(main) = entry.main() else {
        return Ok(());
    };
    let others = ledger_snapshot
        .entries
        .iter()
        .filter(|it| it.name != entry.name);
    let spared: Vec<_> = others.filter_map(Entry::main).collect();
    let ended = sys::end_tree(&main.tree, &spared);
    ended.map(drop).map_err(|error| {
        let why = format!(
            "cannot kill the remaining processes of {}: {error}",
            entry.name
        );
        Failure::new(Code::Failed, why)
    })
}

/// Returns a supervisor of the named services of a ledger, which goes on, and their IDs.
fn take_over(
    state: &StateDir,
    ledger_snapshot: &LedgerSnapshot,
    definitions: Vec<Definition>,
    is_named: impl Fn(&str) -> bool,
) -> Result<(Host, Vec<ServiceId>), Failure> {
    let mut processes = new_processes()?;
    let recovery = Recovery::recover_some(&ledger_snapshot.entries, &is_named, &mut processes);
    // The account matters: a service's notifications may extend its stop timeout.
    let accounts = definitions.iter();
    let accounts = accounts.map(|it| Ok(preflight::user_of(&it.spec).unwrap_or(None)));
    let accounts: Vec<Account> = accounts.collect();
    let interrupts = Interrupts::new().map_err(failed("listen for signals"))?;
    let about = About {
        manifest: ledger_snapshot.header.manifest.clone(),
        left_out: Vec::new(),
        daemon: None,
        manager: None,
        zero: recovery.zero,
        seed: seed(),
    };
    let services = definitions.into_iter().zip(accounts).collect();
    let machine = Machine {
        state: state.clone(),
        processes,
        inherited: launch::inherited(),
        output: Output::Silent,
        adopts: true,
    };
    let (mut dispatcher, messages) = assemble(services, about, machine)?;
    let ids: Vec<ServiceId> = dispatcher.engine().ids().collect();
    // If the ledger cannot be written, a later supervisor finds that the main process is gone.
    let path = ledger_snapshot.path().to_owned();
    dispatcher.effects.ledger = Ledger::go_on(path, ids.clone()).ok();
    let named = ids.iter().zip(&ledger_snapshot.entries);
    let named = named.filter(|(_, entry)| is_named(&entry.name));
    let named: Vec<ServiceId> = named.map(|(id, _)| *id).collect();
    // A service without a main process may have other processes left.
    let gone = recovery.services.iter().zip(&ledger_snapshot.entries);
    for (_, entry) in
        gone.filter(|(recovered, entry)| recovered.tree.is_none() && is_named(&entry.name))
    {
        end_remains_of(entry, ledger_snapshot)?;
    }
    let zero = recovery.zero;
    let known = ids.into_iter().zip(recovery.services);
    let known = known.filter(|(_, recovered)| recovered.is_known());
    let taken = known.map(|(id, recovered)| {
        let (checkpoint, taken) = recovered.take(zero);
        (id, checkpoint, taken)
    });
    dispatcher.effects.logs.need();
    dispatcher.take_over_some(taken.collect());
    dispatcher.effects.logs.begin();
    let (_, commands) = mpsc::unbounded_channel();
    let sources = Sources {
        messages,
        commands,
        interrupts,
    };
    let host = Host {
        dispatcher,
        sources,
        possession: None,
        releases_at: None,
    };
    Ok((host, named))
}

async fn stop(
    state: &StateDir,
    ledger_snapshot: &LedgerSnapshot,
    definitions: Vec<Definition>,
    is_named: impl Fn(&str) -> bool,
) -> Result<StatusReport, Failure> {
    let lives = |it: &&Definition| {
        let name = it.spec.name().as_str();
        let entry = ledger_snapshot
            .entries
            .iter()
            .find(|entry| entry.name == name);
        !is_named(name) && entry.is_some_and(|entry| entry.living().is_some())
    };
    let others: Vec<Definition> = definitions.iter().filter(lives).cloned().collect();
    let (mut host, named) = take_over(state, ledger_snapshot, definitions, &is_named)?;
    let is_over = |dispatcher: &Dispatcher<Executor>| {
        let engine = dispatcher.engine();
        let mut views = named.iter().filter_map(|id| engine.view(*id));
        views.all(|view| view.state.is_settled())
    };
    host.watch(is_over).await;
    let dispatcher = host.dispatcher;
    let report = |id: &ServiceId| {
        let report = dispatcher.report(*id)?;
        let needs_it = |it: &&Definition| {
            let mut needs = it.spec.needed_services();
            needs.any(|need| need.as_str() == report.name)
        };
        let dependents = others.iter().filter(needs_it);
        Some(ServiceReport {
            needed_by: dependents.map(|it| it.spec.name().to_string()).collect(),
            ..report
        })
    };
    let report = StatusReport {
        supervisor: None,
        services: named.iter().filter_map(report).collect(),
    };
    let mut others = ledger_snapshot
        .entries
        .iter()
        .filter(|entry| !is_named(&entry.name));
    if others.any(|entry| entry.living().is_some()) {
        dispatcher.into_effects().leave()?;
    } else {
        dispatcher.into_effects().close()?;
    }
    Ok(report)
}
