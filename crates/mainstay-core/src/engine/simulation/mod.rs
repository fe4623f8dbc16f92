//! Simulation: random services on a random host, checked against a model that shares nothing with
//! the engine's internals.
//!
//! One seed is one episode: a graph of specs, a host that answers late, twice, never or out of
//! order, and operators who send any request at any time. Services are added, redefined and
//! removed. Now and then the host is killed, and a new engine resumes from the checkpoints of the
//! old one. At the end everything is stopped or killed on a well-behaved host. The [`Account`] of
//! each service is derived from events and actions alone. All services are checked after every
//! event. A failing seed prints the command that replays it.

/// Ends a check with the reason, unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err(format!($($why)+));
        }
    };
}

mod effects;
mod faults;
mod invariants;
mod requests;
mod specs;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::mem::{Discriminant, discriminant};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Random;
use super::contract::RETRY_LIMIT;
use super::*;
use crate::snapshot::SnapshotId;
use crate::spec::{
    Argv, Backoff, BeyondLimit, CodeAction, Compress, Env, Environment, Limits, Liveness,
    LogPolicy, Need, Policy, Probe, Ready, Recovery, RestartLimit, Retention, Rotation, Senders,
    Signal, SnapshotKeep, SnapshotPolicy, SnapshotWhen, Start, Still, Stop, StopAsk, StopScope,
    StopStep, Strategy, WaitFor,
};
pub(super) use specs::spec;
use specs::{below, chance, has_circle};

/// The number of steps in an episode before everything is stopped.
const STEPS: usize = 600;
/// The maximum number of services at once.
const MOST: usize = 9;
/// An index that no service has.
const GONE: usize = usize::MAX;
/// The engine's time limit for killed processes, and the limit for extensions.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_EXTENSION: u32 = 10;
/// The time limit for the children of a main process that exited with 0 to exit as well.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// The interval at which a crash loop is reported.
const REMINDER: Duration = Duration::from_secs(3600);
/// The time after its timeout for which an answer still counts.
const ANSWER_GRACE: Duration = Duration::from_secs(1);
/// The time limit for a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

impl ServiceId {
    /// The index of this service among all services that ever existed.
    fn index(self) -> usize {
        self.0 as usize
    }
}

fn sid(index: usize) -> ServiceId {
    ServiceId(index as u64)
}

type Check = Result<(), String>;

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a replay is asked for by variable; the speed is measured"
)]
fn whatever_happens_what_must_hold_holds() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    if let Some(seed) = number("MAINSTAY_SIM_SEED") {
        return replay(seed);
    }
    let wanted = number("MAINSTAY_SIM_EVENTS").unwrap_or(1_000_000);
    let (began, mut events, mut seed) = (std::time::Instant::now(), 0, 0);
    let mut seen = HashSet::new();
    while events < wanted {
        seed += 1;
        let mut world = World::new(seed, false);
        match catch_unwind(AssertUnwindSafe(|| world.live())) {
            Ok(Ok(())) => events += world.events,
            _ => replay(seed),
        }
        seen.extend(world.seen);
    }
    let (facts, halts) = (31, 10);
    assert_eq!(
        seen.len(),
        facts + halts,
        "some kinds of facts or halts never happened"
    );
    let rate = events as f64 / began.elapsed().as_secs_f64();
    println!("{events} events in {seed} episodes, {rate:.0} events/s");
}

/// Runs one episode again and prints what happens.
fn replay(seed: u64) {
    let mut world = World::new(seed, true);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.live()));
    let transcript = world.transcript.unwrap();
    for line in &transcript[transcript.len().saturating_sub(60)..] {
        println!("{line}");
    }
    let why = match outcome {
        Ok(Ok(())) => return println!("seed {seed} holds"),
        Ok(Err(why)) => why,
        Err(_) => "the engine panicked".to_owned(),
    };
    panic!("{why}\nreplay: MAINSTAY_SIM_SEED={seed} cargo test -p mainstay-core what_must_hold");
}

/// The cause of the end of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cause {
    Exit(Exit),
    /// The program could not be started, was not ready or not live in time, or a condition did not
    /// pass.
    Other,
    /// A failure that another attempt cannot fix.
    Lasting,
}

