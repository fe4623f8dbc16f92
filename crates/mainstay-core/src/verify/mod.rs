//! Cross-checks of a service: the evidence from independent sources, and the verdict on it
//! (docs/verify.md).
//!
//! Each source makes claims: whether a process exists, which one, in which state. Two sources that
//! contradict each other are a finding, whichever of them is right. What a source cannot say is
//! unknown, and never counts as "stopped".

mod deviation;
#[cfg(test)]
mod tests;
pub mod words;

use std::fmt;

use serde::Serialize;

pub use self::deviation::Deviation;
use crate::engine::StateName;

/// The evidence from one source.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The source.
    pub source: Source,
    /// The question, in a form that an operator can repeat: a command, a path or an address.
    pub asked: String,
    /// The answer, or the reason why there is none.
    pub answer: Result<Observation, String>,
}

/// The answer of a source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// The answer in a few words.
    pub words: String,
    /// More about it.
    pub detail: Option<String>,
    /// The meaning of the answer.
    pub claims: Vec<Claim>,
}

impl Observation {
    /// Creates an observation without claims.
    pub fn new(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            ..Self::default()
        }
    }

    /// Adds claims.
    pub fn claim(mut self, claims: impl IntoIterator<Item = Claim>) -> Self {
        self.claims.extend(claims);
        self
    }
}

/// A source of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The supervisor, over its control socket.
    Supervisor,
    /// The file in which a supervisor records its services.
    Ledger,
    /// The service manager, as the library queries it.
    Manager,
    /// The service manager, over another interface or another tool.
    Tool(&'static str),
    /// A file that contains a process ID.
    PidFile,
    /// The control group in which a supervisor runs the service.
    Cgroup,
    /// The control group in which the service manager runs the unit.
    UnitCgroup,
    /// The process table.
    Processes,
    /// The table of listening sockets.
    Sockets,
    /// The readiness probe.
    Readiness,
    /// The log of the service manager.
    Journal,
    /// The stored events of the service.
    Events,
    /// The registry of definitions.
    Registry,
    /// Another registered part of the installation: the manifest, unit files, the program.
    Registered(&'static str),
}

impl Source {
    /// Returns whether the answer comes from the kernel, which knows the processes themselves.
    fn is_kernel(self) -> bool {
        matches!(
            self,
            Self::Processes | Self::Cgroup | Self::UnitCgroup | Self::Sockets
        )
    }

    fn is_cgroup(self) -> bool {
        matches!(self, Self::Cgroup | Self::UnitCgroup)
    }

    /// Returns the name, as documents contain it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Ledger => "ledger",
            Self::Manager => "manager",
            Self::Tool(name) | Self::Registered(name) => name,
            Self::PidFile => "pid file",
            Self::Cgroup => "cgroup",
            Self::UnitCgroup => "unit cgroup",
            Self::Processes => "processes",
            Self::Sockets => "sockets",
            Self::Readiness => "readiness",
            Self::Journal => "journal",
            Self::Events => "events",
            Self::Registry => "registry",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Supervisor => f.write_str("its control socket"),
            Self::Ledger | Self::Manager | Self::Journal => write!(f, "the {}", self.name()),
            Self::Processes => f.write_str("the process table"),
            Self::Readiness => f.write_str("the readiness probe"),
            Self::Events => f.write_str("the stored events"),
            Self::PidFile => f.write_str("the pid file"),
            Self::Cgroup => f.write_str("its cgroup"),
            Self::UnitCgroup => f.write_str("the unit's cgroup"),
            _ => f.write_str(self.name()),
        }
    }
}

/// A process of a service that several sources can report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The process that supervises the program: a host, or a supervisor of several services.
    Host,
    /// The main process of the program.
    Program,
}

impl Part {
    const ALL: [Self; 2] = [Self::Host, Self::Program];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "its supervisor",
            Self::Program => "its program",
        })
    }
}

/// One claim of a source.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// The part is in this state.
    State(Part, StateName),
    /// The part is a process; its ID, if the source reports it.
    Process(Part, Option<u32>),
    /// There is no such process.
    NoProcess(Part),
    /// The processes among which the part must be.
    Members(Part, Vec<u32>),
    /// The service is ready, or is not, for the given reason.
    Ready(Result<(), String>),
    /// The service is to run, or to be down.
    Wanted(bool),
    /// A deviation that needs no second source.
    Deviation(Deviation),
}

