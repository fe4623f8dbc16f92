//! `mainstay events`: what happens, as it happens.

use std::io::{self, Write as _};
use std::process::ExitCode;

use http_body_util::BodyExt as _;
use serde::Deserialize;

use crate::failure::Failure;
use crate::state_dir::StateDir;
use crate::{client, output};

/// Shows events of the running supervisor from now on, until it ends or you press ctrl-c.
#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Only those of this service.
    name: Option<String>,
    /// One JSON object a line.
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
        let state = self
            .name
            .as_ref()
            .map_or_else(|| state.clone(), |name| state.of(name));
        client::block_on(async {
            let mut body = client::events(&state).await?.into_body();
            let mut pending = Vec::new();
            while let Some(Ok(frame)) = body.frame().await {
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

    fn show(&self, json: &[u8]) -> io::Result<()> {
        let Ok(line) = serde_json::from_slice::<Line>(json) else {
            return Ok(());
        };
        if self.name.as_ref().is_some_and(|name| *name != line.service) {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        match self.json {
            true => out.write_all(json)?,
            false => writeln!(out, "{} {}: {}", line.time, line.service, line.message)?,
        }
        out.flush()
    }
}