/// The contract of the design, restated with one row per line.
fn contract(recovery: &Recovery, cause: Cause) -> CodeAction {
    if cause == Cause::Lasting {
        return CodeAction::Halt;
    }
    let (code, is_exit) = match cause {
        Cause::Exit(Exit::Code(code)) => (code, true),
        Cause::Exit(Exit::Signal(signal)) => (128 + signal, false),
        _ => (-1, false),
    };
    if let Some(action) = u8::try_from(code)
        .ok()
        .and_then(|code| recovery.codes.get(&code.into()))
    {
        return *action;
    }
    match (if is_exit { code } else { -1 }, recovery.policy) {
        (0, _) => CodeAction::Stop,
        (_, Policy::Never) => CodeAction::Halt,
        (201, _) => CodeAction::Restore,
        (202, _) => CodeAction::Retry,
        (_, Policy::Strict) => CodeAction::Halt,
        (_, Policy::Restart) => CodeAction::Restart,
    }
}

/// The model of one service: its processes on the host, and the obligations of the engine that
/// follow from its history.
#[derive(Debug, Default)]
struct Account {
    run: Option<Run>,
    last_run: u64,
    /// Set if operators want it down.
    is_unwanted: bool,
    /// Set while a candidate is tried in its place.
    is_displaced: bool,
    /// The role of a candidate or a superseded service.
    role: Option<RolloutRole>,
    /// Set if the last run was ready and ended cleanly by itself.
    is_done: bool,
    /// Set if the service is halted for a need.
    is_hung_up: bool,
    cause: Option<Cause>,
    question: Option<(Token, Option<RunId>, Instant)>,
    line: Option<Token>,
    restore: Option<Token>,
    /// Set if a restore is due as soon as no snapshot is in progress.
    is_to_restore: bool,
    /// Set if the requested restore was cancelled.
    is_called_off: bool,
    /// The snapshots restored so far.
    restored: Vec<SnapshotId>,
    /// The snapshot in progress, and its deadline.
    snapshot: Option<(Token, Instant)>,
    /// A cancelled snapshot.
    abandoned: Option<Token>,
    old_tokens: Vec<Token>,
    not_before: Instant,
    restarts: u64,
    retries: u32,
    recent: Vec<Instant>,
    /// Set while the service is crash-looping; `looped_at` is the time of the last report.
    is_looping: bool,
    looped_at: Instant,
    /// The definition that takes effect once nothing of the service runs.
    next: Option<Spec>,
    /// The definition in effect at the end of the last run, until that has been checked.
    classified_as: Option<Arc<Spec>>,
    /// Set if the service was removed.
    is_gone: bool,
}

/// A process tree on the host, from [`Action::Spawn`] until none of its processes are left.
#[derive(Debug)]
struct Run {
    id: RunId,
    began: Instant,
    start_by: Instant,
    pid: Option<u32>,
    has_evidence: bool,
    exited: bool,
    exited_at: Instant,
    lingers_until: Instant,
    frozen: bool,
    asked: bool,
    /// The start of the stop, and the number of stop steps taken.
    climb: (Instant, usize),
    /// The time of the kill, once a stop was requested.
    kill_at: Instant,
    killed: bool,
    /// Set if an operator requested a fresh start before the run was gone.
    starts_again: bool,
    is_unkillable: bool,
    /// The number of the event that set the last deadline.
    dated: u64,
}

impl Run {
    /// Returns whether the restart waits until dependents are down.
    fn is_restart_due(&self) -> bool {
        self.starts_again && !(self.exited || self.asked || self.killed)
    }

    /// Returns whether the run was ready. Evidence counts only once there is a child.
    fn was_ready(&self) -> bool {
        self.has_evidence && self.pid.is_some()
    }
}

impl Account {
    /// Extends the deadlines after a time in which the host did not run.
    fn postpone(&mut self, now: Instant) {
        let (soon, answered) = (now + ANSWER_GRACE, now + ANSWER_TIMEOUT);
        if let Some(run) = &mut self.run {
            run.start_by = run.start_by.max(answered);
            run.kill_at = run.kill_at.max(soon);
            run.lingers_until = run.lingers_until.max(soon);
        }
        if let Some((_, by)) = &mut self.snapshot {
            *by = (*by).max(soon);
        }
    }

    fn unwanted(&self) -> bool {
        self.is_unwanted || self.is_displaced
    }

    fn is_active(&self) -> bool {
        !self.is_gone && self.role.is_none()
    }
}

