//! The changes of identity in a child. The functions set `errno`.
//!
//! The C library's functions change *every* thread that they track, and in a child that shares
//! memory those are the parent's. These are the bare system calls.

use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

pub(super) fn set_groups(groups: &[libc::gid_t]) -> bool {
    // SAFETY: `Gid` is a transparent wrapper around gid_t.
    let groups = unsafe { std::slice::from_raw_parts(groups.as_ptr().cast::<Gid>(), groups.len()) };
    report(set_thread_groups(groups))
}

pub(super) fn set_gid(gid: libc::gid_t) -> bool {
    let gid = Gid::from_raw(gid);
    report(set_thread_res_gid(gid, gid, gid))
}

pub(super) fn set_uid(uid: libc::uid_t) -> bool {
    let uid = Uid::from_raw(uid);
    report(set_thread_res_uid(uid, uid, uid))
}

pub(super) fn report(result: rustix::io::Result<()>) -> bool {
    let Err(error) = result else { return true };
    // SAFETY: `errno` belongs to this thread.
    unsafe { *libc::__errno_location() = error.raw_os_error() };
    false
}
