//! OpenWrt's procd: the service script, and the interpretation of its ubus replies. Without side
//! effects.
//!
//! procd restarts a program whatever its exit code was. It stops a program with SIGTERM, and with
//! SIGKILL after a timeout.
//!
//! Sources: OpenWrt "procd init scripts"; procd.sh, rc.common; service/instance.c of procd.

use std::path::Path;

use super::draft::{Draft, limit_name};
use super::shell::{self, head, line, says, whole_seconds, word};
use super::{
    Answer, Backend, Call, Entry, Facts, Order, Question, Sign, Site, Switch, Traces, Unit,
    Unsupported,
};
use crate::scm::refusal::{ABORTED, SERVICE_SPECIFIC};
use crate::{Accepts, Definition, Error, Limit, Manager, Recovery, ServiceStatus, State};

const SCRIPTS: &str = "/etc/init.d";
/// The order of the start, late, and of the stop, early.
const START: &str = "95";
const STOP: &str = "05";

/// Prints the properties of the service's only instance, one per line. Fails if there is no such
/// service.
const INSTANCE: &str = r#"data=$(ubus call service list "{\"name\":\"$1\"}") || exit
for key in running pid exit_code; do
	echo "$key=$(jsonfilter -s "$data" -e "@['$1'].instances.instance1.$key")"
done"#;
/// Polls for the end of a stop, for at most this many seconds. procd accepts a stop but does not
/// report its completion.
const AWAIT_STOP: &str = r#"tries=$2
while [ "$(jsonfilter -s "$(ubus call service list "{\"name\":\"$1\"}")" -e "@['$1'].instances.instance1.running")" = true ]; do
	[ "$tries" -gt 0 ] || { echo "$1 does not end" >&2; exit 1; }
	sleep 1
	tries=$((tries - 1))
done"#;

/// OpenWrt's procd.
pub(crate) struct Procd;

const FACTS: Facts = Facts {
    dir: SCRIPTS,
    traces: Traces::All(&["/etc/init.d", "/lib/functions/procd.sh"]),
    signs: &[Sign::Init("procd"), Sign::Process("procd")],
    ..Facts::of(Manager::Procd)
};

impl Backend for Procd {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error> {
        let Definition {
            name,
            accepts,
            env,
            graceful,
            limits,
            nice,
            stop_signal,
            supervises,
            ..
        } = definition;
        let mut draft = shell::draft(definition, site);
        if stop_signal != "TERM" {
            draft.wrong(format!(
                "the stop signal {stop_signal} is not supported: procd sends TERM only"
            ));
        }
        draft.lose_tree();
        if !supervises {
            draft.lose_remains();
        }
        draft.wants();
        for need in draft.needs() {
            draft.lose(format!(
                "start order after {need}: its start priority is {START}"
            ));
        }
        let mut script = format!(
            "#!/bin/sh /etc/rc.common\n{}\nUSE_PROCD=1\nSTART={START}\nSTOP={STOP}\n\nstart_service() {{\n\tprocd_open_instance instance1\n",
            head(&draft.heading())
        );
        let command = command(&mut draft);
        script += &format!("\tprocd_set_param command {}\n", line(&command));
        let mut variables = vec![says(Manager::Procd)];
        variables.extend(env.iter().map(|(name, value)| format!("{name}={value}")));
        script += &format!("\tprocd_set_param env {}\n", line(&variables));
        script += &recovery(&mut draft);
        if let Some(user) = draft.user() {
            script += &format!("\tprocd_set_param user {user}\n");
        }
        if let Some(nice) = nice {
            script += &format!("\tprocd_set_param nice {nice}\n");
        }
        let limits: Vec<String> = limits
            .iter()
            .map(|(limit, value)| limit_of(*limit, *value))
            .collect();
        if !limits.is_empty() {
            script += &format!("\tprocd_set_param limits {}\n", line(&limits));
        }
        script += &format!(
            "\tprocd_set_param term_timeout {}\n\tprocd_set_param stdout 1\n\tprocd_set_param stderr 1\n\tprocd_close_instance\n}}\n",
            whole_seconds(*graceful).max(1)
        );
        let reload = draft.reload_command();
        let is_told = accepts.contains(Accepts::RELOAD);
        let reload =
            reload.or_else(|| is_told.then(|| format!("procd_send_signal {name} '*' HUP")));
        if let Some(reload) = reload {
            script += &format!("\nreload_service() {{\n\t{reload}\n}}\n");
        }
        if let Some(check) = draft.ready_check() {
            script +=
                &format!("\nservice_started() {{\n\t{check} && return 0\n\tstop\n\treturn 1\n}}\n");
        }
        draft.finish(vec![Entry::script(Path::new(SCRIPTS).join(name), script)])
    }

