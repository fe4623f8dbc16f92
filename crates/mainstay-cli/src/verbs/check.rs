//! `mainstay check`: judge a manifest without starting anything.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use mainstay_core::spec::Spec;

use crate::failure::Failure;
use crate::manifest_file::{FormatName, Source};
use crate::output;

/// Checks a manifest and shows every mistake in it; starts nothing.
///
/// Exits 78 if there is one. Warnings do not change the exit code.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The manifest: .toml, .yaml or .json; `-` is standard input.
    file: PathBuf,
    /// Its language, where the file's name does not tell (standard input: toml).
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Print the mistakes and warnings as one JSON array: code, path, message, help, line, column; `severity` of warnings.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let source = Source::read(&self.file, self.format)?;
        let checked = source.specs();
        let warnings = match &checked {
            Ok(specs) => source.warnings(specs),
            Err(_) => Vec::new(),
        };
        if self.json {
            output::document(checked.as_ref().err().unwrap_or(&warnings))?;
        }
        match checked {
            Ok(specs) if !self.json => {
                if !warnings.is_empty() {
                    output::complain(&source.rendered(&warnings).trim_end());
                }
                output::text(&summary(&source, &specs))?;
            }
            Ok(_) => {}
            Err(found) if self.json => return Err(source.count(&found)),
            Err(found) => return Err(source.failure(&found)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn summary(source: &Source, specs: &[Spec]) -> String {
    let width = specs.iter().map(|spec| spec.name().as_str().len()).max();
    let width = width.unwrap_or(0);
    let mut summary = match specs.len() {
        1 => format!("{}: 1 service", source.name()),
        count => format!("{}: {count} services", source.name()),
    };
    for spec in specs {
        // Not the arguments: they may hold what nobody should see.
        let _ = write!(
            summary,
            "\n  {:width$}  {}",
            spec.name(),
            spec.command().program()
        );
    }
    summary.push('\n');
    summary
}
