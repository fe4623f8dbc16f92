//! Output for people. Some of the text comes from others: status texts of services, output of a
//! manager's commands, file names. Control characters in it are escaped on a terminal, which would
//! interpret them. Files and pipes receive every byte unchanged.

use std::io::{self, IsTerminal, Write};

/// Writes `text` to standard output or standard error.
pub(crate) fn write(mut stream: impl Write + IsTerminal, text: &str) -> io::Result<()> {
    if stream.is_terminal() {
        stream.write_all(escaped(text).as_bytes())
    } else {
        stream.write_all(text.as_bytes())
    }
}

/// Escapes the same characters as the `mainstay` command: C0 except tab and newline, DEL, C1, and
/// characters that reorder or break lines.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' | '\t' => escaped.push(char),
            '\0'..' ' => escaped += &format!("\\x{:02x}", u32::from(char)),
            '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => escaped += &format!("\\u{:04x}", u32::from(char)),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        for (text, expect) in [
            ("plain\ttext → 🦀\n", "plain\ttext → 🦀\n"),
            ("\u{1b}[2J\r\u{7f}", r"\x1b[2J\x0d\u007f"),
            (
                "\u{9b}\u{202e}\u{2066}\u{2028}",
                r"\u009b\u202e\u2066\u2028",
            ),
        ] {
            assert_eq!(escaped(text), expect);
        }
    }
}
