//! Retention of snapshots, and selection of the snapshot to restore.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Reason, SnapshotId};
use crate::spec::SnapshotKeep;

/// The number of states replaced by restores that are kept, regardless of the manifest's count.
pub(super) const BEFORE_RESTORE: usize = 2;

/// The properties of a snapshot that determine its retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The ID of the snapshot.
    pub id: SnapshotId,
    /// The reason for the snapshot.
    pub reason: Reason,
    /// Set if the service was healthy with this state.
    pub stable: bool,
}

/// Returns the snapshots to delete at `now` (since 1970). `known` is sorted from oldest to newest.
///
/// The newest stable snapshot is never deleted, because exit code 201 restores it. States replaced
/// by restores are counted separately, so that repeated restores do not displace other snapshots.
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

/// Returns the newest stable snapshot of `known` that is older than `before`. `known` is sorted
/// from oldest to newest.
pub fn older_stable(known: &[Known], before: Option<SnapshotId>) -> Option<SnapshotId> {
    let mut newest_first = known.iter().rev();
    newest_first
        .find(|one| one.stable && before.is_none_or(|before| one.id < before))
        .map(|one| one.id)
}
