//! Recovery after a supervisor was killed. Processes that its ledger accounts for are adopted, and
//! the others are ended, so that nothing runs twice.

use std::time::Duration;

use mainstay_core::engine::Checkpoint;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::time::Instant;
use mainstay_store::Unreadable;
use mainstay_store::embedded::Definition;
use mainstay_store::ledger::{Entry, LedgerSnapshot};
use mainstay_store::state_dir::{Left, Lock, Predecessor, StateDir};
use mainstay_sys as sys;
use mainstay_sys::{Identity, Processes, Tree};

use super::dispatcher::Taken;
use super::executor::{Adopted, exit_of};
use crate::definitions;

/// A dead supervisor, and its ledger or the reason why that cannot be used.
pub(super) type Remains = (Predecessor, Result<Option<LedgerSnapshot>, Unreadable>);

/// The recovered services.
pub(super) struct Recovery {
    /// The recovered state of each service, in the order of the definitions.
    pub(super) services: Vec<RecoveredService>,
    /// The orphan markers by which a later supervisor finds the adopted processes.
    pub(super) orphan_markers: Vec<String>,
    /// Messages for the operator.
    pub(super) remarks: Vec<String>,
    /// The start of the oldest recovered run or state, as uptime of the system; the current uptime
    /// if nothing was recovered.
    pub(super) zero: Duration,
}

/// The recovered state of one service.
#[derive(Default)]
pub(super) struct RecoveredService {
    entry: Option<Entry>,
    pub(super) tree: Option<Tree>,
    pub(super) is_outdated: bool,
    /// Set if the service starts with its supervisor.
    pub(super) is_enabled: bool,
}

impl RecoveredService {
    /// Returns the recovered state, for an engine whose time starts at `zero`.
    pub(super) fn take(self, zero: Duration) -> (Checkpoint, Taken<Adopted>) {
        let checkpoint = self.checkpoint(zero);
        let exit = match &self.tree {
            Some(tree) => tree.exit(),
            None => Some(sys::Exit::UNKNOWN),
        };
        let is_outdated = self.is_outdated;
        let entry = self.entry.as_ref();
        let is_stopped = entry.is_some_and(|entry| entry.is_stopped);
        let child = self.entry.and_then(|entry| entry.child);
        let is_quiesced = child.as_ref().is_some_and(|child| child.is_quiesced);
        let (digest, notify) = match child {
            Some(child) => (child.digest, child.notify),
            None => (None, None),
        };
        let is_any = self.tree.is_some() || notify.is_some();
        let taken = Taken {
            is_stopped,
            exit: exit.map(exit_of),
            is_outdated,
            is_quiesced,
            digest,
            adopted: is_any.then_some(Adopted {
                tree: self.tree,
                notify,
            }),
        };
        (checkpoint, taken)
    }

    /// Returns whether the main process is alive.
    fn lives(&self) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.exit().is_none())
    }

    /// Returns whether the ledger or a desired state accounts for the service.
    pub(super) fn is_known(&self) -> bool {
        self.entry.is_some()
    }

    /// Returns the recovered state for the engine, whose time starts at `zero`.
    fn checkpoint(&self, zero: Duration) -> Checkpoint {
        let at = |ms| Instant::at(Duration::from_millis(ms).saturating_sub(zero));
        let entry = self.entry.as_ref();
        match entry {
            Some(entry) => entry.checkpoint(self.lives(), at),
            None if self.is_enabled => Checkpoint::NEW,
            None => Checkpoint::DISABLED,
        }
    }
}

impl Recovery {
    /// Returns an empty recovery for this many services.
    pub(super) fn none(services: usize) -> Self {
        Self {
            services: (0..services).map(|_| RecoveredService::default()).collect(),
            orphan_markers: Vec::new(),
            remarks: Vec::new(),
            zero: sys::uptime(),
        }
    }

