//! The way of a line from a pipe to a file.
//!
//! One thread owns the output of all services, so that a slow disk never delays supervision and supervision never delays a line. Each
//! service has one pipe, or one for each stream; it outlives restarts and, on Linux, the supervisor itself, so a grandchild that still holds it
//! neither delays a restart nor loses its output. The pipe is always drained: what the disk refuses is counted and said, and blocks nobody.
//! `pipes` are made, `pump` waits for them, `pump/hand` moves what they hold, `capture` distributes it, `file` writes, `disk` is the seam for
//! tests; `read` is the way back, for `mainstay logs`.

use std::io::{self, PipeWriter};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use mainstay_core::log::redact::RedactionKey;
use mainstay_core::log::refine::Stream;
use mainstay_core::spec::{LogFormat, LogPolicy, ServiceName, SinkTarget, Spec};
use regex::bytes::Regex;

mod capture;
mod compress;
mod disk;
mod file;
mod lines;
#[cfg(unix)]
mod orders;
mod pipes;
#[cfg_attr(windows, path = "pump/windows.rs")]
mod pump;
pub(crate) mod read;
mod sink;
#[cfg(unix)]
#[cfg(test)]
mod tests;

use capture::Capture;
use file::Limits;
pub(crate) use file::{Lost, Trouble};
use pipes::{OurEnd, Pipe, STDERR};
pub(crate) use pipes::{Pipes, ServicePipes, end_keeper};
use pump::Pump;
pub(crate) use sink::{SinkEvent, this_host};

use super::screen::Screen;
use crate::output::Foreign;

/// The logs of all services, and the thread that writes them. Dropping it ends the thread as [`Logs::close`] does, but does not wait.
pub(crate) struct Logs {
    pump: Pump,
    pipes: Pipes,
}

/// What the log thread has to say. It comes on that thread, or on the one that compresses: take it elsewhere, without blocking.
#[derive(Debug)]
pub(crate) enum LogEvent {
    /// A line matched what [`Logs::expect_line`] asked for. Comes once.
    Matched {
        /// Whose line.
        service: ServiceName,
        /// The caller's.
        token: u64,
    },
    /// Output cannot be written, or files cannot be rotated or compressed. Comes once for each until it works
    /// again; every further chunk is a further try.
    Failing {
        /// Whose log.
        service: ServiceName,
        /// What failed first.
        trouble: Trouble,
    },
    /// It works again. What was lost is also said in the log.
    Recovered {
        /// Whose log.
        service: ServiceName,
        /// Nothing where only the rotation or the compression had failed.
        lost: Lost,
    },
    /// Of a place where lines go beside the files.
    Sink(SinkEvent),
}

/// What is left to say when everything is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Output of all services that never reached the disk.
    pub(crate) lost: Lost,
    /// What waited for local sinks until the end.
    pub(crate) sinks: Vec<(SinkTarget, ServiceName, Lost)>,
}

/// Where things lie.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Holds a directory for each service.
    pub(crate) logs_dir: PathBuf,
    /// For what waits for sinks on the network.
    pub(crate) spool_dir: PathBuf,
}

/// The ends of a service's pipes that its processes write to. They block where the pipe is full and close on exec.
#[derive(Debug)]
pub(crate) struct LogEnds {
    stdout: PipeWriter,
    stderr: Option<PipeWriter>,
    /// Where they are read, as long as they are.
    ours: Vec<Weak<OurEnd>>,
    /// See [`Logs::starting`].
    pub(crate) tells_runs: bool,
}

impl LogEnds {
    /// What comes next is left in the pipes until [`Logs::began`].
    fn draw_line(&self) {
        #[cfg(unix)]
        for pipe in self.ours.iter().filter_map(Weak::upgrade) {
            pipe.end_run();
        }
        #[cfg(not(unix))]
        let _ = &self.ours;
    }

    /// For another process of the same service.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            stdout: self.stdout.try_clone()?,
            stderr: self
                .stderr
                .as_ref()
                .map(PipeWriter::try_clone)
                .transpose()?,
            ours: self.ours.clone(),
            tells_runs: self.tells_runs,
        })
    }

    /// For `AsFd`, `AsHandle` or, through `try_clone`, `Stdio`.
    pub(crate) fn stdout(&self) -> &PipeWriter {
        &self.stdout
    }
    /// The same pipe as [`LogEnds::stdout`], so that both stay in order, unless the streams are split.
    pub(crate) fn stderr(&self) -> &PipeWriter {
        self.stderr.as_ref().unwrap_or(&self.stdout)
    }
}

