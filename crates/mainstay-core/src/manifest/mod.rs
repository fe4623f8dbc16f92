//! The manifest: what was typed, in TOML, YAML or JSON.
//!
//! text → tree (`tree`: values with spans, one shape for all formats) → tables (`tables`: typed, each declared once for decoder,
//! defaults and schema) → [`Spec`] (`resolve`: constraints, rules about several keys). Each stage notes its mistakes and goes on, so
//! that all are reported at once; after a syntax error there is nothing to go on with.

mod decode;
mod diagnostic;
mod foreign;
mod json;
mod needs;
mod place;
mod redact;
mod resolve;
mod suggest;
mod tables;
#[cfg(test)]
mod tests;
mod toml;
mod tree;
mod units;
mod values;
mod yaml;

use std::fmt;

use self::decode::Decode;
use self::diagnostic::Findings;
pub use self::diagnostic::{Code, Diagnostic, Excerpt, Severity};
pub use self::foreign::{Tool, tool_of};
use self::tables::Manifest;
use self::tree::{Node, Span, Value};
pub use self::units::ShowSize;
use crate::engine::Human;
use crate::spec::Spec;

/// The language of a manifest.
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
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Toml, Self::Yaml, Self::Json];

    /// Its lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Toml => "toml",
            Self::Yaml => "yaml",
            Self::Json => "json",
        }
    }

    /// By a file's extension, in any case.
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

/// What `text` means, in its own order; or everything that is wrong with it, in its order.
///
/// Never panics, whatever the text. A byte order mark at its start is skipped.
///
/// # Errors
/// At least one [`Diagnostic`].
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

/// Warnings about a manifest that [`parse`] accepts, in the order of its text.
pub fn warnings(text: &str, format: Format, specs: &[Spec]) -> Vec<Diagnostic> {
    let unreachable = |spec: &Spec| {
        let recovery = spec.recovery();
        let (limit, most) = recovery.limit().zip(recovery.most_restarts())?;
        let window = Human(limit.window());
        let message = format!(
            "this limit is never reached: the pauses allow {most} restarts in {window} at most"
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

/// A diagnostic about the key `path` (the innermost part of it that is there), for rules that need more than the text to judge.
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
        node = match node.map(|node| &node.value) {
            Some(Value::Table(entries)) => entries.iter().find(|e| e.key.value == *key),
            _ => None,
        }
        .map(|entry| &entry.node);
        span = node.map_or(span, |node| node.span);
    }
    let mut findings = Findings::default();
    findings.add(code, span, message, help);
    findings.finish(text, tree.as_ref()).remove(0)
}

/// `text` for the eyes of others: `***` in the place of each value of `env`, of each URL with a password, and of those of webhooks. Its lines stay lines.
pub fn masked(text: &str, format: Format) -> String {
    let mut findings = Findings::default();
    let tree = read(text, format, &mut findings);
    if let Some(tree) = &tree {
        // A key that it does not know may be a misspelt `env`.
        drop(Manifest::decode(tree, &mut findings));
    }
    findings.mask(text, tree.as_ref())
}

/// The same manifest, but for the program of one service (the first word of its `command`); all else stays as it was typed. `None` where that
/// cannot be said in it, or it has no such service.
pub fn with_program(text: &str, format: Format, service: &str, program: &str) -> Option<String> {
    let tree = read(text, format, &mut Findings::default())?;
    let mut node = &tree;
    for key in ["service", service, "command"] {
        let Value::Table(entries) = &node.value else {
            return None;
        };
        node = &entries.iter().find(|entry| entry.key.value == key)?.node;
    }
    let Value::List(words) = &node.value else {
        return None;
    };
    let Span { start, end } = words.first()?.span;
    // A string of JSON is one of TOML and of YAML, too.
    let word = serde_json::to_string(program).ok()?;
    let changed = format!("{}{word}{}", text.get(..start)?, text.get(end..)?);
    let (old, new) = (parse(text, format).ok()?, parse(&changed, format).ok()?);
    let expected = old
        .into_iter()
        .map(|spec| match spec.name().as_str() == service {
            true => spec.with_program(program),
            false => Some(spec),
        });
    let expected: Option<Vec<Spec>> = expected.collect();
    (expected? == new).then_some(changed)
}

/// A duration as manifests have it: `"1m30s"`.
///
/// # Errors
/// What is wrong with it, for people.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    units::duration(text)
}

/// The JSON Schema (draft 2020-12) of a manifest. It says what can be typed; [`parse`] judges more.
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
