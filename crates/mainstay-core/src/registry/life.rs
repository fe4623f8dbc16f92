//! The life of a definition. Each state is a type, and has only the transitions that there are:
//!
//! ```text
//! Pending ──activate──▶ Active ──update──▶ Updating ──commit──▶ Active
//!    └──fail──▶ Failed ──update──▶ Updating     ├──roll_back──▶ what it was: Active or Failed
//! Deleted ──create_again──▶ Pending             ├──fail──▶ Failed
//!                                               └──delete──▶ Deleted
//! ```
//!
//! What is not in it does not compile. A definition that is not active yet cannot be updated:
//!
//! ```compile_fail,E0599
//! use mainstay_core::registry::{Life, Owner, Pending};
//! fn illegal(life: Life<Pending>, owner: Owner) { life.update(true, owner); }
//! ```
//! nor can one that is being updated, a second time:
//! ```compile_fail,E0599
//! use mainstay_core::registry::{Life, Owner, Updating};
//! fn illegal(life: Life<Updating>, owner: Owner) { life.update(true, owner); }
//! ```
//! nobody deletes what somebody else may be changing: that, too, is begun first:
//! ```compile_fail,E0599
//! use mainstay_core::registry::{Active, Life};
//! fn illegal(life: Life<Active>) { life.delete(); }
//! ```
//! what was not begun is not committed:
//! ```compile_fail,E0599
//! use mainstay_core::registry::{Active, Life};
//! fn illegal(life: Life<Active>) { life.commit(); }
//! ```
//! what failed does not become active by itself:
//! ```compile_fail,E0599
//! use mainstay_core::registry::{Failed, Life};
//! fn illegal(life: Life<Failed>) { life.activate(); }
//! ```
//! what is deleted stays so, or is created again:
//! ```compile_fail,E0599
//! use mainstay_core::registry::{Deleted, Life, Owner};
//! fn illegal(life: Life<Deleted>, owner: Owner) { life.update(true, owner); }
//! ```
//! and a transition uses up the state that it left:
//! ```compile_fail,E0382
//! use mainstay_core::registry::{Life, Updating};
//! fn illegal(life: Life<Updating>) { life.commit(); life.roll_back(); }
//! ```

use super::{Event, Expected, Refusal, Version};
use crate::spec::ServiceName;

/// A definition in one of its states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life<S> {
    version: Version,
    state: S,
}

/// A process that is at work on a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// By which it is seen whether it lives; never used twice.
    pub token: String,
    /// For people.
    pub pid: u32,
    /// When it began, microseconds since 1970.
    pub since: u64,
}

/// It is being installed where there was none; its version is the one that will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    owner: Owner,
}

/// It holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active;

/// Whoever installed or changed it did not come to an end: the files may be half of this version and half of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    why: String,
}

/// Somebody is at it; until he commits, what held before holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updating {
    /// The version that will be, where it is another definition.
    target: Option<Version>,
    /// Why it had failed before, where it had.
    failed: Option<String>,
    owner: Owner,
}

/// It was uninstalled. Its history stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted;

/// Nobody is at it: [`Active`] or [`Failed`].
pub trait Settled: Sized {
    /// Why it failed, if it did.
    fn failure(self) -> Option<String>;
}

impl Settled for Active {
    fn failure(self) -> Option<String> {
        None
    }
}

impl Settled for Failed {
    fn failure(self) -> Option<String> {
        Some(self.why)
    }
}

impl<S> Life<S> {
    /// The one that holds, or of [`Pending`] the one that will.
    pub fn version(&self) -> Version {
        self.version
    }
}

impl Life<Pending> {
    /// The first of its name.
    pub fn create(owner: Owner) -> Self {
        Self {
            version: Version::FIRST,
            state: Pending { owner },
        }
    }

    /// Who is at it.
    pub fn owner(&self) -> &Owner {
        &self.state.owner
    }

    /// It is installed.
    pub fn activate(self) -> Life<Active> {
        self.with(Active)
    }

