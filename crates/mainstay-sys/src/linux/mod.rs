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
#[cfg(test)]
#[path = "../suite.rs"]
mod suite;
#[cfg(test)]
mod tests;
mod watches;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mainstay_core::spec::{Signal, StopAsk, StopScope};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::SignalKind;

pub use self::keeper::Keeper;
pub use self::members::Members;
pub use self::place::{PlaceWatch, supervisor_of};

use self::ancestry::Descendants;
use self::cgroup::{Cgroup, Nest};
use self::clone::Stack;
use self::mark::{Mark, Marks, Secret};
use self::members::Bond;
use self::pidfd::Stranger;
use self::watches::Watches;
use crate::deaths;
use crate::posix::{self, Child, Image, User};
use crate::process::{
    Birth, CONTAINMENT, Command, Containment, Exit, Identity, SUPERVISED_FROM, SpawnError,
    Survivor, TreeId, Usage,
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
        self.children.borrow().contains_key(&pid) || has_main(&self.recorded.borrow(), pid)
    }

    /// Returns whether a process provably belongs to another tree than that of `main`, whatever
    /// mark it bears.
    fn are_others(&self, process: ancestry::Stat, (main, is_running): (u32, bool)) -> bool {
        ancestry::is_below(process, |pid| (!is_running || pid != main) && self.has(pid))
    }
}

/// Returns whether `pid` belongs to one of these main processes now.
fn has_main(mains: &[(u32, Birth)], pid: u32) -> bool {
    mains.iter().any(|(main, birth)| {
        *main == pid && ancestry::Stat::of(pid).is_some_and(|now| birth.holds(now.identity().1))
    })
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
            ancestry::zombie(self.pid).map_or(Exit::UNKNOWN, |(_, status)| posix::exit(status))
        })
    }
}

impl Processes {
    /// Becomes the subreaper of this process's descendants and creates a nest `LABEL-PID-INSTANCE`
    /// in its cgroup, if possible. Requires a tokio runtime with I/O. Marks all inherited
    /// descriptors above 2 as close-on-exec.
    pub fn new(label: &str) -> io::Result<Self> {
        let has_others = !ancestry::children(std::process::id()).is_empty();
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
        let first = ticks();
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
                last: ticks(),
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
            let mut found = ancestry::family(own);
            found.retain(|it| it.pid != own && Some(it.pid) != keeper && it.is_alive());
            if found.is_empty() || Instant::now() > deadline {
                return killed.len();
            }
            for process in found {
                killed.insert(process.identity());
                let _refused = ancestry::signal(&process, libc::SIGKILL);
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

/// Returns the time since boot in clock ticks, as /proc/PID/stat counts them.
fn ticks() -> u64 {
    let per_second = u128::from(rustix::param::clock_ticks_per_second());
    let ticks = since_boot(ClockId::Boottime).as_nanos() * per_second / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// Returns the time that the system has run, excluding suspensions, as every duration is counted
/// here.
pub fn uptime() -> Duration {
    since_boot(ClockId::Monotonic)
}

/// Returns the total time that the system has been suspended since boot.
fn suspended() -> Duration {
    since_boot(ClockId::Boottime).saturating_sub(uptime())
}

fn since_boot(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    now.try_into().unwrap_or_default()
}

/// Moves this thread into the mount namespace of the system's first process, if permitted. The
/// mounts of a unit with a dynamic account hide the state of all other units. Must be called before
/// other threads exist.
pub fn enter_system_mounts() -> io::Result<()> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let mounts = std::fs::File::open("/proc/1/ns/mnt")?;
    Ok(move_into_link_name_space(
        mounts.as_fd(),
        Some(LinkNameSpaceType::Mount),
    )?)
}

/// Returns the ID of the current boot. Records from another boot are void. `None` if the system
/// does not provide an ID.
pub fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim_end().to_owned())
}

/// Returns whether the main process is alive and is still the recorded one.
pub fn lives(left: &Identity) -> bool {
    let stat = ancestry::Stat::of(left.pid);
    stat.is_some_and(|now| now.is_alive() && left.birth.holds(now.identity().1))
}

/// Returns whether no such process exists, except as a zombie.
pub fn is_dead(pid: u32) -> bool {
    ancestry::Stat::of(pid).is_none_or(|stat| !stat.is_alive())
}

/// Returns the identity of this process, which has no tree.
pub fn own_identity() -> io::Result<Identity> {
    let pid = std::process::id();
    let stat = ancestry::Stat::of(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(Identity {
        pid,
        birth: Birth::at(stat.identity().1),
        tree: String::new(),
    })
}

/// Runs work that can wait until the services have been started: releases memory, and removes
/// directories that dead supervisors left in the cgroup tree. Nothing depends on it.
pub fn settle_in(processes: &Processes) {
    if let Some(nest) = &processes.nest {
        nest.remove_stale(&processes.label);
    }
    // Last, because this is start-up work too. A failure has no cost.
    let _ = memory::forget_start_up();
}

/// Releases the resources kept for the next start of a service that will not start again. Its trees
/// have been dropped.
pub fn forget_service(processes: &Processes, name: &str) {
    if let Some(nest) = &processes.nest {
        nest.forget(name);
    }
}

/// Lets this thread run, and use the disk, only when the system is otherwise idle. This is best
/// effort: a refused setting stays as it is.
pub fn yield_to_others() {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_IDLE: libc::c_int = 3 << 13;
    let this_thread = 0;
    // SAFETY: the struct consists of numbers only, whatever the C library adds to the priority.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: `parameters` outlives the call, which only reads it; 0 is this thread.
    let _refused = unsafe { libc::sched_setscheduler(this_thread, libc::SCHED_IDLE, &parameters) };
    let _refused = rustix::process::setpriority_process(None, 19);
    // SAFETY: takes numbers only: ioprio_set(2), for which libc has no function.
    let _refused = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            this_thread,
            IOPRIO_CLASS_IDLE,
        )
    };
}

