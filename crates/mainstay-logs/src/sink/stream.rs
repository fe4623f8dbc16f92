//! Syslog over TCP (RFC 6587, octet counting) and TLS (RFC 5425).
//!
//! The protocol has no acknowledgement: lines that the system accepted and the receiver did not
//! read before a connection broke are lost without notice. A closed connection is therefore
//! detected before the next line is written to it. Lines that the system did not accept are sent
//! again over the next connection, from the first incompletely written line. Over TLS, which writes
//! records, they are sent again from the first line of the last write (at most [`CHUNK`] bytes
//! arrive twice).

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mainstay_core::log::syslog;
use mainstay_core::spec::{HostPort, SinkSpec};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::delivery::{CONNECT_TIMEOUT, Refusal, STALL_TIMEOUT};
use super::record::Block;
use crate::step::StepError;
use crate::tls;
use mainstay_sys::aside::resolve;

/// The number of bytes written at once.
const CHUNK: usize = 16 << 10;
/// The time for which a new TLS connection is read before it is used: a TLS 1.3 receiver can refuse
/// the client after the client has completed the handshake.
const LISTEN: Duration = Duration::from_millis(250);

/// A connection to a log host.
pub(super) struct Remote {
    address: HostPort,
    tls: Option<Tls>,
    host: String,
    wire: Option<Wire>,
}

