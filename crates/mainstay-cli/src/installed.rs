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

use mainstay::{Account, Definition, ErrorKind, Recovery, ServiceStatus, Start, State, Systemd};
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

/// Where systemd puts the state of accounts that exist only while their services run, and where it shows it.
#[cfg(unix)]
const PRIVATE_DIRS: &str = "/var/lib/private";
const OWN_DIRS: &str = "/var/lib";
const MANIFEST: &str = "manifest";
/// How long files of a process that has just ended may be in use.
const RELEASE: Duration = Duration::from_secs(10);
/// From a crash of a host to its next start.
const HOST_PAUSE: Duration = Duration::from_secs(1);
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

    /// These, all of which must be there.
    pub(crate) fn named(state: &StateDir, names: &[String]) -> Result<Vec<Self>, Failure> {
        let find = |name: &String| {
            Self::find(state, name).ok_or_else(|| {
                let message = format!("no service {name} is installed");
                Failure::new(Code::Unknown, message).hint("`mainstay list` shows those that are")
            })
        };
        names.iter().map(find).collect()
    }

    pub(crate) fn name(&self) -> &ServiceName {
        &self.name
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
        self.place.join(format!("{MANIFEST}.{}", format.name()))
    }

    /// For all that needs no more than its name.
    fn service(&self) -> Definition {
        mainstay::service(self.name.as_str())
    }

    /// Whether the system's manager has a service of that name that is not ours.
    fn is_foreign(&self) -> bool {
        self.manifest().is_none() && self.service().status().is_ok()
    }

    /// Puts a copy of the manifest into its place.
    fn copy(&self, manifest: &Loaded, account: &Account) -> Result<Copied, Failure> {
        let path = self.manifest_path(manifest.format);
        let cannot = |what: &str, path: &Path, error: io::Error| {
            let message = format!("{what} {}: {error}", path.display());
            Failure::new(Code::CannotWrite, message)
        };
        let old = match self.manifest() {
            Some(path) => match fs::read(&path) {
                Ok(text) => Some((path, text)),
                Err(error) => return Err(cannot("read", &path, error)),
            },
            None => None,
        };
        let copied = Copied {
            place: self.place.clone(),
            is_new_place: !self.place.exists(),
            path,
            old,
        };
        match self.write(manifest, &copied.path, account) {
            Ok(()) => Ok(copied),
            Err(error) => {
                let failure = cannot("write", &copied.path, error);
                copied.take_back();
                Err(failure)
            }
        }
    }

    fn write(&self, manifest: &Loaded, path: &Path, account: &Account) -> io::Result<()> {
        #[cfg(windows)]
        if let Some(all) = self.place.parent() {
            state_dir::create_private_dir(all)?;
            sys::entrust(all, None)?;
        }
        self.create_state_dir(account)?;
        state_dir::write_private(path, manifest.text.as_bytes()).map(drop)
    }

    /// What systemd calls the directory of a dynamic account's state.
    fn own_dir(&self) -> String {
        format!("mainstay-{}", self.name)
    }

    #[cfg(windows)]
    fn create_state_dir(&self, _account: &Account) -> io::Result<()> {
        state_dir::create_private_dir(self.state.path())
    }

    /// Its host's own, or a link to where systemd makes it at the first start. What one account has left is not another's.
    #[cfg(unix)]
    fn create_state_dir(&self, account: &Account) -> io::Result<()> {
        let path = self.state.path();
        let is_dynamic = *account == Account::Virtual;
        let is_other = match path.symlink_metadata() {
            Ok(there) => there.is_symlink() != is_dynamic,
            Err(_) => false,
        };
        if is_other {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the state there is that of another account: uninstall it with --purge first",
            ));
        }
        if !is_dynamic {
            return state_dir::create_private_dir(path);
        }
        state_dir::create_private_dir(&self.place)?;
        match std::os::unix::fs::symlink(Path::new(PRIVATE_DIRS).join(self.own_dir()), path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
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

    /// It has that by its place.
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
        let HostPlace {
            state,
            manifest,
            systemd,
        } = self.host_place(manifest, &account);
        let arguments = [
            "--state-dir".as_ref(),
            state.as_os_str(),
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
                restart_after: vec![HOST_PAUSE],
                crashes_only: true,
                ..Recovery::default()
            })
            .start_timeout(spec.start().timeout().saturating_add(MARGIN))
            .graceful(spec.stop().graceful().saturating_add(MARGIN))
            .windows(|windows| windows.preshutdown(spec.stop().graceful() + MARGIN))
            .supervises()
            .systemd(|_| systemd);
        if cfg!(unix) {
            // The program's is in the manifest.
            definition = definition.working_dir("/");
        }
        // What an operator has disabled stays so.
        if self
            .service()
            .is_enabled()
            .is_ok_and(|is_enabled| !is_enabled)
        {
            definition = definition.start(Start::Manual);
        }
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

    /// Where a host of this account finds what is its own. An account that exists only while its service runs owns nothing but what systemd
    /// gives it.
    fn host_place(&self, manifest: &Path, account: &Account) -> HostPlace {
        let systemd = Systemd::default();
        if cfg!(windows) || *account != Account::Virtual {
            return HostPlace {
                state: self.state.path().to_owned(),
                manifest: manifest.to_owned(),
                systemd,
            };
        }
        let name = manifest
            .file_name()
            .unwrap_or_default()
            .display()
            .to_string();
        let own_dir = self.own_dir();
        HostPlace {
            state: Path::new(OWN_DIRS).join(&own_dir),
            manifest: format!("credential:{name}").into(),
            systemd: systemd.state_directory(own_dir).credential(name, manifest),
        }
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
        #[cfg(unix)]
        if purge && self.state.path().is_symlink() {
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
        if purge {
            remove_all(&self.place).map_err(|error| cannot(&self.place, error))?;
        }
        Ok(())
    }

    /// Whether it starts with the system.
    pub(crate) fn set_enabled(&self, is_enabled: bool) -> Result<(), Failure> {
        let service = self.service();
        let done = match is_enabled {
            true => service.enable(),
            false => service.disable(),
        };
        Ok(done?)
    }

    /// Has the system's manager do it, and waits until it is done. What is so already is no failure.
    pub(crate) fn control(&self, verb: Verb) -> Result<ServiceReport, Failure> {
        let service = self.service();
        // Their managers do not ask the program, but stop it and its host in their tracks.
        if cfg!(unix) && matches!(verb, Verb::Pause | Verb::Continue | Verb::Reload) {
            let done = client::request(&self.state, self.name.as_str(), verb.as_str());
            return client::block_on(done)?.map(of_manager);
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
            Err(error) if Some(error.kind()) == is_so_already => {}
            done => done?,
        }
        self.report()
    }

    /// The Service Control Manager passes nothing on to a service that is starting: its host is asked itself. A hope, not more.
    fn end_start(&self) {
        let is_starting = |status: ServiceStatus| status.state == State::StartPending;
        if cfg!(windows) && self.service().status().is_ok_and(is_starting) {
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
        Ok(of_manager(
            hosted.unwrap_or_else(|| self.by_manager(&status)),
        ))
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

/// A service that is to be one of this system.
pub(crate) struct Wanted<'a> {
    pub(crate) spec: &'a Spec,
    /// Whom its host runs as.
    pub(crate) account: Account,
}

/// Makes all of them services of this system, and the installed ones what their specs say. Where that fails, everything is as it was.
pub(crate) fn install_all(
    state: &StateDir,
    manifest: &Loaded,
    wanted: &[Wanted<'_>],
) -> Result<Vec<Done>, Failure> {
    let places: Vec<Installed> = wanted
        .iter()
        .map(|wanted| Installed::at(state, wanted.spec.name()))
        .collect();
    if let Some(foreign) = places.iter().find(|place| place.is_foreign()) {
        let message = format!(
            "install {}: this system has a service of that name",
            foreign.name
        );
        let failure = Failure::new(Code::Failed, message);
        return Err(failure.hint("it is not mainstay's: choose another name"));
    }
    let mut copies = Vec::with_capacity(places.len());
    let installed = copy_and_install(manifest, wanted, &places, &mut copies);
    match installed {
        Ok(_) => copies.into_iter().for_each(Copied::settle),
        Err(_) => copies.into_iter().rev().for_each(Copied::take_back),
    }
    installed
}

/// What [`install_all`] would do, for people. Touches nothing.
pub(crate) fn plan_all(
    state: &StateDir,
    manifest: &Loaded,
    wanted: &[Wanted<'_>],
) -> Result<String, Failure> {
    let mut plan = String::new();
    let mut definitions = Vec::with_capacity(wanted.len());
    for Wanted { spec, account } in wanted {
        check_account(spec)?;
        let place = Installed::at(state, spec.name());
        let path = place.manifest_path(manifest.format);
        plan += &format!("write {}: a copy of the manifest\n", path.display());
        definitions.push(place.definition(spec, &path, &manifest.dir, account.clone())?);
    }
    Ok(plan + &mainstay::plan_all(&definitions)?)
}

fn copy_and_install(
    manifest: &Loaded,
    wanted: &[Wanted<'_>],
    places: &[Installed],
    copies: &mut Vec<Copied>,
) -> Result<Vec<Done>, Failure> {
    let mut definitions = Vec::with_capacity(places.len());
    for (place, Wanted { spec, account }) in places.iter().zip(wanted) {
        check_account(spec)?;
        let copied = place.copy(manifest, account)?;
        let definition = place.definition(spec, &copied.path, &manifest.dir, account.clone());
        copies.push(copied);
        definitions.push(definition?);
    }
    let all = mainstay::install_all(&definitions)?;
    let mut losses = Vec::with_capacity(places.len());
    for (place, wanted) in places.iter().zip(wanted) {
        match place.entrust(&wanted.account) {
            Ok(more) => losses.push(more),
            Err(error) => {
                let added = places.iter().zip(&all).filter(|(_, it)| it.is_new);
                for (place, _) in added {
                    place.service().uninstall()?;
                }
                let message = format!("set the access to {}: {error}", place.place.display());
                return Err(Failure::new(Code::PermissionDenied, message));
            }
        }
    }
    let done = all.into_iter().zip(losses).map(|(installed, more)| Done {
        is_new: installed.is_new,
        losses: [installed.losses, more].concat(),
    });
    Ok(done.collect())
}

/// As a host is told of it.
struct HostPlace {
    state: PathBuf,
    manifest: PathBuf,
    systemd: Systemd,
}

/// A manifest's copy in its place, and what was there before.
struct Copied {
    place: PathBuf,
    /// Nothing of an earlier installation lies there.
    is_new_place: bool,
    path: PathBuf,
    old: Option<(PathBuf, Vec<u8>)>,
}

impl Copied {
    /// It stays: one in another format goes.
    fn settle(self) {
        if let Some((old_path, _)) = self.old.filter(|(old_path, _)| *old_path != self.path) {
            drop(fs::remove_file(old_path));
        }
    }

    /// As it was. Why it could not stay matters more than what of it cannot be taken back.
    fn take_back(self) {
        let Some((old_path, text)) = self.old else {
            return drop(match self.is_new_place {
                true => fs::remove_dir_all(self.place),
                false => fs::remove_file(self.path),
            });
        };
        if old_path != self.path {
            drop(fs::remove_file(self.path));
        }
        drop(state_dir::write_private(&old_path, &text));
    }
}

/// As the system's own manager has it.
fn of_manager(report: ServiceReport) -> ServiceReport {
    let manager = if cfg!(windows) { "windows" } else { "systemd" };
    ServiceReport {
        manager: manager.to_owned(),
        mode: "hosted".to_owned(),
        ..report
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

/// Whom the manager is to run its host as: an account that may do next to nothing, unless the manifest names one. Only root can give a
/// program the account of a user.
#[cfg(unix)]
pub(crate) fn account(of: Option<&spec::Account>) -> Account {
    match of {
        Some(spec::Account::User(_) | spec::Account::LocalSystem) => Account::LocalSystem,
        _ => Account::Virtual,
    }
}

/// Whether this system has such an account.
fn check_account(spec: &Spec) -> Result<(), Failure> {
    match spec.account() {
        Some(account @ spec::Account::Gmsa(_)) if cfg!(unix) => {
            let message = format!(
                "install {}: account {account}: only Windows has such accounts",
                spec.name()
            );
            let failure = Failure::new(Code::PermissionDenied, message);
            Err(failure.hint("name a user, `account = \"user:NAME\"`"))
        }
        _ => Ok(()),
    }
}

/// Whom the manager is to run it as. `None` of a manifest is the one with the fewest rights.
#[cfg(windows)]
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
