//! Tests the whole life cycle of the example under the Service Control Manager, through its own
//! verbs and `sc`.
#![cfg(windows)]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mainstay::{Definition, ServiceSid, Start, State, Trigger};
use mainstay_testkit::scm_windows::{is_wine, output};
use mainstay_testkit::{skip, wait_until};

mod log_dir;

/// The timeout for every step.
const SOON: Duration = Duration::from_secs(30);

fn heartbeat(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartbeat"));
    output(command.args(arguments), SOON)
}

/// Runs a verb, which must exit with `code`, and returns its output.
#[track_caller]
fn check(code: i32, arguments: &[&str]) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = heartbeat(arguments);
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{arguments:?}: {text}");
    text.into_owned()
}

/// Returns the status that another tool reports: state, code, service-specific code and checkpoint.
/// `None` if there is no such service.
fn query() -> Option<[u32; 4]> {
    let output = output(Command::new("sc").args(["query", "heartbeat"]), SOON);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |key: &str| {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(key))?;
        let value = line.split_once(':')?.1.split_ascii_whitespace().next()?;
        match value.strip_prefix("0x") {
            Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok(),
            None => value.parse().ok(),
        }
    };
    Some([
        number("STATE")?,
        number("WIN32_EXIT_CODE")?,
        number("SERVICE_EXIT_CODE")?,
        number("CHECKPOINT")?,
    ])
}

#[track_caller]
fn state() -> u32 {
    query().expect("it is installed")[0]
}

const STOPPED: u32 = 1;
const STOP_PENDING: u32 = 3;
const RUNNING: u32 = 4;
const PAUSED: u32 = 7;

/// Serializes the tests, because there is only one service of that name on a system.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_life_under_the_service_control_manager() {
    let _alone = alone();
    // Left over from an interrupted run.
    heartbeat(&["uninstall"]);
    assert_eq!(query(), None);
    check(4, &["status"]);
    let text = check(4, &["start"]);
    assert!(text.contains("hint: "), "{text}");

    check(0, &["install"]);
    assert_eq!(state(), STOPPED);
    check(3, &["status"]);
    check(0, &["stop"]);
    check(0, &["install"]);

    // Beats each second, and takes three seconds for the last beat.
    check(0, &["start", "1", "3"]);
    assert_eq!(state(), RUNNING);
    check(0, &["status"]);
    check(0, &["start"]);
    check(0, &["pause"]);
    assert_eq!(state(), PAUSED);
    check(0, &["continue"]);
    assert_eq!(state(), RUNNING);
    check(0, &["control", "130"]);
    check(0, &["reload"]);
    check(78, &["control", "7"]);

    // A slow stop reports its progress.
    let stop = thread::spawn(|| check(0, &["stop"]));
    let deadline = Instant::now() + SOON;
    let mut checkpoints = Vec::new();
    while !stop.is_finished() && Instant::now() < deadline {
        if let Some([STOP_PENDING, _, _, checkpoint]) = query() {
            checkpoints.push(checkpoint);
        }
    }
    stop.join().expect("it stops");
    checkpoints.dedup();
    assert!(
        checkpoints.len() > 1 && checkpoints.is_sorted(),
        "{checkpoints:?}"
    );
    assert_eq!(query(), Some([STOPPED, 0, 0, 0]));

    // The manager also records the failure: ERROR_SERVICE_SPECIFIC_ERROR and the code.
    check(0, &["restart"]);
    check(0, &["control", "255"]);
    let deadline = Instant::now() + SOON;
    while state() != STOPPED && Instant::now() < deadline {
        thread::yield_now();
    }
    assert_eq!(query(), Some([STOPPED, 1066, 75, 0]));

    // Uninstalling stops the service first.
    check(0, &["start"]);
    check(0, &["uninstall"]);
    assert_eq!(query(), None);
    check(4, &["uninstall"]);
}

