//! launchd: property lists, and the output of `launchctl print`.
//!
//! A stopped service is not loaded, because launchd's `KeepAlive` would restart it after a signal.
//! Starting a service therefore loads it, stopping unloads it, and a loaded service always matches
//! its file. An enabled service is loaded at boot or at login.
//!
//! Sources: launchd.plist(5), launchctl(1), Apple's PropertyList-1.0.dtd.

use std::path::PathBuf;
use std::time::Duration;

use super::checked::{self, Checked, whole_seconds};
use super::{
    Answer, Backend, Call, Entry, Facts, MARK, Order, Question, Sign, Site, Switch, Traces, Unit,
    Unsupported, sh, xml,
};
use crate::{Definition, Error, Limit, Manager, Scope, ServiceStatus, Start, State};

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">"#;
/// The signals that indicate a fault in the program, which `Crashed` refers to: launchd.plist(5).
const CRASHES: &[u32] = &[4, 5, 6, 8, 10, 11, 12];
const DISABLED: &str = "<key>Disabled</key>";
const RESTARTS_FAILURES: &str = "<key>SuccessfulExit</key>";
const RESTARTS_CRASHES: &str = "<key>Crashed</key>";

/// Unloads `$1` if it is loaded, and waits until its process is gone: `bootout` returns earlier.
const UNLOAD: &str = r#"limit=$(launchctl print "$1" 2>/dev/null | sed -n 's/^.exit timeout = \([0-9]*\).*/\1/p')
said=$(launchctl bootout "$1" 2>&1)
case $? in
0 | 3 | 36 | 37 | 113) ;;
*) echo "$said" >&2; exit 1 ;;
esac
left=$(((${limit:-30} + 10) * 10))
while launchctl print "$1" >/dev/null 2>&1; do
	[ $((left -= 1)) -ge 0 ] || { echo "$1 has not ended" >&2; exit 1; }
	sleep 0.1
done
"#;
/// Loads the file `$3` as `$1` in the domain `$2`. A disabled service is disabled again afterwards.
const LOAD: &str = r#"name=${1##*/}
case $(launchctl print-disabled "$2" | sed -n "s/^[[:space:]]*\"$name\" => //p") in
true | disabled) off=1 ;;
false | enabled) off= ;;
*) off=$(grep '<key>Disabled</key>' "$3") ;;
esac
[ -z "$off" ] || launchctl enable "$1" || exit 1
launchctl bootstrap "$2" "$3"
code=$?
[ -z "$off" ] || launchctl disable "$1" || exit 1
exit $code
"#;

/// The backend for macOS.
pub(crate) struct Launchd;

const FACTS: Facts = Facts {
    has_users: true,
    traces: Traces::All(&["/Library/LaunchDaemons"]),
    signs: &[Sign::Path("/System/Library/LaunchDaemons")],
    suffix: ".plist",
    ..Facts::of(Manager::Launchd)
};

impl Backend for Launchd {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error> {
        let name = &*definition.name;
        let mut it = Checked::new(definition, site, xml::can_say);
        let mut keys = vec![("Label", Value::from(name))];
        keys.extend(
            it.draft
                .title()
                .map(|title| ("ServiceDescription", title.into())),
        );
        if let Some(title) = it.draft.title() {
            it.text("the description", title.as_ref());
        }
        program(&it, &mut keys);
        keys.push(("RunAtLoad", Value::Flag(true)));
        recovery(&mut it, &mut keys);
        keys.push(("ExitTimeOut", seconds(definition.graceful)));
        if definition.supervises {
            keys.push(("AbandonProcessGroup", Value::Flag(true)));
        }
        // Other process types are throttled in CPU and disk use.
        keys.push(("ProcessType", "Interactive".into()));
        resources(&mut it, &mut keys);
        sockets(&mut it, &mut keys);
        let log = log_path(name, site);
        keys.push(("StandardOutPath", Value::Text(log.clone())));
        keys.push(("StandardErrorPath", Value::Text(log)));
        if matches!(definition.start, Start::Manual | Start::Disabled) {
            keys.push(("Disabled", Value::Flag(true)));
        }
        if definition.stop_signal != "TERM" {
            it.lose(format!(
                "stop signal {}: it receives SIGTERM",
                definition.stop_signal
            ));
        }
        if !definition.needs.is_empty() {
            it.lose("start order: services that it needs are not started first");
        }
        it.draft.lose_tree();
        it.lose_cpus();
        it.draft.lose_readiness();
        let mut text = format!("{HEAD}\n<!-- {MARK} -->\n<plist version=\"1.0\">\n");
        Value::Keys(keys).write(0, &mut text);
        text += "</plist>\n";
        it.finish(vec![Entry::file(self.unit_path(name, site), text)])
    }

