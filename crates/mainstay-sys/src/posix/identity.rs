//! The changes of identity in a child. The functions set `errno`.

pub(super) fn set_groups(groups: &[libc::gid_t]) -> bool {
    // SAFETY: the slice has as many IDs as its length says.
    unsafe { libc::setgroups(groups.len() as _, groups.as_ptr()) == 0 }
}

pub(super) fn set_gid(gid: libc::gid_t) -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::setgid(gid) == 0 }
}

pub(super) fn set_uid(uid: libc::uid_t) -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::setuid(uid) == 0 }
}
