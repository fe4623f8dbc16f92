//! Copies and restores of services' state, in threads of their own. `mainstay_store::snapshot`
//! performs them.

use std::fs::File;
use std::sync::Arc;
use std::thread;

use mainstay_core::engine::{CopyFailure, Event, ServiceId, Snapshotted, StartFailure, Token};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::snapshot::Reason;
use mainstay_core::spec::{Spec, Still};
use mainstay_store::snapshot::{
    CallOff, Created, Occasion, Replaced, Seam as _, Store, Wait, Which,
};
use mainstay_sys::{self as sys, aside};

use super::Executor;
use crate::host::effects::{Message, Snapshots};

impl Executor {
    /// Marks the state of a service as in use, after completing what a restore has left to be done.
    pub(super) fn claim_state(&self, spec: &Spec) -> Result<Option<File>, StartFailure> {
        let seam = Arc::new(CallOff::default());
        let store = Store::new(&self.state, spec.name(), spec.snapshot(), seam);
        if spec.snapshot().is_none() && !store.exists() {
            return Ok(None);
        }
        let claim = || -> Result<Option<File>, Failure> {
            let in_use = store.mark_in_use()?;
            if store.has_committed_restores()? {
                // The paths of the state may lie on a mount whose server is gone.
                self.complete_restore(spec)?;
            }
            Ok(Some(in_use))
        };
        claim().map_err(|failure| failure.line().into())
    }

    fn complete_restore(&self, spec: &Spec) -> Result<(), Failure> {
        let (state, name) = (self.state.clone(), spec.name().clone());
        let policy = spec.snapshot().cloned();
        let complete = move || {
            let seam = Arc::new(CallOff::default());
            Store::new(&state, &name, policy.as_ref(), seam).complete()
        };
        let subject = format!("state of {}", spec.name());
        aside::wait(subject.clone(), complete).unwrap_or_else(|error| {
            let message = format!("cannot complete the restore of the {subject}: {error}");
            Err(Failure::new(Code::Busy, message))
        })
    }
}

impl Snapshots for Executor {
    fn copy(&mut self, id: ServiceId, token: Token, occasion: Occasion) {
        let Some(seat) = self.seats.get_mut(&id) else {
            return;
        };
        let Some(policy) = seat.spec.snapshot() else {
            return;
        };
        let keep = policy.keep();
        let call_off = CallOff::default();
        seat.copy = Some((token, call_off.clone()));
        let store = Store::new(
            &self.state,
            seat.spec.name(),
            Some(policy),
            Arc::new(call_off),
        );
        let paths = self.state.kept_paths(policy, seat.spec.name().as_str());
        // A service that is quiesced or down should not wait for others.
        let yields = *policy.still() == Still::Nothing && occasion.reason != Reason::Update;
        let messages = self.messages.clone();
        let run = move || {
            if yields {
                sys::yield_to_others();
            }
            let take = || {
                let mut session = store.lock(Wait::UntilFree)?;
                session.finish();
                let created = session.create(&paths, occasion)?;
                session.prune(keep)?;
                Ok((created, std::mem::take(&mut session.remarks)))
            };
            let result = take().map(|(created, remarks)| {
                for remark in remarks {
                    messages.send(Message::Remark(id, remark));
                }
                match created {
                    Created::Taken(index) => Snapshotted::Taken(index.id),
                    Created::Unchanged => Snapshotted::Unchanged,
                }
            });
            let result = result.map_err(|failure: Failure| CopyFailure::Files(failure.line()));
            messages.send(Message::Copied(id, token, result));
        };
        if let Err(error) = start_thread("snapshot", run) {
            let why = CopyFailure::Files(format!("start a thread: {error}"));
            self.send(Message::Copied(id, token, Err(why)));
        }
    }

    fn restore(&mut self, id: ServiceId, token: Token, which: Which, replaced: Replaced) {
        let Some(seat) = self.seats.get_mut(&id) else {
            return;
        };
        let call_off = CallOff::default();
        seat.restore = Some((token, call_off.clone()));
        let seam = Arc::new(call_off.clone());
        let (name, policy) = (seat.spec.name(), seat.spec.snapshot());
        let store = Store::new(&self.state, name, policy, seam);
        let messages = self.messages.clone();
        let run = move || {
            let send = |message| {
                // This fails only if the loop has ended. The next process that takes the lock then
                // does the rest.
                messages.send(message);
            };
            let restored = |result| Message::Engine(Event::Restored(id, token, result));
            let mut session = match store.lock(Wait::UntilFree) {
                Ok(session) => session,
                Err(failure) => return send(restored(Err(CopyFailure::Files(failure.line())))),
            };
            match session.restore(which, replaced) {
                Ok(done) => {
                    for (snapshot, why) in done.damaged {
                        let remark = format!("snapshot {snapshot} is damaged: {why}");
                        send(Message::Remark(id, remark));
                    }
                    send(restored(Ok(done.index.id)));
                }
                Err(failure) => send(restored(Err(CopyFailure::Files(failure.line())))),
            }
            // A caller that cancels the restore waits for its end, and the next session does the
            // rest.
            if !call_off.is_called_off() {
                session.finish();
            }
            for remark in std::mem::take(&mut session.remarks) {
                send(Message::Remark(id, remark));
            }
        };
        if let Err(error) = start_thread("restore", run) {
            let why = CopyFailure::Files(format!("start a thread: {error}"));
            self.send(Message::Engine(Event::Restored(id, token, Err(why))));
        }
    }

    fn call_off(&mut self, id: ServiceId, token: Token) {
        let Some(seat) = self.seats.get(&id) else {
            return;
        };
        for (asked, call_off) in [&seat.copy, &seat.restore].into_iter().flatten() {
            if *asked == token {
                call_off.call_off();
            }
        }
    }
}

fn start_thread(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let name = format!("mainstay-{name}");
    thread::Builder::new().name(name).spawn(run).map(drop)
}
