//! Power failures are simulated before every single change. Unsynced changes are then lost
//! completely, by half or not at all. The result must be repaired automatically.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use mainstay_core::snapshot::{Reason, SnapshotId};
use mainstay_core::spec::{ServiceName, SnapshotKeep, SnapshotPolicy};

use super::Replaced::{Discard, Keep};
use super::Wait::Briefly;
use super::plug::{Loss, Place, Plug};
use super::*;

impl Place {
    fn paths(&self) -> Vec<PathBuf> {
        vec![self.path.join("one/data"), self.path.join("two/data")]
    }

    fn store(&self, seam: Arc<dyn Seam>) -> Store {
        Store {
            dir: self.path.join("state/a"),
            service: ServiceName::new("a").unwrap(),
            seam,
            max_size: SnapshotPolicy::MAX_SIZE,
        }
    }

    /// Writes the state of a version: every kind of file, in two directories.
    fn write(&self, version: u64) {
        for dir in self.paths() {
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir(&dir).unwrap();
            fs::create_dir(dir.join("deep")).unwrap();
            fs::create_dir(dir.join("empty")).unwrap();
            fs::write(
                dir.join("deep/file"),
                format!("version {version}").repeat(100),
            )
            .unwrap();
            fs::hard_link(dir.join("deep/file"), dir.join("same")).unwrap();
            let sparse = File::create(dir.join("sparse")).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 12_000 + version).unwrap();
            std::os::unix::fs::symlink(format!("deep/{version}"), dir.join("link")).unwrap();
            let fifo = rustix::fs::FileType::Fifo;
            let mode = rustix::fs::Mode::from_raw_mode(0o620);
            rustix::fs::mknodat(rustix::fs::CWD, dir.join("pipe"), fifo, mode, 0).unwrap();
            fs::write(dir.join(format!("only-{version}")), []).unwrap();
            let mode = fs::Permissions::from_mode(0o640 + u32::try_from(version).unwrap());
            fs::set_permissions(dir.join("sparse"), mode).unwrap();
            fs::set_permissions(dir.join("deep"), fs::Permissions::from_mode(0o2751)).unwrap();
            let at =
                UNIX_EPOCH + Duration::from_secs(1_000_000 + version) + Duration::from_nanos(7);
            for timed in ["sparse", "deep", "."] {
                File::open(dir.join(timed))
                    .unwrap()
                    .set_modified(at)
                    .unwrap();
            }
        }
    }

    fn picture(&self) -> Vec<BTreeMap<PathBuf, String>> {
        self.paths().iter().map(|dir| picture(dir)).collect()
    }

    /// Asserts that no other files are beside the state and in the store.
    #[track_caller]
    fn assert_tidy(&self) {
        for dir in ["one", "two"] {
            let names = names(&self.path.join(dir));
            assert_eq!(names, ["data"], "in {dir}");
        }
        let names = names(&self.path.join("state/a"));
        let is_known = |name: &String| {
            name.parse::<SnapshotId>().is_ok() || matches!(name.as_str(), "lock" | "in-use")
        };
        assert!(names.iter().all(is_known), "{names:?}");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Describes everything visible in a directory except inode numbers.
fn picture(dir: &Path) -> BTreeMap<PathBuf, String> {
    fn look(dir: &Path, at: &Path, seen: &mut BTreeMap<PathBuf, String>) {
        for name in names(&dir.join(at)) {
            let below = at.join(name);
            describe(dir, &below, seen);
        }
    }
    fn describe(dir: &Path, at: &Path, seen: &mut BTreeMap<PathBuf, String>) {
        let path = dir.join(at);
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = match stat.file_type() {
            kind if kind.is_file() => {
                let bytes = fs::read(&path).unwrap();
                let same = dir.join("same");
                let is_same = fs::metadata(same).is_ok_and(|same| same.ino() == stat.ino());
                format!(
                    "{} bytes, {}, {is_same}",
                    bytes.len(),
                    mainstay_core::snapshot::Digest::of(&bytes)
                )
            }
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            _ => String::new(),
        };
        let time = (stat.mtime(), stat.mtime_nsec());
        let links = stat.nlink();
        let line = format!(
            "{:o} {}:{} {time:?} {links} {content}",
            stat.mode(),
            stat.uid(),
            stat.gid()
        );
        seen.insert(at.to_owned(), line);
        if stat.is_dir() {
            look(dir, at, seen);
        }
    }
    let mut seen = BTreeMap::new();
    describe(dir, Path::new(""), &mut seen);
    seen
}

fn occasion(stable: bool) -> Occasion {
    Occasion {
        reason: Reason::Healthy,
        stable,
        only_if_changed: false,
    }
}

#[track_caller]
fn taken(created: Created) -> SnapshotId {
    match created {
        Created::Taken(index) => index.id,
        Created::Unchanged => panic!("it was to be taken"),
    }
}

/// Returns a place with stable snapshots of versions 1 … n, and the state of version n.
fn place(versions: u64) -> (Place, Vec<SnapshotId>) {
    let place = Place::new();
    let store = place.store(Arc::new(CallOff::default()));
    let mut session = store.lock(Briefly).unwrap();
    let take = |version| {
        place.write(version);
        taken(session.create(&place.paths(), occasion(true)).unwrap())
    };
    let ids = (1..=versions).map(take).collect();
    (place, ids)
}

/// Runs `act` with a power failure before its n-th change, for every n and every kind of loss, and
/// then opens the store again.
fn whatever_happens(
    versions: u64,
    can_exchange: bool,
    act: impl Fn(&Store, &Place, &[SnapshotId]) -> Result<(), Failure>,
    check: impl Fn(&Store, &Place, &[SnapshotId], bool),
) -> usize {
    let mut most = 0;
    for loss in [Loss::Nothing, Loss::Half, Loss::Everything] {
        // The two extremes at every change, the middle at every fifth.
        let step = if loss == Loss::Half { 5 } else { 1 };
        for changes in (0..).step_by(step) {
            let (place, ids) = place(versions);
            let plug = Plug::new(place.path.join("trash"), changes, can_exchange);
            let done = act(&place.store(Arc::clone(&plug) as _), &place, &ids);
            let was_pulled = plug.was_pulled();
            plug.lose(loss);
            if was_pulled {
                // The first process to follow fails as well, if it has anything to do.
                let plug = Plug::new(place.path.join("trash"), changes % 11, can_exchange);
                let store = place.store(Arc::clone(&plug) as _);
                if let Ok(mut session) = store.lock(Briefly) {
                    session.finish();
                }
                plug.lose(loss);
            } else {
                done.as_ref().unwrap();
            }
            let store = place.store(Arc::new(CallOff::default()));
            let mut session = store.lock(Briefly).unwrap();
            session.finish();
            assert_eq!(session.remarks, [""; 0], "{changes} changes, then {loss:?}");
            drop(session);
            place.assert_tidy();
            check(&store, &place, &ids, done.is_ok());
            most = most.max(changes);
            if !was_pulled {
                break;
            }
        }
    }
    most
}

/// Returns the listed snapshots, and asserts that each is undamaged.
fn whole(store: &Store) -> Vec<SnapshotId> {
    let session = store.lock(Briefly).unwrap();
    let listed = store.list().unwrap();
    let verified = listed.into_iter().map(|one| {
        session.verify(one.id).unwrap().unwrap();
        one.id
    });
    verified.collect()
}

#[test]
fn a_snapshot_is_whole_or_not_there() {
    let changes = whatever_happens(
        1,
        true,
        |store, place, _| {
            place.write(2);
            let mut session = store.lock(Briefly)?;
            session.create(&place.paths(), occasion(true)).map(drop)
        },
        |store, place, ids, is_done| {
            let left = whole(store);
            assert_eq!(left[0], ids[0]);
            assert!(left.len() == 2 || !is_done && left.len() == 1, "{left:?}");
            let expected = place.picture();
            // Each remaining snapshot restores its own state.
            let session = &mut store.lock(Briefly).unwrap();
            session
                .restore(Which::Exactly(left[left.len() - 1]), Discard)
                .unwrap();
            session.finish();
            let restored = place.picture();
            place.write(left.len() as u64);
            let own = place.picture();
            assert_eq!(expected == restored, left.len() == 2);
            for (restored, own) in restored.iter().zip(&own) {
                assert!(restored.keys().eq(own.keys()));
            }
        },
    );
    assert!(changes > 25, "{changes}");
}

fn a_restore_is_all_or_nothing(can_exchange: bool) {
    let (reference, _) = place(1);
    let kinds = reference.picture()[0].len();
    let changes = whatever_happens(
        2,
        can_exchange,
        |store, _, ids| {
            let mut session = store.lock(Briefly)?;
            session.restore(Which::Exactly(ids[0]), Keep)?;
            session.finish();
            Ok(())
        },
        |store, place, ids, is_done| {
            let left = whole(store);
            assert_eq!(left[..2], ids[..]);
            let now = place.picture();
            let is_of = |version: u64| {
                let only = PathBuf::from(format!("only-{version}"));
                now.iter()
                    .all(|dir| dir.contains_key(&only) && dir.len() == kinds)
            };
            assert!(is_of(1) || is_of(2), "half of each: {now:#?}");
            assert!(is_of(1) || !is_done, "it was said to be done");
            let kept = left.get(2).copied();
            assert_eq!(kept.is_some(), is_of(1), "what is replaced is kept");
            // The state is exactly that of the snapshot.
            let session = &mut store.lock(Briefly).unwrap();
            for id in [Some(ids[usize::from(is_of(2))]), kept]
                .into_iter()
                .flatten()
            {
                session.restore(Which::Exactly(id), Discard).unwrap();
                session.finish();
                let again = place.picture();
                if Some(id) == kept {
                    assert_ne!(again, now)
                } else {
                    assert_eq!(again, now)
                }
            }
        },
    );
    assert!(changes > 60, "{changes}");
}

#[test]
fn a_restore_is_all_or_nothing_where_directories_can_be_exchanged() {
    a_restore_is_all_or_nothing(true);
}

#[test]
fn a_restore_is_all_or_nothing_where_they_cannot() {
    a_restore_is_all_or_nothing(false);
}

#[test]
fn pruning_leaves_whole_ones() {
    let keep = SnapshotKeep {
        count: Some(1),
        age: None,
    };
    let changes = whatever_happens(
        3,
        true,
        |store, _, _| store.lock(Briefly)?.prune(keep).map(drop),
        |store, _, ids, is_done| {
            let left = whole(store);
            assert!(left.contains(&ids[2]));
            assert!(!is_done || left == ids[2..], "{left:?}");
        },
    );
    assert!(changes > 20, "{changes}");
}

#[test]
fn a_restore_brings_back_exactly_what_there_was() {
    let (place, ids) = place(1);
    let before = place.picture();
    place.write(2);
    fs::remove_dir_all(&place.paths()[1]).unwrap();
    let store = place.store(Arc::new(CallOff::default()));
    let mut session = store.lock(Briefly).unwrap();
    session.restore(Which::Stable(None), Keep).unwrap();
    session.finish();
    assert_eq!(place.picture(), before);
    let sparse = fs::metadata(place.paths()[0].join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < sparse.len(), "its hole was filled");
    let kept = store.list().unwrap().pop().unwrap();
    let index = kept.index.unwrap();
    assert_eq!((index.reason, index.stable), (Reason::BeforeRestore, false));
    assert_eq!(index.roots.len(), 1, "the other directory was not there");
    assert_ne!(kept.id, ids[0]);
    place.assert_tidy();
}

#[test]
fn a_damaged_snapshot_is_found_before_anything_is_changed() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 5] = [
        ("content", |dir| {
            fs::write(dir.join("tree/1/deep/file"), "other").unwrap()
        }),
        ("missing", |dir| {
            fs::remove_file(dir.join("tree/0/sparse")).unwrap()
        }),
        ("same length", |dir| {
            let path = dir.join("tree/1/deep/file");
            let mut bytes = fs::read(&path).unwrap();
            bytes[500] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("index", |dir| {
            let text = fs::read_to_string(dir.join("index.json")).unwrap();
            fs::write(dir.join("index.json"), text.replace("420", "511")).unwrap();
        }),
        ("no index", |dir| {
            fs::remove_file(dir.join("index.json")).unwrap()
        }),
    ];
    for (what, harm) in harms {
        let (place, ids) = place(3);
        place.write(4);
        let before = place.picture();
        let store = place.store(Arc::new(CallOff::default()));
        harm(&store.dir.join(ids[2].to_string()));
        let mut session = store.lock(Briefly).unwrap();
        assert!(session.verify(ids[2]).unwrap().is_err(), "{what}");
        let refused = session.restore(Which::Exactly(ids[2]), Keep).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains("is damaged"), "{what}: {refused}");
        assert!(
            refused.contains(&ids[1].to_string()),
            "the next older one is offered: {refused}"
        );
        assert_eq!(place.picture(), before, "{what}");
        place.assert_tidy();
        // A restore after exit code 201 continues with the next older snapshot.
        let done = session.restore(Which::Stable(None), Discard).unwrap();
        assert_eq!(done.index.id, ids[1], "{what}");
        let damaged = done.damaged.len();
        assert_eq!(damaged, usize::from(!what.contains("index")), "{what}");
        session.finish();
        place.assert_tidy();
    }
}

