//! runit's own tool, sv(8).

use std::path::{Path, PathBuf};

use mainstay_core::verify::{Claim, Evidence, Observation, Part, Source, words};

use super::{known, tool, unknown};
use crate::installed::Installed;

/// The directories that runsvdir(8) watches, on different systems.
const SCAN_DIRS: [&str; 4] = [
    "/run/runit/service",
    "/etc/service",
    "/var/service",
    "/service",
];

/// Returns the directory of a supervised service.
pub(super) fn dir(name: &str) -> Option<PathBuf> {
    let dirs = SCAN_DIRS.iter().map(|dir| Path::new(dir).join(name));
    dirs.into_iter().find(|dir| dir.exists())
}

/// Collects the evidence.
pub(super) fn ask(installed: &Installed, part: Part) -> Option<Evidence> {
    const SOURCE: Source = Source::Tool("sv");
    let dir = dir(installed.manager_name())?.display().to_string();
    let asked = format!("sv status {dir}");
    Some(match tool::run(&["sv", "status", &dir]) {
        Ok(output) => match words::of_sv(&output.text) {
            Some(said) => {
                let words = output.text.lines().next().unwrap_or_default();
                let claims = Claim::of_unit(part, said.state, said.pid);
                let observation = Observation::new(words).claim(claims);
                let wanted = (part == Part::Program).then_some(Claim::Wanted(said.is_wanted));
                known(SOURCE, asked, observation.claim(wanted))
            }
            None => unknown(SOURCE, asked, "its output is not understood"),
        },
        Err(why) => unknown(SOURCE, asked, why),
    })
}
