//! The operator: acts, causes failures, and checks after each step whether everything is healthy.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use mainstay_testkit::procs;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::site::{ATTACKER, Site, own_by};
use crate::Result;

type Action = fn(&mut Soak);

/// The timeout of every command, in seconds, whatever happens around it.
const COMMAND_TIMEOUT: &str = "20";

/// An action of the operator, or a failure.
const ACTIONS: [(&str, Action); 19] = [
    ("status", |soak| drop(soak.verb(&["status"]))),
    ("logs", |soak| {
        drop(soak.verb(&["logs", "hostile", "-n", "20"]))
    }),
    ("restart", |soak| drop(soak.verb(&["restart", "hostile"]))),
    ("stop and start", Soak::stop_and_start),
    ("rotate logs", |soak| {
        drop(soak.verb(&["logs", "rotate", "hostile"]))
    }),
    ("snapshot create", |soak| {
        drop(soak.verb(&["snapshot", "create", "hostile"]))
    }),
    ("snapshot list", |soak| {
        drop(soak.verb(&["snapshot", "list", "hostile"]))
    }),
    ("snapshot restore", |soak| {
        drop(soak.verb(&["snapshot", "restore", "hostile", "--stop"]));
    }),
    ("supervisor killed", Soak::kill_and_succeed),
    ("supervisor suspended", Soak::suspend),
    ("keeper killed", Soak::kill_keeper),
    ("lock deleted", |soak| soak.delete("lock")),
    ("lock emptied", Soak::empty_lock),
    ("control socket deleted", |soak| soak.delete("control.sock")),
    ("hanging connections", |soak| {
        soak.hang(80, Duration::from_secs(1))
    }),
    ("half requests", |soak| soak.hang(1000, Duration::ZERO)),
    ("signals", Soak::signals),
    ("second supervisor", Soak::second_supervisor),
    ("places and programs of the attacker's", Soak::refusals),
];

/// The supervisor and its results so far.
pub(crate) struct Soak {
    pub(crate) site: Site,
    /// The violations. The soak ends with the first one.
    pub(crate) faults: Vec<String>,
    rng: Rng,
    supervisor: Child,
    neighbours: BTreeMap<&'static str, Option<u64>>,
    tally: BTreeMap<&'static str, u32>,
    /// The number of bytes of the supervisors' output that have been read.
    seen: u64,
    memory_limits: &'static [(&'static str, u64)],
    /// The maximum memory in KiB.
    max_memory: u64,
    slowest: (Duration, String),
}

