//! `STATE/lock`: one supervisor per state directory.
//!
//! The lock is that of flock(2), which ends with its process. The text of the file is the record of
//! the holder. The two can differ: a process that has locked the file but is not in the record is
//! not a supervisor. An example is a process of another account that opened the file while an
//! earlier version left it readable. The file is then replaced, and that process no longer holds
//! the lock.
//!
//! ```text
//! PID BIRTH BOOT/PIDS   the holder, its birth time, and the boot and PID namespace in which these
//!                       numbers are valid (Linux)
//! MANIFEST              the manifest that it supervises
//! TESTAMENT…            the markers by which its processes are found
//! ```
//!
//! The record is written as soon as the lock is taken. Until the lock is signed, the record also
//! names what an earlier holder left. After an orderly end, the record says so. An empty file is
//! new, or was truncated by another process. A process that takes or replaces the lock holds
//! `STATE/lock-guard` during that operation. No other account could ever open that file.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_core::failure::{Code, Failure};
use mainstay_sys as sys;
use mainstay_sys::{guarded, lock_file};

use super::StateDir;

/// The maximum wait for a lock whose holder is dead or unknown.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// The interval between attempts during that wait.
const LOCK_INTERVAL: Duration = Duration::from_millis(2);
/// The content of the file after an orderly end. A record does not begin with an empty line.
const GIVEN_BACK: &str = "\ngiven back\n";

/// The exclusive right to supervise from a state directory. The lock is released when this value is
/// dropped. If it is dropped before it is [signed](Lock::sign), the previous record is restored.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    text: String,
    before: Option<String>,
    /// The services that the last holder left behind, if any.
    pub left: Left,
    /// A remark for the operator.
    pub remark: Option<String>,
}

/// The services that the last holder of a lock left behind.
#[derive(Debug)]
pub enum Left {
    /// The last holder ended in good order.
    Nothing,
    /// The file is new, or was truncated: other evidence must decide.
    Unknown,
    /// The last holder died, and its services may still run.
    Services(Predecessor),
}

/// A supervisor that died without stopping its services.
#[derive(Clone, Debug)]
pub struct Predecessor {
    /// The process ID, if it is known.
    pub pid: Option<u32>,
    /// The orphan markers (`sys::orphan_marker`) that find its processes: those it started, and
    /// those it adopted.
    pub orphan_markers: Vec<String>,
}

impl Predecessor {
    /// Returns a name for messages.
    pub fn name(&self) -> String {
        match self.pid {
            Some(pid) => format!("the previous supervisor (pid {pid})"),
            None => "the previous supervisor".to_owned(),
        }
    }
}

/// The condition of a lock that this process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The file is in its place, with our record.
    Intact,
    /// The file is in its place, with other content.
    Overwritten,
    /// The file was deleted.
    Deleted,
    /// Another file is in its place.
    Replaced,
}

/// The result of one attempt to take the lock.
pub enum Try {
    /// This process holds the lock now.
    Taken(Lock),
    /// A supervisor holds the lock.
    Held(Failure),
    /// The holder is dead or unknown, or another process is taking the lock: try again.
    Later,
}

/// The state of the wait for a lock. Once it has expired, the lock may be taken from a process that
/// is not known to be a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// The wait goes on.
    Pending,
    /// The wait has lasted as long as it may.
    Expired,
}

