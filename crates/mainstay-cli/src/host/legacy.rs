//! What a killed supervisor left behind: what its ledger accounts for is adopted, the rest is ended, so that nothing runs twice.

use std::time::Duration;

use mainstay_core::engine::Bequest;
use mainstay_core::registry::TextDigest;
use mainstay_core::time::Instant;

use super::ledger::{Estate, Slot};
use super::sys::{self, Identity, Processes, Tree};
use crate::embedded::Definition;
use crate::failure::{Code, Failure};
use crate::state_dir::{Left, Lock, Predecessor, StateDir};

/// What was taken over.
pub(super) struct Legacy {
    /// One for each service.
    pub(super) heirs: Vec<Heir>,
    /// By which a later supervisor finds what was adopted.
    pub(super) testaments: Vec<String>,
    /// What the operator has to know.
    pub(super) remarks: Vec<String>,
    /// When the oldest of them began, since the system started; now, where nothing was adopted.
    pub(super) zero: Duration,
}

/// What there is of one service.
#[derive(Default)]
pub(super) struct Heir {
    slot: Option<Slot>,
    pub(super) tree: Option<Tree>,
    pub(super) is_outdated: bool,
    /// It starts with its supervisor.
    pub(super) is_enabled: bool,
}

impl Heir {
    /// How its main process ended, if it has, as far as that is known.
    pub(super) fn exit(&self) -> Option<sys::Exit> {
        match &self.tree {
            Some(tree) => tree.exit(),
            None => Some(sys::Exit::UNKNOWN),
        }
    }

    /// Its main process does.
    fn lives(&self) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.exit().is_none())
    }

    /// Whether anything is known of it.
    pub(super) fn is_known(&self) -> bool {
        self.slot.is_some()
    }

    /// For the engine, whose time begins at `zero`.
    pub(super) fn bequest(&self, zero: Duration) -> Bequest {
        let at = |ms| Instant::at(Duration::from_millis(ms).saturating_sub(zero));
        let slot = self.slot.as_ref();
        match slot {
            Some(slot) => slot.bequest(self.lives(), at),
            None if self.is_enabled => Bequest::NEW,
            None => Bequest::DISABLED,
        }
    }

    /// Whether an operator stopped it by name.
    pub(super) fn is_stopped(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.is_stopped)
    }

    /// Of what its process was started by.
    pub(super) fn digest(&self) -> Option<&TextDigest> {
        self.slot.as_ref()?.child.as_ref()?.digest.as_ref()
    }

    /// The address that its process knows.
    pub(super) fn notify(&self) -> Option<&str> {
        self.slot.as_ref()?.child.as_ref()?.notify.as_deref()
    }
}

impl Legacy {
    /// There is none.
    pub(super) fn none(services: usize) -> Self {
        Self {
            heirs: (0..services).map(|_| Heir::default()).collect(),
            testaments: Vec::new(),
            remarks: Vec::new(),
            zero: sys::uptime(),
        }
    }

