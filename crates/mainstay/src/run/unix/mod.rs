//! Unix: controls arrive as signals.

#[cfg(feature = "managers")]
mod openrc;

use std::ffi::OsString;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

use crate::backend::PAUSED;
use crate::capture;
use crate::context::{Said, Shared, Voice};
use crate::notify::{self, claim_ready_descriptor};
use crate::run::work;
use crate::service::Body;
use crate::sys::monotonic;
use crate::{
    Accepts, Context, Control, Definition, Error, ErrorKind, Logger, Manager, Service, Stop,
    UNDER_SCM,
};

/// The exit code after which SMF does not start a service again: smf_method(7).
#[cfg(feature = "managers")]
const FINAL: u32 = 96;

/// Runs the service on this thread. A second thread turns signals into controls.
pub(super) fn run(
    definition: Definition,
    service: impl Service,
    logger: &Logger,
    arguments: Vec<OsString>,
) -> Result<u32, Error> {
    claim_ready_descriptor();
    let failed = |what: &str, error: io::Error| Error::new(ErrorKind::Failed, what).because(error);
    if let Some(dir) = &definition.working_dir {
        std::env::set_current_dir(dir)
            .map_err(|error| failed(&format!("cannot enter directory {}", dir.display()), error))?;
    }
    let manager = Manager::current();
    let shared = Shared::new(Notifier::default());
    let mut signals = vec![SIGTERM, SIGINT];
    if definition.accepts.contains(Accepts::RELOAD) {
        signals.push(SIGHUP);
    }
    // On a terminal, ctrl-z belongs to the shell.
    if definition.accepts.contains(Accepts::PAUSE) && manager != Manager::None {
        signals.extend([SIGTSTP, SIGCONT]);
    }
    let mut signals =
        Signals::new(signals).map_err(|error| failed("cannot listen for signals", error))?;
    let teller = shared.clone();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut is_paused = false;
            let mut stopping_since = None;
            for signal in signals.forever() {
                let control = match signal {
                    SIGHUP => Control::Reload,
                    // A repeated pause has no effect. SIGCONT is also sent after SIGSTOP and before
                    // a stopped service is terminated.
                    SIGTSTP | SIGCONT => {
                        let was_paused = std::mem::replace(&mut is_paused, signal == SIGTSTP);
                        match (was_paused, is_paused) {
                            (false, true) => Control::Pause,
                            (true, false) => Control::Continue,
                            _ => continue,
                        }
                    }
                    _ => Control::Stop(Stop::Requested),
                };
                let is_first = teller.tell(control);
                if signal == SIGHUP {
                    continue;
                }
                let since: &mut Instant = stopping_since.get_or_insert_with(Instant::now);
                // A second ctrl-c ends the process. A copy that a wrapper also sends to the process
                // group does not.
                if signal == SIGINT && !is_first && since.elapsed() >= ECHO {
                    let _ends_us = signal_hook::low_level::emulate_default_handler(SIGINT);
                }
            }
        })
        .map_err(|error| failed("cannot start a thread for signals", error))?;
    let context = Context::new(shared.clone(), manager, arguments, logger.clone());
    if let Some(dir) = &definition.log_dir {
        capture::begin(dir)
            .map_err(|error| failed(&format!("cannot write output to {}", dir.display()), error))?;
    }
    let code = work(service, context);
    // systemd treats an exit before readiness as a failure, whatever the exit code, and starts the
    // service again. dinit fails the start.
    if code == 0 {
        shared.ready();
    }
    capture::end();
    #[cfg(feature = "managers")]
    openrc::settle(manager, &definition.recovery, code);
    #[cfg(feature = "managers")]
    let code = match u8::try_from(code) {
        Ok(code) if manager == Manager::Smf && definition.recovery.halts.contains(&code) => FINAL,
        _ => code,
    };
    Ok(code)
}

/// Fails: only the Service Control Manager runs several services in one process.
pub(crate) fn serve(_services: Vec<(Definition, Body)>) -> Result<u32, Error> {
    let what = "this process was not started by the Service Control Manager";
    let error = Error::new(ErrorKind::Unsupported, what);
    Err(error.with_cure(format!("omit {UNDER_SCM}")))
}

/// A signal within this time after the first one counts as the same request.
const ECHO: Duration = Duration::from_millis(500);

/// Sends sd_notify(3) messages to the listening supervisor. A manager that cannot be notified is
/// not a failure of the service.
///
/// No Unix manager has a state for a service that paused itself, so the status text shows it:
/// [`PAUSED`], followed by the service's own text.
#[derive(Default)]
struct Notifier(Mutex<Shown>);

/// The parts of the status text.
#[derive(Default)]
struct Shown {
    is_paused: bool,
    text: String,
}

impl Shown {
    fn tell(&self) -> io::Result<bool> {
        match (self.is_paused, &*self.text) {
            (false, text) => notify::status(text),
            (true, "") => notify::status(PAUSED),
            (true, text) => notify::status(&format!("{PAUSED}; {text}")),
        }
    }
}

impl Voice for Notifier {
    fn say(&self, said: Said<'_>) {
        let change = |change: &dyn Fn(&mut Shown)| {
            let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut shown);
            shown.tell()
        };
        let _untold = match said {
            Said::Ready | Said::Did(Control::Reload) => notify::ready(),
            Said::Status(text) => change(&|shown| text.clone_into(&mut shown.text)),
            Said::Did(Control::Pause) => change(&|shown| shown.is_paused = true),
            Said::Began(Control::Continue) => change(&|shown| shown.is_paused = false),
            Said::Alive => notify::alive(),
            Said::ExtendTimeout(by) => notify::extend_timeout(by),
            Said::Began(Control::Stop(_)) => notify::stopping(),
            Said::Began(Control::Reload) => notify::reloading(monotonic()),
            Said::Began(_) | Said::Did(_) => Ok(false),
        };
    }
}
