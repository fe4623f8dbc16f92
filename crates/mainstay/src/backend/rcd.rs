//! FreeBSD's rc.d: a script under which daemon(8) supervises the program.
//!
//! rc.subr(8) builds commands as text, which a shell parses up to three times. The script therefore
//! defines its own functions, and daemon(8) runs the script again as the service's user to become
//! the program. Each word is quoted once, and none is on a command line twice. daemon(8) locks its
//! pid files as long as it lives, so a PID in them is that of its child and of no other process.
//!
//! Sources: rc(8), rc.subr(8), rcorder(8), rc.conf(5), daemon(8), pidfile(3), pgrep(1).

use std::fmt::Write as _;
use std::path::PathBuf;

use super::checked::{Checked, whole_seconds};
use super::draft::{is_made_of, joined};
use super::{
    Answer, Backend, Call, Entry, Facts, MARK, Order, Question, Sign, Site, Switch, Traces, Unit,
    Unsupported, sh,
};
use crate::{Definition, Error, Manager, ServiceStatus, State};

const DIR: &str = "/usr/local/etc/rc.d";
const RUNNING: &str = " is running as pid ";
const AGAIN: &str = " is not running: daemon(8) starts it again";
const DOWN: &str = " is not running.";

/// The functions of a script. `@name` is the service's name in shell variables, `@service` its real
/// name.
const FUNCTIONS: &str = r#"
# With -a: even if the service itself asks.
@name_daemon() {
	pgrep -a -L -F /var/run/@service.daemon.pid 2>/dev/null
}

@name_pid() {
	keeper=$(@name_daemon) && child=$(pgrep -a -P "$keeper" -F /var/run/@service.child.pid 2>/dev/null) || return 1
	# daemon(8) may not have noticed its end, while something else holds its output.
	case $(ps -o state= -p "$child") in '' | Z*) return 1 ;; esac
	echo "$child"
}

@name_keep() {
	/usr/sbin/daemon -f -S -T @service -t @service -P /var/run/@service.daemon.pid -p /var/run/@service.child.pid @options-- /bin/sh @script --exec
}

@name_start() {
	if @name_daemon >/dev/null; then
		echo "$name runs already" >&2
		return 1
	fi
	if [ ! -x @program ]; then
		echo "$name: cannot run "@program >&2
		return 1
	fi
	echo "Starting $name."
	# A killed daemon(8) leaves its pid files, whose locks any account can hold then: new files have new locks.
	@name_keep || { ! @name_daemon >/dev/null && rm -f /var/run/@service.daemon.pid /var/run/@service.child.pid && @name_keep; } || return 1
	chmod 644 /var/run/@service.daemon.pid /var/run/@service.child.pid@ready
}

@name_stop() {
	keeper=$(@name_daemon) || { echo "$name is not running."; return 0; }
	echo "Stopping $name."
	# Its child first: as long as daemon(8) runs, what the child says is logged.
	if pid=$(@name_pid) && kill -@signal "$pid"; then
		left=@tenths
		while [ "$(@name_pid)" = "$pid" ]; do
			[ $((left -= 1)) -ge 0 ] || kill -KILL "$pid"
			[ $left -gt -100 ] || { echo "$name: process $pid does not end" >&2; return 1; }
			sleep 0.1
		done
	fi
	# Within the pause before it would start another one.
	left=100
	while kill -TERM "$keeper" 2>/dev/null && [ "$(@name_daemon)" = "$keeper" ]; do
		[ $((left -= 1)) -ge 0 ] || { kill -KILL "$keeper"; break; }
		sleep 0.1
	done
	return 0
}

@name_status() {
	if pid=$(@name_pid); then
		echo "$name is running as pid $pid."
	elif @name_daemon >/dev/null; then
		echo "$name is not running: daemon(8) starts it again."
		return 1
	else
		echo "$name is not running."
		return 1
	fi
}
"#;

/// The backend for FreeBSD.
pub(crate) struct Rcd;

