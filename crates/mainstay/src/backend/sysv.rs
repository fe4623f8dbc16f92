//! System V init: a script in /etc/init.d as specified by the Linux Standard Base, for systems
//! whose init only runs such scripts. Without side effects.
//!
//! There is no supervisor, so the script works without one. A PID in a file identifies a process
//! only together with its start time and boot. A stop waits for the actual exit and kills a process
//! that does not exit in time. The output goes to `logger`.
//!
//! Sources: LSB 5.0 "Init Script Actions", "Comment Conventions for Init Scripts"; update-rc.d(8),
//! insserv(8), chkconfig(8); proc(5).

use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::shell::{self, PROCESSES, head, line, says, whole_seconds, word};
use super::{
    Answer, Backend, Call, Entry, Facts, Order, Question, Sign, Site, Switch, Traces, Unit,
    Unsupported, program,
};
use crate::scm::refusal::ABORTED;
use crate::{Accepts, Definition, Error, Manager, ServiceStatus, State};

const SCRIPTS: &str = "/etc/init.d";
/// The search path of programs, whoever starts them.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The maximum time for a program to begin, in tenths of a second. It is usually negligible, except
/// while the machine boots.
const BEGIN: u32 = 100;

/// Links the script to run levels with the system's own tool: insserv computes an order, chkconfig
/// stores one, and otherwise there is none to keep.
const TURN_ON: &str = r#"if command -v update-rc.d >/dev/null; then update-rc.d "$1" defaults && update-rc.d "$1" enable
elif command -v chkconfig >/dev/null; then chkconfig --add "$1" && chkconfig "$1" on
else for at in 0/K05 1/K05 2/S95 3/S95 4/S95 5/S95 6/K05; do rm -f /etc/rc"${at%/*}".d/[SK]??"$1" && ln -s "../init.d/$1" "/etc/rc${at%/*}.d/${at#*/}$1" || exit; done
fi"#;
/// Links the script so that it is only stopped.
const TURN_OFF: &str = r#"if command -v update-rc.d >/dev/null; then update-rc.d "$1" defaults-disabled && update-rc.d "$1" disable
elif command -v chkconfig >/dev/null; then chkconfig --add "$1" && chkconfig "$1" off
else for at in 0 1 2 3 4 5 6; do rm -f "/etc/rc$at.d"/[SK]??"$1" && ln -s "../init.d/$1" "/etc/rc$at.d/K05$1" || exit; done
fi"#;
/// Removes all links. insserv recomputes the order of all scripts.
const FORGET: &str = r#"if command -v update-rc.d >/dev/null; then update-rc.d -f "$1" remove
elif command -v chkconfig >/dev/null; then [ ! -e "/etc/init.d/$1" ] || chkconfig --del "$1"
else rm -f /etc/rc[0-6].d/[SK]??"$1"
fi"#;
/// Runs after the script was removed.
const TAKE_NOTICE: &str = r#"[ -e "/etc/init.d/$1" ] && exit
! command -v update-rc.d >/dev/null || update-rc.d -f "$1" remove"#;

/// The script's functions for its process.
const FUNCTIONS: &str = r#"
# The number of its process, its stat of proc(5) as it began, and the boot.
read_record() {
	[ -r "$pid_file" ] && { read -r pid && read -r stat && read -r boot; } < "$pid_file"
}

# Whether that process is there, and no other of its number.
is_running() {
	read_record || return 1
	set -- ${stat##*) }
	[ "$boot" = "$(cat /proc/sys/kernel/random/boot_id)" ] && look_at "$pid" && [ "$birth" = "${20}" ]
}

# Whether its program runs in it, and not what starts that still.
has_begun() {
	is_running || return 1
	case $(tr '\0' ' ' < "/proc/$pid/cmdline") in *"$script launch "* | *'3>&-'*) return 1 ;; esac
}

# Sends a signal to it, and to the other processes of its session, if it has one of its own.
send() {
	if [ "$2" = tree ] && [ "$session" = "$pid" ]; then
		signal_session "$1" "$pid" ""
	else
		kill -"$1" "$pid" 2>/dev/null
	fi
}

uptime() {
	read -r now rest < /proc/uptime
	echo "${now%%.*}"
}

# Waits for its end, for as many seconds.
await_end() {
	deadline=$(($(uptime) + $1 + 1))
	while is_running; do
		[ "$(uptime)" -lt "$deadline" ] || return 1
		sleep 0.1
	done
}

need_root() {
	[ "$(id -u)" = 0 ] && return
	echo "$name: only root may $1 it" >&2
	exit 4
}

