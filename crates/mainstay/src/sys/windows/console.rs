//! The console. For a service on a console, ctrl-c, closing the window, logging off and shutting
//! down request a stop.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::windows::io::AsRawHandle as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{FALSE, TRUE};
use windows_sys::Win32::System::Console::{
    CONSOLE_MODE, CTRL_BREAK_EVENT, CTRL_C_EVENT, ENABLE_ECHO_INPUT, GetConsoleMode,
    SetConsoleCtrlHandler, SetConsoleMode,
};
use windows_sys::core::BOOL;

use crate::capture;
use crate::context::{Said, Shared, Voice};
use crate::run::{arguments, work};
use crate::{Context, Control, Error, ErrorKind, Logger, Manager, Service, Stop};

/// The state that the console's handler notifies, because it has no context of its own.
static SHARED: OnceLock<Arc<Shared>> = OnceLock::new();
/// The time of the first stop request.
static STOPPING_SINCE: OnceLock<Instant> = OnceLock::new();
/// An event within this time after the first one counts as the same request.
const ECHO: Duration = Duration::from_millis(500);

/// A voice that discards all reports, for a service on a console.
struct Nobody;

impl Voice for Nobody {
    fn say(&self, _said: Said<'_>) {}
}

pub(super) fn run(
    service: impl Service,
    log_dir: Option<&Path>,
    logger: &Logger,
) -> Result<u32, Error> {
    let shared = SHARED.get_or_init(|| Shared::new(Nobody)).clone();
    listen().map_err(|error| {
        Error::new(
            ErrorKind::Failed,
            "cannot listen for ctrl-c (SetConsoleCtrlHandler)",
        )
        .because(error)
    })?;
    let context = Context::new(shared, Manager::current(), arguments(), logger.clone());
    if let Some(dir) = log_dir {
        capture::begin(dir).map_err(|error| {
            let what = format!("cannot write output to {}", dir.display());
            Error::new(ErrorKind::Failed, what).because(error)
        })?;
    }
    let code = work(service, context);
    capture::end();
    Ok(code)
}

/// Reads a line without echo.
pub(crate) fn ask(prompt: &str) -> io::Result<String> {
    let input = File::options().read(true).write(true).open("CONIN$")?;
    let mut output = File::options().read(true).write(true).open("CONOUT$")?;
    output.write_all(prompt.as_bytes())?;
    let mode = mode(&input)?;
    set_mode(&input, mode & !ENABLE_ECHO_INPUT)?;
    let mut line = String::new();
    let read = BufReader::new(&input).read_line(&mut line);
    set_mode(&input, mode)?;
    output.write_all(b"\r\n")?;
    read.map(|_| line)
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

#[expect(unsafe_code, reason = "the system's own interface")]
fn listen() -> io::Result<()> {
    // SAFETY: the handler is a function, which lives as long as the program.
    match unsafe { SetConsoleCtrlHandler(Some(handle), TRUE) } {
        FALSE => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The control handler, called on a thread of the system (`HandlerRoutine`).
#[expect(unsafe_code, reason = "the system's own interface")]
unsafe extern "system" fn handle(event: u32) -> BOOL {
    let Some(shared) = SHARED.get() else {
        return FALSE;
    };
    let is_first = shared.tell(Control::Stop(Stop::Requested));
    let is_echo = STOPPING_SINCE.get_or_init(Instant::now).elapsed() < ECHO;
    match event {
        // A second ctrl-c ends the process through the next handler. A copy that a wrapper also
        // sends does not.
        CTRL_C_EVENT | CTRL_BREAK_EVENT => BOOL::from(is_first || is_echo),
        // The process ends when this returns, or when the system's own timeout expires.
        _ => loop {
            thread::sleep(Duration::from_secs(3600));
        },
    }
}
