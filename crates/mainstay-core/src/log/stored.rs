//! A line as it lies in a file: what it says of itself, if it was written in a format that says something.

use crate::time::rfc3339_at_start;

/// Where a service wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the usual names")]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// `stdout` or `stderr`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The format that a line looks like. A log may change it in its life, so each line is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As the service wrote it.
    Raw,
    /// A stamp, perhaps a stream, the message.
    Text,
    /// An object that begins with `"time"`, and `"stream"` or `"service"` after it.
    Json,
}

/// A line, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// What it looks like.
    pub format: Format,
    /// Microseconds since 1970.
    pub time: Option<u64>,
    /// Where the service wrote it.
    pub stream: Option<Stream>,
    /// What the service wrote; the whole line where it is raw or JSON.
    pub message: &'a [u8],
}

/// As much of a line as says when and where it was written.
pub const HEAD: usize = 64;

impl<'a> Stored<'a> {
    /// `line` is without its end. The time and the stream are read from the first [`HEAD`] bytes.
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
        let marked = [Stream::Stdout, Stream::Stderr]
            .into_iter()
            .find_map(|stream| {
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

    /// Other programs' JSON begins with a time, too; ours alone goes on with one of these.
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
