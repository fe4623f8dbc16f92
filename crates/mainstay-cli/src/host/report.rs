//! What `run` shows: a table on a terminal, event lines elsewhere, JSON lines for machines.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};
use std::time::{Duration, Instant};

use mainstay_core::engine::{Beside, Fact, StateName};
use mainstay_core::report::{ServiceReport, StatusReport};
use serde::Serialize;

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

/// Writes to standard output. What cannot be written (a closed pipe) is dropped: a reader that left must not end the services.
pub(super) struct Reporter {
    output: Output,
    /// Has the alerts, too.
    system: Option<mainstay::Logger>,
    out: BufWriter<Stdout>,
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
        Self {
            output,
            system: None,
            out: BufWriter::new(io::stdout()),
            width,
            table,
        }
    }

    /// Tells the log of the system of alerts, if there is one that does not have them already.
    pub(super) fn tell_system(&mut self) {
        if !io::stdout().is_terminal() {
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
            system.warn(format!("{service}: {message}"));
        }
        match &self.output {
            Output::Silent => {}
            Output::System(logger) if fact.is_alert() => logger.warn(message),
            Output::System(logger) => logger.info(message),
            Output::Json => {
                drop(
                    self.out
                        .write_all(&json_line(time, (service, beside), fact)),
                );
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
            Output::System(logger) => logger.warn(text),
            Output::Json => {
                let line = serde_json::json!({ "event": "notice", "message": text });
                drop(writeln!(self.out, "{line}"));
            }
            Output::Lines | Output::Table => self.line(format!("mainstay: {text}")),
        }
    }

    fn line(&mut self, line: String) {
        if matches!(self.output, Output::Lines) {
            drop(writeln!(self.out, "{line}"));
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

    pub(super) fn flush(&mut self) {
        drop(self.out.flush());
    }

    /// When the table wants to be drawn; never, where there is none.
    pub(super) fn next_draw(&self) -> Option<Instant> {
        matches!(self.output, Output::Table).then_some(self.table.due)
    }

    pub(super) fn is_due(&self) -> bool {
        self.next_draw().is_some_and(|due| due <= Instant::now())
    }

    /// Draws the table over the last one.
    pub(super) fn draw(&mut self, report: &StatusReport) {
        let mut text = table::status(report, true);
        for line in &self.table.recent {
            text.push_str(line);
            text.push('\n');
        }
        // Back to the first line of the last picture (ECMA-48 CUU), clear from there (ED); lines that are too long are cut, not wrapped
        // (DECAWM), as the next picture counts on it.
        let up = match self.table.height {
            0 => String::new(),
            height => format!("\r\x1b[{height}A\x1b[J"),
        };
        drop(write!(self.out, "{up}\x1b[?7l{text}\x1b[?7h"));
        drop(self.out.flush());
        self.table.height = text.lines().count();
        self.table.due = Instant::now() + REDRAW;
    }

    /// The last picture, and why what is halted is halted.
    pub(super) fn finish(&mut self, report: &StatusReport) {
        if matches!(self.output, Output::Table) {
            self.draw(report);
        }
        let halted = |service: &&ServiceReport| service.state == StateName::Halted;
        for service in report.services.iter().filter(halted) {
            if matches!(self.output, Output::Lines | Output::Table) {
                let why = service.detail.as_deref().unwrap_or("unknown");
                drop(writeln!(self.out, "{}: halted: {why}", service.name));
            }
        }
        self.flush();
    }
}
