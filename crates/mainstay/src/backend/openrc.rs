//! OpenRC with supervise-daemon: the service script, and the interpretation of `rc-service` and of
//! OpenRC's state files. Without side effects.
//!
//! supervise-daemon restarts a program whatever its exit code was. A program that uses this
//! library ends supervise-daemon before its own final exit (`run/unix/openrc.rs`). For other
//! programs, this is reported as unsupported. If supervise-daemon is killed, OpenRC loses track of
//! the program, and the script stops it.
//!
//! Sources: openrc-run(8), supervise-daemon(8), supervise-daemon-guide.md, supervise-daemon.c and
//! sh/supervise-daemon.sh (0.45).

use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::sh::is_plain;
use super::shell::{self, PROCESSES, head, quoted, whole_seconds, word};
use super::{
    Answer, Backend, Call, Entry, Facts, Order, Question, Sign, Site, Switch, Traces, Unit,
    Unsupported,
};
use crate::scm::refusal::ABORTED;
use crate::{Accepts, Definition, Error, Manager, ServiceStatus, State};

/// The directory of the PID files of supervise-daemon.
const RUN: &str = "/run";
const SCRIPTS: &str = "/etc/init.d";
/// The runlevel that is started at boot.
const RUNLEVEL: &str = "/etc/runlevels/default";
const STATE: &str = "/run/openrc";
const RC_SERVICE: &str = "/sbin/rc-service";
/// The process name of supervise-daemon, of which the kernel keeps the first 15 bytes.
pub(crate) const SUPERVISOR: &str = "supervise-daemo";
/// The maximum time, in seconds, until a killed process is gone.
const GONE: u64 = 5;

/// Variables of OpenRC's own scripts and of the commands they run. An environment variable with
/// such a name would change how the program is started.
const OWN: &[&str] = &[
    "IFS",
    "PATH",
    "SVCNAME",
    "capabilities",
    "child",
    "chroot",
    "command",
    "command_args",
    "command_args_foreground",
    "command_user",
    "comm",
    "description",
    "directory",
    "error_log",
    "error_logger",
    "healthcheck_delay",
    "healthcheck_timer",
    "name",
    "no_new_privs",
    "output_log",
    "output_logger",
    "one",
    "pidfile",
    "rc",
    "respawn_delay",
    "respawn_max",
    "respawn_period",
    "retry",
    "secbits",
    "session",
    "start_stop_daemon_args",
    "stat",
    "state",
    "supervise_daemon_args",
    "supervisor",
    "tries",
    "umask",
    "birth",
];

