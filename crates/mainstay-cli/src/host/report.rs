//! What `run` shows: a table on a terminal, event lines elsewhere, JSON lines for machines.

use std::time::{Duration, Instant};

use mainstay_core::engine::{Beside, Fact, StateName};
use mainstay_core::report::{ServiceReport, StatusReport};
use serde::Serialize;

use super::screen::{Matter, Piece, Screen, hidden_lines};
use crate::output::{self, Foreign};
use crate::table;

/// How often the table is drawn while nothing happens: its uptimes and figures move.
const REDRAW: Duration = Duration::from_secs(1);
/// After an event, so that a storm of them is one picture.
const REDRAW_SOON: Duration = Duration::from_millis(50);
/// Events shown below the table.
const RECENT: usize = 8;

/// The lines of a table of so many services, if each has something to remark.
pub(crate) fn height(services: usize) -> usize {
    1 + 2 * services + RECENT + 1
}

/// In which form `run` tells what happens.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    /// A live table, for a terminal that is high enough.
    Table,
    /// A line an event.
    Lines,
    /// A JSON object an event.
    Json,
    /// In the log of the system.
    System(mainstay::Logger),
    /// Nothing: somebody else tells what became of it.
    Silent,
}

/// Shows events. What cannot be written (a closed pipe) is dropped: a reader that left must not end the services. Drop waits until
/// everything is shown, or nobody accepts it.
pub(super) struct Reporter {
    output: Output,
    /// Has the alerts, too.
    system: Option<mainstay::Logger>,
    screen: Option<Screen>,
    /// Lines of this turn of the loop.
    lines: Vec<u8>,
    width: usize,
    table: Table,
}

struct Table {
    recent: std::collections::VecDeque<String>,
    height: usize,
    due: Instant,
}

/// A fact as `run --json` and the event stream show it.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    time: &'a str,
    service: &'a str,
    /// It is of another run than the service's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<Beside>,
    alert: bool,
    #[serde(flatten)]
    fact: &'a Fact,
    pub(super) message: String,
}

impl<'a> Line<'a> {
    pub(super) fn new(
        time: &'a str,
        (service, beside): (&'a str, Option<Beside>),
        fact: &'a Fact,
    ) -> Self {
        Self {
            time,
            service,
            beside,
            alert: fact.is_alert(),
            fact,
            message: message(beside, fact),
        }
    }
}

/// One JSON object and a newline.
pub(super) fn json_line(time: &str, about: (&str, Option<Beside>), fact: &Fact) -> Vec<u8> {
    let mut line = serde_json::to_vec(&Line::new(time, about, fact)).unwrap_or_default();
    line.push(b'\n');
    line
}

fn json_notice(text: &str) -> Vec<u8> {
    let notice = serde_json::json!({ "event": "notice", "message": text });
    format!("{notice}\n").into()
}

/// For people, who have to know which of two runs it is about.
fn message(beside: Option<Beside>, fact: &Fact) -> String {
    match beside {
        None => fact.to_string(),
        Some(Beside::Candidate) => format!("new definition: {fact}"),
        Some(Beside::Predecessor) => format!("old definition: {fact}"),
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
            // A log of the system says itself what it does not accept.
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

    /// Where it is shown, if it is.
    pub(super) fn screen(&self) -> Option<&Screen> {
        self.screen.as_ref()
    }

    /// Tells the log of the system of alerts, if there is one that does not have them already.
    pub(super) fn tell_system(&mut self) {
        if !output::is_terminal() {
            self.system = mainstay::Logger::of_system("mainstay");
        }
    }

    /// Makes room for another service's name.
    pub(super) fn widen(&mut self, name: &str) {
        self.width = self.width.max(name.len());
    }

    pub(super) fn tell(
        &mut self,
        time: &str,
        (service, beside): (&str, Option<Beside>),
        fact: &Fact,
    ) {
        let width = self.width;
        let message = message(beside, fact);
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
            Output::Json => {
                let line = json_line(time, (service, beside), fact);
                self.lines.extend_from_slice(&line);
            }
            Output::Lines | Output::Table => {
                let mark = if fact.is_alert() { '!' } else { ' ' };
                self.line(format!("{clock} {mark} {service:width$}  {message}"));
            }
        }
    }

    /// Something about the supervisor itself, or about a log.
    pub(super) fn say(&mut self, text: &str) {
        match &self.output {
            Output::Silent => {}
            Output::System(logger) => self.show(Piece::Warning(logger.clone(), text.to_owned())),
            Output::Json => self.lines.extend(json_notice(text)),
            Output::Lines | Output::Table => self.line(format!("mainstay: {text}")),
        }
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

    /// Somebody else tells what becomes of services.
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

    /// When the table wants to be drawn; never, where there is none.
    pub(super) fn next_draw(&self) -> Option<Instant> {
        matches!(self.output, Output::Table).then_some(self.table.due)
    }

    pub(super) fn is_due(&self) -> bool {
        self.next_draw().is_some_and(|due| due <= Instant::now())
    }

    /// Draws the table over the last one, unless that is not shown yet.
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
        // Back to the first line of the last picture (ECMA-48 CUU), clear from there (ED); lines that are too long are cut, not wrapped
        // (DECAWM), as the next picture counts on it.
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

    /// The last picture, and why what is halted is halted.
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
