//! The Service Management Facility of illumos and Solaris: manifests, and the output of svcprop(1).
//!
//! The service is a "wait" service (`duration` is `child`): its method becomes the program, and the
//! program's exit ends the service. Processes that the program has started may crash
//! (`ignore_error`). They outlive it in the contract that svc.startd abandons. The service is
//! restarted after any exit except code 96, which puts it into maintenance. If a definition has
//! other final exits, a shell remains as the program's parent to return 96.
//!
//! svc.startd stores the enablement at boot separately from the temporary one (svcadm(8), `-t`).
//! One can therefore be set without the other, and importing a service does not enable it.
//!
//! Sources: service_bundle(5), smf_method(7), svc.startd(8), svccfg(8), svcadm(8), svcprop(1),
//! svc.startd's own method.c and wait.c.

use std::fmt::Write as _;

use super::checked::{self, Checked, whole_seconds};
use super::draft::{is_made_of, joined};
use super::{
    Answer, Backend, Call, Entry, Facts, MARK, Order, Question, Sign, Site, Switch, Traces, Unit,
    Unsupported, sh, xml,
};
use crate::scm::refusal::ABORTED;
use crate::{Accepts, Definition, Error, Manager, ServiceStatus, Start, State, StopScope};

const DIR: &str = "/lib/svc/manifest/site";
/// Updates the service `$1` from its file `$2`. A removed service is deleted again, because Solaris
/// 11 only hides it while its file exists.
const IMPORT: &str = r#"if [ -f "$2" ]; then
	/usr/sbin/svccfg import "$2"
else
	/usr/sbin/svccfg delete -f "$1" 2>/dev/null || :
fi
"#;
/// Sets whether the service `$1` starts at boot to `$3` and keeps its current state. The service
/// may exist only as the file `$2`.
const ENABLE: &str = r#"/usr/bin/svcprop -q -p general/enabled "$1:default" 2>/dev/null || /usr/sbin/svccfg import "$2" || exit 1
case $(/usr/bin/svcprop -p restarter/state "$1:default" 2>/dev/null) in
online* | degraded* | offline*) now=enable ;;
*) now=disable ;;
esac
/usr/sbin/svcadm $now -t "$1:default" && /usr/sbin/svccfg -s "$1:default" setprop general/enabled = boolean: "$3"
"#;

/// The backend for illumos and Solaris.
pub(crate) struct Smf;

const FACTS: Facts = Facts {
    dir: DIR,
    traces: Traces::All(&[DIR]),
    signs: &[Sign::Path("/lib/svc/bin/svc.startd")],
    suffix: ".xml",
    ..Facts::of(Manager::Smf)
};

impl Backend for Smf {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error> {
        let Definition { name, start, .. } = definition;
        let mut it = Checked::new(definition, site, xml::can_say);
        let title = it.draft.title().unwrap_or(name);
        it.text("the description", title.as_ref());
        let dependencies = dependencies(&mut it);
        let methods = methods(&mut it);
        it.lose_nice();
        it.draft.lose_readiness();
        it.lose_listen();
        it.lose_cpus();
        // A service that is imported as enabled would start at once. In an image, this is the only
        // place for the setting.
        let is_enabled = site.is_staged && matches!(start, Start::Automatic | Start::Delayed);
        let text = format!(
            r#"<?xml version="1.0"?>
<!DOCTYPE service_bundle SYSTEM "/usr/share/lib/xml/dtd/service_bundle.dtd.1">
<!-- {MARK} -->
<service_bundle type="manifest" name="{name}">
<service name="site/{name}" type="service" version="1">
	<create_default_instance enabled="{is_enabled}"/>
{dependencies}{context}{methods}	<property_group name="startd" type="framework">
		<propval name="duration" type="astring" value="child"/>
		<propval name="ignore_error" type="astring" value="core,signal"/>
	</property_group>
	<stability value="Unstable"/>
	<template>
		<common_name><loctext xml:lang="C">{title}</loctext></common_name>
	</template>
</service>
</service_bundle>
"#,
            context = context(&it),
            title = xml::escaped(title),
        );
        it.finish(vec![Entry::file(format!("{DIR}/{name}.xml"), text)])
    }

