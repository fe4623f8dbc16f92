//! The common tree that TOML, YAML and JSON are parsed into: values with their positions.

use std::borrow::Cow;

/// A byte range `start..end` of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl From<std::ops::Range<usize>> for Span {
    fn from(range: std::ops::Range<usize>) -> Self {
        Self {
            start: range.start,
            end: range.end,
        }
    }
}

/// A value with its position.
#[derive(Clone, Debug)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A value in the tree. The span of a table is that of its key, which is the best position to
/// report a missing key.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) value: Value<'a>,
    pub(super) span: Span,
}

impl Node<'_> {
    /// Returns the value of a key of this table.
    pub(super) fn at(&self, key: &str) -> Option<&Self> {
        let Value::Table(entries) = &self.value else {
            return None;
        };
        let entry = entries.iter().find(|entry| entry.key.value == key)?;
        Some(&entry.node)
    }

    /// Returns the value, if it is a text.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Table(Vec<Entry<'a>>),
    /// A value that no key accepts, by the name of its kind.
    Foreign(&'static str),
}

/// A key and its value in a table. The keys of a table are unique and in the order of the text.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: Spanned<Cow<'a, str>>,
    pub(super) node: Node<'a>,
}

impl<'a> Entry<'a> {
    pub(super) fn new(key: Cow<'a, str>, span: Span, mut node: Node<'a>) -> Self {
        if let Value::Table(_) = node.value {
            node.span = span;
        }
        let key = Spanned { value: key, span };
        Self { key, node }
    }
}

impl Value<'_> {
    /// Returns the kind of the value, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number with a fraction",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Foreign(kind) => kind,
        }
    }
}

/// The maximum nesting depth. No manifest needs more than six levels; deeper text could only
/// exhaust the stack.
pub(super) const MAX_DEPTH: usize = 32;
