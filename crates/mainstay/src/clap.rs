//! [`Verb`] as part of a program's own clap command (feature `clap`).
//!
//! ```
//! # #[cfg(feature = "clap")] {
//! use clap::Parser;
//!
//! #[derive(Parser)]
//! struct Cli {
//!     #[command(subcommand)]
//!     verb: Command,
//! }
//!
//! #[derive(clap::Subcommand)]
//! enum Command {
//!     /// Something of the program's own.
//!     Migrate,
//!     #[command(flatten)]
//!     Service(mainstay::Verb),
//! }
//!
//! let cli = Cli::parse_from(["orders", "control", "200"]);
//! assert!(matches!(cli.verb, Command::Service(mainstay::Verb::Control(200))));
//! # }
//! ```

use std::ffi::OsString;
use std::path::PathBuf;

use ::clap::error::ErrorKind;
use ::clap::{ArgMatches, Command, FromArgMatches, Subcommand};

use crate::Verb;
use crate::service::chain;

// The verbs as words, which `Verb::parse` reads. They have no doc comment here, because clap would
// use it as the description of the program.
#[derive(::clap::Subcommand)]
enum Words {
    /// Install the service, or update the installed one
    Install {
        /// Show what would be done, without doing it
        #[arg(long)]
        dry_run: bool,
        /// Account: virtual, local-service, network-service, local-system, gmsa:DOMAIN\NAME$,
        /// user:NAME
        #[arg(long)]
        account: Option<OsString>,
        /// Read the password of user:NAME from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
        /// Read the account's password from the first line of FILE
        #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
        password_file: Option<PathBuf>,
        /// Read the account's password from the environment variable VARIABLE
        #[arg(long, value_name = "VARIABLE", conflicts_with_all = ["password_stdin", "password_file"])]
        password_env: Option<OsString>,
    },
    /// Stop and remove the service
    Uninstall,
    /// Start the service at boot
    Enable,
    /// Do not start the service at boot
    Disable,
    /// Start the service
    Start { arguments: Vec<OsString> },
    /// Stop the service
    Stop,
    /// Restart the service, or start it if it is not running
    Restart,
    /// Pause the service
    Pause,
    /// Resume the paused service
    Continue,
    /// Reload the service's configuration
    Reload,
    /// Send the service a control code of its own, 128 to 255
    Control { code: OsString },
    /// Show the state of the service
    Status,
    /// Run the service in the foreground, until Ctrl-C
    Run {
        arguments: Vec<OsString>,
        #[arg(long, hide = true)]
        under_scm: bool,
    },
}

impl From<Words> for Vec<OsString> {
    fn from(words: Words) -> Self {
        let alone = |verb: &str| vec![verb.into()];
        match words {
            Words::Install {
                dry_run,
                account,
                password_stdin,
                password_file,
                password_env,
            } => {
                let options = [
                    ("--account", account),
                    ("--password-file", password_file.map(Into::into)),
                    ("--password-env", password_env),
                ];
                let mut words = alone("install");
                for (option, value) in options {
                    words.extend(value.into_iter().flat_map(|value| [option.into(), value]));
                }
                words.extend(dry_run.then(|| "--dry-run".into()));
                words.extend(password_stdin.then(|| "--password-stdin".into()));
                words
            }
            Words::Start { arguments } => [alone("start"), arguments].concat(),
            Words::Control { code } => vec!["control".into(), code],
            Words::Uninstall => alone("uninstall"),
            Words::Enable => alone("enable"),
            Words::Disable => alone("disable"),
            Words::Stop => alone("stop"),
            Words::Restart => alone("restart"),
            Words::Pause => alone("pause"),
            Words::Continue => alone("continue"),
            Words::Reload => alone("reload"),
            Words::Status => alone("status"),
            Words::Run { .. } => alone("run"),
        }
    }
}

impl FromArgMatches for Verb {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, ::clap::Error> {
        let words: Vec<OsString> = Words::from_arg_matches(matches)?.into();
        Self::parse(words)
            .map_err(|error| ::clap::Error::raw(ErrorKind::ValueValidation, chain(&error) + "\n"))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), ::clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Subcommand for Verb {
    fn augment_subcommands(command: Command) -> Command {
        Words::augment_subcommands(command)
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Words::augment_subcommands_for_update(command)
    }

    fn has_subcommand(name: &str) -> bool {
        Words::has_subcommand(name)
    }
}

#[cfg(test)]
mod tests {
    use ::clap::CommandFactory as _;
    use ::clap::Parser;

    use crate::Verb;

    /// Counts orders.
    #[derive(Parser)]
    #[command(name = "orders")]
    struct Flat {
        #[command(subcommand)]
        _verb: Verb,
    }

    #[derive(::clap::Subcommand)]
    enum Command {
        /// Something of its own.
        Migrate,
        #[command(flatten)]
        Service(Verb),
    }

    /// Counts orders.
    #[derive(Parser)]
    #[command(name = "orders")]
    struct Mixed {
        #[command(subcommand)]
        _command: Command,
    }

    #[test]
    fn help_describes_the_program_and_not_this_library() {
        for mut command in [Flat::command(), Mixed::command()] {
            let help = command.render_long_help().to_string();
            assert!(help.starts_with("Counts orders\n"), "{help}");
            assert!(help.contains("install"), "{help}");
        }
    }

    // Without a description: the library must give it none.
    #[derive(Parser)]
    #[command(name = "orders")]
    struct Undescribed {
        #[command(subcommand)]
        _verb: Verb,
    }

    #[test]
    fn a_program_without_a_description_gets_none() {
        let help = Undescribed::command().render_long_help().to_string();
        assert!(help.starts_with("Usage: orders"), "{help}");
    }
}
