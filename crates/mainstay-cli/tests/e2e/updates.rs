//! `mainstay update` and `mainstay rollback`, of services that are installed.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use mainstay_testkit::lab::Lab;

use super::systemd::{MAINSTAY, lab, status, write};
use super::*;

const PUPPET: &str = "/opt/mainstay/puppet";

/// A server that says which version it is, and ends as it is told.
fn shop(version: &str, steps: &str, more: &str) -> String {
    format!(
        "environment = \"development\"\n[service.shop]\naccount = \"local-system\"\n\
         command = [\"{PUPPET}\", \"count\", \"/srv/starts-{version}\", \"print\", \"this is {version}\", {steps}]\n\
         start = {{ ready = {{ log = \"this is\" }}, timeout = \"5s\" }}\n{more}\n"
    )
}

fn starts(lab: &Lab, version: &str) -> usize {
    let count = lab.script(&format!("cat /srv/starts-{version} 2> /dev/null | wc -l"));
    count.trim().parse().expect("a number")
}

/// The document of `update` or `rollback`, for its one service.
#[track_caller]
fn done(lab: &Lab, code: i32, arguments: &[&str]) -> Value {
    let output = lab.run(&[&[MAINSTAY], arguments, &["--json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}"));
    document["services"][0].clone()
}

#[test]
fn a_service_of_systemd_is_updated_and_rolled_back() {
    let Some(lab) = lab() else { return };
    for mode in ["hosted", "direct"] {
        lab.script("rm -f /srv/starts-*");
        let mainstay =
            |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
        let agrees = || mainstay(0, &["verify", "shop"]);
        write(&lab, "/srv/one.toml", &shop("one", "\"hang\"", ""));
        write(
            &lab,
            "/srv/two.toml",
            &shop("two", "\"hang\"", "stop = { graceful = \"2s\" }"),
        );
        write(
            &lab,
            "/srv/broken.toml",
            &shop("broken", "\"sleep\", \"100ms\", \"exit\", \"3\"", ""),
        );
        mainstay(4, &["update", "/srv/one.toml"]);
        mainstay(0, &["install", "--mode", mode, "/srv/one.toml"]);

        // Down, it is changed and no more.
        let said = done(&lab, 0, &["update", "/srv/two.toml"]);
        assert_eq!(
            (&said["outcome"], &said["version"]),
            (&"updated".into(), &2.into())
        );
        assert!(said["style"].is_null(), "{said}");
        assert_eq!(status(&lab, "shop")["state"], "stopped");
        agrees();
        mainstay(0, &["start", "shop"]);
        assert_eq!((starts(&lab, "one"), starts(&lab, "two")), (0, 1));

        // Up, it is tried.
        let said = done(
            &lab,
            0,
            &[
                "update",
                "/srv/one.toml",
                "--if-version",
                "2",
                "--canary",
                "200ms",
            ],
        );
        assert_eq!(
            (&said["outcome"], &said["version"], &said["style"]),
            (&"updated".into(), &3.into(), &"restart".into())
        );
        assert_eq!(status(&lab, "shop")["state"], "running");
        assert_eq!(status(&lab, "shop")["version"], 3);
        assert_eq!((starts(&lab, "one"), starts(&lab, "two")), (1, 1));
        agrees();
        let said = done(&lab, 0, &["update", "/srv/one.toml"]);
        assert_eq!(
            (&said["outcome"], &said["version"]),
            (&"up-to-date".into(), &3.into())
        );
        let refused = mainstay(75, &["update", "/srv/two.toml", "--if-version", "2"]);
        assert!(refused.contains("shop is at version 3, not 2"), "{refused}");

        // What is broken is given up, and nothing of it stays.
        let began = Instant::now();
        let said = done(&lab, 1, &["update", "/srv/broken.toml", "--canary", "20s"]);
        assert_eq!(
            (&said["outcome"], &said["version"]),
            (&"rolled-back".into(), &3.into()),
            "{said}"
        );
        assert_eq!(said["phase"], "canary", "{said}");
        assert_eq!(
            said["last_lines"].as_array().and_then(|all| all.last()),
            Some(&"this is broken".into()),
            "{said}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "it waited for the whole canary"
        );
        // It counted 100 ms before it ended, and that is the verdict.
        let times = lab.script("stat -c %.Y /srv/starts-broken /srv/starts-one");
        let times: Vec<f64> = times
            .lines()
            .map(|it| it.parse().expect("a time"))
            .collect();
        let pause = times[1] - times[0] - 0.1;
        assert!(
            pause < 2.0,
            "{mode}: {pause} s from the verdict to the old version"
        );
        println!("{mode}: {pause:.3} s from the verdict to the old version");
        assert_eq!(status(&lab, "shop")["state"], "running");
        assert_eq!(
            (starts(&lab, "one"), starts(&lab, "broken")),
            (2, 1),
            "{mode}"
        );
        agrees();
        let shown = lab.run(&[MAINSTAY, "update", "/srv/broken.toml", "--canary", "20s"]);
        let shown = String::from_utf8_lossy(&shown.stderr).into_owned();
        assert!(
            shown.contains("shop | this is broken\n") && shown.contains("version 3 holds"),
            "{shown}"
        );

        // Back to what it was before, and to what it was once.
        let said = done(&lab, 0, &["rollback", "shop", "--canary", "0s"]);
        assert_eq!((&said["version"], &said["before"]), (&4.into(), &3.into()));
        assert_eq!(starts(&lab, "two"), 2);
        let said = done(
            &lab,
            0,
            &["rollback", "shop", "--to", "1", "--canary", "0s"],
        );
        assert_eq!(said["version"], 5);
        mainstay(4, &["rollback", "shop", "--to", "9"]);
        agrees();
        lab.check(0, &["systemctl", "restart", "shop"]);
        assert_eq!(starts(&lab, "two"), 2);
        assert_eq!(status(&lab, "shop")["state"], "running");
        mainstay(0, &["uninstall", "shop", "--purge"]);
    }
}
