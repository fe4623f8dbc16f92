//! Windows: the Service Control Manager, or a console.

mod console;
mod dispatcher;
pub(crate) mod event_log;
#[cfg(feature = "message-table")]
mod message_table;
mod redirect;
mod scm;

pub(crate) use console::ask;
pub(crate) use redirect::{Redirected, redirect};

use std::ffi::{OsStr, OsString};
use std::os::windows::ffi::OsStrExt as _;
use std::time::Duration;

use windows_sys::Win32::System::Services::{
    SC_MANAGER_CONNECT, SC_MANAGER_CREATE_SERVICE, SC_MANAGER_ENUMERATE_SERVICE,
};

use crate::scm::manage;
use crate::{
    Definition, Error, ErrorKind, Installed, Logger, Manager, Service, ServiceStatus, State,
};

/// Runs the service under the manager that started the process.
pub(crate) fn run(
    definition: Definition,
    service: impl Service + Send + 'static,
    logger: &Logger,
) -> Result<u32, Error> {
    if under_scm() {
        // The dispatcher comes first: the manager would report an earlier failure as a time-out
        // (1053) without a cause.
        dispatcher::run(definition, service, logger.clone())
    } else {
        if let Some(dir) = &definition.working_dir {
            std::env::set_current_dir(dir).map_err(|error| {
                let what = format!("cannot enter directory {}", dir.display());
                Error::new(ErrorKind::Failed, what).because(error)
            })?;
        }
        console::run(service, definition.log_dir.as_deref(), logger)
    }
}

fn under_scm() -> bool {
    Manager::current() == Manager::WindowsScm
}

/// Converts a string to UTF-16 with a NUL.
fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}

fn connect(rights: u32) -> Result<scm::Manager, Error> {
    let connected = scm::Manager::connect(rights);
    connected.map_err(manage::no_manager)
}

/// Returns the Service Control Manager, which is always present.
pub(crate) fn detect() -> Vec<Manager> {
    vec![Manager::WindowsScm]
}

/// Returns nothing: Windows cannot be installed into from a directory.
pub(crate) fn detect_below(_root: &std::path::Path) -> Vec<Manager> {
    Vec::new()
}

/// Checks the manager. There is only one, the Service Control Manager.
pub(crate) fn check_manager(definition: &Definition) -> Result<(), Error> {
    match definition.manager {
        None | Some(Manager::WindowsScm) => Ok(()),
        Some(manager) => {
            let what = format!("{manager} is not available on this system");
            let error = Error::new(ErrorKind::Unsupported, what);
            Err(error.with_cure("choose a manager of this system, or omit it for detection"))
        }
    }
}

pub(crate) fn may_install(_definition: &Definition) -> Result<(), Error> {
    connect(SC_MANAGER_CONNECT | SC_MANAGER_CREATE_SERVICE).map(drop)
}

pub(crate) fn install_all(definitions: &[Definition]) -> Result<Vec<Installed>, Error> {
    let mut manager = connect(SC_MANAGER_CONNECT | SC_MANAGER_CREATE_SERVICE)?;
    manage::install_all(&mut manager, definitions, &running()?)
}

pub(crate) fn stage_all(
    _definitions: &[Definition],
    root: &std::path::Path,
) -> Result<Vec<Installed>, Error> {
    let what = format!("cannot install services below {}", root.display());
    let error = Error::new(ErrorKind::Unsupported, what);
    Err(error
        .with_cure("the Service Control Manager stores services in the registry, not in files"))
}

/// Returns nothing: definitions are stored in the Service Control Manager, not in files.
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
pub(crate) fn changed_files(_definition: &Definition) -> Result<Vec<std::path::PathBuf>, Error> {
    Ok(Vec::new())
}

pub(crate) fn plan_all(definitions: &[Definition]) -> Result<String, Error> {
    manage::plan_all(definitions, &running()?)
}

fn running() -> Result<std::path::PathBuf, Error> {
    std::env::current_exe().map_err(|error| {
        Error::new(ErrorKind::Failed, "cannot find the path of this program").because(error)
    })
}

pub(crate) fn uninstall(definition: &Definition) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::uninstall(&mut manager, &definition.name, definition.graceful)
}

pub(crate) fn set_enabled(definition: &Definition, is_enabled: bool) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::set_enabled(&mut manager, &definition.name, is_enabled)
}

pub(crate) fn is_enabled(definition: &Definition) -> Result<bool, Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::is_enabled(&mut manager, &definition.name)
}

pub(crate) fn start(definition: &Definition, arguments: &[OsString]) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::start(&mut manager, &definition.name, arguments)
}

pub(crate) fn stop(definition: &Definition) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::stop(&mut manager, &definition.name, definition.graceful)
}

pub(crate) fn restart(definition: &Definition) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::restart(&mut manager, &definition.name, definition.graceful)
}

pub(crate) fn pause(definition: &Definition) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::pause(&mut manager, &definition.name, definition.graceful)
}

pub(crate) fn resume(definition: &Definition) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::resume(&mut manager, &definition.name, definition.graceful)
}

pub(crate) fn reload(definition: &Definition) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::reload(&mut manager, &definition.name)
}

pub(crate) fn control(definition: &Definition, code: u8) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::control(&mut manager, &definition.name, code)
}

pub(crate) fn wait_for_change(
    definition: &Definition,
    seen: State,
    timeout: Duration,
) -> Result<ServiceStatus, Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::wait_for_change(&mut manager, &definition.name, seen, timeout)
}

pub(crate) fn services() -> Result<Vec<(String, ServiceStatus)>, Error> {
    manage::own(&mut connect(
        SC_MANAGER_CONNECT | SC_MANAGER_ENUMERATE_SERVICE,
    )?)
}

pub(crate) fn status(definition: &Definition) -> Result<ServiceStatus, Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::status(&mut manager, &definition.name)
}
