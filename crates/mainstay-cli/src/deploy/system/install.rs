//! Installation: copies manifests, defines services in the manager, and undoes everything if a part
//! fails.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mainstay::{Account, Definition, Manager, Scope};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::spec::{self, Spec};
use mainstay_host::manifest_file::Loaded;
use mainstay_host::{output, preflight};
use mainstay_store::embedded;
use mainstay_store::state_dir::StateDir;
use mainstay_sys as sys;
use mainstay_sys::guarded;
use mainstay_sys::private::{create_private_dir, write_private};

#[cfg(unix)]
use super::PRIVATE_DIRS;
use super::order::{Order, Wanted};
use super::refuse_irregular;
use super::registered::{self, Kept};
use crate::installed::{Installed, Mode, Stored};
use crate::library_failure::of_library;

/// The result of an installation.
pub(crate) struct Done {
    pub(crate) is_new: bool,
    /// Set if the manifest or the manager's definition changed.
    pub(crate) is_changed: bool,
    /// Settings that this system does not support, one text each.
    pub(crate) losses: Vec<String>,
    /// Problems that may prevent the service from running later, one text each.
    pub(crate) warnings: Vec<String>,
}

/// Installs all services of the order, and updates those that are installed. On failure, everything
/// is restored to its previous state.
pub(crate) fn install_all(state: &StateDir, order: &Order<'_>) -> Result<Vec<Done>, Failure> {
    #[cfg(unix)]
    super::reach::check(order)?;
    let places = places(state, order)?;
    for place in &places {
        refuse_irregular(&format!("install {}", place.name), place.files())?;
    }
    let work = registered::begin(order, &places)?;
    let mut copies = Copies::default();
    let done = match copy_and_install(order, &places, &mut copies) {
        Ok(done) => done,
        Err(failure) => {
            copies.take_back();
            // The failure matters more. The next process to open the registry finishes the
            // rollback.
            drop(work.roll_back(failure.message()));
            return Err(failure);
        }
    };
    if let Err(failure) = work.commit(&registered::programs(order)) {
        uninstall_new(&places, done.iter().map(|done| done.is_new))?;
        copies.take_back();
        return Err(failure);
    }
    Ok(done)
}

/// Writes the files and the manager's definition of a stored version. On failure, both are restored
/// to their previous state.
pub(crate) fn put(place: &Installed, kept: &Kept) -> Result<(), Failure> {
    let mut copies = Copies::default();
    let done = copy_and_install(&kept.order(), std::slice::from_ref(place), &mut copies);
    if done.is_err() {
        copies.take_back();
    }
    done.map(drop)
}

/// Uninstalls the new services of an installation that cannot be completed.
fn uninstall_new(places: &[Installed], are_new: impl Iterator<Item = bool>) -> Result<(), Failure> {
    let new = places.iter().zip(are_new).filter(|(_, is_new)| *is_new);
    for (place, _) in new {
        place.service().uninstall().map_err(of_library)?;
    }
    Ok(())
}

/// Describes the actions of [`install_all`] for people. Changes nothing.
pub(crate) fn plan_all(state: &StateDir, order: &Order<'_>) -> Result<String, Failure> {
    let mut plan = String::new();
    let mut definitions = Vec::with_capacity(order.wanted.len());
    for (place, wanted) in places(state, order)?.iter().zip(&order.wanted) {
        let path = place.manifest_path(order.manifest.format);
        plan += &format!("write {}: a copy of the manifest\n", path.display());
        let (definition, _) = place.definition(wanted, &path, &order.manifest.dir)?;
        definitions.push(definition);
    }
    plan += &mainstay::plan_all(&definitions).map_err(of_library)?;
    #[cfg(unix)]
    super::reach::check(order)?;
    Ok(plan)
}

