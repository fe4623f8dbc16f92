//! `mainstay completions`: prints the script with which a shell completes command lines, and the
//! hidden verb that the script asks.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use mainstay_core::failure::Failure;
use mainstay_host::output;
use mainstay_store::state_dir::StateDir;

use crate::completion::{self, Answer, Line, Shell};

/// The time limit of an answer. A directory on a mount that hangs must not block the shell.
const DEADLINE: Duration = Duration::from_millis(300);

/// Print the script with which a shell completes verbs, options and names
///
/// Add a line to the start-up file of your shell: `source <(mainstay completions bash)`, `source
/// <(mainstay completions zsh)`, `mainstay completions fish | source`, or `mainstay completions
/// powershell | Out-String | Invoke-Expression`.
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// Shell that reads the script
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        output::text(self.shell.script())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Print how a command line can go on
#[derive(Debug, clap::Args)]
pub(crate) struct Complete {
    /// Shell that asks
    shell: Shell,
    /// Words of the command line after the program; the last one is being typed
    #[arg(last = true)]
    words: Vec<String>,
}

impl Complete {
    /// Prints the answer. In every case the exit code is 0 and standard error is empty, because the
    /// shell shows both in the middle of a line.
    pub(crate) fn run(
        self,
        mut command: clap::Command,
        state_dir: Option<PathBuf>,
    ) -> Result<ExitCode, Failure> {
        let (send, receive) = mpsc::channel();
        let shell = self.shell;
        let answer = move || {
            command.build();
            let answer = answer(&command, shell, &self.words, state_dir);
            // The receiver is gone after the deadline.
            drop(send.send(answer.lines(shell)));
        };
        if thread::Builder::new().spawn(answer).is_ok()
            && let Ok(lines) = receive.recv_timeout(DEADLINE)
        {
            output::text(&lines)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn answer(
    command: &clap::Command,
    shell: Shell,
    words: &[String],
    state_dir: Option<PathBuf>,
) -> Answer {
    let (current, before) = match words.split_last() {
        Some((current, before)) => (&**current, before),
        None => ("", &[][..]),
    };
    let current = match shell {
        Shell::Powershell => current.strip_suffix('.').unwrap_or(current),
        _ => current,
    };
    let line = Line::read(command, before.iter().map(String::as_str));
    let state = StateDir::locate(line.state_dir().map(ToOwned::to_owned).or(state_dir));
    Answer::of(&line, current, |set| match &state {
        Ok(state) => completion::names(state, &set),
        Err(_) => Vec::new(),
    })
}
