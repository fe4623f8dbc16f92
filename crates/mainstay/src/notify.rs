//! Tell the supervisor how the service is: ready, its status in words, that it needs more time.
//!
//! Speaks sd_notify(3) on `NOTIFY_SOCKET`, which systemd and `mainstay run` (with `start.ready.notify`) set. Everything here returns
//! `Ok(false)` where nobody listens, so a program may call it wherever it runs. Calls do not block: the datagram is queued by the
//! kernel or refused. On systems without Unix datagram sockets (Windows) nobody ever listens.
//!
//! Supervisors that wait for a newline on a descriptor (s6, dinit, runit as we set it up) name it in [`READY_FD`]; [`ready`] writes that and
//! closes it, the first time that it is called.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! // after the listening socket is open:
//! mainstay::notify::ready()?;
//! mainstay::notify::status("serving 3 tenants")?;
//! # Ok(())
//! # }
//! ```

use std::io;
use std::time::Duration;

/// The variable with the number of the descriptor on which a supervisor waits for readiness, at least 3 and open for writing: a pipe, or a
/// file if [`READY_PID`] is set, too. A number that stands for anything else is left alone.
pub const READY_FD: &str = "MAINSTAY_READY_FD";
/// The variable with the process that is meant by [`READY_FD`], for its children inherit both.
pub const READY_PID: &str = "MAINSTAY_READY_PID";

/// The service is ready: whoever waits for it may go on. `Ok(true)` if somebody was told.
///
/// # Errors
/// Where a socket or a descriptor is named but cannot be reached.
pub fn ready() -> io::Result<bool> {
    let (written, sent) = (write_ready(), send("READY=1"));
    Ok(written? | sent?)
}

/// What it is doing now, in one line; shown by `status`. Line breaks become spaces.
///
/// # Errors
/// Where a socket is named but cannot be reached.
pub fn status(text: &str) -> io::Result<bool> {
    send(&format!("STATUS={}", text.replace(['\n', '\r'], " ")))
}

/// It has begun to stop.
///
/// # Errors
/// Where a socket is named but cannot be reached.
pub fn stopping() -> io::Result<bool> {
    send("STOPPING=1")
}

/// The start or stop under way takes this much longer, counted from now.
///
/// # Errors
/// Where a socket is named but cannot be reached.
pub fn extend_timeout(by: Duration) -> io::Result<bool> {
    send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()))
}

/// It is alive. To be said at least twice in each [`watchdog_interval`].
///
/// # Errors
/// Where a socket is named but cannot be reached.
pub fn alive() -> io::Result<bool> {
    send("WATCHDOG=1")
}

/// Within which time the manager wants to hear [`alive`], if it does (`WATCHDOG_USEC`, sd_watchdog_enabled(3)).
pub fn watchdog_interval() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let interval = number("WATCHDOG_USEC").filter(|interval| *interval > 0 && is_ours);
    interval.map(Duration::from_micros)
}

/// It reads its configuration again, which it began at this time of CLOCK_MONOTONIC; [`ready`] ends it (`Type=notify-reload`).
///
/// # Errors
/// Where a socket is named but cannot be reached.
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

/// `@name` is a name in the abstract namespace (unix(7), Linux).
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

#[cfg(unix)]
use crate::sys::write_ready;

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
