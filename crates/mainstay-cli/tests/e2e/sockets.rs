//! Addresses that the supervisor listens on for its services.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use mainstay_testkit::free_port;
use rustix::process::Pid;

use super::*;

/// Sends a request, whose answer is still to come.
fn ask(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    stream.set_read_timeout(Some(SOON)).expect("set");
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn whoever_connects_while_a_program_is_away_waits_for_it() {
    let port = free_port();
    let (supervisor, sandbox) = supervise(&format!(
        r#"
        [service.shop]
        command = ["PUPPET", "count", "HERE/starts", "await", "HERE/open", "serve", "http", "given:0", "hang"]
        listen = ["127.0.0.1:{port}"]
        recovery = {{ delay = "1ms" }}
        stop = {{ graceful = "1s" }}
        "#
    ));
    event(&supervisor, "shop", "started");
    // The service does not accept connections yet.
    let early = ask(port);
    std::fs::write(sandbox.path().join("open"), "").expect("written");
    assert!(answer(early).starts_with("HTTP/1.1 200"));
    std::fs::remove_file(sandbox.path().join("open")).expect("removed");
    let pid = service(&sandbox, "shop")["pid"].as_i64().expect("it runs");
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    mainstay_testkit::procs::kill(pid.expect("a pid"));
    events(&supervisor, "shop", "started", 2);
    let waiting = ask(port);
    std::fs::write(sandbox.path().join("open"), "").expect("written");
    assert!(answer(waiting).starts_with("HTTP/1.1 200"));
    // The service is down permanently: no client is left waiting.
    json(&sandbox, &["stop", "shop", "--json"]);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    json(&sandbox, &["start", "shop", "--json"]);
    assert!(answer(ask(port)).starts_with("HTTP/1.1 200"));
    stop(supervisor, &sandbox);
}

#[test]
fn an_address_that_somebody_has_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let (mut supervisor, _sandbox) = supervise(&format!(
        r#"
        [service.late]
        command = ["PUPPET", "hang"]
        listen = ["127.0.0.1:{port}"]
        recovery = {{ delay = "1ms", limit = {{ restarts = 1, window = "1m", then = "halt" }} }}
        stop = {{ graceful = "0s" }}
        "#
    ));
    event(&supervisor, "late", "halted");
    let failed = event(&supervisor, "late", "failed");
    let message = failed["message"].as_str().expect("a message");
    assert!(
        message.contains(&format!("listen on 127.0.0.1:{port}")),
        "{message}"
    );
    assert_eq!(code(supervisor.wait(SOON)), 1);
}
