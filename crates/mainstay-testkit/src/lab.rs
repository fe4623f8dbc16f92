//! A disposable machine with a real init system as PID 1: labs/unix/lab.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A real program to run as a service, and the tools to check that it is running.
const PACKAGES: &str = "redis-server,redis-tools";

/// A running lab. The drop removes it with everything in it.
#[derive(Debug)]
pub struct Lab {
    kind: &'static str,
    name: String,
}

impl Lab {
    /// Boots one of `systemd`, `openrc`, `sysv`, `runit`, `s6`, with directories of this machine
    /// bound read-only at the given paths. The first build takes half a minute.
    ///
    /// # Errors
    /// If this machine cannot run a lab, with the reason.
    pub fn up(kind: &'static str, binds: &[(&Path, &str)]) -> Result<Self, String> {
        let on_path = |tool: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|dir| dir.join(tool).is_file())
        };
        if !rustix::process::geteuid().is_root() || !on_path("apt-get") {
            return Err(format!("a lab of {kind} takes root on Debian"));
        }
        let lab = Self {
            kind,
            name: format!("{kind}-{}", std::process::id()),
        };
        let binds = binds
            .iter()
            .map(|(here, there)| format!("--bind-ro={}:{there}", here.display()));
        let mut command = lab.command("up");
        // With its own network: ports in use here are free there.
        let output = command.arg("--private-network").args(binds).output();
        let output = output.map_err(|error| format!("labs/unix/lab: {error}"))?;
        if output.status.success() {
            return Ok(lab);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim().lines().next_back().unwrap_or_default();
        Err(format!("no lab of {kind} can be had here: {last}"))
    }

    fn command(&self, verb: &str) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut command = Command::new(root.join("labs/unix/lab"));
        command
            .args([self.kind, verb])
            .env("LAB_NAME", &self.name)
            .env("LAB_PKGS", PACKAGES)
            .stdin(Stdio::null());
        command
    }

    /// Runs a program in the lab, as root.
    ///
    /// # Panics
    /// If the lab is broken.
    #[track_caller]
    pub fn run(&self, argv: &[&str]) -> Output {
        let output = self.command("exec").args(argv).output().expect("the lab");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_ne!(output.status.code(), Some(125), "{argv:?}: {said}");
        output
    }

    /// Runs a program in the lab, which must exit with `code`, and returns its output.
    ///
    /// # Panics
    /// If it exits with another code.
    #[track_caller]
    pub fn check(&self, code: i32, argv: &[&str]) -> String {
        let output = self.run(argv);
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{argv:?}: {said}");
        said.into_owned()
    }

    /// Runs an `sh` script in the lab and returns its output.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn script(&self, text: &str) -> String {
        let mut child = self
            .command("exec")
            .args(["sh", "-eu"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the lab");
        let mut input = child.stdin.take().expect("its input");
        input.write_all(text.as_bytes()).expect("it reads");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}: {text}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Reboots the lab through its own init system.
    ///
    /// # Panics
    /// If it does not come back.
    #[track_caller]
    pub fn reboot(&self) {
        let output = self.command("reboot").output().expect("the lab");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    /// Returns the files below `dirs` and their content, one line each, for comparison.
    ///
    /// # Panics
    /// If they cannot be read.
    #[track_caller]
    pub fn tree(&self, dirs: &[&str]) -> BTreeSet<String> {
        let dirs = dirs.join(" ");
        let text = self.script(&format!(
            "find {dirs} -xdev \\( -type f -o -type l -o -type d \\) -printf '%y %m %p %l\\n'\n\
             find {dirs} -xdev -type f -print0 | xargs -0 sha256sum\n"
        ));
        text.lines().map(str::to_owned).collect()
    }

    /// Asserts that the files below `dirs` are unchanged.
    ///
    /// # Panics
    /// If they are not, with the changes.
    #[track_caller]
    pub fn assert_tree(&self, dirs: &[&str], before: &BTreeSet<String>) {
        let now = self.tree(dirs);
        let changed: Vec<&String> = now.symmetric_difference(before).collect();
        assert!(changed.is_empty(), "changed: {changed:#?}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Everything left is removed with the machine.
        let _ = self.command("down").output();
    }
}
