//! One side of a benchmark: its configuration, start, records and end.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_testkit::procs;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use super::Programs;
use crate::Result;

/// The supervisor of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The spawn loop `bare`.
    Bare,
    /// `writer | cat > file`.
    Cat,
    /// `writer | s6-log`, with timestamps and rotation.
    S6,
    /// The example with kardianos/service.
    Kardianos,
    /// `mainstay run`.
    Mainstay,
}

/// The time after which a service that ignores TERM must be gone.
pub(crate) const GRACEFUL: Duration = Duration::from_secs(2);

/// The log settings of the services, unless a scenario sets others.
pub(crate) const LOG: &str = "rotate = '10MB', keep = 200, compress = 'none'";

/// A directory, the supervisor in it and all its descendants. The drop ends all of them.
pub(crate) struct Run {
    dir: TempDir,
    side: Side,
    command: Command,
    child: Child,
    /// The time of CLOCK_MONOTONIC just before the launch, in ns.
    pub(crate) launched: i64,
}

/// A line that `stamp` recorded.
pub(crate) struct Record {
    pub(crate) kind: char,
    pub(crate) ns: i64,
    pub(crate) pid: Pid,
}

impl Run {
    /// Starts `count` services, each `stamp` with these arguments, and returns without waiting for
    /// them. `{}` stands for the directory.
    pub(crate) fn start(
        programs: &Programs,
        side: Side,
        count: usize,
        stamp: &[&str],
    ) -> Result<Self> {
        Self::with_log(programs, side, count, stamp, LOG)
    }

    /// Starts the services with the given log settings.
    pub(crate) fn with_log(
        programs: &Programs,
        side: Side,
        count: usize,
        stamp: &[&str],
        log: &str,
    ) -> Result<Self> {
        Self::in_dir(place()?, programs, side, count, stamp, log)
    }

