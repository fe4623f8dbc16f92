//! Checks before anything is started, so that predictable failures are reported early: missing
//! programs, ports in use, accounts that cannot be used.

mod port;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use mainstay_core::failure::{Code, Failure};
use mainstay_core::spec::{Account, Argv, Encoding, Need, OnAlert, Spec};
use mainstay_store::state_dir::StateDir;
use mainstay_sys as sys;
use mainstay_sys::{aside, guarded};

use crate::launch;
use crate::runs;
use crate::webhook;

pub(crate) use self::port::taken;

/// Checks that a service can be started on this host, and returns the first problem. The manifest
/// was validated before.
pub(crate) fn check(
    spec: &Spec,
    manifest_dir: &Path,
    user: Option<&sys::User>,
    ours: &launch::Environment,
) -> Result<(), Failure> {
    check_files(spec, manifest_dir, user, ours)?;
    match taken(spec) {
        Some(taken) => {
            let message = format!("cannot start {}: {taken}", spec.name());
            let hint = "stop the process that listens there, or use another port";
            Err(Failure::new(Code::Busy, message).hint(hint))
        }
        None => Ok(()),
    }
}

/// Performs the checks that an earlier run of the service does not affect.
pub fn check_files(
    spec: &Spec,
    manifest_dir: &Path,
    user: Option<&sys::User>,
    ours: &launch::Environment,
) -> Result<(), Failure> {
    let name = spec.name();
    let look = {
        let (spec, dir) = (spec.clone(), manifest_dir.to_owned());
        let (user, ours) = (user.cloned(), ours.clone());
        move || look_at_files(&spec, &dir, user.as_ref(), &ours)
    };
    aside::wait(format!("files of {name}"), look).unwrap_or_else(|error| {
        let message = format!("cannot start {name}: its files could not be checked: {error}");
        let hint = "check that the file systems of its paths respond, then try again";
        Err(Failure::new(Code::Busy, message).hint(hint))
    })
}

fn look_at_files(
    spec: &Spec,
    manifest_dir: &Path,
    user: Option<&sys::User>,
    ours: &launch::Environment,
) -> Result<(), Failure> {
    let name = spec.name();
    let cannot = |code, why: String| Failure::new(code, format!("cannot start {name}: {why}"));
    let search = ours.get(std::ffi::OsStr::new("PATH"));
    runs::refuse_exposed(spec, user, manifest_dir, search.map(|path| &**path))?;
    let refuse = |problem: Problem| cannot(problem.code, problem.why).hint(problem.hint);
    check_env_file(spec, manifest_dir).map_err(refuse)?;
    let environment = launch::environment(spec, manifest_dir, user, ours)
        .map_err(|failure| cannot(Code::MissingPart, failure.to_string()))?;
    if let Some(why) = sys::refused_limit(spec.limits()) {
        return Err(cannot(Code::PermissionDenied, why)
            .hint("lower the limit, or start the supervisor with a higher hard limit"));
    }
    if let Some(setting) = refused_setting(spec, user) {
        let (code, why, hint) = explain(spec, &setting);
        return Err(cannot(code, why).hint(hint));
    }
    let working_dir = launch::working_dir(spec, manifest_dir);
    if !working_dir.is_dir() {
        let why = format!("working_dir {} is not a directory", working_dir.display());
        return Err(cannot(Code::MissingPart, why).hint("create it, or correct `working_dir`"));
    }
    check_program("command", spec.command(), manifest_dir, &environment).map_err(refuse)
}

/// Checks that the service's account can reach its directories in the state directory.
pub(crate) fn check_state(
    spec: &Spec,
    state: &StateDir,
    user: Option<&sys::User>,
) -> Result<(), Failure> {
    let name = spec.name();
    let reached = state.refuse_closed(name.as_str(), user);
    reached.map_err(|closed| {
        Failure::new(
            Code::PermissionDenied,
            format!("cannot start {name}: {closed}"),
        )
        .hint(closed.hint())
    })
}

fn refused_setting(spec: &Spec, user: Option<&sys::User>) -> Option<sys::RefusedSetting> {
    // A service that does not change its user keeps its capabilities.
    let capabilities = match (user, spec.sandbox()) {
        (Some(_), Some(sandbox)) => &sandbox.capabilities[..],
        _ => &[],
    };
    sys::refused_settings(spec.cpus(), spec.priority(), capabilities)
}

