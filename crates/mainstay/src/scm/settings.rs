//! Translation of a definition into the manager's settings. Reports all mistakes at once.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use super::command_line::command_line;
use super::{AUTO_START, Base, DEMAND_START, FailureActions, Setting};
use crate::definition::wrong_windows_name;
use crate::{Account, Definition, Error, ErrorControl, ErrorKind, ServiceSid, Start, UNDER_SCM};

/// The action types `SC_ACTION_RESTART`, `SC_ACTION_REBOOT` and `SC_ACTION_RUN_COMMAND`.
pub(super) const RESTART: u32 = 1;
pub(super) const REBOOT: u32 = 2;
const RUN_COMMAND: u32 = 3;
/// The maximum length of names ("CreateServiceW").
const NAME_MAX: usize = 256;
/// The system's default preshutdown timeout (Windows 10).
const PRESHUTDOWN: u32 = 10_000;

/// Returns the settings, starting with the base. `running` is the path of the running program.
pub(super) fn settings(definition: &Definition, running: &Path) -> Result<Vec<Setting>, Error> {
    let mut wrong = Vec::new();
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
        wants,
        start,
        recovery,
        windows,
        ..
    } = definition;
    wrong.extend(wrong_windows_name(name));
    let texts = [
        ("display name", display_name.as_ref()),
        ("description", description.as_ref()),
        ("load order group", windows.load_order_group.as_ref()),
        ("command on failure", windows.command_on_failure.as_ref()),
        ("reboot message", windows.reboot_message.as_ref()),
        ("access control list", windows.security.as_ref()),
    ];
    for (what, text) in texts {
        wrong.extend(text.and_then(|text| wrong_text(what, text)));
    }
    let too_long = display_name
        .as_ref()
        .filter(|text| text.encode_utf16().count() > NAME_MAX);
    wrong.extend(too_long.map(|_| format!("the display name is longer than {NAME_MAX}")));
    for (what, list) in [
        ("need", Some(needs)),
        ("want", Some(wants)),
        ("privilege", windows.privileges.as_ref()),
    ] {
        let texts = list.into_iter().flatten();
        wrong.extend(texts.filter_map(|text| wrong_text(what, text)));
    }
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) {
            wrong.push(format!("{name:?} is not a valid variable name"));
        }
        if value.contains('\0') {
            wrong.push(format!("the value of {name} contains a NUL"));
        }
    }
    let program = executable.as_deref().unwrap_or(running);
    for (what, path) in [
        ("program", Some(program)),
        ("working directory", working_dir.as_deref()),
    ] {
        let relative = path.filter(|path| !is_absolute(path));
        wrong.extend(
            relative.map(|path| format!("the {what} {} is not an absolute path", path.display())),
        );
    }
    let image_path = image_path(program, arguments.as_deref());
    let expands = |path: &String| path.matches('%').count() > 1;
    wrong.extend(
        image_path
            .as_ref()
            .filter(|path| expands(path))
            .map(|path| format!("{path} contains %, which Windows would expand as a variable")),
    );
    let no_list = windows
        .security
        .as_ref()
        .filter(|sddl| !sddl.starts_with("D:"));
    wrong.extend(
        no_list.map(|sddl| format!("{sddl:?} is not an access control list, which starts with D:")),
    );
    if image_path.is_none() {
        wrong.push(
            "the command line contains a NUL, a quoted program path or invalid Unicode".to_owned(),
        );
    }
    let password = match account {
        Account::User(user, None) => {
            wrong.push(format!("the password of {user} is missing"));
            None
        }
        Account::User(_, password) => password.clone(),
        _ => None,
    };
    let delays = recovery.restart_after.iter();
    let delays: Vec<Option<u32>> = delays.map(|delay| millis(*delay)).collect();
    let reset_after = u32::try_from(recovery.reset_after.as_secs()).ok();
    let preshutdown = windows.preshutdown.map_or(Some(PRESHUTDOWN), millis);
    if delays.contains(&None) || reset_after.is_none() || preshutdown.is_none() {
        wrong.push("a duration is longer than 49 days".to_owned());
    }
    let (true, Some(image_path)) = (wrong.is_empty(), image_path) else {
        let what = format!("service {name:?}: {}", wrong.join("; "));
        return Err(Error::new(ErrorKind::Invalid, what));
    };
    let restarts = delays.into_iter().flatten().map(|delay| (RESTART, delay));
    let command = windows.command_on_failure.iter().map(|_| (RUN_COMMAND, 0));
    let reboot = windows.reboot_message.iter().map(|_| (REBOOT, 0));
    let actions: Vec<(u32, u32)> = restarts.chain(command).chain(reboot).collect();
    let has_actions = !actions.is_empty();
    let mut settings = vec![
        Setting::Base(Base {
            display_name: display_name.clone().unwrap_or_else(|| name.clone()),
            shows_windows: windows.shows_windows,
            shares_process: definition.shared_process.is_some(),
            start_type: match start {
                Start::Automatic | Start::Delayed => AUTO_START,
                Start::Manual => DEMAND_START,
                Start::Disabled => 4,
            },
            error_control: match windows.error_control {
                ErrorControl::Ignore => 0,
                ErrorControl::Normal => 1,
                ErrorControl::Severe => 2,
                ErrorControl::Critical => 3,
            },
            image_path,
            load_order_group: windows.load_order_group.clone().unwrap_or_default(),
            dependencies: needs.iter().chain(wants).cloned().collect(),
            account: account.windows_name(name),
            password,
        }),
        Setting::Description(description.clone().unwrap_or_default()),
        Setting::DelayedStart(*start == Start::Delayed),
        Setting::Failure(FailureActions {
            reset_after: reset_after.unwrap_or_default(),
            reboot_message: windows.reboot_message.clone().unwrap_or_default(),
            command: windows.command_on_failure.clone().unwrap_or_default(),
            actions,
        }),
        Setting::FailureFlag(has_actions && !recovery.crashes_only),
        Setting::Preshutdown(preshutdown.unwrap_or_default()),
        Setting::Sid(match windows.sid {
            ServiceSid::None => 0,
            ServiceSid::Unrestricted => 1,
            ServiceSid::Restricted => 3,
        }),
        Setting::Privileges(windows.privileges.clone().unwrap_or_default()),
        Setting::Triggers(windows.triggers.clone()),
        Setting::Environment(
            env.iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        ),
    ];
    settings.push(Setting::EventSource(program.to_str().map(str::to_owned)));
    settings.extend(windows.security.clone().map(Setting::Security));
    if let Account::User(..) | Account::Managed(_) = account {
        settings.push(Setting::LogonRight(true));
    }
    Ok(settings)
}

