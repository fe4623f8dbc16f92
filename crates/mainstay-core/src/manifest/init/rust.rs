//! Rust: the programs of a package or of a workspace.

use super::directory::{Directory, EntryKind, first_text, has, subdirectories};
use super::found::{Found, Kind};
use super::text::port_of_address;
use crate::manifest::tree::{Node, Value};
use crate::manifest::{Findings, Format, Platform, read};

/// The number of members of a workspace that are looked at.
const MOST_MEMBERS: usize = 64;

/// Returns the programs of the packages.
pub(super) fn find(dir: &impl Directory, platform: Platform) -> Vec<Found> {
    let Some(text) = dir.text("Cargo.toml") else {
        return Vec::new();
    };
    let mut findings = Findings::default();
    let Some(root) = read(&text, Format::Toml, &mut findings) else {
        return Vec::new();
    };
    let mut found = package(dir, "", &root, platform);
    let members = root.at("workspace").and_then(|it| it.at("members"));
    let members = members.into_iter().flat_map(texts);
    let members = members.flat_map(|member| match member.strip_suffix("/*") {
        Some(parent) => subdirectories(dir, parent)
            .iter()
            .map(|name| format!("{parent}/{name}"))
            .collect(),
        None => vec![member.to_owned()],
    });
    for member in members.take(MOST_MEMBERS) {
        let Some(text) = dir.text(&format!("{member}/Cargo.toml")) else {
            continue;
        };
        let mut findings = Findings::default();
        if let Some(manifest) = read(&text, Format::Toml, &mut findings) {
            found.extend(package(dir, &format!("{member}/"), &manifest, platform));
        }
    }
    found
}

/// Returns the programs of the package whose manifest this is. `place` is its directory, with a
/// slash at the end.
fn package(
    dir: &impl Directory,
    place: &str,
    manifest: &Node<'_>,
    platform: Platform,
) -> Vec<Found> {
    let table = manifest.at("package");
    let Some(package) = table.and_then(|it| it.at("name")).and_then(Node::text) else {
        return Vec::new();
    };
    let mut bins: Vec<(String, String)> = Vec::new();
    if let Some(Value::List(items)) = manifest.at("bin").map(|it| &it.value) {
        for item in items {
            let Some(name) = item.at("name").and_then(Node::text) else {
                continue;
            };
            let path = item
                .at("path")
                .and_then(Node::text)
                .unwrap_or("src/main.rs");
            bins.push((name.to_owned(), path.to_owned()));
        }
    }
    let is_listed = |bins: &[(String, String)], path: &str| bins.iter().any(|(_, it)| it == path);
    if has(dir, &format!("{place}src/main.rs")) && !is_listed(&bins, "src/main.rs") {
        bins.push((package.to_owned(), "src/main.rs".to_owned()));
    }
    for entry in dir.entries(&format!("{place}src/bin")) {
        let (name, path) = match (entry.kind, entry.name.strip_suffix(".rs")) {
            (EntryKind::Directory, _) => (&*entry.name, format!("src/bin/{}/main.rs", entry.name)),
            (_, Some(name)) => (name, format!("src/bin/{}", entry.name)),
            _ => continue,
        };
        let is_named = bins.iter().any(|(it, _)| it == name);
        if !is_named && !is_listed(&bins, &path) {
            bins.push((name.to_owned(), path));
        }
    }
    bins.sort();
    let program = |(name, path): (String, String)| {
        let suffix = match platform {
            Platform::Unix => "",
            Platform::Windows => ".exe",
        };
        let source = format!("{place}Cargo.toml: {name}");
        let command = [format!("target/release/{name}{suffix}")];
        let found = Found::new(Kind::Rust, &*name, source, command);
        let code = first_text(dir, [&*format!("{place}{path}")]).map(|(_, text)| text);
        Found {
            likely_port: code.as_deref().and_then(port_of_address),
            ..found.remark(format!(
                "build it first: cargo build --release --bin {name}"
            ))
        }
    };
    bins.into_iter().map(program).collect()
}

fn texts<'a>(list: &'a Node<'_>) -> Vec<&'a str> {
    match &list.value {
        Value::List(items) => items.iter().filter_map(Node::text).collect(),
        _ => Vec::new(),
    }
}
