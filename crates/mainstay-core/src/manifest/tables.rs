//! The syntax of a manifest: each table with its keys and defaults, declared once.

mod place;
mod redact;

use std::path::PathBuf;
use std::time::Duration;

pub(super) use self::redact::RedactEntry;
use self::redact::{Expression, LabelName};
use super::addresses::Target;
use super::decode::{
    self, Decode, Keys, Named, OneOf, OrNone, OrTable, OrUnlimited, Table, one_of, table,
};
use super::diagnostic::Findings;
use super::exit_codes::Codes;
use super::tree::{Node, Spanned};
use super::values::{
    Amount, Capability, Count, Cpu, Factor, Line, ManagerName, NeedName, NotifySenders, Pattern,
    Pause, Port, Size, Time, VariableName, Yes,
};
use super::words::StrategyName;
use crate::spec::redact::RedactWith;
use crate::spec::{
    Account, Argv, BeyondLimit, Compress, Encoding, Env, Environment, Every, Facility, HostPort,
    HttpUrl, Level, Listen, LogFormat, Owner, Policy, Priority, Probe, Ready, Reload, Signal,
    SinkTarget, SnapshotPolicy, SnapshotWhen, StopAsk, StopScope, Streams, WebhookUrl, Zone,
};

/// Defaults that apply whether or not the table is present.
const ROTATE_SIZE: Size = Size(10_000_000);
pub(super) const KEEP_FILES: Count = Count(8);
pub(super) const ALERT_TIMEOUT: Time = seconds(30);
pub(super) const KEEP_SNAPSHOTS: Count = Count(5);

const fn seconds(seconds: u64) -> Time {
    Time(Duration::from_secs(seconds))
}

const fn millis(millis: u64) -> Pause {
    Pause(Duration::from_millis(millis))
}

