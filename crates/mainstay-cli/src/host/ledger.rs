//! `STATE/ledger`: what a successor needs to go on with the services, should this supervisor be killed.
//!
//! A header of 8 KiB, then a slot of 1 KiB for each service, in the order of the manifest. Each is one JSON object, filled up with spaces
//! to its size less one, and a newline; so `cat` shows it. Slots that have no service yet are `null`. A slot is written by one `pwrite` that crosses no page, so it is whole
//! whenever we are killed. Nothing is synchronised: it need not survive the system, only us, and a ledger of an earlier start of the
//! system is void. Times are milliseconds since the system started. Beside it lies a copy of the manifest.
//!
//! A full disk must not cost the ledger. So a second file of the same size, `STATE/ledger.spare`, lies beside it: a new ledger is written there,
//! then the two change places. Where they cannot, it stays where it is: the one with the higher generation counts. One that cannot
//! be written is said, and tried again.
//!
//! A slot that cannot be read, or says less than is true, is safe: what is not adopted by it is ended by the lock's testament.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_core::engine::{Bequest, Exit, Failures, Left, ServiceId, Stage, StateName, Wish};
use mainstay_core::manifest::{self, Format};
use mainstay_core::registry::TextDigest;
use mainstay_core::report::LastExit;
use mainstay_core::spec::ServiceName;
use mainstay_core::time::Instant;
use serde::{Deserialize, Serialize};

use super::sys::{self, Birth, Identity};
use super::{Held, Host, Running};
use crate::embedded::{self, Definition, Desired};
use crate::lock_file;
use crate::manifest_file::Loaded;
use crate::state_dir::{Predecessor, StateDir, create_private_dir, write_private};

/// Of what is written; another one is not read.
const FORMAT: u32 = 1;
const HEADER: usize = 8 << 10;
const SLOT: usize = 1 << 10;
/// There is room for a multiple of so many services.
const ROOM: usize = 16;
/// The time after which what could not be written is tried again.
const REWRITE_INTERVAL: Duration = Duration::from_secs(10);

/// Who kept the ledger, of what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    format: u32,
    boot: String,
    pub(super) supervisor: u32,
    birth: Birth,
    /// As the operator named it.
    pub(super) manifest: String,
    manifest_dir: PathBuf,
    /// Its format, and so the name of the copy; or [`INSTALLED`].
    manifest_format: String,
    /// The same as in the lock, should that be lost.
    #[serde(default)]
    pub(super) testaments: Vec<String>,
    /// Of two ledgers, the one with the higher generation counts.
    #[serde(default)]
    generation: u64,
    /// How many slots have a service; all, where that is not said.
    #[serde(default)]
    services: Option<usize>,
}

/// Instead of a format: it lies where each service is installed.
const INSTALLED: &str = "installed";

/// What is known of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Slot {
    pub(super) name: String,
    state: State,
    /// Since when.
    pub(super) since_ms: u64,
    /// It is to be down.
    #[serde(default, skip_serializing_if = "is_default")]
    unwanted: bool,
    /// An operator stopped it by name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) is_stopped: bool,
    /// Of its installation, if it has one: by which it runs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) version: u64,
    /// It has become what it is by an update: what that is lies with the state, and not in the manifest's copy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) is_updated: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) restarts: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) last_exit: Option<LastExit>,
    /// Failures since its last good run.
    #[serde(default, skip_serializing_if = "is_default")]
    streak: u32,
    /// When it was restarted, within the window of its limit.
    #[serde(default, skip_serializing_if = "is_default")]
    recent_ms: Vec<u64>,
    /// Since when it is crash-looping, and when that is told again.
    #[serde(default, skip_serializing_if = "is_default")]
    crash_loop_ms: Option<(u64, u64)>,
    /// Where it is completed or ended: it had been ready.
    #[serde(default, skip_serializing_if = "is_default")]
    was_ready: bool,
    /// Why it is halted, or backs off.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) why: Option<String>,
    /// Where it is halted: the service that it needs and that keeps it so.
    #[serde(default, skip_serializing_if = "is_default")]
    blocked_by: Option<Blocked>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) child: Option<Child>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Blocked {
    need: String,
    /// It ended before it was ready; else it is halted.
    has_ended: bool,
}

/// Its main process and its tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Child {
    pid: u32,
    birth: Birth,
    tree: String,
    pub(super) began_ms: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) notify: Option<String>,
    /// It was started by an earlier definition than the manifest's beside the ledger.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) is_outdated: bool,
    /// Of the definition that it was started by.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) digest: Option<TextDigest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// No process, and nothing that keeps it from being started.
    Due,
    Completed,
    Halted,
    Starting,
    Running,
    Paused,
    /// To be down, or to be started afresh if it is wanted.
    Stopping,
    /// It is being stopped as it was of no use.
    Failing,
    /// It ended, and what follows was not decided.
    Ended,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A ledger that is kept.