/// Makes the allocator return large blocks to the system as soon as they are freed, from now on.
/// Otherwise glibc keeps some megabytes after such blocks have been allocated and freed, and
/// `malloc_trim` does not reach those of other threads.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers only, and a threshold may change at any time.
    let _accepted = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10) };
}

/// Returns the orphan marker by which a later supervisor finds processes that this one may leave
/// behind; for [`end_remains`].
pub fn orphan_marker(processes: &Processes) -> String {
    match &processes.nest {
        Some(nest) => format!("cgroup {}", nest.dir().display()),
        None => processes.secret.orphan_marker(),
    }
}

/// Returns the orphan marker by which a later supervisor finds processes that were started with
/// this value of [`SUPERVISED_FROM`]; for [`end_remains`].
pub fn orphan_marker_of(mark: &str) -> String {
    format!("state {mark}")
}

/// Returns the boot and the pid namespace in which a pid identifies a process. `None` if the system
/// does not provide them.
pub fn home_of_pids() -> Option<String> {
    let pids = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{}/{}", boot()?, pids.display()))
}

/// The time limit for ending the processes of a dead supervisor.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit for [`Processes::end_orphans`].
const ORPHANS_TIMEOUT: Duration = Duration::from_secs(2);

/// Kills the processes that a supervisor left when it died without stopping them, identified by its
/// [`orphan_marker`], except those of the trees that are `spared`. What is or descends from a main
/// process of these, or shares its session, is spared whatever mark it bears. Returns the number of
/// them. Blocks until they are gone, 10 s at most.
///
/// An orphan marker names a cgroup or an instance that no other supervisor ever had, so no other
/// process can be killed.
pub fn end_remains(orphan_marker: &str, spared: &[Identity]) -> io::Result<usize> {
    let spared = spared.iter();
    match orphan_marker.split_once(' ') {
        Some(("cgroup", dir)) => {
            let spared = spared.filter_map(|tree| tree.tree.strip_prefix(orphan_marker));
            let spared = spared.filter_map(|name| name.strip_prefix('/')).collect();
            cgroup::end_remains(dir.as_ref(), &spared, END_TIMEOUT)
        }
        Some(("state", dir)) => {
            let mark = format!("{SUPERVISED_FROM}={dir}").into_bytes();
            let ended = ancestry::end_remains(|_, them| has(them, &mark), END_TIMEOUT);
            place::end_keepers(dir).and(ended)
        }
        _ => {
            let Some(marks) = Marks::of_orphan_marker(orphan_marker) else {
                return Ok(0);
            };
            let mains = mains_of(spared.clone());
            let spared = spared.filter_map(|tree| Mark::of_tree(&tree.tree, None));
            let spared: BTreeSet<String> = spared.map(|mark| mark.value().to_owned()).collect();
            let is_meant = |pid: u32, environment: &[u8]| {
                let borne = marks.borne_by(pid, environment);
                borne.is_some_and(|value| !spared.contains(value)) && !is_below_any(&mains, pid)
            };
            ancestry::end_remains(is_meant, END_TIMEOUT)
        }
    }
}

