//! Starting a program as a service.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use mainstay_core::engine::StartFailure;
use mainstay_core::failure::chain;
use mainstay_core::spec::{self, Argv};
use mainstay_sys::{self as sys, Processes, Tree, aside};

use super::Seat;
use crate::{launch, runs};

/// The settings of its service that a program is started with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// All of them: the service's program, and the commands that act on it or for it (probes,
    /// reload, quiesce, thaw).
    All,
    /// The account alone. Any other setting may be what prevents the service from running, and the
    /// alert command has to report that.
    Account,
}

/// Starts a program as a service's account.
pub(super) fn spawn(
    processes: &mut Processes,
    (seat, share): (&Seat, Share),
    argv: &Argv,
    environment: launch::Environment,
    working_dir: &Path,
    (stdin, [stdout, stderr]): (Option<sys::Stream<'_>>, [sys::Stream<'_>; 2]),
    sockets: &[sys::Socket],
) -> Result<Tree, StartFailure> {
    let Seat { spec, dir, .. } = seat;
    let is_all = share == Share::All;
    let look = Look {
        program: argv.program().to_owned(),
        dir: dir.clone(),
        search: environment.get(OsStr::new("PATH")).cloned(),
        // The file or its owner may have changed since the service was first started.
        unexposed: runs::as_root(seat.user()).then(|| {
            let env_file = spec.env_file().filter(|_| is_all);
            env_file.map(|path| dir.join(path))
        }),
    };
    let program = look.run_aside(working_dir)?;
    let words: Vec<_> = std::iter::once(argv.program())
        .chain(argv.args().iter().map(String::as_str))
        .map(Into::into)
        .collect();
    let environment: Vec<_> = environment.into_iter().collect();
    processes
        .spawn(&sys::Command {
            name: spec.name().as_str(),
            program: &program,
            argv: &words,
            env: &environment,
            working_dir,
            stdin,
            stdout,
            stderr,
            user: seat.user(),
            capabilities: match spec.sandbox().filter(|_| is_all) {
                Some(sandbox) => &sandbox.capabilities,
                None => &[],
            },
            priority: spec.priority().filter(|_| is_all),
            cpus: if is_all { spec.cpus() } else { &[] },
            sockets,
            limits: match share {
                Share::All => spec.limits(),
                Share::Account => spec::Limits::default(),
            },
        })
        .map_err(|error| {
            let why = match error.hint() {
                Some(hint) => format!("{} ({hint})", chain(&error)),
                None => chain(&error),
            };
            match error.is_permanent {
                true => StartFailure::Permanent(why),
                false if error.is_lacking() => StartFailure::Lacking(why),
                false => StartFailure::of_path(why, error.cause()),
            }
        })
}

/// The paths that a start depends on. If one lies on a mount whose server is gone, the child hangs
/// in its exec, and so does the parent, which waits for it.
#[derive(Debug)]
struct Look {
    program: String,
    dir: PathBuf,
    search: Option<OsString>,
    /// Set for a program that runs as root: its `env_file`, if it has one.
    unexposed: Option<Option<PathBuf>>,
}

impl Look {
    /// Finds the program and looks at the working directory, in one thread.
    fn run_aside(self, working_dir: &Path) -> Result<PathBuf, StartFailure> {
        let names = [
            format!("program {}", self.program),
            format!("working_dir {}", working_dir.display()),
        ];
        let subjects = [format!("{self:?}"), names[1].clone()];
        let place = working_dir.to_owned();
        let found = aside::wait_for_both(
            subjects,
            move || self.run(),
            move |program| {
                drop(program.as_ref().map(|_| place.metadata()));
                program
            },
        );
        found.map_err(|(index, error)| {
            let why = format!("{}: {error}", names[index]);
            match error.kind() {
                io::ErrorKind::TimedOut => StartFailure::Transient(why),
                _ => StartFailure::Lacking(why),
            }
        })?
    }

    /// Finds the program.
    fn run(self) -> Result<PathBuf, StartFailure> {
        let found = launch::find_program(&self.program, &self.dir, self.search.as_deref());
        let program = found.map_err(|error| {
            let why = format!("find program {}: {error}", self.program);
            match error.kind() {
                io::ErrorKind::PermissionDenied => StartFailure::Permanent(why),
                _ => StartFailure::of_path(why, &error),
            }
        })?;
        if let Some(env_file) = self.unexposed
            && let Some(why) = [Some(program.clone()), env_file]
                .into_iter()
                .flatten()
                .find_map(|path| runs::refusal(&path))
        {
            return Err(StartFailure::Permanent(why));
        }
        // Only whether it, and its interpreter, can be looked at: the exec says what is wrong.
        drop(launch::obstacle(&program));
        Ok(program)
    }
}
