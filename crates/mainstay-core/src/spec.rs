//! What a manifest *means*: validated, with every default resolved.
//!
//! A [`Spec`] is only made by [`crate::manifest`], so whoever holds one may rely on its invariants: the name is well formed, every
//! duration is in range, `needs` names services of the same manifest and has no cycle. Later stages read it and never change it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::log::redact::{RedactWith, Redaction};

/// The name of a service: `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`, so that it is a legal unit, file, DNS label and registry key everywhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The longest allowed name, in bytes (a DNS label, RFC 1035 §2.3.4).
    pub const MAX_LEN: usize = 63;

    /// Checks `name` against the pattern; `None` if it does not match.
    pub fn new(name: &str) -> Option<Self> {
        let bytes = name.as_bytes();
        let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let well_formed = bytes.len() <= Self::MAX_LEN
            && bytes.first().is_some_and(alnum)
            && bytes.last().is_some_and(alnum)
            && bytes.iter().all(|b| alnum(b) || *b == b'-');
        well_formed.then(|| Self(name.into()))
    }

    /// The name as text.
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

/// Which production constraints apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// All constraints.
    #[default]
    Production,
    /// Production's numbers, but more verbose logs are allowed.
    Staging,
    /// The numbers are relaxed, the shapes never.
    Development,
}

/// One service, as it is meant.
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
    /// By what the service manager knows those of them that it does not know by their keys.
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
    /// The key of its table in the manifest.
    pub fn name(&self) -> &ServiceName {
        &self.name
    }
    /// The supervisor's own where it is `None`.
    pub fn priority(&self) -> Option<Priority> {
        self.priority
    }
    /// The processors that it may run on, from 0; all where it is empty.
    pub fn cpus(&self) -> &[u16] {
        &self.cpus
    }
    /// What each of its processes may have at most.
    pub fn limits(&self) -> Limits {
        self.limits
    }
    /// What it may do in its sandbox, where the manifest asks for one.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref()
    }
    /// Whose constraints it was checked against.
    pub fn environment(&self) -> Environment {
        self.environment
    }
    /// One line of what it is.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }
    /// What a service manager's user interface shows; the name where none is given.
    pub fn display_name(&self) -> &str {
        self.display_name.as_deref().unwrap_or(self.name.as_str())
    }
    /// The name by which the service manager knows it: the key of its table, unless the manifest has another.
    pub fn manager_name(&self) -> &str {
        self.manager_name.as_deref().unwrap_or(self.name.as_str())
    }
    /// The name by which the service manager knows one of [`Spec::needs`].
    pub fn manager_name_of<'a>(&'a self, need: &'a Need) -> &'a str {
        match need {
            Need::Service(name) => self.need_names.get(name).map_or(name.as_str(), |it| it),
            Need::Os(name) => name,
        }
    }
    /// The program and its arguments.
    pub fn command(&self) -> &Argv {
        &self.command
    }
    /// Where it runs; `None` is the manifest's own directory. A relative path is relative to that directory too.
    pub fn working_dir(&self) -> Option<&Path> {
        self.working_dir.as_deref()
    }
    /// Variables added to, or replacing, the inherited ones. Wins over [`Spec::env_file`].
    pub fn env(&self) -> &Env {
        &self.env
    }
    /// A file of `NAME=value` lines, read at each start.
    pub fn env_file(&self) -> Option<&Path> {
        self.env_file.as_deref()
    }
    /// Variables that it inherits although it runs as another account than the supervisor.
    pub fn inherit_env(&self) -> &[String] {
        &self.inherit_env
    }
    /// Whom it runs as; `None` is whoever runs mainstay.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }
    /// What must be ready before it starts.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }
    /// The same service, for a host whose manager sees to what it needs, and to whom it runs as, if it `gives_accounts`.
    #[must_use]
    pub fn under_manager(mut self, gives_accounts: bool) -> Self {
        self.needs = Vec::new();
        if gives_accounts {
            self.account = None;
        }
        self
    }

    /// What it needs of its host is a service beside it, as there is no other manager.
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

    /// With another program, and the same arguments. `None` where no program can be called that.
    pub(crate) fn with_program(mut self, program: &str) -> Option<Self> {
        let words = std::iter::once(program.to_owned()).chain(self.command.args().iter().cloned());
        self.command = Argv::new(words.collect())?;
        Some(self)
    }

    /// The names of [`Spec::needs`] that lie in this manifest.
    pub fn needed_services(&self) -> impl Iterator<Item = &ServiceName> {
        self.needs.iter().filter_map(|need| match need {
            Need::Service(name) => Some(name),
            Need::Os(_) => None,
        })
    }
    /// Where its manager listens for it; it is given the sockets in this order (sd_listen_fds(3)).
    pub fn listen(&self) -> &[Listen] {
        &self.listen
    }
    /// How its start is judged.
    pub fn start(&self) -> &Start {
        &self.start
    }
    /// Conditions outside the manifest, waited for one after the other before each start.
    pub fn wait_for(&self) -> &[WaitFor] {
        &self.wait_for
    }
    /// How it is watched once ready; `None` is not at all (beyond its own exit).
    pub fn liveness(&self) -> Option<&Liveness> {
        self.liveness.as_ref()
    }
    /// How it is stopped.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }
    /// How it is told to read its configuration again; `None` is SIGHUP, if it handles that.
    pub fn reload(&self) -> Option<&Reload> {
        self.reload.as_ref()
    }
    /// What follows an exit.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }
    /// Which of its state is kept, and when.
    pub fn snapshot(&self) -> Option<&SnapshotPolicy> {
        self.snapshot.as_ref()
    }
    /// Who is told of its alerts, beside the log of the system.
    pub fn on_alert(&self) -> Option<&OnAlert> {
        self.on_alert.as_ref()
    }
    /// What happens to its output.
    pub fn log(&self) -> &LogPolicy {
        &self.log
    }
    /// Its metrics and control endpoint.
    pub fn http(&self) -> Option<&Http> {
        self.http.as_ref()
    }
}

