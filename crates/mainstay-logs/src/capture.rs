//! The processing of output, independent of how it was read: it is refined, written, searched,
//! shown, and passed to sinks.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainstay_core::log::Line;
use mainstay_core::log::Stream;
use mainstay_core::log::encoding::Decoder;
use mainstay_core::log::redact::RedactionKey;
use mainstay_core::log::refine::{Origin, Record, Refiner, Unfinished};
use mainstay_core::slab::Slab;
use mainstay_core::spec::{Encoding, LogFormat, ServiceName};
use regex::bytes::Regex;

use super::compress::Compressor;
use super::disk::RealDisk;
use super::file::LogFile;
use super::lines::{Lines, Show, Terminal};
use super::report::{FileError, Lost, Report, Task};
use super::sink::{SinkHub, Sinks};
use super::tally::Tally;
use super::{LogEvent, Places, Summary, Wanted};

/// The time limit for slow sinks at the end.
const SINKS_TIMEOUT: Duration = Duration::from_secs(2);

/// The number of an open pipe that feeds a service's log, in a [`Slab`].
pub(super) type SourceId = usize;

/// The receiver of events.
pub(super) type Events = Arc<dyn Fn(LogEvent) + Send + Sync>;

/// The logs of all services.
pub(super) struct Capture {
    root_dir: PathBuf,
    key: RedactionKey,
    events: Events,
    compressor: Compressor,
    sinks: SinkHub,
    tally: Tally,
    /// Set if the losses may have changed since they were recorded.
    tally_is_due: bool,
    logs: Slab<Log>,
    channels: Slab<Channel>,
    /// Output lost by logs that are closed.
    lost: Lost,
    terminal: Option<Terminal>,
    /// The output that [`Capture::refine`] produced for [`Capture::put`].
    refined: Vec<u8>,
    /// The matches that [`Capture::refine`] found, sent once the lines are in the log.
    found: Vec<LogEvent>,
    remembered: HashMap<ServiceName, VecDeque<String>>,
}

/// The number of recent lines that are kept, and the bytes kept of each.
const REMEMBERED: usize = 20;
const REMEMBERED_BYTES: usize = 1000;

/// The files of a service, or of one of its streams.
struct Log {
    service: ServiceName,
    file: LogFile<RealDisk>,
}

/// The state of one pipe.
struct Channel {
    service: ServiceName,
    /// The index in [`Capture::logs`].
    log: usize,
    stream: Option<Stream>,
    run: Run,
    /// The transcoding of what the pipe yields to the text that everything but a raw file gets.
    decoder: Option<Decoder>,
    refiner: Option<Refiner>,
    /// Set if the file gets the bytes of the pipe.
    is_copied: bool,
    /// Set if an unfinished line in the file can be ended. In UTF-16, the byte of a line end would
    /// shift all that follows.
    can_end_line: bool,
    sinks: Sinks,
    lines: Lines,
    expected: Option<Expected>,
}

/// The run that wrote the output.
#[derive(Clone, Copy, Default)]
struct Run {
    pid: u32,
    restart: u32,
}

struct Expected {
    regex: Regex,
    token: u64,
}

/// The way to process bytes of a pipe.
#[cfg(target_os = "linux")]
pub(super) enum Way<'a> {
    /// Unchanged into the file, as far as it has room.
    Through(&'a mut LogFile<RealDisk>),
    /// Through [`Capture::refine`] and [`Capture::put`].
    Look,
}

impl Capture {
    /// Creates the set without any log. `tally` has the losses that an earlier supervisor could not
    /// report in its logs.
    pub(super) fn new(places: Places, key: RedactionKey, events: Events, tally: Tally) -> Self {
        let (of_files, of_sinks) = (Arc::clone(&events), Arc::clone(&events));
        let Places {
            logs_dir,
            spool_dir,
        } = places;
        Self {
            root_dir: logs_dir,
            key,
            events,
            compressor: Compressor::new(move |name, dir, report| {
                of_files(event(name, dir, report))
            }),
            sinks: SinkHub::new(spool_dir, move |event| {
                of_sinks(LogEvent::Sink(event));
            }),
            tally,
            tally_is_due: false,
            logs: Slab::default(),
            channels: Slab::default(),
            lost: Lost::default(),
            terminal: None,
            refined: Vec::new(),
            found: Vec::new(),
            remembered: HashMap::new(),
        }
    }

    pub(super) fn remember(&mut self, service: ServiceName) {
        for source in self.sources(&service) {
            self.channels[source].lines = Lines::default();
        }
        self.remembered.insert(service, VecDeque::new());
    }

