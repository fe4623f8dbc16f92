//! Files that another account can change are not trusted: programs that would run as root, the
//! state directory, a control socket.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::Path;

use super::*;

/// Any account except root. It need not have a name.
const OTHER: u32 = 65_534;

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        mainstay_testkit::skip("only root gives files away and runs programs as somebody else");
    }
    is_root
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
}

fn give(path: &Path, uid: u32) {
    lchown(path, Some(uid), None).expect("ours");
}

/// Checks that a verb was refused with these words.
#[track_caller]
fn refused(output: &Output, parts: &[&str]) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{complaint}");
    for part in parts {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }
}

/// The ways in which a program can belong to another account, below a directory `D` with a script
/// `D/run`, and the expected message.
type Exposed = (&'static str, fn(&Path), &'static str);

const EXPOSED: [Exposed; 6] = [
    (
        "world-writable",
        |dir| chmod(&dir.join("run"), 0o777),
        "everyone may write to HERE/D/run (owner root, mode 0777)",
    ),
    (
        "group-writable",
        |dir| {
            chmod(&dir.join("run"), 0o775);
            lchown(dir.join("run"), None, Some(OTHER)).expect("ours");
            chmod(&dir.join("run"), 0o775);
        },
        "group 65534 may write to HERE/D/run (owner root, mode 0775)",
    ),
    (
        "of another owner",
        |dir| give(&dir.join("run"), OTHER),
        "HERE/D/run belongs to nobody (mode 0755)",
    ),
    (
        "below a directory of another owner",
        |dir| give(dir, OTHER),
        "HERE/D belongs to nobody",
    ),
    (
        "below a world-writable directory",
        |dir| chmod(dir, 0o777),
        "everyone may write to HERE/D (owner root, mode 0777)",
    ),
    (
        "behind a link of another owner",
        |dir| {
            fs::rename(dir.join("run"), dir.join("real")).expect("ours");
            symlink("real", dir.join("run")).expect("ours");
            give(&dir.join("run"), OTHER);
        },
        "HERE/D/run is a symbolic link of nobody",
    ),
];

#[test]
fn root_runs_no_program_that_another_account_may_change() {
    if !is_root() {
        return;
    }
    for (what, expose, expect) in EXPOSED {
        let (sandbox, _) = sandbox("[service.a]\ncommand = [\"HERE/D/run\"]\n");
        let dir = sandbox.path().join("D");
        fs::create_dir(&dir).expect("a directory");
        sandbox.write("D/run", "#!/bin/sh\nexit 0\n");
        chmod(&dir.join("run"), 0o755);
        let run = || verb(&sandbox, &["run", "mainstay.toml"]);
        assert_eq!(code(run().status), 0, "{what}");
        expose(&dir);
        let expect = expect.replace("HERE", &sandbox.path().display().to_string());
        refused(&run(), &["root", &expect, "hint: "]);
        // A service that drops its rights first may run any program.
        let text = fs::read_to_string(sandbox.path().join("mainstay.toml")).expect("ours");
        sandbox.write(
            "mainstay.toml",
            &format!("{text}account = \"user:nobody\"\nworking_dir = \"/\"\n"),
        );
        chmod(sandbox.path(), 0o755);
        assert_eq!(code(run().status), 0, "{what}");
    }
}

#[test]
fn nor_an_interpreter_a_helper_or_an_environment() {
    if !is_root() {
        return;
    }
    for (what, service) in [
        ("interpreter", "command = [\"HERE/script\"]"),
        (
            "readiness",
            "command = [\"PUPPET\", \"hang\"]\nstart = { ready = { exec = [\"HERE/ww\"] } }",
        ),
        (
            "liveness",
            "command = [\"PUPPET\", \"hang\"]\nliveness = { exec = [\"HERE/ww\"] }",
        ),
        (
            "reload",
            "command = [\"PUPPET\", \"hang\"]\nreload = { exec = [\"HERE/ww\"] }",
        ),
        (
            "alert",
            "command = [\"PUPPET\", \"hang\"]\non_alert = { exec = [\"HERE/ww\"] }",
        ),
        (
            "quiesce",
            "command = [\"PUPPET\", \"hang\"]\n\
             snapshot = { quiesce = [\"PUPPET\", \"exit\", \"0\"], thaw = [\"HERE/ww\"] }",
        ),
        (
            "env_file",
            "command = [\"PUPPET\", \"hang\"]\nenv_file = \"HERE/ww\"",
        ),
    ] {
        let (sandbox, _) = sandbox(&format!("[service.a]\n{service}\n"));
        let ww = sandbox.path().join("ww");
        fs::copy("/bin/true", &ww).expect("a program");
        chmod(&ww, 0o777);
        sandbox.write("script", &format!("#! {} -x\n", ww.display()));
        chmod(&sandbox.path().join("script"), 0o755);
        let expect = format!("everyone may write to {}", ww.display());
        let output = verb(
            &sandbox,
            &["install", "mainstay.toml", "--manager", "embedded"],
        );
        refused(&output, &[&expect, "hint: chmod go-w"]);
        let manifest = fs::read_to_string(sandbox.path().join("mainstay.toml")).expect("ours");
        sandbox.write(
            "check.toml",
            &format!("{manifest}account = \"local-system\"\n"),
        );
        let output = verb(&sandbox, &["check", "check.toml"]);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(output.status), 78, "{what}: {complaint}");
        assert!(complaint.contains(&expect), "{what}: {complaint}");
        let output = verb(&sandbox, &["run", "mainstay.toml"]);
        refused(&output, &[&expect, "hint: chmod go-w"]);
    }
}

