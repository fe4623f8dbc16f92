//! The help: verbs in groups, and examples.

use clap::Command;
use mainstay_host::output;

/// The verbs, in the groups and the order in which the help lists them.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "Run and control",
        &[
            "run", "daemon", "start", "stop", "restart", "pause", "continue", "reload",
        ],
    ),
    (
        "Install",
        &[
            "install",
            "uninstall",
            "enable",
            "disable",
            "update",
            "rollback",
            "host",
        ],
    ),
    (
        "See",
        &[
            "status", "list", "logs", "events", "verify", "history", "diff",
        ],
    ),
    ("Snapshots", &["snapshot"]),
    ("Manifests", &["init", "check", "schema", "explain"]),
    ("This command", &["completions", "man", "version", "help"]),
];

/// Examples of the main verbs.
const EXAMPLES: &[(&str, [&str; 2])] = &[
    (
        "init",
        ["mainstay init", "mainstay init /srv/shop --output -"],
    ),
    (
        "check",
        [
            "mainstay check mainstay.toml",
            "mainstay check --json mainstay.toml",
        ],
    ),
    (
        "run",
        [
            "mainstay run mainstay.toml",
            "mainstay run mainstay.toml web --follow",
        ],
    ),
    (
        "install",
        [
            "mainstay install mainstay.toml --dry-run",
            "sudo mainstay install mainstay.toml web",
        ],
    ),
    (
        "uninstall",
        ["mainstay uninstall web", "mainstay uninstall web --purge"],
    ),
    (
        "update",
        [
            "mainstay update mainstay.toml --canary 1m",
            "mainstay update mainstay.toml web --artifact ./web-2.0",
        ],
    ),
    (
        "rollback",
        ["mainstay rollback web", "mainstay rollback web --to 3"],
    ),
    (
        "start",
        ["mainstay start web", "mainstay start web worker --json"],
    ),
    (
        "stop",
        ["mainstay stop web", "mainstay stop db --with-dependents"],
    ),
    (
        "status",
        ["mainstay status", "mainstay status web --wait 30s"],
    ),
    (
        "logs",
        [
            "mainstay logs web -f",
            "mainstay logs web worker --since 1h --grep error",
        ],
    ),
    (
        "events",
        ["mainstay events web", "mainstay events --since today"],
    ),
    (
        "snapshot",
        [
            "mainstay snapshot list web",
            "mainstay snapshot restore web --stop",
        ],
    ),
    (
        "explain",
        ["mainstay explain unknown-key", "mainstay explain 202"],
    ),
];

/// Returns the examples of a verb.
pub(crate) fn examples(verb: &str) -> Option<&'static [&'static str; 2]> {
    let found = EXAMPLES.iter().find(|(name, _)| *name == verb);
    found.map(|(_, examples)| examples)
}

/// Adds the groups and the examples to the help.
pub(crate) fn complete(command: Command) -> Command {
    let groups = groups(&command);
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}Options:\n{{options}}"
    );
    EXAMPLES
        .iter()
        .fold(command.help_template(template), |it, (verb, examples)| {
            it.mut_subcommand(verb, |verb| {
                let notes = verb.get_after_help().map(|it| format!("{it}\n\n"));
                let lines = examples.map(|line| format!("\n  {line}")).concat();
                verb.after_help(format!("{}Examples:{lines}", notes.unwrap_or_default()))
            })
        })
}

fn groups(command: &Command) -> String {
    let about = |name: &str| match command.find_subcommand(name).and_then(Command::get_about) {
        Some(about) => about.to_string(),
        // The parser adds this verb later.
        None => "Print the help of a verb".to_owned(),
    };
    let names = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter());
    let width = names.map(|name| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (group, verbs) in GROUPS {
        text += &format!("{group}:\n");
        for verb in *verbs {
            text += &format!("  {verb:width$}  {}\n", about(verb));
        }
        text.push('\n');
    }
    text
}

