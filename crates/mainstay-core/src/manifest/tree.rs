//! The one shape that TOML, YAML and JSON are read into: values that know where they stand.

use std::borrow::Cow;

/// Bytes `start..end` of the text.
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

/// Something with its place.
#[derive(Clone, Debug)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A value. The span of a table is that of the key that it hangs on: the best place to say that something lacks in it.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) value: Value<'a>,
    pub(super) span: Span,
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
    /// Something that no key takes, by its name.
    Foreign(&'static str),
}

/// One key of a table; a table's keys stand in the order of the text and are unique.
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
    /// What it is, for a person.
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

/// No manifest is deeper than six levels; anything beyond this would only be there to exhaust the stack.
pub(super) const MAX_DEPTH: usize = 32;
