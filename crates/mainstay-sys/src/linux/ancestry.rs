//! Trees held together by ancestry alone.
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

use rustix::event::epoll;

use super::mark::Mark;
use super::pidfd;
use super::proc::{Stat, children, every_pid};
use super::watches::Watches;

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
