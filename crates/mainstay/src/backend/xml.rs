//! Text in XML 1.0, for files that service managers read.

/// Returns whether XML 1.0 can represent the character: section 2.2.
pub(super) fn can_say(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// Escapes text for an element, or for an attribute value in double quotes. White space is escaped
/// where parsers would convert it to plain spaces (3.3.3) or single newlines (2.11).
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\t' => escaped += "&#9;",
            '\n' => escaped += "&#10;",
            '\r' => escaped += "&#13;",
            char => escaped.push(char),
        }
    }
    escaped
}
