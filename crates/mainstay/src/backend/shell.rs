//! What the managers have in common that are told by scripts of sh: quoting, and what a definition means to all of them. Pure.
//!
//! Sources: POSIX "Shell Command Language"; dash(1), which has no more than that.

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

/// What is known of processes without a tool: proc(5), "stat". A name may hold anything, but for its last parenthesis.
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

/// One word of a script: within single quotes, where nothing means anything. `None` if it holds a NUL, which no word can.
pub(crate) fn quoted(text: &str) -> Option<String> {
    let word = format!("'{}'", text.replace('\'', "'\\''"));
    (!text.contains('\0')).then_some(word)
}

/// The same, without quotes where it needs none.
pub(crate) fn word(text: &str) -> Option<String> {
    (!text.contains('\0')).then(|| sh::quoted(text))
}

/// Whole ones, rather too many than too few.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs();
    seconds.saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// For comments and titles.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(char::is_control).map(str::trim).collect();
    words.join(" ").trim().to_owned()
}

/// Whether a service that ends with this code stays down: by its recovery, of a manager that does not know it.
pub(crate) fn ends_for_good(recovery: &Recovery, code: u32) -> bool {
    let has = |codes: &BTreeSet<u8>| u8::try_from(code).is_ok_and(|code| codes.contains(&code));
    code == 0
        || recovery.crashes_only
        || recovery.restart_after.is_empty()
        || has(&recovery.halts)
        || has(&recovery.clean)
}

/// A service in the making, with what it cannot say, and what is wrong.
pub(crate) struct Draft<'a> {
    pub(crate) definition: &'a Definition,
    pub(crate) losses: Vec<String>,
    pub(crate) wrong: Vec<String>,
}

