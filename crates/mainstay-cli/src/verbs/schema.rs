//! `mainstay schema`: prints the JSON Schema of manifests.

use std::process::ExitCode;

use mainstay_core::failure::Failure;
use mainstay_core::manifest;

use crate::output;

pub(crate) fn run() -> Result<ExitCode, Failure> {
    output::document(&manifest::schema())?;
    Ok(ExitCode::SUCCESS)
}
