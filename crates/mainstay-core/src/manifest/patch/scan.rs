//! The positions of keys and values in a text that is known to be valid.

use std::mem;
use std::ops::Range;

use toml_parser::Source;
use toml_parser::parser::{Event, EventKind, parse_document};

/// The entries of a text, in its order. Lists are values: what is in them has no entries.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) entries: Vec<Entry>,
    /// The position after the opening brace of the root, in JSON.
    pub(super) root: Option<usize>,
}

/// A key with a value, or the header of a section.
#[derive(Debug)]
pub(super) struct Entry {
    /// The names from the root.
    pub(super) path: Vec<String>,
    /// From the first byte of the key or header to the last of the value or header.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) value: Option<Range<usize>>,
    /// The position after the opening brace, if the value is a table.
    pub(super) open: Option<usize>,
    pub(super) kind: Kind,
}

/// The form of an entry. `base` is the number of names in its path that its key does not contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `[path]`, or `[[path]]` for an element of a list.
    Header { is_element: bool },
    /// A statement in the section of this header.
    Line { base: usize, header: Option<usize> },
    /// A member of a table in braces, and the commas on both sides of it.
    Member {
        base: usize,
        before: Option<usize>,
        after: Option<usize>,
    },
}

impl Entry {
    pub(super) fn base(&self) -> Option<usize> {
        match self.kind {
            Kind::Header { .. } => None,
            Kind::Line { base, .. } | Kind::Member { base, .. } => Some(base),
        }
    }

    /// Returns whether this entry alone makes a table to which keys can be added.
    pub(super) fn is_table(&self) -> bool {
        self.open.is_some() || self.kind == Kind::Header { is_element: false }
    }
}

impl Scan {
    pub(super) fn of_toml(text: &str) -> Self {
        let mut scanner = Scanner::default();
        let source = Source::new(text);
        let tokens: Vec<_> = source.lex().collect();
        let mut header = None;
        let mut receive = |event: Event| {
            let span = event.span().start()..event.span().end();
            match event.kind() {
                EventKind::StdTableOpen | EventKind::ArrayTableOpen => header = Some(span.start),
                EventKind::StdTableClose | EventKind::ArrayTableClose => {
                    let is_element = event.kind() == EventKind::ArrayTableClose;
                    if let Some(start) = header.take() {
                        scanner.header(start..span.end, is_element);
                    }
                }
                EventKind::SimpleKey => {
                    let mut name = String::new();
                    if let Some(raw) = source.get(event) {
                        raw.decode_key(&mut name, &mut ());
                    }
                    scanner.name(span.start, name);
                }
                EventKind::KeyValSep => scanner.begin(),
                EventKind::Scalar => scanner.complete(span),
                EventKind::ArrayOpen => scanner.open_list(span.start),
                EventKind::InlineTableOpen => scanner.open_table(span),
                EventKind::ArrayClose | EventKind::InlineTableClose => scanner.close(span.end),
                EventKind::ValueSep => scanner.comma(span.start),
                _ => {}
            }
        };
        parse_document(&tokens, &mut receive, &mut ());
        scanner.scan
    }

    pub(super) fn of_json(text: &str) -> Self {
        let mut scanner = Scanner::default();
        let mut at = 0;
        while let Some(byte) = text.as_bytes().get(at) {
            let end = match byte {
                b'"' => {
                    let mut is_escaped = false;
                    let quote = text.as_bytes()[at + 1..].iter().position(|byte| {
                        let is_end = *byte == b'"' && !is_escaped;
                        is_escaped = *byte == b'\\' && !is_escaped;
                        is_end
                    });
                    quote.map_or(text.len(), |length| at + length + 2)
                }
                byte if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.') => {
                    let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
                    at + (text[at..].len() - text[at..].trim_start_matches(is_part).len())
                }
                _ => at + 1,
            };
            match byte {
                b'{' => scanner.open_table(at..end),
                b'[' => scanner.open_list(at),
                b'}' | b']' => scanner.close(end),
                b',' => scanner.comma(at),
                b':' => scanner.begin(),
                b'"' if scanner.expects_name() => {
                    let name = serde_json::from_str(&text[at..end]).unwrap_or_default();
                    scanner.name(at, name);
                }
                _ if end > at + 1 || byte.is_ascii_alphanumeric() => scanner.complete(at..end),
                _ => {}
            }
            at = end;
        }
        scanner.scan
    }
}

