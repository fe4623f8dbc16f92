//! Tests the example as a service of a real systemd.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::time::Duration;

use mainstay_testkit::lab::Lab;
use mainstay_testkit::{skip, wait_until};

const TICKER: &str = "/opt/ticker/tokio-ticker";

#[test]
fn it_counts_reloads_and_stops_in_order_under_systemd() {
    let dir = Path::new(env!("CARGO_BIN_EXE_tokio-ticker")).parent();
    let lab = match Lab::up("systemd", &[(dir.expect("a place"), "/opt/ticker")]) {
        Ok(lab) => lab,
        Err(why) => return skip(why),
    };
    lab.script("systemctl daemon-reload");
    let before = lab.tree(&["/etc", "/usr"]);
    let property = |name: &str| {
        let argv = [
            "systemctl",
            "show",
            "--value",
            "--property",
            name,
            "tokio-ticker",
        ];
        lab.check(0, &argv).trim().to_owned()
    };
    let ticks = || {
        let text = property("StatusText");
        text.strip_suffix(" ticks")?.parse::<u32>().ok()
    };
    let wait_for_ticks = |enough: u32| {
        let soon = Duration::from_secs(20);
        wait_until("its ticks", soon, || {
            ticks().filter(|count| *count >= enough)
        })
    };
    lab.check(0, &[TICKER, "install"]);
    lab.check(0, &[TICKER, "start"]);
    let process = property("MainPID");
    let count = wait_for_ticks(100);
    // It counts anew, in the same process.
    lab.check(0, &[TICKER, "reload"]);
    let soon = Duration::from_secs(20);
    wait_until("its reload", soon, || ticks().filter(|now| *now < count));
    assert_eq!(property("MainPID"), process);
    wait_for_ticks(1);
    lab.check(0, &[TICKER, "stop"]);
    assert_eq!(
        (property("Result"), property("ExecMainStatus")),
        ("success".into(), "0".into())
    );
    let argv = [
        "journalctl",
        "_COMM=tokio-ticker",
        "--output=cat",
        "--priority=info..info",
    ];
    let log = lab.check(0, &argv);
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.ends_with(" ticks\n"), "{log}");
    lab.check(0, &[TICKER, "uninstall"]);
    lab.check(4, &[TICKER, "status"]);
    lab.assert_tree(&["/etc", "/usr"], &before);
}
