//! Exit codes of commands.

use super::Advice;
use crate::failure::Code;

/// The code, the meaning as docs/exit-codes.md begins to describe it, the cause, the action and an
/// example.
const TABLE: &[(Code, &str, &str, &str, &str)] = &[
    (
        Code::Failed,
        "failed",
        "The operation was attempted and did not succeed; the message names the reason. A supervisor exits with 1 if a service was halted.",
        "Read the message and its hint, then the events of the service.",
        "mainstay events NAME -n 20",
    ),
    (
        Code::Usage,
        "usage error",
        "The command line has an unknown verb or option, or a value that is not valid.",
        "See the options of the verb.",
        "mainstay start --help",
    ),
    (
        Code::NotRunning,
        "not running",
        "No supervisor is running in the state directory, or the service that `status` was asked about is down.",
        "Start the service or its supervisor. If one is running, choose its state directory.",
        "mainstay --state-dir /var/lib/mainstay status",
    ),
    (
        Code::Unknown,
        "no such service or snapshot, no such version of the service, or its state is unknown",
        "The name is misspelt, the service belongs to another state directory, or this user may not see it.",
        "List the services, as root if they belong to the system.",
        "mainstay list",
    ),
    (
        Code::MissingPart,
        "a required part of the system is missing",
        "A program, an interpreter, a working directory, an env file or a user that the manifest names does not exist on this machine.",
        "Install or create the part that the message names, or correct the manifest.",
        "mainstay check mainstay.toml",
    ),
    (
        Code::CannotWrite,
        "the state directory, standard output or another file cannot be written",
        "The disk is full or mounted read-only, a quota is used up, or the file exists.",
        "Free space, or choose another directory.",
        "mainstay --state-dir /srv/mainstay run mainstay.toml",
    ),
    (
        Code::Busy,
        "temporary conflict, try again",
        "Another process is using the state directory, a port or the definition, or the supervisor did not respond within 10 s.",
        "Wait and try again; a script may do so by itself. If it persists, see which process holds the lock or the port: the message names it.",
        "until mainstay update mainstay.toml; [ $? -ne 75 ]; do sleep 1; done",
    ),
    (
        Code::PermissionDenied,
        "permission denied",
        "This user may not read a file, control a service or use a port.",
        "Follow the hint: usually run the command as root or as the owner of the state directory.",
        "sudo mainstay status",
    ),
    (
        Code::InvalidManifest,
        "the manifest is invalid or cannot be parsed",
        "The manifest has errors, or the file belongs to another tool.",
        "Correct each error. `mainstay explain CODE` explains the code in brackets.",
        "mainstay check mainstay.toml",
    ),
    (
        Code::Disagreement,
        "the sources of evidence about the service disagree",
        "The registry, the files of the service manager, the program and the running processes do not match: somebody changed one of them by other means.",
        "Read the causes that `verify` lists; install the service again to restore its files.",
        "mainstay verify NAME",
    ),
];

/// Returns the meaning of a code, and the advice.
pub(super) fn advice(code: Code) -> Option<(&'static str, Advice)> {
    let found = TABLE.iter().find(|(it, ..)| *it == code);
    found.map(|(_, meaning, cause, action, example)| {
        let advice = Advice {
            cause,
            action,
            example,
        };
        (*meaning, advice)
    })
}
