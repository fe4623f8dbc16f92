//! A question that is asked again and again.

use std::time::Duration;

use super::{Action, RunId, ServiceId, Shared, Token};
use crate::spec::Probe;
use crate::time::Instant;

/// How much later than its timeout an answer of the host still counts. The host answers in time, if only that it heard nothing:
/// without an answer it was the host that failed, and the question is asked again.
pub(super) const ANSWER_GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Asking {
    next: Next,
    /// How often it was asked.
    pub(super) count: u32,
    /// What the last answer said, if it was no.
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

    /// Whether it is to be asked now.
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
