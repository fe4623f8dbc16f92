//! Manifests in TOML, YAML or JSON.
//!
//! Parsing has three stages: text → tree (`tree`: values with spans, the same for all formats) →
//! tables (`tables`: typed; each is declared once for decoder, defaults and schema) → [`Spec`]
//! (`resolve`: constraints and rules across several keys). Each stage collects its errors and
//! continues, so that all are reported at once. Only a syntax error stops parsing.

mod addresses;
mod decode;
mod diagnostic;
pub(crate) mod exit_codes;
mod foreign;
pub mod init;
mod json;
mod needs;
pub mod patch;
mod platform;
mod resolve;
mod tables;
#[cfg(test)]
mod tests;
mod toml;
mod tool;
mod tree;
mod units;
mod values;
mod words;
mod write;
mod yaml;

use std::fmt;

use self::decode::Decode;
use self::diagnostic::Findings;
pub use self::diagnostic::{Code, Diagnostic, Excerpt, Severity};
pub use self::platform::{Platform, unusable};
use self::tables::Manifest;
pub use self::tool::{Tool, tool_of};
use self::tree::{Node, Span, Value};
pub use self::units::{DurationError, ShowSize, duration};
pub use self::write::write;
use crate::engine::Human;
use crate::spec::Spec;

/// The format of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.1.
    Toml,
    /// YAML 1.2: one document, without anchors and tags.
    Yaml,
    /// JSON (RFC 8259).
    Json,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::Toml, Self::Yaml, Self::Json];

    /// Returns the name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Toml => "toml",
            Self::Yaml => "yaml",
            Self::Json => "json",
        }
    }

    /// Returns the format for a file extension, ignoring case.
    pub fn from_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Parses a manifest and returns its services in the order of the text.
///
/// Never panics, whatever the text. A byte order mark at the start is skipped.
///
/// # Errors
/// If the manifest is invalid: all [`Diagnostic`]s in the order of the text, at least one.
pub fn parse(text: &str, format: Format) -> Result<Vec<Spec>, Vec<Diagnostic>> {
    let mut findings = Findings::default();
    let tree = read(text, format, &mut findings);
    let specs = match &tree {
        Some(tree) if !findings.is_broken() => Manifest::decode(tree, &mut findings)
            .map(|manifest| resolve::specs(manifest, &mut findings)),
        _ => None,
    };
    match specs {
        Some(specs) if findings.is_empty() => Ok(specs),
        _ => Err(findings.finish(text, tree.as_ref())),
    }
}

/// Returns warnings about a manifest that [`parse`] accepts, in the order of the text.
pub fn warnings(text: &str, format: Format, specs: &[Spec]) -> Vec<Diagnostic> {
    let unreachable = |spec: &Spec| {
        let recovery = spec.recovery();
        let (limit, most) = recovery.limit().zip(recovery.most_restarts())?;
        let window = Human(limit.window());
        let message = format!(
            "this limit cannot be reached: the pauses allow at most {most} restarts in {window}"
        );
        let help = format!(
            "allow fewer than {most} restarts, lengthen `window`, or shorten `max_delay` ({})",
            Human(recovery.backoff().max())
        );
        let path = ["service", spec.name().as_str(), "recovery", "limit"];
        let code = Code::UnreachableLimit;
        Some(diagnose(text, format, &path, code, &message, Some(&help)))
    };
    let mut warnings: Vec<_> = specs.iter().filter_map(unreachable).collect();
    warnings.sort_by_key(|warning| warning.span.start);
    warnings
}

/// Creates a diagnostic about the key `path`, or its innermost part that exists. For rules that
/// depend on more than the text.
pub fn diagnose(
    text: &str,
    format: Format,
    path: &[&str],
    code: Code,
    message: &str,
    help: Option<&str>,
) -> Diagnostic {
    let tree = read(text, format, &mut Findings::default());
    let mut span = Span::default();
    let mut node = tree.as_ref();
    for key in path {
        node = node.and_then(|node| node.at(key));
        span = node.map_or(span, |node| node.span);
    }
    let mut findings = Findings::default();
    findings.add(code, span, message, help);
    findings.finish(text, tree.as_ref()).remove(0)
}

/// Masks the secrets in `text`: replaces each value of `env`, each URL with a password and each
/// webhook URL with `***`. Lines are preserved.
pub fn masked(text: &str, format: Format) -> String {
    let mut findings = Findings::default();
    let tree = read(text, format, &mut findings);
    if let Some(tree) = &tree {
        // An unknown key may be a misspelt `env`.
        drop(Manifest::decode(tree, &mut findings));
    }
    findings.mask(text, tree.as_ref())
}

/// Replaces the program of one service (the first word of its `command`) and preserves the rest of
/// the text. Returns `None` if the service does not exist, or if the replacement would not yield
/// the expected manifest.
pub fn with_program(text: &str, format: Format, service: &str, program: &str) -> Option<String> {
    let tree = read(text, format, &mut Findings::default())?;
    let node = tree.at("service")?.at(service)?.at("command")?;
    let Value::List(words) = &node.value else {
        return None;
    };
    let Span { start, end } = words.first()?.span;
    // A JSON string is also a TOML and a YAML string.
    let word = serde_json::to_string(program).ok()?;
    let changed = format!("{}{word}{}", text.get(..start)?, text.get(end..)?);
    let (old, new) = (parse(text, format).ok()?, parse(&changed, format).ok()?);
    let expected = old.into_iter().map(|spec| {
        if spec.name().as_str() == service {
            spec.with_program(program)
        } else {
            Some(spec)
        }
    });
    let expected: Option<Vec<Spec>> = expected.collect();
    (expected? == new).then_some(changed)
}

/// Returns the JSON Schema (draft 2020-12) of a manifest. The schema describes the syntax;
/// [`parse`] applies further rules.
pub fn schema() -> serde_json::Value {
    let mut schema = Manifest::schema();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "mainstay manifest".into();
    schema
}

fn read<'a>(text: &'a str, format: Format, findings: &mut Findings) -> Option<Node<'a>> {
    match format {
        Format::Toml => toml::read(text, findings),
        Format::Yaml => yaml::read(text, findings),
        Format::Json => json::read(text, findings),
    }
}
