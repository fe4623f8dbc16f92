//! Snapshots and restores of services' state, away from the loop. The engine decides when they
//! happen, and `mainstay_store::snapshot` performs them.
//!
//! The steps of a snapshot are: the service's quiesce command, if it has one; the copy, on a
//! thread; its thaw command; the result, for the engine. If the snapshot is cancelled, only the
//! copy is skipped.

use std::fs::File;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::StatusCode;
use mainstay_core::engine::{Event, Refusal, ServiceId, Snapshotted, Token};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::snapshot::Reason;
use mainstay_core::spec::{Spec, Still};
use mainstay_store::snapshot::{
    CallOff, Created, Occasion, Replaced, Seam as _, Store, Wait, Which,
};
use mainstay_sys::{self as sys, aside};
use tokio::sync::oneshot;

use super::control::Reply;
use super::helpers::Purpose;
use super::{Host, Message};
use mainstay_api::Taken;

/// The time limit of each command around a copy.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A snapshot in progress.
pub(super) struct Taking {
    token: Token,
    occasion: Occasion,
    call_off: CallOff,
    is_quiesced: bool,
    /// The client that requested it, if any.
    reply: Option<oneshot::Sender<Reply>>,
}

impl Taking {
    fn new(token: Token, occasion: Occasion, call_off: CallOff) -> Self {
        Self {
            token,
            occasion,
            call_off,
            is_quiesced: false,
            reply: None,
        }
    }

    /// Cancels the snapshot, as the service is removed.
    pub(super) fn removed(self) {
        self.call_off.call_off();
        if let Some(reply) = self.reply {
            let _ = reply.send(Reply::refused(&Refusal::Removed));
        }
    }
}

impl Host {
    /// Marks the state of a service as in use, after completing what a restore has left to be done.
    pub(super) fn claim_state(&self, spec: &Spec) -> Result<Option<File>, String> {
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
        claim().map_err(|failure| failure.line())
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

    /// Starts a copy of a service's state. [`Event::Snapshotted`] follows.
    pub(super) fn snapshot(&mut self, id: ServiceId, token: Token, reason: Reason, stable: bool) {
        let occasion = Occasion {
            reason,
            stable,
            only_if_changed: reason != Reason::Manual,
        };
        let Some(runtime) = self.runtimes.get_mut(&id) else {
            return;
        };
        let call_off = match runtime.called_off.take() {
            Some(early) if early == token => {
                let why = "it was cancelled".to_owned();
                return self.send(Message::Engine(Event::Snapshotted(id, token, Err(why))));
            }
            _ => CallOff::default(),
        };
        runtime.snapshot = Some(Taking::new(token, occasion, call_off));
        let spec = Arc::clone(&runtime.spec);
        match spec.snapshot().map(|policy| policy.still()) {
            Some(Still::Commands { quiesce, .. }) => {
                let purpose = Purpose::Quiesce(token);
                if let Err(why) = self.start_helper(id, quiesce, purpose, COMMAND_LIMIT) {
                    self.quiesced(id, token, Err(why.to_string()));
                }
            }
            _ => self.copy(id, token),
        }
    }

    /// Starts a copy of the state of a service that is down, even if it has not changed.
    /// [`Event::Snapshotted`] follows.
    pub(super) fn keep_state(&mut self, id: ServiceId, token: Token, stable: bool) {
        let occasion = Occasion {
            reason: Reason::Update,
            stable,
            only_if_changed: false,
        };
        if let Some(runtime) = self.runtimes.get_mut(&id) {
            runtime.snapshot = Some(Taking::new(token, occasion, CallOff::default()));
            self.copy(id, token);
        }
    }

    /// Continues a snapshot after the quiesce command has exited.
    pub(super) fn quiesced(&mut self, id: ServiceId, token: Token, answer: Result<(), String>) {
        let runtime = self.runtimes.get_mut(&id);
        let taking = runtime.and_then(|runtime| runtime.snapshot.as_mut());
        let Some(taking) = taking.filter(|taking| taking.token == token) else {
            return;
        };
        // Even if the command failed, the thaw command undoes its effect.
        taking.is_quiesced = true;
        match answer {
            Ok(()) => self.copy(id, token),
            Err(why) => {
                let why = format!("the `quiesce` command failed: {why}");
                self.send(Message::Copied(id, token, Err(why)));
            }
        }
    }

    fn copy(&self, id: ServiceId, token: Token) {
        let Some(runtime) = self.runtimes.get(&id) else {
            return;
        };
        let (Some(taking), Some(policy)) = (&runtime.snapshot, runtime.spec.snapshot()) else {
            return;
        };
        let (occasion, keep) = (taking.occasion, policy.keep());
        let store = Store::new(
            &self.state,
            runtime.spec.name(),
            Some(policy),
            Arc::new(taking.call_off.clone()),
        );
        let paths = self.state.kept_paths(policy, runtime.spec.name().as_str());
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
            let result = result.map_err(|failure: Failure| failure.line());
            messages.send(Message::Copied(id, token, result));
        };
        if let Err(error) = start_thread("snapshot", run) {
            let why = format!("start a thread: {error}");
            self.send(Message::Copied(id, token, Err(why)));
        }
    }

