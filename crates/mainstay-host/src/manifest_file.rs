//! Reads manifest files into specs, for every verb that takes a manifest.

mod paths;
mod render;
mod writable;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest::{self, Diagnostic, Format, Platform, Tool};
use mainstay_core::registry::TextDigest;
use mainstay_core::spec::{ServiceName, Spec};
use mainstay_core::suggest::did_you_mean;
use mainstay_store::ledger::ManifestCopy;
use mainstay_sys::guarded;

use crate::output;

/// The platform of this program.
const HERE: Platform = if cfg!(windows) {
    Platform::Windows
} else {
    Platform::Unix
};

/// The text of a manifest and its origin.
pub struct Source {
    name: String,
    /// The base directory of relative paths.
    dir: PathBuf,
    text: String,
    format: Format,
}

/// A valid manifest.
pub struct Loaded {
    /// The services, in the manifest's order.
    pub specs: Vec<Spec>,
    /// The base directory of relative paths, absolute. The current directory for stdin.
    pub dir: PathBuf,
    /// The text as it was read.
    pub text: String,
    /// The format of the text.
    pub format: Format,
}

impl From<&Loaded> for ManifestCopy {
    fn from(loaded: &Loaded) -> Self {
        Self {
            text: loaded.text.clone(),
            format: loaded.format,
            dir: loaded.dir.clone(),
            digest: loaded.digest(),
        }
    }
}

/// Reads the manifest at `path` (`-` is stdin). The failure shows all of its mistakes.
pub fn load(path: &Path, format: Option<Format>) -> Result<Loaded, Failure> {
    Source::read(path, format)?.load()
}

impl Loaded {
    /// Returns the digest of the text, the format and the base directory.
    pub fn digest(&self) -> TextDigest {
        TextDigest::of(&self.text, self.format, &self.dir.to_string_lossy(), None)
    }

    /// Returns the named services and their needs, or all services if none is named.
    pub fn select(&self, names: &[String]) -> Result<Vec<Spec>, Failure> {
        if names.is_empty() {
            return Ok(self.specs.clone());
        }
        let mut wanted = HashSet::new();
        let mut open: Vec<&str> = names.iter().map(String::as_str).collect();
        while let Some(name) = open.pop() {
            let found = self.specs.iter().find(|spec| spec.name().as_str() == name);
            let spec = found.ok_or_else(|| self.unknown(name))?;
            if wanted.insert(spec.name()) {
                open.extend(spec.needed_services().map(ServiceName::as_str));
            }
        }
        let specs = self
            .specs
            .iter()
            .filter(|spec| wanted.contains(spec.name()));
        Ok(specs.cloned().collect())
    }

    fn unknown(&self, name: &str) -> Failure {
        let known: Vec<&str> = self.specs.iter().map(|spec| spec.name().as_str()).collect();
        let near = did_you_mean(name, known.iter().copied());
        let near = near.map(|near| near + " ").unwrap_or_default();
        Failure::new(Code::Unknown, format!("the manifest has no service {name}"))
            .hint(format!("{near}its services: {}", known.join(", ")))
    }
}

impl Source {
    /// Reads the manifest at `path`, which an operator named; `-` is stdin. Without a `format`, the
    /// extension decides; stdin is TOML.
    pub fn read(path: &Path, format: Option<Format>) -> Result<Self, Failure> {
        // The path may be a pipe: `mainstay check <(generate)`.
        Self::read_by(path, format, |path| {
            guarded::read_limited(File::open(path)?, guarded::MANIFEST)
        })
    }

    /// Reads an installed manifest.
    pub fn read_installed(path: &Path, format: Option<Format>) -> Result<Self, Failure> {
        Self::read_by(path, format, |path| guarded::read(path, guarded::MANIFEST))
    }

