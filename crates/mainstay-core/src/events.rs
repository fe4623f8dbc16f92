//! Stored events, and the figures of a period that follow from them.
//!
//! The figures are those by which software delivery is commonly measured (deployments a week, the
//! share that failed, the time to restore service), and availability.

mod last;

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::last::LastEvent;
use crate::engine::{Exit, RolloutRole};
use crate::time::{rfc3339, rfc3339_at_start};

/// An event as it was stored: a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent<'a> {
    /// The time in microseconds since 1970.
    pub time: u64,
    /// The time as it was stored (RFC 3339).
    pub stamp: Cow<'a, str>,
    /// The number of the event among those of its supervisor; 0 if an earlier version stored it.
    pub sequence: u64,
    /// The name of the service.
    pub service: Cow<'a, str>,
    /// The kind, as in [`crate::engine::Fact`].
    pub event: Cow<'a, str>,
    /// The message for people.
    pub message: Cow<'a, str>,
    /// Set if the event is an alert.
    pub is_alert: bool,
    /// Set if the service is ready from then on.
    pub is_ready: bool,
    /// The exit status of a run that ended.
    pub exit: Option<Exit>,
    /// Set if the run ended while no supervisor ran.
    pub is_unseen: bool,
    /// Set if a stop ended the run by a signal.
    pub is_requested: bool,
    /// Set unless an update took effect without a trial.
    pub is_tried: bool,
    /// The role of the run that the event is about, if it is not the service's own.
    pub role: Option<RolloutRole>,
}

impl<'a> StoredEvent<'a> {
    /// Parses a line. Returns `None` for anything else, such as a line that a loss of power tore.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Line<'a> {
            #[serde(borrow)]
            time: Cow<'a, str>,
            #[serde(borrow)]
            service: Cow<'a, str>,
            #[serde(borrow)]
            event: Cow<'a, str>,
            #[serde(borrow)]
            message: Cow<'a, str>,
            beside: Option<RolloutRole>,
            #[serde(default)]
            sequence: u64,
            exit: Option<Exit>,
            #[serde(default)]
            alert: bool,
            #[serde(default)]
            unseen: bool,
            #[serde(default)]
            ready: bool,
            #[serde(default)]
            requested: bool,
            tried: Option<bool>,
        }
        let line: Line<'a> = serde_json::from_slice(line).ok()?;
        let (time, _) = rfc3339_at_start(line.time.as_bytes())?;
        Some(Self {
            time,
            stamp: line.time,
            sequence: line.sequence,
            service: line.service,
            is_ready: line.ready || line.event == "ready",
            exit: line.exit,
            is_alert: line.alert,
            is_unseen: line.unseen,
            is_requested: line.requested,
            // Earlier versions did not store it.
            is_tried: line.tried.unwrap_or(true),
            role: line.beside,
            event: line.event,
            message: line.message,
        })
    }
}

/// The figures of one service in a period.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stats {
    /// The begin of the period (RFC 3339): not before the first stored event.
    pub from: String,
    /// The end of the period.
    pub to: String,
    /// The updates that took effect or were rolled back.
    pub deployments: u32,
    /// The number of deployments in a week, on average; `None` for a period that is shorter.
    pub deployments_per_week: Option<f64>,
    /// The updates that were rolled back.
    pub rolled_back: u32,
    /// The share of deployments that were rolled back; `None` without deployments.
    pub rolled_back_share: Option<f64>,
    /// The time for which the service was ready, in seconds.
    pub up_s: f64,
    /// The time for which it was not, although it should have been, in seconds.
    pub down_s: f64,
    /// The share of `up_s` in both; `None` if both are zero.
    pub availability: Option<f64>,
    /// The times for which the service was down, including one that lasts.
    pub outages: u32,
    /// The median time from the begin of an outage until the service was ready again, in seconds.
    pub restored_median_s: Option<f64>,
    /// The longest such time.
    pub restored_max_s: Option<f64>,
    /// Set if the service is down at the end of the period.
    pub is_down: bool,
    /// The ends of runs that no supervisor saw, such as losses of power, and losses of events. The
    /// time between the events before and after them counts as neither up nor down.
    pub gaps: u32,
}

