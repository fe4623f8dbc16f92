//! The scan of a text in one pass, driven by a table of the bytes at which a value may be found.

use std::ops::Range;

use memchr::{memchr, memmem, memrchr};
use regex::bytes::Regex;

use super::credentials as mark;
use super::fields::Walker;
use super::find::{Find, What};
use super::numbers::{self, at, before};
use crate::spec::redact::{Class, FieldPath, Redaction};

/// The state that carries over from one line, or piece of a line, to the next.
#[derive(Clone, Debug, Default)]
pub(in crate::log) struct Memory {
    /// The number of further lines that the current private key may have.
    key_lines: u16,
    /// The position in a line that is processed in pieces.
    walker: Option<Walker>,
}

/// The kind of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) enum Text {
    /// Lines; the last one may be unfinished.
    Lines,
    /// The first piece of a long line.
    First,
    /// The continuation of a long line.
    Next,
}

/// The mark that a byte may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    None,
    Digit,
    At,
    Colon,
    Equals,
    Dash,
    Underscore,
    J,
    I,
    B,
}

/// A scanner for the values that a [`Redaction`] hides.
pub(in crate::log) struct Scanner {
    signs: [Sign; 256],
    classes: u32,
    has_signs: bool,
    fields: Vec<FieldPath>,
    patterns: Vec<Regex>,
}

/// The maximum number of lines of a private key. A key of 16384 bits has 270.
const KEY_LINES: u16 = 400;

impl Scanner {
    pub(in crate::log) fn new(redaction: &Redaction) -> Self {
        use Class::*;
        let mut signs = [Sign::None; 256];
        let mut mark = |bytes: &[u8], sign, classes: &[Class]| {
            if classes.iter().any(|class| redaction.has(*class)) {
                for byte in bytes {
                    signs[usize::from(*byte)] = sign;
                }
            }
        };
        let numbers = [Phone, CreditCard, IdCardCn, Iban, Ipv4, SsnUs, PatientId];
        mark(b"0123456789", Sign::Digit, &numbers);
        mark(b"@", Sign::At, &[Email]);
        let pairs = [Password, PatientId, AwsKey];
        mark(b"=", Sign::Equals, &pairs);
        mark(b":", Sign::Colon, &pairs);
        mark(b":", Sign::Colon, &[Ipv6, Mac, UrlPassword]);
        mark(
            b"-",
            Sign::Dash,
            &[Mac, PrivateKey, GitlabToken, SlackToken],
        );
        mark(b"_", Sign::Underscore, &[GithubToken, StripeKey]);
        mark(b"J", Sign::J, &[Jwt]);
        mark(b"I", Sign::I, &[AwsKey, GoogleApiKey]);
        mark(b"Bb", Sign::B, &[Bearer, BasicAuth]);
        Self {
            signs,
            classes: redaction.classes,
            has_signs: redaction.classes != 0,
            fields: redaction.fields.clone(),
            patterns: redaction.patterns.iter().map(|p| p.regex.clone()).collect(),
        }
    }

    /// Replaces `finds` with the ranges to hide in `text`, in order and without overlaps.
    pub(in crate::log) fn scan(
        &self,
        text: &[u8],
        kind: Text,
        memory: &mut Memory,
        finds: &mut Vec<Find>,
    ) {
        finds.clear();
        if self.has_signs {
            let start = self.rest_of_key(text, kind, memory, finds);
            self.signs(text, start..text.len(), memory, finds);
        }
        if !self.fields.is_empty() || !self.patterns.is_empty() {
            self.lines(text, kind, memory, finds);
        }
        if finds.is_empty() {
            return;
        }
        merge(finds);
        if kind != Text::Next {
            quote(text, finds);
        }
    }

    fn has(&self, class: Class) -> bool {
        self.classes & (1 << class as u32) != 0
    }

