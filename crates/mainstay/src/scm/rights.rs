//! The access rights, privileges and passwords that each call of the manager requires ("Service
//! Security and Access Rights", "ChangeServiceConfigW", "ChangeServiceConfig2W", Microsoft). No
//! call asks for more: an installer may have been granted only what it needs.

use super::settings::{REBOOT, RESTART};
use super::{Base, Kind, Setting};

const QUERY_CONFIG: u32 = 0x1;
const CHANGE_CONFIG: u32 = 0x2;
const START: u32 = 0x10;
const READ_CONTROL: u32 = 0x2_0000;
const WRITE_DAC: u32 = 0x4_0000;

/// Returns the rights to the service that reading a setting requires.
pub(crate) fn to_read(kind: Kind) -> u32 {
    match kind {
        Kind::Security => READ_CONTROL,
        _ => QUERY_CONFIG,
    }
}

/// Returns the rights to the service that writing a setting requires.
pub(crate) fn to_write(setting: &Setting) -> u32 {
    match setting {
        Setting::Security(_) => WRITE_DAC,
        // The account is read.
        Setting::LogonRight(_) => QUERY_CONFIG,
        Setting::Base(_) => CHANGE_CONFIG | QUERY_CONFIG,
        Setting::Failure(failure) if failure.has(RESTART) => CHANGE_CONFIG | START,
        _ => CHANGE_CONFIG,
    }
}

/// Returns the privilege that must be enabled while a setting is written.
pub(crate) fn privilege(setting: &Setting) -> Option<&'static str> {
    match setting {
        Setting::Failure(failure) if failure.has(REBOOT) => Some("SeShutdownPrivilege"),
        _ => None,
    }
}

/// The form of the password in a call that names an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PasswordForm {
    /// Null: managed and virtual accounts.
    Null,
    /// An empty string: the accounts of the system.
    Empty,
    /// The account's password.
    Given,
}

/// Returns the form of the password for this account.
pub(crate) fn password_form(account: &str, has_password: bool) -> PasswordForm {
    if has_password {
        return PasswordForm::Given;
    }
    let (domain, name) = account.split_once('\\').unwrap_or(("", account));
    let is_virtual = domain.eq_ignore_ascii_case("NT SERVICE");
    if is_virtual || !domain.is_empty() && name.ends_with('$') {
        PasswordForm::Null
    } else {
        PasswordForm::Empty
    }
}

/// Returns whether naming this account requires a password that the manager does not return.
fn has_password(account: &str) -> bool {
    let domain = account.split_once('\\').map(|(domain, _)| domain);
    let is_of_system = account.eq_ignore_ascii_case("LocalSystem")
        || domain.is_some_and(|domain| domain.eq_ignore_ascii_case("NT AUTHORITY"));
    !is_of_system && password_form(account, false) != PasswordForm::Null
}

/// Returns the account that cannot be restored once `before` was replaced by `after`, because its
/// password is not known.
pub(crate) fn lost_account<'a>(before: &'a Base, after: &Base) -> Option<&'a str> {
    let differs = !before.account.eq_ignore_ascii_case(&after.account);
    (differs && has_password(&before.account)).then_some(&before.account)
}

#[cfg(test)]
mod tests {
    use super::super::FailureActions;
    use super::*;

    fn failure(actions: &[u32]) -> Setting {
        Setting::Failure(FailureActions {
            reset_after: 0,
            reboot_message: String::new(),
            command: String::new(),
            actions: actions.iter().map(|kind| (*kind, 0)).collect(),
        })
    }

    #[test]
    fn no_step_asks_for_more_than_it_needs() {
        for (setting, rights, privilege_name) in [
            (Setting::Description(String::new()), 0x2, None),
            (failure(&[]), 0x2, None),
            (failure(&[RESTART]), 0x12, None),
            (failure(&[REBOOT]), 0x2, Some("SeShutdownPrivilege")),
            (
                failure(&[RESTART, REBOOT]),
                0x12,
                Some("SeShutdownPrivilege"),
            ),
            (Setting::Security(String::new()), 0x4_0000, None),
            (Setting::LogonRight(true), 0x1, None),
            (Setting::Triggers(Vec::new()), 0x2, None),
        ] {
            assert_eq!(to_write(&setting), rights, "{setting}");
            assert_eq!(privilege(&setting), privilege_name, "{setting}");
        }
        assert_eq!(to_read(Kind::Security), 0x2_0000);
        assert_eq!(to_read(Kind::Base), 0x1);
    }

    #[test]
    fn passwords_have_the_documented_form() {
        for (account, form, is_lost) in [
            ("LocalSystem", PasswordForm::Empty, false),
            ("NT AUTHORITY\\LocalService", PasswordForm::Empty, false),
            ("NT Authority\\NetworkService", PasswordForm::Empty, false),
            ("NT SERVICE\\orders", PasswordForm::Null, false),
            ("D\\orders$", PasswordForm::Null, false),
            (".\\joe", PasswordForm::Empty, true),
            ("joe@example.com", PasswordForm::Empty, true),
        ] {
            assert_eq!(password_form(account, false), form, "{account}");
            assert_eq!(password_form(account, true), PasswordForm::Given);
            assert_eq!(has_password(account), is_lost, "{account}");
        }
    }
}
