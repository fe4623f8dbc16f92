//! Whatever words and values there are, a program under a real manager is given just those.

use std::fmt::Write as _;

use mainstay_testkit::lab::Lab;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::golden::site;
use super::{Backend, Content};
use crate::{Account, Definition, Readiness, Recovery, service};

const CASES: usize = 14;
/// Writes what it is given, and stays.
const DUMP: &str = r#"mkdir -m 1777 /opt/said
cat > /opt/dump <<'SCRIPT'
#!/bin/sh
said=$1
shift
{ for word; do printf '%s\0' "$word"; done; printf '%s\0' "$VALUE" "$command" "$FROM_FILE" "$(id -un)" "$PWD"; } > "$said.new"
mv "$said.new" "$said"
exec sleep 1000
SCRIPT
chmod 755 /opt/dump
printf '%s\n' '# note' 'FROM_FILE = "it'\''s  \a $HOME" ' 'VALUE=loses' > '/etc/it'\''s a.env'
"#;

struct Case {
    words: Vec<String>,
    value: String,
    dir: String,
    has_file: bool,
    user: &'static str,
}

impl Case {
    fn definition(&self, number: usize) -> Definition {
        let said = format!("/opt/said/{number}");
        let account = match self.user {
            "root" => Account::LocalSystem,
            user => Account::User(user.to_owned(), None),
        };
        let definition = service(format!("dump-{number}"))
            .description(self.value.clone())
            .executable("/opt/dump")
            .arguments([said].iter().chain(&self.words))
            .env("VALUE", &self.value)
            .env("command", &self.value)
            .working_dir(&self.dir)
            .readiness(Readiness::Exec)
            .recovery(Recovery::default())
            .account(account);
        match self.has_file {
            true => definition.env_file("/etc/it's a.env"),
            false => definition,
        }
    }
}

fn drawn() -> Vec<Case> {
    let odd = "[ \\t\\n\"'\\\\%$;#=,:!@|<>&{}()\\[\\]*?~`a-cn0-9é€😀-]{0,12}";
    let odd_word = format!("{odd}[\\x01-\\x1f\\x7f]?");
    let words = prop::collection::vec(odd_word.as_str(), 0..6);
    let cases = (words, odd, "[ a%$\"'é;#*\\\\]{0,8}");
    let mut runner = TestRunner::deterministic();
    let mut drawn: Vec<_> = (0..CASES)
        .map(|_| cases.new_tree(&mut runner).unwrap().current())
        .collect();
    let words = [
        "", "-x", "--", "%n", "$HOME", "${HOME}", "$$", "\\", "\\n", ";", "a  b", "*", "/*", "~",
        "`id`", "'", "\"",
    ];
    drawn.push((
        words.map(str::to_owned).into(),
        "${HOME} %h $A \\".to_owned(),
        "%h $A".to_owned(),
    ));
    let drawn = drawn.into_iter().enumerate();
    let cases = drawn.map(|(number, (words, value, dir))| Case {
        words,
        value,
        dir: format!("/srv/{number}{dir}x"),
        has_file: number % 2 == 0,
        user: ["root", "games"][number / 2 % 2],
    });
    cases.collect()
}

/// Starts each of them by `start`, a script that has its name as `$1`.
pub(crate) fn check(backend: &dyn Backend, kind: &'static str, start: &str) {
    let lab = match Lab::up(kind, &[]) {
        Ok(lab) => lab,
        Err(why) => return mainstay_testkit::skip(why),
    };
    let cases = drawn();
    let mut script = DUMP.to_owned();
    for (number, case) in cases.iter().enumerate() {
        let unit = backend.unit(&case.definition(number), &site()).unwrap();
        let dir = super::shell::quoted(&case.dir).unwrap();
        let _infallible = writeln!(script, "mkdir -p {dir}");
        for entry in unit.entries {
            let Content::File { mode, text } = entry.content else {
                continue;
            };
            let path = entry.path.display();
            let _infallible = write!(
                script,
                "cat > {path} <<'END OF UNIT'\n{text}END OF UNIT\nchmod {mode:o} {path}\n"
            );
        }
    }
    let _infallible = write!(
        script,
        "start() {{ {start}; }}\nfor number in $(seq 0 {}); do start dump-$number >/dev/null </dev/null & done; wait\n",
        cases.len() - 1
    );
    // A manager may be done before its programs are.
    let _infallible = writeln!(
        script,
        "tries=200; until [ $(ls /opt/said | grep -vc new) -ge {} ] || [ $tries -eq 0 ]; do sleep 0.05; tries=$((tries - 1)); done",
        cases.len()
    );
    lab.script(&script);
    for (number, case) in cases.iter().enumerate() {
        let said = lab.run(&["cat", &format!("/opt/said/{number}")]);
        let from_file = if case.has_file { "it's  \\a $HOME" } else { "" };
        let rest = [&*case.value, &case.value, from_file, case.user, &case.dir];
        let words = case.words.iter().map(String::as_str).chain(rest);
        let expected: String = words.map(|word| format!("{word}\0")).collect();
        assert_eq!(String::from_utf8_lossy(&said.stdout), expected, "{number}");
    }
}