/// The trust anchors and the client identity.
pub(super) struct Tls {
    ca: Option<PathBuf>,
    /// The paths of the certificate chain and the key.
    identity: Option<(PathBuf, PathBuf)>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Tls {
    pub(super) fn new(spec: &SinkSpec, manifest_dir: &Path) -> Self {
        let identity = spec.identity();
        Self {
            ca: spec.ca().map(|path| manifest_dir.join(path)),
            identity: identity.map(|identity| {
                let cert_path = manifest_dir.join(identity.cert_path());
                (cert_path, manifest_dir.join(identity.key_path()))
            }),
        }
    }

    /// Creates the configuration. Reads the files each time, because they may have been renewed.
    fn config(&self) -> Result<ClientConfig, StepError> {
        let roots = tls::roots(self.ca.as_deref())?;
        let builder = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| StepError::new("set up TLS".to_owned(), error))?
            .with_root_certificates(roots);
        let Some((cert_path, key_path)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let key = tls::private_key(key_path)?;
        builder
            .with_client_auth_cert(tls::certificates(cert_path)?, key)
            .map_err(|error| StepError::new(format!("use cert {}", cert_path.display()), error))
    }
}

impl Remote {
    pub(super) fn new(address: &HostPort, tls: Option<Tls>, host: String) -> Self {
        Self {
            address: address.clone(),
            tls,
            host,
            wire: None,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.wire.is_some()
    }

    pub(super) fn disconnect(&mut self) {
        self.wire = None;
    }

    pub(super) async fn connect(&mut self) -> Result<(), StepError> {
        let address = &self.address;
        let stream = connect(address)
            .await
            .map_err(|error| StepError::new(format!("connect to {address}"), error))?;
        let Some(tls) = &self.tls else {
            self.wire = Some(Wire::Plain(stream));
            return Ok(());
        };
        let config = tls.config()?;
        let step = || format!("TLS with {address}");
        let name = ServerName::try_from(address.host().to_owned());
        let name = name.map_err(|error| StepError::new(step(), error))?;
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let handshake = timeout(CONNECT_TIMEOUT, handshake).await;
        let stream = handshake.map_err(|error| StepError::new(step(), error))?;
        let stream = stream.map_err(|error| StepError::new(step(), error))?;
        let mut wire = Wire::Tls(Box::new(stream));
        if let Ok(closed) = timeout(LISTEN, wire.closed()).await {
            return Err(StepError::new(step(), closed));
        }
        self.wire = Some(wire);
        Ok(())
    }

    pub(super) async fn send(&mut self, block: &mut Block) -> Result<(), Refusal> {
        let Some(wire) = &mut self.wire else {
            let error = io::ErrorKind::NotConnected.into();
            return Err(Refusal::connection("send", &error));
        };
        let (host, address) = (&self.host, &self.address);
        let (mut scratch, mut message) = (Vec::new(), Vec::new());
        let mut frames = Vec::new();
        while !block.rest().is_empty() {
            scratch.clear();
            frames.clear();
            for (line, end) in block.lines() {
                message.clear();
                let source = &block.source;
                let (facility, service) = (source.facility, &source.service);
                syslog::rfc5424(&line, facility, host, service, usize::MAX, &mut message);
                scratch.extend_from_slice(format!("{} ", message.len()).as_bytes());
                scratch.extend_from_slice(&message);
                frames.push((scratch.len(), end));
                if scratch.len() >= CHUNK {
                    break;
                }
            }
            if frames.is_empty() {
                break; // no readable line is left
            }
            // Nothing is written to a closed connection, even if the system would still accept
            // bytes.
            let closed = tokio::select! {
                biased;
                closed = wire.closed() => Err(closed),
                () = std::future::ready(()) => Ok(()),
            };
            let written = match closed {
                Ok(()) => wire.write_frames(&scratch, &frames, block).await,
                Err(closed) => Err(closed),
            };
            written.map_err(|error| Refusal::connection(&format!("write to {address}"), &error))?;
        }
        Ok(())
    }

    pub(super) async fn broken(&mut self) -> Refusal {
        match &mut self.wire {
            Some(wire) => {
                let closed = wire.closed().await;
                if closed.kind() == io::ErrorKind::UnexpectedEof {
                    return Refusal::Closed;
                }
                Refusal::connection(&format!("connection to {}", self.address), &closed)
            }
            None => std::future::pending().await,
        }
    }

    pub(super) async fn finish(&mut self) {
        if let Some(wire) = &mut self.wire {
            let _it_ends_either_way: Result<io::Result<()>, _> =
                timeout(Duration::from_secs(1), wire.shutdown()).await;
        }
        self.wire = None;
    }
}

async fn connect(address: &HostPort) -> io::Result<TcpStream> {
    let found = resolve(address.host(), address.port());
    let found = timeout(CONNECT_TIMEOUT, found).await???;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in found {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // Detects a vanished receiver even if nothing is sent.
        socket.set_keepalive(true)?;
        match timeout(CONNECT_TIMEOUT, socket.connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                keep_alive(&stream)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Probes an idle receiver after a minute, and gives up half a minute later.
#[cfg(target_os = "linux")]
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn keep_alive(_: &TcpStream) -> io::Result<()> {
    Ok(())
}

impl Wire {
    /// Writes frames and marks accepted ones as sent in `block`. `frames` contains the end of each
    /// one in `bytes` and in the block.
    async fn write_frames(
        &mut self,
        bytes: &[u8],
        frames: &[(usize, usize)],
        block: &mut Block,
    ) -> io::Result<()> {
        let mut frames = frames.iter().peekable();
        let mut mark = |written: usize| {
            while let Some((_, end)) = frames.next_if(|(end, _)| *end <= written) {
                block.sent_up_to(*end);
            }
        };
        let mut written = 0;
        while written < bytes.len() {
            let taken = timeout(STALL_TIMEOUT, self.write(&bytes[written..])).await??;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            written += taken;
            if let Self::Plain(_) = self {
                mark(written);
            }
        }
        // TLS may have accepted bytes without writing them yet.
        timeout(STALL_TIMEOUT, self.flush()).await??;
        mark(written);
        Ok(())
    }

    /// Waits until the other side closes the connection. Received bytes are ignored: syslog has no
    /// replies.
    async fn closed(&mut self) -> io::Error {
        let mut buffer = [0; 512];
        loop {
            match self.read(&mut buffer).await {
                Ok(0) => {
                    let kind = io::ErrorKind::UnexpectedEof;
                    return io::Error::new(kind, "closed by the receiver");
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