    /// Adopts what lives of these services, and ends whatever else the last supervisor left.
    pub(super) fn take_over(
        lock: &Lock,
        state: &StateDir,
        definitions: &[Definition],
        processes: &mut Processes,
    ) -> Result<Self, Failure> {
        let mut legacy = Self::none(definitions.len());
        for (definition, heir) in definitions.iter().zip(&mut legacy.heirs) {
            heir.is_enabled = definition.is_enabled;
        }
        legacy.remarks.extend(lock.remark.clone());
        let Some((predecessor, estate)) = left(lock, state) else {
            legacy.keep_down(definitions);
            return Ok(legacy);
        };
        let estate = estate.unwrap_or_else(|why| {
            legacy.remarks.push(format!(
                "{why}; what runs is not adopted, but ended and started anew"
            ));
            None
        });
        if let Some(estate) = &estate {
            // What runs was started by what is not known.
            let is_known = estate.rebuilt.is_none();
            let before = is_known.then(|| estate.definitions(state).ok()).flatten();
            if let Some(why) = &estate.rebuilt {
                let count = estate.slots.len();
                legacy.remarks.push(format!(
                    "{why}; the main processes of {count} services were found by their cgroups, and count as ready"
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

    /// What operators stopped, and what is halted, stays down where no ledger knows better. What else is needed by a service that starts
    /// starts with it.
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

    /// Adopts only what lives of the `named` services, and leaves everything else as it is.
    pub(super) fn take_over_some(
        slots: &[Slot],
        named: impl Fn(&str) -> bool,
        processes: &mut Processes,
    ) -> Self {
        let mut legacy = Self::none(slots.len());
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

    /// Whether anything that runs was taken over.
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

    /// Ends what was not adopted, and says what became of all.
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
                "{who} died without stopping its services: their {killed} processes were killed"
            ),
            (count, 0) => {
                format!("{who} was killed: {count} of its services live on and are adopted")
            }
            (count, _) => format!(
                "{who} was killed: {count} of its services live on and are adopted; {killed} processes that belong to none of them were killed"
            ),
        };
        self.remarks.insert(0, summary);
        Ok(())
    }
}

impl Heir {
    /// Adopts its tree, if that lives; something to say about it, if there is.
    fn adopt(&mut self, name: &str, processes: &mut Processes) -> Option<String> {
        let child = self.slot.as_ref()?.child.as_ref()?;
        self.is_outdated |= child.is_outdated;
        match processes.adopt(&child.identity()) {
            Ok(tree) => self.tree = Some(tree),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Where this fails, what is left of it is ended at once.
                self.tree = processes.adopt_remains(&child.identity()).ok();
                return None;
            }
            Err(error) => {
                return Some(format!(
                    "{name}: adopt pid {}: {error}; it is ended and started anew",
                    child.identity().pid
                ));
            }
        }
        self.is_outdated
            .then(|| format!("{name}: its definition has changed; restart it to apply that"))
    }
}

/// Whether a service is defined otherwise than it was.
fn differs(all: &[Definition], now: &Definition) -> bool {
    let before = all.iter().find(|old| old.spec.name() == now.spec.name());
    before.is_none_or(|before| before.spec != now.spec || before.dir != now.dir)
}

/// The supervisor whose services may still run, and its ledger; `None` where the last one ended in good order.
///
/// Where the lock does not tell, the ledger does; where that is lost too, the processes themselves: each bears the name of its state directory.
pub(super) fn left(
    lock: &Lock,
    state: &StateDir,
) -> Option<(Predecessor, Result<Option<Estate>, String>)> {
    let estate = || Estate::read(state);
    match &lock.left {
        Left::Nothing => None,
        Left::Services(predecessor) => {
            let manifest = "a manifest that is not known";
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
pub(super) fn living(lock: &Lock, state: &StateDir) -> Vec<String> {
    let estate = match left(lock, state) {
        Some((_, Ok(Some(estate)))) if estate.is_of_installed() => estate,
        _ => return Vec::new(),
    };
    let living = estate
        .slots
        .into_iter()
        .filter(|slot| slot.living().is_some());
    living.map(|slot| slot.name).collect()
}

/// Its ledger; where that is lost, what the system tells of what lives.
///
/// # Errors
/// What is wrong with the ledger, where nothing is told.
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

impl Predecessor {
    /// In a sentence.
    pub(super) fn name(&self) -> String {
        match self.pid {
            Some(pid) => format!("the last supervisor (pid {pid})"),
            None => "the last supervisor".to_owned(),
        }
    }
}

/// Ends what a supervisor left running, and how many processes that were.
pub(super) fn end_remains(
    predecessor: &Predecessor,
    testament: &str,
    spared: &[Identity],
) -> Result<usize, Failure> {
    sys::end_remains(testament, spared).map_err(|error| {
        let who = predecessor.name();
        Failure::new(
            Code::Failed,
            format!("kill the processes that {who} left: {error}"),
        )
        .hint(format!(
            "find them by {testament:?}, end them, then try again"
        ))
    })
}
