//! A group that may view: what its members can do and reach, and what they cannot.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use super::*;

/// Any account except root, and groups of the system that it gets for a test.
const VIEWER: &str = "65534";
const GROUP: &str = "games";
const OTHER_GROUP: &str = "mail";
const PYTHON: &str = "/usr/bin/python3";

const SERVICE: &str = r#"
    [service.a]
    command = ["/bin/sh", "-c", "exec sleep 1000", "hunter1"]
    env = { TOKEN = "hunter2" }
    start = { ready = { exec = ["/bin/true", "hunter3"] } }
"#;

fn is_possible() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let has_groups = group(GROUP).is_some() && group(OTHER_GROUP).is_some();
    if !is_root || !has_groups {
        mainstay_testkit::skip("only root runs programs as another account, in groups that exist");
    }
    is_root && has_groups
}

fn group(name: &str) -> Option<u32> {
    let text = fs::read_to_string("/etc/group").ok()?;
    let mut lines = text.lines().map(|line| line.split(':'));
    let mut line = lines.find(|line| line.clone().next() == Some(name))?;
    line.nth(2)?.parse().ok()
}

/// Returns a command that a viewer runs, in this group only.
fn as_viewer(sandbox: &Sandbox, group: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = sandbox.command("setpriv");
    command.args(["--reuid", VIEWER, "--regid", VIEWER, "--groups", group]);
    command.arg("--").arg(program);
    command
}

fn viewed(sandbox: &Sandbox, group: &str, args: &[&str]) -> (i32, String) {
    let mut command = as_viewer(sandbox, group, mainstay());
    let output = command.args(args).output().expect("setpriv runs");
    let text = [output.stdout, output.stderr].concat();
    (
        code(output.status),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn admitting(services: &str) -> (Supervisor, Sandbox) {
    let (sandbox, manifest) = sandbox(services);
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let manifest = manifest.display().to_string();
    let supervisor = Supervisor::start_with(&sandbox, ["--viewers", GROUP, &manifest]);
    event(&supervisor, "a", "ready");
    (supervisor, sandbox)
}

fn socket(sandbox: &Sandbox) -> PathBuf {
    sandbox.state_dir().join("viewers/control.sock")
}

/// Sends a request as a viewer, and returns the response.
fn curl(sandbox: &Sandbox, group: &str, method: &str, path: &str) -> String {
    let mut command = as_viewer(sandbox, group, "curl");
    let output = command
        .args(["-s", "-m", "20", "-X", method, "--unix-socket"])
        .arg(socket(sandbox))
        .args(["-w", " %{http_code}", &format!("http://mainstay{path}")])
        .output()
        .expect("curl runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn members_view_and_change_nothing() {
    if !is_possible() {
        return;
    }
    let (supervisor, sandbox) = admitting(SERVICE);
    let (status, text) = viewed(&sandbox, GROUP, &["status", "--json"]);
    assert_eq!(status, 0, "{text}");
    let report: Value = serde_json::from_str(&text).expect("a document");
    assert_eq!(report["services"][0]["state"], "running");
    let (status, text) = viewed(&sandbox, GROUP, &["list"]);
    assert!(status == 0 && text.contains("running"), "{text}");

    for path in ["/v1", "/v1/openapi.json", "/v1/services", "/v1/services/a"] {
        let answer = curl(&sandbox, GROUP, "GET", path);
        assert!(answer.ends_with(" 200"), "{path}: {answer}");
        assert!(!answer.contains("hunter"), "{path}: {answer}");
    }
    for (method, path) in [
        ("POST", "/v1/stop"),
        ("POST", "/v1/services/a/stop"),
        ("POST", "/v1/services/a/restart"),
        ("POST", "/v1/services/a/reload"),
        ("POST", "/v1/services/a/logs/rotate"),
        ("POST", "/v1/services/a/update/abort"),
        ("PUT", "/v1/services/a"),
        ("DELETE", "/v1/services/a"),
    ] {
        let answer = curl(&sandbox, GROUP, method, path);
        let document = answer.strip_suffix(" 403");
        let document = document.unwrap_or_else(|| panic!("{method} {path}: {answer}"));
        let refusal: Value = serde_json::from_str(document).expect("a document");
        assert_eq!(refusal["code"], 77);
        assert_eq!(refusal["name"], "permission-denied");
        let error =
            format!("members of the group {GROUP} may view the services, but not change them");
        assert_eq!(refusal["error"], error);
        assert_eq!(refusal["hint"], "send the request as root");
    }
    // Its owner is not bound by the rules of the other socket, and the verbs do not use it.
    for args in [
        &["stop", "a"][..],
        &["restart", "a"],
        &["logs", "a"],
        &["events"],
    ] {
        let (status, text) = viewed(&sandbox, GROUP, args);
        assert_eq!(status, 77, "{args:?}: {text}");
    }
    let told = events(&supervisor, "a", "started", 1);
    assert_eq!(told.len(), 1, "it was never restarted");
    let is_request = |event: &Value| event["event"] == "requested";
    assert!(!supervisor.events().iter().any(is_request));

    // Events, as they happen.
    let mut command = as_viewer(&sandbox, GROUP, "curl");
    command.args(["-sN", "--unix-socket"]).arg(socket(&sandbox));
    command
        .arg("http://mainstay/v1/events")
        .stdout(Stdio::piped());
    let mut listener = command.spawn().expect("curl runs");
    let stdout = listener.stdout.take().expect("a pipe");
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        lines.for_each(|line| drop(tell.send(line)));
    });
    let line = wait_until("an event", SOON, || {
        verb(&sandbox, &["reload", "a"]);
        told.try_recv().ok()
    });
    assert!(
        line.contains("\"requested\"") && !line.contains("hunter"),
        "{line}"
    );
    listener.kill().expect("our child");
    listener.wait().expect("our child");
    stop(supervisor, &sandbox);
}

#[test]
fn others_reach_nothing_and_members_only_the_socket() {
    if !is_possible() {
        return;
    }
    let (supervisor, sandbox) = admitting(SERVICE);
    let (status, text) = viewed(&sandbox, OTHER_GROUP, &["status"]);
    assert!(status == 77 && text.contains("hint: "), "{text}");
    assert!(curl(&sandbox, OTHER_GROUP, "GET", "/v1").ends_with(" 000"));
    // Whoever gets to the socket in spite of its mode is not among the members.
    for (path, mode) in [
        (&*sandbox.state_dir(), 0o711),
        (&sandbox.state_dir().join("viewers"), 0o755),
        (&*socket(&sandbox), 0o666),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    }
    let answer = curl(&sandbox, OTHER_GROUP, "GET", "/v1/services");
    assert!(
        answer.ends_with(" 403") && answer.contains("only members of the group games"),
        "{answer}"
    );
    stop(supervisor, &sandbox);

    let (supervisor, sandbox) = admitting(SERVICE);
    let gid = group(GROUP).expect("a group");
    let state = sandbox.state_dir();
    let is = |path: &Path| {
        let found = fs::metadata(path).expect("it exists");
        (found.mode() & 0o7777, found.uid(), found.gid())
    };
    assert_eq!(is(&state), (0o710, 0, gid));
    assert_eq!(is(&state.join("viewers")), (0o750, 0, gid));
    assert_eq!(is(&socket(&sandbox)), (0o660, 0, gid));
    // Everything else is closed: to read, to write, and to enter.
    let mut open = vec![state.clone()];
    let mut count = 0;
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("ours").flatten() {
            let (path, found) = (entry.path(), entry.metadata().expect("ours"));
            if found.is_dir() {
                open.push(path.clone());
            }
            if path.starts_with(state.join("viewers")) {
                continue;
            }
            count += 1;
            let test = ["-r", "-w", "-x"].map(|access| {
                let mut test = as_viewer(&sandbox, GROUP, "/usr/bin/test");
                let status = test.arg(access).arg(&path).status();
                status.expect("test runs").success()
            });
            let is_socket = found.file_type().is_socket();
            assert_eq!(
                test,
                [false; 3],
                "{} {:o} {is_socket}",
                path.display(),
                found.mode()
            );
        }
    }
    assert!(count > 5, "only {count} entries");

    // A supervisor that admits nobody takes all of it back.
    stop(supervisor, &sandbox);
    let manifest = sandbox.path().join("mainstay.toml");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "a", "ready");
    assert_eq!(is(&state), (0o700, 0, rustix::process::getegid().as_raw()));
    assert!(!state.join("viewers").exists());
    stop(supervisor, &sandbox);
}

