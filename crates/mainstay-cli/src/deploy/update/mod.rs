//! Atomic updates of installed services.
//!
//! ```text
//! 1. begin in the registry         from here on the service is busy for others
//! 2. try the new definition        by the supervisor, beside the old run or after it
//!                                  (`dispatcher/rollouts.rs`), else by the manager
//! 3. put the files into place      only a definition that proved healthy is written
//! 4. commit at the supervisor      the old run ends
//! 5. commit in the registry        the new version is in effect
//! ```
//!
//! A failure undoes the steps in reverse order. If this process dies, the supervisor drops the
//! candidate by itself, and the registry contains an unfinished change. The next process to start
//! or change the service first restores the previous definition ([`repair`]).

mod by_manager;
mod embedded;
mod system;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use mainstay_api::{Decision, GivenUp, TrialRequest, Verb};
use mainstay_core::engine::{StateName, Style};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::registry::{Definition, Expected, Refusal, Stored, Version};
use mainstay_core::report::ServiceReport;
use mainstay_core::spec::ServiceName;
use mainstay_host::output;
use mainstay_store::programs::Programs;
use mainstay_store::registry::{self, ChangeRequest, Program, Registered, Registry};
use mainstay_store::state_dir::StateDir;

pub(crate) use self::embedded::Embedded;
use crate::client::{self, Tried};
use crate::installed::Installed;
use crate::request_error::RequestError;

/// An installed service, independent of its manager.
pub(crate) trait Site {
    fn name(&self) -> &ServiceName;
    fn registry_path(&self) -> PathBuf;
    /// Returns the programs that updates have delivered.
    fn programs(&self) -> Programs;
    /// Returns the deviations from what is registered, one sentence each.
    fn drift(&self) -> Vec<String>;
    /// Returns the program of a definition, if it can be read.
    fn program(&self, definition: &Definition) -> Option<Program>;
    /// Returns the supervisor that can try the new definition in place of the old one, if it is
    /// running.
    fn supervisor(&self, old: &Definition, new: &Definition) -> Result<Option<StateDir>, Failure>;
    /// Writes the files and the manager's definition, without affecting the running program. On
    /// failure, both are restored to their previous state.
    fn put(&self, definition: &Definition, version: Version) -> Result<(), Failure>;
    /// Restores the files and the running program to this definition, on behalf of its owner in the
    /// registry.
    fn restore(
        &self,
        definition: &Definition,
        version: Version,
        owner: &str,
    ) -> Result<(), Failure>;
    /// Performs the change, except for the registry, when no supervisor can try it.
    fn change(&self, change: &Change<'_>) -> Result<Trial, UpdateError>;
}

/// A new definition, and the stored version that it restores, if any.
pub(crate) type New = (Definition, Option<Version>);

/// The result of an update.
#[derive(Debug)]
pub(crate) struct Done {
    /// The current version.
    pub(crate) version: Version,
    /// The previous version.
    pub(crate) before: Version,
    /// The earlier version whose definition was to be restored.
    pub(crate) restored: Option<Version>,
    pub(crate) outcome: Outcome,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    /// The service already had this definition.
    UpToDate,
    /// The new definition is in effect.
    Updated(Trial),
    /// The old definition is in effect, not that of this version.
    RolledBack(Version, Box<GivenUp>),
}

/// The style in which a new definition was tried, or the reason why it was not.
pub(crate) type Trial = Result<Style, Untried>;

/// The reason why a new definition was not tried.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Untried {
    /// The service is stopped.
    Stopped,
    /// No daemon is running, so that nothing can be started.
    NoDaemon,
}

impl fmt::Display for Untried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "the service is stopped",
            Self::NoDaemon => "`mainstay daemon` is not running",
        })
    }
}

/// The reason why a new definition is not in effect.
pub(crate) enum UpdateError {
    /// The definition was tried and rejected.
    GivenUp(Box<GivenUp>),
    /// The change failed and was undone.
    Failed(Failure),
    /// The outcome is indeterminate: the definition may or may not be in effect.
    Indeterminate(Failure),
}

