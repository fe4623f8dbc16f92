//! The check of comments: their width, and the first words of doc comments.
//!
//! A doc comment begins with a noun phrase or a verb. One that begins with a pronoun or a question
//! word leaves its subject to the reader.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Result, root};

const WIDTH: usize = 100;
/// Directories with Rust sources.
const DIRS: [&str; 4] = ["crates", "examples", "fuzz", "xtask"];
const BANNED: [&str; 16] = [
    "By", "Has", "How", "It", "Its", "Of", "That", "They", "Those", "What", "Where", "Whether",
    "Who", "Whom", "Whose", "Why",
];
/// Files that may begin doc comments with any word, because these are the program's output: the
/// descriptions of the manifest's keys in its JSON Schema.
const EXEMPT: [&str; 1] = ["crates/mainstay-core/src/manifest/tables.rs"];

/// Returns the problems of all sources, one line each: file, line and cause.
pub(crate) fn problems() -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for path in sources()? {
        let name = path
            .strip_prefix(root())
            .unwrap_or(&path)
            .display()
            .to_string();
        let text = fs::read_to_string(&path)?;
        let found = problems_of(&text).into_iter();
        let found = found.filter(|(_, cause)| {
            !matches!(cause, Cause::Word(_)) || !EXEMPT.iter().any(|it| name == *it)
        });
        problems.extend(found.map(|(line, cause)| match cause {
            Cause::Width(width) => format!("{name}:{line}: {width} columns, more than {WIDTH}"),
            Cause::Word(word) => format!("{name}:{line}: a doc comment begins with {word:?}"),
        }));
    }
    Ok(problems)
}

#[derive(Debug, PartialEq)]
enum Cause<'a> {
    Width(usize),
    Word(&'a str),
}

fn problems_of(text: &str) -> Vec<(usize, Cause<'_>)> {
    let mut problems = Vec::new();
    let mut is_within = false;
    for (line, number) in text.lines().zip(1..) {
        let code = line.trim_start();
        let doc = code.strip_prefix("///").or(code.strip_prefix("//!"));
        let width = line.chars().count();
        // A row of a table cannot be wrapped.
        let is_row = doc.is_some_and(|doc| doc.trim_start().starts_with('|'));
        if code.starts_with("//") && width > WIDTH && !is_row {
            problems.push((number, Cause::Width(width)));
        }
        let word = doc.and_then(|doc| doc.split_ascii_whitespace().next());
        if let Some(word) = word.filter(|word| !is_within && BANNED.contains(word)) {
            problems.push((number, Cause::Word(word)));
        }
        is_within = doc.is_some();
    }
    problems
}

/// Returns the Rust sources of the workspace, without those of build directories.
pub(crate) fn sources() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = DIRS.iter().map(|dir| root().join(dir)).collect();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension() == Some(Path::new("rs").as_os_str()) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_judged_and_code_is_not() {
        let long = "x".repeat(WIDTH);
        let text = format!(
            "//! Whose file\n//! it is.\n\n/// A noun.\n/// What follows is another line.\nfn f() {{\n    \
             // {long}\n    let it = \"{long}\";\n}}\n/// | {long} |\n\n/// Has it.\n"
        );
        let found = problems_of(&text);
        let expect = [
            (1, Cause::Word("Whose")),
            (7, Cause::Width(WIDTH + 7)),
            (12, Cause::Word("Has")),
        ];
        assert_eq!(found, expect);
    }
}
