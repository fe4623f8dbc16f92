//! The stored event that explains why a service does not run.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::StoredEvent;
use crate::engine::{Exit, SignalName};
use crate::time::rfc3339_at_start;

/// The last event of a service that explains why it does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEvent {
    /// The time (RFC 3339, UTC).
    pub time: String,
    /// The kind, as in [`crate::engine::Fact`].
    pub event: String,
    /// The message for people.
    pub message: String,
    /// Set if the service was running at that time: how the run ended is not stored.
    #[serde(rename = "unseen", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unseen: bool,
}

/// The meaning of an event for the question why the service does not run.
enum Meaning {
    /// The service was stopped, or ended with its work done. If it had failed before, that is the
    /// reason: the end of a supervisor stops what does not run, too.
    Stopped,
    /// The service failed, or waited for something.
    Reason,
    /// A run ended. A reason follows, unless the supervisor was killed.
    Exited,
    /// The service was running, or about to.
    Runs,
    /// Other events explain the state.
    Nothing,
}

impl Meaning {
    fn of(event: &StoredEvent<'_>) -> Self {
        if event.role.is_some() {
            return Self::Nothing;
        }
        match &*event.event {
            "stopped" => Self::Stopped,
            "halted" | "failed" | "crash-looping" | "waiting" | "waiting-for" => Self::Reason,
            "exited" => Self::Exited,
            "started" | "adopted" | "ready" | "recovered" | "paused" | "continued" | "stopping"
            | "killing" | "missed" | "passed" => Self::Runs,
            // The runs of a new definition on trial are of another role.
            "updated" if event.is_tried => Self::Runs,
            _ => Self::Nothing,
        }
    }
}

impl LastEvent {
    /// Returns the event that explains why a service does not run, of its latest ones, oldest
    /// first. `None` if none of them does.
    pub fn explaining<'a>(
        events: impl DoubleEndedIterator<Item = StoredEvent<'a>>,
    ) -> Option<Self> {
        let mut stopped: Option<Self> = None;
        for event in events.rev() {
            match Meaning::of(&event) {
                Meaning::Nothing => {}
                Meaning::Stopped if stopped.is_none() => stopped = Some(Self::of(&event)),
                Meaning::Stopped => return stopped,
                // Whoever waits and is stopped, is stopped.
                Meaning::Reason if stopped.is_some() && event.event.starts_with("waiting") => {
                    return stopped;
                }
                Meaning::Reason => return Some(Self::of(&event)),
                Meaning::Exited => {
                    return Some(match stopped {
                        Some(stopped) => stopped.after(&event),
                        None => Self::of(&event),
                    });
                }
                Meaning::Runs if stopped.is_some() => return stopped,
                Meaning::Runs => {
                    return Some(Self {
                        is_unseen: true,
                        ..Self::of(&event)
                    });
                }
            }
        }
        stopped
    }

    fn of(event: &StoredEvent<'_>) -> Self {
        Self {
            time: event.stamp.to_string(),
            event: event.event.to_string(),
            message: event.message.to_string(),
            is_unseen: false,
        }
    }

    /// Adds how the run ended that was stopped, unless it ended cleanly.
    fn after(mut self, exited: &StoredEvent<'_>) -> Self {
        match exited.exit {
            None | Some(Exit::Code(0)) => {}
            Some(Exit::Signal(signal)) if exited.is_requested => {
                self.message += &format!(" by {}", SignalName(signal));
            }
            Some(exit) => self.message += &format!(", {exit}"),
        }
        self
    }

    /// Returns the time in microseconds since 1970.
    pub fn micros(&self) -> Option<u64> {
        Some(rfc3339_at_start(self.time.as_bytes())?.0)
    }

    /// Returns the reason alone: the message without the words for the kind of event.
    pub fn reason(&self) -> &str {
        match self.message.split_once(": ") {
            Some((kind, reason)) if kind == self.event => reason,
            _ => &self.message,
        }
    }
}

