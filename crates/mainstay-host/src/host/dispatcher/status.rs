//! Reports of the state of services.

use mainstay_core::engine::{Refusal, ServiceId, StateName, Style};
use mainstay_core::failure::Code;
use mainstay_core::report::{ServiceReport, StatusReport, SupervisorReport, UpdateReport};

use super::Dispatcher;
use crate::host::control::Reply;
use crate::host::effects::Effects;

impl<E: Effects> Dispatcher<E> {
    /// Returns the status of the supervisor and of every service.
    pub(in crate::host) fn status(&self) -> StatusReport {
        StatusReport {
            supervisor: Some(SupervisorReport {
                pid: std::process::id(),
                alive: true,
                problem: self.effects.ledger_problem().map(|it| it.to_string()),
                replaced: None,
            }),
            services: self.engine.ids().filter_map(|id| self.report(id)).collect(),
        }
    }

    /// Returns a service's entry, as a response.
    pub(super) fn entry(&self, id: ServiceId) -> Reply {
        match self.report(id) {
            Some(report) => Reply::document(&report),
            None => Reply::refused(&Refusal::Removed),
        }
    }

    /// Returns the report of a service, unless it was removed.
    pub(in crate::host) fn report(&self, id: ServiceId) -> Option<ServiceReport> {
        let trial = self.engine.trial(id);
        // A candidate that runs in place of the service is shown as the service.
        let in_its_place = trial.filter(|trial| trial.style == Style::Restart);
        let in_its_place = in_its_place.and_then(|trial| trial.candidate);
        let is_up = |candidate: &ServiceId| {
            let view = self.engine.view(*candidate);
            view.is_some_and(|view| view.run.is_some())
        };
        let shown = in_its_place.filter(is_up).unwrap_or(id);
        let view = self.engine.view(shown)?;
        let service = self.services.get(&id)?;
        let now = self.now();
        let (since, ago) = (self.effects.calendar(view.since), now.since(view.since));
        let (next_try, started) = (view.next_try, view.started);
        let mut report =
            ServiceReport::new(service.spec.name().as_str(), view, since, ago.as_secs());
        let is_stopped = report.state == StateName::Stopped;
        report.completed = is_stopped.then(|| self.engine.has_completed(shown));
        report.next_try = next_try.map(|at| self.effects.calendar(at));
        report.next_try_seconds = next_try.map(|at| at.since(now).as_secs());
        let ran = started.map(|at| now.since(at).as_millis());
        report.run_ms = ran.and_then(|ms| u64::try_from(ms).ok());
        report.update = trial.map(|trial| {
            let view = trial.candidate.and_then(|id| self.engine.view(id));
            UpdateReport {
                phase: trial.phase,
                style: trial.style,
                state: view.as_ref().map_or(StateName::Stopped, |view| view.state),
                pid: view.and_then(|view| view.pid),
            }
        });
        if !self.engine.is_wanted(id) {
            let names = self.engine.running_dependents(id).into_iter();
            report.needed_by = names.map(|name| name.to_string()).collect();
        }
        let problems = service
            .log_problems
            .values()
            .chain(service.sink_problems.values());
        let problems: Vec<&str> = problems.map(String::as_str).collect();
        report.log_problem = (!problems.is_empty()).then(|| problems.join("; "));
        let unreadable = service.account.as_ref().err().map(ToString::to_string);
        report.state_problem = service.desired_problem.clone().or(unreadable);
        let version = service.latest_version();
        report.version = (version > 0).then_some(version);
        let service = self.services.get(&shown)?;
        report.definition_digest = match &service.running {
            Some(running) => running.digest.clone(),
            None => service.digest.clone(),
        };
        report.start_code = service.lacks_part.then_some(Code::MissingPart as u8);
        if let Some(usage) = self.effects.usage(shown) {
            report.cpu_ms = u64::try_from(usage.cpu.as_millis()).ok();
            report.memory_bytes = Some(usage.resident);
        }
        Some(report)
    }
}
