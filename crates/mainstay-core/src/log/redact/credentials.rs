//! Validators for values with a distinctive mark: `@`, a prefix, a key before them. Each takes the
//! text and the position of the mark.

use std::ops::Range;

use super::numbers::{at, before, is_word};

/// The maximum length of a value. A longer value is cut here, and the rest is matched as another
/// value if possible.
const LONGEST: usize = 4096;

fn run(text: &[u8], start: usize, most: usize, part: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    rest.iter().take(most).take_while(|b| part(**b)).count()
}

/// Returns the number of bytes before `end` that match `part`, at most `most`.
fn run_back(text: &[u8], end: usize, most: usize, part: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(..end).unwrap_or_default();
    rest.iter()
        .rev()
        .take(most)
        .take_while(|b| part(**b))
        .count()
}

/// Returns whether a token may start at `start`: at a word boundary, or after `\n` inside a JSON
/// string.
fn is_edge(text: &[u8], start: usize) -> bool {
    let previous = before(text, start);
    !is_word(previous) || (b"nrt".contains(&previous) && before(text, start - 1) == b'\\')
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
}

/// Matches an email address around the `@` at `at_sign`.
pub(super) fn email(text: &[u8], at_sign: usize) -> Option<Range<usize>> {
    const FILES: [&[u8]; 10] = [
        b"png", b"jpg", b"jpeg", b"gif", b"webp", b"svg", b"js", b"css", b"html", b"json",
    ];
    let local_part = |b: u8| is_word(b) || b".%+-'".contains(&b);
    let mut len = run_back(text, at_sign, 65, local_part);
    while len > 0 && b".-'%".contains(&at(text, at_sign - len)) {
        len -= 1;
    }
    let local = &text[at_sign - len..at_sign];
    if len == 0 || len > 64 || local.ends_with(b".") {
        return None;
    }
    let domain_part = |b: u8| is_word(b) && b != b'_' || b".-".contains(&b);
    let mut end = at_sign + 1 + run(text, at_sign + 1, 254, domain_part);
    while b".-".contains(&before(text, end)) {
        end -= 1;
    }
    let domain = text.get(at_sign + 1..end)?;
    let dot = memchr::memrchr(b'.', domain)?;
    let top = &domain[dot + 1..];
    let letters = top.iter().all(|b| b.is_ascii_alphabetic() || *b >= 0x80);
    let top_level = (letters && (2..=24).contains(&top.len())) || top.starts_with(b"xn--");
    let labels = domain.split(|b| *b == b'.');
    let labelled = labels.clone().all(|label| (1..=63).contains(&label.len()));
    let file = FILES.iter().any(|file| top.eq_ignore_ascii_case(file));
    (top_level && labelled && !file).then_some(at_sign - len..end)
}

/// Matches the password of a URL. `colon` is the position of the colon in `://`.
pub(super) fn url_password(text: &[u8], colon: usize) -> Option<Range<usize>> {
    if !text.get(colon..)?.starts_with(b"://") || !is_word(before(text, colon)) {
        return None;
    }
    let start = colon + 3;
    let len = run(text, start, LONGEST, |b| {
        b > b' ' && !b"/?#\"'<>`\\".contains(&b)
    });
    let authority = &text[start..start + len];
    let at_sign = memchr::memrchr(b'@', authority)?;
    let colon = memchr::memchr(b':', &authority[..at_sign])?;
    (colon + 1 < at_sign).then_some(start + colon + 1..start + at_sign)
}

/// Matches a JWT. `start` is the position of `eyJ`, which is `{"` in Base64.
pub(super) fn jwt(text: &[u8], start: usize) -> Option<Range<usize>> {
    let previous = before(text, start);
    if (is_base64url(previous) && !is_edge(text, start)) || previous == b'.' {
        return None;
    }
    let len = run(text, start, 2 * LONGEST, |b| is_base64url(b) || b == b'.');
    let token = text[start..start + len].trim_ascii_end();
    let mut parts = token.split(|b| *b == b'.');
    let header = parts.next()?;
    let payload = parts.next()?;
    let signature = parts.next()?;
    let jws = payload.len() >= 4 && payload.starts_with(b"ey");
    let jwe = parts.next().is_some_and(|part| !part.is_empty()) && !signature.is_empty();
    (header.len() >= 12 && (jws || jwe)).then_some(start..start + len)
}

