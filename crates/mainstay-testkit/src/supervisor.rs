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

/// A running `mainstay run MANIFEST --json`. Drop kills it, and only it: its services are the [`Sandbox`]'s.
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
    /// Starts it with the sandbox's state directory. Its stderr is the test's.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(sandbox: &Sandbox, manifest_path: &Path) -> Self {
        Self::start_with(sandbox, [manifest_path])
    }

    /// The same with any arguments to `mainstay run --json`.
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

    /// The same with a command of the caller's, which came from [`Sandbox::command`].
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(mut command: Command) -> Self {
        // A group of its own, so that ctrl-break reaches it alone.
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

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Every event line so far.
    pub fn events(&self) -> Vec<Value> {
        self.lines.lock().events.clone()
    }

    /// The first event, past ones included, that `wanted` accepts.
    ///
    /// # Panics
    /// After `limit`, or when the supervisor has closed its stdout without one; shows all events.
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

    /// Ctrl-C: SIGINT, on Windows ctrl-break.
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

    /// Sends it a signal; it is our child, so its pid is its own until we have waited for it.
    ///
    /// # Panics
    /// If it has been waited for.
    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the supervisor is not reaped yet");
    }

    /// `kill -9`, and waits for its end.
    ///
    /// # Panics
    /// If it has been waited for.
    pub fn kill_dash_nine(&mut self) {
        self.child.kill().expect("the supervisor is not reaped yet");
        self.child.wait().expect("the supervisor is our child");
    }

    /// Waits for its end.
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

    /// Until the supervisor closes its stdout. A line that is no JSON is kept as a string.
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