#[test]
fn the_one_before_until_none_is_left() {
    let (place, ids) = place(3);
    let store = place.store(Arc::new(CallOff::default()));
    let mut session = store.lock(Briefly).unwrap();
    let mut before = None;
    for expect in ids.iter().rev() {
        let done = session
            .restore(Which::Stable(before), before.map_or(Keep, |_| Discard))
            .unwrap();
        session.finish();
        assert_eq!(done.index.id, *expect);
        before = Some(*expect);
    }
    let none = session.restore(Which::Stable(before), Discard).unwrap_err();
    assert_eq!(none.code(), Code::Unknown);
    assert!(
        none.to_string().contains("no stable snapshot before"),
        "{none}"
    );
}

#[test]
fn what_changes_meanwhile_is_copied_again_or_named() {
    /// Changes a file each time a copy of it begins, up to a number of times.
    struct Restless {
        file: PathBuf,
        times: AtomicU32,
    }
    impl Seam for Restless {
        fn before(&self, change: Change<'_>) -> io::Result<()> {
            let is_copy =
                matches!(change, Change::Create(path) if path.ends_with("tree/0/deep/file"));
            let left = self.times.load(Ordering::Relaxed);
            if is_copy && left > 0 {
                self.times.store(left - 1, Ordering::Relaxed);
                fs::write(&self.file, format!("{left} are left"))?;
            }
            Ok(())
        }
    }
    for (times, is_caught) in [(1, true), (3, true), (100, false)] {
        let place = Place::new();
        place.write(1);
        let file = place.paths()[0].join("deep/file");
        let store = place.store(Arc::new(Restless {
            file: file.clone(),
            times: AtomicU32::new(times),
        }));
        let mut session = store.lock(Briefly).unwrap();
        match session.create(&place.paths(), occasion(true)) {
            Ok(created) => {
                assert!(is_caught, "{times}");
                let id = taken(created);
                session.verify(id).unwrap().unwrap();
                let copy = store.dir.join(id.to_string()).join("tree/0/deep/file");
                assert_eq!(fs::read(copy).unwrap(), fs::read(&file).unwrap());
            }
            Err(failure) => {
                assert!(!is_caught, "{failure}");
                assert!(
                    failure.to_string().contains("deep/file: it changes"),
                    "{failure}"
                );
                assert!(failure.to_string().contains("pause = true"), "{failure}");
                assert!(store.list().unwrap().is_empty());
            }
        }
        place.assert_tidy();
    }
}

