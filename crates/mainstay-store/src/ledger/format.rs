//! The layout of the file: a header and entries, padded to a fixed size.

use std::io;
use std::path::PathBuf;

use mainstay_core::engine::Ended;
use mainstay_sys::Birth;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, State};

/// The format version of the file. Other versions are not read.
pub(super) const FORMAT: u32 = 1;
pub(super) const HEADER: usize = 8 << 10;
pub(super) const ENTRY: usize = 1 << 10;

/// The ledger's header: the supervisor that wrote it, and its manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    pub(super) format: u32,
    pub(super) boot: String,
    /// The process ID of the supervisor.
    pub supervisor: u32,
    pub(super) birth: Birth,
    /// The manifest's name as the operator gave it.
    pub manifest: String,
    pub(super) manifest_dir: PathBuf,
    /// The manifest's format, which determines the name of the copy; or [`INSTALLED`].
    pub(super) manifest_format: String,
    /// The same orphan markers as in the lock file, in case that is lost.
    #[serde(default, rename = "testaments")]
    pub orphan_markers: Vec<String>,
    /// The generation. Of two ledgers, the one with the higher generation is valid.
    #[serde(default)]
    pub(super) generation: u64,
    /// The number of entries in use; all of them if absent.
    #[serde(default)]
    pub(super) services: Option<usize>,
}

/// The format name that stands for installed services. Each has a manifest of its own where it is
/// installed.
pub(super) const INSTALLED: &str = "installed";

/// Serialises an entry. If it is too long, its reasons are cut to 60 characters and the digest and
/// restart times are dropped. If it is still too long, the child is dropped too, so that its
/// processes are ended instead of adopted.
pub(super) fn lay_out(entry: &Entry, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    if fill(entry, ENTRY, buffer)? {
        return Ok(());
    }
    let mut shorter = entry.clone();
    if let Some(child) = &mut shorter.child {
        child.digest = None;
    }
    shorter.recent_ms.clear();
    let texts = shorter.why.iter_mut();
    for text in texts.chain(shorter.failure.as_mut().and_then(Ended::text_mut)) {
        *text = text.chars().take(60).collect();
    }
    buffer.clear();
    if fill(&shorter, ENTRY, buffer)? {
        return Ok(());
    }
    (shorter.child, shorter.state) = (None, State::Due);
    buffer.clear();
    fill(&shorter, ENTRY, buffer).map(drop)
}

