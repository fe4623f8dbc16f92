//! The registry of services, most of them installed into a real systemd.

use super::daemon::install;
use super::systemd::{MAINSTAY, lab, status, write};
use super::*;

const UNIT: &str = "/etc/systemd/system/shop.service";
const STATE: &str = "/var/lib/mainstay";

fn manifest(key: &str, more: &str) -> String {
    format!(
        "[service.shop]\ncommand = [\"/srv/bin/shop\", \"1000\"]\naccount = \"local-system\"\n\
         env = {{ KEY = \"{key}\" }}\n{more}"
    )
}

#[test]
fn a_definition_has_versions_a_history_and_drift() {
    let Some(lab) = lab() else { return };
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    let json = |arguments: &[&str]| -> Value {
        let said = lab.run(&[&[MAINSTAY], arguments, &["--json"]].concat());
        serde_json::from_slice(&said.stdout).expect("a JSON document")
    };
    let version = || status(&lab, "shop")["version"].clone();
    let drift = || status(&lab, "shop")["drift"].clone();
    let events = || -> Vec<String> {
        let history = json(&["history", "shop"]);
        let entries = history["entries"].as_array().expect("entries");
        let shown =
            |it: &Value| format!("{} {}", it["event"].as_str().expect("text"), it["version"]);
        entries.iter().map(shown).collect()
    };
    lab.script("mkdir -p /srv/bin; cp /bin/sleep /srv/bin/shop");
    write(&lab, "/srv/one.toml", &manifest("hunter2", ""));
    write(
        &lab,
        "/srv/two.toml",
        &manifest("hunter3", "stop = { graceful = \"40s\" }"),
    );

    mainstay(4, &["install", "/srv/one.toml", "--if-version", "1"]);
    mainstay(0, &["install", "/srv/one.toml", "--if-version", "0"]);
    assert_eq!(version(), 1);
    let etag = status(&lab, "shop")["etag"].clone();
    assert_eq!(etag.as_str().map(str::len), Some(64));
    assert_eq!(drift(), Value::Array(vec![]));
    assert_eq!(json(&["list"])["services"][0]["version"], 1);
    assert_eq!(
        lab.script(&format!("stat -c %a {STATE}/registry.db")),
        "600\n"
    );
    // An unchanged definition does not create a version.
    mainstay(0, &["install", "/srv/one.toml"]);
    assert_eq!(version(), 1);
    let unit = lab.check(0, &["cat", UNIT]);

    // A stale version is refused, and nothing is changed.
    let said = mainstay(75, &["install", "/srv/two.toml", "--if-version", "2"]);
    assert!(said.contains("shop is at version 1, not 2"), "{said}");
    mainstay(75, &["install", "/srv/two.toml", "--if-version", "0"]);
    mainstay(75, &["uninstall", "shop", "--if-version", "2"]);
    assert_eq!(lab.check(0, &["cat", UNIT]), unit);
    mainstay(0, &["install", "/srv/two.toml", "--if-version", "1"]);
    assert_eq!(version(), 2);
    assert_ne!(status(&lab, "shop")["etag"], etag);

    // If the manager refuses, the registry is unchanged.
    lab.script(
        "mkdir /srv/refuses
         printf '#!/bin/sh\\ncase \"$*\" in *daemon-reload*) exit 1;; esac\\nexec /bin/systemctl \"$@\"\\n' > /srv/refuses/systemctl; chmod +x /srv/refuses/systemctl
         sed 's/40s/50s/' /srv/two.toml > /srv/three.toml",
    );
    let unit = lab.check(0, &["cat", UNIT]);
    let refused = [
        "env",
        "PATH=/srv/refuses:/bin",
        MAINSTAY,
        "install",
        "/srv/three.toml",
    ];
    lab.check(1, &refused);
    assert_eq!(lab.check(0, &["cat", UNIT]), unit);
    assert_eq!(version(), 2);
    assert_eq!(drift(), Value::Array(vec![]));
    assert_eq!(events(), ["created 1", "updated 2", "rolled-back 3"]);

    let said = mainstay(0, &["diff", "shop", "--to", "2"]);
    assert!(said.contains("+++ shop version 2\n"), "{said}");
    assert!(said.contains("+stop = { graceful = \"40s\" }\n"), "{said}");
    let changed = "+env = { KEY = *** } (changed, value not shown)\n";
    assert!(said.contains(changed), "{said}");
    assert!(!said.contains("hunter"), "{said}");
    let said = mainstay(0, &["diff", "shop", "--to", "/srv/one.toml"]);
    assert!(said.contains("-stop = { graceful = \"40s\" }\n"), "{said}");
    assert_eq!(
        mainstay(0, &["diff", "shop", "--from", "2", "--to", "2"]),
        ""
    );
    mainstay(4, &["diff", "shop", "--to", "9"]);
    let said = mainstay(0, &["history", "shop"]);
    assert!(said.contains("root"), "{said}");

    // Drift and its repair. systemd has not loaded the file since the refused installation.
    lab.script("systemctl daemon-reload");
    let verify = |code| {
        mainstay(code, &["verify", "shop"]);
        json(&["verify", "shop"])
    };
    mainstay(0, &["start", "shop"]);
    let seen = verify(0);
    assert_eq!(seen["verdict"], "agree");
    let claims = seen["witnesses"].as_array().expect("witnesses").iter();
    let claims = claims.map(|it| (it["name"].as_str(), it["claim"].as_str()));
    let claims: Vec<_> = claims.take(4).collect();
    let as_registered = Some("as registered");
    let expect = [
        (Some("registry"), Some("active, version 2")),
        (Some("manifest"), as_registered),
        (Some("unit files"), as_registered),
        (Some("program"), as_registered),
    ];
    assert_eq!(claims, expect);
    for (what, cause) in [
        (
            format!("echo '# mine' >> {UNIT}"),
            format!("{UNIT} has changed since the installation"),
        ),
        (
            format!("rm {UNIT}; systemctl daemon-reload"),
            format!("{UNIT} is missing"),
        ),
        (
            "cp /bin/cat /srv/bin/new; mv /srv/bin/new /srv/bin/shop".to_owned(),
            "the program /srv/bin/shop has changed since the installation".to_owned(),
        ),
        (
            format!("echo '# mine' >> {STATE}/installed/shop/manifest.toml"),
            format!("{STATE}/installed/shop/manifest.toml differs from version 2"),
        ),
    ] {
        lab.script(&what);
        let seen = verify(79);
        assert_eq!(seen["verdict"], "disagree");
        let causes = seen["causes"].as_array().expect("causes");
        assert!(causes.iter().any(|it| *it == *cause), "{what}: {causes:?}");
        assert!(
            drift()
                .as_array()
                .expect("drift")
                .iter()
                .any(|it| *it == *cause),
            "{what}"
        );
        lab.run(&[MAINSTAY, "status", "shop"]);
        mainstay(0, &["install", "/srv/two.toml"]);
        assert_eq!(
            (drift(), version()),
            (Value::Array(vec![]), 2.into()),
            "{what}"
        );
    }
    assert_eq!(events()[3..], ["refreshed 2"]);

    // The running process has another version until it is restarted, unless the definition is
    // equivalent.
    mainstay(0, &["verify", "shop"]);
    lab.script("cp /bin/sleep /srv/bin/new; mv /srv/bin/new /srv/bin/shop");
    lab.script("(cat /srv/two.toml; echo; echo '# in other words') > /srv/words.toml");
    mainstay(0, &["install", "/srv/words.toml"]);
    assert_eq!((drift(), version()), (Value::Array(vec![]), 4.into()));
    mainstay(0, &["install", "/srv/three.toml"]);
    let outdated = "it still runs version 2: restart it (mainstay restart shop)";
    assert_eq!(drift(), serde_json::json!([outdated]));
    assert_eq!(verify(79)["causes"], drift());
    mainstay(0, &["restart", "shop"]);
    assert_eq!(verify(0)["causes"], Value::Array(vec![]));

    mainstay(0, &["uninstall", "shop", "--if-version", "5"]);
    mainstay(4, &["verify", "shop"]);
    assert_eq!(json(&["history", "shop"])["state"], "deleted");
    mainstay(0, &["install", "/srv/one.toml"]);
    assert_eq!(version(), 6);
    mainstay(0, &["uninstall", "shop"]);
    mainstay(4, &["uninstall", "shop"]);
    mainstay(0, &["uninstall", "shop", "--purge"]);
    mainstay(4, &["history", "shop"]);
    mainstay(4, &["uninstall", "shop", "--purge"]);
    lab.script(&format!("test -z \"$(ls -d {STATE} 2> /dev/null)\""));
}