#[test]
fn nothing_new_is_not_kept_again() {
    let (place, _) = place(1);
    let store = place.store(Arc::new(CallOff::default()));
    let mut session = store.lock(Briefly).unwrap();
    let again = Occasion {
        only_if_changed: true,
        ..occasion(true)
    };
    let create = |session: &mut store::Session<'_>| session.create(&place.paths(), again).unwrap();
    assert!(matches!(create(&mut session), Created::Unchanged));
    fs::write(place.paths()[1].join("empty/new"), "").unwrap();
    assert!(matches!(create(&mut session), Created::Taken(_)));
    assert!(matches!(create(&mut session), Created::Unchanged));
    // A restored state looks like the snapshot.
    session.restore(Which::Stable(None), Discard).unwrap();
    session.finish();
    assert!(matches!(create(&mut session), Created::Unchanged));
}

#[test]
fn one_at_a_time() {
    let (place, ids) = place(1);
    let store = place.store(Arc::new(CallOff::default()));
    let session = store.lock(Briefly).unwrap();
    let busy = store.lock(Briefly).map(drop).unwrap_err();
    assert_eq!(busy.code(), Code::Busy);
    drop(session);
    let runs = store.mark_in_use().unwrap();
    let also = store.mark_in_use().unwrap();
    let mut session = store.lock(Briefly).unwrap();
    let refused = session.restore(Which::Exactly(ids[0]), Keep).unwrap_err();
    assert_eq!(refused.code(), Code::Busy);
    drop((runs, also));
    let down = store.keep_down().unwrap();
    assert_eq!(store.mark_in_use().unwrap_err().code(), Code::Busy);
    drop(down);
    session.restore(Which::Exactly(ids[0]), Keep).unwrap();
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let place = Place::new();
    place.write(1);
    let store = place.store(Arc::new(CallOff::default()));
    let mut session = store.lock(Briefly).unwrap();
    let mut refused = |paths: &[PathBuf]| {
        let failure = session.create(paths, occasion(true)).unwrap_err();
        failure.to_string()
    };
    let one = place.path.join("one");
    assert!(refused(&[place.path.join("absent")]).contains("absent"));
    assert!(refused(&[one.join("data/sparse")]).contains("sparse"));
    assert!(refused(&[one.clone(), one.join("data")]).contains("another of the paths contains it"));
    assert!(
        refused(std::slice::from_ref(&place.path))
            .contains("it contains the snapshots of the service")
    );
    place.assert_tidy();
}

