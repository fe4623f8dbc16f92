//! The rules: each compares the answers to one question, and names what contradicts itself.

use super::{Claim, Evidence, Finding, Observation, Part, Source, Subject, has_process};
use crate::engine::StateName;

/// Returns the state of the program that the sources agree on.
pub(super) fn state(known: &Known<'_>) -> Option<StateName> {
    let states = groups(known, |claim| claim.state(Part::Program));
    let presence = groups(known, |claim| claim.presence(Part::Program));
    match (&*states, &*presence) {
        ([(state, _)], [] | [_]) => Some(*state),
        (_, [(false, _)]) => Some(StateName::Stopped),
        _ => None,
    }
}

/// The sources that answered.
pub(super) type Known<'a> = Vec<(&'a Evidence, &'a Observation)>;

/// Groups the sources by what they say about one question.
fn groups<'a, T: PartialEq>(
    known: &Known<'a>,
    answer: impl Fn(&Claim) -> Option<T>,
) -> Groups<'a, T> {
    let mut groups: Groups<'_, T> = Vec::new();
    for (from, observation) in known {
        for said in observation.claims.iter().filter_map(&answer) {
            match groups.iter_mut().find(|(it, _)| *it == said) {
                None => groups.push((said, vec![from])),
                Some((_, sources)) if sources.iter().any(|it| it.source == from.source) => {}
                Some((_, sources)) => sources.push(from),
            }
        }
    }
    groups
}

/// The answers to one question, each with the sources that give it.
type Groups<'a, T> = Vec<(T, Vec<&'a Evidence>)>;

/// Returns the sources that give this answer.
fn sources<'b, 'a, T: PartialEq>(
    groups: &'b Groups<'a, T>,
    answer: &T,
) -> Option<&'b Vec<&'a Evidence>> {
    let mut found = groups.iter().filter(|(it, _)| it == answer);
    found.next().map(|(_, sources)| sources)
}