/// A program and its arguments: never empty, never a shell string, no NUL byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Argv(Vec<String>);

impl Argv {
    /// `None` if `words` is empty, starts with an empty word, or holds a NUL byte (which no system can pass on).
    pub fn new(words: Vec<String>) -> Option<Self> {
        let well_formed = words.first().is_some_and(|program| !program.is_empty())
            && words.iter().all(|word| !word.contains('\0'));
        well_formed.then_some(Self(words))
    }
    /// The program: a path if it holds a separator (relative ones to the manifest's directory), else looked up in `PATH`.
    pub fn program(&self) -> &str {
        &self.0[0]
    }
    /// Everything after the program.
    pub fn args(&self) -> &[String] {
        &self.0[1..]
    }
}

/// Environment variables. `Debug` shows the names only: values may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env(pub(crate) BTreeMap<String, String>);

impl Env {
    /// Name and value, sorted by name.
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

/// Whom a service runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// `local-system`: LocalSystem on Windows, root on Unix.
    LocalSystem,
    /// `local-service`: few rights, no network identity.
    LocalService,
    /// `network-service`: few rights, the machine's network identity.
    NetworkService,
    /// `virtual`: `NT SERVICE\name` on Windows, a system user of the service's own elsewhere.
    Virtual,
    /// `dynamic`: a user that exists only while the service runs (systemd's `DynamicUser`).
    Dynamic,
    /// `user:NAME`.
    User(String),
    /// `gmsa:DOMAIN\N$`: a group managed service account.
    Gmsa(String),
}

impl Account {
    /// Whether its programs run with more rights than an ordinary user's.
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

/// Something that must be up first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A service of the same manifest.
    Service(ServiceName),
    /// `os:NAME`: a service of the host's own manager.
    Os(String),
}

