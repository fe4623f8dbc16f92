//! Benchmarks of logs. All output is checked: numbered lines, across all files.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::Programs;
use super::run::{LOG, Run, Side, now, place};
use super::scenarios::Goal::{Max, Min, MinRatio};
use super::scenarios::{Scenario, cost, row, sum};
use crate::Result;

/// The length of a line in bytes.
const LINE: u64 = 120;
const JSON: &str = "rotate = '10MB', keep = 1000, compress = 'none', format = 'json'";
const REDACT: &str = "rotate = '10MB', keep = 200, compress = 'none', \
                      redact = ['email', 'phone', 'credit-card', 'id-card-cn', 'iban', \
                      'ipv4', 'ipv6', 'mac', 'jwt', 'bearer', 'basic-auth', 'url-password', \
                      'aws-key', 'private-key', 'github-token', 'gitlab-token', \
                      'slack-token', 'google-api-key', 'stripe-key', 'password', 'ssn-us', \
                      'patient-id']";
const WRONG: &str = "lines lost, duplicate, torn or out of order";

pub(crate) const LOGS: &[Scenario] = &[
    Scenario {
        name: "logs-block",
        bound: Some(Side::Cat),
        measure: |programs, side| flow(programs, side, "block", 8_333_334, LOG),
        rows: &[
            row("1 GB of log in 64 KiB writes", "MB/s", MinRatio(1.3)),
            row("its CPU", "s/GB", Max(0.8)),
            row("its peak RSS", "MiB", Max(8.0)),
            row(WRONG, "", Max(0.0)),
        ],
    },
    Scenario {
        name: "logs-line",
        bound: Some(Side::Cat),
        measure: |programs, side| flow(programs, side, "line", 2_000_000, LOG),
        rows: &[
            row("240 MB of log, one write a line", "MB/s", MinRatio(1.4)),
            row("its CPU", "s/GB", Max(1.0)),
            row("its peak RSS", "MiB", Max(8.0)),
            row(WRONG, "", Max(0.0)),
        ],
    },
    Scenario {
        name: "logs-burst",
        bound: Some(Side::Cat),
        measure: burst,
        rows: &[
            row(
                "200,000 lines/s in bursts: how long the writer waits",
                "ms",
                Max(0.0),
            ),
            row("its CPU", "s/GB", Max(1.0)),
            row(WRONG, "", Max(0.0)),
        ],
    },
    Scenario {
        name: "logs-json",
        bound: Some(Side::S6),
        measure: |programs, side| flow(programs, side, "block", 4_166_667, JSON),
        rows: &[
            row(
                "500 MB of log as JSON, or s6-log with time stamps",
                "MB/s",
                MinRatio(5.0),
            ),
            row("its CPU", "s/GB", Max(2.0)),
            row("its peak RSS", "MiB", Max(8.0)),
            row(WRONG, "", Max(0.0)),
        ],
    },
    Scenario {
        name: "logs-redact",
        bound: None,
        measure: redact,
        rows: &[
            row(
                "22 classes of redaction: text a CPU second",
                "MB",
                Min(200.0),
            ),
            row(WRONG, "", Max(0.0)),
        ],
    },
    Scenario {
        name: "logs-killed",
        bound: None,
        measure: killed,
        rows: &[
            row(
                "killed every second in bursts of 200,000 lines/s: wrong",
                "",
                Max(0.0),
            ),
            row("the same as JSON", "", Max(0.0)),
            row(
                "killed every 50 ms in 1 GB of 64 KiB writes: wrong",
                "",
                Max(0.0),
            ),
            row("the same as JSON", "", Max(0.0)),
            row("killed every second, 50 services: wrong", "", Max(0.0)),
        ],
    },
    Scenario {
        name: "logs-full",
        bound: None,
        measure: full,
        rows: &[
            row(
                "a disk that fills and empties: lines lost and not said, or wrong",
                "",
                Max(0.0),
            ),
            row("lines lost", "", Min(1.0)),
            row("how long the writer waits", "ms", Max(1.0)),
        ],
    },
    Scenario {
        name: "logs-fifty",
        bound: None,
        measure: fifty,
        rows: &[
            row(
                "50 services, 24 MB each, one write a line",
                "MB/s",
                Min(100.0),
            ),
            row(WRONG, "", Max(0.0)),
        ],
    },
    Scenario {
        name: "logs-follow",
        bound: None,
        measure: follow,
        rows: &[
            row(
                "`logs -f`: a line is shown after (99th percentile)",
                "ms",
                Max(10.0),
            ),
            row("in a flood of 50,000 lines/s", "ms", Max(10.0)),
        ],
    },
    Scenario {
        name: "logs-tail",
        bound: None,
        measure: tail,
        rows: &[row("`logs -n 10` of a log of 10 GB", "ms", Max(50.0))],
    },
];

