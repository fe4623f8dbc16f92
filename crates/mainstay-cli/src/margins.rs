//! The time limits that a service manager grants a host, and the rest of a host's definition that
//! follows from its service.

use std::time::Duration;

use mainstay::{Accepts, Definition, Recovery};
use mainstay_core::spec::Spec;

/// The time that a host needs in addition to its service's own time, to write what is left of the
/// output.
pub(crate) const MARGIN: Duration = Duration::from_secs(10);
/// The delay between a crash of a host and its next start.
const PAUSE: Duration = Duration::from_secs(1);

/// Completes the definition of a host with the settings that depend on its service. They are the
/// same at installation and at run time.
pub(crate) fn of_host(host: Definition, spec: &Spec) -> Definition {
    let graceful = spec.stop().graceful().saturating_add(MARGIN);
    host.start_timeout(host_start_timeout(spec))
        .graceful(graceful)
        .windows(|windows| windows.preshutdown(graceful))
        .accepts(Accepts::PAUSE | Accepts::RELOAD)
        // The host restarts the program by the contract of its exit codes. The manager restarts
        // only the host.
        .recovery(Recovery {
            restart_after: vec![PAUSE],
            crashes_only: true,
            ..Recovery::default()
        })
}

/// Returns the start timeout of a host for its manager, which includes the time that the host
/// itself needs.
pub(crate) fn host_start_timeout(spec: &Spec) -> Duration {
    start_limit(spec).saturating_add(MARGIN)
}

/// Returns the time after which a host counts as up for its manager, ready or not: `start.timeout`
/// for its program, and the same again if the service has needs.
pub(crate) fn start_limit(spec: &Spec) -> Duration {
    let timeout = spec.start().timeout();
    let needs = match spec.needs() {
        [] => Duration::ZERO,
        _ => timeout,
    };
    needs.saturating_add(timeout)
}
