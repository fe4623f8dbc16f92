//! Detection of other processes that already listen on a service's port.

use std::net::TcpStream;
use std::time::Duration;

use mainstay_core::spec::{Probe, Ready, Spec};

use crate::owner::{self, Owner, Place};

/// The timeout of a loopback connection that is neither accepted nor refused.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(100);

/// Returns a message if another process already answers at the local address of the service's
/// readiness probe. It cannot be the service, and counting it as the service would report a wrong
/// "ready". Names other than `localhost` are not resolved, as that may take long. The message names
/// the process if the system shows it.
pub(crate) fn taken(spec: &Spec) -> Option<String> {
    let address = match spec.start().ready()? {
        Ready::Probe(Probe::Tcp(address)) => address,
        Ready::Probe(Probe::Http(url)) => url.address(),
        _ => return None,
    };
    let at = address.literal().into_iter().find(|at| {
        at.ip().is_loopback() && TcpStream::connect_timeout(at, CONNECT_TIMEOUT).is_ok()
    })?;
    let by = match owner::of(&Place::Tcp(at), None) {
        Owner::Stranger(who) => format!(" by {who}"),
        _ => String::new(),
    };
    Some(format!("{address} is already in use{by}"))
}
