//! The rows of the database, as values of the core.

use std::time::SystemTime;

use mainstay_core::manifest::Format;
use mainstay_core::registry::{Definition, Etag, Event, Owner, Stored, Version};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::{Registered, who};

/// The number of definitions kept per service that were in effect. The history is kept in full.
const KEPT_VERSIONS: u32 = 20;
/// The number of rejected definitions kept per service.
const KEPT_REJECTED: u32 = 5;

const SERVICE: &str =
    "s.id, s.state, s.version, s.target, s.why, s.owner_token, s.owner_pid, s.owner_since";
pub(super) const DEFINITION: &str = "manifest, format, base_dir, manager, mode, user, sandbox";

pub(super) fn immediate(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
}

pub(super) fn read(connection: &Connection, name: &str) -> rusqlite::Result<Option<Registered>> {
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

pub(super) fn definition(row: &Row<'_>, first: usize) -> rusqlite::Result<Definition> {
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
pub(super) fn write(
    transaction: &Transaction<'_>,
    name: &str,
    life: &Stored,
) -> rusqlite::Result<()> {
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

/// Returns the latest version of a name, in effect or rejected; 0 if there is none.
pub(super) fn latest(connection: &Connection, name: &str) -> rusqlite::Result<Version> {
    let sql = "SELECT coalesce(max(version), 0) FROM definition WHERE name = ?1";
    connection.query_row(sql, [name], |row| {
        Ok(Version(row.get::<_, i64>(0)?.cast_unsigned()))
    })
}

/// Returns the version at which a name was deleted the last time.
pub(super) fn deleted(connection: &Connection, name: &str) -> rusqlite::Result<Option<Version>> {
    let sql = "SELECT version FROM history WHERE name = ?1 AND event = 'deleted' ORDER BY number DESC LIMIT 1";
    let version = connection.query_row(sql, [name], |row| row.get::<_, i64>(0));
    let version = version.optional()?;
    Ok(version.map(|version| Version(version.cast_unsigned())))
}

/// Deletes a definition that was not adopted.
pub(super) fn drop_definition(
    transaction: &Transaction<'_>,
    name: &str,
    version: Version,
) -> rusqlite::Result<()> {
    let sql = "DELETE FROM definition WHERE name = ?1 AND version = ?2";
    let deleted = transaction.execute(sql, params![name, number(version.0)]);
    deleted.map(drop)
}

pub(super) fn define(
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

/// Appends an entry to the history, and deletes the definitions that are not kept any more. The
/// definition of the version must exist.
pub(super) fn note(
    transaction: &Transaction<'_>,
    name: &str,
    event: Event,
    version: Version,
    (restored, detail): (Option<Version>, Option<&str>),
) -> rusqlite::Result<()> {
    let who = serde_json::to_string(&who::who()).unwrap_or_default();
    let sql = "INSERT INTO history (name, at, who, event, version, etag, detail, restored)
        SELECT ?1, ?2, ?3, ?4, ?5, etag, ?6, ?7 FROM definition WHERE name = ?1 AND version = ?5";
    transaction.prepare(sql)?.execute(params![
        name,
        number(now()),
        who,
        event.as_str(),
        number(version.0),
        detail,
        restored.map(|version| number(version.0)),
    ])?;
    let sql = "DELETE FROM definition WHERE name = ?1
        AND version NOT IN (SELECT version FROM service WHERE name = ?1)
        AND version NOT IN (SELECT DISTINCT version FROM history WHERE name = ?1
            AND event IN ('created', 'updated', 'refreshed') ORDER BY version DESC LIMIT ?2)
        AND version NOT IN (SELECT DISTINCT version FROM history WHERE name = ?1
            AND event = 'rolled-back' ORDER BY version DESC LIMIT ?3)";
    let kept = params![name, KEPT_VERSIONS, KEPT_REJECTED];
    transaction.execute(sql, kept).map(drop)
}

/// Deletes the service with its definitions and history.
pub(super) fn purge(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<()> {
    transaction
        .execute("DELETE FROM service WHERE name = ?1", [name])
        .map(drop)
}

/// Converts to SQLite's signed integers. Our values start at zero and never reach the limit.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns the current time in microseconds since 1970.
pub(super) fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since_1970.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// The error for a column value that no version of Mainstay writes.
pub(super) fn broken(column: usize) -> rusqlite::Error {
    let what = "an invalid value".into();
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what)
}
