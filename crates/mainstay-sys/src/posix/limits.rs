//! Resource limits of this process and its children.

use std::io;
use std::sync::OnceLock;

use mainstay_core::spec::Limits;

use super::cvt;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
type Resource = libc::c_int;

/// Returns each limit with its system resource and its manifest key.
fn all(limits: Limits) -> [(Resource, &'static str, Option<u64>); 4] {
    let Limits {
        open_files,
        processes,
        core_size,
        locked_memory,
    } = limits;
    [
        (libc::RLIMIT_NOFILE, "open_files", open_files),
        (libc::RLIMIT_NPROC, "processes", processes),
        (libc::RLIMIT_CORE, "core_size", core_size),
        (libc::RLIMIT_MEMLOCK, "locked_memory", locked_memory),
    ]
}

/// Returns the system's maximum number of descriptors per process (proc_sys_fs(5)).
fn most_open_files() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/fs/nr_open").ok()?;
    text.trim_end().parse().ok()
}

/// Replaces an unlimited number of descriptors with the system's maximum, because Linux does
/// not support an unlimited one.
pub(super) fn possible(limits: Limits) -> Limits {
    let is_unlimited = limits.open_files == Some(Limits::UNLIMITED);
    match most_open_files().filter(|_| is_unlimited) {
        Some(most) => Limits {
            open_files: Some(most),
            ..limits
        },
        None => limits,
    }
}

fn amount(value: u64) -> libc::rlim_t {
    // `rlim_t` is signed on some systems.
    libc::rlim_t::try_from(value).unwrap_or(libc::RLIM_INFINITY)
}

/// Returns why this process may not give its children these limits, for the first one that is too
/// high; `None` if it may. It tries to raise its own hard limit to find out.
pub fn refused_limit(limits: Limits) -> Option<String> {
    let wanted = all(possible(limits)).into_iter();
    wanted
        .filter_map(|(resource, key, value)| Some((resource, key, value?)))
        .find_map(|(resource, key, value)| {
            let mut before = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: the resource exists, and `before` has room for its value.
            cvt(unsafe { libc::getrlimit(resource, &mut before) }).ok()?;
            if amount(value) <= before.rlim_max {
                return None;
            }
            let raised = libc::rlimit {
                rlim_max: amount(value),
                ..before
            };
            // SAFETY: as above; a raised limit is lowered again at once.
            let error = unsafe {
                match cvt(libc::setrlimit(resource, &raw const raised)) {
                    Ok(_) => {
                        libc::setrlimit(resource, &raw const before);
                        return None;
                    }
                    Err(error) => error,
                }
            };
            Some(why(key, value, before.rlim_max, &error))
        })
}

fn why(key: &str, value: u64, hard: libc::rlim_t, error: &io::Error) -> String {
    let value = match value {
        Limits::UNLIMITED => "unlimited".to_owned(),
        value => value.to_string(),
    };
    let most = most_open_files().filter(|_| key == "open_files");
    let most = most.map_or(String::new(), |most| format!(", fs.nr_open is {most}"));
    format!("limits.{key} = {value}: {error}; the supervisor's hard limit is {hard}{most}")
}

/// Sets all limits and returns whether that succeeded; `errno` has the reason if not.
///
/// # Safety
/// No requirements beyond the system's. It is async-signal-safe.
pub(super) unsafe fn set(limits: Limits) -> bool {
    all(limits).into_iter().all(|(resource, _, value)| {
        let Some(value) = value else { return true };
        let limit = libc::rlimit {
            rlim_cur: amount(value),
            rlim_max: amount(value),
        };
        // SAFETY: the resource exists.
        unsafe { libc::setrlimit(resource, &raw const limit) == 0 }
    })
}

/// The descriptor limit of the supervisor before [`raise_limits`], restored in its children.
pub(super) static INHERITED_FILES: OnceLock<libc::rlimit> = OnceLock::new();

/// Raises the soft descriptor limit to the hard limit, because each service takes three. The usual
/// soft limit of 1024 exists for `select`, which is not used here; children get it back because
/// they may use `select`.
pub(crate) fn raise_limits() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointers are valid for the calls; nothing else in this process changes limits at
    // the same time.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0
            && INHERITED_FILES.set(limit).is_ok()
        {
            let raised = libc::rlimit {
                rlim_cur: limit.rlim_max,
                ..limit
            };
            // On failure fewer services fit, and the first one that does not reports why.
            libc::setrlimit(libc::RLIMIT_NOFILE, &raised);
        }
    }
}
