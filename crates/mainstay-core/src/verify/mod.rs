//! Cross-checks of a service: the evidence from independent sources, and the verdict on it
//! (docs/verify.md).
//!
//! Each source makes claims: whether a process exists, which one, in which state. Two sources that
//! contradict each other are a finding, whichever of them is right. What a source cannot say is
//! unknown, and never counts as "stopped".

mod deviation;
mod rules;
#[cfg(test)]
mod tests;
pub mod words;

use std::fmt;

use serde::Serialize;

pub use self::deviation::Deviation;
use self::rules::{Known, members, pids, presence, readiness, state, states, wanted};
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
