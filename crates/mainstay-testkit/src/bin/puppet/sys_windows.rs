//! The steps that Windows supports. The others fail with a message.

use std::fs::File;
use std::io;
use std::os::windows::io::AsHandle;
use std::time::Duration;

use serde_json::{Map, Value};
use windows_sys::Win32::System::Console::SetConsoleCtrlHandler;

/// Returns stdout without std's line buffer, so that each write is a single system call.
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
    // SAFETY: no handler is passed; this only sets an attribute of the process.
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

/// Returns nothing: Windows has no equivalent of this state in every process.
pub(crate) fn inherited() -> io::Result<Map<String, Value>> {
    Ok(Map::new())
}

fn unsupported() -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// Fails: Windows does not pass sockets to processes.
pub(crate) fn given(_number: i32) -> std::io::Result<std::net::TcpListener> {
    Err(std::io::ErrorKind::Unsupported.into())
}

pub(crate) fn accept_until_term(
    _listener: &std::net::TcpListener,
    _each: impl FnMut(std::net::TcpStream),
) -> io::Result<()> {
    unsupported()
}
