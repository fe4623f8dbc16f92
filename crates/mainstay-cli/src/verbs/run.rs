//! `mainstay run`: supervise in the foreground, without installation.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;

use mainstay_core::spec::{Need, Spec};

use crate::failure::{Code, Failure};
use crate::host::{self, Copy, Options, Output};
use crate::manifest_file::{self, FormatName};
use crate::output;
use crate::state_dir::StateDir;

/// Runs the services of a manifest in the foreground, until they are all down or you press ctrl-c.
///
/// Ctrl-C once stops them in reverse order, twice kills them. Exits 0 if every service ended cleanly or was stopped.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The manifest: .toml, .yaml or .json; `-` is standard input.
    file: PathBuf,
    /// Only these services, and what they need.
    names: Vec<String>,
    /// Its language, where the file's name does not tell (standard input: toml).
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Show what the services write, each line with its service's name.
    #[arg(long)]
    follow: bool,
    /// One JSON object an event.
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(crate) fn run(self, state: StateDir) -> Result<ExitCode, Failure> {
        let manifest = manifest_file::load(&self.file, self.format)?;
        let copy = Copy::from(&manifest);
        let specs = select(manifest.specs, &self.names)?;
        let fits = output::terminal_height()
            .is_some_and(|height| host::table_height(specs.len()) < height);
        let output = match self.json {
            true => Output::Json,
            false if fits && !self.follow => Output::Table,
            false => Output::Lines,
        };
        let code = host::run(Options {
            specs,
            manifest: self.file.display().to_string(),
            copy,
            state,
            output,
            follow: self.follow,
            manager: None,
        })?;
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }
}

/// The named services and what they need; all of them where none is named.
fn select(specs: Vec<Spec>, names: &[String]) -> Result<Vec<Spec>, Failure> {
    if names.is_empty() {
        return Ok(specs);
    }
    let mut wanted = HashSet::new();
    let mut open: Vec<&str> = names.iter().map(String::as_str).collect();
    while let Some(name) = open.pop() {
        let Some(spec) = specs.iter().find(|spec| spec.name().as_str() == name) else {
            let known: Vec<&str> = specs.iter().map(|spec| spec.name().as_str()).collect();
            return Err(
                Failure::new(Code::Unknown, format!("the manifest has no service {name}"))
                    .hint(format!("it has {}", known.join(", "))),
            );
        };
        if wanted.insert(spec.name().clone()) {
            open.extend(spec.needs().iter().filter_map(|need| match need {
                Need::Service(name) => Some(name.as_str()),
                Need::Os(_) => None,
            }));
        }
    }
    Ok(specs
        .into_iter()
        .filter(|spec| wanted.contains(spec.name()))
        .collect())
}
