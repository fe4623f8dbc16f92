//! `NOTIFY_SOCKET`: what a service says of itself (sd_notify(3)), one socket a run, so that no message is taken for another's.
//!
//! On Linux the socket is abstract with a random name, which the ledger keeps for a successor, and messages count only from the service's own user, ours, or root. On other
//! Unixes it is a file in the owner-only state directory. Windows has no datagram sockets of this kind: opening fails and says so.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use mainstay_core::engine::Notice;
use tokio::task::AbortHandle;

use super::sys;
use crate::state_dir::StateDir;

/// The longest message that is read; a longer one is cut, as sd_notify(3) senders never need it.
const LONGEST: usize = 4096;

/// A socket that is read until it is dropped.
pub(super) struct NotifySocket {
    address: OsString,
    reader: AbortHandle,
}

impl NotifySocket {
    /// Opens a socket and calls `on` for each notice that arrives there; at the address that the service knows, if it runs already.
    pub(super) fn open(
        state: &StateDir,
        name: &str,
        user: Option<&sys::User>,
        known: Option<&str>,
        on: impl Fn(Notice) + 'static,
    ) -> io::Result<Self> {
        let (address, socket) = platform::bind(state, name, known)?;
        let uid = user.map(sys::User::uid);
        let reader = tokio::task::spawn_local(async move {
            let mut buffer = [0; LONGEST];
            while let Ok(message) = platform::receive(&socket, &mut buffer, uid).await {
                for line in String::from_utf8_lossy(message).lines() {
                    if let Some(notice) = parse(line) {
                        on(notice);
                    }
                }
            }
        });
        Ok(Self {
            address,
            reader: reader.abort_handle(),
        })
    }

    /// The value of `NOTIFY_SOCKET`.
    pub(super) fn address(&self) -> &OsString {
        &self.address
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// One assignment; `None` for those that mean nothing to us.
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
    use std::hash::{BuildHasher as _, RandomState};
    use std::io::{self, IoSliceMut};
    use std::mem::MaybeUninit;

    use rustix::net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
        SocketFlags, SocketType, bind as bind_to, recvmsg, socket_with, sockopt,
    };
    use tokio::net::UnixDatagram;

    use crate::state_dir::StateDir;

    pub(super) type Socket = UnixDatagram;

    pub(super) fn bind(
        _state: &StateDir,
        name: &str,
        known: Option<&str>,
    ) -> io::Result<(OsString, Socket)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_passcred(&socket, true)?;
        let address = match known.and_then(|known| known.strip_prefix('@')) {
            Some(known) => known.to_owned(),
            None => {
                let random = RandomState::new().hash_one(name);
                format!("mainstay/{}/{name}/{random:016x}", std::process::id())
            }
        };
        bind_to(
            &socket,
            &SocketAddrUnix::new_abstract_name(address.as_bytes())?,
        )?;
        Ok((
            format!("@{address}").into(),
            UnixDatagram::from_std(socket.into())?,
        ))
    }

    /// The next message whose sender is `uid`, us, or root. Cancel-safe.
    pub(super) async fn receive<'a>(
        socket: &Socket,
        buffer: &'a mut [u8],
        uid: Option<u32>,
    ) -> io::Result<&'a [u8]> {
        let me = rustix::process::geteuid().as_raw();
        loop {
            let (length, sender) = socket
                .async_io(tokio::io::Interest::READABLE, || {
                    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
                    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
                    let mut slices = [IoSliceMut::new(buffer)];
                    let flags = RecvFlags::CMSG_CLOEXEC;
                    let message = recvmsg(socket, &mut slices, &mut ancillary, flags)?;
                    let sender = ancillary.drain().find_map(|message| match message {
                        RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.uid.as_raw()),
                        _ => None,
                    });
                    Ok((message.bytes, sender))
                })
                .await?;
            if sender.is_some_and(|sender| sender == 0 || sender == me || Some(sender) == uid) {
                return Ok(&buffer[..length]);
            }
        }
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
mod platform {
    use std::ffi::OsString;
    use std::fs;
    use std::io;

    use tokio::net::UnixDatagram;

    use crate::state_dir::StateDir;

    pub(super) type Socket = UnixDatagram;

    pub(super) fn bind(
        state: &StateDir,
        name: &str,
        _known: Option<&str>,
    ) -> io::Result<(OsString, Socket)> {
        let path = state.path().join(format!("notify-{name}.sock"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(&path)?;
        Ok((path.into(), socket))
    }

    pub(super) async fn receive<'a>(
        socket: &Socket,
        buffer: &'a mut [u8],
        _uid: Option<u32>,
    ) -> io::Result<&'a [u8]> {
        let length = socket.recv(buffer).await?;
        Ok(&buffer[..length])
    }
}

#[cfg(windows)]
mod platform {
    use std::ffi::OsString;
    use std::io;

    use crate::state_dir::StateDir;

    pub(super) type Socket = ();

    pub(super) fn bind(
        _state: &StateDir,
        _name: &str,
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
        _uid: Option<u32>,
    ) -> io::Result<&'a [u8]> {
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
