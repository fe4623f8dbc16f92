//! The pipes that services write to.
//!
//! On Linux they have names in the state directory and a [`Keeper`] that holds them open, so that
//! neither the pipes nor their content are lost when a supervisor is killed: its services continue
//! to write, and the next supervisor opens the same pipes. Each end may read and write, as with a
//! terminal, so a writer is also a reader and never gets SIGPIPE. On other systems the pipes have
//! no names.

#[cfg(unix)]
use std::collections::VecDeque;
#[cfg(all(unix, not(target_os = "linux")))]
use std::io::pipe as output_pipe;
use std::io::{self, PipeReader, PipeWriter};
use std::path::Path;
#[cfg(target_os = "linux")]
use std::path::PathBuf;
#[cfg(unix)]
use std::sync::{Mutex, MutexGuard, PoisonError};

use mainstay_core::spec::{LogPolicy, ServiceName, Streams};
use mainstay_sys as sys;
#[cfg(target_os = "linux")]
use mainstay_sys::Keeper;
#[cfg(windows)]
use mainstay_sys::output_pipe;
#[cfg(target_os = "linux")]
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
#[cfg(target_os = "linux")]
use rustix::fs::{CWD, FileType, Mode, OFlags};
#[cfg(target_os = "linux")]
use rustix::io::Errno;

use super::LogEnds;
use super::tally::Tally;

/// The suffix of the name of a pipe for standard error. A service's name contains no dot.
pub(super) const STDERR: &str = ".stderr";

/// The record of the keeper.
#[cfg(target_os = "linux")]
const KEEPER: &str = ".keeper";

/// The pipes of all services.
pub struct Pipes {
    #[cfg(target_os = "linux")]
    dir: PathBuf,
    /// The pipes to pass to the keeper.
    #[cfg(target_os = "linux")]
    held: Vec<OwnedFd>,
    #[cfg(target_os = "linux")]
    made: Vec<String>,
    #[cfg(target_os = "linux")]
    handoff: OwnedFd,
    #[cfg(target_os = "linux")]
    tally: OwnedFd,
    #[cfg(target_os = "linux")]
    keeper: Option<Keeper>,
    /// Set if services may write to the pipes, or if they contain unread output. The keeper then
    /// outlives a supervisor that ends early.
    #[cfg(target_os = "linux")]
    are_needed: bool,
    /// Set if no process held the pipes open.
    #[cfg(target_os = "linux")]
    are_new: bool,
    /// Pipes of services that this supervisor no longer runs.
    pub(super) orphans: Vec<OurEnd>,
}

/// One pipe: the supervisor's end and the service's.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) ours: OurEnd,
    pub(super) writer: PipeWriter,
}

#[derive(Debug)]
pub(super) struct OurEnd {
    pub(super) name: String,
    pub(super) reader: PipeReader,
    /// Set if no run of an earlier supervisor writes to it.
    pub(super) is_new: bool,
    /// The number of bytes in the pipe for each run that has ended, but that the reader has not
    /// finished. Bytes after them belong to the next run, and stay in the pipe until the reader is
    /// told about that run.
    #[cfg(unix)]
    ended: Mutex<VecDeque<u64>>,
}

impl OurEnd {
    pub(super) fn new(name: String, reader: PipeReader, is_new: bool) -> Self {
        Self {
            name,
            reader,
            is_new,
            #[cfg(unix)]
            ended: Mutex::default(),
        }
    }
}

#[cfg(unix)]
impl OurEnd {
    /// Marks the current content as the end of a run.
    pub(super) fn end_run(&self) {
        let mut ended = self.ended();
        let held = rustix::io::ioctl_fionread(&self.reader).unwrap_or(0);
        let before: u64 = ended.iter().sum();
        ended.push_back(held.saturating_sub(before));
    }

    /// Allows the bytes after the first mark to be read.
    pub(super) fn begin_run(&self) {
        self.ended().pop_front();
    }

    /// Returns the number of bytes that may be read now.
    pub(super) fn held(&self) -> u64 {
        let ended = self.ended();
        let held = rustix::io::ioctl_fionread(&self.reader).unwrap_or(0);
        ended.front().map_or(held, |limit| held.min(*limit))
    }

    /// Lets `take` read bytes from the pipe, at most [`OurEnd::held`], and return their number. It
    /// must not block, because starts wait for it.
    pub(super) fn take(&self, take: impl FnOnce(&PipeReader) -> usize) -> usize {
        let mut ended = self.ended();
        let count = take(&self.reader);
        if let Some(left) = ended.front_mut() {
            *left = left.saturating_sub(count as u64);
        }
        count
    }

