//! `cargo xtask registry-fixture`: writes a registry in the current version of the schema, once for
//! each version, to be committed. The tests open all of them.

use std::process::ExitCode;

use crate::{Result, cargo, root};

/// The offset of the version of the schema, a big-endian number, in an SQLite file.
const USER_VERSION: usize = 60;

pub(crate) fn registry() -> Result<ExitCode> {
    let fixtures = root().join("crates/mainstay-store/tests/fixtures");
    let dir = tempfile::tempdir_in(&fixtures)?;
    let path = dir.path().join("registry.db");
    let mut example = cargo();
    example.args(["run", "--quiet", "--package", "mainstay-store"]);
    example
        .args(["--example", "registry-fixture", "--"])
        .arg(&path);
    if !example.status()?.success() {
        return Err("the registry could not be written".into());
    }
    let file = std::fs::read(&path)?;
    let version = file.get(USER_VERSION..).and_then(|rest| rest.first_chunk());
    let version = u32::from_be_bytes(*version.ok_or("the registry is empty")?);
    let fixture = fixtures.join(format!("registry-v{version}.db"));
    if fixture.exists() {
        return Err(format!("{} exists: an old file never changes", fixture.display()).into());
    }
    std::fs::rename(&path, &fixture)?;
    println!("{}", fixture.display());
    Ok(ExitCode::SUCCESS)
}
