//! s6: two service directories for s6-supervise, a persistent one and one in the scan directory of
//! the running s6-svscan.
//!
//! Sources: the documentation of s6 2.11 (servicedir, s6-supervise, s6-svc, s6-svstat,
//! s6-svscanctl, notifywhenup).

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checked::{Checked, whole_seconds};
use super::run_script::{self, Dialect, READY, shell, text};
use super::{
    Answer, Backend, Call, Entry, Facts, MARK, Order, Question, Sign, Site, Switch, TakeIn, Traces,
    Unit, Unsupported, sh,
};
use crate::{Accepts, Definition, Error, Manager, ServiceStatus, State};

const PLACES: &[&str] = &[
    // The directories that are copied into the scan directory at boot: s6-linux-init, plain s6,
    // s6-overlay.
    "/etc/s6-linux-init/current/run-image/service",
    "/etc/s6/service",
    "/etc/services.d",
    // The directories that a running s6-svscan creates.
    "/run/service/.s6-svscan",
    "/run/s6/services/.s6-svscan",
    "/service/.s6-svscan",
];
const KEPT_DIRS: &[&str] = PLACES.split_at(3).0;
const SVSCANS: &[&str] = PLACES.split_at(3).1;
const LOG_DIR: &str = "/var/log/s6";
/// The margin beyond the stop timeout and the delay in `finish`, after which they are killed.
const GRACE: Duration = Duration::from_secs(10);

const DIALECT: Dialect = Dialect {
    as_user: |user| format!("s6-setuidgid {user} "),
    own_limits: &[],
    start: Some(|need| format!("s6-svc -u -wU -T 60000 ../{need}")),
    ask: Some(|need| format!("s6-svc -u ../{need}")),
    begin: "rm -f supervise/exit\n",
    open_ready: "",
    close_ready: "",
    is_wanted: "\t[ \"$(s6-svstat -o wantedup .)\" != false ]\n",
    stay_down: "\texit 125\n",
};

const TAKE_IN: &str = r#"
s6-svscanctl -a "$1" || exit 1
tries=150
until s6-svok "$1/$2" && s6-svok "$1/$2/log"; do
    [ "$tries" -gt 0 ] || { echo "no s6-supervise has come for $1/$2" >&2; exit 1; }
    sleep 0.1 || sleep 1; tries=$((tries - 1))
done"#;
/// Renames the service directory first, because s6-svscan would start a new supervisor for it. Exit
/// code 100 means that there is no s6-svscan.
const LET_GO: &str = r#"
cd "$1" 2>/dev/null || exit 0
[ ! -e "$2" ] || mv "$2" ".$2" || exit 1
s6-svscanctl -an . || [ $? = 100 ] || exit 1
tries=150
while s6-svok ".$2" || s6-svok ".$2/log"; do
    [ "$tries" -gt 0 ] || { echo "s6-supervise goes on with $1/.$2" >&2; exit 1; }
    sleep 0.1 || sleep 1; tries=$((tries - 1))
done
rm -rf ".$2""#;
/// Starts the service and waits until it is ready. A failed start is detected at the program's
/// first exit.
const START: &str = r#"
s6-svc -u -wu -T 5000 "$1" || exit 1
[ -e "$1/notification-fd" ] || exit 0
end=$(($(date +%s) + $2))
while :; do
    case $(s6-svstat -o up,ready "$1") in
    'true true') exit 0 ;;
    'true false') ;;
    *) echo "it has ended before it was ready" >&2; exit 1 ;;
    esac
    [ "$(date +%s)" -lt "$end" ] || { echo "it is not ready after $2 s" >&2; exit 1; }
    sleep 0.1 || sleep 1
done"#;
/// Stops the service. `timeout-kill` kills it, unless the supervisor has not read that file yet.
const STOP: &str =
    r#"s6-svc -d -wD -T "$2" "$1" || { s6-svc -k "$1" && s6-svc -d -wD -T 10000 "$1"; }"#;
const SIGNAL: &str = r#"
s6-svc "$2" "$1" || exit 1
tries=50
until [ "$(s6-svstat -o paused "$1")" = "$3" ]; do
    [ "$tries" -gt 0 ] || { echo "it has taken no notice" >&2; exit 1; }
    sleep 0.1 || sleep 1; tries=$((tries - 1))
done"#;
const RELOAD: &str =
    r#"cd "$1" || exit 1; if [ -x data/reload ]; then exec data/reload; else exec s6-svc -h .; fi"#;

/// The backend for s6.
pub(crate) struct S6;

const FACTS: Facts = Facts {
    traces: Traces::Any(KEPT_DIRS),
    landmarks: PLACES,
    signs: &[Sign::Init("s6-svscan"), Sign::Process("s6-svscan")],
    ..Facts::of(Manager::S6)
};

