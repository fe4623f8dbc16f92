//! Performs steps and undoes them. It makes no decisions.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::backend::{Call, Content, Entry, Sign, Step};
use crate::{Error, ErrorKind};

/// The location of `/`: the running system, or a directory that will become a system later.
#[derive(Clone, Debug)]
pub(super) struct Ground(Option<PathBuf>);

impl Ground {
    pub(super) fn here() -> Self {
        Self(None)
    }

    pub(super) fn below(root: &Path) -> Self {
        Self(Some(root.to_owned()))
    }

    pub(super) fn is_staged(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the location of an absolute path.
    pub(super) fn at(&self, path: &Path) -> PathBuf {
        match &self.0 {
            None => path.to_owned(),
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        }
    }

    /// Returns whether a file exists whose name matches this one, where `?` matches any character.
    pub(super) fn has_like(&self, path: &Path) -> bool {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return false;
        };
        let name = name.as_encoded_bytes();
        let is_like = |other: &[u8]| {
            let mut pairs = other.iter().zip(name);
            other.len() == name.len() && pairs.all(|(is, wanted)| *wanted == b'?' || is == wanted)
        };
        let entries = fs::read_dir(self.at(dir)).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        names.any(|name| is_like(name.as_encoded_bytes()))
    }

    /// Checks that a file can be put at this path.
    ///
    /// # Errors
    /// If something other than a file or a link is there.
    pub(super) fn check_place(&self, path: &Path) -> Result<(), Error> {
        let path = self.at(path);
        let found = read(&path).map(drop);
        found.map_err(|error| failed("write", &path, error))
    }

    /// Returns whether the entry exists with exactly this content.
    pub(super) fn holds(&self, entry: &Entry) -> bool {
        read(&self.at(&entry.path)).is_ok_and(|found| found.as_ref() == Some(&entry.content))
    }
}

/// Reads the content at a path. Returns `None` if nothing exists there.
fn read(path: &Path) -> io::Result<Option<Content>> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if metadata.is_symlink() {
        return fs::read_link(path).map(|target| Some(Content::Link(target)));
    }
    let text = read_file(path)?;
    let mode = metadata.permissions().mode() & 0o7777;
    Ok(Some(Content::File { mode, text }))
}

/// Reads a regular file. Refuses everything else: reading a named pipe would not end.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() {
            "a directory is"
        } else {
            "something that is not a regular file is"
        };
        let why = format!("{what} in its place: move it away, and try again");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    fs::read_to_string(path)
}

/// The reversals of the performed steps, in the order in which they were performed.
#[derive(Default)]
pub(super) struct Done(Vec<Undo>);

enum Undo {
    Put(PathBuf, Content),
    Remove(PathBuf),
    RemoveDir(PathBuf),
    Run(Call),
}

impl Done {
    pub(super) fn perform(&mut self, step: &Step, ground: &Ground) -> Result<(), Error> {
        match step {
            Step::Put(entry) => {
                let path = ground.at(&entry.path);
                self.put(&path, &entry.content)
                    .map_err(|error| failed("write", &path, error))
            }
            Step::Remove(path) => {
                let path = ground.at(path);
                self.remove(&path)
                    .map_err(|error| failed("remove", &path, error))
            }
            Step::Run(call, undo) => {
                // The reversal is recorded first because the call may fail half-way.
                self.0.extend(undo.clone().map(Undo::Run));
                run(call, &format!("cannot run {call}"))
            }
        }
    }

    fn put(&mut self, path: &Path, content: &Content) -> io::Result<()> {
        let missing = path.ancestors().skip(1).take_while(|dir| !dir.exists());
        let missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        for dir in missing.into_iter().rev() {
            fs::create_dir(&dir)?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
            self.0.push(Undo::RemoveDir(dir));
        }
        let path = path.to_owned();
        let undo = match read(&path)? {
            Some(before) => Undo::Put(path.clone(), before),
            None => Undo::Remove(path.clone()),
        };
        replace(&path, content)?;
        self.0.push(undo);
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let Some(before) = read(path)? else {
            return Ok(());
        };
        fs::remove_file(path)?;
        self.0.push(Undo::Put(path.to_owned(), before));
        // `systemctl disable` does the same.
        if let Some(dir) = path
            .parent()
            .filter(|dir| dir.extension().is_some_and(|it| it == "wants"))
        {
            // The directory may contain other files.
            let _is_empty = fs::remove_dir(dir);
        }
        Ok(())
    }

    /// Undoes all steps, last step first. Errors are ignored because the original error matters
    /// more.
    pub(super) fn take_back(self) {
        for undo in self.0.into_iter().rev() {
            drop(match undo {
                Undo::Put(path, before) => replace(&path, &before),
                Undo::Remove(path) => fs::remove_file(path),
                Undo::RemoveDir(path) => fs::remove_dir(path),
                Undo::Run(call) => command(&call.argv).output().map(drop),
            });
        }
    }
}

/// Replaces a file or link atomically and durably, or not at all.
fn replace(path: &Path, content: &Content) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(new);
    let written = match content {
        Content::File { mode, text } => fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(*mode)
            .open(&new)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                // The mode must not depend on the umask, because managers read the file.
                file.set_permissions(fs::Permissions::from_mode(*mode))?;
                file.sync_all()
            }),
        Content::Link(target) => symlink(target, &new),
    };
    let placed = written.and_then(|()| fs::rename(&new, path));
    if placed.is_err() {
        let _is_no_more = fs::remove_file(&new);
    }
    placed
}

/// Removes a directory and its content.
pub(super) fn remove_dir(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

fn failed(verb: &str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, format!("cannot {verb} {}", path.display())).because(error)
}

/// Returns the command for a manager's tool, without input and with the C locale.
pub(super) fn command(argv: &[String]) -> Command {
    let (program, arguments) = argv
        .split_first()
        .map_or(("", &[][..]), |(program, rest)| (&**program, rest));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    command
}

/// Runs the call to completion. If it may not fail, its exit code must be 0.
pub(super) fn run(call: &Call, what: &str) -> Result<(), Error> {
    let output = command(&call.argv).output().map_err(|error| {
        Error::new(ErrorKind::Failed, format!("{what}: run {}", call.argv[0])).because(error)
    });
    if call.may_fail {
        return Ok(());
    }
    let output = output?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    let is_right = [
        "ccess denied",
        "authentication required",
        "ermission denied",
        "not permitted",
    ];
    let kind = if is_right.iter().any(|part| said.contains(part)) {
        ErrorKind::PermissionDenied
    } else {
        ErrorKind::Failed
    };
    let said = match said.trim() {
        "" => format!("{call}: {}", output.status),
        said => said.to_owned(),
    };
    Err(Error::new(kind, what).because(io::Error::other(said)))
}

/// Returns whether the sign is present.
pub(super) fn is_there(sign: &Sign) -> bool {
    let is_named = |pid: &std::ffi::OsStr, name: &str| {
        let path = Path::new("/proc").join(pid).join("comm");
        fs::read_to_string(path).is_ok_and(|comm| comm.trim_end() == name)
    };
    match sign {
        Sign::Path(path) => Path::new(path).exists(),
        Sign::Init(name) => is_named("1".as_ref(), name),
        Sign::Process(name) => {
            let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
            processes
                .map(|entry| entry.file_name())
                .any(|pid| is_named(&pid, name))
        }
    }
}
