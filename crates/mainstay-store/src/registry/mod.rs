//! The registry of service definitions: an SQLite database at `STATE/registry.db`. Only
//! administrators can read it, because manifests may contain secrets.
//!
//! Several processes use the registry at once. A change is two short transactions with the actual
//! work between them: [`Registry::begin`] marks every affected service as owned by this process,
//! and the returned [`Work`] ends with a commit, a rollback or a deletion. The next process to open
//! the registry rolls back the changes of owners that have died (`owner.rs`). The permitted state
//! transitions are defined in the core (`mainstay_core::registry`).

mod failure;
mod owner;
mod program;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod who;
mod work;

use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mainstay_core::failure::{Code, Failure};
use mainstay_core::registry as core;
use mainstay_core::registry::{
    Change, Definition, Entry, Etag, Event, Expected, Refusal, Stored, Version,
};
use mainstay_core::spec::ServiceName;
use mainstay_sys::access::Closed;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use self::failure::{cannot, database};
use self::owner::Holder;
use self::rows::{
    DEFINITION, broken, define, definition, immediate, latest, note, now, number, purge, read,
    write,
};
use crate::state_dir;

pub use self::program::Program;
pub use self::work::{Remains, Work};

/// The longest wait for a registry that another process has locked. Locks last for milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait once a lock has outlasted [`LOCK_TIMEOUT`]: one command opens the registry several
/// times.
const SHORT_LOCK_TIMEOUT: Duration = Duration::from_millis(100);
/// The polling interval for a lock that the system cannot wait for.
const LOCK_INTERVAL: Duration = Duration::from_millis(10);
/// Set if the last attempt to open the registry timed out on a lock.
static IS_LOCKED: AtomicBool = AtomicBool::new(false);

/// An open registry.
#[derive(Debug)]
pub struct Registry {
    connection: Connection,
    path: PathBuf,
    /// Dropped after the connection. Until then no process removes the file
    /// ([`Registry::remove_empty`]).
    _place: Option<std::fs::File>,
}

/// The registry's entry for a service name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// A random ID of 32 hexadecimal digits. It is stable for as long as the entry exists.
    pub id: String,
    /// The states of the definition: its versions, and a change in progress.
    pub life: Stored,
    /// The ETag of the current version of `life`.
    pub etag: Etag,
    /// The current definition.
    pub definition: Definition,
    /// The program as registered, if known.
    pub program: Option<Program>,
}

/// A requested change to one service.
#[derive(Clone, Debug)]
pub struct ChangeRequest {
    /// The service.
    pub name: ServiceName,
    /// The state in which the entry must be.
    pub expected: Expected,
    /// The new definition; `None` to delete the service.
    pub definition: Option<Definition>,
}

/// An error from starting a change.
#[derive(Debug)]
pub enum Error {
    /// The current state of the service does not permit the change.
    Refused(Refusal),
    /// The registry cannot be used.
    Failed(Failure),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let refusal = match error {
            Error::Failed(failure) => return failure,
            Error::Refused(refusal) => refusal,
        };
        let message = refusal.to_string();
        match refusal {
            Refusal::NotFound { .. } => {
                Self::new(Code::Unknown, message).hint("list the services: mainstay list")
            }
            Refusal::Conflict { name, .. } | Refusal::Exists { name, .. } => {
                let hint = format!("check its version: mainstay history {name}");
                Self::new(Code::Busy, message).hint(hint)
            }
            _ => Self::new(Code::Busy, message).hint("try again"),
        }
    }
}

