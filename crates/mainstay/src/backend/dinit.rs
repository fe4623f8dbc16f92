//! dinit: a service description, and a script that it runs. Everything whose syntax differs between
//! versions of dinit is in the `sh` script.
//!
//! Sources: dinit-service(5), dinitctl(8), and their parser and printer, `load-service.h` and
//! `dinitctl.cc` of dinit.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checked::{Checked, whole_seconds};
use super::run_script::{self, Dialect, READY, shell, text};
use super::{
    Answer, Backend, Call, Entry, Facts, MARK, Order, Question, Sign, Site, Switch, Traces, Unit,
    Unsupported, sh,
};
use crate::{
    Accepts, Account, Definition, Error, Limit, Manager, Scope, ServiceStatus, State, StopScope,
};

/// The first version, 0.20, that documents every setting used here (NEWS of dinit).
const ON_FAILURE: u32 = 20;
/// The directories of the distribution's own services.
const OTHER_DIRS: &[&str] = &["/usr/local/lib/dinit.d", "/usr/lib/dinit.d", "/lib/dinit.d"];

const DIALECT: Dialect = Dialect {
    // Not needed: dinit has `run-as`.
    as_user: |_| String::new(),
    own_limits: &[Limit::OpenFiles, Limit::CoreSize],
    start: None,
    ask: None,
    begin: "",
    open_ready: "",
    close_ready: "",
    is_wanted: "",
    stay_down: "",
};

/// Runs the service's own reload command, whose failure is reported, or its refusal.
const RELOAD: &str = r#"if [ -x "$1/reload" ]; then exec "$1/reload"; else shift; exec "$@"; fi"#;

/// Prints the line of a loaded service.
const LINE: &str = r#"dinitctl "$1" list | grep -E "^.{9}] $2( \(|\$)""#;

/// dinit, for the system or a user.
pub(crate) struct Dinit;

const FACTS: Facts = Facts {
    has_users: true,
    traces: Traces::All(&["/etc/dinit.d"]),
    // If dinit is started as /sbin/init, its process is named init.
    signs: &[
        Sign::Init("dinit"),
        Sign::Path("/run/dinitctl"),
        Sign::Path("/dev/dinitctl"),
    ],
    ..Facts::of(Manager::Dinit)
};

