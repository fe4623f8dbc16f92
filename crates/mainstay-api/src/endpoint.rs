//! The control socket's place: a Unix socket in the state directory, or a named pipe on Windows.
//! Both modules define the same names.

use std::path::Path;

#[cfg(unix)]
pub use self::unix::{Listener, Place, connect, connect_as_viewer, listener, place};
#[cfg(windows)]
pub use self::windows::{Listener, Place, connect, connect_as_viewer, listener, place};
/// A client's end of a connection.
#[cfg(unix)]
pub type Stream = tokio::net::UnixStream;
/// A client's end of a connection.
#[cfg(windows)]
pub type Stream = tokio::net::windows::named_pipe::NamedPipeClient;

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::io;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::{Path, PathBuf};

    use tokio::net::{UnixListener, UnixStream};

    /// Accepts connections of this user. No other account can enter the directory, or connect to
    /// the socket, unless a group is [admitted](Listener::admit).
    pub struct Listener {
        socket: UnixListener,
        path: PathBuf,
        place: Place,
    }

    /// The identity of a socket's file: its device and inode number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Place(u64, u64);

    /// Returns the identity of the file that is in the place of the control socket now.
    pub fn place(state_dir: &Path) -> io::Result<Place> {
        let found = fs::symlink_metadata(super::path(state_dir))?;
        Ok(Place(found.dev(), found.ino()))
    }

    impl Listener {
        /// Binds the control socket. The caller holds the state directory's lock, so an existing
        /// socket belongs to a dead supervisor.
        pub fn bind(state_dir: &Path) -> io::Result<Self> {
            let path = super::path(state_dir);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let socket = super::short(&path, |short| UnixListener::bind(short))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            let place = place(state_dir)?;
            Ok(Self {
                socket,
                path,
                place,
            })
        }

        /// Lets the members of a group connect.
        pub fn admit(&self, group: u32) -> io::Result<()> {
            std::os::unix::fs::chown(&self.path, None, Some(group))?;
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o660))
        }

        /// Returns the file's identity, which shows whether the socket is still in its place.
        pub fn place(&self) -> Place {
            self.place
        }

        /// Returns the next connection. Cancel-safe.
        pub async fn accept(&mut self) -> io::Result<UnixStream> {
            self.socket.accept().await.map(|(stream, _)| stream)
        }
    }

    impl Drop for Listener {
        fn drop(&mut self) {
            // A socket file that stays is recognised as stale, as nobody listens on it. A file that
            // has replaced it is not ours.
            let dir = self.path.parent().map(place);
            if dir.is_some_and(|found| found.is_ok_and(|place| place == self.place)) {
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    /// Connects to the supervisor of a state directory.
    ///
    /// # Errors
    /// `NotFound` if there never was a supervisor, `ConnectionRefused` if it is dead, `WouldBlock`
    /// if too many clients are waiting, [`Foreign`](super::Foreign) if another account listens
    /// there and must not be trusted.
    pub async fn connect(state_dir: &Path) -> io::Result<UnixStream> {
        connect_in(state_dir, |peer| is_delegated(state_dir, peer))
    }

    /// Connects to the socket of those who may only view. Whoever names a state directory wants to
    /// know what the supervisor of its owner reports.
    ///
    /// # Errors
    /// As for [`connect`], and if there is no such socket.
    pub async fn connect_as_viewer(state_dir: &Path) -> io::Result<UnixStream> {
        let dir = mainstay_core::layout::viewers_dir(state_dir);
        let owner = fs::metadata(&dir)?.uid();
        connect_in(&dir, |peer| peer == owner)
    }

    fn connect_in(dir: &Path, is_trusted: impl FnOnce(u32) -> bool) -> io::Result<UnixStream> {
        let connect = |short: &Path| Ok(mainstay_sys::connect_unix(short)?);
        let stream = super::short(&super::path(dir), connect)?;
        let stream = UnixStream::from_std(stream.into())?;
        let peer = stream.peer_cred()?;
        // A program that a supervisor was about to start may hold the dead supervisor's descriptors
        // for a moment.
        if peer
            .pid()
            .is_some_and(|pid| pid > 0 && mainstay_sys::is_dead(pid.unsigned_abs()))
        {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let peer = peer.uid();
        if peer == 0 || peer == mainstay_sys::current_uid() || is_trusted(peer) {
            Ok(stream)
        } else {
            Err(io::Error::other(super::Foreign {
                owner: mainstay_sys::trust::user(peer),
            }))
        }
    }

    /// Returns whether this is the place of an installed service (`STATE/installed/NAME/state`)
    /// whose manager was configured by a trusted account to run it as this user.
    fn is_delegated(state_dir: &Path, uid: u32) -> bool {
        let place = mainstay_core::layout::installed_place(state_dir);
        place.is_some_and(|place| matches!(mainstay_sys::trust::exposure(place), Ok(None)))
            && fs::metadata(state_dir).is_ok_and(|found| found.uid() == uid)
    }

    /// Returns the process that listens on the socket, if any, and its process ID, if known.
    #[cfg(target_os = "linux")]
    pub fn listener(state_dir: &Path) -> Option<Option<u32>> {
        let probe = |short: &Path| Ok(mainstay_sys::probe_unix(short));
        match super::short(&super::path(state_dir), probe).ok()? {
            // A program that a supervisor was about to start may hold the dead supervisor's
            // descriptors for a moment.
            Ok(pid) => (!mainstay_sys::is_dead(pid?)).then_some(pid),
            // A process listens, and its queue is full.
            Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => Some(None),
            Err(_) => None,
        }
    }

    /// Always `None`: only the lock shows this here.
    #[cfg(not(target_os = "linux"))]
    pub fn listener(_state_dir: &Path) -> Option<Option<u32>> {
        None
    }
}

/// The error for a control socket that belongs to another account.
#[derive(Debug)]
pub struct Foreign {
    /// The name of the account.
    pub owner: String,
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "its socket belongs to {}", self.owner)
    }
}

impl std::error::Error for Foreign {}

/// Opens the state directory.
#[cfg(unix)]
pub fn open_dir(state_dir: &Path) -> std::io::Result<std::fs::File> {
    std::fs::File::open(state_dir)
}

/// Opens the null device. Windows does not open directories like files, and a directory with an
/// open file in it cannot be removed.
#[cfg(windows)]
pub fn open_dir(_state_dir: &Path) -> std::io::Result<std::fs::File> {
    mainstay_sys::null()
}

/// Removes the socket of a dead supervisor. The caller holds the state directory's lock.
pub fn remove_stale(state_dir: &Path) {
    #[cfg(unix)]
    // If the file stays, it is recognised as stale.
    let _ = std::fs::remove_file(path(state_dir));
    #[cfg(windows)]
    let _: &Path = state_dir; // A pipe goes with its server.
}

/// Returns the path of the Unix socket.
pub fn path(state_dir: &Path) -> std::path::PathBuf {
    state_dir.join("control.sock")
}

/// Calls `with` with a name for `path` that fits into `sockaddr_un` (108 bytes, unix(7)). Longer
/// paths go through `/proc/self/fd`.
#[cfg(unix)]
fn short<T>(path: &Path, with: impl FnOnce(&Path) -> std::io::Result<T>) -> std::io::Result<T> {
    use std::os::fd::AsRawFd as _;
    const LONGEST: usize = 100;
    if path.as_os_str().len() <= LONGEST || !cfg!(target_os = "linux") {
        return with(path);
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return with(path);
    };
    let dir = std::fs::File::open(dir)?;
    with(&Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}

#[cfg(windows)]
mod windows {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use sha2::{Digest as _, Sha256};
    use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeClient, NamedPipeServer};
    use windows_sys::Win32::Foundation::ERROR_PIPE_BUSY;

    use mainstay_sys as sys;
    use mainstay_sys::private::write_private;

    /// The number of attempts of a client to get an instance of the pipe, and the pause between
    /// them.
    const TRIES: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(20);

    /// Accepts connections of this user, administrators and the system, from this machine.
    pub struct Listener {
        name: String,
        next: NamedPipeServer,
        pid_path: PathBuf,
    }

    impl Listener {
        /// Creates the pipe. Fails if another process has the name. The caller holds the state
        /// directory's lock.
        pub fn bind(state_dir: &Path) -> io::Result<Self> {
            let name = name(state_dir)?;
            let next = sys::create_pipe(&name, sys::Instance::First)?;
            let pid_path = pid_path(state_dir);
            write_private(&pid_path, std::process::id().to_string().as_bytes())?;
            Ok(Self {
                name,
                next,
                pid_path,
            })
        }

        /// Returns the next connection. Cancel-safe.
        pub async fn accept(&mut self) -> io::Result<NamedPipeServer> {
            self.next.connect().await?;
            let next = sys::create_pipe(&self.name, sys::Instance::Another)?;
            Ok(std::mem::replace(&mut self.next, next))
        }
    }

    impl Drop for Listener {
        fn drop(&mut self) {
            // A file that stays names a process that does not serve the pipe.
            let _ = std::fs::remove_file(&self.pid_path);
        }
    }

    /// Fails: the pipe is open to this user and administrators only.
    ///
    /// # Errors
    /// Always `NotFound`.
    pub async fn connect_as_viewer(_state_dir: &Path) -> io::Result<NamedPipeClient> {
        Err(io::ErrorKind::NotFound.into())
    }

    /// The identity of the pipe. A pipe has no file that could be removed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Place;

    /// Returns the identity of the pipe.
    #[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
    pub fn place(_state_dir: &Path) -> io::Result<Place> {
        Ok(Place)
    }

    impl Listener {
        /// Returns the identity of the pipe.
        #[expect(clippy::unused_self, reason = "the same shape on every system")]
        pub fn place(&self) -> Place {
            Place
        }

        /// Fails: groups cannot be admitted.
        #[expect(clippy::unused_self, reason = "the same shape on every system")]
        pub fn admit(&self, _group: u32) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Always `None`: only the lock shows this here.
    pub fn listener(_state_dir: &Path) -> Option<Option<u32>> {
        None
    }

    /// Connects to the supervisor of a state directory.
    ///
    /// # Errors
    /// `NotFound` if no supervisor is alive, `WouldBlock` if too many clients are waiting,
    /// `PermissionDenied` if the pipe belongs to another process than this state directory's
    /// supervisor.
    pub async fn connect(state_dir: &Path) -> io::Result<NamedPipeClient> {
        let name = name(state_dir)?;
        let mut tries = 0..TRIES;
        let pipe = loop {
            match ClientOptions::new().open(&name) {
                // All instances are in use, or the next one is being created.
                Err(error)
                    if error.raw_os_error() == Some(ERROR_PIPE_BUSY.cast_signed())
                        && tries.next().is_some() =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) if error.raw_os_error() == Some(ERROR_PIPE_BUSY.cast_signed()) => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                opened => break opened?,
            }
        };
        // Any process may create a pipe of that name, but only accounts with write access to the
        // directory can record the supervisor's process ID in it.
        let expected = std::fs::read_to_string(pid_path(state_dir))?;
        let server = sys::pipe_server(&pipe)?;
        if expected.trim().parse() == Ok(server) {
            Ok(pipe)
        } else {
            Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("its pipe belongs to process {server}, its supervisor is {expected}"),
            ))
        }
    }

    fn pid_path(state_dir: &Path) -> PathBuf {
        state_dir.join("control.pid")
    }

    /// Returns the pipe's name, a hash of the directory's canonical path. Pipes have one flat
    /// namespace, and their names are limited to 256 characters.
    pub(super) fn name(state_dir: &Path) -> io::Result<String> {
        let place = std::fs::canonicalize(state_dir)?;
        let digest = Sha256::digest(place.to_string_lossy().to_lowercase().as_bytes());
        let id: String = digest
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(format!(r"\\.\pipe\mainstay-{id}"))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn directories_have_pipes_of_their_own() {
            let dir = std::env::temp_dir().join(format!("mainstay-pipes-{}", std::process::id()));
            let names = ["a-b", "a b", "a_b", &"x".repeat(120)].map(|name| {
                let dir = dir.join(name).join("y".repeat(100));
                std::fs::create_dir_all(&dir).unwrap();
                let upper = dir.to_string_lossy().to_uppercase();
                let pipe = name_of(&dir);
                assert_eq!(name_of(Path::new(&upper)), pipe, "{name}");
                assert_eq!(name_of(&dir.join("..").join("y".repeat(100))), pipe);
                assert!(pipe.len() < 64, "{pipe}");
                pipe
            });
            let different: std::collections::BTreeSet<_> = names.iter().collect();
            assert_eq!(different.len(), names.len(), "{names:?}");
            std::fs::remove_dir_all(&dir).unwrap();
        }

        fn name_of(dir: &Path) -> String {
            name(dir).unwrap()
        }
    }
}
