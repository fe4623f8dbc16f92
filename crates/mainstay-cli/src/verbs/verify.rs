//! `mainstay verify`: cross-checks services, source by source.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mainstay_core::engine::StateName;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::verify::{Evidence, Finding, Verdict};
use mainstay_host::output;
use mainstay_store::state_dir::StateDir;
use serde::Serialize;

use crate::verify::{Checked, Target};

/// The pause between two checks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Cross-check services: ask every independent source, and compare the answers
///
/// Asks the supervisor, the service manager and its tools, the process table, control groups,
/// sockets, the readiness probe, stored events, the registry and the installed files. Exits 0 if
/// they agree, 79 with the likely causes if they do not, and 4 if too few could be asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// Names of the services
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// Check every service
    #[arg(long)]
    all: bool,
    /// Check again and again, and print each change
    #[arg(long)]
    watch: bool,
    /// Print one JSON document; with --watch, one line per change
    #[arg(long)]
    json: bool,
}

/// The number of services that are checked at a time.
const WORKERS: usize = 8;

/// The document of one service.
#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    verdict: Verdict,
    /// The state that no source contradicts.
    state: Option<StateName>,
    witnesses: Vec<Witness<'a>>,
    causes: Vec<&'a str>,
    findings: &'a [Finding],
}

/// One source in a document.
#[derive(Serialize)]
struct Witness<'a> {
    name: &'static str,
    claim: &'a str,
    detail: Option<&'a str>,
    asked: &'a str,
}

/// The document of several services.
#[derive(Serialize)]
struct All<'a> {
    verdict: Verdict,
    services: Vec<Report<'a>>,
}

impl<'a> Report<'a> {
    fn new(name: &'a str, checked: &'a Checked) -> Self {
        let findings = &checked.judgement.findings;
        Self {
            name,
            verdict: checked.judgement.verdict,
            state: checked.judgement.state,
            witnesses: checked.evidence.iter().map(Witness::new).collect(),
            causes: findings.iter().map(|it| it.cause.as_str()).collect(),
            findings,
        }
    }
}

impl<'a> Witness<'a> {
    fn new(evidence: &'a Evidence) -> Self {
        let (claim, detail) = match &evidence.answer {
            Ok(observation) => (observation.words.as_str(), observation.detail.as_deref()),
            Err(why) => ("unknown", Some(why.as_str())),
        };
        Self {
            name: evidence.source.name(),
            claim,
            detail,
            asked: &evidence.asked,
        }
    }
}

impl Verify {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let find = || -> Result<Vec<Target>, Failure> {
            if self.all {
                return Target::all(state);
            }
            let names = self.names.iter();
            names.map(|name| Target::find(state, name)).collect()
        };
        if self.watch {
            return self.watch(find);
        }
        let targets = find()?;
        if targets.is_empty() {
            let failure = Failure::new(Code::Unknown, "there are no services to check");
            return Err(failure.hint("see which there are: mainstay list"));
        }
        let checked = check_all(&targets);
        let results: Vec<(&Target, &Checked)> = targets.iter().zip(&checked).collect();
        match (&*results, self.json) {
            ([(target, checked)], true) if !self.all => {
                output::document(&Report::new(target.name(), checked))?;
            }
            (results, true) => {
                let reports = results
                    .iter()
                    .map(|(it, checked)| Report::new(it.name(), checked));
                output::document(&All {
                    verdict: worst(results),
                    services: reports.collect(),
                })?;
            }
            (results, false) => {
                let texts = results.iter().map(|(it, checked)| text(it.name(), checked));
                output::text(&texts.collect::<Vec<_>>().join("\n"))?;
            }
        }
        Ok(exit(worst(&results)))
    }

    /// Prints every service whose evidence has changed, until the process is interrupted.
    fn watch(&self, find: impl Fn() -> Result<Vec<Target>, Failure>) -> Result<ExitCode, Failure> {
        let mut shown = BTreeMap::new();
        loop {
            for target in find()? {
                let checked = target.check();
                if shown.get(target.name()) == Some(&checked.judgement) {
                    continue;
                }
                let text = if self.json {
                    output::json_line(&Report::new(target.name(), &checked))?
                } else {
                    text(target.name(), &checked)
                };
                if output::stream(&text)?.is_break() {
                    return Ok(ExitCode::SUCCESS);
                }
                shown.insert(target.name().to_owned(), checked.judgement);
            }
            thread::sleep(WATCH_INTERVAL);
        }
    }
}

/// Checks services, several at a time: a probe that hangs must not hold up the others.
fn check_all(targets: &[Target]) -> Vec<Checked> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            match targets.get(at) {
                Some(target) => done.push((at, target.check())),
                None => return done,
            }
        }
    };
    let done = thread::scope(|scope| {
        let workers = (0..WORKERS.min(targets.len())).map(|_| scope.spawn(work));
        let workers: Vec<_> = workers.collect();
        let done = workers.into_iter().flat_map(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => resume_unwind(panic),
        });
        done.collect::<BTreeMap<usize, Checked>>()
    });
    done.into_values().collect()
}

/// Returns the verdict on all services together.
fn worst(results: &[(&Target, &Checked)]) -> Verdict {
    let is_one = |wanted: Verdict| {
        let mut verdicts = results.iter().map(|(_, it)| it.judgement.verdict);
        verdicts.any(|verdict| verdict == wanted)
    };
    if is_one(Verdict::Disagree) {
        Verdict::Disagree
    } else if is_one(Verdict::Unknown) {
        Verdict::Unknown
    } else {
        Verdict::Agree
    }
}

fn exit(verdict: Verdict) -> ExitCode {
    match verdict {
        Verdict::Agree => ExitCode::SUCCESS,
        Verdict::Disagree => ExitCode::from(Code::Disagreement as u8),
        Verdict::Unknown => ExitCode::from(Code::Unknown as u8),
    }
}

/// Returns the table of a service, and the findings below it.
fn text(name: &str, checked: &Checked) -> String {
    let known = checked
        .evidence
        .iter()
        .filter(|it| it.answer.is_ok())
        .count();
    let state = checked
        .judgement
        .state
        .map(|it| format!("{it}, "))
        .unwrap_or_default();
    let verdict = match checked.judgement.verdict {
        Verdict::Agree => "the sources agree",
        Verdict::Disagree => "not as it should be",
        Verdict::Unknown => "cannot be confirmed",
    };
    let all = checked.evidence.len();
    let mut text = format!("{name}: {state}{verdict} ({known} of {all} sources answered)\n");
    for evidence in &checked.evidence {
        let source = evidence.source.name();
        let (words, asked) = match &evidence.answer {
            Ok(observation) => {
                let detail = observation.detail.as_ref().map(|it| format!("  ({it})"));
                let words = observation.words.clone() + &detail.unwrap_or_default();
                (words, &*evidence.asked)
            }
            Err(why) => (format!("unknown: {why}"), &*evidence.asked),
        };
        let asked = match asked {
            "" => String::new(),
            asked => format!("  [{asked}]"),
        };
        text += &format!("  {source:<15} {words}{asked}\n");
    }
    for finding in &checked.judgement.findings {
        text += &format!("{name}: {}\n", finding.cause);
        if let Some(hint) = &finding.hint {
            text += &format!("  hint: {hint}\n");
        }
    }
    text
}
