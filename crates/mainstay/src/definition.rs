//! What a service is: for its manager, and for its own process.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Accepts, Manager, Password, Trigger};

/// Begins the definition of a service. `name` is what its manager knows it by, and may be any that this manager accepts: for the Service
/// Control Manager 1 to 256 characters without `/` and `\`, such as `GoSampleService`; on Unix letters, digits, `-`, `_`, `.` and `@`.
///
/// Whatever is wrong with a definition is said when it is used, all at once.
pub fn service(name: impl Into<String>) -> Definition {
    Definition {
        name: name.into(),
        display_name: None,
        description: None,
        version: None,
        log_dir: None,
        executable: None,
        arguments: None,
        working_dir: None,
        env: BTreeMap::new(),
        account: Account::default(),
        needs: Vec::new(),
        wants: Vec::new(),
        start: Start::default(),
        start_timeout: Duration::from_secs(60),
        graceful: Duration::from_secs(30),
        recovery: Recovery::default(),
        accepts: Accepts::default(),
        readiness: Readiness::default(),
        ready_check: None,
        stop_signal: "TERM".to_owned(),
        stop_scope: StopScope::default(),
        reload_signal: "HUP".to_owned(),
        reload_command: None,
        env_file: None,
        nice: None,
        cpus: Vec::new(),
        limits: BTreeMap::new(),
        listen: Vec::new(),
        watchdog: None,
        supervises: false,
        manager: None,
        scope: Scope::default(),
        windows: Windows::default(),
        systemd: Systemd::default(),
    }
}

/// A service, as its manager is told of it. Values of its environment and passwords appear in no `Debug`, error or log.
#[derive(Clone)]
#[must_use = "nothing happens before it is run, installed or controlled"]
#[cfg_attr(
    not(all(unix, feature = "managers")),
    expect(dead_code, reason = "for managers that are not here")
)]
pub struct Definition {
    pub(crate) name: String,
    pub(crate) display_name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) log_dir: Option<PathBuf>,
    pub(crate) executable: Option<PathBuf>,
    pub(crate) arguments: Option<Vec<OsString>>,
    pub(crate) working_dir: Option<PathBuf>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) account: Account,
    pub(crate) needs: Vec<String>,
    pub(crate) wants: Vec<String>,
    pub(crate) start: Start,
    pub(crate) start_timeout: Duration,
    pub(crate) graceful: Duration,
    pub(crate) recovery: Recovery,
    pub(crate) accepts: Accepts,
    pub(crate) readiness: Readiness,
    pub(crate) ready_check: Option<Vec<OsString>>,
    pub(crate) stop_signal: String,
    pub(crate) stop_scope: StopScope,
    pub(crate) reload_signal: String,
    pub(crate) reload_command: Option<Vec<OsString>>,
    pub(crate) env_file: Option<PathBuf>,
    pub(crate) nice: Option<i8>,
    pub(crate) cpus: Vec<u16>,
    pub(crate) limits: BTreeMap<Limit, u64>,
    pub(crate) listen: Vec<String>,
    pub(crate) watchdog: Option<Duration>,
    pub(crate) supervises: bool,
    pub(crate) manager: Option<Manager>,
    pub(crate) scope: Scope,
    pub(crate) windows: Windows,
    pub(crate) systemd: Systemd,
}

/// Whose service it is, where a manager knows both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// The machine's: started with it. To install it takes root.
    #[default]
    System,
    /// The user's who installs it: started when that user logs in, without root (systemd; Windows has no such services, and ignores it).
    User,
}

/// When a service of Unix counts as started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Readiness {
    /// When it says so: [`Context::ready`](crate::Context::ready), [`notify::ready`](crate::notify::ready), any other way of sd_notify(3).
    #[default]
    Notify,
    /// When its program runs, as it knows nothing of that.
    Exec,
}

/// Who is asked to stop; what is left after [`Definition::graceful`] is killed in any case, where the manager knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopScope {
    /// Its main process, which ends its own.
    #[default]
    Main,
    /// Each of its processes.
    Tree,
}

