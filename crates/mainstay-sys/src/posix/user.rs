//! Users of the system, from its user database.

use std::ffi::{CStr, CString, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::{io, ptr};

/// A user of the system, with all of its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name as spelled in the user database.
    pub name: OsString,
    /// The home directory, which may not exist.
    pub home: PathBuf,
    shell: OsString,
    pub(super) uid: libc::uid_t,
    pub(super) gid: libc::gid_t,
    pub(super) groups: Vec<libc::gid_t>,
}

impl User {
    /// Returns the user ID.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Returns whether the user has all privileges, regardless of its name.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Returns whether the user belongs to this group.
    pub(crate) fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&(gid as libc::gid_t))
    }

    /// Returns whether this process already runs as the user.
    pub fn is_current(&self) -> bool {
        self.uid == rustix::process::geteuid().as_raw()
    }

    /// Returns the variables that a login sets (environ(7)).
    pub fn environment(&self) -> [(OsString, OsString); 4] {
        let name = || self.name.clone();
        [
            ("HOME".into(), self.home.clone().into()),
            ("SHELL".into(), self.shell.clone()),
            ("USER".into(), name()),
            ("LOGNAME".into(), name()),
        ]
    }

    /// Makes the user the owner of a file or directory. Requires root.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
    }

    /// Looks a user up in the system's user database; `None` if there is no such user. Blocks,
    /// because the database may be on a directory server.
    pub fn lookup(name: &str) -> io::Result<Option<Self>> {
        let c_name = CString::new(name)?;
        let found = find_user(
            // SAFETY: the name ends in NUL; the other pointers are valid for the call, and the
            // length is the buffer's.
            |entry, text, length, found| unsafe {
                libc::getpwnam_r(c_name.as_ptr(), entry, text, length, found)
            },
            |entry| {
                let own = |text: *mut c_char| {
                    // SAFETY: the fields of an entry that was found point at NUL-terminated
                    // strings.
                    let text = unsafe { CStr::from_ptr(text) };
                    OsString::from_vec(text.to_bytes().to_vec())
                };
                let texts = [entry.pw_name, entry.pw_dir, entry.pw_shell].map(own);
                (texts, entry.pw_uid, entry.pw_gid)
            },
        )?;
        let Some(([name, home, shell], uid, gid)) = found else {
            return Ok(None);
        };
        let shell = if shell.is_empty() {
            "/bin/sh".into()
        } else {
            // passwd(5)
            shell
        };
        let mut groups: Vec<libc::gid_t> = vec![0; 32];
        loop {
            let mut count = c_int::try_from(groups.len()).map_err(io::Error::other)?;
            // SAFETY: `groups` has room for `count` IDs; the casts are for systems that declare
            // them as int.
            let fits = unsafe {
                libc::getgrouplist(
                    c_name.as_ptr(),
                    gid as _,
                    groups.as_mut_ptr().cast(),
                    &mut count,
                )
            } >= 0;
            let count = usize::try_from(count).map_err(io::Error::other)?;
            if fits {
                groups.truncate(count);
                break;
            }
            let room = count.max(groups.len() * 2); // some systems do not return the count
            groups.resize(room, 0);
        }
        Ok(Some(Self {
            name,
            home: home.into(),
            shell,
            uid,
            gid,
            groups,
        }))
    }

    /// Returns the name of a user ID; `None` if it has none. Blocks like [`User::lookup`].
    pub fn name_of(uid: u32) -> io::Result<Option<OsString>> {
        find_user(
            // SAFETY: the pointers are valid for the call, and the length is the buffer's.
            |entry, text, length, found| unsafe {
                libc::getpwuid_r(uid, entry, text, length, found)
            },
            |entry| {
                // SAFETY: the field of an entry that was found points at a NUL-terminated string.
                let name = unsafe { CStr::from_ptr(entry.pw_name) };
                OsString::from_vec(name.to_bytes().to_vec())
            },
        )
    }

    /// Returns whether this process already runs as the user and could not switch to it again,
    /// because only root may call `setgroups`.
    pub(super) fn is_ours(&self) -> bool {
        // SAFETY: the calls cannot fail and touch no memory.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        uid != 0 && (uid, gid) == (self.uid, self.gid)
    }
}

/// Returns the ID of a group; `None` if there is no such group. Blocks like [`User::lookup`].
pub fn group_named(name: &str) -> io::Result<Option<u32>> {
    let c_name = CString::new(name)?;
    find_entry(
        // SAFETY: a group consists of integers and pointers, for all of which zero is valid.
        unsafe { std::mem::zeroed() },
        // SAFETY: the name ends in NUL; the other pointers are valid for the call, and the length
        // is the buffer's.
        |entry, text, length, found| unsafe {
            libc::getgrnam_r(c_name.as_ptr(), entry, text, length, found)
        },
        |entry: &libc::group| entry.gr_gid,
    )
}

/// Queries the user database; see [`find_entry`].
fn find_user<T>(
    ask: impl Fn(*mut libc::passwd, *mut c_char, usize, *mut *mut libc::passwd) -> c_int,
    read: impl FnOnce(&libc::passwd) -> T,
) -> io::Result<Option<T>> {
    // SAFETY: a passwd consists of integers and pointers, for all of which zero is valid.
    find_entry(unsafe { std::mem::zeroed() }, ask, read)
}

/// Queries a database into `entry`, with a text buffer that grows to fit the answer. `read` gets
/// the entry while its strings are valid.
fn find_entry<E, T>(
    mut entry: E,
    ask: impl Fn(*mut E, *mut c_char, usize, *mut *mut E) -> c_int,
    read: impl FnOnce(&E) -> T,
) -> io::Result<Option<T>> {
    let mut text = vec![0; 1024];
    let mut found = ptr::null_mut();
    loop {
        match ask(&mut entry, text.as_mut_ptr(), text.len(), &mut found) {
            libc::ERANGE => text.resize(text.len() * 2, 0),
            libc::EINTR => {}
            // POSIX allows "not found" to be an error as well, and some systems return one.
            0 | libc::ENOENT | libc::ESRCH if found.is_null() => return Ok(None),
            0 => return Ok(Some(read(&entry))),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}