    fn signs(&self, text: &[u8], range: Range<usize>, memory: &mut Memory, finds: &mut Vec<Find>) {
        let mut i = range.start;
        let end = range.end;
        // Values of keys within a find need not be found again.
        let mut hidden = 0;
        while i < end {
            if let Some(eight) = text.get(i..end).and_then(|rest| rest.first_chunk::<8>()) {
                let sign = |k: usize| self.signs[usize::from(eight[k])] as u8;
                if (sign(0) | sign(1) | sign(2) | sign(3) | sign(4) | sign(5) | sign(6) | sign(7))
                    == 0
                {
                    i += 8;
                    continue;
                }
            }
            let stop = end.min(i + 8);
            while i < stop {
                let sign = self.signs[usize::from(text[i])];
                match sign {
                    Sign::None => i += 1,
                    Sign::Digit => i += self.number(text, i, finds),
                    Sign::Dash if self.has(Class::PrivateKey) && at(text, i + 1) == b'-' => {
                        i = self.private_key(text, i, end, memory, finds);
                    }
                    Sign::Equals | Sign::Colon => {
                        if i >= hidden {
                            hidden = self.pair(text, i, finds).max(hidden);
                        }
                        if sign == Sign::Colon {
                            self.colon(text, i, finds);
                        }
                        i += 1;
                    }
                    _ => {
                        self.rare(text, i, sign, finds);
                        i += 1;
                    }
                }
            }
        }
    }

    /// Checks the values that start with the digits at `start`, and returns the number of these
    /// digits.
    #[inline]
    fn number(&self, text: &[u8], start: usize, finds: &mut Vec<Find>) -> usize {
        let rest = &text[start..];
        let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (previous, next) = (before(text, start), at(text, start + len));
        let mut note = |class, found: Option<Range<usize>>| {
            finds.extend(found.map(|range| Find::new(range, What::Class(class))));
        };
        if len <= 3 && next == b'.' && self.has(Class::Ipv4) {
            note(Class::Ipv4, numbers::ipv4(text, start));
        }
        if len == 3 && next == b'-' && self.has(Class::SsnUs) {
            note(Class::SsnUs, numbers::ssn_us(text, start));
        }
        let dialled = b"+(".contains(&previous)
            || len == 11
            || (len == 3 || len == 1) && b"-.".contains(&next);
        if dialled && self.has(Class::Phone) {
            note(Class::Phone, numbers::phone(text, start));
        }
        if (len >= 13 || len == 4 && b" -".contains(&next)) && self.has(Class::CreditCard) {
            note(Class::CreditCard, numbers::credit_card(text, start));
        }
        if (len == 17 || len == 18) && self.has(Class::IdCardCn) {
            note(Class::IdCardCn, numbers::id_card_cn(text, start));
        }
        if previous.is_ascii_uppercase() && len >= 2 && self.has(Class::Iban) {
            note(Class::Iban, numbers::iban(text, start));
        }
        if len <= 16 && b" -#:/nN".contains(&previous) && self.has(Class::PatientId) {
            note(Class::PatientId, numbers::patient_number(text, start));
        }
        len
    }

    fn colon(&self, text: &[u8], i: usize, finds: &mut Vec<Find>) {
        let next = at(text, i + 1);
        if next == b'/' && self.has(Class::UrlPassword) {
            if let Some(range) = mark::url_password(text, i) {
                let what = What::Class(Class::UrlPassword);
                finds.push(Find {
                    anchor: i.saturating_sub(1),
                    ..Find::new(range, what)
                });
            }
        } else if next == b':' || next.is_ascii_hexdigit() {
            let head = &text[i.saturating_sub(5)..i];
            let hex = head
                .iter()
                .rev()
                .take_while(|b| b.is_ascii_hexdigit())
                .count();
            let start = i - hex;
            if hex == 2 && at(text, i + 3) == b':' && self.has(Class::Mac) {
                let found = numbers::mac(text, start, b':');
                finds.extend(found.map(|range| Find::new(range, What::Class(Class::Mac))));
            }
            if hex <= 4 && !b":.".contains(&before(text, start)) && self.has(Class::Ipv6) {
                let found = numbers::ipv6(text, start);
                finds.extend(found.map(|range| Find::new(range, What::Class(Class::Ipv6))));
            }
        }
    }

    /// Checks a key and its value. Returns the end of the value if it is hidden, otherwise 0.
    #[inline]
    fn pair(&self, text: &[u8], i: usize, finds: &mut Vec<Find>) -> usize {
        const PAIRS: u32 =
            1 << Class::Password as u32 | 1 << Class::PatientId as u32 | 1 << Class::AwsKey as u32;
        if self.classes & PAIRS == 0 {
            return 0;
        }
        let Some((_, key)) = mark::key(text, i) else {
            return 0;
        };
        let secret = mark::is_secret(key) && (self.has(Class::Password) || self.has(Class::AwsKey));
        let patient = self.has(Class::PatientId) && mark::may_be_patient(key);
        if !secret && !patient {
            return 0;
        }
        let Some(pair) = mark::pair(text, i) else {
            return 0;
        };
        let value = &text[pair.value.clone()];
        let class = if self.has(Class::AwsKey) && mark::is_aws_secret(pair.key, value) {
            Class::AwsKey
        } else if secret && self.has(Class::Password) {
            Class::Password
        } else if patient && mark::is_patient(pair.key, value) {
            Class::PatientId
        } else {
            return 0;
        };
        let end = pair.value.end;
        finds.push(Find {
            anchor: pair.start,
            ..Find::new(pair.value, What::Class(class))
        });
        end
    }

