//! The path of a log line from a pipe to a file, and back to a reader.
//!
//! One thread owns the output of all services, so that a slow disk never delays supervision and
//! supervision never delays a line. Each service has one pipe, or one per stream. The pipe outlives
//! restarts and, on Linux, the supervisor itself, so a descendant that still holds it neither
//! delays a restart nor loses its output. The pipe is always drained: output that the disk refuses
//! is counted and reported in the log, and blocks no process. `pipes` creates the pipes,
//! `collector` waits for them, `collector/handoff` moves their content, `capture` distributes it,
//! `file` writes it, and `disk` is the seam for tests. `sink` forwards lines to journals and log
//! hosts, with [`tls`] if a manifest asks for it. [`read`] reads logs back for `mainstay logs`.
//!
//! The formats of lines, file names and indexes, and the rules for rotation, retention and
//! redaction are in `mainstay_core::log`. This crate does not know the state directory, the engine
//! or terminals: it is given directories, a key and callbacks.
#![forbid(unsafe_code)]

use std::io::{self, PipeWriter};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use mainstay_core::log::Stream;
use mainstay_core::log::redact::RedactionKey;
use mainstay_core::spec::{LogFormat, LogPolicy, ServiceName, SinkTarget, Spec};
use regex::bytes::Regex;

mod capture;
#[cfg_attr(windows, path = "collector/windows.rs")]
mod collector;
mod compress;
mod disk;
mod events;
mod file;
mod lines;
mod orders;
mod pipes;
pub mod read;
mod report;
mod sink;
mod step;
mod tally;
#[cfg(unix)]
#[cfg(test)]
mod tests;
pub mod tls;

use capture::Capture;
use collector::Collector;
pub use events::EventLog;
use file::Limits;
use lines::Show;
pub use orders::HANGS;
use pipes::{OurEnd, Pipe, STDERR};
pub use pipes::{Pipes, ServicePipes, end_keeper};
pub use report::{FileError, Lost, Task};
pub use sink::{SinkEvent, this_host};
pub use step::StepError;

/// The logs of all services, and the thread that writes them. Drop ends the thread as
/// [`Logs::close`] does, but does not wait.
pub struct Logs {
    collector: Collector,
    pipes: Pipes,
}

/// An event from the log thread or the compression thread. The callback runs on that thread, so it
/// must pass the event on without blocking.
#[derive(Debug)]
pub enum LogEvent {
    /// A line matched the pattern given to [`Logs::expect_line`]. Sent once.
    Matched {
        /// The service that wrote the line.
        service: ServiceName,
        /// The caller's token.
        token: u64,
    },
    /// Output cannot be written, or files cannot be rotated or compressed. Sent once for each
    /// failure until the operation works again. Every further chunk is another attempt.
    Failing {
        /// The service whose log is affected.
        service: ServiceName,
        /// The directory of the files.
        dir: PathBuf,
        /// The task that fails.
        task: Task,
        /// The first failure.
        file_error: FileError,
    },
    /// A task that failed works again. Lost output is also reported in the log.
    Recovered {
        /// The service whose log is affected.
        service: ServiceName,
        /// The directory of the files.
        dir: PathBuf,
        /// The task that failed.
        task: Task,
        /// The lost output; empty unless the task is writing.
        lost: Lost,
    },
    /// An event from a sink, to which lines go in addition to the files.
    Sink(SinkEvent),
}

/// The final report after everything is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Output of all services that never reached the disk.
    pub lost: Lost,
    /// Output that was still queued for local sinks at the end.
    pub sinks: Vec<(SinkTarget, ServiceName, Lost)>,
}

/// The directories for logs.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory that contains one directory per service.
    pub logs_dir: PathBuf,
    /// The directory for output queued for network sinks.
    pub spool_dir: PathBuf,
}

/// The write ends of a service's pipes, for its processes. They block while the pipe is full, and
/// close on exec.
#[derive(Debug)]
pub struct LogEnds {
    stdout: PipeWriter,
    stderr: Option<PipeWriter>,
    /// The read ends, while they are being read.
    ours: Vec<Weak<OurEnd>>,
    /// Set if the log distinguishes runs; see [`Logs::starting`].
    pub tells_runs: bool,
    /// Set until a run may have written to the pipes, under this supervisor or an earlier one.
    pub are_unused: bool,
}

