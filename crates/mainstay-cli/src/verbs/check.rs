//! `mainstay check`: validates a manifest without starting anything.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use mainstay_core::failure::Failure;
use mainstay_core::spec::Spec;
use mainstay_host::manifest_file::Source;
use mainstay_host::output;

use super::FormatName;

/// Check a manifest and show every error in it, without starting anything
///
/// Exits 78 if there is an error. Warnings do not change the exit code.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// Manifest file (.toml, .yaml or .json); `-` reads standard input
    file: PathBuf,
    /// Manifest format, if the file extension does not show it [default for standard input: toml]
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Print errors, or else warnings, as one JSON array: code, path, message, help, line and
    /// column; `severity` for warnings
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let source = Source::read(&self.file, self.format.map(Into::into))?;
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
                    output::remark(&source.rendered(&warnings).trim_end());
                }
                output::confirm(&summary(&source, &specs))?;
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
        // The arguments are left out: they can contain secrets.
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