impl Backend for Dinit {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error> {
        let Definition {
            name,
            needs,
            wants,
            recovery,
            start_timeout,
            graceful,
            stop_signal,
            stop_scope,
            limits,
            supervises,
            ..
        } = definition;
        let mut checked = Checked::new(definition, site, sh::can_say);
        let run_path = own_dir(name, site).join("run");
        let command = run_path.to_str().and_then(quoted);
        if command.is_none() {
            let path = run_path.display();
            checked.draft.wrong(format!(
                "the path {path} contains characters that not every version of dinit supports"
            ));
        }
        if stop_signal == "WINCH" {
            checked
                .draft
                .wrong("the stop signal WINCH is not supported by dinit");
        }
        run_script::check_needs(&mut checked);
        lose(&mut checked, site);
        let restarts = recovery.limit.map(|(starts, _)| starts.saturating_sub(1));
        let mut lines = format!("# {MARK}\n");
        if let Some(title) = checked.draft.title() {
            let title: Vec<&str> = title.split(char::is_control).collect();
            let _infallible = writeln!(lines, "# {}", title.join(" ").trim_end_matches('\\'));
        }
        let mut line = |key: &str, value: &str| {
            let _infallible = writeln!(lines, "{key} = {value}");
        };
        line("type", "process");
        line("command", &command.unwrap_or_default());
        if let Some(user) = checked.user {
            line("run-as", user);
        }
        if site.scope == Scope::System {
            line("logfile", &log_path(name));
        }
        for need in needs {
            line("depends-on", need);
        }
        for want in wants {
            line("waits-for", want);
        }
        if run_script::is_told(definition) {
            line("ready-notification", &format!("pipefd:{READY}"));
        }
        // A version that cannot tell exits apart would also restart the service after a final exit.
        let pause = recovery.restart_after.first();
        let pause = pause.filter(|_| !recovery.crashes_only && restarts != Some(0));
        line(
            "restart",
            match pause {
                None => "false",
                Some(_) if site.version >= ON_FAILURE => "on-failure",
                Some(_) => "true",
            },
        );
        if let Some(pause) = pause {
            // Services that depend on it keep running meanwhile.
            line("smooth-recovery", "true");
            line("restart-delay", &seconds(*pause));
            let window = recovery.limit.map_or(Duration::ZERO, |(_, window)| window);
            if restarts.is_some() {
                line("restart-limit-interval", &seconds(window));
            }
            // 0 means no limit.
            line("restart-limit-count", &restarts.unwrap_or(0).to_string());
        }
        line("start-timeout", &whole_seconds(*start_timeout).to_string());
        line("stop-timeout", &whole_seconds(*graceful).to_string());
        if stop_signal != "TERM" {
            line("term-signal", stop_signal);
        }
        if *supervises || *stop_scope == StopScope::Main {
            line("options", "signal-process-only");
        }
        for (limit, key) in [
            (Limit::OpenFiles, "rlimit-nofile"),
            (Limit::CoreSize, "rlimit-core"),
        ] {
            if let Some(value) = limits.get(&limit) {
                // dinit-service(5).
                let value = match *value {
                    u64::MAX => "-".to_owned(),
                    value => value.to_string(),
                };
                line(key, &value);
            }
        }
        let mut entries = vec![
            Entry::file(dir(site).join(name), lines),
            Entry::script(run_path, run_script::run(&checked, &DIALECT)),
        ];
        let reload = run_script::reload(&checked, &DIALECT);
        if reload.is_some() || !definition.accepts.contains(Accepts::RELOAD) {
            let refusal = || run_script::refusal(&checked);
            let path = own_dir(name, site).join("reload");
            entries.push(Entry::script(path, reload.unwrap_or_else(refusal)));
        }
        checked.finish(entries)
    }

    fn unit_dir(&self, site: &Site) -> PathBuf {
        dir(site)
    }

    fn parts(&self, name: &str, site: &Site) -> Vec<PathBuf> {
        let files = ["run", "reload"].map(|file| own_dir(name, site).join(file));
        [self.unit_path(name, site)]
            .into_iter()
            .chain(files)
            .collect()
    }

    fn own_dirs(&self, name: &str, site: &Site) -> Vec<PathBuf> {
        vec![own_dir(name, site)]
    }

    /// The link that `dinitctl enable` creates if `boot` has `waits-for.d = boot.d`.
    fn switch(&self, name: &str, site: &Site) -> Switch {
        let target = Path::new("..").join(name);
        Switch {
            on: vec![Entry::link(dir(site).join("boot.d").join(name), target)],
            ..Switch::default()
        }
    }

    /// A service that is not loaded is read when it is started.
    fn take_notice(&self, changed: &[&str], site: &Site) -> Vec<Call> {
        let changed = changed.iter();
        changed
            .map(|name| dinitctl(site, &["reload", name]).may_fail())
            .collect()
    }

    fn let_go(&self, name: &str, site: &Site) -> Vec<Call> {
        vec![dinitctl(site, &["unload", name]).may_fail()]
    }

    fn control(
        &self,
        definition: &Definition,
        order: Order,
        state: State,
        site: &Site,
    ) -> Result<Vec<Call>, Unsupported> {
        let name = &*definition.name;
        let call = |verb| dinitctl(site, &[verb, name]);
        Ok(match (order, state) {
            (Order::Start, _) | (Order::Restart, State::Stopped) => vec![call("start")],
            (Order::Stop, _) => vec![call("stop")],
            (Order::Restart, _) => vec![call("restart")],
            (Order::Reload, _) => {
                let hangup = dinitctl(site, &["signal", "HUP", name]);
                let mut reload = shell(RELOAD, [text(&own_dir(name, site))]);
                reload.argv.extend(hangup.argv);
                vec![reload]
            }
            (Order::Pause | Order::Resume, _) => {
                return Err(Unsupported("dinit does not support pausing: stop it"));
            }
        })
    }

