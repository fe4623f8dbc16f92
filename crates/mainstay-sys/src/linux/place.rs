//! A supervisor's claim on its state directory: detection of other supervisors of the directory,
//! and of its removal or replacement.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use mainstay_core::snapshot::Hasher;
use rustix::event::epoll::EventFlags;
use rustix::fs::MemfdFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::watches::Watches;
use super::{proc, signal};

/// A watch on changes in a state directory (inotify(7)). It also marks this process as the
/// directory's supervisor, independent of the files in the directory.
pub struct PlaceWatch {
    inotify: OwnedFd,
    watches: Watches,
    /// An anonymous file that exists only as a descriptor of this process, visible to root and to
    /// other processes of the same user.
    _mark: Option<OwnedFd>,
}

impl PlaceWatch {
    /// Creates a watch for the state directory with this
    /// [`SUPERVISED_FROM`](crate::SUPERVISED_FROM) value. Requires a tokio runtime with I/O.
    pub fn new(mark: &str) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let watches = Watches::new()?;
        watches.add(&inotify, Watches::NO_KEY, EventFlags::IN)?;
        // If it cannot be created, the lock, the socket and the ledger have to suffice.
        let file = rustix::fs::memfd_create(name_of_mark(mark), MemfdFlags::CLOEXEC);
        Ok(Self {
            inotify,
            watches,
            _mark: file.ok(),
        })
    }

    /// Starts watching for removals and replacements in a directory, and for writes to the lock
    /// file, whose name may already be gone.
    pub fn look_at(&self, dir: &File, lock: &File) -> io::Result<()> {
        let changes = WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        let path = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
        inotify::add_watch(&self.inotify, path(dir), changes)?;
        inotify::add_watch(&self.inotify, path(lock), WatchFlags::MODIFY)?;
        Ok(())
    }

    /// Resolves when something has changed. Cancel-safe.
    pub async fn changed(&self) {
        self.watches.changed().await;
        // The events are discarded: the caller inspects the directory itself.
        let mut events = [const { MaybeUninit::uninit() }; 1024];
        while rustix::io::read(&self.inotify, &mut events).is_ok() {}
    }
}

/// Returns a short name for the anonymous file, because the length of such names is limited.
fn name_of_mark(mark: &str) -> String {
    let mut hasher = Hasher::default();
    hasher.update(mark.as_bytes());
    format!("mainstay-{}", hasher.finish())
}

/// Returns the process of this user, other than this one, that supervises from the state directory
/// with this mark.
pub fn supervisor_of(mark: &str) -> Option<u32> {
    let link = format!("/memfd:{} (deleted)", name_of_mark(mark));
    let own_name = fs::read("/proc/self/comm").ok()?;
    let mut found = holders(&own_name, |found| found == Path::new(&link));
    found.next()
}

/// Kills the keepers of pipes in the state directory with this mark.
pub(super) fn end_keepers(mark: &str) -> io::Result<()> {
    let pipes = format!("{mark}/pipes/");
    let holds_pipe = |link: &Path| link.as_os_str().as_bytes().starts_with(pipes.as_bytes());
    let keepers: Vec<u32> = holders(KEEPER, holds_pipe).collect();
    signal::each(keepers, |pid| {
        let is_it = || holders(KEEPER, holds_pipe).any(|found| found == pid);
        signal::send_if(pid, libc::SIGKILL, is_it)
    })
}

/// The name of a keeper's process as /proc reports it, truncated by the kernel.
const KEEPER: &[u8] = b"mainstay-keeper\n";

/// Returns the processes with this user and name, other than this one, that have a matching file
/// open.
fn holders(name: &[u8], is_it: impl Fn(&Path) -> bool) -> impl Iterator<Item = u32> {
    let own = std::process::id();
    let me = rustix::process::geteuid().as_raw();
    proc::every_pid().filter(move |pid| {
        let dir = Path::new("/proc").join(pid.to_string());
        let owner = fs::metadata(&dir).map(|found| found.uid()).ok();
        let is_named = || fs::read(dir.join("comm")).is_ok_and(|found| found == name);
        if *pid == own || owner != Some(me) || !is_named() {
            return false;
        }
        let fds = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten();
        let mut links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        links.any(|link| is_it(&link))
    })
}
