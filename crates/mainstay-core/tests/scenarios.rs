//! Scenarios: a manifest and a list of events, followed by the transcript of the engine's reactions
//! (`scenarios/README.md`).
//!
//! `MAINSTAY_BLESS=1 cargo test -p mainstay-core --test scenarios` rewrites the transcripts.
#![expect(
    clippy::disallowed_methods,
    reason = "a test reads its fixtures; the core does not"
)]

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use mainstay_core::engine::{
    Action, CopyFailure, Engine, Event, Exit, Notice, ProbeFailure, RecoveredState, Request, RunId,
    ServiceId, Snapshotted, StartFailure, Token,
};
use mainstay_core::manifest::{Format, parse};
use mainstay_core::snapshot::SnapshotId;
use mainstay_core::spec::StopAsk;
use mainstay_core::time::Instant;

const DIVIDER: &str = "\n--- transcript\n";

#[test]
fn scenarios_go_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let blesses = env::var("MAINSTAY_BLESS").is_ok();
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 15, "scenarios are missing");
    let mut wrong = String::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy();
        let text = fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
        let (input, expected) = text.split_once(DIVIDER).unwrap_or((text.trim_end(), ""));
        let transcript = play(input).unwrap_or_else(|why| panic!("{name}: {why}"));
        if blesses {
            fs::write(&path, format!("{input}{DIVIDER}{transcript}")).unwrap();
        } else if transcript != expected {
            let differs = |(got, want): &(&str, &str)| got != want;
            let line = transcript.lines().zip(expected.lines()).find(differs);
            let _ = writeln!(wrong, "{name}: {line:#?}\n{transcript}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn play(input: &str) -> Result<String, String> {
    let (manifest, events) = input.split_once("\n--- events\n").ok_or("no events")?;
    let specs = parse(manifest, Format::Toml).map_err(|mistakes| format!("{mistakes:#?}"))?;
    let mut stage = Stage {
        hosts: BTreeMap::new(),
        width: specs
            .iter()
            .map(|spec| spec.name().as_str().len())
            .max()
            .unwrap_or(0),
        engine: Engine::new(specs.into_iter().map(Arc::new), 1)
            .map_err(|error| error.to_string())?,
        now: Instant::ZERO,
        pids: 100,
        transcript: String::new(),
    };
    for line in events.lines() {
        let line = line.split(" #").next().unwrap_or(line).trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parts = line
            .strip_prefix("at ")
            .and_then(|rest| rest.split_once(' '));
        let (at, what) = parts.ok_or_else(|| format!("`{line}` is not `at TIME EVENT`"))?;
        let at = time(at).ok_or_else(|| format!("`{at}` is not a time"))?;
        stage.pass_until(Instant::at(at));
        stage
            .happens(what)
            .ok_or_else(|| format!("`{what}` cannot happen"))?;
    }
    Ok(stage.end())
}

/// A host that performs every action, unless the scenario specifies otherwise.
#[derive(Default)]
struct Host {
    run: Option<RunId>,
    has_exited: bool,
    question: Option<Token>,
    line: Option<Token>,
    restore: Option<Token>,
    snapshot: Option<Token>,
    /// The answer of a probe, if it answers.
    answer: Option<Result<(), ProbeFailure>>,
    spawn_fails: Option<StartFailure>,
    freeze_fails: Option<String>,
    survives_kill: bool,
}

struct Stage {
    engine: Engine,
    hosts: BTreeMap<ServiceId, Host>,
    now: Instant,
    pids: u32,
    width: usize,
    transcript: String,
}

impl Stage {
    fn pass_until(&mut self, end: Instant) {
        while let Some(at) = self.engine.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(Event::Tick);
        }
        self.now = end;
    }

    fn happens(&mut self, what: &str) -> Option<()> {
        let _ = writeln!(self.transcript, "{} > {what}", self.time());
        let words: Vec<&str> = what.split(' ').collect();
        let find = |name: &&str| self.engine.find(name);
        match *words {
            ["nothing"] => {}
            ["suspended", "until", end] => {
                self.now = Instant::at(time(end)?);
                self.step(Event::Late);
            }
            ["start", "all"] => {
                let actions = self.engine.start_all(self.now);
                self.perform(actions);
            }
            ["stop", "all"] => {
                let actions = self.engine.stop_all(self.now);
                self.perform(actions);
            }
            ["stop", _, _, ..] => {
                let ids: Option<Vec<ServiceId>> = words[1..].iter().map(find).collect();
                let actions = self.engine.stop(&ids?, self.now);
                self.perform(actions);
            }
            ["kill", "all"] => {
                let actions = self.engine.kill_all(self.now);
                self.perform(actions);
            }
            [
                verb @ ("start" | "stop" | "restart" | "pause" | "continue"),
                name,
            ] => {
                let id = find(&name)?;
                let request = match verb {
                    "start" => Request::Start,
                    "stop" => Request::Stop,
                    "restart" => Request::Restart,
                    "pause" => Request::Pause,
                    _ => Request::Continue,
                };
                match self.engine.request(id, request, self.now) {
                    Ok(actions) => self.perform(actions),
                    Err(refusal) => self.say(id, &format!("refused: {refusal}")),
                }
            }
            ["exit", name, how, ref remains @ ..] => {
                let id = find(&name)?;
                let exit = match how {
                    "SIGKILL" => Exit::Signal(9),
                    "SIGSEGV" => Exit::Signal(11),
                    "SIGTERM" => Exit::Signal(15),
                    "unknown" => Exit::Unknown,
                    code => Exit::Code(code.parse().ok()?),
                };
                let run = self.host(id).run?;
                self.host(id).has_exited = true;
                self.step(Event::Exited(id, run, exit));
                if remains.is_empty() {
                    self.emptied(id, run);
                }
            }
            ["children", "of", name, "end"] => {
                let id = find(&name)?;
                let run = self.host(id).run?;
                self.emptied(id, run);
            }
            ["probe", name, ref answer @ ..] => {
                let id = find(&name)?;
                let host = self.host(id);
                host.answer = match answer {
                    ["ok"] => Some(Ok(())),
                    ["silent"] => None,
                    why => Some(Err(ProbeFailure::Failed(why.join(" ")))),
                };
                if let (Some(answer), Some(token)) = (host.answer.clone(), host.question.take()) {
                    self.step(Event::Answered(id, token, answer));
                }
            }
            ["line", name] => {
                let id = find(&name)?;
                let token = self.host(id).line.take()?;
                self.step(Event::Answered(id, token, Ok(())));
            }
            ["notify", name, ref notice @ ..] => {
                let id = find(&name)?;
                let notice = match notice {
                    ["ready"] => Notice::Ready,
                    ["extend", by] => Notice::ExtendTimeout(time(by)?),
                    text => Notice::Status(text.join(" ")),
                };
                let run = self.host(id).run?;
                self.step(Event::Notified(id, run, notice));
            }
            // Kills the host; another one resumes. The main processes of the given services are
            // gone by then. `with lines`: they had written the expected lines before.
            ["another", "host", ref without @ ..] => {
                let (without, has_lines) = match without {
                    [without @ .., "with", "lines"] => (without, true),
                    without => (without, false),
                };
                let (mut checkpoints, mut gone) = (Vec::new(), Vec::new());
                for id in self.engine.ids() {
                    let mut checkpoint = self.engine.checkpoint(id)?;
                    let name = self.engine.spec(id)?.name().as_str();
                    if let RecoveredState::Child {
                        pid, began, stage, ..
                    } = &checkpoint.recovered
                        && without.contains(&name)
                    {
                        checkpoint.recovered = RecoveredState::Gone {
                            pid: *pid,
                            began: *began,
                            stage: stage.clone(),
                        };
                        gone.push(id);
                    }
                    checkpoints.push((id, checkpoint));
                }
                let specs: Vec<_> = self
                    .engine
                    .ids()
                    .filter_map(|id| self.engine.spec(id).cloned())
                    .collect();
                self.engine = Engine::new(specs, 1).ok()?;
                let actions = self.engine.resume(checkpoints, self.now);
                for id in self.engine.ids() {
                    let run = self.engine.view(id)?.run;
                    let host = self.host(id);
                    host.run = run;
                    host.question = None;
                }
                self.perform(actions);
                for id in gone {
                    // Output from before the exit is read first.
                    if let Some(token) = self.host(id).line.take_if(|_| has_lines) {
                        self.step(Event::Answered(id, token, Ok(())));
                    }
                    let run = self.host(id).run?;
                    self.host(id).has_exited = true;
                    self.step(Event::Exited(id, run, Exit::Unknown));
                    self.emptied(id, run);
                }
            }
            ["restored", name, ref why @ ..] => {
                let id = find(&name)?;
                let token = self.host(id).restore.take()?;
                let result = match why {
                    [] => Ok(SnapshotId::new(1, None)),
                    [id] if id.parse::<SnapshotId>().is_ok() => Ok(id.parse().ok()?),
                    why => Err(CopyFailure::Files(why.join(" "))),
                };
                self.step(Event::Restored(id, token, result));
            }
            ["snapshotted", name, ref what @ ..] => {
                let id = find(&name)?;
                let token = self.host(id).snapshot.take()?;
                let result = match what {
                    [] => Ok(Snapshotted::Unchanged),
                    [id] if id.parse::<SnapshotId>().is_ok() => {
                        Ok(Snapshotted::Taken(id.parse().ok()?))
                    }
                    why => Err(CopyFailure::Files(why.join(" "))),
                };
                self.step(Event::Snapshotted(id, token, result));
            }
            ["spawn", "of", name, "fails", ref why @ ..] => {
                self.host(find(&name)?).spawn_fails = Some(why.join(" ").into());
            }
            ["spawn", "of", name, "never", "works"] => {
                let why = StartFailure::Permanent("not a program".to_owned());
                self.host(find(&name)?).spawn_fails = Some(why);
            }
            ["spawn", "of", name, "works"] => self.host(find(&name)?).spawn_fails = None,
            ["freeze", "of", name, "fails", ref why @ ..] => {
                self.host(find(&name)?).freeze_fails = Some(why.join(" "));
            }
            ["kill", "of", name, "fails"] => self.host(find(&name)?).survives_kill = true,
            _ => return None,
        }
        Some(())
    }

    fn step(&mut self, event: Event) {
        let actions = self.engine.step(event, self.now);
        self.perform(actions);
    }

    fn emptied(&mut self, id: ServiceId, run: RunId) {
        if self.host(id).run == Some(run) {
            self.host(id).run = None;
            self.step(Event::Emptied(id, run));
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        let mut open = VecDeque::from(actions);
        while let Some(action) = open.pop_front() {
            let mut seen = Vec::new();
            match action {
                Action::Record(_) => {}
                Action::Emit(id, fact) => {
                    let alert = if fact.is_alert() { "! " } else { "  " };
                    self.say(id, &format!("{alert}{}", fact));
                }
                Action::Spawn(id, run) => {
                    self.say(id, "-> start its program");
                    if let Some(why) = self.host(id).spawn_fails.clone() {
                        seen.push(Event::SpawnFailed(id, run, why));
                    } else {
                        self.host(id).run = Some(run);
                        self.host(id).has_exited = false;
                        self.pids += 1;
                        seen.push(Event::Spawned(id, run, self.pids));
                    }
                }
                Action::AskToStop(_, _, StopAsk::Close) => {}
                Action::AskToStop(id, ..) => self.say(id, "-> ask it to stop"),
                Action::Kill(id, run) => {
                    self.say(id, "-> kill all that is left of it");
                    let host = self.host(id);
                    if !host.survives_kill && host.run == Some(run) {
                        if !host.has_exited {
                            seen.push(Event::Exited(id, run, Exit::Signal(9)));
                        }
                        host.run = None;
                        seen.push(Event::Emptied(id, run));
                    }
                }
                Action::Freeze(id, run) => {
                    self.say(id, "-> suspend its processes");
                    let why = self.host(id).freeze_fails.clone();
                    seen.extend(why.map(|why| Event::FreezeFailed(id, run, why)));
                }
                Action::Thaw(id, _) => self.say(id, "-> let its processes go on"),
                Action::Ask {
                    service,
                    token,
                    probe,
                    ..
                } => {
                    self.say(service, &format!("-> ask {probe}"));
                    let host = self.host(service);
                    match host.answer.clone() {
                        Some(answer) => seen.push(Event::Answered(service, token, answer)),
                        None => host.question = Some(token),
                    }
                }
                Action::ExpectLine(id, token, regex) => {
                    self.say(id, &format!("-> expect a line like {regex}"));
                    self.host(id).line = Some(token);
                }
                Action::Restore {
                    service,
                    token,
                    before,
                } => {
                    let which = before.map_or_else(String::new, |id| format!(" before {id}"));
                    self.say(service, &format!("-> restore the stable snapshot{which}"));
                    self.host(service).restore = Some(token);
                }
                Action::Snapshot {
                    service,
                    token,
                    reason,
                    stable,
                    ..
                } => {
                    let which = if stable { "stable " } else { "" };
                    self.say(service, &format!("-> take a {which}snapshot: {reason}"));
                    self.host(service).snapshot = Some(token);
                }
                Action::AbandonRestore(id, _) => self.say(id, "-> call its restore off"),
                Action::AbandonSnapshot(id, _) => self.say(id, "-> leave its snapshot"),
                Action::KeepState { .. } | Action::RestoreSnapshot { .. } | Action::Forget(_) => {
                    unreachable!("only trials have these")
                }
            }
            for event in seen {
                open.extend(self.engine.step(event, self.now));
            }
        }
    }

    fn host(&mut self, id: ServiceId) -> &mut Host {
        self.hosts.entry(id).or_default()
    }

    fn time(&self) -> String {
        format!("{:>9.3}", self.now.elapsed().as_secs_f64())
    }

    fn say(&mut self, id: ServiceId, what: &str) {
        let Some(spec) = self.engine.spec(id) else {
            return;
        };
        let name = spec.name().clone();
        let _ = writeln!(
            self.transcript,
            "{}   {name:width$}  {what}",
            self.time(),
            width = self.width
        );
    }

    fn end(mut self) -> String {
        for id in self.engine.ids() {
            let Some(view) = self.engine.view(id) else {
                continue;
            };
            let mut line = format!("= {}", view.state);
            if let Some(pid) = view.pid {
                let _ = write!(line, ", pid {pid}");
            }
            if let Some(detail) = view.detail {
                let _ = write!(line, ": {detail}");
            }
            self.say(id, &line);
        }
        self.transcript
    }
}

/// Parses a duration such as `250ms`, `1.5s`, `2m` or `3h`.
fn time(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let factor = match &text[digits.len()..] {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * factor).ok()
}
