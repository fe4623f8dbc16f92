//! The storage that outlives this process: the ledger, desired states, updated definitions.

use std::io;

use mainstay_core::engine::ServiceId;
use mainstay_core::spec::ServiceName;
use mainstay_store::embedded::{self, Desired};
use mainstay_store::ledger::{Entry, Ledger, ManifestCopy, Updated};

use super::Executor;
use crate::host::effects::{Entries, LedgerProblem, Storage};

impl Executor {
    fn ledger_failure(&self, why: &str) -> LedgerProblem {
        LedgerProblem(self.state.ledger_path(), why.to_owned())
    }

    /// Returns whether the ledger file is still in place; true if there is no ledger.
    pub(in crate::host) fn has_ledger(&self) -> bool {
        self.ledger.as_ref().is_none_or(Ledger::is_in_place)
    }
}

impl Storage for Executor {
    fn begin_ledger(
        &mut self,
        copy: Option<&ManifestCopy>,
        entries: Entries,
    ) -> Result<(), LedgerProblem> {
        if !self.is_adoptable {
            return Ok(());
        }
        if self.ledger.is_some() {
            self.renew_ledger(entries);
            return Ok(());
        }
        let head = (&*self.manifest, &*self.orphan_markers);
        let begun = Ledger::begin(&self.state, head, copy, entries);
        self.ledger = begun.map_err(|error| self.ledger_failure(&error.to_string()))?;
        Ok(())
    }

    fn renew_ledger(&mut self, entries: Entries) {
        if let Some(ledger) = &mut self.ledger {
            ledger.renew(&self.state, entries);
        }
    }

    fn write_entry(&mut self, id: ServiceId, entry: Entry) -> io::Result<()> {
        let ledger = self.ledger.as_mut();
        ledger.map_or(Ok(()), |ledger| ledger.write(id, entry))
    }

    fn ledger_problem(&self) -> Option<LedgerProblem> {
        let why = self.ledger.as_ref()?.problem()?;
        Some(self.ledger_failure(why))
    }

    fn write_desired(&mut self, name: &ServiceName, desired: Option<&Desired>) -> io::Result<()> {
        embedded::write_desired(&self.state, name.as_str(), desired)
    }

    fn store_update(&mut self, name: &ServiceName, written: &Updated) -> io::Result<()> {
        written.write(&self.state, name.as_str())
    }
}
