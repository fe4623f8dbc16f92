//! Installs and controls services on Unix: gets the desired files from a
//! [`Backend`](backend::Backend), compares them with the system, and applies the difference.

mod executor;
mod seat;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use self::executor::Ground;
use self::seat::{Seat, detect_in, foreign};
use crate::backend::{self, Call, Order, Step, TakeIn};
use crate::manager::Enablement;
use crate::{
    Accepts, Account, Definition, Error, ErrorKind, Installed, Manager, Scope, ServiceStatus,
    Start, State,
};

/// The polling interval while waiting for a state, because there is no notification.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Returns the managers found here, starting with the one that runs the system. All traces of a
/// manager must exist. On the running system, one of its signs must also show that it is running.
pub(super) fn detect() -> Vec<Manager> {
    detect_in(&Ground::here())
}

/// Returns the managers that can run the system below `root`.
pub(super) fn detect_below(root: &Path) -> Vec<Manager> {
    detect_in(&Ground::below(root))
}

pub(super) fn check_manager(definition: &Definition) -> Result<(), Error> {
    Seat::of(definition)?.check_runs("cannot install services")
}

/// Returns nothing: files and commands can be undone.
#[expect(clippy::unnecessary_wraps, reason = "as on Windows")]
pub(super) fn cautions(_definitions: &[Definition]) -> Result<Vec<String>, Error> {
    Ok(Vec::new())
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
    let wanted = match definition.start {
        Start::Automatic | Start::Delayed => Enablement::Enabled,
        Start::Manual | Start::Disabled => Enablement::Disabled,
    };
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
            let go = paths.into_iter();
            let go = go.filter(|_| wanted == Enablement::Enabled);
            steps.extend(go.map(Step::Remove));
        }
        None if is_new || seat.enablement(name) != wanted => {
            steps.extend(seat.switch(name, wanted)?);
        }
        None => {}
    }
    Ok(Change {
        name,
        seat,
        steps,
        is_new,
        losses: [unit.losses, definition.lost_retries().into_iter().collect()].concat(),
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
    for step in seat.switch(name, Enablement::Disabled)? {
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

pub(super) fn set_enablement(definition: &Definition, enablement: Enablement) -> Result<(), Error> {
    let name = &*definition.name;
    let what = format!("cannot {enablement} service \"{name}\"");
    let seat = Seat::of(definition)?;
    seat.check_rights(&what)?;
    seat.status(name)?;
    if seat.enablement(name) == enablement {
        return Ok(());
    }
    let mut done = executor::Done::default();
    for step in seat.switch(name, enablement)? {
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
    Ok(seat.enablement(&definition.name) == Enablement::Enabled)
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
