//! The transports to a target, behind one interface.

use std::io;
use std::path::Path;

use mainstay_core::log::syslog::host_name;
use mainstay_core::spec::{SinkSpec, SinkTarget};

use super::delivery::Refusal;
#[cfg(target_os = "linux")]
use super::journald::Journald;
use super::record::Block;
use super::stream::Remote;
#[cfg(unix)]
use super::syslog::Local;
use super::udp::Udp;
use crate::step::StepError;

pub(super) enum Transport {
    #[cfg(target_os = "linux")]
    Journald(Journald),
    #[cfg(unix)]
    Local(Local),
    Udp(Udp),
    Remote(Remote),
}

/// Calls the same method of each transport.
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
    /// Creates the transport.
    ///
    /// # Errors
    /// If this system does not support it.
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
            other => Err(io::Error::other(format!(
                "{other} is not supported on this system"
            ))),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        each!(self, transport => transport.is_connected())
    }

    /// Connects, within [`CONNECT_TIMEOUT`](super::delivery::CONNECT_TIMEOUT) per address.
    pub(super) async fn connect(&mut self) -> Result<(), StepError> {
        each!(self, transport => transport.connect().await)
    }

    /// Sends the rest of `block`, and marks in it the lines that were passed to the target's side
    /// of the connection. If the future is dropped early, lines in the middle of being sent are not
    /// marked.
    pub(super) async fn send(&mut self, block: &mut Block) -> Result<(), Refusal> {
        each!(self, transport => transport.send(block).await)
    }

    /// Waits until the connection breaks; forever if there is none.
    pub(super) async fn broken(&mut self) -> Refusal {
        each!(self, transport => transport.broken().await)
    }

    pub(super) fn disconnect(&mut self) {
        each!(self, transport => transport.disconnect());
    }

    /// Closes the connection in an orderly way, if the transport has one.
    pub(super) async fn finish(&mut self) {
        if let Self::Remote(remote) = self {
            remote.finish().await;
        }
    }
}

/// Returns this machine's name, for headers.
pub fn this_host() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    host_name(&name)
}