impl Backend for S6 {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error> {
        let name = &definition.name;
        let mut checked = Checked::new(definition, site, sh::can_say);
        run_script::lose(&mut checked);
        checked.lose("restart by `s6-svc -r` after a clean exit: s6 treats it as a final exit");
        let dirs = dirs(name, site);
        let script = |file: &str, text: String| {
            let dirs = dirs.iter();
            dirs.map(|dir| Entry::script(dir.join(file), text.clone()))
                .collect::<Vec<_>>()
        };
        let value = |file: &str, value: String| {
            let dirs = dirs.iter();
            dirs.map(|dir| Entry::file(dir.join(file), format!("{value}\n")))
                .collect::<Vec<_>>()
        };
        let pauses = definition.recovery.restart_after.iter().max();
        let pause = pauses.map_or(0, |pause| whole_seconds(*pause));
        let mut entries = [
        script("run", run_script::run(&checked, &DIALECT)),
        script("finish", run_script::finish(&checked, &DIALECT)),
        script(
            "log/run",
            format!("#!/bin/sh\n# {MARK}\nmkdir -p {LOG_DIR} && exec s6-log -b T n10 s1000000 {LOG_DIR}/{name}\n"),
        ),
        value("timeout-kill", millis(definition.graceful)),
        value("timeout-finish", millis(Duration::from_secs(pause).saturating_add(GRACE))),
        value("down-signal", definition.stop_signal.clone()),
    ]
    .concat();
        if run_script::is_told(definition) {
            entries.extend(value("notification-fd", READY.to_string()));
        }
        let reload = run_script::reload(&checked, &DIALECT);
        let refusal = || run_script::refusal(&checked);
        if reload.is_some() || !definition.accepts.contains(Accepts::RELOAD) {
            entries.extend(script("data/reload", reload.unwrap_or_else(refusal)));
        }
        checked.finish(entries)
    }

    fn unit_path(&self, name: &str, site: &Site) -> PathBuf {
        self.unit_dir(site).join(name).join("run")
    }

    fn unit_dir(&self, site: &Site) -> PathBuf {
        site.first_of(KEPT_DIRS, KEPT_DIRS[1]).into()
    }

    fn parts(&self, name: &str, site: &Site) -> Vec<PathBuf> {
        let files = [
            "run",
            "finish",
            "log/run",
            "notification-fd",
            "timeout-kill",
            "timeout-finish",
            "down-signal",
            "data/reload",
        ];
        let dirs = dirs(name, site).into_iter();
        dirs.flat_map(|dir| files.map(|file| dir.join(file)))
            .collect()
    }

    fn own_dirs(&self, name: &str, site: &Site) -> Vec<PathBuf> {
        dirs(name, site)
    }

    /// The service directory always exists, so that the service can be started. A `down` file
    /// disables its start at boot.
    fn switch(&self, name: &str, site: &Site) -> Switch {
        let dirs = dirs(name, site).into_iter();
        Switch {
            off: dirs.map(|dir| Entry::file(dir.join("down"), "")).collect(),
            ..Switch::default()
        }
    }

    fn take_in(&self, name: &str, site: &Site) -> Option<TakeIn> {
        let place = || [scan_dir(site).to_owned(), name.to_owned()];
        Some(TakeIn {
            call: shell(TAKE_IN, place()),
            undo: shell(LET_GO, place()),
        })
    }

    fn let_go(&self, name: &str, site: &Site) -> Vec<Call> {
        vec![shell(LET_GO, [scan_dir(site).to_owned(), name.to_owned()])]
    }

    fn control(
        &self,
        definition: &Definition,
        order: Order,
        state: State,
        site: &Site,
    ) -> Result<Vec<Call>, Unsupported> {
        let dir = text(&live_dir(&definition.name, site));
        let stop = || {
            let timeout = definition.graceful.saturating_add(GRACE);
            shell(STOP, [dir.clone(), millis(timeout)])
        };
        let start = || {
            let timeout = whole_seconds(definition.start_timeout);
            shell(START, [dir.clone(), timeout.to_string()])
        };
        let signal = |option: &str, paused: &str| {
            shell(SIGNAL, [dir.clone(), option.to_owned(), paused.to_owned()])
        };
        Ok(match (order, state) {
            (Order::Start | Order::Restart, State::Stopped) => vec![start()],
            // The service has not begun or waits for its next restart. The stop ends that wait.
            (Order::Start | Order::Restart, _) => vec![stop(), start()],
            (Order::Stop, _) => vec![stop()],
            (Order::Pause, _) => vec![signal("-p", "true")],
            (Order::Resume, _) => vec![signal("-c", "false")],
            (Order::Reload, _) => vec![shell(RELOAD, [dir])],
        })
    }

