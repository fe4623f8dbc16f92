//! Manual pages, in the man(7) macros of roff, made from the help of the verbs.

use std::fmt::Write as _;

use clap::builder::StyledStr;
use clap::{Arg, Command};
use mainstay_core::explain::meaning;
use mainstay_core::failure::Code;

use crate::help::examples;

/// The date of the pages: that of the release.
const DATE: &str = "2026-11-30";

/// Files and directories, with their content. STATE is the state directory.
const FILES: &[(&str, &str)] = &[
    (
        "/var/lib/mainstay",
        "The state directory STATE of root. On macOS, /Library/Application Support/mainstay.",
    ),
    (
        "~/.local/state/mainstay",
        "The state directory of other users. On macOS, ~/Library/Application Support/mainstay; on Windows, %LOCALAPPDATA%\\mainstay.",
    ),
    (
        "STATE/logs/NAME/current.log",
        "The output of a service. Rotated files are beside it.",
    ),
    ("STATE/events/NAME/", "The events of a service."),
    (
        "STATE/snapshots/NAME/",
        "The snapshots of a service's state.",
    ),
    (
        "STATE/installed/NAME/",
        "An installed service: its manifest and, under a service manager, the state directory of its supervisor.",
    ),
    (
        "STATE/registry.db",
        "The definitions of installed services, and their history.",
    ),
];

/// Environment variables, with their meaning.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("MAINSTAY_STATE_DIR", "The state directory, as --state-dir."),
    ("NO_COLOR", "If it is not empty, output has no colours."),
    (
        "CLICOLOR_FORCE",
        "If it is neither empty nor 0, output has colours even if it does not go to a terminal.",
    ),
    (
        "TERM",
        "With dumb, output has no colours, and run prints lines instead of a table.",
    ),
    ("PAGER", "The pager of logs."),
];

/// Returns the page of a verb. `command` has been built, and is the program or one of its verbs.
pub(crate) fn page(program: &Command, verb: &Command) -> String {
    let name = title(program, verb);
    let version = program.get_version().unwrap_or_default();
    let upper = escaped(&name.to_uppercase());
    let mut page =
        format!(".TH \"{upper}\" 1 \"{DATE}\" \"mainstay {version}\" \"User Commands\"\n");
    let about = text(verb.get_about());
    let line = about.trim_end_matches('.');
    let _ = write!(page, ".SH NAME\n{} \\- {}\n", escaped(&name), line_of(line));
    page += ".SH SYNOPSIS\n";
    synopsis(&mut page, verb);
    page += ".SH DESCRIPTION\n";
    let long = verb.get_long_about().or(verb.get_about());
    paragraphs(&mut page, &text(long));
    let verbs: Vec<&Command> = verb.get_subcommands().filter(|it| is_shown(it)).collect();
    if !verbs.is_empty() {
        page += ".SH VERBS\n";
    }
    for it in &verbs {
        item(
            &mut page,
            &format!("\\fB{}\\fR", escaped(it.get_name())),
            &text(it.get_about()),
        );
    }
    arguments(&mut page, verb);
    if let Some(notes) = verb.get_after_help() {
        page += ".SH NOTES\n";
        paragraphs(&mut page, &text(Some(notes)));
    }
    if let Some(examples) = examples(verb.get_name()) {
        page += ".SH EXAMPLES\n.nf\n";
        for line in examples {
            page += &format!("{}\n", line_of(line));
        }
        page += ".fi\n";
    }
    page += ".SH EXIT STATUS\n";
    item(&mut page, "\\fB0\\fR", "success");
    for code in Code::ALL {
        let label = format!("\\fB{}\\fR (\\fI{}\\fR)", code as u8, escaped(code.name()));
        item(&mut page, &label, meaning(code));
    }
    page += ".PP\n";
    page += &line_of("The command mainstay explain CODE explains each of them.");
    page += "\n.SH FILES\n";
    for (path, content) in FILES {
        item(&mut page, &format!("\\fI{}\\fR", escaped(path)), content);
    }
    page += ".SH ENVIRONMENT\n";
    for (name, meaning) in ENVIRONMENT {
        item(&mut page, &format!("\\fB{}\\fR", escaped(name)), meaning);
    }
    page += ".SH SEE ALSO\n";
    let of_verbs = verbs.iter().filter(|it| it.get_name() != "help");
    let mut pages: Vec<String> = of_verbs.map(|it| title(program, it)).collect();
    if verb.get_name() != program.get_name() {
        pages.insert(0, program.get_name().to_owned());
    }
    pages.extend(["systemd", "journalctl"].map(str::to_owned));
    let pages = pages
        .iter()
        .map(|page| format!(".BR {} (1)", escaped(page)));
    page + &pages.collect::<Vec<_>>().join(" ,\n") + "\n"
}