/// A service and what its manifest says of its log.
#[derive(Clone, Debug)]
struct Wanted {
    service: ServiceName,
    policy: LogPolicy,
    /// What relative paths in it are relative to.
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

/// Where a pattern is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// In what is read from now on: also in what a predecessor left unread, where it is asked for before [`Logs::begin`].
    Unread,
    /// In what comes after the next [`Logs::starting`].
    NextRun,
}

/// An order to the log thread.
#[cfg_attr(
    windows,
    expect(dead_code, reason = "there the pipes' own threads open and close")
)]
enum Command {
    Open {
        wanted: Box<Wanted>,
        stream: Option<Stream>,
        pipe: Arc<OurEnd>,
    },
    /// All pipes are open.
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
    /// Remember the last lines from now on.
    Remember {
        service: ServiceName,
    },
    /// Tell what was remembered, all that the service's pipes hold now included, and remember no more.
    Recall {
        service: ServiceName,
        done: Box<dyn FnOnce(Vec<String>) + Send>,
    },
    Prepare,
    Follow(Screen, Foreign),
    Rotate {
        service: ServiceName,
        done: Box<dyn FnOnce(Result<(), Trouble>) + Send>,
    },
    /// Write what the service's pipes still hold, remove the names of these pipes, and forget it.
    Forget {
        service: ServiceName,
        name_paths: Vec<PathBuf>,
        done: Box<dyn FnOnce() + Send>,
    },
    /// Look at all that the service's pipes hold now, an unfinished line included.
    Drain {
        service: ServiceName,
        done: Box<dyn FnOnce() + Send>,
    },
    /// Answer (by dropping it) when everything that the pipes hold now is written.
    #[cfg(all(test, unix))]
    Settle(std::sync::mpsc::Sender<()>),
    Close,
}

impl Capture {
    /// Performs what needs no pipe.
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
            Command::Follow(screen, foreign) => self.follow(screen, foreign),
            Command::Rotate { service, done } => done(self.rotate(&service)),
            // Its pipes go with their writers.
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
            #[cfg(all(test, unix))]
            Command::Settle(_) => {}
        }
    }
}

impl Logs {
    /// Starts the log thread. Each service's files will lie in `logs_dir/NAME`; nothing is made before the first [`Logs::open`].
    ///
    /// What a supervisor that was killed left half-written is put right first. `events` is called on the log thread, and on the
    /// one that compresses rotated files while there are any.
    pub(crate) fn start(
        places: Places,
        mut pipes: Pipes,
        key: RedactionKey,
        events: impl Fn(LogEvent) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let root_dir = places.logs_dir.clone();
        let capture = Capture::new(places, key, Arc::new(events));
        let pump = Pump::start(capture, &mut pipes, &root_dir)?;
        let orphans = std::mem::take(&mut pipes.orphans);
        let logs = Self { pump, pipes };
        for pipe in orphans {
            let (service, stream) = match pipe.name.strip_suffix(STDERR) {
                Some(service) => (service, Some(Stream::Stderr)),
                None => (&*pipe.name, None),
            };
            if let Some(service) = ServiceName::new(service) {
                let wanted = Wanted::new(service, LogPolicy::default(), Path::new(""));
                logs.pump.open(&wanted, stream, Arc::new(pipe))?;
            }
        }
        Ok(logs)
    }

    /// Pipes for a service that comes later than the others; see [`Pipes::make`]. Have them kept next.
    pub(crate) fn make(
        &mut self,
        service: &ServiceName,
        policy: &LogPolicy,
        owner: Option<&crate::host::sys::User>,
    ) -> io::Result<ServicePipes> {
        self.pipes.make(service, policy, owner)
    }

