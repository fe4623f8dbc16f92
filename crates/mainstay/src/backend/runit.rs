//! runit: a service directory for runsv(8), and the status that runsv writes into it.
//!
//! Sources: runsv(8), runsvdir(8), sv(8), chpst(8), svlogd(8); `supervise/status` as defined by
//! sv.c and runsv.c of runit 2.1.2.

use std::path::PathBuf;
use std::time::Duration;

use super::checked::{Checked, whole_seconds};
use super::run_script::{self, Dialect, shell, text};
use super::{
    Answer, Backend, Call, Entry, Facts, MARK, Order, Question, Sign, Site, Switch, TakeIn, Traces,
    Unit, Unsupported, sh,
};
use crate::{Accepts, Definition, Error, Manager, ServiceStatus, State};

/// The directories of available services: Debian and Void, Artix.
const SERVICE_DIRS: &[&str] = &["/etc/sv", "/etc/runit/sv"];
/// The directories of active services, which are links: Debian, Void, Artix, others.
const SCAN_DIRS: &[&str] = &[
    "/etc/service",
    "/var/service",
    "/run/runit/service",
    "/service",
];
/// The directory of active services in a system that is not running. The usual ones are links that
/// may lead out of the image.
const STAGED_SCAN_DIR: &str = "/etc/runit/runsvdir/default";
const LOG_DIR: &str = "/var/log/runit";

const DIALECT: Dialect = Dialect {
    // By name, chpst would set only the user's primary group.
    as_user: |user| format!("chpst -u \":$(id -u {user}):$(id -G {user} | tr ' ' :)\" "),
    own_limits: &[],
    start: Some(|need| format!("sv -w 60 start {need}")),
    ask: Some(|need| format!("sv up {need}")),
    begin: "rm -f supervise/asked supervise/exit\n",
    open_ready: "exec 3>supervise/ready\n",
    close_ready: "[ ! -e supervise/ready ] || : >supervise/ready\n",
    is_wanted: "\tread -r state <supervise/stat\n\tcase $state in *'want down'* | *'want exit'*) return 1 ;; esac\n",
    // Waits until runsv has received the command, because the end of this script would be followed
    // by a start.
    stay_down: "\tsv down .\n\ttries=100\n\twhile is_wanted && [ \"$tries\" -gt 0 ]; do sleep 0.1 || sleep 1; tries=$((tries - 1)); done\n\texit 0\n",
};

/// Waits until there is a runsv for `$1`.
const TAKE_IN: &str = r#"
tries=150
until sv status "$1" >/dev/null 2>&1; do
    [ "$tries" -gt 0 ] || { echo "no runsv has come for $1: is runsvdir running?" >&2; exit 1; }
    sleep 0.1 || sleep 1; tries=$((tries - 1))
done"#;
const LET_GO: &str = r#"
rm -f "$1"
sv -w 15 force-shutdown "$2" || sv -w 5 exit "$2"
! sv status "$2" >/dev/null 2>&1 || { echo "runsv goes on with $2" >&2; exit 1; }
rm -rf "$2/supervise" "$2/log/supervise""#;

/// Starts the service and waits until it is ready. `run` removes the `asked` file, and `check`
/// reports readiness. A failed start is detected at the program's first exit.
const START: &str = r#"
cd "$1" && : >supervise/asked && sv up . || exit 1
end=$(($(date +%s) + $2))
until [ ! -e supervise/asked ] && { [ ! -x check ] || ./check; }; do
    read -r state <supervise/stat
    case $state in
    run*) ;;
    *) [ -e supervise/asked ] || { echo "it has ended before it was ready" >&2; exit 1; } ;;
    esac
    [ "$(date +%s)" -lt "$end" ] || { echo "it is not ready after $2 s" >&2; exit 1; }
    sleep 0.1 || sleep 1
done"#;
const STOP: &str = r#"sv -w "$2" force-stop "$1" || sv -w 10 down "$1""#;
/// Sends a signal and waits until `supervise/stat` matches `$3`.
const SIGNAL: &str = r#"
cd "$1" && sv "$2" . || exit 1
tries=50
while read -r state <supervise/stat; do
    case $state in $3) exit 0 ;; esac
    [ "$tries" -gt 0 ] || { echo "it is still: $state" >&2; exit 1; }
    sleep 0.1 || sleep 1; tries=$((tries - 1))
