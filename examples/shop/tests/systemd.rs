//! Tests both services under a real systemd: a unit and a process for each.
#![cfg(target_os = "linux")]

use std::path::Path;

use mainstay_testkit::lab::Lab;
use mainstay_testkit::skip;

const SHOP: &str = "/opt/shop/shop";

#[test]
fn each_service_has_a_unit_and_a_process() {
    let dir = Path::new(env!("CARGO_BIN_EXE_shop")).parent();
    let lab = match Lab::up("systemd", &[(dir.expect("a place"), "/opt/shop")]) {
        Ok(lab) => lab,
        Err(why) => return skip(why),
    };
    let shop = |code, arguments: &[&str]| {
        let argv: Vec<&str> = [SHOP].iter().chain(arguments).copied().collect();
        lab.check(code, &argv)
    };
    let pid = |name: &str| {
        let argv = ["systemctl", "show", "--value", "--property=MainPID", name];
        lab.check(0, &argv).trim().to_owned()
    };
    lab.script("systemctl daemon-reload");
    let before = lab.tree(&["/etc"]);
    let said = shop(0, &["install"]);
    assert!(said.contains("shop-web: installed"), "{said}");
    assert!(said.contains("shop-mail: installed"), "{said}");
    shop(0, &["start"]);
    let (web, mail) = (pid("shop-web"), pid("shop-mail"));
    assert!(web != "0" && mail != "0" && web != mail, "{web} {mail}");
    let line = lab.script(&format!("tr '\\0' ' ' < /proc/{mail}/cmdline"));
    assert_eq!(line, "/opt/shop/shop run shop-mail ");
    let said = shop(0, &["status"]);
    let expected = format!("shop-web: running, pid {web}\nshop-mail: running, pid {mail}\n");
    assert_eq!(said, expected);

    shop(0, &["stop", "shop-mail"]);
    shop(3, &["status"]);
    assert_eq!(pid("shop-web"), web);
    let log = lab.check(0, &["journalctl", "--unit=shop-mail", "--output=cat"]);
    assert!(log.contains("confirmations sent"), "{log}");
    shop(0, &["uninstall", "shop-mail"]);
    assert_eq!(pid("shop-web"), web);
    shop(0, &["status", "shop-web"]);
    shop(4, &["status", "shop-mail"]);
    shop(0, &["uninstall", "shop-web"]);
    lab.assert_tree(&["/etc"], &before);
}
