//! The host: what becomes of the engine's actions.

use super::*;

impl World {
    /// Passes an event to the engine, if the host could observe it.
    pub(super) fn deliver(&mut self, event: Event) -> Check {
        let now = self.now;
        match &event {
            Event::Spawned(i, id, pid) => {
                let needs_no_evidence = self.specs[i.index()].start.ready.is_none();
                match &mut self.accounts[i.index()].run {
                    Some(run) if run.id == *id && run.pid.is_none() && !run.exited => {
                        run.pid = Some(*pid);
                        run.began = now;
                        run.start_by = now + self.specs[i.index()].start.timeout;
                        run.has_evidence |= needs_no_evidence;
                        run.has_evidence &= !run.asked;
                    }
                    _ => return Ok(()),
                }
            }
            Event::SpawnFailed(i, id, why) => match &mut self.accounts[i.index()].run {
                Some(run) if run.id == *id && run.pid.is_none() && !run.exited => {
                    if !run.asked {
                        self.accounts[i.index()].cause = Some(match why {
                            StartFailure::Permanent(_) => Cause::Lasting,
                            _ => Cause::Other,
                        });
                    }
                    let run = self.accounts[i.index()].run.take().unwrap();
                    self.gone.push((i.index(), run));
                    self.become_next(i.index());
                }
                _ => return Ok(()),
            },
            Event::Exited(i, id, exit) => {
                let account = &mut self.accounts[i.index()];
                match &mut account.run {
                    Some(run) if run.id == *id && !run.exited => {
                        run.exited = true;
                        run.exited_at = now;
                        run.lingers_until = now + LINGER_TIMEOUT;
                        if !run.asked {
                            account.cause = Some(Cause::Exit(*exit));
                        }
                        self.leave_remains(*i, *id);
                    }
                    _ => return Ok(()),
                }
            }
            Event::Emptied(i, id) => match &self.accounts[i.index()].run {
                Some(run) if run.id == *id && run.exited => {
                    let run = self.accounts[i.index()].run.take().unwrap();
                    self.gone.push((i.index(), run));
                    self.become_next(i.index());
                }
                _ => return Ok(()),
            },
            Event::Notified(i, id, notice) => {
                let ready = &self.specs[i.index()].start.ready;
                let wants_notice = matches!(ready, Some(Ready::Notify(_)));
                let start_limit = self.specs[i.index()].start.timeout * LONGEST_EXTENSION;
                let stop_limit = self.specs[i.index()].stop.graceful * LONGEST_EXTENSION;
                match (&mut self.accounts[i.index()].run, notice) {
                    (Some(run), Notice::Ready) if run.id == *id => {
                        run.has_evidence |= wants_notice && !run.asked && !run.exited;
                    }
                    (Some(run), Notice::ExtendTimeout(by)) if run.id == *id => {
                        let until = now + *by;
                        if run.asked && !run.killed {
                            let latest = run.climb.0 + stop_limit;
                            run.kill_at = run.kill_at.max(until.min(latest));
                        } else if !run.exited && !run.asked && !run.was_ready() {
                            let latest = run.began + start_limit;
                            run.start_by = run.start_by.max(until.min(latest));
                        }
                    }
                    (Some(run), _) if run.id == *id => {}
                    _ => return Ok(()),
                }
            }
            Event::FreezeFailed(i, id, _) => match &self.accounts[i.index()].run {
                Some(run) if run.id == *id => {}
                _ => return Ok(()),
            },
            Event::Answered(i, token, answer) => {
                let account = &mut self.accounts[i.index()];
                let is_line = account.line == Some(*token);
                let of = account
                    .question
                    .filter(|(asked, ..)| asked == token)
                    .and_then(|(_, of, _)| of);
                match &mut account.run {
                    Some(run)
                        if answer.is_ok()
                            && !run.asked
                            && !run.exited
                            && (is_line || of == Some(run.id)) =>
                    {
                        run.has_evidence = true;
                    }
                    _ => {}
                }
                if account.question.is_some_and(|(asked, ..)| asked == *token) {
                    account.question = None;
                    account.old_tokens.push(*token);
                }
            }
            Event::Unasked(i, token, _) => {
                let account = &mut self.accounts[i.index()];
                if account
                    .question
                    .take_if(|(asked, ..)| asked == token)
                    .is_some()
                {
                    account.old_tokens.push(*token);
                }
            }
            Event::Snapshotted(i, token, _) => {
                let account = &mut self.accounts[i.index()];
                let is_expected = account
                    .snapshot
                    .is_some_and(|(expected, _)| expected == *token);
                if account.abandoned == Some(*token) {
                    account.abandoned = None;
                } else if is_expected {
                    account.snapshot = None;
                } else {
                    return Ok(());
                }
                account.old_tokens.push(*token);
            }
            Event::Restored(i, token, answer) => {
                let account = &mut self.accounts[i.index()];
                self.restored = account.restore == Some(*token);
                if self.restored {
                    account.restored.extend(answer.clone().ok());
                    account.restore = None;
                    account.old_tokens.push(*token);
                    let is_called_off = std::mem::take(&mut account.is_called_off);
                    if is_called_off && answer.is_err() && !account.unwanted() {
                        account.is_to_restore = true;
                    }
                }
            }
            Event::Forgotten(_) => {}
            Event::Tick | Event::Late => {
                self.ticked = true;
                for account in &mut self.accounts {
                    if event == Event::Late {
                        account.postpone(now);
                    }
                    if account.question.is_some_and(|(.., by)| by <= now) {
                        let (token, ..) = account.question.take().unwrap();
                        account.old_tokens.push(token);
                    }
                }
            }
        }
        self.note(|| format!("{event:?}"));
        let actions = self.engine.step(event, now);
        self.performed(actions)
    }