#[test]
fn a_program_that_is_exposed_later_is_not_started_again() {
    if !is_root() {
        return;
    }
    let (sandbox, manifest) = sandbox(
        r#"
        [service.a]
        command = ["HERE/run", "hang"]
        [service.b]
        command = ["PUPPET", "hang"]
        "#,
    );
    let run = sandbox.path().join("run");
    fs::copy(puppet(), &run).expect("a program");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "a", "started");
    chmod(&run, 0o777);
    assert_eq!(code(verb(&sandbox, &["restart", "a"]).status), 1);
    let expect = format!("everyone may write to {}", run.display());
    supervisor.wait_event(SOON, |event| {
        let message = event["message"].as_str().unwrap_or_default();
        event["service"] == "a" && message.contains(&expect)
    });
    chmod(&run, 0o755);
    assert_eq!(code(verb(&sandbox, &["start", "a"]).status), 0);
    stop(supervisor, &sandbox);
}

#[test]
fn a_state_directory_that_another_account_may_move() {
    if !is_root() {
        return;
    }
    for (what, expose, expect) in [
        (
            "a parent that everyone may change",
            (|here| chmod(&here.join("above"), 0o777)) as fn(&Path),
            "everyone may write to HERE/above (owner root, mode 0777)",
        ),
        (
            "a parent of another account",
            |here| give(&here.join("above"), OTHER),
            "HERE/above belongs to nobody (mode 0755)",
        ),
        (
            "another account's link in a sticky directory",
            |here| {
                chmod(&here.join("above"), 0o1777);
                fs::create_dir(here.join("real")).expect("ours");
                chmod(&here.join("real"), 0o700);
                symlink(here.join("real"), here.join("above/state")).expect("ours");
                give(&here.join("above/state"), OTHER);
            },
            "HERE/above/state is a symbolic link of nobody",
        ),
    ] {
        let (sandbox, _) = sandbox("[service.a]\ncommand = [\"PUPPET\", \"exit\", \"0\"]\n");
        let here = sandbox.path();
        fs::create_dir(here.join("above")).expect("a directory");
        chmod(&here.join("above"), 0o755);
        expose(here);
        let state = here.join("above/state").display().to_string();
        let expect = expect.replace("HERE", &here.display().to_string());
        for verb_and_more in [
            &["run", "mainstay.toml"][..],
            &["daemon", "--exit-when-done"],
            &["install", "mainstay.toml", "--manager", "embedded"],
            &["stop"],
        ] {
            let args: Vec<&str> = verb_and_more
                .iter()
                .copied()
                .chain(["--state-dir", &state])
                .collect();
            let output = verb(&sandbox, &args);
            refused(&output, &["state directory", &expect, "hint: "]);
        }
        assert!(
            !here.join("real/lock").exists() && !here.join("above/state/lock").exists(),
            "{what}: nothing was written"
        );
    }
    // A link of the own account, and a directory in a sticky one, are accepted.
    let (sandbox, _) = sandbox("[service.a]\ncommand = [\"PUPPET\", \"exit\", \"0\"]\n");
    let here = sandbox.path();
    fs::create_dir_all(here.join("sticky/real")).expect("a directory");
    chmod(&here.join("sticky"), 0o1777);
    symlink("sticky/real", here.join("link")).expect("a link");
    for state in ["link", "sticky/new"] {
        let state = here.join(state).display().to_string();
        let output = verb(&sandbox, &["run", "mainstay.toml", "--state-dir", &state]);
        assert_eq!(code(output.status), 0, "{state}");
    }
}