/// Builds a scan from the tokens of a text, in order.
#[derive(Default)]
struct Scanner {
    scan: Scan,
    /// The header of the current section.
    section: Option<usize>,
    /// The names of the current key, and its position.
    names: Vec<String>,
    start: usize,
    open: Vec<Open>,
    /// The number of lists among what is open.
    lists: usize,
}

/// Something that has begun and has not ended.
enum Open {
    /// The value of this entry.
    Value(usize),
    List(usize),
    Table {
        start: usize,
        /// The entry whose value it is; the root has none.
        of: Option<usize>,
        /// The last member, and the comma after it.
        last: Option<usize>,
        comma: Option<usize>,
    },
}

impl Scanner {
    /// Returns whether the next string is a key.
    fn expects_name(&self) -> bool {
        matches!(self.open.last(), Some(Open::Table { .. }))
    }

    fn header(&mut self, range: Range<usize>, is_element: bool) {
        self.section = Some(self.scan.entries.len());
        self.scan.entries.push(Entry {
            path: mem::take(&mut self.names),
            start: range.start,
            end: range.end,
            value: None,
            open: None,
            kind: Kind::Header { is_element },
        });
    }

    fn name(&mut self, start: usize, name: String) {
        if self.lists > 0 {
            return;
        }
        if self.names.is_empty() {
            self.start = start;
        }
        self.names.push(name);
    }

    /// The key is complete, and its value follows.
    fn begin(&mut self) {
        if self.lists > 0 {
            return;
        }
        let index = self.scan.entries.len();
        let entries = &self.scan.entries;
        let (table, kind) = match self.open.last_mut() {
            Some(Open::Table {
                of, last, comma, ..
            }) => {
                let path = of.map_or(&[][..], |of| &entries[of].path);
                *last = Some(index);
                let kind = Kind::Member {
                    base: path.len(),
                    before: comma.take(),
                    after: None,
                };
                (path, kind)
            }
            _ => {
                let header = self.section;
                let path = header.map_or(&[][..], |header| &entries[header].path);
                let base = path.len();
                (path, Kind::Line { base, header })
            }
        };
        let path = [table, &mem::take(&mut self.names)].concat();
        self.scan.entries.push(Entry {
            path,
            start: self.start,
            end: self.start,
            value: None,
            open: None,
            kind,
        });
        self.open.push(Open::Value(index));
    }

    /// A value ends.
    fn complete(&mut self, range: Range<usize>) {
        if self.lists == 0
            && let Some(Open::Value(index)) = self.open.pop_if(|it| matches!(it, Open::Value(_)))
        {
            let entry = &mut self.scan.entries[index];
            entry.end = range.end;
            entry.value = Some(range);
        }
    }

    fn open_list(&mut self, start: usize) {
        self.open.push(Open::List(start));
        self.lists += 1;
    }

    fn open_table(&mut self, brace: Range<usize>) {
        let of = match self.open.last() {
            Some(Open::Value(index)) => Some(*index),
            _ => None,
        };
        if self.lists == 0 {
            match of {
                Some(of) => self.scan.entries[of].open = Some(brace.end),
                None => self.scan.root = Some(brace.end),
            }
        }
        self.open.push(Open::Table {
            start: brace.start,
            of,
            last: None,
            comma: None,
        });
    }

    fn close(&mut self, end: usize) {
        match self.open.pop() {
            Some(Open::List(start)) => {
                self.lists -= 1;
                self.complete(start..end);
            }
            Some(Open::Table { start, .. }) => self.complete(start..end),
            Some(Open::Value(_)) | None => {}
        }
    }

    fn comma(&mut self, at: usize) {
        if self.lists > 0 {
            return;
        }
        if let Some(Open::Table { last, comma, .. }) = self.open.last_mut() {
            *comma = Some(at);
            if let Some(last) = *last
                && let Kind::Member { after, .. } = &mut self.scan.entries[last].kind
            {
                *after = Some(at);
            }
        }
    }
}