fn mains_of<'a>(trees: impl Iterator<Item = &'a Identity>) -> Vec<(u32, Birth)> {
    trees.map(|tree| (tree.pid, tree.birth)).collect()
}

/// Returns whether a process provably belongs to the tree of one of these main processes.
fn is_below_any(mains: &[(u32, Birth)], pid: u32) -> bool {
    let process = ancestry::Stat::of(pid);
    process.is_some_and(|process| ancestry::is_below(process, |pid| has_main(mains, pid)))
}

/// Kills the processes of one tree ([`Identity::tree`]), as [`end_remains`] does.
pub fn end_tree(tree: &str, spared: &[Identity]) -> io::Result<usize> {
    match tree.split_once(' ') {
        Some(("cgroup", dir)) => cgroup::end(dir.as_ref(), Instant::now() + END_TIMEOUT),
        _ => {
            let Some(mark) = Mark::of_tree(tree, None) else {
                return Ok(0);
            };
            let (mark, mains) = (Marks::One(mark), mains_of(spared.iter()));
            let is_meant = |pid: u32, environment: &[u8]| {
                mark.borne_by(pid, environment).is_some() && !is_below_any(&mains, pid)
            };
            ancestry::end_remains(is_meant, END_TIMEOUT)
        }
    }
}

/// Kills the processes of one service under a supervisor's [`orphan_marker`], as [`end_remains`]
/// does.
pub fn end_service(orphan_marker: &str, service: &str) -> io::Result<usize> {
    if let Some(("cgroup", dir)) = orphan_marker.split_once(' ') {
        return cgroup::end_service(dir.as_ref(), service, END_TIMEOUT);
    }
    let is_bearer = bearers(orphan_marker);
    let is_meant = |pid: u32, environment: &[u8]| {
        ancestry::service_in(environment) == Some(service) && is_bearer(pid, environment)
    };
    ancestry::end_remains(is_meant, END_TIMEOUT)
}

/// Returns a test for whether a process with this pid and environment was started under a
/// supervisor with this orphan marker, which names no cgroup.
fn bearers(orphan_marker: &str) -> impl Fn(u32, &[u8]) -> bool {
    let state = match orphan_marker.split_once(' ') {
        Some(("state", dir)) => Some(format!("{SUPERVISED_FROM}={dir}").into_bytes()),
        _ => None,
    };
    let marks = Marks::of_orphan_marker(orphan_marker);
    move |pid, environment| match (&state, &marks) {
        (Some(state), _) => has(environment, state),
        (None, Some(marks)) => marks.borne_by(pid, environment).is_some(),
        (None, None) => false,
    }
}

/// Returns whether an environment has this variable.
fn has(environment: &[u8], variable: &[u8]) -> bool {
    let mut variables = environment.split(|byte| *byte == 0);
    variables.any(|it| it == variable)
}

/// Returns the live processes of a dead supervisor's services, by its [`orphan_marker`]. In a
/// cgroup, a tree's main process is the oldest one if it leads its session. Without a cgroup, the
/// main process cannot be determined from data that the processes control.
pub fn survivors(orphan_marker: &str) -> Vec<Survivor> {
    if let Some(("cgroup", dir)) = orphan_marker.split_once(' ') {
        return cgroup::survivors(dir.as_ref());
    }
    let is_meant = bearers(orphan_marker);
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for pid in ancestry::every_pid() {
        if let Some(service) = ancestry::service_of(pid, &is_meant) {
            found.entry(service).or_default().push(pid);
        }
    }
    let found = found.into_iter().map(|(service, pids)| Survivor {
        service,
        pids,
        main: None,
    });
    found.collect()
}

/// Exchanges the names of two files.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// One started program with all of its descendants.
///
/// Drop kills nothing. It removes the tree's cgroup, now or as soon as it is empty, so kill the
/// tree and wait until it is empty first.
pub struct Tree {
    main: Rc<Main>,
    holder: Holder,
    mains: Rc<Mains>,
    killed: Rc<OnceCell<Watches>>,
}

enum Holder {
    Cgroup(Cgroup),
    Descendants(RefCell<Descendants>),
}

impl Tree {
    /// Returns the ID that [`Processes::reap`] reports.
    pub fn id(&self) -> TreeId {
        self.main.id
    }