/// Matches the token after `Bearer`. `start` is the position of a `B` or `b`.
pub(super) fn bearer(text: &[u8], start: usize) -> Option<Range<usize>> {
    let word = text.get(start..start + 6)?;
    if !word.eq_ignore_ascii_case(b"bearer") || !is_edge(text, start) {
        return None;
    }
    let from = after_space(text, start + 6)?;
    let part = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    let len = run(text, from, 2 * LONGEST, part);
    let token = &text[from..from + len];
    let random = token.iter().any(u8::is_ascii_digit) && len >= 8 || len >= 32;
    let header = is_authorization(text, start);
    (random || header && len > 0).then_some(from..from + len)
}

/// Matches the credentials after `Basic`. `start` is the position of a `B` or `b`.
pub(super) fn basic_auth(text: &[u8], start: usize) -> Option<Range<usize>> {
    let word = text.get(start..start + 5)?;
    if !word.eq_ignore_ascii_case(b"basic") || !is_edge(text, start) {
        return None;
    }
    let from = after_space(text, start + 5)?;
    let part = |b: u8| b.is_ascii_alphanumeric() || b"+/=-_".contains(&b);
    let len = run(text, from, LONGEST, part);
    let token = &text[from..from + len];
    let header = is_authorization(text, start) && len > 0;
    (header || holds_user_and_password(token)).then_some(from..from + len)
}

fn after_space(text: &[u8], start: usize) -> Option<usize> {
    let space = run(text, start, 4, |b| b" \t:".contains(&b));
    (space > 0).then_some(start + space)
}

/// Returns whether the text before `start` is the name of the `Authorization` header.
fn is_authorization(text: &[u8], start: usize) -> bool {
    let space = run_back(text, start, 6, |b| b" \t:=\"'\\".contains(&b));
    let head = &text[..start - space];
    let from = head.len().saturating_sub(b"authorization".len());
    space > 0 && head[from..].eq_ignore_ascii_case(b"authorization")
}

/// Returns whether `token` is Base64 of printable text that contains a colon.
fn holds_user_and_password(token: &[u8]) -> bool {
    let body = token.trim_ascii_end();
    let padding = run_back(body, body.len(), 2, |b| b == b'=');
    let body = &body[..body.len() - padding];
    if body.len() < 4 || (padding > 0 && !token.len().is_multiple_of(4)) {
        return false;
    }
    let (mut bits, mut held, mut colon) = (0u32, 0, false);
    for byte in body {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return false,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            let decoded = (bits >> held) as u8;
            if decoded < b' ' || decoded == 0x7f {
                return false;
            }
            colon |= decoded == b':';
        }
    }
    colon
}

/// A token format: a prefix and a number of characters of an alphabet. `mark` is the index in the
/// prefix of the byte that triggers the check.
struct Token {
    prefix: &'static [u8],
    mark: usize,
    least: usize,
    most: usize,
    part: fn(u8) -> bool,
}