    fn rare(&self, text: &[u8], i: usize, sign: Sign, finds: &mut Vec<Find>) {
        let mut note = |class, find: &dyn Fn() -> Option<Range<usize>>| {
            if self.has(class) {
                finds.extend(find().map(|range| Find::new(range, What::Class(class))));
            }
        };
        match sign {
            Sign::At => note(Class::Email, &|| mark::email(text, i)),
            Sign::Dash => {
                note(Class::GitlabToken, &|| mark::gitlab_token(text, i));
                note(Class::SlackToken, &|| mark::slack_token(text, i));
                if i >= 2 && at(text, i + 3) == b'-' {
                    note(Class::Mac, &|| numbers::mac(text, i - 2, b'-'));
                }
            }
            Sign::Underscore => {
                note(Class::GithubToken, &|| mark::github_token(text, i));
                note(Class::StripeKey, &|| mark::stripe_key(text, i));
            }
            Sign::J if i >= 2 && text[i - 2..].starts_with(b"eyJ") => {
                note(Class::Jwt, &|| mark::jwt(text, i - 2));
            }
            Sign::I => {
                note(Class::AwsKey, &|| mark::aws_key(text, i));
                note(Class::GoogleApiKey, &|| mark::google_api_key(text, i));
            }
            Sign::B if at(text, i + 1).eq_ignore_ascii_case(&b'e') => {
                note(Class::Bearer, &|| mark::bearer(text, i));
            }
            Sign::B => note(Class::BasicAuth, &|| mark::basic_auth(text, i)),
            _ => {}
        }
    }

    /// Hides a private key that starts at `i`, over all of its lines, and returns the position at
    /// which to continue.
    fn private_key(
        &self,
        text: &[u8],
        i: usize,
        end: usize,
        memory: &mut Memory,
        finds: &mut Vec<Find>,
    ) -> usize {
        let Some(body) = mark::private_key(&text[..end], i) else {
            self.rare(text, i, Sign::Dash, finds);
            return i + 1;
        };
        let line_end = memchr(b'\n', &text[body..end]).map_or(end, |len| body + len);
        let key = mark::key_body(&text[..line_end], body);
        let mut hidden = key.end;
        if key.open && text[..hidden].ends_with(b"\r") {
            hidden -= 1;
        }
        finds.push(Find::new(i..hidden, What::Class(Class::PrivateKey)));
        if !key.open {
            return key.end;
        }
        memory.key_lines = KEY_LINES;
        if line_end == end {
            return end;
        }
        self.key_lines(text, line_end + 1, memory, finds)
    }

    /// Hides the part of `text` that belongs to a key from earlier text.
    fn rest_of_key(
        &self,
        text: &[u8],
        kind: Text,
        memory: &mut Memory,
        finds: &mut Vec<Find>,
    ) -> usize {
        if memory.key_lines == 0 {
            return 0;
        }
        if kind != Text::Next {
            return self.key_lines(text, 0, memory, finds);
        }
        let line_end = memchr(b'\n', text).unwrap_or(text.len());
        let key = mark::key_body(&text[..line_end], 0);
        if key.end > 0 {
            finds.push(Find::new(0..key.end, What::Nothing));
        }
        if !key.open {
            memory.key_lines = 0;
        }
        key.end
    }

