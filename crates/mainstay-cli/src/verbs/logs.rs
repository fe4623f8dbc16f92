//! `mainstay logs`: shows the output of services. It reads the files and needs no supervisor; only
//! `logs rotate` does.

mod pager;
mod show;

use std::cell::RefCell;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::log::Stream;
use mainstay_core::log::stored::Stored;
use mainstay_core::spec::ServiceName;
use mainstay_host::output::{self, Foreign};
use mainstay_logs::read::{Followed, Log, Position, Query, follow};
use mainstay_store::state_dir::StateDir;
use mainstay_sys::access;
use regex::bytes::Regex;

use super::merge::{Input, MergeError, merge};
use super::selection::{Selection, TIMES};
use crate::client;
use crate::installed::Installed;
use crate::not_found;
use crate::request_error::RequestError;
use pager::Pager;
use show::{Added, Form, Shown, Tag};

/// The directory of the second of two raw streams, inside the directory of the log.
const STDERR_DIR: &str = "stderr";
/// The number of last lines that are read to find whether lines name their stream.
const SAMPLE: u64 = 100;

/// Show the logs of services, including rotated and compressed files, or rotate a log
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = times())]
pub(crate) struct Logs {
    /// Names of the services; lines of several services are merged by time
    #[arg(required = true)]
    names: Vec<String>,
    /// Keep showing new lines until you press Ctrl-C
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    selection: Selection,
    /// Show only lines from this stream
    #[arg(long, value_parser = stream())]
    stream: Option<Stream>,
    /// Begin each line with its time, unless it is stored with one [default on a terminal, except
    /// with --raw]
    #[arg(short, long, overrides_with = "no_times", conflicts_with = "json")]
    times: bool,
    /// Show lines as they are stored, without their times
    #[arg(long, overrides_with = "times")]
    no_times: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Pass all control characters to the terminal, not only colours
    #[arg(long)]
    raw: bool,
    /// Do not start a pager, even if the output does not fit on the terminal
    #[arg(long)]
    no_pager: bool,
    #[command(subcommand)]
    rotate: Option<Rotate>,
}

/// The help about times in logs.
fn times() -> String {
    format!(
        "{TIMES}\nLines without stamps (`format = \"raw\"`) are known to about a second: --since and \
         --until may show a second more."
    )
}

fn stream() -> impl TypedValueParser<Value = Stream> {
    let names = PossibleValuesParser::new(Stream::ALL.map(Stream::name));
    names.map(|name| match &*name {
        "stderr" => Stream::Stderr,
        _ => Stream::Stdout,
    })
}

#[derive(Debug, clap::Subcommand)]
enum Rotate {
    /// Rotate a log: begin a new file at the next end of a line
    Rotate {
        /// Name of the service
        name: String,
    },
}

/// One directory of log files, and the selection of lines.
struct Source {
    /// The index of the service.
    service: usize,
    name: String,
    dir: PathBuf,
    log: Log,
    filter: Filter,
    tag: Tag,
}

/// The filter for lines.
#[derive(Clone)]
struct Filter {
    streams: Streams,
    regex: Option<Regex>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Streams {
    All,
    /// Lines that name this stream.
    Only(Stream),
    /// Lines that do not name this stream.
    AllBut(Stream),
}

impl Filter {
    fn keeps(&self, line: &[u8]) -> bool {
        let named = |stream| Stored::parse(line).stream == Some(stream);
        let is_wanted = match self.streams {
            Streams::All => true,
            Streams::Only(stream) => named(stream),
            Streams::AllBut(stream) => !named(stream),
        };
        is_wanted && self.regex.as_ref().is_none_or(|regex| regex.is_match(line))
    }

