//! Running a service under whoever started the process.

use std::ffi::OsString;
use std::io;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process::ExitCode;
use std::thread;

use crate::capture;
use crate::logger::Event;
use crate::service::chain;
use crate::terminal;
use crate::{Context, Definition, Exit, Logger, Manager, Service, sys};

/// What a panic becomes, as in any Rust program.
const PANICKED: u32 = 101;

impl Definition {
    /// Runs the service and returns what the process should exit with. Blocks until it ends; to be called once, from `main`.
    ///
    /// Under the Windows Service Control Manager (and there the image path ends with [`UNDER_SCM`](crate::UNDER_SCM)) all states are reported, and a
    /// pending one ticks by itself. A start may take [`Definition::start_timeout`]; a stop, a pause and a continue may take
    /// [`Definition::graceful`]. If one takes longer, the process is ended and the state becomes STOPPED, with error 1053 (a failure, which
    /// recovery actions follow), or 0 if a stop was requested. A stop is accepted while the service starts, and its exit code is 0 for the
    /// manager whatever [`Service::run`] returns. Elsewhere SIGTERM and SIGINT are a stop, SIGHUP is a reload if the service accepts that, a second
    /// SIGINT ends the process, and readiness, status and the like go to `NOTIFY_SOCKET`.
    pub fn run(self, service: impl Service + Send + 'static) -> ExitCode {
        let manager = Manager::current();
        let logger = Logger::new(&self.name, manager);
        match sys::run(self, service, &logger) {
            Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
            Err(error) => {
                let cure = error.cure().map(|cure| format!("\nhint: {cure}"));
                let text = chain(&error) + &cure.unwrap_or_default();
                logger.error(&text);
                // Perhaps it was somebody at a console after all, who does not look into the Event Log.
                if manager == Manager::WindowsScm {
                    let _ = terminal::write(io::stderr(), &format!("{text}\n"));
                }
                ExitCode::FAILURE
            }
        }
    }
}

/// What the service is started with where no manager passes anything of its own.
pub(crate) fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|verb| verb == "run") {
        arguments.remove(0);
    }
    arguments
}

/// Runs the service itself; returns its exit code, 0 if it has ended well. A failure is in the log.
pub(crate) fn work(service: impl Service, context: Context) -> u32 {
    let logger = context.logger().clone();
    // The log of the system may not be where standard error goes, so the message is logged, too. In the hook, as a program that is
    // built to abort has no later time. Panics of other threads are theirs.
    let (thread, to_log) = (thread::current().id(), logger.clone());
    let said_by_program = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        said_by_program(panic);
        if thread::current().id() == thread {
            to_log.event(
                Event::Panicked,
                &message_of(panic),
                &[("code", u64::from(PANICKED))],
            );
        }
        if cfg!(panic = "abort") {
            capture::end();
        }
    }));
    // A panic has no state that would be looked at afterwards.
    let result = panic::catch_unwind(AssertUnwindSafe(|| service.run(context)));
    match result {
        Ok(Ok(())) => {
            logger.event(Event::Stopped, "", &[]);
            0
        }
        Ok(Err(exit)) => failed(&exit, &logger),
        Err(_logged_by_the_hook) => PANICKED,
    }
}

/// "the service has panicked at src/main.rs:7: why", in one line.
fn message_of(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let why = text.unwrap_or("a value that is no text");
    match panic.location() {
        Some(place) => format!("panicked at {}:{}: {why}", place.file(), place.line()),
        None => format!("panicked: {why}"),
    }
}

/// A failure is in the log; its exit code.
pub(crate) fn failed(exit: &Exit, logger: &Logger) -> u32 {
    let code = exit.code.get();
    let without = format!("code {code}");
    let reason = exit.reason().unwrap_or(&without);
    logger.event(Event::Failed, reason, &[("code", u64::from(code))]);
    code
}
