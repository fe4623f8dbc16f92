//! Resolution of decoded tables into specifications: constraints, and rules across several keys.

mod log;

pub(super) use self::log::USUAL_SPOOL;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::decode::{Named, OrNone, OrTable, OrUnlimited, Table};
use super::diagnostic::{Code, Findings, Shown};
use super::needs;
use super::tables::{
    ALERT_TIMEOUT, AlertLimitTable, HttpTable, KEEP_SNAPSHOTS, LimitTable, LimitsTable,
    LivenessTable, Manifest, OnAlertTable, RecoveryTable, SandboxTable, ServiceTable,
    SnapshotKeepTable, SnapshotTable, StartTable, StopStepTable, StopTable, WaitForTable,
    WebhookTable,
};
use super::tree::{Span, Spanned};
use super::units::ShowDuration;
use super::values::{Amount, Count, Size, Time, is_absolute};
use super::words::StrategyName;
use crate::spec::{
    AlertLimit, Argv, Backoff, BeyondLimit, Environment, Http, Limits, Listen, Liveness, OnAlert,
    Owner, Probe, Ready, Recovery, RestartLimit, Sandbox, ServiceName, Signal, SinkSpec,
    SinkTarget, SnapshotKeep, SnapshotPolicy, Spec, Start, Still, Stop, StopAsk, StopStep,
    Strategy, Tls, WaitFor, Webhook,
};
use crate::suggest::one_of_these;
use crate::windows;

/// Returns the specifications in the order of the manifest. They are valid only if there are no
/// findings.
pub(super) fn specs(manifest: Manifest, findings: &mut Findings) -> Vec<Spec> {
    let Some(services) = manifest.service else {
        return Vec::new();
    };
    if services.value.0.is_empty() {
        let help = Some("add [service.NAME] with a command");
        let message = "the manifest has no service";
        findings.add(Code::NoService, services.span, message, help);
    }
    let needs = needs::resolve(&services.value, findings);
    let manager_names = manager_names(&services.value, findings);
    let keys = services.value.0.iter().map(|(key, _)| key.value.clone());
    let mut resolver = Resolver {
        keys: keys.collect(),
        environment: manifest.environment.value,
        ports: BTreeMap::new(),
        listeners: BTreeMap::new(),
        sinks: BTreeMap::new(),
        findings,
    };
    let services = services.value.0.into_iter().zip(needs);
    services
        .filter_map(|((name, table), needs)| {
            let name = resolver.name(name);
            let mut spec = resolver.service(name?, table?)?;
            let known = |need: &ServiceName| Some((need.clone(), manager_names.get(need)?.clone()));
            spec.needs = needs;
            spec.need_names = spec.needed_services().filter_map(known).collect();
            Some(spec)
        })
        .collect()
}

/// Returns the manager's names of services whose name there differs from their key. Names must be
/// unique. They are compared without case, because some managers ignore it.
fn manager_names(
    services: &Named<ServiceTable>,
    findings: &mut Findings,
) -> BTreeMap<ServiceName, String> {
    let all = services.0.iter().map(|(key, table)| {
        let typed = table.as_ref().and_then(|table| table.manager_name.as_ref());
        (&*key.value, typed)
    });
    let unnamed = all.clone().filter(|(_, typed)| typed.is_none());
    let mut taken: BTreeMap<String, &str> = unnamed.map(|(key, _)| (key.to_owned(), key)).collect();
    let mut names = BTreeMap::new();
    for (key, typed) in all {
        let Some(Spanned { value, span }) = typed else {
            continue;
        };
        if let Some(other) = taken.insert(value.0.to_lowercase(), key) {
            let message = format!(
                "`{}` has the same name in the service manager",
                Shown(other)
            );
            let help = Some("give each service a unique name");
            findings.add(Code::ManagerNameTaken, *span, message, help);
        }
        names.extend(ServiceName::new(key).map(|key| (key, value.0.clone())));
    }
    names
}

struct Resolver<'f> {
    /// The keys of all services, as written.
    keys: BTreeSet<String>,
    environment: Environment,
    /// The service that uses each HTTP port.
    ports: BTreeMap<u16, ServiceName>,
    /// The service that each address is listened on for.
    listeners: BTreeMap<Listen, ServiceName>,
    /// The first settings of each sink, and the service that has them.
    sinks: BTreeMap<SinkTarget, (SinkSpec, ServiceName)>,
    findings: &'f mut Findings,
}

