//! `mainstay host`: what a service manager runs in the place of a program that was not written for it.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use mainstay::{Accepts, Context, Exit, Recovery};
use mainstay_core::spec::Spec;

use crate::failure::{Code, Failure};
use crate::host::{self, Copy, Options, Output, Services};
use crate::manifest_file::{FormatName, Source};
use crate::state_dir::StateDir;

/// What a host needs beyond its service's own time, to write down what is left.
pub(crate) const MARGIN: Duration = Duration::from_secs(10);

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
}

impl Host {
    pub(crate) fn run(self, state: StateDir) -> Result<ExitCode, Failure> {
        let path = host::credential(&self.manifest).unwrap_or_else(|| self.manifest.clone());
        let manifest = Source::read(&path, self.format)?
            .based_on(self.base_dir)
            .load()?;
        let copy = Copy::from(&manifest);
        let mut specs = manifest.specs.into_iter();
        let Some(spec) = specs.find(|spec| spec.name().as_str() == self.name) else {
            let message = format!("the manifest has no service {}", self.name);
            return Err(Failure::new(Code::Unknown, message));
        };
        let (start, stop) = (spec.start().timeout(), spec.stop().graceful());
        let service = mainstay::service(self.name)
            .start_timeout(start.saturating_add(MARGIN))
            .graceful(stop.saturating_add(MARGIN))
            .accepts(Accepts::PAUSE | Accepts::RELOAD)
            // As it was installed: where it ends by itself, that is for good.
            .recovery(Recovery {
                crashes_only: true,
                ..Recovery::default()
            });
        let manifest = self.manifest.display().to_string();
        Ok(service.run(move |context: Context| host(spec, manifest, copy, state, context)))
    }
}

fn host(
    spec: Spec,
    manifest: String,
    copy: Copy,
    state: StateDir,
    context: Context,
) -> Result<(), Exit> {
    let code = host::run(Options {
        // What it needs is its manager's business; on Unix the account is ours, who are root there.
        services: Services::OfManifest {
            specs: vec![spec.under_manager(cfg!(windows))],
            manifest,
            copy,
        },
        state,
        output: Output::System(context.logger().clone()),
        follow: false,
        manager: Some(context),
    });
    match code {
        Ok(code) => NonZeroU32::new(code).map_or(Ok(()), |code| Err(Exit::code(code))),
        Err(failure) => {
            let code = NonZeroU32::new(failure.code() as u32).unwrap_or(NonZeroU32::MIN);
            Err(Exit::new(code, failure.to_string()))
        }
    }
}
