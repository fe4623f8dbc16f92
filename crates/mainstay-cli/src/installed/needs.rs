//! Whether what a hosted service needs is running. Managers are told an order of starts and nothing more (`Wants=`), so that a need that stops
//! leaves its dependents running. A failed need therefore does not keep a dependent from being started: this check does.
//!
//! A host asks before it starts its program. Under systemd it may run as an account that systemd and the message bus do not answer, so the
//! same check is a command of its own there, which systemd runs first with its own rights (`ExecStartPre=+`).

use std::thread;
use std::time::{Duration, Instant};

use mainstay::{Context, ErrorKind, Manager, ServiceStatus, State};
use mainstay_core::engine::StateName;
use mainstay_core::spec::{Need, Spec};

use super::Installed;
use crate::client;
use crate::completed;
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
    /// Nothing is bringing it up.
    is_down: bool,
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
                    return Err(failure(&self.name, need, &lack));
                }
                thread::sleep(LOOK);
            }
        }
        Ok(true)
    }

    /// By what its manager says, and by its host, which knows whether its program is ready.
    fn lack(&self, name: &str, need: &Need) -> Option<Lack> {
        let manager = self.record.manager;
        let is_ours = matches!(need, Need::Service(_));
        let service = mainstay::service(name).manager(manager);
        let is_systemd = manager == Manager::Systemd;
        let hosted = self.hosted_need(need);
        let (why, is_final, is_down) = match service.scope(self.record.scope()).status() {
            Ok(status) if satisfies(&status, is_ours, manager) => return hosted?.unready(),
            Ok(status)
                if has_ended_cleanly(&status) && hosted.is_some_and(|it| it.is_completed()) =>
            {
                return None;
            }
            // systemd has started it before: `After=`.
            Ok(status) => (
                format!("which {}", words(&status)),
                is_systemd && status.state == State::Stopped,
                status.state == State::Stopped,
            ),
            // Other managers also order by names that are no services.
            Err(_) if !is_ours && !is_systemd => return None,
            Err(error) if error.kind() == ErrorKind::NotInstalled => {
                (format!("which {manager} does not have"), is_systemd, true)
            }
            Err(error) => (crate::failure::chain(&error), false, false),
        };
        Some(Lack {
            why,
            is_final,
            is_down,
        })
    }

    /// A need that has a host.
    fn hosted_need(&self, need: &Need) -> Option<Self> {
        let Need::Service(name) = need else {
            return None;
        };
        let all = self.place.ancestors().nth(2)?.to_owned();
        let found = Self::find(&StateDir::locate(Some(all)).ok()?, name.as_str());
        found.filter(|it| !it.is_direct())
    }

    /// It was ready and ended cleanly since the system was started.
    fn is_completed(&self) -> bool {
        completed::is_stored(&self.state)
    }

    /// Why it is not ready, by its host. A host that does not answer leaves it to the manager.
    fn unready(&self) -> Option<Lack> {
        let report = client::block_on(client::status(&self.state)).ok()?.ok()?;
        let service = report.services.into_iter().next()?;
        // Its host is about to end.
        let is_ending = service.state == StateName::Stopped && self.is_completed();
        let is_up = matches!(
            service.state,
            StateName::Running
                | StateName::Paused
                | StateName::PausePending
                | StateName::ContinuePending
        );
        let remark = service.remark().map(|remark| format!(": {remark}"));
        (!is_up && !is_ending).then(|| Lack {
            why: format!("which is {}{}", service.state, remark.unwrap_or_default()),
            is_final: false,
            is_down: false,
        })
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

fn has_ended_cleanly(status: &ServiceStatus) -> bool {
    status.state == State::Stopped && status.code == 0
}

fn words(status: &ServiceStatus) -> String {
    match (status.state, status.code, status.own_code) {
        (State::Stopped, 0, _) => "is stopped".to_owned(),
        (State::Stopped, _, 0) => "has failed".to_owned(),
        (State::Stopped, _, code) => format!("has failed with code {code}"),
        _ => format!("is {}", super::words(status)),
    }
}

fn failure(name: &impl std::fmt::Display, need: &Need, lack: &Lack) -> Failure {
    let (shown, start, look) = match need {
        Need::Service(need) => (
            need.to_string(),
            format!("mainstay start {need}"),
            format!("see `mainstay status {need}` and `mainstay logs {need} -n 20`"),
        ),
        Need::Os(need) => (
            format!("os:{need}"),
            format!("start {need}"),
            format!("see why {need} is not up"),
        ),
    };
    let message = format!("{name} needs {shown}, {}", lack.why);
    // One that is being started needs no other start.
    let first = if lack.is_down { start } else { look };
    let hint = format!("{first}, then mainstay start {name}; or remove it from `needs`");
    Failure::new(Code::MissingPart, message).hint(hint)
}
