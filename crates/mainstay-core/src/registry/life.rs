//! The life cycle of a definition. Each state is a type that offers only the valid transitions:
//!
//! ```text
//! Pending ──activate──▶ Active ──update──▶ Updating ──commit──▶ Active
//!    └──fail──▶ Failed ──update──▶ Updating     ├──roll_back──▶ what it was: Active or Failed
//! Deleted ──create_again──▶ Pending             ├──fail──▶ Failed
//!                                               └──delete──▶ Deleted
//! ```
//!
//! Invalid transitions do not compile. A definition that is not active yet cannot be updated:
//!
//! ```compile_fail,E0599
//! use mainstay_core::registry::{Life, Owner, Pending};
//! fn illegal(life: Life<Pending>, owner: Owner) { life.update(None, owner); }
//! ```
//! A definition that is being updated cannot be updated again:
//! ```compile_fail,E0599
//! use mainstay_core::registry::{Life, Owner, Updating};
//! fn illegal(life: Life<Updating>, owner: Owner) { life.update(None, owner); }
//! ```
//! An active definition cannot be deleted without first beginning an update, which excludes
//! concurrent changes:
//! ```compile_fail,E0599
//! use mainstay_core::registry::{Active, Life};
//! fn illegal(life: Life<Active>) { life.delete(); }
//! ```
//! A change that was not begun cannot be committed:
//! ```compile_fail,E0599
//! use mainstay_core::registry::{Active, Life};
//! fn illegal(life: Life<Active>) { life.commit(); }
//! ```
//! A failed definition does not become active by itself:
//! ```compile_fail,E0599
//! use mainstay_core::registry::{Failed, Life};
//! fn illegal(life: Life<Failed>) { life.activate(); }
//! ```
//! A deleted definition can only be created again:
//! ```compile_fail,E0599
//! use mainstay_core::registry::{Deleted, Life, Owner};
//! fn illegal(life: Life<Deleted>, owner: Owner) { life.update(None, owner); }
//! ```
//! A transition consumes the state that it leaves:
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

/// A process that is changing a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The token that shows whether the process is alive; never reused.
    pub token: String,
    /// The process ID, for display only.
    pub pid: u32,
    /// The start of the change, in microseconds since 1970.
    pub since: u64,
}

/// The state of a first installation in progress. The version is that of the definition being
/// installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    owner: Owner,
}

/// The state of a definition in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active;

/// The state after an installation or change that failed. The files may be a mixture of two
/// versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    why: String,
}

/// The state of a change in progress. The previous definition remains in effect until the change is
/// committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updating {
    /// The version after the change, if it changes the definition.
    target: Option<Version>,
    /// The reason for an earlier failure, if the definition was failed before the change.
    failed: Option<String>,
    owner: Owner,
}

/// The state of an uninstalled definition. Its history is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted;

/// A state without a change in progress: [`Active`] or [`Failed`].
pub trait Settled: Sized {
    /// Returns the reason for the failure, if any.
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
    /// Returns the version in effect or, if [`Pending`], the version being installed.
    pub fn version(&self) -> Version {
        self.version
    }
}

impl Life<Pending> {
    /// Creates the first definition of a name.
    pub fn create(owner: Owner) -> Self {
        Self {
            version: Version::FIRST,
            state: Pending { owner },
        }
    }

    /// Returns the process that is installing the definition.
    pub fn owner(&self) -> &Owner {
        &self.state.owner
    }

    /// Completes the installation.
    pub fn activate(self) -> Life<Active> {
        self.with(Active)
    }

    /// Marks the installation as failed partway.
    pub fn fail(self, why: String) -> Life<Failed> {
        self.with(Failed { why })
    }

    /// Reverts the installation completely. `deleted` is the version of the deleted definition that
    /// it was to replace, if any.
    pub fn abandon(self, deleted: Option<Version>) -> Option<Life<Deleted>> {
        let version = deleted?;
        Some(Life {
            version,
            state: Deleted,
        })
    }
}

impl<S: Settled> Life<S> {
    /// Begins a change. `target` is the version of the new definition, if the definition itself
    /// changes.
    pub fn update(self, target: Option<Version>, owner: Owner) -> Life<Updating> {
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
    /// Returns the reason for the failure.
    pub fn why(&self) -> &str {
        &self.state.why
    }
}

impl Life<Updating> {
    /// Returns the process that is making the change.
    pub fn owner(&self) -> &Owner {
        &self.state.owner
    }

    /// Returns the version after the change, if it changes the definition.
    pub fn target(&self) -> Option<Version> {
        self.state.target
    }

    /// Returns the reason for an earlier failure, if the definition was failed before the change.
    pub fn failed(&self) -> Option<&str> {
        self.state.failed.as_deref()
    }

    /// Completes the change.
    pub fn commit(self) -> Life<Active> {
        Life {
            version: self.state.target.unwrap_or(self.version),
            state: Active,
        }
    }

    /// Reverts the change completely and returns the previous state.
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

    /// Marks the change as failed partway. The previous version stays in effect and must be
    /// reinstalled.
    pub fn fail(self, why: String) -> Life<Failed> {
        self.with(Failed { why })
    }

