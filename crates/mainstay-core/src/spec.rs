//! Service specifications: validated manifests with every default resolved.
//!
//! Only [`crate::manifest`] creates a [`Spec`], so its invariants always hold: the name is well
//! formed, every duration is in range, and `needs` names services of the same manifest and has no
//! cycle. Later stages read a `Spec` and never change it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::log::redact::{RedactWith, Redaction};

/// The name of a service: `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`. Every such name is a legal unit
/// name, file name, DNS label and registry key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The maximum length of a name in bytes (a DNS label, RFC 1035 §2.3.4).
    pub const MAX_LEN: usize = 63;

    /// Creates a name, or returns `None` if `name` does not match the pattern.
    pub fn new(name: &str) -> Option<Self> {
        let bytes = name.as_bytes();
        let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let well_formed = bytes.len() <= Self::MAX_LEN
            && bytes.first().is_some_and(alnum)
            && bytes.last().is_some_and(alnum)
            && bytes.iter().all(|b| alnum(b) || *b == b'-');
        well_formed.then(|| Self(name.into()))
    }

    /// Returns the name as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The production constraints that apply to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// All constraints.
    #[default]
    Production,
    /// Production limits, with more verbose logs allowed.
    Staging,
    /// Relaxed limits. Structural rules still apply.
    Development,
}

/// The validated specification of one service.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub(crate) name: ServiceName,
    pub(crate) environment: Environment,
    pub(crate) description: Option<String>,
    pub(crate) display_name: Option<String>,
    pub(crate) manager_name: Option<String>,
    pub(crate) command: Argv,
    pub(crate) working_dir: Option<PathBuf>,
    pub(crate) env: Env,
    pub(crate) env_file: Option<PathBuf>,
    pub(crate) inherit_env: Vec<String>,
    pub(crate) priority: Option<Priority>,
    pub(crate) cpus: Vec<u16>,
    pub(crate) limits: Limits,
    pub(crate) sandbox: Option<Sandbox>,
    pub(crate) account: Option<Account>,
    pub(crate) needs: Vec<Need>,
    /// The names under which the service manager knows those needs whose name there differs from
    /// their key.
    pub(crate) need_names: BTreeMap<ServiceName, String>,
    pub(crate) listen: Vec<Listen>,
    pub(crate) start: Start,
    pub(crate) wait_for: Vec<WaitFor>,
    pub(crate) liveness: Option<Liveness>,
    pub(crate) stop: Stop,
    pub(crate) reload: Option<Reload>,
    pub(crate) recovery: Recovery,
    pub(crate) snapshot: Option<SnapshotPolicy>,
    pub(crate) on_alert: Option<OnAlert>,
    pub(crate) log: LogPolicy,
    pub(crate) http: Option<Http>,
}

