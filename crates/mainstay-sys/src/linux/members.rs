//! Tree membership by pid alone, such as for the sender of a message or the owner of a socket.

use std::path::Path;

use super::mark::Mark;
use super::{cgroup, proc};
use crate::process::Identity;

/// The criteria that distinguish the processes of one tree from others. It keeps no resource of the
/// tree alive and may be used on any thread.
#[derive(Clone, Debug)]
pub struct Members {
    main: u32,
    bond: Bond,
}

#[derive(Clone, Debug)]
pub(super) enum Bond {
    /// The cgroup's path as `/proc/PID/cgroup` names it.
    Cgroup(String),
    Descendants(Mark),
}

impl Members {
    pub(super) fn new(main: u32, bond: Bond) -> Self {
        Self { main, bond }
    }

    /// Returns the criteria for a tree that the ledger of another supervisor names. `None` if it
    /// names none that can be checked.
    pub fn recorded(left: &Identity) -> Option<Self> {
        let bond = match left.tree.split_once(' ')? {
            ("cgroup", dir) => Bond::Cgroup(cgroup::path_of_dir(Path::new(dir)).ok()?),
            _ => Bond::Descendants(Mark::of_tree(&left.tree, Some(left.pid))?),
        };
        Some(Self::new(left.pid, bond))
    }

    /// Returns whether the process is the main process or another member of the tree, including
    /// zombies. For a process that its parent has reaped, nothing can be determined. Reads a few
    /// files in /proc.
    pub fn has(&self, pid: u32) -> bool {
        // The main process's pid cannot be reused while the tree can be queried: it was reaped a
        // moment ago at most.
        pid == self.main
            || match &self.bond {
                Bond::Cgroup(path) => cgroup::is_member(pid, path),
                Bond::Descendants(mark) => self.is_descendant(pid, mark),
            }
    }

    /// Returns whether the process or one of its ancestors is a member by descent, session or mark.
    fn is_descendant(&self, pid: u32, mark: &Mark) -> bool {
        let process = proc::Stat::of(pid);
        process.is_some_and(|process| {
            proc::with_ancestors(process).any(|process| {
                process.pid == self.main
                    || process.session == self.main
                    || mark.is_believed_of(process.pid)
            })
        })
    }
}
