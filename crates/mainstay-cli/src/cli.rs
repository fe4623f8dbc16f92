//! The command line: one variant per verb. Each verb has its own file under `verbs/`.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use mainstay_api::Verb;
use mainstay_core::failure::Failure;
use mainstay_host::output::{self, Verbosity};
use mainstay_host::webhook;
use mainstay_store::state_dir::StateDir;

use crate::deploy::Enablement;
use crate::not_found;
use crate::verbs::check::Check;
use crate::verbs::completions::{Complete, Completions};
use crate::verbs::control::{Control, Stop};
use crate::verbs::daemon::Daemon;
use crate::verbs::diff::Diff;
use crate::verbs::enable::Enable;
use crate::verbs::events::Events;
use crate::verbs::explain::Explain;
use crate::verbs::history::History;
use crate::verbs::host::Host;
use crate::verbs::init::Init;
use crate::verbs::install::Install;
use crate::verbs::logs::Logs;
use crate::verbs::man::Man;
use crate::verbs::run::Run;
use crate::verbs::schema;
use crate::verbs::snapshot::Snapshot;
use crate::verbs::status::{List, Status};
use crate::verbs::uninstall::Uninstall;
use crate::verbs::update::{Rollback, Update};
use crate::verbs::verify::Verify;
use crate::verbs::version::Version;

/// Run any program as a production service
#[derive(Debug, Parser)]
#[command(
    name = "mainstay",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// State directory: logs, control socket and service data [default: /var/lib/mainstay for root,
    /// ~/.local/state/mainstay for other users; on macOS, /Library/Application Support/mainstay and
    /// ~/Library/Application Support/mainstay; on Windows, %LOCALAPPDATA%\mainstay] [env:
    /// MAINSTAY_STATE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// When to use colors: auto, always or never
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t = Colour::Auto,
        hide_default_value = true,
        hide_possible_values = true
    )]
    color: Colour,
    /// Print only errors and the output that was asked for: no confirmations, notes or warnings
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Print the causes of an error, one per line, and the name of its exit code
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    #[command(subcommand)]
    verb: Command,
}

/// The use of colours.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Colour {
    /// On terminals, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Init),
    Check(Check),
    /// Print the JSON Schema of manifests (draft 2020-12), for editors
    Schema,
    Run(Run),
    Daemon(Daemon),
    Install(Install),
    Uninstall(Uninstall),
    /// Start services at boot
    Enable(Enable),
    /// Do not start services at boot; running ones are not affected
    Disable(Enable),
    Status(Status),
    List(List),
    Verify(Verify),
    History(History),
    Diff(Diff),
    Update(Update),
    Rollback(Rollback),
    /// Start services and the services they need; wait until they are ready
    Start(Control),
    /// Stop services, including those left by a killed supervisor; wait until all their processes
    /// have ended
    Stop(Stop),
    /// Restart services, and start those that are not running; wait until they are ready
    Restart(Control),
    /// Suspend all processes of services
    Pause(Control),
    /// Resume paused services
    Continue(Control),
    /// Reload the configuration of services
    Reload(Control),
    Logs(Logs),
    Events(Events),
    Snapshot(Snapshot),
    Host(Host),
    Explain(Explain),
    Completions(Completions),
    Man(Man),
    Version(Version),
    #[command(hide = true)]
    Complete(Complete),
    /// Deliver an alert to a webhook, on behalf of a supervisor
    #[command(name = webhook::VERB, hide = true)]
    PostAlert,
}

impl Cli {
    pub(crate) fn run(mut self) -> Result<ExitCode, Failure> {
        // As an argument with a variable, the usage in error messages would contain the option.
        let variable = || env::var_os("MAINSTAY_STATE_DIR").filter(|dir| !dir.is_empty());
        self.state_dir = self.state_dir.or_else(|| variable().map(PathBuf::from));
        match self.color {
            Colour::Auto => {}
            Colour::Always => output::set_colour(true),
            Colour::Never => output::set_colour(false),
        }
        if self.quiet {
            output::set_verbosity(Verbosity::Quiet);
        } else if self.verbose {
            output::set_verbosity(Verbosity::Verbose);
        }
        let asked = self.state_dir.clone();
        self.perform()
            .map_err(|failure| match StateDir::locate(asked) {
                Ok(state) => not_found::explain(&state, failure),
                Err(_) => failure,
            })
    }

    fn perform(self) -> Result<ExitCode, Failure> {
        let state = || StateDir::locate(self.state_dir.clone());
        // A verb that changes the state directory first checks that no other account controls it.
        let own = || {
            let state = state()?;
            state.refuse_exposed()?;
            Ok::<_, Failure>(state)
        };
        match self.verb {
            Command::Init(verb) => verb.run(),
            Command::Check(verb) => verb.run(),
            Command::Schema => schema::run(),
            Command::Run(verb) => verb.run(own()?),
            Command::Daemon(verb) => verb.run(own()?),
            Command::Install(verb) => verb.run(&own()?),
            Command::Uninstall(verb) => verb.run(&own()?),
            Command::Enable(verb) => verb.run(&own()?, Enablement::Enabled),
            Command::Disable(verb) => verb.run(&own()?, Enablement::Disabled),
            Command::Status(verb) => verb.run(&state()?),
            Command::List(verb) => verb.run(&state()?),
            Command::Verify(verb) => verb.run(&state()?),
            Command::History(verb) => verb.run(&state()?),
            Command::Diff(verb) => verb.run(&state()?),
            Command::Update(verb) => verb.run(&own()?),
            Command::Rollback(verb) => verb.run(&own()?),
            Command::Start(verb) => verb.run(Verb::Start, &own()?),
            Command::Stop(verb) => verb.run(&own()?),
            Command::Restart(verb) => verb.run(Verb::Restart, &own()?),
            Command::Pause(verb) => verb.run(Verb::Pause, &own()?),
            Command::Continue(verb) => verb.run(Verb::Continue, &own()?),
            Command::Reload(verb) => verb.run(Verb::Reload, &own()?),
            Command::Logs(verb) => verb.run(&state()?),
            Command::Events(verb) => verb.run(&state()?),
            Command::Snapshot(verb) => verb.run(&own()?),
            Command::Host(verb) => verb.run(own()?),
            Command::Explain(verb) => verb.run(),
            Command::Completions(verb) => verb.run(),
            Command::Man(verb) => verb.run(Self::command()),
            Command::Version(verb) => verb.run(),
            Command::Complete(verb) => verb.run(Self::command(), self.state_dir),
            Command::PostAlert => webhook::run().map(|()| ExitCode::SUCCESS),
        }
    }
}
