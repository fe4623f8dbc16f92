//! Redaction of secrets and personal data in a service's output.
//!
//! A [`Redaction`] is the request of a manifest. A `Scanner` finds the values in one pass for all
//! classes. A table lists the few bytes at which a value can start or be recognized (a digit, `@`,
//! `=`, `:` …). A validator for each class then checks these positions, so that numbers that merely
//! look similar are kept. Fields of JSON objects and custom regular expressions are matched line by
//! line. Every find is a range. Overlapping finds are merged under the label of the leftmost, then
//! longest, then first class, so no part of any find is ever shown.

mod credentials;
mod fields;
mod find;
mod numbers;
mod scan;
#[cfg(test)]
mod tests;

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub(super) use self::find::{Find, What};
pub(super) use self::scan::{Memory, Scanner, Text, without_end};
use crate::spec::redact::{Class, RedactWith, Redaction};

/// The secret key of this installation for hashes of values.
#[derive(Clone)]
pub struct RedactionKey([u8; 32]);

impl RedactionKey {
    /// Creates a key from bytes, which must be unpredictable.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for RedactionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedactionKey(…)")
    }
}

/// A writer of replacements for values.
pub(super) struct Labels {
    with: RedactWith,
    /// The keyed state, before any data is hashed.
    mac: Hmac<Sha256>,
    fields: Vec<String>,
    patterns: Vec<String>,
}

impl Labels {
    pub(super) fn new(redaction: &Redaction, key: &RedactionKey) -> Self {
        // A key shorter than the block of the hash is padded with zeros (RFC 2104).
        let mut block = [0; 64];
        block[..32].copy_from_slice(&key.0);
        Self {
            with: redaction.with,
            mac: Hmac::new(&block.into()),
            fields: redaction.fields.iter().map(|f| f.name.clone()).collect(),
            patterns: redaction.patterns.iter().map(|p| p.name.clone()).collect(),
        }
    }

    /// Appends the label of `find`, whose text is `value`.
    pub(super) fn write(&self, find: &Find, value: &[u8], out: &mut Vec<u8>) {
        let (name, is_field) = match find.what {
            What::Nothing => return,
            What::Class(class) => (class.name(), false),
            What::Field(index) => (&*self.fields[index], true),
            What::Pattern(index) => (&*self.patterns[index], false),
        };
        let quote = is_field || find.quoted;
        if quote {
            out.push(b'"');
        }
        out.push(b'[');
        out.extend_from_slice(name.as_bytes());
        // A private key may arrive in pieces, which different readers would hash differently.
        let is_key = matches!(find.what, What::Class(Class::PrivateKey));
        if self.with == RedactWith::Hash && !is_key {
            let inner = value
                .strip_prefix(b"\"")
                .and_then(|v| v.strip_suffix(b"\""));
            let value = inner.filter(|_| is_field).unwrap_or(value);
            out.push(b':');
            self.hash(name, value, out);
        }
        out.push(b']');
        if quote {
            out.push(b'"');
        }
    }

    fn hash(&self, name: &str, value: &[u8], out: &mut Vec<u8>) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut mac = self.mac.clone();
        mac.update(name.as_bytes());
        mac.update(&[0]);
        mac.update(value);
        for byte in mac.finalize().into_bytes().iter().take(8) {
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}
