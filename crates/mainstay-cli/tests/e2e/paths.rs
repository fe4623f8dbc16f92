//! Paths that a manifest names and that the service itself can replace.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use mainstay_testkit::skip;

use super::*;

#[test]
fn an_env_file_that_becomes_a_pipe_fails_its_service_and_blocks_nobody() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.piped]
        command = ["/bin/sh", "-c", "rm HERE/env; mkfifo HERE/env; exit 1"]
        env_file = "HERE/env"
        recovery = { delay = "1ms", limit = { restarts = 1, window = "1m" } }
        [service.large]
        command = ["/bin/sh", "-c", "head -c 2000000 /dev/zero | tr '\\0' '#' > HERE/large; exit 1"]
        env_file = "HERE/large"
        recovery = { delay = "1ms", limit = { restarts = 1, window = "1m" } }
        [service.neighbor]
        command = ["PUPPET", "hang"]
        stop = { graceful = "0s" }
        "#,
    );
    sandbox.write("env", "A=1\n");
    sandbox.write("large", "A=1\n");
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    for (name, why) in [
        ("piped", "env: it is a named pipe, not a regular file"),
        ("large", "large: it is larger than 1024 KiB"),
    ] {
        supervisor.wait_event(SOON, |event| {
            let message = event["message"].as_str().unwrap_or_default();
            event["service"] == name && message.contains(why)
        });
    }
    assert_eq!(service(&sandbox, "neighbor")["state"], "running");
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    sandbox.assert_no_leftovers();
}

#[test]
fn only_a_dead_socket_makes_room_for_listening() {
    let service = |name: &str, path: &str| {
        format!(
            r#"
            [service.{name}]
            command = ["PUPPET", "hang"]
            listen = ["HERE/{path}"]
            recovery = {{ delay = "1ms", limit = {{ restarts = 1, window = "1m" }} }}
            stop = {{ graceful = "0s" }}
            "#
        )
    };
    let (sandbox, manifest) = sandbox(
        &[
            service("dead", "dead.sock"),
            service("file", "important.db"),
            service("link", "link.sock"),
            service("live", "live.sock"),
        ]
        .concat(),
    );
    let at = |name: &str| sandbox.path().join(name);
    fs::write(at("important.db"), "important").expect("written");
    drop(UnixListener::bind(at("dead.sock")).expect("a socket"));
    drop(UnixListener::bind(at("other.sock")).expect("a socket"));
    symlink(at("other.sock"), at("link.sock")).expect("a link");
    // The queue of the socket is full: a blocking connect would wait for ever.
    let live = UnixListener::bind(at("live.sock")).expect("a socket");
    rustix::net::listen(&live, 0).expect("a short queue");
    let mut waiting = Vec::new();
    while let Some(stream) = connect_now(&at("live.sock")) {
        waiting.push(stream);
    }
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    for (name, why) in [
        ("file", "important.db: a file of that name exists"),
        ("link", "link.sock: a symbolic link of that name exists"),
        ("live", "live.sock: another process listens there"),
    ] {
        let failed = event(&supervisor, name, "failed");
        let message = failed["message"].as_str().expect("a message");
        assert!(message.contains(why), "{message}");
    }
    event(&supervisor, "dead", "started");
    assert_eq!(
        fs::read_to_string(at("important.db")).expect("it is there"),
        "important"
    );
    assert!(at("link.sock").is_symlink() && at("other.sock").exists());
    assert!(UnixStream::connect(at("dead.sock")).is_ok());
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    sandbox.assert_no_leftovers();
}

/// Connects, unless that would block.
fn connect_now(path: &Path) -> Option<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let socket = socket.expect("a socket");
    let address = SocketAddrUnix::new(path).expect("an address");
    rustix::net::connect(&socket, &address).ok()?;
    Some(socket)
}

/// `nobody`, and the group of the same number.
const OTHER: u32 = 65_534;

