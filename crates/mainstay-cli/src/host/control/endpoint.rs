//! Where the control socket is: a Unix socket in the state directory, a named pipe on Windows. Same names on both.

use std::path::Path;

#[cfg(unix)]
pub(crate) use self::unix::{Listener, Place, connect, listener, place};
#[cfg(windows)]
pub(crate) use self::windows::{Listener, Place, connect, listener, place};
/// A client's end.
#[cfg(unix)]
pub(crate) type Stream = tokio::net::UnixStream;
/// A client's end.
#[cfg(windows)]
pub(crate) type Stream = tokio::net::windows::named_pipe::NamedPipeClient;

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::io;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::{Path, PathBuf};

    use tokio::net::{UnixListener, UnixStream};

    /// Accepts connections of this user, as nobody else may enter the directory.
    pub(crate) struct Listener {
        socket: UnixListener,
        path: PathBuf,
        place: Place,
    }

    /// Which file a socket is: its device and its number there.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Place(u64, u64);

    /// Of what is in the place of the control socket now.
    pub(crate) fn place(state_dir: &Path) -> io::Result<Place> {
        let found = fs::symlink_metadata(super::path(state_dir))?;
        Ok(Place(found.dev(), found.ino()))
    }

    impl Listener {
        /// Takes the place. The caller holds the state directory's lock, so a socket that is there belongs to the dead.
        pub(crate) fn bind(state_dir: &Path) -> io::Result<Self> {
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

        /// By which it is seen whether it is still in its place.
        pub(crate) fn place(&self) -> Place {
            self.place
        }

        /// The next connection. Cancel-safe.
        pub(crate) async fn accept(&mut self) -> io::Result<UnixStream> {
            self.socket.accept().await.map(|(stream, _)| stream)
        }
    }

    impl Drop for Listener {
        fn drop(&mut self) {
            // Whatever stays is recognised as stale: nobody listens. What came in its place is another's.
            let dir = self.path.parent().map(place);
            if dir.is_some_and(|found| found.is_ok_and(|place| place == self.place)) {
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    /// # Errors
    /// `NotFound` where no supervisor ever was, `ConnectionRefused` where it is dead, `WouldBlock` where too many wait for it,
    /// [`Foreign`](super::Foreign) where another account listens there: what it says is not to be believed.
    pub(crate) async fn connect(state_dir: &Path) -> io::Result<UnixStream> {
        let connect = |short: &Path| Ok(crate::host::sys::connect_unix(short)?);
        let stream = super::short(&super::path(state_dir), connect)?;
        let stream = UnixStream::from_std(stream.into())?;
        let peer = stream.peer_cred()?;
        // What a dead supervisor had open, a program that it was about to start may have for a moment.
        if peer
            .pid()
            .is_some_and(|pid| pid > 0 && crate::host::sys::is_dead(pid.unsigned_abs()))
        {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let peer = peer.uid();
        let is_trusted = peer == 0 || peer == rustix::process::geteuid().as_raw();
        match is_trusted || is_delegated(state_dir, peer) {
            true => Ok(stream),
            false => Err(io::Error::other(super::Foreign {
                owner: crate::trust::user(peer),
            })),
        }
    }

    /// Whether this is the place of an installed service that a manager runs as this user, by our own will: `STATE/installed/NAME/state`.
    fn is_delegated(state_dir: &Path, uid: u32) -> bool {
        let place = crate::state_dir::installed_place(state_dir);
        place.is_some_and(|place| matches!(crate::trust::exposure(place), Ok(None)))
            && fs::metadata(state_dir).is_ok_and(|found| found.uid() == uid)
    }

    /// The process that listens there, if one does; its pid, if that is known.
    #[cfg(target_os = "linux")]
    pub(crate) fn listener(state_dir: &Path) -> Option<Option<u32>> {
        use rustix::io::Errno;
        let probe = |short: &Path| Ok(crate::host::sys::probe_unix(short));
        match super::short(&super::path(state_dir), probe).ok()? {
            // What it had open, a program that it was about to start may have for a moment.
            Ok(pid) => (!crate::host::sys::is_dead(pid?)).then_some(pid),
            // Somebody listens, and many wait.
            Err(Errno::AGAIN) => Some(None),
            Err(_) => None,
        }
    }

    /// The lock has to tell.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn listener(_state_dir: &Path) -> Option<Option<u32>> {
        None
    }
}

/// A control socket is another account's.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) owner: String,
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "its socket belongs to {}", self.owner)
    }
}