/// Returns the recovery settings that the manager does not support, one message each. Its actions
/// depend on the number of failures only.
pub(super) fn losses(definition: &Definition) -> Vec<String> {
    let recovery = &definition.recovery;
    let halts = !recovery.final_codes().is_empty();
    let halts = halts.then_some("exit codes after which it stays down");
    let limit = recovery.limit.map(|_| "restart limit");
    let losses = halts.into_iter().chain(limit).map(str::to_owned);
    losses.chain(definition.lost_retries()).collect()
}

fn wrong_text(what: &str, text: &str) -> Option<String> {
    (text.is_empty() || text.contains('\0'))
        .then(|| format!("the {what} is empty or contains a NUL"))
}

/// Returns whether a path is absolute on Windows. For tests, it also works on other systems.
fn is_absolute(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    path.is_absolute() || matches!(text, [_, b':', b'\\' | b'/', ..] | [b'\\', b'\\', ..])
}

fn image_path(program: &Path, arguments: Option<&[OsString]>) -> Option<String> {
    let run = [OsString::from("run")];
    let arguments = arguments.unwrap_or(&run).iter().map(OsString::as_os_str);
    let arguments = arguments.chain([OsStr::new(UNDER_SCM)]);
    command_line(program.as_os_str(), arguments).filter(|line| !line.contains('\0'))
}

fn millis(duration: Duration) -> Option<u32> {
    u32::try_from(duration.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Password, Recovery, service};

    const RUNNING: &str = "C:\\Program Files\\Orders\\orders.exe";

    #[test]
    fn everything_has_a_meaning() {
        let definition = service("orders")
            .display_name("Orders")
            .start(Start::Delayed)
            .env("A", "1")
            .needs("tcpip")
            .account(Account::User("joe".into(), Some(Password::new("secret"))))
            .windows(|windows| {
                windows
                    .command_on_failure("tell.exe")
                    .sid(ServiceSid::Restricted)
            });
        let settings = settings(&definition, Path::new(RUNNING)).unwrap();
        let Setting::Base(base) = &settings[0] else {
            panic!("the base comes first");
        };
        assert_eq!(
            base.image_path,
            "\"C:\\Program Files\\Orders\\orders.exe\" run --under-scm"
        );
        assert_eq!((base.start_type, &*base.account), (2, ".\\joe"));
        let shared = Base {
            shares_process: true,
            shows_windows: true,
            ..base.clone()
        };
        assert_eq!((base.service_type(), shared.service_type()), (0x10, 0x120));
        assert!(settings.contains(&Setting::DelayedStart(true)));
        assert!(settings.contains(&Setting::Sid(3)));
        assert!(settings.contains(&Setting::Environment(vec![("A".into(), "1".into())])));
        let actions = vec![(1, 1000), (1, 5000), (1, 30_000), (3, 0)];
        let failure = |setting: &&Setting| matches!(setting, Setting::Failure(failure) if failure.actions == actions);
        assert!(settings.iter().any(|setting| failure(&setting)));
        assert!(!format!("{settings:?}").contains("secret"));
    }

    #[test]
    fn all_mistakes_are_told_at_once_and_no_secret() {
        let definition = service("Or/ders")
            .display_name("")
            .executable("orders.exe")
            .env("A=B", "secret")
            .needs("x\0")
            .account(Account::User("joe".into(), None))
            .recovery(Recovery {
                restart_after: vec![Duration::MAX],
                ..Recovery::default()
            });
        let error = settings(&definition, Path::new(RUNNING)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        for part in [
            "a name has 1 to 256",
            "the display name is empty",
            "orders.exe is not an absolute path",
            "\"A=B\" is not",
            "the need is empty or contains a NUL",
            "the password of joe is missing",
            "a duration is longer",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }
}