    fn questions(&self, name: &str, site: &Site) -> Vec<Question> {
        let others = OTHER_DIRS.iter().map(|dir| Path::new(dir).join(name));
        let others = others.filter(|_| site.scope == Scope::System);
        let files = std::iter::once(self.unit_path(name, site)).chain(others);
        let instance = instance(site).to_owned();
        let line = shell(LINE, [instance, name.to_owned()]).argv;
        std::iter::once(Question::run(line))
            .chain(files.map(Question::Read))
            .collect()
    }

    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus> {
        let (line, files) = answers.split_first()?;
        let is_there = files.iter().any(|file| file.code == Some(0));
        read_line(&line.text())
            .or_else(|| is_there.then(|| ServiceStatus::new(State::Stopped, None)))
    }

    fn version_question(&self) -> Option<Question> {
        Some(Question::run(["dinitctl", "--version"]))
    }

    /// Parses `Dinit version 0.19.4.` and uses the middle number. All beta releases are 0, which is
    /// below 20.
    fn version(&self, answer: &Answer) -> Option<u32> {
        let text = answer.text();
        let mut numbers = text.split(|char: char| !char.is_ascii_digit());
        let mut numbers = numbers.by_ref().filter_map(|it| it.parse::<u32>().ok());
        let (major, minor) = (numbers.next()?, numbers.next()?);
        Some(major * 1000 + minor)
    }

    fn journal(&self, name: &str, site: &Site) -> String {
        match site.scope {
            Scope::System => format!("tail {}", log_path(name)),
            Scope::User => format!("dinitctl --user status {name}"),
        }
    }
}

fn dir(site: &Site) -> PathBuf {
    match site.scope {
        Scope::System => "/etc/dinit.d".into(),
        Scope::User => site.config_dir.join("dinit.d"),
    }
}

/// Service names of this library contain no dot.
fn own_dir(name: &str, site: &Site) -> PathBuf {
    dir(site).join(format!("{name}.d"))
}

fn log_path(name: &str) -> String {
    format!("/var/log/{name}.log")
}

fn instance(site: &Site) -> &'static str {
    match site.scope {
        Scope::System => "--system",
        Scope::User => "--user",
    }
}

fn dinitctl(site: &Site, arguments: &[&str]) -> Call {
    let words = ["dinitctl", instance(site)];
    Call::new(words.iter().chain(arguments).copied())
}

/// Reports the settings that dinit does not support.
fn lose(checked: &mut Checked<'_>, site: &Site) {
    let Definition {
        recovery,
        limits,
        nice,
        account,
        supervises,
        stop_scope,
        reload_command,
        ..
    } = checked.definition;
    let (is_user, scope) = (matches!(account, Account::User(..)), site.scope);
    let pauses = &recovery.restart_after;
    if recovery.crashes_only {
        if !pauses.is_empty() {
            checked.lose(
                "restart after a crash: dinit does not distinguish crashes from other failures",
            );
        }
    } else if let Some(first) = pauses.first() {
        if pauses.iter().any(|pause| pause != first) {
            checked.lose(format!(
                "growing restart delays: each is {}s",
                seconds(*first)
            ));
        }
        if site.version < ON_FAILURE {
            checked.lose(
                "no restart after a clean exit (dinit 0.20): it is restarted after every exit",
            );
        }
        if !recovery.halts.is_empty() || !recovery.clean.is_empty() {
            checked.lose("exit codes after which it stays down");
        }
    }
    if !supervises && *stop_scope == StopScope::Main {
        checked.draft.lose_remains();
    }
    if is_user && nice.is_some_and(|nice| nice < 0) {
        checked.lose("negative nice value of a program that runs as a user");
    }
    let is_raised = |limit: &Limit| !DIALECT.own_limits.contains(limit);
    if is_user && limits.keys().any(is_raised) {
        checked.lose("limits of processes and locked memory above those of dinit");
    }
    if is_user {
        checked.lose_env_file();
    }
    if is_user && reload_command.is_some() {
        checked.lose("reload command as the user of the service: it runs as root");
    }
    if scope == Scope::User {
        checked.lose("standard output and standard error: they are discarded");
    }
    checked.lose_listen();
}

