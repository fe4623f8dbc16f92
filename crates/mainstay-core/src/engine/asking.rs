//! A question to the host that is repeated.

use std::time::Duration;

use super::id::{RunId, ServiceId, Token};
use super::protocol::Action;
use super::shared::Shared;
use crate::spec::Probe;
use crate::time::Instant;

/// The time after its timeout for which an answer of the host still counts. The host always answers
/// in time, even if its probe times out. A missing answer is a failure of the host, so the question
/// is asked again.
pub(super) const ANSWER_GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Asking {
    next: Next,
    /// The number of times that the question was asked.
    pub(super) count: u32,
    /// The reason of the last negative answer.
    pub(super) last: Option<String>,
}

#[derive(Debug)]
enum Next {
    Ask { at: Instant },
    Answer { token: Token, by: Instant },
}

impl Asking {
    pub(super) fn from(at: Instant) -> Self {
        Self {
            next: Next::Ask { at },
            count: 0,
            last: None,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        match self.next {
            Next::Ask { at } => at,
            Next::Answer { by, .. } => by,
        }
    }

    /// Returns whether the question is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.deadline() <= now
    }

    pub(super) fn expects(&self, token: Token) -> bool {
        matches!(self.next, Next::Answer { token: expected, .. } if expected == token)
    }

    pub(super) fn ask(
        &mut self,
        (service, of): (ServiceId, Option<RunId>),
        probe: &Probe,
        timeout: Duration,
        shared: &mut Shared,
    ) {
        let token = Token(shared.number());
        let by = shared.now + timeout + ANSWER_GRACE;
        self.next = Next::Answer { token, by };
        self.count = self.count.saturating_add(1);
        shared.actions.push(Action::Ask {
            service,
            of,
            token,
            probe: probe.clone(),
            timeout,
        });
    }

    pub(super) fn again_in(&mut self, pause: Duration, now: Instant) {
        self.next = Next::Ask { at: now + pause };
    }
}
