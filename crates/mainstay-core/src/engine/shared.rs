//! The state shared by all services of an engine.

use super::backoff::Random;
use super::protocol::Action;
use crate::time::Instant;

/// The time of the current event, its actions, the number sequence and the random generator.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) now: Instant,
    pub(super) actions: Vec<Action>,
    next_number: u64,
    pub(super) random: Random,
}

impl Shared {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            actions: Vec::new(),
            next_number: 0,
            random: Random::new(seed),
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}
