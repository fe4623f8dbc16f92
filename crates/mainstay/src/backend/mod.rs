//! The service managers of Unix. Each is a description: the files that make up a service, the files
//! that start it at boot, the commands that control it, and the queries for its status.
//!
//! A description has no side effects. `manage/unix/` compares it with the system and performs
//! the difference as a plan, each [`Step`] of which can be shown and undone. An installation can
//! therefore be inspected beforehand or placed in an image (`--root`), and leaves nothing behind if
//! it fails. A setting that a manager does not support is returned as a loss. A value that a
//! manager would misread is rejected.
#![cfg_attr(
    not(feature = "managers"),
    expect(dead_code, reason = "what all managers together need")
)]

#[cfg(feature = "managers")]
pub(crate) mod aix;
#[cfg(feature = "managers")]
mod checked;
#[cfg(feature = "managers")]
pub(crate) mod dinit;
mod draft;
#[cfg(test)]
mod golden;
#[cfg(all(test, target_os = "linux", feature = "managers"))]
#[expect(clippy::unwrap_used, reason = "a test")]
mod hostile;
#[cfg(feature = "managers")]
pub(crate) mod launchd;
#[cfg(all(test, target_os = "linux", feature = "managers"))]
#[expect(clippy::unwrap_used, reason = "a test")]
mod lives;
#[cfg(feature = "managers")]
pub(crate) mod openrc;
#[cfg(feature = "managers")]
pub(crate) mod procd;
#[cfg(feature = "managers")]
pub(crate) mod rcd;
#[cfg(feature = "managers")]
mod run_script;
#[cfg(feature = "managers")]
pub(crate) mod runit;
#[cfg(feature = "managers")]
pub(crate) mod s6;
#[cfg(feature = "managers")]
mod sh;
#[cfg(feature = "managers")]
pub(crate) mod shell;
#[cfg(feature = "managers")]
pub(crate) mod smf;
pub(crate) mod systemd;
#[cfg(feature = "managers")]
pub(crate) mod sysv;
#[cfg(feature = "managers")]
pub(crate) mod upstart;
#[cfg(feature = "managers")]
mod xml;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Definition, Error, Manager, Scope, ServiceStatus, State};

/// The text in the first lines of each unit file that marks a service as installed by this library.
pub(crate) const MARK: &str = "Written by `install`, which overwrites it.";

/// The prefix of the status text of a service that has paused itself
/// ([`Control::Pause`](crate::Control::Pause)).
pub(crate) const PAUSED: &str = "paused";

/// The signals that can stop or notify a program: signal(7).
pub(crate) const SIGNALS: &[&str] = &["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "WINCH"];

/// Formats a limit for ulimit(1), in units of the given number of bytes. `u64::MAX` means
/// unlimited.
pub(crate) fn limit_in(unit: u64, value: u64) -> String {
    match value {
        u64::MAX => "unlimited".to_owned(),
        value => value.div_ceil(unit).to_string(),
    }
}

/// The constant properties of a service manager.
pub(crate) struct Facts {
    pub(crate) manager: Manager,
    /// Set if the manager also supports services of users.
    pub(crate) has_users: bool,
    /// The paths that show that the manager is installed, also in an image.
    pub(crate) traces: Traces,
    /// Paths that differ between systems with this manager. Those that exist are passed to
    /// descriptions in [`Site::found`].
    pub(crate) landmarks: &'static [&'static str],
    /// The signs that the manager is running the system. One of them is sufficient.
    pub(crate) signs: &'static [Sign],
    /// The directory of the units, if there is only one.
    pub(crate) dir: &'static str,
    /// The end of a unit's file name, after the service's name.
    pub(crate) suffix: &'static str,
}

impl Facts {
    /// Returns the properties that most managers have in common.
    const fn of(manager: Manager) -> Self {
        Self {
            manager,
            has_users: false,
            traces: Traces::All(&[]),
            landmarks: &[],
            signs: &[],
            dir: "",
            suffix: "",
        }
    }
}

