//! The IDs of services, runs and questions.

/// The ID of a service in an engine. Later services have greater IDs. IDs are never reused, so a
/// late event for a removed service matches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub(super) u64);

impl ServiceId {
    /// Returns this ID and advances to the next one.
    pub(super) fn take(&mut self) -> Self {
        let next = Self(self.0 + 1);
        std::mem::replace(self, next)
    }
}

/// The ID of one start of one service. IDs are never reused, so events of an earlier child are
/// recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// The ID of one question to the host. Tokens are never reused, so a late answer is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);
