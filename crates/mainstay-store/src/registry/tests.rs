//! Tests of the registry with real files and real processes. The other processes run this test
//! program again.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mainstay_core::manifest::Format;
use mainstay_testkit::Sandbox;

use super::*;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/registry-v1.db");
const FIXTURE_V2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/registry-v2.db");
const WORKER: &str = "MAINSTAY_TEST_REGISTRY";
const WORKERS: u64 = 8;
const UPDATES: u64 = 125;

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn definition(text: &str) -> Definition {
    Definition {
        manifest: text.to_owned(),
        format: Format::Toml,
        base_dir: "/srv".to_owned(),
        manager: "systemd".to_owned(),
        mode: "hosted".to_owned(),
        user: false,
        sandbox: true,
    }
}

fn request(service: &str, expected: impl Into<Expected>, text: Option<&str>) -> ChangeRequest {
    ChangeRequest {
        name: name(service),
        expected: expected.into(),
        definition: text.map(definition),
    }
}

fn begin(path: &Path, request: ChangeRequest) -> Result<Work, Error> {
    Registry::open(path)?.begin(&[request])
}

fn install(path: &Path, service: &str, text: &str) -> Version {
    let work = begin(path, request(service, Expected::Any, Some(text))).unwrap();
    work.commit(&[None]).unwrap()[0]
}

fn get(path: &Path, service: &str) -> Option<Registered> {
    Registry::find(path).unwrap()?.get(service).unwrap()
}

/// Returns state, version and text.
fn shown(path: &Path, service: &str) -> String {
    get(path, service).map_or("nothing".to_owned(), |it| {
        format!(
            "{} {} {}",
            it.life.state(),
            it.life.version(),
            it.definition.manifest
        )
    })
}

fn events(path: &Path, service: &str) -> Vec<String> {
    let registry = Registry::open(path).unwrap();
    let history = registry.history(service).unwrap().into_iter();
    history
        .map(|entry| format!("{} {}", entry.event.as_str(), entry.version))
        .collect()
}

#[track_caller]
fn refused(begun: Result<Work, Error>) -> String {
    match begun {
        Err(Error::Refused(refusal)) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_definition_lives() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("state/registry.db");
    assert!(Registry::find(&path).unwrap().is_none());
    assert!(!path.exists());
    assert_eq!(install(&path, "db", "one"), Version(1));
    // Unchanged: no new version and no history entry.
    assert_eq!(install(&path, "db", "one"), Version(1));
    assert_eq!(install(&path, "db", "two"), Version(2));
    let id = get(&path, "db").unwrap().id;

    // A change is in progress: others see the current definition and cannot change it.
    let work = begin(&path, request("db", 2, Some("three"))).unwrap();
    assert_eq!(shown(&path, "db"), "updating 2 two");
    let busy = format!(
        "db is being changed by another mainstay process (pid {})",
        std::process::id()
    );
    assert_eq!(refused(begin(&path, request("db", 2, Some("four")))), busy);
    assert_eq!(refused(begin(&path, request("db", 2, None))), busy);
    work.roll_back("systemd refused").unwrap();
    assert_eq!(shown(&path, "db"), "active 2 two");

    // A stale version changes nothing.
    for (expected, text, why) in [
        (1, Some("four"), "db is at version 2, not 1"),
        (3, None, "db is at version 2, not 3"),
        (0, Some("four"), "db is already registered, at version 2"),
    ] {
        assert_eq!(refused(begin(&path, request("db", expected, text))), why);
    }
    // All changes or none.
    let registry = Registry::open(&path).unwrap();
    let both = [
        request("web", 0, Some("web")),
        request("db", 9, Some("four")),
    ];
    assert_eq!(refused(registry.begin(&both)), "db is at version 2, not 9");
    assert_eq!(shown(&path, "web"), "nothing");

    begin(&path, request("db", 2, None))
        .unwrap()
        .delete(Remains::Keep)
        .unwrap();
    assert_eq!(shown(&path, "db"), "deleted 2 two");
    assert_eq!(
        refused(begin(&path, request("db", 2, None))),
        "db is not registered"
    );
    // A rollback restores the previous state, with and without an earlier definition.
    begin(&path, request("db", 0, Some("five")))
        .unwrap()
        .roll_back("")
        .unwrap();
    assert_eq!(shown(&path, "db"), "deleted 2 two");
    begin(&path, request("web", 0, Some("web")))
        .unwrap()
        .roll_back("")
        .unwrap();
    assert_eq!(shown(&path, "web"), "nothing");
    // A version number is never reused.
    assert_eq!(install(&path, "db", "five"), Version(4));
    assert_eq!(get(&path, "db").unwrap().id, id);
    let expect = [
        "created 1",
        "updated 2",
        "rolled-back 3",
        "deleted 2",
        "created 4",
    ];
    assert_eq!(events(&path, "db"), expect);
    let registry = Registry::open(&path).unwrap();
    let kept = [1, 3].map(|it| registry.definition("db", Version(it)).unwrap());
    assert_eq!(kept, ["one", "three"].map(|it| Some(definition(it))));

    begin(&path, request("db", 4, None))
        .unwrap()
        .delete(Remains::Purge)
        .unwrap();
    assert_eq!(shown(&path, "db"), "nothing");
    assert_eq!(events(&path, "db"), [""; 0]);
    // No other file is left beside the registry.
    drop(registry);
    let left = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["registry.db"]);
}

