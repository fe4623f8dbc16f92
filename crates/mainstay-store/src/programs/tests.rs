//! Tests with real files, and power failures before every single change.

use std::time::Duration;

use mainstay_testkit::Sandbox;

use super::*;
#[cfg(target_os = "linux")]
use crate::snapshot::Change;
#[cfg(target_os = "linux")]
use crate::snapshot::plug;

const WORDS: &[u8] = b"#!/bin/sh\necho new\n";

/// A file as a source.
struct Plain(PathBuf);

impl Delivery for Plain {
    fn open(&self) -> Result<Content, Failure> {
        let opened = File::open(&self.0);
        let file = opened.map_err(|error| self.interrupted(&error))?;
        Ok(Content {
            size: None,
            bytes: Box::new(file),
        })
    }

    fn interrupted(&self, error: &io::Error) -> Failure {
        self.failure(Code::Failed, &error.to_string())
    }

    fn failure(&self, code: Code, why: &str) -> Failure {
        Failure::new(code, format!("cannot fetch the program: {why}"))
    }
}

fn programs(dir: &Path) -> Programs {
    let place = dir.join("state").join("installed").join("shop");
    if cfg!(windows) {
        // The service is installed in it.
        fs::create_dir_all(&place).unwrap();
    }
    Programs::of_place(&place)
}

fn sandbox() -> (Sandbox, Programs, Plain) {
    let sandbox = Sandbox::new();
    let file = sandbox.path().join("new");
    fs::write(&file, WORDS).unwrap();
    let programs = programs(sandbox.path());
    (sandbox, programs, Plain(file))
}

fn hash(bytes: &[u8]) -> Hash {
    Hash(mainstay_core::snapshot::Digest::of(bytes).to_string())
}

fn left(programs: &Programs) -> Vec<String> {
    let entries = fs::read_dir(&programs.dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name != LOCK).collect();
    names.sort();
    names
}

#[track_caller]
fn refused(fetched: Result<PathBuf, Failure>) -> String {
    fetched.unwrap_err().to_string()
}

#[test]
fn a_file_is_kept_by_its_hash_for_everybody_to_run() {
    let (sandbox, programs, source) = sandbox();
    let path = programs.fetch("shop", &source, None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), WORDS);
    assert!(programs.have(path.to_str().unwrap()) && !programs.have("/bin/shop"));
    assert_eq!(left(&programs), [hash(WORDS).0]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert!(path.ancestors().take(4).all(|it| mode(it) == 0o755));
    }
    // One content with two file names.
    let other = programs.fetch("shop-2", &source, None).unwrap();
    assert_eq!(other.parent(), path.parent());
    let two = sandbox.write("two", "two");
    let two = programs.fetch("shop", &Plain(two), None).unwrap();
    assert_eq!(left(&programs).len(), 2);
    let (long_ago, later) = (
        SystemTime::UNIX_EPOCH,
        SystemTime::now() + Duration::from_secs(9),
    );
    programs.prune(long_ago, |_| false);
    assert_eq!(left(&programs).len(), 2);
    programs.prune(later, |kept| kept == hash(WORDS).0);
    assert!(path.exists() && !two.exists());
    programs.purge().unwrap();
    assert!(!programs.dir.parent().unwrap().exists());
    programs.purge().unwrap();
}

#[test]
fn one_that_is_there_is_not_fetched_again_unless_it_was_damaged() {
    let (sandbox, programs, source) = sandbox();
    let expected = hash(WORDS);
    let path = programs.fetch("shop", &source, Some(&expected)).unwrap();
    let nowhere = Plain(sandbox.path().join("none"));
    let fetch = |source: &Plain| programs.fetch("shop", source, Some(&expected));
    assert_eq!(fetch(&nowhere).unwrap(), path);
    fs::write(&path, "damaged").unwrap();
    assert!(refused(fetch(&nowhere)).contains("fetch the program"));
    assert_eq!(fetch(&source).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), WORDS);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fetch(&source).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o755
        );
    }
    assert_eq!(left(&programs), [expected.0]);
}

#[test]
fn one_at_a_time_fetches() {
    let (_sandbox, programs, source) = sandbox();
    programs.fetch("shop", &source, None).unwrap();
    let lock = programs.lock().unwrap();
    let busy = programs.fetch("shop", &source, None).unwrap_err();
    assert_eq!(busy.code(), Code::Busy);
    programs.prune(SystemTime::now() + Duration::from_secs(9), |_| false);
    assert_eq!(left(&programs).len(), 1);
    drop(lock);
    programs.fetch("shop", &source, None).unwrap();
}

#[cfg(unix)]
#[test]
fn a_place_that_others_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let (sandbox, programs, source) = sandbox();
    let open = |dir: &Path, mode| {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
    };
    let all = programs.dir.parent().unwrap();
    fs::create_dir_all(&programs.dir).unwrap();
    for dir in [&*programs.dir, all, sandbox.path()] {
        for mode in [0o777, 0o775, 0o757] {
            open(dir, mode);
            let why = refused(programs.fetch("shop", &source, None));
            let part = format!(
                "{}: it is writable by others (mode {mode:o})",
                dir.display()
            );
            assert!(why.contains(&part) && why.contains("hint: "), "{why}");
        }
        open(dir, 0o755);
    }
    assert_eq!(left(&programs), [""; 0]);
    // The owner of the link could redirect it.
    fs::remove_dir_all(all).unwrap();
    let (elsewhere, public) = (
        sandbox.path().join("elsewhere"),
        sandbox.path().join("public"),
    );
    for dir in [&elsewhere, &public] {
        fs::create_dir(dir).unwrap();
    }
    std::os::unix::fs::symlink(&elsewhere, public.join("state-programs")).unwrap();
    open(&public, 0o777);
    let through = self::programs(&public);
    let why = refused(through.fetch("shop", &source, None));
    assert!(why.contains("public: it is writable by others"), "{why}");
    open(&public, 0o755);
    through.fetch("shop", &source, None).unwrap();
}

