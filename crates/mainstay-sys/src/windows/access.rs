//! Access control of files and directories ("Access Control Lists", Microsoft).

use std::ffi::OsStr;
use std::io;
use std::os::windows::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use windows_sys::Win32::Foundation::{
    CloseHandle, ERROR_NONE_MAPPED, ERROR_SUCCESS, GENERIC_ALL, GENERIC_EXECUTE, GENERIC_READ,
    HANDLE, LocalFree, WIN32_ERROR,
};
use windows_sys::Win32::Security as security;
use windows_sys::Win32::Security::Authorization as acl;
use windows_sys::Win32::Security::{ACL, PSECURITY_DESCRIPTOR, PSID, WELL_KNOWN_SID_TYPE};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use super::acl::{Ace, AceKind, Place, stranger};

/// The access of an account to a directory and its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading and executing.
    Read,
    /// Everything.
    All,
}

/// The accounts that may see a directory or a file, besides those that are entrusted with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// None.
    Private,
    /// Every user may list the directory, or read the file. What is created in the directory is not
    /// visible to them.
    Listed,
}

/// An account of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// The system itself.
    LocalSystem,
    /// The account of services with few rights, without a network identity.
    LocalService,
    /// The account of services with few rights, with the machine's network identity.
    NetworkService,
    /// Any other account, by the name that the system knows it by.
    Named(String),
}

/// A buffer of `SECURITY_MAX_SID_SIZE`, in 64-bit words.
type Sid = [u64; 9];

/// Makes administrators the owner of `path`, and restricts access to it and its content to
/// administrators, the system, this account and those to whom it is visible, regardless of the
/// parent directory. Returns `false` if this system has no such account, which is then left out.
pub fn entrust(
    path: &Path,
    account: Option<(&Account, Access)>,
    visibility: Visibility,
) -> io::Result<bool> {
    let (list, is_known) = trusted(account, visibility)?;
    let administrators = well_known(security::WinBuiltinAdministratorsSid)?;
    set(path, &administrators, &list)?;
    Ok(is_known)
}

/// Creates the access control list of [`entrust`].
fn trusted(
    account: Option<(&Account, Access)>,
    visibility: Visibility,
) -> io::Result<(List, bool)> {
    let system = well_known(security::WinLocalSystemSid)?;
    let administrators = well_known(security::WinBuiltinAdministratorsSid)?;
    let with_content = |sid, rights| Entry {
        sid,
        rights,
        inheritance: security::SUB_CONTAINERS_AND_OBJECTS_INHERIT,
    };
    let mut entries = vec![
        with_content(system, GENERIC_ALL),
        with_content(administrators, GENERIC_ALL),
    ];
    let mut is_known = true;
    if let Some((account, access)) = account {
        let rights = match access {
            Access::Read => GENERIC_READ | GENERIC_EXECUTE,
            Access::All => GENERIC_ALL,
        };
        let sid = match account {
            Account::LocalService => Some(well_known(security::WinLocalServiceSid)?),
            Account::NetworkService => Some(well_known(security::WinNetworkServiceSid)?),
            Account::LocalSystem => Some(system),
            Account::Named(name) => of_name(name)?,
        };
        is_known = sid.is_some();
        entries.extend(sid.map(|sid| with_content(sid, rights)));
    }
    if visibility == Visibility::Listed {
        entries.push(Entry {
            sid: well_known(security::WinBuiltinUsersSid)?,
            rights: GENERIC_READ | GENERIC_EXECUTE,
            inheritance: security::NO_INHERITANCE,
        });
    }
    Ok((List::new(&entries)?, is_known))
}

/// The rights of one account to a file or directory.
struct Entry {
    sid: Sid,
    rights: u32,
    /// The objects created in the directory to which the entry applies, too.
    inheritance: u32,
}

/// An access control list, freed on drop.
struct List(*mut ACL);

impl List {
    fn new(entries: &[Entry]) -> io::Result<Self> {
        let entries: Vec<_> = entries
            .iter()
            .map(
                |Entry {
                     sid,
                     rights,
                     inheritance,
                 }| acl::EXPLICIT_ACCESS_W {
                    grfAccessPermissions: *rights,
                    grfAccessMode: acl::SET_ACCESS,
                    grfInheritance: *inheritance,
                    Trustee: acl::TRUSTEE_W {
                        TrusteeForm: acl::TRUSTEE_IS_SID,
                        ptstrName: sid.as_ptr().cast_mut().cast(),
                        ..Default::default()
                    },
                },
            )
            .collect();
        let count = u32::try_from(entries.len()).unwrap_or(0);
        let mut list: *mut ACL = ptr::null_mut();
        // SAFETY: the count is the number of entries, whose SIDs outlive the call; the new list is
        // freed on drop.
        done(unsafe {
            acl::SetEntriesInAclW(count, entries.as_ptr(), ptr::null(), &raw mut list)
        })?;
        Ok(Self(list))
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: `SetEntriesInAcl` allocated it.
        unsafe { LocalFree(self.0.cast()) };
    }
}

