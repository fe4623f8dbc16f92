//! Linux: children are created by `clone3` in one cgroup each. Without a usable cgroup, the
//! supervisor is a subreaper instead.
//!
//! Sources: clone(2), cgroups(7), prctl(2), pidfd_open(2), proc(5), and the kernel's cgroup-v2.rst.

mod ancestry;
mod cgroup;
mod clone;
mod keeper;
mod mark;
mod members;
mod memory;
mod pidfd;
mod place;
mod proc;
mod remains;
mod signal;
#[cfg(test)]
#[path = "../suite.rs"]
mod suite;
mod system;
#[cfg(test)]
mod tests;
mod tree;
mod watches;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use tokio::signal::unix::SignalKind;

pub use self::keeper::Keeper;
pub use self::members::Members;
pub use self::memory::release_memory;
pub use self::place::{PlaceWatch, supervisor_of};
pub use self::proc::{condition, is_dead, lives, own_identity, runs_replaced_file};
pub use self::remains::{
    end_remains, end_service, end_tree, orphan_marker, orphan_marker_of, survivors,
};
pub use self::system::{
    boot, enter_system_mounts, exchange, give_memory_back, home_of_pids, uptime, yield_to_others,
};
pub use self::tree::Tree;

use self::ancestry::Descendants;
use self::cgroup::{Cgroup, Nest};
use self::clone::Stack;
use self::mark::{Mark, Secret};
use self::pidfd::Stranger;
use self::tree::Holder;
use self::watches::Watches;
use crate::deaths;
use crate::posix::{self, Child, Image, User};
use crate::process::{
    Birth, CONTAINMENT, Command, Containment, Exit, Identity, SpawnError, TreeId,
};

/// The parent of all trees; one per supervisor. See the [module](super) for the rules.
///
/// Drop kills nothing: running processes continue, and become children of init.
pub struct Processes {
    label: String,
    nest: Option<Rc<Nest>>,
    mains: Rc<Mains>,
    child_ended: tokio::signal::unix::Signal,
    null: File,
    stack: Stack,
    /// Set while `clone3` is assumed to exist and to be allowed.
    has_clone3: bool,
    /// The secret behind this supervisor's marks.
    secret: Secret,
    started: u64,
    /// Set if this process had children before it started any, whose orphans are reparented to it
    /// as well.
    has_others: bool,
    /// Children that the last [`Processes::reap`] reaped and that were not main processes.
    others: Vec<u32>,
    #[cfg(test)]
    orphans: u64,
    /// The adopted trees; set once one was adopted.
    adopted: OnceCell<Rc<Adopted>>,
    /// Watches on killed main processes; created with the first.
    killed: Rc<OnceCell<Watches>>,
}

/// The trees, main processes and nests adopted from dead supervisors.
struct Adopted {
    /// Watches on main processes, by the key that [`key`] makes of their tree's ID, and on
    /// everything else watched for them.
    watches: Rc<Watches>,
    mains: RefCell<BTreeMap<u64, Rc<Main>>>,
    nests: RefCell<Vec<Rc<Nest>>>,
}

/// Returns the key of a tree's main process in the [`Watches`].
fn key(id: TreeId) -> u64 {
    id.0 + 1
}

/// The known main processes.
#[derive(Default)]
struct Mains {
    /// The children that have not been reaped, by pid.
    children: RefCell<BTreeMap<u32, Rc<Main>>>,
    /// The main processes that dead supervisors recorded.
    recorded: RefCell<Vec<(u32, Birth)>>,
}

impl Mains {
    /// Returns whether `pid` belongs to one of them now.
    fn has(&self, pid: u32) -> bool {
        self.children.borrow().contains_key(&pid) || proc::has_main(&self.recorded.borrow(), pid)
    }

    /// Returns whether a process provably belongs to another tree than that of `main`, whatever
    /// mark it bears.
    fn are_others(&self, process: proc::Stat, (main, is_running): (u32, bool)) -> bool {
        proc::is_below(process, |pid| (!is_running || pid != main) && self.has(pid))
    }
}

struct Main {
    id: TreeId,
    pid: u32,
    birth: Birth,
    /// Set only for an adopted process, which is not a child of this one.
    stranger: Option<Stranger>,
    /// A descriptor that reports the exit once the process was killed, even if a tracer keeps it
    /// from being reaped: in that case SIGCHLD reaches the tracer alone.
    killed: OnceCell<OwnedFd>,
    /// Set when the process is reaped, or found dead while a tracer holds it. From then on, `pid`
    /// may belong to an unrelated process.
    exit: Cell<Option<Exit>>,
}