impl LogEnds {
    /// Leaves all further output in the pipes until [`Logs::began`].
    fn draw_line(&self) {
        #[cfg(unix)]
        for pipe in self.ours.iter().filter_map(Weak::upgrade) {
            pipe.end_run();
        }
        #[cfg(not(unix))]
        let _ = &self.ours;
    }

    /// Duplicates the ends for another process of the same service.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            stdout: self.stdout.try_clone()?,
            stderr: self
                .stderr
                .as_ref()
                .map(PipeWriter::try_clone)
                .transpose()?,
            ours: self.ours.clone(),
            tells_runs: self.tells_runs,
            are_unused: self.are_unused,
        })
    }

    /// Returns the standard output, for `AsFd`, `AsHandle` or, through `try_clone`, `Stdio`.
    pub fn stdout(&self) -> &PipeWriter {
        &self.stdout
    }
    /// Returns the standard error. Unless the streams are split, it is the same pipe as
    /// [`LogEnds::stdout`], so that the order of both is preserved.
    pub fn stderr(&self) -> &PipeWriter {
        self.stderr.as_ref().unwrap_or(&self.stdout)
    }
}

/// A service with the log settings of its manifest.
#[derive(Clone, Debug)]
struct Wanted {
    service: ServiceName,
    policy: LogPolicy,
    /// The base directory of relative paths in the policy.
    manifest_dir: PathBuf,
    limits: Limits,
}

impl Wanted {
    fn new(service: ServiceName, policy: LogPolicy, manifest_dir: &Path) -> Self {
        let limits = Limits::from(&policy);
        Self {
            service,
            policy,
            manifest_dir: manifest_dir.to_owned(),
            limits,
        }
    }
}

/// The output in which a pattern is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The output read from now on. This includes unread output of an earlier run if requested
    /// before [`Logs::begin`].
    Unread,
    /// The output after the next [`Logs::starting`].
    NextRun,
}

/// A command to the log thread.
#[cfg_attr(
    windows,
    expect(dead_code, reason = "pipes have no names there, and no marks of runs")
)]
enum Command {
    Open {
        wanted: Box<Wanted>,
        stream: Option<Stream>,
        pipe: Arc<OurEnd>,
    },
    /// Write what was read from a pipe.
    #[cfg(windows)]
    Read(collector::Batch),
    /// Start reading: all pipes are open.
    Begin,
    Starting {
        service: ServiceName,
    },
    Began {
        service: ServiceName,
        pid: u32,
        restart: u32,
    },
    Expect {
        service: ServiceName,
        regex: Regex,
        token: u64,
        scope: Scope,
    },
    /// Keep the most recent lines from now on.
    Remember {
        service: ServiceName,
    },
    /// Return the kept lines, including everything that the service's pipes contain now, and stop
    /// keeping them.
    Recall {
        service: ServiceName,
        done: Box<dyn FnOnce(Vec<String>) + Send>,
    },
    Prepare,
    Follow(Show),
    Rotate {
        service: ServiceName,
        done: Box<dyn FnOnce(Result<(), FileError>) + Send>,
    },
    /// Write the remaining content of the service's pipes, remove the names of these pipes, and
    /// drop the service.
    Forget {
        service: ServiceName,
        name_paths: Vec<PathBuf>,
        done: Box<dyn FnOnce() + Send>,
    },
    /// Search everything that the service's pipes contain now, including an unfinished line.
    Drain {
        service: ServiceName,
        done: Box<dyn FnOnce() + Send>,
    },
    /// Reply (by dropping the sender) when everything that the pipes contain now has been written.
    #[cfg(all(test, unix))]
    Settle(std::sync::mpsc::Sender<()>),
    Close,
}

