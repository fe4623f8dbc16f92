//! Processes that are not children of the supervisor, held by descriptor (pidfd_open(2)). A pid may
//! be reused by an unrelated process; a descriptor always refers to the same one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::proc::{self, Stat};
use crate::posix;
use crate::process::{Birth, Exit};

/// A process found by its pid and its start time.
pub(super) struct Stranger {
    pid: u32,
    birth: Birth,
    handle: OwnedFd,
}

impl Stranger {
    /// Finds the process `pid` if it is alive and started at the given time.
    ///
    /// # Errors
    /// `NotFound` if the pid belongs to another process or none. Other errors occur on Linux before
    /// 5.3, or if no descriptors are left.
    pub(super) fn find(pid: u32, birth: Birth) -> io::Result<Self> {
        let raw = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
        let handle = match pidfd_open(raw, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Err(io::ErrorKind::NotFound.into()),
            opened => opened?,
        };
        // Opened first and checked afterwards: the process that has the pid now and started before
        // the call also had it during the call.
        let is_it = |now: Stat| birth.holds(now.identity().1) && now.is_alive();
        if Stat::of(pid).is_some_and(is_it) {
            Ok(Self { pid, birth, handle })
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// Sends a signal. A process that no longer exists is not an error.
    pub(super) fn signal(&self, signal: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
        match pidfd_send_signal(&self.handle, signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Returns how the process ended, as far as the system reports it. Call it once the descriptor
    /// is readable.
    pub(super) fn exit(&self) -> Exit {
        // The parent may reap the process between the first query and the second.
        let status = exit_status(&self.handle)
            .or_else(|| zombie_status(self.pid, self.birth))
            .or_else(|| exit_status(&self.handle));
        status.map_or(Exit::UNKNOWN, posix::exit)
    }
}

/// Returns how an unwatched process ended, which is known until its parent reaps it.
pub(super) fn zombie_exit(pid: u32, birth: Birth) -> Exit {
    zombie_status(pid, birth).map_or(Exit::UNKNOWN, posix::exit)
}

/// Returns the status of a process that its parent has not reaped yet.
fn zombie_status(pid: u32, birth: Birth) -> Option<i32> {
    let (zombie, status) = proc::zombie(pid)?;
    birth.holds(zombie.identity().1).then_some(status)
}

impl AsFd for Stranger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// Opens a descriptor to wait for the exit of a process, if `is_ours` confirms that it is the
/// intended one.
pub(super) fn watch(pid: u32, is_ours: impl FnOnce() -> bool) -> Option<OwnedFd> {
    let handle = pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()?;
    is_ours().then_some(handle)
}

/// `struct pidfd_info` in its first form (include/uapi/linux/pidfd.h, Linux 6.13; `exit_code` since
/// 6.15).
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup_id: u64,
    /// pid, tgid and ppid; real, effective, saved and file system user and group.
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: `_IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)`
const GET_INFO: u32 = opcode::read_write::<Info>(0xFF, 11) as u32;

/// Returns the wait(2) status, which is known once the parent has reaped the process.
fn exit_status(handle: &OwnedFd) -> Option<i32> {
    let mut info = Info {
        mask: INFO_EXIT,
        ..Info::default()
    };
    // SAFETY: the kernel reads and writes as many bytes as the call number encodes, which is the
    // size of `Info`.
    unsafe {
        let call = Updater::<{ GET_INFO as _ }, Info>::new(&mut info);
        ioctl(handle, call).ok()?;
    }
    (info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn cat() -> std::process::Child {
        let mut cat = Command::new("sh");
        cat.args(["-c", "read line; exit 7"]);
        cat.stdin(Stdio::piped()).spawn().unwrap()
    }

    fn birth_of(pid: u32) -> Birth {
        Birth::at(Stat::of(pid).unwrap().identity().1)
    }

    #[test]
    fn who_was_born_at_another_time_is_another() {
        let mut child = cat();
        let Birth { first, last } = birth_of(child.id());
        let pid = child.id();
        let find = |first, last| Stranger::find(pid, Birth { first, last });
        assert!(find(first, last).is_ok());
        assert!(find(first - 1, last + 1).is_ok());
        for (first, last) in [(first - 2, first - 1), (last + 1, last + 2)] {
            let error = find(first, last).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(find(first, last).is_err());
    }

    #[test]
    fn an_end_is_known_before_and_after_it_is_collected() {
        let mut child = cat();
        let stranger = Stranger::find(child.id(), birth_of(child.id())).unwrap();
        drop(child.stdin.take());
        poll(&mut [PollFd::new(&stranger, PollFlags::IN)], None).unwrap();
        let expect = Exit {
            code: Some(7),
            signal: None,
            core_dumped: false,
        };
        assert_eq!(stranger.exit(), expect);
        child.wait().unwrap();
        let known = stranger.exit();
        // Linux before 6.15 does not report the exit.
        assert!(known == expect || known == Exit::UNKNOWN, "{known:?}");
    }

    #[test]
    fn a_clean_end_is_seen_not_supposed() {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let birth = birth_of(child.id());
        let Ok(stranger) = Stranger::find(child.id(), birth) else {
            return drop(child.wait());
        };
        poll(&mut [PollFd::new(&stranger, PollFlags::IN)], None).unwrap();
        assert_eq!(stranger.exit().code, Some(0));
        child.wait().unwrap();
    }
}
