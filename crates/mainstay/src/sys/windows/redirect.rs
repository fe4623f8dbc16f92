//! Where this process writes what it says.

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

/// Standard output and standard error as they were. Dropped, they are that again.
pub(crate) struct Redirected([Stream; 2]);

struct Stream {
    kind: STD_HANDLE,
    before: HANDLE,
    /// Open for as long as it stands for the stream.
    _end: PipeWriter,
}

// SAFETY: a handle belongs to the process, not to a thread.
#[expect(unsafe_code, reason = "a number in the shape of a pointer")]
unsafe impl Send for Stream {}

/// Has standard output and standard error of the whole process go there, as far as it asks for them by `GetStdHandle`, as std does.
pub(crate) fn redirect(stdout: PipeWriter, stderr: PipeWriter) -> io::Result<Redirected> {
    Ok(Redirected([
        Stream::put(STD_OUTPUT_HANDLE, stdout)?,
        Stream::put(STD_ERROR_HANDLE, stderr)?,
    ]))
}

impl Stream {
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn put(kind: STD_HANDLE, end: PipeWriter) -> io::Result<Self> {
        // SAFETY: takes a number; what it returns is not ours, and not closed.
        let before = unsafe { GetStdHandle(kind) };
        // SAFETY: the handle is open, and stays so until the stream is given back.
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
            // SAFETY: it was the stream before; the pipe's end is closed after this.
            unsafe { SetStdHandle(*kind, *before) };
        }
    }
}

/// The directory for logs of a service whose manager keeps no output: `%ProgramData%\NAME\logs`.
///
/// The registry is the source of that variable. The environment of a service is the Service Control Manager's choice: Wine's gives
/// another directory by that name.
#[expect(unsafe_code, reason = "the system's own interface")]
pub(crate) fn default_log_dir(name: &str) -> io::Result<PathBuf> {
    let key = wide(r"SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProfileList");
    let value = wide("ProgramData");
    let mut buffer = [0_u16; 1024];
    let mut size = u32::try_from(size_of_val(&buffer)).unwrap_or(u32::MAX);
    // SAFETY: the strings end with a NUL; the buffer is as large as is said.
    let error = unsafe {
        registry::RegGetValueW(
            registry::HKEY_LOCAL_MACHINE,
            key.as_ptr(),
            value.as_ptr(),
            // Variables in it are expanded.
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
