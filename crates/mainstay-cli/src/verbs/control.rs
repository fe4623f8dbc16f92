//! `mainstay start|stop|restart|pause|continue|reload NAME…`: each is sent to the running supervisor, all at once, and waited for.

use std::process::ExitCode;

use mainstay_core::engine::StateName;
use mainstay_core::report::{ServiceReport, StatusReport};

use crate::failure::{Code, Failure};
use crate::state_dir::StateDir;
use crate::{client, output};

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
    fn as_str(self) -> &'static str {
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

impl Control {
    pub(crate) fn run(self, verb: Verb, state: &StateDir) -> Result<ExitCode, Failure> {
        let answers = client::block_on(async {
            let ask = |name: String| {
                let state = state.clone();
                tokio::task::spawn_local(async move {
                    client::request(&state, &name, verb.as_str()).await
                })
            };
            let asked: Vec<_> = self.names.into_iter().map(ask).collect();
            let mut answers = Vec::with_capacity(asked.len());
            for answer in asked {
                answers.push(answer.await);
            }
            answers
        })?;
        let mut report = StatusReport::default();
        let mut failure = None;
        for answer in answers {
            let failed = |error| Failure::new(Code::Failed, format!("{}: {error}", verb.as_str()));
            match answer.map_err(failed).flatten() {
                Ok(service) => {
                    failure = failure.or(disappointment(verb, &service));
                    report.services.push(service);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if self.json {
            output::document(&report)?;
        } else {
            for service in &report.services {
                output::text(&format!("{}: {}\n", service.name, service.state))?;
            }
        }
        failure.map_or(Ok(ExitCode::SUCCESS), Err)
    }
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
