//! Text in the columns of a terminal: its width, and how it is cut and wrapped to one.
//!
//! The text contains no control characters ([`crate::output::one_line`]). Where terminals disagree
//! about the width of a sequence of characters (emoji that are joined to one), the larger width
//! counts, so that a line never wraps by itself.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar as _;

/// Returns the number of columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

fn width_of(character: char) -> usize {
    match character {
        // The emoji variation of the character before it is one column wider than its plain form.
        '\u{fe0f}' => 1,
        _ => character.width().unwrap_or(0),
    }
}

/// Returns the length in bytes of the longest beginning that fits.
fn fitting(text: &str, columns: usize) -> usize {
    let mut taken = 0;
    let too_wide = text.char_indices().find(|(_, character)| {
        taken += width_of(*character);
        taken > columns
    });
    too_wide.map_or(text.len(), |(at, _)| at)
}

/// Returns a text of at most this width. An ellipsis shows where the rest was cut off.
pub(crate) fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    match columns {
        _ if fitting(text, columns) == text.len() => Cow::Borrowed(text),
        0 => Cow::Borrowed(""),
        _ => {
            let kept = text[..fitting(text, columns - 1)].trim_end();
            Cow::Owned(format!("{kept}…"))
        }
    }
}

/// Breaks a text into lines of at most this width: at spaces, and within words that are longer
/// than a line.
pub(crate) fn wrap(text: &str, columns: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let fitting = fitting(text, columns);
        if fitting == text.len() {
            return Some(text);
        }
        let first = text.chars().next().map_or(0, char::len_utf8);
        let is_between_words = text[fitting..].starts_with(' ');
        let space = text[..fitting].rfind(' ').filter(|at| *at > 0);
        let end = match space {
            Some(space) if !is_between_words => space,
            _ => fitting.max(first),
        };
        rest = Some(text[end..].trim_start()).filter(|rest| !rest.is_empty());
        Some(text[..end].trim_end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_by_its_width_on_a_terminal() {
        for (text, columns, expected) in [
            ("", 0, ""),
            ("web", 3, "web"),
            ("website", 4, "web…"),
            ("web site", 5, "web…"),
            ("web", 1, "…"),
            ("web", 0, ""),
            // Two columns each.
            ("漢字漢字", 8, "漢字漢字"),
            ("漢字漢字", 7, "漢字漢…"),
            ("漢字漢字", 6, "漢字…"),
            // A combining accent stays with its letter.
            ("e\u{301}tude", 3, "e\u{301}t…"),
            ("☁\u{fe0f}☁\u{fe0f}", 3, "☁\u{fe0f}…"),
        ] {
            let cut = cut(text, columns);
            assert_eq!(cut, expected, "{text} in {columns}");
            assert!(width(&cut) <= columns, "{text} in {columns}");
        }
    }

    #[test]
    fn text_is_wrapped_between_words_if_possible() {
        let check = |text: &str, columns, expected: &[&str]| {
            let lines: Vec<_> = wrap(text, columns).collect();
            assert_eq!(lines, expected, "{text} in {columns}");
        };
        check("", 10, &[""]);
        check("exit code 1", 11, &["exit code 1"]);
        check("exit code 1", 10, &["exit code", "1"]);
        check("exit code 1", 9, &["exit code", "1"]);
        check("exit  code", 5, &["exit", "code"]);
        check("/usr/lib/web fails", 8, &["/usr/lib", "/web", "fails"]);
        check("漢字漢字", 5, &["漢字", "漢字"]);
        // No line is empty, however narrow the terminal is.
        check("漢字", 1, &["漢", "字"]);
        check(" ab", 1, &["", "a", "b"]);
    }
}
