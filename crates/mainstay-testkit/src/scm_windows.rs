//! Service state as reported by the Service Control Manager.

use std::os::windows::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::ptr;
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::Win32::Security as security;
use windows_sys::Win32::Security::Authorization as authorization;
use windows_sys::Win32::System::Services as scm;

/// Returns the controls that a service currently accepts (`SERVICE_ACCEPT_…`), or `None` if there
/// is no such service.
pub fn controls_accepted(service: &str) -> Option<u32> {
    let name: Vec<u16> = service.encode_utf16().chain([0]).collect();
    // SAFETY: null selects this machine and its database.
    let manager =
        Handle(unsafe { scm::OpenSCManagerW(ptr::null(), ptr::null(), scm::SC_MANAGER_CONNECT) });
    if manager.0.is_null() {
        return None;
    }
    // SAFETY: the manager is open, and the name ends with a NUL.
    let service =
        Handle(unsafe { scm::OpenServiceW(manager.0, name.as_ptr(), scm::SERVICE_QUERY_STATUS) });
    if service.0.is_null() {
        return None;
    }
    let mut status = scm::SERVICE_STATUS::default();
    // SAFETY: the service is open, and the status is valid.
    let is_told = unsafe { scm::QueryServiceStatus(service.0, &raw mut status) } != 0;
    is_told.then_some(status.dwControlsAccepted)
}

/// Returns whether this is Wine, which stores or ignores much of what Windows acts on.
pub fn is_wine() -> bool {
    Path::new(r"C:\windows\system32\winecfg.exe").exists()
}

/// Runs a command. Wine occasionally loses a process at its start when the machine is busy, and
/// reports an internal error; such a start is repeated for this long.
///
/// # Panics
/// If the command does not start.
pub fn output(command: &mut Command, limit: Duration) -> Output {
    const ERROR_INTERNAL_ERROR: i32 = 1359;
    let until = Instant::now() + limit;
    loop {
        match command.output() {
            Err(e) if e.raw_os_error() == Some(ERROR_INTERNAL_ERROR) && Instant::now() < until => {}
            done => return done.expect("it starts"),
        }
    }
}

/// Grants everyone full access to a file, or to a directory and what is created in it.
///
/// # Panics
/// If the system refuses.
pub fn open_to_everyone(path: &Path) {
    let sddl: Vec<u16> = "D:P(A;OICI;FA;;;WD)".encode_utf16().chain([0]).collect();
    let path: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
    let mut descriptor = ptr::null_mut();
    // SAFETY: the texts end with a NUL; the descriptor is freed after its use.
    let done = unsafe {
        authorization::ConvertStringSecurityDescriptorToSecurityDescriptorW(
            sddl.as_ptr(),
            authorization::SDDL_REVISION_1,
            &raw mut descriptor,
            ptr::null_mut(),
        ) != 0
            && security::SetFileSecurityW(
                path.as_ptr(),
                security::DACL_SECURITY_INFORMATION,
                descriptor,
            ) != 0
    };
    // SAFETY: the system allocated it for this process; null is allowed.
    unsafe { LocalFree(descriptor) };
    assert!(done, "{}", std::io::Error::last_os_error());
}

/// A service handle, closed on drop.
struct Handle(scm::SC_HANDLE);

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the handle is open and owned.
            unsafe { scm::CloseServiceHandle(self.0) };
        }
    }
}
