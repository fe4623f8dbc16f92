//! The invariants that hold after every event.

use super::*;

impl World {
    pub(super) fn emitted(&mut self, i: usize, fact: Fact) -> Check {
        let halt = match &fact {
            Fact::Halted { why } => Some(discriminant(why)),
            _ => None,
        };
        self.seen.insert((discriminant(&fact), halt));
        if let Fact::Halted { why } = &fact {
            let for_need = matches!(why, Halt::Need(_) | Halt::NeedEnded(_));
            self.accounts[i].is_hung_up = for_need;
        }
        let classified_as = self.classified_as(i);
        let now = self.now;
        let account = &mut self.accounts[i];
        // A service that is stopped only for a trial keeps its crash loop.
        let is_for_now = matches!(fact, Fact::Stopped { outcome } if outcome == Outcome::Requested)
            && !account.is_unwanted;
        account.is_looping &=
            is_for_now || !matches!(fact, Fact::Stopped { .. } | Fact::Halted { .. });
        let recovery = &classified_as.recovery;
        match fact {
            Fact::CrashLooping { lasts, .. } => {
                let is_new = lasts.is_zero();
                ensure!(
                    is_new != account.is_looping,
                    "the crash loop of s{i} begins twice, or was not told"
                );
                ensure!(
                    is_new || now >= account.looped_at + REMINDER,
                    "the crash loop of s{i} is told too often"
                );
                account.is_looping = true;
                account.looped_at = now;
            }
            Fact::Recovered { .. } => {
                ensure!(account.is_looping, "s{i} recovers from nothing");
                let runs = self.gone.iter().filter(|(gone, _)| *gone == i);
                let run = runs.map(|(_, run)| run).chain(&account.run).next();
                let was_well = run.is_some_and(|run| {
                    run.was_ready() && now.since(run.began) >= recovery.reset_after
                });
                ensure!(was_well, "s{i} recovers without having been ready for long");
                account.is_looping = false;
                account.recent.clear();
                account.retries = 0;
            }
            Fact::Failed { why, news } => {
                ensure!(
                    news == News::Covered || !account.is_looping,
                    "each failure of the crash loop of s{i} is an alert"
                );
                self.failed.push(i);
                if let Ended::Backgrounded { .. } = why {
                    let run = account.run.as_ref().filter(|run| run.exited);
                    let exited_at = run.ok_or("nothing went to the background")?.exited_at;
                    ensure!(
                        now >= exited_at + LINGER_TIMEOUT,
                        "the children of s{i} have no time to follow it"
                    );
                    account.cause = Some(Cause::Lasting);
                } else if let Some(run) = &account.run
                    && !run.exited
                {
                    account.cause = Some(Cause::Other);
                } else if self.ticked {
                    account.cause = Some(Cause::Other);
                }
            }
            Fact::BackingOff { pause, .. } => {
                let action = account.cause.map(|cause| contract(recovery, cause));
                let longest = match action {
                    Some(CodeAction::Retry) => Duration::from_millis(1_760),
                    _ => recovery.backoff.max,
                };
                ensure!(pause <= longest, "s{i} pauses for too long: {pause:?}");
                let is_over = recovery.limit.is_some_and(|limit| {
                    let mut recent = account.recent.clone();
                    recent.retain(|at| now.since(*at) < limit.window);
                    recent.len() >= limit.restarts as usize
                });
                if action == Some(CodeAction::Restart) && is_over {
                    ensure!(
                        account.is_looping && pause >= recovery.backoff.max.mul_f64(0.89),
                        "s{i} is over its limit and pauses for {pause:?} only"
                    );
                }
                account.not_before = self.now + pause;
            }
            Fact::Stopped {
                outcome: Outcome::Completed,
            } => {
                let action = account.cause.map(|cause| contract(recovery, cause));
                ensure!(
                    action == Some(CodeAction::Stop),
                    "s{i} is taken for complete"
                );
                let run = self.gone.iter().find(|(gone, _)| *gone == i);
                account.is_done = run.is_some_and(|(_, run)| run.was_ready());
            }
            Fact::RolledBack { .. } => {
                ensure!(!account.is_displaced, "s{i} is not back");
            }
            Fact::Ready { .. } => {
                let has_evidence = account.run.as_ref().is_some_and(|run| run.was_ready());
                ensure!(has_evidence, "s{i} is ready without evidence");
            }
            Fact::Halted {
                why: Halt::NotRestored { .. },
            } => {
                account.is_to_restore = false;
                account.old_tokens.extend(account.restore.take());
            }
            Fact::Restoring { .. } => account.is_to_restore = true,
            Fact::Halted {
                why: Halt::Unkillable { .. },
            } => {
                let had_time = |run: &&mut Run| run.killed && now >= run.kill_at;
                let run = account.run.as_mut().filter(had_time);
                run.ok_or("a run is given up too early")?.is_unkillable = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks the invariants after every event.
    pub(super) fn examine(&mut self) -> Check {
        let now = self.now;
        let present = self.present();
        let mut ids: Vec<usize> = self.engine.ids().map(|id| id.index()).collect();
        ids.sort_unstable();
        let active = self.active();
        ensure!(ids == active, "{ids:?} are there instead of {active:?}");
        // Only one of two definitions runs, except in an overlap.
        for (&i, &(new, _)) in &self.trials {
            let runs = |i: usize| {
                let run = self.accounts.get(i).and_then(|it| it.run.as_ref());
                run.is_some_and(|run| !run.is_unkillable)
            };
            let style = self.engine.trial(sid(i)).map(|trial| trial.style);
            ensure!(
                style == Some(Style::Overlap) || !(runs(i) && runs(new)),
                "s{i} runs beside its candidate s{new}"
            );
        }
        let views: BTreeMap<usize, View> = present
            .iter()
            .map(|&i| (i, self.engine.view(sid(i)).unwrap()))
            .collect();
        let is_idle = |view: &View| matches!(view.state, StateName::Stopped | StateName::Halted);
        let holds_one = self.accounts.iter().any(|account| account.run.is_some());
        let is_down = views.values().all(is_idle)
            && (self.shutting_down || !holds_one)
            && self.trials.is_empty();
        ensure!(
            self.engine.is_down() == is_down,
            "it is not said whether all is down"
        );
        let accounts: BTreeMap<usize, (bool, bool)> = present
            .iter()
            .map(|&i| (i, &self.accounts[i]))
            .map(|(i, account)| (i, (account.unwanted(), account.is_done)))
            .collect();
        for (&i, view) in &views {
            let classified_as = self.classified_as(i);
            let leaving_dependent = (0..self.specs.len()).find(|&d| {
                let account = &self.accounts[d];
                let lives = account.restore.is_some()
                    || account.is_to_restore
                    || account.run.as_ref().is_some_and(|run| !run.is_unkillable);
                let run = account.run.as_ref().filter(|run| !run.is_unkillable);
                let is_leaving = account.unwanted() || run.is_some_and(|run| run.starts_again);
                self.needs[d].contains(&i) && is_leaving && lives
            });
            let deadline = self.engine.services[&sid(i)].deadline_of_state();
            let (account, spec) = (&mut self.accounts[i], &self.specs[i]);
            let run = account.run.as_ref();
            use StateName as S;

            // The view matches the processes on the host.
            ensure!(view.since <= now, "s{i} entered its state in the future");
            ensure!(
                view.started.is_some() == view.run.is_some(),
                "s{i}: a run without a beginning"
            );
            match run.filter(|run| !run.is_unkillable) {
                Some(run) => {
                    ensure!(
                        view.run == Some(run.id),
                        "s{i} is {} beside a live run",
                        view.state
                    );
                    let pid = run.pid.filter(|_| !run.exited);
                    ensure!(
                        view.pid == pid,
                        "s{i} shows pid {:?} instead of {pid:?}",
                        view.pid
                    );
                    let expect = match run {
                        _ if run.exited || run.asked || run.killed => S::StopPending,
                        _ if run.frozen && account.snapshot.is_none() => S::Paused,
                        _ if run.was_ready() => S::Running,
                        _ => S::StartPending,
                    };
                    // A service that waits for its dependents to stop is shown as stopping.
                    let is_leaving = account.unwanted() || run.is_restart_due();
                    let shown = if is_leaving { S::StopPending } else { expect };
                    ensure!(view.state == shown, "s{i} is {}, not {shown}", view.state);
                    let is_ready = matches!(expect, S::Running | S::Paused);
                    ensure!(view.ready == is_ready, "s{i}: ready is {}", view.ready);
                    let are_remains =
                        run.exited && !(run.asked && spec.stop.scope == StopScope::Tree);
                    let lingers = !run.asked
                        && account.cause == Some(Cause::Exit(Exit::Code(0)))
                        && run.exited_at.since(run.began) <= spec.start.timeout
                        && !spec.recovery.codes.contains_key(&0);
                    ensure!(
                        run.killed || !are_remains || lingers,
                        "what s{i} left behind lives on"
                    );
                    ensure!(!(run.asked && run.frozen), "s{i} is to stop, but suspended");
                    let is_forgotten = is_leaving && is_ready && leaving_dependent.is_none();
                    ensure!(!is_forgotten, "the stop of s{i} is forgotten");
                    let is_ticked = self.ticked && run.dated < self.events;
                    let is_late = is_ticked && run.asked && !run.killed && now >= run.kill_at;
                    ensure!(!is_late, "s{i} is not killed in time");
                    let (since, taken) = run.climb;
                    let is_due = |step: &StopStep| now >= since + step.after;
                    let is_late = is_ticked
                        && run.asked
                        && !run.killed
                        && spec.stop.ladder.get(taken).is_some_and(is_due);
                    ensure!(!is_late, "s{i} is not asked the next way");
                    let is_late = is_ticked && expect == S::StartPending && now >= run.start_by;
                    ensure!(!is_late, "s{i} may start for ever");
                }
                None => {
                    ensure!(
                        view.run.is_none() && view.pid.is_none() && !view.ready,
                        "s{i} shows a run"
                    );
                    let is_restoring = account.restore.is_some() || account.is_to_restore;
                    let is_starting = view.state == S::StartPending && is_restoring;
                    let is_idle = matches!(
                        view.state,
                        S::Stopped | S::Waiting | S::BackingOff | S::Halted
                    );
                    ensure!(
                        is_starting || is_idle,
                        "s{i} is {} without a run",
                        view.state
                    );
                    let is_down = matches!(view.state, S::Stopped) || run.is_some() || is_starting;
                    ensure!(
                        !account.unwanted() || is_down,
                        "s{i} is {} though unwanted",
                        view.state
                    );
                    ensure!(
                        run.is_none() || view.state == S::Halted,
                        "s{i} forgets what is left of it"
                    );
                }
            }
            if view.state == S::Halted {
                let has_halted = self.needs[i].iter().any(|&need| {
                    let of = accounts.get(&need).copied().unwrap_or_default();
                    let has_ended = views[&need].state == S::Stopped && of == (false, false);
                    views[&need].state == S::Halted || has_ended
                });
                ensure!(
                    !account.is_hung_up || has_halted,
                    "s{i} is halted for a need that is mended"
                );
                ensure!(view.detail.is_some(), "s{i} is halted for no reason");
            }
            if self.shutting_down && account.run.is_none() && view.state == S::Stopped {
                account.restore = None;
                account.is_to_restore = false;
            }
            // The state behind a stop that waits for dependents.
            let within = match &account.run {
                Some(run)
                    if (account.unwanted() || run.starts_again)
                        && !(run.exited || run.asked || run.killed) =>
                {
                    match (run.frozen && account.snapshot.is_none(), run.was_ready()) {
                        (true, _) => S::Paused,
                        (false, true) => S::Running,
                        (false, false) => S::StartPending,
                    }
                }
                _ => view.state,
            };
            if let Some((_, by)) = account.snapshot {
                let is_tried = self.engine.trial(sid(i)).map(|trial| trial.phase)
                    == Some(TrialPhase::Snapshot);
                let deadline = if is_tried {
                    self.engine.deadline()
                } else {
                    deadline
                };
                ensure!(
                    deadline.is_some_and(|at| at <= by) && (within == S::Running || is_tried),
                    "a snapshot of s{i} has no end, though it is {}",
                    view.state
                );
            }

            // A crash loop is visible, reported again, and over when the service is down.
            let is_down = matches!(view.state, S::Stopped | S::Halted);
            account.is_looping &= !is_down || view.state == S::Stopped && !account.is_unwanted;
            ensure!(
                view.crash_looping == (account.is_looping && !is_down),
                "s{i}: crash-looping is {}",
                view.crash_looping
            );
            if view.crash_looping {
                let next = self.engine.services[&sid(i)].deadline();
                let by = account.looped_at + REMINDER;
                ensure!(next.is_some_and(|at| at <= by), "s{i} loops unseen");
            }
            let is_lingering = run.is_some_and(|run| {
                run.exited && !run.asked && !run.killed && now >= run.lingers_until
            });
            ensure!(!(self.ticked && is_lingering), "what is left of s{i} stays");

            // Every wait has a deadline.
            let must_wake = match within {
                S::StartPending | S::StopPending | S::BackingOff => true,
                S::Running => spec.liveness.is_some(),
                _ => false,
            };
            ensure!(
                !must_wake || deadline.is_some(),
                "s{i} is {} without a deadline",
                view.state
            );
            if view.state == S::Waiting && deadline.is_none() {
                // The missing need either makes progress by itself, or an operator holds it.
                let mut missing = 0;
                for &need in &self.needs[i] {
                    let account = &self.accounts[need];
                    let state = views[&need].state;
                    ensure!(
                        state != S::Halted,
                        "s{i} waits for s{need}, which is halted"
                    );
                    let is_of_use = state == S::Running && !account.unwanted()
                        || state == S::Stopped && account.is_done;
                    missing += usize::from(!is_of_use);
                    let is_held = state != S::Stopped || account.unwanted();
                    ensure!(
                        is_of_use || is_held,
                        "s{i} waits for s{need}, which nobody starts"
                    );
                }
                ensure!(missing > 0, "s{i} waits for nothing");
            }

            // The step after the end of a run.
            let account = &mut self.accounts[i];
            if let Some((_, run)) = self.gone.iter().find(|(gone, _)| *gone == i) {
                let action = account
                    .cause
                    .map(|cause| contract(&classified_as.recovery, cause));
                let fits = match action {
                    _ if run.is_unkillable => matches!(view.state, S::Halted | S::Stopped),
                    // A candidate has no restart policy.
                    _ if account.role.is_some() => view.state == S::Stopped,
                    _ if account.unwanted() => view.state == S::Stopped,
                    _ if run.starts_again => {
                        matches!(view.state, S::Waiting | S::StartPending | S::Halted)
                    }
                    None => false,
                    Some(CodeAction::Stop) => view.state == S::Stopped,
                    Some(CodeAction::Halt) => view.state == S::Halted,
                    Some(CodeAction::Retry) => matches!(view.state, S::BackingOff | S::Halted),
                    Some(CodeAction::Restore) if classified_as.snapshot.is_none() => {
                        view.state == S::Halted
                    }
                    Some(CodeAction::Restore) => {
                        view.state == S::StartPending
                            && (account.restore.is_some() || account.is_to_restore)
                    }
                    Some(CodeAction::Restart) => {
                        matches!(
                            view.state,
                            S::BackingOff | S::Halted | S::Waiting | S::StartPending
                        )
                    }
                };
                ensure!(
                    fits,
                    "s{i} is {} after {:?}, where {action:?} is due",
                    view.state,
                    account.cause
                );
            }
            ensure!(view.restarts >= account.restarts, "s{i} forgets restarts");
            if view.restarts > account.restarts {
                ensure!(
                    view.restarts == account.restarts + 1,
                    "s{i} restarts twice at once"
                );
                account.restarts = view.restarts;
                let action = account
                    .cause
                    .map(|cause| contract(&classified_as.recovery, cause));
                match action {
                    _ if self.restored => {}
                    Some(CodeAction::Retry) => {
                        account.retries += 1;
                        ensure!(
                            account.retries <= RETRY_LIMIT,
                            "s{i} is tried once more than allowed"
                        );
                    }
                    Some(CodeAction::Restart) => {
                        if let Some(limit) = classified_as.recovery.limit {
                            account.recent.push(now);
                            account.recent.retain(|at| now.since(*at) < limit.window);
                            let within = account.recent.len();
                            let is_over = within > limit.restarts as usize;
                            ensure!(
                                !is_over || limit.then == BeyondLimit::Alert,
                                "s{i} restarts {within} times within its window"
                            );
                            ensure!(
                                !is_over || view.crash_looping,
                                "s{i} restarts {within} times and is not crash-looping"
                            );
                            while account.recent.len() > limit.restarts as usize {
                                account.recent.remove(0);
                            }
                        }
                    }
                    action => return Err(format!("s{i} restarts where {action:?} is due")),
                }
            }
        }
        Ok(())
    }

    // The host.
}