impl Resolver<'_> {
    /// Returns whether production limits apply.
    fn is_strict(&self) -> bool {
        self.environment != Environment::Development
    }

    fn name(&mut self, typed: Spanned<String>) -> Option<ServiceName> {
        let name = ServiceName::new(&typed.value);
        if name.is_none() {
            let message = format!("`{}` is not a valid service name", Shown(&typed.value));
            let help = "a name consists of 1 to 63 characters a-z, 0-9 and -, and neither starts \
                        nor ends with -";
            let nearest = typed
                .value
                .to_ascii_lowercase()
                .replace(['_', '.', ' '], "-");
            let help = match ServiceName::new(&nearest) {
                Some(name) if !self.keys.contains(name.as_str()) => {
                    format!("write `{name}`: {help}")
                }
                _ => help.to_owned(),
            };
            self.findings
                .add(Code::ServiceName, typed.span, message, Some(&help));
        } else if windows::is_device(&typed.value) {
            let message = format!(
                "`{}` is the name of a device on Windows, which has no file or directory of that \
                 name",
                typed.value
            );
            let help = format!(
                "write `{}-service`, for example; the name is refused on every system, because a \
                 manifest may be used on another",
                typed.value
            );
            self.findings
                .add(Code::ReservedName, typed.span, message, Some(&help));
        }
        name
    }

    /// All tables are checked before a missing command ends the resolution of the service.
    fn service(&mut self, name: ServiceName, typed: ServiceTable) -> Option<Spec> {
        let start = self.start(typed.start);
        let listen = self.listen(typed.listen, start.ready.as_ref(), &name);
        let liveness = typed
            .liveness
            .and_then(|liveness| self.liveness(liveness, start.ready.as_ref()));
        let wait_for = typed.wait_for.map_or_else(Vec::new, |list| list.value);
        let wait_for = wait_for
            .into_iter()
            .filter_map(|item| self.wait_for(item.value));
        let wait_for = wait_for.collect();
        let stop = self.stop(or_absent(typed.stop));
        let recovery = self.recovery(or_absent(typed.recovery));
        let snapshot = typed.snapshot.map(|table| self.snapshot(table.value));
        let on_alert = typed.on_alert.and_then(|typed| self.on_alert(typed));
        let log = self.log(or_absent(typed.log), &name);
        let http = typed.http.and_then(|table| self.http(table.value, &name));
        let sandbox = typed.sandbox.map(|table| self.sandbox(table.value));
        Some(Spec {
            name,
            environment: self.environment,
            description: typed.description.map(|line| line.value.0),
            display_name: typed.display_name.map(|line| line.value.0),
            manager_name: typed.manager_name.map(|name| name.value.0),
            command: typed.command?.value,
            working_dir: value(typed.working_dir),
            env: value(typed.env).unwrap_or_default(),
            env_file: value(typed.env_file),
            inherit_env: typed.inherit_env.map_or_else(Vec::new, |list| {
                list.value.into_iter().map(|name| name.value.0).collect()
            }),
            priority: value(typed.priority),
            cpus: typed.cpus.map_or_else(Vec::new, |list| {
                list.value.into_iter().map(|cpu| cpu.value.0).collect()
            }),
            limits: limits(value(typed.limits)),
            sandbox,
            account: value(typed.account),
            needs: Vec::new(),
            need_names: BTreeMap::new(),
            listen,
            start,
            wait_for,
            liveness,
            stop,
            reload: value(typed.reload).and_then(|table| value(table.reload)),
            recovery,
            snapshot,
            on_alert,
            log,
            http,
        })
    }

    fn start(&mut self, typed: Option<Spanned<StartTable>>) -> Start {
        let typed = or_absent(typed);
        let ready = value(typed.ready);
        Start {
            timeout: typed.timeout.value.0,
            owner: ready
                .as_ref()
                .map_or(Owner::Service, |table| table.owner.value),
            ready: ready.and_then(|table| value(table.ready)),
        }
    }

    /// Checks that each address occurs only once in the manifest, and is not that of a readiness
    /// probe that merely connects: the manager would accept the connection.
    fn listen(
        &mut self,
        typed: Option<Spanned<Vec<Spanned<Listen>>>>,
        ready: Option<&Ready>,
        name: &ServiceName,
    ) -> Vec<Listen> {
        let asked = match ready {
            Some(Ready::Probe(Probe::Tcp(address))) => Some(Listen::Tcp(address.clone())),
            Some(Ready::Probe(Probe::Unix(path))) => Some(Listen::Unix(path.clone())),
            _ => None,
        };
        let mut listen = Vec::new();
        for Spanned { value, span } in value(typed).unwrap_or_default() {
            if asked.as_ref() == Some(&value) {
                let message = "the readiness probe connects to this address, which accepts \
                               connections before the program is ready";
                let help = Some("use `http`, `log`, `exec` or `notify` in `start.ready`");
                self.findings.add(Code::Conflict, span, message, help);
            }
            if let Some(other) = self.listeners.insert(value.clone(), name.clone()) {
                let message = format!("the service `{other}` already uses this address");
                let help = Some("give each service its own addresses");
                self.findings.add(Code::Conflict, span, message, help);
            }
            listen.push(value);
        }
        listen
    }

    fn liveness(
        &mut self,
        Spanned { value: typed, span }: Spanned<LivenessTable>,
        ready: Option<&Ready>,
    ) -> Option<Liveness> {
        let probe = match (typed.probe, ready) {
            (Some(probe), _) => probe.value,
            (None, Some(Ready::Probe(probe))) => probe.clone(),
            (None, _) => {
                if typed.sound {
                    let message = "`liveness` requires a probe, because `start.ready` has none";
                    let help = Some("add one of `http`, `tcp`, `unix`, `exec` or `file`");
                    self.findings.add(Code::NoProbe, span, message, help);
                }
                return None;
            }
        };
        Some(Liveness {
            probe,
            every: typed.every.value.0,
            timeout: typed.timeout.value.0,
            misses: typed.misses.value.0,
        })
    }

    fn wait_for(&mut self, typed: WaitForTable) -> Option<WaitFor> {
        let duration = |time: Option<Spanned<Time>>, default| {
            time.map_or(Duration::from_millis(default), |time| time.value.0)
        };
        let given = [
            ("interval", span(&typed.interval)),
            ("base", span(&typed.base)),
            ("factor", span(&typed.factor)),
            ("max", span(&typed.max)),
            ("passes", span(&typed.passes)),
        ];
        let (name, takes): (_, &[_]) = match typed.strategy.value {
            StrategyName::Fixed => ("fixed", &["interval"]),
            StrategyName::Backoff => ("backoff", &["base", "factor", "max"]),
            StrategyName::Probe => ("probe", &["interval", "passes"]),
        };
        for (key, span) in given {
            if let Some(span) = span.filter(|_| typed.sound && !takes.contains(&key)) {
                let message = format!("`{key}` cannot be used with the strategy `{name}`");
                let help = format!("remove it; for `{name}`, {}", one_of_these(takes));
                self.findings
                    .add(Code::Conflict, span, message, Some(&help));
            }
        }
        let strategy = match typed.strategy.value {
            StrategyName::Fixed => Strategy::Fixed {
                interval: duration(typed.interval, 1000),
            },
            StrategyName::Probe => Strategy::Probe {
                interval: duration(typed.interval, 250),
                passes: typed.passes.map_or(
                    2,
                    |Spanned {
                         value: Count(n), ..
                     }| n,
                ),
            },
            StrategyName::Backoff => {
                let at = span(&typed.max)
                    .or(span(&typed.base))
                    .filter(|_| typed.sound);
                let backoff = Backoff {
                    base: duration(typed.base, 100),
                    factor: typed.factor.map_or(2.0, |factor| factor.value.0),
                    max: duration(typed.max, 10_000),
                };
                self.order(&backoff, at, ["base", "max"]);
                Strategy::Backoff(backoff)
            }
        };
        Some(WaitFor {
            probe: typed.probe?.value,
            strategy,
            deadline: typed.deadline.value.0,
        })
    }

    /// Checks that the maximum delay of a backoff is not below its first delay. Nothing is checked
    /// if `at` is `None`.
    fn order(&mut self, backoff: &Backoff, at: Option<Span>, [first, longest]: [&str; 2]) {
        if let Some(at) = at.filter(|_| backoff.max < backoff.base) {
            let (base, max) = (ShowDuration(backoff.base), ShowDuration(backoff.max));
            let message = format!("`{longest}` ({max}) is below `{first}` ({base})");
            let help = format!("raise `{longest}`, or lower `{first}`");
            self.findings.add(Code::Order, at, message, Some(&help));
        }
    }

    fn stop(&mut self, typed: StopTable) -> Stop {
        const SHORTEST: Duration = Duration::from_secs(30);
        let graceful = typed.graceful.value.0;
        if self.is_strict() && graceful < SHORTEST {
            let shown = ShowDuration(graceful);
            let message = format!(
                "{shown} is too short for a graceful stop: a program that is killed before it has \
                 finished may lose data"
            );
            let help = Some(
                "write \"30s\" or more (a program that stops sooner is not waited for), or set \
                 environment = \"development\" at the top of the file",
            );
            self.findings
                .add(Code::GracefulTooShort, typed.graceful.span, message, help);
        }
        Stop {
            graceful,
            ladder: self.ladder(typed.ladder, typed.signal, graceful),
            scope: typed.scope.value,
        }
    }

    fn ladder(
        &mut self,
        typed: Option<Spanned<Vec<Spanned<StopStepTable>>>>,
        signal: Option<Spanned<Signal>>,
        graceful: Duration,
    ) -> Vec<StopStep> {
        let Some(Spanned { value: steps, span }) = typed else {
            let signal = signal.map_or(Signal::Term, |signal| signal.value);
            return [StopAsk::Signal(signal), StopAsk::Close]
                .map(|ask| StopStep {
                    ask,
                    after: Duration::ZERO,
                })
                .into();
        };
        if let Some(signal) = signal {
            let message = "`signal` cannot be combined with `ladder`";
            let help = Some("make it the first step of the ladder");
            self.findings
                .add(Code::Conflict, signal.span, message, help);
        }
        if steps.is_empty() {
            let help = Some("remove it, or add a step: [{ ask = \"TERM\" }]");
            self.findings
                .add(Code::Order, span, "the ladder has no steps", help);
        }
        let mut ladder: Vec<StopStep> = Vec::new();
        for Spanned { value: step, .. } in steps {
            let Spanned { value: after, span } = step.after;
            let Some(ask) = step.ask else { continue };
            let (ask, after) = (ask.value, after.0);
            let mistake = match ladder.last() {
                None if !after.is_zero() => Some("the first step cannot be delayed"),
                Some(last) if after < last.after => Some("this step is before the previous one"),
                _ if after >= graceful && !after.is_zero() => Some("this step is after the kill"),
                _ => None,
            };
            if let Some(message) = mistake {
                let help =
                    Some("`after` counts from the stop request, and is less than `graceful`");
                self.findings.add(Code::Order, span, message, help);
            }
            ladder.push(StopStep { ask, after });
        }
        ladder
    }

    fn recovery(&mut self, typed: RecoveryTable) -> Recovery {
        let backoff = Backoff {
            base: typed.delay.value.0,
            factor: typed.factor.value.0,
            max: typed.max_delay.value.0,
        };
        let at = Some(typed.max_delay.span).filter(|_| typed.sound);
        self.order(&backoff, at, ["delay", "max_delay"]);
        Recovery {
            policy: typed.policy.value,
            backoff,
            reset_after: typed.reset_after.value.0,
            limit: limit(typed.limit),
            codes: typed
                .codes
                .map_or_else(BTreeMap::new, |codes| codes.value.0),
        }
    }

    fn snapshot(&mut self, typed: SnapshotTable) -> SnapshotPolicy {
        let still = self.still(&typed);
        SnapshotPolicy {
            paths: typed
                .paths
                .map_or_else(Vec::new, |paths| self.snapshot_paths(paths)),
            keep: snapshot_keep(typed.keep.value),
            when: typed.when.value,
            after: typed.after.value.0,
            every: value(typed.every).map(|every| every.0),
            max_size: typed.max_size.value.0,
            still,
        }
    }

    fn snapshot_paths(
        &mut self,
        Spanned { value: paths, span }: Spanned<Vec<Spanned<PathBuf>>>,
    ) -> Vec<PathBuf> {
        if paths.is_empty() {
            let help = Some("add a directory, or remove `paths`: the default is its own");
            self.findings
                .add(Code::MissingKey, span, "`paths` is empty", help);
        }
        let mut seen: Vec<PathBuf> = Vec::new();
        for Spanned { value: path, span } in paths {
            if !path.to_str().is_some_and(is_absolute) {
                let message = "a snapshot path must be absolute";
                let help = Some("write an absolute path: \"/var/lib/orders\"");
                self.findings.add(Code::RelativePath, span, message, help);
            } else if seen.contains(&path) {
                let help = Some("keep one of them");
                self.findings
                    .add(Code::Conflict, span, "duplicate path", help);
            } else if let Some(other) = seen
                .iter()
                .find(|other| path.starts_with(other) || other.starts_with(&path))
            {
                let message = format!(
                    "this path and `{}` overlap: one contains the other",
                    other.display()
                );
                let help = Some("keep the outer one");
                self.findings.add(Code::Conflict, span, message, help);
            }
            seen.push(path);
        }
        seen
    }

    fn still(&mut self, typed: &SnapshotTable) -> Still {
        if let (Some(quiesce), true) = (&typed.quiesce, typed.pause.value) {
            let message = "`quiesce` cannot be combined with `pause`";
            let help = Some("remove one: a suspended program cannot respond to a command");
            self.findings
                .add(Code::Conflict, quiesce.span, message, help);
        }
        if let (None, Some(thaw)) = (&typed.quiesce, &typed.thaw) {
            let message = "`thaw` requires `quiesce`";
            let help = Some("add `quiesce`, or remove `thaw`");
            self.findings.add(Code::Conflict, thaw.span, message, help);
        }
        match &typed.quiesce {
            Some(quiesce) => Still::Commands {
                quiesce: quiesce.value.clone(),
                thaw: typed.thaw.as_ref().map(|thaw| thaw.value.clone()),
            },
            None if typed.pause.value => Still::Pause,
            None => Still::Nothing,
        }
    }

    fn on_alert(
        &mut self,
        Spanned { value: typed, span }: Spanned<OrTable<Argv, OnAlertTable>>,
    ) -> Option<OnAlert> {
        let table = match typed {
            OrTable::Single(argv) => {
                return Some(OnAlert {
                    exec: Some(argv),
                    timeout: ALERT_TIMEOUT.0,
                    webhook: None,
                    limit: alert_limit(None),
                });
            }
            OrTable::Table(table) => table,
        };
        if table.sound && table.exec.is_none() && table.webhook.is_none() {
            let help = Some("add `exec`, `webhook`, or both");
            self.findings
                .add(Code::MissingKey, span, "`on_alert` has no recipient", help);
        }
        let webhook = value(table.webhook);
        Some(OnAlert {
            exec: value(table.exec),
            timeout: table.timeout.value.0,
            webhook: webhook.and_then(|table| self.webhook(table)),
            limit: alert_limit(table.limit),
        })
    }

    fn webhook(&mut self, typed: WebhookTable) -> Option<Webhook> {
        let url = typed.url?.value;
        if let Some(ca) = typed.ca.as_ref().filter(|_| !url.is_secure()) {
            let message = "`ca` cannot be used with `http://`";
            let help = Some("remove it, or write https://");
            self.findings.add(Code::Conflict, ca.span, message, help);
        }
        Some(Webhook {
            url,
            secret_file: typed.secret_file?.value,
            ca: value(typed.ca),
            timeout: typed.timeout.value.0,
            deadline: typed.deadline.value.0,
        })
    }

    fn sandbox(&mut self, typed: SandboxTable) -> Sandbox {
        let writable = value(typed.writable).unwrap_or_default();
        for path in &writable {
            if !path.value.to_str().is_some_and(is_absolute) {
                let message = "a sandbox path must be absolute";
                let help = Some("write an absolute path: \"/srv/orders\"");
                self.findings
                    .add(Code::RelativePath, path.span, message, help);
            }
        }
        let capabilities = value(typed.capabilities).unwrap_or_default();
        Sandbox {
            writable: writable.into_iter().map(|path| path.value).collect(),
            capabilities: capabilities.into_iter().map(|name| name.value.0).collect(),
            jit: typed.jit.value,
            devices: typed.devices.value,
        }
    }

    fn http(&mut self, typed: HttpTable, name: &ServiceName) -> Option<Http> {
        let tls = value(typed.tls).and_then(|tls| {
            let (cert_path, key_path): (PathBuf, PathBuf) =
                (value(tls.cert_path)?, value(tls.key_path)?);
            Some(Tls {
                cert_path,
                key_path,
            })
        });
        let Spanned { value: port, span } = typed.port?;
        let port = port.0;
        if self.is_strict() && port < 1024 {
            let message = format!("port {port} is reserved for the system");
            let help = Some("choose one from 1024 to 65534");
            self.findings.add(Code::PortRange, span, message, help);
        }
        if let Some(other) = self.ports.insert(port, name.clone()) {
            let message = format!("port {port} is already used by the service `{other}`");
            let help = Some("give each service its own port");
            self.findings.add(Code::PortTaken, span, message, help);
        }
        Some(Http { port, tls })
    }
}