/// The paths that show that a manager is installed.
pub(crate) enum Traces {
    /// All of them exist.
    All(&'static [&'static str]),
    /// At least one of them exists.
    #[cfg(feature = "managers")]
    Any(&'static [&'static str]),
}

impl Traces {
    /// Returns whether the manager is installed, given which paths exist.
    pub(crate) fn are_there(&self, is_there: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::All(paths) => paths.iter().all(|path| is_there(path)),
            #[cfg(feature = "managers")]
            Self::Any(paths) => paths.iter().any(|path| is_there(path)),
        }
    }
}

/// A service manager.
pub(crate) trait Backend: Sync {
    /// Returns the constant properties of the manager.
    fn facts(&self) -> &'static Facts;

    /// Returns which manager this is.
    fn manager(&self) -> Manager {
        self.facts().manager
    }

    /// Returns the files of a service. The first file contains the [`MARK`] and exists if and only
    /// if the service is installed.
    ///
    /// # Errors
    /// If the definition is invalid or contains values that this manager cannot represent. All
    /// mistakes are reported at once.
    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error>;

    /// Returns the path of the first file of [`Backend::unit`].
    fn unit_path(&self, name: &str, site: &Site) -> PathBuf {
        let file = format!("{name}{}", self.facts().suffix);
        self.unit_dir(site).join(file)
    }

    /// Returns the directory of the units.
    fn unit_dir(&self, _site: &Site) -> PathBuf {
        self.facts().dir.into()
    }

    /// Returns the service that a file in the unit directory belongs to.
    fn listed(&self, file: &str) -> Option<String> {
        file.strip_suffix(self.facts().suffix).map(str::to_owned)
    }

    /// Returns all files that a unit of this name can have, except those in its own directories.
    /// Existing files that are not part of the unit are removed.
    fn parts(&self, name: &str, site: &Site) -> Vec<PathBuf> {
        vec![self.unit_path(name, site)]
    }

    /// Returns the files that the manager, or a generated script, creates at run time.
    fn leavings(&self, _name: &str, _site: &Site) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Returns the directories that belong to the service alone, including files that the manager
    /// creates in them.
    fn own_dirs(&self, _name: &str, _site: &Site) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Returns the files and calls that enable or disable the start at boot.
    fn switch(&self, name: &str, site: &Site) -> Switch;

    /// Returns the queries for the enablement, if files do not show it.
    fn enabled_questions(&self, _name: &str, _site: &Site) -> Vec<Question> {
        Vec::new()
    }

    /// Returns whether the answers mean that the service is enabled, in addition to the files of
    /// [`Backend::switch`].
    fn is_enabled(&self, _name: &str, _answers: &[Answer]) -> bool {
        true
    }

    /// Returns the calls that make the manager load a new service, for a manager that starts every
    /// service it finds. [`Switch::off`] exists when the new service appears, this runs until the
    /// manager has loaded it, and only then is [`Switch::off`] removed if the service is enabled.
    fn take_in(&self, _name: &str, _site: &Site) -> Option<TakeIn> {
        None
    }

    /// Returns the calls to run once after files of the `changed` services were written or removed.
    fn take_notice(&self, _changed: &[&str], _site: &Site) -> Vec<Call> {
        Vec::new()
    }

    /// Returns the calls to run for a stopped service before its files are removed.
    fn let_go(&self, _name: &str, _site: &Site) -> Vec<Call> {
        Vec::new()
    }

    /// Returns the calls that execute an order in the given state. Each call returns when it is
    /// complete.
    ///
    /// # Errors
    /// If the manager does not support the order.
    fn control(
        &self,
        definition: &Definition,
        order: Order,
        state: State,
        site: &Site,
    ) -> Result<Vec<Call>, Unsupported>;

