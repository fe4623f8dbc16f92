//! Simulation of the host: the real dispatcher and the real engine on a machine that consists of
//! data, and fails in every way.
//!
//! One seed is one schedule: a set of services, and a few hundred steps, each with a seed of its
//! own (`steps.rs`): time passes, clients ask and leave, processes end, the storage fills up, the
//! supervisor is suspended or killed, between two calls or within one, and another takes over. At
//! the end, everything is stopped on a machine without troubles, and has to end. What happens
//! within a step follows from its seed, so that a failing schedule stays the same when other steps
//! are left out: it is reduced to the steps that matter.
//!
//! `world.rs`, `disk.rs`, `effects.rs` and `storage.rs` are the machine, `life.rs` drives the
//! dispatcher as `Host` does. The rules are checked after every call (`rules.rs`), and in the
//! effects that could break them (`conduct.rs`), from effects and responses alone. One rule is
//! about the real time: no call of the dispatcher takes any. `coverage.rs` counts what was reached.
//! `cases.rs` has what schedules reach too rarely.

mod cases;
mod conduct;
mod coverage;
mod disk;
mod effects;
mod life;
mod random;
mod rules;
mod specs;
mod steps;
mod storage;
mod turns;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::coverage::Coverage;
use self::life::{BLOCKS, Check, Life};
use self::random::Random;
use self::world::Machine;

/// The smallest number of steps in a schedule.
const STEPS: usize = 200;

/// The time that the test takes in the test suite.
const USUAL: Duration = Duration::from_secs(20);
/// The longest search for the steps that matter.
const LONGEST_SEARCH: Duration = Duration::from_secs(20);
/// The number of broken rules after which a long run ends.
const MOST_FAILURES: usize = 12;

/// The number of schedules that reach every possible pair of a state and a call.
const ENOUGH: u64 = 20_000;

/// The number of schedules that reach every possible pair in every possible circumstance.
const ENOUGH_FOR_ALL: u64 = 1_000_000;

/// Seeds that have found faults, and what those were.
const FOUND: &[(u64, &str)] = &[
    (
        38_514,
        "a committed update forgot the desired state of its service",
    ),
    (
        58_453,
        "`stop --with-dependents` took a definition on trial for a service, and was refused",
    ),
    (
        69_124,
        "a definition took effect before the exit of the last run of the one before it was processed",
    ),
    (
        470_280,
        "a kill of all services let a restore go on after the removal of its service",
    ),
];

/// Everything that happens in a simulation.
#[derive(Clone)]
struct Schedule {
    /// The seed of the services.
    setup: u64,
    machine: Machine,
    /// The seed of each step.
    steps: Vec<u64>,
}

/// The result of a schedule.
struct Outcome {
    check: Check,
    /// The number of steps that were taken.
    steps: usize,
    calls: u64,
    coverage: Coverage,
    transcript: Vec<String>,
}

impl Schedule {
    /// Returns the schedule of a seed. One machine in four is an eventful one.
    fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let setup = random.next();
        let count = STEPS + random.below(100);
        let machine = match seed % 4 {
            3 => Machine::Eventful,
            _ => Machine::Usual,
        };
        Self {
            setup,
            machine,
            steps: (0..count).map(|_| random.next()).collect(),
        }
    }

    fn run(&self, tells: bool) -> Outcome {
        let mut taken = 0;
        let mut life = match Life::begin(self.setup, self.machine, tells) {
            Ok(life) => life,
            Err(why) => {
                return Outcome {
                    check: Err(why),
                    steps: 0,
                    calls: 0,
                    coverage: Coverage::default(),
                    transcript: Vec::new(),
                };
            }
        };
        let done = catch_unwind(AssertUnwindSafe(|| {
            for seed in &self.steps {
                taken += 1;
                life.step(*seed)?;
            }
            life.finish()
        }));
        Outcome {
            check: done.unwrap_or_else(|_| Err("the simulation panics".to_owned())),
            steps: taken,
            calls: life.calls,
            transcript: life.world().transcript.take().unwrap_or_default(),
            coverage: life.coverage,
        }
    }

    /// Leaves out steps while the schedule still fails in the same way, for a limited time.
    fn reduced(mut self, why: &str) -> Self {
        let began = Instant::now();
        let fails = |schedule: &Self| {
            let outcome = schedule.run(false);
            let is_same = outcome.check.is_err_and(|it| kind(&it) == kind(why));
            is_same.then_some(outcome.steps)
        };
        if let Some(taken) = fails(&self) {
            self.steps.truncate(taken);
        }
        let mut size = self.steps.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            let mut is_smaller = false;
            while at < self.steps.len() && began.elapsed() < LONGEST_SEARCH {
                let mut fewer = self.clone();
                let end = (at + size).min(fewer.steps.len());
                fewer.steps.drain(at..end);
                if fails(&fewer).is_some() {
                    (self, is_smaller) = (fewer, true);
                } else {
                    at += size;
                }
            }
            if !is_smaller {
                size /= 2;
            }
        }
        self
    }
}

