//! The `mainstay` command. docs/exit-codes.md documents its exit codes.
#![forbid(unsafe_code)]

mod cli;
mod client;
mod completion;
mod deploy;
mod help;
mod installed;
mod last_event;
mod library_failure;
mod man;
mod margins;
mod not_found;
mod progress;
mod request_error;
mod verbs;
mod verify;

use std::env;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _};
use mainstay_api::Refusal;
use mainstay_core::failure::Code;
use mainstay_host::output;

fn main() -> ExitCode {
    #[cfg(windows)]
    if let Some(code) = mainstay_sys::run_as_helper() {
        return code;
    }
    #[cfg(unix)]
    mainstay_sys::receive_signals();
    let parsed = help::complete(cli::Cli::command()).try_get_matches();
    let cli = match parsed.and_then(|it| cli::Cli::from_arg_matches(&it)) {
        Ok(cli) => cli,
        Err(answer) => return answer_usage(&answer),
    };
    match cli.run() {
        Ok(code) => code,
        Err(failure) => {
            output::fail(&failure);
            report(&Refusal::from(&failure));
            ExitCode::from(failure.code() as u8)
        }
    }
}

/// Prints an error as one line of JSON if `--json` was given, unless the verb has printed its
/// document.
fn report(refusal: &Refusal) {
    // After `--` are the arguments of other programs.
    let mut args = env::args_os().skip(1).take_while(|arg| arg != "--");
    if args.any(|arg| arg == "--json") {
        // A failed write cannot be reported.
        drop(output::error_document(refusal));
    }
}

/// Returns the error of the command-line parser as it is reported to programs: the first paragraph
/// without its prefix, and the tip, if any.
fn usage_error(text: &str) -> Refusal {
    let error = text.split("\n\n").next().unwrap_or(text);
    let error = error.strip_prefix("error: ").unwrap_or(error);
    let words: Vec<&str> = error.split_whitespace().collect();
    let tip = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("tip: "));
    Refusal {
        hint: tip.map(str::to_owned),
        ..Refusal::new(Code::Usage, words.join(" "))
    }
}

/// Returns the hint for a verb that reads a manifest and was run without one, and for a rollback
/// whose version is not given as an option.
fn hint(error: &clap::Error, text: &str) -> Option<&'static str> {
    match (error.kind(), error.get(ContextKind::InvalidArg)?) {
        (ErrorKind::MissingRequiredArgument, ContextValue::Strings(missing))
            if missing.iter().any(|it| it == "<FILE>") =>
        {
            Some(
                "FILE is a manifest; `mainstay init` writes one for the programs in this directory",
            )
        }
        (ErrorKind::UnknownArgument, ContextValue::String(word))
            if !word.starts_with('-') && text.contains("Usage: mainstay diff ") =>
        {
            Some(
                "name versions with options: `mainstay diff NAME --from N --to M`; `mainstay history NAME` lists them",
            )
        }
        (ErrorKind::UnknownArgument, ContextValue::String(word))
            if !word.starts_with('-') && text.contains("Usage: mainstay rollback ") =>
        {
            Some(
                "name the version with an option: `mainstay rollback NAME --to N`; `mainstay history NAME` lists the versions",
            )
        }
        _ => None,
    }
}

/// Prints the answer of the command-line parser: help and the version to standard output, errors to
/// standard error. Errors can contain file names, so they are escaped.
fn answer_usage(answer: &clap::Error) -> ExitCode {
    let text = answer.render().to_string();
    if answer.use_stderr() {
        output::complain(&text.trim_end_matches('\n'));
        let mut refusal = usage_error(&text);
        if let Some(hint) = hint(answer, &text) {
            output::complain(&format!("hint: {hint}"));
            refusal.hint = Some(hint.to_owned());
        }
        report(&refusal);
    } else {
        let fitted = output::terminal_width().map(|columns| help::fitted(&text, columns));
        // A failed write cannot be reported.
        drop(output::text(&fitted.unwrap_or(text)))
    }
    ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(1))
}