/// What setrlimit(2) limits, for each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// `RLIMIT_NOFILE`: descriptors.
    OpenFiles,
    /// `RLIMIT_NPROC`: processes and threads of its user.
    Processes,
    /// `RLIMIT_CORE`: bytes of a core dump.
    CoreSize,
    /// `RLIMIT_MEMLOCK`: bytes that may be kept out of swap.
    LockedMemory,
}

/// When a manager starts a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Start {
    /// With the system.
    #[default]
    Automatic,
    /// With the system, but after the others (Windows: some two minutes later; elsewhere like [`Start::Automatic`]).
    Delayed,
    /// When somebody asks for it.
    Manual,
    /// Not at all.
    Disabled,
}

/// Whom a service runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Account {
    /// One that exists for this service alone and may do next to nothing: `NT SERVICE\name` on Windows.
    #[default]
    Virtual,
    /// `LocalService` on Windows: few rights, anonymous on the network.
    LocalService,
    /// `NetworkService` on Windows: few rights, the machine on the network.
    NetworkService,
    /// Root, `LocalSystem`: may do everything.
    LocalSystem,
    /// A group managed service account, `DOMAIN\name$`, whose password the domain keeps (Windows).
    Managed(String),
    /// A user: `name`, `DOMAIN\name` or `name@domain`. Windows wants the password.
    User(String, Option<Password>),
}

/// What a manager does when the service ends by itself with a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Start it again, the first time after the first of these, and so on; the last one is for all further times. Empty: leave it.
    pub restart_after: Vec<Duration>,
    /// A run of this length starts the row anew.
    pub reset_after: Duration,
    /// Not where it ends in order with a code other than 0: a program that supervises others has its own opinion of those.
    pub crashes_only: bool,
    /// More starts than this within that time, and it stays down. Default: there is no end.
    pub limit: Option<(u32, Duration)>,
    /// Codes after which it stays down, as failed (`RestartPreventExitStatus` of systemd).
    pub halts: BTreeSet<u8>,
    /// Codes beside 0 that are a clean end.
    pub clean: BTreeSet<u8>,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            restart_after: [1, 5, 30].map(Duration::from_secs).to_vec(),
            reset_after: Duration::from_secs(600),
            crashes_only: false,
            limit: None,
            halts: BTreeSet::new(),
            clean: BTreeSet::new(),
        }
    }
}

impl Account {
    /// What Windows calls it, for this service: `NT SERVICE\orders`.
    #[must_use]
    pub fn windows_name(&self, service: &str) -> String {
        match self {
            Self::Virtual => format!("NT SERVICE\\{service}"),
            Self::LocalService => "NT AUTHORITY\\LocalService".to_owned(),
            Self::NetworkService => "NT AUTHORITY\\NetworkService".to_owned(),
            Self::LocalSystem => "LocalSystem".to_owned(),
            Self::User(name, _) if !name.contains(['\\', '@']) => format!(".\\{name}"),
            Self::Managed(name) | Self::User(name, _) => name.clone(),
        }
    }
}

/// What only the Windows Service Control Manager knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    pub(crate) preshutdown: Option<Duration>,
    pub(crate) load_order_group: Option<String>,
    pub(crate) sid: ServiceSid,
    pub(crate) privileges: Option<Vec<String>>,
    pub(crate) error_control: ErrorControl,
    pub(crate) shows_windows: bool,
    pub(crate) command_on_failure: Option<String>,
    pub(crate) reboot_message: Option<String>,
    pub(crate) triggers: Vec<Trigger>,
    pub(crate) security: Option<String>,
}

/// What only systemd knows. A unit is sandboxed as far as a program can be that nothing is known of: it writes to its own state directory
/// (`$STATE_DIRECTORY`) and temporary files alone, has no capability, sees no device and no home, and may not become more than it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Systemd {
    pub(crate) sandbox: bool,
    pub(crate) capabilities: Vec<String>,
    pub(crate) writable: Vec<PathBuf>,
    pub(crate) state_directory: Option<String>,
    pub(crate) credentials: Vec<(String, PathBuf)>,
    pub(crate) makes_code: bool,
    pub(crate) devices: bool,
    pub(crate) passed_variables: Vec<String>,
    pub(crate) notified_by_tree: bool,
    pub(crate) confines_root: bool,
    pub(crate) before_start: Option<Vec<OsString>>,
}

