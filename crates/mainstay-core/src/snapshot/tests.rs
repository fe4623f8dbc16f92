use proptest::prelude::*;

use super::retention::BEFORE_RESTORE;
use super::*;
use crate::spec::{ServiceName, SnapshotKeep};

fn id(micros: u64) -> SnapshotId {
    SnapshotId::new(micros, None)
}

#[test]
fn ids() {
    let early = id(1_795_342_272_123_456);
    assert_eq!(early.to_string(), "20261122T101112.123456Z");
    assert_eq!("20261122T101112.123456Z".parse(), Ok(early));
    assert_eq!(early.time(), "2026-11-22T10:11:12.123Z");
    for bad in [
        "",
        "20261122T101112.123456Z.log",
        "../x",
        "20261122T101112Z",
    ] {
        assert!(bad.parse::<SnapshotId>().is_err(), "{bad}");
    }
    assert_eq!(SnapshotId::new(5, Some(early)), id(1_795_342_272_123_457));
}

/// Written by the first version that supported snapshots. Never change it.
const OLD: (&str, &str) = (
    include_str!("tests/index-v1.json"),
    include_str!("tests/index-v1.sha256"),
);

#[test]
fn an_old_index_still_loads() {
    let index = Index::read(OLD.0.as_bytes(), OLD.1).unwrap();
    assert_eq!(index, example());
}

#[test]
fn what_is_written_is_read() {
    let (text, seal) = example().to_files().unwrap();
    assert_eq!(Index::read(&text, &seal), Ok(example()));
    assert_eq!(
        (String::from_utf8(text).unwrap(), seal),
        (OLD.0.to_owned(), OLD.1.to_owned())
    );
}

fn example() -> Index {
    let raw = |text: &str| Raw(text.as_bytes().to_vec());
    let metadata = |mode, mtime_ns| Metadata {
        mode,
        uid: 1000,
        gid: 100,
        mtime_ns,
        ..Metadata::default()
    };
    let entry = |path: &str, kind, metadata| Entry {
        path: raw(path),
        kind,
        metadata,
    };
    let sha256 = Digest::of(b"hello");
    let mut odd = entry(
        "a/%\u{e9}",
        Kind::File { size: 5, sha256 },
        metadata(0o640, -1),
    );
    odd.path.0.push(0xff);
    odd.metadata
        .xattrs
        .insert(raw("user.origin"), Raw(vec![0, 37, 255]));
    let root = Root {
        path: raw("/var/lib/orders"),
        entries: vec![
            entry("", Kind::Dir, metadata(0o750, 1_795_342_272_123_456_789)),
            entry("a", Kind::Dir, metadata(0o2770, 1)),
            odd.clone(),
            entry(
                "a/link",
                Kind::Symlink {
                    target: raw("../b"),
                },
                metadata(0o777, 2),
            ),
            entry("b", Kind::HardLink { to: odd.path }, metadata(0o640, -1)),
            entry("pipe", Kind::Fifo, metadata(0o600, 3)),
        ],
    };
    let name = ServiceName::new("orders").unwrap();
    Index::new(
        id(1_795_342_272_123_456),
        &name,
        Reason::Healthy,
        true,
        vec![root],
    )
}

#[test]
fn a_damaged_index_is_found() {
    let (text, seal) = example().to_files().unwrap();
    for at in 0..text.len() {
        let mut bad = text.clone();
        bad[at] ^= 1;
        assert!(Index::read(&bad, &seal).is_err(), "byte {at}");
    }
    assert!(Index::read(&text[1..], &seal).is_err());
    assert!(Index::read(&text, "").is_err());
}

#[test]
fn paths_that_lead_out_are_refused() {
    for (path, kind) in [
        ("..", Kind::Dir),
        ("../x", Kind::Dir),
        ("/etc", Kind::Dir),
        ("a/./b", Kind::Dir),
        ("a//b", Kind::Dir),
        ("pipe/b", Kind::Dir),
        ("a/link/b", Kind::Fifo),
        ("a", Kind::Dir),
        ("nul\0", Kind::Dir),
        (
            "c",
            Kind::HardLink {
                to: Raw(b"../../etc/shadow".to_vec()),
            },
        ),
        (
            "c",
            Kind::HardLink {
                to: Raw(b"pipe".to_vec()),
            },
        ),
    ] {
        let mut index = example();
        let path = Raw(path.as_bytes().to_vec());
        let metadata = Metadata::default();
        index.roots[0].entries.push(Entry {
            path,
            kind,
            metadata,
        });
        let (text, seal) = index.to_files().unwrap();
        let read = Index::read(&text, &seal);
        assert!(
            matches!(read, Err(Bad::Damaged(_))),
            "{:?}",
            index.roots[0].entries.last()
        );
    }
}

#[test]
fn another_version_is_named() {
    let text = br#"{"version": 2, "novel": true}"#;
    let seal = format!("{}  index.json\n", Digest::of(text));
    assert_eq!(Index::read(text, &seal), Err(Bad::Version(2)));
}

