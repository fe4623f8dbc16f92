//! Where everything that a supervisor keeps lies: one owner-only directory.
//!
//! ```text
//! STATE/lock            held while a supervisor lives; says who it is
//! STATE/ledger          what a successor needs to go on, should it be killed (`host/ledger.rs`)
//! STATE/registry.db     every definition that was installed, and its history (`registry/`); on Windows in `installed`
//! STATE/registry.owner-… held by whoever is changing one of them
//! STATE/manifest.toml   what it supervises, as it was read (or .yaml, .json)
//! STATE/halted.json         the last report of a host whose service is halted (`halted.rs`)
//! STATE/start-failure.json  why the last start of a host failed, if it did (`start_failure.rs`)
//! STATE/control.sock    docs/control.md (a named pipe on Windows)
//! STATE/logs/NAME/      what a service wrote
//! STATE/redaction.key   by which `redact_with = "hash"` hides values
//! STATE/spool/          what waits for log hosts
//! STATE/pipes/NAME      what a service writes to (Linux)
//! STATE/data/NAME/      the service's own, `MAINSTAY_DATA_DIR`
//! STATE/snapshots/NAME/ what was kept of its state (`snapshot/mod.rs`)
//! STATE/installed/NAME/ a service of the system's manager: its manifest, and in `state/` all of the above (`installed.rs`);
//!                       or one of the embedded manager: its manifest, and `embedded.json` (`embedded.rs`)
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use mainstay::Scope;
use mainstay_core::log::redact::RedactionKey;
use mainstay_core::spec::{ServiceName, SnapshotPolicy};

use crate::failure::{Code, Failure};
use crate::host::sys;

/// How long a lock is waited for whose holder is dead.
const PATIENCE: Duration = Duration::from_secs(5);

/// The place of a supervisor's state; it need not exist yet.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// Where installed services are.
    installed: PathBuf,
}

/// The right to supervise from a state directory, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    /// What the last holder left in it, if it died without giving it back.
    pub(crate) predecessor: Option<Predecessor>,
}

/// A supervisor that died without stopping its services.
#[derive(Debug)]
pub(crate) struct Predecessor {
    pub(crate) pid: String,
    /// How to find them (`sys::testament`): what it started itself, and what it had adopted.
    pub(crate) testaments: Vec<String>,
}

