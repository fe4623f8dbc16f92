//! Processes as described by /proc.

use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;
use std::{fs, io};

use crate::process::{Birth, Condition, Identity};

/// The maximum number of generations between a process and a main process above it.
const DEEPEST: usize = 256;

/// The fields used from /proc/PID/stat (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) pid: u32,
    state: u8,
    pub(super) parent: u32,
    pub(super) session: u32,
    /// The start time in clock ticks since boot. With `pid`, it identifies a process.
    pub(super) start: u64,
    /// CPU time in clock ticks, of the process and its reaped children.
    cpu: u64,
}

impl Stat {
    pub(super) fn of(pid: u32) -> Option<Self> {
        Self::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(pid: u32, text: &[u8]) -> Option<Self> {
        // The name before it may itself contain spaces and parentheses.
        let behind_name = text.iter().rposition(|byte| *byte == b')')? + 2;
        let fields: Vec<&str> = std::str::from_utf8(text.get(behind_name..)?)
            .ok()?
            .split(' ')
            .collect();
        let number = |field: usize| fields.get(field - 3)?.trim_end().parse::<u64>().ok();
        Some(Self {
            pid,
            state: *fields.first()?.as_bytes().first()?,
            parent: number(4)?.try_into().ok()?,
            session: number(6)?.try_into().ok()?,
            start: number(22)?,
            cpu: number(14)? + number(15)? + number(16)? + number(17)?,
        })
    }

    /// Returns whether a process is in the middle of an `execve`: field 51, the end of its
    /// environment, is still 0. The field is always 0 for kernel threads, which have no memory
    /// (field 23).
    fn is_executing(pid: u32) -> bool {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = text.rsplit(") ").next().unwrap_or_default().split(' ');
        !matches!(fields.next(), None | Some("" | "Z" | "X"))
            && fields.nth(19).is_some_and(|size| size != "0")
            && fields.nth(27) == Some("0")
    }

    /// Also returns the wait(2) status (field 52), which is 0 before the exit and for readers
    /// without permission.
    pub(super) fn with_exit(pid: u32) -> Option<(Self, i32)> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let last = text.rsplit(|byte| *byte == b' ').next()?;
        let status = std::str::from_utf8(last).ok()?.trim_end().parse().ok()?;
        Some((Self::parse(pid, &text)?, status))
    }

    pub(super) fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }

    pub(super) fn identity(&self) -> (u32, u64) {
        (self.pid, self.start)
    }
}

/// Returns the CPU time of processes and their reaped children.
pub(super) fn cpu(processes: impl IntoIterator<Item = Stat>) -> Duration {
    of_ticks(processes.into_iter().map(|process| process.cpu).sum())
}

/// Converts clock ticks to a duration.
pub(super) fn of_ticks(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_millis(ticks.saturating_mul(1000) / per_second)
}

/// Returns a zombie and its wait(2) status: field 52 of `/proc/PID/stat`, which reads 0 without
/// permission. `/proc/PID/io` requires the same permission, and is refused instead.
pub(super) fn zombie(pid: u32) -> Option<(Stat, i32)> {
    let (zombie, status) = Stat::with_exit(pid)?;
    let may_know = || fs::read(format!("/proc/{pid}/io")).is_ok();
    (!zombie.is_alive() && (status != 0 || may_know())).then_some((zombie, status))
}

/// Returns the resident memory in bytes.
pub(super) fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Returns whether `pid` has a handler for `signal`.
pub(super) fn handles(pid: u32, signal: i32) -> Option<bool> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
    Some(caught >> (signal - 1) & 1 == 1)
}

/// Returns the real user ID, independent of the effective one: no program can change its real user
/// ID without the right to become another user.
pub(super) fn real_uid(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uids = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_ascii_whitespace().next()?.parse().ok()
}

/// Returns a process and its ancestors, the nearest first. The line ends before this process.
pub(super) fn with_ancestors(process: Stat) -> impl Iterator<Item = Stat> {
    let own = std::process::id();
    let mut child: Option<Stat> = None;
    let line = std::iter::from_fn(move || {
        let next = match child {
            None => process,
            Some(child) => Stat::of(child.parent).filter(|parent| parent.start <= child.start)?,
        };
        (next.pid != own).then(|| *child.insert(next))
    });
    line.take(DEEPEST)
}

/// Returns whether a process is one that `is_main` matches, shares its session, or descends from
/// it. A process can change neither fact to its liking, other than its environment.
pub(super) fn is_below(process: Stat, is_main: impl Fn(u32) -> bool) -> bool {
    with_ancestors(process).any(|process| is_main(process.pid) || is_main(process.session))
}

/// Returns whether `pid` belongs to one of these main processes now.
pub(super) fn has_main(mains: &[(u32, Birth)], pid: u32) -> bool {
    mains.iter().any(|(main, birth)| {
        *main == pid && Stat::of(pid).is_some_and(|now| birth.holds(now.identity().1))
    })
}