struct World {
    /// The candidate of each service on trial, by the service's index, and whether it was started.
    trials: BTreeMap<usize, (usize, bool)>,
    random: Random,
    now: Instant,
    specs: Vec<Arc<Spec>>,
    /// The number in the name of each service.
    numbers: Vec<usize>,
    needs: Vec<Vec<usize>>,
    engine: Engine,
    accounts: Vec<Account>,
    /// The events that the host will observe.
    coming: Vec<(Instant, Event)>,
    behaves: bool,
    shutting_down: bool,
    events: u64,
    pids: u32,
    transcript: Option<Vec<String>>,
    /// The kinds of facts and halts reported so far.
    seen: HashSet<(Discriminant<Fact>, Option<Discriminant<Halt>>)>,
    // The current event:
    ticked: bool,
    killing: bool,
    failed: Vec<usize>,
    requested: Vec<usize>,
    restored: bool,
    gone: Vec<(usize, Run)>,
    /// The services that were being stopped when the host was killed.
    goes_on_stopping: Vec<usize>,
}

impl World {
    fn new(seed: u64, tells: bool) -> Self {
        let mut random = Random::new(seed);
        let n = 1 + below(&mut random, 7);
        // Needs point at higher ranks, so there is no cycle. Ranks differ from the order of the
        // list.
        let mut rank: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            rank.swap(i, below(&mut random, i + 1));
        }
        let density = [0.0, 0.2, 0.5, 0.9][below(&mut random, 4)];
        let needs: Vec<Vec<usize>> = (0..n)
            .map(|i| {
                (0..n)
                    .filter(|&j| rank[j] > rank[i] && chance(&mut random, density))
                    .collect()
            })
            .collect();
        let specs: Vec<Arc<Spec>> = needs
            .iter()
            .enumerate()
            .map(|(i, needs)| Arc::new(spec(i, needs, &mut random)))
            .collect();
        Self {
            engine: Engine::new(specs.iter().cloned(), seed).unwrap(),
            accounts: (0..n)
                .map(|_| Account {
                    is_unwanted: true,
                    ..Account::default()
                })
                .collect(),
            random,
            trials: BTreeMap::new(),
            now: Instant::ZERO,
            specs,
            numbers: (0..n).collect(),
            needs,
            coming: Vec::new(),
            behaves: false,
            shutting_down: false,
            events: 0,
            pids: 0,
            transcript: tells.then(Vec::new),
            seen: HashSet::new(),
            ticked: false,
            killing: false,
            failed: Vec::new(),
            requested: Vec::new(),
            restored: false,
            gone: Vec::new(),
            goes_on_stopping: Vec::new(),
        }
    }

    /// Runs one episode.
    fn live(&mut self) -> Check {
        if self.transcript.is_some() {
            for spec in &self.specs.clone() {
                self.note(|| format!("{spec:?}"));
            }
        }
        if self.chance(0.8) {
            let actions = self.engine.start_all(self.now);
            self.note(|| "start all".to_owned());
            for account in &mut self.accounts {
                account.is_unwanted = false;
            }
            self.performed(actions)?;
        }
        for _ in 0..STEPS {
            self.something_happens()?;
            if self.chance(0.01) {
                self.host_is_killed()?;
            }
        }
        self.end()
    }

    fn something_happens(&mut self) -> Check {
        if self.specs.is_empty() {
            return self.define();
        }
        // Late events for removed services must not change anything either.
        let present = self.present();
        let i = if present.is_empty() || self.chance(0.1) {
            self.below(self.specs.len())
        } else {
            present[self.below(present.len())]
        };
        let run = self.accounts[i].run.as_ref().map(|run| run.id);
        let id = sid(i);
        match self.below(100) {
            28 => self.define(),
            29 => self.remove(i),
            30 | 31 => self.try_out(i),
            32..35 => self.decide(),
            0..9 if !self.accounts[i].is_active() => self.nonsense(i),
            0..9 => self.request(i),
            9..12 => self.deliver(Event::Tick),
            12 => self.deliver(Event::Late),
            13..16 => {
                let Some(run) = run else { return Ok(()) };
                let exit = self.exit(i);
                self.deliver(Event::Exited(id, run, exit))
            }
            16..20 => {
                let Some(run) = run else { return Ok(()) };
                let by = Duration::from_millis([0, 500, 20_000, u64::MAX][self.below(4)]);
                let notice = [
                    Notice::Ready,
                    Notice::Status("busy".into()),
                    Notice::ExtendTimeout(by),
                ];
                let notice = notice[self.below(3)].clone();
                self.deliver(Event::Notified(id, run, notice))
            }
            20..24 => self.nonsense(i),
            24..27 if !self.coming.is_empty() => {
                let at = self.below(self.coming.len());
                let (_, event) = self.coming.swap_remove(at);
                self.deliver(event)
            }
            27 => {
                let jump = [100, 5_000, 60_000, 4 * 3_600_000][self.below(4)];
                self.now = self.now + Duration::from_millis(jump);
                Ok(())
            }
            _ => self.time_passes(),
        }
    }

    fn unasked(&mut self) -> Unasked {
        if self.chance(0.5) {
            Unasked::Lacking("too many files".into())
        } else {
            Unasked::Delayed
        }
    }

    /// Advances to the next event or deadline.
    fn time_passes(&mut self) -> Check {
        let next = (0..self.coming.len()).min_by_key(|&i| self.coming[i].0);
        let wake = self.engine.deadline();
        match next.map(|i| (i, self.coming[i].0)) {
            Some((i, at)) if wake.is_none_or(|wake| at <= wake) => {
                self.now = self.now.max(at);
                let (_, event) = self.coming.swap_remove(i);
                self.deliver(event)
            }
            _ => {
                let Some(wake) = wake else {
                    self.now = self.now + Duration::from_secs(1);
                    return Ok(());
                };
                self.now = self.now.max(wake);
                let late = !self.behaves && self.chance(0.1);
                if late {
                    let late = self.below(3_000) as u64;
                    self.now = self.now + Duration::from_millis(late);
                }
                if late && self.chance(0.5) {
                    self.deliver(Event::Late)?;
                }
                for _ in 0..4 * self.specs.len() + 4 {
                    self.deliver(Event::Tick)?;
                    if self.engine.deadline().is_none_or(|at| at > self.now) {
                        return Ok(());
                    }
                }
                Err("the deadline stays in the past".to_owned())
            }
        }
    }

    fn spawn(&mut self, id: ServiceId, run: RunId) {
        let i = id.index();
        let (soon, later) = (self.millis(20), self.millis(20_000));
        let at = self.now + soon;
        if !self.behaves && self.chance(0.04) {
            return;
        }
        if !self.behaves && self.chance(0.08) {
            let at = at + [Duration::ZERO, Duration::from_secs(120)][self.below(2)];
            let why = if self.chance(0.3) {
                StartFailure::Permanent("not a program".into())
            } else {
                StartFailure::Transient("no such file".into())
            };
            self.coming.push((at, Event::SpawnFailed(id, run, why)));
            return;
        }
        self.pids += 1;
        self.coming.push((at, Event::Spawned(id, run, self.pids)));
        if self.chance(0.5) {
            self.coming
                .push((at + later, Event::Notified(id, run, Notice::Ready)));
        }
        let is_sturdy = self.specs[i].liveness.is_some();
        if self.chance(if is_sturdy { 0.1 } else { 0.9 }) {
            let exit = self.exit(i);
            let most = [5, 500, 60_000][self.below(3)];
            let at = at + self.millis(most);
            self.coming.push((at, Event::Exited(id, run, exit)));
        }
    }

    fn stop(&mut self, id: ServiceId, run: RunId, graceful: Duration) {
        let exit = self.exit(id.index());
        let at = self.now
            + match self.below(10) {
                0..7 => graceful.mul_f64(self.random.unit()),
                _ if self.behaves => graceful.mul_f64(self.random.unit()),
                7 => graceful + Duration::from_millis(300),
                _ => return,
            };
        self.coming.push((at, Event::Exited(id, run, exit)));
    }

    /// Returns a random exit. Each service prefers one, so that the same exit often repeats.
    fn exit(&mut self, i: usize) -> Exit {
        if self.chance(0.5) {
            return Exit::Code([202, 1, 201, 0, 7][i % 5]);
        }
        match self.below(8) {
            0..5 => Exit::Code([0, 1, 7, 101, 201, 202, -1_073_741_510, 255][self.below(8)]),
            5 | 6 => Exit::Signal([9, 11, 15, 73][self.below(4)]),
            _ => Exit::Unknown,
        }
    }

    // Random numbers and the transcript.

    fn below(&mut self, n: usize) -> usize {
        below(&mut self.random, n)
    }

    fn chance(&mut self, probability: f64) -> bool {
        chance(&mut self.random, probability)
    }

    /// Returns a duration below this many milliseconds, often zero.
    fn millis(&mut self, most: u64) -> Duration {
        if self.chance(0.3) {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(self.random.unit() * most as f64 / 1e3)
        }
    }

    fn snapshot(&self) -> Vec<(ServiceId, View, Option<Instant>)> {
        let ids = self.engine.ids();
        ids.map(|id| {
            (
                id,
                self.engine.view(id).unwrap(),
                self.engine.services[&id].deadline(),
            )
        })
        .collect()
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now.elapsed();
        if let Some(transcript) = &mut self.transcript {
            transcript.push(format!("{:>12.3}s {}", now.as_secs_f64(), line()));
        }
    }
}
