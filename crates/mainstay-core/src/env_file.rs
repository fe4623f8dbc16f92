//! The grammar of an `env_file`: the common subset of systemd's `EnvironmentFile=` and Docker's
//! `--env-file`.
//!
//! Each line has the form `NAME=value`. A comment takes a whole line and begins with `#` (or `;`,
//! as in systemd). Both tools treat a later `#` as part of the value, so a password may contain
//! one. Nothing is expanded, and a backslash is an ordinary character. A value may be enclosed in
//! one pair of quotes, which is removed as in systemd. A leading `export ` is accepted, for files
//! that are also read by shells.

use std::fmt;

/// Parses the variables of a file, in file order. If a name occurs more than once, the last one
/// wins.
///
/// A byte order mark and CRs at line ends are skipped.
///
/// # Errors
/// If a line is malformed; the error describes the first such line.
pub fn parse(text: &str) -> Result<Vec<Variable<'_>>, Mistake> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut variables = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let line = index + 1;
        let found = parse_line(text).map_err(|problem| Mistake { line, problem })?;
        variables.extend(found.map(|(name, value, ends_like_comment)| Variable {
            line,
            name,
            value,
            ends_like_comment,
        }));
    }
    Ok(variables)
}

/// A variable of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Variable<'a> {
    /// The line number, from 1.
    pub line: usize,
    /// The name of the variable.
    pub name: &'a str,
    /// The value, without quotes.
    pub value: &'a str,
    /// Set if the value is unquoted and contains ` #`, which other tools (Compose, shells) treat as
    /// the start of a comment.
    pub ends_like_comment: bool,
}

/// A malformed line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line number, from 1.
    pub line: usize,
    problem: &'static str,
}

/// Formats the line number and the problem, never the value.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

fn parse_line(line: &str) -> Result<Option<(&str, &str, bool)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return Ok(None);
    }
    let line = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        _ => line,
    };
    let (name, value) = line.split_once('=').ok_or("no `=`")?;
    let (name, value) = (name.trim_end(), value.trim_start());
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '\0') {
        return Err("the text before `=` is not a variable name");
    }
    if value.contains('\0') {
        return Err("a NUL byte in the value");
    }
    for quote in ['"', '\''] {
        let Some(rest) = value.strip_prefix(quote) else {
            continue;
        };
        return match rest.split_once(quote) {
            None => Err("a quote is not closed"),
            Some((value, "")) => Ok(Some((name, value, false))),
            Some(_) => match rest.strip_suffix(quote) {
                Some(value) => Ok(Some((name, value, false))),
                None => {
                    Err("there is text after the closing quote; put a comment on a line of its own")
                }
            },
        };
    }
    let ends_like_comment = value.contains(" #") || value.contains("\t#");
    Ok(Some((name, value, ends_like_comment)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (line, expect) in [
            ("", Ok(None)),
            ("  # note", Ok(None)),
            ("; note", Ok(None)),
            ("A=1", Ok(Some(("A", "1", false)))),
            ("export A = 1 ", Ok(Some(("A", "1", false)))),
            ("export\tA=1", Ok(Some(("A", "1", false)))),
            ("exported=1", Ok(Some(("exported", "1", false)))),
            ("A=\"b c\"", Ok(Some(("A", "b c", false)))),
            ("A='b=c'", Ok(Some(("A", "b=c", false)))),
            ("A='it''s'", Ok(Some(("A", "it''s", false)))),
            ("A=", Ok(Some(("A", "", false)))),
            ("A=v # c", Ok(Some(("A", "v # c", true)))),
            ("A=v#c", Ok(Some(("A", "v#c", false)))),
            ("A=\"v # c\"", Ok(Some(("A", "v # c", false)))),
            ("A=b\"c\"", Ok(Some(("A", "b\"c\"", false)))),
            ("A=$HOME\\n", Ok(Some(("A", "$HOME\\n", false)))),
            ("A=\"b", Err("a quote is not closed")),
            (
                "A=\"b\" # c",
                Err("there is text after the closing quote; put a comment on a line of its own"),
            ),
            ("just words", Err("no `=`")),
            ("=x", Err("the text before `=` is not a variable name")),
            ("A B=x", Err("the text before `=` is not a variable name")),
            ("A\0=x", Err("the text before `=` is not a variable name")),
            ("A=x\0y", Err("a NUL byte in the value")),
            ("A='\0'", Err("a NUL byte in the value")),
        ] {
            assert_eq!(parse_line(line), expect, "{line}");
        }
    }

    #[test]
    fn files() {
        let values = |text| {
            let found = parse(text).map_err(|mistake| mistake.to_string())?;
            let found = found
                .iter()
                .map(|it| format!("{}:{}={}", it.line, it.name, it.value));
            Ok::<_, String>(found.collect::<Vec<_>>())
        };
        let expect = || Ok(vec!["1:A=1".to_owned(), "3:B=2".to_owned()]);
        assert_eq!(values("A=1\n\nB=2\n"), expect());
        assert_eq!(values("\u{feff}A=1\r\n\r\nB=2\r\n"), expect());
        assert_eq!(values("A=1\n# x\nB='2'"), expect());
        assert_eq!(values("\u{feff}"), Ok(vec![]));
        assert_eq!(values("A=1\nB"), Err("line 2: no `=`".to_owned()));
        assert_eq!(
            values("A=1\n\u{feff}B=\"x"),
            Err("line 2: a quote is not closed".to_owned())
        );
    }
}