/// Returns whether the main process is alive and is still the recorded one.
pub fn lives(left: &Identity) -> bool {
    let stat = Stat::of(left.pid);
    stat.is_some_and(|now| now.is_alive() && left.birth.holds(now.identity().1))
}

/// Returns whether no such process exists, except as a zombie.
pub fn is_dead(pid: u32) -> bool {
    Stat::of(pid).is_none_or(|stat| !stat.is_alive())
}

/// Returns the condition of a process.
pub fn condition(pid: u32) -> Condition {
    match Stat::of(pid) {
        None => Condition::Absent,
        Some(stat) if !stat.is_alive() => Condition::Zombie,
        Some(stat) if matches!(stat.state, b'T' | b't') => Condition::Suspended,
        Some(_) => Condition::Present,
    }
}

/// Returns whether the program file that a process runs has been replaced or deleted since it was
/// started. `false` if this process may not see that. Does not block, even if the file is on a file
/// system that does not respond.
pub fn runs_replaced_file(pid: u32) -> bool {
    let target = fs::read_link(format!("/proc/{pid}/exe"));
    target.is_ok_and(|target| is_removed(target.as_os_str().as_bytes()))
}

/// Returns whether the target of `/proc/PID/exe` is a removed file (proc_pid_exe(5)). A memory file
/// (memfd_create(2)) never had a directory entry.
fn is_removed(target: &[u8]) -> bool {
    target.ends_with(b" (deleted)") && !target.starts_with(b"/memfd:")
}

/// Returns the identity of this process, which has no tree.
pub fn own_identity() -> io::Result<Identity> {
    let pid = std::process::id();
    let stat = Stat::of(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(Identity {
        pid,
        birth: Birth::at(stat.identity().1),
        tree: String::new(),
    })
}

/// Returns whether the environment of a process has a variable that `is_meant` matches.
pub(super) fn has_variable(pid: u32, is_meant: impl Fn(&[u8]) -> bool) -> bool {
    // In the middle of an exec a process briefly has no environment, which differs from an empty
    // one.
    for _ in 0..10_000 {
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
            return false;
        };
        if !environment.is_empty() || !Stat::is_executing(pid) {
            return environment.split(|byte| *byte == 0).any(is_meant);
        }
        std::thread::yield_now();
    }
    false
}

/// Returns the children of all threads of `pid`. The list may be incomplete for a process that
/// reaps its own children meanwhile (proc_pid_task(5)), so a caller that must not miss any stops
/// the process first and scans again.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        match fs::read_to_string(task.path().join("children")) {
            Ok(text) => found.extend(
                text.split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            ),
            // The kernel lacks CONFIG_PROC_CHILDREN, unless only the thread has ended.
            Err(_) if !fs::exists("/proc/thread-self/children").unwrap_or(true) => {
                return children_by_scan(pid);
            }
            Err(_) => {}
        }
    }
    found
}

/// Returns a process and its live descendants, except those that lost a parent.
pub(super) fn family(root: u32) -> Vec<Stat> {
    let mut members: Vec<Stat> = Stat::of(root).into_iter().collect();
    let mut next = 0;
    while let Some(parent) = members.get(next).copied() {
        next += 1;
        let children = children(parent.pid).into_iter().filter_map(Stat::of);
        members.extend(children.filter(|child| child.parent == parent.pid));
    }
    members
}

pub(super) fn every_pid() -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn children_by_scan(parent: u32) -> Vec<u32> {
    let all = every_pid().filter_map(Stat::of);
    all.filter(|process| process.parent == parent)
        .map(|process| process.pid)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_stat() {
        let text = b"42 (a) S 1 1) R 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 1234 9 9 9\n";
        let stat = Stat::parse(42, text).unwrap();
        assert_eq!(
            (stat.state, stat.parent, stat.session, stat.start, stat.cpu),
            (b'R', 7, 9, 1234, 26)
        );
        assert!(Stat::parse(42, b"").is_none());
        assert!(Stat::parse(42, b"42 (x").is_none());
    }

    #[test]
    fn a_removed_file_is_distinguished_from_a_memory_file() {
        assert!(is_removed(b"/usr/bin/mainstay (deleted)"));
        assert!(!is_removed(b"/usr/bin/mainstay"));
        assert!(!is_removed(b"/memfd:runc_cloned (deleted)"));
        assert!(!runs_replaced_file(std::process::id()));
    }

    #[test]
    fn children_are_found_with_and_without_the_list() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let own = std::process::id();
        assert!(children(own).contains(&child.id()));
        assert!(children_by_scan(own).contains(&child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    /// A kernel thread has no environment either, and never will.
    #[test]
    fn a_thread_of_the_kernel_does_not_execute() {
        const KTHREADD: u32 = 2;
        let name = fs::read_to_string(format!("/proc/{KTHREADD}/comm")).unwrap_or_default();
        if name.trim_end() != "kthreadd" {
            return mainstay_testkit::skip("its threads are not seen here");
        }
        assert!(!Stat::is_executing(KTHREADD));
        assert!(!Stat::is_executing(std::process::id()));
    }
}
