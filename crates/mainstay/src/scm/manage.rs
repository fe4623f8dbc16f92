//! Installs, controls and removes a service: decisions and waits on top of the manager's own calls.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::refusal::{self, refusal};
use super::rights;
use super::settings::{losses, settings};
#[cfg(any(windows, test))]
use super::shared::refuse_differences;
use super::{AUTO_START, Base, DEMAND_START, Kind, Scm, ServiceStatus, Setting, State};
use crate::manager::Enablement;
use crate::{Definition, Error, ErrorKind, UNDER_SCM};

/// The initial polling interval while waiting for a state. It doubles with each poll.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const LONGEST_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The longest wait for a notification before the state is polled.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The maximum time without a new checkpoint, whatever the wait hint is.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum time that other programs may hold a deleted service open.
const RELEASE: Duration = Duration::from_secs(5);
const STOP: u32 = 1;
const PAUSE: u32 = 2;
const CONTINUE: u32 = 3;
const PARAMETERS_CHANGED: u32 = 6;

/// The result of an installation.
///
/// ```no_run
/// # fn main() -> Result<(), mainstay::Error> {
/// let installed = mainstay::service("orders").install()?;
/// if installed.is_new {
///     println!("installed");
/// }
/// for warning in installed.warnings {
///     println!("warning: {warning}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Installed {
    /// Set if the service did not exist before.
    pub is_new: bool,
    /// Set if the service existed and has been changed.
    pub is_changed: bool,
    /// The settings that this system does not support, one message each. All others are in effect.
    pub losses: Vec<String>,
    /// Conditions that may prevent the service from running later, one message each, such as a
    /// program that the image does not contain yet.
    pub warnings: Vec<String>,
}

/// The reversal of one step.
enum Undo {
    Delete,
    Write(Setting),
    /// Restores all but this account, whose password is not known.
    WriteBut(Setting, String),
}

/// Returns the error for a manager that cannot be reached, or not with the required rights.
#[cfg(windows)]
pub(crate) fn no_manager(error: io::Error) -> Error {
    refusal("cannot connect to the Service Control Manager", error)
}

/// Installs the services one by one. If one fails, those added before it are removed again.
#[cfg(any(windows, test))]
pub(crate) fn install_all(
    scm: &mut impl Scm,
    definitions: &[Definition],
    running: &Path,
) -> Result<Vec<Installed>, Error> {
    refuse_differences(definitions)?;
    let mut all = Vec::with_capacity(definitions.len());
    for definition in definitions {
        match install(scm, definition, running) {
            Ok(installed) => all.push(installed),
            Err(error) => {
                let added = definitions.iter().zip(&all).filter(|(_, it)| it.is_new);
                for (definition, _) in added.rev() {
                    // Only the original error is reported.
                    let _is_gone = uninstall(scm, &definition.name, definition.graceful);
                }
                return Err(error);
            }
        }
    }
    Ok(all)
}

/// Returns what a failed installation of these services could not undo, one message each. Services
/// that may not be read are left out.
#[cfg(any(windows, test))]
pub(crate) fn cautions(
    scm: &mut impl Scm,
    definitions: &[Definition],
    running: &Path,
) -> Result<Vec<String>, Error> {
    let mut cautions = Vec::new();
    for definition in definitions {
        let name = &*definition.name;
        let (Some(Setting::Base(after)), Ok(before)) = (
            settings(definition, running)?.into_iter().next(),
            base(scm, name),
        ) else {
            continue;
        };
        cautions.extend(rights::lost_account(&before, &after).map(|lost| {
            format!(
                "service \"{name}\" changes its account from {lost} to {}; if a later step fails, it keeps the new one, because the password of {lost} is not known",
                after.account
            )
        }));
    }
    Ok(cautions)
}

/// Returns the settings in the order in which they are applied.
#[cfg(any(windows, test))]
pub(crate) fn plan_all(definitions: &[Definition], running: &Path) -> Result<String, Error> {
    refuse_differences(definitions)?;
    let mut plan = String::new();
    for definition in definitions {
        plan += &format!("create or change service \"{}\"\n", definition.name);
        for setting in settings(definition, running)? {
            plan += &format!("  {setting}\n");
        }
    }
    Ok(plan)
}

