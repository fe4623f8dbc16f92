//! The Unix implementation: resolution by `openat`, component by component.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{Other, Refusal};
use crate::privilege::is_privileged;

/// The limit for symbolic links in one path, the same as in Linux.
const MOST_LINKS: usize = 40;

/// Flags that suffice to open entries of a directory. The directory cannot be listed or synced
/// through such a descriptor.
#[cfg(target_os = "linux")]
const PASS: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const PASS: OFlags = OFlags::RDONLY;

/// A resolved directory.
#[derive(Debug)]
pub struct Reached {
    fd: OwnedFd,
    /// The path without links.
    path: PathBuf,
    /// The account that can replace this directory or one above it.
    exposed_to: Option<Other>,
}

impl AsFd for Reached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Reached {
    /// Returns its path without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether only root can change the target of its path.
    pub fn is_settled(&self) -> bool {
        self.exposed_to.is_none()
    }

    /// Opens the directory for listing.
    pub fn readable(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(fs::openat(&self.fd, ".", flags, Mode::empty())?)
    }

    /// Opens a directory without protection against links.
    fn plainly(path: PathBuf) -> io::Result<Self> {
        let flags = PASS | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            fd: fs::open(&path, flags, Mode::empty())?,
            path,
            exposed_to: None,
        })
    }

    /// Opens a subdirectory that is not a link.
    fn enter(&self, name: &OsStr, exposed_to: Option<Other>) -> io::Result<Self> {
        let flags = PASS | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self {
            fd: fs::openat(&self.fd, name, flags, Mode::empty())?,
            path: self.path.join(name),
            exposed_to,
        })
    }

    /// Returns the account that can replace `entry`, which is in this directory.
    fn exposure_of(&self, entry: &Stat) -> io::Result<Option<Other>> {
        if self.exposed_to.is_some() {
            return Ok(self.exposed_to);
        }
        let dir = fs::fstat(&self.fd)?;
        let mode = Mode::from_raw_mode(dir.st_mode);
        Ok(if dir.st_uid != 0 {
            Some(Other::User(dir.st_uid))
        } else if !mode.intersects(Mode::WGRP | Mode::WOTH) {
            None
        } else if mode.contains(Mode::SVTX) {
            // The owner of an entry can replace it.
            (entry.st_uid != 0).then_some(Other::User(entry.st_uid))
        } else if mode.contains(Mode::WOTH) {
            Some(Other::Everyone)
        } else {
            Some(Other::Group(dir.st_gid))
        })
    }
}

/// The treatment of a link in the last component.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Follow,
    Leave,
}

/// A path resolution in progress.
struct Walk {
    /// The directories from the root to the current one.
    stack: Vec<Reached>,
    /// The remaining components, the next one last.
    ahead: Vec<OsString>,
    links: usize,
}

impl Walk {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            stack: vec![Reached::plainly(PathBuf::from("/"))?],
            ahead: components(path),
            links: 0,
        })
    }

    /// Returns the parent directory of the last component, and that component. The component is `.`
    /// if the path ends in a directory that was already entered.
    fn run(mut self, last: Last) -> io::Result<(Reached, OsString)> {
        while let Some(name) = self.ahead.pop() {
            let is_last = self.ahead.is_empty();
            if name == ".." {
                if self.stack.len() > 1 {
                    self.stack.pop();
                }
            } else if is_last && last == Last::Leave || !self.step(&name, is_last)? {
                return Ok((self.here()?, name));
            }
        }
        Ok((self.here()?, OsString::from(".")))
    }

    /// Enters a directory or follows a link; false if it is the last component and not a link.
    fn step(&mut self, name: &OsStr, is_last: bool) -> io::Result<bool> {
        let Some(dir) = self.stack.last() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let found = fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let exposed_to = dir.exposure_of(&found)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
            if !is_last {
                let next = dir.enter(name, exposed_to)?;
                self.stack.push(next);
            }
            return Ok(!is_last);
        }
        if let Some(by) = exposed_to {
            let path = dir.path.join(name);
            return Err(Refusal::Link { path, by }.into());
        }
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = fs::readlinkat(&dir.fd, name, Vec::new())?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            self.stack.truncate(1);
        }
        self.ahead.extend(components(&target));
        Ok(true)
    }

    fn here(&mut self) -> io::Result<Reached> {
        self.stack
            .pop()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Returns the components in reverse order.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

/// Opens a directory.
///
/// # Errors
/// A [`Refusal`], or an error of the system.
pub fn directory(path: &Path) -> io::Result<Reached> {
    if !is_privileged() {
        return Reached::plainly(std::fs::canonicalize(path)?);
    }
    let (above, name) = Walk::new(&std::path::absolute(path)?)?.run(Last::Follow)?;
    if name == "." {
        return Ok(above);
    }
    let found = fs::statat(&above.fd, &name, AtFlags::SYMLINK_NOFOLLOW)?;
    let exposed_to = above.exposure_of(&found)?;
    above.enter(&name, exposed_to)
}

/// Opens the parent directory of a path, and returns it with the last component, which need not
/// exist.
///
/// # Errors
/// A [`Refusal`], or an error of the system.
pub fn parent(path: &Path) -> io::Result<(Reached, OsString)> {
    let path = std::path::absolute(path)?;
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it has no parent directory",
        ));
    };
    if is_privileged() {
        Walk::new(&path)?.run(Last::Leave)
    } else {
        Ok((
            Reached::plainly(std::fs::canonicalize(above)?)?,
            name.to_owned(),
        ))
    }
}