impl Capture {
    /// Performs commands that do not need a pipe.
    fn perform(&mut self, command: Command) {
        match command {
            Command::Expect {
                service,
                regex,
                token,
                ..
            } => self.expect(&service, &regex, token),
            Command::Began {
                service,
                pid,
                restart,
            } => {
                for source in self.sources(&service) {
                    self.began(source, pid, restart);
                }
            }
            Command::Remember { service } => self.remember(service),
            Command::Recall { service, done } => done(self.recall(&service)),
            Command::Prepare => self.prepare(),
            Command::Follow(show) => self.follow(show),
            Command::Rotate { service, done } => done(self.rotate(&service)),
            // The pipes end with their writers.
            Command::Forget { done, .. } => done(),
            Command::Drain { service, done } => {
                self.look_at_unfinished(&service);
                done();
            }
            Command::Starting { service } => {
                for source in self.sources(&service) {
                    self.ended(source);
                }
            }
            Command::Open { .. } | Command::Begin | Command::Close => {}
            #[cfg(windows)]
            Command::Read(_) => {}
            #[cfg(all(test, unix))]
            Command::Settle(_) => {}
        }
    }
}

impl Logs {
    /// Starts the log thread. The files of each service are in `logs_dir/NAME`; nothing is created
    /// before the first [`Logs::open`].
    ///
    /// Files that a killed supervisor left half-written are repaired first. `events` is called on
    /// the log thread, and on the compression thread while there are rotated files to compress.
    pub fn start(
        places: Places,
        mut pipes: Pipes,
        key: RedactionKey,
        events: impl Fn(LogEvent) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let root_dir = places.logs_dir.clone();
        let capture = Capture::new(places, key, Arc::new(events), pipes.tally()?);
        let collector = Collector::start(capture, &mut pipes, &root_dir)?;
        let orphans = std::mem::take(&mut pipes.orphans);
        let logs = Self { collector, pipes };
        for pipe in orphans {
            let (service, stream) = match pipe.name.strip_suffix(STDERR) {
                Some(service) => (service, Some(Stream::Stderr)),
                None => (&*pipe.name, None),
            };
            if let Some(service) = ServiceName::new(service) {
                let wanted = Wanted::new(service, LogPolicy::default(), Path::new(""));
                logs.collector.open(&wanted, stream, Arc::new(pipe))?;
            }
        }
        Ok(logs)
    }

    /// Creates pipes for a service that is added later; see [`Pipes::make`]. Call [`Logs::keep`]
    /// next.
    pub fn make(
        &mut self,
        service: &ServiceName,
        policy: &LogPolicy,
        owner: Option<&mainstay_sys::User>,
    ) -> io::Result<ServicePipes> {
        self.pipes.make(service, policy, owner)
    }

    /// Replaces the log of a service that has no running process. Call [`Logs::keep`] next.
    pub fn replace(
        &mut self,
        spec: &Spec,
        manifest_dir: &Path,
        owner: Option<&mainstay_sys::User>,
    ) -> io::Result<LogEnds> {
        let pipes = self.make(spec.name(), spec.log(), owner)?;
        self.close_pipes(spec.name());
        self.open(spec.name(), spec.log(), manifest_dir, pipes)
    }

