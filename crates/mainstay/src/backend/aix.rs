//! AIX's System Resource Controller (SRC), which keeps its subsystems in its own database.
//!
//! A service is a single script with three roles. init runs it at boot (`start`), it defines the
//! subsystem (`register`), and the subsystem's process runs it to become the program (`run`). The
//! subsystem therefore has a single argument, which needs no quoting.
//!
//! Sources: IBM's AIX commands reference for mkssys, chssys, rmssys, startsrc, stopsrc, lssrc and
//! ulimit; "System Resource Controller".

use std::fmt::Write as _;

use super::checked::{Checked, whole_seconds};
use super::{
    Answer, Backend, Call, Entry, Facts, MARK, Order, Question, Sign, Site, Switch, Traces, Unit,
    Unsupported, sh,
};
use crate::{Definition, Error, Manager, ServiceStatus, State};

const DIR: &str = "/etc/rc.d/init.d";
/// The maximum length of a name, less than 30 bytes: mkssys, "-s".
const LONGEST_NAME: usize = 29;
/// The signal numbers of AIX (sys/signal.h).
const SIGNALS: [(&str, u8); 7] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("TERM", 15),
    ("WINCH", 28),
    ("USR1", 30),
    ("USR2", 31),
];
/// Updates the SRC's database. `$1` is the script, `$2` the service.
const REGISTER: &str = r#"if [ -x "$1" ]; then
	"$1" register
else
	/usr/bin/rmssys -s "$2" >/dev/null 2>&1 || :
fi
"#;

/// The backend for AIX.
pub(crate) struct Aix;

const FACTS: Facts = Facts {
    dir: DIR,
    traces: Traces::All(&["/usr/bin/mkssys", "/etc/rc.d/init.d"]),
    signs: &[Sign::Path("/usr/sbin/srcmstr")],
    ..Facts::of(Manager::Aix)
};

impl Backend for Aix {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error> {
        let name = &*definition.name;
        let mut it = Checked::new(definition, site, sh::can_say);
        if name.len() > LONGEST_NAME {
            it.draft.wrong(format!(
                "the SRC supports names of no more than {LONGEST_NAME} bytes"
            ));
        }
        let register = register(&mut it);
        let run = run(&mut it);
        if !definition.needs.is_empty() {
            it.lose("start order: services that it needs are not started first");
        }
        it.lose_cpus();
        it.draft.lose_readiness();
        it.lose_listen();
        it.draft.lose_tree();
        let reload = it.reload_of_pid().map_or_else(String::new, |command| {
        format!(
            "reload)\n\tpid=$(lssrc -s {name} | awk '$NF == \"active\" {{ print $(NF - 1) }}')\n\
             \t[ -n \"$pid\" ] || {{ echo \"{name} does not run\" >&2; exit 1; }}\n\t{command}\n\t;;\n"
        )
    });
        let usage = if reload.is_empty() {
            "start|stop|status"
        } else {
            "start|stop|status|reload"
        };
        let text = format!(
            r#"#!/bin/sh
# {MARK}

if [ "$1" = run ]; then
{run}fi

PATH=/usr/bin:/usr/sbin:$PATH
is_down() {{
	lssrc -s {name} 2>/dev/null | grep inoperative >/dev/null || ! lssrc -s {name} >/dev/null 2>&1
}}
register() {{
{register}}}

case $1 in
register)
	register
	;;
start)
	# In an image, there was no SRC yet.
	lssrc -s {name} >/dev/null 2>&1 || register || exit 1
	startsrc -s {name} || exit 1{ready}
	;;
stop)
	is_down && exit 0
	stopsrc -s {name} || exit 1
	left={graceful}
	until is_down; do
		[ $left -ne 0 ] || stopsrc -f -s {name}
		[ $left -gt -10 ] || {{ echo "{name} does not end" >&2; exit 1; }}
		left=$((left - 1))
		sleep 1
	done
	;;
status)
	lssrc -s {name}
	;;
{reload}*)
	echo "usage: $0 {usage}" >&2
	exit 2
	;;
