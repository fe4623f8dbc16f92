//! Code common to all Unix systems: users, signal numbers, and the last steps of a child before
//! `execve`.

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use mainstay_core::spec::{Limits, Listen, Priority, Signal};
use rustix::io::Errno;

use crate::guarded;
use crate::privilege::current_uid;
use crate::process::{Command, Exit, INSTANCE, RefusedSetting, SpawnError};

/// A standard stream of a child.
pub type Stream<'a> = BorrowedFd<'a>;

/// Returns the number of `signal` on this system.
pub(super) fn number(signal: Signal) -> c_int {
    match signal {
        Signal::Hup => libc::SIGHUP,
        Signal::Int => libc::SIGINT,
        Signal::Quit => libc::SIGQUIT,
        Signal::Usr1 => libc::SIGUSR1,
        Signal::Usr2 => libc::SIGUSR2,
        Signal::Term => libc::SIGTERM,
        Signal::Winch => libc::SIGWINCH,
    }
}

/// Converts a status from `waitpid(2)`.
pub(super) fn exit(status: c_int) -> Exit {
    let by_signal = libc::WIFSIGNALED(status);
    Exit {
        code: (!by_signal).then(|| libc::WEXITSTATUS(status)),
        signal: by_signal.then(|| libc::WTERMSIG(status)),
        core_dumped: by_signal && libc::WCOREDUMP(status),
    }
}

/// Reaps one ended child without blocking: the given one, or any child for -1. Returns `None` if
/// there is none.
pub(super) fn wait(pid: c_int) -> Option<(u32, c_int)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call, which writes nothing else.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            ..=0 => return None,
            pid => return Some((pid.unsigned_abs(), status)),
        }
    }
}

/// Waits for the child and discards its status.
pub(super) fn wait_for(pid: u32) -> io::Result<()> {
    // SAFETY: a null status is allowed.
    cvt(unsafe { libc::waitpid(pid.cast_signed(), ptr::null_mut(), 0) }).map(drop)
}

/// Calls `kill(2)`. The caller ensures that `pid` (or the group, if negative) is the intended one.
/// A process that no longer exists is not an error.
pub(super) fn kill(pid: c_int, signal: c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    match cvt(unsafe { libc::kill(pid, signal) }) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result.map(drop),
    }
}

/// Returns a random ID that distinguishes this supervisor's markers from another's. It is not a
/// secret.
pub(super) fn random_id() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// Converts a result of -1 into the error in `errno`.
pub(super) fn cvt(result: c_int) -> io::Result<c_int> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// A user of the system, with all of its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name as spelled in the user database.
    pub name: OsString,
    /// The home directory, which may not exist.
    pub home: PathBuf,
    shell: OsString,
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
}

/// Borrows an open descriptor as a child's stream.
pub fn stream(end: &impl AsFd) -> Stream<'_> {
    end.as_fd()
}

/// Returns why a file is accessible to, or owned by, anyone other than this process's user or root.
pub fn exposure(_path: &Path, file: &std::fs::File) -> io::Result<Option<String>> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = file.metadata()?;
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    if mode & 0o077 != 0 {
        return Ok(Some(format!(
            "it is accessible to others (mode {mode:04o}): chmod 600"
        )));
    }
    let is_trusted = owner == 0 || owner == rustix::process::geteuid().as_raw();
    Ok((!is_trusted).then(|| format!("it belongs to another user (uid {owner})")))
}

/// The null device, for writing.
pub fn null() -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).open("/dev/null")
}

/// Returns the seconds by which local time is ahead of UTC at an instant, given in seconds since
/// 1970; 0 if unknown.
pub fn utc_offset(utc: i64) -> i32 {
    let utc = utc as _;
    let mut local = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: reads `utc` and writes `local`, which both outlive the call. It also reads the
    // environment, which this program never changes.
    let converted = unsafe { libc::localtime_r(&utc, local.as_mut_ptr()) };
    if converted.is_null() {
        return 0;
    }
    // SAFETY: it was zeroed, which is a valid value, and then filled in.
    let local = unsafe { local.assume_init() };
    i32::try_from(local.tm_gmtoff).unwrap_or(0)
}

