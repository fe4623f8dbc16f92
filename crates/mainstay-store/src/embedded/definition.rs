//! The definition of a service, installed or not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_core::manifest::{self, Format};
use mainstay_core::registry::TextDigest;
use mainstay_core::spec::Spec;

use super::desired::Desired;
use super::read_record;
use crate::state_dir::StateDir;

/// A service definition and its origin.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The definition itself.
    pub spec: Arc<Spec>,
    /// The base directory of relative paths.
    pub dir: PathBuf,
    /// The version of the installation; 0 if the service is not installed.
    pub version: u64,
    /// Set if the service starts with its supervisor.
    pub is_enabled: bool,
    /// The reason why the service stays down nevertheless.
    pub desired: Option<Desired>,
    /// The digest of the manifest's text, if known.
    pub digest: Option<TextDigest>,
    /// The reason why the definition cannot be read or used. A process of the service that still
    /// runs is supervised and can be stopped, but the service cannot be started.
    pub problem: Option<String>,
}

impl Definition {
    /// Creates the definition of a service that is not installed.
    pub fn of_manifest(spec: Spec, dir: &Path, digest: Option<TextDigest>) -> Self {
        Self {
            spec: Arc::new(spec),
            dir: dir.to_owned(),
            version: 0,
            is_enabled: true,
            desired: None,
            digest,
            problem: None,
        }
    }

    /// Creates a placeholder for a service whose definition is lost, so that it can be stopped like
    /// any other.
    pub fn of_unknown(name: &str) -> Option<Self> {
        let text = format!("[service.{name}]\ncommand = [\"{name}\"]\n");
        let spec = manifest::parse(&text, Format::Toml).ok()?.pop()?;
        Some(Self::of_manifest(spec, Path::new("/"), None))
    }

    /// Creates a stand-in for an installed service whose definition cannot be read, so that a
    /// process of it that runs is neither ended nor forgotten.
    pub fn unreadable(state: &StateDir, name: &str, problem: String) -> Option<Self> {
        let record = read_record(state, name).ok();
        Some(Self {
            version: record.map_or(0, |record| record.version),
            is_enabled: false,
            desired: Some(Desired::Halted {
                why: problem.clone(),
                restarts: 0,
                last_exit: None,
            }),
            problem: Some(problem),
            ..Self::of_unknown(name)?
        })
    }
}
