//! Service specifications: validated manifests with every default resolved.
//!
//! Only [`crate::manifest`] creates a [`Spec`], so its invariants always hold: the name is well
//! formed, every duration is in range, and `needs` names services of the same manifest and has no
//! cycle. Later stages read a `Spec` and never change it.

mod http;
mod log;
mod recovery;
pub mod redact;
mod resources;
mod snapshot;
mod start;
mod stop;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

pub use http::{Http, Tls};
pub use log::{
    Compress, Encoding, Every, Facility, Level, LogFormat, LogPolicy, Retention, Rotation,
    SinkSpec, SinkTarget, Streams, Zone,
};
pub use recovery::{
    AlertLimit, BeyondLimit, CodeAction, OnAlert, Policy, Recovery, RestartLimit, Webhook,
    WebhookUrl,
};
pub use resources::{Limits, Priority, Sandbox};
pub use snapshot::{SnapshotKeep, SnapshotPolicy, SnapshotWhen, Still};
pub use start::{
    Backoff, HostPort, HttpUrl, Liveness, Owner, Probe, Ready, Senders, Start, Strategy, WaitFor,
};
pub use stop::{Reload, Signal, Stop, StopAsk, StopScope, StopStep};

/// The name of a service: `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`. Every such name is a legal unit
/// name, file name, DNS label and registry key, except for the [devices of
/// Windows](crate::windows::is_device), which manifests cannot use.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The maximum length of a name in bytes (a DNS label, RFC 1035 §2.3.4).
    const MAX_LEN: usize = 63;

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
    /// Returns the commands of the service, each with its manifest key, [`Spec::command`] first.
    pub fn commands(&self) -> impl Iterator<Item = (&'static str, &Argv)> {
        let ready = match self.start.ready() {
            Some(Ready::Probe(probe)) => probe.exec(),
            _ => None,
        };
        let reload = match &self.reload {
            Some(Reload::Exec(argv)) => Some(argv),
            _ => None,
        };
        let (quiesce, thaw) = match self.snapshot.as_ref().map(SnapshotPolicy::still) {
            Some(Still::Commands { quiesce, thaw }) => (Some(quiesce), thaw.as_ref()),
            _ => (None, None),
        };
        let liveness = self.liveness.as_ref().and_then(|it| it.probe().exec());
        let commands = [
            ("command", Some(&self.command)),
            ("start", ready),
            ("liveness", liveness),
            ("reload", reload),
            ("snapshot", quiesce),
            ("snapshot", thaw),
            ("on_alert", self.on_alert.as_ref().and_then(OnAlert::exec)),
        ];
        let waits = self.wait_for.iter();
        let waits = waits.map(|it| ("wait_for", it.probe().exec()));
        let commands = commands.into_iter().chain(waits);
        commands.filter_map(|(key, argv)| Some((key, argv?)))
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
