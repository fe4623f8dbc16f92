//! Access rights: access control lists of services, and an account's right to log on as a service
//! ("Account Rights Constants", Microsoft).

use std::io;
use std::os::windows::ffi::OsStringExt as _;
use std::ptr;

use windows_sys::Win32::Foundation::{ERROR_FILE_NOT_FOUND, LocalFree, NTSTATUS};
use windows_sys::Win32::Security as security;
use windows_sys::Win32::Security::Authentication::Identity as lsa;
use windows_sys::Win32::Security::Authorization as authorization;
use windows_sys::Win32::System::Services as services;

use super::{Handle, done, is, text, wide};

const LOGON_RIGHT: &str = "SeServiceLogonRight";
const DACL: u32 = security::DACL_SECURITY_INFORMATION;

/// Returns the access control list of a service, opened with `READ_CONTROL`, in the Security
/// Descriptor Definition Language.
#[expect(unsafe_code, reason = "the system's own interface")]
pub(super) fn security(service: &Handle) -> io::Result<String> {
    let descriptor = super::read_structure(|buffer, size, needed| {
        // SAFETY: the buffer has the given size.
        unsafe {
            services::QueryServiceObjectSecurity(service.0, DACL, buffer.cast(), size, needed)
        }
    })?;
    let mut sddl = ptr::null_mut();
    // SAFETY: the descriptor was just read; the text is freed below.
    done(unsafe {
        authorization::ConvertSecurityDescriptorToStringSecurityDescriptorW(
            descriptor.as_ptr().cast_mut().cast(),
            authorization::SDDL_REVISION_1,
            DACL,
            &raw mut sddl,
            ptr::null_mut(),
        )
    })?;
    // SAFETY: it ends with a NUL and must be freed here.
    unsafe {
        let said = text(sddl);
        LocalFree(sddl.cast());
        Ok(said)
    }
}

/// Sets the access control list of a service, opened with `WRITE_DAC`.
#[expect(unsafe_code, reason = "the system's own interface")]
pub(super) fn set_security(service: &Handle, sddl: &str) -> io::Result<()> {
    let sddl = wide(sddl);
    let mut descriptor = ptr::null_mut();
    // SAFETY: the text ends with a NUL; the created descriptor is freed below.
    unsafe {
        done(
            authorization::ConvertStringSecurityDescriptorToSecurityDescriptorW(
                sddl.as_ptr(),
                authorization::SDDL_REVISION_1,
                &raw mut descriptor,
                ptr::null_mut(),
            ),
        )?;
        let set = done(services::SetServiceObjectSecurity(
            service.0, DACL, descriptor,
        ));
        LocalFree(descriptor);
        set
    }
}

/// Returns whether the account itself may log on as a service, not only through a group.
#[expect(unsafe_code, reason = "the system's own interface")]
pub(super) fn may_log_on(account: &str) -> io::Result<bool> {
    let mut account = identifier(account)?;
    let policy = Policy::open(lsa::POLICY_LOOKUP_NAMES)?;
    let (mut rights, mut count) = (ptr::null_mut(), 0);
    // SAFETY: the identifier is complete, and both results outlive the call.
    let status = unsafe {
        lsa::LsaEnumerateAccountRights(
            policy.0,
            account.as_mut_ptr().cast(),
            &raw mut rights,
            &raw mut count,
        )
    };
    match nt(status) {
        Ok(()) => {}
        // The account has no rights of its own.
        Err(error) if is(&error, ERROR_FILE_NOT_FOUND) => return Ok(false),
        Err(error) => return Err(error),
    }
    // SAFETY: there are this many rights, each with its own length; the list must be freed here.
    unsafe {
        let list = std::slice::from_raw_parts(rights, count as usize);
        let has = list.iter().any(|right| {
            let units = std::slice::from_raw_parts(right.Buffer, usize::from(right.Length) / 2);
            std::ffi::OsString::from_wide(units) == LOGON_RIGHT
        });
        lsa::LsaFreeMemory(rights.cast());
        Ok(has)
    }
}

/// Grants an account the right to log on as a service, or revokes it.
#[expect(unsafe_code, reason = "the system's own interface")]
pub(super) fn let_log_on(account: &str, is_granted: bool) -> io::Result<()> {
    let mut account = identifier(account)?;
    let creates = if is_granted {
        lsa::POLICY_CREATE_ACCOUNT
    } else {
        0
    };
    let policy = Policy::open(lsa::POLICY_LOOKUP_NAMES | creates)?;
    let mut name = wide(LOGON_RIGHT);
    let size = u16::try_from(size_of_val(&*name)).unwrap_or(u16::MAX);
    let right = lsa::LSA_UNICODE_STRING {
        Length: size - 2,
        MaximumLength: size,
        Buffer: name.as_mut_ptr(),
    };
    let account = account.as_mut_ptr().cast();
    // SAFETY: the identifier is complete, and the right's name outlives the calls.
    nt(unsafe {
        if is_granted {
            lsa::LsaAddAccountRights(policy.0, account, &raw const right, 1)
        } else {
            lsa::LsaRemoveAccountRights(policy.0, account, false, &raw const right, 1)
        }
    })
}

/// The local security policy, closed on drop.
struct Policy(lsa::LSA_HANDLE);

impl Policy {
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn open(access: i32) -> io::Result<Self> {
        let attributes = lsa::LSA_OBJECT_ATTRIBUTES {
            Length: size_of::<lsa::LSA_OBJECT_ATTRIBUTES>() as u32,
            ..Default::default()
        };
        let mut policy = 0;
        // SAFETY: a null name selects this machine; the attributes are empty, as required.
        nt(unsafe {
            lsa::LsaOpenPolicy(
                ptr::null(),
                &raw const attributes,
                access.cast_unsigned(),
                &raw mut policy,
            )
        })?;
        Ok(Self(policy))
    }
}

impl Drop for Policy {
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn drop(&mut self) {
        // SAFETY: the handle is owned and open.
        unsafe { lsa::LsaClose(self.0) };
    }
}

/// Returns the security identifier of an account.
#[expect(unsafe_code, reason = "the system's own interface")]
fn identifier(account: &str) -> io::Result<Vec<u32>> {
    // This call does not accept the manager's `.\` prefix for local accounts.
    let name = wide(account.strip_prefix(".\\").unwrap_or(account));
    let mut identifier = vec![0_u32; security::SECURITY_MAX_SID_SIZE.div_ceil(4) as usize];
    let mut domain = [0; 256];
    let mut size = u32::try_from(size_of_val(&*identifier)).unwrap_or(0);
    let (mut length, mut kind) = (domain.len() as u32, 0);
    // SAFETY: both buffers have the given sizes, and the name ends with a NUL.
    done(unsafe {
        security::LookupAccountNameW(
            ptr::null(),
            name.as_ptr(),
            identifier.as_mut_ptr().cast(),
            &raw mut size,
            domain.as_mut_ptr(),
            &raw mut length,
            &raw mut kind,
        )
    })?;
    Ok(identifier)
}

#[expect(unsafe_code, reason = "the system's own interface")]
fn nt(status: NTSTATUS) -> io::Result<()> {
    match status {
        0 => Ok(()),
        // SAFETY: it takes only a number.
        _ => Err(io::Error::from_raw_os_error(
            unsafe { lsa::LsaNtStatusToWinError(status) }.cast_signed(),
        )),
    }
}
