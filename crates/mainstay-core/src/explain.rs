//! Explanations of diagnostics of manifests, of exit codes of services and of commands, and of
//! states of services. docs/manifest.md and docs/exit-codes.md have the same sentences.

mod commands;
mod manifests;
mod services;
mod states;

use serde::Serialize;

use crate::failure;
use crate::manifest;
use crate::manifest::exit_codes::exit_code;

/// The kind of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A diagnostic of `mainstay check`.
    Diagnostic,
    /// An exit code of `mainstay`.
    Command,
    /// An exit code of a supervised program.
    Service,
    /// A state of a service.
    State,
}

/// An explanation of a code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The kind of the code.
    pub kind: Kind,
    /// The number, of an exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// The name, or a name for the number.
    pub name: String,
    /// The meaning of the code.
    pub meaning: String,
    #[serde(flatten)]
    /// The reason and the remedy.
    pub advice: Advice,
}

/// The reason for a code, and what can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The usual reasons.
    pub cause: &'static str,
    /// The steps to take.
    pub action: &'static str,
    /// An example, of one or several lines.
    pub example: &'static str,
}

/// Returns the explanations of a code, by its name or number. There are several if a number is an
/// exit code of services and of commands.
pub fn explain(code: &str) -> Vec<Explanation> {
    let code = code.trim().to_ascii_lowercase();
    // As in the output of `check`, and in messages.
    let code = code
        .trim_start_matches("error")
        .trim_start_matches("warning")
        .trim_start_matches("exit code ");
    let code = code.trim_matches(['[', ']', ':']);
    let upper = code.to_ascii_uppercase();
    let number = services::of_signal(&upper).or_else(|| {
        let number = code.parse::<i64>().ok();
        number.or_else(|| exit_code(&upper).map(i64::from))
    });
    if let Some(number) = number {
        let command = u8::try_from(number)
            .ok()
            .and_then(failure::Code::from_number);
        let command = command.and_then(of_command);
        let service = exit_code(&number.to_string()).map(|code| services::of(number, code));
        return service.into_iter().chain(command).collect();
    }
    let diagnostics = manifest::Code::ALL.iter();
    let diagnostics = diagnostics.filter(|it| it.as_str() == code);
    let diagnostic = diagnostics.filter_map(|it| of_manifest(*it));
    let commands = failure::Code::ALL.into_iter();
    let command = commands
        .filter(|it| it.name() == code)
        .filter_map(of_command);
    let state = states::of(code);
    diagnostic.chain(command).chain(state).collect()
}

/// Returns all names of codes and states.
pub fn names() -> impl Iterator<Item = &'static str> {
    let diagnostics = manifest::Code::ALL.iter().map(|it| it.as_str());
    let commands = failure::Code::ALL.into_iter().map(failure::Code::name);
    diagnostics.chain(commands).chain(states::names())
}

fn of_manifest(code: manifest::Code) -> Option<Explanation> {
    Some(Explanation {
        kind: Kind::Diagnostic,
        number: None,
        name: code.as_str().to_owned(),
        meaning: code.meaning().to_owned(),
        advice: manifests::advice(code)?,
    })
}

fn of_command(code: failure::Code) -> Option<Explanation> {
    let (meaning, advice) = commands::advice(code)?;
    Some(Explanation {
        kind: Kind::Command,
        number: Some(code as i64),
        name: code.name().to_owned(),
        meaning: meaning.to_owned(),
        advice,
    })
}

