//! Debian packages that tests and builds need.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use crate::lab::{is_root, on_path};
use crate::{Result, heading};

/// The file with which Debian's maintainer scripts check whether they may start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs the packages whose programs are missing, if this is Debian and the user is root. Their
/// services are not started.
pub(crate) fn install(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(probe, _)| !on_path(probe))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    heading(&format!("install {}", missing.join(" ")));
    if !on_path("apt-get") || !is_root() {
        return Err("not root on Debian: nothing is installed".into());
    }
    let _policy = NoServices::new()?;
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let install = [
        &[
            "install",
            "--yes",
            "--quiet=2",
            "--option=Dpkg::Use-Pty=0",
            "--no-install-recommends",
        ],
        &missing[..],
    ]
    .concat();
    // The package lists of a fresh machine are empty or outdated.
    if apt(&install) || (apt(&["update", "--quiet=2"]) && apt(&install)) {
        Ok(())
    } else {
        Err("apt-get failed".into())
    }
}

/// A guard that forbids maintainer scripts to start services.
struct NoServices {
    ours: bool,
}

impl NoServices {
    /// Creates the policy. An existing one belongs to the machine and is left alone.
    fn new() -> io::Result<Self> {
        let ours = !fs::exists(POLICY)?;
        if ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
            Command::new("chmod").args(["755", POLICY]).status()?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}
