//! A service manager of this system, or of an image.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use super::executor::{self, Ground};
use crate::backend::{
    self, Answer, Backend, Call, Content, Entry, Order, Question, Site, Step, Switch, Unsupported,
    is_ours,
};
use crate::manager::Enablement;
use crate::{Definition, Error, ErrorKind, Manager, Scope, ServiceStatus, State, sys};

/// A manager and the system that its services are installed into.
pub(super) struct Seat {
    pub(super) backend: &'static dyn Backend,
    pub(super) site: Site,
    /// The directory that stands for `/`.
    pub(super) ground: Ground,
}

impl Seat {
    /// Returns the manager of a definition on this system.
    pub(super) fn of(definition: &Definition) -> Result<Self, Error> {
        Self::at(definition.manager, definition.scope, Ground::here())
    }

    pub(super) fn at(
        manager: Option<Manager>,
        scope: Scope,
        ground: Ground,
    ) -> Result<Self, Error> {
        let manager = manager.or_else(|| detect_in(&ground).into_iter().next());
        let Some(backend) = manager.and_then(backend::of) else {
            let what = manager.map_or("no supported service manager was found".into(), |manager| {
                format!("{manager} is not available on this system")
            });
            let error = Error::new(ErrorKind::Unsupported, what);
            let cure = match manager {
                Some(_) => "choose a manager of this system, or omit it for detection",
                None => "run it with its verb `run` from a service manager, or with `mainstay run`",
            };
            return Err(error.with_cure(cure));
        };
        if scope == Scope::User && !backend.facts().has_users {
            let what = format!(
                "{manager} does not support user services",
                manager = backend.manager()
            );
            return Err(Error::new(ErrorKind::Unsupported, what).with_cure("omit --user"));
        }
        let (config_dir, home_dir) = match scope {
            Scope::System => (PathBuf::new(), PathBuf::new()),
            Scope::User => {
                let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
                let missing = || {
                    Error::new(
                        ErrorKind::Invalid,
                        "cannot find your units: HOME is not set",
                    )
                };
                let home = variable("HOME").ok_or_else(missing)?;
                let config = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
                (config.unwrap_or_else(|| home.join(".config")), home)
            }
        };
        let running = std::env::current_exe().map_err(|error| {
            Error::new(ErrorKind::Failed, "cannot find the path of this program").because(error)
        })?;
        let landmarks = backend.facts().landmarks.iter().copied();
        let found = landmarks.filter(|path| ground.at(Path::new(path)).exists());
        let site = Site {
            scope,
            running,
            found: found.collect(),
            version: 0,
            config_dir,
            home_dir,
            user: sys::user(),
            is_staged: ground.is_staged(),
        };
        Ok(Self {
            backend,
            site,
            ground,
        })
    }

    /// Checks whether this process may change the manager's services.
    pub(super) fn check_rights(&self, what: &str) -> Result<(), Error> {
        if sys::user() == 0 || self.site.scope == Scope::User || self.site.is_staged {
            return Ok(());
        }
        let error = Error::new(ErrorKind::PermissionDenied, what);
        let error = error.because(io::ErrorKind::PermissionDenied.into());
        Err(error.with_cure("run it as root"))
    }

    /// Determines the manager's version, which unit files depend on.
    pub(super) fn ask_version(&mut self) {
        if !self.site.is_staged
            && let Some(question) = self.backend.version_question()
            && let Ok(answer) = ask(&question)
        {
            self.site.version = self.backend.version(&answer).unwrap_or(0);
        }
    }

    /// Checks that the manager is running, so that its missing answers are meaningful.
    pub(super) fn check_runs(&self, what: &str) -> Result<(), Error> {
        let manager = self.backend.manager();
        let is_running = || self.backend.facts().signs.iter().any(executor::is_there);
        // A user's manager is queried directly.
        if self.site.is_staged || self.site.scope == Scope::User || is_running() {
            return Ok(());
        }
        let what = format!("{what}: {manager} is not running on this system");
        let error = Error::new(ErrorKind::Unsupported, what);
        Err(error
            .with_cure("choose a running manager (--manager), or install into an image (--root)"))
    }

