//! `mainstay history`: shows the changes to a definition, with their author and time.

use std::process::ExitCode;
use std::time::Duration;

use mainstay_core::failure::Failure;
use mainstay_core::registry::{Entry, Who};
use mainstay_core::time::rfc3339;
use mainstay_host::output;
use mainstay_store::state_dir::StateDir;
use serde::Serialize;

use crate::installed::registry_of;
use crate::not_found;

/// Show the changes to a service's definition, oldest first
///
/// Each entry shows who made the change, when and how. Works for uninstalled services, too.
#[derive(Debug, clap::Args)]
pub(crate) struct History {
    /// Name of the service
    name: String,
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
    detail: Option<&'a str>,
}

impl History {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
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
        let mut text = format!("{:<24}  {:>7}  {:<11}  WHO\n", "TIME", "VERSION", "EVENT");
        for entry in &entries {
            let (time, event) = (time(entry), entry.event.as_str());
            text += &format!("{time}  {:>7}  {event:<11}  {}", entry.version, entry.who);
            if let Some(detail) = &entry.detail {
                text += &format!(": {detail}");
            }
            text.push('\n');
        }
        output::text(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}
