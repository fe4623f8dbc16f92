//! `mainstay check FILE`

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use mainstay_core::spec::Spec;

use crate::failure::Failure;
use crate::manifest_file::{FormatName, Source};
use crate::output;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The manifest; - is stdin
    file: PathBuf,
    /// Its language, where the file's name does not tell (stdin: toml)
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Print the mistakes as one JSON array: code, path, message, help, line, column
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let source = Source::read(&arguments.file, arguments.format)?;
    let checked = source.specs();
    if arguments.json {
        let found = checked.as_ref().err().map_or(&[][..], |found| found);
        let document = serde_json::to_string_pretty(found).unwrap_or_default();
        output::to_stdout(&document)?;
    }
    match checked {
        Ok(specs) if !arguments.json => output::to_stdout(&summary(&source, &specs)),
        Ok(_) => Ok(()),
        Err(found) if arguments.json => Err(source.count(&found)),
        Err(found) => Err(source.failure(&found)),
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
    summary
}