pub(super) struct Ledger {
    /// Where it is ours.
    header: Option<Header>,
    place: Option<Place>,
    /// The copy of the manifest, whatever becomes of its name.
    copy: Option<File>,
    /// Whose each slot is.
    owners: Vec<ServiceId>,
    written: Vec<Option<Slot>>,
    buffer: Vec<u8>,
    /// Why it says less than is true.
    trouble: Option<String>,
}

/// A file that has the ledger.
struct Place {
    path: PathBuf,
    file: File,
}

impl Ledger {
    /// Begins a new one in the place of the last; `None` where the system leaves nothing to go on with. What could not be written is its
    /// [trouble](Ledger::trouble).
    fn begin(
        state: &StateDir,
        (manifest, testaments): (&str, &[String]),
        copy: Option<&Copy>,
        slots: (Vec<ServiceId>, Vec<Slot>),
    ) -> io::Result<Option<Self>> {
        let Some(boot) = sys::boot() else {
            return Ok(None);
        };
        let own = sys::own_identity()?;
        let header = Header {
            format: FORMAT,
            boot,
            supervisor: own.pid,
            birth: own.birth,
            manifest: manifest.to_owned(),
            manifest_dir: copy.map_or_else(PathBuf::new, |copy| copy.dir.clone()),
            manifest_format: copy.map_or(INSTALLED, |copy| copy.format.name()).to_owned(),
            testaments: testaments.to_vec(),
            generation: 0,
            services: None,
        };
        let mut ledger = Self {
            header: Some(header),
            place: None,
            copy: None,
            owners: Vec::new(),
            written: Vec::new(),
            buffer: Vec::with_capacity(SLOT),
            trouble: None,
        };
        let copied = copy.map(|copy| {
            let path = state.manifest_path(copy.format.name());
            copied(&path, copy.text.as_bytes())
        });
        match copied.transpose() {
            Ok(copy) => {
                ledger.copy = copy;
                ledger.renew(state, slots);
            }
            Err(error) => {
                ledger.renew(state, slots);
                ledger.fail(&error);
            }
        }
        Ok(Some(ledger))
    }

