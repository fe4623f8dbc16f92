//! The scenarios of the benchmark and their measurements.

use std::fs;
use std::thread;
use std::time::Duration;

use mainstay_testkit::procs::{self, Cost};
use rustix::process::Pid;

use super::Programs;
use super::run::{GRACEFUL, Record, Run, Side};
use crate::Result;

/// A measurement of one or more rows.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The side that Mainstay is compared with.
    pub(crate) bound: Option<Side>,
    /// Returns one figure per row, in the order of `rows`.
    pub(crate) measure: fn(&Programs, Side) -> Result<Vec<f64>>,
    pub(crate) rows: &'static [Row],
}

impl Scenario {
    /// Returns whether this is the scenario's name, or that of its group.
    pub(crate) fn is(&self, name: &str) -> bool {
        let rest = self.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
}

/// The goal for Mainstay's median.
pub(crate) enum Goal {
    Max(f64),
    Min(f64),
    /// The maximum ratio to the median of the other side.
    MaxRatio(f64),
    MinRatio(f64),
}

use Goal::{Max, MaxRatio, Min};

pub(crate) const fn row(what: &'static str, unit: &'static str, goal: Goal) -> Row {
    Row { what, unit, goal }
}

/// All scenarios except those of logs.
pub(crate) const PROCESSES: &[Scenario] = &[
    Scenario {
        name: "memory",
        bound: Some(Side::Bare),
        measure: memory,
        rows: &[
            row("PSS, 1 service", "MiB", Max(2.0)),
            row("PSS, 100 services", "MiB", Max(4.0)),
        ],
    },
    Scenario {
        name: "launch",
        bound: Some(Side::Bare),
        measure: launch,
        rows: &[
            row("launch → 1 child's first instruction", "ms", Max(8.0)),
            row("launch → 100", "ms", MaxRatio(1.5)),
            row("launch → 500", "ms", MaxRatio(1.5)),
            row("stop of 100 services", "ms", Max(50.0)),
        ],
    },
    Scenario {
        name: "restart",
        bound: Some(Side::Bare),
        measure: restart,
        rows: &[
            row(
                "exit → replacement's first instruction",
                "ms",
                MaxRatio(1.5),
            ),
            row("the same, 95th percentile", "ms", MaxRatio(2.0)),
        ],
    },
    Scenario {
        name: "crash",
        bound: Some(Side::Bare),
        measure: crash,
        rows: &[
            row("crash loop without delay: restarts", "/s", Min(500.0)),
            row("its CPU", "%", Max(5.0)),
        ],
    },
    Scenario {
        name: "tree",
        bound: None,
        measure: tree,
        rows: &[
            row(
                "grandchildren left by a stop, of 5: same group",
                "",
                Max(0.0),
            ),
            row("setsid", "", Max(0.0)),
        ],
    },
    Scenario {
        name: "stubborn",
        bound: None,
        measure: stubborn,
        rows: &[
            row("services that ignore TERM left, of 5", "", Max(0.0)),
            row("they are gone after (graceful = 2 s)", "s", Max(2.1)),
        ],
    },
    Scenario {
        name: "inherit",
        bound: Some(Side::Bare),
        measure: inherit,
        rows: &[
            row("a child's inherited descriptors above 2", "", Max(0.0)),
            row("its ignored and blocked signals", "", Max(0.0)),
        ],
    },
    Scenario {
        name: "idle",
        bound: Some(Side::Bare),
        measure: idle,
        rows: &[
            row("idle 20 s, 100 services: CPU", "ms", Max(0.0)),
            row("its context switches", "", Max(0.0)),
        ],
    },
];

fn memory(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    let measure = |count| -> Result<f64> {
        let mut run = Run::start(programs, side, count, &["idle"])?;
        run.wait_for("S", count)?;
        run.settle();
        Ok(sum(&run.supervisors(), "smaps_rollup", "Pss")? / 1024.0)
    };
    Ok(vec![measure(1)?, measure(100)?])
}

fn launch(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    let measure = |count| -> Result<(f64, f64)> {
        let mut run = Run::start(programs, side, count, &["idle"])?;
        let starts = run.wait_for("S", count)?;
        let last = starts[..count].iter().map(|record| record.ns).max();
        let launch_ns = last.ok_or("no start")? - run.launched;
        run.settle();
        if run.records("S").len() > count {
            return Err("a service was started twice".into());
        }
        let services = run.services();
        let (stop, _) = run.stop(services, Duration::from_secs(60))?;
        Ok((launch_ns as f64 / 1e6, stop.as_secs_f64() * 1e3))
    };
    let (one, hundred, five_hundred) = (measure(1)?, measure(100)?, measure(500)?);
    Ok(vec![one.0, hundred.0, five_hundred.0, hundred.1])
}

/// Runs one service that lives for 1.1 s. This is longer than any throttle, and nothing else wakes
/// the supervisor.
fn restart(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    let mut run = Run::start(programs, side, 1, &["crash", "1100"])?;
    run.wait_for("S", 16)?;
    let records = run.records("SE");
    let mut latencies: Vec<f64> = records
        .windows(2)
        .filter(|pair| pair[0].kind == 'E' && pair[1].kind == 'S')
        .map(|pair| (pair[1].ns - pair[0].ns) as f64 / 1e6)
        .collect();
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share).round() as usize];
    Ok(vec![at(0.5), at(0.95)])
}