#[test]
fn the_last_versions_are_kept() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("registry.db");
    for number in 1..=25 {
        install(&path, "db", &number.to_string());
    }
    let registry = Registry::open(&path).unwrap();
    let kept = |version| {
        registry
            .definition("db", Version(version))
            .unwrap()
            .is_some()
    };
    let kept: Vec<u64> = (1..=30).filter(|version| kept(*version)).collect();
    assert_eq!(kept, (6..=25).collect::<Vec<_>>());
    assert_eq!(registry.history("db").unwrap().len(), 25);
    // Rejected versions do not displace those that were in effect.
    for number in 26..=35 {
        let work = begin(&path, request("db", 25, Some(&number.to_string())));
        work.unwrap().roll_back("not ready").unwrap();
    }
    let versions = registry.versions("db").unwrap().into_iter();
    let versions: Vec<u64> = versions.map(|version| version.0).collect();
    assert_eq!(versions, (6..=25).chain(31..=35).collect::<Vec<_>>());
}

#[test]
fn what_has_failed_is_said_and_can_be_repaired() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("registry.db");
    for service in ["db", "web"] {
        // As if the process had died: its lock is released.
        drop(begin(&path, request(service, 0, Some("one"))).unwrap());
        assert_eq!(shown(&path, service), "failed 1 one");
        assert!(
            get(&path, service)
                .unwrap()
                .life
                .why()
                .unwrap()
                .contains("died")
        );
    }
    // A second time.
    drop(begin(&path, request("db", 1, Some("two"))).unwrap());
    assert_eq!(shown(&path, "db"), "failed 1 one");
    let why = get(&path, "db").unwrap().life.why().unwrap().to_owned();
    assert!(why.contains("the process that changed it died"), "{why}");
    assert_eq!(install(&path, "db", "one"), Version(1));
    assert_eq!(shown(&path, "db"), "active 1 one");
    begin(&path, request("web", 1, None))
        .unwrap()
        .delete(Remains::Keep)
        .unwrap();
    assert_eq!(
        events(&path, "db"),
        ["failed 1", "rolled-back 2", "refreshed 1"]
    );
    assert_eq!(events(&path, "web"), ["failed 1", "deleted 1"]);
}

#[cfg(unix)]
#[test]
fn only_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("registry.db");
    install(&path, "db", "one");
    // Including the files beside it during a write.
    let work = begin(&path, request("db", 1, Some("two"))).unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(sandbox.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("registry") {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.file_name());
            count += 1;
        }
    }
    assert!(count >= 3, "{count}");
    drop(work);
}

