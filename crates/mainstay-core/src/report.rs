//! The shapes of what is reported: `status --json` and the control protocol (docs/control.md).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::{Exit, HumanSeconds, StateName, Style, TrialPhase, View};
use crate::registry::TextDigest;

/// The document of `status --json` and `list --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Who supervises them; not said where only single services were asked for something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<SupervisorReport>,
    /// One entry a service, in the order of the manifest.
    pub services: Vec<ServiceReport>,
}

/// What is known of a supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorReport {
    /// Its process id.
    pub pid: u32,
    /// Whether it lives; services may outlive it.
    pub alive: bool,
    /// Why a successor could not, or cannot, be told of all that runs, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What is known of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: StateName,
    /// Its main process.
    pub pid: Option<u32>,
    /// Whether its readiness was seen in this run.
    pub ready: bool,
    /// When it entered this state: RFC 3339, UTC; `None` where nobody knows.
    pub since: Option<String>,
    /// Seconds since then.
    pub since_seconds: Option<u64>,
    /// How often it was started again by itself.
    pub restarts: u64,
    /// How its last run ended.
    pub last_exit: Option<LastExit>,
    /// The service manager: `embedded` here.
    pub manager: String,
    /// `embedded`, `hosted` or `direct`.
    pub mode: String,
    /// The version of its definition in the registry, once it has one.
    pub version: Option<u64>,
    /// The entity tag of that version.
    pub etag: Option<String>,
    /// Of the definition that it runs by, or would be started by: SHA-256 of the manifest, its language and its base directory. Not said where
    /// no supervisor of ours knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition_digest: Option<TextDigest>,
    /// What is not as it was registered, a sentence each; not said where nobody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Vec<String>>,
    /// Whether it was restarted more often than its limit allows, and has not been ready for
    /// `reset_after` since.
    #[serde(default)]
    pub crash_looping: bool,
    /// When a service that is backing off is started again: RFC 3339, UTC.
    #[serde(default)]
    pub next_try: Option<String>,
    /// Seconds until then.
    #[serde(default)]
    pub next_try_seconds: Option<u64>,
    /// Why it is halted, waits or backs off, or what it says of itself.
    pub detail: Option<String>,
    /// What is wrong with its log, if something is.
    pub log_problem: Option<String>,
    /// Why what is wanted of it will not outlast its supervisor, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_problem: Option<String>,
    /// Processor time of its whole tree, milliseconds, where the system tells.
    pub cpu_ms: Option<u64>,
    /// Resident memory of its whole tree, bytes, where the system tells.
    pub memory_bytes: Option<u64>,
    /// Running services that need this one, although it is stopped or stopping.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needed_by: Vec<String>,
    /// The trial of a new definition, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateReport>,
}

/// What is known of the trial of a new definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateReport {
    /// How far it is.
    pub phase: TrialPhase,
    /// Whether the old run goes on meanwhile.
    pub style: Style,
    /// The new definition's state.
    pub state: StateName,
    /// Its main process.
    pub pid: Option<u32>,
}

/// How a run ended: one of the two, or neither where nobody could tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// The exit code.
    pub code: Option<i32>,
    /// The number of the signal that killed it.
    pub signal: Option<i32>,
}

impl From<Exit> for LastExit {
    fn from(exit: Exit) -> Self {
        let (code, signal) = match exit {
            Exit::Code(code) => (Some(code), None),
            Exit::Signal(signal) => (None, Some(signal)),
            Exit::Unknown => (None, None),
        };
        Self { code, signal }
    }
}

impl fmt::Display for LastExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exit = match (self.code, self.signal) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        };
        exit.fmt(f)
    }
}

impl ServiceReport {
    /// A stopped service of which nothing more is known.
    pub fn stopped(name: &str, manager: &str, mode: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: StateName::Stopped,
            pid: None,
            ready: false,
            since: None,
            since_seconds: None,
            restarts: 0,
            last_exit: None,
            manager: manager.to_owned(),
            mode: mode.to_owned(),
            version: None,
            etag: None,
            definition_digest: None,
            drift: None,
            crash_looping: false,
            next_try: None,
            next_try_seconds: None,
            detail: None,
            log_problem: None,
            state_problem: None,
            cpu_ms: None,
            memory_bytes: None,
            needed_by: Vec::new(),
            update: None,
        }
    }

    /// The part that the engine knows; `since` is the wall clock's time of `view.since`, `since_seconds` how long ago that was.
    pub fn new(name: &str, view: View, since: String, since_seconds: u64) -> Self {
        Self {
            state: view.state,
            pid: view.pid,
            ready: view.ready,
            since: Some(since),
            since_seconds: Some(since_seconds),
            restarts: view.restarts,
            last_exit: view.last_exit.map(LastExit::from),
            crash_looping: view.crash_looping,
            detail: view.detail,
            ..Self::stopped(name, "embedded", "embedded")
        }
    }

    /// `it is halted: crash-looping`, or `it is waiting for db`: the state and its reason, if any, without a word twice.
    pub fn it_is(&self, why: Option<&str>) -> String {
        let state = self.state;
        match why {
            None => format!("it is {state}"),
            Some(why) if why.starts_with(&format!("{state} ")) => format!("it is {why}"),
            Some(why) => format!("it is {state}: {why}"),
        }
    }

    /// What the state alone does not say, on one line: why, the last exit, the next try.
    pub fn remark(&self) -> Option<String> {
        let mut parts = Vec::new();
        if self.crash_looping {
            parts.push("crash-looping".to_owned());
        }
        parts.extend(self.detail.clone());
        let is_down = matches!(self.state, StateName::Halted | StateName::BackingOff);
        if let Some(exit) = self.last_exit.filter(|_| is_down) {
            let exit = exit.to_string();
            let is_said = parts.iter().any(|part| part.contains(&exit));
            parts.extend((!is_said).then(|| format!("last exit: {exit}")));
        }
        let next_try = self.next_try_seconds.map(HumanSeconds);
        parts.extend(next_try.map(|pause| format!("next start in {pause}")));
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_and_its_reason_say_no_word_twice() {
        for (state, why, expected) in [
            (StateName::Stopped, None, "it is stopped"),
            (
                StateName::Waiting,
                Some("waiting for db"),
                "it is waiting for db",
            ),
            (
                StateName::Waiting,
                Some("waiting-room is shut"),
                "it is waiting: waiting-room is shut",
            ),
            (
                StateName::Halted,
                Some("exit code 1"),
                "it is halted: exit code 1",
            ),
        ] {
            let mut service = ServiceReport::stopped("a", "embedded", "hosted");
            service.state = state;
            assert_eq!(service.it_is(why), expected);
        }
    }
}