/// The state of a service, as far as it matters for its availability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not supposed to be ready: stopped, paused, or starting on request.
    Off,
    Up,
    Down,
}

/// The course of one service in a period.
pub struct Course {
    phase: Phase,
    /// The begin of the phase.
    since: u64,
    from: u64,
    /// Set if an event was observed.
    is_known: bool,
    /// The lengths of the phases within the period, in microseconds.
    up: u64,
    down: u64,
    /// Set if a failure is known. A program that ends may have done its work.
    has_failed: bool,
    outages: u32,
    restored: Vec<u64>,
    gaps: u32,
    deployments: u32,
    rolled_back: u32,
    /// Set if the current run is one of a supervisor that was killed.
    is_adopted: bool,
    /// The time since which a new definition on trial is ready.
    candidate: Option<u64>,
}

impl Course {
    /// Creates the course of a service of which nothing is known. The period begins `from`
    /// microseconds after 1970, or with the first event.
    pub fn new(from: u64) -> Self {
        Self {
            phase: Phase::Off,
            since: from,
            from,
            is_known: false,
            up: 0,
            down: 0,
            has_failed: false,
            outages: 0,
            restored: Vec::new(),
            gaps: 0,
            deployments: 0,
            rolled_back: 0,
            is_adopted: false,
            candidate: None,
        }
    }

    /// Adds an event of the service, later than all others. Events before the period tell how it
    /// begins. A clock that was set back does not reverse the order.
    pub fn observe(&mut self, event: &StoredEvent<'_>) {
        if !std::mem::replace(&mut self.is_known, true) {
            self.since = event.time;
            self.from = self.from.max(event.time);
        }
        let at = event.time.max(self.since);
        let is_counted = u32::from(at >= self.from);
        if event.role == Some(RolloutRole::Candidate) && event.is_ready {
            self.candidate = Some(at);
        }
        match (&*event.event, self.phase) {
            ("updated", phase) => {
                self.deployments += is_counted;
                // The old run was stopped first.
                if let (Phase::Off, Some(ready)) = (phase, self.candidate.take()) {
                    self.enter(Phase::Up, ready);
                }
            }
            ("rolled-back", _) => {
                self.deployments += is_counted;
                self.rolled_back += is_counted;
                self.candidate = None;
            }
            _ if event.role.is_some() => {}
            ("exited", Phase::Up) if self.is_unseen(event) => {
                self.skip(at);
                self.enter(Phase::Down, at);
            }
            ("exited", Phase::Up) => self.enter(Phase::Down, at),
            ("failed" | "backing-off" | "halted" | "crash-looping", _) => {
                if self.phase != Phase::Down {
                    self.enter(Phase::Down, at);
                }
                self.has_failed = true;
            }
            ("started" | "adopted", phase) => {
                self.is_adopted = event.event == "adopted";
                if phase == Phase::Up && !self.is_adopted {
                    self.skip(at);
                }
                self.observe_ready(event.is_ready, at);
            }
            ("continued", Phase::Off) => self.enter(Phase::Up, at),
            ("stopping" | "paused", Phase::Up) | ("stopped", Phase::Up | Phase::Down) => {
                self.enter(Phase::Off, at);
            }
            _ => self.observe_ready(event.is_ready, at),
        }
    }

    /// Returns whether a run ended while no supervisor ran. Earlier versions did not store that:
    /// the exit status of a child is unknown in no other case.
    fn is_unseen(&self, exited: &StoredEvent<'_>) -> bool {
        exited.is_unseen || exited.exit == Some(Exit::Unknown) && !self.is_adopted
    }

    /// Notes that events were lost after the last one that was observed.
    pub fn lose(&mut self) {
        self.skip(self.since);
    }

    /// Drops the current phase, whose length is unknown.
    fn skip(&mut self, at: u64) {
        self.gaps += u32::from(at >= self.from);
        self.phase = Phase::Off;
        self.since = at;
        self.has_failed = false;
    }

