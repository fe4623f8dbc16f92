//! `mainstay events`: shows stored events, and new ones as they happen.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use mainstay_core::events::StoredEvent;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::spec::ServiceName;
use mainstay_host::output::{self, Foreign};
use mainstay_logs::read::{Log, Query, without_end};
use mainstay_store::start_failure::StartFailure;
use mainstay_store::state_dir::StateDir;
use mainstay_sys::access;
use regex::bytes::Regex;

use super::merge::{Input, MergeError, merge};
use super::selection::{Selection, TIMES, now};
use crate::client;
use crate::installed::Installed;
use crate::not_found;
use crate::request_error::RequestError;

/// The age up to which stored events may be delivered again, in microseconds.
const OVERLAP: u64 = 10_000_000;

/// The longest wait for a supervisor to store events.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// Show what happened to services: starts, failures, restarts, updates, and why
///
/// Stored events are shown whether or not a supervisor is running. Each service keeps its last
/// 8 MB of them, for at most 400 days.
#[derive(Debug, clap::Args)]
#[command(after_help = TIMES)]
pub(crate) struct Events {
    /// Name of the service [default: all; their events are merged by time]
    name: Option<String>,
    /// Keep showing events as they happen, until the supervisor ends or you press Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Show only alerts: the events that call for an operator
    #[arg(long)]
    alerts: bool,
    #[command(flatten)]
    selection: Selection,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

impl Events {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let query = self.selection.query(self.follow)?;
        let installed = self
            .name
            .as_ref()
            .and_then(|name| Installed::find(state, name));
        if let Some(installed) = &installed {
            installed.check_hosted("show the events of")?;
        }
        let shown = Shown {
            name: self.name,
            only_alerts: self.alerts,
            regex: self.selection.regex()?,
            is_json: self.json,
        };
        let place = match &shown.name {
            Some(name) => state.of(name),
            None => state.clone(),
        };
        let result = client::block_on(async {
            // Connect first: no event falls between the stored ones and the first new one.
            let stream = if self.follow {
                Some(stream(&place, shown.name.as_deref()).await)
            } else {
                // A supervisor responds when earlier events are stored: those of the verb before
                // this one are shown. None need be running, and one may hang.
                let settled = client::events(&place);
                let _ = tokio::time::timeout(STORE_TIMEOUT, settled).await;
                None
            };
            let stored = shown.stored(state, &query)?;
            let cause = installed.and_then(|it| it.start_failure());
            match (stream, cause) {
                (None, None) if stored.is_some() => Ok(ExitCode::SUCCESS),
                (Some(Ok(stream)), _) => {
                    shown.live(&place, stream, stored.unwrap_or_default()).await
                }
                // The host could not start.
                (None, Some(cause)) => {
                    shown.start_failure(&cause)?;
                    Ok(ExitCode::SUCCESS)
                }
                (Some(Err(RequestError::NoSupervisor(_))), Some(cause)) => {
                    shown.start_failure(&cause)?;
                    Ok(ExitCode::from(Code::NotRunning as u8))
                }
                (Some(Err(error)), _) => Err(shown.absent(state, error).into()),
                (None, None) => match shown.nothing_stored(&place).await {
                    Ok(()) => Ok(ExitCode::SUCCESS),
                    Err(error) => Err(shown.unstored(shown.absent(state, error), state).into()),
                },
            }
        })?;
        match result {
            Ok(code) => Ok(code),
            Err(Ended::Failed(failure)) => Err(failure),
            Err(Ended::Output(error)) => {
                output::ignore_closed(Err(error))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Subscribes to the events of the supervisor.
async fn stream(place: &StateDir, name: Option<&str>) -> Result<Response<Incoming>, RequestError> {
    if let Some(name) = name {
        client::expect_service(place, "show the events of", name).await?;
    }
    client::events(place).await
}

/// The reason why events are not shown any more.
enum Ended {
    Failed(Failure),
    Output(io::Error),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// The events that are shown, and their form.
struct Shown {
    name: Option<String>,
    only_alerts: bool,
    regex: Option<Regex>,
    is_json: bool,
}

/// The most recent of the stored events that were shown, with their number: those that may be
/// delivered again as new ones.
type Recent = HashMap<Vec<u8>, u32>;

impl Shown {
    /// Shows stored events. Returns `None` if there are none, selected or not.
    fn stored(&self, state: &StateDir, query: &Query) -> Result<Option<Recent>, Ended> {
        let (mut logs, mut unread) = (Vec::new(), Vec::new());
        for (name, dir) in places(state, self.name.as_deref())? {
            match open(&dir) {
                Ok(log) => logs.extend(log.map(|log| (name, dir, log))),
                Err(error) => unread.push(unreadable(&name, &dir, &error)),
            }
        }
        let reads: Vec<_> = logs
            .iter()
            .map(|(name, ..)| |line: &[u8]| self.wanted(name, line))
            .collect();
        let inputs: Vec<_> = logs
            .iter()
            .zip(&reads)
            .enumerate()
            .map(|(service, ((_, _, log), read))| Input {
                log,
                service,
                read,
                is_whole: false,
            })
            .collect();
        let mut out = BufWriter::with_capacity(64 << 10, output::screen(Foreign::Text));
        let mut recent = Recent::new();
        let since = now().saturating_sub(OVERLAP);
        let merged = merge(&inputs, query, |_, time, line, text| {
            if time.micros >= since {
                *recent.entry(line.to_vec()).or_default() += 1;
            }
            out.write_all(&text)
        });
        match merged.and_then(|()| out.flush().map_err(MergeError::Output)) {
            // One that cannot be read hides no other.
            Ok(()) => match unread.pop() {
                None => Ok((!logs.is_empty()).then_some(recent)),
                Some(last) => {
                    unread.iter().for_each(output::fail);
                    Err(last.into())
                }
            },
            Err(MergeError::Output(error)) => Err(error.into()),
            Err(MergeError::Input(number, error)) => {
                let (name, dir, _) = &logs[number];
                Err(unreadable(name, dir, &error).into())
            }
        }
    }

    /// Shows new events until the supervisor ends.
    async fn live(
        &self,
        place: &StateDir,
        stream: Response<Incoming>,
        mut recent: Recent,
    ) -> Result<ExitCode, Ended> {
        let mut body = stream.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                let place = place.path().display();
                let message = format!("the supervisor of {place} was killed");
                Failure::new(Code::NotRunning, message).hint("see its services: mainstay status")
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            pending.extend_from_slice(&data);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let shown = recent.get_mut(&line).filter(|count| **count > 0);
                let service = self.name.as_deref().unwrap_or_default();
                if let Some(count) = shown {
                    *count -= 1;
                } else if let Some((_, text)) = self.wanted(service, without_end(&line)) {
                    show_now(&text)?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the output for a line of the log of `service`, with its number among the events of
    /// its supervisor, if it is to be shown.
    fn wanted(&self, service: &str, line: &[u8]) -> Option<(u64, Vec<u8>)> {
        let message = Message::of(line)?;
        let (sequence, text, is_selected) = match &message {
            Message::Event(event) => {
                let is_named = self.name.as_ref().is_none_or(|name| *name == event.service);
                let is_selected = is_named && (event.is_alert || !self.only_alerts);
                (event.sequence, event.message.as_bytes(), is_selected)
            }
            Message::Loss(text) => (0, text.as_bytes(), true),
        };
        let matches = self.regex.as_ref().is_none_or(|it| it.is_match(text));
        (is_selected && matches).then(|| (sequence, self.output(service, line, &message)))
    }

    /// Returns the output for a line, which says this.
    fn output(&self, service: &str, line: &[u8], message: &Message<'_>) -> Vec<u8> {
        let text = match message {
            // Fields of later versions are kept.
            Message::Event(_) if self.is_json => return [line, b"\n"].concat(),
            Message::Event(event) => {
                format!("{} {}: {}\n", event.stamp, event.service, event.message)
            }
            Message::Loss(text) if self.is_json => {
                let loss = serde_json::json!({
                    "service": service,
                    "event": "lost",
                    "message": text,
                });
                format!("{loss}\n")
            }
            Message::Loss(text) => format!("{service}: {text}\n"),
        };
        text.into_bytes()
    }

    fn start_failure(&self, cause: &StartFailure) -> Result<(), Ended> {
        let event = serde_json::json!({
            "time": cause.time,
            "service": self.name,
            "event": "start_failed",
            "message": cause.line(),
        });
        let line = event.to_string().into_bytes();
        match Message::of(&line) {
            Some(message) => Ok(show_now(&self.output("", &line, &message))?),
            None => Ok(()),
        }
    }

    /// Returns the failure if no event of the service is stored, or none of any service.
    async fn nothing_stored(&self, place: &StateDir) -> Result<(), RequestError> {
        let Some(name) = &self.name else {
            return client::status(place).await.map(drop);
        };
        if ServiceName::new(name).is_none() {
            return Err(not_found::service(place, name).into());
        }
        client::expect_service(place, "show the events of", name).await?;
        let message = format!("no events of {name} yet: it has not been started");
        Err(Failure::new(Code::Unknown, message).into())
    }

    /// Returns the failure if no event of the service is stored. Stored events need no supervisor.
    fn unstored(&self, failure: Failure, state: &StateDir) -> Failure {
        let is_absent = failure.code() == Code::NotRunning && failure.sought().is_some();
        match &self.name {
            Some(name) if is_absent => not_found::stored(state, "events of", name),
            _ => failure,
        }
    }

    /// Returns the failure of a request, or that of a service which is installed nowhere.
    fn absent(&self, state: &StateDir, error: RequestError) -> Failure {
        match &self.name {
            Some(name) => not_found::service_or(state, &[name], error),
            None => error.into(),
        }
    }
}

/// The meaning of a stored line.
pub(super) enum Message<'a> {
    Event(StoredEvent<'a>),
    /// Events were lost, because the disk did not accept them.
    Loss(Cow<'a, str>),
}

impl<'a> Message<'a> {
    fn of(line: &'a [u8]) -> Option<Self> {
        if line.starts_with(b"mainstay: ") {
            return Some(Self::Loss(String::from_utf8_lossy(line)));
        }
        StoredEvent::parse(line).map(Self::Event)
    }
}

/// Writes text, now.
fn show_now(text: &[u8]) -> io::Result<()> {
    let mut out = output::screen(Foreign::Text);
    out.write_all(text)?;
    out.flush()
}

/// Returns the services with their directories of events.
fn places(state: &StateDir, name: Option<&str>) -> Result<Vec<(String, PathBuf)>, Failure> {
    let place = |name: &str| (name.to_owned(), state.of(name).events_dir().join(name));
    if let Some(name) = name {
        // Only a valid service name may become part of a path.
        let name = ServiceName::new(name).into_iter();
        return Ok(name.map(|name| place(name.as_str())).collect());
    }
    let dir = state.events_dir();
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(unreadable("all services", &dir, &error)),
        Ok(entries) => Some(entries),
    };
    let own = entries.into_iter().flatten().flatten();
    let own = own.filter_map(|entry| ServiceName::new(entry.file_name().to_str()?));
    let own = own.map(|name| (name.to_string(), dir.join(name.as_str())));
    let hosted = Installed::all(state).into_iter();
    let hosted = hosted.filter(|it| !it.is_direct());
    let all: BTreeSet<_> = own
        .chain(hosted.map(|it| place(it.name().as_str())))
        .collect();
    Ok(all.into_iter().collect())
}

/// Passes on all stored events of a service, oldest first. Returns whether there are any.
pub(super) fn each_stored(
    state: &StateDir,
    name: &str,
    mut receive: impl FnMut(Message<'_>),
) -> Result<bool, Failure> {
    let mut are_any = false;
    for (_, dir) in places(state, Some(name))? {
        let mut read = || -> io::Result<()> {
            let Some(log) = open(&dir)? else {
                return Ok(());
            };
            let mut lines = log.lines(log.select(&Query::default(), None)?);
            let mut line = Vec::new();
            while lines.next(&mut line)?.is_some() {
                if let Some(message) = Message::of(without_end(&line)) {
                    are_any = true;
                    receive(message);
                }
            }
            Ok(())
        };
        read().map_err(|error| unreadable(name, &dir, &error))?;
    }
    Ok(are_any)
}

/// Opens the log of a service's events, as far as they are whole; `None` if there is none.
fn open(dir: &Path) -> io::Result<Option<Log>> {
    let mut log = match Log::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        log => log?,
    };
    log.leave_unfinished_line()?;
    Ok(Some(log))
}

fn unreadable(name: &str, dir: &Path, error: &io::Error) -> Failure {
    let operation = format!("cannot read the events of {name}");
    match error.kind() {
        io::ErrorKind::PermissionDenied => access::denied(&operation, dir, error),
        _ => Failure::new(Code::Failed, format!("{operation}: {error}")),
    }
}