fn limits(typed: Option<LimitsTable>) -> Limits {
    let Some(typed) = typed else {
        return Limits::default();
    };
    let amount = |OrUnlimited(amount): OrUnlimited<Amount>| {
        amount.map_or(Limits::UNLIMITED, |Amount(amount)| amount)
    };
    let size =
        |OrUnlimited(size): OrUnlimited<Size>| size.map_or(Limits::UNLIMITED, |Size(size)| size);
    Limits {
        open_files: value(typed.open_files).map(amount),
        processes: value(typed.processes).map(amount),
        core_size: value(typed.core_size).map(|OrNone(core)| core.map_or(0, size)),
        locked_memory: value(typed.locked_memory).map(size),
    }
}

/// The default restart limit.
pub(super) const USUAL_LIMIT: RestartLimit = RestartLimit {
    restarts: 20,
    window: Duration::from_secs(15 * 60),
    then: BeyondLimit::Alert,
};

/// The default rate limit of alerts.
pub(super) const USUAL_ALERT_LIMIT: AlertLimit = AlertLimit {
    alerts: 10,
    window: Duration::from_secs(3600),
};

fn limit(typed: Option<Spanned<OrNone<LimitTable>>>) -> Option<RestartLimit> {
    match value(typed) {
        None => Some(USUAL_LIMIT),
        Some(OrNone(None)) => None,
        Some(OrNone(Some(limit))) => Some(RestartLimit {
            restarts: limit.restarts?.value.0,
            window: limit.window?.value.0,
            then: limit.then.value,
        }),
    }
}

