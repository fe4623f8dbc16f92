//! Stubs for systems without capabilities, which only Linux has.

use std::io;

pub(super) type Set = ();

pub(super) fn parse(names: &[String]) -> io::Result<Set> {
    match names {
        [] => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this system has no capabilities",
        )),
    }
}

pub(super) fn is_passed_on(_name: &str) -> bool {
    false
}

pub(super) fn keep((): &Set) -> bool {
    true
}

pub(super) fn hand_on((): &Set) -> bool {
    true
}
