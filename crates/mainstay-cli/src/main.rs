//! The `mainstay` command. Its exit codes are documented in docs/exit-codes.md.

mod artifact;
mod cli;
mod client;
mod embedded;
mod failure;
mod guarded;
mod host;
mod http;
mod installed;
mod manifest_file;
mod output;
mod registry;
mod snapshot;
mod start_failure;
mod state_dir;
mod table;
mod tls;
mod update;
mod verbs;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    #[cfg(windows)]
    if let Some(code) = host::run_as_helper() {
        return code;
    }
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(failure) => {
            output::complain(&failure);
            failure.exit_code()
        }
    }
}
