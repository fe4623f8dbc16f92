//! Processes and process trees, with one module per operating system that exports the same names.
//!
//! `Processes` starts programs and collects their exits. A `Tree` is one started program with
//! all of its descendants. The [`Containment`] holds a tree together: a cgroup, a job object, or
//! process ancestry. The loop is `changed().await`, then `reap()`, then `is_empty()` of the trees
//! whose main process ended. Nothing here polls or sleeps.
//!
//! Both types belong to one thread, which makes signals safe: a pid stays valid until *this thread*
//! reaps it, only `reap` does so, and no other thread can reap between a check and its `kill(2)`.
//! Therefore, while a `Processes` exists, nothing else in this process may wait for "any child".
//! Every child of the process is reaped here, no matter which code started it.

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;
use std::{fmt, io};

use mainstay_core::spec::{Limits, Priority};

use crate::{Socket, Stream, User};

/// A program to start, with its settings.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    /// The service's name, which also names its cgroup.
    pub name: &'a str,
    /// The absolute path; `PATH` is not searched.
    pub program: &'a Path,
    /// The arguments, including `argv[0]`.
    pub argv: &'a [OsString],
    /// The complete environment. On Unix without a cgroup, `MAINSTAY_INSTANCE` is added to it.
    pub env: &'a [(OsString, OsString)],
    /// The working directory, entered after the change of user and so with the user's rights.
    pub working_dir: &'a Path,
    /// The standard input; empty if `None`.
    pub stdin: Option<Stream<'a>>,
    /// The standard output.
    pub stdout: Stream<'a>,
    /// The standard error; may be the same stream as `stdout`.
    pub stderr: Stream<'a>,
    /// The user to run as; `None` is the supervisor's own user. Requires root (CAP_SETUID and
    /// CAP_SETGID) unless it is already that user.
    pub user: Option<&'a User>,
    /// Capabilities to keep when running as another user, by name (capabilities(7)). Linux only.
    pub capabilities: &'a [String],
    /// The scheduling priority; `None` inherits the supervisor's.
    pub priority: Option<Priority>,
    /// The processors to run on; empty means all.
    pub cpus: &'a [u16],
    /// Listening sockets passed as descriptors from 3 on, announced by `LISTEN_FDS` and
    /// `LISTEN_PID` in the environment.
    pub sockets: &'a [Socket],
    /// Resource limits. Windows supports none of these.
    pub limits: Limits,
}

/// A setting that a program cannot be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusedSetting {
    /// None of the processors can be used.
    Processors,
    /// The priority is higher than the supervisor may assign.
    Priority,
    /// The supervisor lacks this capability, or may not pass it on.
    Capability(String),
}

/// The environment variable that distinguishes orphans of a tree from unrelated processes on
/// systems without cgroups or jobs.
#[cfg(unix)]
pub const INSTANCE: &str = "MAINSTAY_INSTANCE";

/// The environment variable that identifies processes started from a state directory, even if that
/// directory is lost. Its value is the directory's path without symbolic links.
pub const SUPERVISED_FROM: &str = "MAINSTAY_SUPERVISED_FROM";

/// A diagnostic switch, read once by `Processes::new`: `subreaper` disables cgroups on Linux.
#[cfg(target_os = "linux")]
pub(crate) const CONTAINMENT: &str = "MAINSTAY_CONTAINMENT";

/// The mechanism that holds a tree together, and so the processes that a kill is certain to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containment {
    /// One cgroup v2 per tree. A process needs the right to leave it.
    Cgroup,
    /// Orphans are reparented to the supervisor, which identifies them by their session or by
    /// `MAINSTAY_INSTANCE`. Only an orphan that left its session *and* cleared its environment
    /// escapes. On FreeBSD the kernel itself tracks them, and none escapes.
    Subreaper,
    /// One session per tree. A descendant that calls `setsid` and outlives its parent escapes.
    Group,
    /// A Windows job object without breakaway. No process can leave it.
    Job,
}

impl fmt::Display for Containment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cgroup => "cgroup",
            Self::Subreaper => "subreaper",
            Self::Group => "group",
            Self::Job => "job",
        })
    }
}

/// The ID of one start of a program. Unlike a pid, it is never reused by one `Processes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeId(pub(crate) u64);

/// The identity of a running tree, by which a later supervisor finds it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The process ID of the main process.
    pub pid: u32,
    /// The start time of the main process.
    pub birth: Birth,
    /// The containment of the tree: `cgroup DIRECTORY` or `kin SECRET.COUNTER.UID`. Begins like an
    /// `orphan_marker`.
    pub tree: String,
}