    fn switch(&self, name: &str, _site: &Site) -> Switch {
        Switch {
            turn_on: vec![script(ENABLE, name, &["true"])],
            turn_off: vec![script(ENABLE, name, &["false"])],
            ..Switch::default()
        }
    }

    fn enabled_questions(&self, name: &str, _site: &Site) -> Vec<Question> {
        let argv = ["/usr/bin/svcprop", "-p", "general/enabled", &instance(name)];
        vec![Question::run(argv)]
    }

    fn is_enabled(&self, _name: &str, answers: &[Answer]) -> bool {
        answers
            .first()
            .is_some_and(|answer| answer.text().trim() == "true")
    }

    fn take_notice(&self, changed: &[&str], _site: &Site) -> Vec<Call> {
        changed
            .iter()
            .map(|name| script(IMPORT, name, &[]))
            .collect()
    }

    fn let_go(&self, name: &str, _site: &Site) -> Vec<Call> {
        let delete = ["/usr/sbin/svccfg", "delete", "-f", &service(name)];
        vec![
            svcadm(&["disable", "-st"], name).may_fail(),
            Call::new(delete).may_fail(),
        ]
    }

    fn control(
        &self,
        definition: &Definition,
        order: Order,
        _state: State,
        _site: &Site,
    ) -> Result<Vec<Call>, Unsupported> {
        let name = &*definition.name;
        // A service in maintenance stays there until it is cleared. A service that does not stop in
        // time enters maintenance.
        let clear = svcadm(&["clear"], name).may_fail();
        let disable = svcadm(&["disable", "-st"], name);
        let enable = svcadm(&["enable", "-st"], name);
        let stop = [disable.clone().may_fail(), clear, disable];
        Ok(match order {
            Order::Stop => stop.into(),
            Order::Start | Order::Restart => {
                let calls = stop.into_iter().chain([enable]);
                calls.chain(checked::ready_check(definition)).collect()
            }
            Order::Reload => {
                let has_method = [
                    "/usr/bin/svcprop",
                    "-q",
                    "-p",
                    "refresh/exec",
                    &instance(name),
                ];
                vec![Call::new(has_method), svcadm(&["refresh"], name)]
            }
            Order::Pause | Order::Resume => {
                return Err(Unsupported("SMF does not support pausing"));
            }
        })
    }

    fn questions(&self, name: &str, _site: &Site) -> Vec<Question> {
        let argv = ["/usr/bin/svcprop", "-p", "restarter", &instance(name)];
        vec![Question::run(argv)]
    }

    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus> {
        let answer = answers.first().filter(|answer| answer.code == Some(0))?;
        Some(status(&answer.text()))
    }

    fn journal(&self, name: &str, _site: &Site) -> String {
        format!("svcs -x {name}; tail /var/svc/log/site-{name}:default.log")
    }
}

fn service(name: &str) -> String {
    format!("svc:/site/{name}")
}

fn instance(name: &str) -> String {
    format!("{}:default", service(name))
}

fn svcadm(verb: &[&str], name: &str) -> Call {
    let instance = instance(name);
    let words = ["/usr/sbin/svcadm"].into_iter().chain(verb.iter().copied());
    Call::new(words.chain([&*instance]))
}

fn script(text: &str, name: &str, arguments: &[&str]) -> Call {
    let (service, path) = (service(name), format!("{DIR}/{name}.xml"));
    let words = ["/bin/sh", "-c", text, "smf", &service, &path];
    Call::new(words.into_iter().chain(arguments.iter().copied()))
}

fn dependencies(it: &mut Checked<'_>) -> String {
    let mut text = String::new();
    let mut add = |name: &str, grouping: &str, instance: &str| {
        let _infallible = write!(
            text,
            "\t<dependency name=\"{name}\" grouping=\"{grouping}\" restart_on=\"none\" type=\"service\">\n\
             \t\t<service_fmri value=\"{instance}\"/>\n\t</dependency>\n"
        );
    };
    add(
        "filesystem",
        "require_all",
        "svc:/system/filesystem/local:default",
    );
    add("network", "optional_all", "svc:/milestone/network:default");
    let definition = it.definition;
    let needs = definition.needs.iter().chain(&definition.wants);
    for (number, need) in needs.enumerate() {
        let is_valid = is_made_of(need, b"_.,+:/-");
        if !it.draft.check_service(need, is_valid) {
            continue;
        }
        let fmri = match need {
            need if need.starts_with("svc:/") => need.clone(),
            need if need.contains('/') => format!("svc:/{need}"),
            // A service of this library.
            need => instance(need),
        };
        add(&format!("need-{number}"), "require_all", &fmri);
    }
    text
}