/// An installation that is killed during a request to the manager is detected, and repaired by
/// either verb.
#[test]
fn an_installation_that_died_is_seen_and_repaired() {
    let Some(lab) = lab() else { return };
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    write(
        &lab,
        "/srv/one.toml",
        &manifest("hunter2", "").replace("/srv/bin/shop", "/bin/sleep"),
    );
    // A systemctl that never returns stands for a death at any moment.
    let die = |file: &str| {
        lab.script(&format!(
            "mkdir -p /srv/slow
             printf '#!/bin/sh\\ncase \"$*\" in *daemon-reload*) echo $$ > /srv/slow/pid; mv /srv/slow/pid /srv/slow/asked; exec sleep 1000;; esac\\nexec /bin/systemctl \"$@\"\\n' > /srv/slow/systemctl
             chmod +x /srv/slow/systemctl; rm -f /srv/slow/asked
             PATH=/srv/slow:$PATH {MAINSTAY} install {file} & pid=$!
             until [ -e /srv/slow/asked ]; do sleep 0.01; done
             {MAINSTAY} install {file} && exit 1 || [ $? = 75 ]
             kill -KILL $pid; wait $pid || true
             kill -KILL $(cat /srv/slow/asked)"
        ));
    };
    for repair in ["install", "uninstall"] {
        die("/srv/one.toml");
        let seen = status(&lab, "shop");
        let drift = seen["drift"].to_string();
        assert!(
            drift.contains("the process that installed it died"),
            "{seen}"
        );
        mainstay(79, &["verify", "shop"]);
        match repair {
            "install" => {
                mainstay(0, &["install", "/srv/one.toml"]);
                let seen = status(&lab, "shop");
                assert_eq!(
                    (&seen["version"], &seen["drift"]),
                    (&1.into(), &Value::Array(vec![]))
                );
                mainstay(0, &["start", "shop"]);
                mainstay(0, &["verify", "shop"]);
                mainstay(0, &["uninstall", "shop", "--purge"]);
            }
            _ => {
                mainstay(0, &["uninstall", "shop", "--purge"]);
                lab.script(&format!("! [ -e {UNIT} ]"));
                mainstay(4, &["verify", "shop"]);
            }
        }
        mainstay(4, &["history", "shop"]);
    }
}

