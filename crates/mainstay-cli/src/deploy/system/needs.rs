//! The check that the needs of a hosted service are running. Managers only receive a start order
//! (`Wants=`), so that stopping a need leaves its dependents running. A failed need therefore does
//! not prevent the start of a dependent; this check does.
//!
//! A host checks before it starts its program. Under systemd, the host may run as an account that
//! systemd and the message bus do not answer. There the check is a separate command, which systemd
//! runs first with full privileges (`ExecStartPre=+`).

use std::thread;
use std::time::{Duration, Instant};

use mainstay::{Context, ErrorKind, Manager, ServiceStatus, State};
use mainstay_core::engine::StateName;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::spec::{Need, Spec};
use mainstay_store::completed;
use mainstay_store::start_failure::StartFailure;
use mainstay_store::state_dir::StateDir;

use crate::client;
use crate::installed::Installed;

/// The polling interval.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The reason why a need does not count as running.
struct Lack {
    why: String,
    /// Set if waiting cannot help.
    is_final: bool,
    /// Set if nothing is starting it.
    is_down: bool,
}

impl Installed {
    /// Returns the installed service that a host with this state directory runs. `None` if the
    /// state directory is elsewhere, as for a dynamic account.
    pub(crate) fn of_host(state: &StateDir, name: &str) -> Option<Self> {
        let all = state.path().ancestors().nth(3)?;
        Self::find(&StateDir::locate(Some(all.to_owned())).ok()?, name)
    }

    /// Returns whether systemd checks the needs before it starts the host.
    pub(super) fn is_checked_before(&self) -> bool {
        self.record.manager == Manager::Systemd
    }

    /// Waits until all needs of this service are running. Returns `false` if the host is asked to
    /// stop first. A host started by systemd returns at once.
    pub(crate) fn wait_for_needs(&self, spec: &Spec, context: &Context) -> Result<bool, Failure> {
        if self.is_checked_before() || cfg!(windows) {
            // The Service Control Manager starts a service only after its dependencies run, and
            // does not stop a service that others depend on.
            Ok(true)
        } else {
            self.await_needs(spec, context)
        }
    }

    /// Runs the check before the host starts, and stores the failure, if any.
    pub(crate) fn check_needs(&self, spec: &Spec, context: &Context) -> Result<(), Failure> {
        let done = self.await_needs(spec, context);
        done.map(drop)
            .inspect_err(|failure| StartFailure::write(&self.state, failure))
    }

    /// Waits until all needs of this service are running, for at most `start.timeout`.
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
                thread::sleep(POLL_INTERVAL);
            }
        }
        Ok(true)
    }

    /// Checks the state reported by the manager and the readiness reported by the need's host.
    fn lack(&self, name: &str, need: &Need) -> Option<Lack> {
        let manager = self.record.manager;
        let is_ours = matches!(need, Need::Service(_));
        let service = mainstay::service(name).manager(manager);
        let is_systemd = manager == Manager::Systemd;
        let hosted = self.hosted_need(need);
        let (why, is_final, is_down) = match service.scope(self.record.scope()).status() {
            Ok(status) if satisfies(&status, is_ours, manager) => return hosted?.unready(),
            // The manager may have seen the host exit before it took note of its start.
            Ok(_) if hosted.is_some_and(|it| it.has_completed()) => return None,
            // systemd has started it before (`After=`).
            Ok(status) => (
                format!("which {}", words(&status)),
                is_systemd && status.state == State::Stopped,
                status.state == State::Stopped,
            ),
            // Other managers also accept names that are not services for ordering.
            Err(_) if !is_ours && !is_systemd => return None,
            Err(error) if error.kind() == ErrorKind::NotInstalled => (
                format!("which does not exist in {manager}"),
                is_systemd,
                true,
            ),
            Err(error) => (mainstay_core::failure::chain(&error), false, false),
        };
        Some(Lack {
            why,
            is_final,
            is_down,
        })
    }

    /// Returns a need that has a host.
    fn hosted_need(&self, need: &Need) -> Option<Self> {
        let Need::Service(name) = need else {
            return None;
        };
        let all = self.place.ancestors().nth(2)?.to_owned();
        let found = Self::find(&StateDir::locate(Some(all)).ok()?, name.as_str());
        found.filter(|it| !it.is_direct())
    }

    /// Returns the reason why the service is not ready, as reported by its host. If the host does
    /// not respond, the manager's report is decisive.
    fn unready(&self) -> Option<Lack> {
        let report = client::block_on(client::status(&self.state)).ok()?.ok()?;
        let service = report.services.into_iter().next()?;
        // The service has completed, and its host is about to exit.
        let is_ending = service.state == StateName::Stopped && completed::is_stored(&self.state);
        let is_up = matches!(
            service.state,
            StateName::Running
                | StateName::Paused
                | StateName::PausePending
                | StateName::ContinuePending
        );
        let remark = service.remark().map(|remark| format!(": {remark}"));
        (!is_up && !is_ending).then(|| Lack {
            why: format!(
                "which {}{}",
                service.state.predicate(),
                remark.unwrap_or_default()
            ),
            is_final: false,
            is_down: false,
        })
    }
}

/// Returns whether a need counts as running, given the manager's report.
fn satisfies(status: &ServiceStatus, is_ours: bool, manager: Manager) -> bool {
    let has_failed = status.code != 0;
    match (status.state, manager) {
        (State::Stopped, Manager::Systemd) if !is_ours => !has_failed,
        // Some third-party scripts do not return the exit codes of the LSB.
        (State::Stopped, Manager::Sysv) if !is_ours => has_failed,
        (State::Stopped, _) => false,
        // For services that are not supervised, other managers report no more than this.
        (State::StartPending | State::StopPending, _) => !is_ours && manager != Manager::Systemd,
        _ => true,
    }
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
            format!("check why {need} is not running"),
        ),
    };
    let message = format!("{name} needs {shown}, {}", lack.why);
    // A need that is starting does not need another start.
    let first = if lack.is_down { start } else { look };
    let hint = format!("{first}, then mainstay start {name}; or remove it from `needs`");
    Failure::new(Code::MissingPart, message).hint(hint)
}
