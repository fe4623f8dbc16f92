//! A supervisor's hold on its state directory: who else has one, and when somebody takes ours away.

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

use super::kin;
use super::watches::Watches;

/// Tells of changes in a state directory (inotify(7)), and marks this process as its supervisor, whatever becomes of the files in there.
pub(crate) struct PlaceWatch {
    inotify: OwnedFd,
    watches: Watches,
    /// A file without a name anywhere but among our descriptors, where other processes of our user and root see it.
    _mark: Option<OwnedFd>,
}

impl PlaceWatch {
    /// Of the state directory with this [`SUPERVISED_FROM`](super::SUPERVISED_FROM). Needs a tokio runtime with I/O.
    pub(crate) fn new(mark: &str) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let watches = Watches::new()?;
        watches.add(&inotify, Watches::NO_KEY, EventFlags::IN)?;
        // Where it cannot be made the lock, the socket and the ledger have to do.
        let file = rustix::fs::memfd_create(name_of_mark(mark), MemfdFlags::CLOEXEC);
        Ok(Self {
            inotify,
            watches,
            _mark: file.ok(),
        })
    }

    /// From now on it matters what goes from this directory or is put in the place of something, and what is written to this file, whose name
    /// may be gone already.
    pub(crate) fn look_at(&self, dir: &File, lock: &File) -> io::Result<()> {
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
    pub(crate) async fn changed(&self) {
        self.watches.changed().await;
        // What has changed is looked for, not believed.
        let mut events = [const { MaybeUninit::uninit() }; 1024];
        while rustix::io::read(&self.inotify, &mut events).is_ok() {}
    }
}

/// Names of such files are short.
fn name_of_mark(mark: &str) -> String {
    let mut hasher = Hasher::default();
    hasher.update(mark.as_bytes());
    format!("mainstay-{}", hasher.finish())
}

/// The process of this user, other than ours, that supervises from the state directory with this mark.
pub(crate) fn supervisor_of(mark: &str) -> Option<u32> {
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
    kin::each(keepers, |pid| {
        let is_it = || holders(KEEPER, holds_pipe).any(|found| found == pid);
        kin::signal_if(pid, libc::SIGKILL, is_it)
    })
}

/// The name of a keeper's process, cut off as the kernel does it, as it is told.
const KEEPER: &[u8] = b"mainstay-keeper\n";

/// The processes of this user and name, other than ours, that have such a file open.
fn holders(name: &[u8], is_it: impl Fn(&Path) -> bool) -> impl Iterator<Item = u32> {
    let own = std::process::id();
    let me = rustix::process::geteuid().as_raw();
    kin::every_pid().filter(move |pid| {
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
