//! Keys and values of other tools, with the equivalents in a manifest.

mod words;

use std::fmt;

use self::words::{TYPES, VALUES, WORDS};
use super::tree::Value;

/// A table of the manifest in which a foreign key may occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    File,
    Service,
    Start,
    Liveness,
    Stop,
    Recovery,
    Limits,
    Log,
}

impl Place {
    /// Returns the table that has these keys; `None` if foreign keys are not expected there.
    fn of(known: &[&str]) -> Option<Self> {
        let has = |key| known.contains(&key);
        match () {
            () if has("environment") && has("service") => Some(Self::File),
            () if has("command") && has("account") => Some(Self::Service),
            () if has("graceful") => Some(Self::Stop),
            () if has("policy") && has("reset_after") => Some(Self::Recovery),
            () if has("misses") => Some(Self::Liveness),
            () if has("ready") && has("timeout") => Some(Self::Start),
            () if has("open_files") => Some(Self::Limits),
            () if has("rotate") && has("level") => Some(Self::Log),
            () => None,
        }
    }
}

/// The advice for a foreign key.
#[derive(Clone, Copy, Debug)]
enum Advice {
    /// Write this TOML instead, with a remark.
    Write(&'static str, &'static str),
    /// Use this key of the same table, with a remark.
    Key(&'static str, &'static str),
    /// An explanation without text to copy.
    Say(&'static str),
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(toml, remark) => write!(f, "write {toml}{remark}"),
            Self::Key(key, remark) => write!(f, "write `{key}`{remark}"),
            Self::Say(text) => f.write_str(text),
        }
    }
}

/// Returns the advice for `key` in the table with the keys `known`, if it is a key of another tool.
pub(super) fn help(key: &str, value: &Value<'_>, known: &[&str]) -> Option<String> {
    const LONGEST: usize = 40;
    if key.len() > LONGEST {
        return None;
    }
    let place = Place::of(known)?;
    let key: String = key
        .chars()
        .filter(|c| !matches!(c, '-' | '_' | '.'))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let advice = match (place, &*key, value) {
        (Place::Service, "type", Value::Text(text)) => {
            let text = text.to_ascii_lowercase();
            let mut rows = TYPES.iter();
            let row = rows.find(|(types, _)| has(types, &text));
            row.map(|(_, advice)| *advice)
        }
        _ => {
            let mut rows = WORDS.iter();
            let row = rows.find(|(of, words, _)| *of == place && has(words, &key));
            row.map(|(_, _, advice)| *advice)
        }
    };
    advice.map(|advice| advice.to_string())
}

/// Returns the help for `text` if it is another tool's value for `what`.
pub(super) fn value(what: &str, text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let mut rows = VALUES.iter();
    let found = rows.find(|(of, words, _)| *of == what && has(words, &text));
    found.map(|(_, _, ours)| format!("write \"{ours}\""))
}

