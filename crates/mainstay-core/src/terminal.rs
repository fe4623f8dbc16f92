//! Escaping of untrusted text for terminals.
//!
//! A terminal interprets control sequences from any source: a status text, a log line or a file
//! name could move the cursor, rewrite earlier output, or type into the shell. An [`Escaper`]
//! replaces control characters (C0 except tab and newline, DEL, C1) and characters that reorder or
//! break lines (bidirectional controls, U+2028, U+2029) with visible escapes: `\x1b` for C0 and for
//! bytes that are not UTF-8, and `\u009b` for characters, which is valid inside a JSON string.

use std::borrow::Cow;

/// The maximum length of the parameters of an SGR sequence.
const LONGEST_COLOUR: usize = 64;
const RESET: &[u8] = b"\x1b[0m";

/// The control sequences that an [`Escaper`] passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// None.
    Nothing,
    /// SGR sequences: colours and other character attributes. They are reset at the end of the
    /// line.
    Colours,
}

/// An escaper for a stream of bytes. A sequence or character that is split between two chunks is
/// buffered until the rest arrives.
#[derive(Debug)]
pub struct Escaper {
    allow: Allow,
    held: Vec<u8>,
    /// Set while character attributes are in effect.
    is_coloured: bool,
}

/// The first unit of a byte string.
enum Unit {
    /// A number of bytes that are safe for a terminal.
    Plain(usize),
    /// An SGR sequence of this length.
    Colour(usize),
    /// A dangerous character of this length.
    Control(char, usize),
    /// A byte that is not part of any text.
    Byte(u8),
    /// More bytes are needed to decide.
    Incomplete,
}

impl Escaper {
    /// Creates an escaper at the start of a line.
    pub fn new(allow: Allow) -> Self {
        Self {
            allow,
            held: Vec::new(),
            is_coloured: false,
        }
    }

    /// Appends the escaped form of `bytes` to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.held.is_empty() {
            return self.scan(bytes, out);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        self.scan(&held, out);
    }

    /// Appends the buffered bytes and resets colours. The next chunk starts afresh.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        for byte in std::mem::take(&mut self.held) {
            match byte {
                b' '..=b'~' => out.push(byte),
                byte => escape_byte(byte, out),
            }
        }
        self.reset(out);
    }

    fn scan(&mut self, mut rest: &[u8], out: &mut Vec<u8>) {
        while !rest.is_empty() {
            let length = match self.first(rest) {
                Unit::Plain(length) => {
                    if matches!(rest[0], b'\r' | b'\n') {
                        self.reset(out);
                    }
                    out.extend_from_slice(&rest[..length]);
                    length
                }
                Unit::Colour(length) => {
                    let colour = &rest[..length];
                    self.is_coloured = !matches!(colour, b"\x1b[m" | b"\x1b[0m");
                    out.extend_from_slice(colour);
                    length
                }
                Unit::Control(character, length) => {
                    out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
                    length
                }
                Unit::Byte(byte) => {
                    escape_byte(byte, out);
                    1
                }
                Unit::Incomplete => return self.held.extend_from_slice(rest),
            };
            rest = &rest[length..];
        }
    }

    fn first(&self, bytes: &[u8]) -> Unit {
        let plain = bytes.iter().take_while(|byte| is_plain(**byte)).count();
        if plain > 0 {
            return Unit::Plain(plain);
        }
        match bytes {
            [b'\n', ..] => Unit::Plain(1),
            // A carriage return before a newline overwrites nothing.
            [b'\r', b'\n', ..] => Unit::Plain(2),
            [b'\r'] => Unit::Incomplete,
            [0x1b, rest @ ..] if self.allow == Allow::Colours => colour(rest),
            [0x7f, ..] => Unit::Control('\x7f', 1),
            [byte @ ..0x80, ..] => Unit::Byte(*byte),
            _ => character(bytes),
        }
    }

    fn reset(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.is_coloured) {
            out.extend_from_slice(RESET);
        }
    }
}

/// Escapes `text` as a whole, without passing any control sequences through.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| is_plain(byte) || byte == b'\n') {
        return Cow::Borrowed(text);
    }
    let mut escaped = Vec::with_capacity(text.len() + 16);
    let mut escaper = Escaper::new(Allow::Nothing);
    escaper.push(text.as_bytes(), &mut escaped);
    escaper.end(&mut escaped);
    Cow::Owned(String::from_utf8_lossy(&escaped).into_owned())
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t')
}

fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'\r' => out.extend_from_slice(b"\\r"),
        byte => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
    }
}

/// Parses the bytes after an ESC.
fn colour(rest: &[u8]) -> Unit {
    let Some((introducer, rest)) = rest.split_first() else {
        return Unit::Incomplete;
    };
    if *introducer != b'[' {
        return Unit::Byte(0x1b);
    }
    let is_parameter = |byte: &&u8| matches!(byte, b'0'..=b'9' | b';' | b':');
    let parameters = rest.iter().take_while(is_parameter).count();
    match rest.get(parameters) {
        _ if parameters > LONGEST_COLOUR => Unit::Byte(0x1b),
        None => Unit::Incomplete,
        Some(b'm') => Unit::Colour(parameters + 3),
        Some(_) => Unit::Byte(0x1b),
    }
}

