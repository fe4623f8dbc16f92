//! Installing and controlling units of systemd: files, and `systemctl`, whose output for programs is all that is read of it.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::systemd::{MARK, PROPERTIES, is_ours, unit, version};
use crate::{
    Account, Definition, Error, ErrorKind, Installed, Scope, ServiceStatus, Start, State, systemd,
};

/// How often a state is looked at while it is waited for: nobody tells.
const LOOK: Duration = Duration::from_millis(100);

/// systemd's manager of the system, or of the user.
struct Manager {
    scope: Scope,
    /// Where units of ours lie.
    dir: PathBuf,
}

impl Manager {
    fn of(scope: Scope) -> Result<Self, Error> {
        // sd_booted(3)
        if !Path::new("/run/systemd/system").is_dir() {
            let what = "find a service manager: this version knows systemd, and it does not run";
            let error = Error::new(ErrorKind::Unsupported, what);
            let cure = "start its verb `run` from a unit of your own, or with `mainstay run`";
            return Err(error.with_cure(cure));
        }
        let dir = match scope {
            Scope::System => "/etc/systemd/system".into(),
            Scope::User => {
                let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
                let config = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
                let config = config.or_else(|| Some(variable("HOME")?.join(".config")));
                let missing = || Error::new(ErrorKind::Invalid, "find your units: HOME is not set");
                config.ok_or_else(missing)?.join("systemd/user")
            }
        };
        Ok(Self { scope, dir })
    }

    /// Whether this process may change its services.
    fn check_rights(&self, what: &str) -> Result<(), Error> {
        // SAFETY: it takes nothing and cannot fail.
        #[expect(unsafe_code, reason = "std does not tell who we are")]
        let user = unsafe { libc::geteuid() };
        if user == 0 || self.scope == Scope::User {
            return Ok(());
        }
        let error = Error::new(ErrorKind::PermissionDenied, what);
        Err(error.with_cure("run it as root"))
    }

    /// Runs `systemctl`; what it has written.
    fn systemctl(&self, what: &str, arguments: &[&str]) -> Result<String, Error> {
        let mut command = Command::new("systemctl");
        if self.scope == Scope::User {
            command.arg("--user");
        }
        let output = command
            .args(["--no-pager", "--no-ask-password"])
            .args(arguments)
            .env("LC_ALL", "C")
            .output()
            .map_err(|error| {
                Error::new(ErrorKind::Failed, format!("{what}: run systemctl")).because(error)
            })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let is_right = ["ccess denied", "authentication required"];
        let kind = match is_right.iter().any(|part| said.contains(part)) {
            true => ErrorKind::PermissionDenied,
            false => ErrorKind::Failed,
        };
        let said = io::Error::other(said.trim().to_owned());
        Err(Error::new(kind, what).because(said))
    }

    /// As a piece of a command line.
    fn user(&self) -> &'static str {
        match self.scope {
            Scope::System => "",
            Scope::User => " --user",
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(unit_name(name))
    }

    fn status(&self, name: &str) -> Result<ServiceStatus, Error> {
        let what = format!("query service \"{name}\"");
        let properties = format!("--property={PROPERTIES}");
        let said = self.systemctl(&what, &["show", &properties, "--", &unit_name(name)])?;
        let missing = || {
            let error = Error::new(ErrorKind::NotInstalled, format!("{what}: there is none"));
            error.with_cure("install it first")
        };
        systemd::status(&said).ok_or_else(missing)
    }

    /// It exits with 1 where it is not.
    fn is_enabled(&self, name: &str) -> bool {
        let said = self.systemctl("", &["is-enabled", "--", &unit_name(name)]);
        said.is_ok_and(|said| said.trim() == "enabled")
    }

    /// Has a unit do something, and waits until it is done.
    fn act(&self, verb: &str, name: &str) -> Result<(), Error> {
        let what = format!("{verb} service \"{name}\"");
        let done = self.systemctl(&what, &[verb, "--", &unit_name(name)]);
        let user = self.user();
        done.map(drop).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => error.with_cure("run it as root"),
            _ => error.with_cure(format!("see `journalctl{user} --unit={name}`")),
        })
    }

    /// Writes, or takes away, a unit file.
    fn put(&self, name: &str, text: Option<&str>) -> Result<(), Error> {
        let path = self.path(name);
        let what = format!("write {}", path.display());
        let done = match text {
            Some(text) => replace(&path, text),
            None => fs::remove_file(&path),
        };
        done.map_err(|error| Error::new(ErrorKind::Failed, what).because(error))
    }

    fn read_units(&self) -> Result<(), Error> {
        let what = "have systemd read its units";
        self.systemctl(what, &["daemon-reload"]).map(drop)
    }

    fn version(&self) -> Result<u32, Error> {
        let said = self.systemctl("ask systemd for its version", &["--version"])?;
        Ok(version(&said).unwrap_or(0))
    }
}