#[test]
fn a_journal_is_read_again() {
    let part = |text: &str| Raw(text.as_bytes().to_vec());
    let one = Move {
        parent: part("/var/lib"),
        target: part("orders"),
        new: part(".new"),
        old: part(".old"),
        inode: Some(7),
        old_inode: Some(8),
    };
    let journal = Journal::new(id(5), Some(id(6)), vec![one]);
    assert_eq!(Journal::read(&journal.to_text().unwrap()), Ok(journal));
    assert!(Journal::read(b"{}").is_err());
}

#[test]
fn which_go() {
    use Reason::{BeforeRestore, Healthy, Manual};
    let known = |rows: &[(u64, Reason, bool)]| -> Vec<Known> {
        let row = |&(micros, reason, stable): &_| Known {
            id: id(micros),
            reason,
            stable,
        };
        rows.iter().map(row).collect()
    };
    let check = |count, age: Option<u64>, rows: &[(u64, Reason, bool)], expect: &[u64]| {
        let keep = SnapshotKeep {
            count,
            age: age.map(Duration::from_micros),
        };
        let gone = surplus(&known(rows), keep, Duration::from_micros(100));
        assert_eq!(
            gone,
            expect.iter().map(|micros| id(*micros)).collect(),
            "{keep:?} {rows:?}"
        );
    };
    let three = [
        (10, Healthy, true),
        (20, Healthy, true),
        (30, Healthy, true),
    ];
    check(None, None, &three, &[]);
    check(Some(3), None, &three, &[]);
    check(Some(2), None, &three, &[10]);
    check(None, Some(80), &three, &[10]);
    check(Some(2), Some(75), &three, &[10, 20]);
    // The newest stable snapshot is kept, whatever its age.
    check(Some(1), Some(1), &three, &[10, 20]);
    check(
        Some(1),
        None,
        &[
            (10, Healthy, true),
            (20, Manual, false),
            (30, Manual, false),
        ],
        &[20],
    );
    check(Some(1), Some(1), &[(10, Manual, false)], &[10]);
    // States replaced by restores are counted separately.
    let many = [10, 20, 30, 40].map(|micros| (micros, BeforeRestore, false));
    check(Some(1), None, &many, &[10, 20]);
    check(
        Some(1),
        None,
        &[&many[..], &[(50, Healthy, true)]].concat(),
        &[10, 20],
    );
}

proptest! {
    #[test]
    fn any_bytes_are_text(bytes: Vec<u8>) {
        let raw = Raw(bytes);
        prop_assert_eq!(Raw::parse(&raw.to_string()), Some(raw));
    }

    #[test]
    fn retention_keeps_what_201_needs(
        kinds in prop::collection::vec((0..5_u8, any::<bool>(), 1..50_u64), 0..30),
        count in prop::option::of(1..8_u32),
        age in prop::option::of(1..400_u64),
    ) {
        let mut at = 0;
        let known: Vec<Known> = kinds.iter().map(|&(kind, stable, gap)| {
            at += gap;
            let reason = match kind {
                0 => Reason::BeforeRestore,
                1 => Reason::Manual,
                _ => Reason::Healthy,
            };
            Known { id: id(at), reason, stable: stable && kind > 0 }
        }).collect();
        let keep = SnapshotKeep { count, age: age.map(Duration::from_micros) };
        let gone = surplus(&known, keep, Duration::from_micros(at));
        let left = known.iter().copied().filter(|one| !gone.contains(&one.id));
        let left: Vec<Known> = left.collect();
        prop_assert_eq!(older_stable(&left, None), older_stable(&known, None));
        let counted = left.iter().filter(|one| one.reason != Reason::BeforeRestore).count();
        // One more is kept if the newest stable snapshot is beyond the count.
        prop_assert!(count.is_none_or(|count| counted <= count as usize + 1));
        let before_restores = left.iter().filter(|one| one.reason == Reason::BeforeRestore);
        prop_assert!(before_restores.count() <= BEFORE_RESTORE);
        // No snapshot is deleted while an older one of its kind is kept, except for the newest
        // stable one.
        for one in &left {
            let younger_gone = known.iter().filter(|other| {
                other.id > one.id && gone.contains(&other.id)
                    && (other.reason == Reason::BeforeRestore) == (one.reason == Reason::BeforeRestore)
            }).count();
            prop_assert!(younger_gone == 0 || Some(one.id) == older_stable(&known, None));
        }
        // Pruning is idempotent.
        prop_assert!(surplus(&left, keep, Duration::from_micros(at)).is_empty());
    }

    #[test]
    fn the_one_before_is_older_and_stable(
        stable in prop::collection::vec(any::<bool>(), 0..20),
        before in prop::option::of(0..25_u64),
    ) {
        let known: Vec<Known> = stable.iter().zip(0..).map(|(&stable, micros)| Known {
            id: id(micros), reason: Reason::Healthy, stable,
        }).collect();
        let end = before.map_or(stable.len(), |before| stable.len().min(before as usize));
        let expect = stable[..end].iter().rposition(|stable| *stable);
        prop_assert_eq!(older_stable(&known, before.map(id)), expect.map(|at| id(at as u64)));
    }
}
