//! `mainstay man`: prints a manual page.

use std::process::ExitCode;

use clap::Command;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::suggest::did_you_mean;
use mainstay_host::output;

use crate::man;

/// Print a manual page, as the source that man(1) reads
///
/// Read it with `mainstay man | man -l -`. To install all pages, write each to
/// share/man/man1/mainstay-VERB.1.
#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// Verb that the page describes, and its subcommand [default: the whole command]
    verbs: Vec<String>,
}

impl Man {
    pub(crate) fn run(self, mut program: Command) -> Result<ExitCode, Failure> {
        program.build();
        let mut verb = &program;
        for name in &self.verbs {
            verb = verb.find_subcommand(name).ok_or_else(|| {
                let name = output::one_line(name);
                let names = verb.get_subcommands().map(Command::get_name);
                let failure = Failure::new(Code::Usage, format!("there is no verb {name}"));
                failure.hint(match did_you_mean(&name, names) {
                    Some(near) => near,
                    None => "list the verbs: mainstay --help".to_owned(),
                })
            })?;
        }
        output::text(&man::page(&program, verb))?;
        Ok(ExitCode::SUCCESS)
    }
}