/// Writes all of `bytes` at an offset of a file. Bytes within one page are written entirely or not
/// at all, even if this process is killed.
pub fn write_at(file: &std::fs::File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

/// Opens a file for writing in place, if it belongs to this user alone and no other user can have
/// it open.
pub fn open_own(path: &std::path::Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
    let mut options = std::fs::File::options();
    options.read(true).write(true);
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = options
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    let is_ours = found.uid() == current_uid() && found.mode() & 0o077 == 0;
    if found.is_file() && found.nlink() == 1 && is_ours {
        Ok(file)
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Reads all of a file, independent of the position shared with other users of the descriptor.
pub fn read_from_start(file: &std::fs::File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0)?;
    Ok(bytes)
}

/// Unblocks every signal and resets `SIGCHLD` to its default, no matter what the parent blocked or
/// ignored. Must be called before a second thread exists.
pub fn receive_signals() {
    // SAFETY: an empty set is valid, it outlives the call, and no handler is installed yet.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}

impl User {
    /// Returns the user ID.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Returns whether the user has all privileges, regardless of its name.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Returns whether the user belongs to this group.
    pub(crate) fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&(gid as libc::gid_t))
    }

    /// Returns whether this process already runs as the user.
    pub fn is_current(&self) -> bool {
        self.uid == rustix::process::geteuid().as_raw()
    }

    /// Returns the variables that a login sets (environ(7)).
    pub fn environment(&self) -> [(OsString, OsString); 4] {
        let name = || self.name.clone();
        [
            ("HOME".into(), self.home.clone().into()),
            ("SHELL".into(), self.shell.clone()),
            ("USER".into(), name()),
            ("LOGNAME".into(), name()),
        ]
    }

    /// Makes the user the owner of a file or directory. Requires root.
    pub fn give(&self, path: &std::path::Path) -> io::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
    }

    /// Looks a user up in the system's user database; `None` if there is no such user. Blocks,
    /// because the database may be on a directory server.
    pub fn lookup(name: &str) -> io::Result<Option<Self>> {
        let c_name = CString::new(name)?;
        let found = find_user(
            // SAFETY: the name ends in NUL; the other pointers are valid for the call, and the
            // length is the buffer's.
            |entry, text, length, found| unsafe {
                libc::getpwnam_r(c_name.as_ptr(), entry, text, length, found)
            },
            |entry| {
                let own = |text: *mut c_char| {
                    // SAFETY: the fields of an entry that was found point at NUL-terminated
                    // strings.
                    let text = unsafe { CStr::from_ptr(text) };
                    OsString::from_vec(text.to_bytes().to_vec())
                };
                let texts = [entry.pw_name, entry.pw_dir, entry.pw_shell].map(own);
                (texts, entry.pw_uid, entry.pw_gid)
            },
        )?;
        let Some(([name, home, shell], uid, gid)) = found else {
            return Ok(None);
        };
        let shell = if shell.is_empty() {
            "/bin/sh".into()
        } else {
            // passwd(5)
            shell
        };
        let mut groups: Vec<libc::gid_t> = vec![0; 32];
        loop {
            let mut count = c_int::try_from(groups.len()).map_err(io::Error::other)?;
            // SAFETY: `groups` has room for `count` IDs; the casts are for systems that declare
            // them as int.
            let fits = unsafe {
                libc::getgrouplist(
                    c_name.as_ptr(),
                    gid as _,
                    groups.as_mut_ptr().cast(),
                    &mut count,
                )
            } >= 0;
            let count = usize::try_from(count).map_err(io::Error::other)?;
            if fits {
                groups.truncate(count);
                break;
            }
            let room = count.max(groups.len() * 2); // some systems do not return the count
            groups.resize(room, 0);
        }
        Ok(Some(Self {
            name,
            home: home.into(),
            shell,
            uid,
            gid,
            groups,
        }))
    }

    /// Returns the name of a user ID; `None` if it has none. Blocks like [`User::lookup`].
    pub fn name_of(uid: u32) -> io::Result<Option<OsString>> {
        find_user(
            // SAFETY: the pointers are valid for the call, and the length is the buffer's.
            |entry, text, length, found| unsafe {
                libc::getpwuid_r(uid, entry, text, length, found)
            },
            |entry| {
                // SAFETY: the field of an entry that was found points at a NUL-terminated string.
                let name = unsafe { CStr::from_ptr(entry.pw_name) };
                OsString::from_vec(name.to_bytes().to_vec())
            },
        )
    }

    /// Returns whether this process already runs as the user and could not switch to it again,
    /// because only root may call `setgroups`.
    fn is_ours(&self) -> bool {
        // SAFETY: the calls cannot fail and touch no memory.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        uid != 0 && (uid, gid) == (self.uid, self.gid)
    }
}

/// Queries the user database with a text buffer that grows to fit the answer. `read` gets the entry
/// while its strings are valid.
fn find_user<T>(
    ask: impl Fn(*mut libc::passwd, *mut c_char, usize, *mut *mut libc::passwd) -> c_int,
    read: impl FnOnce(&libc::passwd) -> T,
) -> io::Result<Option<T>> {
    let mut text = vec![0; 1024];
    // SAFETY: a passwd consists of integers and pointers, for all of which zero is valid.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = ptr::null_mut();
    loop {
        match ask(&mut entry, text.as_mut_ptr(), text.len(), &mut found) {
            libc::ERANGE => text.resize(text.len() * 2, 0),
            libc::EINTR => {}
            // POSIX allows "not found" to be an error as well, and some systems return one.
            0 | libc::ENOENT | libc::ESRCH if found.is_null() => return Ok(None),
            0 => return Ok(Some(read(&entry))),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// The strings needed to start a program, in one block, in the layout that `execve` expects.
pub(super) struct Image {
    /// The buffer that the pointers below point into. It is neither grown nor freed before them.
    _text: Vec<u8>,
    program: *const c_char,
    working_dir: *const c_char,
    /// Ends in a null pointer, as does `env`.
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    /// The place for the child's pid in the value of the variable [`PID`]; null without sockets.
    pid: *mut u8,
}

/// The variable by which a program recognizes that sockets are meant for it (sd_listen_fds(3)).
const PID: &str = "LISTEN_PID=";
/// The maximum number of digits in a pid.
const PID_DIGITS: usize = 10;

impl Image {
    /// Lays out the strings of `command`.
    ///
    /// # Errors
    /// `InvalidInput` if a string contains a NUL byte, which no Unix can pass on.
    pub(super) fn new(command: &Command<'_>, instance: Option<&str>) -> io::Result<Self> {
        let mut text = Vec::with_capacity(4096);
        let mut push = |parts: &[&OsStr]| {
            let start = text.len();
            for part in parts {
                text.extend_from_slice(part.as_bytes());
            }
            if text[start..].contains(&0) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "an argument or a variable contains a NUL byte",
                ));
            }
            text.push(0);
            Ok(start)
        };
        let equals = OsStr::new("=");
        let program = push(&[command.program.as_os_str()])?;
        let working_dir = push(&[command.working_dir.as_os_str()])?;
        let argv: Vec<usize> = command
            .argv
            .iter()
            .map(|word| push(&[word]))
            .collect::<io::Result<_>>()?;
        let mut env: Vec<usize> = command
            .env
            .iter()
            .map(|(name, value)| push(&[name, equals, value]))
            .collect::<io::Result<_>>()?;
        if let Some(id) = instance {
            env.push(push(&[OsStr::new(INSTANCE), equals, OsStr::new(id)])?);
        }
        let mut pid = None;
        if !command.sockets.is_empty() {
            let count = command.sockets.len().to_string();
            env.push(push(&[OsStr::new("LISTEN_FDS="), OsStr::new(&count)])?);
            let digits = "0".repeat(PID_DIGITS);
            let room = [PID, &digits].map(OsStr::new);
            let variable = push(&room)?;
            env.push(variable);
            pid = Some(variable + PID.len());
        }
        let pid = pid.map_or(ptr::null_mut(), |at| text.as_mut_ptr().wrapping_add(at));
        let base: *const c_char = text.as_ptr().cast();
        let at = |offset: usize| base.wrapping_add(offset);
        let list = |offsets: Vec<usize>| {
            let pointers = offsets.into_iter().map(at);
            pointers.chain([ptr::null()]).collect()
        };
        Ok(Self {
            program: at(program),
            working_dir: at(working_dir),
            argv: list(argv),
            env: list(env),
            pid,
            _text: text,
        })
    }

    /// Writes the pid of this process into its environment, if there is a place for it.
    ///
    /// # Safety
    /// Only in the child that the image is for, while nothing else reads the image. It is
    /// async-signal-safe.
    unsafe fn write_pid(&self) {
        if self.pid.is_null() {
            return;
        }
        // SAFETY: the call cannot fail.
        let mut rest = unsafe { libc::getpid() };
        // No leading zeros: some programs would read the number as octal.
        let digits = rest.unsigned_abs().ilog10() as usize + 1;
        for place in (0..digits).rev() {
            // SAFETY: there is room for the maximum number of digits.
            unsafe { *self.pid.add(place) = b'0' + u8::try_from(rest % 10).unwrap_or(0) };
            rest /= 10;
        }
        // SAFETY: the place directly after the digits is at most the NUL that ends the text.
        unsafe { *self.pid.add(digits) = 0 };
    }
}

