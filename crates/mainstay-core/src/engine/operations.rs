//! The operations of an engine: requests of operators, start and shutdown.

use super::Engine;
use super::checkpoint::Checkpoint;
use super::fact::Fact;
use super::id::{ServiceId, Token};
use super::protocol::Action;
use super::request::{Launch, Refusal, Request};
use crate::time::Instant;

impl Engine {
    /// Processes an operator's request.
    ///
    /// # Errors
    /// If the request is not valid now; then nothing has changed.
    pub fn request(
        &mut self,
        id: ServiceId,
        request: Request,
        now: Instant,
    ) -> Result<Vec<Action>, Refusal> {
        if self.shutting_down && request != Request::Stop {
            return Err(Refusal::ShuttingDown);
        }
        if self.trial(id).is_some() && request != Request::Stop {
            return Err(Refusal::Updating);
        }
        if !self.has(id) {
            return Err(Refusal::Removed);
        }
        match request {
            Request::Stop => return Ok(self.stop(&[id], now)),
            Request::Start => return self.start(&[id], Launch::IfDown, now).map_err(|it| it.1),
            Request::Restart => return self.start(&[id], Launch::Afresh, now).map_err(|it| it.1),
            Request::Pause | Request::Continue => {}
        }
        self.shared.now = now;
        let service = self.services.get_mut(&id).ok_or(Refusal::Removed)?;
        match request {
            Request::Pause => service.pause(&mut self.shared)?,
            _ => service.resume(&mut self.shared)?,
        }
        self.attribute(&[id]);
        Ok(self.settle(vec![id]))
    }

    /// Starts these services together with their needs, each as soon as its needs are ready.
    /// [`Launch::Afresh`] stops running ones, each as soon as nothing that needs it is stopping.
    ///
    /// # Errors
    /// For the first service that cannot be started now; then nothing has changed.
    pub fn start(
        &mut self,
        ids: &[ServiceId],
        launch: Launch,
        now: Instant,
    ) -> Result<Vec<Action>, (ServiceId, Refusal)> {
        for &id in ids {
            let service = self.services.get(&id).ok_or((id, Refusal::Removed))?;
            let refusal = match () {
                () if self.shutting_down => Err(Refusal::ShuttingDown),
                () if self.trial(id).is_some() => Err(Refusal::Updating),
                () => service.check_start(launch),
            };
            refusal.map_err(|refusal| (id, refusal))?;
        }
        self.shared.now = now;
        self.attribute(ids);
        for &id in ids {
            if let Some(service) = self.services.get_mut(&id) {
                service
                    .start(launch, &mut self.shared)
                    .map_err(|refusal| (id, refusal))?;
            }
        }
        let mut changed = ids.to_vec();
        self.start_needs(&mut changed);
        Ok(self.settle(changed))
    }

    /// Stops these services, each as soon as none of them that runs needs it. Other services that
    /// need one of them keep running; [`Fact::StillNeeded`] reports them at once.
    pub fn stop(&mut self, ids: &[ServiceId], now: Instant) -> Vec<Action> {
        self.shared.now = now;
        self.attribute(ids);
        self.end_trials(|trial| ids.iter().any(|id| trial.is_of(*id)));
        let mut stopping = Vec::new();
        for id in ids {
            if let Some(service) = self.services.get_mut(id) {
                stopping.extend((!service.is_down()).then_some(*id));
                service.want_down();
            }
        }
        for id in stopping {
            let by = self.running_dependents(id);
            if let Some(service) = self.services.get(&id).filter(|_| !by.is_empty()) {
                service.emit(Fact::StillNeeded { by }, &mut self.shared);
            }
        }
        self.settle(ids.to_vec())
    }

    /// Stops these services and all that need them, as [`Engine::stop`] does, and returns them. A
    /// new definition on trial that needs one of them is rolled back.
    pub fn stop_with_dependents(
        &mut self,
        ids: &[ServiceId],
        now: Instant,
    ) -> (Vec<ServiceId>, Vec<Action>) {
        self.shared.now = now;
        let reached = self.graph.dependents.reach(ids);
        self.end_trials(|trial| trial.candidate().is_some_and(|id| reached.contains(&id)));
        let active = self.with_dependents(ids);
        let actions = self.stop(&active, now);
        (active, actions)
    }

