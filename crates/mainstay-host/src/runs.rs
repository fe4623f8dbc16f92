//! The files that a service executes, and the check for whether another account may change them. If
//! so, the service must not run as root.
//!
//! All files that decide what is executed are checked: programs, including those of probes,
//! reloads, alerts and snapshots; the interpreters of scripts; and the environment file, whose
//! variables can make a program load any library. Arguments are not checked.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use mainstay_core::failure::{Code, Failure};
use mainstay_core::spec::{Account, Spec};
use mainstay_sys as sys;

use crate::launch;

/// A file that another account may change.
#[derive(Debug)]
pub(crate) struct Exposed {
    /// The component of the path, its owner and its mode.
    pub(crate) what: String,
    /// The remedy.
    pub(crate) cure: String,
}

/// Returns every file that decides what a service executes, each with its manifest key. Relative
/// paths are relative to `dir`; names are looked up in `search`. Files that cannot be found are
/// left out.
pub(crate) fn files<'s>(
    spec: &'s Spec,
    dir: &'s Path,
    search: Option<&'s OsStr>,
) -> impl Iterator<Item = (&'static str, PathBuf)> + 's {
    let programs = spec.commands().filter_map(move |(key, argv)| {
        let found = launch::find_program(argv.program(), dir, search).ok()?;
        Some((key, found))
    });
    let env_file = spec.env_file().map(|path| ("env_file", dir.join(path)));
    env_file.into_iter().chain(programs)
}

/// Describes how another account may change a file, or the interpreter that it names. `None` if no
/// other account may, or the file does not exist.
#[cfg(unix)]
pub(crate) fn exposed(path: &Path) -> Option<Exposed> {
    let mut path = path.to_owned();
    // An interpreter may itself be a script. The limit is the kernel's.
    for _ in 0..5 {
        match mainstay_sys::trust::exposure(&path) {
            Ok(None) => {}
            Ok(Some(exposure)) => {
                return Some(Exposed {
                    what: exposure.to_string(),
                    cure: exposure.cure(),
                });
            }
            Err(error) => {
                let what = format!("{} cannot be inspected: {error}", path.display());
                let cure = "use a program that can be inspected".to_owned();
                return Some(Exposed { what, cure });
            }
        }
        path = interpreter(&path)?;
    }
    None
}

/// Describes how another account may change a file, or a directory above it, according to their
/// access control lists. A list that cannot be read counts as unsafe.
#[cfg(windows)]
pub(crate) fn exposed(path: &Path) -> Option<Exposed> {
    if !path.exists() {
        return None;
    }
    let what = match sys::exposure_of_program(path) {
        Ok(exposure) => exposure?,
        Err(error) => format!("{} cannot be inspected: {error}", path.display()),
    };
    let cure = "make it writable by administrators only".to_owned();
    Some(Exposed { what, cure })
}

/// Returns the interpreter of a script: the first word after `#!` (execve(2)).
#[cfg(unix)]
fn interpreter(path: &Path) -> Option<PathBuf> {
    use std::io::Read as _;
    use std::os::unix::ffi::OsStrExt as _;
    const LONGEST: u64 = 256;
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut line = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(LONGEST).read_to_end(&mut line).ok()?;
    let line = line
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | 0));
    let word = words.find(|word| !word.is_empty())?;
    let interpreter = Path::new(OsStr::from_bytes(word));
    interpreter.is_absolute().then(|| interpreter.to_owned())
}

/// Returns whether a service of this supervisor runs as root: we do, and it has no other `user`.
pub(crate) fn as_root(user: Option<&sys::User>) -> bool {
    cfg!(unix) && sys::is_privileged() && user.is_none()
}

/// Returns whether a service manager gives programs of this account administrator rights. Blocks:
/// it looks up the user, because any name may have root's number.
pub(crate) fn is_privileged(account: &Account) -> bool {
    let is_root = |user: &String| {
        let found = sys::User::lookup(user);
        found.is_ok_and(|user| user.is_some_and(|user| user.is_root()))
    };
    account.is_privileged() || matches!(account, Account::User(user) if is_root(user))
}

/// Returns the reason why a file must not be executed or read as root, if any.
pub(crate) fn refusal(path: &Path) -> Option<String> {
    let Exposed { what, cure } = exposed(path)?;
    Some(format!(
        "{what}, and it would run as root ({})",
        hint(&cure)
    ))
}

/// Rejects a service that would run as root with files that another account may change.
pub fn refuse_exposed(
    spec: &Spec,
    user: Option<&sys::User>,
    dir: &Path,
    search: Option<&OsStr>,
) -> Result<(), Failure> {
    if !as_root(user) {
        return Ok(());
    }
    let exposed = files(spec, dir, search).find_map(|(key, path)| Some((key, exposed(&path)?)));
    let Some((key, Exposed { what, cure })) = exposed else {
        return Ok(());
    };
    let name = spec.name();
    let message = format!("cannot start {name}: `{key}`: {what}, and it would run as root");
    Err(Failure::new(Code::PermissionDenied, message).hint(hint(&cure)))
}

fn hint(cure: &str) -> String {
    format!("{cure}, or run it as another user: account = \"user:NAME\"")
}
