//! The effective user of this process.

/// Returns whether this process has all privileges, that is, its effective user is root.
pub fn is_privileged() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns the effective user ID of this process.
pub fn current_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Returns whether `uid` is the effective user ID of this process.
pub fn is_current_user(uid: u32) -> bool {
    uid == current_uid()
}
