//! Specifications for property tests: every field with every kind of value.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use regex::bytes::Regex;

use crate::manifest::decode::FromText as _;
use crate::spec::redact::{Class, FieldPath, OwnPattern, RedactWith, Redaction};
use crate::spec::{
    Account, AlertLimit, Argv, Backoff, BeyondLimit, CodeAction, Compress, Encoding, Env,
    Environment, Every, Facility, HostPort, Http, HttpUrl, Level, Limits, Listen, Liveness,
    LogFormat, LogPolicy, Need, OnAlert, Owner, Policy, Priority, Probe, Ready, Recovery, Reload,
    RestartLimit, Retention, Rotation, Sandbox, Senders, ServiceName, Signal, SinkSpec, SinkTarget,
    SnapshotKeep, SnapshotPolicy, SnapshotWhen, Spec, Start, Still, Stop, StopAsk, StopScope,
    StopStep, Strategy as Retry, Streams, Tls, WaitFor, Webhook, WebhookUrl, Zone,
};

/// Returns the services of one manifest.
pub(in crate::manifest) fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let environments = [
        Environment::Production,
        Environment::Staging,
        Environment::Development,
    ];
    (select(environments.to_vec()), 1..4_u16).prop_flat_map(|(environment, count)| {
        let services: Vec<_> = (0..count).map(|number| spec(environment, number)).collect();
        services.prop_map(|mut specs| {
            let names = specs
                .iter()
                .map(|spec| (spec.name.clone(), spec.manager_name.clone()));
            let names: Vec<_> = names.collect();
            for spec in &mut specs {
                let known = names
                    .iter()
                    .filter(|(name, _)| spec.needed_services().any(|it| it == name));
                let known = known.filter_map(|(name, other)| Some((name.clone(), other.clone()?)));
                spec.need_names = known.collect();
            }
            specs
        })
    })
}

fn name(number: u16) -> ServiceName {
    ServiceName::new(&format!("s{number}")).expect("a name")
}

/// Printable text with what needs quotes or escapes.
fn line() -> impl Strategy<Value = String> {
    "[ -~äß漢]{0,12}[a-z'\"\\\\]"
}

fn path() -> impl Strategy<Value = PathBuf> {
    line().prop_map(PathBuf::from)
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1..100_000_u64).prop_map(Duration::from_millis),
        (1..1_000_000_000_000_u64).prop_map(Duration::from_micros),
        Just(Duration::from_secs(30)),
    ]
}

fn pause() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(Duration::ZERO), time()]
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        1..u64::MAX / 2,
        (1..1_000_u64).prop_map(|it| it * 1_000_000)
    ]
}

fn count() -> impl Strategy<Value = u32> {
    1..=1_000_000_u32
}

fn argv() -> impl Strategy<Value = Argv> {
    let words = (line(), vec("[^\u{0}]{0,8}", 0..3));
    words.prop_map(|(program, args)| {
        Argv::new(std::iter::once(program).chain(args).collect()).expect("a command")
    })
}

fn backoff() -> impl Strategy<Value = Backoff> {
    let factor = prop_oneof![Just(2.0), 1.0..=1000.0];
    (time(), factor, pause()).prop_map(|(base, factor, more)| Backoff {
        base,
        factor,
        max: base + more,
    })
}

fn probe() -> impl Strategy<Value = Probe> {
    let address = |port| HostPort {
        host: "::1".to_owned(),
        port,
    };
    let url = move |(port, path): (u16, String)| HttpUrl {
        address: address(port),
        path_and_query: format!("/{path}"),
    };
    prop_oneof![
        (1..u16::MAX, "[!-\"$-~]{0,9}").prop_map(move |it| Probe::Http(url(it))),
        (1..u16::MAX).prop_map(move |port| Probe::Tcp(address(port))),
        path().prop_map(Probe::Unix),
        argv().prop_map(Probe::Exec),
        path().prop_map(Probe::File),
    ]
}

