//! Requests of operators and changes of definitions, as they come at random.

use super::*;

impl World {
    pub(super) fn request(&mut self, i: usize) -> Check {
        let request = match self.below(8) {
            0..2 => Request::Start,
            2..4 => Request::Stop,
            4 => Request::Restart,
            5..7 => Request::Pause,
            _ => Request::Continue,
        };
        if self.chance(0.002) {
            let actions = self.engine.start_all(self.now);
            self.note(|| "start all".to_owned());
            // A service that refuses stays as it is.
            let mut startable = self.active();
            startable.retain(|i| !self.trials.contains_key(i));
            for i in startable {
                let is_paused = self.engine.view(sid(i)).unwrap().state == StateName::Paused;
                let has_remains = self.accounts[i]
                    .run
                    .as_ref()
                    .is_some_and(|run| run.is_unkillable);
                if !is_paused && !has_remains {
                    self.wanted(i, false);
                }
            }
            return self.performed(actions);
        }
        if self.chance(0.002) {
            let actions = self.engine.request_stop_of_all(self.now);
            self.note(|| "an operator stops all".to_owned());
            for account in &mut self.accounts {
                account.is_unwanted = true;
                if let Some(run) = &mut account.run {
                    run.starts_again = false;
                }
            }
            return self.performed(actions);
        }
        if self.chance(0.1) {
            let before = self.snapshot();
            let outcome = self.engine.request_snapshot(sid(i), self.now);
            self.note(|| format!("request snapshot s{i}: {}", outcome.is_ok()));
            let is_refused = outcome.is_err();
            ensure!(
                !is_refused || before == self.snapshot(),
                "a refusal changed something"
            );
            let actions = outcome.map_or_else(|_| Vec::new(), |(_, actions)| actions);
            return self.performed(actions);
        }
        let before = self.snapshot();
        let outcome = self.engine.request(sid(i), request, self.now);
        self.note(|| {
            format!(
                "request {request} s{i}: {}",
                outcome
                    .as_ref()
                    .map_or_else(|no| no.to_string(), |_| "ok".into())
            )
        });
        let Ok(actions) = outcome else {
            let has_remains = self.accounts[i].run.is_some();
            ensure!(
                outcome != Err(Refusal::Remains) || has_remains,
                "s{i} is refused for remains that are gone"
            );
            ensure!(before == self.snapshot(), "a refusal changed something");
            return self.performed(Vec::new());
        };
        match request {
            Request::Stop => {
                self.accounts[i].is_unwanted = true;
                if let Some(run) = &mut self.accounts[i].run {
                    run.starts_again = false;
                }
            }
            Request::Start | Request::Restart => {
                ensure!(!self.trials.contains_key(&i), "s{i} is started in a trial");
                self.wanted(i, request == Request::Restart);
                self.wanted_with(i);
            }
            Request::Pause | Request::Continue => {}
        }
        self.performed(actions)
    }

    /// Records that the needs of a service are started, too.
    fn wanted_with(&mut self, i: usize) {
        let mut open = self.needs[i].clone();
        while let Some(need) = open.pop() {
            if !self.is_of_use(need) && !self.trials.contains_key(&need) {
                let account = &self.accounts[need];
                let starts = match &account.run {
                    Some(run) => account.unwanted() && !run.is_unkillable,
                    None => true,
                };
                if starts {
                    self.wanted(need, false);
                }
                open.extend(&self.needs[need]);
            }
        }
    }

