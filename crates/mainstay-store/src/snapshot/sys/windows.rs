//! The Windows implementation, based on paths. Owners are not preserved: files inherit the access
//! list of their directory. Names cannot be exchanged atomically: a restore takes two renames, and
//! its journal records its progress. Holes and extended attributes are not supported. Symbolic
//! links and junctions are not followed. A link is rejected, because only administrators could
//! restore it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use mainstay_core::snapshot::{Metadata, Raw};
use mainstay_sys::guarded;

use super::{FileKind, Stat};

/// `FILE_FLAG_BACKUP_SEMANTICS` also opens directories. `FILE_FLAG_OPEN_REPARSE_POINT` does not
/// follow links.
const AS_IT_IS: u32 = 0x0200_0000 | 0x0020_0000;
/// The time from 1601 to 1970 in units of 100 ns.
const UNIX_EPOCH_100NS: u64 = 116_444_736_000_000_000;

/// No ID: a directory is identified by its path.
pub(in crate::snapshot) type Id = ();

/// A directory.
#[derive(Debug)]
pub(in crate::snapshot) struct Dir {
    path: PathBuf,
}

impl Dir {
    /// Opens a directory. Links are followed as far as [`guarded`] permits.
    pub(in crate::snapshot) fn open(path: &Path) -> io::Result<Self> {
        let path = guarded::directory(path)?;
        Ok(Self { path })
    }

    fn open_below(path: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(path)?.file_type().is_dir() {
            Ok(Self {
                path: path.to_owned(),
            })
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    pub(in crate::snapshot) fn path(&self) -> &Path {
        &self.path
    }

    pub(in crate::snapshot) fn dir(&self, name: &Path) -> io::Result<Self> {
        Self::open_below(&self.path.join(name))
    }

    pub(in crate::snapshot) fn above(&self) -> io::Result<Self> {
        Self::open_below(self.path.parent().unwrap_or(&self.path))
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Unix")]
    pub(in crate::snapshot) fn id(&self) -> io::Result<Id> {
        Ok(())
    }

    /// Returns whether the directory is empty.
    pub(in crate::snapshot) fn is_untouched(&self) -> io::Result<bool> {
        Ok(self.names()?.is_empty())
    }

    pub(in crate::snapshot) fn file(&self, name: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(AS_IT_IS);
        options.open(self.path.join(name))
    }

    pub(in crate::snapshot) fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = fs::read_dir(&self.path)?;
        entries.map(|entry| Ok(entry?.file_name())).collect()
    }

    /// Returns the names of all entries, or `None` as soon as `fits` rejects the length of one.
    pub(in crate::snapshot) fn names_while(
        &self,
        mut fits: impl FnMut(usize) -> bool,
    ) -> io::Result<Option<Vec<OsString>>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if !fits(name.len()) {
                return Ok(None);
            }
            names.push(name);
        }
        Ok(Some(names))
    }

    pub(in crate::snapshot) fn stat(&self, name: &Path) -> io::Result<Stat> {
        Ok(stat(&fs::symlink_metadata(self.path.join(name))?))
    }

    pub(in crate::snapshot) fn own_stat(&self) -> io::Result<Stat> {
        Ok(stat(&fs::symlink_metadata(&self.path)?))
    }

    pub(in crate::snapshot) fn link_target(&self, _name: &Path) -> io::Result<Raw> {
        let why = "symbolic links are not copied on Windows";
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }

    pub(in crate::snapshot) fn create_dir(&self, name: &Path) -> io::Result<()> {
        fs::create_dir(self.path.join(name))
    }

    pub(in crate::snapshot) fn create_file(&self, name: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        options.open(self.path.join(name))
    }

