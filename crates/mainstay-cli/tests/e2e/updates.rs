//! `mainstay update` and `mainstay rollback` of installed services.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use mainstay_testkit::lab::Lab;

use super::systemd::{MAINSTAY, lab, status, write};
use super::update::{Load, read, server, visit};
use super::*;

const PUPPET: &str = "/opt/mainstay/puppet";

/// Returns the definition of a server that prints its version, and ends as `steps` define.
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

/// Returns the JSON document of `update` or `rollback` for its one service.
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

        // A stopped service is only changed.
        let said = done(&lab, 0, &["update", "/srv/two.toml"]);
        assert_eq!(
            (&said["outcome"], &said["version"]),
            (&"updated".into(), &2.into())
        );
        assert_eq!(said["untried"], "the service is stopped");
        assert_eq!(status(&lab, "shop")["state"], "stopped");
        agrees();
        mainstay(0, &["start", "shop"]);
        assert_eq!((starts(&lab, "one"), starts(&lab, "two")), (0, 1));

        // A running service goes through a trial.
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

        // A broken definition is rolled back, and nothing of it is left.
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
        // The service counted its start 100 ms before it ended, which decides the trial.
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
            shown.contains("shop | this is broken\n") && shown.contains("version 3 remains"),
            "{shown}"
        );

        // Rolls back to the previous version, and to an earlier one.
        let said = done(&lab, 0, &["rollback", "shop", "--canary", "0s"]);
        assert_eq!((&said["version"], &said["before"]), (&6.into(), &3.into()));
        assert_eq!(starts(&lab, "two"), 2);
        let said = done(
            &lab,
            0,
            &["rollback", "shop", "--to", "1", "--canary", "0s"],
        );
        assert_eq!(said["version"], 7);
        mainstay(4, &["rollback", "shop", "--to", "9"]);
        agrees();
        lab.check(0, &["systemctl", "restart", "shop"]);
        assert_eq!(starts(&lab, "two"), 2);
        assert_eq!(status(&lab, "shop")["state"], "running");

        // A failed service is still meant to run: an update that repairs it starts it.
        let hopeless = shop("hopeless", "\"exit\", \"201\"", "");
        write(&lab, "/srv/hopeless.toml", &hopeless);
        mainstay(0, &["install", "--mode", mode, "/srv/hopeless.toml"]);
        lab.run(&["systemctl", "restart", "shop"]);
        wait_until("its end", SOON, || {
            let state = lab.run(&["systemctl", "is-failed", "shop"]);
            state.status.success().then_some(())
        });
        let said = done(&lab, 0, &["update", "/srv/two.toml", "--canary", "100ms"]);
        assert_eq!(
            (&said["outcome"], &said["style"]),
            (&"updated".into(), &"restart".into()),
            "{said}"
        );
        assert_eq!(status(&lab, "shop")["state"], "running");
        agrees();
        mainstay(0, &["uninstall", "shop", "--purge"]);
    }
}

/// Writes a manifest for the development environment.
pub(super) fn manifest(sandbox: &Sandbox, name: &str, services: &str) -> String {
    let text = services
        .replace("PUPPET", &puppet().display().to_string())
        .replace("HERE", &sandbox.path().display().to_string());
    let text = format!("environment = \"development\"\n{text}");
    sandbox.write(name, &text).display().to_string()
}

/// Starts a daemon with the services of this manifest.
pub(super) fn daemon(sandbox: &Sandbox, manifest: &str) -> Supervisor {
    let installed = verb(sandbox, &["install", "--manager", "embedded", manifest]);
    assert!(installed.status.success(), "{installed:?}");
    let mut command = sandbox.command(mainstay());
    command.args(["daemon", "--json"]);
    Supervisor::spawn(command)
}

