//! Trees held together by cgroups (v2, cgroups(7)): a nest `LABEL-PID-INSTANCE` for the supervisor,
//! with one directory per tree inside. An empty directory is kept for the next run of its service,
//! because creating and removing one is a third of the cost of a restart; counters of the kernel
//! then include earlier runs ([`Cgroup::cpu`] subtracts them). No controller is needed, so this
//! works wherever the directory of the supervisor's own cgroup is writable: as root, in a
//! systemd service with `Delegate=yes`, in a user's session, and on hybrid mounts.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, epoll};

use super::watches::Watches;
use super::{proc, signal, system};
use crate::process::{Birth, Found, Identity, Survivor};

/// The supervisor's own cgroup directory, which contains no process itself.
pub(super) struct Nest {
    dir: PathBuf,
    /// The lock held while the owner is alive, so that supervisors in other pid namespaces leave
    /// the nest alone.
    _lock: Option<OwnedFd>,
    /// The nest's path as `/proc/PID/cgroup` names it.
    path: String,
    /// Watches on the `cgroup.events` files of the trees.
    watches: Rc<Watches>,
    /// Directories that were still in use when their tree was dropped.
    leftovers: RefCell<Vec<PathBuf>>,
    /// At most one empty directory per service, by the service's name.
    idle: RefCell<BTreeMap<String, Place>>,
}

/// A directory in the nest.
struct Place {
    name: String,
    /// The open `cgroup.events` file, once it was needed.
    events: OnceCell<File>,
    /// Set if the nest's epoll set contains `events`.
    is_watched: Cell<bool>,
}

impl Place {
    /// Opens the events file before any process is in the directory. A supervisor that runs out of
    /// descriptors later could not distinguish an empty tree from a live one.
    fn watch_for(&self, nest_dir: &Path) -> io::Result<()> {
        if self.events.get().is_none() {
            match File::open(nest_dir.join(&self.name).join("cgroup.events")) {
                // Another process removed the idle directory. It is created again at the start.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => drop(self.events.set(opened?)),
            }
        }
        Ok(())
    }
}

impl Nest {
    /// Creates the nest.
    ///
    /// # Errors
    /// If cgroups cannot be used.
    pub(super) fn new(label: &str, instance: &str) -> io::Result<Self> {
        let (parent_dir, parent_path) = own_cgroup()?;
        // Placing a child into a cgroup requires write access to the common ancestor.
        rustix::fs::access(
            parent_dir.join("cgroup.procs"),
            rustix::fs::Access::WRITE_OK,
        )?;
        // Unlike a pid, an instance is never reused, so [`end_remains`] can rely on the name.
        let name = format!("{label}-{}-{instance}", std::process::id());
        let dir = parent_dir.join(&name);
        fs::create_dir(&dir)?;
        Ok(Self {
            path: format!("{}/{name}", parent_path.trim_end_matches('/')),
            _lock: lock(&dir),
            dir,
            watches: Rc::new(Watches::new()?),
            leftovers: RefCell::default(),
            idle: RefCell::default(),
        })
    }

    /// Opens the nest of a dead supervisor, for the trees that are adopted from it. No new process
    /// is started in it.
    pub(super) fn adopted(dir: &Path, watches: Rc<Watches>) -> io::Result<Self> {
        Ok(Self {
            path: path_of_dir(dir)?,
            _lock: lock(dir),
            dir: dir.to_owned(),
            watches,
            leftovers: RefCell::default(),
            idle: RefCell::default(),
        })
    }

    /// Returns whether no directory is left to be removed later.
    pub(super) fn is_tidy(&self) -> bool {
        self.leftovers.borrow().is_empty()
    }

    /// Removes empty nests that supervisors with this label left when they were killed: 500
    /// services leave 500 directories.
    pub(super) fn remove_stale(&self, label: &str) {
        if let Some(parent_dir) = self.dir.parent() {
            remove_stale(parent_dir, label);
        }
    }

    /// Returns the nest's directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Resolves when a tree that was found populated may no longer be. Cancel-safe.
    pub(super) async fn changed(&self) {
        self.watches.changed().await;
    }

    /// Removes the idle directory of a service that will not start again.
    pub(super) fn forget(&self, service: &str) {
        if let Some(place) = self.idle.borrow_mut().remove(service) {
            let dir = self.dir.join(place.name);
            if remove(&dir).is_err() {
                self.leftovers.borrow_mut().push(dir);
            }
        }
    }

