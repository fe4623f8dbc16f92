//! Capabilities for programs that do not run as root. They are ambient, because only ambient
//! capabilities survive an `execve` of a file without capabilities of its own. The functions set
//! `errno`.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set,
    configure_capability_in_ambient_set, set_capabilities, set_keep_capabilities,
};

use super::identity::report;

pub(super) type Set = CapabilitySet;

/// Parses capability names.
///
/// # Errors
/// If Linux has no capability of that name.
pub(super) fn parse(names: &[String]) -> io::Result<Set> {
    let one = |name: &String| {
        let known = name.strip_prefix("CAP_").and_then(Set::from_name);
        known.ok_or_else(|| {
            let message = format!("this system has no capability {name}");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })
    };
    names.iter().map(one).collect()
}

/// Returns whether children of this process get the capability while the user stays the same.
pub(super) fn is_passed_on(name: &str) -> bool {
    let known = name.strip_prefix("CAP_").and_then(Set::from_name);
    known.is_some_and(|one| capability_is_in_ambient_set(one).unwrap_or(false))
}

/// Returns whether this thread can pass the capability on to a program of another user. If it
/// can, it does.
pub(super) fn can_be_given(name: &str) -> bool {
    let Some(one) = name.strip_prefix("CAP_").and_then(Set::from_name) else {
        return false;
    };
    let given = capabilities(None).and_then(|ours| {
        let inheritable = ours.inheritable | one;
        set_capabilities(
            None,
            CapabilitySets {
                inheritable,
                ..ours
            },
        )?;
        configure_capability_in_ambient_set(one, true)
    });
    given.is_ok()
}

/// Keeps capabilities across the change of user, which would otherwise drop them all. Called
/// before the change.
pub(super) fn keep(set: &Set) -> bool {
    set.is_empty() || report(set_keep_capabilities(true))
}

/// Restores the capabilities after the change of user and makes them ambient.
pub(super) fn hand_on(set: &Set) -> bool {
    let sets = CapabilitySets {
        effective: *set,
        permitted: *set,
        inheritable: *set,
    };
    set.is_empty()
        || report(set_capabilities(None, sets))
            && set
                .iter()
                .all(|one| report(configure_capability_in_ambient_set(one, true)))
}
