//! Processes as described by /proc, and trees held together by ancestry alone.
//!
//! The supervisor is a subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)): a process that loses its
//! parent becomes a child of the *supervisor*. Every process of every tree is therefore a
//! descendant of the supervisor. A tree consists of its main process with its descendants, plus
//! those orphans of the supervisor that were started in its session, carry its mark in their
//! environment, or were seen in it before.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::mark::Mark;
use super::pidfd;
use super::watches::Watches;
use crate::posix::kill;

/// The maximum number of generations between a process and a main process above it.
pub(super) const DEEPEST: usize = 256;

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

    /// Returns the CPU time in clock ticks.
    pub(super) fn cpu(&self) -> u64 {
        self.cpu
    }
}

/// Converts clock ticks since boot to a duration.
pub(super) fn since_boot(ticks: u64) -> Duration {
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

/// Performs `action` for each item, and returns the first error after all of them.
pub(super) fn each<T>(
    items: impl IntoIterator<Item = T>,
    action: impl FnMut(T) -> io::Result<()>,
) -> io::Result<()> {
    let results = items.into_iter().map(action);
    results.reduce(io::Result::and).unwrap_or(Ok(()))
}

/// Sends `signal` to the process that had `pid` while `is_ours` was true. A process that no longer
/// exists is not an error.
pub(super) fn signal_if(pid: u32, signal: i32, is_ours: impl FnOnce() -> bool) -> io::Result<()> {
    let raw = pid.cast_signed();
    let (Some(pid), Some(named)) = (Pid::from_raw(raw), Signal::from_named_raw(signal)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let process = pidfd_open(pid, PidfdFlags::empty());
    // A descriptor stays bound to its process. If the check below sees another process, the
    // descriptor's is dead and the signal has no effect.
    if matches!(process, Err(Errno::SRCH)) || !is_ours() {
        return Ok(());
    }
    match process {
        Ok(process) => match pidfd_send_signal(process, named) {
            Err(Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        },
        // Linux before 5.3, a seccomp filter, or no descriptor left: keeps the time between check
        // and use minimal.
        Err(_) => kill(raw, signal),
    }
}

/// Kills every other process that `is_meant` matches by its pid and environment, until there is
/// none. See `super::end_remains`.
pub(super) fn end_remains(
    is_meant: impl Fn(u32, &[u8]) -> bool,
    timeout: Duration,
) -> io::Result<usize> {
    let own = std::process::id();
    let is_marked = |pid: u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        pid != own && is_meant(pid, &environment)
    };
    let deadline = Instant::now() + timeout;
    let mut killed = BTreeSet::new();
    loop {
        let found: Vec<u32> = every_pid().filter(|pid| is_marked(*pid)).collect();
        if found.is_empty() {
            return Ok(killed.len());
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        each(found, |pid| {
            killed.insert(pid);
            signal_if(pid, libc::SIGKILL, || is_marked(pid))
        })?;
        // They are not children of this process, so no notification arrives when they exit.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The identity of a tree without a cgroup.
pub(super) struct Descendants {
    mark: Mark,
    /// The identities of all members found by the last scan. A member that loses its parent still
    /// belongs to the tree.
    seen: BTreeSet<(u32, u64)>,
    adopted: Option<Adopted>,
}

/// Additional state of a tree that was started under another supervisor, whose orphans are not
/// reparented to this one.
struct Adopted {
    /// The start time of the main process. No process in its tree is older.
    birth: u64,
    watches: Rc<Watches>,
    /// Members whose exit is watched.
    watched: BTreeMap<(u32, u64), OwnedFd>,
}

impl Descendants {
    pub(super) fn new(mark: Mark) -> Self {
        Self {
            mark,
            seen: BTreeSet::new(),
            adopted: None,
        }
    }

    /// Creates the state for a tree of a dead supervisor whose main process started at `birth`.
    pub(super) fn adopted(mark: Mark, birth: u64, watches: Rc<Watches>) -> Self {
        let adopted = Adopted {
            birth,
            watches,
            watched: BTreeMap::new(),
        };
        Self {
            adopted: Some(adopted),
            ..Self::new(mark)
        }
    }

    /// Returns the mark of the tree's members.
    pub(super) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Makes [`Watches::changed`] resolve when one of these members, found before, exits. Does
    /// nothing for trees of this supervisor, whose members become its children.
    pub(super) fn watch(&mut self, members: &[Stat]) {
        let Some(adopted) = &mut self.adopted else {
            return;
        };
        let is_member = |identity: &(u32, u64)| members.iter().any(|m| m.identity() == *identity);
        adopted.watched.retain(|identity, _| is_member(identity));
        for member in members {
            let Entry::Vacant(entry) = adopted.watched.entry(member.identity()) else {
                continue;
            };
            let is_it = || Stat::of(member.pid).is_some_and(|n| n.identity() == member.identity());
            let Some(handle) = pidfd::watch(member.pid, is_it) else {
                continue;
            };
            let end = epoll::EventFlags::IN;
            if adopted.watches.add(&handle, Watches::NO_KEY, end).is_ok() {
                entry.insert(handle);
            }
        }
    }

    /// Returns the live members of a tree that was started under another supervisor, parents before
    /// children.
    fn adopted_members(
        &mut self,
        main: (u32, bool),
        birth: u64,
        is_others: impl Fn(&Stat) -> bool,
    ) -> Vec<Stat> {
        // A process that loses its parent during a scan may be missed by that scan, but not by the
        // next.
        for _ in 0..100 {
            let members = self.look_everywhere(main, birth, &is_others);
            let found: BTreeSet<_> = members.iter().map(Stat::identity).collect();
            if found.is_subset(&self.seen) {
                self.seen = found;
                return members;
            }
            self.seen.extend(found);
        }
        self.look_everywhere(main, birth, &is_others)
    }

    fn look_everywhere(
        &self,
        (main, is_running): (u32, bool),
        birth: u64,
        is_others: impl Fn(&Stat) -> bool,
    ) -> Vec<Stat> {
        let own = std::process::id();
        let mut others: Vec<Stat> = every_pid()
            .filter(|pid| *pid != own)
            .filter_map(Stat::of)
            .filter(|process| process.start >= birth && process.is_alive())
            .collect();
        others.sort_by_key(|process| process.start);
        let mut members: Vec<Stat> = Vec::new();
        // Searches the other processes for descendants of the members found last.
        let is_new = |process: &Stat, members: &[Stat]| {
            let is_child = |of: &Stat| process.parent == of.pid && process.start >= of.start;
            // Once the main process no longer exists, its pid may name another session.
            is_running && (process.pid == main || process.session == main)
                || self.seen.contains(&process.identity())
                || members.iter().any(is_child)
        };
        loop {
            let (new, rest): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|one| is_new(one, &members));
            others = rest;
            if new.is_empty() {
                break;
            }
            members.extend(new);
        }
        let (marked, rest): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|process| self.mark.is_of(process.pid) && !is_others(process));
        members.extend(marked);
        others = rest;
        loop {
            let (new, rest): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|one| is_new(one, &members));
            others = rest;
            if new.is_empty() {
                return members;
            }
            members.extend(new);
        }
    }

    /// Returns the live members, parents before children. `main` is the main process and whether it
    /// is still to be reaped. `is_main` returns whether a child is the main process of any tree.
    /// `is_others` returns whether a process provably belongs to another tree; then its mark does
    /// not count.
    pub(super) fn members(
        &mut self,
        main: (u32, bool),
        is_main: impl Fn(u32) -> bool,
        is_others: impl Fn(&Stat) -> bool,
    ) -> Vec<Stat> {
        if let Some(Adopted { birth, .. }) = self.adopted {
            return self.adopted_members(main, birth, is_others);
        }
        let own = std::process::id();
        let mut ours = children(own);
        // A scan is not a snapshot: a process that loses its parent during the scan is seen neither
        // below that parent nor among the supervisor's children. But then the supervisor has
        // another child afterwards. The limit is for a tree that never settles; the results of its
        // scans accumulate anyway.
        let mut members = Vec::new();
        for _ in 0..100 {
            members = self.look(&ours, main, (&is_main, &is_others));
            self.seen.extend(members.iter().map(Stat::identity));
            let now = children(own);
            if now == ours {
                break;
            }
            ours = now;
        }
        members.retain(Stat::is_alive);
        self.seen = members.iter().map(Stat::identity).collect();
        members
    }

    fn look(
        &self,
        ours: &[u32],
        (main, is_running): (u32, bool),
        (is_main, is_others): (impl Fn(u32) -> bool, impl Fn(&Stat) -> bool),
    ) -> Vec<Stat> {
        // A new main process can only have the pid of an old session if that session is over.
        let session = (is_running || !is_main(main)).then_some(main);
        let orphans = ours
            .iter()
            .filter(|pid| !is_main(**pid))
            .filter_map(|pid| Stat::of(*pid));
        let mut members: Vec<Stat> = orphans
            .filter(|orphan| {
                Some(orphan.session) == session
                    || self.seen.contains(&orphan.identity())
                    || self.mark.is_of(orphan.pid) && !is_others(orphan)
            })
            .collect();
        if is_running {
            members.extend(Stat::of(main));
        }
        let mut next = 0;
        while let Some(parent) = members.get(next).copied() {
            next += 1;
            let children = children(parent.pid).into_iter().filter_map(Stat::of);
            // The parent may have died during the scan, and its pid may have been reused.
            members.extend(
                children.filter(|child| child.parent == parent.pid && child.start >= parent.start),
            );
        }
        members
    }
}

/// Returns whether a process is one that `is_main` matches, shares its session, or descends from
/// it. A process can change neither fact to its liking, other than its environment.
pub(super) fn is_below(process: Stat, is_main: impl Fn(u32) -> bool) -> bool {
    let own = std::process::id();
    let mut next = Some(process);
    for _ in 0..DEEPEST {
        let Some(process) = next.filter(|process| process.pid != own) else {
            return false;
        };
        if is_main(process.pid) || is_main(process.session) {
            return true;
        }
        let parent = Stat::of(process.parent);
        next = parent.filter(|parent| parent.start <= process.start);
    }
    false
}

/// Sends `signal` to a process that was found before, unless it has ended since.
pub(super) fn signal(process: &Stat, signal: i32) -> io::Result<()> {
    signal_if(process.pid, signal, || {
        Stat::of(process.pid).is_some_and(|now| now.identity() == process.identity())
    })
}

/// Returns the service of a process that `is_meant` matches by its pid and environment, as that
/// environment names it.
pub(super) fn service_of(pid: u32, is_meant: impl Fn(u32, &[u8]) -> bool) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    if pid == std::process::id() || !is_meant(pid, &environment) {
        return None;
    }
    service_in(&environment).map(str::to_owned)
}

/// Returns the service that an environment names.
pub(super) fn service_in(environment: &[u8]) -> Option<&str> {
    const SERVICE: &[u8] = b"MAINSTAY_SERVICE=";
    let mut variables = environment.split(|byte| *byte == 0);
    let name = variables.find_map(|variable| variable.strip_prefix(SERVICE))?;
    str::from_utf8(name).ok()
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

    #[test]
    fn a_recycled_pid_is_not_signalled() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut other = Stat::of(child.id()).unwrap();
        other.start -= 1; // an earlier process with this pid
        signal(&other, libc::SIGKILL).unwrap();
        signal_if(child.id(), libc::SIGKILL, || false).unwrap();
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}
