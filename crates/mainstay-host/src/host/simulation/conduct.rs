//! Rules about single effects. An effect that breaks one is recorded as [`World::fault`].

use mainstay_core::engine::{Fact, RolloutRole, ServiceId};

use super::world::{Copying, Order, Purpose, Seat, World};
use crate::host::effects::{Part, Published, Time as _};

impl World {
    /// Checks that a service may be started now.
    pub(super) fn check_start(&mut self, id: ServiceId, part: Option<Part>) {
        let Some(seat) = self.seats.get(&id) else {
            return;
        };
        let name = seat.spec.name().clone();
        let order = self.orders.get(name.as_str());
        if order == Some(&Order::Down) {
            self.blame(format!("{name} is started although it was stopped"));
        }
        if self.is_ending {
            self.blame(format!("{name} is started although the supervisor ends"));
        }
        let others = self
            .trees
            .iter()
            .filter(|tree| tree.name == name && !tree.is_empty());
        let others: Vec<ServiceId> = others.map(|tree| tree.id).collect();
        if others.contains(&id) {
            self.blame(format!(
                "{name} is started while its last run has processes"
            ));
        }
        let seats = self
            .seats
            .values()
            .filter(|seat| *seat.spec.name() == name)
            .count();
        let is_beside = matches!(part, Some(Part::Beside { .. }));
        if !others.is_empty() && seats < 2 {
            self.blame(format!("{name} runs twice"));
        }
        if !others.is_empty() && part.is_some() && !is_beside {
            self.blame(format!("{name} runs twice in an update: {part:?}"));
        }
        if is_beside {
            self.check_overlap(id);
        }
        if !self.was_ledger_begun {
            self.blame(format!("{name} is started before there is a ledger"));
        }
        let restores = |it: &Copying| it.name == name && it.is_restore && !it.is_called_off;
        if self.copies.iter().any(restores) {
            self.blame(format!("{name} is started while its state is restored"));
        }
    }

    /// Checks that a candidate may run at once with the definition that it is to replace.
    fn check_overlap(&mut self, id: ServiceId) {
        let Some(new) = self.seats.get(&id).map(|seat| &seat.spec) else {
            return;
        };
        let goes_on = |(other, seat): &(&ServiceId, &Seat)| {
            let mut trees = self.trees.iter();
            let tree = trees.find(|it| it.id == **other && Some(it.run) == seat.held);
            tree.is_some_and(|it| !it.is_asked && !it.is_killed)
        };
        let others = self
            .seats
            .iter()
            .filter(|(other, seat)| **other != id && seat.spec.name() == new.name());
        let is_wrong = others.filter(goes_on).any(|(_, seat)| {
            let old = &seat.spec;
            let is_stateful = old.snapshot().is_some() || new.snapshot().is_some();
            let shares = old.log() == new.log() && old.listen() == new.listen();
            is_stateful || !shares || old.listen().is_empty()
        });
        if is_wrong {
            let name = new.name().clone();
            self.blame(format!(
                "two definitions of {name} run at once, which differ"
            ));
        }
    }

    /// Checks that a service may be quiesced now.
    pub(super) fn check_quiesce(&mut self, id: ServiceId) {
        let mut helpers = self.helpers.values();
        if helpers
            .any(|it| it.id == Some(id) && !it.has_ended && matches!(it.purpose, Purpose::Thaw))
        {
            self.blame(format!("{id:?} is quiesced while it is being thawed"));
        }
    }

    /// Checks what is told of a service, and when.
    pub(super) fn check_fact(&mut self, published: &Published<'_>) {
        let Published {
            time,
            service,
            role,
            fact,
            ..
        } = published;
        if matches!(fact, Fact::Requested { .. }) && **time != *self.calendar(self.now()) {
            self.blame(format!("a request to {service} is told of at {time}"));
        }
        if self.turn.was_delayed
            && let Fact::Missed { why, .. } = fact
            && why.contains("no response within")
        {
            self.blame(format!(
                "{service} is blamed for a suspension of its supervisor"
            ));
        }
        let time: u64 = time.parse().unwrap_or(0);
        let role = match role {
            None => 0,
            Some(RolloutRole::Candidate) => 1,
            Some(_) => 2,
        };
        let trees = self.trees.iter().filter(|it| it.name == **service);
        let ended = trees.filter_map(|it| it.ended).max();
        let last = self.told_at.entry(((*service).clone(), role)).or_default();
        let ended = ended.and_then(|it| u64::try_from(it.as_micros()).ok());
        let is_seen = matches!(
            fact,
            Fact::Exited {
                is_unseen: false,
                ..
            }
        );
        if let Some(ended) = ended.filter(|it| is_seen && time > (*last).max(*it)) {
            let late = time - ended;
            return self.blame(format!("{service} is told to end {late} us after it did"));
        }
        if time < *last {
            let back = *last - time;
            self.blame(format!(
                "a fact of {service} is {back} us older than the one before it: {fact:?}"
            ));
        } else {
            *last = time;
        }
    }
}
