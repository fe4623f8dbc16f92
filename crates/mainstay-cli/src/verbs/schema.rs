//! `mainstay schema`: prints the JSON Schema of manifests.

use std::process::ExitCode;

use mainstay_core::failure::Failure;
use mainstay_core::manifest;

use mainstay_host::output;

pub(crate) fn run() -> Result<ExitCode, Failure> {
    output::document(&manifest::schema())?;
    Ok(ExitCode::SUCCESS)
}
