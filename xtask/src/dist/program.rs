//! The program itself, and its debug information apart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ARM_MUSL, Dist, GNU, MUSL, NAME, WINDOWS, succeed, text_of};
use crate::lab::Lab;
use crate::packages::install;
use crate::{Result, cargo, root, target_dir};

/// The cross compiler for C, which also links.
const ARM_GCC: &str = "aarch64-linux-gnu-gcc";
/// Runs a program for aarch64 here.
const EMULATOR: &str = "qemu-aarch64-static";

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
        let compiler = match target {
            MUSL => {
                install(&[("musl-gcc", "musl-tools")])?;
                "musl-gcc".to_owned()
            }
            ARM_MUSL => {
                install(&[
                    (ARM_GCC, "gcc-aarch64-linux-gnu"),
                    ("/usr/aarch64-linux-gnu/lib/crti.o", "libc6-dev-arm64-cross"),
                    (EMULATOR, "qemu-user-static"),
                ])?;
                let linker = format!("CARGO_TARGET_{}_LINKER", snake(target).to_uppercase());
                cargo.env(linker, ARM_GCC);
                arm_musl_gcc()?
            }
            _ => "cc".to_owned(),
        };
        cargo.env(format!("CC_{}", snake(target)), compiler);
        build(&mut cargo, target, &[])?;
        split(dist, target, &target_dir)
    }

    /// Returns the program of an ordinary release build.
    pub(super) fn plain(path: PathBuf) -> Self {
        Self { target: GNU, path }
    }

    /// Returns a command that runs the program here.
    pub(super) fn command(&self) -> Command {
        if self.target != ARM_MUSL {
            return Command::new(&self.path);
        }
        let mut command = Command::new(EMULATOR);
        command.arg(&self.path);
        command
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

/// Returns the directory with the sources of dependencies.
fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME").map_or_else(
        || std::env::home_dir().unwrap_or_default().join(".cargo"),
        PathBuf::from,
    )
}

/// Checks that a file contains no path of this machine, which a build elsewhere would not contain.
fn check_paths(file: &Path) -> Result<()> {
    let content = fs::read(file)?;
    for dir in [root(), &cargo_home()] {
        let path = dir.join("");
        let path = path.as_os_str().as_encoded_bytes();
        if content.windows(path.len()).any(|it| it == path) {
            let shown = dir.display();
            return Err(format!(
                "{} contains {shown}: it is not reproducible",
                file.display()
            )
            .into());
        }
    }
    Ok(())
}

/// Builds a program with debug information and without paths of this machine.
fn build(cargo: &mut Command, target: &str, more: &[(&Path, &str)]) -> Result<()> {
    let home = cargo_home();
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
    let suffix = if target == WINDOWS { ".exe" } else { "" };
    let tool = match target {
        WINDOWS => "x86_64-w64-mingw32-objcopy",
        ARM_MUSL => "aarch64-linux-gnu-objcopy",
        _ => "objcopy",
    };
    let name = format!("{NAME}{suffix}");
    let built = target_dir.join(target).join("release").join(&name);
    let path = dist.scratch(target)?.join(name);
    let debug = format!("{NAME}-{}-{target}{suffix}.debug", dist.version);
    let debug = dist.out.join(debug);
    let mut keep = dist.tool(tool);
    if target == WINDOWS {
        // Symbols of import libraries, named after the random directories in which rustc made them.
        keep.args(["--wildcard", "--strip-symbol=*_dll_imports_lib*"]);
    }
    succeed(keep.arg("--only-keep-debug").args([&built, &debug]))?;
    let mut strip = dist.tool(tool);
    strip
        .arg("--strip-all")
        .arg(format!("--add-gnu-debuglink={}", debug.display()))
        .args([&built, &path]);
    succeed(&mut strip)?;
    check_paths(&path)?;
    check_paths(&debug)?;
    Ok(Program { target, path })
}

/// Returns the C compiler for musl on aarch64: Debian's cross compiler with the headers of musl,
/// which Debian has for that architecture only. Rust brings the library itself.
fn arm_musl_gcc() -> Result<String> {
    let dir = target_dir()?.join("musl-arm64");
    let headers = dir.join("usr/include/aarch64-linux-musl");
    if !headers.exists() {
        fetch_for_arm64("musl-dev", &dir)?;
    }
    let mut own = Command::new(ARM_GCC);
    let own = text_of(own.arg("-print-file-name=include"))?;
    // Helpers for atomics would call glibc.
    Ok(format!(
        "{ARM_GCC} -nostdinc -isystem {} -isystem {} -mno-outline-atomics",
        headers.display(),
        own.trim()
    ))
}

/// Downloads a Debian package for arm64 and unpacks it into a directory. This machine's own package
/// lists stay as they are.
fn fetch_for_arm64(package: &str, to: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::create_dir_all(dir.path().join("lists/partial"))?;
    fs::create_dir_all(dir.path().join("cache/archives/partial"))?;
    let apt = |args: &[&str]| {
        let (dir, mut apt) = (dir.path().display(), Command::new("apt-get"));
        apt.current_dir(dir.to_string()).arg("--quiet=2");
        for option in [
            "APT::Architecture=arm64".to_owned(),
            "APT::Architectures=arm64".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            format!("Dir::State::Lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            "Dir::State::status=/dev/null".to_owned(),
        ] {
            apt.arg("--option").arg(option);
        }
        succeed(apt.args(args))
    };
    apt(&["update"])?;
    apt(&["download", package])?;
    for entry in fs::read_dir(dir.path())? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "deb") {
            succeed(Command::new("dpkg-deb").arg("--extract").args([&*path, to]))?;
        }
    }
    Ok(())
}

/// Returns the form of a target's name in environment variables.
fn snake(target: &str) -> String {
    target.replace('-', "_")
}