    /// Holds open the pipes of these services and those created since, from now on, and no others.
    pub fn keep<'a>(&mut self, services: impl Iterator<Item = &'a LogEnds>) -> io::Result<()> {
        self.pipes.keep_with(services)
    }

    /// Marks the pipes as in use by services. From now on they outlive this process, unless it
    /// [closes](Logs::close) them.
    pub fn need(&mut self) {
        self.pipes.need();
    }

    /// Returns whether this ended child was the keeper of the pipes. If it was, call [`Logs::keep`]
    /// again.
    pub fn keeper_ended(&mut self, pid: u32) -> bool {
        self.pipes.keeper_ended(pid)
    }

    /// Returns the pid of the process that holds the pipes open.
    pub fn keeper(&self) -> Option<u32> {
        self.pipes.keeper()
    }

    /// Creates the required directory again after the state directory was lost.
    pub fn make_dir_again(&self) -> io::Result<()> {
        self.pipes.make_dir_again()
    }

    /// Writes the remaining content of the service's pipes, and stops reading them.
    pub fn close_pipes(&self, service: &ServiceName) {
        self.collector.send(Command::Forget {
            service: service.clone(),
            name_paths: Vec::new(),
            done: Box::new(|| {}),
        });
    }

    /// Writes the remaining content of the service's pipes, and removes them. `done` is called on
    /// the log thread, after the service's files are closed.
    pub fn forget(&self, service: &ServiceName, done: impl FnOnce() + Send + 'static) {
        self.collector.send(Command::Forget {
            service: service.clone(),
            name_paths: self.pipes.name_paths(service),
            done: Box::new(done),
        });
    }

    /// Reads the service's pipes from [`Logs::begin`] on. `manifest_dir` is the base of relative
    /// paths in `policy`. Does not access the disk; see [`Logs::prepare`]. Disk failures are
    /// reported as [`LogEvent::Failing`].
    pub fn open(
        &self,
        service: &ServiceName,
        policy: &LogPolicy,
        manifest_dir: &Path,
        pipes: ServicePipes,
    ) -> io::Result<LogEnds> {
        let wanted = Wanted::new(service.clone(), policy.clone(), manifest_dir);
        let ServicePipes { stdout, stderr } = pipes;
        let is_split = stderr.is_some();
        let mut all_ours = Vec::new();
        let mut are_unused = true;
        let mut open = |pipe: Pipe, stream: Stream| -> io::Result<PipeWriter> {
            let stream = is_split.then_some(stream);
            are_unused &= pipe.ours.is_new;
            let ours = Arc::new(pipe.ours);
            all_ours.push(Arc::downgrade(&ours));
            self.collector.open(&wanted, stream, ours)?;
            Ok(pipe.writer)
        };
        let stdout = open(stdout, Stream::Stdout)?;
        let stderr = stderr.map(|stderr| open(stderr, Stream::Stderr));
        Ok(LogEnds {
            stdout,
            stderr: stderr.transpose()?,
            ours: all_ours,
            tells_runs: policy.format() == LogFormat::Json || !policy.sinks().is_empty(),
            are_unused,
        })
    }

    /// Starts reading the pipes, which buffer all earlier output. Call it when all of them are
    /// open.
    pub fn begin(&self) {
        self.collector.send(Command::Begin);
    }

    /// Opens a log with an unnamed pipe.
    #[cfg(all(test, unix))]
    fn open_with(&self, service: &ServiceName, limits: Limits) -> io::Result<LogEnds> {
        let mut wanted = Wanted::new(service.clone(), LogPolicy::default(), Path::new(""));
        wanted.limits = limits;
        self.open_wanted(&wanted)
    }

    #[cfg(all(test, unix))]
    fn open_wanted(&self, wanted: &Wanted) -> io::Result<LogEnds> {
        let (reader, stdout) = io::pipe()?;
        let ours = Arc::new(OurEnd::new(wanted.service.to_string(), reader, false));
        self.collector.open(wanted, None, Arc::clone(&ours))?;
        Ok(LogEnds {
            stdout,
            stderr: None,
            ours: vec![Arc::downgrade(&ours)],
            tells_runs: false,
            are_unused: true,
        })
    }

    /// Announces that another run of the service will be started. The current content of its pipes
    /// is attributed to the last run, whose unfinished line ends here. Later output is left in the
    /// pipes until [`Logs::began`]. The first run ([`LogEnds::are_unused`]) needs this only if the
    /// log records the run of each line ([`LogEnds::tells_runs`]), or after [`Logs::expect_line`].
    /// Windows cannot report the content of a pipe, so output directly after this call may be
    /// attributed to the last run there.
    pub fn starting(&self, service: &ServiceName, ends: &LogEnds) {
        ends.draw_line();
        let service = service.clone();
        self.collector.send(Command::Starting { service });
    }

    /// Announces the run that the output comes from, from now on.
    pub fn began(&self, service: &ServiceName, pid: u32, restart: u32) {
        let service = service.clone();
        self.collector.send(Command::Began {
            service,
            pid,
            restart,
        });
    }

    /// Requests one [`LogEvent::Matched`] with `token` for the first whole line, without its
    /// terminator, that matches. If called after the last run's whole tree has ended, no line is
    /// missed, and no late line of an earlier process is attributed to the new run. Replaces the
    /// service's earlier request. At most 64 KiB of a line are searched.
    ///
    /// # Errors
    /// If `regex` is not a valid regular expression of the `regex` crate.
    pub fn expect_line(
        &self,
        service: &ServiceName,
        regex: &str,
        token: u64,
        scope: Scope,
    ) -> Result<(), regex::Error> {
        let regex = Regex::new(regex)?;
        let service = service.clone();
        self.collector.send(Command::Expect {
            service,
            regex,
            token,
            scope,
        });
        Ok(())
    }

    /// Searches everything that the service has written so far for the pattern of
    /// [`Logs::expect_line`], including an unfinished line. Calls `done` on the log thread, after
    /// any [`LogEvent::Matched`]. Windows cannot report the content of a pipe, so output that has
    /// not been read is not searched there.
    pub fn drain(&self, service: &ServiceName, done: impl FnOnce() + Send + 'static) {
        let (service, done) = (service.clone(), Box::new(done));
        self.collector.send(Command::Drain { service, done });
    }

    /// Announces that another run of the service will be started beside the current one. Later
    /// output is left in the pipes until [`Logs::began`], but no line ends here.
    pub fn starting_beside(&self, ends: &LogEnds) {
        ends.draw_line();
    }

    /// Keeps the most recent lines of a service in memory: those of the run that was announced
    /// before.
    pub fn remember(&self, service: &ServiceName) {
        let service = service.clone();
        self.collector.send(Command::Remember { service });
    }

    /// Calls `done`, on the log thread, with the most recent lines, at most 20, that the service
    /// wrote since [`Logs::remember`]. They are as in the log, that is, redacted. Then they are
    /// dropped.
    pub fn recall(&self, service: &ServiceName, done: impl FnOnce(Vec<String>) + Send + 'static) {
        let (service, done) = (service.clone(), Box::new(done));
        self.collector.send(Command::Recall { service, done });
    }

    /// Creates the directories (0700) and files (0600) of all services that have not written yet;
    /// otherwise they are created with the first byte. This way, the first start of many services
    /// does not wait for the disk.
    pub fn prepare(&self) {
        self.collector.send(Command::Prepare);
    }

    /// Shows the whole lines of all services as `name | line`, in the order of their arrival.
    /// `show` is called on the log thread, with the bytes of one or more lines. It must not block.
    pub fn follow(&self, show: impl Fn(&[u8]) + Send + 'static) {
        self.collector.send(Command::Follow(Box::new(show)));
    }

    /// Returns whether the log thread does not process commands because a disk hangs. Deferrable
    /// commands should be refused then.
    pub fn is_behind(&self) -> bool {
        self.collector.is_behind()
    }

    /// Begins a new file at the next line end. `done` is called on the log thread.
    pub fn rotate(
        &self,
        service: &ServiceName,
        done: impl FnOnce(Result<(), FileError>) + Send + 'static,
    ) {
        let (service, done) = (service.clone(), Box::new(done));
        self.collector.send(Command::Rotate { service, done });
    }

    /// Blocks until everything that the pipes contain now is in the files. Windows cannot report
    /// the content of a pipe.
    #[cfg(all(test, unix))]
    pub fn settle(&self) {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.collector.send(Command::Settle(sender));
        let _dropped_when_done: Result<(), std::sync::mpsc::RecvError> = receiver.recv();
    }

    /// Blocks until everything that was written before this call is in the files, closes them and
    /// ends the thread. Later output is lost. Returns `None` if the thread hangs on a disk, for
    /// [`HANGS`]. What it has not written then waits in the pipes for the next supervisor, where
    /// they outlive this one. `announce` is called before that, once the thread seems to hang.
    pub fn close(self, announce: impl FnMut()) -> Option<Summary> {
        let summary = self.collector.close(announce)?;
        self.pipes.end();
        Some(summary)
    }

    /// Closes the logs of a supervisor that leaves its services running. Their later output is
    /// buffered in the pipes for the next supervisor. Returns `None` as [`Logs::close`] does.
    pub fn leave(self, announce: impl FnMut()) -> Option<Summary> {
        self.collector.close(announce)
    }
}
