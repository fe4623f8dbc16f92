//! The Service Control Manager's view of a service.

use std::ptr;

use windows_sys::Win32::System::Services as scm;

/// The controls that a service accepts now, `SERVICE_ACCEPT_…`; `None` where there is no such service.
pub fn controls_accepted(service: &str) -> Option<u32> {
    let name: Vec<u16> = service.encode_utf16().chain([0]).collect();
    // SAFETY: null is this machine and its database.
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
    // SAFETY: the service is open, and the status is there.
    let is_told = unsafe { scm::QueryServiceStatus(service.0, &raw mut status) } != 0;
    is_told.then_some(status.dwControlsAccepted)
}

/// Closed when dropped.
struct Handle(scm::SC_HANDLE);

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it is open, and ours.
            unsafe { scm::CloseServiceHandle(self.0) };
        }
    }
}