fn ready() -> impl Strategy<Value = Ready> {
    prop_oneof![
        probe().prop_map(Ready::Probe),
        select(&["up", r"^\d+ 'ready'$", "\"up\""][..]).prop_map(|it| Ready::Log(it.to_owned())),
        select(&[Senders::Tree, Senders::All][..]).prop_map(Ready::Notify),
    ]
}

fn start() -> impl Strategy<Value = Start> {
    let owners = select(&[Owner::Service, Owner::Any][..]);
    (time(), option::of(ready()), owners).prop_map(|(timeout, ready, owner)| Start {
        timeout,
        owner: if ready.is_some() {
            owner
        } else {
            Owner::Service
        },
        ready,
    })
}

fn wait_for() -> impl Strategy<Value = WaitFor> {
    let strategy = prop_oneof![
        time().prop_map(|interval| Retry::Fixed { interval }),
        backoff().prop_map(Retry::Backoff),
        (time(), count()).prop_map(|(interval, passes)| Retry::Probe { interval, passes }),
    ];
    (probe(), strategy, time()).prop_map(|(probe, strategy, deadline)| WaitFor {
        probe,
        strategy,
        deadline,
    })
}

/// `start.ready` and a liveness check, which may have the same probe.
fn liveness() -> impl Strategy<Value = (Start, Option<Liveness>)> {
    let liveness = (probe(), time(), time(), count(), any::<bool>());
    (start(), option::of(liveness)).prop_map(|(start, liveness)| {
        let liveness = liveness.map(|(probe, every, timeout, misses, is_same)| {
            let probe = match &start.ready {
                Some(Ready::Probe(ready)) if is_same => ready.clone(),
                _ => probe,
            };
            Liveness {
                probe,
                every,
                timeout,
                misses,
            }
        });
        (start, liveness)
    })
}

fn signal() -> impl Strategy<Value = Signal> {
    select(&Signal::ALL[..])
}

fn stop() -> impl Strategy<Value = Stop> {
    let ask = prop_oneof![signal().prop_map(StopAsk::Signal), Just(StopAsk::Close)];
    let ladder = vec((ask, 0..2000_u64), 1..4).prop_map(|steps| {
        let mut after = Duration::ZERO;
        let steps = steps.into_iter().enumerate().map(|(number, (ask, more))| {
            if number > 0 {
                after += Duration::from_millis(more);
            }
            StopStep { ask, after }
        });
        steps.collect()
    });
    let after = Duration::ZERO;
    let usual = signal().prop_map(move |signal| {
        let asks = [StopAsk::Signal(signal), StopAsk::Close];
        asks.map(|ask| StopStep { ask, after }).into()
    });
    let scope = select(&[StopScope::Tree, StopScope::Main][..]);
    (pause(), prop_oneof![ladder, usual], scope).prop_map(|(more, ladder, scope)| Stop {
        graceful: Duration::from_secs(30) + more,
        ladder,
        scope,
    })
}

fn recovery() -> impl Strategy<Value = Recovery> {
    let limit = (
        count(),
        time(),
        select(&[BeyondLimit::Alert, BeyondLimit::Halt][..]),
    );
    let limit = limit.prop_map(|(restarts, window, then)| RestartLimit {
        restarts,
        window,
        then,
    });
    let usual = crate::manifest::resolve::USUAL_LIMIT;
    let limit = prop_oneof![Just(None), Just(Some(usual)), limit.prop_map(Some)];
    (
        select(&[Policy::Restart, Policy::Strict, Policy::Never][..]),
        backoff(),
        time(),
        limit,
        btree_map(any::<i32>(), select(&CodeAction::ALL[..]), 0..3),
    )
        .prop_map(|(policy, backoff, reset_after, limit, codes)| Recovery {
            policy,
            backoff,
            reset_after,
            limit,
            codes,
        })
}

