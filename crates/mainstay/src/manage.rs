//! Installing and controlling services of this system.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Definition, Error, Installed, ServiceStatus, State, sys};

/// Whether this process may install such a service.
///
/// # Errors
/// Which right it lacks; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where there is no manager that this version knows.
pub fn may_install(definition: &Definition) -> Result<(), Error> {
    sys::may_install(definition)
}

/// Whether the manager of this definition runs on this system. Needs no rights, and touches nothing.
///
/// # Errors
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where it does not.
pub fn check_manager(definition: &Definition) -> Result<(), Error> {
    sys::check_manager(definition)
}

/// Makes all of them services of this system, as [`Definition::install`] does, or none: where one cannot be, those that were not there before
/// go again. It is quicker than one after the other where the manager has to read its files again (systemd).
///
/// # Errors
/// Of the first one that fails.
pub fn install_all(definitions: &[Definition]) -> Result<Vec<Installed>, Error> {
    sys::install_all(definitions)
}

/// What [`install_all`] would do, for people: each file with its mode and what is in it, each command or call, in order. Needs no rights, and
/// touches nothing. Values of the environment are in it where a file has them.
///
/// # Errors
/// As [`install_all`], as far as that can be told before.
pub fn plan_all(definitions: &[Definition]) -> Result<String, Error> {
    sys::plan_all(definitions)
}

/// Puts all of them into a system that does not run: an image or a package, whose `/` is `root`. Its manager is what it is found to be, where
/// a definition names none; nothing is run, and no rights are needed but to write there. Windows has no such place.
///
/// # Errors
/// As [`install_all`].
pub fn stage_all(definitions: &[Definition], root: &Path) -> Result<Vec<Installed>, Error> {
    sys::stage_all(definitions, root)
}

/// The services of this system whose program is made with this library, by name, and how they are. Any user may ask.
///
/// # Errors
/// Where the manager refuses; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where there is none that this version knows.
pub fn services() -> Result<Vec<(String, ServiceStatus)>, Error> {
    sys::services()
}

/// Through the service manager of this system ([`Manager::detect`](crate::Manager::detect)), or the one that the definition names. They block until what they ask for has
/// come about, as long as the service shows that it is at it.
///
/// An administrator's rights are needed, but for the status. Errors name the operation and the object; see [`Error::cure`].
impl Definition {
    /// Makes it a service of this system; where there is one of its name, that becomes what this definition says. A running service is not
    /// touched: what is new holds from its next start on.
    ///
    /// # Errors
    /// Where the definition makes no sense (all mistakes at once) or the manager refuses; everything is as it was before then.
    pub fn install(&self) -> Result<Installed, Error> {
        let installed = sys::install_all(std::slice::from_ref(self))?;
        Ok(installed.into_iter().next().unwrap_or_default())
    }

    /// Files of its manager's that are not what [`Definition::install`] would make them, or are there and should not be. Needs no rights
    /// but to read them. Windows keeps none: it has nothing to say.
    ///
    /// # Errors
    /// As [`Definition::install`], as far as that can be told before.
    pub fn changed_files(&self) -> Result<Vec<PathBuf>, Error> {
        sys::changed_files(self)
    }

    /// Stops it, if it runs, and removes it.
    ///
    /// # Errors
    /// Where there is none, it does not stop, or other programs hold on to it (then it goes as soon as they let go).
    pub fn uninstall(&self) -> Result<(), Error> {
        sys::uninstall(self)
    }

    /// Has it start with the system from now on; it is not started now.
    ///
    /// # Errors
    /// Where there is none.
    pub fn enable(&self) -> Result<(), Error> {
        sys::set_enabled(self, true)
    }

    /// Has it start when somebody asks for it, and not with the system. One that runs goes on.
    ///
    /// # Errors
    /// Where there is none.
    pub fn disable(&self) -> Result<(), Error> {
        sys::set_enabled(self, false)
    }

    /// Whether it starts with the system. Any user may ask.
    ///
    /// # Errors
    /// Where there is none.
    pub fn is_enabled(&self) -> Result<bool, Error> {
        sys::is_enabled(self)
    }

    /// Starts it; returns when it is ready.
    ///
    /// # Errors
    /// Where it runs already, cannot be started, ends at once, or shows no progress.
    pub fn start_now(&self) -> Result<(), Error> {
        self.start_with(Vec::new())
    }

    /// The same, with arguments for [`Context::arguments`](crate::Context::arguments).
    ///
    /// # Errors
    /// As [`Definition::start_now`].
    pub fn start_with(&self, arguments: Vec<OsString>) -> Result<(), Error> {
        sys::start(self, &arguments)
    }

    /// Stops it; returns when it has stopped.
    ///
    /// # Errors
    /// Where it does not run, or shows no progress.
    pub fn stop(&self) -> Result<(), Error> {
        sys::stop(self)
    }

    /// Stops it, if it runs, and starts it.
    ///
    /// # Errors
    /// As [`Definition::stop`] and [`Definition::start_now`], but for a service that does not run.
    pub fn restart(&self) -> Result<(), Error> {
        sys::restart(self)
    }

    /// Has it pause; returns when it has.
    ///
    /// # Errors
    /// Where it does not run, or does not accept that.
    pub fn pause(&self) -> Result<(), Error> {
        sys::pause(self)
    }

    /// Has it go on after a pause; returns when it does.
    ///
    /// # Errors
    /// Where it is not paused.
    pub fn resume(&self) -> Result<(), Error> {
        sys::resume(self)
    }

    /// Has it read its configuration again; returns when it was told.
    ///
    /// # Errors
    /// Where it does not run, or does not accept that.
    pub fn reload(&self) -> Result<(), Error> {
        sys::reload(self)
    }

    /// Sends it a code of its own, 128 to 255; returns when it was told.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn control(&self, code: u8) -> Result<(), Error> {
        sys::control(self, code)
    }

    /// Returns how it is as soon as it is in another state than `seen`, or after `timeout`. Any user may ask. The manager tells of a change
    /// at once; a checkpoint is none.
    ///
    /// # Errors
    /// Where there is none.
    pub fn wait_for_change(&self, seen: State, timeout: Duration) -> Result<ServiceStatus, Error> {
        sys::wait_for_change(self, seen, timeout)
    }

    /// How it is. Any user may ask; under runit and s6, which tell nobody else, root.
    ///
    /// # Errors
    /// Where there is none.
    pub fn status(&self) -> Result<ServiceStatus, Error> {
        sys::status(self)
    }
}