impl Lock {
    /// Writes the record: the holder, for other processes, and the orphan markers of our children,
    /// for a successor.
    pub fn sign(
        &mut self,
        manifest: &str,
        orphan_markers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> io::Result<()> {
        self.text = record(manifest, orphan_markers);
        self.write(&self.text)?;
        self.before = None;
        Ok(())
    }

    /// Replaces a lost lock of the same holder: writes its record into this lock.
    pub fn sign_like(&mut self, lost: &Self) -> io::Result<()> {
        self.text.clone_from(&lost.text);
        self.rewrite()?;
        self.before = None;
        Ok(())
    }

    /// Writes the record again.
    pub fn rewrite(&self) -> io::Result<()> {
        self.write(&self.text)
    }

    /// Releases the lock after an orderly end: nothing was left behind.
    pub fn give_back(mut self) {
        self.before = None;
        // If this fails, the next holder looks for processes that do not exist.
        let _ = self.write(GIVEN_BACK);
    }

    /// Returns the locked file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns the condition of the lock at the path that another starter checks.
    pub fn hold(&self) -> io::Result<Hold> {
        if !lock_file::is_at(&self.path, &self.file)? {
            return Ok(if fs::exists(&self.path)? {
                Hold::Replaced
            } else {
                Hold::Deleted
            });
        }
        Ok(if read(&self.file) == self.text {
            Hold::Intact
        } else {
            Hold::Overwritten
        })
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut file = &self.file;
        file.rewind()?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            // If this fails, the record names a dead process.
            let _ = self.write(&before);
        }
    }
}

/// Returns the text of a record. An empty line ends it: if this process is killed before it
/// truncates the file, the rest is ignored.
fn record(manifest: &str, orphan_markers: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut text = std::process::id().to_string();
    if let (Ok(own), Some(home)) = (sys::own_identity(), sys::home_of_pids()) {
        text.push_str(&format!(" {} {home}", own.birth.first));
    }
    text.push_str(&format!("\n{manifest}\n"));
    for orphan_marker in orphan_markers {
        text.push_str(orphan_marker.as_ref());
        text.push('\n');
    }
    text.push('\n');
    text
}

/// The content of a lock file.
enum Content<'t> {
    Nothing,
    GivenBack,
    Signed(Record<'t>),
}

struct Record<'t> {
    pid: u32,
    /// The birth time, and the boot and PID namespace in which it is valid, if they are known.
    birth: Option<(u64, &'t str)>,
    manifest: &'t str,
    orphan_markers: Vec<&'t str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Lives,
    Dead,
    /// The holder is in another container or on another machine.
    Unknown,
}

impl<'t> Content<'t> {
    fn parse(text: &'t str) -> Self {
        let mut lines = text.lines().take_while(|line| !line.is_empty());
        let Some(first) = lines.next() else {
            return if text.is_empty() {
                Self::Nothing
            } else {
                Self::GivenBack
            };
        };
        let mut words = first.split(' ');
        let Some(pid) = words.next().and_then(|pid| pid.parse().ok()) else {
            return Self::Nothing;
        };
        let birth = words.next().and_then(|birth| birth.parse().ok());
        Self::Signed(Record {
            pid,
            birth: birth.zip(words.next()),
            manifest: lines.next().unwrap_or("another manifest"),
            orphan_markers: lines.collect(),
        })
    }
}

impl Record<'_> {
    fn predecessor(&self) -> Predecessor {
        let orphan_markers = self.orphan_markers.iter();
        Predecessor {
            pid: Some(self.pid),
            orphan_markers: orphan_markers.map(|text| (*text).to_owned()).collect(),
        }
    }

    fn holder(&self) -> Holder {
        let is_dead = match self.birth {
            Some((_, home)) if sys::home_of_pids().as_deref() != Some(home) => {
                return Holder::Unknown;
            }
            Some((birth, _)) => !sys::lives(&sys::Identity {
                pid: self.pid,
                birth: sys::Birth {
                    first: birth,
                    last: birth,
                },
                tree: String::new(),
            }),
            None => sys::is_dead(self.pid),
        };
        if is_dead { Holder::Dead } else { Holder::Lives }
    }
}

/// Reads the file. An unreadable file counts as empty.
fn read(file: &File) -> String {
    let mut text = String::new();
    let mut file = file;
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text
}

impl StateDir {
    pub(super) fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// Returns the PID of the supervisor in the record, if it is alive.
    pub fn holder(&self) -> Option<u32> {
        // The account of a service owns the state directory of its host.
        let text = guarded::read_to_string(&self.lock_path(), guarded::MANIFEST).ok()?;
        match Content::parse(&text) {
            Content::Signed(record) => (record.holder() == Holder::Lives).then_some(record.pid),
            Content::Nothing | Content::GivenBack => None,
        }
    }

