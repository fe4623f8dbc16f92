//! The log of a service.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::redact::{RedactWith, Redaction};
use super::{HostPort, Tls};

/// The policy for a service's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPolicy {
    pub(crate) level: Level,
    pub(crate) rotate: Rotation,
    pub(crate) keep: Retention,
    pub(crate) compress: Compress,
    pub(crate) format: LogFormat,
    pub(crate) encoding: Encoding,
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
            encoding: Encoding::Utf8,
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
    /// Returns the encoding of the program's output.
    pub fn encoding(&self) -> Encoding {
        self.encoding
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
    /// Returns the size in bytes of the disk spool for a network target: at least 1 MB.
    pub fn spool(&self) -> u64 {
        self.spool
    }
    /// The minimum spool size. A smaller spool could not bridge a useful part of an outage.
    pub(crate) const LEAST_SPOOL: u64 = 1_000_000;

    /// Returns whether both sinks can share one connection. They may differ in the contents of each
    /// line, such as the facility.
    pub(crate) fn connects_like(&self, other: &Self) -> bool {
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
    pub(crate) const JOURNALD_SOCKET: &'static str = "/run/systemd/journal/socket";
    /// The default socket of the local syslog daemon.
    pub(crate) const SYSLOG_SOCKET: &'static str = "/dev/log";

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

/// The encoding of a program's output. Everything but the raw format gets UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the encodings")]
pub enum Encoding {
    Utf8,
    Utf16Le,
    /// The OEM code page of this Windows, which console programs write.
    Oem,
    Latin1,
    Cp437,
    Cp850,
    Cp852,
    Cp858,
    Cp866,
    Cp1250,
    Cp1251,
    Cp1252,
    Cp1253,
    Cp1254,
    Cp1257,
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
