//! The check for whether another account may change the file at a path.
//!
//! A path is only as trustworthy as every directory on it: whoever may rename entries in one of
//! them decides what the rest of the path leads to. Therefore every component is checked, including
//! symbolic links and their targets. A component is trusted if root or this process's user owns it
//! and nobody else may write to it. In a sticky directory such as `/tmp`, others may create
//! entries, but cannot replace entries of other owners.
//!
//! Every directory above a component was trusted when the component was checked, so no other
//! account can exchange it afterwards.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use crate::User;

const STICKY: u32 = 0o1000;
const GROUP_WRITE: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// The limit for symbolic links in one path, the same as in the kernel.
const MOST_LINKS: u32 = 40;

/// A component of a path that another account may change.
#[derive(Debug)]
pub struct Exposure {
    path: PathBuf,
    owner: u32,
    mode: u32,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    ForeignOwner,
    ForeignLink,
    GroupMayWrite(u32),
    OthersMayWrite,
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, mode, .. } = self;
        let path = path.display();
        let owner = user(self.owner);
        match self.why {
            Why::ForeignLink => write!(f, "{path} is a symbolic link of {owner}"),
            Why::ForeignOwner => write!(f, "{path} belongs to {owner} (mode {mode:04o})"),
            Why::GroupMayWrite(group) => write!(
                f,
                "group {group} may write to {path} (owner {owner}, mode {mode:04o})"
            ),
            Why::OthersMayWrite => write!(
                f,
                "everyone may write to {path} (owner {owner}, mode {mode:04o})"
            ),
        }
    }
}

impl Exposure {
    /// Returns the owner, if the ownership is the problem.
    pub fn foreign_owner(&self) -> Option<String> {
        (self.why == Why::ForeignOwner).then(|| user(self.owner))
    }

    /// Returns the remedy.
    pub fn cure(&self) -> String {
        let path = self.path.display();
        match self.why {
            Why::ForeignOwner => {
                let me = user(rustix::process::geteuid().as_raw());
                format!("chown {me} {path}")
            }
            Why::ForeignLink => format!("replace {path} with a link of your own"),
            Why::GroupMayWrite(_) => format!("chmod g-w {path}"),
            Why::OthersMayWrite => format!("chmod go-w {path}"),
        }
    }
}

/// Returns a user's name, or the number if it has none.
pub fn user(uid: u32) -> String {
    let name = User::name_of(uid).ok().flatten();
    name.map_or_else(
        || format!("uid {uid}"),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Returns the first component of an absolute path that another account may change. Missing
/// components are not checked.
pub fn exposure(path: &Path) -> io::Result<Option<Exposure>> {
    let names = |path: &Path| -> VecDeque<OsString> {
        let names = path.components().filter_map(|component| match component {
            Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
            _ => None,
        });
        names.collect()
    };
    let mut place = PathBuf::from("/");
    let mut ahead = names(path);
    let mut links = 0;
    if let Some(found) = classify(&place, &fs::metadata(&place)?, Role::OnTheWay) {
        return Ok(Some(found));
    }
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            place.pop();
            continue;
        }
        let next = place.join(&name);
        let found = match fs::symlink_metadata(&next) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        let role = if ahead.is_empty() {
            Role::Last
        } else {
            Role::OnTheWay
        };
        let exposure = classify(&next, &found, role);
        if exposure.is_some() {
            return Ok(exposure);
        }
        if !found.is_symlink() {
            place = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(rustix::io::Errno::LOOP.into());
        }
        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            place = PathBuf::from("/");
        }
        names(&target)
            .into_iter()
            .rev()
            .for_each(|name| ahead.push_front(name));
    }
    Ok(None)
}

/// Checks an entry of a directory that is itself trusted. A missing entry is not a problem.
pub fn exposure_in(dir: &Path, name: &OsStr) -> io::Result<Option<Exposure>> {
    let path = dir.join(name);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(found) if found.is_symlink() => exposure(&path),
        found => Ok(classify(&path, &found?, Role::Last)),
    }
}

/// The position of a component: the target of the path, or a directory on the path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    OnTheWay,
    Last,
}

fn classify(path: &Path, found: &Metadata, role: Role) -> Option<Exposure> {
    let mode = found.mode() & 0o7777;
    let is_exempt = found.is_dir() && mode & STICKY != 0 && role == Role::OnTheWay;
    let why = match () {
        () if !is_trusted_owner(found.uid()) && found.is_symlink() => Why::ForeignLink,
        () if !is_trusted_owner(found.uid()) => Why::ForeignOwner,
        // The mode of a link is meaningless.
        () if found.is_symlink() || is_exempt => return None,
        () if mode & OTHERS_WRITE != 0 => Why::OthersMayWrite,
        () if mode & GROUP_WRITE != 0 && !is_own_group(path, found.gid()) => {
            Why::GroupMayWrite(found.gid())
        }
        () => return None,
    };
    Some(Exposure {
        path: path.to_owned(),
        owner: found.uid(),
        mode,
        why,
    })
}

