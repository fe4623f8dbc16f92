//! The check that the account of a service can access the paths in its manifest from within its
//! sandbox. Problems that would prevent a start are reported at installation.

use std::fs;
use std::path::{Path, PathBuf};

use mainstay::{Account, Manager, Scope};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::spec;
use mainstay_host::launch;
use mainstay_sys as sys;
use mainstay_sys::rights;

use super::order::{Order, Wanted};
use crate::installed::{Mode, Record};

/// Directories that `PrivateTmp=` replaces.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
/// Directories that `ProtectHome=yes` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// The required access to the last component of a path. The directories above it must be
/// searchable.
#[derive(Clone, Copy)]
enum Access {
    Read,
    /// Execute permission, or search permission for a directory.
    Execute,
}

/// Rejects an installation whose service could not start. Files that do not exist yet are not
/// checked, and neither are images.
pub(super) fn check(order: &Order<'_>) -> Result<(), Failure> {
    if order.root.is_some() || order.record.scope() == Scope::User {
        return Ok(());
    }
    let mut all = order.wanted.iter();
    all.try_for_each(|wanted| check_one(wanted, order))
}

fn check_one(wanted: &Wanted<'_>, order: &Order<'_>) -> Result<(), Failure> {
    let (spec, dir) = (wanted.spec, &*order.manifest.dir);
    let Some(who) = Who::of(wanted, order.record)? else {
        return Ok(());
    };
    let sandbox = Sandbox::of(wanted, order.record);
    let search = std::env::var_os("PATH");
    let program = launch::find_program(spec.command().program(), dir, search.as_deref()).ok();
    let working_dir = Some(launch::working_dir(spec, dir));
    // For other accounts, systemd or a host that runs as root reads the file.
    let is_read = order.record.mode == Mode::Hosted && matches!(who, Who::Stranger);
    let env_file = spec
        .env_file()
        .map(|path| dir.join(path))
        .filter(|_| is_read);
    for (what, path, access) in [
        ("its working directory", working_dir, Access::Execute),
        ("its program", program, Access::Execute),
        ("its env_file", env_file, Access::Read),
    ] {
        // A missing file is a different error, or is created later.
        let Some(path) = path.and_then(|path| fs::canonicalize(path).ok()) else {
            continue;
        };
        let why = match (sandbox.hides(&path), who.obstacle(&path, access)) {
            (Some(why), _) => why,
            (None, Some((place, mode))) => {
                format!(
                    "{} has mode {mode:04o}, which denies access to {who}",
                    place.display()
                )
            }
            (None, None) => continue,
        };
        let verb = match access {
            Access::Read => "read",
            Access::Execute => "use",
        };
        let name = spec.name();
        let message = format!(
            "cannot install {name}: it cannot {verb} {what} {}: {why}",
            path.display()
        );
        return Err(Failure::new(Code::PermissionDenied, message).hint(hint(&sandbox, &path)));
    }
    Ok(())
}

fn hint(sandbox: &Sandbox, path: &Path) -> String {
    let place = "move it to a directory that every user can search, such as /srv or /opt";
    match sandbox.hides(path) {
        Some(_) if sandbox.can_be_left => format!("{place}, or install with --no-sandbox"),
        Some(_) => place.to_owned(),
        None => format!("{place}, or use an account that has access: account = \"user:NAME\""),
    }
}

/// The account whose rights are checked.
enum Who {
    /// An account of the service's own, with the rights of everybody.
    Stranger,
    User(String, sys::User),
}

impl Who {
    /// Returns `None` for root, which has all rights, and for an unknown user, which is reported
    /// elsewhere.
    fn of(wanted: &Wanted<'_>, record: Record) -> Result<Option<Self>, Failure> {
        let user = match (&wanted.account, wanted.spec.account()) {
            (_, Some(spec::Account::User(user))) => user,
            (Account::Virtual, _) if record.manager == Manager::Systemd => {
                return Ok(Some(Self::Stranger));
            }
            _ => return Ok(None),
        };
        let found = sys::User::lookup(user).map_err(|error| {
            let message = format!("cannot look up the user {user}: {error}");
            Failure::new(Code::Failed, message)
        })?;
        let found = found.filter(|found| found.uid() != 0);
        Ok(found.map(|found| Self::User(user.clone(), found)))
    }

    /// Returns the first component of an absolute path that denies access, and its mode.
    fn obstacle(&self, path: &Path, access: Access) -> Option<(PathBuf, u32)> {
        let account = match self {
            Self::Stranger => None,
            Self::User(_, user) => Some(user),
        };
        let right = match access {
            Access::Read => rights::READ,
            Access::Execute => rights::EXECUTE,
        };
        rights::obstacle(account, path, right)
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stranger => f.write_str("a dedicated account"),
            Self::User(name, _) => write!(f, "user {name}"),
        }
    }
}

/// The directories that systemd hides or replaces.
struct Sandbox {
    hides_temporary: bool,
    hides_homes: bool,
    /// Set if `--no-sandbox` removes the restriction.
    can_be_left: bool,
}

impl Sandbox {
    fn of(wanted: &Wanted<'_>, record: Record) -> Self {
        let spec = wanted.spec;
        // The host of a user's program runs as root. It is confined if the manifest has a sandbox.
        let is_confined = wanted.account != Account::LocalSystem
            || matches!(spec.account(), Some(spec::Account::User(_))) && spec.sandbox().is_some();
        let is_sandboxed = record.manager == Manager::Systemd && wanted.has_sandbox && is_confined;
        let program = Path::new(spec.command().program());
        let is_at_home = HOMES.iter().any(|home| program.starts_with(home));
        Self {
            // systemd gives every dynamic account its own temporary directories.
            hides_temporary: is_sandboxed || wanted.account == Account::Virtual,
            // They remain readable for a host, and for a program that is located there.
            hides_homes: is_sandboxed && record.mode == Mode::Direct && !is_at_home,
            can_be_left: wanted.account != Account::Virtual,
        }
    }

    /// Returns the reason why a path is hidden, if it is.
    fn hides(&self, path: &Path) -> Option<String> {
        let below = |dirs: &[&str]| dirs.iter().any(|dir| path.starts_with(dir));
        if self.hides_temporary && below(&TEMPORARY) {
            return Some("its sandbox has private temporary directories (PrivateTmp)".to_owned());
        }
        let is_hidden = self.hides_homes && below(&HOMES);
        is_hidden.then(|| "its sandbox hides home directories (ProtectHome)".to_owned())
    }
}