impl Spec {
    /// Returns the key of the service's table in the manifest.
    pub fn name(&self) -> &ServiceName {
        &self.name
    }
    /// Returns the scheduling priority; `None` is the priority of the supervisor.
    pub fn priority(&self) -> Option<Priority> {
        self.priority
    }
    /// Returns the processors that the service may run on, numbered from 0; empty means all.
    pub fn cpus(&self) -> &[u16] {
        &self.cpus
    }
    /// Returns the resource limits of each process of the service.
    pub fn limits(&self) -> Limits {
        self.limits
    }
    /// Returns the exceptions to the service's sandbox; `None` if the manifest does not ask for
    /// one.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref()
    }
    /// Returns the environment whose constraints the service was checked against.
    pub fn environment(&self) -> Environment {
        self.environment
    }
    /// Returns the one-line description of the service.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }
    /// Returns the name to show in a service manager's user interface; defaults to the service's
    /// name.
    pub fn display_name(&self) -> &str {
        self.display_name.as_deref().unwrap_or(self.name.as_str())
    }
    /// Returns the service's name in the service manager: the key of its table, unless the manifest
    /// sets another.
    pub fn manager_name(&self) -> &str {
        self.manager_name.as_deref().unwrap_or(self.name.as_str())
    }
    /// Returns the name in the service manager of one of [`Spec::needs`].
    pub fn manager_name_of<'a>(&'a self, need: &'a Need) -> &'a str {
        match need {
            Need::Service(name) => self.need_names.get(name).map_or(name.as_str(), |it| it),
            Need::Os(name) => name,
        }
    }
    /// Returns the program and its arguments.
    pub fn command(&self) -> &Argv {
        &self.command
    }
    /// Returns the working directory; `None` is the manifest's directory. A relative path is
    /// relative to that directory.
    pub fn working_dir(&self) -> Option<&Path> {
        self.working_dir.as_deref()
    }
    /// Returns the variables that are added to, or replace, inherited ones. They take precedence
    /// over [`Spec::env_file`].
    pub fn env(&self) -> &Env {
        &self.env
    }
    /// Returns the path of a file of `NAME=value` lines, which is read at each start.
    pub fn env_file(&self) -> Option<&Path> {
        self.env_file.as_deref()
    }
    /// Returns the variables that are inherited even if the service runs as another account than
    /// the supervisor.
    pub fn inherit_env(&self) -> &[String] {
        &self.inherit_env
    }
    /// Returns the account that the service runs as; `None` is the account that runs mainstay.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }
    /// Returns the services that must be ready before this one starts.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }
    /// Returns the service for a host whose manager handles its needs and, if `gives_accounts`, its
    /// account.
    #[must_use]
    pub fn under_manager(mut self, gives_accounts: bool) -> Self {
        self.needs = Vec::new();
        if gives_accounts {
            self.account = None;
        }
        self
    }

    /// Returns the service with each host service it needs turned into a service of the same
    /// supervisor. For hosts without another manager.
    #[must_use]
    pub fn beside_others(mut self) -> Self {
        for need in &mut self.needs {
            if let Need::Os(name) = need
                && let Some(name) = ServiceName::new(name)
            {
                *need = Need::Service(name);
            }
        }
        self
    }

    /// Replaces the program and keeps the arguments. Returns `None` if `program` is not a valid
    /// program name.
    pub(crate) fn with_program(mut self, program: &str) -> Option<Self> {
        let words = std::iter::once(program.to_owned()).chain(self.command.args().iter().cloned());
        self.command = Argv::new(words.collect())?;
        Some(self)
    }

    /// Returns the names of those [`Spec::needs`] that are services of this manifest.
    pub fn needed_services(&self) -> impl Iterator<Item = &ServiceName> {
        self.needs.iter().filter_map(|need| match need {
            Need::Service(name) => Some(name),
            Need::Os(_) => None,
        })
    }
    /// Returns the addresses on which the manager listens for the service. Sockets are passed in
    /// this order (sd_listen_fds(3)).
    pub fn listen(&self) -> &[Listen] {
        &self.listen
    }
    /// Returns the conditions for a successful start.
    pub fn start(&self) -> &Start {
        &self.start
    }
    /// Returns the conditions outside the manifest that are awaited in order before each start.
    pub fn wait_for(&self) -> &[WaitFor] {
        &self.wait_for
    }
    /// Returns the liveness check for a ready service; `None` watches for its exit only.
    pub fn liveness(&self) -> Option<&Liveness> {
        self.liveness.as_ref()
    }
    /// Returns the stop procedure.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }
    /// Returns the way to request a configuration reload; `None` is SIGHUP, if the service handles
    /// it.
    pub fn reload(&self) -> Option<&Reload> {
        self.reload.as_ref()
    }
    /// Returns the reaction to an exit.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }
    /// Returns the snapshot policy; `None` takes no snapshots.
    pub fn snapshot(&self) -> Option<&SnapshotPolicy> {
        self.snapshot.as_ref()
    }
    /// Returns the receivers of the service's alerts, in addition to the system log.
    pub fn on_alert(&self) -> Option<&OnAlert> {
        self.on_alert.as_ref()
    }
    /// Returns the policy for the service's output.
    pub fn log(&self) -> &LogPolicy {
        &self.log
    }
    /// Returns the service's metrics and control endpoint.
    pub fn http(&self) -> Option<&Http> {
        self.http.as_ref()
    }
}

/// A program and its arguments: never empty, never a shell command line, without NUL bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Argv(Vec<String>);

impl Argv {
    /// Returns `None` if `words` is empty, starts with an empty word, or contains a NUL byte (which
    /// no system can pass on).
    pub fn new(words: Vec<String>) -> Option<Self> {
        let well_formed = words.first().is_some_and(|program| !program.is_empty())
            && words.iter().all(|word| !word.contains('\0'));
        well_formed.then_some(Self(words))
    }
    /// Returns the program. A name with a separator is a path (relative to the manifest's
    /// directory); any other name is looked up in `PATH`.
    pub fn program(&self) -> &str {
        &self.0[0]
    }
    /// Returns the arguments, without the program.
    pub fn args(&self) -> &[String] {
        &self.0[1..]
    }
}

/// Environment variables. `Debug` shows the names only: values may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env(pub(crate) BTreeMap<String, String>);

