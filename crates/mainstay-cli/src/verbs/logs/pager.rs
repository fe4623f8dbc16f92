//! What does not fit on the terminal goes through a pager: `MAINSTAY_PAGER`, `PAGER` or `less`.

use std::io::{self, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::output::{self, Foreign};

struct Paging {
    input: ChildStdin,
    /// Everything is written.
    is_complete: Arc<AtomicBool>,
    /// Waits for the pager's end.
    watcher: JoinHandle<()>,
}

/// Holds back what fits on the terminal, so that a pager is started only for more than that.
pub(super) struct Pager {
    rows: usize,
    columns: usize,
    state: State,
}

enum State {
    Holding {
        text: Vec<u8>,
        rows: usize,
    },
    Paging(Paging),
    /// There is no pager, or its time is over.
    Plain,
}

impl Pager {
    /// `None` where standard output is no terminal, or the user wants no pager.
    pub(super) fn for_terminal() -> Option<Self> {
        let (rows, columns) = output::terminal_size()?;
        (output::is_terminal() && !program().is_empty()).then_some(Self {
            rows,
            columns,
            state: State::Holding {
                text: Vec::new(),
                rows: 0,
            },
        })
    }

    /// Hands on what is held: to a pager, or if it cannot be started to the terminal.
    fn start(&mut self) -> io::Result<()> {
        let State::Holding { text, .. } = std::mem::replace(&mut self.state, State::Plain) else {
            return Ok(());
        };
        if let Some(paging) = spawn() {
            self.state = State::Paging(paging);
        }
        self.write_all(&text)
    }
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.state {
            State::Holding { text, rows } => {
                text.extend_from_slice(bytes);
                let parts = bytes.split_inclusive(|byte| *byte == b'\n');
                *rows += parts
                    .map(|part| part.len() / self.columns + usize::from(part.ends_with(b"\n")))
                    .sum::<usize>();
                // One row is the prompt's.
                if *rows >= self.rows {
                    self.start()?;
                }
                Ok(bytes.len())
            }
            State::Paging(paging) => paging.input.write(bytes),
            State::Plain => plain().write(bytes),
        }
    }

    /// The end: shows what is held, or blocks until the user has left the pager.
    fn flush(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.state, State::Plain) {
            State::Holding { text, .. } => {
                plain().write_all(&text)?;
                plain().flush()
            }
            State::Paging(paging) => {
                paging.is_complete.store(true, Ordering::SeqCst);
                drop(paging.input);
                // It ends without an error of its own.
                let _ = paging.watcher.join();
                Ok(())
            }
            State::Plain => plain().flush(),
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        // Its user may still read; the terminal is his until he has left.
        let _ = self.flush();
    }
}

/// Standard output. What comes here has been escaped.
fn plain() -> impl Write {
    output::screen(Foreign::Raw)
}

/// The words of the pager's command line; none is "no pager".
fn program() -> Vec<String> {
    let asked = ["MAINSTAY_PAGER", "PAGER"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let asked = asked.unwrap_or_else(|| "less".to_owned());
    let words: Vec<String> = asked.split_whitespace().map(str::to_owned).collect();
    match words.first().map(String::as_str) {
        Some("cat") => Vec::new(),
        _ => words,
    }
}

/// Starts the pager. Where its user leaves it before all is written, this process ends, successfully: he has seen enough, and nobody could end a
/// search that finds nothing more.
fn spawn() -> Option<Paging> {
    let words = program();
    let (program, args) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        // Ends at once if all fits after all, shows colours, leaves the screen as it is.
        command.env("LESS", "FRX");
    }
    let mut child = command.spawn().ok()?;
    let input = child.stdin.take()?;
    // Ctrl-c is the pager's: with a handler in its place it does not end us. The handler stays when the runtime has gone.
    let _ = crate::client::block_on(async {
        #[cfg(unix)]
        let _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
        #[cfg(windows)]
        let _ = tokio::signal::windows::ctrl_c();
    });
    let is_complete = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let is_complete = is_complete.clone();
        move || {
            let _ = child.wait();
            if !is_complete.load(Ordering::SeqCst) {
                std::process::exit(0);
            }
        }
    });
    Some(Paging {
        input,
        is_complete,
        watcher,
    })
}
