//! Report types of `status --json` and the control protocol (docs/control.md).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::{Blocker, Exit, HumanSeconds, StateName, Style, TrialPhase, View};
use crate::events::LastEvent;
use crate::registry::TextDigest;
use crate::snapshot::SnapshotId;

/// The document of `status --json` and `list --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The supervisor of the services; absent in reports about individual services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<SupervisorReport>,
    /// One entry per service, in the order of the manifest.
    pub services: Vec<ServiceReport>,
}

/// The state of a supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorReport {
    /// The process ID.
    pub pid: u32,
    /// Set if the process is alive. Services may outlive their supervisor.
    pub alive: bool,
    /// The reason, if any, why a successor cannot recover all running services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The remark that it runs a program file which has been replaced or deleted, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
}

/// The state of one service. The default is a stopped one about which nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// The name of the service.
    pub name: String,
    /// The current state.
    pub state: StateName,
    /// The process ID of the main process.
    pub pid: Option<u32>,
    /// Set if the service became ready in this run.
    pub ready: bool,
    /// The time at which the service entered this state (RFC 3339, UTC); `None` if unknown.
    pub since: Option<String>,
    /// The seconds since then.
    pub since_seconds: Option<u64>,
    /// The number of automatic restarts.
    pub restarts: u64,
    /// The outcome of the last run.
    pub last_exit: Option<LastExit>,
    /// The snapshot that replaced a state which failed to load (exit code 201), until the service
    /// has been ready for `reset_after` or an operator starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<SnapshotId>,
    /// Set if a stopped service has completed: it was ready and ended cleanly by itself. Absent if
    /// it is not stopped, or if this is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<bool>,
    /// The service manager; `embedded` for a service of mainstay's own supervisor.
    pub manager: String,
    /// `embedded`, `hosted` or `direct`.
    pub mode: String,
    /// The version of the definition in the registry, if it has one.
    pub version: Option<u64>,
    /// The entity tag of that version.
    pub etag: Option<String>,
    /// The SHA-256 of the definition that the service runs or would be started with: its manifest,
    /// the manifest's format and its base directory. Absent unless a mainstay supervisor reports
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition_digest: Option<TextDigest>,
    /// The deviations from the registered definition, one sentence each; absent if not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Vec<String>>,
    /// The remarks that the service's program or its host runs a program file which has been
    /// replaced or deleted, one sentence each; empty if that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<String>,
    /// Set if the service exceeded its restart limit and has not been ready for `reset_after`
    /// since.
    #[serde(default)]
    pub crash_looping: bool,
    /// The time of the next start of a service that is backing off (RFC 3339, UTC).
    #[serde(default)]
    pub next_try: Option<String>,
    /// The seconds until then.
    #[serde(default)]
    pub next_try_seconds: Option<u64>,
    /// The reason why the service is halted, waiting or backing off, or its own status text.
    pub detail: Option<String>,
    /// While the service is waiting: the need, direct or indirect, that will not become ready soon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocker: Option<Blocker>,
    /// The stored event that explains why the service does not run, if no supervisor reports its
    /// state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event: Option<LastEvent>,
    /// The exit code of the command that starts the service, if the last start failed for a reason
    /// that has a code of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_code: Option<u8>,
    /// The problem with the service's log, if any.
    pub log_problem: Option<String>,
    /// The reason, if any, why the service's desired state will not survive its supervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_problem: Option<String>,
    /// The CPU time of the whole process tree in milliseconds, if the system reports it.
    pub cpu_ms: Option<u64>,
    /// The time since the start of the current run, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_ms: Option<u64>,
    /// The resident memory of the whole process tree in bytes, if the system reports it.
    pub memory_bytes: Option<u64>,
    /// The running services that need this one, although it is stopped or stopping.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needed_by: Vec<String>,
    /// The trial of a new definition, while one is in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateReport>,
}

/// The state of the trial of a new definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateReport {
    /// The phase of the trial.
    pub phase: TrialPhase,
    /// The style of the trial: a restart, or an overlap with the old run.
    pub style: Style,
    /// The state of the new definition.
    pub state: StateName,
    /// The process ID of its main process.
    pub pid: Option<u32>,
}

/// The outcome of a run: an exit code, a signal, or neither if the outcome is unknown.
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
    /// Returns the report of a stopped service of mainstay's own supervisor, about which nothing
    /// else is known.
    pub fn embedded(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            manager: "embedded".to_owned(),
            mode: "embedded".to_owned(),
            ..Self::default()
        }
    }

    /// Creates the part of a report that comes from the engine. `since` is the wall-clock time of
    /// `view.since`, and `since_seconds` the time elapsed since then.
    pub fn new(name: &str, view: View, since: String, since_seconds: u64) -> Self {
        Self {
            state: view.state,
            pid: view.pid,
            ready: view.ready,
            since: Some(since),
            since_seconds: Some(since_seconds),
            restarts: view.restarts,
            last_exit: view.last_exit.map(LastExit::from),
            restored: view.restored,
            crash_looping: view.crash_looping,
            detail: view.detail,
            blocker: view.blocker,
            ..Self::embedded(name)
        }
    }

    /// Formats the state and its reason, if any, without repeating a word: `it is halted:
    /// crash-looping`, or `it is waiting for db`.
    pub fn it_is(&self, why: Option<&str>) -> String {
        let state = self.state;
        match why {
            None => format!("it {}", state.predicate()),
            Some(why) if why.starts_with(&format!("{state} ")) => format!("it is {why}"),
            Some(why) => format!("it {}: {why}", state.predicate()),
        }
    }

    /// Returns the details of the state on one line: its reason, the last exit and the next start.
    pub fn remark(&self) -> Option<String> {
        let mut parts = Vec::new();
        if self.crash_looping {
            parts.push("crash-looping".to_owned());
        }
        parts.extend(self.detail.clone());
        let is_down = matches!(self.state, StateName::Halted | StateName::BackingOff);
        if let Some(exit) = self.last_exit.filter(|_| is_down) {
            let exit = exit.to_string();
            let code = exit.split(" (").next().unwrap_or(&exit);
            let is_said = parts.iter().any(|part| part.contains(code));
            parts.extend((!is_said).then(|| format!("last exit: {exit}")));
        }
        if let Some(event) = &self.last_event {
            let is_said = parts.iter().any(|part| part.contains(event.reason()));
            parts.extend((!is_said).then(|| event.to_string()));
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
    fn a_remark_has_the_last_event_unless_it_says_the_same() {
        let mut service = ServiceReport::embedded("a");
        service.last_event = Some(LastEvent {
            time: "2026-11-29T03:12:04.500Z".to_owned(),
            event: "halted".to_owned(),
            message: "halted: exit code 3".to_owned(),
            is_unseen: false,
        });
        let event = "halted: exit code 3 (2026-11-29T03:12:04.500Z)";
        assert_eq!(service.remark().as_deref(), Some(event));
        service.detail = Some("its manager is not running".to_owned());
        let both = format!("its manager is not running; {event}");
        assert_eq!(service.remark(), Some(both));
        service.detail = Some("exit code 3".to_owned());
        assert_eq!(service.remark().as_deref(), Some("exit code 3"));
    }

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
            (StateName::StartPending, None, "it is starting"),
            (
                StateName::BackingOff,
                Some("exit code 1"),
                "it failed and will be restarted: exit code 1",
            ),
        ] {
            let mut service = ServiceReport::embedded("a");
            service.state = state;
            assert_eq!(service.it_is(why), expected);
        }
    }
}
