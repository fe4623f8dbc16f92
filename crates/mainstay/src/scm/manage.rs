//! Installing, controlling and removing a service: decisions and waits, over the manager's own calls.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::refusal::{self, refusal};
use super::settings::settings;
use super::{Kind, Scm, ServiceStatus, Setting, State};
use crate::{Definition, Error, ErrorKind};

/// How often a state is looked at while it is waited for, at first; it doubles.
const LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_millis(250);
/// How long a checkpoint may stand still, whatever the wait hint says.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long others may hold a service open that was deleted.
const RELEASE: Duration = Duration::from_secs(5);
const STOP: u32 = 1;
const PAUSE: u32 = 2;
const CONTINUE: u32 = 3;
const PARAMETERS_CHANGED: u32 = 6;

/// What an installation has brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Installed {
    /// There was none before.
    pub is_new: bool,
    /// What this system does not know how to keep, one text each; all else holds.
    pub losses: Vec<String>,
}

/// How to take back one step.
enum Undo {
    Delete,
    Write(Setting),
}

/// The manager cannot be reached, or not with the rights that are needed.
#[cfg(windows)]
pub(crate) fn no_manager(error: io::Error) -> Error {
    refusal("connect to the Service Control Manager", error)
}

pub(crate) fn install(
    scm: &mut impl Scm,
    definition: &Definition,
    running: &Path,
) -> Result<Installed, Error> {
    let name = &*definition.name;
    let wanted = settings(definition, running)?;
    let mut installed = Installed::default();
    let mut undos = Vec::new();
    for setting in &wanted {
        let done = apply(scm, name, setting, &mut installed, &mut undos);
        if let Err(error) = done {
            let mut text = format!("write {} of service \"{name}\"", setting.kind());
            for undo in undos.into_iter().rev() {
                let undone = match &undo {
                    Undo::Delete => scm.delete(name),
                    Undo::Write(setting) => scm.write(name, setting),
                };
                if let Err(error) = undone {
                    text += &format!("; and could not take back what was done before ({error})");
                }
            }
            return Err(refusal(text, error));
        }
    }
    Ok(installed)
}

/// Brings one setting about, unless it is so already.
fn apply(
    scm: &mut impl Scm,
    name: &str,
    setting: &Setting,
    installed: &mut Installed,
    undos: &mut Vec<Undo>,
) -> io::Result<()> {
    let before = scm.read(name, setting.kind());
    match (setting, before) {
        (Setting::Base(base), Err(error)) if refusal::number(&error) == refusal::DOES_NOT_EXIST => {
            scm.create(name, base)?;
            installed.is_new = true;
            undos.push(Undo::Delete);
        }
        (Setting::Base(_), Err(error)) => return Err(error),
        (setting, Ok(before)) if before == *setting => {}
        (setting, before) => match scm.write(name, setting) {
            // A new service goes as a whole.
            Ok(()) if installed.is_new && setting.kind() != Kind::EventSource => {}
            Ok(()) => undos.extend(before.ok().map(Undo::Write)),
            Err(error) if setting.kind() != Kind::Base && refusal::is_lack(&error) => {
                installed.losses.push(setting.kind().to_string());
            }
            Err(error) => return Err(error),
        },
    }
    Ok(())
}

pub(crate) fn uninstall(scm: &mut impl Scm, name: &str, graceful: Duration) -> Result<(), Error> {
    let what = || format!("uninstall service \"{name}\"");
    let status = scm.query(name).map_err(|error| refusal(what(), error))?;
    if status.state != State::Stopped {
        stop(scm, name, graceful)?;
    }
    scm.delete(name).map_err(|error| refusal(what(), error))?;
    let forgotten = scm.write(name, &Setting::EventSource(None));
    forgotten.map_err(|error| refusal(what(), error))?;
    let deadline = scm.now() + RELEASE;
    let mut look = LOOK;
    // It stays as long as somebody holds it open.
    while exists(scm, name) {
        if scm.now() >= deadline {
            let error = io::Error::from_raw_os_error(refusal::MARKED_FOR_DELETE.cast_signed());
            return Err(refusal(what(), error));
        }
        scm.wait(look);
        look = (look * 2).min(LONGEST_LOOK);
    }
    Ok(())
}