    /// The links that `/etc/init.d/NAME enable` creates.
    fn switch(&self, name: &str, _site: &Site) -> Switch {
        let link = |order: &str| {
            let path = Path::new("/etc/rc.d").join(format!("{order}{name}"));
            Entry::link(path, format!("../init.d/{name}"))
        };
        Switch {
            on: vec![link(&format!("S{START}")), link(&format!("K{STOP}"))],
            ..Switch::default()
        }
    }

    fn control(
        &self,
        definition: &Definition,
        order: Order,
        state: State,
        site: &Site,
    ) -> Result<Vec<Call>, Unsupported> {
        let name = &*definition.name;
        let script = self.unit_path(name, site).display().to_string();
        let call = |verb| Call::new([&*script, verb]);
        // Two seconds longer than procd's own timeout.
        let seconds = (whole_seconds(definition.graceful) + 2).to_string();
        let ended = Call::new(["sh", "-c", AWAIT_STOP, "sh", name, &seconds]);
        Ok(match order {
            Order::Stop => vec![call("stop"), ended],
            Order::Restart if state != State::Stopped => vec![call("stop"), ended, call("start")],
            Order::Start | Order::Restart => vec![call("start")],
            Order::Reload => vec![call("reload")],
            Order::Pause | Order::Resume => {
                return Err(Unsupported("procd does not support pausing: stop it"));
            }
        })
    }

    fn questions(&self, name: &str, site: &Site) -> Vec<Question> {
        vec![
            Question::Read(self.unit_path(name, site)),
            Question::run(["sh", "-c", INSTANCE, "sh", name]),
        ]
    }

    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus> {
        let [script, instance] = answers else {
            return None;
        };
        script.code?;
        Some(status_of(&instance.text()))
    }

    fn journal(&self, name: &str, _site: &Site) -> String {
        format!("logread -e {name}")
    }
}

fn status_of(said: &str) -> ServiceStatus {
    let value = |key: &str| {
        let mut pairs = said.lines().filter_map(|line| line.split_once('='));
        pairs
            .find(|(name, _)| *name == key)
            .map_or("", |(_, it)| it)
    };
    let pid = value("pid").parse::<u32>().ok();
    let state = match value("running") {
        "true" if pid.is_some() => State::Running,
        _ => State::Stopped,
    };
    let own_code = value("exit_code").parse().unwrap_or(0);
    let (code, own_code) = match (state, value("running"), own_code) {
        (State::Running, ..) => (0, 0),
        // The instance exists but is not running: it exited on its own.
        (_, "false", 0) if value("exit_code").is_empty() => (ABORTED, 0),
        (_, "false", own_code @ 1..) => (SERVICE_SPECIFIC, own_code),
        _ => (0, 0),
    };
    ServiceStatus {
        code,
        own_code,
        ..ServiceStatus::new(state, pid.filter(|_| state == State::Running))
    }
}