#[test]
fn sockets_are_left_out() {
    let place = Place::new();
    place.write(1);
    let socket = place.paths()[0].join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let store = place.store(Arc::new(CallOff::default()));
    let mut session = store.lock(Briefly).unwrap();
    session.create(&place.paths(), occasion(true)).unwrap();
    session.restore(Which::Stable(None), Discard).unwrap();
    assert!(!socket.exists());
}

#[test]
fn owners_and_attributes_come_back() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root may give files away");
    }
    let place = Place::new();
    place.write(1);
    let dir = &place.paths()[0];
    std::os::unix::fs::lchown(dir.join("link"), Some(1234), Some(5)).unwrap();
    std::os::unix::fs::chown(dir.join("sparse"), Some(1234), Some(4321)).unwrap();
    std::os::unix::fs::chown(dir, Some(1234), Some(4321)).unwrap();
    let set_user = fs::Permissions::from_mode(0o4755);
    fs::set_permissions(dir.join("sparse"), set_user).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let has_attributes = ["deep", "sparse", "."].iter().all(|name| {
        rustix::fs::setxattr(dir.join(name), "trusted.mark", name.as_bytes(), flags).is_ok()
    });
    let before = place.picture();
    let store = place.store(Arc::new(CallOff::default()));
    let mut session = store.lock(Briefly).unwrap();
    session.create(&place.paths(), occasion(true)).unwrap();
    place.write(2);
    session.restore(Which::Stable(None), Discard).unwrap();
    assert_eq!(place.picture(), before);
    if !has_attributes {
        return mainstay_testkit::skip("no extended attributes here; the rest was checked");
    }
    for name in ["deep", "sparse", "."] {
        let mut value = [0; 32];
        let len = rustix::fs::getxattr(dir.join(name), "trusted.mark", &mut value[..]).unwrap();
        assert_eq!(&value[..len], name.as_bytes());
    }
}