    /// Schedules the end of a process tree after its main process has ended.
    fn leave_remains(&mut self, i: ServiceId, run: RunId) {
        let in_time = self.behaves || self.chance(0.9);
        if in_time {
            let at = self.now + self.millis(40);
            self.coming.push((at, Event::Emptied(i, run)));
        }
    }

    pub(super) fn performed(&mut self, actions: Vec<Action>) -> Check {
        self.events += 1;
        self.follow_trials();
        for action in actions {
            self.note(|| format!("    {action:?}"));
            self.perform(action)?;
        }
        self.examine()?;
        self.ticked = false;
        self.killing = false;
        self.restored = false;
        self.failed.clear();
        self.requested.clear();
        self.gone.clear();
        self.goes_on_stopping.clear();
        for account in &mut self.accounts {
            // The former definition applies to the current event only.
            account.classified_as = None;
        }
        Ok(())
    }

    /// Performs an action like a host, and checks its preconditions.
    fn perform(&mut self, action: Action) -> Check {
        let now = self.now;
        match action {
            Action::Spawn(id, run) => {
                let i = id.index();
                for &need in &self.needs[i] {
                    ensure!(self.is_of_use(need), "s{i} starts before s{need} is ready");
                }
                let start_by = now + self.specs[i].start.timeout;
                let account = &mut self.accounts[i];
                ensure!(account.run.is_none(), "s{i} has two children");
                ensure!(
                    account.role != Some(RolloutRole::Predecessor),
                    "s{i} is started though it was replaced"
                );
                ensure!(
                    account.role.is_none() || account.last_run == 0,
                    "s{i} is started again in a trial"
                );
                ensure!(
                    account.restore.is_none() && !account.is_to_restore,
                    "s{i} starts while its state is being restored"
                );
                ensure!(
                    !account.unwanted(),
                    "s{i} starts though a stop was requested"
                );
                ensure!(!self.shutting_down, "s{i} starts during a shutdown");
                ensure!(
                    now >= account.not_before,
                    "s{i} starts before its pause is over"
                );
                ensure!(run.0 > account.last_run, "the run of s{i} is not new");
                account.last_run = run.0;
                account.is_done = false;
                account.run = Some(Run {
                    id: run,
                    began: now,
                    start_by,
                    pid: None,
                    has_evidence: false,
                    exited: false,
                    exited_at: now,
                    lingers_until: now,
                    frozen: false,
                    asked: false,
                    climb: (Instant::ZERO, 0),
                    kill_at: Instant::ZERO,
                    killed: false,
                    starts_again: false,
                    is_unkillable: false,
                    dated: self.events,
                });
                self.spawn(id, run);
            }
            Action::AskToStop(id, run, ask) => {
                let i = id.index();
                let ladder = self.specs[i].stop.ladder.clone();
                let goes_on = self.goes_on_stopping.contains(&i);
                let found = self.run_of(id, run)?;
                let is_first = !found.asked;
                let (since, taken) = match is_first {
                    true if goes_on => (found.climb.0, 0),
                    true => (now, 0),
                    false => found.climb,
                };
                found.climb = (since, taken + 1);
                let step = ladder.get(taken).filter(|step| step.ask == ask);
                ensure!(
                    step.is_some_and(|step| now >= since + step.after) && !found.killed,
                    "s{i} is asked to stop by another step than its ladder's next"
                );
                if !is_first {
                    return Ok(());
                }
                // Only a service that failed to start in time stops before its dependents.
                let account = &self.accounts[i];
                let was_ready = account.run.as_ref().is_some_and(Run::was_ready);
                let is_late = self.failed.contains(&i) && !was_ready;
                let is_ordered = account.unwanted() && !self.killing && !is_late && !goes_on;
                for dependent in
                    (0..self.specs.len()).filter(|&d| is_ordered && self.needs[d].contains(&i))
                {
                    let account = &self.accounts[dependent];
                    let lives = account.unwanted()
                        && account.run.as_ref().is_some_and(|run| !run.is_unkillable);
                    ensure!(
                        !lives,
                        "s{i} is asked to stop before s{dependent}, which needs it"
                    );
                }
                let graceful = self.specs[i].stop.graceful;
                let event = self.events;
                let found = self.run_of(id, run)?;
                found.dated = event;
                ensure!(
                    !found.exited && !found.asked && !found.killed,
                    "s{i} is asked to stop out of turn"
                );
                found.asked = true;
                found.kill_at = if goes_on {
                    found.kill_at.max(now + ANSWER_GRACE)
                } else {
                    now + graceful
                };
                // A restart waits until dependents are down.
                let is_restarted = found.starts_again;
                let has_reason = self.requested.contains(&i) || self.failed.contains(&i);
                ensure!(
                    is_restarted || has_reason || self.accounts[i].unwanted(),
                    "s{i} is asked to stop for no reason"
                );
                self.stop(id, run, graceful);
            }
            Action::Kill(id, run) => {
                let killing = self.killing;
                let scope = self.specs[id.index()].stop.scope;
                let found = self.run_of(id, run)?;
                ensure!(!found.killed, "{run:?} is killed twice");
                // Processes that were asked to stop, too, have the rest of the time limit.
                let are_remains = found.exited && !(found.asked && scope == StopScope::Tree);
                let is_due = found.asked && now >= found.kill_at;
                ensure!(
                    killing || are_remains || is_due,
                    "{run:?} is killed too early"
                );
                found.killed = true;
                found.kill_at = now + KILL_TIMEOUT;
                let exited = found.exited;
                if self.behaves || self.chance(0.95) {
                    let at = now + self.millis(40);
                    self.coming.push((
                        at,
                        if exited {
                            Event::Emptied(id, run)
                        } else {
                            Event::Exited(id, run, Exit::Signal(9))
                        },
                    ));
                }
            }
            Action::Freeze(id, run) => {
                let found = self.run_of(id, run)?;
                ensure!(
                    !found.frozen && !found.exited && !found.asked,
                    "{run:?} is suspended out of turn"
                );
                found.frozen = true;
                if self.chance(0.15) {
                    let at = now + self.millis(5);
                    self.coming
                        .push((at, Event::FreezeFailed(id, run, "not permitted".into())));
                }
            }
            Action::Thaw(id, run) => {
                let found = self.run_of(id, run)?;
                ensure!(
                    found.frozen && !found.exited,
                    "{run:?} goes on without having been suspended"
                );
                found.frozen = false;
            }
            Action::Ask {
                service,
                of,
                token,
                timeout,
                ..
            } => {
                ensure!(!timeout.is_zero(), "a question that leaves no time");
                match of {
                    Some(run) => {
                        let found = self.run_of(service, run)?;
                        let answers =
                            found.pid.is_some() && !found.exited && !found.asked && !found.frozen;
                        ensure!(answers, "{run:?} is asked though it cannot answer");
                    }
                    None => ensure!(
                        self.accounts[service.index()].run.is_none(),
                        "a condition with a child"
                    ),
                }
                let by = now + timeout + ANSWER_GRACE;
                let account = &mut self.accounts[service.index()];
                if let Some((old, ..)) = account.question.replace((token, of, by)) {
                    account.old_tokens.push(old);
                }
                let answer = if self.chance(0.75) {
                    Ok(())
                } else {
                    Err(ProbeFailure::Status("GET /".to_owned(), 503))
                };
                let times = if self.behaves {
                    1
                } else {
                    [0, 1, 1, 1, 1, 1, 1, 2][self.below(8)]
                };
                for _ in 0..times {
                    let late = if self.chance(0.05) {
                        Duration::from_secs(2)
                    } else {
                        Duration::ZERO
                    };
                    let at = now + late + self.millis(60);
                    let event = if self.chance(0.1) {
                        Event::Unasked(service, token, self.unasked())
                    } else {
                        Event::Answered(service, token, answer.clone())
                    };
                    self.coming.push((at, event));
                }
            }
            Action::ExpectLine(id, token, _) => {
                if let Some(old) = self.accounts[id.index()].line.replace(token) {
                    self.accounts[id.index()].old_tokens.push(old);
                }
                if self.chance(0.8) {
                    let at = now + self.millis(3_000);
                    let answer = if self.chance(0.9) {
                        Ok(())
                    } else {
                        Err(ProbeFailure::Removed)
                    };
                    self.coming.push((at, Event::Answered(id, token, answer)));
                }
            }
            Action::Restore {
                service,
                token,
                before,
            } => {
                let account = &mut self.accounts[service.index()];
                ensure!(
                    account.is_to_restore && account.run.is_none(),
                    "a restore out of turn"
                );
                ensure!(
                    account.snapshot.is_none() && account.abandoned.is_none(),
                    "a restore during a snapshot"
                );
                ensure!(
                    before.is_none_or(|id| account.restored.contains(&id)),
                    "a restore of what was not restored before"
                );
                account.is_to_restore = false;
                account.is_called_off = false;
                account.restore = Some(token);
                if self.behaves || self.chance(0.9) {
                    let at = now + self.millis(1_000);
                    let answer = if self.chance(0.8) {
                        Ok(SnapshotId::new(self.events, None))
                    } else {
                        Err(CopyFailure::Files("none left".to_owned()))
                    };
                    self.coming
                        .push((at, Event::Restored(service, token, answer)));
                }
            }
            Action::Snapshot {
                service,
                run,
                token,
                stable,
                ..
            } => {
                let i = service.index();
                let policy = self.specs[i].snapshot.clone().ok_or("nothing to keep")?;
                let found = self.run_of(service, run)?;
                ensure!(
                    found.was_ready() && !found.exited && !found.asked,
                    "a snapshot of {run:?}, which does not run undisturbed"
                );
                let is_frozen = policy.still == Still::Pause;
                ensure!(
                    found.frozen == is_frozen,
                    "{run:?} is not as still as its snapshot needs it"
                );
                let since = found.began;
                ensure!(
                    !stable || now.since(since) >= policy.after,
                    "{run:?} cannot be known to be healthy yet"
                );
                let account = &mut self.accounts[i];
                ensure!(
                    account.snapshot.is_none() && account.abandoned.is_none(),
                    "two snapshots of s{i} at once"
                );
                ensure!(
                    account.restore.is_none(),
                    "a snapshot of s{i} during a restore"
                );
                let is_still = policy.still != Still::Nothing;
                let limit = Duration::from_secs(if is_still { 60 } else { 3600 });
                account.snapshot = Some((token, now + limit));
                if self.behaves || self.chance(0.9) {
                    let most = [100, 5_000, 100_000][self.below(3)];
                    let at = now + self.millis(most);
                    let answer = match self.below(4) {
                        0 => Err(CopyFailure::Files("a file changed".to_owned())),
                        1 => Ok(Snapshotted::Unchanged),
                        _ => Ok(Snapshotted::Taken(SnapshotId::new(self.events, None))),
                    };
                    self.coming
                        .push((at, Event::Snapshotted(service, token, answer)));
                }
            }
            Action::AbandonRestore(id, token) => {
                let account = &mut self.accounts[id.index()];
                ensure!(
                    account.restore == Some(token),
                    "s{} abandons what is not restored",
                    id.index()
                );
                account.is_called_off = true;
                if self.behaves || self.chance(0.9) {
                    let at = now + self.millis(100);
                    let why = Err(CopyFailure::Cancelled);
                    self.coming.push((at, Event::Restored(id, token, why)));
                }
            }
            Action::AbandonSnapshot(id, token) => {
                let account = &mut self.accounts[id.index()];
                let taken = account.snapshot.take();
                ensure!(
                    taken.is_some_and(|(taken, _)| taken == token) && account.abandoned.is_none(),
                    "s{} abandons a snapshot that is not taken",
                    id.index()
                );
                account.abandoned = Some(token);
                if self.behaves || self.chance(0.9) {
                    let at = now + self.millis(100);
                    let why = Err(CopyFailure::Cancelled);
                    self.coming.push((at, Event::Snapshotted(id, token, why)));
                }
            }
            Action::KeepState {
                service,
                token,
                stable,
            } => {
                ensure!(
                    !self.has_runs(service)?,
                    "a snapshot under a program that runs"
                );
                ensure!(
                    !stable || self.accounts[service.index()].is_displaced,
                    "of whom?"
                );
                let account = &mut self.accounts[service.index()];
                ensure!(
                    account.snapshot.is_none() && account.abandoned.is_none(),
                    "two snapshots of {service:?} at once"
                );
                account.snapshot = Some((token, now + Duration::from_secs(3600)));
                if self.behaves || self.chance(0.9) {
                    let at = now + self.millis(1_000);
                    let answer = if self.chance(0.8) {
                        Ok(Snapshotted::Taken(SnapshotId::new(self.events, None)))
                    } else {
                        Err(CopyFailure::Files("the disk is full".to_owned()))
                    };
                    self.coming
                        .push((at, Event::Snapshotted(service, token, answer)));
                }
            }
            Action::RestoreSnapshot {
                service,
                token,
                snapshot,
            } => {
                ensure!(
                    !self.has_runs(service)?,
                    "a restore under a program that runs"
                );
                self.accounts[service.index()].restore = Some(token);
                if self.behaves || self.chance(0.9) {
                    let at = now + self.millis(1_000);
                    let answer = if self.chance(0.8) {
                        Ok(snapshot)
                    } else {
                        Err(CopyFailure::Files("damaged".to_owned()))
                    };
                    self.coming
                        .push((at, Event::Restored(service, token, answer)));
                }
            }
            Action::Forget(id) => {
                let account = &mut self.accounts[id.index()];
                ensure!(account.role.is_some(), "s{} is forgotten", id.index());
                ensure!(
                    account.run.is_none(),
                    "s{} is forgotten while it runs",
                    id.index()
                );
                *account = Account {
                    old_tokens: std::mem::take(&mut account.old_tokens),
                    is_unwanted: true,
                    is_gone: true,
                    ..Account::default()
                };
                for (new, _) in self
                    .trials
                    .values_mut()
                    .filter(|(new, _)| *new == id.index())
                {
                    *new = GONE;
                }
                self.needs[id.index()].clear();
                let actions = self.engine.step(Event::Forgotten(id), now);
                ensure!(actions.is_empty(), "who is forgotten does something");
            }
            Action::Record(id) => self.recorded(id.index())?,
            Action::Emit(id, fact) => self.emitted(id.index(), fact)?,
        }
        Ok(())
    }

    /// Notes that a service forgets its failures, which it does at a tick.
    fn recorded(&mut self, i: usize) -> Check {
        if !self.ticked {
            return Ok(());
        }
        let reset_after = self.classified_as(i).recovery.reset_after;
        let now = self.now;
        let account = &mut self.accounts[i];
        let run = account.run.as_ref().filter(|run| !run.exited);
        let is_good = run.is_some_and(|it| it.was_ready() && now.since(it.began) >= reset_after);
        ensure!(is_good, "s{i} forgets its failures too early");
        account.retries = 0;
        Ok(())
    }

    /// Returns whether a service on trial or its candidate has a run.
    fn has_runs(&self, service: ServiceId) -> Result<bool, String> {
        let (new, _) = self
            .trials
            .get(&service.index())
            .ok_or("nothing is tried")?;
        let runs = |i: usize| self.accounts[i].run.is_some();
        Ok(runs(*new) || runs(service.index()))
    }

    fn run_of(&mut self, id: ServiceId, run: RunId) -> Result<&mut Run, String> {
        let found = self.accounts[id.index()]
            .run
            .as_mut()
            .filter(|found| found.id == run);
        found.ok_or_else(|| format!("{run:?} of s{} is not there", id.index()))
    }
}
