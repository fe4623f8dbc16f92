//! Installs and controls services on Unix: gets the desired files from a [`Backend`], compares them
//! with the system, and applies the difference.

mod executor;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::executor::Ground;
use crate::backend::{
    self, Answer, Backend, Call, Content, Entry, Order, Question, Site, Step, Switch, TakeIn,
    is_ours,
};
use crate::{
    Accepts, Account, Definition, Error, ErrorKind, Installed, Manager, Scope, ServiceStatus,
    Start, State, sys,
};

/// The polling interval while waiting for a state, because there is no notification.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A manager and the system that its services are installed into.
struct Seat {
    backend: &'static dyn Backend,
    site: Site,
    /// The directory that stands for `/`.
    ground: Ground,
}

impl Seat {
    /// Returns the manager of a definition on this system.
    fn of(definition: &Definition) -> Result<Self, Error> {
        Self::at(definition.manager, definition.scope, Ground::here())
    }

    fn at(manager: Option<Manager>, scope: Scope, ground: Ground) -> Result<Self, Error> {
        let manager = manager.or_else(|| detect_in(&ground).into_iter().next());
        let Some(backend) = manager.and_then(backend::of) else {
            let what = manager.map_or("no supported service manager was found".into(), |manager| {
                format!("{manager} is not available on this system")
            });
            let error = Error::new(ErrorKind::Unsupported, what);
            let cure = match manager {
                Some(_) => "choose a manager of this system, or omit it for detection",
                None => "run it with its verb `run` from a service manager, or with `mainstay run`",
            };
            return Err(error.with_cure(cure));
        };
        if scope == Scope::User && !backend.has_users() {
            let what = format!(
                "{manager} does not support user services",
                manager = backend.manager()
            );
            return Err(Error::new(ErrorKind::Unsupported, what).with_cure("omit --user"));
        }
        let (config_dir, home_dir) = match scope {
            Scope::System => (PathBuf::new(), PathBuf::new()),
            Scope::User => {
                let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
                let missing = || {
                    Error::new(
                        ErrorKind::Invalid,
                        "cannot find your units: HOME is not set",
                    )
                };
                let home = variable("HOME").ok_or_else(missing)?;
                let config = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
                (config.unwrap_or_else(|| home.join(".config")), home)
            }
        };
        let running = std::env::current_exe().map_err(|error| {
            Error::new(ErrorKind::Failed, "cannot find the path of this program").because(error)
        })?;
        let landmarks = backend.landmarks().iter().copied();
        let found = landmarks.filter(|path| ground.at(Path::new(path)).exists());
        let site = Site {
            scope,
            running,
            found: found.collect(),
            version: 0,
            config_dir,
            home_dir,
            user: sys::user(),
            is_staged: ground.is_staged(),
        };
        Ok(Self {
            backend,
            site,
            ground,
        })
    }

    /// Checks whether this process may change the manager's services.
    fn check_rights(&self, what: &str) -> Result<(), Error> {
        if sys::user() == 0 || self.site.scope == Scope::User || self.site.is_staged {
            return Ok(());
        }
        let error = Error::new(ErrorKind::PermissionDenied, what);
        let error = error.because(io::ErrorKind::PermissionDenied.into());
        Err(error.with_cure("run it as root"))
    }

    /// Determines the manager's version, which unit files depend on.
    fn ask_version(&mut self) {
        if !self.site.is_staged
            && let Some(question) = self.backend.version_question()
            && let Ok(answer) = ask(&question)
        {
            self.site.version = self.backend.version(&answer).unwrap_or(0);
        }
    }

    /// Checks that the manager is running, so that its missing answers are meaningful.
    fn check_runs(&self, what: &str) -> Result<(), Error> {
        let manager = self.backend.manager();
        let is_running = || self.backend.signs().iter().any(executor::is_there);
        // A user's manager is queried directly.
        if self.site.is_staged || self.site.scope == Scope::User || is_running() {
            return Ok(());
        }
        let what = format!("{what}: {manager} is not running on this system");
        let error = Error::new(ErrorKind::Unsupported, what);
        Err(error
            .with_cure("choose a running manager (--manager), or install into an image (--root)"))
    }

