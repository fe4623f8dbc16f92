//! `cargo xtask lab windows`: builds Windows programs on Debian and runs them. See
//! labs/windows/README.md.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::{Result, root};

/// A lab that is set up.
pub(crate) struct Lab {
    dir: PathBuf,
}

/// Sets up the lab and prints its usage.
pub(crate) fn run() -> Result<ExitCode> {
    Lab::set_up()?;
    println!(
        "\
labs/windows/cargo-win build -p mainstay        cargo for Windows: build, check, clippy, test --tests, run
labs/windows/wine-run PROGRAM.exe               runs a program; its services stay up until
labs/windows/wine-run --halt                    ends them
labs/windows/with-prefix COMMAND                in a Windows of its own, which vanishes afterwards
cargo xtask check-targets                       type-checks for other systems, too"
    );
    Ok(ExitCode::SUCCESS)
}

impl Lab {
    /// Installs missing parts. This takes no time, or half a minute of downloads by apt, which
    /// requires root.
    pub(crate) fn set_up() -> Result<Self> {
        if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) || !on_path("apt-get") {
            return Err("needs Debian on x86_64".into());
        }
        let is_installed = on_path("wine") && on_path("x86_64-w64-mingw32-gcc");
        if !is_installed && !is_root() {
            return Err("Wine and mingw are not installed, and we are not root".into());
        }
        let dir = root().join("labs/windows");
        if Command::new(dir.join("setup")).status()?.success() {
            Ok(Self { dir })
        } else {
            Err("labs/windows/setup has failed, see above".into())
        }
    }

    /// Returns Cargo with the lab's compiler, for any target.
    pub(crate) fn cargo(&self, target: &str) -> Command {
        let mut command = Command::new(self.dir.join("cargo-win"));
        command.current_dir(root()).env("LAB_TARGET", target);
        command
    }

    /// Returns the directory of the lab's compiler and of the sources of its standard library.
    #[cfg(target_os = "linux")]
    pub(crate) fn compiler_dir(&self) -> Result<PathBuf> {
        let script = format!(". '{}/env.sh'; printf %s \"$LAB_RUST\"", self.dir.display());
        let output = Command::new("bash").args(["-c", &script]).output()?;
        Ok(String::from_utf8(output.stdout)?.into())
    }

    /// Returns a command for one of the lab's programs, in its own Wine prefix.
    pub(crate) fn with_prefix(&self, program: &str) -> Command {
        let mut command = Command::new(self.dir.join("with-prefix"));
        command.current_dir(root()).arg(self.dir.join(program));
        command
    }
}

pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are in directories outside an ordinary user's PATH.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .any(|dir| dir.join(program).is_file())
}

#[cfg(unix)]
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
pub(crate) fn is_root() -> bool {
    false
}