/// Returns whether `word` is one of `words`, which are separated by spaces.
fn has(words: &str, word: &str) -> bool {
    words.split(' ').any(|one| one == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Format, parse};

    /// Returns the help for an unknown key on this line of a service.
    fn advice(line: &str) -> String {
        let text = format!("[service.a]\ncommand = [\"a\"]\n{line}\n");
        let found = parse(&text, Format::Toml).expect_err(line);
        let found = found
            .into_iter()
            .find(|one| one.code.as_str() == "unknown-key");
        found.and_then(|one| one.help).unwrap_or_default()
    }

    #[test]
    fn words_of_other_tools_are_translated() {
        for (line, expect) in [
            ("restart = \"always\"", "recovery = { policy"),
            ("user = \"postgres\"", "account = \"user:NAME\""),
            ("User = \"postgres\"", "account = \"user:NAME\""),
            ("depends_on = [\"db\"]", "needs = [\"NAME\"]"),
            ("After = \"network.target\"", "needs = [\"NAME\"]"),
            ("cwd = \"/srv\"", "working_dir"),
            ("WorkingDirectory = \"/srv\"", "working_dir"),
            ("directory = \"/srv\"", "working_dir"),
            ("environment = { A = \"b\" }", "env = {"),
            ("healthcheck = { test = [\"x\"] }", "liveness = {"),
            ("autostart = true", "mainstay enable NAME"),
            ("image = \"redis\"", "not containers"),
            ("ExecStart = \"/bin/x\"", "command = ["),
            ("script = \"x.js\"", "command = ["),
            ("args = \"-v\"", "arguments follow the program"),
            ("numprocs = 4", "not supported yet"),
            ("exec_mode = \"cluster\"", "not supported"),
            ("stopsignal = \"QUIT\"", "stop = { signal"),
            ("stop_grace_period = \"1m\"", "stop = { graceful"),
            ("TimeoutStopSec = 30", "stop = { graceful"),
            ("RestartSec = 5", "recovery = { delay"),
            ("StartLimitBurst = 5", "recovery = { limit"),
            ("SuccessExitStatus = 143", "recovery = { codes"),
            ("LimitNOFILE = 65536", "limits = { open_files"),
            ("max_memory_restart = \"260M\"", "not supported yet"),
            ("EnvironmentFile = \"/etc/a\"", "env_file"),
            ("stdout_logfile = \"/x\"", "mainstay logs NAME"),
            ("ProtectSystem = \"strict\"", "--no-sandbox"),
            ("KeepAlive = true", "recovery = { policy"),
            ("ProgramArguments = [\"x\"]", "command = ["),
            ("UserName = \"x\"", "account = \"user:NAME\""),
            ("AppDirectory = \"x\"", "working_dir"),
            ("ObjectName = \"x\"", "account = \"user:NAME\""),
            ("stop = { timeout = \"5s\" }", "write `graceful`"),
            (
                "liveness = { interval = \"5s\", tcp = \"127.0.0.1:1\" }",
                "write `every`",
            ),
            ("limits = { nofile = 5 }", "write `open_files`"),
            ("log = { path = \"/x\" }", "mainstay logs NAME"),
            (
                "before = [\"b\"]",
                "needs = [\"NAME\"] in the other service",
            ),
            ("type = \"oneshot\"", "exits with 0 is not restarted"),
            ("Type = \"forking\"", "keep the program in the foreground"),
            ("type = \"notify\"", "ready = { notify = true }"),
            ("type = \"simple\"", "remove it"),
            ("backoff = \"1s\"", "recovery = { delay"),
            ("shell = true", "\"/bin/sh\", \"-c\""),
            ("port = 8080", "listen = ["),
            ("labels = {}", "not supported yet"),
            ("profiles = [\"x\"]", "mainstay run FILE NAME"),
            ("extends = \"x\"", "templates are not supported yet"),
            ("tty = true", "no terminal"),
            ("secrets = [\"x\"]", "env_file"),
            // Keys of another table of the manifest.
            (
                "timeout = \"5s\"",
                "`start` has `timeout`, `stop` has `graceful`",
            ),
            ("delay = \"5s\"", "write recovery = { delay = … }"),
            ("policy = \"never\"", "write recovery = { policy = … }"),
            ("codes = { 3 = \"stop\" }", "write recovery = { codes = … }"),
            ("rotate = \"1MB\"", "write log = { rotate = … }"),
            (
                "environment = \"development\"",
                "write it at the top of the file, above the first [service.…]",
            ),
            (
                "log = { environment = \"development\" }",
                "write it at the top of the file, above the first [service.…]",
            ),
            (
                "[service.a.log]\nservice = {}",
                "write it at the top of the file, above the first [service.…]",
            ),
            (
                "[service.a.log]\nneeds = [\"b\"]",
                "`needs` is a key of the service itself",
            ),
            // Misspelt, not foreign.
            ("comand = [\"x\"]", "did you mean `command`?"),
            ("stop = { gracefull = \"5s\" }", "did you mean `graceful`?"),
        ] {
            let help = advice(line);
            assert!(help.contains(expect), "{line}: {help}");
        }
        let words = WORDS.iter().flat_map(|(_, words, _)| words.split(' '));
        assert!(words.count() > 200);
    }

    /// Every suggestion can be copied: `check` accepts it without warnings, in production.
    #[test]
    fn what_is_suggested_is_accepted() {
        let accept = |place: Place, toml: &str| {
            let toml = toml.replace("NAME", "name");
            let line = match place {
                Place::File => toml,
                Place::Service => format!("[service.a]\n{toml}"),
                Place::Start => format!("[service.a.start]\n{toml}"),
                Place::Liveness => {
                    let more = if toml.contains(" = [") {
                        ""
                    } else {
                        "exec = [\"a\"]\n"
                    };
                    format!("[service.a.liveness]\n{more}{toml}")
                }
                Place::Stop => format!("[service.a.stop]\n{toml}"),
                Place::Recovery => format!("[service.a.recovery]\n{toml}"),
                Place::Limits => format!("[service.a.limits]\n{toml}"),
                Place::Log => format!("[service.a.log]\n{toml}"),
            };
            let command = if line.contains("command = ") {
                ""
            } else {
                "\ncommand = [\"a\"]"
            };
            let (table, rest) = line.split_once('\n').expect("a table and a line");
            let head = match table {
                "[service.a]" => format!("[service.a]{command}\n{rest}"),
                _ => format!("[service.a]{command}\n{line}"),
            };
            let text = format!("{head}\n[service.name]\ncommand = [\"b\"]\n");
            let specs =
                parse(&text, Format::Toml).unwrap_or_else(|found| panic!("{text}{found:#?}"));
            let warnings = crate::manifest::warnings(&text, Format::Toml, &specs);
            assert!(warnings.is_empty(), "{text}{warnings:#?}");
        };
        let types = TYPES.iter().map(|(_, advice)| (Place::Service, advice));
        let words = WORDS.iter().map(|(place, _, advice)| (*place, advice));
        let mut count = 0;
        for (place, advice) in words.chain(types) {
            match advice {
                Advice::Write(toml, _) => {
                    accept(place, toml);
                    count += 1;
                }
                Advice::Key(key, _) => {
                    let schema = crate::manifest::schema();
                    let service = &schema["properties"]["service"]["additionalProperties"];
                    let table = format!("{place:?}").to_lowercase();
                    let keys = &service["properties"][table]["properties"];
                    assert!(keys[key].is_object(), "{place:?} has no key {key}");
                }
                Advice::Say(text) => assert!(!text.contains(" = "), "{text}"),
            }
        }
        assert!(count > 40, "{count}");
        for (what, _, ours) in VALUES {
            let (place, toml) = match *what {
                "a recovery policy" => (Place::Recovery, format!("policy = \"{ours}\"")),
                // Levels that are too verbose for production are covered elsewhere.
                "a log level" if matches!(*ours, "info" | "debug") => continue,
                "a log level" => (Place::Log, format!("level = \"{ours}\"")),
                "a log format" => (Place::Log, format!("format = \"{ours}\"")),
                "a compression" => (Place::Log, format!("compress = \"{ours}\"")),
                "an environment" => {
                    let text =
                        format!("environment = \"{ours}\"\n[service.a]\ncommand = [\"a\"]\n");
                    parse(&text, Format::Toml).expect(&text);
                    continue;
                }
                "a priority" => (Place::Service, format!("priority = \"{ours}\"")),
                "a stop scope" => (Place::Stop, format!("scope = \"{ours}\"")),
                what => panic!("{what} is of no key"),
            };
            accept(place, &toml);
        }
    }

    #[test]
    fn values_of_other_tools_are_translated() {
        for (line, expect) in [
            ("recovery = { policy = \"always\" }", "write \"restart\""),
            (
                "recovery = { policy = \"on-failure\" }",
                "write \"restart\"",
            ),
            ("recovery = { policy = \"no\" }", "write \"never\""),
            ("log = { level = \"WARNING\" }", "write \"warn\""),
            ("stop = { scope = \"control-group\" }", "write \"tree\""),
            ("account = \"postgres\"", "write \"user:postgres\""),
            ("account = \"root\"", "write \"local-system\""),
            ("account = \"virtuel\"", "did you mean `virtual`?"),
            (
                "recovery = { policy = \"restrat\" }",
                "did you mean `restart`?",
            ),
        ] {
            let text = format!("[service.a]\ncommand = [\"a\"]\n{line}\n");
            let found = parse(&text, Format::Toml).expect_err(line);
            let help = found.first().and_then(|one| one.help.as_deref());
            assert_eq!(help, Some(expect), "{line}");
        }
    }
}
