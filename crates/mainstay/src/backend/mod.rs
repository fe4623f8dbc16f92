//! The service managers of Unix, each as a description: which files make a service, which make it start with the system, what is run to
//! control it, and what is read to know how it is.
//!
//! A description never acts. `sys/unix/manage.rs` compares it with what is there, and performs the difference as a plan, each [`Step`] of
//! which can be shown, and taken back. So an installation can be looked at beforehand, put into an image (`--root`), and leaves nothing where
//! it fails. What a manager cannot express is a loss, as data; what would be read there as something else is refused.
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

use crate::{Definition, Error, ErrorKind, Manager, Scope, ServiceStatus, State};

/// What is in the first lines of each file by which a manager knows a service of ours.
pub(crate) const MARK: &str = "Written by `install`, which overwrites it.";

/// What the status text of a service begins with that has paused itself ([`Control::Pause`](crate::Control::Pause)).
pub(crate) const PAUSED: &str = "paused";

/// By which a program can be asked to stop, or told something: signal(7).
pub(crate) const SIGNALS: &[&str] = &["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "WINCH"];

/// A limit as ulimit(1) takes it, in units of so many bytes; `u64::MAX` is no limit.
pub(crate) fn limit_in(unit: u64, value: u64) -> String {
    match value {
        u64::MAX => "unlimited".to_owned(),
        value => value.div_ceil(unit).to_string(),
    }
}

/// One service manager.
pub(crate) trait Backend: Sync {
    /// Which.
    fn manager(&self) -> Manager;

    /// Whether it also has services of users.
    fn has_users(&self) -> bool {
        false
    }

    /// Directories of the system by which it is known to be installed, in an image, too; all of them must be there.
    fn traces(&self) -> &'static [&'static str];

    /// Whether it is installed, by what is there.
    fn is_traced(&self, is_there: &dyn Fn(&str) -> bool) -> bool {
        self.traces().iter().all(|trace| is_there(trace))
    }

    /// Paths that differ between systems with this manager, and of which a description must know which are there: [`Site::found`].
    fn landmarks(&self) -> &'static [&'static str] {
        &[]
    }

    /// What shows that it runs the system; one of them is enough.
    fn signs(&self) -> &'static [Sign];

    /// The files of a service; the first one has the [`MARK`], and is there if the service is.
    ///
    /// # Errors
    /// All that is wrong with it, and all that this manager cannot be told, at once.
    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error>;

    /// Where the first file of [`Backend::unit`] lies.
    fn unit_path(&self, name: &str, site: &Site) -> PathBuf;

    /// Where units lie side by side.
    fn unit_dir(&self, site: &Site) -> PathBuf;

    /// The service to which a file of that directory belongs.
    fn listed(&self, file: &str) -> Option<String> {
        Some(file.to_owned())
    }

    /// All files that units of this name may have, beside what is in directories of its own; those that are there and not of its unit go.
    fn parts(&self, name: &str, site: &Site) -> Vec<PathBuf> {
        vec![self.unit_path(name, site)]
    }

    /// Files that the manager, or a script of ours, has made while it ran.
    fn leavings(&self, _name: &str, _site: &Site) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Directories that are the service's alone, with what the manager itself leaves in them.
    fn own_dirs(&self, _name: &str, _site: &Site) -> Vec<PathBuf> {
        Vec::new()
    }

    /// What makes it start with the system, or not.
    fn switch(&self, name: &str, site: &Site) -> Switch;

    /// What is asked to know whether it starts with the system, where files do not tell.
    fn enabled_questions(&self, _name: &str, _site: &Site) -> Vec<Question> {
        Vec::new()
    }

    /// What the answers mean, beside the files of [`Backend::switch`].
    fn is_enabled(&self, _name: &str, _answers: &[Answer]) -> bool {
        true
    }

    /// For a manager that starts by itself what it finds: [`Switch::off`] is there when a new service comes, this is run until the manager has
    /// it, and only then [`Switch::off`] goes, if it is to.
    fn take_in(&self, _name: &str, _site: &Site) -> Option<TakeIn> {
        None
    }

    /// What is run once after files were written, or removed: for `changed` services.
    fn take_notice(&self, changed: &[&str], site: &Site) -> Vec<Call>;

    /// What is run for one service before its files go; it does not run any more.
    fn let_go(&self, _name: &str, _site: &Site) -> Vec<Call> {
        Vec::new()
    }

    /// What is run to have it do this, where it is in that state; each call returns when it is done.
    ///
    /// # Errors
    /// This manager cannot do that.
    fn control(
        &self,
        definition: &Definition,
        order: Order,
        state: State,
        site: &Site,
    ) -> Result<Vec<Call>, Error>;

    /// What is asked to know how it is; the answers are for [`Backend::status`].
    fn questions(&self, name: &str, site: &Site) -> Vec<Question>;

    /// Whether these are answers of the manager's, and not of a client that has not found it.
    fn has_answered(&self, _answers: &[Answer]) -> bool {
        true
    }

    /// What the answers mean, in the order of the questions; `None` if the manager knows no such service.
    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus>;

    /// What tells its own version, where descriptions depend on that.
    fn version_question(&self) -> Option<Question> {
        None
    }

    /// What the answer means.
    fn version(&self, _answer: &Answer) -> Option<u32> {
        None
    }

    /// What tells why it failed, since so many seconds after 1970.
    fn failure_question(&self, _name: &str, _since: u64, _site: &Site) -> Option<Question> {
        None
    }

    /// The cause in that answer, in one line.
    fn failure(&self, _name: &str, _answer: &Answer) -> Option<String> {
        None
    }

    /// What operators run to see why it failed.
    fn journal(&self, name: &str, site: &Site) -> String;
}