/// Returns the registry's data on services as text.
fn services() -> String {
    let key = "HKLM\\SYSTEM\\CurrentControlSet\\Services";
    let output = output(Command::new("reg").args(["query", key, "/s"]), SOON);
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Uses the library from another program with the same manager.
#[test]
fn changes_are_told_and_services_are_listed() {
    let _alone = alone();
    heartbeat(&["uninstall"]);
    let definition = mainstay::service("heartbeat");
    let listed = || {
        let services = mainstay::services().expect("anybody may ask");
        let found = services.into_iter().find(|(name, _)| name == "heartbeat");
        found.map(|(_, status)| status.state)
    };
    assert_eq!(listed(), None);
    check(0, &["install"]);
    assert_eq!(listed(), Some(State::Stopped));
    // Without a change, it returns after the timeout with the current status.
    let began = Instant::now();
    let short = Duration::from_millis(300);
    let status = definition.wait_for_change(State::Stopped, short);
    assert_eq!(status.expect("it is there").state, State::Stopped);
    assert!(began.elapsed() >= short);
    // A waiting client is notified of each state and does not keep the service from being deleted.
    let definition = definition.clone();
    let watcher = thread::spawn(move || {
        let mut states = vec![State::Stopped];
        while let Ok(status) = definition.wait_for_change(states[states.len() - 1], SOON) {
            states.push(status.state);
        }
        states
    });
    check(0, &["start", "1", "1"]);
    check(0, &["stop"]);
    check(0, &["uninstall"]);
    let states = watcher.join().expect("it does not panic");
    let lasting: Vec<State> = states
        .into_iter()
        .filter(|state| !state.is_pending())
        .collect();
    assert_eq!(lasting, [State::Stopped, State::Running, State::Stopped]);
}

#[test]
fn fifty_installations_leave_nothing() {
    let _alone = alone();
    heartbeat(&["uninstall"]);
    let before = services();
    for _ in 0..50 {
        check(0, &["install"]);
        check(0, &["uninstall"]);
    }
    assert_eq!(services(), before);
}

#[test]
fn in_a_console_it_says_what_to_do_instead() {
    let text = check(1, &["run", mainstay::UNDER_SCM]);
    assert!(
        text.contains("was not started by the Service Control Manager"),
        "{text}"
    );
    assert!(
        text.contains("hint: start it with `sc start heartbeat`"),
        "{text}"
    );
}

/// The manager keeps no output, so it is captured in files. A panic is reported as an exit code.
#[test]
fn what_it_prints_is_in_its_log_directory() {
    let _alone = alone();
    heartbeat(&["uninstall"]);
    let data = std::env::var_os("ProgramData").expect("its place");
    let dir = Path::new(&data).join("heartbeat");
    let _ = std::fs::remove_dir_all(&dir);
    check(0, &["install"]);
    // The service may end before it is seen running.
    heartbeat(&["start", "0", "0", "chatter"]);
    let deadline = Instant::now() + 2 * SOON;
    while state() != STOPPED && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(query(), Some([STOPPED, 1066, 101, 0]));
    log_dir::check(&dir.join("logs"));
    check(0, &["uninstall"]);
    std::fs::remove_dir_all(&dir).expect("its directory");
}

/// A second service of the example, uninstalled on drop.
struct Second(Definition);

impl Second {
    const NAME: &str = "heartbeat-second";

    #[track_caller]
    fn install(set: impl FnOnce(Definition) -> Definition) -> Self {
        let program = env!("CARGO_BIN_EXE_heartbeat");
        let second = Self(set(mainstay::service(Self::NAME).executable(program)));
        second.0.install().expect("it is installed");
        second
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.0.uninstall();
    }
}

/// Settings that Wine refuses, ignores or cannot return, as another tool shows them.
#[test]
fn the_manager_keeps_every_setting() {
    if is_wine() {
        return skip("Wine does not keep all settings of a service");
    }
    let _second = Second::install(|second| {
        second.start(Start::Delayed).windows(|windows| {
            windows
                .preshutdown(Duration::from_secs(60))
                .sid(ServiceSid::Restricted)
                .privileges(["SeChangeNotifyPrivilege"])
                .security("D:(A;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;BA)(A;;LCRP;;;IU)")
                .command_on_failure("C:\\report.exe")
        })
    });
    let key = format!(
        "HKLM\\SYSTEM\\CurrentControlSet\\Services\\{}",
        Second::NAME
    );
    let timeout = ["query", &key, "/v", "PreshutdownTimeout"];
    for (program, arguments, expect) in [
        ("sc", &["qc", Second::NAME][..], &["(DELAYED)"][..]),
        ("sc", &["qsidtype", Second::NAME], &["RESTRICTED"]),
        (
            "sc",
            &["qprivs", Second::NAME],
            &["SeChangeNotifyPrivilege"],
        ),
        ("sc", &["sdshow", Second::NAME], &["(A;;LCRP;;;IU)"]),
        (
            "sc",
            &["qfailure", Second::NAME],
            &["C:\\report.exe", "RESTART", "RUN PROCESS"],
        ),
        ("sc", &["qfailureflag", Second::NAME], &["TRUE"]),
        ("reg", &timeout, &["0xea60"]),
    ] {
        let output = output(Command::new(program).args(arguments), SOON);
        let said = String::from_utf8_lossy(&output.stdout);
        for expect in expect {
            assert!(said.contains(expect), "{program} {arguments:?}: {said}");
        }
    }
}

/// The service never creates the pipe, so opening it fails, and is repeated.
#[test]
fn a_trigger_starts_the_service() {
    if is_wine() {
        return skip("Wine has no triggers");
    }
    let second = Second::install(|second| {
        second
            .start(Start::Manual)
            .windows(|windows| windows.trigger(Trigger::named_pipe(Second::NAME)))
    });
    let state = || second.0.status().expect("it is installed").state;
    assert_eq!(state(), State::Stopped);
    wait_until("its start", SOON, || {
        let _ = File::open(format!(r"\\.\pipe\{}", Second::NAME));
        (state() == State::Running).then_some(())
    });
}
