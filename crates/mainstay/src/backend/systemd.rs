//! systemd: units, and the output of `systemctl show`. Without side effects: `manage` writes and
//! queries.
//!
//! Sources: systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.syntax(7), systemctl(1).

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::draft::{Draft, is_made_of, is_name, joined, limit_name, one_line};
use super::{
    Answer, Backend, Call, Entry, Facts, MARK, Order, PAUSED, Question, Sign, Site, Switch, Traces,
    Unit, Unsupported, program,
};
use crate::scm::refusal::SERVICE_SPECIFIC;
use crate::{
    Accepts, Account, Definition, Error, Manager, Readiness, Scope, ServiceStatus, State, StopScope,
};

/// The properties that [`status`] reads, in the format of `systemctl show --property=`.
const PROPERTIES: &str = "LoadState,ActiveState,SubState,MainPID,ExecMainCode,ExecMainStatus,Result,FreezerState,StatusText";

/// The settings for sandboxed system services; see systemd.exec(5), "Sandboxing".
const SANDBOX: &[(&str, &str)] = &[
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", ""),
    ("ProtectSystem", "strict"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectProc", "invisible"),
    ("RemoveIPC", "yes"),
    ("PrivateUsers", "yes"),
    ("UMask", "0077"),
];
/// The settings that a user's own manager can also enforce.
const SANDBOX_OF_USERS: &[(&str, &str)] = &[
    ("NoNewPrivileges", "yes"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    (
        "RestrictAddressFamilies",
        "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    ),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", "~@privileged @resources"),
    ("SystemCallErrorNumber", "EPERM"),
];

/// systemd, for the system or a user.
pub(crate) struct Systemd;

const FACTS: Facts = Facts {
    has_users: true,
    traces: Traces::All(&["/etc/systemd/system"]),
    // The test of sd_booted(3).
    signs: &[Sign::Path("/run/systemd/system")],
    suffix: ".service",
    ..Facts::of(Manager::Systemd)
};

impl Backend for Systemd {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn unit(&self, definition: &Definition, site: &Site) -> Result<Unit, Error> {
        let Definition { name, .. } = definition;
        let mut draft = Draft::new(definition, site);
        if let Some(kind) = kind_in(name) {
            draft.wrong(format!("the name ends with a unit type: omit .{kind}"));
        }
        let mut units = Units { draft };
        let program = program(definition, site);
        let head = units.head();
        let mut service = Section::new("[Service]");
        units.command(&mut service, program);
        units.environment(&mut service);
        units.directories(&mut service);
        units.account(&mut service);
        units.life(&mut service);
        units.recovery(&mut service);
        units.resources(&mut service);
        if definition.systemd.sandbox && (!is_root(definition) || definition.systemd.confines_root)
        {
            units.sandbox(&mut service, program);
        }
        let socket = units.socket();
        units.draft.lose_disabled();
        let mut install = Section::new("[Install]");
        install.line("WantedBy", target(site.scope));
        let head_line = format!("# {MARK} What is to stay goes into a drop-in: systemctl edit.");
        let text = format!("{head_line}\n\n{}\n{}\n{}", head.0, service.0, install.0);
        let mut entries = vec![Entry::file(dir(site).join(unit_name(name)), text)];
        if let Some(socket) = socket {
            let path = dir(site).join(socket_name(name));
            entries.push(Entry::file(path, format!("# {MARK}\n\n{socket}")));
        }
        units.draft.finish(entries)
    }

    fn unit_path(&self, name: &str, site: &Site) -> PathBuf {
        dir(site).join(unit_name(name))
    }

    fn parts(&self, name: &str, site: &Site) -> Vec<PathBuf> {
        [unit_name(name), socket_name(name)]
            .map(|file| dir(site).join(file))
            .into()
    }

    fn unit_dir(&self, site: &Site) -> PathBuf {
        dir(site)
    }

    /// The link that `systemctl enable` creates for the `WantedBy=` of the units: systemd.unit(5).
    fn switch(&self, name: &str, site: &Site) -> Switch {
        let wants = dir(site).join(format!("{}.wants", target(site.scope)));
        let link = Entry::link(wants.join(unit_name(name)), self.unit_path(name, site));
        Switch {
            on: vec![link],
            ..Switch::default()
        }
    }

    fn take_notice(&self, _changed: &[&str], site: &Site) -> Vec<Call> {
        vec![systemctl(site, &["daemon-reload"])]
    }

    fn let_go(&self, name: &str, site: &Site) -> Vec<Call> {
        // systemd keeps a unit in memory as long as its failure. There may be none.
        vec![systemctl(site, &["reset-failed", "--", &unit_name(name)]).may_fail()]
    }

    fn control(
        &self,
        definition: &Definition,
        order: Order,
        state: State,
        site: &Site,
    ) -> Result<Vec<Call>, Unsupported> {
        let unit = unit_name(&definition.name);
        let call = |verb| systemctl(site, &[verb, "--", &unit]);
        Ok(match order {
            Order::Start => vec![call("start")],
            // A frozen service would not receive the signal.
            Order::Stop | Order::Restart
                if state == State::Paused && !definition.accepts.contains(Accepts::PAUSE) =>
            {
                vec![call("thaw"), call(order.as_str())]
            }
            Order::Stop | Order::Restart => vec![call(order.as_str())],
            // All versions support `--kill-who`.
            Order::Pause | Order::Resume if definition.accepts.contains(Accepts::PAUSE) => {
                let signal = match order {
                    Order::Pause => "--signal=TSTP",
                    _ => "--signal=CONT",
                };
                vec![systemctl(
                    site,
                    &["kill", "--kill-who=main", signal, "--", &unit],
                )]
            }
            // Uses the freezer of the control group: the program is not involved.
            Order::Pause => vec![call("freeze")],
            Order::Resume => vec![call("thaw")],
            Order::Reload => vec![call("reload")],
        })
    }

    fn questions(&self, name: &str, site: &Site) -> Vec<Question> {
        let properties = format!("--property={PROPERTIES}");
        let call = systemctl(site, &["show", &properties, "--", &unit_name(name)]);
        vec![Question::run(call.argv)]
    }

    /// systemctl(1) also reports properties of units that do not exist.
    fn has_answered(&self, answers: &[Answer]) -> bool {
        answers
            .iter()
            .all(|answer| answer.text().contains("LoadState="))
    }

    fn status(&self, answers: &[Answer]) -> Option<ServiceStatus> {
        status(&answers.first()?.text())
    }

    fn version_question(&self) -> Option<Question> {
        Some(Question::run(["systemctl", "--version"]))
    }

    /// Parses `systemd 252 (252.39-1~deb12u1)`.
    fn version(&self, answer: &Answer) -> Option<u32> {
        let text = answer.text();
        let word = text.split_ascii_whitespace().nth(1)?;
        let digits = word.split(|char: char| !char.is_ascii_digit()).next()?;
        digits.parse().ok()
    }

    fn failure_question(&self, name: &str, since: u64, site: &Site) -> Option<Question> {
        let unit = unit_name(name);
        let words = format!(
            "journalctl{} --quiet --no-pager --output=cat --priority=warning --lines=20 --since=@{since} --unit={unit}",
            user_option(site.scope)
        );
        Some(Question::run(words.split(' ')))
    }

    fn failure(&self, name: &str, answer: &Answer) -> Option<String> {
        let unit = format!("{}: ", unit_name(name));
        let text = answer.text();
        // Messages that systemd logs for every failed unit do not name the cause.
        let is_general = |line: &&str| {
            let of_unit = line.strip_prefix(&*unit).unwrap_or_default();
            let general = [
                "Failed with result",
                "Main process exited",
                "Scheduled restart",
                "Start request repeated",
            ];
            line.is_empty()
                || line.starts_with("Failed to start ")
                || line.starts_with("hint: ")
                || general.iter().any(|general| of_unit.starts_with(general))
        };
        let line = text
            .lines()
            .map(str::trim)
            .rfind(|line| !is_general(line))?;
        Some(line.strip_prefix(&*unit).unwrap_or(line).to_owned())
    }

    fn journal(&self, name: &str, site: &Site) -> String {
        format!("journalctl{} --unit={name}", user_option(site.scope))
    }
}

fn user_option(scope: Scope) -> &'static str {
    match scope {
        Scope::System => "",
        Scope::User => " --user",
    }
}

fn systemctl(site: &Site, arguments: &[&str]) -> Call {
    let user = (site.scope == Scope::User).then_some("--user");
    let options = ["systemctl"].into_iter().chain(user);
    let options = options.chain(["--no-ask-password"]);
    Call::new(options.chain(arguments.iter().copied()))
}

/// Returns the directory of the units.
fn dir(site: &Site) -> PathBuf {
    match site.scope {
        Scope::System => "/etc/systemd/system".into(),
        Scope::User => site.config_dir.join("systemd/user"),
    }
}

/// The unit types of systemd.unit(5).
const KINDS: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];