fn find_token(text: &[u8], seen: usize, tokens: &[Token]) -> Option<Range<usize>> {
    tokens.iter().find_map(|token| {
        let start = seen.checked_sub(token.mark)?;
        let rest = text.get(start..)?;
        if !rest.starts_with(token.prefix) || !is_edge(text, start) {
            return None;
        }
        let from = start + token.prefix.len();
        let len = run(text, from, token.most + 1, token.part);
        (token.least..=token.most)
            .contains(&len)
            .then_some(start..from + len)
    })
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

const fn token(
    prefix: &'static [u8],
    mark: usize,
    least: usize,
    most: usize,
    part: fn(u8) -> bool,
) -> Token {
    Token {
        prefix,
        mark,
        least,
        most,
        part,
    }
}

/// Matches an AWS access key ID. `seen` is the position of an `I`.
pub(super) fn aws_key(text: &[u8], seen: usize) -> Option<Range<usize>> {
    fn part(byte: u8) -> bool {
        matches!(byte, b'A'..=b'Z' | b'2'..=b'7')
    }
    static TOKENS: [Token; 3] = [
        token(b"AKIA", 2, 16, 16, part),
        token(b"ASIA", 2, 16, 16, part),
        token(b"ABIA", 2, 16, 16, part),
    ];
    find_token(text, seen, &TOKENS).filter(|found| !is_word(at(text, found.end)))
}

/// Matches a Google API key. `seen` is the position of an `I`.
pub(super) fn google_api_key(text: &[u8], seen: usize) -> Option<Range<usize>> {
    static TOKENS: [Token; 1] = [token(b"AIza", 1, 35, 35, is_base64url)];
    find_token(text, seen, &TOKENS)
}

/// Matches a GitHub token. `seen` is the position of a `_`.
pub(super) fn github_token(text: &[u8], seen: usize) -> Option<Range<usize>> {
    fn fine(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || byte == b'_'
    }
    static TOKENS: [Token; 6] = [
        token(b"ghp_", 3, 36, 255, alphanumeric),
        token(b"gho_", 3, 36, 255, alphanumeric),
        token(b"ghu_", 3, 36, 255, alphanumeric),
        token(b"ghs_", 3, 36, 255, alphanumeric),
        token(b"ghr_", 3, 36, 255, alphanumeric),
        token(b"github_pat_", 6, 60, 255, fine),
    ];
    find_token(text, seen, &TOKENS)
}

/// Matches a Stripe key. `seen` is the position of a `_`.
pub(super) fn stripe_key(text: &[u8], seen: usize) -> Option<Range<usize>> {
    static TOKENS: [Token; 5] = [
        token(b"sk_live_", 2, 16, 255, alphanumeric),
        token(b"sk_test_", 2, 16, 255, alphanumeric),
        token(b"rk_live_", 2, 16, 255, alphanumeric),
        token(b"rk_test_", 2, 16, 255, alphanumeric),
        token(b"whsec_", 5, 24, 255, alphanumeric),
    ];
    find_token(text, seen, &TOKENS)
}

/// Matches a GitLab token. `seen` is the position of a `-`.
pub(super) fn gitlab_token(text: &[u8], seen: usize) -> Option<Range<usize>> {
    static TOKENS: [Token; 1] = [token(b"glpat-", 5, 20, 255, is_base64url)];
    find_token(text, seen, &TOKENS)
}

/// Matches a Slack token. `seen` is the position of a `-`.
pub(super) fn slack_token(text: &[u8], seen: usize) -> Option<Range<usize>> {
    fn part(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || byte == b'-'
    }
    let kind = before(text, seen);
    let prefix: &'static [u8] = match kind {
        b'a' | b'b' | b'e' | b'o' | b'p' | b'r' | b's' => b"xox",
        _ => return None,
    };
    let start = match seen.checked_sub(4) {
        Some(start) if text[start..].starts_with(prefix) || text[start..].starts_with(b"xapp") => {
            start
        }
        _ => return None,
    };
    let len = run(text, seen + 1, 512, part);
    let body = &text[seen + 1..seen + 1 + len];
    let random = len >= 10 && body.iter().any(u8::is_ascii_digit);
    (random && is_edge(text, start)).then_some(start..seen + 1 + len)
}

/// A key, `=` or `:`, and a value. `start` is the start of the key.
pub(super) struct Pair<'a> {
    pub(super) start: usize,
    pub(super) key: &'a [u8],
    pub(super) value: Range<usize>,
}

