//! Failures of operations on files.

use std::io;
use std::path::Path;

use mainstay_core::failure::{Code, Failure};

/// Returns the failure of an operation on a file or directory.
pub fn file_failure(operation: &str, path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        _ => Code::CannotWrite,
    };
    let message = format!("cannot {operation} {}: {error}", path.display());
    Failure::new(code, message).caused_by(error)
}
