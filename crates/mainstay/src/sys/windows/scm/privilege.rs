//! Privileges of this process ("Enabling and Disabling Privileges", Microsoft).

use std::io;
use std::ptr;

use windows_sys::Win32::Foundation::{CloseHandle, ERROR_NOT_ALL_ASSIGNED, HANDLE};
use windows_sys::Win32::Security as security;
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use super::{done, is, wide};

/// A privilege that is enabled until drop, which restores its previous state.
pub(super) struct Privilege {
    token: Token,
    previous: security::TOKEN_PRIVILEGES,
}

/// The token of this process, closed on drop.
struct Token(HANDLE);

impl Drop for Token {
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn drop(&mut self) {
        // SAFETY: the handle is owned and open.
        unsafe { CloseHandle(self.0) };
    }
}

impl Privilege {
    /// Enables a privilege, by its name. Fails if the account of this process does not have it.
    #[expect(unsafe_code, reason = "the system's own interface")]
    pub(super) fn enable(name: &str) -> io::Result<Self> {
        let name = wide(name);
        let mut token = ptr::null_mut();
        let access = security::TOKEN_ADJUST_PRIVILEGES | security::TOKEN_QUERY;
        // SAFETY: the pseudo handle needs no closing; the token is written on success only.
        done(unsafe { OpenProcessToken(GetCurrentProcess(), access, &raw mut token) })?;
        let token = Token(token);
        let mut wanted = security::TOKEN_PRIVILEGES {
            PrivilegeCount: 1,
            ..Default::default()
        };
        wanted.Privileges[0].Attributes = security::SE_PRIVILEGE_ENABLED;
        let mut previous = security::TOKEN_PRIVILEGES::default();
        let size = size_of_val(&previous) as u32;
        let mut length = 0;
        // SAFETY: the name ends with a NUL; the structures have room for one privilege, and their
        // size is given.
        unsafe {
            done(security::LookupPrivilegeValueW(
                ptr::null(),
                name.as_ptr(),
                &raw mut wanted.Privileges[0].Luid,
            ))?;
            done(security::AdjustTokenPrivileges(
                token.0,
                0,
                &raw const wanted,
                size,
                &raw mut previous,
                &raw mut length,
            ))?;
        }
        // The call succeeds even if the token does not have the privilege.
        let error = io::Error::last_os_error();
        if is(&error, ERROR_NOT_ALL_ASSIGNED) {
            return Err(error);
        }
        Ok(Self { token, previous })
    }
}

impl Drop for Privilege {
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn drop(&mut self) {
        // SAFETY: the token is open; the structure is the one that the system returned. It is empty
        // if the privilege was enabled before.
        unsafe {
            security::AdjustTokenPrivileges(
                self.token.0,
                0,
                &raw const self.previous,
                0,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(unsafe_code, reason = "the system's own interface")]
    fn is_enabled(name: &str) -> bool {
        let name = wide(name);
        let mut token = ptr::null_mut();
        let mut set = security::PRIVILEGE_SET {
            PrivilegeCount: 1,
            Control: 1,
            ..Default::default()
        };
        let mut has = 0;
        // SAFETY: as in `enable`.
        unsafe {
            let of_process =
                OpenProcessToken(GetCurrentProcess(), security::TOKEN_QUERY, &raw mut token);
            done(of_process).unwrap();
            let token = Token(token);
            let luid = &raw mut set.Privilege[0].Luid;
            done(security::LookupPrivilegeValueW(
                ptr::null(),
                name.as_ptr(),
                luid,
            ))
            .unwrap();
            done(security::PrivilegeCheck(
                token.0,
                &raw mut set,
                &raw mut has,
            ))
            .unwrap();
        }
        has != 0
    }

    #[test]
    fn a_privilege_is_enabled_for_as_long_as_it_is_needed() {
        const NAME: &str = "SeShutdownPrivilege";
        let before = is_enabled(NAME);
        let enabled = Privilege::enable(NAME).unwrap();
        assert!(is_enabled(NAME));
        drop(enabled);
        assert_eq!(is_enabled(NAME), before);
        assert!(Privilege::enable("SeNoSuchPrivilege").is_err());
    }
}
