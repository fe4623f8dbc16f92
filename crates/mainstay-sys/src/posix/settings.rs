//! Settings of a program that the system may refuse.

use std::ffi::c_int;

use mainstay_core::spec::Priority;

use super::capabilities;
#[cfg(target_os = "linux")]
use super::processors;
use crate::process::RefusedSetting;

pub(super) fn nice(priority: Priority) -> c_int {
    match priority {
        Priority::Low => 19,
        Priority::BelowNormal => 10,
        Priority::Normal => 0,
        Priority::AboveNormal => -5,
        Priority::High => -10,
    }
}

/// Returns a setting that a program cannot be given, as far as that can be determined before it
/// starts. Each setting is tried in a separate thread, which then ends. Systems other than Linux
/// apply the settings to the whole process, so there only the start itself reveals a refusal.
#[cfg(target_os = "linux")]
pub fn refused_settings(
    cpus: &[u16],
    priority: Option<Priority>,
    capabilities: &[String],
) -> Option<RefusedSetting> {
    let try_all = || {
        // SAFETY: system calls on this thread alone, with checked arguments.
        let is_bound = processors::check(cpus).is_ok() && unsafe { processors::bind(cpus) };
        if !is_bound {
            return Some(RefusedSetting::Processors);
        }
        // SAFETY: no memory is involved.
        let is_refused = |nice| unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } == -1;
        if priority.map(nice).is_some_and(is_refused) {
            return Some(RefusedSetting::Priority);
        }
        let lacks = |name: &&String| !capabilities::can_be_given(name);
        let lacking = capabilities.iter().find(lacks)?;
        Some(RefusedSetting::Capability(lacking.clone()))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, try_all);
        thread.ok()?.join().ok()?
    })
}

/// Returns `None`: only the start itself reveals a refusal.
#[cfg(not(target_os = "linux"))]
pub fn refused_settings(
    _cpus: &[u16],
    _priority: Option<Priority>,
    _capabilities: &[String],
) -> Option<RefusedSetting> {
    None
}

/// Returns those of these capabilities that programs started by this process as its own user do not
/// get.
pub fn lacking_capabilities(names: &[String]) -> Vec<&String> {
    let lacks = |name: &&String| !capabilities::is_passed_on(name);
    names.iter().filter(lacks).collect()
}
