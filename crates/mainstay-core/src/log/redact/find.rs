//! Finds: ranges of a text to hide.

use std::ops::Range;

use crate::spec::redact::Class;

/// The replacement for a find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::log) enum What {
    /// Nothing: the label is written before it.
    Nothing,
    Class(Class),
    Field(usize),
    Pattern(usize),
}

/// A range to hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) struct Find {
    /// The start of the text that determines the kind, such as a key or a prefix.
    pub(in crate::log) anchor: usize,
    pub(in crate::log) start: usize,
    pub(in crate::log) end: usize,
    pub(in crate::log) what: What,
    /// Set for an unquoted value in a JSON object, where the label needs quotes.
    pub(in crate::log) quoted: bool,
}

impl Find {
    pub(super) fn new(range: Range<usize>, what: What) -> Self {
        /// The number of bytes before a value that a validator may inspect.
        const BEFORE: usize = 32;
        Self {
            anchor: range.start.saturating_sub(BEFORE),
            start: range.start,
            end: range.end,
            what,
            quoted: false,
        }
    }
}
