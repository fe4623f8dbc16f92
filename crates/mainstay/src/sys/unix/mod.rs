//! Unix: signals are the controls, and managers are described in `backend/`.

mod executor;
mod manage;
mod ready;

pub(crate) use manage::{
    changed_files, control, detect, detect_below, install_all, is_enabled, may_install, pause,
    plan_all, reload, restart, resume, services, set_enabled, stage_all, start, status, stop,
    uninstall, wait_for_change,
};
pub(crate) use ready::{claim_ready_descriptor, write_ready};

use std::io;
use std::os::unix::process::parent_id;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::backend::openrc::SUPERVISOR;
use crate::backend::shell::ends_for_good;
use crate::context::{Said, Shared, Voice};
use crate::run::{arguments, work};
use crate::{
    Accepts, Context, Control, Definition, Error, ErrorKind, Logger, Manager, Service, Stop, notify,
};

/// How long a supervisor may take to note a signal.
const NOTED: Duration = Duration::from_secs(5);

/// Runs the service on this thread, and has another one turn signals into controls.
pub(crate) fn run(
    definition: Definition,
    service: impl Service,
    logger: &Logger,
) -> Result<u32, Error> {
    claim_ready_descriptor();
    let failed = |what: &str, error: io::Error| Error::new(ErrorKind::Failed, what).because(error);
    if let Some(dir) = &definition.working_dir {
        std::env::set_current_dir(dir)
            .map_err(|error| failed(&format!("enter directory {}", dir.display()), error))?;
    }
    let shared = Shared::new(Notifier);
    let mut signals = vec![SIGTERM, SIGINT];
    if definition.accepts.contains(Accepts::RELOAD) {
        signals.push(SIGHUP);
    }
    let mut signals = Signals::new(signals).map_err(|error| failed("listen for signals", error))?;
    let teller = shared.clone();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                let control = match signal {
                    SIGHUP => Control::Reload,
                    _ => Control::Stop(Stop::Requested),
                };
                let is_first = teller.tell(control);
                // Whoever presses ctrl-c twice means it.
                if signal == SIGINT && !is_first {
                    let _ends_us = signal_hook::low_level::emulate_default_handler(SIGINT);
                }
            }
        })
        .map_err(|error| failed("start a thread for signals", error))?;
    let manager = Manager::current();
    let context = Context::new(shared, manager, arguments(), logger.clone());
    let code = work(service, context);
    if manager == Manager::OpenRc && ends_for_good(&definition.recovery, code) {
        end_supervisor();
    }
    Ok(code)
}

/// supervise-daemon would start us again, whatever our code is. Asked to end, it stops us, who are about to end, and has OpenRC know that the
/// service has stopped (supervise-daemon.c). A user who is not root may not ask.
fn end_supervisor() {
    let parent = parent_id();
    let comm = std::fs::read_to_string(format!("/proc/{parent}/comm"));
    if !comm.is_ok_and(|comm| comm.trim_end() == SUPERVISOR) {
        return;
    }
    let Ok(pid) = libc::pid_t::try_from(parent) else {
        return;
    };
    // SAFETY: it takes numbers; the process is our parent, and not reaped before it has ended.
    #[expect(unsafe_code, reason = "std signals no processes but its own children")]
    let is_told = unsafe { libc::kill(pid, libc::SIGTERM) } == 0;
    // If it learned first that we have ended, it would wait for us in vain, as long as a stop may take. Twice, as one look is none at an instant.
    let deadline = Instant::now() + NOTED;
    let mut noted = 0;
    while is_told && noted < 2 && parent_id() == parent && Instant::now() < deadline {
        noted = if has_noted(parent) { noted + 1 } else { 0 };
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a process sleeps, and no SIGTERM waits for it: proc(5), "status".
fn has_noted(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
    let waits = |key: &str| {
        let set = value(key).and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        set.is_none_or(|set| set & 1 << (libc::SIGTERM - 1) != 0)
    };
    value("State:").is_some_and(|state| state.trim_start().starts_with('S'))
        && !waits("SigPnd:")
        && !waits("ShdPnd:")
}

/// Talks sd_notify(3), to whoever listens. A manager that cannot be told is no failure of the service.
struct Notifier;

impl Voice for Notifier {
    fn say(&self, said: Said<'_>) {
        let _untold = match said {
            Said::Ready | Said::Did(Control::Reload) => notify::ready(),
            Said::Status(text) => notify::status(text),
            Said::Alive => notify::alive(),
            Said::ExtendTimeout(by) => notify::extend_timeout(by),
            Said::Began(Control::Stop(_)) => notify::stopping(),
            Said::Began(Control::Reload) => notify::reloading(monotonic()),
            Said::Began(_) | Said::Did(_) => Ok(false),
        };
    }
}

/// CLOCK_MONOTONIC, which systemd compares times by.
#[expect(unsafe_code, reason = "std tells no absolute monotonic time")]
fn monotonic() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes one timespec, which is there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}
