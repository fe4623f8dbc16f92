//! Services of the system's managers: their definitions, installation, control and reports.

mod definition;
mod install;
mod needs;
mod order;
#[cfg(unix)]
mod reach;
mod registered;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use mainstay::{Definition, ErrorKind, Manager, ServiceStatus, State};
use mainstay_api::Verb;
use mainstay_core::engine::StateName;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest::{self, Format};
use mainstay_core::registry::Expected;
use mainstay_core::report::{LastExit, ServiceReport};
use mainstay_core::spec::{Need, Spec};
use mainstay_host::output;
use mainstay_store::programs::Programs;
use mainstay_store::registry::Remains;
use mainstay_store::start_failure::StartFailure;
use mainstay_store::state_dir::StateDir;
use mainstay_store::{completed, halted};
use mainstay_sys as sys;

pub(crate) use self::definition::account;
pub(crate) use self::install::{install_all, plan_all, put};
pub(crate) use self::order::{Order, Wanted};
pub(crate) use self::registered::{Kept, kept, programs};
use super::registered::set_version;
use super::{Enablement, refuse_hung, refuse_irregular, replaced};
use crate::client;
use crate::installed::{Installed, Mode};
use crate::last_event;
use crate::library_failure::of_library;
use crate::margins::host_start_timeout;
use crate::not_found;
use crate::request_error::RequestError;

/// The directory in which systemd stores the state of dynamic accounts. [`OWN_DIRS`] contains the
/// links to it.
#[cfg(unix)]
const PRIVATE_DIRS: &str = "/var/lib/private";
const OWN_DIRS: &str = "/var/lib";
/// The longest time for which files of an exited process may remain in use.
const RELEASE: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

impl Installed {
    /// Finds the named services, all of which must be installed.
    pub(crate) fn named(state: &StateDir, names: &[String]) -> Result<Vec<Self>, Failure> {
        let find =
            |name: &String| Self::find(state, name).ok_or_else(|| not_found::service(state, name));
        names.iter().map(find).collect()
    }

    /// Returns whether a need of another service refers to this one.
    fn is_meant(&self, need: &Need) -> bool {
        match need {
            Need::Service(name) => *name == self.name,
            Need::Os(name) => {
                let unit = name.strip_suffix(".service");
                *name == self.manager_name || unit == Some(&self.manager_name)
            }
        }
    }

    /// Checks that the service has a host, which provides the requested feature.
    ///
    /// # Errors
    /// If its manager runs the program itself.
    pub(crate) fn check_hosted(&self, what: &str) -> Result<(), Failure> {
        if !self.is_direct() {
            return Ok(());
        }
        let (name, manager) = (&self.name, self.record.manager);
        let message =
            format!("cannot {what} {name}: {manager} runs it directly and receives its output");
        let failure = Failure::new(Code::MissingPart, message);
        Err(failure.hint(match manager {
            Manager::Systemd => format!("journalctl --unit={}", self.manager_name),
            _ => "see the log of the service manager, usually the system log".to_owned(),
        }))
    }

    /// Returns a definition that contains no more than the name, for operations that need nothing
    /// else.
    pub(crate) fn service(&self) -> Definition {
        let service = mainstay::service(&*self.manager_name);
        service
            .manager(self.record.manager)
            .scope(self.record.scope())
    }

    /// Returns whether the system's manager has a service of this name that is not ours. One that
    /// may not be queried exists.
    fn is_foreign(&self) -> bool {
        if self.root.is_some() || self.manifest().is_some() {
            return false;
        }
        match self.service().status() {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::PermissionDenied,
        }
    }

    /// Returns systemd's name for the state directory of a dynamic account.
    fn own_dir(&self) -> String {
        format!("mainstay-{}", self.name)
    }

    /// Stops the service and removes it from the system's manager. Its logs, data and
    /// history are what remains of it.
    pub(crate) fn uninstall(&self, expected: Expected, remains: Remains) -> Result<(), Failure> {
        self.unregister(expected, remains, || self.remove(remains))
    }