    /// Hides the lines of a key from `start` on, and returns its end.
    fn key_lines(
        &self,
        text: &[u8],
        start: usize,
        memory: &mut Memory,
        finds: &mut Vec<Find>,
    ) -> usize {
        let mut start = start;
        while start < text.len() && memory.key_lines > 0 {
            memory.key_lines -= 1;
            let next = memchr(b'\n', &text[start..]).map_or(text.len(), |len| start + len + 1);
            let line = &text[start..next];
            if let Some(mark) = memmem::find(line, b"-----END ") {
                memory.key_lines = 0;
                if !mark::is_key_line(&line[..mark]) {
                    return start;
                }
                let end = start + mark::key_body(line, mark).end;
                let blank = text[end..next].trim_ascii().is_empty();
                let end = if blank { next } else { end };
                finds.push(Find::new(start..end, What::Nothing));
                return end;
            }
            if mark::is_key_line(line) {
                finds.push(Find::new(start..next, What::Nothing));
            } else if let Some(token) = mark::key_token(line) {
                let left = std::mem::take(&mut memory.key_lines);
                self.signs(text, start..start + token, memory, finds);
                memory.key_lines = left;
                let range = start + token..start + line.trim_ascii_end().len();
                finds.push(Find::new(range, What::Class(Class::PrivateKey)));
            } else {
                memory.key_lines = 0;
                return start;
            }
            start = next;
        }
        start
    }

    /// Matches fields and custom expressions, line by line.
    fn lines(&self, text: &[u8], kind: Text, memory: &mut Memory, finds: &mut Vec<Find>) {
        let mut start = 0;
        while start < text.len() {
            let next = memchr(b'\n', &text[start..]).map_or(text.len(), |len| start + len + 1);
            let line = without_end(&text[start..next]);
            for (index, pattern) in self.patterns.iter().enumerate() {
                let found = pattern.find_iter(line).filter(|found| !found.is_empty());
                finds.extend(found.map(|found| {
                    Find::new(
                        start + found.start()..start + found.end(),
                        What::Pattern(index),
                    )
                }));
            }
            if !self.fields.is_empty() {
                match kind {
                    Text::Lines if line.trim_ascii_start().starts_with(b"{") => {
                        Walker::default().walk(&self.fields, line, start, finds);
                    }
                    Text::Lines => {}
                    // A copy, because the extent of the piece is not known yet.
                    Text::First => Walker::default().walk(&self.fields, line, start, finds),
                    Text::Next => {
                        let walker = memory.walker.clone();
                        walker
                            .unwrap_or_default()
                            .walk(&self.fields, line, start, finds);
                    }
                }
            }
            start = next;
        }
    }

    /// Records the consumed piece. `whole` is set if the piece is all of the scanned text.
    pub(in crate::log) fn pass(&self, piece: &[u8], whole: bool, memory: &mut Memory) {
        // A key that starts after the piece will be scanned again.
        if !whole {
            memory.key_lines = 0;
        }
        if !self.fields.is_empty() {
            let walker = memory.walker.get_or_insert_default();
            walker.walk(&self.fields, piece, 0, &mut Vec::new());
        }
    }

    /// Ends the line that was processed in pieces.
    pub(in crate::log) fn end_line(&self, memory: &mut Memory) {
        memory.walker = None;
    }
}

/// Strips LF or CR LF.
pub(in crate::log) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Sorts finds by start, then longest first, then by kind, and merges those that overlap.
fn merge(finds: &mut Vec<Find>) {
    finds.sort_unstable_by_key(|find| (find.start, std::cmp::Reverse(find.end), find.what));
    finds.dedup_by(|next, kept| {
        let overlaps = next.start < kept.end;
        if overlaps {
            kept.end = kept.end.max(next.end);
            kept.anchor = kept.anchor.min(next.anchor);
        }
        overlaps
    });
}

/// Marks finds outside of strings in lines that are JSON objects: `{"card":4111…}`.
fn quote(text: &[u8], finds: &mut [Find]) {
    // The scanned position, and whether it is in a string; `None` in a line that is not an object.
    let (mut seen, mut line_end, mut inside) = (0, 0, None);
    for find in finds {
        if find.start >= line_end || line_end == 0 {
            let start = memrchr(b'\n', &text[..find.start]).map_or(0, |end| end + 1);
            line_end =
                memchr(b'\n', &text[find.start..]).map_or(text.len(), |len| find.start + len);
            inside = text[start..line_end]
                .trim_ascii_start()
                .starts_with(b"{")
                .then_some(false);
            seen = start;
        }
        if let Some(inside) = &mut inside {
            let mut at = seen;
            while at < find.start {
                match text[at] {
                    b'"' => *inside = !*inside,
                    b'\\' if *inside => at += 1,
                    _ => {}
                }
                at += 1;
            }
            seen = at;
            let (head, tail) = (text[..find.start].trim_ascii_end(), &text[find.end..]);
            let bare = head.ends_with(b":") || head.ends_with(b",") || head.ends_with(b"[");
            let ends = tail.first().is_some_and(|next| b",]} \t".contains(next));
            find.quoted = !*inside && bare && ends;
        }
    }
}
