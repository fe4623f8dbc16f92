//! What would fail anyway is said before anything is started: missing programs, taken ports, accounts that cannot be had.

use std::path::Path;

use mainstay_core::spec::{Account, Need, Spec};

use super::{launch, port, sys};
use crate::failure::{Code, Failure};
use crate::runs;

/// Checks a service; the first thing that is wrong with the host (the manifest was checked before) ends it.
pub(super) fn check(
    spec: &Spec,
    manifest_dir: &Path,
    user: Option<&sys::User>,
    ours: &launch::Environment,
) -> Result<(), Failure> {
    check_files(spec, manifest_dir, user, ours)?;
    match port::taken(spec) {
        Some(taken) => {
            let message = format!("start {}: {taken}", spec.name());
            let hint = "stop whoever listens there, or give the service another port";
            Err(Failure::new(Code::Busy, message).hint(hint))
        }
        None => Ok(()),
    }
}

/// The same, but for what an earlier definition of it may hold.
pub(super) fn check_files(
    spec: &Spec,
    manifest_dir: &Path,
    user: Option<&sys::User>,
    ours: &launch::Environment,
) -> Result<(), Failure> {
    let name = spec.name();
    let cannot = |code, why: String| Failure::new(code, format!("start {name}: {why}"));
    let search = ours.get(std::ffi::OsStr::new("PATH"));
    runs::refuse_exposed(spec, manifest_dir, search.map(|path| &**path))?;
    let environment = launch::environment(spec, manifest_dir, user, ours)
        .map_err(|why| cannot(Code::MissingPart, why))?;
    if let Some(why) = sys::refused_limit(spec.limits()) {
        return Err(cannot(Code::PermissionDenied, why)
            .hint("ask for less, or have the supervisor started with a higher hard limit"));
    }
    let working_dir = launch::working_dir(spec, manifest_dir);
    if !working_dir.is_dir() {
        let why = format!("working_dir {} is not a directory", working_dir.display());
        return Err(cannot(Code::MissingPart, why).hint("create it, or correct `working_dir`"));
    }
    let program = spec.command().program();
    let search = environment.get(std::ffi::OsStr::new("PATH"));
    let found = launch::find_program(program, manifest_dir, search.map(|path| &**path))
        .and_then(|path| launch::check_executable(&path));
    found.map_err(|error| {
        cannot(Code::MissingPart, format!("program {program}: {error}")).hint(format!(
            "install it, or correct `command`; relative paths begin at {}",
            manifest_dir.display()
        ))
    })?;
    Ok(())
}

/// What the manifest asks for and this supervisor does not do: said at the start, never passed over in silence.
pub(crate) fn losses(spec: &Spec) -> Vec<String> {
    let mut losses = Vec::new();
    let mut lose = |what: String| losses.push(what);
    for need in spec.needs() {
        if let Need::Os(name) = need {
            lose(format!(
                "`needs` os:{name} is not looked at: only a service manager can order by it"
            ));
        }
    }
    if let Some(account) = spec.account()
        && !sys::is_privileged()
        && !matches!(account, Account::User(_))
    {
        lose(format!(
            "`account` {account} is for a service manager: it runs as you"
        ));
    }
    let capabilities = spec.sandbox().map_or(&[][..], |it| &it.capabilities);
    if !sys::is_privileged() {
        for name in sys::lacking_capabilities(capabilities) {
            lose(format!(
                "`sandbox.capabilities`: it runs without {name}, which the supervisor does not have"
            ));
        }
    }
    if spec.http().is_some() {
        lose("`http` is not served by this version".to_owned());
    }
    losses
}

/// Whom the service runs as under a supervisor that is not a service manager.
pub(crate) fn user_of(spec: &Spec) -> Result<Option<sys::User>, Failure> {
    let Some(account) = spec.account() else {
        return Ok(None);
    };
    let name = spec.name();
    let refuse = |why: &str, hint: &str| {
        let message = format!("start {name}: account {account}: {why}");
        Err(Failure::new(Code::PermissionDenied, message).hint(hint))
    };
    match account {
        Account::LocalSystem if sys::is_privileged() => Ok(None),
        Account::LocalSystem => refuse("you are not privileged", "run as root, or drop `account`"),
        Account::User(user) => match sys::User::lookup(user) {
            Ok(Some(found)) if found.is_current() => Ok(None),
            Ok(Some(found)) if sys::is_privileged() => Ok(Some(found)),
            Ok(None) => refuse(
                "there is no such user",
                "create the user, or correct `account`",
            ),
            Ok(Some(_)) => refuse(
                "only root may start programs as somebody else",
                "run as root, or as that user",
            ),
            Err(error) => refuse(&error.to_string(), "create the user, or correct `account`"),
        },
        // Whoever runs this has few rights already.
        _ if !sys::is_privileged() => Ok(None),
        _ => refuse(
            "only a service manager can give it, and as root it would run with all rights",
            "name a user, `account = \"user:NAME\"`, or run mainstay as one",
        ),
    }
}
