//! The stored events of a service.

use mainstay_core::events::StoredEvent;
use mainstay_core::verify::{Claim, Evidence, Observation, Part, Source};

use super::{Target, known, unknown};
use crate::last_event;

/// Collects the evidence; none if the service has no supervisor that stores events.
pub(super) fn ask(target: &Target) -> Option<Evidence> {
    if target.is_direct() {
        return None;
    }
    let dir = target.state.events_dir().join(&target.name);
    let asked = dir.display().to_string();
    let tail = match last_event::tail(&target.state, &target.name) {
        Ok(tail) => tail,
        Err(error) => return Some(unknown(Source::Events, asked, error.to_string())),
    };
    // A trial of a new definition has events of its own.
    let events = last_event::parse(&tail, &target.name).rev();
    let mut events = events.filter(|event| event.role.is_none());
    let last = events.find_map(|event| {
        let is_up = meaning(&event)?;
        Some((event, is_up))
    });
    Some(match last {
        Some((event, is_up)) => {
            let claim = match is_up {
                Some(true) => Some(Claim::Process(Part::Program, None)),
                Some(false) => Some(Claim::NoProcess(Part::Program)),
                None => None,
            };
            let words = format!("{} ({})", event.message, event.stamp);
            known(Source::Events, asked, Observation::new(words).claim(claim))
        }
        None => unknown(
            Source::Events,
            asked,
            "none of its last events is about its state",
        ),
    })
}

/// Returns whether the program runs after an event, or `None` in the inner option if that is open.
/// Events without a meaning for the state are `None`.
fn meaning(event: &StoredEvent<'_>) -> Option<Option<bool>> {
    match &*event.event {
        "updated" if !event.is_tried => None,
        "started" | "adopted" | "ready" | "recovered" | "paused" | "continued" | "passed"
        | "missed" | "updated" => Some(Some(true)),
        "stopped" | "exited" | "halted" | "backing-off" => Some(Some(false)),
        "waiting" | "waiting-for" | "failed" | "stopping" | "killing" | "crash-looping"
        | "updating" | "trial" => Some(None),
        _ => None,
    }
}
