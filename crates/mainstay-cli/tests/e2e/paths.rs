//! Paths that a manifest names and that the service itself can replace.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

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
    // Its queue is full: whoever connects and waits would wait for ever.
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

/// Connects unless that would mean to wait.
fn connect_now(path: &Path) -> Option<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let socket = socket.expect("a socket");
    let address = SocketAddrUnix::new(path).expect("an address");
    rustix::net::connect(&socket, &address).ok()?;
    Some(socket)
}