impl std::error::Error for Foreign {}

/// The state directory itself.
#[cfg(unix)]
pub(crate) fn open_dir(state_dir: &Path) -> std::io::Result<std::fs::File> {
    std::fs::File::open(state_dir)
}

/// Windows opens no directories like files; nobody removes one with an open file in it.
#[cfg(windows)]
pub(crate) fn open_dir(_state_dir: &Path) -> std::io::Result<std::fs::File> {
    crate::host::sys::null()
}

/// Removes what a dead supervisor left there. The caller holds the state directory's lock.
pub(crate) fn remove_stale(state_dir: &Path) {
    #[cfg(unix)]
    // Where it stays, it is recognised as stale.
    let _ = std::fs::remove_file(path(state_dir));
    #[cfg(windows)]
    let _: &Path = state_dir; // A pipe goes with its server.
}

/// The socket of Unix.
pub(crate) fn path(state_dir: &Path) -> std::path::PathBuf {
    state_dir.join("control.sock")
}

/// Calls `with` with a name of `path` that fits `sockaddr_un` (108 bytes, unix(7)): through `/proc/self/fd` where the path is longer.
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

    use crate::host::sys;
    use crate::state_dir::write_private;

    /// How often, and how long after each other, a client tries to get one of the pipe's instances.
    const TRIES: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(20);

    /// Accepts connections of this user, administrators and the system, from this machine.
    pub(crate) struct Listener {
        name: String,
        next: NamedPipeServer,
        pid_path: PathBuf,
    }

    impl Listener {
        /// Takes the name; fails if somebody else has it. The caller holds the state directory's lock.
        pub(crate) fn bind(state_dir: &Path) -> io::Result<Self> {
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

        /// The next connection. Cancel-safe.
        pub(crate) async fn accept(&mut self) -> io::Result<NamedPipeServer> {
            self.next.connect().await?;
            let next = sys::create_pipe(&self.name, sys::Instance::Another)?;
            Ok(std::mem::replace(&mut self.next, next))
        }
    }

    impl Drop for Listener {
        fn drop(&mut self) {
            // Whatever stays names a process that serves no such pipe.
            let _ = std::fs::remove_file(&self.pid_path);
        }
    }

    /// A pipe has no file that could be taken from it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Place;

    #[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
    pub(crate) fn place(_state_dir: &Path) -> io::Result<Place> {
        Ok(Place)
    }

    impl Listener {
        #[expect(clippy::unused_self, reason = "the same shape on every system")]
        pub(crate) fn place(&self) -> Place {
            Place
        }
    }

    /// The lock has to tell.
    pub(crate) fn listener(_state_dir: &Path) -> Option<Option<u32>> {
        None
    }

    /// # Errors
    /// `NotFound` where no supervisor lives, `WouldBlock` where too many wait for it, `PermissionDenied` where another process than this state directory's supervisor has the pipe.
    pub(crate) async fn connect(state_dir: &Path) -> io::Result<NamedPipeClient> {
        let name = name(state_dir)?;
        let mut tries = 0..TRIES;
        let pipe = loop {
            match ClientOptions::new().open(&name) {
                // All instances are in use, or the next one is being made.
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
        // Anybody may make a pipe of that name, but only those who may write to the directory can say that it is its supervisor's.
        let expected = std::fs::read_to_string(pid_path(state_dir))?;
        let server = sys::pipe_server(&pipe)?;
        match expected.trim().parse() == Ok(server) {
            true => Ok(pipe),
            false => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("its pipe belongs to process {server}, its supervisor is {expected}"),
            )),
        }
    }

    fn pid_path(state_dir: &Path) -> PathBuf {
        state_dir.join("control.pid")
    }

    /// Pipes have one flat namespace, and their names a limit of 256 characters: a hash of the directory's one true path.
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