impl Lock {
    /// Says in it who holds it, for those who ask, and how to find our children, for a successor.
    pub(crate) fn sign(
        &mut self,
        manifest: &str,
        testaments: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> io::Result<()> {
        let mut text = format!("{}\n{manifest}\n", std::process::id());
        for testament in testaments {
            text.push_str(testament.as_ref());
            text.push('\n');
        }
        // An empty line ends it: should we be killed before the rest is cut off, that is not read.
        text.push('\n');
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(text.len() as u64)
    }

    /// Gives it back: nothing was left behind.
    pub(crate) fn give_back(self) {
        // Where this fails the next one looks for processes that are not there.
        let _ = self.file.set_len(0);
    }
}

/// Who signed a lock; `None` if it was given back.
fn signed(text: &str) -> Option<(&str, &str, Vec<String>)> {
    let mut lines = text.lines().take_while(|line| !line.is_empty());
    let pid = lines.next()?;
    let manifest = lines.next().unwrap_or("another manifest");
    Some((pid, manifest, lines.map(str::to_owned).collect()))
}

impl StateDir {
    /// The one that was asked for (`--state-dir`, `MAINSTAY_STATE_DIR`), else the system's place for such things.
    pub(crate) fn locate(asked: Option<PathBuf>) -> Result<Self, Failure> {
        let of_system = asked.clone().or_else(system_place);
        let Some(path) = asked.or_else(default_place) else {
            let failure = Failure::new(Code::CannotWrite, "no home directory to keep state in");
            return Err(failure.hint("say where: --state-dir DIR"));
        };
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|error| {
                let message = format!("state directory {}: {error}", path.display());
                Failure::new(Code::CannotWrite, message)
            })
        };
        let path = absolute(path)?;
        let installed = of_system.map_or_else(|| Ok(path.clone()), absolute)?;
        Ok(Self {
            path,
            installed: installed.join("installed"),
        })
    }

    /// The same with another place for what one service's supervisor keeps.
    pub(crate) fn at(&self, path: PathBuf) -> Self {
        let installed = self.installed.clone();
        Self { path, installed }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a service's supervisor keeps its state: its own place where the system's manager has it, or had, else this one.
    pub(crate) fn of(&self, name: &str) -> Self {
        let scopes = ServiceName::new(name).map(|_| [Scope::User, Scope::System]);
        let places = scopes.into_iter().flatten();
        let mut places = places.map(|scope| self.installed_dir(scope).join(name).join("state"));
        places
            .find(|place| place.is_dir())
            .map_or_else(|| self.clone(), |place| self.at(place))
    }

    /// The directory of all services that the system's manager was given, or the user's.
    pub(crate) fn installed_dir(&self, scope: Scope) -> PathBuf {
        match scope {
            Scope::User => self.path.join("installed"),
            _ => self.installed.clone(),
        }
    }

    /// The registry of those services.
    pub(crate) fn registry_path(&self, scope: Scope) -> PathBuf {
        registry_path(&self.installed_dir(scope))
    }

    /// The directory of all services' logs.
    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The directory of what waits for log hosts.
    pub(crate) fn spool_dir(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// The directory of all services' snapshots.
    pub(crate) fn snapshots_dir(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// The directory of the pipes that services write to.
    pub(crate) fn pipes_dir(&self) -> PathBuf {
        self.path.join("pipes")
    }

    /// A service's own writable directory.
    pub(crate) fn data_dir(&self, name: &str) -> PathBuf {
        self.path.join("data").join(name)
    }

    /// What is kept of a service's state: what its policy names, else its own directory.
    pub(crate) fn kept_paths(&self, policy: &SnapshotPolicy, name: &str) -> Vec<PathBuf> {
        match policy.paths() {
            [] => vec![self.data_dir(name)],
            paths => paths.to_vec(),
        }
    }

    /// Makes a service's own directory. Where another user owns it, the directories above let him through, but not look around.
    pub(crate) fn create_data_dir(&self, name: &str, owner: Option<&sys::User>) -> io::Result<()> {
        let dir = self.data_dir(name);
        create_private_dir(&dir)?;
        let Some(owner) = owner else { return Ok(()) };
        #[cfg(unix)]
        for above in [&self.path, &self.path.join("data")] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
            fs::set_permissions(above, mode)?;
        }
        owner.give(&dir)
    }

    /// The secret by which this installation hides values that must still be told apart, made where there is none.
    pub(crate) fn redaction_key(&self) -> Result<RedactionKey, Failure> {
        let path = self.path.join("redaction.key");
        let key = read_or_make_key(&path);
        key.map(RedactionKey::new).map_err(|error| {
            let message = format!("read or make the key {}: {error}", path.display());
            Failure::new(Code::CannotWrite, message)
        })
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// Whether somebody signed the lock and did not give it back: a supervisor that lives, or one that was killed.
    pub(crate) fn is_signed(&self) -> bool {
        fs::read_to_string(self.lock_path()).is_ok_and(|text| signed(&text).is_some())
    }

    /// The process that signed the lock, if it said so.
    pub(crate) fn holder(&self) -> Option<u32> {
        let text = fs::read_to_string(self.lock_path()).ok()?;
        signed(&text)?.0.parse().ok()
    }

    /// What a successor goes on with.
    pub(crate) fn ledger_path(&self) -> PathBuf {
        self.path.join("ledger")
    }

    /// The last report of a host whose service is halted (`halted.rs`).
    pub(crate) fn halted_path(&self) -> PathBuf {
        self.path.join("halted.json")
    }

    /// Why the last start of its supervisor failed (`start_failure.rs`).
    pub(crate) fn start_failure_path(&self) -> PathBuf {
        self.path.join("start-failure.json")
    }

    /// What services have become by updates.
    pub(crate) fn updated_dir(&self) -> PathBuf {
        self.path.join("updated")
    }

    /// What a service has become by an update.
    pub(crate) fn updated_path(&self, name: &str) -> PathBuf {
        self.updated_dir().join(format!("{name}.json"))
    }

    /// The place of a copy of the manifest, by the name of its format.
    pub(crate) fn manifest_path(&self, format: &str) -> PathBuf {
        self.path.join(format!("manifest.{format}"))
    }

    /// Makes the directory, owner-only, and takes the lock. Sign it next.
    pub(crate) fn lock(&self) -> Result<Lock, Failure> {
        create_private_dir(&self.path).map_err(|error| self.cannot_write("create", &error))?;
        self.refuse_foreign()?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.lock_path())
            .map_err(|error| self.cannot_write("write to", &error))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                // A process that it was about to start when it was killed has the lock for as long as it is not that program yet.
                Err(TryLockError::WouldBlock)
                    if holder_is_dead(&mut file) && Instant::now() < deadline =>
                {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => return Err(self.held(&mut file)),
                Err(TryLockError::Error(error)) => return Err(self.cannot_write("lock", &error)),
            }
        }
        file.rewind()
            .map_err(|error| self.cannot_write("read", &error))?;
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(|error| self.cannot_write("read", &error))?;
        let predecessor = signed(&text).map(|(pid, _, testaments)| Predecessor {
            pid: pid.to_owned(),
            testaments,
        });
        Ok(Lock { file, predecessor })
    }

    fn held(&self, file: &mut File) -> Failure {
        let text = read_again(file);
        let (pid, manifest, _) = signed(&text).unwrap_or(("unknown", "another manifest", vec![]));
        let place = self.path.display();
        Failure::new(
            Code::Busy,
            format!(
                "state directory {place} is in use: mainstay, pid {pid}, supervises {manifest}"
            ),
        )
        .hint("talk to that one (`mainstay status`), or give this one its own --state-dir DIR")
    }

    fn cannot_write(&self, verb: &str, error: &io::Error) -> Failure {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            _ => Code::CannotWrite,
        };
        Failure::new(
            code,
            format!("{verb} state directory {}: {error}", self.path.display()),
        )
        .hint("choose a directory that you may write to: --state-dir DIR")
    }

    #[cfg(unix)]
    pub(crate) fn refuse_foreign(&self) -> Result<(), Failure> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let found = fs::metadata(&self.path).map_err(|error| self.cannot_write("read", &error))?;
        let mode = found.permissions().mode() & 0o777;
        let me = rustix::process::geteuid().as_raw();
        if found.uid() != me || mode & 0o022 != 0 {
            let place = self.path.display();
            return Err(Failure::new(
                Code::PermissionDenied,
                format!(
                    "state directory {place} (owner {}, mode {mode:o}) is open to others",
                    found.uid()
                ),
            )
            .hint(format!(
                "make it yours alone: chown {me} {place} && chmod 700 {place}"
            )));
        }
        Ok(())
    }

    #[cfg(windows)]
    pub(crate) fn refuse_foreign(&self) -> Result<(), Failure> {
        let exposure = sys::acl_exposure(&self.path);
        let Some(exposure) = exposure.map_err(|error| self.cannot_write("read", &error))? else {
            return Ok(());
        };
        let message = format!("state directory {}: {exposure}", self.path.display());
        let failure = Failure::new(Code::PermissionDenied, message);
        Err(failure.hint("choose one of your own: --state-dir DIR"))
    }
}

