//! Text for sh(1), as specified by POSIX.

use super::draft::is_made_of;

/// Returns whether a word can contain the character.
pub(super) fn can_say(char: char) -> bool {
    char != '\0'
}

/// Returns whether a shell reads the text literally, however often it is evaluated.
pub(super) fn is_plain(text: &str) -> bool {
    is_made_of(text, b"/._-+,:@%")
}

/// Quotes one word so that it is read literally.
pub(super) fn quoted(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Joins quoted words with spaces.
pub(super) fn command_line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(quoted).collect();
    words.join(" ")
}

/// A function that reads variables from its standard input, except those whose names are in its
/// single argument. The lines are data in the format of the core's `env_file`: a byte order mark,
/// comment lines, an optional `export `, `NAME=value`, and one pair of quotes around the value.
pub(super) const READ_ENV_FILE: &str = r#"read_env_file() {
	_mark=$(printf '\357\273\277')
	while IFS= read -r _line || [ -n "$_line" ]; do
		_line=${_line#"$_mark"} _mark=
		_line=${_line#"${_line%%[![:space:]]*}"}
		_line=${_line%"${_line##*[![:space:]]}"}
		case $_line in '' | '#'* | ';'*) continue ;; esac
		case $_line in export[[:space:]]*) _line=${_line#export} _line=${_line#"${_line%%[![:space:]]*}"} ;; esac
		_key=${_line%%=*} _value=${_line#*=}
		_key=${_key%"${_key##*[![:space:]]}"}
		_value=${_value#"${_value%%[![:space:]]*}"}
		case $_line in *=*) ;; *) _key= ;; esac
		case $_key in
		'' | [!A-Za-z_]* | *[!A-Za-z0-9_]*) echo "a line of the env_file is no NAME=value" >&2; return 1 ;;
		esac
		case $_value in
		\"*\" | \'*\') [ ${#_value} -gt 1 ] && _value=${_value#?} _value=${_value%?} ;;
		\"* | \'*) echo "a quote in the env_file is not closed" >&2; return 1 ;;
		esac
		case " $1 " in *" $_key "*) ;; *) export "$_key=$_value" ;; esac
	done
}
"#;

/// Returns statements that export the variables of a file, except those that override it.
pub(super) fn read_env_file(path: &str, winners: &[(&str, &str)]) -> String {
    let winners: Vec<&str> = winners.iter().map(|(name, _)| *name).collect();
    let (winners, path) = (quoted(&winners.join(" ")), quoted(path));
    format!("{READ_ENV_FILE}read_env_file {winners} < {path} || exit 78\n")
}

/// Returns statements that export variables.
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
        let text = "\u{feff}# x\n; y\nexport A = 1 $HOME `id` \\n \n\nB=no\n C=2\nD='4'\r\nE=\"5 \"\nG=v # c\n\texport\tH=8\nF=";
        std::fs::write(&path, text).unwrap();
        let script = exports(&[("B", "it's \"$B\"")])
            + &read_env_file(path.to_str().unwrap(), &[("B", "")])
            + "printf '%s|' \"$A\" \"$B\" \"$C\" \"$D\" \"$E\" \"$G\" \"$H\" \"${F-none}\"";
        let mut shell = std::process::Command::new("/bin/sh");
        let said = shell
            .args(["-c", &script])
            .env_remove("C")
            .output()
            .unwrap();
        let expected = "1 $HOME `id` \\n|it's \"$B\"|2|4|5 |v # c|8||";
        assert_eq!(String::from_utf8_lossy(&said.stdout), expected, "{script}");
        for bad in ["just words", "=x", "1A=x", "A=\"b", "A='"] {
            std::fs::write(&path, bad).unwrap();
            let said = shell.args(["-c", &script]).output().unwrap();
            assert_eq!(said.status.code(), Some(78), "{bad}");
        }
        std::fs::remove_file(&path).unwrap();
        let said = shell.args(["-c", &script]).output().unwrap();
        assert!(!said.status.success());
    }
}
