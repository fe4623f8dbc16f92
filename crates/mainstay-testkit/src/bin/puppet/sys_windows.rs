//! What of a puppet makes sense on Windows; the rest fails and says so.

use std::fs::File;
use std::io;
use std::os::windows::io::AsHandle;
use std::time::Duration;

use serde_json::{Map, Value};
use windows_sys::Win32::System::Console::SetConsoleCtrlHandler;

/// stdout without std's line buffer, so that one write is one write.
pub(crate) fn raw_stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_handle().try_clone_to_owned()?))
}

pub(crate) fn signal_self(_: &str) -> io::Result<()> {
    unsupported()
}

pub(crate) fn ignore(name: &str) -> io::Result<()> {
    if !name.eq_ignore_ascii_case("int") {
        return unsupported();
    }
    // SAFETY: no handler is ours; this only sets an attribute of the process.
    match unsafe { SetConsoleCtrlHandler(None, 1) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

pub(crate) fn on_term(_: i32, _: Duration) -> io::Result<()> {
    unsupported()
}

pub(crate) fn setsid() -> io::Result<()> {
    unsupported()
}

pub(crate) fn trace(_: i32) -> io::Result<()> {
    unsupported()
}

pub(crate) fn serve_unix(_: &str) -> io::Result<()> {
    unsupported()
}

pub(crate) fn notify(_: &str) -> io::Result<()> {
    unsupported()
}

/// Nothing that every process has on Windows.
pub(crate) fn inherited() -> io::Result<Map<String, Value>> {
    Ok(Map::new())
}

fn unsupported() -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// Windows passes no sockets on.
pub(crate) fn given(_number: i32) -> std::io::Result<std::net::TcpListener> {
    Err(std::io::ErrorKind::Unsupported.into())
}

pub(crate) fn accept_until_term(
    _listener: &std::net::TcpListener,
    _each: impl FnMut(std::net::TcpStream),
) -> io::Result<()> {
    unsupported()
}
