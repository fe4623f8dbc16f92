//! A service on a console. Ctrl-c, closing the window, logging off and shutting down request a
//! stop.

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, CTRL_C_EVENT};

use crate::context::{Said, Shared, Voice};
use crate::run::work;
use crate::{Context, Control, Error, ErrorKind, Logger, Manager, Service, Stop, capture, sys};

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
    arguments: Vec<OsString>,
) -> Result<u32, Error> {
    let shared = Shared::new(Nobody);
    listen(Arc::clone(&shared)).map_err(|error| {
        Error::new(
            ErrorKind::Failed,
            "cannot listen for ctrl-c (SetConsoleCtrlHandler)",
        )
        .because(error)
    })?;
    let context = Context::new(shared, Manager::current(), arguments, logger.clone());
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

/// Turns the events of the console into requests to stop.
fn listen(shared: Arc<Shared>) -> std::io::Result<()> {
    let stopping_since = OnceLock::new();
    sys::on_event(move |event| {
        let is_first = shared.tell(Control::Stop(Stop::Requested));
        let is_echo = stopping_since.get_or_init(Instant::now).elapsed() < ECHO;
        match event {
            // A second ctrl-c ends the process through the next handler. A copy that a wrapper also
            // sends does not.
            CTRL_C_EVENT | CTRL_BREAK_EVENT => is_first || is_echo,
            // The process ends when this returns, or when the system's own timeout expires.
            _ => loop {
                thread::sleep(Duration::from_secs(3600));
            },
        }
    })
}