done"#;
/// Runs the service's own reload command, whose failure is reported, or its refusal.
const RELOAD: &str =
    r#"cd "$1" || exit 1; if [ -x reload ]; then exec ./reload; else exec sv hup .; fi"#;

/// The backend for runit.
pub(crate) struct Runit;

const FACTS: Facts = Facts {
    traces: Traces::All(&["/etc/runit"]),
    landmarks: &[
        "/etc/sv",
        "/etc/runit/sv",
        "/etc/service",
        "/var/service",
        "/run/runit/service",
        "/service",
    ],
    signs: &[Sign::Init("runit"), Sign::Process("runsvdir")],
    ..Facts::of(Manager::Runit)
};

impl Backend for Runit {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error> {
        let name = &definition.name;
        let mut checked = Checked::new(definition, site, sh::can_say);
        run_script::lose(&mut checked);
        checked.lose("kill after the stop timeout by `sv stop`: use `sv force-stop`");
        let dir = dir(name, site);
        let head = run_script::head(&checked);
        let mut entries = vec![
            Entry::script(dir.join("run"), run_script::run(&checked, &DIALECT)),
            Entry::script(dir.join("finish"), run_script::finish(&checked, &DIALECT)),
            // A requested stop or restart is not a failure. If this script fails, runsv sends the
            // signal itself.
            Entry::script(
                dir.join("control/t"),
                format!(
                    "{head}: >supervise/asked\n{}",
                    stop_signal(&definition.stop_signal)
                ),
            ),
            Entry::script(
                dir.join("log/run"),
                format!(
                    "#!/bin/sh\n# {MARK}\nmkdir -p {LOG_DIR}/{name} && exec svlogd -tt {LOG_DIR}/{name}\n"
                ),
            ),
        ];
        if run_script::is_told(definition) {
            let check = format!("{head}[ -s supervise/ready ]\n");
            entries.push(Entry::script(dir.join("check"), check));
        }
        // SIGHUP would terminate a program that does not handle it.
        let reload = run_script::reload(&checked, &DIALECT);
        if reload.is_some() || !definition.accepts.contains(Accepts::RELOAD) {
            let script = reload.unwrap_or_else(|| run_script::refusal(&checked));
            entries.push(Entry::script(dir.join("reload"), script));
            let instead = format!("{head}./reload\nexit 0\n");
            entries.push(Entry::script(dir.join("control/h"), instead));
        }
        entries.push(Entry::link(link(name, site), dir));
        checked.finish(entries)
    }

    fn unit_path(&self, name: &str, site: &Site) -> PathBuf {
        dir(name, site).join("run")
    }

    fn unit_dir(&self, site: &Site) -> PathBuf {
        site.first_of(SERVICE_DIRS, SERVICE_DIRS[0]).into()
    }

    fn parts(&self, name: &str, site: &Site) -> Vec<PathBuf> {
        let files = [
            "run",
            "finish",
            "check",
            "reload",
            "control/h",
            "control/t",
            "log/run",
        ];
        files.map(|file| dir(name, site).join(file)).into()
    }

    fn leavings(&self, name: &str, site: &Site) -> Vec<PathBuf> {
        vec![link(name, site)]
    }

    fn own_dirs(&self, name: &str, site: &Site) -> Vec<PathBuf> {
        vec![dir(name, site)]
    }

    /// The service is always linked, so that it can be started. A `down` file disables its start at
    /// boot.
    fn switch(&self, name: &str, site: &Site) -> Switch {
        Switch {
            off: vec![Entry::file(dir(name, site).join("down"), "")],
            ..Switch::default()
        }
    }

    fn take_in(&self, name: &str, site: &Site) -> Option<TakeIn> {
        Some(TakeIn {
            call: shell(TAKE_IN, [text(&link(name, site))]),
            undo: let_go(name, site),
        })
    }