    fn observe_ready(&mut self, is_ready: bool, at: u64) {
        if is_ready && self.phase != Phase::Up {
            self.enter(Phase::Up, at);
        }
    }

    /// Ends the current phase.
    fn enter(&mut self, next: Phase, at: u64) {
        let length = at.saturating_sub(self.since.max(self.from));
        let is_counted = at >= self.from;
        match self.phase {
            Phase::Off => {}
            Phase::Up => self.up += length,
            // It had done its work.
            Phase::Down if next == Phase::Off && !self.has_failed => {}
            Phase::Down => {
                self.down += length;
                self.outages += u32::from(is_counted);
                if next == Phase::Up && is_counted {
                    self.restored.push(at.saturating_sub(self.since));
                }
            }
        }
        self.phase = next;
        self.since = at;
        self.has_failed = false;
    }

    /// Returns the figures of the period until `to`, in microseconds since 1970.
    pub fn stats(mut self, to: u64) -> Stats {
        let is_down = self.phase == Phase::Down && self.has_failed;
        self.enter(Phase::Off, to);
        if !self.is_known {
            self.from = to;
        }
        const WEEK: f64 = 7.0 * 24.0 * 3600.0;
        let seconds = |micros: u64| Duration::from_micros(micros).as_millis() as f64 / 1e3;
        let share = |part: f64, all: f64| (all > 0.0).then(|| part / all);
        let weeks = seconds(to.saturating_sub(self.from)) / WEEK;
        self.restored.sort_unstable();
        let time = |micros: u64| rfc3339(Duration::from_micros(micros));
        Stats {
            from: time(self.from),
            to: time(to),
            deployments: self.deployments,
            deployments_per_week: (weeks >= 1.0).then(|| f64::from(self.deployments) / weeks),
            rolled_back: self.rolled_back,
            rolled_back_share: share(self.rolled_back.into(), self.deployments.into()),
            up_s: seconds(self.up),
            down_s: seconds(self.down),
            availability: share(seconds(self.up), seconds(self.up + self.down)),
            outages: self.outages,
            restored_median_s: median(&self.restored).map(seconds),
            restored_max_s: self.restored.last().copied().map(seconds),
            is_down,
            gaps: self.gaps,
        }
    }
}

