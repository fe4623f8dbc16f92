//! `mainstay run`: supervise in the foreground, without installation.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::failure::Failure;
use crate::host::{self, Copy, Options, Output, Services};
use crate::manifest_file::{self, FormatName};
use crate::output::{self, Foreign};
use crate::state_dir::StateDir;

/// Runs the services of a manifest in the foreground, until they have all ended or you press ctrl-c.
///
/// Services that `mainstay stop` has stopped can be started again, so it goes on for them. Ctrl-C once stops them in reverse order, twice kills them. Exits 0 if every service ended cleanly or was stopped.
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
    /// With --follow: let control characters through to a terminal, not colours alone.
    #[arg(long, requires = "follow")]
    raw: bool,
    /// One JSON object an event.
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(crate) fn run(self, state: StateDir) -> Result<ExitCode, Failure> {
        let manifest = manifest_file::load(&self.file, self.format)?;
        let copy = Copy::from(&manifest);
        let specs = manifest.select(&self.names)?;
        let is_left_out = |name: &String| !specs.iter().any(|spec| spec.name().as_str() == name);
        let all = manifest.specs.iter().map(|spec| spec.name().to_string());
        let left_out = all.filter(is_left_out).collect();
        let fits = output::terminal_height()
            .is_some_and(|height| host::table_height(specs.len()) < height);
        let output = match self.json {
            true => Output::Json,
            false if fits && !self.follow => Output::Table,
            false => Output::Lines,
        };
        let code = host::run(Options {
            services: Services::OfManifest {
                specs,
                manifest: self.file.display().to_string(),
                copy,
                left_out,
            },
            state,
            output,
            follow: self.follow.then_some(match self.raw {
                true => Foreign::Raw,
                false => Foreign::Coloured,
            }),
            manager: None,
        })?;
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }
}
