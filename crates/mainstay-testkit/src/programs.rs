//! Paths of the programs under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The environment variable with a directory of up-to-date programs, set by `cargo xtask test`
/// after it has built them.
const DIRECTORY_VARIABLE: &str = "MAINSTAY_BIN_DIR";

/// Returns the path of the `puppet` program, which is built first if it may be stale.
///
/// # Panics
/// If it cannot be built.
pub fn puppet() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| find("mainstay-testkit", "puppet"))
        .clone()
}

/// Returns the path of the `mainstay` program, which is built first if it may be stale.
///
/// # Panics
/// If it cannot be built.
pub fn mainstay() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| find("mainstay-cli", "mainstay"))
        .clone()
}

fn find(package: &str, program: &str) -> PathBuf {
    let file_name = format!("{program}{}", std::env::consts::EXE_SUFFIX);
    if let Some(built) = std::env::var_os(DIRECTORY_VARIABLE) {
        return Path::new(&built).join(file_name);
    }
    // This test is in TARGET/PROFILE/deps/.
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile_dir = test
        .ancestors()
        .nth(2)
        .expect("a test lies in a target directory");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", package, "--bin", program]);
        if profile_dir.ends_with("release") {
            build.arg("--release");
        }
        if let Some(target_dir) = profile_dir.parent() {
            build.arg("--target-dir").arg(target_dir);
        }
        let status = build.status().expect("cargo runs");
        assert!(status.success(), "build {program}: {status}");
    }
    let path = profile_dir.join(file_name);
    assert!(path.exists(), "no {}: build it first", path.display());
    path
}
