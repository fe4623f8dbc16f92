//! Upstart: jobs, and the output of `initctl status`. Without side effects.
//!
//! Everything that a shell can express is in the job's script, which becomes the program, because
//! Upstart's own stanzas have different quoting rules. A line `end script` would end the script,
//! and indentation is removed, so no value contains a literal newline.
//!
//! Sources: init(5), initctl(8) (1.12), "Upstart Intro, Cookbook and Best Practices".

use std::path::Path;

use super::draft::{Draft, joined, limit_name};
use super::shell::{self, head, quoted, whole_seconds, word};
use super::{
    Answer, Backend, Call, Entry, Facts, MARK, Order, Question, Sign, Site, Switch, Traces, Unit,
    Unsupported, limit_in,
};
use crate::{Account, Definition, Error, Manager, ServiceStatus, State, StopScope};

const JOBS: &str = "/etc/init";
/// The first version with `setuid`, as major version times 100 plus minor version.
const SETUID: u32 = 104;

/// Upstart as the system's init.
pub(crate) struct Upstart;

const FACTS: Facts = Facts {
    dir: JOBS,
    traces: Traces::All(&["/etc/init", "/sbin/initctl"]),
    signs: &[Sign::Init("init")],
    suffix: ".conf",
    ..Facts::of(Manager::Upstart)
};

impl Backend for Upstart {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error> {
        let Definition {
            name,
            graceful,
            limits,
            nice,
            reload_command,
            stop_scope,
            stop_signal,
            supervises,
            ..
        } = definition;
        let mut draft = shell::draft(definition, site);
        // A quoted token cannot contain these two characters.
        let title = draft.heading().replace('\\', "/").replace('"', "'");
        let mut job = format!(
            "{}\ndescription \"{title}\"\n",
            head(&format!("What is to stay goes into {name}.override."))
        );
        let (needs, wants) = (draft.needs(), draft.wants());
        let (started, stopping): (String, String) = (
            needs
                .iter()
                .chain(&wants)
                .map(|other| format!(" and started {other}"))
                .collect(),
            needs
                .iter()
                .map(|need| format!(" or stopping {need}"))
                .collect(),
        );
        job += &format!(
            "start on (runlevel [2345]{started})\nstop on (runlevel [!2345]{stopping})\n\nconsole log\numask 022\n"
        );
        if let Account::User(user, _) = &definition.account {
            if (1..SETUID).contains(&site.version) {
                draft.wrong("user accounts require Upstart 1.4");
            }
            job += &format!("setuid {user}\n");
        }
        if let Some(nice) = nice {
            job += &format!("nice {nice}\n");
        }
        for (limit, value) in limits {
            let (key, value) = (limit_name(*limit), limit_in(1, *value));
            job += &format!("limit {key} {value} {value}\n");
        }
        job += &format!("kill timeout {}\n", whole_seconds(*graceful).max(1));
        if stop_signal != "TERM" {
            job += &format!("kill signal SIG{stop_signal}\n");
        }
        if !supervises && *stop_scope == StopScope::Main {
            draft.lose("stop of the main process only: its process group receives the stop signal");
        }
        if !supervises {
            draft.lose("remaining processes outside its process group: they are not killed");
        }
        if reload_command.is_some() {
            draft.lose("reload command: `initctl reload` sends SIGHUP");
        }
        job += &recovery(&mut draft);
        job += &script(&mut draft);
        if let Some(words) = &definition.ready_check {
            let words = draft.texts("the ready check", words.iter().map(|word| &**word));
            job += &format!(
                "\npost-start script\n{NEW_LINE}\t{} || {{ initctl stop --no-wait \"$UPSTART_JOB\"; exit 1; }}\nend script\n",
                line(&words)
            );
        }
        let path = Path::new(JOBS).join(format!("{name}.conf"));
        draft.finish(vec![Entry::file(path, job)])
    }

    /// init(5), "Override File Handling".
    fn switch(&self, name: &str, _site: &Site) -> Switch {
        let path = Path::new(JOBS).join(format!("{name}.override"));
        Switch {
            off: vec![Entry::file(path, format!("# {MARK}\nmanual\n"))],
            ..Switch::default()
        }
    }

    /// For systems where Upstart does not detect file changes itself.
    fn take_notice(&self, _changed: &[&str], _site: &Site) -> Vec<Call> {
        vec![Call::new(["initctl", "reload-configuration"])]
    }

    fn control(
        &self,
        definition: &Definition,
        order: Order,
        state: State,
        _site: &Site,
    ) -> Result<Vec<Call>, Unsupported> {
        let call = |verb| Call::new(["initctl", verb, &definition.name]);
        Ok(match order {
            // Upstart's own restart keeps the job definition of the last start.
            Order::Restart if state == State::Stopped => vec![call("start")],
            Order::Restart => vec![call("stop"), call("start")],
            Order::Start | Order::Stop | Order::Reload => vec![call(order.as_str())],
            Order::Pause | Order::Resume => {
                return Err(Unsupported("Upstart does not support pausing: stop it"));
            }
        })
    }

    fn questions(&self, name: &str, _site: &Site) -> Vec<Question> {
        vec![Question::run(["initctl", "status", name])]
    }

    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus> {
        let answer = answers.first()?;
        (answer.code == Some(0)).then(|| status_of(&answer.text()))
    }

    fn version_question(&self) -> Option<Question> {
        Some(Question::run(["initctl", "--version"]))
    }

