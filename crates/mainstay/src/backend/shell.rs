//! Common parts of the managers that run sh scripts: quoting, and the interpretation of a
//! definition. Without side effects.
//!
//! Sources: POSIX "Shell Command Language"; dash(1), which supports no more than that.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::draft::{Draft, is_made_of, joined, one_line};
use super::{MARK, Site, program, sh};
use crate::manager::MANAGER_VARIABLE;
use crate::{Account, Definition, Limit, Manager, Recovery, StopScope};

/// Functions that inspect processes without a tool: proc(5), "stat". A process name may contain
/// anything, so the last parenthesis is used.
pub(crate) const PROCESSES: &str = r#"# Sets state, session and birth (in ticks since the boot) of a process; fails where there is none that lives.
look_at() {
	state= session= birth=
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	set -- ${stat##*) }
	state=$1 session=$4 birth=${20}
	[ "$state" != Z ] && [ "$state" != X ]
}
# Sends a signal to all processes of a session, or to those that are not the one of the third argument.
signal_session() {
	for one in /proc/[0-9]*; do
		one=${one#/proc/}
		[ "$one" != "$3" ] && look_at "$one" && [ "$session" = "$2" ] && kill -"$1" "$one" 2>/dev/null
	done
	:
}
"#;

/// Quotes one word of a script in single quotes, within which every character is literal. Returns
/// `None` if it contains a NUL, which no word can contain.
pub(super) fn quoted(text: &str) -> Option<String> {
    let word = format!("'{}'", text.replace('\'', "'\\''"));
    (!text.contains('\0')).then_some(word)
}

/// Quotes one word of a script if necessary.
pub(super) fn word(text: &str) -> Option<String> {
    (!text.contains('\0')).then(|| sh::quoted(text))
}

/// Converts a duration to whole seconds, rounded up.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs();
    seconds.saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// Returns whether a service that exits with this code stays down according to its recovery policy,
/// for managers that do not support exit codes.
pub(crate) fn ends_for_good(recovery: &Recovery, code: u32) -> bool {
    let has = |codes: &BTreeSet<u8>| u8::try_from(code).is_ok_and(|code| codes.contains(&code));
    code == 0
        || recovery.crashes_only
        || recovery.restart_after.is_empty()
        || has(&recovery.halts)
        || has(&recovery.clean)
}

/// Creates a draft and reports all settings that none of these managers supports.
pub(super) fn draft<'a>(definition: &'a Definition, site: &'a Site) -> Draft<'a> {
    let mut draft = Draft::new(definition, site);
    if let Some(path) = &definition.env_file
        && path.as_os_str().as_encoded_bytes().contains(&b'\n')
    {
        draft.wrong("the path of the env_file contains a line break");
    }
    if !definition.listen.is_empty() {
        draft.wrong("this system does not open sockets for a service: open them in the program");
    }
    draft.lose_watchdog();
    draft.lose_disabled();
    draft.lose_readiness();
    draft.check_signal("stop", &definition.stop_signal);
    for (name, value) in &definition.env {
        draft.check_variable(name, !value.contains('\0'));
    }
    match &definition.account {
        Account::User(user, _) => draft.check_user(user),
        Account::LocalSystem => {}
        Account::Virtual | Account::LocalService | Account::NetworkService
            if definition.supervises =>
        {
            draft.lose("dedicated account: it runs as root");
        }
        account => draft.refuse_account(account),
    }
    draft
}

impl<'a> Draft<'a> {
    /// Returns the user, unless it is root.
    pub(super) fn user(&self) -> Option<&'a str> {
        match &self.definition.account {
            Account::User(user, _) => Some(user),
            _ => None,
        }
    }

    /// Returns the program and its arguments, unquoted.
    pub(super) fn command(&mut self) -> Vec<String> {
        let program = program(self.definition, self.site);
        if !program.is_absolute() {
            let path = program.display();
            self.wrong(format!("the program {path} is not an absolute path"));
        }
        let run = ["run".into()];
        let words = self.definition.arguments.as_deref().unwrap_or(&run);
        let words = std::iter::once(program.as_os_str()).chain(words.iter().map(|word| &**word));
        self.texts("the command line", words)
    }

    /// Returns the words of an additional command.
    pub(super) fn texts<'w>(
        &mut self,
        what: &str,
        words: impl Iterator<Item = &'w OsStr>,
    ) -> Vec<String> {
        let word = |word: &OsStr| {
            Some(
                word.to_str()
                    .filter(|word| !word.contains('\0'))?
                    .to_owned(),
            )
        };
        let words: Option<Vec<String>> = words.map(word).collect();
        words.unwrap_or_else(|| {
            self.wrong(format!("{what} contains a NUL or invalid UTF-8"));
            Vec::new()
        })
    }

    /// Returns the ready check as a line of a script.
    pub(super) fn ready_check(&mut self) -> Option<String> {
        let words = self.definition.ready_check.as_deref()?;
        let words = self.texts("the ready check", words.iter().map(|word| &**word));
        Some(line(&words))
    }

    /// Returns the reload command as a line of a script.
    pub(super) fn reload_command(&mut self) -> Option<String> {
        let words = self.definition.reload_command.as_deref()?;
        let words = self.texts("the reload command", words.iter().map(|word| &**word));
        Some(line(&words))
    }

    /// Returns an absolute path.
    pub(super) fn path(&mut self, what: &str, path: &Path) -> String {
        let text = path.to_str().filter(|path| path.starts_with('/'));
        text.filter(|path| !path.contains('\0'))
            .map(str::to_owned)
            .unwrap_or_else(|| {
                let path = path.display();
                self.wrong(format!(
                    "{what} {path} is not an absolute path, or contains unsupported characters"
                ));
                String::new()
            })
    }

    /// Returns `ulimit` commands, for the part of a script that still runs as root.
    pub(super) fn limits(&mut self) -> String {
        let mut text = String::new();
        for (limit, value) in &self.definition.limits {
            // In units of the option: POSIX "ulimit", dash(1), bash(1).
            let (option, unit, name) = match limit {
                Limit::OpenFiles => ("n", 1, "open files"),
                Limit::Processes => ("u", 1, "processes"),
                Limit::CoreSize => ("c", 512, "bytes of a core dump"),
                Limit::LockedMemory => ("l", 1024, "bytes of locked memory"),
            };
            let units = match *value {
                u64::MAX => "unlimited".to_owned(),
                value => (value / unit).to_string(),
            };
            if *value != u64::MAX && value % unit != 0 {
                self.lose(format!(
                    "limit of {value} {name}: it is rounded down to {}",
                    value / unit * unit
                ));
            }
            let _infallible = match limit {
                // dash and BusyBox use another letter than bash.
                Limit::Processes => writeln!(
                    text,
                    "\t{{ ulimit -u {units} || ulimit -p {units}; }} 2>/dev/null || return 1"
                ),
                _ => writeln!(text, "\tulimit -{option} {units} || return 1"),
            };
        }
        text
    }

    /// Returns statements that export the variables within a function, each value quoted by
    /// `quote`.
    pub(super) fn exports(&self, quote: impl Fn(&str) -> Option<String>) -> String {
        let values = self.definition.env.iter();
        values
            .filter_map(|(name, value)| Some(format!("\texport {name}={}\n", quote(value)?)))
            .collect()
    }

    /// Returns the call that reads the variables of the env_file, and the function it requires.
    pub(super) fn env_file(&mut self) -> Option<(String, &'static str)> {
        let path = self.definition.env_file.as_deref()?;
        let path = self.path("the env_file", path);
        let own: Vec<&str> = self.definition.env.keys().map(String::as_str).collect();
        let call = format!(
            "read_env_file {} < {}",
            line(&[own.join(" ")]),
            line(&[path])
        );
        Some((call, sh::READ_ENV_FILE))
    }

    /// Returns the command prefix that restricts a command to some processors.
    pub(super) fn cpus(&self) -> Option<String> {
        let cpus = &self.definition.cpus;
        (!cpus.is_empty()).then(|| format!("taskset -c {}", joined(cpus, ",")))
    }

    /// Reports restart delays that grow, for a manager with a constant one.
    pub(super) fn lose_growing_delays(&mut self) {
        if let [first, .., last] = &self.definition.recovery.restart_after[..]
            && first != last
        {
            let seconds = whole_seconds(*first).max(1);
            self.lose(format!("growing restart delays: each is {seconds}s"));
        }
    }

    /// Reports the recovery settings that depend on the exit, for a manager that restarts after
    /// every one.
    pub(super) fn lose_kinds_of_exits(&mut self) {
        let recovery = &self.definition.recovery;
        match (recovery.restart_after.is_empty(), recovery.crashes_only) {
            (true, _) => self.lose("no restarts: it is restarted after every exit"),
            (false, true) => {
                self.lose("restart after a crash only: it is restarted after every exit")
            }
            (false, false) => {
                self.lose("no restart after a clean exit: it is restarted after every exit");
                if !recovery.halts.is_empty() || !recovery.clean.is_empty() {
                    self.lose("exit codes: all have the same effect");
                }
            }
        }
    }

    /// Returns whether all remaining processes are killed after a stop.
    pub(super) fn is_tree(&self) -> bool {
        !self.definition.supervises
    }

    pub(super) fn asks_tree(&self) -> bool {
        self.is_tree() && self.definition.stop_scope == StopScope::Tree
    }

    /// Returns the service's title, or its name, in one line.
    pub(super) fn heading(&self) -> String {
        one_line(self.title().unwrap_or(&self.definition.name))
    }

    /// Returns the services that must be running first.
    pub(super) fn needs(&mut self) -> Vec<&'a str> {
        self.services(&self.definition.needs)
    }

    /// Returns the services that are started first.
    pub(super) fn wants(&mut self) -> Vec<&'a str> {
        self.services(&self.definition.wants)
    }

    fn services(&mut self, names: &'a [String]) -> Vec<&'a str> {
        for name in names {
            self.check_service(name, is_made_of(name, b"_.-") && !name.starts_with('-'));
        }
        names.iter().map(String::as_str).collect()
    }
}

/// Joins quoted words to a line of a script.
pub(super) fn line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().filter_map(|text| word(text)).collect();
    words.join(" ")
}

/// Returns the second line of each script.
pub(super) fn head(comment: &str) -> String {
    format!("# {}\n", format!("{MARK} {comment}").trim_end())
}

/// Returns the assignment by which a script identifies its manager, for managers that do not
/// identify themselves.
pub(super) fn says(manager: Manager) -> String {
    format!("{MANAGER_VARIABLE}={manager}")
}
