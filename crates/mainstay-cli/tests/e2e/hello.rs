//! The examples that a new user runs first.

use std::path::Path;

use super::*;

#[test]
fn hello_trips_once_and_is_picked_up() {
    let sandbox = Sandbox::new();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/hello/mainstay.toml");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "clock", "ready");
    assert_eq!(event(&supervisor, "greeter", "exited")["exit"]["code"], 1);
    event(&supervisor, "greeter", "backing-off");
    events(&supervisor, "greeter", "started", 2);
    let log = sandbox.state_dir().join("logs/greeter/current.log");
    wait_until("its greeting", SOON, || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("hello again, restart 1").then_some(())
    });
    let text = std::fs::read_to_string(&log).expect("its log");
    assert!(
        text.starts_with("hello, I am about to trip\nouch\n"),
        "{text}"
    );
    stop(supervisor, &sandbox);
}

#[test]
fn every_example_is_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut count = 0;
    for example in std::fs::read_dir(examples).expect("examples") {
        let manifest = example.expect("an entry").path().join("mainstay.toml");
        // Some examples are Rust programs that need no manifest.
        if !manifest.exists() {
            continue;
        }
        let sandbox = Sandbox::new();
        let output = verb(&sandbox, &["check", &manifest.display().to_string()]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        count += 1;
    }
    assert!(count >= 3);
}