    fn let_go(&self, name: &str, site: &Site) -> Vec<Call> {
        vec![let_go(name, site)]
    }

    fn control(
        &self,
        definition: &Definition,
        order: Order,
        state: State,
        site: &Site,
    ) -> Result<Vec<Call>, Unsupported> {
        let dir = text(&link(&definition.name, site));
        let seconds = |duration: Duration| whole_seconds(duration).to_string();
        let stop = || shell(STOP, [dir.clone(), seconds(definition.graceful)]);
        let start = || shell(START, [dir.clone(), seconds(definition.start_timeout)]);
        let signal =
            |verb: &str, like: &str| shell(SIGNAL, [dir.clone(), verb.to_owned(), like.to_owned()]);
        Ok(match (order, state) {
            (Order::Start, State::Stopped) => vec![start()],
            (Order::Restart, State::Stopped) => vec![start()],
            // The service has not begun or waits for its next restart. The stop ends that wait.
            (Order::Start | Order::Restart, _) => vec![stop(), start()],
            (Order::Stop, _) => vec![stop()],
            (Order::Pause, _) => vec![signal("pause", "*paused*")],
            (Order::Resume, _) => vec![signal("cont", "run")],
            (Order::Reload, _) => vec![shell(RELOAD, [dir])],
        })
    }

    fn questions(&self, name: &str, site: &Site) -> Vec<Question> {
        let link = link(name, site);
        let supervise = link.join("supervise");
        vec![
            Question::Read(supervise.join("status")),
            // Files left behind by a killed runsv are not a status.
            Question::run(["sv", "status", &text(&link)]),
            Question::Read(supervise.join("ready")),
            Question::Read(supervise.join("exit")),
        ]
    }

    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus> {
        let [status, is_supervised, ready, exit] = answers else {
            return None;
        };
        (is_supervised.code == Some(0)).then(|| read_status(&status.output, ready, exit))?
    }

    fn journal(&self, name: &str, _site: &Site) -> String {
        format!("tail {LOG_DIR}/{name}/current")
    }
}

fn dir(name: &str, site: &Site) -> PathBuf {
    Runit.unit_dir(site).join(name)
}

fn link(name: &str, site: &Site) -> PathBuf {
    let scan_dir = if site.is_staged {
        STAGED_SCAN_DIR
    } else {
        site.first_of(SCAN_DIRS, SCAN_DIRS[0])
    };
    PathBuf::from(scan_dir).join(name)
}

fn let_go(name: &str, site: &Site) -> Call {
    shell(LET_GO, [text(&link(name, site)), text(&dir(name, site))])
}

/// Returns the script part that sends the stop signal. runsv waits for this script, so the process
/// still exists, if only as a zombie, and its PID is not reused.
fn stop_signal(signal: &str) -> String {
    match signal {
        "TERM" => "exit 1\n".to_owned(),
        signal => format!("read -r pid <supervise/pid && kill -s {signal} \"$pid\"\n"),
    }
}