impl Env {
    /// Returns an iterator over names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The account that a service runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// `local-system`: LocalSystem on Windows, root on Unix.
    LocalSystem,
    /// `local-service`: minimal privileges, no network identity.
    LocalService,
    /// `network-service`: minimal privileges, with the network identity of the machine.
    NetworkService,
    /// `virtual`: `NT SERVICE\name` on Windows; a dedicated system user elsewhere.
    Virtual,
    /// `dynamic`: a user that exists only while the service runs (`DynamicUser` of systemd).
    Dynamic,
    /// `user:NAME`.
    User(String),
    /// `gmsa:DOMAIN\N$`: a group managed service account.
    Gmsa(String),
}

impl Account {
    /// Returns whether the account has more privileges than an ordinary user.
    pub fn is_privileged(&self) -> bool {
        match self {
            Self::LocalSystem => true,
            Self::User(name) => name == "root" || name.eq_ignore_ascii_case("administrator"),
            _ => false,
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalSystem => f.write_str("local-system"),
            Self::LocalService => f.write_str("local-service"),
            Self::NetworkService => f.write_str("network-service"),
            Self::Virtual => f.write_str("virtual"),
            Self::Dynamic => f.write_str("dynamic"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Gmsa(name) => write!(f, "gmsa:{name}"),
        }
    }
}

/// A dependency that must be ready before a service starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A service of the same manifest.
    Service(ServiceName),
    /// `os:NAME`: a service of the host's service manager.
    Os(String),
}

/// An address on which the manager listens on behalf of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listen {
    /// A TCP address.
    Tcp(HostPort),
    /// A Unix stream socket at an absolute path.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    /// Formats the address as a manifest spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The conditions for a successful start.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    pub(crate) timeout: Duration,
    pub(crate) ready: Option<Ready>,
    pub(crate) owner: Owner,
}

/// The process that may answer for a service on a local TCP address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// A process of the service, or one that cannot be identified.
    #[default]
    Service,
    /// Any process.
    Any,
}

impl Start {
    /// Returns the time within which the service must become ready. A `notify` service may extend
    /// it.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
    /// Returns the readiness condition; `None` means ready as soon as the program runs.
    pub fn ready(&self) -> Option<&Ready> {
        self.ready.as_ref()
    }
    /// Returns the process that may listen on the address of a `tcp` or `http` probe.
    pub fn owner(&self) -> Owner {
        self.owner
    }
}

/// Evidence that a service is ready.
#[derive(Clone, Debug, PartialEq)]
pub enum Ready {
    /// A probe that is repeated until it passes.
    Probe(Probe),
    /// A line of output that matches this regular expression (syntax of the `regex` crate, on
    /// bytes, already validated).
    Log(String),
    /// A `READY=1` message on `NOTIFY_SOCKET` (sd_notify(3)).
    Notify(Senders),
}

/// The processes whose messages on `NOTIFY_SOCKET` are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Senders {
    /// The service's main process and its descendants.
    Tree,
    /// Any process of the service's account, of the supervisor's account, or of root.
    All,
}

/// A check that passes or fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A `GET` request returns status 200–399 (redirects are not followed).
    Http(HttpUrl),
    /// A connection to this `host:port` is accepted.
    Tcp(HostPort),
    /// A connection to this Unix socket is accepted.
    Unix(PathBuf),
    /// This command, run in the service's directory and environment and as its account, exits with
    /// 0.
    Exec(Argv),
    /// This file exists.
    File(PathBuf),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => write!(f, "{url}"),
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Unix(path) => write!(f, "unix {}", path.display()),
            Self::Exec(argv) => write!(f, "exec {}", argv.program()),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// A `host:port` pair; an IPv6 address is written in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl HostPort {
    /// Returns the socket addresses of a host that needs no resolver: an IP address, or `localhost`
    /// (RFC 6761, section 6.3). Empty for any other name.
    pub fn literal(&self) -> Vec<SocketAddr> {
        let addresses: Vec<IpAddr> = match self.host.parse() {
            Ok(address) => vec![address],
            Err(_) if self.host == "localhost" || self.host.ends_with(".localhost") => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            Err(_) => Vec::new(),
        };
        let at = |address| SocketAddr::new(address, self.port);
        addresses.into_iter().map(at).collect()
    }

    /// Returns the host name or IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// Returns the port, 1–65535.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A URL `http://host[:port][/path][?query]`. TLS is not supported, because a readiness probe
/// connects to its own host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    pub(crate) address: HostPort,
    pub(crate) path_and_query: String,
}

impl HttpUrl {
    /// Returns the address to connect to; the port defaults to 80.
    pub fn address(&self) -> &HostPort {
        &self.address
    }
    /// Returns the path and query, starting with `/`.
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path_and_query)
    }
}

/// A condition outside the manifest that must hold before a start.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitFor {
    pub(crate) probe: Probe,
    pub(crate) strategy: Strategy,
    pub(crate) deadline: Duration,
}