    /// Returns the paths of the files that an installation consists of, besides the manager's own.
    fn files(&self) -> Vec<PathBuf> {
        let manifests = Format::ALL.map(|format| self.manifest_path(format));
        let paths = manifests.into_iter().chain([self.record_path()]);
        paths.map(|path| self.here(&path)).collect()
    }

    fn remove(&self, remains: Remains) -> Result<(), Failure> {
        refuse_irregular(&format!("uninstall {}", self.name), self.files())?;
        self.end_start();
        match self.service().uninstall() {
            // It was already removed from the manager.
            Err(error) if error.kind() == ErrorKind::NotInstalled => {}
            done => done.map_err(of_library)?,
        }
        let cannot = |path: &Path, error: io::Error| {
            let message = format!("cannot remove {}: {error}", path.display());
            Failure::new(Code::CannotWrite, message).because_of(&error)
        };
        for path in self.manifest().into_iter().chain([self.record_path()]) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(cannot(&path, error));
                }
                _ => {}
            }
        }
        #[cfg(unix)]
        if remains == Remains::Purge && self.state.path().is_symlink() {
            let own_dir = self.own_dir();
            let (private, shown) = (
                Path::new(PRIVATE_DIRS).join(&own_dir),
                Path::new(OWN_DIRS).join(&own_dir),
            );
            remove_all(&private).map_err(|error| cannot(&private, error))?;
            match fs::remove_file(&shown) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(cannot(&shown, error));
                }
                _ => {}
            }
        }
        if remains == Remains::Purge {
            refuse_hung(&self.state.logs_dir())?;
            let programs = Programs::of_place(&self.place);
            programs
                .purge()
                .map_err(|error| cannot(&self.place, error))?;
            remove_all(&self.place).map_err(|error| cannot(&self.place, error))?;
        }
        Ok(())
    }

    /// Enables or disables the start at boot.
    pub(crate) fn set_enablement(&self, wanted: Enablement) -> Result<(), Failure> {
        let service = self.service();
        let done = match wanted {
            Enablement::Enabled => service.enable(),
            Enablement::Disabled => service.disable(),
        };
        done.map_err(of_library)
    }

    /// Reads the spec from the installed manifest, if possible.
    pub(crate) fn current(&self) -> Option<Spec> {
        let path = self.manifest()?;
        let format = Format::from_extension(path.extension()?.to_str()?)?;
        let text = fs::read_to_string(path).ok()?;
        let mut specs = manifest::parse(&text, format).ok()?.into_iter();
        specs.find(|spec| *spec.name() == self.name)
    }

    /// Returns the needs in the installed manifest.
    fn needs(&self) -> Vec<Need> {
        self.current()
            .map_or_else(Vec::new, |spec| spec.needs().to_vec())
    }

    /// Returns the named services and all installed services that need them, directly or
    /// indirectly, in stop order: dependents come before their needs.
    pub(crate) fn with_dependents(state: &StateDir, names: &[String]) -> Vec<Self> {
        let all: Vec<(Self, Vec<Need>)> = Self::all(state)
            .into_iter()
            .map(|installed| {
                let needs = installed.needs();
                (installed, needs)
            })
            .collect();
        let needs =
            |i: usize, need: usize| i != need && all[i].1.iter().any(|it| all[need].0.is_meant(it));
        let is_named = |i: &usize| names.iter().any(|name| name == all[*i].0.name.as_str());
        let mut chosen: Vec<usize> = (0..all.len()).filter(is_named).collect();
        let mut next = 0;
        while let Some(&need) = chosen.get(next) {
            let is_new = |i: &usize| needs(*i, need) && !chosen.contains(i);
            let new: Vec<usize> = (0..all.len()).filter(is_new).collect();
            chosen.extend(new);
            next += 1;
        }
        let mut order = Vec::with_capacity(chosen.len());
        while !chosen.is_empty() {
            let is_free = |need: &usize| !chosen.iter().any(|&i| needs(i, *need));
            let free = chosen.iter().position(is_free);
            order.push(chosen.remove(free.unwrap_or(0)));
        }
        let mut all: Vec<Option<Self>> = all.into_iter().map(|(it, _)| Some(it)).collect();
        order.into_iter().filter_map(|i| all[i].take()).collect()
    }

    /// Returns the running services that need this one.
    pub(crate) fn running_dependents(&self, state: &StateDir) -> Vec<Self> {
        let needs_it = |other: &Self| other.needs().iter().any(|need| self.is_meant(need));
        let all = Self::all(state).into_iter();
        all.filter(|other| needs_it(other) && other.is_up())
            .collect()
    }

    /// Returns whether the manager reports the service as running or starting.
    pub(crate) fn is_up(&self) -> bool {
        self.service()
            .status()
            .is_ok_and(|status| !matches!(status.state, State::Stopped | State::StopPending))
    }

    /// Stops the service. The report lists the services that need it and keep running.
    pub(crate) fn stop(&self, state: &StateDir) -> Result<ServiceReport, Failure> {
        let dependents = self.running_dependents(state);
        let names: Vec<&str> = dependents.iter().map(|it| it.name.as_str()).collect();
        let mut report = self.control(Verb::Stop).map_err(|failure| {
            // The Service Control Manager does not stop a service that a running service depends
            // on.
            let (need, all) = match names.len() {
                _ if !cfg!(windows) || failure.code() != Code::Failed => return failure,
                0 => return failure,
                1 => ("needs", names.join(", ")),
                _ => ("need", names.join(", ")),
            };
            let message = format!("cannot stop {}: {all} {need} it", self.name);
            let failure = Failure::new(failure.code(), message);
            failure.hint(format!("stop {all} first, or use `--with-dependents`"))
        })?;
        for dependent in &dependents {
            if dependent.is_up() {
                report.needed_by.push(dependent.name.to_string())
            } else {
                output::remark(&format!(
                    "note: {} needs {}, so {} stopped it too",
                    dependent.name, self.name, dependent.record.manager
                ))
            }
        }
        Ok(report)
    }

    /// Performs an operation through the system's manager and waits until it is done. An operation
    /// that has nothing to do succeeds.
    pub(crate) fn control(&self, verb: Verb) -> Result<ServiceReport, Failure> {
        if matches!(verb, Verb::Start | Verb::Restart) {
            completed::clear(&self.state);
        }
        let service = self.service();
        // Unix managers do not ask the program to pause; they freeze it together with its host.
        let is_hosted = self.record.mode == Mode::Hosted;
        if cfg!(unix) && is_hosted && matches!(verb, Verb::Pause | Verb::Continue | Verb::Reload) {
            let done = client::request(&self.state, self.name.as_str(), verb);
            let report = client::block_on(done)??;
            return Ok(self.with_version(self.of_manager(report)));
        }
        if matches!(verb, Verb::Stop | Verb::Restart) {
            self.end_start();
        }
        let (done, is_so_already) = match verb {
            Verb::Start => (service.start_now(), Some(ErrorKind::AlreadyRunning)),
            Verb::Stop => (service.stop(), Some(ErrorKind::NotRunning)),
            Verb::Restart => (service.restart(), None),
            Verb::Pause => (service.pause(), None),
            Verb::Continue => (service.resume(), None),
            Verb::Reload => (service.reload(), None),
        };
        match done {
            // The host may be waiting for its next attempt.
            Err(error) if error.kind() == ErrorKind::AlreadyRunning && is_hosted => {
                let started = client::request(&self.state, self.name.as_str(), verb);
                if let Ok(report) = client::block_on(started)? {
                    return Ok(self.with_version(self.of_manager(report)));
                }
            }
            Err(error) if Some(error.kind()) == is_so_already => {}
            // The report shows why the service is halted, or that it has completed. Some managers
            // treat such a start as failed.
            Err(_) if self.halted().is_some() || completed::is_stored(&self.state) => {}
            Err(error) if matches!(verb, Verb::Start | Verb::Restart) => {
                return Err(self.because(of_library(error)));
            }
            done => done.map_err(of_library)?,
        }
        match verb {
            Verb::Stop => {
                halted::clear(&self.state);
                completed::clear(&self.state);
            }
            Verb::Start | Verb::Restart => return self.outcome(),
            Verb::Pause | Verb::Continue | Verb::Reload => {}
        }
        self.report()
    }

    /// Returns whether the service was ready and exited cleanly since the system booted, and its
    /// host has exited, too.
    fn has_completed(&self) -> bool {
        completed::is_stored(&self.state) && self.state.holder().is_none()
    }

    /// Returns the result of a start. After `start.timeout`, the manager is told that the host is
    /// up even if the program is not. The attempt in progress is awaited, so that its failure is
    /// reported.
    fn outcome(&self) -> Result<ServiceReport, Failure> {
        let attempt = |spec: Spec| host_start_timeout(&spec).saturating_add(spec.stop().graceful());
        let limit = self.current().map_or(Duration::ZERO, attempt);
        let deadline = Instant::now() + limit;
        loop {
            let report = self.report()?;
            let is_over = report.state.is_settled() || report.state == StateName::BackingOff;
            if is_over || Instant::now() >= deadline {
                return Ok(report);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Adds the cause that the host has stored to the failure of a start.
    fn because(&self, failure: Failure) -> Failure {
        let Some(cause) = self.start_failure() else {
            return failure;
        };
        // The stored cause is more specific than the manager's message.
        let (operation, _) = failure
            .message()
            .split_once(": ")
            .unwrap_or((failure.message(), ""));
        let message = format!("{operation}: {}", cause.message);
        let failure = Failure::new(failure.code(), message);
        match cause.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    /// Returns the cause of the last failed start of the host, unless a later one succeeded.
    pub(crate) fn start_failure(&self) -> Option<StartFailure> {
        match self.record.mode {
            Mode::Hosted => StartFailure::load(&self.state),
            Mode::Direct => None,
        }
    }

    /// Returns the last report of the host, if it ended because the service is halted and no later
    /// start failed.
    fn halted(&self) -> Option<ServiceReport> {
        match (self.record.mode, self.start_failure()) {
            (Mode::Hosted, None) => halted::load(&self.state),
            _ => None,
        }
    }

    /// Asks a starting host to stop. The Service Control Manager does not forward controls to a
    /// service that is starting. Best effort.
    fn end_start(&self) {
        let is_starting = |status: ServiceStatus| status.state == State::StartPending;
        if cfg!(windows) && self.service().status().is_ok_and(is_starting) {
            let stopped = client::request(&self.state, self.name.as_str(), Verb::Stop);
            drop(client::block_on(stopped));
        }
    }

    /// Returns the manager's status, combined with the host's report if the host responds, and the
    /// registered version.
    pub(crate) fn report(&self) -> Result<ServiceReport, Failure> {
        match self.seen()? {
            (report, Some(denied)) if report.state == StateName::Unknown => Err(denied),
            (report, _) => Ok(self.with_version(report)),
        }
    }

    /// Returns the report without the registered version, and the failure if querying the manager
    /// or the host requires a right that this process lacks.
    pub(crate) fn seen(&self) -> Result<(ServiceReport, Option<Failure>), Failure> {
        let status = match self.service().status() {
            Err(error) if error.kind() == ErrorKind::NotInstalled => {
                let report = self.unfinished_report().ok_or(of_library(error));
                return report.map(|report| (report, None));
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let denied = of_library(error);
                let report = ServiceReport {
                    state: StateName::Unknown,
                    detail: Some(denied.message().to_owned()),
                    ..self.nothing_known()
                };
                return Ok((self.of_manager(report), Some(denied)));
            }
            status => status.map_err(of_library)?,
        };
        let hosted = match self.record.mode {
            Mode::Direct => None,
            Mode::Hosted => Some(client::block_on(client::status(&self.state))?),
        };
        let (report, denied) = match hosted {
            Some(Ok(report)) => (report.services.into_iter().next(), None),
            Some(Err(RequestError::Denied(failure))) if status.state != State::Stopped => {
                (None, Some(failure))
            }
            Some(Err(_)) | None => (None, None),
        };
        let mut report = report.unwrap_or_else(|| {
            let mut report = self.by_manager(&status);
            if !self.is_direct() {
                last_event::explain(&self.state, &mut report);
            }
            if denied.is_some() {
                report.detail = Some(format!("{}: {}", self.record.manager, words(&status)));
            }
            report
        });
        let host = status.pid.filter(|_| !self.is_direct());
        let program = report.pid.filter(|pid| host != Some(*pid));
        let processes = [("its program", program), ("its host", host)];
        report.replaced = replaced(self.name.as_str(), processes);
        Ok((self.of_manager(report), denied))
    }

    /// Adds the manager and the mode to a report.
    fn of_manager(&self, report: ServiceReport) -> ServiceReport {
        ServiceReport {
            manager: self.record.manager.to_string(),
            mode: self.record.mode.as_str().to_owned(),
            ..report
        }
    }

    /// Adds the registered version to a report.
    fn with_version(&self, mut report: ServiceReport) -> ServiceReport {
        set_version(&mut report, &self.registered());
        report
    }

    fn by_manager(&self, status: &ServiceStatus) -> ServiceReport {
        let is_stopped = status.state == State::Stopped;
        if let Some(halted) = self.halted().filter(|_| is_stopped) {
            return halted;
        }
        let is_direct = self.record.mode == Mode::Direct;
        let manager = self.record.manager;
        // The manager may not have noticed the exit yet.
        let is_gone = status.pid.is_some_and(sys::is_dead);
        if !is_direct && self.has_completed() {
            let (code, signal) = (Some(0), None);
            return ServiceReport {
                last_exit: Some(LastExit { code, signal }),
                completed: Some(true),
                ..self.nothing_known()
            };
        }
        ServiceReport {
            state: match status.state {
                _ if is_gone => StateName::Stopped,
                State::Stopped => StateName::Stopped,
                State::StartPending => StateName::StartPending,
                State::StopPending => StateName::StopPending,
                State::Running => StateName::Running,
                State::ContinuePending => StateName::ContinuePending,
                State::PausePending => StateName::PausePending,
                State::Paused => StateName::Paused,
            },
            pid: status.pid.filter(|_| is_direct && !is_gone),
            ready: is_direct && status.state == State::Running && !is_gone,
            last_exit: status
                .exit_code()
                .filter(|_| is_stopped)
                .map(|code| LastExit {
                    code: Some(code.cast_signed()),
                    signal: None,
                }),
            completed: (is_stopped && !is_direct).then(|| completed::is_stored(&self.state)),
            detail: match is_stopped {
                true => {
                    let cause = self.start_failure().map(|failure| failure.line());
                    let has_failed = status.code != 0;
                    cause.or_else(|| has_failed.then(|| format!("{manager}: {}", words(status))))
                }
                false if is_direct && !is_gone => None,
                false if is_gone => Some(format!(
                    "its supervisor is not running; {manager} still reports it as {}",
                    words(status)
                )),
                // The host responds once it has started.
                false if status.state == State::StartPending => Some(words(status)),
                false => Some(format!(
                    "{manager} reports it as {}, but its supervisor does not respond",
                    words(status)
                )),
            },
            ..self.nothing_known()
        }
    }

    fn nothing_known(&self) -> ServiceReport {
        ServiceReport {
            name: self.name.to_string(),
            ..ServiceReport::default()
        }
    }
}

/// Describes a manager's status in words.
fn words(status: &ServiceStatus) -> String {
    let pid = status.pid.map(|pid| format!(" (pid {pid})"));
    let state = match (status.state, status.exit_code()) {
        (State::Stopped, Some(0)) => return "stopped".to_owned(),
        (State::Stopped, Some(code)) => return format!("failed with code {code}"),
        // The code is in the manager's own numbering.
        (State::Stopped, None) => return status.to_string(),
        (State::StartPending, Some(code @ 1..)) => {
            return format!("restarting after code {code}");
        }
        (State::StartPending, _) => "starting",
        (State::StopPending, _) => "stopping",
        (State::PausePending, _) => "pausing",
        (State::ContinuePending, _) => "continuing",
        (State::Running, _) => "running",
        (State::Paused, _) => "paused",
    };
    format!("{state}{}", pid.unwrap_or_default())
}

/// Removes a directory, and retries while an exited process still has files in it open.
fn remove_all(dir: &Path) -> io::Result<()> {
    let deadline = Instant::now() + RELEASE;
    loop {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if Instant::now() < deadline => thread::sleep(POLL_INTERVAL),
            done => return done,
        }
    }
}
