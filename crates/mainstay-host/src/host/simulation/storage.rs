//! The effects on the disk: definitions, the ledger, snapshots.

use std::io;
use std::time::Duration;

use hyper::StatusCode;
use mainstay_core::engine::{CopyFailure, Event, ServiceId, Snapshotted, StartFailure, Token};
use mainstay_core::manifest::Format;
use mainstay_core::snapshot::SnapshotId;
use mainstay_core::spec::ServiceName;
use mainstay_store::embedded::{Definition, Desired};
use mainstay_store::ledger::{Entry, ManifestCopy, Updated};
use mainstay_store::snapshot::{Occasion, Replaced, Which};
use tokio::sync::oneshot;

use super::disk::Installed;
use super::specs::{self, NAMES};
use super::world::{Coming, Copying, Helper, Order, Seat, Tree, World, note};
use crate::host::control::Reply;
use crate::host::effects::{
    Account, Candidate, CandidateText, Definitions, Entries, LedgerProblem, Loaded, Message,
    Refused, Snapshots, Storage, Ticket,
};

/// Returns the name in the pool.
pub(super) fn pooled(name: &str) -> &'static str {
    let found = NAMES.into_iter().find(|it| *it == name);
    found.expect("a name of the pool")
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl World {
    fn refuses_writes(&mut self) -> bool {
        !self.is_kind && (self.trouble.storage_is_full || self.random.chance(1))
    }

    pub(super) fn read_definitions(&mut self, names: &[String]) -> Result<Vec<Loaded>, Refused> {
        if self.fails(10) {
            let why = "no response within 10s".to_owned();
            return Err((StatusCode::SERVICE_UNAVAILABLE, why));
        }
        let read = |name: &String| {
            let missing = || (StatusCode::CONFLICT, format!("{name} is not installed"));
            let installed = self.storage.installed.get(&**name).ok_or_else(missing)?;
            let desired = self.storage.desired.get(name).cloned();
            let Installed { variant, version } = *installed;
            Ok(Loaded {
                definition: specs::definition(name, variant, version, desired),
                user: None,
                remarks: Vec::new(),
            })
        };
        names.iter().map(read).collect()
    }

    /// Ends a copy or a restore, and returns its result.
    pub(super) fn copying_ends(&mut self, token: Token) -> Option<Message> {
        let at = self.copies.iter().position(|it| it.token == token)?;
        let Copying {
            id,
            is_restore,
            is_called_off,
            ..
        } = self.copies.swap_remove(at);
        let snapshot = SnapshotId::new(token.0, None);
        let is_done = match self.random.below(10) {
            _ if is_called_off => self.random.chance(20),
            0 | 1 => self.is_kind,
            _ => true,
        };
        let why = || CopyFailure::Files("the disk is full".to_owned());
        Some(if is_restore {
            let result = is_done.then_some(snapshot).ok_or_else(why);
            Message::Engine(Event::Restored(id, token, result))
        } else {
            let is_new = self.random.chance(70);
            let done = if is_new {
                Snapshotted::Taken(snapshot)
            } else {
                Snapshotted::Unchanged
            };
            Message::Copied(id, token, is_done.then_some(done).ok_or_else(why))
        })
    }

    fn begin_copying(&mut self, id: ServiceId, token: Token, is_restore: bool) {
        let Some(seat) = self.seats.get(&id) else {
            return;
        };
        let name = seat.spec.name().clone();
        let mut others = self
            .copies
            .iter()
            .filter(|it| it.name == name && !it.is_called_off);
        if let Some(other) = others.find(|it| it.is_restore || is_restore) {
            let why = format!(
                "{name} is copied and restored at once: {:?} {token:?}",
                other.token
            );
            self.blame(why);
        }
        let end = match self.random.below(10) {
            _ if self.trouble.answers_hang => Duration::from_secs(100_000),
            0..7 => self.random.within(500),
            7 | 8 => self.random.within(90_000),
            _ => Duration::from_secs(5_000),
        };
        self.copies.push(Copying {
            name,
            id,
            token,
            is_restore,
            is_called_off: false,
        });
        self.soon(end, Coming::Copied(token));
    }

    pub(super) fn new_seat(&mut self, definition: &Definition, is_shared: bool) -> Seat {
        let number = self.random.next();
        if !is_shared {
            self.loose.insert(number);
        }
        Seat {
            number,
            spec: definition.spec.clone(),
            held: None,
            are_sockets_open: false,
            expects: None,
            is_shared,
        }
    }

    fn release_seat(&mut self, id: ServiceId) -> bool {
        let lives = |it: &Tree| it.id == id && !it.is_empty();
        if self.seats.get(&id).is_some_and(|seat| seat.held.is_some())
            && self.trees.iter().any(lives)
        {
            self.blame(format!("{id:?} is released while it has processes"));
        }
        self.gone.push(id);
        self.seats.remove(&id).is_some()
    }
}

