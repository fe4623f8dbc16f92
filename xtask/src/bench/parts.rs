//! Benchmarks of single parts, without the processes of a supervisor: the bench targets of crates.

use std::process::ExitCode;

use crate::{Result, cargo};

/// Runs the benchmark of this name.
pub(crate) fn run(name: &str) -> Result<ExitCode> {
    let package = match name {
        "events" => "mainstay-logs",
        "spawn" => "mainstay-sys",
        _ => "mainstay-core",
    };
    let mut bench = cargo();
    bench.args(["bench", "--quiet", "--package", package, "--bench", name]);
    Ok(if bench.status()?.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
