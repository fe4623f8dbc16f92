//! Cross-checks of a service: each source of evidence is asked here, one file a kind of source; the
//! core compares the answers (`mainstay_core::verify`).

mod cgroup;
mod events;
mod ledger;
mod manager;
#[cfg(unix)]
mod openrc;
mod processes;
mod readiness;
mod registration;
#[cfg(unix)]
mod runit;
mod supervisor;
#[cfg(unix)]
mod systemd;
mod tool;
#[cfg(windows)]
mod windows;

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use mainstay_core::failure::Failure;
use mainstay_core::spec::Spec;
use mainstay_core::suggest::did_you_mean;
use mainstay_core::verify::{
    Claim, Evidence, Finding, Judgement, Observation, Source, Subject, Verdict, judge,
};
use mainstay_store::ledger::LedgerSnapshot;
use mainstay_store::state_dir::StateDir;

use crate::deploy::embedded;
use crate::installed::Installed;
use crate::request_error::RequestError;
use crate::{client, not_found};

/// The pause before contradictory evidence is collected again. A service may have changed between
/// two questions.
const SETTLE: Duration = Duration::from_millis(200);
/// The number of times that evidence is collected, at most.
const ROUNDS: usize = 6;

/// A service to check.
pub(crate) struct Target {
    name: String,
    /// The state directory of its supervisor.
    state: StateDir,
    kind: Kind,
}

enum Kind {
    /// A service of the manifest that a supervisor runs.
    Run,
    /// A service of the embedded manager.
    Embedded,
    /// A service of the system's manager.
    Installed(Box<Installed>),
}

/// The definition of a service and its base directory.
struct Defined {
    spec: Spec,
    base_dir: PathBuf,
}

/// The result of a check.
pub(crate) struct Checked {
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) judgement: Judgement,
}

impl Target {
    /// Finds a service by name: those of the embedded manager first, then those of the system's
    /// managers, then those that a supervisor runs.
    ///
    /// # Errors
    /// If there is no such service, or this process may not see it.
    pub(crate) fn find(state: &StateDir, name: &str) -> Result<Self, Failure> {
        if let Some(target) = Self::of_manager(state, name)? {
            return Ok(target);
        }
        let names = Self::supervised(state)?;
        if names.iter().any(|known| known == name) {
            return Ok(Self::own(state, name, Kind::Run));
        }
        let failure = not_found::service(state, name);
        match did_you_mean(name, names.iter().map(String::as_str)) {
            Some(near) => Err(failure.hint(near)),
            None if names.is_empty() => Err(failure),
            None => Err(failure.hint(format!("the supervisor here runs {}", names.join(", ")))),
        }
    }

    /// Finds an installed service.
    fn of_manager(state: &StateDir, name: &str) -> Result<Option<Self>, Failure> {
        if embedded::is_known(state, name) {
            return Ok(Some(Self::own(state, name, Kind::Embedded)));
        }
        let Some(installed) = Installed::find(state, name) else {
            return Ok(None);
        };
        installed.check_access()?;
        Ok(Some(Self {
            name: name.to_owned(),
            state: installed.state().at(installed.state().path().to_owned()),
            kind: Kind::Installed(Box::new(installed)),
        }))
    }

