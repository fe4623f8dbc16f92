//! A directory and every process that was started in it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The environment variable that marks the processes of a sandbox. They inherit it in any session
/// and under any parent.
#[cfg(unix)]
const MARK: &str = "MAINSTAY_TESTKIT_SANDBOX";

/// Creates a named pipe. rustix cannot, on macOS.
///
/// # Panics
/// If that fails.
#[cfg(unix)]
pub fn make_pipe(path: &Path) {
    let status = Command::new("mkfifo").arg(path).status();
    assert!(status.expect("mkfifo runs").success());
}

/// A temporary directory for a manifest and a state directory. The drop removes it with everything
/// in it.
///
/// On Unix, it also owns the processes started by [`Sandbox::command`] and all their descendants:
/// the drop kills the remaining processes by PID. They are recognized by an environment variable,
/// so a process that clears it escapes. On Linux, this process also becomes a subreaper. On
/// Windows, this is left to the supervisor under test.
pub struct Sandbox {
    dir: TempDir,
}

impl Sandbox {
    /// Creates an empty sandbox.
    ///
    /// # Panics
    /// If no temporary directory can be created.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        #[cfg(target_os = "linux")]
        {
            crate::procs::adopt_orphans().expect("this process becomes a subreaper");
            crate::procs::keep_descriptors();
        }
        let dir = tempfile::Builder::new().prefix("mainstay-").tempdir();
        Self {
            dir: dir.expect("a temporary directory"),
        }
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the `MAINSTAY_STATE_DIR` of every command, which is not created here.
    pub fn state_dir(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Writes a file and returns its path.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("the sandbox is writable");
        path
    }

    /// Returns a command that runs in the directory and belongs to the sandbox.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env("MAINSTAY_STATE_DIR", self.state_dir());
        #[cfg(unix)]
        command.env(MARK, self.path());
        command
    }
}

#[cfg(unix)]
impl Sandbox {
    /// Returns the living processes of the sandbox, without the keepers of the services' pipes.
    pub fn processes(&self) -> Vec<rustix::process::Pid> {
        let all = self.all_processes();
        #[cfg(target_os = "linux")]
        let all = {
            let is_keeper = |pid: &_| crate::procs::is_named(*pid, "mainstay-keeper");
            all.into_iter().filter(|pid| !is_keeper(pid)).collect()
        };
        all
    }

    #[cfg(not(target_os = "linux"))]
    fn all_processes(&self) -> Vec<rustix::process::Pid> {
        crate::procs::with_env(MARK, &self.path().to_string_lossy())
    }

    #[cfg(target_os = "linux")]
    fn all_processes(&self) -> Vec<rustix::process::Pid> {
        let mark = self.path().to_string_lossy();
        let mut all = crate::procs::descendants();
        all.retain(|pid| crate::procs::has_env(*pid, MARK, &mark));
        all
    }

    /// Asserts that no process of the sandbox is left, including keepers.
    ///
    /// # Panics
    /// If one is alive, naming it.
    #[track_caller]
    pub fn assert_no_leftovers(&self) {
        let left: Vec<_> = self
            .all_processes()
            .into_iter()
            .map(|pid| (pid.as_raw_nonzero(), crate::procs::program(pid)))
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

#[cfg(unix)]
impl Drop for Sandbox {
    /// Kills the remaining processes and waits until none is left, for at most 10 s.
    fn drop(&mut self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let left = self.all_processes();
            if left.is_empty() || std::time::Instant::now() > deadline {
                return;
            }
            // Parents come before their children, so that no parent starts a replacement.
            left.into_iter().for_each(crate::procs::kill);
            std::thread::yield_now();
        }
    }
}