pub(crate) fn install(
    scm: &mut impl Scm,
    definition: &Definition,
    running: &Path,
) -> Result<Installed, Error> {
    let name = &*definition.name;
    let wanted = settings(definition, running)?;
    let mut installed = Installed {
        losses: losses(definition),
        ..Installed::default()
    };
    let mut undos = Vec::new();
    for setting in &wanted {
        let done = apply(scm, name, setting, &mut installed, &mut undos);
        if let Err(error) = done {
            let mut text = format!("cannot write the {} of service \"{name}\"", setting.kind());
            for undo in undos.into_iter().rev() {
                let undone = match &undo {
                    Undo::Delete => scm.delete(name),
                    Undo::Write(setting) => scm.write(name, setting),
                    Undo::WriteBut(setting, account) => {
                        text += &format!(
                            "; the account {account} could not be restored, because its password is not known"
                        );
                        scm.write(name, setting)
                    }
                };
                if let Err(error) = undone {
                    text += &format!("; the changes made before could not be undone ({error})");
                }
            }
            return Err(refusal(text, error));
        }
    }
    Ok(installed)
}

/// Applies one setting, unless it is already in effect.
fn apply(
    scm: &mut impl Scm,
    name: &str,
    setting: &Setting,
    installed: &mut Installed,
    undos: &mut Vec<Undo>,
) -> io::Result<()> {
    let before = scm.read(name, setting.kind());
    match (setting, before) {
        (Setting::Base(base), before) => {
            // A service that is deleted but still held open looks unchanged. Only a write reveals
            // its state.
            let is_there = match before {
                Ok(before) => match scm.write(name, setting) {
                    Ok(()) => {
                        installed.is_changed |= before != *setting;
                        undos.push(undo_of_base(before, base));
                        true
                    }
                    Err(error) if refusal::number(&error) == refusal::MARKED_FOR_DELETE => {
                        released(scm, name)?;
                        false
                    }
                    Err(error) => return Err(error),
                },
                Err(error) if refusal::number(&error) == refusal::DOES_NOT_EXIST => false,
                Err(error) => return Err(error),
            };
            if !is_there {
                scm.create(name, base)?;
                installed.is_new = true;
                undos.push(Undo::Delete);
            }
        }
        (setting, Ok(before)) if before == *setting => {}
        (setting, before) => match scm.write(name, setting) {
            // A new service is deleted as a whole, including its settings.
            Ok(()) if installed.is_new && !setting.kind().outlives_service() => {}
            Ok(()) => {
                installed.is_changed = true;
                undos.extend(before.ok().map(Undo::Write));
            }
            Err(error) if refusal::is_lack(&error) => {
                let is_lost = !setting.is_nothing();
                installed
                    .losses
                    .extend(is_lost.then(|| setting.kind().to_string()));
            }
            Err(error) => return Err(error),
        },
    }
    Ok(())
}

/// Returns the reversal of a change of the base. An account whose password is not known stays
/// replaced.
fn undo_of_base(before: Setting, after: &Base) -> Undo {
    match before {
        Setting::Base(before) if rights::lost_account(&before, after).is_some() => {
            let kept = Base {
                account: after.account.clone(),
                ..before.clone()
            };
            Undo::WriteBut(Setting::Base(kept), before.account)
        }
        before => Undo::Write(before),
    }
}

pub(crate) fn uninstall(scm: &mut impl Scm, name: &str, graceful: Duration) -> Result<(), Error> {
    let what = || format!("cannot uninstall service \"{name}\"");
    let status = scm.query(name).map_err(|error| refusal(what(), error))?;
    if status.state != State::Stopped {
        stop_if_running(scm, name, graceful)?;
    }
    scm.delete(name).map_err(|error| refusal(what(), error))?;
    let forgotten = scm.write(name, &Setting::EventSource(None));
    forgotten.map_err(|error| refusal(what(), error))?;
    released(scm, name).map_err(|error| refusal(what(), error))
}

/// Waits until a deleted service is gone. It exists as long as a program holds it open.
fn released(scm: &mut impl Scm, name: &str) -> io::Result<()> {
    let deadline = scm.now() + RELEASE;
    let mut interval = POLL_INTERVAL;
    while exists(scm, name) {
        if scm.now() >= deadline {
            let number = refusal::MARKED_FOR_DELETE.cast_signed();
            return Err(io::Error::from_raw_os_error(number));
        }
        // Polling holds no handle in the meantime, unlike waiting for a notification.
        scm.sleep(interval);
        interval = (interval * 2).min(LONGEST_POLL_INTERVAL);
    }
    Ok(())
}