/// Returns the user, directory and environment of each method.
fn context(it: &Checked<'_>) -> String {
    let mut text = format!(
        "\t<method_context working_directory=\"{}\">\n\t\t<method_credential user=\"{}\" group=\":default\"/>\n",
        xml::escaped(it.working_dir.unwrap_or("/")),
        xml::escaped(it.user.unwrap_or("root")),
    );
    if !it.env.is_empty() {
        text += "\t\t<method_environment>\n";
        for (name, value) in &it.env {
            let value = xml::escaped(value);
            let _infallible = writeln!(text, "\t\t\t<envvar name=\"{name}\" value=\"{value}\"/>");
        }
        text += "\t\t</method_environment>\n";
    }
    text + "\t</method_context>\n"
}

fn methods(it: &mut Checked<'_>) -> String {
    let definition = it.definition;
    let parent = parent(it);
    // Addresses the program through the process that svc.startd started.
    let tell = |signal: &str| match parent {
        None => format!("kill -{signal} \"$1\""),
        Some(_) => format!("/usr/bin/pkill -{signal} -P \"$1\""),
    };
    let tell = |signal: &str| {
        // The program may just have exited.
        let script = format!("{} 2>/dev/null || :", tell(signal));
        let words = sh::command_line(["/bin/sh", "-c", &script, "sh"]);
        tokens(&words) + " %{restarter/start_pid}"
    };
    let start = tokens(&start(it, parent.as_deref()));
    let stop = match definition.stop_scope {
        StopScope::Main => tell(&definition.stop_signal),
        StopScope::Tree => format!(":kill -{}", definition.stop_signal),
    };
    let reload = match it.reload_line() {
        Some(line) => Some(tokens(&line)),
        None => definition
            .accepts
            .contains(Accepts::RELOAD)
            .then(|| tell("HUP")),
    };
    let graceful = whole_seconds(definition.graceful);
    let mut text = String::new();
    let mut add = |name: &str, exec: &str, timeout: u64| {
        let exec = xml::escaped(exec);
        let _infallible = writeln!(
            text,
            "\t<exec_method type=\"method\" name=\"{name}\" exec=\"{exec}\" timeout_seconds=\"{timeout}\"/>"
        );
    };
    // svc.startd does not wait for a program that is its own child.
    add("start", &start, 0);
    add("stop", &stop, graceful);
    if let Some(reload) = reload {
        add("refresh", &reload, 60);
    }
    text
}

/// Escapes `%`, because svc.startd expands tokens: smf_method(7), "Method Tokens".
fn tokens(exec: &str) -> String {
    exec.replace('%', "%%")
}

/// Returns the script part with which the shell that remains as the program's parent maps the exit
/// code, or `None` if no such shell is needed. The shell is ksh93 on these systems, where an exit
/// by a signal is 256 or more, unlike any code of the program itself.
fn parent(it: &mut Checked<'_>) -> Option<String> {
    let recovery = &it.definition.recovery;
    let halts = joined(&recovery.halts, " | ");
    let ends = match (recovery.restart_after.is_empty(), recovery.crashes_only) {
        (true, _) => "exit 96".to_owned(),
        (false, true) => "[ $? -gt 256 ] || exit 96\nexit 1".to_owned(),
        (false, false) => {
            it.lose("no restart after a clean exit: SMF restarts it after every exit");
            // A program that uses this library maps its exit code itself.
            if halts.is_empty() || it.definition.executable.is_none() {
                it.lose_pauses();
                return None;
            }
            format!("case $? in {halts}) exit 96 ;; esac\nexit 1")
        }
    };
    if !recovery.restart_after.is_empty() {
        it.lose_pauses();
    }
    it.lose("code of a final exit: SMF reports maintenance");
    Some(ends)
}