/// Parses `supervise/status`: the time of the last change (TAI64N), the PID, and four bytes:
/// paused, wanted state, whether SIGTERM was sent, and 0 for down, 1 for `run` or 2 for `finish`.
fn read_status(status: &[u8], ready: &Answer, exit: &Answer) -> Option<ServiceStatus> {
    let &[.., a, b, c, d, paused, wanted, told, kind] = <&[u8; 20]>::try_from(status).ok()?;
    let is_unready = ready.code == Some(0) && ready.output.is_empty();
    let is_wanted = wanted == b'u';
    let state = match kind {
        1 if paused == 1 => State::Paused,
        1 if !is_wanted || told == 1 => State::StopPending,
        1 if is_unready => State::StartPending,
        1 => State::Running,
        // Between an exit and the next start.
        2 if is_wanted => State::StartPending,
        2 => State::StopPending,
        0 => State::Stopped,
        _ => return None,
    };
    let code = exit.text().trim().parse().unwrap_or(0);
    let own_code = if state == State::Stopped { code } else { 0 };
    let pid = (kind == 1).then(|| u32::from_le_bytes([a, b, c, d]));
    Some(ServiceStatus::new(state, pid).exited(own_code))
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;
    use crate::{Account, ErrorKind, service};

    #[test]
    fn it_is_linked_where_the_system_has_it() {
        let path = |found: &[&'static str], is_staged| {
            let site = Site {
                found: found.into(),
                is_staged,
                ..golden::site()
            };
            let unit = Runit.unit(&golden::library(), &site).unwrap();
            unit.entries.last().map(|entry| text(&entry.path))
        };
        for (found, is_staged, expect) in [
            (
                &["/etc/sv", "/etc/service"][..],
                false,
                "/etc/service/orders",
            ),
            (&["/etc/sv", "/var/service"], false, "/var/service/orders"),
            (
                &["/etc/runit/sv", "/run/runit/service"],
                false,
                "/run/runit/service/orders",
            ),
            (
                &["/etc/sv", "/etc/service"],
                true,
                "/etc/runit/runsvdir/default/orders",
            ),
        ] {
            assert_eq!(path(found, is_staged).as_deref(), Some(expect));
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let definition = service("Orders!")
            .executable("orders")
            .arguments(["a\0b"])
            .env("A B", "secret")
            .needs("../db")
            .working_dir("tmp")
            .stop_signal("KILL")
            .account(Account::Virtual);
        let error = Runit.unit(&definition, &golden::site()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        for part in [
            "a name consists of 1 to 200",
            "not an absolute path",
            "the command line",
            "\"A B\"",
            "\"../db\" is not",
            "the working directory",
            "\"KILL\"",
            "--account user:NAME",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn twenty_bytes_are_a_state() {
        let file = |text: &[u8]| Answer {
            code: Some(0),
            output: text.into(),
        };
        let check = |last: [u8; 4], ready: &Answer, exit: &Answer| {
            let mut status = vec![
                0x40, 0, 0, 0, 0x6b, 0x0a, 0x4e, 0xa9, 0x10, 0x10, 0xe0, 0x7c,
            ];
            status.extend([0x7e, 2, 0, 0]);
            status.extend(last);
            let status = Runit.status(&[file(&status), file(b""), ready.clone(), exit.clone()])?;
            Some((status.state, status.pid, status.exit_code()))
        };
        let (none, no_exit) = (Answer::default(), Answer::default());
        let (unready, ready, exit) = (file(b""), file(b"\n"), file(b"75\n"));
        let pid = Some(0x27e);
        for (last, is_ready, exit, expect) in [
            (
                [0, b'u', 0, 1],
                &none,
                &no_exit,
                (State::Running, pid, Some(0)),
            ),
            (
                [0, b'u', 0, 1],
                &ready,
                &no_exit,
                (State::Running, pid, Some(0)),
            ),
            (
                [0, b'u', 0, 1],
                &unready,
                &no_exit,
                (State::StartPending, pid, Some(0)),
            ),
            (
                [1, b'u', 0, 1],
                &ready,
                &no_exit,
                (State::Paused, pid, Some(0)),
            ),
            (
                [0, b'd', 1, 1],
                &ready,
                &no_exit,
                (State::StopPending, pid, Some(0)),
            ),
            (
                [0, b'u', 0, 2],
                &unready,
                &no_exit,
                (State::StartPending, None, Some(0)),
            ),
            (
                [0, b'd', 0, 2],
                &unready,
                &no_exit,
                (State::StopPending, None, Some(0)),
            ),
            (
                [0, b'd', 0, 0],
                &unready,
                &no_exit,
                (State::Stopped, None, Some(0)),
            ),
            (
                [0, b'd', 0, 0],
                &unready,
                &exit,
                (State::Stopped, None, Some(75)),
            ),
        ] {
            assert_eq!(check(last, is_ready, exit), Some(expect), "{last:?}");
        }
        assert_eq!(check([0, b'u', 0, 9], &ready, &exit).map(|it| it.0), None);
        // Left behind by a runsv that no longer runs.
        let answers = [file(&[0; 20]), Answer::default(), none.clone(), none];
        assert_eq!(Runit.status(&answers).map(|it| it.state), None);
    }
}