    /// Returns the queries for the status. The answers are passed to [`Backend::status`].
    fn questions(&self, name: &str, site: &Site) -> Vec<Question>;

    /// Returns whether the answers come from the manager, and not from a client that did not reach
    /// it.
    fn has_answered(&self, _answers: &[Answer]) -> bool {
        true
    }

    /// Returns the status from the answers, in the order of the queries, or `None` if the manager
    /// does not know the service.
    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus>;

    /// Returns the query for the manager's version, if unit files depend on it.
    fn version_question(&self) -> Option<Question> {
        None
    }

    /// Returns the version from the answer.
    fn version(&self, _answer: &Answer) -> Option<u32> {
        None
    }

    /// Returns the query for the cause of a failure since the given time, in seconds since 1970.
    fn failure_question(&self, _name: &str, _since: u64, _site: &Site) -> Option<Question> {
        None
    }

    /// Returns the cause from the answer, in one line.
    fn failure(&self, _name: &str, _answer: &Answer) -> Option<String> {
        None
    }

    /// Returns the command that shows operators the cause of a failure.
    fn journal(&self, name: &str, site: &Site) -> String;
}

/// All managers. On a system with several, the more likely ones come first: runit and s6 can also
/// run below any other, and dinit may be called init.
pub(crate) const ALL: &[&dyn Backend] = &[
    &systemd::Systemd,
    #[cfg(feature = "managers")]
    &dinit::Dinit,
    #[cfg(feature = "managers")]
    &openrc::OpenRc,
    #[cfg(feature = "managers")]
    &upstart::Upstart,
    #[cfg(feature = "managers")]
    &procd::Procd,
    #[cfg(feature = "managers")]
    &sysv::Sysv,
    #[cfg(feature = "managers")]
    &launchd::Launchd,
    #[cfg(feature = "managers")]
    &rcd::Rcd,
    #[cfg(feature = "managers")]
    &smf::Smf,
    #[cfg(feature = "managers")]
    &aix::Aix,
    #[cfg(feature = "managers")]
    &runit::Runit,
    #[cfg(feature = "managers")]
    &s6::S6,
];

/// Returns the backend of this manager.
pub(crate) fn of(manager: Manager) -> Option<&'static dyn Backend> {
    ALL.iter()
        .copied()
        .find(|backend| backend.manager() == manager)
}

/// A sign that a manager is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// The file exists.
    Path(&'static str),
    /// Process 1 has this name.
    Init(&'static str),
    /// Any process has this name.
    Process(&'static str),
}

/// The properties of the system that a description depends on.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) scope: Scope,
    /// The running program, which is used if a definition names none.
    pub(crate) running: PathBuf,
    /// The manager's version, or 0 if it is unknown or was not queried.
    pub(crate) version: u32,
    /// The user's configuration directory, `$XDG_CONFIG_HOME`. For [`Scope::User`].
    pub(crate) config_dir: PathBuf,
    /// The user's home directory and ID. For [`Scope::User`].
    pub(crate) home_dir: PathBuf,
    pub(crate) user: u32,
    /// The paths of [`Facts::landmarks`] that exist.
    pub(crate) found: Vec<&'static str>,
    /// Set if the system is not running and lies below a directory: no command can be run or
    /// queried.
    pub(crate) is_staged: bool,
}

/// The files of a service, and a message for each setting that the manager does not support.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) entries: Vec<Entry>,
    pub(crate) losses: Vec<String>,
}

/// The files and calls that enable a service's start at boot.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    /// The files that exist while the service is enabled.
    pub(crate) on: Vec<Entry>,
    /// The files that exist while the service is disabled.
    pub(crate) off: Vec<Entry>,
    /// The calls that enable the service, if files are not enough.
    pub(crate) turn_on: Vec<Call>,
    /// The calls that disable the service, if files are not enough.
    pub(crate) turn_off: Vec<Call>,
    /// Patterns for file names that the manager chooses, in which `?` matches any character. One of
    /// them exists while the service is enabled.
    pub(crate) shown_by: Vec<PathBuf>,
}

