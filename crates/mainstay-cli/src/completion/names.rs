//! The names that exist on this machine, read from directories. Nothing is asked that could take
//! time, and what cannot be read is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use mainstay::Scope;
use mainstay_core::manifest::{self, Format};
use mainstay_core::snapshot::SnapshotId;
use mainstay_core::spec::ServiceName;
use mainstay_store::embedded;
use mainstay_store::registry::Registry;
use mainstay_store::state_dir::StateDir;
use mainstay_sys::guarded;

use super::Live;
use crate::installed;

/// The number of entries of a directory that are looked at.
const MOST_ENTRIES: usize = 10_000;

/// Returns the names of a set, sorted.
pub(crate) fn of(state: &StateDir, set: &Live) -> Vec<String> {
    match set {
        Live::Services => {
            let own = [state.events_dir(), state.logs_dir()].into_iter();
            services(own.chain(installed_dirs(state)))
        }
        Live::Installed => services(installed_dirs(state)),
        Live::OfManifest(path) => of_manifest(Path::new(path)).unwrap_or_default(),
        Live::Versions(name) => versions(state, name).unwrap_or_default(),
        Live::Snapshots(name) => {
            // Only a valid service name may become part of a path.
            let name = ServiceName::new(name).map(|name| name.to_string());
            let dir = name.map(|name| state.of(&name).snapshots_dir().join(name));
            let ids = dir.into_iter().flat_map(|dir| entries(&dir));
            let ids: BTreeSet<String> = ids
                .filter(|name| SnapshotId::from_str(name).is_ok())
                .collect();
            // The newest are the most likely.
            ids.into_iter().rev().collect()
        }
    }
}

fn installed_dirs(state: &StateDir) -> impl Iterator<Item = PathBuf> {
    let scopes = [Scope::User, Scope::System].into_iter();
    scopes
        .map(|scope| state.installed_dir(scope))
        .collect::<Vec<_>>()
        .into_iter()
}

fn services(dirs: impl Iterator<Item = PathBuf>) -> Vec<String> {
    let names = dirs.flat_map(|dir| entries(&dir));
    let names = names.filter(|name| ServiceName::new(name).is_some());
    let names: BTreeSet<String> = names.collect();
    names.into_iter().collect()
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .take(MOST_ENTRIES);
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn of_manifest(path: &Path) -> Option<Vec<String>> {
    let format = Format::from_extension(path.extension()?.to_str()?)?;
    let text = guarded::read_to_string(path, guarded::MANIFEST).ok()?;
    let specs = manifest::parse(&text, format).ok()?;
    Some(specs.iter().map(|spec| spec.name().to_string()).collect())
}

fn versions(state: &StateDir, name: &str) -> Option<Vec<String>> {
    let of_system = || installed::registry_of(state, name).ok().flatten();
    let embedded = embedded::is_installed(state, name)
        .then(|| {
            Registry::find(&embedded::registry_path(state))
                .ok()
                .flatten()
        })
        .flatten();
    let (registry, _) = match embedded {
        Some(registry) => {
            let registered = registry.get(name).ok().flatten()?;
            (registry, registered)
        }
        None => of_system()?,
    };
    let versions = registry.versions(name).ok()?;
    Some(versions.iter().rev().map(ToString::to_string).collect())
}