/// An address that its manager listens on for a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listen {
    /// TCP.
    Tcp(HostPort),
    /// A Unix stream socket at this absolute path.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    /// As a manifest has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How a start is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    pub(crate) timeout: Duration,
    pub(crate) ready: Option<Ready>,
    pub(crate) owner: Owner,
}

/// Which process may answer for a service on a local TCP address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// One of the service's, or one that cannot be seen.
    #[default]
    Service,
    /// Any.
    Any,
}

impl Start {
    /// How long it may take to become ready. A `notify` service may extend it.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
    /// What says that it is ready; `None`: as soon as the program runs.
    pub fn ready(&self) -> Option<&Ready> {
        self.ready.as_ref()
    }
    /// Which process may listen where `tcp` or `http` asks.
    pub fn owner(&self) -> Owner {
        self.owner
    }
}

/// Evidence that a service is ready.
#[derive(Clone, Debug, PartialEq)]
pub enum Ready {
    /// Asked for, again and again, until it passes.
    Probe(Probe),
    /// A line of its output matches this regular expression (the `regex` crate's syntax, on bytes, checked for validity).
    Log(String),
    /// It says `READY=1` on `NOTIFY_SOCKET` (sd_notify(3)).
    Notify(Senders),
}

/// Which processes are believed on `NOTIFY_SOCKET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Senders {
    /// The service's main process and the processes that it started, directly or not.
    Tree,
    /// Any process of the service's account, the supervisor's, or root.
    All,
}

/// A question whose answer is yes or no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `GET` answers 200–399 (redirects are not followed).
    Http(HttpUrl),
    /// A connection to this `host:port` is accepted.
    Tcp(HostPort),
    /// A connection to this Unix socket is accepted.
    Unix(PathBuf),
    /// This command, in the service's directory, environment and account, exits 0.
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

/// `host:port`; an IPv6 address stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl HostPort {
    /// The socket addresses that are meant if no resolver has to be asked: an IP address, or `localhost` (RFC 6761, section 6.3). Empty for
    /// any other name.
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

    /// A name or an address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// 1–65535.
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

/// `http://host[:port][/path][?query]`. TLS is not offered: a readiness probe asks its own host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    pub(crate) address: HostPort,
    pub(crate) path_and_query: String,
}

impl HttpUrl {
    /// Where to connect; port 80 where none is given.
    pub fn address(&self) -> &HostPort {
        &self.address
    }
    /// Starts with `/`.
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
    /// What is asked.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }
    /// How often.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }
    /// How long at most; then the start has failed.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// How often a condition is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// At a fixed interval; the first pass counts.
    Fixed {
        /// The pause between two questions.
        interval: Duration,
    },
    /// At growing intervals with jitter; the first pass counts.
    Backoff(Backoff),
    /// At a fixed interval; this many passes in a row count, so that a flapping dependency is not taken for a steady one.
    Probe {
        /// The pause between two questions.
        interval: Duration,
        /// Passes in a row, at least 1.
        passes: u32,
    },
}

/// `base`, `base × factor`, `base × factor²` … up to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub(crate) base: Duration,
    pub(crate) factor: f64,
    pub(crate) max: Duration,
}

impl Backoff {
    /// The first pause. Zero means no pause, ever.
    pub fn base(&self) -> Duration {
        self.base
    }
    /// At least 1.
    pub fn factor(&self) -> f64 {
        self.factor
    }
    /// The longest pause, jitter included.
    pub fn max(&self) -> Duration {
        self.max
    }
}

/// Repeated evidence that a ready service still works.
#[derive(Clone, Debug, PartialEq)]
pub struct Liveness {
    pub(crate) probe: Probe,
    pub(crate) every: Duration,
    pub(crate) timeout: Duration,
    pub(crate) misses: u32,
}