    /// Another log for a service of which nothing runs, in the place of the one that it has. Have its pipes kept next.
    pub(crate) fn replace(
        &mut self,
        spec: &Spec,
        manifest_dir: &Path,
        owner: Option<&crate::host::sys::User>,
    ) -> io::Result<LogEnds> {
        let pipes = self.make(spec.name(), spec.log(), owner)?;
        self.forget(spec.name(), false, || {});
        self.open(spec.name(), spec.log(), manifest_dir, pipes)
    }

    /// Has the pipes of these services, and those that were made since, held open from now on, and no others.
    pub(crate) fn keep<'a>(
        &mut self,
        services: impl Iterator<Item = &'a LogEnds>,
    ) -> io::Result<()> {
        self.pipes.keep_with(services)
    }

    /// Services write from now on: the pipes outlive this process, unless it [closes](Logs::close) them.
    pub(crate) fn need(&mut self) {
        self.pipes.need();
    }

    /// Whether this child, which has ended, held the pipes open. Have them kept again then.
    pub(crate) fn keeper_ended(&mut self, pid: u32) -> bool {
        self.pipes.keeper_ended(pid)
    }

    /// The process that holds the pipes open.
    pub(crate) fn keeper(&self) -> Option<u32> {
        self.pipes.keeper()
    }

    /// Makes what is needed in a state directory that was lost.
    pub(crate) fn make_dir_again(&self) -> io::Result<()> {
        self.pipes.make_dir_again()
    }

    /// Writes what the service's pipes still hold, and reads them no more; where it `is_removed`, the pipes' names go. `done` is called on
    /// the log thread, when its files are closed.
    pub(crate) fn forget(
        &self,
        service: &ServiceName,
        is_removed: bool,
        done: impl FnOnce() + Send + 'static,
    ) {
        let name_paths = match is_removed {
            true => self.pipes.name_paths(service),
            false => Vec::new(),
        };
        self.pump.send(Command::Forget {
            service: service.clone(),
            name_paths,
            done: Box::new(done),
        });
    }

    /// Reads the service's pipes from [`Logs::begin`] on. `manifest_dir` is what relative paths in `policy` are relative to. Touches no disk; see [`Logs::prepare`]. What the disk refuses comes as [`LogEvent::Failing`].
    pub(crate) fn open(
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
        let mut open = |pipe: Pipe, stream: Stream| -> io::Result<PipeWriter> {
            let stream = is_split.then_some(stream);
            let ours = Arc::new(pipe.ours);
            all_ours.push(Arc::downgrade(&ours));
            self.pump.open(&wanted, stream, ours)?;
            Ok(pipe.writer)
        };
        Ok(LogEnds {
            stdout: open(stdout, Stream::Stdout)?,
            stderr: stderr
                .map(|stderr| open(stderr, Stream::Stderr))
                .transpose()?,
            ours: all_ours,
            tells_runs: policy.format() == LogFormat::Json || !policy.sinks().is_empty(),
        })
    }

    /// Has the thread take from the pipes. What it finds before waits in them. Call it when all of them are open.
    pub(crate) fn begin(&self) {
        self.pump.send(Command::Begin);
    }

    /// With a pipe that has no name.
    #[cfg(all(test, unix))]
    fn open_with(&self, service: &ServiceName, limits: Limits) -> io::Result<LogEnds> {
        let mut wanted = Wanted::new(service.clone(), LogPolicy::default(), Path::new(""));
        wanted.limits = limits;
        let (reader, stdout) = io::pipe()?;
        let ours = Arc::new(OurEnd::new(service.to_string(), reader, false));
        self.pump.open(&wanted, None, Arc::clone(&ours))?;
        Ok(LogEnds {
            stdout,
            stderr: None,
            ours: vec![Arc::downgrade(&ours)],
            tells_runs: false,
        })
    }

    /// Says that another run of the service will be started: what its pipes hold now is taken for the last one's, whose unfinished line ends
    /// here, and what comes next is left in them until [`Logs::began`]. The first run needs it only where the log says whose each line is
    /// ([`LogEnds::tells_runs`]), or after [`Logs::expect_line`]. On Windows, where nothing tells what a pipe holds, what comes right after
    /// this call may be taken for the last run's.
    pub(crate) fn starting(&self, service: &ServiceName, ends: &LogEnds) {
        ends.draw_line();
        let service = service.clone();
        self.pump.send(Command::Starting { service });
    }

    /// Says whose output comes from now on.
    pub(crate) fn began(&self, service: &ServiceName, pid: u32, restart: u32) {
        let service = service.clone();
        self.pump.send(Command::Began {
            service,
            pid,
            restart,
        });
    }

    /// Asks for one [`LogEvent::Matched`] with `token` at the first whole line, without its end, that matches. Call it when the last run's
    /// whole tree is gone, and no line is missed, nor a late one of an earlier process taken for its own. It replaces what the
    /// service was asked for before. Of a line, 64 KiB are looked at.
    ///
    /// Fails if `regex` is not a regular expression that the `regex` crate takes.
    pub(crate) fn expect_line(
        &self,
        service: &ServiceName,
        regex: &str,
        token: u64,
        scope: Scope,
    ) -> Result<(), regex::Error> {
        let regex = Regex::new(regex)?;
        let service = service.clone();
        self.pump.send(Command::Expect {
            service,
            regex,
            token,
            scope,
        });
        Ok(())
    }

    /// Has all that the service has written up to now looked at for what was asked by [`Logs::expect_line`], an unfinished line included.
    /// Calls `done` on the log thread, after any [`LogEvent::Matched`]. Windows cannot tell what a pipe holds: what has not been read there
    /// is not looked at.
    pub(crate) fn drain(&self, service: &ServiceName, done: impl FnOnce() + Send + 'static) {
        let (service, done) = (service.clone(), Box::new(done));
        self.pump.send(Command::Drain { service, done });
    }

    /// Says that another run of the service will be started beside the one that goes on: what comes next is left in the pipes until
    /// [`Logs::began`], but no line ends here.
    pub(crate) fn starting_beside(&self, ends: &LogEnds) {
        ends.draw_line();
    }

    /// Has the last lines of a service kept in memory: those of the run whose start was said before.
    pub(crate) fn remember(&self, service: &ServiceName) {
        let service = service.clone();
        self.pump.send(Command::Remember { service });
    }

    /// Calls `done`, on the log thread, with the last lines, at most 20, that the service wrote since [`Logs::remember`]; they are as they are in
    /// the log, without what is to be redacted. Then they are forgotten.
    pub(crate) fn recall(
        &self,
        service: &ServiceName,
        done: impl FnOnce(Vec<String>) + Send + 'static,
    ) {
        let (service, done) = (service.clone(), Box::new(done));
        self.pump.send(Command::Recall { service, done });
    }

    /// Has the directories (0700) and files (0600) made of all services that have not written yet; until then, they come with the first
    /// byte. So the first start of many services does not wait for the disk.
    pub(crate) fn prepare(&self) {
        self.pump.send(Command::Prepare);
    }

    /// Shows the whole lines of all services as `name | line`, in the order in which they arrive.
    pub(super) fn follow(&self, screen: Screen, foreign: Foreign) {
        self.pump.send(Command::Follow(screen, foreign));
    }

    /// Whether the log thread takes no orders, as a disk hangs: what can be put off is to be refused.
    pub(crate) fn is_behind(&self) -> bool {
        self.pump.is_behind()
    }

    /// Begins a new file at the next end of a line. `done` is called on the log thread.
    pub(crate) fn rotate(
        &self,
        service: &ServiceName,
        done: impl FnOnce(Result<(), Trouble>) + Send + 'static,
    ) {
        let (service, done) = (service.clone(), Box::new(done));
        self.pump.send(Command::Rotate { service, done });
    }

    /// Blocks until all that the pipes hold now is in the files. Windows cannot tell what a pipe holds.
    #[cfg(all(test, unix))]
    pub(crate) fn settle(&self) {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.pump.send(Command::Settle(sender));
        let _dropped_when_done: Result<(), std::sync::mpsc::RecvError> = receiver.recv();
    }

    /// Blocks until all that was written before this call is in the files, closes them and ends the thread. What is written later is lost.
    pub(crate) fn close(self) -> Summary {
        let summary = self.pump.close();
        self.pipes.end();
        summary
    }

    /// The same for a supervisor that leaves its services running: what they write later waits in their pipes for the next one.
    pub(crate) fn leave(self) -> Summary {
        self.pump.close()
    }
}