/// The step of the child that failed. The discriminant is passed from the child to the parent; 0
/// means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Step {
    Cgroup = 1,
    Session,
    Output,
    Limits,
    Priority,
    Processors,
    Groups,
    Group,
    User,
    Capabilities,
    Directory,
    Execute,
}

impl Step {
    const ALL: [Self; 12] = [
        Self::Cgroup,
        Self::Session,
        Self::Output,
        Self::Limits,
        Self::Priority,
        Self::Processors,
        Self::Groups,
        Self::Group,
        Self::User,
        Self::Capabilities,
        Self::Directory,
        Self::Execute,
    ];
}

/// All data that a new child needs, laid out before the child exists. Between its creation and
/// `execve` the child may neither allocate nor lock, and may share the parent's memory.
pub(super) struct Child<'a> {
    image: &'a Image,
    user: Option<&'a User>,
    /// The capabilities kept across the change of user.
    capabilities: capabilities::Set,
    nice: Option<c_int>,
    cpus: &'a [u16],
    limits: Limits,
    /// Duplicates numbered high enough that none is overwritten before it is moved into place.
    sockets: Vec<OwnedFd>,
    stdin: RawFd,
    stdout: RawFd,
    stderr: RawFd,
    /// The `cgroup.procs` file that the child writes itself into, or -1.
    pub(super) cgroup_procs: RawFd,
    /// Duplicates of streams that were among descriptors 0 to 2, where the child's own would
    /// overwrite them.
    _moved: [Option<OwnedFd>; 3],
    step: AtomicI32,
    errno: AtomicI32,
}

impl<'a> Child<'a> {
    pub(super) fn new(command: &Command<'a>, image: &'a Image, null: RawFd) -> io::Result<Self> {
        processors::check(command.cpus)?;
        let given = command.stdin.map(above_standard).transpose()?.flatten();
        let stdout = above_standard(command.stdout)?;
        let stderr = above_standard(command.stderr)?;
        let user = command.user.filter(|user| !user.is_ours());
        // Without a change of user, the child keeps all of its capabilities.
        let kept = user.map_or(&[][..], |_| command.capabilities);
        Ok(Self {
            image,
            user,
            capabilities: capabilities::parse(kept)?,
            nice: command.priority.map(nice),
            cpus: command.cpus,
            limits: limits::possible(command.limits),
            sockets: above(command.sockets)?,
            stdin: match (&given, command.stdin) {
                (Some(moved), _) => moved.as_raw_fd(),
                (None, Some(given)) => given.as_raw_fd(),
                (None, None) => null,
            },
            stdout: stdout
                .as_ref()
                .map_or(command.stdout.as_raw_fd(), AsRawFd::as_raw_fd),
            stderr: stderr
                .as_ref()
                .map_or(command.stderr.as_raw_fd(), AsRawFd::as_raw_fd),
            cgroup_procs: -1,
            _moved: [given, stdout, stderr],
            step: AtomicI32::new(0),
            errno: AtomicI32::new(0),
        })
    }

    /// Returns the failure that the child left in shared memory; `None` if it became the program.
    #[cfg(target_os = "linux")]
    pub(super) fn failure(&self) -> Option<(Step, i32)> {
        failure(
            self.step.load(Ordering::Acquire),
            self.errno.load(Ordering::Acquire),
        )
    }

    /// Runs the child's steps. Returns only on failure, with the reason also in shared memory.
    ///
    /// # Safety
    /// Only in a new child process with one thread and every signal blocked. It is
    /// async-signal-safe.
    pub(super) unsafe fn become_program(&self) -> (i32, i32) {
        // SAFETY: guaranteed by the caller.
        let step = unsafe { self.run() };
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        self.errno.store(errno, Ordering::Release);
        self.step.store(step as i32, Ordering::Release);
        (step as i32, errno)
    }

