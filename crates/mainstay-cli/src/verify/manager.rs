//! The service manager of the system, and what else shows its view of the service.

#[cfg(unix)]
use std::path::{Path, PathBuf};

#[cfg(unix)]
use mainstay::Manager;
use mainstay::{ErrorKind, ServiceStatus, State};
use mainstay_core::failure::chain;
use mainstay_core::verify::{Claim, Deviation, Evidence, Observation, Part, Source, words};
#[cfg(unix)]
use mainstay_sys::guarded;

use super::{Target, known, unknown};
use crate::installed::Installed;

/// `ERROR_SERVICE_NEVER_STARTED` (winerror.h): the reason why a service is down.
const NEVER_STARTED: u32 = 1077;

/// Collects the evidence; none for a service of mainstay's own supervisor.
pub(super) fn ask(target: &Target) -> Vec<Evidence> {
    let Some(installed) = target.installed() else {
        return Vec::new();
    };
    let part = part_of(installed);
    let mut evidence = vec![library(installed, part)];
    #[cfg(unix)]
    match installed.record().manager {
        Manager::Systemd => evidence.extend(super::systemd::ask(installed, part)),
        Manager::OpenRc => evidence.push(super::openrc::ask(installed, part)),
        Manager::Runit => evidence.extend(super::runit::ask(installed, part)),
        _ => {}
    }
    #[cfg(unix)]
    evidence.extend(pid_file(installed).map(|path| read_pid_file(&path, part)));
    #[cfg(windows)]
    evidence.extend(super::windows::ask(installed, part));
    evidence
}

/// Returns the part that the manager runs.
fn part_of(installed: &Installed) -> Part {
    if installed.is_direct() {
        Part::Program
    } else {
        Part::Host
    }
}

/// Queries the manager as the library does.
fn library(installed: &Installed, part: Part) -> Evidence {
    let manager = installed.record().manager;
    let asked = format!("{manager}, as the library queries it");
    let status = match installed.service().status() {
        Ok(status) => status,
        Err(error) if error.kind() == ErrorKind::NotInstalled => {
            let why = format!("{manager} does not have the service");
            let missing = Claim::Deviation(Deviation::Registered(why));
            let observation = Observation::new("not installed").claim([missing]);
            return known(Source::Manager, asked, observation);
        }
        Err(error) => return unknown(Source::Manager, asked, chain(&error)),
    };
    known(
        Source::Manager,
        asked,
        observation(installed, part, &status),
    )
}

fn observation(installed: &Installed, part: Part, status: &ServiceStatus) -> Observation {
    // The numbers are the same.
    let state = words::of_scm(status.state as u32).unwrap_or_default();
    let is_up = status.state == State::Running;
    let is_disabled = is_up
        && installed
            .service()
            .is_enabled()
            .is_ok_and(|enabled| !enabled);
    let has_ended = status.state == State::Stopped && status.code != NEVER_STARTED;
    let failed = has_ended && status.exit_code() != Some(0);
    let why = installed
        .start_failure()
        .map_or_else(|| status.to_string(), |failure| failure.line());
    Observation::new(status.to_string())
        .claim(Claim::of_unit(part, state, status.pid))
        .claim(is_disabled.then_some(Claim::Deviation(Deviation::NotAtBoot)))
        .claim(failed.then_some(Claim::Deviation(Deviation::Failed(why))))
}

/// Returns the file in which the manager, or its script, keeps the process ID.
#[cfg(unix)]
fn pid_file(installed: &Installed) -> Option<PathBuf> {
    let name = installed.manager_name();
    Some(match installed.record().manager {
        Manager::OpenRc => Path::new("/run/openrc/options")
            .join(name)
            .join("child_pid"),
        Manager::Sysv => Path::new("/var/run").join(format!("{name}.pid")),
        Manager::Runit => super::runit::dir(name)?.join("supervise/pid"),
        _ => return None,
    })
}

#[cfg(unix)]
fn read_pid_file(path: &Path, part: Part) -> Evidence {
    let asked = path.display().to_string();
    let text = match guarded::read_to_string(path, guarded::MANIFEST) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return unknown(Source::PidFile, asked, error.to_string()),
    };
    // A start time may follow.
    let first = text.split_ascii_whitespace().next().unwrap_or_default();
    match (first, first.parse()) {
        ("", _) => {
            let observation = Observation::new("no pid").claim([Claim::NoProcess(part)]);
            known(Source::PidFile, asked, observation)
        }
        (_, Ok(pid)) => {
            let claim = Claim::Process(part, Some(pid));
            let observation = Observation::new(format!("pid {pid}")).claim([claim]);
            known(Source::PidFile, asked, observation)
        }
        (_, Err(_)) => unknown(Source::PidFile, asked, "it does not contain a process ID"),
    }
}