table! {
    unknown_key: place::help;

    Manifest {
        /// Set of constraints that applies.
        environment: Environment = Environment::Production,
        /// Services, one table each; the key of a table is the name of its service.
        service: Named<ServiceTable> [required],
    }

    ServiceTable {
        /// Description of the service, on one line.
        description: Line,
        /// Name in the user interface of a service manager (default: the service's name).
        display_name: Line,
        /// Service manager's name for the installed service (default: the service's name).
        manager_name: ManagerName,
        /// Program and its arguments, never a shell string.
        command: Argv [required],
        /// Working directory; a relative path is relative to the manifest's directory (default:
        /// that directory).
        working_dir: PathBuf,
        /// Variables added to the inherited ones; `${NAME}` in a value is replaced by the value of
        /// NAME in the inherited environment or `env_file`.
        env: Env,
        /// File of NAME=value lines, read at each start.
        env_file: PathBuf,
        /// Additional variables of the supervisor's environment, besides PATH, LANG and TZ, that a
        /// service of another account inherits.
        inherit_env: Vec<Spanned<VariableName>>,
        /// CPU scheduling priority (default: the supervisor's).
        priority: Priority,
        /// Processors that the service may run on, numbered from 0 (default: all).
        cpus: Vec<Spanned<Cpu>>,
        /// Resource limits of each process of the service, on Unix (default: the supervisor's).
        limits: LimitsTable,
        /// Exceptions from the sandbox (systemd), and capabilities.
        sandbox: SandboxTable,
        /// Account that the service runs as: local-system, local-service, network-service, virtual,
        /// dynamic, user:NAME, gmsa:DOMAIN\NAME$.
        account: Account,
        /// Services of this manifest that must be ready first, or os:NAME for a service of the
        /// operating system.
        needs: Vec<Spanned<NeedName>>,
        /// Addresses that the supervisor listens on for the service: ADDRESS:PORT or an absolute
        /// path. The program receives the sockets as described in sd_listen_fds(3).
        listen: Vec<Spanned<Listen>>,
        /// Startup and readiness.
        start: StartTable,
        /// Conditions that must hold before a start, checked one after the other.
        wait_for: Vec<Spanned<WaitForTable>>,
        /// Liveness checks, once the service is ready.
        liveness: LivenessTable,
        /// Stop procedure.
        stop: StopTable,
        /// Reload of the configuration.
        reload: ReloadTable,
        /// Reaction to an exit.
        recovery: RecoveryTable,
        /// Snapshots of the state.
        snapshot: SnapshotTable,
        /// Recipients of alerts: a command, or a table with more settings.
        on_alert: OrTable<Argv, OnAlertTable>,
        /// Log files, rotation and sinks.
        log: LogTable,
        /// Metrics and control endpoint.
        http: HttpTable,
    }

    LimitsTable {
        /// File descriptors.
        open_files: OrUnlimited<Amount>,
        /// Processes and threads of the service's user.
        processes: OrUnlimited<Amount>,
        /// Size of a core dump; none disables core dumps.
        core_size: OrNone<OrUnlimited<Size>>,
        /// Memory that may be locked in RAM.
        locked_memory: OrUnlimited<Size>,
    }

    SandboxTable {
        /// Absolute paths that the service may write to, in addition to its own state.
        writable: Vec<Spanned<PathBuf>>,
        /// Capabilities that the service receives, by their full names in capabilities(7), such as
        /// CAP_NET_BIND_SERVICE.
        capabilities: Vec<Spanned<Capability>>,
        /// Allow the service to generate code at run time (Java, Node.js and other just-in-time
        /// compilers).
        jit: bool = false,
        /// Allow the service to access the devices of the machine.
        devices: bool = false,
    }

    StartTable {
        /// Time limit for becoming ready.
        timeout: Time = seconds(60),
        /// Readiness check (default: ready as soon as the program runs).
        ready: ReadyTable,
    }

    ReadyTable {
        /// Processes that may listen on a local address of `tcp`, `http` or `unix`: only those of
        /// the service, or any.
        owner: Owner = Owner::Service,
        ..ready: Ready [required],
    }

    WaitForTable {
        /// Retry strategy.
        strategy: StrategyName = StrategyName::Backoff,
        /// Pause between attempts (default: 1s for `fixed`, 250ms for `probe`).
        interval: Time,
        /// First pause, for `backoff` (default: 100ms).
        base: Time,
        /// Growth factor of the pause, for `backoff` (default: 2).
        factor: Factor,
        /// Longest pause, for `backoff` (default: 10s).
        max: Time,
        /// Number of consecutive passes, for `probe` (default: 2).
        passes: Count,
        /// Time limit, after which the start fails.
        deadline: Time = seconds(120),
        ..probe: Probe [required],
    }

    LivenessTable {
        /// Time from one result to the next check.
        every: Time = seconds(10),
        /// Time limit of a check; a later response is a miss.
        timeout: Time = seconds(2),
        /// Number of consecutive misses after which the service is restarted.
        misses: Count = Count(3),
        ..probe: Probe [optional],
    }

    StopTable {
        /// Time from the stop request to the kill.
        graceful: Pause = millis(30_000),
        /// Stop signal on Unix (default: TERM). On Windows, a stop sends ctrl-c and WM_CLOSE.
        signal: Signal,
        /// Stop requests, sent one after the other, instead of `signal`.
        ladder: Vec<Spanned<StopStepTable>>,
        /// Processes that receive the stop request. A kill always applies to the whole tree.
        scope: StopScope = StopScope::Tree,
    }

    StopStepTable {
        /// Signal (ctrl-c on Windows), or close: WM_CLOSE to the program's windows.
        ask: StopAsk [required],
        /// Time from the stop request to this step.
        after: Pause = millis(0),
    }

    ReloadTable {
        ..reload: Reload [required],
    }

    RecoveryTable {
        /// Reaction to an exit outside the contract.
        policy: Policy = Policy::Restart,
        /// First pause before a restart; 0s disables pauses.
        delay: Pause = millis(100),
        /// Growth factor of the pause.
        factor: Factor = Factor(2.0),
        /// Longest pause.
        max_delay: Pause = millis(30_000),
        /// Duration of a run that resets the pause to `delay`.
        reset_after: Time = seconds(10),
        /// Restart limit, or none (default: 20 restarts in 15m, then alert).
        limit: OrNone<LimitTable>,
        /// Reactions to single exit codes: 0 to 255; on Windows, any 32-bit number or the name of
        /// an NTSTATUS value.
        codes: Codes,
    }

    LimitTable {
        /// Number of restarts within the window that are allowed.
        restarts: Count [required],
        /// Length of the sliding window.
        window: Time [required],
        /// Reaction to exceeding the limit. alert: the service is crash-looping and is restarted at
        /// `max_delay` from then on; halt: the service is halted.
        then: BeyondLimit = BeyondLimit::Alert,
    }

    SnapshotTable {
        /// Absolute paths of the directories to copy (default: the service's own directory,
        /// MAINSTAY_DATA_DIR).
        paths: Vec<Spanned<PathBuf>>,
        /// Number of snapshots to keep, or a table of rules.
        keep: OrTable<Count, SnapshotKeepTable> = OrTable::Single(KEEP_SNAPSHOTS),
        /// Trigger of snapshots, in addition to updates, commands and `every`.
        when: SnapshotWhen = SnapshotWhen::Healthy,
        /// Time for which the service must have been continuously ready to count as healthy.
        after: Time = seconds(60),
        /// Time between snapshots while the service is healthy (default: no periodic snapshots).
        every: Time,
        /// Maximum size of each directory, including holes of sparse files; a larger directory is
        /// not copied.
        max_size: Size = Size(SnapshotPolicy::MAX_SIZE),
        /// Suspend all processes of the service while its state is copied.
        pause: bool = false,
        /// Command that makes the service stop changing its state, instead of `pause`.
        quiesce: Argv,
        /// Command that resumes the service after `quiesce`.
        thaw: Argv,
    }

    SnapshotKeepTable {
        /// Number of newest snapshots to keep (default: 5 if no other rule is given).
        count: Count,
        /// Maximum age of a snapshot.
        age: Time,
    }

    OnAlertTable {
        /// Command that receives the event as JSON on its standard input.
        exec: Argv,
        /// Time limit of the command, after which it is killed.
        timeout: Time = ALERT_TIMEOUT,
        /// Endpoint that receives the event as signed JSON.
        webhook: WebhookTable,
        /// Rate limit of alerts, or none (default: 10 in 1h). Halts and crash loops are always
        /// sent.
        limit: OrNone<AlertLimitTable>,
    }

    AlertLimitTable {
        /// Number of alerts within the window that are sent; more are only counted.
        alerts: Count [required],
        /// Length of the sliding window.
        window: Time [required],
    }

    WebhookTable {
        /// URL of the endpoint: https://…, or http://… on this machine.
        url: WebhookUrl [required],
        /// File with the signing key (whsec_…, as in Standard Webhooks) that only its owner can
        /// access, or credential:NAME, a systemd credential.
        secret_file: PathBuf [required],
        /// PEM certificates of trusted authorities for TLS (default: the system's).
        ca: PathBuf,
        /// Time limit of one attempt.
        timeout: Time = seconds(10),
        /// Time limit for delivering an alert.
        deadline: Time = seconds(3600),
    }

    LogTable {
        /// Least severe level that the program should write, passed in MAINSTAY_LOG_LEVEL; with
        /// `filter`, also the least severe level that is kept.
        level: Level = Level::Warn,
        /// File size that triggers a rotation, or a table of triggers.
        rotate: OrNone<OrTable<Size, RotateTable>> = OrNone(Some(OrTable::Single(ROTATE_SIZE))),
        /// Number of rotated files to keep, or a table of rules.
        keep: OrTable<Count, KeepTable> = OrTable::Single(KEEP_FILES),
        /// Compression of rotated files.
        compress: Compress = Compress::Zstd,
        /// Format of a line in the file.
        format: LogFormat = LogFormat::Raw,
        /// Encoding of the program's output, which the formats text and json, sinks and terminals
        /// get as UTF-8.
        encoding: Encoding = Encoding::Utf8,
        /// Distinguish standard output and standard error (split), or not (merged).
        streams: Streams = Streams::Merged,
        /// Drop lines with a recognized level below `level`.
        filter: bool = false,
        /// Data to remove from the output: classes of data, fields of JSON lines, regular
        /// expressions.
        redact: Vec<Spanned<RedactEntry>>,
        /// Replacement of redacted data.
        redact_with: RedactWith = RedactWith::Label,
        /// Destinations of lines in addition to the file.
        sinks: Vec<Spanned<Target<SinkTable>>>,
    }

    RedactTable {
        /// Regular expression that matches the data.
        regex: Expression [required],
        /// Name to show in place of the data.
        name: LabelName [required],
    }

    RotateTable {
        /// Maximum size of a file.
        size: OrNone<Size> = OrNone(Some(ROTATE_SIZE)),
        /// Period of rotation, at the first line of another hour or day.
        every: Every,
        /// Time zone of `every` (default: utc).
        zone: Zone,
        /// Rotate at the first line after the supervisor was started.
        at_start: Yes,
    }

    KeepTable {
        /// Number of newest files to keep (default: 8 if no other rule is given).
        files: Count,
        /// Maximum total size of the newest files on disk; at least one file is kept.
        size: Size,
        /// Maximum age of a file's last line.
        age: Time,
    }

    SinkTable {
        /// Destination: journald, syslog (the local daemon), or syslog+udp://HOST:PORT,
        /// syslog+tcp://HOST:PORT, syslog+tls://HOST:PORT, syslog+unix://PATH,
        /// journald+unix://PATH.
        to: SinkTarget [required],
        /// Facility, as in syslog(3).
        facility: Facility = Facility::Daemon,
        /// PEM certificates of trusted authorities for TLS (default: the system's).
        ca: PathBuf,
        /// PEM client certificate chain for TLS; requires `key`.
        cert: PathBuf,
        /// PEM private key of the client certificate; requires `cert`.
        key: PathBuf,
        /// Maximum size of the queue on disk, for a network target (default: 64MB).
        spool: Size,
    }

    HttpTable {
        /// Port, from 1024 to 65534.
        port: Port [required],
        /// Certificate and key (default: plain HTTP on loopback).
        tls: TlsTable,
    }

    TlsTable {
        /// PEM certificate chain; requires `key_path`.
        cert_path: PathBuf [required],
        /// PEM private key; requires `cert_path`.
        key_path: PathBuf [required],
    }
}

one_of! {
    Probe {
        /// GET returns a status from 200 to 399.
        http: HttpUrl => Self::Http,
        /// A connection to this HOST:PORT is accepted.
        tcp: HostPort => Self::Tcp,
        /// A connection to this Unix socket is accepted.
        unix: PathBuf => Self::Unix,
        /// This command exits with 0.
        exec: Argv => Self::Exec,
        /// This file exists.
        file: PathBuf => Self::File,
    }

    Ready {
        /// A line of the output matches this regular expression.
        log: Pattern => |pattern: Pattern| Self::Log(pattern.0),
        /// READY=1 is received, as in sd_notify(3), from a process of the service (true) or any
        /// process of its account ("all").
        notify: NotifySenders => |senders: NotifySenders| Self::Notify(senders.0),
        ..Probe => Self::Probe,
    }

    Reload {
        /// Signal sent to the main process.
        signal: Signal => Self::Signal,
        /// Command that reloads the configuration.
        exec: Argv => Self::Exec,
    }
}
