//! A change in progress, and the ways in which it ends.

use mainstay_core::failure::{Code, Failure};
use mainstay_core::registry::{Event, Stored, Version};
use mainstay_core::spec::ServiceName;
use rusqlite::{Transaction, params};

use super::failure::{cannot, database};
use super::owner::Holder;
use super::program::Program;
use super::rows::{deleted, drop_definition, immediate, note, number, purge, read, write};
use super::{Registered, Registry};

/// A change in progress. No other process can change these definitions while it exists. If it is
/// dropped without being ended, the next process to open the registry rolls it back.
#[derive(Debug)]
pub struct Work {
    pub(super) registry: Registry,
    pub(super) names: Vec<ServiceName>,
    pub(super) versions: Vec<Version>,
    pub(super) holder: Holder,
}

/// The remains of a deleted service: its history, and where its caller removes those too, its state
/// and its logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Left in place.
    Keep,
    /// Deleted too.
    Purge,
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
    /// # Errors
    /// If the registry cannot be written. The next process to open it then rolls the
    /// change back.
    pub fn commit(self, programs: &[Option<Program>]) -> Result<Vec<Version>, Failure> {
        self.commit_with(programs, (None, None))
    }

    /// Commits like [`Work::commit`], and records in the history which version was restored, if
    /// any, and a remark.
    pub fn commit_with(
        self,
        programs: &[Option<Program>],
        remarks: (Option<Version>, Option<&str>),
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
            match event {
                Some(event) => note(transaction, name, event, version, remarks),
                None => Ok(()),
            }
        })?;
        Ok(versions)
    }

    /// Restores the previous definitions and records the reason. The rejected ones are kept, except
    /// those of first installations.
    pub fn roll_back(self, why: &str) -> Result<(), Failure> {
        self.finish(|transaction, name, found| match found.life {
            Stored::Pending(life) => {
                let pending = life.version();
                match life.abandon(deleted(transaction, name)?) {
                    None => purge(transaction, name),
                    Some(life) => {
                        write(transaction, name, &Stored::Deleted(life))?;
                        drop_definition(transaction, name, pending)
                    }
                }
            }
            Stored::Updating(life) => {
                let rejected = life.target().unwrap_or(life.version());
                write(transaction, name, &life.roll_back())?;
                let why = (None, Some(why));
                note(transaction, name, Event::RolledBack, rejected, why)
            }
            other => Err(lost(&other)),
        })
    }

    /// Marks the services as deleted.
    pub fn delete(self, remains: Remains) -> Result<(), Failure> {
        self.finish(|transaction, name, found| match found.life {
            _ if remains == Remains::Purge => purge(transaction, name),
            Stored::Updating(life) => {
                let version = life.version();
                write(transaction, name, &Stored::Deleted(life.delete()))?;
                note(transaction, name, Event::Deleted, version, (None, None))
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

/// The error for a state that an owned definition cannot be in.
fn lost(life: &Stored) -> rusqlite::Error {
    let what = format!(
        "invalid state {} of a definition that is being changed",
        life.state()
    );
    rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, what.into())
}