impl Claim {
    /// Returns the claims about the part that a service manager runs. While a host is down, its
    /// program is down, too.
    pub fn of_unit(part: Part, state: StateName, pid: Option<u32>) -> impl Iterator<Item = Self> {
        let has_ended = state == StateName::Stopped && part == Part::Host;
        let program = has_ended.then_some(Self::NoProcess(Part::Program));
        let pid = pid.map(|pid| Self::Process(part, Some(pid)));
        [Some(Self::State(part, state)), pid, program]
            .into_iter()
            .flatten()
    }

    /// Returns whether the claim means that the part has a process; `None` if it does not say.
    fn presence(&self, part: Part) -> Option<bool> {
        match self {
            Self::Process(of, _) if *of == part => Some(true),
            Self::NoProcess(of) if *of == part => Some(false),
            Self::State(of, state) if *of == part => has_process(*state),
            _ => None,
        }
    }

    fn pid(&self, part: Part) -> Option<u32> {
        match self {
            Self::Process(of, pid) if *of == part => *pid,
            _ => None,
        }
    }

    fn state(&self, part: Part) -> Option<StateName> {
        match self {
            Self::State(of, state) if *of == part && *state != StateName::Unknown => Some(*state),
            _ => None,
        }
    }
}

/// Returns whether a service in this state has a process; `None` if it may have one.
fn has_process(state: StateName) -> Option<bool> {
    use StateName::{
        BackingOff, ContinuePending, Halted, PausePending, Paused, Running, StartPending,
        StopPending, Stopped, Unknown, Waiting,
    };
    match state {
        Running | Paused | PausePending | ContinuePending => Some(true),
        Stopped | Halted | Waiting | BackingOff => Some(false),
        StartPending | StopPending | Unknown => None,
    }
}

/// The result of a cross-check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All known sources agree, and at least two say whether the service runs.
    Agree,
    /// Sources contradict each other, or the service is not as it should be.
    Disagree,
    /// Too few sources could be queried.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agree => "agree",
            Self::Disagree => "disagree",
            Self::Unknown => "unknown",
        })
    }
}

/// One reason why the evidence is not consistent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The contradiction and its likely cause, in one sentence.
    pub cause: String,
    /// The remedy, for an operator.
    pub hint: Option<String>,
    /// The names of the sources that show it.
    pub sources: Vec<&'static str>,
}

/// The verdict, with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The state that no source contradicts; `None` if the sources do not agree on one.
    pub state: Option<StateName>,
    /// The reasons, in order of importance; none if the sources agree.
    pub findings: Vec<Finding>,
}

/// The service that a judgement is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The name of the service.
    pub name: &'a str,
    /// The name of its service manager.
    pub manager: &'a str,
}

/// Compares the evidence.
pub fn judge(subject: Subject<'_>, evidence: &[Evidence]) -> Judgement {
    let known: Known<'_> = evidence
        .iter()
        .filter_map(|it| Some((it, it.answer.as_ref().ok()?)))
        .collect();
    let mut findings = Vec::new();
    // A killed supervisor leaves its program, whatever the manager concludes.
    let is_orphan = |claim: &Claim| {
        matches!(
            claim,
            Claim::Deviation(Deviation::Orphaned { is_alive: true, .. })
        )
    };
    let is_orphaned = known.iter().any(|(_, it)| it.claims.iter().any(is_orphan));
    for part in Part::ALL {
        if !is_orphaned || part == Part::Host {
            findings.extend(presence(subject, part, &known));
        }
        findings.extend(pids(subject, part, &known));
        findings.extend(states(subject, part, &known));
        findings.extend(members(part, &known));
    }
    findings.extend(readiness(subject, &known));
    findings.extend(wanted(subject, &known));
    let deviations = known.iter().flat_map(|(from, observation)| {
        let all = observation.claims.iter();
        all.filter_map(|claim| match claim {
            Claim::Deviation(deviation) => Some(Finding {
                cause: deviation.to_string(),
                hint: deviation.hint(subject),
                sources: vec![from.source.name()],
            }),
            _ => None,
        })
    });
    findings.extend(deviations);
    let state = state(&known);
    if !findings.is_empty() {
        return Judgement {
            verdict: Verdict::Disagree,
            state,
            findings,
        };
    }
    let speaks = |claim: &Claim| {
        claim.presence(Part::Program).is_some() || claim.state(Part::Program).is_some()
    };
    let speakers = known.iter().filter(|(_, it)| it.claims.iter().any(speaks));
    let speakers: Vec<&str> = speakers.map(|(from, _)| from.source.name()).collect();
    if speakers.len() > 1 {
        return Judgement {
            verdict: Verdict::Agree,
            state,
            findings,
        };
    }
    let cause = match *speakers {
        [one] => format!("only one source reports whether it runs ({one}), so nothing confirms it"),
        _ => "no source reports whether it runs".to_owned(),
    };
    let finding = Finding {
        cause,
        hint: Some("run it as root, or see above why the other sources are unknown".to_owned()),
        sources: speakers,
    };
    Judgement {
        verdict: Verdict::Unknown,
        state,
        findings: vec![finding],
    }
}

