//! Processes and their trees, one module per operating system with the same names in each.
//!
//! [`Processes`] starts programs and collects their exits; a [`Tree`] is one started program with everything that it started in
//! turn. What holds a tree together is the [`Containment`]: a cgroup, a job object, or the kinship of processes. The loop is
//! `changed().await`, then `reap()`, then `is_empty()` of the trees whose main process ended: nothing here polls or sleeps.
//!
//! Both types belong to one thread. That is what makes signals safe: a pid is ours until *we* collect it, we collect only in
//! `reap`, and no other thread can do so between our check and our `kill(2)`. Hence, while a `Processes` lives, nothing else in
//! this process may wait for "any child"; and every child of the process, whoever started it, is collected here.
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
// Tested on Linux too, where it can be run.
#[cfg(all(unix, any(test, not(target_os = "linux"))))]
mod unix;
#[cfg(windows)]
mod windows;
// What is pure of it is tested everywhere.
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

/// What to start.
#[derive(Clone, Copy)]
pub(crate) struct Command<'a> {
    /// The service's name; its cgroup is called after it.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "no name to give")
    )]
    pub(crate) name: &'a str,
    /// Absolute: nothing is looked up in `PATH` here.
    pub(crate) program: &'a Path,
    /// `argv[0]` included.
    pub(crate) argv: &'a [OsString],
    /// The complete environment. On Unix without a cgroup, `MAINSTAY_INSTANCE` is added to it.
    pub(crate) env: &'a [(OsString, OsString)],
    /// Entered after the change of user, so with the user's rights.
    pub(crate) working_dir: &'a Path,
    /// What it reads; nothing where it is `None`.
    pub(crate) stdin: Option<Stream<'a>>,
    /// Where its standard output goes.
    pub(crate) stdout: Stream<'a>,
    /// Where its standard error goes; may be the same as `stdout`.
    pub(crate) stderr: Stream<'a>,
    /// Whom it runs as; `None` is the supervisor's own user. Needs root (CAP_SETUID and CAP_SETGID) unless it is that user anyway.
    pub(crate) user: Option<&'a User>,
    /// Capabilities that it keeps although it runs as another user, by name (capabilities(7)). Linux.
    #[cfg_attr(windows, expect(dead_code, reason = "Linux has them"))]
    pub(crate) capabilities: &'a [String],
    /// The supervisor's own where it is `None`.
    pub(crate) priority: Option<Priority>,
    /// The processors that it may run on; all where it is empty.
    pub(crate) cpus: &'a [u16],
    /// Listening sockets that it is given as descriptors from 3 on, with `LISTEN_FDS` and `LISTEN_PID` in its environment.
    #[cfg_attr(windows, expect(dead_code, reason = "there are none"))]
    pub(crate) sockets: &'a [Socket],
    /// What it may have at most. Windows knows none of these.
    #[cfg_attr(windows, expect(dead_code, reason = "limits of Unix"))]
    pub(crate) limits: Limits,
}

/// What a program cannot be given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "elsewhere less is known beforehand")
)]
pub(crate) enum RefusedSetting {
    /// None of its processors can be used.
    Processors,
    /// Its priority is above what the supervisor may give.
    Priority,
    /// The supervisor does not have this capability, or may not pass it on.
    Capability(String),
}

/// The variable by which an orphan of a tree is told from a stranger where the system has no cgroup or job.
#[cfg(unix)]
pub(crate) const INSTANCE: &str = "MAINSTAY_INSTANCE";

/// The variable by which whatever was started from a state directory is known, should that directory be lost: its path, without links.
pub(crate) const SUPERVISED_FROM: &str = "MAINSTAY_SUPERVISED_FROM";

/// A diagnostic switch, read once by [`Processes::new`]: `subreaper` makes Linux do without a cgroup.
#[cfg(target_os = "linux")]
pub(crate) const CONTAINMENT: &str = "MAINSTAY_CONTAINMENT";

/// What holds a tree together, and so what a kill is sure to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(dead_code, reason = "no system has all of them")]
pub(crate) enum Containment {
    /// A cgroup v2 per tree: nobody leaves it without the right to.
    Cgroup,
    /// Orphans come back to the supervisor, which knows them by their session or by `MAINSTAY_INSTANCE`. Only an orphan that left its
    /// session *and* wiped its environment escapes. On FreeBSD the kernel itself knows them, and none does.
    Subreaper,
    /// A session of its own: a descendant that calls `setsid` and outlives its parent escapes.
    Group,
    /// A Windows job object without breakaway: nobody leaves it.
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

/// Which start of which program; never used twice by one [`Processes`], unlike a pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TreeId(u64);

/// What a later supervisor knows a living tree by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Of its main process.
    pub(crate) pid: u32,
    /// Of its main process.
    pub(crate) birth: Birth,
    /// What holds it together: `cgroup DIRECTORY` or `kin SECRET.COUNTER.UID`. Begins like a [`testament`].
    pub(crate) tree: String,
}

/// What lives of one tree of a dead supervisor.
pub(crate) struct Survivor {
    /// Whose tree it is.
    pub(crate) service: String,
    pub(crate) pids: Vec<u32>,
    /// Its main process, where that can be told.
    pub(crate) main: Option<Found>,
}

/// A main process that was found without being told of it.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) identity: Identity,
    /// When it was born, since the system started.
    pub(crate) began: std::time::Duration,
}

/// When a process was born, in clock ticks since the system started, both ends included: with its pid, who it is. No number is given out
/// twice within so short a time.
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
    /// The moment is known.
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

/// How a main process ended: by itself with a code, or by a signal (Unix only). Neither is known of some adopted ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// 0–255 on Unix, 32 bits on Windows.
    pub(crate) code: Option<i32>,
    /// The system's own number.
    pub(crate) signal: Option<i32>,
    /// Only ever true with a signal.
    pub(crate) core_dumped: bool,
}

impl Exit {
    /// The system does not tell.
    pub(crate) const UNKNOWN: Self = Self {
        code: None,
        signal: None,
        core_dumped: false,
    };
}

/// What a tree has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time. With a cgroup or a job it includes processes that have ended and never falls; otherwise it covers
    /// the living and the children that they have waited for.
    pub(crate) cpu: Duration,
    /// Resident bytes, summed over the processes: a page that two of them share counts twice.
    pub(crate) resident: u64,
    /// Living processes.
    pub(crate) processes: u32,
}

/// A start that failed. Nothing is left behind: no process, no cgroup.
#[derive(Debug)]
pub(crate) struct SpawnError {
    step: String,
    source: io::Error,
    hint: Option<String>,
    /// Every attempt fails until somebody changes the program, its manifest or the machine.
    pub(crate) is_permanent: bool,
}

impl SpawnError {
    /// Whether the system lacks what any process takes: another attempt may succeed, and nothing is known about the program.
    pub(crate) fn is_lacking(&self) -> bool {
        self.source.kind() == io::ErrorKind::WouldBlock || is_lacking(&self.source)
    }

    /// What the operator can do about it, where the system's error alone misleads.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// The operation and its object, such as `execute /usr/bin/x`.
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
