//! A definition on its way to a manager's files: the mistakes in it, the settings that the manager
//! does not support, and the checks that managers have in common.

use super::{Entry, SIGNALS, Site, Unit};
use crate::definition::wrong_name;
use crate::{Account, Definition, Error, ErrorKind, Limit, Readiness, Start, StopScope};

/// A definition, with its unsupported settings and its mistakes.
pub(super) struct Draft<'a> {
    pub(super) definition: &'a Definition,
    pub(super) site: &'a Site,
    wrong: Vec<String>,
    losses: Vec<String>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(definition: &'a Definition, site: &'a Site) -> Self {
        Self {
            definition,
            site,
            wrong: wrong_name(&definition.name).into_iter().collect(),
            losses: Vec::new(),
        }
    }

    /// Reports a mistake.
    pub(super) fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    /// Reports a setting that the manager does not support.
    pub(super) fn lose(&mut self, what: impl Into<String>) {
        self.losses.push(what.into());
    }

    /// Returns the unit.
    ///
    /// # Errors
    /// If there are mistakes. All of them are reported at once.
    pub(super) fn finish(self, entries: Vec<Entry>) -> Result<Unit, Error> {
        if !self.wrong.is_empty() {
            let name = &self.definition.name;
            let what = format!("service {name:?}: {}", self.wrong.join("; "));
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Unit {
            entries,
            losses: self.losses,
        })
    }

    /// Returns the service's title, if it has one.
    pub(super) fn title(&self) -> Option<&'a str> {
        let Definition {
            description,
            display_name,
            ..
        } = self.definition;
        description.as_deref().or(display_name.as_deref())
    }

    /// Checks the signal for this purpose.
    pub(super) fn check_signal(&mut self, purpose: &str, signal: &str) {
        if !SIGNALS.contains(&signal) {
            let known = SIGNALS.join(", ");
            self.wrong(format!(
                "the {purpose} signal {signal:?} is not supported: use one of {known}"
            ));
        }
    }

    pub(super) fn check_user(&mut self, user: &str) {
        if !is_made_of(user, b"_.-") || user.starts_with('-') {
            self.wrong(format!("{user:?} is not a valid user name"));
        }
    }

    /// Returns whether a variable has a valid name and a value that the manager's files can
    /// contain, or reports it.
    pub(super) fn check_variable(&mut self, name: &str, is_sayable: bool) -> bool {
        let is_valid = is_name(name) && is_sayable;
        if !is_valid {
            self.wrong(format!(
                "the variable {name:?} has an unsupported name or value"
            ));
        }
        is_valid
    }

    /// Returns whether the name of another service is valid, or reports it.
    pub(super) fn check_service(&mut self, name: &str, is_valid: bool) -> bool {
        if !is_valid {
            self.wrong(format!("{name:?} is not a valid service name"));
        }
        is_valid
    }

    /// Checks an address to listen on.
    pub(super) fn check_address(&mut self, address: &str) {
        if !is_made_of(address, b"[]:._/-") {
            self.wrong(format!("{address:?} is not a valid address to listen on"));
        }
    }

    /// Reports an account that the manager does not have.
    pub(super) fn refuse_account(&mut self, account: &Account) {
        match account {
            Account::Managed(account) => self.wrong(format!("{account} is a Windows account")),
            _ => self.wrong(
                "this system has no accounts for single services: use a user (--account user:NAME), or local-system",
            ),
        }
    }

    pub(super) fn lose_watchdog(&mut self) {
        if self.definition.watchdog.is_some() {
            self.lose("`watchdog`: a service that hangs is not restarted");
        }
    }

    pub(super) fn lose_readiness(&mut self) {
        let Definition {
            readiness,
            ready_check,
            ..
        } = self.definition;
        if *readiness == Readiness::Notify && ready_check.is_none() {
            self.lose("readiness: it counts as ready as soon as its program runs");
        }
    }

    pub(super) fn lose_tree(&mut self) {
        if self.definition.stop_scope == StopScope::Tree {
            self.lose("stop of the process tree: only the main process receives the stop signal");
        }
    }

    /// Reports that the processes that remain after a stop, or after a crash, are not killed.
    pub(super) fn lose_remains(&mut self) {
        self.lose("remaining processes: they are not killed");
    }

    pub(super) fn lose_disabled(&mut self) {
        if self.definition.start == Start::Disabled {
            self.lose("disabled start: it does not start at boot, but can be started");
        }
    }
}

/// Returns whether the text can be the name of a variable.
pub(super) fn is_name(name: &str) -> bool {
    is_made_of(name, b"_") && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// Returns whether the text is made of ASCII letters, digits and `others`, and is not empty.
pub(super) fn is_made_of(text: &str, others: &[u8]) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
    !text.is_empty() && text.bytes().all(is_plain)
}

/// Converts text to one line, for comments and titles.
pub(super) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(char::is_control).map(str::trim).collect();
    words.join(" ").trim().to_owned()
}

pub(super) fn joined<T: ToString>(values: impl IntoIterator<Item = T>, separator: &str) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    values.join(separator)
}

/// Returns the name of a limit as setrlimit(2) derives it.
pub(super) fn limit_name(limit: Limit) -> &'static str {
    match limit {
        Limit::OpenFiles => "nofile",
        Limit::Processes => "nproc",
        Limit::CoreSize => "core",
        Limit::LockedMemory => "memlock",
    }
}