    /// Begins again with these services.
    fn renew(&mut self, state: &StateDir, (owners, slots): (Vec<ServiceId>, Vec<Slot>)) {
        let Some(header) = &mut self.header else {
            return;
        };
        let copy = self.copy.as_ref().map(|copy| {
            let path = state.manifest_path(&header.manifest_format);
            match lock_file::is_at(&path, copy)? {
                true => copy.try_clone(),
                false => write_private(&path, &sys::read_from_start(copy)?),
            }
        });
        let placed = copy.transpose().and_then(|copy| {
            let place = place(state, header, &slots)?;
            Ok((copy, place))
        });
        match placed {
            Ok((copy, place)) => {
                (self.copy, self.place) = (copy, Some(place));
                (self.owners, self.written) = (owners, slots.into_iter().map(Some).collect());
                self.trouble = None;
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.trouble = Some(error.to_string());
    }

    /// Goes on with that of a dead supervisor.
    pub(super) fn go_on(path: PathBuf, owners: Vec<ServiceId>) -> io::Result<Self> {
        let file = fs::OpenOptions::new().write(true).open(&path)?;
        Ok(Self {
            header: None,
            place: Some(Place { path, file }),
            copy: None,
            written: vec![None; owners.len()],
            owners,
            buffer: Vec::with_capacity(SLOT),
            trouble: None,
        })
    }

    /// Writes what has changed.
    fn write(&mut self, id: ServiceId, slot: Slot) -> io::Result<()> {
        // One that comes next gets its slot with a new ledger.
        let Some(index) = self.owners.iter().position(|owner| *owner == id) else {
            return Ok(());
        };
        if self.written[index].as_ref() == Some(&slot) {
            return Ok(());
        }
        let Some(place) = &self.place else {
            return Ok(());
        };
        lay_out(&slot, &mut self.buffer)?;
        let at = HEADER + index * SLOT;
        sys::write_at(&place.file, &self.buffer, at as u64)?;
        self.written[index] = Some(slot);
        Ok(())
    }

    /// Why it says less than is true.
    fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn is_in_place(&self) -> bool {
        let is_at = |place: &Place| lock_file::is_at(&place.path, &place.file).unwrap_or(false);
        self.place.as_ref().is_none_or(is_at)
    }
}

/// A file with this content, which may be there already.
fn copied(path: &Path, bytes: &[u8]) -> io::Result<File> {
    match File::open(path) {
        Ok(file) if sys::read_from_start(&file).is_ok_and(|there| there == bytes) => Ok(file),
        _ => write_private(path, bytes),
    }
}

/// Writes a ledger that counts from now on, without ever being without one.
fn place(state: &StateDir, header: &mut Header, slots: &[Slot]) -> io::Result<Place> {
    let (first, spare) = (state.ledger_path(), state.spare_ledger_path());
    let generation = |path: &Path| Estate::read_at(path).ok()?.map(|it| it.header.generation);
    let (of_first, of_spare) = (generation(&first), generation(&spare));
    header.generation = of_first.max(of_spare).unwrap_or(0) + 1;
    header.services = Some(slots.len());
    let mut head = Vec::with_capacity(HEADER);
    if !fill(header, HEADER, &mut head)? {
        return Err(io::Error::other("the paths are too long"));
    }
    let room = (slots.len() + 1).next_multiple_of(ROOM);
    let mut body = Vec::with_capacity(room * SLOT);
    let mut buffer = Vec::with_capacity(SLOT);
    for slot in slots {
        lay_out(slot, &mut buffer)?;
        body.extend_from_slice(&buffer);
    }
    while body.len() < room * SLOT {
        fill(&(), SLOT, &mut body)?;
    }
    let (counting, other) = match of_first < of_spare {
        true => (&spare, &first),
        false => (&first, &spare),
    };
    let target = if of_first.is_none() { &first } else { other };
    let written = written(target, &head, &body).map(|file| (target, file));
    // Only a death in this moment makes it worse than none.
    let (at, file) = written.or_else(|error| match overwritten(counting, &head, &body) {
        Ok(file) => Ok((counting, file)),
        Err(_) => Err(error),
    })?;
    let moved = at == &spare && exchanged(&spare, &first).is_ok();
    let path = match moved {
        true => first.clone(),
        false => at.clone(),
    };
    // What does not succeed here is tried with the next one.
    let _ = match path == first {
        true => retire(&spare, body.len()),
        false => Ok(()),
    };
    Ok(Place { path, file })
}

fn written(path: &Path, head: &[u8], body: &[u8]) -> io::Result<File> {
    overwritten(path, head, body).or_else(|_| write_private(path, &[head, body].concat()))
}

/// Takes no room that the file does not have. Until all of it is there, it says nothing.
fn overwritten(path: &Path, head: &[u8], body: &[u8]) -> io::Result<File> {
    let file = sys::open_own(path)?;
    if file.metadata()?.len() < (head.len() + body.len()) as u64 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    blank(&file)?;
    sys::write_at(&file, body, HEADER as u64)?;
    sys::write_at(&file, head, 0)?;
    Ok(file)
}

fn blank(file: &File) -> io::Result<()> {
    let mut head = Vec::with_capacity(HEADER);
    fill(&(), HEADER, &mut head)?;
    sys::write_at(file, &head, 0)
}

/// Has a file that says nothing, and has room for a ledger of this length behind its header.
fn retire(path: &Path, length: usize) -> io::Result<()> {
    match sys::open_own(path) {
        Ok(file) if file.metadata()?.len() >= (HEADER + length) as u64 => blank(&file),
        _ => {
            let mut bytes = Vec::with_capacity(HEADER + length);
            fill(&(), HEADER + length, &mut bytes)?;
            write_private(path, &bytes).map(drop)
        }
    }
}

/// Gives each the other's name; where that cannot be done, the second loses its own.
fn exchanged(one: &Path, other: &Path) -> io::Result<()> {
    sys::exchange(one, other).or_else(|_| fs::rename(one, other))
}

/// Forgets what nobody needs: everything has ended in good order.
pub(super) fn discard(state: &StateDir) {
    // What stays is void, as the lock is given back.
    let _ = fs::remove_file(state.ledger_path());
    let _ = fs::remove_file(state.spare_ledger_path());
    let _ = fs::remove_dir_all(state.updated_dir());
    for format in Format::ALL {
        let _ = fs::remove_file(state.manifest_path(format.name()));
    }
}

/// The slot as it is written. What is too long for it loses its reason, its digest and the times of its restarts, or else its child, which is then ended and not adopted.
fn lay_out(slot: &Slot, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    if fill(slot, SLOT, buffer)? {
        return Ok(());
    }
    let mut shorter = slot.clone();
    if let Some(child) = &mut shorter.child {
        child.digest = None;
    }
    shorter.recent_ms.clear();
    shorter.why = slot.why.as_ref().map(|why| why.chars().take(60).collect());
    buffer.clear();
    if fill(&shorter, SLOT, buffer)? {
        return Ok(());
    }
    (shorter.child, shorter.state) = (None, State::Due);
    buffer.clear();
    fill(&shorter, SLOT, buffer).map(drop)
}

/// Adds the document, filled up to `size`; whether it fits.
fn fill(document: &impl Serialize, size: usize, to: &mut Vec<u8>) -> io::Result<bool> {
    let begin = to.len();
    serde_json::to_writer(&mut *to, document)?;
    let fits = to.len() < begin + size;
    if fits {
        to.resize(begin + size - 1, b' ');
        to.push(b'\n');
    }
    Ok(fits)
}

/// What lives of a dead supervisor's services, as the system tells.
#[derive(Default)]
pub(super) struct Survivors {
    /// Of each service.
    pids: BTreeMap<String, Vec<u32>>,
    mains: BTreeMap<String, sys::Found>,
}

impl Survivors {
    /// By what that supervisor left to be found by. Looks at every process where there is no cgroup.
    pub(super) fn of(testaments: &[String]) -> Self {
        let mut all = Self::default();
        for survivor in testaments.iter().flat_map(|it| sys::survivors(it)) {
            let sys::Survivor {
                service,
                pids,
                main,
            } = survivor;
            all.pids.entry(service.clone()).or_default().extend(pids);
            let Some(main) = main else { continue };
            let known = all.mains.entry(service).or_insert_with(|| main.clone());
            // Probes have trees of their own, and are younger.
            if main.began < known.began {
                *known = main;
            }
        }
        all
    }

    /// Those of a service, in a sentence.
    pub(super) fn said(&self, service: &str) -> Option<String> {
        let pids = self.pids.get(service)?.iter().take(5);
        let pids: Vec<String> = pids.map(u32::to_string).collect();
        Some(format!("processes of it live (pid {})", pids.join(", ")))
    }

    /// Whether something of this service lives.
    pub(super) fn has(&self, service: &str) -> bool {
        self.pids.contains_key(service)
    }

    /// The names of those of which something lives.
    pub(super) fn services(&self) -> impl Iterator<Item = &str> {
        self.pids.keys().map(String::as_str)
    }
}

/// The manifest as it was read, to be laid beside the ledger.
pub(crate) struct Copy {
    pub(crate) text: String,
    pub(crate) format: Format,
    pub(crate) dir: PathBuf,
    /// Of what it says.
    pub(crate) digest: TextDigest,
}

impl From<&Loaded> for Copy {
    fn from(loaded: &Loaded) -> Self {
        Self {
            text: loaded.text.clone(),
            format: loaded.format,
            dir: loaded.dir.clone(),
            digest: loaded.digest(),
        }
    }
}

/// The ledger of a dead supervisor.
#[derive(Debug)]
pub(super) struct Estate {
    pub(super) header: Header,
    /// Where it lies.
    path: PathBuf,
    /// Why it could not be read: what is known is what the system tells of what lives.
    pub(super) rebuilt: Option<String>,
    /// One for each service, in order; those that cannot be read are missing, and then it is not whole.
    pub(super) slots: Vec<Slot>,
    pub(super) is_whole: bool,
}

impl Estate {
    /// `None`: there is none, of this start of the system.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(state: &StateDir) -> Result<Option<Self>, String> {
        let both = [state.ledger_path(), state.spare_ledger_path()];
        let [first, spare] = both.map(|path| Self::read_at(&path));
        let generation = |it: &Self| it.header.generation;
        match (first, spare) {
            (Ok(Some(first)), Ok(Some(spare))) if generation(&first) < generation(&spare) => {
                Ok(Some(spare))
            }
            (Err(_) | Ok(None), Ok(Some(spare))) => Ok(Some(spare)),
            (first, _) => first,
        }
    }

    fn read_at(path: &Path) -> Result<Option<Self>, String> {
        let cannot = |why: String| format!("read {}: {why}", path.display());
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| cannot(error.to_string()))?,
        };
        let header = bytes
            .get(..HEADER)
            .ok_or_else(|| cannot("cut off".into()))?;
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Option<Version> =
            serde_json::from_slice(header).map_err(|error| cannot(error.to_string()))?;
        // It has only room.
        let Some(version) = version else {
            return Ok(None);
        };
        if version.format != FORMAT {
            return Err(cannot(format!("its format is {}", version.format)));
        }
        let header: Header =
            serde_json::from_slice(header).map_err(|error| cannot(error.to_string()))?;
        if sys::boot().as_ref() != Some(&header.boot) {
            return Ok(None);
        }
        let slots = bytes[HEADER..].chunks(SLOT);
        let count = header.services.unwrap_or(slots.len());
        let slots = slots.take(count);
        let slots: Vec<Slot> = slots
            .filter_map(|slot| serde_json::from_slice(slot).ok())
            .collect();
        let is_whole = slots.len() == count;
        Ok(Some(Self {
            header,
            path: path.to_owned(),
            rebuilt: None,
            slots,
            is_whole,
        }))
    }

    /// What can be known without a ledger: of which services processes live, and which of them is the main process. Only a cgroup tells
    /// that: into it nobody comes who does not belong there.
    pub(super) fn rebuild(
        state: &StateDir,
        (predecessor, manifest): (&Predecessor, &str),
        why: String,
    ) -> Option<Self> {
        let survivors = Survivors::of(&predecessor.testaments);
        let installed = embedded::names(state);
        // What nobody reads would end it, or be lost: their pipes went with the directory.
        let is_heard = |name: &str| state.pipes_dir().join(name).exists();
        let mains = survivors.mains.iter().filter(|(name, _)| is_heard(name));
        let slots = mains.map(|(name, main)| {
            let mut slot = Slot::new(name, State::Running);
            let began_ms = millis(main.began);
            slot.since_ms = began_ms;
            slot.unwanted = embedded::desired(state, name) == Some(Desired::Stopped);
            slot.child = Some(Child {
                pid: main.identity.pid,
                birth: main.identity.birth,
                tree: main.identity.tree.clone(),
                began_ms,
                notify: None,
                is_outdated: false,
                digest: None,
            });
            slot
        });
        let slots: Vec<Slot> = slots.collect();
        let header = Header {
            format: FORMAT,
            boot: sys::boot()?,
            supervisor: predecessor.pid?,
            birth: Birth::at(0),
            manifest: manifest.to_owned(),
            manifest_dir: PathBuf::new(),
            manifest_format: match installed.is_empty() {
                true => String::new(),
                false => INSTALLED.to_owned(),
            },
            testaments: predecessor.testaments.clone(),
            generation: 0,
            services: None,
        };
        (!survivors.pids.is_empty()).then_some(Self {
            header,
            path: PathBuf::new(),
            rebuilt: Some(why),
            slots,
            is_whole: true,
        })
    }

    /// For [`Ledger::go_on`].
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the supervisor that kept it lives.
    pub(super) fn is_kept(&self) -> bool {
        sys::lives(&Identity {
            pid: self.header.supervisor,
            birth: self.header.birth,
            tree: String::new(),
        })
    }

    /// Whether its services were installed ones.
    pub(super) fn is_of_installed(&self) -> bool {
        self.header.manifest_format == INSTALLED
    }

    /// Whether it knows this service.
    pub(super) fn has(&self, name: &str) -> bool {
        self.slots.iter().any(|slot| slot.name == name)
    }

    /// What its services were when it was begun.
    ///
    /// # Errors
    /// Why that cannot be known.
    pub(super) fn definitions(&self, state: &StateDir) -> Result<Vec<Definition>, String> {
        let mut all = self.original_definitions(state)?;
        for slot in self.slots.iter().filter(|slot| slot.is_updated) {
            let updated = Updated::read(state, &slot.name)?;
            all.retain(|it| it.spec.name().as_str() != slot.name);
            all.push(updated);
        }
        Ok(all)
    }

    fn original_definitions(&self, state: &StateDir) -> Result<Vec<Definition>, String> {
        let format = &self.header.manifest_format;
        if let Some(why) = self.rebuilt.as_ref().filter(|_| format.is_empty()) {
            return Err(why.clone());
        }
        if format == INSTALLED {
            return Ok(embedded::all(state, &[]).0);
        }
        let path = state.manifest_path(format);
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("read {}: {error}", path.display()))?;
        // It was checked before; what may be different by now does not matter to those who stop it.
        let format = Format::from_extension(format);
        let specs = format.map(|format| manifest::parse(&text, format));
        let Some(Ok(specs)) = specs else {
            return Err(format!(
                "{} is not the manifest that it was",
                path.display()
            ));
        };
        let dir = &self.header.manifest_dir;
        let digest =
            format.map(|format| TextDigest::of(&text, format, &dir.to_string_lossy(), None));
        let specs = specs.into_iter();
        Ok(specs
            .map(|spec| Definition::of_manifest(spec, dir, digest.clone()))
            .collect())
    }
}