fn unit_name(name: &str) -> String {
    format!("{name}.service")
}

/// As a whole, and on disk, or not at all.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&new)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            // Whatever umask we have: managers read it.
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _is_no_more = fs::remove_file(&new);
    }
    written
}

pub(crate) fn may_install() -> Result<(), Error> {
    Manager::of(Scope::System)?.check_rights("install services")
}

/// What is to be done for one service.
struct Change<'a> {
    manager: Manager,
    name: &'a str,
    text: String,
    before: Option<String>,
    is_wanted: bool,
    was_wanted: bool,
}

impl Change<'_> {
    fn is_none(&self) -> bool {
        self.before.as_deref() == Some(&*self.text) && self.is_wanted == self.was_wanted
    }

    /// Systemd has to read its units afterwards.
    fn make(&self) -> Result<(), Error> {
        self.manager.put(self.name, Some(&self.text))?;
        self.want(self.is_wanted)
    }

    /// As it was. Why a change was not made matters more than what of it cannot be taken back.
    fn take_back(&self) {
        if !self.was_wanted {
            let _is_off = self.want(false);
        }
        let _is_back = self.manager.put(self.name, self.before.as_deref());
    }

    /// With the system, or not.
    fn want(&self, is_wanted: bool) -> Result<(), Error> {
        let verb = if is_wanted { "enable" } else { "disable" };
        let what = format!("{verb} service \"{}\"", self.name);
        let file = unit_name(self.name);
        let arguments = ["--quiet", "--no-reload", verb, "--", &file];
        self.manager.systemctl(&what, &arguments).map(drop)
    }
}

pub(crate) fn install_all(definitions: &[Definition]) -> Result<Vec<Installed>, Error> {
    for definition in definitions {
        let manager = Manager::of(definition.scope)?;
        manager.check_rights(&format!("install service \"{}\"", definition.name))?;
    }
    let (changes, all_installed) = changes(definitions)?;
    for number in 0..changes.len() {
        if let Err(error) = changes[number].make() {
            changes[..=number].iter().rev().for_each(Change::take_back);
            let _as_before = read_units(&changes);
            return Err(error);
        }
    }
    read_units(&changes).inspect_err(|_| changes.iter().rev().for_each(Change::take_back))?;
    Ok(all_installed)
}

pub(crate) fn plan_all(definitions: &[Definition]) -> Result<String, Error> {
    let (changes, _) = changes(definitions)?;
    let mut plan = String::new();
    for change in &changes {
        let (path, name) = (change.manager.path(change.name), unit_name(change.name));
        let verb = if change.is_wanted {
            "enable"
        } else {
            "disable"
        };
        let user = change.manager.user();
        plan += &format!("write {} (0644):\n\n{}\n", path.display(), change.text);
        plan += &format!("run systemctl{user} --quiet --no-reload {verb} -- {name}\n");
    }
    for scope in [Scope::System, Scope::User] {
        if let Some(change) = changes.iter().find(|change| change.manager.scope == scope) {
            plan += &format!("run systemctl{} daemon-reload\n", change.manager.user());
        }
    }
    Ok(plan)
}

/// What is to be done for all of them, without those that are as they should be, and what there will be. Touches nothing.
fn changes(definitions: &[Definition]) -> Result<(Vec<Change<'_>>, Vec<Installed>), Error> {
    let running = std::env::current_exe().map_err(|error| {
        Error::new(ErrorKind::Failed, "find the path of this program").because(error)
    })?;
    let mut changes = Vec::with_capacity(definitions.len());
    let mut all_installed = Vec::with_capacity(definitions.len());
    let mut version = None;
    for definition in definitions {
        let manager = Manager::of(definition.scope)?;
        let version = match version {
            Some(version) => version,
            None => *version.insert(manager.version()?),
        };
        let (change, installed) = plan(definition, manager, &running, version)?;
        changes.push(change);
        all_installed.push(installed);
    }
    changes.retain(|change| !change.is_none());
    Ok((changes, all_installed))
}