    fn status(&self, name: &str) -> Result<ServiceStatus, Error> {
        let what = format!("cannot query service \"{name}\"");
        self.check_runs(&what)?;
        let answers = self.backend.questions(name, &self.site);
        let answers: Vec<Answer> =
            answers
                .iter()
                .map(ask)
                .collect::<io::Result<_>>()
                .map_err(|error| match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        Error::new(ErrorKind::PermissionDenied, &*what)
                            .because(error)
                            .with_cure("run it as root")
                    }
                    _ => Error::new(ErrorKind::Failed, &*what).because(error),
                })?;
        if !self.backend.has_answered(&answers) {
            let what = format!("{what}: {} does not respond", self.backend.manager());
            let error = Error::new(ErrorKind::Unsupported, what);
            return Err(error.with_cure("check that it is running for this user"));
        }
        let missing = || {
            let error = Error::new(ErrorKind::NotInstalled, format!("{what}: not installed"));
            error.with_cure("install it first")
        };
        self.backend.status(&answers).ok_or_else(missing)
    }

    /// Returns whether the entries that start the service at boot exist and those that prevent it
    /// do not.
    fn is_enabled(&self, name: &str) -> bool {
        let Switch {
            on, off, shown_by, ..
        } = self.backend.switch(name, &self.site);
        if !shown_by.is_empty() {
            return shown_by.iter().any(|path| self.ground.has_like(path));
        }
        let is_there = |entry: &Entry| self.ground.holds(entry);
        let by_files = on.iter().all(is_there) && !off.iter().any(is_there);
        if !by_files || self.site.is_staged {
            return by_files;
        }
        let questions = self.backend.enabled_questions(name, &self.site);
        let answers: io::Result<Vec<Answer>> = questions.iter().map(ask).collect();
        answers.is_ok_and(|answers| self.backend.is_enabled(name, &answers))
    }

    /// Returns the steps from the current enablement to the wanted one.
    fn switch(&self, name: &str, is_wanted: bool) -> Result<Vec<Step>, Error> {
        let Switch {
            on,
            off,
            turn_on,
            turn_off,
            ..
        } = self.backend.switch(name, &self.site);
        let (come, go, run, undo) = if is_wanted {
            (on, off, turn_on, turn_off)
        } else {
            (off, on, turn_off, turn_on)
        };
        let own_dirs = self.backend.own_dirs(name, &self.site);
        let is_own = |entry: &&Entry| own_dirs.iter().any(|dir| entry.path.starts_with(dir));
        for entry in come.iter().filter(|entry| !is_own(entry)) {
            if matches!(entry.content, Content::File { .. }) {
                self.is_our_file(&entry.path)?;
            }
        }
        let paths: Vec<PathBuf> = come.iter().map(|entry| entry.path.clone()).collect();
        let come = come.into_iter().filter(|entry| !self.ground.holds(entry));
        // A file that takes the place of another one replaces it.
        let go = go.into_iter();
        let go = go.filter(|entry| !paths.contains(&entry.path) && self.ground.holds(entry));
        let files = come
            .map(Step::Put)
            .chain(go.map(|entry| Step::Remove(entry.path)));
        let mut undo = undo.into_iter();
        let calls = run.into_iter().filter(|_| !self.site.is_staged);
        let calls = calls.map(|call| Step::Run(call, undo.next()));
        Ok(files.chain(calls).collect())
    }

    fn take_notice(&self, changed: &[&str]) -> Vec<Call> {
        if self.site.is_staged || changed.is_empty() {
            Vec::new()
        } else {
            self.backend.take_notice(changed, &self.site)
        }
    }

    /// Returns whether a service of this name exists and was installed by this library.
    fn is_ours(&self, name: &str) -> Result<bool, Error> {
        self.is_our_file(&self.backend.unit_path(name, &self.site))
    }

    fn is_our_file(&self, path: &Path) -> Result<bool, Error> {
        match executor::read_file(&self.ground.at(path)) {
            Ok(text) if is_ours(&text) => Ok(true),
            Ok(_) => Err(foreign(&format!("cannot change {}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                let what = format!("cannot read {}", path.display());
                Err(Error::new(ErrorKind::Failed, what).because(error))
            }
        }
    }

    /// Executes an order and returns when it is complete.
    fn order(&self, definition: &Definition, order: Order, state: State) -> Result<(), Error> {
        let what = format!("cannot {} service \"{}\"", order.as_str(), definition.name);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        for call in self.backend.control(definition, order, state, &self.site)? {
            executor::run(&call, &what).map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => error.with_cure("run it as root"),
                kind => {
                    let since = since.clone().unwrap_or_default().as_secs();
                    let journal = self.backend.journal(&definition.name, &self.site);
                    let error = match self.failure(&definition.name, order, since) {
                        Some(cause) => Error::new(kind, &*what).because(io::Error::other(cause)),
                        None => error,
                    };
                    error.with_cure(format!("see `{journal}`"))
                }
            })?;
        }
        Ok(())
    }

    /// Returns the reason why a service could not be started, if the manager reports one.
    fn failure(&self, name: &str, order: Order, since: u64) -> Option<String> {
        if !matches!(order, Order::Start | Order::Restart) {
            return None;
        }
        let question = self.backend.failure_question(name, since, &self.site)?;
        self.backend.failure(name, &ask(&question).ok()?)
    }
}

