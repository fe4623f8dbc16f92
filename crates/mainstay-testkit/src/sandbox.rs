//! A directory and every process that was started in it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Marks the processes of a sandbox: they inherit it, whatever session or parent they have.
#[cfg(target_os = "linux")]
const MARK: &str = "MAINSTAY_TESTKIT_SANDBOX";

/// A temporary directory with room for a manifest and a state directory; gone with everything in it when dropped.
///
/// On Linux it also owns the processes started by [`Sandbox::command`] and all that these started: this process becomes a subreaper, and drop
/// kills what is left, by pid. It knows them by a variable in their environment, so one that clears it escapes. Elsewhere the supervisor under test is trusted with that.
pub struct Sandbox {
    dir: TempDir,
}

impl Sandbox {
    /// An empty one.
    ///
    /// # Panics
    /// If there is no place for temporary files.
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

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `MAINSTAY_STATE_DIR` of every command; not created here.
    pub fn state_dir(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Writes a file.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("the sandbox is writable");
        path
    }

    /// A command that runs in the directory and belongs to the sandbox.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env("MAINSTAY_STATE_DIR", self.state_dir());
        #[cfg(target_os = "linux")]
        command.env(MARK, self.path());
        command
    }
}

#[cfg(target_os = "linux")]
impl Sandbox {
    /// The living processes of the sandbox, without the keepers of the services' pipes.
    pub fn processes(&self) -> Vec<rustix::process::Pid> {
        let mut all = self.all_processes();
        all.retain(|pid| !crate::procs::is_named(*pid, "mainstay-keeper"));
        all
    }

    fn all_processes(&self) -> Vec<rustix::process::Pid> {
        let mark = self.path().to_string_lossy();
        let mut all = crate::procs::descendants();
        all.retain(|pid| crate::procs::has_env(*pid, MARK, &mark));
        all
    }

    /// # Panics
    /// If a process of the sandbox lives, be it a keeper, naming it.
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

#[cfg(target_os = "linux")]
impl Drop for Sandbox {
    /// Blocks until none is left.
    fn drop(&mut self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let left = self.all_processes();
            if left.is_empty() || std::time::Instant::now() > deadline {
                return;
            }
            // Parents come before their children, so none is replaced.
            left.into_iter().for_each(crate::procs::kill);
            std::thread::yield_now();
        }
    }
}
