//! Common parts of the managers that run sh scripts: quoting, and the interpretation of a
//! definition. Without side effects.
//!
//! Sources: POSIX "Shell Command Language"; dash(1), which supports no more than that.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::sh::{self, is_name};
use super::{Entry, MARK, SIGNALS, Unit, refuse_if};
use crate::definition::wrong_name;
use crate::manager::MANAGER_VARIABLE;
use crate::{Account, Definition, Error, Limit, Manager, Readiness, Recovery, Start, StopScope};

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
pub(crate) fn quoted(text: &str) -> Option<String> {
    let word = format!("'{}'", text.replace('\'', "'\\''"));
    (!text.contains('\0')).then_some(word)
}

/// Quotes one word of a script if necessary.
pub(crate) fn word(text: &str) -> Option<String> {
    (!text.contains('\0')).then(|| sh::quoted(text))
}

/// Converts a duration to whole seconds, rounded up.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs();
    seconds.saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// Converts text to one line, for comments and titles.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(char::is_control).map(str::trim).collect();
    words.join(" ").trim().to_owned()
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

/// A service under construction, with its unsupported settings and its mistakes.
pub(crate) struct Draft<'a> {
    pub(crate) definition: &'a Definition,
    pub(crate) losses: Vec<String>,
    pub(crate) wrong: Vec<String>,
}

impl<'a> Draft<'a> {
    /// Creates a draft and reports all settings that none of these managers supports.
    pub(crate) fn new(definition: &'a Definition) -> Self {
        let mut draft = Self {
            definition,
            losses: Vec::new(),
            wrong: wrong_name(&definition.name).into_iter().collect(),
        };
        let Definition {
            account,
            env,
            listen,
            readiness,
            ready_check,
            start,
            stop_signal,
            supervises,
            watchdog,
            ..
        } = definition;
        if let Some(path) = &definition.env_file
            && path.as_os_str().as_encoded_bytes().contains(&b'\n')
        {
            draft.wrong("the path of the env_file contains a line break");
        }
        if !listen.is_empty() {
            draft
                .wrong("this system does not open sockets for a service: open them in the program");
        }
        if watchdog.is_some() {
            draft.loses("`watchdog`: a service that hangs is not restarted");
        }
        if *start == Start::Disabled {
            draft.loses("disabled start: it does not start at boot, but can be started");
        }
        if *readiness == Readiness::Notify && ready_check.is_none() {
            draft.loses("readiness: it counts as ready as soon as its program runs");
        }
        if !SIGNALS.contains(&&**stop_signal) {
            let signals = SIGNALS.join(", ");
            draft.wrong(format!(
                "the stop signal {stop_signal:?} is not supported: use one of {signals}"
            ));
        }
        for (name, value) in env {
            if !is_name(name) || value.contains('\0') {
                draft.wrong(format!(
                    "the variable {name:?} has an unsupported name or value"
                ));
            }
        }
        match account {
            Account::User(user, _) if is_user(user) => {}
            Account::User(user, _) => draft.wrong(format!("{user:?} is not a valid user name")),
            Account::Managed(account) => draft.wrong(format!("{account} is a Windows account")),
            Account::LocalSystem => {}
            Account::Virtual | Account::LocalService | Account::NetworkService if *supervises => {
                draft.loses("dedicated account: it runs as root");
            }
            Account::Virtual | Account::LocalService | Account::NetworkService => draft.wrong(
                "this system has no accounts for single services: use a user (--account user:NAME), or local-system",
            ),
        }
        draft
    }

    pub(crate) fn loses(&mut self, what: impl Into<String>) {
        self.losses.push(what.into());
    }

