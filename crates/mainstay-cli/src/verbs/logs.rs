//! `mainstay logs`: shows the output of services. It reads the files and needs no supervisor; only
//! `logs rotate` does.

mod pager;
mod show;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use mainstay_core::failure::{Code, Failure, Sought};
use mainstay_core::log::Stream;
use mainstay_core::log::stored::Stored;
use mainstay_core::spec::ServiceName;
use mainstay_core::time::{WHEN, when};
use mainstay_host::output::{self, Foreign};
use mainstay_logs::read::{Followed, Keep, Lines, Log, Position, Query, Range, Time, follow};
use mainstay_store::state_dir::StateDir;
use mainstay_sys::access::{self, Closed};
use regex::bytes::{Regex, RegexBuilder};

use crate::client;
use crate::installed::Installed;
use crate::not_found;
use pager::Pager;
use show::{Added, Form, Shown, Tag};

/// The directory of the second of two raw streams, inside the directory of the log.
const STDERR_DIR: &str = "stderr";
/// The number of lines shown if no option selects lines.
const DEFAULT_LINES: u64 = 10;
/// The number of last lines that are read to find whether lines name their stream.
const SAMPLE: u64 = 100;

/// Show the logs of services, including rotated and compressed files, or rotate a log
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = TIMES)]
pub(crate) struct Logs {
    /// Names of the services; lines of several services are merged by time
    #[arg(required = true)]
    names: Vec<String>,
    /// Keep showing new lines until you press Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Show the last N lines of each service [default: 10; all with --since, --until or --grep]
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u64>,
    /// Show lines from this time on
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    since: Option<String>,
    /// Show lines up to this time
    #[arg(
        long,
        value_name = "T",
        allow_hyphen_values = true,
        conflicts_with = "follow"
    )]
    until: Option<String>,
    /// Show only lines that match this regular expression
    #[arg(short, long, value_name = "RE")]
    grep: Option<String>,
    /// Ignore case in --grep
    #[arg(short, long, requires = "grep")]
    ignore_case: bool,
    /// Show only lines from this stream
    #[arg(long, value_parser = stream())]
    stream: Option<Stream>,
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

const TIMES: &str = "\
T is one of: 2026-11-22T10:11:12Z (or +01:00), 2026-11-22, 2026-11-22 10:11[:12], 10:11[:12] (today), today, yesterday,
15m (ago; also s, h, d, w; 1h30m), @SECONDS since 1970. Without an offset it is UTC, like the stamps in logs.
Lines without stamps (`format = \"raw\"`) are known to about a second: --since and --until may show a second more.";

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
            rotated.map_err(|failure| not_found::service_or(state, &[name], failure))?;
            return Ok(ExitCode::SUCCESS);
        }
        let query = self.query()?;
        let regex = self.regex()?;
        let mut sources = Vec::new();
        for (number, name) in self.names.iter().enumerate() {
            if let Some(installed) = Installed::find(state, name) {
                installed.check_hosted("show the logs of")?;
            }
            let found = self.sources(&state.of(name), number, name, regex.as_ref());
            sources
                .extend(found.map_err(|failure| not_found::service_or(state, &[name], failure))?);
        }
        // Without a selection of lines, bytes are copied unchanged.
        let as_bytes = !self.json && sources.len() == 1 && sources[0].filter.keeps_all();
        if self.follow && !as_bytes {
            for source in &mut sources {
                let left = source.log.leave_unfinished_line();
                left.map_err(|error| unreadable(state, &source.name, &error))?;
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
                output::ignore_closed(Err(error))?;
                return Ok(ExitCode::SUCCESS);
            }
            Err(ShowError::Log(name, error)) => return Err(unreadable(state, &name, &error)),
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

    fn query(&self) -> Result<Query, Failure> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
        let time = |option: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => match when(text, now, 0) {
                Some(time) => Ok(Some(time)),
                None => Err(
                    Failure::new(Code::Usage, format!("{option} '{text}' is not a time"))
                        .hint(format!("expected {WHEN}")),
                ),
            },
        };
        let (since, until) = (time("--since", &self.since)?, time("--until", &self.until)?);
        let is_narrowed = since.is_some() || until.is_some() || self.grep.is_some();
        let lines = self.lines.or((!is_narrowed).then_some(DEFAULT_LINES));
        Ok(Query {
            lines,
            since,
            until,
        })
    }

    fn regex(&self) -> Result<Option<Regex>, Failure> {
        let Some(text) = &self.grep else {
            return Ok(None);
        };
        let regex = RegexBuilder::new(text)
            .case_insensitive(self.ignore_case)
            .build();
        regex
            .map(Some)
            .map_err(|error| Failure::new(Code::Usage, format!("--grep '{text}': {error}")))
    }

    /// Returns the sources of the requested lines of a service.
    fn sources(
        &self,
        state: &StateDir,
        service: usize,
        name: &str,
        regex: Option<&Regex>,
    ) -> Result<Vec<Source>, Failure> {
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
            return Err(Failure::new(Code::Usage, message)
                .hint("set log = { streams = \"split\" } to separate them from then on"));
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
        let keeps: Vec<_> = sources
            .iter()
            .map(|source| |line: &[u8]| source.filter.keeps(line))
            .collect();
        // If a service has two logs, each supplies its last N lines. The surplus over N is skipped.
        let mut found = vec![0; self.names.len()];
        let mut readers = Vec::with_capacity(sources.len());
        for (source, keep) in sources.iter().zip(&keeps) {
            let keep: Option<&Keep<'_>> = if source.filter.keeps_all() {
                None
            } else {
                Some(keep)
            };
            let range = source
                .log
                .select(query, keep)
                .map_err(source.unreadable_log())?;
            found[source.service] += range.counted;
            readers.push(Reader::new(source, range, keep)?);
        }
        let mut surplus: Vec<u64> = match query.lines {
            Some(lines) => found
                .iter()
                .map(|found| found.saturating_sub(lines))
                .collect(),
            None => vec![0; found.len()],
        };
        let mut next: BinaryHeap<_> = readers
            .iter()
            .enumerate()
            .filter_map(|(number, reader)| Some(Reverse((reader.time?.micros, number))))
            .collect();
        while let Some(Reverse((now, number))) = next.pop() {
            let reader = &mut readers[number];
            let source = reader.source;
            let surplus = &mut surplus[source.service];
            if *surplus > 0 {
                *surplus -= 1;
            } else if let Some(time) = reader.time {
                let mut shown = shown.borrow_mut();
                let result = shown.line(&source.tag, time, &reader.line);
                result.map_err(ShowError::Output)?;
            }
            reader.advance()?;
            if let Some(time) = reader.time {
                // A clock that was set back does not change the order of lines within a log.
                next.push(Reverse((time.micros.max(now), number)));
            }
        }
        Ok(())
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