    /// Starts the services in a prepared directory.
    pub(crate) fn in_dir(
        dir: TempDir,
        programs: &Programs,
        side: Side,
        count: usize,
        stamp: &[&str],
        log: &str,
    ) -> Result<Self> {
        let path = dir.path().display().to_string();
        let mut argv = vec![
            programs.stamp.display().to_string(),
            format!("{path}/records"),
        ];
        argv.extend(stamp.iter().map(|word| word.replace("{}", &path)));
        if stamp.iter().any(|word| word.ends_with("/go")) {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("go"), fifo, mode, 0)?;
        }
        let command = configure(programs, side, dir.path(), count, &argv, log)?;
        Self::launch(dir, side, command)
    }

    /// Starts a configured supervisor in a prepared directory.
    pub(crate) fn launch(dir: TempDir, side: Side, mut command: Command) -> Result<Self> {
        let output = File::create(dir.path().join("output"))?;
        command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let launched = now();
        let child = command.spawn()?;
        Ok(Self {
            dir,
            side,
            command,
            child,
            launched,
        })
    }

    /// Kills the supervisor and starts another in its place.
    pub(crate) fn replace(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = self.command.spawn()?;
        Ok(())
    }

    /// Opens the FIFO that the services wait for.
    pub(crate) fn go(&self) -> Result<()> {
        drop(File::options().write(true).open(self.path().join("go"))?);
        Ok(())
    }

    /// Returns the directory.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns all records of these kinds so far.
    pub(crate) fn records(&self, kinds: &str) -> Vec<Record> {
        let text = fs::read_to_string(self.path().join("records")).unwrap_or_default();
        let parse = |line: &str| {
            let mut words = line.split(' ');
            let kind = words.next()?.parse().ok()?;
            let ns = words.next()?.parse().ok()?;
            let pid = Pid::from_raw(words.next()?.parse().ok()?)?;
            Some(Record { kind, ns, pid })
        };
        let records = text.lines().filter_map(parse);
        records
            .filter(|record| kinds.contains(record.kind))
            .collect()
    }

    /// Waits until there are `count` records of this kind.
    pub(crate) fn wait_for(&mut self, kind: &str, count: usize) -> Result<Vec<Record>> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let records = self.records(kind);
            if records.len() >= count {
                return Ok(records);
            }
            if let Some(status) = self.child.try_wait()? {
                let output = fs::read_to_string(self.path().join("output")).unwrap_or_default();
                let last = output.lines().next_back().unwrap_or_default().to_owned();
                return Err(format!("it ended with {status} too early: {last}").into());
            }
            if Instant::now() > deadline {
                return Err(format!("{} of {count} records {kind}", records.len()).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until no process has started or exited for a while.
    pub(crate) fn settle(&self) {
        const QUIET: Duration = Duration::from_millis(700);
        let (mut before, mut since) = (Vec::new(), Instant::now());
        while since.elapsed() < QUIET {
            let now = procs::descendants();
            if now != before {
                (before, since) = (now, Instant::now());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the supervising processes.
    pub(crate) fn supervisors(&self) -> Vec<Pid> {
        self.split(false)
    }

    /// Returns the supervised processes.
    pub(crate) fn services(&self) -> Vec<Pid> {
        self.split(true)
    }

    fn split(&self, services: bool) -> Vec<Pid> {
        let mut pids = procs::descendants();
        pids.retain(|pid| (procs::program(*pid) == "stamp") == services);
        pids
    }

    /// Requests a stop. Returns the time until all of `pids` and the supervisor were gone, and
    /// those of `pids` that outlived `limit`.
    pub(crate) fn stop(
        &mut self,
        mut pids: Vec<Pid>,
        limit: Duration,
    ) -> Result<(Duration, Vec<Pid>)> {
        let start = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        while start.elapsed() < limit {
            pids.retain(|pid| procs::alive(*pid));
            if self.child.try_wait()?.is_some() && pids.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok((start.elapsed(), pids))
    }

    /// Returns the log files of a service, oldest first.
    pub(crate) fn log_files(&self, index: usize) -> Vec<PathBuf> {
        let dir = match self.side {
            Side::Bare | Side::Cat | Side::Kardianos => {
                return vec![self.path().join("svc000.log")];
            }
            Side::S6 => self.path().join("logs"),
            Side::Mainstay => self.path().join(format!("state/logs/svc{index:03}")),
        };
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
        // `STAMP.log` and `current.log`; `@STAMP.s` and `current`.
        files.retain(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".log") || name.starts_with('@') || name == "current"
        });
        // Rotated names start with a digit or an @, so the current file comes last.
        files.sort();
        files
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            // Parents come before their children, so that no parent starts a replacement.
            let left = procs::descendants();
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(procs::kill);
            thread::yield_now();
        }
        let _ = self.child.wait();
        // Orphans are children of this process now.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}

/// Creates the directory of a run.
pub(crate) fn place() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("bench-").tempdir()?)
}

/// Returns the time of CLOCK_MONOTONIC in ns, as `stamp` records it.
pub(crate) fn now() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn configure(
    programs: &Programs,
    side: Side,
    dir: &Path,
    count: usize,
    argv: &[String],
    log: &str,
) -> Result<Command> {
    let mut text = String::new();
    Ok(match side {
        Side::Bare => {
            for index in 0..count {
                writeln!(text, "svc{index:03}\t{}", argv.join("\t"))?;
            }
            let conf_path = dir.join("conf");
            fs::write(&conf_path, text)?;
            let mut command = Command::new(&programs.bare);
            command.args([&conf_path, dir]);
            command
        }
        Side::Cat => {
            let mut command = Command::new("sh");
            let script = r#""$@" | cat > svc000.log"#;
            command.args(["-c", script, "sh"]).args(argv);
            command
        }
        Side::S6 => {
            let mut command = Command::new("sh");
            let script = r#""$@" | s6-log -b n200 s10000000 t ./logs"#;
            command.args(["-c", script, "sh"]).args(argv);
            command
        }
        Side::Kardianos => return Err("it is a service, and supervises none".into()),
        Side::Mainstay => {
            writeln!(text, "environment = \"development\"")?;
            for index in 0..count {
                writeln!(text, "[service.svc{index:03}]\ncommand = {argv:?}")?;
                writeln!(text, "stop = {{ graceful = \"{}s\" }}", GRACEFUL.as_secs())?;
                text += "recovery = { policy = \"restart\", delay = \"0s\", limit = \"none\" }\n";
                writeln!(text, "log = {{ {log} }}")?;
            }
            let manifest_path = dir.join("manifest.toml");
            fs::write(&manifest_path, text)?;
            let mut command = Command::new(&programs.mainstay);
            command
                .arg("run")
                .arg(manifest_path)
                .env("MAINSTAY_STATE_DIR", dir.join("state"));
            command
        }
    })
}
