//! The Unix implementation: `*at` calls throughout; `renameat2`, `FICLONE` and `syncfs` where
//! available.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use mainstay_core::snapshot::{Metadata, Raw};
use mainstay_sys::guarded;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::{FileKind, Stat};

/// A device and inode number.
pub(in crate::snapshot) type Id = (u64, u64);

/// An open directory.
#[derive(Debug)]
pub(in crate::snapshot) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

const OPEN_DIR: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Dir {
    /// Opens a directory. Links are followed as far as [`guarded`] permits.
    pub(in crate::snapshot) fn open(path: &Path) -> io::Result<Self> {
        let reached = guarded::directory(path)?;
        Ok(Self {
            fd: reached.readable()?,
            path: reached.path().to_owned(),
        })
    }

    /// Returns the path, which contains no links if the directory was opened with [`Dir::open`].
    pub(in crate::snapshot) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a subdirectory.
    ///
    /// # Errors
    /// `CrossesDevices` if it is a mount point.
    pub(in crate::snapshot) fn dir(&self, name: &Path) -> io::Result<Self> {
        let fd = self.open_dir(name)?;
        let path = self.path.join(name);
        Ok(Self { fd, path })
    }

    /// Opens the current parent directory.
    pub(in crate::snapshot) fn above(&self) -> io::Result<Self> {
        let fd = fs::openat(&self.fd, "..", OPEN_DIR, Mode::empty())?;
        let path = self.path.parent().unwrap_or(&self.path).to_owned();
        Ok(Self { fd, path })
    }

    /// Returns an ID that distinguishes the directory from all others while it exists.
    pub(in crate::snapshot) fn id(&self) -> io::Result<Id> {
        let found = fs::fstat(&self.fd)?;
        Ok((number(found.st_dev), number(found.st_ino)))
    }

    /// Returns whether nobody else can have put anything into it: it is ours, private and empty.
    pub(in crate::snapshot) fn is_untouched(&self) -> io::Result<bool> {
        let metadata = self.own_stat()?.metadata;
        let is_ours = metadata.uid == rustix::process::geteuid().as_raw();
        Ok(is_ours && metadata.mode & 0o077 == 0 && self.names()?.is_empty())
    }

    #[cfg(target_os = "linux")]
    fn open_dir(&self, name: &Path) -> rustix::io::Result<OwnedFd> {
        use rustix::fs::ResolveFlags;
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        loop {
            match fs::openat2(&self.fd, name, OPEN_DIR, Mode::empty(), resolve) {
                // Before Linux 5.6, or in a sandbox that does not permit the call.
                Err(Errno::NOSYS | Errno::PERM) => return self.open_dir_of_same_device(name),
                // A component was renamed during the lookup.
                Err(Errno::AGAIN) => {}
                opened => return opened,
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn open_dir(&self, name: &Path) -> rustix::io::Result<OwnedFd> {
        self.open_dir_of_same_device(name)
    }

    fn open_dir_of_same_device(&self, name: &Path) -> rustix::io::Result<OwnedFd> {
        let fd = fs::openat(&self.fd, name, OPEN_DIR, Mode::empty())?;
        if fs::fstat(&fd)?.st_dev == fs::fstat(&self.fd)?.st_dev {
            Ok(fd)
        } else {
            Err(Errno::XDEV)
        }
    }

    /// Opens a file for reading. Never waits for the other end of a pipe.
    pub(in crate::snapshot) fn file(&self, name: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(fs::openat(&self.fd, name, flags, Mode::empty())?.into())
    }

    /// Returns the names of all entries, in any order.
    pub(in crate::snapshot) fn names(&self) -> io::Result<Vec<OsString>> {
        Ok(self.names_while(|_| true)?.unwrap_or_default())
    }

    /// Returns the names of all entries, or `None` as soon as `fits` rejects the length of one.
    pub(in crate::snapshot) fn names_while(
        &self,
        mut fits: impl FnMut(usize) -> bool,
    ) -> io::Result<Option<Vec<OsString>>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if !fits(name.len()) {
                return Ok(None);
            }
            names.push(OsString::from_vec(name.to_vec()));
        }
        Ok(Some(names))
    }

    /// Returns the properties of an entry. Symbolic links are not followed.
    pub(in crate::snapshot) fn stat(&self, name: &Path) -> io::Result<Stat> {
        let found = fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(stat(&found))
    }

    /// Returns the properties of the directory itself.
    pub(in crate::snapshot) fn own_stat(&self) -> io::Result<Stat> {
        Ok(stat(&fs::fstat(&self.fd)?))
    }

    pub(in crate::snapshot) fn link_target(&self, name: &Path) -> io::Result<Raw> {
        let target = fs::readlinkat(&self.fd, name, Vec::new())?;
        Ok(Raw(target.into_bytes()))
    }

    /// Creates a directory that only its owner may access.
    pub(in crate::snapshot) fn create_dir(&self, name: &Path) -> io::Result<()> {
        Ok(fs::mkdirat(&self.fd, name, Mode::RWXU)?)
    }

    /// Creates a file that only its owner may access.
    pub(in crate::snapshot) fn create_file(&self, name: &Path) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(fs::openat(&self.fd, name, flags, mode)?.into())
    }

    pub(in crate::snapshot) fn symlink(&self, target: &Raw, name: &Path) -> io::Result<()> {
        Ok(fs::symlinkat(OsStr::from_bytes(&target.0), &self.fd, name)?)
    }

    #[cfg(not(target_vendor = "apple"))]
    pub(in crate::snapshot) fn fifo(&self, name: &Path) -> io::Result<()> {
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(fs::mknodat(&self.fd, name, FileType::Fifo, mode, 0)?)
    }

    #[cfg(target_vendor = "apple")]
    pub(in crate::snapshot) fn fifo(&self, _name: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Adds another name for a file.
    pub(in crate::snapshot) fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty())?)
    }

    pub(in crate::snapshot) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Exchanges two names atomically; false if the system or the file system cannot.
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    pub(in crate::snapshot) fn exchange(&self, one: &Path, other: &Path) -> io::Result<bool> {
        match fs::renameat_with(&self.fd, one, &self.fd, other, fs::RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::NOSYS | Errno::INVAL | Errno::NOTSUP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    pub(in crate::snapshot) fn exchange(&self, _one: &Path, _other: &Path) -> io::Result<bool> {
        Ok(false)
    }

    pub(in crate::snapshot) fn remove_file(&self, name: &Path) -> io::Result<()> {
        Ok(fs::unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    pub(in crate::snapshot) fn remove_dir(&self, name: &Path) -> io::Result<()> {
        Ok(fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?)
    }

    /// Gives the owner full access to a subdirectory, so that its content can be removed.
    #[cfg(target_os = "linux")]
    pub(in crate::snapshot) fn make_removable(&self, name: &Path) -> io::Result<()> {
        let flags = OPEN_DIR | OFlags::PATH;
        let dir = fs::openat(&self.fd, name, flags, Mode::empty())?;
        // fchmod(2) rejects an `O_PATH` descriptor, and fchmodat(2) follows links.
        let itself = format!("/proc/self/fd/{}", dir.as_raw_fd());
        Ok(fs::chmod(itself, Mode::RWXU)?)
    }

    #[cfg(not(target_os = "linux"))]
    pub(in crate::snapshot) fn make_removable(&self, name: &Path) -> io::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(fs::chmodat(&self.fd, name, Mode::RWXU, flags)?)
    }

    /// Gives the owner full access to the directory if it is ours and its mode denies that.
    pub(in crate::snapshot) fn let_owner_in(&self) -> io::Result<()> {
        let metadata = self.own_stat()?.metadata;
        let is_ours = metadata.uid == rustix::process::geteuid().as_raw();
        if is_ours && metadata.mode & 0o700 != 0o700 {
            fs::fchmod(&self.fd, Mode::RWXU)?;
        }
        Ok(())
    }

    /// Syncs the directory's entries.
    pub(in crate::snapshot) fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.fd)?)
    }

    /// Syncs the whole file system of the directory; false if there is no such call.
    #[cfg(target_os = "linux")]
    pub(in crate::snapshot) fn sync_file_system(&self) -> io::Result<bool> {
        fs::syncfs(&self.fd)?;
        Ok(true)
    }

    #[cfg(not(target_os = "linux"))]
    pub(in crate::snapshot) fn sync_file_system(&self) -> io::Result<bool> {
        Ok(false)
    }

    pub(in crate::snapshot) fn xattrs(&self) -> io::Result<BTreeMap<Raw, Raw>> {
        xattrs(&self.fd)
    }

    pub(in crate::snapshot) fn set_metadata(&self, wanted: &Metadata) -> io::Result<()> {
        set_metadata(&self.fd, wanted)
    }

    /// Sets the metadata of a symbolic link or a named pipe, neither of which has extended
    /// attributes.
    pub(in crate::snapshot) fn set_metadata_of_special(
        &self,
        name: &Path,
        kind: FileKind,
        wanted: &Metadata,
    ) -> io::Result<()> {
        let is = self.stat(name)?.metadata;
        if (is.uid, is.gid) != (wanted.uid, wanted.gid) {
            let (uid, gid) = owner(wanted);
            fs::chownat(&self.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        // A link has no mode of its own.
        if kind != FileKind::Symlink {
            let mode = Mode::from_raw_mode(raw_mode(wanted));
            fs::chmodat(&self.fd, name, mode, AtFlags::empty())?;
        }
        let times = times(wanted);
        Ok(fs::utimensat(
            &self.fd,
            name,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}

/// Returns whether the error reports a symbolic link where links are not followed.
pub(in crate::snapshot) fn is_of_a_link(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::LOOP)
}

pub(in crate::snapshot) fn stat_of(file: &File) -> io::Result<Stat> {
    Ok(stat(&fs::fstat(file)?))
}

pub(in crate::snapshot) fn xattrs_of(file: &File) -> io::Result<BTreeMap<Raw, Raw>> {
    xattrs(file)
}

pub(in crate::snapshot) fn set_metadata_of(file: &File, wanted: &Metadata) -> io::Result<()> {
    set_metadata(file, wanted)
}

/// Converts numbers whose types differ between systems. No value is out of range.
fn number<From: TryInto<To>, To: Default>(number: From) -> To {
    number.try_into().unwrap_or_default()
}

fn stat(found: &fs::Stat) -> Stat {
    let nanos = |seconds: i64, nanos: i64| {
        let whole = seconds.saturating_mul(1_000_000_000);
        whole.saturating_add(nanos)
    };
    Stat {
        kind: match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => FileKind::Dir,
            FileType::RegularFile => FileKind::File,
            FileType::Symlink => FileKind::Symlink,
            FileType::Fifo => FileKind::Fifo,
            _ => FileKind::Other,
        },
        metadata: Metadata {
            mode: number::<_, u32>(found.st_mode) & 0o7777,
            uid: found.st_uid,
            gid: found.st_gid,
            mtime_ns: nanos(number(found.st_mtime), number(found.st_mtime_nsec)),
            xattrs: BTreeMap::new(),
        },
        size: number(found.st_size),
        inode: number(found.st_ino),
        links: number(found.st_nlink),
        changed_ns: nanos(number(found.st_ctime), number(found.st_ctime_nsec)),
    }
}

fn raw_mode(metadata: &Metadata) -> RawMode {
    number(metadata.mode & 0o7777)
}

fn owner(metadata: &Metadata) -> (Option<Uid>, Option<Gid>) {
    let (uid, gid) = (metadata.uid, metadata.gid);
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

fn times(metadata: &Metadata) -> Timestamps {
    let time = Timespec {
        tv_sec: metadata.mtime_ns.div_euclid(1_000_000_000),
        tv_nsec: number(metadata.mtime_ns.rem_euclid(1_000_000_000)),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Sets the owner first, because that drops rights, and the time last, because every other change
/// updates it.
fn set_metadata(fd: impl AsFd, wanted: &Metadata) -> io::Result<()> {
    let fd = fd.as_fd();
    let is = stat(&fs::fstat(fd)?).metadata;
    if (is.uid, is.gid) != (wanted.uid, wanted.gid) {
        let (uid, gid) = owner(wanted);
        fs::fchown(fd, uid, gid)?;
    }
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    for (name, value) in &wanted.xattrs {
        let name = OsStr::from_bytes(&name.0);
        if let Err(error) = fs::fsetxattr(fd, name, &value.0, fs::XattrFlags::empty()) {
            // A label that the system has already set, and that only the system may set.
            if xattr(fd, name).ok().as_ref() != Some(value) {
                return Err(error.into());
            }
        }
    }
    fs::fchmod(fd, Mode::from_raw_mode(raw_mode(wanted)))?;
    Ok(fs::futimens(fd, &times(wanted))?)
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn xattrs(fd: impl AsFd) -> io::Result<BTreeMap<Raw, Raw>> {
    let fd = fd.as_fd();
    let mut list = vec![0; 4096];
    let len = loop {
        match fs::flistxattr(fd, &mut list[..]) {
            Ok(len) => break len,
            Err(Errno::RANGE) => list = vec![0; list.len() * 4],
            Err(Errno::NOTSUP) => return Ok(BTreeMap::new()),
            Err(error) => return Err(error.into()),
        }
    };
    let names = list[..len].split(|byte| *byte == 0);
    let mut found = BTreeMap::new();
    for name in names.filter(|name| !name.is_empty()) {
        match xattr(fd, OsStr::from_bytes(name)) {
            Ok(value) => found.insert(Raw(name.to_vec()), value),
            // Removed in the meantime, which its change time will show, or not stored at all.
            Err(Errno::NODATA | Errno::NOTSUP) => continue,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(found)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn xattrs(_fd: impl AsFd) -> io::Result<BTreeMap<Raw, Raw>> {
    Ok(BTreeMap::new())
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn xattr(fd: impl AsFd, name: &OsStr) -> rustix::io::Result<Raw> {
    let mut value = vec![0; 1024];
    loop {
        match fs::fgetxattr(&fd, name, &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                return Ok(Raw(value));
            }
            Err(Errno::RANGE) => value = vec![0; value.len() * 4],
            Err(error) => return Err(error),
        }
    }
}

/// Shares the content of `from` with `to` (copy-on-write); false if the file system cannot.
#[cfg(target_os = "linux")]
pub(in crate::snapshot) fn clone_content(from: &File, to: &File) -> bool {
    fs::ioctl_ficlone(to, from).is_ok()
}

#[cfg(not(target_os = "linux"))]
pub(in crate::snapshot) fn clone_content(_from: &File, _to: &File) -> bool {
    false
}

/// Starts writing the file to disk in the background, so that a later sync takes little time. Linux
/// does this for pages that are advised as not needed (posix_fadvise(2)).
#[cfg(target_os = "linux")]
pub(in crate::snapshot) fn begin_to_write(file: &File) {
    // If the call fails, the pages are written later.
    let _ = fs::fadvise(file, 0, None, fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
pub(in crate::snapshot) fn begin_to_write(_file: &File) {}

/// Returns the start and end of the first data segment from `offset` on. `None` if only a hole is
/// left.
#[cfg(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd"))]
pub(in crate::snapshot) fn next_data(
    file: &File,
    offset: u64,
    size: u64,
) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::SeekFrom;
    let start = match fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // The file system does not report holes.
        Err(Errno::INVAL | Errno::NOTSUP) => return Ok((offset < size).then_some((offset, size))),
        Err(error) => return Err(error.into()),
    };
    let end = fs::seek(file, SeekFrom::Hole(start))?;
    Ok((start < size).then_some((start, end.min(size))))
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd")))]
pub(in crate::snapshot) fn next_data(
    _file: &File,
    offset: u64,
    size: u64,
) -> io::Result<Option<(u64, u64)>> {
    Ok((offset < size).then_some((offset, size)))
}

pub(in crate::snapshot) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, at)
}

pub(in crate::snapshot) fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

pub(in crate::snapshot) fn to_raw(name: &OsStr) -> io::Result<Raw> {
    Ok(Raw(name.as_bytes().to_vec()))
}

pub(in crate::snapshot) fn from_raw(raw: &Raw) -> io::Result<PathBuf> {
    Ok(OsStr::from_bytes(&raw.0).into())
}
