//! Text for sh(1), as POSIX describes it.

/// Whether a word can hold it.
pub(super) fn can_say(char: char) -> bool {
    char != '\0'
}

/// One word, in which nothing means anything.
pub(super) fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Words, with spaces between.
pub(super) fn command_line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(quoted).collect();
    words.join(" ")
}

/// Statements that put the variables of a file into the environment, but for those that win over it. The file is data: lines of `NAME=value`.
pub(super) fn read_env_file(path: &str, winners: &[(&str, &str)]) -> String {
    let winners = winners.iter().map(|(name, _)| format!("{name}=*) ;; "));
    let winners: String = winners.collect();
    let path = quoted(path);
    format!(
        "while IFS= read -r mainstay_line || [ -n \"$mainstay_line\" ]; do\n\
         \tcase $mainstay_line in {winners}[A-Za-z_]*=*) export \"$mainstay_line\" ;; esac\n\
         done < {path} || exit 78\n"
    )
}

/// Statements that put variables into the environment.
pub(super) fn exports(env: &[(&str, &str)]) -> String {
    let lines = env.iter();
    let lines = lines.map(|(name, value)| format!("export {name}={}\n", quoted(value)));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_variables_is_data_and_loses_to_what_is_said() {
        let path = std::env::temp_dir().join(format!("mainstay env'{}", std::process::id()));
        std::fs::write(&path, "# x\nA=1 $HOME `id` \\n\n\nB=no\n C=2\nD='4'").unwrap();
        let script = exports(&[("B", "it's \"$B\"")])
            + &read_env_file(path.to_str().unwrap(), &[("B", "")])
            + "printf '%s|' \"$A\" \"$B\" \"$C\" \"$D\"";
        let mut shell = std::process::Command::new("/bin/sh");
        let said = shell
            .args(["-c", &script])
            .env_remove("C")
            .output()
            .unwrap();
        let expected = "1 $HOME `id` \\n|it's \"$B\"||'4'|";
        assert_eq!(String::from_utf8_lossy(&said.stdout), expected, "{script}");
        std::fs::remove_file(&path).unwrap();
        let said = shell.args(["-c", &script]).output().unwrap();
        assert!(!said.status.success());
    }
}
