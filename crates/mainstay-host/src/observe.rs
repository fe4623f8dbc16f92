//! One look at a service from outside of its supervisor, for cross-checks: its readiness probe, and
//! the processes that have its addresses.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mainstay_core::spec::{self, Probe, Ready, Spec};
use mainstay_sys::Members;

use crate::host::{Asked, ask_probe};
use crate::owner::{self, Place};

pub use crate::owner::Owner;

/// The time limit of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The result of a readiness probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The probe passed.
    Passed,
    /// The probe failed, for the given reason.
    Failed(String),
    /// The probe was not performed, for the given reason.
    Unknown(String),
}

/// Performs the readiness probe of a service once, without starting a program.
pub async fn readiness(spec: &Spec, base_dir: &Path) -> Option<(String, Readiness)> {
    let unasked = |why: &str| Readiness::Unknown(why.to_owned());
    let probe = match spec.start().ready()? {
        Ready::Probe(probe @ Probe::Exec(_)) => {
            let why = "only its supervisor runs a probe command, in the service's environment";
            return Some((probe.to_string(), unasked(why)));
        }
        Ready::Probe(probe) => probe,
        Ready::Log(pattern) => {
            let why = "only its supervisor reads its output line by line";
            return Some((format!("log {pattern}"), unasked(why)));
        }
        Ready::Notify(_) => {
            let why = "the service notifies its supervisor";
            return Some(("notify".to_owned(), unasked(why)));
        }
    };
    let answer = match ask_probe(probe, base_dir, PROBE_TIMEOUT).await {
        Asked::Passed => Readiness::Passed,
        Asked::Failed(why) => Readiness::Failed(why),
        Asked::Unknown(why) => Readiness::Unknown(why),
    };
    Some((probe.to_string(), answer))
}

/// Returns the local TCP addresses on which the service is expected to listen once it is ready: the
/// alternatives that its readiness probe names, unless any process may answer there.
pub fn addresses(spec: &Spec) -> Vec<SocketAddr> {
    let probed = match spec.start().ready() {
        Some(Ready::Probe(Probe::Tcp(address))) => address.literal(),
        Some(Ready::Probe(Probe::Http(url))) => url.address().literal(),
        _ => Vec::new(),
    };
    let is_any = spec.start().owner() == spec::Owner::Any;
    let probed = probed
        .into_iter()
        .filter(|at| at.ip().is_loopback() && !is_any);
    probed.collect()
}

/// Returns the owner of a local address; `None` if nobody listens there, or if that is unknown on
/// this system.
pub fn owner(at: SocketAddr, members: Option<&Members>) -> Option<Owner> {
    let found = owner::of(&Place::Tcp(at), members);
    owner::is_listening(at).then_some(found)
}
