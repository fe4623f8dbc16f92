//! `mainstay install` on Windows: any program becomes a service, visible to our own verbs and to
//! `sc`.
#![cfg(windows)]

mod real;
mod trust;
mod verify;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use mainstay_testkit::procs_windows::alive as lives;
use mainstay_testkit::scm_windows::{controls_accepted, is_wine, open_to_everyone, output};
use mainstay_testkit::{Sandbox, free_port, puppet, wait_until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
/// Service states, with Microsoft's numbers.
const STOPPED: u32 = 1;
const RUNNING: u32 = 4;
const PAUSED: u32 = 7;
/// The installed services of one manifest. They are uninstalled at the end in any case.
struct Installation {
    sandbox: Sandbox,
    names: Vec<String>,
}

impl Installation {
    /// Installs the services of `manifest`, in which PUPPET stands for the path of the puppet, and
    /// HERE for the directory of the manifest.
    fn new(manifest: &str, names: &[&str]) -> Self {
        let it = Self::without_installing(manifest, names);
        it.check(0, &["install", "FILE"]);
        it
    }

    fn without_installing(manifest: &str, names: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let it = Self { sandbox, names };
        let puppet = puppet().display().to_string();
        let here = it.here().display().to_string();
        let manifest = manifest.replace("PUPPET", &puppet).replace("HERE", &here);
        fs::create_dir(it.here()).expect("a directory");
        // Services have accounts of their own, which may not enter the directories of a user.
        open_to_everyone(&it.here());
        it.write(
            "mainstay.toml",
            &format!("environment = \"development\"\n{manifest}"),
        );
        it
    }

    /// Returns the directory of the manifest, which is the working directory of the services.
    fn here(&self) -> PathBuf {
        self.sandbox.path().join("here")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.here().join(name), text).expect("a file");
    }

    /// Runs a verb. FILE stands for the manifest.
    fn mainstay(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command.arg("--state-dir").arg(self.sandbox.state_dir());
        for argument in arguments {
            match *argument {
                "FILE" => command.arg(self.here().join("mainstay.toml")),
                other => command.arg(other),
            };
        }
        output(&mut command, SOON)
    }

    /// Runs a verb that must exit with `code`, and returns its output.
    #[track_caller]
    fn check(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.mainstay(arguments);
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {said}{complained}"
        );
        said + &complained
    }

    #[track_caller]
    fn service(&self, name: &str) -> Value {
        let output = self.mainstay(&["status", "--json", name]);
        let report: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
        report["services"][0].clone()
    }

    fn logs(&self, name: &str) -> String {
        text(&self.mainstay(&["logs", name]).stdout)
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        for name in &self.names {
            self.mainstay(&["uninstall", name, "--purge"]);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns a number that `sc` reports for a service, by its name there.
fn sc(service: &str, key: &str) -> Option<u32> {
    let output = output(Command::new("sc").args(["query", service]), SOON);
    let text = text(&output.stdout);
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with(key))?;
    let value = line.split_once(':')?.1.split_ascii_whitespace().next()?;
    match value.strip_prefix("0x") {
        Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok(),
        None => value.parse().ok(),
    }
}

/// Runs `sc`, for operations by another tool.
#[track_caller]
fn sc_does(arguments: &[&str]) {
    let output = output(Command::new("sc").args(arguments), SOON);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        text(&output.stdout)
    );
}

