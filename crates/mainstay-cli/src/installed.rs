//! Services that the system's own manager runs, each through `mainstay host`: where they lie, what the manager is told, how they are.
//!
//! ```text
//! STATE/installed/NAME/manifest.toml   what it is (or .yaml, .json): for administrators to write, and its account to read
//! STATE/installed/NAME/state/          what its host keeps, see `state_dir.rs`: its account's own
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use mainstay::{Account, Definition, ErrorKind, Recovery, ServiceStatus, State};
use mainstay_core::engine::StateName;
use mainstay_core::manifest::Format;
use mainstay_core::report::{LastExit, ServiceReport};
use mainstay_core::spec::{self, Need, ServiceName, Spec};

use crate::client;
use crate::failure::{Code, Failure};
use crate::host::sys;
use crate::manifest_file::Loaded;
use crate::state_dir::{self, StateDir};
use crate::verbs::control::Verb;
use crate::verbs::host::MARGIN;

/// How long files of a process that has just ended may be in use.
const RELEASE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// The place of a service that the system's manager runs; it need not be there.
pub(crate) struct Installed {
    name: ServiceName,
    place: PathBuf,
    state: StateDir,
}

/// What an installation has brought about.
pub(crate) struct Done {
    pub(crate) is_new: bool,
    /// What this system cannot keep, one text each.
    pub(crate) losses: Vec<String>,
}

impl Installed {
    pub(crate) fn at(state: &StateDir, name: &ServiceName) -> Self {
        let place = state.installed_dir().join(name.as_str());
        Self {
            state: state.at(place.join("state")),
            place,
            name: name.clone(),
        }
    }

    /// The service of this name, if it is there.
    pub(crate) fn find(state: &StateDir, name: &str) -> Option<Self> {
        let installed = Self::at(state, &ServiceName::new(name)?);
        installed.manifest().is_some().then_some(installed)
    }

