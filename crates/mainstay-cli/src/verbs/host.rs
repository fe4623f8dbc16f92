//! `mainstay host`: what a service manager runs in the place of a program that was not written for it.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use mainstay::{Accepts, Context, Definition, Exit, Recovery};
use mainstay_core::spec::Spec;

use crate::failure::{Code, Failure};
use crate::host::{self, Copy, Options, Output, Services, Started};
use crate::installed::Installed;
use crate::manifest_file::{FormatName, Source};
use crate::start_failure::StartFailure;
use crate::state_dir::StateDir;

/// What a host needs beyond its service's own time, to write down what is left.
pub(crate) const MARGIN: Duration = Duration::from_secs(10);
/// From a crash of a host to its next start.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs one service of a manifest for the service manager that started this process.
///
/// The manager is told when the service is ready, and its stop, pause, continue and reload reach it; what happens goes to the system's log.
/// Exits with the service's own code if that is why it ends, so that the manager's own recovery can look at it.
#[derive(Debug, clap::Args)]
pub(crate) struct Host {
    /// The service.
    name: String,
    /// The manifest: .toml, .yaml or .json; `credential:NAME` is a credential of systemd.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Its language, where the file's name does not tell.
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Where its relative paths start, where that is not the file's own directory.
    #[arg(long, value_name = "DIR")]
    base_dir: Option<PathBuf>,
    /// The Windows Service Control Manager started this.
    #[arg(long)]
    under_scm: bool,
    /// Only waits for what the service needs, and fails where that does not run: before a host that may not ask the manager.
    #[arg(long, hide = true)]
    check_needs: bool,
}

/// What a host needs of its manifest.
struct Job {
    spec: Spec,
    manifest: String,
    copy: Copy,
}

impl Host {
    pub(crate) fn run(self, state: StateDir) -> Result<ExitCode, Failure> {
        if self.check_needs {
            // What a user may not do takes nothing away from services of a user.
            let _ = host::sys::enter_system_mounts();
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
        // Under this name its events are registered.
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
        let service = match self.under_scm {
            true => service.log_dir(state.path().join("host")),
            false => service,
        };
        // The Service Control Manager hears of a failure only from a process that has connected to it.
        Ok(service.run(move |context: Context| host(job, state, context)))
    }

    fn job(&self) -> Result<Job, Failure> {
        let path = host::credential(&self.manifest).unwrap_or_else(|| self.manifest.clone());
        refuse_exposed(&path)?;
        let manifest = Source::read_installed(&path, self.format)?
            .based_on(self.base_dir.clone())
            .load()?;
        let copy = Copy::from(&manifest);
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

/// A host has the rights of its service, and so has whoever may change its manifest. On Unix the file is judged when it is opened.
#[cfg(windows)]
fn refuse_exposed(manifest: &Path) -> Result<(), Failure> {
    match host::sys::acl_exposure(manifest) {
        Ok(Some(exposure)) => {
            let message = format!("read {}: {exposure}", manifest.display());
            let failure = Failure::new(Code::PermissionDenied, message);
            Err(failure.hint("install the service again"))
        }
        // What cannot be judged cannot be read, which is said next.
        _ => Ok(()),
    }
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "as on Windows")]
fn refuse_exposed(_manifest: &Path) -> Result<(), Failure> {
    Ok(())
}

/// Completes the definition of a host with what depends on its service: the same when it is installed and when it runs.
pub(crate) fn of_host(host: Definition, spec: &Spec) -> Definition {
    let graceful = spec.stop().graceful().saturating_add(MARGIN);
    host.start_timeout(patience(spec))
        .graceful(graceful)
        .windows(|windows| windows.preshutdown(graceful))
        .accepts(Accepts::PAUSE | Accepts::RELOAD)
        // The host restarts the program by the contract of its exit codes: only the host itself must come back.
        .recovery(Recovery {
            restart_after: vec![PAUSE],
            crashes_only: true,
            ..Recovery::default()
        })
}

/// How long a manager waits for a host to be up, with what the host itself takes.
pub(crate) fn patience(spec: &Spec) -> Duration {
    start_limit(spec).saturating_add(MARGIN)
}

/// After which a host is up for its manager, ready or not: `start.timeout` for its program, and as long for what that needs.
pub(crate) fn start_limit(spec: &Spec) -> Duration {
    let timeout = spec.start().timeout();
    let needs = match spec.needs() {
        [] => Duration::ZERO,
        _ => timeout,
    };
    needs.saturating_add(timeout)
}

fn host(job: Result<Job, Failure>, state: StateDir, context: Context) -> Result<(), Exit> {
    let status = context.status();
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
                    // What it needs runs; on Unix the account is ours, who are root there.
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
                })
            };
            let done = done.and_then(|_| run());
            done.inspect_err(|failure| StartFailure::store(&state, failure))
        },
    );
    // To systemd an end before that is a failure, whatever its code, after which it starts another host.
    if matches!(done, Ok(0)) && !status.is_stopping() {
        status.ready();
    }
    match done {
        Ok(code) => NonZeroU32::new(code).map_or(Ok(()), |code| Err(Exit::code(code))),
        Err(failure) => Err(exit(&failure)),
    }
}

fn exit(failure: &Failure) -> Exit {
    let code = NonZeroU32::new(failure.code() as u32).unwrap_or(NonZeroU32::MIN);
    Exit::new(code, failure.to_string())
}
