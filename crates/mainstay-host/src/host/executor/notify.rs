//! `NOTIFY_SOCKET`: notifications from a service (sd_notify(3)). Each run has a socket of its own,
//! so that a message cannot be mistaken for another run's.
//!
//! The socket is a file of the service's account, so that other accounts cannot send to it at all.
//! Its name is random, and the ledger keeps it for the next supervisor. A service that root runs
//! may change its account or root directory before it sends: on Linux, its socket is in the
//! abstract namespace (unix(7)), as is one whose file cannot be created or reached.
//!
//! On Linux, the sender of a message is identified by its credentials and checked before the next
//! message is read: sd_notify_barrier(3), and so systemd-notify(1), wait for that, and the sender
//! is still alive. A sender that has exited by then counts as a stranger. File descriptors that
//! come with a message, as with those of sd_notify_barrier(3), are closed away from the loop
//! (`release.rs`); nothing else of this socket is read meanwhile. On other Unix systems, the
//! senders of one account are not distinguished. Windows has no datagram sockets of this kind, and
//! opening one fails with an error.

use std::cell::{Cell, OnceCell};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use mainstay_core::engine::Notice;
use mainstay_core::spec::Senders;
use mainstay_store::state_dir::StateDir;
use mainstay_sys as sys;
#[cfg(unix)]
use mainstay_sys::private::create_private_dir;
use tokio::task::AbortHandle;

/// The longest message that is read. Longer ones are truncated; senders of sd_notify(3) do not need
/// them.
const LONGEST: usize = 4096;

/// The number of messages that are read in a row before other tasks have their turn.
const TURN: u32 = 16;

/// A notification socket. It is read until it is dropped.
pub(super) struct NotifySocket {
    address: OsString,
    reader: Rc<Reader>,
    task: AbortHandle,
}

/// The socket, the accepted senders and the receiver of notifications.
struct Reader {
    socket: platform::Socket,
    senders: Senders,
    uid: Option<u32>,
    members: OnceCell<sys::Members>,
    knows_strangers: Cell<bool>,
    on: Box<dyn Fn(Heard)>,
}

impl Reader {
    fn believes(&self, sender: Option<Sender>) -> bool {
        match (sender, self.senders) {
            // Without credentials, the permissions of the socket decide who can send.
            (None, _) => !cfg!(target_os = "linux"),
            (Some(sender), Senders::Tree) => {
                let members = self.members.get();
                members.is_some_and(|members| members.has(sender.pid))
            }
            (Some(sender), Senders::All) => {
                sender.uid == 0 || sys::is_current_user(sender.uid) || Some(sender.uid) == self.uid
            }
        }
    }

