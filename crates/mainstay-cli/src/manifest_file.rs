//! From a file to specs, for every verb that takes a manifest.

mod render;
mod writable;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use mainstay_core::manifest::{self, Diagnostic, Format};
use mainstay_core::spec::Spec;

use crate::failure::{Code, Failure};
use crate::output;

/// `--format`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FormatName {
    /// TOML
    Toml,
    /// YAML, without anchors and tags
    Yaml,
    /// JSON
    Json,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Toml => Self::Toml,
            FormatName::Yaml => Self::Yaml,
            FormatName::Json => Self::Json,
        }
    }
}

/// The text of a manifest, and where it came from.
pub(crate) struct Source {
    name: String,
    /// What relative paths in it are relative to.
    dir: PathBuf,
    text: String,
    format: Format,
}

/// A manifest without mistakes.
pub(crate) struct Loaded {
    pub(crate) specs: Vec<Spec>,
    /// Absolute. What relative paths in it are relative to; the current directory for stdin.
    pub(crate) dir: PathBuf,
    /// As it was read.
    pub(crate) text: String,
    pub(crate) format: Format,
}

/// Reads the manifest `path` (`-` is stdin); its mistakes become a failure that shows them all.
pub(crate) fn load(path: &Path, format: Option<FormatName>) -> Result<Loaded, Failure> {
    let source = Source::read(path, format)?;
    let specs = source.specs().map_err(|found| source.failure(&found))?;
    Ok(Loaded {
        specs,
        dir: source.dir,
        text: source.text,
        format: source.format,
    })
}

impl Source {
    /// Reads `path`, `-` being stdin. Without a `format` the extension tells; stdin is TOML.
    pub(crate) fn read(path: &Path, format: Option<FormatName>) -> Result<Self, Failure> {
        let is_stdin = path == Path::new("-");
        let extension = path.extension().and_then(|extension| extension.to_str());
        let format = match (format, extension) {
            (Some(name), _) => name.into(),
            (None, _) if is_stdin => Format::Toml,
            (None, extension) => match extension.and_then(Format::from_extension) {
                Some(format) => format,
                // A directory has no extension either, and that is the better thing to say.
                None if path.is_dir() => Format::Toml,
                None => {
                    let message =
                        format!("read {}: its name does not tell its format", path.display());
                    let hint = "pass --format toml, yaml or json";
                    return Err(Failure::new(Code::Usage, message).hint(hint));
                }
            },
        };
        let name = match is_stdin {
            true => "<stdin>".to_owned(),
            false => path.display().to_string(),
        };
        let read = match is_stdin {
            true => read_stdin(),
            false => fs::read(path),
        };
        let bytes = read.map_err(|error| {
            let code = match error.kind() {
                io::ErrorKind::PermissionDenied => Code::PermissionDenied,
                _ => Code::InvalidManifest,
            };
            let failure = Failure::new(code, format!("read {name}: {error}"));
            match error.kind() {
                io::ErrorKind::NotFound => {
                    failure.hint("a manifest is usually called mainstay.toml")
                }
                io::ErrorKind::IsADirectory => failure.hint("name the manifest in it"),
                io::ErrorKind::PermissionDenied => {
                    failure.hint(format!("it takes the right to read {name}; try sudo"))
                }
                _ => failure,
            }
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let message = format!("read {name}: byte {at} is not UTF-8");
            Failure::new(Code::InvalidManifest, message).hint("save it as UTF-8")
        })?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let dir = std::path::absolute(parent.unwrap_or(Path::new(".")));
        Ok(Self {
            dir: dir
                .map_err(|error| Failure::new(Code::Failed, format!("find {name}: {error}")))?,
            name,
            text,
            format,
        })
    }

    /// What to call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it means; beyond the text, the rights on what a privileged account would run are looked at.
    pub(crate) fn specs(&self) -> Result<Vec<Spec>, Vec<Diagnostic>> {
        let specs = manifest::parse(&self.text, self.format)?;
        let mut found: Vec<Diagnostic> = specs
            .iter()
            .flat_map(|spec| writable::problems(spec, &self.dir))
            .map(|problem| problem.diagnostic(&self.text, self.format))
            .collect();
        found.sort_by_key(|diagnostic| diagnostic.span.start);
        match found.is_empty() {
            true => Ok(specs),
            false => Err(found),
        }
    }

    /// Shows everything that was found.
    pub(crate) fn failure(&self, found: &[Diagnostic]) -> Failure {
        let details = render::all(&self.name, found, output::stderr_has_colour());
        self.count(found).details(details)
    }

    /// Only says how much was found.
    pub(crate) fn count(&self, found: &[Diagnostic]) -> Failure {
        let message = match found.len() {
            1 => format!("{} has 1 mistake", self.name),
            count => format!("{} has {count} mistakes", self.name),
        };
        Failure::new(Code::InvalidManifest, message)
    }
}

fn read_stdin() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}
