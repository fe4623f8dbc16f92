//! The supervisor of a service, asked over its control socket.

use mainstay_core::engine::StateName;
use mainstay_core::failure::Failure;
use mainstay_core::report::{ServiceReport, StatusReport};
use mainstay_core::verify::{Claim, Deviation, Evidence, Observation, Part, Source};
use mainstay_store::embedded::{self as embedded_store, Desired};
use mainstay_sys::{self as sys, Condition};

use super::{Kind, Target, cgroup, known, unknown};
use crate::client;
use crate::deploy::embedded;
use crate::request_error::RequestError;

/// Collects the evidence; none if the service has no supervisor of its own.
pub(super) fn ask(target: &Target) -> Option<Evidence> {
    if target.is_direct() {
        return None;
    }
    let asked = format!(
        "its control socket, as `mainstay status` does ({})",
        target.state.path().display()
    );
    let evidence = |observation| known(Source::Supervisor, &*asked, observation);
    let cannot = |failure: &Failure| unknown(Source::Supervisor, &*asked, failure.message());
    // It would not answer.
    let holder = target.state.holder();
    let suspended = holder.filter(|pid| sys::condition(*pid) == Condition::Suspended);
    if let Some(pid) = suspended {
        let claims = [
            Claim::Process(Part::Host, Some(pid)),
            Claim::Deviation(Deviation::Suspended(pid)),
        ];
        return Some(evidence(Observation::new("silent").claim(claims)));
    }
    if let Some((pid, file)) = holder.and_then(|pid| Some((pid, cgroup::freezer_of(pid)?))) {
        let claims = [
            Claim::Process(Part::Host, Some(pid)),
            Claim::Deviation(Deviation::Frozen(file)),
        ];
        return Some(evidence(Observation::new("silent").claim(claims)));
    }
    Some(match client::block_on(client::status(&target.state)) {
        Ok(Ok(report)) => evidence(observation(target, &report)),
        Ok(Err(RequestError::NoSupervisor(_))) => {
            let gone = [Claim::NoProcess(Part::Host)];
            let missed = is_missed(target).then_some(Claim::Deviation(Deviation::NoDaemon));
            evidence(Observation::new("no supervisor").claim(gone).claim(missed))
        }
        Ok(Err(RequestError::Denied(failure))) | Err(failure) => cannot(&failure),
        Ok(Err(error)) => {
            let why = Failure::from(error).message().to_owned();
            let silent = Claim::Deviation(Deviation::Silent(why));
            evidence(Observation::new("silent").claim([silent]))
        }
    })
}

/// Returns whether the daemon is to run the service, and was not killed.
fn is_missed(target: &Target) -> bool {
    let (state, name) = (&target.state, target.name.as_str());
    let is_enabled = || embedded_store::read_record(state, name).is_ok_and(|it| it.enabled);
    let is_wanted = || embedded_store::desired(state, name) != Some(Desired::Stopped);
    matches!(target.kind, Kind::Embedded) && is_enabled() && is_wanted()
}

fn observation(target: &Target, report: &StatusReport) -> Observation {
    let host = report.supervisor.as_ref().filter(|it| it.alive);
    let host = host.map(|it| Claim::Process(Part::Host, Some(it.pid)));
    let mut services = report.services.iter();
    let Some(service) = services.find(|it| it.name == target.name) else {
        let mut observation = Observation::new("no such service").claim(host);
        if matches!(target.kind, Kind::Embedded) {
            let why = "the running supervisor does not manage it".to_owned();
            observation = observation.claim([Claim::Deviation(Deviation::Registered(why))]);
        }
        return observation;
    };
    let words = match service.pid {
        Some(pid) => format!("{}, pid {pid}", service.state),
        None => service.state.to_string(),
    };
    Observation::new(words)
        .claim(host)
        .claim(claims(service))
        .claim(outdated(target, service).map(|it| Claim::Deviation(Deviation::Outdated(it))))
}

fn claims(service: &ServiceReport) -> impl Iterator<Item = Claim> {
    let state =
        (service.state != StateName::Unknown).then_some(Claim::State(Part::Program, service.state));
    let pid = service
        .pid
        .map(|pid| Claim::Process(Part::Program, Some(pid)));
    let ready =
        (service.state == StateName::Running && service.ready).then_some(Claim::Ready(Ok(())));
    let detail = || service.detail.clone().unwrap_or_default();
    let crash_looping = service
        .crash_looping
        .then(|| Claim::Deviation(Deviation::CrashLooping(detail())));
    let failed = match service.state {
        StateName::Halted => Some(Deviation::Failed(detail())),
        StateName::BackingOff if !service.crash_looping => Some(Deviation::BackingOff(detail())),
        _ => None,
    };
    let failed = failed.map(Claim::Deviation);
    let blocked = service
        .blocker
        .as_ref()
        .map(|_| Claim::Deviation(Deviation::Blocked(detail())));
    [state, pid, ready, crash_looping, failed, blocked]
        .into_iter()
        .flatten()
}

/// Returns a complaint if the service runs with an earlier definition than the registered one.
fn outdated(target: &Target, report: &ServiceReport) -> Option<String> {
    match &target.kind {
        Kind::Run => None,
        Kind::Embedded => embedded::outdated(&target.state, report),
        Kind::Installed(installed) => installed.outdated(report),
    }
}