/// Returns the command. It runs through a shell if procd has no setting for something.
fn command(draft: &mut Draft<'_>) -> Vec<String> {
    let mut command = draft.command();
    let mut text = String::new();
    if let Some(dir) = &draft.definition.working_dir
        && dir != Path::new("/")
    {
        let dir = draft.path("the working directory", dir);
        text += &format!("cd {} || exit 1\n", word(&dir).unwrap_or_default());
    }
    if let Some((call, function)) = draft.env_file() {
        text += &format!("{function}{call} || exit 78\n");
    }
    let cpus = draft.cpus().map_or(String::new(), |cpus| cpus + " ");
    if text.is_empty() && cpus.is_empty() {
        return command;
    }
    text += &format!("exec {cpus}\"$@\"");
    let name = draft.definition.name.clone();
    let before = ["/bin/sh".to_owned(), "-c".to_owned(), text, name];
    command.splice(0..0, before);
    command
}

/// Returns the respawn settings: threshold, delay and number of retries.
fn recovery(draft: &mut Draft<'_>) -> String {
    let Recovery {
        restart_after,
        reset_after,
        limit,
        ..
    } = &draft.definition.recovery;
    let Some(pause) = restart_after.first() else {
        return String::new();
    };
    draft.lose_growing_delays();
    draft.lose_kinds_of_exits();
    let pause = whole_seconds(*pause).max(1);
    let (threshold, retries) = match limit {
        Some((starts, window)) => (window, starts.saturating_sub(1).max(1)),
        // 0 means unlimited.
        None => (reset_after, 0),
    };
    let threshold = whole_seconds(*threshold).max(1);
    format!("\tprocd_set_param respawn {threshold} {pause} {retries}\n")
}

/// Formats a limit, soft and hard.
fn limit_of(limit: Limit, value: u64) -> String {
    let key = limit_name(limit);
    match value {
        u64::MAX => format!("{key}=unlimited"),
        value => format!("{key}={value} {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn another_signal_than_term_is_refused() {
        let error = Procd.unit(&golden::direct(), &golden::site()).unwrap_err();
        assert!(
            error.to_string().contains("procd sends TERM only"),
            "{error}"
        );
    }

    /// Tests against stand-ins for procd.sh's functions, which keep their arguments unchanged, and
    /// for procd.
    #[cfg(target_os = "linux")]
    #[test]
    fn hostile_values_arrive_as_they_are() {
        // The dot preserves trailing newlines, which $() removes.
        const STAND_INS: &str = r#"
procd_open_instance() { :; }
procd_close_instance() { :; }
quote() { for word; do printf " '%s.'" "$(printf '%s.' "$word" | sed "s/'/'\\\\''/g")"; done; }
procd_set_param() {
	type=$1
	shift
	case $type in
		command) words=$(quote "$@") ;;
		env) variables=$(quote "$@") ;;
	esac
}
"#;
        const RUN: &str = r#"
start_service
eval "set -- $variables"
for word; do export "${word%..}"; done
eval "set -- $words"
for word; do shift; set -- "$@" "${word%..}"; done
exec "$@"
"#;
        super::super::hostile::check_script(&Procd, |script| format!("{STAND_INS}{script}{RUN}"));
    }

    #[test]
    fn what_ubus_says_is_a_state() {
        let check = |said: &str, expected| {
            let status = status_of(said);
            assert_eq!(
                (status.state, status.pid, status.code, status.own_code),
                expected,
                "{said}"
            );
        };
        check(
            "running=true\npid=7\nexit_code=\n",
            (State::Running, Some(7), 0, 0),
        );
        check("running=true\npid=\n", (State::Stopped, None, 0, 0));
        check(
            "running=false\npid=\nexit_code=3\n",
            (State::Stopped, None, SERVICE_SPECIFIC, 3),
        );
        check(
            "running=false\npid=\nexit_code=0\n",
            (State::Stopped, None, 0, 0),
        );
        check(
            "running=false\npid=\nexit_code=\n",
            (State::Stopped, None, ABORTED, 0),
        );
        check("running=\npid=\nexit_code=\n", (State::Stopped, None, 0, 0));
        check("", (State::Stopped, None, 0, 0));
    }
}
