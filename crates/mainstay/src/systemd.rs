//! A service as a systemd unit, and what `systemctl show` says of one. Pure: `sys` writes and asks.
//!
//! Sources: systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.syntax(7), systemctl(1).

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::definition::wrong_name;
use crate::scm::refusal::SERVICE_SPECIFIC;
use crate::{Accepts, Account, Definition, Error, ErrorKind, Scope, ServiceStatus, Start, State};

/// The first line of each unit of ours.
pub(crate) const MARK: &str = "# Written by `install`, which overwrites it. What is to stay goes into a drop-in: systemctl edit.";
/// What [`status`] reads, as `systemctl show --property=` takes it.
pub(crate) const PROPERTIES: &str =
    "LoadState,ActiveState,MainPID,ExecMainCode,ExecMainStatus,Result,FreezerState";

/// A unit file, and what it cannot say, one text each.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) text: String,
    pub(crate) losses: Vec<String>,
}

/// What holds for every service that is no account of the machine's own; see systemd.exec(5), "Sandboxing".
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
/// What a user's own manager can enforce, too.
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

/// The unit of `definition`; `running` is the program that runs now, and `version` that of systemd.
///
/// # Errors
/// All that is wrong with it, and all that no unit can say, at once.
pub(crate) fn unit(definition: &Definition, running: &Path, version: u32) -> Result<Unit, Error> {
    let Definition {
        name,
        display_name,
        description,
        executable,
        arguments,
        working_dir,
        env,
        account,
        needs,
        start,
        start_timeout,
        graceful,
        recovery,
        accepts,
        scope,
        systemd,
        ..
    } = definition;
    let mut wrong = Vec::new();
    let mut losses = Vec::new();
    wrong.extend(wrong_name(name));
    let mut unit = Section::new("[Unit]");
    let title = description.as_ref().or(display_name.as_ref());
    unit.line("Description", &specifiers(&one_line(title.unwrap_or(name))));
    for need in needs {
        let need = match need.contains('.') {
            true => need.clone(),
            false => format!("{need}.service"),
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_.\\@-".contains(&byte);
        if !need.bytes().all(is_plain) {
            wrong.push(format!("{need:?} cannot be the name of a unit"));
        }
        unit.line("Requires", &need);
        unit.line("After", &need);
    }
    // Recovery knows no end; without this, five starts in ten seconds would be one.
    unit.line("StartLimitIntervalSec", "0");

    let mut service = Section::new("[Service]");
    let reloads = accepts.contains(Accepts::RELOAD);
    let waits_for_reload = reloads && version >= 253;
    service.line(
        "Type",
        match waits_for_reload {
            true => "notify-reload",
            false => "notify",
        },
    );
    let program = executable.as_deref().unwrap_or(running);
    if !program.is_absolute() || program.as_os_str().as_encoded_bytes().contains(&b'$') {
        let path = program.display();
        wrong.push(format!(
            "the program {path} is no absolute path, or holds a $"
        ));
    }
    let run = ["run".into()];
    let words = arguments.as_deref().unwrap_or(&run).iter();
    let words = std::iter::once(program.as_os_str()).chain(words.map(|word| &**word));
    let words: Option<Vec<String>> = words
        .map(|word| Some(quoted(word.to_str()?)?.replace('$', "$$")))
        .collect();
    match words {
        Some(words) => service.line("ExecStart", &words.join(" ")),
        None => wrong.push("the command line holds a NUL, or what is no UTF-8".to_owned()),
    }
    if reloads && !waits_for_reload {
        service.line("ExecReload", "/bin/kill -HUP $MAINPID");
    }
    for (name, value) in env {
        let is_inner = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
        let is_name = name.bytes().all(is_inner)
            && name
                .bytes()
                .next()
                .is_some_and(|first| !first.is_ascii_digit());
        let is_value = !value
            .chars()
            .any(|char| char.is_control() && !"\n\t".contains(char));
        match quoted(&format!("{name}={value}")).filter(|_| is_name && is_value) {
            Some(word) => service.line("Environment", &word),
            None => wrong.push(format!(
                "systemd takes no variable {name:?} with such a value"
            )),
        }
    }
    match working_dir {
        Some(dir) => match dir
            .to_str()
            .filter(|dir| dir.starts_with('/') && is_bare(dir))
        {
            Some(dir) => service.line("WorkingDirectory", &specifiers(dir)),
            None => wrong.push(format!(
                "the working directory {} is no absolute path, or holds what no unit can say",
                dir.display()
            )),
        },
        None => service.line("WorkingDirectory", "%S/%N"),
    }
    let is_plain = |name: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        !name.is_empty() && !name.starts_with('.') && name.bytes().all(is_inner)
    };
    match &systemd.state_directory {
        Some(dir) if is_plain(dir) => {
            service.line("StateDirectory", dir);
            service.line("StateDirectoryMode", "0700");
        }
        Some(dir) => wrong.push(format!("{dir:?} cannot be the name of a state directory")),
        None => service.line("StateDirectory", "%N"),
    }
    for (name, path) in &systemd.credentials {
        match path
            .to_str()
            .filter(|path| path.starts_with('/') && is_plain(name) && is_bare(path))
        {
            Some(path) => service.line("LoadCredential", &format!("{name}:{}", specifiers(path))),
            None => wrong.push(format!(
                "the credential {name:?} has another name or path than a unit can say"
            )),
        }
    }
    match (scope, account) {
        (Scope::User, Account::Virtual) | (Scope::System, Account::LocalSystem) => {}
        (Scope::User, _) => losses.push("its account: it runs as the user whose it is".to_owned()),
        (Scope::System, Account::Virtual | Account::LocalService | Account::NetworkService) => {
            service.line("DynamicUser", "yes");
        }
        (Scope::System, Account::User(user, _)) => {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            if user.is_empty() || user.starts_with('-') || !user.bytes().all(is_plain) {
                wrong.push(format!("{user:?} cannot be the name of a user"));
            }
            service.line("User", user);
        }
        (Scope::System, Account::Managed(account)) => {
            wrong.push(format!("{account} is an account of Windows"));
        }
    }
    service.line("TimeoutStartSec", &seconds(*start_timeout));
    service.line("TimeoutStopSec", &seconds(*graceful));
    if systemd.supervises {
        service.line("Delegate", "yes");
        service.line("KillMode", "process");
    } else {
        // Its main process is asked, and ends its own; what is left after that is killed.
        service.line("KillMode", "mixed");
    }
    let pauses = &recovery.restart_after;
    service.line(
        "Restart",
        match (pauses.is_empty(), recovery.crashes_only) {
            (true, _) => "no",
            (false, true) => "on-abnormal",
            (false, false) => "on-failure",
        },
    );
    if let [first, .., last] = &pauses[..]
        && first != last
    {
        service.line("RestartSec", &seconds(*first));
        if version >= 254 {
            service.line("RestartSteps", &(pauses.len() - 1).to_string());
            service.line("RestartMaxDelaySec", &seconds(*last));
            losses.push(
                "that a good run makes the next pause before a restart the first again".to_owned(),
            );
        } else {
            losses.push(format!(
                "pauses that grow (systemd 254): each is {}",
                seconds(*first)
            ));
        }
    } else if let Some(pause) = pauses.first() {
        service.line("RestartSec", &seconds(*pause));
    }
    if *start == Start::Disabled {
        losses.push("that nobody can start it: it is not started with the system".to_owned());
    }
    if systemd.sandbox && !(*scope == Scope::System && *account == Account::LocalSystem) {
        sandbox(&mut service, definition, program, &mut wrong);
    }
    if !wrong.is_empty() {
        let what = format!("service {name:?}: {}", wrong.join("; "));
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    let mut install = Section::new("[Install]");
    install.line(
        "WantedBy",
        match scope {
            Scope::System => "multi-user.target",
            Scope::User => "default.target",
        },
    );
    let text = format!("{MARK}\n\n{}\n{}\n{}", unit.0, service.0, install.0);
    Ok(Unit { text, losses })
}

fn sandbox(
    service: &mut Section,
    definition: &Definition,
    program: &Path,
    wrong: &mut Vec<String>,
) {
    let systemd = &definition.systemd;
    if definition.scope == Scope::System {
        for (key, value) in SANDBOX {
            match *key {
                "CapabilityBoundingSet" if !systemd.capabilities.is_empty() => {
                    let names = systemd.capabilities.join(" ");
                    service.line(key, &names);
                    service.line("AmbientCapabilities", &names);
                }
                // They would hold within it alone.
                "PrivateUsers" if !systemd.capabilities.is_empty() => {}
                "ProtectControlGroups" if systemd.supervises => {}
                // Of another one, it would not see what its predecessor has left.
                "PrivateUsers" if systemd.supervises => {}
                _ => service.line(key, value),
            }
        }
        // A program that lies there has to be found.
        let homes = ["/home", "/root", "/run/user"];
        let is_at_home = systemd.supervises || homes.iter().any(|home| program.starts_with(home));
        service.line("ProtectHome", if is_at_home { "read-only" } else { "yes" });
    }
    if ["/tmp", "/var/tmp"]
        .iter()
        .any(|dir| program.starts_with(dir))
    {
        let path = program.display();
        wrong.push(format!(
            "the program {path} lies among temporary files, where its sandbox has its own"
        ));
    }
    for (key, value) in SANDBOX_OF_USERS {
        let is_said = definition.scope == Scope::System && *key == "NoNewPrivileges";
        let is_too_much = systemd.supervises
            && (*key == "MemoryDenyWriteExecute" || value.contains("@resources"));
        if !is_said && !is_too_much {
            service.line(key, value);
        }
    }
    let is_name = |name: &String| {
        name.starts_with("CAP_")
            && name
                .bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_uppercase())
    };
    for name in systemd.capabilities.iter().filter(|name| !is_name(name)) {
        wrong.push(format!(
            "{name:?} is no capability: CAP_NET_BIND_SERVICE is one"
        ));
    }
    for path in &systemd.writable {
        match path
            .to_str()
            .filter(|path| path.starts_with('/'))
            .and_then(quoted)
        {
            Some(path) => service.line("ReadWritePaths", &path),
            None => wrong.push(format!(
                "the writable path {} is no absolute one",
                path.display()
            )),
        }
    }
}

