//! Processes of other Unix systems, as `ps` shows them.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

/// The option of `ps` that shows the environment after the command.
const WITH_ENVIRONMENT: &str = if cfg!(target_vendor = "apple") {
    "-E"
} else {
    "-e"
};

/// Returns the living processes with this variable. Those of other accounts, and on macOS those of
/// the system's own programs, hide their environment.
pub fn with_env(name: &str, value: &str) -> Vec<Pid> {
    let variable = format!(" {name}={value}");
    let mut ps = Command::new("ps");
    ps.args(["-axww", WITH_ENVIRONMENT, "-o", "pid=,command="]);
    let list = ps.output().expect("ps lists processes").stdout;
    let list = String::from_utf8_lossy(&list).into_owned();
    list.lines()
        .filter(|line| format!("{line} ").contains(&format!("{variable} ")))
        .filter_map(|line| Pid::from_raw(line.split_whitespace().next()?.parse().ok()?))
        .collect()
}

/// Returns the command of a process, for messages.
pub fn program(pid: Pid) -> String {
    let pid = pid.as_raw_nonzero().to_string();
    let mut ps = Command::new("ps");
    let shown = ps.args(["-o", "command=", "-p", &pid]).output();
    let shown = shown.expect("ps lists processes").stdout;
    String::from_utf8_lossy(&shown).trim().to_owned()
}

/// Kills a process that was started in a sandbox. One that has ended is ignored.
pub fn kill(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
}