    /// # Safety
    /// As for [`Child::become_program`].
    unsafe fn run(&self) -> Step {
        // SAFETY: system calls on data that the parent laid out, which lives until this process has
        // executed the program or ended.
        unsafe {
            if self.cgroup_procs >= 0
                && libc::write(self.cgroup_procs, c"0".as_ptr().cast(), 1) != 1
            {
                return Step::Cgroup;
            }
            // A session, not only a process group: no terminal's ctrl-c, hang-up or job control
            // reaches it. A session also outlives its leader, so it still identifies the orphans.
            if libc::setsid() == -1 {
                return Step::Session;
            }
            default_signals();
            if libc::dup2(self.stdin, 0) == -1
                || libc::dup2(self.stdout, 1) == -1
                || libc::dup2(self.stderr, 2) == -1
            {
                return Step::Output;
            }
            close_on_exec();
            for (to, socket) in (3..).zip(&self.sockets) {
                if libc::dup2(socket.as_raw_fd(), to) == -1 {
                    return Step::Output;
                }
            }
            self.image.write_pid();
            if let Some(limit) = INHERITED_FILES.get() {
                libc::setrlimit(libc::RLIMIT_NOFILE, limit);
            }
            if !limits::set(self.limits) {
                return Step::Limits;
            }
            if let Some(nice) = self.nice
                && libc::setpriority(libc::PRIO_PROCESS, 0, nice) == -1
            {
                return Step::Priority;
            }
            if !processors::bind(self.cpus) {
                return Step::Processors;
            }
            if let Some(user) = self.user {
                session_keyring();
                if !identity::set_groups(&user.groups) {
                    return Step::Groups;
                }
                if !identity::set_gid(user.gid) {
                    return Step::Group;
                }
                if !capabilities::keep(&self.capabilities) {
                    return Step::Capabilities;
                }
                if !identity::set_uid(user.uid) {
                    return Step::User;
                }
                if !capabilities::hand_on(&self.capabilities) {
                    return Step::Capabilities;
                }
            }
            if libc::chdir(self.image.working_dir) == -1 {
                return Step::Directory;
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
            libc::execve(
                self.image.program,
                self.image.argv.as_ptr(),
                self.image.env.as_ptr(),
            );
        }
        Step::Execute
    }
}

/// Leaves the supervisor's session keyring for a new, empty one (session-keyring(7)), so that keys
/// of the account that started the supervisor do not reach another account. A kernel without
/// keyrings, or a container that forbids them, has no keys to protect.
///
/// # Safety
/// Only in a new child.
unsafe fn session_keyring() {
    #[cfg(target_os = "linux")]
    // SAFETY: no name is passed, so no memory is involved.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            ptr::null::<c_char>(),
        );
    }
}

fn nice(priority: Priority) -> c_int {
    match priority {
        Priority::Low => 19,
        Priority::BelowNormal => 10,
        Priority::Normal => 0,
        Priority::AboveNormal => -5,
        Priority::High => -10,
    }
}

/// Resource limits of this process and its children.
mod limits {
    use std::io;

    use mainstay_core::spec::Limits;

    use super::cvt;

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    type Resource = libc::__rlimit_resource_t;
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    type Resource = libc::c_int;

    /// Returns each limit with its system resource and its manifest key.
    fn all(limits: Limits) -> [(Resource, &'static str, Option<u64>); 4] {
        let Limits {
            open_files,
            processes,
            core_size,
            locked_memory,
        } = limits;
        [
            (libc::RLIMIT_NOFILE, "open_files", open_files),
            (libc::RLIMIT_NPROC, "processes", processes),
            (libc::RLIMIT_CORE, "core_size", core_size),
            (libc::RLIMIT_MEMLOCK, "locked_memory", locked_memory),
        ]
    }

    /// Returns the system's maximum number of descriptors per process (proc_sys_fs(5)).
    fn most_open_files() -> Option<u64> {
        let text = std::fs::read_to_string("/proc/sys/fs/nr_open").ok()?;
        text.trim_end().parse().ok()
    }

    /// Replaces an unlimited number of descriptors with the system's maximum, because Linux does
    /// not support an unlimited one.
    pub(super) fn possible(limits: Limits) -> Limits {
        let is_unlimited = limits.open_files == Some(Limits::UNLIMITED);
        match most_open_files().filter(|_| is_unlimited) {
            Some(most) => Limits {
                open_files: Some(most),
                ..limits
            },
            None => limits,
        }
    }

    fn amount(value: u64) -> libc::rlim_t {
        // `rlim_t` is signed on some systems.
        libc::rlim_t::try_from(value).unwrap_or(libc::RLIM_INFINITY)
    }

    /// Returns why this process may not set the first disallowed limit. It tries to raise its own
    /// hard limit to find out.
    pub(super) fn refused(limits: Limits) -> Option<String> {
        let wanted = all(possible(limits)).into_iter();
        wanted
            .filter_map(|(resource, key, value)| Some((resource, key, value?)))
            .find_map(|(resource, key, value)| {
                let mut before = libc::rlimit {
                    rlim_cur: 0,
                    rlim_max: 0,
                };
                // SAFETY: the resource exists, and `before` has room for its value.
                cvt(unsafe { libc::getrlimit(resource, &mut before) }).ok()?;
                if amount(value) <= before.rlim_max {
                    return None;
                }
                let raised = libc::rlimit {
                    rlim_max: amount(value),
                    ..before
                };
                // SAFETY: as above; a raised limit is lowered again at once.
                let error = unsafe {
                    match cvt(libc::setrlimit(resource, &raw const raised)) {
                        Ok(_) => {
                            libc::setrlimit(resource, &raw const before);
                            return None;
                        }
                        Err(error) => error,
                    }
                };
                Some(why(key, value, before.rlim_max, &error))
            })
    }

    fn why(key: &str, value: u64, hard: libc::rlim_t, error: &io::Error) -> String {
        let value = match value {
            Limits::UNLIMITED => "unlimited".to_owned(),
            value => value.to_string(),
        };
        let most = most_open_files().filter(|_| key == "open_files");
        let most = most.map_or(String::new(), |most| format!(", fs.nr_open is {most}"));
        format!("limits.{key} = {value}: {error}; the supervisor's hard limit is {hard}{most}")
    }

    /// Sets all limits and returns whether that succeeded; `errno` has the reason if not.
    ///
    /// # Safety
    /// No requirements beyond the system's. It is async-signal-safe.
    pub(super) unsafe fn set(limits: Limits) -> bool {
        all(limits).into_iter().all(|(resource, _, value)| {
            let Some(value) = value else { return true };
            let limit = libc::rlimit {
                rlim_cur: amount(value),
                rlim_max: amount(value),
            };
            // SAFETY: the resource exists.
            unsafe { libc::setrlimit(resource, &raw const limit) == 0 }
        })
    }
}

/// Returns why this process may not give its children these limits, for the first one that is too
/// high; `None` if it may.
pub fn refused_limit(limits: Limits) -> Option<String> {
    limits::refused(limits)
}

/// Returns a setting that a program cannot be given, as far as that can be determined before it
/// starts. Each setting is tried in a separate thread, which then ends. Systems other than Linux
/// apply the settings to the whole process, so there only the start itself reveals a refusal.
#[cfg(target_os = "linux")]
pub fn refused_settings(
    cpus: &[u16],
    priority: Option<Priority>,
    capabilities: &[String],
) -> Option<RefusedSetting> {
    let try_all = || {
        // SAFETY: system calls on this thread alone, with checked arguments.
        let is_bound = processors::check(cpus).is_ok() && unsafe { processors::bind(cpus) };
        if !is_bound {
            return Some(RefusedSetting::Processors);
        }
        // SAFETY: no memory is involved.
        let is_refused = |nice| unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } == -1;
        if priority.map(nice).is_some_and(is_refused) {
            return Some(RefusedSetting::Priority);
        }
        let lacks = |name: &&String| !capabilities::can_be_given(name);
        let lacking = capabilities.iter().find(lacks)?;
        Some(RefusedSetting::Capability(lacking.clone()))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, try_all);
        thread.ok()?.join().ok()?
    })
}