impl Checked<'_> {
    fn lose_pauses(&mut self) {
        self.lose("restart delay: SMF restarts it at once, or after 1s if it fails too often");
        if self.definition.recovery.limit.is_some() {
            self.lose("restart limit");
        }
    }
}

/// Returns the start command, before which svc.startd inserts `exec`.
fn start(it: &mut Checked<'_>, parent: Option<&str>) -> String {
    let nice = it.definition.nice;
    let mut script = String::new();
    if let Some(path) = it.env_file {
        script += &sh::read_env_file(path, &it.env);
    }
    // In units of 512 bytes: ksh93(1).
    script += &it.ulimits(None, 96);
    let nice = nice.map(|nice| format!("/usr/bin/nice -n {nice} "));
    let nice = nice.unwrap_or_default();
    match parent {
        None if script.is_empty() => return nice + &sh::command_line(it.argv.iter().copied()),
        None => {
            let _infallible = writeln!(script, "exec {nice}\"$@\"");
        }
        Some(ends) => {
            // Trapped rather than ignored, because the program would inherit an ignored signal.
            let _infallible = writeln!(script, "trap : TERM\n{nice}\"$@\"\n{ends}");
        }
    }
    let shell = ["/bin/sh", "-c", &script, "sh"];
    sh::command_line(shell.into_iter().chain(it.argv.iter().copied()))
}

