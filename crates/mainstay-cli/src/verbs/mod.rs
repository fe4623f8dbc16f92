//! The verbs, one file each. A verb reads its arguments, calls the rest of the program and shows
//! the result.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod control;
pub(crate) mod daemon;
pub(crate) mod diff;
pub(crate) mod enable;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod host;
pub(crate) mod init;
pub(crate) mod install;
pub(crate) mod logs;
pub(crate) mod man;
mod merge;
pub(crate) mod run;
pub(crate) mod schema;
mod selection;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod uninstall;
pub(crate) mod update;
pub(crate) mod verify;
pub(crate) mod version;

use clap::ValueEnum;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest::Format;

/// The manifest format, as named on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FormatName {
    /// TOML
    Toml,
    /// YAML, without anchors and tags
    Yaml,
    /// JSON
    Json,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Toml => Self::Toml,
            FormatName::Yaml => Self::Yaml,
            FormatName::Json => Self::Json,
        }
    }
}

/// Parses a whole number.
fn number(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "expected a whole number")
}

/// Refuses an option that applies to one service if there are more or none.
fn must_be_one(verb: &str, option: &str, count: usize) -> Result<(), Failure> {
    match count {
        1 => Ok(()),
        count => {
            let message =
                format!("cannot {verb} {count} services: {option} applies to one service");
            Err(Failure::new(Code::Usage, message).hint("name one service"))
        }
    }
}