impl WaitFor {
    /// Returns the probe that checks the condition.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }
    /// Returns the polling strategy.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }
    /// Returns the time after which the start fails if the condition is not met.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// The polling strategy for a condition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// Polls at a fixed interval; the first pass counts.
    Fixed {
        /// The time between two attempts.
        interval: Duration,
    },
    /// Polls at growing intervals with jitter; the first pass counts.
    Backoff(Backoff),
    /// Polls at a fixed interval and requires several passes in a row, so that a flapping
    /// dependency does not pass as a stable one.
    Probe {
        /// The time between two attempts.
        interval: Duration,
        /// The required number of passes in a row, at least 1.
        passes: u32,
    },
}

/// Exponential backoff: `base`, `base × factor`, `base × factor²` … up to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub(crate) base: Duration,
    pub(crate) factor: f64,
    pub(crate) max: Duration,
}

impl Backoff {
    /// Returns the first delay. Zero disables the delay altogether.
    pub fn base(&self) -> Duration {
        self.base
    }
    /// Returns the growth factor, at least 1.
    pub fn factor(&self) -> f64 {
        self.factor
    }
    /// Returns the maximum delay, jitter included.
    pub fn max(&self) -> Duration {
        self.max
    }
}

/// The periodic check that a ready service still works.
#[derive(Clone, Debug, PartialEq)]
pub struct Liveness {
    pub(crate) probe: Probe,
    pub(crate) every: Duration,
    pub(crate) timeout: Duration,
    pub(crate) misses: u32,
}

impl Liveness {
    /// Returns the probe; defaults to the readiness probe.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }
    /// Returns the time between a result and the next probe.
    pub fn every(&self) -> Duration {
        self.every
    }
    /// Returns the time after which an unanswered probe counts as a miss.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
    /// Returns the number of misses in a row after which the service is restarted.
    pub fn misses(&self) -> u32 {
        self.misses
    }
}

/// The CPU priority of a service under contention: a nice value on Unix, a priority class on
/// Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Nice 19; `IDLE_PRIORITY_CLASS`.
    Low,
    /// Nice 10; `BELOW_NORMAL_PRIORITY_CLASS`.
    BelowNormal,
    /// Nice 0; `NORMAL_PRIORITY_CLASS`.
    Normal,
    /// Nice -5; `ABOVE_NORMAL_PRIORITY_CLASS`.
    AboveNormal,
    /// Nice -10; `HIGH_PRIORITY_CLASS`.
    High,
}

/// The setrlimit(2) limits of each process, soft and hard. `None` inherits the limit of the
/// supervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_NOFILE`: file descriptors.
    pub open_files: Option<u64>,
    /// `RLIMIT_NPROC`: processes and threads of the service's user.
    pub processes: Option<u64>,
    /// `RLIMIT_CORE`: the size of a core dump in bytes; 0 disables core dumps.
    pub core_size: Option<u64>,
    /// `RLIMIT_MEMLOCK`: bytes of memory that may be locked into RAM.
    pub locked_memory: Option<u64>,
}

impl Limits {
    /// The value that means no limit.
    pub const UNLIMITED: u64 = u64::MAX;
}

/// The exceptions from a service's sandbox (systemd.exec(5)). The default allows next to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Absolute paths that the service may write to, in addition to its own state.
    pub writable: Vec<PathBuf>,
    /// Names of capabilities, such as `CAP_NET_BIND_SERVICE` (capabilities(7)).
    pub capabilities: Vec<String>,
    /// Set if the service generates code at run time, as just-in-time compilers do.
    pub jit: bool,
    /// Set if the service may access the machine's devices.
    pub devices: bool,
}

/// The stop procedure of a service: one or more stop requests, a grace period, then a kill of the
/// whole process tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    pub(crate) graceful: Duration,
    pub(crate) ladder: Vec<StopStep>,
    pub(crate) scope: StopScope,
}

/// One stage of the stop procedure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopStep {
    pub(crate) ask: StopAsk,
    pub(crate) after: Duration,
}

/// A request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopAsk {
    /// A signal on Unix. On Windows, every signal is sent as Ctrl+C.
    Signal(Signal),
    /// `WM_CLOSE` to the service's windows (Windows; no effect elsewhere).
    Close,
}

impl Stop {
    /// Returns the time from the request to the kill.
    pub fn graceful(&self) -> Duration {
        self.graceful
    }
    /// Returns the stages of the stop procedure. There is at least one; the first is immediate, and
    /// delays do not decrease or exceed the grace period.
    pub fn ladder(&self) -> &[StopStep] {
        &self.ladder
    }
    /// Returns the processes that stop requests are sent to. The kill that may follow always covers
    /// the whole tree.
    pub fn scope(&self) -> StopScope {
        self.scope
    }
}

