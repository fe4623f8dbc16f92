//! `mainstay verify`: whether all who should know say the same of a service.

use std::process::ExitCode;

use serde::Serialize;

use crate::failure::{Code, Failure};
use crate::installed::Installed;
use crate::installed::registered::Witness;
use crate::state_dir::StateDir;
use crate::{embedded, output};

/// Asks all who should know how an installed service is: the registry, the files of its manager, its program's file, its manager, its host.
///
/// Exits 0 where they agree, 79 where they do not, with the causes.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// The service.
    name: String,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    name: String,
    verdict: &'static str,
    witnesses: Vec<Witness>,
    causes: Vec<String>,
}

impl Verify {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let witnesses = match embedded::witnesses(state, &self.name)? {
            Some(witnesses) => witnesses,
            None => {
                let installed = Installed::named(state, std::slice::from_ref(&self.name))?;
                installed.iter().try_for_each(Installed::check_access)?;
                installed.iter().flat_map(Installed::witnesses).collect()
            }
        };
        let causes = witnesses.iter().flat_map(|witness| witness.causes.clone());
        let causes: Vec<String> = causes.collect();
        let (verdict, code) = match causes.is_empty() {
            true => ("agree", ExitCode::SUCCESS),
            false => ("disagree", ExitCode::from(Code::Disagreement as u8)),
        };
        if self.json {
            output::document(&Report {
                name: self.name,
                verdict,
                witnesses,
                causes,
            })?;
            return Ok(code);
        }
        let mut text = String::new();
        for witness in &witnesses {
            text += &witness.line();
        }
        for cause in &causes {
            text += &format!("{}: {cause}\n", self.name);
        }
        output::text(&text)?;
        Ok(code)
    }
}