impl fmt::Display for LastEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unseen {
            f.write_str("its end was not recorded; last event: ")?;
        }
        write!(f, "{} ({})", self.message, self.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the line of an event in the given second. `+` marks a new definition on trial.
    fn line(second: usize, event: &str) -> String {
        let (kind, message) = event.split_once(": ").unwrap_or((event, event));
        let beside = match kind.strip_prefix('+') {
            Some(_) => r#""beside":"candidate","#,
            None => "",
        };
        let kind = kind.trim_start_matches('+');
        let exit = match (kind, message) {
            ("exited", "killed") => r#""exit":{"signal":9},"#,
            ("exited", "asked") => r#""exit":{"signal":15},"requested":true,"#,
            ("updated", "untried") => r#""tried":false,"#,
            ("exited", "0") => r#""exit":{"code":0},"#,
            _ => "",
        };
        format!(
            r#"{{"time":"2026-11-29T03:12:0{second}.000Z","service":"a",{beside}{exit}"event":"{kind}","message":"{event}"}}"#
        )
    }

    #[track_caller]
    fn check(events: &[&str], expected: Option<&str>) {
        let lines: Vec<String> = events
            .iter()
            .enumerate()
            .map(|(second, event)| line(second, event))
            .collect();
        let events = lines
            .iter()
            .filter_map(|line| StoredEvent::parse(line.as_bytes()));
        let events: Vec<_> = events.collect();
        let last = LastEvent::explaining(events.into_iter());
        let last = last.map(|last| last.to_string());
        assert_eq!(last.as_deref(), expected);
    }

    #[test]
    fn the_reason_is_found_behind_what_follows_from_it() {
        check(&[], None);
        check(&["snapshot-unneeded"], None);
        let halts = [
            "started",
            "exited: 3",
            "failed: exit code 3",
            "halted: exit code 3",
        ];
        let halted = Some("halted: exit code 3 (2026-11-29T03:12:03.000Z)");
        check(&halts, halted);
        // The end of a supervisor.
        check(&[&halts[..], &["stopped"]].concat(), halted);
        // A pause is no reason.
        check(
            &["failed: exit code 3", "backing-off", "stopped"],
            Some("failed: exit code 3 (2026-11-29T03:12:00.000Z)"),
        );
        check(
            &["waiting: waiting for db"],
            Some("waiting: waiting for db (2026-11-29T03:12:00.000Z)"),
        );
        check(
            &["waiting: waiting for db", "stopped"],
            Some("stopped (2026-11-29T03:12:01.000Z)"),
        );
    }

    #[test]
    fn a_stop_on_request_says_how_the_run_ended() {
        check(
            &["failed: 1", "started", "stopping", "exited: 0", "stopped"],
            Some("stopped (2026-11-29T03:12:04.000Z)"),
        );
        check(
            &[
                "started",
                "stopping",
                "killing",
                "exited: killed",
                "stopped",
            ],
            Some("stopped, killed by SIGKILL (2026-11-29T03:12:04.000Z)"),
        );
        check(
            &["started", "stopping", "exited: asked", "stopped"],
            Some("stopped by SIGTERM (2026-11-29T03:12:03.000Z)"),
        );
        check(
            &["started", "stopped"],
            Some("stopped (2026-11-29T03:12:01.000Z)"),
        );
    }

    #[test]
    fn an_update_of_a_stopped_service_is_no_run() {
        let stopped = ["started", "exited: 0", "stopped"];
        let expected = Some("stopped (2026-11-29T03:12:02.000Z)");
        for update in [
            &["updating", "trial", "updated: untried", "requested"][..],
            &["updating", "trial", "rolled-back: not committed"],
        ] {
            check(&[&stopped[..], update].concat(), expected);
        }
        let tried = ["updating", "+started", "+ready", "trial", "updated"];
        check(
            &[&stopped[..], &tried].concat(),
            Some("its end was not recorded; last event: updated (2026-11-29T03:12:07.000Z)"),
        );
        // The old definition ran beside the new one, or again.
        let tried = ["updating", "+exited: 1", "rolled-back: exit code 1"];
        check(
            &[&["started"][..], &tried].concat(),
            Some("its end was not recorded; last event: started (2026-11-29T03:12:00.000Z)"),
        );
    }

    #[test]
    fn an_end_that_is_not_stored_is_said() {
        check(
            &[
                "exited: 1",
                "started",
                "ready",
                "+failed: 1",
                "snapshot-taken",
            ],
            Some("its end was not recorded; last event: ready (2026-11-29T03:12:02.000Z)"),
        );
        check(
            &["started", "exited: killed"],
            Some("exited: killed (2026-11-29T03:12:01.000Z)"),
        );
    }

    #[test]
    fn a_service_that_has_missed_probes_and_passed_one_since_is_not_said_to_miss_them() {
        let passed = "passed: liveness probe passed again after 2 misses";
        check(
            &["started", "ready", "missed: 1", "missed: 2", passed],
            Some(&format!(
                "its end was not recorded; last event: {passed} (2026-11-29T03:12:04.000Z)"
            )),
        );
    }

    #[test]
    fn a_reason_has_no_word_for_its_kind() {
        let last = |event: &str, message: &str| LastEvent {
            time: "2026-11-29T03:12:04.500Z".to_owned(),
            event: event.to_owned(),
            message: message.to_owned(),
            is_unseen: false,
        };
        assert_eq!(
            last("halted", "halted: exit code 3").reason(),
            "exit code 3"
        );
        assert_eq!(
            last("exited", "exited after 1s: exit code 3").reason(),
            "exited after 1s: exit code 3"
        );
        assert_eq!(
            last("stopped", "stopped").micros(),
            Some(1_795_921_924_500_000)
        );
    }
}
