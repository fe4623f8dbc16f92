//! Installs and controls services of this system.

#[cfg_attr(unix, path = "manage/unix/mod.rs")]
#[cfg_attr(windows, path = "manage/windows.rs")]
mod system;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::manager::Enablement;
use crate::{Definition, Error, Installed, Manager, ServiceStatus, State};

/// Checks whether this process may install the service.
///
/// # Errors
/// If it lacks a right, which the error names;
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if no supported manager was found.
///
/// ```no_run
/// let orders = mainstay::service("orders");
/// if let Err(error) = mainstay::may_install(&orders) {
///     eprintln!("run this as an administrator: {error:#}");
/// }
/// ```
pub fn may_install(definition: &Definition) -> Result<(), Error> {
    system::may_install(definition)
}

/// Checks whether the definition's manager runs on this system. Requires no rights and changes
/// nothing.
///
/// # Errors
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if it does not.
///
/// ```no_run
/// # fn main() -> Result<(), mainstay::Error> {
/// let orders = mainstay::service("orders");
/// mainstay::check_manager(&orders)?;
/// # Ok(())
/// # }
/// ```
pub fn check_manager(definition: &Definition) -> Result<(), Error> {
    system::check_manager(definition)
}

/// Installs all services, as [`Definition::install`] does, or none: if one cannot be installed,
/// those that did not exist before are removed again. If the manager must reload its files
/// (systemd), this is faster than one call per service.
///
/// # Errors
/// The first error that occurs.
///
/// ```no_run
/// # fn main() -> Result<(), mainstay::Error> {
/// let database = mainstay::service("database").executable("/opt/shop/database");
/// let web = mainstay::service("web").executable("/opt/shop/web").needs("database");
/// let services = [database, web];
/// for caution in mainstay::cautions(&services)? {
///     println!("warning: {caution}");
/// }
/// for installed in mainstay::install_all(&services)? {
///     for loss in installed.losses {
///         println!("not supported by the service manager: {loss}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub fn install_all(definitions: &[Definition]) -> Result<Vec<Installed>, Error> {
    system::install_all(definitions)
}

/// Returns what could not be undone if the installation of these services failed half-way, one
/// message each. Changes nothing. On Unix, everything can be undone.
///
/// # Errors
/// The errors of [`install_all`], as far as they can be predicted.
///
/// ```no_run
/// # fn main() -> Result<(), mainstay::Error> {
/// let orders = mainstay::service("orders");
/// for caution in mainstay::cautions(&[orders])? {
///     println!("warning: {caution}");
/// }
/// # Ok(())
/// # }
/// ```
pub fn cautions(definitions: &[Definition]) -> Result<Vec<String>, Error> {
    system::cautions(definitions)
}

/// Returns a human-readable plan of [`install_all`]: each file with its mode and content, and each
/// command or call, in order. Requires no rights and changes nothing. The plan includes the values
/// of environment variables if a file contains them.
///
/// # Errors
/// The errors of [`install_all`], as far as they can be predicted.
///
/// ```no_run
/// # fn main() -> Result<(), mainstay::Error> {
/// let web = mainstay::service("web").executable("/opt/shop/web");
/// print!("{}", mainstay::plan_all(&[web])?);
/// # Ok(())
/// # }
/// ```
pub fn plan_all(definitions: &[Definition]) -> Result<String, Error> {
    system::plan_all(definitions)
}

/// Installs all services into a system that is not running: an image or a package whose `/` is
/// `root`. If a definition names no manager, the one installed there is used. No command is run,
/// and only write access to `root` is required. Not available on Windows.
///
/// # Errors
/// The errors of [`install_all`].
///
/// ```no_run
/// use std::path::Path;
///
/// # fn main() -> Result<(), mainstay::Error> {
/// let web = mainstay::service("web").executable("/opt/shop/web");
/// mainstay::stage_all(&[web], Path::new("/tmp/image"))?;
/// # Ok(())
/// # }
/// ```
pub fn stage_all(definitions: &[Definition], root: &Path) -> Result<Vec<Installed>, Error> {
    system::stage_all(definitions, root)
}

/// Returns the services of this system whose program uses this library, by name, with their status.
/// Any user may call it.
///
/// # Errors
/// If the manager refuses; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if no
/// supported manager was found.
///
/// ```no_run
/// # fn main() -> Result<(), mainstay::Error> {
/// for (name, status) in mainstay::services()? {
///     println!("{name}: {status}");
/// }
/// # Ok(())
/// # }
/// ```
pub fn services() -> Result<Vec<(String, ServiceStatus)>, Error> {
    system::services()
}

impl Manager {
    /// Returns the manager that runs this system's services. Returns `None` if there is none, as in
    /// most containers, or if this version does not support it. Inspects the system without running
    /// anything.
    ///
    /// ```
    /// if let Some(manager) = mainstay::Manager::detect() {
    ///     println!("{manager} runs this system");
    /// }
    /// ```
    #[must_use]
    pub fn detect() -> Option<Self> {
        system::detect().into_iter().next()
    }

    /// Returns the manager that will run the system below `root`, judging by what is installed
    /// there.
    ///
    /// ```
    /// use std::path::Path;
    ///
    /// let manager = mainstay::Manager::detect_below(Path::new("/srv/image"));
    /// ```
    #[must_use]
    pub fn detect_below(root: &Path) -> Option<Self> {
        system::detect_below(root).into_iter().next()
    }