/// All of them, the more likely ones first where a system has several: runit and s6 may also run below any other, dinit may be called init.
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

/// The one of this name.
pub(crate) fn of(manager: Manager) -> Option<&'static dyn Backend> {
    ALL.iter()
        .copied()
        .find(|backend| backend.manager() == manager)
}

/// Evidence of a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// There is such a file.
    Path(&'static str),
    /// Process 1 has this name.
    Init(&'static str),
    /// Some process has this name.
    Process(&'static str),
}

/// What a description must know of the place it is for.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) scope: Scope,
    /// The program that runs now, which a definition means if it names none.
    pub(crate) running: PathBuf,
    /// Of the manager; 0 where nobody has asked, or it does not say.
    pub(crate) version: u32,
    /// The configuration directory of the user: `$XDG_CONFIG_HOME`. For [`Scope::User`].
    pub(crate) config_dir: PathBuf,
    /// That user's home, and number. For [`Scope::User`].
    pub(crate) home_dir: PathBuf,
    pub(crate) user: u32,
    /// Those of [`Backend::landmarks`] that are there.
    pub(crate) found: Vec<&'static str>,
    /// The system is not the running one, but lies below a directory: nothing can be asked or run.
    pub(crate) is_staged: bool,
}

/// What a manager reads, and what it cannot be told, one text each.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) entries: Vec<Entry>,
    pub(crate) losses: Vec<String>,
}

/// What makes a service start with the system.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    /// Are there while it does.
    pub(crate) on: Vec<Entry>,
    /// Are there while it does not.
    pub(crate) off: Vec<Entry>,
    /// Run to have it so, where files are not enough.
    pub(crate) turn_on: Vec<Call>,
    /// The same for the other way.
    pub(crate) turn_off: Vec<Call>,
    /// Where the manager chooses the names of its files: one of these, in which a `?` is any character, is there while it does.
    pub(crate) shown_by: Vec<PathBuf>,
}

/// What is run until a manager has a new service.
#[derive(Debug)]
pub(crate) struct TakeIn {
    pub(crate) call: Call,
    /// Has the manager forget it.
    pub(crate) undo: Call,
}

/// A file or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) content: Content,
}

/// What is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    File { mode: u32, text: String },
    Link(PathBuf),
}

impl Entry {
    /// For a manager to read.
    pub(crate) fn file(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self::with_mode(path, 0o644, text)
    }

    /// For it to run.
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

/// A program that is run, as an argv; it must exit with 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) argv: Vec<String>,
    /// Failing is no failure: there may be nothing to do.
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

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// As a whole and on disk, in the place of what is there, with the directories above it.
    Put(Entry),
    /// What is not there is no failure.
    Remove(PathBuf),
    /// With how it is taken back.
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

/// What a service can be told through its manager.
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
    /// The first of these landmarks that is there, or else this.
    pub(crate) fn first_of(
        &self,
        landmarks: &[&'static str],
        default: &'static str,
    ) -> &'static str {
        let found = landmarks.iter().find(|path| self.found.contains(path));
        found.copied().unwrap_or(default)
    }
}

/// Something to ask the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// What a program writes, in no language but C's, and how it exits.
    Run(Vec<String>),
    /// What is in a file.
    Read(PathBuf),
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Of a program; `None` if it was killed. For a file: 0 if it is there.
    pub(crate) code: Option<i32>,
    pub(crate) output: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.output)
    }
}

/// That a manager cannot do this.
pub(crate) fn cannot(definition: &Definition, order: Order, why: &str) -> Error {
    let what = format!("{} service \"{}\"", order.as_str(), definition.name);
    Error::new(ErrorKind::NotAccepted, what).with_cure(why)
}

/// Of a definition, or of one of its parts, all of whose mistakes are told at once.
pub(crate) fn refuse_if(name: &str, wrong: &[String]) -> Result<(), Error> {
    match wrong {
        [] => Ok(()),
        wrong => {
            let what = format!("service {name:?}: {}", wrong.join("; "));
            Err(Error::new(ErrorKind::Invalid, what))
        }
    }
}

/// Whether this is a file of ours.
pub(crate) fn is_ours(text: &str) -> bool {
    text.lines().take(4).any(|line| line.contains(MARK))
}

/// The program of a definition.
pub(crate) fn program<'a>(definition: &'a Definition, site: &'a Site) -> &'a Path {
    definition.executable.as_deref().unwrap_or(&site.running)
}