fn exists(scm: &mut impl Scm, name: &str) -> bool {
    !is_missing(scm, name)
}

/// Returns whether there is no such service. One that may not be queried exists.
pub(crate) fn is_missing(scm: &mut impl Scm, name: &str) -> bool {
    scm.query(name)
        .is_err_and(|error| refusal::number(&error) == refusal::DOES_NOT_EXIST)
}

pub(crate) fn set_enablement(
    scm: &mut impl Scm,
    name: &str,
    enablement: Enablement,
) -> Result<(), Error> {
    let start_type = match enablement {
        Enablement::Enabled => AUTO_START,
        Enablement::Disabled => DEMAND_START,
    };
    let done = base(scm, name).and_then(|base| {
        let base = Base { start_type, ..base };
        scm.write(name, &Setting::Base(base))
    });
    done.map_err(|error| refusal(format!("cannot {enablement} service \"{name}\""), error))
}

pub(crate) fn is_enabled(scm: &mut impl Scm, name: &str) -> Result<bool, Error> {
    let base = base(scm, name);
    let base = base.map_err(|error| refusal(format!("cannot query service \"{name}\""), error))?;
    Ok(base.start_type == AUTO_START)
}

fn base(scm: &mut impl Scm, name: &str) -> io::Result<Base> {
    match scm.read(name, Kind::Base)? {
        Setting::Base(base) => Ok(base),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The hint for a start that timed out.
const UNCONNECTED: &str = "the program did not connect to the service manager in time: check that its image path ends with --under-scm and that it runs in a console";

pub(crate) fn start(scm: &mut impl Scm, name: &str, arguments: &[OsString]) -> Result<(), Error> {
    let what = || format!("cannot start service \"{name}\"");
    scm.start(name, arguments).map_err(|error| {
        let error = refusal(what(), error);
        match error.kind() {
            ErrorKind::TimedOut => error.with_cure(UNCONNECTED),
            _ => error,
        }
    })?;
    arrive(scm, name, what, State::Running, Duration::ZERO)
}

/// Stops a service. One that ends by itself meanwhile is stopped, too.
pub(crate) fn stop(scm: &mut impl Scm, name: &str, graceful: Duration) -> Result<(), Error> {
    let what = || format!("cannot stop service \"{name}\"");
    let status = scm.query(name).map_err(|error| refusal(what(), error))?;
    if status.state == State::Stopped {
        let not_active = io::Error::from_raw_os_error(refusal::NOT_ACTIVE.cast_signed());
        return Err(refusal(what(), not_active));
    }
    // A service accepts no control in this state. Whatever state follows, it is stopped in the
    // end.
    if status.state == State::StartPending {
        let _ends_or_stays = arrive(scm, name, what, State::Running, graceful);
    }
    if status.state != State::StopPending
        && let Err(error) = scm.control(name, STOP)
    {
        let is_ending = match refusal::number(&error) {
            refusal::NOT_ACTIVE => true,
            // A process that ends does not respond.
            refusal::CANNOT_ACCEPT | refusal::REQUEST_TIMEOUT => scm
                .query(name)
                .is_ok_and(|status| matches!(status.state, State::StopPending | State::Stopped)),
            _ => false,
        };
        if !is_ending {
            return Err(refusal(what(), error));
        }
    }
    arrive(scm, name, what, State::Stopped, graceful)
}

/// Stops a service that may have ended since it was seen.
fn stop_if_running(scm: &mut impl Scm, name: &str, graceful: Duration) -> Result<(), Error> {
    match stop(scm, name, graceful) {
        Err(error) if error.kind() == ErrorKind::NotRunning => Ok(()),
        done => done,
    }
}

pub(crate) fn restart(scm: &mut impl Scm, name: &str, graceful: Duration) -> Result<(), Error> {
    let what = || format!("cannot restart service \"{name}\"");
    let status = scm.query(name).map_err(|error| refusal(what(), error))?;
    if status.state != State::Stopped {
        stop_if_running(scm, name, graceful)?;
    }
    start(scm, name, &[])
}

pub(crate) fn pause(scm: &mut impl Scm, name: &str, graceful: Duration) -> Result<(), Error> {
    let what = || format!("cannot pause service \"{name}\"");
    scm.control(name, PAUSE)
        .map_err(|error| refusal(what(), error))?;
    arrive(scm, name, what, State::Paused, graceful)
}

pub(crate) fn resume(scm: &mut impl Scm, name: &str, graceful: Duration) -> Result<(), Error> {
    let what = || format!("cannot continue service \"{name}\"");
    scm.control(name, CONTINUE)
        .map_err(|error| refusal(what(), error))?;
    arrive(scm, name, what, State::Running, graceful)
}

pub(crate) fn reload(scm: &mut impl Scm, name: &str) -> Result<(), Error> {
    let sent = scm.control(name, PARAMETERS_CHANGED);
    sent.map_err(|error| refusal(format!("cannot reload service \"{name}\""), error))
}

pub(crate) fn control(scm: &mut impl Scm, name: &str, code: u8) -> Result<(), Error> {
    let what = format!("cannot send control {code} to service \"{name}\"");
    if code < 128 {
        let error = Error::new(ErrorKind::Invalid, what);
        return Err(error.with_cure("custom control codes are 128 to 255"));
    }
    let sent = scm.control(name, u32::from(code));
    sent.map_err(|error| refusal(what, error))
}

pub(crate) fn status(scm: &mut impl Scm, name: &str) -> Result<ServiceStatus, Error> {
    let status = scm.query(name);
    status.map_err(|error| refusal(format!("cannot query service \"{name}\""), error))
}

/// Returns the services whose program uses this library, which are started with [`UNDER_SCM`].
/// Services that may not be read are skipped.
pub(crate) fn own(scm: &mut impl Scm) -> Result<Vec<(String, ServiceStatus)>, Error> {
    let names = scm
        .names()
        .map_err(|error| refusal("cannot list the services", error))?;
    let own = names.into_iter().filter_map(|name| {
        let Ok(Setting::Base(base)) = scm.read(&name, Kind::Base) else {
            return None;
        };
        let is_ours = base.image_path.split(' ').next_back() == Some(UNDER_SCM);
        let status = is_ours.then(|| scm.query(&name).ok()).flatten()?;
        Some((name, status))
    });
    Ok(own.collect())
}

/// Waits until the service's state differs from `seen`, for at most `timeout`.
pub(crate) fn wait_for_change(
    scm: &mut impl Scm,
    name: &str,
    seen: State,
    timeout: Duration,
) -> Result<ServiceStatus, Error> {
    let deadline = scm.now() + timeout;
    loop {
        let status = status(scm, name)?;
        let left = deadline.saturating_sub(scm.now());
        if status.state != seen || left.is_zero() {
            return Ok(status);
        }
        scm.wait(name, seen, left.min(LONGEST_WAIT));
    }
}

/// Waits until the service reaches the wanted state. It may take any time as long as its checkpoint
/// advances. `slack` raises the limit for services that report no checkpoint.
fn arrive(
    scm: &mut impl Scm,
    name: &str,
    what: impl Fn() -> String,
    wanted: State,
    slack: Duration,
) -> Result<(), Error> {
    let mut interval = POLL_INTERVAL;
    let mut seen = None;
    let mut since = scm.now();
    loop {
        let status = scm.query(name).map_err(|error| refusal(what(), error))?;
        if status.state == wanted {
            return Ok(());
        }
        let has_moved = seen.is_some_and(|(state, _)| state != status.state);
        if status.state == State::Stopped || has_moved && !status.state.is_pending() {
            let error = Error::new(ErrorKind::Failed, format!("{}: it is {status}", what()));
            return Err(error.with_cure("see the log of the service and the Event Log"));
        }
        if seen != Some((status.state, status.checkpoint)) {
            seen = Some((status.state, status.checkpoint));
            since = scm.now();
        }
        if scm.now() - since > status.wait_hint.max(CHECKPOINT_TIMEOUT).max(slack) {
            let error = Error::new(
                ErrorKind::TimedOut,
                format!("{}: it is still {status}", what()),
            );
            return Err(error.with_cure(
                "it makes no progress: see the log of the service, or kill its process",
            ));
        }
        scm.wait(name, status.state, interval);
        interval = (interval * 2).min(LONGEST_POLL_INTERVAL);
    }
}
