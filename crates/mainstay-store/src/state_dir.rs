//! The state directory: one directory, readable by its owner only, for everything that a supervisor
//! stores.
//!
//! ```text
//! STATE/lock                locked while a supervisor runs; identifies it (`lock.rs`)
//! STATE/lock-guard          locked for a moment by a process that takes `lock`
//! STATE/ledger              the state that a successor needs if the supervisor is killed
//!                           (`ledger.rs`)
//! STATE/registry.db         every definition ever installed, with its history (`registry/`);
//!                           on Windows in `installed`
//! STATE/registry.owner-…    locked by a process that changes a definition
//! STATE/manifest.toml       the manifest as it was read (or .yaml, .json)
//! STATE/halted.json         the last report of a host whose service is halted (`halted.rs`)
//! STATE/completed           present if the service of a host was ready and ended cleanly
//!                           (`completed.rs`)
//! STATE/start-failure.json  the cause if the last start of a host failed (`start_failure.rs`)
//! STATE/control.sock        the control socket, docs/control.md (a named pipe on Windows)
//! STATE/viewers/            the socket of a group that may view, if there is one (Unix)
//! STATE/logs/NAME/          the output of a service
//! STATE/events/NAME/        the events of a service (`mainstay-logs/src/events.rs`)
//! STATE/redaction.key       the key with which `redact_with = "hash"` hides values
//! STATE/spool/              log records that wait for log hosts
//! STATE/pipes/NAME          the pipes that a service writes to (Linux)
//! STATE/notify/…            the sockets on which services report readiness (Unix)
//! STATE/data/NAME/          a service's own directory, `MAINSTAY_DATA_DIR`
//! STATE/snapshots/NAME/     the snapshots of a service's state (`snapshot/mod.rs`)
//! STATE/installed/NAME/     a service of the system's manager: its manifest, and in `state/` all
//!                           of the above (`installed.rs`); or one of the embedded manager: its
//!                           manifest, and `embedded.json` (`embedded.rs`)
//! ```

mod data_dir;
mod lock;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use mainstay::Scope;
use mainstay_core::failure::{Code, Failure, disk_hint};
#[cfg(unix)]
use mainstay_core::layout::installed_place;
use mainstay_core::layout::viewers_dir;
use mainstay_core::log::redact::RedactionKey;
use mainstay_core::spec::{ServiceName, SnapshotPolicy};
use mainstay_sys as sys;
use mainstay_sys::access::Closed;
use mainstay_sys::private::{create_anew, create_private_dir};
#[cfg(unix)]
use mainstay_sys::{rights, trust};

pub use self::data_dir::{ClosedData, ForeignData};
pub use self::lock::{Hold, LOCK_TIMEOUT, Left, Lock, Predecessor, Timeout, Try};

/// A supervisor's state directory. It may not exist yet.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
    /// The directory of installed services.
    installed: PathBuf,
}