    fn keeps_all(&self) -> bool {
        self.streams == Streams::All && self.regex.is_none()
    }
}

impl Logs {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        if let Some(Rotate::Rotate { name }) = self.rotate {
            if let Some(installed) = Installed::find(state, &name) {
                installed.check_hosted("rotate the log of")?;
            }
            let rotated = client::block_on(client::rotate(&state.of(&name), &name))?;
            rotated.map_err(|error| not_found::service_or(state, &[name], error))?;
            return Ok(ExitCode::SUCCESS);
        }
        let query = self.selection.query(self.follow)?;
        let regex = self.selection.regex()?;
        let mut sources = Vec::new();
        for (number, name) in self.names.iter().enumerate() {
            if let Some(installed) = Installed::find(state, name) {
                installed.check_hosted("show the logs of")?;
            }
            let found = self.sources(&state.of(name), number, name, regex.as_ref());
            sources.extend(found.map_err(|error| not_found::service_or(state, &[name], error))?);
        }
        // Without a selection of lines, bytes are copied unchanged.
        let as_bytes =
            !self.json && !self.has_times() && sources.len() == 1 && sources[0].filter.keeps_all();
        if self.follow && !as_bytes {
            for source in &mut sources {
                let left = source.log.leave_unfinished_line();
                left.map_err(|error| Failure::from(unreadable(state, &source.name, &error)))?;
            }
        }
        let is_paged = !self.follow && !self.no_pager;
        let out: Box<dyn Write> = match is_paged.then(Pager::for_terminal).flatten() {
            Some(pager) => Box::new(pager),
            None => Box::new(BufWriter::with_capacity(
                64 << 10,
                output::screen(Foreign::Raw),
            )),
        };
        let foreign = if self.raw {
            Foreign::Raw
        } else {
            Foreign::Coloured
        };
        let form = Form {
            is_json: self.json,
            has_times: self.has_times(),
            highlight: regex.clone().filter(|_| output::stdout_has_colour()),
        };
        let shown = RefCell::new(Shown::new(form, output::onto(out, foreign)));
        let result = if as_bytes {
            copy(&sources[0], &query, &shown)
        } else {
            self.merge(&sources, &query, &shown)
        };
        let result = result.and_then(|()| shown.borrow_mut().flush().map_err(ShowError::Output));
        match result {
            Ok(()) => {}
            Err(ShowError::Output(error)) => {
                return output::ignore_closed(Err(error)).map(|()| ExitCode::SUCCESS);
            }
            Err(ShowError::Log(name, error)) => return Err(unreadable(state, &name, &error).into()),
        }
        let mut damaged = Ok(ExitCode::SUCCESS);
        for damage in sources.iter().flat_map(|source| source.log.damage()) {
            let path = damage.path.display();
            let failure = Failure::new(
                Code::Failed,
                format!("cannot read {path}: {}", damage.error),
            )
            .hint("the readable part was shown");
            if let Err(failure) = std::mem::replace(&mut damaged, Err(failure)) {
                output::fail(&failure);
            }
        }
        if !self.follow {
            return damaged;
        }
        if let Err(failure) = damaged {
            output::fail(&failure);
        }
        self.go_on(sources, as_bytes, &shown)
    }

    /// Returns whether lines begin with their time.
    fn has_times(&self) -> bool {
        self.times || output::is_terminal() && !(self.no_times || self.raw)
    }

    /// Returns the sources of the requested lines of a service.
    fn sources(
        &self,
        state: &StateDir,
        service: usize,
        name: &str,
        regex: Option<&Regex>,
    ) -> Result<Vec<Source>, RequestError> {
        // Only a valid service name may become part of a path.
        let Some(known) = ServiceName::new(name) else {
            return Err(unreadable(state, name, &io::ErrorKind::NotFound.into()));
        };
        let failed = |error: io::Error| unreadable(state, name, &error);
        let dir = state.logs_dir().join(known.as_str());
        let stderr_dir = dir.join(STDERR_DIR);
        let log = Log::open(&dir).map_err(failed)?;
        let stderr = match Log::open(&stderr_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            log => Some(log.map_err(failed)?),
        };
        let asked = self.stream;
        if asked.is_some() && stderr.is_none() && !names_streams(&log).map_err(failed)? {
            let message = format!("the log of {name} does not distinguish stdout and stderr");
            let failure = Failure::new(Code::Usage, message)
                .hint("set log = { streams = \"split\" } to separate them from then on");
            return Err(failure.into());
        }
        let is_split = stderr.is_some();
        let streams = match asked {
            None => Streams::All,
            Some(Stream::Stdout) if is_split => Streams::AllBut(Stream::Stderr),
            Some(stream) => Streams::Only(stream),
        };
        let prefix = match self.names.len() {
            1 => None,
            _ => Some(name),
        };
        let source = |dir, log, streams, stream| Source {
            service,
            name: name.to_owned(),
            dir,
            log,
            filter: Filter {
                streams,
                regex: regex.cloned(),
            },
            tag: Tag::new(name, prefix, stream),
        };
        let own = is_split.then_some(Stream::Stdout);
        let mut sources = vec![source(dir, log, streams, own)];
        if let Some(log) = stderr.filter(|_| asked != Some(Stream::Stdout)) {
            sources.push(source(stderr_dir, log, Streams::All, Some(Stream::Stderr)));
        }
        Ok(sources)
    }