/// Once for all that has changed.
fn read_units(changes: &[Change<'_>]) -> Result<(), Error> {
    for scope in [Scope::System, Scope::User] {
        if let Some(change) = changes.iter().find(|change| change.manager.scope == scope) {
            change.manager.read_units()?;
        }
    }
    Ok(())
}

/// What is to be done, and what there will be. Touches nothing.
fn plan<'a>(
    definition: &'a Definition,
    manager: Manager,
    running: &Path,
    version: u32,
) -> Result<(Change<'a>, Installed), Error> {
    let name = &*definition.name;
    let unit = unit(definition, running, version)?;
    let program = definition.executable.as_deref().unwrap_or(running);
    check_reach(definition, program)?;
    let before = ours(&manager, name)?;
    if before.is_none() {
        match manager.status(name) {
            Err(error) if error.kind() == ErrorKind::NotInstalled => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(foreign(&format!("install service \"{name}\""))),
        }
    }
    let was_wanted = before.is_some() && manager.is_enabled(name);
    let installed = Installed {
        is_new: before.is_none(),
        losses: unit.losses,
    };
    let change = Change {
        manager,
        name,
        text: unit.text,
        before,
        is_wanted: matches!(definition.start, Start::Automatic | Start::Delayed),
        was_wanted,
    };
    Ok((change, installed))
}