const FACTS: Facts = Facts {
    dir: DIR,
    traces: Traces::All(&["/etc/rc.subr", "/etc/defaults/rc.conf"]),
    // Only FreeBSD has this file.
    signs: &[Sign::Path("/usr/sbin/daemon")],
    ..Facts::of(Manager::Rcd)
};

impl Backend for Rcd {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error> {
        let name = &*definition.name;
        let mut it = Checked::new(definition, site, sh::can_say);
        let needs = definition.needs.iter().chain(&definition.wants);
        for need in needs.clone() {
            it.draft.check_service(need, is_made_of(need, b"_.+-"));
        }
        if !definition.needs.is_empty() {
            it.lose("required services: it is only started after them");
        }
        let options = options(&mut it);
        it.lose_nice();
        if let Some(title) = it.draft.title() {
            it.text("the description", title.as_ref());
        }
        it.draft.lose_readiness();
        it.lose_listen();
        it.draft.lose_tree();
        let mut requires = vec!["DAEMON", "NETWORKING"];
        requires.extend(needs.map(String::as_str));
        let requires = requires.join(" ");
        let shell_name = mangled(name);
        let mut text = format!(
            "#!/bin/sh\n# {MARK}\n#\n# PROVIDE: {name}\n# REQUIRE: {requires}\n# KEYWORD: shutdown\n\n\
         # What daemon(8) runs.\nif [ \"$1\" = --exec ]; then\n{}fi\n\n\
         . /etc/rc.subr\n\nname={shell_name}\ndesc={}\nrcvar={shell_name}_enable\n\
         start_cmd={shell_name}_start\nstop_cmd={shell_name}_stop\nstatus_cmd={shell_name}_status\n",
            run(&mut it),
            sh::quoted(it.draft.title().unwrap_or(name)),
        );
        let words = [
            ("name", &*shell_name),
            ("service", name),
            ("program", &sh::quoted(it.argv.first().unwrap_or(&""))),
            ("options", &options),
            ("script", &format!("{DIR}/{name}")),
            ("ready", &it.ready_line()),
            ("signal", &definition.stop_signal),
            (
                "tenths",
                &(whole_seconds(definition.graceful) * 10).to_string(),
            ),
        ];
        if let Some(command) = it.reload_of_pid() {
            let _infallible = write!(
                text,
                "extra_commands=reload\nreload_cmd={shell_name}_reload\n\n{shell_name}_reload() {{\n\
             \tpid=$({shell_name}_pid) || {{ echo \"$name is not running.\"; return 1; }}\n\t{command}\n}}\n"
            );
        }
        text += &filled(FUNCTIONS, &words);
        let _infallible = write!(
            text,
            "\nload_rc_config \"$name\"\n: \"${{{shell_name}_enable:=NO}}\"\n\
         # What runs is stopped with the system, whoever started it.\n\
         case $1 in *stop) {shell_name}_daemon >/dev/null && {shell_name}_enable=YES ;; esac\n\
         run_rc_command \"$1\"\n"
        );
        it.finish(vec![Entry::script(format!("{DIR}/{name}"), text)])
    }

    /// daemon(8) removes these files unless it is killed.
    fn leavings(&self, name: &str, _site: &Site) -> Vec<PathBuf> {
        ["daemon", "child"]
            .map(|whose| format!("/var/run/{name}.{whose}.pid").into())
            .into()
    }

    /// This file is read after /etc/rc.conf and overrides it.
    fn switch(&self, name: &str, _site: &Site) -> Switch {
        let name = mangled(name);
        let file = |value| {
            let text = format!("# {MARK}\n{name}_enable=\"{value}\"\n");
            Entry::file(format!("/etc/rc.conf.d/{name}"), text)
        };
        Switch {
            on: vec![file("YES")],
            off: vec![file("NO")],
            ..Switch::default()
        }
    }