/// Creates directories nested to the given depth.
fn nest(dir: &Path, depth: usize) {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = openat(rustix::fs::CWD, dir, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&dir, "d", Mode::RWXU).unwrap();
        dir = openat(&dir, "d", flags, Mode::empty()).unwrap();
    }
}

#[test]
fn directories_nested_without_end_are_refused_replaced_and_removed() {
    let (place, ids) = place(1);
    let store = place.store(Arc::new(CallOff::default()));
    let mut session = store.lock(Briefly).unwrap();
    let data = &place.paths()[0];
    for depth in [256, 257, 4500] {
        nest(data, depth);
        match session.create(&place.paths(), occasion(true)) {
            Ok(_) => assert_eq!(depth, 256),
            Err(failure) => {
                assert_eq!(
                    failure.to_string(),
                    format!(
                        "error: cannot copy {}: its directories are nested more than 256 levels deep\n\
                         hint: list the directories to copy in snapshot.paths",
                        data.display()
                    )
                );
                assert_ne!(depth, 256);
            }
        }
        // A replaced state that is not kept is removed, at any depth.
        session.restore(Which::Exactly(ids[0]), Discard).unwrap();
        session.finish();
        assert_eq!(session.remarks, [""; 0]);
        assert!(!data.join("d").exists());
        place.assert_tidy();
    }
    // A state that cannot be kept stays in place, which is reported once.
    nest(data, 4500);
    session.restore(Which::Exactly(ids[0]), Keep).unwrap();
    session.finish();
    let remarks = std::mem::take(&mut session.remarks);
    assert!(
        remarks[0].contains("cannot be stored as a snapshot: its directories"),
        "{remarks:?}"
    );
    assert_eq!(remarks.len(), 1);
    drop(session);
    let mut session = store.lock(Briefly).unwrap();
    session.finish();
    assert_eq!(session.remarks, [""; 0]);
    let aside = remarks[0].rsplit(" at ").next().unwrap();
    let aside = Path::new(aside);
    assert!(aside.join("d").is_dir());
    let above = sys::Dir::open(aside.parent().unwrap()).unwrap();
    let disk = disk::Disk(&*store.seam);
    disk.remove_all(&above, Path::new(aside.file_name().unwrap()))
        .unwrap();
    place.assert_tidy();
}

