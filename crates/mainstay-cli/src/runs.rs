//! What a service runs, and whether another account may change that: then it must not run as root.
//!
//! What counts is every file that decides what is executed: programs, also those of probes, reloads, alerts and snapshots, the interpreters of
//! scripts, and the environment file, whose variables can have a program load any library. Arguments are not looked at.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use mainstay_core::spec::{Account, Argv, OnAlert, Probe, Ready, Reload, Spec, Still};

use crate::failure::{Code, Failure};
use crate::host::{self, sys};

/// What another account may change.
#[derive(Debug)]
pub(crate) struct Exposed {
    /// Which component of the path, who owns it, and its mode.
    pub(crate) what: String,
    /// How that is mended.
    pub(crate) cure: String,
}

/// The commands of a service, with the key that names each.
pub(crate) fn commands(spec: &Spec) -> impl Iterator<Item = (&'static str, &Argv)> {
    let ready = match spec.start().ready() {
        Some(Ready::Probe(probe)) => exec(probe),
        _ => None,
    };
    let reload = match spec.reload() {
        Some(Reload::Exec(argv)) => Some(argv),
        _ => None,
    };
    let still = spec.snapshot().map(|snapshot| snapshot.still());
    let (quiesce, thaw) = match still {
        Some(Still::Commands { quiesce, thaw }) => (Some(quiesce), thaw.as_ref()),
        _ => (None, None),
    };
    let commands = [
        ("command", Some(spec.command())),
        ("start", ready),
        ("liveness", spec.liveness().and_then(|it| exec(it.probe()))),
        ("reload", reload),
        ("snapshot", quiesce),
        ("snapshot", thaw),
        ("on_alert", spec.on_alert().and_then(OnAlert::exec)),
    ];
    let waits = spec.wait_for().iter();
    let waits = waits.map(|it| ("wait_for", exec(it.probe())));
    let commands = commands.into_iter().chain(waits);
    commands.filter_map(|(key, argv)| Some((key, argv?)))
}

/// Every file that decides what a service executes, with the key that names it. Relative paths begin at `dir`, names are looked up in `search`. Those
/// that cannot be found are left out.
pub(crate) fn files<'s>(
    spec: &'s Spec,
    dir: &'s Path,
    search: Option<&'s OsStr>,
) -> impl Iterator<Item = (&'static str, PathBuf)> + 's {
    let programs = commands(spec).filter_map(move |(key, argv)| {
        let found = host::find_program(argv.program(), dir, search).ok()?;
        Some((key, found))
    });
    let env_file = spec.env_file().map(|path| ("env_file", dir.join(path)));
    env_file.into_iter().chain(programs)
}

fn exec(probe: &Probe) -> Option<&Argv> {
    match probe {
        Probe::Exec(argv) => Some(argv),
        _ => None,
    }
}

/// Who else may change a file, or the interpreter that it names; `None` where nobody may, or there is no such file.
#[cfg(unix)]
pub(crate) fn exposed(path: &Path) -> Option<Exposed> {
    let mut path = path.to_owned();
    // A script's interpreter may be a script: as often as the kernel follows.
    for _ in 0..5 {
        match crate::trust::exposure(&path) {
            Ok(None) => {}
            Ok(Some(exposure)) => {
                return Some(Exposed {
                    what: exposure.to_string(),
                    cure: exposure.cure(),
                });
            }
            Err(error) => {
                let what = format!("{} cannot be looked at: {error}", path.display());
                let cure = "name a program that can".to_owned();
                return Some(Exposed { what, cure });
            }
        }
        path = interpreter(&path)?;
    }
    None
}

/// Who else may change a file, or a directory above it, by their access control lists. What cannot be read is not known to be safe.
#[cfg(windows)]
pub(crate) fn exposed(path: &Path) -> Option<Exposed> {
    if !path.exists() {
        return None;
    }
    let what = match sys::exposure_of_program(path) {
        Ok(exposure) => exposure?,
        Err(error) => format!("{} cannot be looked at: {error}", path.display()),
    };
    let cure = "let only administrators change it".to_owned();
    Some(Exposed { what, cure })
}

/// What runs a script: the first word behind `#!` (execve(2)).
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

/// Whether a service of this supervisor runs as root: we do, and it has no other `user`.
pub(crate) fn as_root(user: Option<&sys::User>) -> bool {
    cfg!(unix) && sys::is_privileged() && user.is_none()
}

/// Whether a service manager gives programs of this account the rights of the system's administrator. Blocks: looks the user up, as any
/// name may have root's number.
pub(crate) fn is_privileged(account: &Account) -> bool {
    let is_root = |user: &String| {
        let found = sys::User::lookup(user);
        found.is_ok_and(|user| user.is_some_and(|user| user.is_root()))
    };
    account.is_privileged() || matches!(account, Account::User(user) if is_root(user))
}

/// Why a file is not run, or read, as root.
pub(crate) fn refusal(path: &Path) -> Option<String> {
    let Exposed { what, cure } = exposed(path)?;
    Some(format!(
        "{what}, and it would run as root ({})",
        hint(&cure)
    ))
}

/// Refuses what would run as root though another account may change it.
pub(crate) fn refuse_exposed(
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
    let message = format!("start {name}: `{key}`: {what}, and it would run as root");
    Err(Failure::new(Code::PermissionDenied, message).hint(hint(&cure)))
}

fn hint(cure: &str) -> String {
    format!("{cure}, or have it run as another user: account = \"user:NAME\"")
}
