//! The JSON parser.
//!
//! `serde_json` keeps no positions, but a `RawValue` borrows its slice of the text, and the address
//! of a slice gives its offset. The parser reads one level at a time, so each byte is read once per
//! level; the depth is bounded.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::diagnostic::{Code, Findings};
use super::tree::{Entry, MAX_DEPTH, Node, Span, Value};

pub(super) fn read<'a>(text: &'a str, findings: &mut Findings) -> Option<Node<'a>> {
    let source = text.strip_prefix('\u{feff}').unwrap_or(text);
    match serde_json::from_str::<&RawValue>(source) {
        Ok(raw) => value(text, raw, 0, findings),
        Err(error) => {
            syntax(text, text.len() - source.len(), &error, findings);
            None
        }
    }
}

fn value<'a>(
    text: &'a str,
    raw: &'a RawValue,
    depth: usize,
    findings: &mut Findings,
) -> Option<Node<'a>> {
    let source = raw.get();
    let span = span_in(text, source);
    if depth > MAX_DEPTH {
        findings.too_deep(span);
        return None;
    }
    let value = match source.as_bytes().first()? {
        b'{' => Value::Table(table(text, source, span, depth, findings)?),
        b'[' => {
            let raws: Vec<&RawValue> = parsed(text, source, span, findings)?;
            let mut list = Vec::with_capacity(raws.len());
            for raw in raws {
                list.push(self::value(text, raw, depth + 1, findings)?);
            }
            Value::List(list)
        }
        b'"' => Value::Text(parsed::<Text<'a>>(text, source, span, findings)?.0),
        b't' => Value::Bool(true),
        b'f' => Value::Bool(false),
        b'n' => Value::Null,
        _ => number(source),
    };
    Some(Node { value, span })
}

fn table<'a>(
    text: &'a str,
    source: &'a str,
    span: Span,
    depth: usize,
    findings: &mut Findings,
) -> Option<Vec<Entry<'a>>> {
    let members: Members<'a> = parsed(text, source, span, findings)?;
    let mut seen = BTreeSet::new();
    let mut entries = Vec::with_capacity(members.0.len());
    for (raw_key, raw) in members.0 {
        let span = span_in(text, raw_key.get());
        let key = parsed::<Text<'a>>(text, raw_key.get(), span, findings)?.0;
        let node = value(text, raw, depth + 1, findings)?;
        if seen.insert(key.clone()) {
            entries.push(Entry::new(key, span, node));
        } else {
            findings.duplicate_key(span);
        }
    }
    Some(entries)
}

fn number<'a>(source: &str) -> Value<'a> {
    match (source.parse(), source.parse::<f64>()) {
        (Ok(integer), _) => Value::Integer(integer),
        (_, Ok(float)) if float.is_finite() => Value::Float(float),
        _ => Value::Foreign("a number out of range"),
    }
}

fn parsed<'a, T: Deserialize<'a>>(
    text: &str,
    source: &'a str,
    span: Span,
    findings: &mut Findings,
) -> Option<T> {
    serde_json::from_str(source)
        .map_err(|error| syntax(text, span.start, &error, findings))
        .ok()
}

/// Reports `error`, which occurred in the part of the text that starts at byte `start`.
fn syntax(text: &str, start: usize, error: &serde_json::Error, findings: &mut Findings) {
    let source = text.get(start..).unwrap_or_default();
    let lines_before = source
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1));
    let line_start = start + lines_before.map(str::len).sum::<usize>();
    let at = (line_start + error.column().saturating_sub(1)).min(text.len());
    // The suffix " at line 1 column 2" is removed: its position is relative to the part.
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    findings.add(Code::Syntax, (at..at).into(), message, None);
}

/// Returns the byte range of `part`, a slice of `text`.
fn span_in(text: &str, part: &str) -> Span {
    let start = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    (start..start + part.len()).into()
}

/// A string, borrowed unless it contains escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Cow<'de, str>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Borrow).map(Text)
    }
}

/// The members of an object, duplicates included.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Vec<(&'de RawValue, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(All).map(Members)
    }
}
