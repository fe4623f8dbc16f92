//! `mainstay daemon`: a service manager of our own, where there is none to use.

use std::process::ExitCode;

use crate::failure::Failure;
use crate::host::{self, Options, Output, Services};
use crate::output::Foreign;
use crate::state_dir::StateDir;

/// Is the manager of the services that are installed in its state directory: for containers, CI, and users without root.
///
/// It starts those that are enabled, in the order of their needs; more may be installed (`mainstay install --manager embedded`), and others
/// removed, while it runs. It may be
/// process 1 of a container. SIGTERM and SIGINT stop all in reverse order, a second one kills; SIGHUP has services reload that know how to.
/// Exits 0 after an orderly end, 1 if a service was halted then or had to be killed.
#[derive(Debug, clap::Args)]
pub(crate) struct Daemon {
    /// End when all services are down, with the code of the first that failed.
    #[arg(long)]
    exit_when_done: bool,
    /// Show what the services write, each line with its service's name.
    #[arg(long)]
    follow: bool,
    /// With --follow: let control characters through to a terminal, not colours alone.
    #[arg(long, requires = "follow")]
    raw: bool,
    /// One JSON object an event.
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
            output: match self.json {
                true => Output::Json,
                false => Output::Lines,
            },
            follow: self.follow.then_some(match self.raw {
                true => Foreign::Raw,
                false => Foreign::Coloured,
            }),
            manager: None,
        })?;
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }
}