impl StopStep {
    /// Returns the request of this stage.
    pub fn ask(&self) -> StopAsk {
        self.ask
    }
    /// Returns the delay of this stage after the start of the stop.
    pub fn after(&self) -> Duration {
        self.after
    }
}

/// The processes that stop requests are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopScope {
    /// Every process of the service (`KillMode=control-group` of systemd).
    Tree,
    /// Only the main process, which must then stop its own children (`KillMode=mixed`).
    Main,
}

/// A signal that a manifest may name. `"TERM"`, `"SIGTERM"` and `"term"` are equivalent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are the documentation: signal(7)")]
pub enum Signal {
    Hup,
    Int,
    Quit,
    Usr1,
    Usr2,
    Term,
    Winch,
}

impl Signal {
    /// All signals, in the order of their usual numbers.
    pub const ALL: [Self; 7] = [
        Self::Hup,
        Self::Int,
        Self::Quit,
        Self::Usr1,
        Self::Usr2,
        Self::Term,
        Self::Winch,
    ];

    /// Returns the name without `SIG`, in upper case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hup => "HUP",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Term => "TERM",
            Self::Winch => "WINCH",
        }
    }
}

/// The way to make a service reload its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Sends this signal to the main process.
    Signal(Signal),
    /// Runs this command in the service's directory and environment; exit code 0 is success.
    Exec(Argv),
}

/// The reaction to an exit (docs/exit-codes.md).
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    pub(crate) policy: Policy,
    pub(crate) backoff: Backoff,
    pub(crate) reset_after: Duration,
    pub(crate) limit: Option<RestartLimit>,
    pub(crate) codes: BTreeMap<u8, CodeAction>,
}

impl Recovery {
    /// Returns the policy for exits outside the exit code contract.
    pub fn policy(&self) -> Policy {
        self.policy
    }
    /// Returns the delays between consecutive restarts.
    pub fn backoff(&self) -> Backoff {
        self.backoff
    }
    /// Returns the run time after which the count of consecutive restarts is reset.
    pub fn reset_after(&self) -> Duration {
        self.reset_after
    }
    /// Returns the restart limit; `None` is unlimited.
    pub fn limit(&self) -> Option<RestartLimit> {
        self.limit
    }
    /// Returns the number of restarts that the backoff permits within the limit's window, if that
    /// is too few for even a program that always fails at once to reach the limit.
    pub fn most_restarts(&self) -> Option<u32> {
        let limit = self.limit?;
        let restarts = |action: &CodeAction| *action == CodeAction::Restart;
        if self.policy != Policy::Restart && !self.codes.values().any(restarts) {
            return None;
        }
        let mut elapsed = Duration::ZERO;
        for restart in 0..limit.restarts {
            elapsed += self.backoff.shortest(restart);
            if elapsed >= limit.window {
                return Some(restart + 1);
            }
            if restart > 0 && self.backoff.shortest(restart).is_zero() {
                break;
            }
        }
        None
    }
    /// Returns the exit codes whose action the manifest overrides. Keys are 0–255.
    pub fn codes(&self) -> &BTreeMap<u8, CodeAction> {
        &self.codes
    }
}

/// The receivers of alerts that require operator action: a command, a webhook, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnAlert {
    pub(crate) exec: Option<Argv>,
    pub(crate) timeout: Duration,
    pub(crate) webhook: Option<Webhook>,
    pub(crate) limit: Option<AlertLimit>,
}

impl OnAlert {
    /// Returns the alert command, which runs as the service's account.
    pub fn exec(&self) -> Option<&Argv> {
        self.exec.as_ref()
    }
    /// Returns the time limit of the alert command.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
    /// Returns the webhook that alerts are sent to.
    pub fn webhook(&self) -> Option<&Webhook> {
        self.webhook.as_ref()
    }
    /// Returns the rate limit for alerts; `None` is unlimited.
    pub fn limit(&self) -> Option<AlertLimit> {
        self.limit
    }
}

/// A rate limit for alerts: at most `alerts` within `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertLimit {
    pub(crate) alerts: u32,
    pub(crate) window: Duration,
}

impl AlertLimit {
    /// Returns the maximum number of alerts, at least 1.
    pub fn alerts(self) -> u32 {
        self.alerts
    }
    /// Returns the length of the sliding window.
    pub fn window(self) -> Duration {
        self.window
    }
}

/// An HTTP receiver of alerts, which authenticates mainstay by a shared key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub(crate) url: WebhookUrl,
    pub(crate) secret_file: PathBuf,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) timeout: Duration,
    pub(crate) deadline: Duration,
}