/// Appends the document, padded to `size`, and returns whether it fits.
pub(super) fn fill(document: &impl Serialize, size: usize, to: &mut Vec<u8>) -> io::Result<bool> {
    let begin = to.len();
    serde_json::to_writer(&mut *to, document)?;
    let fits = to.len() < begin + size;
    if fits {
        to.resize(begin + size - 1, b' ');
        to.push(b'\n');
    }
    Ok(fits)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mainstay_core::manifest::Format;
    use mainstay_core::registry::TextDigest;
    use mainstay_core::report::LastExit;

    use super::super::entry::{Blocked, Child};
    use super::*;

    /// Milliseconds; more than 300 years.
    const UPTIME: u64 = 9_999_999_999_999;

    fn entry() -> Entry {
        Entry {
            name: "a".repeat(63),
            state: State::Running,
            since_ms: UPTIME,
            until_ms: None,
            unwanted: true,
            is_stopped: true,
            version: u64::MAX,
            is_updated: true,
            restarts: u64::MAX,
            last_exit: Some(LastExit {
                code: Some(i32::MIN),
                signal: None,
            }),
            streak: u32::MAX,
            recent_ms: Vec::new(),
            crash_loop_ms: Some((UPTIME, UPTIME)),
            was_ready: true,
            why: None,
            failure: None,
            blocked_by: None,
            child: Some(Child {
                pid: u32::MAX,
                birth: Birth {
                    first: u64::MAX,
                    last: u64::MAX,
                },
                tree: format!("cgroup {}", "d".repeat(300)),
                began_ms: UPTIME,
                notify: Some("n".repeat(107)),
                is_outdated: true,
                is_quiesced: true,
                digest: Some(TextDigest::of("", Format::Toml, "/", None)),
            }),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut buffer = Vec::new();
        lay_out(&entry(), &mut buffer).unwrap();
        assert_eq!(buffer.len(), ENTRY);
        assert_eq!(serde_json::from_slice::<Entry>(&buffer).unwrap(), entry());
        let blocked = Entry {
            blocked_by: Some(Blocked {
                need: "b".repeat(63),
                has_ended: false,
            }),
            child: None,
            ..entry()
        };
        lay_out(&blocked, &mut buffer).unwrap();
        assert_eq!(serde_json::from_slice::<Entry>(&buffer).unwrap(), blocked);
        let failures = [
            Ended::NotReady {
                after: Duration::from_millis(1500),
                last: Some("connection refused".to_owned()),
            },
            Ended::LivenessLost {
                misses: 3,
                last: "no answer".to_owned(),
            },
            Ended::Backgrounded {
                hint: "hint".to_owned(),
            },
        ];
        for failure in failures {
            let mut failing = entry();
            failing.child.as_mut().unwrap().tree = "cgroup a".to_owned();
            (failing.state, failing.failure) = (State::Failing, Some(failure));
            failing.until_ms = Some(UPTIME);
            lay_out(&failing, &mut buffer).unwrap();
            assert_eq!(serde_json::from_slice::<Entry>(&buffer).unwrap(), failing);
        }
    }

    #[test]
    fn what_is_too_long_is_not_adopted() {
        let mut long = entry();
        long.child.as_mut().unwrap().tree = "d".repeat(ENTRY);
        let mut buffer = Vec::new();
        lay_out(&long, &mut buffer).unwrap();
        assert_eq!(buffer.len(), ENTRY);
        let read: Entry = serde_json::from_slice(&buffer).unwrap();
        assert_eq!((read.child, read.state), (None, State::Due));
        // Some lengths lose only the digest.
        let digest = |length: usize| {
            let mut long = entry();
            long.child.as_mut().unwrap().tree = "d".repeat(length);
            let mut buffer = Vec::new();
            lay_out(&long, &mut buffer).unwrap();
            let read: Entry = serde_json::from_slice(&buffer).unwrap();
            read.child.map(|child| child.digest.is_some())
        };
        let digests: Vec<_> = (300..ENTRY).map(digest).collect();
        assert!(digests.is_sorted_by(|one, next| one >= next));
        assert!(digests.contains(&Some(false)));
        let mut halted = entry();
        (halted.why, halted.state) = (Some("ü".repeat(ENTRY)), State::Halted);
        lay_out(&halted, &mut buffer).unwrap();
        let read: Entry = serde_json::from_slice(&buffer).unwrap();
        assert_eq!(read.why.unwrap().chars().count(), 60);
        let mut failing = entry();
        failing.state = State::Failing;
        failing.failure = Some(Ended::LivenessLost {
            misses: 1,
            last: "ü".repeat(ENTRY),
        });
        lay_out(&failing, &mut buffer).unwrap();
        let read: Entry = serde_json::from_slice(&buffer).unwrap();
        let last = "ü".repeat(60);
        assert_eq!(read.failure, Some(Ended::LivenessLost { misses: 1, last }));
    }

    /// A ledger that was written by the first version of this format must remain readable.
    #[test]
    fn an_old_slot_is_read() {
        let text = r#"{"name":"db","state":"running","since_ms":5,"child":{"pid":7,"birth":{"first":1,"last":2},"tree":"instance a.0","began_ms":4}}"#;
        let read: Entry = serde_json::from_str(text).unwrap();
        let child = read.child.unwrap();
        assert_eq!((child.pid, child.birth.last, child.began_ms), (7, 2, 4));
    }
}
