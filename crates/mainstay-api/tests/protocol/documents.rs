//! Samples of every document of the protocol. Structures are written out field by field: a new
//! field does not compile until the samples have it.

use std::time::Duration;

use mainstay_api::{
    About, Done, Event, GivenUp, Healthy, Mistake, Mistakes, Refusal, Taken, TrialRequest,
};
use mainstay_core::engine::{
    Blocker, Ended, Exit, Fact, Halt, KillReason, News, Operation, Outcome, Principal, Request,
    RolloutRole, StateName, Style, TrialFailure, TrialPhase, Versions,
};
use mainstay_core::events::LastEvent;
use mainstay_core::failure::Code;
use mainstay_core::manifest::Format;
use mainstay_core::registry::TextDigest;
use mainstay_core::report::{
    LastExit, ServiceReport, StatusReport, SupervisorReport, UpdateReport,
};
use mainstay_core::snapshot::{Reason, SnapshotId};
use mainstay_core::spec::ServiceName;
use mainstay_core::trace::TraceContext;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// One type of document.
pub(crate) struct Document {
    pub(crate) name: &'static str,
    /// Documents that together have every field, and lack every field that may be absent.
    pub(crate) samples: Vec<Value>,
    /// Parses a document into its type and serialises it again. `None` for events: they are passed
    /// on as they are.
    pub(crate) read: Option<fn(&Value) -> serde_json::Result<Value>>,
}

impl Document {
    fn new<T: Serialize + DeserializeOwned>(name: &'static str, samples: &[T]) -> Self {
        Self {
            name,
            samples: values(samples),
            read: Some(|value| serde_json::to_value(T::deserialize(value)?)),
        }
    }
}

fn values(samples: &[impl Serialize]) -> Vec<Value> {
    let values = samples.iter().map(serde_json::to_value);
    values.collect::<Result<_, _>>().expect("JSON")
}

/// Returns every type of document.
pub(crate) fn all() -> Vec<Document> {
    vec![
        Document::new("about", &[about()]),
        Document::new("status", &[status(), StatusReport::default()]),
        Document::new("service", &[service(), ServiceReport::embedded("orders")]),
        Document::new("done", &[Done {}]),
        Document::new(
            "taken",
            &[Taken {
                snapshot: snapshot(),
            }],
        ),
        Document::new("refusal", &refusals()),
        Document::new("trial-request", &trial_requests()),
        Document::new("healthy", &healthy()),
        Document::new("given-up", &given_up()),
        Document::new("mistakes", &[mistakes()]),
        Document {
            name: "event",
            samples: events(),
            read: None,
        },
    ]
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("a name")
}

fn snapshot() -> SnapshotId {
    "20261122T101112.123456Z".parse().expect("an ID")
}

fn about() -> About {
    About {
        containment: "cgroup".to_owned(),
        manifest: "/etc/orders.toml".to_owned(),
        pid: 811,
        version: "0.1.0".to_owned(),
    }
}

fn status() -> StatusReport {
    let supervisor = |problem: Option<&str>| SupervisorReport {
        pid: 811,
        alive: problem.is_none(),
        problem: problem.map(str::to_owned),
        replaced: problem.map(|_| "it runs from a file that has been replaced".to_owned()),
    };
    StatusReport {
        supervisor: Some(supervisor(Some("cannot write the ledger"))),
        services: vec![service()],
    }
}

fn service() -> ServiceReport {
    ServiceReport {
        name: "orders".to_owned(),
        state: StateName::BackingOff,
        pid: Some(812),
        ready: true,
        since: Some("2026-11-22T10:11:12.123Z".to_owned()),
        since_seconds: Some(42),
        restarts: 1,
        last_exit: Some(LastExit {
            code: Some(1),
            signal: None,
        }),
        restored: Some(snapshot()),
        completed: Some(false),
        manager: "embedded".to_owned(),
        mode: "embedded".to_owned(),
        version: Some(3),
        etag: Some("5f3c".to_owned()),
        definition_digest: Some(TextDigest::of("", Format::Toml, "/", None)),
        drift: Some(vec!["its program has changed".to_owned()]),
        replaced: vec!["its program runs from a file that has been replaced".to_owned()],
        crash_looping: true,
        next_try: Some("2026-11-22T10:11:17.123Z".to_owned()),
        next_try_seconds: Some(5),
        detail: Some("exit code 1".to_owned()),
        blocker: Some(Blocker {
            name: "db".to_owned(),
            state: StateName::BackingOff,
            has_run: true,
        }),
        last_event: Some(LastEvent {
            time: "2026-11-22T10:11:12.123Z".to_owned(),
            event: "failed".to_owned(),
            message: "failed: exit code 1".to_owned(),
            is_unseen: false,
        }),
        start_code: Some(Code::MissingPart as u8),
        log_problem: Some("the disk is full".to_owned()),
        state_problem: Some("cannot write desired.json".to_owned()),
        cpu_ms: Some(1200),
        run_ms: Some(42_500),
        memory_bytes: Some(4_194_304),
        needed_by: vec!["shop".to_owned()],
        update: Some(UpdateReport {
            phase: TrialPhase::Canary,
            style: Style::Overlap,
            state: StateName::Running,
            pid: Some(813),
        }),
    }
}

