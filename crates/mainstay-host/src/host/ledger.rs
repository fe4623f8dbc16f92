//! `STATE/ledger`: the data that a new supervisor needs to adopt the running services if this one
//! is killed.
//!
//! The file has a header of 8 KiB and an entry of 1 KiB for each service, in manifest order. Each
//! is one JSON object, padded with spaces and terminated by a newline, so that `cat` can show it.
//! Unused entries are `null`. An entry is written with a single `pwrite` that does not cross a page
//! boundary, so it is complete whenever the process is killed. Nothing is synced: the ledger needs
//! to survive the supervisor, not the system, and a ledger from an earlier boot is invalid. Times
//! are in milliseconds since boot. A copy of the manifest is stored beside the ledger.
//!
//! A full disk must not prevent writing the ledger. A second file of the same size,
//! `STATE/ledger.spare`, is therefore kept beside it. A new ledger is written to the spare file,
//! and the two files are then exchanged. If they cannot be exchanged, both stay in place and the
//! one with the higher generation is valid. A failure to write is reported, and writing is retried.
//!
//! An entry that cannot be read or is incomplete is safe: processes that are not adopted by it are
//! ended by means of the lock's orphan marker.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_core::engine::{
    Checkpoint, DesiredState, Ended, Exit, Failures, RecoveredState, ServiceId, Stage, StateName,
};
use mainstay_core::manifest::{self, Format};
use mainstay_core::registry::TextDigest;
use mainstay_core::report::LastExit;
use mainstay_core::spec::ServiceName;
use mainstay_core::time::Instant;
use mainstay_store::embedded::{self, Definition, Desired};
use mainstay_store::state_dir::{Predecessor, StateDir};
use mainstay_sys::private::{create_private_dir, write_private};
use mainstay_sys::{self as sys, Birth, Identity, lock_file};
use serde::{Deserialize, Serialize};

use super::{Host, Running, ServiceRuntime};
use crate::definitions;
use crate::manifest_file::Loaded;

/// The format version of the file. Other versions are not read.
const FORMAT: u32 = 1;
const HEADER: usize = 8 << 10;
const ENTRY: usize = 1 << 10;
/// The number of entries is a multiple of this.
const ROOM: usize = 16;
/// The time after which a failed write is retried.
const REWRITE_INTERVAL: Duration = Duration::from_secs(10);

/// The ledger's header: the supervisor that wrote it, and its manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    format: u32,
    boot: String,
    pub(super) supervisor: u32,
    birth: Birth,
    /// The manifest's name as the operator gave it.
    pub(super) manifest: String,
    manifest_dir: PathBuf,
    /// The manifest's format, which determines the name of the copy; or [`INSTALLED`].
    manifest_format: String,
    /// The same orphan markers as in the lock file, in case that is lost.
    #[serde(default, rename = "testaments")]
    pub(super) orphan_markers: Vec<String>,
    /// The generation. Of two ledgers, the one with the higher generation is valid.
    #[serde(default)]
    generation: u64,
    /// The number of entries in use; all of them if absent.
    #[serde(default)]
    services: Option<usize>,
}

/// The format name that stands for installed services. Each has a manifest of its own where it is
/// installed.
const INSTALLED: &str = "installed";

/// The ledger entry of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) name: String,
    state: State,
    /// The time of the last state change.
    pub(super) since_ms: u64,
    /// The time limit of a start or a stop.
    #[serde(default, skip_serializing_if = "is_default")]
    until_ms: Option<u64>,
    /// Set if the service is to be down.
    #[serde(default, skip_serializing_if = "is_default")]
    unwanted: bool,
    /// Set if an operator stopped the service by name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) is_stopped: bool,
    /// The version of the installation that is running; 0 if the service is not installed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) version: u64,
    /// Set if an update changed the definition. The new definition is stored in the state directory
    /// and not in the copy of the manifest.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) is_updated: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) restarts: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) last_exit: Option<LastExit>,
    /// The number of failures since the last good run.
    #[serde(default, skip_serializing_if = "is_default")]
    streak: u32,
    /// The times of restarts within the window of the restart limit.
    #[serde(default, skip_serializing_if = "is_default")]
    recent_ms: Vec<u64>,
    /// The start of the current crash loop, and the time of the next reminder about it.
    #[serde(default, skip_serializing_if = "is_default")]
    crash_loop_ms: Option<(u64, u64)>,
    /// Set if a run that completed or ended had been ready.
    #[serde(default, skip_serializing_if = "is_default")]
    was_ready: bool,
    /// The reason for a halt or a backoff.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) why: Option<String>,
    /// The failure that ended the run, or that it is being stopped for, unless that is `last_exit`.
    #[serde(default, skip_serializing_if = "is_default")]
    failure: Option<Ended>,
    /// The need that keeps a halted service down, if that is the reason for the halt.
    #[serde(default, skip_serializing_if = "is_default")]
    blocked_by: Option<Blocked>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) child: Option<Child>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Blocked {
    need: String,
    /// Set if the need ended before it was ready. Otherwise it is halted.
    has_ended: bool,
}

