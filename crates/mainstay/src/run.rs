//! Runs a service under the manager that started the process.

#[cfg_attr(unix, path = "run/unix/mod.rs")]
#[cfg_attr(windows, path = "run/windows/mod.rs")]
mod system;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process::ExitCode;
use std::sync::Once;

use crate::capture;
use crate::event::Event;
use crate::service::chain;
use crate::terminal;
use crate::{Context, Definition, Error, Exit, Logger, Manager, Service};

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
    ///
    /// ```no_run
    /// use std::process::ExitCode;
    ///
    /// use mainstay::{Context, Control, Exit};
    ///
    /// /// A program with a command line of its own runs its service with this.
    /// fn run() -> ExitCode {
    ///     mainstay::service("orders").run(|mut context: Context| -> Result<(), Exit> {
    ///         while !matches!(context.wait(), Control::Stop(_)) {}
    ///         Ok(())
    ///     })
    /// }
    /// ```
    pub fn run(self, service: impl Service + Send + 'static) -> ExitCode {
        let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        if arguments.first().is_some_and(|verb| verb == "run") {
            arguments.remove(0);
        }
        self.run_with(service, arguments)
    }

    /// Runs the service with these arguments, if its manager passes none of its own.
    pub(crate) fn run_with(
        self,
        service: impl Service + Send + 'static,
        arguments: Vec<OsString>,
    ) -> ExitCode {
        let logger = Logger::new(&self.name, Manager::current());
        exit_code_of(system::run(self, service, &logger, arguments), &logger)
    }
}

pub(crate) use system::serve;

/// Reports why services could not be run. Returns the exit code for the process.
pub(crate) fn exit_code_of(done: Result<u32, Error>, logger: &Logger) -> ExitCode {
    let error = match done {
        Ok(code) => return ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => error,
    };
    let cure = error.cure().map(|cure| format!("\nhint: {cure}"));
    let text = chain(&error) + &cure.unwrap_or_default();
    logger.error(&text);
    // The program may have been started from a console after all, where nobody reads the Event Log.
    if Manager::current() == Manager::WindowsScm {
        let _ = terminal::write(io::stderr(), &format!("{text}\n"));
    }
    ExitCode::FAILURE
}

/// Runs the service itself and logs a failure. Returns the exit code, 0 on success.
fn work(service: impl Service, context: Context) -> u32 {
    let logger = context.logger().clone();
    log_panics(&logger);
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

thread_local! {
    /// The log of the service that runs on this thread.
    static LOG: RefCell<Option<Logger>> = const { RefCell::new(None) };
}

/// Logs the panics of this thread, because the system log may not receive standard error. A hook
/// does it because a program built with `panic = "abort"` gets no later chance. In such a program,
/// the panic of any thread ends the process; otherwise, only that of this thread ends the service.
fn log_panics(logger: &Logger) {
    static HOOK: Once = Once::new();
    LOG.set(Some(logger.clone()));
    let first = logger.clone();
    HOOK.call_once(|| {
        let said_by_program = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            said_by_program(panic);
            let of_service = LOG.try_with(|log| log.borrow().clone());
            let of_service = of_service.ok().flatten();
            if cfg!(panic = "abort") {
                let log = of_service.as_ref().unwrap_or(&first);
                log.event(Event::Panicked, &message_of(panic), &[]);
                capture::end();
            } else if let Some(log) = of_service {
                let fields = [("code", u64::from(PANICKED))];
                log.event(Event::Panicked, &message_of(panic), &fields);
            }
        }));
    });
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