    pub(in crate::snapshot) fn symlink(&self, _target: &Raw, _name: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::snapshot) fn fifo(&self, _name: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::snapshot) fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(self.path.join(from), self.path.join(to))
    }

    pub(in crate::snapshot) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    pub(in crate::snapshot) fn exchange(&self, _one: &Path, _other: &Path) -> io::Result<bool> {
        Ok(false)
    }

    pub(in crate::snapshot) fn remove_file(&self, name: &Path) -> io::Result<()> {
        let path = self.path.join(name);
        make_writable(&path)?;
        fs::remove_file(path)
    }

    pub(in crate::snapshot) fn remove_dir(&self, name: &Path) -> io::Result<()> {
        fs::remove_dir(self.path.join(name))
    }

    pub(in crate::snapshot) fn make_removable(&self, _name: &Path) -> io::Result<()> {
        Ok(())
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Unix")]
    pub(in crate::snapshot) fn let_owner_in(&self) -> io::Result<()> {
        Ok(())
    }

    /// Does nothing: NTFS writes names in order and needs no sync.
    pub(in crate::snapshot) fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    pub(in crate::snapshot) fn sync_file_system(&self) -> io::Result<bool> {
        Ok(false)
    }

    pub(in crate::snapshot) fn xattrs(&self) -> io::Result<BTreeMap<Raw, Raw>> {
        Ok(BTreeMap::new())
    }

    pub(in crate::snapshot) fn set_metadata(&self, wanted: &Metadata) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(AS_IT_IS);
        set_time(&options.open(&self.path)?, wanted)
    }

    pub(in crate::snapshot) fn set_metadata_of_special(
        &self,
        _name: &Path,
        _kind: FileKind,
        _wanted: &Metadata,
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

pub(in crate::snapshot) fn is_of_a_link(_error: &io::Error) -> bool {
    false
}

pub(in crate::snapshot) fn stat_of(file: &File) -> io::Result<Stat> {
    Ok(stat(&file.metadata()?))
}

pub(in crate::snapshot) fn xattrs_of(_file: &File) -> io::Result<BTreeMap<Raw, Raw>> {
    Ok(BTreeMap::new())
}

pub(in crate::snapshot) fn set_metadata_of(file: &File, wanted: &Metadata) -> io::Result<()> {
    set_time(file, wanted)?;
    let mut permissions = file.metadata()?.permissions();
    permissions.set_readonly(wanted.mode == 0);
    file.set_permissions(permissions)
}

fn set_time(file: &File, wanted: &Metadata) -> io::Result<()> {
    let nanos = Duration::from_nanos(wanted.mtime_ns.unsigned_abs());
    file.set_modified(if wanted.mtime_ns < 0 {
        UNIX_EPOCH - nanos
    } else {
        UNIX_EPOCH + nanos
    })
}

/// Clears the read-only attribute, which keeps a file from being removed.
fn make_writable(path: &Path) -> io::Result<()> {
    let mut permissions = fs::symlink_metadata(path)?.permissions();
    if !permissions.readonly() {
        return Ok(());
    }
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions)
}

fn stat(found: &fs::Metadata) -> Stat {
    let kind = match found.file_type() {
        kind if kind.is_dir() => FileKind::Dir,
        kind if kind.is_file() => FileKind::File,
        kind if kind.is_symlink() => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let since_epoch = i128::from(found.last_write_time()) - i128::from(UNIX_EPOCH_100NS);
    let mtime_ns = i64::try_from(since_epoch * 100).unwrap_or_default();
    let is_read_only = kind == FileKind::File && found.permissions().readonly();
    Stat {
        kind,
        metadata: Metadata {
            mode: if is_read_only { 0 } else { 0o600 },
            mtime_ns,
            ..Metadata::default()
        },
        size: match kind {
            FileKind::File => found.file_size(),
            _ => 0,
        },
        inode: 0,
        links: 1,
        changed_ns: mtime_ns,
    }
}

pub(in crate::snapshot) fn clone_content(_from: &File, _to: &File) -> bool {
    false
}

pub(in crate::snapshot) fn begin_to_write(_file: &File) {}

pub(in crate::snapshot) fn next_data(
    _file: &File,
    offset: u64,
    size: u64,
) -> io::Result<Option<(u64, u64)>> {
    Ok((offset < size).then_some((offset, size)))
}

pub(in crate::snapshot) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    file.seek_read(buffer, at)
}

pub(in crate::snapshot) fn write_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = file.seek_write(bytes, at)?;
        bytes = &bytes[written..];
        at += written as u64;
    }
    Ok(())
}

pub(in crate::snapshot) fn to_raw(name: &OsStr) -> io::Result<Raw> {
    let text = name.to_str().map(|text| text.replace('\\', "/"));
    let why = "its name is not Unicode";
    text.map(|text| Raw(text.into_bytes()))
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, why))
}

pub(in crate::snapshot) fn from_raw(raw: &Raw) -> io::Result<PathBuf> {
    let text = str::from_utf8(&raw.0).map_err(io::Error::other)?;
    Ok(PathBuf::from(text.replace('/', "\\")))
}
