//! Control groups: which processes are in them, as the kernel knows it.

use std::path::{Component, Path, PathBuf};
use std::{fs, io};

#[cfg(unix)]
use mainstay::{Manager, Scope};
use mainstay_core::engine::StateName;
use mainstay_core::verify::{Claim, Evidence, Observation, Part, Source};
use mainstay_sys::Identity;

use super::{known, unknown};
#[cfg(unix)]
use crate::installed::Installed;

/// The mount point of the cgroup file system (cgroups(7)).
const ROOT: &str = "/sys/fs/cgroup";

/// Returns the directory of the unit's control group, if this system shows one.
#[cfg(unix)]
pub(super) fn unit_dir(installed: &Installed) -> Option<PathBuf> {
    if installed.record().manager != Manager::Systemd || installed.record().scope() == Scope::User {
        return None;
    }
    let slice = Path::new(ROOT).join("system.slice");
    slice
        .is_dir()
        .then(|| slice.join(format!("{}.service", installed.manager_name())))
}

/// Reads the control group in which a supervisor of mainstay runs the service; none without one.
pub(super) fn of_tree(tree: Option<&Identity>) -> Option<Evidence> {
    let dir = PathBuf::from(tree?.tree.strip_prefix("cgroup ")?);
    // The account of a service can write the ledger of its host.
    let is_plain = dir.components().all(|it| it != Component::ParentDir);
    if !is_plain || !dir.starts_with(ROOT) {
        let why = "the ledger names a directory outside of the cgroup file system";
        return Some(unknown(Source::Cgroup, dir.display().to_string(), why));
    }
    Some(read(Source::Cgroup, &dir, &[Part::Program]))
}

/// Reads a control group in which these parts of a service run. The first one is what the group
/// exists for.
pub(super) fn read(source: Source, dir: &Path, parts: &[Part]) -> Evidence {
    let part = parts.first().copied().unwrap_or(Part::Program);
    let mut asked = dir.join("cgroup.procs").display().to_string();
    let pids = match collect(dir, 0) {
        Ok(pids) => pids,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return unknown(source, asked, error.to_string()),
    };
    let freezer = freezer(dir).filter(|_| !pids.is_empty());
    let is_frozen = freezer.is_some();
    if let Some(file) = freezer {
        asked = file;
    }
    let words = match (pids.len(), is_frozen) {
        (0, _) => "no processes".to_owned(),
        (1, false) => "1 process".to_owned(),
        (1, true) => "1 process, frozen".to_owned(),
        (count, false) => format!("{count} processes"),
        (count, true) => format!("{count} processes, frozen"),
    };
    // With several parts, the processes may be those of another one.
    let presence = match (pids.len(), parts) {
        (0, _) => Some(Claim::NoProcess(part)),
        (_, [part]) => Some(Claim::Process(*part, None)),
        _ => None,
    };
    let paused = is_frozen.then_some(Claim::State(part, StateName::Paused));
    let members = parts.iter().map(|part| Claim::Members(*part, pids.clone()));
    let observation = Observation::new(words).claim(presence).claim(members);
    known(source, asked, observation.claim(paused))
}

/// Returns the file that freezes a control group, its own or that of a group above it; `None` if
/// the group is not frozen.
fn freezer(dir: &Path) -> Option<String> {
    let events = fs::read_to_string(dir.join("cgroup.events")).ok()?;
    let is_frozen = events.lines().any(|line| line == "frozen 1");
    let mut dirs = dir.ancestors().take_while(|it| it.starts_with(ROOT));
    let by = dirs.find(|it| {
        let freeze = fs::read_to_string(it.join("cgroup.freeze"));
        freeze.is_ok_and(|it| it.trim() == "1")
    });
    let file = by.unwrap_or(dir).join("cgroup.freeze");
    is_frozen.then(|| file.display().to_string())
}

/// Returns the file that freezes a process; `None` if it is not frozen.
pub(super) fn freezer_of(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let roots = [ROOT.to_owned(), format!("{ROOT}/unified")];
    let mut dirs = roots.iter().map(|root| Path::new(root).join(path));
    dirs.find_map(|dir| freezer(&dir))
}

/// The number of nested control groups that are read.
const DEEPEST: usize = 8;

fn collect(dir: &Path, depth: usize) -> io::Result<Vec<u32>> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    let mut pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    if depth < DEEPEST {
        for entry in fs::read_dir(dir)?.flatten() {
            if entry.file_type().is_ok_and(|it| it.is_dir()) {
                // It may be gone by now.
                pids.extend(collect(&entry.path(), depth + 1).unwrap_or_default());
            }
        }
    }
    Ok(pids)
}
