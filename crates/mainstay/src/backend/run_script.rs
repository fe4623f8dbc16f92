//! The scripts of directory-based supervisors: `run` starts the program, and `finish` handles its
//! exit.
//!
//! State that the supervisor does not keep itself is stored next to its own files in `supervise/`:
//!
//! ```text
//! asked    somebody has asked for this end
//! exit     the code of the last end that nobody asked for, where it has not been started since
//! starts   when it was started (seconds since 1970), a line each, the last one being the run's own
//! row      how many pauses before restarts there were since the last good run
//! ```

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::checked::{Checked, whole_seconds};
use super::draft::{is_made_of, joined, limit_name};
use super::{Call, MARK, limit_in, sh};
use crate::notify::{READY_FD, READY_PID};
use crate::{Definition, Limit, Readiness};

/// The descriptor for readiness. The next one is used for the env_file.
pub(super) const READY: u32 = 3;

/// The differences between supervisors.
pub(super) struct Dialect {
    /// Returns the command prefix that switches to this user.
    pub(super) as_user: fn(&str) -> String,
    /// The limits that the supervisor sets itself.
    pub(super) own_limits: &'static [Limit],
    /// Returns the command that starts a required service and fails if it is not up within a
    /// minute. `None` if the supervisor does this.
    pub(super) start: Option<fn(&str) -> String>,
    /// Returns the same command without waiting, for wanted services of a supervisor, which has its
    /// own rules for waiting: waiting for a service that has already finished its work would never
    /// succeed.
    pub(super) ask: Option<fn(&str) -> String>,
    /// Records that the service has begun, and discards the data about its last exit.
    pub(super) begin: &'static str,
    /// Opens [`READY`]; `close_ready` discards the readiness message. Both are empty if the
    /// supervisor does this.
    pub(super) open_ready: &'static str,
    pub(super) close_ready: &'static str,
    /// Succeeds as long as no stop was requested. Empty if there is no `finish`.
    pub(super) is_wanted: &'static str,
    /// Ends `finish` so that the program stays down.
    pub(super) stay_down: &'static str,
}

/// Returns the head of each generated file that `sh` runs.
pub(super) fn head(checked: &Checked<'_>) -> String {
    let mut text = format!("#!/bin/sh\n# {MARK}\n");
    if let Some(title) = checked.draft.title() {
        let title: Vec<&str> = title.split(char::is_control).collect();
        let _infallible = writeln!(text, "# {}", title.join(" "));
    }
    text
}

/// Returns whether readiness is reported to the supervisor: by the program itself, by its check,
/// or, if it has dependencies, once the shell that waits for them is replaced by the program.
pub(super) fn is_told(definition: &Definition) -> bool {
    definition.readiness == Readiness::Notify
        || definition.ready_check.is_some()
        || !definition.needs.is_empty()
}

/// Returns the script that replaces `sh` with the program.
pub(super) fn run(checked: &Checked<'_>, dialect: &Dialect) -> String {
    let definition = checked.definition;
    let mut first = "exec </dev/null 2>&1\n".to_owned();
    if is_told(definition) {
        first += dialect.open_ready;
    }
    first += dialect.begin;
    for need in &definition.needs {
        if let Some(start) = dialect.start {
            let _infallible = writeln!(first, "until {}; do sleep 1; done", start(need));
        }
    }
    for want in &definition.wants {
        let start = if definition.supervises {
            dialect.ask
        } else {
            dialect.start
        };
        if let Some(start) = start {
            let _infallible = writeln!(first, "{} || :", start(want));
        }
    }
    if keeps_starts(definition) && !dialect.is_wanted.is_empty() {
        first += "date +%s >>supervise/starts\n";
    }
    let mut last = String::new();
    match (definition.readiness, &checked.ready_check) {
        (Readiness::Notify, _) => last = format!("export {READY_FD}={READY} {READY_PID}=$$\n"),
        // Runs in an orphaned subshell, because the program does not expect a child.
        (Readiness::Exec, Some(check)) => {
            let timeout = whole_seconds(definition.start_timeout);
            let check = sh::command_line(check.iter().copied());
            let _infallible = writeln!(
                first,
                "( {{ timeout {timeout} {check} && echo >&{READY}; }} >/dev/null 2>&1 & )\nexec {READY}>&-"
            );
        }
        (Readiness::Exec, None) if is_told(definition) => {
            last = format!("echo >&{READY}\nexec {READY}>&-\n");
        }
        (Readiness::Exec, None) => {}
    }
    script(checked, dialect, &first, &last, &checked.argv)
}

