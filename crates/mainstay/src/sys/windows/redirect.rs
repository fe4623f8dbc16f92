//! Where this process writes what it says.

use std::io::{self, PipeWriter};
use std::os::windows::io::AsRawHandle as _;
use std::path::PathBuf;

use windows_sys::Win32::Foundation::{FALSE, HANDLE};
use windows_sys::Win32::System::Console::{
    GetStdHandle, STD_ERROR_HANDLE, STD_HANDLE, STD_OUTPUT_HANDLE, SetStdHandle,
};

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
pub(crate) fn default_log_dir(name: &str) -> Option<PathBuf> {
    let data = std::env::var_os("ProgramData").filter(|dir| !dir.is_empty())?;
    Some(PathBuf::from(data).join(name).join("logs"))
}