fn refusals() -> Vec<Refusal> {
    let refusal = Refusal::new(Code::Failed, "superseded by a stop");
    let hinted = Refusal {
        code: Some(Code::MissingPart as u8),
        name: Some(Code::MissingPart.name().to_owned()),
        error: "cannot start orders: no file /opt/orders".to_owned(),
        hint: Some("install it".to_owned()),
        cause: vec!["no file /opt/orders".to_owned()],
    };
    vec![hinted, refusal]
}

fn trial_requests() -> Vec<TrialRequest> {
    let request = |version| TrialRequest {
        manifest: "[service.orders]\ncommand = [\"orders\"]\n".to_owned(),
        format: "toml".to_owned(),
        base_dir: "/etc".into(),
        canary_ms: 30_000,
        version,
        from_version: version.map(|version| version - 1),
    };
    vec![request(Some(4)), request(None)]
}

fn healthy() -> Vec<Healthy> {
    [service(), ServiceReport::embedded("orders")]
        .map(Healthy::new)
        .into()
}

fn given_up() -> Vec<GivenUp> {
    let style = |style| GivenUp {
        style,
        ..GivenUp::new(
            TrialPhase::Ready,
            "exit code 1",
            vec!["panicked".to_owned()],
        )
    };
    vec![style(Some(Style::Restart)), style(None)]
}

fn mistakes() -> Mistakes {
    let mistake = |help: Option<&str>| Mistake {
        code: "unknown-key".to_owned(),
        path: "service.orders.comand".to_owned(),
        message: "unknown key `comand`".to_owned(),
        help: help.map(str::to_owned),
        line: 2,
        column: 1,
    };
    Mistakes {
        refusal: Refusal::new(Code::InvalidManifest, "the manifest has 2 errors"),
        mistakes: vec![mistake(Some("did you mean `command`?")), mistake(None)],
    }
}

/// Returns one event of each kind, with every cause.
fn events() -> Vec<Value> {
    let facts = facts();
    let event = |(number, fact): (usize, &Fact)| {
        let role = match number {
            0 => Some(RolloutRole::Candidate),
            1 => Some(RolloutRole::Predecessor),
            _ => None,
        };
        let mut event = Event::new("2026-11-22T10:11:12.123Z", ("orders", role), fact);
        event.sequence = (number > 0).then_some(number as u64);
        serde_json::to_value(event).expect("JSON")
    };
    facts.iter().enumerate().map(event).collect()
}

fn causes() -> Vec<Ended> {
    let last = || Some("connection refused".to_owned());
    let after = Duration::from_millis(1500);
    let probe = || "tcp 127.0.0.1:5432".to_owned();
    vec![
        Ended::Exit(Exit::Code(1)),
        Ended::Exit(Exit::Signal(9)),
        Ended::Exit(Exit::Unknown),
        Ended::SpawnFailed("no file".to_owned()),
        Ended::Unstartable("not executable".to_owned()),
        Ended::Backgrounded {
            hint: "use --foreground".to_owned(),
        },
        Ended::NotReady {
            after,
            last: last(),
        },
        Ended::NotReady { after, last: None },
        Ended::ConditionMissed {
            probe: probe(),
            last: last(),
        },
        Ended::LivenessLost {
            misses: 3,
            last: "timed out".to_owned(),
        },
    ]
}

fn halts() -> Vec<Halt> {
    let why = || "no stable snapshot is left".to_owned();
    let last = Ended::Exit(Exit::Code(7));
    let window = Duration::from_secs(900);
    vec![
        Halt::Policy(last.clone()),
        Halt::TooManyRestarts {
            limit: 20,
            window,
            last,
        },
        Halt::RetriesExhausted { tries: 5 },
        Halt::NotRestored { why: why() },
        Halt::Need(name("db")),
        Halt::NeedEnded(name("db")),
        Halt::Unstartable { why: why() },
        Halt::Backgrounded { hint: why() },
        Halt::Inherited { why: why() },
        Halt::Unkillable { after: window },
    ]
}

