//! A Procfile: one process a line, as of Heroku, foreman and honcho.

use super::directory::Directory;
use super::found::{Found, Kind};
use super::text::{Words, port_option, words};
use crate::manifest::Platform;

/// The first port that foreman assigns. Each further process gets the next hundred.
const FIRST_PORT: u16 = 5000;

/// Returns the processes of a Procfile, if there is one, and adds notes about the others.
pub(super) fn find(
    dir: &impl Directory,
    platform: Platform,
    notes: &mut Vec<String>,
) -> Option<Vec<Found>> {
    let text = dir.text("Procfile")?;
    let mut all = Vec::new();
    for line in text.lines().map(str::trim) {
        let Some((name, line)) = line.split_once(':').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        if name == "release" {
            notes.push("Procfile: `release` runs once per deployment and is not a service".into());
            continue;
        }
        let step = u16::try_from(all.len()).unwrap_or(u16::MAX);
        let port = FIRST_PORT.saturating_add(step.saturating_mul(100));
        all.push(process(name, line.trim(), port, platform));
    }
    (!all.is_empty()).then_some(all)
}

fn process(name: &str, line: &str, port: u16, platform: Platform) -> Found {
    let reads_port = line.contains("$PORT") || line.contains("${PORT}");
    let plain = words(line, Some(port));
    let (env, command) = match plain {
        Some(Words { env, words }) => (env, words),
        None => {
            let shell = match platform {
                Platform::Unix => ["sh", "-c"],
                Platform::Windows => ["cmd", "/c"],
            };
            let shell = shell.iter().map(ToString::to_string);
            (Vec::new(), shell.chain([line.to_owned()]).collect())
        }
    };
    let fixed = port_option(&command);
    let found = Found::new(Kind::Procfile, name, format!("Procfile: {name}"), command);
    let found = env
        .into_iter()
        .fold(found, |it, (name, value)| it.with_env(&name, value));
    match fixed {
        _ if reads_port => found.told_port(port),
        // Foreman assigns a port to every process, and those that listen read it.
        None if name == "web" => Found {
            likely_port: Some(port),
            ..found.with_env("PORT", port.to_string())
        },
        Some(port) => found.listening(port),
        None => found,
    }
}