fn snapshot() -> impl Strategy<Value = SnapshotPolicy> {
    let keep = prop_oneof![
        count().prop_map(|count| (Some(count), None)),
        time().prop_map(|age| (None, Some(age))),
        (count(), time()).prop_map(|(count, age)| (Some(count), Some(age))),
        Just((Some(5), None)),
    ];
    let still = prop_oneof![
        Just(Still::Nothing),
        Just(Still::Pause),
        (argv(), option::of(argv())).prop_map(|(quiesce, thaw)| Still::Commands { quiesce, thaw }),
    ];
    (
        subsequence(vec!["/a", "/b c", r"C:\d"], 0..3),
        keep,
        select(&[SnapshotWhen::Healthy, SnapshotWhen::Manual][..]),
        time(),
        option::of(time()),
        size(),
        still,
    )
        .prop_map(
            |(paths, (count, age), when, after, every, max_size, still)| SnapshotPolicy {
                paths: paths.into_iter().map(PathBuf::from).collect(),
                keep: SnapshotKeep { count, age },
                when,
                after,
                every,
                max_size,
                still,
            },
        )
}

fn on_alert() -> impl Strategy<Value = OnAlert> {
    let urls = [
        "https://hooks/T0/a?b='c'",
        "https://[::2]:1/",
        "https://hooks",
    ];
    let webhook = (
        select(urls.to_vec()),
        path(),
        option::of(path()),
        time(),
        time(),
    );
    let webhook = webhook.prop_map(|(url, secret_file, ca, timeout, deadline)| Webhook {
        url: WebhookUrl::from_text(url).ok().expect("a URL"),
        secret_file,
        ca,
        timeout,
        deadline,
    });
    let usual = crate::manifest::resolve::USUAL_ALERT_LIMIT;
    let limit = (count(), time()).prop_map(|(alerts, window)| AlertLimit { alerts, window });
    let limit = prop_oneof![Just(Some(usual)), Just(None), limit.prop_map(Some)];
    let timeout = prop_oneof![Just(Duration::from_secs(30)), time()];
    (
        option::of(argv()),
        argv(),
        timeout,
        option::of(webhook),
        limit,
    )
        .prop_map(|(exec, other, timeout, webhook, limit)| OnAlert {
            exec: exec.or_else(|| webhook.is_none().then_some(other)),
            timeout,
            webhook,
            limit,
        })
}

fn redaction() -> impl Strategy<Value = Redaction> {
    let patterns = vec![r"\d{4}'", "a\"b", "x"];
    (
        subsequence(Class::ALL.to_vec(), 0..4),
        subsequence(vec!["$.a.b", "$.c[*].d'", "$.e"], 0..3),
        subsequence(patterns, 0..3),
        select(&[RedactWith::Label, RedactWith::Hash][..]),
    )
        .prop_map(|(classes, fields, patterns, with)| {
            let mut redaction = Redaction::new(with);
            for class in classes {
                assert!(redaction.add_class(class).is_ok());
            }
            for field in fields {
                let field = FieldPath::new(field).expect("a path");
                assert!(redaction.add_field(field).is_ok());
            }
            for pattern in patterns {
                let regex = Regex::new(pattern).expect("an expression");
                let pattern = OwnPattern::new("own-name".to_owned(), regex);
                assert!(redaction.add_pattern(pattern).is_ok());
            }
            redaction
        })
}