/// Returns the places of the services. Fails if another service or manager occupies one.
fn places(state: &StateDir, order: &Order<'_>) -> Result<Vec<Installed>, Failure> {
    let mut places = Vec::with_capacity(order.wanted.len());
    for Wanted { spec, .. } in &order.wanted {
        let name = spec.name();
        check_account(spec, order)?;
        let is_other = |other: &(Manager, bool)| {
            *other != (order.record.manager, order.record.user) && order.root.is_none()
        };
        let installed = Installed::find(state, name.as_str());
        if let Some(installed) = installed.as_ref().filter(|_| order.root.is_none()) {
            installed.keeps_manager_name(spec, "install")?;
        }
        let installed = installed.map(|it| (it.record.manager, it.record.user));
        let embedded = embedded::is_installed(state, name.as_str());
        let embedded = embedded.then_some((Manager::Mainstay, false));
        if let Some((manager, _)) = installed.or(embedded).filter(is_other) {
            let message = format!("cannot install {name}: it is already installed in {manager}");
            let failure = Failure::new(Code::Failed, message);
            return Err(failure.hint(format!("uninstall it first: mainstay uninstall {name}")));
        }
        let place = Installed {
            root: order.root.clone(),
            ..Installed::at(state, name, order.record).known_as(spec.manager_name())
        };
        if place.is_foreign() {
            let shown = match spec.manager_name() {
                other if other != name.as_str() => format!("named {other}"),
                _ => "of that name".to_owned(),
            };
            let message =
                format!("cannot install {name}: the service manager already has a service {shown}");
            let failure = Failure::new(Code::Failed, message);
            return Err(failure.hint(
                "it was not installed by mainstay: choose another name, or remove it first",
            ));
        }
        places.push(place);
    }
    Ok(places)
}

fn copy_and_install(
    order: &Order<'_>,
    places: &[Installed],
    copies: &mut Copies,
) -> Result<Vec<Done>, Failure> {
    let mut definitions: Vec<Definition> = Vec::with_capacity(places.len());
    let mut losses = Vec::with_capacity(places.len());
    let mut are_changed = Vec::with_capacity(places.len());
    for (place, wanted) in places.iter().zip(&order.wanted) {
        copies.is_changed = false;
        let path = place.copy(order.manifest, &wanted.account, copies)?;
        let (definition, lost) = place.definition(wanted, &path, &order.manifest.dir)?;
        definitions.push(definition);
        losses.push(lost);
        are_changed.push(copies.is_changed);
    }
    let all = match &order.root {
        Some(root) => mainstay::stage_all(&definitions, root),
        None => {
            for caution in mainstay::cautions(&definitions).map_err(of_library)? {
                output::remark(&format_args!("warning: {caution}"));
            }
            mainstay::install_all(&definitions)
        }
    };
    let all = all.map_err(of_library)?;
    for ((place, wanted), losses) in places.iter().zip(&order.wanted).zip(&mut losses) {
        match place.entrust(&wanted.account) {
            Ok(more) => losses.extend(more),
            Err(error) => {
                uninstall_new(places, all.iter().map(|it| it.is_new))?;
                let message = format!(
                    "cannot set the access to {}: {error}",
                    place.place.display()
                );
                return Err(Failure::new(Code::PermissionDenied, message));
            }
        }
    }
    let done = all.into_iter().zip(losses).zip(are_changed);
    let done = done.map(|((installed, more), is_changed)| Done {
        is_new: installed.is_new,
        is_changed: is_changed || installed.is_changed,
        losses: [more, installed.losses].concat(),
        warnings: installed.warnings,
    });
    Ok(done.collect())
}

impl Installed {
    /// Rejects a change of the manager's name for the service, which would make it another service.
    pub(crate) fn keeps_manager_name(&self, spec: &Spec, verb: &str) -> Result<(), Failure> {
        let (name, old, new) = (&self.name, &*self.manager_name, spec.manager_name());
        if old == new {
            return Ok(());
        }
        let manager = self.record.manager;
        let message =
            format!("cannot {verb} {name}: its name in {manager} would change from {old} to {new}");
        let hint = format!("uninstall it first: mainstay uninstall {name}");
        Err(Failure::new(Code::Failed, message).hint(hint))
    }

    /// Writes a copy of the manifest and the record of its manager. Returns the path of the copy.
    fn copy(
        &self,
        manifest: &Loaded,
        account: &Account,
        copies: &mut Copies,
    ) -> Result<PathBuf, Failure> {
        let path = self.manifest_path(manifest.format);
        let cannot = |path: &Path, error: io::Error| {
            let message = format!("cannot write {}: {error}", path.display());
            let code = match error.kind() {
                io::ErrorKind::PermissionDenied => Code::PermissionDenied,
                _ => Code::CannotWrite,
            };
            Failure::new(code, message).because_of(&error)
        };
        let place = self.here(&self.place);
        copies.expect_dir(&place);
        self.create_dirs(account)
            .map_err(|error| cannot(&self.place, error))?;
        let has_other = self.manager_name != self.name.as_str();
        let stored = Stored {
            record: self.record,
            manager_name: has_other.then(|| self.manager_name.clone()),
        };
        let record = serde_json::to_vec(&stored).unwrap_or_default();
        let new = [
            (path.clone(), manifest.text.as_bytes()),
            (self.record_path(), &record),
        ];
        for (path, bytes) in new {
            let here = self.here(&path);
            copies
                .put(&here, bytes)
                .map_err(|error| cannot(&path, error))?;
        }
        self.publish().map_err(|error| cannot(&self.place, error))?;
        // A manifest in another format.
        if let Some(old) = self.manifest().filter(|old| *old != path) {
            copies
                .remove(&self.here(&old))
                .map_err(|error| cannot(&old, error))?;
        }
        Ok(path)
    }

