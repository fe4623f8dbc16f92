//! The output of `run`: a table on a terminal, event lines elsewhere, JSON lines for machines.

use std::time::{Duration, Instant};

use mainstay_core::engine::{Fact, Human, RolloutRole, StateName};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::report::{ServiceReport, StatusReport};
use mainstay_logs::HANGS;
use mainstay_store::state_dir::StateDir;
use serde::Serialize;

use super::screen::{Matter, Piece, Screen, hidden_lines};
use crate::output::{self, Foreign};
use crate::table;

/// The interval at which the table is drawn while nothing happens, as its uptimes and figures
/// change.
const REDRAW: Duration = Duration::from_secs(1);
/// The delay after an event, so that a burst of events is drawn once.
const REDRAW_SOON: Duration = Duration::from_millis(50);
/// The number of events below the table.
const RECENT: usize = 8;

/// Returns the height of a table of this many services, if each has a remark.
pub fn height(services: usize) -> usize {
    1 + 2 * services + RECENT + 1
}

/// The form in which `run` reports events.
#[derive(Clone, Debug)]
pub enum Output {
    /// A live table, for a terminal that is high enough.
    Table,
    /// A line per event.
    Lines,
    /// A JSON object per event.
    Json,
    /// Messages in the system's log.
    System(mainstay::Logger),
    /// Nothing: the caller reports the result.
    Silent,
}

/// Reports events. Output that cannot be written (a closed pipe) is dropped: a reader that has
/// exited must not end the services. Drop waits until everything is written, or the reader accepts
/// nothing more.
pub(super) struct Reporter {
    output: Output,
    /// A system log that receives the alerts in addition.
    system: Option<mainstay::Logger>,
    screen: Option<Screen>,
    /// The lines of this turn of the loop.
    lines: Vec<u8>,
    width: usize,
    table: Table,
}

struct Table {
    recent: std::collections::VecDeque<String>,
    height: usize,
    due: Instant,
}

/// A fact in the format of `run --json` and the event stream.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    time: &'a str,
    service: &'a str,
    /// Set if the fact is about another run than the service's own.
    #[serde(rename = "beside", skip_serializing_if = "Option::is_none")]
    role: Option<RolloutRole>,
    alert: bool,
    #[serde(flatten)]
    fact: &'a Fact,
    pub(super) message: String,
}

impl<'a> Line<'a> {
    pub(super) fn new(
        time: &'a str,
        (service, role): (&'a str, Option<RolloutRole>),
        fact: &'a Fact,
    ) -> Self {
        Self {
            time,
            service,
            role,
            alert: fact.is_alert(),
            fact,
            message: message(role, fact),
        }
    }
}

/// Returns one JSON object and a newline.
pub(super) fn json_line(time: &str, about: (&str, Option<RolloutRole>), fact: &Fact) -> Vec<u8> {
    let mut line = serde_json::to_vec(&Line::new(time, about, fact)).unwrap_or_default();
    line.push(b'\n');
    line
}

fn json_notice(text: &str) -> Vec<u8> {
    let notice = serde_json::json!({ "event": "notice", "message": text });
    format!("{notice}\n").into()
}

/// Returns the message for people. It shows which of two runs it is about.
fn message(role: Option<RolloutRole>, fact: &Fact) -> String {
    match role {
        None => fact.to_string(),
        Some(RolloutRole::Candidate) => format!("new definition: {fact}"),
        Some(RolloutRole::Predecessor) => format!("old definition: {fact}"),
    }
}

impl Reporter {
    pub(super) fn new<'a>(output: Output, names: impl Iterator<Item = &'a str>) -> Self {
        let width = names.map(str::len).max().unwrap_or(0);
        let table = Table {
            recent: Default::default(),
            height: 0,
            due: Instant::now(),
        };
        let screen = match &output {
            Output::Silent => None,
            Output::Json => Some(Screen::new(output::screen(Foreign::Raw), |count| {
                Piece::output(&json_notice(&hidden_lines(count)))
            })),
            // A system log reports dropped messages itself.
            Output::Table | Output::Lines | Output::System(_) => {
                Some(Screen::new(output::screen(Foreign::Raw), |count| {
                    Piece::output(format!("mainstay: {}\n", hidden_lines(count)).as_bytes())
                }))
            }
        };
        Self {
            output,
            system: None,
            screen,
            lines: Vec::new(),
            width,
            table,
        }
    }

    /// Returns the screen that the output goes to, if any.
    pub(super) fn screen(&self) -> Option<&Screen> {
        self.screen.as_ref()
    }

    /// Sends alerts to the system's log too, if there is one that does not receive them already.
    pub(super) fn alert_system_log(&mut self) {
        if !output::is_terminal() {
            self.system = mainstay::Logger::of_system("mainstay");
        }
    }

    /// Widens the name column for another service.
    pub(super) fn widen(&mut self, name: &str) {
        self.width = self.width.max(name.len());
    }