/// Returns the name of a page: `mainstay-snapshot-list`.
fn title(program: &Command, verb: &Command) -> String {
    let name = verb.get_display_name().unwrap_or(verb.get_name());
    if verb.get_name() == program.get_name() || name.starts_with(program.get_name()) {
        name.to_owned()
    } else {
        format!("{}-{name}", program.get_name())
    }
}

fn is_shown(command: &Command) -> bool {
    !command.is_hide_set()
}

fn synopsis(page: &mut String, verb: &Command) {
    let usage = verb.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    for (at, line) in usage.lines().enumerate() {
        if at > 0 {
            page.push_str(".br\n");
        }
        let _ = writeln!(page, "{}", line_of(line.trim()));
    }
}

fn arguments(page: &mut String, verb: &Command) {
    let shown = || verb.get_arguments().filter(|arg| !arg.is_hide_set());
    let parts: [(&str, Vec<&Arg>); 2] = [
        (
            "ARGUMENTS",
            shown().filter(|arg| arg.is_positional()).collect(),
        ),
        (
            "OPTIONS",
            shown().filter(|arg| !arg.is_positional()).collect(),
        ),
    ];
    for (heading, args) in parts.iter().filter(|(_, args)| !args.is_empty()) {
        let _ = writeln!(page, ".SH {heading}");
        for arg in args {
            let help = arg.get_long_help().or(arg.get_help());
            item(page, &label(arg), &(text(help) + &values(arg)));
        }
    }
}

/// Returns the spelling of an argument: `-n, --lines N`.
fn label(arg: &Arg) -> String {
    let short = arg.get_short().map(|it| format!("\\fB\\-{it}\\fR"));
    let long = arg
        .get_long()
        .map(|it| format!("\\fB{}\\fR", escaped(&format!("--{it}"))));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let values = arg.get_value_names().unwrap_or_default();
    let values = values.iter().map(|it| format!("\\fI{}\\fR", escaped(it)));
    let values: Vec<String> = values.filter(|_| arg.get_action().takes_values()).collect();
    let names = names.join(", ");
    [names, values.join(" ")].join(" ").trim().to_owned()
}

/// Returns the values and the default of an argument, as the help shows them.
fn values(arg: &Arg) -> String {
    let mut text = String::new();
    if !arg.get_action().takes_values() {
        return text;
    }
    let default = arg.get_default_values().iter();
    let default: Vec<_> = default.map(|it| it.to_string_lossy()).collect();
    if !default.is_empty() {
        let _ = write!(text, " [default: {}]", default.join(" "));
    }
    let values = arg.get_possible_values();
    let values: Vec<&str> = values.iter().map(|it| it.get_name()).collect();
    if !values.is_empty() {
        let _ = write!(text, " [values: {}]", values.join(", "));
    }
    text
}

/// Writes a tagged paragraph. Further paragraphs of the text belong to it.
fn item(page: &mut String, label: &str, text: &str) {
    let _ = writeln!(page, ".TP\n{label}");
    for (at, paragraph) in text.split("\n\n").enumerate() {
        if at > 0 {
            page.push_str(".IP\n");
        }
        let _ = writeln!(page, "{}", line_of(paragraph));
    }
}

fn paragraphs(page: &mut String, text: &str) {
    for (at, paragraph) in text.split("\n\n").enumerate() {
        if at > 0 {
            page.push_str(".PP\n");
        }
        let _ = writeln!(page, "{}", line_of(paragraph));
    }
}

fn text(help: Option<&StyledStr>) -> String {
    help.map(ToString::to_string)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Returns a text as one line of roff.
fn line_of(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = escaped(&words.join(" "));
    // A line that begins with these is a request.
    match line.chars().next() {
        Some('.' | '\'') => format!("\\&{line}"),
        _ => line,
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '~' => escaped.push_str("\\(ti"),
            '`' => escaped.push_str("\\(ga"),
            c if c.is_ascii() => escaped.push(c),
            c => {
                let _ = write!(escaped, "\\[u{:04X}]", u32::from(c));
            }
        }
    }
    escaped
}
