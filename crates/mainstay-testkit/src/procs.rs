//! Reading processes of Linux: who descends from whom, and what it costs.
//!
//! A test or a bench first makes itself a subreaper ([`adopt_orphans`]), so that whatever a supervisor leaves behind becomes its own
//! descendant: leaks are countable, and a clean-up kills only what was started here, by pid. A zombie counts as gone.
#![cfg(target_os = "linux")]

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

/// Makes this process the parent of its descendants' orphans.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Children get only stdin, stdout and stderr from now on: what leaked into this process is not for them.
pub fn keep_descriptors() {
    // SAFETY: descriptors stay open, they are only marked. A kernel older than 5.11 refuses, and then they leak as they did.
    unsafe {
        libc::close_range(
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_int,
        )
    };
}

/// Blocks every signal in what `command` starts.
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

/// Starts `command` in a session keyring of its own, which holds a key of this name (session-keyring(7)).
pub fn give_key(command: &mut Command, name: &'static CStr) {
    // SAFETY: system calls; the strings are static.
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
            match keyring == -1 || key == -1 {
                true => Err(io::Error::last_os_error()),
                false => Ok(()),
            }
        });
    }
}

/// All living descendants of this process; a parent comes before its children.
pub fn descendants() -> Vec<Pid> {
    // A list of processes is no snapshot: where a parent ended while it was read, its children have another one by now.
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

/// The parent of every process, and whether it is no zombie.
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

/// Whether the process exists and is no zombie.
pub fn alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|stat| is_alive(&stat))
}

/// The file name of its program; empty where that cannot be read.
pub fn program(pid: Pid) -> String {
    let link = fs::read_link(path(pid, "exe")).unwrap_or_default();
    let name = link.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Whether the kernel knows it by this name (`comm`, 15 bytes).
pub fn is_named(pid: Pid, name: &str) -> bool {
    fs::read_to_string(path(pid, "comm")).is_ok_and(|comm| comm.trim_end() == name)
}

/// Whether it was started with this variable set to this value.
pub fn has_env(pid: Pid, name: &str, value: &str) -> bool {
    let wanted = format!("{name}={value}");
    // In the middle of an exec a process has no environment at all.
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

/// A file of `/proc/PID`, `Key: value` a line: the numbers of one key, or none.
pub fn field(pid: Pid, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path(pid, file)).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The path of a file of `/proc/PID`.
pub fn path(pid: Pid, file: &str) -> PathBuf {
    format!("/proc/{}/{file}", pid.as_raw_nonzero()).into()
}

/// Kills `pid`, which a moment ago was a descendant of ours; it may have ended since. Takes no status: that is its parent's to take.
pub fn kill(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
}

/// What a process has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// CPU time of all its threads.
    pub cpu: Duration,
    /// Their context switches, both kinds: zero between two looks means that it never woke.
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

/// What `pid` has cost so far; nothing if it is gone. Threads that have ended count for as much as `stat` tells, in ticks of 10 ms.
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

/// The fields of `/proc/PID/stat` from the state on: 0 state, 1 parent …
fn stat(pid: Pid) -> Option<Vec<String>> {
    let text = fs::read_to_string(path(pid, "stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

fn is_alive(stat: &[String]) -> bool {
    !matches!(stat[0].as_str(), "Z" | "X")
}
