//! `mainstay update` and `mainstay rollback`: change installed services to the definitions in a
//! manifest, or to earlier versions.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use mainstay_core::engine::{Style, TrialPhase};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest as core;
use mainstay_core::registry::{Definition, Expected, Version, before_current};
use mainstay_core::spec::{ServiceName, Spec};
use mainstay_host::manifest_file::{self, Loaded};
use mainstay_host::output;
use mainstay_store::programs::Hash;
use mainstay_store::registry::{Registered, Registry};
use mainstay_store::state_dir::StateDir;
use serde::Serialize;

use super::{FormatName, number};
use crate::deploy::artifact::Source;
use crate::deploy::update::{self, Done, Embedded, Outcome, Site};
use crate::deploy::{registered, system};
use crate::installed::Installed;
use crate::library_failure::of_library;
use crate::not_found;
use crate::progress;

/// Update installed services from a manifest; roll back each one that does not become healthy
///
/// Services are updated one at a time, each after those that it needs. The first rollback ends the
/// update; services updated before it keep their new definitions. A running service is restarted
/// with its new definition, and returns to the old one if that fails. If both definitions have the
/// same `listen`, the new run is ready before the old one is asked to stop, and no connection is
/// refused.
#[derive(Debug, clap::Args)]
pub(crate) struct Update {
    /// Manifest file (.toml, .yaml or .json); `-` reads standard input
    file: PathBuf,
    /// Update only these services [default: all in the manifest]
    names: Vec<String>,
    /// Manifest format, if the file extension does not show it [default for standard input: toml]
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Program to run in place of the one in `command`: a file or an https:// URL (one service
    /// only)
    ///
    /// The program is stored. It is used until the next --artifact, or until `mainstay install`
    /// applies the manifest alone.
    #[arg(long, value_name = "PATH|URL")]
    artifact: Option<Source>,
    /// SHA-256 that the artifact must have, in hexadecimal; required for a URL
    #[arg(long, value_name = "HEX", requires = "artifact")]
    sha256: Option<Hash>,
    #[command(flatten)]
    how: How,
}

/// Roll back an installed service to an earlier version
///
/// The procedure is that of `mainstay update`. The result is a new version. Without --to, the
/// version that was in effect before the current one is restored; repeated rollbacks go further
/// back. A later version is restored with --to.
#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    /// Name of the service
    name: String,
    /// Version to restore [default: the one in effect before the current one]
    #[arg(long, value_name = "N", value_parser = number)]
    to: Option<u64>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Proceed only if version N is installed (one service only)
    #[arg(long, value_name = "N", value_parser = number)]
    if_version: Option<u64>,
    /// Time for which a service must stay healthy after it has become ready
    #[arg(long, value_name = "DURATION", value_parser = core::duration, default_value = "10s")]
    canary: Duration,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    services: Vec<Line>,
}

/// The outcome for one service.
#[derive(Serialize)]
struct Line {
    name: String,
    outcome: &'static str,
    /// The version in effect now.
    version: u64,
    /// The version in effect before.
    before: u64,
    /// The version whose definition a rollback restores.
    restored: Option<u64>,
    /// The version that was rolled back.
    rejected: Option<u64>,
    /// The update style: whether the old run continued meanwhile. `None` if there was no old run.
    style: Option<Style>,
    /// The reason why a definition that is in effect was not tried.
    untried: Option<String>,
    /// The phase that a rolled-back definition had reached.
    phase: Option<TrialPhase>,
    why: Option<String>,
    last_lines: Vec<String>,
}