/// Holes take no space on the disk, but each of their bytes would be hashed.
#[test]
fn directories_of_any_size_are_refused_and_replaced() {
    let (place, ids) = place(1);
    let store = place.store(Arc::new(CallOff::default()));
    let mut session = store.lock(Briefly).unwrap();
    let data = &place.paths()[0];
    let huge = || fs::File::create(data.join("huge")).unwrap();
    huge().set_len(1 << 40).unwrap();
    let failure = session.create(&place.paths(), occasion(true)).unwrap_err();
    assert_eq!(
        failure.to_string(),
        format!(
            "error: cannot copy {}: its files are larger than 64GB in total\n\
             hint: raise snapshot.max_size, or list the directories to copy in snapshot.paths",
            data.display()
        )
    );
    // A hard link is not another file.
    let small = Store {
        max_size: 2_000_000,
        ..store.clone()
    };
    huge().set_len(1_500_000).unwrap();
    fs::hard_link(data.join("huge"), data.join("again")).unwrap();
    drop(session);
    let mut session = small.lock(Briefly).unwrap();
    session.create(&place.paths(), occasion(true)).unwrap();
    drop(session);
    // A restore does not hash the replaced file either.
    huge().set_len(1 << 40).unwrap();
    let mut session = store.lock(Briefly).unwrap();
    session.restore(Which::Exactly(ids[0]), Keep).unwrap();
    session.finish();
    let remarks = std::mem::take(&mut session.remarks);
    assert!(
        remarks[0]
            .contains("cannot be stored as a snapshot: its files are larger than 64GB in total"),
        "{remarks:?}"
    );
    assert_eq!(remarks.len(), 1);
    assert!(!data.join("huge").exists());
}

/// Cancels itself before the n-th change.
struct CallsOff(CallOff, AtomicU32);

impl Seam for CallsOff {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        if self.1.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.call_off();
        }
        self.0.before(change)
    }

    fn is_called_off(&self) -> bool {
        self.0.is_called_off()
    }
}

#[test]
fn a_restore_that_is_called_off_is_complete_or_leaves_nothing() {
    let (place, ids) = place(1);
    let before = place.picture();
    place.write(2);
    let after = place.picture();
    let is_tidy = || names(&place.path.join("one")) == ["data"];
    let (mut called_off, mut untidy) = (0, 0);
    loop {
        let seam = CallsOff(CallOff::default(), AtomicU32::new(called_off + 1));
        let store = place.store(Arc::new(seam));
        let mut session = store.lock(Briefly).unwrap();
        let Err(failure) = session.restore(Which::Exactly(ids[0]), Discard) else {
            break;
        };
        assert!(failure.to_string().contains("was cancelled"), "{failure}");
        assert_eq!(place.picture(), after);
        called_off += 1;
        drop(session);
        // Between the two writes of the commit, cleaning up is left to the next session.
        untidy += u32::from(!is_tidy());
        let store = place.store(Arc::new(CallOff::default()));
        drop(store.lock(Briefly).unwrap());
        place.assert_tidy();
    }
    assert!(called_off > 20 && untidy <= 2, "{called_off}, {untidy}");
    let store = place.store(Arc::new(CallOff::default()));
    store.lock(Briefly).unwrap().finish();
    assert_eq!(place.picture(), before);
    place.assert_tidy();
}