/// Returns the unit type that a name ends with.
fn kind_in(name: &str) -> Option<&str> {
    let (_, kind) = name.rsplit_once('.')?;
    KINDS.contains(&kind).then_some(kind)
}

/// Returns the unit name. A name without a unit type is a service, as for systemctl(1).
fn unit_name(name: &str) -> String {
    match kind_in(name) {
        Some(_) => name.to_owned(),
        None => format!("{name}.service"),
    }
}

fn socket_name(name: &str) -> String {
    format!("{name}.socket")
}

fn target(scope: Scope) -> &'static str {
    match scope {
        Scope::System => "multi-user.target",
        Scope::User => "default.target",
    }
}

fn is_root(definition: &Definition) -> bool {
    definition.scope == Scope::System && definition.account == Account::LocalSystem
}

/// The units of a service under construction.
struct Units<'a> {
    draft: Draft<'a>,
}

impl Units<'_> {
    fn head(&mut self) -> Section {
        let Definition {
            name,
            needs,
            wants,
            recovery,
            listen,
            ..
        } = self.draft.definition;
        let mut unit = Section::new("[Unit]");
        let title = one_line(self.draft.title().unwrap_or(name));
        let title = title.trim_end_matches('\\');
        unit.line("Description", &specifiers(title));
        let needs = needs.iter().map(|need| ("Requires", unit_name(need)));
        let wants = wants.iter().map(|want| ("Wants", unit_name(want)));
        let socket = (!listen.is_empty()).then(|| ("Requires", socket_name(name)));
        for (key, other) in needs.chain(wants).chain(socket) {
            if !is_made_of(&other, b":_.\\@-") {
                self.draft
                    .wrong(format!("{other:?} is not a valid unit name"));
            }
            unit.line(key, &other);
            unit.line("After", &other);
        }
        match recovery.limit {
            Some((starts, window)) => {
                unit.line("StartLimitIntervalSec", &seconds(window));
                unit.line("StartLimitBurst", &starts.to_string());
            }
            // Without this setting, the default limit of five starts in ten seconds would apply.
            None => unit.line("StartLimitIntervalSec", "0"),
        }
        unit
    }

    /// Writes the commands and the readiness setting.
    fn command(&mut self, service: &mut Section, program: &Path) {
        let Definition {
            arguments,
            accepts,
            readiness,
            reload_signal,
            reload_command,
            systemd,
            ..
        } = self.draft.definition;
        self.draft.check_signal("reload", reload_signal);
        let is_told = reload_command.is_none() && accepts.contains(Accepts::RELOAD);
        let waits_for_reload =
            is_told && self.draft.site.version >= 253 && *readiness == Readiness::Notify;
        let kind = match readiness {
            Readiness::Notify if waits_for_reload => "notify-reload",
            Readiness::Notify => "notify",
            Readiness::Exec => "exec",
        };
        service.line("Type", kind);
        if *readiness == Readiness::Notify && systemd.notified_by_tree {
            service.line("NotifyAccess", "all");
        }
        if !program.is_absolute() || program.as_os_str().as_encoded_bytes().contains(&b'$') {
            let path = program.display();
            self.draft.wrong(format!(
                "the program {path} is not an absolute path, or contains a $"
            ));
        }
        if let Some(argv) = &systemd.before_start
            && let Some(words) = self.words("the command before a start", argv)
        {
            service.line("ExecStartPre", &format!("+{words}"));
        }
        let run = ["run".into()];
        let arguments = arguments.as_deref().unwrap_or(&run).iter();
        let program = program.as_os_str().to_owned();
        let argv: Vec<OsString> = [program].into_iter().chain(arguments.cloned()).collect();
        if let Some(words) = self.words("the command line", &argv) {
            service.line("ExecStart", &words);
        }
        match reload_command {
            Some(argv) => {
                if let Some(words) = self.words("the reload command", argv) {
                    service.line("ExecReload", &words);
                }
            }
            None if waits_for_reload && reload_signal != "HUP" => {
                service.line("ReloadSignal", &format!("SIG{reload_signal}"));
            }
            None if is_told && !waits_for_reload => {
                service.line(
                    "ExecReload",
                    &format!("/bin/kill -{reload_signal} $MAINPID"),
                );
            }
            None => {}
        }
    }

    /// Formats a command for `ExecStart=`: quoted, without variable expansion.
    fn words(&mut self, what: &str, argv: &[OsString]) -> Option<String> {
        let word = |word: &OsString| Some(quoted(word.to_str()?)?.replace('$', "$$"));
        let words: Option<Vec<String>> = argv.iter().map(word).collect();
        if words.is_none() {
            self.draft
                .wrong(format!("{what} contains a NUL or invalid UTF-8"));
        }
        Some(words?.join(" "))
    }

    /// Returns an absolute path as a complete value.
    fn path(&mut self, what: &str, path: &Path) -> Option<String> {
        let value = bare_path(path);
        if value.is_none() {
            let path = path.display();
            self.draft.wrong(format!(
                "{what} {path} is not an absolute path, or contains unsupported characters"
            ));
        }
        value
    }

    fn environment(&mut self, service: &mut Section) {
        let Definition {
            env,
            env_file,
            systemd,
            ..
        } = self.draft.definition;
        for name in &systemd.passed_variables {
            if is_name(name) {
                service.line("PassEnvironment", name);
            } else {
                self.draft
                    .wrong(format!("{name:?} is not a valid variable name"));
            }
        }
        for (name, value) in env {
            let is_value = !value
                .chars()
                .any(|char| char.is_control() && !"\n\t".contains(char));
            let word = quoted(&format!("{name}={value}")).filter(|_| is_value);
            if self.draft.check_variable(name, word.is_some()) {
                service.line("Environment", &word.unwrap_or_default());
            }
        }
        let Some(path) = env_file else { return };
        if let Some(path) = self.path("the env_file", path) {
            service.line("EnvironmentFile", &path);
        }
        // The log level is only a default, which the file may change.
        if env.iter().any(|(name, _)| name != "MAINSTAY_LOG_LEVEL") {
            self.draft.lose("precedence of `env` over `env_file`");
        }
    }

    fn directories(&mut self, service: &mut Section) {
        let Definition {
            working_dir,
            systemd,
            ..
        } = self.draft.definition;
        match working_dir {
            Some(dir) => {
                if let Some(dir) = self.path("the working directory", dir) {
                    service.line("WorkingDirectory", &dir);
                }
            }
            None => service.line("WorkingDirectory", "%S/%N"),
        }
        match &systemd.state_directory {
            Some(dir) if is_plain_file_name(dir) => {
                service.line("StateDirectory", dir);
                service.line("StateDirectoryMode", "0700");
            }
            Some(dir) => self
                .draft
                .wrong(format!("{dir:?} is not a valid name of a state directory")),
            None => service.line("StateDirectory", "%N"),
        }
        for (name, path) in &systemd.credentials {
            match bare_path(path).filter(|_| is_plain_file_name(name)) {
                Some(path) => service.line("LoadCredential", &format!("{name}:{path}")),
                None => self.draft.wrong(format!(
                    "the credential {name:?} has an unsupported name or path"
                )),
            }
        }
    }

    fn account(&mut self, service: &mut Section) {
        match (self.draft.definition.scope, &self.draft.definition.account) {
            (Scope::User, Account::Virtual) | (Scope::System, Account::LocalSystem) => {}
            (Scope::User, _) => self.draft.lose("account: a user service runs as its user"),
            (Scope::System, Account::Virtual | Account::LocalService | Account::NetworkService) => {
                service.line("DynamicUser", "yes");
            }
            (Scope::System, Account::User(user, _)) => {
                self.draft.check_user(user);
                service.line("User", user);
            }
            (Scope::System, account @ Account::Managed(_)) => self.draft.refuse_account(account),
        }
    }

    /// Writes the timeouts and the stop settings.
    fn life(&mut self, service: &mut Section) {
        let Definition {
            start_timeout,
            graceful,
            stop_signal,
            stop_scope,
            watchdog,
            supervises,
            ..
        } = self.draft.definition;
        service.line("TimeoutStartSec", &seconds(*start_timeout));
        service.line("TimeoutStopSec", &seconds(*graceful));
        if let Some(interval) = watchdog {
            service.line("WatchdogSec", &seconds(*interval));
        }
        self.draft.check_signal("stop", stop_signal);
        if stop_signal != "TERM" {
            service.line("KillSignal", &format!("SIG{stop_signal}"));
        }
        if *supervises {
            service.line("Delegate", "yes");
        }
        service.line(
            "KillMode",
            match stop_scope {
                _ if *supervises => "process",
                // The main process receives the signal and stops its children. All remaining
                // processes are killed.
                StopScope::Main => "mixed",
                StopScope::Tree => "control-group",
            },
        );
    }

    /// Writes the restart settings.
    fn recovery(&mut self, service: &mut Section) {
        let recovery = &self.draft.definition.recovery;
        let pauses = &recovery.restart_after;
        let restart = match (pauses.is_empty(), recovery.crashes_only) {
            (true, _) => "no",
            (false, true) => "on-abnormal",
            (false, false) => "on-failure",
        };
        service.line("Restart", restart);
        if restart == "on-failure" {
            // The signals that systemd treats as a clean exit even without `systemctl stop`.
            let mut forced = "SIGHUP SIGINT SIGPIPE SIGTERM".to_owned();
            let mut clean: Vec<String> = recovery.clean.iter().map(u8::to_string).collect();
            // Java and other programs exit with this code after a requested stop.
            let stopped = 128 + 15;
            let is_told = recovery.clean.contains(&stopped);
            if self.draft.definition.readiness == Readiness::Exec && !is_told {
                forced = format!("{stopped} {forced}");
                clean.push(stopped.to_string());
            }
            if !clean.is_empty() {
                service.line("SuccessExitStatus", &clean.join(" "));
            }
            service.line("RestartForceExitStatus", &forced);
        }
        let halts = recovery.final_codes();
        if !halts.is_empty() {
            service.line("RestartPreventExitStatus", &joined(halts, " "));
        }
        let [first, .., last] = &pauses[..] else {
            if let Some(pause) = pauses.first() {
                service.line("RestartSec", &seconds(*pause));
            }
            return;
        };
        service.line("RestartSec", &seconds(*first));
        if first == last {
            return;
        }
        if self.draft.site.version >= 254 {
            service.line("RestartSteps", &(pauses.len() - 1).to_string());
            service.line("RestartMaxDelaySec", &seconds(*last));
            self.draft
                .lose("reset of the restart delay after a good run");
        } else {
            let first = seconds(*first);
            let first = first.strip_prefix("0s ").unwrap_or(&first);
            self.draft.lose(format!(
                "growing restart delays (systemd 254): each is {first}"
            ));
        }
    }

    fn resources(&mut self, service: &mut Section) {
        let Definition {
            nice, cpus, limits, ..
        } = self.draft.definition;
        if let Some(nice) = nice {
            service.line("Nice", &nice.to_string());
        }
        if !cpus.is_empty() {
            service.line("CPUAffinity", &joined(cpus, " "));
        }
        for (limit, value) in limits {
            let key = format!("Limit{}", limit_name(*limit).to_uppercase());
            let value = match *value {
                u64::MAX => "infinity".to_owned(),
                value => value.to_string(),
            };
            service.line(&key, &value);
        }
    }

    /// Returns the unit that listens for the service. It is stopped together with the service, but
    /// stays up when the service is restarted.
    fn socket(&mut self) -> Option<String> {
        let Definition { name, listen, .. } = self.draft.definition;
        if listen.is_empty() {
            return None;
        }
        let mut unit = Section::new("[Unit]");
        unit.line("Description", &format!("Sockets of {name}"));
        let follows = if self.draft.site.version >= 249 {
            "StopPropagatedFrom"
        } else {
            "PartOf"
        };
        unit.line(follows, &unit_name(name));
        let mut socket = Section::new("[Socket]");
        for address in listen {
            self.draft.check_address(address);
            socket.line("ListenStream", address);
        }
        Some(format!("{}\n{}", unit.0, socket.0))
    }

    /// Writes the strictest sandbox that is possible if nothing is known of the program except its
    /// definition.
    fn sandbox(&mut self, service: &mut Section, program: &Path) {
        let Definition {
            systemd,
            supervises,
            ..
        } = self.draft.definition;
        let is_of_system = self.draft.definition.scope == Scope::System;
        let is_root = is_root(self.draft.definition);
        if is_of_system {
            for (key, value) in SANDBOX {
                match *key {
                    // Root starts programs as another user in directories that both must enter.
                    "CapabilityBoundingSet" | "PrivateUsers" | "RemoveIPC" | "UMask" if is_root => {
                    }
                    "CapabilityBoundingSet" if !systemd.capabilities.is_empty() => {
                        let names = systemd.capabilities.join(" ");
                        service.line(key, &names);
                        service.line("AmbientCapabilities", &names);
                    }
                    // In a private user namespace, they would be effective only within it.
                    "PrivateUsers" if !systemd.capabilities.is_empty() => {}
                    "PrivateDevices" if systemd.devices => {}
                    "ProtectControlGroups" if *supervises => {}
                    // In a different user namespace, a supervisor could not access the processes
                    // that its predecessor left.
                    "PrivateUsers" if *supervises => {}
                    _ => service.line(key, value),
                }
            }
            // A program in one of these directories must remain accessible.
            let homes = ["/home", "/root", "/run/user"];
            let is_at_home = *supervises || homes.iter().any(|home| program.starts_with(home));
            service.line("ProtectHome", if is_at_home { "read-only" } else { "yes" });
        }
        if ["/tmp", "/var/tmp"]
            .iter()
            .any(|dir| program.starts_with(dir))
        {
            let path = program.display();
            self.draft.wrong(format!(
                "the program {path} is in a temporary directory, which its sandbox replaces"
            ));
        }
        for (key, value) in SANDBOX_OF_USERS {
            let is_too_much = match *key {
                "NoNewPrivileges" => is_of_system,
                "MemoryDenyWriteExecute" => *supervises || systemd.makes_code,
                _ => *supervises && value.contains("@resources"),
            };
            if !is_too_much {
                service.line(key, value);
            }
        }
        let is_name = |name: &str| {
            let is_inner = |byte: u8| byte == b'_' || byte.is_ascii_uppercase();
            name.starts_with("CAP_") && name.bytes().all(is_inner)
        };
        for name in systemd.capabilities.iter().filter(|name| !is_name(name)) {
            self.draft.wrong(format!(
                "{name:?} is not a capability, such as CAP_NET_BIND_SERVICE"
            ));
        }
        for path in &systemd.writable {
            let absolute = path.to_str().filter(|path| path.starts_with('/'));
            match absolute.and_then(quoted) {
                Some(path) => service.line("ReadWritePaths", &path),
                None => self.draft.wrong(format!(
                    "the writable path {} is not absolute",
                    path.display()
                )),
            }
        }
    }
}