#[test]
fn a_version_that_is_not_stored_is_answered_with_those_that_are() {
    let (sandbox, _) = sandbox("");
    for n in ["1", "2", "3"] {
        let service = format!("[service.shop]\ncommand = [\"PUPPET\", \"sleep\", \"{n}s\"]\n");
        install(&sandbox, n, &service);
    }
    for args in [
        ["rollback", "shop", "--to", "9"],
        ["rollback", "shop", "--to", "0"],
        ["diff", "shop", "--from", "9"],
        ["diff", "shop", "--from", "0"],
    ] {
        let absent = format!(
            "error: shop has no version {}, or the version is no longer stored\n\
             hint: stored versions: 1, 2, 3; see their changes: mainstay history shop\n",
            args[3]
        );
        assert_eq!(said(&sandbox, &args), (4, absent), "{args:?}");
    }
    let hint = "name the version with an option: `mainstay rollback NAME --to N`; \
                `mainstay history NAME` lists the versions";
    for order in [["shop", "2"], ["2", "shop"]] {
        let (code, text) = said(&sandbox, &[&["rollback"], &order[..]].concat());
        assert!(
            code == 2 && text.ends_with(&format!("\nhint: {hint}\n")),
            "{text}"
        );
    }
    let refused = verb(&sandbox, &["rollback", "shop", "2", "--json"]);
    let refusal: Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    assert_eq!(refusal["hint"], hint);
}