/// Returns the key before a `=` or `:` (also `=>`), if any. The key may be quoted, with plain or
/// escaped quotes.
pub(super) fn key(text: &[u8], seen: usize) -> Option<(usize, &[u8])> {
    const LONGEST_KEY: usize = 64;
    let space = run_back(text, seen, 2, |b| b == b' ');
    let quotes = run_back(text, seen - space, 4, |b| b"\"'\\".contains(&b));
    let end = seen - space - quotes;
    let len = run_back(text, end, LONGEST_KEY, |b| {
        b.is_ascii_alphanumeric() || b"_-.".contains(&b)
    });
    (len >= 3).then(|| (end - len, &text[end - len..end]))
}

/// Returns the key and its value, if any: up to the closing quote, or to a space or separator.
pub(super) fn pair(text: &[u8], seen: usize) -> Option<Pair<'_>> {
    let (start, key) = key(text, seen)?;
    let mut from = seen + 1;
    match (at(text, seen), at(text, from)) {
        (b'=', b'>') | (b':', b'=') => from += 1,
        (b':', b':') | (b'=', b'=') => return None,
        _ => {}
    }
    from += run(text, from, 4, |b| b" \t".contains(&b));
    // An escaped quote `\"` within a quoted string.
    let slashes = run(text, from, 7, |b| b == b'\\');
    let quote = at(text, from + slashes);
    let value = if b"\"'".contains(&quote) {
        from += slashes + 1;
        let rest = text.get(from..)?;
        let line = rest.iter().take(LONGEST).position(|b| *b == b'\n');
        let rest = &rest[..line.unwrap_or(rest.len().min(LONGEST))];
        let mut escapes = 0;
        let close = rest.iter().position(|byte| {
            let closes = *byte == quote && escapes == slashes;
            escapes = match byte {
                // At the nesting level of this string, a pair of backslashes is a literal one.
                b'\\' if escapes > slashes => slashes,
                b'\\' => escapes + 1,
                _ => 0,
            };
            closes
        });
        from..from + close.map_or(rest.len(), |close| close - slashes)
    } else {
        let part = |b: u8| b > b' ' && b != 0x7f && !b"\"',;&<>()[]{}".contains(&b);
        from..from + run(text, from, LONGEST, part)
    };
    (!value.is_empty() && !is_empty_word(&text[value.clone()])).then_some(Pair {
        start,
        key,
        value,
    })
}

/// Returns whether a value is a placeholder for a missing or already hidden value.
fn is_empty_word(value: &[u8]) -> bool {
    const WORDS: [&[u8]; 10] = [
        b"true",
        b"false",
        b"null",
        b"none",
        b"nil",
        b"undefined",
        b"required",
        b"redacted",
        b"filtered",
        b"-",
    ];
    WORDS.iter().any(|word| value.eq_ignore_ascii_case(word))
        || value.iter().all(|b| *b == b'*')
        || value.iter().all(|b| !is_word(*b)) && value.len() < 3
}

/// Returns whether the last part of a key names a secret, with any separators.
pub(super) fn is_secret(key: &[u8]) -> bool {
    const WORDS: [&[u8]; 19] = [
        b"password",
        b"passwd",
        b"passphrase",
        b"passcode",
        b"pwd",
        b"secret",
        b"token",
        b"apikey",
        b"accesskey",
        b"secretkey",
        b"privatekey",
        b"authkey",
        b"signingkey",
        b"encryptionkey",
        b"sessionkey",
        b"masterkey",
        b"credential",
        b"credentials",
        b"psw",
    ];
    let Some(last) = key.last() else { return false };
    if !b"dehntyslDEHNTYSLw".contains(last) && *last != b'W' {
        return false;
    }
    let whole = key
        .rsplit(|b| b"_-.".contains(b))
        .next()
        .unwrap_or_default();
    whole.eq_ignore_ascii_case(b"pass")
        || WORDS.iter().any(|word| ends_with(key, word))
        || key.ends_with(b"Pass")
}

/// Returns whether `key` ends with `word`, ignoring case and separators.
fn ends_with(key: &[u8], word: &[u8]) -> bool {
    let mut key = key.iter().rev().filter(|b| !b"_-.".contains(b));
    word.iter()
        .rev()
        .all(|w| key.next().is_some_and(|k| k.to_ascii_lowercase() == *w))
}

