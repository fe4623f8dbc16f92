//! The output of `run`: a table on a terminal, event lines elsewhere, JSON lines for machines.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mainstay_api::Event;
use mainstay_core::engine::{Fact, Human, RolloutRole, StateName};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::report::{ServiceReport, StatusReport};
use mainstay_logs::HANGS;
use mainstay_store::state_dir::StateDir;

use super::screen::{Matter, Piece, Screen, hidden_lines};
use crate::output::{self, Foreign, Safe};
use crate::table::{self, Size, Usage};

/// The interval at which the table is drawn while nothing happens, as its uptimes and figures
/// change.
const REDRAW: Duration = Duration::from_secs(1);
/// The delay after an event, so that a burst of events is drawn once.
const REDRAW_SOON: Duration = Duration::from_millis(50);
/// The largest number of events below the table.
const RECENT: usize = 8;

/// The form in which `run` reports events.
#[derive(Clone, Debug)]
pub enum Output {
    /// A live table, for a terminal on which it can be drawn again and again.
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
    /// Set if events begin with their date: the reader may come another day.
    has_dates: bool,
    table: Table,
}

struct Table {
    recent: VecDeque<String>,
    usage: Usage,
    /// The number of lines of the last picture.
    height: usize,
    /// The size of the terminal when the last picture was drawn.
    size: Option<Size>,
    due: Instant,
}

impl Table {
    fn new() -> Self {
        Self {
            recent: VecDeque::with_capacity(RECENT),
            usage: Usage::default(),
            height: 0,
            size: None,
            due: Instant::now(),
        }
    }

    /// Draws a picture of the services over the last one, on a terminal of this size.
    fn draw(&mut self, report: &StatusReport, size: Size) -> Safe {
        self.usage.update(report);
        let picture = table::live(report, &self.usage, &self.recent, size);
        // To the first line of the last picture (ECMA-48 CUU), and clear from there (ED). A
        // terminal of another size has wrapped and moved that picture as it likes: then to the
        // first line of the screen (CUP).
        let is_resized = self.size.replace(size).is_some_and(|last| last != size);
        let over = match self.height {
            0 => String::new(),
            _ if is_resized => "\x1b[H\x1b[J".to_owned(),
            height => format!("\r\x1b[{height}A\x1b[J"),
        };
        self.height = picture.text().lines().count();
        // A line whose width the terminal sees otherwise is cut, not wrapped (DECAWM): the next
        // picture relies on the number of lines.
        output::safe(Foreign::Text)
            .own(&format!("{over}\x1b[?7l"))
            .painted(&picture)
            .own("\x1b[?7h")
            .finish()
    }
}

/// Returns one JSON object and a newline. `sequence` is the number of the fact.
pub(super) fn json_line(
    time: &str,
    sequence: u64,
    about: (&str, Option<RolloutRole>),
    fact: &Fact,
) -> Vec<u8> {
    let event = Event {
        sequence: Some(sequence),
        ..Event::new(time, about, fact)
    };
    let mut line = serde_json::to_vec(&event).unwrap_or_default();
    line.push(b'\n');
    line
}

fn json_notice(text: &str) -> Vec<u8> {
    let notice = serde_json::json!({ "event": "notice", "message": text });
    format!("{notice}\n").into()
}

impl Reporter {
    pub(super) fn new<'a>(output: Output, names: impl Iterator<Item = &'a str>) -> Self {
        let width = names.map(str::len).max().unwrap_or(0);
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
            has_dates: !output::is_terminal(),
            table: Table::new(),
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
        let message = Event::message(role, fact);
        let time = if self.has_dates {
            time
        } else {
            time.get(11..23).unwrap_or(time)
        };
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
            // Of services, alerts are the errors.
            Output::Lines | Output::Table if output::is_quiet() && !fact.is_alert() => {}
            Output::Lines | Output::Table => {
                let mark = if fact.is_alert() { '!' } else { ' ' };
                self.line(format!("{time} {mark} {service:width$}  {message}"));
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
        let size = output::terminal_size().map(|(rows, columns)| Size { rows, columns });
        if let Some(size) = size.or(self.table.size) {
            let picture = self.table.draw(report, size);
            self.show(Piece::Output(picture));
        }
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

#[cfg(test)]
mod tests {
    use vt100::Parser;

    use super::*;

    fn report(services: usize) -> StatusReport {
        let services = (0..services).map(|number| ServiceReport::embedded(&format!("s{number}")));
        StatusReport {
            supervisor: None,
            services: services.collect(),
        }
    }

    /// A terminal, and the table that is drawn on it.
    struct Drawn {
        terminal: Parser,
        table: Table,
        size: Size,
    }

    impl Drawn {
        fn on(rows: u16, columns: u16) -> Self {
            let mut terminal = Parser::new(rows, columns, 1000);
            terminal.process(b"$ mainstay run\r\n");
            Self {
                terminal,
                table: Table::new(),
                size: size(rows, columns),
            }
        }

        fn resize(&mut self, rows: u16, columns: u16) {
            self.terminal.screen_mut().set_size(rows, columns);
            self.size = size(rows, columns);
        }

        /// Draws the table and returns the screen.
        fn draw(&mut self, services: usize) -> String {
            let picture = self.table.draw(&report(services), self.size);
            let bytes = String::from_utf8_lossy(picture.bytes()).replace('\n', "\r\n");
            self.terminal.process(bytes.as_bytes());
            self.terminal.screen().contents()
        }

        /// Returns the number of lines that left the screen at its top.
        fn scrolled(&mut self) -> usize {
            self.terminal.screen_mut().set_scrollback(usize::MAX);
            let lines = self.terminal.screen().scrollback();
            self.terminal.screen_mut().set_scrollback(0);
            lines
        }
    }

    fn size(rows: u16, columns: u16) -> Size {
        Size {
            rows: rows.into(),
            columns: columns.into(),
        }
    }

    #[test]
    fn the_table_is_drawn_in_place() {
        let mut drawn = Drawn::on(24, 80);
        for _ in 0..20 {
            let screen = drawn.draw(3);
            assert!(screen.starts_with("$ mainstay run\nSERVICE"), "{screen}");
            assert_eq!(screen.lines().count(), 5, "{screen}");
        }
        assert_eq!(drawn.draw(2).lines().count(), 4, "nothing is left of s2");
        assert_eq!(drawn.scrolled(), 0);
    }

    #[test]
    fn a_table_as_high_as_the_terminal_does_not_scroll_it() {
        let mut drawn = Drawn::on(10, 80);
        for number in 0..20 {
            drawn.table.recent.push_back(format!("event {number}"));
            let screen = drawn.draw(100);
            assert!(screen.starts_with("SERVICE"), "{screen}");
        }
        assert_eq!(drawn.scrolled(), 1, "the command line");
    }

    #[test]
    fn a_terminal_of_another_size_shows_one_table() {
        for (rows, columns) in [(12, 40), (24, 200), (40, 80), (6, 20)] {
            let mut drawn = Drawn::on(24, 80);
            drawn.draw(30);
            drawn.resize(rows, columns);
            let (resized, again) = (drawn.draw(30), drawn.draw(30));
            assert_eq!(resized, again, "{rows} x {columns}");
            let mut fresh = Drawn::on(rows, columns);
            fresh.draw(30);
            let of_fresh = fresh.terminal.screen().contents();
            let table = of_fresh.trim_start_matches("$ mainstay run\n");
            assert_eq!(resized, table, "{rows} x {columns}");
        }
    }
}
