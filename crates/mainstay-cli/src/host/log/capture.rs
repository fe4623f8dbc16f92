//! What is done with output, whichever way it was read: written, looked at, shown.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use mainstay_core::spec::ServiceName;
use regex::bytes::Regex;

use super::disk::RealDisk;
use super::file::{Limits, LogFile, Report, Trouble};
use super::lines::{Lines, Terminal};
use super::{LogEvent, Summary};

/// One of the pipes that feed a service's log; normally its only one.
pub(super) type SourceId = usize;

/// Every service's log.
pub(super) struct Capture {
    root_dir: PathBuf,
    events: Box<dyn Fn(LogEvent) + Send>,
    services: BTreeMap<ServiceName, Service>,
    terminal: Option<Terminal>,
    summary: Summary,
}

struct Service {
    log: LogFile<RealDisk>,
    sources: usize,
    /// The pipe that was opened last.
    newest: SourceId,
    /// The pipe whose bytes came last.
    source: SourceId,
    lines: Lines,
    expected: Option<Expected>,
}

struct Expected {
    source: SourceId,
    regex: Regex,
    token: u64,
}

impl Capture {
    pub(super) fn new(root_dir: PathBuf, events: Box<dyn Fn(LogEvent) + Send>) -> Self {
        Self {
            root_dir,
            events,
            services: BTreeMap::new(),
            terminal: None,
            summary: Summary::default(),
        }
    }

    /// A pipe of this service will be read.
    pub(super) fn open(&mut self, name: &ServiceName, limits: Limits, source: SourceId) {
        if let Some(terminal) = &mut self.terminal {
            terminal.announce(name);
        }
        let service = self
            .services
            .entry(name.clone())
            .or_insert_with(|| Service {
                log: LogFile::new(RealDisk, self.root_dir.join(name.as_str()), limits),
                sources: 0,
                newest: source,
                source,
                lines: Lines::default(),
                expected: None,
            });
        service.sources += 1;
        service.newest = source;
        service.log.set_limits(limits);
        report(&self.events, name, &mut service.log);
    }

    /// Makes the files of all services that have not written yet.
    pub(super) fn prepare(&mut self) {
        for (name, service) in &mut self.services {
            service.log.prepare();
            report(&self.events, name, &mut service.log);
        }
    }

    /// All of a pipe has been read, and nobody holds its other end. The last one closes the log.
    pub(super) fn shut(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        service.sources -= 1;
        if service.sources == 0 {
            self.finish_service(name);
        }
    }

    /// Output of a service.
    pub(super) fn accept(&mut self, name: &ServiceName, source: SourceId, bytes: &[u8]) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        if service.source != source {
            service.source = source;
            service.log.end_line();
        }
        service.log.write(bytes);
        report(&self.events, name, &mut service.log);
        look(service, name, bytes, &mut self.terminal, &self.events);
    }

    /// Looks for a line that matches in what comes through the pipe that was opened last, from the next byte on. Takes the place of what was looked for before.
    pub(super) fn expect(&mut self, name: &ServiceName, regex: Regex, token: u64) {
        if let Some(service) = self.services.get_mut(name) {
            let source = service.newest;
            service.expected = Some(Expected {
                source,
                regex,
                token,
            });
        }
    }

    pub(super) fn rotate(&mut self, name: &ServiceName) -> Result<(), Trouble> {
        let Some(service) = self.services.get_mut(name) else {
            return Ok(());
        };
        let result = service.log.rotate();
        report(&self.events, name, &mut service.log);
        result
    }

    /// Shows every line from now on. Without a thread to show them nothing is shown; the log is not touched.
    pub(super) fn follow(&mut self, out: Box<dyn Write + Send>) {
        self.terminal = Terminal::new(out).ok();
        if let Some(terminal) = &mut self.terminal {
            self.services
                .keys()
                .for_each(|name| terminal.announce(name));
        }
    }

    /// Says and shows what waits, and closes every log.
    pub(super) fn finish(mut self) -> Summary {
        while let Some(name) = self.services.keys().next().cloned() {
            self.finish_service(&name);
        }
        if let Some(terminal) = self.terminal {
            terminal.finish();
        }
        self.summary
    }

    fn finish_service(&mut self, name: &ServiceName) {
        let Some(mut service) = self.services.remove(name) else {
            return;
        };
        service.log.finish();
        report(&self.events, name, &mut service.log);
        self.summary.lost += service.log.lost();
        let mut lines = std::mem::take(&mut service.lines);
        if let Some(terminal) = &mut self.terminal {
            let mut chunk = Vec::new();
            lines.finish(|line| terminal.render(name, line, &mut chunk));
            terminal.show(chunk);
        }
    }
}

fn report(events: &dyn Fn(LogEvent), name: &ServiceName, log: &mut LogFile<RealDisk>) {
    for report in log.reports() {
        let service = name.clone();
        events(match report {
            Report::Failing(trouble) => LogEvent::Failing { service, trouble },
            Report::Recovered(lost) => LogEvent::Recovered { service, lost },
        });
    }
}

/// Shows the lines in `bytes` to whoever wants them; costs nothing where nobody does.
fn look(
    service: &mut Service,
    name: &ServiceName,
    bytes: &[u8],
    terminal: &mut Option<Terminal>,
    events: &dyn Fn(LogEvent),
) {
    if service.expected.is_none() && terminal.is_none() {
        return;
    }
    let mut chunk = Vec::new();
    let source = service.source;
    let expected = &mut service.expected;
    service.lines.feed(bytes, |line| {
        if let Some(found) = expected.take_if(|e| e.source == source && e.regex.is_match(line)) {
            events(LogEvent::Matched {
                service: name.clone(),
                token: found.token,
            });
        }
        if let Some(terminal) = terminal {
            terminal.render(name, line, &mut chunk);
        }
    });
    match terminal {
        Some(terminal) => terminal.show(chunk),
        None if expected.is_none() => service.lines = Lines::default(),
        None => {}
    }
}
