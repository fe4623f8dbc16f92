//! Windows: the Service Control Manager, or a console.

mod console;
mod dispatcher;

use std::ffi::OsString;

pub(crate) use dispatcher::serve;

use crate::{Definition, Error, ErrorKind, Logger, Manager, Service};

/// Runs the service under the manager that started the process.
pub(super) fn run(
    definition: Definition,
    service: impl Service + Send + 'static,
    logger: &Logger,
    arguments: Vec<OsString>,
) -> Result<u32, Error> {
    if Manager::current() == Manager::WindowsScm {
        // The dispatcher comes first: the manager would report an earlier failure as a time-out
        // (1053) without a cause.
        dispatcher::run(definition, service, logger.clone())
    } else {
        if let Some(dir) = &definition.working_dir {
            std::env::set_current_dir(dir).map_err(|error| {
                let what = format!("cannot enter directory {}", dir.display());
                Error::new(ErrorKind::Failed, what).because(error)
            })?;
        }
        console::run(service, definition.log_dir.as_deref(), logger, arguments)
    }
}
