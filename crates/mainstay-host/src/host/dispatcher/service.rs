//! The record of one service.

use std::collections::BTreeMap;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;

use mainstay_core::engine::{Exit, RunId};
use mainstay_core::registry::TextDigest;
use mainstay_core::spec::Spec;
use mainstay_core::time::Instant;
use mainstay_logs::Task;
use mainstay_store::embedded::{Definition, Desired};

use crate::host::effects::{Account, Loaded, share_log};

/// The dispatcher's record of one service, or of a definition of it that is on trial.
pub(super) struct Service {
    pub(super) spec: Arc<Spec>,
    /// The base directory of the spec's relative paths.
    pub(super) dir: PathBuf,
    /// The version of the installation; 0 if the service is not installed.
    pub(super) version: u64,
    /// The digest of the definition's text, if known.
    pub(super) digest: Option<TextDigest>,
    pub(super) account: Account,
    /// The definition that takes effect at the end of the current run.
    pub(super) next: Option<Loaded>,
    /// Set if an update changed the definition and the manifest may not contain the change yet.
    pub(super) is_updated: bool,
    /// The tasks of its logs that fail, by the directory of the files.
    pub(super) log_problems: BTreeMap<(PathBuf, Task), String>,
    /// Problems of sinks that accept no lines, by sink.
    pub(super) sink_problems: BTreeMap<String, String>,
    pub(super) running: Option<Running>,
    /// The time of its last fact.
    pub(super) told_at: Instant,
    /// Set if the last start failed because the program or a file that it needs was missing.
    pub(super) lacks_part: bool,
    /// Set if an operator stopped the service by name and nobody has started it since.
    pub(super) is_stopped: bool,
    /// The desired state as it was last written to disk.
    pub(super) desired: Option<Desired>,
    /// The error of the last attempt to write the desired state. The write is retried.
    pub(super) desired_problem: Option<String>,
}

/// A run that may have processes.
pub(super) struct Running {
    pub(super) run: RunId,
    /// Set if an earlier definition started this run.
    pub(super) is_outdated: bool,
    /// Set from the start of the quiesce command to the end of the thaw command.
    pub(super) is_quiesced: bool,
    /// The digest of the definition that started this run, if known.
    pub(super) digest: Option<TextDigest>,
}

/// A service that a predecessor has left.
pub(in crate::host) struct Taken<A> {
    /// Set if an operator stopped the service by name.
    pub(in crate::host) is_stopped: bool,
    /// The processes, if there are any.
    pub(in crate::host) adopted: Option<A>,
    /// The end of its main process, if that has ended, as far as known.
    pub(in crate::host) exit: Option<Exit>,
    /// Set if an earlier definition started the run.
    pub(in crate::host) is_outdated: bool,
    /// Set if the run waits for the thaw command.
    pub(in crate::host) is_quiesced: bool,
    /// The digest of the definition that started the run, if known.
    pub(in crate::host) digest: Option<TextDigest>,
}

impl Service {
    pub(super) fn new(definition: Definition, account: Account) -> Self {
        Self {
            spec: definition.spec,
            dir: definition.dir,
            version: definition.version,
            digest: definition.digest,
            account,
            next: None,
            is_updated: false,
            log_problems: BTreeMap::new(),
            sink_problems: BTreeMap::new(),
            running: None,
            told_at: Instant::ZERO,
            lacks_part: false,
            is_stopped: definition.desired == Some(Desired::Stopped),
            desired: definition.desired,
            desired_problem: None,
        }
    }

    /// Returns whether the definition is this one, apart from its wording.
    pub(super) fn is_defined_as(&self, other: &Definition) -> bool {
        let now = (self.version, &self.spec, &self.dir);
        let (version, spec, dir) =
            self.next.as_ref().map_or(now, |Loaded { definition, .. }| {
                (definition.version, &definition.spec, &definition.dir)
            });
        (version, spec, dir) == (other.version, &other.spec, &other.dir)
    }

    /// Takes over what belongs to the service, not to one of its definitions.
    pub(super) fn replace(&mut self, old: &mut Self) {
        self.log_problems = mem::take(&mut old.log_problems);
        self.sink_problems = mem::take(&mut old.sink_problems);
        self.is_stopped = old.is_stopped;
        self.desired = old.desired.take();
        self.desired_problem = old.desired_problem.take();
    }

    /// Replaces the digest after the definition's text changed without changing its meaning.
    pub(super) fn reword(&mut self, digest: Option<TextDigest>) {
        let running = self.running.as_mut().filter(|running| !running.is_outdated);
        if let Some(running) = running {
            running.digest.clone_from(&digest);
        }
        self.digest = digest;
    }

    /// The version of the definition that the service has, or will have from its next start on.
    pub(super) fn latest_version(&self) -> u64 {
        let next = self.next.as_ref();
        next.map_or(self.version, |next| next.definition.version)
    }

    /// The digest of the definition that the service has, or will have from its next start on.
    pub(super) fn latest_digest(&self) -> Option<&TextDigest> {
        match &self.next {
            Some(next) => next.definition.digest.as_ref(),
            None => self.digest.as_ref(),
        }
    }

    /// Returns whether both definitions write the same log as the same account.
    pub(super) fn has_log_of(&self, other: &Self) -> bool {
        share_log(
            (&self.spec, &self.dir, &self.account),
            (&other.spec, &other.dir, &other.account),
        )
    }
}