    /// Tries a new definition.
    pub(super) fn try_out(&mut self, i: usize) -> Check {
        if !self.accounts[i].is_active() {
            return Ok(());
        }
        let id = sid(i);
        let density = [0.0, 0.2, 0.5][self.below(3)];
        let others = self.active().into_iter().filter(|&j| j != i);
        let needs: Vec<usize> = others
            .filter(|_| chance(&mut self.random, density))
            .collect();
        let called: Vec<usize> = needs.iter().map(|&need| self.numbers[need]).collect();
        let spec = Arc::new(spec(self.numbers[i], &called, &mut self.random));
        let how = Tryout {
            style: [Style::Restart, Style::Overlap][self.below(2)],
            canary: self.millis(5_000),
            versions: None,
        };
        let (before, was) = (self.snapshot(), self.engine.view(id).unwrap().state);
        self.note(|| format!("try s{i}: {how:?} {spec:?}"));
        let outcome = self.engine.try_out(id, Arc::clone(&spec), how, self.now);
        let (candidate, actions) = match outcome {
            Ok(tried) => tried,
            Err(refusal) => {
                let mut all = self.needs.clone();
                all[i].clone_from(&needs);
                let is_right = match &refusal {
                    Refusal::Updating => self.trials.contains_key(&i),
                    Refusal::Remains => self.accounts[i].run.is_some(),
                    Refusal::State(StateName::StopPending) => self.accounts[i].is_unwanted,
                    Refusal::State(state) => *state == was && was != StateName::Running,
                    Refusal::Misfit(_) => has_circle(&all),
                    _ => false,
                };
                ensure!(is_right, "it is wrong that s{i} is not tried: {refusal}");
                ensure!(before == self.snapshot(), "a refusal changed something");
                return self.performed(Vec::new());
            }
        };
        ensure!(!self.trials.contains_key(&i), "two trials of s{i}");
        let new = candidate.index();
        ensure!(new == self.accounts.len(), "s{new} was there before");
        self.accounts.push(Account {
            is_unwanted: true,
            role: Some(RolloutRole::Candidate),
            ..Account::default()
        });
        self.specs.push(spec);
        self.numbers.push(self.numbers[i]);
        self.needs.push(needs);
        if was != StateName::Stopped {
            self.wanted_with(new);
        }
        self.trials.insert(i, (new, false));
        let is_up = match was {
            StateName::Stopped => false,
            StateName::Halted => self.accounts[i].is_hung_up,
            _ => true,
        };
        let style = self.engine.trial(id).map(|trial| trial.style);
        self.accounts[i].is_displaced = is_up && style == Some(Style::Restart);
        if is_up && how.style == Style::Restart {
            // The old definition starts afresh after a rollback.
            self.accounts[i].not_before = Instant::ZERO;
        }
        if is_up && style.is_none() {
            // The trial was rolled back at once, which is a start like any other.
            let account = &mut self.accounts[i];
            account.not_before = Instant::ZERO;
            account.retries = 0;
            account.recent.clear();
        }
        if let Some(run) = self.accounts[i].run.as_mut().filter(|_| is_up) {
            run.starts_again &= style != Some(Style::Restart);
        }
        self.performed(actions)
    }

    /// Commits or aborts a trial.
    pub(super) fn decide(&mut self) -> Check {
        let Some((&i, &(new, _))) = self.trials.iter().next() else {
            return Ok(());
        };
        let id = sid(i);
        if self.chance(0.1) {
            self.note(|| format!("abort s{i}"));
            let actions = self.engine.abort(id, self.now);
            return self.performed(actions);
        }
        let phase = self.engine.trial(id).map(|trial| trial.phase);
        let is_held = phase == Some(TrialPhase::Trial);
        let outcome = self.engine.commit(id, self.now);
        self.note(|| format!("commit s{i} as s{new}: {:?}", outcome.as_ref().err()));
        let actions = match outcome {
            Ok((id, actions)) => {
                ensure!(
                    is_held && id.index() == new,
                    "s{i} is committed in {phase:?}"
                );
                actions
            }
            Err(Refusal::Misfit(_)) => {
                let mut needs = self.needs.clone();
                needs[i] = std::mem::take(&mut needs[new]);
                ensure!(is_held && has_circle(&needs), "s{i} does fit");
                return self.deliver(Event::Tick);
            }
            Err(refusal) => {
                ensure!(!is_held, "s{i} is not committed: {refusal}");
                return self.performed(Vec::new());
            }
        };
        self.trials.remove(&i);
        for needs in &mut self.needs {
            for need in needs.iter_mut().filter(|need| **need == i) {
                *need = new;
            }
        }
        let old = &mut self.accounts[i];
        let (is_unwanted, is_done, cause) = (old.is_unwanted, old.is_done, old.cause);
        let (restarts, ran) = (old.restarts, self.accounts[new].run.is_some());
        let old = &mut self.accounts[i];
        let looping = (std::mem::take(&mut old.is_looping), old.looped_at);
        (old.is_unwanted, old.is_displaced) = (true, false);
        (old.role, old.next) = (Some(RolloutRole::Predecessor), None);
        if let Some(run) = &mut old.run {
            run.starts_again = false;
        }
        let account = &mut self.accounts[new];
        account.role = None;
        account.is_unwanted = is_unwanted;
        account.restarts += restarts;
        (account.is_looping, account.looped_at) = looping;
        if !ran {
            (account.is_done, account.cause) = (is_done, cause);
        }
        self.performed(actions)
    }