    /// Returns the supervisor in the record and its manifest, if it is dead and did not release the
    /// lock in good order.
    pub fn dead_holder(&self) -> Option<(Predecessor, String)> {
        let text = fs::read_to_string(self.lock_path()).ok()?;
        match Content::parse(&text) {
            Content::Signed(record) if record.holder() == Holder::Dead => {
                Some((record.predecessor(), record.manifest.to_owned()))
            }
            _ => None,
        }
    }

    /// Returns whether a supervisor may have left services: it is alive, or was killed, or its
    /// record is lost.
    pub fn may_be_orphaned(&self) -> bool {
        let text = fs::read_to_string(self.lock_path()).unwrap_or_default();
        !matches!(Content::parse(&text), Content::GivenBack)
    }

    /// Returns whether a supervisor is alive, or was killed and left services.
    pub fn has_left_something(&self) -> bool {
        let text = fs::read_to_string(self.lock_path()).unwrap_or_default();
        match Content::parse(&text) {
            Content::GivenBack => false,
            Content::Nothing => self.ledger_path().exists(),
            Content::Signed(_) => true,
        }
    }

    /// Creates the directory, readable by its owner only, and takes the lock. The caller signs the
    /// lock next. Blocks for at most [`LOCK_TIMEOUT`].
    pub fn lock(&self) -> Result<Lock, Failure> {
        self.prepare()?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            let timeout = if Instant::now() < deadline {
                Timeout::Pending
            } else {
                Timeout::Expired
            };
            match self.try_lock(timeout)? {
                Try::Taken(lock) => return Ok(lock),
                Try::Held(failure) => return Err(failure),
                Try::Later if timeout == Timeout::Pending => thread::sleep(LOCK_INTERVAL),
                Try::Later => return Err(self.held("another supervisor is starting")),
            }
        }
    }

    /// Takes the lock if that is possible now.
    pub fn try_lock(&self, timeout: Timeout) -> Result<Try, Failure> {
        let cannot = |error: io::Error| self.cannot_write("lock", &error);
        let guard_path = self.path.join("lock-guard");
        let guard = lock_file::open(&guard_path).map_err(cannot)?;
        let path = self.lock_path();
        match guard.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(Try::Later),
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
            Ok(()) if lock_file::is_at(&guard_path, &guard).map_err(cannot)? => {}
            Ok(()) => return Ok(Try::Later),
        }
        let (mut file, _) = lock_file::open_repaired(&path).map_err(cannot)?;
        let mut remark = None;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
            Err(TryLockError::WouldBlock) => {
                let text = read(&file);
                let content = Content::parse(&text);
                let is_dead = match &content {
                    Content::Signed(record) => match record.holder() {
                        Holder::Dead => true,
                        Holder::Lives | Holder::Unknown => {
                            let Record { pid, manifest, .. } = record;
                            let who = format!("mainstay (pid {pid}) supervises {manifest}");
                            return Ok(Try::Held(self.held(&who)));
                        }
                    },
                    Content::Nothing | Content::GivenBack => false,
                };
                // A child that a dead supervisor was starting holds the lock until it executes its
                // program.
                if !is_dead && timeout == Timeout::Pending {
                    return Ok(Try::Later);
                }
                if cfg!(windows) {
                    return match timeout {
                        Timeout::Pending => Ok(Try::Later),
                        Timeout::Expired => {
                            Ok(Try::Held(self.held("an unknown process holds its lock")))
                        }
                    };
                }
                file = lock_file::replace(&path, text.as_bytes()).map_err(cannot)?;
                file.try_lock().map_err(|error| cannot(error.into()))?;
                let path = path.display();
                remark = Some(format!(
                    "{path} was locked by a process that is not its supervisor and has been replaced"
                ));
            }
        }
        if !lock_file::is_at(&path, &file).map_err(cannot)? {
            return Ok(Try::Later);
        }
        self.claim(file, &path, remark).map(Try::Taken)
    }

    /// Writes the first record of this process, and keeps the markers of the last holder.
    fn claim(&self, file: File, path: &Path, remark: Option<String>) -> Result<Lock, Failure> {
        let before = read(&file);
        let mut manifest = "nothing yet";
        let left = match Content::parse(&before) {
            Content::Nothing => Left::Unknown,
            Content::GivenBack => Left::Nothing,
            Content::Signed(record) => {
                manifest = record.manifest;
                Left::Services(record.predecessor())
            }
        };
        let orphan_markers = match &left {
            Left::Services(predecessor) => &predecessor.orphan_markers[..],
            Left::Nothing | Left::Unknown => &[],
        };
        let text = record(manifest, orphan_markers);
        let lock = Lock {
            file,
            path: path.to_owned(),
            text,
            before: Some(before),
            left,
            remark,
        };
        lock.rewrite()
            .map_err(|error| self.cannot_write("write the lock of", &error))?;
        Ok(lock)
    }

    /// Returns the failure of a process that cannot supervise from here because the directory is in
    /// use.
    pub fn held(&self, who: &str) -> Failure {
        let place = self.path.display();
        Failure::new(
            Code::Busy,
            format!("state directory {place} is in use: {who}"),
        )
        .hint("use the running supervisor (`mainstay status`), or choose another directory: --state-dir DIR")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (mainstay_testkit::Sandbox, StateDir) {
        let sandbox = mainstay_testkit::Sandbox::new();
        let state = StateDir::locate(Some(sandbox.state_dir())).expect("a place");
        (sandbox, state)
    }

    #[test]
    fn an_unsigned_lock_says_again_what_it_said() {
        let (_sandbox, state) = place();
        let lock = state.lock().expect("nobody has it");
        assert!(matches!(lock.left, Left::Unknown), "{lock:?}");
        drop(lock);
        assert!(!state.has_left_something() && state.may_be_orphaned());
        let mut lock = state.lock().expect("nobody has it");
        lock.sign("a.toml", ["instance x"]).expect("written");
        assert_eq!(lock.hold().expect("it is there"), Hold::Intact);
        drop(lock);
        for _ in 0..2 {
            let lock = state.lock().expect("nobody has it");
            let Left::Services(left) = &lock.left else {
                panic!("{lock:?}");
            };
            assert_eq!(left.orphan_markers, ["instance x"]);
            assert_eq!(left.pid, Some(std::process::id()));
        }
        state.lock().expect("nobody has it").give_back();
        assert!(!state.may_be_orphaned());
        let lock = state.lock().expect("nobody has it");
        assert!(matches!(lock.left, Left::Nothing), "{lock:?}");
    }

    /// The account of a service can put anything in the place of its host's lock.
    #[cfg(unix)]
    #[test]
    fn a_pipe_in_place_of_the_lock_names_no_holder() {
        let (_sandbox, state) = place();
        fs::create_dir_all(state.path()).expect("created");
        mainstay_testkit::make_pipe(&state.lock_path());
        assert_eq!(state.holder(), None);
    }

    #[test]
    fn a_record_of_earlier_versions_is_read() {
        let Content::Signed(record) = Content::parse("17\nweb.toml\ncgroup /x\n\nold rest\n")
        else {
            panic!("it is signed");
        };
        assert_eq!((record.pid, record.birth), (17, None));
        assert_eq!(
            (record.manifest, &record.orphan_markers[..]),
            ("web.toml", &["cgroup /x"][..])
        );
        for text in ["nonsense\n", ""] {
            assert!(matches!(Content::parse(text), Content::Nothing), "{text:?}");
        }
        assert!(matches!(Content::parse(GIVEN_BACK), Content::GivenBack));
        assert!(matches!(Content::parse("\n17\n"), Content::GivenBack));
    }
}
