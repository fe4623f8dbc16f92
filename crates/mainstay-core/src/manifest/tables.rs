//! The syntax of a manifest: each table with its keys and defaults, declared once.

use std::path::PathBuf;
use std::time::Duration;

use super::decode::{
    self, Decode, Keys, Named, OneOf, OrNone, OrTable, OrUnlimited, Table, one_of, table,
};
use super::diagnostic::Findings;
use super::redact::{Expression, LabelName, RedactEntry};
use super::tree::{Node, Spanned};
use super::values::{
    Amount, Capability, Codes, Count, Cpu, Factor, Line, ManagerName, NeedName, NotifySenders,
    Pattern, Pause, Port, Size, StrategyName, Target, Time, VariableName, Yes,
};
use crate::log::redact::RedactWith;
use crate::spec::{
    Account, Argv, BeyondLimit, Compress, Env, Environment, Every, Facility, HostPort, HttpUrl,
    Level, Listen, LogFormat, Owner, Policy, Priority, Probe, Ready, Reload, Signal, SinkTarget,
    SnapshotPolicy, SnapshotWhen, StopAsk, StopScope, Streams, WebhookUrl, Zone,
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
    Manifest {
        /// Decides which constraints apply.
        environment: Environment = Environment::Production,
        /// One table for each service; the key is its name.
        service: Named<ServiceTable> [required],
    }

    ServiceTable {
        /// One line of what it is.
        description: Line,
        /// What a service manager's user interface shows; the name where there is none.
        display_name: Line,
        /// The name by which the service manager knows it; the key of its table where there is
        /// none.
        manager_name: ManagerName,
        /// The program and its arguments, never a shell string.
        command: Argv [required],
        /// Where it runs; the manifest's directory where there is none, and a relative path is
        /// relative to that.
        working_dir: PathBuf,
        /// Variables added to the inherited ones; `${NAME}` in a value is the inherited or
        /// env_file's value of NAME.
        env: Env,
        /// A file of NAME=value lines, read at each start.
        env_file: PathBuf,
        /// Variables of the supervisor that a service of another account inherits beside PATH, LANG
        /// and TZ.
        inherit_env: Vec<Spanned<VariableName>>,
        /// How much of a processor it gets where others want it, too; as the supervisor where there
        /// is none.
        priority: Priority,
        /// The numbers of the processors it may run on, from 0; all where there is none.
        cpus: Vec<Spanned<Cpu>>,
        /// What each of its processes may have at most (Unix); as the supervisor where there is
        /// none.
        limits: LimitsTable,
        /// What it needs that a sandbox would take from it (systemd).
        sandbox: SandboxTable,
        /// Whom it runs as: local-system, local-service, network-service, virtual, dynamic,
        /// user:NAME, gmsa:DOMAIN\NAME$.
        account: Account,
        /// Services of this manifest that must be ready first, or os:NAME for one of the host.
        needs: Vec<Spanned<NeedName>>,
        /// Addresses that its manager listens on for it, host:port or an absolute path; it is given
        /// the sockets, as sd_listen_fds(3) says.
        listen: Vec<Spanned<Listen>>,
        /// How its start is judged.
        start: StartTable,
        /// Conditions that must hold before a start, one after the other.
        wait_for: Vec<Spanned<WaitForTable>>,
        /// How it is watched once it is ready.
        liveness: LivenessTable,
        /// How it is stopped.
        stop: StopTable,
        /// How it is told to read its configuration again.
        reload: ReloadTable,
        /// What follows an exit.
        recovery: RecoveryTable,
        /// Which of its state is kept.
        snapshot: SnapshotTable,
        /// Who is told at once when it needs a human: a command, or a table that holds more.
        on_alert: OrTable<Argv, OnAlertTable>,
        /// What happens to its output.
        log: LogTable,
        /// Its metrics and control endpoint.
        http: HttpTable,
    }

    LimitsTable {
        /// Descriptors.
        open_files: OrUnlimited<Amount>,
        /// Processes and threads of its user.
        processes: OrUnlimited<Amount>,
        /// Of a core dump; none is no dump at all.
        core_size: OrNone<OrUnlimited<Size>>,
        /// That may be kept out of swap.
        locked_memory: OrUnlimited<Size>,
    }

    SandboxTable {
        /// Absolute paths that it may write to, beside its own state.
        writable: Vec<Spanned<PathBuf>>,
        /// What root may do and it may, too: CAP_NET_BIND_SERVICE and others, see capabilities(7).
        capabilities: Vec<Spanned<Capability>>,
        /// Whether it makes code while it runs, as Java, Node.js and other compilers just in time
        /// do.
        jit: bool = false,
        /// Whether it sees the devices of the machine.
        devices: bool = false,
    }

    StartTable {
        /// How long it may take to become ready.
        timeout: Time = seconds(60),
        /// What says that it is ready; as soon as it runs where there is none.
        ready: ReadyTable,
    }

    ReadyTable {
        /// Which process may listen on a local address of `tcp`, `http` or `unix`: one of the
        /// service's, or any.
        owner: Owner = Owner::Service,
        ..ready: Ready [required],
    }

    WaitForTable {
        /// How to ask again.
        strategy: StrategyName = StrategyName::Backoff,
        /// The pause between two questions (fixed: 1s, probe: 250ms).
        interval: Time,
        /// The first pause of a backoff (100ms).
        base: Time,
        /// By what the pause of a backoff grows (2).
        factor: Factor,
        /// The longest pause of a backoff (10s).
        max: Time,
        /// Passes in a row that the strategy probe asks for (2).
        passes: Count,
        /// How long at most; then the start has failed.
        deadline: Time = seconds(120),
        ..probe: Probe [required],
    }

    LivenessTable {
        /// From one answer to the next question.
        every: Time = seconds(10),
        /// An answer later than this is a miss.
        timeout: Time = seconds(2),
        /// This many misses in a row restart the service.
        misses: Count = Count(3),
        ..probe: Probe [optional],
    }

    StopTable {
        /// From the request to the kill.
        graceful: Pause = millis(30_000),
        /// What asks it to stop on Unix (TERM). Windows asks by ctrl-c and WM_CLOSE.
        signal: Signal,
        /// The ways of asking, one after the other, instead of `signal`.
        ladder: Vec<Spanned<StopStepTable>>,
        /// Who is asked. A kill always takes the whole tree.
        scope: StopScope = StopScope::Tree,
    }

    StopStepTable {
        /// A signal (a ctrl-c on Windows), or close: WM_CLOSE to its windows.
        ask: StopAsk [required],
        /// How long after the request to stop.
        after: Pause = millis(0),
    }

    ReloadTable {
        ..reload: Reload [required],
    }

    RecoveryTable {
        /// What an exit outside the contract leads to.
        policy: Policy = Policy::Restart,
        /// The first pause before a restart; 0s is none, ever.
        delay: Pause = millis(100),
        /// By what the pause grows.
        factor: Factor = Factor(2.0),
        /// The longest pause.
        max_delay: Pause = millis(30_000),
        /// A run at least this long makes the next pause the first again.
        reset_after: Time = seconds(10),
        /// How many restarts are too many (20 in 15m), and what then; or none.
        limit: OrNone<LimitTable>,
        /// What single exit codes lead to.
        codes: Codes,
    }

    LimitTable {
        /// More than these, within the window, are too many.
        restarts: Count [required],
        /// A sliding window.
        window: Time [required],
        /// alert: the service is crash-looping and restarted at max_delay from then on; halt: it
        /// stays down.
        then: BeyondLimit = BeyondLimit::Alert,
    }

    SnapshotTable {
        /// Absolute directories; the service's own (MAINSTAY_DATA_DIR) where there is none.
        paths: Vec<Spanned<PathBuf>>,
        /// How many stay, or a table of rules.
        keep: OrTable<Count, SnapshotKeepTable> = OrTable::Single(KEEP_SNAPSHOTS),
        /// What triggers one, besides an update, a command and its time.
        when: SnapshotWhen = SnapshotWhen::Healthy,
        /// How long it must have been ready to count as healthy.
        after: Time = seconds(60),
        /// From one to the next while it is healthy; not by the clock where there is none.
        every: Time,
        /// The most that each directory may hold, holes of sparse files included; a larger one is
        /// not kept.
        max_size: Size = Size(SnapshotPolicy::MAX_SIZE),
        /// Whether all its processes are suspended while its state is copied.
        pause: bool = false,
        /// A command that makes it keep its state still, instead.
        quiesce: Argv,
        /// A command that lets it go on, after `quiesce`.
        thaw: Argv,
    }

    SnapshotKeepTable {
        /// The newest, this many (5 where no other rule is given).
        count: Count,
        /// Those that are not older than this.
        age: Time,
    }

    OnAlertTable {
        /// A command that gets the event as JSON on its standard input.
        exec: Argv,
        /// How long that may run.
        timeout: Time = ALERT_TIMEOUT,
        /// Where the event is posted to, as signed JSON.
        webhook: WebhookTable,
        /// How many alerts are too many (10 in 1h), or none. A halt always goes out.
        limit: OrNone<AlertLimitTable>,
    }

    AlertLimitTable {
        /// More than these, within the window, are counted and not sent.
        alerts: Count [required],
        /// A sliding window.
        window: Time [required],
    }

    WebhookTable {
        /// https://…, or http://… of this machine itself.
        url: WebhookUrl [required],
        /// The file of the key that signs (whsec_…, as Standard Webhooks has it), for its owner
        /// only; or credential:NAME, one of systemd.
        secret_file: PathBuf [required],
        /// PEM certificates of whom to trust over TLS; whom the system trusts where there is none.
        ca: PathBuf,
        /// How long one try may take.
        timeout: Time = seconds(10),
        /// How long an alert is tried to be delivered.
        deadline: Time = seconds(3600),
    }

    LogTable {
        /// The least severe level that is kept.
        level: Level = Level::Warn,
        /// The size after which a file is rotated, or a table of occasions.
        rotate: OrNone<OrTable<Size, RotateTable>> = OrNone(Some(OrTable::Single(ROTATE_SIZE))),
        /// How many rotated files stay, or a table of rules.
        keep: OrTable<Count, KeepTable> = OrTable::Single(KEEP_FILES),
        /// What is done to rotated files.
        compress: Compress = Compress::Zstd,
        /// What a line looks like in the file.
        format: LogFormat = LogFormat::Raw,
        /// Whether its two streams are told apart.
        streams: Streams = Streams::Merged,
        /// Whether lines of a level below `level` are left out.
        filter: bool = false,
        /// What nobody may read in its output: classes of data, fields of JSON lines, regular
        /// expressions.
        redact: Vec<Spanned<RedactEntry>>,
        /// What stands in its place.
        redact_with: RedactWith = RedactWith::Label,
        /// Where lines go beside the file.
        sinks: Vec<Spanned<Target<SinkTable>>>,
    }

    RedactTable {
        /// What it looks like, as a regular expression.
        regex: Expression [required],
        /// What is shown in its place.
        name: LabelName [required],
    }

    RotateTable {
        /// Where a file would grow beyond this.
        size: OrNone<Size> = OrNone(Some(ROTATE_SIZE)),
        /// With the first line of another hour or day.
        every: Every,
        /// Whose midnight.
        zone: Zone,
        /// With the first line after the supervisor was started.
        at_start: Yes,
    }

    KeepTable {
        /// The newest, this many (8 where no other rule is given).
        files: Count,
        /// The newest, as many as have this size together, as they lie on the disk; at least one.
        size: Size,
        /// Those whose last line is not older than this.
        age: Time,
    }

    SinkTable {
        /// journald, syslog (the local daemon), or syslog+udp://HOST:PORT, syslog+tcp://HOST:PORT,
        /// syslog+tls://HOST:PORT, syslog+unix://PATH, journald+unix://PATH.
        to: SinkTarget [required],
        /// What kind of program speaks, as syslog(3) has it.
        facility: Facility = Facility::Daemon,
        /// PEM certificates of whom to trust over TLS; whom the system trusts where there is none.
        ca: PathBuf,
        /// The PEM certificate chain to show over TLS; with its key, or neither.
        cert: PathBuf,
        /// The PEM private key of that certificate.
        key: PathBuf,
        /// How much may wait on disk for a target on the network (64MB).
        spool: Size,
    }

    HttpTable {
        /// From 1024 to 65534.
        port: Port [required],
        /// Certificate and key; plain HTTP on loopback where there is none.
        tls: TlsTable,
    }

    TlsTable {
        /// The PEM certificate chain; TLS takes both it and its key, or neither.
        cert_path: PathBuf [required],
        /// The PEM private key; TLS takes both it and its certificate, or neither.
        key_path: PathBuf [required],
    }
}

one_of! {
    Probe {
        /// GET answers 200 to 399.
        http: HttpUrl => Self::Http,
        /// A connection to this host:port is accepted.
        tcp: HostPort => Self::Tcp,
        /// A connection to this Unix socket is accepted.
        unix: PathBuf => Self::Unix,
        /// This command exits with 0.
        exec: Argv => Self::Exec,
        /// This file exists.
        file: PathBuf => Self::File,
    }

    Ready {
        /// A line of its output matches this regular expression.
        log: Pattern => |pattern: Pattern| Self::Log(pattern.0),
        /// It sends READY=1, as sd_notify(3) does: its processes (true), or any process of its
        /// account ("all").
        notify: NotifySenders => |senders: NotifySenders| Self::Notify(senders.0),
        ..Probe => Self::Probe,
    }

    Reload {
        /// This signal goes to its main process.
        signal: Signal => Self::Signal,
        /// This command is run.
        exec: Argv => Self::Exec,
    }
}