fn set(path: &Path, owner: &Sid, list: &List) -> io::Result<()> {
    let path = wide(path.as_os_str());
    // PROTECTED: no entries are inherited from the parent.
    let what = security::OWNER_SECURITY_INFORMATION
        | security::DACL_SECURITY_INFORMATION
        | security::PROTECTED_DACL_SECURITY_INFORMATION;
    // SAFETY: the path ends with a NUL, and the owner and the list are valid.
    done(unsafe {
        acl::SetNamedSecurityInfoW(
            path.as_ptr(),
            acl::SE_FILE_OBJECT,
            what,
            owner.as_ptr().cast_mut().cast(),
            ptr::null_mut(),
            list.0,
            ptr::null(),
        )
    })
}

/// Describes an account other than this user, administrators and the system that may change this
/// file or directory; `None` if there is none. A symbolic link or junction is not followed, because
/// the link itself is an exposure.
pub fn exposure(path: &Path) -> io::Result<Option<String>> {
    if std::fs::symlink_metadata(path)?.is_symlink() {
        return Ok(Some(format!("{} is a symbolic link", path.display())));
    }
    let (owner, list) = read(path)?;
    let who = stranger(&owner, list.as_deref(), Place::Itself, &user_sid()?);
    Ok(who.map(|who| format!("{who} may change {}", path.display())))
}

/// Describes such an account for the target of a program's path and the directories above it.
pub fn exposure_of_program(path: &Path) -> io::Result<Option<String>> {
    let real = std::fs::canonicalize(path)?;
    let is_file = real.is_file();
    let user = user_sid()?;
    for (depth, place) in real.ancestors().enumerate() {
        let kind = match depth {
            0 => Place::Itself,
            1 if is_file => Place::Itself,
            _ => Place::Above,
        };
        let (owner, list) = match read(place) {
            Ok(read) => read,
            // An account without read access to a directory far above cannot change it either.
            Err(error)
                if kind == Place::Above && error.kind() == io::ErrorKind::PermissionDenied =>
            {
                break;
            }
            Err(error) => return Err(error),
        };
        if let Some(who) = stranger(&owner, list.as_deref(), kind, &user) {
            return Ok(Some(format!("{who} may change {}", place.display())));
        }
    }
    Ok(None)
}

/// Returns the owner and the access control list; `None` if there is no list at all.
fn read(path: &Path) -> io::Result<(String, Option<Vec<Ace>>)> {
    let path = wide(path.as_os_str());
    let mut owner: PSID = ptr::null_mut();
    let mut list: *mut ACL = ptr::null_mut();
    let mut descriptor: PSECURITY_DESCRIPTOR = ptr::null_mut();
    // SAFETY: the path ends with a NUL; the returned descriptor, which contains the owner and the
    // list, is freed below.
    done(unsafe {
        acl::GetNamedSecurityInfoW(
            path.as_ptr(),
            acl::SE_FILE_OBJECT,
            security::OWNER_SECURITY_INFORMATION | security::DACL_SECURITY_INFORMATION,
            &raw mut owner,
            ptr::null_mut(),
            &raw mut list,
            ptr::null_mut(),
            &raw mut descriptor,
        )
    })?;
    let read = sid_text(owner).and_then(|owner| {
        if list.is_null() {
            Ok((owner, None))
        } else {
            Ok((owner, Some(entries(list)?)))
        }
    });
    // SAFETY: `GetNamedSecurityInfo` allocated it.
    unsafe { LocalFree(descriptor) };
    read
}

