//! `mainstay daemon`: the embedded service manager, for systems without one that can be used.

use std::process::ExitCode;

use mainstay_core::failure::Failure;
use mainstay_store::state_dir::StateDir;

use mainstay_host::output::Foreign;
use mainstay_host::{self as host, Options, Output, Services, Viewers};

/// Run the embedded service manager
///
/// It manages the services installed in its state directory, for containers, CI and users without
/// root. It starts those that are enabled, in the order of their needs. While it runs, services can
/// be installed (`mainstay install --manager embedded`) and removed. It can be process 1 of a
/// container. SIGTERM and SIGINT stop all services in reverse order; a second one kills them.
/// SIGHUP reloads the services that support it. Exits 0 after an orderly stop, and 1 if a service
/// was halted at that time or had to be killed.
#[derive(Debug, clap::Args)]
pub(crate) struct Daemon {
    /// Exit when all services are down, with the exit code of the first that failed
    #[arg(long)]
    exit_when_done: bool,
    /// Show the output of the services, each line prefixed with the name of its service
    #[arg(long)]
    follow: bool,
    /// With --follow: pass all control characters to the terminal, not only colours
    #[arg(long, requires = "follow")]
    raw: bool,
    /// Let the members of this group view the services, but not change them
    #[arg(long, value_name = "GROUP")]
    viewers: Option<String>,
    /// Print one JSON object per event
    #[arg(long)]
    json: bool,
}

impl Daemon {
    pub(crate) fn run(self, state: StateDir) -> Result<ExitCode, Failure> {
        let code = host::run(Options {
            services: Services::Installed {
                exits_when_done: self.exit_when_done,
            },
            state,
            output: if self.json {
                Output::Json
            } else {
                Output::Lines
            },
            follow: self.follow.then_some(if self.raw {
                Foreign::Raw
            } else {
                Foreign::Coloured
            }),
            manager: None,
            viewers: self.viewers.map(Viewers::find).transpose()?,
        })?;
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }
}