/// The rule that was broken, without the service that broke it.
fn kind(why: &str) -> String {
    let is_name = |word: &str| specs::NAMES.iter().any(|name| word.starts_with(name));
    let words = why.split_whitespace();
    let words = words.filter(|word| !word.contains(|c: char| c.is_ascii_digit()) && !is_name(word));
    words.take(6).collect::<Vec<_>>().join(" ")
}

/// Runs the schedule of a seed. A turn that takes long must do so three times: on a busy machine,
/// any turn does now and then.
fn run(seed: u64) -> Outcome {
    let schedule = Schedule::of(seed);
    let mut outcome = schedule.run(false);
    for _ in 0..2 {
        if outcome
            .check
            .as_ref()
            .is_err_and(|why| why.starts_with(BLOCKS))
        {
            outcome = schedule.run(false);
        }
    }
    outcome
}

/// Reduces a failing schedule, and prints what happens in it.
fn explain(seed: u64, why: &str, is_brief: bool) {
    let schedule = Schedule::of(seed);
    let schedule = if is_brief {
        schedule
    } else {
        schedule.reduced(why)
    };
    let outcome = schedule.run(true);
    for line in &outcome.transcript {
        println!("{line}");
    }
    let why = match &outcome.check {
        Err(why) => why,
        Ok(()) => why,
    };
    panic!(
        "{why}\n{} of the steps are enough\nreplay: MAINSTAY_HOST_SIM_SEED={seed} cargo test -p mainstay-host what_must_hold",
        schedule.steps.len()
    );
}

#[test]
fn whatever_happens_to_a_host_what_must_hold_holds() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    if let Some(seed) = number("MAINSTAY_HOST_SIM_SEED") {
        return match run(seed).check {
            Ok(()) => println!("seed {seed} holds"),
            Err(why) => explain(seed, &why, false),
        };
    }
    // A brief run ends with the first broken rule, and does not reduce the schedule.
    let is_brief = number("MAINSTAY_HOST_SIM_BRIEF").is_some();
    let most_failures = if is_brief { 1 } else { MOST_FAILURES };
    for (seed, _) in FOUND {
        if let Err(why) = run(*seed).check {
            explain(*seed, &why, is_brief);
        }
    }
    let first = number("MAINSTAY_HOST_SIM_FIRST").unwrap_or(1);
    let wanted = number("MAINSTAY_HOST_SIM_SCHEDULES");
    let began = Instant::now();
    let threads = wanted.map_or(1, |_| {
        std::thread::available_parallelism().map_or(1, usize::from)
    });
    let next = AtomicU64::new(first);
    let work = || {
        let mut part = Part::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_enough = match wanted {
                Some(wanted) => seed >= first + wanted,
                None => began.elapsed() > USUAL || !part.failed.is_empty(),
            };
            if is_enough {
                return part;
            }
            part.add(seed, run(seed));
            if part.failed.len() >= most_failures {
                next.fetch_add(wanted.unwrap_or(0), Ordering::Relaxed);
            }
        }
    };
    let mut all = Part::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for part in running {
            all.merge(part.join().expect("a panic is caught"));
        }
    });
    all.print(began.elapsed());
    for (kind, (seed, count)) in &all.failed {
        println!("{count} times: {kind}: seed {seed}");
    }
    if let Some((why, (seed, _))) = all.failed.iter().next() {
        explain(*seed, why, is_brief);
    }
    let (unexpected, missing) = (all.coverage.unexpected(), all.coverage.missing());
    let refuted = all.coverage.refuted();
    if wanted.is_some() {
        println!("{}", all.coverage.table());
        println!("not reached: {}", missing.join(", "));
    }
    assert!(refuted.is_empty(), "impossible, and reached: {refuted:?}");
    if all.schedules >= ENOUGH {
        assert!(
            unexpected.is_empty(),
            "lost or new combinations: {unexpected:?}"
        );
    }
    if all.schedules >= ENOUGH_FOR_ALL {
        assert!(missing.is_empty(), "not reached: {missing:?}");
    }
}

/// The results of a part of the schedules.
#[derive(Default)]
struct Part {
    schedules: u64,
    calls: u64,
    coverage: Coverage,
    /// The broken rules: the first seed of each, and the number of seeds.
    failed: BTreeMap<String, (u64, u64)>,
}

impl Part {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.schedules += 1;
        self.calls += outcome.calls;
        self.coverage.add(&outcome.coverage);
        if let Err(why) = outcome.check {
            self.failed.entry(kind(&why)).or_insert((seed, 0)).1 += 1;
        }
    }

    fn merge(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.calls += other.calls;
        self.coverage.add(&other.coverage);
        for (kind, (seed, count)) in other.failed {
            let all = self.failed.entry(kind).or_insert((seed, 0));
            *all = (all.0.min(seed), all.1 + count);
        }
    }

    fn print(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let (reached, all) = self.coverage.count();
        println!(
            "{} schedules, {} calls, {:.0} schedules/s, {:.0} calls/s, {reached} of {all} combinations",
            self.schedules,
            self.calls,
            self.schedules as f64 / seconds,
            self.calls as f64 / seconds
        );
    }
}