/// Returns the JSON document of `update` or `rollback` for its one service.
#[track_caller]
pub(super) fn said(sandbox: &Sandbox, expected: i32, arguments: &[&str]) -> Value {
    let output = verb(sandbox, &[arguments, &["--json"]].concat());
    assert_eq!(code(output.status), expected, "{arguments:?}: {output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    document["services"][0].clone()
}

#[test]
fn nobody_notices_an_update_good_or_broken_of_who_listens() {
    let sandbox = Sandbox::new();
    let port = mainstay_testkit::free_port();
    let path = manifest(&sandbox, "one.toml", &server(port, "one", ""));
    let daemon = daemon(&sandbox, &path);
    event(&daemon, "web", "ready");
    let load = Load::on(port);
    let two = manifest(&sandbox, "two.toml", &server(port, "two", ""));
    let updated = said(&sandbox, 0, &["update", &two, "--canary", "300ms"]);
    assert_eq!(
        (&updated["outcome"], &updated["style"]),
        (&"updated".into(), &"overlap".into())
    );
    let text = server(port, "broken", "").replace("\"--drain\",", "\"--drain\", \"exit\", \"1\",");
    let broken = manifest(&sandbox, "broken.toml", &text);
    let refused = said(&sandbox, 1, &["update", &broken, "--canary", "20s"]);
    assert_eq!(
        (&refused["outcome"], &refused["style"]),
        (&"rolled-back".into(), &"overlap".into()),
        "{refused}"
    );
    load.go_on();
    let back = said(&sandbox, 0, &["rollback", "web", "--canary", "300ms"]);
    assert_eq!((&back["version"], &back["before"]), (&4.into(), &2.into()));
    assert!(load.end() > 100);
    assert_eq!(read(&sandbox, "one").lines().count(), 2, "starts");
    json(&sandbox, &["verify", "web", "--json"]);
    stop(daemon, &sandbox);
    // The service keeps its new definition under the next daemon.
    let daemon = daemon_again(&sandbox);
    event(&daemon, "web", "ready");
    assert!(visit(port).is_ok());
    assert_eq!(read(&sandbox, "one").lines().count(), 3, "starts");
    assert_eq!(service(&sandbox, "web")["version"], 4);
    stop(daemon, &sandbox);
}

pub(super) fn daemon_again(sandbox: &Sandbox) -> Supervisor {
    let mut command = sandbox.command(mainstay());
    command.args(["daemon", "--json"]);
    Supervisor::spawn(command)
}

/// Compare and swap with 8 processes at a time: each update that succeeds was based on the latest
/// version, and no update is lost.
#[test]
fn of_a_thousand_updates_at_once_one_wins_each_version() {
    const WORKERS: usize = 8;
    const EACH: usize = 125;
    let sandbox = Sandbox::new();
    let text = |who: &str| {
        format!("[service.shop]\ncommand = [\"PUPPET\", \"hang\"]\ndescription = \"{who}\"\n")
    };
    let first = manifest(&sandbox, "first.toml", &text("nobody"));
    let installed = verb(&sandbox, &["install", "--manager", "embedded", &first]);
    assert!(installed.status.success(), "{installed:?}");
    let won: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (sandbox, text) = (&sandbox, &text);
                scope.spawn(move || {
                    let mut won = Vec::new();
                    for count in 0..EACH {
                        let version = service(sandbox, "shop")["version"]
                            .as_u64()
                            .expect("a version");
                        let name = format!("{worker}.toml");
                        let path = manifest(sandbox, &name, &text(&format!("{worker} {count}")));
                        let output = verb(
                            sandbox,
                            &[
                                "update",
                                &path,
                                "--if-version",
                                &version.to_string(),
                                "--json",
                            ],
                        );
                        match code(output.status) {
                            0 => {
                                let done: Value =
                                    serde_json::from_slice(&output.stdout).expect("JSON");
                                let done = &done["services"][0];
                                assert_eq!(done["before"], version);
                                won.push(done["version"].as_u64().expect("a version"));
                            }
                            75 => {}
                            _ => panic!("{output:?}"),
                        }
                    }
                    won
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|it| it.join().expect("no panic"))
            .collect()
    });
    let mut versions = won.clone();
    versions.sort_unstable();
    let expected: Vec<u64> = (2..2 + won.len() as u64).collect();
    assert_eq!(versions, expected, "each version has one winner");
    assert!(won.len() > 10, "somebody always wins: {}", won.len());
    println!("{} of {} updates won", won.len(), WORKERS * EACH);
    assert_eq!(service(&sandbox, "shop")["version"], 1 + won.len());
    let history = json(&sandbox, &["history", "shop", "--json"]);
    let entries = history["entries"].as_array().expect("entries");
    let updated = entries.iter().filter(|it| it["event"] == "updated");
    assert_eq!(updated.count(), won.len());
    let verified = verb(&sandbox, &["verify", "shop", "--json"]).stdout;
    let verified: Value = serde_json::from_slice(&verified).expect("a document");
    let no_daemon = "`mainstay daemon`, which should run it, is not running";
    assert_eq!(verified["causes"], serde_json::json!([no_daemon]));
}

