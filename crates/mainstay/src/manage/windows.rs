//! Management through the Service Control Manager.

use std::ffi::OsString;
use std::time::Duration;

use windows_sys::Win32::System::Services::{
    SC_MANAGER_CONNECT, SC_MANAGER_CREATE_SERVICE, SC_MANAGER_ENUMERATE_SERVICE,
};

use crate::manager::Enablement;
use crate::scm::manage;
use crate::sys::ServiceControlManager;
use crate::{Definition, Error, ErrorKind, Installed, Manager, ServiceStatus, State};

fn connect(rights: u32) -> Result<ServiceControlManager, Error> {
    let connected = ServiceControlManager::connect(rights);
    connected.map_err(manage::no_manager)
}

/// Returns the Service Control Manager, which is always present.
pub(super) fn detect() -> Vec<Manager> {
    vec![Manager::WindowsScm]
}

/// Returns nothing: Windows cannot be installed into from a directory.
pub(super) fn detect_below(_root: &std::path::Path) -> Vec<Manager> {
    Vec::new()
}

/// Checks the manager. There is only one, the Service Control Manager.
pub(super) fn check_manager(definition: &Definition) -> Result<(), Error> {
    match definition.manager {
        None | Some(Manager::WindowsScm) => Ok(()),
        Some(manager) => {
            let what = format!("{manager} is not available on this system");
            let error = Error::new(ErrorKind::Unsupported, what);
            Err(error.with_cure("choose a manager of this system, or omit it for detection"))
        }
    }
}

/// Connects with the right to create services if one of them does not exist. Who may change an
/// existing service need not have it.
fn connect_to_install(definitions: &[Definition]) -> Result<ServiceControlManager, Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    let is_missing = |definition: &Definition| manage::is_missing(&mut manager, &definition.name);
    if definitions.iter().any(is_missing) {
        connect(SC_MANAGER_CONNECT | SC_MANAGER_CREATE_SERVICE)
    } else {
        Ok(manager)
    }
}

pub(super) fn may_install(definition: &Definition) -> Result<(), Error> {
    connect_to_install(std::slice::from_ref(definition)).map(drop)
}

pub(super) fn install_all(definitions: &[Definition]) -> Result<Vec<Installed>, Error> {
    let mut manager = connect_to_install(definitions)?;
    manage::install_all(&mut manager, definitions, &running()?)
}

pub(super) fn cautions(definitions: &[Definition]) -> Result<Vec<String>, Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::cautions(&mut manager, definitions, &running()?)
}

pub(super) fn stage_all(
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
pub(super) fn changed_files(_definition: &Definition) -> Result<Vec<std::path::PathBuf>, Error> {
    Ok(Vec::new())
}

pub(super) fn plan_all(definitions: &[Definition]) -> Result<String, Error> {
    manage::plan_all(definitions, &running()?)
}

fn running() -> Result<std::path::PathBuf, Error> {
    std::env::current_exe().map_err(|error| {
        Error::new(ErrorKind::Failed, "cannot find the path of this program").because(error)
    })
}

pub(super) fn uninstall(definition: &Definition) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::uninstall(&mut manager, &definition.name, definition.graceful)
}

pub(super) fn set_enablement(definition: &Definition, enablement: Enablement) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::set_enablement(&mut manager, &definition.name, enablement)
}

pub(super) fn is_enabled(definition: &Definition) -> Result<bool, Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::is_enabled(&mut manager, &definition.name)
}

pub(super) fn start(definition: &Definition, arguments: &[OsString]) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::start(&mut manager, &definition.name, arguments)
}

pub(super) fn stop(definition: &Definition) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::stop(&mut manager, &definition.name, definition.graceful)
}

pub(super) fn restart(definition: &Definition) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::restart(&mut manager, &definition.name, definition.graceful)
}

pub(super) fn pause(definition: &Definition) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::pause(&mut manager, &definition.name, definition.graceful)
}

pub(super) fn resume(definition: &Definition) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::resume(&mut manager, &definition.name, definition.graceful)
}

pub(super) fn reload(definition: &Definition) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::reload(&mut manager, &definition.name)
}

pub(super) fn control(definition: &Definition, code: u8) -> Result<(), Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::control(&mut manager, &definition.name, code)
}

pub(super) fn wait_for_change(
    definition: &Definition,
    seen: State,
    timeout: Duration,
) -> Result<ServiceStatus, Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::wait_for_change(&mut manager, &definition.name, seen, timeout)
}

pub(super) fn services() -> Result<Vec<(String, ServiceStatus)>, Error> {
    manage::own(&mut connect(
        SC_MANAGER_CONNECT | SC_MANAGER_ENUMERATE_SERVICE,
    )?)
}

pub(super) fn status(definition: &Definition) -> Result<ServiceStatus, Error> {
    let mut manager = connect(SC_MANAGER_CONNECT)?;
    manage::status(&mut manager, &definition.name)
}