    /// All of them, by name.
    pub(crate) fn all(state: &StateDir) -> Vec<Self> {
        let entries = fs::read_dir(state.installed_dir());
        let names = entries.into_iter().flatten().flatten();
        let mut all: Vec<Self> = names
            .filter_map(|entry| Self::find(state, entry.file_name().to_str()?))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Its copy of its manifest.
    fn manifest(&self) -> Option<PathBuf> {
        let formats = [Format::Toml, Format::Yaml, Format::Json];
        let paths = formats.map(|format| self.manifest_path(format));
        paths.into_iter().find(|path| path.exists())
    }

    fn manifest_path(&self, format: Format) -> PathBuf {
        self.place.join(format!("manifest.{}", format.name()))
    }

    /// For all that needs no more than its name.
    fn service(&self) -> Definition {
        mainstay::service(self.name.as_str())
    }

    /// Makes `spec` a service of this system, or the installed one what `spec` says. Where that fails everything is as it was.
    pub(crate) fn install(
        &self,
        spec: &Spec,
        manifest: &Loaded,
        account: Account,
    ) -> Result<Done, Failure> {
        let old = self.manifest();
        if old.is_none() && self.service().status().is_ok() {
            let message = format!(
                "install {}: this system has a service of that name",
                self.name
            );
            let failure = Failure::new(Code::Failed, message);
            return Err(failure.hint("it is not mainstay's: choose another name"));
        }
        let path = self.manifest_path(manifest.format);
        let old = old.map(|path| (fs::read(&path), path));
        let written = self.write(manifest, &path).map_err(|error| {
            let message = format!("write {}: {error}", path.display());
            Failure::new(Code::CannotWrite, message)
        });
        let definition = |()| self.definition(spec, &path, &manifest.dir, account.clone());
        let installed = written
            .and_then(definition)
            .and_then(|it| Ok(it.install()?));
        let installed = installed.and_then(|done| {
            let losses = match self.entrust(&account) {
                Ok(losses) => losses,
                Err(error) => {
                    if done.is_new {
                        self.service().uninstall()?;
                    }
                    let message = format!("set the access to {}: {error}", self.place.display());
                    return Err(Failure::new(Code::PermissionDenied, message));
                }
            };
            Ok(Done {
                is_new: done.is_new,
                losses: done.losses.into_iter().chain(losses).collect(),
            })
        });
        match (&installed, old) {
            (Ok(_), Some((_, old_path))) if old_path != path => drop(fs::remove_file(old_path)),
            (Err(_), Some((Ok(text), old_path))) => {
                if old_path != path {
                    drop(fs::remove_file(&path));
                }
                drop(state_dir::write_private(&old_path, &text));
            }
            (Err(_), None) => drop(fs::remove_dir_all(&self.place)),
            _ => {}
        }
        installed
    }

    fn write(&self, manifest: &Loaded, path: &Path) -> io::Result<()> {
        #[cfg(windows)]
        if let Some(all) = self.place.parent() {
            state_dir::create_private_dir(all)?;
            sys::entrust(all, None)?;
        }
        state_dir::create_private_dir(self.state.path())?;
        state_dir::write_private(path, manifest.text.as_bytes()).map(drop)
    }

    /// Beyond administrators its account may read the manifest, and write its state.
    #[cfg(windows)]
    fn entrust(&self, account: &Account) -> io::Result<Vec<String>> {
        let service = self.name.as_str();
        let mut losses = Vec::new();
        for (place, access) in [
            (&*self.place, sys::Access::Read),
            (self.state.path(), sys::Access::All),
        ] {
            let is_known = sys::entrust(place, Some((account, service, access)))?;
            let name = account.windows_name(service);
            let loss = || format!("the access of {name} to {}", place.display());
            losses.extend((!is_known).then(loss));
        }
        Ok(losses)
    }

    #[cfg(unix)]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "as on Windows"
    )]
    fn entrust(&self, _account: &Account) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// What the system's manager is told.
    fn definition(
        &self,
        spec: &Spec,
        manifest: &Path,
        base_dir: &Path,
        account: Account,
    ) -> Result<Definition, Failure> {
        let program = std::env::current_exe().map_err(|error| {
            Failure::new(Code::Failed, format!("find the path of mainstay: {error}"))
        })?;
        let arguments = [
            "--state-dir".as_ref(),
            self.state.path().as_os_str(),
            "host".as_ref(),
            self.name.as_str().as_ref(),
            "--manifest".as_ref(),
            manifest.as_os_str(),
            "--base-dir".as_ref(),
            base_dir.as_os_str(),
        ];
        let mut definition = self
            .service()
            .display_name(spec.display_name())
            .executable(program)
            .arguments(arguments)
            .account(account)
            // Its host restarts the program by the contract of its exit codes: only the host itself must come back.
            .recovery(Recovery {
                crashes_only: true,
                ..Recovery::default()
            })
            .windows(|windows| windows.preshutdown(spec.stop().graceful() + MARGIN));
        if let Some(text) = spec.description() {
            definition = definition.description(text);
        }
        for need in spec.needs() {
            definition = definition.needs(match need {
                Need::Service(name) => name.as_str(),
                Need::Os(name) => name,
            });
        }
        Ok(definition)
    }

    /// Stops it and has the system's manager forget it; with `purge` its logs and data go as well.
    pub(crate) fn uninstall(&self, purge: bool) -> Result<(), Failure> {
        self.end_start();
        match self.service().uninstall() {
            // Somebody else did that part.
            Err(error) if error.kind() == ErrorKind::NotInstalled => {}
            done => done?,
        }
        let cannot = |path: &Path, error: io::Error| {
            let message = format!("remove {}: {error}", path.display());
            Failure::new(Code::CannotWrite, message)
        };
        if let Some(path) = self.manifest() {
            fs::remove_file(&path).map_err(|error| cannot(&path, error))?;
        }
        if purge {
            remove_all(&self.place).map_err(|error| cannot(&self.place, error))?;
        }
        Ok(())
    }

    /// Has the system's manager do it, and waits until it is done. What is so already is no failure.
    pub(crate) fn control(&self, verb: Verb) -> Result<ServiceReport, Failure> {
        let service = self.service();
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
            Err(error) if Some(error.kind()) == is_so_already => {}
            done => done?,
        }
        self.report()
    }

    /// The Service Control Manager passes nothing on to a service that is starting: its host is asked itself. A hope, not more.
    fn end_start(&self) {
        let is_starting = |status: ServiceStatus| status.state == State::StartPending;
        if self.service().status().is_ok_and(is_starting) {
            let stopped = client::request(&self.state, self.name.as_str(), Verb::Stop.as_str());
            drop(client::block_on(stopped));
        }
    }

    /// What the system's manager says, with what its host says, where that answers.
    pub(crate) fn report(&self) -> Result<ServiceReport, Failure> {
        let status = self.service().status()?;
        let answer = client::block_on(client::status(&self.state))?;
        let hosted = answer
            .ok()
            .and_then(|report| report.services.into_iter().next());
        let report = hosted.unwrap_or_else(|| self.by_manager(&status));
        Ok(ServiceReport {
            manager: "windows".to_owned(),
            mode: "hosted".to_owned(),
            ..report
        })
    }

    fn by_manager(&self, status: &ServiceStatus) -> ServiceReport {
        let is_stopped = status.state == State::Stopped;
        // A manager may be the last to know.
        let is_gone = status.pid.is_some_and(sys::is_dead);
        ServiceReport {
            name: self.name.to_string(),
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
            pid: None,
            ready: false,
            since: None,
            since_seconds: None,
            restarts: 0,
            last_exit: status
                .exit_code()
                .filter(|_| is_stopped)
                .map(|code| LastExit {
                    code: Some(code.cast_signed()),
                    signal: None,
                }),
            manager: String::new(),
            mode: String::new(),
            version: None,
            etag: None,
            detail: match is_stopped {
                true => status.exit_code().is_none().then(|| status.to_string()),
                false if is_gone => Some(format!("its host is gone; the manager says: {status}")),
                false => Some(format!("its host says nothing; the manager says: {status}")),
            },
            log_problem: None,
            cpu_ms: None,
            memory_bytes: None,
        }
    }
}

/// As soon as a process that has just ended lets go of it.
fn remove_all(dir: &Path) -> io::Result<()> {
    let deadline = Instant::now() + RELEASE;
    loop {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if Instant::now() < deadline => thread::sleep(LOOK),
            done => return done,
        }
    }
}

/// Whom the manager is to run it as. `None` of a manifest is the one with the fewest rights.
pub(crate) fn account(of: Option<&spec::Account>) -> Account {
    match of {
        None | Some(spec::Account::Virtual | spec::Account::Dynamic) => Account::Virtual,
        Some(spec::Account::LocalSystem) => Account::LocalSystem,
        Some(spec::Account::LocalService) => Account::LocalService,
        Some(spec::Account::NetworkService) => Account::NetworkService,
        Some(spec::Account::User(name)) => Account::User(name.clone(), None),
        Some(spec::Account::Gmsa(name)) => Account::Managed(name.clone()),
    }
}