/// Returns whether the path exists.
///
/// # Errors
/// A [`Refusal`], or an error of the system.
pub fn exists(path: &Path) -> io::Result<bool> {
    if !is_privileged() {
        return path.try_exists();
    }
    let found = Walk::new(&std::path::absolute(path)?)?
        .run(Last::Follow)
        .and_then(|(above, name)| Ok(fs::statat(&above.fd, &name, AtFlags::SYMLINK_NOFOLLOW)?));
    match found {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A socket to connect to, regardless of later changes of its path.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// The descriptor that `path` refers to.
    _held: Option<OwnedFd>,
}

impl Socket {
    /// Returns a path that leads to the socket for as long as this value exists.
    /// Returns its path without links.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Finds a socket.
///
/// # Errors
/// A [`Refusal`], or an error of the system.
pub fn socket(path: &Path) -> io::Result<Socket> {
    if !is_privileged() {
        return Ok(Socket {
            path: path.to_owned(),
            _held: None,
        });
    }
    let (above, name) = Walk::new(&std::path::absolute(path)?)?.run(Last::Follow)?;
    hold(&above, &name)
}

/// Holds a socket. A path below `/proc` leads to the very file that a descriptor refers to.
#[cfg(target_os = "linux")]
fn hold(above: &Reached, name: &OsStr) -> io::Result<Socket> {
    use std::os::fd::AsRawFd as _;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = fs::openat(&above.fd, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(fs::fstat(&held)?.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP.into());
    }
    Ok(Socket {
        path: format!("/proc/self/fd/{}", held.as_raw_fd()).into(),
        _held: Some(held),
    })
}

/// Checks a socket that cannot be held on this system. Its owner can replace it between the check
/// and the use.
#[cfg(not(target_os = "linux"))]
fn hold(above: &Reached, name: &OsStr) -> io::Result<Socket> {
    let found = fs::statat(&above.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP.into());
    }
    Ok(Socket {
        path: above.path.join(name),
        _held: None,
    })
}

/// See [`super::file`].
pub(super) fn open(path: &Path) -> io::Result<File> {
    if !is_privileged() {
        return open_plainly(path);
    }
    let (above, name) = Walk::new(&std::path::absolute(path)?)?.run(Last::Follow)?;
    open_regular(&above.fd, &name, OFlags::NOFOLLOW)
}

/// See [`super::plain_file`].
pub(super) fn open_plainly(path: &Path) -> io::Result<File> {
    open_regular(CWD, path.as_os_str(), OFlags::empty())
}

fn open_regular(above: impl AsFd, name: &OsStr, nofollow: OFlags) -> io::Result<File> {
    let links = if nofollow.is_empty() {
        AtFlags::empty()
    } else {
        AtFlags::SYMLINK_NOFOLLOW
    };
    // Checked before it is opened, because opening some devices has effects, and again afterwards,
    // because it may have been replaced.
    regular(&fs::statat(&above, name, links)?)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | nofollow;
    let file = fs::openat(&above, name, flags, Mode::empty())?;
    regular(&fs::fstat(&file)?)?;
    Ok(file.into())
}

fn regular(found: &Stat) -> io::Result<()> {
    let kind = match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "a directory",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::Symlink => "a symbolic link",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "a special file",
    };
    Err(Refusal::Kind(kind).into())
}
