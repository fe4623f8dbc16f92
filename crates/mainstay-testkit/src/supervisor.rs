//! `mainstay run` under test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Sandbox, mainstay};

/// A running `mainstay run MANIFEST --json`. The drop kills only this process: its services belong
/// to the [`Sandbox`].
pub struct Supervisor {
    child: Child,
    lines: Arc<Lines>,
}

#[derive(Default)]
struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    events: Vec<Value>,
    ended: bool,
}

impl Supervisor {
    /// Starts it with the sandbox's state directory. Its stderr is that of the test.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(sandbox: &Sandbox, manifest_path: &Path) -> Self {
        Self::start_with(sandbox, [manifest_path])
    }

    /// Starts it with any arguments to `mainstay run --json`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start_with(
        sandbox: &Sandbox,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        let mut command = sandbox.command(mainstay());
        command.args(["run", "--json"]).args(args);
        Self::spawn(command)
    }

    /// Starts it with the caller's command, which must come from [`Sandbox::command`].
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(mut command: Command) -> Self {
        // In its own process group, so that ctrl-break reaches only this process.
        #[cfg(windows)]
        std::os::windows::process::CommandExt::creation_flags(&mut command, 0x200);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let lines = Arc::new(Lines::default());
        if let Some(stdout) = child.stdout.take() {
            let lines = Arc::clone(&lines);
            thread::spawn(move || lines.read(stdout));
        }
        Self { child, lines }
    }

    /// Returns its process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns all events so far.
    pub fn events(&self) -> Vec<Value> {
        self.lines.lock().events.clone()
    }

    /// Returns the first event, including past ones, that `wanted` accepts.
    ///
    /// # Panics
    /// After `limit`, or if the supervisor closes its stdout without such an event; shows all
    /// events.
    #[track_caller]
    pub fn wait_event(&self, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + limit;
        let mut state = self.lines.lock();
        loop {
            if let Some(event) = state.events.iter().find(|event| wanted(event)) {
                return event.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && !state.ended,
                "no such event within {limit:?} ({}): {:#?}",
                if state.ended {
                    "stdout is closed"
                } else {
                    "still running"
                },
                state.events
            );
            let waited = self.lines.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends ctrl-c: SIGINT, or ctrl-break on Windows.
    pub fn ctrl_c(&self) {
        #[cfg(unix)]
        self.signal(rustix::process::Signal::INT);
        #[cfg(windows)]
        // SAFETY: no memory is passed.
        unsafe {
            use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, GenerateConsoleCtrlEvent};
            GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, self.id());
        }
    }

    /// Sends a signal. The process is a child of this one, so its PID is not reused before it is
    /// waited for.
    ///
    /// # Panics
    /// If it has been waited for.
    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the supervisor is not reaped yet");
    }

    /// Kills it (`kill -9`) and waits for its exit.
    ///
    /// # Panics
    /// If it has been waited for.
    pub fn kill_dash_nine(&mut self) {
        self.child.kill().expect("the supervisor is not reaped yet");
        self.child.wait().expect("the supervisor is our child");
    }

    /// Waits for its exit.
    ///
    /// # Panics
    /// After `limit`; shows all events.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("the supervisor is our child") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "not gone in {limit:?}: {:#?}",
                self.events()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Both do nothing if it has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lines {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until the supervisor closes its stdout. A line that is not JSON is kept as a string.
    fn read(&self, stdout: ChildStdout) {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
            self.lock().events.push(event);
            self.changed.notify_all();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }
}
