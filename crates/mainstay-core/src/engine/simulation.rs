//! Simulation: random services on a random host, checked against a model that shares nothing with
//! the engine's internals.
//!
//! One seed is one episode: a graph of specs, a host that answers late, twice, never or out of
//! order, and operators who send any request at any time. Services are added, redefined and
//! removed. Now and then the host is killed, and a new engine resumes from the checkpoints of the
//! old one. At the end everything is stopped or killed on a well-behaved host. The [`Account`] of
//! each service is derived from events and actions alone. All services are checked after every
//! event. A failing seed prints the command that replays it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::mem::{Discriminant, discriminant};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Random;
use super::*;
use crate::spec::{
    Argv, Backoff, BeyondLimit, CodeAction, Compress, Env, Environment, Level, Limits, Liveness,
    LogFormat, LogPolicy, Need, Policy, Ready, Recovery, RestartLimit, Retention, Rotation,
    Senders, Signal, SnapshotKeep, SnapshotPolicy, SnapshotWhen, Start, Still, Stop, StopAsk,
    StopScope, StopStep, Strategy, WaitFor,
};

/// The number of steps in an episode before everything is stopped.
const STEPS: usize = 600;
/// The maximum number of services at once.
const MOST: usize = 9;
/// An index that no service has.
const GONE: usize = usize::MAX;
/// The engine's time limit for killed processes, and the limit for extensions.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_EXTENSION: u32 = 10;
/// The time limit for the children of a main process that exited with 0 to exit as well.
const LINGER_PATIENCE: Duration = Duration::from_secs(2);
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

macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err(format!($($why)+));
        }
    };
}

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
    let (facts, halts) = (30, 10);
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
        .and_then(|code| recovery.codes.get(&code))
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
    beside: Option<Beside>,
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
    judged_as: Option<Arc<Spec>>,
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

    fn is_on_duty(&self) -> bool {
        !self.is_gone && self.beside.is_none()
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
        let i = match present.is_empty() || self.chance(0.1) {
            true => self.below(self.specs.len()),
            false => present[self.below(present.len())],
        };
        let run = self.accounts[i].run.as_ref().map(|run| run.id);
        let id = sid(i);
        match self.below(100) {
            28 => self.define(),
            29 => self.remove(i),
            30 | 31 => self.try_out(i),
            32..35 => self.decide(),
            0..9 if !self.accounts[i].is_on_duty() => self.nonsense(i),
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
        match self.chance(0.5) {
            true => Unasked::Lacking("too many files".into()),
            false => Unasked::Delayed,
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

    fn request(&mut self, i: usize) -> Check {
        let request = match self.below(8) {
            0..2 => Request::Start,
            2..4 => Request::Stop,
            4 => Request::Restart,
            5..7 => Request::Pause,
            _ => Request::Continue,
        };
        if self.chance(0.002) {
            let actions = self.engine.start_all(self.now);
            self.note(|| "start all".to_owned());
            // A service that refuses stays as it is.
            let mut startable = self.on_duty();
            startable.retain(|i| !self.trials.contains_key(i));
            for i in startable {
                let is_paused = self.engine.view(sid(i)).unwrap().state == StateName::Paused;
                let has_remains = self.accounts[i]
                    .run
                    .as_ref()
                    .is_some_and(|run| run.is_unkillable);
                if !is_paused && !has_remains {
                    self.wanted(i, false);
                }
            }
            return self.performed(actions);
        }
        if self.chance(0.002) {
            let actions = self.engine.request_stop_of_all(self.now);
            self.note(|| "an operator stops all".to_owned());
            for account in &mut self.accounts {
                account.is_unwanted = true;
                if let Some(run) = &mut account.run {
                    run.starts_again = false;
                }
            }
            return self.performed(actions);
        }
        if self.chance(0.1) {
            let before = self.snapshot();
            let outcome = self.engine.request_snapshot(sid(i), self.now);
            self.note(|| format!("request snapshot s{i}: {}", outcome.is_ok()));
            let is_refused = outcome.is_err();
            ensure!(
                !is_refused || before == self.snapshot(),
                "a refusal changed something"
            );
            let actions = outcome.map_or_else(|_| Vec::new(), |(_, actions)| actions);
            return self.performed(actions);
        }
        let before = self.snapshot();
        let outcome = self.engine.request(sid(i), request, self.now);
        self.note(|| {
            format!(
                "request {request} s{i}: {}",
                outcome
                    .as_ref()
                    .map_or_else(|no| no.to_string(), |_| "ok".into())
            )
        });
        let Ok(actions) = outcome else {
            let has_remains = self.accounts[i].run.is_some();
            ensure!(
                outcome != Err(Refusal::Remains) || has_remains,
                "s{i} is refused for remains that are gone"
            );
            ensure!(before == self.snapshot(), "a refusal changed something");
            return self.performed(Vec::new());
        };
        match request {
            Request::Stop => {
                self.accounts[i].is_unwanted = true;
                if let Some(run) = &mut self.accounts[i].run {
                    run.starts_again = false;
                }
            }
            Request::Start | Request::Restart => {
                ensure!(!self.trials.contains_key(&i), "s{i} is started in a trial");
                self.wanted(i, request == Request::Restart);
                self.wanted_with(i);
            }
            Request::Pause | Request::Continue => {}
        }
        self.performed(actions)
    }

    /// Records that the needs of a service are started, too.
    fn wanted_with(&mut self, i: usize) {
        let mut open = self.needs[i].clone();
        while let Some(need) = open.pop() {
            if !self.is_of_use(need) && !self.trials.contains_key(&need) {
                let account = &self.accounts[need];
                let starts = match &account.run {
                    Some(run) => account.unwanted() && !run.is_unkillable,
                    None => true,
                };
                if starts {
                    self.wanted(need, false);
                }
                open.extend(&self.needs[need]);
            }
        }
    }

    /// Tries a new definition.
    fn try_out(&mut self, i: usize) -> Check {
        if !self.accounts[i].is_on_duty() {
            return Ok(());
        }
        let id = sid(i);
        let density = [0.0, 0.2, 0.5][self.below(3)];
        let others = self.on_duty().into_iter().filter(|&j| j != i);
        let needs: Vec<usize> = others
            .filter(|_| chance(&mut self.random, density))
            .collect();
        let called: Vec<usize> = needs.iter().map(|&need| self.numbers[need]).collect();
        let spec = Arc::new(spec(self.numbers[i], &called, &mut self.random));
        let how = Tryout {
            style: [Style::Restart, Style::Overlap][self.below(2)],
            canary: self.millis(5_000),
        };
        let (before, was) = (self.snapshot(), self.engine.view(id).unwrap().state);
        self.note(|| format!("try s{i}: {how:?} {spec:?}"));
        let outcome = self.engine.try_out(id, Arc::clone(&spec), how, self.now);
        let (candidate, actions) = match outcome {
            Ok(tried) => tried,
            Err(refusal) => {
                let mut all = self.needs.clone();
                all[i].clone_from(&needs);
                let is_right = match &refusal {
                    Refusal::Updating => self.trials.contains_key(&i),
                    Refusal::Remains => self.accounts[i].run.is_some(),
                    Refusal::State(StateName::StopPending) => self.accounts[i].is_unwanted,
                    Refusal::State(state) => *state == was && was != StateName::Running,
                    Refusal::Misfit(_) => has_circle(&all),
                    _ => false,
                };
                ensure!(is_right, "it is wrong that s{i} is not tried: {refusal}");
                ensure!(before == self.snapshot(), "a refusal changed something");
                return self.performed(Vec::new());
            }
        };
        ensure!(!self.trials.contains_key(&i), "two trials of s{i}");
        let new = candidate.index();
        ensure!(new == self.accounts.len(), "s{new} was there before");
        self.accounts.push(Account {
            is_unwanted: true,
            beside: Some(Beside::Candidate),
            ..Account::default()
        });
        self.specs.push(spec);
        self.numbers.push(self.numbers[i]);
        self.needs.push(needs);
        if was != StateName::Stopped {
            self.wanted_with(new);
        }
        self.trials.insert(i, (new, false));
        let is_up = match was {
            StateName::Stopped => false,
            StateName::Halted => self.accounts[i].is_hung_up,
            _ => true,
        };
        let style = self.engine.trial(id).map(|trial| trial.style);
        self.accounts[i].is_displaced = is_up && style == Some(Style::Restart);
        if is_up && how.style == Style::Restart {
            // The old definition starts afresh after a rollback.
            self.accounts[i].not_before = Instant::ZERO;
        }
        if is_up && style.is_none() {
            // The trial was rolled back at once, which is a start like any other.
            let account = &mut self.accounts[i];
            account.not_before = Instant::ZERO;
            account.retries = 0;
            account.recent.clear();
        }
        if let Some(run) = self.accounts[i].run.as_mut().filter(|_| is_up) {
            run.starts_again &= style != Some(Style::Restart);
        }
        self.performed(actions)
    }

    /// Commits or aborts a trial.
    fn decide(&mut self) -> Check {
        let Some((&i, &(new, _))) = self.trials.iter().next() else {
            return Ok(());
        };
        let id = sid(i);
        if self.chance(0.1) {
            self.note(|| format!("abort s{i}"));
            let actions = self.engine.abort(id, self.now);
            return self.performed(actions);
        }
        let phase = self.engine.trial(id).map(|trial| trial.phase);
        let is_held = phase == Some(TrialPhase::Trial);
        let outcome = self.engine.commit(id, self.now);
        self.note(|| format!("commit s{i} as s{new}: {:?}", outcome.as_ref().err()));
        let actions = match outcome {
            Ok((id, actions)) => {
                ensure!(
                    is_held && id.index() == new,
                    "s{i} is committed in {phase:?}"
                );
                actions
            }
            Err(Refusal::Misfit(_)) => {
                let mut needs = self.needs.clone();
                needs[i] = std::mem::take(&mut needs[new]);
                ensure!(is_held && has_circle(&needs), "s{i} does fit");
                return self.deliver(Event::Tick);
            }
            Err(refusal) => {
                ensure!(!is_held, "s{i} is not committed: {refusal}");
                return self.performed(Vec::new());
            }
        };
        self.trials.remove(&i);
        for needs in &mut self.needs {
            for need in needs.iter_mut().filter(|need| **need == i) {
                *need = new;
            }
        }
        let old = &mut self.accounts[i];
        let (is_unwanted, is_done, cause) = (old.is_unwanted, old.is_done, old.cause);
        let (restarts, ran) = (old.restarts, self.accounts[new].run.is_some());
        let old = &mut self.accounts[i];
        let looping = (std::mem::take(&mut old.is_looping), old.looped_at);
        (old.is_unwanted, old.is_displaced) = (true, false);
        (old.beside, old.next) = (Some(Beside::Predecessor), None);
        if let Some(run) = &mut old.run {
            run.starts_again = false;
        }
        let account = &mut self.accounts[new];
        account.beside = None;
        account.is_unwanted = is_unwanted;
        account.restarts += restarts;
        (account.is_looping, account.looped_at) = looping;
        if !ran {
            (account.is_done, account.cause) = (is_done, cause);
        }
        self.performed(actions)
    }

    /// Updates the desired states that follow from the progress of trials.
    fn follow_trials(&mut self) {
        for (i, (new, was_launched)) in self.trials.clone() {
            let candidate = self.engine.services.get(&sid(new));
            let is_launched = candidate.is_some_and(Service::is_wished);
            if is_launched && !was_launched {
                self.trials.insert(i, (new, true));
                self.accounts[new].is_unwanted = false;
                self.requested.push(new);
            }
            let trial = self.engine.trial(sid(i));
            let is_open = trial.is_some_and(|trial| trial.phase != TrialPhase::RollBack);
            if let Some(account) = self.accounts.get_mut(new) {
                account.is_unwanted |= !is_open;
            }
            if trial.is_none_or(|trial| trial.candidate.is_none()) {
                let is_back = std::mem::take(&mut self.accounts[i].is_displaced);
                let old = &self.engine.services[&sid(i)];
                let is_lost = old.is_halted() && !old.is_halted_for_a_need();
                if is_back && !is_lost && !self.accounts[i].is_unwanted && !self.shutting_down {
                    self.wanted(i, false);
                }
            }
            if trial.is_none() {
                self.trials.remove(&i);
            }
        }
    }

    fn on_duty(&self) -> Vec<usize> {
        let mut all = self.present();
        all.retain(|&i| self.accounts[i].is_on_duty());
        all
    }

    /// Returns the services that exist.
    fn present(&self) -> Vec<usize> {
        let accounts = self.accounts.iter().enumerate();
        let present = accounts.filter(|(_, account)| !account.is_gone);
        present.map(|(i, _)| i).collect()
    }

    /// Adds services and redefines others, all at once or not at all.
    fn define(&mut self) -> Check {
        let present = self.on_duty();
        // IDs are never reused.
        let mut length = self.accounts.len();
        let mut names: BTreeSet<usize> = BTreeSet::new();
        for _ in 0..=self.below(2) {
            let is_new = present.is_empty() || present.len() < MOST && self.chance(0.4);
            names.insert(match is_new {
                true => {
                    length += 1;
                    length - 1
                }
                false => {
                    let i = present[self.below(present.len())];
                    // The host refuses to redefine a service on trial.
                    if self.trials.contains_key(&i) {
                        return Ok(());
                    }
                    i
                }
            });
        }
        let mut needs = self.needs.clone();
        needs.resize_with(length, Vec::new);
        let density = [0.0, 0.2, 0.5][self.below(3)];
        let mut numbers = self.numbers.clone();
        numbers.resize(length, 0);
        for &i in names.iter().filter(|i| !present.contains(i)) {
            numbers[i] = 1 + numbers.iter().max().copied().unwrap_or(0);
        }
        let nobody = 1_000_000;
        let mut is_missing = false;
        let mut specs = Vec::new();
        for &i in &names {
            let others = (0..length).filter(|j| present.contains(j) || names.contains(j));
            let others = others.filter(|&j| j != i && chance(&mut self.random, density));
            needs[i] = others.collect();
            let called = needs[i].iter().map(|&need| numbers[need]);
            let mut called: Vec<usize> = called.collect();
            if self.chance(0.02) {
                called.push(nobody);
                is_missing = true;
            }
            specs.push(spec(numbers[i], &called, &mut self.random));
        }
        let before = self.snapshot();
        let defined = specs.iter().cloned().map(Arc::new);
        let outcome = self.engine.define(defined, self.now);
        self.note(|| format!("define {specs:?}: {:?}", outcome.as_ref().err()));
        let has_circle = has_circle(&needs);
        let actions = match outcome {
            Ok(actions) => actions,
            Err(refusal) => {
                let is_right = match refusal {
                    GraphError::Missing { .. } => is_missing,
                    GraphError::Cycle(_) => has_circle,
                    GraphError::Duplicate(_) => false,
                };
                ensure!(is_right, "it is wrong that {refusal}");
                ensure!(before == self.snapshot(), "a refusal changed something");
                return self.performed(Vec::new());
            }
        };
        ensure!(!is_missing && !has_circle, "this makes no graph");
        (self.needs, self.numbers) = (needs, numbers);
        for (i, spec) in names.into_iter().zip(specs) {
            if i >= self.accounts.len() {
                self.accounts.push(Account {
                    is_unwanted: true,
                    ..Account::default()
                });
                self.specs.push(Arc::new(spec));
                continue;
            }
            self.accounts[i].next = Some(spec);
            self.become_next(i);
        }
        self.performed(actions)
    }

    /// Puts the next definition into effect if nothing of the service runs.
    fn become_next(&mut self, i: usize) {
        let account = &mut self.accounts[i];
        if account.run.is_some() {
            return;
        }
        let Some(next) = account.next.take() else {
            return;
        };
        let before = std::mem::replace(&mut self.specs[i], Arc::new(next));
        account.judged_as = Some(before);
        let asked = account.question.take().map(|(token, ..)| token);
        let asked = asked.into_iter().chain(account.line.take());
        account.old_tokens.extend(asked);
    }

    /// Returns the definition that decides what follows the end of a run.
    fn judged_as(&self, i: usize) -> Arc<Spec> {
        let judged_as = self.accounts[i].judged_as.as_ref();
        Arc::clone(judged_as.unwrap_or(&self.specs[i]))
    }

    fn remove(&mut self, i: usize) -> Check {
        if !self.accounts[i].is_on_duty() {
            return Ok(());
        }
        let mut ids = vec![sid(i)];
        if self.chance(0.3) {
            let dependents = self.needs.iter().enumerate();
            let dependents = dependents.filter(|(_, needs)| needs.contains(&i));
            let dependents = dependents.filter(|(d, _)| self.accounts[*d].is_on_duty());
            ids.extend(dependents.map(|(d, _)| sid(d)));
        }
        let before = self.snapshot();
        let outcome = self.engine.remove(&ids);
        self.note(|| format!("remove {ids:?}: {outcome:?}"));
        let is_needed = (0..self.needs.len()).any(|d| {
            let needs = |id: &ServiceId| self.needs[d].contains(&id.index());
            !ids.contains(&sid(d)) && ids.iter().any(needs)
        });
        let is_down = ids.iter().all(|id| {
            let account = &self.accounts[id.index()];
            let view = before.iter().find(|(of, ..)| of == id);
            let is_idle = view.is_some_and(|(_, view, _)| {
                matches!(view.state, StateName::Stopped | StateName::Halted)
            });
            is_idle && account.run.is_none()
        });
        let is_tried = ids.iter().any(|id| self.trials.contains_key(&id.index()));
        ensure!(
            outcome.is_ok() == (is_down && !is_needed && !is_tried),
            "{ids:?} are removed or not for no reason: {outcome:?}"
        );
        if outcome.is_err() {
            ensure!(before == self.snapshot(), "a refusal changed something");
            return self.performed(Vec::new());
        }
        for id in ids {
            self.needs[id.index()].clear();
            self.accounts[id.index()] = Account {
                old_tokens: std::mem::take(&mut self.accounts[id.index()].old_tokens),
                is_unwanted: true,
                is_gone: true,
                ..Account::default()
            };
        }
        self.performed(Vec::new())
    }

    /// Returns whether dependents may start.
    fn is_of_use(&self, i: usize) -> bool {
        let account = &self.accounts[i];
        match &account.run {
            Some(run) => {
                let is_suspended = run.frozen && account.snapshot.is_none();
                let is_up = run.was_ready() && !run.exited && !run.asked && !is_suspended;
                is_up && !account.unwanted() && !run.is_restart_due()
            }
            None => account.is_done,
        }
    }

    fn wanted(&mut self, i: usize, afresh: bool) {
        let account = &mut self.accounts[i];
        account.is_unwanted = false;
        account.is_done = false;
        account.not_before = Instant::ZERO;
        account.retries = 0;
        account.recent.clear();
        if let Some(run) = &mut account.run {
            run.starts_again |= afresh || run.asked || run.exited;
        }
        // The end of the run was processed before a trial needed the service.
        for (_, run) in self.gone.iter_mut().filter(|(gone, _)| *gone == i) {
            run.starts_again = true;
        }
        self.requested.push(i);
    }

    /// Delivers an event of an earlier run or question, or one out of turn. It must change nothing.
    fn nonsense(&mut self, i: usize) -> Check {
        let account = &self.accounts[i];
        let id = sid(i);
        let run = match &account.run {
            Some(run) => RunId(run.id.0.wrapping_sub(1)),
            None => RunId(account.last_run),
        };
        let token = match account.old_tokens.is_empty() {
            true => Token(u64::MAX),
            false => account.old_tokens[self.random_index(account.old_tokens.len())],
        };
        let kind = below(&mut self.random, 10);
        let event = match kind {
            // The main process has not ended yet.
            8 => match &account.run {
                Some(run) if !run.exited && !run.is_unkillable => Event::Emptied(id, run.id),
                _ => return Ok(()),
            },
            0 => Event::Spawned(id, run, 1),
            1 => Event::SpawnFailed(id, run, StartFailure::Transient("no".into())),
            2 => Event::Exited(id, run, Exit::Code(0)),
            3 => Event::Emptied(id, run),
            4 => Event::Notified(id, run, Notice::Ready),
            5 => Event::FreezeFailed(id, run, "no".into()),
            6 => Event::Restored(id, token, Ok(SnapshotId::new(1, None))),
            9 => Event::Snapshotted(id, token, Ok(Snapshotted::Unchanged)),
            _ => Event::Answered(id, token, Ok(())),
        };
        let before = self.snapshot();
        if self.accounts[i].is_gone {
            let refused = [
                self.engine.request(id, Request::Start, self.now).err(),
                self.engine.request_snapshot(id, self.now).err(),
                self.engine.remove(&[id]).err().map(|(_, why)| why),
            ];
            let is_refused = refused.iter().all(|why| *why == Some(Refusal::Removed));
            let is_seen = self.engine.view(id).is_some() || self.engine.spec(id).is_some();
            ensure!(is_refused && !is_seen, "s{i} is not gone: {refused:?}");
            ensure!(self.engine.abort(id, self.now).is_empty(), "s{i} is tried");
        }
        self.note(|| format!("nonsense: {event:?}"));
        let actions = self.engine.step(event, self.now);
        ensure!(
            actions.is_empty() && before == self.snapshot(),
            "nonsense changed something: {actions:?}"
        );
        self.performed(Vec::new())
    }

    /// Kills the host. Processes live on, some of them not for long; the next host resumes from
    /// what it finds.
    fn host_is_killed(&mut self) -> Check {
        self.note(|| "the host is killed".to_owned());
        // The next engine has no trials, and kills processes that it does not recognise.
        self.trials.clear();
        for account in &mut self.accounts {
            account.is_displaced = false;
            account.is_gone |= account.beside.is_some();
        }
        self.close_gaps();
        let mut ids: Vec<ServiceId> = self.engine.ids().collect();
        ids.sort();
        let mut bequests: Vec<(ServiceId, Bequest)> = ids
            .into_iter()
            .enumerate()
            .map(|(i, id)| (sid(i), self.engine.bequest(id).unwrap()))
            .collect();
        if self.chance(0.2) {
            self.now = self.now + self.millis(100_000);
        }
        let mut died = Vec::new();
        for (id, bequest) in &mut bequests {
            let i = id.index();
            let has_died = self.chance(0.2);
            let account = &mut self.accounts[i];
            let is_wanted = bequest.wish == Wish::Up;
            ensure!(
                is_wanted != account.is_unwanted,
                "s{i} leaves another wish than its operators'"
            );
            ensure!(
                bequest.restarts == account.restarts,
                "s{i} leaves another count of restarts"
            );
            account.question = None;
            account.line = None;
            account.restore = None;
            account.is_to_restore = false;
            account.restored.clear();
            let was_kept_still = account.snapshot.take().is_some();
            account.abandoned = None;
            account.is_hung_up = false;
            account.not_before = Instant::ZERO;
            account.retries = 0;
            account.last_run = 0;
            let failures = &bequest.failures;
            ensure!(
                failures.crash_loop.is_some() == account.is_looping,
                "s{i} leaves another crash loop"
            );
            account.old_tokens.clear();
            // The new engine gets the last definition.
            if let Some(next) = account.next.take() {
                self.specs[i] = Arc::new(next);
            }
            account.is_looping &= self.specs[i].recovery.limit.is_some();
            let Some(run) = &mut account.run else {
                continue;
            };
            match &bequest.left {
                Left::Child {
                    pid, began, stage, ..
                } => {
                    ensure!(
                        run.pid == Some(*pid) && run.began == *began && !run.exited,
                        "s{i} leaves a child that it has not"
                    );
                    let is_stopping = matches!(stage, Stage::Stopping | Stage::Failing);
                    ensure!(
                        is_stopping == run.asked
                            && (*stage == Stage::Paused) == (run.frozen && !was_kept_still),
                        "s{i} leaves a child that is elsewhere"
                    );
                    let (pid, began, stage) = (*pid, *began, *stage);
                    if has_died && !is_stopping {
                        bequest.left = Left::Gone { pid, began, stage };
                        died.push(i);
                    }
                    (run.asked, run.killed) = (false, false);
                    // The successor resumes the processes, because they may be suspended.
                    run.frozen |= stage == Stage::Running;
                    run.dated = self.events;
                    run.start_by = self.now + self.specs[i].start.timeout;
                    run.starts_again = false;
                    run.has_evidence |= self.specs[i].start.ready.is_none();
                    if is_stopping {
                        self.goes_on_stopping.push(i);
                    }
                    match stage {
                        Stage::Stopping if is_wanted => {
                            run.starts_again = true;
                            self.requested.push(i);
                        }
                        Stage::Failing => {
                            account.cause = Some(Cause::Other);
                            self.failed.push(i);
                        }
                        _ => {}
                    }
                }
                Left::Ended { exit, .. } => {
                    let cause = match exit {
                        Exit::Unknown => Cause::Other,
                        exit => Cause::Exit(*exit),
                    };
                    account.cause = Some(cause);
                    (run.asked, run.killed, run.starts_again) = (false, false, false);
                    run.dated = self.events;
                }
                // Remaining or unrecorded processes are killed.
                _ => account.run = None,
            }
        }
        let seed = self.below(1_000_000) as u64;
        self.engine = Engine::new(self.specs.iter().cloned(), seed).unwrap();
        let actions = self.engine.resume(bequests, self.now);
        for (i, account) in self.accounts.iter_mut().enumerate() {
            let Some(run) = &mut account.run else {
                continue;
            };
            let id = self.engine.view(sid(i)).unwrap().run;
            let new = id.ok_or_else(|| format!("s{i} is forgotten"))?;
            account.last_run = new.0;
            let old = std::mem::replace(&mut run.id, new);
            for (_, event) in &mut self.coming {
                match event {
                    Event::Exited(of, run, _) | Event::Notified(of, run, _)
                        if (*of, *run) == (sid(i), old) =>
                    {
                        *run = new;
                    }
                    _ => {}
                }
            }
            if died.contains(&i) {
                let exited =
                    |event: &Event| matches!(event, Event::Exited(of, ..) if *of == sid(i));
                self.coming.retain(|(_, event)| !exited(event));
                let event = Event::Exited(sid(i), new, Exit::Unknown);
                self.coming.push((self.now, event));
            } else if run.exited {
                self.coming.push((self.now, Event::Emptied(sid(i), new)));
            }
        }
        self.performed(actions)?;
        for (i, account) in self.accounts.iter_mut().enumerate() {
            account.is_hung_up = self.engine.services[&sid(i)].is_halted_for_a_need();
        }
        Ok(())
    }

    /// Renumbers the services without those that are gone, as in a new engine.
    fn close_gaps(&mut self) {
        let present = self.present();
        let moved = |old: usize| present.iter().position(|&i| i == old);
        let (mut accounts, mut specs) = (Vec::new(), Vec::new());
        let (mut numbers, mut needs) = (Vec::new(), Vec::new());
        for &i in &present {
            accounts.push(std::mem::take(&mut self.accounts[i]));
            specs.push(Arc::clone(&self.specs[i]));
            numbers.push(self.numbers[i]);
            needs.push(
                self.needs[i]
                    .iter()
                    .filter_map(|&need| moved(need))
                    .collect(),
            );
        }
        (self.accounts, self.specs) = (accounts, specs);
        (self.numbers, self.needs) = (numbers, needs);
        self.coming.retain_mut(|(_, event)| {
            let id = match event {
                Event::Exited(id, ..) | Event::Notified(id, ..) => id,
                _ => return false,
            };
            moved(id.index()).inspect(|&i| *id = sid(i)).is_some()
        });
    }

    fn random_index(&self, n: usize) -> usize {
        below(&mut self.random.clone(), n)
    }

    /// Stops or kills everything on a host that behaves well from now on.
    fn end(&mut self) -> Check {
        self.behaves = true;
        self.shutting_down = true;
        self.coming.clear();
        let kills = self.chance(0.3);
        let mut patience = Duration::from_secs(2);
        for i in 0..self.specs.len() {
            let id = sid(i);
            let at = self.now + Duration::from_millis(1);
            let account = &self.accounts[i];
            if let Some(token) = account.restore.filter(|_| !kills) {
                let answer = Ok(SnapshotId::new(1, None));
                self.coming.push((at, Event::Restored(id, token, answer)));
            }
            for token in account
                .abandoned
                .into_iter()
                .chain(account.snapshot.map(|(token, _)| token))
            {
                let why = Err("called off".to_owned());
                self.coming.push((at, Event::Snapshotted(id, token, why)));
            }
            let Some(run) = &account.run else { continue };
            patience += run.kill_at.since(self.now) + KILL_PATIENCE;
            if run.pid.is_none() && !run.exited {
                self.pids += 1;
                self.coming
                    .push((at, Event::Spawned(id, run.id, self.pids)));
            }
            if run.exited {
                self.coming.push((at, Event::Emptied(id, run.id)));
            } else if run.asked || run.killed {
                self.coming
                    .push((at, Event::Exited(id, run.id, Exit::Signal(9))));
            }
        }
        for account in &mut self.accounts {
            account.is_unwanted = true;
            if let Some(run) = &mut account.run {
                run.starts_again = false;
            }
        }
        let deadline = match kills {
            true => self.now + Duration::from_secs(1),
            false => {
                let ladders: Duration = self.specs.iter().map(|spec| spec.stop.graceful).sum();
                self.now + patience + ladders
            }
        };
        self.killing = kills;
        self.note(|| if kills { "kill all" } else { "stop all" }.to_owned());
        let actions = match kills {
            true => self.engine.kill_all(self.now),
            false => self.engine.stop_all(self.now),
        };
        if kills {
            for (i, account) in self.accounts.iter().enumerate() {
                if let Some(run) = account.run.as_ref().filter(|run| !run.killed) {
                    ensure!(
                        actions.contains(&Action::Kill(sid(i), run.id)),
                        "kill all forgot s{i}"
                    );
                }
            }
        }
        self.performed(actions)?;
        for _ in 0..10_000 {
            if self.engine.is_down() && self.accounts.iter().all(|account| account.run.is_none()) {
                return Ok(());
            }
            ensure!(self.now <= deadline, "not everything is down in time");
            self.time_passes()?;
        }
        Err("not everything comes down".to_owned())
    }

    /// Passes an event to the engine, if the host could observe it.
    fn deliver(&mut self, event: Event) -> Check {
        let now = self.now;
        match &event {
            Event::Spawned(i, id, pid) => {
                let needs_no_evidence = self.specs[i.index()].start.ready.is_none();
                match &mut self.accounts[i.index()].run {
                    Some(run) if run.id == *id && run.pid.is_none() && !run.exited => {
                        run.pid = Some(*pid);
                        run.began = now;
                        run.start_by = now + self.specs[i.index()].start.timeout;
                        run.has_evidence |= needs_no_evidence;
                        run.has_evidence &= !run.asked;
                    }
                    _ => return Ok(()),
                }
            }
            Event::SpawnFailed(i, id, why) => match &mut self.accounts[i.index()].run {
                Some(run) if run.id == *id && run.pid.is_none() && !run.exited => {
                    if !run.asked {
                        self.accounts[i.index()].cause = Some(match why {
                            StartFailure::Transient(_) | StartFailure::Lacking(_) => Cause::Other,
                            StartFailure::Permanent(_) => Cause::Lasting,
                        });
                    }
                    let run = self.accounts[i.index()].run.take().unwrap();
                    self.gone.push((i.index(), run));
                    self.become_next(i.index());
                }
                _ => return Ok(()),
            },
            Event::Exited(i, id, exit) => {
                let account = &mut self.accounts[i.index()];
                match &mut account.run {
                    Some(run) if run.id == *id && !run.exited => {
                        run.exited = true;
                        run.exited_at = now;
                        run.lingers_until = now + LINGER_PATIENCE;
                        if !run.asked {
                            account.cause = Some(Cause::Exit(*exit));
                        }
                        self.leave_remains(*i, *id);
                    }
                    _ => return Ok(()),
                }
            }
            Event::Emptied(i, id) => match &self.accounts[i.index()].run {
                Some(run) if run.id == *id && run.exited => {
                    let run = self.accounts[i.index()].run.take().unwrap();
                    self.gone.push((i.index(), run));
                    self.become_next(i.index());
                }
                _ => return Ok(()),
            },
            Event::Notified(i, id, notice) => {
                let ready = &self.specs[i.index()].start.ready;
                let wants_notice = matches!(ready, Some(Ready::Notify(_)));
                let start_limit = self.specs[i.index()].start.timeout * LONGEST_EXTENSION;
                let stop_limit = self.specs[i.index()].stop.graceful * LONGEST_EXTENSION;
                match (&mut self.accounts[i.index()].run, notice) {
                    (Some(run), Notice::Ready) if run.id == *id => {
                        run.has_evidence |= wants_notice && !run.asked && !run.exited;
                    }
                    (Some(run), Notice::ExtendTimeout(by)) if run.id == *id => {
                        let until = now + *by;
                        if run.asked && !run.killed {
                            let latest = run.climb.0 + stop_limit;
                            run.kill_at = run.kill_at.max(until.min(latest));
                        } else if !run.exited && !run.asked && !run.was_ready() {
                            let latest = run.began + start_limit;
                            run.start_by = run.start_by.max(until.min(latest));
                        }
                    }
                    (Some(run), _) if run.id == *id => {}
                    _ => return Ok(()),
                }
            }
            Event::FreezeFailed(i, id, _) => match &self.accounts[i.index()].run {
                Some(run) if run.id == *id => {}
                _ => return Ok(()),
            },
            Event::Answered(i, token, answer) => {
                let account = &mut self.accounts[i.index()];
                let is_line = account.line == Some(*token);
                let of = account
                    .question
                    .filter(|(asked, ..)| asked == token)
                    .and_then(|(_, of, _)| of);
                match &mut account.run {
                    Some(run)
                        if answer.is_ok()
                            && !run.asked
                            && !run.exited
                            && (is_line || of == Some(run.id)) =>
                    {
                        run.has_evidence = true;
                    }
                    _ => {}
                }
                if account.question.is_some_and(|(asked, ..)| asked == *token) {
                    account.question = None;
                    account.old_tokens.push(*token);
                }
            }
            Event::Unasked(i, token, _) => {
                let account = &mut self.accounts[i.index()];
                if account
                    .question
                    .take_if(|(asked, ..)| asked == token)
                    .is_some()
                {
                    account.old_tokens.push(*token);
                }
            }
            Event::Snapshotted(i, token, _) => {
                let account = &mut self.accounts[i.index()];
                let is_expected = account
                    .snapshot
                    .is_some_and(|(expected, _)| expected == *token);
                if account.abandoned == Some(*token) {
                    account.abandoned = None;
                } else if is_expected {
                    account.snapshot = None;
                } else {
                    return Ok(());
                }
                account.old_tokens.push(*token);
            }
            Event::Restored(i, token, answer) => {
                let account = &mut self.accounts[i.index()];
                self.restored = account.restore == Some(*token);
                if self.restored {
                    account.restored.extend(answer.clone().ok());
                    account.restore = None;
                    account.old_tokens.push(*token);
                    let is_called_off = std::mem::take(&mut account.is_called_off);
                    if is_called_off && answer.is_err() && !account.unwanted() {
                        account.is_to_restore = true;
                    }
                }
            }
            Event::Forgotten(_) => {}
            Event::Tick | Event::Late => {
                self.ticked = true;
                for account in &mut self.accounts {
                    if event == Event::Late {
                        account.postpone(now);
                    }
                    if account.question.is_some_and(|(.., by)| by <= now) {
                        let (token, ..) = account.question.take().unwrap();
                        account.old_tokens.push(token);
                    }
                }
            }
        }
        self.note(|| format!("{event:?}"));
        let actions = self.engine.step(event, now);
        self.performed(actions)
    }

    /// Schedules the end of a process tree after its main process has ended.
    fn leave_remains(&mut self, i: ServiceId, run: RunId) {
        let in_time = self.behaves || self.chance(0.9);
        if in_time {
            let at = self.now + self.millis(40);
            self.coming.push((at, Event::Emptied(i, run)));
        }
    }

    fn performed(&mut self, actions: Vec<Action>) -> Check {
        self.events += 1;
        self.follow_trials();
        for action in actions {
            self.note(|| format!("    {action:?}"));
            self.perform(action)?;
        }
        self.examine()?;
        self.ticked = false;
        self.killing = false;
        self.restored = false;
        self.failed.clear();
        self.requested.clear();
        self.gone.clear();
        self.goes_on_stopping.clear();
        for account in &mut self.accounts {
            // The former definition applies to the current event only.
            account.judged_as = None;
        }
        Ok(())
    }

    /// Performs an action like a host, and checks its preconditions.
    fn perform(&mut self, action: Action) -> Check {
        let now = self.now;
        match action {
            Action::Spawn(id, run) => {
                let i = id.index();
                for &need in &self.needs[i] {
                    ensure!(self.is_of_use(need), "s{i} starts before s{need} is ready");
                }
                let start_by = now + self.specs[i].start.timeout;
                let account = &mut self.accounts[i];
                ensure!(account.run.is_none(), "s{i} has two children");
                ensure!(
                    account.beside != Some(Beside::Predecessor),
                    "s{i} is started though it was replaced"
                );
                ensure!(
                    account.beside.is_none() || account.last_run == 0,
                    "s{i} is started again in a trial"
                );
                ensure!(
                    account.restore.is_none() && !account.is_to_restore,
                    "s{i} starts while its state is being restored"
                );
                ensure!(
                    !account.unwanted(),
                    "s{i} starts though it was asked to stop"
                );
                ensure!(!self.shutting_down, "s{i} starts during a shutdown");
                ensure!(
                    now >= account.not_before,
                    "s{i} starts before its pause is over"
                );
                ensure!(run.0 > account.last_run, "the run of s{i} is not new");
                account.last_run = run.0;
                account.is_done = false;
                account.run = Some(Run {
                    id: run,
                    began: now,
                    start_by,
                    pid: None,
                    has_evidence: false,
                    exited: false,
                    exited_at: now,
                    lingers_until: now,
                    frozen: false,
                    asked: false,
                    climb: (Instant::ZERO, 0),
                    kill_at: Instant::ZERO,
                    killed: false,
                    starts_again: false,
                    is_unkillable: false,
                    dated: self.events,
                });
                self.spawn(id, run);
            }
            Action::AskToStop(id, run, ask) => {
                let i = id.index();
                let ladder = self.specs[i].stop.ladder.clone();
                let held = self.held(id, run)?;
                let is_first = !held.asked;
                let (since, taken) = match is_first {
                    true => (now, 0),
                    false => held.climb,
                };
                held.climb = (since, taken + 1);
                let step = ladder.get(taken).filter(|step| step.ask == ask);
                ensure!(
                    step.is_some_and(|step| now >= since + step.after) && !held.killed,
                    "s{i} is asked to stop by another step than its ladder's next"
                );
                if !is_first {
                    return Ok(());
                }
                // Only a service that failed to start in time stops before its dependents.
                let account = &self.accounts[i];
                let was_ready = account.run.as_ref().is_some_and(Run::was_ready);
                let is_late = self.failed.contains(&i) && !was_ready;
                let goes_on = self.goes_on_stopping.contains(&i);
                let is_ordered = account.unwanted() && !self.killing && !is_late && !goes_on;
                for dependent in
                    (0..self.specs.len()).filter(|&d| is_ordered && self.needs[d].contains(&i))
                {
                    let account = &self.accounts[dependent];
                    let lives = account.unwanted()
                        && account.run.as_ref().is_some_and(|run| !run.is_unkillable);
                    ensure!(
                        !lives,
                        "s{i} is asked to stop before s{dependent}, which needs it"
                    );
                }
                let graceful = self.specs[i].stop.graceful;
                let event = self.events;
                let held = self.held(id, run)?;
                held.dated = event;
                ensure!(
                    !held.exited && !held.asked && !held.killed,
                    "s{i} is asked to stop out of turn"
                );
                held.asked = true;
                held.kill_at = now + graceful;
                // A restart waits until dependents are down.
                let is_restarted = held.starts_again;
                let has_reason = self.requested.contains(&i) || self.failed.contains(&i);
                ensure!(
                    is_restarted || has_reason || self.accounts[i].unwanted(),
                    "s{i} is asked to stop for no reason"
                );
                self.stop(id, run, graceful);
            }
            Action::Kill(id, run) => {
                let killing = self.killing;
                let scope = self.specs[id.index()].stop.scope;
                let held = self.held(id, run)?;
                ensure!(!held.killed, "{run:?} is killed twice");
                // Processes that were asked to stop, too, have the rest of the time limit.
                let are_remains = held.exited && !(held.asked && scope == StopScope::Tree);
                let is_due = held.asked && now >= held.kill_at;
                ensure!(
                    killing || are_remains || is_due,
                    "{run:?} is killed too early"
                );
                held.killed = true;
                let exited = held.exited;
                if self.behaves || self.chance(0.95) {
                    let at = now + self.millis(40);
                    self.coming.push((
                        at,
                        match exited {
                            true => Event::Emptied(id, run),
                            false => Event::Exited(id, run, Exit::Signal(9)),
                        },
                    ));
                }
            }
            Action::Freeze(id, run) => {
                let held = self.held(id, run)?;
                ensure!(
                    !held.frozen && !held.exited && !held.asked,
                    "{run:?} is suspended out of turn"
                );
                held.frozen = true;
                if self.chance(0.15) {
                    let at = now + self.millis(5);
                    self.coming
                        .push((at, Event::FreezeFailed(id, run, "not permitted".into())));
                }
            }
            Action::Thaw(id, run) => {
                let held = self.held(id, run)?;
                ensure!(
                    held.frozen && !held.exited,
                    "{run:?} goes on without having been suspended"
                );
                held.frozen = false;
            }
            Action::Ask {
                service,
                of,
                token,
                timeout,
                ..
            } => {
                ensure!(!timeout.is_zero(), "a question that leaves no time");
                match of {
                    Some(run) => {
                        let held = self.held(service, run)?;
                        let answers =
                            held.pid.is_some() && !held.exited && !held.asked && !held.frozen;
                        ensure!(answers, "{run:?} is asked though it cannot answer");
                    }
                    None => ensure!(
                        self.accounts[service.index()].run.is_none(),
                        "a condition with a child"
                    ),
                }
                let by = now + timeout + ANSWER_GRACE;
                let account = &mut self.accounts[service.index()];
                if let Some((old, ..)) = account.question.replace((token, of, by)) {
                    account.old_tokens.push(old);
                }
                let answer = if self.chance(0.75) {
                    Ok(())
                } else {
                    Err("refused".to_owned())
                };
                let times = if self.behaves {
                    1
                } else {
                    [0, 1, 1, 1, 1, 1, 1, 2][self.below(8)]
                };
                for _ in 0..times {
                    let late = if self.chance(0.05) {
                        Duration::from_secs(2)
                    } else {
                        Duration::ZERO
                    };
                    let at = now + late + self.millis(60);
                    let event = match self.chance(0.1) {
                        true => Event::Unasked(service, token, self.unasked()),
                        false => Event::Answered(service, token, answer.clone()),
                    };
                    self.coming.push((at, event));
                }
            }
            Action::ExpectLine(id, token, _) => {
                if let Some(old) = self.accounts[id.index()].line.replace(token) {
                    self.accounts[id.index()].old_tokens.push(old);
                }
                if self.chance(0.8) {
                    let at = now + self.millis(3_000);
                    let answer = if self.chance(0.9) {
                        Ok(())
                    } else {
                        Err("bad".to_owned())
                    };
                    self.coming.push((at, Event::Answered(id, token, answer)));
                }
            }
            Action::Restore {
                service,
                token,
                before,
            } => {
                let account = &mut self.accounts[service.index()];
                ensure!(
                    account.is_to_restore && account.run.is_none(),
                    "a restore out of turn"
                );
                ensure!(
                    account.snapshot.is_none() && account.abandoned.is_none(),
                    "a restore during a snapshot"
                );
                ensure!(
                    before.is_none_or(|id| account.restored.contains(&id)),
                    "a restore of what was not restored before"
                );
                account.is_to_restore = false;
                account.is_called_off = false;
                account.restore = Some(token);
                if self.behaves || self.chance(0.9) {
                    let at = now + self.millis(1_000);
                    let answer = match self.chance(0.8) {
                        true => Ok(SnapshotId::new(self.events, None)),
                        false => Err("none left".to_owned()),
                    };
                    self.coming
                        .push((at, Event::Restored(service, token, answer)));
                }
            }
            Action::Snapshot {
                service,
                run,
                token,
                stable,
                ..
            } => {
                let i = service.index();
                let policy = self.specs[i].snapshot.clone().ok_or("nothing to keep")?;
                let held = self.held(service, run)?;
                ensure!(
                    held.was_ready() && !held.exited && !held.asked,
                    "a snapshot of {run:?}, which does not run undisturbed"
                );
                let is_frozen = policy.still == Still::Pause;
                ensure!(
                    held.frozen == is_frozen,
                    "{run:?} is not as still as its snapshot needs it"
                );
                let since = held.began;
                ensure!(
                    !stable || now.since(since) >= policy.after,
                    "{run:?} cannot be known to be healthy yet"
                );
                let account = &mut self.accounts[i];
                ensure!(
                    account.snapshot.is_none() && account.abandoned.is_none(),
                    "two snapshots of s{i} at once"
                );
                ensure!(
                    account.restore.is_none(),
                    "a snapshot of s{i} during a restore"
                );
                let is_still = policy.still != Still::Nothing;
                let limit = Duration::from_secs(if is_still { 60 } else { 3600 });
                account.snapshot = Some((token, now + limit));
                if self.behaves || self.chance(0.9) {
                    let most = [100, 5_000, 100_000][self.below(3)];
                    let at = now + self.millis(most);
                    let answer = match self.below(4) {
                        0 => Err("a file changed".to_owned()),
                        1 => Ok(Snapshotted::Unchanged),
                        _ => Ok(Snapshotted::Taken(SnapshotId::new(self.events, None))),
                    };
                    self.coming
                        .push((at, Event::Snapshotted(service, token, answer)));
                }
            }
            Action::AbandonRestore(id, token) => {
                let account = &mut self.accounts[id.index()];
                ensure!(
                    account.restore == Some(token),
                    "s{} abandons what is not restored",
                    id.index()
                );
                account.is_called_off = true;
                if self.behaves || self.chance(0.9) {
                    let at = now + self.millis(100);
                    let why = Err("called off".to_owned());
                    self.coming.push((at, Event::Restored(id, token, why)));
                }
            }
            Action::AbandonSnapshot(id, token) => {
                let account = &mut self.accounts[id.index()];
                let taken = account.snapshot.take();
                ensure!(
                    taken.is_some_and(|(taken, _)| taken == token) && account.abandoned.is_none(),
                    "s{} abandons a snapshot that is not taken",
                    id.index()
                );
                account.abandoned = Some(token);
                if self.behaves || self.chance(0.9) {
                    let at = now + self.millis(100);
                    let why = Err("called off".to_owned());
                    self.coming.push((at, Event::Snapshotted(id, token, why)));
                }
            }
            Action::KeepState {
                service,
                token,
                stable,
            } => {
                ensure!(
                    !self.has_runs(service)?,
                    "a snapshot under a program that runs"
                );
                ensure!(
                    !stable || self.accounts[service.index()].is_displaced,
                    "of whom?"
                );
                let account = &mut self.accounts[service.index()];
                ensure!(
                    account.snapshot.is_none() && account.abandoned.is_none(),
                    "two snapshots of {service:?} at once"
                );
                account.snapshot = Some((token, now + Duration::from_secs(3600)));
                if self.behaves || self.chance(0.9) {
                    let at = now + self.millis(1_000);
                    let answer = match self.chance(0.8) {
                        true => Ok(Snapshotted::Taken(SnapshotId::new(self.events, None))),
                        false => Err("the disk is full".to_owned()),
                    };
                    self.coming
                        .push((at, Event::Snapshotted(service, token, answer)));
                }
            }
            Action::RestoreSnapshot {
                service,
                token,
                snapshot,
            } => {
                ensure!(
                    !self.has_runs(service)?,
                    "a restore under a program that runs"
                );
                self.accounts[service.index()].restore = Some(token);
                if self.behaves || self.chance(0.9) {
                    let at = now + self.millis(1_000);
                    let answer = match self.chance(0.8) {
                        true => Ok(snapshot),
                        false => Err("damaged".to_owned()),
                    };
                    self.coming
                        .push((at, Event::Restored(service, token, answer)));
                }
            }
            Action::Forget(id) => {
                let account = &mut self.accounts[id.index()];
                ensure!(account.beside.is_some(), "s{} is forgotten", id.index());
                ensure!(
                    account.run.is_none(),
                    "s{} is forgotten while it runs",
                    id.index()
                );
                *account = Account {
                    old_tokens: std::mem::take(&mut account.old_tokens),
                    is_unwanted: true,
                    is_gone: true,
                    ..Account::default()
                };
                for (new, _) in self
                    .trials
                    .values_mut()
                    .filter(|(new, _)| *new == id.index())
                {
                    *new = GONE;
                }
                self.needs[id.index()].clear();
                let actions = self.engine.step(Event::Forgotten(id), now);
                ensure!(actions.is_empty(), "who is forgotten does something");
            }
            Action::Tell(id, fact) => self.told(id.index(), fact)?,
        }
        Ok(())
    }

    /// Returns whether a service on trial or its candidate has a run.
    fn has_runs(&self, service: ServiceId) -> Result<bool, String> {
        let (new, _) = self
            .trials
            .get(&service.index())
            .ok_or("nothing is tried")?;
        let runs = |i: usize| self.accounts[i].run.is_some();
        Ok(runs(*new) || runs(service.index()))
    }

    fn held(&mut self, id: ServiceId, run: RunId) -> Result<&mut Run, String> {
        let held = self.accounts[id.index()]
            .run
            .as_mut()
            .filter(|held| held.id == run);
        held.ok_or_else(|| format!("{run:?} of s{} is not there", id.index()))
    }

    fn told(&mut self, i: usize, fact: Fact) -> Check {
        let halt = match &fact {
            Fact::Halted { why } => Some(discriminant(why)),
            _ => None,
        };
        self.seen.insert((discriminant(&fact), halt));
        if let Fact::Halted { why } = &fact {
            let for_need = matches!(why, Halt::Need(_) | Halt::NeedEnded(_));
            self.accounts[i].is_hung_up = for_need;
        }
        let judged_as = self.judged_as(i);
        let now = self.now;
        let account = &mut self.accounts[i];
        // A service that is stopped only for a trial keeps its crash loop.
        let is_for_now = matches!(fact, Fact::Stopped { outcome } if outcome == Outcome::Requested)
            && !account.is_unwanted;
        account.is_looping &=
            is_for_now || !matches!(fact, Fact::Stopped { .. } | Fact::Halted { .. });
        let recovery = &judged_as.recovery;
        match fact {
            Fact::CrashLooping { lasts, .. } => {
                let is_new = lasts.is_zero();
                ensure!(
                    is_new != account.is_looping,
                    "the crash loop of s{i} begins twice, or was not told"
                );
                ensure!(
                    is_new || now >= account.looped_at + REMINDER,
                    "the crash loop of s{i} is told too often"
                );
                account.is_looping = true;
                account.looped_at = now;
            }
            Fact::Recovered { .. } => {
                ensure!(account.is_looping, "s{i} recovers from nothing");
                let runs = self.gone.iter().filter(|(gone, _)| *gone == i);
                let run = runs.map(|(_, run)| run).chain(&account.run).next();
                let was_well = run.is_some_and(|run| {
                    run.was_ready() && now.since(run.began) >= recovery.reset_after
                });
                ensure!(was_well, "s{i} recovers without having been ready for long");
                account.is_looping = false;
                account.recent.clear();
                account.retries = 0;
            }
            Fact::Failed { why, news } => {
                ensure!(
                    news == News::Covered || !account.is_looping,
                    "each failure of the crash loop of s{i} is an alert"
                );
                self.failed.push(i);
                if let Ended::Backgrounded { .. } = why {
                    let run = account.run.as_ref().filter(|run| run.exited);
                    let exited_at = run.ok_or("nothing went to the background")?.exited_at;
                    ensure!(
                        now >= exited_at + LINGER_PATIENCE,
                        "the children of s{i} have no time to follow it"
                    );
                    account.cause = Some(Cause::Lasting);
                } else if let Some(run) = &account.run
                    && !run.exited
                {
                    account.cause = Some(Cause::Other);
                } else if self.ticked {
                    account.cause = Some(Cause::Other);
                }
            }
            Fact::BackingOff { pause, .. } => {
                let action = account.cause.map(|cause| contract(recovery, cause));
                let longest = match action {
                    Some(CodeAction::Retry) => Duration::from_millis(1_760),
                    _ => recovery.backoff.max,
                };
                ensure!(pause <= longest, "s{i} pauses for too long: {pause:?}");
                let is_over = recovery.limit.is_some_and(|limit| {
                    let mut recent = account.recent.clone();
                    recent.retain(|at| now.since(*at) < limit.window);
                    recent.len() >= limit.restarts as usize
                });
                if action == Some(CodeAction::Restart) && is_over {
                    ensure!(
                        account.is_looping && pause >= recovery.backoff.max.mul_f64(0.89),
                        "s{i} is over its limit and pauses for {pause:?} only"
                    );
                }
                account.not_before = self.now + pause;
            }
            Fact::Stopped {
                outcome: Outcome::Completed,
            } => {
                let action = account.cause.map(|cause| contract(recovery, cause));
                ensure!(
                    action == Some(CodeAction::Stop),
                    "s{i} is taken for complete"
                );
                let run = self.gone.iter().find(|(gone, _)| *gone == i);
                account.is_done = run.is_some_and(|(_, run)| run.was_ready());
            }
            Fact::RolledBack { .. } => {
                ensure!(!account.is_displaced, "s{i} is not back");
            }
            Fact::Ready { .. } => {
                let has_evidence = account.run.as_ref().is_some_and(|run| run.was_ready());
                ensure!(has_evidence, "s{i} is ready without evidence");
            }
            Fact::Halted {
                why: Halt::NotRestored { .. },
            } => {
                account.is_to_restore = false;
                account.old_tokens.extend(account.restore.take());
            }
            Fact::Restoring { .. } => account.is_to_restore = true,
            Fact::Halted {
                why: Halt::Unkillable { .. },
            } => {
                let run = account.run.as_mut().ok_or("nothing is unkillable")?;
                ensure!(run.killed, "s{i} is unkillable, but was not killed");
                run.is_unkillable = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks the invariants after every event.
    fn examine(&mut self) -> Check {
        let now = self.now;
        let present = self.present();
        let mut ids: Vec<usize> = self.engine.ids().map(|id| id.index()).collect();
        ids.sort_unstable();
        let on_duty = self.on_duty();
        ensure!(ids == on_duty, "{ids:?} are there instead of {on_duty:?}");
        // Only one of two definitions runs, except in an overlap.
        for (&i, &(new, _)) in &self.trials {
            let runs = |i: usize| {
                let run = self.accounts.get(i).and_then(|it| it.run.as_ref());
                run.is_some_and(|run| !run.is_unkillable)
            };
            let style = self.engine.trial(sid(i)).map(|trial| trial.style);
            ensure!(
                style == Some(Style::Overlap) || !(runs(i) && runs(new)),
                "s{i} runs beside its candidate s{new}"
            );
        }
        let views: BTreeMap<usize, View> = present
            .iter()
            .map(|&i| (i, self.engine.view(sid(i)).unwrap()))
            .collect();
        let is_idle = |view: &View| matches!(view.state, StateName::Stopped | StateName::Halted);
        let holds_one = self.accounts.iter().any(|account| account.run.is_some());
        let is_down = views.values().all(is_idle) && (self.shutting_down || !holds_one);
        ensure!(
            self.engine.is_down() == is_down,
            "it is not said whether all is down"
        );
        let accounts: BTreeMap<usize, (bool, bool)> = present
            .iter()
            .map(|&i| (i, &self.accounts[i]))
            .map(|(i, account)| (i, (account.unwanted(), account.is_done)))
            .collect();
        for (&i, view) in &views {
            let judged_as = self.judged_as(i);
            let leaving_dependent = (0..self.specs.len()).find(|&d| {
                let account = &self.accounts[d];
                let lives = account.restore.is_some()
                    || account.is_to_restore
                    || account.run.as_ref().is_some_and(|run| !run.is_unkillable);
                let run = account.run.as_ref().filter(|run| !run.is_unkillable);
                let is_leaving = account.unwanted() || run.is_some_and(|run| run.starts_again);
                self.needs[d].contains(&i) && is_leaving && lives
            });
            let deadline = self.engine.services[&sid(i)].deadline_of_state();
            let (account, spec) = (&mut self.accounts[i], &self.specs[i]);
            let run = account.run.as_ref();
            use StateName as S;

            // The view matches the processes on the host.
            ensure!(view.since <= now, "s{i} entered its state in the future");
            ensure!(
                view.started.is_some() == view.run.is_some(),
                "s{i}: a run without a beginning"
            );
            match run.filter(|run| !run.is_unkillable) {
                Some(run) => {
                    ensure!(
                        view.run == Some(run.id),
                        "s{i} is {} beside a live run",
                        view.state
                    );
                    let pid = run.pid.filter(|_| !run.exited);
                    ensure!(
                        view.pid == pid,
                        "s{i} shows pid {:?} instead of {pid:?}",
                        view.pid
                    );
                    let expect = match run {
                        _ if run.exited || run.asked || run.killed => S::StopPending,
                        _ if run.frozen && account.snapshot.is_none() => S::Paused,
                        _ if run.was_ready() => S::Running,
                        _ => S::StartPending,
                    };
                    // A service that waits for its dependents to stop is shown as stopping.
                    let is_leaving = account.unwanted() || run.is_restart_due();
                    let shown = match is_leaving {
                        true => S::StopPending,
                        false => expect,
                    };
                    ensure!(view.state == shown, "s{i} is {}, not {shown}", view.state);
                    let is_ready = matches!(expect, S::Running | S::Paused);
                    ensure!(view.ready == is_ready, "s{i}: ready is {}", view.ready);
                    let are_remains =
                        run.exited && !(run.asked && spec.stop.scope == StopScope::Tree);
                    let lingers = !run.asked
                        && account.cause == Some(Cause::Exit(Exit::Code(0)))
                        && run.exited_at.since(run.began) <= spec.start.timeout
                        && !spec.recovery.codes.contains_key(&0);
                    ensure!(
                        run.killed || !are_remains || lingers,
                        "what s{i} left behind lives on"
                    );
                    ensure!(!(run.asked && run.frozen), "s{i} is to stop, but suspended");
                    let is_forgotten = is_leaving && is_ready && leaving_dependent.is_none();
                    ensure!(!is_forgotten, "the stop of s{i} is forgotten");
                    let is_ticked = self.ticked && run.dated < self.events;
                    let is_late = is_ticked && run.asked && !run.killed && now >= run.kill_at;
                    ensure!(!is_late, "s{i} is not killed in time");
                    let (since, taken) = run.climb;
                    let is_due = |step: &StopStep| now >= since + step.after;
                    let is_late = is_ticked
                        && run.asked
                        && !run.killed
                        && spec.stop.ladder.get(taken).is_some_and(is_due);
                    ensure!(!is_late, "s{i} is not asked the next way");
                    let is_late = is_ticked && expect == S::StartPending && now >= run.start_by;
                    ensure!(!is_late, "s{i} may start for ever");
                }
                None => {
                    ensure!(
                        view.run.is_none() && view.pid.is_none() && !view.ready,
                        "s{i} shows a run"
                    );
                    let is_restoring = account.restore.is_some() || account.is_to_restore;
                    let is_starting = view.state == S::StartPending && is_restoring;
                    let is_idle = matches!(
                        view.state,
                        S::Stopped | S::Waiting | S::BackingOff | S::Halted
                    );
                    ensure!(
                        is_starting || is_idle,
                        "s{i} is {} without a run",
                        view.state
                    );
                    let is_down = matches!(view.state, S::Stopped) || run.is_some() || is_starting;
                    ensure!(
                        !account.unwanted() || is_down,
                        "s{i} is {} though unwanted",
                        view.state
                    );
                    ensure!(
                        run.is_none() || view.state == S::Halted,
                        "s{i} forgets what is left of it"
                    );
                }
            }
            if view.state == S::Halted {
                let has_halted = self.needs[i].iter().any(|&need| {
                    let of = accounts.get(&need).copied().unwrap_or_default();
                    let has_ended = views[&need].state == S::Stopped && of == (false, false);
                    views[&need].state == S::Halted || has_ended
                });
                ensure!(
                    !account.is_hung_up || has_halted,
                    "s{i} is halted for a need that is mended"
                );
                ensure!(view.detail.is_some(), "s{i} is halted for no reason");
            }
            if self.shutting_down && account.run.is_none() && view.state == S::Stopped {
                account.restore = None;
                account.is_to_restore = false;
            }
            // The state behind a stop that waits for dependents.
            let within = match &account.run {
                Some(run)
                    if (account.unwanted() || run.starts_again)
                        && !(run.exited || run.asked || run.killed) =>
                {
                    match (run.frozen && account.snapshot.is_none(), run.was_ready()) {
                        (true, _) => S::Paused,
                        (false, true) => S::Running,
                        (false, false) => S::StartPending,
                    }
                }
                _ => view.state,
            };
            if let Some((_, by)) = account.snapshot {
                let is_tried = self.engine.trial(sid(i)).map(|trial| trial.phase)
                    == Some(TrialPhase::Snapshot);
                let deadline = match is_tried {
                    true => self.engine.deadline(),
                    false => deadline,
                };
                ensure!(
                    deadline.is_some_and(|at| at <= by) && (within == S::Running || is_tried),
                    "a snapshot of s{i} has no end, though it is {}",
                    view.state
                );
            }

            // A crash loop is visible, reported again, and over when the service is down.
            let is_down = matches!(view.state, S::Stopped | S::Halted);
            account.is_looping &= !is_down || view.state == S::Stopped && !account.is_unwanted;
            ensure!(
                view.crash_looping == (account.is_looping && !is_down),
                "s{i}: crash-looping is {}",
                view.crash_looping
            );
            if view.crash_looping {
                let next = self.engine.services[&sid(i)].deadline();
                let by = account.looped_at + REMINDER;
                ensure!(next.is_some_and(|at| at <= by), "s{i} loops unseen");
            }
            let is_lingering = run.is_some_and(|run| {
                run.exited && !run.asked && !run.killed && now >= run.lingers_until
            });
            ensure!(!(self.ticked && is_lingering), "what is left of s{i} stays");

            // Every wait has a deadline.
            let must_wake = match within {
                S::StartPending | S::StopPending | S::BackingOff => true,
                S::Running => spec.liveness.is_some(),
                _ => false,
            };
            ensure!(
                !must_wake || deadline.is_some(),
                "s{i} is {} without a deadline",
                view.state
            );
            if view.state == S::Waiting && deadline.is_none() {
                // The missing need either makes progress by itself, or an operator holds it.
                let mut missing = 0;
                for &need in &self.needs[i] {
                    let account = &self.accounts[need];
                    let state = views[&need].state;
                    ensure!(
                        state != S::Halted,
                        "s{i} waits for s{need}, which is halted"
                    );
                    let is_of_use = state == S::Running && !account.unwanted()
                        || state == S::Stopped && account.is_done;
                    missing += usize::from(!is_of_use);
                    let is_held = state != S::Stopped || account.unwanted();
                    ensure!(
                        is_of_use || is_held,
                        "s{i} waits for s{need}, which nobody starts"
                    );
                }
                ensure!(missing > 0, "s{i} waits for nothing");
            }

            // The step after the end of a run.
            let account = &mut self.accounts[i];
            if let Some((_, run)) = self.gone.iter().find(|(gone, _)| *gone == i) {
                if run.was_ready() && now.since(run.began) >= judged_as.recovery.reset_after {
                    account.retries = 0;
                }
                let action = account
                    .cause
                    .map(|cause| contract(&judged_as.recovery, cause));
                let fits = match action {
                    _ if run.is_unkillable => matches!(view.state, S::Halted | S::Stopped),
                    // A candidate has no restart policy.
                    _ if account.beside.is_some() => view.state == S::Stopped,
                    _ if account.unwanted() => view.state == S::Stopped,
                    _ if run.starts_again => {
                        matches!(view.state, S::Waiting | S::StartPending | S::Halted)
                    }
                    None => false,
                    Some(CodeAction::Stop) => view.state == S::Stopped,
                    Some(CodeAction::Halt) => view.state == S::Halted,
                    Some(CodeAction::Retry) => matches!(view.state, S::BackingOff | S::Halted),
                    Some(CodeAction::Restore) => {
                        view.state == S::StartPending
                            && (account.restore.is_some() || account.is_to_restore)
                    }
                    Some(CodeAction::Restart) => {
                        matches!(
                            view.state,
                            S::BackingOff | S::Halted | S::Waiting | S::StartPending
                        )
                    }
                };
                ensure!(
                    fits,
                    "s{i} is {} after {:?}, where {action:?} is due",
                    view.state,
                    account.cause
                );
            }
            ensure!(view.restarts >= account.restarts, "s{i} forgets restarts");
            if view.restarts > account.restarts {
                ensure!(
                    view.restarts == account.restarts + 1,
                    "s{i} restarts twice at once"
                );
                account.restarts = view.restarts;
                let action = account
                    .cause
                    .map(|cause| contract(&judged_as.recovery, cause));
                match action {
                    _ if self.restored => {}
                    Some(CodeAction::Retry) => {
                        account.retries += 1;
                        ensure!(
                            account.retries <= RETRY_LIMIT,
                            "s{i} is tried once more than allowed"
                        );
                    }
                    Some(CodeAction::Restart) => {
                        if let Some(limit) = judged_as.recovery.limit {
                            account.recent.push(now);
                            account.recent.retain(|at| now.since(*at) < limit.window);
                            let within = account.recent.len();
                            let is_over = within > limit.restarts as usize;
                            ensure!(
                                !is_over || limit.then == BeyondLimit::Alert,
                                "s{i} restarts {within} times within its window"
                            );
                            ensure!(
                                !is_over || view.crash_looping,
                                "s{i} restarts {within} times and is not crash-looping"
                            );
                            while account.recent.len() > limit.restarts as usize {
                                account.recent.remove(0);
                            }
                        }
                    }
                    action => return Err(format!("s{i} restarts where {action:?} is due")),
                }
            }
        }
        Ok(())
    }

    // The host.

    fn spawn(&mut self, id: ServiceId, run: RunId) {
        let i = id.index();
        let (soon, later) = (self.millis(20), self.millis(20_000));
        let at = self.now + soon;
        if !self.behaves && self.chance(0.04) {
            return;
        }
        if !self.behaves && self.chance(0.08) {
            let at = at + [Duration::ZERO, Duration::from_secs(120)][self.below(2)];
            let why = match self.chance(0.3) {
                true => StartFailure::Permanent("not a program".into()),
                false => StartFailure::Transient("no such file".into()),
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
        match self.chance(0.3) {
            true => Duration::ZERO,
            false => Duration::from_secs_f64(self.random.unit() * most as f64 / 1e3),
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

/// Returns whether the needs contain a cycle.
fn has_circle(needs: &[Vec<usize>]) -> bool {
    (0..needs.len()).any(|root| {
        let (mut open, mut seen) = (needs[root].clone(), HashSet::new());
        while let Some(i) = open.pop() {
            if i == root {
                return true;
            }
            if seen.insert(i) {
                open.extend(&needs[i]);
            }
        }
        false
    })
}

fn below(random: &mut Random, n: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "less than n"
    )]
    let index = (random.unit() * n as f64) as usize;
    index
}

fn chance(random: &mut Random, probability: f64) -> bool {
    random.unit() < probability
}

pub(super) fn spec(i: usize, needs: &[usize], random: &mut Random) -> Spec {
    fn millis(choices: &[u64], random: &mut Random) -> Duration {
        Duration::from_millis(choices[below(random, choices.len())])
    }
    let name = |i: usize| ServiceName::new(&format!("s{i}")).unwrap();
    let probe = || Probe::File("/run/ready".into());
    let backoff = |random: &mut Random| {
        let base = millis(&[0, 10, 100, 1_000], random);
        let factor = [1.0, 1.5, 2.0, 1000.0][below(random, 4)];
        let max = base.max(millis(&[100, 5_000, 30_000], random));
        Backoff { base, factor, max }
    };
    let actions = [
        CodeAction::Stop,
        CodeAction::Restart,
        CodeAction::Retry,
        CodeAction::Restore,
        CodeAction::Halt,
    ];
    let mut codes = BTreeMap::new();
    for code in [0, 1, 7, 137, 201, 202] {
        if chance(random, 0.1) {
            codes.insert(code, actions[below(random, 5)]);
        }
    }
    let wait_for = (0..[0, 0, 0, 1, 2][below(random, 5)])
        .map(|_| WaitFor {
            probe: probe(),
            strategy: match below(random, 3) {
                0 => Strategy::Fixed {
                    interval: millis(&[1, 100, 1_000], random),
                },
                1 => Strategy::Backoff(backoff(random)),
                _ => Strategy::Probe {
                    interval: millis(&[1, 250], random),
                    passes: 1 + below(random, 3) as u32,
                },
            },
            deadline: millis(&[1, 500, 120_000], random),
        })
        .collect();
    Spec {
        name: name(i),
        environment: Environment::Development,
        description: None,
        display_name: None,
        manager_name: None,
        command: Argv::new(vec!["program".into()]).unwrap(),
        working_dir: None,
        env: Env::default(),
        env_file: None,
        inherit_env: Vec::new(),
        priority: None,
        cpus: Vec::new(),
        limits: Limits::default(),
        sandbox: None,
        listen: Vec::new(),
        account: None,
        needs: needs
            .iter()
            .map(|&need| Need::Service(name(need)))
            .collect(),
        need_names: std::collections::BTreeMap::new(),
        start: Start {
            owner: crate::spec::Owner::Service,
            timeout: millis(&[1, 1_000, 10_000, 60_000], random),
            ready: match below(random, 4) {
                0 => None,
                1 => Some(Ready::Probe(probe())),
                2 => Some(Ready::Log("ready".into())),
                _ => Some(Ready::Notify(Senders::Tree)),
            },
        },
        wait_for,
        liveness: chance(random, 0.5).then(|| Liveness {
            probe: probe(),
            every: millis(&[1, 500, 10_000], random),
            timeout: millis(&[1, 30, 2_000], random),
            misses: 1 + below(random, 3) as u32,
        }),
        stop: Stop {
            graceful: millis(&[0, 10, 5_000, 30_000], random),
            ladder: [0, below(random, 3), below(random, 12_000)]
                .into_iter()
                .map(|millis| Duration::from_millis(millis as u64))
                .scan(Duration::ZERO, |after, more| {
                    *after += more;
                    Some(*after)
                })
                .zip([Signal::Int, Signal::Term, Signal::Quit].map(StopAsk::Signal))
                .map(|(after, ask)| StopStep { ask, after })
                .take(1 + below(random, 3))
                .collect(),
            scope: if chance(random, 0.5) {
                StopScope::Tree
            } else {
                StopScope::Main
            },
        },
        reload: None,
        recovery: Recovery {
            policy: [
                Policy::Restart,
                Policy::Restart,
                Policy::Restart,
                Policy::Strict,
                Policy::Never,
            ][below(random, 5)],
            backoff: backoff(random),
            reset_after: millis(&[1, 500, 10_000], random),
            limit: chance(random, 0.7).then(|| RestartLimit {
                restarts: 1 + below(random, 10) as u32,
                window: millis(&[1, 1_000, 60_000], random),
                then: [BeyondLimit::Alert, BeyondLimit::Halt][below(random, 2)],
            }),
            codes,
        },
        on_alert: None,
        snapshot: chance(random, 0.5).then(|| SnapshotPolicy {
            paths: Vec::new(),
            keep: SnapshotKeep::default(),
            when: match chance(random, 0.7) {
                true => SnapshotWhen::Healthy,
                false => SnapshotWhen::Manual,
            },
            after: millis(&[1, 1_000, 60_000], random),
            every: chance(random, 0.5).then(|| millis(&[1_000, 60_000, 3_600_000], random)),
            max_size: SnapshotPolicy::MAX_SIZE,
            still: match below(random, 3) {
                0 => Still::Nothing,
                1 => Still::Pause,
                _ => Still::Commands {
                    quiesce: Argv::new(vec!["quiesce".into()]).unwrap(),
                    thaw: None,
                },
            },
        }),
        log: LogPolicy {
            level: Level::Warn,
            rotate: Rotation::default(),
            keep: Retention::default(),
            compress: Compress::None,
            format: LogFormat::Raw,
            streams: crate::spec::Streams::Merged,
            filter: false,
            redact: crate::log::redact::Redaction::new(crate::log::redact::RedactWith::Label),
            sinks: Vec::new(),
        },
        http: None,
    }
}

/// `cargo test --release -p mainstay-core what_services_cost -- --ignored --nocapture`
#[test]
#[ignore = "measures time"]
#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn what_services_cost() {
    const N: usize = 500;
    type Needs = fn(usize) -> Vec<usize>;
    let graphs: [(&str, Needs); 4] = [
        ("none needs another", |_| vec![]),
        ("all need one", |i| if i == 0 { vec![] } else { vec![0] }),
        ("a chain", |i| (0..i).rev().take(1).collect()),
        ("each needs the ten before", |i| {
            (0..i).rev().take(10).collect()
        }),
    ];
    for (name, needs) in graphs {
        let specs: Vec<Arc<Spec>> = (0..N)
            .map(|i| {
                let mut spec = spec(i, &needs(i), &mut Random::new(1));
                (spec.wait_for, spec.liveness, spec.start.ready) =
                    (vec![], None, Some(Ready::Notify(Senders::Tree)));
                Arc::new(spec)
            })
            .collect();
        let mut engine = Engine::new(specs, 1).unwrap();
        let began = std::time::Instant::now();
        let mut open = std::collections::VecDeque::from(engine.start_all(Instant::ZERO));
        let mut steps = 0;
        let mut drive = |engine: &mut Engine, open: &mut std::collections::VecDeque<Action>| {
            while let Some(action) = open.pop_front() {
                let events = match action {
                    Action::Spawn(id, run) => vec![
                        Event::Spawned(id, run, 1),
                        Event::Notified(id, run, Notice::Ready),
                    ],
                    Action::AskToStop(id, run, _) => {
                        vec![
                            Event::Exited(id, run, Exit::Code(0)),
                            Event::Emptied(id, run),
                        ]
                    }
                    _ => continue,
                };
                for event in events {
                    steps += 1;
                    open.extend(engine.step(event, Instant::ZERO));
                    std::hint::black_box(engine.deadline());
                }
            }
        };
        drive(&mut engine, &mut open);
        let started = began.elapsed();
        assert!(
            engine
                .ids()
                .all(|id| engine.view(id).unwrap().state == StateName::Running)
        );
        open.extend(engine.stop_all(Instant::ZERO));
        drive(&mut engine, &mut open);
        assert!(engine.is_down());
        println!(
            "{name}: up in {started:?}, up and down in {:?}, {steps} steps",
            began.elapsed()
        );
    }
    println!("{} bytes a service", size_of::<Service>());
}