/// Returns the managers found here, starting with the one that runs the system. All traces of a
/// manager must exist. On the running system, one of its signs must also show that it is running.
pub(super) fn detect() -> Vec<Manager> {
    detect_in(&Ground::here())
}

/// Returns the managers that can run the system below `root`.
pub(super) fn detect_below(root: &Path) -> Vec<Manager> {
    detect_in(&Ground::below(root))
}

fn detect_in(ground: &Ground) -> Vec<Manager> {
    let all = backend::ALL.iter();
    let here = all.filter(|backend| {
        backend.is_traced(&|trace| ground.at(Path::new(trace)).exists())
            && (ground.is_staged() || backend.signs().iter().any(executor::is_there))
    });
    here.map(|backend| backend.manager()).collect()
}

fn ask(question: &Question) -> io::Result<Answer> {
    match question {
        Question::Run(argv) => {
            let output = executor::command(argv).stderr(Stdio::null()).output()?;
            Ok(Answer {
                code: output.status.code(),
                output: output.stdout,
            })
        }
        Question::Read(path) => match fs::read(path) {
            Ok(output) => Ok(Answer {
                code: Some(0),
                output,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::default()),
            Err(error) => Err(error),
        },
    }
}

fn foreign(what: &str) -> Error {
    let what = format!("{what}: another service of that name already exists");
    Error::new(ErrorKind::Failed, what).with_cure("choose another name, or remove that service")
}

pub(super) fn check_manager(definition: &Definition) -> Result<(), Error> {
    Seat::of(definition)?.check_runs("cannot install services")
}

pub(super) fn may_install(definition: &Definition) -> Result<(), Error> {
    let seat = Seat::of(definition)?;
    seat.check_runs("cannot install services")?;
    seat.check_rights("cannot install services")
}

/// The change for one service.
struct Change<'a> {
    name: &'a str,
    seat: Seat,
    steps: Vec<Step>,
    is_new: bool,
    losses: Vec<String>,
    warnings: Vec<String>,
}

pub(super) fn install_all(definitions: &[Definition]) -> Result<Vec<Installed>, Error> {
    perform(changes(definitions, &Ground::here())?)
}

pub(super) fn stage_all(definitions: &[Definition], root: &Path) -> Result<Vec<Installed>, Error> {
    perform(changes(definitions, &Ground::below(root))?)
}

/// Performs all changes, or none.
fn perform(changes: Vec<Change<'_>>) -> Result<Vec<Installed>, Error> {
    let mut done = executor::Done::default();
    let performed = changes.iter().try_for_each(|change| {
        change
            .seat
            .check_rights(&format!("cannot install service \"{}\"", change.name))?;
        change
            .steps
            .iter()
            .try_for_each(|step| done.perform(step, &change.seat.ground))
    });
    let noticed = performed.and_then(|()| {
        notices(&changes).iter().try_for_each(|call| {
            executor::run(call, "cannot reload the configuration of the manager")
        })
    });
    if let Err(error) = noticed {
        done.take_back();
        for call in notices(&changes) {
            // The original error matters more than a failure to undo.
            let _as_before = executor::run(&call, "");
        }
        return Err(error);
    }
    let installed = changes.into_iter().map(|change| Installed {
        is_new: change.is_new,
        is_changed: !change.is_new && !change.steps.is_empty(),
        losses: change.losses,
        warnings: change.warnings,
    });
    Ok(installed.collect())
}

pub(super) fn plan_all(definitions: &[Definition]) -> Result<String, Error> {
    let changes = changes(definitions, &Ground::here())?;
    let steps = changes.iter().flat_map(|change| &change.steps);
    let mut plan: String = steps.map(Step::to_string).collect();
    for call in notices(&changes) {
        plan += &Step::Run(call, None).to_string();
    }
    Ok(plan)
}