    fn create(&self, name: String) -> io::Result<Place> {
        let dir = self.dir.join(&name);
        match fs::create_dir(&dir) {
            // Another process removed the empty nest.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&self.dir)?;
                fs::create_dir(&dir)?;
            }
            made => made?,
        }
        Ok(Place {
            name,
            events: OnceCell::new(),
            is_watched: Cell::new(false),
        })
    }

    /// Retries the removals that failed before.
    pub(super) fn sweep(&self) {
        self.leftovers
            .borrow_mut()
            .retain(|dir| remove(dir).is_err());
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        // Removes the whole nest, including idle directories. It stays while processes survive in
        // it.
        let _ = remove(&self.dir);
    }
}

/// Kills the processes in the nest of a dead supervisor, except in the directories named in
/// `spared`. Waits at most `timeout` until the rest is empty, and removes it. Returns the number
/// of processes found.
pub(super) fn end_remains(
    nest_dir: &Path,
    spared: &BTreeSet<&str>,
    timeout: Duration,
) -> io::Result<usize> {
    let deadline = Instant::now() + timeout;
    if spared.is_empty() {
        return end(nest_dir, deadline);
    }
    let is_spared = |dir: &PathBuf| {
        let name = dir.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| spared.contains(name))
    };
    let mut count = 0;
    for dir in subdirs(nest_dir).filter(|dir| !is_spared(dir)) {
        count += end(&dir, deadline)?;
    }
    Ok(count)
}

/// Kills the processes of one service in the nest, as [`end_remains`] does.
pub(super) fn end_service(nest_dir: &Path, service: &str, timeout: Duration) -> io::Result<usize> {
    let deadline = Instant::now() + timeout;
    let mut dirs = subdirs(nest_dir).filter(|dir| service_of(dir) == Some(service));
    dirs.try_fold(0, |count, dir| Ok(count + end(&dir, deadline)?))
}

/// Returns the service that a tree's directory belongs to.
fn service_of(dir: &Path) -> Option<&str> {
    let (service, _) = dir.file_name()?.to_str()?.rsplit_once('.')?;
    Some(service)
}

/// Returns the surviving processes in the nest of a dead supervisor.
pub(super) fn survivors(nest_dir: &Path) -> Vec<Survivor> {
    let trees = subdirs(nest_dir).filter_map(|dir| {
        let service = service_of(&dir)?;
        let mut pids = Vec::new();
        collect(&dir, &mut pids).ok()?;
        let living = pids.iter().filter_map(|pid| proc::Stat::of(*pid));
        let living = living.filter(proc::Stat::is_alive);
        let oldest = living.min_by_key(|it| (it.start, pids.contains(&it.parent), it.pid));
        let main = oldest.filter(|it| it.session == it.pid && !pids.contains(&it.parent));
        let service = service.to_owned();
        (!pids.is_empty()).then(|| Survivor {
            service,
            main: main.map(|it| Found {
                began: proc::of_ticks(it.start).saturating_sub(system::suspended()),
                identity: Identity {
                    pid: it.pid,
                    birth: Birth::at(it.start),
                    tree: format!("cgroup {}", dir.display()),
                },
            }),
            pids,
        })
    });
    trees.collect()
}

/// Kills every process in `dir`, waits until they have ended, and removes the directory.
pub(super) fn end(dir: &Path, deadline: Instant) -> io::Result<usize> {
    let mut found = Vec::new();
    match collect(dir, &mut found) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        collected => collected?,
    }
    if !found.is_empty() {
        fs::write(dir.join("cgroup.kill"), "1")?;
    }
    let events = File::open(dir.join("cgroup.events"))?;
    while is_populated(&events)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut waited = [PollFd::new(&events, PollFlags::PRI)];
        rustix::event::poll(
            &mut waited,
            Some(&left.try_into().map_err(io::Error::other)?),
        )?;
    }
    remove(dir)?;
    Ok(found.len())
}

/// The cgroup of one tree. Drop keeps an empty, reusable directory for the next run, or removes it;
/// a directory with live processes is left to a later [`Nest::sweep`].
pub(super) struct Cgroup {
    nest: Rc<Nest>,
    service: String,
    place: Option<Place>,
    /// Set if the directory must not be used again, because it is frozen or `cgroup.kill` was
    /// written. A child created in a cgroup dies if that cgroup was killed more often than its
    /// parent's own (Linux 6.18 compares the two counts in `cgroup_post_fork`).
    is_spent: Cell<bool>,
    /// Set once the cgroup was found empty. No process can be forked into an empty cgroup, so it
    /// stays empty.
    is_vacant: Cell<bool>,
    /// The CPU time of earlier runs in the same directory; `None` if it could not be read.
    cpu_before: Cell<Option<Duration>>,
}

