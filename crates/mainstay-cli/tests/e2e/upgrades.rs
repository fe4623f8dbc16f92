//! Programs and hosts whose files are replaced while they run, as package managers do.

use std::fs;
use std::path::Path;

use super::systemd::{MAINSTAY, lab, status, write};
use super::updates::{daemon_again, manifest};
use super::*;

/// Replaces a file by another one, as a package does.
fn replace(path: &Path, by: &Path) {
    let new = path.with_extension("new");
    fs::copy(by, &new).expect("copied");
    fs::rename(&new, path).expect("renamed");
}

#[test]
fn what_runs_from_a_replaced_file_is_shown_until_it_is_restarted() {
    let sandbox = Sandbox::new();
    let [program, supervisor] = ["shop", "mainstay"].map(|name| sandbox.path().join(name));
    replace(&program, &puppet());
    replace(&supervisor, &mainstay());
    let text = "[service.shop]\ncommand = [\"HERE/shop\", \"hang\"]\n\
                [service.other]\ncommand = [\"PUPPET\", \"hang\"]\n";
    let path = manifest(&sandbox, "shop.toml", text);
    let installed = verb(&sandbox, &["install", "--manager", "embedded", &path]);
    assert!(installed.status.success(), "{installed:?}");
    let mut command = sandbox.command(&supervisor);
    command.args(["daemon", "--json"]);
    let mut daemon = Supervisor::spawn(command);
    event(&daemon, "shop", "started");
    event(&daemon, "other", "started");
    let replaced = || {
        let report = json(&sandbox, &["list", "--json"]);
        let services = ["shop", "other"].map(|name| service(&sandbox, name)["replaced"].clone());
        (report["supervisor"]["replaced"].clone(), services)
    };
    let nothing = (Value::Null, [Value::Null, Value::Null]);
    assert_eq!(replaced(), nothing);

    replace(&program, &puppet());
    let of_program = "its program runs from a file that has been replaced or deleted: to run the \
                      new one, restart it (mainstay restart shop)";
    let (of_supervisor, of_services) = replaced();
    assert_eq!(of_supervisor, Value::Null);
    assert_eq!(of_services, [serde_json::json!([of_program]), Value::Null]);
    fs::remove_file(&supervisor).expect("removed");
    let of_supervisor = replaced().0.as_str().expect("a remark").to_owned();
    assert!(
        of_supervisor.starts_with("it runs from a file that has been replaced or deleted: "),
        "{of_supervisor}"
    );
    let table = verb(&sandbox, &["status"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let lines = format!("  supervisor: {of_supervisor}\n  shop: {of_program}\n");
    assert!(table.ends_with(&lines), "{table}");

    let pid = service(&sandbox, "other")["pid"].clone();
    json(&sandbox, &["restart", "shop", "--json"]);
    assert_eq!(replaced().1, [Value::Null, Value::Null]);
    daemon.kill_dash_nine();
    let daemon = daemon_again(&sandbox);
    event(&daemon, "other", "adopted");
    assert_eq!(replaced(), nothing);
    assert_eq!(service(&sandbox, "other")["pid"], pid);
    stop(daemon, &sandbox);
}

#[test]
fn a_host_that_runs_from_a_replaced_file_is_shown_until_it_is_restarted() {
    const COPY: &str = "/srv/bin/mainstay";
    let Some(lab) = lab() else { return };
    let replace = |from: &str, to: &str| {
        lab.script(&format!(
            "mkdir -p /srv/bin; cp {from} /srv/bin/new; mv /srv/bin/new {to}"
        ));
    };
    replace(MAINSTAY, COPY);
    replace("/bin/sleep", "/srv/bin/sleep");
    let app = "[service.app]\ncommand = [\"/srv/bin/sleep\", \"1000\"]\n";
    write(&lab, "/srv/app.toml", app);
    for mode in ["hosted", "direct"] {
        lab.check(0, &[COPY, "install", "--mode", mode, "/srv/app.toml"]);
        lab.check(0, &[COPY, "start", "app"]);
        assert_eq!(status(&lab, "app")["replaced"], Value::Null, "{mode}");
        replace(MAINSTAY, COPY);
        replace("/bin/sleep", "/srv/bin/sleep");
        let remark = |what: &str| {
            format!(
                "{what} runs from a file that has been replaced or deleted: to run the new one, \
                 restart it (mainstay restart app)"
            )
        };
        let expected = match mode {
            "hosted" => vec![remark("its program"), remark("its host")],
            _ => vec![remark("its program")],
        };
        assert_eq!(
            status(&lab, "app")["replaced"],
            serde_json::json!(expected),
            "{mode}"
        );
        lab.check(0, &[COPY, "restart", "app"]);
        assert_eq!(status(&lab, "app")["replaced"], Value::Null, "{mode}");
        lab.check(0, &[COPY, "uninstall", "--purge", "app"]);
    }
}
