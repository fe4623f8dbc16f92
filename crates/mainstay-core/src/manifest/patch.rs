//! Changes of single keys in the text of a manifest. Every other byte stays: comments, order,
//! spacing.
//!
//! The text is scanned into *entries* with their positions: the statements of TOML, the members of
//! inline tables, the members of JSON objects. A key may have one entry, or several (a table in a
//! section of its own, or made of dotted keys), or none. An edit replaces the value of one entry,
//! cuts entries out, or inserts one where the table of the key has its others. The result is parsed
//! and compared with what the edit should yield: a text is changed as requested, or not at all.

mod scan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use serde_json::{Map, Value as Json};

use self::scan::{Entry, Kind, Scan};
use super::diagnostic::{Diagnostic, Findings};
use super::tree::{Node, Value};
use super::write::{to_toml, toml_key};
use super::{Format, read};

/// A change of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// The names from the root to the key, for example `service`, `web`, `log`, `level`.
    path: Vec<String>,
    /// The new value; `None` removes the key.
    value: Option<Json>,
}

impl Edit {
    /// Creates an edit that gives a key this value, whether it exists or not. Missing tables on its
    /// path are added.
    pub fn set<T: Into<String>>(path: impl IntoIterator<Item = T>, value: Json) -> Self {
        let path = path.into_iter().map(Into::into).collect();
        let value = Some(value);
        Self { path, value }
    }

    /// Creates an edit that removes a key, with everything in it. Its table stays, even if empty. A
    /// missing key is no error.
    pub fn remove<T: Into<String>>(path: impl IntoIterator<Item = T>) -> Self {
        let path = path.into_iter().map(Into::into).collect();
        Self { path, value: None }
    }
}

/// The reason why a text cannot be patched. It is unchanged.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatchError {
    /// Texts of this format cannot be patched. The structure of YAML is its indentation, and the
    /// same tree has many forms that depend on the lines around it.
    Format(Format),
    /// The text is not valid.
    Invalid(Vec<Diagnostic>),
    /// This key on the path has a value that is not a table.
    NotATable(String),
    /// The new value, or the path, cannot be written in the format.
    Inexpressible(String),
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(format) => write!(
                f,
                "a manifest in {} cannot be changed without rewriting it",
                format.name().to_ascii_uppercase()
            ),
            Self::Invalid(_) => f.write_str("the manifest is not valid"),
            Self::NotATable(path) => write!(f, "`{path}` is not a table"),
            Self::Inexpressible(path) => write!(f, "`{path}` cannot have this value"),
        }
    }
}

impl std::error::Error for PatchError {}

/// Applies edits one after the other to the text of a manifest, and leaves every other byte as it
/// is. A new value is written on one line. A statement that is removed takes the comment behind it
/// on its last line with it; comments on lines of their own stay.
///
/// The keys need not be those of a manifest: [`parse`](super::parse) checks the result.
///
/// # Errors
/// If the text, the format or the edit does not allow it.
pub fn patch(text: &str, format: Format, edits: &[Edit]) -> Result<String, PatchError> {
    let mut text = text.to_owned();
    for edit in edits {
        text = Patch::new(&text, format)?.apply(edit)?;
    }
    Ok(text)
}

/// A text to be changed.
struct Patch<'a> {
    text: &'a str,
    format: Format,
    scan: Scan,
    /// The content of the text.
    content: Json,
    /// The line ending of the text: that of its first line.
    newline: &'static str,
}

impl<'a> Patch<'a> {
    fn new(text: &'a str, format: Format) -> Result<Self, PatchError> {
        let mut findings = Findings::default();
        let scan = match format {
            Format::Toml => Scan::of_toml,
            Format::Json => Scan::of_json,
            Format::Yaml => return Err(PatchError::Format(format)),
        };
        let tree = read(text, format, &mut findings);
        match &tree {
            Some(tree) if findings.is_empty() => Ok(Self {
                text,
                format,
                scan: scan(text),
                content: plain(tree),
                newline: match text.find('\n') {
                    Some(at) if text[..at].ends_with('\r') => "\r\n",
                    _ => "\n",
                },
            }),
            _ => Err(PatchError::Invalid(findings.finish(text, tree.as_ref()))),
        }
    }