impl Cgroup {
    /// Uses the directory that an earlier run of `service` left, or creates a new one,
    /// `SERVICE.ID`.
    pub(super) fn new(nest: &Rc<Nest>, service: &str, id: u64) -> io::Result<Self> {
        let idle = nest.idle.borrow_mut().remove(service);
        let cpu_before = match &idle {
            Some(place) => cpu_of(&nest.dir.join(&place.name)).ok(),
            None => Some(Duration::ZERO),
        };
        let place = idle.map_or_else(|| nest.create(format!("{service}.{id}")), Ok)?;
        place.watch_for(&nest.dir)?;
        Ok(Self {
            nest: nest.clone(),
            service: service.to_owned(),
            place: Some(place),
            is_spent: Cell::new(false),
            is_vacant: Cell::new(false),
            cpu_before: Cell::new(cpu_before),
        })
    }

    /// Opens the cgroup of a dead supervisor's tree. `main` is its main process, if that is alive.
    /// The CPU time of its live processes and their reaped children belongs to the run; any other
    /// may be that of earlier runs.
    ///
    /// # Errors
    /// `NotFound` if the main process is not in the cgroup.
    pub(super) fn adopted(nest: &Rc<Nest>, name: &str, main: Option<u32>) -> io::Result<Self> {
        if main.is_some_and(|pid| !is_member(pid, &format!("{}/{name}", nest.path))) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let place = Place {
            name: name.to_owned(),
            events: OnceCell::new(),
            is_watched: Cell::new(false),
        };
        let cgroup = Self {
            nest: nest.clone(),
            service: String::new(),
            place: Some(place),
            is_spent: Cell::new(true),
            is_vacant: Cell::new(false),
            cpu_before: Cell::new(None),
        };
        if let (Ok(total), Ok(pids)) = (cpu_of(&cgroup.dir()), cgroup.processes()) {
            let own = proc::cpu(pids.into_iter().filter_map(proc::Stat::of));
            cgroup.cpu_before.set(Some(total.saturating_sub(own)));
        }
        Ok(cgroup)
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.nest.dir.join(self.name())
    }

    /// Returns the path as `/proc/PID/cgroup` names it.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.nest.path, self.name())
    }

    fn name(&self) -> &str {
        self.place.as_ref().map_or("", |place| &place.name)
    }

    /// Opens the directory for `clone_into`.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(self.dir(), flags, Mode::empty()) {
            // Another process removed the idle directory.
            Err(rustix::io::Errno::NOENT) => {
                fs::create_dir_all(self.dir())?;
                self.cpu_before.set(Some(Duration::ZERO));
                Ok(rustix::fs::open(self.dir(), flags, Mode::empty())?)
            }
            opened => Ok(opened?),
        }
    }

    /// Opens `cgroup.procs` for a child that moves itself.
    pub(super) fn open_procs(&self) -> io::Result<File> {
        File::options()
            .write(true)
            .open(self.dir().join("cgroup.procs"))
    }

    /// Returns whether no process is in the cgroup or below it. If there are some,
    /// [`Nest::changed`] resolves when the last one is gone: newer kernels empty a cgroup only
    /// after the parent was notified of the death.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        let Some(place) = self.place.as_ref().filter(|_| !self.is_vacant.get()) else {
            return Ok(true);
        };
        let events = match place.events.get() {
            Some(events) => events,
            None => {
                let events = File::open(self.dir().join("cgroup.events"))?;
                place.events.get_or_init(|| events)
            }
        };
        let mut is_empty = !self.is_populated(events)?;
        if !is_empty && !place.is_watched.replace(true) {
            let watches = &self.nest.watches;
            watches.add(events, Watches::NO_KEY, epoll::EventFlags::PRI)?;
            is_empty = !self.is_populated(events)?;
        }
        self.is_vacant.set(is_empty);
        Ok(is_empty)
    }

    /// The open events file of a removed cgroup cannot be read. Another cgroup may have its name by
    /// now.
    fn is_populated(&self, events: &File) -> io::Result<bool> {
        match is_populated(events) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                is_populated(&File::open(self.dir().join("cgroup.events"))?)
            }
            answer => answer,
        }
    }

    /// Sends SIGKILL to every process in the cgroup, including those being forked. Works on frozen
    /// processes.
    pub(super) fn kill(&self) -> io::Result<()> {
        self.is_spent.set(true);
        match fs::write(self.dir().join("cgroup.kill"), "1") {
            // Linux before 5.14 has no `cgroup.kill`. Frozen processes cannot fork meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _ = self.freeze();
                let result = self.signal(libc::SIGKILL);
                let _ = self.thaw();
                result
            }
            result => result,
        }
    }

    /// Sends `signal` to each process that is verifiably in the cgroup at that moment.
    pub(super) fn signal(&self, signal: i32) -> io::Result<()> {
        let path = self.path();
        signal::each(self.processes()?, |pid| {
            signal::send_if(pid, signal, || is_member(pid, &path))
        })
    }

    /// Freezes the cgroup. Takes effect with a short delay, when each process next leaves the
    /// kernel.
    pub(super) fn freeze(&self) -> io::Result<()> {
        self.is_spent.set(true);
        fs::write(self.dir().join("cgroup.freeze"), "1")
    }

    /// Undoes [`Cgroup::freeze`].
    pub(super) fn thaw(&self) -> io::Result<()> {
        self.is_spent.set(true);
        fs::write(self.dir().join("cgroup.freeze"), "0")
    }

    /// Returns the processes in the cgroup and below it, excluding zombies.
    pub(super) fn processes(&self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        collect(&self.dir(), &mut found)?;
        Ok(found)
    }

    /// Returns the CPU time of all processes of this run that were ever in the cgroup.
    pub(super) fn cpu(&self) -> io::Result<Duration> {
        let before = self.cpu_before.get().ok_or(io::ErrorKind::NotFound)?;
        Ok(cpu_of(&self.dir())?.saturating_sub(before))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let dir = self.dir();
        // Child cgroups created by the program would affect the next run.
        let is_new = || {
            !self.is_spent.get()
                && self.is_empty().unwrap_or(false)
                && fs::metadata(&dir).is_ok_and(|found| found.nlink() == 2)
        };
        let mut idle = self.nest.idle.borrow_mut();
        if !idle.contains_key(&self.service) && is_new() {
            idle.extend(self.place.take().map(|place| (self.service.clone(), place)));
        } else if remove(&dir).is_err() {
            self.nest.leftovers.borrow_mut().push(dir);
        }
    }
}

