//! The strings that `CreateProcessW` takes: the command line and the environment block. Pure, on
//! UTF-16.
//!
//! Windows passes one command line, and each program splits it by itself. Nearly all use the C
//! runtime's rules ("Parsing C command-line arguments", Microsoft Learn). `cmd.exe`, which runs
//! batch files, has other rules, and would execute the parts of an argument that it treats as
//! syntax (CVE-2024-24576). Arguments that cannot be passed to it safely are refused.

use std::fmt;

/// The maximum length of the command line of `CreateProcessW` in UTF-16 units, with its NUL.
const LONGEST: usize = 32_767;
/// The maximum length of the command line of `cmd.exe` in UTF-16 units, with its NUL.
const LONGEST_OF_CMD: usize = 8_191;

/// The reason why a command line cannot be made of a program and its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// An argument contains a NUL, or the program's name a quote.
    Character,
    /// A word of a batch file's command line contains a quote, a percent sign or a line end.
    BatchCharacter,
    /// The line is longer than the system accepts.
    TooLong {
        /// The length in UTF-16 units.
        units: usize,
        /// The maximum length.
        limit: usize,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character => {
                f.write_str("an argument contains a NUL, or the program's name a quote")
            }
            Self::BatchCharacter => f.write_str(
                "an argument of a batch file contains a quote, a percent sign or a line end",
            ),
            Self::TooLong { units, limit } => write!(
                f,
                "the command line has {units} UTF-16 units, and Windows accepts at most {limit}{}",
                if *limit == LONGEST_OF_CMD {
                    " for a batch file"
                } else {
                    ""
                }
            ),
        }
    }
}

const QUOTE: u16 = b'"' as u16;
const BACKSLASH: u16 = b'\\' as u16;

/// Returns the command line for a program that follows the C runtime's rules.
///
/// # Errors
/// If there is a NUL, or a quote in `argv[0]`, for which the rules have no escape; if the line is
/// too long.
pub fn command_line(argv: &[Vec<u16>]) -> Result<Vec<u16>, Unusable> {
    let mut line = Vec::new();
    for (index, word) in argv.iter().enumerate() {
        if word.contains(&0) || index == 0 && word.contains(&QUOTE) {
            return Err(Unusable::Character);
        }
        if index > 0 {
            line.push(b' '.into());
        }
        let is_plain =
            !word.is_empty() && !word.iter().any(|unit| is_space(*unit) || *unit == QUOTE);
        match index {
            _ if is_plain => line.extend(word),
            0 => line.extend([&[QUOTE], &**word, &[QUOTE]].concat()),
            _ => push_quoted(&mut line, word),
        }
    }
    line.push(0);
    within(LONGEST, line)
}

fn within(limit: usize, line: Vec<u16>) -> Result<Vec<u16>, Unusable> {
    match line.len() {
        units if units > limit => Err(Unusable::TooLong { units, limit }),
        _ => Ok(line),
    }
}

fn is_space(unit: u16) -> bool {
    matches!(unit, 0x09..=0x0d | 0x20)
}