/// Returns `None`: only the start itself reveals a refusal.
#[cfg(not(target_os = "linux"))]
pub fn refused_settings(
    _cpus: &[u16],
    _priority: Option<Priority>,
    _capabilities: &[String],
) -> Option<RefusedSetting> {
    None
}

/// Binding of this process and its children to processors; an empty list means all.
mod processors {
    use std::io;

    #[cfg(target_os = "linux")]
    type Set = libc::cpu_set_t;
    #[cfg(target_os = "freebsd")]
    type Set = libc::cpuset_t;
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    type Set = ();

    /// Checks that [`bind`] supports these processors.
    pub(super) fn check(cpus: &[u16]) -> io::Result<()> {
        let known = 8 * size_of::<Set>();
        match cpus.iter().find(|cpu| usize::from(**cpu) >= known) {
            None => Ok(()),
            Some(_) if known == 0 => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this system does not support `cpus`",
            )),
            Some(cpu) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("this system has no processor {cpu}"),
            )),
        }
    }

    /// # Safety
    /// The processors have passed [`check`]. It is async-signal-safe.
    pub(super) unsafe fn bind(cpus: &[u16]) -> bool {
        if cpus.is_empty() {
            return true;
        }
        #[cfg(any(target_os = "linux", target_os = "freebsd"))]
        // SAFETY: an all-zero bit set with one bit for each of these processors; 0 and -1 are this
        // process.
        unsafe {
            let mut set: Set = std::mem::zeroed();
            for cpu in cpus {
                libc::CPU_SET((*cpu).into(), &mut set);
            }
            #[cfg(target_os = "linux")]
            let refused = libc::sched_setaffinity(0, size_of::<Set>(), &set);
            #[cfg(target_os = "freebsd")]
            let refused = {
                let (level, which) = (libc::CPU_LEVEL_WHICH, libc::CPU_WHICH_PID);
                libc::cpuset_setaffinity(level, which, -1, size_of::<Set>(), &set)
            };
            refused == 0
        }
        #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
        false
    }
}

/// Decodes the failure that a child reported.
pub(super) fn failure(step: i32, errno: i32) -> Option<(Step, i32)> {
    let step = Step::ALL.into_iter().find(|known| *known as i32 == step)?;
    Some((step, errno))
}

/// Duplicates the sockets to descriptors above the range that they are to occupy.
fn above(sockets: &[OwnedFd]) -> io::Result<Vec<OwnedFd>> {
    let lowest = 3 + c_int::try_from(sockets.len()).map_err(io::Error::other)?;
    let duplicate = |socket: &OwnedFd| {
        // SAFETY: the descriptor is open while it is borrowed, and only this code owns the new one.
        unsafe {
            let moved = libc::fcntl(socket.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest);
            Ok(OwnedFd::from_raw_fd(cvt(moved)?))
        }
    };
    sockets.iter().map(duplicate).collect()
}

/// A listening socket.
pub type Socket = OwnedFd;

/// The maximum number of connections waiting to be accepted. The system has a limit of its own.
const BACKLOG: c_int = 4096;

/// Connects a non-blocking stream to a Unix socket. It never waits: the kernel connects at once, or
/// refuses.
///
/// # Errors
/// `EAGAIN` if the listener's backlog is full (unix(7)).
pub fn connect_unix(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = unconnected()?;
    rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Connects to a Unix socket to check that it accepts connections, and closes the connection at
/// once. Returns the process that began to listen, if the system reports it. The listener cannot
/// send on the connection: a descriptor that lingers (`SO_LINGER`) in this side's receive queue
/// would block the close.
///
/// # Errors
/// As for [`connect_unix`].
pub fn probe_unix(path: &Path) -> Result<Option<u32>, Errno> {
    let socket = unconnected()?;
    rustix::net::shutdown(&socket, rustix::net::Shutdown::Read)?;
    rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(path)?)?;
    Ok(listener_of(&socket))
}

#[cfg(target_os = "linux")]
fn listener_of(socket: &OwnedFd) -> Option<u32> {
    let peer = rustix::net::sockopt::socket_peercred(socket).ok()?;
    Some(peer.pid.as_raw_nonzero().get().unsigned_abs())
}

#[cfg(not(target_os = "linux"))]
fn listener_of(_: &OwnedFd) -> Option<u32> {
    None
}

fn unconnected() -> Result<OwnedFd, Errno> {
    use rustix::net::{AddressFamily, SocketType};
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// Opens a listening socket. An existing Unix socket without a listener is replaced; anything else
/// at its path is an error.
pub fn listen(address: &Listen) -> io::Result<Socket> {
    let socket: OwnedFd = match address {
        Listen::Tcp(address) => TcpListener::bind(&*address.literal())?.into(),
        Listen::Unix(path) => bind_unix(path)?,
    };
    // The standard library's own backlog is small. SAFETY: the socket is owned here; no memory is
    // involved.
    cvt(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(socket)
}

/// Binds a Unix socket in a directory that is held open, so that no user who can replace a parent
/// directory can redirect the path.
fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{AtFlags, FileType, statat, unlinkat};
    let (dir, name) = guarded::parent(path)?;
    let address = address_in(&dir, path, &name);
    let in_the_way = |what: &str| {
        let message = format!("{what} (remove it, or use another path in `listen`)");
        io::Error::new(io::ErrorKind::AlreadyExists, message)
    };
    match statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
        Ok(found) => match FileType::from_raw_mode(found.st_mode) {
            FileType::Socket if is_dead_socket(&address)? => {
                unlinkat(&dir, &name, AtFlags::empty())?;
            }
            FileType::Socket => {
                let message =
                    "another process listens there (stop it, or use another path in `listen`)";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
            }
            FileType::RegularFile => return Err(in_the_way("a file of that name exists")),
            FileType::Directory => return Err(in_the_way("a directory of that name exists")),
            FileType::Symlink => return Err(in_the_way("a symbolic link of that name exists")),
            _ => return Err(in_the_way("a special file of that name exists")),
        },
    }
    Ok(UnixListener::bind(address)?.into())
}