    fn questions(&self, name: &str, site: &Site) -> Vec<Question> {
        let dir = live_dir(name, site);
        let fields = "up,wantedup,ready,paused,pid";
        let svstat = Question::run(["s6-svstat", "-o", fields, &text(&dir)]);
        vec![
            Question::Read(dir.join("supervise/exit")),
            svstat,
            Question::Read(dir.join("notification-fd")),
        ]
    }

    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus> {
        let [exit, svstat, notification] = answers else {
            return None;
        };
        let is_told = notification.code == Some(0);
        (svstat.code == Some(0)).then(|| read_status(&svstat.text(), is_told, exit))?
    }

    fn journal(&self, name: &str, _site: &Site) -> String {
        format!("tail {LOG_DIR}/{name}/current")
    }
}

fn scan_dir(site: &Site) -> &'static str {
    let svscan = site.first_of(SVSCANS, SVSCANS[0]);
    svscan.trim_end_matches("/.s6-svscan")
}

fn live_dir(name: &str, site: &Site) -> PathBuf {
    Path::new(scan_dir(site)).join(name)
}

/// Returns the persistent directory and, on a running system, the live one.
fn dirs(name: &str, site: &Site) -> Vec<PathBuf> {
    let kept = S6.unit_dir(site).join(name);
    if site.is_staged {
        vec![kept]
    } else {
        vec![kept, live_dir(name, site)]
    }
}

fn millis(duration: Duration) -> String {
    // 0 would mean unlimited.
    duration.as_millis().clamp(1, i32::MAX as u128).to_string()
}

/// Parses the output of `s6-svstat -o up,wantedup,ready,paused,pid`.
fn read_status(said: &str, is_told: bool, exit: &Answer) -> Option<ServiceStatus> {
    let words: Vec<&str> = said.split_ascii_whitespace().collect();
    let [up, wanted, ready, paused, pid] = words[..] else {
        return None;
    };
    let is_wanted = wanted == "true";
    let state = match up {
        "true" if paused == "true" => State::Paused,
        "true" if !is_wanted => State::StopPending,
        "true" if is_told && ready != "true" => State::StartPending,
        "true" => State::Running,
        // Between an exit and the next start.
        "false" if is_wanted => State::StartPending,
        "false" => State::Stopped,
        _ => return None,
    };
    let code = exit.text().trim().parse().unwrap_or(0);
    let own_code = if state == State::Stopped { code } else { 0 };
    Some(ServiceStatus::new(state, pid.parse().ok()).exited(own_code))
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn an_image_has_no_running_directory() {
        let site = Site {
            is_staged: true,
            found: vec!["/etc/services.d"],
            ..golden::site()
        };
        let unit = S6.unit(&golden::library(), &site).unwrap();
        let off = S6.switch("orders", &site).off;
        for entry in unit.entries.iter().chain(&off) {
            assert!(
                entry.path.starts_with("/etc/services.d/orders"),
                "{entry:?}"
            );
        }
    }

    #[test]
    fn what_svstat_says_is_a_state() {
        let file = |text: &str| Answer {
            code: Some(0),
            output: text.into(),
        };
        let read = |said: &str, told: bool, exit: &str| {
            let exit = if exit.is_empty() {
                Answer::default()
            } else {
                file(exit)
            };
            let told = if told { file("3\n") } else { Answer::default() };
            let status = S6.status(&[exit, file(said), told])?;
            Some((status.state, status.pid, status.exit_code()))
        };
        for (said, told, exit, expect) in [
            (
                "true true true false 7\n",
                true,
                "",
                (State::Running, Some(7), Some(0)),
            ),
            (
                "true true false false 7\n",
                false,
                "",
                (State::Running, Some(7), Some(0)),
            ),
            (
                "true true false false 7\n",
                true,
                "",
                (State::StartPending, Some(7), Some(0)),
            ),
            (
                "true true true true 7\n",
                true,
                "",
                (State::Paused, Some(7), Some(0)),
            ),
            (
                "true false true false 7\n",
                true,
                "",
                (State::StopPending, Some(7), Some(0)),
            ),
            (
                "false true false false -1\n",
                true,
                "",
                (State::StartPending, None, Some(0)),
            ),
            (
                "false false false false -1\n",
                true,
                "",
                (State::Stopped, None, Some(0)),
            ),
            (
                "false false false false -1\n",
                true,
                "75\n",
                (State::Stopped, None, Some(75)),
            ),
        ] {
            assert_eq!(read(said, told, exit), Some(expect), "{said}");
        }
        for said in ["", "perhaps true true false 7", "true true"] {
            assert_eq!(read(said, true, ""), None, "{said}");
        }
    }
}
