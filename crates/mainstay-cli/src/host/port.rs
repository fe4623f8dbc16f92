//! Whether somebody listens where a service is about to, and who it is.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use mainstay_core::spec::{Probe, Ready, Spec};

/// How long a loopback connection may take that is neither accepted nor refused.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where the service's readiness is asked on this machine and somebody answers already: that cannot be the service, and taking it
/// for the service would be a wrong "ready". The words end in who it is, where the system tells.
pub(super) fn taken(spec: &Spec) -> Option<String> {
    let address = match spec.start().ready()? {
        Ready::Probe(Probe::Tcp(address)) => address,
        Ready::Probe(Probe::Http(url)) => url.address(),
        _ => return None,
    };
    let at = (address.host(), address.port())
        .to_socket_addrs()
        .ok()?
        .find(|at| at.ip().is_loopback() && TcpStream::connect_timeout(at, PATIENCE).is_ok())?;
    let by = listener(at).map_or_else(String::new, |who| format!(" by {who}"));
    Some(format!("{address} is already in use{by}"))
}

/// The process that listens on a local TCP port: the socket's inode from `/proc/net/tcp` (proc(5)), its owner from `/proc/PID/fd`.
/// Only processes that we may look into are found.
#[cfg(target_os = "linux")]
fn listener(at: SocketAddr) -> Option<String> {
    use std::fs;
    let table = if at.is_ipv4() {
        "/proc/net/tcp"
    } else {
        "/proc/net/tcp6"
    };
    let port = format!(":{:04X}", at.port());
    let socket = fs::read_to_string(table).ok()?.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&port) && *fields.get(3)? == "0A";
        listens.then(|| format!("socket:[{}]", fields.get(9).unwrap_or(&"")))
    })?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(process.path().join("fd"))
            .ok()?
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()));
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        holds.then(|| format!("{} (pid {pid})", name.trim_end()))
    })
}

#[cfg(not(target_os = "linux"))]
fn listener(_at: SocketAddr) -> Option<String> {
    None
}