    /// Lets every user list the system's services and their managers. The contents of those
    /// directories stay private. The directory of the registry is not readable, because whoever can
    /// open it could lock it.
    #[cfg(unix)]
    fn publish(&self) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        if self.record.user {
            return Ok(());
        }
        let place = self.here(&self.place);
        let all = place.parent().unwrap_or(&place);
        let state = all.parent().unwrap_or(all);
        let record = self.here(&self.record_path());
        let opened = [
            (state, 0o011),
            (all, 0o055),
            (&place, 0o011),
            (&record, 0o044),
        ];
        opened.into_iter().try_for_each(|(path, more)| {
            let mode = fs::metadata(path)?.permissions().mode();
            match mode | more {
                open if open == mode => Ok(()),
                open => fs::set_permissions(path, fs::Permissions::from_mode(open)),
            }
        })
    }

    /// Does nothing: [`Installed::entrust`] does the same.
    #[cfg(windows)]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Unix")]
    fn publish(&self) -> io::Result<()> {
        Ok(())
    }

    fn create_dirs(&self, account: &Account) -> io::Result<()> {
        self.create_all_dir()?;
        self.create_state_dir(account)
    }

    /// Creates the directory of all services and their registry, and the one above. Administrators
    /// alone have access, and every user may list them.
    #[cfg(windows)]
    pub(super) fn create_all_dir(&self) -> io::Result<()> {
        let Some(all) = self.place.parent() else {
            return Ok(());
        };
        // Whoever created one of them earlier may hold files in it open, or redirect it.
        for dir in all.parent().into_iter().chain([all]) {
            refuse_exposed(dir)?;
            // A new directory in %ProgramData% lets every user create files in it.
            if dir == all || !dir.exists() {
                create_private_dir(dir)?;
                sys::entrust(dir, None, sys::Visibility::Listed)?;
            }
        }
        refuse_exposed(&self.place)
    }

    /// Creates the state directory, which is private to its owner, but not the directories above
    /// it.
    #[cfg(unix)]
    pub(super) fn create_all_dir(&self) -> io::Result<()> {
        let place = self.here(&self.place);
        let state = place.parent().and_then(Path::parent);
        state.map_or(Ok(()), mainstay_store::state_dir::create_state_dir)
    }

    #[cfg(windows)]
    fn create_state_dir(&self, _account: &Account) -> io::Result<()> {
        create_private_dir(self.state.path())
    }

    /// Creates the host's own state directory, or a link to the directory that systemd creates at
    /// the first start. State left by another account is not reused.
    #[cfg(unix)]
    fn create_state_dir(&self, account: &Account) -> io::Result<()> {
        let path = self.here(self.state.path());
        let is_dynamic = self.is_dynamic(account);
        let is_other = match path.symlink_metadata() {
            Ok(there) => there.is_symlink() != is_dynamic,
            Err(_) => false,
        };
        if is_other {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "its state belongs to another account: uninstall it with --purge first",
            ));
        }
        if !is_dynamic {
            return create_private_dir(&path);
        }
        create_private_dir(&self.here(&self.place))?;
        match std::os::unix::fs::symlink(Path::new(PRIVATE_DIRS).join(self.own_dir()), path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }

    /// Grants the account read access to the manifest and write access to its state, in addition to
    /// administrators, and lets every user see the service and its manager.
    #[cfg(windows)]
    fn entrust(&self, account: &Account) -> io::Result<Vec<String>> {
        let service = &*self.manager_name;
        let mut losses = Vec::new();
        let manifest = self.manifest().unwrap_or_else(|| self.place.clone());
        let holder = match account {
            Account::LocalSystem => sys::Account::LocalSystem,
            Account::LocalService => sys::Account::LocalService,
            Account::NetworkService => sys::Account::NetworkService,
            named => sys::Account::Named(named.windows_name(service)),
        };
        use sys::Access::{All, Read};
        use sys::Visibility::{Listed, Private};
        for (place, access, visibility) in [
            (&*self.place, Read, Listed),
            (&manifest, Read, Private),
            (&self.record_path(), Read, Listed),
            (self.state.path(), All, Private),
        ] {
            let is_known = sys::entrust(place, Some((&holder, access)), visibility)?;
            let name = account.windows_name(service);
            let loss = || {
                format!(
                    "access of {name} to {}: the account is unknown",
                    place.display()
                )
            };
            let is_dir = place.is_dir();
            losses.extend((!is_known && is_dir).then(loss));
        }
        Ok(losses)
    }

    /// Does nothing: the location of the files determines the access.
    #[cfg(unix)]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "as on Windows"
    )]
    fn entrust(&self, _account: &Account) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Rejects an existing directory that accounts other than administrators and the system may change.