/// Returns an absolute path as a complete value.
fn bare_path(path: &Path) -> Option<String> {
    let path = path.to_str()?;
    (path.starts_with('/') && is_bare(path)).then(|| specifiers(path))
}

fn is_plain_file_name(name: &str) -> bool {
    is_made_of(name, b"_.-") && !name.starts_with('.')
}

/// Parses the output of `systemctl show` for [`PROPERTIES`]. Returns `None` if there is no such
/// unit.
fn status(said: &str) -> Option<ServiceStatus> {
    let property = |key: &str| {
        let mut pairs = said.lines().filter_map(|line| line.split_once('='));
        pairs
            .find(|(name, _)| *name == key)
            .map_or("", |(_, value)| value)
    };
    let number = |key: &str| property(key).parse::<u32>().unwrap_or(0);
    if property("LoadState") == "not-found" {
        return None;
    }
    let is_paused = property("StatusText")
        .strip_prefix(PAUSED)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(';'));
    let state = match property("ActiveState") {
        _ if property("FreezerState") == "frozen" => State::Paused,
        "active" if is_paused => State::Paused,
        "active" | "reloading" | "refreshing" => State::Running,
        "activating" => State::StartPending,
        "deactivating" => State::StopPending,
        _ => State::Stopped,
    };
    // CLD_EXITED is 1; CLD_KILLED and CLD_DUMPED are 2 and 3.
    let own_code = match (number("ExecMainCode"), number("ExecMainStatus")) {
        (0, _) => 0,
        (1, status) => status,
        (_, signal) => 128 + signal,
    };
    // Between two starts, the unit is activating, and the result is that of the last run.
    let has_failed =
        property("ActiveState") == "failed" || property("SubState").starts_with("auto-restart");
    let code = match (has_failed, property("Result")) {
        (false, _) => 0,
        (true, "timeout" | "watchdog") => 1053,
        (true, _) => SERVICE_SPECIFIC,
    };
    let pid = Some(number("MainPID")).filter(|pid| *pid != 0);
    Some(ServiceStatus {
        code,
        own_code: if has_failed { own_code } else { 0 },
        ..ServiceStatus::new(state, pid)
    })
}