impl Liveness {
    /// What is asked; the readiness probe where the manifest names none.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }
    /// From one answer to the next question.
    pub fn every(&self) -> Duration {
        self.every
    }
    /// An answer later than this is a miss.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
    /// This many misses in a row restart the service.
    pub fn misses(&self) -> u32 {
        self.misses
    }
}

/// How much of a processor a service gets where others want it, too: a nice value on Unix, a priority class on Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// 19; `IDLE_PRIORITY_CLASS`.
    Low,
    /// 10; `BELOW_NORMAL_PRIORITY_CLASS`.
    BelowNormal,
    /// 0; `NORMAL_PRIORITY_CLASS`.
    Normal,
    /// -5; `ABOVE_NORMAL_PRIORITY_CLASS`.
    AboveNormal,
    /// -10; `HIGH_PRIORITY_CLASS`.
    High,
}

/// Limits of setrlimit(2) for each process, soft and hard; the supervisor's own where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_NOFILE`: descriptors.
    pub open_files: Option<u64>,
    /// `RLIMIT_NPROC`: processes and threads of its user.
    pub processes: Option<u64>,
    /// `RLIMIT_CORE`: bytes of a core dump; 0 is none at all.
    pub core_size: Option<u64>,
    /// `RLIMIT_MEMLOCK`: bytes that may be kept out of swap.
    pub locked_memory: Option<u64>,
}

impl Limits {
    /// No limit.
    pub const UNLIMITED: u64 = u64::MAX;
}

/// What a service needs that a sandbox would take from it (systemd.exec(5)). The default is next to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Absolute paths that it may write to, beside its own state.
    pub writable: Vec<PathBuf>,
    /// Capabilities by name, `CAP_NET_BIND_SERVICE`: capabilities(7).
    pub capabilities: Vec<String>,
    /// It makes code while it runs, as compilers just in time do.
    pub jit: bool,
    /// It sees the devices of the machine.
    pub devices: bool,
}

/// How a service is stopped: asked, perhaps in several ways, waited for, then its whole tree is killed.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    pub(crate) graceful: Duration,
    pub(crate) ladder: Vec<StopStep>,
    pub(crate) scope: StopScope,
}

/// One way of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopStep {
    pub(crate) ask: StopAsk,
    pub(crate) after: Duration,
}

/// What can be asked of a service that is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopAsk {
    /// A signal on Unix; on Windows whichever it is, a ctrl-c.
    Signal(Signal),
    /// `WM_CLOSE` to its windows (Windows; nothing elsewhere).
    Close,
}

impl Stop {
    /// From the request to the kill.
    pub fn graceful(&self) -> Duration {
        self.graceful
    }
    /// The ways of asking: at least one, the first of them at once, each not before the one before it, all within the graceful time.
    pub fn ladder(&self) -> &[StopStep] {
        &self.ladder
    }
    /// Who is asked. The kill that may follow always takes the whole tree.
    pub fn scope(&self) -> StopScope {
        self.scope
    }
}

impl StopStep {
    /// How.
    pub fn ask(&self) -> StopAsk {
        self.ask
    }
    /// How long after the request.
    pub fn after(&self) -> Duration {
        self.after
    }
}

/// Who gets the polite requests to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopScope {
    /// Every process of the service (systemd's `KillMode=control-group`).
    Tree,
    /// Its main process only, which then ends its own children (`KillMode=mixed`).
    Main,
}

/// A signal that a manifest may name; `"TERM"`, `"SIGTERM"` and `"term"` are the same.
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
    /// All of them, in the order of their usual numbers.
    pub const ALL: [Self; 7] = [
        Self::Hup,
        Self::Int,
        Self::Quit,
        Self::Usr1,
        Self::Usr2,
        Self::Term,
        Self::Winch,
    ];

    /// The name without `SIG`, in upper case.
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

/// How a service is told to read its configuration again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// This signal to its main process.
    Signal(Signal),
    /// This command, in the service's directory and environment; exit 0 is success.
    Exec(Argv),
}