#[test]
fn a_program_comes_along_and_goes_back() {
    let sandbox = Sandbox::new();
    let copy = |name: &str| {
        let mut bytes = std::fs::read(puppet()).expect("the puppet");
        // An executable may be longer than its headers state.
        bytes.extend(name.as_bytes());
        let path = sandbox.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("set");
        path.display().to_string()
    };
    let (old, new) = (copy("shop"), copy("new"));
    let services = |more: &str| {
        format!(
            "[service.shop] # mine\ncommand = [\"HERE/shop\", \"print\", \"up\", \"hang\"]\n\
             start = {{ ready = {{ log = \"up\" }} }}\n{more}"
        )
    };
    let path = manifest(&sandbox, "shop.toml", &services(""));
    let daemon = daemon(&sandbox, &path);
    event(&daemon, "shop", "ready");
    let running = || {
        let pid = service(&sandbox, "shop")["pid"].to_string();
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).expect("it runs");
        program.display().to_string()
    };
    assert_eq!(running(), old);
    let update = |code, more: &[&str]| {
        let arguments = [&["update", &*path, "--canary", "0s"], more].concat();
        let output = verb(&sandbox, &arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(super::code(output.status), code, "{more:?}: {error}");
        error
    };
    let wrong = "0".repeat(64);
    let error = update(1, &["--artifact", &new, "--sha256", &wrong]);
    assert!(error.contains(&format!("expected {wrong}")), "{error}");
    update(2, &["--artifact", "https://127.0.0.1:1/shop"]);
    update(2, &["--artifact", "http://192.0.2.1/shop"]);
    assert_eq!(
        (running(), service(&sandbox, "shop")["version"].clone()),
        (old.clone(), 1.into())
    );

    update(0, &["--artifact", &new]);
    let first = running();
    let programs = format!("{}-programs/shop/", sandbox.state_dir().display());
    assert!(
        first.starts_with(&programs) && first.ends_with("/shop"),
        "{first}"
    );
    json(&sandbox, &["verify", "shop", "--json"]);
    // The program stays, whatever else the manifest changes.
    manifest(
        &sandbox,
        "shop.toml",
        &services("description = \"other\"\n"),
    );
    update(0, &[]);
    assert_eq!(running(), first);
    // A program that does not work.
    let broken = sandbox.write("broken", "#!/bin/sh\necho broken\nexit 1\n");
    let error = update(1, &["--artifact", &broken.display().to_string()]);
    assert!(
        error.contains("shop | broken") && error.contains("version 3 remains"),
        "{error}"
    );
    assert_eq!(running(), first);
    let copies = std::fs::read_to_string(sandbox.state_dir().join("installed/shop/manifest.toml"));
    let text = copies.expect("its manifest");
    assert!(
        text.starts_with("environment = \"development\"\n[service.shop] # mine\n"),
        "{text}"
    );
    let to = ["1", "3"].map(|to| {
        let back = ["rollback", "shop", "--to", to, "--canary", "0s"];
        (said(&sandbox, 0, &back)["version"].as_u64(), running())
    });
    assert_eq!(to, [(Some(5), old), (Some(6), first)]);
    // Programs that no stored definition names are deleted.
    let kept = std::fs::read_dir(&programs).expect("programs").flatten();
    let kept = kept.filter(|entry| entry.path().is_dir());
    assert_eq!(
        kept.count(),
        2,
        "that of version 3, and the one that was rejected"
    );
    stop(daemon, &sandbox);
    let gone = verb(&sandbox, &["uninstall", "shop", "--purge"]);
    assert!(gone.status.success(), "{gone:?}");
    assert!(
        !std::path::Path::new(&programs)
            .parent()
            .expect("above")
            .exists()
    );
}

/// The system calls by which an update changes files, takes locks and contacts other processes.
const STEPS: &str = "write,writev,pwrite64,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,fsync,fdatasync,ftruncate,\
                     link,linkat,symlink,symlinkat,chmod,fchmod,fchmodat,connect,sendto";

fn lacks_strace(sandbox: &Sandbox) -> bool {
    let is_missing = sandbox.command("strace").arg("-V").output().is_err();
    if is_missing {
        mainstay_testkit::skip("strace is not installed");
    }
    is_missing
}

/// Writes a manifest whose service differs for each number.
fn numbered(sandbox: &Sandbox, version: usize) -> String {
    let text = format!(
        "[service.shop]\ncommand = [\"PUPPET\", \"print\", \"{version}\", \"hang\"]\n\
         start = {{ ready = {{ log = \"{version}\" }} }}\n"
    );
    manifest(sandbox, "shop.toml", &text)
}

