//! The registry, and what is installed as it says: manifest, unit files, program.

use mainstay_core::verify::{Claim, Deviation, Evidence, Observation, Source};

use super::{Kind, Target, known};
use crate::deploy::{embedded, registered};

/// Collects the evidence; none for a service that is not installed.
pub(super) fn ask(target: &Target) -> Vec<Evidence> {
    let evidence = match &target.kind {
        Kind::Run => return Vec::new(),
        Kind::Embedded => embedded::registered_evidence_of(&target.state, &target.name),
        Kind::Installed(installed) => installed.registered_evidence_now(),
    };
    evidence.into_iter().map(convert).collect()
}

fn convert(evidence: registered::Evidence) -> Evidence {
    let source = match evidence.name {
        "registry" => Source::Registry,
        name => Source::Registered(name),
    };
    let deviations = evidence.causes.into_iter();
    let claims = deviations.map(|cause| Claim::Deviation(Deviation::Registered(cause)));
    let observation = Observation::new(evidence.observation).claim(claims);
    known(source, evidence.detail.unwrap_or_default(), observation)
}
