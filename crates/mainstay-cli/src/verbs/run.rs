//! `mainstay run`: supervises services in the foreground, without installation.

use std::path::PathBuf;
use std::process::ExitCode;

use mainstay_core::failure::Failure;
use mainstay_host::manifest_file;
use mainstay_host::output::{self, Foreign};
use mainstay_host::{self as host, Options, Output, Services, Viewers};
use mainstay_store::ledger::ManifestCopy;
use mainstay_store::state_dir::StateDir;

use super::FormatName;

/// Run the services of a manifest in the foreground, until all have ended or you press Ctrl-C
///
/// A service stopped with `mainstay stop` can be started again, so it does not end the run. Ctrl-C
/// stops the services in reverse order; a second Ctrl-C kills them. Exits 0 if every service ended
/// cleanly or was stopped.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Manifest file (.toml, .yaml or .json); `-` reads standard input
    file: PathBuf,
    /// Run only these services, and the services they need [default: all]
    names: Vec<String>,
    /// Manifest format, if the file extension does not show it [default for standard input: toml]
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Show the output of the services, each line prefixed with the name of its service
    #[arg(long)]
    follow: bool,
    /// With --follow: pass all control characters to the terminal, not only colours
    #[arg(long, requires = "follow")]
    raw: bool,
    /// Let the members of this group view the services, but not change them
    #[arg(long, value_name = "GROUP")]
    viewers: Option<String>,
    /// Print one JSON object per event
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(crate) fn run(self, state: StateDir) -> Result<ExitCode, Failure> {
        let manifest = manifest_file::load(&self.file, self.format.map(Into::into))?;
        let copy = ManifestCopy::from(&manifest);
        let specs = manifest.select(&self.names)?;
        let is_left_out = |name: &String| !specs.iter().any(|spec| spec.name().as_str() == name);
        let all = manifest.specs.iter().map(|spec| spec.name().to_string());
        let left_out = all.filter(is_left_out).collect();
        drop(manifest);
        let is_drawable = output::terminal_size().is_some() && !output::is_dumb();
        let output = match self.json {
            true => Output::Json,
            false if is_drawable && !self.follow && !output::is_quiet() => Output::Table,
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
            follow: self.follow.then_some(if self.raw {
                Foreign::Raw
            } else {
                Foreign::Coloured
            }),
            manager: None,
            viewers: self.viewers.map(Viewers::find).transpose()?,
        })?;
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }
}
