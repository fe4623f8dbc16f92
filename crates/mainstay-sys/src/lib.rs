//! The operating system, as the command's side of mainstay uses it: processes and process trees,
//! threads, users, sockets, access to files that other accounts may control, and lock files.
//!
//! This is the only crate on the command's side that contains `unsafe`. (The library `mainstay` has
//! a `sys` module of its own.) Each operating system has its own module; all of them export the
//! same names. The crate decides nothing about services: it does not know the engine, manifests,
//! the state directory or the log files.
//!
//! - [`Processes`], [`Tree`], [`Command`]: see `process.rs` for the rules
//! - [`threads`]: threads with small stacks
//! - [`aside`]: calls that may block, on threads of their own and bounded
//! - [`guarded`]: opening paths that another account may control
//! - `trust`: whether another account can change a path
//! - `rights`: whether an account can reach a path
//! - [`access`]: paths that this process cannot read, and how to run the command with more rights
//! - [`lock_file`]: files that exist to be locked
//! - [`private`]: files and directories that only their owner can read
#![cfg_attr(
    all(test, target_os = "linux"),
    expect(
        clippy::duplicate_mod,
        reason = "the suite is one, its `super` is the implementation under test"
    )
)]

pub mod access;
pub mod aside;
#[cfg(unix)]
mod deaths;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
pub mod guarded;
#[cfg(target_os = "linux")]
mod linux;
pub mod lock_file;
#[cfg(unix)]
mod posix;
pub mod private;
#[cfg(unix)]
mod privilege;
mod process;
#[cfg(unix)]
pub mod rights;
pub mod threads;
#[cfg(unix)]
pub mod trust;
// Linux builds it for tests only, because it can run there.
#[cfg(all(unix, any(test, not(target_os = "linux"))))]
#[cfg_attr(
    target_os = "linux",
    expect(unreachable_pub, reason = "exported on other systems")
)]
mod unix;
#[cfg(windows)]
mod windows;
// The pure parts of the Windows module are tested on every system.
#[cfg(all(test, not(windows)))]
#[path = "windows/acl.rs"]
mod windows_acl;

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{
    Members, PlaceWatch, boot, condition, end_remains, end_service, end_tree, enter_system_mounts,
    exchange, forget_service, give_memory_back, home_of_pids, lives, orphan_marker,
    orphan_marker_of, own_identity, release_memory, runs_replaced_file, settle_in, supervisor_of,
    survivors, uptime,
};
#[cfg(all(unix, not(target_os = "linux")))]
pub use elsewhere::{is_dead, yield_to_others};
#[cfg(target_os = "linux")]
pub use linux::{
    Keeper, Members, PlaceWatch, Processes, Tree, boot, condition, end_remains, end_service,
    end_tree, enter_system_mounts, exchange, forget_service, give_memory_back, home_of_pids,
    is_dead, lives, orphan_marker, orphan_marker_of, own_identity, release_memory,
    runs_replaced_file, settle_in, supervisor_of, survivors, uptime, yield_to_others,
};
#[cfg(unix)]
pub use posix::{
    Socket, Stream, User, connect_unix, exposure, group_named, has_group, lacking_capabilities,
    lacks_interpreter, listen, null, oem_code_page, open_own, probe_unix, read_from_start,
    receive_signals, refused_limit, refused_settings, share, stream, unusable_paths, utc_offset,
    why_not_executed, write_at,
};
#[cfg(unix)]
pub use privilege::{current_uid, is_current_user, is_privileged};
#[cfg(unix)]
pub use process::INSTANCE;
pub use process::{
    Birth, Command, Condition, Containment, Exit, Found, Identity, RefusedSetting, SUPERVISED_FROM,
    SpawnError, Survivor, TreeId, Usage, is_lacking,
};
#[cfg(all(unix, not(target_os = "linux")))]
pub use unix::{Processes, Tree};
#[cfg(windows)]
pub use windows::access::{
    Access, Account, Visibility, entrust, exposure as acl_exposure, exposure_of_program, is_foreign,
};
#[cfg(windows)]
pub use windows::pipe::{Instance, create_pipe, output_pipe, pipe_server};
#[cfg(windows)]
pub use windows::sockets::{Socket, listen, share};
#[cfg(windows)]
pub use windows::{
    Processes, Stream, Tree, User, console_size, exposure, is_current_user, is_dead, is_privileged,
    lacking_capabilities, null, oem_code_page, open_own, read_from_start, refused_limit,
    refused_settings, run_as_helper, stream, unusable_paths, utc_offset, write_at, yield_to_others,
};
