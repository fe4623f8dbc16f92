//! `cargo xtask bench budget`: what mainstay costs before it does anything. Each figure is exact or
//! nearly so, and may not grow past the limit committed here.
//!
//! A change that needs more raises the limit in its own commit, and says there what it buys.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use super::run::{Run, Side};
use super::scenarios::{cost, sum};
use super::{Programs, build, prepare};
use crate::{Result, cargo};

/// A figure and the most it may be.
struct Item {
    what: &'static str,
    unit: &'static str,
    limit: u64,
    measure: fn(&Programs) -> Result<u64>,
}

/// The time in which an idle supervisor must not wake up.
const IDLE: Duration = Duration::from_secs(5);

/// The time in which the memory that a request needed is released: after two seconds without any.
const RELEASED: Duration = Duration::from_secs(3);

/// The time after which nothing is left to do after a start: back-off is reset after ten seconds.
const SETTLED: Duration = Duration::from_secs(12);

const BUDGET: &[Item] = &[
    Item {
        what: "mainstay: the program",
        unit: "kB",
        // Of these, 240 kB are for people: `init`, `explain`, completions and manual pages; 20 kB
        // are -q and -v, and the names of what is waited for and of what was probed; 24 kB are the
        // progress of long verbs, the times of log lines on a terminal, and failures as types;
        // 150 kB are `verify`: its sources, rules and findings; 10 kB are rejected versions and the
        // terms that `explain` knows.
        limit: 8_520,
        measure: |programs| kilobytes(&programs.mainstay),
    },
    Item {
        what: "mainstay: crates that it is built from",
        unit: "",
        limit: 109,
        measure: |_| crates("mainstay-cli"),
    },
    Item {
        what: "a service that is a Rust program (heartbeat)",
        unit: "kB",
        limit: 606,
        measure: |programs| kilobytes(&programs.heartbeat),
    },
    Item {
        what: "heartbeat: crates that it is built from",
        unit: "",
        limit: 6,
        measure: |_| crates("heartbeat"),
    },
    Item {
        what: "a supervisor of one idle service: PSS",
        unit: "KiB",
        // It differs by 100 KiB between runs.
        limit: 2450,
        measure: |programs| {
            let pss = || -> Result<u64> {
                forget_pages(&programs.mainstay)?;
                pss_of(&idle(programs)?)
            };
            // Pages that the system is still working on are not dropped.
            Ok(pss()?.min(pss()?))
        },
    },
    Item {
        what: "the same, after it has answered requests",
        unit: "KiB",
        limit: 2450,
        measure: |programs| {
            let run = idle(programs)?;
            let state_dir = run.path().join("state");
            let status = Command::new(&programs.mainstay)
                .args(["status", "--json"])
                .env("MAINSTAY_STATE_DIR", state_dir)
                .output()?;
            if !status.status.success() {
                return Err(String::from_utf8_lossy(&status.stderr).into());
            }
            thread::sleep(RELEASED);
            pss_of(&run)
        },
    },
    Item {
        what: "its open descriptors",
        unit: "",
        limit: 39,
        measure: |programs| {
            let run = idle(programs)?;
            let open =
                |pid| Ok(fs::read_dir(mainstay_testkit::procs::path(pid, "fd"))?.count() as u64);
            run.supervisors().into_iter().map(open).sum()
        },
    },
    Item {
        what: "its context switches in 5 s",
        unit: "",
        limit: 0,
        measure: |programs| {
            let run = idle(programs)?;
            thread::sleep(SETTLED);
            let supervisors = run.supervisors();
            let before = cost(&supervisors).switches;
            thread::sleep(IDLE);
            Ok(cost(&supervisors).switches - before)
        },
    },
];

/// Measures everything and prints the table. A figure over its limit is a failure.
pub(crate) fn run() -> Result<ExitCode> {
    let programs = build()?;
    prepare()?;
    let mut code = ExitCode::SUCCESS;
    println!("{:<46} {:>8} {:>8}", "", "now", "limit");
    for Item {
        what,
        unit,
        limit,
        measure,
    } in BUDGET
    {
        let now = measure(&programs)?;
        let verdict = if now > *limit {
            code = ExitCode::FAILURE;
            "over the limit"
        } else {
            ""
        };
        println!("{what:<46} {now:>8} {limit:>8} {unit:<4}{verdict}");
    }
    Ok(code)
}

/// Starts a supervisor with one service that does nothing, and waits until it has started.
fn idle(programs: &Programs) -> Result<Run> {
    let mut run = Run::start(programs, Side::Mainstay, 1, &["idle"])?;
    run.wait_for("S", 1)?;
    run.settle();
    Ok(run)
}

/// Returns the PSS of the supervisor, in KiB.
fn pss_of(run: &Run) -> Result<u64> {
    Ok(sum(&run.supervisors(), "smaps_rollup", "Pss")? as u64)
}

/// Drops the pages of a program from the page cache, so that they are read from the disk, as after
/// a boot. The linker leaves them there in larger units, of which one fault maps up to a megabyte.
fn forget_pages(program: &Path) -> Result<()> {
    let file = fs::File::open(program)?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

fn kilobytes(program: &Path) -> Result<u64> {
    Ok(fs::metadata(program)?.len() / 1000)
}

/// Counts the crates of a package, itself and its build-time macros included, on this system.
fn crates(package: &str) -> Result<u64> {
    let output = cargo()
        .args(["tree", "--locked", "--edges=normal", "--prefix=none"])
        .arg(format!("--package={package}"))
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo tree: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    // A line is `NAME VERSION`, and marks after it.
    let name = |line: &str| {
        line.split(' ')
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    Ok(text.lines().map(name).collect::<BTreeSet<_>>().len() as u64)
}