/// Returns whether directories can be given to another account.
fn can_be_another() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip("only root can run a service as another account");
    }
    is_root
}

/// Returns a sandbox that every account may enter, with a directory `app` of another account.
fn shared_sandbox(services: &str) -> (Sandbox, std::path::PathBuf) {
    let (sandbox, manifest) = sandbox(services);
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(sandbox.path(), open).expect("set");
    fs::create_dir(sandbox.path().join("home")).expect("a directory");
    chown(sandbox.path().join("home"), Some(OTHER), Some(OTHER)).expect("given");
    (sandbox, manifest)
}

#[test]
fn a_service_that_replaces_a_directory_by_a_link_has_nothing_of_roots_restored_over() {
    if !can_be_another() {
        return;
    }
    let (sandbox, manifest) = shared_sandbox(
        r#"
        [service.led]
        account = "user:nobody"
        command = ["/bin/sh", "HERE/led.sh"]
        snapshot = { paths = ["HERE/home/app/etc/ssh"], after = "50ms" }
        stop = { graceful = "0s" }
        "#,
    );
    let at = |name: &str| sandbox.path().join(name);
    let here = sandbox.path().display();
    sandbox.write(
        "led.sh",
        &format!(
            "cd {here}/home\n\
             if [ -e go ]; then mv app moved; ln -s {here}/trusted app; exit 201; fi\n\
             mkdir -p app/etc/ssh; echo mine > app/etc/ssh/key\n\
             until [ -e go ]; do sleep 0.05; done\n\
             exit 1\n"
        ),
    );
    fs::create_dir_all(at("trusted/etc/ssh")).expect("directories");
    fs::write(at("trusted/etc/ssh/key"), "root's").expect("written");
    let inode = fs::metadata(at("trusted/etc/ssh"))
        .expect("it is there")
        .ino();
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "led", "snapshot-taken");
    fs::write(at("home/go"), "").expect("written");
    let halted = event(&supervisor, "led", "halted");
    let message = halted["message"].as_str().expect("a message");
    let why = format!("{here}/home/app is a symbolic link that uid {OTHER} can change");
    assert!(message.contains(&why), "{message}");
    let found = fs::metadata(at("trusted/etc/ssh")).expect("it is there");
    assert_eq!((found.ino(), found.uid()), (inode, 0));
    let key = fs::read_to_string(at("trusted/etc/ssh/key")).expect("it is there");
    assert_eq!(key, "root's");
    for dir in ["trusted", "trusted/etc"] {
        assert_eq!(fs::read_dir(at(dir)).expect("a directory").count(), 1);
    }
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    sandbox.assert_no_leftovers();
}

#[test]
fn directories_nested_beyond_reason_are_refused_in_one_line_by_every_supervisor() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.deep]
        command = ["PUPPET", "hang"]
        snapshot = { paths = ["HERE/data"], after = "50ms" }
        stop = { graceful = "0s" }
        [service.neighbor]
        command = ["PUPPET", "hang"]
        stop = { graceful = "0s" }
        "#,
    );
    fs::create_dir(sandbox.path().join("data")).expect("a directory");
    nest(&sandbox.path().join("data"), 4500);
    for _ in 0..2 {
        let mut supervisor = Supervisor::start(&sandbox, &manifest);
        let failed = event(&supervisor, "deep", "snapshot-failed");
        let message = failed["message"].as_str().expect("a message");
        assert!(
            message.contains("its directories are nested more than 256 levels deep"),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1);
        assert_eq!(service(&sandbox, "neighbor")["state"], "running");
        supervisor.kill_dash_nine();
    }
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "deep", "snapshot-failed");
    stop(supervisor, &sandbox);
    // std would open them all at once.
    let removed = sandbox.command("rm").args(["-rf", "data"]).status();
    assert!(removed.expect("rm runs").success());
}