impl Default for Systemd {
    fn default() -> Self {
        Self {
            sandbox: true,
            capabilities: Vec::new(),
            writable: Vec::new(),
            state_directory: None,
            credentials: Vec::new(),
            makes_code: false,
            devices: false,
            passed_variables: Vec::new(),
            notified_by_tree: false,
            confines_root: false,
            before_start: None,
        }
    }
}

impl Systemd {
    /// Without a sandbox. [`Account::LocalSystem`] has none unless it is [asked for](Systemd::confine_root).
    #[must_use]
    pub fn without_sandbox(self) -> Self {
        Self {
            sandbox: false,
            ..self
        }
    }

    /// Leaves it this capability, such as `CAP_NET_BIND_SERVICE` for ports below 1024: capabilities(7).
    #[must_use]
    pub fn capability(mut self, name: impl Into<String>) -> Self {
        self.capabilities.push(name.into());
        self
    }

    /// Its state directory is `/var/lib/NAME`, its own alone. Default: the service's name.
    #[must_use]
    pub fn state_directory(self, name: impl Into<String>) -> Self {
        let state_directory = Some(name.into());
        Self {
            state_directory,
            ..self
        }
    }

    /// The file of this path, which root alone may read, is there for it to read as `$CREDENTIALS_DIRECTORY/NAME` (systemd 247).
    #[must_use]
    pub fn credential(mut self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.credentials.push((name.into(), path.into()));
        self
    }

    /// It makes code while it runs, as Java, Node.js and other compilers just in time do.
    #[must_use]
    pub fn makes_code(self) -> Self {
        Self {
            makes_code: true,
            ..self
        }
    }

    /// It sees the devices of the machine.
    #[must_use]
    pub fn devices(self) -> Self {
        Self {
            devices: true,
            ..self
        }
    }

    /// Passes a variable of systemd's own environment to the service, which otherwise gets a clean one: `PassEnvironment=`.
    #[must_use]
    pub fn pass_variable(mut self, name: impl Into<String>) -> Self {
        self.passed_variables.push(name.into());
        self
    }

    /// A sandbox even for [`Account::LocalSystem`]: for a supervisor that starts its programs as another user. It keeps root's capabilities.
    #[must_use]
    pub fn confine_root(self) -> Self {
        Self {
            confines_root: true,
            ..self
        }
    }

    /// A command that must succeed before the program is started: `ExecStartPre=+`. It runs with systemd's own rights and outside the sandbox,
    /// whatever the account of the service.
    #[must_use]
    pub fn before_start<A: Into<OsString>>(self, argv: impl IntoIterator<Item = A>) -> Self {
        let before_start = Some(argv.into_iter().map(Into::into).collect());
        Self {
            before_start,
            ..self
        }
    }

    /// Every process of the service may send notifications, not only the main one: `NotifyAccess=all`.
    #[must_use]
    pub fn notified_by_tree(self) -> Self {
        Self {
            notified_by_tree: true,
            ..self
        }
    }

    /// It may write there, too: an absolute path that exists.
    #[must_use]
    pub fn writable(mut self, path: impl Into<PathBuf>) -> Self {
        self.writable.push(path.into());
        self
    }
}

/// `SERVICE_SID_INFO`: whether access control lists can name the service itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServiceSid {
    /// No.
    None,
    /// `NT SERVICE\name` is in its token.
    #[default]
    Unrestricted,
    /// Moreover, it can write only to what grants that to the SID.
    Restricted,
}

/// What the system does at boot if the service does not start (`dwErrorControl`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorControl {
    /// It goes on.
    Ignore,
    /// It logs that and goes on.
    #[default]
    Normal,
    /// It boots once more, with the last known good configuration.
    Severe,
    /// The same, and that boot fails too.
    Critical,
}

