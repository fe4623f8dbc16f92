//! Completion of command lines: what can follow the words of an unfinished one.
//!
//! The scripts of the shells ask `mainstay complete`, which reads the words as the parser of the
//! command line does, and finds the argument that the last word belongs to. Candidates consist of
//! characters that no shell interprets, whatever names exist.

mod names;

use std::path::Path;

use clap::{Arg, Command, ValueHint};
use mainstay_core::explain;

pub(crate) use self::names::of as names;

/// A shell with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
    /// PowerShell
    Powershell,
}

impl Shell {
    /// Returns the script that registers completions.
    pub(crate) fn script(self) -> &'static str {
        match self {
            Self::Bash => include_str!("completion/mainstay.bash"),
            Self::Zsh => include_str!("completion/mainstay.zsh"),
            Self::Fish => include_str!("completion/mainstay.fish"),
            Self::Powershell => include_str!("completion/mainstay.ps1"),
        }
    }

    /// Returns the separator between a candidate and its description; `None` if the shell shows
    /// none.
    fn separator(self) -> Option<char> {
        match self {
            Self::Bash => None,
            Self::Zsh => Some(':'),
            Self::Fish | Self::Powershell => Some('\t'),
        }
    }
}

/// The maximum number of candidates.
const MOST: usize = 1000;

/// A set of names that exist on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    /// Services of the state directory, installed or not.
    Services,
    /// Installed services.
    Installed,
    /// Services of this manifest.
    OfManifest(String),
    /// Versions of this service.
    Versions(String),
    /// Snapshots of this service.
    Snapshots(String),
}

/// The words of a command line before the one that is being typed.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    program: &'a Command,
    /// The verb, or the subcommand of a verb.
    command: &'a Command,
    positionals: Vec<&'a str>,
    /// The option whose value is next.
    option: Option<&'a Arg>,
    /// Set after `--`.
    has_ended: bool,
    state_dir: Option<&'a str>,
}

impl<'a> Line<'a> {
    /// Reads the words. `command` has been built.
    pub(crate) fn read(command: &'a Command, words: impl Iterator<Item = &'a str>) -> Self {
        let mut line = Self {
            program: command,
            command,
            positionals: Vec::new(),
            option: None,
            has_ended: false,
            state_dir: None,
        };
        words.for_each(|word| line.push(word));
        line
    }

    fn push(&mut self, word: &'a str) {
        if let Some(option) = self.option {
            // Bash splits words at `=`.
            if word != "=" {
                self.set(option, word);
                self.option = None;
            }
        } else if word == "--" && !self.has_ended {
            self.has_ended = true;
        } else if let Some(long) = word.strip_prefix("--").filter(|_| !self.has_ended) {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            let found = self.find(|arg| arg.get_long() == Some(name));
            match (found.filter(|arg| takes_value(arg)), value) {
                (Some(arg), Some(value)) => self.set(arg, value),
                (option, _) => self.option = option,
            }
        } else if word.len() > 1 && word.starts_with('-') && !self.has_ended {
            // The value of a short option can follow without a space: `-n5`.
            let last = word.chars().next_back();
            let found = self.find(|arg| arg.get_short() == last);
            self.option = found.filter(|arg| takes_value(arg));
        } else if let Some(verb) = self.verb(word) {
            self.command = verb;
        } else {
            self.positionals.push(word);
        }
    }

    fn set(&mut self, option: &Arg, value: &'a str) {
        if option.get_id() == "state_dir" {
            self.state_dir = Some(value);
        }
    }

    fn find(&self, is: impl Fn(&Arg) -> bool) -> Option<&'a Arg> {
        self.command.get_arguments().find(|arg| is(arg))
    }

    fn verb(&self, word: &str) -> Option<&'a Command> {
        if self.has_ended || !self.positionals.is_empty() {
            return None;
        }
        self.command.find_subcommand(word)
    }

    /// Returns the state directory that the words name.
    pub(crate) fn state_dir(&self) -> Option<&'a Path> {
        self.state_dir.map(Path::new)
    }

    /// Returns the positional argument that comes next.
    fn positional(&self) -> Option<&'a Arg> {
        let mut all = self.command.get_positionals();
        let count = self.command.get_positionals().count();
        let last = count.checked_sub(1)?;
        let at = self.positionals.len();
        let arg = all.nth(at.min(last))?;
        let is_repeated = arg.get_num_args().is_some_and(|it| it.max_values() > 1)
            || matches!(arg.get_action(), clap::ArgAction::Append);
        (at <= last || is_repeated).then_some(arg)
    }

    /// Returns the names that are values of an argument.
    fn live(&self, arg: &Arg) -> Option<Live> {
        const OF_INSTALLED: [&str; 7] = [
            "uninstall",
            "enable",
            "disable",
            "verify",
            "history",
            "diff",
            "rollback",
        ];
        let mut all = self.command.get_positionals();
        let has_file = all.any(|arg| arg.get_id() == "file");
        let word = |at: usize| self.positionals.get(at).map(|it| (*it).to_owned());
        match arg.get_id().as_str() {
            "name" | "names" if has_file => word(0).map(Live::OfManifest),
            "name" | "names" if OF_INSTALLED.contains(&self.command.get_name()) => {
                Some(Live::Installed)
            }
            "name" | "names" => Some(Live::Services),
            "to" | "from" | "if_version" => word(usize::from(has_file)).map(Live::Versions),
            "id" => word(0).map(Live::Snapshots),
            _ => None,
        }
    }
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

