//! A service process under the Service Control Manager, with a single service.
//!
//! The main thread is the dispatcher's (`StartServiceCtrlDispatcherW`), on which [`handle`] is
//! called. It only takes locks, sends notifications and returns. The service runs on the thread
//! that the system creates for `ServiceMain`. A third thread ticks while a state is pending.

use std::ffi::{OsString, c_void};
use std::io;
use std::os::windows::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use windows_sys::Win32::Foundation::{
    ERROR_CALL_NOT_IMPLEMENTED, ERROR_FAILED_SERVICE_CONTROLLER_CONNECT,
    ERROR_SERVICE_REQUEST_TIMEOUT, ERROR_SERVICE_SPECIFIC_ERROR, FALSE, NO_ERROR,
};
use windows_sys::Win32::System::RemoteDesktop::WTSSESSION_NOTIFICATION;
use windows_sys::Win32::System::Services as scm;
use windows_sys::Win32::UI::WindowsAndMessaging as messages;
use windows_sys::core::PWSTR;

use super::redirect::default_log_dir;
use super::wide;
use crate::capture;
use crate::context::{Said, Shared, Voice};
use crate::logger::Event;
use crate::progress::{Controls, End, Progress, Report, Tick};
use crate::run::{failed, work};
use crate::{
    Accepts, Context, Control, Definition, Error, ErrorKind, Exit, Logger, Manager, Power, Service,
    SessionChange, SessionReason, State, Stop,
};

/// The job for `ServiceMain`, which receives no context.
static JOB: Mutex<Option<Job>> = Mutex::new(None);
/// The exit code of the job.
static CODE: OnceLock<u32> = OnceLock::new();

struct Job {
    definition: Definition,
    work: Box<dyn FnOnce(Context) -> u32 + Send>,
    logger: Logger,
}

/// Runs the service and blocks until it has ended.
pub(super) fn run(
    definition: Definition,
    service: impl Service + Send + 'static,
    logger: Logger,
) -> Result<u32, Error> {
    let name = definition.name.clone();
    let mut wide_name = wide(&name);
    *lock(&JOB) = Some(Job {
        definition,
        work: Box::new(move |context| work(service, context)),
        logger,
    });
    dispatch(&mut wide_name).map_err(|error| refused(&name, error))?;
    Ok(CODE.get().copied().unwrap_or(1))
}

/// Enters the definition's working directory, or the program's directory. Services start in the
/// system directory, which contains none of their files.
fn enter(working_dir: Option<PathBuf>) -> Result<(), Error> {
    let of_program = || Some(std::env::current_exe().ok()?.parent()?.to_owned());
    let Some(dir) = working_dir.or_else(of_program) else {
        return Ok(());
    };
    std::env::set_current_dir(&dir).map_err(|error| {
        let what = format!("cannot enter directory {}", dir.display());
        Error::new(ErrorKind::Failed, what).because(error)
    })
}

fn refused(name: &str, error: io::Error) -> Error {
    if error.raw_os_error() != Some(ERROR_FAILED_SERVICE_CONTROLLER_CONNECT.cast_signed()) {
        let what = format!("cannot run service \"{name}\" (StartServiceCtrlDispatcher)");
        return Error::new(ErrorKind::Failed, what).because(error);
    }
    let what = format!(
        "cannot run service \"{name}\": this process was not started by the Service Control Manager"
    );
    Error::new(ErrorKind::Unsupported, what).with_cure(format!(
        "start it with `sc start {name}`, or omit {} to run it in the foreground",
        crate::UNDER_SCM
    ))
}

