//! File names in a log directory: rotated files, indexes and leftovers of interruptions.

use super::Stamp;
use crate::spec::Compress;

/// The index of the current file.
pub const CURRENT_INDEX: &str = "current.idx";

/// The name of a rotated file: `20261122T101112.123456Z.log`, with the suffix `.zst` or `.gz` if
/// compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogName {
    /// The time at which the file was rotated.
    pub stamp: Stamp,
    /// The compression of the file.
    pub compression: Compress,
}

impl LogName {
    /// Parses a name. Returns `None` unless it is exactly of the form of [`LogName::file_name`].
    pub fn parse(name: &str) -> Option<Self> {
        let stamp = Stamp::of_file_name(name)?;
        let compression = match name.rsplit_once('.') {
            Some((_, "zst")) => Compress::Zstd,
            Some((_, "gz")) => Compress::Gzip,
            _ => Compress::None,
        };
        Some(Self { stamp, compression })
    }

    /// Returns the file name.
    pub fn file_name(self) -> String {
        let suffix = match self.compression {
            Compress::None => "",
            Compress::Zstd => ".zst",
            Compress::Gzip => ".gz",
        };
        self.stamp.file_name() + suffix
    }

    /// Returns the temporary name of the file until it is complete.
    pub fn temp_name(self) -> String {
        self.file_name() + TEMP
    }
}

const TEMP: &str = ".tmp";

impl Stamp {
    /// Returns the name of the index of the file rotated at this time, compressed or not:
    /// `20261122T101112.123456Z.idx`.
    pub fn index_name(self) -> String {
        let name = self.file_name();
        let bare = name.strip_suffix("log").unwrap_or(&name);
        format!("{bare}idx")
    }

    /// Returns the stamp in the name of any file related to a rotated one: the file itself, its
    /// index, or an unfinished compression.
    pub fn of_any_name(name: &str) -> Option<Self> {
        match name.strip_suffix("idx") {
            Some(bare) => {
                Self::of_file_name(&format!("{bare}log")).filter(|stamp| stamp.index_name() == name)
            }
            None => temp(name)
                .map(|log| log.stamp)
                .or_else(|| Self::of_file_name(name)),
        }
    }
}

/// Returns the target of an unfinished compression.
fn temp(name: &str) -> Option<LogName> {
    let log = LogName::parse(name.strip_suffix(TEMP)?)?;
    (log.compression != Compress::None).then_some(log)
}

/// Returns the rotated files among `names`, oldest first. Together with the current file they
/// contain each line exactly once.
///
/// If a file exists both plain and compressed, the plain one is used. It is deleted only after the
/// compressed file is safely on disk, so it is complete whenever it exists.
pub fn files<'a>(names: impl Iterator<Item = &'a str>) -> Vec<LogName> {
    let rank = |compression| match compression {
        Compress::None => 0,
        Compress::Zstd => 1,
        Compress::Gzip => 2,
    };
    let mut files: Vec<LogName> = names.filter_map(LogName::parse).collect();
    files.sort_unstable_by_key(|file| (file.stamp, rank(file.compression)));
    files.dedup_by_key(|file| file.stamp);
    files
}

/// Returns the names of redundant files: unfinished compressions, compressed files whose plain file
/// exists, and indexes without a file. Only files rotated at or before `upto` are included, because
/// a rotation may be in progress on later ones.
pub fn leftovers<'a>(names: impl Iterator<Item = &'a str> + Clone, upto: Stamp) -> Vec<&'a str> {
    let files = files(names.clone());
    let find = |stamp| {
        let index = files.binary_search_by_key(&stamp, |file| file.stamp);
        index.ok().and_then(|index| files.get(index))
    };
    let is_leftover = |name: &&str| {
        let Some(stamp) = Stamp::of_any_name(name).filter(|stamp| *stamp <= upto) else {
            return false;
        };
        match LogName::parse(name) {
            Some(log) => find(stamp) != Some(&log),
            None => temp(name).is_some() || find(stamp).is_none(),
        }
    };
    names.filter(is_leftover).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "20261122T101112.123456Z";
    const B: &str = "20261123T000000.000000Z";
    const C: &str = "20261123T000000.000001Z";

    #[test]
    fn names_are_read_back() {
        for compression in [Compress::None, Compress::Zstd, Compress::Gzip] {
            let stamp = Stamp::of_file_name(&format!("{A}.log")).unwrap();
            let log = LogName { stamp, compression };
            assert_eq!(LogName::parse(&log.file_name()), Some(log));
            assert_eq!(Stamp::of_file_name(&log.temp_name()), None);
            let temp_of = (compression != Compress::None).then_some(stamp);
            assert_eq!(Stamp::of_any_name(&log.temp_name()), temp_of);
            assert_eq!(stamp.index_name(), format!("{A}.idx"));
            assert_eq!(Stamp::of_any_name(&stamp.index_name()), Some(stamp));
        }
        for name in [
            "current.log",
            "current.idx",
            "idx",
            ".idx",
            "20261122T101112.123456Z.idx.zst",
            "20261122T101112.123456Z.log.zst.gz",
            "20261122T101112.123456Z.log.zst.tmp.tmp",
            "20261122T101112.123456Z.idx.tmp",
            "20261122T101112.123456Z.logidx",
        ] {
            assert_eq!(Stamp::of_any_name(name), None, "{name}");
        }
    }

    #[test]
    fn each_line_is_in_one_file() {
        let check = |names: &[&str], expect: &[&str]| {
            let found = files(names.iter().copied());
            let found: Vec<String> = found.into_iter().map(LogName::file_name).collect();
            assert_eq!(found, expect, "{names:?}");
        };
        let [a, b] = [A, B].map(|stamp| format!("{stamp}.log"));
        let [a_zst, b_zst] = [&a, &b].map(|log| format!("{log}.zst"));
        let a_gz = format!("{a}.gz");
        check(&[], &[]);
        check(&["current.log", "x", &b, &a_zst], &[&a_zst, &b]);
        check(&[&a_zst, &b_zst, &a_gz, &b, &a], &[&a, &b]);
        check(&[&a_gz, &a_zst], &[&a_zst]);
        check(&[&format!("{a_zst}.tmp"), &format!("{A}.idx")], &[]);
    }

    #[test]
    fn what_is_left_over_holds_no_line() {
        let owned: Vec<String> = [
            format!("{A}.log"),
            format!("{A}.log.zst"),
            format!("{A}.log.gz.tmp"),
            format!("{A}.idx"),
            format!("{B}.idx"),
            format!("{C}.idx"),
            format!("{C}.log.zst.tmp"),
            "current.log".into(),
            "current.idx".into(),
            "foreign.tmp".into(),
        ]
        .into();
        let names = || owned.iter().map(String::as_str);
        let upto = Stamp::of_file_name(&format!("{B}.log")).unwrap();
        assert_eq!(leftovers(names(), upto), [&*owned[1], &owned[2], &owned[4]]);
        assert_eq!(leftovers(names(), Stamp::from_unix_micros(0)), [""; 0]);
    }
}
