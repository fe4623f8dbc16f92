//! Unix without cgroups and without Linux's `/proc`: macOS, the BSDs and illumos.
//!
//! A tree is the session that its main process leads. A descendant that calls `setsid` escapes from
//! it, and macOS offers no way to prevent that. On FreeBSD the supervisor acquires the reaper role
//! (procctl(2)), and the kernel tracks which of its children each descendant comes from, whatever
//! the descendant does.
//!
//! Orphans of a session become children of init, so their end is not reported. A caller that finds
//! a tree not empty is woken to check again after a pause, which grows from 2 ms to a second. On
//! FreeBSD orphans become children of the supervisor, and SIGCHLD reports their end.

#[cfg(test)]
#[cfg(target_os = "linux")]
#[path = "suite.rs"]
mod suite;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use mainstay_core::spec::{Signal, StopAsk, StopScope};
use tokio::signal::unix::SignalKind;
use tokio::time::Instant;

use crate::deaths;
use crate::posix::{self, Child, Image, SignalsBlocked, cvt};
use crate::process::{Command, Containment, Exit, SpawnError, TreeId, Usage};

/// The parent of all trees; one per supervisor. See the [module](super) for the rules.
///
/// Drop kills nothing: running processes continue, and become children of init.
pub struct Processes {
    mains: BTreeMap<u32, Rc<Main>>,
    child_ended: tokio::signal::unix::Signal,
    recheck: Rc<Recheck>,
    null: File,
    instance: String,
    is_reaper: bool,
    started: u64,
    orphans: u64,
}

struct Main {
    id: TreeId,
    pid: u32,
    /// Set when the process is reaped. From then on, `pid` may belong to an unrelated process.
    exit: Cell<Option<Exit>>,
}

/// The schedule for checking a non-empty tree again, on systems that do not report its end.
#[derive(Default)]
struct Recheck {
    at: Cell<Option<Instant>>,
    pause: Cell<Duration>,
}

impl Recheck {
    const FIRST: Duration = Duration::from_millis(2);
    const LONGEST: Duration = Duration::from_secs(1);

    /// Schedules a check after a pause twice as long as the last one.
    fn arm(&self) {
        if self.at.get().is_none() {
            let pause = (self.pause.get() * 2).clamp(Self::FIRST, Self::LONGEST);
            self.pause.set(pause);
            self.at.set(Some(Instant::now() + pause));
        }
    }

    /// Resets the pause, after an action that makes an end likely.
    fn soon(&self) {
        self.pause.set(Duration::ZERO);
        self.at.set(None);
    }

    async fn due(&self) {
        match self.at.get() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.at.set(None); // armed again if a tree is still populated
    }
}

impl Processes {
    /// Requires a tokio runtime with I/O and time. Marks all inherited descriptors above 2 as
    /// close-on-exec. `label` is for systems whose trees have names.
    pub fn new(_label: &str) -> io::Result<Self> {
        posix::seal_inherited();
        posix::raise_limits();
        posix::ignore_signals();
        deaths::watch()?;
        Ok(Self {
            mains: BTreeMap::new(),
            child_ended: tokio::signal::unix::signal(SignalKind::child())?,
            recheck: Rc::default(),
            null: File::open("/dev/null")?,
            instance: posix::random_id(),
            is_reaper: reaper::acquire(),
            started: 0,
            orphans: 0,
        })
    }

    /// Returns the mechanism that holds the trees together.
    pub fn containment(&self) -> Containment {
        if self.is_reaper {
            Containment::Subreaper
        } else {
            Containment::Group
        }
    }

    /// Starts a program in a session of its own, with every signal at its default and none blocked,
    /// no descriptors except the standard ones, and the supervisor's umask and limits. Blocks until
    /// the program has been loaded, so that a failure to load is returned.
    pub fn spawn(&mut self, command: &Command<'_>) -> Result<Tree, SpawnError> {
        let id = TreeId(self.started);
        let mark = format!("{}.{}", self.instance, id.0);
        let image = Image::new(command, Some(&mark))
            .map_err(|error| SpawnError::parent("prepare the arguments", error))?;
        let child = Child::new(command, &image, self.null.as_raw_fd())
            .map_err(|error| SpawnError::parent("prepare its start", error))?;
        let (report, reporter) =
            io::pipe().map_err(|error| SpawnError::parent("create a pipe", error))?;
        let pid = fork(&child, &reporter)
            .map_err(|error| SpawnError::parent("create a process", error))?;
        drop(reporter);
        if let Some(failure) = read_failure(report) {
            while posix::wait_for(pid)
                .is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
            {}
            return Err(SpawnError::child(command, failure));
        }
        self.started += 1;
        let main = Rc::new(Main {
            id,
            pid,
            exit: Cell::new(None),
        });
        self.mains.insert(pid, main.clone());
        Ok(Tree {
            main,
            recheck: self.recheck.clone(),
            is_reaper: self.is_reaper,
            is_gone: Cell::new(false),
        })
    }