/// What `systemctl show` has said of [`PROPERTIES`]; `None` if there is no such unit.
pub(crate) fn status(said: &str) -> Option<ServiceStatus> {
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
    let state = match property("ActiveState") {
        _ if property("FreezerState") == "frozen" => State::Paused,
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
    let has_failed = state == State::Stopped && property("ActiveState") == "failed";
    let code = match (has_failed, property("Result")) {
        (false, _) => 0,
        (true, "timeout" | "watchdog") => 1053,
        (true, _) => SERVICE_SPECIFIC,
    };
    Some(ServiceStatus {
        state,
        pid: Some(number("MainPID")).filter(|pid| *pid != 0),
        code,
        own_code: if has_failed { own_code } else { 0 },
        checkpoint: 0,
        wait_hint: Duration::ZERO,
    })
}

struct Section(String);

impl Section {
    fn new(head: &str) -> Self {
        Self(format!("{head}\n"))
    }

    /// The value is as the file has it.
    fn line(&mut self, key: &str, value: &str) {
        let _infallible = writeln!(self.0, "{key}={value}");
    }
}

/// One word: within quotes, with C's escapes, and no specifiers. `None` if it holds a NUL.
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

/// Whether a value that is taken as it stands, to the end of its line, can say this.
fn is_bare(text: &str) -> bool {
    !text.chars().any(char::is_control) && text.trim() == text && !text.ends_with('\\')
}

fn specifiers(text: &str) -> String {
    text.replace('%', "%%")
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(char::is_control).map(str::trim).collect();
    let line = words.join(" ");
    line.trim().trim_end_matches('\\').to_owned()
}

/// "1.5s". Milliseconds are as fine as it gets.
fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        millis => format!("{}s {millis}ms", duration.as_secs()),
    }
}

