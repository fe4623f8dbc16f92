//! A program that is a service itself, compared with the same one using kardianos/service: size on
//! disk and in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_testkit::procs;
use rustix::process::Pid;

use super::Programs;
use super::run::{Side, place};
use super::scenarios::{Goal, Scenario, row};
use crate::Result;

pub(crate) const SERVICE: Scenario = Scenario {
    name: "service",
    bound: Some(Side::Kardianos),
    measure: service,
    rows: &[
        row("examples/heartbeat: the program", "kB", Goal::Max(600.0)),
        row("the same, idle: RSS", "kB", Goal::MaxRatio(1.0)),
        row("PSS", "kB", Goal::MaxRatio(1.0)),
    ],
};

fn service(programs: &Programs, side: Side) -> Result<Vec<f64>> {
    let dir = place()?;
    let program = match side {
        Side::Kardianos => go_program(dir.path())?,
        _ => programs.heartbeat.clone(),
    };
    let size = fs::metadata(&program)?.len();
    let mut child = Command::new(&program)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = Pid::from_child(&child);
    let memory = idle_memory(pid);
    procs::kill(pid);
    child.wait()?;
    let (rss, pss) = memory?;
    Ok(vec![size as f64 / 1000.0, rss, pss])
}

/// Returns RSS and PSS in kB as soon as the process has been idle for a while. Its first beat comes
/// after five seconds.
fn idle_memory(pid: Pid) -> Result<(f64, f64)> {
    const QUIET: Duration = Duration::from_secs(1);
    let (mut switches, mut since) = (procs::cost(pid).switches, Instant::now());
    while since.elapsed() < QUIET {
        thread::sleep(Duration::from_millis(50));
        let now = procs::cost(pid).switches;
        if now != switches {
            (switches, since) = (now, Instant::now());
        }
    }
    let field = |file, key| procs::field(pid, file, key).ok_or("the service is gone");
    let rss = field("status", "VmRSS")?;
    let pss = field("smaps_rollup", "Pss")?;
    Ok((rss as f64, pss as f64))
}

/// Builds the stripped Go program, with Debian's packages golang-go and
/// golang-github-kardianos-service-dev.
fn go_program(dir: &Path) -> Result<PathBuf> {
    let source = dir.join("main.go");
    fs::write(&source, include_str!("kardianos.go"))?;
    let program = dir.join("heartbeat-go");
    let built = Command::new("go")
        .args(["build", "-ldflags", "-s -w", "-o"])
        .arg(&program)
        .arg(&source)
        .env("GO111MODULE", "off")
        .env("GOPATH", "/usr/share/gocode")
        .env("GOCACHE", std::env::temp_dir().join("mainstay-go"))
        .status();
    match built {
        Ok(status) if status.success() => Ok(program),
        _ => Err("needs golang-go and golang-github-kardianos-service-dev".into()),
    }
}
