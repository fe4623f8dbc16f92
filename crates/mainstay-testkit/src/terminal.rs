//! A command on a pseudo-terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

/// A process whose standard streams are a pseudo-terminal of 50 lines and 160 columns. The drop
/// kills the process.
pub struct Terminal {
    child: Child,
    keyboard: File,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts `command`. The terminal does not change the output (no CR before a newline) and does
    /// not echo.
    ///
    /// # Panics
    /// If the system has no pseudo-terminals left, or the command cannot be started.
    pub fn start(mut command: Command) -> Self {
        let (master, slave) = pair().expect("a pseudo-terminal");
        let stream = || Stdio::from(slave.try_clone().expect("a descriptor"));
        command.stdin(stream()).stdout(stream()).stderr(stream());
        let child = command.spawn().expect("the command starts");
        // The command has its own copies of the descriptors.
        drop((command, slave));
        let keyboard = master.try_clone().expect("a descriptor");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let reader = thread::spawn({
            let shown = Arc::clone(&shown);
            move || read(master, &shown)
        });
        Self {
            child,
            keyboard,
            shown,
            reader: Some(reader),
        }
    }

    /// Runs `command` to completion and returns its exit status and everything that was shown.
    ///
    /// # Panics
    /// If [`Terminal::start`] panics.
    pub fn run(command: Command) -> (ExitStatus, String) {
        Self::start(command).finish()
    }

    /// Returns everything shown so far. Invalid UTF-8 is replaced.
    pub fn shown(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Types `keys`.
    ///
    /// # Panics
    /// If no process has the terminal open.
    pub fn type_keys(&mut self, keys: &str) {
        let typed = self.keyboard.write_all(keys.as_bytes());
        typed.expect("somebody has the terminal");
    }

    /// Changes the size of the terminal.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.keyboard, size(rows, columns)).expect("a terminal");
    }

    /// Sends SIGINT to the process.
    pub fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    }

    /// Waits until the process has exited and all processes have closed the terminal.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn finish(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("a child");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("a reader");
        }
        (status, self.shown())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens a pseudo-terminal and returns both ends.
fn pair() -> std::io::Result<(File, File)> {
    // macOS has no flag for it.
    #[cfg(not(target_vendor = "apple"))]
    let flags = OpenptFlags::CLOEXEC;
    #[cfg(target_vendor = "apple")]
    let flags = OpenptFlags::empty();
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | flags)?;
    fcntl_setfd(&master, FdFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = ptsname(&master, Vec::new())?;
    let slave = rustix::fs::open(
        &*path,
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let mut modes = tcgetattr(&slave)?;
    modes.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &modes)?;
    tcsetwinsize(&slave, size(50, 160))?;
    Ok((File::from(master), File::from(slave)))
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Reads until the last process has closed the terminal, which Linux reports as EIO.
fn read(mut master: File, shown: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.extend_from_slice(&buffer[..count]);
    }
}