/// Returns the meaning of an exit code of commands.
pub fn meaning(code: failure::Code) -> &'static str {
    commands::advice(code).map_or("", |(meaning, _)| meaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::StateName;
    use crate::manifest::{Format, parse, warnings};

    /// Every example of a diagnostic is a manifest that has this diagnostic, and no other.
    #[test]
    fn examples_of_diagnostics_are_real() {
        // These depend on the machine or its system.
        let elsewhere = ["command-line", "unusable-path", "world-writable"];
        let mut wrong = Vec::new();
        for code in manifest::Code::ALL {
            let [it] = &explain(code.as_str())[..] else {
                panic!("{code}");
            };
            let text = it.advice.example;
            let format = match *code {
                manifest::Code::YamlFeature => Format::Yaml,
                _ => Format::Toml,
            };
            let found = match parse(text, format) {
                Ok(specs) => warnings(text, format, &specs),
                Err(found) => found,
            };
            let found: Vec<_> = found.iter().map(|it| it.code.as_str()).collect();
            let is_elsewhere = elsewhere.contains(&code.as_str());
            let expect = if is_elsewhere {
                vec![]
            } else {
                vec![code.as_str()]
            };
            if found != expect {
                wrong.push((code, found));
            }
        }
        assert_eq!(wrong, []);
    }

    #[test]
    fn numbers_and_names_are_explained() {
        let kinds = |code: &str| -> Vec<(Kind, String)> {
            explain(code)
                .into_iter()
                .map(|it| (it.kind, it.name))
                .collect()
        };
        let one = |kind, name: &str| vec![(kind, name.to_owned())];
        assert_eq!(kinds("unknown-key"), one(Kind::Diagnostic, "unknown-key"));
        assert_eq!(
            kinds("error[Unknown-Key]:"),
            one(Kind::Diagnostic, "unknown-key")
        );
        assert_eq!(kinds("busy"), one(Kind::Command, "busy"));
        assert_eq!(kinds("202"), one(Kind::Service, "dependency unavailable"));
        assert_eq!(kinds("0"), one(Kind::Service, "success"));
        assert_eq!(
            kinds("137"),
            one(Kind::Service, "killed by signal 9 (KILL)")
        );
        let both = kinds("75").into_iter().map(|(kind, _)| kind);
        assert_eq!(both.collect::<Vec<_>>(), [Kind::Service, Kind::Command]);
        assert_eq!(kinds("SIGKILL"), kinds("137"));
        assert_eq!(kinds("exit code 202"), kinds("202"));
        let violation = one(Kind::Service, "0xC0000005, STATUS_ACCESS_VIOLATION");
        for code in [
            "-1073741819",
            "3221225477",
            "0xc0000005",
            "STATUS_ACCESS_VIOLATION",
        ] {
            assert_eq!(kinds(code), violation, "{code}");
        }
        assert_eq!(kinds("300"), one(Kind::Service, "0x12C"));
        assert_eq!(kinds("4294967296"), [], "exit codes have 32 bits");
        assert_eq!(kinds("starting"), one(Kind::State, "starting"));
        for state in StateName::ALL
            .into_iter()
            .filter(|it| *it != StateName::Unknown)
        {
            for name in [state.as_str(), state.label()] {
                assert_eq!(kinds(name), one(Kind::State, name));
            }
        }
        assert_eq!(kinds("nonsense"), []);
        assert_eq!(kinds(""), []);
        assert!(
            names().all(|name| kinds(name).len() == 1),
            "names are unique"
        );
        for number in 0..=255 {
            for it in explain(&number.to_string()) {
                assert!(it.advice.cause.ends_with('.') && it.advice.action.ends_with('.'));
                assert!(!it.advice.example.is_empty() && !it.meaning.is_empty());
            }
        }
    }

    /// The tables of the documentation have the same sentences.
    #[test]
    fn the_documentation_says_the_same() {
        let manifest = include_str!("../../../docs/manifest.md");
        let commands = include_str!("../../../docs/exit-codes.md");
        for code in manifest::Code::ALL {
            let row = format!("| `{code}` | {} |\n", code.meaning());
            assert!(manifest.contains(&row), "{row}");
        }
        for code in failure::Code::ALL {
            let meaning = meaning(code);
            let row = format!("| {} | `{}` | {meaning}", code as u8, code.name());
            assert!(!meaning.is_empty(), "{row}");
            assert!(commands.contains(&row), "{row}");
        }
    }
}