/// What follows an exit (docs/exit-codes.md).
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    pub(crate) policy: Policy,
    pub(crate) backoff: Backoff,
    pub(crate) reset_after: Duration,
    pub(crate) limit: Option<RestartLimit>,
    pub(crate) codes: BTreeMap<u8, CodeAction>,
}

impl Recovery {
    /// What an exit outside the contract leads to.
    pub fn policy(&self) -> Policy {
        self.policy
    }
    /// The pause before each restart in a row.
    pub fn backoff(&self) -> Backoff {
        self.backoff
    }
    /// A run at least this long ends the row.
    pub fn reset_after(&self) -> Duration {
        self.reset_after
    }
    /// How many restarts in which window are too many; `None` is never.
    pub fn limit(&self) -> Option<RestartLimit> {
        self.limit
    }
    /// Where not even a program that always fails at once reaches the limit: how many restarts the pauses allow within its window.
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
    /// Exit codes whose action the manifest overrides. Keys are 0–255.
    pub fn codes(&self) -> &BTreeMap<u8, CodeAction> {
        &self.codes
    }
}

/// Who is told at once when a service needs a human: a command, a webhook, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnAlert {
    pub(crate) exec: Option<Argv>,
    pub(crate) timeout: Duration,
    pub(crate) webhook: Option<Webhook>,
    pub(crate) limit: Option<AlertLimit>,
}

impl OnAlert {
    /// This command, as the service's account.
    pub fn exec(&self) -> Option<&Argv> {
        self.exec.as_ref()
    }
    /// How long that may run.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
    /// Whoever listens there.
    pub fn webhook(&self) -> Option<&Webhook> {
        self.webhook.as_ref()
    }
    /// How many in which window are too many; `None` is never.
    pub fn limit(&self) -> Option<AlertLimit> {
        self.limit
    }
}

/// More than `alerts` within `window` are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertLimit {
    pub(crate) alerts: u32,
    pub(crate) window: Duration,
}

impl AlertLimit {
    /// At least 1.
    pub fn alerts(self) -> u32 {
        self.alerts
    }
    /// A sliding window.
    pub fn window(self) -> Duration {
        self.window
    }
}

/// A receiver of alerts over HTTP, which knows us by a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub(crate) url: WebhookUrl,
    pub(crate) secret_file: PathBuf,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) timeout: Duration,
    pub(crate) deadline: Duration,
}

impl Webhook {
    /// Where it listens.
    pub fn url(&self) -> &WebhookUrl {
        &self.url
    }
    /// The file of the keys, or `credential:NAME`, one of systemd. Relative to the manifest's directory.
    pub fn secret_file(&self) -> &Path {
        &self.secret_file
    }
    /// PEM certificates of whom to trust over TLS; `None` is whom the system trusts. Relative to the manifest's directory.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }
    /// How long one try may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
    /// How long an alert is tried to be delivered.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// `https://…`, or `http://…` of this machine itself. Its path may be a secret: `Debug` and `Display` show the scheme and the host only.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    pub(crate) text: String,
    /// How much of it is the scheme and the host.
    pub(crate) origin: usize,
    pub(crate) is_local: bool,
}

impl WebhookUrl {
    /// All of it.
    pub fn reveal(&self) -> &str {
        &self.text
    }
    /// Whether this machine itself listens there.
    pub fn is_local(&self) -> bool {
        self.is_local
    }
    /// Whether the request goes over TLS.
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

/// What an exit outside the contract leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Alert, back off, restart.
    #[default]
    Restart,
    /// Alert and halt: a human must look.
    Strict,
    /// Alert and halt, whatever the code: never started again without a request.
    Never,
}

/// More than `restarts` within `window` are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartLimit {
    pub(crate) restarts: u32,
    pub(crate) window: Duration,
    pub(crate) then: BeyondLimit,
}