    fn ended(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pipes that a service writes to: one, or one per stream.
#[derive(Debug)]
pub struct ServicePipes {
    pub(super) stdout: Pipe,
    pub(super) stderr: Option<Pipe>,
}

impl Pipes {
    /// Creates the pipes of a service according to its policy, or opens existing ones with their
    /// content. Uses two file descriptors each, three until [`Pipes::keep`].
    pub fn make(
        &mut self,
        service: &ServiceName,
        policy: &LogPolicy,
        owner: Option<&sys::User>,
    ) -> io::Result<ServicePipes> {
        Ok(ServicePipes {
            stdout: self.pipe(service.to_string(), owner)?,
            stderr: match policy.streams() {
                Streams::Merged => None,
                Streams::Split => Some(self.pipe(format!("{service}{STDERR}"), owner)?),
            },
        })
    }
}

#[cfg(not(target_os = "linux"))]
impl Pipes {
    /// Creates the set without any pipe.
    #[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
    pub fn new(_dir: &Path) -> io::Result<Self> {
        Ok(Self {
            orphans: Vec::new(),
        })
    }

    /// Returns a tally without content: no pipe outlives this process.
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the same shape on every system"
    )]
    pub(super) fn tally(&self) -> io::Result<Tally> {
        Ok(Tally::of(None))
    }

    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    fn pipe(&mut self, name: String, _owner: Option<&sys::User>) -> io::Result<Pipe> {
        let (reader, writer) = output_pipe()?;
        Ok(Pipe {
            ours: OurEnd::new(name, reader, true),
            writer,
        })
    }

    /// Does nothing: no pipe outlives this process.
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the same shape on every system"
    )]
    pub fn keep(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Does nothing, for the same reason.
    pub(super) fn keep_with<'a>(
        &mut self,
        _services: impl Iterator<Item = &'a LogEnds>,
    ) -> io::Result<()> {
        self.keep()
    }

    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub(super) fn name_paths(&self, _service: &ServiceName) -> Vec<std::path::PathBuf> {
        Vec::new()
    }

    /// Does nothing: the pipes end with the supervisor.
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub fn need(&mut self) {}

    /// Does nothing: there is no directory of pipes.
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the same shape on every system"
    )]
    pub(super) fn make_dir_again(&self) -> io::Result<()> {
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub(super) fn keeper_ended(&mut self, _pid: u32) -> bool {
        false
    }

    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub(super) fn keeper(&self) -> Option<u32> {
        None
    }

    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub(super) fn end(self) {}
}