    pub(super) fn status(&self, name: &str) -> Result<ServiceStatus, Error> {
        let what = format!("cannot query service \"{name}\"");
        self.check_runs(&what)?;
        let answers = self.backend.questions(name, &self.site);
        let answers: Vec<Answer> =
            answers
                .iter()
                .map(ask)
                .collect::<io::Result<_>>()
                .map_err(|error| match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        Error::new(ErrorKind::PermissionDenied, &*what)
                            .because(error)
                            .with_cure("run it as root")
                    }
                    _ => Error::new(ErrorKind::Failed, &*what).because(error),
                })?;
        if !self.backend.has_answered(&answers) {
            let what = format!("{what}: {} does not respond", self.backend.manager());
            let error = Error::new(ErrorKind::Unsupported, what);
            return Err(error.with_cure("check that it is running for this user"));
        }
        let missing = || {
            let error = Error::new(ErrorKind::NotInstalled, format!("{what}: not installed"));
            error.with_cure("install it first")
        };
        self.backend.status(&answers).ok_or_else(missing)
    }

    /// Returns `Enabled` if the entries that start the service at boot exist and those that prevent
    /// it do not.
    pub(super) fn enablement(&self, name: &str) -> Enablement {
        if self.is_enabled(name) {
            Enablement::Enabled
        } else {
            Enablement::Disabled
        }
    }

    fn is_enabled(&self, name: &str) -> bool {
        let Switch {
            on, off, shown_by, ..
        } = self.backend.switch(name, &self.site);
        if !shown_by.is_empty() {
            return shown_by.iter().any(|path| self.ground.has_like(path));
        }
        let is_there = |entry: &Entry| self.ground.holds(entry);
        let by_files = on.iter().all(is_there) && !off.iter().any(is_there);
        if !by_files || self.site.is_staged {
            return by_files;
        }
        let questions = self.backend.enabled_questions(name, &self.site);
        let answers: io::Result<Vec<Answer>> = questions.iter().map(ask).collect();
        answers.is_ok_and(|answers| self.backend.is_enabled(name, &answers))
    }

    /// Returns the steps from the current enablement to the wanted one.
    pub(super) fn switch(&self, name: &str, wanted: Enablement) -> Result<Vec<Step>, Error> {
        let Switch {
            on,
            off,
            turn_on,
            turn_off,
            ..
        } = self.backend.switch(name, &self.site);
        let (come, go, run, undo) = match wanted {
            Enablement::Enabled => (on, off, turn_on, turn_off),
            Enablement::Disabled => (off, on, turn_off, turn_on),
        };
        let own_dirs = self.backend.own_dirs(name, &self.site);
        let is_own = |entry: &&Entry| own_dirs.iter().any(|dir| entry.path.starts_with(dir));
        for entry in come.iter().filter(|entry| !is_own(entry)) {
            if matches!(entry.content, Content::File { .. }) {
                self.is_our_file(&entry.path)?;
            }
        }
        let paths: Vec<PathBuf> = come.iter().map(|entry| entry.path.clone()).collect();
        let come = come.into_iter().filter(|entry| !self.ground.holds(entry));
        // A file that takes the place of another one replaces it.
        let go = go.into_iter();
        let go = go.filter(|entry| !paths.contains(&entry.path) && self.ground.holds(entry));
        let files = come
            .map(Step::Put)
            .chain(go.map(|entry| Step::Remove(entry.path)));
        let mut undo = undo.into_iter();
        let calls = run.into_iter().filter(|_| !self.site.is_staged);
        let calls = calls.map(|call| Step::Run(call, undo.next()));
        Ok(files.chain(calls).collect())
    }

    pub(super) fn take_notice(&self, changed: &[&str]) -> Vec<Call> {
        if self.site.is_staged || changed.is_empty() {
            Vec::new()
        } else {
            self.backend.take_notice(changed, &self.site)
        }
    }

    /// Returns whether a service of this name exists and was installed by this library.
    pub(super) fn is_ours(&self, name: &str) -> Result<bool, Error> {
        self.is_our_file(&self.backend.unit_path(name, &self.site))
    }

    pub(super) fn is_our_file(&self, path: &Path) -> Result<bool, Error> {
        match executor::read_file(&self.ground.at(path)) {
            Ok(text) if is_ours(&text) => Ok(true),
            Ok(_) => Err(foreign(&format!("cannot change {}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                let what = format!("cannot read {}", path.display());
                Err(Error::new(ErrorKind::Failed, what).because(error))
            }
        }
    }

    /// Executes an order and returns when it is complete.
    pub(super) fn order(
        &self,
        definition: &Definition,
        order: Order,
        state: State,
    ) -> Result<(), Error> {
        let what = format!("cannot {} service \"{}\"", order.as_str(), definition.name);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let calls = self.backend.control(definition, order, state, &self.site);
        let calls = calls.map_err(|Unsupported(why)| {
            Error::new(ErrorKind::NotAccepted, &*what).with_cure(why)
        })?;
        for call in calls {
            executor::run(&call, &what).map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => error.with_cure("run it as root"),
                kind => {
                    let since = since.clone().unwrap_or_default().as_secs();
                    let journal = self.backend.journal(&definition.name, &self.site);
                    let error = match self.failure(&definition.name, order, since) {
                        Some(cause) => Error::new(kind, &*what).because(io::Error::other(cause)),
                        None => error,
                    };
                    error.with_cure(format!("see `{journal}`"))
                }
            })?;
        }
        Ok(())
    }

    /// Returns the reason why a service could not be started, if the manager reports one.
    fn failure(&self, name: &str, order: Order, since: u64) -> Option<String> {
        if !matches!(order, Order::Start | Order::Restart) {
            return None;
        }
        let question = self.backend.failure_question(name, since, &self.site)?;
        self.backend.failure(name, &ask(&question).ok()?)
    }
}

pub(super) fn detect_in(ground: &Ground) -> Vec<Manager> {
    let all = backend::ALL.iter();
    let here = all.filter(|backend| {
        let facts = backend.facts();
        let is_there = |trace: &str| ground.at(Path::new(trace)).exists();
        facts.traces.are_there(is_there)
            && (ground.is_staged() || facts.signs.iter().any(executor::is_there))
    });
    here.map(|backend| backend.manager()).collect()
}

fn ask(question: &Question) -> io::Result<Answer> {
    match question {
        Question::Run(argv) => {
            let output = executor::command(argv).stderr(Stdio::null()).output()?;
            Ok(Answer {
                code: output.status.code(),
                output: output.stdout,
            })
        }
        Question::Read(path) => match fs::read(path) {
            Ok(output) => Ok(Answer {
                code: Some(0),
                output,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::default()),
            Err(error) => Err(error),
        },
    }
}

pub(super) fn foreign(what: &str) -> Error {
    let what = format!("{what}: another service of that name already exists");
    Error::new(ErrorKind::Failed, what).with_cure("choose another name, or remove that service")
}