esac
"#,
            ready = it.ready_line(),
            graceful = whole_seconds(definition.graceful),
        );
        it.finish(vec![Entry::script(format!("{DIR}/{name}"), text)])
    }

    /// The links that /etc/rc.d/rc runs in run level 2, the run level of AIX.
    fn switch(&self, name: &str, site: &Site) -> Switch {
        let link = |kind| {
            let path = format!("/etc/rc.d/rc2.d/{kind}{name}");
            Entry::link(path, self.unit_path(name, site))
        };
        Switch {
            on: vec![link("S99"), link("K01")],
            ..Switch::default()
        }
    }

    fn take_notice(&self, changed: &[&str], _site: &Site) -> Vec<Call> {
        let script = |name: &&str| {
            let path = format!("{DIR}/{name}");
            Call::new(["/bin/sh", "-c", REGISTER, "sh", &path, name])
        };
        changed.iter().map(script).collect()
    }

    fn let_go(&self, name: &str, _site: &Site) -> Vec<Call> {
        vec![Call::new(["/usr/bin/rmssys", "-s", name]).may_fail()]
    }

    fn control(
        &self,
        definition: &Definition,
        order: Order,
        _state: State,
        _site: &Site,
    ) -> Result<Vec<Call>, Unsupported> {
        let path = format!("{DIR}/{}", definition.name);
        let call = |verb| Call::new([&*path, verb]);
        Ok(match order {
            Order::Start => vec![call("start")],
            Order::Stop => vec![call("stop")],
            Order::Restart => vec![call("stop"), call("start")],
            Order::Reload => vec![call("reload")],
            Order::Pause | Order::Resume => {
                return Err(Unsupported("the SRC does not support pausing"));
            }
        })
    }

    fn questions(&self, name: &str, _site: &Site) -> Vec<Question> {
        vec![Question::run(["/usr/bin/lssrc", "-s", name])]
    }

    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus> {
        let answer = answers.first().filter(|answer| answer.code == Some(0))?;
        status(&answer.text())
    }

    fn journal(&self, name: &str, _site: &Site) -> String {
        format!("errpt -a; tail {}", log_path(name))
    }
}

fn log_path(name: &str) -> String {
    format!("/var/log/{name}.log")
}

/// Returns the script part that creates or updates the subsystem.
fn register(it: &mut Checked<'_>) -> String {
    let Definition {
        name,
        nice,
        graceful,
        stop_signal,
        recovery,
        ..
    } = it.definition;
    let signal = SIGNALS.iter().find(|(name, _)| name == stop_signal);
    let signal = signal.map_or(15, |(_, number)| *number);
    let restart = match (recovery.restart_after.is_empty(), recovery.crashes_only) {
        (true, _) => "-O",
        (false, true) => {
            // The SRC does not distinguish how a process ended.
            it.lose("restart after a crash: it stays down");
            "-O"
        }
        (false, false) => {
            it.lose("restart delay: the SRC restarts it at once");
            it.lose(
                "unlimited restarts: the SRC gives up after more than two exits within `graceful`",
            );
            it.lose("exit codes: the SRC determines which ones are failures");
            "-R"
        }
    };
    let (user, known) = match it.user {
        None => ("0".to_owned(), String::new()),
        Some(user) => (
            "$user".to_owned(),
            format!("\tuser=$(id -u {user}) || return 1\n"),
        ),
    };
    // AIX counts from 0 to 39, with 20 as the default.
    let nice = i16::from(nice.unwrap_or(0)).clamp(-20, 19) + 20;
    let log = log_path(name);
    format!(
        "{known}\tset -- -s {name} -p {DIR}/{name} -a run -u {user} -S -n {signal} -f 9 {restart} -Q -d -E {nice} -w {wait} -i /dev/null -o {log} -e {log}\n\
         \tif lssrc -S -s {name} >/dev/null 2>&1; then\n\t\tchssys \"$@\"\n\telse\n\t\tmkssys \"$@\"\n\tfi\n",
        wait = whole_seconds(*graceful),
    )
}

/// Returns the script part with which the subsystem's process becomes the program.
fn run(it: &mut Checked<'_>) -> String {
    let mut text = String::new();
    if let Some(path) = it.env_file {
        text += &sh::read_env_file(path, &it.env);
    }
    text += &sh::exports(&it.env);
    // In units of 512 bytes: ulimit.
    text += &it.ulimits(None, 78);
    if let Some(dir) = it.working_dir {
        let _infallible = writeln!(text, "cd {} || exit 78", sh::quoted(dir));
    }
    text + "exec " + &sh::command_line(it.argv.iter().copied()) + "\n"
}

/// Parses the output of `lssrc -s`: a header, and a line of name, group, PID and status, of which
/// group and PID may be missing. There are two lines if a process of an earlier definition is still
/// running.
fn status(said: &str) -> Option<ServiceStatus> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |word: &&str| word.parse::<u32>().ok();
        let (state, pid) = match words[..] {
            [_, .., ref pid, "active"] => (State::Running, Some(number(pid)?)),
            [_, .., "stopping"] | [_, .., "warned", "to", "stop"] => (State::StopPending, None),
            [_, .., "starting"] => (State::StartPending, None),
            [_, .., "inoperative"] => (State::Stopped, None),
            _ => return None,
        };
        Some(ServiceStatus::new(state, pid))
    };
    let all: Vec<ServiceStatus> = said.lines().skip(1).filter_map(line).collect();
    let running = all.iter().find(|status| status.state != State::Stopped);
    running.or(all.first()).cloned()
}