fn exists(scm: &mut impl Scm, name: &str) -> bool {
    match scm.query(name) {
        Ok(_) => true,
        Err(error) => refusal::number(&error) != refusal::DOES_NOT_EXIST,
    }
}

pub(crate) fn start(scm: &mut impl Scm, name: &str, arguments: &[OsString]) -> Result<(), Error> {
    let what = || format!("start service \"{name}\"");
    scm.start(name, arguments)
        .map_err(|error| refusal(what(), error))?;
    arrive(scm, name, what, State::Running, Duration::ZERO)
}

pub(crate) fn stop(scm: &mut impl Scm, name: &str, graceful: Duration) -> Result<(), Error> {
    let what = || format!("stop service \"{name}\"");
    let status = scm.query(name).map_err(|error| refusal(what(), error))?;
    match status.state {
        State::StopPending => {}
        // It takes nothing in that state. Wherever it gets from there, it is stopped in the end.
        State::StartPending => {
            let _ends_or_stays = arrive(scm, name, what, State::Running, graceful);
            match scm.control(name, STOP) {
                Err(error) if refusal::number(&error) == refusal::NOT_ACTIVE => return Ok(()),
                done => done.map_err(|error| refusal(what(), error))?,
            }
        }
        _ => scm
            .control(name, STOP)
            .map_err(|error| refusal(what(), error))?,
    }
    arrive(scm, name, what, State::Stopped, graceful)
}

pub(crate) fn restart(scm: &mut impl Scm, name: &str, graceful: Duration) -> Result<(), Error> {
    let what = || format!("restart service \"{name}\"");
    let status = scm.query(name).map_err(|error| refusal(what(), error))?;
    if status.state != State::Stopped {
        stop(scm, name, graceful)?;
    }
    start(scm, name, &[])
}

pub(crate) fn pause(scm: &mut impl Scm, name: &str, graceful: Duration) -> Result<(), Error> {
    let what = || format!("pause service \"{name}\"");
    scm.control(name, PAUSE)
        .map_err(|error| refusal(what(), error))?;
    arrive(scm, name, what, State::Paused, graceful)
}

pub(crate) fn resume(scm: &mut impl Scm, name: &str, graceful: Duration) -> Result<(), Error> {
    let what = || format!("continue service \"{name}\"");
    scm.control(name, CONTINUE)
        .map_err(|error| refusal(what(), error))?;
    arrive(scm, name, what, State::Running, graceful)
}

pub(crate) fn reload(scm: &mut impl Scm, name: &str) -> Result<(), Error> {
    let sent = scm.control(name, PARAMETERS_CHANGED);
    sent.map_err(|error| refusal(format!("reload service \"{name}\""), error))
}

pub(crate) fn control(scm: &mut impl Scm, name: &str, code: u8) -> Result<(), Error> {
    let what = format!("send control {code} to service \"{name}\"");
    if code < 128 {
        let error = Error::new(ErrorKind::Invalid, what);
        return Err(error.with_cure("codes of a service's own are 128 to 255"));
    }
    let sent = scm.control(name, u32::from(code));
    sent.map_err(|error| refusal(what, error))
}

pub(crate) fn status(scm: &mut impl Scm, name: &str) -> Result<ServiceStatus, Error> {
    let status = scm.query(name);
    status.map_err(|error| refusal(format!("query service \"{name}\""), error))
}

/// Waits until the service is there. As long as its checkpoint grows it may take its time; `slack` is for services that show none.
fn arrive(
    scm: &mut impl Scm,
    name: &str,
    what: impl Fn() -> String,
    wanted: State,
    slack: Duration,
) -> Result<(), Error> {
    let mut look = LOOK;
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
            return Err(error.with_cure("see its own log and the Event Log"));
        }
        if seen != Some((status.state, status.checkpoint)) {
            seen = Some((status.state, status.checkpoint));
            since = scm.now();
        }
        if scm.now() - since > status.wait_hint.max(PATIENCE).max(slack) {
            let error = Error::new(
                ErrorKind::TimedOut,
                format!("{}: it is still {status}", what()),
            );
            return Err(
                error.with_cure("it shows no progress: see its own log, or end its process")
            );
        }
        scm.wait(look);
        look = (look * 2).min(LONGEST_LOOK);
    }
}