/// What a service has become by an update, as it lies in `STATE/updated/NAME.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Updated {
    format: u32,
    pub(super) base_dir: PathBuf,
    pub(super) manifest_format: String,
    pub(super) manifest: String,
}

impl Updated {
    pub(super) fn new(base_dir: PathBuf, format: Format, manifest: String) -> Self {
        Self {
            format: FORMAT,
            base_dir,
            manifest_format: format.name().to_owned(),
            manifest,
        }
    }

    pub(super) fn write(&self, state: &StateDir, name: &str) -> io::Result<()> {
        create_private_dir(&state.updated_dir())?;
        let bytes = serde_json::to_vec(self)?;
        write_private(&state.updated_path(name), &bytes).map(drop)
    }

    fn read(state: &StateDir, name: &str) -> Result<Definition, String> {
        let path = state.updated_path(name);
        let cannot = |why: String| format!("read {}: {why}", path.display());
        let bytes = fs::read(&path).map_err(|error| cannot(error.to_string()))?;
        let updated: Self =
            serde_json::from_slice(&bytes).map_err(|error| cannot(error.to_string()))?;
        if updated.format != FORMAT {
            return Err(cannot(format!("its format is {}", updated.format)));
        }
        let format = Format::from_extension(&updated.manifest_format);
        let specs = format.and_then(|format| manifest::parse(&updated.manifest, format).ok());
        let spec = specs.into_iter().flatten();
        let spec = spec.into_iter().find(|spec| spec.name().as_str() == name);
        let spec = spec.ok_or_else(|| cannot("it does not define the service".to_owned()))?;
        let dir = &updated.base_dir;
        let digest = format
            .map(|format| TextDigest::of(&updated.manifest, format, &dir.to_string_lossy(), None));
        Ok(Definition::of_manifest(spec, dir, digest))
    }
}

