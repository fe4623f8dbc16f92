//! The manager's error codes, their meaning and the hints for them ("System Error Codes",
//! Microsoft).

use std::io;

use crate::{Error, ErrorKind};

pub(super) const ACCESS_DENIED: u32 = 5;
pub(super) const REQUEST_TIMEOUT: u32 = 1053;
pub(super) const ALREADY_RUNNING: u32 = 1056;
pub(super) const DOES_NOT_EXIST: u32 = 1060;
pub(super) const CANNOT_ACCEPT: u32 = 1061;
pub(super) const NOT_ACTIVE: u32 = 1062;
pub(crate) const SERVICE_SPECIFIC: u32 = 1066;
/// The process ended in an unknown way.
#[cfg(all(unix, feature = "managers"))]
pub(crate) const ABORTED: u32 = 1067;
pub(super) const MARKED_FOR_DELETE: u32 = 1072;
pub(super) const NEVER_STARTED: u32 = 1077;

/// Returns the number of a system error, or 0 if it has none.
pub(super) fn number(error: &io::Error) -> u32 {
    error.raw_os_error().map_or(0, i32::cast_unsigned)
}

/// Returns whether the system does not support the call: an unknown function, level or kind of
/// service.
pub(super) fn is_lack(error: &io::Error) -> bool {
    // NOT_SUPPORTED, CALL_NOT_IMPLEMENTED, INVALID_LEVEL, RPC_S_INVALID_TAG, RPC_X_BAD_STUB_DATA.
    // INVALID_PARAMETER is not included.
    matches!(number(error), 50 | 120 | 124 | 1733 | 1783)
}

/// Builds the error of an operation. `what` is the operation and its object: `create service
/// "orders"`.
pub(super) fn refusal(what: impl Into<String>, error: io::Error) -> Error {
    use ErrorKind::*;
    let (kind, cure) = match number(&error) {
        ACCESS_DENIED => (PermissionDenied, "run it as an administrator"),
        1051 => (
            NotAccepted,
            "stop the services that need it first, or use `--with-dependents`",
        ),
        1052 => (
            NotAccepted,
            "the service does not accept this control: see its definition",
        ),
        REQUEST_TIMEOUT => (
            TimedOut,
            "its process did not respond in time: try again, or end the process with Task Manager",
        ),
        ALREADY_RUNNING => (AlreadyRunning, "use restart"),
        1057 => (
            Invalid,
            "the account does not exist, or the password is wrong or missing",
        ),
        1058 => (
            NotAccepted,
            "the service is disabled: install it with another start type",
        ),
        DOES_NOT_EXIST => (NotInstalled, "install it first"),
        CANNOT_ACCEPT => (
            NotAccepted,
            "the service is starting or stopping: try again later",
        ),
        NOT_ACTIVE => (NotRunning, "start it first"),
        1068 | 1075 => (
            Failed,
            "a service that it needs did not start, or does not exist",
        ),
        1069 => (
            PermissionDenied,
            "the account cannot log on: its password has changed, or it lacks the right to log on as a service",
        ),
        MARKED_FOR_DELETE => (
            MarkedForDelete,
            "it is deleted when all programs have closed it: close services.msc, Task Manager and similar programs, or restart Windows",
        ),
        1300 => (
            PermissionDenied,
            "the account that installs lacks a privilege: to reboot on failure, it needs SeShutdownPrivilege",
        ),
        1073 => (Failed, "a service of this name already exists"),
        1078 => (Invalid, "another service has this display name"),
        1115 => (Failed, "the system is shutting down"),
        _ => {
            return Error::new(Failed, what).because(error);
        }
    };
    Error::new(kind, what).because(error).with_cure(cure)
}
