//! Listening sockets, and connections to Unix sockets that never wait.

use std::ffi::{OsStr, c_int};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use mainstay_core::spec::Listen;
use rustix::io::Errno;

use super::cvt;
use crate::guarded;

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
