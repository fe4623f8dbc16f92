//! The registry of service definitions: an SQLite database at `STATE/registry.db`. Only
//! administrators can read it, because manifests may contain secrets.
//!
//! Several processes use the registry at once. A change is two short transactions with the actual
//! work between them: [`Registry::begin`] marks every affected service as owned by this process,
//! and the returned [`Work`] ends with a commit, a rollback or a deletion. The next process to open
//! the registry rolls back the changes of owners that have died (`owner.rs`). The permitted state
//! transitions are defined in the core (`mainstay_core::registry`).

mod owner;
mod program;
mod schema;
#[cfg(test)]
mod tests;
mod who;

use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest::Format;
use mainstay_core::registry as core;
use mainstay_core::registry::{
    Change, Definition, Entry, Etag, Event, Expected, Owner, Refusal, Stored, Version,
};
use mainstay_core::spec::ServiceName;
use mainstay_sys::access::Closed;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, Transaction, params};

use self::owner::Holder;
pub use self::program::Program;
use crate::state_dir;

/// The number of definitions kept per service. The history is kept in full.
const KEPT_VERSIONS: u64 = 20;
/// The longest wait for a registry that another process has locked. Locks last for milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait once a lock has outlasted [`LOCK_TIMEOUT`]: one command opens the registry several
/// times.
const SHORT_LOCK_TIMEOUT: Duration = Duration::from_millis(100);
/// The polling interval for a lock that the system cannot wait for.
const LOCK_INTERVAL: Duration = Duration::from_millis(10);
/// Set if the last attempt to open the registry timed out on a lock.
static IS_LOCKED: AtomicBool = AtomicBool::new(false);
const HINT: &str = "move it away and install the services again; installed services keep running without it, and only the history is lost";

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

/// A change in progress. No other process can change these definitions while it exists. If it is
/// dropped without being ended, the next process to open the registry rolls it back.
#[derive(Debug)]
pub struct Work {
    registry: Registry,
    names: Vec<ServiceName>,
    versions: Vec<Version>,
    holder: Holder,
}

impl Registry {
    /// Opens the registry, creates it if it does not exist, and rolls back the changes of dead
    /// owners. Blocks while other processes write, which takes milliseconds.
    ///
    /// # Errors If the registry cannot be written, is damaged, or belongs to another program. The
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
                    settle(&transaction, &name, &life, target).map_err(failed)?;
                    if let Some((event, why)) = happened {
                        note(&transaction, &name, event, life.version(), Some(&why))
                            .map_err(failed)?;
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
                "SELECT at, who, event, version, etag, detail FROM history WHERE name = ?1 ORDER BY number",
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
                })
            })?;
            entries.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| database("read", &self.path, &error))
    }

    /// Starts the requested changes, all of them or none.
    ///
    /// # Errors `Refused` if a service is in another state than expected, or another process is
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

impl Work {
    /// Returns the token that identifies this process as the owner.
    pub fn token(&self) -> &str {
        &self.holder.owner.token
    }

    /// Returns the versions that will be current after the commit, in the order of the requests.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// Commits the change, with the given programs in the order of the requests. Returns the
    /// versions.
    ///
    /// # Errors If the registry cannot be written. The next process to open it then rolls the
    /// change back.
    pub fn commit(self, programs: &[Option<Program>]) -> Result<Vec<Version>, Failure> {
        self.commit_with(programs, None)
    }

    /// Commits like [`Work::commit`], and records `detail` in the history.
    pub fn commit_with(
        self,
        programs: &[Option<Program>],
        detail: Option<&str>,
    ) -> Result<Vec<Version>, Failure> {
        let mut programs = programs.iter();
        let mut versions = Vec::with_capacity(self.names.len());
        self.finish(|transaction, name, found| {
            let program = programs.next().cloned().flatten();
            let was_failed = found.life.why().is_some();
            let (life, event) = match found.life {
                Stored::Pending(life) => (life.activate(), Some(Event::Created)),
                Stored::Updating(life) => {
                    let is_refreshed = was_failed || program != found.program;
                    let event = match life.target() {
                        Some(_) => Some(Event::Updated),
                        None => is_refreshed.then_some(Event::Refreshed),
                    };
                    (life.commit(), event)
                }
                other => return Err(lost(&other)),
            };
            let version = life.version();
            versions.push(version);
            write(transaction, name, &Stored::Active(life))?;
            let json = program.map(|program| serde_json::to_string(&program).unwrap_or_default());
            let sql = "UPDATE definition SET program = ?3 WHERE name = ?1 AND version = ?2";
            transaction.execute(sql, params![name, number(version.0), json])?;
            let sql = "DELETE FROM definition WHERE name = ?1 AND version <= ?2";
            let last = version.0.saturating_sub(KEPT_VERSIONS);
            transaction.execute(sql, params![name, number(last)])?;
            match event {
                Some(event) => note(transaction, name, event, version, detail),
                None => Ok(()),
            }
        })?;
        Ok(versions)
    }

