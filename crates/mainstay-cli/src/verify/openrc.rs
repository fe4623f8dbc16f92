//! OpenRC's own tool, rc-service(8).

use mainstay_core::engine::StateName;
use mainstay_core::verify::{Claim, Deviation, Evidence, Observation, Part, Source};

use super::{known, tool, unknown};
use crate::installed::Installed;

/// Collects the evidence.
pub(super) fn ask(installed: &Installed, part: Part) -> Evidence {
    const SOURCE: Source = Source::Tool("rc-service");
    let name = installed.manager_name();
    let asked = format!("rc-service {name} status");
    let output = match tool::run(&["rc-service", name, "status"]) {
        Ok(output) => output,
        Err(why) => return unknown(SOURCE, asked, why),
    };
    // The exit codes of supervise-daemon.sh.
    let (words, state) = match output.code {
        Some(0) => ("started", Some(StateName::Running)),
        Some(3) => ("stopped", Some(StateName::Stopped)),
        Some(4) => ("stopping", Some(StateName::StopPending)),
        Some(8) => ("starting", Some(StateName::StartPending)),
        Some(32) => ("crashed", Some(StateName::Stopped)),
        Some(64) => ("unsupervised", None),
        _ => return unknown(SOURCE, asked, "its exit code is not understood"),
    };
    let unwatched = Claim::Deviation(Deviation::Unwatched("supervise-daemon"));
    let claims = state.map(|state| Claim::of_unit(part, state, None));
    let observation = Observation::new(words).claim(claims.into_iter().flatten());
    known(
        SOURCE,
        asked,
        observation.claim(state.is_none().then_some(unwatched)),
    )
}