/// The unit of that name, where it is one of ours.
fn ours(manager: &Manager, name: &str) -> Result<Option<String>, Error> {
    let path = manager.path(name);
    match fs::read_to_string(&path) {
        Ok(text) if is_ours(&text) => Ok(Some(text)),
        Ok(_) => Err(foreign(&format!("change {}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let what = format!("read {}", path.display());
            Err(Error::new(ErrorKind::Failed, what).because(error))
        }
    }
}

fn foreign(what: &str) -> Error {
    let what = format!("{what}: there is a unit of that name that is somebody else's");
    Error::new(ErrorKind::Failed, what).with_cure("choose another name, or remove that unit")
}

/// An account of the service's own has no more rights than everybody: it must be able to run the program.
fn check_reach(definition: &Definition, program: &Path) -> Result<(), Error> {
    let is_stranger = matches!(
        definition.account,
        Account::Virtual | Account::LocalService | Account::NetworkService
    );
    if definition.scope == Scope::User || !is_stranger {
        return Ok(());
    }
    let closed = program.ancestors().find(|path| {
        let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode());
        mode.is_ok_and(|mode| mode & 0o001 == 0)
    });
    match closed {
        None => Ok(()),
        Some(path) => {
            let what = format!(
                "install service \"{}\": its account may not run {}, as {} is closed to others",
                definition.name,
                program.display(),
                path.display()
            );
            let cure = "put the program where everybody may run it, such as /usr/local/bin";
            Err(Error::new(ErrorKind::PermissionDenied, what).with_cure(cure))
        }
    }
}

pub(crate) fn uninstall(definition: &Definition) -> Result<(), Error> {
    let name = &*definition.name;
    let what = format!("uninstall service \"{name}\"");
    let manager = Manager::of(definition.scope)?;
    manager.check_rights(&what)?;
    if ours(&manager, name)?.is_none() {
        let error = Error::new(ErrorKind::NotInstalled, what);
        return Err(error.with_cure("install it first"));
    }
    if manager.status(name)?.state != State::Stopped {
        stop(definition)?;
    }
    let file = unit_name(name);
    manager.systemctl(&what, &["--quiet", "--no-reload", "disable", "--", &file])?;
    manager.put(name, None)?;
    manager.read_units()?;
    // It is remembered as long as its failure is; there may be none.
    let _has_failed = manager.systemctl(&what, &["reset-failed", "--", &file]);
    Ok(())
}

pub(crate) fn set_enabled(definition: &Definition, is_enabled: bool) -> Result<(), Error> {
    let name = &*definition.name;
    let verb = if is_enabled { "enable" } else { "disable" };
    let what = format!("{verb} service \"{name}\"");
    let manager = Manager::of(definition.scope)?;
    manager.check_rights(&what)?;
    manager.status(name)?;
    let arguments = ["--quiet", verb, "--", &unit_name(name)];
    manager.systemctl(&what, &arguments).map(drop)
}

pub(crate) fn is_enabled(definition: &Definition) -> Result<bool, Error> {
    let manager = Manager::of(definition.scope)?;
    manager.status(&definition.name)?;
    Ok(manager.is_enabled(&definition.name))
}

pub(crate) fn start(definition: &Definition, arguments: &[OsString]) -> Result<(), Error> {
    let name = &*definition.name;
    let manager = Manager::of(definition.scope)?;
    if !arguments.is_empty() {
        let what = format!("start service \"{name}\" with arguments");
        let error = Error::new(ErrorKind::NotAccepted, what);
        return Err(error.with_cure("systemd passes none on: install it with them"));
    }
    if manager.status(name)?.state == State::Running {
        let what = format!("start service \"{name}\": it runs");
        return Err(Error::new(ErrorKind::AlreadyRunning, what).with_cure("use restart"));
    }
    manager.act("start", name)
}

pub(crate) fn stop(definition: &Definition) -> Result<(), Error> {
    let name = &*definition.name;
    let manager = Manager::of(definition.scope)?;
    if running(&manager, "stop", name)? == State::Paused {
        // It would not hear of it.
        manager.act("thaw", name)?;
    }
    manager.act("stop", name)
}

pub(crate) fn restart(definition: &Definition) -> Result<(), Error> {
    let name = &*definition.name;
    let manager = Manager::of(definition.scope)?;
    if manager.status(name)?.state == State::Paused {
        manager.act("thaw", name)?;
    }
    manager.act("restart", name)
}

/// By the freezer of its control group: the program is not asked.
pub(crate) fn pause(definition: &Definition) -> Result<(), Error> {
    let manager = Manager::of(definition.scope)?;
    running(&manager, "pause", &definition.name)?;
    manager.act("freeze", &definition.name)
}

pub(crate) fn resume(definition: &Definition) -> Result<(), Error> {
    let manager = Manager::of(definition.scope)?;
    running(&manager, "continue", &definition.name)?;
    manager.act("thaw", &definition.name)
}

pub(crate) fn reload(definition: &Definition) -> Result<(), Error> {
    let manager = Manager::of(definition.scope)?;
    running(&manager, "reload", &definition.name)?;
    manager.act("reload", &definition.name)
}

/// Its state, unless it is stopped.
fn running(manager: &Manager, verb: &str, name: &str) -> Result<State, Error> {
    match manager.status(name)?.state {
        State::Stopped => {
            let what = format!("{verb} service \"{name}\": it does not run");
            Err(Error::new(ErrorKind::NotRunning, what).with_cure("start it first"))
        }
        state => Ok(state),
    }
}

pub(crate) fn control(definition: &Definition, code: u8) -> Result<(), Error> {
    let what = format!("send control {code} to service \"{}\"", definition.name);
    let error = Error::new(ErrorKind::Unsupported, what);
    Err(error.with_cure("only Windows has codes of a service's own"))
}

pub(crate) fn status(definition: &Definition) -> Result<ServiceStatus, Error> {
    Manager::of(definition.scope)?.status(&definition.name)
}

pub(crate) fn wait_for_change(
    definition: &Definition,
    seen: State,
    timeout: Duration,
) -> Result<ServiceStatus, Error> {
    let deadline = Instant::now() + timeout;
    loop {
        let status = status(definition)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if status.state != seen || left.is_zero() {
            return Ok(status);
        }
        thread::sleep(left.min(LOOK));
    }
}

pub(crate) fn services() -> Result<Vec<(String, ServiceStatus)>, Error> {
    let manager = Manager::of(Scope::System)?;
    let entries = fs::read_dir(&manager.dir).map_err(|error| {
        let what = format!("list {}", manager.dir.display());
        Error::new(ErrorKind::Failed, what).because(error)
    })?;
    let names = entries.flatten().filter_map(|entry| {
        let file = entry.file_name();
        let name = file.to_str()?.strip_suffix(".service")?;
        let text = fs::read_to_string(entry.path()).ok()?;
        text.starts_with(MARK).then(|| name.to_owned())
    });
    let mut services: Vec<(String, ServiceStatus)> = names
        .filter_map(|name| Some((manager.status(&name).ok()?, name)))
        .map(|(status, name)| (name, status))
        .collect();
    services.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(services)
}
