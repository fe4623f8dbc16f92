//! The program itself, and its debug information apart.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Dist, GNU, MUSL, NAME, WINDOWS, succeed, text_of};
use crate::lab::Lab;
use crate::packages::install;
use crate::{Result, cargo, root, target_dir};

/// A stripped program for a target.
pub(super) struct Program {
    pub(super) target: &'static str,
    pub(super) path: PathBuf,
}

impl Program {
    /// Builds the command for a target.
    pub(super) fn build(dist: &Dist, target: &'static str) -> Result<Self> {
        let target_dir = target_dir()?;
        if target == WINDOWS {
            let lab = Lab::set_up()?;
            // The lab builds the standard library, too.
            let compiler_dir = lab.compiler_dir()?;
            let moved = [(&*compiler_dir, "/rust")];
            build(&mut lab.cargo(target), target, &moved)?;
            return split(dist, target, &target_dir.join("lab"));
        }
        let mut cargo = cargo();
        if target == MUSL {
            install(&[("musl-gcc", "musl-tools")])?;
            cargo.env(format!("CC_{}", snake(target)), "musl-gcc");
        }
        build(&mut cargo, target, &[])?;
        split(dist, target, &target_dir)
    }

    /// Returns the program of an ordinary release build.
    pub(super) fn plain(path: PathBuf) -> Self {
        Self { target: GNU, path }
    }

    /// Returns the newest version of glibc that the program requires.
    pub(super) fn glibc(&self) -> Result<String> {
        let symbols = text_of(Command::new("objdump").arg("-T").arg(&self.path))?;
        let version = |rest: &str| -> Option<(u32, u32)> {
            let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        };
        let newest = symbols.split("(GLIBC_").skip(1).filter_map(version).max();
        let (major, minor) = newest.ok_or("the program is not linked with glibc")?;
        Ok(format!("{major}.{minor}"))
    }
}

/// Builds a program with debug information and without paths of this machine.
fn build(cargo: &mut Command, target: &str, more: &[(&Path, &str)]) -> Result<()> {
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || std::env::home_dir().unwrap_or_default().join(".cargo"),
        PathBuf::from,
    );
    let moved = [&[(root(), "/mainstay"), (&home, "/cargo")], more].concat();
    let moved = |option: &str| -> Vec<String> {
        let option = |(from, to): &(&Path, &str)| format!("{option}={}={to}", from.display());
        moved.iter().map(option).collect()
    };
    let prefixes = moved("-ffile-prefix-map").join(" ");
    cargo
        .args(["build", "--locked", "--release"])
        .args(["--package", "mainstay-cli", "--target", target])
        .args(["--config", "profile.release.debug='line-tables-only'"])
        .args(["--config", "profile.release.strip=false"])
        // An entry for a package overrides that of the profile.
        .args([
            "--config",
            "profile.release.package.mainstay-cli.strip=false",
        ])
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            moved("--remap-path-prefix").join("\u{1f}"),
        )
        // Added to the flags of `.cargo/config.toml`, which a variable named CFLAGS would replace.
        .env("HOST_CFLAGS", &prefixes)
        .env("TARGET_CFLAGS", &prefixes);
    succeed(cargo)
}

/// Separates a built program from its debug information, which goes to the artifacts.
fn split(dist: &Dist, target: &'static str, target_dir: &Path) -> Result<Program> {
    let (tool, suffix) = match target {
        WINDOWS => ("x86_64-w64-mingw32-objcopy", ".exe"),
        _ => ("objcopy", ""),
    };
    let name = format!("{NAME}{suffix}");
    let built = target_dir.join(target).join("release").join(&name);
    let path = dist.scratch(target)?.join(name);
    let debug = format!("{NAME}-{}-{target}{suffix}.debug", dist.version);
    let debug = dist.out.join(debug);
    let mut keep = dist.tool(tool);
    succeed(keep.arg("--only-keep-debug").args([&built, &debug]))?;
    let mut strip = dist.tool(tool);
    strip
        .arg("--strip-all")
        .arg(format!("--add-gnu-debuglink={}", debug.display()))
        .args([&built, &path]);
    succeed(&mut strip)?;
    Ok(Program { target, path })
}

/// Returns the form of a target's name in environment variables.
fn snake(target: &str) -> String {
    target.replace('-', "_")
}