/// What too many restarts lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BeyondLimit {
    /// The service is crash-looping: alert, and go on restarting it at the longest pause.
    #[default]
    Alert,
    /// Alert and halt.
    Halt,
}

impl RestartLimit {
    /// At least 1.
    pub fn restarts(self) -> u32 {
        self.restarts
    }
    /// A sliding window.
    pub fn window(self) -> Duration {
        self.window
    }
    /// What follows once there were too many.
    pub fn then(self) -> BeyondLimit {
        self.then
    }
}

/// What one exit code leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CodeAction {
    /// A clean end: stopped.
    Stop,
    /// Alert, back off, restart.
    Restart,
    /// A dependency is briefly away: start again at 100 ms × 2ⁿ, five tries, then alert and halt.
    Retry,
    /// Restore the previous stable snapshot and start again.
    Restore,
    /// Alert and halt.
    Halt,
}

/// Which state is kept, and when.
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

    /// Absolute directories, none of which lies in another; where there is none, it is the service's own, `MAINSTAY_DATA_DIR`.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }
    /// Which snapshots stay.
    pub fn keep(&self) -> SnapshotKeep {
        self.keep
    }
    /// What triggers one, besides an update, a command and its time.
    pub fn when(&self) -> SnapshotWhen {
        self.when
    }
    /// How long it must have been ready without a break to count as healthy.
    pub fn after(&self) -> Duration {
        self.after
    }
    /// From one snapshot to the next, while it is healthy; `None`: not by the clock.
    pub fn every(&self) -> Option<Duration> {
        self.every
    }
    /// The most bytes that each directory may hold, holes of sparse files included. A larger one is not copied.
    pub fn max_size(&self) -> u64 {
        self.max_size
    }
    /// What keeps its state still while it is copied.
    pub fn still(&self) -> &Still {
        &self.still
    }
}

/// Which snapshots stay: those that every rule given allows, and always the newest stable one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SnapshotKeep {
    /// The newest, this many; at least 1.
    pub count: Option<u32>,
    /// Those that are not older.
    pub age: Option<Duration>,
}

/// What keeps a service's state still while it is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Still {
    /// Nothing: a file that changes meanwhile is noticed.
    Nothing,
    /// All its processes are suspended.
    Pause,
    /// Commands of its own, in its directory, environment and account; exit 0 is success.
    Commands {
        /// Before.
        quiesce: Argv,
        /// After, whatever became of the snapshot.
        thaw: Option<Argv>,
    },
}

/// What triggers a snapshot, besides an update and a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotWhen {
    /// Once the service has been healthy for a while, if its state has changed since the last one.
    Healthy,
    /// Nothing else.
    Manual,
}

/// What happens to a service's output.
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
    /// What a manifest means that says nothing of logs.
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
    /// The least severe level that is kept where lines carry one.
    pub fn level(&self) -> Level {
        self.level
    }
    /// When a file is rotated, always at the end of a line.
    pub fn rotate(&self) -> Rotation {
        self.rotate
    }
    /// Which rotated files stay beside the current one.
    pub fn keep(&self) -> Retention {
        self.keep
    }
    /// What is done to rotated files.
    pub fn compress(&self) -> Compress {
        self.compress
    }
    /// What a line looks like in the file.
    pub fn format(&self) -> LogFormat {
        self.format
    }
    /// Whether standard output and standard error are told apart.
    pub fn streams(&self) -> Streams {
        self.streams
    }
    /// Whether a line of a recognised level below [`Self::level`] is left out; other lines always stay.
    pub fn filter(&self) -> bool {
        self.filter
    }
    /// What nobody may read in the output.
    pub fn redact(&self) -> &Redaction {
        &self.redact
    }
    /// Where lines go beside the file; each target once.
    pub fn sinks(&self) -> &[SinkSpec] {
        &self.sinks
    }
}

/// Whether a service's two streams are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Streams {
    /// Both are one pipe, in the order in which the program wrote.
    Merged,
    /// Each has a pipe of its own, and a line says where it came from.
    Split,
}

