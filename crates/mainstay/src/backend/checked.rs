//! A definition converted to text and validated, for managers that have no accounts, limits or
//! contracts of their own like systemd's. The mistakes and the unsupported settings are the same
//! for all of them.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use super::sh::is_name;
use super::{Call, Order, SIGNALS, Site, cannot, program};
use crate::definition::wrong_name;
use crate::{Accepts, Account, Definition, Error, Readiness, Scope, Start};

/// A definition, prepared for a manager.
pub(super) struct Checked<'a> {
    pub(super) definition: &'a Definition,
    /// The program and its arguments.
    pub(super) argv: Vec<&'a str>,
    pub(super) env: Vec<(&'a str, &'a str)>,
    pub(super) env_file: Option<&'a str>,
    pub(super) working_dir: Option<&'a str>,
    /// The user; `None` for root, or for the user who owns the service.
    pub(super) user: Option<&'a str>,
    pub(super) reload: Option<Vec<&'a str>>,
    pub(super) ready_check: Option<Vec<&'a str>>,
    pub(super) wrong: Vec<String>,
    pub(super) losses: Vec<String>,
    can_say: fn(char) -> bool,
}

impl<'a> Checked<'a> {
    /// `can_say` returns whether the manager's files can contain a character.
    pub(super) fn new(
        definition: &'a Definition,
        site: &'a Site,
        can_say: fn(char) -> bool,
    ) -> Self {
        let mut it = Self {
            definition,
            argv: Vec::new(),
            env: Vec::new(),
            env_file: None,
            working_dir: None,
            user: None,
            reload: None,
            ready_check: None,
            wrong: wrong_name(&definition.name).into_iter().collect(),
            losses: Vec::new(),
            can_say,
        };
        it.commands(program(definition, site));
        it.environment();
        it.account();
        if !SIGNALS.contains(&&*definition.stop_signal) {
            it.wrong.push(format!(
                "the stop signal {:?} is not supported: use one of {}",
                definition.stop_signal,
                SIGNALS.join(", ")
            ));
        }
        if it.env_file.is_some() && it.user.is_some() {
            it.lose("reading `env_file` as root: the user of the service must be able to read it");
        }
        if definition.watchdog.is_some() {
            it.lose("`watchdog`: a service that hangs is not restarted");
        }
        if definition.start == Start::Disabled {
            it.lose("disabled start: it does not start at boot, but can be started");
        }
        it
    }

    pub(super) fn lose(&mut self, what: impl Into<String>) {
        self.losses.push(what.into());
    }

    /// Returns the text, or reports a mistake and returns `None` if the manager's files cannot
    /// contain it.
    pub(super) fn text(&mut self, what: &str, text: &'a OsStr) -> Option<&'a str> {
        let said = text.to_str().filter(|text| text.chars().all(self.can_say));
        if said.is_none() {
            self.wrong.push(format!(
                "{what} contains an unsupported control character or invalid UTF-8"
            ));
        }
        said
    }

    fn path(&mut self, what: &str, path: &'a Path) -> Option<&'a str> {
        if !path.is_absolute() {
            let path = path.display();
            self.wrong
                .push(format!("{what} {path} is not an absolute path"));
        }
        self.text(what, path.as_os_str())
    }

    fn words(&mut self, what: &str, words: &'a [std::ffi::OsString]) -> Vec<&'a str> {
        let words = words.iter();
        words.filter_map(|word| self.text(what, word)).collect()
    }

    fn commands(&mut self, program: &'a Path) {
        let program = self.path("the program", program);
        self.argv.extend(program);
        let arguments = match &self.definition.arguments {
            Some(arguments) => self.words("the command line", arguments),
            None => vec!["run"],
        };
        self.argv.extend(arguments);
        let (reload, ready) = (
            &self.definition.reload_command,
            &self.definition.ready_check,
        );
        self.reload = reload
            .as_ref()
            .map(|argv| self.words("the reload command", argv));
        self.ready_check = ready
            .as_ref()
            .map(|argv| self.words("the ready check", argv));
        if let Some(dir) = &self.definition.working_dir {
            self.working_dir = self.path("the working directory", dir);
        }
    }

    fn environment(&mut self) {
        for (name, value) in &self.definition.env {
            if is_name(name) && value.chars().all(self.can_say) {
                self.env.push((name, value));
            } else {
                self.wrong.push(format!(
                    "the variable {name:?} has an unsupported name or value"
                ));
            }
        }
        if let Some(path) = &self.definition.env_file {
            self.env_file = self.path("the env_file", path);
        }
    }

    fn account(&mut self) {
        match (self.definition.scope, &self.definition.account) {
            (Scope::User, Account::Virtual) | (Scope::System, Account::LocalSystem) => {}
            (Scope::User, _) => self.lose("account: a user service runs as its user"),
            (Scope::System, Account::Virtual | Account::LocalService | Account::NetworkService) => {
                let wrong = "this system has no accounts for single services: use a user (--account user:NAME), or local-system";
                self.wrong.push(wrong.to_owned());
            }
            (Scope::System, Account::User(user, _)) => {
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
                if user.is_empty() || user.starts_with('-') || !user.bytes().all(is_plain) {
                    self.wrong
                        .push(format!("{user:?} is not a valid user name"));
                }
                self.user = Some(user);
            }
            (Scope::System, Account::Managed(account)) => {
                self.wrong.push(format!("{account} is a Windows account"));
            }
        }
    }

    /// Returns the constant delay before a restart, or `None` if the service is to stay down. For
    /// managers whose delay does not grow.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        let recovery = &self.definition.recovery;
        let pauses = &recovery.restart_after;
        let first = *pauses.first()?;
        if pauses.iter().any(|pause| *pause != first) {
            self.lose(format!(
                "growing restart delays: each is {}s",
                whole_seconds(first)
            ));
        }
        if !recovery.halts.is_empty() {
            self.lose("exit codes after which it stays down");
        }
        if recovery.limit.is_some() {
            self.lose("restart limit");
        }
        Some(first)
    }

    pub(super) fn lose_readiness(&mut self) {
        if self.definition.readiness == Readiness::Notify && self.ready_check.is_none() {
            self.lose("readiness: it counts as ready as soon as its program runs");
        }
    }

    pub(super) fn lose_cpus(&mut self) {
        if !self.definition.cpus.is_empty() {
            self.lose("CPU affinity");
        }
    }

    /// For managers that set the nice value as the service's user: a negative value requires root.
    pub(super) fn lose_nice(&mut self) {
        if self.definition.nice.is_some_and(|nice| nice < 0) && self.user.is_some() {
            self.lose("negative nice value of a program that runs as a user");
        }
    }

    pub(super) fn lose_listen(&mut self) {
        if !self.definition.listen.is_empty() {
            self.lose("`listen`: no sockets are opened for it");
        }
    }

    pub(super) fn lose_tree(&mut self) {
        if self.definition.stop_scope == crate::StopScope::Tree {
            self.lose("stop of the process tree: only the main process receives the stop signal");
        }
    }

    pub(super) fn title(&self) -> Option<&'a str> {
        let Definition {
            description,
            display_name,
            ..
        } = self.definition;
        description.as_deref().or(display_name.as_deref())
    }
}

/// Converts a duration to the whole seconds that managers use. It rounds up and returns at least 1,
/// because 0 means unlimited.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration
        .as_millis()
        .div_ceil(1000)
        .clamp(1, i32::MAX as u128) as u64
}