    /// Completes the change by deleting the definition.
    pub fn delete(self) -> Life<Deleted> {
        self.with(Deleted)
    }
}

impl Life<Deleted> {
    /// Begins the installation of a new definition of the same name.
    pub fn create_again(self, version: Version, owner: Owner) -> Life<Pending> {
        Life {
            version,
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

/// A definition in any state, as it is stored.
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
    /// Restores a definition from its stored parts: the name of the state and the data of that
    /// state. Returns `None` if the parts are inconsistent.
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

    /// Returns the name of the state: `pending`, `active`, `failed`, `updating` or `deleted`.
    pub fn state(&self) -> &'static str {
        match self {
            Self::Pending(_) => "pending",
            Self::Active(_) => "active",
            Self::Failed(_) => "failed",
            Self::Updating(_) => "updating",
            Self::Deleted(_) => "deleted",
        }
    }

    /// Returns the version in effect or, if pending, the version being installed.
    pub fn version(&self) -> Version {
        match self {
            Self::Pending(life) => life.version,
            Self::Active(life) => life.version,
            Self::Failed(life) => life.version,
            Self::Updating(life) => life.version,
            Self::Deleted(life) => life.version,
        }
    }

    /// Returns the version after an update to another definition.
    pub fn target(&self) -> Option<Version> {
        match self {
            Self::Updating(life) => life.target(),
            _ => None,
        }
    }

    /// Returns the reason for the failure, or for the failure before the change in progress.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Failed(life) => Some(life.why()),
            Self::Updating(life) => life.failed(),
            _ => None,
        }
    }

    /// Returns the process that is making a change, if any.
    pub fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Pending(life) => Some(life.owner()),
            Self::Updating(life) => Some(life.owner()),
            _ => None,
        }
    }

    /// Reaps a change whose owner has died. Returns the resulting state and the entry for the
    /// history. Returns the definition unchanged if no change is in progress.
    pub fn repair_stale(self) -> (Self, Option<(Event, String)>) {
        let died = |what: &str, owner: &Owner| format!("{what} died (mainstay, pid {})", owner.pid);
        match self {
            Self::Pending(life) => {
                let why = died("the process that installed it", life.owner());
                (
                    Self::Failed(life.fail(why.clone())),
                    Some((Event::Failed, why)),
                )
            }
            Self::Updating(life) => {
                let why = died("the process that changed it", life.owner());
                (
                    Self::Failed(life.fail(why.clone())),
                    Some((Event::RolledBack, why)),
                )
            }
            settled => (settled, None),
        }
    }
}

/// A requested change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The installation of a definition, either the stored one or another.
    Define {
        /// Set if the definition differs from the stored one.
        is_another: bool,
    },
    /// The deletion of the definition.
    Delete,
}

/// A change in progress.
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

/// Begins a change of the definition stored under `name`, whose latest version is `latest`, in
/// effect or not. The owner of a change already in progress is assumed to be alive.
///
/// # Errors
/// If the definition is being changed, does not match `expected`, or is to be deleted but does not
/// exist.
pub fn begin(
    name: &ServiceName,
    (stored, latest): (Option<Stored>, Version),
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
    let target = is_another.then(|| latest.next());
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
            Begun::Pending(life.create_again(latest.next(), owner))
        }
        Some(Stored::Active(life)) => {
            settled(life.version)?;
            Begun::Updating(life.update(target, owner))
        }
        Some(Stored::Failed(life)) => {
            settled(life.version)?;
            Begun::Updating(life.update(target, owner))
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
            ("", Expected::from(1), define, "db is not registered"),
            ("", Expected::Any, Change::Delete, "db is not registered"),
            ("deleted", Expected::Any, define, "pending 9"),
            ("deleted", Expected::Absent, same, "pending 9"),
            ("deleted", Expected::from(7), define, "db is not registered"),
            (
                "deleted",
                Expected::Any,
                Change::Delete,
                "db is not registered",
            ),
            ("active", Expected::Any, define, "updating 7 to 9"),
            ("active", Expected::from(7), define, "updating 7 to 9"),
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
                "db is already registered, at version 7",
            ),
            ("failed", Expected::Any, same, "updating 7"),
            ("failed", Expected::from(7), define, "updating 7 to 9"),
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
                "db is being changed by another mainstay process (pid 1)",
            ),
            (
                "updating",
                Expected::from(7),
                define,
                "db is being changed by another mainstay process (pid 1)",
            ),
            (
                "updating",
                Expected::Any,
                Change::Delete,
                "db is being changed by another mainstay process (pid 1)",
            ),
        ] {
            let stored = (stored(state, 7), Version(8));
            let begun = begin(&name, stored, expected, change, owner(2));
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
            let (life, happened) = stored(state, 3).unwrap().repair_stale();
            assert_eq!((life.state(), life.version()), (expect, Version(3)));
            assert_eq!(happened.map(|(event, _)| event), event, "{state}");
        }
    }

    #[test]
    fn what_is_taken_back_leaves_what_was() {
        assert_eq!(Life::create(owner(1)).abandon(None), None);
        let Some(Stored::Deleted(deleted)) = stored("deleted", 4) else {
            panic!("it is deleted")
        };
        let again = deleted.clone().create_again(Version(6), owner(1));
        assert_eq!(again.version(), Version(6));
        assert_eq!(again.abandon(Some(Version(4))), Some(deleted));
    }

    #[test]
    fn parts_without_what_the_state_has_make_no_life() {
        for state in ["pending", "updating", "failed", "lost"] {
            assert_eq!(Stored::restore(state, Version(1), None, None, None), None);
        }
    }
}
