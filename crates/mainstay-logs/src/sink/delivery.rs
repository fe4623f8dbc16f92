//! The time limits of a delivery to a target, and the reasons why it fails.

use std::io;
use std::time::Duration;

use mainstay_core::spec::ServiceName;

use super::Lost;

/// The time limit for a connection attempt.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The time after which a target that accepts nothing counts as unreachable.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The reason why lines were not sent.
pub(super) enum Refusal {
    /// The connection failed. Lines not marked as sent were not sent, or not completely.
    Connection { cause: String },
    /// The target closed the connection in an orderly way, which is not a failure.
    Closed,
    /// The target reported that it did not accept earlier datagrams. Lines not marked as sent were
    /// not sent.
    Datagram {
        lost: Vec<(ServiceName, Lost)>,
        cause: String,
    },
}

impl Refusal {
    pub(super) fn connection(what: &str, error: &io::Error) -> Self {
        let cause = format!("{what}: {error}");
        Self::Connection { cause }
    }
}