/// Wraps the lines of a help that are longer than the terminal is wide. The rest of a line is
/// indented like its description, or like the line.
pub(crate) fn fitted(text: &str, columns: usize) -> String {
    /// The width that a description needs beside a long name.
    const NARROWEST: usize = 20;
    let mut fitted = String::with_capacity(text.len() + 64);
    for line in text.split_inclusive('\n') {
        let line = line.trim_end_matches('\n');
        let start = line.len() - line.trim_start().len();
        let gap = line.get(start..).and_then(|rest| rest.find("  "));
        let description = gap.map(|gap| {
            let rest = &line[start + gap..];
            start + gap + rest.len() - rest.trim_start().len()
        });
        let indent = description
            .filter(|it| it + NARROWEST <= columns)
            .unwrap_or(start);
        let mut parts = output::wrapped(&line[indent..], columns.saturating_sub(indent));
        fitted += &line[..indent];
        fitted += parts.next().unwrap_or_default();
        for part in parts {
            fitted += &format!("\n{:indent$}{part}", "");
        }
        fitted.push('\n');
    }
    if !text.ends_with('\n') {
        fitted.pop();
    }
    fitted
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn each_verb_is_in_one_group() {
        let command = Cli::command();
        let verbs = command.get_subcommands().filter(|it| !it.is_hide_set());
        let mut verbs: Vec<&str> = verbs.map(Command::get_name).collect();
        verbs.push("help");
        verbs.sort_unstable();
        let mut listed: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, it)| it.iter().copied())
            .collect();
        listed.sort_unstable();
        assert_eq!(listed, verbs);
        let text = complete(command).render_help().to_string();
        assert!(text.contains("\nSee:\n  status "), "{text}");
        assert!(text.contains("--state-dir"), "{text}");
    }

    /// The parser accepts every example.
    #[test]
    fn examples_are_command_lines() {
        let mut seen = BTreeSet::new();
        for (verb, examples) in EXAMPLES {
            assert!(seen.insert(verb));
            for line in examples {
                let words = line.strip_prefix("sudo ").unwrap_or(line).split(' ');
                let matches = complete(Cli::command()).try_get_matches_from(words);
                let matches = matches.unwrap_or_else(|error| panic!("{line}: {error}"));
                assert_eq!(matches.subcommand_name(), Some(*verb), "{line}");
            }
            let verb = complete(Cli::command())
                .find_subcommand_mut(verb)
                .map(Command::render_help);
            let text = verb.expect("the verb").to_string();
            assert!(text.contains("\n\nExamples:\n  mainstay "), "{text}");
        }
    }

    /// Returns the pages of the documentation, with their paths.
    fn pages() -> Vec<(PathBuf, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut pages = Vec::new();
        for dir in [".", "docs", "docs/howto"] {
            let entries = fs::read_dir(root.join(dir)).expect("a directory");
            let paths = entries.map(|entry| entry.expect("an entry").path());
            let paths = paths.filter(|path| path.extension().is_some_and(|it| it == "md"));
            pages
                .extend(paths.map(|path| (path.clone(), fs::read_to_string(path).expect("UTF-8"))));
        }
        pages
    }

    /// Returns the words of a command line as a shell splits them, up to a comment or an operator.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for character in line.chars() {
            match (character, quote) {
                (_, Some(open)) if character == open => quote = None,
                (_, Some(_)) => word.get_or_insert_default().push(character),
                ('\'' | '"', None) => {
                    quote = Some(character);
                    word.get_or_insert_default();
                }
                (' ', None) => words.extend(word.take()),
                ('#' | '|' | '&' | ';' | '>', None) if word.is_none() => return words,
                _ => word.get_or_insert_default().push(character),
            }
        }
        words.extend(word);
        words
    }

    /// Returns why the parser refuses a line, unless it is only short of arguments, as the mention
    /// of a verb is, or has the name of a value in place of the value.
    fn refusal(words: &[String]) -> Option<clap::Error> {
        use clap::error::ErrorKind;
        let is_name = |word: &String| {
            let name = word.trim_start_matches('$');
            !name.is_empty() && name.chars().all(|it| it.is_ascii_uppercase())
        };
        let has_name = words.iter().any(is_name);
        let parsed = complete(Cli::command()).try_get_matches_from(words);
        parsed.err().filter(|error| match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => false,
            ErrorKind::InvalidValue | ErrorKind::ValueValidation => !has_name,
            _ => true,
        })
    }

    /// The parser accepts every command line of the documentation, in blocks and within sentences.
    #[test]
    fn documented_command_lines_are_accepted() {
        let (mut count, mut problems) = (0, Vec::new());
        for (path, text) in pages() {
            let mut is_fenced = false;
            for line in text.lines() {
                is_fenced ^= line.trim_start().starts_with("```");
                let mut found = Vec::new();
                if is_fenced || line.starts_with("    ") {
                    let line = line.trim_start();
                    let prefixes = ["$ ", "sudo ", "RUN "];
                    let line = prefixes
                        .iter()
                        .find_map(|it| line.strip_prefix(it))
                        .unwrap_or(line);
                    found.push(line);
                } else {
                    found.extend(line.split('`').skip(1).step_by(2));
                }
                // Upper case and brackets stand for something.
                let is_literal = |line: &&str| {
                    let verb = line
                        .strip_prefix("mainstay ")
                        .and_then(|it| it.chars().next());
                    verb.is_some_and(|it| it.is_ascii_lowercase() || it == '-')
                        && !line.contains(['[', '…', '<'])
                };
                for line in found.into_iter().filter(is_literal) {
                    let words = words(&line.replace("\\|", "|"));
                    // One of several.
                    if words.iter().any(|it| it.contains('|')) {
                        continue;
                    }
                    count += 1;
                    if let Some(error) = refusal(&words) {
                        problems.push(format!("{}: {line}: {error}", path.display()));
                    }
                }
            }
        }
        assert!(count > 150, "{count}");
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        assert!(refusal(&words("mainstay stop --now web")).is_some());
    }

    #[test]
    fn long_lines_are_wrapped_below_their_description() {
        let text = "Usage: a\n\n  check  Check a manifest and show it\n      --long\n          One two three four five\n";
        let expect = "Usage: a\n\n  check  Check a manifest and\n         show it\n      --long\n          One two three four\n          five\n";
        assert_eq!(fitted(text, 29), expect);
        assert_eq!(fitted(text, 200), text);
        for columns in 0..40 {
            let words = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(words(&fitted(text, columns)), words(text), "{columns}");
        }
    }
}
