//! A first manifest for a directory: the processes that its files describe, and a commented
//! manifest of them.
//!
//! A Procfile alone describes the processes of its directory. Otherwise, each kind of project is
//! looked for; archives and programs count only if there is no project. A port counts as known if
//! the command contains it, if the program reads `PORT`, or if the program names it where it
//! listens. Readiness is checked at a known port only: at a wrong one, the service would never
//! become ready.
//!
//! The directory is a type parameter, so that this is compiled with the command, for size, and not
//! with the core, for speed.

mod directory;
mod found;
mod go;
mod java;
mod node;
mod procfile;
mod programs;
mod python;
mod render;
mod rust;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeSet;

use serde::Serialize;

pub use self::directory::{Directory, Entry, EntryKind};
pub use self::found::{Found, Kind};
use super::{Format, Platform, parse};
use crate::spec::ServiceName;
use crate::windows::is_device;

/// The number of services in a draft. More are noted.
const MOST_SERVICES: usize = 100;

/// A first manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Draft {
    /// The text of the manifest, in TOML.
    pub manifest: String,
    /// The services in it, which is only an example if there is none.
    pub services: Vec<Found>,
    /// Facts about processes that are not in the manifest.
    pub notes: Vec<String>,
}

/// Returns a manifest of the processes that are found in a directory. If the manifest is to be
/// stored elsewhere, `base` is the absolute path of the directory.
pub fn draft(dir: &impl Directory, platform: Platform, base: Option<&str>) -> Draft {
    let mut notes = Vec::new();
    let found = find(dir, platform, &mut notes);
    let mut names = BTreeSet::new();
    let mut services = Vec::new();
    for mut found in found {
        found.name = unique(&found.name, &mut names);
        let about = format!("{}: {}", found.source, found.name);
        let manifest = render::manifest(&[&found], dir, base);
        match parse(&manifest, Format::Toml) {
            _ if services.len() == MOST_SERVICES => {
                notes.push(format!("{about} is left out: there are too many services"));
            }
            Ok(_) => services.push(found),
            Err(_) => notes.push(format!(
                "{about} is left out: its command cannot be written"
            )),
        }
    }
    let manifest = match &services[..] {
        [] => render::skeleton(&unique(dir.name(), &mut names)),
        all => render::manifest(&all.iter().collect::<Vec<_>>(), dir, base),
    };
    Draft {
        manifest,
        services,
        notes,
    }
}

fn find(dir: &impl Directory, platform: Platform, notes: &mut Vec<String>) -> Vec<Found> {
    if let Some(all) = procfile::find(dir, platform, notes) {
        return all;
    }
    let mut all: Vec<Found> = node::find(dir).into_iter().collect();
    all.extend(python::find(dir, platform));
    all.extend(rust::find(dir, platform));
    all.extend(go::find(dir, platform));
    // A program beside the sources of a Go module is what they were built to.
    if all.is_empty() {
        all.extend(java::find(dir));
    }
    if all.is_empty() {
        all.extend(programs::find(dir));
    }
    all
}

/// Returns a valid name that is not taken yet.
fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    /// The length that leaves room for a number.
    const LONGEST: usize = 56;
    let lower = name.to_ascii_lowercase();
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let clean: String = lower.chars().map(allowed).take(LONGEST).collect();
    let clean = clean.trim_matches('-');
    let name = match ServiceName::new(clean) {
        Some(_) if is_device(clean) => format!("{clean}-app"),
        Some(name) => name.to_string(),
        None => "app".to_owned(),
    };
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    let free = names.find(|name| !taken.contains(name)).unwrap_or(name);
    taken.insert(free.clone());
    free
}