    /// Parses `initctl (upstart 1.12.1)`.
    fn version(&self, answer: &Answer) -> Option<u32> {
        let text = answer.text();
        let (_, version) = text.split_once("upstart ")?;
        let mut parts = version.split(|char: char| !char.is_ascii_digit());
        let (major, minor): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(major * 100 + minor)
    }

    fn journal(&self, name: &str, _site: &Site) -> String {
        format!("tail /var/log/upstart/{name}.log")
    }
}

/// Parses `orders start/running, process 1234`: a goal, a state and the main process.
fn status_of(said: &str) -> ServiceStatus {
    let line = said.lines().next().unwrap_or_default();
    let mut parts = line.split(", process ");
    let state = parts.next().and_then(|part| part.rsplit(' ').next());
    let pid = parts.next().and_then(|pid| pid.trim().parse().ok());
    let state = match state.and_then(|state| state.split_once('/')) {
        Some(("start", "running")) if pid.is_some() => State::Running,
        Some(("start" | "respawn", _)) => State::StartPending,
        Some(("stop", "waiting")) | None => State::Stopped,
        Some(("stop", _)) => State::StopPending,
        Some(_) => State::Stopped,
    };
    ServiceStatus::new(state, pid.filter(|_| state != State::Stopped))
}

/// Returns the restart settings.
fn recovery(draft: &mut Draft<'_>) -> String {
    let recovery = &draft.definition.recovery;
    let [first, ..] = &recovery.restart_after[..] else {
        return String::new();
    };
    let mut text = "\nrespawn\n".to_owned();
    text += &match recovery.limit {
        Some((starts, window)) => {
            format!("respawn limit {starts} {}\n", whole_seconds(window).max(1))
        }
        None => "respawn limit unlimited\n".to_owned(),
    };
    let mut clean: Vec<u8> = if recovery.crashes_only {
        // Upstart does not accept ranges. Signals are not included.
        (0..=u8::MAX).collect()
    } else {
        [0].iter()
            .chain(&recovery.clean)
            .chain(&recovery.halts)
            .copied()
            .collect()
    };
    clean.dedup();
    text += &format!("normal exit {}\n", joined(clean, " "));
    if !recovery.crashes_only && !recovery.halts.is_empty() {
        draft.lose("failure status of exit codes after which it stays down");
    }
    // Upstart would otherwise restart the service at once.
    let pause = whole_seconds(*first);
    if recovery.restart_after.iter().any(|other| other != first) {
        draft.lose(format!("growing restart delays: each is {pause}s"));
    }
    text += &format!(
        "post-stop script\n\tcase $(initctl status \"$UPSTART_JOB\") in *' start/'* | *' respawn/'*) sleep {pause} ;; esac\nend script\n"
    );
    text
}

/// A variable for the newline, which a value of a script must not contain literally.
const NEW_LINE: &str = "\t_nl=$(printf '\\nx') && _nl=${_nl%x}\n";

/// Returns the script that becomes the program.
fn script(draft: &mut Draft<'_>) -> String {
    let mut text = format!("\nscript\n{NEW_LINE}");
    if let Some(dir) = &draft.definition.working_dir {
        let dir = draft.path("the working directory", dir);
        text += &format!("\tcd {}\n", line(&[dir]));
    }
    let command = line(&draft.command());
    text += &format!("\tset -- {command}\n");
    if let Some(cpus) = draft.cpus() {
        let cpus = cpus.trim_start_matches("taskset ");
        text += &format!("\tset -- \"$(command -v taskset)\" {cpus} \"$@\"\n");
    }
    if let Some((call, function)) = draft.env_file() {
        text += &function
            .lines()
            .map(|line| format!("\t{line}\n"))
            .collect::<String>();
        text += &format!("\t{call}\n");
    }
    text += &draft.exports(one_word);
    text += "\texec \"$@\"\nend script\n";
    text
}

/// Quotes one word of a job's script.
fn one_word(text: &str) -> Option<String> {
    if text.contains('\n') {
        quoted(text).map(|word| word.replace('\n', "'\"$_nl\"'"))
    } else {
        word(text)
    }
}

fn line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().filter_map(|text| one_word(text)).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Extracts the script like Upstart: up to its end line, without indentation.
    #[cfg(target_os = "linux")]
    #[test]
    fn hostile_values_arrive_as_they_are() {
        super::super::hostile::check_script(&Upstart, |job| {
            let script = job.lines().skip_while(|line| *line != "script").skip(1);
            let script = script.take_while(|line| line.trim() != "end script");
            let lines = script.map(|line| line.trim_start());
            lines.map(|line| format!("{line}\n")).collect()
        });
    }

    #[test]
    fn what_initctl_says_is_a_state() {
        let check = |said: &str, expected| {
            let status = status_of(said);
            assert_eq!((status.state, status.pid), expected, "{said}");
        };
        check(
            "orders start/running, process 7\n",
            (State::Running, Some(7)),
        );
        check("orders start/running\n", (State::StartPending, None));
        check(
            "orders start/post-start, process 7\n\tpost-start process 8\n",
            (State::StartPending, Some(7)),
        );
        check("orders stop/waiting\n", (State::Stopped, None));
        check(
            "orders stop/killed, process 7\n",
            (State::StopPending, Some(7)),
        );
        check("what?\n", (State::Stopped, None));
        let version = |text: &str| {
            let output = text.into();
            let code = Some(0);
            Backend::version(&Upstart, &Answer { code, output })
        };
        assert_eq!(version("initctl (upstart 1.12.1)\n"), Some(112));
        assert_eq!(version("initctl (upstart 0.6.5)\n"), Some(6));
    }
}
