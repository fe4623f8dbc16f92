//! The simulated disk.

use std::collections::BTreeMap;

use mainstay_core::engine::ServiceId;
use mainstay_store::embedded::Desired;
use mainstay_store::ledger::Entry;

/// The data that outlives a supervisor.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Set once this supervisor has begun a ledger.
    pub(super) has_ledger: bool,
    pub(super) owners: Vec<ServiceId>,
    pub(super) entries: Vec<Entry>,
    pub(super) problem: Option<String>,
    pub(super) desired: BTreeMap<String, Desired>,
    pub(super) installed: BTreeMap<&'static str, Installed>,
    /// The definitions that the supervisor has accepted.
    pub(super) accepted: BTreeMap<&'static str, Installed>,
}

/// A definition in the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) variant: usize,
    pub(super) version: u64,
}