/// Runs a verb that is killed just before the `n`th such call. Returns whether it was killed.
fn killed_at(sandbox: &Sandbox, n: usize, arguments: &[&str]) -> bool {
    let mut command = sandbox.command("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
    command.arg(format!("trace={STEPS}")).arg("-e");
    command.arg(format!("inject={STEPS}:signal=KILL:when={n}"));
    let output = command
        .arg(mainstay())
        .args(arguments)
        .output()
        .expect("strace runs");
    std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9)
}

#[test]
fn an_update_that_is_killed_anywhere_leaves_nothing_for_a_human() {
    let sandbox = Sandbox::new();
    if lacks_strace(&sandbox) {
        return;
    }
    let shop = |version| numbered(&sandbox, version);
    let daemon = daemon(&sandbox, &shop(0));
    event(&daemon, "shop", "ready");
    let (mut steps, mut torn) = ([0; 3], 0);
    let deployed = || {
        let history = json(&sandbox, &["history", "shop", "--json"]);
        let entries = history["entries"].as_array().expect("entries").iter();
        let updated = entries.filter(|entry| entry["event"] == "updated");
        let versions = updated.map(|entry| entry["version"].to_string());
        versions.collect::<Vec<_>>()
    };
    let artifact = sandbox.path().join("artifact");
    // Rollbacks alternate between two versions.
    let mut targets = Vec::new();
    for (verb_number, steps) in steps.iter_mut().enumerate() {
        for n in 1.. {
            let path = shop(n + 10_000 * verb_number);
            let before = deployed();
            if verb_number == 1 && n == 1 {
                targets = before[before.len() - 2..].to_vec();
            }
            let update = ["update", &path, "--canary", "0s"];
            let is_killed = match verb_number {
                0 => killed_at(&sandbox, n, &update),
                1 => killed_at(
                    &sandbox,
                    n,
                    &["rollback", "shop", "--to", &targets[0], "--canary", "0s"],
                ),
                _ => {
                    let program = format!("#!/bin/sh\nexec {} \"$@\" # {n}\n", puppet().display());
                    std::fs::write(&artifact, program).expect("written");
                    let came_along = ["--artifact", artifact.to_str().expect("UTF-8")];
                    killed_at(&sandbox, n, &[&update[..], &came_along].concat())
                }
            };
            // The service works in every case.
            let report = wait_until("the end of it", SOON, || {
                let report = service(&sandbox, "shop");
                (report["state"] == "running" && report["update"].is_null()).then_some(report)
            });
            assert!(report["pid"].is_u64(), "{n}: {report}");
            assert_eq!(sandbox.processes().len(), 2, "{n}: one run, and the daemon");
            torn += usize::from(code(verb(&sandbox, &["verify", "shop"]).status) != 0);
            // The next operation on it repairs it.
            json(&sandbox, &["start", "shop", "--json"]);
            let verified = verb(&sandbox, &["verify", "shop"]);
            assert!(verified.status.success(), "{n}: {verified:?}");
            let after = deployed();
            let count = after.len() - before.len();
            assert!(count <= 1, "{n}");
            assert_eq!(service(&sandbox, "shop")["state"], "running", "{n}");
            if count == 1 {
                targets.reverse();
            }
            if !is_killed {
                assert_eq!(count, 1, "{n}: it was not killed");
                break;
            }
            *steps = n;
        }
    }
    println!("killed at {steps:?} steps, {torn} times something was to be mended");
    assert!(steps.iter().all(|steps| *steps > 20), "{steps:?}");
    stop(daemon, &sandbox);
}