    /// Adopts the living processes of these services and ends everything else that the last
    /// supervisor left.
    pub(super) fn recover(
        (lock, left): (&Lock, Option<Remains>),
        state: &StateDir,
        definitions: &[Definition],
        processes: &mut Processes,
    ) -> Result<Self, Failure> {
        let mut recovery = Self::none(definitions.len());
        for (definition, recovered) in definitions.iter().zip(&mut recovery.services) {
            recovered.is_enabled = definition.is_enabled;
        }
        recovery.remarks.extend(lock.remark.clone());
        let Some((predecessor, ledger_snapshot)) = left else {
            recovery.keep_down(definitions);
            return Ok(recovery);
        };
        let ledger_snapshot = ledger_snapshot.unwrap_or_else(|why| {
            recovery.remarks.push(format!(
                "{why}; running services are killed and restarted instead of adopted"
            ));
            None
        });
        if let Some(ledger_snapshot) = &ledger_snapshot {
            processes.note_recorded(ledger_snapshot.entries.iter().filter_map(Entry::main));
            // For a rebuilt ledger, the definition that started each run is unknown.
            let is_known = ledger_snapshot.rebuilt.is_none();
            let before = is_known
                .then(|| {
                    ledger_snapshot
                        .definitions(state, definitions::installed)
                        .ok()
                })
                .flatten();
            if let Some(why) = &ledger_snapshot.rebuilt {
                let count = ledger_snapshot.entries.len();
                recovery.remarks.push(format!(
                    "{why}; the main processes of {count} services were found by their cgroups and count as ready"
                ));
            }
            for (definition, recovered) in definitions.iter().zip(&mut recovery.services) {
                let name = definition.spec.name().as_str();
                recovered.entry = ledger_snapshot
                    .entries
                    .iter()
                    .find(|entry| entry.name == name)
                    .cloned();
                let entry = recovered.entry.as_ref().filter(|entry| !entry.is_updated);
                let of_version = entry.map_or(0, |entry| entry.version);
                recovered.is_outdated = match of_version {
                    _ if definition.problem.is_some() => false,
                    0 => before.as_ref().is_some_and(|all| differs(all, definition)),
                    version => version != definition.version,
                };
                recovery.remarks.extend(recovered.adopt(name, processes));
            }
        }
        recovery.keep_down(definitions);
        recovery.settle(&predecessor)?;
        Ok(recovery)
    }

    /// Keeps stopped and halted services down, as far as the ledger allows. Enables the
    /// dependencies of services that start.
    fn keep_down(&mut self, definitions: &[Definition]) {
        for (definition, recovered) in definitions.iter().zip(&mut self.services) {
            let (name, desired) = (definition.spec.name().as_str(), definition.desired.as_ref());
            let (entry, lives) = (recovered.entry.take(), recovered.lives());
            recovered.entry = Entry::recovered(name, entry, desired, lives);
        }
        let starts = |recovered: &RecoveredService| recovered.is_enabled && !recovered.is_known();
        let all = definitions.iter().enumerate();
        let mut open: Vec<usize> = all
            .filter_map(|(i, _)| starts(&self.services[i]).then_some(i))
            .collect();
        while let Some(i) = open.pop() {
            for need in definitions[i].spec.needed_services() {
                let found = definitions.iter().position(|it| it.spec.name() == need);
                if let Some(found) = found.filter(|&found| !self.services[found].is_enabled) {
                    self.services[found].is_enabled = true;
                    open.extend(starts(&self.services[found]).then_some(found));
                }
            }
        }
    }

    /// Adopts only the living processes of the `named` services and leaves everything else
    /// unchanged.
    pub(super) fn recover_some(
        entries: &[Entry],
        named: impl Fn(&str) -> bool,
        processes: &mut Processes,
    ) -> Self {
        let mut recovery = Self::none(entries.len());
        processes.note_recorded(entries.iter().filter_map(Entry::main));
        for (entry, recovered) in entries.iter().zip(&mut recovery.services) {
            if named(&entry.name) {
                let mut entry = entry.clone();
                entry.want_down();
                recovered.entry = Some(entry.clone());
                recovery
                    .remarks
                    .extend(recovered.adopt(&entry.name, processes));
            }
        }
        recovery.find_zero();
        recovery
    }

    /// Returns the recovered state of each service, for the engine. `None` if there is nothing to
    /// recover, so that every service starts.
    pub(super) fn take(self) -> Option<Vec<(Checkpoint, Taken<Adopted>)>> {
        let starts = |it: &RecoveredService| it.is_enabled && !it.is_known();
        if self.services.iter().all(starts) {
            return None;
        }
        let services = self.services.into_iter();
        Some(services.map(|it| it.take(self.zero)).collect())
    }

    /// Returns whether any process tree was adopted.
    pub(super) fn adopts(&self) -> bool {
        self.services
            .iter()
            .any(|recovered| recovered.tree.is_some())
    }

    fn find_zero(&mut self) {
        for entry in self
            .services
            .iter()
            .filter_map(|recovered| recovered.entry.as_ref())
        {
            let began = entry.child.as_ref().map(|child| child.began_ms);
            for ms in began.into_iter().chain([entry.since_ms]) {
                self.zero = self.zero.min(Duration::from_millis(ms));
            }
        }
    }

    /// Ends processes that were not adopted, and summarises the recovery.
    fn settle(&mut self, predecessor: &Predecessor) -> Result<(), Failure> {
        let trees = self
            .services
            .iter()
            .filter_map(|recovered| recovered.tree.as_ref());
        let spared: Vec<Identity> = trees.map(Tree::identity).collect();
        let mut killed = 0;
        for orphan_marker in &predecessor.orphan_markers {
            killed += end_remains(predecessor, orphan_marker, &spared)?;
            let is_of = |tree: &&Identity| tree.tree.starts_with(orphan_marker.as_str());
            if spared.iter().any(|tree| is_of(&tree)) {
                self.orphan_markers.push(orphan_marker.clone());
            }
        }
        self.find_zero();
        let who = predecessor.name();
        let adopted = self
            .services
            .iter()
            .filter(|recovered| recovered.lives())
            .count();
        let summary = match (adopted, killed) {
            (0, 0) => return Ok(()),
            (0, _) => format!(
                "{who} died without stopping its services; their {killed} processes were killed"
            ),
            (count, 0) => {
                format!(
                    "{who} was killed; {count} of its services are still running and were adopted"
                )
            }
            (count, _) => format!(
                "{who} was killed; {count} of its services are still running and were adopted; {killed} other processes that it left were killed"
            ),
        };
        self.remarks.insert(0, summary);
        Ok(())
    }
}

