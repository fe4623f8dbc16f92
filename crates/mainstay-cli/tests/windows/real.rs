//! Installed services on a real Windows: accounts, access control, the Event Log, recovery actions.

use std::process::Command;

use mainstay_testkit::scm_windows::{is_wine, output};
use mainstay_testkit::{skip, wait_until};

use super::{Installation, SOON, STOPPED, sc, sc_does, text};

/// Returns whether this Windows shows `what`. Wine does not.
fn shows(what: &str) -> bool {
    if is_wine() {
        skip(format!("Wine does not show {what}"));
    }
    !is_wine()
}

/// Returns the output of a program of the system, which must succeed.
#[track_caller]
fn said(program: &str, arguments: &[&str]) -> String {
    let output = output(Command::new(program).args(arguments), SOON);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

#[test]
fn a_program_has_the_account_of_its_service() {
    if !shows("accounts") {
        return;
    }
    let installation = Installation::new(
        r#"
        [defaults]
        command = ['C:\Windows\System32\whoami.exe']
        recovery = { policy = "never" }
        [service.who-virtual]
        [service.who-local]
        account = "local-service"
        [service.who-network]
        account = "network-service"
        "#,
        &["who-virtual", "who-local", "who-network"],
    );
    for (service, account) in [
        ("who-virtual", "nt service\\who-virtual"),
        ("who-local", "nt authority\\local service"),
        ("who-network", "nt authority\\network service"),
    ] {
        sc_does(&["start", service]);
        wait_until("its end", SOON, || {
            (sc(service, "STATE") == Some(STOPPED)).then_some(())
        });
        assert_eq!(installation.logs(service).trim(), account);
    }
}

/// Every user can list installed services, and read nothing of them but who manages them.
#[test]
fn the_definition_of_a_service_is_closed_to_others() {
    if !shows("access control") {
        return;
    }
    let installation = Installation::without_installing(
        r#"
        [service.secret]
        command = ['PUPPET', "hang"]
        [service.thief]
        command = ['C:\Windows\System32\cmd.exe', "/d", "/c", "type", 'STATE\manifest.toml']
        account = "local-service"
        recovery = { policy = "never" }
        [service.reader]
        command = ['C:\Windows\System32\cmd.exe', "/d", "/c", "type", 'STATE\installation.json']
        account = "local-service"
        recovery = { policy = "never" }
        "#,
        &["secret", "thief", "reader"],
    );
    let file = installation.here().join("mainstay.toml");
    let state = installation.sandbox.state_dir().join("installed\\secret");
    let manifest = std::fs::read_to_string(&file).expect("the manifest");
    let manifest = manifest.replace("STATE", &state.display().to_string());
    std::fs::write(&file, manifest).expect("the manifest");
    installation.check(0, &["install", "FILE"]);
    for service in ["thief", "reader"] {
        sc_does(&["start", service]);
        wait_until("its end", SOON, || {
            (sc(service, "STATE") == Some(STOPPED)).then_some(())
        });
    }
    assert_eq!(installation.logs("thief").trim(), "Access is denied.");
    let read = installation.logs("reader");
    assert!(read.contains("\"manager\""), "{read}");
}

/// The host has the account of the service, and writes the event.
#[test]
fn the_event_log_has_the_text_of_a_failure() {
    if !shows("the Event Log") {
        return;
    }
    let installation = Installation::new(
        r#"
        [service.real-event]
        command = ['PUPPET', "exit", "77"]
        recovery = { policy = "strict" }
        "#,
        &["real-event"],
    );
    sc_does(&["start", "real-event"]);
    let query = "/q:*[System[Provider[@Name='mainstay-real-event'] and (EventID=200)]]";
    let event = wait_until("its event", SOON, || {
        let found = said("wevtutil", &["qe", "Application", query, "/f:text"]);
        (!found.trim().is_empty()).then_some(found)
    });
    assert!(event.contains("The service has failed: "), "{event}");
    assert!(event.contains("77"), "{event}");
    drop(installation);
}

/// The manager restarts a host that crashed, and none that exited.
#[test]
fn the_manager_stores_its_recovery_actions() {
    if !shows("recovery actions") {
        return;
    }
    let manifest = "[service.actions]\ncommand = ['PUPPET', \"hang\"]\n";
    let _installation = Installation::new(manifest, &["actions"]);
    let actions = said("sc", &["qfailure", "actions"]);
    assert!(
        actions.contains("RESTART -- Delay = 1000 milliseconds"),
        "{actions}"
    );
    let flag = said("sc", &["qfailureflag", "actions"]);
    assert!(flag.contains("FALSE"), "{flag}");
}