/// An index is in memory several times, and the service controls the length of its entries.
#[test]
fn what_takes_too_much_of_an_index_is_refused() {
    let check = |kind: &str, fill: &dyn Fn(&Path, &Path, usize) -> io::Result<()>| {
        let (place, _) = place(1);
        let store = Store {
            max_size: 100_000_000,
            ..place.store(Arc::new(CallOff::default()))
        };
        let data = &place.paths()[0];
        let below = data.join(vec!["d".repeat(240); 15].join("/"));
        fs::create_dir_all(&below).unwrap();
        let mut session = store.lock(Briefly).unwrap();
        session.create(&place.paths(), occasion(true)).unwrap();
        for number in 0..1_300 {
            if let Err(error) = fill(data, &below, number) {
                assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{kind}: {error}");
                return mainstay_testkit::skip("this file system keeps no such attributes");
            }
        }
        let failure = session.create(&place.paths(), occasion(true)).unwrap_err();
        assert_eq!(
            failure.to_string(),
            format!(
                "error: cannot copy {}: the paths and attributes of its files take more than 4MiB in the index\n\
                 hint: raise snapshot.max_size, or list the directories to copy in snapshot.paths",
                data.display()
            ),
            "{kind}"
        );
    };
    let create = |dir: &Path, number: usize| File::create(dir.join(number.to_string()));
    check("paths", &|_, below, number| create(below, number).map(drop));
    // Each entry contains its own short name and that of the first file.
    check("links", &|top, below, number| match number {
        0 => create(below, 0).map(drop),
        _ => fs::hard_link(below.join("0"), top.join(number.to_string())),
    });
    check("targets", &|top, _, number| {
        std::os::unix::fs::symlink("t".repeat(4_000), top.join(number.to_string()))
    });
    check("attributes", &|top, _, number| {
        let file = create(top, number)?;
        let flags = rustix::fs::XattrFlags::empty();
        let set = rustix::fs::fsetxattr(&file, "user.large", &[b'x'; 3_800], flags);
        set.map_err(|error| match error {
            rustix::io::Errno::NOTSUP => io::ErrorKind::Unsupported.into(),
            other => other.into(),
        })
    });
}

#[test]
fn a_directory_that_is_moved_away_is_not_left_by_another_door() {
    let place = Place::new();
    let top = place.path.join("one");
    nest(&top, 40);
    let dir = sys::Dir::open(&top).unwrap();
    let mut way = descent::Descent::new(&dir);
    for _ in 0..40 {
        way.enter(Path::new("d")).unwrap();
    }
    assert_eq!(way.depth(), 40);
    // Among the open directories the move is not noticed. Above them, it would lead to another
    // directory.
    let deep = |depth| top.join(vec!["d"; depth].join("/"));
    fs::rename(deep(20), place.path.join("two/elsewhere")).unwrap();
    while way.depth() > 20 {
        way.leave().unwrap();
    }
    let error = way.leave().unwrap_err();
    assert!(error.to_string().contains("moved meanwhile"), "{error}");
}

/// Replaces a directory by a link after a number of changes.
struct Swap {
    left: AtomicU32,
    app: PathBuf,
    link: PathBuf,
}

impl Swap {
    fn swap(&self) {
        fs::rename(&self.app, self.app.with_extension("aside")).unwrap();
        std::os::unix::fs::symlink(&self.link, &self.app).unwrap();
    }
}

impl Seam for Swap {
    fn before(&self, _: Change<'_>) -> io::Result<()> {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            self.swap();
        }
        Ok(())
    }
}

