//! The units of the same dozen definitions for each manager, as readable text:
//! `golden/MANAGER.txt`. UPDATE_GOLDEN=1 rewrites them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::{ALL, Content, Site, Unit};
use crate::{
    Accepts, Account, Definition, Limit, Manager, Readiness, Recovery, Scope, Start, StopScope,
    service,
};

/// The program of definitions that name none.
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

/// A program that uses the library.
pub(crate) fn library() -> Definition {
    service("orders")
        .description("Takes orders")
        .account(Account::LocalSystem)
        .accepts(Accepts::RELOAD)
        .needs("postgresql")
        .env("ORDERS_LEVEL", "debug")
}

/// A host of the `mainstay` command.
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

/// An arbitrary program with every setting.
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

/// A dozen services of different kinds.
fn dozen() -> [(&'static str, Definition); 12] {
    let direct_only = || {
        service("orders")
            .executable("/usr/bin/orders")
            .readiness(Readiness::Exec)
    };
    let as_root = || {
        direct_only()
            .arguments(["--port", "80"])
            .account(Account::LocalSystem)
    };
    let as_joe = || {
        direct_only()
            .arguments([""; 0])
            .account(Account::User("joe".into(), None))
    };
    let never = Recovery {
        restart_after: Vec::new(),
        ..Recovery::default()
    };
    let growing = Recovery {
        restart_after: [0, 1, 60].map(Duration::from_secs).into(),
        limit: Some((11, Duration::from_secs(600))),
        halts: [201].into(),
        clean: [3, 143].into(),
        ..Recovery::default()
    };
    [
        ("a program of the library", library()),
        (
            "a host of the command, and what its service needs",
            hosted()
                .wants("postgresql")
                .systemd(|systemd| systemd.before_start(["/usr/bin/mainstay", "host", "orders"])),
        ),
        ("a program with everything set", direct()),
        ("a program that is root", as_root()),
        ("a program with an account of its own", service("orders")),
        (
            "a program that stops by TERM, and is never started again",
            direct().stop_signal("TERM").recovery(never),
        ),
        ("pauses, a limit and codes", as_joe().recovery(growing)),
        (
            "started by hand, and told by a signal",
            as_joe().start(Start::Manual).reload_signal("USR1"),
        ),
        (
            "a watchdog, and a signal for stops",
            as_joe()
                .watchdog(Duration::from_secs(10))
                .stop_signal("QUIT"),
        ),
        (
            "sockets",
            as_joe().listen("127.0.0.1:8080").listen("/run/orders.sock"),
        ),
        ("a user's own", direct_only().scope(Scope::User)),
        (
            "mistakes",
            service("Orders!")
                .executable("orders")
                .env("A B", "x")
                .needs("a b")
                .stop_signal("KILL"),
        ),
    ]
}

/// Compares the units and the unsupported settings for each manager.
#[test]
fn every_manager_is_told_a_dozen_services() {
    for backend in ALL {
        let mut text = String::new();
        for (case, definition) in dozen() {
            let site = Site {
                scope: definition.scope,
                ..site()
            };
            let _infallible = writeln!(text, "##### {case}\n");
            match backend.unit(&definition, &site) {
                _ if definition.scope == Scope::User && !backend.facts().has_users => {
                    text += "it has no services of users\n\n";
                }
                Ok(unit) => show(&unit, &mut text),
                Err(error) => {
                    let _infallible = writeln!(text, "refused: {error}\n");
                }
            }
        }
        compare(backend.manager(), &text);
    }
}

fn show(unit: &Unit, text: &mut String) {
    for entry in &unit.entries {
        let path = entry.path.display();
        let _infallible = match &entry.content {
            Content::File { mode, text: it } => writeln!(text, "=== {path} ({mode:04o})\n{it}"),
            Content::Link(target) => writeln!(text, "=== {path} -> {}\n", target.display()),
        };
    }
    for loss in &unit.losses {
        let _infallible = writeln!(text, "not kept: {loss}");
    }
    text.push('\n');
}

#[track_caller]
fn compare(manager: Manager, text: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/golden");
    let path = dir.join(format!("{manager}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("it can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = text
        .lines()
        .zip(expected.lines())
        .find(|(is, was)| is != was);
    assert!(
        text == expected,
        "{} differs, first in {differs:?}: UPDATE_GOLDEN=1 writes it",
        path.display()
    );
}
