//! Programs that come along with an update (`mainstay update --artifact`).
//!
//! ```text
//! PROGRAMS/NAME/.lock         held by whoever adds or removes one
//! PROGRAMS/NAME/.new          one that is being fetched, or of which that was interrupted
//! PROGRAMS/NAME/SHA256/FILE   one that is whole
//! ```
//!
//! PROGRAMS is `STATE-programs`, for STATE is its owner's alone, and a program is for every account that runs it (on Windows it lies where the
//! service is installed, which its account may read). What lies there never changes: a definition names its program by this path, so the switch
//! from one definition to another is that from one program to another, what runs keeps its file, and going back needs none.
//!
//! A program has its name only when all of it is on the disk (`disk.rs`), so whatever interrupts a fetch leaves nothing that counts.

mod disk;
mod source;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use mainstay_core::snapshot::Hasher;

use self::disk::Disk;
pub(crate) use self::source::Source;
use crate::failure::{Code, Failure};
use crate::guarded;
use crate::lock_file;
use crate::snapshot::{CallOff, Seam};

/// The largest program.
const LARGEST: u64 = 4 << 30;
/// How long a server may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is read, hashed and written at once.
const CHUNK: usize = 128 << 10;
const NEW: &str = ".new";
const LOCK: &str = ".lock";

/// SHA-256: 64 hexadecimal digits, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hash(String);

/// The programs of one service.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    dir: PathBuf,
}

impl FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match is_hash {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err("SHA-256 is 64 hexadecimal digits"),
        }
    }
}

impl Programs {
    /// Of a service whose place is `STATE/installed/NAME`.
    pub(crate) fn of_place(place: &Path) -> Self {
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

    /// Whether this program has come along with an update.
    pub(crate) fn have(&self, program: &str) -> bool {
        Path::new(program).starts_with(&self.dir)
    }

    /// Fetches a program and keeps it, whole or not at all; its path. One that is there is not fetched again, if it is still what it was. Blocks
    /// as long as that takes.
    ///
    /// # Errors
    /// Where it cannot be had or kept, or is not what `expected` says; where others could change it there; `Busy` while somebody else is at it.
    pub(crate) fn fetch(
        &self,
        file_name: &str,
        source: &Source,
        expected: Option<&Hash>,
    ) -> Result<PathBuf, Failure> {
        self.fetch_over(&CallOff::default(), PATIENCE, (file_name, source, expected))
    }

    fn fetch_over(
        &self,
        seam: &dyn Seam,
        patience: Duration,
        (file_name, source, expected): (&str, &Source, Option<&Hash>),
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
        let fetched = copy(disk, source, patience, &unfinished).and_then(|found| match expected {
            Some(expected) if *expected != found => {
                let why = format!(
                    "its SHA-256 is {}, and {} was expected",
                    found.0, expected.0
                );
                let failure = source.failure(Code::Failed, &why);
                let hint = "it is another file, or was damaged on its way: nothing of it was kept";
                Err(failure.hint(hint))
            }
            _ => Ok(found),
        });
        let hash = fetched.inspect_err(|_| {
            // Else the next one does it.
            drop(disk.remove_all(&unfinished));
        })?;
        let kept = self.dir.join(&hash.0);
        let program = kept.join(file_name);
        let keep = || {
            disk.create_dir(&kept)?;
            // In the place of one that was damaged there, if any was.
            disk.rename(&unfinished, &program)?;
            disk.sync_dir(&kept)
        };
        keep().map_err(doing("keep", &program))?;
        used(&program);
        Ok(program)
    }

    /// Removes those that came, or were wanted, before an update began, and whose hash is not to be kept; a hope, not more. What came since may
    /// be for another update, of which the registry does not know yet.
    pub(crate) fn prune(&self, before: SystemTime, keeps: impl Fn(&str) -> bool) {
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

    /// Removes all of them.
    pub(crate) fn purge(&self) -> io::Result<()> {
        Disk(&CallOff::default()).remove_all(&self.dir)?;
        if let Some(all) = self.dir.parent() {
            // Other services have theirs there.
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
                let message = format!("{}: somebody else is fetching a program", path.display());
                Err(Failure::new(Code::Busy, message).hint("try again"))
            }
        }
    }
}

/// What a step of keeping a program failed with.
fn doing<'a>(operation: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Failure + use<'a> {
    move |error| {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            _ => Code::CannotWrite,
        };
        Failure::new(code, format!("{operation} {}: {error}", path.display()))
    }
}

/// Whoever may change a program may do what it may.
fn refuse_exposed(dir: &Path) -> Result<(), Failure> {
    let Some((place, why)) = disk::exposed(dir).map_err(doing("look at", dir))? else {
        return Ok(());
    };
    let message = format!(
        "keep a program in {}: {}: {why}",
        dir.display(),
        place.display()
    );
    let hint = "whoever can change a program may do what it may: see to it that only you can write there (chown, chmod go-w)";
    Err(Failure::new(Code::PermissionDenied, message).hint(hint))
}

/// Whether this program is there as it came.
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

/// It is wanted now; where that cannot be said, it is its age that counts.
fn used(program: &Path) {
    let dir = program.parent().map(File::open);
    drop(dir.map(|dir| dir.and_then(|dir| dir.set_modified(SystemTime::now()))));
}

/// Copies all of it into a new file that everybody may run, and has it on the disk.
fn copy(disk: Disk<'_>, source: &Source, patience: Duration, path: &Path) -> Result<Hash, Failure> {
    let mut content = source.open(patience)?;
    let dir = path.parent().unwrap_or(path);
    let room = disk::room(dir).map_err(|error| {
        let failure = doing("keep a program in", dir)(error);
        failure.hint("mount it with `exec`, or keep the state elsewhere: --state-dir DIR")
    })?;
    if let (Some(size), Some(room)) = (content.size, room)
        && size > room
    {
        let message = format!(
            "keep a program in {}: it has {size} bytes, and {room} are free there",
            dir.display()
        );
        return Err(Failure::new(Code::CannotWrite, message).hint("make room"));
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
            Err(error) => {
                let why = source::interrupted(&error, patience);
                return Err(source.failure(Code::Failed, &why));
            }
        };
        size += count as u64;
        if size > LARGEST {
            return Err(source.failure(Code::Failed, &source::too_large()));
        }
        hasher.update(&buffer[..count]);
        disk.write(&file, path, &buffer[..count])
            .map_err(doing("write", path))?;
    }
    disk.finish(&file, path).map_err(doing("write", path))?;
    Ok(Hash(hasher.finish().to_string()))
}
