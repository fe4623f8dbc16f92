//! The settings of a definition.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    Account, Definition, Limit, Readiness, Recovery, Scope, Start, StopScope, Systemd, Windows,
};
use crate::{Accepts, Manager};

impl Definition {
    /// Sets the name that is shown in service lists. Default: the name.
    ///
    /// ```
    /// let orders = mainstay::service("orders").display_name("Orders");
    /// ```
    pub fn display_name(self, text: impl Into<String>) -> Self {
        let display_name = Some(text.into());
        Self {
            display_name,
            ..self
        }
    }

    /// Sets the description: the purpose of the service, in a sentence.
    ///
    /// ```
    /// let orders = mainstay::service("orders").description("Accepts orders");
    /// ```
    pub fn description(self, text: impl Into<String>) -> Self {
        let description = Some(text.into());
        Self {
            description,
            ..self
        }
    }

    /// Sets the program's version, for `--version`: `env!("CARGO_PKG_VERSION")`.
    ///
    /// ```
    /// let orders = mainstay::service("orders").version(env!("CARGO_PKG_VERSION"));
    /// ```
    pub fn version(self, version: impl Into<String>) -> Self {
        let version = Some(version.into());
        Self { version, ..self }
    }

    /// Makes [`Definition::run`] write the output to `stdout.log` and, with panics, `stderr.log` in
    /// this directory, which is created if necessary; a relative path is resolved at the start. The
    /// files are rotated at line ends, and eight files of 10 MiB each are kept.
    ///
    /// Default: `%ProgramData%\NAME\logs` under the Windows Service Control Manager, which keeps no
    /// output. Elsewhere, the output goes to the manager. Output written immediately before
    /// [`std::process::exit`] or an abort may be lost.
    ///
    /// ```
    /// let orders = mainstay::service("orders").log_dir("/var/log/orders");
    /// ```
    pub fn log_dir(self, path: impl Into<PathBuf>) -> Self {
        let log_dir = Some(path.into());
        Self { log_dir, ..self }
    }

    /// Sets the program. Default: the running one.
    ///
    /// ```
    /// let redis = mainstay::service("redis").executable("/usr/bin/redis-server");
    /// ```
    pub fn executable(self, path: impl Into<PathBuf>) -> Self {
        let executable = Some(path.into());
        Self { executable, ..self }
    }

