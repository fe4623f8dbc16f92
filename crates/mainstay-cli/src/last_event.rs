//! The reason why a service does not run, from the end of its stored events.
//!
//! Events explain a failure, they do not decide anything: what cannot be read is left out.

use std::io;
use std::time::SystemTime;

use mainstay_core::engine::StateName;
use mainstay_core::events::{LastEvent, StoredEvent};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::report::ServiceReport;
use mainstay_core::spec::ServiceName;
use mainstay_logs::read::Log;
use mainstay_store::state_dir::StateDir;

/// The number of bytes that are read of a log: some hundred events.
const TAIL: usize = 64 << 10;

/// Reads the end of a service's stored events. `place` is the state directory of its supervisor.
pub(crate) fn tail(place: &StateDir, name: &str) -> io::Result<Vec<u8>> {
    Log::open(&place.events_dir().join(name))?.tail(TAIL)
}

/// Returns the events of a service in the end of its stored ones, oldest first. The directory may
/// have been taken from another service.
pub(crate) fn parse<'a>(
    tail: &'a [u8],
    name: &str,
) -> impl DoubleEndedIterator<Item = StoredEvent<'a>> {
    let lines = tail.split(|byte| *byte == b'\n');
    let events = lines.filter_map(StoredEvent::parse);
    events.filter(move |event| event.service == name)
}

/// Returns the event that explains why a service does not run. `place` is the state directory of
/// its supervisor.
fn find(place: &StateDir, name: &str) -> Option<LastEvent> {
    let name = ServiceName::new(name)?;
    let tail = tail(place, name.as_str()).ok()?;
    LastEvent::explaining(parse(&tail, name.as_str()))
}

/// Adds the event to the report of a service whose supervisor does not run, and the time since
/// then.
pub(crate) fn explain(place: &StateDir, report: &mut ServiceReport) {
    use StateName::{Paused, Running, Unknown};
    if report.pid.is_some() || matches!(report.state, Running | Paused | Unknown) {
        return;
    }
    report.last_event = find(place, &report.name);
    let ended = report.last_event.as_ref().filter(|event| !event.is_unseen);
    if let (Some(event), None, true) = (ended, &report.since, report.state.is_settled()) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = now.unwrap_or_default().as_secs();
        let ago = event
            .micros()
            .map(|at| seconds.saturating_sub(at / 1_000_000));
        (report.since, report.since_seconds) = (Some(event.time.clone()), ago);
    }
}

/// Adds the events that explain why the services do not run that a failure is about.
pub(crate) fn note(state: &StateDir, mut failure: Failure) -> Failure {
    for name in failure.services().to_vec() {
        let Some(event) = find(&state.of(&name), &name) else {
            continue;
        };
        // A service may run although the supervisor refused a request.
        let is_relevant = !event.is_unseen || failure.code() == Code::NotRunning;
        if is_relevant && !failure.message().contains(event.reason()) {
            let LastEvent { time, message, .. } = event;
            failure = failure.note(format!("last event of {name}, {time}: {message}"));
        }
    }
    failure
}
