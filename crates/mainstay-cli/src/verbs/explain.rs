//! `mainstay explain`: explains a code.

use std::process::ExitCode;

use mainstay_core::explain::{Explanation, Kind, explain, names};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::suggest::did_you_mean;
use mainstay_host::output;

/// Explain a code of `mainstay check`, or an exit code
///
/// Codes of `mainstay check` are in brackets: error[unknown-key]. Exit codes are numbers or names:
/// 202 of a service, 75 or busy of this command.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// Code; several words are one
    #[arg(required = true, allow_negative_numbers = true)]
    code: String,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let found = explain(&self.code);
        if found.is_empty() {
            let code = output::one_line(&self.code);
            let failure = Failure::new(Code::Unknown, format!("there is no code {code}"));
            let near = did_you_mean(&self.code, names());
            return Err(failure.hint(near.unwrap_or_else(|| {
                "codes are in brackets in the output of `mainstay check`, or exit codes".to_owned()
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
