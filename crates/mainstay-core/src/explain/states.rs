//! States of services and related terms in the output of commands.

use super::{Advice, Explanation, Kind};

/// The terms with one meaning, the meaning, the cause and the action.
const TABLE: &[(&[&str], &str, &str, &str)] = &[
    (
        &["start-pending", "starting"],
        "The program has been started and is not ready yet",
        "Its `ready` condition has not passed. After `start.timeout`, the start counts as failed.",
        "Wait for it with `mainstay status NAME --wait 30s`.",
    ),
    (
        &["stop-pending", "stopping"],
        "The program was asked to stop and has not ended yet",
        "It is completing its work. After `stop.graceful`, it is killed.",
        "Wait, or see its output with `mainstay logs NAME`.",
    ),
    (
        &["pause-pending", "pausing", "paused"],
        "All processes of the service are suspended, or about to be",
        "Somebody ran `mainstay pause`.",
        "Resume it with `mainstay continue NAME`.",
    ),
    (
        &["continue-pending", "resuming"],
        "The processes of a paused service are being resumed",
        "Somebody ran `mainstay continue`.",
        "Wait.",
    ),
    (
        &["running", "ready", "healthy"],
        "The program runs and its `ready` condition has passed; without one, it has been started",
        "The start succeeded.",
        "None is needed.",
    ),
    (
        &["stopped"],
        "The service does not run and is not restarted",
        "It was not started, was stopped on request, or exited with 0.",
        "Start it with `mainstay start NAME`.",
    ),
    (
        &["waiting"],
        "The service has not been started because something that it needs is not ready",
        "A service in `needs`, or a condition in `wait_for`.",
        "See what it waits for in the column WHY of `mainstay status`.",
    ),
    (
        &["backing-off"],
        "The service failed and will be restarted after a delay, which grows with each failure",
        "The program exited, was not ready in time, or stopped answering.",
        "See the reason with `mainstay events NAME`. `mainstay start NAME` starts it at once.",
    ),
    (
        &["crash-looping", "crash-loop"],
        "The service was restarted more often than `recovery.limit` allows. It is still restarted, every `max_delay`",
        "The cause of its failures persists.",
        "Correct the cause: see `mainstay events NAME` and `mainstay logs NAME`.",
    ),
    (
        &["halted"],
        "The service failed and stays down until an operator starts it",
        "Its recovery policy does not restart it, or its restarts are used up.",
        "See the reason with `mainstay events NAME`, correct it, then run `mainstay start NAME`.",
    ),
];

/// Returns the explanation of a term.
pub(super) fn of(term: &str) -> Option<Explanation> {
    let found = TABLE.iter().find(|(terms, ..)| terms.contains(&term));
    found.map(|(_, meaning, cause, action)| Explanation {
        kind: Kind::State,
        number: None,
        name: term.to_owned(),
        meaning: (*meaning).to_owned(),
        advice: Advice {
            cause,
            action,
            example: "mainstay events NAME -n 20",
        },
    })
}

/// Returns all terms.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|(terms, ..)| *terms).copied()
}