/// Returns the entries of a valid list.
fn entries(list: *const ACL) -> io::Result<Vec<Ace>> {
    const ALLOWED: u8 = 0;
    const DENIED: u8 = 1;
    const ALLOWED_IF: u8 = 9;
    const DENIED_IF: u8 = 10;
    const INHERIT_ONLY: u8 = 8;
    // SAFETY: the contract of this function is that it is a list.
    let count = unsafe { (*list).AceCount };
    let mut entries = Vec::with_capacity(count.into());
    for index in 0..u32::from(count) {
        let mut entry = ptr::null_mut();
        // SAFETY: the index is below the number of entries.
        if unsafe { security::GetAce(list, index, &raw mut entry) } == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: each entry begins with a header, and entries of these types share one layout up
        // to the SID.
        let entry = unsafe { &*entry.cast::<security::ACCESS_ALLOWED_ACE>() };
        let kind = match entry.Header.AceType {
            ALLOWED | ALLOWED_IF => AceKind::Allow,
            DENIED => AceKind::Deny,
            // Conditional denials are not counted; the other types are for audits.
            DENIED_IF | 2.. => continue,
        };
        entries.push(Ace {
            kind,
            is_inherit_only: entry.Header.AceFlags & INHERIT_ONLY != 0,
            mask: entry.Mask,
            sid: sid_text((&raw const entry.SidStart).cast_mut().cast())?,
        });
    }
    Ok(entries)
}

/// Returns whether the owner is an account other than this user, administrators or the system. An
/// owner may change who else has access.
pub fn is_foreign(dir: &Path) -> io::Result<bool> {
    let path = wide(dir.as_os_str());
    let mut owner: PSID = ptr::null_mut();
    let mut descriptor: PSECURITY_DESCRIPTOR = ptr::null_mut();
    // SAFETY: the path ends with a NUL; the returned descriptor, which contains the owner, is freed
    // below.
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
    let is_ours = if is_of_system {
        Ok(true)
    } else {
        is_this_user(owner)
    };
    // SAFETY: `GetNamedSecurityInfo` allocated it.
    unsafe { LocalFree(descriptor) };
    is_ours.map(|is_ours| !is_ours)
}

fn is_this_user(sid: PSID) -> io::Result<bool> {
    with_user(|user| {
        // SAFETY: both SIDs are valid.
        Ok(unsafe { security::EqualSid(sid, user) != 0 })
    })
}

/// Calls `with` with the SID of the user that this process runs as.
fn with_user<T>(with: impl FnOnce(PSID) -> io::Result<T>) -> io::Result<T> {
    let mut token: HANDLE = ptr::null_mut();
    // SAFETY: the pseudo handle of this process; the token is closed below.
    if unsafe { OpenProcessToken(GetCurrentProcess(), security::TOKEN_QUERY, &raw mut token) } == 0
    {
        return Err(io::Error::last_os_error());
    }
    // The user's SID follows the structure in the same buffer.
    let mut user = [0_u64; 16];
    let (size, mut needed) = (u32::try_from(size_of_val(&user)).unwrap_or(0), 0);
    // SAFETY: the token is open, and the buffer has the size that is passed.
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
    // SAFETY: the token is open and owned here.
    unsafe { CloseHandle(token) };
    if told == 0 {
        return Err(error);
    }
    // SAFETY: the system has filled it in, and the buffer is aligned for it.
    let user = unsafe { &*user.as_ptr().cast::<security::TOKEN_USER>() };
    with(user.User.Sid)
}

/// A security descriptor that grants access to this user, administrators and the system only. It
/// does not include Everyone and anonymous users, unlike the default descriptor of pipes.
pub(super) struct Private {
    descriptor: PSECURITY_DESCRIPTOR,
}

impl Private {
    pub(super) fn new() -> io::Result<Self> {
        let sddl = wide(OsStr::new(&private_sddl(&user_sid()?)));
        let mut descriptor: PSECURITY_DESCRIPTOR = ptr::null_mut();
        // SAFETY: the text ends with a NUL; the new descriptor is freed on drop.
        let made = unsafe {
            acl::ConvertStringSecurityDescriptorToSecurityDescriptorW(
                sddl.as_ptr(),
                acl::SDDL_REVISION_1,
                &raw mut descriptor,
                ptr::null_mut(),
            )
        };
        match made {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(Self { descriptor }),
        }
    }