/// Returns the state of the program that the sources agree on.
fn state(known: &Known<'_>) -> Option<StateName> {
    let states = |part| {
        let states = groups(known, |claim| claim.state(part).map(StateName::as_str));
        let presence = groups(known, |claim| claim.presence(part));
        let is_one = states.len() == 1 && presence.len() < 2;
        let name = states
            .into_iter()
            .map(|(it, _)| it)
            .next()
            .filter(|_| is_one)?;
        StateName::ALL.into_iter().find(|it| it.as_str() == name)
    };
    let presence = groups(known, |claim| claim.presence(Part::Program));
    let is_down = matches!(*presence, [(false, _)]);
    states(Part::Program).or_else(|| is_down.then_some(StateName::Stopped))
}

/// The sources that answered.
type Known<'a> = Vec<(&'a Evidence, &'a Observation)>;

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
fn thaw(file: &str) -> String {
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
fn presence(subject: Subject<'_>, part: Part, known: &Known<'_>) -> Option<Finding> {
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
                    "find out who started it (ps -o ppid,lstart,args -p {pid}), end it, then start the service with {manager}: mainstay start {name}"
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
fn pids(subject: Subject<'_>, part: Part, known: &Known<'_>) -> Option<Finding> {
    let groups = groups(known, |claim| claim.pid(part));
    if groups.len() < 2 {
        return None;
    }
    let is_table = |it: &&Evidence| it.source == Source::Processes;
    let file = groups.iter().find_map(|(_, sources)| match &**sources {
        [file] if file.source == Source::PidFile => Some(file),
        _ => None,
    });
    let each = list(&groups, |pid| format!("pid {pid}"));
    let mut all = groups.iter().flat_map(|(_, sources)| sources);
    if let Some(file) = file.filter(|_| all.any(|it| is_table(&it))) {
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
fn states(subject: Subject<'_>, part: Part, known: &Known<'_>) -> Option<Finding> {
    let groups = groups(known, |claim| {
        let state = claim.state(part)?;
        Some((has_process(state), state.as_str()))
    });
    let count = |has: Option<bool>| groups.iter().filter(|((it, _), _)| *it == has).count();
    let pending = count(None);
    let is_contradiction =
        count(Some(true)) > 1 || count(Some(false)) > 1 || pending > 0 && groups.len() > 1;
    if !is_contradiction {
        return None;
    }
    let mut cause = format!(
        "{part} is {}",
        list(&groups, |(_, state)| (*state).to_owned())
    );
    let mut hint = format!("see what it last did: mainstay events {}", subject.name);
    let paused = sources(&groups, &(Some(true), StateName::Paused.as_str()));
    if let Some(from) = paused.and_then(|it| it.iter().find(|it| it.source.is_kernel())) {
        let others = groups.iter().filter(|((_, state), _)| *state != "paused");
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
fn members(part: Part, known: &Known<'_>) -> Option<Finding> {
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
fn readiness(subject: Subject<'_>, known: &Known<'_>) -> Option<Finding> {
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
fn wanted(subject: Subject<'_>, known: &Known<'_>) -> Option<Finding> {
    let wanted = groups(known, |claim| match claim {
        Claim::Wanted(is_wanted) => Some(*is_wanted),
        _ => None,
    });
    let name = subject.name;
    if let (Some(up), Some(down)) = (sources(&wanted, &true), sources(&wanted, &false)) {
        return Some(Finding {
            cause: format!(
                "it is to run according to {}, and to be down according to {}",
                join(up),
                join(down)
            ),
            hint: Some(format!(
                "say which: mainstay start {name}, or mainstay stop {name}"
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
            "it is running, although it is to be down".to_owned(),
            format!("stop it again: mainstay stop {name}; to keep it: mainstay start {name}"),
        )
    } else {
        (
            "it is not running, although it is to run".to_owned(),
            format!("see why: mainstay status {name}; then start it: mainstay start {name}"),
        )
    };
    Some(Finding {
        cause,
        hint: Some(hint),
        sources: names(&[&wishers[..], seen].concat()),
    })
}