/// Kills a process as an operator with a task manager does.
#[track_caller]
fn kill(pid: u32) {
    let output = output(
        Command::new("taskkill").args(["/F", "/PID", &pid.to_string()]),
        SOON,
    );
    assert!(
        output.status.success(),
        "{pid}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[track_caller]
fn pid(service: &Value) -> u32 {
    let pid = service["pid"]
        .as_u64()
        .unwrap_or_else(|| panic!("no process: {service}"));
    u32::try_from(pid).expect("a pid")
}

/// Returns the process ID of the grandchild, which the puppet prints.
#[track_caller]
fn grandchild(installation: &Installation, service: &str) -> u32 {
    wait_until("its grandchild", SOON, || {
        let log = installation.logs(service);
        let line = log
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("fork "));
        line.and_then(|pid| pid.trim().parse().ok())
    })
}

#[test]
fn any_program_lives_under_the_service_control_manager() {
    let installation = Installation::new(
        r#"
        [service.life]
        display_name = "A life"
        command = ['PUPPET', "fork", "print", "serving", "hang"]
        start = { ready = { log = "serving" } }
        stop = { graceful = "2s" }
        "#,
        &["life"],
    );
    assert_eq!(sc("life", "STATE"), Some(STOPPED));
    let service = installation.service("life");
    assert_eq!(
        (&service["state"], &service["manager"]),
        (&"stopped".into(), &"windows".into())
    );
    installation.check(3, &["status", "life"]);

    assert_eq!(installation.check(0, &["start", "life"]), "life: running\n");
    assert_eq!(sc("life", "STATE"), Some(RUNNING));
    let service = installation.service("life");
    assert_eq!(service["ready"], true, "{service}");
    assert_eq!(service["mode"], "hosted", "{service}");
    installation.check(0, &["start", "life"]);
    assert_eq!(
        pid(&installation.service("life")),
        pid(&service),
        "it runs already"
    );
    assert!(installation.logs("life").contains("serving"));

    installation.check(0, &["pause", "life"]);
    assert_eq!(sc("life", "STATE"), Some(PAUSED));
    assert_eq!(installation.service("life")["state"], "paused");
    installation.check(0, &["continue", "life"]);
    assert_eq!(sc("life", "STATE"), Some(RUNNING));

    let old = grandchild(&installation, "life");
    installation.check(0, &["restart", "life"]);
    assert!(!lives(old), "a grandchild survived a restart");
    let service = installation.service("life");
    let (child, grandchild) = (pid(&service), grandchild(&installation, "life"));
    assert!(lives(child) && lives(grandchild) && grandchild != old);
    installation.check(0, &["stop", "life"]);
    assert_eq!(sc("life", "STATE"), Some(STOPPED));
    assert!(
        !lives(child) && !lives(grandchild),
        "something survived a stop"
    );
    installation.check(0, &["stop", "life"]);

    installation.check(0, &["uninstall", "life"]);
    assert_eq!(sc("life", "STATE"), None);
    assert!(
        installation.logs("life").contains("serving"),
        "its log stays"
    );
    installation.check(4, &["uninstall", "life"]);
}

#[test]
fn a_crash_is_followed_by_the_contract() {
    let installation = Installation::new(
        r#"
        [service.crash]
        command = ['PUPPET', "crash-until", 'crashes', "2", "70", "print", "at last", "hang"]
        start = { ready = { log = "at last" } }
        recovery = { delay = "10ms" }
        [service.alarm]
        command = ['PUPPET', "print", "up", "sleep", "300ms", "exit", "77"]
        recovery = { policy = "strict" }
        "#,
        &["crash", "alarm"],
    );
    installation.check(0, &["start", "crash"]);
    assert_eq!(installation.service("crash")["restarts"], 2);

    // An exit code outside of the contract halts the service. Its manager gets the program's own
    // code: 1066 is the Windows error for a service-specific code.
    sc_does(&["start", "alarm"]);
    wait_until("its end", SOON, || {
        (sc("alarm", "STATE") == Some(STOPPED)).then_some(())
    });
    let codes = [
        sc("alarm", "WIN32_EXIT_CODE"),
        sc("alarm", "SERVICE_EXIT_CODE"),
    ];
    assert_eq!(codes, [Some(1066), Some(77)]);
    assert_eq!(installation.service("alarm")["last_exit"]["code"], 77);
}

#[test]
fn nothing_survives_its_host() {
    // Under Wine, a killed process has the exit code 0.
    let manifest = r#"
        [service.orphan]
        command = ['PUPPET', "fork", "hang"]
        recovery = { codes = { 0 = "restart" } }
    "#;
    let installation = Installation::new(manifest, &["orphan"]);
    installation.check(0, &["start", "orphan"]);
    let grandchild = grandchild(&installation, "orphan");
    let child = pid(&installation.service("orphan"));
    // The child crashes: its process tree is ended, and another child is started.
    kill(child);
    let next = wait_until("another child", SOON, || {
        let service = installation.service("orphan");
        let pid = u32::try_from(service["pid"].as_u64()?).ok()?;
        (pid != child && service["restarts"] == 1).then_some(pid)
    });
    assert!(!lives(grandchild), "a grandchild survived a crash");
    let lock = installation
        .sandbox
        .state_dir()
        .join("installed/orphan/state/lock");
    let text = fs::read_to_string(lock).expect("who supervises");
    let host = text
        .lines()
        .next()
        .and_then(|line| line.parse().ok())
        .expect("a pid");
    kill(host);
    wait_until("the end of the tree", SOON, || (!lives(next)).then_some(()));
    if is_wine() {
        // Wine's manager still reports it as running. It can be started again at once.
        let text = installation.check(3, &["status", "orphan"]);
        assert!(text.contains("stopped"), "{text}");
        installation.check(0, &["start", "orphan"]);
    } else {
        wait_until("another host, by the recovery actions", SOON, || {
            let service = installation.service("orphan");
            (service["state"] == "running" && service["pid"] != next).then_some(())
        });
    }
}

#[test]
fn a_slow_stop_shows_its_progress() {
    let installation = Installation::new(
        r#"
        [service.slow]
        command = ['PUPPET', "ignore", "INT", "print", "up", "hang"]
        start = { ready = { log = "up" } }
        stop = { graceful = "4s" }
        "#,
        &["slow"],
    );
    installation.check(0, &["start", "slow"]);
    sc_does(&["stop", "slow"]);
    let mut checkpoints = Vec::new();
    wait_until("its end", SOON, || {
        let checkpoint = sc("slow", "CHECKPOINT")?;
        if checkpoint > 0 && checkpoints.last() != Some(&checkpoint) {
            checkpoints.push(checkpoint);
        }
        (sc("slow", "STATE") == Some(STOPPED)).then_some(())
    });
    assert!(
        checkpoints.len() >= 3 && checkpoints.is_sorted(),
        "{checkpoints:?}"
    );
}

/// The manager itself accepts no stop in that state.
#[test]
fn a_start_that_takes_too_long_can_be_stopped() {
    let installation = Installation::new(
        r#"
        [service.late]
        command = ['PUPPET', "count", 'HERE\starts', "hang"]
        start = { timeout = "10m", ready = { file = 'HERE\never' } }
        "#,
        &["late"],
    );
    std::thread::scope(|scope| {
        let start = scope.spawn(|| installation.mainstay(&["start", "late"]));
        wait_until("its program", SOON, || {
            installation.here().join("starts").exists().then_some(())
        });
        assert_eq!(installation.service("late")["state"], "start-pending");
        installation.check(0, &["stop", "late"]);
        let start = start.join().expect("it does not panic");
        assert_eq!(start.status.code(), Some(1), "{}", text(&start.stderr));
    });
    assert_eq!(sc("late", "STATE"), Some(STOPPED));
}

#[test]
fn an_installation_that_fails_leaves_nothing() {
    let installation = Installation::without_installing(
        "[service.first]\ncommand = ['PUPPET', \"hang\"]\n[service.taken]\ncommand = ['PUPPET', \"hang\"]\n",
        &["first"],
    );
    sc_does(&["create", "taken", "binPath=", "C:\\other.exe"]);
    let text = installation.check(1, &["install", "FILE"]);
    assert!(
        text.contains("the service manager already has a service of that name"),
        "{text}"
    );
    assert_eq!(sc("first", "STATE"), None);
    let left = fs::read_dir(installation.sandbox.state_dir().join("installed"));
    assert_eq!(left.map(Iterator::count).unwrap_or(0), 0);
    installation.check(4, &["uninstall", "taken"]);
    sc_does(&["delete", "taken"]);
}

#[test]
fn what_is_installed_again_is_what_the_manifest_says_now() {
    let manifest = |word: &str| {
        format!(
            "[service.again]\ncommand = ['PUPPET', \"print\", \"{word}\", \"hang\"]\nstart = {{ ready = {{ log = \"{word}\" }} }}\n"
        )
    };
    let installation = Installation::new(&manifest("before"), &["again"]);
    installation.check(0, &["start", "again"]);
    let file = installation.here().join("mainstay.toml");
    let old = fs::read_to_string(&file).expect("the manifest");
    fs::write(&file, old.replace("before", "after")).expect("the manifest");
    let said = installation.check(0, &["install", "FILE", "--json"]);
    assert!(said.contains("\"is_new\": false"), "{said}");
    assert!(
        !installation.logs("again").contains("after"),
        "it was not touched"
    );
    // 2 is start at boot, 3 is start on demand.
    let start_type = || {
        let key = "HKLM\\SYSTEM\\CurrentControlSet\\Services\\again";
        let said = output(
            Command::new("reg").args(["query", key, "/v", "Start"]),
            SOON,
        );
        text(&said.stdout).trim().chars().next_back()
    };
    installation.check(0, &["disable", "again"]);
    assert_eq!(start_type(), Some('3'));
    installation.check(0, &["install", "FILE"]);
    assert_eq!(
        start_type(),
        Some('3'),
        "what an operator has disabled stays so"
    );
    installation.check(0, &["enable", "again"]);
    assert_eq!(start_type(), Some('2'));
    installation.check(0, &["restart", "again"]);
    assert!(installation.logs("again").contains("after"));
    fs::write(&file, "[service.again]\ncommand = 7\n").expect("the manifest");
    installation.check(78, &["install", "FILE"]);
    installation.check(0, &["restart", "again"]);
}

/// Returns the path of a real server that was not written for us (labs/windows/setup downloads it).
fn caddy() -> Option<PathBuf> {
    let path = std::env::var_os("LAB_CADDY").map(PathBuf::from);
    path.filter(|path| path.exists())
}

fn get(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

#[test]
fn a_real_server_is_wrapped() {
    let Some(caddy) = caddy() else {
        return mainstay_testkit::skip("no real Windows server is there");
    };
    let port = free_port();
    // The program itself, and a batch file that runs it as a grandchild.
    let manifest = r#"
        [service.caddy]
        command = ['CADDY', "run", "--config", "Caddyfile"]
        working_dir = "."
        start = { ready = { tcp = "127.0.0.1:PORT" } }
        recovery = { codes = { 0 = "restart" } }
        [service.batch]
        command = ['HERE\serve.cmd']
        working_dir = "."
        start = { ready = { tcp = "127.0.0.1:PORT" } }
        recovery = { codes = { 0 = "restart" } }
    "#;
    let caddy = caddy.display().to_string();
    let manifest = manifest
        .replace("CADDY", &caddy)
        .replace("PORT", &port.to_string());
    let installation = Installation::without_installing(&manifest, &["caddy", "batch"]);
    installation.write(
        "Caddyfile",
        &format!("{{\n admin off\n}}\n:{port} {{\n respond hello\n}}\n"),
    );
    let quoted = format!("@\"{caddy}\" run --config Caddyfile\r\n");
    installation.write("serve.cmd", &quoted);
    installation.check(0, &["install", "FILE"]);
    for service in ["caddy", "batch"] {
        installation.check(0, &["start", service]);
        assert_eq!(get(port).as_deref(), Some("hello"), "{service}");
        installation.check(0, &["pause", service]);
        installation.check(0, &["continue", service]);
        assert_eq!(get(port).as_deref(), Some("hello"), "{service}");
        // The program crashes.
        kill(pid(&installation.service(service)));
        wait_until("it is back", SOON, || {
            let service = installation.service(service);
            (service["restarts"] == 1 && service["state"] == "running").then_some(())
        });
        assert_eq!(get(port).as_deref(), Some("hello"), "{service}");
        installation.check(0, &["stop", service]);
        assert_eq!(sc(service, "STATE"), Some(STOPPED));
        // No process holds its port.
        assert_eq!(get(port), None, "{service}");
    }
}

/// START_PENDING ends at `start.timeout`. The host keeps trying, so its state is RUNNING, as with
/// any restart.
#[test]
fn a_start_that_never_gets_ready_has_an_end() {
    let installation = Installation::new(
        r#"
        [service.crashes]
        command = ['PUPPET', "exit", "1"]
        start = { timeout = "2s", ready = { file = 'HERE\never' } }
        [service.silent]
        command = ['PUPPET', "hang"]
        start = { timeout = "2s", ready = { file = 'HERE\never' } }
        "#,
        &["crashes", "silent"],
    );
    for service in ["crashes", "silent"] {
        sc_does(&["start", service]);
    }
    for service in ["crashes", "silent"] {
        wait_until("the end of its start", SOON, || {
            (sc(service, "STATE") == Some(RUNNING)).then_some(())
        });
        let text = installation.check(3, &["status", service]);
        assert!(
            text.contains(service) && !text.contains("running"),
            "{text}"
        );
        sc_does(&["stop", service]);
        wait_until("its stop", SOON, || {
            (sc(service, "STATE") == Some(STOPPED)).then_some(())
        });
        assert_eq!(sc(service, "WIN32_EXIT_CODE"), Some(0), "{service}");
    }
}

/// Without PRESHUTDOWN, a database would be killed in the middle of its flush when the machine
/// restarts.
#[test]
fn a_host_accepts_what_its_service_needs() {
    const STOPS: u32 = 0x105;
    const ALL: u32 = 0x10F;
    let installation = Installation::new(
        r#"
        [service.accepts]
        command = ['PUPPET', "await", 'HERE\go', "print", "up", "hang"]
        start = { timeout = "10m", ready = { log = "up" } }
        stop = { graceful = "30s" }
        "#,
        &["accepts"],
    );
    sc_does(&["start", "accepts"]);
    wait_until("a stop is accepted while it starts", SOON, || {
        (controls_accepted("accepts") == Some(STOPS)).then_some(())
    });
    sc_does(&["stop", "accepts"]);
    wait_until("its stop", SOON, || {
        (sc("accepts", "STATE") == Some(STOPPED)).then_some(())
    });
    assert_eq!(sc("accepts", "WIN32_EXIT_CODE"), Some(0));
    installation.write("go", "");
    installation.check(0, &["start", "accepts"]);
    assert_eq!(controls_accepted("accepts"), Some(ALL));
}

/// The host connects to the manager first, so that it can report why a start failed.
#[test]
fn the_cause_of_a_start_that_fails_is_shown() {
    let installation = Installation::new(
        r#"
        [service.damaged]
        command = ['PUPPET', "hang"]
        [service.homeless]
        command = ['PUPPET', "hang"]
        working_dir = 'HERE\home'
        "#,
        &["damaged", "homeless"],
    );
    let installed = installation.sandbox.state_dir().join("installed");
    fs::write(installed.join("damaged/manifest.toml"), "[service.damaged").expect("the manifest");
    for (service, code, cause) in [
        ("damaged", 78, "manifest.toml has 1 error"),
        ("homeless", 69, "home"),
    ] {
        sc_does(&["start", service]);
        wait_until("its end", SOON, || {
            (sc(service, "STATE") == Some(STOPPED)).then_some(())
        });
        let codes = [
            sc(service, "WIN32_EXIT_CODE"),
            sc(service, "SERVICE_EXIT_CODE"),
        ];
        assert_eq!(codes, [Some(1066), Some(code)], "{service}");
        for verb in ["status", "events"] {
            let said = installation.mainstay(&[verb, service]);
            let said = text(&said.stdout) + &text(&said.stderr);
            assert!(said.contains(cause), "{verb} {service}: {said}");
        }
        let said = installation.check(1, &["start", service]);
        assert!(said.contains(cause), "start {service}: {said}");
    }
}

/// The paths of the directories differ in characters that a pipe's former name omitted, or are
/// longer than a pipe's name may be.
#[test]
fn supervisors_of_similar_directories_are_told_apart() {
    let sandbox = Sandbox::new();
    let puppet = puppet().display().to_string();
    sandbox.write(
        "mainstay.toml",
        &format!(
            "environment = \"development\"\n[service.only]\ncommand = ['{puppet}', \"hang\"]\n"
        ),
    );
    let dirs = [
        "a-b".to_owned(),
        "a b".to_owned(),
        "x".repeat(110) + "/" + &"y".repeat(110),
    ];
    let dirs = dirs.map(|name| sandbox.path().join(name));
    let mainstay = |dir: &PathBuf| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command.arg("--state-dir").arg(dir);
        command
    };
    let state = |dir: &PathBuf| {
        let said = output(mainstay(dir).args(["status", "--json", "only"]), SOON);
        let report: Value = serde_json::from_slice(&said.stdout).ok()?;
        Some(report["services"][0]["state"].as_str()?.to_owned())
    };
    let mut supervisors = dirs.each_ref().map(|dir| {
        let mut command = mainstay(dir);
        command.arg("run").arg(sandbox.path().join("mainstay.toml"));
        command.spawn().expect("it starts")
    });
    for dir in &dirs {
        wait_until("its service", SOON, || {
            (state(dir)? == "running").then_some(())
        });
    }
    for (index, dir) in dirs.iter().enumerate() {
        let said = output(mainstay(dir).arg("stop"), SOON);
        assert!(said.status.success(), "{}", text(&said.stderr));
        assert_eq!(state(dir).as_deref(), Some("stopped"));
        for other in &dirs[index + 1..] {
            assert_eq!(
                state(other).as_deref(),
                Some("running"),
                "{}",
                other.display()
            );
        }
    }
    for supervisor in &mut supervisors {
        supervisor.kill().expect("it runs");
        supervisor.wait().expect("it ends");
    }
}

/// Dependents that use the established name of a service find it, and so do its own dependents, by
/// its key.
#[test]
fn a_service_keeps_the_name_that_windows_knows_it_by() {
    let installation = Installation::new(
        r#"
        [service.sample]
        command = ['PUPPET', "hang"]
        manager_name = "GoSampleService"
        [service.after-sample]
        command = ['PUPPET', "hang"]
        needs = ["sample"]
        "#,
        &["after-sample", "sample"],
    );
    assert_eq!(sc("sample", "STATE"), None);
    assert_eq!(sc("GoSampleService", "STATE"), Some(STOPPED));
    // Windows starts the dependencies of a service. Wine stores dependencies, but ignores them.
    installation.check(0, &["start", "sample"]);
    installation.check(0, &["start", "after-sample"]);
    assert_eq!(sc("GoSampleService", "STATE"), Some(RUNNING));
    assert_eq!(installation.service("sample")["state"], "running");
    let said = installation.check(4, &["stop", "GoSampleService"]);
    assert!(
        said.contains("it is the name of sample in windows\nhint: use the name sample"),
        "{said}"
    );

    if !is_wine() {
        // The manager refuses to stop it alone (1051).
        let said = installation.check(1, &["stop", "sample"]);
        assert!(said.contains("after-sample needs it"), "{said}");
        assert_eq!(sc("GoSampleService", "STATE"), Some(RUNNING));
    }
    installation.check(0, &["stop", "sample", "--with-dependents"]);
    assert_eq!(sc("GoSampleService", "STATE"), Some(STOPPED));
    assert_eq!(sc("after-sample", "STATE"), Some(STOPPED));
    installation.check(0, &["uninstall", "after-sample", "sample"]);
    assert_eq!(sc("GoSampleService", "STATE"), None);
}