/// The registry of the services in a directory of installed ones. It lies beside it, but for Windows, where that directory is what is the
/// administrators' alone.
pub(crate) fn registry_path(installed_dir: &Path) -> PathBuf {
    let dir = match cfg!(windows) {
        true => installed_dir,
        false => installed_dir.parent().unwrap_or(installed_dir),
    };
    dir.join("registry.db")
}

/// What cannot be read is not told; that the lock is held is certain all the same.
fn read_again(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text
}

/// Whether nobody lives any more who signed the lock.
fn holder_is_dead(file: &mut File) -> bool {
    let text = read_again(file);
    let Some((pid, ..)) = signed(&text) else {
        return true;
    };
    pid.parse().is_ok_and(sys::is_dead)
}

fn read_or_make_key(path: &Path) -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    match File::open(path) {
        Ok(mut file) => {
            file.read_exact(&mut key)?;
            return Ok(key);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    // Whole or not at all: a key that is lost makes two values of one.
    let unfinished_path = path.with_extension("tmp");
    let mut file = create_anew(&unfinished_path)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(unfinished_path, path)?;
    Ok(key)
}

/// Creates a directory and its parents, each readable by its owner only. One that exists is left as it is.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Writes a file that only its owner reads, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut new_path = path.as_os_str().to_owned();
    new_path.push(".new");
    let mut file = create_anew(Path::new(&new_path))?;
    file.write_all(bytes)?;
    fs::rename(&new_path, path)?;
    Ok(file)
}

/// Creates a file that only its owner reads. One that is there, or a link, is removed first: its owner could still change it.
fn create_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// What belongs to the whole system: FHS 3.0, Apple's and Microsoft's places on theirs.
fn system_place() -> Option<PathBuf> {
    let place = match () {
        () if cfg!(windows) => variable("ProgramData")?,
        () if cfg!(target_os = "macos") => PathBuf::from("/Library/Application Support"),
        () => PathBuf::from("/var/lib"),
    };
    Some(place.join("mainstay"))
}

/// What belongs to this user: the XDG base directories on Unix, Apple's and Microsoft's places on theirs.
fn default_place() -> Option<PathBuf> {
    if cfg!(windows) {
        return variable("LOCALAPPDATA")
            .map_or_else(system_place, |dir| Some(dir.join("mainstay")));
    }
    #[cfg(unix)]
    if rustix::process::geteuid().is_root() {
        return system_place();
    }
    let home = variable("HOME");
    if cfg!(target_os = "macos") {
        return home.map(|dir| dir.join("Library/Application Support/mainstay"));
    }
    variable("XDG_STATE_HOME")
        .filter(|dir| dir.is_absolute())
        .or_else(|| home.map(|dir| dir.join(".local/state")))
        .map(|dir| dir.join("mainstay"))
}

fn variable(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    value.map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody who left a file of that name has it open, and owns it.
    #[test]
    fn what_somebody_left_does_not_become_ours() {
        let dir = mainstay_testkit::Sandbox::new();
        let path = dir.path().join("manifest.toml");
        let left = dir.path().join("manifest.toml.new");
        let theirs = File::create(&left).unwrap();
        write_private(&path, b"ours").unwrap();
        (&theirs).write_all(b"theirs").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ours");
        #[cfg(unix)]
        {
            let target = dir.path().join("target");
            std::os::unix::fs::symlink(&target, &left).unwrap();
            write_private(&path, b"again").unwrap();
            assert!(!target.exists());
            assert!(!path.symlink_metadata().unwrap().is_symlink());
        }
    }
}
