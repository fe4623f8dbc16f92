//! Transcoding of output to UTF-8, for programs that write UTF-16 or a code page.

pub mod pages;

use self::pages::Page;
use crate::spec::Encoding;

/// The byte order mark of UTF-16.
const MARK: [u8; 2] = [0xff, 0xfe];

/// The transcoding of what one pipe yields. A character whose bytes arrive in several reads is one
/// character.
///
/// Call [`Decoder::decode`], then [`Decoder::consume`]. Bytes that are not consumed are passed
/// again with the next call.
#[derive(Debug)]
pub struct Decoder {
    form: Form,
    /// Bytes of an unfinished character that were consumed.
    torn: Vec<u8>,
    /// Set if a byte order mark may follow.
    at_start: bool,
    /// The length of the mark before the decoded text.
    mark: usize,
    text: String,
}

#[derive(Debug)]
enum Form {
    Utf16Le,
    Page(Box<Page>),
}

impl Decoder {
    /// Creates the decoder of an encoding; `None` if its bytes are not changed. `oem` is the code
    /// page of the system, if it has one of single bytes.
    pub fn new(encoding: Encoding, oem: impl FnOnce() -> Option<Page>) -> Option<Self> {
        let page = |number| pages::by_number(number).map(|page| Form::Page(Box::new(*page)));
        let form = match encoding {
            Encoding::Utf8 => None,
            Encoding::Utf16Le => Some(Form::Utf16Le),
            Encoding::Oem => oem().map(|page| Form::Page(Box::new(page))),
            Encoding::Latin1 => Some(Form::Page(Box::new(pages::LATIN_1))),
            Encoding::Cp437 => page(437),
            Encoding::Cp850 => page(850),
            Encoding::Cp852 => page(852),
            Encoding::Cp858 => page(858),
            Encoding::Cp866 => page(866),
            Encoding::Cp1250 => page(1250),
            Encoding::Cp1251 => page(1251),
            Encoding::Cp1252 => page(1252),
            Encoding::Cp1253 => page(1253),
            Encoding::Cp1254 => page(1254),
            Encoding::Cp1257 => page(1257),
        };
        Some(Self {
            form: form?,
            torn: Vec::new(),
            at_start: true,
            mark: 0,
            text: String::new(),
        })
    }

    /// Decodes all complete characters of `input`.
    pub fn decode(&mut self, input: &[u8]) -> &str {
        let Self {
            form,
            torn,
            at_start,
            mark,
            text,
        } = self;
        text.clear();
        *mark = 0;
        match form {
            Form::Page(page) => text.extend(input.iter().map(|byte| match byte {
                0..0x80 => char::from(*byte),
                _ => page[usize::from(*byte) - 0x80],
            })),
            Form::Utf16Le => {
                let joined;
                let bytes = if torn.is_empty() {
                    input
                } else {
                    joined = [&**torn, input].concat();
                    &joined
                };
                if *at_start && bytes.starts_with(&MARK) {
                    *mark = MARK.len();
                }
                decode_utf16(&bytes[*mark..], text);
            }
        }
        text
    }

    /// Consumes the first `decoded` bytes of the text that `input` was decoded to, and returns the
    /// number of bytes of `input` that they were. If `is_last` and all of the text is consumed,
    /// nothing remains: the decoder keeps the bytes of an unfinished character.
    pub fn consume(&mut self, decoded: usize, input: &[u8], is_last: bool) -> usize {
        let bytes = match self.form {
            Form::Page(_) => self.text.as_bytes()[..decoded]
                .iter()
                .filter(|byte| is_start(**byte))
                .count(),
            Form::Utf16Le => self.mark + utf16_len(&self.text.as_bytes()[..decoded]),
        };
        let torn = bytes.min(self.torn.len());
        self.torn.drain(..torn);
        let taken = bytes - torn;
        self.at_start &= bytes == 0;
        self.mark = 0;
        if is_last && decoded == self.text.len() {
            self.torn.extend_from_slice(&input[taken..]);
            return input.len();
        }
        taken
    }

    /// Ends the output of a run. Returns whether the bytes of its last character are missing.
    pub fn end(&mut self) -> bool {
        self.at_start = true;
        let is_torn = !self.torn.is_empty();
        self.torn.clear();
        is_torn
    }
}

