//! `mainstay events`: shows events as they happen.

use std::io::{self, Write as _};
use std::process::ExitCode;

use http_body_util::BodyExt as _;
use mainstay_core::failure::{Code, Failure};
use mainstay_host::output::{self, Foreign};
use mainstay_store::start_failure::StartFailure;
use mainstay_store::state_dir::StateDir;
use serde::Deserialize;

use crate::client;
use crate::installed::Installed;
use crate::not_found;

/// Show service events as they happen, until the supervisor ends or you press Ctrl-C
#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Show only the events of this service [default: all]
    name: Option<String>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Line {
    time: String,
    service: String,
    message: String,
}

impl Events {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let name = self.name.as_deref();
        let installed = name.and_then(|name| Installed::find(state, name));
        if let Some(installed) = &installed {
            installed.check_hosted("show the events of")?;
        }
        let place = name.map_or_else(|| state.clone(), |name| state.of(name));
        client::block_on(async {
            let events = async {
                if let Some(name) = name {
                    client::expect_service(&place, "show the events of", name).await?;
                }
                client::events(&place).await
            };
            let events = match events.await {
                Err(failure) if failure.code() == Code::NotRunning => {
                    // A host that failed to start serves no events: show the stored cause instead.
                    let cause = installed.and_then(|it| it.start_failure());
                    let absent = || match name {
                        Some(name) => not_found::service_or(state, &[name], failure),
                        None => failure,
                    };
                    self.show_start_failure(&cause.ok_or_else(absent)?)?;
                    return Ok(ExitCode::from(Code::NotRunning as u8));
                }
                events => events?,
            };
            let mut body = events.into_body();
            let mut pending = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame =
                    frame.map_err(|error| client::broken(&place, &io::Error::other(error)))?;
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                pending.extend_from_slice(&data);
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    if let Err(error) = self.show(&line) {
                        output::ignore_closed(Err(error))?;
                        return Ok(ExitCode::SUCCESS);
                    }
                }
            }
            Ok(ExitCode::SUCCESS)
        })?
    }

    fn show_start_failure(&self, cause: &StartFailure) -> Result<(), Failure> {
        let name = self.name.as_deref().unwrap_or_default();
        let json = serde_json::json!({
            "time": cause.time,
            "service": name,
            "event": "start_failed",
            "message": cause.line(),
        });
        let shown = self.show(format!("{json}\n").as_bytes());
        output::ignore_closed(shown)
    }

    fn show(&self, json: &[u8]) -> io::Result<()> {
        let Ok(line) = serde_json::from_slice::<Line>(json) else {
            return Ok(());
        };
        if self.name.as_ref().is_some_and(|name| *name != line.service) {
            return Ok(());
        }
        let mut out = output::screen(Foreign::Text);
        if self.json {
            out.write_all(json)?
        } else {
            writeln!(out, "{} {}: {}", line.time, line.service, line.message)?
        }
        out.flush()
    }
}