/// Returns the script for the reload command, if there is one.
pub(super) fn reload(checked: &Checked<'_>, dialect: &Dialect) -> Option<String> {
    let argv = checked.reload.as_ref()?;
    Some(script(checked, dialect, "", "", argv))
}

/// Returns a script that runs a command in the program's context. Actions that require root come
/// first. Files that others may write to are accessed only as the user.
fn script(
    checked: &Checked<'_>,
    dialect: &Dialect,
    first: &str,
    last: &str,
    argv: &[&str],
) -> String {
    let mut text = head(checked);
    let mut first = first.to_owned() + "umask 022\n";
    let env_file = READY + 1;
    if let Some(path) = checked.env_file {
        let _infallible = writeln!(first, "exec {env_file}<{}", sh::quoted(path));
    }
    match wrappers(checked, dialect) {
        wrappers if wrappers.is_empty() => text += &first,
        wrappers => {
            let indented: String = first.lines().map(|line| format!("\t{line}\n")).collect();
            let _infallible = write!(
                text,
                "if [ \"${{1-}}\" != -- ]; then\n{indented}\texec {wrappers}/bin/sh \"$0\" --\nfi\n"
            );
        }
    }
    if let Some(user) = checked.user {
        let _infallible = writeln!(
            text,
            "HOME=~{user} USER={user} LOGNAME={user}\nexport HOME USER LOGNAME"
        );
    }
    // The supervisor may have inherited it from whoever started it.
    text += "unset NOTIFY_SOCKET\n";
    let _infallible = writeln!(
        text,
        "cd {} || exit 1",
        sh::quoted(checked.working_dir.unwrap_or("/"))
    );
    if checked.env_file.is_some() {
        let read = sh::READ_ENV_FILE;
        let _infallible = writeln!(
            text,
            "{read}read_env_file '' <&{env_file} || exit 78\nexec {env_file}<&-"
        );
    }
    for (name, value) in &checked.env {
        let _infallible = writeln!(text, "export {name}={}", sh::quoted(value));
    }
    text + last + "exec " + &sh::command_line(argv.iter().copied()) + "\n"
}

/// Returns the commands that set limits, priority, processors and user before they run another
/// command.
fn wrappers(checked: &Checked<'_>, dialect: &Dialect) -> String {
    let Definition {
        limits, nice, cpus, ..
    } = checked.definition;
    let limits: Vec<(&Limit, &u64)> = limits
        .iter()
        .filter(|(limit, _)| !dialect.own_limits.contains(limit))
        .collect();
    let mut words = String::new();
    if !limits.is_empty() {
        words += "prlimit ";
    }
    for (limit, value) in limits {
        let (option, value) = (limit_name(*limit), limit_in(1, *value));
        let _infallible = write!(words, "--{option}={value}:{value} ");
    }
    if let Some(nice) = nice {
        let _infallible = write!(words, "nice -n {nice} ");
    }
    if !cpus.is_empty() {
        let _infallible = write!(words, "taskset -c {} ", joined(cpus, ","));
    }
    if let Some(user) = checked.user {
        words += &(dialect.as_user)(user);
    }
    words
}

fn grows(definition: &Definition) -> bool {
    let pauses = &definition.recovery.restart_after;
    pauses.iter().any(|pause| *pause != pauses[0])
}

fn keeps_starts(definition: &Definition) -> bool {
    grows(definition) || definition.recovery.limit.is_some()
}