impl Main {
    /// Returns how a killed process ended, if it is dead and a tracer (ptrace(2)) keeps it from
    /// being reaped.
    fn exit_of_traced(&self) -> Option<Exit> {
        let handle = self.killed.get()?;
        let mut waited = [PollFd::new(handle, PollFlags::IN)];
        let is_over = poll(&mut waited, Some(&Timespec::default())).is_ok_and(|count| count > 0);
        is_over.then(|| {
            proc::zombie(self.pid).map_or(Exit::UNKNOWN, |(_, status)| posix::exit(status))
        })
    }
}

impl Processes {
    /// Becomes the subreaper of this process's descendants and creates a nest `LABEL-PID-INSTANCE`
    /// in its cgroup, if possible. Requires a tokio runtime with I/O. Marks all inherited
    /// descriptors above 2 as close-on-exec.
    pub fn new(label: &str) -> io::Result<Self> {
        let has_others = !proc::children(std::process::id()).is_empty();
        posix::seal_inherited();
        posix::raise_limits();
        posix::ignore_signals();
        deaths::watch()?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let nest = match std::env::var_os(CONTAINMENT) {
            Some(wish) if wish == "subreaper" => None,
            _ => Nest::new(label, &posix::random_id()).ok().map(Rc::new),
        };
        Ok(Self {
            label: label.to_owned(),
            nest,
            mains: Rc::default(),
            child_ended: tokio::signal::unix::signal(SignalKind::child())?,
            null: File::open("/dev/null")?,
            stack: Stack::new()?,
            has_clone3: true,
            secret: Secret::new()?,
            started: 0,
            has_others,
            others: Vec::new(),
            #[cfg(test)]
            orphans: 0,
            adopted: OnceCell::new(),
            killed: Rc::default(),
        })
    }

    /// Returns the mechanism that holds the trees together.
    pub fn containment(&self) -> Containment {
        match self.nest {
            Some(_) => Containment::Cgroup,
            None => Containment::Subreaper,
        }
    }

    /// Starts a program in a session of its own, with every signal at its default and none blocked,
    /// no descriptors except the standard ones, and the supervisor's umask and limits. Blocks until
    /// the program has been loaded, so that a failure to load is returned.
    pub fn spawn(&mut self, command: &Command<'_>) -> Result<Tree, SpawnError> {
        let id = TreeId(self.started);
        let uid = command
            .user
            .map_or_else(|| rustix::process::getuid().as_raw(), User::uid);
        let mark = self.secret.mark(id.0, uid);
        let value = self.nest.is_none().then(|| mark.value());
        let image = Image::new(command, value)
            .map_err(|error| SpawnError::parent("prepare the arguments", error))?;
        let mut child = Child::new(command, &image, self.null.as_raw_fd())
            .map_err(|error| SpawnError::parent("prepare its start", error))?;
        let holder =
            match &self.nest {
                Some(nest) => {
                    let cgroup = Cgroup::new(nest, command.name, id.0);
                    Holder::Cgroup(cgroup.map_err(|error| {
                        SpawnError::parent("create the service's cgroup", error)
                    })?)
                }
                None => Holder::Descendants(RefCell::new(Descendants::new(mark))),
            };
        let first = system::ticks();
        let pid = self
            .clone(&mut child, &holder)
            .map_err(|error| SpawnError::parent("create a process", error))?;
        if let Some(failure) = child.failure() {
            while posix::wait_for(pid)
                .is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
            {}
            return Err(SpawnError::child(command, failure));
        }
        self.started += 1;
        let main = Rc::new(Main {
            id,
            pid,
            // Reading it from /proc would cost ten times as much.
            birth: Birth {
                first,
                last: system::ticks(),
            },
            stranger: None,
            killed: OnceCell::new(),
            exit: Cell::new(None),
        });
        self.mains.children.borrow_mut().insert(pid, main.clone());
        Ok(Tree {
            main,
            holder,
            mains: self.mains.clone(),
            killed: self.killed.clone(),
        })
    }

