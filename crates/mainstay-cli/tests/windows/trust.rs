//! Programs, directories and manifests that another account may change.

use std::fs;

use mainstay_testkit::puppet;
use mainstay_testkit::scm_windows::open_to_everyone;

use super::{Installation, sc};

/// If everyone can change the program, everyone has the rights of the service. That matters only
/// for a privileged account.
#[test]
fn a_privileged_service_needs_a_program_that_nobody_else_may_change() {
    let installation = Installation::without_installing(
        "[service.open]\ncommand = ['HERE\\program.exe']\naccount = \"local-system\"\n",
        &["open"],
    );
    let program = installation.here().join("program.exe");
    fs::copy(puppet(), &program).expect("a copy");
    open_to_everyone(&program);
    let said = installation.check(78, &["check", "FILE"]);
    assert!(
        said.contains("Everyone may change") && said.contains("program.exe"),
        "{said}"
    );
    installation.check(78, &["install", "FILE"]);
    assert_eq!(sc("open", "STATE"), None);
}

#[test]
fn what_others_have_made_beforehand_is_refused() {
    let manifest = "[service.trap]\ncommand = ['PUPPET', \"hang\"]\n";
    let installation = Installation::without_installing(manifest, &["trap"]);
    let place = installation
        .sandbox
        .state_dir()
        .join("installed")
        .join("trap");
    fs::create_dir_all(&place).expect("its place");
    open_to_everyone(&place);
    let said = installation.check(77, &["install", "FILE"]);
    assert!(said.contains("Everyone may change"), "{said}");
    assert_eq!(sc("trap", "STATE"), None);
    fs::remove_dir_all(&place).expect("its place");

    // A manifest that passes to another account after the installation is not read.
    installation.check(0, &["install", "FILE"]);
    open_to_everyone(&place.join("manifest.toml"));
    let said = installation.check(1, &["start", "trap"]);
    assert!(said.contains("Everyone may change"), "{said}");
}