pub(super) fn changed_files(definition: &Definition) -> Result<Vec<PathBuf>, Error> {
    let changes = changes(std::slice::from_ref(definition), &Ground::here())?;
    let steps = changes.into_iter().flat_map(|change| change.steps);
    let paths = steps.filter_map(|step| match step {
        Step::Put(entry) => Some(entry.path),
        Step::Remove(path) => Some(path),
        Step::Run(..) => None,
    });
    Ok(paths.collect())
}

/// Returns the calls that notify managers of changes, each of them once.
fn notices(changes: &[Change<'_>]) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let changed = changes.iter().filter(|change| !change.steps.is_empty());
    let changed: Vec<&Change<'_>> = changed.collect();
    for change in &changed {
        let here = |other: &&&Change<'_>| {
            let (one, other) = (&change.seat, &other.seat);
            one.backend.manager() == other.backend.manager() && one.site.scope == other.site.scope
        };
        let names: Vec<&str> = changed
            .iter()
            .filter(here)
            .map(|other| other.name)
            .collect();
        for call in change.seat.take_notice(&names) {
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
    }
    calls
}

/// Plans the changes and the results for all definitions. Changes nothing.
fn changes<'a>(definitions: &'a [Definition], ground: &Ground) -> Result<Vec<Change<'a>>, Error> {
    let mut version = None;
    let mut changes = Vec::with_capacity(definitions.len());
    for definition in definitions {
        let mut seat = Seat::at(definition.manager, definition.scope, ground.clone())?;
        match version {
            Some((manager, version)) if manager == seat.backend.manager() => {
                seat.site.version = version;
            }
            _ => {
                seat.ask_version();
                version = Some((seat.backend.manager(), seat.site.version));
            }
        }
        changes.push(plan(definition, seat)?);
    }
    Ok(changes)
}

fn plan(definition: &Definition, seat: Seat) -> Result<Change<'_>, Error> {
    let name = &*definition.name;
    seat.check_runs(&format!("cannot install service \"{name}\""))?;
    let unit = seat.backend.unit(definition, &seat.site)?;
    let program = backend::program(definition, &seat.site);
    let mut warnings = Vec::new();
    if seat.site.is_staged && !seat.ground.at(program).exists() {
        warnings.push(format!(
            "{} does not exist in the image: another package must provide it",
            program.display()
        ));
    } else if seat.backend.manager() == Manager::Systemd {
        check_reach(definition, program, &seat.ground)?;
    }
    let is_new = !seat.is_ours(name)?;
    if is_new && !seat.site.is_staged {
        match seat.status(name) {
            Err(error) if error.kind() == ErrorKind::NotInstalled => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(foreign(&format!("cannot install service \"{name}\""))),
        }
    }
    let is_wanted = matches!(definition.start, Start::Automatic | Start::Delayed);
    let paths: Vec<PathBuf> = unit
        .entries
        .iter()
        .map(|entry| entry.path.clone())
        .collect();
    let new = unit.entries.into_iter();
    let new = new.filter(|entry| !seat.ground.holds(entry)).map(Step::Put);
    let mut steps: Vec<Step> = new.collect();
    for step in &steps {
        if let Step::Put(entry) = step {
            seat.ground.check_place(&entry.path)?;
        }
    }
    let own_dirs = seat.backend.own_dirs(name, &seat.site);
    let is_own = |path: &PathBuf| !is_new && own_dirs.iter().any(|dir| path.starts_with(dir));
    let is_left = |path: &PathBuf| {
        let is_there = seat.ground.at(path).exists();
        !paths.contains(path)
            && is_there
            && (is_own(path) || seat.is_our_file(path).unwrap_or(false))
    };
    let left = seat
        .backend
        .parts(name, &seat.site)
        .into_iter()
        .filter(is_left);
    steps.extend(left.map(Step::Remove));
    let is_here = is_new && !seat.site.is_staged;
    match seat.backend.take_in(name, &seat.site).filter(|_| is_here) {
        Some(TakeIn { call, undo }) => {
            let off = seat.backend.switch(name, &seat.site).off;
            let paths: Vec<PathBuf> = off.iter().map(|entry| entry.path.clone()).collect();
            steps.splice(0..0, off.into_iter().map(Step::Put));
            steps.push(Step::Run(call, Some(undo)));
            let go = paths.into_iter().filter(|_| is_wanted);
            steps.extend(go.map(Step::Remove));
        }
        None if is_new || seat.is_enabled(name) != is_wanted => {
            steps.extend(seat.switch(name, is_wanted)?);
        }
        None => {}
    }
    Ok(Change {
        name,
        seat,
        steps,
        is_new,
        losses: unit.losses,
        warnings,
    })
}