/// When a file is rotated: at the first of these. The default is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rotation {
    /// Where it would grow beyond this many bytes.
    pub size: Option<u64>,
    /// With the first line of another hour or day.
    pub every: Option<(Every, Zone)>,
    /// With the first line after the supervisor was started.
    pub at_start: bool,
}

/// A period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// It begins with a full hour.
    Hourly,
    /// It begins with midnight.
    Daily,
}

/// Whose midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Greenwich's, without summer time.
    Utc,
    /// The host's.
    Local,
}

/// Which rotated files stay: those that no rule excludes. The default is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Retention {
    /// The newest, this many.
    pub files: Option<u32>,
    /// The newest, as many as have these bytes together, as they lie on the disk; at least one.
    pub size: Option<u64>,
    /// Those whose last line is not older than this.
    pub age: Option<Duration>,
}

/// One place where lines go beside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSpec {
    pub(crate) target: SinkTarget,
    pub(crate) facility: Facility,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) identity: Option<Tls>,
    pub(crate) spool: u64,
}

impl SinkSpec {
    /// Where to.
    pub fn target(&self) -> &SinkTarget {
        &self.target
    }
    /// What kind of program speaks, as syslog has it.
    pub fn facility(&self) -> Facility {
        self.facility
    }
    /// PEM certificates of whom to trust over TLS; `None` is whom the system trusts. Relative to the manifest's directory.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }
    /// Who we are over TLS; `None` is nobody in particular. Relative to the manifest's directory.
    pub fn identity(&self) -> Option<&Tls> {
        self.identity.as_ref()
    }
    /// Bytes on disk that may wait for a target on the network; at least [`SinkSpec::LEAST_SPOOL`].
    pub fn spool(&self) -> u64 {
        self.spool
    }
    /// Less would hold no useful part of an outage.
    pub const LEAST_SPOOL: u64 = 1_000_000;

    /// Whether one connection can serve both: they may differ in what each line says of itself.
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
    /// The journal at this socket, spoken to in its own protocol.
    Journald(PathBuf),
    /// A local syslog daemon, at this socket.
    Unix(PathBuf),
    /// RFC 5426.
    Udp(HostPort),
    /// RFC 6587, octets counted.
    Tcp(HostPort),
    /// RFC 5425.
    Tls(HostPort),
}

impl SinkTarget {
    /// Where `journald` listens.
    pub const JOURNALD_SOCKET: &'static str = "/run/systemd/journal/socket";
    /// Where `syslog` listens.
    pub const SYSLOG_SOCKET: &'static str = "/dev/log";

    /// Whether lines leave this machine, or may, so that they are worth a place on disk until they can.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::Tcp(_) | Self::Tls(_))
    }
}

impl fmt::Display for SinkTarget {
    /// As a manifest has it.
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

/// A facility of syslog (RFC 5424, table 1) that a program may speak for.
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
    /// The one with this number.
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

    /// Its number on the wire.
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

/// Severity, most verbose first.
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
    /// Its lower-case name.
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

/// What is done to rotated files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names of the formats")]
pub enum Compress {
    None,
    Zstd,
    Gzip,
}

/// What a line looks like in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Byte for byte what the program wrote.
    Raw,
    /// A time stamp before each line.
    Text,
    /// One JSON object a line.
    Json,
}

/// A service's metrics and control endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    pub(crate) port: u16,
    pub(crate) tls: Option<Tls>,
}

impl Http {
    /// 1024–65534.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// Certificate and key; `None` is plain HTTP on loopback.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }
}

/// Paths of a PEM certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub(crate) cert_path: PathBuf,
    pub(crate) key_path: PathBuf,
}

impl Tls {
    /// The certificate chain.
    pub fn cert_path(&self) -> &Path {
        &self.cert_path
    }
    /// The private key.
    pub fn key_path(&self) -> &Path {
        &self.key_path
    }
}
