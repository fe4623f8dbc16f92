//! The `mainstay` command.

mod cli;
mod failure;
mod host;
mod manifest_file;
mod output;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::to_stderr(&failure.to_string());
            failure.exit().into()
        }
    }
}
