//! Running a service under whoever started the process.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use crate::logger::Event;
use crate::service::chain;
use crate::{Context, Definition, Exit, Logger, Manager, Service, sys};

/// What a panic becomes, as in any Rust program.
const PANICKED: u32 = 101;

impl Definition {
    /// Runs the service and returns what the process should exit with. Blocks until it ends; to be called once, from `main`.
    ///
    /// Under the Windows Service Control Manager (and there the image path ends with [`UNDER_SCM`](crate::UNDER_SCM)) all states are reported, and a
    /// pending one ticks by itself, as long as it may take by [`Definition::start_timeout`] and [`Definition::graceful`]; a service that
    /// has not stopped by then is ended. Elsewhere SIGTERM and SIGINT are a stop, SIGHUP is a reload if the service accepts that, a second
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
                    let _ = writeln!(io::stderr(), "{text}");
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
    // A panic has no state that would be looked at afterwards.
    let result = panic::catch_unwind(AssertUnwindSafe(|| service.run(context)));
    match result {
        Ok(Ok(())) => {
            logger.event(Event::Stopped, "", &[]);
            0
        }
        Ok(Err(exit)) => failed(&exit, &logger),
        Err(_said_by_the_hook) => {
            logger.event(
                Event::Panicked,
                "see standard error",
                &[("code", u64::from(PANICKED))],
            );
            PANICKED
        }
    }
}

fn failed(exit: &Exit, logger: &Logger) -> u32 {
    let code = exit.code.get();
    let reason = exit.reason().unwrap_or_else(|| format!("code {code}"));
    logger.event(Event::Failed, &reason, &[("code", u64::from(code))]);
    code
}
