//! The line on a terminal that tells what a long operation is doing, and for how long already. It
//! appears at standard error after a second, is redrawn in place, and is erased before any other
//! output and at the end. Nothing but carriage returns and spaces is used, which every terminal
//! obeys. Files, pipes and quiet output get nothing.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_core::engine::HumanSeconds;

use crate::output::{self, line};
use crate::text::{cut, width};

/// The length of an operation that needs no line.
const DELAY: Duration = Duration::from_secs(1);
/// The interval of updates. The line stays away for as long after other output.
const INTERVAL: Duration = Duration::from_millis(500);

/// Returns the text of the line on a terminal of this width. The time is at its end, and the last
/// column stays free, so that no terminal wraps.
fn fitted(text: &str, elapsed: Duration, columns: usize) -> String {
    let time = format!("  {}", HumanSeconds(elapsed.as_secs()));
    let room = columns.saturating_sub(width(&time) + 1);
    let text = output::one_line(text);
    let shown = format!("{}{time}", cut(&text, room));
    cut(&shown, columns.saturating_sub(1)).into_owned()
}

/// An operation that is shown. The drop erases the line, and does not wait for a text that is just
/// being made.
pub struct Progress {
    number: u64,
    _end: mpsc::Sender<()>,
}

impl Progress {
    /// Begins to show an operation; `None` if nothing is to be shown. `text` is called by another
    /// thread for every update and may block.
    pub fn begin(mut text: impl FnMut() -> String + Send + 'static) -> Option<Self> {
        if output::is_quiet() {
            return None;
        }
        output::line_width()?;
        let (end, ended) = mpsc::channel();
        let number = line().begin();
        let update = move || {
            let begun = Instant::now();
            let mut pause = DELAY;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                pause = INTERVAL;
                let text = text();
                if let Some(columns) = output::line_width() {
                    let text = fitted(&text, begun.elapsed(), columns);
                    line().show(number, &text, INTERVAL);
                }
            }
        };
        let thread = thread::Builder::new().name("progress".to_owned());
        thread.spawn(update).ok()?;
        Some(Self { number, _end: end })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        line().end(self.number);
    }
}

#[cfg(test)]
mod tests {
    use vt100::Parser;

    use super::*;
    use crate::output::Line;

    /// Whatever the terminal and the texts, the line never wraps, shows the last text only, and
    /// leaves nothing.
    #[test]
    fn one_line_is_redrawn_in_place_and_leaves_nothing() {
        let texts = [
            "web: taking a snapshot, 1.2 GB copied",
            "web: 検索サービス は データベース を 待っています",
            "web",
            "web: \u{1b}[2J\nforged",
        ];
        for columns in 1..60 {
            let mut terminal = Parser::new(4, columns, 0);
            let mut line = Line::default();
            for (seconds, text) in (58..).zip(texts) {
                let columns = usize::from(columns);
                let shown = fitted(text, Duration::from_secs(seconds), columns);
                assert!(width(&shown) < columns, "{shown:?} on {columns}");
                terminal.process(line.draw(&shown).as_bytes());
                assert_eq!(terminal.screen().contents().trim_end(), shown.trim_end());
                assert_eq!(terminal.screen().cursor_position().0, 0);
            }
            terminal.process(line.draw("").as_bytes());
            assert_eq!(terminal.screen().contents().trim_end(), "");
            assert_eq!(terminal.screen().cursor_position(), (0, 0));
        }
        let shown = fitted("web: taking a snapshot", Duration::from_secs(75), 24);
        assert_eq!(shown, "web: taking a s…  1m15s");
    }
}
