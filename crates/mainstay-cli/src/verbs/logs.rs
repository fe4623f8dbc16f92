//! `mainstay logs`: what services wrote. Reads the files, so it needs no supervisor; only `logs rotate` does.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use mainstay_core::spec::ServiceName;

use crate::failure::{Code, Failure};
use crate::host::log_read::{self, Position};
use crate::state_dir::StateDir;
use crate::{client, output};

/// Shows the last lines of services' logs, across rotated files; `logs rotate NAME` begins a new file.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Logs {
    /// The services.
    #[arg(required = true)]
    names: Vec<String>,
    /// Go on with what is added, until you press ctrl-c.
    #[arg(short, long)]
    follow: bool,
    /// How many lines of each.
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    lines: u64,
    #[command(subcommand)]
    rotate: Option<Rotate>,
}

#[derive(Debug, clap::Subcommand)]
enum Rotate {
    /// Begins a new file at the next end of a line.
    Rotate {
        /// The service.
        name: String,
    },
}

impl Logs {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        if let Some(Rotate::Rotate { name }) = self.rotate {
            client::block_on(client::rotate(state, &name))??;
            return Ok(ExitCode::SUCCESS);
        }
        let alone = self.names.len() == 1;
        let mut places = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let prefix = if alone {
                String::new()
            } else {
                format!("{name} | ")
            };
            let mut out = Prefixed::new(prefix);
            let place = tail(state, name, self.lines, &mut out)?;
            output::ignore_closed(out.flush())?;
            places.push((name.clone(), place, out));
        }
        if self.follow {
            follow(state, places)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn tail(
    state: &StateDir,
    name: &str,
    lines: u64,
    out: &mut impl Write,
) -> Result<Position, Failure> {
    // Only a service's name may become part of a path.
    let known = ServiceName::new(name).ok_or(io::ErrorKind::NotFound.into());
    let read =
        known.and_then(|name| log_read::tail(&state.logs_dir().join(name.as_str()), lines, out));
    read.map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            let place = state.logs_dir();
            Failure::new(
                Code::Unknown,
                format!("no log of {name} in {}", place.display()),
            )
            .hint("is this the state directory it runs with? --state-dir DIR")
        }
        io::ErrorKind::PermissionDenied => Failure::new(
            Code::PermissionDenied,
            format!("read the log of {name}: {error}"),
        )
        .hint("logs belong to the user who started the supervisor"),
        _ => Failure::new(Code::Failed, format!("read the log of {name}: {error}")),
    })
}

/// One thread a service; the first that cannot go on ends the command.
fn follow(state: &StateDir, places: Vec<(String, Position, Prefixed)>) -> Result<(), Failure> {
    let (sender, ended) = std::sync::mpsc::channel();
    for (name, place, mut out) in places {
        let dir = state.logs_dir().join(&name);
        let sender = sender.clone();
        std::thread::spawn(move || {
            let error = log_read::follow(&dir, place, &mut out);
            // Fails only where another thread has ended the command already.
            let _ = sender.send((name, error));
        });
    }
    match ended.recv() {
        Ok((_, error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Ok((name, error)) => Err(Failure::new(
            Code::Failed,
            format!("follow the log of {name}: {error}"),
        )),
        Err(_) => Ok(()),
    }
}

/// Standard output, with a prefix before each line where several logs share it. Lines of different logs are not mixed.
struct Prefixed {
    prefix: String,
    line: Vec<u8>,
    out: BufWriter<io::Stdout>,
}

/// Only one log writes at a time.
static TURN: Mutex<()> = Mutex::new(());

impl Prefixed {
    fn new(prefix: String) -> Self {
        Self {
            prefix,
            line: Vec::new(),
            out: BufWriter::new(io::stdout()),
        }
    }
}

impl Write for Prefixed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.prefix.is_empty() {
            return self.out.write(bytes);
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.out.write_all(self.prefix.as_bytes())?;
                self.out.write_all(&self.line)?;
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        self.out.flush()
    }
}