/// Returns the script for an unrequested exit: it waits and allows a restart, or keeps the program
/// down. `$1` is the exit code, or an out-of-range number if the signal `$2` ended the program.
pub(super) fn finish(checked: &Checked<'_>, dialect: &Dialect) -> String {
    let Definition { recovery, .. } = checked.definition;
    let Dialect {
        close_ready,
        is_wanted,
        stay_down,
        ..
    } = dialect;
    let mut text = head(checked);
    let _infallible = write!(
        text,
        "is_wanted() {{\n{is_wanted}}}\n\
         stay_down() {{\n\techo \"it has ended with code $1, and stays down\"\n\trm -f supervise/starts supervise/row\n\techo \"$1\" >supervise/exit\n{stay_down}}}\n\
         exec 2>&1\n"
    );
    if is_told(checked.definition) {
        text += close_ready;
    }
    text += "is_wanted && [ ! -e supervise/asked ] || exec rm -f supervise/starts supervise/row\ncase $1 in\n";
    let mut rows = |codes: &mut dyn Iterator<Item = String>, then: &str| {
        let codes: Vec<String> = codes.collect();
        if !codes.is_empty() {
            let _infallible = writeln!(text, "{}) {then} ;;", codes.join(" | "));
        }
    };
    let numbers = |codes: &std::collections::BTreeSet<u8>| -> Vec<String> {
        codes.iter().map(u8::to_string).collect()
    };
    let restarts = !recovery.restart_after.is_empty();
    let mut clean = vec!["0".to_owned()];
    clean.extend(
        numbers(&recovery.clean)
            .into_iter()
            .filter(|code| code != "0"),
    );
    rows(&mut clean.into_iter(), "stay_down 0");
    rows(
        &mut numbers(recovery.final_codes()).into_iter(),
        "stay_down \"$1\"",
    );
    rows(
        &mut ["-1", "256"].map(str::to_owned).into_iter(),
        "code=$((128 + $2))",
    );
    let other = if recovery.crashes_only || !restarts {
        "stay_down \"$1\""
    } else {
        "code=$1"
    };
    rows(&mut std::iter::once("*".to_owned()), other);
    text += "esac\n";
    if !restarts {
        return text + "stay_down \"$code\"\n";
    }
    if let Some((starts, window)) = recovery.limit {
        let window = whole_seconds(window);
        let _infallible = write!(
            text,
            "now=$(date +%s) recent=\n\
             for start in $(cat supervise/starts); do\n\
             \t[ $((now - start)) -gt {window} ] || recent=\"$recent $start\"\n\
             done\n\
             set -- $recent\n\
             [ $# -lt {starts} ] || stay_down \"$code\"\n"
        );
    }
    text += &pause(checked.definition);
    text += "echo \"it has ended with code $code, and starts again in $pause s\"\n\
             while [ \"$pause\" -gt 0 ]; do\n\
             \tsleep 1\n\
             \tis_wanted || exec rm -f supervise/starts supervise/row\n\
             \tpause=$((pause - 1))\n\
             done\n";
    text
}

/// Returns the script part that sets the delay, in whole seconds.
fn pause(definition: &Definition) -> String {
    let recovery = &definition.recovery;
    // The supervisor itself waits one second between starts.
    let seconds = |pause: &Duration| {
        if *pause < Duration::from_secs(1) {
            0
        } else {
            whole_seconds(*pause)
        }
    };
    let pauses: Vec<u64> = recovery.restart_after.iter().map(seconds).collect();
    let mut text = String::new();
    let Some((last, others)) = pauses.split_last() else {
        return text;
    };
    if keeps_starts(definition) {
        text += "last=$(tail -n 1 supervise/starts 2>/dev/null)\n";
        text += match recovery.limit {
            Some(_) => "printf '%s\\n' \"$@\" >supervise/starts\n",
            None => "rm -f supervise/starts\n",
        };
    }
    if !grows(definition) {
        let _infallible = writeln!(text, "pause={last}");
        return text;
    }
    let _infallible = write!(
        text,
        "[ $(($(date +%s) - ${{last:-0}})) -lt {} ] || rm -f supervise/row\n\
         row=$(cat supervise/row 2>/dev/null) || row=0\n\
         echo $((row + 1)) >supervise/row\n\
         case $row in\n",
        whole_seconds(recovery.reset_after)
    );
    for (row, pause) in others.iter().enumerate() {
        let _infallible = writeln!(text, "{row}) pause={pause} ;;");
    }
    let _infallible = writeln!(text, "*) pause={last} ;;\nesac");
    text
}