    fn control(
        &self,
        definition: &Definition,
        order: Order,
        _state: State,
        _site: &Site,
    ) -> Result<Vec<Call>, Unsupported> {
        match order {
            Order::Pause | Order::Resume => Err(Unsupported("rc.d does not support pausing")),
            // The `one` prefix works whether the service is enabled or not.
            _ => Ok(vec![service(&definition.name, order.as_str())]),
        }
    }

    fn questions(&self, name: &str, _site: &Site) -> Vec<Question> {
        vec![Question::run(service(name, "status").argv)]
    }

    /// `service` also fails, without standard output, if there is no such script.
    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus> {
        let answer = answers.first()?;
        let said = answer.text();
        let pid = said.split_once(RUNNING).and_then(|(_, rest)| {
            let digits = rest.split(|char: char| !char.is_ascii_digit()).next();
            digits?.parse().ok()
        });
        let status = |state, pid| Some(ServiceStatus::new(state, pid));
        match (answer.code?, pid) {
            (0, Some(pid)) => status(State::Running, Some(pid)),
            (1, None) if said.contains(AGAIN) => status(State::StartPending, None),
            (1, None) if said.contains(DOWN) => status(State::Stopped, None),
            _ => None,
        }
    }

    fn journal(&self, name: &str, _site: &Site) -> String {
        format!("grep {name} /var/log/messages")
    }
}

fn service(name: &str, verb: &str) -> Call {
    Call::new(["/usr/sbin/service", name, &format!("one{verb}")])
}

/// Returns a name that can be a prefix of shell variables.
fn mangled(name: &str) -> String {
    let name = name.replace(['-', '.', '@'], "_");
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        format!("_{name}")
    } else {
        name
    }
}

/// Fills in a template in a single pass: inserted values are not expanded again.
fn filled(template: &str, words: &[(&str, &str)]) -> String {
    let mut parts = template.split('@');
    let mut text = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let found = words.iter().find(|(word, _)| part.starts_with(word));
        let (word, value) = found.unwrap_or(&("", "@"));
        text += value;
        text += &part[word.len()..];
    }
    text
}

/// Returns the options of daemon(8), each with a space after it.
fn options(it: &mut Checked<'_>) -> String {
    let mut options = String::new();
    if let Some(user) = it.user {
        let _infallible = write!(options, "-u {user} ");
    }
    if it.definition.recovery.crashes_only {
        // daemon(8) does not distinguish exit codes and would also restart after a final exit.
        it.lose("restart after a crash: it stays down");
    } else if let Some(pause) = it.pause() {
        let _infallible = write!(options, "-r -R {} ", whole_seconds(pause));
        it.lose("no restart after a clean exit: daemon(8) restarts it after every exit");
    }
    options
}