/// Returns the CPU time of all processes that were ever in a cgroup.
fn cpu_of(dir: &Path) -> io::Result<Duration> {
    let text = fs::read_to_string(dir.join("cpu.stat"))?;
    let micros = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
    micros
        .map(Duration::from_micros)
        .ok_or(io::ErrorKind::InvalidData.into())
}

fn is_populated(events: &File) -> io::Result<bool> {
    let mut text = [0; 64];
    let length = events.read_at(&mut text, 0)?;
    Ok(text[..length]
        .windows(11)
        .any(|word| word == b"populated 1"))
}

/// Returns the path of a cgroup's directory as `/proc/PID/cgroup` names it.
pub(super) fn path_of_dir(dir: &Path) -> io::Result<String> {
    let mounts = fs::read("/proc/self/mountinfo")?;
    let mut lines = mounts.split(|byte| *byte == b'\n');
    let path = lines.find_map(|line| path_of(line, dir));
    path.ok_or_else(|| io::ErrorKind::NotFound.into())
}

pub(super) fn is_member(pid: u32, path: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let own = text.lines().find_map(|line| line.strip_prefix("0::"));
    own.and_then(|own| own.strip_prefix(path))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn collect(dir: &Path, found: &mut Vec<u32>) -> io::Result<()> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    found.extend(
        text.lines()
            .filter_map(|line| line.parse::<u32>().ok())
            .filter(|pid| *pid != 0),
    );
    for child in subdirs(dir) {
        let _ = collect(&child, found); // it may be gone by now
    }
    Ok(())
}

fn subdirs(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

/// Removes `dir` and the cgroups that the program may have created below it.
///
/// # Errors
/// If a process is in it; nothing is removed then.
fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            if File::open(dir.join("cgroup.events")).is_ok_and(|e| is_populated(&e).unwrap_or(true))
            {
                return Err(error);
            }
            for child in subdirs(dir) {
                remove(&child)?;
            }
            fs::remove_dir(dir)
        }
        Ok(()) => Ok(()),
    }
}