/// Prints the child's PID, state and session, the process name of its parent, and whether OpenRC
/// started it for this service, as far as this user may read it.
const CHILD: &str = r#"pid=$(cat "/run/openrc/options/$1/child_pid") && stat=$(cat "/proc/$pid/stat") || exit
set -- "$1" ${stat##*) }
echo "$pid $2 $5"
cat "/proc/$3/comm"
tr '\0' '\n' < "/proc/$pid/environ" | grep -x "RC_SVCNAME=$1""#;

/// Functions of the script. `child` is the process of the service.
const FUNCTIONS: &str = r#"
# Sets child where there is one: it leads the session that supervise-daemon has made for it.
find_child() {
	child=$(service_get_value child_pid)
	[ -n "$child" ] && look_at "$child" && [ "$session" = "$child" ]
}

# Whether a process of that number is still the one that OpenRC has started.
is_child() {
	look_at "$child" && tr '\0' '\n' < "/proc/$child/environ" | grep -qx "RC_SVCNAME=$RC_SVCNAME"
}

runs() {
	find_child && read -r comm < "/proc/$child/comm" && [ "$comm" != supervise-daemo ]
}

# Until it is gone; the argument is in tenths of a second.
await_end() {
	tries=$1
	while look_at "$child" && [ "$tries" -gt 0 ]; do
		sleep 0.1
		tries=$((tries - 1))
	done
}
"#;

/// OpenRC with supervise-daemon.
pub(crate) struct OpenRc;

const FACTS: Facts = Facts {
    dir: SCRIPTS,
    traces: Traces::All(&["/etc/init.d", "/etc/runlevels"]),
    // openrc(8) writes this file at boot.
    signs: &[Sign::Path("/run/openrc/softlevel")],
    ..Facts::of(Manager::OpenRc)
};

impl Backend for OpenRc {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error> {
        let Definition {
            name,
            accepts,
            supervises,
            ..
        } = definition;
        let mut draft = shell::draft(definition, site);
        let mut script = Script(format!(
            "#!/sbin/openrc-run\n{}\n",
            head(&format!(
                "Settings of OpenRC's own (rc_need, …) go into /etc/conf.d/{name}."
            ))
        ));
        script.set("description", &draft.heading());
        script.set("supervisor", "supervise-daemon");
        script.command(&mut draft);
        if let Some(user) = draft.user() {
            script.set("command_user", user);
            draft.lose("no restart after a final exit: its user cannot stop supervise-daemon, which restarts it");
        }
        if let Some(dir) = &definition.working_dir {
            let dir = draft.path("the working directory", dir);
            script.set_read_twice("directory", &dir);
        }
        script.recovery(&mut draft);
        let graceful = whole_seconds(definition.graceful);
        let signal = &definition.stop_signal;
        script.set("retry", &format!("SIG{signal}/{graceful}/SIGKILL/{GONE}"));
        let reload = draft.reload_command();
        let is_told = reload.is_some() || accepts.contains(Accepts::RELOAD);
        if is_told {
            script.set("extra_started_commands", "reload");
            script.set("description_reload", "Has it read its configuration again");
        }
        let (needs, wants) = (draft.needs(), draft.wants());
        script.0 += "\ndepend() {\n";
        for (word, services) in [("need", &needs), ("want", &wants), ("after", &wants)] {
            if !services.is_empty() {
                script.0 += &format!("\t{word} {}\n", services.join(" "));
            }
        }
        script.0 += "\tuse logger net\n}\n\n";
        script.0 += PROCESSES;
        script.0 += FUNCTIONS;
        script.start(&mut draft);
        script.stop(&draft, graceful);
        if is_told {
            let reload = reload.unwrap_or_else(|| "find_child && kill -HUP \"$child\"".to_owned());
            script.0 += &format!(
                "\nreload() {{\n\tebegin \"Reloading $RC_SVCNAME\"\n\t{reload}\n\teend $?\n}}\n"
            );
        }
        if !supervises {
            draft.lose(
                "remaining processes of a crashed run: they are not killed before the next run",
            );
            draft.lose(format!("size limit of /var/log/{name}.log, which receives its output (the system log does if OpenRC has output_logger)"));
        }
        draft.finish(vec![Entry::script(Path::new(SCRIPTS).join(name), script.0)])
    }

    fn own_dirs(&self, name: &str, _site: &Site) -> Vec<PathBuf> {
        vec![Path::new(STATE).join("options").join(name)]
    }

    fn leavings(&self, name: &str, _site: &Site) -> Vec<PathBuf> {
        vec![failed(name)]
    }

    /// The link that `rc-update add` creates.
    fn switch(&self, name: &str, site: &Site) -> Switch {
        let link = Entry::link(Path::new(RUNLEVEL).join(name), self.unit_path(name, site));
        Switch {
            on: vec![link],
            ..Switch::default()
        }
    }

    /// OpenRC compares the modification times of its scripts with that of its dependency cache,
    /// but only in seconds.
    fn take_notice(&self, _changed: &[&str], _site: &Site) -> Vec<Call> {
        vec![Call::new(["/sbin/rc-update", "-u"]).may_fail()]
    }

    fn control(
        &self,
        definition: &Definition,
        order: Order,
        state: State,
        _site: &Site,
    ) -> Result<Vec<Call>, Unsupported> {
        let name = &*definition.name;
        let call = |verb| Call::new([RC_SERVICE, name, verb]);
        Ok(match order {
            // A service whose supervisor was killed counts as started. So does one that ended
            // before OpenRC took note of its start.
            Order::Start => {
                let crashed = Call::new([RC_SERVICE, "--ifcrashed", name, "stop"]).may_fail();
                match state {
                    State::Stopped => vec![crashed, call("zap").may_fail(), call("start")],
                    _ => vec![crashed, call("start")],
                }
            }
            Order::Stop | Order::Restart | Order::Reload => vec![call(order.as_str())],
            Order::Pause | Order::Resume => {
                return Err(Unsupported("OpenRC does not support pausing: stop it"));
            }
        })
    }

    fn questions(&self, name: &str, site: &Site) -> Vec<Question> {
        vec![
            Question::Read(self.unit_path(name, site)),
            Question::run([RC_SERVICE, name, "status"]),
            Question::run(["sh", "-c", CHILD, "sh", name]),
            Question::Read(failed(name)),
            Question::Read(Path::new(RUN).join(format!("supervise-{name}.pid"))),
        ]
    }

    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus> {
        let [script, status, child, failed, supervisor] = answers else {
            return None;
        };
        script.code?;
        let code = match status.code {
            // The service ended before OpenRC marked it as started.
            Some(0) if supervisor.code.is_none() => Some(3),
            code => code,
        };
        Some(status_of(code, &child.text(), failed.code.is_some()))
    }

    fn journal(&self, name: &str, _site: &Site) -> String {
        format!("grep {name} /var/log/messages /var/log/syslog /var/log/{name}.log")
    }
}

/// Returns the path that exists while the last start has failed, or after too many restarts.
fn failed(name: &str) -> PathBuf {
    Path::new(STATE).join("failed").join(name)
}

/// Interprets the exit code of `rc-service NAME status`, as defined by `_status` and
/// `supervise_status` of OpenRC's scripts, and the child's data.
fn status_of(code: Option<i32>, child: &str, has_failed: bool) -> ServiceStatus {
    let mut lines = child.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let pid = words.next().and_then(|pid| pid.parse::<u32>().ok());
    let is_there = !matches!(words.next(), None | Some("Z" | "X"));
    let leads = pid.is_some() && words.next().and_then(|it| it.parse().ok()) == pid;
    let pid = pid.filter(|_| is_there && leads);
    let is_supervised = lines.next() == Some(SUPERVISOR);
    let is_marked = lines.next().is_some();
    let (state, pid, has_failed) = match code {
        Some(0) if pid.is_some() && is_supervised => (State::Running, pid, false),
        // supervise-daemon waits before the restart.
        Some(0 | 8 | 16) => (State::StartPending, None, false),
        Some(4) => (State::StopPending, pid, false),
        // Crashed or unsupervised: supervise-daemon was killed.
        Some(32 | 64) if pid.is_some() && is_marked => (State::Running, pid, false),
        Some(3) => (State::Stopped, None, has_failed),
        _ => (State::Stopped, None, true),
    };
    ServiceStatus {
        // The exit code is only in the system log.
        code: if has_failed { ABORTED } else { 0 },
        ..ServiceStatus::new(state, pid)
    }
}

struct Script(String);

impl Script {
    /// Sets a variable of OpenRC that is evaluated once.
    fn set(&mut self, key: &str, value: &str) {
        let value = word(value).unwrap_or_default();
        self.0 += &format!("{key}={value}\n");
    }

    /// Sets a variable that OpenRC splits at blanks, expands as file name patterns, and evaluates
    /// again with `eval`.
    fn set_read_twice(&mut self, key: &str, value: &str) {
        if is_plain(value) {
            return self.set(key, value);
        }
        self.set(&format!("the_{key}"), value);
        self.0 += &format!("{key}='\"$the_{key}\"'\n");
    }

    /// Sets such a variable to several words. Words that would not survive it are placed in
    /// separate variables.
    fn set_words(&mut self, key: &str, words: &[String]) {
        let mut text = Vec::with_capacity(words.len());
        for (number, word) in words.iter().enumerate() {
            if is_plain(word) {
                text.push(word.clone());
            } else {
                let variable = format!("{key}_{}", number + 1);
                self.set(&variable, word);
                text.push(format!("\"${variable}\""));
            }
        }
        let text = quoted(&text.join(" ")).unwrap_or_default();
        self.0 += &format!("{key}={text}\n");
    }

    fn command(&mut self, draft: &mut Draft<'_>) {
        let mut command = draft.command();
        let file = draft.env_file();
        let cpus = draft.cpus();
        if file.is_some() || cpus.is_some() {
            let mut text = String::new();
            if let Some((call, function)) = file {
                text += &format!("{function}{call} || exit 78\n");
            }
            let cpus = cpus.map_or(String::new(), |cpus| cpus + " ");
            text += &format!("exec {cpus}\"$@\"");
            let name = draft.definition.name.clone();
            let before = ["/bin/sh".to_owned(), "-c".to_owned(), text, name];
            command.splice(0..0, before);
        }
        let [program, arguments @ ..] = &command[..] else {
            return;
        };
        self.set_read_twice("command", program);
        self.set_words("command_args", arguments);
    }

    /// Sets the restart behavior.
    fn recovery(&mut self, draft: &mut Draft<'_>) {
        let definition = draft.definition;
        let is_library = definition.readiness == crate::Readiness::Notify;
        draft.lose_growing_delays();
        // Such a program ends its supervisor before a final exit.
        if !is_library || draft.user().is_some() {
            draft.lose_kinds_of_exits();
        }
        let pause = definition.recovery.restart_after.first();
        let pause = pause.map_or(1, |pause| whole_seconds(*pause).max(1));
        self.set("respawn_delay", &pause.to_string());
        match definition.recovery.limit {
            None => self.set("respawn_max", "0"),
            Some((starts, window)) => {
                // 0 means unlimited.
                let again = starts.saturating_sub(1).max(1);
                if again != starts.saturating_sub(1) {
                    draft.lose("single start: it is restarted once");
                }
                self.set("respawn_max", &again.to_string());
                self.set("respawn_period", &whole_seconds(window).max(1).to_string());
            }
        }
    }

    fn start(&mut self, draft: &mut Draft<'_>) {
        let Definition {
            name, env, nice, ..
        } = draft.definition;
        let mut arguments = Vec::new();
        let mut values = String::new();
        for (name, value) in env {
            if name.starts_with("RC_") || name.starts_with("SSD_") {
                draft.wrong(format!("OpenRC reserves the variable {name:?}"));
            } else if OWN.contains(&&**name)
                || name.starts_with("EINFO_")
                || name.contains("command_args_")
                || name.starts_with("the_")
            {
                let variable = format!("env_of_{name}");
                let word = word(&format!("{name}={value}")).unwrap_or_default();
                values += &format!("\t{variable}={word}\n");
                arguments.push(format!("--env \"${variable}\""));
            } else {
                let word = word(value).unwrap_or_default();
                values += &format!("\texport {name}={word}\n");
            }
        }
        self.0 += "\nstart_pre() {\n";
        self.0 += &draft.limits();
        if let Some(nice) = nice {
            self.0 += &format!("\texport SSD_NICELEVEL={nice}\n");
        }
        self.0 += &values;
        if !arguments.is_empty() {
            self.0 += &format!("\tsupervise_daemon_args='{}'\n", arguments.join(" "));
        }
        if draft.definition.supervises {
            self.0 += "\toutput_log=/dev/null error_log=/dev/null\n";
        } else {
            let owner = draft.user().unwrap_or("root");
            self.0 += &format!(
                r#"	if command -v logger >/dev/null && grep -qs output_logger "$RC_LIBEXECDIR/sh/supervise-daemon.sh"; then
		output_logger='logger -t {name} -p daemon.info' error_logger='logger -t {name} -p daemon.err'
	else
		checkpath --file --quiet --owner {owner} --mode 0640 /var/log/{name}.log || return 1
		output_log=/var/log/{name}.log error_log=/var/log/{name}.log
	fi
"#
            );
        }
        self.0 += "}\n\nstart_post() {\n\ttries=50\n\tuntil runs; do\n\t\t[ \"$tries\" -gt 0 ] || break\n\t\tsleep 0.1\n\t\ttries=$((tries - 1))\n\tdone\n";
        let check = draft
            .ready_check()
            .map_or(String::new(), |check| format!(" && {check}"));
        self.0 += &format!(
            "\truns{check} && return 0\n\teerror \"$RC_SVCNAME does not get ready\"\n\tstop_pre\n\tdefault_stop\n\tstop_post\n\treturn 1\n}}\n"
        );
    }

    fn stop(&mut self, draft: &Draft<'_>, graceful: u64) {
        let signal = &draft.definition.stop_signal;
        self.0 += "\nstop_pre() {\n\tfind_child || child=\n";
        if draft.asks_tree() {
            self.0 +=
                &format!("\t[ -z \"$child\" ] || signal_session {signal} \"$child\" \"$child\"\n");
        }
        self.0 += "\treturn 0\n}\n\nstop_post() {\n\t[ -n \"$child\" ] || return 0\n";
        self.0 += &format!(
            "\t# supervise-daemon was killed: nobody else stops it.\n\tif is_child; then\n\t\tkill -{signal} \"$child\"\n\t\tawait_end {}0\n\t\tis_child && kill -KILL \"$child\"\n\t\tawait_end {GONE}0\n\tfi\n",
            graceful
        );
        if draft.is_tree() {
            self.0 += "\tsignal_session KILL \"$child\" \"\"\n";
        }
        self.0 += "\treturn 0\n}\n";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn hostile_values_arrive_as_they_are() {
        super::super::hostile::check(&OpenRc, "openrc", "rc-service \"$1\" start");
    }

    #[test]
    fn only_a_process_that_is_there_runs() {
        let check = |code, child: &str, has_failed, expected| {
            let status = status_of(code, child, has_failed);
            assert_eq!(
                (status.state, status.pid, status.code),
                expected,
                "{code:?} {child}"
            );
        };
        let alive = "7 S 7\nsupervise-daemo\nRC_SVCNAME=orders\n";
        check(Some(0), alive, false, (State::Running, Some(7), 0));
        check(Some(0), "", false, (State::StartPending, None, 0));
        check(
            Some(0),
            "7 Z 7\nsupervise-daemo\n",
            false,
            (State::StartPending, None, 0),
        );
        check(
            Some(0),
            "7 S 3\nsupervise-daemo\n",
            false,
            (State::StartPending, None, 0),
        );
        check(
            Some(0),
            "7 S 7\ninit\n",
            false,
            (State::StartPending, None, 0),
        );
        check(
            Some(64),
            "7 S 7\ninit\nRC_SVCNAME=orders\n",
            false,
            (State::Running, Some(7), 0),
        );
        check(
            Some(64),
            "7 S 7\ninit\n",
            false,
            (State::Stopped, None, ABORTED),
        );
        check(Some(3), "", false, (State::Stopped, None, 0));
        check(Some(3), alive, true, (State::Stopped, None, ABORTED));
        check(Some(1), alive, false, (State::Stopped, None, ABORTED));
        check(None, alive, false, (State::Stopped, None, ABORTED));
    }
}