    pub(super) fn copied(
        &mut self,
        id: ServiceId,
        token: Token,
        result: Result<Snapshotted, String>,
    ) {
        let Some(runtime) = self.runtimes.get_mut(&id) else {
            return;
        };
        let taking = runtime.snapshot.take_if(|taking| taking.token == token);
        let Some(taking) = taking else { return };
        let spec = Arc::clone(&runtime.spec);
        let still = spec.snapshot().map(|policy| policy.still());
        if let (true, Some(Still::Commands { thaw, .. })) = (taking.is_quiesced, still)
            && let Some(thaw) = thaw
            && let Err(why) = self.start_helper(id, thaw, Purpose::Thaw, COMMAND_LIMIT)
        {
            let what = format!("{}: cannot run the `thaw` command: {why}", spec.name());
            self.reporter.notify(&what);
        }
        if let Some(reply) = taking.reply {
            let _ = reply.send(match &result {
                Ok(Snapshotted::Taken(snapshot)) => Reply::document(&Taken {
                    snapshot: *snapshot,
                }),
                Ok(Snapshotted::Unchanged) => Reply::document(&serde_json::json!({})),
                Err(why) => Reply::error(StatusCode::INTERNAL_SERVER_ERROR, why),
            });
        }
        self.step(Event::Snapshotted(id, token, result));
    }

    /// Cancels a snapshot. Its result still follows.
    pub(super) fn abandon_snapshot(&mut self, id: ServiceId, token: Token) {
        let Some(runtime) = self.runtimes.get_mut(&id) else {
            return;
        };
        match runtime
            .snapshot
            .as_ref()
            .filter(|taking| taking.token == token)
        {
            Some(taking) => taking.call_off.call_off(),
            // The service could not be suspended for the snapshot, whose action comes next.
            None => runtime.called_off = Some(token),
        }
    }

    /// Starts a snapshot for a client.
    pub(super) fn request_snapshot(&mut self, id: ServiceId, reply: oneshot::Sender<Reply>) {
        match self.engine.request_snapshot(id, self.now()) {
            Ok((token, actions)) => {
                self.perform(actions);
                let runtime = self.runtimes.get_mut(&id);
                let taking = runtime.and_then(|runtime| runtime.snapshot.as_mut());
                if let Some(taking) = taking.filter(|taking| taking.token == token) {
                    taking.reply = Some(reply);
                }
            }
            Err(refusal) => drop(reply.send(Reply::refused(&refusal))),
        }
    }

    /// Starts a restore of a service's state. [`Event::Restored`] follows.
    pub(super) fn restore(&mut self, (id, token): (ServiceId, Token), which: Which) {
        let Some(runtime) = self.runtimes.get_mut(&id) else {
            return;
        };
        // A later restore in a row mostly replaces the state that the one before it has restored.
        // The service need not wait for a copy of that.
        let replaced = match which {
            Which::Stable(Some(_)) => Replaced::Discard,
            Which::Exactly(_) | Which::Stable(None) => Replaced::Keep,
        };
        let call_off = CallOff::default();
        runtime.restore = Some((token, call_off.clone()));
        let seam = Arc::new(call_off.clone());
        let (name, policy) = (runtime.spec.name(), runtime.spec.snapshot());
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
                Err(failure) => return send(restored(Err(failure.line()))),
            };
            match session.restore(which, replaced) {
                Ok(done) => {
                    for (snapshot, why) in done.damaged {
                        let remark = format!("snapshot {snapshot} is damaged: {why}");
                        send(Message::Remark(id, remark));
                    }
                    send(restored(Ok(done.index.id)));
                }
                Err(failure) => send(restored(Err(failure.line()))),
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
            let why = format!("start a thread: {error}");
            self.send(Message::Engine(Event::Restored(id, token, Err(why))));
        }
    }

    /// Cancels a restore. Its result still follows.
    pub(super) fn abandon_restore(&self, id: ServiceId, token: Token) {
        let restore = self
            .runtimes
            .get(&id)
            .and_then(|runtime| runtime.restore.as_ref());
        if let Some((_, call_off)) = restore.filter(|(asked, _)| *asked == token) {
            call_off.call_off();
        }
    }

    /// Sends a message to this host. Its effects must not precede the current actions.
    fn send(&self, message: Message) {
        self.messages.send(message);
    }
}

fn start_thread(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let name = format!("mainstay-{name}");
    thread::Builder::new().name(name).spawn(run).map(drop)
}