    /// Returns the text after a part of the edit. The last line may be gone, with its ending.
    fn next<'b>(&self, text: &'b str) -> Result<Patch<'b>, PatchError> {
        let newline = self.newline;
        let next = Patch::new(text, self.format)?;
        Ok(Patch { newline, ..next })
    }

    fn apply(&self, edit: &Edit) -> Result<String, PatchError> {
        let Edit { path, value } = edit;
        let inexpressible = || PatchError::Inexpressible(path.join("."));
        if path.is_empty() || value.as_ref().is_some_and(has_null) {
            return Err(inexpressible());
        }
        let expected = self.expected(edit)?;
        if expected == self.content {
            return Ok(self.text.to_owned());
        }
        let changed = match value {
            Some(value) => self.set(path, value)?,
            None => self.remove(path)?,
        };
        let is_right = Patch::new(&changed, self.format).is_ok_and(|it| it.content == expected);
        is_right.then_some(changed).ok_or_else(inexpressible)
    }

    /// Returns the content of the changed text.
    fn expected(&self, edit: &Edit) -> Result<Json, PatchError> {
        let mut expected = self.content.clone();
        let mut place = &mut expected;
        for (depth, name) in edit.path.iter().enumerate() {
            let not_a_table = || PatchError::NotATable(edit.path[..depth].join("."));
            let entries = place.as_object_mut().ok_or_else(not_a_table)?;
            let is_last = depth + 1 == edit.path.len();
            if edit.value.is_none() && (is_last || !entries.contains_key(name)) {
                entries.remove(name);
                return Ok(expected);
            }
            let empty = || Json::Object(Map::new());
            place = entries.entry(name).or_insert_with(empty);
        }
        if let Some(value) = &edit.value {
            *place = value.clone();
        }
        Ok(expected)
    }

    fn set(&self, path: &[String], value: &Json) -> Result<String, PatchError> {
        let entries = &self.scan.entries;
        if let Some(entry) = entries.iter().find(|it| it.path == path)
            && let Some(old) = &entry.value
        {
            return Ok(self.replaced(old.clone(), &self.rendered(value)));
        }
        if entries.iter().any(|it| it.path.starts_with(path)) {
            let without = self.cut(path)?;
            return Ok(self.next(&without)?.insert(path, value));
        }
        Ok(self.insert(path, value))
    }

    fn remove(&self, path: &[String]) -> Result<String, PatchError> {
        let text = self.cut(path)?;
        let table = &path[..path.len() - 1];
        let rest = self.next(&text)?;
        let mut names = table.iter();
        if names
            .try_fold(&rest.content, |it, name| it.get(name))
            .is_some()
        {
            return Ok(text);
        }
        // Only this key had made the table.
        Ok(rest.insert(table, &Json::Object(Map::new())))
    }

    /// Cuts out every entry of a key, the last one first: without its header, a statement would
    /// belong to another section. Each cut may change which comma separates the others.
    fn cut(&self, path: &[String]) -> Result<String, PatchError> {
        let is_part = |it: &&Entry| it.path.starts_with(path);
        let entries = self.scan.entries.iter().filter(is_part);
        let Some(last) = entries.clone().next_back() else {
            return Ok(self.text.to_owned());
        };
        // What is in its value goes with it.
        let mut entries = entries.skip_while(|it| it.end < last.end);
        let entry = entries.next().unwrap_or(last);
        let (first, second) = match entry.kind {
            Kind::Header { .. } | Kind::Line { .. } => {
                let lines = self.line_start(entry.start)..self.line_end(entry.end);
                (lines, 0..0)
            }
            Kind::Member { before, after, .. } => match (before, after) {
                (_, Some(comma)) => (self.member(entry), self.comma(comma)),
                (Some(comma), None) => (self.comma(comma), self.member(entry)),
                (None, None) => (self.member(entry), 0..0),
            },
        };
        let between = first.end..second.start;
        let rest = first.end.max(second.end);
        let kept = [
            &self.text[..first.start],
            self.text.get(between).unwrap_or_default(),
            &self.text[rest..],
        ];
        Patch::new(&kept.concat(), self.format)?.cut(path)
    }

    /// Returns the range of a member of a table, with its line if it has one of its own.
    fn member(&self, entry: &Entry) -> Range<usize> {
        let line = self.line_start(entry.start)..self.line_end(entry.end);
        let (before, after) = (
            &self.text[line.start..entry.start],
            &self.text[entry.end..line.end],
        );
        let rest = after.trim_start_matches([' ', '\t', ',']);
        let is_alone = before.trim().is_empty() && matches!(rest, "\n" | "\r\n");
        if is_alone {
            line
        } else {
            entry.start..entry.end
        }
    }

    /// Returns the range of a comma, with the space behind it.
    fn comma(&self, comma: usize) -> Range<usize> {
        let after = &self.text[comma + 1..];
        let rest = after.trim_start_matches([' ', '\t']);
        if rest.starts_with('#') {
            comma..comma + 1
        } else {
            comma..self.text.len() - rest.len()
        }
    }

    /// Inserts a key that has no entry.
    fn insert(&self, path: &[String], value: &Json) -> String {
        // A table of the root gets a section.
        let is_of_root = self.format != Format::Toml || path.len() == 1 && !value.is_object();
        let depths = (usize::from(!is_of_root)..path.len()).rev();
        let place = { depths }.find_map(|depth| self.place(&path[..depth]));
        match place {
            Some(Place::Behind(entry, base)) => self.insert_behind(entry, &path[base..], value),
            Some(Place::Within(open, base)) => {
                let space = if self.text[open..].starts_with('}') {
                    " "
                } else {
                    ""
                };
                let entry = self.entry(&path[base..], value);
                self.replaced(open..open, &format!(" {entry}{space}"))
            }
            Some(Place::Header(entry, base)) => {
                let line = self.entry(&path[base..], value);
                self.insert_line(entry.end, self.indent(entry), &line)
            }
            None => self.insert_section(path, value),
        }
    }

    /// Returns the place where the table at `path` has its entries, if it has one.
    fn place(&self, path: &[String]) -> Option<Place<'_>> {
        let entries = &self.scan.entries;
        if let Some(open) = self.scan.root.filter(|_| path.is_empty()) {
            let mut members = entries.iter().filter(|it| it.base() == Some(0));
            let last = members.next_back().map(|it| Place::Behind(it, 0));
            return last.or(Some(Place::Within(open, 0)));
        }
        let has_key = |it: &&Entry| it.path.len() > path.len() && it.path.starts_with(path);
        let own = entries
            .iter()
            .position(|it| it.path == path && it.is_table());
        let Some(own) = own else {
            // Only dotted keys make it; or, for the root, there is no header.
            let mut keys = entries.iter().filter(has_key);
            let last = keys.rfind(|it| it.base().is_some_and(|base| base <= path.len()))?;
            return Some(Place::Behind(last, last.base()?));
        };
        let (table, base) = (&entries[own], path.len());
        let is_inside = |it: &&Entry| match table.kind {
            Kind::Header { .. } => {
                it.kind
                    == Kind::Line {
                        base,
                        header: Some(own),
                    }
            }
            _ => it.start > table.start && it.end <= table.end && it.base() == Some(base),
        };
        let last = entries.iter().rfind(is_inside);
        Some(match (last, table.open) {
            (Some(last), _) => Place::Behind(last, base),
            (None, Some(open)) => Place::Within(open, base),
            (None, None) => Place::Header(table, base),
        })
    }

    fn insert_behind(&self, entry: &Entry, names: &[String], value: &Json) -> String {
        let new = self.entry(names, value);
        match entry.kind {
            Kind::Member { .. } => {
                let begin = self.line_start(entry.start);
                let indent = &self.text[begin..entry.start];
                let is_first = indent.chars().all(|c| c == ' ' || c == '\t');
                let gap = if is_first && begin > 0 {
                    format!("{}{indent}", self.newline)
                } else {
                    " ".to_owned()
                };
                self.replaced(entry.end..entry.end, &format!(",{gap}{new}"))
            }
            _ => self.insert_line(entry.end, self.indent(entry), &new),
        }
    }

    /// Inserts a section with a key whose table has no place in the text; a root key, if there is
    /// none yet, at the top.
    fn insert_section(&self, path: &[String], value: &Json) -> String {
        let newline = self.newline;
        let (table, lines): (&[String], Vec<String>) = match (value, path.split_last()) {
            (Json::Object(keys), _) => {
                let line = |(key, value): (&String, &Json)| {
                    self.entry(std::slice::from_ref(key), value) + newline
                };
                (path, keys.iter().map(line).collect())
            }
            (_, Some((key, table))) => {
                let line = self.entry(std::slice::from_ref(key), value) + newline;
                (table, vec![line])
            }
            (_, None) => return self.text.to_owned(),
        };
        let lines = lines.concat();
        if table.is_empty() {
            let begin = self.text.len() - self.text.trim_start_matches('\u{feff}').len();
            return self.replaced(begin..begin, &lines);
        }
        let names: Vec<String> = table.iter().map(|name| toml_key(name)).collect();
        // Beside its relatives, or at the end.
        let of_table = |it: &Entry, depth: usize| it.path.starts_with(&table[..depth]);
        let depths = (0..=table.len()).rev();
        let last = |depth| {
            let entries = self.scan.entries.iter();
            let relatives = entries.filter(|it| of_table(it, depth));
            relatives.max_by_key(|it| it.end)
        };
        let at = { depths }.find_map(last);
        let at = at.map_or(self.text.len(), |it| self.line_end(it.end));
        let before = &self.text[..at];
        let gap = match before {
            "" => String::new(),
            _ if before.ends_with('\n') => newline.to_owned(),
            _ => newline.repeat(2),
        };
        let section = format!("{gap}[{}]{newline}{lines}", names.join("."));
        self.replaced(at..at, &section)
    }

    /// Inserts a line after the one in which `end` is.
    fn insert_line(&self, end: usize, indent: &str, line: &str) -> String {
        let (at, newline) = (self.line_end(end), self.newline);
        let new = if self.text[..at].ends_with('\n') {
            format!("{indent}{line}{newline}")
        } else {
            format!("{newline}{indent}{line}")
        };
        self.replaced(at..at, &new)
    }

    /// Returns an entry of the format: a key, relative to its table, and its value.
    fn entry(&self, names: &[String], value: &Json) -> String {
        if self.format == Format::Toml {
            let names: Vec<String> = names.iter().map(|name| toml_key(name)).collect();
            return format!("{} = {}", names.join("."), self.rendered(value));
        }
        let Some((name, rest)) = names.split_first() else {
            return self.rendered(value);
        };
        let value = match rest {
            [] => self.rendered(value),
            rest => format!("{{ {} }}", self.entry(rest, value)),
        };
        format!("{}: {value}", Json::from(&**name))
    }

    fn rendered(&self, value: &Json) -> String {
        match self.format {
            Format::Toml => to_toml(value),
            _ => value.to_string(),
        }
    }

    fn replaced(&self, range: Range<usize>, new: &str) -> String {
        let mut text = self.text.to_owned();
        text.replace_range(range, new);
        text
    }

    /// Returns the white space before an entry.
    fn indent(&self, entry: &Entry) -> &str {
        let line = &self.text[self.line_start(entry.start)..entry.start];
        let text = line.trim_start_matches([' ', '\t']);
        &line[..line.len() - text.len()]
    }

    fn line_start(&self, at: usize) -> usize {
        let newline = self.text[..at].rfind('\n').map(|newline| newline + 1);
        newline.unwrap_or(self.text.len() - self.text.trim_start_matches('\u{feff}').len())
    }

    /// Returns the end of the line in which `at` is, after its line ending.
    fn line_end(&self, at: usize) -> usize {
        let newline = self.text[at..].find('\n');
        newline.map_or(self.text.len(), |newline| at + newline + 1)
    }
}

/// The place of a table's next entry, and the depth of the table that its key is relative to.
enum Place<'a> {
    /// After another entry of the table.
    Behind(&'a Entry, usize),
    /// After the opening brace of a table without members.
    Within(usize, usize),
    /// After the header of a section without keys.
    Header(&'a Entry, usize),
}

fn has_null(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Array(items) => items.iter().any(has_null),
        Json::Object(keys) => keys.values().any(has_null),
        _ => false,
    }
}

/// Returns the content of a tree, without positions.
fn plain(node: &Node<'_>) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Integer(value) => (*value).into(),
        Value::Float(value) => match serde_json::Number::from_f64(*value) {
            Some(value) => Json::Number(value),
            None => value.to_string().into(),
        },
        Value::Text(text) => (&**text).into(),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Table(entries) => {
            let entries = entries.iter();
            let entries = entries.map(|it| (it.key.value.clone().into_owned(), plain(&it.node)));
            Json::Object(entries.collect())
        }
        Value::Foreign(kind) => (*kind).into(),
    }
}