impl Slot {
    /// Whose main process lives.
    pub(super) fn living(&self) -> Option<Identity> {
        self.child.as_ref().map(Child::identity).filter(sys::lives)
    }

    /// As the engine takes it up; `at` places a time on the new host's clock. `lives`: its main process does.
    pub(super) fn bequest(&self, lives: bool, at: impl Fn(u64) -> Instant) -> Bequest {
        let stage = match self.state {
            State::Starting => Some(Stage::Starting),
            State::Running => Some(Stage::Running),
            State::Paused => Some(Stage::Paused),
            State::Stopping => Some(Stage::Stopping),
            State::Failing => Some(Stage::Failing),
            State::Due | State::Completed | State::Halted | State::Ended => None,
        };
        let was_ready = self.was_ready;
        let since = at(self.since_ms);
        let began = self.child.as_ref().map_or(since, |it| at(it.began_ms));
        let left = match (self.state, stage, &self.child) {
            (_, Some(stage), Some(child)) if lives => Left::Child {
                pid: child.pid,
                began,
                since,
                stage,
            },
            (_, Some(stage), Some(child)) => Left::Gone {
                pid: child.pid,
                began,
                stage,
            },
            (State::Failing, ..) => Left::Ended {
                exit: Exit::Unknown,
                was_ready,
                began,
                since,
            },
            (State::Ended, ..) => Left::Ended {
                exit: self.last_exit.map_or(Exit::Unknown, exit_of),
                was_ready,
                began,
                since,
            },
            (State::Completed, ..) => Left::Completed { was_ready },
            (State::Halted, ..) => match &self.blocked_by {
                Some(Blocked { need, has_ended }) => match ServiceName::new(need) {
                    Some(need) => Left::Blocked {
                        need,
                        has_ended: *has_ended,
                    },
                    None => Left::Nothing,
                },
                None => Left::Halted {
                    why: self.why.clone().unwrap_or_default(),
                },
            },
            _ => Left::Nothing,
        };
        Bequest {
            wish: if self.unwanted { Wish::Down } else { Wish::Up },
            restarts: self.restarts,
            last_exit: self.last_exit.map(exit_of),
            failures: Failures {
                streak: self.streak,
                recent: self.recent_ms.iter().map(|ms| at(*ms)).collect(),
                crash_loop: self
                    .crash_loop_ms
                    .map(|(since, remind)| (at(since), at(remind))),
            },
            since: Some(since),
            left,
        }
    }

