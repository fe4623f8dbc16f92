//! `mainstay diff`: compares two definitions of a service.

use std::path::PathBuf;
use std::process::ExitCode;

use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest;
use mainstay_core::registry::{Definition, Version, before, is_rejected};
use mainstay_host::manifest_file;
use mainstay_host::output;
use mainstay_store::state_dir::StateDir;
use serde::Serialize;
use similar::{ChangeTag, TextDiff};

use super::number;
use crate::deploy::system::kept;
use crate::installed::registry_of;
use crate::not_found;

/// The number of context lines around a difference.
const CONTEXT: usize = 3;

/// Compare two definitions of a service, in the format of `diff -u`
///
/// Prints nothing if they are the same. Values of `env` are hidden, but a difference between them
/// is shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// Name of the service
    name: String,
    /// Version to compare from [default: the one in effect before --to; if --to is a file, the
    /// installed version]
    #[arg(long, value_name = "VERSION", value_parser = number)]
    from: Option<u64>,
    /// Version or manifest file to compare with [default: that of the last change, also if it was
    /// rolled back]
    #[arg(long, value_name = "VERSION|FILE")]
    to: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    from: &'a str,
    to: &'a str,
    diff: &'a str,
}

impl Diff {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let found = registry_of(state, &self.name)?;
        let (registry, registered) = found.ok_or_else(|| not_found::service(state, &self.name))?;
        let current = registered.life.version();
        let entries = registry.history(&self.name)?;
        let numbered = |version: Version| {
            let definition = kept(&registry, &self.name, version)?;
            let rejected = if is_rejected(&entries, version) {
                " (rolled back)"
            } else {
                ""
            };
            Ok::<_, Failure>((format!("version {version}{rejected}"), definition))
        };
        let before = |version| before(&entries, version).unwrap_or(Version(0));
        let to = self.to.as_deref();
        let (to_name, to, default) = match to.map(|to| (to, to.parse())) {
            None => {
                let last = entries.last().map_or(current, |entry| entry.version);
                let (name, definition) = numbered(last)?;
                (name, definition, before(last))
            }
            Some((_, Ok(version))) => {
                let (name, definition) = numbered(Version(version))?;
                (name, definition, before(Version(version)))
            }
            Some((file, Err(_))) => {
                let manifest = manifest_file::load(&PathBuf::from(file), None)?;
                let definition = Definition {
                    manifest: manifest.text,
                    format: manifest.format,
                    base_dir: manifest.dir.display().to_string(),
                    ..registered.definition.clone()
                };
                (file.to_owned(), definition, current)
            }
        };
        let from = self.from.map_or(default, Version);
        if self.from.is_none() && from == Version(0) {
            let message = format!("cannot compare {}: it has no earlier version", self.name);
            return Err(
                Failure::new(Code::Unknown, message).hint("compare it with a file: --to FILE")
            );
        }
        let (from_name, from) = numbered(from)?;
        let diff = unified(&self.name, (&from_name, &from), (&to_name, &to));
        if self.json {
            output::document(&Report {
                name: &self.name,
                from: &from_name,
                to: &to_name,
                diff: &diff,
            })?
        } else {
            output::text(&diff)?
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the manifest after comment lines that contain the other parts of the definition.
fn text(definition: &Definition, manifest: &str) -> String {
    let scope = if definition.user { "user" } else { "system" };
    let sandbox = if definition.sandbox { "on" } else { "off" };
    let Definition {
        manager,
        mode,
        base_dir,
        format,
        ..
    } = definition;
    format!(
        "# manager {manager}, {mode}, {scope}; sandbox {sandbox}\n# {format}, relative to {base_dir}\n{manifest}"
    )
}

/// Returns the unified diff. The comparison uses the real values; the output shows masked ones.
fn unified(name: &str, from: (&str, &Definition), to: (&str, &Definition)) -> String {
    let [(before, seen_before), (after, seen_after)] = [from.1, to.1].map(|definition| {
        let masked = manifest::masked(&definition.manifest, definition.format);
        (
            text(definition, &definition.manifest),
            text(definition, &masked),
        )
    });
    let [seen_before, seen_after] =
        [&seen_before, &seen_after].map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
    let diff = TextDiff::from_lines(&before, &after);
    let mut shown = String::new();
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        shown += &format!("{}\n", hunk.header());
        let mut deleted = Vec::new();
        for change in hunk.iter_changes() {
            let (sign, seen, index) = match change.tag() {
                ChangeTag::Delete => ('-', &seen_before, change.old_index()),
                ChangeTag::Insert => ('+', &seen_after, change.new_index()),
                ChangeTag::Equal => (' ', &seen_after, change.new_index()),
            };
            let line = index.and_then(|index| seen.get(index)).unwrap_or(&"***");
            let [line, value] = [*line, change.value()].map(|it| it.trim_end_matches(['\n', '\r']));
            let same = deleted
                .iter()
                .position(|(seen, old)| *seen == line && *old != value);
            let remark = match (change.tag(), same) {
                (ChangeTag::Insert, Some(same)) => {
                    deleted.remove(same);
                    " (changed, value not shown)"
                }
                _ => "",
            };
            if change.tag() == ChangeTag::Delete {
                deleted.push((line, value));
            }
            shown += &format!("{sign}{line}{remark}\n");
        }
    }
    if shown.is_empty() {
        shown
    } else {
        format!("--- {name} {}\n+++ {name} {}\n{shown}", from.0, to.0)
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::manifest::Format;

    use super::*;

    fn definition(manifest: &str) -> Definition {
        Definition {
            manifest: manifest.to_owned(),
            format: Format::Toml,
            base_dir: "/srv".to_owned(),
            manager: "systemd".to_owned(),
            mode: "hosted".to_owned(),
            user: false,
            sandbox: true,
        }
    }

    #[test]
    fn a_difference_is_seen_and_a_secret_is_not() {
        let one = definition(
            "[service.a]\ncommand = [\"a\"]\n[service.a.env]\nKEY = \"hunter2\"\nNEW = \"\"\"one\ntwo\"\"\"\n",
        );
        let mut two = definition(
            "[service.a]\ncommand = [\"b\"]\n[service.a.env]\nKEY = \"hunter3\"\nNEW = \"\"\"one\ntwo\"\"\"\n",
        );
        assert_eq!(unified("a", ("version 1", &one), ("version 1", &one)), "");
        let [there, back] = ["a = 1\nb = 2\n", "b = 2\na = 1\n"].map(definition);
        let moved = unified("a", ("version 1", &there), ("version 2", &back));
        assert!(!moved.contains("value not shown"), "{moved}");
        two.mode = "direct".to_owned();
        let diff = unified("a", ("version 1", &one), ("version 2", &two));
        let expect = "\
--- a version 1
+++ a version 2
@@ -1,8 +1,8 @@
-# manager systemd, hosted, system; sandbox on
+# manager systemd, direct, system; sandbox on
 # toml, relative to /srv
 [service.a]
-command = [\"a\"]
+command = [\"b\"]
 [service.a.env]
-KEY = ***
+KEY = *** (changed, value not shown)
 NEW = ***
 ***
";
        assert_eq!(diff, expect);
    }
}