/// Parses the output of `svcprop -p restarter`: lines of a property, its type and its value.
fn status(said: &str) -> ServiceStatus {
    let property = |name: &str| {
        said.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next()?.strip_prefix("restarter/")? == name).then(|| words.nth(1))?
        })
    };
    let next = property("next_state").filter(|next| *next != "none");
    let state = match (property("state"), next) {
        (Some("online" | "degraded"), None) => State::Running,
        (Some("online" | "degraded"), Some(_)) => State::StopPending,
        (Some("offline" | "uninitialized"), Some("disabled" | "maintenance")) => State::StopPending,
        // Waiting for its dependencies, or between two starts.
        (Some("offline"), _) => State::StartPending,
        _ => State::Stopped,
    };
    let pid = property("start_pid").and_then(|pid| pid.parse().ok());
    match (state, pid, property("state")) {
        (State::Running, None, _) => ServiceStatus::new(State::Stopped, None),
        (State::Running, pid, _) => ServiceStatus::new(state, pid),
        (State::Stopped, _, Some("maintenance")) => ServiceStatus {
            code: ABORTED,
            ..ServiceStatus::new(State::Stopped, None)
        },
        _ => ServiceStatus::new(state, None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Content;
    use super::super::checked::examples;
    use super::*;
    use crate::service as definition;

    fn text_of(definition: &Definition) -> (String, Vec<String>) {
        let unit = Smf.unit(definition, &examples::site()).unwrap();
        match unit.entries.into_iter().next().unwrap().content {
            Content::File { text, .. } => (text, unit.losses),
            Content::Link(_) => unreachable!("a manifest is a file"),
        }
    }

    #[test]
    fn a_library_program_is_a_child_of_startd() {
        let (text, losses) = text_of(&examples::library());
        assert!(super::super::is_ours(&text), "{text}");
        let (_head, body) = text.split_once("<service_bundle ").unwrap();
        let expected = r#"type="manifest" name="orders">
<service name="site/orders" type="service" version="1">
	<create_default_instance enabled="false"/>
	<dependency name="filesystem" grouping="require_all" restart_on="none" type="service">
		<service_fmri value="svc:/system/filesystem/local:default"/>
	</dependency>
	<dependency name="network" grouping="optional_all" restart_on="none" type="service">
		<service_fmri value="svc:/milestone/network:default"/>
	</dependency>
	<dependency name="need-0" grouping="require_all" restart_on="none" type="service">
		<service_fmri value="svc:/site/postgresql:default"/>
	</dependency>
	<method_context working_directory="/">
		<method_credential user="joe" group=":default"/>
	</method_context>
	<exec_method type="method" name="start" exec="/opt/orders/orders run" timeout_seconds="0"/>
	<exec_method type="method" name="stop" exec="/bin/sh -c 'kill -TERM &quot;$1&quot; 2&gt;/dev/null || :' sh %{restarter/start_pid}" timeout_seconds="2"/>
	<exec_method type="method" name="refresh" exec="/bin/sh -c 'kill -HUP &quot;$1&quot; 2&gt;/dev/null || :' sh %{restarter/start_pid}" timeout_seconds="60"/>
	<property_group name="startd" type="framework">
		<propval name="duration" type="astring" value="child"/>
		<propval name="ignore_error" type="astring" value="core,signal"/>
	</property_group>
	<stability value="Unstable"/>
	<template>
		<common_name><loctext xml:lang="C">Orders, 100 % &lt;b&gt;</loctext></common_name>
	</template>
</service>
</service_bundle>
"#;
        assert_eq!(body, expected);
        assert_eq!(
            losses,
            [
                "no restart after a clean exit: SMF restarts it after every exit",
                "restart delay: SMF restarts it at once, or after 1s if it fails too often",
                "readiness: it counts as ready as soon as its program runs",
            ]
        );
        let staged = Site {
            is_staged: true,
            ..examples::site()
        };
        let unit = Smf.unit(&examples::library(), &staged).unwrap();
        let is_enabled = matches!(&unit.entries[0].content, Content::File { text, .. } if text.contains("instance enabled=\"true\""));
        assert!(is_enabled);
    }

    #[test]
    fn a_supervisor_that_ended_in_order_is_left_alone() {
        let (text, losses) = text_of(&examples::hosted());
        let start = "exec=\"/bin/sh -c 'trap : TERM&#10;&quot;$@&quot;&#10;[ $? -gt 256 ] || exit 96&#10;exit 1&#10;' sh /usr/local/bin/mainstay host orders\" timeout_seconds=\"0\"";
        let stop = "/usr/bin/pkill -TERM -P &quot;$1&quot;";
        assert!(text.contains(start) && text.contains(stop), "{text}");
        assert_eq!(
            losses,
            [
                "restart delay: SMF restarts it at once, or after 1s if it fails too often",
                "code of a final exit: SMF reports maintenance",
            ]
        );
    }

    #[test]
    fn everything_a_program_may_have_is_said_or_lost() {
        let (text, losses) = text_of(&examples::direct());
        for part in [
            "<method_context working_directory=\"/srv/a b\">",
            "<envvar name=\"A\" value=\"1 &quot;$2&quot;\"/>",
            "ulimit -n 1024 || exit 96&#10;",
            "/usr/bin/nice -n -5 &quot;$@&quot;&#10;case $? in 78) exit 96 ;; esac&#10;exit 1&#10;",
            " sh /usr/bin/orders -c 'it'\\''s $HOME'\"",
            "name=\"stop\" exec=\":kill -INT\"",
            "name=\"refresh\" exec=\"/usr/bin/orders 'reload it'\"",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(
            losses,
            [
                "reading `env_file` as root: the user of the service must be able to read it",
                "`watchdog`: a service that hangs is not restarted",
                "no restart after a clean exit: SMF restarts it after every exit",
                "restart delay: SMF restarts it at once, or after 1s if it fails too often",
                "restart limit",
                "code of a final exit: SMF reports maintenance",
                "negative nice value of a program that runs as a user",
                "`listen`: no sockets are opened for it",
                "CPU affinity",
            ]
        );
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let wrong = definition("orders")
            .needs("a b")
            .arguments(["\u{fffe}"])
            .executable("x");
        let error = Smf.unit(&wrong, &examples::site()).unwrap_err().to_string();
        for part in [
            "not an absolute path",
            "\"a b\" is not",
            "the command line contains",
            "--account user:NAME",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn what_svcprop_says_is_a_state() {
        let says = |said: &str| {
            let status = status(said);
            (status.state, status.pid, status.exit_code())
        };
        let online = "restarter/logfile astring /var/svc/log/site-orders:default.log
restarter/contract count 131
restarter/start_pid count 702
restarter/start_method_timestamp time 1444982937.336603000
restarter/start_method_waitstatus integer 0
restarter/auxiliary_state astring dependencies_satisfied
restarter/next_state astring none
restarter/state astring online
restarter/state_timestamp time 1444982937.339000000
";
        assert_eq!(says(online), (State::Running, Some(702), Some(0)));
        let state = |state: &str, next: &str| {
            let said = online.replace("/state astring online", &format!("/state astring {state}"));
            let said = said.replace(
                "next_state astring none",
                &format!("next_state astring {next}"),
            );
            let (state, _pid, code) = says(&said);
            (state, code)
        };
        assert_eq!(state("online", "disabled"), (State::StopPending, Some(0)));
        assert_eq!(state("offline", "online"), (State::StartPending, Some(0)));
        assert_eq!(state("offline", "none"), (State::StartPending, Some(0)));
        assert_eq!(state("disabled", "none"), (State::Stopped, Some(0)));
        assert_eq!(state("maintenance", "none"), (State::Stopped, None));
        for odd in [
            "",
            "restarter/state astring online\n",
            "x/state astring online\nrestarter/start_pid count 5\n",
            "restarter/state astring onlineish\nrestarter/start_pid count 5\n",
        ] {
            assert_eq!(says(odd).0, State::Stopped, "{odd}");
        }
        let gone = Answer {
            code: Some(1),
            output: online.into(),
        };
        assert_eq!(Smf.status(&[gone]), None);
    }

    /// Tests the exit codes that the shell that remains as the program's parent returns to
    /// svc.startd.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_final_end_is_told_from_a_crash() {
        use crate::Recovery;
        use std::process::Command;
        use std::time::Duration;

        if Command::new("ksh93").args(["-c", ":"]).status().is_err() {
            return mainstay_testkit::skip("ksh93, the shell of these systems, is not installed");
        }
        let code = |recovery: &Recovery, script: &str| {
            let definition = examples::hosted()
                .executable("/bin/dash")
                .arguments(["-c", script]);
            let definition = definition.recovery(recovery.clone());
            let site = examples::site();
            let mut it = Checked::new(&definition, &site, xml::can_say);
            let parent = parent(&mut it);
            let exec = format!("exec {}", super::start(&mut it, parent.as_deref()));
            let exec = exec.replace("/bin/sh", "ksh93");
            Command::new("ksh93")
                .args(["-c", &exec])
                .output()
                .unwrap()
                .status
                .code()
        };
        let crashes = Recovery {
            crashes_only: true,
            ..Recovery::default()
        };
        assert_eq!(code(&crashes, "exit 0"), Some(96));
        assert_eq!(code(&crashes, "exit 137"), Some(96));
        assert_eq!(code(&crashes, "exit 255"), Some(96));
        assert_eq!(code(&crashes, "kill -KILL $$"), Some(1));
        assert_eq!(
            code(&crashes, "kill -TERM $$"),
            Some(1),
            "it is not ignored"
        );
        let never = Recovery {
            restart_after: Vec::new(),
            ..Recovery::default()
        };
        assert_eq!(code(&never, "kill -KILL $$"), Some(96));
        let halts = Recovery {
            halts: [78, 79].into(),
            restart_after: vec![Duration::ZERO],
            ..Recovery::default()
        };
        assert_eq!(code(&halts, "exit 79"), Some(96));
        assert_eq!(code(&halts, "exit 3"), Some(1));
    }

    /// Tests the scripts against stand-ins for SMF's commands, which keep their state in files.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_starts_with_the_system_is_set_without_starting_it() {
        use std::process::Command;

        // A service runs according to its temporary setting, or else according to its permanent
        // one.
        const SMF: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
runs() { if [ -e temporary ]; then cat temporary; else cat lasting; fi; }
case "${0##*/} $1" in
"svccfg import") [ -e "$2" ] || exit 1; [ -e lasting ] || echo false > lasting ;;
"svccfg delete") [ -e lasting ] || exit 1; rm -f lasting temporary ;;
"svccfg -s") [ -e lasting ] || exit 1; echo "$7" > lasting ;;
"svcadm enable") [ "$2" = -t ] && echo true > temporary ;;
"svcadm disable") [ "$2" = -t ] && echo false > temporary ;;
svcprop*) [ -e lasting ] || exit 1; [ "$(runs)" = true ] && echo online || echo disabled ;;
esac
[ ! -e lasting ] || [ "$(runs)" = false ] || echo ran >> ran
"#;
        let root = std::env::temp_dir().join(format!("mainstay-svc-{}", std::process::id()));
        std::fs::create_dir(&root).unwrap();
        for tool in ["svccfg", "svcadm", "svcprop"] {
            let path = root.join(tool);
            std::fs::write(&path, SMF).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).unwrap();
        }
        let here = root.to_str().unwrap();
        let put = |file: &str, text: &str| std::fs::write(root.join(file), text).unwrap();
        let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
        let run = |calls: Vec<Call>| {
            for call in calls {
                let argv = call.argv.iter().map(|word| {
                    let word = word.replace("/usr/sbin", here).replace("/usr/bin", here);
                    word.replace(DIR, here)
                });
                let argv: Vec<String> = argv.collect();
                let status = Command::new(&argv[0]).args(&argv[1..]).status().unwrap();
                assert!(status.success(), "{call}");
            }
        };
        let site = examples::site();
        let switch = || Smf.switch("orders", &site);
        let is = |lasting: &str, ran: bool| {
            assert_eq!(read("lasting").as_deref().map(str::trim), Some(lasting));
            assert_eq!(read("ran").is_some(), ran);
        };
        put("orders.xml", "");
        run(switch().turn_on);
        is("true", false);
        run(Smf.take_notice(&["orders"], &site));
        is("true", false);
        run(switch().turn_off);
        is("false", false);
        put("temporary", "true");
        run(switch().turn_on);
        is("true", true);
        run(switch().turn_off);
        is("false", true);
        assert_eq!(read("temporary").unwrap().trim(), "true", "it runs on");
        std::fs::remove_file(root.join("orders.xml")).unwrap();
        run(Smf.take_notice(&["orders"], &site));
        assert_eq!(read("lasting"), None);
        run(Smf.take_notice(&["orders"], &site));
        std::fs::remove_dir_all(&root).unwrap();
    }

    /// The part of service_bundle.dtd.1 that is used here: the nesting and the order of elements.
    #[cfg(target_os = "linux")]
    const DTD: &str = "
