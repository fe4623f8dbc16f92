//! `mainstay explain`: explains a code or a state.

use std::process::ExitCode;

use mainstay_core::explain::{Explanation, Kind, explain, names};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::suggest::did_you_mean;
use mainstay_host::output;

/// Explain a code of `mainstay check`, an exit code, or a state of a service
///
/// Codes of `mainstay check` are in brackets: error[unknown-key]. Exit codes are numbers or names:
/// 202, 0xC0000005 or SIGKILL of a service, 75 or busy of this command.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// Code or state; several words are one
    #[arg(required = true, allow_negative_numbers = true)]
    code: Vec<String>,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let code = self.code.join(" ");
        let found = explain(&code);
        if found.is_empty() {
            let shown = output::one_line(&code);
            let message = format!("cannot explain {shown}: not a known code or state");
            let failure = Failure::new(Code::Unknown, message);
            let near = did_you_mean(&code, names());
            return Err(failure.hint(near.unwrap_or_else(|| {
                "expected a code in brackets of `mainstay check`, an exit code (7, 0xC0000005, SIGKILL), or a state (halted)".to_owned()
            })));
        }
        if self.json {
            output::document(&found)?;
        } else {
            let texts: Vec<String> = found.iter().map(text).collect();
            output::text(&texts.join("\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(it: &Explanation) -> String {
    let number = it.number.unwrap_or_default();
    let (title, example) = match it.kind {
        Kind::Diagnostic => (it.name.clone(), "A manifest with this error"),
        Kind::Command => (
            format!("{number} ({}), exit code of mainstay", it.name),
            "Example",
        ),
        Kind::State => (format!("{}, state of a service", it.name), "Example"),
        Kind::Service => (
            format!("{number} ({}), exit code of a service", it.name),
            "Example",
        ),
    };
    let mut meaning = it.meaning.clone();
    if let Some(first) = meaning.get(..1).map(str::to_ascii_uppercase) {
        meaning.replace_range(..1, &first);
    }
    let meaning = meaning.trim_end_matches('.');
    let columns = output::terminal_width().unwrap_or(usize::MAX);
    let wrapped = |text: String| {
        output::wrapped(&text, columns)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let meaning = wrapped(format!("{meaning}."));
    let cause = wrapped(format!("Cause: {}", it.advice.cause));
    let action = wrapped(format!("Action: {}", it.advice.action));
    let lines = it
        .advice
        .example
        .lines()
        .map(|line| format!("    {line}\n"));
    format!(
        "{title}\n\n{meaning}\n\n{cause}\n{action}\n\n{example}:\n\n{}",
        lines.collect::<String>()
    )
}
