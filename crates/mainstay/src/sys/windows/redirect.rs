//! Redirection of this process's standard output and standard error.

use std::ffi::OsString;
use std::io::{self, PipeWriter};
use std::os::windows::ffi::OsStringExt as _;
use std::os::windows::io::AsRawHandle as _;
use std::path::PathBuf;
use std::ptr;

use windows_sys::Win32::Foundation::{FALSE, HANDLE};
use windows_sys::Win32::System::Console::{
    GetStdHandle, STD_ERROR_HANDLE, STD_HANDLE, STD_OUTPUT_HANDLE, SetStdHandle,
};
use windows_sys::Win32::System::Registry as registry;

use super::wide;

/// The previous standard output and standard error, which are restored on drop.
pub(crate) struct Redirected([Stream; 2]);

struct Stream {
    kind: STD_HANDLE,
    before: HANDLE,
    /// The pipe that replaces the stream, kept open until the stream is restored.
    _end: PipeWriter,
}

// SAFETY: a handle belongs to the process, not to a thread.
#[expect(unsafe_code, reason = "a number in the shape of a pointer")]
unsafe impl Send for Stream {}

/// Redirects standard output and standard error of the whole process to these pipes, for code that
/// uses `GetStdHandle`, as std does.
pub(crate) fn redirect(stdout: PipeWriter, stderr: PipeWriter) -> io::Result<Redirected> {
    Ok(Redirected([
        Stream::put(STD_OUTPUT_HANDLE, stdout)?,
        Stream::put(STD_ERROR_HANDLE, stderr)?,
    ]))
}

impl Stream {
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn put(kind: STD_HANDLE, end: PipeWriter) -> io::Result<Self> {
        // SAFETY: it takes a number. The returned handle is not owned and not closed here.
        let before = unsafe { GetStdHandle(kind) };
        // SAFETY: the handle is open and stays open until the stream is restored.
        match unsafe { SetStdHandle(kind, end.as_raw_handle()) } {
            FALSE => Err(io::Error::last_os_error()),
            _ => Ok(Self {
                kind,
                before,
                _end: end,
            }),
        }
    }
}

impl Drop for Redirected {
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn drop(&mut self) {
        for Stream { kind, before, .. } in &self.0 {
            // SAFETY: it is the previous stream; the end of the pipe is closed after this.
            unsafe { SetStdHandle(*kind, *before) };
        }
    }
}

/// Returns the log directory of a service whose manager keeps no output: `%ProgramData%\NAME\logs`.
///
/// The variable is read from the registry. The environment of a service depends on the Service
/// Control Manager: Wine's contains another directory under that name.
#[expect(unsafe_code, reason = "the system's own interface")]
pub(crate) fn default_log_dir(name: &str) -> io::Result<PathBuf> {
    let key = wide(r"SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProfileList");
    let value = wide("ProgramData");
    let mut buffer = [0_u16; 1024];
    let mut size = u32::try_from(size_of_val(&buffer)).unwrap_or(u32::MAX);
    // SAFETY: the strings end with a NUL; the buffer has the given size.
    let error = unsafe {
        registry::RegGetValueW(
            registry::HKEY_LOCAL_MACHINE,
            key.as_ptr(),
            value.as_ptr(),
            // Expands the variables in the value.
            registry::RRF_RT_REG_SZ,
            ptr::null_mut(),
            buffer.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error.cast_signed()));
    }
    let data = buffer.split(|unit| *unit == 0).next().unwrap_or_default();
    Ok(PathBuf::from(OsString::from_wide(data))
        .join(name)
        .join("logs"))
}