    /// Returns all managers that could run services here, starting with the one that runs the
    /// system.
    ///
    /// ```
    /// for manager in mainstay::Manager::available() {
    ///     println!("{manager}");
    /// }
    /// ```
    #[must_use]
    pub fn available() -> Vec<Self> {
        system::detect()
    }
}

/// Management through this system's service manager ([`Manager::detect`]) or the one that the
/// definition names. The methods block until the operation is complete, as long as the service
/// makes progress.
///
/// Administrator rights are required, except for the status. Errors name the operation and the
/// object; see [`Error::cure`].
impl Definition {
    /// Installs the service. If a service with this name exists, it is updated to this definition.
    /// A running service is not affected: changes take effect at its next start.
    ///
    /// # Errors
    /// If the definition is invalid (all mistakes are reported at once) or the manager refuses. The
    /// previous state is then restored.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// let losses = orders.install()?.losses;
    /// # Ok(())
    /// # }
    /// ```
    pub fn install(&self) -> Result<Installed, Error> {
        let installed = system::install_all(std::slice::from_ref(self))?;
        Ok(installed.into_iter().next().unwrap_or_default())
    }

    /// Returns the manager's files that differ from what [`Definition::install`] would write, are
    /// missing, or should not exist. Requires read access to them only. Windows has no such files:
    /// the result is empty.
    ///
    /// # Errors
    /// The errors of [`Definition::install`], as far as they can be predicted.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// let is_intact = orders.changed_files()?.is_empty();
    /// # Ok(())
    /// # }
    /// ```
    pub fn changed_files(&self) -> Result<Vec<PathBuf>, Error> {
        system::changed_files(self)
    }

    /// Stops the service if it is running, and removes it.
    ///
    /// # Errors
    /// If the service is not installed, does not stop, or other programs hold handles to it (it is
    /// then removed when they close them).
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// orders.uninstall()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn uninstall(&self) -> Result<(), Error> {
        system::uninstall(self)
    }

    /// Starts the service at boot from now on. Does not start it now.
    ///
    /// # Errors
    /// If the service is not installed.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// orders.enable()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn enable(&self) -> Result<(), Error> {
        system::set_enablement(self, Enablement::Enabled)
    }

    /// Starts the service on request only, not at boot. A running service is not affected.
    ///
    /// # Errors
    /// If the service is not installed.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// orders.disable()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn disable(&self) -> Result<(), Error> {
        system::set_enablement(self, Enablement::Disabled)
    }

    /// Returns whether the service starts at boot. Any user may call it.
    ///
    /// # Errors
    /// If the service is not installed.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// let starts_at_boot = orders.is_enabled()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_enabled(&self) -> Result<bool, Error> {
        system::is_enabled(self)
    }

    /// Starts the service and returns when it is ready.
    ///
    /// # Errors
    /// If the service is already running, cannot be started, exits at once, or makes no progress.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// orders.start_now()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_now(&self) -> Result<(), Error> {
        self.start_with(Vec::new())
    }

    /// Starts the service like [`Definition::start_now`], with arguments for
    /// [`Context::arguments`](crate::Context::arguments).
    ///
    /// # Errors
    /// The errors of [`Definition::start_now`].
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// orders.start_with(vec!["high".into()])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_with(&self, arguments: Vec<OsString>) -> Result<(), Error> {
        system::start(self, &arguments)
    }

    /// Stops the service and returns when it has stopped.
    ///
    /// # Errors
    /// If the service is not running or makes no progress.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// orders.stop()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop(&self) -> Result<(), Error> {
        system::stop(self)
    }

    /// Stops the service if it is running, and starts it.
    ///
    /// # Errors
    /// The errors of [`Definition::stop`] and [`Definition::start_now`]. A service that is not
    /// running is not an error.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// orders.restart()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn restart(&self) -> Result<(), Error> {
        system::restart(self)
    }

    /// Pauses the service and returns when it is paused.
    ///
    /// # Errors
    /// If the service is not running or does not accept a pause.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// orders.pause()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn pause(&self) -> Result<(), Error> {
        system::pause(self)
    }

    /// Resumes the service after a pause and returns when it is running.
    ///
    /// # Errors
    /// If the service is not paused.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// orders.resume()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn resume(&self) -> Result<(), Error> {
        system::resume(self)
    }

    /// Requests a reload of the service's configuration and returns when the request is delivered.
    ///
    /// # Errors
    /// If the service is not running or does not accept a reload.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// orders.reload()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn reload(&self) -> Result<(), Error> {
        system::reload(self)
    }

    /// Sends a service-defined control code, 128 to 255, and returns when it is delivered.
    ///
    /// # Errors
    /// If the service is not running.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// orders.control(130)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn control(&self, code: u8) -> Result<(), Error> {
        system::control(self, code)
    }

    /// Waits until the service's state differs from `seen`, for at most `timeout`, and returns its
    /// status. Any user may call it. The manager reports a state change at once. A new checkpoint
    /// is not a state change.
    ///
    /// # Errors
    /// If the service is not installed.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use mainstay::State;
    ///
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// let minute = Duration::from_secs(60);
    /// let status = orders.wait_for_change(State::StartPending, minute)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_for_change(&self, seen: State, timeout: Duration) -> Result<ServiceStatus, Error> {
        system::wait_for_change(self, seen, timeout)
    }

    /// Returns the service's status. Any user may call it, except under runit and s6, which report
    /// it to root only.
    ///
    /// # Errors
    /// If the service is not installed.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// println!("{}", orders.status()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> Result<ServiceStatus, Error> {
        system::status(self)
    }
}