impl<'a> Draft<'a> {
    /// With all that none of these managers can be told.
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
            draft.wrong("the env_file has a new line in its path");
        }
        if !listen.is_empty() {
            draft
                .wrong("this system does not listen for a service: let the program do that itself");
        }
        if watchdog.is_some() {
            draft.loses("that it is ended where it does not say that it is alive");
        }
        if *start == Start::Disabled {
            draft.loses("that nobody can start it: it is not started with the system");
        }
        if *readiness == Readiness::Notify && ready_check.is_none() {
            draft.loses("when it is ready: it counts as started once its program runs");
        }
        if !SIGNALS.contains(&&**stop_signal) {
            let signals = SIGNALS.join(", ");
            draft.wrong(format!(
                "a stop by the signal {stop_signal:?}: it is one of {signals}"
            ));
        }
        for (name, value) in env {
            if !is_name(name) || value.contains('\0') {
                draft.wrong(format!(
                    "no script can set a variable {name:?} to such a value"
                ));
            }
        }
        match account {
            Account::User(user, _) if is_user(user) => {}
            Account::User(user, _) => draft.wrong(format!("{user:?} cannot be the name of a user")),
            Account::Managed(account) => draft.wrong(format!("{account} is an account of Windows")),
            Account::LocalSystem => {}
            Account::Virtual | Account::LocalService | Account::NetworkService if *supervises => {
                draft.loses("an account of its own: it runs as root");
            }
            Account::Virtual | Account::LocalService | Account::NetworkService => draft.wrong(
                "this system has no account for one service alone: name a user (account user:NAME), or local-system",
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

    /// The user that it is to be, where that is not root.
    pub(crate) fn user(&self) -> Option<&'a str> {
        match &self.definition.account {
            Account::User(user, _) => Some(user),
            _ => None,
        }
    }

    /// The program and what it is started with, each as it is to arrive.
    pub(crate) fn command(&mut self, program: &Path) -> Vec<String> {
        if !program.is_absolute() {
            let path = program.display();
            self.wrong(format!("the program {path} is no absolute path"));
        }
        let run = ["run".into()];
        let words = self.definition.arguments.as_deref().unwrap_or(&run);
        let words = std::iter::once(program.as_os_str()).chain(words.iter().map(|word| &**word));
        self.texts("the command line", words)
    }

    /// A command that is run besides.
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
            self.wrong(format!("{what} holds a NUL, or what is no UTF-8"));
            Vec::new()
        })
    }

    /// The command that tells whether it is ready, as a script has it.
    pub(crate) fn ready_check(&mut self) -> Option<String> {
        let words = self.definition.ready_check.as_deref()?;
        let words = self.texts("the ready check", words.iter().map(|word| &**word));
        Some(line(&words))
    }

    /// The same for a reload.
    pub(crate) fn reload_command(&mut self) -> Option<String> {
        let words = self.definition.reload_command.as_deref()?;
        let words = self.texts("the reload command", words.iter().map(|word| &**word));
        Some(line(&words))
    }

    /// An absolute path.
    pub(crate) fn path(&mut self, what: &str, path: &Path) -> String {
        let text = path.to_str().filter(|path| path.starts_with('/'));
        text.filter(|path| !path.contains('\0'))
            .map(str::to_owned)
            .unwrap_or_else(|| {
                let path = path.display();
                self.wrong(format!(
                    "{what} {path} is no absolute path, or holds what no script can say"
                ));
                String::new()
            })
    }

    /// `cd`, `ulimit` and `renice`, as a part of a script that is root still.
    pub(crate) fn limits(&mut self) -> String {
        let mut text = String::new();
        for (limit, value) in &self.definition.limits {
            // In units of its own: POSIX "ulimit", dash(1), bash(1).
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
                    "the limit of {value} {name}: it is {}",
                    value / unit * unit
                ));
            }
            let _infallible = match limit {
                // dash and BusyBox have another letter than bash.
                Limit::Processes => writeln!(
                    text,
                    "\t{{ ulimit -u {units} || ulimit -p {units}; }} 2>/dev/null || return 1"
                ),
                _ => writeln!(text, "\tulimit -{option} {units} || return 1"),
            };
        }
        text
    }

    /// What sets its variables, within a function, each value as `quote` has it.
    pub(crate) fn exports(&self, quote: impl Fn(&str) -> Option<String>) -> String {
        let values = self.definition.env.iter();
        values
            .filter_map(|(name, value)| Some(format!("\texport {name}={}\n", quote(value)?)))
            .collect()
    }

    /// The call that takes the variables of its file, and the function for it.
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

    /// What goes before a command that is to run on some processors only.
    pub(crate) fn cpus(&self) -> Option<String> {
        let cpus: Vec<String> = self.definition.cpus.iter().map(u16::to_string).collect();
        (!cpus.is_empty()).then(|| format!("taskset -c {}", cpus.join(",")))
    }

    /// What of its recovery a manager loses that starts it again whenever it has ended, after the same pause.
    pub(crate) fn recovers_always(&mut self, can_tell: bool) {
        let recovery = &self.definition.recovery;
        if let [first, .., last] = &recovery.restart_after[..]
            && first != last
        {
            let seconds = whole_seconds(*first).max(1);
            self.loses(format!("pauses that grow: each is {seconds}s"));
        }
        if can_tell {
            return;
        }
        match (recovery.restart_after.is_empty(), recovery.crashes_only) {
            (true, _) => self.loses("that it stays down after it has ended: it is started again"),
            (false, true) => self.loses("that it starts again only after a crash"),
            (false, false) => {
                self.loses("that it stays down after a good end: it is started again")
            }
        }
        if !recovery.halts.is_empty() || !recovery.clean.is_empty() {
            self.loses("what its exit codes mean");
        }
    }

    /// Whether all of it is killed that is left after a stop.
    pub(crate) fn is_tree(&self) -> bool {
        !self.definition.supervises
    }

    pub(crate) fn asks_tree(&self) -> bool {
        self.is_tree() && self.definition.stop_scope == StopScope::Tree
    }

    /// Its title.
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

    /// Services that must run before it.
    pub(crate) fn needs(&mut self) -> Vec<&'a str> {
        self.services(&self.definition.needs)
    }

    /// Services that are started before it.
    pub(crate) fn wants(&mut self) -> Vec<&'a str> {
        self.services(&self.definition.wants)
    }

    fn services(&mut self, names: &'a [String]) -> Vec<&'a str> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        for name in names {
            if name.is_empty() || name.starts_with('-') || !name.bytes().all(is_plain) {
                self.wrong(format!("{name:?} cannot be the name of a service"));
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

/// Words as a line of a script.
pub(crate) fn line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().filter_map(|text| word(text)).collect();
    words.join(" ")
}

/// The second line of each script.
pub(crate) fn head(comment: &str) -> String {
    format!("# {}\n", format!("{MARK} {comment}").trim_end())
}

fn is_user(user: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    !user.is_empty() && !user.starts_with('-') && user.bytes().all(is_plain)
}

/// How a manager calls itself that leaves that to our scripts.
pub(crate) fn says(manager: Manager) -> String {
    format!("{MANAGER_VARIABLE}={manager}")
}