#[expect(unsafe_code, reason = "the system's own interface")]
fn dispatch(name: &mut [u16]) -> io::Result<()> {
    let table = [
        scm::SERVICE_TABLE_ENTRYW {
            lpServiceName: name.as_mut_ptr(),
            lpServiceProc: Some(service_main),
        },
        scm::SERVICE_TABLE_ENTRYW::default(),
    ];
    // SAFETY: the table ends with an empty entry and outlives the call.
    match unsafe { scm::StartServiceCtrlDispatcherW(table.as_ptr()) } {
        FALSE => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// `ServiceMain`. The first argument is the service's own name.
#[expect(unsafe_code, reason = "the system's own interface")]
unsafe extern "system" fn service_main(count: u32, arguments: *mut PWSTR) {
    let Some(job) = lock(&JOB).take() else {
        return;
    };
    let arguments = (1..count as usize).map(|index| {
        // SAFETY: the system passes `count` strings that end with a NUL.
        unsafe { text(*arguments.add(index)) }
    });
    job.run(arguments.collect());
}

/// # Safety
/// `wide` must end with a NUL.
#[expect(unsafe_code, reason = "the system's own interface")]
unsafe fn text(wide: PWSTR) -> OsString {
    let mut length = 0;
    // SAFETY: by this function's contract, each element up to the NUL can be read.
    while unsafe { *wide.add(length) } != 0 {
        length += 1;
    }
    // SAFETY: this many elements were just read.
    OsString::from_wide(unsafe { std::slice::from_raw_parts(wide, length) })
}

impl Job {
    fn run(self, arguments: Vec<OsString>) {
        let Self {
            definition,
            work,
            logger,
        } = self;
        let link = Arc::new(Link {
            handle: OnceLock::new(),
            progress: Mutex::new(Progress::new(
                definition.start_timeout,
                definition.graceful,
                definition.accepts,
                Instant::now(),
            )),
            changed: Condvar::new(),
            shared: OnceLock::new(),
            accepts: definition.accepts,
            preshutdown: match definition.windows.preshutdown {
                None => Preshutdown::Ignored,
                Some(_) => Preshutdown::Accepted,
            },
            logger: logger.clone(),
        });
        let shared = Shared::new(LinkVoice(Arc::clone(&link)));
        let _first: Result<(), _> = link.shared.set(Arc::clone(&shared));
        if let Err(error) = link.register(&definition.name) {
            // Without a handle, no status can be reported. The manager gives up on its own.
            logger.error(format!(
                "cannot receive requests of the Service Control Manager (RegisterServiceCtrlHandlerEx): {error}"
            ));
            let _first: Result<(), _> = CODE.set(1);
            return;
        }
        link.tell(&link.progress().report());
        let ticker = Arc::clone(&link);
        let started = thread::Builder::new()
            .name("service status".into())
            .spawn(move || ticker.tick());
        if let Err(error) = started {
            logger.warn(format!(
                "cannot start a thread that reports progress: {error}; long starts and stops will appear to hang"
            ));
        }
        let dir = definition.log_dir.map(Ok);
        let dir = dir.unwrap_or_else(|| default_log_dir(&definition.name));
        let captured = dir.and_then(|dir| {
            let done = capture::begin(&dir);
            done.map_err(|error| io::Error::other(format!("{}: {error}", dir.display())))
        });
        if let Err(error) = captured {
            // The output is lost, as with any service. This is no reason not to run it.
            logger.warn(format!("cannot write output to files: {error}"));
        }
        let code = match enter(definition.working_dir) {
            Ok(()) => work(Context::new(shared, Manager::WindowsScm, arguments, logger)),
            Err(error) => failed(&Exit::from(error), &logger),
        };
        let _first: Result<(), _> = CODE.set(code);
        // The process may end as soon as the manager receives the status.
        capture::end();
        link.end(End::Code(code));
    }
}

/// The connection to the manager. It must live as long as the process because the system holds its
/// address.
struct Link {
    handle: OnceLock<Handle>,
    progress: Mutex<Progress>,
    /// Notified when the state becomes pending or changes to another pending state.
    changed: Condvar,
    shared: OnceLock<Arc<Shared>>,
    accepts: Accepts,
    preshutdown: Preshutdown,
    logger: Logger,
}

/// The preshutdown setting: determines whether the service is notified before a shutdown begins.
#[derive(Clone, Copy, Debug)]
enum Preshutdown {
    Ignored,
    Accepted,
}

#[derive(Debug)]
struct Handle(scm::SERVICE_STATUS_HANDLE);

// SAFETY: the system accepts the handle on any thread ("SetServiceStatus").
#[expect(unsafe_code, reason = "a number in the shape of a pointer")]
unsafe impl Send for Handle {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a number in the shape of a pointer")]
unsafe impl Sync for Handle {}

impl Link {
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn register(self: &Arc<Self>, name: &str) -> io::Result<()> {
        let name = wide(name);
        // Never freed: the system may call the handler as long as the process lives.
        let context = Arc::into_raw(Arc::clone(self)).cast::<c_void>();
        // SAFETY: `context` is a `Link` that lives as long as the process, and `handle` casts it to
        // one.
        let handle =
            unsafe { scm::RegisterServiceCtrlHandlerExW(name.as_ptr(), Some(handle), context) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        let _first: Result<(), _> = self.handle.set(Handle(handle));
        Ok(())
    }

    /// Locks the progress. The lock is never held for long, because no thread waits while holding
    /// it.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    #[expect(unsafe_code, reason = "the system's own interface")]
    fn tell(&self, report: &Report) {
        let Some(Handle(handle)) = self.handle.get() else {
            return;
        };
        let (code, own_code) = match report.end {
            None | Some(End::Code(0)) => (NO_ERROR, 0),
            Some(End::Code(code)) => (ERROR_SERVICE_SPECIFIC_ERROR, code),
            Some(End::Overdue) => (ERROR_SERVICE_REQUEST_TIMEOUT, 0),
        };
        let status = scm::SERVICE_STATUS {
            dwServiceType: scm::SERVICE_WIN32_OWN_PROCESS,
            dwCurrentState: report.state as u32,
            dwControlsAccepted: accepted(report.controls, self.accepts, self.preshutdown),
            dwWin32ExitCode: code,
            dwServiceSpecificExitCode: own_code,
            dwCheckPoint: report.checkpoint,
            dwWaitHint: u32::try_from(report.wait_hint.as_millis()).unwrap_or(u32::MAX),
        };
        // SAFETY: the system returned this handle, and the status is valid.
        if unsafe { scm::SetServiceStatus(*handle, &raw const status) } == FALSE {
            let error = io::Error::last_os_error();
            self.logger.warn(format!(
                "cannot report {:?} (SetServiceStatus): {error}",
                report.state
            ));
        }
    }

    /// Handles a control, on the dispatcher's thread.
    fn handle(&self, control: Control) {
        let mut progress = self.progress();
        let before = progress.report();
        if !progress.wanted(control, Instant::now()) {
            return;
        }
        let report = progress.report();
        if report != before {
            self.tell(&report);
            self.changed.notify_all();
        }
        drop(progress);
        if let Some(shared) = self.shared.get() {
            shared.tell(control);
        }
    }

    fn did(&self, control: Option<Control>) {
        let mut progress = self.progress();
        if progress.did(control) {
            self.tell(&progress.report());
        }
    }

    fn end(&self, end: End) {
        let mut progress = self.progress();
        let report = progress.ended(end);
        self.tell(&report);
    }

    /// The body of the ticker thread: reports the progress of a pending state. Between pending
    /// states, it sleeps without a timer.
    fn tick(&self) {
        let mut progress = self.progress();
        loop {
            let now = Instant::now();
            match progress.tick(now) {
                Tick::TooSoon => {}
                Tick::Goes(report) => self.tell(&report),
                Tick::Overdue(state, report) => {
                    let event = match state {
                        State::StartPending => Event::StartOverdue,
                        State::PausePending | State::ContinuePending => Event::PauseOverdue,
                        _ => Event::StopOverdue,
                    };
                    // Logged first: the manager may end the process as soon as it receives the
                    // status.
                    self.logger.event(event, "its process is ended", &[]);
                    capture::end();
                    self.tell(&report);
                    std::process::exit(1);
                }
            }
            progress = match progress.wake_at() {
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    let woken = self.changed.wait_timeout(progress, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let woken = self.changed.wait(progress);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

/// Returns the `SERVICE_ACCEPT_…` bits for the controls that are accepted in a state.
fn accepted(controls: Controls, accepts: Accepts, preshutdown: Preshutdown) -> u32 {
    let stops = match preshutdown {
        Preshutdown::Ignored => scm::SERVICE_ACCEPT_STOP | scm::SERVICE_ACCEPT_SHUTDOWN,
        Preshutdown::Accepted => {
            scm::SERVICE_ACCEPT_STOP
                | scm::SERVICE_ACCEPT_SHUTDOWN
                | scm::SERVICE_ACCEPT_PRESHUTDOWN
        }
    };
    let table = [
        (Accepts::PAUSE, scm::SERVICE_ACCEPT_PAUSE_CONTINUE),
        (Accepts::RELOAD, scm::SERVICE_ACCEPT_PARAMCHANGE),
        (Accepts::SESSION_CHANGE, scm::SERVICE_ACCEPT_SESSIONCHANGE),
        (Accepts::POWER, scm::SERVICE_ACCEPT_POWEREVENT),
        (Accepts::TIME_CHANGE, scm::SERVICE_ACCEPT_TIMECHANGE),
        (
            Accepts::HARDWARE_PROFILE,
            scm::SERVICE_ACCEPT_HARDWAREPROFILECHANGE,
        ),
    ];
    match controls {
        Controls::None => 0,
        Controls::Stops => stops,
        Controls::All => {
            let own = table.iter().filter(|(ours, _)| accepts.contains(*ours));
            own.fold(stops, |accepted, (_, theirs)| accepted | theirs)
        }
    }
}

/// The service's end of the connection.
struct LinkVoice(Arc<Link>);

impl Voice for LinkVoice {
    fn say(&self, said: Said<'_>) {
        match said {
            Said::Ready => {
                self.0.did(None);
                self.0.logger.event(Event::Started, "", &[]);
            }
            Said::Did(control) => self.0.did(Some(control)),
            Said::ExtendTimeout(by) => {
                self.0.progress().extend(by, Instant::now());
                self.0.changed.notify_all();
            }
            // The manager has no equivalent of these.
            Said::Status(_) | Said::Alive | Said::Began(_) => {}
        }
    }
}

/// `HandlerEx`. The manager ignores the return value except for requests of its own, which are not
/// used here.
#[expect(unsafe_code, reason = "the system's own interface")]
unsafe extern "system" fn handle(
    control: u32,
    event: u32,
    data: *mut c_void,
    context: *mut c_void,
) -> u32 {
    // SAFETY: it is the registered `Link`, which is never freed.
    let link = unsafe { &*context.cast::<Link>() };
    // The manager itself answers from the last reported status.
    if control == scm::SERVICE_CONTROL_INTERROGATE {
        return NO_ERROR;
    }
    let session = || {
        // SAFETY: the system passes this structure with this control.
        let notification = unsafe { data.cast::<WTSSESSION_NOTIFICATION>().as_ref() };
        notification.map_or(0, |notification| notification.dwSessionId)
    };
    match translate(control, event, session) {
        Some(control) => {
            link.handle(control);
            NO_ERROR
        }
        None => ERROR_CALL_NOT_IMPLEMENTED,
    }
}

fn translate(control: u32, event: u32, session: impl FnOnce() -> u32) -> Option<Control> {
    Some(match control {
        scm::SERVICE_CONTROL_STOP => Control::Stop(Stop::Requested),
        scm::SERVICE_CONTROL_SHUTDOWN => Control::Stop(Stop::Shutdown),
        scm::SERVICE_CONTROL_PRESHUTDOWN => Control::Stop(Stop::Preshutdown),
        scm::SERVICE_CONTROL_PAUSE => Control::Pause,
        scm::SERVICE_CONTROL_CONTINUE => Control::Continue,
        scm::SERVICE_CONTROL_PARAMCHANGE => Control::Reload,
        scm::SERVICE_CONTROL_TIMECHANGE => Control::TimeChange,
        scm::SERVICE_CONTROL_HARDWAREPROFILECHANGE => Control::HardwareProfile(event),
        scm::SERVICE_CONTROL_POWEREVENT => Control::Power(match event {
            messages::PBT_APMPOWERSTATUSCHANGE => Power::StatusChange,
            messages::PBT_APMSUSPEND => Power::Suspend,
            messages::PBT_APMRESUMESUSPEND => Power::ResumeByUser,
            messages::PBT_APMRESUMEAUTOMATIC => Power::Resume,
            other => Power::Other(other),
        }),
        scm::SERVICE_CONTROL_SESSIONCHANGE => Control::SessionChange(SessionChange {
            reason: reason(event),
            session: session(),
        }),
        128..=255 => Control::Custom(control as u8),
        _ => return None,
    })
}

fn reason(event: u32) -> SessionReason {
    match event {
        messages::WTS_CONSOLE_CONNECT => SessionReason::ConsoleConnect,
        messages::WTS_CONSOLE_DISCONNECT => SessionReason::ConsoleDisconnect,
        messages::WTS_REMOTE_CONNECT => SessionReason::RemoteConnect,
        messages::WTS_REMOTE_DISCONNECT => SessionReason::RemoteDisconnect,
        messages::WTS_SESSION_LOGON => SessionReason::Logon,
        messages::WTS_SESSION_LOGOFF => SessionReason::Logoff,
        messages::WTS_SESSION_LOCK => SessionReason::Lock,
        messages::WTS_SESSION_UNLOCK => SessionReason::Unlock,
        messages::WTS_SESSION_REMOTE_CONTROL => SessionReason::RemoteControl,
        messages::WTS_SESSION_CREATE => SessionReason::Create,
        messages::WTS_SESSION_TERMINATE => SessionReason::Terminate,
        other => SessionReason::Other(other),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_depends_on_the_state_and_the_definition() {
        let check = |controls, accepts, preshutdown, expected| {
            assert_eq!(accepted(controls, accepts, preshutdown), expected);
        };
        let all = Accepts::PAUSE | Accepts::RELOAD;
        check(Controls::None, all, Preshutdown::Accepted, 0);
        // STOP 1, PAUSE_CONTINUE 2, SHUTDOWN 4, PARAMCHANGE 8, PRESHUTDOWN 0x100.
        check(Controls::Stops, all, Preshutdown::Accepted, 0x105);
        check(Controls::Stops, all, Preshutdown::Ignored, 0x5);
        check(Controls::All, all, Preshutdown::Accepted, 0x10F);
        check(Controls::All, all, Preshutdown::Ignored, 0xF);
        check(Controls::All, Accepts::default(), Preshutdown::Ignored, 0x5);
    }

    #[test]
    fn every_control_has_its_counterpart() {
        let check = |control, event, expected| {
            assert_eq!(
                translate(control, event, || 3),
                expected,
                "{control} {event}"
            );
        };
        check(
            scm::SERVICE_CONTROL_STOP,
            0,
            Some(Control::Stop(Stop::Requested)),
        );
        check(
            scm::SERVICE_CONTROL_PRESHUTDOWN,
            0,
            Some(Control::Stop(Stop::Preshutdown)),
        );
        check(
            scm::SERVICE_CONTROL_HARDWAREPROFILECHANGE,
            24,
            Some(Control::HardwareProfile(24)),
        );
        check(
            scm::SERVICE_CONTROL_POWEREVENT,
            4,
            Some(Control::Power(Power::Suspend)),
        );
        check(
            scm::SERVICE_CONTROL_POWEREVENT,
            99,
            Some(Control::Power(Power::Other(99))),
        );
        let locked = SessionChange {
            reason: SessionReason::Lock,
            session: 3,
        };
        check(
            scm::SERVICE_CONTROL_SESSIONCHANGE,
            7,
            Some(Control::SessionChange(locked)),
        );
        check(127, 0, None);
        check(128, 0, Some(Control::Custom(128)));
        check(255, 0, Some(Control::Custom(255)));
        check(256, 0, None);
    }
}