/// Returns the script part with which the shell that daemon(8) runs becomes the program. At this
/// point, it is the user, with that user's login class.
fn run(it: &mut Checked<'_>) -> String {
    let Definition { nice, cpus, .. } = it.definition;
    let mut text = String::new();
    // Set before the service's environment, which may change PATH.
    if let Some(nice) = nice {
        let _infallible = writeln!(text, "renice -n {nice} -p $$ >/dev/null");
    }
    if !cpus.is_empty() {
        let cpus = joined(cpus, ",");
        let _infallible = writeln!(text, "cpuset -l {cpus} -p $$ || exit 78");
    }
    if let Some(path) = it.env_file {
        text += &sh::read_env_file(path, &it.env);
    }
    text += &sh::exports(&it.env);
    // In units of 512 bytes and of kilobytes: sh(1).
    text += &it.ulimits(Some(1024), 78);
    if let Some(dir) = it.working_dir {
        let _infallible = writeln!(text, "cd -- {} || exit 78", sh::quoted(dir));
    }
    text + "exec " + &sh::command_line(it.argv.iter().copied()) + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::Content;
    use super::super::checked::examples;
    use super::*;
    use crate::service;

    fn text_of(definition: &Definition) -> (String, Vec<String>) {
        let unit = Rcd.unit(definition, &examples::site()).unwrap();
        match unit.entries.into_iter().next().unwrap().content {
            Content::File { text, .. } => (text, unit.losses),
            Content::Link(_) => unreachable!("a script is a file"),
        }
    }

    #[test]
    fn a_library_program_is_kept_by_daemon() {
        let (text, losses) = text_of(&examples::library());
        assert!(super::super::is_ours(&text), "{text}");
        let head = "\
# PROVIDE: orders
# REQUIRE: DAEMON NETWORKING postgresql
# KEYWORD: shutdown

# What daemon(8) runs.
if [ \"$1\" = --exec ]; then
exec /opt/orders/orders run
fi

. /etc/rc.subr

name=orders
desc='Orders, 100 % <b>'
rcvar=orders_enable
start_cmd=orders_start
stop_cmd=orders_stop
status_cmd=orders_status
extra_commands=reload
reload_cmd=orders_reload

orders_reload() {
\tpid=$(orders_pid) || { echo \"$name is not running.\"; return 1; }
\tkill -HUP \"$pid\"
}
";
        let daemon = "\t/usr/sbin/daemon -f -S -T orders -t orders -P /var/run/orders.daemon.pid -p /var/run/orders.child.pid -u joe -r -R 1 -- /bin/sh /usr/local/etc/rc.d/orders --exec\n";
        let end = "
load_rc_config \"$name\"
: \"${orders_enable:=NO}\"
# What runs is stopped with the system, whoever started it.
case $1 in *stop) orders_daemon >/dev/null && orders_enable=YES ;; esac
run_rc_command \"$1\"
";
        assert!(text.contains(head), "{text}");
        assert!(text.contains(daemon), "{text}");
        assert!(text.ends_with(end) && !text.contains('@'), "{text}");
        assert!(
            text.contains("kill -TERM \"$pid\"; then\n\t\tleft=20\n"),
            "{text}"
        );
        let expected = [
            "required services: it is only started after them",
            "growing restart delays: each is 1s",
            "exit codes after which it stays down",
            "no restart after a clean exit: daemon(8) restarts it after every exit",
            "readiness: it counts as ready as soon as its program runs",
        ];
        assert_eq!(losses, expected);
    }

    #[test]
    fn a_supervisor_is_waited_for_and_left_where_it_ended() {
        let (text, losses) = text_of(&examples::hosted());
        assert!(text.contains("orders.child.pid -- /bin/sh"), "{text}");
        assert!(
            text.contains("\n\t/usr/local/bin/mainstay await orders\n}\n"),
            "{text}"
        );
        assert_eq!(losses, ["restart after a crash: it stays down"]);
    }

    #[test]
    fn everything_a_program_may_have_is_said_or_lost() {
        let (text, losses) = text_of(&examples::direct());
        let exec = "\
export A='1 \"$2\"'
ulimit -n 1024 || exit 78
cd -- '/srv/a b' || exit 78
exec /usr/bin/orders -c 'it'\\''s $HOME'
fi
";
        for part in [
            exec,
            "--exec ]; then\nrenice -n -5 -p $$ >/dev/null\ncpuset -l 0,2 -p $$ || exit 78\n",
            "< '/etc/orders env' || exit 78\n",
            "name=orders_2\n",
            "rcvar=orders_2_enable\n",
            "# PROVIDE: orders-2\n",
            "-u joe -r -R 3 -- ",
            "kill -INT \"$pid\"",
            "\t/usr/bin/orders 'reload it'\n",
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
                "no restart after a clean exit: daemon(8) restarts it after every exit",
                "negative nice value of a program that runs as a user",
                "`listen`: no sockets are opened for it",
                "stop of the process tree: only the main process receives the stop signal",
            ]
        );
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let definition = service("orders")
            .executable("orders")
            .needs("a b\n")
            .arguments(["\0"]);
        let error = Rcd
            .unit(&definition, &examples::site())
            .unwrap_err()
            .to_string();
        for part in [
            "not an absolute path",
            "\"a b\\n\" is not",
            "a NUL",
            "--account user:NAME",
        ] {
            let part = part.replace(
                "a NUL",
                "the command line contains an unsupported control character",
            );
            assert!(error.contains(&part), "{part}: {error}");
        }
    }

    #[test]
    fn names_are_variables_too() {
        assert_eq!(mangled("a-b-c"), "a_b_c");
        assert_eq!(mangled("7up"), "_7up");
        let switch = Rcd.switch("a-b", &examples::site());
        let on = Entry::file(
            "/etc/rc.conf.d/a_b",
            format!("# {MARK}\na_b_enable=\"YES\"\n"),
        );
        assert_eq!(switch.on, [on]);
        assert_eq!(switch.off[0].path, switch.on[0].path);
    }

    #[test]
    fn what_the_script_says_is_a_state() {
        let says = |code, output: &str| {
            let (code, output) = (Some(code), output.into());
            let status = Rcd.status(&[Answer { code, output }])?;
            Some((status.state, status.pid))
        };
        assert_eq!(
            says(0, "orders is running as pid 42.\n"),
            Some((State::Running, Some(42)))
        );
        assert_eq!(
            says(1, "orders is not running.\n"),
            Some((State::Stopped, None))
        );
        let again = "orders is not running: daemon(8) starts it again.\n";
        assert_eq!(says(1, again), Some((State::StartPending, None)));
        for (code, odd) in [
            (0, ""),
            (0, "orders is running as pid .\n"),
            (1, ""),
            (1, "orders is running as pid 42.\n"),
            (0, "orders is not running.\n"),
        ] {
            assert_eq!(says(code, odd), None, "{odd}");
        }
    }

    /// Arbitrary arguments and values reach the program through the shell that daemon(8) runs.
    #[cfg(target_os = "linux")]
    #[test]
    fn hostile_values_arrive_as_they_are() {
        use proptest::prelude::*;
        use proptest::strategy::ValueTree as _;
        use proptest::test_runner::TestRunner;
        use std::process::Command;

        let root = std::env::temp_dir().join(format!("mainstay-rcd-{}", std::process::id()));
        std::fs::create_dir(&root).unwrap();
        let dump = root.join("dump it's");
        let says = "#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done\nprintf '%s\\0' \"$VALUE\" \"$PWD\"\n";
        std::fs::write(&dump, says).unwrap();
        let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&dump, mode(0o755)).unwrap();
        let odd = "[ \\t\\n\\r\"'\\\\%$;#=,:!@|<>&{}()\\[\\]*?~`a-cn0-9é€😀\\x01\\x1b\\x7f-]{0,12}";
        let cases = (prop::collection::vec(odd, 0..6), odd, odd);
        let mut runner = TestRunner::deterministic();
        for number in 0..100 {
            let (words, value, place): (Vec<String>, String, String) =
                cases.new_tree(&mut runner).unwrap().current();
            let place = root.join(format!("{number}{place}x"));
            std::fs::create_dir(&place).unwrap();
            let definition = service("orders")
                .account(crate::Account::LocalSystem)
                .description(&value)
                .executable(&dump)
                .arguments(&words)
                .env("VALUE", &value)
                .working_dir(&place)
                .ready_check(words.iter().cloned().chain([value.clone()]))
                .reload_command(words.iter().cloned().chain([value.clone()]));
            let script = root.join("script");
            std::fs::write(&script, text_of(&definition).0).unwrap();
            let parsed = Command::new("/bin/sh")
                .arg("-n")
                .arg(&script)
                .status()
                .unwrap();
            assert!(parsed.success(), "{}", script.display());
            let said = Command::new("/bin/sh")
                .arg(&script)
                .arg("--exec")
                .output()
                .unwrap();
            let place = place.to_str().unwrap().to_owned();
            let expected: String = words
                .iter()
                .chain([&value, &place])
                .map(|word| format!("{word}\0"))
                .collect();
            assert_eq!(String::from_utf8_lossy(&said.stdout), expected, "{number}");
        }
        std::fs::remove_dir_all(&root).unwrap();
    }

    /// Tests with the real pgrep(1), and with stand-ins for daemon(8) and for the part of
    /// rc.subr(8) that runs functions of a script.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_script_starts_keeps_and_stops_its_program() {
        use std::os::unix::fs::PermissionsExt as _;
        use std::process::Command;
        use std::time::Duration;

        const RC_SUBR: &str = r#"