/// Whether this is a unit that [`unit()`] has made.
pub(crate) fn is_ours(text: &str) -> bool {
    text.lines().next() == Some(MARK)
}

/// The version that `systemctl --version` says first: `systemd 252 (252.39-1~deb12u1)`.
pub(crate) fn version(said: &str) -> Option<u32> {
    let word = said.split_ascii_whitespace().nth(1)?;
    let digits = word.split(|char: char| !char.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Recovery, Systemd, service};

    const RUNNING: &str = "/opt/orders/orders";

    fn text_of(definition: &Definition) -> String {
        unit(definition, Path::new(RUNNING), 254).unwrap().text
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
            .systemd(Systemd::without_sandbox);
        let Unit { text, losses } = unit(&definition, Path::new(RUNNING), 254).unwrap();
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
RestartSec=1s
RestartSteps=2
RestartMaxDelaySec=30s

[Install]
WantedBy=multi-user.target
"#;
        assert_eq!(text, format!("{MARK}\n{expected}"));
        assert_eq!(
            losses,
            ["that a good run makes the next pause before a restart the first again"]
        );
        assert!(is_ours(&text));
    }

    #[test]
    fn older_systemds_get_what_they_know() {
        let definition = service("orders").accepts(Accepts::RELOAD);
        let Unit { text, losses } = unit(&definition, Path::new(RUNNING), 252).unwrap();
        assert!(
            text.contains("Type=notify\n") && text.contains("ExecReload="),
            "{text}"
        );
        assert!(!text.contains("RestartSteps"), "{text}");
        assert_eq!(losses, ["pauses that grow (systemd 254): each is 1s"]);
        assert_eq!(version("systemd 252 (252.39-1~deb12u1)\n+PAM"), Some(252));
        assert_eq!(version("systemd 256~rc3"), Some(256));
    }

    #[test]
    fn a_supervisor_gets_what_its_programs_may_need() {
        let set = |systemd: Systemd| {
            let systemd = systemd.supervises().state_directory("mainstay-orders");
            systemd.credential("manifest.toml", "/var/lib/a b/100%.toml")
        };
        let text = text_of(&service("orders").systemd(set));
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
        let wrong = |systemd: Systemd| systemd.state_directory("../x").credential("a:b", "/x");
        let error = unit(&service("orders").systemd(wrong), Path::new(RUNNING), 254).unwrap_err();
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
        let open = |systemd: Systemd| {
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
        let error = unit(&definition, Path::new(RUNNING), 254).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        for part in [
            "a name has 1 to 63",
            "the program orders is no absolute path",
            "the command line holds a NUL",
            "no variable \"A B\"",
            "no variable \"C\"",
            "\"a b.service\" cannot be",
            "the working directory",
            "is an account of Windows",
            "\"net\" is no capability",
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
        let killed = failed("ExecMainCode=2\nExecMainStatus=9", "signal");
        assert_eq!(killed, Some((State::Stopped, None, Some(137))));
        assert_eq!(
            failed("ExecMainCode=2\nExecMainStatus=15", "timeout"),
            Some((State::Stopped, None, None))
        );
        assert_eq!(status("LoadState=not-found\nActiveState=inactive\n"), None);
    }

    /// Whatever words and values there are, a program under a real systemd is given just those.
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
            let text = text.replace("Restart=on-failure", "Restart=no");
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