/// While a state directory was open to others, they may have put entries into it that outlive its
/// repair.
#[test]
fn what_another_account_put_into_the_state_directory() {
    if !is_root() {
        return;
    }
    for (what, plant) in [
        (
            "logs is a symbolic link of nobody",
            (|state| {
                symlink("../elsewhere", state.join("logs")).expect("ours");
                give(&state.join("logs"), OTHER);
            }) as fn(&Path),
        ),
        ("data belongs to nobody (mode 0755)", |state| {
            fs::create_dir(state.join("data")).expect("ours");
            chmod(&state.join("data"), 0o755);
            give(&state.join("data"), OTHER);
        }),
        ("everyone may write to STATE/pipes", |state| {
            fs::create_dir(state.join("pipes")).expect("ours");
            chmod(&state.join("pipes"), 0o777);
        }),
        ("logs/a belongs to nobody (mode 0755)", |state| {
            fs::create_dir_all(state.join("logs/a")).expect("ours");
            chmod(&state.join("logs/a"), 0o755);
            give(&state.join("logs/a"), OTHER);
        }),
    ] {
        let (sandbox, _) = sandbox("[service.a]\ncommand = [\"PUPPET\", \"exit\", \"0\"]\n");
        fs::create_dir(sandbox.path().join("elsewhere")).expect("ours");
        let state = sandbox.state_dir();
        fs::create_dir(&state).expect("ours");
        chmod(&state, 0o700);
        plant(&state);
        let expect = what.replace("STATE", &state.display().to_string());
        for args in [&["run", "mainstay.toml"][..], &["daemon"]] {
            refused(&verb(&sandbox, args), &[&expect, "hint: check and remove"]);
        }
        let elsewhere = fs::read_dir(sandbox.path().join("elsewhere")).expect("ours");
        assert_eq!(elsewhere.count(), 0, "{what}");
    }
}

/// Root can have more than one name.
#[test]
fn another_name_of_root_is_root() {
    if !is_root() {
        return;
    }
    // The user database belongs to the machine. A private mount shows another one to this test
    // only.
    let passwd = fs::read_to_string("/etc/passwd").expect("a database");
    for name in ["root", "toor"] {
        let (sandbox, _) = sandbox(&format!(
            "[service.a]\ncommand = [\"HERE/run\"]\naccount = \"user:{name}\"\n\
             working_dir = \"/\"\n"
        ));
        sandbox.write("run", "#!/bin/sh\nexit 0\n");
        chmod(&sandbox.path().join("run"), 0o757);
        sandbox.write("passwd", &format!("{passwd}toor:x:0:0::/root:/bin/sh\n"));
        let mut command = sandbox.command(Path::new("unshare"));
        command.args(["--mount", "sh", "-c"]);
        command.arg("mount --bind passwd /etc/passwd && exec \"$0\" run mainstay.toml");
        let output = command.arg(mainstay()).output().expect("unshare is there");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{name}: {complaint}");
        assert!(complaint.contains("everyone may write to"), "{complaint}");
    }
}

#[test]
fn a_socket_of_another_account_is_not_believed() {
    if !is_root() {
        return;
    }
    let (sandbox, _) = sandbox("");
    let state = sandbox.state_dir();
    fs::create_dir(&state).expect("a directory");
    chmod(sandbox.path(), 0o711);
    give(&state, OTHER);
    let path = state.join("control.sock");
    // The owner of a listener is the account of this thread at that moment (unix(7), SO_PEERCRED).
    let listener = std::thread::spawn(move || {
        let other = rustix::process::Uid::from_raw(OTHER);
        rustix::thread::set_thread_res_uid(other, other, other).expect("root may");
        std::os::unix::net::UnixListener::bind(path).expect("it listens")
    });
    let listener = listener.join().expect("no panic");
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        while let Ok((mut client, _)) = listener.accept() {
            let mut request = [0; 4096];
            if client.read(&mut request).unwrap_or(0) == 0 {
                continue;
            }
            let body = r#"{"supervisor":null,"services":[]}"#;
            let length = body.len();
            let _ = write!(
                client,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
                 connection: close\r\n\r\n{body}"
            );
        }
    });
    for verb_and_more in [
        &["status"][..],
        &["stop"],
        &["restart", "a"],
        &["events", "-f"],
        &["list"],
    ] {
        let output = verb(&sandbox, verb_and_more);
        refused(&output, &["belongs to nobody", "hint: "]);
    }
    // The content of a file that a program of that account wrote is not trusted, either.
    fs::remove_file(state.join("control.sock")).expect("there");
    fs::write(state.join("lock"), "").expect("root may");
    give(&state.join("lock"), OTHER);
    refused(&verb(&sandbox, &["stop"]), &["belongs to nobody", "hint: "]);
}
