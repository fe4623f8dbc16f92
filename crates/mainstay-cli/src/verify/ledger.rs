//! The file in which a supervisor records its services for its successor, read without asking it.

use mainstay_core::engine::StateName;
use mainstay_core::verify::{Claim, Deviation, Evidence, Observation, Part, Source};
use mainstay_store::ledger::{Entry, LedgerSnapshot, State};
use mainstay_sys::Identity;

use super::{Target, known, unknown};

/// The evidence, and the process tree of the service as the ledger names it.
#[derive(Default)]
pub(super) struct Recorded {
    pub(super) evidence: Option<Evidence>,
    pub(super) tree: Option<Identity>,
}

/// Collects the evidence; none if the service has no supervisor of its own.
pub(super) fn ask(target: &Target) -> Recorded {
    if target.is_direct() {
        return Recorded::default();
    }
    let asked = target.state.ledger_path().display().to_string();
    let only = |evidence| Recorded {
        evidence: Some(evidence),
        tree: None,
    };
    let snapshot = match LedgerSnapshot::read(&target.state) {
        Ok(Some(snapshot)) => snapshot,
        Ok(None) => {
            let why = "there is none from the current boot";
            return only(unknown(Source::Ledger, asked, why));
        }
        Err(error) => return only(unknown(Source::Ledger, asked, error.to_string())),
    };
    let pid = snapshot.header.supervisor;
    let host = if snapshot.is_kept() {
        Claim::Process(Part::Host, Some(pid))
    } else {
        Claim::NoProcess(Part::Host)
    };
    let mut entries = snapshot.entries.iter();
    let Some(entry) = entries.find(|it| it.name == target.name) else {
        let observation = Observation::new("no entry").claim([host]);
        return only(known(Source::Ledger, asked, observation));
    };
    let orphaned = (!snapshot.is_kept()).then(|| {
        let command = match (target.installed(), snapshot.is_of_installed()) {
            (Some(_), _) => format!("mainstay start {}", target.name),
            (None, true) => "mainstay daemon".to_owned(),
            (None, false) => format!("mainstay run {}", snapshot.header.manifest),
        };
        let is_alive = entry.living().is_some();
        Claim::Deviation(Deviation::Orphaned {
            pid,
            is_alive,
            command,
        })
    });
    let observation = observation(entry).claim([host]).claim(orphaned);
    Recorded {
        evidence: Some(known(Source::Ledger, asked, observation)),
        tree: entry.main(),
    }
}

fn observation(entry: &Entry) -> Observation {
    let state = match entry.state {
        State::Due if entry.why.is_some() && !entry.unwanted => Some(StateName::BackingOff),
        State::Due if entry.unwanted => Some(StateName::Stopped),
        State::Due | State::Ended => None,
        State::Completed => Some(StateName::Stopped),
        State::Halted => Some(StateName::Halted),
        State::Starting => Some(StateName::StartPending),
        State::Running => Some(StateName::Running),
        State::Paused => Some(StateName::Paused),
        State::Stopping | State::Failing => Some(StateName::StopPending),
    };
    let runs = matches!(
        entry.state,
        State::Starting | State::Running | State::Paused | State::Stopping | State::Failing
    );
    let pid = entry.child.as_ref().filter(|_| runs).map(|it| it.pid);
    let words = match (state, pid) {
        (Some(state), Some(pid)) => format!("{state}, pid {pid}"),
        (Some(state), None) => state.to_string(),
        (None, _) => "between two runs".to_owned(),
    };
    // A service that has completed is neither wanted nor unwanted.
    let wanted = (entry.state != State::Completed).then_some(Claim::Wanted(!entry.unwanted));
    Observation::new(words)
        .claim(state.map(|state| Claim::State(Part::Program, state)))
        .claim(pid.map(|pid| Claim::Process(Part::Program, Some(pid))))
        .claim(wanted)
}
