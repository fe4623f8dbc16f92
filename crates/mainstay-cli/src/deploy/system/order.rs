//! Orders: services to be installed, and how.

use std::path::PathBuf;

use mainstay::Account;
use mainstay_core::registry::Expected;
use mainstay_core::spec::Spec;
use mainstay_host::manifest_file::Loaded;

use crate::installed::Record;

/// A service to be installed.
pub(crate) struct Wanted<'a> {
    pub(crate) spec: &'a Spec,
    /// The account under which the manager runs the program or its host.
    pub(crate) account: Account,
    /// Requests the tightest sandbox the service can run in, if its manager supports sandboxes.
    pub(crate) has_sandbox: bool,
}

/// Services of a manifest to be installed, with their manager and mode.
pub(crate) struct Order<'a> {
    pub(crate) manifest: &'a Loaded,
    pub(crate) wanted: Vec<Wanted<'a>>,
    pub(crate) record: Record,
    /// The versions that the installation may replace.
    pub(crate) expected: Expected,
    /// The root directory of the system to install into, if it is not this one.
    pub(crate) root: Option<PathBuf>,
}