impl Webhook {
    /// Returns the URL of the receiver.
    pub fn url(&self) -> &WebhookUrl {
        &self.url
    }
    /// Returns the path of the key file, or `credential:NAME` for a systemd credential. A path is
    /// relative to the manifest's directory.
    pub fn secret_file(&self) -> &Path {
        &self.secret_file
    }
    /// Returns the path of the PEM certificates to trust for TLS; `None` uses the system's trust
    /// store. Relative to the manifest's directory.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }
    /// Returns the time limit of one delivery attempt.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
    /// Returns the time after which delivery of an alert is abandoned.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// A URL `https://…`, or `http://…` on the local machine. The path may be a secret: `Debug` and
/// `Display` show only the scheme and the host.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    pub(crate) text: String,
    /// The length in bytes of the scheme and the host.
    pub(crate) origin: usize,
    pub(crate) is_local: bool,
}

impl WebhookUrl {
    /// Returns the complete URL, including the secret part.
    pub fn reveal(&self) -> &str {
        &self.text
    }
    /// Returns whether the receiver is on the local machine.
    pub fn is_local(&self) -> bool {
        self.is_local
    }
    /// Returns whether the request uses TLS.
    pub fn is_secure(&self) -> bool {
        self.text.starts_with("https:")
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text[..self.origin])
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The policy for exits outside the exit code contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Alert, back off, restart.
    #[default]
    Restart,
    /// Alert and halt until an operator intervenes.
    Strict,
    /// Alert and halt, whatever the exit code. The service starts again only on request.
    Never,
}

/// A restart limit: at most `restarts` within `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartLimit {
    pub(crate) restarts: u32,
    pub(crate) window: Duration,
    pub(crate) then: BeyondLimit,
}

/// The reaction to exceeding the restart limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BeyondLimit {
    /// Alert that the service is crash-looping, and keep restarting it at the maximum delay.
    #[default]
    Alert,
    /// Alert and halt.
    Halt,
}

impl RestartLimit {
    /// Returns the maximum number of restarts, at least 1.
    pub fn restarts(self) -> u32 {
        self.restarts
    }
    /// Returns the length of the sliding window.
    pub fn window(self) -> Duration {
        self.window
    }
    /// Returns the reaction to exceeding the limit.
    pub fn then(self) -> BeyondLimit {
        self.then
    }
}

/// The action that follows one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CodeAction {
    /// Treat the exit as a clean stop.
    Stop,
    /// Alert, back off, restart.
    Restart,
    /// Treat the exit as a brief outage of a dependency: start again after 100 ms × 2ⁿ, up to five
    /// times, then alert and halt.
    Retry,
    /// Restore the previous stable snapshot and start again.
    Restore,
    /// Alert and halt.
    Halt,
}

/// The snapshot policy: the state to copy, and when to copy it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) keep: SnapshotKeep,
    pub(crate) when: SnapshotWhen,
    pub(crate) after: Duration,
    pub(crate) every: Option<Duration>,
    pub(crate) max_size: u64,
    pub(crate) still: Still,
}

impl SnapshotPolicy {
    /// The default of [`SnapshotPolicy::max_size`].
    pub const MAX_SIZE: u64 = 64_000_000_000;

    /// Returns absolute directories, none of which contains another. If empty, snapshots cover the
    /// service's own directory, `MAINSTAY_DATA_DIR`.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }
    /// Returns the retention rules for snapshots.
    pub fn keep(&self) -> SnapshotKeep {
        self.keep
    }
    /// Returns the trigger for snapshots, in addition to updates, commands and
    /// [`SnapshotPolicy::every`].
    pub fn when(&self) -> SnapshotWhen {
        self.when
    }
    /// Returns the time for which the service must have been continuously ready to count as
    /// healthy.
    pub fn after(&self) -> Duration {
        self.after
    }
    /// Returns the interval between snapshots while the service is healthy; `None` disables
    /// periodic snapshots.
    pub fn every(&self) -> Option<Duration> {
        self.every
    }
    /// Returns the maximum size of each directory in bytes, including holes of sparse files. Larger
    /// directories are not copied.
    pub fn max_size(&self) -> u64 {
        self.max_size
    }
    /// Returns the way to keep the state consistent while it is copied.
    pub fn still(&self) -> &Still {
        &self.still
    }
}

/// The retention rules for snapshots. A snapshot is kept if every rule allows it; the newest stable
/// one is always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SnapshotKeep {
    /// The number of most recent snapshots to keep, at least 1.
    pub count: Option<u32>,
    /// The maximum age of a snapshot.
    pub age: Option<Duration>,
}