    /// Resolves when a child or a tree may have changed since the last call. Cancel-safe.
    pub async fn changed(&mut self) {
        tokio::select! {
            _ = self.child_ended.recv() => {}
            () = self.recheck.due() => {}
        }
    }

    /// Reaps every child that has ended, and returns those that were main processes, with the time
    /// of their exits. Orphans are only counted.
    pub fn reap(&mut self) -> Vec<(TreeId, Exit, std::time::Instant)> {
        let mut ended = Vec::new();
        while let Some((pid, status)) = posix::wait(-1) {
            let at = deaths::time_of(pid);
            let Some(main) = self.mains.remove(&pid) else {
                self.orphans += 1;
                continue;
            };
            let exit = posix::exit(status);
            main.exit.set(Some(exit));
            ended.push((main.id, exit, at));
        }
        ended
    }

    /// Returns the number of processes reaped so far that were not main processes.
    #[cfg(test)]
    pub fn orphans(&self) -> u64 {
        self.orphans
    }
}

/// One started program with all of its descendants.
///
/// Drop kills nothing, so kill the tree and wait until it is empty first.
pub struct Tree {
    main: Rc<Main>,
    recheck: Rc<Recheck>,
    is_reaper: bool,
    /// Set once no process was left. From then on, the tree's ID may belong to an unrelated
    /// process.
    is_gone: Cell<bool>,
}

impl Tree {
    /// Returns the ID that [`Processes::reap`] reports.
    pub fn id(&self) -> TreeId {
        self.main.id
    }

    /// Returns the main process's pid, which is also the ID of the tree's session and group. It may
    /// belong to an unrelated process once [`Tree::exit`] is set, so use it for display only, never
    /// for a signal.
    pub fn pid(&self) -> u32 {
        self.main.pid
    }

    /// Returns how the main process ended, if it was reaped.
    pub fn exit(&self) -> Option<Exit> {
        self.main.exit.get()
    }

    /// Sends `signal` to the main process or to all. If none is left, that is not an error.
    ///
    /// # Errors
    /// `PermissionDenied` if all of them run as other users and the supervisor is not root.
    pub fn signal(&self, signal: Signal, scope: StopScope) -> io::Result<()> {
        let signal = posix::number(signal);
        match (scope, self.exit()) {
            (StopScope::Tree, _) => self.signal_all(signal),
            (StopScope::Main, Some(_)) => Ok(()),
            // Not reaped, so the pid still belongs to the main process; see the module's rules.
            (StopScope::Main, None) => posix::kill(self.main.pid.cast_signed(), signal),
        }
    }

    /// Asks the tree to stop, and returns whether there was a process to ask.
    pub fn ask_to_stop(&self, ask: StopAsk, scope: StopScope) -> io::Result<bool> {
        let StopAsk::Signal(signal) = ask else {
            return Ok(false); // there are no windows to close
        };
        let anybody = self.exit().is_none() || scope == StopScope::Tree && !self.is_empty();
        if anybody {
            self.signal(signal, scope)?;
        }
        Ok(anybody)
    }

    /// Sends SIGKILL to every process of the tree, including stopped ones. They end a moment later;
    /// see [`Tree::is_empty`].
    pub fn kill(&self) -> io::Result<()> {
        self.recheck.soon();
        self.signal_all(libc::SIGKILL)
    }

    /// Returns whether no process of the tree is left. If the tree is not empty although the main
    /// process has ended, [`Processes::changed`] resolves when the caller should check again.
    pub fn is_empty(&self) -> bool {
        if self.exit().is_none() {
            return false;
        }
        if !self.is_gone.get() && self.has_ended() {
            self.is_gone.set(true);
        }
        if !self.is_gone.get() && !self.is_reaper {
            self.recheck.arm();
        }
        self.is_gone.get()
    }

