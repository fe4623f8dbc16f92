//! Processes and process trees, with one module per operating system that exports the same names.
//!
//! [`Processes`] starts programs and collects their exits. A [`Tree`] is one started program with
//! all of its descendants. The [`Containment`] holds a tree together: a cgroup, a job object, or
//! process ancestry. The loop is `changed().await`, then `reap()`, then `is_empty()` of the trees
//! whose main process ended. Nothing here polls or sleeps.
//!
//! Both types belong to one thread, which makes signals safe: a pid stays valid until *this thread*
//! reaps it, only `reap` does so, and no other thread can reap between a check and its `kill(2)`.
//! Therefore, while a `Processes` exists, nothing else in this process may wait for "any child".
//! Every child of the process is reaped here, no matter which code started it.
#![cfg_attr(
    all(test, target_os = "linux"),
    expect(
        clippy::duplicate_mod,
        reason = "the suite is one, its `super` is the implementation under test"
    )
)]

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;
use std::{fmt, io};

use mainstay_core::spec::{Limits, Priority};

#[cfg(unix)]
mod deaths;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(unix)]
mod posix;
pub(crate) mod threads;
// Linux builds it for tests only, because it can run there.
#[cfg(all(unix, any(test, not(target_os = "linux"))))]
mod unix;
#[cfg(windows)]
mod windows;
// The pure parts of the Windows module are tested on every system.
#[cfg(all(test, not(windows)))]
#[path = "windows/text.rs"]
mod windows_text;

#[cfg(all(test, not(windows)))]
#[path = "windows/acl.rs"]
mod windows_acl;

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{
    Members, PlaceWatch, boot, end_remains, end_service, end_tree, enter_system_mounts, exchange,
    forget_service, give_memory_back, home_of_pids, lives, own_identity, settle_in, supervisor_of,
    survivors, testament, testament_of, uptime,
};
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) use elsewhere::{is_dead, yield_to_others};
#[cfg(target_os = "linux")]
pub(crate) use linux::{
    Keeper, Members, PlaceWatch, Processes, Tree, boot, end_remains, end_service, end_tree,
    enter_system_mounts, exchange, forget_service, give_memory_back, home_of_pids, is_dead, lives,
    own_identity, settle_in, supervisor_of, survivors, testament, testament_of, uptime,
    yield_to_others,
};
#[cfg(unix)]
pub(crate) use posix::{
    Socket, Stream, User, connect_unix, current_uid, exposure, is_current_user, is_lacking,
    is_privileged, lacking_capabilities, lacks_interpreter, listen, null, open_own, probe_unix,
    read_from_start, receive_signals, refused_limit, refused_settings, share, stream, utc_offset,
    why_not_executed, write_at,
};
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) use unix::{Processes, Tree};
#[cfg(windows)]
pub(crate) use windows::access::{
    Access, entrust, exposure as acl_exposure, exposure_of_program, is_foreign,
};
#[cfg(windows)]
pub(crate) use windows::pipe::{Instance, create_pipe, pipe_server};
#[cfg(windows)]
pub(crate) use windows::sockets::{Socket, listen, share};
#[cfg(windows)]
pub(crate) use windows::{
    Processes, Stream, Tree, User, exposure, is_current_user, is_dead, is_lacking, is_privileged,
    lacking_capabilities, null, open_own, read_from_start, refused_limit, refused_settings,
    run_as_helper, stream, utc_offset, write_at, yield_to_others,
};

/// A program to start, with its settings.
#[derive(Clone, Copy)]
pub(crate) struct Command<'a> {
    /// The service's name, which also names its cgroup.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "no name to give")
    )]
    pub(crate) name: &'a str,
    /// The absolute path; `PATH` is not searched.
    pub(crate) program: &'a Path,
    /// The arguments, including `argv[0]`.
    pub(crate) argv: &'a [OsString],
    /// The complete environment. On Unix without a cgroup, `MAINSTAY_INSTANCE` is added to it.
    pub(crate) env: &'a [(OsString, OsString)],
    /// The working directory, entered after the change of user and so with the user's rights.
    pub(crate) working_dir: &'a Path,
    /// The standard input; empty if `None`.
    pub(crate) stdin: Option<Stream<'a>>,
    /// The standard output.
    pub(crate) stdout: Stream<'a>,
    /// The standard error; may be the same stream as `stdout`.
    pub(crate) stderr: Stream<'a>,
    /// The user to run as; `None` is the supervisor's own user. Requires root (CAP_SETUID and
    /// CAP_SETGID) unless it is already that user.
    pub(crate) user: Option<&'a User>,
    /// Capabilities to keep when running as another user, by name (capabilities(7)). Linux only.
    #[cfg_attr(windows, expect(dead_code, reason = "Linux has them"))]
    pub(crate) capabilities: &'a [String],
    /// The scheduling priority; `None` inherits the supervisor's.
    pub(crate) priority: Option<Priority>,
    /// The processors to run on; empty means all.
    pub(crate) cpus: &'a [u16],
    /// Listening sockets passed as descriptors from 3 on, announced by `LISTEN_FDS` and
    /// `LISTEN_PID` in the environment.
    #[cfg_attr(windows, expect(dead_code, reason = "there are none"))]
    pub(crate) sockets: &'a [Socket],
    /// Resource limits. Windows supports none of these.
    #[cfg_attr(windows, expect(dead_code, reason = "limits of Unix"))]
    pub(crate) limits: Limits,
}