/// The way to keep a service's state consistent while it is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Still {
    /// No measures. Files that change during the copy are detected.
    Nothing,
    /// All processes of the service are suspended.
    Pause,
    /// Commands that run in the service's directory and environment and as its account; exit code 0
    /// is success.
    Commands {
        /// The command to run before the copy.
        quiesce: Argv,
        /// The command to run after the copy, even if the snapshot failed.
        thaw: Option<Argv>,
    },
}

/// The trigger for snapshots, in addition to updates and commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotWhen {
    /// After the service has been healthy for a while, if its state has changed since the last
    /// snapshot.
    Healthy,
    /// No other trigger.
    Manual,
}

/// The policy for a service's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPolicy {
    pub(crate) level: Level,
    pub(crate) rotate: Rotation,
    pub(crate) keep: Retention,
    pub(crate) compress: Compress,
    pub(crate) format: LogFormat,
    pub(crate) streams: Streams,
    pub(crate) filter: bool,
    pub(crate) redact: Redaction,
    pub(crate) sinks: Vec<SinkSpec>,
}

impl Default for LogPolicy {
    /// The policy of a manifest without log settings.
    fn default() -> Self {
        Self {
            level: Level::Warn,
            rotate: Rotation {
                size: Some(10_000_000),
                ..Rotation::default()
            },
            keep: Retention {
                files: Some(8),
                ..Retention::default()
            },
            compress: Compress::Zstd,
            format: LogFormat::Raw,
            streams: Streams::Merged,
            filter: false,
            redact: Redaction::new(RedactWith::Label),
            sinks: Vec::new(),
        }
    }
}

impl LogPolicy {
    /// Returns the least severe level that is kept, for lines with a level.
    pub fn level(&self) -> Level {
        self.level
    }
    /// Returns the rotation rules. Files are always rotated at the end of a line.
    pub fn rotate(&self) -> Rotation {
        self.rotate
    }
    /// Returns the retention rules for rotated files.
    pub fn keep(&self) -> Retention {
        self.keep
    }
    /// Returns the compression of rotated files.
    pub fn compress(&self) -> Compress {
        self.compress
    }
    /// Returns the format of lines in the file.
    pub fn format(&self) -> LogFormat {
        self.format
    }
    /// Returns whether standard output and standard error are merged or split.
    pub fn streams(&self) -> Streams {
        self.streams
    }
    /// Returns whether lines with a recognized level below [`Self::level`] are dropped. Other lines
    /// are always kept.
    pub fn filter(&self) -> bool {
        self.filter
    }
    /// Returns the redaction rules for secrets in the output.
    pub fn redact(&self) -> &Redaction {
        &self.redact
    }
    /// Returns the destinations of lines in addition to the file, without duplicate targets.
    pub fn sinks(&self) -> &[SinkSpec] {
        &self.sinks
    }
}

/// The handling of a service's standard output and standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Streams {
    /// Both streams share one pipe and keep the order in which the program wrote.
    Merged,
    /// Each stream has its own pipe, and lines are labelled with their stream.
    Split,
}

/// The rotation rules: a file is rotated as soon as one applies. The default is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rotation {
    /// The size in bytes that a file must not exceed.
    pub size: Option<u64>,
    /// The calendar period: rotates before the first line of a new hour or day.
    pub every: Option<(Every, Zone)>,
    /// Set to rotate before the first line after the supervisor starts.
    pub at_start: bool,
}

/// A calendar period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// Starts at each full hour.
    Hourly,
    /// Starts at midnight.
    Daily,
}

/// The time zone of midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// UTC.
    Utc,
    /// The time zone of the host.
    Local,
}

/// The retention rules for rotated files. A file is kept if every rule allows it. The default keeps
/// all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Retention {
    /// The number of most recent files to keep.
    pub files: Option<u32>,
    /// The maximum total size on disk in bytes. The most recent file is always kept.
    pub size: Option<u64>,
    /// The maximum age of a file's last line.
    pub age: Option<Duration>,
}

/// A destination of log lines in addition to the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSpec {
    pub(crate) target: SinkTarget,
    pub(crate) facility: Facility,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) identity: Option<Tls>,
    pub(crate) spool: u64,
}

impl SinkSpec {
    /// Returns the address of the sink.
    pub fn target(&self) -> &SinkTarget {
        &self.target
    }
    /// Returns the syslog facility.
    pub fn facility(&self) -> Facility {
        self.facility
    }
    /// Returns the path of the PEM certificates to trust for TLS; `None` uses the system's trust
    /// store. Relative to the manifest's directory.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }
    /// Returns the client certificate for TLS; `None` sends none. Relative to the manifest's
    /// directory.
    pub fn identity(&self) -> Option<&Tls> {
        self.identity.as_ref()
    }
    /// Returns the size in bytes of the disk spool for a network target, at least
    /// [`SinkSpec::LEAST_SPOOL`].
    pub fn spool(&self) -> u64 {
        self.spool
    }
    /// The minimum spool size. A smaller spool could not bridge a useful part of an outage.
    pub const LEAST_SPOOL: u64 = 1_000_000;