    /// Restores the previous definitions and records the reason.
    pub fn roll_back(self, why: &str) -> Result<(), Failure> {
        self.finish(|transaction, name, found| match found.life {
            Stored::Pending(life) => match life.abandon() {
                None => purge(transaction, name),
                Some(life) => {
                    let pending = Some(life.version().next());
                    settle(transaction, name, &Stored::Deleted(life), pending)
                }
            },
            Stored::Updating(life) => {
                let (version, target) = (life.version(), life.target());
                settle(transaction, name, &life.roll_back(), target)?;
                note(transaction, name, Event::RolledBack, version, Some(why))
            }
            other => Err(lost(&other)),
        })
    }

    /// Marks the services as deleted, or also removes their history if `is_purged`.
    pub fn delete(self, is_purged: bool) -> Result<(), Failure> {
        self.finish(|transaction, name, found| match found.life {
            _ if is_purged => purge(transaction, name),
            Stored::Updating(life) => {
                let (version, target) = (life.version(), life.target());
                settle(transaction, name, &Stored::Deleted(life.delete()), target)?;
                note(transaction, name, Event::Deleted, version, None)
            }
            other => Err(lost(&other)),
        })
    }

    /// Ends the change for all services in one transaction. The owner's lock is released last.
    fn finish(
        mut self,
        mut end: impl FnMut(&Transaction<'_>, &str, Registered) -> rusqlite::Result<()>,
    ) -> Result<(), Failure> {
        let path = self.registry.path.clone();
        let failed = |error| database("write to", &path, &error);
        let transaction = immediate(&mut self.registry.connection).map_err(failed)?;
        for name in &self.names {
            let found = read(&transaction, name.as_str()).map_err(failed)?;
            let found = found.filter(|it| it.life.owner() == Some(&self.holder.owner));
            let Some(found) = found else {
                let what = format!("another process took over {name} during the change");
                return Err(cannot(Code::Failed, "write to", &path, &what));
            };
            end(&transaction, name.as_str(), found).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }
}

const SERVICE: &str =
    "s.id, s.state, s.version, s.target, s.why, s.owner_token, s.owner_pid, s.owner_since";
const DEFINITION: &str = "manifest, format, base_dir, manager, mode, user, sandbox";

fn immediate(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
}

fn read(connection: &Connection, name: &str) -> rusqlite::Result<Option<Registered>> {
    let sql = format!(
        "SELECT {SERVICE}, d.etag, d.program, {DEFINITION} FROM service s JOIN definition d USING (name, version) WHERE name = ?1"
    );
    let mut query = connection.prepare(&sql)?;
    query.query_row([name], registered).optional()
}

fn registered(row: &Row<'_>) -> rusqlite::Result<Registered> {
    let version = |index| row.get::<_, Option<i64>>(index);
    let number = |index| row.get::<_, Option<i64>>(index);
    let owner = match row.get::<_, Option<String>>(5)? {
        None => None,
        Some(token) => Some(Owner {
            token,
            pid: u32::try_from(number(6)?.unwrap_or_default()).map_err(|_| broken(6))?,
            since: number(7)?.unwrap_or_default().cast_unsigned(),
        }),
    };
    let state: String = row.get(1)?;
    let target = version(3)?.map(|number| Version(number.cast_unsigned()));
    let held = Version(version(2)?.unwrap_or_default().cast_unsigned());
    let program: Option<String> = row.get(9)?;
    Ok(Registered {
        id: row.get(0)?,
        life: Stored::restore(&state, held, target, row.get(4)?, owner).ok_or_else(|| broken(1))?,
        etag: Etag::from(row.get::<_, String>(8)?),
        program: program.and_then(|json| serde_json::from_str(&json).ok()),
        definition: definition(row, 10)?,
    })
}

fn definition(row: &Row<'_>, first: usize) -> rusqlite::Result<Definition> {
    let format: String = row.get(first + 1)?;
    Ok(Definition {
        manifest: row.get(first)?,
        format: Format::from_extension(&format).ok_or_else(|| broken(first + 1))?,
        base_dir: row.get(first + 2)?,
        manager: row.get(first + 3)?,
        mode: row.get(first + 4)?,
        user: row.get(first + 5)?,
        sandbox: row.get(first + 6)?,
    })
}

/// Updates the state of an existing service.
fn write(transaction: &Transaction<'_>, name: &str, life: &Stored) -> rusqlite::Result<()> {
    let owner = life.owner();
    let sql = "UPDATE service SET state = ?2, version = ?3, target = ?4, why = ?5, owner_token = ?6, owner_pid = ?7, owner_since = ?8
        WHERE name = ?1";
    let changed = transaction.prepare(sql)?.execute(params![
        name,
        life.state(),
        number(life.version().0),
        life.target().map(|version| number(version.0)),
        life.why(),
        owner.map(|owner| &owner.token),
        owner.map(|owner| owner.pid),
        owner.map(|owner| number(owner.since)),
    ])?;
    match changed {
        1 => Ok(()),
        _ => Err(rusqlite::Error::QueryReturnedNoRows),
    }
}

/// Stores a state without an owner and deletes the definition that was not adopted.
fn settle(
    transaction: &Transaction<'_>,
    name: &str,
    life: &Stored,
    lost: Option<Version>,
) -> rusqlite::Result<()> {
    write(transaction, name, life)?;
    if let Some(version) = lost {
        let sql = "DELETE FROM definition WHERE name = ?1 AND version = ?2";
        transaction.execute(sql, params![name, number(version.0)])?;
    }
    Ok(())
}

fn define(
    transaction: &Transaction<'_>,
    name: &str,
    version: Version,
    definition: &Definition,
) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT OR REPLACE INTO definition (name, version, etag, {DEFINITION}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
    );
    transaction.prepare(&sql)?.execute(params![
        name,
        number(version.0),
        definition.etag().as_str(),
        definition.manifest,
        definition.format.name(),
        definition.base_dir,
        definition.manager,
        definition.mode,
        definition.user,
        definition.sandbox,
    ])?;
    Ok(())
}

/// Appends an entry to the history. The definition of the version must exist.
fn note(
    transaction: &Transaction<'_>,
    name: &str,
    event: Event,
    version: Version,
    detail: Option<&str>,
) -> rusqlite::Result<()> {
    let who = serde_json::to_string(&who::who()).unwrap_or_default();
    let sql = "INSERT INTO history (name, at, who, event, version, etag, detail)
        SELECT ?1, ?2, ?3, ?4, ?5, etag, ?6 FROM definition WHERE name = ?1 AND version = ?5";
    transaction.prepare(sql)?.execute(params![
        name,
        number(now()),
        who,
        event.as_str(),
        number(version.0),
        detail,
    ])?;
    Ok(())
}

/// Deletes the service with its definitions and history.
fn purge(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<()> {
    transaction
        .execute("DELETE FROM service WHERE name = ?1", [name])
        .map(drop)
}

/// Converts to SQLite's signed integers. Our values start at zero and never reach the limit.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns the current time in microseconds since 1970.
fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since_1970.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
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

/// The error for a column value that no version of Mainstay writes.
fn broken(column: usize) -> rusqlite::Error {
    let what = "an invalid value".into();
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what)
}

/// The error for a state that an owned definition cannot be in.
fn lost(life: &Stored) -> rusqlite::Error {
    let what = format!(
        "invalid state {} of a definition that is being changed",
        life.state()
    );
    rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, what.into())
}

