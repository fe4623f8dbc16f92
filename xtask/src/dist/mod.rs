//! `cargo xtask dist`: everything that users download and install, in `target/dist/`.
//!
//! Builds of the same commit have the same bytes, whenever and wherever they are built: programs
//! contain no paths of the machine, all times are that of the commit, and all lists are sorted.
//! Each format is written by its own tool, from one list of files (`payload.rs`).

mod archive;
mod debian;
mod oci;
mod payload;
mod program;
mod rpm;
mod sbom;
mod trial;
mod windows;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use self::program::Program;
use crate::lab::{is_root, on_path};
use crate::packages::install;
use crate::{Result, bench, heading, root, target_dir};

/// The name of the program, of its packages, and of the daemon's unit.
const NAME: &str = "mainstay";
const SUMMARY: &str = "Run any program as a production service";
const HOMEPAGE: &str = env!("CARGO_PKG_REPOSITORY");
const LICENSE: &str = env!("CARGO_PKG_LICENSE");
const MAINTAINER: &str = "The mainstay developers <mainstay-rs@users.noreply.github.com>";

const GNU: &str = "x86_64-unknown-linux-gnu";
const MUSL: &str = "x86_64-unknown-linux-musl";
const ARM_MUSL: &str = "aarch64-unknown-linux-musl";
const WINDOWS: &str = "x86_64-pc-windows-gnu";

/// The parts of a release, and their targets.
const PARTS: [(&str, &str); 4] = [
    ("gnu", GNU),
    ("musl", MUSL),
    ("aarch64", ARM_MUSL),
    ("windows", WINDOWS),
];

/// The version that a trial upgrades to.
const NEXT: &str = "99.0.0";

/// A release that is being built.
struct Dist {
    version: String,
    /// The directory of the artifacts.
    out: PathBuf,
    /// The time of the commit, in seconds since 1970.
    time: u64,
    /// A directory that vanishes with the build.
    work: tempfile::TempDir,
}

/// Builds these parts, or all.
pub(crate) fn run(parts: &[&str]) -> Result<ExitCode> {
    let dist = Dist::release(&target_dir()?.join("dist"))?;
    for target in targets(parts)? {
        build(&dist, target)?;
    }
    dist.close()?;
    Ok(ExitCode::SUCCESS)
}

/// Builds these parts, or all, and tries them in clean systems.
pub(crate) fn build_and_try(parts: &[&str]) -> Result<ExitCode> {
    let dist = Dist::release(&target_dir()?.join("dist"))?;
    let next = Dist::next()?;
    for target in targets(parts)? {
        let program = build(&dist, target)?;
        match target {
            GNU => {
                packages(&next, &program)?;
                trial::packages(&dist, &next)?;
            }
            MUSL => trial::static_program(&dist)?,
            ARM_MUSL => trial::emulated(&program)?,
            _ => {
                windows::msi(&next, &program)?;
                trial::windows(&dist, &next)?;
            }
        }
    }
    dist.close()?;
    Ok(ExitCode::SUCCESS)
}

/// Tries packages of the program that the budget has measured, which costs no build.
pub(crate) fn try_budget() -> Result<ExitCode> {
    if !is_root() || !on_path("dpkg-deb") {
        mainstay_testkit::skip("needs root on Debian");
        return Ok(ExitCode::SUCCESS);
    }
    let out = tempfile::tempdir()?;
    let (dist, next) = (Dist::release(out.path())?, Dist::next()?);
    let program = Program::plain(bench::build_mainstay()?);
    packages(&dist, &program)?;
    packages(&next, &program)?;
    trial::packages(&dist, &next)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the targets of these parts, or all.
fn targets(parts: &[&str]) -> Result<Vec<&'static str>> {
    let find = |part: &&str| {
        let known = PARTS.iter().find(|(name, _)| name == part);
        let names = || PARTS.map(|(name, _)| name).join(", ");
        let unknown = || format!("no part {part}; parts: {}", names()).into();
        known.map(|(_, target)| *target).ok_or_else(unknown)
    };
    match parts {
        [] => Ok(PARTS.map(|(_, target)| target).to_vec()),
        parts => parts.iter().map(find).collect(),
    }
}

