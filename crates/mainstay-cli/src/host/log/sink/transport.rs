//! The ways to a target, behind one face.

use std::io;
use std::path::Path;
use std::time::Duration;

use mainstay_core::log::syslog::host_name;
use mainstay_core::spec::{ServiceName, SinkSpec, SinkTarget};

use super::Lost;
#[cfg(target_os = "linux")]
use super::journald::Journald;
use super::record::Block;
use super::stream::Remote;
#[cfg(unix)]
use super::syslog::Local;
use super::udp::Udp;

/// A connection has to be there after this.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// A target that takes nothing for so long is as good as gone.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) enum Transport {
    #[cfg(target_os = "linux")]
    Journald(Journald),
    #[cfg(unix)]
    Local(Local),
    Udp(Udp),
    Remote(Remote),
}

/// Why something was not sent.
pub(super) enum Refusal {
    /// Not over this connection any more. What is not marked as sent was not, or not in whole.
    Connection { cause: String },
    /// The target ended the connection in good order: nothing is known to be wrong with it.
    Closed,
    /// The target said that it did not take earlier datagrams; what is not marked as sent was not.
    Datagram {
        lost: Vec<(ServiceName, Lost)>,
        cause: String,
    },
}

impl Refusal {
    pub(super) fn connection(what: &str, error: &io::Error) -> Self {
        let cause = format!("{what}: {error}");
        Self::Connection { cause }
    }
}

/// The same for each.
macro_rules! each {
    ($self:expr, $transport:ident => $do:expr) => {
        match $self {
            #[cfg(target_os = "linux")]
            Transport::Journald($transport) => $do,
            #[cfg(unix)]
            Transport::Local($transport) => $do,
            Transport::Udp($transport) => $do,
            Transport::Remote($transport) => $do,
        }
    };
}

impl Transport {
    /// Fails where this system has no such thing.
    pub(super) fn new(spec: &SinkSpec, manifest_dir: &Path) -> io::Result<Self> {
        match spec.target() {
            #[cfg(target_os = "linux")]
            SinkTarget::Journald(path) => Ok(Self::Journald(Journald::new(path.clone()))),
            #[cfg(unix)]
            SinkTarget::Unix(path) => Ok(Self::Local(Local::new(path.clone()))),
            SinkTarget::Udp(address) => Ok(Self::Udp(Udp::new(address.clone(), this_host()))),
            SinkTarget::Tcp(address) => Ok(Self::Remote(Remote::new(address, None, this_host()))),
            SinkTarget::Tls(address) => {
                let tls = super::stream::Tls::new(spec, manifest_dir);
                Ok(Self::Remote(Remote::new(address, Some(tls), this_host())))
            }
            #[cfg(not(target_os = "linux"))]
            other => Err(io::Error::other(format!("{other} is not on this system"))),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        each!(self, transport => transport.is_connected())
    }

    /// Bounded by [`CONNECT`] for each address. The error is a chain.
    pub(super) async fn connect(&mut self) -> Result<(), String> {
        each!(self, transport => transport.connect().await)
    }

    /// Sends what is left of `block`, and marks in it what the target's side of the connection has been given. Where it is dropped before it is done, what was in
    /// the middle of being sent is not marked.
    pub(super) async fn send(&mut self, block: &mut Block) -> Result<(), Refusal> {
        each!(self, transport => transport.send(block).await)
    }

    /// Waits until the connection breaks by itself; forever if there is none.
    pub(super) async fn broken(&mut self) -> Refusal {
        each!(self, transport => transport.broken().await)
    }

    pub(super) fn disconnect(&mut self) {
        each!(self, transport => transport.disconnect());
    }

    /// Ends the connection in good order, if it has an order.
    pub(super) async fn finish(&mut self) {
        if let Self::Remote(remote) = self {
            remote.finish().await;
        }
    }
}

/// This machine's name, for headers.
pub(crate) fn this_host() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    host_name(&name)
}
