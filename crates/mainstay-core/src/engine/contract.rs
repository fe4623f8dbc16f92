//! The exit-code contract: the meaning of an exit and the action that follows (docs/exit-codes.md).

use std::time::Duration;
use std::{fmt, io};

use serde::{Deserialize, Serialize};

use crate::spec::{CodeAction, Policy, Recovery};
use crate::windows::status;

/// The exit status of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// The process returned this code: 0–255 on Unix, any 32-bit value on Windows.
    Code(i32),
    /// The process was killed by this signal (Unix).
    Signal(i32),
    /// The process is gone and its status cannot be determined (an adopted process).
    Unknown,
}

impl Exit {
    /// Returns the code as the contract defines it: a signal `n` counts as `128 + n`, as in shells.
    pub fn contract_code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(signal) => signal.checked_add(128),
            Self::Unknown => None,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => match status::name_of(code) {
                Some(name) => write!(f, "exit code {code:#X} ({name})"),
                None => match term(code) {
                    Some(term) => write!(f, "exit code {code} ({term})"),
                    None => write!(f, "exit code {code}"),
                },
            },
            Self::Signal(signal) => write!(f, "killed by {}", SignalName(signal)),
            Self::Unknown => f.write_str("exit code unknown"),
        }
    }
}

/// Returns the term for an exit code by which a program asks for an action of its own.
pub(crate) fn term(code: i32) -> Option<&'static str> {
    match code {
        201 => Some("state failed to load"),
        202 => Some("dependency unavailable"),
        _ => None,
    }
}

/// A signal as text: `SIGTERM`, or `signal 40`.
pub(crate) struct SignalName(pub(crate) i32);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match signal_name(self.0) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// Returns the name of a signal: those with the same number on every Unix, and those on which
/// Linux, macOS and the BSDs agree.
pub(crate) fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        5 => "TRAP",
        6 => "ABRT",
        8 => "FPE",
        9 => "KILL",
        11 => "SEGV",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        _ => return None,
    })
}

/// The reason why a program could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// The failure is transient: another attempt may succeed.
    Transient(String),
    /// The failure is transient: the machine lacked processes, descriptors or memory. This is no
    /// evidence about the program.
    Lacking(String),
    /// The failure is transient: the program, its working directory or its `env_file` is missing.
    Missing(String),
    /// The failure is permanent: every attempt fails until the program, its manifest or the machine
    /// changes.
    Permanent(String),
}

impl StartFailure {
    /// Returns whether a part of the system is missing.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_))
    }

    /// Returns the failure of a start whose operation on a path failed. What does not exist may be
    /// created later.
    pub fn of_path(why: String, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing(why),
            _ => Self::Transient(why),
        }
    }
}

impl From<String> for StartFailure {
    /// Treats a failure of unknown duration as transient.
    fn from(why: String) -> Self {
        Self::Transient(why)
    }
}

impl From<&str> for StartFailure {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Transient(why) | Self::Lacking(why) | Self::Missing(why) | Self::Permanent(why)) =
            self;
        f.write_str(why)
    }
}

/// The cause of an unrequested end of a run, or of an attempt at one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The main process ended.
    Exit(Exit),
    /// The program could not be started; another attempt may succeed.
    SpawnFailed(String),
    /// The program cannot be started until an operator changes something.
    Unstartable(String),
    /// The main process exited with 0 soon after its start, and its children kept running.
    Backgrounded {
        /// The way to keep this program in the foreground.
        hint: String,
    },
    /// The service did not become ready in time.
    NotReady {
        /// The time since the start: `start.timeout`, including extensions.
        #[serde(rename = "after_ms", with = "super::millis")]
        after: Duration,
        /// The result of the last probe.
        last: Option<String>,
    },
    /// A `wait_for` condition did not pass before its deadline.
    ConditionMissed {
        /// The condition that was checked.
        probe: String,
        /// The result of the last check.
        last: Option<String>,
    },
    /// The service missed too many liveness probes.
    LivenessLost {
        /// The number of misses in a row.
        misses: u32,
        /// The result of the last probe.
        last: String,
    },
}

