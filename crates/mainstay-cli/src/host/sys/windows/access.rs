//! Who may touch a directory ("Access Control Lists", Microsoft).

use std::ffi::OsStr;
use std::io;
use std::os::windows::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use mainstay::Account;
use windows_sys::Win32::Foundation::{
    CloseHandle, ERROR_NONE_MAPPED, ERROR_SUCCESS, GENERIC_ALL, GENERIC_EXECUTE, GENERIC_READ,
    HANDLE, LocalFree, WIN32_ERROR,
};
use windows_sys::Win32::Security as security;
use windows_sys::Win32::Security::Authorization as acl;
use windows_sys::Win32::Security::{ACL, PSECURITY_DESCRIPTOR, PSID, WELL_KNOWN_SID_TYPE};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

/// What an account may do with a directory and all that is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    All,
}

/// `SECURITY_MAX_SID_SIZE`, in words.
type Sid = [u64; 9];

/// Makes `dir` the administrators', and lets nobody but them, the system and this account (of a service, by its name) touch it and what is in
/// it, whatever the directory above says.
/// `false`: this system does not know that account; it is left out.
pub(crate) fn entrust(dir: &Path, account: Option<(&Account, &str, Access)>) -> io::Result<bool> {
    let administrators = well_known(security::WinBuiltinAdministratorsSid)?;
    let mut entries = vec![
        (well_known(security::WinLocalSystemSid)?, GENERIC_ALL),
        (administrators, GENERIC_ALL),
    ];
    let mut is_known = true;
    if let Some((account, service, access)) = account {
        let rights = match access {
            Access::Read => GENERIC_READ | GENERIC_EXECUTE,
            Access::All => GENERIC_ALL,
        };
        let sid = match account {
            Account::LocalService => Some(well_known(security::WinLocalServiceSid)?),
            Account::NetworkService => Some(well_known(security::WinNetworkServiceSid)?),
            Account::LocalSystem => Some(entries[0].0),
            named => of_name(&named.windows_name(service))?,
        };
        is_known = sid.is_some();
        entries.extend(sid.map(|sid| (sid, rights)));
    }
    let entries: Vec<_> = entries.iter().map(entry).collect();
    set(dir, &administrators, &entries)?;
    Ok(is_known)
}

fn set(dir: &Path, owner: &Sid, entries: &[acl::EXPLICIT_ACCESS_W]) -> io::Result<()> {
    let count = u32::try_from(entries.len()).unwrap_or(0);
    let mut list: *mut ACL = ptr::null_mut();
    // SAFETY: as many entries as are said, whose names and SIDs outlive the call; it makes the list, which is freed below.
    done(unsafe { acl::SetEntriesInAclW(count, entries.as_ptr(), ptr::null(), &raw mut list) })?;
    let path = wide(dir.as_os_str());
    // PROTECTED: nothing comes from above.
    let what = security::OWNER_SECURITY_INFORMATION
        | security::DACL_SECURITY_INFORMATION
        | security::PROTECTED_DACL_SECURITY_INFORMATION;
    // SAFETY: the path ends with a NUL, and the owner and the list are valid.
    let set = done(unsafe {
        acl::SetNamedSecurityInfoW(
            path.as_ptr(),
            acl::SE_FILE_OBJECT,
            what,
            owner.as_ptr().cast_mut().cast(),
            ptr::null_mut(),
            list,
            ptr::null(),
        )
    });
    // SAFETY: `SetEntriesInAcl` allocated it.
    unsafe { LocalFree(list.cast()) };
    set
}

/// Whether it belongs to somebody else than this user, administrators or the system: they may change who else may touch it.
pub(crate) fn is_foreign(dir: &Path) -> io::Result<bool> {
    let path = wide(dir.as_os_str());
    let mut owner: PSID = ptr::null_mut();
    let mut descriptor: PSECURITY_DESCRIPTOR = ptr::null_mut();
    // SAFETY: the path ends with a NUL; what comes back is freed below, and the owner lies in it.
    done(unsafe {
        acl::GetNamedSecurityInfoW(
            path.as_ptr(),
            acl::SE_FILE_OBJECT,
            security::OWNER_SECURITY_INFORMATION,
            &raw mut owner,
            ptr::null_mut(),
            ptr::null_mut(),
            ptr::null_mut(),
            &raw mut descriptor,
        )
    })?;
    let is_well_known = |kind| {
        // SAFETY: the owner is a valid SID until the descriptor is freed.
        unsafe { security::IsWellKnownSid(owner, kind) != 0 }
    };
    let is_of_system = is_well_known(security::WinLocalSystemSid)
        || is_well_known(security::WinBuiltinAdministratorsSid);
    let is_ours = match is_of_system {
        true => Ok(true),
        false => is_this_user(owner),
    };
    // SAFETY: `GetNamedSecurityInfo` allocated it.
    unsafe { LocalFree(descriptor) };
    is_ours.map(|is_ours| !is_ours)
}

