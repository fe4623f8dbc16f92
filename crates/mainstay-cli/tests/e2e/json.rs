//! Errors as programs see them: one object on standard output for every verb with `--json`.

use mainstay_core::failure::Code;

use super::*;

/// Returns the error that a verb prints, and checks it against the exit code and the message.
#[track_caller]
fn error(sandbox: &Sandbox, args: &[&str]) -> Value {
    let output = verb(sandbox, args);
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let error: Value = serde_json::from_str(&text)
        .unwrap_or_else(|why| panic!("{args:?}: {why}: {text:?} {complaint}"));
    assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    let code = u8::try_from(code(output.status)).ok();
    let name = code.and_then(Code::from_number).map(Code::name);
    assert_eq!(
        error["code"].as_u64(),
        code.map(u64::from),
        "{args:?}: {text}"
    );
    assert_eq!(error["name"].as_str(), name, "{args:?}: {text}");
    let message = error["error"].as_str().expect("a message");
    let first = message.split_whitespace().next().expect("a word");
    assert!(
        complaint.contains(&format!("error: {first}")),
        "{args:?}: {complaint}"
    );
    if let Some(hint) = error["hint"].as_str() {
        assert!(
            complaint.contains(hint),
            "{args:?}: {hint} is not in {complaint}"
        );
    }
    error
}

#[test]
fn every_verb_reports_its_failure_as_one_object() {
    let (sandbox, _) = sandbox("[service.a]\ncommand = [\"no-such-program\"]\n");
    let missing = Code::MissingPart.name();
    let wrong = Code::InvalidManifest.name();
    let (absent, unknown) = (Code::NotRunning.name(), Code::Unknown.name());
    for (args, expect) in [
        (&["status", "--json"][..], absent),
        (&["status", "a", "--json"], absent),
        (&["list", "--json"], absent),
        (&["stop", "--json"], absent),
        (&["stop", "a", "--json"], absent),
        (&["start", "a", "--json"], absent),
        (&["restart", "a", "b", "--json"], absent),
        (&["pause", "a", "--json"], absent),
        (&["continue", "a", "--json"], absent),
        (&["reload", "a", "--json"], absent),
        (&["events", "--json"], absent),
        (&["events", "a", "--follow", "--json"], absent),
        (&["events", "a", "--json"], unknown),
        (&["logs", "a", "--json"], unknown),
        (&["history", "a", "--json"], unknown),
        (&["diff", "a", "--json"], unknown),
        (&["verify", "a", "--json"], unknown),
        (&["rollback", "a", "--json"], unknown),
        (&["snapshot", "list", "a", "--json"], unknown),
        (&["snapshot", "restore", "a", "--json"], unknown),
        (&["check", "nowhere.toml", "--json"], wrong),
        (&["update", "nowhere.toml", "--json"], wrong),
        (&["install", "nowhere.toml", "--json"], wrong),
        (&["run", "nowhere.toml", "--json"], wrong),
        (&["run", "mainstay.toml", "--json"], missing),
    ] {
        let error = error(&sandbox, args);
        assert_eq!(error["name"], expect, "{args:?}: {error}");
    }
}

#[test]
fn a_mistake_on_the_command_line_is_an_object_too() {
    let (sandbox, _) = sandbox("[service.a]\ncommand = [\"true\"]\n");
    for args in [
        &["status", "--json", "--nope"][..],
        &["start", "--json"],
        &["logs", "a", "--json", "--since", "whenever"],
        &["no-such-verb", "--json"],
    ] {
        assert_eq!(error(&sandbox, args)["name"], "usage", "{args:?}");
    }
    let misspelt = error(&sandbox, &["verifi", "--json"]);
    assert_eq!(misspelt["error"], "unrecognized subcommand 'verifi'");
    assert_eq!(
        misspelt["hint"],
        "some similar subcommands exist: 'version', 'verify'"
    );
    // Without the option, and after `--`, nothing is printed for programs.
    for args in [
        &["status", "--nope"][..],
        &["status", "--nope", "--", "--json"],
    ] {
        assert!(verb(&sandbox, args).stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_document_is_never_followed_by_another() {
    // It never becomes ready: a service that is ready at once may end only after the answer.
    let (supervisor, sandbox) = supervise(
        r#"
        [service.a]
        command = ["PUPPET", "hang"]
        [service.bad]
        command = ["false"]
        start = { ready = { log = "up" } }
        recovery = { policy = "never" }
        "#,
    );
    event(&supervisor, "bad", "halted");
    let unknown = error(&sandbox, &["start", "b", "--json"]);
    assert_eq!(unknown["name"], "unknown");
    // The object of the control socket, with what the verb was doing before it.
    let (_, refusal) = control::ask(&sandbox, "POST /v1/services/b/start", "");
    // The body is one chunk.
    let refusal = refusal.lines().find(|line| line.starts_with('{'));
    let refusal: Value = serde_json::from_str(refusal.expect("a body")).expect("a document");
    let refused = refusal["error"].as_str().expect("a message");
    assert_eq!(unknown["error"], format!("cannot start b: {refused}"));
    assert_eq!(refusal["code"], unknown["code"]);
    assert_eq!(refusal["name"], unknown["name"]);
    // One of two services does not start.
    let output = verb(&sandbox, &["restart", "a", "bad", "--json"]);
    assert_eq!(code(output.status), 1);
    let results: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(results["services"].as_array().map(Vec::len), Some(2));
    assert_eq!(results["errors"].as_array().map(Vec::len), Some(1));
    assert_eq!(results["errors"][0]["name"], "failed");
    // `check` prints what it found, and `status` the services.
    sandbox.write("wrong.toml", "[service.a]\n");
    let output = verb(&sandbox, &["check", "wrong.toml", "--json"]);
    assert_eq!(code(output.status), 78);
    let found: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert!(found.is_array(), "{found}");
    stop(supervisor, &sandbox);
}
