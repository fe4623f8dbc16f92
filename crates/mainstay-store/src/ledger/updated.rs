//! Definitions that an update changed.

use std::fs;
use std::io;
use std::path::PathBuf;

use mainstay_core::manifest::{self, Format};
use mainstay_core::registry::TextDigest;
use mainstay_sys::private::{create_private_dir, write_private};
use serde::{Deserialize, Serialize};

use super::format::FORMAT;
use crate::embedded::Definition;
use crate::state_dir::StateDir;
use crate::unreadable::{Cause, Unreadable};

/// A service's definition after an update, as stored in `STATE/updated/NAME.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Updated {
    format: u32,
    /// The base directory of relative paths in the manifest.
    pub base_dir: PathBuf,
    /// The format of the manifest.
    pub manifest_format: String,
    /// The manifest.
    pub manifest: String,
}

impl Updated {
    /// Creates the record of a definition.
    pub fn new(base_dir: PathBuf, format: Format, manifest: String) -> Self {
        Self {
            format: FORMAT,
            base_dir,
            manifest_format: format.name().to_owned(),
            manifest,
        }
    }

    /// Stores the record for the service of this name.
    pub fn write(&self, state: &StateDir, name: &str) -> io::Result<()> {
        create_private_dir(&state.updated_dir())?;
        let bytes = serde_json::to_vec(self)?;
        write_private(&state.updated_path(name), &bytes).map(drop)
    }

    pub(super) fn read(state: &StateDir, name: &str) -> Result<Definition, Unreadable> {
        let path = state.updated_path(name);
        let load = || -> Result<Definition, Cause> {
            let updated: Self = serde_json::from_slice(&fs::read(&path)?)?;
            if updated.format != FORMAT {
                return Err(Cause::Format(updated.format));
            }
            let format = Format::from_extension(&updated.manifest_format);
            let specs = format.and_then(|format| manifest::parse(&updated.manifest, format).ok());
            let spec = specs.into_iter().flatten();
            let spec = spec.into_iter().find(|spec| spec.name().as_str() == name);
            let spec = spec.ok_or(Cause::Undefined)?;
            let dir = &updated.base_dir;
            let digest = format.map(|format| {
                TextDigest::of(&updated.manifest, format, &dir.to_string_lossy(), None)
            });
            Ok(Definition::of_manifest(spec, dir, digest))
        };
        load().map_err(|cause| Unreadable::new(&path, cause))
    }
}