/// Measures the throughput from the writer's first byte until the last one is in a file, the CPU
/// time, the peak memory and the wrong lines.
fn flow(programs: &Programs, side: Side, mode: &str, lines: u64, log: &str) -> Result<Vec<f64>> {
    let mut run = Run::with_log(programs, side, 1, &[mode, "{}/go", &lines.to_string()], log)?;
    run.wait_for("S", 1)?;
    run.settle();
    let supervisors = run.supervisors();
    let before = cost(&supervisors);
    run.go()?;
    run.wait_for("E", 1)?;
    let begin = run.wait_for("B", 1)?[0].ns;
    wait_for_last(&run, 1, lines)?;
    let end = now();
    // A rotation at the very end must finish before the files are listed.
    run.settle();
    let after = cost(&supervisors);
    let peak = sum(&supervisors, "status", "VmHWM")? / 1024.0;
    let bytes = (lines * LINE) as f64;
    Ok(vec![
        bytes / 1e6 / ((end - begin) as f64 / 1e9),
        (after.cpu - before.cpu).as_secs_f64() / (bytes / 1e9),
        peak,
        wrong(programs, &run, 1, lines)?,
    ])
}

fn burst(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    const LINES: u64 = 1_000_000;
    let mut run = Run::start(
        programs,
        side,
        1,
        &["burst", "{}/go", &LINES.to_string(), "200000"],
    )?;
    run.wait_for("S", 1)?;
    run.settle();
    let supervisors = run.supervisors();
    let before = cost(&supervisors);
    run.go()?;
    let late_ms = run.wait_for("L", 1)?[0].ns as f64 / 1e6;
    wait_for_last(&run, 1, LINES)?;
    let cpu = (cost(&supervisors).cpu - before.cpu).as_secs_f64();
    run.settle();
    Ok(vec![
        late_ms.floor(),
        cpu / ((LINES * LINE) as f64 / 1e9),
        wrong(programs, &run, 1, LINES)?,
    ])
}

fn redact(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    let figures = flow(programs, side, "block", 4_166_667, REDACT)?;
    Ok(vec![1000.0 / figures[1], figures[3]])
}

fn killed(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    const SECOND: Duration = Duration::from_secs(1);
    const OFTEN: Duration = Duration::from_millis(50);
    let burst = ["burst", "{}/go", "1200000", "200000"];
    let block = ["block", "{}/go", "8333334"];
    let line = ["line", "{}/go", "200000"];
    let small = LOG.replace("10MB", "1MB").replace("200", "5000");
    let small_json = JSON.replace("10MB", "1MB").replace("1000", "5000");
    let measure = |count, stamp: &[&str], log: &str, period| -> Result<f64> {
        let lines: u64 = stamp[2].parse()?;
        let mut run = Run::with_log(programs, side, count, stamp, log)?;
        run.wait_for("S", count)?;
        run.settle();
        run.go()?;
        let mut kills = 0;
        while run.records("E").len() < count || kills < 3 {
            thread::sleep(period);
            run.replace()?;
            kills += 1;
            if kills > 2000 {
                return Err("it never ends".into());
            }
        }
        wait_for_last(&run, count, lines)?;
        run.settle();
        wrong(programs, &run, count, lines)
    };
    Ok(vec![
        measure(1, &burst, LOG, SECOND)?,
        measure(1, &burst, JSON, SECOND)?,
        measure(1, &block, &small, OFTEN)?,
        measure(1, &block, &small_json, OFTEN)?,
        measure(50, &line, &small, SECOND)?,
    ])
}

/// A file system that is unmounted on drop.
struct Tmpfs(PathBuf);

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A supervisor that still writes keeps the file system until it exits.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn full(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    const LINES: u64 = 1_000_000;
    let dir = place()?;
    let state_path = dir.path().join("state");
    fs::create_dir(&state_path)?;
    let options = c"size=160m,mode=0700";
    mount("tmpfs", &state_path, "tmpfs", MountFlags::empty(), options)
        .map_err(|error| format!("mount a small tmpfs (as root): {error}"))?;
    let tmpfs = Tmpfs(state_path);
    let log = LOG.replace("10MB", "1MB");
    let burst = ["burst", "{}/go", &LINES.to_string(), "200000"];
    let mut run = Run::in_dir(dir, programs, side, 1, &burst, &log)?;
    run.wait_for("S", 1)?;
    run.settle();
    run.go()?;
    let ballast_path = tmpfs.0.join("ballast");
    while run.records("L").is_empty() {
        let mut ballast = File::create(&ballast_path)?;
        while ballast.write_all(&[0; 1 << 16]).is_ok() {}
        thread::sleep(Duration::from_millis(300));
        fs::remove_file(&ballast_path)?;
        thread::sleep(Duration::from_millis(300));
    }
    let late_ms = run.wait_for("L", 1)?[0].ns as f64 / 1e6;
    let services = run.services();
    run.stop(services, Duration::from_secs(10))?;
    let found = verify(programs, &run, 0, LINES)?;
    let [_, lost, duplicate, torn, reordered, said] = found;
    let wrong = lost.abs_diff(said) + duplicate + torn + reordered;
    Ok(vec![wrong as f64, lost as f64, late_ms.floor()])
}