fn crash(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    const WINDOW: Duration = Duration::from_secs(4);
    let mut run = Run::start(programs, side, 1, &["crash", "0"])?;
    run.wait_for("S", 2)?;
    let supervisors = run.supervisors();
    let (starts, before) = (run.records("S").len(), cost(&supervisors));
    thread::sleep(WINDOW);
    let (starts, after) = (run.records("S").len() - starts, cost(&supervisors));
    let window = WINDOW.as_secs_f64();
    Ok(vec![
        starts as f64 / window,
        (after.cpu - before.cpu).as_secs_f64() / window * 100.0,
    ])
}

fn tree(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    const COUNT: usize = 5;
    let mut run = Run::start(programs, side, COUNT, &["tree"])?;
    let groups = pids(run.wait_for("G", COUNT)?);
    let sessions = pids(run.wait_for("D", COUNT)?);
    let all = [&groups[..], &sessions].concat();
    let (_, left) = run.stop(all, GRACEFUL * 3)?;
    let count = |pids: &[Pid]| pids.iter().filter(|pid| left.contains(pid)).count() as f64;
    Ok(vec![count(&groups), count(&sessions)])
}

fn stubborn(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    const COUNT: usize = 5;
    let mut run = Run::start(programs, side, COUNT, &["stubborn"])?;
    let services = pids(run.wait_for("S", COUNT)?);
    run.settle();
    let (time, left) = run.stop(services, GRACEFUL * 3)?;
    Ok(vec![left.len() as f64, time.as_secs_f64()])
}

/// Signals 32 and 33, which the C library reserves. glibc's posix_spawn leaves them ignored.
const RESERVED: u64 = 0b11 << 31;

/// Measures the worst of ten children.
fn inherit(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    const COUNT: usize = 10;
    let mut run = Run::start(programs, side, COUNT, &["idle"])?;
    run.wait_for("S", COUNT)?;
    run.settle();
    let (mut descriptors, mut signals) = (0, 0);
    for pid in run.services() {
        // The service's own record file is one of the descriptors.
        let open = fs::read_dir(procs::path(pid, "fd"))?.count();
        descriptors = descriptors.max(open.saturating_sub(4));
        let status = fs::read_to_string(procs::path(pid, "status"))?;
        let masks = status.lines().filter_map(|line| {
            let mask = line
                .strip_prefix("SigIgn:")
                .or(line.strip_prefix("SigBlk:"))?;
            Some(u64::from_str_radix(mask.trim(), 16).ok()? & !RESERVED)
        });
        signals = signals.max(masks.map(u64::count_ones).sum());
    }
    Ok(vec![descriptors as f64, f64::from(signals)])
}

fn idle(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    const COUNT: usize = 100;
    let mut run = Run::start(programs, side, COUNT, &["idle"])?;
    run.wait_for("S", COUNT)?;
    run.settle();
    // Actions after a start, such as a backoff reset after ten seconds, do not count as idle.
    thread::sleep(Duration::from_secs(12));
    let supervisors = run.supervisors();
    let before = cost(&supervisors);
    thread::sleep(Duration::from_secs(20));
    let after = cost(&supervisors);
    let cpu = after.cpu - before.cpu;
    Ok(vec![
        cpu.as_secs_f64() * 1e3,
        (after.switches - before.switches) as f64,
    ])
}

fn pids(records: Vec<Record>) -> Vec<Pid> {
    records.into_iter().map(|record| record.pid).collect()
}

pub(crate) fn cost(pids: &[Pid]) -> Cost {
    pids.iter().map(|pid| procs::cost(*pid)).sum()
}

pub(crate) fn sum(pids: &[Pid], file: &str, key: &str) -> Result<f64> {
    let fields: Option<Vec<u64>> = pids
        .iter()
        .map(|pid| procs::field(*pid, file, key))
        .collect();
    match fields.as_deref() {
        None | Some([]) => Err("the supervisor is gone".into()),
        Some(fields) => Ok(fields.iter().sum::<u64>() as f64),
    }
}