    pub(super) fn recall(&mut self, service: &ServiceName) -> Vec<String> {
        let mut last = self.remembered.remove(service);
        for source in self.sources(service) {
            let lines = &mut self.channels[source].lines;
            lines.finish(|line| keep_last(&mut last.as_mut(), line));
        }
        last.unwrap_or_default().into()
    }

    /// Opens a source for a pipe of this service. If it `is_new`, the previous writer of the log
    /// will not continue.
    pub(super) fn open(
        &mut self,
        wanted: &Wanted,
        stream: Option<Stream>,
        is_new: bool,
    ) -> SourceId {
        let service = &wanted.service;
        if let Some(terminal) = &mut self.terminal {
            terminal.announce(service);
        }
        let mut dir = self.root_dir.join(service.as_str());
        if stream == Some(Stream::Stderr) && wanted.policy.format() == LogFormat::Raw {
            dir.push("stderr");
        }
        let is_there = |(_, log): &(usize, &Log)| log.file.dir() == dir;
        let log = self.logs.iter().find(is_there).map(|(i, _)| i);
        let log = log.unwrap_or_else(|| {
            let mut file = LogFile::new(RealDisk, dir, wanted.limits, self.compressor.of(service));
            if is_new {
                file.is_of_new_writers();
            }
            if let Some(unreported) = self.tally.take(relative(&self.root_dir, file.dir())) {
                file.inherit(unreported);
                self.tally_is_due = true;
            }
            self.logs.add(Log {
                service: service.clone(),
                file,
            })
        });
        let sinks = self
            .sinks
            .open(service, wanted.policy.sinks(), &wanted.manifest_dir);
        let policy = &wanted.policy;
        let decoder = Decoder::new(policy.encoding(), mainstay_sys::oem_code_page);
        let refiner = Refiner::new(policy, &self.key, !sinks.is_empty());
        let is_raw = policy.format() == LogFormat::Raw;
        self.channels.add(Channel {
            service: service.clone(),
            log,
            stream,
            run: Run::default(),
            is_copied: is_raw && (refiner.is_none() || decoder.is_some()),
            can_end_line: !is_raw || policy.encoding() != Encoding::Utf16Le,
            decoder,
            refiner,
            sinks,
            lines: Lines::default(),
            expected: None,
        })
    }

    /// Closes a source that yields no more bytes.
    pub(super) fn close(&mut self, source: SourceId) {
        if self.channels.get(source).is_some() {
            self.end_characters(source);
        }
        let Some(mut channel) = self.channels.take(source) else {
            return;
        };
        if let Some(terminal) = &mut self.terminal {
            terminal.show_rest(&mut channel.lines, &channel.service);
        }
        let shares = |(_, other): (usize, &Channel)| other.log == channel.log;
        if self.channels.iter().any(shares) {
            return;
        }
        if let Some(mut log) = self.logs.take(channel.log) {
            if channel.can_end_line {
                log.file.end_line();
            }
            log.file.finish();
            self.tally_is_due |= report(&*self.events, &mut log);
            self.lost += log.file.lost();
        }
        self.settle();
    }

    /// Creates the files of all services that have not written yet.
    pub(super) fn prepare(&mut self) {
        for (_, log) in self.logs.iter_mut() {
            log.file.prepare();
            self.tally_is_due |= report(&*self.events, log);
        }
        self.settle();
    }

    /// Returns the sources of a service.
    pub(super) fn sources(&self, service: &ServiceName) -> Vec<SourceId> {
        let of = |(id, channel): (SourceId, &Channel)| (channel.service == *service).then_some(id);
        self.channels.iter().filter_map(of).collect()
    }

    /// Returns the directory of the files that `source` feeds, relative to the root of all logs.
    #[cfg(target_os = "linux")]
    pub(super) fn dir(&self, source: SourceId) -> &Path {
        relative(
            &self.root_dir,
            self.logs[self.channels[source].log].file.dir(),
        )
    }

    /// Ends the unfinished line of the last run, all of whose output has been read.
    pub(super) fn ended(&mut self, source: SourceId) {
        self.end_characters(source);
        let channel = &self.channels[source];
        let log = &mut self.logs[channel.log];
        if channel.can_end_line {
            log.file.end_line();
        }
        self.tally_is_due |= report(&*self.events, log);
        self.record_losses();
    }