    fn read_by(
        path: &Path,
        format: Option<Format>,
        read_file: impl FnOnce(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Self, Failure> {
        let is_stdin = path == Path::new("-");
        let extension = path.extension().and_then(|extension| extension.to_str());
        let format = match (format, extension) {
            (Some(format), _) => format,
            (None, _) if is_stdin => Format::Toml,
            (None, extension) => match extension.and_then(Format::from_extension) {
                Some(format) => format,
                // Reading it fails with the more useful error.
                None if path.is_dir() || is_missing(path) => Format::Toml,
                None => {
                    if let Some(tool) = foreign_file(path) {
                        return Err(foreign(&path.display().to_string(), tool));
                    }
                    let message = format!(
                        "cannot read {}: its extension does not show its format",
                        path.display()
                    );
                    let hint = "pass --format toml, yaml or json";
                    return Err(Failure::new(Code::Usage, message).hint(hint));
                }
            },
        };
        let name = if is_stdin {
            "<stdin>".to_owned()
        } else {
            path.display().to_string()
        };
        let read = if is_stdin {
            read_stdin()
        } else {
            read_file(path)
        };
        let bytes = read.map_err(|error| {
            let code = match error.kind() {
                io::ErrorKind::PermissionDenied => Code::PermissionDenied,
                _ => Code::InvalidManifest,
            };
            let message = format!("cannot read {name}: {error}");
            let failure = Failure::new(code, message).caused_by(&error);
            match error.kind() {
                io::ErrorKind::NotFound => {
                    failure.hint("a manifest is usually named mainstay.toml")
                }
                io::ErrorKind::IsADirectory => failure.hint("pass the manifest file in it"),
                io::ErrorKind::PermissionDenied => {
                    failure.hint(format!("you are not permitted to read {name}; try sudo"))
                }
                _ => failure,
            }
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let message = format!("cannot read {name}: byte {at} is not UTF-8");
            Failure::new(Code::InvalidManifest, message).hint("save it as UTF-8")
        })?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let dir = std::path::absolute(parent.unwrap_or(Path::new(".")));
        Ok(Self {
            dir: dir.map_err(|error| {
                Failure::new(Code::Failed, format!("cannot find {name}: {error}"))
            })?,
            name,
            text,
            format,
        })
    }

    /// Creates a source from text that was passed in.
    pub fn of(name: String, text: String, format: Format, dir: PathBuf) -> Self {
        Self {
            name,
            dir,
            text,
            format,
        }
    }

    /// Sets the base directory of relative paths, if given.
    pub fn based_on(mut self, dir: Option<PathBuf>) -> Self {
        self.dir = dir.unwrap_or(self.dir);
        self
    }

    /// Parses the manifest. The failure shows all of its mistakes.
    pub fn load(self) -> Result<Loaded, Failure> {
        let specs = self.specs().map_err(|found| self.failure(&found))?;
        Ok(Loaded {
            specs,
            dir: self.dir,
            text: self.text,
            format: self.format,
        })
    }

    /// Returns the name shown in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Parses the manifest, and checks the rules of this platform, the paths of programs, and the
    /// permissions of the files that a privileged account would run.
    pub fn specs(&self) -> Result<Vec<Spec>, Vec<Diagnostic>> {
        let specs = manifest::parse(&self.text, self.format)?;
        let writable = specs
            .iter()
            .flat_map(|spec| writable::problems(spec, &self.dir))
            .map(|problem| problem.diagnostic(&self.text, self.format));
        let paths = specs
            .iter()
            .flat_map(|spec| paths::problems(spec, &self.dir))
            .map(|problem| problem.diagnostic(&self.text, self.format));
        let mut found = manifest::unusable(&self.text, self.format, &specs, HERE);
        found.extend(writable.chain(paths));
        found.sort_by_key(|diagnostic| diagnostic.span.start);
        if found.is_empty() {
            Ok(specs)
        } else {
            Err(found)
        }
    }

    /// Returns warnings about a valid manifest.
    pub fn warnings(&self, specs: &[Spec]) -> Vec<Diagnostic> {
        manifest::warnings(&self.text, self.format, specs)
    }

    /// Renders diagnostics for people.
    pub fn rendered(&self, found: &[Diagnostic]) -> String {
        render::all(&self.name, found, output::stderr_has_colour())
    }

    /// Returns a failure that shows all diagnostics.
    pub fn failure(&self, found: &[Diagnostic]) -> Failure {
        // Diagnostics about a file of another tool are of no help.
        if self.tool().is_some() {
            return self.count(found);
        }
        self.count(found).details(self.rendered(found))
    }

    /// Returns a failure with only the number of diagnostics, or the tool that the file belongs to.
    pub fn count(&self, found: &[Diagnostic]) -> Failure {
        if let Some(tool) = self.tool() {
            return foreign(&self.name, tool);
        }
        let message = match found.len() {
            1 => format!("{} has 1 error", self.name),
            count => format!("{} has {count} errors", self.name),
        };
        Failure::new(Code::InvalidManifest, message)
    }
}

impl Source {
    /// Returns the other tool that the text belongs to, if any.
    fn tool(&self) -> Option<Tool> {
        let name = Path::new(&self.name).file_name().unwrap_or_default();
        manifest::tool_of(&name.to_string_lossy(), &self.text)
    }
}

fn is_missing(path: &Path) -> bool {
    let found = path.metadata();
    found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Returns the other tool that a file without a manifest's extension belongs to, if any.
fn foreign_file(path: &Path) -> Option<Tool> {
    let bytes = guarded::read(path, guarded::MANIFEST).ok()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    manifest::tool_of(&name, &String::from_utf8_lossy(&bytes))
}

fn foreign(name: &str, tool: Tool) -> Failure {
    let message = format!("{name} is {tool}, not a mainstay manifest");
    let hint = "importing it is not supported yet; write a manifest: [service.NAME] with command = [\"/path/to/program\"] is sufficient";
    Failure::new(Code::InvalidManifest, message).hint(hint)
}

fn read_stdin() -> io::Result<Vec<u8>> {
    guarded::read_limited(io::stdin().lock(), guarded::MANIFEST)
}