#[cfg(windows)]
fn refuse_exposed(dir: &Path) -> io::Result<()> {
    match sys::acl_exposure(dir) {
        Ok(Some(exposure)) => Err(io::Error::new(io::ErrorKind::PermissionDenied, exposure)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The previous contents of changed files, restored in reverse order.
#[derive(Default)]
struct Copies {
    before: Vec<Before>,
    /// Set if the content of a file changed.
    is_changed: bool,
}

enum Before {
    File(PathBuf, Vec<u8>, fs::Permissions),
    Nothing(PathBuf),
    NoDir(PathBuf),
}

impl Copies {
    /// Records that the directory may be created from now on.
    fn expect_dir(&mut self, path: &Path) {
        if !path.exists() {
            self.before.push(Before::NoDir(path.to_owned()));
        }
    }

    fn remember(&mut self, path: &Path) -> io::Result<()> {
        self.before
            .push(match guarded::read(path, guarded::MANIFEST) {
                Ok(bytes) => {
                    let permissions = fs::metadata(path)?.permissions();
                    Before::File(path.to_owned(), bytes, permissions)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Before::Nothing(path.to_owned())
                }
                Err(error) => return Err(error),
            });
        Ok(())
    }

    fn put(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.remember(path)?;
        let is_same = matches!(self.before.last(), Some(Before::File(_, old, _)) if old == bytes);
        self.is_changed |= !is_same;
        write_private(path, bytes).map(drop)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.remember(path)?;
        self.is_changed = true;
        fs::remove_file(path)
    }

    /// Restores the previous contents. Errors are ignored, because the original failure matters
    /// more.
    fn take_back(self) {
        for before in self.before.into_iter().rev() {
            drop(match before {
                Before::File(path, bytes, permissions) => {
                    let written = write_private(&path, &bytes);
                    written.and_then(|_| fs::set_permissions(path, permissions))
                }
                Before::Nothing(path) => fs::remove_file(path),
                Before::NoDir(path) => fs::remove_dir_all(path),
            });
        }
    }
}

/// Checks that the account exists and is supported by the manager.
fn check_account(spec: &Spec, order: &Order<'_>) -> Result<(), Failure> {
    let record = order.record;
    let name = spec.name();
    let refuse = |code, why: &str, hint: &str| {
        let shown = spec
            .account()
            .map_or("none".to_owned(), |account| account.to_string());
        let message = format!("cannot install {name}: account {shown}: {why}");
        Err(Failure::new(code, message).hint(hint))
    };
    let hint = "use `account = \"user:NAME\"`";
    match spec.account() {
        _ if cfg!(windows) => Ok(()),
        Some(spec::Account::Gmsa(_)) => {
            let why = "such accounts exist on Windows only";
            refuse(Code::PermissionDenied, why, hint)
        }
        Some(spec::Account::User(_))
            if record.scope() == Scope::User && record.mode == Mode::Direct =>
        {
            let why = "a user service runs as its user";
            refuse(
                Code::PermissionDenied,
                why,
                "remove `account`, or omit --user",
            )
        }
        Some(spec::Account::User(user))
            if order.root.is_none() && matches!(sys::User::lookup(user), Ok(None)) =>
        {
            let why = "no such user";
            refuse(Code::MissingPart, why, preflight::no_such_user(user))
        }
        Some(spec::Account::User(_) | spec::Account::LocalSystem) => Ok(()),
        _ if record.manager == Manager::Systemd || record.scope() == Scope::User => Ok(()),
        _ => {
            let manager = record.manager;
            let why =
                format!("{manager} has no accounts for single services, and it would run as root");
            let hint = format!("{hint}; for root, use `account = \"local-system\"`");
            refuse(Code::InvalidManifest, &why, &hint)
        }
    }
}