    /// How it looks without a supervisor.
    pub(super) fn name_of_state(&self, lives: bool) -> StateName {
        match self.state {
            State::Starting if lives => StateName::StartPending,
            State::Running if lives => StateName::Running,
            State::Paused if lives => StateName::Paused,
            State::Stopping | State::Failing if lives => StateName::StopPending,
            State::Halted => StateName::Halted,
            State::Due if self.why.is_some() => StateName::BackingOff,
            _ => StateName::Stopped,
        }
    }

    /// Why it is not up although it should be.
    pub(super) fn remark(&self, lives: bool) -> Option<String> {
        let remark = match self.state {
            _ if lives => return None,
            State::Halted => return self.why.clone(),
            State::Due if self.why.is_some() => {
                let why = self.why.as_deref().unwrap_or_default();
                return Some(format!("{why}; its supervisor was killed"));
            }
            State::Starting | State::Running | State::Paused => {
                "it ended after its supervisor was killed"
            }
            State::Completed => return None,
            _ if self.unwanted => return None,
            _ => "its supervisor was killed before it could start it",
        };
        Some(remark.to_owned())
    }

    /// Whether it was restarted more often than its limit allows, and is to go on.
    pub(super) fn is_crash_looping(&self) -> bool {
        self.crash_loop_ms.is_some() && !self.unwanted
    }

    /// As if an operator had stopped it by name.
    pub(super) fn want_down(&mut self) {
        (self.unwanted, self.is_stopped) = (true, true);
    }

    fn new(name: &str, state: State) -> Self {
        Self {
            name: name.to_owned(),
            state,
            since_ms: millis(sys::uptime()),
            unwanted: false,
            is_stopped: false,
            version: 0,
            is_updated: false,
            restarts: 0,
            last_exit: None,
            streak: 0,
            recent_ms: Vec::new(),
            crash_loop_ms: None,
            was_ready: false,
            why: None,
            blocked_by: None,
            child: None,
        }
    }

    /// Of a service that is to stay down, where no ledger tells.
    pub(super) fn of_desired(name: &str, desired: &Desired) -> Self {
        let slot = Self {
            unwanted: true,
            ..Self::new(name, State::Due)
        };
        match desired {
            Desired::Stopped => slot,
            Desired::Halted {
                why,
                restarts,
                last_exit,
            } => Self {
                state: State::Halted,
                unwanted: false,
                why: Some(why.clone()),
                restarts: *restarts,
                last_exit: *last_exit,
                ..slot
            },
        }
    }
}

impl Child {
    pub(super) fn identity(&self) -> Identity {
        Identity {
            pid: self.pid,
            birth: self.birth,
            tree: self.tree.clone(),
        }
    }
}