/// Locks a nest until the descriptor is closed. Returns `None` if another process holds the lock.
fn lock(dir: &Path) -> Option<OwnedFd> {
    use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = open(dir, flags, Mode::empty()).ok()?;
    flock(&dir, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(dir)
}

/// Removes empty nests of supervisors that were killed. The pid in the name may be from another pid
/// namespace, so the lock decides. Older supervisors hold no lock, and only their pid shows that
/// they are alive.
fn remove_stale(parent_dir: &Path, label: &str) {
    for dir in subdirs(parent_dir) {
        let name = dir.file_name().and_then(|name| name.to_str());
        let pid = name.and_then(|name| {
            name.strip_prefix(label)?
                .strip_prefix('-')?
                .split('-')
                .next()?
                .parse::<u32>()
                .ok()
        });
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            && let Some(_lock) = lock(&dir)
        {
            let _ = remove(&dir);
        }
    }
}

/// Returns the directory of this process's cgroup, and its path in /proc.
pub(super) fn own_cgroup() -> io::Result<(PathBuf, String)> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or(io::ErrorKind::Unsupported)?;
    let mounts = fs::read("/proc/self/mountinfo")?;
    let dir = mounts
        .split(|byte| *byte == b'\n')
        .find_map(|line| mounted_at(line, own))
        .ok_or(io::ErrorKind::Unsupported)?;
    Ok((dir, own.to_owned()))
}

/// Returns the directory of cgroup `own` if `line` of mountinfo (proc_pid_mountinfo(5)) is a cgroup
/// v2 mount that contains it.
fn mounted_at(line: &[u8], own: &str) -> Option<PathBuf> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = unescape(fields.nth(3)?);
    let mount_point = unescape(fields.next()?);
    fields.find(|field| *field == b"-")?;
    if fields.next()? != b"cgroup2" {
        return None;
    }
    let root = root.strip_suffix(b"/").unwrap_or(&root);
    let below = own
        .as_bytes()
        .strip_prefix(root)
        .filter(|rest| rest.is_empty() || rest[0] == b'/')?;
    let below = below.strip_prefix(b"/").unwrap_or(below);
    let mut dir = PathBuf::from(std::ffi::OsString::from_vec(mount_point));
    if !below.is_empty() {
        dir.push(std::ffi::OsString::from_vec(below.to_vec()));
    }
    Some(dir)
}

/// Returns the /proc path of the cgroup whose directory is `dir`, if `line` of mountinfo is a
/// cgroup v2 mount that contains it.
fn path_of(line: &[u8], dir: &Path) -> Option<String> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = String::from_utf8(unescape(fields.nth(3)?)).ok()?;
    let mount_point = PathBuf::from(std::ffi::OsString::from_vec(unescape(fields.next()?)));
    fields.find(|field| *field == b"-")?;
    if fields.next()? != b"cgroup2" {
        return None;
    }
    let below = dir.strip_prefix(mount_point).ok()?.to_str()?;
    Some(format!("{}/{below}", root.trim_end_matches('/')))
}

/// Decodes octal escapes, such as `\040` for a space.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| tail.get(..3)).flatten();
        match octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok())
        {
            Some(escaped) => {
                plain.push(escaped);
                rest = &tail[3..];
            }
            None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_a_path() {
        let check = |line: &str, dir: &str, expect: Option<&str>| {
            let path = path_of(line.as_bytes(), dir.as_ref());
            assert_eq!(path.as_deref(), expect, "{line} {dir}");
        };
        let plain = "29 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw";
        check(plain, "/sys/fs/cgroup/a b/c", Some("/a b/c"));
        check(plain, "/sys/fs/other/a", None);
        let bound = r"41 31 0:38 /docker/1 /mnt/a\040b rw - cgroup2 cgroup2 rw";
        check(bound, "/mnt/a b/x", Some("/docker/1/x"));
        check("31 23 0:28 / /sys rw - tmpfs tmpfs rw", "/sys/a", None);
        check("", "/", None);
    }

    #[test]
    fn a_mount_shows_a_cgroup_or_not() {
        let check = |line: &str, own: &str, expect: Option<&str>| {
            assert_eq!(
                mounted_at(line.as_bytes(), own),
                expect.map(PathBuf::from),
                "{line} {own}"
            );
        };
        let plain =
            "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        check(plain, "/", Some("/sys/fs/cgroup"));
        check(
            plain,
            "/system.slice/a b.service",
            Some("/sys/fs/cgroup/system.slice/a b.service"),
        );
        let hybrid = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        check(hybrid, "/x", Some("/sys/fs/cgroup/unified/x"));
        let bound = r"41 31 0:38 /docker/1 /mnt/a\040b rw shared:1 master:2 - cgroup2 cgroup2 rw";
        check(bound, "/docker/1/x", Some("/mnt/a b/x"));
        check(bound, "/docker/1", Some("/mnt/a b"));
        check(bound, "/docker/12", None);
        check("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw", "/", None);
        check(
            "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd",
            "/",
            None,
        );
        check("", "/", None);
    }
}
