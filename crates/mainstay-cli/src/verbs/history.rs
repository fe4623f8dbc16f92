//! `mainstay history`: shows the changes to a definition, with their author and time, or what they
//! did to the service.

use std::process::ExitCode;
use std::time::Duration;

use mainstay_core::engine::Human;
use mainstay_core::events::{Course, Stats};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::registry::{Entry, Event, Version, Who, before, is_rejected};
use mainstay_core::time::rfc3339;
use mainstay_host::output;
use mainstay_store::state_dir::StateDir;
use serde::Serialize;

use super::events::{self, Message};
use super::selection;
use crate::installed::registry_of;
use crate::not_found;

/// The period of the figures if no option selects one.
const PERIOD: &str = "30d";

/// Show the changes to a service's definition, oldest first
///
/// Each entry shows who made the change, when and how. Works for uninstalled services, too.
/// `--stats` sums up what happened to the service: deployments, outages and availability.
#[derive(Debug, clap::Args)]
pub(crate) struct History {
    /// Name of the service
    name: String,
    /// Show deployments, outages and availability in a period instead
    #[arg(long)]
    stats: bool,
    /// Begin the period at this time [default: 30d]
    #[arg(long, value_name = "T", allow_hyphen_values = true, requires = "stats")]
    since: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    id: &'a str,
    state: &'a str,
    version: u64,
    etag: &'a str,
    entries: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: &'a str,
    version: u64,
    etag: &'a str,
    who: &'a Who,
    /// The version in effect before, if the change was to another definition.
    before: Option<u64>,
    restored: Option<u64>,
    detail: Option<&'a str>,
}

impl History {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        if self.stats {
            return self.show_stats(state);
        }
        let found = registry_of(state, &self.name)?;
        let (registry, registered) = found.ok_or_else(|| not_found::service(state, &self.name))?;
        let entries = registry.history(&self.name)?;
        let time = |entry: &Entry| rfc3339(Duration::from_micros(entry.at));
        if self.json {
            let lines = entries.iter().map(|entry| Line {
                time: time(entry),
                event: entry.event.as_str(),
                version: entry.version.0,
                etag: &entry.etag,
                who: &entry.who,
                before: replaced(&entries, entry).map(|version| version.0),
                restored: entry.restored.map(|version| version.0),
                detail: entry.detail.as_deref(),
            });
            output::document(&Report {
                name: &self.name,
                id: &registered.id,
                state: registered.life.state(),
                version: registered.life.version().0,
                etag: registered.etag.as_str(),
                entries: lines.collect(),
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let who: Vec<String> = entries.iter().map(|entry| entry.who.to_string()).collect();
        let width = who.iter().map(|who| who.chars().count()).max();
        let width = width.unwrap_or_default().max("WHO".len());
        let mut text = format!(
            "{:<24}  {:>7}  {:<11}  {:<width$}  WHY\n",
            "TIME", "VERSION", "EVENT", "WHO"
        );
        for (entry, who) in entries.iter().zip(who) {
            let (time, event, why) = (time(entry), entry.event.as_str(), why(&entries, entry));
            let version = entry.version;
            let line = format!("{time}  {version:>7}  {event:<11}  {who:<width$}  {why}");
            text += line.trim_end();
            text.push('\n');
        }
        output::text(&text)?;
        Ok(ExitCode::SUCCESS)
    }

    fn show_stats(&self, state: &StateDir) -> Result<ExitCode, Failure> {
        let now = selection::now();
        let since = selection::time("--since", self.since.as_deref().unwrap_or(PERIOD))?;
        if since > now {
            let message = "--since names a time in the future";
            return Err(Failure::new(Code::Usage, message));
        }
        let mut course = Course::new(since);
        let are_stored = events::each_stored(state, &self.name, |message| match message {
            Message::Event(event) if event.time <= now => course.observe(&event),
            Message::Event(_) => {}
            Message::Loss(_) => course.lose(),
        })?;
        if !are_stored && registry_of(state, &self.name)?.is_none() {
            return Err(not_found::service(state, &self.name));
        }
        let stats = course.stats(now);
        if self.json {
            output::document(&Figures {
                name: &self.name,
                stats: &stats,
            })?;
        } else {
            output::text(&text(&self.name, &stats))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the version that was in effect before a change to another definition.
fn replaced(entries: &[Entry], entry: &Entry) -> Option<Version> {
    let is_change = match entry.event {
        Event::Updated => true,
        Event::RolledBack => is_rejected(entries, entry.version),
        _ => false,
    };
    before(entries, entry.version).filter(|_| is_change)
}

/// Returns the versions that a change is about, and the remark on it.
fn why(entries: &[Entry], entry: &Entry) -> String {
    let version = entry.version;
    let versions = replaced(entries, entry).map(|before| match (entry.event, entry.restored) {
        (Event::RolledBack, _) => format!("version {before} remains in effect"),
        (_, None) => format!("from version {before} to version {version}"),
        (_, Some(restored)) => {
            format!("from version {before} to the definition of version {restored}")
        }
    });
    let parts: Vec<String> = versions.into_iter().chain(entry.detail.clone()).collect();
    parts.join("; ")
}

#[derive(Serialize)]
struct Figures<'a> {
    name: &'a str,
    #[serde(flatten)]
    stats: &'a Stats,
}

fn text(name: &str, stats: &Stats) -> String {
    let time = |seconds: f64| Human(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let percent = |share: f64, digits: usize| format!("{:.digits$} %", share * 100.0);
    let rolled_back = stats.rolled_back;
    let deployments = match stats.deployments_per_week {
        Some(rate) => format!("{} ({rate:.1} a week)", stats.deployments),
        None => stats.deployments.to_string(),
    };
    let mut lines = vec![
        ("period", format!("{} to {}", stats.from, stats.to)),
        ("deployments", deployments),
    ];
    if let Some(share) = stats.rolled_back_share {
        lines.push((
            "rolled back",
            format!("{rolled_back} ({})", percent(share, 0)),
        ));
    }
    let availability = match stats.availability {
        // 99.999 % is not to become 100 %.
        Some(share) => percent((share * 1e5).floor() / 1e5, 3),
        None => "unknown: the service was never ready".to_owned(),
    };
    lines.push(("availability", availability));
    let mut outages = match stats.outages {
        0 => "none".to_owned(),
        count => format!("{count}, {} in total", time(stats.down_s)),
    };
    if stats.is_down {
        outages += "; the last one continues";
    }
    lines.push(("outages", outages));
    if let Some((median, max)) = stats.restored_median_s.zip(stats.restored_max_s) {
        let text = format!("{} (median), {} (longest)", time(median), time(max));
        lines.push(("time to restore", text));
    }
    if stats.gaps > 0 {
        let count = stats.gaps;
        let text = format!("{count} × an end that no supervisor saw, or lost events: not counted");
        lines.push(("gaps", text));
    }
    let lines = lines
        .iter()
        .map(|(what, text)| format!("{what:<16} {text}\n"));
    format!("{name}\n{}", lines.collect::<String>())
}
