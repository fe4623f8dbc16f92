//! `mainstay install`: services of a manifest become services of this system.

use std::path::PathBuf;
use std::process::ExitCode;

use mainstay::{Account, Password};
use mainstay_core::spec::Spec;
use serde::Serialize;

use crate::failure::{Code, Failure};
use crate::installed::{self, Wanted};
use crate::manifest_file::{self, FormatName};
use crate::output;
use crate::state_dir::StateDir;

/// Makes services of a manifest services of this system, which start with it; those that are installed become what the manifest says now.
///
/// The manifest is copied: later changes of the file are for the next install. A running service is not touched: what is new holds from its
/// next start on. Where one cannot be installed, none is.
#[derive(Debug, clap::Args)]
pub(crate) struct Install {
    /// The manifest: .toml, .yaml or .json; `-` is standard input.
    file: PathBuf,
    /// Only these services, and what they need.
    names: Vec<String>,
    /// Its language, where the file's name does not tell (standard input: toml).
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// The password of the account user:NAME is the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
    /// It is the first line of this file.
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// It is in this variable of the environment.
    #[arg(long, value_name = "VARIABLE", conflicts_with_all = ["password_stdin", "password_file"])]
    password_env: Option<String>,
    /// Says what would be done, each file and each command or call, and does nothing; needs no rights.
    #[arg(long)]
    dry_run: bool,
    /// One JSON document.
    #[arg(long, conflicts_with = "dry_run")]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    services: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: String,
    is_new: bool,
    losses: Vec<String>,
}

impl Install {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let manifest = manifest_file::load(&self.file, self.format)?;
        let specs = manifest.select(&self.names)?;
        if self.dry_run {
            let wanted = specs.iter().map(|spec| Wanted {
                spec,
                account: installed::account(spec.account()),
            });
            let plan = installed::plan_all(state, &manifest, &wanted.collect::<Vec<_>>())?;
            output::text(&plan)?;
            return Ok(ExitCode::SUCCESS);
        }
        mainstay::may_install(&mainstay::service("any"))?;
        let password = self.password()?;
        let wanted = specs
            .iter()
            .map(|spec| {
                let account = account(spec, password.as_ref())?;
                Ok(Wanted { spec, account })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let done = installed::install_all(state, &manifest, &wanted)?;
        let services: Vec<Line> = specs
            .iter()
            .zip(done)
            .map(|(spec, done)| Line {
                name: spec.name().to_string(),
                is_new: done.is_new,
                losses: done.losses,
            })
            .collect();
        if self.json {
            output::document(&Report { services })?;
            return Ok(ExitCode::SUCCESS);
        }
        for line in services {
            for loss in line.losses {
                output::complain(&format!("{}: this system does not keep {loss}", line.name));
            }
            let what = if line.is_new {
                "installed"
            } else {
                "up to date"
            };
            output::text(&format!("{}: {what}\n", line.name))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn password(&self) -> Result<Option<Password>, Failure> {
        let unread = |from: &str, error| {
            Failure::new(
                Code::Failed,
                format!("read a password from {from}: {error}"),
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
        let missing = || Failure::new(Code::Usage, format!("there is no variable {name}"));
        Password::from_env(name).ok_or_else(missing).map(Some)
    }
}

/// Whom it runs as, with the password that only a user has.
fn account(spec: &Spec, password: Option<&Password>) -> Result<Account, Failure> {
    match installed::account(spec.account()) {
        #[cfg(windows)]
        Account::User(user, None) if password.is_none() => {
            let asked = Password::ask(&format!("Password of {user}: "));
            let failed = |error| {
                let message = format!("ask for the password of {user}: {error}");
                let failure = Failure::new(Code::Failed, message);
                failure.hint("use --password-stdin, --password-file or --password-env")
            };
            Ok(Account::User(user.clone(), Some(asked.map_err(failed)?)))
        }
        Account::User(user, None) => Ok(Account::User(user, password.cloned())),
        account => Ok(account),
    }
}