    /// Updates the desired states that follow from the progress of trials.
    pub(super) fn follow_trials(&mut self) {
        for (i, (new, was_launched)) in self.trials.clone() {
            let candidate = self.engine.services.get(&sid(new));
            let is_launched = candidate.is_some_and(Service::is_desired_up);
            if is_launched && !was_launched {
                self.trials.insert(i, (new, true));
                self.accounts[new].is_unwanted = false;
                self.requested.push(new);
            }
            let trial = self.engine.trial(sid(i));
            let is_open = trial.is_some_and(|trial| trial.phase != TrialPhase::RollBack);
            if let Some(account) = self.accounts.get_mut(new) {
                account.is_unwanted |= !is_open;
            }
            if trial.is_none_or(|trial| trial.candidate.is_none()) {
                let is_back = std::mem::take(&mut self.accounts[i].is_displaced);
                let old = &self.engine.services[&sid(i)];
                let is_lost = old.is_halted() && !old.is_halted_for_a_need();
                if is_back && !is_lost && !self.accounts[i].is_unwanted && !self.shutting_down {
                    self.wanted(i, false);
                }
            }
            if trial.is_none() {
                self.trials.remove(&i);
            }
        }
    }

    pub(super) fn active(&self) -> Vec<usize> {
        let mut all = self.present();
        all.retain(|&i| self.accounts[i].is_active());
        all
    }

    /// Returns the services that exist.
    pub(super) fn present(&self) -> Vec<usize> {
        let accounts = self.accounts.iter().enumerate();
        let present = accounts.filter(|(_, account)| !account.is_gone);
        present.map(|(i, _)| i).collect()
    }