#[test]
fn what_is_not_a_registry_is_left_alone() {
    let sandbox = Sandbox::new();
    let check = |path: &Path, why: &str| {
        let before = std::fs::read(path).unwrap();
        let failure = Registry::open(path).unwrap_err().to_string();
        assert!(
            failure.contains(why) && failure.contains("hint: "),
            "{failure}"
        );
        assert_eq!(std::fs::read(path).unwrap(), before);
    };
    let text = sandbox.write("text.db", &"this is no database\n".repeat(100));
    check(&text, "not a database");
    let foreign = sandbox.path().join("foreign.db");
    let connection = Connection::open(&foreign).unwrap();
    connection.execute_batch("CREATE TABLE other (a)").unwrap();
    drop(connection);
    check(&foreign, "of another program");
    let newer = sandbox.path().join("newer.db");
    install(&newer, "db", "one");
    let connection = Connection::open(&newer).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    check(&newer, "newer version of mainstay");
    let torn = sandbox.path().join("torn.db");
    install(&torn, "db", "one");
    let mut bytes = std::fs::read(&torn).unwrap();
    for byte in &mut bytes[4096..] {
        *byte = 0x55;
    }
    std::fs::write(&torn, bytes).unwrap();
    let opened = Registry::open(&torn).and_then(|registry| registry.names());
    let failure = opened.unwrap_err().to_string();
    assert!(
        failure.contains("malformed") && failure.contains("hint: "),
        "{failure}"
    );
}

/// Opening a pipe would wait for its other end.
#[cfg(unix)]
#[test]
fn a_pipe_in_its_place_is_refused() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("registry.db");
    mainstay_testkit::make_pipe(&path);
    let opened = [
        Registry::open(&path).map(drop),
        Registry::find(&path).map(drop),
    ];
    for opened in opened {
        let failure = opened.unwrap_err().to_string();
        assert!(failure.contains("it is not a regular file"), "{failure}");
    }
    assert_eq!(Registry::is_half_done(&path, "db"), None);
    Registry::remove_empty(&path);
    assert!(path.symlink_metadata().is_ok());
}

/// The file is from the first release that had a registry.
#[test]
fn an_old_file_opens() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("registry.db");
    std::fs::copy(FIXTURE, &path).unwrap();
    // Its last owner died in the middle of an update.
    assert_eq!(shown(&path, "db"), "active 2 two");
    assert_eq!(shown(&path, "web"), "deleted 1 web");
    assert_eq!(
        events(&path, "db"),
        ["created 1", "updated 2", "rolled-back 2"]
    );
    assert_eq!(events(&path, "web"), ["created 1", "deleted 1"]);
    let first = &Registry::open(&path).unwrap().history("db").unwrap()[0];
    assert_eq!((&*first.who.user, first.who.uid), ("root", Some(0)));
    assert_eq!(install(&path, "db", "three"), Version(3));
}

#[test]
fn an_old_file_has_its_rejected_versions() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("registry.db");
    std::fs::copy(FIXTURE_V2, &path).unwrap();
    assert_eq!(shown(&path, "db"), "active 2 two");
    let expected = ["created 1", "updated 2", "rolled-back 3"];
    assert_eq!(events(&path, "db"), expected);
    let registry = Registry::open(&path).unwrap();
    let rejected = registry.definition("db", Version(3)).unwrap();
    assert_eq!(rejected, Some(definition("three")));
    drop(registry);
    assert_eq!(install(&path, "db", "three"), Version(4));
}

#[test]
fn the_version_that_a_rollback_restored_is_read_from_an_old_file() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("registry.db");
    std::fs::copy(FIXTURE, &path).unwrap();
    let old = Connection::open(&path).unwrap();
    let sql = "UPDATE history SET detail = 'back to version 1' WHERE event = 'updated'";
    assert_eq!(old.execute(sql, []).unwrap(), 1);
    drop(old);
    let entry = &Registry::open(&path).unwrap().history("db").unwrap()[1];
    assert_eq!((entry.restored, &entry.detail), (Some(Version(1)), &None));
}