    /// Returns a service of mainstay's own supervisor.
    fn own(state: &StateDir, name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            state: state.at(state.path().to_owned()),
            kind,
        }
    }

    /// Returns all services, sorted by name.
    ///
    /// # Errors
    /// If this process may not see one of them.
    pub(crate) fn all(state: &StateDir) -> Result<Vec<Self>, Failure> {
        let installed = Installed::all(state).into_iter();
        let mut names: Vec<String> = installed.map(|it| it.name().to_string()).collect();
        names.extend(mainstay_store::embedded::names(state));
        names.extend(Self::supervised(state)?);
        names.sort();
        names.dedup();
        let find = |name: &String| {
            let found = Self::of_manager(state, name)?;
            Ok(found.unwrap_or_else(|| Self::own(state, name, Kind::Run)))
        };
        names.iter().map(find).collect()
    }

    /// Returns the services of the supervisor of this state directory. They are read from its
    /// ledger, so that a supervisor which does not respond, or was killed, is no obstacle.
    fn supervised(state: &StateDir) -> Result<Vec<String>, Failure> {
        if let Ok(Some(ledger)) = LedgerSnapshot::read(state) {
            return Ok(ledger.entries.into_iter().map(|it| it.name).collect());
        }
        let report = match client::block_on(client::status(state))? {
            Ok(report) => report,
            // Its ledger is damaged.
            Err(RequestError::NoSupervisor(_)) => match mainstay_host::orphans(state) {
                Some(orphans) => orphans.report,
                None => return Ok(Vec::new()),
            },
            Err(error) => return Err(error.into()),
        };
        Ok(report.services.into_iter().map(|it| it.name).collect())
    }

    /// Returns the name of the service.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn installed(&self) -> Option<&Installed> {
        match &self.kind {
            Kind::Installed(installed) => Some(installed),
            Kind::Run | Kind::Embedded => None,
        }
    }

    /// Returns whether the manager runs the program itself, so that there is no supervisor.
    fn is_direct(&self) -> bool {
        self.installed().is_some_and(Installed::is_direct)
    }

    /// Returns the name of the manager in messages.
    fn manager(&self) -> &'static str {
        match &self.kind {
            Kind::Run => "mainstay run",
            Kind::Embedded => "mainstay daemon",
            Kind::Installed(installed) => installed.record().manager.name(),
        }
    }

    /// Collects the evidence and compares it. If it contradicts itself, it is collected again until
    /// two rounds in succession show the same: a service may change while it is looked at. Blocks.
    pub(crate) fn check(&self) -> Checked {
        let mut last = self.look();
        for _ in 1..ROUNDS {
            if last.judgement.verdict != Verdict::Disagree {
                return last;
            }
            thread::sleep(SETTLE);
            let next = self.look();
            let is_stable = next.judgement == last.judgement;
            last = next;
            if is_stable {
                return last;
            }
        }
        if last.judgement.verdict == Verdict::Disagree {
            let finding = Finding {
                cause: "the sources contradicted each other in a different way each time: the \
                        service is changing, or keeps failing"
                    .to_owned(),
                hint: Some(format!(
                    "see what happens: mainstay events {} -f",
                    self.name
                )),
                sources: Vec::new(),
            };
            last.judgement.findings.insert(0, finding);
        }
        last
    }

    /// Collects the evidence once.
    fn look(&self) -> Checked {
        let defined = self.defined();
        let mut evidence = registration::ask(self);
        if let Some(defined) = &defined {
            registration::look_for_program(defined, &mut evidence);
        }
        let supervisor = supervisor::ask(self);
        evidence.extend(supervisor);
        let recorded = ledger::ask(self);
        let tree = recorded.tree.clone();
        evidence.extend(recorded.evidence);
        evidence.extend(manager::ask(self));
        let members = processes::members(self, tree.as_ref());
        evidence.extend(cgroup::of_tree(tree.as_ref()));
        evidence.push(processes::ask(
            self,
            defined.as_ref(),
            tree.as_ref(),
            &evidence,
        ));
        if let Some(defined) = &defined {
            evidence.extend(readiness::ask(defined, members.as_ref(), &evidence));
        }
        evidence.extend(events::ask(self));
        let subject = Subject {
            name: &self.name,
            manager: self.manager(),
        };
        let judgement = judge(subject, &evidence);
        Checked {
            evidence,
            judgement,
        }
    }

    /// Returns the definition, if it can be read.
    fn defined(&self) -> Option<Defined> {
        match &self.kind {
            Kind::Installed(installed) => {
                let registered = installed.registered().ok()??;
                Some(Defined {
                    spec: installed.current()?,
                    base_dir: registered.definition.base_dir.into(),
                })
            }
            Kind::Embedded | Kind::Run => {
                let found = mainstay_host::definitions::of_service(&self.state, &self.name)?;
                Some(Defined {
                    spec: (*found.spec).clone(),
                    base_dir: found.dir,
                })
            }
        }
    }
}

/// Returns all claims of the sources that answered.
fn claims(evidence: &[Evidence]) -> impl Iterator<Item = &Claim> {
    let known = evidence.iter().filter_map(|it| it.answer.as_ref().ok());
    known.flat_map(|it| &it.claims)
}

/// Creates the evidence of a source that answered.
fn known(source: Source, asked: impl Into<String>, observation: Observation) -> Evidence {
    Evidence {
        source,
        asked: asked.into(),
        answer: Ok(observation),
    }
}

/// Creates the evidence of a source that did not answer, for the given reason.
fn unknown(source: Source, asked: impl Into<String>, why: impl Into<String>) -> Evidence {
    Evidence {
        source,
        asked: asked.into(),
        answer: Err(why.into()),
    }
}