/// Appends a quoted word. Backslashes are literal, unless a quote follows.
fn push_quoted(line: &mut Vec<u16>, word: &[u16]) {
    line.push(QUOTE);
    let mut backslashes = 0;
    for &unit in word {
        match unit {
            BACKSLASH => backslashes += 1,
            QUOTE => {
                line.extend(std::iter::repeat_n(BACKSLASH, backslashes + 1));
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
        line.push(unit);
    }
    line.extend(std::iter::repeat_n(BACKSLASH, backslashes));
    line.push(QUOTE);
}

/// Returns the command line for `cmd.exe` to run a batch file.
///
/// # Errors
/// If a word contains a quote, a percent sign or a control character: between quotes, `cmd` treats
/// no other character as syntax (not even `!`, because of /v:off). If the line is too long.
pub fn batch_command_line(script: &[u16], arguments: &[Vec<u16>]) -> Result<Vec<u16>, Unusable> {
    let is_safe = |word: &&[u16]| {
        word.iter()
            .all(|unit| *unit >= 0x20 && !b"\"%".map(u16::from).contains(unit))
    };
    let words = std::iter::once(script).chain(arguments.iter().map(|word| &**word));
    let mut line: Vec<u16> = "cmd.exe /e:on /v:off /d /c \"".encode_utf16().collect();
    for (index, word) in words.enumerate() {
        if !is_safe(&word) {
            return Err(Unusable::BatchCharacter);
        }
        if index > 0 {
            line.push(b' '.into());
        }
        // A trailing backslash would escape the quote for a program that gets the argument from the
        // batch file.
        push_quoted(&mut line, word);
    }
    line.extend([QUOTE, 0]);
    within(LONGEST_OF_CMD, line)
}

/// Returns whether `cmd.exe` runs the file.
pub fn is_batch(program: &[u16]) -> bool {
    // Windows ignores trailing dots and spaces in a name.
    let end = program
        .iter()
        .rposition(|unit| !matches!(*unit, 0x20 | 0x2e))
        .map_or(0, |at| at + 1);
    let name = String::from_utf16_lossy(&program[..end]).to_ascii_lowercase();
    name.ends_with(".bat") || name.ends_with(".cmd")
}

/// Returns the text by which the system compares the names of variables: in upper case, character
/// by character.
pub fn variable_key(name: &str) -> String {
    let upper = |char: char| {
        let mut upper = char.to_uppercase();
        match (upper.next(), upper.next()) {
            (Some(upper), None) => upper,
            _ => char,
        }
    };
    name.chars().map(upper).collect()
}

/// Returns the environment block, sorted by name without regard to case, as `CreateProcessW`
/// requires. Of names that differ only in case, the last one counts. Returns `None` if there is a
/// NUL, an empty name, or an equals sign in a name other than at its beginning (where Windows hides
/// its drives).
pub fn environment(variables: impl Iterator<Item = (Vec<u16>, Vec<u16>)>) -> Option<Vec<u16>> {
    let mut sorted = std::collections::BTreeMap::new();
    for (name, value) in variables {
        let has_equals = name.iter().skip(1).any(|unit| *unit == u16::from(b'='));
        if name.is_empty() || has_equals || name.contains(&0) || value.contains(&0) {
            return None;
        }
        let key = variable_key(&String::from_utf16_lossy(&name));
        let key: Vec<u16> = key.encode_utf16().collect();
        sorted.insert(key, (name, value));
    }
    let mut block = Vec::new();
    for (name, value) in sorted.values() {
        block.extend(name);
        block.push(b'='.into());
        block.extend(value);
        block.push(0);
    }
    if block.is_empty() {
        block.push(0);
    }
    block.push(0);
    Some(block)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wide(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    fn line(words: &[&str]) -> Result<String, Unusable> {
        let words: Vec<_> = words.iter().map(|word| wide(word)).collect();
        Ok(String::from_utf16(&command_line(&words)?).unwrap())
    }

    /// Splits a line by the C runtime's rules, as Microsoft documents them.
    fn split(line: &[u16]) -> Vec<Vec<u16>> {
        let line = line.strip_suffix(&[0]).unwrap();
        let mut rest = line.iter().copied().peekable();
        let mut program = Vec::new();
        let mut quoted = false;
        while let Some(unit) = rest.next_if(|unit| quoted || !is_space(*unit)) {
            match unit {
                QUOTE => quoted = !quoted,
                unit => program.push(unit),
            }
        }
        let mut words = vec![program];
        loop {
            while rest.next_if(|unit| is_space(*unit)).is_some() {}
            if rest.peek().is_none() {
                return words;
            }
            let mut word = Vec::new();
            let mut quoted = false;
            while let Some(unit) = rest.next_if(|unit| quoted || !is_space(*unit)) {
                let mut backslashes = usize::from(unit == BACKSLASH);
                if backslashes > 0 {
                    while rest.next_if_eq(&BACKSLASH).is_some() {
                        backslashes += 1;
                    }
                    if rest.peek() != Some(&QUOTE) {
                        word.extend(std::iter::repeat_n(BACKSLASH, backslashes));
                        continue;
                    }
                    word.extend(std::iter::repeat_n(BACKSLASH, backslashes / 2));
                    if backslashes % 2 == 1 {
                        word.extend(rest.next());
                    }
                    continue;
                }
                match unit {
                    QUOTE if quoted && rest.next_if_eq(&QUOTE).is_some() => word.push(QUOTE),
                    QUOTE => quoted = !quoted,
                    unit => word.push(unit),
                }
            }
            words.push(word);
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_splits_into_the_same(
            program in "[a-z \\\\]{0,8}",
            arguments in prop::collection::vec("[a-z\"\\\\ \t'%^&ü]{0,12}", 0..5),
        ) {
            let words: Vec<_> = std::iter::once(&program).chain(&arguments).map(|word| wide(word)).collect();
            prop_assert_eq!(split(&command_line(&words).unwrap()), words);
        }
    }

    #[test]
    fn command_lines() {
        for (words, expect) in [
            (
                &[r"C:\a b\c.exe", "x", "", "a b", r#"a"b"#, r"a\b", r"a b\"][..],
                Ok("\"C:\\a b\\c.exe\" x \"\" \"a b\" \"a\\\"b\" a\\b \"a b\\\\\"\0"),
            ),
            (&[r#"a"b"#], Err(Unusable::Character)),
            (&["a", "b\0c"], Err(Unusable::Character)),
            (&["a"], Ok("a\0")),
        ] {
            assert_eq!(line(words), expect.map(str::to_owned), "{words:?}");
        }
    }

    #[test]
    fn the_longest_lines() {
        let argument = |units: usize| vec![u16::from(b'x'); units];
        let longest = |units| command_line(&[wide("a"), argument(units)]).map(|line| line.len());
        assert_eq!(longest(LONGEST - 3), Ok(LONGEST));
        let (units, limit) = (LONGEST + 1, LONGEST);
        assert_eq!(
            longest(LONGEST - 2),
            Err(Unusable::TooLong { units, limit })
        );

        let frame = batch_command_line(&wide("a.bat"), &[argument(0)])
            .unwrap()
            .len();
        let longest =
            |units| batch_command_line(&wide("a.bat"), &[argument(units)]).map(|line| line.len());
        assert_eq!(longest(LONGEST_OF_CMD - frame), Ok(LONGEST_OF_CMD));
        let (units, limit) = (LONGEST_OF_CMD + 1, LONGEST_OF_CMD);
        let too_long = Unusable::TooLong { units, limit };
        assert_eq!(longest(LONGEST_OF_CMD - frame + 1), Err(too_long));
    }

    #[test]
    fn batch_files_get_only_what_cmd_cannot_misread() {
        let check = |script: &str, arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(|word| wide(word)).collect();
            batch_command_line(&wide(script), &arguments)
                .map(|line| String::from_utf16(&line).unwrap())
        };
        let line =
            "cmd.exe /e:on /v:off /d /c \"\"C:\\a b\\c.cmd\" \"x & calc\" \"\" \"d:\\\\\"\"\0";
        let arguments = ["x & calc", "", r"d:\"];
        assert_eq!(check(r"C:\a b\c.cmd", &arguments).as_deref(), Ok(line));
        for bad in ["a\"b", "%PATH%", "a\nb", "a\rb", "\0"] {
            let refused = Err(Unusable::BatchCharacter);
            assert_eq!(check("c.bat", &[bad]), refused, "{bad:?}");
            assert_eq!(check(bad, &[]), refused, "{bad:?}");
        }
        for (program, expect) in [
            ("a.BAT", true),
            (r"c:\a.cmd", true),
            ("a.cmd. .", true),
            ("a.cmd.exe", false),
            ("bat", false),
            ("", false),
        ] {
            assert_eq!(is_batch(&wide(program)), expect, "{program}");
        }
    }

    #[test]
    fn environments() {
        let check = |variables: &[(&str, &str)]| {
            let variables = variables
                .iter()
                .map(|(name, value)| (wide(name), wide(value)));
            Some(String::from_utf16(&environment(variables)?).unwrap())
        };
        assert_eq!(check(&[]).as_deref(), Some("\0\0"));
        assert_eq!(
            check(&[
                ("b", "1"),
                ("Path", "x"),
                ("A_", "2"),
                ("AB", "3"),
                ("PATH", "y=z"),
                ("=C:", r"C:\")
            ])
            .as_deref(),
            Some("=C:=C:\\\0AB=3\0A_=2\0b=1\0PATH=y=z\0\0")
        );
        for bad in [("", "x"), ("a=b", "x"), ("a", "\0"), ("\0", "x")] {
            assert_eq!(check(&[bad]), None, "{bad:?}");
        }
    }
}