fn exit_of(last: LastExit) -> Exit {
    match (last.code, last.signal) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

impl Host {
    /// Begins the ledger with what is, now that the engine has taken up what was left.
    pub(super) fn begin_ledger(&mut self, copy: Option<&Copy>) {
        if !self.is_adoptable {
            return;
        }
        if self.ledger.is_some() {
            return self.renew_ledger();
        }
        let slots = self.slots();
        let head = (&*self.manifest, &*self.testaments);
        match Ledger::begin(&self.state, head, copy, slots) {
            Ok(ledger) => {
                self.ledger = ledger;
                self.say_ledger(None);
            }
            Err(error) => self.reporter.say(&self.without_ledger(&error.to_string())),
        }
    }

    /// Goes on in a new one, as other services, or others' ids, are accounted for.
    pub(super) fn renew_ledger(&mut self) {
        let slots = self.slots();
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let before = ledger.trouble().map(str::to_owned);
        ledger.renew(&self.state, slots);
        self.say_ledger(before.as_deref());
    }

    /// Whether it is still in its place, if there is one.
    pub(super) fn has_ledger(&self) -> bool {
        self.ledger.as_ref().is_none_or(Ledger::is_in_place)
    }

    /// Writes down what has changed of a service.
    pub(super) fn record(&mut self, id: ServiceId) {
        self.record_desired(id);
        let slot = self.slot(id);
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let has_trouble = ledger.trouble().is_some();
        let written = slot.map_or(Ok(()), |slot| ledger.write(id, slot));
        if !has_trouble && written.is_err() {
            self.renew_ledger();
        }
        self.rewrite_soon();
    }

    /// Has what could not be written down, if there is any, written again in a while.
    pub(super) fn rewrite_soon(&mut self) {
        let is_unwritten = self
            .held
            .values()
            .any(|held| held.desired_problem.is_some());
        let ledger = self.ledger.as_ref();
        if is_unwritten || ledger.is_some_and(|ledger| ledger.trouble().is_some()) {
            let at = std::time::Instant::now() + REWRITE_INTERVAL;
            self.rewrites_at.get_or_insert(at);
        }
    }

    /// Tries to write down what could not be written.
    pub(super) fn rewrite(&mut self) {
        self.rewrites_at = None;
        self.record_all_desired();
        if self
            .ledger
            .as_ref()
            .is_some_and(|it| it.trouble().is_some())
        {
            self.renew_ledger();
        }
        self.rewrite_soon();
    }

    /// What keeps the ledger from being written.
    pub(super) fn ledger_problem(&self) -> Option<String> {
        let why = self.ledger.as_ref()?.trouble()?;
        Some(self.without_ledger(why))
    }

    fn without_ledger(&self, why: &str) -> String {
        let path = self.state.ledger_path();
        format!(
            "write {}: {why}; if this supervisor is killed, its services may be ended, not adopted",
            path.display()
        )
    }

    /// Says once what has become of it.
    fn say_ledger(&mut self, before: Option<&str>) {
        let now = self.ledger.as_ref().and_then(Ledger::trouble);
        if now == before {
            return;
        }
        let text = match self.ledger_problem() {
            Some(problem) => problem,
            None => format!("{} is written again", self.state.ledger_path().display()),
        };
        self.reporter.say(&text);
    }

    fn slots(&self) -> (Vec<ServiceId>, Vec<Slot>) {
        let ids = self.engine.ids();
        ids.filter_map(|id| Some((id, self.slot(id)?))).unzip()
    }

    fn slot(&self, id: ServiceId) -> Option<Slot> {
        let Bequest {
            wish,
            restarts,
            last_exit,
            failures,
            since,
            left,
        } = self.engine.bequest(id)?;
        let held = self.held.get(&id)?;
        let mut slot = Slot {
            name: held.spec.name().as_str().to_owned(),
            state: State::Due,
            since_ms: self.boot_ms(since?),
            unwanted: wish == Wish::Down,
            is_stopped: held.is_stopped,
            version: held.version,
            is_updated: held.is_updated,
            restarts,
            last_exit: last_exit.map(LastExit::from),
            streak: failures.streak,
            recent_ms: failures.recent.iter().map(|at| self.boot_ms(*at)).collect(),
            crash_loop_ms: failures
                .crash_loop
                .map(|(since, remind)| (self.boot_ms(since), self.boot_ms(remind))),
            was_ready: false,
            why: None,
            blocked_by: None,
            child: None,
        };
        slot.state = match left {
            Left::Nothing => {
                let view = self.engine.view(id);
                let view = view.filter(|view| view.state == StateName::BackingOff);
                slot.why = view.and_then(|view| view.detail);
                State::Due
            }
            Left::Completed { was_ready } => {
                slot.was_ready = was_ready;
                State::Completed
            }
            Left::Halted { why } => {
                slot.why = Some(why);
                State::Halted
            }
            Left::Blocked { need, has_ended } => {
                slot.why = self.engine.view(id).and_then(|view| view.detail);
                let need = need.to_string();
                slot.blocked_by = Some(Blocked { need, has_ended });
                State::Halted
            }
            Left::Ended {
                exit,
                was_ready,
                began,
                ..
            } => {
                slot.child = held.running.as_ref().map(|it| self.child(it, held, began));
                slot.last_exit = Some(exit.into());
                slot.was_ready = was_ready;
                State::Ended
            }
            Left::Gone { .. } => State::Due,
            Left::Child { began, stage, .. } => {
                let Some(running) = &held.running else {
                    return Some(slot);
                };
                slot.child = Some(self.child(running, held, began));
                match stage {
                    Stage::Starting => State::Starting,
                    Stage::Running => State::Running,
                    Stage::Paused => State::Paused,
                    Stage::Stopping => State::Stopping,
                    Stage::Failing => State::Failing,
                }
            }
        };
        Some(slot)
    }

    fn child(&self, running: &Running, held: &Held, began: Instant) -> Child {
        let Identity { pid, birth, tree } = running.tree.identity();
        let notify = held.notify.as_ref();
        let notify = notify.and_then(|socket| socket.address().to_str());
        Child {
            pid,
            birth,
            tree,
            began_ms: self.boot_ms(began),
            notify: notify.map(str::to_owned),
            is_outdated: running.is_outdated,
            digest: running.digest.clone(),
        }
    }

    fn boot_ms(&self, at: Instant) -> u64 {
        millis(self.zero + at.elapsed())
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds; more than 300 years.
    const UPTIME: u64 = 9_999_999_999_999;

    fn slot() -> Slot {
        Slot {
            name: "a".repeat(63),
            state: State::Running,
            since_ms: UPTIME,
            unwanted: true,
            is_stopped: true,
            version: u64::MAX,
            is_updated: true,
            restarts: u64::MAX,
            last_exit: Some(LastExit {
                code: Some(i32::MIN),
                signal: None,
            }),
            streak: u32::MAX,
            recent_ms: Vec::new(),
            crash_loop_ms: Some((UPTIME, UPTIME)),
            was_ready: true,
            why: None,
            blocked_by: None,
            child: Some(Child {
                pid: u32::MAX,
                birth: Birth {
                    first: u64::MAX,
                    last: u64::MAX,
                },
                tree: format!("cgroup {}", "d".repeat(300)),
                began_ms: UPTIME,
                notify: Some("n".repeat(107)),
                is_outdated: true,
                digest: Some(TextDigest::of("", Format::Toml, "/", None)),
            }),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut buffer = Vec::new();
        lay_out(&slot(), &mut buffer).unwrap();
        assert_eq!(buffer.len(), SLOT);
        assert_eq!(serde_json::from_slice::<Slot>(&buffer).unwrap(), slot());
        let blocked = Slot {
            blocked_by: Some(Blocked {
                need: "b".repeat(63),
                has_ended: false,
            }),
            child: None,
            ..slot()
        };
        lay_out(&blocked, &mut buffer).unwrap();
        assert_eq!(serde_json::from_slice::<Slot>(&buffer).unwrap(), blocked);
    }

    #[test]
    fn what_is_too_long_is_not_adopted() {
        let mut long = slot();
        long.child.as_mut().unwrap().tree = "d".repeat(SLOT);
        let mut buffer = Vec::new();
        lay_out(&long, &mut buffer).unwrap();
        assert_eq!(buffer.len(), SLOT);
        let read: Slot = serde_json::from_slice(&buffer).unwrap();
        assert_eq!((read.child, read.state), (None, State::Due));
        // Between what fits and what does not there are those that lose their digest alone.
        let digest = |length: usize| {
            let mut long = slot();
            long.child.as_mut().unwrap().tree = "d".repeat(length);
            let mut buffer = Vec::new();
            lay_out(&long, &mut buffer).unwrap();
            let read: Slot = serde_json::from_slice(&buffer).unwrap();
            read.child.map(|child| child.digest.is_some())
        };
        let digests: Vec<_> = (300..SLOT).map(digest).collect();
        assert!(digests.is_sorted_by(|one, next| one >= next));
        assert!(digests.contains(&Some(false)));
        let mut halted = slot();
        (halted.why, halted.state) = (Some("ü".repeat(SLOT)), State::Halted);
        lay_out(&halted, &mut buffer).unwrap();
        let read: Slot = serde_json::from_slice(&buffer).unwrap();
        assert_eq!(read.why.unwrap().chars().count(), 60);
    }

    /// A ledger that was written by the first version with this format: it must be read for ever.
    #[test]
    fn an_old_slot_is_read() {
        let text = r#"{"name":"db","state":"running","since_ms":5,"child":{"pid":7,"birth":{"first":1,"last":2},"tree":"instance a.0","began_ms":4}}"#;
        let read: Slot = serde_json::from_str(text).unwrap();
        let child = read.child.unwrap();
        assert_eq!((child.pid, child.birth.last, child.began_ms), (7, 2, 4));
    }
}
