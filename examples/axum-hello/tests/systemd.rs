//! Tests the example as a service of a real systemd: answers to requests, also to one in progress
//! when it is stopped, and the severity of its messages in the journal.
#![cfg(target_os = "linux")]

use std::path::Path;

use mainstay_testkit::lab::Lab;
use mainstay_testkit::skip;

const HELLO: &str = "/opt/hello/axum-hello";

#[test]
fn it_serves_and_stops_in_order_under_systemd() {
    let dir = Path::new(env!("CARGO_BIN_EXE_axum-hello")).parent();
    let lab = match Lab::up("systemd", &[(dir.expect("a place"), "/opt/hello")]) {
        Ok(lab) => lab,
        Err(why) => return skip(why),
    };
    lab.script("systemctl daemon-reload");
    let before = lab.tree(&["/etc", "/usr"]);
    lab.check(0, &[HELLO, "install"]);
    // The start returns when it listens.
    lab.check(0, &[HELLO, "start"]);
    let bash = |script: &str| lab.check(0, &["bash", "-euc", script]);
    let connect = "exec 3<>/dev/tcp/127.0.0.1/8080
        get() { printf 'GET %s HTTP/1.1\\r\\nHost: here\\r\\nConnection: close\\r\\n\\r\\n' $1 >&3; }";
    let said = bash(&format!("{connect}; get /; cat <&3"));
    assert!(
        said.starts_with("HTTP/1.1 200 ") && said.ends_with("\r\nhello\n"),
        "{said}"
    );

    let said = bash(&format!(
        "{connect}; get /slow/5000
         until journalctl --quiet --unit=axum-hello --output=cat | grep -q slow; do :; done
         systemctl stop --no-block axum-hello
         until [ $(systemctl is-active axum-hello) != active ]; do :; done
         systemctl is-active axum-hello || :
         cat <&3"
    ));
    assert!(said.starts_with("deactivating\nHTTP/1.1 200 "), "{said}");
    assert!(said.ends_with("\r\nfinished\n"), "{said}");
    lab.check(0, &[HELLO, "stop"]);
    let show = [
        "systemctl",
        "show",
        "--property=Result,ExecMainStatus",
        "axum-hello",
    ];
    assert_eq!(lab.check(0, &show), "Result=success\nExecMainStatus=0\n");

    let logged = |severity: &str| {
        let range = format!("--priority={severity}..{severity}");
        lab.check(
            0,
            &["journalctl", "_COMM=axum-hello", "--output=cat", &range],
        )
    };
    assert_eq!(logged("info"), "listening on 127.0.0.1:8080\n");
    assert_eq!(logged("warning"), "a slow request millis=5000\n");
    assert_eq!(logged("err"), "");

    // Its failure and the cause are errors.
    lab.check(
        0,
        &[
            "systemd-run",
            "--quiet",
            "--unit=taken",
            "--property=Type=exec",
            "/usr/bin/redis-server",
            "--port",
            "8080",
        ],
    );
    bash("until redis-cli -p 8080 ping >/dev/null; do :; done");
    let said = lab.check(1, &[HELLO, "start"]);
    assert!(said.contains("Address already in use"), "{said}");
    assert!(logged("err").contains("listen on 127.0.0.1:8080: Address already in use"));
    lab.check(0, &["systemctl", "stop", "taken"]);
    lab.check(0, &[HELLO, "uninstall"]);
    lab.check(4, &[HELLO, "status"]);
    lab.assert_tree(&["/etc", "/usr"], &before);
}
