//! The progress of verbs that wait for services, as their supervisors report it.

use std::time::Duration;

use mainstay_core::engine::TrialPhase;
use mainstay_core::report::ServiceReport;
use mainstay_host::progress::Progress;
use mainstay_store::state_dir::StateDir;

use crate::client;

/// The time limit for the report of a supervisor. A later one is not shown.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Shows the first of these services that has not settled, until the value is dropped, and
/// otherwise what is being done to them. No names stand for all services.
pub(crate) fn of_services(state: &StateDir, doing: &str, names: &[String]) -> Option<Progress> {
    let mut places: Vec<StateDir> = names.iter().map(|name| state.of(name)).collect();
    places.push(state.clone());
    places.dedup_by(|one, other| one.path() == other.path());
    let names = names.to_vec();
    let what = if names.is_empty() {
        format!("{doing} all services")
    } else {
        format!("{doing} {}", names.join(", "))
    };
    Progress::begin(move || {
        let pending = places.iter().find_map(|place| pending(place, &names));
        pending.unwrap_or_else(|| what.clone())
    })
}

fn pending(place: &StateDir, names: &[String]) -> Option<String> {
    let report = async { tokio::time::timeout(TIMEOUT, client::status(place)).await };
    let report = client::block_on(report).ok()?.ok()?.ok()?;
    let is_meant = |it: &&ServiceReport| names.is_empty() || names.contains(&it.name);
    report.services.iter().filter(is_meant).find_map(describe)
}

/// Returns what happens to a service, unless it has settled.
fn describe(service: &ServiceReport) -> Option<String> {
    let name = &service.name;
    if let Some(update) = &service.update {
        let phase = match update.phase {
            TrialPhase::Stop => "stopping the old run",
            TrialPhase::Snapshot => "taking a snapshot",
            TrialPhase::Start => "starting",
            TrialPhase::Ready => "waiting until it is ready",
            TrialPhase::Canary => "in its canary",
            TrialPhase::Trial => "committing",
            TrialPhase::RollBack => "rolling back",
        };
        return Some(format!("{name}: {phase}"));
    }
    let state = service.state;
    (!state.is_settled()).then(|| match service.remark() {
        Some(why) => format!("{name}: {state}: {why}"),
        None => format!("{name}: {state}"),
    })
}