/// The possible continuations of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Files, which the shell knows best.
    Files,
    /// Directories.
    Dirs,
    /// Words, with their descriptions.
    Words(Vec<(String, String)>),
}

impl Answer {
    /// Finds the continuations of `current`, the word that is being typed. `live` returns names.
    pub(crate) fn of(line: &Line<'_>, current: &str, live: impl Fn(Live) -> Vec<String>) -> Self {
        if let Some(option) = line.option {
            // Bash splits words at `=`.
            let current = if current == "=" { "" } else { current };
            return values(line, option, "", current, live);
        }
        let is_option = current.starts_with('-') && !line.has_ended;
        if let Some((name, value)) = current.split_once('=').filter(|_| is_option) {
            let found = line
                .find(|arg| Some(name) == arg.get_long().map(|it| format!("--{it}")).as_deref());
            return match found.filter(|arg| takes_value(arg)) {
                Some(option) => values(line, option, &format!("{name}="), value, live),
                None => Self::Words(Vec::new()),
            };
        }
        if is_option {
            let args = line
                .command
                .get_arguments()
                .filter(|arg| !arg.is_hide_set());
            let options = args
                .filter_map(|arg| Some((format!("--{}", arg.get_long()?), help(arg.get_help()))));
            return Self::starting_with(current, options);
        }
        let verbs = verbs(line.command).filter(|_| line.positionals.is_empty() && !line.has_ended);
        let of_argument = line
            .positional()
            .map(|arg| values(line, arg, "", current, live));
        match of_argument {
            Some(Self::Words(words)) => Self::starting_with(current, verbs.chain(words)),
            Some(files) => files,
            None => Self::starting_with(current, verbs),
        }
    }

    fn starting_with(start: &str, words: impl Iterator<Item = (String, String)>) -> Self {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._@=/+-".contains(c);
        let words = words.filter(|(word, _)| word.starts_with(start) && word.chars().all(is_plain));
        Self::Words(words.take(MOST).collect())
    }

    /// Returns the answer in the form that the script of a shell reads: its kind, then a line for
    /// each word.
    pub(crate) fn lines(&self, shell: Shell) -> String {
        let words = match self {
            Self::Files => return "files\n".to_owned(),
            Self::Dirs => return "dirs\n".to_owned(),
            Self::Words(words) => words,
        };
        let mut text = "words\n".to_owned();
        for (word, help) in words {
            text += word;
            match shell.separator().filter(|_| !help.is_empty()) {
                Some(separator) => text += &format!("{separator}{help}\n"),
                None => text.push('\n'),
            }
        }
        text
    }
}

/// Returns the verbs of a command, with their descriptions.
fn verbs(command: &Command) -> impl Iterator<Item = (String, String)> {
    let verbs = command.get_subcommands().filter(|it| !it.is_hide_set());
    verbs.map(|it| (it.get_name().to_owned(), help(it.get_about())))
}

/// Returns the values of an argument that begin with `current`, each after `prefix`.
fn values(
    line: &Line<'_>,
    arg: &Arg,
    prefix: &str,
    current: &str,
    live: impl Fn(Live) -> Vec<String>,
) -> Answer {
    if let Some(set) = line.live(arg) {
        let words = live(set).into_iter();
        let words = words.map(|word| (format!("{prefix}{word}"), String::new()));
        return Answer::starting_with(&format!("{prefix}{current}"), words);
    }
    match arg.get_id().as_str() {
        // The arguments of `man` and `explain`.
        "verbs" => {
            let mut words = line.positionals.iter();
            let verb = words.try_fold(line.program, |verb, word| verb.find_subcommand(word));
            return Answer::starting_with(current, verb.into_iter().flat_map(verbs));
        }
        "code" => {
            let names = explain::names().map(|name| (name.to_owned(), String::new()));
            return Answer::starting_with(current, names);
        }
        _ => {}
    }
    match arg.get_value_hint() {
        ValueHint::AnyPath | ValueHint::FilePath if prefix.is_empty() => return Answer::Files,
        ValueHint::DirPath if prefix.is_empty() => return Answer::Dirs,
        _ => {}
    }
    let all = arg.get_possible_values().into_iter();
    let all = all.filter(|_| takes_value(arg));
    let words = all.map(|it| (format!("{prefix}{}", it.get_name()), help(it.get_help())));
    Answer::starting_with(&format!("{prefix}{current}"), words)
}

/// Returns the first line of a help, without characters that a script separates by.
fn help(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    line.replace([':', '\t'], " ")
}

#[cfg(test)]
mod tests;
