//! Which snapshots go, and which one is restored.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Reason, SnapshotId};
use crate::spec::SnapshotKeep;

/// How many of the states that restores replaced stay, whatever the manifest says of snapshots.
pub const BEFORE_RESTORE: usize = 2;

/// What counts of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub id: SnapshotId,
    /// Why it was taken.
    pub reason: Reason,
    /// Whether the service was healthy with it.
    pub stable: bool,
}

/// Which of `known`, oldest first, go at `now` (since 1970).
///
/// The newest stable one never goes: it is what 201 restores. What restores replaced has a count of its own, so that a row of them
/// drives out nothing else.
pub fn surplus(known: &[Known], keep: SnapshotKeep, now: Duration) -> BTreeSet<SnapshotId> {
    let is_old = |one: &&Known| {
        let age = now.saturating_sub(one.id.since_epoch());
        keep.age.is_some_and(|longest| age > longest)
    };
    let beyond = |is_of_kind: fn(&Known) -> bool, count: usize| {
        let of_kind: Vec<&Known> = known.iter().filter(|one| is_of_kind(one)).collect();
        let surplus = of_kind.len().saturating_sub(count);
        of_kind.into_iter().take(surplus).map(|one| one.id)
    };
    let count = keep.count.map_or(usize::MAX, |count| count as usize);
    let mut gone: BTreeSet<SnapshotId> = known.iter().filter(is_old).map(|one| one.id).collect();
    gone.extend(beyond(|one| one.reason != Reason::BeforeRestore, count));
    gone.extend(beyond(
        |one| one.reason == Reason::BeforeRestore,
        BEFORE_RESTORE,
    ));
    if let Some(last_good) = older_stable(known, None) {
        gone.remove(&last_good);
    }
    gone
}

/// The newest stable one of `known`, oldest first, that is older than `before`.
pub fn older_stable(known: &[Known], before: Option<SnapshotId>) -> Option<SnapshotId> {
    let mut newest_first = known.iter().rev();
    newest_first
        .find(|one| one.stable && before.is_none_or(|before| one.id < before))
        .map(|one| one.id)
}