/// The updating process dies: before anything was written, and in the middle.
#[test]
fn what_a_dead_updater_left_is_put_back_under_systemd() {
    let Some(lab) = lab() else { return };
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    write(&lab, "/srv/one.toml", &shop("one", "\"hang\"", ""));
    write(
        &lab,
        "/srv/two.toml",
        &shop("two", "\"hang\"", "stop = { graceful = \"2s\" }"),
    );
    mainstay(0, &["install", "/srv/one.toml"]);
    mainstay(0, &["start", "shop"]);
    let pid = lab.script(&format!(
        "{MAINSTAY} update /srv/two.toml --canary 60s > /dev/null 2>&1 < /dev/null & echo $!"
    ));
    wait_until("its canary", SOON, || {
        (status(&lab, "shop")["update"]["phase"] == "canary").then_some(())
    });
    let busy = mainstay(75, &["update", "/srv/one.toml"]);
    assert!(
        busy.contains("is being changed by another mainstay"),
        "{busy}"
    );
    lab.check(0, &["kill", "-KILL", pid.trim()]);
    wait_until("the old version", SOON, || {
        let report = status(&lab, "shop");
        (report["update"].is_null() && report["state"] == "running").then_some(())
    });
    assert_eq!((starts(&lab, "one"), starts(&lab, "two")), (2, 1));
    // Simulates that it had begun to write.
    let copy = "/var/lib/mainstay/installed/shop/manifest.toml";
    lab.script(&format!(
        "cp /srv/two.toml {copy}; echo '# half' >> /etc/systemd/system/shop.service; systemctl daemon-reload"
    ));
    let said = mainstay(79, &["verify", "shop"]);
    assert!(said.contains("the process that changed it died"), "{said}");
    let before = status(&lab, "shop")["pid"].clone();
    mainstay(0, &["start", "shop"]);
    mainstay(0, &["verify", "shop"]);
    let report = status(&lab, "shop");
    assert_eq!(
        (&report["version"], &report["pid"]),
        (&1.into(), &before),
        "it was not touched"
    );
    let said = mainstay(0, &["history", "shop"]);
    assert!(
        said.contains("rolled-back") && said.contains("refreshed"),
        "{said}"
    );

    // The host runs a definition that was never committed, so it goes back, too.
    lab.script(&format!(
        "{MAINSTAY} update /srv/two.toml --canary 60s > /dev/null 2>&1 < /dev/null & echo $! > /srv/pid"
    ));
    wait_until("its canary", SOON, || {
        (status(&lab, "shop")["update"]["phase"] == "canary").then_some(())
    });
    lab.script("kill -KILL $(cat /srv/pid)");
    wait_until("the old version", SOON, || {
        status(&lab, "shop")["update"].is_null().then_some(())
    });
    lab.script(&format!("cp /srv/two.toml {copy}; systemctl restart shop"));
    assert_eq!(starts(&lab, "two"), 3);
    mainstay(0, &["start", "shop"]);
    mainstay(0, &["verify", "shop"]);
    assert_eq!((starts(&lab, "one"), starts(&lab, "two")), (4, 3));
    assert_eq!(status(&lab, "shop")["state"], "running");
}

/// The daemon is killed instead, just before any of the calls of its event loop.
#[test]
fn a_daemon_that_is_killed_anywhere_in_an_update_leaves_nothing_for_a_human() {
    let sandbox = Sandbox::new();
    if lacks_strace(&sandbox) {
        return;
    }
    let shop = |version| numbered(&sandbox, version);
    let mut daemon = daemon(&sandbox, &shop(0));
    let is_up = |what: &str| {
        wait_until(what, SOON, || {
            let output = verb(&sandbox, &["status", "shop", "--json"]);
            let report: Value = serde_json::from_slice(&output.stdout).ok()?;
            let report = &report["services"][0];
            let is_up = output.status.success() && report["update"].is_null();
            is_up.then_some(())
        });
    };
    is_up("its first run");
    let (mut committed, mut last) = (0, 0);
    for n in 1.. {
        let path = shop(n);
        let before = service(&sandbox, "shop")["version"]
            .as_u64()
            .expect("a version");
        let mut strace = sandbox.command("strace");
        strace
            .args(["-qq", "-e"])
            .arg(format!("trace={STEPS}"))
            .arg("-e");
        strace.arg(format!("inject={STEPS}:signal=KILL:when={n}"));
        strace
            .args(["-o", "/dev/null", "-p"])
            .arg(daemon.id().to_string());
        let mut strace = strace.spawn().expect("strace runs");
        wait_until("strace", SOON, || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).ok()?;
            (!status.contains("TracerPid:\t0")).then_some(())
        });
        let output = verb(&sandbox, &["update", &path, "--canary", "0s"]);
        // Ends the tracing, so that the daemon continues if it is alive.
        drop(strace.kill());
        drop(strace.wait());
        let is_killed = !verb(&sandbox, &["list"]).status.success();
        if is_killed {
            daemon.wait(SOON);
            daemon = daemon_again(&sandbox);
        }
        is_up("it runs again");
        assert_eq!(sandbox.processes().len(), 2, "{n}: one run, and the daemon");
        json(&sandbox, &["start", "shop", "--json"]);
        let verified = verb(&sandbox, &["verify", "shop"]);
        assert!(verified.status.success(), "{n}: {verified:?} {output:?}");
        is_up("it runs once more");
        let now = service(&sandbox, "shop")["version"]
            .as_u64()
            .expect("a version");
        committed += now - before;
        last = n;
        if !is_killed {
            break;
        }
    }
    println!("killed at {last} calls, {committed} updates held");
    assert!(last > 5, "{last}");
    stop(daemon, &sandbox);
}