<!ELEMENT service_bundle (service*)> <!ATTLIST service_bundle type CDATA #REQUIRED name CDATA #REQUIRED>
<!ELEMENT service (create_default_instance?, dependency*, method_context?, exec_method*, property_group*, stability?, template?)>
<!ATTLIST service name CDATA #REQUIRED version CDATA #REQUIRED type (service|restarter|milestone) #REQUIRED>
<!ELEMENT create_default_instance EMPTY> <!ATTLIST create_default_instance enabled (true|false) #REQUIRED>
<!ELEMENT dependency (service_fmri*)>
<!ATTLIST dependency name CDATA #REQUIRED grouping (require_all|require_any|exclude_all|optional_all) #REQUIRED
  restart_on (error|restart|refresh|none) #REQUIRED type CDATA #REQUIRED>
<!ELEMENT service_fmri EMPTY> <!ATTLIST service_fmri value CDATA #REQUIRED>
<!ELEMENT method_context (method_credential?, method_environment?)> <!ATTLIST method_context working_directory CDATA #IMPLIED>
<!ELEMENT method_credential EMPTY> <!ATTLIST method_credential user CDATA #REQUIRED group CDATA #IMPLIED>
<!ELEMENT method_environment (envvar+)> <!ELEMENT envvar EMPTY> <!ATTLIST envvar name CDATA #REQUIRED value CDATA #REQUIRED>
<!ELEMENT exec_method EMPTY>
<!ATTLIST exec_method type (method|monitor) #REQUIRED name CDATA #REQUIRED exec CDATA #REQUIRED timeout_seconds CDATA #REQUIRED>
<!ELEMENT property_group (propval*)> <!ATTLIST property_group name CDATA #REQUIRED type CDATA #REQUIRED>
<!ELEMENT propval EMPTY> <!ATTLIST propval name CDATA #REQUIRED type (astring|boolean) #REQUIRED value CDATA #REQUIRED>
<!ELEMENT stability EMPTY> <!ATTLIST stability value (Standard|Stable|Evolving|Unstable|External|Obsolete) #REQUIRED>
<!ELEMENT template (common_name)> <!ELEMENT common_name (loctext+)>
<!ELEMENT loctext (#PCDATA)> <!ATTLIST loctext xml:lang CDATA #REQUIRED>
";

    /// Arbitrary arguments and values of a manifest reach the program through svc.startd unchanged.
    #[cfg(target_os = "linux")]
    #[test]
    fn hostile_values_arrive_as_they_are() {
        use crate::{Account, Recovery};
        use proptest::prelude::*;
        use proptest::strategy::ValueTree as _;
        use proptest::test_runner::TestRunner;
        use std::process::{Command, Stdio};

        // Like method.c and expand.c: `exec` is inserted before the command, and a shell of these
        // systems parses the rest.
        let startd = r#"
import re, subprocess, sys, xml.etree.ElementTree as tree
shell, paths = sys.argv[1], sys.argv[2:]
def token(match):
    if match[1] != "%": sys.exit("unknown method token")
    return "%"
for path in paths:
    bundle = tree.parse(path)
    exec = bundle.find(".//exec_method[@name='start']").get("exec")
    exec = re.sub("%(.|$)", token, exec, flags=re.S).replace("/bin/sh", shell)
    env = {it.get("name"): it.get("value") for it in bundle.iter("envvar")}
    env["PATH"] = "/usr/sbin:/usr/bin"
    place = bundle.find(".//method_context").get("working_directory")
    said = subprocess.run([shell, "-c", "exec " + exec], env=env, cwd=place, stdout=subprocess.PIPE)
    title = bundle.find(".//loctext").text or ""
    sys.stdout.buffer.write(said.stdout + title.encode() + b"END")
"#;
        let has = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
        for tool in ["python3", "xmllint"] {
            if !has(tool) {
                return mainstay_testkit::skip(format!("{tool} is not installed"));
            }
        }
        let shell = if has("ksh93") {
            "/usr/bin/ksh93"
        } else {
            "/usr/bin/dash"
        };
        let root = std::env::temp_dir().join(format!("mainstay-smf-{}", std::process::id()));
        std::fs::create_dir(&root).unwrap();
        let dump = root.join("dump 100% it's");
        let says = "#!/usr/bin/dash\nfor word; do printf '%s\\0' \"$word\"; done\nprintf '%s\\0' \"$VALUE\" \"$PWD\"\n";
        std::fs::write(&dump, says).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&dump, mode).unwrap();
        let dtd = root.join("dtd");
        std::fs::write(&dtd, DTD).unwrap();
        let odd = "[ \\t\\n\\r\"'\\\\%$;#=,:!@|<>&{}()\\[\\]*?~`a-cn0-9é€😀\\x7f-]{0,12}";
        let cases = (prop::collection::vec(odd, 0..6), odd, odd);
        let mut runner = TestRunner::deterministic();
        let mut drawn: Vec<(Vec<String>, String, String)> = (0..60)
            .map(|_| cases.new_tree(&mut runner).unwrap().current())
            .collect();
        let edges = [
            "",
            "-x",
            "%s",
            "%%",
            "%{restarter/state}",
            "]]>",
            "-->",
            "&amp;",
            ":kill",
            "\r\n",
        ];
        drawn.push((
            edges.map(str::to_owned).into(),
            "%f &lt;".to_owned(),
            "%".to_owned(),
        ));
        let mut files = Vec::new();
        let mut expected = String::new();
        for (number, (words, value, place)) in drawn.iter().enumerate() {
            let place = root.join(format!("{number}{place}x"));
            std::fs::create_dir(&place).unwrap();
            let place = place.to_str().unwrap().to_owned();
            let mut it = definition("orders")
                .account(Account::LocalSystem)
                .description(value)
                .executable(&dump)
                .arguments(words)
                .env("VALUE", value)
                .reload_command(words)
                .working_dir(&place);
            if number % 2 == 0 {
                it = it.recovery(Recovery {
                    crashes_only: true,
                    ..Recovery::default()
                });
            }
            let path = root.join(format!("{number}.xml"));
            std::fs::write(&path, text_of(&it).0).unwrap();
            files.push(path);
            for word in words.iter().chain([value, &place]) {
                expected += &format!("{word}\0");
            }
            expected += &format!("{value}END");
        }
        let said = Command::new("python3")
            .args(["-c", startd, shell])
            .args(&files)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
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
        std::fs::remove_dir_all(&root).unwrap();
    }
}
