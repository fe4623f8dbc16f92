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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_is_two_little_endian_numbers() {
        let mark = Mark {
            offset: 10,
            time: Stamp(100),
        };
        let bytes = [10, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(mark.to_bytes(), bytes);
        assert_eq!(Mark::from_bytes(bytes), mark);
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
        fn nothing_panics(bytes: Vec<u8>, head: [u8; Head::SIZE]) {
            Head::from_bytes(head).map(|head| head.is_of(&bytes));
        }
    }
}
