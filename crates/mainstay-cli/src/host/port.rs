//! Whether somebody listens where a service is about to, and who it is.

use std::net::TcpStream;
use std::time::Duration;

use mainstay_core::spec::{Probe, Ready, Spec};

use super::owner::{self, Owner, Place};

/// How long a loopback connection may take that is neither accepted nor refused.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where the service's readiness is asked on this machine and somebody answers already: that cannot be the service, and taking it
/// for the service would be a wrong "ready". A name other than `localhost` is not looked up, as that may take its time. The words end in who it is, where the system tells.
pub(super) fn taken(spec: &Spec) -> Option<String> {
    let address = match spec.start().ready()? {
        Ready::Probe(Probe::Tcp(address)) => address,
        Ready::Probe(Probe::Http(url)) => url.address(),
        _ => return None,
    };
    let at = address
        .literal()
        .into_iter()
        .find(|at| at.ip().is_loopback() && TcpStream::connect_timeout(at, PATIENCE).is_ok())?;
    let by = match owner::of(&Place::Tcp(at), None) {
        Owner::Stranger(who) => format!(" by {who}"),
        _ => String::new(),
    };
    Some(format!("{address} is already in use{by}"))
}
