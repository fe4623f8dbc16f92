//! A service process under the Service Control Manager, with one or several services.
//!
//! The main thread is the dispatcher's (`StartServiceCtrlDispatcherW`). It calls [`Link::answer`],
//! which only takes locks, sends notifications and returns. Each service runs on the thread that
//! the system creates for its `ServiceMain`. Another thread for each service ticks while a state is
//! pending.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use windows_sys::Win32::Foundation::{
    ERROR_CALL_NOT_IMPLEMENTED, ERROR_FAILED_SERVICE_CONTROLLER_CONNECT,
    ERROR_SERVICE_REQUEST_TIMEOUT, ERROR_SERVICE_SPECIFIC_ERROR, NO_ERROR,
};
use windows_sys::Win32::System::Services as scm;
use windows_sys::Win32::UI::WindowsAndMessaging as messages;

use crate::capture;
use crate::context::{Said, Shared, Voice};
use crate::event::Event;
use crate::progress::{Controls, End, Progress, Report, Tick};
use crate::run::{failed, work};
use crate::service::Body;
use crate::sys::{Main, Request, StatusHandle, default_log_dir, dispatch};
use crate::{
    Accepts, Context, Control, Definition, Error, ErrorKind, Exit, Logger, Manager, Power, Service,
    SessionChange, SessionReason, State, Stop,
};

/// The exit code of the first service that ended.
static CODE: OnceLock<u32> = OnceLock::new();

/// The number of services that run in this process. They share its output.
static RUNNING: Mutex<usize> = Mutex::new(0);

/// A service, for the thread on which it runs.
struct Job {
    definition: Definition,
    work: Box<dyn Fn(Context) -> u32 + Send + Sync>,
    logger: Logger,
}

/// Runs the service and blocks until it has ended.
pub(super) fn run(
    definition: Definition,
    service: impl Service + Send + 'static,
    logger: Logger,
) -> Result<u32, Error> {
    // The process of a single service starts it once.
    let service = Mutex::new(Some(service));
    let job = Job {
        definition,
        work: Box::new(move |context| lock(&service).take().map_or(1, |it| work(it, context))),
        logger,
    };
    dispatch_jobs(vec![job])
}

/// Runs the services that the manager starts and blocks until all have ended.
pub(crate) fn serve(services: Vec<(Definition, Body)>) -> Result<u32, Error> {
    let jobs = services.into_iter().map(|(definition, body)| Job {
        logger: Logger::new(&definition.name, Manager::WindowsScm),
        definition,
        work: Box::new(move |context| work(|context| body(context), context)),
    });
    dispatch_jobs(jobs.collect())
}

fn dispatch_jobs(jobs: Vec<Job>) -> Result<u32, Error> {
    let names: Vec<&str> = jobs.iter().map(|job| &*job.definition.name).collect();
    let names = names.join(", ");
    let mains = jobs.into_iter().map(|job| {
        let name = job.definition.name.clone();
        let main: Main = Box::new(move |arguments| job.run(arguments));
        (name, main)
    });
    dispatch(mains.collect()).map_err(|error| refused(&names, error))?;
    Ok(CODE.get().copied().unwrap_or(1))
}