#[cfg(test)]
mod tests {
    use super::super::Content;
    use super::super::checked::examples;
    use super::*;
    use crate::{Account, service};

    fn text_of(definition: &Definition) -> (String, Vec<String>) {
        let unit = Aix.unit(definition, &examples::site()).unwrap();
        match unit.entries.into_iter().next().unwrap().content {
            Content::File { text, .. } => (text, unit.losses),
            Content::Link(_) => unreachable!("a script is a file"),
        }
    }

    #[test]
    fn a_library_program_is_a_subsystem() {
        let (text, losses) = text_of(&examples::library());
        assert!(super::super::is_ours(&text), "{text}");
        for part in [
            "if [ \"$1\" = run ]; then\nexec /opt/orders/orders run\nfi\n",
            "\tuser=$(id -u joe) || return 1\n\tset -- -s orders -p /etc/rc.d/init.d/orders -a run -u $user -S -n 15 -f 9 -R -Q -d -E 20 -w 2 -i /dev/null -o /var/log/orders.log -e /var/log/orders.log\n",
            "\tleft=2\n",
            "\tkill -HUP \"$pid\"\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(
            losses,
            [
                "restart delay: the SRC restarts it at once",
                "unlimited restarts: the SRC gives up after more than two exits within `graceful`",
                "exit codes: the SRC determines which ones are failures",
                "start order: services that it needs are not started first",
                "readiness: it counts as ready as soon as its program runs",
            ]
        );
    }

    #[test]
    fn a_supervisor_is_left_where_it_ended() {
        let (text, losses) = text_of(&examples::hosted());
        assert!(text.contains(" -u 0 -S -n 15 -f 9 -O "), "{text}");
        assert!(
            text.contains("exit 1\n\t/usr/local/bin/mainstay await orders\n\t;;\n"),
            "{text}"
        );
        assert_eq!(losses, ["restart after a crash: it stays down"]);
    }

    #[test]
    fn everything_a_program_may_have_is_said_or_lost() {
        let (text, losses) = text_of(&examples::direct());
        for part in [
            "export A='1 \"$2\"'\nulimit -n 1024 || exit 78\ncd '/srv/a b' || exit 78\nexec /usr/bin/orders -c 'it'\\''s $HOME'\n",
            " -n 2 -f 9 -R -Q -d -E 15 -w 30 ",
            "\t/usr/bin/orders 'reload it'\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(
            losses,
            [
                "reading `env_file` as root: the user of the service must be able to read it",
                "`watchdog`: a service that hangs is not restarted",
                "restart delay: the SRC restarts it at once",
                "unlimited restarts: the SRC gives up after more than two exits within `graceful`",
                "exit codes: the SRC determines which ones are failures",
                "CPU affinity",
                "`listen`: no sockets are opened for it",
                "stop of the process tree: only the main process receives the stop signal",
            ]
        );
        let long = service("a".repeat(30)).account(Account::LocalSystem);
        let error = Aix.unit(&long, &examples::site()).unwrap_err().to_string();
        assert!(error.contains("no more than 29 bytes"), "{error}");
    }

    #[test]
    fn what_lssrc_says_is_a_state() {
        let says = |lines: &str| {
            let said = format!("Subsystem         Group            PID          Status \n{lines}");
            status(&said).map(|status| (status.state, status.pid))
        };
        let running = Some((State::Running, Some(4711)));
        let down = " orders                                         inoperative\n";
        assert_eq!(
            says(" orders                            4711         active\n"),
            running
        );
        assert_eq!(
            says(" orders           tcpip            4711         active\n"),
            running
        );
        assert_eq!(says(down), Some((State::Stopped, None)));
        assert_eq!(says(&format!("{down} orders   4711   active\n")), running);
        assert_eq!(
            says(" orders  4711  stopping\n"),
            Some((State::StopPending, None))
        );
        assert_eq!(
            says(" orders  4711  warned to stop\n"),
            Some((State::StopPending, None))
        );
        for odd in [
            "",
            " orders active\n",
            " orders 4711 awake\n",
            " 4711 active\n",
        ] {
            let state = says(odd);
            assert!(
                state.is_none() || odd == " 4711 active\n",
                "{odd}: {state:?}"
            );
        }
        let gone = Answer {
            code: Some(1),
            output: Vec::new(),
        };
        assert!(Aix.status(&[gone]).is_none());
    }