#[cfg(target_os = "linux")]
impl Pipes {
    /// Opens the set in `dir`, which is created, owner-only, if it is missing.
    pub fn new(dir: &Path) -> io::Result<Self> {
        mainstay_sys::private::create_private_dir(dir)?;
        let handoff_path = dir.join(".hand");
        let are_new = !is_held(&handoff_path);
        make_fifo(&handoff_path)?;
        let handoff = open_fifo(&handoff_path, OFlags::NONBLOCK)?;
        let tally_path = dir.join(".tally");
        make_fifo(&tally_path)?;
        let tally = open_fifo(&tally_path, OFlags::NONBLOCK)?;
        Ok(Self {
            dir: dir.to_owned(),
            tally,
            are_new,
            held: Vec::new(),
            made: Vec::new(),
            handoff,
            keeper: None,
            are_needed: false,
            orphans: Vec::new(),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the supervisor's own pipe, which holds bytes between a service's pipe and its file.
    pub(super) fn handoff(&self) -> io::Result<OwnedFd> {
        self.handoff.try_clone()
    }

    /// Returns the losses that an earlier supervisor could not report.
    pub(super) fn tally(&self) -> io::Result<Tally> {
        Ok(Tally::of(Some(self.tally.try_clone()?.into())))
    }

    /// Opens the pipe with this name, and creates it if it is missing. It belongs to `owner`, so
    /// that the owner's programs may open `/dev/stdout`.
    fn pipe(&mut self, name: String, owner: Option<&sys::User>) -> io::Result<Pipe> {
        let path = self.dir.join(&name);
        make_fifo(&path)?;
        let mut reader = open_fifo(&path, OFlags::NONBLOCK)?;
        let uid = owner.map_or_else(sys::current_uid, sys::User::uid);
        if self.are_new && rustix::fs::fstat(&reader)?.st_uid != uid {
            // Processes of the account that the service ran as before may still have it open.
            std::fs::remove_file(&path)?;
            make_fifo(&path)?;
            reader = open_fifo(&path, OFlags::NONBLOCK)?;
        }
        let writer = open_fifo(&path, OFlags::empty())?;
        if let Some(owner) = owner {
            owner.give(&path)?;
        }
        self.held.push(reader.try_clone()?);
        self.made.push(name.clone());
        Ok(Pipe {
            ours: OurEnd::new(name, reader.into(), self.are_new),
            writer: writer.into(),
        })
    }

    /// Starts a keeper that holds all pipes open from now on, even if this process ends.
    pub fn keep(&mut self) -> io::Result<()> {
        self.find_orphans()?;
        let orphans = self.orphans.iter().map(|orphan| orphan.reader.as_fd());
        let held = self.held.iter().map(OwnedFd::as_fd);
        let fds: Vec<BorrowedFd<'_>> = held
            .chain(orphans)
            .chain([self.handoff.as_fd(), self.tally.as_fd()])
            .collect();
        let holds_any =
            |pipe: &BorrowedFd<'_>| rustix::io::ioctl_fionread(pipe).is_ok_and(|bytes| bytes > 0);
        self.are_needed |= fds.iter().any(holds_any);
        self.keeper = Some(Keeper::start(&fds, &self.dir.join(KEEPER))?);
        self.held = Vec::new();
        // No other process has pipes that are created later.
        self.are_new = true;
        Ok(())
    }

    /// Starts another keeper for the pipes of these services and those created since the last one.
    /// The old keeper ends once the new one holds the pipes.
    pub(super) fn keep_with<'a>(
        &mut self,
        services: impl Iterator<Item = &'a LogEnds>,
    ) -> io::Result<()> {
        let ends = services.flat_map(|ends| [Some(&ends.stdout), ends.stderr.as_ref()]);
        let ends = ends.flatten().map(PipeWriter::as_fd);
        let held = self.held.iter().map(OwnedFd::as_fd);
        let fds: Vec<BorrowedFd<'_>> = ends
            .chain(held)
            .chain([self.handoff.as_fd(), self.tally.as_fd()])
            .collect();
        self.keeper = Some(Keeper::start(&fds, &self.dir.join(KEEPER))?);
        self.held = Vec::new();
        Ok(())
    }

    /// Returns the paths of a service's pipes.
    pub(super) fn name_paths(&self, service: &ServiceName) -> Vec<PathBuf> {
        let names = [service.to_string(), format!("{service}{STDERR}")];
        names.iter().map(|name| self.dir.join(name)).collect()
    }

    /// Records that services write to the pipes from now on, or have done so all the time.
    pub fn need(&mut self) {
        self.are_needed = true;
    }

    /// Creates the pipe directory again, for the names of later pipes and for the record by which
    /// the next supervisor finds the keeper.
    pub(super) fn make_dir_again(&self) -> io::Result<()> {
        mainstay_sys::private::create_private_dir(&self.dir)?;
        self.keeper.as_ref().map_or(Ok(()), Keeper::record_again)
    }

    /// Returns whether this ended child was the keeper. If it was, there is no keeper now.
    pub(super) fn keeper_ended(&mut self, pid: u32) -> bool {
        self.keeper.take_if(|keeper| keeper.pid() == pid).is_some()
    }

    /// Returns the pid of the keeper.
    pub(super) fn keeper(&self) -> Option<u32> {
        self.keeper.as_ref().map(Keeper::pid)
    }

    /// Releases the pipes, which no longer need to be kept.
    pub(super) fn end(mut self) {
        self.are_needed = false;
    }

    /// Finds the pipes of services that this supervisor no longer runs, and removes the names of
    /// empty ones.
    fn find_orphans(&mut self) -> io::Result<()> {
        let handoff_is_empty = rustix::io::ioctl_fionread(&self.handoff)? == 0;
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name.filter(|name| !name.starts_with('.')) else {
                continue;
            };
            if self.made.iter().any(|made| made == name) {
                continue;
            }
            let pipe = open_fifo(&path, OFlags::NONBLOCK)?;
            if handoff_is_empty && rustix::io::ioctl_fionread(&pipe)? == 0 {
                std::fs::remove_file(&path)?;
                continue;
            }
            let orphan = OurEnd::new(name.to_owned(), pipe.into(), self.are_new);
            self.orphans.push(orphan);
        }
        Ok(())
    }
}

/// A failed start leaves no keeper behind.
#[cfg(target_os = "linux")]
impl Drop for Pipes {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take().filter(|_| !self.are_needed) {
            keeper.end();
        }
    }
}

/// Returns whether the pipe has a reader.
#[cfg(target_os = "linux")]
fn is_held(path: &Path) -> bool {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).is_ok()
}

#[cfg(target_os = "linux")]
fn make_fifo(path: &Path) -> io::Result<()> {
    match rustix::fs::mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(target_os = "linux")]
fn open_fifo(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fifo = rustix::fs::open(path, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&fifo)?.st_mode) != FileType::Fifo {
        let message = format!("{} exists and is not a pipe", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    Ok(fifo)
}

/// Ends the keeper of a supervisor that was killed, if no process is left that could write.
pub fn end_keeper(pipes_dir: &Path) {
    #[cfg(target_os = "linux")]
    Keeper::end_recorded(&pipes_dir.join(KEEPER));
    #[cfg(not(target_os = "linux"))]
    let _ = pipes_dir;
}