    /// Returns whether both sinks can share one connection. They may differ in the contents of each
    /// line, such as the facility.
    pub fn connects_like(&self, other: &Self) -> bool {
        let Self {
            target,
            facility: _,
            ca,
            identity,
            spool,
        } = self;
        (target, ca, identity, spool) == (&other.target, &other.ca, &other.identity, &other.spool)
    }
}

/// The address of a sink.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SinkTarget {
    /// The journal at this socket, in its native protocol.
    Journald(PathBuf),
    /// A local syslog daemon at this socket.
    Unix(PathBuf),
    /// Syslog over UDP (RFC 5426).
    Udp(HostPort),
    /// Syslog over TCP with octet counting (RFC 6587).
    Tcp(HostPort),
    /// Syslog over TLS (RFC 5425).
    Tls(HostPort),
}

impl SinkTarget {
    /// The default socket of the systemd journal.
    pub const JOURNALD_SOCKET: &'static str = "/run/systemd/journal/socket";
    /// The default socket of the local syslog daemon.
    pub const SYSLOG_SOCKET: &'static str = "/dev/log";

    /// Returns whether the target is reached over the network, so that lines are spooled to disk
    /// while it is unavailable.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::Tcp(_) | Self::Tls(_))
    }
}

impl fmt::Display for SinkTarget {
    /// Formats the target as a manifest spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journald(path) if path == Path::new(Self::JOURNALD_SOCKET) => {
                f.write_str("journald")
            }
            Self::Unix(path) if path == Path::new(Self::SYSLOG_SOCKET) => f.write_str("syslog"),
            Self::Journald(path) => write!(f, "journald+unix://{}", path.display()),
            Self::Unix(path) => write!(f, "syslog+unix://{}", path.display()),
            Self::Udp(address) => write!(f, "syslog+udp://{address}"),
            Self::Tcp(address) => write!(f, "syslog+tcp://{address}"),
            Self::Tls(address) => write!(f, "syslog+tls://{address}"),
        }
    }
}

/// A syslog facility that a program may use (RFC 5424, table 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the documentation: syslog(3)")]
pub enum Facility {
    User,
    Mail,
    Daemon,
    Auth,
    Lpr,
    News,
    Uucp,
    Cron,
    Authpriv,
    Ftp,
    Local0,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

impl Facility {
    /// Returns the facility with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        use Facility::{
            Auth, Authpriv, Cron, Daemon, Ftp, Local0, Local1, Local2, Local3, Local4, Local5,
            Local6, Local7, Lpr, Mail, News, User, Uucp,
        };
        let all = [
            User, Mail, Daemon, Auth, Lpr, News, Uucp, Cron, Authpriv, Ftp, Local0, Local1, Local2,
            Local3, Local4, Local5, Local6, Local7,
        ];
        all.into_iter().find(|one| one.number() == number)
    }

    /// Returns the number of the facility on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Mail => 2,
            Self::Daemon => 3,
            Self::Auth => 4,
            Self::Lpr => 6,
            Self::News => 7,
            Self::Uucp => 8,
            Self::Cron => 9,
            Self::Authpriv => 10,
            Self::Ftp => 11,
            Self::Local0 => 16,
            Self::Local1 => 17,
            Self::Local2 => 18,
            Self::Local3 => 19,
            Self::Local4 => 20,
            Self::Local5 => 21,
            Self::Local6 => 22,
            Self::Local7 => 23,
        }
    }
}

/// A severity level. Variants are ordered from most to least verbose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the usual names")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// Returns the name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// The compression of rotated files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names of the formats")]
pub enum Compress {
    None,
    Zstd,
    Gzip,
}

/// The format of lines in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// The bytes that the program wrote, unchanged.
    Raw,
    /// A timestamp before each line.
    Text,
    /// One JSON object per line.
    Json,
}

/// The metrics and control endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    pub(crate) port: u16,
    pub(crate) tls: Option<Tls>,
}

impl Http {
    /// Returns the port, 1024–65534.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// Returns the certificate and key; `None` is plain HTTP on loopback.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }
}

/// The paths of a PEM certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub(crate) cert_path: PathBuf,
    pub(crate) key_path: PathBuf,
}

impl Tls {
    /// Returns the path of the certificate chain.
    pub fn cert_path(&self) -> &Path {
        &self.cert_path
    }
    /// Returns the path of the private key.
    pub fn key_path(&self) -> &Path {
        &self.key_path
    }
}
