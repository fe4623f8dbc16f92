//! Reports of updates and rollbacks: the versions in effect, rejected and restored.
#![cfg(target_os = "linux")]

use super::updates::{daemon, manifest, said};
use super::*;

#[test]
fn an_update_of_a_stopped_service_is_not_said_to_be_tried() {
    let sandbox = Sandbox::new();
    let numbered = |number: u32| {
        let services =
            format!("[service.shop]\ncommand = [\"PUPPET\", \"print\", \"{number}\", \"hang\"]\n");
        manifest(&sandbox, &format!("{number}.toml"), &services)
    };
    let daemon = daemon(&sandbox, &numbered(1));
    event(&daemon, "shop", "started");
    json(&sandbox, &["stop", "shop", "--json"]);
    let updated = verb(&sandbox, &["update", &numbered(2)]);
    let told = String::from_utf8_lossy(&updated.stdout).into_owned();
    let expected = "shop: updated from version 1 to version 2; not tried: the service is stopped\n";
    assert_eq!((code(updated.status), &*told), (0, expected));
    let updated = said(&sandbox, 0, &["update", &numbered(3)]);
    assert_eq!(
        (&updated["outcome"], &updated["style"], &updated["untried"]),
        (
            &"updated".into(),
            &Value::Null,
            &"the service is stopped".into()
        )
    );
    let events = verb(&sandbox, &["events", "shop"]);
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    for part in [
        "shop: stopped by SIGTERM after ",
        "shop: updating from version 2 to version 3: the service is stopped, so the new definition is not tried\n",
        "shop: updated from version 2 to version 3, not tried: the service is stopped\n",
    ] {
        assert!(events.contains(part), "no {part:?} in {events}");
    }
    assert!(
        !events.contains("healthy") && !events.contains("killed"),
        "{events}"
    );
    let history = json(&sandbox, &["history", "shop", "--json"]);
    let details = history["entries"].as_array().expect("entries").iter();
    let details: Vec<_> = details.map(|entry| entry["detail"].as_str()).collect();
    let untried = Some("not tried: the service is stopped");
    assert_eq!(details, [None, untried, untried]);

    // Nothing ran since the recorded end of the last run.
    json(&sandbox, &["stop", "shop", "--json"]);
    stop(daemon, &sandbox);
    let shop = service(&sandbox, "shop");
    let message = shop["last_event"]["message"].as_str();
    assert_eq!(message, Some("stopped by SIGTERM"), "{shop}");
    assert!(shop["last_event"]["unseen"].is_null(), "{shop}");
    let updated = said(&sandbox, 0, &["update", &numbered(4)]);
    assert_eq!(updated["untried"], "`mainstay daemon` is not running");
}
