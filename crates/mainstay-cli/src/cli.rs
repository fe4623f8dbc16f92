//! What can be typed after `mainstay`.

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::verbs::{check, schema};

/// Run any program as a production service.
#[derive(Parser)]
#[command(name = "mainstay", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Judge a manifest, without starting anything
    Check(check::Arguments),
    /// Print the JSON Schema of a manifest
    Schema,
}

impl Cli {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.verb {
            Verb::Check(arguments) => check::run(&arguments),
            Verb::Schema => schema::run(),
        }
    }
}
