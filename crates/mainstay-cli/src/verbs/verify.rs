//! `mainstay verify`: compares all sources of evidence about an installed service.

use std::process::ExitCode;

use mainstay_core::failure::{Code, Failure};
use mainstay_host::output;
use mainstay_store::state_dir::StateDir;
use serde::Serialize;

use crate::deploy::embedded;
use crate::deploy::registered::Evidence;
use crate::installed::Installed;

/// Check a service against its registered definition, unit files and running state
///
/// Compares the registry, the files of the manager, the program file, the manager and the host.
/// Exits 0 if they agree, and 79 with the causes if they do not.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// Name of the service
    name: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    name: String,
    verdict: &'static str,
    #[serde(rename = "witnesses")]
    evidence: Vec<Evidence>,
    causes: Vec<String>,
}

impl Verify {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let evidence = match embedded::evidence(state, &self.name)? {
            Some(evidence) => evidence,
            None => {
                let installed = Installed::named(state, std::slice::from_ref(&self.name))?;
                installed.iter().try_for_each(Installed::check_access)?;
                installed.iter().flat_map(Installed::evidence).collect()
            }
        };
        let causes = evidence.iter().flat_map(|it| it.causes.clone());
        let causes: Vec<String> = causes.collect();
        let (verdict, code) = if causes.is_empty() {
            ("agree", ExitCode::SUCCESS)
        } else {
            ("disagree", ExitCode::from(Code::Disagreement as u8))
        };
        if self.json {
            output::document(&Report {
                name: self.name,
                verdict,
                evidence,
                causes,
            })?;
            return Ok(code);
        }
        let mut text = String::new();
        for source in &evidence {
            text += &source.line();
        }
        for cause in &causes {
            text += &format!("{}: {cause}\n", self.name);
        }
        output::text(&text)?;
        Ok(code)
    }
}