# One at a time. Only root can open the file, so no other user can hold its lock.
lock() {
	command -v flock >/dev/null || return 0
	umask 077
	exec 9>> "$pid_file.lock"
	umask 022
	flock 9
}
"#;

const VERBS: &str = r#"
status() {
	if is_running; then
		echo "$name is running, pid $pid"
	elif [ -e "$pid_file" ]; then
		echo "$name has ended by itself"
		return 1
	else
		echo "$name is not running"
		return 3
	fi
}

case $#:$1 in
	1:launch) launch; rm -f "$pid_file"; exit 1 ;;
	1:start | 1:stop) need_root "$1"; lock; "$1" ;;
	1:restart) need_root restart; lock; stop && start ;;
	1:try-restart) need_root restart; lock; ! is_running || { stop && start; } ;;
	1:reload) need_root reload; reload ;;
	1:force-reload) need_root reload; FORCE ;;
	1:status) status ;;
	*) echo "usage: $script start|stop|restart|try-restart|reload|force-reload|status" >&2; exit 2 ;;
esac
"#;

/// System V init and compatible ones.
pub(crate) struct Sysv;

const FACTS: Facts = Facts {
    dir: SCRIPTS,
    traces: Traces::All(&["/etc/init.d", "/etc/rc2.d"]),
    // The FIFO of init(8), which other processes 1 of that name do not have.
    signs: &[Sign::Path("/run/initctl"), Sign::Path("/dev/initctl")],
    ..Facts::of(Manager::Sysv)
};

impl Backend for Sysv {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error> {
        let Definition {
            name,
            accepts,
            recovery,
            ..
        } = definition;
        let mut draft = shell::draft(definition, site);
        if !recovery.restart_after.is_empty() {
            draft.lose("restart after a failure: init scripts are not supervised");
        }
        let pid_file = pid_path(name);
        let mut script = format!("#!/bin/sh\n{}", head(""));
        let needs = [draft.needs(), draft.wants()].concat();
        let needs: String = needs.iter().map(|need| format!(" {need}")).collect();
        script += &format!(
            "### BEGIN INIT INFO\n# Provides:          {name}\n# Required-Start:    $remote_fs $syslog $network{needs}\n# Required-Stop:     $remote_fs $syslog $network{needs}\n# Default-Start:     2 3 4 5\n# Default-Stop:      0 1 6\n# Short-Description: {}\n### END INIT INFO\n\nname={name}\nscript={SCRIPTS}/{name}\npid_file={}\nPATH={PATH}\nexport PATH\n\n",
            draft.heading(),
            pid_file.display(),
        );
        script += PROCESSES;
        script += FUNCTIONS;
        script += &launch(&mut draft);
        script += &start(&mut draft);
        let reload = draft.reload_command();
        let is_told = reload.is_some() || accepts.contains(Accepts::RELOAD);
        let reload = reload.unwrap_or_else(|| "kill -HUP \"$pid\"".to_owned());
        script += &stop(&draft);
        script += "\nreload() {\n";
        script += &if is_told {
            format!("\tis_running || return 7\n\t{reload}\n}}\n")
        } else {
            "\techo \"$name has nothing to reload: restart it\" >&2\n\treturn 3\n}\n".to_owned()
        };
        let force = if is_told {
            "reload"
        } else {
            "lock; ! is_running || { stop && start; }"
        };
        script += &VERBS.replace("FORCE", force);
        draft.finish(vec![Entry::script(Path::new(SCRIPTS).join(name), script)])
    }

    fn leavings(&self, name: &str, _site: &Site) -> Vec<PathBuf> {
        vec![pid_path(name), lock_path(name)]
    }

    fn switch(&self, name: &str, site: &Site) -> Switch {
        let levels = ["2", "3", "4", "5"];
        let shown_by = levels.map(|level| format!("/etc/rc{level}.d/S??{name}").into());
        let run = |script| vec![script_of(script, name)];
        let target = format!("../init.d/{name}");
        let on = ["0", "1", "6"].map(|level| format!("/etc/rc{level}.d/K05{name}"));
        let on = on
            .into_iter()
            .chain(levels.map(|level| format!("/etc/rc{level}.d/S95{name}")));
        Switch {
            on: on
                .filter(|_| site.is_staged)
                .map(|path| Entry::link(path, &target))
                .collect(),
            off: Vec::new(),
            turn_on: run(TURN_ON),
            turn_off: run(TURN_OFF),
            shown_by: shown_by.into(),
        }
    }