checkyesno() { eval _value=\$$1; [ "$_value" = YES ]; }
load_rc_config() { [ ! -f "conf/$1" ] || . "./conf/$1"; }
run_rc_command() {
	rc_arg=$1 _prefix=
	case $rc_arg in one*) rc_arg=${rc_arg#one} _prefix=one; eval $rcvar=YES ;; fast*) rc_arg=${rc_arg#fast} ;; esac
	case $rc_arg in
	describe) echo "$desc"; return ;;
	status) ;;
	*) checkyesno $rcvar || { echo "Cannot '$rc_arg'"; return 0; } ;;
	esac
	if [ $rc_arg = restart ]; then
		( run_rc_command ${_prefix}stop )
		( run_rc_command ${_prefix}start )
		return
	fi
	eval _cmd=\$${rc_arg}_cmd
	[ -n "$_cmd" ] || exit 1
	eval "$_cmd " || return 1
}
"#;
        const DAEMON: &str = r#"#!/usr/bin/env python3
import fcntl, getopt, os, signal, sys, time
options, argv = getopt.getopt(sys.argv[1:], "fST:t:P:p:u:rR:")
options = dict(options)
def lock(path):
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file
def write(file, pid):
    os.ftruncate(file, 0)
    os.pwrite(file, str(pid).encode(), 0)
