//! `mainstay daemon`: a service manager of our own, where there is none to use.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::embedded::{self, Change};
use crate::failure::Failure;
use crate::host::{self, Options, Output, Services};
use crate::manifest_file;
use crate::output;
use crate::state_dir::StateDir;

/// Is the manager of the services that are installed in its state directory: for containers, CI, and users without root.
///
/// It starts those that are enabled, in the order of their needs; more may be installed, and others removed, while it runs. It may be
/// process 1 of a container. SIGTERM and SIGINT stop all in reverse order, a second one kills; SIGHUP has services reload that know how to.
/// Exits 0 after an orderly end, 1 if a service was halted then or had to be killed.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Daemon {
    /// Changes what is installed, whether or not a daemon runs.
    #[command(subcommand)]
    services: Option<OnServices>,
    /// End when all services are down, with the code of the first that failed.
    #[arg(long)]
    exit_when_done: bool,
    /// Show what the services write, each line with its service's name.
    #[arg(long)]
    follow: bool,
    /// One JSON object an event.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum OnServices {
    /// Makes services of a manifest the daemon's, or has them become what it says now; all or none.
    Install {
        /// The manifest: .toml, .yaml or .json; `-` is standard input.
        file: PathBuf,
        /// Only these services, and what they need.
        names: Vec<String>,
    },
    /// Stops services and has the daemon forget them; all or none. Their logs and data stay.
    Uninstall {
        /// The services.
        #[arg(required = true)]
        names: Vec<String>,
        /// Their logs and data go as well.
        #[arg(long)]
        purge: bool,
    },
    /// Has services start with the daemon.
    Enable {
        /// The services.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Has services start when somebody asks for them only; what runs goes on.
    Disable {
        /// The services.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

impl OnServices {
    fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let mut said = String::new();
        let mut say = |name: &str, what: &str| said += &format!("{name}: {what}\n");
        match self {
            Self::Install { file, names } => {
                let manifest = manifest_file::load(&file, None)?;
                let specs = manifest.select(&names)?;
                for done in embedded::install_all(state, &manifest, &specs)? {
                    let name = done.name.as_str();
                    done.losses
                        .iter()
                        .for_each(|loss| output::complain(&format!("{name}: {loss}")));
                    say(
                        name,
                        match done.change {
                            Change::New => "installed",
                            Change::Updated => "updated",
                            Change::None => "up to date",
                        },
                    );
                }
            }
            Self::Uninstall { names, purge } => {
                embedded::uninstall_all(state, &names, purge)?;
                names.iter().for_each(|name| say(name, "uninstalled"));
            }
            Self::Enable { names } => {
                embedded::set_enabled(state, &names, true)?;
                names.iter().for_each(|name| say(name, "enabled"));
            }
            Self::Disable { names } => {
                embedded::set_enabled(state, &names, false)?;
                names.iter().for_each(|name| say(name, "disabled"));
            }
        }
        output::text(&said)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Daemon {
    pub(crate) fn run(self, state: StateDir) -> Result<ExitCode, Failure> {
        if let Some(services) = self.services {
            return services.run(&state);
        }
        let code = host::run(Options {
            services: Services::Installed {
                exits_when_done: self.exit_when_done,
            },
            state,
            output: match self.json {
                true => Output::Json,
                false => Output::Lines,
            },
            follow: self.follow,
            manager: None,
        })?;
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }
}