    /// Adds services and redefines others, all at once or not at all.
    pub(super) fn define(&mut self) -> Check {
        let present = self.active();
        // IDs are never reused.
        let mut length = self.accounts.len();
        let mut names: BTreeSet<usize> = BTreeSet::new();
        for _ in 0..=self.below(2) {
            let is_new = present.is_empty() || present.len() < MOST && self.chance(0.4);
            names.insert(if is_new {
                length += 1;
                length - 1
            } else {
                let i = present[self.below(present.len())];
                // The host refuses to redefine a service on trial.
                if self.trials.contains_key(&i) {
                    return Ok(());
                }
                i
            });
        }
        let mut needs = self.needs.clone();
        needs.resize_with(length, Vec::new);
        let density = [0.0, 0.2, 0.5][self.below(3)];
        let mut numbers = self.numbers.clone();
        numbers.resize(length, 0);
        for &i in names.iter().filter(|i| !present.contains(i)) {
            numbers[i] = 1 + numbers.iter().max().copied().unwrap_or(0);
        }
        let nobody = 1_000_000;
        let mut is_missing = false;
        let mut specs = Vec::new();
        for &i in &names {
            let others = (0..length).filter(|j| present.contains(j) || names.contains(j));
            let others = others.filter(|&j| j != i && chance(&mut self.random, density));
            needs[i] = others.collect();
            let called = needs[i].iter().map(|&need| numbers[need]);
            let mut called: Vec<usize> = called.collect();
            if self.chance(0.02) {
                called.push(nobody);
                is_missing = true;
            }
            specs.push(spec(numbers[i], &called, &mut self.random));
        }
        let before = self.snapshot();
        let defined = specs.iter().cloned().map(Arc::new);
        let outcome = self.engine.define(defined, self.now);
        self.note(|| format!("define {specs:?}: {:?}", outcome.as_ref().err()));
        let has_circle = has_circle(&needs);
        let actions = match outcome {
            Ok(actions) => actions,
            Err(refusal) => {
                let is_right = match refusal {
                    GraphError::Missing { .. } => is_missing,
                    GraphError::Cycle(_) => has_circle,
                    GraphError::Duplicate(_) => false,
                };
                ensure!(is_right, "it is wrong that {refusal}");
                ensure!(before == self.snapshot(), "a refusal changed something");
                return self.performed(Vec::new());
            }
        };
        ensure!(!is_missing && !has_circle, "this makes no graph");
        (self.needs, self.numbers) = (needs, numbers);
        for (i, spec) in names.into_iter().zip(specs) {
            if i >= self.accounts.len() {
                self.accounts.push(Account {
                    is_unwanted: true,
                    ..Account::default()
                });
                self.specs.push(Arc::new(spec));
                continue;
            }
            self.accounts[i].next = Some(spec);
            self.become_next(i);
        }
        self.performed(actions)
    }

    /// Puts the next definition into effect if nothing of the service runs.
    pub(super) fn become_next(&mut self, i: usize) {
        let account = &mut self.accounts[i];
        if account.run.is_some() {
            return;
        }
        let Some(next) = account.next.take() else {
            return;
        };
        let before = std::mem::replace(&mut self.specs[i], Arc::new(next));
        account.classified_as = Some(before);
        let asked = account.question.take().map(|(token, ..)| token);
        let asked = asked.into_iter().chain(account.line.take());
        account.old_tokens.extend(asked);
    }

    /// Returns the definition that decides what follows the end of a run.
    pub(super) fn classified_as(&self, i: usize) -> Arc<Spec> {
        let classified_as = self.accounts[i].classified_as.as_ref();
        Arc::clone(classified_as.unwrap_or(&self.specs[i]))
    }

    pub(super) fn remove(&mut self, i: usize) -> Check {
        if !self.accounts[i].is_active() {
            return Ok(());
        }
        let mut ids = vec![sid(i)];
        if self.chance(0.3) {
            let dependents = self.needs.iter().enumerate();
            let dependents = dependents.filter(|(_, needs)| needs.contains(&i));
            let dependents = dependents.filter(|(d, _)| self.accounts[*d].is_active());
            ids.extend(dependents.map(|(d, _)| sid(d)));
        }
        let before = self.snapshot();
        let outcome = self.engine.remove(&ids);
        self.note(|| format!("remove {ids:?}: {outcome:?}"));
        let is_needed = (0..self.needs.len()).any(|d| {
            let needs = |id: &ServiceId| self.needs[d].contains(&id.index());
            !ids.contains(&sid(d)) && ids.iter().any(needs)
        });
        let is_down = ids.iter().all(|id| {
            let account = &self.accounts[id.index()];
            let view = before.iter().find(|(of, ..)| of == id);
            let is_idle = view.is_some_and(|(_, view, _)| {
                matches!(view.state, StateName::Stopped | StateName::Halted)
            });
            is_idle && account.run.is_none()
        });
        let is_tried = ids.iter().any(|id| self.trials.contains_key(&id.index()));
        ensure!(
            outcome.is_ok() == (is_down && !is_needed && !is_tried),
            "{ids:?} are removed or not for no reason: {outcome:?}"
        );
        if outcome.is_err() {
            ensure!(before == self.snapshot(), "a refusal changed something");
            return self.performed(Vec::new());
        }
        for id in ids {
            self.needs[id.index()].clear();
            self.accounts[id.index()] = Account {
                old_tokens: std::mem::take(&mut self.accounts[id.index()].old_tokens),
                is_unwanted: true,
                is_gone: true,
                ..Account::default()
            };
        }
        self.performed(Vec::new())
    }

