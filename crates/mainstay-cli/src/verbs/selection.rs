//! The options of `mainstay logs` and `mainstay events` that select lines.

use std::time::SystemTime;

use mainstay_core::failure::{Code, Failure};
use mainstay_core::time::{WHEN, when};
use mainstay_host::output;
use mainstay_logs::read::Query;
use regex::bytes::{Regex, RegexBuilder};

use super::number;

/// The number of lines shown to a person if no option selects lines.
const DEFAULT_LINES: u64 = 10;

/// The help about times.
pub(super) const TIMES: &str = "\
T is one of: 2026-11-22T10:11:12Z (or +01:00), 2026-11-22, 2026-11-22 10:11[:12], 10:11[:12] (today), today, yesterday,
15m (ago; also s, h, d, w; 1h30m), @SECONDS since 1970. Without an offset it is UTC, like the stamps in logs.";

/// The selected lines.
#[derive(Debug, clap::Args)]
pub(super) struct Selection {
    /// Show the last N entries of each service [default: 10 on a terminal or with --follow,
    /// otherwise all; all with --since, --until or --grep]
    #[arg(short = 'n', long, value_name = "N", value_parser = number, allow_negative_numbers = true)]
    lines: Option<u64>,
    /// Show entries from this time on
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    since: Option<String>,
    /// Show entries up to this time
    #[arg(
        long,
        value_name = "T",
        allow_hyphen_values = true,
        conflicts_with = "follow"
    )]
    until: Option<String>,
    /// Show only entries that match this regular expression
    #[arg(short, long, value_name = "RE")]
    grep: Option<String>,
    /// Ignore case in --grep
    #[arg(short, long, requires = "grep")]
    ignore_case: bool,
}

impl Selection {
    /// Returns the range of lines. `follows` is set if new lines are shown after them.
    pub(super) fn query(&self, follows: bool) -> Result<Query, Failure> {
        let named = |option, text: &Option<String>| {
            let text = text.as_deref();
            text.map(|text| time(option, text)).transpose()
        };
        let since = named("--since", &self.since)?;
        let until = named("--until", &self.until)?;
        let is_narrowed = since.is_some() || until.is_some() || self.grep.is_some();
        let is_brief = !is_narrowed && (follows || output::is_terminal());
        let lines = self.lines.or(is_brief.then_some(DEFAULT_LINES));
        Ok(Query {
            lines,
            since,
            until,
        })
    }

    /// Returns the expression that lines are to match.
    pub(super) fn regex(&self) -> Result<Option<Regex>, Failure> {
        let Some(text) = &self.grep else {
            return Ok(None);
        };
        let regex = RegexBuilder::new(text)
            .case_insensitive(self.ignore_case)
            .build();
        regex
            .map(Some)
            .map_err(|error| Failure::new(Code::Usage, format!("--grep '{text}': {error}")))
    }
}

/// Returns the current time in microseconds since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// Returns the time that an option names, in microseconds since 1970.
pub(super) fn time(option: &str, text: &str) -> Result<u64, Failure> {
    when(text, now(), 0).ok_or_else(|| {
        Failure::new(Code::Usage, format!("{option} '{text}' is not a time"))
            .hint(format!("expected {WHEN}"))
    })
}
