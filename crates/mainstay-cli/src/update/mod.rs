//! Updates of installed services: a new definition holds as a whole, or nothing of it.
//!
//! ```text
//! 1. begin in the registry         from here on others are told that it is busy
//! 2. try it                        by its supervisor, beside the old run or after it (`host/update.rs`), else by its manager
//! 3. put its files into place      only what has proved healthy is written
//! 4. commit at the supervisor      the old run ends
//! 5. commit in the registry        the new version holds
//! ```
//!
//! What fails is taken back in the other order. Where this process dies, the supervisor gives the candidate up by itself, and the registry
//! knows of a change without an end: whoever starts or changes the service next first puts what held before into its place ([`mend`]).

mod by_manager;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use mainstay_core::engine::{StateName, Style};
use mainstay_core::registry::{Definition, Expected, Refusal, Stored, Version};
use mainstay_core::spec::ServiceName;

use crate::artifact::Programs;
use crate::client::{self, Decision, GivenUp, Tried};
use crate::failure::{Code, Failure};
use crate::host::TrialRequest;
use crate::output;
use crate::registry::{self, Program, Registered, Registry, Wish};
use crate::state_dir::StateDir;

/// An installed service, by who has it.
pub(crate) trait Site {
    fn name(&self) -> &ServiceName;
    fn registry_path(&self) -> PathBuf;
    /// Those that have come along with its updates.
    fn programs(&self) -> Programs;
    /// What is not as it was registered, a sentence each.
    fn drift(&self) -> Vec<String>;
    /// The program of a definition, where it can be read.
    fn program(&self, definition: &Definition) -> Option<Program>;
    /// Whose supervisor can try the new definition in the place of the old one, if it runs.
    fn supervisor(&self, old: &Definition, new: &Definition) -> Result<Option<StateDir>, Failure>;
    /// Has its place and its manager say this; what runs is not touched. Where it fails, they are as they were.
    fn put(&self, definition: &Definition, version: Version) -> Result<(), Failure>;
    /// Has all be as it was, also what runs; for its owner in the registry.
    fn restore(
        &self,
        definition: &Definition,
        version: Version,
        owner: &str,
    ) -> Result<(), Failure>;
    /// The change, but for the registry, where no supervisor can try it.
    fn change(&self, change: &Change<'_>) -> Result<Option<Style>, Trouble>;
}

/// A new definition, and the version that was kept where it is that again.
pub(crate) type New = (Definition, Option<Version>);

/// What an update has come to.
#[derive(Debug)]
pub(crate) struct Done {
    /// What holds now.
    pub(crate) version: Version,
    /// What held before.
    pub(crate) before: Version,
    pub(crate) outcome: Outcome,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was so already.
    UpToDate,
    /// The new definition holds; nothing where the service is down.
    Updated(Option<Style>),
    /// The old one holds.
    RolledBack(GivenUp),
}

/// Why a definition does not hold.
pub(crate) enum Trouble {
    /// It was tried.
    GivenUp(GivenUp),
    /// Nothing of it is left.
    Failed(Failure),
    /// It may hold, or not.
    Torn(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Has an installed service become what `new` makes of its definition, if that proves healthy for as long as `canary`; else it stays what it is.
/// Blocks as long as that takes.
///
/// # Errors
/// `Busy` where another version is there than is expected, or somebody else is at it; and what failed that has nothing to do with the
/// definition. Then the old one holds.
pub(crate) fn update(
    site: &dyn Site,
    expected: Expected,
    canary: Duration,
    new: impl FnOnce(&Registry, &Registered) -> Result<New, Failure>,
) -> Result<Done, Failure> {
    let begun = SystemTime::now();
    mend(site)?;
    let registry = Registry::open(&site.registry_path())?;
    let old = registry.get(site.name().as_str())?;
    let old = old.filter(|it| !matches!(it.life, Stored::Deleted(_)));
    let old = old.ok_or_else(|| {
        let message = format!("update {}: the registry does not have it", site.name());
        Failure::new(Code::Unknown, message).hint("install it again")
    })?;
    let before = old.life.version();
    if let Expected::Version(expected) = expected
        && expected != before
    {
        let (name, actual) = (site.name().clone(), before);
        let refusal = Refusal::Conflict {
            name,
            expected,
            actual,
        };
        return Err(registry::Error::Refused(refusal).into());
    }
    let (new, kept) = new(&registry, &old)?;
    let is_same = old.definition.etag() == new.etag();
    let work = registry.begin(&[Wish {
        name: site.name().clone(),
        // Whatever it was to be: what has been looked at is what is gone back to.
        expected: match expected {
            Expected::Absent => expected,
            _ => Expected::Version(before),
        },
        definition: Some(new.clone()),
    }])?;
    if is_same && site.drift().is_empty() {
        let versions = work.commit(std::slice::from_ref(&old.program))?;
        return Ok(Done {
            version: versions.first().copied().unwrap_or(before),
            before,
            outcome: Outcome::UpToDate,
        });
    }
    let version = if is_same { before } else { before.next() };
    let change = Change {
        site,
        old: (&old.definition, before),
        new: (&new, version),
        canary,
    };
    let style = match change.perform() {
        Ok(style) => style,
        Err(Trouble::GivenUp(given_up)) => {
            work.roll_back(&given_up.why)?;
            return Ok(Done {
                version: before,
                before,
                outcome: Outcome::RolledBack(given_up),
            });
        }
        Err(Trouble::Failed(failure)) => {
            // Why it failed matters more; what is not written here, the next one finds.
            drop(work.roll_back(failure.message()));
            return Err(failure);
        }
        Err(Trouble::Torn(failure)) => {
            // As if this process had died: the change has no end.
            drop(work);
            drop(mend(site));
            return Err(failure);
        }
    };
    let program = site.program(&new);
    let detail = kept.map(|kept| format!("back to version {kept}"));
    if let Err(failure) = work.commit_with(&[program], detail.as_deref()) {
        // It goes back to what the registry has.
        drop(mend(site));
        return Err(failure);
    }
    prune_programs(site, begun);
    Ok(Done {
        version,
        before,
        outcome: Outcome::Updated(style),
    })
}

/// Only those stay that a kept definition names. What is not removed now is so after the next update.
fn prune_programs(site: &dyn Site, begun: SystemTime) {
    let Ok(Some(registry)) = Registry::find(&site.registry_path()) else {
        return;
    };
    site.programs().prune(begun, |hash| {
        let names_it = |definition: &Definition| definition.manifest.contains(hash);
        let found = registry.version_like(site.name().as_str(), names_it);
        !matches!(found, Ok(None))
    });
}

/// Where whoever changed the service last has died half-way: puts what held before into its place, and has the service run by it.
///
/// # Errors
/// `Busy` while somebody is at it, and what failed; then it is to be tried again.
pub(crate) fn mend(site: &dyn Site) -> Result<(), Failure> {
    match half_done(site)? {
        Some((registry, found)) => put_back(site, registry, found),
        None => Ok(()),
    }
}

/// The entry of a service whose last change has no end, with the registry that it is in.
fn half_done(site: &dyn Site) -> Result<Option<(Registry, Registered)>, Failure> {
    let Some(registry) = Registry::find(&site.registry_path())? else {
        return Ok(None);
    };
    let found = registry.get(site.name().as_str())?;
    let failed = found.filter(|it| matches!(it.life, Stored::Failed(_)));
    Ok(failed.map(|found| (registry, found)))
}

/// Puts the last definition that held into its place, as its owner in the registry.
fn put_back(site: &dyn Site, registry: Registry, found: Registered) -> Result<(), Failure> {
    let (definition, version) = (found.definition, found.life.version());
    let work = registry.begin(&[Wish {
        name: site.name().clone(),
        expected: Expected::Version(version),
        definition: Some(definition.clone()),
    }])?;
    let done = site.restore(&definition, version, work.token());
    match done {
        Ok(()) => work.commit(&[site.program(&definition)]).map(drop),
        Err(failure) => {
            drop(work.roll_back(failure.message()));
            Err(failure)
        }
    }
}

/// The same before a service is started. That works without a registry that can be written, unless something is to be put back.
///
/// # Errors
/// As [`mend`].
pub(crate) fn mend_before_start(site: &dyn Site) -> Result<(), Failure> {
    let failure = match half_done(site) {
        Ok(Some((registry, found))) => return put_back(site, registry, found),
        Ok(None) => return Ok(()),
        Err(failure) => failure,
    };
    let path = site.registry_path();
    let is_unusable = matches!(failure.code(), Code::CannotWrite | Code::Failed);
    if !is_unusable || Registry::is_half_done(&path, site.name().as_str()) == Some(true) {
        return Err(failure);
    }
    let name = site.name();
    let why = failure.message();
    output::complain(&format!(
        "warning: {why}; {name} is started by its installed files all the same"
    ));
    Ok(())
}

/// From one definition to another.
pub(crate) struct Change<'a> {
    site: &'a dyn Site,
    old: (&'a Definition, Version),
    pub(crate) new: (&'a Definition, Version),
    canary: Duration,
}

impl Change<'_> {
    /// All but the registry.
    fn perform(&self) -> Result<Option<Style>, Trouble> {
        match self.site.supervisor(self.old.0, self.new.0)? {
            Some(supervisor) => {
                let (new, version) = self.new;
                let request = TrialRequest {
                    manifest: new.manifest.clone(),
                    format: new.format.name().to_owned(),
                    base_dir: new.base_dir.clone().into(),
                    canary_ms: u64::try_from(self.canary.as_millis()).unwrap_or(u64::MAX),
                    version: Some(version.0),
                };
                let name = self.site.name().as_str();
                match client::block_on(client::try_out(&supervisor, name, &request))? {
                    Ok(Tried::Healthy(report)) => {
                        self.take_over(&supervisor)?;
                        let is_up = report.state != StateName::Stopped;
                        let update = report.update.filter(|_| is_up);
                        Ok(update.map(|update| update.style))
                    }
                    Ok(Tried::GivenUp(given_up)) => Err(Trouble::GivenUp(given_up)),
                    Err(absent) if absent.code() == Code::NotRunning => self.site.change(self),
                    Err(failure) => Err(failure.into()),
                }
            }
            None => self.site.change(self),
        }
    }

    /// The candidate is healthy, and held for a moment.
    fn take_over(&self, supervisor: &StateDir) -> Result<(), Trouble> {
        let name = self.site.name().as_str();
        let decide = |decision| client::block_on(client::decide(supervisor, name, decision));
        if let Err(failure) = self.site.put(self.new.0, self.new.1) {
            // Where this is not heard, it is given up for want of a commit.
            drop(decide(Decision::Abort));
            return Err(failure.into());
        }
        match decide(Decision::Commit)? {
            Ok(_) => Ok(()),
            // It was not held any more; or who had to commit it is gone, and may have done so before.
            Err(failure) => Err(Trouble::Torn(failure)),
        }
    }
}