    fn take_notice(&self, changed: &[&str], _site: &Site) -> Vec<Call> {
        let calls = changed.iter().map(|name| script_of(TAKE_NOTICE, name));
        calls.collect()
    }

    fn let_go(&self, name: &str, _site: &Site) -> Vec<Call> {
        vec![script_of(FORGET, name)]
    }

    fn control(
        &self,
        definition: &Definition,
        order: Order,
        _state: State,
        site: &Site,
    ) -> Result<Vec<Call>, Unsupported> {
        if matches!(order, Order::Pause | Order::Resume) {
            return Err(Unsupported("init scripts do not support pausing: stop it"));
        }
        let script = self.unit_path(&definition.name, site).display().to_string();
        Ok(vec![Call::new([&*script, order.as_str()])])
    }

    fn questions(&self, name: &str, site: &Site) -> Vec<Question> {
        let script = self.unit_path(name, site);
        let status = Question::run(["sh", &script.display().to_string(), "status"]);
        vec![
            Question::Read(script),
            status,
            Question::Read(pid_path(name)),
        ]
    }

    /// LSB: 0 is running, 3 is not running. The others are a failure or unknown.
    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus> {
        let [script, status, pid] = answers else {
            return None;
        };
        script.code?;
        let (state, code) = match status.code {
            Some(0) => (State::Running, 0),
            Some(3) => (State::Stopped, 0),
            _ => (State::Stopped, ABORTED),
        };
        let pid = pid.text().lines().next().and_then(|pid| pid.parse().ok());
        let pid = pid.filter(|_| state == State::Running);
        Some(ServiceStatus {
            code,
            ..ServiceStatus::new(state, pid)
        })
    }

    fn journal(&self, name: &str, _site: &Site) -> String {
        format!("grep {name} /var/log/messages /var/log/syslog")
    }
}

/// Returns the path expected by the Filesystem Hierarchy Standard for a pid file, with the PID in
/// its first line.
fn pid_path(name: &str) -> PathBuf {
    Path::new("/var/run").join(format!("{name}.pid"))
}

/// Returns the path of the lock that start and stop take.
fn lock_path(name: &str) -> PathBuf {
    Path::new("/var/run").join(format!("{name}.pid.lock"))
}

fn script_of(text: &str, name: &str) -> Call {
    Call::new(["sh", "-c", text, "sh", name])
}

/// Returns the script part that becomes the program: in its own session, with standard streams, and
/// with the pid file as descriptor 3.
fn launch(draft: &mut Draft<'_>) -> String {
    let command = line(&draft.command());
    let mut text = String::new();
    let file = draft.env_file();
    if let Some((_, function)) = file {
        text += &format!("\n{function}");
    }
    text += "\nlaunch() {\n\tumask 022\n";
    text += &draft.limits();
    if let Some(dir) = &draft.definition.working_dir {
        let dir = draft.path("the working directory", dir);
        text += &format!("\tcd {} || return 1\n", line(&[dir]));
    } else {
        text += "\tcd /\n";
    }
    // Resolved with the search path before the service's environment is set.
    text += &format!("\tset -- {command}\n");
    if let Some(cpus) = draft.cpus() {
        let cpus = cpus.trim_start_matches("taskset ");
        text += &format!("\tset -- \"$(command -v taskset)\" {cpus} \"$@\"\n");
    }
    let record = "{ echo $$; cat /proc/$$/stat /proc/sys/kernel/random/boot_id; } >&3";
    if let Some(user) = draft.user() {
        // su stays running and is not the program. The program records itself.
        text += &format!(
            r#"	uid=$(id -u {user}) && gid=$(id -g {user}) || return 1
	if setpriv --reuid "$uid" --regid "$gid" --init-groups true 2>/dev/null; then
		{record}
		exec 3>&-
		set -- "$(command -v setpriv)" --reuid "$uid" --regid "$gid" --init-groups -- "$@"
	else
		set -- "$(command -v su)" -s /bin/sh -c '{record}; exec "$0" "$@" 3>&-' -- {user} "$@"
	fi
	export HOME=~{user} USER={user} LOGNAME={user}
"#
        );
    } else {
        text += &format!("\t{record}\n\texec 3>&-\n\texport HOME=/root USER=root LOGNAME=root\n");
    }
    if let Some(nice) = draft.definition.nice {
        text += &format!("\tset -- \"$(command -v nice)\" -n {nice} \"$@\"\n");
    }
    if let Some((call, _)) = file {
        text += &format!("\t{call} || return 78\n");
    }
    text += &draft.exports(word);
    text += "\texec \"$@\"\n}\n";
    text
}