    /// Notes the main processes that a dead supervisor recorded, whether they are adopted or not.
    /// They, their sessions and their descendants belong to no other tree, even if they bear its
    /// mark.
    pub fn note_recorded(&mut self, mains: impl IntoIterator<Item = Identity>) {
        let mains = mains.into_iter().map(|main| (main.pid, main.birth));
        self.mains.recorded.borrow_mut().extend(mains);
    }

    /// Adopts a live tree of a dead supervisor. [`Processes::reap`] reports its end like that of
    /// other trees, with the exit code if the system provides it.
    ///
    /// # Errors
    /// `NotFound` if the pid no longer belongs to the recorded main process; nothing has changed
    /// then.
    pub fn adopt(&mut self, left: &Identity) -> io::Result<Tree> {
        let stranger = Stranger::find(left.pid, left.birth)?;
        self.take_over(left, Some(stranger), None)
    }

    /// Adopts the remaining processes of a tree whose main process has ended.
    pub fn adopt_remains(&mut self, left: &Identity) -> io::Result<Tree> {
        let exit = pidfd::zombie_exit(left.pid, left.birth);
        self.take_over(left, None, Some(exit))
    }

    fn take_over(
        &mut self,
        left: &Identity,
        stranger: Option<Stranger>,
        exit: Option<Exit>,
    ) -> io::Result<Tree> {
        let adopted = match self.adopted.get() {
            Some(adopted) => adopted.clone(),
            None => {
                let adopted = Rc::new(Adopted {
                    watches: Rc::new(Watches::new()?),
                    mains: RefCell::default(),
                    nests: RefCell::default(),
                });
                self.adopted.get_or_init(|| adopted).clone()
            }
        };
        let holder = match left.tree.split_once(' ') {
            Some(("cgroup", dir)) => {
                let dir = Path::new(dir);
                let (Some(nest_dir), Some(name)) = (dir.parent(), dir.file_name()) else {
                    return Err(io::ErrorKind::InvalidData.into());
                };
                let nest = adopted.nest(nest_dir)?;
                let name = name.to_str().ok_or(io::ErrorKind::InvalidData)?;
                let main = stranger.as_ref().map(|_| left.pid);
                Holder::Cgroup(Cgroup::adopted(&nest, name, main)?)
            }
            _ => {
                let main = stranger.as_ref().map(|_| left.pid);
                let mark = Mark::of_tree(&left.tree, main).ok_or(io::ErrorKind::InvalidData)?;
                let watches = adopted.watches.clone();
                Holder::Descendants(RefCell::new(Descendants::adopted(
                    mark,
                    left.birth.first,
                    watches,
                )))
            }
        };
        let id = TreeId(self.started);
        if let Some(stranger) = &stranger {
            let end = epoll::EventFlags::IN;
            adopted.watches.add(stranger, key(id), end)?;
        }
        self.started += 1;
        let main = Rc::new(Main {
            id,
            pid: left.pid,
            birth: left.birth,
            stranger,
            killed: OnceCell::new(),
            exit: Cell::new(exit),
        });
        if exit.is_none() {
            adopted.mains.borrow_mut().insert(key(id), main.clone());
        }
        Ok(Tree {
            main,
            holder,
            mains: self.mains.clone(),
            killed: self.killed.clone(),
        })
    }

    fn clone(&mut self, child: &mut Child<'_>, holder: &Holder) -> io::Result<u32> {
        let Holder::Cgroup(cgroup) = holder else {
            return clone::clone(&mut self.stack, child);
        };
        if self.has_clone3 {
            match clone::clone_into(&mut self.stack, child, cgroup.open()?.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => self.has_clone3 = false,
                result => return result,
            }
        }
        let procs = cgroup.open_procs()?;
        child.cgroup_procs = procs.as_raw_fd();
        clone::clone(&mut self.stack, child)
    }