    pub(crate) fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    /// Returns the user, unless it is root.
    pub(crate) fn user(&self) -> Option<&'a str> {
        match &self.definition.account {
            Account::User(user, _) => Some(user),
            _ => None,
        }
    }

    /// Returns the program and its arguments, unquoted.
    pub(crate) fn command(&mut self, program: &Path) -> Vec<String> {
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
    pub(crate) fn texts<'w>(
        &mut self,
        what: &str,
        words: impl Iterator<Item = &'w OsStr>,
    ) -> Vec<String> {
        let words: Option<Vec<String>> = words
            .map(|word| {
                Some(
                    word.to_str()
                        .filter(|word| !word.contains('\0'))?
                        .to_owned(),
                )
            })
            .collect();
        words.unwrap_or_else(|| {
            self.wrong(format!("{what} contains a NUL or invalid UTF-8"));
            Vec::new()
        })
    }

    /// Returns the ready check as a line of a script.
    pub(crate) fn ready_check(&mut self) -> Option<String> {
        let words = self.definition.ready_check.as_deref()?;
        let words = self.texts("the ready check", words.iter().map(|word| &**word));
        Some(line(&words))
    }

    /// Returns the reload command as a line of a script.
    pub(crate) fn reload_command(&mut self) -> Option<String> {
        let words = self.definition.reload_command.as_deref()?;
        let words = self.texts("the reload command", words.iter().map(|word| &**word));
        Some(line(&words))
    }

    /// Returns an absolute path.
    pub(crate) fn path(&mut self, what: &str, path: &Path) -> String {
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
    pub(crate) fn limits(&mut self) -> String {
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
                self.loses(format!(
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
    pub(crate) fn exports(&self, quote: impl Fn(&str) -> Option<String>) -> String {
        let values = self.definition.env.iter();
        values
            .filter_map(|(name, value)| Some(format!("\texport {name}={}\n", quote(value)?)))
            .collect()
    }

    /// Returns the call that reads the variables of the env_file, and the function it requires.
    pub(crate) fn env_file(&mut self) -> Option<(String, &'static str)> {
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
    pub(crate) fn cpus(&self) -> Option<String> {
        let cpus: Vec<String> = self.definition.cpus.iter().map(u16::to_string).collect();
        (!cpus.is_empty()).then(|| format!("taskset -c {}", cpus.join(",")))
    }

    /// Reports the recovery settings that are unsupported by a manager that always restarts, after
    /// a constant delay.
    pub(crate) fn recovers_always(&mut self, can_tell: bool) {
        let recovery = &self.definition.recovery;
        if let [first, .., last] = &recovery.restart_after[..]
            && first != last
        {
            let seconds = whole_seconds(*first).max(1);
            self.loses(format!("growing restart delays: each is {seconds}s"));
        }
        if can_tell {
            return;
        }
        match (recovery.restart_after.is_empty(), recovery.crashes_only) {
            (true, _) => self.loses("no restarts: it is restarted after every exit"),
            (false, true) => {
                self.loses("restart after a crash only: it is restarted after every exit")
            }
            (false, false) => {
                self.loses("no restart after a clean exit: it is restarted after every exit")
            }
        }
        if !recovery.halts.is_empty() || !recovery.clean.is_empty() {
            self.loses("exit codes: all have the same effect");
        }
    }

    /// Returns whether all remaining processes are killed after a stop.
    pub(crate) fn is_tree(&self) -> bool {
        !self.definition.supervises
    }

    pub(crate) fn asks_tree(&self) -> bool {
        self.is_tree() && self.definition.stop_scope == StopScope::Tree
    }

    /// Returns the service's title.
    pub(crate) fn title(&self) -> String {
        let Definition {
            name,
            description,
            display_name,
            ..
        } = self.definition;
        let title = description.as_ref().or(display_name.as_ref());
        one_line(title.unwrap_or(name))
    }

    /// Returns the services that must be running first.
    pub(crate) fn needs(&mut self) -> Vec<&'a str> {
        self.services(&self.definition.needs)
    }

    /// Returns the services that are started first.
    pub(crate) fn wants(&mut self) -> Vec<&'a str> {
        self.services(&self.definition.wants)
    }

    fn services(&mut self, names: &'a [String]) -> Vec<&'a str> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        for name in names {
            if name.is_empty() || name.starts_with('-') || !name.bytes().all(is_plain) {
                self.wrong(format!("{name:?} is not a valid service name"));
            }
        }
        names.iter().map(String::as_str).collect()
    }

    pub(crate) fn finish(self, entries: Vec<Entry>) -> Result<Unit, Error> {
        refuse_if(&self.definition.name, &self.wrong)?;
        Ok(Unit {
            entries,
            losses: self.losses,
        })
    }
}

/// Joins quoted words to a line of a script.
pub(crate) fn line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().filter_map(|text| word(text)).collect();
    words.join(" ")
}

/// Returns the second line of each script.
pub(crate) fn head(comment: &str) -> String {
    format!("# {}\n", format!("{MARK} {comment}").trim_end())
}

fn is_user(user: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    !user.is_empty() && !user.starts_with('-') && user.bytes().all(is_plain)
}

/// Returns the assignment by which a script identifies its manager, for managers that do not
/// identify themselves.
pub(crate) fn says(manager: Manager) -> String {
    format!("{MANAGER_VARIABLE}={manager}")
}