    /// Returns attributes that are valid while this descriptor exists. Handles created with them
    /// are not inherited.
    pub(super) fn attributes(&self) -> security::SECURITY_ATTRIBUTES {
        security::SECURITY_ATTRIBUTES {
            nLength: u32::try_from(size_of::<security::SECURITY_ATTRIBUTES>()).unwrap_or(0),
            lpSecurityDescriptor: self.descriptor,
            bInheritHandle: 0,
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // SAFETY: the system allocated it for this value.
        unsafe { LocalFree(self.descriptor) };
    }
}

/// Returns the descriptor's text: full access (FA) for the system (SY), administrators (BA) and
/// this user, protected (P) from inheritance, and no access for others.
fn private_sddl(user: &str) -> String {
    format!("D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;{user})")
}

/// Returns the SID of the user that this process runs as, as `S-1-5-21-…`.
fn user_sid() -> io::Result<String> {
    with_user(sid_text)
}

/// Formats a valid SID as `S-1-…`.
fn sid_text(sid: PSID) -> io::Result<String> {
    let mut text = ptr::null_mut();
    // SAFETY: the SID is valid; the text is freed below.
    if unsafe { acl::ConvertSidToStringSidW(sid, &raw mut text) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let units = (0..).map(|index| {
        // SAFETY: read up to the NUL that ends it.
        unsafe { *text.add(index) }
    });
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    // SAFETY: the system allocated it for this function.
    unsafe { LocalFree(text.cast()) };
    Ok(String::from_utf16_lossy(&units))
}

fn well_known(kind: WELL_KNOWN_SID_TYPE) -> io::Result<Sid> {
    let mut sid = Sid::default();
    let mut size = u32::try_from(size_of::<Sid>()).unwrap_or(0);
    let buffer = sid.as_mut_ptr().cast();
    // SAFETY: the buffer has the size that is passed.
    match unsafe { security::CreateWellKnownSid(kind, ptr::null_mut(), buffer, &raw mut size) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(sid),
    }
}

/// Looks an account up by name; `None` if this system has no such account.
fn of_name(name: &str) -> io::Result<Option<Sid>> {
    let name = wide(name.strip_prefix(".\\").unwrap_or(name).as_ref());
    let mut sid = Sid::default();
    let mut size = u32::try_from(size_of::<Sid>()).unwrap_or(0);
    let mut domain = [0_u16; 256];
    let mut domain_size = u32::try_from(domain.len()).unwrap_or(0);
    let mut kind = 0;
    // SAFETY: the name ends with a NUL; both buffers have the sizes that are passed.
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

fn wide(text: &OsStr) -> Vec<u16> {
    text.encode_wide().chain([0]).collect()
}

fn done(error: WIN32_ERROR) -> io::Result<()> {
    match error {
        ERROR_SUCCESS => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.cast_signed())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_user_administrators_and_the_system_are_in_a_private_list() {
        let sddl = private_sddl(&user_sid().unwrap());
        for stranger in [";WD)", ";AN)", ";BU)", ";AU)"] {
            assert!(!sddl.contains(stranger), "{sddl}");
        }
        Private::new().unwrap();
    }

    #[test]
    fn an_open_directory_is_seen() {
        let dir = std::env::temp_dir().join(format!("mainstay-access-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        entrust(&dir, None, Visibility::Private).unwrap();
        assert_eq!(exposure(&dir).unwrap(), None);
        let administrators = well_known(security::WinBuiltinAdministratorsSid).unwrap();
        let everyone = well_known(security::WinWorldSid).unwrap();
        let entries = [administrators, everyone].map(|sid| Entry {
            sid,
            rights: GENERIC_ALL,
            inheritance: security::SUB_CONTAINERS_AND_OBJECTS_INHERIT,
        });
        set(&dir, &administrators, &List::new(&entries).unwrap()).unwrap();
        let seen = exposure(&dir).unwrap();
        assert!(seen.is_some_and(|seen| seen.starts_with("Everyone may change ")));
        assert!(exposure_of_program(&dir.join(".")).unwrap().is_some());
        std::fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn users_see_a_listed_directory_but_nothing_in_it() {
        const USERS: &str = "S-1-5-32-545";
        const INHERITED: u8 = 0x3;
        let flags = |list: &List| {
            let entries = entries(list.0).unwrap().into_iter().enumerate();
            let flags = entries.map(|(index, ace)| {
                let mut entry = ptr::null_mut();
                // SAFETY: the list has this many entries, and each begins with a header.
                let header = unsafe {
                    security::GetAce(list.0, index as u32, &raw mut entry);
                    &*entry.cast::<security::ACE_HEADER>()
                };
                (ace, header.AceFlags & INHERITED)
            });
            flags.collect::<Vec<_>>()
        };
        let (list, _) = trusted(None, Visibility::Listed).unwrap();
        let (listed, private): (Vec<_>, Vec<_>) = flags(&list)
            .into_iter()
            .partition(|(ace, _)| ace.sid == USERS);
        let [(users, 0)] = &listed[..] else {
            panic!("{listed:?}");
        };
        let administrators = "S-1-5-32-544";
        let list = [users.clone()];
        assert_eq!(
            stranger(administrators, Some(&list), Place::Itself, ""),
            None
        );
        assert!(private.len() == 2 && private.iter().all(|(_, flags)| *flags == INHERITED));
        let (list, _) = trusted(None, Visibility::Private).unwrap();
        assert_eq!(flags(&list), private);
    }
}
