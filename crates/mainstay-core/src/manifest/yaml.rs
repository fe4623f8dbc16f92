//! The YAML parser for one document of plain data. Anchors, aliases and tags are rejected, so that
//! a small text cannot expand into a large tree and every value is written where it is used. Plain
//! scalars follow YAML 1.2's core schema (`no` is text).

use std::borrow::Cow;
use std::collections::BTreeSet;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};

use super::diagnostic::{Code, Findings};
use super::tree::{Entry, MAX_DEPTH, Node, Span, Value};

pub(super) fn read<'a>(text: &'a str, findings: &mut Findings) -> Option<Node<'a>> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        offsets: Offsets::new(text),
        findings,
    };
    let root = reader.document()?;
    // The rest is read as well: it may contain a syntax error or a second document.
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Some(root),
            (Event::DocumentStart(_), span) => {
                reader.refuse(
                    span,
                    "a second document",
                    "a manifest is one document: remove what follows `---`",
                );
                return Some(root);
            }
            _ => {}
        }
    }
}

struct Reader<'a, 'f> {
    parser: Parser<'a, StrInput<'a>>,
    offsets: Offsets,
    findings: &'f mut Findings,
}

impl<'a> Reader<'a, '_> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        match self.parser.next_event()? {
            Ok((event, span)) => {
                let span = self.offsets.span(span.start.index(), span.end.index());
                Some((event, span))
            }
            Err(error) => {
                self.syntax(&error);
                None
            }
        }
    }

    fn syntax(&mut self, error: &ScanError) {
        let at = error.marker().index();
        let span = self.offsets.span(at, at);
        self.findings.add(Code::Syntax, span, error.info(), None);
    }

    fn refuse(&mut self, span: Span, what: &str, help: &str) {
        let message = format!("{what} is not allowed here");
        self.findings
            .add(Code::YamlFeature, span, message, Some(help));
    }

    fn document(&mut self) -> Option<Node<'a>> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
                (Event::StreamEnd, _) => return Some(empty()),
                (event, span) => return self.value(event, span, 0),
            }
        }
    }

    fn value(&mut self, event: Event<'a>, span: Span, depth: usize) -> Option<Node<'a>> {
        if depth > MAX_DEPTH {
            self.findings.too_deep(span);
            return None;
        }
        let (value, anchor, tagged) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(text, style), anchor, tag.is_some()),
            Event::SequenceStart(anchor, tag) => (self.list(depth)?, anchor, tag.is_some()),
            Event::MappingStart(anchor, tag) => (self.table(depth)?, anchor, tag.is_some()),
            Event::Alias(_) => {
                self.refuse(span, "an alias", "write the value out");
                (Value::Null, 0, false)
            }
            // The parser never yields another event in place of a value.
            _ => (Value::Null, 0, false),
        };
        if anchor != 0 {
            self.refuse(span, "an anchor", "remove the `&name`");
        }
        if tagged {
            self.refuse(
                span,
                "a tag",
                "remove the `!tag`; quote a string to keep it one",
            );
        }
        Some(Node { value, span })
    }

    fn list(&mut self, depth: usize) -> Option<Value<'a>> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Some(Value::List(list)),
                (event, span) => list.push(self.value(event, span, depth + 1)?),
            }
        }
    }

    fn table(&mut self, depth: usize) -> Option<Value<'a>> {
        let mut seen = BTreeSet::new();
        let mut entries = Vec::new();
        loop {
            let (event, key_span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Some(Value::Table(entries)),
                Event::Scalar(text, ..) => text,
                event => {
                    self.value(event, key_span, depth + 1)?;
                    self.refuse(key_span, "a key that is not a scalar", "write a plain name");
                    Cow::Borrowed("")
                }
            };
            let (event, span) = self.next()?;
            let node = self.value(event, span, depth + 1)?;
            if seen.insert(key.clone()) {
                entries.push(Entry::new(key, key_span, node));
            } else {
                self.findings.duplicate_key(key_span);
            }
        }
    }
}

fn empty<'a>() -> Node<'a> {
    Node {
        value: Value::Table(Vec::new()),
        span: Span::default(),
    }
}

fn scalar<'a>(text: Cow<'a, str>, style: ScalarStyle) -> Value<'a> {
    if style != ScalarStyle::Plain {
        return Value::Text(text);
    }
    let radix = |prefix, radix| {
        text.strip_prefix(prefix)
            .filter(|digits| !digits.starts_with(['+', '-']))
            .and_then(|digits| i64::from_str_radix(digits, radix).ok())
    };
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && text.contains(|c: char| c.is_ascii_digit());
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if numeric => {
            let integer = text.parse().ok();
            if let Some(integer) = integer.or(radix("0x", 16)).or(radix("0o", 8)) {
                return Value::Integer(integer);
            }
            match text.parse::<f64>() {
                Ok(float) if float.is_finite() => Value::Float(float),
                Ok(_) => Value::Foreign("a number out of range"),
                Err(_) => Value::Text(text),
            }
        }
        _ => Value::Text(text),
    }
}

/// A conversion from the parser's character indexes to byte offsets.
struct Offsets {
    /// The byte offset of each character; `None` if the text is ASCII, so that the two agree.
    of_char: Option<Vec<usize>>,
    len: usize,
}

impl Offsets {
    fn new(text: &str) -> Self {
        let of_char = (!text.is_ascii()).then(|| text.char_indices().map(|(i, _)| i).collect());
        let len = text.len();
        Self { of_char, len }
    }

    fn span(&self, start: usize, end: usize) -> Span {
        let byte = |index: usize| match &self.of_char {
            Some(offsets) => offsets.get(index).copied().unwrap_or(self.len),
            None => index.min(self.len),
        };
        let start = byte(start);
        (start..byte(end).max(start)).into()
    }
}