/// Returns the median of sorted numbers.
fn median(sorted: &[u64]) -> Option<u64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(lower.midpoint(upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    /// Returns an event `time` seconds after 1970. A `+` marks those of a new definition on trial,
    /// a `!` those that make the service ready, a `?` an unknown exit status, and a `~` the end of
    /// a run that no supervisor saw.
    fn stored(time: u64, event: &'static str) -> StoredEvent<'static> {
        StoredEvent {
            time: time * 1_000_000,
            stamp: "".into(),
            sequence: 0,
            service: "a".into(),
            event: event.trim_matches(['+', '!', '?', '~']).into(),
            message: "".into(),
            is_alert: false,
            is_ready: event.ends_with("ready") || event.ends_with('!'),
            exit: event.ends_with('?').then_some(Exit::Unknown),
            is_unseen: event.ends_with('~'),
            is_requested: false,
            is_tried: true,
            role: event.starts_with('+').then_some(RolloutRole::Candidate),
        }
    }

    fn of(events: &[(u64, &'static str)], from: u64, to: u64) -> Stats {
        let mut course = Course::new(from * 1_000_000);
        for &(time, event) in events.iter().take_while(|(time, _)| *time <= to) {
            course.observe(&stored(time, event));
        }
        course.stats(to * 1_000_000)
    }

    #[test]
    fn a_line_is_parsed_or_is_none() {
        let line = br#"{"time":"1970-01-01T00:00:01.500Z","service":"a\nb","alert":false,"event":"exited","exit":{"code":1},"after_ms":5,"message":"exited"}"#;
        let event = StoredEvent::parse(line).unwrap();
        assert_eq!((event.time, &*event.service), (1_500_000, "a\nb"));
        assert_eq!((&*event.event, event.role), ("exited", None));
        assert_eq!(event.exit, Some(Exit::Code(1)));
        assert_eq!((event.sequence, event.is_unseen), (0, false));
        let text = String::from_utf8_lossy(line);
        let unseen = text.replace("\"after_ms\"", "\"unseen\":true,\"after_ms\"");
        assert!(StoredEvent::parse(unseen.as_bytes()).unwrap().is_unseen);
        let numbered = text.replace("\"alert\"", "\"sequence\":7,\"alert\"");
        assert_eq!(StoredEvent::parse(numbered.as_bytes()).unwrap().sequence, 7);
        assert!(!event.is_alert);
        let alert = text.replace("\"alert\":false", "\"alert\":true");
        assert!(StoredEvent::parse(alert.as_bytes()).unwrap().is_alert);
        let beside = text.replace("\"alert\"", "\"beside\":\"candidate\",\"alert\"");
        let event = StoredEvent::parse(beside.as_bytes()).unwrap();
        assert_eq!(event.role, Some(RolloutRole::Candidate));
        for torn in [
            &line[..60],
            &line[9..],
            b"\0\0\0\0",
            b"",
            b"mainstay: 5 bytes",
        ] {
            assert_eq!(StoredEvent::parse(torn), None);
        }
    }

    #[test]
    fn nothing_is_known_without_events() {
        let stats = of(&[], 0, DAY);
        assert_eq!((stats.availability, stats.rolled_back_share), (None, None));
        assert_eq!((stats.outages, stats.deployments_per_week), (0, None));
    }

    #[test]
    fn an_outage_lasts_until_the_service_is_ready_again() {
        let events = [
            (0, "started"),
            (10, "ready"),
            (100, "exited"),
            (100, "failed"),
            (100, "backing-off"),
            (103, "started"),
            (104, "failed"),
            (104, "backing-off"),
            (108, "started"),
            (110, "ready"),
            (200, "failed"),
            (200, "stopping"),
            (202, "exited"),
            (203, "started"),
            (206, "ready"),
        ];
        let stats = of(&events, 0, 1010);
        assert_eq!((stats.up_s, stats.down_s), (984.0, 16.0));
        assert_eq!((stats.outages, stats.availability), (2, Some(0.984)));
        let restored = (stats.restored_median_s, stats.restored_max_s);
        assert_eq!(restored, (Some(8.0), Some(10.0)));
        assert!(!stats.is_down);
        // A period that begins within an outage contains the rest of it.
        let stats = of(&events, 105, 205);
        assert_eq!((stats.up_s, stats.down_s), (90.0, 10.0));
        assert_eq!(stats.restored_max_s, Some(10.0));
        assert!(stats.is_down);
    }

    #[test]
    fn requested_stops_and_work_that_is_done_are_no_outages() {
        let events = [
            (0, "started"),
            (10, "ready"),
            (20, "stopping"),
            (21, "exited"),
            (21, "stopped"),
            (50, "started"),
            (60, "ready"),
            (70, "exited"),
            (71, "stopped"),
            (80, "started"),
            (80, "ready"),
            (85, "paused"),
            (95, "continued"),
        ];
        let stats = of(&events, 0, 100);
        assert_eq!((stats.up_s, stats.down_s), (30.0, 0.0));
        assert_eq!((stats.outages, stats.availability), (0, Some(1.0)));
    }

    #[test]
    fn a_service_that_needs_no_evidence_is_up_once_it_is_started() {
        let events = [(0, "started!"), (10, "failed"), (15, "started!")];
        let stats = of(&events, 0, 20);
        assert_eq!((stats.up_s, stats.down_s, stats.outages), (15.0, 5.0, 1));
        let events = [(0, "started!"), (10, "started!")];
        let stats = of(&events, 0, 20);
        assert_eq!((stats.up_s, stats.gaps), (10.0, 1));
    }

    #[test]
    fn a_start_that_fails_and_a_halt_are_outages() {
        let events = [(0, "started"), (5, "failed"), (5, "halted")];
        let stats = of(&events, 0, 105);
        assert_eq!((stats.up_s, stats.down_s), (0.0, 100.0));
        assert_eq!((stats.outages, stats.availability), (1, Some(0.0)));
        assert!(stats.is_down);
        let stopped = [&events[..], &[(55, "stopped")]].concat();
        let stats = of(&stopped, 0, 105);
        assert_eq!((stats.down_s, stats.is_down), (50.0, false));
    }

    #[test]
    fn an_end_that_nobody_saw_counts_as_neither() {
        let events = [(0, "ready"), (500, "started"), (501, "ready")];
        let stats = of(&events, 0, 600);
        assert_eq!((stats.up_s, stats.down_s, stats.gaps), (99.0, 0.0, 1));
        let adopted = [(0, "ready"), (500, "adopted!")];
        assert_eq!(of(&adopted, 0, 600).up_s, 600.0);
    }

    #[test]
    fn an_end_without_a_supervisor_and_lost_events_are_gaps() {
        let events = [(0, "ready"), (50, "exited?"), (50, "failed"), (52, "ready")];
        let stats = of(&events, 0, 60);
        assert_eq!((stats.up_s, stats.down_s, stats.gaps), (8.0, 2.0, 1));
        let events = [
            (0, "started!"),
            (10, "adopted!"),
            (50, "exited?"),
            (52, "ready"),
        ];
        let stats = of(&events, 0, 60);
        assert_eq!((stats.up_s, stats.down_s, stats.gaps), (58.0, 2.0, 0));
        // The status may be known nevertheless, and an adopted run may end unseen, too.
        for events in [
            [(0, "ready"), (10, "missed"), (50, "exited~"), (52, "ready")],
            [
                (0, "ready"),
                (10, "adopted!"),
                (50, "exited~"),
                (52, "ready"),
            ],
        ] {
            let stats = of(&events, 0, 60);
            assert_eq!((stats.up_s, stats.gaps), (8.0, 1));
        }
        let mut course = Course::new(0);
        course.observe(&stored(0, "ready"));
        course.observe(&stored(10, "failed"));
        course.lose();
        course.observe(&stored(50, "failed"));
        course.observe(&stored(52, "ready"));
        let stats = course.stats(60_000_000);
        assert_eq!((stats.up_s, stats.down_s, stats.gaps), (18.0, 2.0, 1));
    }

    #[test]
    fn a_new_definition_is_up_once_it_is_ready_and_stays() {
        let update = [
            (0, "ready"),
            (10, "stopping"),
            (11, "+started"),
            (15, "+ready"),
        ];
        let stays = [
            &update[..],
            &[(20, "updated"), (30, "failed"), (31, "ready")],
        ]
        .concat();
        let stats = of(&stays, 0, 41);
        assert_eq!((stats.up_s, stats.down_s), (35.0, 1.0));
        let goes = [&update[..], &[(20, "rolled-back"), (21, "started!")]].concat();
        let stats = of(&goes, 0, 41);
        assert_eq!((stats.up_s, stats.down_s), (30.0, 0.0));
    }

    #[test]
    fn a_clock_that_is_set_back_adds_no_time() {
        let events = [
            (100, "ready"),
            (40, "failed"),
            (45, "ready"),
            (110, "failed"),
        ];
        let stats = of(&events, 0, 110);
        assert_eq!((stats.up_s, stats.down_s), (10.0, 0.0));
    }

    #[test]
    fn deployments_are_counted_in_the_period() {
        let events = [
            (0, "ready"),
            (DAY, "updated"),
            (8 * DAY, "updating"),
            (8 * DAY, "+started"),
            (8 * DAY, "+failed"),
            (8 * DAY, "rolled-back"),
            (9 * DAY, "updated"),
        ];
        let stats = of(&events, 2 * DAY, 16 * DAY);
        assert_eq!((stats.deployments, stats.rolled_back), (2, 1));
        assert_eq!(stats.deployments_per_week, Some(1.0));
        assert_eq!(stats.rolled_back_share, Some(0.5));
        assert_eq!((stats.outages, stats.availability), (0, Some(1.0)));
    }
}