    /// Returns whether dependents may start.
    pub(super) fn is_of_use(&self, i: usize) -> bool {
        let account = &self.accounts[i];
        match &account.run {
            Some(run) => {
                let is_suspended = run.frozen && account.snapshot.is_none();
                let is_up = run.was_ready() && !run.exited && !run.asked && !is_suspended;
                is_up && !account.unwanted() && !run.is_restart_due()
            }
            None => account.is_done,
        }
    }

    pub(super) fn wanted(&mut self, i: usize, afresh: bool) {
        let account = &mut self.accounts[i];
        account.is_unwanted = false;
        account.is_done = false;
        account.not_before = Instant::ZERO;
        account.retries = 0;
        account.recent.clear();
        if let Some(run) = &mut account.run {
            run.starts_again |= afresh || run.asked || run.exited;
        }
        // The end of the run was processed before a trial needed the service.
        for (_, run) in self.gone.iter_mut().filter(|(gone, _)| *gone == i) {
            run.starts_again = true;
        }
        self.requested.push(i);
    }

    /// Delivers an event of an earlier run or question, or one out of turn. It must change nothing.
    pub(super) fn nonsense(&mut self, i: usize) -> Check {
        let account = &self.accounts[i];
        let id = sid(i);
        let run = match &account.run {
            Some(run) => RunId(run.id.0.wrapping_sub(1)),
            None => RunId(account.last_run),
        };
        let token = if account.old_tokens.is_empty() {
            Token(u64::MAX)
        } else {
            account.old_tokens[self.random_index(account.old_tokens.len())]
        };
        let kind = below(&mut self.random, 10);
        let event = match kind {
            // The main process has not ended yet.
            8 => match &account.run {
                Some(run) if !run.exited && !run.is_unkillable => Event::Emptied(id, run.id),
                _ => return Ok(()),
            },
            0 => Event::Spawned(id, run, 1),
            1 => Event::SpawnFailed(id, run, StartFailure::Transient("no".into())),
            2 => Event::Exited(id, run, Exit::Code(0)),
            3 => Event::Emptied(id, run),
            4 => Event::Notified(id, run, Notice::Ready),
            5 => Event::FreezeFailed(id, run, "no".into()),
            6 => Event::Restored(id, token, Ok(SnapshotId::new(1, None))),
            9 => Event::Snapshotted(id, token, Ok(Snapshotted::Unchanged)),
            _ => Event::Answered(id, token, Ok(())),
        };
        let before = self.snapshot();
        if self.accounts[i].is_gone {
            let refused = [
                self.engine.request(id, Request::Start, self.now).err(),
                self.engine.request_snapshot(id, self.now).err(),
                self.engine.remove(&[id]).err().map(|(_, why)| why),
            ];
            let is_refused = refused.iter().all(|why| *why == Some(Refusal::Removed));
            let is_seen = self.engine.view(id).is_some() || self.engine.spec(id).is_some();
            ensure!(is_refused && !is_seen, "s{i} is not gone: {refused:?}");
            ensure!(self.engine.abort(id, self.now).is_empty(), "s{i} is tried");
        }
        self.note(|| format!("nonsense: {event:?}"));
        let actions = self.engine.step(event, self.now);
        ensure!(
            actions.is_empty() && before == self.snapshot(),
            "nonsense changed something: {actions:?}"
        );
        self.performed(Vec::new())
    }
}
