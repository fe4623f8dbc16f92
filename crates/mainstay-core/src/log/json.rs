//! Fast JSON for log lines: escaping of strings, and validation of objects without building them.

use memchr::memchr2;

/// Appends `bytes`, which must be UTF-8, as the contents of a JSON string.
pub(super) fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        if let Some(eight) = bytes[at..].first_chunk::<8>()
            && !has_special(u64::from_le_bytes(*eight))
        {
            at += 8;
            continue;
        }
        let stop = bytes.len().min(at + 8);
        while at < stop {
            let byte = bytes[at];
            at += 1;
            if byte >= b' ' && byte != b'"' && byte != b'\\' {
                continue;
            }
            out.extend_from_slice(&bytes[from..at - 1]);
            from = at;
            match byte {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                _ => {
                    out.extend_from_slice(b"\\u00");
                    out.push(HEX[usize::from(byte >> 4)]);
                    out.push(HEX[usize::from(byte & 15)]);
                }
            }
        }
    }
    out.extend_from_slice(&bytes[from..]);
}

/// Returns whether one of eight bytes is below a space, a quote or a backslash.
fn has_special(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let below = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    below | zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) != 0
}

/// Returns whether `text` is a well-formed JSON object (RFC 8259). The caller must check that its
/// strings are UTF-8.
pub(super) fn is_object(text: &[u8]) -> bool {
    /// The maximum depth of an object in a log line.
    const DEEPEST: u32 = 64;
    // One bit for each open bracket; 1 is an object.
    let (mut open, mut depth) = (0u64, 0u32);
    let mut at = 0;
    let blank = |at: &mut usize| {
        while text.get(*at).is_some_and(|b| b" \t\r\n".contains(b)) {
            *at += 1;
        }
    };
    if text.first() != Some(&b'{') {
        return false;
    }
    loop {
        // A value starts here.
        blank(&mut at);
        match text.get(at) {
            Some(bracket @ (b'{' | b'[')) => {
                if depth == DEEPEST {
                    return false;
                }
                let is_object = *bracket == b'{';
                open = open << 1 | u64::from(is_object);
                depth += 1;
                at += 1;
                blank(&mut at);
                let close = if is_object { b'}' } else { b']' };
                if text.get(at) != Some(&close) {
                    if is_object && !key(text, &mut at) {
                        return false;
                    }
                    continue;
                }
            }
            Some(b'"') => {
                if !string(text, &mut at) {
                    return false;
                }
            }
            Some(_) => {
                if !scalar(text, &mut at) {
                    return false;
                }
            }
            None => return false,
        }
        // A value ends here, and possibly the objects and arrays around it.
        loop {
            blank(&mut at);
            let is_object = open & 1 == 1;
            match text.get(at) {
                Some(b'}') if is_object => {}
                Some(b']') if !is_object => {}
                Some(b',') => {
                    at += 1;
                    blank(&mut at);
                    if is_object && !key(text, &mut at) {
                        return false;
                    }
                    break;
                }
                _ => return false,
            }
            at += 1;
            open >>= 1;
            depth -= 1;
            if depth == 0 {
                return at == text.len();
            }
        }
    }
}

/// Skips a string and the colon after it.
fn key(text: &[u8], at: &mut usize) -> bool {
    if text.get(*at) != Some(&b'"') || !string(text, at) {
        return false;
    }
    while text.get(*at).is_some_and(|b| b" \t\r\n".contains(b)) {
        *at += 1;
    }
    *at += 1;
    text.get(*at - 1) == Some(&b':')
}

fn string(text: &[u8], at: &mut usize) -> bool {
    let mut next = *at + 1;
    loop {
        let rest = text.get(next..).unwrap_or_default();
        let Some(len) = memchr2(b'"', b'\\', rest) else {
            return false;
        };
        if rest[..len].iter().any(|b| *b < b' ') {
            return false;
        }
        next += len + 1;
        if rest[len] == b'"' {
            *at = next;
            return true;
        }
        next += match text.get(next) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 1,
            Some(b'u') => {
                let hex = text.get(next + 1..next + 5);
                if !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
                    return false;
                }
                5
            }
            _ => return false,
        };
    }
}

/// Skips a number, `true`, `false` or `null`.
fn scalar(text: &[u8], at: &mut usize) -> bool {
    let rest = &text[*at..];
    for word in [b"true".as_slice(), b"false", b"null"] {
        if rest.starts_with(word) {
            *at += word.len();
            return true;
        }
    }
    let digits = |from: usize| {
        let rest = rest.get(from..).unwrap_or_default();
        rest.iter().take_while(|b| b.is_ascii_digit()).count()
    };
    let mut len = usize::from(rest.first() == Some(&b'-'));
    let whole = digits(len);
    if whole == 0 || whole > 1 && rest[len] == b'0' {
        return false;
    }
    len += whole;
    if rest.get(len) == Some(&b'.') {
        let fraction = digits(len + 1);
        if fraction == 0 {
            return false;
        }
        len += 1 + fraction;
    }
    if let Some(b'e' | b'E') = rest.get(len) {
        let sign = usize::from(matches!(rest.get(len + 1), Some(b'+' | b'-')));
        let exponent = digits(len + 1 + sign);
        if exponent == 0 {
            return false;
        }
        len += 1 + sign + exponent;
    }
    *at += len;
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agrees(text: &str) {
        let serde: Result<serde_json::Map<String, serde_json::Value>, _> =
            serde_json::from_str(text);
        // A lone surrogate is well-formed but meaningless, and so is a number that no float can
        // represent.
        let lenient = text.contains("\\u") || text.contains(['e', 'E']);
        let exact = text.starts_with('{') && text.ends_with('}');
        if exact && !lenient {
            assert_eq!(is_object(text.as_bytes()), serde.is_ok(), "{text}");
        } else if exact && serde.is_ok() {
            assert!(is_object(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn objects_are_judged() {
        for text in [
            "{}",
            "{ }",
            r#"{"a":1}"#,
            r#"{"a":[{"b":[]},-1.5e+3,true,null,"\u00e9\n"]}"#,
            r#"{"a":{"b":{}} , "c":0}"#,
        ] {
            assert!(is_object(text.as_bytes()), "{text}");
            agrees(text);
        }
        for text in [
            "",
            "[]",
            "1",
            "{",
            "}",
            "{]",
            "{}}",
            "{}{}",
            "{} ",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[}"#,
            r#"{a:1}"#,
            r#"{"a":"\x"}"#,
            "{\"a\":\"\t\"}",
            r#"{"a":tru}"#,
            r#"{"a":"b}"#,
            r#"{"a":1 2}"#,
            r#"{"a":+1}"#,
            r#"{"a":-}"#,
        ] {
            assert!(!is_object(text.as_bytes()), "{text}");
        }
        let deep = |n: usize| format!("{}1{}", "{\"a\":".repeat(n), "}".repeat(n));
        assert!(is_object(deep(64).as_bytes()));
        assert!(!is_object(deep(65).as_bytes()));
    }

    proptest! {
        #[test]
        fn it_judges_as_a_parser_does(text in r#"\{(\{|\}|\[|\]|"a"|:|,|1|-|0|\.|true|"\\n"| ){0,12}\}"#) {
            agrees(&text);
        }

        #[test]
        fn what_is_escaped_reads_back(text in any::<String>()) {
            let mut out = vec![b'"'];
            escape(text.as_bytes(), &mut out);
            out.push(b'"');
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