    fn unit_dir(&self, site: &Site) -> PathBuf {
        match site.scope {
            Scope::System => "/Library/LaunchDaemons".into(),
            Scope::User => site.home_dir.join("Library/LaunchAgents"),
        }
    }

    /// launchd stores the enablement itself, not in the files: launchctl(1).
    fn switch(&self, name: &str, site: &Site) -> Switch {
        Switch {
            turn_on: vec![launchctl("enable", name, site)],
            turn_off: vec![launchctl("disable", name, site)],
            ..Switch::default()
        }
    }

    fn enabled_questions(&self, name: &str, site: &Site) -> Vec<Question> {
        let call = Call::new(["launchctl", "print-disabled", &domain(site)]);
        let path = self.unit_path(name, site);
        vec![Question::run(call.argv), Question::Read(path)]
    }

    fn is_enabled(&self, name: &str, answers: &[Answer]) -> bool {
        let [overrides, file] = answers else {
            return false;
        };
        let key = format!("\"{name}\" => ");
        let text = overrides.text();
        let said = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(&*key));
        match said {
            Some("false" | "enabled") => true,
            Some(_) => false,
            None => file.code == Some(0) && !file.text().contains(DISABLED),
        }
    }

    /// The service may be loaded without a process. launchd remembers a disabled label forever, so
    /// it is enabled again for the next service with this name.
    fn let_go(&self, name: &str, site: &Site) -> Vec<Call> {
        vec![
            script(UNLOAD, [target(name, site)]),
            launchctl("enable", name, site).may_fail(),
        ]
    }

    fn control(
        &self,
        definition: &Definition,
        order: Order,
        _state: State,
        site: &Site,
    ) -> Result<Vec<Call>, Unsupported> {
        let name = &*definition.name;
        let unload = script(UNLOAD, [target(name, site)]);
        match order {
            Order::Start | Order::Restart => {
                let path = self.unit_path(name, site).display().to_string();
                let load = script(LOAD, [target(name, site), domain(site), path]);
                let calls = [unload, load].into_iter();
                Ok(calls.chain(checked::ready_check(definition)).collect())
            }
            Order::Stop => Ok(vec![unload]),
            Order::Reload => {
                let hangup = Call::new(["launchctl", "kill", "SIGHUP", &target(name, site)]);
                checked::reload(definition, hangup)
            }
            Order::Pause | Order::Resume => Err(Unsupported("launchd does not support pausing")),
        }
    }

    fn questions(&self, name: &str, site: &Site) -> Vec<Question> {
        vec![
            Question::Read(self.unit_path(name, site)),
            Question::run(["launchctl", "print", &target(name, site)]),
        ]
    }

    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus> {
        let [file, loaded] = answers else { return None };
        match (file.code, loaded.code) {
            (_, Some(0)) => Some(status(&loaded.text(), &file.text())),
            (Some(0), _) => Some(ServiceStatus::new(State::Stopped, None)),
            _ => None,
        }
    }

    fn journal(&self, name: &str, site: &Site) -> String {
        format!("tail {}", log_path(name, site))
    }
}

/// Returns the domain of services with this scope.
fn domain(site: &Site) -> String {
    match site.scope {
        Scope::System => "system".to_owned(),
        Scope::User => format!("gui/{}", site.user),
    }
}

fn target(name: &str, site: &Site) -> String {
    format!("{}/{name}", domain(site))
}