impl Registry {
    /// Opens the registry, creates it if it does not exist, and rolls back the changes of dead
    /// owners. Blocks while other processes write, which takes milliseconds.
    ///
    /// # Errors
    /// If the registry cannot be written, is damaged, or belongs to another program. The
    /// file is left unchanged in that case.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            let code = match error.kind() {
                std::io::ErrorKind::PermissionDenied => Code::PermissionDenied,
                _ => Code::CannotWrite,
            };
            cannot(code, "create", path, &error).because_of(&error)
        };
        if let Some(dir) = path.parent() {
            state_dir::create_state_dir(dir).map_err(failed)?;
        }
        let mut options = std::fs::File::options();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            // SQLite creates its auxiliary files with the same mode. Without `O_NONBLOCK`, opening
            // a FIFO would wait for a reader.
            options.mode(0o600).custom_flags(libc::O_NONBLOCK);
        }
        loop {
            refuse_irregular(path).map_err(failed)?;
            options.open(path).map_err(failed)?;
            match Self::open_file(path) {
                // Another process has just removed it after purging the last service.
                Err(_) if !path.exists() => {
                    if let Some(dir) = path.parent() {
                        state_dir::create_state_dir(dir).map_err(failed)?;
                    }
                }
                opened => return opened,
            }
        }
    }

    /// Opens an existing registry; `None` if there is none.
    pub fn find(path: &Path) -> Result<Option<Self>, Failure> {
        if let Some(closed) = Closed::at(path) {
            return Err(closed.failure("cannot open the registry"));
        }
        if path.exists() {
            Self::open_file(path).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Returns whether a change of this service is unfinished. Works with a registry that may be
    /// read-only; `None` if the answer cannot be determined.
    pub fn is_half_done(path: &Path, name: &str) -> Option<bool> {
        // A write-ahead log beside the database may contain changes, and reading it requires
        // creating files.
        let log = path.with_extension("db-wal");
        if std::fs::metadata(log).is_ok_and(|log| log.len() > 0) {
            return None;
        }
        let mut uri = String::from("file:");
        for byte in path.to_str()?.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                    uri.push(byte.into());
                }
                other => uri.push_str(&format!("%{other:02x}")),
            }
        }
        refuse_irregular(path).ok()?;
        uri.push_str("?immutable=1");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(uri, flags).ok()?;
        let found = read(&connection, name).ok()?;
        Some(found.is_some_and(|it| !matches!(it.life, Stored::Active(_) | Stored::Deleted(_))))
    }

    fn open_file(path: &Path) -> Result<Self, Failure> {
        let timeout = if IS_LOCKED.load(Ordering::Relaxed) {
            SHORT_LOCK_TIMEOUT
        } else {
            LOCK_TIMEOUT
        };
        let opened = Self::open_within(path, timeout);
        let is_locked = matches!(&opened, Err(failure) if failure.code() == Code::Busy);
        IS_LOCKED.store(is_locked, Ordering::Relaxed);
        opened
    }

    fn open_within(path: &Path, timeout: Duration) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| cannot(Code::CannotWrite, "open", path, &error);
        refuse_irregular(path).map_err(failed)?;
        let place = place(path).map_err(failed)?;
        if let Some(place) = &place {
            let deadline = Instant::now() + timeout;
            while let Err(error) = place.try_lock_shared() {
                match error {
                    TryLockError::Error(error) => return Err(failed(error)),
                    TryLockError::WouldBlock if Instant::now() < deadline => {
                        std::thread::sleep(LOCK_INTERVAL);
                    }
                    TryLockError::WouldBlock => {
                        let why = "another process has locked its directory";
                        return Err(cannot(Code::Busy, "open", path, &why).hint("try again"));
                    }
                }
            }
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)
            .map_err(|error| database("open", path, &error))?;
        schema::prepare(&mut connection, path, timeout)?;
        let mut registry = Self {
            connection,
            path: path.to_owned(),
            _place: place,
        };
        registry.repair_stale()?;
        Ok(registry)
    }

    /// Removes a registry without entries, and its parent directories if they are empty. This is
    /// best effort: a registry that another process has open is kept.
    pub fn remove_empty(path: &Path) {
        let Ok(Some(place)) = place(path) else { return };
        if place.try_lock().is_err() || refuse_irregular(path).is_err() {
            return;
        }
        let is_empty = || {
            let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            let count = "SELECT count(*) FROM service";
            connection.query_row(count, [], |row| Ok(row.get::<_, i64>(0)? == 0))
        };
        if is_empty().unwrap_or(false) && std::fs::remove_file(path).is_ok() {
            let dir = path.parent().unwrap_or(path);
            for dir in [&*dir.join("installed"), dir] {
                // The directory may contain other files.
                let _ = std::fs::remove_dir(dir);
            }
        }
    }

    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Finishes the changes that dead owners left behind, unless others keep the database locked.
    fn repair_stale(&mut self) -> Result<(), Failure> {
        let dir = self.dir().to_owned();
        let tokens = owner::tokens(&dir);
        let known = |connection: &Connection| {
            let mut query = connection
                .prepare("SELECT name FROM service WHERE owner_token IS NOT NULL ORDER BY name")?;
            let names = query.query_map([], |row| row.get::<_, String>(0))?;
            names.collect::<rusqlite::Result<Vec<_>>>()
        };
        let reading = |error| database("read", &self.path, &error);
        if tokens.is_empty() && known(&self.connection).map_err(reading)?.is_empty() {
            return Ok(());
        }
        let path = self.path.clone();
        let failed = |error| database("repair", &path, &error);
        let transaction = match immediate(&mut self.connection) {
            // Others write all the time; who opens it next repairs what is stale.
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                return Ok(());
            }
            begun => begun.map_err(failed)?,
        };
        let mut living = Vec::new();
        for name in known(&transaction).map_err(failed)? {
            let Some(found) = read(&transaction, &name).map_err(failed)? else {
                continue;
            };
            match found.life.owner() {
                Some(owner) if owner::lives(&dir, owner) => living.push(owner.token.clone()),
                _ => {
                    let target = found.life.target();
                    let (life, happened) = found.life.repair_stale();
                    write(&transaction, &name, &life).map_err(failed)?;
                    if let Some((event, why)) = happened {
                        let version = target.unwrap_or(life.version());
                        let why = (None, Some(&*why));
                        note(&transaction, &name, event, version, why).map_err(failed)?;
                    }
                }
            }
        }
        // Owner files are only created within a write transaction, so no new one can appear here.
        for token in owner::tokens(&dir) {
            if !living.contains(&token) {
                owner::sweep(&dir, &token);
            }
        }
        transaction.commit().map_err(failed)
    }

    /// Returns the entry for `name`, including that of a deleted service.
    pub fn get(&self, name: &str) -> Result<Option<Registered>, Failure> {
        read(&self.connection, name).map_err(|error| database("read", &self.path, &error))
    }

    /// Returns the given version of a definition.
    pub fn definition(&self, name: &str, version: Version) -> Result<Option<Definition>, Failure> {
        let sql = format!("SELECT {DEFINITION} FROM definition WHERE name = ?1 AND version = ?2");
        let found = self
            .connection
            .query_row(&sql, params![name, number(version.0)], |row| {
                definition(row, 0)
            })
            .optional();
        found.map_err(|error| database("read", &self.path, &error))
    }

    /// Returns the versions of `name` whose definitions are stored, in ascending order.
    pub fn versions(&self, name: &str) -> Result<Vec<Version>, Failure> {
        let read = || {
            let mut query = self
                .connection
                .prepare("SELECT version FROM definition WHERE name = ?1 ORDER BY version")?;
            let versions = query.query_map([name], |row| {
                Ok(Version(row.get::<_, i64>(0)?.cast_unsigned()))
            })?;
            versions.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| database("read", &self.path, &error))
    }

    /// Returns the latest kept version whose definition satisfies `is_like`.
    pub fn version_like(
        &self,
        name: &str,
        is_like: impl Fn(&Definition) -> bool,
    ) -> Result<Option<(Version, Definition)>, Failure> {
        let sql = format!(
            "SELECT version, {DEFINITION} FROM definition WHERE name = ?1 ORDER BY version DESC"
        );
        let read = || {
            let mut query = self.connection.prepare(&sql)?;
            let kept = query.query_map([name], |row| {
                let version = Version(row.get::<_, i64>(0)?.cast_unsigned());
                Ok((version, definition(row, 1)?))
            })?;
            let is_found = |kept: &rusqlite::Result<(_, Definition)>| {
                kept.as_ref()
                    .map_or(true, |(_, definition)| is_like(definition))
            };
            kept.into_iter().find(is_found).transpose()
        };
        read().map_err(|error| database("read", &self.path, &error))
    }

    /// Returns all names that were ever installed and have not been purged.
    pub fn names(&self) -> Result<Vec<String>, Failure> {
        let read = || {
            let mut query = self
                .connection
                .prepare("SELECT name FROM service ORDER BY name")?;
            let names = query.query_map([], |row| row.get(0))?;
            names.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| database("read", &self.path, &error))
    }

    /// Returns the history of `name`, oldest entry first.
    pub fn history(&self, name: &str) -> Result<Vec<Entry>, Failure> {
        let read = || {
            let mut query = self.connection.prepare(
                "SELECT at, who, event, version, etag, detail, restored FROM history WHERE name = ?1 ORDER BY number",
            )?;
            let entries = query.query_map([name], |row| {
                let who: String = row.get(1)?;
                let event: String = row.get(2)?;
                let event = Event::ALL.into_iter().find(|it| it.as_str() == event);
                Ok(Entry {
                    at: row.get::<_, i64>(0)?.cast_unsigned(),
                    who: serde_json::from_str(&who).map_err(|_| broken(1))?,
                    event: event.ok_or_else(|| broken(2))?,
                    version: Version(row.get::<_, i64>(3)?.cast_unsigned()),
                    etag: row.get(4)?,
                    detail: row.get(5)?,
                    restored: row
                        .get::<_, Option<i64>>(6)?
                        .map(|number| Version(number.cast_unsigned())),
                })
            })?;
            entries.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| database("read", &self.path, &error))
    }

    /// Starts the requested changes, all of them or none.
    ///
    /// # Errors
    /// `Refused` if a service is in another state than expected, or another process is
    /// changing it.
    pub fn begin(mut self, requests: &[ChangeRequest]) -> Result<Work, Error> {
        let path = self.path.clone();
        let failed = |error| Error::Failed(database("write to", &path, &error));
        let dir = self.dir().to_owned();
        let transaction = immediate(&mut self.connection).map_err(failed)?;
        let holder = Holder::new(&dir, random()?, now())
            .map_err(|error| cannot(Code::CannotWrite, "write next to", &path, &error))?;
        let mut versions = Vec::with_capacity(requests.len());
        for request in requests {
            let name = request.name.as_str();
            let found = read(&transaction, name).map_err(failed)?;
            let change = match &request.definition {
                None => Change::Delete,
                Some(definition) => Change::Define {
                    is_another: found.as_ref().is_none_or(|it| it.etag != definition.etag()),
                },
            };
            let stored = found.as_ref().map(|it| it.life.clone());
            let owner = holder.owner.clone();
            let stored = (stored, latest(&transaction, name).map_err(failed)?);
            let begun = core::begin(&request.name, stored, request.expected, change, owner);
            let life = Stored::from(begun.map_err(Error::Refused)?);
            let new = match &life {
                Stored::Pending(_) => Some(life.version()),
                life => life.target(),
            };
            if found.is_none() {
                let sql =
                    "INSERT INTO service (name, id, state, version) VALUES (?1, ?2, 'pending', 1)";
                transaction
                    .execute(sql, params![name, random()?])
                    .map_err(failed)?;
            }
            write(&transaction, name, &life).map_err(failed)?;
            versions.push(life.target().unwrap_or(life.version()));
            if let (Some(version), Some(definition)) = (new, &request.definition) {
                define(&transaction, name, version, definition).map_err(failed)?;
            }
        }
        transaction.commit().map_err(failed)?;
        Ok(Work {
            registry: self,
            names: requests
                .iter()
                .map(|request| request.name.clone())
                .collect(),
            versions,
            holder,
        })
    }

    /// Removes every record of a deleted service.
    pub fn forget(&mut self, name: &ServiceName) -> Result<(), Error> {
        let path = self.path.clone();
        let failed = |error| Error::Failed(database("write to", &path, &error));
        let transaction = immediate(&mut self.connection).map_err(failed)?;
        let name = || name.clone();
        let found = read(&transaction, name().as_str()).map_err(failed)?;
        let refusal = match found.map(|it| it.life) {
            None => Refusal::NotFound { name: name() },
            Some(Stored::Deleted(_)) => {
                purge(&transaction, name().as_str()).map_err(failed)?;
                return transaction.commit().map_err(failed);
            }
            Some(life) => match life.owner() {
                Some(owner) => Refusal::Busy {
                    name: name(),
                    owner: owner.clone(),
                },
                None => Refusal::Exists {
                    name: name(),
                    actual: life.version(),
                },
            },
        };
        Err(Error::Refused(refusal))
    }
}

/// Rejects paths that SQLite would block on or misinterpret. A missing file is accepted.
fn refuse_irregular(path: &Path) -> std::io::Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            let why = "it is not a regular file";
            Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why))
        }
        _ => Ok(()),
    }
}

/// Opens the directory of the registry. It serves as the lock while the file is in use, so that no
/// lock file is left behind.
#[cfg(unix)]
fn place(path: &Path) -> std::io::Result<Option<std::fs::File>> {
    path.parent().map(std::fs::File::open).transpose()
}

/// Windows does not remove files that are open, and does not lock directories.
#[cfg(windows)]
fn place(_path: &Path) -> std::io::Result<Option<std::fs::File>> {
    Ok(None)
}

/// Returns 128 random bits as hexadecimal digits, unique across processes.
fn random() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(
            Code::MissingPart,
            format!("cannot get random numbers: {error}"),
        )
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
