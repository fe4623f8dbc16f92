//! A JSON representation of file system bytes (names, link targets, attribute values) that is
//! readable if they are text.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Arbitrary bytes. In text they are UTF-8, with `%` and bytes that are not valid UTF-8 written as
/// `%XX`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    /// Parses the text form. Returns `None` if a `%` is not followed by two hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if byte != b'%' {
                bytes.push(byte);
                continue;
            }
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.extend(unhex(str::from_utf8(digits).ok()?)?);
            rest = after;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for (i, part) in chunk.valid().split('%').enumerate() {
                f.write_str(if i == 0 { "" } else { "%25" })?;
                f.write_str(part)?;
            }
            for byte in chunk.invalid() {
                write!(f, "%{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("a % without two hexadecimal digits"))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| match pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    });
    bytes.collect()
}
