//! The registry, and what is installed as it says: manifest, unit files, program.

use mainstay_core::verify::{Claim, Deviation, Evidence, Observation, Source};

use super::{Defined, Kind, Target, known};
use crate::deploy::{embedded, registered};

/// Collects the evidence; none for a service that is not installed.
pub(super) fn ask(target: &Target) -> Vec<Evidence> {
    let evidence = match &target.kind {
        Kind::Run => return Vec::new(),
        Kind::Embedded => embedded::registered_evidence(&target.state, &target.name),
        Kind::Installed(installed) => installed.registered_evidence(),
    };
    evidence.into_iter().map(convert).collect()
}

fn convert(evidence: registered::Evidence) -> Evidence {
    let registered::Evidence {
        name, causes, hint, ..
    } = evidence;
    let (source, is_unreadable) = match name {
        "registry" => (Source::Registry, evidence.observation == "unreadable"),
        name => (Source::Registered(name), false),
    };
    let deviation = |cause| match name {
        "registry" if is_unreadable => Deviation::Unreadable(cause, hint.clone()),
        "program" => Deviation::Program(cause),
        _ => Deviation::Registered(cause),
    };
    let is_cause = evidence
        .detail
        .as_ref()
        .is_some_and(|it| causes.contains(it));
    let detail = evidence.detail.filter(|_| !is_cause);
    let claims: Vec<Claim> = causes
        .into_iter()
        .map(|it| Claim::Deviation(deviation(it)))
        .collect();
    let observation = Observation::new(evidence.observation).claim(claims);
    known(
        source,
        "",
        Observation {
            detail,
            ..observation
        },
    )
}

/// Adds that the program of a service is missing, if it could not be registered either.
pub(super) fn look_for_program(defined: &Defined, evidence: &mut [Evidence]) {
    let is_unregistered = |it: &&mut Evidence| {
        let words = it.answer.as_ref().map(|it| it.words.as_str());
        it.source == Source::Registered("program") && words == Ok("not registered")
    };
    let Some(found) = evidence.iter_mut().find(is_unregistered) else {
        return;
    };
    let program = defined.spec.command().program();
    if registered::program(&defined.spec, &defined.base_dir).is_none() {
        let cause = format!("the program {program} cannot be found or read");
        let missing = Claim::Deviation(Deviation::Program(cause));
        found.answer = Ok(Observation::new("not registered").claim([missing]));
    }
}