    /// Processes an operator's request for a snapshot of a running service. The returned token is
    /// that of the [`Event::Snapshotted`](super::Event::Snapshotted) to come.
    ///
    /// # Errors
    /// If the service is not running, or a snapshot is in progress; then nothing has changed.
    pub fn request_snapshot(
        &mut self,
        id: ServiceId,
        now: Instant,
    ) -> Result<(Token, Vec<Action>), Refusal> {
        self.shared.now = now;
        let service = self.services.get_mut(&id).ok_or(Refusal::Removed)?;
        let token = service.request_snapshot(&mut self.shared)?;
        self.attribute(&[id]);
        Ok((token, self.settle(vec![id])))
    }

    /// Starts every service, each as soon as its needs are ready.
    pub fn start_all(&mut self, now: Instant) -> Vec<Action> {
        if self.shutting_down {
            return Vec::new();
        }
        self.shared.now = now;
        for id in self.ids() {
            if self.trial(id).is_none()
                && let Some(service) = self.services.get_mut(&id)
            {
                // A service that is paused or has remains refuses, and stays as it is.
                let _ = service.start(Launch::IfDown, &mut self.shared);
            }
        }
        self.settle(self.ids().collect())
    }

    /// Resumes the services of a killed host in a new engine, instead of [`Engine::start_all`].
    /// Live services continue, services that should be down stay down, and the rest is started,
    /// each as soon as its needs are ready. Services that are not given stay stopped. The views of
    /// live services contain their runs.
    pub fn resume(
        &mut self,
        checkpoints: impl IntoIterator<Item = (ServiceId, Checkpoint)>,
        now: Instant,
    ) -> Vec<Action> {
        self.shared.now = now;
        for (id, checkpoint) in checkpoints {
            if let Some(service) = self.services.get_mut(&id) {
                service.inherit(checkpoint, &mut self.shared);
            }
        }
        self.settle(self.ids().collect())
    }

    /// Processes an operator's request to stop every service, each as soon as nothing that runs
    /// needs it. Any of them may be started again.
    pub fn request_stop_of_all(&mut self, now: Instant) -> Vec<Action> {
        self.shared.now = now;
        self.attribute_all();
        self.end_trials(|_| true);
        for service in self.services.values_mut() {
            service.want_down();
        }
        self.settle(self.ids().collect())
    }

    /// Stops every service, each as soon as nothing that runs needs it. Later starts are refused.
    pub fn stop_all(&mut self, now: Instant) -> Vec<Action> {
        self.shutting_down = true;
        self.shared.now = now;
        self.attribute_all();
        self.end_trials(|_| true);
        for service in self.services.values_mut() {
            service.want_end();
        }
        self.settle(self.ids().collect())
    }

    /// Kills every service at once, in no particular order, and starts none again.
    pub fn kill_all(&mut self, now: Instant) -> Vec<Action> {
        self.shutting_down = true;
        self.shared.now = now;
        self.attribute_all();
        self.end_trials(|_| true);
        self.abandon_restores();
        for service in self.services.values_mut() {
            service.want_end();
            service.kill(&mut self.shared);
        }
        self.settle(self.ids().collect())
    }

    /// Starts the needs of the services in `started` that are not ready, directly and indirectly,
    /// and adds them to `started`.
    pub(super) fn start_needs(&mut self, started: &mut Vec<ServiceId>) {
        let named = started.len();
        let mut i = 0;
        while let Some(id) = started.get(i) {
            i += 1;
            for need in self.graph.needs.of(*id) {
                // A service on trial is brought back by its trial.
                let is_tried = self.trials.iter().any(|trial| trial.is_of(*need));
                let Some(service) = self.services.get_mut(need) else {
                    continue;
                };
                if !is_tried && !service.is_satisfied() && !started.contains(need) {
                    service.start_for_dependent(&mut self.shared);
                    started.push(*need);
                }
            }
        }
        self.attribute(&started[named..]);
    }
}