fn explain(spec: &Spec, setting: &sys::RefusedSetting) -> (Code, String, &'static str) {
    match setting {
        sys::RefusedSetting::Processors => (
            Code::MissingPart,
            format!(
                "cpus = {:?}: none of these processors can be used",
                spec.cpus()
            ),
            "choose processors of this machine that the supervisor may use, or remove `cpus`",
        ),
        sys::RefusedSetting::Priority => (
            Code::PermissionDenied,
            "the supervisor is not permitted to raise its priority".to_owned(),
            "run as root, or choose \"normal\" or a lower `priority`",
        ),
        sys::RefusedSetting::Capability(name) => (
            Code::PermissionDenied,
            format!("the supervisor does not have {name}, or cannot pass it on"),
            "start the supervisor with it, or remove it from `sandbox.capabilities`",
        ),
    }
}

/// A problem that prevents a service from being started, and a hint.
struct Problem {
    code: Code,
    why: String,
    hint: String,
}

fn check_env_file(spec: &Spec, manifest_dir: &Path) -> Result<(), Problem> {
    let Some(path) = spec.env_file() else {
        return Ok(());
    };
    let path = manifest_dir.join(path);
    match guarded::read(&path, guarded::ENV_FILE) {
        Ok(_) => Ok(()),
        Err(error) => {
            let (code, hint) = match error.kind() {
                ErrorKind::PermissionDenied => (
                    Code::PermissionDenied,
                    "make it readable for the user who runs mainstay",
                ),
                _ => (Code::MissingPart, "create it, or correct `env_file`"),
            };
            let why = guarded::explain(&error);
            let why = format!("read env_file {}: {why}", path.display());
            let hint = hint.to_owned();
            Err(Problem { code, why, hint })
        }
    }
}

fn check_program(
    key: &str,
    argv: &Argv,
    manifest_dir: &Path,
    environment: &launch::Environment,
) -> Result<(), Problem> {
    let program = argv.program();
    let search = environment.get(std::ffi::OsStr::new("PATH"));
    let found = launch::find_program(program, manifest_dir, search.map(|path| &**path));
    let obstacle = match found {
        Ok(path) => launch::obstacle(&path),
        Err(error) => Some((error, None)),
    };
    let Some((error, hint)) = obstacle else {
        return Ok(());
    };
    Err(Problem {
        code: Code::MissingPart,
        why: format!("program {program}: {error}"),
        hint: hint.unwrap_or_else(|| {
            let dir = manifest_dir.display();
            format!("install it, or correct `{key}`; relative paths are relative to {dir}")
        }),
    })
}

/// Returns messages about commands of a service, other than its main program, that cannot be
/// executed at present.
fn unusable_helpers(
    spec: &Spec,
    manifest_dir: &Path,
    environment: &launch::Environment,
) -> Vec<String> {
    let commands = spec.commands().filter(|(key, _)| *key != "command");
    let unusable = commands.filter_map(|(key, argv)| {
        let Problem { why, hint, .. } =
            check_program(key, argv, manifest_dir, environment).err()?;
        Some(format!("{key}: {why} ({hint})"))
    });
    unusable.collect()
}

/// Returns the problem that would prevent the delivery of alerts to a service's webhook, so that it
/// is reported at the start and not at the first alert.
fn webhook_problem(spec: &Spec, dir: &Path) -> Option<String> {
    let webhook = spec.on_alert().and_then(OnAlert::webhook)?;
    let why = webhook::keys(webhook.secret_file(), dir).err()?;
    Some(format!("on_alert: {why}"))
}

/// Returns all remarks on a service that a supervisor reports when it begins to supervise it.
pub(crate) fn remarks(
    spec: &Arc<Spec>,
    manifest_dir: &Path,
    environment: &launch::Environment,
) -> Vec<String> {
    let look = {
        let (spec, dir) = (Arc::clone(spec), manifest_dir.to_owned());
        let environment = environment.clone();
        move || {
            let mut remarks = launch::env_file_remarks(&spec, &dir);
            remarks.extend(unusable_helpers(&spec, &dir, &environment));
            remarks.extend(webhook_problem(&spec, &dir));
            remarks
        }
    };
    let found = aside::wait(format!("commands of {}", spec.name()), look);
    let found =
        found.unwrap_or_else(|error| vec![format!("its commands could not be checked: {error}")]);
    losses(spec).into_iter().chain(found).collect()
}