fn sinks(number: u16) -> impl Strategy<Value = Vec<SinkSpec>> {
    let address = move || HostPort {
        host: format!("host{number}"),
        port: 514,
    };
    // A connection is shared by all services that use its target.
    let targets = vec![
        SinkTarget::Journald(SinkTarget::JOURNALD_SOCKET.into()),
        SinkTarget::Journald("/run/journal".into()),
        SinkTarget::Unix(SinkTarget::SYSLOG_SOCKET.into()),
        SinkTarget::Unix("/run/log".into()),
        SinkTarget::Udp(address()),
        SinkTarget::Tcp(address()),
        SinkTarget::Tls(address()),
    ];
    let facility = (1..24_u8).prop_filter_map("a number", Facility::from_number);
    let settings = (facility, option::of(path()), option::of((path(), path())));
    let settings = (settings, 1_000_000..u64::MAX / 2, any::<bool>());
    (subsequence(targets, 0..4), vec(settings, 4)).prop_map(|(targets, settings)| {
        let sinks = targets.into_iter().zip(settings);
        let sinks = sinks.map(|(target, ((facility, ca, identity), spool, is_usual))| {
            let is_tls = matches!(target, SinkTarget::Tls(_));
            let is_usual = is_usual || !target.is_remote();
            let identity = identity.filter(|_| is_tls);
            SinkSpec {
                target,
                facility,
                ca: ca.filter(|_| is_tls),
                identity: identity.map(|(cert_path, key_path)| Tls {
                    cert_path,
                    key_path,
                }),
                spool: if is_usual { 64_000_000 } else { spool },
            }
        });
        sinks.collect()
    })
}

fn rotation() -> impl Strategy<Value = Rotation> {
    let every = (
        select(&[Every::Hourly, Every::Daily][..]),
        select(&[Zone::Utc, Zone::Local][..]),
    );
    let usual = prop_oneof![size(), Just(10_000_000)];
    (option::of(usual), option::of(every), any::<bool>()).prop_map(|(size, every, at_start)| {
        Rotation {
            size,
            every,
            at_start,
        }
    })
}

fn retention() -> impl Strategy<Value = Retention> {
    let keep = (option::of(count()), option::of(size()), option::of(time()));
    keep.prop_map(|(files, size, age)| match (size, age) {
        (None, None) => Retention {
            files: files.or(Some(8)),
            ..Retention::default()
        },
        _ => Retention { files, size, age },
    })
}

fn log(environment: Environment, number: u16) -> impl Strategy<Value = LogPolicy> {
    let levels: &[Level] = match environment {
        Environment::Production => &[Level::Warn, Level::Error],
        Environment::Staging => &[Level::Info, Level::Warn, Level::Error],
        Environment::Development => &[Level::Trace, Level::Debug, Level::Warn],
    };
    (
        select(levels),
        rotation(),
        retention(),
        select(&[Compress::None, Compress::Zstd, Compress::Gzip][..]),
        (
            select(&[LogFormat::Raw, LogFormat::Text, LogFormat::Json][..]),
            select(&[Encoding::Utf8, Encoding::Utf16Le, Encoding::Latin1][..]),
        ),
        select(&[Streams::Merged, Streams::Split][..]),
        any::<bool>(),
        redaction(),
        sinks(number),
    )
        .prop_map(
            |(
                level,
                rotate,
                keep,
                compress,
                (format, encoding),
                streams,
                filter,
                redact,
                sinks,
            )| LogPolicy {
                // The raw format keeps bytes that these cannot read.
                encoding: if format == LogFormat::Raw && (filter || !redact.is_empty()) {
                    Encoding::Utf8
                } else {
                    encoding
                },
                level,
                rotate,
                keep,
                compress,
                format,
                streams,
                filter,
                redact,
                sinks,
            },
        )
}

fn limits() -> impl Strategy<Value = Limits> {
    let amount = || option::of(prop_oneof![Just(Limits::UNLIMITED), 1..i64::MAX as u64]);
    let bytes = || prop_oneof![Just(Limits::UNLIMITED), size()];
    let core = option::of(prop_oneof![Just(0), bytes()]);
    (amount(), amount(), core, option::of(bytes())).prop_map(
        |(open_files, processes, core_size, locked_memory)| Limits {
            open_files,
            processes,
            core_size,
            locked_memory,
        },
    )
}