/// A call that returns when the manager has loaded a new service.
#[derive(Debug)]
pub(crate) struct TakeIn {
    pub(crate) call: Call,
    /// The call that makes the manager unload it again.
    pub(crate) undo: Call,
}

/// A file or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) content: Content,
}

/// The content of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    File { mode: u32, text: String },
    Link(PathBuf),
}

impl Entry {
    /// Creates a file for a manager to read.
    pub(crate) fn file(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self::with_mode(path, 0o644, text)
    }

    /// Creates a file for a manager to execute.
    pub(crate) fn script(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self::with_mode(path, 0o755, text)
    }

    fn with_mode(path: impl Into<PathBuf>, mode: u32, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let content = Content::File { mode, text };
        Self { path, content }
    }

    pub(crate) fn link(path: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        let (path, content) = (path.into(), Content::Link(target.into()));
        Self { path, content }
    }
}

/// A program to run, as an argv. It must exit with 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) argv: Vec<String>,
    /// Set if a failure is ignored because there may be nothing to do.
    pub(crate) may_fail: bool,
}

impl Call {
    pub(crate) fn new<W: Into<String>>(argv: impl IntoIterator<Item = W>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            may_fail: false,
        }
    }

    pub(crate) fn may_fail(self) -> Self {
        Self {
            may_fail: true,
            ..self
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.argv.join(" "))
    }
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Writes an entry atomically and durably, replacing an existing one, and creates missing
    /// directories above it.
    Put(Entry),
    /// Removes a file. A missing file is not an error.
    Remove(PathBuf),
    /// Runs a call. The second call undoes it.
    Run(Call, Option<Call>),
}

impl fmt::Display for Step {
    /// For people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(Entry { path, content }) => match content {
                Content::File { mode, text } => {
                    write!(f, "write {} ({mode:04o}):\n\n{text}\n", path.display())
                }
                Content::Link(target) => {
                    writeln!(f, "link {} to {}", path.display(), target.display())
                }
            },
            Self::Remove(path) => writeln!(f, "remove {}", path.display()),
            Self::Run(call, _) => writeln!(f, "run {call}"),
        }
    }
}

/// An order for a service, given through its manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Start,
    Stop,
    Restart,
    Pause,
    Resume,
    Reload,
}

impl Order {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Resume => "continue",
            Self::Reload => "reload",
        }
    }
}

impl Site {
    /// Returns the first of these landmarks that exists, or the default.
    pub(crate) fn first_of(
        &self,
        landmarks: &[&'static str],
        default: &'static str,
    ) -> &'static str {
        let found = landmarks.iter().find(|path| self.found.contains(path));
        found.copied().unwrap_or(default)
    }
}

/// The reason why a manager, or a service, does not support an order.
#[derive(Debug)]
pub(crate) struct Unsupported(pub(crate) &'static str);

/// A query of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// The output and exit code of a program, run in the C locale.
    Run(Vec<String>),
    /// The content of a file.
    Read(PathBuf),
}

impl Question {
    /// Creates a query that runs a program.
    pub(crate) fn run<W: Into<String>>(argv: impl IntoIterator<Item = W>) -> Self {
        Self::Run(Call::new(argv).argv)
    }
}

/// The answer to a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The exit code of a program, or `None` if it was killed. For a file, 0 if it exists.
    pub(crate) code: Option<i32>,
    pub(crate) output: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.output)
    }
}

/// Returns whether the text is that of a file written by this library.
pub(crate) fn is_ours(text: &str) -> bool {
    text.lines().take(4).any(|line| line.contains(MARK))
}

/// Returns the program of a definition.
pub(crate) fn program<'a>(definition: &'a Definition, site: &'a Site) -> &'a Path {
    definition.executable.as_deref().unwrap_or(&site.running)
}
