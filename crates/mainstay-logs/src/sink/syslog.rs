//! The local syslog daemon, addressed like syslog(3) does: with datagrams or, if the daemon listens
//! on one, a stream in which a NUL ends each line.

use std::io;
use std::path::PathBuf;

use mainstay_core::log::syslog;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixDatagram, UnixStream};
use tokio::time::timeout;

use super::delivery::{Refusal, STALL_TIMEOUT};
use super::record::Block;
use crate::step::StepError;

/// The maximum length of a message that was refused as too long for a datagram: the length that
/// daemons accept by default.
const SHORT: usize = 8192;

pub(super) struct Local {
    path: PathBuf,
    socket: Option<Socket>,
}

enum Socket {
    Datagram(UnixDatagram),
    Stream(UnixStream),
}

impl Local {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, socket: None }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    pub(super) fn disconnect(&mut self) {
        self.socket = None;
    }

    pub(super) async fn connect(&mut self) -> Result<(), StepError> {
        let socket = self.open().await;
        let step = || format!("connect to {}", self.path.display());
        self.socket = Some(socket.map_err(|error| StepError::new(step(), error))?);
        Ok(())
    }

    async fn open(&self) -> io::Result<Socket> {
        let datagram = UnixDatagram::unbound()?;
        match datagram.connect(&self.path) {
            Ok(()) => Ok(Socket::Datagram(datagram)),
            // The socket has another type.
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::PROTOTYPE.raw_os_error()) =>
            {
                UnixStream::connect(&self.path).await.map(Socket::Stream)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn send(&mut self, block: &mut Block) -> Result<(), Refusal> {
        let sent = match &mut self.socket {
            Some(Socket::Datagram(socket)) => send_datagrams(socket, block).await,
            Some(Socket::Stream(socket)) => send_stream(socket, block).await,
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        sent.map_err(|error| {
            Refusal::connection(&format!("send to {}", self.path.display()), &error)
        })
    }

    pub(super) async fn broken(&mut self) -> Refusal {
        // A datagram socket reports it when the next line is sent, and that line is not lost.
        if let Some(Socket::Stream(stream)) = &self.socket {
            let mut buffer = [0; 64];
            loop {
                let closed = match stream
                    .readable()
                    .await
                    .and_then(|()| stream.try_read(&mut buffer))
                {
                    Ok(0) => return Refusal::Closed,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => error,
                    _ => continue,
                };
                return Refusal::connection(
                    &format!("connection to {}", self.path.display()),
                    &closed,
                );
            }
        }
        std::future::pending().await
    }
}

async fn send_datagrams(socket: &UnixDatagram, block: &mut Block) -> io::Result<()> {
    let too_long = Some(rustix::io::Errno::MSGSIZE.raw_os_error());
    let mut datagram = Vec::new();
    while let Some((line, end)) = block.first() {
        let (facility, service) = (block.source.facility, &block.source.service);
        datagram.clear();
        syslog::local(&line, facility, service, usize::MAX, &mut datagram);
        match timeout(STALL_TIMEOUT, socket.send(&datagram)).await? {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == too_long && line.message.len() > SHORT => {
                datagram.clear();
                syslog::local(&line, facility, service, SHORT, &mut datagram);
                timeout(STALL_TIMEOUT, socket.send(&datagram)).await??;
            }
            Err(error) => return Err(error),
        }
        block.sent_up_to(end);
    }
    Ok(())
}

async fn send_stream(stream: &mut UnixStream, block: &mut Block) -> io::Result<()> {
    let mut record = Vec::new();
    while let Some((line, end)) = block.first() {
        let (facility, service) = (block.source.facility, &block.source.service);
        record.clear();
        syslog::local(&line, facility, service, usize::MAX, &mut record);
        record.push(0);
        timeout(STALL_TIMEOUT, stream.write_all(&record)).await??;
        block.sent_up_to(end);
    }
    Ok(())
}