/// Returns warnings for the installer of a service: problems that would prevent its start, or that
/// of its commands, at present. The missing parts may still be added.
pub fn warnings(spec: &Spec, manifest_dir: &Path) -> Vec<String> {
    let ours = launch::inherited();
    let environment = launch::environment(spec, manifest_dir, None, &ours).unwrap_or(ours);
    let checked = check_env_file(spec, manifest_dir)
        .and_then(|()| check_program("command", spec.command(), manifest_dir, &environment));
    let unusable = checked
        .err()
        .map(|Problem { why, hint, .. }| format!("it cannot be started yet: {why} ({hint})"));
    let helpers = unusable_helpers(spec, manifest_dir, &environment);
    unusable.into_iter().chain(helpers).collect()
}

/// Returns the settings of the manifest that this supervisor does not support. They are reported at
/// the start and never ignored silently.
pub fn losses(spec: &Spec) -> Vec<String> {
    let mut losses = Vec::new();
    let mut lose = |what: String| losses.push(what);
    for need in spec.needs() {
        if let Need::Os(name) = need {
            lose(format!(
                "`needs` os:{name} is ignored: only a service manager can apply it"
            ));
        }
    }
    if let Some(account) = spec.account()
        && !sys::is_privileged()
        && !matches!(account, Account::User(_))
    {
        lose(format!(
            "`account` {account} is ignored: it requires a service manager; the service runs as the current user"
        ));
    }
    let capabilities = spec.sandbox().map_or(&[][..], |it| &it.capabilities);
    if !sys::is_privileged() {
        for name in sys::lacking_capabilities(capabilities) {
            lose(format!(
                "`sandbox.capabilities`: {name} is ignored, because the supervisor does not have it"
            ));
        }
    }
    if spec.log().encoding() == Encoding::Oem && sys::oem_code_page().is_none() {
        lose(
            "`log.encoding` has no effect: the OEM code page of this system is not a single-byte \
             code page"
                .to_owned(),
        );
    }
    if spec.http().is_some() {
        lose("`http` is not supported by this version".to_owned());
    }
    losses
}

/// Returns a hint for a user that does not exist.
pub fn no_such_user(name: &str) -> &'static str {
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        "use the name of the user, not the number: `id -nu NUMBER` shows the name"
    } else {
        "create the user, or correct `account`"
    }
}

/// Returns the user that the service runs as under a supervisor that is not a service manager.
/// `None` is the current user.
pub fn user_of(spec: &Spec) -> Result<Option<sys::User>, Failure> {
    let Some(account) = spec.account() else {
        return Ok(None);
    };
    let name = spec.name();
    let fail = |code, why: &str, hint: &str| {
        let message = format!("start {name}: account {account}: {why}");
        Err(Failure::new(code, message).hint(hint))
    };
    let refuse = |why: &str, hint: &str| fail(Code::PermissionDenied, why, hint);
    match account {
        Account::LocalSystem if sys::is_privileged() => Ok(None),
        Account::LocalSystem => refuse(
            "the supervisor is not privileged",
            "run as root, or remove `account`",
        ),
        Account::User(user) => match sys::User::lookup(user) {
            Ok(Some(found)) if found.is_current() => Ok(None),
            Ok(Some(found)) if sys::is_privileged() => Ok(Some(found)),
            Ok(None) => fail(Code::MissingPart, "no such user", no_such_user(user)),
            Ok(Some(_)) => refuse(
                "only root may start programs as another user",
                "run as root, or as that user",
            ),
            Err(error) => refuse(&error.to_string(), "create the user, or correct `account`"),
        },
        // The current user has few rights already.
        _ if !sys::is_privileged() => Ok(None),
        _ => refuse(
            "only a service manager can provide this account; without it, the service would run as root",
            "use `account = \"user:NAME\"`, or run mainstay as an unprivileged user",
        ),
    }
}
