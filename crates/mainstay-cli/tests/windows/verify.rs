//! `verify` under the Service Control Manager: its sources agree, and staged disagreements are
//! found.

use super::*;

/// Returns the document of `verify NAME --json`, which must exit with `code`.
#[track_caller]
fn verify(installation: &Installation, code: i32, name: &str) -> Value {
    let said = installation.check(code, &["verify", name, "--json"]);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Returns the claim of a source.
#[track_caller]
fn claim<'a>(document: &'a Value, source: &str) -> &'a str {
    let mut all = document["witnesses"].as_array().into_iter().flatten();
    let found = all.find(|it| it["name"] == source);
    let claim = found.and_then(|it| it["claim"].as_str());
    claim.unwrap_or_else(|| panic!("no {source}: {document:#}"))
}

#[track_caller]
fn agrees(installation: &Installation, name: &str, state: &str) -> Value {
    let document = verify(installation, 0, name);
    assert_eq!(document["state"], state, "{document:#}");
    document
}

#[track_caller]
fn disagrees(installation: &Installation, name: &str, cause: &str) {
    let document = verify(installation, 79, name);
    let mut causes = document["causes"].as_array().into_iter().flatten();
    let is_named = |it: &Value| it.as_str().is_some_and(|it| it.contains(cause));
    assert!(causes.any(is_named), "not {cause:?} but {document:#}");
}

#[test]
fn the_sources_of_windows_agree() {
    let manifest = r#"
        [service.witness]
        command = ['PUPPET', "hang"]
    "#;
    let installation = Installation::new(manifest, &["witness"]);
    let down = agrees(&installation, "witness", "stopped");
    assert!(claim(&down, "sc.exe").starts_with("1 stopped"), "{down:#}");
    installation.check(0, &["start", "witness"]);
    let up = agrees(&installation, "witness", "running");
    assert!(claim(&up, "sc.exe").starts_with("4 running"), "{up:#}");
    for source in ["supervisor", "manager"] {
        assert!(claim(&up, source).starts_with("running"), "{up:#}");
    }
    assert!(claim(&up, "processes").contains(" exists"), "{up:#}");
    assert_eq!(claim(&up, "system registry"), "starts at boot", "{up:#}");
    if is_wine() {
        assert_eq!(claim(&up, "Get-Service"), "unknown", "{up:#}");
    } else {
        assert_eq!(claim(&up, "Get-Service"), "Running", "{up:#}");
    }
    installation.check(0, &["pause", "witness"]);
    let paused = agrees(&installation, "witness", "paused");
    assert!(
        claim(&paused, "sc.exe").starts_with("7 paused"),
        "{paused:#}"
    );
    installation.check(0, &["continue", "witness"]);
    agrees(&installation, "witness", "running");

    // Deleted by another tool while it runs. Wine does not store the mark in its registry.
    if !is_wine() {
        sc_does(&["delete", "witness"]);
        disagrees(&installation, "witness", "it is marked for deletion");
        installation.check(0, &["stop", "witness"]);
    }
}

#[test]
fn a_host_that_was_killed_is_not_running() {
    let manifest = r#"
        [service.killed]
        command = ['PUPPET', "hang"]
    "#;
    let installation = Installation::new(manifest, &["killed"]);
    installation.check(0, &["start", "killed"]);
    agrees(&installation, "killed", "running");
    let lock = installation
        .sandbox
        .state_dir()
        .join("installed/killed/state/lock");
    let text = fs::read_to_string(lock).expect("who supervises");
    let host = text.lines().next().and_then(|line| line.parse().ok());
    kill(host.expect("a pid"));
    if is_wine() {
        // Wine's manager still reports it as running.
        disagrees(&installation, "killed", "its supervisor");
    }
    installation.check(0, &["start", "killed"]);
    agrees(&installation, "killed", "running");
}