fn cannot(code: Code, verb: &str, path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        code,
        format!("cannot {verb} the registry {}: {why}", path.display()),
    )
}

/// Converts a database error into a failure with a hint.
fn database(verb: &str, path: &Path, error: &rusqlite::Error) -> Failure {
    use rusqlite::ErrorCode;
    let why = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            let holder = holder(path).map_or_else(
                || "another process has it locked".to_owned(),
                |pid| format!("process {pid} has it locked"),
            );
            cannot(Code::Busy, verb, path, &why).hint(format!("{holder}: try again"))
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            cannot(Code::PermissionDenied, verb, path, &why)
        }
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure,
        ) => match disk_state(path) {
            Some(kind) => {
                let cause = std::io::Error::from(kind);
                cannot(Code::CannotWrite, verb, path, &cause.to_string()).because_of(&cause)
            }
            None => cannot(Code::CannotWrite, verb, path, &why).hint(
                "check that its disk is neither full nor read-only, and that you may write to it",
            ),
        },
        _ => cannot(Code::Failed, verb, path, &why).hint(HINT),
    }
}

/// Returns the reason why nothing can be written next to this file, if its disk is full or
/// read-only. SQLite reports neither by name.
#[cfg(unix)]
fn disk_state(path: &Path) -> Option<std::io::ErrorKind> {
    let found = rustix::fs::statvfs(path.parent()?).ok()?;
    let is_full = found.f_bavail == 0 || found.f_files > 0 && found.f_favail == 0;
    if found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        Some(std::io::ErrorKind::ReadOnlyFilesystem)
    } else {
        is_full.then_some(std::io::ErrorKind::StorageFull)
    }
}

/// Returns `None`: the errors of this system are specific.
#[cfg(windows)]
fn disk_state(_path: &Path) -> Option<std::io::ErrorKind> {
    None
}

/// Returns the process that has the database or its write-ahead log locked, if the system reports
/// it (proc_locks(5)).
#[cfg(target_os = "linux")]
fn holder(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let files = [path.to_owned(), path.with_extension("db-shm")];
    let files = files.iter().filter_map(|file| {
        let found = std::fs::metadata(file).ok()?;
        let (major, minor) = (
            rustix::fs::major(found.dev()),
            rustix::fs::minor(found.dev()),
        );
        Some(format!("{major:02x}:{minor:02x}:{}", found.ino()))
    });
    let files: Vec<String> = files.collect();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|lock| {
        let fields: Vec<&str> = lock.split_ascii_whitespace().collect();
        let [_, "POSIX", _, "WRITE", pid, file, ..] = *fields else {
            return None;
        };
        let pid = pid.parse().ok()?;
        let is_another = pid != 0 && pid != std::process::id();
        (is_another && files.iter().any(|it| it == file)).then_some(pid)
    })
}

#[cfg(not(target_os = "linux"))]
fn holder(_path: &Path) -> Option<u32> {
    None
}
