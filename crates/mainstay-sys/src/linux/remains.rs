//! Processes that a dead supervisor left, found by its orphan marker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use std::{fs, io};

use super::mark::{Mark, Marks};
use super::{Processes, cgroup, place, proc, signal};
use crate::process::{Birth, Identity, SUPERVISED_FROM, Survivor};

/// Returns the orphan marker by which a later supervisor finds processes that this one may leave
/// behind; for [`end_remains`].
pub fn orphan_marker(processes: &Processes) -> String {
    match &processes.nest {
        Some(nest) => format!("cgroup {}", nest.dir().display()),
        None => processes.secret.orphan_marker(),
    }
}

/// Returns the orphan marker by which a later supervisor finds processes that were started with
/// this value of [`SUPERVISED_FROM`]; for [`end_remains`].
pub fn orphan_marker_of(mark: &str) -> String {
    format!("state {mark}")
}

/// The time limit for ending the processes of a dead supervisor.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Kills the processes that a supervisor left when it died without stopping them, identified by its
/// [`orphan_marker`], except those of the trees that are `spared`. What is or descends from a main
/// process of these, or shares its session, is spared whatever mark it bears. Returns the number of
/// them. Blocks until they are gone, 10 s at most.
///
/// An orphan marker names a cgroup or an instance that no other supervisor ever had, so no other
/// process can be killed.
pub fn end_remains(orphan_marker: &str, spared: &[Identity]) -> io::Result<usize> {
    let spared = spared.iter();
    match orphan_marker.split_once(' ') {
        Some(("cgroup", dir)) => {
            let spared = spared.filter_map(|tree| tree.tree.strip_prefix(orphan_marker));
            let spared = spared.filter_map(|name| name.strip_prefix('/')).collect();
            cgroup::end_remains(dir.as_ref(), &spared, END_TIMEOUT)
        }
        Some(("state", dir)) => {
            let mark = format!("{SUPERVISED_FROM}={dir}").into_bytes();
            let ended = kill_all(|_, them| has(them, &mark));
            place::end_keepers(dir).and(ended)
        }
        _ => {
            let Some(marks) = Marks::of_orphan_marker(orphan_marker) else {
                return Ok(0);
            };
            let mains = mains_of(spared.clone());
            let spared = spared.filter_map(|tree| Mark::of_tree(&tree.tree, None));
            let spared: BTreeSet<String> = spared.map(|mark| mark.value().to_owned()).collect();
            let is_meant = |pid: u32, environment: &[u8]| {
                let borne = marks.borne_by(pid, environment);
                borne.is_some_and(|value| !spared.contains(value)) && !is_below_any(&mains, pid)
            };
            kill_all(is_meant)
        }
    }
}