    /// Sets the program's arguments, without the program itself. Default: `run`, the verb of
    /// [`Definition::main`].
    ///
    /// ```
    /// let orders = mainstay::service("orders").arguments(["run", "--port", "8080"]);
    /// ```
    pub fn arguments<A: Into<OsString>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = Some(arguments.into_iter().map(Into::into).collect());
        Self { arguments, ..self }
    }

    /// Sets the working directory, which is entered before [`Service::run`](crate::Service::run).
    /// Default: the program's directory on Windows, the service's state directory under systemd.
    ///
    /// ```
    /// let orders = mainstay::service("orders").working_dir("/srv/orders");
    /// ```
    pub fn working_dir(self, path: impl Into<PathBuf>) -> Self {
        let working_dir = Some(path.into());
        Self {
            working_dir,
            ..self
        }
    }

    /// Adds an environment variable. Do not use it for secrets: it is stored in the unit or, on
    /// Windows, in the registry, where every user of the machine can read it.
    ///
    /// ```
    /// let orders = mainstay::service("orders").env("ORDERS_PORT", "8080");
    /// ```
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the account that the service runs as. Default: [`Account::Virtual`], which has minimal
    /// rights.
    ///
    /// ```
    /// let orders = mainstay::service("orders").account(mainstay::Account::LocalService);
    /// ```
    pub fn account(self, account: Account) -> Self {
        Self { account, ..self }
    }

    /// Adds a hard dependency: a system service that must be running first. Under systemd, OpenRC,
    /// dinit and Upstart, stopping that service stops this one, too.
    ///
    /// ```
    /// let orders = mainstay::service("orders").needs("postgresql");
    /// ```
    pub fn needs(mut self, service: impl Into<String>) -> Self {
        self.needs.push(service.into());
        self
    }

    /// Adds a soft dependency: a system service that the manager starts first, if it orders starts.
    /// If that service fails, this one is started anyway. If that service stops, this one keeps
    /// running. A program that cannot work without it must check for it. The Windows Service
    /// Control Manager treats it as [`Definition::needs`].
    ///
    /// ```
    /// let orders = mainstay::service("orders").wants("mailer");
    /// ```
    pub fn wants(mut self, service: impl Into<String>) -> Self {
        self.wants.push(service.into());
        self
    }

    /// Sets the start mode. Default: at boot.
    ///
    /// ```
    /// let orders = mainstay::service("orders").start(mainstay::Start::Manual);
    /// ```
    pub fn start(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// Sets the maximum time until the service is ready. Default: 60 s.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let orders = mainstay::service("orders").start_timeout(Duration::from_secs(120));
    /// ```
    pub fn start_timeout(self, start_timeout: Duration) -> Self {
        Self {
            start_timeout,
            ..self
        }
    }

    /// Sets the time the service has to stop before it is killed. Default: 30 s.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let orders = mainstay::service("orders").graceful(Duration::from_secs(10));
    /// ```
    pub fn graceful(self, graceful: Duration) -> Self {
        Self { graceful, ..self }
    }

    /// Sets the recovery policy.
    ///
    /// ```
    /// use mainstay::Recovery;
    ///
    /// let once = Recovery { restart_after: Vec::new(), ..Recovery::default() };
    /// let orders = mainstay::service("orders").recovery(once);
    /// ```
    pub fn recovery(self, recovery: Recovery) -> Self {
        Self { recovery, ..self }
    }

    /// Sets the controls that the service handles. Default: only stop and custom codes.
    ///
    /// ```
    /// use mainstay::Accepts;
    ///
    /// let orders = mainstay::service("orders").accepts(Accepts::PAUSE | Accepts::RELOAD);
    /// ```
    pub fn accepts(self, accepts: Accepts) -> Self {
        Self { accepts, ..self }
    }

    /// Changes the settings for Windows.
    ///
    /// ```
    /// use mainstay::ServiceSid;
    ///
    /// let orders = mainstay::service("orders").windows(|windows| windows.sid(ServiceSid::None));
    /// ```
    pub fn windows(self, set: impl FnOnce(Windows) -> Windows) -> Self {
        let windows = set(self.windows);
        Self { windows, ..self }
    }

    /// Sets the condition under which the service counts as started. Default: when it reports that
    /// it is ready.
    ///
    /// ```
    /// let orders = mainstay::service("orders").readiness(mainstay::Readiness::Exec);
    /// ```
    pub fn readiness(self, readiness: Readiness) -> Self {
        Self { readiness, ..self }
    }

    /// Sets a command that returns once the service is ready, and fails if it will not become
    /// ready. For managers without readiness notification (OpenRC, SysV, runit, …).
    ///
    /// ```
    /// let orders = mainstay::service("orders").ready_check(["/opt/orders/orders", "ping"]);
    /// ```
    pub fn ready_check<A: Into<OsString>>(self, argv: impl IntoIterator<Item = A>) -> Self {
        let ready_check = Some(argv.into_iter().map(Into::into).collect());
        Self {
            ready_check,
            ..self
        }
    }

    /// Sets the stop signal, without `SIG`. Default: TERM.
    ///
    /// ```
    /// let orders = mainstay::service("orders").stop_signal("INT");
    /// ```
    pub fn stop_signal(self, name: impl Into<String>) -> Self {
        let stop_signal = name.into();
        Self {
            stop_signal,
            ..self
        }
    }

    /// Sets the processes that are asked to stop. Default: the main process.
    ///
    /// ```
    /// let orders = mainstay::service("orders").stop_scope(mainstay::StopScope::Tree);
    /// ```
    pub fn stop_scope(self, stop_scope: StopScope) -> Self {
        Self { stop_scope, ..self }
    }

    /// Sets the signal that makes the main process reload its configuration, without `SIG`. Also
    /// adds [`Accepts::RELOAD`]. Default: HUP.
    ///
    /// ```
    /// let orders = mainstay::service("orders").reload_signal("USR1");
    /// ```
    pub fn reload_signal(self, name: impl Into<String>) -> Self {
        let (reload_signal, accepts) = (name.into(), self.accepts | Accepts::RELOAD);
        Self {
            reload_signal,
            accepts,
            ..self
        }
    }

    /// Sets a command that reloads the service's configuration, instead of a signal.
    ///
    /// ```
    /// let orders = mainstay::service("orders").reload_command(["/opt/orders/orders", "reload"]);
    /// ```
    pub fn reload_command<A: Into<OsString>>(self, argv: impl IntoIterator<Item = A>) -> Self {
        let reload_command = Some(argv.into_iter().map(Into::into).collect());
        Self {
            reload_command,
            ..self
        }
    }

    /// Sets a file of `NAME=value` lines, read at each start. [`Definition::env`] overrides its
    /// values.
    ///
    /// ```
    /// let orders = mainstay::service("orders").env_file("/etc/orders.env");
    /// ```
    pub fn env_file(self, path: impl Into<PathBuf>) -> Self {
        let env_file = Some(path.into());
        Self { env_file, ..self }
    }

    /// Sets the scheduling priority, from -20 (highest) to 19 (lowest): nice(2).
    ///
    /// ```
    /// let orders = mainstay::service("orders").nice(5);
    /// ```
    pub fn nice(self, nice: i8) -> Self {
        let nice = Some(nice);
        Self { nice, ..self }
    }

    /// Sets the processors that the service may run on, counted from 0.
    ///
    /// ```
    /// let orders = mainstay::service("orders").cpus([0, 1]);
    /// ```
    pub fn cpus(self, cpus: impl IntoIterator<Item = u16>) -> Self {
        let cpus = cpus.into_iter().collect();
        Self { cpus, ..self }
    }

    /// Sets a resource limit, both soft and hard. `u64::MAX` means unlimited.
    ///
    /// ```
    /// let orders = mainstay::service("orders").limit(mainstay::Limit::OpenFiles, 65_536);
    /// ```
    pub fn limit(mut self, limit: Limit, value: u64) -> Self {
        self.limits.insert(limit, value);
        self
    }

    /// Adds an address that the manager listens on for the service: `127.0.0.1:8080` or an absolute
    /// path. The sockets are passed in this order, as sd_listen_fds(3) describes.
    ///
    /// ```
    /// let orders = mainstay::service("orders")
    ///     .listen("127.0.0.1:8080").listen("/run/orders.sock");
    /// ```
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen.push(address.into());
        self
    }

    /// Enables the watchdog: if the service does not call [`notify::alive`](crate::notify::alive)
    /// at least this often, it counts as hung and is killed and restarted (systemd).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let orders = mainstay::service("orders").watchdog(Duration::from_secs(30));
    /// ```
    pub fn watchdog(self, interval: Duration) -> Self {
        let watchdog = Some(interval);
        Self { watchdog, ..self }
    }

    /// Marks the service as a supervisor of unknown programs. When it stops, it stops everything it
    /// has started. If it crashes, its programs keep running for its successor. Its sandbox allows
    /// programs to read home directories, generate code at run time and set resource limits.
    /// systemd delegates a control group to it.
    ///
    /// ```
    /// let supervisor = mainstay::service("supervisor").supervises();
    /// ```
    pub fn supervises(self) -> Self {
        Self {
            supervises: true,
            ..self
        }
    }

    /// Sets the manager that the service is installed into. Default: the one that runs this system,
    /// [`Manager::detect`].
    ///
    /// ```
    /// let orders = mainstay::service("orders").manager(mainstay::Manager::Systemd);
    /// ```
    pub fn manager(self, manager: Manager) -> Self {
        let manager = Some(manager);
        Self { manager, ..self }
    }

    /// Sets the owner of the service. Default: the system.
    ///
    /// ```
    /// let orders = mainstay::service("orders").scope(mainstay::Scope::User);
    /// ```
    pub fn scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// Changes the settings for systemd.
    ///
    /// ```
    /// let orders = mainstay::service("orders").systemd(|systemd| systemd.devices());
    /// ```
    pub fn systemd(self, set: impl FnOnce(Systemd) -> Systemd) -> Self {
        let systemd = set(self.systemd);
        Self { systemd, ..self }
    }

    /// Returns the part of the contract of exit codes that no manager but Mainstay supports, if the
    /// service is this program and is restarted.
    pub(crate) fn lost_retries(&self) -> Option<String> {
        let is_lost = self.executable.is_none() && self.recovery.restarts_after_exits();
        is_lost.then(|| "separate count of retries after exit code 202".to_owned())
    }

    /// Returns the service's name.
    ///
    /// ```
    /// assert_eq!(mainstay::service("orders").name(), "orders");
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}
