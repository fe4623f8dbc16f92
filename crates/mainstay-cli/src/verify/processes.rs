//! The process table, on which no manager or supervisor has an influence.

use std::fs;

use mainstay_core::engine::StateName;
use mainstay_core::verify::{Claim, Deviation, Evidence, Observation, Part, Source};
use mainstay_sys::{self as sys, Condition, Identity, Members};

use super::{Defined, Target, claims, known, unknown};

/// Looks up every process that another source has reported. If none has reported the program, the
/// table is searched for its command.
pub(super) fn ask(
    target: &Target,
    defined: Option<&Defined>,
    tree: Option<&Identity>,
    evidence: &[Evidence],
) -> Evidence {
    let (mut words, mut claims, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
    for part in [Part::Host, Part::Program] {
        let pids = reported(part, evidence);
        let mut is_there = false;
        for pid in &pids {
            let mut condition = sys::condition(*pid);
            if part == Part::Program && tree.is_some_and(|it| it.pid == *pid && !sys::lives(it)) {
                // Its number was given to another process.
                condition = Condition::Absent;
            }
            words.push(describe(*pid, condition));
            match condition {
                Condition::Present | Condition::Suspended => {
                    is_there = true;
                    claims.push(Claim::Process(part, Some(*pid)));
                }
                Condition::Absent | Condition::Zombie => {}
                Condition::Unknown => unseen.push(*pid),
            }
            if condition == Condition::Suspended && part == Part::Program {
                claims.push(Claim::State(part, StateName::Paused));
            }
        }
        if !is_there && !pids.is_empty() && unseen.is_empty() {
            claims.push(Claim::NoProcess(part));
        }
        if pids.is_empty() && part == Part::Program {
            match strays(target, defined) {
                Some(strays) if strays.is_empty() => {
                    claims.push(Claim::NoProcess(part));
                    words.push("no process runs its command".to_owned());
                }
                Some(strays) => {
                    words.extend(strays.iter().map(|pid| describe(*pid, Condition::Present)));
                    let strays = strays.into_iter().map(Deviation::Stray);
                    claims.extend(strays.map(Claim::Deviation));
                }
                None => {}
            }
        }
    }
    let asked = if cfg!(target_os = "linux") {
        "/proc"
    } else {
        "the process table"
    };
    if let [pid, ..] = *unseen {
        let why = format!("this system does not show whether pid {pid} exists");
        return unknown(Source::Processes, asked, why);
    }
    if claims.is_empty() {
        let why = "no source reports a process ID, and the command of the service is not known";
        return unknown(Source::Processes, asked, why);
    }
    known(
        Source::Processes,
        asked,
        Observation::new(words.join(", ")).claim(claims),
    )
}

/// Returns the process IDs that the other sources report.
fn reported(part: Part, evidence: &[Evidence]) -> Vec<u32> {
    let pids = claims(evidence).filter_map(|claim| match claim {
        Claim::Process(of, pid) if *of == part => *pid,
        _ => None,
    });
    let mut pids: Vec<u32> = pids.collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn describe(pid: u32, condition: Condition) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = match name.trim_end() {
        "" => String::new(),
        name => format!(" ({})", mainstay_core::terminal::escape(name)),
    };
    match condition {
        Condition::Present => format!("pid {pid}{name} exists"),
        Condition::Suspended => format!("pid {pid}{name} is stopped by a signal"),
        Condition::Zombie => format!("pid {pid}{name} has ended (zombie)"),
        Condition::Absent if name.is_empty() => format!("pid {pid} does not exist"),
        Condition::Absent => format!("pid {pid} is now another process{name}"),
        Condition::Unknown => format!("pid {pid} cannot be seen"),
    }
}

/// Returns the processes that run exactly the command of a service which has no process, unless
/// they belong to another service. `None` if that cannot be determined.
#[cfg(target_os = "linux")]
fn strays(target: &Target, defined: Option<&Defined>) -> Option<Vec<u32>> {
    let spec = &defined?.spec;
    let command = spec.command();
    let program = command.program().as_bytes();
    let arguments = command.args().iter().map(|word| word.as_bytes());
    let arguments: Vec<&[u8]> = arguments.collect();
    let unit = target
        .installed()
        .map(|it| format!("/{}.service", it.manager_name()));
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_same = |pid: &u32| {
        let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = text.split(|byte| *byte == 0).collect();
        let words = words.strip_suffix(&[&b""[..]]).unwrap_or(&words);
        // The first word may be the path that was found for it.
        let as_path = [b"/", program].concat();
        let is_program = |word: &&[u8]| *word == program || word.ends_with(&as_path);
        words.first().is_some_and(is_program) && words.get(1..) == Some(&arguments)
    };
    let belongs_elsewhere = |pid: &u32| {
        let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let path = group
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap_or_default();
        let is_ours = |it: &String| path.ends_with(&**it) || path.contains(&format!("{it}/"));
        let is_unit = path.contains(".service") && !unit.as_ref().is_some_and(is_ours);
        is_unit || supervised_by_us(*pid)
    };
    let found = pids.filter(is_same).filter(|pid| !belongs_elsewhere(pid));
    Some(found.collect())
}

/// Returns `None`: not supported on this system.
#[cfg(not(target_os = "linux"))]
fn strays(_target: &Target, _defined: Option<&Defined>) -> Option<Vec<u32>> {
    None
}

/// Returns whether a supervisor of mainstay has started the process: in a cgroup of its own, or
/// with a mark in its environment. It then is a process of another service, or will be adopted.
#[cfg(target_os = "linux")]
fn supervised_by_us(pid: u32) -> bool {
    let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0);
    let prefix = format!("{}=", sys::INSTANCE);
    group.contains("/mainstay-") || variables.any(|it| it.starts_with(prefix.as_bytes()))
}

/// Returns the criteria for the processes of the service, if they are known.
pub(super) fn members(target: &Target, tree: Option<&Identity>) -> Option<Members> {
    let recorded = tree.and_then(Members::recorded);
    #[cfg(target_os = "linux")]
    let recorded = recorded.or_else(|| {
        let dir = super::cgroup::unit_dir(target.installed()?)?;
        Members::recorded(&Identity {
            tree: format!("cgroup {}", dir.display()),
            ..sys::own_identity().ok()?
        })
    });
    #[cfg(not(target_os = "linux"))]
    let _ = target;
    recorded
}