/// Returns the names of all sources that answered.
fn all_names<T>(groups: &Groups<'_, T>) -> Vec<&'static str> {
    let all: Vec<&Evidence> = groups.iter().flat_map(|(_, it)| it).copied().collect();
    names(&all)
}

/// Lists the answers with their sources, for a sentence.
fn list<T>(groups: &Groups<'_, T>, answer: impl Fn(&T) -> String) -> String {
    let each = groups
        .iter()
        .map(|(it, sources)| format!("{} according to {}", answer(it), join(sources)));
    each.collect::<Vec<_>>().join(", and ")
}

fn names(sources: &[&Evidence]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for name in sources.iter().map(|it| it.source.name()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Returns the command that thaws the control group of this file.
pub(super) fn thaw(file: &str) -> String {
    let dir = file.rsplit_once('/').map_or("", |(dir, _)| dir);
    match dir.rsplit('/').next() {
        Some(unit) if unit.ends_with(".service") => format!("systemctl thaw {unit}"),
        _ => format!("echo 0 > {dir}/cgroup.freeze"),
    }
}

fn has(sources: &[&Evidence], wanted: impl Fn(Source) -> bool) -> bool {
    sources.iter().any(|it| wanted(it.source))
}

/// Joins sources to the subject of a sentence.
fn join(sources: &[&Evidence]) -> String {
    let names: Vec<String> = sources.iter().map(|it| it.source.to_string()).collect();
    match &*names {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}

/// Returns a process ID that a source reports.
fn pid_of(part: Part, known: &Known<'_>) -> Option<u32> {
    let mut claims = known.iter().flat_map(|(_, it)| &it.claims);
    claims.find_map(|claim| claim.pid(part))
}

/// Returns the form of a verb that fits the number of sources.
fn verb(sources: &[&Evidence], one: &'static str, many: &'static str) -> &'static str {
    if sources.len() == 1 { one } else { many }
}

/// Compares which sources see a process of the part at all.
pub(super) fn presence(subject: Subject<'_>, part: Part, known: &Known<'_>) -> Option<Finding> {
    let groups = groups(known, |claim| claim.presence(part));
    let (here, gone) = (sources(&groups, &true)?, sources(&groups, &false)?);
    let pid = pid_of(part, known);
    let which = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    let Subject { name, manager } = subject;
    let (cause, hint) = if has(gone, |it| it == Source::Processes) {
        let file = here.iter().find(|it| it.source == Source::PidFile);
        match file.filter(|_| here.len() == 1) {
            Some(file) => (
                format!(
                    "the pid file {} is stale: no such process{which} exists",
                    file.asked
                ),
                format!("start the service, which writes a new one: mainstay start {name}"),
            ),
            None => (
                format!(
                    "{part}{which} is not running, although {} {} it",
                    join(here),
                    verb(here, "reports", "report")
                ),
                format!("restart it: mainstay restart {name}"),
            ),
        }
    } else if gone.iter().all(|it| it.source.is_cgroup()) && has(here, Source::is_kernel) {
        (
            format!("{part}{which} is not in its cgroup: another process has moved it"),
            format!("restart it, so that a stop reaches all of it: mainstay restart {name}"),
        )
    } else if has(here, Source::is_kernel) {
        (
            format!(
                "{part}{which} is running, but not according to {}",
                join(gone)
            ),
            match pid {
                _ if gone.len() == 1 && here.len() > 2 => {
                    format!("only one source differs; ask it again: {}", gone[0].asked)
                }
                Some(pid) => format!(
                    "find out who started it (ps -o ppid,lstart,args -p {pid}), end it, then start \
                     the service with {manager}: mainstay start {name}"
                ),
                None => format!("restart it: mainstay restart {name}"),
            },
        )
    } else {
        (
            format!(
                "{} {} {part} as running{which}, {} {} not",
                join(here),
                verb(here, "reports", "report"),
                join(gone),
                verb(gone, "does", "do")
            ),
            format!("see what it last did: mainstay events {name}"),
        )
    };
    Some(Finding {
        cause,
        hint: Some(hint),
        sources: names(&[&here[..], gone].concat()),
    })
}

/// Compares the process IDs.
pub(super) fn pids(subject: Subject<'_>, part: Part, known: &Known<'_>) -> Option<Finding> {
    let groups = groups(known, |claim| claim.pid(part));
    if groups.len() < 2 {
        return None;
    }
    let file = groups.iter().find_map(|(_, sources)| match &**sources {
        [file] if file.source == Source::PidFile => Some(file),
        _ => None,
    });
    let each = list(&groups, |pid| format!("pid {pid}"));
    let mut all = groups.iter().flat_map(|(_, sources)| sources);
    if let Some(file) = file.filter(|_| all.any(|it| it.source == Source::Processes)) {
        return Some(Finding {
            cause: format!("the pid file {} is stale: {part} is {each}", file.asked),
            hint: Some(format!(
                "restart the service, which writes a new one: mainstay restart {}",
                subject.name
            )),
            sources: all_names(&groups),
        });
    }
    Some(Finding {
        cause: format!("{part} is {each}"),
        hint: Some(format!(
            "two copies may be running: look at both processes, then restart the service: \
             mainstay restart {}",
            subject.name
        )),
        sources: all_names(&groups),
    })
}

/// Compares the states. Whether there is a process is compared apart.
pub(super) fn states(subject: Subject<'_>, part: Part, known: &Known<'_>) -> Option<Finding> {
    let groups = groups(known, |claim| claim.state(part));
    let count = |has: Option<bool>| {
        let states = groups.iter().map(|(state, _)| has_process(*state));
        states.filter(|it| *it == has).count()
    };
    let is_contradiction =
        count(Some(true)) > 1 || count(Some(false)) > 1 || count(None) > 0 && groups.len() > 1;
    if !is_contradiction {
        return None;
    }
    let mut cause = format!("{part} is {}", list(&groups, StateName::to_string));
    let mut hint = format!("see what it last did: mainstay events {}", subject.name);
    let paused = sources(&groups, &StateName::Paused);
    if let Some(from) = paused.and_then(|it| it.iter().find(|it| it.source.is_kernel())) {
        let others = groups
            .iter()
            .filter(|(state, _)| *state != StateName::Paused);
        let others: Vec<&Evidence> = others.flat_map(|(_, sources)| sources).copied().collect();
        let pid = pid_of(part, known)
            .map(|pid| pid.to_string())
            .unwrap_or_default();
        let (what, how) = match from.source {
            Source::Processes => ("was stopped by a signal", format!("kill -CONT {pid}")),
            _ => ("is frozen", thaw(&from.asked)),
        };
        let reports = verb(&others, "reports", "report");
        cause = format!(
            "{part} {what}, although {} {reports} another state",
            join(&others)
        );
        hint = format!("something outside of mainstay did that; to let it continue: {how}");
    }
    Some(Finding {
        cause,
        hint: Some(hint),
        sources: all_names(&groups),
    })
}

/// Checks that the process of the part is in the service's control group.
pub(super) fn members(part: Part, known: &Known<'_>) -> Option<Finding> {
    let groups = groups(known, |claim| match claim {
        Claim::Members(of, pids) if *of == part && !pids.is_empty() => Some(pids.clone()),
        _ => None,
    });
    let pids = self::groups(known, |claim| claim.pid(part));
    let outside = |(pid, _): &&(u32, Vec<&Evidence>)| {
        groups.iter().any(|(members, _)| !members.contains(pid))
    };
    let (pid, sources) = pids.iter().find(outside)?;
    let mut all = names(sources);
    all.extend(all_names(&groups));
    Some(Finding {
        cause: format!(
            "{part} (pid {pid}) is not in its cgroup: another process has moved it, or the pid \
             belongs to another program"
        ),
        hint: Some(format!("see where it is: cat /proc/{pid}/cgroup")),
        sources: all,
    })
}

/// Compares what is known about readiness with the state.
pub(super) fn readiness(subject: Subject<'_>, known: &Known<'_>) -> Option<Finding> {
    let groups = groups(known, |claim| match claim {
        Claim::Ready(ready) => Some(ready.clone()),
        _ => None,
    });
    let name = subject.name;
    let ready = sources(&groups, &Ok(()));
    let (why, missed) = groups
        .iter()
        .find_map(|(ready, sources)| Some((ready.as_ref().err()?, sources)))?;
    let running = self::groups(known, |claim| {
        claim
            .state(Part::Program)
            .filter(|it| *it == StateName::Running)
            .map(|_| ())
    });
    let is_probed = has(missed, |it| it == Source::Readiness);
    let believers = match ready {
        Some(sources) => sources,
        None if is_probed => sources(&running, &())?,
        None => return None,
    };
    let (cause, hint) = if is_probed {
        (
            format!(
                "its readiness probe fails, although {} {} it as ready: {why}",
                join(believers),
                verb(believers, "reports", "report")
            ),
            format!("see what it writes: mainstay logs {name} -n 50"),
        )
    } else {
        (
            format!(
                "{} {}, although {} {} it as not ready: {why}",
                join(believers),
                verb(believers, "passes", "pass"),
                join(missed),
                verb(missed, "reports", "report")
            ),
            format!("see what it waits for: mainstay status {name}"),
        )
    };
    Some(Finding {
        cause,
        hint: Some(hint),
        sources: names(&[&believers[..], missed].concat()),
    })
}

/// Compares the desired state with the actual one.
pub(super) fn wanted(subject: Subject<'_>, known: &Known<'_>) -> Option<Finding> {
    let wanted = groups(known, |claim| match claim {
        Claim::Wanted(is_wanted) => Some(*is_wanted),
        _ => None,
    });
    let name = subject.name;
    if let (Some(up), Some(down)) = (sources(&wanted, &true), sources(&wanted, &false)) {
        return Some(Finding {
            cause: format!(
                "it should run according to {}, and be stopped according to {}",
                join(up),
                join(down)
            ),
            hint: Some(format!(
                "settle it: mainstay start {name}, or mainstay stop {name}"
            )),
            sources: names(&[&up[..], down].concat()),
        });
    }
    let settled = groups(known, |claim| {
        let state = claim.state(Part::Program)?;
        match state {
            StateName::Stopped => Some(false),
            StateName::Running | StateName::Paused => Some(true),
            _ => None,
        }
    });
    if settled.len() != 1 {
        return None;
    }
    let (is_up, seen) = settled.first()?;
    let wishers = sources(&wanted, &!is_up)?;
    let (cause, hint) = if *is_up {
        (
            "it is running, although it should be stopped".to_owned(),
            format!("stop it again: mainstay stop {name}; to keep it: mainstay start {name}"),
        )
    } else {
        (
            "it is not running, although it should be".to_owned(),
            format!("see why: mainstay status {name}; then start it: mainstay start {name}"),
        )
    };
    Some(Finding {
        cause,
        hint: Some(hint),
        sources: names(&[&wishers[..], seen].concat()),
    })
}
