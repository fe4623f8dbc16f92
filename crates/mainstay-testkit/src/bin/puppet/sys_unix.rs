//! Signals, sessions and inherited process state on Unix.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, FromRawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::umask;
use serde_json::{Map, Value};

/// Returns stdout without std's line buffer, so that each write is a single system call.
pub(crate) fn raw_stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Raises a signal. Returns only if the signal is ignored.
pub(crate) fn signal_self(name: &str) -> io::Result<()> {
    let signal = number(name)?;
    // SAFETY: raise(3) accepts any number and accesses no memory of this program.
    check(unsafe { libc::raise(signal) })
}

/// Returns a socket that was passed to this process.
pub(crate) fn given(number: i32) -> io::Result<TcpListener> {
    let variable = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let is_ours = variable("LISTEN_PID") == Some(std::process::id());
    let count = variable("LISTEN_FDS").filter(|_| is_ours).unwrap_or(0);
    if number.unsigned_abs() >= count {
        return Err(io::Error::other("there is no such socket"));
    }
    // SAFETY: according to the parent process, descriptors from 3 on are sockets that nothing else
    // uses.
    Ok(unsafe { TcpListener::from_raw_fd(3 + number) })
}

/// Ignores a signal from now on. Later descendants inherit this.
pub(crate) fn ignore(name: &str) -> io::Result<()> {
    handle(number(name)?, libc::SIG_IGN)
}

static CODE: AtomicI32 = AtomicI32::new(0);
static AFTER_MS: AtomicU64 = AtomicU64::new(0);

/// Installs a handler for TERM and INT that exits with `code` after a delay.
pub(crate) fn on_term(code: i32, after: Duration) -> io::Result<()> {
    extern "C" fn leave(_: libc::c_int) {
        let after = AFTER_MS.load(Ordering::Relaxed);
        let time = libc::timespec {
            tv_sec: (after / 1000) as libc::time_t,
            tv_nsec: (after % 1000 * 1_000_000) as libc::c_long,
        };
        // SAFETY: both calls are async-signal-safe, and `time` outlives the first.
        unsafe {
            libc::nanosleep(&time, std::ptr::null_mut());
            libc::_exit(CODE.load(Ordering::Relaxed));
        }
    }
    CODE.store(code, Ordering::Relaxed);
    AFTER_MS.store(after.as_millis() as u64, Ordering::Relaxed);
    let handler = leave as extern "C" fn(libc::c_int) as libc::sighandler_t;
    handle(libc::SIGTERM, handler)?;
    handle(libc::SIGINT, handler)
}

/// Accepts connections one by one and passes them on, until TERM arrives.
pub(crate) fn accept_until_term(
    listener: &TcpListener,
    mut each: impl FnMut(std::net::TcpStream),
) -> io::Result<()> {
    static HAS_COME: AtomicBool = AtomicBool::new(false);
    extern "C" fn come(_: libc::c_int) {
        HAS_COME.store(true, Ordering::Relaxed);
    }
    handle(
        libc::SIGTERM,
        come as extern "C" fn(libc::c_int) as libc::sighandler_t,
    )?;
    // Other processes may accept from the same listener, and be faster.
    listener.set_nonblocking(true)?;
    let wait = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    while !HAS_COME.load(Ordering::Relaxed) {
        let mut poll = [rustix::event::PollFd::new(
            listener,
            rustix::event::PollFlags::IN,
        )];
        let _woken_or_not = rustix::event::poll(&mut poll, Some(&wait));
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                each(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn handle(signal: libc::c_int, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: `handler` is SIG_IGN or a function that is async-signal-safe.
    match unsafe { libc::signal(signal, handler) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Starts a new session.
pub(crate) fn setsid() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Becomes the tracer of another process, which continues to run.
#[cfg(target_os = "linux")]
pub(crate) fn trace(pid: i32) -> io::Result<()> {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: this request accesses no memory.
    match unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, nothing, nothing) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn trace(_: i32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Accepts connections forever at the socket `path`, which must not exist yet.
pub(crate) fn serve_unix(path: &str) -> io::Result<()> {
    UnixListener::bind(path)?
        .incoming()
        .try_for_each(|stream| stream.map(drop))
}

/// Sends an sd_notify(3) message, also to abstract sockets.
pub(crate) fn notify(state: &str) -> io::Result<()> {
    let missing = || io::Error::other("NOTIFY_SOCKET is not set");
    let path = std::env::var("NOTIFY_SOCKET").map_err(|_| missing())?;
    let socket = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = path.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return socket.send_to_addr(state.as_bytes(), &address).map(drop);
    }
    socket.send_to(state.as_bytes(), path).map(drop)
}

/// Returns `fds` (above 2), `sig_ign`, `sig_blk` (signal numbers), `umask`, `pgid`, `sid` and
/// `ppid`.
pub(crate) fn inherited() -> io::Result<Map<String, Value>> {
    let mut fds: Vec<i32> = fs::read_dir("/dev/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // The descriptor that read the directory is closed only now.
    fds.retain(|fd| *fd > 2 && is_open(*fd));
    let mask = umask(rustix::fs::Mode::empty());
    umask(mask);
    let signals = 1..=31;
    // Both are 0 in a PID namespace whose group or session began outside, which rustix considers
    // impossible.
    // SAFETY: neither takes a pointer.
    let (pgid, sid) = unsafe { (libc::getpgid(0), libc::getsid(0)) };
    let state = [
        ("fds", Value::from(fds)),
        (
            "sig_ign",
            signals.clone().filter(|n| is_ignored(*n)).collect(),
        ),
        ("sig_blk", signals.filter(|n| is_blocked(*n)).collect()),
        ("umask", format!("{:03o}", mask.bits()).into()),
        ("pgid", pgid.into()),
        ("sid", sid.into()),
        ("ppid", std::os::unix::process::parent_id().into()),
    ];
    Ok(state
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect())
}

fn is_open(fd: i32) -> bool {
    // SAFETY: F_GETFD accepts any number and accesses no memory of this program.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no new action is set, and the old one is written to memory of the right size; an
    // all-zero sigaction is valid.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

fn is_blocked(signal: i32) -> bool {
    let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: no new mask is set, and the old one is written to memory of the right size and then
    // only read.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr());
        libc::sigismember(mask.as_ptr(), signal) == 1
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn number(name: &str) -> io::Result<libc::c_int> {
    let name = name.to_ascii_uppercase();
    Ok(match name.strip_prefix("SIG").unwrap_or(&name) {
        "HUP" => libc::SIGHUP,
        "INT" => libc::SIGINT,
        "QUIT" => libc::SIGQUIT,
        "ILL" => libc::SIGILL,
        "ABRT" => libc::SIGABRT,
        "FPE" => libc::SIGFPE,
        "KILL" => libc::SIGKILL,
        "BUS" => libc::SIGBUS,
        "SEGV" => libc::SIGSEGV,
        "PIPE" => libc::SIGPIPE,
        "ALRM" => libc::SIGALRM,
        "TERM" => libc::SIGTERM,
        "STOP" => libc::SIGSTOP,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        other => return Err(io::Error::other(format!("no signal {other:?}"))),
    })
}