fn alert_limit(typed: Option<Spanned<OrNone<AlertLimitTable>>>) -> Option<AlertLimit> {
    match value(typed) {
        None => Some(USUAL_ALERT_LIMIT),
        Some(OrNone(None)) => None,
        Some(OrNone(Some(limit))) => Some(AlertLimit {
            alerts: limit.alerts?.value.0,
            window: limit.window?.value.0,
        }),
    }
}

fn snapshot_keep(typed: OrTable<Count, SnapshotKeepTable>) -> SnapshotKeep {
    let table = match typed {
        OrTable::Single(Count(count)) => {
            return SnapshotKeep {
                count: Some(count),
                age: None,
            };
        }
        OrTable::Table(table) => table,
    };
    let age = value(table.age).map(|Time(age)| age);
    let count = value(table.count).map(|Count(count)| count);
    let Count(usual) = KEEP_SNAPSHOTS;
    SnapshotKeep {
        count: count.or_else(|| age.is_none().then_some(usual)),
        age,
    }
}

fn or_absent<T: Table>(typed: Option<Spanned<T>>) -> T {
    typed.map_or_else(T::absent, |typed| typed.value)
}

fn value<T>(typed: Option<Spanned<T>>) -> Option<T> {
    typed.map(|typed| typed.value)
}

fn span<T>(typed: &Option<Spanned<T>>) -> Option<Span> {
    typed.as_ref().map(|typed| typed.span)
}