/// Returns the ready check, if the definition has one.
pub(super) fn ready_check(definition: &Definition) -> Option<Call> {
    let argv = definition.ready_check.as_ref()?;
    let words: Option<Vec<&str>> = argv.iter().map(|word| word.to_str()).collect();
    words.map(Call::new)
}

/// Returns the calls that reload the configuration: the definition's own command, or `hangup`,
/// which sends SIGHUP. If the service supports neither, it is left alone, because the signal would
/// terminate it.
pub(super) fn reload(definition: &Definition, hangup: Call) -> Result<Vec<Call>, Error> {
    match &definition.reload_command {
        Some(argv) => {
            let words: Option<Vec<&str>> = argv.iter().map(|word| word.to_str()).collect();
            Ok(words.map(Call::new).into_iter().collect())
        }
        None if definition.accepts.contains(Accepts::RELOAD) => Ok(vec![hangup]),
        None => Err(cannot(
            definition,
            Order::Reload,
            "it does not accept reloads: see Definition::accepts",
        )),
    }
}

/// One definition of each kind, for the tests of all managers.
#[cfg(test)]
pub(super) mod examples {
    use std::time::Duration;

    use super::super::{Site, golden};
    use crate::{
        Accepts, Account, Definition, Limit, Readiness, Recovery, Start, StopScope, service,
    };

    pub(in super::super) fn site() -> Site {
        Site {
            version: 0,
            ..golden::site()
        }
    }

    /// A Rust program that uses the library.
    pub(in super::super) fn library() -> Definition {
        service("orders")
            .description("Orders, 100 % <b>")
            .needs("postgresql")
            .account(Account::User("joe".into(), None))
            .accepts(Accepts::RELOAD)
            .graceful(Duration::from_millis(1500))
    }

    /// A program that is supervised by a Mainstay host.
    pub(in super::super) fn hosted() -> Definition {
        let recovery = Recovery {
            restart_after: vec![Duration::from_secs(1)],
            crashes_only: true,
            ..Recovery::default()
        };
        let host = ["host", "orders"];
        service("orders")
            .executable("/usr/local/bin/mainstay")
            .arguments(host)
            .account(Account::LocalSystem)
            .ready_check(["/usr/local/bin/mainstay", "await", "orders"])
            .recovery(recovery)
            .supervises()
    }

    /// A program with every setting.
    pub(in super::super) fn direct() -> Definition {
        let recovery = Recovery {
            restart_after: vec![Duration::from_secs(3)],
            limit: Some((5, Duration::from_secs(60))),
            halts: [78].into(),
            clean: [143].into(),
            ..Recovery::default()
        };
        service("orders-2")
            .executable("/usr/bin/orders")
            .arguments(["-c", "it's $HOME"])
            .env("A", "1 \"$2\"")
            .env_file("/etc/orders env")
            .working_dir("/srv/a b")
            .account(Account::User("joe".into(), None))
            .readiness(Readiness::Exec)
            .start(Start::Manual)
            .stop_signal("INT")
            .stop_scope(StopScope::Tree)
            .reload_command(["/usr/bin/orders", "reload it"])
            .nice(-5)
            .cpus([0, 2])
            .limit(Limit::OpenFiles, 1024)
            .listen("[::1]:80")
            .listen("/run/orders.sock")
            .watchdog(Duration::from_secs(10))
            .recovery(recovery)
    }
}
