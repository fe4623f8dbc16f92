//! The zip archive and the MSI package for Windows.

use std::fs;
use std::path::Path;

use super::program::Program;
use super::{Dist, HOMEPAGE, NAME, WINDOWS, fill, sha256, succeed};
use crate::packages::install;
use crate::{Result, root};

/// The package, in the language of wixl.
const PACKAGE: &str = include_str!("templates/mainstay.wxs");

/// The table for PATH, which wixl cannot write: `[INSTALLDIR]` is appended when the program is
/// installed, and removed with it. See
/// <https://learn.microsoft.com/windows/win32/msi/environment-table>.
const ENVIRONMENT: &str = "\
Environment\tName\tValue\tComponent_\r
s72\tl255\tL255\ts72\r
Environment\tEnvironment\r
Path\t=-*PATH\t[~];[INSTALLDIR]\tProgram\r
";

/// The actions that apply the table, and their places in the sequence of an installation.
const ENVIRONMENT_ACTIONS: [(&str, u32); 2] = [
    ("RemoveEnvironmentStrings", 3300),
    ("WriteEnvironmentStrings", 5200),
];

pub(super) fn msi_name(version: &str) -> String {
    format!("{NAME}-{version}-x86_64.msi")
}

/// Writes `mainstay-VERSION-x86_64-pc-windows-gnu.zip`.
pub(super) fn zip(dist: &Dist, program: &Program) -> Result<()> {
    install(&[("zip", "zip")])?;
    let name = format!("{NAME}-{}-{WINDOWS}", dist.version);
    let top = dist.scratch("zip")?;
    let files = collect(dist, program, &dist.scratch(&format!("zip/{name}"))?)?;
    let to = dist.out.join(format!("{name}.zip"));
    // Zip would add to it.
    if to.exists() {
        fs::remove_file(&to)?;
    }
    let mut zip = dist.tool("zip");
    zip.current_dir(top).args(["-X", "-9", "--quiet"]).arg(to);
    zip.args(files.map(|file| format!("{name}/{file}")));
    succeed(&mut zip)
}

/// Writes `mainstay-VERSION-x86_64.msi`.
pub(super) fn msi(dist: &Dist, program: &Program) -> Result<()> {
    install(&[
        ("wixl", "wixl"),
        ("msibuild", "msitools"),
        ("faketime", "faketime"),
    ])?;
    let dir = dist.scratch("msi")?;
    collect(dist, program, &dir)?;
    // Windows Installer tells versions apart by the product code, and packages by the package code.
    let product = guid(dist, &format!("product {}", dist.version))?;
    let content = sha256(&program.path)?;
    let package = guid(dist, &format!("package {} {content}", dist.version))?;
    let values = [
        ("VERSION", &*dist.version),
        ("HOMEPAGE", HOMEPAGE),
        ("PRODUCT", &product),
    ];
    fs::write(dir.join("mainstay.wxs"), fill(PACKAGE, &values))?;
    fs::write(dir.join("Environment.idt"), ENVIRONMENT)?;
    // Both tools write the time of day.
    let now = dist.date("%Y-%m-%d %H:%M:%S")?;
    let tool = |name: &str| {
        let mut tool = dist.tool("faketime");
        tool.current_dir(&dir)
            .args(["-f", &format!("@{now}"), name]);
        tool
    };
    let to = dist.out.join(msi_name(&dist.version));
    let mut wixl = tool("wixl");
    succeed(
        wixl.args(["--arch", "x64", "mainstay.wxs", "--output"])
            .arg(&to),
    )?;
    let mut msibuild = tool("msibuild");
    msibuild.arg(&to).args(["-i", "Environment.idt"]);
    for (action, at) in ENVIRONMENT_ACTIONS {
        let table = "InstallExecuteSequence (Action, Sequence)";
        let insert = format!("INSERT INTO {table} VALUES ('{action}', {at})");
        msibuild.args(["-q", &insert]);
    }
    let title = format!("{NAME} {}", dist.version);
    let author = "The mainstay developers";
    msibuild.args(["-s", &title, author, "x64;1033", &format!("{{{package}}}")]);
    succeed(&mut msibuild)
}

/// Copies the files to a directory, and gives them the time of the commit. Returns their names.
fn collect(dist: &Dist, program: &Program, dir: &Path) -> Result<[&'static str; 4]> {
    fs::copy(&program.path, dir.join("mainstay.exe"))?;
    for (from, to) in [
        ("README.md", "README.md"),
        ("LICENSE-APACHE", "LICENSE-APACHE.txt"),
        ("LICENSE-MIT", "LICENSE-MIT.txt"),
    ] {
        fs::copy(root().join(from), dir.join(to))?;
    }
    let names = [
        "LICENSE-APACHE.txt",
        "LICENSE-MIT.txt",
        "README.md",
        "mainstay.exe",
    ];
    let mut touch = dist.tool("touch");
    touch.current_dir(dir).arg(format!("--date=@{}", dist.time));
    succeed(touch.arg(".").args(names))?;
    Ok(names)
}

/// Returns a GUID that follows from a name, in the form of version 8 (RFC 9562).
fn guid(dist: &Dist, name: &str) -> Result<String> {
    let seed = dist.scratch("guid")?.join("name");
    fs::write(&seed, name)?;
    let sum = sha256(&seed)?.to_uppercase();
    let (a, b, c, d, e) = (
        &sum[..8],
        &sum[8..12],
        &sum[13..16],
        &sum[17..20],
        &sum[20..32],
    );
    Ok(format!("{a}-{b}-8{c}-8{d}-{e}"))
}