/// Returns whether a value has 40 characters of Base64 and a key with AWS's name for it.
pub(super) fn is_aws_secret(key: &[u8], value: &[u8]) -> bool {
    let part = |b: &u8| b.is_ascii_alphanumeric() || b"+/=".contains(b);
    ends_with(key, b"secretaccesskey") && value.len() == 40 && value.iter().all(part)
}

/// Returns whether a key may name a patient, by the last letters of such keys.
pub(super) fn may_be_patient(key: &[u8]) -> bool {
    let last = key.last().map(u8::to_ascii_lowercase);
    last.is_some_and(|last| b"dnrof".contains(&last)) && key.len() >= 3
}

/// Returns whether a value is short, contains a digit, and has a key that names a patient.
pub(super) fn is_patient(key: &[u8], value: &[u8]) -> bool {
    const WORDS: [&[u8]; 9] = [
        b"patientid",
        b"patientno",
        b"patientnumber",
        b"patientidentifier",
        b"medicalrecordnumber",
        b"medicalrecordno",
        b"medicalrecordid",
        b"nhsnumber",
        b"patientref",
    ];
    let whole = key
        .rsplit(|b| b"_-.".contains(b))
        .next()
        .unwrap_or_default();
    let named = whole.eq_ignore_ascii_case(b"mrn") || WORDS.iter().any(|word| ends_with(key, word));
    let part = |b: &u8| is_word(*b) || b"-/. ".contains(b);
    named && value.len() <= 64 && value.iter().all(part) && value.iter().any(u8::is_ascii_digit)
}

/// The extent of a private key after its BEGIN marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyEnd {
    /// The end of the hidden range.
    pub(super) end: usize,
    /// Set if the END marker was not found.
    pub(super) open: bool,
}

/// Returns the position after `-----BEGIN … PRIVATE KEY-----`, if that is at `start`.
pub(super) fn private_key(text: &[u8], start: usize) -> Option<usize> {
    let rest = text.get(start..)?.strip_prefix(b"-----BEGIN ")?;
    let head = &rest[..rest.len().min(48)];
    let head = &head[..memchr::memchr(b'\n', head).unwrap_or(head.len())];
    let close = memchr::memmem::find(head, b"-----")?;
    let name = &head[..close];
    let private = name.ends_with(b"PRIVATE KEY") || name.ends_with(b"PRIVATE KEY BLOCK");
    private.then_some(start + b"-----BEGIN ".len() + close + b"-----".len())
}

/// Returns the extent of a key in `line` from `start` on: to its END marker, or over all characters
/// that a key may contain.
pub(super) fn key_body(line: &[u8], start: usize) -> KeyEnd {
    let part = |b: u8| b.is_ascii_alphanumeric() || b"+/=\\ \t\r:,".contains(&b);
    let end = start + run(line, start, usize::MAX, part);
    let rest = &line[end..];
    if let Some(tail) = rest.strip_prefix(b"-----END ") {
        let close = memchr::memmem::find(&tail[..tail.len().min(48)], b"-----");
        let len = close.map_or(tail.len(), |close| close + b"-----".len());
        return KeyEnd {
            end: line.len() - tail.len() + len,
            open: false,
        };
    }
    KeyEnd {
        end,
        open: end == line.len(),
    }
}

/// Returns whether a separate line may be part of a key: Base64, a header, or empty.
pub(super) fn is_key_line(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/=".contains(b);
    let header = [
        b"Proc-Type:".as_slice(),
        b"DEK-Info:",
        b"Version:",
        b"Comment:",
        b"Hash:",
    ];
    line.iter().all(base64) || header.iter().any(|header| line.starts_with(header))
}

/// Returns the start of a line of a key after a prefix such as a time or a level.
pub(super) fn key_token(line: &[u8]) -> Option<usize> {
    let line = line.trim_ascii_end();
    let base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b);
    let len = run_back(line, line.len(), usize::MAX, base64);
    (len >= 32).then(|| line.len() - len)
}
