//! `cargo xtask check-targets`: type-checks the shipped crates for other systems.

use std::process::ExitCode;

use crate::lab::Lab;
use crate::{Result, heading};

/// The packages without C dependencies.
const PURE: &[&str] = &[
    "--package=mainstay",
    "--package=mainstay-core",
    "--package=mainstay-sys",
];
const ALL: &[&str] = &[
    "--package=mainstay",
    "--package=mainstay-core",
    "--package=mainstay-logs",
    "--package=mainstay-store",
    "--package=mainstay-sys",
    "--package=mainstay-cli",
];

/// A target, and a C compiler that is sufficient for it, because nothing is linked. Without one,
/// the command's C dependencies (zstd, ring) cannot be built.
const TARGETS: [(&str, Option<&str>); 5] = [
    ("x86_64-pc-windows-gnu", Some("x86_64-w64-mingw32-gcc")),
    ("x86_64-pc-windows-msvc", None),
    ("x86_64-unknown-linux-musl", Some("cc")),
    ("x86_64-unknown-freebsd", Some("cc")),
    ("aarch64-apple-darwin", None),
];

/// Checks all targets, even if one fails.
pub(crate) fn run() -> Result<ExitCode> {
    let lab = Lab::set_up()?;
    let mut report = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for (target, c_compiler) in TARGETS {
        heading(target);
        let mut cargo = lab.cargo(target);
        cargo.args(["check", "--quiet"]);
        if let Some(c_compiler) = c_compiler {
            cargo.env(format!("CC_{}", target.replace('-', "_")), c_compiler);
        }
        cargo.args(if c_compiler.is_some() { ALL } else { PURE });
        let is_ok = cargo.status()?.success();
        if !is_ok {
            code = ExitCode::FAILURE;
        }
        let outcome = if is_ok { "ok" } else { "failed" };
        let what = match c_compiler {
            Some(_) => "",
            None => " (the command skipped: no C compiler for it here)",
        };
        report.push(format!("{target}: {outcome}{what}"));
    }
    heading("targets");
    report.iter().for_each(|line| println!("{line}"));
    Ok(code)
}