impl Update {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let manifest = manifest_file::load(&self.file, self.format.map(Into::into))?;
        let names = self.in_order(&manifest)?;
        if self.how.if_version.is_some() {
            super::must_be_one("update", "--if-version", names.len())?;
        }
        if self.artifact.is_some() {
            super::must_be_one("update", "--artifact", names.len())?;
        }
        if let (Some(Source::Url(_)), None) = (&self.artifact, &self.sha256) {
            let message = "--artifact with a URL requires --sha256";
            return Err(Failure::new(Code::Usage, message));
        }
        let base_dir = registered::base_dir(&manifest.dir)?;
        // Every service must be installed before the first one is changed.
        let sites = names.iter().map(|name| {
            site(state, name)?.ok_or_else(|| {
                let hint = format!(
                    "install it first: mainstay install {} {name}",
                    self.file.display()
                );
                not_found::service(state, name.as_str()).hint(hint)
            })
        });
        let sites = sites.collect::<Result<Vec<_>, Failure>>()?;
        let mut lines = Vec::new();
        for site in sites {
            let done = self.how.update(state, &*site, |_, found| {
                let definition = Definition {
                    manifest: self.text(&manifest, &*site, found)?,
                    format: manifest.format,
                    base_dir: base_dir.clone(),
                    ..found.definition.clone()
                };
                Ok((definition, None))
            });
            let end = match done {
                Ok(done) => {
                    lines.push(Line::new(site.name(), done));
                    self.how.end("update", &lines)
                }
                Err(failure) => Err(failure),
            };
            if let Err(failure) = end {
                self.how.show(lines)?;
                return Err(failure.about([site.name().as_str()]));
            }
        }
        self.how.show(lines)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the manifest to store, with the program of this update or of an earlier one.
    fn text(
        &self,
        manifest: &Loaded,
        site: &dyn Site,
        found: &Registered,
    ) -> Result<String, Failure> {
        let name = site.name().as_str();
        let program = |specs: &[Spec]| {
            let spec = specs.iter().find(|spec| spec.name().as_str() == name)?;
            Some(spec.command().program().to_owned())
        };
        let typed = program(&manifest.specs).unwrap_or_default();
        let programs = site.programs();
        let path = match &self.artifact {
            Some(source) => {
                let file_name = Path::new(&typed).file_name().unwrap_or_default();
                let file_name = file_name.to_str().unwrap_or("program");
                let path = programs.fetch(file_name, source, self.sha256.as_ref())?;
                path.to_str().map(str::to_owned)
            }
            None => {
                let old = &found.definition;
                let specs = core::parse(&old.manifest, old.format).unwrap_or_default();
                program(&specs).filter(|program| programs.have(program))
            }
        };
        let Some(path) = path else {
            return Ok(manifest.text.clone());
        };
        let text = core::with_program(&manifest.text, manifest.format, name, &path);
        let text = text.ok_or_else(|| {
            let message = format!(
                "cannot update {name}: its manifest cannot contain the program path {path}"
            );
            Failure::new(Code::InvalidManifest, message)
        })?;
        let kept = manifest_file::Source::of(
            self.file.display().to_string(),
            text,
            manifest.format,
            manifest.dir.clone(),
        );
        // Loading refuses a program that others can change.
        Ok(kept.load()?.text)
    }

    /// Returns the requested services, each after those that it needs.
    fn in_order(&self, manifest: &Loaded) -> Result<Vec<ServiceName>, Failure> {
        fn visit<'a>(spec: &'a Spec, all: &'a [Spec], order: &mut Vec<&'a ServiceName>) {
            if order.contains(&spec.name()) {
                return;
            }
            let needs = |name: &&ServiceName| spec.needed_services().any(|need| need == *name);
            let needed = all.iter().filter(|it| needs(&it.name()));
            needed.for_each(|it| visit(it, all, order));
            order.push(spec.name());
        }
        // `select` reports unknown names.
        let known = manifest.select(&self.names)?;
        let mut order = Vec::new();
        known
            .iter()
            .for_each(|spec| visit(spec, &known, &mut order));
        let is_meant = |name: &&ServiceName| {
            self.names.is_empty() || self.names.iter().any(|it| it == name.as_str())
        };
        Ok(order.into_iter().filter(is_meant).cloned().collect())
    }
}

impl Rollback {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let not_found = || not_found::service(state, &self.name);
        let name = ServiceName::new(&self.name).ok_or_else(not_found)?;
        let site = site(state, &name)?.ok_or_else(not_found)?;
        let done = self.how.update(state, &*site, |registry, found| {
            let version = match self.to {
                Some(version) => Version(version),
                None => {
                    let entries = registry.history(&self.name)?;
                    before_current(&entries).ok_or_else(|| {
                        let current = found.life.version();
                        let message = format!("cannot roll back {name}: no version was in effect before version {current}");
                        let hint = format!("choose a version: mainstay history {name}");
                        Failure::new(Code::Unknown, message).hint(hint)
                    })?
                }
            };
            let kept = system::kept(registry, &self.name, version)?;
            let place = |it: &Definition| (it.manager.clone(), it.mode.clone(), it.user);
            if place(&kept) != place(&found.definition) {
                let message = format!(
                    "cannot roll back {name}: version {version} was installed in {}, mode {}",
                    kept.manager, kept.mode
                );
                let hint = "install that version again: its service manager or mode differs";
                return Err(Failure::new(Code::Failed, message).hint(hint));
            }
            Ok((kept, Some(version)))
        });
        let about = |failure: Failure| failure.about([name.as_str()]);
        let lines = vec![Line::new(&name, done.map_err(about)?)];
        let end = self.how.end("roll back", &lines);
        self.how.show(lines)?;
        end.map(|()| ExitCode::SUCCESS).map_err(about)
    }
}