impl StateDir {
    /// Returns the requested directory (`--state-dir`, `MAINSTAY_STATE_DIR`), or else the default
    /// of the system.
    pub fn locate(asked: Option<PathBuf>) -> Result<Self, Failure> {
        let of_system = asked.clone().or_else(system_place);
        let Some(path) = asked.or_else(default_place) else {
            let failure = Failure::new(
                Code::CannotWrite,
                "no home directory for the state directory",
            );
            return Err(failure.hint("choose a directory: --state-dir DIR"));
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

    /// Returns the same, with another directory for the state of one service's supervisor.
    pub fn at(&self, path: PathBuf) -> Self {
        let installed = self.installed.clone();
        Self { path, installed }
    }

    /// Returns the path, which is absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path without symbolic links. It identifies the processes started from this
    /// directory.
    pub(crate) fn real_path(&self) -> PathBuf {
        if let Ok(real) = fs::canonicalize(&self.path) {
            return real;
        }
        let above = self
            .path
            .parent()
            .and_then(|above| fs::canonicalize(above).ok());
        match (above, self.path.file_name()) {
            (Some(above), Some(name)) => above.join(name),
            _ => self.path.clone(),
        }
    }

    /// Returns the mark that identifies processes started from this directory, even if the
    /// directory is lost.
    pub fn mark(&self) -> String {
        self.real_path().display().to_string()
    }

    /// Returns the supervisor's process ID, if it is alive, whatever has happened to its lock and
    /// its socket.
    pub fn supervisor(&self) -> Option<u32> {
        let by_lock = self.holder().filter(|pid| *pid != std::process::id());
        by_lock.or_else(|| sys::supervisor_of(&self.mark()))
    }

    /// Returns the state directory of a service's supervisor: the service's own one if the system's
    /// manager has or had it, or else this one.
    pub fn of(&self, name: &str) -> Self {
        let scopes = ServiceName::new(name).map(|_| [Scope::User, Scope::System]);
        let places = scopes.into_iter().flatten();
        let mut places = places.map(|scope| self.installed_dir(scope).join(name).join("state"));
        // The target of a link may be accessible to the account of the service only.
        let is_there = |place: &PathBuf| {
            let found = place.symlink_metadata();
            found.is_ok_and(|found| found.is_dir() || found.is_symlink())
        };
        places
            .find(is_there)
            .map_or_else(|| self.clone(), |place| self.at(place))
    }

    /// Returns the inaccessible path that hides the installed services, or the one of this name,
    /// from this process.
    pub fn closed(&self, name: Option<&str>) -> Option<Closed> {
        let dirs = [Scope::User, Scope::System].map(|scope| self.installed_dir(scope));
        let name = name.and_then(ServiceName::new);
        dirs.iter().find_map(|dir| {
            let of_it = || Closed::at(&dir.join(name.as_ref()?.as_str()).join("installation.json"));
            Closed::at(dir).or_else(of_it)
        })
    }

    /// Returns the directory of the services installed into the system's manager, or the user's.
    pub fn installed_dir(&self, scope: Scope) -> PathBuf {
        match scope {
            Scope::User => self.path.join("installed"),
            _ => self.installed.clone(),
        }
    }

    /// Returns the path of the registry of those services.
    pub fn registry_path(&self, scope: Scope) -> PathBuf {
        registry_path(&self.installed_dir(scope))
    }

    /// Returns the directory of all services' logs.
    pub fn logs_dir(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Returns the directory of all services' events.
    pub fn events_dir(&self) -> PathBuf {
        self.path.join("events")
    }

    /// Returns the directory of log records that wait for log hosts.
    pub fn spool_dir(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// Returns the directory of all services' snapshots.
    pub fn snapshots_dir(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// Returns the directory of the pipes that services write to.
    pub fn pipes_dir(&self) -> PathBuf {
        self.path.join("pipes")
    }

    /// Returns the directory of notification sockets.
    pub fn notify_dir(&self) -> PathBuf {
        self.path.join("notify")
    }

    /// Returns the directory with the socket of a group that may view.
    pub fn viewers_dir(&self) -> PathBuf {
        viewers_dir(&self.path)
    }

    /// Creates the directory with the socket of a group that may view. Its members can pass through
    /// the state directory to it, but cannot list or read anything else.
    #[cfg(unix)]
    pub fn admit_viewers(&self, group: u32) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
        let dir = self.viewers_dir();
        create_private_dir(&dir)?;
        let mode = fs::metadata(&self.path)?.mode() & 0o7777;
        for (dir, mode) in [(&dir, 0o750), (&self.path, mode | 0o010)] {
            chown(dir, None, Some(group))?;
            fs::set_permissions(dir, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// Groups cannot be admitted on Windows.
    #[cfg(windows)]
    pub fn admit_viewers(&self, _group: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Undoes what an earlier supervisor did to admit a group, if one did.
    pub fn dismiss_viewers(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.viewers_dir()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
            let mode = fs::metadata(&self.path)?.mode() & 0o7777;
            chown(&self.path, None, Some(rustix::process::getegid().as_raw()))?;
            // Services of other accounts may need to pass through as well.
            if mode & 0o001 == 0 {
                fs::set_permissions(&self.path, fs::Permissions::from_mode(mode & !0o010))?;
            }
        }
        Ok(())
    }

    /// Returns a service's own writable directory.
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.path.join("data").join(name)
    }

    /// Returns the paths in a service's snapshots: those of its policy, or else its own directory.
    pub fn kept_paths(&self, policy: &SnapshotPolicy, name: &str) -> Vec<PathBuf> {
        match policy.paths() {
            [] => vec![self.data_dir(name)],
            paths => paths.to_vec(),
        }
    }

    /// Creates a service's own directory. If another user owns it, that user can pass through the
    /// directories above it, but cannot list them. An empty directory of another account is created
    /// anew; see [`StateDir::refuse_foreign_data`] for the others.
    pub fn create_data_dir(&self, name: &str, owner: Option<&sys::User>) -> io::Result<()> {
        let dir = self.data_dir(name);
        #[cfg(unix)]
        let is_foreign = data_owner(&dir, owner).is_ok_and(|other| other.is_some());
        #[cfg(windows)]
        let is_foreign = false;
        // `remove_dir` removes empty directories only.
        let stays = is_foreign && fs::remove_dir(&dir).is_err();
        create_private_dir(&dir)?;
        let Some(owner) = owner else { return Ok(()) };
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
            // `data` and STATE; the state of an installed service is three levels deeper.
            let count = match installed_place(&self.path) {
                Some(_) => 5,
                None => 2,
            };
            const SEARCH: u32 = 0o011;
            for above in dir.ancestors().skip(1).take(count) {
                let mode = fs::metadata(above)?.mode();
                // The sandbox of an installed service may not change a mode that `install` has set.
                if mode & SEARCH != SEARCH {
                    let mode = fs::Permissions::from_mode(mode | SEARCH);
                    fs::set_permissions(above, mode)?;
                }
            }
        }
        if stays { Ok(()) } else { owner.give(&dir) }
    }

    /// Refuses a data directory that belongs to another account than the service runs as. The
    /// service would follow links left by that account with its own rights, and could read what
    /// that account kept private.
    #[cfg(unix)]
    pub fn refuse_foreign_data(
        &self,
        name: &str,
        owner: Option<&sys::User>,
    ) -> Result<(), ForeignData> {
        let dir = self.data_dir(name);
        match data_owner(&dir, owner) {
            Ok(None) => Ok(()),
            Ok(Some(uid)) => Err(ForeignData::Foreign {
                dir,
                owner: trust::user(uid),
                account: trust::user(owner.map_or_else(sys::current_uid, sys::User::uid)),
            }),
            Err(error) => Err(ForeignData::Unknown(dir, error)),
        }
    }

    /// Refuses a state directory whose location keeps an account from its data directory. STATE and
    /// the directories in it let the account through; the directories above may not.
    #[cfg(unix)]
    pub fn refuse_closed(&self, name: &str, owner: Option<&sys::User>) -> Result<(), ClosedData> {
        let Some(owner) = owner else { return Ok(()) };
        let top = self.top();
        let above = fs::canonicalize(top).ok();
        let above = above.as_deref().unwrap_or(top).parent();
        let obstacle = above.and_then(|dir| rights::obstacle(Some(owner), dir, rights::EXECUTE));
        match obstacle {
            None => Ok(()),
            Some((place, mode)) => Err(ClosedData {
                account: owner.name.to_string_lossy().into_owned(),
                dir: self.data_dir(name),
                place,
                mode,
            }),
        }
    }

    /// Access does not depend on modes on Windows.
    #[cfg(windows)]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "as on Unix")]
    pub fn refuse_closed(&self, _name: &str, _owner: Option<&sys::User>) -> Result<(), ClosedData> {
        Ok(())
    }

    /// Returns the outer state directory if this one belongs to an installed service, or else this
    /// one.
    #[cfg(unix)]
    fn top(&self) -> &Path {
        let installed = installed_place(&self.path).and_then(Path::parent);
        installed.and_then(Path::parent).unwrap_or(&self.path)
    }

    /// Access does not depend on the owner on Windows.
    #[cfg(windows)]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "as on Unix")]
    pub fn refuse_foreign_data(
        &self,
        _name: &str,
        _owner: Option<&sys::User>,
    ) -> Result<(), ForeignData> {
        Ok(())
    }

    /// Returns the key with which this installation hides values that must stay distinguishable.
    /// Creates the key if it does not exist.
    pub fn redaction_key(&self) -> Result<RedactionKey, Failure> {
        let path = self.path.join("redaction.key");
        let key = read_or_make_key(&path);
        key.map(RedactionKey::new).map_err(|error| {
            let message = format!("cannot read or create the key {}: {error}", path.display());
            Failure::new(Code::CannotWrite, message)
        })
    }

    /// Returns the path of the ledger, from which a successor continues.
    pub fn ledger_path(&self) -> PathBuf {
        self.path.join("ledger")
    }

    /// Returns the path of the file that reserves disk space for the next ledger, in case the disk
    /// is full.
    pub fn spare_ledger_path(&self) -> PathBuf {
        self.path.join("ledger.spare")
    }

    /// Returns the path of the last report of a host whose service is halted (`halted.rs`).
    pub(crate) fn halted_path(&self) -> PathBuf {
        self.path.join("halted.json")
    }

    /// Returns the path of the mark that the service of a host ended cleanly (`completed.rs`).
    pub(crate) fn completed_path(&self) -> PathBuf {
        self.path.join("completed")
    }

    /// Returns the path of the cause of a failed start of a host (`start_failure.rs`).
    pub(crate) fn start_failure_path(&self) -> PathBuf {
        self.path.join("start-failure.json")
    }

    /// Returns the directory of definitions changed by updates.
    pub fn updated_dir(&self) -> PathBuf {
        self.path.join("updated")
    }

    /// Returns the path of the definition of a service that was changed by an update.
    pub fn updated_path(&self, name: &str) -> PathBuf {
        self.updated_dir().join(format!("{name}.json"))
    }

    /// Returns the path of the copy of the manifest, by the name of its format.
    pub fn manifest_path(&self, format: &str) -> PathBuf {
        self.path.join(format!("manifest.{format}"))
    }

    /// Creates the directory, readable by its owner only, if it does not exist. Removes the read
    /// permissions of others from an existing one.
    ///
    /// # Errors
    /// If another account can change the directory, or replace it with another one.
    pub fn prepare(&self) -> Result<(), Failure> {
        self.refuse_exposed()?;
        create_state_dir(&self.path).map_err(|error| self.cannot_write("create", &error))?;
        self.refuse_exposed()?;
        self.refuse_foreign()?;
        #[cfg(unix)]
        self.refuse_planted()?;
        Ok(())
    }

    fn cannot_write(&self, verb: &str, error: &io::Error) -> Failure {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            _ => Code::CannotWrite,
        };
        let message = format!(
            "cannot {verb} state directory {}: {error}",
            self.path.display()
        );
        let hint = disk_hint(error.kind());
        Failure::new(code, message)
            .hint(hint.unwrap_or("choose a directory that you can write to: --state-dir DIR"))
    }

    /// Refuses a directory that another account can change, or replace with another one.
    #[cfg(unix)]
    pub fn refuse_exposed(&self) -> Result<(), Failure> {
        let exposure = trust::exposure(&self.path);
        let exposure = exposure.map_err(|error| self.cannot_write("read", &error))?;
        let Some(exposure) = exposure else {
            return Ok(());
        };
        let message = format!("state directory {}: {exposure}", self.path.display());
        let cure = match exposure.foreign_owner() {
            Some(owner) => mainstay_sys::access::run_as(&owner),
            None => exposure.cure(),
        };
        let hint = format!("{cure}; or choose another directory: --state-dir DIR");
        Err(Failure::new(Code::PermissionDenied, message).hint(hint))
    }

    /// Access control lists are checked together with the directory itself.
    #[cfg(windows)]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "as on Unix")]
    pub fn refuse_exposed(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Refuses a directory of another account, and removes the read permissions of others from our
    /// own.
    #[cfg(unix)]
    fn refuse_foreign(&self) -> Result<(), Failure> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
        let cannot = |error: io::Error| self.cannot_write("open", &error);
        let dir = File::open(&self.path).map_err(cannot)?;
        let found = dir.metadata().map_err(cannot)?;
        let mode = found.mode() & 0o7777;
        if found.uid() != rustix::process::geteuid().as_raw() {
            let place = self.path.display();
            let owner = trust::user(found.uid());
            let message = format!("state directory {place} belongs to {owner} (mode {mode:04o})");
            let hint = format!(
                "{}; or choose another directory: --state-dir DIR",
                mainstay_sys::access::run_as(&owner)
            );
            return Err(Failure::new(Code::PermissionDenied, message).hint(hint));
        }
        // Services of other accounts pass through it to their own directories.
        const SEEN: u32 = 0o044;
        if mode & SEEN != 0 {
            let mode = PermissionsExt::from_mode(mode & !SEEN);
            dir.set_permissions(mode).map_err(cannot)?;
        }
        Ok(())
    }

    /// Refuses entries that another account left in the directory while it could write there:
    /// links, and directories that it still owns.
    #[cfg(unix)]
    fn refuse_planted(&self) -> Result<(), Failure> {
        let cannot = |error: io::Error| self.cannot_write("read", &error);
        // The other directories contain entries that belong to services, such as `data/NAME`.
        let dirs = [
            self.path.clone(),
            self.logs_dir(),
            self.events_dir(),
            self.snapshots_dir(),
        ];
        for dir in dirs {
            let entries = match fs::read_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(cannot)?,
            };
            for entry in entries {
                let name = entry.map_err(cannot)?.file_name();
                // Lock files get their modes repaired when they are opened.
                let text = name.to_string_lossy();
                if text.starts_with("lock") || text.ends_with(".lock") {
                    continue;
                }
                let Some(exposure) = trust::exposure_in(&dir, &name).map_err(cannot)? else {
                    continue;
                };
                let message = format!("state directory {}: {exposure}", self.path.display());
                let hint = format!(
                    "check and remove {}, or choose another directory: --state-dir DIR",
                    dir.join(name).display()
                );
                return Err(Failure::new(Code::PermissionDenied, message).hint(hint));
            }
        }
        Ok(())
    }

    #[cfg(windows)]
    fn refuse_foreign(&self) -> Result<(), Failure> {
        let exposure = sys::acl_exposure(&self.path);
        let Some(exposure) = exposure.map_err(|error| self.cannot_write("read", &error))? else {
            return Ok(());
        };
        let message = format!("state directory {}: {exposure}", self.path.display());
        let failure = Failure::new(Code::PermissionDenied, message);
        Err(failure.hint("choose a directory of your own: --state-dir DIR"))
    }
}

/// Returns the account that owns a data directory, if it is neither `owner` nor, without an owner,
/// this process's account. A process without root privileges cannot change the owner, so it gets
/// `None`.
#[cfg(unix)]
fn data_owner(dir: &Path, owner: Option<&sys::User>) -> io::Result<Option<u32>> {
    use std::os::unix::fs::MetadataExt as _;
    if !sys::is_privileged() {
        return Ok(None);
    }
    let uid = fs::symlink_metadata(dir)?.uid();
    let wanted = owner.map_or_else(sys::current_uid, sys::User::uid);
    Ok((uid != wanted).then_some(uid))
}

/// Returns the path of the registry for a directory of installed services. The registry is beside
/// that directory; on Windows it is inside, because only administrators can access that directory.
pub fn registry_path(installed_dir: &Path) -> PathBuf {
    let dir = if cfg!(windows) {
        installed_dir
    } else {
        installed_dir.parent().unwrap_or(installed_dir)
    };
    dir.join("registry.db")
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
    // Written atomically: with a lost key, equal values are hidden as different ones.
    let unfinished_path = path.with_extension("tmp");
    let mut file = create_anew(&unfinished_path)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(unfinished_path, path)?;
    Ok(key)
}

/// Creates a state directory, readable by its owner only. Missing parent directories are created
/// with the usual mode, open to everyone: service accounts must pass through them, and images must
/// boot.
pub fn create_state_dir(path: &Path) -> io::Result<()> {
    let missing = path.ancestors().skip(1).take_while(|dir| !dir.exists());
    let missing: Vec<&Path> = missing.filter(|dir| !dir.as_os_str().is_empty()).collect();
    for dir in missing.into_iter().rev() {
        match create_open_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => created?,
        }
    }
    create_private_dir(path)
}

#[cfg(unix)]
fn create_open_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    fs::DirBuilder::new().mode(0o755).create(path)?;
    // A strict umask applies to the files of root, not to directories of the system.
    if sys::is_privileged() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
    } else {
        Ok(())
    }
}

