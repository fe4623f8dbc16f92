//! The death of the host, and the end of an episode.

use super::*;

impl World {
    /// Kills the host. Processes live on, some of them not for long; the next host resumes from
    /// what it finds.
    pub(super) fn host_is_killed(&mut self) -> Check {
        self.note(|| "the host is killed".to_owned());
        // The next engine has no trials, and kills processes that it does not recognise.
        self.trials.clear();
        for account in &mut self.accounts {
            account.is_displaced = false;
            account.is_gone |= account.role.is_some();
        }
        self.close_gaps();
        let mut ids: Vec<ServiceId> = self.engine.ids().collect();
        ids.sort();
        let mut checkpoints: Vec<(ServiceId, Checkpoint)> = ids
            .into_iter()
            .enumerate()
            .map(|(i, id)| (sid(i), self.engine.checkpoint(id).unwrap()))
            .collect();
        if self.chance(0.2) {
            self.now = self.now + self.millis(100_000);
        }
        let mut died = Vec::new();
        for (id, checkpoint) in &mut checkpoints {
            let i = id.index();
            let has_died = self.chance(0.2);
            let account = &mut self.accounts[i];
            let is_wanted = checkpoint.desired == DesiredState::Up;
            ensure!(
                is_wanted != account.is_unwanted,
                "s{i} leaves another wish than its operators'"
            );
            ensure!(
                checkpoint.restarts == account.restarts,
                "s{i} leaves another count of restarts"
            );
            account.question = None;
            account.line = None;
            account.restore = None;
            account.is_to_restore = false;
            account.restored.clear();
            let was_kept_still = account.snapshot.take().is_some();
            account.abandoned = None;
            account.is_hung_up = false;
            account.not_before = Instant::ZERO;
            account.retries = 0;
            account.last_run = 0;
            let failures = &checkpoint.failures;
            ensure!(
                failures.crash_loop.is_some() == account.is_looping,
                "s{i} leaves another crash loop"
            );
            account.old_tokens.clear();
            // The new engine gets the last definition.
            if let Some(next) = account.next.take() {
                self.specs[i] = Arc::new(next);
            }
            account.is_looping &= self.specs[i].recovery.limit.is_some();
            let Some(run) = &mut account.run else {
                continue;
            };
            match &checkpoint.recovered {
                RecoveredState::Child {
                    pid, began, stage, ..
                } => {
                    ensure!(
                        run.pid == Some(*pid) && run.began == *began && !run.exited,
                        "s{i} leaves a child that it has not"
                    );
                    let is_stopping = matches!(stage, Stage::Stopping | Stage::Failing(_));
                    ensure!(
                        is_stopping == run.asked
                            && (*stage == Stage::Paused) == (run.frozen && !was_kept_still),
                        "s{i} leaves a child that is elsewhere"
                    );
                    let (pid, began, stage) = (*pid, *began, stage.clone());
                    run.start_by = run.start_by.max(self.now + ANSWER_TIMEOUT);
                    if has_died && !is_stopping {
                        checkpoint.recovered = RecoveredState::Gone {
                            pid,
                            began,
                            stage: stage.clone(),
                        };
                        run.start_by = self.now + self.specs[i].start.timeout;
                        died.push(i);
                    }
                    (run.asked, run.killed) = (false, false);
                    // The successor suspends or resumes the processes as it was recorded.
                    run.frozen = stage != Stage::Paused;
                    run.dated = self.events;
                    run.starts_again = false;
                    run.has_evidence |= self.specs[i].start.ready.is_none();
                    if is_stopping {
                        self.goes_on_stopping.push(i);
                    }
                    match stage {
                        Stage::Stopping if is_wanted => {
                            run.starts_again = true;
                            self.requested.push(i);
                        }
                        Stage::Failing(_) => {
                            account.cause = Some(Cause::Other);
                            self.failed.push(i);
                        }
                        _ => {}
                    }
                }
                RecoveredState::Ended { ended, .. } => {
                    let cause = match ended {
                        Ended::Exit(Exit::Unknown) => Cause::Other,
                        Ended::Exit(exit) => Cause::Exit(*exit),
                        Ended::Backgrounded { .. } => Cause::Lasting,
                        _ => Cause::Other,
                    };
                    account.cause = Some(cause);
                    (run.asked, run.killed, run.starts_again) = (false, false, false);
                    run.dated = self.events;
                }
                // Remaining or unrecorded processes are killed.
                _ => account.run = None,
            }
        }
        let seed = self.below(1_000_000) as u64;
        self.engine = Engine::new(self.specs.iter().cloned(), seed).unwrap();
        let actions = self.engine.resume(checkpoints, self.now);
        for (i, account) in self.accounts.iter_mut().enumerate() {
            let Some(run) = &mut account.run else {
                continue;
            };
            let id = self.engine.view(sid(i)).unwrap().run;
            let new = id.ok_or_else(|| format!("s{i} is forgotten"))?;
            account.last_run = new.0;
            let old = std::mem::replace(&mut run.id, new);
            for (_, event) in &mut self.coming {
                match event {
                    Event::Exited(of, run, _) | Event::Notified(of, run, _)
                        if (*of, *run) == (sid(i), old) =>
                    {
                        *run = new;
                    }
                    _ => {}
                }
            }
            if died.contains(&i) {
                let exited =
                    |event: &Event| matches!(event, Event::Exited(of, ..) if *of == sid(i));
                self.coming.retain(|(_, event)| !exited(event));
                let event = Event::Exited(sid(i), new, Exit::Unknown);
                self.coming.push((self.now, event));
            } else if run.exited {
                self.coming.push((self.now, Event::Emptied(sid(i), new)));
            }
        }
        self.performed(actions)?;
        for (i, account) in self.accounts.iter_mut().enumerate() {
            account.is_hung_up = self.engine.services[&sid(i)].is_halted_for_a_need();
        }
        Ok(())
    }