impl From<Failure> for UpdateError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Updates an installed service to the definition that `new` derives from the current one, if it
/// stays healthy for `canary`; otherwise the service stays unchanged. Blocks until that is decided.
///
/// # Errors
/// `Busy` if another version than the expected one is installed, or another process is
/// changing the service. Failures that are unrelated to the definition are returned too. The old
/// definition stays in effect in these cases.
pub(crate) fn update(
    site: &dyn Site,
    expected: Expected,
    canary: Duration,
    new: impl FnOnce(&Registry, &Registered) -> Result<New, Failure>,
) -> Result<Done, Failure> {
    let begun = SystemTime::now();
    repair(site)?;
    let registry = Registry::open(&site.registry_path())?;
    let old = registry.get(site.name().as_str())?;
    let old = old.filter(|it| !matches!(it.life, Stored::Deleted(_)));
    let old = old.ok_or_else(|| {
        let message = format!("cannot update {}: it is not in the registry", site.name());
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
    let done = |version, outcome| Done {
        version,
        before,
        restored: kept,
        outcome,
    };
    let is_same = old.definition.etag() == new.etag();
    let work = registry.begin(&[ChangeRequest {
        name: site.name().clone(),
        // The expected version is the one that was examined, because a rollback returns to it.
        expected: match expected {
            Expected::Absent => expected,
            _ => Expected::Version(before),
        },
        definition: Some(new.clone()),
    }])?;
    if is_same && site.drift().is_empty() {
        work.commit(std::slice::from_ref(&old.program))?;
        return Ok(done(before, Outcome::UpToDate));
    }
    let version = work.versions().first().copied().unwrap_or(before);
    let change = Change {
        site,
        old: (&old.definition, before),
        new: (&new, version),
        canary,
    };
    let trial = match change.perform() {
        Ok(trial) => trial,
        Err(UpdateError::GivenUp(given_up)) => {
            work.roll_back(&given_up.refusal.error)?;
            return Ok(done(before, Outcome::RolledBack(version, given_up)));
        }
        Err(UpdateError::Failed(failure)) => {
            // The failure matters more. Any remaining part is repaired by the next process.
            drop(work.roll_back(failure.message()));
            return Err(failure);
        }
        Err(UpdateError::Indeterminate(failure)) => {
            // As if this process had died: the change stays unfinished.
            drop(work);
            drop(repair(site));
            return Err(failure);
        }
    };
    let program = site.program(&new);
    let untried = trial.err().map(|why| format!("not tried: {why}"));
    if let Err(failure) = work.commit_with(&[program], (kept, untried.as_deref())) {
        // The service returns to the definition in the registry.
        drop(repair(site));
        return Err(failure);
    }
    prune_programs(site, begun);
    Ok(done(version, Outcome::Updated(trial)))
}

/// Removes the programs that no stored definition names. Programs that cannot be removed now are
/// removed after the next update.
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

/// Repairs a service whose last change was interrupted: restores the previous definition, and
/// restarts the service if it runs with another one.
///
/// # Errors
/// `Busy` while another process is changing the service, and any failure of the repair. It
/// must then be tried again.
pub(crate) fn repair(site: &dyn Site) -> Result<(), Failure> {
    match half_done(site)? {
        Some((registry, found)) => put_back(site, registry, found),
        None => Ok(()),
    }
}

/// Returns the entry of a service whose last change is unfinished, with its registry.
fn half_done(site: &dyn Site) -> Result<Option<(Registry, Registered)>, Failure> {
    let Some(registry) = Registry::find(&site.registry_path())? else {
        return Ok(None);
    };
    let found = registry.get(site.name().as_str())?;
    let failed = found.filter(|it| matches!(it.life, Stored::Failed(_)));
    Ok(failed.map(|found| (registry, found)))
}

/// Restores the last committed definition as the owner in the registry.
fn put_back(site: &dyn Site, registry: Registry, found: Registered) -> Result<(), Failure> {
    let (definition, version) = (found.definition, found.life.version());
    let work = registry.begin(&[ChangeRequest {
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

/// Repairs a service before it is started, like [`repair`]. Without a repair to do, a registry that
/// cannot be written is not an error.
///
/// # Errors
/// As for [`repair`].
pub(crate) fn repair_before_start(site: &dyn Site) -> Result<(), Failure> {
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
    output::remark(&format!(
        "warning: {why}; starting {name} from its installed files"
    ));
    Ok(())
}

/// Performs an operation on a service of the system's manager, like [`Installed::control`]. Before
/// a start, the service is repaired if its last change was interrupted.
pub(crate) fn control(installed: &Installed, verb: Verb) -> Result<ServiceReport, Failure> {
    if matches!(verb, Verb::Start | Verb::Restart) {
        repair_before_start(installed)?;
    }
    installed.control(verb)
}

/// A change from one definition to another.
pub(crate) struct Change<'a> {
    site: &'a dyn Site,
    old: (&'a Definition, Version),
    pub(crate) new: (&'a Definition, Version),
    canary: Duration,
}

impl Change<'_> {
    /// Performs the change, except for the registry.
    fn perform(&self) -> Result<Trial, UpdateError> {
        match self.site.supervisor(self.old.0, self.new.0)? {
            Some(supervisor) => {
                let (new, version) = self.new;
                let request = TrialRequest {
                    manifest: new.manifest.clone(),
                    format: new.format.name().to_owned(),
                    base_dir: new.base_dir.clone().into(),
                    canary_ms: u64::try_from(self.canary.as_millis()).unwrap_or(u64::MAX),
                    version: Some(version.0),
                    from_version: Some(self.old.1.0),
                };
                let name = self.site.name().as_str();
                match client::block_on(client::try_out(&supervisor, name, &request))? {
                    Ok(Tried::Healthy(report)) => {
                        self.commit_candidate(&supervisor)?;
                        let is_up = report.state != StateName::Stopped;
                        let update = report.update.filter(|_| is_up);
                        Ok(update.map(|update| update.style).ok_or(Untried::Stopped))
                    }
                    Ok(Tried::GivenUp(given_up)) => Err(UpdateError::GivenUp(given_up)),
                    Err(RequestError::NoSupervisor(_)) => self.site.change(self),
                    Err(error) => Err(UpdateError::Failed(error.into())),
                }
            }
            None => self.site.change(self),
        }
    }

    /// Commits the candidate, which is healthy and held by the supervisor for a moment.
    fn commit_candidate(&self, supervisor: &StateDir) -> Result<(), UpdateError> {
        let name = self.site.name().as_str();
        let decide = |decision| client::block_on(client::decide(supervisor, name, decision));
        if let Err(failure) = self.site.put(self.new.0, self.new.1) {
            // If this request is lost, the supervisor drops the candidate for lack of a commit.
            drop(decide(Decision::Abort));
            return Err(failure.into());
        }
        match decide(Decision::Commit)? {
            Ok(_) => Ok(()),
            // The candidate was no longer held, or the supervisor that had to commit it is gone and
            // may have done so before.
            Err(error) => Err(UpdateError::Indeterminate(error.into())),
        }
    }
}
