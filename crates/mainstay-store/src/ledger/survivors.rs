//! The processes of a dead supervisor's services, as the system shows them.

use std::collections::BTreeMap;

use mainstay_sys as sys;

/// The processes of a dead supervisor's services that are still alive, according to the system.
#[derive(Default)]
pub struct Survivors {
    /// The process IDs of each service.
    pub(super) pids: BTreeMap<String, Vec<u32>>,
    pub(super) mains: BTreeMap<String, sys::Found>,
}

impl Survivors {
    /// Finds the survivors by their supervisor's orphan markers. Where there are no cgroups, this
    /// looks at every process.
    pub fn of(orphan_markers: &[String]) -> Self {
        let mut all = Self::default();
        for survivor in orphan_markers.iter().flat_map(|it| sys::survivors(it)) {
            let sys::Survivor {
                service,
                pids,
                main,
            } = survivor;
            all.pids.entry(service.clone()).or_default().extend(pids);
            let Some(main) = main else { continue };
            let known = all.mains.entry(service).or_insert_with(|| main.clone());
            // Probes have trees of their own. They started later than the main process.
            if main.began < known.began {
                *known = main;
            }
        }
        all
    }

    /// Returns a sentence about a service's surviving processes, if there are any.
    pub fn said(&self, service: &str) -> Option<String> {
        let pids = self.pids.get(service)?.iter().take(5);
        let pids: Vec<String> = pids.map(u32::to_string).collect();
        let pids = pids.join(", ");
        Some(format!("its processes are still running (pid {pids})"))
    }

    /// Returns whether any process of the service is alive.
    pub fn has(&self, service: &str) -> bool {
        self.pids.contains_key(service)
    }

    /// Returns the names of the services with surviving processes.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.pids.keys().map(String::as_str)
    }
}
