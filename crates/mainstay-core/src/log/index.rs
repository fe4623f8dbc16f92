//! The sparse time index of a file of raw lines: `current.idx`, `STAMP.idx`.
//!
//! The index is a [`Head`], which binds it to its file, and a sequence of 16-byte entries. Each has
//! the offset of the start of a line in the uncompressed file, and the time from which the data at
//! that offset was read, in microseconds since 1970. Both are unsigned, little-endian and strictly
//! ascending. There is an entry for the first line of the file, and then at most one per second of
//! output. An index may be missing, incomplete or truncated: it speeds up searches, and never
//! determines their results. An index of another file is ignored.

use super::Stamp;

/// An entry of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The offset of the start of a line.
    pub offset: u64,
    /// The earliest time at which this line or a later one was read. Earlier lines were read no
    /// later than this.
    pub time: Stamp,
}

impl Mark {
    /// The size of an entry in bytes.
    pub const SIZE: usize = 16;

    /// Encodes the entry for the file.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let (offset, time) = bytes.split_at_mut(8);
        offset.copy_from_slice(&self.offset.to_le_bytes());
        time.copy_from_slice(&self.time.0.to_le_bytes());
        bytes
    }

    /// Decodes the output of [`Mark::to_bytes`].
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [offset, time] = [0, 8].map(|from| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[from..from + 8]);
            u64::from_le_bytes(number)
        });
        let time = Stamp(time);
        Self { offset, time }
    }
}

/// The beginning of an index: a digest of the first bytes of its file. A file that replaces
/// another one, or whose index was copied from elsewhere, has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of bytes.
    length: u32,
    digest: u64,
}

impl Head {
    /// The size in bytes.
    pub const SIZE: usize = 16;
    /// The largest number of bytes of the file that count.
    pub const MOST: usize = 1024;
    const MAGIC: [u8; 4] = *b"idx1";

    /// Returns the head for a file that begins with these bytes, of which [`Head::MOST`] count.
    pub fn of(first: &[u8]) -> Self {
        let first = &first[..first.len().min(Self::MOST)];
        Self {
            length: u32::try_from(first.len()).unwrap_or_default(),
            digest: digest(first),
        }
    }

    /// Returns the number of bytes that [`Head::is_of`] needs.
    pub fn length(self) -> usize {
        self.length as usize
    }

    /// Returns whether the file that begins with these bytes is the one of this index.
    pub fn is_of(self, first: &[u8]) -> bool {
        first.get(..self.length()).map(digest) == Some(self.digest)
    }

    /// Encodes the head for the file.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&Self::MAGIC);
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..].copy_from_slice(&self.digest.to_le_bytes());
        bytes
    }

    /// Decodes the output of [`Head::to_bytes`]; `None` for anything else.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Option<Self> {
        let rest = bytes.strip_prefix(&Self::MAGIC)?;
        let (length, digest) = rest.split_first_chunk()?;
        let length = u32::from_le_bytes(*length);
        let is_valid = (1..=Self::MOST).contains(&(length as usize));
        is_valid.then_some(Self {
            length,
            digest: u64::from_le_bytes(digest.try_into().ok()?),
        })
    }
}

/// FNV-1a: distinguishes files, and needs no more than that.
fn digest(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Returns the entries of an index file after its head, without a truncated last one. Returns none
/// if the entries do not ascend, because such an index is not trustworthy.
fn marks(entries: &[u8]) -> impl Iterator<Item = Mark> + Clone {
    let (entries, _torn) = entries.as_chunks::<{ Mark::SIZE }>();
    let marks = entries.iter().copied().map(Mark::from_bytes);
    let ascend = marks
        .clone()
        .zip(marks.clone().skip(1))
        .all(|(a, b)| a.offset < b.offset && a.time < b.time);
    marks.take(if ascend { entries.len() } else { 0 })
}

/// Returns the offset of a file from which lines of `time_us` (microseconds since 1970) or later
/// may occur. Every line before the offset is older.
///
/// `entries` is the content of the index file after its head and may be arbitrary. The offset may
/// be beyond the end of a truncated file; 0 means unknown.
pub fn seek(entries: &[u8], time_us: u64) -> u64 {
    let older = marks(entries).take_while(|mark| mark.time.0 <= time_us);
    older.last().map_or(0, |mark| mark.offset)
}

/// Returns a lower bound for the time at which the byte at `offset` was read. It is usually less
/// than a second early if the service was busy. `None` stands for the time at which the file was
/// begun.
pub fn time_at(entries: &[u8], offset: u64) -> Option<Stamp> {
    let before = marks(entries).take_while(|mark| mark.offset <= offset);
    before.last().map(|mark| mark.time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index(marks: &[(u64, u64)]) -> Vec<u8> {
        let mark = |&(offset, time): &(u64, u64)| Mark {
            offset,
            time: Stamp(time),
        };
        marks.iter().flat_map(|m| mark(m).to_bytes()).collect()
    }

    #[test]
    fn the_last_entry_not_after_the_time_counts() {
        let entries = index(&[(10, 100), (20, 200), (30, 300)]);
        for (time, offset) in [(0, 0), (99, 0), (100, 10), (199, 10), (200, 20), (999, 30)] {
            assert_eq!(seek(&entries, time), offset, "{time}");
        }
        for (offset, time) in [
            (0, None),
            (9, None),
            (10, Some(100)),
            (29, Some(200)),
            (99, Some(300)),
        ] {
            assert_eq!(time_at(&entries, offset), time.map(Stamp), "{offset}");
        }
        assert_eq!(seek(&[], 5), 0);
        assert_eq!(seek(&entries[..47], 999), 20);
        assert_eq!(
            entries[..16],
            [10, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn what_does_not_ascend_is_not_believed() {
        for bad in [
            &[(10, 100), (20, 100)][..],
            &[(10, 100), (10, 200)],
            &[(10, 100), (20, 200), (0, 0)],
            &[(10, 100), (20, 200), (5, 300)],
        ] {
            assert_eq!(seek(&index(bad), 150), 0, "{bad:?}");
            assert_eq!(time_at(&index(bad), 15), None, "{bad:?}");
        }
    }

    #[test]
    fn a_head_knows_its_file_as_it_grows() {
        let head = Head::of(b"one\ntwo\n");
        assert_eq!(Head::from_bytes(head.to_bytes()), Some(head));
        assert!(head.is_of(b"one\ntwo\n") && head.is_of(b"one\ntwo\nthree\n"));
        for other in [&b"one\ntwo"[..], b"", b"one\ntwO\nthree\n", b"\none\ntwo\n"] {
            assert!(!head.is_of(other), "{other:?}");
        }
        let long = Head::of(&[b'x'; 3 * Head::MOST]);
        assert_eq!(long.length(), Head::MOST);
        assert_eq!(Head::from_bytes([0; Head::SIZE]), None);
        assert_eq!(Head::from_bytes(Head::of(b"").to_bytes()), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(entries: Vec<u8>, time: u64, head: [u8; Head::SIZE]) {
            Head::from_bytes(head).map(|head| head.is_of(&entries));
            let offset = seek(&entries, time);
            time_at(&entries, offset);
        }
    }
}
