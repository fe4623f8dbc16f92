//! `cargo xtask soak`: hostile services of an unprivileged account against a supervisor that runs
//! as root, next to healthy services, while an operator works and failures occur.
//!
//! The attacks are `hostile` in the test kit; the operator's actions are in `operator.rs`. Both are
//! drawn from a seed. The soak runs in its own mount, process and network namespaces, with copies
//! of `/etc` and `/root`, so nothing else on the machine can be damaged or affect the result.
//!
//! Required throughout: the healthy services are never restarted and never miss a probe, their
//! output is complete, root's files are unchanged, every command answers in time, and the
//! supervisor's resident memory stays below a limit.

mod operator;
mod roots_files;
mod site;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::{Result, cargo};
use roots_files::RootsFiles;
use site::Site;

/// The hidden command that runs in the namespaces.
pub(crate) const INSIDE: &str = "soak-inside";

/// The limits of the supervisor's resident memory in KiB, by field of proc_pid_status(5). The pages
/// of a debug build's program alone exceed the first one.
const RELEASE_LIMITS: &[(&str, u64)] = &[("VmRSS", 16 * 1024)];
const DEBUG_LIMITS: &[(&str, u64)] = &[("RssAnon", 12 * 1024)];

/// Runs for an hour with the release build, unless specified otherwise.
pub(crate) fn run(args: &[&str]) -> Result<ExitCode> {
    let mut minutes = 60;
    let mut seed = fastrand::u64(..1_000_000);
    let mut args = args.iter();
    while let Some(&arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a number"))?;
        match arg {
            "--minutes" => minutes = value.parse()?,
            "--seed" => seed = value.parse()?,
            other => return Err(format!("no option {other:?}").into()),
        }
    }
    let packages = ["--package=mainstay-cli", "--package=mainstay-testkit"];
    let mut build = cargo();
    build.args(["build", "--release", "--bins"]).args(packages);
    if !build.status()?.success() {
        return Err("the release build failed".into());
    }
    // This program is in TARGET/debug/.
    let own = std::env::current_exe()?;
    let target_dir = own.ancestors().nth(2).ok_or("not in a target directory")?;
    let mut soak = command(&target_dir.join("release"), minutes, seed)?;
    Ok(if soak.status()?.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns the command that runs the soak with the programs of `bin_dir`, for this many minutes.
///
/// # Errors
/// If the soak cannot run here, with the reason.
pub(crate) fn command(bin_dir: &Path, minutes: u64, seed: u64) -> Result<Command> {
    if !rustix::process::geteuid().is_root() {
        return Err("it takes root: the attackers have another account".into());
    }
    let namespaces = [
        "--mount",
        "--pid",
        "--net",
        "--ipc",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ];
    let mut probe = Command::new("unshare");
    probe.args(namespaces).arg("true").stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        return Err("unshare(1) cannot make namespaces here".into());
    }
    let mut command = Command::new("unshare");
    command
        .args(namespaces)
        .arg(std::env::current_exe()?)
        .args([INSIDE, &minutes.to_string(), &seed.to_string()])
        .arg(bin_dir);
    Ok(command)
}

/// Runs the soak itself. All processes end with this one, which is process 1 of its namespace.
pub(crate) fn inside(args: &[&str]) -> Result<ExitCode> {
    let [minutes, seed, bin_dir] = args else {
        return Err("soak-inside is for `cargo xtask soak`".into());
    };
    let (minutes, seed): (u64, u64) = (minutes.parse()?, seed.parse()?);
    println!("soak: {minutes} min, seed {seed}");
    let dir = tempfile::Builder::new()
        .prefix("mainstay-soak-")
        .tempdir()?;
    let site = Site::set_up(dir.path(), Path::new(bin_dir), seed)?;
    let before = RootsFiles::read(site.roots())?;
    let start = Instant::now();
    let memory_limits = if bin_dir.ends_with("release") {
        RELEASE_LIMITS
    } else {
        DEBUG_LIMITS
    };
    let mut soak = operator::Soak::start(site, seed, memory_limits)?;
    while start.elapsed() < Duration::from_secs(minutes * 60) && soak.faults.is_empty() {
        soak.act();
    }
    soak.end();
    let after = RootsFiles::read(soak.site.roots())?;
    soak.faults.extend(before.differences(&after));
    soak.report(start.elapsed());
    let succeeded = soak.faults.is_empty();
    drop(soak);
    if !succeeded {
        println!("repeat: cargo xtask soak --minutes {minutes} --seed {seed}");
        // The logs and the state are kept for inspection.
        println!("kept: {}", dir.keep().display());
        return Ok(ExitCode::FAILURE);
    }
    // Directories may be nested deeper than std can remove.
    let path = dir.keep();
    Command::new("rm").arg("-rf").arg(&path).status()?;
    if fs::exists(&path)? {
        println!("left behind: {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