    /// Stops every process. Their parents may be notified (SIGCHLD). Thaw before a graceful stop.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal_all(libc::SIGSTOP)
    }

    /// Undoes [`Tree::freeze`].
    pub fn thaw(&self) -> io::Result<()> {
        self.signal_all(libc::SIGCONT)
    }

    /// Returns `None`: these systems do not report it.
    pub fn handles(&self, _signal: Signal) -> Option<bool> {
        None
    }

    /// Returns `None`: not implemented yet, because each of these systems has a different call.
    pub fn usage(&self) -> Option<Usage> {
        None
    }

    fn signal_all(&self, signal: i32) -> io::Result<()> {
        if self.is_gone.get() || self.exit().is_some() && self.has_ended() {
            return Ok(());
        }
        if self.is_reaper {
            return reaper::signal(self.main.pid, signal);
        }
        posix::kill(-self.main.pid.cast_signed(), signal)
    }

    /// Returns whether no process is left, after the main process was reaped.
    fn has_ended(&self) -> bool {
        let pid = self.main.pid.cast_signed();
        let is_nobody = |id| {
            cvt(
                // SAFETY: no memory is involved; signal 0 only tests for existence.
                unsafe { libc::kill(id, 0) },
            )
            .is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
        };
        if self.is_reaper {
            return reaper::is_empty(self.main.pid);
        }
        // A number is not reused as a pid while it names a group. If a *process* has it, the tree's
        // group is gone.
        is_nobody(-pid) || !is_nobody(pid)
    }
}

/// Starts `child`, which reports a failure through the pipe.
fn fork(child: &Child<'_>, reporter: &PipeWriter) -> io::Result<u32> {
    let _blocked = SignalsBlocked::new();
    // SAFETY: the child only does what is async-signal-safe, on data laid out before, and never
    // returns.
    match cvt(unsafe { libc::fork() })? {
        0 => {
            // SAFETY: this is that child, and every signal is blocked.
            let (step, errno) = unsafe { child.become_program() };
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&step.to_ne_bytes());
            bytes[4..].copy_from_slice(&errno.to_ne_bytes());
            let _ = (&*reporter).write(&bytes);
            // SAFETY: ends the child without running any of the parent's code.
            unsafe { libc::_exit(127) }
        }
        pid => Ok(pid.unsigned_abs()),
    }
}

/// Returns once the child has become the program or reported its failure.
fn read_failure(mut report: PipeReader) -> Option<(posix::Step, i32)> {
    let mut bytes = [0; 8];
    report.read_exact(&mut bytes).ok()?;
    let (step, errno) = bytes.split_at(4);
    posix::failure(
        i32::from_ne_bytes(step.try_into().ok()?),
        i32::from_ne_bytes(errno.try_into().ok()?),
    )
}

/// The kernel's record of this process's descendants, grouped by its children.
#[cfg(target_os = "freebsd")]
mod reaper {
    use std::io;

    use rustix::process::{
        Pid, PidInfoFlags, Signal, get_reaper_pids, reaper_kill, set_reaper_status,
    };

    pub(super) fn acquire() -> bool {
        set_reaper_status(true).is_ok()
    }

    pub(super) fn signal(child: u32, signal: i32) -> io::Result<()> {
        let (Some(child), Some(signal)) = (
            Pid::from_raw(child.cast_signed()),
            Signal::from_named_raw(signal),
        ) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        match reaper_kill(None, signal, false, Some(child)) {
            Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn is_empty(child: u32) -> bool {
        let child = Pid::from_raw(child.cast_signed());
        get_reaper_pids(None).is_ok_and(|all| {
            let mut all = all.iter();
            !all.any(|process| {
                Some(process.subtree) == child && !process.flags.contains(PidInfoFlags::ZOMBIE)
            })
        })
    }
}

/// The stub for systems that keep no such record.
#[cfg(not(target_os = "freebsd"))]
mod reaper {
    use std::io;

    pub(super) fn acquire() -> bool {
        false
    }
    pub(super) fn signal(_: u32, _: i32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    pub(super) fn is_empty(_: u32) -> bool {
        false
    }
}