/// Quotes one word of a command. Within quotes, a backslash escapes the next character. Returns
/// `None` if the word contains a character that no line can contain, or a `$`, which newer versions
/// expand.
fn quoted(word: &str) -> Option<String> {
    let is_sayable = !word.chars().any(|char| char.is_control() || char == '$');
    is_sayable.then(|| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")))
}

fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => duration.as_secs().to_string(),
        millis => format!("{}.{millis:03}", duration.as_secs()),
    }
}

/// Parses a line of `dinitctl list`: `[[+]     ] orders (pid: 7)`, `[     {X}] orders (exit status:
/// 75)`. The signs are documented in dinitctl(8).
fn read_line(line: &str) -> Option<ServiceStatus> {
    let (signs, details) = line.split_at_checked(10)?;
    let detail = |key: &str| -> Option<u32> {
        let (_, value) = details.split_once(&format!("({key}: "))?;
        value.split(')').next()?.parse().ok()
    };
    let signs: &[u8; 10] = signs.as_bytes().try_into().ok()?;
    let &[_, _, up, _, arrow, _, _, down, _, b']'] = signs else {
        return None;
    };
    let state = match (up, arrow, down) {
        (b'+' | b's', b' ', b' ') => State::Running,
        (b' ', b'<', b' ') => State::StartPending,
        (b' ', b'>', b' ') => State::StopPending,
        (b' ', b' ', b'-' | b'X') => State::Stopped,
        _ => return None,
    };
    let code = match (down, detail("exit status"), detail("signal")) {
        (b'X', Some(code), _) => code,
        (b'X', None, Some(signal)) => 128 + signal,
        // The service failed before it had an exit code.
        (b'X', None, None) => 1,
        _ => 0,
    };
    Some(ServiceStatus::new(state, detail("pid")).exited(code))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Content, golden};
    use super::*;
    use crate::{ErrorKind, Recovery, service};

    fn site(version: u32, config_dir: &str) -> Site {
        Site {
            scope: match config_dir {
                "" => Scope::System,
                _ => Scope::User,
            },
            running: "/opt/orders".into(),
            version,
            config_dir: config_dir.into(),
            ..golden::site()
        }
    }

    fn text_of(entry: &Entry) -> &str {
        match &entry.content {
            Content::File { text, .. } => text,
            Content::Link(_) => unreachable!("no link"),
        }
    }

    /// Parses a line like `read_config_name` and `read_setting_value` of dinit's `load-service.h`:
    /// the setting and the parts of its value.
    fn read(line: &str) -> Result<Option<(String, Vec<String>)>, &'static str> {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let is_inner = |char: char| char == '-' || char == '.' || char.is_ascii_alphanumeric();
        let end = line.find(|char| !is_inner(char)).ok_or("no operator")?;
        let (key, rest) = line.split_at(end);
        let value = rest.trim_start().strip_prefix('=').ok_or("no operator")?;
        let mut chars = value.trim_start().chars().peekable();
        let (mut parts, mut part) = (Vec::new(), None::<String>);
        while let Some(char) = chars.next() {
            match char {
                '"' => {
                    let part = part.get_or_insert_default();
                    loop {
                        match chars.next().ok_or("unterminated quoted string")? {
                            '"' => break,
                            '\\' => part.extend(chars.next()),
                            char => part.push(char),
                        }
                    }
                }
                '\\' => part.get_or_insert_default().extend(chars.next()),
                char if char.is_ascii_whitespace() => {
                    parts.extend(part.take());
                    while chars.next_if(char::is_ascii_whitespace).is_some() {}
                    if chars.peek() == Some(&'#') {
                        break;
                    }
                }
                '#' => return Err("a comment within a value"),
                char => part.get_or_insert_default().push(char),
            }
        }
        parts.extend(part);
        Ok(Some((key.to_owned(), parts)))
    }

    fn command(unit: &Unit) -> Vec<String> {
        let lines = text_of(&unit.entries[0]).lines();
        let mut settings = lines.filter_map(|line| read(line).unwrap());
        settings.find(|(key, _)| key == "command").unwrap().1
    }

    proptest! {
        #[test]
        fn a_path_arrives_as_it_is(name in "[ a-c\"\\\\#=':;%é/+]{0,20}") {
            let site = site(20, &format!("/home/{name}"));
            let unit = Dinit.unit(&service("orders").scope(Scope::User), &site).unwrap();
            let path = format!("/home/{name}");
            let path = Path::new(&path).join("dinit.d/orders.d/run");
            prop_assert_eq!(command(&unit), [path.to_str().unwrap()]);
            prop_assert_eq!(&unit.entries[1].path, &path);
        }
    }

    #[test]
    fn what_versions_read_in_their_own_way_is_refused() {
        for dir in ["/home/$A", "/home/a\nb", "/home/a\tb"] {
            let definition = service("orders").scope(Scope::User).stop_signal("WINCH");
            let error = Dinit.unit(&definition, &site(20, dir)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let text = error.to_string();
            assert!(
                text.contains("not every version of dinit") && text.contains("WINCH"),
                "{text}"
            );
        }
    }

    #[test]
    fn descriptions_hold_plain_words() {
        for definition in [golden::library(), golden::hosted(), golden::direct()] {
            let unit = Dinit.unit(&definition, &golden::site()).unwrap();
            for line in text_of(&unit.entries[0]).lines() {
                read(line).unwrap();
            }
            assert_eq!(command(&unit), ["/etc/dinit.d/orders.d/run"]);
        }
    }

    #[test]
    fn starts_are_one_more_than_restarts() {
        let text = |starts| {
            let recovery = Recovery {
                limit: Some((starts, Duration::from_secs(60))),
                ..Recovery::default()
            };
            let definition = golden::library().recovery(recovery);
            let unit = Dinit.unit(&definition, &golden::site()).unwrap();
            text_of(&unit.entries[0]).to_owned()
        };
        assert!(text(3).contains("restart-limit-count = 2\n"));
        assert!(text(1).contains("restart = false\n"));
        assert!(!text(1).contains("restart-limit-count"));
    }

    #[test]
    fn older_dinits_start_it_again_after_each_end() {
        let definition = service("orders").account(Account::LocalSystem);
        let unit = Dinit.unit(&definition, &site(0, "")).unwrap();
        assert!(text_of(&unit.entries[0]).contains("restart = true\n"));
        let losses = unit.losses.join("\n");
        assert!(
            losses.contains("growing restart delays") && losses.contains("a clean exit"),
            "{losses}"
        );
        let version = |text: &str| {
            let (code, output) = (Some(0), text.into());
            Dinit.version(&Answer { code, output })
        };
        assert_eq!(version("Dinit version 0.19.4.\n"), Some(19));
        assert_eq!(version("Dinit version 1.0.0.\n"), Some(1000));
    }

    #[test]
    fn what_dinitctl_lists_is_a_state() {
        let read = |line: &str| {
            let status = read_line(line)?;
            Some((status.state, status.pid, status.exit_code()))
        };
        for (line, expect) in [
            (
                "[[+]     ] orders (pid: 7)",
                Some((State::Running, Some(7), Some(0))),
            ),
            (
                "[{+}     ] orders (pid: 7) (has console)",
                Some((State::Running, Some(7), Some(0))),
            ),
            (
                "[{ }<<   ] orders (pid: 8)",
                Some((State::StartPending, Some(8), Some(0))),
            ),
            (
                "[   >>{ }] orders (pid: 9)",
                Some((State::StopPending, Some(9), Some(0))),
            ),
            ("[     {-}] orders", Some((State::Stopped, None, Some(0)))),
            (
                "[     {X}] orders (exit status: 75)",
                Some((State::Stopped, None, Some(75))),
            ),
            (
                "[     {X}] orders (signal: 9)",
                Some((State::Stopped, None, Some(137))),
            ),
            ("[     {X}] orders", Some((State::Stopped, None, Some(1)))),
            ("[     {?}] orders", None),
            ("dinitctl: connection closed", None),
            ("", None),
        ] {
            assert_eq!(read(line), expect, "{line}");
        }
    }
}
