//! Reports the service's status to its supervisor: readiness, a status text, timeout extensions.
//!
//! The functions send sd_notify(3) messages to `NOTIFY_SOCKET`, which systemd and `mainstay run`
//! (with `start.ready.notify`) set. They return `Ok(false)` if no supervisor listens, so a program
//! can call them in any environment. Calls do not block: the kernel queues the datagram or refuses
//! it. On systems without Unix datagram sockets (Windows), no supervisor ever listens.
//!
//! Supervisors that wait for a newline on a descriptor (s6, dinit, and runit as Mainstay configures
//! it) name it in [`READY_FD`]. The first call of [`ready`] writes the newline and closes the
//! descriptor.
//!
//! ```
//! use std::time::Duration;
//!
//! use mainstay::notify;
//!
//! # fn main() -> std::io::Result<()> {
//! // Before a migration that may take longer than the start timeout:
//! notify::extend_timeout(Duration::from_secs(120))?;
//! // When the listening socket is open:
//! notify::ready()?;
//! notify::status("serving 3 tenants")?;
//! // When the last request is answered:
//! notify::stopping()?;
//! # Ok(())
//! # }
//! ```

#[cfg(unix)]
mod descriptor;

#[cfg(unix)]
pub(crate) use descriptor::claim_ready_descriptor;
#[cfg(unix)]
use descriptor::write_ready;

use std::io;
use std::time::Duration;

/// The environment variable with the descriptor on which a supervisor waits for readiness. The
/// descriptor is at least 3 and open for writing: a pipe, or a file if [`READY_PID`] is also set.
/// Any other descriptor is left alone.
///
/// ```
/// let is_awaited = std::env::var_os(mainstay::notify::READY_FD).is_some();
/// ```
pub const READY_FD: &str = "MAINSTAY_READY_FD";
/// The environment variable with the ID of the process that [`READY_FD`] is meant for. Child
/// processes inherit both variables.
///
/// ```
/// use mainstay::notify::READY_PID;
///
/// let pid = std::process::id().to_string();
/// let is_meant = std::env::var(READY_PID).is_ok_and(|own| own == pid);
/// ```
pub const READY_PID: &str = "MAINSTAY_READY_PID";

/// Reports that the service is ready, so that services that depend on it can start. Returns
/// `Ok(true)` if a supervisor was notified.
///
/// # Errors
/// If a socket or a descriptor is set but cannot be reached.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// mainstay::notify::ready()?;
/// # Ok(())
/// # }
/// ```
pub fn ready() -> io::Result<bool> {
    let (written, sent) = (write_ready(), send("READY=1"));
    Ok(written? | sent?)
}

/// Reports the current activity in one line, which `status` shows. Line breaks become spaces.
///
/// # Errors
/// If a socket is set but cannot be reached.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// mainstay::notify::status("serving 3 tenants")?;
/// # Ok(())
/// # }
/// ```
pub fn status(text: &str) -> io::Result<bool> {
    send(&format!("STATUS={}", text.replace(['\n', '\r'], " ")))
}

/// Reports that the service is stopping.
///
/// # Errors
/// If a socket is set but cannot be reached.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// mainstay::notify::stopping()?;
/// # Ok(())
/// # }
/// ```
pub fn stopping() -> io::Result<bool> {
    send("STOPPING=1")
}

/// Extends the timeout of the start or stop in progress by this much, counted from now.
///
/// # Errors
/// If a socket is set but cannot be reached.
///
/// ```no_run
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// mainstay::notify::extend_timeout(Duration::from_secs(120))?;
/// # Ok(())
/// # }
/// ```
pub fn extend_timeout(by: Duration) -> io::Result<bool> {
    send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()))
}

/// Sends a watchdog keep-alive. Call it at least twice in each [`watchdog_interval`].
///
/// # Errors
/// If a socket is set but cannot be reached.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// mainstay::notify::alive()?;
/// # Ok(())
/// # }
/// ```
pub fn alive() -> io::Result<bool> {
    send("WATCHDOG=1")
}

/// Returns the interval within which the manager expects [`alive`], if the watchdog is enabled
/// (`WATCHDOG_USEC`, sd_watchdog_enabled(3)).
///
/// ```
/// use std::{io, thread};
///
/// fn watch() {
///     if let Some(interval) = mainstay::notify::watchdog_interval() {
///         thread::spawn(move || -> io::Result<()> {
///             loop {
///                 mainstay::notify::alive()?;
///                 thread::sleep(interval / 2);
///             }
///         });
///     }
/// }
/// # watch();
/// ```
pub fn watchdog_interval() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let interval = number("WATCHDOG_USEC").filter(|interval| *interval > 0 && is_ours);
    interval.map(Duration::from_micros)
}

/// Reports that the service is reloading its configuration. `since` is the time of CLOCK_MONOTONIC
/// at which the reload began. [`ready`] ends the reload (`Type=notify-reload`).
///
/// # Errors
/// If a socket is set but cannot be reached.
///
/// ```no_run
/// use std::time::Duration;
///
/// /// Takes the time of CLOCK_MONOTONIC.
/// fn reload(now: Duration) -> std::io::Result<()> {
///     mainstay::notify::reloading(now)?;
///     // The configuration is read again.
///     mainstay::notify::ready()?;
///     Ok(())
/// }
/// ```
pub fn reloading(since: Duration) -> io::Result<bool> {
    send(&format!(
        "RELOADING=1\nMONOTONIC_USEC={}",
        since.as_micros()
    ))
}

#[cfg(unix)]
fn send(message: &str) -> io::Result<bool> {
    use std::os::unix::net::UnixDatagram;
    let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())
    else {
        return Ok(false);
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let sent = match abstract_name(&address) {
        Some(name) => send_abstract(&socket, message, name)?,
        None => socket.send_to(message.as_bytes(), address)?,
    };
    Ok(sent == message.len())
}

/// Returns the name in the abstract namespace if the address is `@name` (unix(7), Linux).
#[cfg(unix)]
fn abstract_name(address: &std::ffi::OsStr) -> Option<&[u8]> {
    std::os::unix::ffi::OsStrExt::as_bytes(address).strip_prefix(b"@")
}

#[cfg(target_os = "linux")]
fn send_abstract(
    socket: &std::os::unix::net::UnixDatagram,
    message: &str,
    name: &[u8],
) -> io::Result<usize> {
    use std::os::linux::net::SocketAddrExt as _;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    socket.send_to_addr(message.as_bytes(), &address)
}

#[cfg(all(unix, not(target_os = "linux")))]
fn send_abstract(
    _socket: &std::os::unix::net::UnixDatagram,
    _message: &str,
    _name: &[u8],
) -> io::Result<usize> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "abstract sockets exist on Linux only",
    ))
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
fn write_ready() -> io::Result<bool> {
    Ok(false)
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
fn send(_message: &str) -> io::Result<bool> {
    Ok(false)
}