/// Tests of power failures.
#[cfg(target_os = "linux")]
mod faults {
    use std::os::unix::fs::MetadataExt as _;

    use super::plug::{Loss, Place, Plug};
    use super::*;

    /// Returns content that takes more than one write.
    fn content(of: u8) -> Vec<u8> {
        vec![of; CHUNK + 7]
    }

    fn place() -> (Place, Programs) {
        let place = Place::new();
        for of in [1, 2] {
            fs::write(place.path.join(of.to_string()), content(of)).unwrap();
        }
        let programs = programs(&place.path);
        (place, programs)
    }

    fn fetch(programs: &Programs, seam: &dyn Seam, of: u8) -> Result<PathBuf, Failure> {
        let place = programs.dir.ancestors().nth(2).unwrap();
        let source = Plain(place.join(of.to_string()));
        programs.fetch_over(seam, ("shop", &source, Some(&hash(&content(of)))))
    }

    /// Returns whether the program is present, and asserts that it is intact.
    #[track_caller]
    fn is_there(programs: &Programs, of: u8) -> bool {
        let path = programs.dir.join(hash(&content(of)).0).join("shop");
        let Ok(found) = fs::metadata(&path) else {
            return false;
        };
        assert!(fs::read(&path).unwrap() == content(of), "another content");
        // The plug sets this time on files that lost their mode.
        assert_ne!(found.mtime(), 0, "another mode");
        assert_eq!(found.mode() & 0o7777, 0o755);
        true
    }

    /// Runs `act` with a power failure before every change, with every kind of loss.
    fn whatever_happens(
        prepare: impl Fn(&Programs),
        act: impl Fn(&Programs, &dyn Seam) -> bool,
        judge: impl Fn(&Programs, bool),
    ) -> usize {
        let mut most = 0;
        for loss in [Loss::Nothing, Loss::Half, Loss::Everything] {
            for changes in 0.. {
                let (place, programs) = place();
                prepare(&programs);
                let plug = Plug::new(place.path.join("trash"), changes, true);
                let is_done = act(&programs, &*plug);
                plug.lose(loss);
                let was_pulled = plug.was_pulled();
                assert!(is_done || was_pulled);
                judge(&programs, is_done);
                most = most.max(changes);
                if !was_pulled {
                    break;
                }
            }
        }
        most
    }

    #[test]
    fn a_program_is_whole_or_not_there() {
        let changes = whatever_happens(
            |_| {},
            |programs, seam| fetch(programs, seam, 1).is_ok(),
            |programs, is_done| {
                let is_there = is_there(programs, 1);
                assert!(is_there || !is_done);
                // No repair is needed.
                fetch(programs, &CallOff::default(), 1).unwrap();
                assert!(self::is_there(programs, 1));
                fetch(programs, &CallOff::default(), 2).unwrap();
                let mut expected = [1, 2].map(|of| hash(&content(of)).0);
                expected.sort();
                assert_eq!(left(programs), expected);
            },
        );
        assert!(changes >= 14, "{changes}");
    }

    #[test]
    fn one_that_is_damaged_is_replaced_or_stays_damaged_and_others_are_left_alone() {
        let damage = |programs: &Programs| {
            fetch(programs, &CallOff::default(), 2).unwrap();
            let path = fetch(programs, &CallOff::default(), 1).unwrap();
            fs::write(path, "damaged").unwrap();
        };
        let changes = whatever_happens(
            damage,
            |programs, seam| fetch(programs, seam, 1).is_ok(),
            |programs, is_done| {
                assert!(is_there(programs, 2));
                let path = programs.dir.join(hash(&content(1)).0).join("shop");
                let is_damaged = fs::read(&path).unwrap() == b"damaged";
                assert!(is_damaged && !is_done || is_there(programs, 1));
                fetch(programs, &CallOff::default(), 1).unwrap();
                assert!(is_there(programs, 1));
                assert_eq!(left(programs).len(), 2);
            },
        );
        assert!(changes >= 6, "{changes}");
    }

    #[test]
    fn what_is_pruned_is_gone_or_can_be_had_again() {
        let both = |programs: &Programs| {
            for of in [1, 2] {
                fetch(programs, &CallOff::default(), of).unwrap();
            }
        };
        whatever_happens(
            both,
            |programs, seam| {
                let later = SystemTime::now() + Duration::from_secs(9);
                programs.prune_over(seam, later, |kept| kept == hash(&content(2)).0);
                left(programs).len() == 1
            },
            |programs, _| {
                assert!(is_there(programs, 2));
                is_there(programs, 1);
                fetch(programs, &CallOff::default(), 1).unwrap();
                assert!(is_there(programs, 1));
            },
        );
    }

    #[test]
    fn a_disk_that_is_full_is_said() {
        struct Full;
        impl Seam for Full {
            fn before(&self, change: Change<'_>) -> io::Result<()> {
                match change {
                    Change::Write(_) => Err(io::ErrorKind::StorageFull.into()),
                    _ => Ok(()),
                }
            }
        }
        let (_place, programs) = place();
        let failure = fetch(&programs, &Full, 1).unwrap_err();
        assert_eq!(failure.code(), Code::CannotWrite);
        let why = failure.to_string();
        assert!(why.contains("/.new: no storage space"), "{why}");
        assert_eq!(left(&programs), [""; 0]);
    }
}