impl RecoveredService {
    /// Adopts the service's tree, if any of it is alive. Returns a message for the operator, if
    /// there is one.
    fn adopt(&mut self, name: &str, processes: &mut Processes) -> Option<String> {
        let child = self.entry.as_ref()?.child.as_ref()?;
        self.is_outdated |= child.is_outdated;
        match processes.adopt(&child.identity()) {
            Ok(tree) => self.tree = Some(tree),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // If this fails, the remaining processes are ended at once.
                self.tree = processes.adopt_remains(&child.identity()).ok();
                return None;
            }
            Err(error) => {
                return Some(format!(
                    "{name}: cannot adopt pid {}: {error}; it is killed and restarted",
                    child.identity().pid
                ));
            }
        }
        self.is_outdated
            .then(|| format!("{name}: its definition has changed; restart it to apply the change"))
    }
}

/// Returns whether a service's definition has changed.
fn differs(all: &[Definition], now: &Definition) -> bool {
    let before = all.iter().find(|old| old.spec.name() == now.spec.name());
    before.is_none_or(|before| before.spec != now.spec || before.dir != now.dir)
}

/// Returns the supervisor whose services may still be running, and its ledger. Returns `None` if
/// the last supervisor ended in good order.
///
/// If the lock does not name the supervisor, the ledger does. If that is lost too, the processes
/// themselves do: each carries the name of its state directory.
pub(super) fn remains_of(lock: &Lock, state: &StateDir) -> Option<Remains> {
    let ledger_snapshot = || LedgerSnapshot::read(state);
    match &lock.left {
        Left::Nothing => None,
        Left::Services(predecessor) => {
            let manifest = "an unknown manifest";
            let ledger_snapshot = read_or_rebuild(state, (predecessor, manifest));
            Some((predecessor.clone(), ledger_snapshot))
        }
        Left::Unknown => {
            let ledger_snapshot = ledger_snapshot();
            let header = match &ledger_snapshot {
                Ok(Some(ledger_snapshot)) => Some(&ledger_snapshot.header),
                _ => None,
            };
            let marked = sys::orphan_marker_of(&state.mark());
            let predecessor = Predecessor {
                pid: header.map(|header| header.supervisor),
                orphan_markers: match header {
                    Some(header) if !header.orphan_markers.is_empty() => {
                        header.orphan_markers.clone()
                    }
                    _ => vec![marked],
                },
            };
            Some((predecessor, ledger_snapshot))
        }
    }
}

/// The installed services of a dead daemon that run, whether they still are installed or not: an
/// uninstallation stops a service before it removes anything.
pub(super) fn living((_, ledger_snapshot): &Remains) -> Vec<String> {
    let entries = match ledger_snapshot {
        Ok(Some(ledger_snapshot)) if ledger_snapshot.is_of_installed() => {
            &ledger_snapshot.entries[..]
        }
        _ => &[],
    };
    let living = entries.iter().filter(|entry| entry.living().is_some());
    living.map(|entry| entry.name.clone()).collect()
}

/// Reads the ledger. If it is lost, rebuilds what the system shows of live services.
///
/// # Errors
/// If the ledger cannot be read and nothing can be rebuilt.
pub(super) fn read_or_rebuild(
    state: &StateDir,
    of: (&Predecessor, &str),
) -> Result<Option<LedgerSnapshot>, Unreadable> {
    let read = LedgerSnapshot::read(state);
    let why = match &read {
        Ok(Some(_)) => return read,
        Ok(None) => format!("{} is missing", state.ledger_path().display()),
        Err(error) => error.to_string(),
    };
    LedgerSnapshot::rebuild(state, of, why)
        .map_or(read, |ledger_snapshot| Ok(Some(ledger_snapshot)))
}

/// Ends the processes that a supervisor left, and returns their number.
pub(super) fn end_remains(
    predecessor: &Predecessor,
    orphan_marker: &str,
    spared: &[Identity],
) -> Result<usize, Failure> {
    sys::end_remains(orphan_marker, spared).map_err(|error| {
        let who = predecessor.name();
        Failure::new(
            Code::Failed,
            format!("cannot kill the processes left by {who}: {error}"),
        )
        .hint(format!(
            "find them by {orphan_marker:?}, kill them, then try again"
        ))
    })
}
