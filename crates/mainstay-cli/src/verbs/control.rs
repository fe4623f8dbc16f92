//! `mainstay start|stop|restart|pause|continue|reload NAME…`: each is sent to the running supervisor, or the
//! system's own manager, all at once, and waited for. What a dead supervisor left can be stopped, and nothing else.

use std::process::ExitCode;

use mainstay_core::engine::StateName;
use mainstay_core::report::{ServiceReport, StatusReport};
use mainstay_core::spec::ServiceName;

use crate::embedded::Embedded;
use crate::failure::{Code, Failure};
use crate::host;
use crate::installed::Installed;
use crate::state_dir::StateDir;
use crate::{client, output, update};

/// Which services.
#[derive(Debug, clap::Args)]
pub(crate) struct Control {
    /// The services.
    #[arg(required = true)]
    names: Vec<String>,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// Which services; without a name, all.
#[derive(Debug, clap::Args)]
pub(crate) struct Stop {
    /// The services; all of them if none is named.
    names: Vec<String>,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// What is asked of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Stop,
    Restart,
    Pause,
    Continue,
    Reload,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Continue => "continue",
            Self::Reload => "reload",
        }
    }

    /// What a service that did as asked is now.
    fn expects(self) -> StateName {
        match self {
            Self::Stop => StateName::Stopped,
            Self::Pause => StateName::Paused,
            Self::Start | Self::Restart | Self::Continue | Self::Reload => StateName::Running,
        }
    }
}

impl Stop {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let Self { names, json } = self;
        if names.is_empty() {
            return match client::block_on(client::stop_all(state))? {
                Ok(report) => show(Verb::Stop, report.services.into_iter().map(Ok), json),
                Err(absent) if absent.code() == Code::NotRunning => {
                    if !state.is_signed() {
                        return Err(absent);
                    }
                    stop_orphans(state, &names, json)
                }
                Err(failure) => Err(failure),
            };
        }
        Control { names, json }.run(Verb::Stop, state)
    }
}

impl Control {
    pub(crate) fn run(self, verb: Verb, state: &StateDir) -> Result<ExitCode, Failure> {
        let answers = client::block_on(async {
            let ask = |name: &String| {
                let (state, name) = (state.clone(), name.clone());
                match Installed::find(&state, &name) {
                    Some(installed) => tokio::task::spawn_blocking(move || installed.control(verb)),
                    None => tokio::task::spawn_blocking(move || {
                        if matches!(verb, Verb::Start | Verb::Restart)
                            && let Some(name) = ServiceName::new(&name)
                            && let Some(embedded) = Embedded::find(&state, &name)
                        {
                            update::mend(&embedded)?;
                        }
                        client::block_on(client::request(&state, &name, verb.as_str()))?
                    }),
                }
            };
            let asked: Vec<_> = self.names.iter().map(ask).collect();
            let mut answers = Vec::with_capacity(asked.len());
            for answer in asked {
                let failed =
                    |error| Failure::new(Code::Failed, format!("{}: {error}", verb.as_str()));
                answers.push(answer.await.map_err(failed).flatten());
            }
            answers
        })?;
        let is_absent = |answer: &Result<_, Failure>| {
            let failure = answer.as_ref().err();
            failure.is_some_and(|failure| failure.code() == Code::NotRunning)
        };
        if answers.iter().all(is_absent) && state.is_signed() {
            if verb == Verb::Stop {
                return stop_orphans(state, &self.names, self.json);
            }
            if let Some(orphans) = host::orphans(state) {
                let (what, hint) = orphans.remark();
                let message = format!("{} {}: {what}", verb.as_str(), self.names.join(", "));
                return Err(Failure::new(Code::NotRunning, message).hint(hint));
            }
        }
        let answers = answers.into_iter();
        show(verb, answers, self.json)
    }
}

/// They come to rest like those of a living supervisor.
fn stop_orphans(state: &StateDir, names: &[String], json: bool) -> Result<ExitCode, Failure> {
    if let Some(orphans) = host::orphans(state) {
        output::complain(&orphans.remark().0);
    }
    let report = host::stop_without_supervisor(state, names)?;
    show(Verb::Stop, report.services.into_iter().map(Ok), json)
}

/// Shows what became of each, and fails with the first that did not do as asked.
fn show(
    verb: Verb,
    answers: impl Iterator<Item = Result<ServiceReport, Failure>>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let mut report = StatusReport::default();
    let mut failure = None;
    for answer in answers {
        match answer {
            Ok(service) => {
                failure = failure.or(disappointment(verb, &service));
                report.services.push(service);
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if json {
        output::document(&report)?;
    } else {
        for service in &report.services {
            output::text(&format!("{}: {}\n", service.name, service.state))?;
        }
    }
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// A service that came to rest elsewhere than asked. One that has done its work and ended cleanly did what `start` asked.
fn disappointment(verb: Verb, service: &ServiceReport) -> Option<Failure> {
    let completed = service.state == StateName::Stopped
        && service.last_exit.is_some_and(|exit| exit.code == Some(0))
        && matches!(verb, Verb::Start | Verb::Restart);
    if service.state == verb.expects() || completed {
        return None;
    }
    let detail = service
        .detail
        .as_ref()
        .map_or_else(String::new, |detail| format!(": {detail}"));
    let message = format!(
        "{} {}: it is {}{detail}",
        verb.as_str(),
        service.name,
        service.state
    );
    Some(Failure::new(Code::Failed, message).hint(format!(
        "its last words: mainstay logs {} -n 20",
        service.name
    )))
}
