//! Updates without a supervisor that could try the definition: the manager runs the program itself,
//! the host must be replaced, or the host is gone. The manager stops the old run and starts the new
//! one, and its status decides.

use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mainstay::{Manager, Scope};
use mainstay_api::{GivenUp, Verb};
use mainstay_core::engine::{StateName, Style, TrialPhase};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::report::{LastExit, ServiceReport};
use mainstay_core::snapshot::{Reason, SnapshotId};
use mainstay_core::spec::Spec;
use mainstay_store::snapshot::{CallOff, Created, Occasion, Replaced, Store, Wait, Which};

use super::{Change, Trial, Untried, UpdateError};
use crate::installed::Installed;
use crate::margins::MARGIN;

/// The polling interval for the manager's status.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const LAST_LINES: &str = "10";

impl Change<'_> {
    /// Performs the update by stopping and starting the service. A stopped service is not started,
    /// unless it has failed and is therefore meant to run.
    pub(crate) fn by_manager(&self, installed: &Installed) -> Result<Trial, UpdateError> {
        let was = installed.report()?;
        let is_up = was.state != StateName::Stopped;
        let is_failure = |exit: LastExit| exit.code != Some(0);
        if !is_up && !was.last_exit.is_some_and(is_failure) {
            self.site.put(self.new.0, self.new.1)?;
            return Ok(Err(Untried::Stopped));
        }
        if is_up {
            installed.control(Verb::Stop)?;
        }
        let old = installed.spec(self.old.0)?;
        let mut kept = None;
        let tried = keep_state(installed, &old)
            .map_err(UpdateError::Failed)
            .and_then(|snapshot| {
                kept = snapshot;
                self.start(installed)
            });
        if let Err(error) = tried {
            self.go_back(installed, &old, kept, is_up)?;
            return Err(error);
        }
        Ok(Ok(Style::Restart))
    }

    fn start(&self, installed: &Installed) -> Result<(), UpdateError> {
        self.site.put(self.new.0, self.new.1)?;
        let spec = installed.spec(self.new.0)?;
        let give_up = |phase, why: &str| {
            UpdateError::GivenUp(Box::new(GivenUp {
                style: Some(Style::Restart),
                ..GivenUp::new(phase, why, last_lines(installed))
            }))
        };
        let started = installed.control(Verb::Start);
        started.map_err(|failure| give_up(TrialPhase::Start, failure.message()))?;
        let until = Instant::now() + spec.start().timeout() + MARGIN;
        let first = loop {
            let report = installed.report()?;
            match report.state {
                StateName::Running if report.ready => break report,
                StateName::Running | StateName::StartPending | StateName::Waiting => {}
                _ => return Err(give_up(TrialPhase::Start, &state(&report))),
            }
            if Instant::now() > until {
                return Err(give_up(TrialPhase::Ready, "it was not ready in time"));
            }
            thread::sleep(POLL_INTERVAL);
        };
        let until = Instant::now() + self.canary;
        loop {
            let report = installed.report()?;
            if !report.ready || report.pid != first.pid || report.restarts != first.restarts {
                let what = if report.pid == first.pid {
                    state(&report)
                } else {
                    format!("its program exited; {}", state(&report))
                };
                return Err(give_up(TrialPhase::Canary, &what));
            }
            if Instant::now() >= until {
                return Ok(());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Restores the old definition and its state. Continues after failures as far as possible.
    fn go_back(
        &self,
        installed: &Installed,
        old: &Spec,
        kept: Option<SnapshotId>,
        is_up: bool,
    ) -> Result<(), Failure> {
        let stopped = installed.control(Verb::Stop).map(drop);
        let restored = kept.map_or(Ok(()), |snapshot| {
            let store = store(installed, old);
            let mut session = store.lock(Wait::UntilFree)?;
            session.restore(Which::Exactly(snapshot), Replaced::Keep)?;
            session.finish();
            Ok(())
        });
        let put = self.site.put(self.old.0, self.old.1);
        let done = stopped.and(restored).and(put);
        let done = done.and_then(|()| {
            if is_up {
                installed.control(Verb::Start).map(drop)
            } else {
                Ok(())
            }
        });
        done.map_err(|failure| {
            let name = installed.name();
            let message = format!(
                "cannot update {name}: the update failed, and so did the rollback: {}",
                failure.message()
            );
            let hint = format!("fix the cause, then restart it: mainstay restart {name}");
            Failure::new(Code::Failed, message).hint(hint)
        })
    }
}

fn state(report: &ServiceReport) -> String {
    let exit = report.last_exit.map(|exit| match (exit.code, exit.signal) {
        (Some(code), _) => format!("its last run ended with code {code}"),
        (None, Some(signal)) => format!("its last run was killed by signal {signal}"),
        (None, None) => "its last run ended with an unknown status".to_owned(),
    });
    let why = report.detail.clone().or(exit);
    report.it_is(why.as_deref())
}

fn store(installed: &Installed, spec: &Spec) -> Store {
    let seam = Arc::new(CallOff::default());
    Store::new(installed.state(), spec.name(), spec.snapshot(), seam)
}

/// Takes a snapshot of a stopped service to return to, if the service has snapshots.
fn keep_state(installed: &Installed, spec: &Spec) -> Result<Option<SnapshotId>, Failure> {
    let Some(policy) = spec.snapshot().filter(|_| !installed.is_direct()) else {
        return Ok(None);
    };
    let paths = installed.state().kept_paths(policy, spec.name().as_str());
    let store = store(installed, spec);
    let mut session = store.lock(Wait::UntilFree)?;
    session.finish();
    let occasion = Occasion {
        reason: Reason::Update,
        stable: false,
        only_if_changed: false,
    };
    let created = session.create(&paths, occasion)?;
    session.prune(policy.keep())?;
    Ok(match created {
        Created::Taken(index) => Some(index.id),
        Created::Unchanged => None,
    })
}

/// Returns the last lines that the program wrote, if they can be queried. Best effort.
fn last_lines(installed: &Installed) -> Vec<String> {
    let (name, unit) = (installed.name().as_str(), installed.manager_name());
    let command = match (installed.is_direct(), installed.record().manager) {
        (true, Manager::Systemd) => {
            let mut command = Command::new("journalctl");
            command.args(["--output=cat", "--no-pager", "--lines", LAST_LINES]);
            // Matches the output of the unit's processes, and not messages about the unit.
            command.arg(match installed.record().scope() {
                Scope::User => format!("_SYSTEMD_USER_UNIT={unit}.service"),
                _ => format!("_SYSTEMD_UNIT={unit}.service"),
            });
            Ok(command)
        }
        (true, _) => return Vec::new(),
        (false, _) => std::env::current_exe().map(|program| {
            let mut command = Command::new(program);
            command.arg("--state-dir").arg(installed.state().path());
            command.args(["logs", name, "-n", LAST_LINES]);
            command
        }),
    };
    let output = command.and_then(|mut command| command.output());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