impl Definition {
    /// What people see in lists. Default: the name.
    pub fn display_name(self, text: impl Into<String>) -> Self {
        let display_name = Some(text.into());
        Self {
            display_name,
            ..self
        }
    }

    /// What it is there for, in a sentence.
    pub fn description(self, text: impl Into<String>) -> Self {
        let description = Some(text.into());
        Self {
            description,
            ..self
        }
    }

    /// The version of its program, for `--version`: `env!("CARGO_PKG_VERSION")`.
    pub fn version(self, version: impl Into<String>) -> Self {
        let version = Some(version.into());
        Self { version, ..self }
    }

    /// Has [`Definition::run`] write standard output and standard error to `stdout.log` and `stderr.log` in this directory, which is
    /// created, rotated at line ends: eight files of 10 MiB each stay. Panics are in `stderr.log`.
    ///
    /// Default: `%ProgramData%\NAME\logs` under the Windows Service Control Manager, which keeps no output; elsewhere the output is the
    /// manager's. What the program writes immediately before [`std::process::exit`] or an abort may be lost.
    pub fn log_dir(self, path: impl Into<PathBuf>) -> Self {
        let log_dir = Some(path.into());
        Self { log_dir, ..self }
    }

    /// The program. Default: the running one.
    pub fn executable(self, path: impl Into<PathBuf>) -> Self {
        let executable = Some(path.into());
        Self { executable, ..self }
    }

