//! The requesters of changes, and the changes: the record of requests in the events of a service.

use std::fmt;

use serde::Serialize;

use super::request::Request;

/// The requester of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Principal {
    /// A process of this machine, as the system identifies the peer of a local socket.
    Local {
        /// The account, by its name if it has one. `None` if the system does not tell.
        user: Option<String>,
        /// The process ID at the time of the request. `None` if the system does not tell.
        pid: Option<u32>,
    },
    /// The service manager that started the supervisor.
    #[default]
    Manager,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local {
                user: Some(user),
                pid: Some(pid),
            } => write!(f, "{user} (pid {pid})"),
            Self::Local {
                user: Some(name), ..
            } => f.write_str(name),
            Self::Local { pid: Some(pid), .. } => write!(f, "pid {pid}"),
            Self::Local { .. } => f.write_str("a local process"),
            Self::Manager => f.write_str("the service manager"),
        }
    }
}

/// A change that is requested of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// The configuration is read again.
    Reload,
    /// The state is saved.
    Snapshot,
    /// A new definition is tried.
    Update,
    /// The definition on trial replaces the old one.
    Commit,
    /// The definition on trial is rolled back.
    Abort,
    /// The service is installed, or its definition replaced.
    Install,
    /// The service is removed.
    Uninstall,
    /// A request that the engine processes by itself.
    #[serde(untagged)]
    Request(Request),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reload => "reload",
            Self::Snapshot => "snapshot",
            Self::Update => "update",
            Self::Commit => "commit of the update",
            Self::Abort => "rollback of the update",
            Self::Install => "installation",
            Self::Uninstall => "removal",
            Self::Request(request) => return request.fmt(f),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_named_as_far_as_it_is_known() {
        let local = |user: Option<&str>, pid| Principal::Local {
            user: user.map(str::to_owned),
            pid,
        };
        for (principal, text) in [
            (local(Some("alice"), Some(4711)), "alice (pid 4711)"),
            (local(Some("alice"), None), "alice"),
            (local(None, Some(4711)), "pid 4711"),
            (local(None, None), "a local process"),
            (Principal::Manager, "the service manager"),
        ] {
            assert_eq!(principal.to_string(), text);
        }
    }
}
