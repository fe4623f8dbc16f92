//! Where the control socket is: a Unix socket in the state directory, a named pipe on Windows. Same names on both.

use std::path::Path;

#[cfg(unix)]
pub(crate) use self::unix::{Listener, connect};
#[cfg(windows)]
pub(crate) use self::windows::{Listener, connect};

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::io;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    use tokio::net::{UnixListener, UnixStream};

    /// Accepts connections of this user, as nobody else may enter the directory.
    pub(crate) struct Listener {
        socket: UnixListener,
        path: PathBuf,
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
            Ok(Self { socket, path })
        }

        /// The next connection. Cancel-safe.
        pub(crate) async fn accept(&mut self) -> io::Result<UnixStream> {
            self.socket.accept().await.map(|(stream, _)| stream)
        }
    }

    impl Drop for Listener {
        fn drop(&mut self) {
            // Whatever stays is recognised as stale: nobody listens.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// # Errors
    /// `NotFound` where no supervisor ever was, `ConnectionRefused` where it is dead, `WouldBlock` where too many wait for it.
    pub(crate) async fn connect(state_dir: &Path) -> io::Result<UnixStream> {
        let connect = |short: &Path| Ok(crate::host::sys::connect_unix(short)?);
        let stream = super::short(&super::path(state_dir), connect)?;
        UnixStream::from_std(stream.into())
    }
}

/// Removes what a dead supervisor left there. The caller holds the state directory's lock.
pub(crate) fn remove_stale(state_dir: &Path) {
    #[cfg(unix)]
    // Where it stays, it is recognised as stale.
    let _ = std::fs::remove_file(path(state_dir));
    #[cfg(windows)]
    let _: &Path = state_dir; // A pipe goes with its server.
}

#[cfg(unix)]
fn path(state_dir: &Path) -> std::path::PathBuf {
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
    use std::path::Path;

    use tokio::net::windows::named_pipe::{
        ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions,
    };

    /// "All pipe instances are busy."
    const ERROR_PIPE_BUSY: i32 = 231;

    /// Accepts connections from this machine; the default access list lets only this user and administrators write.
    pub(crate) struct Listener {
        name: String,
        next: NamedPipeServer,
    }

    impl Listener {
        /// Takes the name; fails if somebody else has it.
        pub(crate) fn bind(state_dir: &Path) -> io::Result<Self> {
            let name = super::pipe_name(state_dir);
            let next = ServerOptions::new()
                .first_pipe_instance(true)
                .reject_remote_clients(true)
                .create(&name)?;
            Ok(Self { name, next })
        }

        /// The next connection. Cancel-safe.
        pub(crate) async fn accept(&mut self) -> io::Result<NamedPipeServer> {
            self.next.connect().await?;
            let next = ServerOptions::new()
                .reject_remote_clients(true)
                .create(&self.name)?;
            Ok(std::mem::replace(&mut self.next, next))
        }
    }

    /// # Errors
    /// `NotFound` where no supervisor lives, `WouldBlock` where too many wait for it.
    #[expect(clippy::unused_async, reason = "the same shape on every system")]
    pub(crate) async fn connect(state_dir: &Path) -> io::Result<NamedPipeClient> {
        let client = ClientOptions::new().open(super::pipe_name(state_dir));
        client.map_err(|error| match error.raw_os_error() {
            Some(ERROR_PIPE_BUSY) => io::ErrorKind::WouldBlock.into(),
            _ => error,
        })
    }
}

/// Pipes have one flat namespace: the state directory's path, without what a name may not hold.
#[cfg(windows)]
fn pipe_name(state_dir: &Path) -> String {
    let place = state_dir.to_string_lossy().to_lowercase();
    let place: String = place
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { '-' })
        .collect();
    format!(r"\\.\pipe\mainstay-{place}")
}