keeper, child = lock(options["-P"]), lock(options["-p"])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if os.fork(): os._exit(0)
os.setsid()
null = os.open("/dev/null", os.O_RDWR)
for number in 0, 1, 2: os.dup2(null, number)
write(keeper, os.getpid())
while True:
    output, says = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(says, 1); os.dup2(says, 2)
        write(child, os.getpid())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        os.execv(argv[0], argv)
    def ended(*_):
        os.kill(pid, signal.SIGTERM)
        done()
    def done(*_):
        os.unlink(options["-P"]); os.unlink(options["-p"]); os._exit(1)
    signal.signal(signal.SIGTERM, ended)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.close(says)
    while os.read(output, 4096): pass
    os.close(output)
    os.waitpid(pid, 0)
    signal.signal(signal.SIGTERM, done)
    if "-r" not in options: done()
    time.sleep(int(options.get("-R", 1)))
"#;
        for tool in ["python3", "pgrep"] {
            if Command::new(tool).arg("--version").output().is_err() {
                return mainstay_testkit::skip(format!("{tool} is not installed"));
            }
        }
        let root = std::env::temp_dir().join(format!("mainstay-rcd-life-{}", std::process::id()));
        std::fs::create_dir_all(root.join("conf")).unwrap();
        let put = |file: &str, text: &str| {
            let path = root.join(file);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let rc_subr = put("rc.subr", RC_SUBR);
        let daemon = put("daemon", DAEMON);
        let program = put(
            "program it's",
            "#!/bin/sh\n[ \"$1\" != leave ] || { sleep 300 & echo $! > left; exit 0; }\n[ -z \"$1\" ] || trap '' TERM\nwhile :; do sleep 0.05; done\n",
        );
        let install = |definition: &Definition| {
            let run = format!("{}/", root.display());
            let text = text_of(definition)
                .0
                // Only FreeBSD's pgrep excludes its ancestors.
                .replace("pgrep -a", "pgrep")
                .replace("/etc/rc.subr", &rc_subr)
                .replace("/usr/sbin/daemon", &daemon)
                .replace("/var/run/", &run)
                .replace(DIR, root.to_str().unwrap());
            put("orders-2", &text)
        };
        let call = |verb: &str| {
            let script = root.join("orders-2");
            let output = Command::new(script).arg(verb).current_dir(&root).output();
            let output = output.unwrap();
            Answer {
                code: output.status.code(),
                output: output.stdout,
            }
        };
        let status = || {
            Rcd.status(&[call("onestatus")])
                .map(|status| (status.state, status.pid))
        };
        let wait_for = |state: State| {
            mainstay_testkit::wait_until("a state", Duration::from_secs(10), || {
                status()
                    .filter(|status| status.0 == state)
                    .map(|status| status.1)
            })
        };
        let signal = |signal: &str, pid: u32| {
            let mut kill = Command::new("kill");
            assert!(
                kill.args([signal, &pid.to_string()])
                    .status()
                    .unwrap()
                    .success()
            );
        };
        let mut definition = service("orders-2")
            .account(crate::Account::LocalSystem)
            .description("it's $HOME")
            .executable(&program)
            .arguments([""])
            .ready_check(["/bin/true"]);
        install(&definition);
        assert_eq!(call("describe").text(), "it's $HOME\n");
        assert_eq!(status(), Some((State::Stopped, None)));
        assert_eq!(call("onestop").code, Some(0));
        assert!(call("start").text().contains("Cannot 'start'"));
        assert_eq!(status(), Some((State::Stopped, None)));
        assert_eq!(call("onestart").code, Some(0));
        let first = wait_for(State::Running).unwrap();
        assert_eq!(call("onestart").code, Some(1), "it runs");
        signal("-KILL", first);
        wait_for(State::StartPending);
        let second = wait_for(State::Running).unwrap();
        assert_ne!(first, second);
        assert_eq!(call("onerestart").code, Some(0));
        let third = wait_for(State::Running).unwrap();
        assert_ne!(second, third);
        assert_eq!(
            call("onereload").code,
            Some(1),
            "it does not accept reloads"
        );
        // The service is stopped at shutdown although it is not enabled.
        assert_eq!(call("faststop").code, Some(0));
        assert_eq!(status(), Some((State::Stopped, None)));
        // The PID in an unlocked pid file is ignored.
        for whose in ["daemon", "child"] {
            put(
                &format!("orders-2.{whose}.pid"),
                &std::process::id().to_string(),
            );
        }
        assert_eq!(status(), Some((State::Stopped, None)));
        // A program that ignores the stop signal is killed and not restarted.
        definition = definition
            .arguments(["deaf"])
            .graceful(Duration::from_secs(1));
        install(&definition);
        put("conf/orders_2", "orders_2_enable=\"YES\"\n");
        // Another account may hold the lock of a pid file that a killed daemon(8) has left.
        put("orders-2.daemon.pid", "");
        let foreign = std::fs::File::open(root.join("orders-2.daemon.pid")).unwrap();
        foreign.lock().unwrap();
        assert_eq!(call("faststart").code, Some(0));
        wait_for(State::Running);
        assert_eq!(call("faststop").code, Some(0));
        assert_eq!(status(), Some((State::Stopped, None)));
        // A process that holds the program's output open keeps daemon(8) from noticing its exit,
        // but is not the program.
        definition = definition.arguments(["leave"]);
        install(&definition);
        assert_eq!(call("onestart").code, Some(0));
        wait_for(State::StartPending);
        assert_eq!(call("onestop").code, Some(0));
        assert_eq!(status(), Some((State::Stopped, None)));
        let left = std::fs::read_to_string(root.join("left")).unwrap();
        signal("-KILL", left.trim().parse().unwrap());
        definition = definition.arguments([""]);
        install(&definition.ready_check(["/bin/false"]));
        assert_eq!(call("onestart").code, Some(1), "it does not get ready");
        assert_eq!(call("onestop").code, Some(0));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