    /// What it is started with, without the program. Default: `run`, the verb of [`Definition::main`].
    pub fn arguments<A: Into<OsString>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = Some(arguments.into_iter().map(Into::into).collect());
        Self { arguments, ..self }
    }

    /// Where it runs. Default: the program's directory on Windows, its own state directory under systemd. It is entered before [`Service::run`](crate::Service::run).
    pub fn working_dir(self, path: impl Into<PathBuf>) -> Self {
        let working_dir = Some(path.into());
        Self {
            working_dir,
            ..self
        }
    }

    /// Adds a variable to its environment. No place for secrets: units of systemd can be read by everybody, and the registry by many.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Whom it runs as. Default: [`Account::Virtual`], which may do next to nothing.
    pub fn account(self, account: Account) -> Self {
        Self { account, ..self }
    }

    /// Adds a service of the system that must run first. Under systemd, OpenRC, dinit and Upstart, a stop of that service stops this one too.
    pub fn needs(mut self, service: impl Into<String>) -> Self {
        self.needs.push(service.into());
        self
    }

    /// Adds a service of the system that the manager starts first, where it has an order of starts. If that service fails, this one is started
    /// all the same, and when it stops, this one keeps running: a program that cannot do without it checks for it. The Windows Service
    /// Control Manager treats it as [`Definition::needs`].
    pub fn wants(mut self, service: impl Into<String>) -> Self {
        self.wants.push(service.into());
        self
    }

    /// When it is started. Default: with the system.
    pub fn start(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// How long it may take to get ready. Default: 60 s.
    pub fn start_timeout(self, start_timeout: Duration) -> Self {
        Self {
            start_timeout,
            ..self
        }
    }

    /// How long it may take to stop, before it is ended. Default: 30 s.
    pub fn graceful(self, graceful: Duration) -> Self {
        Self { graceful, ..self }
    }

    /// What follows a failure.
    pub fn recovery(self, recovery: Recovery) -> Self {
        Self { recovery, ..self }
    }

    /// Which controls it can do something with. Default: none but stop and custom codes.
    pub fn accepts(self, accepts: Accepts) -> Self {
        Self { accepts, ..self }
    }

    /// Sets what only Windows knows.
    pub fn windows(self, set: impl FnOnce(Windows) -> Windows) -> Self {
        let windows = set(self.windows);
        Self { windows, ..self }
    }

    /// When it counts as started. Default: when it says so.
    pub fn readiness(self, readiness: Readiness) -> Self {
        Self { readiness, ..self }
    }

    /// A command that returns when the service is ready, and fails where it will not be: for managers that cannot be told (OpenRC, SysV, runit, …).
    pub fn ready_check<A: Into<OsString>>(self, argv: impl IntoIterator<Item = A>) -> Self {
        let ready_check = Some(argv.into_iter().map(Into::into).collect());
        Self {
            ready_check,
            ..self
        }
    }

    /// By which signal it is asked to stop, without `SIG`. Default: TERM.
    pub fn stop_signal(self, name: impl Into<String>) -> Self {
        let stop_signal = name.into();
        Self {
            stop_signal,
            ..self
        }
    }

    /// Who is asked to stop. Default: its main process.
    pub fn stop_scope(self, stop_scope: StopScope) -> Self {
        Self { stop_scope, ..self }
    }

    /// By which signal its main process is told to read its configuration again, without `SIG`; it accepts that. Default: HUP.
    pub fn reload_signal(self, name: impl Into<String>) -> Self {
        let (reload_signal, accepts) = (name.into(), self.accepts | Accepts::RELOAD);
        Self {
            reload_signal,
            accepts,
            ..self
        }
    }

    /// A command that has it read its configuration again, instead of a signal.
    pub fn reload_command<A: Into<OsString>>(self, argv: impl IntoIterator<Item = A>) -> Self {
        let reload_command = Some(argv.into_iter().map(Into::into).collect());
        Self {
            reload_command,
            ..self
        }
    }

    /// A file of `NAME=value` lines, read at each start, whose values [`Definition::env`] wins over.
    pub fn env_file(self, path: impl Into<PathBuf>) -> Self {
        let env_file = Some(path.into());
        Self { env_file, ..self }
    }

    /// Its share of the processors where others want them, too: -20 (much) to 19 (little), nice(2).
    pub fn nice(self, nice: i8) -> Self {
        let nice = Some(nice);
        Self { nice, ..self }
    }

    /// The processors that it may run on, from 0.
    pub fn cpus(self, cpus: impl IntoIterator<Item = u16>) -> Self {
        let cpus = cpus.into_iter().collect();
        Self { cpus, ..self }
    }

    /// Sets a limit of the system, the soft one and the hard one; `u64::MAX` is no limit.
    pub fn limit(mut self, limit: Limit, value: u64) -> Self {
        self.limits.insert(limit, value);
        self
    }

    /// Adds an address that its manager listens on for it, `127.0.0.1:8080` or an absolute path; it is given the sockets as sd_listen_fds(3)
    /// says, in this order.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen.push(address.into());
        self
    }

    /// It says [`notify::alive`](crate::notify::alive) at least this often, or it hangs, is ended and started again (systemd).
    pub fn watchdog(self, interval: Duration) -> Self {
        let watchdog = Some(interval);
        Self { watchdog, ..self }
    }

    /// It is a supervisor itself, of programs of which nothing is known. It ends what it has started when it stops, and where it crashes
    /// instead, what it has started lives on for its successor. Its sandbox leaves them homes to read, code that is made at run time, and
    /// limits to set; systemd gives it a control group to divide.
    pub fn supervises(self) -> Self {
        Self {
            supervises: true,
            ..self
        }
    }

    /// Which manager it is a service of. Default: the one that runs this system, [`Manager::detect`].
    pub fn manager(self, manager: Manager) -> Self {
        let manager = Some(manager);
        Self { manager, ..self }
    }

    /// Whose service it is. Default: the machine's.
    pub fn scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// Sets what only systemd knows.
    pub fn systemd(self, set: impl FnOnce(Systemd) -> Systemd) -> Self {
        let systemd = set(self.systemd);
        Self { systemd, ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Windows {
    /// Is told of a shutdown before all others, and given this long.
    pub fn preshutdown(self, timeout: Duration) -> Self {
        let preshutdown = Some(timeout);
        Self {
            preshutdown,
            ..self
        }
    }

    /// Starts with this load order group.
    pub fn load_order_group(self, group: impl Into<String>) -> Self {
        let load_order_group = Some(group.into());
        Self {
            load_order_group,
            ..self
        }
    }

    /// Whether access control lists can name it. Default: yes.
    pub fn sid(self, sid: ServiceSid) -> Self {
        Self { sid, ..self }
    }

    /// Keeps only these privileges, such as `SeChangeNotifyPrivilege`; all others are taken from its token.
    pub fn privileges<P: Into<String>>(self, privileges: impl IntoIterator<Item = P>) -> Self {
        let privileges = Some(privileges.into_iter().map(Into::into).collect());
        Self { privileges, ..self }
    }

    /// Adds an event of the system that starts or stops it.
    pub fn trigger(mut self, trigger: Trigger) -> Self {
        self.triggers.push(trigger);
        self
    }

    /// Who may start, stop, query and change it: an access control list in the Security Descriptor Definition Language, `D:…`. Default: the
    /// system's, or the one that it has.
    pub fn security(self, sddl: impl Into<String>) -> Self {
        let security = Some(sddl.into());
        Self { security, ..self }
    }

    /// What the system does at boot if it does not start. Default: logs that.
    pub fn error_control(self, error_control: ErrorControl) -> Self {
        Self {
            error_control,
            ..self
        }
    }

    /// May show windows (`SERVICE_INTERACTIVE_PROCESS`), which Windows has ignored since Vista unless configured otherwise; only as
    /// [`Account::LocalSystem`].
    pub fn shows_windows(self) -> Self {
        Self {
            shows_windows: true,
            ..self
        }
    }

    /// A command line that is run on failures, after the last restart of [`Recovery::restart_after`].
    pub fn command_on_failure(self, command: impl Into<String>) -> Self {
        let command_on_failure = Some(command.into());
        Self {
            command_on_failure,
            ..self
        }
    }

    /// Reboots the machine after the last restart, telling users this.
    pub fn reboot_on_failure(self, message: impl Into<String>) -> Self {
        let reboot_message = Some(message.into());
        Self {
            reboot_message,
            ..self
        }
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition")
            .field("name", &self.name)
            .field("executable", &self.executable)
            .field("arguments", &self.arguments)
            .field("env", &self.env.keys())
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a name, for the managers of Unix: names of files, and words of scripts.
#[cfg(any(unix, test))]
pub(crate) fn wrong_name(name: &str) -> Option<String> {
    const LONGEST: usize = 200;
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    let is_good = (1..=LONGEST).contains(&name.len())
        && name.bytes().all(is_inner)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !name.ends_with(['-', '.', '@']);
    (!is_good).then(|| {
        format!(
            "a name has 1 to {LONGEST} of A-Z, a-z, 0-9, -, _, . and @; it begins with a letter or digit, and does not end with -, . or @"
        )
    })
}

/// What is wrong with a name, for the Service Control Manager ("CreateServiceW").
pub(crate) fn wrong_windows_name(name: &str) -> Option<String> {
    const LONGEST: usize = 256;
    let is_good = (1..=LONGEST).contains(&name.encode_utf16().count())
        && !name.contains(|char: char| char.is_control() || matches!(char, '/' | '\\'))
        && name.trim() == name;
    (!is_good).then(|| format!("a name has 1 to {LONGEST} characters, neither / nor \\ among them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_decides_what_is_a_name() {
        let check = |name: &str, windows: bool, unix: bool| {
            let is_good = (
                wrong_windows_name(name).is_none(),
                wrong_name(name).is_none(),
            );
            assert_eq!(is_good, (windows, unix), "{name:?}");
        };
        let longest = "x".repeat(256);
        check("GoSampleService", true, true);
        check("com.example.orders_2", true, true);
        check("openvpn@office", true, true);
        check("Orders Service (EU)", true, false);
        check(&longest, true, false);
        check(&format!("{longest}x"), false, false);
        check("", false, false);
        check("a/b", false, false);
        check("a\\b", false, false);
        check("a\0b", false, false);
        check("../x", false, false);
        check("-x", true, false);
        check("$(reboot)", true, false);
    }
}