/// The condition of a process, as far as the process table shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There is no such process.
    Absent,
    /// The process has ended, and its parent has not collected its status yet.
    Zombie,
    /// The process was stopped by a signal or by a debugger.
    Suspended,
    /// The process exists and may run.
    Present,
    /// The system does not show it.
    Unknown,
}

/// The surviving processes of one tree whose supervisor is dead.
pub struct Survivor {
    /// The service that the tree belongs to.
    pub service: String,
    /// The process IDs of all of them.
    pub pids: Vec<u32>,
    /// The main process, if it can be determined.
    pub main: Option<Found>,
}

/// A main process found by discovery, without a record of it.
#[derive(Clone)]
pub struct Found {
    /// The identity that it would have in a record.
    pub identity: Identity,
    /// The process's start time, measured from boot.
    pub began: std::time::Duration,
}

/// The range of a process's start time, in clock ticks since boot, both ends inclusive. Together
/// with the pid it identifies a process, because no pid is reused within so short a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Birth {
    /// The earliest tick.
    pub first: u64,
    /// The latest tick.
    pub last: u64,
}

#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "nothing is adopted")
)]
impl Birth {
    /// Returns the range for an exactly known start time.
    pub(crate) fn at(tick: u64) -> Self {
        Self {
            first: tick,
            last: tick,
        }
    }

    pub(crate) fn holds(self, tick: u64) -> bool {
        (self.first..=self.last).contains(&tick)
    }
}

/// The exit of a main process: by itself with a code, or by a signal (Unix only). For some adopted
/// processes neither is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code: 0–255 on Unix, 32 bits on Windows.
    pub code: Option<i32>,
    /// The system's own signal number.
    pub signal: Option<i32>,
    /// Set if the process dumped core; only ever with a signal.
    pub core_dumped: bool,
}

impl Exit {
    /// The exit when the system does not report one.
    pub const UNKNOWN: Self = Self {
        code: None,
        signal: None,
        core_dumped: false,
    };
}

/// The resource usage of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// User and system time. With a cgroup or a job it includes processes that have ended and never
    /// falls. Otherwise, and for the time before an adoption, it covers the live processes and the
    /// children that they have waited for.
    pub cpu: Duration,
    /// Resident bytes, summed over the processes. A page shared by two of them counts twice.
    pub resident: u64,
    /// The number of live processes.
    pub processes: u32,
}

/// A failed start. Nothing is left behind: no process and no cgroup.
#[derive(Debug)]
pub struct SpawnError {
    pub(crate) step: String,
    pub(crate) source: io::Error,
    pub(crate) hint: Option<String>,
    /// Set if every attempt fails until the program, its manifest or the machine changes.
    pub is_permanent: bool,
}

impl SpawnError {
    /// Returns whether the system lacks a resource that every process needs. Another attempt may
    /// succeed, and the failure says nothing about the program.
    pub fn is_lacking(&self) -> bool {
        self.source.kind() == io::ErrorKind::WouldBlock || is_lacking(&self.source)
    }

    /// Returns the system's error.
    pub fn cause(&self) -> &io::Error {
        &self.source
    }

    /// Returns a hint for the operator if the system's error alone is misleading.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Writes the operation and its object, such as `execute /usr/bin/x`.
impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step)
    }
}

impl Error for SpawnError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Returns whether the system ran out of descriptors (handles), memory or buffers.
pub fn is_lacking(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| LACKING.contains(&code))
}

#[cfg(unix)]
const LACKING: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];

#[cfg(windows)]
const LACKING: [i32; 6] = {
    use windows_sys::Win32::Foundation::{
        ERROR_NO_SYSTEM_RESOURCES, ERROR_NOT_ENOUGH_MEMORY, ERROR_OUTOFMEMORY,
        ERROR_TOO_MANY_OPEN_FILES,
    };
    // Winsock error codes. Its bindings are not needed for anything else.
    const WSAEMFILE: i32 = 10024;
    const WSAENOBUFS: i32 = 10055;
    [
        ERROR_NO_SYSTEM_RESOURCES.cast_signed(),
        ERROR_NOT_ENOUGH_MEMORY.cast_signed(),
        ERROR_OUTOFMEMORY.cast_signed(),
        ERROR_TOO_MANY_OPEN_FILES.cast_signed(),
        WSAEMFILE,
        WSAENOBUFS,
    ]
};
