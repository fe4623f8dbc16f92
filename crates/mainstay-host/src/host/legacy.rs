//! Recovery after a supervisor was killed. Processes that its ledger accounts for are adopted, and
//! the others are ended, so that nothing runs twice.

use std::time::Duration;

use mainstay_core::engine::Bequest;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::registry::TextDigest;
use mainstay_core::time::Instant;
use mainstay_store::state_dir::{Left, Lock, Predecessor, StateDir};
use mainstay_sys as sys;
use mainstay_sys::{Identity, Processes, Tree};

use super::ledger::{Estate, Slot};
use crate::embedded::Definition;

/// A dead supervisor, and its ledger or the reason why that cannot be used.
pub(super) type Remains = (Predecessor, Result<Option<Estate>, String>);

/// The recovered services.
pub(super) struct Legacy {
    /// The recovered state of each service, in the order of the definitions.
    pub(super) heirs: Vec<Heir>,
    /// The orphan markers by which a later supervisor finds the adopted processes.
    pub(super) testaments: Vec<String>,
    /// Messages for the operator.
    pub(super) remarks: Vec<String>,
    /// The start of the oldest recovered run or state, as uptime of the system; the current uptime
    /// if nothing was recovered.
    pub(super) zero: Duration,
}

/// The recovered state of one service.
#[derive(Default)]
pub(super) struct Heir {
    slot: Option<Slot>,
    pub(super) tree: Option<Tree>,
    pub(super) is_outdated: bool,
    /// Set if the service starts with its supervisor.
    pub(super) is_enabled: bool,
}

impl Heir {
    /// Returns how the main process ended, if it did, as far as known.
    pub(super) fn exit(&self) -> Option<sys::Exit> {
        match &self.tree {
            Some(tree) => tree.exit(),
            None => Some(sys::Exit::UNKNOWN),
        }
    }

    /// Returns whether the main process is alive.
    fn lives(&self) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.exit().is_none())
    }

    /// Returns whether the ledger or a desired state accounts for the service.
    pub(super) fn is_known(&self) -> bool {
        self.slot.is_some()
    }

    /// Returns the recovered state for the engine, whose time starts at `zero`.
    pub(super) fn bequest(&self, zero: Duration) -> Bequest {
        let at = |ms| Instant::at(Duration::from_millis(ms).saturating_sub(zero));
        let slot = self.slot.as_ref();
        match slot {
            Some(slot) => slot.bequest(self.lives(), at),
            None if self.is_enabled => Bequest::NEW,
            None => Bequest::DISABLED,
        }
    }

    /// Returns whether an operator stopped the service by name.
    pub(super) fn is_stopped(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.is_stopped)
    }

    /// The digest of the definition that the process was started by.
    pub(super) fn digest(&self) -> Option<&TextDigest> {
        self.slot.as_ref()?.child.as_ref()?.digest.as_ref()
    }

    /// Returns the address of the notification socket that the process uses.
    pub(super) fn notify(&self) -> Option<&str> {
        self.slot.as_ref()?.child.as_ref()?.notify.as_deref()
    }
}

impl Legacy {
    /// Returns an empty recovery for this many services.
    pub(super) fn none(services: usize) -> Self {
        Self {
            heirs: (0..services).map(|_| Heir::default()).collect(),
            testaments: Vec::new(),
            remarks: Vec::new(),
            zero: sys::uptime(),
        }
    }

    /// Adopts the living processes of these services and ends everything else that the last
    /// supervisor left.
    pub(super) fn take_over(
        (lock, left): (&Lock, Option<Remains>),
        state: &StateDir,
        definitions: &[Definition],
        processes: &mut Processes,
    ) -> Result<Self, Failure> {
        let mut legacy = Self::none(definitions.len());
        for (definition, heir) in definitions.iter().zip(&mut legacy.heirs) {
            heir.is_enabled = definition.is_enabled;
        }
        legacy.remarks.extend(lock.remark.clone());
        let Some((predecessor, estate)) = left else {
            legacy.keep_down(definitions);
            return Ok(legacy);
        };
        let estate = estate.unwrap_or_else(|why| {
            legacy.remarks.push(format!(
                "{why}; running services are killed and restarted instead of adopted"
            ));
            None
        });
        if let Some(estate) = &estate {
            processes.note_recorded(estate.slots.iter().filter_map(Slot::main));
            // For a rebuilt ledger, the definition that started each run is unknown.
            let is_known = estate.rebuilt.is_none();
            let before = is_known.then(|| estate.definitions(state).ok()).flatten();
            if let Some(why) = &estate.rebuilt {
                let count = estate.slots.len();
                legacy.remarks.push(format!(
                    "{why}; the main processes of {count} services were found by their cgroups and count as ready"
                ));
            }
            for (definition, heir) in definitions.iter().zip(&mut legacy.heirs) {
                let name = definition.spec.name().as_str();
                heir.slot = estate.slots.iter().find(|slot| slot.name == name).cloned();
                let slot = heir.slot.as_ref().filter(|slot| !slot.is_updated);
                let of_version = slot.map_or(0, |slot| slot.version);
                heir.is_outdated = match of_version {
                    _ if definition.problem.is_some() => false,
                    0 => before.as_ref().is_some_and(|all| differs(all, definition)),
                    version => version != definition.version,
                };
                legacy.remarks.extend(heir.adopt(name, processes));
            }
        }
        legacy.keep_down(definitions);
        legacy.settle(&predecessor)?;
        Ok(legacy)
    }