fn sandbox() -> impl Strategy<Value = Sandbox> {
    (
        vec("/[ -~]{0,8}".prop_map(PathBuf::from), 0..3),
        subsequence(vec!["CAP_CHOWN", "CAP_NET_BIND_SERVICE"], 0..=2),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(writable, capabilities, jit, devices)| Sandbox {
            writable,
            capabilities: capabilities.into_iter().map(str::to_owned).collect(),
            jit,
            devices,
        })
}

fn account() -> impl Strategy<Value = Account> {
    select(vec![
        Account::LocalSystem,
        Account::LocalService,
        Account::NetworkService,
        Account::Virtual,
        Account::Dynamic,
        Account::User("orders".to_owned()),
        Account::Gmsa(r"DOMAIN\orders$".to_owned()),
    ])
}

fn listen(number: u16) -> impl Strategy<Value = Vec<Listen>> {
    let tcp = |host: &str| {
        Listen::Tcp(HostPort {
            host: host.to_owned(),
            port: 3000 + number,
        })
    };
    let unix = Listen::Unix(format!("/run/'a\n{number}").into());
    subsequence(vec![tcp("::"), tcp("127.0.0.1"), unix], 0..=3)
}

fn needs(number: u16) -> impl Strategy<Value = Vec<Need>> {
    let mut known: Vec<Need> = (0..number).map(name).map(Need::Service).collect();
    known.push(Need::Os("postgresql".to_owned()));
    let most = known.len();
    subsequence(known, 0..=most)
}

type Texts = (
    Option<String>,
    Option<String>,
    bool,
    Option<PathBuf>,
    BTreeMap<String, String>,
    Option<PathBuf>,
    Vec<String>,
);

fn texts() -> impl Strategy<Value = Texts> {
    (
        option::of(line()),
        option::of(line()),
        any::<bool>(),
        option::of(path()),
        btree_map("[^=\u{0}]{1,6}", "[^\u{0}]{0,12}", 0..3),
        option::of(path()),
        vec("[A-Z_ä]{1,6}", 0..3),
    )
}

fn spec(environment: Environment, number: u16) -> impl Strategy<Value = Spec> {
    let priorities = [
        Priority::Low,
        Priority::BelowNormal,
        Priority::Normal,
        Priority::AboveNormal,
        Priority::High,
    ];
    let machine = (
        option::of(select(priorities.to_vec())),
        vec(0..=1023_u16, 0..3),
        limits(),
        option::of(sandbox()),
        option::of(account()),
        needs(number),
        listen(number),
    );
    let reload = prop_oneof![
        signal().prop_map(Reload::Signal),
        argv().prop_map(Reload::Exec)
    ];
    let life = (
        liveness(),
        vec(wait_for(), 0..3),
        stop(),
        option::of(reload),
        recovery(),
        option::of(snapshot()),
        option::of(on_alert()),
    );
    let tls = option::of((path(), path()));
    let ends = (log(environment, number), option::of(tls));
    (texts(), argv(), machine, life, ends).prop_map(
        move |(texts, command, machine, life, (log, http))| {
            let (description, display_name, is_named, working_dir, env, env_file, inherit_env) =
                texts;
            let (priority, cpus, limits, sandbox, account, needs, listen) = machine;
            let ((start, liveness), wait_for, stop, reload, recovery, snapshot, on_alert) = life;
            Spec {
                name: name(number),
                environment,
                description,
                display_name,
                manager_name: is_named.then(|| format!("Own 'Name' {number}")),
                command,
                working_dir,
                env: Env(env),
                env_file,
                inherit_env,
                priority,
                cpus,
                limits,
                sandbox,
                account,
                needs,
                need_names: BTreeMap::new(),
                listen,
                start,
                wait_for,
                liveness,
                stop,
                reload,
                recovery,
                snapshot,
                on_alert,
                log,
                http: http.map(|tls| Http {
                    port: 2000 + number,
                    tls: tls.map(|(cert_path, key_path)| Tls {
                        cert_path,
                        key_path,
                    }),
                }),
            }
        },
    )
}