/// Appends all complete characters. A surrogate without its other half becomes U+FFFD.
fn decode_utf16(bytes: &[u8], text: &mut String) {
    let (pairs, _) = bytes.as_chunks();
    let mut units = pairs
        .iter()
        .map(|pair| u16::from_le_bytes(*pair))
        .peekable();
    while let Some(unit) = units.next() {
        let is_high = (0xd800..0xdc00).contains(&unit);
        let low = units.next_if(|low| is_high && (0xdc00..0xe000).contains(low));
        if is_high && low.is_none() && units.peek().is_none() {
            return;
        }
        let mut decoded = char::decode_utf16([unit].into_iter().chain(low));
        let char = decoded.next().and_then(Result::ok);
        text.push(char.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
}

/// Returns the number of bytes in UTF-16 of characters that begin in `text`.
fn utf16_len(text: &[u8]) -> usize {
    let len = |byte: &u8| match byte {
        0xf0.. => 4,
        byte if is_start(*byte) => 2,
        _ => 0,
    };
    text.iter().map(len).sum()
}

/// Returns whether a character of UTF-8 begins with this byte.
fn is_start(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoder(encoding: Encoding) -> Decoder {
        Decoder::new(encoding, || None).unwrap()
    }

    fn wide(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn code_pages() {
        let check = |encoding, bytes: &[u8], expect: &str| {
            let mut decoder = decoder(encoding);
            assert_eq!(decoder.decode(bytes), expect);
            assert_eq!(decoder.consume(expect.len(), bytes, false), bytes.len());
        };
        check(
            Encoding::Cp1252,
            b"\x80 \x93gr\xfc\xdfe\x94\r\n",
            "€ “grüße”\r\n",
        );
        check(Encoding::Latin1, b"\x80\xfc", "\u{80}ü");
        check(Encoding::Cp437, b"\x81\xe1\xb3\xff", "üß│\u{a0}");
        check(Encoding::Cp850, b"\x81\xe1\xd5", "üßı");
        check(Encoding::Cp858, b"\xd5", "€");
        check(Encoding::Cp852, b"\x88\xab", "łź");
        check(Encoding::Cp866, b"\x8f\xe0\xa8", "При");
        check(Encoding::Cp1250, b"\xb3\x9f", "łź");
        check(Encoding::Cp1251, b"\xcf\xf0\xe8", "При");
        check(Encoding::Cp1253, b"\xe1", "α");
        check(Encoding::Cp1254, b"\xfd", "ı");
        check(Encoding::Cp1257, b"\xe0", "ą");
        assert!(Decoder::new(Encoding::Utf8, || None).is_none());
        assert!(Decoder::new(Encoding::Oem, || None).is_none());
        let mut oem = Decoder::new(Encoding::Oem, || pages::by_number(437).copied()).unwrap();
        assert_eq!(oem.decode(b"\x81"), "ü");
    }

    #[test]
    fn a_mark_is_dropped_at_the_start_of_each_run() {
        let mut decoder = decoder(Encoding::Utf16Le);
        let bytes = [&MARK[..], &wide("a\n")].concat();
        for _ in 0..2 {
            assert_eq!(decoder.decode(&bytes), "a\n");
            assert_eq!(decoder.consume(2, &bytes, false), 6);
            assert_eq!(decoder.decode(&bytes), "\u{feff}a\n");
            assert_eq!(decoder.consume(5, &bytes, false), 6);
            assert!(!decoder.end());
        }
        for byte in &bytes[..3] {
            decoder.decode(&[*byte]);
            assert_eq!(decoder.consume(0, &[*byte], true), 1);
        }
        assert_eq!(decoder.decode(b"\0"), "a");
    }

    #[test]
    fn a_surrogate_alone_is_replaced() {
        let mut decoder = decoder(Encoding::Utf16Le);
        let bytes = [&[0x3d, 0xd8][..], &wide("a"), &[0x00, 0xde], &wide("b")].concat();
        let text = decoder.decode(&bytes).to_owned();
        assert_eq!(text, "\u{fffd}a\u{fffd}b");
        assert_eq!(decoder.consume(text.len(), &bytes, false), bytes.len());
    }

    #[test]
    fn what_is_torn_at_the_end_of_a_run_is_told_once() {
        let mut decoder = decoder(Encoding::Utf16Le);
        assert_eq!(decoder.decode(b"a\0b"), "a");
        assert_eq!(decoder.consume(1, b"a\0b", true), 3);
        assert!(decoder.end());
        assert!(!decoder.end());
        assert_eq!(decoder.decode(b"c\0"), "c");
    }

    proptest! {
        /// Reads may end anywhere, and lines may be left in the pipe or not.
        #[test]
        fn reads_may_tear_characters(
            text in "[aä€😀\n]{0,40}",
            cuts in prop::collection::vec((1..9_usize, any::<bool>(), 0..9_usize), 1..60),
        ) {
            let bytes = wide(&text);
            let mut decoder = decoder(Encoding::Utf16Le);
            let (mut from, mut read, mut seen) = (0, 0, String::new());
            for (more, is_last, left) in cuts.into_iter().chain([(bytes.len(), true, 0)]) {
                read = bytes.len().min(read + more);
                let input = &bytes[from..read];
                let decoded = decoder.decode(input).to_owned();
                // The last characters stay in the pipe.
                let kept = decoded.chars().count().saturating_sub(if is_last { 0 } else { left });
                let kept: String = decoded.chars().take(kept).collect();
                from += decoder.consume(kept.len(), input, is_last);
                seen.push_str(&kept);
            }
            prop_assert_eq!(seen, text);
            prop_assert_eq!(from, bytes.len());
            prop_assert!(!decoder.end());
        }
    }
}