impl Storage for World {
    fn begin_ledger(
        &mut self,
        _: Option<&ManifestCopy>,
        entries: Entries,
    ) -> Result<(), LedgerProblem> {
        self.begin_effect();
        self.was_ledger_begun = true;
        if !self.storage.has_ledger {
            if self.fails(1) {
                return Err(LedgerProblem("ledger".into(), "a fault".to_owned()));
            }
            self.storage.has_ledger = true;
        }
        self.renew_ledger(entries);
        Ok(())
    }

    fn renew_ledger(&mut self, (owners, entries): Entries) {
        self.begin_effect();
        if !self.storage.has_ledger {
            return;
        }
        let fails = self.refuses_writes();
        note!(
            self,
            "   new ledger of {} services{}",
            owners.len(),
            if fails { ": failed" } else { "" }
        );
        if fails {
            self.storage.problem = Some(full().to_string());
        } else {
            self.storage.problem = None;
            (self.storage.owners, self.storage.entries) = (owners, entries);
        }
    }

    fn write_entry(&mut self, id: ServiceId, entry: Entry) -> io::Result<()> {
        self.begin_effect();
        let owners = &self.storage.owners;
        let Some(at) = owners.iter().position(|owner| *owner == id) else {
            return Ok(());
        };
        if !self.storage.has_ledger || self.storage.entries[at] == entry {
            return Ok(());
        }
        if self.refuses_writes() {
            note!(self, "   entry of {} not written", entry.name);
            return Err(full());
        }
        note!(self, "   entry of {}: {:?}", entry.name, entry.state);
        self.storage.entries[at] = entry;
        Ok(())
    }

    fn ledger_problem(&self) -> Option<LedgerProblem> {
        let why = self.storage.problem.clone()?;
        Some(LedgerProblem("ledger".into(), why))
    }

    fn write_desired(&mut self, name: &ServiceName, desired: Option<&Desired>) -> io::Result<()> {
        self.begin_effect();
        let fails = self.refuses_writes();
        note!(
            self,
            "   desired state of {name}: {desired:?}{}",
            if fails { ": not written" } else { "" }
        );
        if self.is_stopping {
            self.blame(format!("the desired state of {name} changes with the end"));
        }
        if fails {
            return Err(full());
        }
        match desired {
            Some(desired) => drop(
                self.storage
                    .desired
                    .insert(name.to_string(), desired.clone()),
            ),
            None => drop(self.storage.desired.remove(name.as_str())),
        }
        Ok(())
    }

    fn store_update(&mut self, name: &ServiceName, written: &Updated) -> io::Result<()> {
        self.begin_effect();
        let variant = written.manifest.parse().unwrap_or(0);
        let accepted = &mut self.storage.accepted;
        let version = accepted.get(name.as_str()).map_or(0, |it| it.version);
        accepted.insert(pooled(name.as_str()), Installed { variant, version });
        if self.refuses_writes() {
            Err(full())
        } else {
            Ok(())
        }
    }
}

impl Snapshots for World {
    fn copy(&mut self, id: ServiceId, token: Token, occasion: Occasion) {
        self.begin_effect();
        note!(
            self,
            "   copy the state of {id:?}: {:?} {token:?}",
            occasion.reason
        );
        if self.called_off.contains(&token) {
            self.blame(format!(
                "the state of {id:?} is copied after that was cancelled"
            ));
        }
        // As the real one, it is silent about a service without a policy.
        if self
            .seats
            .get(&id)
            .is_some_and(|seat| seat.spec.snapshot().is_some())
        {
            self.begin_copying(id, token, false);
        }
    }

    fn restore(&mut self, id: ServiceId, token: Token, which: Which, replaced: Replaced) {
        self.begin_effect();
        note!(
            self,
            "   restore the state of {id:?}: {which:?} {replaced:?} {token:?}"
        );
        if let Some(seat) = self.seats.get(&id) {
            let name = seat.spec.name().clone();
            // Without snapshots, there is nothing to restore.
            let has_snapshots = seat.spec.snapshot().is_some();
            let runs = |tree: &Tree| tree.name == name && !tree.is_empty();
            if has_snapshots && self.trees.iter().any(runs) {
                self.blame(format!("{name} is restored while it runs"));
            }
        }
        self.begin_copying(id, token, true);
    }

    fn call_off(&mut self, id: ServiceId, token: Token) {
        self.begin_effect();
        note!(self, "   call off {token:?} of {id:?}");
        self.called_off.insert(token);
        let copying = self.copies.iter_mut().find(|it| it.token == token);
        if let Some(copying) = copying
            && !std::mem::replace(&mut copying.is_called_off, true)
        {
            let limit = self.random.pick(&[2_000, 2_000, 60_000]);
            let pause = self.random.within(limit);
            self.soon(pause, Coming::Copied(token));
        }
    }
}

impl Definitions for World {
    type Seat = Seat;

    fn load(&mut self, ticket: Ticket, names: Vec<String>) {
        self.begin_effect();
        let pause = self.random.within(11_000);
        self.soon(pause, Coming::Load(ticket, names));
    }