/// Kills every other process that `is_meant` matches by its pid and environment, until there is
/// none, [`END_TIMEOUT`] at most. Returns the number of them.
fn kill_all(is_meant: impl Fn(u32, &[u8]) -> bool) -> io::Result<usize> {
    let own = std::process::id();
    let is_marked = |pid: u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        pid != own && is_meant(pid, &environment)
    };
    let deadline = Instant::now() + END_TIMEOUT;
    let mut killed = BTreeSet::new();
    loop {
        let found: Vec<u32> = proc::every_pid().filter(|pid| is_marked(*pid)).collect();
        if found.is_empty() {
            return Ok(killed.len());
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        signal::each(found, |pid| {
            killed.insert(pid);
            signal::send_if(pid, libc::SIGKILL, || is_marked(pid))
        })?;
        // They are not children of this process, so no notification arrives when they exit.
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn mains_of<'a>(trees: impl Iterator<Item = &'a Identity>) -> Vec<(u32, Birth)> {
    trees.map(|tree| (tree.pid, tree.birth)).collect()
}

/// Returns whether a process provably belongs to the tree of one of these main processes.
fn is_below_any(mains: &[(u32, Birth)], pid: u32) -> bool {
    let process = proc::Stat::of(pid);
    process.is_some_and(|process| proc::is_below(process, |pid| proc::has_main(mains, pid)))
}

/// Kills the processes of one tree ([`Identity::tree`]), as [`end_remains`] does.
pub fn end_tree(tree: &str, spared: &[Identity]) -> io::Result<usize> {
    match tree.split_once(' ') {
        Some(("cgroup", dir)) => cgroup::end(dir.as_ref(), Instant::now() + END_TIMEOUT),
        _ => {
            let Some(mark) = Mark::of_tree(tree, None) else {
                return Ok(0);
            };
            let (mark, mains) = (Marks::One(mark), mains_of(spared.iter()));
            let is_meant = |pid: u32, environment: &[u8]| {
                mark.borne_by(pid, environment).is_some() && !is_below_any(&mains, pid)
            };
            kill_all(is_meant)
        }
    }
}

/// Kills the processes of one service under a supervisor's [`orphan_marker`], as [`end_remains`]
/// does.
pub fn end_service(orphan_marker: &str, service: &str) -> io::Result<usize> {
    if let Some(("cgroup", dir)) = orphan_marker.split_once(' ') {
        return cgroup::end_service(dir.as_ref(), service, END_TIMEOUT);
    }
    let is_bearer = bearers(orphan_marker);
    let is_meant = |pid: u32, environment: &[u8]| {
        service_in(environment) == Some(service) && is_bearer(pid, environment)
    };
    kill_all(is_meant)
}

/// Returns a test for whether a process with this pid and environment was started under a
/// supervisor with this orphan marker, which names no cgroup.
fn bearers(orphan_marker: &str) -> impl Fn(u32, &[u8]) -> bool {
    let state = match orphan_marker.split_once(' ') {
        Some(("state", dir)) => Some(format!("{SUPERVISED_FROM}={dir}").into_bytes()),
        _ => None,
    };
    let marks = Marks::of_orphan_marker(orphan_marker);
    move |pid, environment| match (&state, &marks) {
        (Some(state), _) => has(environment, state),
        (None, Some(marks)) => marks.borne_by(pid, environment).is_some(),
        (None, None) => false,
    }
}

/// Returns whether an environment has this variable.
fn has(environment: &[u8], variable: &[u8]) -> bool {
    let mut variables = environment.split(|byte| *byte == 0);
    variables.any(|it| it == variable)
}

/// Returns the live processes of a dead supervisor's services, by its [`orphan_marker`]. In a
/// cgroup, a tree's main process is the oldest one if it leads its session. Without a cgroup, the
/// main process cannot be determined from data that the processes control.
pub fn survivors(orphan_marker: &str) -> Vec<Survivor> {
    if let Some(("cgroup", dir)) = orphan_marker.split_once(' ') {
        return cgroup::survivors(dir.as_ref());
    }
    let is_meant = bearers(orphan_marker);
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for pid in proc::every_pid() {
        if let Some(service) = service_of(pid, &is_meant) {
            found.entry(service).or_default().push(pid);
        }
    }
    let found = found.into_iter().map(|(service, pids)| Survivor {
        service,
        pids,
        main: None,
    });
    found.collect()
}

/// Returns the service of a process that `is_meant` matches by its pid and environment, as that
/// environment names it.
fn service_of(pid: u32, is_meant: impl Fn(u32, &[u8]) -> bool) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    if pid == std::process::id() || !is_meant(pid, &environment) {
        return None;
    }
    service_in(&environment).map(str::to_owned)
}

/// Returns the service that an environment names.
fn service_in(environment: &[u8]) -> Option<&str> {
    const SERVICE: &[u8] = b"MAINSTAY_SERVICE=";
    let mut variables = environment.split(|byte| *byte == 0);
    let name = variables.find_map(|variable| variable.strip_prefix(SERVICE))?;
    str::from_utf8(name).ok()
}