/// The main process of a run, and its tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Child {
    pid: u32,
    birth: Birth,
    tree: String,
    pub(super) began_ms: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) notify: Option<String>,
    /// Set if an earlier definition than the one in the stored manifest started the run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) is_outdated: bool,
    /// The digest of the definition that started the run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) digest: Option<TextDigest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// No process is running, and nothing prevents a start.
    Due,
    Completed,
    Halted,
    Starting,
    Running,
    Paused,
    /// The run is being stopped. If the service is wanted, it is started again afterwards.
    Stopping,
    /// The run is being stopped because it failed.
    Failing,
    /// The run has ended, and the next step is not decided yet.
    Ended,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A ledger that is being written.
pub(super) struct Ledger {
    /// The header. `None` if the ledger belongs to a dead supervisor.
    header: Option<Header>,
    place: Option<Place>,
    /// An open handle to the copy of the manifest, valid even if the file is renamed or removed.
    copy: Option<File>,
    /// The service of each entry, in order.
    owners: Vec<ServiceId>,
    written: Vec<Option<Entry>>,
    buffer: Vec<u8>,
    /// The reason that the ledger on disk is out of date.
    problem: Option<String>,
}

/// An open ledger file.
struct Place {
    path: PathBuf,
    file: File,
}

impl Ledger {
    /// Creates a ledger in place of the previous one. Returns `None` if the system does not support
    /// recovery. A failure to write is recorded as [problem](Ledger::problem).
    fn begin(
        state: &StateDir,
        (manifest, orphan_markers): (&str, &[String]),
        copy: Option<&Copy>,
        entries: (Vec<ServiceId>, Vec<Entry>),
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
            orphan_markers: orphan_markers.to_vec(),
            generation: 0,
            services: None,
        };
        let mut ledger = Self {
            header: Some(header),
            place: None,
            copy: None,
            owners: Vec::new(),
            written: Vec::new(),
            buffer: Vec::with_capacity(ENTRY),
            problem: None,
        };
        let copied = copy.map(|copy| {
            let path = state.manifest_path(copy.format.name());
            copied(&path, copy.text.as_bytes())
        });
        match copied.transpose() {
            Ok(copy) => {
                ledger.copy = copy;
                ledger.renew(state, entries);
            }
            Err(error) => {
                ledger.renew(state, entries);
                ledger.fail(&error);
            }
        }
        Ok(Some(ledger))
    }

    /// Writes a new ledger for these services.
    fn renew(&mut self, state: &StateDir, (owners, entries): (Vec<ServiceId>, Vec<Entry>)) {
        let Some(header) = &mut self.header else {
            return;
        };
        let copy = self.copy.as_ref().map(|copy| {
            let path = state.manifest_path(&header.manifest_format);
            if lock_file::is_at(&path, copy)? {
                copy.try_clone()
            } else {
                write_private(&path, &sys::read_from_start(copy)?)
            }
        });
        let placed = copy.transpose().and_then(|copy| {
            let place = place(state, header, &entries)?;
            Ok((copy, place))
        });
        match placed {
            Ok((copy, place)) => {
                (self.copy, self.place) = (copy, Some(place));
                (self.owners, self.written) = (owners, entries.into_iter().map(Some).collect());
                self.problem = None;
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.problem = Some(error.to_string());
    }

    /// Continues the ledger of a dead supervisor.
    pub(super) fn go_on(path: PathBuf, owners: Vec<ServiceId>) -> io::Result<Self> {
        let file = fs::OpenOptions::new().write(true).open(&path)?;
        Ok(Self {
            header: None,
            place: Some(Place { path, file }),
            copy: None,
            written: vec![None; owners.len()],
            owners,
            buffer: Vec::with_capacity(ENTRY),
            problem: None,
        })
    }

    /// Writes an entry if it has changed.
    fn write(&mut self, id: ServiceId, entry: Entry) -> io::Result<()> {
        // A service that was added later gets its entry with the next new ledger.
        let Some(index) = self.owners.iter().position(|owner| *owner == id) else {
            return Ok(());
        };
        if self.written[index].as_ref() == Some(&entry) {
            return Ok(());
        }
        let Some(place) = &self.place else {
            return Ok(());
        };
        lay_out(&entry, &mut self.buffer)?;
        let at = HEADER + index * ENTRY;
        sys::write_at(&place.file, &self.buffer, at as u64)?;
        self.written[index] = Some(entry);
        Ok(())
    }

    /// Returns the reason that the ledger on disk is out of date, if it is.
    fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    fn is_in_place(&self) -> bool {
        let is_at = |place: &Place| lock_file::is_at(&place.path, &place.file).unwrap_or(false);
        self.place.as_ref().is_none_or(is_at)
    }
}

/// Opens the file if it has this content, else writes it.
fn copied(path: &Path, bytes: &[u8]) -> io::Result<File> {
    match File::open(path) {
        Ok(file) if sys::read_from_start(&file).is_ok_and(|there| there == bytes) => Ok(file),
        _ => write_private(path, bytes),
    }
}

/// Writes a ledger that is valid from now on. A valid ledger exists at every moment, unless both
/// files fail to take the new one and the current one is overwritten in place.
fn place(state: &StateDir, header: &mut Header, entries: &[Entry]) -> io::Result<Place> {
    let (first, spare) = (state.ledger_path(), state.spare_ledger_path());
    let generation = |path: &Path| {
        LedgerSnapshot::read_at(path)
            .ok()?
            .map(|it| it.header.generation)
    };
    let (of_first, of_spare) = (generation(&first), generation(&spare));
    header.generation = of_first.max(of_spare).unwrap_or(0) + 1;
    header.services = Some(entries.len());
    let mut head = Vec::with_capacity(HEADER);
    if !fill(header, HEADER, &mut head)? {
        return Err(io::Error::other("the paths are too long"));
    }
    let room = (entries.len() + 1).next_multiple_of(ROOM);
    let mut body = Vec::with_capacity(room * ENTRY);
    let mut buffer = Vec::with_capacity(ENTRY);
    for entry in entries {
        lay_out(entry, &mut buffer)?;
        body.extend_from_slice(&buffer);
    }
    while body.len() < room * ENTRY {
        fill(&(), ENTRY, &mut body)?;
    }
    let (counting, other) = if of_first < of_spare {
        (&spare, &first)
    } else {
        (&first, &spare)
    };
    let target = if of_first.is_none() { &first } else { other };
    let written = written(target, &head, &body).map(|file| (target, file));
    // Being killed during this write loses the current ledger. Otherwise the fallback does no harm.
    let (at, file) = written.or_else(|error| match overwritten(counting, &head, &body) {
        Ok(file) => Ok((counting, file)),
        Err(_) => Err(error),
    })?;
    let moved = at == &spare && exchanged(&spare, &first).is_ok();
    let path = if moved { first.clone() } else { at.clone() };
    // A failure here is made good with the next new ledger.
    let _ = if path == first {
        retire(&spare, body.len())
    } else {
        Ok(())
    };
    Ok(Place { path, file })
}

fn written(path: &Path, head: &[u8], body: &[u8]) -> io::Result<File> {
    overwritten(path, head, body).or_else(|_| write_private(path, &[head, body].concat()))
}

/// Overwrites a file without needing more disk space. The header stays blank until the body is
/// complete.
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

/// Ensures that `path` is a blank file with room for a header and a body of this length.
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

/// Exchanges the names of two files. If that is not supported, renames the first to the second.
fn exchanged(one: &Path, other: &Path) -> io::Result<()> {
    sys::exchange(one, other).or_else(|_| fs::rename(one, other))
}

/// Removes the files that are not needed after an orderly end.
pub(super) fn discard(state: &StateDir) {
    // Files that cannot be removed are invalid, as the lock is released.
    let _ = fs::remove_file(state.ledger_path());
    let _ = fs::remove_file(state.spare_ledger_path());
    let _ = fs::remove_dir_all(state.updated_dir());
    for format in Format::ALL {
        let _ = fs::remove_file(state.manifest_path(format.name()));
    }
}

/// Serialises an entry. If it is too long, its reasons are cut to 60 characters and the digest and
/// restart times are dropped. If it is still too long, the child is dropped too, so that its
/// processes are ended instead of adopted.
fn lay_out(entry: &Entry, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    if fill(entry, ENTRY, buffer)? {
        return Ok(());
    }
    let mut shorter = entry.clone();
    if let Some(child) = &mut shorter.child {
        child.digest = None;
    }
    shorter.recent_ms.clear();
    let texts = shorter.why.iter_mut();
    for text in texts.chain(shorter.failure.as_mut().and_then(Ended::text_mut)) {
        *text = text.chars().take(60).collect();
    }
    buffer.clear();
    if fill(&shorter, ENTRY, buffer)? {
        return Ok(());
    }
    (shorter.child, shorter.state) = (None, State::Due);
    buffer.clear();
    fill(&shorter, ENTRY, buffer).map(drop)
}

/// Appends the document, padded to `size`, and returns whether it fits.
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

/// The processes of a dead supervisor's services that are still alive, according to the system.
#[derive(Default)]
pub(super) struct Survivors {
    /// The process IDs of each service.
    pids: BTreeMap<String, Vec<u32>>,
    mains: BTreeMap<String, sys::Found>,
}

impl Survivors {
    /// Finds the survivors by their supervisor's orphan markers. Where there are no cgroups, this
    /// looks at every process.
    pub(super) fn of(orphan_markers: &[String]) -> Self {
        let mut all = Self::default();
        for survivor in orphan_markers.iter().flat_map(|it| sys::survivors(it)) {
            let sys::Survivor {
                service,
                pids,
                main,
            } = survivor;
            all.pids.entry(service.clone()).or_default().extend(pids);
            let Some(main) = main else { continue };
            let known = all.mains.entry(service).or_insert_with(|| main.clone());
            // Probes have trees of their own. They started later than the main process.
            if main.began < known.began {
                *known = main;
            }
        }
        all
    }

    /// Returns a sentence about a service's surviving processes, if there are any.
    pub(super) fn said(&self, service: &str) -> Option<String> {
        let pids = self.pids.get(service)?.iter().take(5);
        let pids: Vec<String> = pids.map(u32::to_string).collect();
        let pids = pids.join(", ");
        Some(format!("its processes are still running (pid {pids})"))
    }

    /// Returns whether any process of the service is alive.
    pub(super) fn has(&self, service: &str) -> bool {
        self.pids.contains_key(service)
    }

    /// Returns the names of the services with surviving processes.
    pub(super) fn services(&self) -> impl Iterator<Item = &str> {
        self.pids.keys().map(String::as_str)
    }
}

/// The manifest's text, to be stored beside the ledger.
pub struct Copy {
    pub(crate) text: String,
    pub(crate) format: Format,
    pub(crate) dir: PathBuf,
    /// The digest of the manifest.
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
pub(super) struct LedgerSnapshot {
    pub(super) header: Header,
    /// The ledger file.
    path: PathBuf,
    /// The reason that the ledger could not be read. It is then rebuilt from the surviving
    /// processes.
    pub(super) rebuilt: Option<String>,
    /// The entries of the services, in order. Entries that cannot be read are omitted, and
    /// `is_whole` is then false.
    pub(super) entries: Vec<Entry>,
    pub(super) is_whole: bool,
}

impl LedgerSnapshot {
    /// Reads the ledger. Returns `None` if there is none from this boot.
    ///
    /// # Errors
    /// If the ledger cannot be read, is damaged, or has an unknown format.
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
        let cannot = |why: String| format!("cannot read {}: {why}", path.display());
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| cannot(error.to_string()))?,
        };
        let header = bytes
            .get(..HEADER)
            .ok_or_else(|| cannot("the file is truncated".into()))?;
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Option<Version> =
            serde_json::from_slice(header).map_err(|error| cannot(error.to_string()))?;
        // The file is blank.
        let Some(version) = version else {
            return Ok(None);
        };
        if version.format != FORMAT {
            return Err(cannot(format!("unsupported format {}", version.format)));
        }
        let header: Header =
            serde_json::from_slice(header).map_err(|error| cannot(error.to_string()))?;
        if sys::boot().as_ref() != Some(&header.boot) {
            return Ok(None);
        }
        let entries = bytes[HEADER..].chunks(ENTRY);
        let count = header.services.unwrap_or(entries.len());
        let entries = entries.take(count);
        let entries: Vec<Entry> = entries
            .filter_map(|entry| serde_json::from_slice(entry).ok())
            .collect();
        let is_whole = entries.len() == count;
        Ok(Some(Self {
            header,
            path: path.to_owned(),
            rebuilt: None,
            entries,
            is_whole,
        }))
    }

    /// Rebuilds what can be known without a ledger: the services with surviving processes, and
    /// which of these is the main process. Only a cgroup shows that, as no unrelated process can
    /// join it.
    pub(super) fn rebuild(
        state: &StateDir,
        (predecessor, manifest): (&Predecessor, &str),
        why: String,
    ) -> Option<Self> {
        let survivors = Survivors::of(&predecessor.orphan_markers);
        let installed = embedded::names(state);
        // A service whose pipes are gone with the directory would be killed when it writes, or
        // would lose its output.
        let is_heard = |name: &str| state.pipes_dir().join(name).exists();
        let mains = survivors.mains.iter().filter(|(name, _)| is_heard(name));
        let entries = mains.map(|(name, main)| {
            let mut entry = Entry::new(name, State::Running);
            let began_ms = millis(main.began);
            entry.since_ms = began_ms;
            entry.unwanted = embedded::desired(state, name) == Some(Desired::Stopped);
            entry.child = Some(Child {
                pid: main.identity.pid,
                birth: main.identity.birth,
                tree: main.identity.tree.clone(),
                began_ms,
                notify: None,
                is_outdated: false,
                digest: None,
            });
            entry
        });
        let entries: Vec<Entry> = entries.collect();
        let header = Header {
            format: FORMAT,
            boot: sys::boot()?,
            supervisor: predecessor.pid?,
            birth: Birth { first: 0, last: 0 },
            manifest: manifest.to_owned(),
            manifest_dir: PathBuf::new(),
            manifest_format: if installed.is_empty() {
                String::new()
            } else {
                INSTALLED.to_owned()
            },
            orphan_markers: predecessor.orphan_markers.clone(),
            generation: 0,
            services: None,
        };
        (!survivors.pids.is_empty()).then_some(Self {
            header,
            path: PathBuf::new(),
            rebuilt: Some(why),
            entries,
            is_whole: true,
        })
    }

    /// Returns the path to pass to [`Ledger::go_on`].
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the supervisor that wrote the ledger is alive.
    pub(super) fn is_kept(&self) -> bool {
        sys::lives(&Identity {
            pid: self.header.supervisor,
            birth: self.header.birth,
            tree: String::new(),
        })
    }

    /// Returns whether the services were installed ones.
    pub(super) fn is_of_installed(&self) -> bool {
        self.header.manifest_format == INSTALLED
    }

    /// Returns whether the ledger has an entry for this service.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    /// Returns the services' definitions as of the beginning of the ledger, with later updates.
    ///
    /// # Errors
    /// If a definition cannot be read.
    pub(super) fn definitions(&self, state: &StateDir) -> Result<Vec<Definition>, String> {
        let mut all = self.original_definitions(state)?;
        for entry in self.entries.iter().filter(|entry| entry.is_updated) {
            let updated = Updated::read(state, &entry.name)?;
            all.retain(|it| it.spec.name().as_str() != entry.name);
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
            return Ok(definitions::all(state, &[]).0);
        }
        let path = state.manifest_path(format);
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        // The text was validated when it was copied. Conditions that have changed since do not
        // matter for stopping the services.
        let format = Format::from_extension(format);
        let specs = format.map(|format| manifest::parse(&text, format));
        let Some(Ok(specs)) = specs else {
            return Err(format!(
                "{} has changed since its services were started",
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

/// A service's definition after an update, as stored in `STATE/updated/NAME.json`.
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
        let cannot = |why: String| format!("cannot read {}: {why}", path.display());
        let bytes = fs::read(&path).map_err(|error| cannot(error.to_string()))?;
        let updated: Self =
            serde_json::from_slice(&bytes).map_err(|error| cannot(error.to_string()))?;
        if updated.format != FORMAT {
            return Err(cannot(format!("unsupported format {}", updated.format)));
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

impl Entry {
    /// Returns the main process, which may have ended.
    pub(super) fn main(&self) -> Option<Identity> {
        self.child.as_ref().map(Child::identity)
    }

    /// Returns the main process if it is alive.
    pub(super) fn living(&self) -> Option<Identity> {
        self.main().filter(sys::lives)
    }

    /// Returns the recovered state for the engine. `at` converts a time to the new host's clock;
    /// `lives` is set if the main process is alive.
    pub(super) fn checkpoint(&self, lives: bool, at: impl Fn(u64) -> Instant) -> Checkpoint {
        let stage = match self.state {
            State::Starting => Some(Stage::Starting),
            State::Running => Some(Stage::Running),
            State::Paused => Some(Stage::Paused),
            State::Stopping => Some(Stage::Stopping),
            State::Failing => Some(Stage::Failing(self.failure())),
            State::Due | State::Completed | State::Halted | State::Ended => None,
        };
        let was_ready = self.was_ready;
        let since = at(self.since_ms);
        let began = self.child.as_ref().map_or(since, |it| at(it.began_ms));
        let recovered = match (self.state, stage, &self.child) {
            (_, Some(stage), Some(child)) if lives => RecoveredState::Child {
                pid: child.pid,
                began,
                since,
                until: self.until_ms.map(&at),
                stage,
            },
            (_, Some(stage), Some(child)) => RecoveredState::Gone {
                pid: child.pid,
                began,
                stage,
            },
            (State::Failing, ..) => RecoveredState::Ended {
                ended: self.failure(),
                was_ready,
                began,
                since,
            },
            (State::Ended, ..) => RecoveredState::Ended {
                ended: self
                    .failure
                    .clone()
                    .unwrap_or_else(|| Ended::Exit(self.last_exit.map_or(Exit::Unknown, exit_of))),
                was_ready,
                began,
                since,
            },
            (State::Completed, ..) => RecoveredState::Completed { was_ready },
            (State::Halted, ..) => match &self.blocked_by {
                Some(Blocked { need, has_ended }) => match ServiceName::new(need) {
                    Some(need) => RecoveredState::Blocked {
                        need,
                        has_ended: *has_ended,
                    },
                    None => RecoveredState::Nothing,
                },
                None => RecoveredState::Halted {
                    why: self.why.clone().unwrap_or_default(),
                },
            },
            _ => RecoveredState::Nothing,
        };
        Checkpoint {
            desired: if self.unwanted {
                DesiredState::Down
            } else {
                DesiredState::Up
            },
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
            recovered,
        }
    }

    /// Returns the failure for which the service is being stopped.
    fn failure(&self) -> Ended {
        self.failure.clone().unwrap_or(Ended::Exit(Exit::Unknown))
    }

    /// Returns the state of the service while it has no supervisor.
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

    /// Returns the reason that the service is not up although it should be.
    pub(super) fn remark(&self, lives: bool) -> Option<String> {
        let remark = match self.state {
            _ if lives => return None,
            State::Halted => return self.why.clone(),
            State::Due if self.why.is_some() => {
                let why = self.why.as_deref().unwrap_or_default();
                return Some(format!("{why}; its supervisor was killed"));
            }
            State::Starting | State::Running | State::Paused => {
                "it exited after its supervisor was killed"
            }
            State::Completed => return None,
            _ if self.unwanted => return None,
            _ => "its supervisor was killed before it was started",
        };
        Some(remark.to_owned())
    }

    /// Returns whether the service is crash-looping and will be restarted.
    pub(super) fn is_crash_looping(&self) -> bool {
        self.crash_loop_ms.is_some() && !self.unwanted
    }

    /// Records a stop by name.
    pub(super) fn want_down(&mut self) {
        (self.unwanted, self.is_stopped) = (true, true);
    }

    fn new(name: &str, state: State) -> Self {
        Self {
            name: name.to_owned(),
            state,
            since_ms: millis(sys::uptime()),
            until_ms: None,
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
            failure: None,
            blocked_by: None,
            child: None,
        }
    }

    /// Returns the entry of a service that must stay down and that no ledger accounts for.
    pub(super) fn of_desired(name: &str, desired: &Desired) -> Self {
        let entry = Self {
            unwanted: true,
            ..Self::new(name, State::Due)
        };
        match desired {
            Desired::Stopped => entry,
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
                ..entry
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
    /// Begins the ledger with the current state, after the engine has resumed the recovered
    /// services.
    pub(super) fn begin_ledger(&mut self, copy: Option<&Copy>) {
        if !self.is_adoptable {
            return;
        }
        if self.ledger.is_some() {
            return self.renew_ledger();
        }
        let entries = self.ledger_entries();
        let head = (&*self.manifest, &*self.orphan_markers);
        match Ledger::begin(&self.state, head, copy, entries) {
            Ok(ledger) => {
                self.ledger = ledger;
                self.report_ledger(None);
            }
            Err(error) => self
                .reporter
                .notify(&self.without_ledger(&error.to_string())),
        }
    }

    /// Writes a new ledger, as the set of services or their IDs have changed.
    pub(super) fn renew_ledger(&mut self) {
        let entries = self.ledger_entries();
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let before = ledger.problem().map(str::to_owned);
        ledger.renew(&self.state, entries);
        self.report_ledger(before.as_deref());
    }

    /// Returns whether the ledger file is still in place; true if there is no ledger.
    pub(super) fn has_ledger(&self) -> bool {
        self.ledger.as_ref().is_none_or(Ledger::is_in_place)
    }

    /// Writes a service's entry if it has changed.
    pub(super) fn record(&mut self, id: ServiceId) {
        self.record_desired(id);
        let entry = self.ledger_entry(id);
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let has_problem = ledger.problem().is_some();
        let written = entry.map_or(Ok(()), |entry| ledger.write(id, entry));
        if !has_problem && written.is_err() {
            self.renew_ledger();
        }
        let is_unwritten = |runtime: &ServiceRuntime| runtime.desired_problem.is_some();
        if self.has_ledger_problem() || self.runtimes.get(&id).is_some_and(is_unwritten) {
            self.rewrite_soon();
        }
    }

    fn has_ledger_problem(&self) -> bool {
        self.ledger.as_ref().and_then(Ledger::problem).is_some()
    }

    /// Schedules a retry of failed writes, if there are any.
    pub(super) fn rewrite_soon(&mut self) {
        let is_unwritten = self
            .runtimes
            .values()
            .any(|runtime| runtime.desired_problem.is_some());
        if is_unwritten || self.has_ledger_problem() {
            let at = std::time::Instant::now() + REWRITE_INTERVAL;
            self.rewrites_at.get_or_insert(at);
        }
    }

    /// Retries failed writes of desired states and of the ledger.
    pub(super) fn rewrite(&mut self) {
        self.rewrites_at = None;
        self.record_all_desired();
        if self.has_ledger_problem() {
            self.renew_ledger();
        }
        self.rewrite_soon();
    }

    /// Returns the problem that prevents the ledger from being written, if any.
    pub(super) fn ledger_problem(&self) -> Option<String> {
        let why = self.ledger.as_ref()?.problem()?;
        Some(self.without_ledger(why))
    }

    fn without_ledger(&self, why: &str) -> String {
        let path = self.state.ledger_path();
        format!(
            "cannot write {}: {why}; if this supervisor is killed, its services may be killed instead of adopted",
            path.display()
        )
    }

    /// Reports a change of the ledger's problem, once.
    fn report_ledger(&mut self, before: Option<&str>) {
        let now = self.ledger.as_ref().and_then(Ledger::problem);
        if now == before {
            return;
        }
        let text = match self.ledger_problem() {
            Some(problem) => problem,
            None => format!("{} was written again", self.state.ledger_path().display()),
        };
        self.reporter.notify(&text);
    }

    fn ledger_entries(&self) -> (Vec<ServiceId>, Vec<Entry>) {
        let ids = self.engine.ids();
        ids.filter_map(|id| Some((id, self.ledger_entry(id)?)))
            .unzip()
    }

    fn ledger_entry(&self, id: ServiceId) -> Option<Entry> {
        let Checkpoint {
            desired,
            restarts,
            last_exit,
            failures,
            since,
            recovered,
        } = self.engine.checkpoint(id)?;
        let runtime = self.runtimes.get(&id)?;
        let mut entry = Entry {
            name: runtime.spec.name().as_str().to_owned(),
            state: State::Due,
            since_ms: self.boot_ms(since?),
            until_ms: None,
            unwanted: desired == DesiredState::Down,
            is_stopped: runtime.is_stopped,
            version: runtime.version,
            is_updated: runtime.is_updated,
            restarts,
            last_exit: last_exit.map(LastExit::from),
            streak: failures.streak,
            recent_ms: failures.recent.iter().map(|at| self.boot_ms(*at)).collect(),
            crash_loop_ms: failures
                .crash_loop
                .map(|(since, remind)| (self.boot_ms(since), self.boot_ms(remind))),
            was_ready: false,
            why: None,
            failure: None,
            blocked_by: None,
            child: None,
        };
        entry.state = match recovered {
            RecoveredState::Nothing => {
                let view = self.engine.view(id);
                let view = view.filter(|view| view.state == StateName::BackingOff);
                entry.why = view.and_then(|view| view.detail);
                State::Due
            }
            RecoveredState::Completed { was_ready } => {
                entry.was_ready = was_ready;
                State::Completed
            }
            RecoveredState::Halted { why } => {
                entry.why = Some(why);
                State::Halted
            }
            RecoveredState::Blocked { need, has_ended } => {
                entry.why = self.engine.view(id).and_then(|view| view.detail);
                let need = need.to_string();
                entry.blocked_by = Some(Blocked { need, has_ended });
                State::Halted
            }
            RecoveredState::Ended {
                ended,
                was_ready,
                began,
                ..
            } => {
                entry.child = runtime
                    .running
                    .as_ref()
                    .map(|it| self.child(it, runtime, began));
                match ended {
                    Ended::Exit(exit) => entry.last_exit = Some(exit.into()),
                    failure => entry.failure = Some(failure),
                }
                entry.was_ready = was_ready;
                State::Ended
            }
            RecoveredState::Gone { .. } => State::Due,
            RecoveredState::Child {
                began,
                until,
                stage,
                ..
            } => {
                let Some(running) = &runtime.running else {
                    return Some(entry);
                };
                entry.child = Some(self.child(running, runtime, began));
                entry.until_ms = until.map(|until| self.boot_ms(until));
                match stage {
                    Stage::Starting => State::Starting,
                    Stage::Running => State::Running,
                    Stage::Paused => State::Paused,
                    Stage::Stopping => State::Stopping,
                    Stage::Failing(ended) => {
                        entry.failure = Some(ended);
                        State::Failing
                    }
                }
            }
        };
        Some(entry)
    }

    fn child(&self, running: &Running, runtime: &ServiceRuntime, began: Instant) -> Child {
        let Identity { pid, birth, tree } = running.tree.identity();
        let notify = runtime.notify.as_ref();
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

    fn entry() -> Entry {
        Entry {
            name: "a".repeat(63),
            state: State::Running,
            since_ms: UPTIME,
            until_ms: None,
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
            failure: None,
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
        lay_out(&entry(), &mut buffer).unwrap();
        assert_eq!(buffer.len(), ENTRY);
        assert_eq!(serde_json::from_slice::<Entry>(&buffer).unwrap(), entry());
        let blocked = Entry {
            blocked_by: Some(Blocked {
                need: "b".repeat(63),
                has_ended: false,
            }),
            child: None,
            ..entry()
        };
        lay_out(&blocked, &mut buffer).unwrap();
        assert_eq!(serde_json::from_slice::<Entry>(&buffer).unwrap(), blocked);
        let failures = [
            Ended::NotReady {
                after: Duration::from_millis(1500),
                last: Some("connection refused".to_owned()),
            },
            Ended::LivenessLost {
                misses: 3,
                last: "no answer".to_owned(),
            },
            Ended::Backgrounded {
                hint: "hint".to_owned(),
            },
        ];
        for failure in failures {
            let mut failing = entry();
            failing.child.as_mut().unwrap().tree = "cgroup a".to_owned();
            (failing.state, failing.failure) = (State::Failing, Some(failure));
            failing.until_ms = Some(UPTIME);
            lay_out(&failing, &mut buffer).unwrap();
            assert_eq!(serde_json::from_slice::<Entry>(&buffer).unwrap(), failing);
        }
    }

    #[test]
    fn what_is_too_long_is_not_adopted() {
        let mut long = entry();
        long.child.as_mut().unwrap().tree = "d".repeat(ENTRY);
        let mut buffer = Vec::new();
        lay_out(&long, &mut buffer).unwrap();
        assert_eq!(buffer.len(), ENTRY);
        let read: Entry = serde_json::from_slice(&buffer).unwrap();
        assert_eq!((read.child, read.state), (None, State::Due));
        // Some lengths lose only the digest.
        let digest = |length: usize| {
            let mut long = entry();
            long.child.as_mut().unwrap().tree = "d".repeat(length);
            let mut buffer = Vec::new();
            lay_out(&long, &mut buffer).unwrap();
            let read: Entry = serde_json::from_slice(&buffer).unwrap();
            read.child.map(|child| child.digest.is_some())
        };
        let digests: Vec<_> = (300..ENTRY).map(digest).collect();
        assert!(digests.is_sorted_by(|one, next| one >= next));
        assert!(digests.contains(&Some(false)));
        let mut halted = entry();
        (halted.why, halted.state) = (Some("ü".repeat(ENTRY)), State::Halted);
        lay_out(&halted, &mut buffer).unwrap();
        let read: Entry = serde_json::from_slice(&buffer).unwrap();
        assert_eq!(read.why.unwrap().chars().count(), 60);
        let mut failing = entry();
        failing.state = State::Failing;
        failing.failure = Some(Ended::LivenessLost {
            misses: 1,
            last: "ü".repeat(ENTRY),
        });
        lay_out(&failing, &mut buffer).unwrap();
        let read: Entry = serde_json::from_slice(&buffer).unwrap();
        let last = "ü".repeat(60);
        assert_eq!(read.failure, Some(Ended::LivenessLost { misses: 1, last }));
    }

    /// A ledger that was written by the first version of this format must remain readable.
    #[test]
    fn an_old_slot_is_read() {
        let text = r#"{"name":"db","state":"running","since_ms":5,"child":{"pid":7,"birth":{"first":1,"last":2},"tree":"instance a.0","began_ms":4}}"#;
        let read: Entry = serde_json::from_str(text).unwrap();
        let child = read.child.unwrap();
        assert_eq!((child.pid, child.birth.last, child.began_ms), (7, 2, 4));
    }
}