    /// Ends the output of a run. A character whose last bytes are missing becomes U+FFFD.
    fn end_characters(&mut self, source: SourceId) {
        let channel = &mut self.channels[source];
        let Some(decoder) = channel.decoder.take_if(Decoder::end) else {
            return;
        };
        let is_copied = channel.is_copied;
        self.refine(source, "\u{fffd}".as_bytes(), Unfinished::Take);
        if !is_copied {
            self.put(source, &[]);
        }
        self.channels[source].decoder = Some(decoder);
    }

    /// Attributes the following bytes to another run.
    pub(super) fn began(&mut self, source: SourceId, pid: u32, restart: u32) {
        self.channels[source].run = Run { pid, restart };
    }

    /// Returns how to process the next bytes of this source.
    #[cfg(target_os = "linux")]
    pub(super) fn way(&mut self, source: SourceId) -> Way<'_> {
        let channel = &self.channels[source];
        let is_looked_at = channel.refiner.is_some()
            || channel.expected.is_some()
            || self.terminal.is_some()
            || self.remembered.contains_key(&channel.service);
        if !is_looked_at {
            return Way::Through(&mut self.logs[channel.log].file);
        }
        Way::Look
    }

    /// Returns the file that [`Capture::put`] will write to.
    #[cfg(target_os = "linux")]
    pub(super) fn file(&mut self, source: SourceId) -> &mut LogFile<RealDisk> {
        &mut self.logs[self.channels[source].log].file
    }

    /// Processes `input`, everything that the source contains, and returns how many bytes of it
    /// were used. The rest, an unfinished line, must be passed again together with later bytes.
    /// Call [`Capture::put`] next.
    pub(super) fn refine(
        &mut self,
        source: SourceId,
        input: &[u8],
        unfinished: Unfinished,
    ) -> usize {
        self.refined.clear();
        let channel = &mut self.channels[source];
        let mut decoder = channel.decoder.take();
        let text = match &mut decoder {
            Some(decoder) => decoder.decode(input).as_bytes(),
            None => input,
        };
        let mut shown = Vec::new();
        let mut taken = text.len();
        if let Some(refiner) = &mut channel.refiner {
            let origin = Origin {
                service: channel.service.as_str(),
                time: unix_nanos(),
                stream: channel.stream,
                pid: channel.run.pid,
                restart: channel.run.restart,
            };
            let terminal = &self.terminal;
            let mut last = self.remembered.get_mut(&channel.service);
            let service = &channel.service;
            let sinks = &mut channel.sinks;
            let mut each = |record: &Record<'_>| {
                sinks.push(&Line {
                    time_ns: origin.time,
                    level: record.level,
                    stream: origin.stream,
                    pid: origin.pid,
                    restart: origin.restart,
                    message: record.message,
                    partial: record.partial,
                });
                keep_last(&mut last, record.message);
                if let Some(terminal) = terminal {
                    terminal.render(service, record.message, &mut shown);
                }
            };
            taken = refiner.refine(text, unfinished, &origin, &mut self.refined, &mut each);
            channel.sinks.flush();
        }
        let is_plain = channel.refiner.is_none();
        let expected = &mut channel.expected;
        let mut last = self.remembered.get_mut(&channel.service);
        if expected.is_some() || is_plain && (self.terminal.is_some() || last.is_some()) {
            channel.lines.feed(&text[..taken], |line| {
                if let Some(found) = expected.take_if(|expected| expected.regex.is_match(line)) {
                    self.found.push(LogEvent::Matched {
                        service: channel.service.clone(),
                        token: found.token,
                    });
                }
                if is_plain {
                    keep_last(&mut last, line);
                }
                if let (true, Some(terminal)) = (is_plain, &self.terminal) {
                    terminal.render(&channel.service, line, &mut shown);
                }
            });
        } else {
            channel.lines = Lines::default();
        }
        if let Some(terminal) = &mut self.terminal {
            terminal.show(shown);
        }
        if let Some(decoder) = &mut decoder {
            let is_last = unfinished == Unfinished::Take || is_plain;
            taken = decoder.consume(taken, input, is_last);
        }
        channel.decoder = decoder;
        taken
    }

    /// Writes the output that [`Capture::refine`] produced from `taken`.
    pub(super) fn put(&mut self, source: SourceId, taken: &[u8]) {
        self.write(source, taken);
        self.settle();
    }

    /// Writes like [`Capture::put`], but the write may still be undone until [`Capture::settle`].
    pub(super) fn write(&mut self, source: SourceId, taken: &[u8]) {
        let channel = &self.channels[source];
        let log = &mut self.logs[channel.log];
        if channel.is_copied {
            log.file.write(taken);
        } else {
            log.file.write(&self.refined);
        }
        self.tally_is_due |= report(&*self.events, log);
    }

    /// Makes the writes final: sends the matches, and starts compression and cleanup of rotated
    /// files.
    pub(super) fn settle(&mut self) {
        self.found.drain(..).for_each(&*self.events);
        self.compressor.begin();
        self.record_losses();
    }

    /// Records the losses for the next supervisor, in case this one is killed.
    fn record_losses(&mut self) {
        if std::mem::take(&mut self.tally_is_due) {
            let logs = self.logs.iter().map(|(_, log)| &log.file);
            let losses = logs.filter_map(|file| {
                let dir = relative(&self.root_dir, file.dir());
                Some((dir, file.unreported()?))
            });
            self.tally.record(losses);
        }
    }

    /// Releases memory that only large amounts of output need.
    #[cfg(unix)]
    pub(super) fn rest(&mut self) {
        self.refined = Vec::new();
    }

    /// Searches for a matching line from the next byte on, replacing the earlier search.
    pub(super) fn expect(&mut self, service: &ServiceName, regex: &Regex, token: u64) {
        for source in self.sources(service) {
            let regex = regex.clone();
            self.channels[source].lines = Lines::default();
            self.channels[source].expected = Some(Expected { regex, token });
        }
    }

    /// Searches the unfinished line of a run that has exited.
    pub(super) fn look_at_unfinished(&mut self, service: &ServiceName) {
        for source in self.sources(service) {
            let channel = &mut self.channels[source];
            let line = channel.lines.unfinished();
            let is_match = |expected: &mut Expected| expected.regex.is_match(line);
            if let Some(found) = channel
                .expected
                .take_if(|it| !line.is_empty() && is_match(it))
            {
                self.found.push(LogEvent::Matched {
                    service: channel.service.clone(),
                    token: found.token,
                });
            }
        }
        self.settle();
    }

    pub(super) fn rotate(&mut self, service: &ServiceName) -> Result<(), FileError> {
        let mut result = Ok(());
        let logs = self.logs.iter_mut().map(|(_, log)| log);
        for log in logs.filter(|log| log.service == *service) {
            result = result.and(log.file.rotate());
            self.tally_is_due |= report(&*self.events, log);
        }
        self.settle();
        result
    }

    /// Shows every line from now on.
    pub(super) fn follow(&mut self, show: Show) {
        let mut terminal = Terminal::new(show);
        let services = self.channels.iter().map(|(_, channel)| &channel.service);
        services.for_each(|name| terminal.announce(name));
        self.terminal = Some(terminal);
    }

    /// Reports and shows pending output, and closes every log.
    pub(super) fn finish(mut self) -> Summary {
        self.compressor.stop();
        let mut lost = self.lost;
        for (_, log) in self.logs.iter_mut() {
            log.file.finish();
            self.tally_is_due |= report(&*self.events, log);
            lost += log.file.lost();
        }
        self.record_losses();
        let sinks = self.sinks.close(SINKS_TIMEOUT);
        if let Some(terminal) = self.terminal {
            for (_, channel) in self.channels.iter_mut() {
                terminal.show_rest(&mut channel.lines, &channel.service);
            }
        }
        Summary { lost, sinks }
    }
}