/// Builds the program for a target, and all artifacts that contain it.
fn build(dist: &Dist, target: &'static str) -> Result<Program> {
    let program = step(&format!("{target}: program"), || {
        Program::build(dist, target)
    })?;
    step(&format!("{target}: artifacts"), || {
        match target {
            GNU => packages(dist, &program)?,
            MUSL => {
                archive::tarball(dist, &program)?;
                oci::image(dist, &program)?;
            }
            ARM_MUSL => archive::tarball(dist, &program)?,
            _ => {
                windows::zip(dist, &program)?;
                windows::msi(dist, &program)?;
            }
        }
        sbom::write(dist, target)
    })?;
    Ok(program)
}

/// Writes the archive and the packages of a program for glibc.
fn packages(dist: &Dist, program: &Program) -> Result<()> {
    install(&[("rpmbuild", "rpm")])?;
    archive::tarball(dist, program)?;
    debian::package(dist, program)?;
    rpm::package(dist, program)
}

impl Dist {
    /// A build of this commit.
    fn release(out: &Path) -> Result<Self> {
        let mut git = Command::new("git");
        git.current_dir(root()).args(["log", "-1", "--format=%ct"]);
        fs::create_dir_all(out)?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            out: out.to_owned(),
            time: text_of(&mut git)?.trim().parse()?,
            work: tempfile::tempdir_in(target_dir()?)?,
        })
    }

    /// A build of this commit, as if it were a later version. It vanishes with the value.
    fn next() -> Result<Self> {
        let mut dist = Self::release(&target_dir()?)?;
        dist.version = NEXT.to_owned();
        dist.out = dist.scratch("out")?;
        Ok(dist)
    }

    /// Creates a directory that vanishes with the build.
    fn scratch(&self, name: &str) -> Result<PathBuf> {
        let dir = self.work.path().join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Returns a command whose output depends on its input alone.
    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("SOURCE_DATE_EPOCH", self.time.to_string())
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        command
    }

    /// Returns a command that replaces a file with its compressed form.
    fn gzip(&self) -> Command {
        let mut gzip = self.tool("gzip");
        gzip.args(["-9", "--no-name", "--force"]);
        gzip
    }

    /// Returns the time of the commit in UTC, in a format of `date`.
    fn date(&self, format: &str) -> Result<String> {
        let mut date = self.tool("date");
        date.arg(format!("--date=@{}", self.time));
        Ok(text_of(date.arg(format!("+{format}")))?.trim().to_owned())
    }

    /// Writes the checksums of this version's artifacts, and prints them.
    fn close(&self) -> Result<()> {
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(&self.out)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.contains(&self.version) {
                names.push(name);
            }
        }
        names.sort();
        heading("artifacts");
        let mut sums = String::new();
        for name in names {
            let path = self.out.join(&name);
            let sum = sha256(&path)?;
            let kilobytes = path.metadata()?.len() / 1000;
            println!("{kilobytes:>9} kB  {}  {name}", &sum[..16]);
            sums += &format!("{sum}  {name}\n");
        }
        Ok(fs::write(self.out.join("SHA256SUMS"), sums)?)
    }
}

/// Runs one step, and prints how long it takes.
fn step<T>(name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    heading(name);
    let start = Instant::now();
    let result = step().map_err(|error| format!("{name}: {error}"))?;
    println!("({:.1} s)", start.elapsed().as_secs_f64());
    Ok(result)
}

/// Replaces each `@NAME@` in a template.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, to)| {
        text.replace(&format!("@{name}@"), to)
    })
}

fn sha256(path: &Path) -> Result<String> {
    let sum = text_of(Command::new("sha256sum").arg("--binary").arg(path))?;
    Ok(sum.split(' ').next().unwrap_or_default().to_owned())
}

/// Runs a command that must succeed.
fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status();
    let status = status.map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{:?}: {status}", command.get_program()).into())
    }
}

/// Returns the standard output of a command that must succeed.
fn text_of(command: &mut Command) -> Result<String> {
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if !output.status.success() {
        return Err(format!("{:?}: {}", command.get_program(), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
