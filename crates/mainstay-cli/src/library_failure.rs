//! Failures of the library `mainstay`, as failures of the command.

use std::error::Error as _;
use std::io;

use mainstay::ErrorKind;
use mainstay_core::failure::{Code, Failure, chain, disk_hint};
use mainstay_sys::access;

/// Returns the failure for a library error. Its message contains the error and its sources in one
/// line, from the operation down to the cause.
pub(crate) fn of_library(error: mainstay::Error) -> Failure {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    let on_disk = cause.and_then(|cause: &io::Error| disk_hint(cause.kind()));
    let code = match error.kind() {
        ErrorKind::Failed if on_disk.is_some() => Code::CannotWrite,
        ErrorKind::Usage => Code::Usage,
        ErrorKind::NotRunning => Code::NotRunning,
        ErrorKind::NotInstalled => Code::Unknown,
        ErrorKind::Unsupported => Code::MissingPart,
        ErrorKind::MarkedForDelete => Code::Busy,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Invalid => Code::InvalidManifest,
        _ => Code::Failed,
    };
    let failure = Failure::new(code, chain(&error));
    match error.cure() {
        Some("run it as root") => failure.hint(access::run_as_administrator()),
        Some(cure) => failure.hint(cure),
        None => match on_disk {
            Some(hint) => failure.hint(hint),
            None => failure,
        },
    }
}
