//! Parsing of stored lines, and of the metadata in those formats that have any.

use super::Stream;
use crate::time::rfc3339_at_start;

/// The format of a line. A log may change its format over time, so each line is inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The unchanged output of the service.
    Raw,
    /// A timestamp, an optional stream, and the message.
    Text,
    /// A JSON object that starts with `"time"`, followed by `"stream"` or `"service"`.
    Json,
}

/// A parsed line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The format of the line.
    pub format: Format,
    /// The time in microseconds since 1970.
    pub time: Option<u64>,
    /// The stream that the line was written to.
    pub stream: Option<Stream>,
    /// The output of the service; for raw lines and JSON, the whole line.
    pub message: &'a [u8],
}

/// The length of the prefix that contains the time and the stream.
pub const HEAD: usize = 64;

impl<'a> Stored<'a> {
    /// Parses `line`, which has no line end. The time and the stream are in the first [`HEAD`]
    /// bytes.
    pub fn parse(line: &'a [u8]) -> Self {
        Self::json(line)
            .or_else(|| Self::text(line))
            .unwrap_or(Self {
                format: Format::Raw,
                time: None,
                stream: None,
                message: line,
            })
    }

    fn text(line: &'a [u8]) -> Option<Self> {
        let (time, length) = rfc3339_at_start(line)?;
        let rest = line[length..].strip_prefix(b" ")?;
        let marked = Stream::ALL.into_iter().find_map(|stream| {
            let rest = rest.strip_prefix(stream.name().as_bytes())?;
            Some((stream, rest.strip_prefix(b" ")?))
        });
        Some(Self {
            format: Format::Text,
            time: Some(time),
            stream: marked.map(|(stream, _)| stream),
            message: marked.map_or(rest, |(_, message)| message),
        })
    }

    /// Parses a JSON line. Other programs' JSON may also start with a time, but only mainstay's
    /// continues with one of these keys.
    fn json(line: &'a [u8]) -> Option<Self> {
        let (time, length) = rfc3339_at_start(line.strip_prefix(br#"{"time":""#)?)?;
        let rest = &line[br#"{"time":""#.len() + length..];
        let stream = match rest {
            _ if rest.starts_with(br#"","stream":"stdout""#) => Some(Stream::Stdout),
            _ if rest.starts_with(br#"","stream":"stderr""#) => Some(Stream::Stderr),
            _ if rest.starts_with(br#"","service":""#) => None,
            _ => return None,
        };
        Some(Self {
            format: Format::Json,
            time: Some(time),
            stream,
            message: line,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_what_they_are() {
        use Format::{Json, Raw, Text};
        use Stream::{Stderr, Stdout};
        let check = |line: &str, format, time, stream, message: &str| {
            let expect = Stored {
                format,
                time,
                stream,
                message: message.as_bytes(),
            };
            assert_eq!(Stored::parse(line.as_bytes()), expect, "{line}");
        };
        let second = Some(1_500_000);
        check("1970-01-01T00:00:01.500Z up", Text, second, None, "up");
        check("1970-01-01T00:00:01.500Z ", Text, second, None, "");
        let line = "1970-01-01T00:00:01.500Z stderr a b";
        check(line, Text, second, Some(Stderr), "a b");
        let line = "1970-01-01T00:00:01.500Z stdout ";
        check(line, Text, second, Some(Stdout), "");
        let line = "1970-01-01T00:00:01.500Z stdouts";
        check(line, Text, second, None, "stdouts");
        for (rest, stream) in [
            (
                r#""stream":"stderr","service":"a","message":"m"}"#,
                Some(Stderr),
            ),
            (
                r#""stream":"stdout","service":"a","message":"m"}"#,
                Some(Stdout),
            ),
            (r#""service":"a","message":"m"}"#, None),
        ] {
            let line = format!(r#"{{"time":"1970-01-01T00:00:01.500Z",{rest}"#);
            check(&line, Json, second, stream, &line);
        }
        for line in [
            "",
            "raw",
            "1970-01-01T00:00:01.500Z",
            "1970-01-01T00:00:01.500Zx",
            r#"{"time":"1970-01-01T00:00:01.500Z","level":"INFO"}"#,
            r#"{"time":"#,
        ] {
            check(line, Raw, None, None, line);
        }
    }
}