    /// Returns the main process's pid. It may belong to an unrelated process once [`Tree::exit`] is
    /// set, so use it for display only, never for a signal.
    pub fn pid(&self) -> u32 {
        self.main.pid
    }

    /// Returns the identity by which a later supervisor finds the tree; for [`Processes::adopt`].
    pub fn identity(&self) -> Identity {
        Identity {
            pid: self.main.pid,
            birth: self.main.birth,
            tree: match &self.holder {
                Holder::Cgroup(cgroup) => format!("cgroup {}", cgroup.dir().display()),
                Holder::Descendants(descendants) => descendants.borrow().mark().tree().to_owned(),
            },
        }
    }

    /// Returns the criteria for membership in the tree.
    pub fn members(&self) -> Members {
        Members::new(
            self.main.pid,
            match &self.holder {
                Holder::Cgroup(cgroup) => Bond::Cgroup(cgroup.path()),
                Holder::Descendants(descendants) => {
                    Bond::Descendants(descendants.borrow().mark().clone())
                }
            },
        )
    }

    /// Returns how the main process ended, if it was reaped.
    pub fn exit(&self) -> Option<Exit> {
        self.main.exit.get()
    }

    /// Sends `signal` to the main process or to all. If none is left, that is not an error.
    ///
    /// # Errors
    /// `PermissionDenied` if one of them runs as another user and the supervisor is not root. The
    /// others have received the signal.
    pub fn signal(&self, signal: Signal, scope: StopScope) -> io::Result<()> {
        let signal = posix::number(signal);
        match scope {
            StopScope::Main => self.signal_main(signal),
            StopScope::Tree => self.signal_all(signal),
        }
    }

    /// Asks the tree to stop, and returns whether there was a process to ask.
    pub fn ask_to_stop(&self, ask: StopAsk, scope: StopScope) -> io::Result<bool> {
        let StopAsk::Signal(signal) = ask else {
            return Ok(false); // there are no windows to close
        };
        let anybody = self.exit().is_none() || scope == StopScope::Tree && !self.is_empty();
        if anybody {
            self.signal(signal, scope)?;
        }
        Ok(anybody)
    }

    /// Sends SIGKILL to every process of the tree, including frozen ones. They end a moment later;
    /// see [`Tree::is_empty`].
    pub fn kill(&self) -> io::Result<()> {
        self.watch_end();
        match &self.holder {
            Holder::Cgroup(cgroup) => cgroup.kill(),
            Holder::Descendants(_) => {
                // A process with a pending signal cannot fork. Once a scan finds no new process,
                // all are stopped or about to be, none can escape by losing its parent, and one
                // round kills them all.
                let stopped = self.stop_all();
                let killed = ancestry::each(self.family(), |process| {
                    self.signal_member(&process, libc::SIGKILL)
                });
                stopped.and(killed)
            }
        }
    }

    /// Makes [`Processes::changed`] resolve at the main process's exit even if a tracer is notified
    /// instead. Without a descriptor for that, the exit is reported when the tracer detaches.
    fn watch_end(&self) {
        let main = &self.main;
        if main.exit.get().is_some() || main.stranger.is_some() || main.killed.get().is_some() {
            return;
        }
        // Not reaped, so the pid still belongs to the main process.
        let Some(handle) = pidfd::watch(main.pid, || true) else {
            return;
        };
        if self.killed.get().is_none()
            && let Ok(new) = Watches::new()
        {
            let _unset = self.killed.set(new);
        }
        let Some(watches) = self.killed.get() else {
            return;
        };
        if watches
            .add(&handle, Watches::NO_KEY, epoll::EventFlags::IN)
            .is_ok()
        {
            let _unset = main.killed.set(handle);
        }
    }

    /// Returns whether no process of the tree is left. Zombies do not count, except the main
    /// process until it has been reaped. If the tree is not empty although the main process has
    /// ended, [`Processes::changed`] resolves when the caller should check again.
    pub fn is_empty(&self) -> bool {
        self.exit().is_some()
            && match &self.holder {
                // A directory that no longer exists contains no process.
                Holder::Cgroup(cgroup) => cgroup
                    .is_empty()
                    .unwrap_or_else(|error| error.kind() == io::ErrorKind::NotFound),
                Holder::Descendants(descendants) => {
                    let members = self.family();
                    descendants.borrow_mut().watch(&members);
                    members.is_empty()
                }
            }
    }

