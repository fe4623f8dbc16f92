//! The identity of the user who runs the command.

use mainstay_core::registry::Who;

#[cfg(unix)]
pub(super) fn who() -> Who {
    let uid = rustix::process::getuid().as_raw();
    let name = mainstay_sys::User::name_of(uid).ok().flatten();
    Who {
        user: name.map_or_else(|| uid.to_string(), |name| name.to_string_lossy().into()),
        uid: Some(uid),
        // Only root can have received it from sudo. Any other user may have set it themselves.
        sudo_user: std::env::var("SUDO_USER").ok().filter(|_| uid == 0),
    }
}

#[cfg(windows)]
pub(super) fn who() -> Who {
    let variable = |name: &str| std::env::var(name).ok();
    let user = variable("USERNAME").unwrap_or_else(|| "unknown".to_owned());
    Who {
        user: match variable("USERDOMAIN") {
            Some(domain) => format!("{domain}\\{user}"),
            None => user,
        },
        uid: None,
        sudo_user: None,
    }
}