/// A log that is being merged with others, positioned at one of its lines.
struct Reader<'a> {
    source: &'a Source,
    lines: Lines<'a>,
    line: Vec<u8>,
    /// The time of the line; `None` at the end.
    time: Option<Time>,
}

impl<'a> Reader<'a> {
    fn new(
        source: &'a Source,
        range: Range,
        keep: Option<&'a Keep<'a>>,
    ) -> Result<Self, ShowError> {
        let mut reader = Self {
            source,
            lines: source.log.lines(range, keep),
            line: Vec::new(),
            time: None,
        };
        reader.advance()?;
        Ok(reader)
    }

    fn advance(&mut self) -> Result<(), ShowError> {
        let next = self.lines.next(&mut self.line);
        self.time = next.map_err(self.source.unreadable_log())?;
        Ok(())
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
    let mut lines = log.lines(log.select(&query, None)?, None);
    let (mut line, mut is_empty) = (Vec::new(), true);
    while lines.next(&mut line)?.is_some() {
        if Stored::parse(&line).stream.is_some() {
            return Ok(true);
        }
        is_empty = false;
    }
    Ok(is_empty)
}

fn unreadable(state: &StateDir, name: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => {
            // A running supervisor reports whether the service exists.
            let asked =
                client::block_on(client::expect_service(state, "show the logs of", name)).flatten();
            match asked {
                Ok(()) => {
                    let message = format!("no log of {name} yet: it has not been started");
                    return Failure::new(Code::Unknown, message);
                }
                Err(failure) if failure.code() == Code::Unknown => return failure,
                Err(_) => {}
            }
            let place = state.logs_dir();
            Failure::new(
                Code::Unknown,
                format!("no log of {name} in {}", place.display()),
            )
            .hint("if it runs with another state directory, use --state-dir DIR")
            .seeking(Sought::Service(name.to_owned()))
        }
        io::ErrorKind::PermissionDenied => {
            let operation = format!("cannot read the log of {name}");
            match Closed::at(&state.logs_dir().join(name)) {
                Some(closed) => closed.failure(&operation),
                None => Failure::new(Code::PermissionDenied, format!("{operation}: {error}"))
                    .hint(access::run_as_administrator()),
            }
        }
        _ => Failure::new(
            Code::Failed,
            format!("cannot read the log of {name}: {error}"),
        ),
    }
}
