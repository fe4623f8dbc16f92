//! Recovery: the restarts of a service, and its alerts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::{Argv, Backoff};

/// The reaction to an exit (docs/exit-codes.md).
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    pub(crate) policy: Policy,
    pub(crate) backoff: Backoff,
    pub(crate) reset_after: Duration,
    pub(crate) limit: Option<RestartLimit>,
    pub(crate) codes: BTreeMap<i32, CodeAction>,
}

impl Recovery {
    /// Returns the policy for exits outside the exit code contract.
    pub fn policy(&self) -> Policy {
        self.policy
    }
    /// Returns the delays between consecutive restarts.
    pub fn backoff(&self) -> Backoff {
        self.backoff
    }
    /// Returns the run time after which the count of consecutive restarts is reset.
    pub fn reset_after(&self) -> Duration {
        self.reset_after
    }
    /// Returns the restart limit; `None` is unlimited.
    pub fn limit(&self) -> Option<RestartLimit> {
        self.limit
    }
    /// Returns the number of restarts that the backoff permits within the limit's window, if that
    /// is too few for even a program that always fails at once to reach the limit.
    pub(crate) fn most_restarts(&self) -> Option<u32> {
        let limit = self.limit?;
        let restarts = |action: &CodeAction| *action == CodeAction::Restart;
        if self.policy != Policy::Restart && !self.codes.values().any(restarts) {
            return None;
        }
        let mut elapsed = Duration::ZERO;
        for restart in 0..limit.restarts {
            elapsed += self.backoff.shortest(restart);
            if elapsed >= limit.window {
                return Some(restart + 1);
            }
            if restart > 0 && self.backoff.shortest(restart).is_zero() {
                break;
            }
        }
        None
    }
    /// Returns the exit codes whose action the manifest overrides: 0–255, and on Windows any 32-bit
    /// number.
    pub fn codes(&self) -> &BTreeMap<i32, CodeAction> {
        &self.codes
    }
}

/// The receivers of alerts that require operator action: a command, a webhook, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnAlert {
    pub(crate) exec: Option<Argv>,
    pub(crate) timeout: Duration,
    pub(crate) webhook: Option<Webhook>,
    pub(crate) limit: Option<AlertLimit>,
}

impl OnAlert {
    /// Returns the alert command, which runs as the service's account.
    pub fn exec(&self) -> Option<&Argv> {
        self.exec.as_ref()
    }
    /// Returns the time limit of the alert command.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
    /// Returns the webhook that alerts are sent to.
    pub fn webhook(&self) -> Option<&Webhook> {
        self.webhook.as_ref()
    }
    /// Returns the rate limit for alerts; `None` is unlimited.
    pub fn limit(&self) -> Option<AlertLimit> {
        self.limit
    }
}

/// A rate limit for alerts: at most `alerts` within `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertLimit {
    pub(crate) alerts: u32,
    pub(crate) window: Duration,
}

impl AlertLimit {
    /// Returns the maximum number of alerts, at least 1.
    pub fn alerts(self) -> u32 {
        self.alerts
    }
    /// Returns the length of the sliding window.
    pub fn window(self) -> Duration {
        self.window
    }
}

/// An HTTP receiver of alerts, which authenticates mainstay by a shared key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub(crate) url: WebhookUrl,
    pub(crate) secret_file: PathBuf,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) timeout: Duration,
    pub(crate) deadline: Duration,
}

impl Webhook {
    /// Returns the URL of the receiver.
    pub fn url(&self) -> &WebhookUrl {
        &self.url
    }
    /// Returns the path of the key file, or `credential:NAME` for a systemd credential. A path is
    /// relative to the manifest's directory.
    pub fn secret_file(&self) -> &Path {
        &self.secret_file
    }
    /// Returns the path of the PEM certificates to trust for TLS; `None` uses the system's trust
    /// store. Relative to the manifest's directory.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }
    /// Returns the time limit of one delivery attempt.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
    /// Returns the time after which delivery of an alert is abandoned.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// A URL `https://…`, or `http://…` on the local machine. The path may be a secret: `Debug` and
/// `Display` show only the scheme and the host.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    pub(crate) text: String,
    /// The length in bytes of the scheme and the host.
    pub(crate) origin: usize,
    pub(crate) is_local: bool,
}

impl WebhookUrl {
    /// Returns the complete URL, including the secret part.
    pub fn reveal(&self) -> &str {
        &self.text
    }
    /// Returns whether the receiver is on the local machine.
    pub fn is_local(&self) -> bool {
        self.is_local
    }
    /// Returns whether the request uses TLS.
    pub fn is_secure(&self) -> bool {
        self.text.starts_with("https:")
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text[..self.origin])
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The policy for exits outside the exit code contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Alert, back off, restart.
    #[default]
    Restart,
    /// Alert and halt until an operator intervenes.
    Strict,
    /// Alert and halt, whatever the exit code. The service starts again only on request.
    Never,
}

/// A restart limit: at most `restarts` within `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartLimit {
    pub(crate) restarts: u32,
    pub(crate) window: Duration,
    pub(crate) then: BeyondLimit,
}

/// The reaction to exceeding the restart limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BeyondLimit {
    /// Alert that the service is crash-looping, and keep restarting it at the maximum delay.
    #[default]
    Alert,
    /// Alert and halt.
    Halt,
}

impl CodeAction {
    /// All actions.
    pub const ALL: [Self; 5] = [
        Self::Stop,
        Self::Restart,
        Self::Retry,
        Self::Restore,
        Self::Halt,
    ];
}

impl RestartLimit {
    /// Returns the maximum number of restarts, at least 1.
    pub fn restarts(self) -> u32 {
        self.restarts
    }
    /// Returns the length of the sliding window.
    pub fn window(self) -> Duration {
        self.window
    }
    /// Returns the reaction to exceeding the limit.
    pub fn then(self) -> BeyondLimit {
        self.then
    }
}

/// The action that follows one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CodeAction {
    /// Treat the exit as a clean stop.
    Stop,
    /// Alert, back off, restart.
    Restart,
    /// Treat the exit as a brief outage of a dependency: start again after 100 ms × 2ⁿ, up to five
    /// times, then alert and halt.
    Retry,
    /// Restore the previous stable snapshot and start again.
    Restore,
    /// Alert and halt.
    Halt,
}
