//! Programs delivered with an update (`mainstay update --artifact`).
//!
//! ```text
//! PROGRAMS/NAME/.lock         held while a program is added or removed
//! PROGRAMS/NAME/.new          a fetch in progress, or the rest of an interrupted one
//! PROGRAMS/NAME/SHA256/FILE   a complete program
//! ```
//!
//! PROGRAMS is `STATE-programs`, because STATE is private to its owner, while a program must be
//! accessible to every account that runs it. On Windows the programs are in the service's
//! installation directory, which its account may read. Files in PROGRAMS never change. A definition
//! names its program by this path, so switching definitions also switches programs. A running
//! process keeps its file, and a rollback does not fetch anything.
//!
//! A program gets its name only after it is completely on disk (`disk.rs`). An interrupted fetch
//! therefore leaves no usable file.

mod disk;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use mainstay_core::failure::{Code, Failure};
use mainstay_core::snapshot::Hasher;
use mainstay_sys::{guarded, lock_file};

use self::disk::Disk;
use crate::file_failure::file_failure;
use crate::snapshot::{CallOff, Seam};

/// The largest size of a program, in bytes.
pub const LARGEST: u64 = 4 << 30;
/// The size of one read, hash and write step.
const CHUNK: usize = 128 << 10;
const NEW: &str = ".new";
const LOCK: &str = ".lock";

/// A SHA-256 hash: 64 hexadecimal digits in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash(String);

/// The source of a program.
pub trait Delivery {
    /// Opens the source. Blocks until its content has begun.
    fn open(&self) -> Result<Content, Failure>;

    /// Returns the failure of an error in the middle of the content.
    fn interrupted(&self, error: &io::Error) -> Failure;

    /// Returns a failure that names the source without secrets.
    fn failure(&self, code: Code, why: &str) -> Failure;

    /// Returns the failure of a source that is larger than [`LARGEST`].
    fn too_large(&self) -> Failure {
        let why = format!("it is larger than {} GiB", LARGEST >> 30);
        self.failure(Code::Failed, &why)
    }
}

/// The content of a program.
pub struct Content {
    /// The size in bytes, if known in advance.
    pub size: Option<u64>,
    /// The content itself.
    pub bytes: Box<dyn Read>,
}

/// The delivered programs of one service.
#[derive(Clone, Debug)]
pub struct Programs {
    dir: PathBuf,
}

impl FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err("SHA-256 is 64 hexadecimal digits")
        }
    }
}

impl Programs {
    /// Returns the programs of the service installed in `STATE/installed/NAME`.
    pub fn of_place(place: &Path) -> Self {
        if cfg!(windows) {
            let dir = place.join("programs");
            return Self { dir };
        }
        let state = place.parent().and_then(Path::parent).unwrap_or(place);
        let mut all = state.as_os_str().to_owned();
        all.push("-programs");
        let name = place.file_name().unwrap_or_default();
        let dir = Path::new(&all).join(name);
        Self { dir }
    }

    /// Returns whether an update delivered this program.
    pub fn have(&self, program: &str) -> bool {
        Path::new(program).starts_with(&self.dir)
    }

    /// Fetches a program and stores it, completely or not at all. Returns its path. A program that
    /// is present and unchanged is not fetched again. Blocks until the program is stored.
    ///
    /// # Errors
    /// If the program cannot be fetched or stored, or does not match `expected`; if other
    /// accounts could change it in its directory; `Busy` while another process is fetching.
    pub fn fetch(
        &self,
        file_name: &str,
        source: &impl Delivery,
        expected: Option<&Hash>,
    ) -> Result<PathBuf, Failure> {
        self.fetch_over(&CallOff::default(), (file_name, source, expected))
    }

    fn fetch_over(
        &self,
        seam: &dyn Seam,
        (file_name, source, expected): (&str, &impl Delivery, Option<&Hash>),
    ) -> Result<PathBuf, Failure> {
        let disk = Disk(seam);
        let all = self.dir.parent().unwrap_or(&self.dir);
        for dir in [all, &self.dir] {
            refuse_exposed(dir)?;
            disk.create_dir(dir).map_err(doing("create", dir))?;
        }
        let _lock = self.lock()?;
        if let Some(expected) = expected {
            let program = self.dir.join(&expected.0).join(file_name);
            if is_whole(&program, expected).map_err(doing("read", &program))? {
                used(&program);
                return Ok(program);
            }
        }
        let unfinished = self.dir.join(NEW);
        disk.remove_all(&unfinished)
            .map_err(doing("remove", &unfinished))?;
        let fetched = copy(disk, source, &unfinished).and_then(|found| match expected {
            Some(expected) if *expected != found => {
                let why = format!("its SHA-256 is {}, expected {}", found.0, expected.0);
                let failure = source.failure(Code::Failed, &why);
                let hint =
                    "the file is a different one or was damaged in transit; it was discarded";
                Err(failure.hint(hint))
            }
            _ => Ok(found),
        });
        let hash = fetched.inspect_err(|_| {
            // If this fails, the next fetch removes it.
            drop(disk.remove_all(&unfinished));
        })?;
        let kept = self.dir.join(&hash.0);
        let program = kept.join(file_name);
        let keep = || {
            disk.create_dir(&kept)?;
            // Replaces a damaged copy, if there is one.
            disk.rename(&unfinished, &program)?;
            disk.sync_dir(&kept)
        };
        keep().map_err(doing("keep", &program))?;
        used(&program);
        Ok(program)
    }