fn is_trusted_owner(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw() || is_unmapped(uid)
}

/// Returns whether the group is root's or ours. If the file has an access control list, the group
/// bits of the mode may cover other accounts, so the result is false.
fn is_own_group(path: &Path, gid: u32) -> bool {
    let is_own = gid == 0 || gid == rustix::process::getegid().as_raw();
    is_own && !has_access_list(path)
}

#[cfg(target_os = "linux")]
pub(crate) fn has_access_list(path: &Path) -> bool {
    let mut nothing = [0_u8; 0];
    rustix::fs::getxattr(path, "system.posix_acl_access", &mut nothing[..]).is_ok()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn has_access_list(_path: &Path) -> bool {
    false
}

/// Returns whether this number stands for all owners that do not exist in this user namespace
/// (user_namespaces(7)). In a container that maps only some users, files of the real root have this
/// owner, and no process in the container can act as that owner.
#[cfg(target_os = "linux")]
fn is_unmapped(uid: u32) -> bool {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let overflow = read("/proc/sys/kernel/overflowuid").trim().parse();
    if overflow != Ok(uid) {
        return false;
    }
    let map = read("/proc/self/uid_map");
    let ranges = map.lines().filter_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let first = numbers.next()?.ok()?;
        let count = numbers.nth(1)?.ok()?;
        Some(first..first + count)
    });
    let ranges: Vec<_> = ranges.collect();
    !ranges.is_empty() && !ranges.iter().any(|range| range.contains(&u64::from(uid)))
}

#[cfg(not(target_os = "linux"))]
fn is_unmapped(_uid: u32) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    /// Any account other than ours and root's.
    const OTHER: u32 = 65_534;

    #[test]
    fn every_component_is_judged() {
        if !rustix::process::geteuid().is_root() {
            return mainstay_testkit::skip("only root gives files away");
        }
        let sandbox = mainstay_testkit::Sandbox::new();
        let here = sandbox.path();
        let chmod = |name: &str, mode: u32| {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(here.join(name), mode).expect("ours");
        };
        let give = |name: &str, uid: Option<u32>, gid: Option<u32>| {
            std::os::unix::fs::lchown(here.join(name), uid, gid).expect("ours");
        };
        let check = |name: &str, expect: Option<(&str, Why)>| {
            let found = exposure(&here.join(name)).expect("it can be looked at");
            let found = found.map(|it| (it.path, it.why));
            let expect = expect.map(|(name, why)| (here.join(name), why));
            assert_eq!(found, expect, "{name}");
        };
        fs::create_dir_all(here.join("dir/below")).expect("ours");
        fs::write(here.join("dir/below/file"), "").expect("ours");
        chmod("dir/below/file", 0o755);
        symlink("dir/below", here.join("link")).expect("ours");
        symlink(here.join("dir/below/file"), here.join("dir/to-file")).expect("ours");
        symlink("loop", here.join("loop")).expect("ours");
        check("dir/below/file", None);
        check("link/file", None);
        check("link/../to-file", None);
        check("dir/missing/file", None);
        assert!(exposure(&here.join("loop")).is_err());

        chmod("dir/below/file", 0o757);
        let at_file = Some(("dir/below/file", Why::OthersMayWrite));
        check("dir/below/file", at_file);
        check("link/file", at_file);
        chmod("dir/below/file", 0o775);
        check("dir/below/file", None);
        give("dir/below/file", None, Some(OTHER));
        let of_group = Some(("dir/below/file", Why::GroupMayWrite(OTHER)));
        check("dir/to-file", of_group);
        chmod("dir/below/file", 0o755);
        check("dir/below/file", None);

        chmod("dir", 0o777);
        check("link/file", Some(("dir", Why::OthersMayWrite)));
        chmod("dir", 0o1777);
        check("link/file", None);
        check("dir", Some(("dir", Why::OthersMayWrite)));
        give("dir/below", Some(OTHER), None);
        check("link/file", Some(("dir/below", Why::ForeignOwner)));
        give("dir/below", Some(0), None);
        give("link", Some(OTHER), None);
        check("link/file", Some(("link", Why::ForeignLink)));
        check("dir/to-file", None);
        chown(here.join("dir/below/file"), Some(OTHER), None).expect("ours");
        check("dir/to-file", Some(("dir/below/file", Why::ForeignOwner)));
    }
}