fn launchctl(verb: &str, name: &str, site: &Site) -> Call {
    Call::new(["launchctl", verb, &target(name, site)])
}

fn script<const N: usize>(text: &str, arguments: [String; N]) -> Call {
    let shell = ["/bin/sh", "-c", text, "launchctl"].map(str::to_owned);
    Call::new(shell.into_iter().chain(arguments))
}

fn log_path(name: &str, site: &Site) -> String {
    let dir = match site.scope {
        Scope::System => PathBuf::from("/Library/Logs"),
        Scope::User => site.home_dir.join("Library/Logs"),
    };
    dir.join(format!("{name}.log")).display().to_string()
}

/// A value of a property list.
enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
    List(Vec<Value>),
    Keys(Vec<(&'static str, Value)>),
    Variables(Vec<(String, Value)>),
}

impl Value {
    fn texts<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        Self::List(words.into_iter().map(Self::from).collect())
    }

    fn write(&self, indent: usize, text: &mut String) {
        let tabs = "\t".repeat(indent);
        let mut entries = |entries: &mut dyn Iterator<Item = (&str, &Value)>| {
            *text += &format!("{tabs}<dict>\n");
            for (key, value) in entries {
                *text += &format!("{tabs}\t<key>{}</key>\n", xml::escaped(key));
                value.write(indent + 1, text);
            }
            *text += &format!("{tabs}</dict>\n");
        };
        match self {
            Self::Keys(keys) => entries(&mut keys.iter().map(|(key, value)| (*key, value))),
            Self::Variables(all) => entries(&mut all.iter().map(|(key, value)| (&**key, value))),
            Self::List(values) => {
                *text += &format!("{tabs}<array>\n");
                values
                    .iter()
                    .for_each(|value| value.write(indent + 1, text));
                *text += &format!("{tabs}</array>\n");
            }
            Self::Text(value) => {
                *text += &format!("{tabs}<string>{}</string>\n", xml::escaped(value));
            }
            Self::Number(value) => *text += &format!("{tabs}<integer>{value}</integer>\n"),
            Self::Flag(value) => *text += &format!("{tabs}<{value}/>\n"),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

fn seconds(duration: Duration) -> Value {
    Value::Number(whole_seconds(duration).try_into().unwrap_or(i64::MAX))
}

fn program(it: &Checked<'_>, keys: &mut Vec<(&'static str, Value)>) {
    let argv = match it.env_file {
        None => Value::texts(it.argv.iter().copied()),
        // launchd does not support such files.
        Some(path) => {
            let script = sh::read_env_file(path, &it.env) + "exec \"$@\"\n";
            let shell = ["/bin/sh", "-c", &script, "sh"];
            Value::texts(shell.into_iter().chain(it.argv.iter().copied()))
        }
    };
    keys.push(("ProgramArguments", argv));
    if !it.env.is_empty() {
        let env = it.env.iter();
        let env = env.map(|(name, value)| ((*name).to_owned(), (*value).into()));
        keys.push(("EnvironmentVariables", Value::Variables(env.collect())));
    }
    keys.extend(it.working_dir.map(|dir| ("WorkingDirectory", dir.into())));
    keys.extend(it.user.map(|user| ("UserName", user.into())));
}

fn recovery(it: &mut Checked<'_>, keys: &mut Vec<(&'static str, Value)>) {
    let Some(pause) = it.pause() else { return };
    let recovery = &it.definition.recovery;
    let (has_clean, crashes_only) = (!recovery.clean.is_empty(), recovery.crashes_only);
    let (when, is) = if crashes_only {
        ("Crashed", true)
    } else {
        ("SuccessfulExit", false)
    };
    keys.push(("KeepAlive", Value::Keys(vec![(when, Value::Flag(is))])));
    keys.push(("ThrottleInterval", seconds(pause)));
    it.lose("restart delay after a longer run: launchd measures it from start to start");
    if crashes_only {
        it.lose("restart after SIGKILL: it is restarted after crash signals only");
    } else if has_clean {
        it.lose("clean exit codes other than 0");
    }
}

fn resources(it: &mut Checked<'_>, keys: &mut Vec<(&'static str, Value)>) {
    let Definition { nice, limits, .. } = it.definition;
    keys.extend(nice.map(|nice| ("Nice", Value::Number(nice.into()))));
    let mut all = Vec::new();
    for (limit, value) in limits {
        let key = match limit {
            Limit::OpenFiles => "NumberOfFiles",
            Limit::Processes => "NumberOfProcesses",
            Limit::CoreSize => "Core",
            Limit::LockedMemory => "MemoryLock",
        };
        match i64::try_from(*value) {
            Ok(value) => all.push((key, value)),
            Err(_) => it
                .draft
                .wrong(format!("the limit {value} is greater than {}", i64::MAX)),
        }
    }
    if !all.is_empty() {
        for kind in ["SoftResourceLimits", "HardResourceLimits"] {
            let limits = all.iter().map(|(key, value)| (*key, Value::Number(*value)));
            keys.push((kind, Value::Keys(limits.collect())));
        }
    }
}

