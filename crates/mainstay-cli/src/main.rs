//! The `mainstay` command. docs/exit-codes.md documents its exit codes.
#![forbid(unsafe_code)]

mod cli;
mod client;
mod deploy;
mod installed;
mod library_failure;
mod margins;
mod not_found;
mod verbs;

use std::process::ExitCode;

use clap::Parser as _;
use mainstay_host::output;

fn main() -> ExitCode {
    #[cfg(windows)]
    if let Some(code) = mainstay_sys::run_as_helper() {
        return code;
    }
    #[cfg(unix)]
    mainstay_sys::receive_signals();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return answer_usage(&answer),
    };
    match cli.run() {
        Ok(code) => code,
        Err(failure) => {
            output::fail(&failure);
            failure.exit_code()
        }
    }
}

/// Prints the answer of the command-line parser: help and the version to standard output, errors to
/// standard error. Errors can contain file names, so they are escaped.
fn answer_usage(answer: &clap::Error) -> ExitCode {
    let text = answer.render().to_string();
    if answer.use_stderr() {
        output::complain(&text.trim_end_matches('\n'))
    } else {
        // A failed write cannot be reported.
        drop(output::text(&text))
    }
    ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(1))
}