    /// Stops every process with a short delay. With a cgroup the processes cannot notice it.
    /// Without one, parents may be notified (SIGCHLD). While stopped, the processes react only to
    /// [`Tree::thaw`] and [`Tree::kill`], so thaw them before a graceful stop.
    pub fn freeze(&self) -> io::Result<()> {
        match &self.holder {
            Holder::Cgroup(cgroup) => match cgroup.freeze(true) {
                // Linux before 5.2 has no freezer.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    cgroup.signal(libc::SIGSTOP)
                }
                result => result,
            },
            Holder::Descendants(_) => self.stop_all(),
        }
    }

    /// Undoes [`Tree::freeze`].
    pub fn thaw(&self) -> io::Result<()> {
        match &self.holder {
            Holder::Cgroup(cgroup) => match cgroup.freeze(false) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    cgroup.signal(libc::SIGCONT)
                }
                result => result,
            },
            Holder::Descendants(_) => self.signal_all(libc::SIGCONT),
        }
    }

    /// Returns whether the main process has a handler for `signal`, so that the signal would not
    /// simply end it; `None` if the process has ended.
    pub fn handles(&self, signal: Signal) -> Option<bool> {
        self.exit()
            .is_none()
            .then(|| ancestry::handles(self.main.pid, posix::number(signal)))
            .flatten()
    }

    /// Returns the resource usage of the tree; `None` if it cannot be read. Reads two files in
    /// /proc per process, so it is suitable for a metrics scrape, not for a loop.
    pub fn usage(&self) -> Option<Usage> {
        let (pids, cpu): (Vec<u32>, Duration) = match &self.holder {
            Holder::Cgroup(cgroup) => (cgroup.processes().ok()?, cgroup.cpu().ok()?),
            Holder::Descendants(_) => {
                // Finding the orphans of an adopted tree requires a scan of every process of the
                // system.
                let members = match self.main.stranger {
                    Some(_) if self.exit().is_none() => ancestry::family(self.main.pid),
                    _ => self.family(),
                };
                let ticks: u64 = members.iter().map(ancestry::Stat::cpu).sum();
                let nanos = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
                (
                    members.iter().map(|process| process.pid).collect(),
                    Duration::from_nanos(ticks * nanos),
                )
            }
        };
        Some(Usage {
            cpu,
            resident: pids.iter().filter_map(|pid| ancestry::resident(*pid)).sum(),
            processes: u32::try_from(pids.len()).unwrap_or(u32::MAX),
        })
    }

    fn signal_main(&self, signal: i32) -> io::Result<()> {
        match self.exit() {
            Some(_) => Ok(()),
            None => match &self.main.stranger {
                Some(stranger) => stranger.signal(signal),
                // Not reaped, so the pid still belongs to the main process; see the module's rules.
                None => posix::kill(self.main.pid.cast_signed(), signal),
            },
        }
    }

    fn signal_all(&self, signal: i32) -> io::Result<()> {
        match &self.holder {
            Holder::Cgroup(cgroup) => cgroup.signal(signal),
            Holder::Descendants(_) => ancestry::each(self.family(), |process| {
                self.signal_member(&process, signal)
            }),
        }
    }

    fn signal_member(&self, process: &ancestry::Stat, signal: i32) -> io::Result<()> {
        if process.pid == self.main.pid {
            return self.signal_main(signal);
        }
        ancestry::signal(process, signal)
    }

    /// Sends SIGSTOP to all processes, repeatedly, until two scans in a row find no new one. A
    /// single scan may miss a process that is being reparented.
    fn stop_all(&self) -> io::Result<()> {
        let mut known = BTreeSet::new();
        let mut result = Ok(());
        let mut quiet = 0;
        while quiet < 2 {
            let mut members = self.family();
            members.retain(|process| known.insert(process.identity()));
            quiet = if members.is_empty() { quiet + 1 } else { 0 };
            let stopped = ancestry::each(members, |process| {
                self.signal_member(&process, libc::SIGSTOP)
            });
            result = result.and(stopped);
        }
        result
    }

    fn family(&self) -> Vec<ancestry::Stat> {
        let Holder::Descendants(descendants) = &self.holder else {
            return Vec::new();
        };
        let main = (self.main.pid, self.exit().is_none());
        let is_main = |pid: u32| self.mains.children.borrow().contains_key(&pid);
        let is_others = |process: &ancestry::Stat| self.mains.are_others(*process, main);
        descendants.borrow_mut().members(main, is_main, is_others)
    }
}