/// Checks that the account of a service can execute its program. A service's own account has no
/// more rights than any other user.
fn check_reach(definition: &Definition, program: &Path, ground: &Ground) -> Result<(), Error> {
    let is_stranger = matches!(
        definition.account,
        Account::Virtual | Account::LocalService | Account::NetworkService
    );
    if definition.scope == Scope::User || !is_stranger {
        return Ok(());
    }
    let mode = |path: &Path| {
        let metadata = fs::metadata(ground.at(path)).ok()?;
        Some(metadata.permissions().mode() & 0o7777)
    };
    let closed = program.ancestors().find_map(|path| {
        // An image's root directory is not `/` itself: its mode is determined when the image is
        // unpacked.
        let is_outside = ground.is_staged() && path == Path::new("/");
        let mode = mode(path).filter(|mode| mode & 0o001 == 0 && !is_outside)?;
        Some((path, mode))
    });
    match closed {
        None => Ok(()),
        Some((path, mode)) => {
            let what = format!(
                "cannot install service \"{}\": its account cannot execute {}: {} has mode {mode:04o}",
                definition.name,
                program.display(),
                ground.at(path).display()
            );
            let cure = "move the program to a directory that every user can search, such as /usr/local/bin";
            Err(Error::new(ErrorKind::PermissionDenied, what).with_cure(cure))
        }
    }
}

pub(super) fn uninstall(definition: &Definition) -> Result<(), Error> {
    let name = &*definition.name;
    let what = format!("cannot uninstall service \"{name}\"");
    let seat = Seat::of(definition)?;
    seat.check_rights(&what)?;
    if !seat.is_ours(name)? {
        let error = Error::new(ErrorKind::NotInstalled, what);
        return Err(error.with_cure("install it first"));
    }
    match seat.status(name) {
        Ok(status) if status.state == State::Stopped => {}
        Ok(status) => seat.order(definition, Order::Stop, status.state)?,
        // The files exist, but the manager has not loaded them yet.
        Err(error) if error.kind() == ErrorKind::NotInstalled => {}
        Err(error) => return Err(error),
    }
    let mut done = executor::Done::default();
    for step in seat.switch(name, false)? {
        done.perform(&step, &seat.ground)?;
    }
    for call in seat.backend.let_go(name, &seat.site) {
        executor::run(&call, &what)?;
    }
    let parts = seat.backend.parts(name, &seat.site).into_iter();
    let parts = parts.filter(|path| seat.is_our_file(path).unwrap_or(false));
    let off = seat.backend.switch(name, &seat.site).off.into_iter();
    let off = off.map(|entry| entry.path);
    for path in parts
        .chain(off)
        .chain(seat.backend.leavings(name, &seat.site))
    {
        done.perform(&Step::Remove(path), &seat.ground)?;
    }
    for dir in seat.backend.own_dirs(name, &seat.site) {
        executor::remove_dir(&dir)?;
    }
    for call in seat.take_notice(&[name]) {
        executor::run(&call, &what)?;
    }
    Ok(())
}

pub(super) fn set_enabled(definition: &Definition, is_enabled: bool) -> Result<(), Error> {
    let name = &*definition.name;
    let verb = if is_enabled { "enable" } else { "disable" };
    let what = format!("cannot {verb} service \"{name}\"");
    let seat = Seat::of(definition)?;
    seat.check_rights(&what)?;
    seat.status(name)?;
    if seat.is_enabled(name) == is_enabled {
        return Ok(());
    }
    let mut done = executor::Done::default();
    for step in seat.switch(name, is_enabled)? {
        if let Err(error) = done.perform(&step, &seat.ground) {
            done.take_back();
            return Err(error);
        }
    }
    for call in seat.take_notice(&[name]) {
        executor::run(&call, &what)?;
    }
    Ok(())
}

pub(super) fn is_enabled(definition: &Definition) -> Result<bool, Error> {
    let seat = Seat::of(definition)?;
    seat.status(&definition.name)?;
    Ok(seat.is_enabled(&definition.name))
}

