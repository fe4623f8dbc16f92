//! Reading of sources and command lines: words, ports, values. Nothing here parses a language; it
//! recognizes the usual spelling.

/// A command line as its words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// Variables set before the program: `NAME=value program …`.
    pub(super) env: Vec<(String, String)>,
    pub(super) words: Vec<String>,
}

/// Splits a command line as a shell does. Returns `None` if only a shell can run it, because of
/// pipes, substitutions, patterns and the like. `$PORT` becomes `port`, if one is given.
pub(super) fn words(line: &str, port: Option<u16>) -> Option<Words> {
    let line = match port.map(|port| port.to_string()) {
        Some(port) => line.replace("${PORT}", &port).replace("$PORT", &port),
        None => line.to_owned(),
    };
    let mut all = Vec::new();
    let mut chars = line.trim().chars().peekable();
    while let Some(&next) = chars.peek() {
        if next.is_whitespace() {
            chars.next();
            continue;
        }
        let (mut word, mut quote) = (String::new(), None);
        while let Some(&c) = chars.peek() {
            match (quote, c) {
                (None, c) if c.is_whitespace() => break,
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), c) if open == c => quote = None,
                (Some('"'), '$' | '`' | '\\') => return None,
                (None, c) if "$`\\|&;<>()*?[]{}~!#".contains(c) => return None,
                (_, c) => word.push(c),
            }
            chars.next();
        }
        if quote.is_some() {
            return None;
        }
        all.push(word);
    }
    let is_assignment = |word: &String| {
        let name = word.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| !name.is_empty() && name.chars().all(is_word))
    };
    let count = all.iter().take_while(|word| is_assignment(word)).count();
    let words = all.split_off(count);
    let env = all.iter().filter_map(|it| it.split_once('='));
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let env = env.collect();
    (!words.is_empty()).then_some(Words { env, words })
}

/// Returns the port after `--port`, `-p` and the like in a command.
pub(super) fn port_option(words: &[String]) -> Option<u16> {
    words.iter().enumerate().find_map(|(at, word)| {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (&**word, words.get(at + 1).map(String::as_str)),
        };
        match option {
            "-p" | "--port" | "-P" | "--http-port" => value?.parse().ok(),
            "-b" | "--bind" | "--listen" | "--http" => value?.rsplit(':').next()?.parse().ok(),
            _ => None,
        }
    })
}

/// Returns the first number that follows `before` in a text, past white space, quotes and
/// operators. A number of a port is at least 80.
pub(super) fn port_after(text: &str, before: &str) -> Option<u16> {
    text.match_indices(before).find_map(|(at, _)| {
        let rest = text.get(at + before.len()..)?;
        let rest = rest.trim_start_matches([' ', '\'', '"', ',', '|', '?', ')', ']', ':']);
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok().filter(|port| *port >= 80)
    })
}

/// Returns the port of a literal address such as `0.0.0.0:8080` or `":8080"`.
pub(super) fn port_of_address(text: &str) -> Option<u16> {
    let before = [
        "0.0.0.0:",
        "127.0.0.1:",
        "localhost:",
        "[::]:",
        "[::1]:",
        "\":",
    ];
    before.iter().find_map(|it| port_after(text, it))
}

/// Returns the name that is assigned the result of calling `function`, such as `app` for
/// `app = Flask(__name__)`.
pub(super) fn assigned<'a>(text: &'a str, function: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        // A type may follow the name.
        let name = name.split(':').next()?.trim_end();
        let value = value.trim_start();
        let called = value.strip_suffix('(').unwrap_or(value).split('(').next()?;
        let last = called.rsplit('.').next()?;
        let is_name = !name.is_empty() && name.chars().all(is_word);
        (is_name && last == function && value.contains('(')).then_some(name)
    })
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_command_lines_need_no_shell() {
        let check = |line: &str, expect: Option<&[&str]>| {
            let found = words(line, Some(5000)).map(|it| it.words);
            let expect = expect.map(|all| all.iter().map(ToString::to_string).collect());
            assert_eq!(found, expect, "{line}");
        };
        check("node server.js", Some(&["node", "server.js"]));
        check(" a  'b c' \"d e\"f", Some(&["a", "b c", "d ef"]));
        check("puma -p $PORT", Some(&["puma", "-p", "5000"]));
        check("puma -b :${PORT}", Some(&["puma", "-b", ":5000"]));
        check("A=1 B='2 3' puma", Some(&["puma"]));
        check("a ''", Some(&["a", ""]));
        for line in [
            "a | b", "a && b", "a > b", "a $X", "a \"$X\"", "a `b`", "a *.js", "a 'b", "A=1", "",
        ] {
            check(line, None);
        }
        let found = words("A=1 B='2 3' puma x=y", None).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(found.env, [pair("A", "1"), pair("B", "2 3")]);
        assert_eq!(found.words, ["puma", "x=y"]);
        assert_eq!(words("a $PORT", None), None);
    }

    #[test]
    fn ports_are_found_where_they_are_usually_written() {
        let option = |line: &str| port_option(&words(line, None).unwrap().words);
        assert_eq!(option("next start -p 4000"), Some(4000));
        assert_eq!(option("next start --port=4000"), Some(4000));
        assert_eq!(option("gunicorn -b 0.0.0.0:9000 a:app"), Some(9000));
        assert_eq!(option("a --port x"), None);
        assert_eq!(port_after("app.listen(3000, f)", ".listen("), Some(3000));
        let text = "const port = process.env.PORT || 8080";
        assert_eq!(port_after(text, "process.env.PORT"), Some(8080));
        assert_eq!(port_after("process.env.PORT;", "process.env.PORT"), None);
        assert_eq!(port_after("x.listen(port)", ".listen("), None);
        assert_eq!(
            port_of_address("http.ListenAndServe(\":8080\", nil)"),
            Some(8080)
        );
        assert_eq!(port_of_address("bind(\"0.0.0.0:70000\")"), None);
    }

    #[test]
    fn applications_are_found_by_their_assignment() {
        let check = |text: &str, expect| assert_eq!(assigned(text, "Flask"), expect, "{text}");
        check("import x\napp = Flask(__name__)\n", Some("app"));
        check("web: Flask = flask.Flask(", Some("web"));
        check("app = Flasky(1)", None);
        check("    app = Flask(1)", None);
        check("app = Flask", None);
    }
}