    fn check(&mut self, ticket: Ticket, candidate: CandidateText) {
        self.begin_effect();
        let pause = self.random.within(11_000);
        let variant = std::str::from_utf8(&candidate.body)
            .ok()
            .and_then(|it| it.parse().ok());
        let name = candidate.name;
        let checked = match variant.filter(|_| !self.fails(10)) {
            None => Err(Reply::error(
                StatusCode::UNPROCESSABLE_ENTITY,
                "it is not valid",
            )),
            Some(variant) => Ok(Candidate {
                definition: specs::definition(&name, variant, candidate.version, None),
                user: None,
                written: Updated::new("/".into(), Format::Toml, variant.to_string()),
                canary: Duration::from_millis(self.random.pick(&[0, 500, 5_000])),
                versions: None,
            }),
        };
        self.send(pause, Message::Checked(ticket, Box::new(checked)));
    }

    fn prepare(&mut self, definition: &Definition, _: &Account) -> Result<Seat, Refused> {
        self.begin_effect();
        if self.fails(5) {
            let why = "cannot open its log".to_owned();
            return Err((StatusCode::INTERNAL_SERVER_ERROR, why));
        }
        Ok(self.new_seat(definition, false))
    }

    fn share(
        &mut self,
        with: ServiceId,
        definition: &Definition,
        _: &Account,
    ) -> Result<Seat, Refused> {
        self.begin_effect();
        if !self.seats.contains_key(&with) {
            self.blame(format!("{with:?} shares nothing"));
        }
        if self.fails(5) {
            let why = "cannot share its log".to_owned();
            return Err((StatusCode::INTERNAL_SERVER_ERROR, why));
        }
        Ok(self.new_seat(definition, true))
    }

    fn seat(&mut self, id: ServiceId, seat: Seat) {
        self.begin_effect();
        note!(self, "   seat {id:?} {}", seat.spec.name());
        if !self.loose.remove(&seat.number) && !seat.is_shared {
            self.blame(format!("the seat of {id:?} was used before"));
        }
        if self.seats.insert(id, seat).is_some() {
            self.blame(format!("{id:?} is seated twice"));
        }
    }

    fn discard(&mut self, name: &ServiceName, seat: Seat) {
        self.begin_effect();
        if !self.loose.remove(&seat.number) {
            self.blame(format!("the seat of {name} is discarded twice"));
        }
    }

    fn keep_pipes(&mut self, _: &[Option<Seat>]) -> io::Result<()> {
        self.begin_effect();
        if self.fails(5) { Err(full()) } else { Ok(()) }
    }

    fn redefine(&mut self, id: ServiceId, definition: &Definition, _: &Account) -> Vec<String> {
        self.begin_effect();
        note!(self, "   redefine {id:?}");
        let is_held = self.seats.get(&id).is_some_and(|seat| seat.held.is_some());
        if is_held {
            self.blame(format!("{id:?} is redefined while it runs"));
        }
        match self.seats.get_mut(&id) {
            Some(seat) => seat.spec = definition.spec.clone(),
            None => self.blame(format!("{id:?} is redefined without a seat")),
        }
        if self.fails(10) {
            vec!["its new log cannot be opened".to_owned()]
        } else {
            Vec::new()
        }
    }

    fn take_own_log(&mut self, id: ServiceId) -> Result<(), StartFailure> {
        self.begin_effect();
        if !self.seats.contains_key(&id) {
            self.blame(format!("{id:?} takes a log without a seat"));
        }
        if self.fails(10) {
            Err("cannot open its log".into())
        } else {
            Ok(())
        }
    }

    fn unseat(&mut self, id: ServiceId) {
        self.begin_effect();
        note!(self, "   unseat {id:?}");
        if !self.release_seat(id) {
            self.blame(format!("{id:?} is unseated twice"));
        }
    }

    fn forget(&mut self, ids: &[ServiceId], reply: oneshot::Sender<Reply>) {
        self.begin_effect();
        note!(self, "   forget {ids:?}");
        for id in ids {
            if let Some(seat) = self.seats.get(id) {
                let name = pooled(seat.spec.name().as_str());
                self.storage.accepted.remove(name);
                self.orders.insert(name, Order::Any);
            }
            if !self.release_seat(*id) {
                self.blame(format!("{id:?} is forgotten twice"));
            }
            let is_left = |it: &Helper| it.id == Some(*id) && !it.is_killed && !it.has_ended;
            if self.helpers.values().any(is_left) {
                self.blame(format!("helpers of {id:?} go on after its removal"));
            }
            let is_copied = |it: &Copying| it.id == *id && !it.is_called_off;
            if self.copies.iter().any(is_copied) {
                self.blame(format!("the state of {id:?} is copied after its removal"));
            }
        }
        let pause = self.random.within(300);
        self.soon(
            pause,
            Coming::Reply(reply, Reply::document(&serde_json::json!({}))),
        );
    }

    fn settle(&mut self) {
        self.begin_effect();
    }
}