pub(super) fn start(definition: &Definition, arguments: &[OsString]) -> Result<(), Error> {
    let name = &*definition.name;
    let seat = Seat::of(definition)?;
    if !arguments.is_empty() {
        let what = format!("cannot start service \"{name}\" with arguments");
        let manager = seat.backend.manager();
        let error = Error::new(ErrorKind::NotAccepted, what);
        return Err(error.with_cure(format!(
            "{manager} passes no arguments: install it with them"
        )));
    }
    let state = seat.status(name)?.state;
    if state == State::Running {
        let what = format!("cannot start service \"{name}\": it is already running");
        return Err(Error::new(ErrorKind::AlreadyRunning, what).with_cure("use restart"));
    }
    seat.order(definition, Order::Start, state)
}

pub(super) fn restart(definition: &Definition) -> Result<(), Error> {
    let seat = Seat::of(definition)?;
    let state = seat.status(&definition.name)?.state;
    seat.order(definition, Order::Restart, state)
}

/// Sends an order to a service that is not stopped.
fn tell(definition: &Definition, order: Order) -> Result<(), Error> {
    let seat = Seat::of(definition)?;
    let name = &*definition.name;
    match seat.status(name)?.state {
        State::Stopped => {
            let verb = order.as_str();
            let what = format!("cannot {verb} service \"{name}\": it is not running");
            Err(Error::new(ErrorKind::NotRunning, what).with_cure("start it first"))
        }
        state => seat.order(definition, order, state),
    }
}

pub(super) fn stop(definition: &Definition) -> Result<(), Error> {
    tell(definition, Order::Stop)
}

pub(super) fn pause(definition: &Definition) -> Result<(), Error> {
    tell(definition, Order::Pause)?;
    arrive(definition, Order::Pause, State::Paused)
}

pub(super) fn resume(definition: &Definition) -> Result<(), Error> {
    tell(definition, Order::Resume)?;
    arrive(definition, Order::Resume, State::Running)
}

/// Waits for the wanted state if the service itself reports the completion.
fn arrive(definition: &Definition, order: Order, wanted: State) -> Result<(), Error> {
    let seat = Seat::of(definition)?;
    if !definition.accepts.contains(Accepts::PAUSE) || seat.backend.manager() != Manager::Systemd {
        return Ok(());
    }
    let name = &*definition.name;
    let deadline = Instant::now() + definition.graceful;
    loop {
        let what = || format!("cannot {} service \"{name}\"", order.as_str());
        match seat.status(name)?.state {
            state if state == wanted => return Ok(()),
            State::Stopped => {
                return Err(Error::new(ErrorKind::Failed, what() + ": it has stopped"));
            }
            state if Instant::now() >= deadline => {
                let error = Error::new(ErrorKind::TimedOut, format!("{}: it is {state}", what()));
                return Err(error.with_cure("see the log of the service"));
            }
            _ => thread::sleep(POLL_INTERVAL),
        }
    }
}

pub(super) fn reload(definition: &Definition) -> Result<(), Error> {
    tell(definition, Order::Reload)
}

pub(super) fn control(definition: &Definition, code: u8) -> Result<(), Error> {
    let name = &definition.name;
    let what = format!("cannot send control {code} to service \"{name}\"");
    let error = Error::new(ErrorKind::Unsupported, what);
    Err(error.with_cure("custom control codes exist on Windows only"))
}

pub(super) fn status(definition: &Definition) -> Result<ServiceStatus, Error> {
    Seat::of(definition)?.status(&definition.name)
}

pub(super) fn wait_for_change(
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
        thread::sleep(left.min(POLL_INTERVAL));
    }
}

pub(super) fn services() -> Result<Vec<(String, ServiceStatus)>, Error> {
    let seat = Seat::at(None, Scope::System, Ground::here())?;
    let dir = seat.backend.unit_dir(&seat.site);
    let entries = fs::read_dir(&dir).map_err(|error| {
        let what = format!("cannot list {}", dir.display());
        Error::new(ErrorKind::Failed, what).because(error)
    })?;
    let names = entries.flatten().filter_map(|entry| {
        let name = seat.backend.listed(entry.file_name().to_str()?)?;
        seat.is_ours(&name).unwrap_or(false).then_some(name)
    });
    let mut services: Vec<(String, ServiceStatus)> = names
        .filter_map(|name| Some((seat.status(&name).ok()?, name)))
        .map(|(status, name)| (name, status))
        .collect();
    services.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(services)
}