impl How {
    fn update(
        &self,
        state: &StateDir,
        site: &dyn Site,
        new: impl FnOnce(&Registry, &Registered) -> Result<update::New, Failure>,
    ) -> Result<Done, Failure> {
        let expected = self.if_version.map_or(Expected::Any, Expected::from);
        let name = site.name().to_string();
        let _progress = (!self.json).then(|| progress::of_services(state, "updating", &[name]));
        update::update(site, expected, self.canary, new)
    }

    /// Checks the last update.
    ///
    /// # Errors
    /// If it was rolled back.
    fn end(&self, verb: &str, lines: &[Line]) -> Result<(), Failure> {
        let Some(line) = lines.last().filter(|line| line.why.is_some()) else {
            return Ok(());
        };
        let Line { name, before, .. } = line;
        let why = line.why.as_deref().unwrap_or_default();
        let said = line
            .last_lines
            .iter()
            .map(|line| format!("{name} | {line}\n"));
        let details = if self.json {
            String::new()
        } else {
            said.collect()
        };
        let failure = Failure::new(Code::Failed, format!("cannot {verb} {name}: {why}"));
        let reached = line.phase.map_or("before it was started", reached);
        let (what, hint) = match line.rejected {
            Some(version) => (
                format!("version {version}"),
                format!("compare it with version {before}: mainstay diff {name} --to {version}"),
            ),
            None => (
                "the definition".to_owned(),
                format!("see its output: mainstay logs {name}"),
            ),
        };
        let note = format!("{what} was rolled back {reached}; version {before} remains in effect");
        Err(failure.details(details).note(note).hint(hint))
    }

    fn show(&self, services: Vec<Line>) -> Result<(), Failure> {
        if self.json {
            return output::document(&Report { services });
        }
        let text = services.iter().map(|line| {
            let Line {
                name,
                version,
                before,
                ..
            } = line;
            match line.outcome {
                "updated" => {
                    let untried = line.untried.as_ref();
                    let untried = untried.map(|why| format!("; not tried: {why}"));
                    let untried = untried.unwrap_or_default();
                    match line.restored {
                        Some(restored) => format!("{name}: version {version} (the definition of version {restored}) replaces version {before}{untried}\n"),
                        None => format!("{name}: updated from version {before} to version {version}{untried}\n"),
                    }
                }
                "up-to-date" => match line.restored {
                    Some(restored) if restored != *version => format!("{name}: version {version} already has the definition of version {restored}\n"),
                    _ => format!("{name}: up to date, version {version}\n"),
                },
                // The failure contains the outcome.
                _ => String::new(),
            }
        });
        output::confirm(&text.collect::<String>())
    }
}

impl Line {
    fn new(name: &ServiceName, done: Done) -> Self {
        let mut line = Self {
            name: name.to_string(),
            outcome: "up-to-date",
            version: done.version.0,
            before: done.before.0,
            restored: done.restored.map(|version| version.0),
            rejected: None,
            style: None,
            untried: None,
            phase: None,
            why: None,
            last_lines: Vec::new(),
        };
        match done.outcome {
            Outcome::UpToDate => {}
            Outcome::Updated(trial) => {
                line.outcome = "updated";
                line.style = trial.ok();
                line.untried = trial.err().map(|why| why.to_string());
            }
            Outcome::RolledBack(version, given_up) => {
                line.outcome = "rolled-back";
                line.rejected = Some(version.0).filter(|version| *version != line.before);
                line.style = given_up.style;
                line.phase = Some(given_up.phase);
                line.why = Some(given_up.refusal.error);
                line.last_lines = given_up.last_lines;
            }
        }
        line
    }
}

/// Returns the phase that a rolled-back definition had reached.
fn reached(phase: TrialPhase) -> &'static str {
    match phase {
        TrialPhase::Stop => "while the old run was being stopped",
        TrialPhase::Snapshot => "while a snapshot was being taken",
        TrialPhase::Start => "while it was starting",
        TrialPhase::Ready => "while it was running and not ready",
        TrialPhase::Canary => "in its canary, after it had become ready",
        TrialPhase::Trial => "after its canary",
        TrialPhase::RollBack => "while it was being stopped",
    }
}

/// Returns the place where a service is installed: the embedded manager or the system's manager;
/// `None` if it is not installed.
fn site(state: &StateDir, name: &ServiceName) -> Result<Option<Box<dyn Site>>, Failure> {
    if let Some(embedded) = Embedded::find(state, name) {
        return Ok(Some(Box::new(embedded)));
    }
    let Some(installed) = Installed::find(state, name.as_str()) else {
        return Ok(None);
    };
    mainstay::may_install(&installed.service()).map_err(of_library)?;
    Ok(Some(Box::new(installed)))
}
