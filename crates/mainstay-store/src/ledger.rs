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

mod entry;
mod format;
mod snapshot;
mod survivors;
mod updated;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use mainstay_core::engine::ServiceId;
use mainstay_core::manifest::Format;
use mainstay_core::registry::TextDigest;
use mainstay_sys::private::write_private;
use mainstay_sys::{self as sys, lock_file};

use self::format::{ENTRY, FORMAT, HEADER, INSTALLED, fill, lay_out};
use crate::state_dir::StateDir;

pub use self::entry::{Blocked, Child, Entry, State, millis};
pub use self::format::Header;
pub use self::snapshot::{LedgerSnapshot, Undefined};
pub use self::survivors::Survivors;
pub use self::updated::Updated;

/// The number of entries is a multiple of this.
const ROOM: usize = 16;

/// A ledger that is being written.
pub struct Ledger {
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
    pub fn begin(
        state: &StateDir,
        (manifest, orphan_markers): (&str, &[String]),
        copy: Option<&ManifestCopy>,
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
    pub fn renew(&mut self, state: &StateDir, (owners, entries): (Vec<ServiceId>, Vec<Entry>)) {
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
    pub fn go_on(path: PathBuf, owners: Vec<ServiceId>) -> io::Result<Self> {
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
    pub fn write(&mut self, id: ServiceId, entry: Entry) -> io::Result<()> {
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
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Returns whether the file that is written to is still in place.
    pub fn is_in_place(&self) -> bool {
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
pub fn discard(state: &StateDir) {
    // Files that cannot be removed are invalid, as the lock is released.
    let _ = fs::remove_file(state.ledger_path());
    let _ = fs::remove_file(state.spare_ledger_path());
    let _ = fs::remove_dir_all(state.updated_dir());
    for format in Format::ALL {
        let _ = fs::remove_file(state.manifest_path(format.name()));
    }
}

/// The manifest's text, to be stored beside the ledger.
pub struct ManifestCopy {
    /// The text.
    pub text: String,
    /// The format of the text.
    pub format: Format,
    /// The base directory of relative paths.
    pub dir: PathBuf,
    /// The digest of the manifest.
    pub digest: TextDigest,
}
