//! Syslog over UDP (RFC 5426): one line per datagram, truncated at [`syslog::UDP_MAX`].
//!
//! Losses on the network are not detected. Datagrams that the receiver's host rejects (ICMP) are
//! counted, and sending continues. Lines that this machine itself cannot send, for lack of a name
//! or a route, stay queued as for any target.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use mainstay_core::log::syslog;
use mainstay_core::spec::{HostPort, ServiceName};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::Lost;
use super::delivery::{CONNECT_TIMEOUT, Refusal, STALL_TIMEOUT};
use super::record::Block;
use crate::step::StepError;
use mainstay_sys::aside::resolve;

pub(super) struct Udp {
    address: HostPort,
    host: String,
    socket: Option<UdpSocket>,
    /// The line sent last, to which a refusal refers.
    last: Option<(ServiceName, Lost)>,
}

impl Udp {
    pub(super) fn new(address: HostPort, host: String) -> Self {
        Self {
            address,
            host,
            socket: None,
            last: None,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    pub(super) fn disconnect(&mut self) {
        self.socket = None;
        self.last = None;
    }

    pub(super) async fn connect(&mut self) -> Result<(), StepError> {
        let socket = self.open().await;
        let step = || format!("connect to {}", self.address);
        self.socket = Some(socket.map_err(|error| StepError::new(step(), error))?);
        Ok(())
    }

    async fn open(&self) -> io::Result<UdpSocket> {
        let found = resolve(self.address.host(), self.address.port());
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in timeout(CONNECT_TIMEOUT, found).await??? {
            let socket = if address.is_ipv4() {
                UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?
            } else {
                UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await?
            };
            match socket.connect(address).await {
                Ok(()) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) async fn send(&mut self, block: &mut Block) -> Result<(), Refusal> {
        let Some(socket) = &self.socket else {
            let error = io::ErrorKind::NotConnected.into();
            return Err(Refusal::connection("send", &error));
        };
        let mut datagram = Vec::new();
        while let Some((line, end)) = block.first() {
            datagram.clear();
            let (facility, service) = (block.source.facility, &block.source.service);
            let max = syslog::UDP_MAX;
            syslog::rfc5424(&line, facility, &self.host, service, max, &mut datagram);
            let lost = Lost {
                lines: 1,
                bytes: line.message.len() as u64,
            };
            let sent = timeout(STALL_TIMEOUT, socket.send(&datagram)).await;
            match sent.map_err(io::Error::from).flatten() {
                Ok(_) => {
                    self.last = Some((service.clone(), lost));
                    block.sent_up_to(end);
                }
                Err(error) => return Err(refusal(&self.address, &mut self.last, &error)),
            }
        }
        Ok(())
    }

    pub(super) async fn broken(&mut self) -> Refusal {
        let Some(socket) = &self.socket else {
            return std::future::pending().await;
        };
        loop {
            // Received data is not part of the protocol; only errors matter.
            if let Err(error) = socket.recv(&mut [0; 16]).await {
                return refusal(&self.address, &mut self.last, &error);
            }
        }
    }
}

fn refusal(
    address: &HostPort,
    last: &mut Option<(ServiceName, Lost)>,
    error: &io::Error,
) -> Refusal {
    // Windows reports a rejected datagram as a reset.
    let kinds = [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::ConnectionReset,
    ];
    if kinds.contains(&error.kind()) {
        Refusal::Datagram {
            lost: last.take().into_iter().collect(),
            cause: format!("send to {address}: {error}"),
        }
    } else {
        Refusal::connection(&format!("send to {address}"), error)
    }
}
