//! Failures of the registry, with the reasons that SQLite does not give.

use std::path::Path;

use mainstay_core::failure::{Code, Failure};

pub(super) const HINT: &str = "move it away and install the services again; installed services keep running without it, and only the history is lost";

pub(super) fn cannot(code: Code, verb: &str, path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        code,
        format!("cannot {verb} the registry {}: {why}", path.display()),
    )
}

/// Converts a database error into a failure with a hint.
pub(super) fn database(verb: &str, path: &Path, error: &rusqlite::Error) -> Failure {
    use rusqlite::ErrorCode;
    let why = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            let holder = holder(path).map_or_else(
                || "another process has it locked".to_owned(),
                |pid| format!("process {pid} has it locked"),
            );
            cannot(Code::Busy, verb, path, &why).hint(format!("{holder}: try again"))
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            cannot(Code::PermissionDenied, verb, path, &why)
        }
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure,
        ) => match disk_state(path) {
            Some(kind) => {
                let cause = std::io::Error::from(kind);
                cannot(Code::CannotWrite, verb, path, &cause.to_string()).because_of(&cause)
            }
            None => cannot(Code::CannotWrite, verb, path, &why).hint(
                "check that its disk is neither full nor read-only, and that you may write to it",
            ),
        },
        _ => cannot(Code::Failed, verb, path, &why).hint(HINT),
    }
}

/// Returns the reason why nothing can be written next to this file, if its disk is full or
/// read-only. SQLite reports neither by name.
#[cfg(unix)]
fn disk_state(path: &Path) -> Option<std::io::ErrorKind> {
    let found = rustix::fs::statvfs(path.parent()?).ok()?;
    let is_full = found.f_bavail == 0 || found.f_files > 0 && found.f_favail == 0;
    if found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        Some(std::io::ErrorKind::ReadOnlyFilesystem)
    } else {
        is_full.then_some(std::io::ErrorKind::StorageFull)
    }
}

/// Returns `None`: the errors of this system are specific.
#[cfg(windows)]
fn disk_state(_path: &Path) -> Option<std::io::ErrorKind> {
    None
}

/// Returns the process that has the database or its write-ahead log locked, if the system reports
/// it (proc_locks(5)). The system lists locks a page at a time, by their position: a lock that is
/// released between two pages hides another one. So the list is read again.
#[cfg(target_os = "linux")]
fn holder(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let files = [path.to_owned(), path.with_extension("db-shm")];
    let files = files.iter().filter_map(|file| {
        let found = std::fs::metadata(file).ok()?;
        let (major, minor) = (
            rustix::fs::major(found.dev()),
            rustix::fs::minor(found.dev()),
        );
        Some(format!("{major:02x}:{minor:02x}:{}", found.ino()))
    });
    let files: Vec<String> = files.collect();
    let holder_of = |lock: &str| {
        let fields: Vec<&str> = lock.split_ascii_whitespace().collect();
        let [_, "POSIX", _, "WRITE", pid, file, ..] = *fields else {
            return None;
        };
        let pid = pid.parse().ok()?;
        let is_another = pid != 0 && pid != std::process::id();
        (is_another && files.iter().any(|it| it == file)).then_some(pid)
    };
    (0..5).find_map(|_| {
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        locks.lines().find_map(holder_of)
    })
}

#[cfg(not(target_os = "linux"))]
fn holder(_path: &Path) -> Option<u32> {
    None
}