    /// Reports a fact, whose line is the one of [`json_line`].
    pub(super) fn emit(
        &mut self,
        time: &str,
        (service, role): (&str, Option<RolloutRole>),
        fact: &Fact,
        json: &[u8],
    ) {
        let width = self.width;
        let message = message(role, fact);
        let clock = time.get(11..23).unwrap_or(time);
        if let Some(system) = self.system.as_ref().filter(|_| fact.is_alert()) {
            let text = format!("{service}: {message}");
            self.show(Piece::Warning(system.clone(), text));
        }
        match &self.output {
            Output::Silent => {}
            Output::System(logger) if fact.is_alert() => {
                self.show(Piece::Warning(logger.clone(), message));
            }
            Output::System(logger) => self.show(Piece::Info(logger.clone(), message)),
            Output::Json => self.lines.extend_from_slice(json),
            Output::Lines | Output::Table => {
                let mark = if fact.is_alert() { '!' } else { ' ' };
                self.line(format!("{clock} {mark} {service:width$}  {message}"));
            }
        }
    }

    /// Reports a message about the supervisor itself, or about a log.
    pub(super) fn notify(&mut self, text: &str) {
        match &self.output {
            Output::Silent => {}
            Output::System(logger) => self.show(Piece::Warning(logger.clone(), text.to_owned())),
            Output::Json => self.lines.extend(json_notice(text)),
            Output::Lines | Output::Table => self.line(format!("mainstay: {text}")),
        }
    }

    /// Reports that the end waits for the disk of the logs.
    pub(super) fn await_logs(&mut self, state: &StateDir) {
        let dir = state.logs_dir();
        let text = format!(
            "waiting for the logs to be completed: the disk of {} does not respond",
            dir.display()
        );
        self.insist(&text);
    }

    /// Reports that the end no longer waits for the disk of the logs. Returns that as a failure.
    pub(super) fn give_logs_up(&mut self, state: &StateDir) -> Failure {
        let consequence = if cfg!(target_os = "linux") {
            "the next supervisor writes the output that is missing"
        } else {
            "the output that is missing is lost"
        };
        let text = format!(
            "the logs are not complete: the disk of {} did not respond for {}; {consequence}",
            state.logs_dir().display(),
            Human(HANGS)
        );
        self.insist(&text);
        Failure::new(Code::Busy, text)
    }

    /// Shows a message at once, whatever the output is.
    fn insist(&mut self, text: &str) {
        match self.output {
            Output::Silent => output::complain(&text),
            // A table is not drawn any more.
            Output::Table => output::complain(&format!("mainstay: {text}")),
            _ => self.notify(text),
        }
        self.flush();
    }

    fn line(&mut self, line: String) {
        if matches!(self.output, Output::Lines) {
            self.lines.extend_from_slice(line.as_bytes());
            self.lines.push(b'\n');
            return;
        }
        if self.table.recent.len() == RECENT {
            self.table.recent.pop_front();
        }
        self.table.recent.push_back(line);
        self.table.due = self.table.due.min(Instant::now() + REDRAW_SOON);
    }

    /// Returns whether nothing is reported here, because the caller reports the result.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self.output, Output::Silent)
    }

    fn show(&self, piece: Piece) {
        if let Some(screen) = &self.screen {
            screen.show(piece, Matter::Events);
        }
    }

    pub(super) fn flush(&mut self) {
        if !self.lines.is_empty() {
            let lines = std::mem::take(&mut self.lines);
            self.show(Piece::output(&lines));
        }
    }

    /// Returns the time of the next drawing of the table; `None` if there is no table.
    pub(super) fn next_draw(&self) -> Option<Instant> {
        matches!(self.output, Output::Table).then_some(self.table.due)
    }

    pub(super) fn is_due(&self) -> bool {
        self.next_draw().is_some_and(|due| due <= Instant::now())
    }

    /// Draws the table over the last one, unless that is not written yet.
    pub(super) fn draw(&mut self, report: &StatusReport) {
        self.table.due = Instant::now() + REDRAW;
        if self.screen.as_ref().is_none_or(|screen| !screen.is_idle()) {
            return;
        }
        let mut picture = table::status(report);
        for line in &self.table.recent {
            picture.push(&output::one_line(line));
            picture.push("\n");
        }
        // Move to the first line of the last picture (ECMA-48 CUU) and clear from there (ED). Long
        // lines are cut, not wrapped (DECAWM): the next picture relies on the number of lines.
        let up = match self.table.height {
            0 => String::new(),
            height => format!("\r\x1b[{height}A\x1b[J"),
        };
        self.table.height = picture.text().lines().count();
        let drawn = output::safe(Foreign::Text)
            .own(&format!("{up}\x1b[?7l"))
            .painted(&picture)
            .own("\x1b[?7h");
        self.show(Piece::Output(drawn.finish()));
    }

    /// Draws the last picture, and reports the reasons of halted services.
    pub(super) fn finish(&mut self, report: &StatusReport) {
        if let (Output::Table, Some(screen)) = (&self.output, &self.screen) {
            screen.drain();
            self.draw(report);
        }
        let halted = |service: &&ServiceReport| service.state == StateName::Halted;
        for service in report.services.iter().filter(halted) {
            if matches!(self.output, Output::Lines | Output::Table) {
                let why = service.detail.as_deref().unwrap_or("unknown");
                let line = format!("{}: halted: {why}\n", service.name);
                self.lines.extend_from_slice(line.as_bytes());
            }
        }
        self.flush();
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.flush();
        if let Some(screen) = &self.screen {
            screen.drain();
        }
    }
}
