//! Code common to all Unix systems.

#[cfg_attr(target_os = "linux", path = "linux/capabilities.rs")]
mod capabilities;
mod child;
mod descriptors;
mod executable;
mod file;
#[cfg_attr(target_os = "linux", path = "linux/identity.rs")]
mod identity;
mod image;
mod limits;
mod peer;
mod processors;
mod settings;
mod signal;
mod socket;
mod user;
mod wait;

use std::ffi::c_int;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use mainstay_core::windows::paths::Unusable;

pub use self::executable::{lacks_interpreter, why_not_executed};
pub use self::file::{exposure, null, open_own, read_from_start, write_at};
pub use self::limits::refused_limit;
pub use self::peer::has_group;
pub use self::settings::{lacking_capabilities, refused_settings};
pub use self::signal::receive_signals;
pub use self::socket::{Socket, connect_unix, listen, probe_unix, share};
pub use self::user::{User, group_named};

pub(super) use self::child::Child;
#[cfg(any(test, not(target_os = "linux")))]
pub(super) use self::child::{Step, failure};
pub(super) use self::descriptors::seal_inherited;
pub(super) use self::image::Image;
pub(super) use self::limits::raise_limits;
pub(super) use self::signal::{SignalsBlocked, ignore_signals, number};
pub(super) use self::wait::{exit, kill, wait, wait_for};

/// A standard stream of a child.
pub type Stream<'a> = BorrowedFd<'a>;

/// Returns a random ID that distinguishes this supervisor's markers from another's. It is not a
/// secret.
pub(super) fn random_id() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// Converts a result of -1 into the error in `errno`.
pub(super) fn cvt(result: c_int) -> io::Result<c_int> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Borrows an open descriptor as a child's stream.
pub fn stream(end: &impl AsFd) -> Stream<'_> {
    end.as_fd()
}

/// Returns `None`: Unix has no OEM code page.
pub fn oem_code_page() -> Option<mainstay_core::log::encoding::pages::Page> {
    None
}

/// Returns `None`: a start reports the error of the system.
pub fn unusable_paths(_program: &Path, _working_dir: &Path) -> Option<Unusable> {
    None
}

/// Returns the seconds by which local time is ahead of UTC at an instant, given in seconds since
/// 1970; 0 if unknown.
pub fn utc_offset(utc: i64) -> i32 {
    let utc = utc as _;
    let mut local = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: reads `utc` and writes `local`, which both outlive the call. It also reads the
    // environment, which this program never changes.
    let converted = unsafe { libc::localtime_r(&utc, local.as_mut_ptr()) };
    if converted.is_null() {
        return 0;
    }
    // SAFETY: it was zeroed, which is a valid value, and then filled in.
    let local = unsafe { local.assume_init() };
    i32::try_from(local.tm_gmtoff).unwrap_or(0)
}