    /// Shows the lines of all logs, ordered by time.
    fn merge(
        &self,
        sources: &[Source],
        query: &Query,
        shown: &RefCell<Shown>,
    ) -> Result<(), ShowError> {
        let reads: Vec<_> = sources
            .iter()
            .map(|source| |line: &[u8]| source.filter.keeps(line).then_some((0, ())))
            .collect();
        let inputs: Vec<_> = sources
            .iter()
            .zip(&reads)
            .map(|(source, read)| Input {
                log: &source.log,
                service: source.service,
                read,
                is_whole: source.filter.keeps_all(),
            })
            .collect();
        let merged = merge(&inputs, query, |number, time, line, ()| {
            shown.borrow_mut().line(&sources[number].tag, time, line)
        });
        merged.map_err(|error| match error {
            MergeError::Input(number, error) => sources[number].unreadable_log()(error),
            MergeError::Output(error) => ShowError::Output(error),
        })
    }

    fn go_on(
        self,
        sources: Vec<Source>,
        as_bytes: bool,
        shown: &RefCell<Shown>,
    ) -> Result<ExitCode, Failure> {
        let mut logs = Vec::new();
        for source in sources {
            let (filter, tag) = (source.filter, source.tag);
            let stderr_dir = source.dir.join(STDERR_DIR);
            // Streams can be split while the log is followed.
            let may_split = self.stream.is_none() && tag.stream.is_none();
            if may_split {
                let filter = filter.clone();
                logs.push(Followed {
                    dir: stderr_dir,
                    position: Position::default(),
                    sink: Added::lines(
                        shown,
                        tag.with_stream(Stream::Stderr),
                        move |line: &[u8]| filter.keeps(line),
                    ),
                    is_optional: true,
                });
            }
            logs.push(Followed {
                dir: source.dir,
                position: source.log.end(),
                sink: if as_bytes {
                    Added::bytes(shown, tag)
                } else {
                    Added::lines(shown, tag, move |line: &[u8]| filter.keeps(line))
                },
                is_optional: false,
            });
        }
        let error = follow(&mut logs, &mut || shown.borrow_mut().flush());
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Ok(ExitCode::SUCCESS);
        }
        let names = self.names.join(", ");
        Err(Failure::new(
            Code::Failed,
            format!("cannot follow the log of {names}: {error}"),
        ))
    }
}

/// The reason why lines were not shown.
enum ShowError {
    /// A failure to read the log of this service.
    Log(String, io::Error),
    Output(io::Error),
}

impl Source {
    fn unreadable_log(&self) -> impl Fn(io::Error) -> ShowError {
        |error| ShowError::Log(self.name.clone(), error)
    }
}

/// Copies one log to the output unchanged.
fn copy(source: &Source, query: &Query, shown: &RefCell<Shown>) -> Result<(), ShowError> {
    let range = source
        .log
        .select(query, None)
        .map_err(source.unreadable_log())?;
    let mut failed_output = None;
    let copied = source.log.copy(range, &mut |bytes| {
        let written = shown.borrow_mut().bytes(bytes);
        written.map_err(|error| {
            failed_output = Some(error);
            io::ErrorKind::Other.into()
        })
    });
    match (copied, failed_output) {
        (_, Some(error)) => Err(ShowError::Output(error)),
        (copied, None) => copied.map_err(source.unreadable_log()),
    }
}

/// Returns whether lines name their stream. An empty log counts as one whose lines do.
fn names_streams(log: &Log) -> io::Result<bool> {
    let query = Query {
        lines: Some(SAMPLE),
        ..Query::default()
    };
    let mut lines = log.lines(log.select(&query, None)?);
    let (mut line, mut is_empty) = (Vec::new(), true);
    while lines.next(&mut line)?.is_some() {
        if Stored::parse(&line).stream.is_some() {
            return Ok(true);
        }
        is_empty = false;
    }
    Ok(is_empty)
}

fn unreadable(state: &StateDir, name: &str, error: &io::Error) -> RequestError {
    match error.kind() {
        io::ErrorKind::NotFound => {
            // A running supervisor reports whether the service exists.
            let asked = client::block_on(client::expect_service(state, "show the logs of", name));
            match asked {
                Ok(Ok(())) => {
                    let message = format!("no log of {name} yet: it has not been started");
                    return Failure::new(Code::Unknown, message).into();
                }
                Ok(Err(error @ RequestError::NoService(_))) => return error,
                _ => {}
            }
            not_found::stored(state, "log of", name).into()
        }
        io::ErrorKind::PermissionDenied => {
            let operation = format!("cannot read the log of {name}");
            access::denied(&operation, &state.logs_dir().join(name), error).into()
        }
        _ => Failure::new(
            Code::Failed,
            format!("cannot read the log of {name}: {error}"),
        )
        .into(),
    }
}