    /// Resolves when a child or a tree may have changed since the last call. Cancel-safe. There is
    /// at most one spurious wake-up per child, when `reap` was faster than the signal.
    pub async fn changed(&mut self) {
        let nest = async {
            match &self.nest {
                Some(nest) => nest.changed().await,
                None => std::future::pending().await,
            }
        };
        let adopted = async {
            match self.adopted.get() {
                Some(adopted) => adopted.watches.changed().await,
                None => std::future::pending().await,
            }
        };
        let killed = async {
            match self.killed.get() {
                Some(killed) => killed.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.child_ended.recv() => {}
            () = nest => {}
            () = adopted => {}
            () = killed => {}
        }
    }

    /// Reaps every child that has ended, and returns those that were main processes, with the time
    /// of their exits. See [`Processes::others`] for the rest.
    pub fn reap(&mut self) -> Vec<(TreeId, Exit, Instant)> {
        let mut ended = Vec::new();
        self.others.clear();
        while let Some((pid, status)) = posix::wait(-1) {
            let at = deaths::time_of(pid);
            let Some(main) = self.mains.children.borrow_mut().remove(&pid) else {
                self.others.push(pid);
                continue;
            };
            let exit = posix::exit(status);
            main.exit.set(Some(exit));
            ended.push((main.id, exit, at));
        }
        self.mains.children.borrow_mut().retain(|pid, main| {
            if main.killed.get().is_none() {
                return true;
            }
            // The process may have died since the last round.
            let collected = posix::wait(pid.cast_signed()).map(|(_, status)| posix::exit(status));
            let Some(exit) = collected.or_else(|| main.exit_of_traced()) else {
                return true;
            };
            main.exit.set(Some(exit));
            ended.push((main.id, exit, deaths::time_of(*pid)));
            false
        });
        #[cfg(test)]
        {
            self.orphans += self.others.len() as u64;
        }
        if let Some(nest) = &self.nest {
            nest.sweep();
        }
        if let Some(adopted) = self.adopted.get() {
            adopted.reap(&mut ended);
        }
        ended
    }

    /// Kills processes started by services and their helpers that belong to no tree: orphans that
    /// left their session and bear no genuine mark. Returns the number of them. `keeper` is spared.
    /// Call it at the very end, when every tree is down. Blocks for a moment at most.
    pub fn end_orphans(&mut self, keeper: Option<u32>) -> usize {
        // With cgroups there are none, and orphans of other children must not be killed.
        if self.nest.is_some() || self.has_others {
            return 0;
        }
        let deadline = Instant::now() + ORPHANS_TIMEOUT;
        let mut killed = BTreeSet::new();
        loop {
            self.reap();
            let own = std::process::id();
            let mut found = proc::family(own);
            found.retain(|it| it.pid != own && Some(it.pid) != keeper && it.is_alive());
            if found.is_empty() || Instant::now() > deadline {
                return killed.len();
            }
            for process in found {
                killed.insert(process.identity());
                let _refused = signal::send(&process, libc::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Returns the other children that the last [`Processes::reap`] reaped.
    pub fn others(&self) -> &[u32] {
        &self.others
    }

    /// Returns the number of processes reaped so far that were not main processes.
    #[cfg(test)]
    pub fn orphans(&self) -> u64 {
        self.orphans
    }
}

impl Adopted {
    /// Returns the nest of an adopted tree.
    fn nest(&self, dir: &Path) -> io::Result<Rc<Nest>> {
        let mut nests = self.nests.borrow_mut();
        if let Some(nest) = nests.iter().find(|nest| nest.dir() == dir) {
            return Ok(nest.clone());
        }
        let nest = Rc::new(Nest::adopted(dir, self.watches.clone())?);
        nests.push(nest.clone());
        Ok(nest)
    }

    fn reap(&self, ended: &mut Vec<(TreeId, Exit, Instant)>) {
        for key in self.watches.take() {
            let Some(main) = self.mains.borrow_mut().remove(&key) else {
                continue;
            };
            if let Some(stranger) = &main.stranger {
                // The descriptor would become readable again when the parent reaps the process.
                self.watches.remove(stranger);
                let exit = stranger.exit();
                main.exit.set(Some(exit));
                ended.push((main.id, exit, Instant::now()));
            }
        }
        // A nest is dropped with its last tree.
        self.nests.borrow_mut().retain(|nest| {
            nest.sweep();
            Rc::strong_count(nest) > 1 || !nest.is_tidy()
        });
    }
}

/// Runs work that can wait until the services have been started: removes directories that dead
/// supervisors left in the cgroup tree. Nothing depends on it.
pub fn settle_in(processes: &Processes) {
    if let Some(nest) = &processes.nest {
        nest.remove_stale(&processes.label);
    }
}

/// Releases the resources kept for the next start of a service that will not start again. Its trees
/// have been dropped.
pub fn forget_service(processes: &Processes, name: &str) {
    if let Some(nest) = &processes.nest {
        nest.forget(name);
    }
}

/// The time limit for [`Processes::end_orphans`].
const ORPHANS_TIMEOUT: Duration = Duration::from_secs(2);
