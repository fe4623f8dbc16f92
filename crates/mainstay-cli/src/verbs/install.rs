//! `mainstay install`: installs services of a manifest into a service manager.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mainstay::{Account, Manager, Password, Scope};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::registry::Expected;
use mainstay_core::spec::Spec;
use mainstay_host::manifest_file::{self, Loaded};
use mainstay_host::output;
use mainstay_host::preflight;
use mainstay_host::progress::Progress;
use mainstay_store::state_dir::StateDir;
use serde::Serialize;

use super::{FormatName, number};
use crate::deploy::embedded::{self, Change};
use crate::deploy::system::{self, Order, Wanted};
use crate::installed::{Mode, Record};
use crate::library_failure::of_library;
use crate::progress;

/// Install services from a manifest, to start at boot; update those already installed
///
/// The manifest is copied: later changes to the file take effect at the next install. Running
/// services are not affected: a new definition takes effect at the next start. If one service
/// cannot be installed, none is.
#[derive(Debug, clap::Args)]
pub(crate) struct Install {
    /// Manifest file (.toml, .yaml or .json); `-` reads standard input
    file: PathBuf,
    /// Install only these services, and the services they need [default: all]
    names: Vec<String>,
    /// Manifest format, if the file extension does not show it [default for standard input: toml]
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Read the password of the account (user:NAME) from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
    /// Read the account's password from the first line of FILE
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// Read the account's password from the environment variable VARIABLE
    #[arg(long, value_name = "VARIABLE", conflicts_with_all = ["password_stdin", "password_file"])]
    password_env: Option<String>,
    /// Mode in which the manager runs the program
    #[arg(long, value_enum, default_value_t = Mode::Hosted)]
    mode: Mode,
    /// Service manager to install into: systemd, openrc, sysv, runit, s6, … or embedded (`mainstay
    /// daemon`) [default: the manager that runs this system, or embedded if there is none]
    #[arg(long, value_parser = manager)]
    manager: Option<Manager>,
    /// Install for the current user instead of the machine; needs no root (systemd)
    #[arg(long)]
    user: bool,
    /// Install without the sandbox of the service manager (systemd)
    #[arg(long)]
    no_sandbox: bool,
    /// Install into the system below DIR, an image or a package; run and start nothing
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dry_run", "user"])]
    root: Option<PathBuf>,
    /// Print every file, command and call of the installation, and change nothing; needs no
    /// privileges
    #[arg(long)]
    dry_run: bool,
    /// Install only if version N is installed; 0: only if none is (one service only)
    #[arg(long, value_name = "N", value_parser = number, conflicts_with = "dry_run")]
    if_version: Option<u64>,
    /// Print one JSON document
    #[arg(long, conflicts_with = "dry_run")]
    json: bool,
}

/// The error for a name that no manager has.
#[derive(Debug)]
struct UnknownManager;

impl fmt::Display for UnknownManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Manager::ALL.iter().map(|manager| manager.name()).collect();
        write!(f, "expected one of {}", names.join(", "))
    }
}

impl Error for UnknownManager {}

fn manager(name: &str) -> Result<Manager, UnknownManager> {
    Manager::from_name(name).ok_or(UnknownManager)
}

