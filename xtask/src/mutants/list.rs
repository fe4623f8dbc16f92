//! The lists of mutants, `xtask/mutants/*.list`.
//!
//! A mutant is a paragraph: the guarantee that it breaks, the file, and a hunk of a diff. Each line
//! of the hunk begins with a space (kept), `-` (removed) or `+` (added). Indentation does not
//! count. `#` begins a comment.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{Result, root};

/// The directory of the lists.
const DIR: &str = "xtask/mutants";

/// A fault that the tests must find.
#[derive(Debug)]
pub(super) struct Mutant {
    /// The guarantee that it breaks.
    pub(super) name: String,
    /// The name of its list.
    pub(super) area: String,
    /// The file that it changes, relative to the workspace.
    pub(super) file: String,
    hunk: Vec<(Change, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Keep,
    Remove,
    Add,
}

impl Mutant {
    /// Returns the text of its file with the fault in it.
    ///
    /// # Errors
    /// If the lines that it changes do not occur exactly once.
    pub(super) fn apply(&self, text: &str) -> Result<String, String> {
        let lines: Vec<&str> = text.lines().collect();
        let old = self.hunk.iter().filter(|(it, _)| *it != Change::Add);
        let old: Vec<&str> = old.map(|(_, line)| line.as_str()).collect();
        let is_here = |window: &[&str]| window.iter().zip(&old).all(|(it, old)| it.trim() == *old);
        let windows = lines.windows(old.len()).enumerate();
        let mut found = windows.filter(|(_, it)| is_here(it)).map(|(at, _)| at);
        let at = match (found.next(), found.count()) {
            (Some(at), 0) => at,
            (Some(_), more) => return Err(format!("its lines occur {} times", more + 1)),
            (None, _) => return Err("its lines do not occur".to_owned()),
        };
        let mut rest = lines[at..].iter().copied();
        let mut mutated = lines[..at].to_vec();
        for (change, line) in &self.hunk {
            match change {
                Change::Keep => mutated.extend(rest.next()),
                Change::Remove => drop(rest.next()),
                Change::Add => mutated.push(line),
            }
        }
        mutated.extend(rest);
        Ok(mutated.join("\n") + "\n")
    }
}

/// Returns all mutants, and the problems of their lists.
pub(super) fn load() -> Result<(Vec<Mutant>, Vec<String>)> {
    let (mut all, mut problems) = (Vec::new(), Vec::new());
    let mut paths: Vec<_> = fs::read_dir(root().join(DIR))?
        .map(|entry| entry.map(|it| it.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        let area = path.file_stem().unwrap_or_default().to_string_lossy();
        let (mutants, wrong) = parse(&area, &fs::read_to_string(&path)?);
        all.extend(mutants);
        problems.extend(wrong);
    }
    let mut names = BTreeSet::new();
    for mutant in all.iter().filter(|it| !names.insert(&it.name)) {
        problems.push(format!("{}: two mutants have this name", mutant.name));
    }
    Ok((all, problems))
}

/// Returns the problems of the lists: mutants that cannot be parsed, or that their files do not
/// contain.
pub(super) fn problems(root: &Path) -> Result<Vec<String>> {
    let (all, mut problems) = load()?;
    for mutant in all {
        let found = match fs::read_to_string(root.join(&mutant.file)) {
            Ok(text) => mutant.apply(&text).map(drop),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = found {
            let Mutant {
                name, area, file, ..
            } = mutant;
            problems.push(format!("{DIR}/{area}.list: {name}: {file}: {why}"));
        }
    }
    Ok(problems)
}

/// Parses a list. Returns its mutants, and problems.
fn parse(area: &str, text: &str) -> (Vec<Mutant>, Vec<String>) {
    let (mut all, mut problems) = (Vec::new(), Vec::new());
    let lines: Vec<(usize, &str)> = (1..).zip(text.lines()).collect();
    let lines = lines.split(|(_, line)| line.is_empty());
    for paragraph in lines {
        let mut lines = paragraph.iter().filter(|(_, line)| !line.starts_with('#'));
        let Some((number, name)) = lines.next() else {
            continue;
        };
        let file = lines.next().map(|(_, file)| (*file).to_owned());
        let hunk: Option<Vec<_>> = lines.map(|(_, line)| change(line)).collect();
        let has = |hunk: &[(Change, String)], one| hunk.iter().any(|(it, _)| *it == one);
        match (file, hunk) {
            (Some(file), Some(hunk)) if has(&hunk, Change::Remove) || has(&hunk, Change::Add) => {
                all.push(Mutant {
                    name: (*name).to_owned(),
                    area: area.to_owned(),
                    file,
                    hunk,
                });
            }
            _ => problems.push(format!(
                "{DIR}/{area}.list:{number}: a mutant is a name, a file, and lines that begin with \
                 a space, `-` or `+`"
            )),
        }
    }
    (all, problems)
}

/// Parses a line of a hunk.
fn change(line: &str) -> Option<(Change, String)> {
    let (change, rest) = match line.split_at_checked(1)? {
        (" ", rest) => (Change::Keep, rest),
        ("-", rest) => (Change::Remove, rest),
        ("+", rest) => (Change::Add, rest),
        _ => return None,
    };
    Some((change, rest.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn one(text: &str) -> Mutant {
        let (mut all, problems) = parse("area", text);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn a_mutant_changes_the_lines_of_its_hunk() {
        let mutant = one("# A comment.\n\nit is warm\nsrc/a.rs\n  b();\n- c(1);\n+ c(2);\n");
        assert_eq!(
            (&*mutant.name, &*mutant.file, &*mutant.area),
            ("it is warm", "src/a.rs", "area")
        );
        let mutated = mutant.apply("a();\n    b();\n    c(1);\nd();\n");
        assert_eq!(mutated.as_deref(), Ok("a();\n    b();\nc(2);\nd();\n"));
        let missing = mutant.apply("b();\nd();\nc(1);\n").unwrap_err();
        assert_eq!(missing, "its lines do not occur");
        let twice = mutant.apply("b();\nc(1);\nb();\nc(1);\n").unwrap_err();
        assert_eq!(twice, "its lines occur 2 times");
    }

    #[test]
    fn malformed_mutants_are_named() {
        for text in [
            "a name",
            "a name\nfile",
            "a name\nfile\nc(1);",
            "a name\nfile\n c(1);",
        ] {
            let (all, problems) = parse("area", &format!("\n{text}\n"));
            assert!(all.is_empty());
            let is_named = problems[0].starts_with("xtask/mutants/area.list:2: ");
            assert!(is_named && problems.len() == 1, "{problems:?}");
        }
    }
}