    /// Keeps stopped and halted services down unless a ledger accounts for them. Enables the
    /// dependencies of services that start.
    fn keep_down(&mut self, definitions: &[Definition]) {
        for (definition, heir) in definitions.iter().zip(&mut self.heirs) {
            if let (Some(desired), None) = (&definition.desired, &heir.slot) {
                let name = definition.spec.name().as_str();
                heir.slot = Some(Slot::of_desired(name, desired));
            }
        }
        let starts = |heir: &Heir| heir.is_enabled && !heir.is_known();
        let all = definitions.iter().enumerate();
        let mut open: Vec<usize> = all
            .filter_map(|(i, _)| starts(&self.heirs[i]).then_some(i))
            .collect();
        while let Some(i) = open.pop() {
            for need in definitions[i].spec.needed_services() {
                let found = definitions.iter().position(|it| it.spec.name() == need);
                if let Some(found) = found.filter(|&found| !self.heirs[found].is_enabled) {
                    self.heirs[found].is_enabled = true;
                    open.extend(starts(&self.heirs[found]).then_some(found));
                }
            }
        }
    }

    /// Adopts only the living processes of the `named` services and leaves everything else
    /// unchanged.
    pub(super) fn take_over_some(
        slots: &[Slot],
        named: impl Fn(&str) -> bool,
        processes: &mut Processes,
    ) -> Self {
        let mut legacy = Self::none(slots.len());
        processes.note_recorded(slots.iter().filter_map(Slot::main));
        for (slot, heir) in slots.iter().zip(&mut legacy.heirs) {
            if named(&slot.name) {
                let mut slot = slot.clone();
                slot.want_down();
                heir.slot = Some(slot.clone());
                legacy.remarks.extend(heir.adopt(&slot.name, processes));
            }
        }
        legacy.find_zero();
        legacy
    }

    /// Returns whether any process tree was adopted.
    pub(super) fn adopts(&self) -> bool {
        self.heirs.iter().any(|heir| heir.tree.is_some())
    }

    fn find_zero(&mut self) {
        for slot in self.heirs.iter().filter_map(|heir| heir.slot.as_ref()) {
            let began = slot.child.as_ref().map(|child| child.began_ms);
            for ms in began.into_iter().chain([slot.since_ms]) {
                self.zero = self.zero.min(Duration::from_millis(ms));
            }
        }
    }

    /// Ends processes that were not adopted, and summarises the recovery.
    fn settle(&mut self, predecessor: &Predecessor) -> Result<(), Failure> {
        let trees = self.heirs.iter().filter_map(|heir| heir.tree.as_ref());
        let spared: Vec<Identity> = trees.map(Tree::identity).collect();
        let mut killed = 0;
        for testament in &predecessor.testaments {
            killed += end_remains(predecessor, testament, &spared)?;
            let is_of = |tree: &&Identity| tree.tree.starts_with(testament.as_str());
            if spared.iter().any(|tree| is_of(&tree)) {
                self.testaments.push(testament.clone());
            }
        }
        self.find_zero();
        let who = predecessor.name();
        let adopted = self.heirs.iter().filter(|heir| heir.lives()).count();
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

impl Heir {
    /// Adopts the service's tree, if any of it is alive. Returns a message for the operator, if
    /// there is one.
    fn adopt(&mut self, name: &str, processes: &mut Processes) -> Option<String> {
        let child = self.slot.as_ref()?.child.as_ref()?;
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
pub(super) fn left(lock: &Lock, state: &StateDir) -> Option<Remains> {
    let estate = || Estate::read(state);
    match &lock.left {
        Left::Nothing => None,
        Left::Services(predecessor) => {
            let manifest = "an unknown manifest";
            let estate = read_or_rebuild(state, (predecessor, manifest));
            Some((predecessor.clone(), estate))
        }
        Left::Unknown => {
            let estate = estate();
            let header = match &estate {
                Ok(Some(estate)) => Some(&estate.header),
                _ => None,
            };
            let marked = sys::testament_of(&state.mark());
            let predecessor = Predecessor {
                pid: header.map(|header| header.supervisor),
                testaments: match header {
                    Some(header) if !header.testaments.is_empty() => header.testaments.clone(),
                    _ => vec![marked],
                },
            };
            Some((predecessor, estate))
        }
    }
}

/// The installed services of a dead daemon that run, whether they still are installed or not: an
/// uninstallation stops a service before it removes anything.
pub(super) fn living((_, estate): &Remains) -> Vec<String> {
    let slots = match estate {
        Ok(Some(estate)) if estate.is_of_installed() => &estate.slots[..],
        _ => &[],
    };
    let living = slots.iter().filter(|slot| slot.living().is_some());
    living.map(|slot| slot.name.clone()).collect()
}

/// Reads the ledger. If it is lost, rebuilds what the system shows of live services.
///
/// # Errors
/// If the ledger cannot be read and nothing can be rebuilt.
pub(super) fn read_or_rebuild(
    state: &StateDir,
    of: (&Predecessor, &str),
) -> Result<Option<Estate>, String> {
    let read = Estate::read(state);
    let why = match &read {
        Ok(Some(_)) => return read,
        Ok(None) => format!("{} is missing", state.ledger_path().display()),
        Err(why) => why.clone(),
    };
    Estate::rebuild(state, of, why).map_or(read, |estate| Ok(Some(estate)))
}

/// Ends the processes that a supervisor left, and returns their number.
pub(super) fn end_remains(
    predecessor: &Predecessor,
    testament: &str,
    spared: &[Identity],
) -> Result<usize, Failure> {
    sys::end_remains(testament, spared).map_err(|error| {
        let who = predecessor.name();
        Failure::new(
            Code::Failed,
            format!("cannot kill the processes left by {who}: {error}"),
        )
        .hint(format!(
            "find them by {testament:?}, kill them, then try again"
        ))
    })
}
