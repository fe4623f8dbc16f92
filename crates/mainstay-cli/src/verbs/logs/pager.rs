//! The pager for output that does not fit on the terminal: `MAINSTAY_PAGER`, `PAGER` or `less`.

use std::io::{self, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use mainstay_host::output::{self, Foreign};

struct Paging {
    input: ChildStdin,
    /// Set after all output is written.
    is_complete: Arc<AtomicBool>,
    /// The thread that waits for the pager to exit.
    watcher: JoinHandle<()>,
}

/// A writer that buffers output until it exceeds one terminal screen, and only then starts a pager.
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
    /// There is no pager, or it has exited.
    Plain,
}

impl Pager {
    /// Returns a pager for standard output; `None` if it is not a terminal, or the user has
    /// disabled the pager.
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

    /// Writes the buffered text to a pager, or to the terminal if the pager cannot be started.
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
                // One row is for the prompt.
                if *rows >= self.rows {
                    self.start()?;
                }
                Ok(bytes.len())
            }
            State::Paging(paging) => paging.input.write(bytes),
            State::Plain => plain().write(bytes),
        }
    }

    /// Ends the output: shows the buffered text, or blocks until the user has left the pager.
    fn flush(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.state, State::Plain) {
            State::Holding { text, .. } => {
                plain().write_all(&text)?;
                plain().flush()
            }
            State::Paging(paging) => {
                paging.is_complete.store(true, Ordering::SeqCst);
                drop(paging.input);
                // The watcher returns no error of its own.
                let _ = paging.watcher.join();
                Ok(())
            }
            State::Plain => plain().flush(),
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        // The user may still be reading: the terminal belongs to the pager until it exits.
        let _ = self.flush();
    }
}

/// Returns standard output without escaping: text that arrives here has been escaped.
fn plain() -> impl Write {
    output::screen(Foreign::Raw)
}

/// Returns the words of the pager's command line; empty if there is no pager.
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

/// Starts the pager. If the user leaves it before all output is written, this process exits
/// successfully: the user has seen enough, and otherwise nothing could end a search without further
/// matches.
fn spawn() -> Option<Paging> {
    let words = program();
    let (program, args) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        // Exit at once if all text fits, show colours, and do not clear the screen.
        command.env("LESS", "FRX");
    }
    let mut child = command.spawn().ok()?;
    let input = child.stdin.take()?;
    // Ctrl-C is for the pager. With a handler for the signal, it does not end this process. The
    // handler stays installed after the runtime is dropped.
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