#[test]
fn a_viewer_who_connects_without_end_delays_nobody_else() {
    if !is_possible() {
        return;
    }
    if !Path::new(PYTHON).exists() {
        return mainstay_testkit::skip("there is no Python");
    }
    let (supervisor, sandbox) = admitting(SERVICE);
    // As many connections as the queue takes, with incomplete requests, and requests without end.
    let script = format!(
        r#"import os, socket, threading
path = "{}"
held = []
def hold():
    while True:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(5)
        try:
            s.connect(path)
            s.send(b"GET /v1/services HTTP/1.1\r\nhost: x\r\n")
            held.append(s)
        except OSError:
            pass
        del held[:-900]
def ask():
    while True:
        try:
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(5)
            s.connect(path)
            s.send(b"GET /v1/services HTTP/1.1\r\nhost: x\r\n\r\n")
            s.recv(65536)
        except OSError:
            pass
for work in [hold, hold, ask, ask]:
    threading.Thread(target=work, daemon=True).start()
print("begun", flush=True)
threading.Event().wait()
"#,
        socket(&sandbox).display()
    );
    let mut command = as_viewer(&sandbox, GROUP, PYTHON);
    let mut flood = command
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python runs");
    let mut begun = [0; 5];
    let stdout = flood.stdout.as_mut().expect("a pipe");
    stdout.read_exact(&mut begun).expect("it begins");
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        json(&sandbox, &["status", "--json"]);
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    flood.kill().expect("our child");
    flood.wait().expect("our child");
    // The other members go on as soon as it has ended.
    let (status, text) = viewed(&sandbox, GROUP, &["status"]);
    assert_eq!(status, 0, "{text}");
    // A lost socket comes back.
    fs::remove_dir_all(sandbox.state_dir().join("viewers")).expect("ours");
    wait_until("the socket again", SOON, || {
        UnixStream::connect(socket(&sandbox))
            .ok()?
            .write_all(b"x")
            .ok()
    });
    stop(supervisor, &sandbox);
}

#[test]
fn a_group_that_does_not_exist_is_named_before_anything_starts() {
    let (sandbox, manifest) = sandbox(SERVICE);
    let manifest = manifest.display().to_string();
    let (status, text) = said(&sandbox, &["run", "--viewers", "no-such-group", &manifest]);
    assert_eq!(status, 69, "{text}");
    assert!(
        text.contains("there is no group named no-such-group"),
        "{text}"
    );
    assert!(text.contains("hint: "), "{text}");
    assert!(!sandbox.state_dir().join("logs/a").exists());
}
