//! The console: its events, and a password that is read from it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::windows::io::AsRawHandle as _;
use std::sync::OnceLock;

use windows_sys::Win32::Foundation::{FALSE, TRUE};
use windows_sys::Win32::System::Console::{
    CONSOLE_MODE, ENABLE_ECHO_INPUT, GetConsoleMode, SetConsoleCtrlHandler, SetConsoleMode,
};
use windows_sys::core::BOOL;

use crate::Password;

/// Handles an event, `CTRL_…_EVENT`. Returns whether the next handler is skipped.
type Handler = Box<dyn Fn(u32) -> bool + Send + Sync>;

/// The handler of this process, because the system passes it no context.
static HANDLER: OnceLock<Handler> = OnceLock::new();

/// Calls `handler` for each event of the console from now on, on a thread of the system. There is
/// one handler a process, the first.
#[expect(unsafe_code, reason = "the system's own interface")]
pub(crate) fn on_event(handler: impl Fn(u32) -> bool + Send + Sync + 'static) -> io::Result<()> {
    let _first: Result<(), _> = HANDLER.set(Box::new(handler));
    // SAFETY: the handler is a function, which lives as long as the program.
    match unsafe { SetConsoleCtrlHandler(Some(handle), TRUE) } {
        FALSE => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// `HandlerRoutine`.
#[expect(unsafe_code, reason = "the system's own interface")]
unsafe extern "system" fn handle(event: u32) -> BOOL {
    BOOL::from(HANDLER.get().is_some_and(|handler| handler(event)))
}

impl Password {
    /// Prompts for a password on the console, without echo (Windows).
    ///
    /// # Errors
    /// If there is no console.
    pub fn ask(prompt: &str) -> io::Result<Self> {
        let input = File::options().read(true).write(true).open("CONIN$")?;
        let mut output = File::options().read(true).write(true).open("CONOUT$")?;
        output.write_all(prompt.as_bytes())?;
        let mode = mode(&input)?;
        set_mode(&input, mode & !ENABLE_ECHO_INPUT)?;
        let mut line = String::new();
        let read = BufReader::new(&input).read_line(&mut line);
        set_mode(&input, mode)?;
        output.write_all(b"\r\n")?;
        read.map(|_| Self::new(line).trimmed())
    }
}

#[expect(unsafe_code, reason = "the system's own interface")]
fn mode(console: &File) -> io::Result<CONSOLE_MODE> {
    let mut mode = 0;
    // SAFETY: the handle is open, and the mode is valid.
    match unsafe { GetConsoleMode(console.as_raw_handle(), &raw mut mode) } {
        FALSE => Err(io::Error::last_os_error()),
        _ => Ok(mode),
    }
}

#[expect(unsafe_code, reason = "the system's own interface")]
fn set_mode(console: &File, mode: CONSOLE_MODE) -> io::Result<()> {
    // SAFETY: the handle is open.
    match unsafe { SetConsoleMode(console.as_raw_handle(), mode) } {
        FALSE => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