fn failures() -> Vec<TrialFailure> {
    vec![
        TrialFailure::Failed(Ended::Exit(Exit::Code(1))),
        TrialFailure::Need(name("db")),
        TrialFailure::NeedsLate {
            after: Duration::from_secs(60),
        },
        TrialFailure::Remains,
        TrialFailure::NotKept("the disk is full".to_owned()),
        TrialFailure::Misfit("it needs itself".to_owned()),
        TrialFailure::Stopped,
        TrialFailure::Aborted,
        TrialFailure::NotCommitted,
    ]
}

fn facts() -> Vec<Fact> {
    let phase = TrialPhase::Canary;
    let kills = [
        KillReason::GraceOver,
        KillReason::Remains,
        KillReason::Requested,
    ];
    let outcomes = [Outcome::New, Outcome::Completed, Outcome::Requested];
    let causes = causes().into_iter();
    let halts = halts().into_iter();
    let failures = failures().into_iter();
    let others = runs().into_iter().chain(recoveries()).chain(snapshots());
    others
        .chain(kills.map(|why| Fact::Killing { why }))
        .chain(outcomes.map(|outcome| Fact::Stopped { outcome }))
        .chain(causes.map(|why| Fact::Failed {
            why,
            news: News::Alert,
        }))
        .chain(halts.map(|why| Fact::Halted { why }))
        .chain(failures.map(|why| Fact::RolledBack {
            phase,
            why,
            versions: None,
        }))
        .chain(requests())
        .chain([1, 2].map(|misses| Fact::Passed { misses }))
        .chain(later())
        .collect()
}

fn requests() -> [Fact; 3] {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    [
        Fact::Requested {
            operation: Operation::Request(Request::Stop),
            principal: Principal::Local {
                user: Some("alice".to_owned()),
                pid: Some(4711),
            },
            trace: None,
        },
        Fact::Requested {
            operation: Operation::Reload,
            principal: Principal::Manager,
            trace: None,
        },
        Fact::Requested {
            operation: Operation::Update,
            principal: Principal::Local {
                user: None,
                pid: None,
            },
            trace: TraceContext::parse(parent, None),
        },
    ]
}

fn runs() -> Vec<Fact> {
    let (is_ready, pid, restarts) = (true, 812, 1);
    let after = Duration::from_millis(1500);
    vec![
        Fact::Started {
            pid,
            restarts,
            is_ready,
        },
        Fact::Adopted {
            pid,
            restarts,
            is_ready,
        },
        Fact::Waiting {
            on: vec![name("db")],
        },
        Fact::WaitingFor {
            probe: "tcp 127.0.0.1:5432".to_owned(),
        },
        Fact::Ready { after },
        Fact::Status {
            text: "warming up".to_owned(),
        },
        Fact::Exited {
            exit: Exit::Code(1),
            after,
            is_unseen: false,
            is_requested: false,
        },
        Fact::Stopping { graceful: after },
        Fact::StillNeeded {
            by: vec![name("shop")],
        },
        Fact::Paused,
        Fact::Continued,
        Fact::PauseFailed { why: why() },
        Fact::Updating {
            style: Some(Style::Restart),
            versions: None,
        },
        Fact::Trial { is_tried: true },
        Fact::Updated {
            is_tried: true,
            versions: None,
        },
    ]
}

/// Returns the events that the version before did not know.
fn later() -> [Fact; 5] {
    let versions = Some(Versions { from: 2, to: 3 });
    [
        Fact::Exited {
            exit: Exit::Signal(15),
            after: Duration::from_secs(1),
            is_unseen: false,
            is_requested: true,
        },
        Fact::Updating {
            style: None,
            versions,
        },
        Fact::Trial { is_tried: false },
        Fact::Updated {
            is_tried: false,
            versions,
        },
        Fact::RolledBack {
            phase: TrialPhase::Canary,
            why: TrialFailure::Aborted,
            versions,
        },
    ]
}

fn recoveries() -> Vec<Fact> {
    let window = Duration::from_secs(900);
    vec![
        Fact::Missed {
            misses: 1,
            of: 3,
            why: why(),
        },
        Fact::CrashLooping {
            limit: 20,
            window,
            lasts: Duration::ZERO,
            last: Ended::Exit(Exit::Code(7)),
        },
        Fact::Recovered { after: window },
        Fact::BackingOff {
            pause: window,
            attempt: 1,
        },
    ]
}

fn snapshots() -> Vec<Fact> {
    let (snapshot, reason) = (snapshot(), Reason::Manual);
    let before = Some(snapshot);
    vec![
        Fact::Restoring { before },
        Fact::Restoring { before: None },
        Fact::Restored { snapshot },
        Fact::Snapshotting { reason },
        Fact::SnapshotTaken { snapshot },
        Fact::SnapshotUnneeded,
        Fact::SnapshotAbandoned,
        Fact::SnapshotFailed { why: why() },
    ]
}

fn why() -> String {
    "connection refused".to_owned()
}
