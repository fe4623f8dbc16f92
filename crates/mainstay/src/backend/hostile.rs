//! Tests that arbitrary arguments and values reach a program under a real manager unchanged.

use std::fmt::Write as _;
use std::process::Command;

use mainstay_testkit::lab::Lab;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::golden::site;
use super::{Backend, Content};
use crate::{Account, Definition, Readiness, Recovery, service};

const CASES: usize = 14;
/// Installs a program that writes down its arguments, and stays if requested.
const DUMP: &str = r#"mkdir -m 1777 BASE/said
cat > BASE/dump <<'SCRIPT'
#!/bin/sh
said=$1
shift
{ for word; do printf '%s\0' "$word"; done; printf '%s\0' "$VALUE" "$command" "$FROM_FILE" "$(id -un)" "$PWD"; } > "$said.new"
mv "$said.new" "$said"
[ -n "$IS_TRIED" ] || exec sleep 1000
SCRIPT
chmod 755 BASE/dump
printf '%s\n' '# note' 'FROM_FILE = "it'\''s  \a $HOME" ' 'VALUE=loses' > 'BASE/it'\''s a.env'
"#;

struct Case {
    words: Vec<String>,
    value: String,
    dir: String,
    has_file: bool,
    user: &'static str,
}

impl Case {
    fn dir(&self, base: &str, number: usize) -> String {
        format!("{base}/{number}{}x", self.dir)
    }

    fn definition(&self, base: &str, number: usize) -> Definition {
        let said = format!("{base}/said/{number}");
        let account = match self.user {
            "root" => Account::LocalSystem,
            user => Account::User(user.to_owned(), None),
        };
        let definition = service(format!("dump-{number}"))
            .description(self.value.clone())
            .executable(format!("{base}/dump"))
            .arguments([said].iter().chain(&self.words))
            .env("VALUE", &self.value)
            .env("command", &self.value)
            .working_dir(self.dir(base, number))
            .readiness(Readiness::Exec)
            .recovery(Recovery::default())
            .account(account);
        if self.has_file {
            definition.env_file(format!("{base}/it's a.env"))
        } else {
            definition
        }
    }

    #[track_caller]
    fn compare(&self, base: &str, number: usize, user: &str, said: &[u8]) {
        let from_file = if self.has_file { "it's  \\a $HOME" } else { "" };
        let dir = self.dir(base, number);
        let rest = [&*self.value, &self.value, from_file, user, &dir];
        let words = self.words.iter().map(String::as_str).chain(rest);
        let expected: String = words.map(|word| format!("{word}\0")).collect();
        assert_eq!(String::from_utf8_lossy(said), expected, "{number}");
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
        dir,
        has_file: number % 2 == 0,
        user: ["root", "games"][number / 2 % 2],
    });
    cases.collect()
}

/// Starts each service with `start`, a script that gets its name as `$1`.
pub(crate) fn check(backend: &dyn Backend, kind: &'static str, start: &str) {
    let lab = match Lab::up(kind, &[]) {
        Ok(lab) => lab,
        Err(why) => return mainstay_testkit::skip(why),
    };
    let cases = drawn();
    let base = "/opt";
    let mut script = DUMP.replace("BASE", base);
    for (number, case) in cases.iter().enumerate() {
        let unit = backend
            .unit(&case.definition(base, number), &site())
            .unwrap();
        let dir = super::shell::quoted(&case.dir(base, number)).unwrap();
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
    // The manager may finish before its programs do.
    let _infallible = writeln!(
        script,
        "tries=200; until [ $(ls /opt/said | grep -vc new) -ge {} ] || [ $tries -eq 0 ]; do sleep 0.05; tries=$((tries - 1)); done",
        cases.len()
    );
    lab.script(&script);
    for (number, case) in cases.iter().enumerate() {
        let said = lab.run(&["cat", &format!("{base}/said/{number}")]);
        case.compare(base, number, case.user, &said.stdout);
    }
}

/// Runs the shell script that a manager would run on this machine's shell. `script` extracts it
/// from the text of a unit.
pub(crate) fn check_script(backend: &dyn Backend, script: impl Fn(&str) -> String) {
    let base = std::env::temp_dir().join(format!("mainstay-hostile-{}", std::process::id()));
    std::fs::create_dir(&base).unwrap();
    let base = base.to_str().unwrap();
    let run = |text: &str| {
        let mut shell = Command::new("sh");
        let output = shell.args(["-e", "-c", text]).env("IS_TRIED", "1").output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}: {text}");
        output.stdout
    };
    run(&DUMP.replace("BASE", base));
    let user = run("id -un");
    let user = String::from_utf8_lossy(&user);
    for (number, case) in drawn().iter().enumerate() {
        std::fs::create_dir(case.dir(base, number)).unwrap();
        let unit = backend
            .unit(&case.definition(base, number), &site())
            .unwrap();
        let Content::File { text, .. } = &unit.entries[0].content else {
            unreachable!("a unit is a file");
        };
        run(&script(text));
        let said = std::fs::read(format!("{base}/said/{number}")).unwrap();
        case.compare(base, number, user.trim(), &said);
    }
    std::fs::remove_dir_all(base).unwrap();
}
