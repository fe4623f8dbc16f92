//! The journal, in its native protocol: an entry is one datagram or, if that is too large, a sealed
//! memory file whose descriptor is sent in one.

use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use mainstay_core::log::journald;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::timeout;

use super::delivery::{Refusal, STALL_TIMEOUT};
use super::record::Block;
use crate::step::StepError;

pub(super) struct Journald {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Journald {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, socket: None }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    pub(super) fn disconnect(&mut self) {
        self.socket = None;
    }

    /// Connects without waiting.
    #[expect(clippy::unused_async, reason = "the same face as all transports")]
    pub(super) async fn connect(&mut self) -> Result<(), StepError> {
        let open = || {
            let socket = UnixDatagram::unbound()?;
            socket.connect(&self.path)?;
            Ok(socket)
        };
        let socket: io::Result<UnixDatagram> = open();
        let step = || format!("connect to {}", self.path.display());
        self.socket = Some(socket.map_err(|error| StepError::new(step(), error))?);
        Ok(())
    }

    pub(super) async fn send(&mut self, block: &mut Block) -> Result<(), Refusal> {
        let sent = match &self.socket {
            Some(socket) => send(socket, block).await,
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        sent.map_err(|error| {
            Refusal::connection(&format!("send to {}", self.path.display()), &error)
        })
    }

    /// Never resolves: a broken connection is detected when the next line is sent, and that line is
    /// not lost.
    pub(super) async fn broken(&mut self) -> Refusal {
        std::future::pending().await
    }
}

async fn send(socket: &UnixDatagram, block: &mut Block) -> io::Result<()> {
    let mut entry = Vec::new();
    while let Some((line, end)) = block.first() {
        entry.clear();
        journald::entry(
            &line,
            block.source.facility,
            &block.source.service,
            &mut entry,
        );
        match timeout(STALL_TIMEOUT, socket.send(&entry)).await? {
            Ok(_) => {}
            Err(error) if is_too_large(&error) => {
                let file = sealed(&entry)?;
                let send = socket.async_io(Interest::WRITABLE, || send_file(socket.as_fd(), &file));
                timeout(STALL_TIMEOUT, send).await??;
            }
            Err(error) => return Err(error),
        }
        block.sent_up_to(end);
    }
    Ok(())
}

fn is_too_large(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::MSGSIZE, Errno::NOBUFS]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

/// Creates a memory file that can no longer be modified, as the journal requires.
fn sealed(entry: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("mainstay-line", flags)?);
    file.write_all(entry)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

fn send_file(socket: BorrowedFd<'_>, file: &File) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [file.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let nothing: [IoSlice<'_>; 0] = [];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &nothing, &mut ancillary, flags)?;
    Ok(())
}