fn start(draft: &mut Draft<'_>) -> String {
    let path = draft.path("the program", program(draft.definition, draft.site));
    let program = word(&path).unwrap_or_default();
    let mut text = format!(
        r#"
start() {{
	! is_running || return 0
	[ -x {program} ] || {{ echo "$name:" {program} "is no program" >&2; return 5; }}
	umask 022
	rm -f "$pid_file"
	: > "$pid_file"
	if command -v logger >/dev/null && [ -S /dev/log ]; then
		rm -f "$pid_file.log"
		mkfifo -m 0600 "$pid_file.log"
		logger -t "$name" -p daemon.info < "$pid_file.log" > /dev/null 2>&1 9<&- &
		exec 4> "$pid_file.log"
		rm -f "$pid_file.log"
	else
		exec 4>> "/var/log/$name.log"
	fi
	set -- env -i {says} PATH="$PATH" "$script" launch
	# What a shell starts with & ignores SIGINT and SIGQUIT.
	if setsid -f true 2>/dev/null; then
		setsid -f "$@" 3> "$pid_file" >&4 2>&1 < /dev/null 4>&- 9<&-
	elif command -v setsid >/dev/null; then
		setsid "$@" 3> "$pid_file" >&4 2>&1 < /dev/null 4>&- 9<&- &
	else
		"$@" 3> "$pid_file" >&4 2>&1 < /dev/null 4>&- 9<&- &
	fi
	exec 4>&-
	tries={BEGIN}
	until has_begun; do
		if [ "$tries" -eq 0 ] || [ ! -e "$pid_file" ] || {{ read_record && ! is_running; }}; then
			rm -f "$pid_file"
			echo "$name does not start: see the system's log" >&2
			return 1
		fi
		tries=$((tries - 1))
		sleep 0.1
	done
"#,
        says = says(Manager::Sysv)
    );
    if let Some(check) = draft.ready_check() {
        text += &format!(
            "\t{check} && return 0\n\techo \"$name does not get ready: see the system's log\" >&2\n\tstop\n\treturn 1\n"
        );
    } else {
        text += "\tis_running\n";
    }
    text + "}\n"
}

fn stop(draft: &Draft<'_>) -> String {
    let definition = draft.definition;
    let signal = &definition.stop_signal;
    let graceful = whole_seconds(definition.graceful);
    let asked = if draft.asks_tree() { "tree" } else { "main" };
    let killed = if draft.is_tree() { "tree" } else { "main" };
    format!(
        r#"
stop() {{
	if is_running; then
		send {signal} {asked}
		main=$pid
		leads=$session
		await_end {graceful} || {{ is_running && send KILL {killed}; }}
		await_end 5 || {{ echo "$name does not end" >&2; return 1; }}
		[ {killed} = main ] || [ "$leads" != "$main" ] || signal_session KILL "$main" ""
	fi
	rm -f "$pid_file"
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn hostile_values_arrive_as_they_are() {
        super::super::hostile::check(&Sysv, "sysv", "\"/etc/init.d/$1\" start");
    }

    /// For systems where sh is bash and setpriv does not exist.
    #[cfg(target_os = "linux")]
    #[test]
    fn they_do_so_by_su_and_bash() {
        let start = "sed -i '1s/sh$/bash/; s/setpriv --reuid/there-is-none/' \"/etc/init.d/$1\"; \"/etc/init.d/$1\" start";
        super::super::hostile::check(&Sysv, "sysv", start);
    }

    #[test]
    fn codes_of_scripts_are_states() {
        let check = |code, pid: &str, expected| {
            let answer = |code, text: &str| Answer {
                code,
                output: text.into(),
            };
            let answers = [answer(Some(0), ""), answer(code, ""), answer(Some(0), pid)];
            let status = Backend::status(&Sysv, &answers).unwrap();
            assert_eq!(
                (status.state, status.pid, status.code),
                expected,
                "{code:?}"
            );
        };
        check(Some(0), "7\n7 (sh) S\n", (State::Running, Some(7), 0));
        check(Some(1), "7\n", (State::Stopped, None, ABORTED));
        check(Some(3), "", (State::Stopped, None, 0));
        check(Some(4), "7\n", (State::Stopped, None, ABORTED));
        check(None, "7\n", (State::Stopped, None, ABORTED));
        let gone = [Answer::default(), Answer::default(), Answer::default()];
        assert!(Backend::status(&Sysv, &gone).is_none());
    }
}