/// Parses the unit that starts with a non-ASCII byte.
fn character(bytes: &[u8]) -> Unit {
    let window = &bytes[..bytes.len().min(4)];
    let text = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) if error.error_len().is_none() && window.len() < 4 => return Unit::Incomplete,
        Err(_) => "",
    };
    match text.chars().next() {
        None => Unit::Byte(bytes[0]),
        Some(character) if is_dangerous(character) => {
            Unit::Control(character, character.len_utf8())
        }
        Some(character) => Unit::Plain(character.len_utf8()),
    }
}

/// Returns whether the character is a C1 control, a bidirectional control, or a line or paragraph
/// separator.
fn is_dangerous(character: char) -> bool {
    matches!(
        character,
        '\u{80}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(allow: Allow, chunks: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut escaper = Escaper::new(allow);
        chunks
            .iter()
            .for_each(|chunk| escaper.push(chunk, &mut out));
        escaper.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_let_through() {
        // Columns: input, output with nothing allowed, output with colours allowed.
        let rows: &[(&[u8], &str, &str)] = &[
            (b"plain\ttext\n", "plain\ttext\n", "plain\ttext\n"),
            (
                "héllo → 日本 🦀".as_bytes(),
                "héllo → 日本 🦀",
                "héllo → 日本 🦀",
            ),
            (
                b"\x1b[31mred\x1b[0m",
                r"\x1b[31mred\x1b[0m",
                "\x1b[31mred\x1b[0m",
            ),
            (
                b"\x1b[31mred\nx",
                "\\x1b[31mred\nx",
                "\x1b[31mred\x1b[0m\nx",
            ),
            (
                b"\x1b[31mred\r\nx",
                "\\x1b[31mred\r\nx",
                "\x1b[31mred\x1b[0m\r\nx",
            ),
            (
                b"\x1b[1;38:5:9mx",
                r"\x1b[1;38:5:9mx",
                "\x1b[1;38:5:9mx\x1b[0m",
            ),
            (b"\x1b[2J\x1b[1A", r"\x1b[2J\x1b[1A", r"\x1b[2J\x1b[1A"),
            (
                b"\x1b]0;title\x07",
                r"\x1b]0;title\x07",
                r"\x1b]0;title\x07",
            ),
            (b"\x1b[31", r"\x1b[31", r"\x1b[31"),
            (
                b"\x1b[?7l\x1bc\x1b",
                r"\x1b[?7l\x1bc\x1b",
                r"\x1b[?7l\x1bc\x1b",
            ),
            (b"10%\r20%\r\n", "10%\\r20%\r\n", "10%\\r20%\r\n"),
            (
                b"a\x08\x00\x7f\x0b",
                r"a\x08\x00\u007f\x0b",
                r"a\x08\x00\u007f\x0b",
            ),
            (
                "\u{9b}2J\u{85}".as_bytes(),
                r"\u009b2J\u0085",
                r"\u009b2J\u0085",
            ),
            (b"\x9b2J \xff", r"\x9b2J \xff", r"\x9b2J \xff"),
            (
                "\u{202e}gpj\u{2066}\u{200f}".as_bytes(),
                r"\u202egpj\u2066\u200f",
                r"\u202egpj\u2066\u200f",
            ),
            (
                "a\u{2028}b\u{2029}\u{61c}".as_bytes(),
                r"a\u2028b\u2029\u061c",
                r"a\u2028b\u2029\u061c",
            ),
            // Truncated within a character.
            (b"\xe2\x82", r"\xe2\x82", r"\xe2\x82"),
            (b"\xf0\x9f\xa6x", r"\xf0\x9f\xa6x", r"\xf0\x9f\xa6x"),
        ];
        for (input, nothing, colours) in rows {
            assert_eq!(escaped(Allow::Nothing, &[input]), *nothing);
            assert_eq!(escaped(Allow::Colours, &[input]), *colours);
            let text = String::from_utf8_lossy(input);
            if text.as_bytes() == *input {
                assert_eq!(escape(&text), *nothing);
            }
        }
        let endless = [b"\x1b[".as_slice(), &[b'1'; 1000], b"m"].concat();
        assert!(escaped(Allow::Colours, &[&endless]).starts_with(r"\x1b[1"));
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter_and_nothing_slips_through(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..4),
                    Just(b"\x1b".to_vec()), Just(b"[3".to_vec()), Just(b"1m".to_vec()),
                    Just(b"\r".to_vec()), Just(b"\n".to_vec()), Just(b"\xc2".to_vec()),
                    Just(b"\x9b".to_vec()), Just("\u{202e}".as_bytes().to_vec()),
                ],
                0..12,
            ),
        ) {
            let chunks: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            for allow in [Allow::Nothing, Allow::Colours] {
                let text = escaped(allow, &chunks);
                prop_assert_eq!(&text, &escaped(allow, &[&pieces.concat()]));
                prop_assert!(!text.chars().any(is_dangerous));
                let mut rest = text.as_str();
                while let Some(at) = rest.find(|c: char| c.is_control() && c != '\n' && c != '\t') {
                    rest = &rest[at..];
                    let is_colour = allow == Allow::Colours
                        && matches!(colour(&rest.as_bytes()[1..]), Unit::Colour(_));
                    prop_assert!(is_colour || rest.starts_with("\r\n"), "{:?}", text);
                    rest = &rest[1..];
                }
            }
        }
    }
}
