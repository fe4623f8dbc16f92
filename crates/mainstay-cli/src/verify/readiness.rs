//! The service as its clients see it: its readiness probe, and who listens on its addresses.

use mainstay_core::engine::StateName;
use mainstay_core::verify::{Claim, Deviation, Evidence, Observation, Part, Source};
use mainstay_host::observe::{self, Owner, Readiness};
use mainstay_sys::Members;

use super::{Defined, claims, known, unknown};
use crate::client;

/// Collects the evidence; none if the service has no readiness condition.
pub(super) fn ask(
    defined: &Defined,
    members: Option<&Members>,
    evidence: &[Evidence],
) -> Vec<Evidence> {
    let is_up = is_up(evidence);
    let addresses = sockets(defined, members, is_up);
    if is_paused(evidence) {
        let probe = observe::shown(&defined.spec).map(|asked| {
            let why = "not asked: the program is paused, or was stopped or frozen from outside";
            unknown(Source::Readiness, asked, why)
        });
        return addresses.into_iter().chain(probe).collect();
    }
    let asked = observe::shown(&defined.spec).unwrap_or_default();
    let answer = client::block_on(observe::readiness(&defined.spec, &defined.base_dir));
    let readiness = match answer {
        Ok(None) => None,
        Ok(Some(Readiness::Passed)) => {
            let observation = Observation::new("passed").claim([Claim::Ready(Ok(()))]);
            Some(known(Source::Readiness, asked, observation))
        }
        Ok(Some(Readiness::Failed(why))) => {
            let failed = Claim::Ready(Err(why.clone()));
            let observation = Observation::new(format!("failed: {why}")).claim([failed]);
            Some(known(Source::Readiness, asked, observation))
        }
        Ok(Some(Readiness::Unknown(why))) => Some(unknown(Source::Readiness, asked, why)),
        Err(failure) => Some(unknown(Source::Readiness, asked, failure.message())),
    };
    addresses.into_iter().chain(readiness).collect()
}

fn is_paused(evidence: &[Evidence]) -> bool {
    claims(evidence).any(|claim| matches!(claim, Claim::State(Part::Program, StateName::Paused)))
}

/// Returns whether a source reports the program as running.
fn is_up(evidence: &[Evidence]) -> bool {
    claims(evidence).any(|claim| {
        matches!(
            claim,
            Claim::State(Part::Program, StateName::Running) | Claim::Ready(Ok(()))
        )
    })
}

/// Returns who listens on the alternatives of the address of the readiness probe.
fn sockets(defined: &Defined, members: Option<&Members>, is_up: bool) -> Option<Evidence> {
    let addresses = observe::addresses(&defined.spec);
    let first = *addresses.first()?;
    const SOURCE: Source = Source::Sockets;
    let asked = if cfg!(target_os = "linux") {
        "/proc/net/tcp"
    } else {
        "the table of sockets"
    };
    if !cfg!(target_os = "linux") {
        return Some(unknown(
            SOURCE,
            asked,
            "this system does not show who listens",
        ));
    }
    let owners = addresses
        .iter()
        .map(|at| (at, observe::owner(*at, members)));
    let owners: Vec<_> = owners.collect();
    if let Some((at, _)) = owners.iter().find(|(_, it)| *it == Some(Owner::Ours)) {
        let program = Claim::Process(Part::Program, None);
        let observation = Observation::new(format!("{at} belongs to it")).claim([program]);
        return Some(known(SOURCE, asked, observation));
    }
    let stranger = owners.iter().find_map(|(at, owner)| match owner {
        Some(Owner::Stranger(who)) => Some((at, who)),
        _ => None,
    });
    if let Some((at, who)) = stranger {
        let address = at.to_string();
        let observation = Observation::new(format!("{address} belongs to {who}"));
        // Without the criteria for its processes, it may be the service itself.
        let foreign = members.is_some() || !is_up;
        let who = who.clone();
        let deviation = Claim::Deviation(Deviation::PortOfAnother { address, who });
        return Some(known(
            SOURCE,
            asked,
            observation.claim(foreign.then_some(deviation)),
        ));
    }
    if owners.iter().any(|(_, owner)| owner.is_some()) {
        let why = format!("this process may not see which process has {first}");
        return Some(unknown(SOURCE, asked, why));
    }
    let address = first.to_string();
    let observation = Observation::new(format!("no process listens on {address}"));
    let silent = is_up.then_some(Claim::Deviation(Deviation::NotListening(address)));
    Some(known(SOURCE, asked, observation.claim(silent)))
}