impl Ended {
    /// Returns the variable text of the cause, if it has one.
    pub fn text_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Exit(_) => None,
            Self::SpawnFailed(text)
            | Self::Unstartable(text)
            | Self::Backgrounded { hint: text }
            | Self::LivenessLost { last: text, .. } => Some(text),
            Self::NotReady { last, .. } | Self::ConditionMissed { last, .. } => last.as_mut(),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because = |f: &mut fmt::Formatter<'_>, last: &Option<String>| match last {
            Some(last) => write!(f, ": {last}"),
            None => Ok(()),
        };
        match self {
            Self::Exit(exit) => write!(f, "{exit}"),
            Self::SpawnFailed(reason) | Self::Unstartable(reason) => f.write_str(reason),
            Self::Backgrounded { hint } => write!(
                f,
                "went into the background: its main process exited with 0 and its child processes \
                 kept running ({hint})"
            ),
            Self::NotReady { after, last } => {
                write!(f, "not ready after {}", Human(*after))?;
                because(f, last)
            }
            Self::ConditionMissed { probe, last } => {
                write!(f, "`wait_for` {probe} did not pass in time")?;
                because(f, last)
            }
            Self::LivenessLost { misses, last } => {
                write!(f, "missed {misses} consecutive liveness probes: {last}")
            }
        }
    }
}

/// Returns the action that follows an end: the table of the design, with the overrides of the
/// manifest. A pure and total function.
pub(super) fn classify(recovery: &Recovery, ended: &Ended) -> CodeAction {
    let exit = match ended {
        Ended::Exit(exit) => *exit,
        // Another attempt would fail in the same way.
        Ended::Unstartable(_) | Ended::Backgrounded { .. } => return CodeAction::Halt,
        _ => Exit::Unknown,
    };
    let code = exit.contract_code();
    if let Some(action) = code.and_then(|code| recovery.codes().get(&code)) {
        return *action;
    }
    // Only the exit code 201 asks for a restore. A death by signal 73 (128 + 73), where that signal
    // exists, says nothing about the state.
    match (recovery.policy(), exit) {
        (_, Exit::Code(0)) => CodeAction::Stop,
        (Policy::Never, _) => CodeAction::Halt,
        (_, Exit::Code(201)) => CodeAction::Restore,
        (_, Exit::Code(202)) => CodeAction::Retry,
        (Policy::Strict, _) => CodeAction::Halt,
        (Policy::Restart, _) => CodeAction::Restart,
    }
}

/// The base of the pauses before retries after exit code 202: `100 ms × 2ⁿ`.
pub(super) const RETRY_BASE: Duration = Duration::from_millis(100);
/// The maximum number of retries after exit code 202.
pub(super) const RETRY_LIMIT: u32 = 5;

/// A duration formatted for humans: `250ms`, `1.5s`, `2m05s`, `3h12m`, `4d07h`.
#[derive(Clone, Copy, Debug)]
pub struct Human(pub Duration);

/// A duration in whole seconds, formatted like [`Human`]. Less than one second is `<1s`.
#[derive(Clone, Copy, Debug)]
pub struct HumanSeconds(pub u64);

impl fmt::Display for HumanSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.pad("<1s"),
            seconds => Human(Duration::from_secs(seconds)).fmt(f),
        }
    }
}

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let text = match seconds {
            0 => format!("{}ms", self.0.as_millis()),
            1..10 => {
                let tenths = self.0.as_millis() / 100;
                match tenths % 10 {
                    0 => format!("{}s", tenths / 10),
                    tenth => format!("{}.{tenth}s", tenths / 10),
                }
            }
            10..60 => format!("{seconds}s"),
            60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
            3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
            _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
        };
        f.pad(&text)
    }
}
