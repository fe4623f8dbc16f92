//! The last steps of a child before `execve`, and the reasons why they fail.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::{io, ptr};

use mainstay_core::spec::Limits;

use super::descriptors::{above, above_standard, close_on_exec};
use super::executable::why_not_executed;
use super::image::Image;
use super::limits::{INHERITED_FILES, refused_limit};
use super::settings::nice;
use super::signal::default_signals;
use super::user::User;
use super::{capabilities, identity, limits, processors};
use crate::process::{Command, SpawnError};

/// The step of the child that failed. The discriminant is passed from the child to the parent; 0
/// means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Step {
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
pub(crate) struct Child<'a> {
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
    pub(crate) cgroup_procs: RawFd,
    /// Duplicates of streams that were among descriptors 0 to 2, where the child's own would
    /// overwrite them.
    _moved: [Option<OwnedFd>; 3],
    step: AtomicI32,
    errno: AtomicI32,
}

impl<'a> Child<'a> {
    pub(crate) fn new(command: &Command<'a>, image: &'a Image, null: RawFd) -> io::Result<Self> {
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
    pub(crate) fn failure(&self) -> Option<(Step, i32)> {
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
    pub(crate) unsafe fn become_program(&self) -> (i32, i32) {
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

/// Decodes the failure that a child reported.
pub(crate) fn failure(step: i32, errno: i32) -> Option<(Step, i32)> {
    let step = Step::ALL.into_iter().find(|known| *known as i32 == step)?;
    Some((step, errno))
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
            ptr::null::<std::ffi::c_char>(),
        );
    }
}

impl SpawnError {
    /// Describes a failure in the supervisor's own part of a start. If the system does not support
    /// an operation at all, the next attempt fails as well.
    pub(crate) fn parent(step: &str, source: impl Into<io::Error>) -> Self {
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
    pub(crate) fn child(command: &Command<'_>, (step, errno): (Step, i32)) -> Self {
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
            Step::Limits => refused_limit(command.limits),
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
