//! The tests that are to catch mutants: how they are built and run, and what their output says.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::copy::Copy;
use crate::{Result, cargo};

/// Tests that are built and run together.
pub(super) struct Stage {
    pub(super) package: &'static str,
    /// The target, as cargo is told it.
    pub(super) target: &'static [&'static str],
    /// A setting of the profile. Mutants of the core are built many times and run for a moment.
    pub(super) profile: &'static str,
    /// Runs of the test program, one after the other: the arguments of each.
    pub(super) runs: &'static [&'static [&'static str]],
}

/// The time limit of one run of a test program, and the limit of its processor time. On a busy
/// machine only the latter says that a mutant does not end.
const LIMIT: Duration = Duration::from_secs(300);
const CPU_SECONDS: u64 = 60;
/// The memory that a test program may use. A mutant that never ends may allocate without end.
const MEMORY: u64 = 4 << 30;
/// The sizes of the two simulations: small enough for a quick answer, and large enough to catch
/// every mutant of the lists.
const SIMULATIONS: [(&str, &str); 3] = [
    ("MAINSTAY_SIM_EVENTS", "300000"),
    ("MAINSTAY_HOST_SIM_SCHEDULES", "1000"),
    ("MAINSTAY_HOST_SIM_BRIEF", "1"),
];

/// The result of the tests of a stage.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    /// The tests have found the fault. The text says which one and why.
    Caught(String),
    /// The mutant does not compile.
    Broken(String),
}

impl Stage {
    /// Builds the tests in the copy, and runs them until one fails.
    pub(super) fn check(&self, copy: &Copy, target: &Path) -> Result<Verdict> {
        let program = match self.build(copy, target)? {
            Ok(program) => program,
            Err(why) => return Ok(Verdict::Broken(why)),
        };
        for args in self.runs {
            let verdict = run(
                &program,
                args,
                &copy.dir().join("crates").join(self.package),
            )?;
            if verdict != Verdict::Passed {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Passed)
    }

    /// Returns the test program, or the first error of the compiler.
    fn build(&self, copy: &Copy, target: &Path) -> Result<Result<PathBuf, String>> {
        let mut command = cargo();
        command
            .current_dir(copy.dir())
            .args(["test", "--no-run", "--quiet", "--package", self.package])
            .args(self.target)
            .args(["--message-format", "json-render-diagnostics"])
            .args(["--config", "profile.dev.debug=false"])
            .args(["--config", self.profile])
            .env("CARGO_TARGET_DIR", target);
        let built = command.output()?;
        if !built.status.success() {
            let said = String::from_utf8_lossy(&built.stderr);
            let error = said.lines().find(|line| line.starts_with("error"));
            return Ok(Err(error.unwrap_or("cargo failed").to_owned()));
        }
        let said = String::from_utf8_lossy(&built.stdout);
        let mut programs = said.lines().filter_map(|line| {
            let artifact: Value = serde_json::from_str(line).ok()?;
            Some(artifact["executable"].as_str()?.into())
        });
        let program: Option<PathBuf> = programs.next_back();
        program.map(Ok).ok_or_else(|| "no test was built".into())
    }
}

/// Runs a test program until it ends or its time is over.
fn run(program: &Path, args: &[&str], dir: &Path) -> Result<Verdict> {
    let (mut output, input) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(dir)
        .envs(SIMULATIONS)
        .env("CARGO_MANIFEST_DIR", dir)
        .env("INSTA_UPDATE", "no")
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input);
    let mut child = command.spawn()?;
    // The command holds the write ends of the pipe.
    drop(command);
    confine(child.id());
    let (to_us, read) = mpsc::channel();
    thread::spawn(move || {
        let mut said = Vec::new();
        let _ = output.read_to_end(&mut said);
        let _ = to_us.send(said);
    });
    let what = args.join(" ");
    let Ok(said) = read.recv_timeout(LIMIT) else {
        child.kill()?;
        child.wait()?;
        return Ok(Verdict::Caught(format!("no end within {LIMIT:?} ({what})")));
    };
    let status = child.wait()?;
    let said = String::from_utf8_lossy(&said);
    Ok(if status.success() {
        Verdict::Passed
    } else {
        let died = || format!("no end within its limits: {status} ({what})");
        Verdict::Caught(failure(&said).unwrap_or_else(died))
    })
}

/// Limits the memory and the processor time of a test program.
#[cfg(target_os = "linux")]
fn confine(pid: u32) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};

    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    for (resource, most) in [(Resource::As, MEMORY), (Resource::Cpu, CPU_SECONDS)] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        // If this fails, the program has ended already.
        let _ = prlimit(pid, resource, limit);
    }
}

#[cfg(not(target_os = "linux"))]
fn confine(_pid: u32) {
    let _ = (MEMORY, CPU_SECONDS);
}

/// Returns the first test that failed, the reason, and the seed if it was a simulation.
fn failure(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("\n---- ")?;
    let (test, rest) = rest.split_once(" stdout ----\n")?;
    let own = rest.split("\n---- ").next().unwrap_or(rest);
    // A simulation panics last with the rule that was broken.
    let why = own
        .rsplit_once(" panicked at ")
        .and_then(|(_, it)| it.split_once('\n'));
    let why = why
        .and_then(|(_, why)| why.lines().next())
        .unwrap_or("it failed");
    let seed = own.rsplit_once("_SEED=").map(|(_, seed)| seed);
    let seed = seed.and_then(|seed| seed.split_whitespace().next());
    let seed = seed.map_or_else(String::new, |seed| format!(" (seed {seed})"));
    let test = test.rsplit("::").take(3).collect::<Vec<_>>();
    let test: Vec<&str> = test.into_iter().rev().collect();
    Some(format!("{}: {why}{seed}", test.join("::")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_named() {
        let said = "\nrunning 2 tests\ntest a ... FAILED\n\nfailures:\n\n\
            ---- engine::tests::it_ends stdout ----\n\n\
            thread 'engine::tests::it_ends' (7) panicked at src/a.rs:1:2:\nit goes on\nnote: …\n\n\
            ---- engine::other stdout ----\n\nthread 'x' panicked at src/b.rs:1:2:\nno\n";
        let expect = "engine::tests::it_ends: it goes on";
        assert_eq!(failure(said).as_deref(), Some(expect));
        let said = "\n---- host::simulation::holds stdout ----\n!! a transcript\n\n\
            thread 'x' panicked at src/b.rs:1:2:\nan earlier one\n\
            thread 'x' panicked at src/c.rs:1:2:\nit runs twice\n7 of the steps are enough\n\
            replay: MAINSTAY_HOST_SIM_SEED=12 cargo test\n";
        let expect = "host::simulation::holds: it runs twice (seed 12)";
        assert_eq!(failure(said).as_deref(), Some(expect));
        assert_eq!(failure("test a ... ok\n"), None);
    }
}