struct Section(String);

impl Section {
    fn new(head: &str) -> Self {
        Self(format!("{head}\n"))
    }

    /// Appends a setting. The value must already be escaped.
    fn line(&mut self, key: &str, value: &str) {
        let _infallible = writeln!(self.0, "{key}={value}");
    }
}

/// Quotes one word, with C escapes and without specifiers. Returns `None` if it contains a NUL.
fn quoted(text: &str) -> Option<String> {
    let mut word = String::from("\"");
    for char in text.chars() {
        match char {
            '\0' => return None,
            '"' | '\\' => word.extend(['\\', char]),
            '%' => word += "%%",
            '\n' => word += "\\n",
            '\t' => word += "\\t",
            char if char.is_ascii_control() => {
                let _infallible = write!(word, "\\x{:02x}", u32::from(char));
            }
            char => word.push(char),
        }
    }
    word.push('"');
    Some(word)
}

/// Returns whether an unquoted value, which extends to the end of its line, can contain this text.
fn is_bare(text: &str) -> bool {
    !text.chars().any(char::is_control) && text.trim() == text && !text.ends_with('\\')
}

fn specifiers(text: &str) -> String {
    text.replace('%', "%%")
}

/// Formats a duration, such as "1s 500ms". The resolution is one millisecond.
fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        millis => format!("{}s {millis}ms", duration.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Content, golden};
    use super::*;
    use crate::{ErrorKind, Recovery, service};

    fn site(version: u32) -> Site {
        Site {
            version,
            ..golden::site()
        }
    }

    fn text(unit: &Unit) -> &str {
        match &unit.entries[0].content {
            Content::File { text, .. } => text,
            Content::Link(_) => unreachable!("a unit is a file"),
        }
    }

    fn text_of(definition: &Definition) -> String {
        text(&Systemd.unit(definition, &site(254)).unwrap()).to_owned()
    }

    #[test]
    fn a_unit_says_what_its_definition_says() {
        let definition = service("orders")
            .description("Orders, 100 %")
            .needs("postgresql")
            .env("A", "1 \"2\"")
            .account(Account::User("joe".into(), None))
            .accepts(Accepts::RELOAD)
            .graceful(Duration::from_millis(1500))
            .systemd(crate::Systemd::without_sandbox);
        let unit = Systemd.unit(&definition, &site(254)).unwrap();
        let expected = r#"
[Unit]
Description=Orders, 100 %%
Requires=postgresql.service
After=postgresql.service
StartLimitIntervalSec=0

[Service]
Type=notify-reload
ExecStart="/opt/orders/orders" "run"
Environment="A=1 \"2\""
WorkingDirectory=%S/%N
StateDirectory=%N
User=joe
TimeoutStartSec=60s
TimeoutStopSec=1s 500ms
KillMode=mixed
Restart=on-failure
RestartForceExitStatus=SIGHUP SIGINT SIGPIPE SIGTERM
RestartPreventExitStatus=201
RestartSec=1s
RestartSteps=2
RestartMaxDelaySec=30s

[Install]
WantedBy=multi-user.target
"#;
        let (_head, text) = text(&unit).split_once('\n').unwrap();
        assert_eq!(text, expected);
        assert_eq!(unit.losses, ["reset of the restart delay after a good run"]);
    }

    #[test]
    fn variables_of_the_manager_are_passed_by_name() {
        let pass = |name: &str| service("orders").systemd(|systemd| systemd.pass_variable(name));
        assert!(text_of(&pass("HTTPS_PROXY")).contains("\nPassEnvironment=HTTPS_PROXY\n"));
        let refused = Systemd.unit(&pass("A B"), &site(254)).err().unwrap();
        assert!(
            refused.to_string().contains("is not a valid variable name"),
            "{refused}"
        );
    }

    #[test]
    fn older_systemds_get_what_they_know() {
        let definition = service("orders").accepts(Accepts::RELOAD);
        let unit = Systemd.unit(&definition, &site(252)).unwrap();
        let text = text(&unit);
        assert!(
            text.contains("Type=notify\n") && text.contains("ExecReload="),
            "{text}"
        );
        assert!(!text.contains("RestartSteps"), "{text}");
        let each = "growing restart delays (systemd 254): each is 1s";
        assert_eq!(unit.losses, [each]);
        let quick = Recovery {
            restart_after: [100, 1000].map(Duration::from_millis).to_vec(),
            ..Recovery::default()
        };
        let quick = Systemd
            .unit(&service("orders").recovery(quick), &site(252))
            .unwrap();
        let each = "growing restart delays (systemd 254): each is 100ms";
        assert!(quick.losses.iter().any(|loss| loss == each), "{quick:?}");
        let version = |text: &str| {
            let output = text.into();
            let code = Some(0);
            Backend::version(&Systemd, &Answer { code, output })
        };
        assert_eq!(version("systemd 252 (252.39-1~deb12u1)\n+PAM"), Some(252));
        assert_eq!(version("systemd 256~rc3"), Some(256));
    }

    #[test]
    fn a_supervisor_gets_what_its_programs_may_need() {
        let set = |systemd: crate::Systemd| {
            let systemd = systemd.state_directory("mainstay-orders");
            systemd.credential("manifest.toml", "/var/lib/a b/100%.toml")
        };
        let text = text_of(&service("orders").supervises().systemd(set));
        for line in [
            "DynamicUser=yes\n",
            "StateDirectory=mainstay-orders\nStateDirectoryMode=0700\n",
            "LoadCredential=manifest.toml:/var/lib/a b/100%%.toml\n",
            "Delegate=yes\nKillMode=process\n",
            "ProtectHome=read-only\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        for key in [
            "MemoryDenyWriteExecute",
            "@resources",
            "ProtectControlGroups",
            "PrivateUsers",
        ] {
            assert!(!text.contains(key), "{key}: {text}");
        }
        let wrong =
            |systemd: crate::Systemd| systemd.state_directory("../x").credential("a:b", "/x");
        let error = Systemd
            .unit(&service("orders").systemd(wrong), &site(254))
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("state directory") && text.contains("the credential"),
            "{text}"
        );
    }

    #[test]
    fn a_sandbox_gives_way_where_it_is_told_to() {
        let text = text_of(&service("orders"));
        for line in [
            "DynamicUser=yes",
            "CapabilityBoundingSet=\n",
            "PrivateUsers=yes",
            "ProtectHome=yes",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let open = |systemd: crate::Systemd| {
            systemd
                .capability("CAP_NET_BIND_SERVICE")
                .writable("/srv/a b")
        };
        let text = text_of(
            &service("orders")
                .executable("/home/joe/orders")
                .systemd(open),
        );
        for line in [
            "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n",
            "ProtectHome=read-only",
            "ReadWritePaths=\"/srv/a b\"",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("PrivateUsers"));
        let text = text_of(&service("orders").account(Account::LocalSystem));
        assert!(
            !text.contains("Protect") && !text.contains("User="),
            "{text}"
        );
        let text = text_of(&service("orders").scope(Scope::User));
        assert!(
            text.contains("NoNewPrivileges=yes") && !text.contains("PrivateTmp"),
            "{text}"
        );
    }

    #[test]
    fn all_mistakes_are_told_at_once_and_no_secret() {
        let definition = service("Orders!")
            .executable("orders")
            .arguments(["a\0b"])
            .env("A B", "secret")
            .env("C", "secret\u{1}")
            .needs("a b")
            .working_dir("tmp\n")
            .account(Account::Managed("D\\orders$".into()))
            .recovery(Recovery::default())
            .systemd(|systemd| systemd.capability("net").writable("srv"));
        let error = Systemd.unit(&definition, &site(254)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        for part in [
            "a name consists of 1 to 200",
            "the program orders is not an absolute path",
            "the command line contains a NUL",
            "variable \"A B\"",
            "variable \"C\"",
            "\"a b.service\" is not",
            "the working directory",
            "is a Windows account",
            "\"net\" is not a capability",
            "the writable path srv",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn what_systemctl_shows_is_a_state() {
        let status = |said: &str| status(said).map(|it| (it.state, it.pid, it.exit_code()));
        let active = "LoadState=loaded\nActiveState=active\nMainPID=7\nExecMainCode=0\nExecMainStatus=0\nResult=success\nFreezerState=running\n";
        assert_eq!(status(active), Some((State::Running, Some(7), Some(0))));
        let frozen = active.replace("FreezerState=running", "FreezerState=frozen");
        assert_eq!(status(&frozen), Some((State::Paused, Some(7), Some(0))));
        let failed = |code: &str, result: &str| {
            status(&format!(
                "LoadState=loaded\nActiveState=failed\nMainPID=0\n{code}\nResult={result}\n"
            ))
        };
        let exited = failed("ExecMainCode=1\nExecMainStatus=75", "exit-code");
        assert_eq!(exited, Some((State::Stopped, None, Some(75))));
        let paused = format!("{active}StatusText=paused; 7 beats\n");
        assert_eq!(status(&paused), Some((State::Paused, Some(7), Some(0))));
        let other = format!("{active}StatusText=paused jobs: 7\n");
        assert_eq!(status(&other), Some((State::Running, Some(7), Some(0))));
        let looping = "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nMainPID=0\nExecMainCode=1\nExecMainStatus=101\nResult=exit-code\n";
        assert_eq!(
            status(looping),
            Some((State::StartPending, None, Some(101)))
        );
        let killed = failed("ExecMainCode=2\nExecMainStatus=9", "signal");
        assert_eq!(killed, Some((State::Stopped, None, Some(137))));
        assert_eq!(
            failed("ExecMainCode=2\nExecMainStatus=15", "timeout"),
            Some((State::Stopped, None, None))
        );
        assert_eq!(status("LoadState=not-found\nActiveState=inactive\n"), None);
    }

    /// Arbitrary arguments and values reach a program under a real systemd unchanged.
    #[cfg(target_os = "linux")]
    #[test]
    fn hostile_values_arrive_as_they_are() {
        use proptest::prelude::*;
        use proptest::strategy::ValueTree as _;
        use proptest::test_runner::TestRunner;

        const CASES: usize = 40;
        let lab = match mainstay_testkit::lab::Lab::up("systemd", &[]) {
            Ok(lab) => lab,
            Err(why) => return mainstay_testkit::skip(why),
        };
        let odd = "[ \\t\\n\"'\\\\%$;#=,:!@|<>&{}()\\[\\]*?~`a-cn0-9é€😀-]{0,12}";
        let odd_word = format!("{odd}[\\x01-\\x1f\\x7f]?");
        let words = prop::collection::vec(odd_word.as_str(), 0..6);
        let cases = (words, odd, "[ a%$\"'é;#]{0,8}");
        let mut runner = TestRunner::deterministic();
        let mut drawn: Vec<(Vec<String>, String, String)> = (0..CASES)
            .map(|_| cases.new_tree(&mut runner).unwrap().current())
            .collect();
        drawn.push((
            [
                "", "-x", "%n", "%%", "$HOME", "${HOME}", "$$", "\\", "\\x41", "a\\", ";", "a;b",
            ]
            .map(str::to_owned)
            .into(),
            "${HOME} %h $A \\".to_owned(),
            "%h $A".to_owned(),
        ));
        let mut script = r#"
            mkdir -p /opt
            cat > /opt/dump <<'SCRIPT'
#!/bin/sh
{ for word; do printf '%s\0' "$word"; done; printf '%s\0' "$VALUE" "$PWD"; } > "$STATE_DIRECTORY/said"
SCRIPT
            chmod 755 /opt/dump
            "#
        .to_owned();
        for (number, (words, value, dir)) in drawn.iter().enumerate() {
            let dir = format!("/srv/{number}{dir}x");
            let definition = service(format!("dump-{number}"))
                .description(value.clone())
                .executable("/opt/dump")
                .arguments(words)
                .env("VALUE", value)
                .working_dir(&dir);
            let text = text_of(&definition).replace("Type=notify", "Type=oneshot");
            let lines = text.lines().filter(|line| !line.starts_with("Restart"));
            let text: String = lines.map(|line| format!("{line}\n")).collect();
            let dir = dir.replace('\'', "'\\''");
            script += &format!(
                "mkdir -p '{dir}'\ncat > /etc/systemd/system/dump-{number}.service <<'UNIT'\n{text}UNIT\n"
            );
        }
        script += "systemctl daemon-reload\nsystemctl start $(cd /etc/systemd/system && echo dump-*.service)\n";
        lab.script(&script);
        for (number, (words, value, dir)) in drawn.iter().enumerate() {
            let said = lab.run(&["cat", &format!("/var/lib/dump-{number}/said")]);
            let dir = format!("/srv/{number}{dir}x");
            let expected: String = words
                .iter()
                .chain([value, &dir])
                .map(|word| format!("{word}\0"))
                .collect();
            assert_eq!(String::from_utf8_lossy(&said.stdout), expected, "{number}");
        }
    }
}
