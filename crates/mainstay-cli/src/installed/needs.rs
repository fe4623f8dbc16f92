//! Whether what a hosted service needs is running. Managers are told an order of starts and nothing more (`Wants=`), so that a need that stops
//! leaves its dependents running. A failed need therefore does not keep a dependent from being started: this check does.
//!
//! A host asks before it starts its program. Under systemd it may run as an account that systemd and the message bus do not answer, so the
//! same check is a command of its own there, which systemd runs first with its own rights (`ExecStartPre=+`).

use std::thread;
use std::time::{Duration, Instant};

use mainstay::{Context, ErrorKind, Manager, ServiceStatus, State};
use mainstay_core::spec::{Need, Spec};

use super::Installed;
use crate::failure::{Code, Failure};
use crate::start_failure::StartFailure;
use crate::state_dir::StateDir;

/// The pause between two questions.
const LOOK: Duration = Duration::from_millis(200);

/// Why a need does not count as running.
struct Lack {
    why: String,
    /// Waiting will not change it.
    is_final: bool,
}

impl Installed {
    /// The service of a host, by the state directory that only this host has. `None` if it is elsewhere: a dynamic account's.
    pub(crate) fn of_host(state: &StateDir, name: &str) -> Option<Self> {
        let all = state.path().ancestors().nth(3)?;
        Self::find(&StateDir::locate(Some(all.to_owned())).ok()?, name)
    }

    /// Whether systemd checks its needs before it starts its host.
    pub(super) fn is_checked_before(&self) -> bool {
        self.record.manager == Manager::Systemd
    }

    /// Waits until everything that this service needs is running, or its host is told to stop: `false` then. A host that systemd has started
    /// returns at once.
    pub(crate) fn wait_for_needs(&self, spec: &Spec, context: &Context) -> Result<bool, Failure> {
        match self.is_checked_before() || cfg!(windows) {
            // The Service Control Manager starts nothing before what it depends on runs, and stops nothing that something depends on.
            true => Ok(true),
            false => self.await_needs(spec, context),
        }
    }

    /// The same before its host is started; stores why it is not.
    pub(crate) fn check_needs(&self, spec: &Spec, context: &Context) -> Result<(), Failure> {
        let done = self.await_needs(spec, context);
        done.map(drop)
            .inspect_err(|failure| StartFailure::write(&self.state, failure))
    }

    /// Waits, for `start.timeout` at most, until everything that this service needs is running.
    fn await_needs(&self, spec: &Spec, context: &Context) -> Result<bool, Failure> {
        let deadline = Instant::now() + spec.start().timeout();
        for need in spec.needs() {
            while let Some(lack) = self.lack(spec.manager_name_of(need), need) {
                if context.status().is_stopping() {
                    return Ok(false);
                }
                if lack.is_final || Instant::now() >= deadline {
                    return Err(failure(&self.name, need, &lack.why));
                }
                thread::sleep(LOOK);
            }
        }
        Ok(true)
    }

    /// By what its manager says.
    fn lack(&self, name: &str, need: &Need) -> Option<Lack> {
        let manager = self.record.manager;
        let is_ours = matches!(need, Need::Service(_));
        let service = mainstay::service(name).manager(manager);
        let is_systemd = manager == Manager::Systemd;
        let (why, is_final) = match service.scope(self.record.scope()).status() {
            Ok(status) if satisfies(&status, is_ours, manager) => return None,
            // systemd has started it before: `After=`.
            Ok(status) => (words(&status), is_systemd && status.state == State::Stopped),
            // Other managers also order by names that are no services.
            Err(_) if !is_ours && !is_systemd => return None,
            Err(error) if error.kind() == ErrorKind::NotInstalled => {
                (format!("which {manager} does not have"), is_systemd)
            }
            Err(error) => (crate::failure::chain(&error), false),
        };
        Some(Lack { why, is_final })
    }
}

/// Whether a need of this manager is as good as running.
fn satisfies(status: &ServiceStatus, is_ours: bool, manager: Manager) -> bool {
    let has_failed = status.code != 0;
    match (status.state, manager) {
        (State::Stopped, Manager::Systemd) if !is_ours => !has_failed,
        // Not every script of others has the answers of the LSB.
        (State::Stopped, Manager::Sysv) if !is_ours => has_failed,
        (State::Stopped, _) => false,
        // Of services that are not supervised, other managers tell no more.
        (State::StartPending | State::StopPending, _) => !is_ours && manager != Manager::Systemd,
        _ => true,
    }
}

fn words(status: &ServiceStatus) -> String {
    match (status.state, status.code, status.own_code) {
        (State::Stopped, 0, _) => "which is stopped".to_owned(),
        (State::Stopped, _, 0) => "which has failed".to_owned(),
        (State::Stopped, _, code) => format!("which has failed with code {code}"),
        (state, ..) => format!("which is {state}"),
    }
}

fn failure(name: &impl std::fmt::Display, need: &Need, why: &str) -> Failure {
    let (shown, hint) = match need {
        Need::Service(need) => (need.to_string(), format!("mainstay start {need}")),
        Need::Os(need) => (format!("os:{need}"), format!("start {need}")),
    };
    let message = format!("{name} needs {shown}, {why}");
    let hint = format!("{hint}, then mainstay start {name}; or remove it from `needs`");
    Failure::new(Code::MissingPart, message).hint(hint)
}