    fn take_in(&self, message: &[u8], sender: Option<Sender>) {
        if self.believes(sender) {
            let text = String::from_utf8_lossy(message);
            let notices = text.lines().filter_map(parse);
            notices.for_each(|notice| (self.on)(Heard::Notice(notice)));
        } else if !self.knows_strangers.replace(true) {
            (self.on)(Heard::Stranger(sender.map_or(0, |sender| sender.pid)));
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Reader {
    fn drop(&mut self) {
        platform::empty(&self.socket);
    }
}

/// A limit above the queue length of any system's socket.
const MOST_WAITING: usize = 4096;

/// An event of a notification socket.
pub(super) enum Heard {
    Notice(Notice),
    /// A message from a process that is not accepted. This event occurs once per socket.
    Stranger(u32),
}

/// The accepted senders.
pub(super) struct Trust<'a> {
    pub(super) senders: Senders,
    /// The service's user, if it is not the supervisor's.
    pub(super) user: Option<&'a sys::User>,
}

/// The sender of a message, from its credentials.
#[derive(Clone, Copy)]
struct Sender {
    pid: u32,
    uid: u32,
}

impl NotifySocket {
    /// Opens a socket and calls `on` for each event. If the service is already running, the socket
    /// is opened at the address that it knows.
    pub(super) fn open(
        state: &StateDir,
        name: &str,
        trust: &Trust<'_>,
        known: Option<&str>,
        on: impl Fn(Heard) + 'static,
    ) -> io::Result<Self> {
        let (address, socket) = platform::bind(state, name, trust.user, known)?;
        let reader = Rc::new(Reader {
            socket,
            senders: trust.senders,
            uid: trust.user.map(sys::User::uid),
            members: OnceCell::new(),
            knows_strangers: Cell::new(false),
            on: Box::new(on),
        });
        let reads = Rc::clone(&reader);
        let task = tokio::task::spawn_local(async move {
            let mut buffer = [0; LONGEST];
            let mut turn = 0;
            while let Ok((message, sender)) = platform::receive(&reads.socket, &mut buffer).await {
                reads.take_in(message, sender);
                turn += 1;
                if turn % TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        Ok(Self {
            address,
            reader,
            task: task.abort_handle(),
        })
    }

    /// Reads the messages that were sent before this call.
    pub(super) fn drain(&self) {
        let mut buffer = [0; LONGEST];
        for _ in 0..MOST_WAITING {
            let Ok((message, sender)) = platform::receive_now(&self.reader.socket, &mut buffer)
            else {
                return;
            };
            self.reader.take_in(message, sender);
        }
    }

    /// Sets the process tree whose messages are accepted. Nothing is read between a start and this
    /// call.
    pub(super) fn belongs_to(&self, tree: &sys::Tree) {
        // The tree is set once: a socket never belongs to another one.
        let _ = self.reader.members.set(tree.members());
    }

    /// Returns the value of `NOTIFY_SOCKET`.
    pub(super) fn address(&self) -> &OsString {
        &self.address
    }

    /// Returns the socket's file, if it has one.
    pub(super) fn path(&self) -> Option<&Path> {
        Some(Path::new(&self.address)).filter(|path| path.is_absolute())
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(path) = self.path() {
            // If the file stays, the next supervisor removes it.
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes the socket files that a killed supervisor left, except those in use.
pub(super) fn remove_stale<'a>(
    state: &StateDir,
    in_use: impl Iterator<Item = &'a NotifySocket> + Clone,
) {
    let entries = fs::read_dir(state.notify_dir()).into_iter().flatten();
    for path in entries.flatten().map(|entry| entry.path()) {
        if !in_use.clone().any(|socket| socket.path() == Some(&path)) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Returns a new random name for a socket file.
#[cfg(unix)]
fn new_name(service: &str) -> String {
    use std::hash::{BuildHasher as _, RandomState};
    format!("{:016x}", RandomState::new().hash_one(service))
}

/// Binds a socket to a file that only root and `user`, or our own account, may send to.
///
/// Fails if `user` could not reach the file.
#[cfg(unix)]
fn bind_file<T>(
    path: &Path,
    user: Option<&sys::User>,
    bind: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    const SEARCH: u32 = 0o011;
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let set_mode = |path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    create_private_dir(dir)?;
    if user.is_some() {
        set_mode(dir, 0o700 | SEARCH)?;
        for above in dir.ancestors() {
            if fs::metadata(above)?.mode() & SEARCH != SEARCH {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = bind()?;
    let given = set_mode(path, 0o600).and_then(|()| user.map_or(Ok(()), |user| user.give(path)));
    if given.is_err() {
        let _ = fs::remove_file(path);
    }
    given.map(|()| socket)
}

/// Parses one assignment. Returns `None` for those that are not supported.
fn parse(line: &str) -> Option<Notice> {
    let (name, value) = line.split_once('=')?;
    match name {
        "READY" => (value == "1").then_some(Notice::Ready),
        "STATUS" => Some(Notice::Status(value.to_owned())),
        "EXTEND_TIMEOUT_USEC" => value
            .parse()
            .ok()
            .map(|micros| Notice::ExtendTimeout(Duration::from_micros(micros))),
        _ => None,
    }
}

#[cfg(target_os = "linux")]
mod platform {
    use std::ffi::OsString;
    use std::io::{self, IoSliceMut};
    use std::mem::MaybeUninit;
    use std::path::Path;
    use std::process;
    use std::time::Duration;

    use rustix::net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, Shutdown,
        SocketAddrUnix, SocketFlags, SocketType, bind as bind_to, recvmsg, shutdown, socket_with,
        sockopt,
    };
    use tokio::io::Interest;
    use tokio::net::UnixDatagram;

    use super::super::release;
    use super::{MOST_WAITING, Sender, bind_file, new_name};
    use mainstay_store::state_dir::StateDir;
    use mainstay_sys as sys;

    pub(super) type Socket = UnixDatagram;

    /// The longest path of a socket (unix(7)).
    const LONGEST_PATH: usize = 107;

    /// The delay before another attempt to start a thread that closes a message's descriptors.
    const RETRY_DELAY: Duration = Duration::from_secs(1);

    pub(super) fn bind(
        state: &StateDir,
        name: &str,
        user: Option<&sys::User>,
        known: Option<&str>,
    ) -> io::Result<(OsString, Socket)> {
        if let Some(known) = known {
            return bind_at(known.to_owned(), user);
        }
        let random = new_name(name);
        let path = state.notify_dir().join(&random);
        let path = path.to_str().filter(|path| is_for(path, user));
        if let Some(Ok(bound)) = path.map(|path| bind_at(path.to_owned(), user)) {
            return Ok(bound);
        }
        let pid = process::id();
        bind_at(format!("@mainstay/{pid}/{name}/{random}"), user)
    }

    /// Returns whether a socket file of this path is suitable for a service of this account.
    fn is_for(path: &str, user: Option<&sys::User>) -> bool {
        let is_root = sys::is_privileged() && user.is_none_or(sys::User::is_root);
        !is_root && path.len() <= LONGEST_PATH
    }

    fn bind_at(address: String, user: Option<&sys::User>) -> io::Result<(OsString, Socket)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_passcred(&socket, true)?;
        if let Some(name) = address.strip_prefix('@') {
            let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
            bind_to(&socket, &address)?;
        } else {
            let path = Path::new(&address);
            bind_file(path, user, || {
                Ok(bind_to(&socket, &SocketAddrUnix::new(path)?)?)
            })?;
        }
        let socket = UnixDatagram::from_std(socket.into())?;
        Ok((address.into(), socket))
    }

    /// Returns the next message. Its file descriptors are closed. Cancel-safe.
    pub(super) async fn receive<'a>(
        socket: &Socket,
        buffer: &'a mut [u8],
    ) -> io::Result<(&'a [u8], Option<Sender>)> {
        loop {
            let next = socket
                .async_io(Interest::READABLE, || look(socket, buffer))
                .await?;
            if !next.has_descriptors {
                remove(socket)?;
            } else if let Ok(gone) = release::remove_next(socket) {
                // An error means that the message is removed as well.
                let _ = gone.await;
            } else {
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            }
            return Ok((&buffer[..next.length], next.sender));
        }
    }

    /// Returns the next waiting message, if it carries no file descriptors.
    pub(super) fn receive_now<'a>(
        socket: &Socket,
        buffer: &'a mut [u8],
    ) -> io::Result<(&'a [u8], Option<Sender>)> {
        let next = look(socket, buffer)?;
        if next.has_descriptors {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        remove(socket)?;
        Ok((&buffer[..next.length], next.sender))
    }

    /// Empties the socket, so that closing it does not close descriptors that were sent to it.
    pub(super) fn empty(socket: &Socket) {
        // After this, nothing can be sent to the socket.
        let _ = shutdown(socket, Shutdown::Read);
        let mut buffer = [0; 1];
        for _ in 0..MOST_WAITING {
            match look(socket, &mut buffer) {
                Ok(next) if next.has_descriptors => {
                    return release::remove_all(socket, MOST_WAITING);
                }
                Ok(next) if next.sender.is_some() && remove(socket).is_ok() => {}
                // Each message has a sender: without one, the queue is empty.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// The next message, which remains in the queue.
    struct Next {
        length: usize,
        sender: Option<Sender>,
        has_descriptors: bool,
    }

    fn look(socket: &Socket, buffer: &mut [u8]) -> io::Result<Next> {
        // There is room for the credentials only. `MSG_CTRUNC` then shows that the message carries
        // more.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::PEEK;
        let message = recvmsg(socket, &mut slices, &mut ancillary, flags)?;
        let sender = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(sender) => Some(Sender {
                pid: sender.pid.as_raw_pid().cast_unsigned(),
                uid: sender.uid.as_raw(),
            }),
            _ => None,
        });
        Ok(Next {
            length: message.bytes,
            sender,
            has_descriptors: message.flags.contains(ReturnFlags::CTRUNC),
        })
    }

    /// Removes the message that was peeked. There is no other reader.
    fn remove(socket: &Socket) -> io::Result<()> {
        rustix::net::recv(socket, &mut [0_u8; 0][..], RecvFlags::DONTWAIT)?;
        Ok(())
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
mod platform {
    use std::ffi::OsString;
    use std::io;

    use tokio::net::UnixDatagram;

    use super::{Sender, bind_file, new_name};
    use mainstay_store::state_dir::StateDir;
    use mainstay_sys as sys;

    pub(super) type Socket = UnixDatagram;

    pub(super) fn bind(
        state: &StateDir,
        name: &str,
        user: Option<&sys::User>,
        _known: Option<&str>,
    ) -> io::Result<(OsString, Socket)> {
        let path = state.notify_dir().join(new_name(name));
        let socket = bind_file(&path, user, || UnixDatagram::bind(&path))?;
        Ok((path.into(), socket))
    }

    pub(super) async fn receive<'a>(
        socket: &Socket,
        buffer: &'a mut [u8],
    ) -> io::Result<(&'a [u8], Option<Sender>)> {
        let length = socket.recv(buffer).await?;
        Ok((&buffer[..length], None))
    }

    pub(super) fn receive_now<'a>(
        socket: &Socket,
        buffer: &'a mut [u8],
    ) -> io::Result<(&'a [u8], Option<Sender>)> {
        let flags = rustix::net::RecvFlags::DONTWAIT;
        let (length, _) = rustix::net::recv(socket, &mut *buffer, flags)?;
        Ok((&buffer[..length], None))
    }
}

#[cfg(windows)]
mod platform {
    use std::ffi::OsString;
    use std::io;

    use super::Sender;
    use mainstay_store::state_dir::StateDir;
    use mainstay_sys as sys;

    pub(super) type Socket = ();

    pub(super) fn bind(
        _state: &StateDir,
        _name: &str,
        _user: Option<&sys::User>,
        _known: Option<&str>,
    ) -> io::Result<(OsString, Socket)> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "`ready = { notify }` is a Unix protocol",
        ))
    }

    #[expect(clippy::unused_async, reason = "the same shape on every system")]
    pub(super) async fn receive<'a>(
        (): &Socket,
        _buffer: &'a mut [u8],
    ) -> io::Result<(&'a [u8], Option<Sender>)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn receive_now<'a>(
        (): &Socket,
        _buffer: &'a mut [u8],
    ) -> io::Result<(&'a [u8], Option<Sender>)> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices() {
        for (line, expect) in [
            ("READY=1", Some(Notice::Ready)),
            ("READY=0", None),
            ("STATUS=a=b", Some(Notice::Status("a=b".into()))),
            (
                "EXTEND_TIMEOUT_USEC=1500000",
                Some(Notice::ExtendTimeout(Duration::from_millis(1500))),
            ),
            ("EXTEND_TIMEOUT_USEC=-1", None),
            ("X", None),
        ] {
            assert_eq!(parse(line), expect, "{line}");
        }
    }
}
