//! `mainstay version`: prints the version of the program and of its formats.

use std::env::consts::{ARCH, OS};
use std::process::ExitCode;

use mainstay::Manager;
use mainstay_core::failure::Failure;
use mainstay_host::output;
use serde::Serialize;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Print the version
#[derive(Debug, clap::Args)]
pub(crate) struct Version {
    /// Print one JSON document, with the platform and the versions of formats and protocols
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    /// The processor architecture and operating system, as Rust names them.
    target: String,
    /// The service managers that services can be installed into, on any system.
    managers: Vec<&'static str>,
    /// The version of the manifest's keys.
    manifest: u32,
    /// The versions of the control socket: the first part of its paths.
    control: [&'static str; 1],
}

impl Version {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        if self.json {
            output::document(&Report {
                version: VERSION,
                target: format!("{ARCH}-{OS}"),
                managers: Manager::ALL.iter().map(|it| it.name()).collect(),
                manifest: 1,
                control: ["v1"],
            })?;
        } else {
            output::text(&format!("mainstay {VERSION}\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