    /// It ended half-way.
    pub fn fail(self, why: String) -> Life<Failed> {
        self.with(Failed { why })
    }

    /// It was taken back as a whole: what was there before, if there was something.
    pub fn abandon(self) -> Option<Life<Deleted>> {
        let before = self.version.0.checked_sub(1).filter(|number| *number > 0)?;
        Some(Life {
            version: Version(before),
            state: Deleted,
        })
    }
}

impl<S: Settled> Life<S> {
    /// Somebody begins to change it, to a definition that is another one or not.
    pub fn update(self, is_another: bool, owner: Owner) -> Life<Updating> {
        let target = is_another.then(|| self.version.next());
        Life {
            version: self.version,
            state: Updating {
                target,
                failed: self.state.failure(),
                owner,
            },
        }
    }
}

impl Life<Failed> {
    /// What happened.
    pub fn why(&self) -> &str {
        &self.state.why
    }
}

impl Life<Updating> {
    /// Who is at it.
    pub fn owner(&self) -> &Owner {
        &self.state.owner
    }

    /// The version that will be, where it is another definition.
    pub fn target(&self) -> Option<Version> {
        self.state.target
    }

    /// Why it had failed before, where it had.
    pub fn failed(&self) -> Option<&str> {
        self.state.failed.as_deref()
    }

    /// All is as it was to be.
    pub fn commit(self) -> Life<Active> {
        Life {
            version: self.state.target.unwrap_or(self.version),
            state: Active,
        }
    }

    /// All is as it was before.
    pub fn roll_back(self) -> Stored {
        let version = self.version;
        match self.state.failed {
            Some(why) => Stored::Failed(Life {
                version,
                state: Failed { why },
            }),
            None => Stored::Active(Life {
                version,
                state: Active,
            }),
        }
    }

    /// It ended half-way: what held before holds, and is to be put in its place again.
    pub fn fail(self, why: String) -> Life<Failed> {
        self.with(Failed { why })
    }

    /// It is uninstalled.
    pub fn delete(self) -> Life<Deleted> {
        self.with(Deleted)
    }
}

impl Life<Deleted> {
    /// There is one of its name again, with the next version.
    pub fn create_again(self, owner: Owner) -> Life<Pending> {
        Life {
            version: self.version.next(),
            state: Pending { owner },
        }
    }
}

impl<S> Life<S> {
    fn with<T>(self, state: T) -> Life<T> {
        Life {
            version: self.version,
            state,
        }
    }
}

/// A life as it is found: in some state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the states say it")]
pub enum Stored {
    Pending(Life<Pending>),
    Active(Life<Active>),
    Failed(Life<Failed>),
    Updating(Life<Updating>),
    Deleted(Life<Deleted>),
}

impl Stored {
    /// From its stored parts: the name of the state, and what that state has. `None` where they make no life.
    pub fn restore(
        state: &str,
        version: Version,
        target: Option<Version>,
        why: Option<String>,
        owner: Option<Owner>,
    ) -> Option<Self> {
        Some(match state {
            "pending" => Self::Pending(Life {
                version,
                state: Pending { owner: owner? },
            }),
            "active" => Self::Active(Life {
                version,
                state: Active,
            }),
            "failed" => Self::Failed(Life {
                version,
                state: Failed { why: why? },
            }),
            "updating" => Self::Updating(Life {
                version,
                state: Updating {
                    target,
                    failed: why,
                    owner: owner?,
                },
            }),
            "deleted" => Self::Deleted(Life {
                version,
                state: Deleted,
            }),
            _ => return None,
        })
    }