#[cfg(windows)]
fn create_open_dir(path: &Path) -> io::Result<()> {
    fs::create_dir(path)
}

/// Returns the directory for system-wide state: as FHS 3.0 defines it, or as Apple and Microsoft do
/// on their systems.
fn system_place() -> Option<PathBuf> {
    let place = match () {
        () if cfg!(windows) => variable("ProgramData")?,
        () if cfg!(target_os = "macos") => PathBuf::from("/Library/Application Support"),
        () => PathBuf::from("/var/lib"),
    };
    Some(place.join("mainstay"))
}

/// Returns the directory for the state of this user: as the XDG base directories define it on Unix,
/// or as Apple and Microsoft do on their systems.
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
    use mainstay_sys::private::write_private;

    use super::*;

    /// The owner of an existing file of that name still has it open.
    #[test]
    fn what_somebody_left_does_not_become_ours() {
        let dir = mainstay_testkit::Sandbox::new();
        let path = dir.path().join("manifest.toml");
        let left = dir.path().join("manifest.toml.new");
        let theirs = File::create(&left).unwrap();
        let written = write_private(&path, b"ours");
        (&theirs).write_all(b"theirs").unwrap();
        match written {
            Ok(_) => assert_eq!(fs::read(&path).unwrap(), b"ours"),
            // Not every Windows version frees the name of an open file.
            Err(error) => assert!(cfg!(windows) && !path.exists(), "{error}"),
        }
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
