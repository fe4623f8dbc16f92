//! `mainstay host`: the process that a service manager runs in place of a program that was not
//! written for it.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mainstay::{Context, Exit};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::spec::Spec;
use mainstay_host::launch;
use mainstay_host::manifest_file::Source;
use mainstay_host::{self as host, Options, Output, Services, Started};
use mainstay_store::ledger::ManifestCopy;
use mainstay_store::start_failure::StartFailure;
use mainstay_store::state_dir::StateDir;

use super::FormatName;
use crate::installed::Installed;
use crate::margins::of_host;

/// Run one service of a manifest for the service manager that started this process
///
/// The host reports readiness to the manager and passes on its stop, pause, continue and reload
/// requests. Events go to the system log. Exits with the service's own exit code if that is why it
/// ends, so that the recovery settings of the manager apply to it.
#[derive(Debug, clap::Args)]
pub(crate) struct Host {
    /// Name of the service
    name: String,
    /// Manifest file (.toml, .yaml or .json); `credential:NAME` reads a systemd credential
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Manifest format, if the file extension does not show it
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Base directory of relative paths in the manifest [default: the directory of the file]
    #[arg(long, value_name = "DIR")]
    base_dir: Option<PathBuf>,
    /// Run as started by the Windows Service Control Manager
    #[arg(long)]
    under_scm: bool,
    /// Only wait for the services that this one needs, and fail if they do not run: for a host that
    /// may not query the manager
    #[arg(long, hide = true)]
    check_needs: bool,
}

/// The part of a manifest that a host needs.
struct Job {
    spec: Spec,
    manifest: String,
    copy: ManifestCopy,
}

impl Host {
    pub(crate) fn run(self, state: StateDir) -> Result<ExitCode, Failure> {
        if self.check_needs {
            // Entering the system mounts needs a privilege. Services of a user work without it.
            let _ = mainstay_sys::enter_system_mounts();
        }
        let job = self.job();
        if self.check_needs {
            let Job { spec, .. } = job?;
            let installed = Installed::named(&state, std::slice::from_ref(&self.name))?;
            let check = move |context: Context| {
                let mut all = installed.iter();
                let done = all.try_for_each(|it| it.check_needs(&spec, &context));
                done.map_err(|failure| exit(&failure))
            };
            return Ok(mainstay::service(self.name).run(check));
        }
        if let Err(failure) = &job {
            StartFailure::store(&state, failure);
        }
        // Events are registered under the name in the manager.
        let manager_name = match &job {
            Ok(job) => job.spec.manager_name().to_owned(),
            Err(_) => Installed::of_host(&state, &self.name)
                .map_or(self.name, |it| it.manager_name().to_owned()),
        };
        let service = mainstay::service(manager_name);
        let service = match &job {
            Ok(job) => of_host(service, &job.spec),
            Err(_) if self.under_scm => service,
            Err(_) => return job.map(|_| ExitCode::FAILURE),
        };
        let service = if self.under_scm {
            service.log_dir(state.path().join("host"))
        } else {
            service
        };
        // The Service Control Manager sees the failure of a process only if that process has
        // connected to it.
        Ok(service.run(move |context: Context| host(job, state, context)))
    }

    fn job(&self) -> Result<Job, Failure> {
        let path = launch::credential(&self.manifest).unwrap_or_else(|| self.manifest.clone());
        refuse_exposed(&path)?;
        let manifest = Source::read_installed(&path, self.format.map(Into::into))?
            .based_on(self.base_dir.clone())
            .load()?;
        let copy = ManifestCopy::from(&manifest);
        let mut specs = manifest.specs.into_iter();
        let spec = specs.find(|spec| spec.name().as_str() == self.name);
        let spec = spec.ok_or_else(|| {
            let message = format!("the manifest has no service {}", self.name);
            Failure::new(Code::Unknown, message)
        })?;
        Ok(Job {
            spec,
            manifest: self.manifest.display().to_string(),
            copy,
        })
    }
}

/// Refuses a manifest that others can change: they would gain the rights of the service. On Unix,
/// the check happens when the file is opened.
#[cfg(windows)]
fn refuse_exposed(manifest: &Path) -> Result<(), Failure> {
    match mainstay_sys::acl_exposure(manifest) {
        Ok(Some(exposure)) => {
            let message = format!("cannot read {}: {exposure}", manifest.display());
            let failure = Failure::new(Code::PermissionDenied, message);
            Err(failure.hint("install the service again"))
        }
        // A file whose ACL cannot be read fails to open next, with an error.
        _ => Ok(()),
    }
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "as on Windows")]
fn refuse_exposed(_manifest: &Path) -> Result<(), Failure> {
    Ok(())
}

fn host(job: Result<Job, Failure>, state: StateDir, context: Context) -> Result<(), Exit> {
    let done = job.and_then(
        |Job {
             spec,
             manifest,
             copy,
         }| {
            let start_timeout = spec.start().timeout();
            let installed = Installed::of_host(&state, spec.name().as_str());
            let done = installed.map_or(Ok(true), |it| it.wait_for_needs(&spec, &context));
            if let Ok(false) = done {
                return Ok(0);
            }
            let run = || {
                host::run(Options {
                    // The services that it needs are running. On Windows the manager sets the
                    // account; on Unix the host runs as root and sets it.
                    services: Services::OfManifest {
                        specs: vec![spec.under_manager(cfg!(windows))],
                        manifest,
                        copy,
                        left_out: Vec::new(),
                    },
                    state: state.clone(),
                    output: Output::System(context.logger().clone()),
                    follow: None,
                    manager: Some(Started {
                        context,
                        start_timeout,
                    }),
                    viewers: None,
                })
            };
            let done = done.and_then(|_| run());
            done.inspect_err(|failure| StartFailure::store(&state, failure))
        },
    );
    match done {
        Ok(code) => NonZeroU32::new(code).map_or(Ok(()), |code| Err(Exit::code(code))),
        Err(failure) => Err(exit(&failure)),
    }
}

fn exit(failure: &Failure) -> Exit {
    let code = NonZeroU32::new(failure.code() as u32).unwrap_or(NonZeroU32::MIN);
    Exit::new(code, failure.to_string())
}
