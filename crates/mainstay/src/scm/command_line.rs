//! Image paths: a program and its arguments in one string, quoted by the rules of
//! `CommandLineToArgvW` and the C runtime ("Parsing C command-line arguments", Microsoft).

use std::ffi::OsStr;

/// Formats a command line from which each string of `argv` is parsed back unchanged. The program is
/// always quoted: an unquoted path with a space allows another program to be placed on it. Returns
/// `None` if a string is not valid Unicode, or if the program contains a quote, which no path can.
pub(super) fn command_line<'a>(
    program: &OsStr,
    arguments: impl IntoIterator<Item = &'a OsStr>,
) -> Option<String> {
    let program = program.to_str().filter(|program| !program.contains('"'))?;
    let mut line = format!("\"{program}\"");
    for argument in arguments {
        line.push(' ');
        quote(argument.to_str()?, &mut line);
    }
    Some(line)
}

fn quote(argument: &str, line: &mut String) {
    if !argument.is_empty() && !argument.contains([' ', '\t', '\n', '\x0b', '"']) {
        line.push_str(argument);
        return;
    }
    line.push('"');
    let mut backslashes = 0;
    for character in argument.chars() {
        match character {
            '\\' => backslashes += 1,
            // Backslashes before a quote are doubled, and the quote needs one more.
            '"' => line.extend(std::iter::repeat_n('\\', backslashes + 1)),
            _ => {}
        }
        if character != '\\' {
            backslashes = 0;
        }
        line.push(character);
    }
    line.extend(std::iter::repeat_n('\\', backslashes));
    line.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parses a command line by the same rules.
    fn parse(line: &str) -> Vec<String> {
        let (program, rest) = line[1..].split_once('"').unwrap();
        let mut argv = vec![program.to_owned()];
        let mut characters = rest.chars().peekable();
        while characters.next_if_eq(&' ').is_some() {
            let mut argument = String::new();
            let mut is_quoted = false;
            loop {
                let mut backslashes = 0;
                while characters.next_if_eq(&'\\').is_some() {
                    backslashes += 1;
                }
                let is_quote = characters.peek() == Some(&'"');
                let kept = if is_quote {
                    backslashes / 2
                } else {
                    backslashes
                };
                argument.extend(std::iter::repeat_n('\\', kept));
                match characters.peek() {
                    Some('"') if backslashes % 2 == 1 => argument.push('"'),
                    Some('"') => is_quoted = !is_quoted,
                    Some(' ' | '\t') if !is_quoted => break,
                    Some(other) => argument.push(*other),
                    None => break,
                }
                characters.next();
            }
            argv.push(argument);
        }
        argv
    }

    #[test]
    fn only_what_must_be_is_quoted() {
        let check = |argument: &str, expected: &str| {
            let line = command_line(OsStr::new("C:\\a b\\c.exe"), [OsStr::new(argument)]);
            assert_eq!(line.unwrap(), format!("\"C:\\a b\\c.exe\" {expected}"));
        };
        check("run", "run");
        check("", "\"\"");
        check("a b", "\"a b\"");
        check("C:\\dir\\", "C:\\dir\\");
        check("C:\\a dir\\", "\"C:\\a dir\\\\\"");
        check("say \"hi\"", "\"say \\\"hi\\\"\"");
        check("\\\"", "\"\\\\\\\"\"");
        assert_eq!(command_line(OsStr::new("a\"b"), []), None);
    }

    proptest! {
        #[test]
        fn every_argument_comes_back(arguments in prop::collection::vec("[ a\\\\\"\tä=%]{0,8}", 0..5)) {
            let line = command_line(OsStr::new("C:\\x.exe"), arguments.iter().map(OsStr::new)).unwrap();
            let mut expected = vec!["C:\\x.exe".to_owned()];
            expected.extend(arguments);
            prop_assert_eq!(parse(&line), expected);
        }
    }
}