fn keep_last(last: &mut Option<&mut VecDeque<String>>, line: &[u8]) {
    if let Some(last) = last {
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        let line = &line[..line.len().min(REMEMBERED_BYTES)];
        last.push_back(String::from_utf8_lossy(line).trim_end().to_owned());
    }
}

/// Passes on the reports of a log. Returns whether its losses may have changed.
fn report(events: &dyn Fn(LogEvent), log: &mut Log) -> bool {
    let mut may_differ = log.file.unreported().is_some();
    for report in log.file.reports() {
        may_differ |= matches!(report, Report::Recovered(Task::Writing, _));
        events(event(&log.service, log.file.dir(), report));
    }
    may_differ
}

/// Names the service and the directory that a report is about.
pub(super) fn event(name: &ServiceName, dir: &Path, report: Report) -> LogEvent {
    let (service, dir) = (name.clone(), dir.to_owned());
    match report {
        Report::Failing(task, file_error) => LogEvent::Failing {
            service,
            dir,
            task,
            file_error,
        },
        Report::Recovered(task, lost) => LogEvent::Recovered {
            service,
            dir,
            task,
            lost,
        },
    }
}

/// Returns the directory of a log relative to the root of all logs.
fn relative<'a>(root_dir: &Path, dir: &'a Path) -> &'a Path {
    dir.strip_prefix(root_dir).unwrap_or(dir)
}

/// Returns the current time, which all lines of a batch share.
fn unix_nanos() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since_1970.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}
