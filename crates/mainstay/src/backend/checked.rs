//! A definition converted to text and validated, for managers that have no accounts, limits or
//! contracts of their own like systemd's. The mistakes and the unsupported settings are the same
//! for all of them.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::draft::Draft;
use super::{Call, Entry, Site, Unit, Unsupported, limit_in, program, sh};
use crate::{Accepts, Account, Definition, Error, Limit, Scope};

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
    pub(super) draft: Draft<'a>,
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
            draft: Draft::new(definition, site),
            can_say,
        };
        it.commands(program(definition, site));
        it.environment();
        it.account();
        it.draft.check_signal("stop", &definition.stop_signal);
        if it.user.is_some() {
            it.lose_env_file();
        }
        it.draft.lose_watchdog();
        it.draft.lose_disabled();
        it
    }

    /// Reports a setting that the manager does not support.
    pub(super) fn lose(&mut self, what: impl Into<String>) {
        self.draft.lose(what);
    }

    /// Returns the unit.
    ///
    /// # Errors
    /// If there are mistakes. All of them are reported at once.
    pub(super) fn finish(self, entries: Vec<Entry>) -> Result<Unit, Error> {
        self.draft.finish(entries)
    }

    /// Returns the text, or reports a mistake and returns `None` if the manager's files cannot
    /// contain it.
    pub(super) fn text(&mut self, what: &str, text: &'a OsStr) -> Option<&'a str> {
        let said = text.to_str().filter(|text| text.chars().all(self.can_say));
        if said.is_none() {
            self.draft.wrong(format!(
                "{what} contains an unsupported control character or invalid UTF-8"
            ));
        }
        said
    }

    fn path(&mut self, what: &str, path: &'a Path) -> Option<&'a str> {
        if !path.is_absolute() {
            let path = path.display();
            self.draft
                .wrong(format!("{what} {path} is not an absolute path"));
        }
        self.text(what, path.as_os_str())
    }

    fn words(&mut self, what: &str, words: &'a [OsString]) -> Vec<&'a str> {
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
            let is_sayable = value.chars().all(self.can_say);
            if self.draft.check_variable(name, is_sayable) {
                self.env.push((name, value));
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
            (Scope::System, Account::User(user, _)) => {
                self.draft.check_user(user);
                self.user = Some(user);
            }
            (Scope::System, account) => self.draft.refuse_account(account),
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
        if !recovery.final_codes().is_empty() {
            self.lose("exit codes after which it stays down");
        }
        if recovery.limit.is_some() {
            self.lose("restart limit");
        }
        Some(first)
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

    pub(super) fn lose_env_file(&mut self) {
        if self.definition.env_file.is_some() {
            self.lose(
                "reading `env_file` as root: the user of the service must be able to read it",
            );
        }
    }

    /// Returns the reload command as a line of a script.
    pub(super) fn reload_line(&self) -> Option<String> {
        let argv = self.reload.as_ref()?;
        Some(sh::command_line(argv.iter().copied()))
    }

    /// Returns the line of a script that reloads the configuration of the process `$pid`, if the
    /// service supports that.
    pub(super) fn reload_of_pid(&self) -> Option<String> {
        let is_told = self.definition.accepts.contains(Accepts::RELOAD);
        self.reload_line()
            .or_else(|| is_told.then(|| "kill -HUP \"$pid\"".to_owned()))
    }

    /// Returns the ready check as the last line of a script, without a line break at its end.
    pub(super) fn ready_line(&self) -> String {
        let argv = self.ready_check.iter();
        argv.map(|argv| format!("\n\t{}", sh::command_line(argv.iter().copied())))
            .collect()
    }

    /// Returns `ulimit` commands for a shell, which exits with this code if one of them fails.
    /// Memory can be locked in units of so many bytes, if at all.
    pub(super) fn ulimits(&mut self, locked_unit: Option<u64>, failure: u8) -> String {
        let mut text = String::new();
        for (limit, value) in &self.definition.limits {
            let (option, unit) = match (limit, locked_unit) {
                (Limit::OpenFiles, _) => ("-n", 1),
                (Limit::Processes, _) => ("-u", 1),
                (Limit::CoreSize, _) => ("-c", 512),
                (Limit::LockedMemory, Some(unit)) => ("-l", unit),
                (Limit::LockedMemory, None) => {
                    self.lose("limit of locked memory");
                    continue;
                }
            };
            let value = limit_in(unit, *value);
            let _infallible = writeln!(text, "ulimit {option} {value} || exit {failure}");
        }
        text
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
pub(super) fn reload(definition: &Definition, hangup: Call) -> Result<Vec<Call>, Unsupported> {
    match &definition.reload_command {
        Some(argv) => {
            let words: Option<Vec<&str>> = argv.iter().map(|word| word.to_str()).collect();
            Ok(words.map(Call::new).into_iter().collect())
        }
        None if definition.accepts.contains(Accepts::RELOAD) => Ok(vec![hangup]),
        None => Err(Unsupported(
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
