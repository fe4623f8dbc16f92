//! Units of the same definitions for each manager, as text to read: `golden/MANAGER-CASE.txt`. UPDATE_GOLDEN=1 writes them anew.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::{Backend, Content, Site};
use crate::{
    Accepts, Account, Definition, Limit, Manager, Readiness, Recovery, Scope, StopScope, service,
};

/// Where the program of each definition lies that names none.
pub(crate) const RUNNING: &str = "/opt/orders/orders";

pub(crate) fn site() -> Site {
    Site {
        scope: Scope::System,
        running: RUNNING.into(),
        version: 255,
        config_dir: "/home/joe/.config".into(),
        home_dir: "/home/joe".into(),
        user: 1000,
        found: Vec::new(),
        is_staged: false,
    }
}

/// A program that is made with the library.
pub(crate) fn library() -> Definition {
    service("orders")
        .description("Takes orders")
        .account(Account::LocalSystem)
        .accepts(Accepts::RELOAD)
        .needs("postgresql")
        .env("ORDERS_LEVEL", "debug")
}

/// A host of the command.
pub(crate) fn hosted() -> Definition {
    service("orders")
        .display_name("Orders")
        .executable("/usr/bin/mainstay")
        .arguments([
            "host",
            "orders",
            "--manifest",
            "/var/lib/mainstay/orders.toml",
        ])
        .account(Account::LocalSystem)
        .working_dir("/")
        .recovery(Recovery {
            restart_after: vec![Duration::from_secs(1)],
            crashes_only: true,
            ..Recovery::default()
        })
        .graceful(Duration::from_secs(40))
        .ready_check(["/usr/bin/mainstay", "wait", "orders"])
        .supervises()
}

/// Somebody's program, with everything set.
pub(crate) fn direct() -> Definition {
    service("orders")
        .description("It's 100 % \"orders\"\n$HOME `x` \\ é😀")
        .executable("/opt/my orders/run")
        .arguments([
            "--name",
            "it's",
            "",
            "a  b",
            "*",
            "$HOME",
            "`x`",
            "\\",
            "%n",
            "-x",
            "two\nlines",
            "é😀",
        ])
        .env("EMPTY", "")
        .env("ODD", "it's $HOME `x` \"\\\" %h\nnext")
        .env("PATH", "/opt/bin:/usr/bin")
        .env_file("/etc/my orders.env")
        .working_dir("/srv/my orders")
        .account(Account::User("joe".into(), None))
        .needs("postgresql")
        .needs("redis")
        .readiness(Readiness::Exec)
        .ready_check(["/opt/check", "it's"])
        .reload_command(["/opt/reload", "now, please"])
        .stop_signal("INT")
        .stop_scope(StopScope::Tree)
        .graceful(Duration::from_millis(1500))
        .nice(5)
        .cpus([0, 2])
        .limit(Limit::OpenFiles, 4096)
        .limit(Limit::Processes, 100)
        .limit(Limit::CoreSize, 0)
        .limit(Limit::LockedMemory, 65537)
        .recovery(Recovery {
            limit: Some((5, Duration::from_secs(60))),
            halts: [78].into(),
            clean: [143].into(),
            ..Recovery::default()
        })
}

/// Compares all of them with what was written down.
#[track_caller]
pub(crate) fn check(backend: &dyn Backend) {
    let cases = [
        ("library", library()),
        ("hosted", hosted()),
        ("direct", direct()),
    ];
    check_each(backend, cases);
}

#[track_caller]
pub(crate) fn check_each(backend: &dyn Backend, cases: [(&str, Definition); 3]) {
    for (case, definition) in cases {
        check_case(backend, case, &definition);
    }
}

#[track_caller]
fn check_case(backend: &dyn Backend, case: &str, definition: &Definition) {
    let manager: Manager = backend.manager();
    let unit = backend.unit(definition, &site()).unwrap();
    let mut text = String::new();
    for entry in &unit.entries {
        let path = entry.path.display();
        let _infallible = match &entry.content {
            Content::File { mode, text: it } => writeln!(text, "=== {path} ({mode:04o})\n{it}"),
            Content::Link(target) => writeln!(text, "=== {path} -> {}\n", target.display()),
        };
    }
    text += "=== not kept\n";
    for loss in &unit.losses {
        let _infallible = writeln!(text, "{loss}");
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/golden");
    let path = dir.join(format!("{manager}-{case}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{} differs: UPDATE_GOLDEN=1 writes it; it is now\n{text}",
        path.display()
    );
}
