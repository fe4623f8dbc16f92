//! The start of a service: its readiness, what it waits for, its retries and its liveness.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::Argv;

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

impl Probe {
    /// Returns the command of an `exec` probe.
    pub(crate) fn exec(&self) -> Option<&Argv> {
        match self {
            Self::Exec(argv) => Some(argv),
            _ => None,
        }
    }
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

impl HttpUrl {
    /// Returns the URL without its query, which may contain secrets.
    pub fn without_query(&self) -> String {
        let (path, query) = match self.path_and_query.split_once('?') {
            Some((path, _)) => (path, "?…"),
            None => (&*self.path_and_query, ""),
        };
        format!("http://{}{path}{query}", self.address)
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