impl Soak {
    /// Starts the first supervisor and waits for the healthy services.
    pub(crate) fn start(
        site: Site,
        seed: u64,
        memory_limits: &'static [(&'static str, u64)],
    ) -> Result<Self> {
        let supervisor = supervise(&site)?;
        let mut soak = Self {
            site,
            faults: Vec::new(),
            rng: Rng::with_seed(seed),
            supervisor,
            neighbours: BTreeMap::from([("neighbour", None), ("diary", None)]),
            tally: BTreeMap::new(),
            seen: 0,
            memory_limits,
            max_memory: 0,
            slowest: (Duration::ZERO, String::new()),
        };
        soak.wait_for_neighbours();
        Ok(soak)
    }

    /// Performs one action and checks everything after it.
    pub(crate) fn act(&mut self) {
        let (name, action) = ACTIONS[self.rng.usize(..ACTIONS.len())];
        *self.tally.entry(name).or_default() += 1;
        action(self);
        self.look();
        self.faults
            .iter_mut()
            .for_each(|fault| *fault = format!("{fault} (after: {name})"));
        thread::sleep(Duration::from_millis(self.rng.u64(..700)));
    }

    /// Stops the supervisor in an orderly way, and checks for missing and remaining resources.
    pub(crate) fn end(&mut self) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self
            .supervisor
            .try_wait()
            .is_ok_and(|status| status.is_none())
        {
            if Instant::now() > deadline {
                return self
                    .faults
                    .push("the supervisor did not end within 20 s".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        for pid in procs::descendants() {
            let name = procs::program(pid);
            self.faults
                .push(format!("{name} (pid {}) is left", pid.as_raw_nonzero()));
        }
        self.read_diary();
    }

    pub(crate) fn report(&self, elapsed: Duration) {
        let attacks = fs::read_to_string(self.site.path("bob/attacks")).unwrap_or_default();
        let mut tally: BTreeMap<&str, u32> = self.tally.clone();
        attacks
            .lines()
            .for_each(|name| *tally.entry(name).or_default() += 1);
        for (name, count) in &tally {
            println!("{count:6}  {name}");
        }
        println!("after {} s:", elapsed.as_secs());
        println!(
            "  memory of the supervisor: {} KiB at most",
            self.max_memory
        );
        println!(
            "  slowest command: {:?}, {}",
            self.slowest.0, self.slowest.1
        );
        for fault in &self.faults {
            println!("FAULT: {fault}");
        }
    }

    fn look(&mut self) {
        match self.supervisor.try_wait() {
            Ok(None) => {}
            ended => {
                return self
                    .faults
                    .push(format!("the supervisor has ended: {ended:?}"));
            }
        }
        let pid = Pid::from_child(&self.supervisor);
        for (field, limit) in self.memory_limits {
            let used = procs::field(pid, "status", field).unwrap_or(0);
            self.max_memory = self.max_memory.max(used);
            if used > *limit {
                let fault = format!("{field} of the supervisor is {used} KiB, over {limit}");
                self.faults.push(fault);
            }
        }
        self.look_at_neighbours();
        self.look_at_events();
        let leaks = fs::read_to_string(self.site.path("bob/leaks")).unwrap_or_default();
        self.faults
            .extend(leaks.lines().map(|leak| format!("leak: {leak}")));
    }

    /// Checks that the healthy services are still the original processes.
    fn look_at_neighbours(&mut self) {
        let output = self.verb(&["status", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        for (name, pid) in self.neighbours.clone() {
            let services = report["services"].as_array();
            let entry = services.and_then(|all| all.iter().find(|entry| entry["name"] == name));
            let is_well = entry.is_some_and(|entry| {
                entry["state"] == "running" && entry["pid"].as_u64() == pid && pid.is_some()
            });
            if !is_well {
                let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
                self.faults.push(match entry {
                    Some(entry) => format!("{name}, which ran as {pid:?}, is {entry}"),
                    None => format!("status does not show {name}: {complaint}{report}"),
                });
            }
        }
    }

    fn look_at_events(&mut self) {
        let mut events = String::new();
        let read = File::open(self.site.path("events")).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.seen))?;
            file.read_to_string(&mut events)
        });
        if let Err(error) = read {
            return self.faults.push(format!("read the events: {error}"));
        }
        // The last line may be incomplete.
        events.truncate(events.rfind('\n').map_or(0, |at| at + 1));
        self.seen += events.len() as u64;
        for line in events.lines() {
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            let is_neighbour = (event["service"].as_str())
                .is_some_and(|service| self.neighbours.contains_key(service));
            let kinds = ["missed", "exited", "failed", "killing", "halted"];
            let is_bad = (event["event"].as_str()).is_some_and(|kind| kinds.contains(&kind));
            if is_neighbour && is_bad || line.contains("panicked at") {
                self.faults.push(line.to_owned());
            }
        }
    }

    /// Checks that every number is present once, in order, up to the last one written.
    fn read_diary(&mut self) {
        let output = self.verb(&["logs", "diary", "-n", "100000000"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let mut expected = 1;
        for line in text.lines() {
            if line != format!("entry {expected}") {
                let fault = format!("the diary has {line:?} in place of entry {expected}");
                return self.faults.push(fault);
            }
            expected += 1;
        }
        let written = fs::read_to_string(self.site.path("neighbours/diary")).unwrap_or_default();
        let written: u64 = written.parse().unwrap_or(u64::MAX);
        if expected <= written {
            let fault = format!("the diary ends with {}, of {written}", expected - 1);
            self.faults.push(fault);
        }
        println!("the diary has all of its {written} entries");
    }

    fn wait_for_neighbours(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let output = self.verb(&["status", "--json"]);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            for entry in report["services"].as_array().into_iter().flatten() {
                let pid = self
                    .neighbours
                    .iter_mut()
                    .find(|(name, _)| entry["name"] == **name);
                if let Some((_, pid @ None)) = pid
                    && entry["state"] == "running"
                {
                    *pid = entry["pid"].as_u64();
                }
            }
            if report["supervisor"]["alive"] == true
                && self.neighbours.values().all(Option::is_some)
            {
                return;
            }
            if Instant::now() > deadline {
                let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
                return self
                    .faults
                    .push(format!("no supervisor after 20 s: {complaint}{report}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a command, which must exit on its own in every situation.
    fn verb(&mut self, args: &[&str]) -> Output {
        let start = Instant::now();
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=1", COMMAND_TIMEOUT])
            .arg(self.site.path("bin/mainstay"))
            .args(args)
            .env("MAINSTAY_STATE_DIR", self.site.path("state"))
            .stdin(Stdio::null());
        let output = command.output().expect("timeout(1) runs");
        if start.elapsed() > self.slowest.0 {
            self.slowest = (start.elapsed(), args.join(" "));
        }
        // 124 and 137 come from timeout. A panic is 134, or 101 in a build that unwinds.
        if matches!(output.status.code(), None | Some(101 | 124 | 134 | 137)) {
            let complaint = String::from_utf8_lossy(&output.stderr);
            self.faults.push(format!(
                "mainstay {}: {}: {complaint}",
                args.join(" "),
                output.status
            ));
        }
        output
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.supervisor), signal);
    }

    fn stop_and_start(&mut self) {
        self.verb(&["stop", "hostile"]);
        self.verb(&["start", "hostile"]);
    }

    fn kill_and_succeed(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.supervisor.wait();
        match supervise(&self.site) {
            Ok(supervisor) => self.supervisor = supervisor,
            Err(error) => return self.faults.push(format!("start a successor: {error}")),
        }
        self.wait_for_neighbours();
    }

    fn suspend(&mut self) {
        self.signal(Signal::STOP);
        self.verb(&["status"]);
        self.signal(Signal::CONT);
    }

    fn kill_keeper(&mut self) {
        let keepers = procs::descendants().into_iter();
        keepers
            .filter(|pid| procs::is_named(*pid, "mainstay-keeper"))
            .for_each(procs::kill);
    }

    fn delete(&mut self, name: &str) {
        let _ = fs::remove_file(self.site.path("state").join(name));
    }

    fn empty_lock(&mut self) {
        let _ = File::create(self.site.path("state/lock"));
    }

    /// Opens clients that connect, send half a request and wait.
    fn hang(&mut self, count: usize, hold: Duration) {
        let path = self.site.path("state/control.sock");
        let connect = |_| {
            let mut stream = UnixStream::connect(&path).ok()?;
            stream
                .write_all(b"GET /v1/services HTTP/1.1\r\nHost: m")
                .ok()?;
            // If there is nothing to wait for, the client disconnects at once.
            (!hold.is_zero()).then_some(stream)
        };
        let streams: Vec<UnixStream> = (0..count).filter_map(connect).collect();
        thread::sleep(hold);
        drop(streams);
    }

    fn signals(&mut self) {
        for signal in [Signal::USR1, Signal::USR2, Signal::ALARM, Signal::PIPE] {
            self.signal(signal);
        }
    }

    fn second_supervisor(&mut self) {
        let manifest = self.site.manifest().display().to_string();
        let output = self.verb(&["run", &manifest]);
        if output.status.code() != Some(75) {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let status = output.status;
            self.faults.push(format!(
                "a second supervisor was not refused: {status}: {complaint}"
            ));
        }
    }

    /// Checks that a state directory and a program that the attacker owns are rejected.
    fn refusals(&mut self) {
        let place = self.site.path("bob/state").display().to_string();
        let manifest = self.site.manifest().display().to_string();
        let program = self.site.path("bob/program");
        let foreign = self.site.path("foreign.toml");
        let prepared = fs::copy("/bin/true", &program).and_then(|_| {
            fs::write(
                &foreign,
                format!(
                    "environment = 'development'\n[service.foreign]\ncommand = ['{}']\n",
                    program.display()
                ),
            )
        });
        if prepared.is_err() || own_by(&program, ATTACKER).is_err() {
            // The attacker controls this directory.
            return;
        }
        let elsewhere = self.site.path("elsewhere").display().to_string();
        let foreign = foreign.display().to_string();
        for args in [
            ["--state-dir", &place, "run", &manifest],
            ["--state-dir", &elsewhere, "run", &foreign],
        ] {
            let output = self.verb(&args);
            if output.status.success() {
                self.faults.push(format!("not refused: {}", args.join(" ")));
            }
        }
    }
}

/// Starts a supervisor, with a secret in root's environment.
fn supervise(site: &Site) -> Result<Child> {
    let events = File::options()
        .append(true)
        .create(true)
        .open(site.path("events"))?;
    let mut command = Command::new(site.path("bin/mainstay"));
    command
        .args(["run", "--json"])
        .arg(site.manifest())
        .env("MAINSTAY_STATE_DIR", site.path("state"))
        .env("SOAK_SECRET_VARIABLE", "root's")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(events.try_clone()?)
        .stderr(events);
    Ok(command.spawn()?)
}
