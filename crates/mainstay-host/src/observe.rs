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

/// Returns the readiness condition of a service as text, without what may be secret.
pub fn shown(spec: &Spec) -> Option<String> {
    Some(match spec.start().ready()? {
        Ready::Probe(Probe::Http(url)) => url.without_query(),
        Ready::Probe(probe) => probe.to_string(),
        Ready::Log(pattern) => format!("log {pattern}"),
        Ready::Notify(_) => "notify".to_owned(),
    })
}

/// Performs the readiness probe of a service once, without starting a program. `None` if it has no
/// readiness condition.
pub async fn readiness(spec: &Spec, base_dir: &Path) -> Option<Readiness> {
    let unasked = |why: &str| Some(Readiness::Unknown(why.to_owned()));
    let probe = match spec.start().ready()? {
        Ready::Probe(Probe::Exec(_)) => {
            return unasked("only its supervisor runs a probe command, in its environment");
        }
        Ready::Probe(probe) => probe,
        Ready::Log(_) => return unasked("only its supervisor reads its output line by line"),
        Ready::Notify(_) => return unasked("the service notifies its supervisor"),
    };
    Some(match ask_probe(probe, base_dir, PROBE_TIMEOUT).await {
        Asked::Passed => Readiness::Passed,
        Asked::Failed(why) => Readiness::Failed(why),
        Asked::Unknown(why) => Readiness::Unknown(why),
    })
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