fn fifty(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    const COUNT: usize = 50;
    const LINES: u64 = 200_000;
    let mut run = Run::start(
        programs,
        side,
        COUNT,
        &["line", "{}/go", &LINES.to_string()],
    )?;
    run.wait_for("S", COUNT)?;
    run.settle();
    run.go()?;
    let begins = run.wait_for("B", COUNT)?;
    let begin = begins.iter().map(|record| record.ns).min().unwrap_or(0);
    wait_for_last(&run, COUNT, LINES)?;
    let seconds = (now() - begin) as f64 / 1e9;
    run.settle();
    Ok(vec![
        (COUNT as u64 * LINES * LINE) as f64 / 1e6 / seconds,
        wrong(programs, &run, COUNT, LINES)?,
    ])
}

fn follow(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    const TICKS: usize = 300;
    let measure = |extra: &str| -> Result<f64> {
        let mut run = Run::start(
            programs,
            side,
            1,
            &["tick", "{}/go", &TICKS.to_string(), extra],
        )?;
        run.wait_for("S", 1)?;
        run.settle();
        let mut reader = Command::new(&programs.mainstay)
            .args(["logs", "-f", "svc000"])
            .env("MAINSTAY_STATE_DIR", run.path().join("state"))
            .stdout(Stdio::piped())
            .spawn()?;
        let shown = BufReader::new(reader.stdout.take().ok_or("no output")?);
        run.settle();
        run.go()?;
        let mut late = Vec::new();
        for line in shown.lines() {
            let line = line?;
            if line.contains(' ') {
                continue;
            }
            late.push((now() - line.parse::<i64>()?) as f64 / 1e6);
            if late.len() == TICKS {
                break;
            }
        }
        reader.kill()?;
        reader.wait()?;
        late.sort_by(f64::total_cmp);
        Ok(late[TICKS * 99 / 100])
    };
    Ok(vec![measure("0")?, measure("500")?])
}

fn tail(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    let mut run = Run::start(programs, side, 1, &["idle"])?;
    run.wait_for("S", 1)?;
    run.settle();
    // The beginning of the file is a hole, so that it uses no disk space. A reader must still scan
    // it.
    let file = File::options()
        .write(true)
        .open(run.path().join("state/logs/svc000/current.log"))?;
    let lines: String = (0..100).map(|number| format!("\n{number}")).collect();
    file.write_all_at(lines.as_bytes(), 10_000_000_000)?;
    file.write_all_at(b"\n", 10_000_000_000 + lines.len() as u64)?;
    let begin = Instant::now();
    let output = Command::new(&programs.mainstay)
        .args(["logs", "-n", "10", "svc000"])
        .env("MAINSTAY_STATE_DIR", run.path().join("state"))
        .output()?;
    let took = begin.elapsed();
    let expected: String = (90..100).map(|number| format!("{number}\n")).collect();
    if output.stdout != expected.as_bytes() {
        return Err("these are not its last lines".into());
    }
    Ok(vec![took.as_secs_f64() * 1e3])
}

/// Waits until the last line of each service is in a file.
fn wait_for_last(run: &Run, count: usize, lines: u64) -> Result<()> {
    let last = format!("{:012} ", lines - 1);
    let deadline = Instant::now() + Duration::from_secs(120);
    for index in 0..count {
        while !tail_of_log(run, index).is_ok_and(|tail| tail.contains(&last)) {
            if Instant::now() > deadline {
                // Missing lines are counted later.
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Returns the end of the newest file that is not empty: right after a rotation, an older one.
fn tail_of_log(run: &Run, index: usize) -> std::io::Result<String> {
    let mut tail = [0; 1024];
    for path in run.log_files(index).iter().rev() {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        if size > 0 {
            let read = file.read_at(&mut tail, size.saturating_sub(1024))?;
            return Ok(String::from_utf8_lossy(&tail[..read]).into_owned());
        }
    }
    Ok(String::new())
}

/// Counts the lines of all services that are not present exactly once, complete and in order.
fn wrong(programs: &Programs, run: &Run, count: usize, lines: u64) -> Result<f64> {
    let mut wrong = 0;
    for index in 0..count {
        let [_, lost, duplicate, torn, reordered, said] = verify(programs, run, index, lines)?;
        wrong += lost + duplicate + torn + reordered + said;
    }
    Ok(wrong as f64)
}

/// Returns the counts of `stamp verify`.
fn verify(programs: &Programs, run: &Run, index: usize, lines: u64) -> Result<[u64; 6]> {
    let output = Command::new(&programs.stamp)
        .args(["verify", &lines.to_string()])
        .args(run.log_files(index))
        .output()?;
    let found = String::from_utf8(output.stdout)?;
    let found: Result<Vec<u64>, _> = found.split_whitespace().map(str::parse).collect();
    found?.try_into().map_err(|_| "verify failed".into())
}