fn sockets(it: &mut Checked<'_>, keys: &mut Vec<(&'static str, Value)>) {
    let mut sockets = Vec::new();
    for address in &it.definition.listen {
        it.draft.check_address(address);
        let socket = match (address.starts_with('/'), address.rsplit_once(':')) {
            (true, _) => vec![("SockPathName", address.as_str().into())],
            (false, Some((host, port))) => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                vec![
                    ("SockNodeName", host.into()),
                    ("SockServiceName", port.into()),
                ]
            }
            (false, None) => vec![("SockServiceName", address.as_str().into())],
        };
        sockets.push(Value::Keys(socket));
    }
    if !sockets.is_empty() {
        keys.push((
            "Sockets",
            Value::Keys(vec![("Listeners", Value::List(sockets))]),
        ));
        it.lose("passing of sockets: call launch_activate_socket(3) with \"Listeners\"");
    }
}

/// Parses the output of `launchctl print` for a loaded service with this file. The output is meant
/// for people (launchctl(1)), so missing or unknown text is never interpreted as running.
fn status(said: &str, file: &str) -> ServiceStatus {
    // The service's own lines are indented by one tab, lines within braces by more.
    let own = || {
        said.lines()
            .filter_map(|line| line.strip_prefix('\t')?.split_once(" = "))
    };
    let all = |key: &'static str| {
        own()
            .filter(move |(name, _)| *name == key)
            .map(|(_, value)| value)
    };
    // The state is taken from the first match and the PID from the last, so a multi-line argument
    // in between cannot fake them.
    let state = all("state").next().unwrap_or("");
    let pid = all("pid").next_back().and_then(|pid| pid.parse().ok());
    let number = |value: &str| -> Option<u32> {
        let last = value.rsplit(": ").next()?;
        value
            .split(':')
            .next()?
            .trim()
            .parse()
            .ok()
            .or_else(|| last.trim().parse().ok())
    };
    let signal = all("last terminating signal").next_back().and_then(number);
    let code = match signal {
        Some(signal) => 128 + signal,
        None => all("last exit code")
            .next_back()
            .and_then(number)
            .unwrap_or(0),
    };
    let crashed = signal.is_some_and(|signal| CRASHES.contains(&signal));
    let comes_back = (file.contains(RESTARTS_FAILURES) && code != 0)
        || (file.contains(RESTARTS_CRASHES) && crashed);
    match (state, pid) {
        ("running", Some(pid)) => ServiceStatus::new(State::Running, Some(pid)),
        // launchd waits for ThrottleInterval.
        ("spawn scheduled", _) => ServiceStatus::new(State::StartPending, None).exited(code),
        _ if comes_back => ServiceStatus::new(State::StartPending, None).exited(code),
        _ => ServiceStatus::new(State::Stopped, None).exited(code),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Content;
    use super::super::checked::examples;
    use super::*;
    use crate::{Account, ErrorKind, service};

    fn text_of(definition: &Definition, site: &Site) -> (String, Vec<String>) {
        let unit = Launchd.unit(definition, site).unwrap();
        match unit.entries.into_iter().next().unwrap().content {
            Content::File { text, .. } => (text, unit.losses),
            Content::Link(_) => unreachable!("a unit is a file"),
        }
    }

    fn body(text: &str) -> &str {
        text.split_once("<plist version=\"1.0\">\n").unwrap().1
    }

    #[test]
    fn a_library_program_is_a_daemon_that_restarts() {
        let (text, losses) = text_of(&examples::library(), &examples::site());
        assert!(super::super::is_ours(&text), "{text}");
        let expected = "\
<dict>
\t<key>Label</key>
\t<string>orders</string>
\t<key>ServiceDescription</key>
\t<string>Orders, 100 % &lt;b&gt;</string>
\t<key>ProgramArguments</key>
\t<array>
\t\t<string>/opt/orders/orders</string>
\t\t<string>run</string>
\t</array>
\t<key>UserName</key>
\t<string>joe</string>
\t<key>RunAtLoad</key>
\t<true/>
\t<key>KeepAlive</key>
\t<dict>
\t\t<key>SuccessfulExit</key>
\t\t<false/>
\t</dict>
\t<key>ThrottleInterval</key>
\t<integer>1</integer>
\t<key>ExitTimeOut</key>
\t<integer>2</integer>
\t<key>ProcessType</key>
\t<string>Interactive</string>
\t<key>StandardOutPath</key>
\t<string>/Library/Logs/orders.log</string>
\t<key>StandardErrorPath</key>
\t<string>/Library/Logs/orders.log</string>
</dict>
</plist>
";
        assert_eq!(body(&text), expected);
        let expected = [
            "growing restart delays: each is 1s",
            "exit codes after which it stays down",
            "restart delay after a longer run: launchd measures it from start to start",
            "start order: services that it needs are not started first",
            "readiness: it counts as ready as soon as its program runs",
        ];
        assert_eq!(losses, expected);
    }

    #[test]
    fn a_supervisor_leaves_what_it_started_to_its_successor() {
        let (text, losses) = text_of(&examples::hosted(), &examples::site());
        for part in [
            "\t<key>KeepAlive</key>\n\t<dict>\n\t\t<key>Crashed</key>\n\t\t<true/>\n\t</dict>\n",
            "\t<key>AbandonProcessGroup</key>\n\t<true/>\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("SuccessfulExit"), "{text}");
        assert_eq!(
            losses,
            [
                "restart delay after a longer run: launchd measures it from start to start",
                "restart after SIGKILL: it is restarted after crash signals only",
            ]
        );
    }

    #[test]
    fn everything_a_program_may_have_is_said_or_lost() {
        let (text, losses) = text_of(&examples::direct(), &examples::site());
        for part in [
            "\t\t<string>/bin/sh</string>\n\t\t<string>-c</string>\n",
            "\t<key>EnvironmentVariables</key>\n\t<dict>\n\t\t<key>A</key>\n\t\t<string>1 &quot;$2&quot;</string>\n\t</dict>\n",
            "\t<key>WorkingDirectory</key>\n\t<string>/srv/a b</string>\n",
            "\t<key>Nice</key>\n\t<integer>-5</integer>\n",
            "\t<key>HardResourceLimits</key>\n\t<dict>\n\t\t<key>NumberOfFiles</key>\n\t\t<integer>1024</integer>\n\t</dict>\n",
            "\t\t\t\t<key>SockNodeName</key>\n\t\t\t\t<string>::1</string>\n\t\t\t\t<key>SockServiceName</key>\n\t\t\t\t<string>80</string>\n",
            "\t\t\t\t<key>SockPathName</key>\n\t\t\t\t<string>/run/orders.sock</string>\n",
            "\t<key>Disabled</key>\n\t<true/>\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(
            losses,
            [
                "reading `env_file` as root: the user of the service must be able to read it",
                "`watchdog`: a service that hangs is not restarted",
                "exit codes after which it stays down",
                "restart limit",
                "restart delay after a longer run: launchd measures it from start to start",
                "clean exit codes other than 0",
                "passing of sockets: call launch_activate_socket(3) with \"Listeners\"",
                "stop signal INT: it receives SIGTERM",
                "stop of the process tree: only the main process receives the stop signal",
                "CPU affinity",
            ]
        );
    }

    #[test]
    fn an_agent_is_its_users() {
        let site = Site {
            scope: Scope::User,
            ..examples::site()
        };
        let definition = service("orders").scope(Scope::User);
        let unit = Launchd.unit(&definition, &site).unwrap();
        let path = "/home/joe/Library/LaunchAgents/orders.plist";
        assert_eq!(unit.entries[0].path, PathBuf::from(path));
        let calls = Launchd.control(&definition, Order::Stop, State::Running, &site);
        let target = calls.unwrap()[0].argv.last().cloned();
        assert_eq!(target.as_deref(), Some("gui/1000/orders"));
    }

    #[test]
    fn all_mistakes_are_told_at_once_and_no_secret() {
        let definition = service("Orders!")
            .executable("orders")
            .arguments(["a\u{1}b"])
            .env("A B", "secret")
            .env("C", "secret\u{1}")
            .account(Account::Managed("D\\orders$".into()))
            .listen("a b")
            .limit(Limit::OpenFiles, u64::MAX);
        let error = Launchd.unit(&definition, &examples::site()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        for part in [
            "a name consists of 1 to 200",
            "the program orders is not an absolute path",
            "the command line contains an unsupported control character",
            "variable \"A B\"",
            "variable \"C\"",
            "is a Windows account",
            "\"a b\" is not a valid address",
            "the limit 18446744073709551615",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("secret"), "{text}");
        let error = Launchd
            .unit(&service("orders"), &examples::site())
            .unwrap_err();
        assert!(error.to_string().contains("--account user:NAME"), "{error}");
    }

    /// Output of `launchctl print` on macOS.
    const RUNNING: &str = "system/orders = {
\tactive count = 1
\tpath = /Library/LaunchDaemons/orders.plist
\ttype = LaunchDaemon
\tstate = running

\tprogram = /opt/orders/orders
\targuments = {
\t\t/opt/orders/orders
\t\tpid = 5
\t}

\tdefault environment = {
\t\tPATH => /usr/bin:/bin:/usr/sbin:/sbin
\t}

\tdomain = system
\tminimum runtime = 1
\texit timeout = 30
\truns = 2
\tpid = 4711
\timmediate reason = speculative
\tlast exit code = 75

\tspawn type = interactive (4)
\tproperties = keepalive | runatload
}
";

    #[test]
    fn what_launchctl_prints_is_a_state() {
        let there = |text: &str| Answer {
            code: Some(0),
            output: text.into(),
        };
        let missing = Answer {
            code: Some(113),
            output: Vec::new(),
        };
        let says = |file: &Answer, loaded: &Answer| {
            let status = Launchd.status(&[file.clone(), loaded.clone()])?;
            Some((status.state, status.pid, status.exit_code()))
        };
        let (plain, failures) = (there("<plist>"), there(RESTARTS_FAILURES));
        let running = there(RUNNING);
        let expected = Some((State::Running, Some(4711), Some(0)));
        assert_eq!(says(&plain, &running), expected);
        assert_eq!(says(&Answer::default(), &running), expected);
        let ended = RUNNING
            .replace("state = running", "state = not running")
            .replace("\tpid = 4711\n", "");
        let stopped = Some((State::Stopped, None, Some(75)));
        assert_eq!(says(&plain, &there(&ended)), stopped);
        let coming = Some((State::StartPending, None, Some(75)));
        assert_eq!(says(&failures, &there(&ended)), coming);
        let named = ended.replace("code = 75", "code = 78: EX_CONFIG");
        assert_eq!(says(&plain, &there(&named)).unwrap().2, Some(78));
        let never = ended.replace("code = 75", "code = (never exited)");
        assert_eq!(
            says(&failures, &there(&never)),
            Some((State::Stopped, None, Some(0)))
        );
        let killed = ended.replace("exit code = 75", "terminating signal = Killed: 9");
        assert_eq!(
            says(&there(RESTARTS_CRASHES), &there(&killed)),
            Some((State::Stopped, None, Some(137)))
        );
        let crashed = ended.replace(
            "exit code = 75",
            "terminating signal = Segmentation fault: 11",
        );
        assert_eq!(
            says(&there(RESTARTS_CRASHES), &there(&crashed)).unwrap().0,
            State::StartPending
        );
        assert_eq!(
            says(&plain, &missing),
            Some((State::Stopped, None, Some(0)))
        );
        assert_eq!(says(&Answer::default(), &missing), None);
        for odd in [
            "",
            "state = running",
            "\tstate = running\n",
            "\tstate = running\n\tpid = soon\n",
            "\tpid = 5\n",
        ] {
            assert_eq!(
                says(&plain, &there(odd)).unwrap().0,
                State::Stopped,
                "{odd:?}"
            );
        }
    }

    #[test]
    fn what_launchd_remembers_wins_over_the_file() {
        let answer = |text: &str| Answer {
            code: Some(0),
            output: text.into(),
        };
        let is_enabled = |said: &str, file: &str| {
            let said =
                format!("\n\tdisabled services = {{\n\t\t\"orders2\" => enabled\n{said}\t}}\n");
            Launchd.is_enabled("orders", &[answer(&said), answer(file)])
        };
        assert!(is_enabled("", "<plist>") && !is_enabled("", DISABLED));
        for off in ["disabled", "true", "perhaps"] {
            assert!(!is_enabled(
                &format!("\t\t\"orders\" => {off}\n"),
                "<plist>"
            ));
        }
        for on in ["enabled", "false"] {
            assert!(is_enabled(&format!("\t\t\"orders\" => {on}\n"), DISABLED));
        }
        assert!(!Launchd.is_enabled("orders", &[answer(""), Answer::default()]));
    }

    /// Tests the scripts against a stand-in for launchctl, which keeps its state in files.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_service_is_loaded_anew_and_disabled_as_before() {
        use std::process::Command;

        let dir = std::env::temp_dir().join(format!("mainstay-launchctl-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let fake = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$*" >> calls
case $1 in
print) # It goes the second time that it is looked at after a bootout.
	[ -e loaded ] || exit 113
	if [ -e ending ]; then rm loaded ending; elif [ -e asked ]; then mv asked ending; fi
	printf 'x = {\n\texit timeout = 1\n}\n' ;;
bootout) [ -e loaded ] || exit 3; [ ! -e refuse ] || { echo no; exit 1; }; touch asked; exit 36 ;;
print-disabled) [ ! -e off ] || printf '\t\t"orders" => disabled\n' ;;
enable) rm -f off ;;
disable) touch off ;;
bootstrap) [ ! -e off ] && [ ! -e loaded ] && touch loaded ;;
esac
"#;
        let path = dir.join("launchctl");
        std::fs::write(&path, fake).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, executable).unwrap();
        let has = |file: &str| dir.join(file).exists();
        let make = |file: &str| std::fs::write(dir.join(file), "").unwrap();
        let order = |order| {
            let definition = service("orders");
            let calls = Launchd.control(&definition, order, State::Running, &examples::site());
            calls.unwrap().iter().all(|call| {
                let mut command = Command::new(&call.argv[0]);
                let path = format!("{}:/usr/bin:/bin", dir.display());
                let output = command.args(&call.argv[1..]).env("PATH", path).output();
                output.unwrap().status.success()
            })
        };
        assert!(order(Order::Start) && has("loaded"));
        assert!(order(Order::Restart) && has("loaded"));
        assert!(order(Order::Stop) && !has("loaded"));
        assert!(order(Order::Stop), "nothing is loaded");
        make("off");
        assert!(order(Order::Start) && has("loaded") && has("off"));
        make("refuse");
        assert!(!order(Order::Stop) && has("loaded"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// Apple's DTD, the only definition of the elements and their nesting.
    #[cfg(target_os = "linux")]
    const DTD: &str = "<!ENTITY % plistObject \"(array | data | date | dict | real | integer | string | true | false)\">
<!ELEMENT plist %plistObject;> <!ATTLIST plist version CDATA \"1.0\">
<!ELEMENT array (%plistObject;)*> <!ELEMENT dict (key, %plistObject;)*> <!ELEMENT key (#PCDATA)>
<!ELEMENT string (#PCDATA)> <!ELEMENT data (#PCDATA)> <!ELEMENT date (#PCDATA)> <!ELEMENT true EMPTY>
<!ELEMENT false EMPTY> <!ELEMENT real (#PCDATA)> <!ELEMENT integer (#PCDATA)>";

    /// Other parsers of property lists read arbitrary arguments and values unchanged.
    #[cfg(target_os = "linux")]
    #[test]
    fn hostile_values_arrive_as_they_are() {
        use crate::Readiness;
        use proptest::prelude::*;
        use proptest::strategy::ValueTree as _;
        use proptest::test_runner::TestRunner;
        use std::io::Write as _;
        use std::process::{Command, Stdio};

        let python = "
import plistlib, sys
for path in sys.argv[1:]:
    it = plistlib.load(open(path, 'rb'), fmt=plistlib.FMT_XML)
    words = it['ProgramArguments'] + [it['EnvironmentVariables']['VALUE'], it['WorkingDirectory']]
    sys.stdout.buffer.write(''.join(word + chr(0) for word in words).encode() + b'END')
";
        let has = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
        for tool in ["python3", "xmllint"] {
            if !has(tool) {
                return mainstay_testkit::skip(format!("{tool} is not installed"));
            }
        }
        let dir = std::env::temp_dir().join(format!("mainstay-plists-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let dtd = dir.join("plist.dtd");
        std::fs::write(&dtd, DTD).unwrap();
        let odd =
            "[ \\t\\n\\r\"'\\\\%$;#=,:!@|<>&{}()\\[\\]*?~`a-cn0-9é€😀\\u{85}\\u{2028}\\x7f-]{0,12}";
        let cases = (prop::collection::vec(odd, 0..6), odd, odd);
        let mut runner = TestRunner::deterministic();
        let mut drawn: Vec<(Vec<String>, String, String)> = (0..100)
            .map(|_| cases.new_tree(&mut runner).unwrap().current())
            .collect();
        let edges = [
            "",
            "-x",
            "]]>",
            "<!--",
            "-->",
            "&amp;",
            "&#10;",
            " a ",
            "\r\n",
            "<key>Disabled</key>",
        ];
        drawn.push((
            edges.map(str::to_owned).into(),
            "&lt;".to_owned(),
            String::new(),
        ));
        let mut files = Vec::new();
        let mut expected = String::new();
        for (number, (words, value, place)) in drawn.iter().enumerate() {
            let place = format!("/srv/{place}");
            let definition = service("orders")
                .account(Account::LocalSystem)
                .readiness(Readiness::Exec)
                .description(value)
                .executable("/opt/dump")
                .arguments(words)
                .env("VALUE", value)
                .working_dir(&place);
            let (text, _) = text_of(&definition, &examples::site());
            assert!(!text.contains(DISABLED), "{text}");
            let path = dir.join(format!("{number}.plist"));
            std::fs::write(&path, text).unwrap();
            files.push(path);
            let words = words.iter().map(String::as_str);
            for word in ["/opt/dump"]
                .into_iter()
                .chain(words)
                .chain([value, &*place])
            {
                expected += &format!("{word}\0");
            }
            expected += "END";
        }
        let mut child = Command::new("python3")
            .arg("-")
            .args(&files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(python.as_bytes())
            .unwrap();
        let said = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), expected);
        let mut lint = Command::new("xmllint");
        let lint = lint
            .args(["--nonet", "--noout", "--dtdvalid"])
            .arg(&dtd)
            .args(&files);
        let lint = lint.output().unwrap();
        assert!(
            lint.status.success(),
            "{}",
            String::from_utf8_lossy(&lint.stderr)
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