    /// Removes the programs that were last fetched or requested before an update began, unless
    /// `keeps` accepts their hash. Newer programs may belong to another update that is not in the
    /// registry yet. Best effort.
    pub fn prune(&self, before: SystemTime, keeps: impl Fn(&str) -> bool) {
        self.prune_over(&CallOff::default(), before, keeps);
    }

    fn prune_over(&self, seam: &dyn Seam, before: SystemTime, keeps: impl Fn(&str) -> bool) {
        let Ok(_lock) = self.lock() else { return };
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let hash = name.to_str().filter(|name| name.parse::<Hash>().is_ok());
            let at = entry.metadata().and_then(|found| found.modified());
            if at.is_ok_and(|at| at < before) && hash.is_some_and(|hash| !keeps(hash)) {
                drop(Disk(seam).remove_all(&entry.path()));
            }
        }
    }

    /// Removes all programs of the service.
    pub fn purge(&self) -> io::Result<()> {
        Disk(&CallOff::default()).remove_all(&self.dir)?;
        if let Some(all) = self.dir.parent() {
            // The directory may contain the programs of other services.
            drop(fs::remove_dir(all));
        }
        Ok(())
    }

    fn lock(&self) -> Result<File, Failure> {
        let path = self.dir.join(LOCK);
        let lock = lock_file::open(&path).map_err(doing("open", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(fs::TryLockError::Error(error)) => Err(doing("lock", &path)(error)),
            Err(fs::TryLockError::WouldBlock) => {
                let message = format!(
                    "cannot lock {}: another process is fetching a program",
                    path.display()
                );
                Err(Failure::new(Code::Busy, message).hint("try again"))
            }
        }
    }
}

/// Returns the conversion of an I/O error of storing a program into a failure.
fn doing<'a>(operation: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Failure + use<'a> {
    move |error| file_failure(operation, path, &error)
}

/// Rejects a directory in which other accounts could replace programs: they would gain the rights
/// of the service.
fn refuse_exposed(dir: &Path) -> Result<(), Failure> {
    let Some((place, why)) = disk::exposed(dir).map_err(doing("inspect", dir))? else {
        return Ok(());
    };
    let message = format!(
        "cannot store a program in {}: {}: {why}",
        dir.display(),
        place.display()
    );
    let hint = "an account that can replace a program gains its rights: make the directory writable by you only (chown, chmod go-w)";
    Err(Failure::new(Code::PermissionDenied, message).hint(hint))
}

/// Returns whether the program is present and unchanged.
fn is_whole(program: &Path, expected: &Hash) -> io::Result<bool> {
    let mut file = match guarded::file(program) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    let is_same = hasher.finish().to_string() == expected.0;
    Ok(is_same && disk::is_executable_by_all(&file.metadata()?))
}

/// Marks a program as requested now. If that fails, its age decides.
fn used(program: &Path) {
    let dir = program.parent().map(File::open);
    drop(dir.map(|dir| dir.and_then(|dir| dir.set_modified(SystemTime::now()))));
}

/// Copies a program into a new file that everybody may execute, and syncs it.
fn copy(disk: Disk<'_>, source: &impl Delivery, path: &Path) -> Result<Hash, Failure> {
    let mut content = source.open()?;
    if content.size.is_some_and(|size| size > LARGEST) {
        return Err(source.too_large());
    }
    let dir = path.parent().unwrap_or(path);
    let room = disk::room(dir).map_err(|error| {
        let failure = doing("store a program in", dir)(error);
        failure.hint("mount it with `exec`, or choose another directory: --state-dir DIR")
    })?;
    if let (Some(size), Some(room)) = (content.size, room)
        && size > room
    {
        let message = format!(
            "cannot store a program in {}: it has {size} bytes, but only {room} are free",
            dir.display()
        );
        return Err(Failure::new(Code::CannotWrite, message).hint("free some disk space"));
    }
    let file = disk.create_file(path).map_err(doing("create", path))?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let count = match content.bytes.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(source.interrupted(&error)),
        };
        size += count as u64;
        if size > LARGEST {
            return Err(source.too_large());
        }
        hasher.update(&buffer[..count]);
        disk.write(&file, path, &buffer[..count])
            .map_err(doing("write", path))?;
    }
    disk.finish(&file, path).map_err(doing("write", path))?;
    Ok(Hash(hasher.finish().to_string()))
}