/// Starts this test in a process of its own.
fn start(test: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            &format!("registry::tests::{test}"),
            "--exact",
            "--nocapture",
            "--quiet",
        ])
        .env(WORKER, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Returns the path of the registry if this process is such a worker.
fn is_worker() -> Option<PathBuf> {
    std::env::var_os(WORKER).map(PathBuf::from)
}

/// Increments the stored number, unless another process has changed it in the meantime.
fn count_up(path: &Path) {
    loop {
        let seen = get(path, "counter").unwrap();
        let version = seen.life.version();
        let count: u64 = seen.definition.manifest.parse().unwrap();
        let next = (count + 1).to_string();
        match begin(path, request("counter", version.0, Some(&next))) {
            Ok(work) => {
                assert_eq!(work.commit(&[None]).unwrap(), [version.next()]);
                return;
            }
            Err(Error::Refused(Refusal::Busy { .. } | Refusal::Conflict { .. })) => {
                std::thread::yield_now();
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[cfg_attr(
    windows,
    ignore = "Wine runs out of descriptors where eight processes share a database"
)]
#[test]
fn of_many_processes_one_wins_each_version() {
    if let Some(path) = is_worker() {
        (0..UPDATES).for_each(|_| count_up(&path));
        return;
    }
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("registry.db");
    install(&path, "counter", "0");
    let workers = (0..WORKERS).map(|_| start("of_many_processes_one_wins_each_version", &path));
    for mut worker in workers.collect::<Vec<_>>() {
        assert!(worker.wait().unwrap().success());
    }
    let all = WORKERS * UPDATES;
    assert_eq!(shown(&path, "counter"), format!("active {} {all}", all + 1));
    let expect = (2..=all + 1).map(|version| format!("updated {version}"));
    let expect: Vec<String> = ["created 1".to_owned()].into_iter().chain(expect).collect();
    assert_eq!(events(&path, "counter"), expect);
}

/// Also if the file does not exist yet.
#[test]
fn many_processes_make_one_file() {
    let test = "many_processes_make_one_file";
    if let Some(path) = is_worker() {
        let pid = std::process::id();
        install(&path, &format!("of-{pid}"), "one");
        return;
    }
    let sandbox = Sandbox::new();
    for round in 0..10 {
        let path = sandbox.path().join(format!("{round}/registry.db"));
        let workers: Vec<Child> = (0..WORKERS).map(|_| start(test, &path)).collect();
        // All workers end before the first assertion, because their directory is deleted with this
        // test.
        let ends = workers.into_iter().map(|mut worker| worker.wait().unwrap());
        let ends: Vec<_> = ends.collect();
        assert!(ends.iter().all(|end| end.success()), "{ends:?}");
        let names = Registry::open(&path).unwrap().names().unwrap();
        assert_eq!(names.len() as u64, WORKERS);
    }
}

/// Two definitions that always change together reveal a partial change.
#[test]
fn whoever_opens_it_after_a_kill_finds_it_whole() {
    if let Some(path) = is_worker() {
        for count in 1.. {
            let text = format!("{} {count}", std::process::id());
            let registry = Registry::open(&path).unwrap();
            let both = ["one", "other"].map(|it| request(it, Expected::Any, Some(&text)));
            let work = registry.begin(&both).unwrap();
            if count % 7 == 0 {
                work.roll_back("for a test").unwrap();
            } else {
                work.commit(&[None, None]).unwrap();
            }
            println!("done");
        }
    }
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("registry.db");
    let both = |text| ["one", "other"].map(|it| request(it, Expected::Any, Some(text)));
    let mut repaired = 0;
    for round in 0..60_u64 {
        let registry = Registry::open(&path).unwrap();
        // Interrupted changes are finished.
        let work = registry.begin(&both("0")).unwrap();
        work.commit(&[None, None]).unwrap();
        let mut child = start("whoever_opens_it_after_a_kill_finds_it_whole", &path);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_at_it = |line: &std::io::Result<String>| line.as_ref().unwrap().ends_with("done");
        assert!(lines.any(|line| is_at_it(&line)));
        // Any instant of the next changes, which take a few milliseconds each.
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        std::thread::sleep(Duration::from_micros(
            u64::from(u16::from_le_bytes(random)) % 20_000,
        ));
        child.kill().unwrap();
        child.wait().unwrap();

        let registry = Registry::open(&path).unwrap();
        let check = "PRAGMA integrity_check";
        let said: String = registry
            .connection
            .query_row(check, [], |row| row.get(0))
            .unwrap();
        assert_eq!(said, "ok");
        let [one, other] = ["one", "other"].map(|it| registry.get(it).unwrap().unwrap());
        assert!(matches!(one.life, Stored::Active(_) | Stored::Failed(_)));
        assert_eq!(one.life, other.life, "round {round}");
        assert_eq!(one.definition, other.definition);
        let last = registry.history("one").unwrap().pop().unwrap();
        assert_eq!(
            one.life.why(),
            last.detail.as_deref().filter(|why| why.contains("died"))
        );
        repaired += usize::from(one.life.why().is_some());
        assert_eq!(owner::tokens(sandbox.path()), [""; 0]);
    }
    assert!(repaired > 0, "no kill came in the middle of a change");
}