    /// Arbitrary arguments and values reach the program unchanged.
    #[cfg(target_os = "linux")]
    #[test]
    fn hostile_values_arrive_as_they_are() {
        use proptest::prelude::*;
        use proptest::strategy::ValueTree as _;
        use proptest::test_runner::TestRunner;
        use std::process::Command;

        // The /bin/sh of AIX is ksh88.
        let has_ksh = Command::new("ksh93").arg("--version").output().is_ok();
        let shell = if has_ksh { "ksh93" } else { "/bin/sh" };
        let root = std::env::temp_dir().join(format!("mainstay-aix-{}", std::process::id()));
        std::fs::create_dir(&root).unwrap();
        let dump = root.join("dump it's");
        let says = "#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done\nprintf '%s\\0' \"$VALUE\" \"$PWD\"\n";
        std::fs::write(&dump, says).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&dump, mode).unwrap();
        let odd = "[ \\t\\n\\r\"'\\\\%$;#=,:!@|<>&{}()\\[\\]*?~`a-cn0-9é€😀\\x01\\x1b\\x7f-]{0,12}";
        let cases = (prop::collection::vec(odd, 0..6), odd, odd);
        let mut runner = TestRunner::deterministic();
        for number in 0..60 {
            let (words, value, place): (Vec<String>, String, String) =
                cases.new_tree(&mut runner).unwrap().current();
            let place = root.join(format!("{number}{place}x"));
            std::fs::create_dir(&place).unwrap();
            let definition = service("orders")
                .account(Account::LocalSystem)
                .executable(&dump)
                .arguments(&words)
                .env("VALUE", &value)
                .working_dir(&place)
                .ready_check(&words)
                .reload_command(&words);
            let script = root.join("script");
            std::fs::write(&script, text_of(&definition).0).unwrap();
            let parsed = Command::new(shell).arg("-n").arg(&script).output().unwrap();
            assert!(parsed.status.success(), "{number}");
            let said = Command::new(shell)
                .arg(&script)
                .arg("run")
                .output()
                .unwrap();
            let place = place.to_str().unwrap().to_owned();
            let expected = words.iter().chain([&value, &place]);
            let expected: String = expected.map(|word| format!("{word}\0")).collect();
            assert_eq!(String::from_utf8_lossy(&said.stdout), expected, "{number}");
        }
        std::fs::remove_dir_all(&root).unwrap();
    }

    /// Tests the script against stand-ins for the SRC's commands, which keep their state in files.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_script_defines_starts_and_stops_its_subsystem() {
        use std::process::Command;

        const SRC: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "${0##*/} $*" >> calls
case ${0##*/} in
mkssys) [ ! -e known ] && echo "$*" > known ;;
chssys) [ -e known ] && echo "$*" > known ;;
startsrc) [ -e known ] && [ ! -e active ] && touch active ;;
stopsrc) [ -e active ] || exit 1; case $1 in -f) rm active ;; *) [ -e deaf ] || rm active ;; esac ;;
lssrc)
	[ -e known ] || exit 1
	echo "Subsystem         Group            PID          Status "
	if [ -e active ]; then echo " orders  4711  active"; else echo " orders  inoperative"; fi ;;
esac
"#;
        let root = std::env::temp_dir().join(format!("mainstay-src-{}", std::process::id()));
        std::fs::create_dir(&root).unwrap();
        let put = |file: &str, text: &str| {
            let path = root.join(file);
            std::fs::write(&path, text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).unwrap();
        };
        for tool in ["mkssys", "chssys", "startsrc", "stopsrc", "lssrc"] {
            put(tool, SRC);
        }
        let definition = service("orders")
            .account(Account::LocalSystem)
            .executable("/opt/orders")
            .graceful(std::time::Duration::from_secs(1))
            .ready_check(["test", "-e", root.join("active").to_str().unwrap()]);
        put("orders", &text_of(&definition).0);
        let call = |verb: &str| {
            let path = format!("{}:/usr/bin:/bin", root.display());
            let mut command = Command::new(root.join("orders"));
            command
                .arg(verb)
                .env("PATH", path)
                .output()
                .unwrap()
                .status
                .code()
        };
        let has = |file: &str| root.join(file).exists();
        assert_eq!(call("stop"), Some(0), "there is none");
        assert_eq!(call("start"), Some(0), "it is defined first");
        assert!(has("active"));
        assert_eq!(call("start"), Some(1), "it runs");
        assert_eq!(call("register"), Some(0));
        let known = std::fs::read_to_string(root.join("known")).unwrap();
        assert!(
            known.starts_with("-s orders -p /etc/rc.d/init.d/orders -a run -u 0 "),
            "{known}"
        );
        assert_eq!(call("stop"), Some(0));
        assert!(!has("active"));
        put("deaf", "");
        assert_eq!(call("start"), Some(0));
        assert_eq!(call("stop"), Some(0), "it is killed");
        assert!(!has("active"));
        let calls = std::fs::read_to_string(root.join("calls")).unwrap();
        assert!(calls.contains("stopsrc -f -s orders\n"), "{calls}");
        assert_eq!(call("reload"), Some(2), "it does not accept reloads");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
