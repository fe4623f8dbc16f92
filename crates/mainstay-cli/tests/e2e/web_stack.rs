//! The main use case: three real programs from one manifest, used by a client while they are
//! supervised.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use super::*;

/// Returns the body of an answer to `GET /` from nginx, if there is one.
fn visit() -> Option<String> {
    let mut stream = TcpStream::connect("127.0.0.1:18000").ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200")
        .then(|| body.trim().to_owned())
}

fn missing() -> Option<&'static str> {
    let there = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut dirs: Vec<_> = std::env::split_paths(&path).collect();
        dirs.push("/usr/sbin".into());
        dirs.iter().any(|dir| dir.join(program).is_file())
    };
    ["redis-server", "nginx", "python3"]
        .into_iter()
        .find(|program| !there(program))
}

#[test]
fn three_real_programs_from_one_manifest() {
    if let Some(program) = missing() {
        return mainstay_testkit::skip(format!("{program} is not installed"));
    }
    let sandbox = Sandbox::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/web-stack");
    let mut supervisor = Supervisor::start(&sandbox, &example.join("mainstay.toml"));

    // The services start in the order of their needs, each after the previous one is ready.
    event(&supervisor, "nginx", "ready");
    assert_eq!(order(&supervisor, "ready"), ["redis", "app", "nginx"]);
    assert_eq!(visit().as_deref(), Some("visit 1"));
    for name in ["redis", "app", "nginx"] {
        let service = service(&sandbox, name);
        assert_eq!(
            (&service["state"], &service["ready"]),
            (&"running".into(), &true.into())
        );
        assert!(
            service["memory_bytes"]
                .as_u64()
                .is_some_and(|bytes| bytes > 1_000_000)
        );
    }

    // The database crashes: it is killed as by the OOM killer, and restarts with its data. It calls
    // fsync every second. A restart by an operator loses nothing; a kill -9 loses at most one
    // second, so the visit counter is one of two values.
    json(&sandbox, &["restart", "redis", "--json"]);
    assert_eq!(
        visit().as_deref(),
        Some("visit 2"),
        "what it counted is still there"
    );
    let pid = service(&sandbox, "redis")["pid"].as_i64().expect("a pid");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    mainstay_testkit::procs::kill(pid);
    event(&supervisor, "redis", "backing-off");
    let visits = wait_until("the site answers again", SOON, visit);
    assert!(visits == "visit 2" || visits == "visit 3", "{visits}");
    assert_eq!(service(&sandbox, "redis")["restarts"], 1);
    assert_eq!(service(&sandbox, "nginx")["restarts"], 0);

    // Its output is in the log.
    let log = verb(&sandbox, &["logs", "redis", "-n", "500"]);
    assert!(String::from_utf8_lossy(&log.stdout).contains("Ready to accept connections"));

    supervisor.ctrl_c();
    assert!(
        supervisor.wait(SOON).success(),
        "{:#?}",
        supervisor.events()
    );
    let stopped = supervisor
        .events()
        .into_iter()
        .filter(|event| event["event"] == "stopped" && event["outcome"] == "requested");
    assert_eq!(stopped.count(), 3);
    assert_eq!(order(&supervisor, "stopped"), ["nginx", "app", "redis"]);
    assert_eq!(visit(), None);
    sandbox.assert_no_leftovers();
}