#[derive(Serialize)]
struct Report {
    services: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: String,
    manager: &'static str,
    is_new: bool,
    #[serde(skip)]
    what: &'static str,
    losses: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl Install {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let mut manifest = manifest_file::load(&self.file, self.format.map(Into::into))?;
        if let Some(root) = &self.root {
            manifest.dir = dir_in_image(&manifest.dir, root)?;
        }
        let specs = manifest.select(&self.names)?;
        if self.if_version.is_some() {
            super::must_be_one("install", "--if-version", specs.len())?;
        }
        let record = self.record()?;
        if record.manager == Manager::Mainstay {
            return self.install_embedded(state, &manifest, &specs);
        }
        if self.root.is_none() {
            // Checked before the services: they may be valid on another system.
            let any = mainstay::service("any").manager(record.manager);
            mainstay::check_manager(&any.scope(record.scope())).map_err(of_library)?;
        }
        let password = self.password()?;
        let wanted = specs.iter().map(|spec| {
            let account = if self.dry_run {
                system::account(spec.account(), record.mode)
            } else {
                account(spec, record.mode, password.as_ref())?
            };
            let has_sandbox = !self.no_sandbox;
            Ok(Wanted {
                spec,
                account,
                has_sandbox,
            })
        });
        let order = Order {
            manifest: &manifest,
            wanted: wanted.collect::<Result<_, Failure>>()?,
            record,
            expected: self.expected(),
            root: self.root.clone(),
        };
        if self.dry_run {
            output::text(&system::plan_all(state, &order)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        if order.root.is_none() {
            let any = mainstay::service("any").manager(record.manager);
            mainstay::may_install(&any.scope(record.scope())).map_err(of_library)?;
        }
        let progress = self.progress(state, &specs);
        let done = system::install_all(state, &order)?;
        drop(progress);
        let services: Vec<Line> = specs
            .iter()
            .zip(done)
            .map(|(spec, done)| Line {
                name: spec.name().to_string(),
                manager: order.record.manager.name(),
                is_new: done.is_new,
                what: match (done.is_new, done.is_changed) {
                    (true, _) => "installed",
                    (false, true) => "updated",
                    (false, false) => "up to date",
                },
                losses: done.losses,
                warnings: match &self.root {
                    Some(_) => done.warnings,
                    None => {
                        let warnings = preflight::warnings(spec, &manifest.dir);
                        done.warnings.into_iter().chain(warnings).collect()
                    }
                },
            })
            .collect();
        self.show(services)
    }

    /// Installs into the embedded manager, `mainstay daemon`, whether or not it is running.
    fn install_embedded(
        &self,
        state: &StateDir,
        manifest: &Loaded,
        specs: &[Spec],
    ) -> Result<ExitCode, Failure> {
        let refused = [
            (self.mode == Mode::Direct, "--mode direct"),
            (self.root.is_some(), "--root"),
        ];
        if let Some((_, option)) = refused.into_iter().find(|(is_given, _)| *is_given) {
            let (code, message) = match (self.manager, &self.root) {
                (Some(_), _) => (
                    Code::Usage,
                    format!("the embedded manager does not support {option}"),
                ),
                (None, Some(root)) => (
                    Code::MissingPart,
                    format!("no service manager was found in {}", root.display()),
                ),
                (None, None) => (
                    Code::MissingPart,
                    format!(
                        "no service manager was found on this system, and the embedded one does not support {option}"
                    ),
                ),
            };
            let hint = match (self.manager, &self.root) {
                (None, Some(_)) => {
                    "choose the service manager of the image: --manager systemd".to_owned()
                }
                _ => format!("omit {option}; `mainstay daemon` runs the installed services"),
            };
            return Err(Failure::new(code, format!("cannot install: {message}")).hint(hint));
        }
        if self.dry_run {
            output::text(&embedded::plan_all(state, manifest, specs)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let progress = self.progress(state, specs);
        let done = embedded::install_all(state, manifest, specs, self.expected())?;
        drop(progress);
        let lines = specs.iter().zip(done).map(|(spec, done)| Line {
            name: done.name.to_string(),
            manager: Manager::Mainstay.name(),
            is_new: done.change == Change::New,
            what: match done.change {
                Change::New => "installed",
                Change::Updated => "updated",
                Change::None => "up to date",
            },
            losses: done.losses,
            warnings: preflight::warnings(spec, &manifest.dir),
        });
        self.show(lines.collect())
    }

    fn progress(&self, state: &StateDir, specs: &[Spec]) -> Option<Progress> {
        let names: Vec<_> = specs.iter().map(|spec| spec.name().to_string()).collect();
        (!self.json)
            .then(|| progress::of_services(state, "installing", &names))
            .flatten()
    }

    /// Returns the version that must be installed before the change.
    fn expected(&self) -> Expected {
        self.if_version.map_or(Expected::Any, Expected::from)
    }

    fn show(&self, services: Vec<Line>) -> Result<ExitCode, Failure> {
        if self.json {
            output::document(&Report { services })?;
            return Ok(ExitCode::SUCCESS);
        }
        for line in services {
            for loss in line.losses {
                output::remark(&format!(
                    "{}: not supported by the service manager: {loss}",
                    line.name
                ));
            }
            for warning in line.warnings {
                output::remark(&format!("warning: {}: {warning}", line.name));
            }
            let into = if line.is_new {
                format!(" ({})", line.manager)
            } else {
                String::new()
            };
            output::confirm(&format!("{}: {}{into}\n", line.name, line.what))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the record of the installation: the manager, mode and scope.
    fn record(&self) -> Result<Record, Failure> {
        let found = match &self.root {
            Some(root) => Manager::detect_below(root),
            None => Manager::detect(),
        };
        // A container usually has no service manager, and `mainstay daemon` is one.
        let manager = self.manager.or(found).unwrap_or(Manager::Mainstay);
        if cfg!(windows) && self.mode == Mode::Direct {
            let message = "cannot install in direct mode: Windows runs only programs that are written as services";
            let failure = Failure::new(Code::Usage, message);
            return Err(failure.hint("omit --mode direct"));
        }
        let scope = if self.user {
            Scope::User
        } else {
            Scope::System
        };
        Ok(Record::new(manager, self.mode, scope))
    }

    fn password(&self) -> Result<Option<Password>, Failure> {
        let unread = |from: &str, error| {
            Failure::new(
                Code::Failed,
                format!("cannot read a password from {from}: {error}"),
            )
        };
        if self.password_stdin {
            let read = Password::from_stdin().map_err(|error| unread("standard input", error));
            return read.map(Some);
        }
        if let Some(path) = &self.password_file {
            let from = path.display().to_string();
            return Password::from_file(path)
                .map(Some)
                .map_err(|error| unread(&from, error));
        }
        let Some(name) = &self.password_env else {
            return Ok(None);
        };
        let missing = || {
            Failure::new(
                Code::Usage,
                format!("the environment variable {name} is not set"),
            )
        };
        Password::from_env(name).ok_or_else(missing).map(Some)
    }
}

/// Returns the manifest's directory as a path inside the system below `root`; `/` if it is outside
/// `root`.
fn dir_in_image(dir: &Path, root: &Path) -> Result<PathBuf, Failure> {
    let canonical = |path: &Path| {
        let failed = |error| format!("cannot find {}: {error}", path.display());
        let found = path.canonicalize().map_err(failed);
        found.map_err(|message| Failure::new(Code::Failed, message))
    };
    let (dir, root) = (canonical(dir)?, canonical(root)?);
    Ok(Path::new("/").join(dir.strip_prefix(&root).unwrap_or(Path::new(""))))
}

/// Returns the account of the service, with the password if the account is a user.
fn account(spec: &Spec, mode: Mode, password: Option<&Password>) -> Result<Account, Failure> {
    match system::account(spec.account(), mode) {
        #[cfg(windows)]
        Account::User(user, None) if password.is_none() => {
            let asked = Password::ask(&format!("Password of {user}: "));
            let failed = |error| {
                let message = format!("cannot read the password of {user}: {error}");
                let failure = Failure::new(Code::Failed, message);
                failure.hint("use --password-stdin, --password-file or --password-env")
            };
            Ok(Account::User(user.clone(), Some(asked.map_err(failed)?)))
        }
        Account::User(user, None) => Ok(Account::User(user, password.cloned())),
        account => Ok(account),
    }
}