/// An account that owns a directory above the state replaces it by a link at any time.
#[test]
fn no_link_of_another_account_leads_a_snapshot_or_a_restore_elsewhere() {
    const OTHER: Option<u32> = Some(65_534);
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root can give a directory to another account");
    }
    for changes in 0.. {
        let place = Place::new();
        let trusted = place.path.join("two");
        let app = place.path.join("one/app");
        let data = app.join("data");
        fs::create_dir_all(data.join("deep")).unwrap();
        fs::create_dir_all(trusted.join("data")).unwrap();
        fs::write(trusted.join("data/key"), "root's").unwrap();
        fs::write(data.join("deep/key"), "its own").unwrap();
        for path in ["one", "one/app", "one/app/data", "one/app/data/deep"] {
            std::os::unix::fs::chown(place.path.join(path), OTHER, OTHER).unwrap();
        }
        let before = picture(&trusted);
        let store = place.store(Arc::new(CallOff::default()));
        let id = {
            let mut session = store.lock(Briefly).unwrap();
            let paths = [data.clone()];
            taken(session.create(&paths, occasion(true)).unwrap())
        };
        fs::write(data.join("new"), "").unwrap();
        let swap = Arc::new(Swap {
            left: AtomicU32::new(changes),
            app: app.clone(),
            link: trusted.clone(),
        });
        if changes == 0 {
            swap.swap();
        }
        let attacked = place.store(Arc::clone(&swap) as _);
        let mut session = attacked.lock(Briefly).unwrap();
        let restored = session.restore(Which::Exactly(id), Keep);
        session.finish();
        drop(session);
        let was_attacked = app.is_symlink();
        if changes == 0 {
            let why = restored.unwrap_err().to_string();
            let expect = format!(
                "{} is a symbolic link that uid 65534 can change",
                app.display()
            );
            assert!(why.contains(&expect), "{why}");
        }
        // The next session does not follow the link either.
        if let Ok(mut session) = store.lock(Briefly) {
            session.finish();
            let created = session.create(&[data], occasion(true));
            assert_eq!(created.is_err(), was_attacked);
        }
        assert_eq!(picture(&trusted), before, "after {changes} changes");
        if !was_attacked {
            assert!(changes > 20, "{changes}");
            break;
        }
    }
}

/// Replaces the directory that a restore prepares at one of the changes in it.
struct Substitute {
    left: AtomicU32,
    other: PathBuf,
    /// Fails the restore, so that it is undone; otherwise it continues.
    fails: bool,
}

impl Seam for Substitute {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        let (Change::Create(path) | Change::SetMetadata(path) | Change::Sync(path)) = change else {
            return Ok(());
        };
        let prepared = path.ancestors().find(|place| {
            let name = place.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(".mainstay") && place.is_dir()
        });
        let Some(prepared) = prepared else {
            return Ok(());
        };
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        if left != 1 {
            return Ok(());
        }
        fs::rename(prepared, prepared.with_extension("aside"))?;
        fs::rename(&self.other, prepared)?;
        if self.fails {
            Err(io::Error::other("the disk is full"))
        } else {
            Ok(())
        }
    }
}

#[test]
fn what_takes_the_place_of_a_prepared_directory_is_neither_removed_nor_restored() {
    for (fails, changes) in [(true, 1), (true, 4), (false, 1), (false, 4), (false, 9)] {
        let (place, ids) = place(1);
        let other = place.path.join("one/other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("precious"), "").unwrap();
        let inode = fs::metadata(&other).unwrap().ino();
        place.write(2);
        let store = place.store(Arc::new(Substitute {
            left: AtomicU32::new(changes),
            other: other.clone(),
            fails,
        }));
        let mut session = store.lock(Briefly).unwrap();
        let failure = session.restore(Which::Exactly(ids[0]), Keep).unwrap_err();
        let expect = if fails {
            "the disk is full"
        } else {
            "was replaced meanwhile"
        };
        assert!(failure.to_string().contains(expect), "{failure}");
        assert!(!other.exists(), "after {changes} changes");
        let one = fs::read_dir(place.path.join("one")).unwrap();
        let mut found = one.map(|entry| entry.unwrap().path());
        let kept = found.find(|path| fs::metadata(path).unwrap().ino() == inode);
        let kept = kept.expect("it is left");
        assert!(kept.join("precious").exists() && kept != place.paths()[0]);
        assert_eq!(session.remarks.len(), usize::from(fails));
    }
}