/// A setting that a program cannot be given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "elsewhere less is known beforehand")
)]
pub(crate) enum RefusedSetting {
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
pub(crate) const INSTANCE: &str = "MAINSTAY_INSTANCE";

/// The environment variable that identifies processes started from a state directory, even if that
/// directory is lost. Its value is the directory's path without symbolic links.
pub(crate) const SUPERVISED_FROM: &str = "MAINSTAY_SUPERVISED_FROM";

/// A diagnostic switch, read once by [`Processes::new`]: `subreaper` disables cgroups on Linux.
#[cfg(target_os = "linux")]
pub(crate) const CONTAINMENT: &str = "MAINSTAY_CONTAINMENT";

/// The mechanism that holds a tree together, and so the processes that a kill is certain to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(dead_code, reason = "no system has all of them")]
pub(crate) enum Containment {
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

/// The ID of one start of a program. Unlike a pid, it is never reused by one [`Processes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TreeId(u64);

/// The identity of a running tree, by which a later supervisor finds it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The process ID of the main process.
    pub(crate) pid: u32,
    /// The start time of the main process.
    pub(crate) birth: Birth,
    /// The containment of the tree: `cgroup DIRECTORY` or `kin SECRET.COUNTER.UID`. Begins like a
    /// [`testament`].
    pub(crate) tree: String,
}

/// The surviving processes of one tree whose supervisor is dead.
pub(crate) struct Survivor {
    /// The service that the tree belongs to.
    pub(crate) service: String,
    pub(crate) pids: Vec<u32>,
    /// The main process, if it can be determined.
    pub(crate) main: Option<Found>,
}

/// A main process found by discovery, without a record of it.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) identity: Identity,
    /// The process's start time, measured from boot.
    pub(crate) began: std::time::Duration,
}

/// The range of a process's start time, in clock ticks since boot, both ends inclusive. Together
/// with the pid it identifies a process, because no pid is reused within so short a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Birth {
    pub(crate) first: u64,
    pub(crate) last: u64,
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
pub(crate) struct Exit {
    /// The exit code: 0–255 on Unix, 32 bits on Windows.
    pub(crate) code: Option<i32>,
    /// The system's own signal number.
    pub(crate) signal: Option<i32>,
    /// Set if the process dumped core; only ever with a signal.
    pub(crate) core_dumped: bool,
}

impl Exit {
    /// The exit when the system does not report one.
    pub(crate) const UNKNOWN: Self = Self {
        code: None,
        signal: None,
        core_dumped: false,
    };
}

/// The resource usage of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time. With a cgroup or a job it includes processes that have ended and never
    /// falls. Otherwise it covers the live processes and the children that they have waited for.
    pub(crate) cpu: Duration,
    /// Resident bytes, summed over the processes. A page shared by two of them counts twice.
    pub(crate) resident: u64,
    /// The number of live processes.
    pub(crate) processes: u32,
}

/// A failed start. Nothing is left behind: no process and no cgroup.
#[derive(Debug)]
pub(crate) struct SpawnError {
    step: String,
    source: io::Error,
    hint: Option<String>,
    /// Set if every attempt fails until the program, its manifest or the machine changes.
    pub(crate) is_permanent: bool,
}

impl SpawnError {
    /// Returns whether the system lacks a resource that every process needs. Another attempt may
    /// succeed, and the failure says nothing about the program.
    pub(crate) fn is_lacking(&self) -> bool {
        self.source.kind() == io::ErrorKind::WouldBlock || is_lacking(&self.source)
    }

    /// Returns a hint for the operator if the system's error alone is misleading.
    pub(crate) fn hint(&self) -> Option<&str> {
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