/// Returns a script that takes the place of [`reload`] for a program that SIGHUP would terminate.
pub(super) fn refusal(checked: &Checked<'_>) -> String {
    let head = head(checked);
    format!("{head}echo \"it does not read its configuration again\" >&2\nexit 1\n")
}

pub(super) fn check_needs(checked: &mut Checked<'_>) {
    let definition = checked.definition;
    for need in definition.needs.iter().chain(&definition.wants) {
        let is_valid = is_made_of(need, b"_.@-") && !need.starts_with(['.', '-']);
        checked.draft.check_service(need, is_valid);
    }
}

/// Reports the settings that no supervisor of this kind supports.
pub(super) fn lose(checked: &mut Checked<'_>) {
    let definition = checked.definition;
    check_needs(checked);
    checked.lose("stop after a start timeout: the timeout is only reported");
    if !definition.supervises {
        checked.draft.lose_remains();
    }
    let is_short = |pause: &Duration| *pause < Duration::from_secs(1);
    if definition.recovery.restart_after.iter().any(is_short) {
        checked.lose("restart delays shorter than 1s");
    }
    checked.draft.lose_tree();
    checked.lose_listen();
}

/// Returns a call of a script with arguments.
pub(super) fn shell<const N: usize>(script: &str, arguments: [String; N]) -> Call {
    let words = ["sh", "-c", script.trim(), "sh"].map(str::to_owned);
    Call::new(words.into_iter().chain(arguments))
}

