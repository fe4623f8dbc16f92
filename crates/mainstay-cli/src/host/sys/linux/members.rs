//! Whether a process is part of a tree, for those who have only its pid: of the sender of a message, of the owner of a socket.

use super::mark::Mark;
use super::{cgroup, kin};

/// What tells the processes of one tree from others. It holds nothing of the tree and may be asked on any thread.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    main: u32,
    bond: Bond,
}

#[derive(Clone, Debug)]
pub(super) enum Bond {
    /// As `/proc/PID/cgroup` names it.
    Cgroup(String),
    Kin(Mark),
}

/// Generations between a member and the main process, or an orphan with a mark.
const DEEPEST: usize = 256;

impl Members {
    pub(super) fn new(main: u32, bond: Bond) -> Self {
        Self { main, bond }
    }

    /// Whether the process is the main process, or another one of the tree, zombies included. Of a process that its parent has collected
    /// nothing is left to tell. Reads a few files of /proc.
    pub(crate) fn has(&self, pid: u32) -> bool {
        // Its number is not given out again while anybody can ask about the tree: it was collected a moment ago at most.
        pid == self.main
            || match &self.bond {
                Bond::Cgroup(path) => cgroup::is_member(pid, path),
                Bond::Kin(mark) => self.is_kin(pid, mark),
            }
    }

    /// By descent, session or mark; so also are its children.
    fn is_kin(&self, pid: u32, mark: &Mark) -> bool {
        let own = std::process::id();
        let mut next = kin::Stat::of(pid);
        for _ in 0..DEEPEST {
            let Some(process) = next.filter(|process| process.pid != own) else {
                return false;
            };
            if process.pid == self.main
                || process.session == self.main
                || mark.is_believed_of(process.pid)
            {
                return true;
            }
            let parent = kin::Stat::of(process.parent);
            next = parent.filter(|parent| parent.start <= process.start);
        }
        false
    }
}