    /// Renumbers the services without those that are gone, as in a new engine.
    fn close_gaps(&mut self) {
        let present = self.present();
        let moved = |old: usize| present.iter().position(|&i| i == old);
        let (mut accounts, mut specs) = (Vec::new(), Vec::new());
        let (mut numbers, mut needs) = (Vec::new(), Vec::new());
        for &i in &present {
            accounts.push(std::mem::take(&mut self.accounts[i]));
            specs.push(Arc::clone(&self.specs[i]));
            numbers.push(self.numbers[i]);
            needs.push(
                self.needs[i]
                    .iter()
                    .filter_map(|&need| moved(need))
                    .collect(),
            );
        }
        (self.accounts, self.specs) = (accounts, specs);
        (self.numbers, self.needs) = (numbers, needs);
        self.coming.retain_mut(|(_, event)| {
            let id = match event {
                Event::Exited(id, ..) | Event::Notified(id, ..) => id,
                _ => return false,
            };
            moved(id.index()).inspect(|&i| *id = sid(i)).is_some()
        });
    }

    pub(super) fn random_index(&self, n: usize) -> usize {
        below(&mut self.random.clone(), n)
    }

    /// Stops or kills everything on a host that behaves well from now on.
    pub(super) fn end(&mut self) -> Check {
        self.behaves = true;
        self.shutting_down = true;
        self.coming.clear();
        let kills = self.chance(0.3);
        let mut allowance = Duration::from_secs(2);
        for i in 0..self.specs.len() {
            let id = sid(i);
            let at = self.now + Duration::from_millis(1);
            let account = &self.accounts[i];
            if let Some(token) = account.restore.filter(|_| !kills) {
                let answer = Ok(SnapshotId::new(1, None));
                self.coming.push((at, Event::Restored(id, token, answer)));
            }
            for token in account
                .abandoned
                .into_iter()
                .chain(account.snapshot.map(|(token, _)| token))
            {
                let why = Err(CopyFailure::Cancelled);
                self.coming.push((at, Event::Snapshotted(id, token, why)));
            }
            let Some(run) = &account.run else { continue };
            allowance += run.kill_at.since(self.now) + KILL_TIMEOUT;
            if run.pid.is_none() && !run.exited {
                self.pids += 1;
                self.coming
                    .push((at, Event::Spawned(id, run.id, self.pids)));
            }
            if run.exited {
                self.coming.push((at, Event::Emptied(id, run.id)));
            } else if run.asked || run.killed {
                self.coming
                    .push((at, Event::Exited(id, run.id, Exit::Signal(9))));
            }
        }
        for account in &mut self.accounts {
            account.is_unwanted = true;
            if let Some(run) = &mut account.run {
                run.starts_again = false;
            }
        }
        let deadline = if kills {
            self.now + Duration::from_secs(1)
        } else {
            let ladders: Duration = self.specs.iter().map(|spec| spec.stop.graceful).sum();
            self.now + allowance + ladders
        };
        self.killing = kills;
        self.note(|| if kills { "kill all" } else { "stop all" }.to_owned());
        let actions = if kills {
            self.engine.kill_all(self.now)
        } else {
            self.engine.stop_all(self.now)
        };
        if kills {
            for (i, account) in self.accounts.iter().enumerate() {
                if let Some(run) = account.run.as_ref().filter(|run| !run.killed) {
                    ensure!(
                        actions.contains(&Action::Kill(sid(i), run.id)),
                        "kill all forgot s{i}"
                    );
                }
            }
        }
        self.performed(actions)?;
        for _ in 0..10_000 {
            if self.engine.is_down() && self.accounts.iter().all(|account| account.run.is_none()) {
                return Ok(());
            }
            ensure!(self.now <= deadline, "not everything is down in time");
            self.time_passes()?;
        }
        Err("not everything comes down".to_owned())
    }
}