/// Converts a path that consists of a known prefix and a service's name.
pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Tests under real supervisors.
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::time::{Duration, Instant};

    use mainstay_testkit::lab::Lab;
    use mainstay_testkit::{skip, wait_until};
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    use super::super::{Answer, Backend, Content, Order, Question, Site, runit::Runit, s6::S6};
    use super::*;
    use crate::{Account, Recovery, ServiceStatus, State, service};

    const SOON: Duration = Duration::from_secs(30);

    struct Machine {
        lab: Lab,
        backend: &'static dyn Backend,
        site: Site,
    }

    impl Machine {
        fn up(kind: &'static str) -> Option<Self> {
            let backend: &'static dyn Backend = if kind == "s6" { &S6 } else { &Runit };
            let lab = Lab::up(kind, &[]).map_err(skip).ok()?;
            let is_there = |path: &&str| lab.run(&["test", "-e", path]).status.success();
            let found = backend.facts().landmarks.iter().copied().filter(is_there);
            let site = Site {
                found: found.collect(),
                ..super::super::golden::site()
            };
            lab.script("mkdir -p /opt /tmp && chmod 1777 /tmp");
            Some(Self { lab, backend, site })
        }

        fn program(&self, path: &str, script: &str) {
            self.lab.script(&format!(
                "cat > {path} <<'SCRIPT'\n#!/bin/sh\n{script}SCRIPT\nchmod 755 {path}\n"
            ));
        }

        /// Installs the definitions in the directory where they are started automatically.
        fn put(&self, definitions: &[Definition]) {
            let mut script = String::new();
            for definition in definitions {
                let unit = self.backend.unit(definition, &self.site).unwrap();
                for entry in unit.entries {
                    let path = entry.path.display();
                    let _infallible = match &entry.content {
                        Content::File { mode, text } => write!(
                            script,
                            "mkdir -p {}\ncat > {path} <<'ENTRY'\n{text}ENTRY\nchmod {mode:o} {path}\n",
                            entry.path.parent().unwrap().display()
                        ),
                        Content::Link(target) => {
                            writeln!(script, "ln -sfn {} {path}", target.display())
                        }
                    };
                }
            }
            if self.backend.manager() == crate::Manager::S6 {
                script += "s6-svscanctl -a /run/service\n";
            }
            self.lab.script(&script);
        }

        fn answer(&self, question: &Question) -> Answer {
            let (argv, is_file) = match question {
                Question::Run(argv) => (argv.clone(), false),
                Question::Read(path) => (vec!["cat".into(), text(path)], true),
            };
            let argv: Vec<&str> = argv.iter().map(|word| &**word).collect();
            let output = self.lab.run(&argv);
            if is_file && !output.status.success() {
                Answer::default()
            } else {
                Answer {
                    code: output.status.code(),
                    output: output.stdout,
                }
            }
        }

        fn status(&self, name: &str) -> Option<ServiceStatus> {
            let questions = self.backend.questions(name, &self.site);
            let answers: Vec<Answer> = questions.iter().map(|it| self.answer(it)).collect();
            self.backend.status(&answers)
        }

        /// Waits for the final status.
        fn end(&self, name: &str) -> ServiceStatus {
            wait_until("its end", SOON, || {
                let status = self.status(name)?;
                (status.state == State::Stopped).then_some(status)
            })
        }

        fn order(&self, definition: &Definition, order: Order) {
            let state = self.status(definition.name()).unwrap().state;
            let calls = self.backend.control(definition, order, state, &self.site);
            for call in calls.unwrap() {
                let argv: Vec<&str> = call.argv.iter().map(|word| &**word).collect();
                self.lab.check(0, &argv);
            }
        }

        fn read(&self, path: &str) -> Option<String> {
            let output = self.lab.run(&["cat", path]);
            let is_read = output.status.success();
            is_read.then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        }
    }

    /// Arbitrary arguments and values reach the program unchanged, as root and after switching to a
    /// user.
    fn hostile_values_arrive(kind: &'static str) {
        let Some(machine) = Machine::up(kind) else {
            return;
        };
        machine.program(
            "/opt/dump",
            "{ for word; do printf '%s\\0' \"$word\"; done; printf '%s\\0' \"$VALUE\" \"$PWD\" \"$(id -un)\"; } > /tmp/new$$ && mv /tmp/new$$ /tmp/said-$NUMBER\n",
        );
        let odd = "[ \\t\\n\"'\\\\%$;#=,:!@|<>&{}()\\[\\]*?~`a-cn0-9é€😀-]{0,12}";
        let odd_word = format!("{odd}[\\x01-\\x1f\\x7f]?");
        let words = prop::collection::vec(odd_word.as_str(), 0..6);
        let cases = (words, odd_word.as_str(), "[ a%$\"'é;#\n]{0,8}");
        let mut runner = TestRunner::deterministic();
        let mut drawn: Vec<(Vec<String>, String, String)> = (0..30)
            .map(|_| cases.new_tree(&mut runner).unwrap().current())
            .collect();
        drawn.push((
            [
                "", "-x", "--", "'", "''", "$HOME", "`id`", "\\", "a\\", "\n", "~", "!",
            ]
            .map(str::to_owned)
            .into(),
            "it's\n\"$A\" \\".to_owned(),
            "%h $A".to_owned(),
        ));
        let user = |number: usize| {
            if number.is_multiple_of(2) {
                "root"
            } else {
                "nobody"
            }
        };
        let dir = |number: usize, name: &str| format!("/srv/{number}{name}x");
        let mut script = String::new();
        let definitions: Vec<Definition> = drawn
            .iter()
            .enumerate()
            .map(|(number, (words, value, name))| {
                let dir = dir(number, name);
                let _infallible = writeln!(script, "mkdir -p '{}'", dir.replace('\'', "'\\''"));
                service(format!("dump-{number}"))
                    .description(value.clone())
                    .executable("/opt/dump")
                    .arguments(words)
                    .env("VALUE", value)
                    .env("NUMBER", number.to_string())
                    .working_dir(&dir)
                    .account(match user(number) {
                        "root" => Account::LocalSystem,
                        user => Account::User(user.into(), None),
                    })
                    .readiness(Readiness::Exec)
            })
            .collect();
        machine.lab.script(&script);
        machine.put(&definitions);
        for (number, (words, value, name)) in drawn.iter().enumerate() {
            let said = wait_until("what was said", SOON, || {
                machine.read(&format!("/tmp/said-{number}"))
            });
            let last = [value.clone(), dir(number, name), user(number).to_owned()];
            let expected = words.iter().chain(&last);
            let expected: String = expected.map(|word| format!("{word}\0")).collect();
            assert_eq!(said, expected, "{number}");
        }
    }

    /// Checks the number of starts and the reported code after each kind of exit.
    fn ends_are_told_apart(kind: &'static str) {
        let Some(machine) = Machine::up(kind) else {
            return;
        };
        machine.program(
            "/opt/end",
            "date +%s.%N >> /tmp/$1\nshift\ncase $1 in kill) kill -9 $$ ;; esac\nexit $1\n",
        );
        let at_once = Recovery {
            restart_after: vec![Duration::ZERO],
            limit: Some((3, Duration::from_secs(60))),
            ..Recovery::default()
        };
        let codes = |codes: &[u8]| codes.iter().copied().collect();
        let crashes = Recovery {
            crashes_only: true,
            ..at_once.clone()
        };
        let told = Recovery {
            halts: codes(&[75]),
            clean: codes(&[3]),
            ..at_once.clone()
        };
        let never = Recovery {
            restart_after: Vec::new(),
            ..Recovery::default()
        };
        let cases: [(&str, &Recovery, &str, usize, u32); 9] = [
            ("well", &at_once, "0", 1, 0),
            ("failed", &at_once, "1", 3, 1),
            ("killed", &at_once, "kill", 3, 137),
            ("clean", &told, "3", 1, 0),
            ("halted", &told, "75", 1, 75),
            ("host-ended", &crashes, "75", 1, 75),
            ("host-killed", &crashes, "kill", 3, 137),
            ("never", &never, "1", 1, 1),
            ("never-killed", &never, "kill", 1, 137),
        ];
        let definitions = cases.map(|(name, recovery, what, ..)| {
            service(name)
                .executable("/opt/end")
                .arguments([name, what])
                .account(Account::LocalSystem)
                .readiness(Readiness::Exec)
                .recovery(recovery.clone())
        });
        machine.put(&definitions);
        let again = service("again")
            .executable("/opt/end")
            .arguments(["again", "1"])
            .account(Account::LocalSystem)
            .readiness(Readiness::Exec)
            .recovery(Recovery {
                restart_after: [0, 3, 600].map(Duration::from_secs).to_vec(),
                ..Recovery::default()
            });
        machine.put(std::slice::from_ref(&again));
        for (name, _, _, starts, code) in cases {
            wait_until("its starts", SOON, || {
                let lines = machine.read(&format!("/tmp/{name}"))?.lines().count();
                (lines >= starts).then_some(())
            });
            let status = machine.end(name);
            assert_eq!(status.exit_code(), Some(code), "{name}");
            let lines = machine.read(&format!("/tmp/{name}")).unwrap();
            assert_eq!(lines.lines().count(), starts, "{name}");
        }
        // Each delay is longer than the previous one, and a stop ends it.
        let starts = wait_until("its starts", SOON, || {
            machine
                .read("/tmp/again")
                .filter(|lines| lines.lines().count() >= 3)
        });
        let starts: Vec<f64> = starts.lines().map(|it| it.parse().unwrap()).collect();
        assert!(starts[1] - starts[0] < 2.5, "{starts:?}");
        assert!(starts[2] - starts[1] >= 3.0, "{starts:?}");
        let begun = Instant::now();
        assert_eq!(machine.status("again").unwrap().state, State::StartPending);
        machine.order(&again, Order::Stop);
        assert!(begun.elapsed() < Duration::from_secs(10));
        // A start fails at the program's first exit.
        let definition = again.clone().readiness(Readiness::Notify);
        machine.put(std::slice::from_ref(&definition));
        let begun = Instant::now();
        let calls =
            machine
                .backend
                .control(&definition, Order::Start, State::Stopped, &machine.site);
        let argv = calls.unwrap().remove(0).argv;
        let argv: Vec<&str> = argv.iter().map(|word| &**word).collect();
        let said = machine.lab.check(1, &argv);
        assert!(said.contains("it has ended before it was ready"), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        machine.order(&definition, Order::Stop);
        assert_eq!(machine.end("again").exit_code(), Some(0));
    }

    /// Programs that a supervisor has started survive its crash.
    fn a_crash_takes_nobody_along(kind: &'static str) {
        let Some(machine) = Machine::up(kind) else {
            return;
        };
        machine.program(
            "/opt/host",
            "[ -e /tmp/child ] || { sleep 1000 >/dev/null 2>&1 & echo $! > /tmp/child; }\n\
             echo $$ >> /tmp/hosts\nwhile :; do sleep 0.1; done\n",
        );
        let definition = service("host")
            .executable("/opt/host")
            .account(Account::LocalSystem)
            .readiness(Readiness::Exec)
            .recovery(Recovery {
                restart_after: vec![Duration::from_secs(1)],
                crashes_only: true,
                ..Recovery::default()
            })
            .supervises();
        machine.put(std::slice::from_ref(&definition));
        let hosts = |count| {
            wait_until("a host", SOON, || {
                let hosts = machine.read("/tmp/hosts")?;
                let hosts: Vec<String> = hosts.lines().map(str::to_owned).collect();
                (hosts.len() == count).then_some(hosts)
            })
        };
        let first = hosts(1).remove(0);
        machine.lab.check(0, &["kill", "-KILL", &first]);
        let second = hosts(2).remove(1);
        let status = machine.status("host").unwrap();
        assert_eq!(status.pid.map(|pid| pid.to_string()), Some(second));
        let child = machine.read("/tmp/child").unwrap();
        let is_there = || machine.lab.check(0, &["kill", "-0", child.trim()]);
        is_there();
        machine.order(&definition, Order::Stop);
        is_there();
    }

    /// Checks every setting of a definition that affects how a program runs.
    fn everything_is_so(kind: &'static str) {
        let Some(machine) = Machine::up(kind) else {
            return;
        };
        machine.lab.script(
            "useradd --create-home joe && groupadd extra && usermod -aG extra joe
             printf '%s\\n' '# x' 'FILE = \"a b\"' \"export QUOTED='\\$HOME'\" 'BOTH=file' ' LAST=1' > /etc/orders.env
             chmod 600 /etc/orders.env",
        );
        machine.program(
            "/opt/facts",
            "{ id -un; id -Gn | tr ' ' '\\n' | sort | tr '\\n' ' '; echo; ulimit -Hn; ulimit -Sn; nice; taskset -cp $$ | sed 's/.*: //'
               echo \"$HOME $USER|$FILE|$QUOTED|$BOTH|$LAST|$NOTIFY_SOCKET|$#\"; cat /proc/self/limits | sed -n 's/^Max locked memory *//p'; ls -l /proc/self/fd | grep -c pipe: ; } > /tmp/facts
             trap 'echo told > /tmp/told; exit 0' INT
             while :; do sleep 0.1; done\n",
        );
        machine.program("/opt/again", "id -un > /tmp/again\n");
        machine.program(
            "/opt/check",
            "until test -e /tmp/is-ready; do sleep 0.1; done\n",
        );
        machine.program("/opt/db", "echo > /tmp/db; exec sleep 1000\n");
        let db = service("db")
            .executable("/opt/db")
            .account(Account::LocalSystem)
            .readiness(Readiness::Exec);
        for off in machine.backend.switch("db", &machine.site).off {
            let path = off.path.display();
            machine
                .lab
                .script(&format!("mkdir -p $(dirname {path}); touch {path}"));
        }
        machine.put(&[db]);
        machine.program("/opt/orders", "echo > /tmp/orders; exec sleep 1000\n");
        let definition = service("orders")
            .account(Account::LocalSystem)
            .needs("nowhere")
            .readiness(Readiness::Exec);
        machine.put(std::slice::from_ref(&definition));
        let definition = service("facts")
            .needs("db")
            .executable("/opt/facts")
            .arguments([""])
            .account(Account::User("joe".into(), None))
            .readiness(Readiness::Exec)
            .ready_check(["/opt/check"])
            .env("BOTH", "env")
            .env_file("/etc/orders.env")
            .nice(5)
            .cpus([0])
            .limit(Limit::OpenFiles, 512)
            .limit(Limit::LockedMemory, 65536)
            .stop_signal("INT")
            .reload_command(["/opt/again"]);
        machine.put(std::slice::from_ref(&definition));
        let facts = wait_until("its facts", SOON, || {
            machine
                .read("/tmp/facts")
                .filter(|text| text.lines().count() > 8)
        });
        let facts: Vec<&str> = facts.lines().collect();
        assert!(machine.read("/tmp/db").is_some());
        assert_eq!(machine.status("orders").unwrap().state, State::StartPending);
        assert!(machine.read("/tmp/orders").is_none());
        assert_eq!(facts[..6], ["joe", "extra joe ", "512", "512", "5", "0"]);
        assert_eq!(facts[6], "/home/joe joe|a b|$HOME|env|1||1");
        assert!(facts[7].starts_with("65536"), "{facts:?}");

        machine.order(&definition, Order::Reload);
        assert_eq!(machine.read("/tmp/again").as_deref(), Some("joe\n"));
        machine.order(&definition, Order::Stop);
        assert_eq!(machine.read("/tmp/told").as_deref(), Some("told\n"));
        assert_eq!(machine.end("facts").exit_code(), Some(0));

        // A program that ignores the stop signal is killed.
        machine.program(
            "/opt/deaf",
            "trap '' TERM; echo > /tmp/deaf; while :; do sleep 0.1; done\n",
        );
        let deaf = service("deaf")
            .executable("/opt/deaf")
            .account(Account::LocalSystem)
            .readiness(Readiness::Exec)
            .graceful(Duration::from_secs(1));
        machine.put(std::slice::from_ref(&deaf));
        wait_until("its trap", SOON, || machine.read("/tmp/deaf"));
        machine.order(&deaf, Order::Stop);
        assert_eq!(machine.end("deaf").pid, None);
        assert!(
            !machine
                .lab
                .run(&["pgrep", "-f", "/opt/deaf"])
                .status
                .success()
        );

        // Readiness follows the check.
        machine
            .lab
            .script("rm /tmp/facts; (sleep 2; touch /tmp/is-ready) >/dev/null 2>&1 &");
        let begun = Instant::now();
        machine.order(&definition, Order::Start);
        assert!(begun.elapsed() > Duration::from_secs(1));
        assert_eq!(machine.status("facts").unwrap().state, State::Running);
    }

    #[test]
    fn hostile_values_arrive_as_they_are_under_runit() {
        hostile_values_arrive("runit");
    }

    #[test]
    fn hostile_values_arrive_as_they_are_under_s6() {
        hostile_values_arrive("s6");
    }

    #[test]
    fn ends_are_told_apart_under_runit() {
        ends_are_told_apart("runit");
    }

    #[test]
    fn ends_are_told_apart_under_s6() {
        ends_are_told_apart("s6");
    }

    #[test]
    fn a_crash_takes_nobody_along_under_runit() {
        a_crash_takes_nobody_along("runit");
    }

    #[test]
    fn a_crash_takes_nobody_along_under_s6() {
        a_crash_takes_nobody_along("s6");
    }

    #[test]
    fn everything_is_so_under_runit() {
        everything_is_so("runit");
    }

    #[test]
    fn everything_is_so_under_s6() {
        everything_is_so("s6");
    }
}