/// Returns a path that leads to `name` in `dir`; `path` itself if only root can change where it
/// leads.
fn address_in(dir: &guarded::Reached, path: &Path, name: &OsStr) -> PathBuf {
    if cfg!(target_os = "linux") && !dir.is_settled() {
        Path::new("/proc/self/fd")
            .join(dir.as_fd().as_raw_fd().to_string())
            .join(name)
    } else {
        path.to_owned()
    }
}

/// Returns whether a Unix socket is stale, that is, nothing listens on it. It never waits for space
/// in the backlog.
fn is_dead_socket(address: &Path) -> io::Result<bool> {
    match probe_unix(address) {
        Err(Errno::CONNREFUSED) => Ok(true),
        // The connection was accepted, the queue is full, or the socket has another type: some
        // process has it open.
        Ok(_) | Err(Errno::AGAIN | Errno::INPROGRESS | Errno::PROTOTYPE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Duplicates a socket, which listens until both copies are closed.
pub fn share(socket: &Socket) -> io::Result<Socket> {
    socket.try_clone()
}

/// Duplicates `stream` above 2 if it is among the standard streams, which the child's own would
/// overwrite.
fn above_standard(stream: Stream<'_>) -> io::Result<Option<OwnedFd>> {
    if stream.as_raw_fd() > 2 {
        return Ok(None);
    }
    // SAFETY: the descriptor is open while it is borrowed, and only this code owns the new one.
    unsafe {
        let moved = cvt(libc::fcntl(stream.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3))?;
        Ok(Some(OwnedFd::from_raw_fd(moved)))
    }
}

/// The descriptor limit of the supervisor before [`raise_limits`], restored in its children.
static INHERITED_FILES: OnceLock<libc::rlimit> = OnceLock::new();

/// Raises the soft descriptor limit to the hard limit, because each service takes three. The usual
/// soft limit of 1024 exists for `select`, which is not used here; children get it back because
/// they may use `select`.
pub(super) fn raise_limits() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointers are valid for the calls; nothing else in this process changes limits at
    // the same time.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0
            && INHERITED_FILES.set(limit).is_ok()
        {
            let raised = libc::rlimit {
                rlim_cur: limit.rlim_max,
                ..limit
            };
            // On failure fewer services fit, and the first one that does not reports why.
            libc::setrlimit(libc::RLIMIT_NOFILE, &raised);
        }
    }
}

/// Ignores every signal that would end or stop this process and has no meaning for a supervisor.
/// Faults, signals from a terminal's user and signals with a handler stay as they are. Children get
/// the defaults back.
pub(super) fn ignore_signals() {
    // Exceeding the file size limit must fail one write, not end the supervisor.
    let ignored = [
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGPIPE,
        libc::SIGXCPU,
        libc::SIGXFSZ,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ];
    #[cfg(target_os = "linux")]
    let ignored = (libc::SIGRTMIN()..=libc::SIGRTMAX())
        .chain([libc::SIGPOLL, libc::SIGPWR, libc::SIGSTKFLT])
        .chain(ignored);
    for signal in ignored {
        // SAFETY: no memory is involved. A number that the system refuses has no effect.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Resets every signal to its default. `execve` resets handlers by itself, but only after the mask
/// is lifted, when a signal would run the supervisor's handler in the child. It also leaves ignored
/// signals ignored (Rust ignores SIGPIPE; `nohup`, SIGHUP).
///
/// # Safety
/// Only in a new child.
unsafe fn default_signals() {
    for signal in 1..=64 {
        // Linux: uses the system call directly, because the C library hides two real-time signals
        // from its wrapper.
        #[cfg(target_os = "linux")]
        // SAFETY: 32 zero bytes are a kernel sigaction of SIG_DFL on every architecture; none is
        // written back.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &[0_u64; 4], 0, 8);
        }
        #[cfg(not(target_os = "linux"))]
        // SAFETY: no memory is involved. Numbers that do not exist are refused, which is harmless.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Marks every descriptor above 2, own or inherited, as close-on-exec, and returns whether that
/// succeeded. Without the system call (Linux 5.11, FreeBSD 12.2), only [`seal_inherited`] and
/// `O_CLOEXEC` apply.
///
/// # Safety
/// Affects every descriptor of the process. It is harmless to those that are close-on-exec anyway,
/// as all of this program's are.
unsafe fn close_on_exec() -> bool {
    // SAFETY: no memory is involved.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        ) == 0
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Marks the descriptors that this process inherited, except the standard streams, as
/// close-on-exec, so that no service inherits them in turn.
pub(super) fn seal_inherited() {
    // SAFETY: everything that this program opens is close-on-exec already.
    if unsafe { close_on_exec() } {
        return;
    }
    let fds = std::fs::read_dir("/dev/fd").into_iter().flatten().flatten();
    for fd in fds
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
    {
        // SAFETY: no memory is involved; a number that is closed by now is refused.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Returns those of these capabilities that programs started by this process as its own user do not
/// get.
pub fn lacking_capabilities(names: &[String]) -> Vec<&String> {
    let lacks = |name: &&String| !capabilities::is_passed_on(name);
    names.iter().filter(lacks).collect()
}

/// The changes of identity in a child. The functions set `errno`.
#[cfg(target_os = "linux")]
mod identity {
    use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

    // The C library's functions change *every* thread that they track, and in a child that shares
    // memory those are the parent's. These are the bare system calls.

    pub(super) fn set_groups(groups: &[libc::gid_t]) -> bool {
        // SAFETY: `Gid` is a transparent wrapper around gid_t.
        let groups =
            unsafe { std::slice::from_raw_parts(groups.as_ptr().cast::<Gid>(), groups.len()) };
        report(set_thread_groups(groups))
    }
    pub(super) fn set_gid(gid: libc::gid_t) -> bool {
        let gid = Gid::from_raw(gid);
        report(set_thread_res_gid(gid, gid, gid))
    }
    pub(super) fn set_uid(uid: libc::uid_t) -> bool {
        let uid = Uid::from_raw(uid);
        report(set_thread_res_uid(uid, uid, uid))
    }

    pub(super) fn report(result: rustix::io::Result<()>) -> bool {
        let Err(error) = result else { return true };
        // SAFETY: `errno` belongs to this thread.
        unsafe { *libc::__errno_location() = error.raw_os_error() };
        false
    }
}

/// Capabilities for programs that do not run as root. They are ambient, because only ambient
/// capabilities survive an `execve` of a file without capabilities of its own. The functions set
/// `errno`.
#[cfg(target_os = "linux")]
mod capabilities {
    use std::io;

    use rustix::thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set,
        configure_capability_in_ambient_set, set_capabilities, set_keep_capabilities,
    };

    use super::identity::report;

    pub(super) type Set = CapabilitySet;

    /// Parses capability names.
    ///
    /// # Errors
    /// If Linux has no capability of that name.
    pub(super) fn parse(names: &[String]) -> io::Result<Set> {
        let one = |name: &String| {
            let known = name.strip_prefix("CAP_").and_then(Set::from_name);
            known.ok_or_else(|| {
                let message = format!("this system has no capability {name}");
                io::Error::new(io::ErrorKind::InvalidInput, message)
            })
        };
        names.iter().map(one).collect()
    }

    /// Returns whether children of this process get the capability while the user stays the same.
    pub(super) fn is_passed_on(name: &str) -> bool {
        let known = name.strip_prefix("CAP_").and_then(Set::from_name);
        known.is_some_and(|one| capability_is_in_ambient_set(one).unwrap_or(false))
    }

    /// Returns whether this thread can pass the capability on to a program of another user. If it
    /// can, it does.
    pub(super) fn can_be_given(name: &str) -> bool {
        let Some(one) = name.strip_prefix("CAP_").and_then(Set::from_name) else {
            return false;
        };
        let given = capabilities(None).and_then(|ours| {
            let inheritable = ours.inheritable | one;
            set_capabilities(
                None,
                CapabilitySets {
                    inheritable,
                    ..ours
                },
            )?;
            configure_capability_in_ambient_set(one, true)
        });
        given.is_ok()
    }

    /// Keeps capabilities across the change of user, which would otherwise drop them all. Called
    /// before the change.
    pub(super) fn keep(set: &Set) -> bool {
        set.is_empty() || report(set_keep_capabilities(true))
    }

    /// Restores the capabilities after the change of user and makes them ambient.
    pub(super) fn hand_on(set: &Set) -> bool {
        let sets = CapabilitySets {
            effective: *set,
            permitted: *set,
            inheritable: *set,
        };
        set.is_empty()
            || report(set_capabilities(None, sets))
                && set
                    .iter()
                    .all(|one| report(configure_capability_in_ambient_set(one, true)))
    }
}

/// The stub for systems without capabilities, which only Linux has.
#[cfg(not(target_os = "linux"))]
mod capabilities {
    use std::io;

    pub(super) type Set = ();

    pub(super) fn parse(names: &[String]) -> io::Result<Set> {
        match names {
            [] => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this system has no capabilities",
            )),
        }
    }

    pub(super) fn is_passed_on(_name: &str) -> bool {
        false
    }

    pub(super) fn keep((): &Set) -> bool {
        true
    }

    pub(super) fn hand_on((): &Set) -> bool {
        true
    }
}

/// The changes of identity in a child. The functions set `errno`.
#[cfg(not(target_os = "linux"))]
mod identity {
    pub(super) fn set_groups(groups: &[libc::gid_t]) -> bool {
        // SAFETY: the slice has as many IDs as its length says.
        unsafe { libc::setgroups(groups.len() as _, groups.as_ptr()) == 0 }
    }
    pub(super) fn set_gid(gid: libc::gid_t) -> bool {
        // SAFETY: no memory is involved.
        unsafe { libc::setgid(gid) == 0 }
    }
    pub(super) fn set_uid(uid: libc::uid_t) -> bool {
        // SAFETY: no memory is involved.
        unsafe { libc::setuid(uid) == 0 }
    }
}

/// Blocks every signal on this thread until dropped, so that no signal handler runs in a child that
/// shares this process's memory.
pub(super) struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    pub(super) fn new() -> Self {
        // SAFETY: both sets are local, and valid when zero.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self(before)
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by the system.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}

impl SpawnError {
    /// Describes a failure in the supervisor's own part of a start. If the system does not support
    /// an operation at all, the next attempt fails as well.
    pub(super) fn parent(step: &str, source: impl Into<io::Error>) -> Self {
        use io::ErrorKind::{InvalidInput, Unsupported};
        let source = source.into();
        Self {
            step: step.into(),
            is_permanent: matches!(source.kind(), InvalidInput | Unsupported),
            source,
            hint: None,
        }
    }

    /// Describes a failure in a step of the child.
    pub(super) fn child(command: &Command<'_>, (step, errno): (Step, i32)) -> Self {
        let user = || {
            command
                .user
                .map_or("?".into(), |user| user.name.to_string_lossy())
        };
        let hint = match step {
            Step::Execute => why_not_executed(command.program, errno),
            Step::Groups | Step::Group | Step::User if errno == libc::EPERM => {
                Some("only root may start a program as another user".into())
            }
            Step::Limits => limits::refused(command.limits),
            Step::Capabilities => {
                Some("the supervisor does not have them, or cannot pass them on".into())
            }
            Step::Priority => Some("only root may raise a priority".into()),
            Step::Processors if errno == libc::EINVAL => {
                Some("the processors do not exist, or the supervisor may not use them".into())
            }
            _ => None,
        };
        Self {
            step: match step {
                Step::Cgroup => "join the service's cgroup".into(),
                Step::Session => "start a session".into(),
                Step::Output => "connect the output".into(),
                Step::Limits => "set the limits".into(),
                Step::Priority => "set the priority".into(),
                Step::Processors => format!("set its CPU affinity to {:?}", command.cpus),
                Step::Groups => format!("set the groups of user {}", user()),
                Step::Group => format!("set the group of user {}", user()),
                Step::User => format!("set user {}", user()),
                Step::Capabilities => {
                    format!("keep the capabilities {}", command.capabilities.join(", "))
                }
                Step::Directory => format!("change to directory {}", command.working_dir.display()),
                Step::Execute => format!("execute {}", command.program.display()),
            },
            source: io::Error::from_raw_os_error(errno),
            hint,
            is_permanent: !matches!(step, Step::Cgroup) && lasts(errno),
        }
    }
}

/// Returns whether a step of the child that failed with this error will fail again. A missing file
/// may still appear, and memory may become free.
fn lasts(errno: i32) -> bool {
    use libc::{E2BIG, EACCES, EINVAL, ELOOP, ENAMETOOLONG, ENOEXEC, ENOTDIR, EPERM};
    matches!(
        errno,
        E2BIG | EACCES | EINVAL | ELOOP | ENAMETOOLONG | ENOEXEC | ENOTDIR | EPERM
    )
}

/// The advice for a script saved with Windows line endings.
const DOS_SCRIPT: &str = "its #! line ends in a carriage return; save it with Unix line endings";

enum LineEnd {
    Plain,
    CarriageReturn,
}

/// Reads the first 256 bytes of a file.
fn head(program: &Path) -> Option<Vec<u8>> {
    let mut head = vec![0; 256];
    let length = guarded::plain_file(program).ok()?.read(&mut head).ok()?;
    head.truncate(length);
    Some(head)
}

/// Returns the interpreter that a script's `#!` line names, and the line's ending.
fn interpreter(head: &[u8]) -> Option<(String, LineEnd)> {
    let line = head
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let (line, end) = match line.strip_suffix(b"\r") {
        Some(line) => (line, LineEnd::CarriageReturn),
        None => (line, LineEnd::Plain),
    };
    let mut words = line
        .split(|byte| b" \t".contains(byte))
        .filter(|word| !word.is_empty());
    let name = words.next().unwrap_or_default();
    Some((String::from_utf8_lossy(name).into_owned(), end))
}

/// Returns why a script has no interpreter, without executing it. With a carriage return, the
/// kernel or `env` looks for a name that ends in it.
pub fn lacks_interpreter(program: &Path) -> Option<String> {
    let head = head(program)?;
    let line = head.split(|byte| *byte == b'\n').next()?;
    let (name, end) = interpreter(line)?;
    let is_alone = line.trim_ascii().ends_with(name.as_bytes());
    let path = Path::new(&name);
    match end {
        LineEnd::CarriageReturn if is_alone || path.ends_with("env") => Some(DOS_SCRIPT.into()),
        _ if path.is_absolute() && !path.exists() => why_not_executed(program, libc::ENOENT),
        _ => None,
    }
}

/// Describes an ELF file by its header (elf(5)).
fn elf(head: &[u8]) -> String {
    let at = |place: usize| head.get(place).copied().unwrap_or(0);
    let (bits, order) = match (at(4), at(5)) {
        (1, 1) => (32, "little-endian"),
        (2, 1) => (64, "little-endian"),
        (1, 2) => (32, "big-endian"),
        (2, 2) => (64, "big-endian"),
        _ => return "a damaged ELF header".to_owned(),
    };
    let number = |place: usize| match order {
        "big-endian" => u16::from_be_bytes([at(place), at(place + 1)]),
        _ => u16::from_le_bytes([at(place), at(place + 1)]),
    };
    let kind = match number(16) {
        2 | 3 => "program",
        1 => return "an object file that was not linked".to_owned(),
        4 => return "a core dump".to_owned(),
        _ => return "a damaged ELF header".to_owned(),
    };
    let machine = match number(18) {
        3 => "x86",
        8 => "MIPS",
        20 => "PowerPC",
        21 => "PowerPC 64",
        22 => "s390",
        40 => "ARM",
        62 => "x86-64",
        183 => "AArch64",
        243 => "RISC-V",
        258 => "LoongArch",
        number => return format!("a {bits}-bit {order} ELF {kind} for machine number {number}"),
    };
    format!(
        "a {bits}-bit {order} ELF {kind} for {machine}; the file may be damaged if that is this machine"
    )
}

/// Explains a failed `execve` whose error is misleading. For example, a missing *interpreter* is
/// reported as a missing file.
pub fn why_not_executed(program: &Path, errno: i32) -> Option<String> {
    let metadata = std::fs::metadata(program).ok()?;
    if errno == libc::EACCES {
        return if metadata.is_dir() {
            Some("it is a directory".into())
        } else if metadata.file_type().is_fifo() || metadata.permissions().mode() & 0o111 == 0 {
            Some(format!(
                "it is not marked as executable; try: chmod +x {}",
                program.display()
            ))
        } else {
            Some("the user may not execute it, or its file system is mounted noexec".into())
        };
    }
    let head = head(program)?;
    match (errno, interpreter(&head)) {
        (libc::ENOENT, Some((_, LineEnd::CarriageReturn))) => Some(DOS_SCRIPT.into()),
        (libc::ENOENT, Some((name, LineEnd::Plain))) => Some(format!("the file exists, but the interpreter of its #! line does not: {name}")),
        (libc::ENOENT, None) => Some(
            "the file exists, but its dynamic loader does not: it was built for another C library or architecture".into(),
        ),
        (libc::ENOEXEC, None) if head.starts_with(b"\x7fELF") => Some(format!(
            "not an executable for this machine ({})",
            elf(&head)
        )),
        (libc::ENOEXEC, None) => Some("it is neither an executable nor a script that starts with #!".into()),
        _ => None,
    }
}
