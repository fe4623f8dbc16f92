//! Linux processes: ancestry and resource use.
//!
//! A test or a benchmark first becomes a subreaper ([`adopt_orphans`]), so that every process that
//! a supervisor leaves behind becomes its descendant. Leaks can then be counted, and a clean-up
//! kills only processes that were started here, by PID. A zombie counts as gone.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::iter::Sum;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, set_child_subreaper};

/// Makes this process the parent of its orphaned descendants.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Makes child processes inherit only stdin, stdout and stderr from now on. Descriptors that leaked
/// into this process are not passed on.
pub fn keep_descriptors() {
    // SAFETY: descriptors stay open and are only marked. A kernel older than 5.11 rejects the call,
    // and they leak as before.
    unsafe {
        libc::close_range(
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_int,
        )
    };
}

/// Blocks every signal in the process that `command` starts.
pub fn block_signals(command: &mut Command) {
    // SAFETY: both calls are async-signal-safe, and a zeroed set is valid.
    unsafe {
        command.pre_exec(|| {
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
            Ok(())
        });
    }
}

/// Starts `command` in its own session keyring, which contains a key of this name
/// (session-keyring(7)).
pub fn give_key(command: &mut Command, name: &'static CStr) {
    // SAFETY: these are system calls, and the strings are static.
    unsafe {
        command.pre_exec(move || {
            let none = std::ptr::null::<libc::c_char>();
            let keyring = libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, none);
            let (kind, session) = (c"user".as_ptr(), libc::KEY_SPEC_SESSION_KEYRING);
            let key = libc::syscall(
                libc::SYS_add_key,
                kind,
                name.as_ptr(),
                c"secret".as_ptr(),
                6_usize,
                session,
            );
            if keyring == -1 || key == -1 {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        });
    }
}

/// Returns all living descendants of this process. A parent comes before its children.
pub fn descendants() -> Vec<Pid> {
    // Reading the process list is not atomic: if a parent exited meanwhile, its children have been
    // reparented.
    let complete = |table: &Table| {
        let mut parents = table.values().map(|(parent, _)| *parent);
        parents.all(|parent| parent == 0 || table.contains_key(&parent))
    };
    let mut table = read_table();
    for _ in 0..100 {
        if complete(&table) {
            break;
        }
        table = read_table();
    }
    let mut found = Vec::new();
    let mut generation = vec![std::process::id() as i32];
    while !generation.is_empty() {
        let is_next = |entry: &(_, &(i32, bool))| generation.contains(&entry.1.0);
        let next: Vec<_> = table.iter().filter(is_next).collect();
        let alive = next.iter().filter(|(_, (_, alive))| *alive);
        found.extend(alive.filter_map(|(pid, _)| Pid::from_raw(**pid)));
        generation = next.into_iter().map(|(pid, _)| *pid).collect();
    }
    found
}

/// The parent of every process, and whether the process is alive (not a zombie).
type Table = BTreeMap<i32, (i32, bool)>;

fn read_table() -> Table {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let row = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = stat(Pid::from_raw(pid)?)?;
        Some((pid, (stat[1].parse().ok()?, is_alive(&stat))))
    };
    entries.filter_map(row).collect()
}

/// Returns whether the process exists and is not a zombie.
pub fn alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|stat| is_alive(&stat))
}

/// Returns the file name of the process's program, or an empty string if it cannot be read.
pub fn program(pid: Pid) -> String {
    let link = fs::read_link(path(pid, "exe")).unwrap_or_default();
    let name = link.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Returns whether the kernel's name of the process (`comm`, 15 bytes) is this one.
pub fn is_named(pid: Pid, name: &str) -> bool {
    fs::read_to_string(path(pid, "comm")).is_ok_and(|comm| comm.trim_end() == name)
}

/// Returns whether the process was started with this variable set to this value.
pub fn has_env(pid: Pid, name: &str, value: &str) -> bool {
    let wanted = format!("{name}={value}");
    // During an exec, a process has no environment at all.
    for _ in 0..100 {
        let environment = fs::read(path(pid, "environ")).unwrap_or_default();
        if !environment.is_empty() || !alive(pid) {
            let mut variables = environment.split(|byte| *byte == 0);
            return variables.any(|variable| variable == wanted.as_bytes());
        }
        thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Returns the number of one key in a file of `/proc/PID` with `Key: value` lines.
pub fn field(pid: Pid, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path(pid, file)).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns the path of a file of `/proc/PID`.
pub fn path(pid: Pid, file: &str) -> PathBuf {
    format!("/proc/{}/{file}", pid.as_raw_nonzero()).into()
}

/// Kills `pid`, which was a descendant of this process a moment ago. It may have exited since. The
/// status is not collected: that is left to its parent.
pub fn kill(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
}

/// The resources that a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The CPU time of all its threads.
    pub cpu: Duration,
    /// The context switches of its threads, voluntary and involuntary. If the number does not
    /// change, the process never woke up.
    pub switches: u64,
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |total, cost| Self {
            cpu: total.cpu + cost.cpu,
            switches: total.switches + cost.switches,
        })
    }
}

/// Returns the resources that `pid` has used so far, or none if it is gone. Exited threads are
/// included as far as `stat` reports them, in ticks of 10 ms.
pub fn cost(pid: Pid) -> Cost {
    let mut cost = Cost::default();
    for thread in fs::read_dir(path(pid, "task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let read = |file| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        let ns = read("schedstat")
            .split(' ')
            .next()
            .and_then(|ns| ns.parse().ok());
        cost.cpu += Duration::from_nanos(ns.unwrap_or(0));
        for line in read("status").lines() {
            if let Some((_, count)) = line.split_once("ctxt_switches:") {
                cost.switches += count.trim().parse::<u64>().unwrap_or(0);
            }
        }
    }
    let ticks = stat(pid).and_then(|stat| {
        let [user, system] = [&stat[11], &stat[12]].map(|ticks| ticks.parse::<u64>().ok());
        Some(user? + system?)
    });
    let by_ticks = Duration::from_millis(10) * ticks.unwrap_or(0) as u32;
    if by_ticks > cost.cpu + Duration::from_millis(30) {
        cost.cpu = by_ticks;
    }
    cost
}

/// Returns the fields of `/proc/PID/stat` from the state on: 0 state, 1 parent …
fn stat(pid: Pid) -> Option<Vec<String>> {
    let text = fs::read_to_string(path(pid, "stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

fn is_alive(stat: &[String]) -> bool {
    !matches!(stat[0].as_str(), "Z" | "X")
}