/// Creates this number of nested directories.
fn nest(dir: &Path, depth: usize) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = openat(CWD, dir, flags, Mode::empty()).expect("a directory");
    for _ in 0..depth {
        mkdirat(&dir, "d", Mode::RWXU).expect("made");
        dir = openat(&dir, "d", flags, Mode::empty()).expect("a directory");
    }
}

#[test]
fn listening_follows_no_link_of_another_account() {
    if !can_be_another() {
        return;
    }
    let (sandbox, manifest) = shared_sandbox(
        r#"
        [service.led]
        command = ["PUPPET", "hang"]
        listen = ["HERE/home/app/run.sock"]
        recovery = { delay = "1ms", limit = { restarts = 1, window = "1m" } }
        stop = { graceful = "0s" }
        [service.inside]
        command = ["PUPPET", "hang"]
        listen = ["HERE/home/own/run.sock"]
        stop = { graceful = "0s" }
        "#,
    );
    let at = |name: &str| sandbox.path().join(name);
    for dir in ["trusted", "home/own"] {
        fs::create_dir(at(dir)).expect("a directory");
    }
    chown(at("home/own"), Some(OTHER), Some(OTHER)).expect("given");
    drop(UnixListener::bind(at("trusted/run.sock")).expect("a socket"));
    let inode = fs::metadata(at("trusted/run.sock"))
        .expect("it is there")
        .ino();
    symlink(at("trusted"), at("home/app")).expect("a link");
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    let failed = event(&supervisor, "led", "failed");
    let message = failed["message"].as_str().expect("a message");
    assert!(
        message.contains("app is a symbolic link that uid"),
        "{message}"
    );
    let left = fs::metadata(at("trusted/run.sock")).expect("it is there");
    assert_eq!(left.ino(), inode);
    event(&supervisor, "inside", "started");
    assert!(UnixStream::connect(at("home/own/run.sock")).is_ok());
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    sandbox.assert_no_leftovers();
}

/// Such links would disclose whether a file of root exists, and would use another account's socket
/// as that of the service.
#[test]
fn probes_follow_no_link_of_another_account() {
    if !can_be_another() {
        return;
    }
    let service = |name: &str, probe: &str| {
        format!(
            r#"
            [service.{name}]
            command = ["PUPPET", "hang"]
            start = {{ ready = {{ {probe} }}, timeout = "500ms" }}
            recovery = {{ policy = "never" }}
            stop = {{ graceful = "0s" }}
            "#
        )
    };
    let (sandbox, manifest) = shared_sandbox(
        &[
            service("file", "file = \"HERE/home/file\""),
            service("through", "file = \"HERE/home/dir/secret\""),
            service("socket", "unix = \"HERE/home/socket\""),
            service("own", "unix = \"HERE/home/own\", owner = \"any\""),
            service("root", "file = \"HERE/link\""),
        ]
        .concat(),
    );
    let at = |name: &str| sandbox.path().join(name);
    fs::create_dir(at("trusted")).expect("a directory");
    fs::set_permissions(at("trusted"), fs::Permissions::from_mode(0o700)).expect("set");
    fs::write(at("trusted/secret"), "").expect("written");
    let listener = UnixListener::bind(at("trusted/socket")).expect("a socket");
    listener.set_nonblocking(true).expect("set");
    symlink(at("trusted/secret"), at("home/file")).expect("a link");
    symlink(at("trusted"), at("home/dir")).expect("a link");
    symlink(at("trusted/socket"), at("home/socket")).expect("a link");
    symlink(at("trusted/secret"), at("link")).expect("a link");
    let _own = UnixListener::bind(at("home/own")).expect("a socket");
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    for name in ["file", "through", "socket"] {
        let halted = event(&supervisor, name, "halted");
        let message = halted["message"].as_str().expect("a message");
        assert!(message.contains("is a symbolic link that"), "{message}");
    }
    event(&supervisor, "own", "ready");
    event(&supervisor, "root", "ready");
    let asked = listener.accept().expect_err("nobody asks it");
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    sandbox.assert_no_leftovers();
}