    /// The name of its state: `pending`, `active`, `failed`, `updating`, `deleted`.
    pub fn state(&self) -> &'static str {
        match self {
            Self::Pending(_) => "pending",
            Self::Active(_) => "active",
            Self::Failed(_) => "failed",
            Self::Updating(_) => "updating",
            Self::Deleted(_) => "deleted",
        }
    }

    /// The version that holds, or of a pending one the one that will.
    pub fn version(&self) -> Version {
        match self {
            Self::Pending(life) => life.version,
            Self::Active(life) => life.version,
            Self::Failed(life) => life.version,
            Self::Updating(life) => life.version,
            Self::Deleted(life) => life.version,
        }
    }

    /// Of an update to another definition: its version.
    pub fn target(&self) -> Option<Version> {
        match self {
            Self::Updating(life) => life.target(),
            _ => None,
        }
    }

    /// Why it has failed, or had before somebody began to change it.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Failed(life) => Some(life.why()),
            Self::Updating(life) => life.failed(),
            _ => None,
        }
    }

    /// Who is at it.
    pub fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Pending(life) => Some(life.owner()),
            Self::Updating(life) => Some(life.owner()),
            _ => None,
        }
    }

    /// What becomes of it when its owner has died, and what the history says of that; it itself where nobody is at it.
    pub fn bury(self) -> (Self, Option<(Event, String)>) {
        let died = |what: &str, owner: &Owner| format!("{what} died: mainstay, pid {}", owner.pid);
        match self {
            Self::Pending(life) => {
                let why = died("whoever installed it", life.owner());
                (
                    Self::Failed(life.fail(why.clone())),
                    Some((Event::Failed, why)),
                )
            }
            Self::Updating(life) => {
                let why = died("whoever changed it", life.owner());
                (
                    Self::Failed(life.fail(why.clone())),
                    Some((Event::RolledBack, why)),
                )
            }
            settled => (settled, None),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// That this is its definition, which is the stored one or another.
    Define {
        /// It differs from the stored one.
        is_another: bool,
    },
    /// That it is deleted.
    Delete,
}

/// A change that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the states say it")]
pub enum Begun {
    Pending(Life<Pending>),
    Updating(Life<Updating>),
}

impl From<Begun> for Stored {
    fn from(begun: Begun) -> Self {
        match begun {
            Begun::Pending(life) => Self::Pending(life),
            Begun::Updating(life) => Self::Updating(life),
        }
    }
}

/// Begins a change of what is stored under `name`, whose owner, if it has one, lives.
///
/// # Errors
/// Why it may not begin.
pub fn begin(
    name: &ServiceName,
    stored: Option<Stored>,
    expected: Expected,
    change: Change,
    owner: Owner,
) -> Result<Begun, Refusal> {
    let name = || name.clone();
    let settled = |version| match expected {
        Expected::Version(expected) if expected != version => Err(Refusal::Conflict {
            name: name(),
            expected,
            actual: version,
        }),
        Expected::Absent => Err(Refusal::Exists {
            name: name(),
            actual: version,
        }),
        _ => Ok(()),
    };
    let is_another = change != Change::Define { is_another: false };
    let is_another = is_another && change != Change::Delete;
    let absent = match (change, expected) {
        (Change::Delete, _) | (_, Expected::Version(_)) => Err(Refusal::NotFound { name: name() }),
        _ => Ok(()),
    };
    Ok(match stored {
        None => {
            absent?;
            Begun::Pending(Life::create(owner))
        }
        Some(Stored::Deleted(life)) => {
            absent?;
            Begun::Pending(life.create_again(owner))
        }
        Some(Stored::Active(life)) => {
            settled(life.version)?;
            Begun::Updating(life.update(is_another, owner))
        }
        Some(Stored::Failed(life)) => {
            settled(life.version)?;
            Begun::Updating(life.update(is_another, owner))
        }
        Some(Stored::Pending(life)) => {
            let owner = life.state.owner;
            return Err(Refusal::Busy {
                name: name(),
                owner,
            });
        }
        Some(Stored::Updating(life)) => {
            let owner = life.state.owner;
            return Err(Refusal::Busy {
                name: name(),
                owner,
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(pid: u32) -> Owner {
        Owner {
            token: format!("{pid:x}"),
            pid,
            since: 5,
        }
    }

    fn stored(state: &str, version: u64) -> Option<Stored> {
        let why = (state == "failed").then(|| "why".to_owned());
        let target = (state == "updating").then(|| Version(version + 1));
        Stored::restore(state, Version(version), target, why, Some(owner(1)))
    }

    #[test]
    fn what_is_expected_is_what_may_be_changed() {
        let name = ServiceName::new("db").unwrap();
        let define = Change::Define { is_another: true };
        let same = Change::Define { is_another: false };
        for (state, expected, change, outcome) in [
            ("", Expected::Any, define, "pending 1"),
            ("", Expected::Absent, define, "pending 1"),
            ("", Expected::from(1), define, "db has no definition"),
            ("", Expected::Any, Change::Delete, "db has no definition"),
            ("deleted", Expected::Any, define, "pending 8"),
            ("deleted", Expected::Absent, same, "pending 8"),
            ("deleted", Expected::from(7), define, "db has no definition"),
            (
                "deleted",
                Expected::Any,
                Change::Delete,
                "db has no definition",
            ),
            ("active", Expected::Any, define, "updating 7 to 8"),
            ("active", Expected::from(7), define, "updating 7 to 8"),
            ("active", Expected::from(7), same, "updating 7"),
            ("active", Expected::from(7), Change::Delete, "updating 7"),
            (
                "active",
                Expected::from(6),
                define,
                "db is at version 7, not 6",
            ),
            (
                "active",
                Expected::from(8),
                Change::Delete,
                "db is at version 7, not 8",
            ),
            (
                "active",
                Expected::from(0),
                define,
                "db is there, at version 7",
            ),
            ("failed", Expected::Any, same, "updating 7"),
            ("failed", Expected::from(7), define, "updating 7 to 8"),
            (
                "failed",
                Expected::from(1),
                define,
                "db is at version 7, not 1",
            ),
            (
                "pending",
                Expected::Any,
                define,
                "db is being changed by another mainstay, pid 1",
            ),
            (
                "updating",
                Expected::from(7),
                define,
                "db is being changed by another mainstay, pid 1",
            ),
            (
                "updating",
                Expected::Any,
                Change::Delete,
                "db is being changed by another mainstay, pid 1",
            ),
        ] {
            let begun = begin(&name, stored(state, 7), expected, change, owner(2));
            let said = match begun.map(Stored::from) {
                Ok(life) => {
                    let target = life.target().map(|version| format!(" to {version}"));
                    let (state, target) = (life.state(), target.unwrap_or_default());
                    format!("{state} {}{target}", life.version())
                }
                Err(refusal) => refusal.to_string(),
            };
            assert_eq!(said, outcome, "{state} {expected:?} {change:?}");
        }
    }

    #[test]
    fn whoever_looks_next_finishes_what_a_dead_owner_left() {
        for (state, expect, event) in [
            ("pending", "failed", Some(Event::Failed)),
            ("updating", "failed", Some(Event::RolledBack)),
            ("active", "active", None),
            ("failed", "failed", None),
            ("deleted", "deleted", None),
        ] {
            let (life, happened) = stored(state, 3).unwrap().bury();
            assert_eq!((life.state(), life.version()), (expect, Version(3)));
            assert_eq!(happened.map(|(event, _)| event), event, "{state}");
        }
    }

    #[test]
    fn what_is_taken_back_leaves_what_was() {
        assert_eq!(Life::create(owner(1)).abandon(), None);
        let Some(Stored::Deleted(deleted)) = stored("deleted", 4) else {
            panic!("it is deleted")
        };
        let again = deleted.clone().create_again(owner(1));
        assert_eq!(again.version(), Version(5));
        assert_eq!(again.abandon(), Some(deleted));
    }

    #[test]
    fn parts_without_what_the_state_has_make_no_life() {
        for state in ["pending", "updating", "failed", "lost"] {
            assert_eq!(Stored::restore(state, Version(1), None, None, None), None);
        }
    }
}