/// Enters the definition's working directory, or the program's directory. Services start in the
/// system directory, which contains none of their files.
fn enter(working_dir: Option<&PathBuf>) -> Result<(), Error> {
    let of_program = || Some(std::env::current_exe().ok()?.parent()?.to_owned());
    let Some(dir) = working_dir.cloned().or_else(of_program) else {
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

impl Job {
    fn run(&self, arguments: Vec<OsString>) {
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
            kind: match definition.shared_process {
                None => scm::SERVICE_WIN32_OWN_PROCESS,
                Some(_) => scm::SERVICE_WIN32_SHARE_PROCESS,
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
        if let Err(error) = begin_output(definition) {
            // The output is lost, as with any service. This is no reason not to run it.
            logger.warn(format!("cannot write output to files: {error}"));
        }
        let logger = logger.clone();
        let code = match enter(definition.working_dir.as_ref()) {
            Ok(()) => work(Context::new(shared, Manager::WindowsScm, arguments, logger)),
            Err(error) => failed(&Exit::from(error), &logger),
        };
        let _first: Result<(), _> = CODE.set(code);
        let is_clean =
            u8::try_from(code).is_ok_and(|code| definition.recovery.clean.contains(&code));
        let end = End::Code(if is_clean { 0 } else { code });
        // The process may end as soon as the manager receives the status of its last service.
        end_output();
        link.end(end);
    }
}

/// Captures the output of this process when its first service starts.
fn begin_output(definition: &Definition) -> io::Result<()> {
    let mut running = lock(&RUNNING);
    *running += 1;
    if *running > 1 {
        return Ok(());
    }
    let name = definition.shared_process.as_ref();
    let name = name.unwrap_or(&definition.name);
    let dir = definition.log_dir.clone().map(Ok);
    let dir = dir.unwrap_or_else(|| default_log_dir(name))?;
    let done = capture::begin(&dir);
    done.map_err(|error| io::Error::other(format!("{}: {error}", dir.display())))
}

/// Writes the captured output to its files when the last service has ended.
fn end_output() {
    let mut running = lock(&RUNNING);
    *running -= 1;
    if *running == 0 {
        capture::end();
    }
}

/// The connection to the manager.
struct Link {
    handle: OnceLock<StatusHandle>,
    progress: Mutex<Progress>,
    /// Notified when the state becomes pending or changes to another pending state.
    changed: Condvar,
    shared: OnceLock<Arc<Shared>>,
    accepts: Accepts,
    preshutdown: Preshutdown,
    /// `SERVICE_WIN32_…_PROCESS`.
    kind: u32,
    logger: Logger,
}

/// The preshutdown setting: determines whether the service is notified before a shutdown begins.
#[derive(Clone, Copy, Debug)]
enum Preshutdown {
    Ignored,
    Accepted,
}

impl Link {
    fn register(self: &Arc<Self>, name: &str) -> io::Result<()> {
        let link = Arc::clone(self);
        let handle = StatusHandle::register(name, move |request| link.answer(request))?;
        let _first: Result<(), _> = self.handle.set(handle);
        Ok(())
    }

    /// Locks the progress. The lock is never held for long, because no thread waits while holding
    /// it.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    fn tell(&self, report: &Report) {
        let Some(handle) = self.handle.get() else {
            return;
        };
        let (code, own_code) = match report.end {
            None | Some(End::Code(0)) => (NO_ERROR, 0),
            Some(End::Code(code)) => (ERROR_SERVICE_SPECIFIC_ERROR, code),
            Some(End::Overdue) => (ERROR_SERVICE_REQUEST_TIMEOUT, 0),
        };
        let status = scm::SERVICE_STATUS {
            dwServiceType: self.kind,
            dwCurrentState: report.state as u32,
            dwControlsAccepted: accepted(report.controls, self.accepts, self.preshutdown),
            dwWin32ExitCode: code,
            dwServiceSpecificExitCode: own_code,
            dwCheckPoint: report.checkpoint,
            dwWaitHint: u32::try_from(report.wait_hint.as_millis()).unwrap_or(u32::MAX),
        };
        if let Err(error) = handle.report(&status) {
            self.logger.warn(format!(
                "cannot report {:?} (SetServiceStatus): {error}",
                report.state
            ));
        }
    }

    /// Answers the manager, which ignores the answer except to requests of its own, which are not
    /// used here.
    fn answer(&self, request: Request) -> u32 {
        // The manager itself answers from the last reported status.
        if request.control == scm::SERVICE_CONTROL_INTERROGATE {
            return NO_ERROR;
        }
        match translate(request) {
            Some(control) => {
                self.handle(control);
                NO_ERROR
            }
            None => ERROR_CALL_NOT_IMPLEMENTED,
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

fn translate(request: Request) -> Option<Control> {
    let Request {
        control,
        event,
        session,
    } = request;
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
            session,
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
            let request = Request {
                control,
                event,
                session: 3,
            };
            assert_eq!(translate(request), expected, "{request:?}");
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
