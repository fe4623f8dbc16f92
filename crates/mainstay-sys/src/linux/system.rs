//! The system as a whole: its boot, clocks and mounts, and the share of it that a thread takes.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Returns the time since boot in clock ticks, as /proc/PID/stat counts them.
pub(super) fn ticks() -> u64 {
    let per_second = u128::from(rustix::param::clock_ticks_per_second());
    let ticks = since_boot(ClockId::Boottime).as_nanos() * per_second / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// Returns the time that the system has run, excluding suspensions, as every duration is counted
/// here.
pub fn uptime() -> Duration {
    since_boot(ClockId::Monotonic)
}

/// Returns the total time that the system has been suspended since boot.
pub(super) fn suspended() -> Duration {
    since_boot(ClockId::Boottime).saturating_sub(uptime())
}

fn since_boot(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    now.try_into().unwrap_or_default()
}

/// Moves this thread into the mount namespace of the system's first process, if permitted. The
/// mounts of a unit with a dynamic account hide the state of all other units. Must be called before
/// other threads exist.
pub fn enter_system_mounts() -> io::Result<()> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let mounts = File::open("/proc/1/ns/mnt")?;
    Ok(move_into_link_name_space(
        mounts.as_fd(),
        Some(LinkNameSpaceType::Mount),
    )?)
}

/// Returns the ID of the current boot. Records from another boot are void. `None` if the system
/// does not provide an ID.
pub fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim_end().to_owned())
}

/// Returns the boot and the pid namespace in which a pid identifies a process. `None` if the system
/// does not provide them.
pub fn home_of_pids() -> Option<String> {
    let pids = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{}/{}", boot()?, pids.display()))
}

/// Lets this thread run, and use the disk, only when the system is otherwise idle. This is best
/// effort: a refused setting stays as it is.
pub fn yield_to_others() {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_IDLE: libc::c_int = 3 << 13;
    let this_thread = 0;
    // SAFETY: the struct consists of numbers only, whatever the C library adds to the priority.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: `parameters` outlives the call, which only reads it; 0 is this thread.
    let _refused = unsafe { libc::sched_setscheduler(this_thread, libc::SCHED_IDLE, &parameters) };
    let _refused = rustix::process::setpriority_process(None, 19);
    // SAFETY: takes numbers only: ioprio_set(2), for which libc has no function.
    let _refused = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            this_thread,
            IOPRIO_CLASS_IDLE,
        )
    };
}

/// Makes the allocator return large blocks to the system as soon as they are freed, from now on.
/// Otherwise glibc keeps some megabytes after such blocks have been allocated and freed, and
/// `malloc_trim` does not reach those of other threads.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers only, and a threshold may change at any time.
    let _accepted = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10) };
}

/// Exchanges the names of two files.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}