fn is_this_user(sid: PSID) -> io::Result<bool> {
    let mut token: HANDLE = ptr::null_mut();
    // SAFETY: this process's own handle; the token is closed below.
    if unsafe { OpenProcessToken(GetCurrentProcess(), security::TOKEN_QUERY, &raw mut token) } == 0
    {
        return Err(io::Error::last_os_error());
    }
    // The user's SID lies behind the structure, in the same buffer.
    let mut user = [0_u64; 16];
    let (size, mut needed) = (u32::try_from(size_of_val(&user)).unwrap_or(0), 0);
    // SAFETY: the token is open, and the buffer as large as is said.
    let told = unsafe {
        security::GetTokenInformation(
            token,
            security::TokenUser,
            user.as_mut_ptr().cast(),
            size,
            &raw mut needed,
        )
    };
    let error = io::Error::last_os_error();
    // SAFETY: the token is ours, and open.
    unsafe { CloseHandle(token) };
    if told == 0 {
        return Err(error);
    }
    // SAFETY: the system has filled it in, and the buffer is aligned for it; both SIDs are valid.
    Ok(unsafe {
        let user = &*user.as_ptr().cast::<security::TOKEN_USER>();
        security::EqualSid(sid, user.User.Sid) != 0
    })
}

fn well_known(kind: WELL_KNOWN_SID_TYPE) -> io::Result<Sid> {
    let mut sid = Sid::default();
    let mut size = u32::try_from(size_of::<Sid>()).unwrap_or(0);
    let buffer = sid.as_mut_ptr().cast();
    // SAFETY: the buffer is as large as is said.
    match unsafe { security::CreateWellKnownSid(kind, ptr::null_mut(), buffer, &raw mut size) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(sid),
    }
}

/// `None`: this system does not know it.
fn of_name(name: &str) -> io::Result<Option<Sid>> {
    let name = wide(name.strip_prefix(".\\").unwrap_or(name).as_ref());
    let mut sid = Sid::default();
    let mut size = u32::try_from(size_of::<Sid>()).unwrap_or(0);
    let mut domain = [0_u16; 256];
    let mut domain_size = u32::try_from(domain.len()).unwrap_or(0);
    let mut kind = 0;
    // SAFETY: the name ends with a NUL; both buffers are as large as is said.
    let found = unsafe {
        security::LookupAccountNameW(
            ptr::null(),
            name.as_ptr(),
            sid.as_mut_ptr().cast(),
            &raw mut size,
            domain.as_mut_ptr(),
            &raw mut domain_size,
            &raw mut kind,
        )
    };
    let error = io::Error::last_os_error();
    match found {
        0 if error.raw_os_error() == Some(ERROR_NONE_MAPPED.cast_signed()) => Ok(None),
        0 => Err(error),
        _ => Ok(Some(sid)),
    }
}

/// For the directory and all that is made in it. The SID has to outlive it.
fn entry((sid, rights): &(Sid, u32)) -> acl::EXPLICIT_ACCESS_W {
    acl::EXPLICIT_ACCESS_W {
        grfAccessPermissions: *rights,
        grfAccessMode: acl::SET_ACCESS,
        grfInheritance: security::SUB_CONTAINERS_AND_OBJECTS_INHERIT,
        Trustee: acl::TRUSTEE_W {
            TrusteeForm: acl::TRUSTEE_IS_SID,
            ptstrName: sid.as_ptr().cast_mut().cast(),
            ..Default::default()
        },
    }
}

fn wide(text: &OsStr) -> Vec<u16> {
    text.encode_wide().chain([0]).collect()
}

fn done(error: WIN32_ERROR) -> io::Result<()> {
    match error {
        ERROR_SUCCESS => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.cast_signed())),
    }
}
