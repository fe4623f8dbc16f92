//! Reports of the log thread, and requests that concern all logs.

use mainstay_core::engine::{Event, ServiceId, Token};
use mainstay_core::failure::chain;
use mainstay_core::spec::ServiceName;
use mainstay_core::time::Instant;
use mainstay_logs::{LogEvent, Lost, SinkEvent, Task};

use super::Dispatcher;
use super::requests::LOGS_BEHIND;
use super::service::Service;
use crate::host::effects::Effects;

fn list(services: &[ServiceName]) -> String {
    let names: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
    names.join(", ")
}

impl<E: Effects> Dispatcher<E> {
    pub(super) fn log_event(&mut self, event: LogEvent, at: Instant) {
        match event {
            LogEvent::Matched { service, token } => self.line_matched(&service, Token(token), at),
            LogEvent::Failing {
                service,
                dir,
                task,
                file_error,
            } => {
                let problem = format!("log: {}", chain(&file_error));
                self.effects.notify(&format!(
                    "{service}: {problem}; the service keeps running, and lost output is counted"
                ));
                self.with_service(&service, |it| {
                    it.log_problems.insert((dir, task), problem);
                });
            }
            LogEvent::Recovered {
                service,
                dir,
                task,
                lost,
            } => {
                let losses = match task {
                    Task::Writing => format!("; lost: {} bytes, {} lines", lost.bytes, lost.lines),
                    Task::Rotation | Task::Compression => String::new(),
                };
                let text = format!("{service}: {}{losses}", task.again());
                self.effects.notify(&text);
                self.with_service(&service, |it| drop(it.log_problems.remove(&(dir, task))));
            }
            LogEvent::Sink(SinkEvent::Failing {
                sink,
                services,
                error,
            }) => {
                let problem = format!("{sink} does not accept lines: {error}");
                self.effects.notify(&format!(
                    "{}: {problem}; the log files contain them; retrying",
                    list(&services)
                ));
                for service in &services {
                    self.with_service(service, |it| {
                        let problems = &mut it.sink_problems;
                        problems.insert(sink.to_string(), problem.clone());
                    });
                }
            }
            LogEvent::Sink(SinkEvent::Recovered {
                sink,
                services,
                dropped,
            }) => {
                let dropped = dropped.iter().map(|(service, Lost { bytes, lines })| {
                    format!("; it did not receive {bytes} bytes ({lines} lines) of {service}")
                });
                self.effects.notify(&format!(
                    "{}: {sink} accepts lines again{}",
                    list(&services),
                    dropped.collect::<String>()
                ));
                for service in &services {
                    self.with_service(service, |it| {
                        it.sink_problems.remove(&sink.to_string());
                    });
                }
            }
        }
    }

    fn line_matched(&mut self, service: &ServiceName, token: Token, at: Instant) {
        let Some(id) = self.engine.find(service.as_str()) else {
            return;
        };
        // Only one of the two is waiting for this token.
        let candidate = self.engine.trial(id).and_then(|trial| trial.candidate);
        for id in candidate.into_iter().chain([id]) {
            self.step_at(at, Event::Answered(id, token, Ok(())));
        }
    }

    fn with_service(&mut self, name: &ServiceName, change: impl FnOnce(&mut Service)) {
        let id = self.engine.find(name.as_str());
        if let Some(service) = id.and_then(|id| self.services.get_mut(&id)) {
            change(service);
        }
    }

    /// Starts a new log file for every service.
    pub(super) fn rotate_logs(&mut self) {
        if self.effects.are_logs_behind() {
            return self.effects.notify(&format!("SIGUSR1: {LOGS_BEHIND}"));
        }
        self.effects.notify("SIGUSR1: rotating all logs");
        let ids: Vec<ServiceId> = self.services.keys().copied().collect();
        for id in ids {
            self.effects.rotate_log(id, None);
        }
    }

    /// Writes the state of every service and the number of pending operations to the supervisor's
    /// output.
    pub(super) fn write_state(&mut self) {
        let report = self.status();
        self.effects.notify(&format!(
            "SIGUSR2: pid {}, {} services, {} commands under way, {} requests waiting, {} listeners",
            std::process::id(),
            report.services.len(),
            self.helpers.len(),
            self.clients.len(),
            self.listeners.len(),
        ));
        for line in crate::table::status(&report, None).text().lines() {
            self.effects.notify(line);
        }
    }
}
