//! Runs a service under the manager that started the process.

#[cfg_attr(unix, path = "run/unix/mod.rs")]
#[cfg_attr(windows, path = "run/windows/mod.rs")]
mod system;

use std::ffi::OsString;
use std::io;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process::ExitCode;
use std::thread;

use crate::capture;
use crate::event::Event;
use crate::service::chain;
use crate::terminal;
use crate::{Context, Definition, Exit, Logger, Manager, Service};

/// The exit code after a panic, as in any Rust program.
const PANICKED: u32 = 101;

impl Definition {
    /// Runs the service and returns the exit code for the process. It blocks until the service
    /// ends. Call it once, from `main`.
    ///
    /// Under the Windows Service Control Manager (recognized by an image path that ends with
    /// [`UNDER_SCM`](crate::UNDER_SCM)), every state is reported, and the checkpoint of a pending
    /// state advances automatically. A start may take [`Definition::start_timeout`]. A stop, a
    /// pause and a continue may take [`Definition::graceful`]. If one takes longer, the process is
    /// ended and the state becomes STOPPED, with error 1053 (a failure that triggers recovery
    /// actions), or with 0 if a stop was requested. A stop is accepted while the service starts.
    /// After a stop, the exit code reported to the manager is 0, whatever [`Service::run`] returns.
    ///
    /// Elsewhere, SIGTERM and SIGINT request a stop, SIGHUP requests a reload if the service
    /// accepts it, and a second SIGINT ends the process. Readiness, status and other notifications
    /// go to `NOTIFY_SOCKET`.
    pub fn run(self, service: impl Service + Send + 'static) -> ExitCode {
        let manager = Manager::current();
        let logger = Logger::new(&self.name, manager);
        match system::run(self, service, &logger) {
            Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
            Err(error) => {
                let cure = error.cure().map(|cure| format!("\nhint: {cure}"));
                let text = chain(&error) + &cure.unwrap_or_default();
                logger.error(&text);
                // The program may have been started from a console after all, where nobody reads
                // the Event Log.
                if manager == Manager::WindowsScm {
                    let _ = terminal::write(io::stderr(), &format!("{text}\n"));
                }
                ExitCode::FAILURE
            }
        }
    }
}

/// Returns the service's arguments from the command line, for managers that pass none of their own.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|verb| verb == "run") {
        arguments.remove(0);
    }
    arguments
}

/// Runs the service itself and logs a failure. Returns the exit code, 0 on success.
fn work(service: impl Service, context: Context) -> u32 {
    let logger = context.logger().clone();
    // The system log may not receive standard error, so the panic message is also logged. The hook
    // logs it because a program built with `panic = "abort"` gets no later chance. In such a
    // program, the panic of any thread ends the service; otherwise, only that of this thread does.
    let (thread, to_log) = (thread::current().id(), logger.clone());
    let said_by_program = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        said_by_program(panic);
        if cfg!(panic = "abort") {
            to_log.event(Event::Panicked, &message_of(panic), &[]);
            capture::end();
        } else if thread::current().id() == thread {
            to_log.event(
                Event::Panicked,
                &message_of(panic),
                &[("code", u64::from(PANICKED))],
            );
        }
    }));
    // No state is inspected after a panic.
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

/// Formats a panic in one line, such as "panicked at src/main.rs:7: why".
fn message_of(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let why = text.unwrap_or("a value that is not text");
    match panic.location() {
        Some(place) => format!("panicked at {}:{}: {why}", place.file(), place.line()),
        None => format!("panicked: {why}"),
    }
}

/// Logs a failure and returns its exit code.
fn failed(exit: &Exit, logger: &Logger) -> u32 {
    let code = exit.exit_code().get();
    let without = format!("code {code}");
    let reason = exit.reason().unwrap_or(&without);
    logger.event(Event::Failed, reason, &[("code", u64::from(code))]);
    code
}
