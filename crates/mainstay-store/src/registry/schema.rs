//! The database schema, and the migration of files written by older versions.

use std::path::Path;
use std::time::{Duration, Instant};

use mainstay_core::failure::{Code, Failure};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::failure::{HINT, cannot, database};

/// The `application_id` of a registry file: `MSty`.
const APPLICATION: i32 = 0x4d53_7479;
/// The migration to each version of the schema (`user_version`). A released migration never
/// changes. For every version, `tests/fixtures` contains an old file that must still open
/// (`cargo xtask registry-fixture`).
const MIGRATIONS: [&str; 2] = [
    "
CREATE TABLE service (
    name TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    target INTEGER,
    why TEXT,
    owner_token TEXT,
    owner_pid INTEGER,
    owner_since INTEGER
) STRICT;
CREATE TABLE definition (
    name TEXT NOT NULL REFERENCES service (name) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    etag TEXT NOT NULL,
    manifest TEXT NOT NULL,
    format TEXT NOT NULL,
    base_dir TEXT NOT NULL,
    manager TEXT NOT NULL,
    mode TEXT NOT NULL,
    user INTEGER NOT NULL,
    sandbox INTEGER NOT NULL,
    program TEXT,
    PRIMARY KEY (name, version)
) STRICT;
CREATE TABLE history (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL REFERENCES service (name) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    event TEXT NOT NULL,
    version INTEGER NOT NULL,
    etag TEXT NOT NULL,
    detail TEXT
) STRICT;
CREATE INDEX history_of_service ON history (name, number);
",
    "
ALTER TABLE history ADD COLUMN restored INTEGER;
UPDATE history SET restored = CAST(substr(detail, 17) AS INTEGER), detail = NULL
    WHERE event = 'updated' AND detail LIKE 'back to version %';
",
];

/// Prepares a registry file or an empty file for use. Nothing is written to any other file.
/// `timeout` limits the wait for other processes, here and in later use of the connection.
pub(super) fn prepare(
    connection: &mut Connection,
    path: &Path,
    timeout: Duration,
) -> Result<(), Failure> {
    let failed = |error| database("open", path, &error);
    connection.busy_timeout(timeout).map_err(failed)?;
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    let look = connection.transaction().map_err(failed)?;
    let found = version(&look, path)?;
    drop(look);
    if found > known {
        let what = format!(
            "it was written by a newer version of mainstay (schema {found}, supported: {known})"
        );
        return Err(
            cannot(Code::Failed, "open", path, &what).hint("use the newer version of mainstay")
        );
    }
    keep_a_log(connection, timeout).map_err(failed)?;
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
        .map_err(failed)?;
    if found == known {
        return Ok(());
    }
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed)?;
    // Another process may have migrated the file in the meantime.
    let found = version(&transaction, path)?;
    for step in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(step).map_err(failed)?;
    }
    transaction
        .pragma_update(None, "application_id", APPLICATION)
        .and_then(|()| transaction.pragma_update(None, "user_version", known))
        .and_then(|()| transaction.commit())
        .map_err(failed)
}

/// Returns the schema version, 0 for an empty file. All queries run in one transaction, because
/// another process may be creating the file.
fn version(connection: &Transaction<'_>, path: &Path) -> Result<i32, Failure> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i32>(0));
    let failed = |error| database("open", path, &error);
    let application = number("PRAGMA application_id").map_err(failed)?;
    let version = number("PRAGMA user_version").map_err(failed)?;
    let tables = number("SELECT count(*) FROM sqlite_schema").map_err(failed)?;
    match (application, version, tables) {
        (APPLICATION, 1.., _) | (0, 0, 0) => Ok(version),
        _ => {
            let what = "it is a database of another program";
            Err(cannot(Code::Failed, "open", path, &what).hint(HINT))
        }
    }
}

/// Enables write-ahead logging, so that readers and a writer do not block each other. The mode is
/// stored in the file.
fn keep_a_log(connection: &Connection, timeout: Duration) -> rusqlite::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| {
            row.get::<_, String>(0)
        });
        match mode {
            // SQLite does not wait if two processes create the same file at once.
            Err(error)
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
                    && Instant::now() < deadline =>
            {
                std::thread::yield_now();
            }
            done => return done.map(drop),
        }
    }
}
