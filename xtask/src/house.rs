//! The check of the house: which crate may import which, no circles of modules, no `unsafe` outside
//! of two crates, a dispatcher that cannot block, and no files or functions that are too long.
//!
//! What is left to mend is listed in `xtask/house.list`, with a reason. The list may only shrink:
//! an entry that is no longer needed fails like one that is missing.

mod modules;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use self::modules::{Module, circles, functions};
use crate::{Result, cargo, comments, root};

/// The crates of the product from the ground up, and those of them that each one imports. Imports
/// go down only, so each crate imports crates above it in this table.
const FLOORS: [(&str, &[&str]); 8] = [
    ("mainstay-core", &[]),
    ("mainstay", &[]),
    ("mainstay-sys", &["mainstay-core"]),
    ("mainstay-logs", &["mainstay-core", "mainstay-sys"]),
    (
        "mainstay-store",
        &["mainstay-core", "mainstay", "mainstay-sys"],
    ),
    ("mainstay-api", &["mainstay-core", "mainstay-sys"]),
    (
        "mainstay-host",
        &[
            "mainstay-core",
            "mainstay",
            "mainstay-sys",
            "mainstay-logs",
            "mainstay-store",
            "mainstay-api",
        ],
    ),
    (
        "mainstay-cli",
        &[
            "mainstay-core",
            "mainstay",
            "mainstay-sys",
            "mainstay-logs",
            "mainstay-store",
            "mainstay-api",
            "mainstay-host",
        ],
    ),
];
/// Crates whose `sys` modules contain `unsafe` code.
const WITH_UNSAFE: [&str; 2] = ["mainstay", "mainstay-sys"];
/// The dispatcher. All that it does to the system goes through its effects, so that it can be
/// simulated, and so that nothing in it blocks.
const DISPATCHER: &str = "crates/mainstay-host/src/host/dispatcher/";
/// Crates that reach the system, and what the dispatcher may use of them.
const REACHING: [&str; 3] = ["std::", "tokio::", "mainstay_sys::"];
const HARMLESS: [&str; 11] = [
    "std::collections::",
    "std::io;",
    "std::mem",
    "std::path::PathBuf",
    "std::process::id()",
    "std::sync::Arc;",
    "std::time::Duration;",
    "tokio::sync::mpsc;",
    "tokio::sync::oneshot;",
    "tokio::sync::{mpsc, oneshot};",
    "mainstay_sys::Identity;",
];
/// The file with the exceptions.
const LIST: &str = "xtask/house.list";
const LONGEST_FILE: usize = 700;
const LONGEST_FUNCTION: usize = 80;

/// The exceptions, or the findings: what is wrong where, and a number that may not grow.
type Entries = BTreeMap<String, usize>;

/// Returns the problems of the workspace, one line each.
pub(crate) fn problems() -> Result<Vec<String>> {
    let mut command = cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    let packages: Value = serde_json::from_slice(&command.output()?.stdout)?;
    let packages = packages["packages"].as_array().ok_or("cargo metadata")?;
    let mut problems = wrong_edges(&FLOORS, &edges(packages));
    let mut found = sizes()?;
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        for root in targets(package) {
            let text = fs::read_to_string(root)?;
            if !text.contains("#![forbid(unsafe_code)]") && !WITH_UNSAFE.contains(&name) {
                found.insert(format!("unsafe {}", shown(root)), 0);
            }
            for circle in circles(&Module::load(root)?) {
                found.insert(format!("circle {name}: {circle}"), 0);
            }
        }
    }
    for path in comments::sources()? {
        let name = shown(&path);
        if name.starts_with(DISPATCHER) {
            let text = fs::read_to_string(&path)?;
            problems.extend(reaching(&text).into_iter().map(|(line, what)| {
                format!("{name}:{line}: the dispatcher uses {what} instead of its effects")
            }));
        }
    }
    let (listed, malformed) = parse_list(&fs::read_to_string(root().join(LIST))?);
    problems.extend(malformed);
    problems.extend(compare(&found, &listed));
    Ok(problems)
}

/// Returns the root files of a package's library and programs.
fn targets(package: &Value) -> impl Iterator<Item = &Path> {
    let targets = package["targets"].as_array().into_iter().flatten();
    let is_shipped = |target: &&Value| {
        let kinds = target["kind"].as_array().into_iter().flatten();
        let mut kinds = kinds.filter_map(Value::as_str);
        kinds.any(|kind| matches!(kind, "lib" | "bin"))
    };
    let targets = targets.filter(is_shipped);
    targets.filter_map(|target| target["src_path"].as_str().map(Path::new))
}

/// Returns the imports between crates of the workspace that are more than tests.
fn edges(packages: &[Value]) -> Vec<(&str, Vec<&str>)> {
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let all: Vec<String> = packages.iter().map(name).collect();
    let edges = packages.iter().filter_map(|package| {
        let is_product = package["manifest_path"].as_str()?.contains("/crates/");
        let dependencies = package["dependencies"].as_array()?.iter();
        let imports = dependencies.filter_map(|dependency| {
            let name = dependency["name"].as_str()?;
            let is_ours = all.iter().any(|it| it == name) && dependency["kind"].is_null();
            is_ours.then_some(name)
        });
        let name = package["name"].as_str()?;
        (is_product && name != "mainstay-testkit").then(|| (name, imports.collect()))
    });
    edges.collect()
}

/// Compares the imports of crates with the table.
fn wrong_edges(floors: &[(&str, &[&str])], edges: &[(&str, Vec<&str>)]) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, (name, allowed)) in floors.iter().enumerate() {
        let is_below = |import: &&&str| floors[..at].iter().any(|(below, _)| below == *import);
        let upward = allowed.iter().filter(|import| !is_below(import));
        problems.extend(upward.map(|it| format!("house: {name} may not import {it}: it is above")));
        let imports = edges.iter().find(|(it, _)| it == name);
        let imports = imports.map_or(&[][..], |(_, imports)| imports);
        let unused = allowed.iter().filter(|it| !imports.contains(it));
        problems.extend(unused.map(|it| format!("house: {name} does not import {it}: remove it")));
    }
    for (name, imports) in edges {
        let Some((_, allowed)) = floors.iter().find(|(it, _)| it == name) else {
            problems.push(format!("house: {name} is on no floor of the table"));
            continue;
        };
        let wrong = imports.iter().filter(|it| !allowed.contains(it));
        problems.extend(wrong.map(|it| format!("house: {name} imports {it}")));
    }
    problems
}

/// Returns the lines that use something that may block or depends on the system, and that.
fn reaching(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let code = line.split("//").next().unwrap_or_default();
        for root in REACHING {
            let uses = code.match_indices(root).map(|(at, _)| &code[at..]);
            let harmful =
                uses.filter(|it| !HARMLESS.iter().any(|harmless| it.starts_with(harmless)));
            found.extend(harmful.map(|it| (number, it.trim_end_matches([';', ' ']))));
        }
    }
    found
}

/// Returns the files and functions that are too long, with their lengths.
fn sizes() -> Result<Entries> {
    let mut found = Entries::new();
    for path in comments::sources()? {
        let (name, text) = (shown(&path), fs::read_to_string(&path)?);
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            found.insert(format!("file {name}"), lines);
        }
        let long = functions(&text)?.into_iter();
        for (function, lines) in long.filter(|(_, lines)| *lines > LONGEST_FUNCTION) {
            let most: &mut usize = found.entry(format!("fn {name} {function}")).or_default();
            *most = lines.max(*most);
        }
    }
    Ok(found)
}

fn shown(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap_or(path);
    path.display().to_string()
}

/// Parses groups of lines: `# REASON`, and below it an entry a line, `WHAT` or `WHAT = NUMBER`. An
/// empty line ends a group. Returns the entries, and problems.
fn parse_list(text: &str) -> (Entries, Vec<String>) {
    let (mut entries, mut problems) = (Entries::new(), Vec::new());
    let mut has_reason = false;
    for (line, number) in text.lines().zip(1..) {
        let (what, count) = line.split_once(" = ").unwrap_or((line, "0"));
        match count.parse() {
            _ if line.is_empty() => has_reason = false,
            _ if line.starts_with("# ") => has_reason = true,
            Ok(count) if has_reason => drop(entries.insert(what.to_owned(), count)),
            Ok(_) => problems.push(format!("{LIST}:{number}: there is no reason above it")),
            Err(_) => problems.push(format!("{LIST}:{number}: {count:?} is no number")),
        }
    }
    (entries, problems)
}

/// Compares findings with the list. Returns a problem for each that differs.
fn compare(found: &Entries, listed: &Entries) -> Vec<String> {
    let new = found
        .iter()
        .filter_map(|(what, count)| match listed.get(what) {
            None if *count == 0 => Some(format!("{what}: mend it, or list it in {LIST}")),
            None => Some(format!("{what} = {count}: split it, or list it in {LIST}")),
            Some(most) if count > most => {
                Some(format!("{what}: it has grown from {most} to {count}"))
            }
            Some(_) => None,
        });
    let gone = listed.keys().filter(|what| !found.contains_key(*what));
    let gone = gone.map(|what| format!("{what}: it is gone: remove it from {LIST}"));
    new.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_go_down_only() {
        let floors: [(&str, &[&str]); 3] = [("core", &[]), ("host", &["core"]), ("cli", &["host"])];
        let edges = |host: &[&'static str], cli: &[&'static str]| {
            vec![
                ("core", Vec::new()),
                ("host", host.to_vec()),
                ("cli", cli.to_vec()),
            ]
        };
        let check = |host: &[&'static str], cli: &[&'static str], expect: &[&str]| {
            assert_eq!(wrong_edges(&floors, &edges(host, cli)), expect);
        };
        check(&["core"], &["host"], &[]);
        check(&["core", "cli"], &["host"], &["house: host imports cli"]);
        check(&["core"], &["host", "core"], &["house: cli imports core"]);
        let unused = "house: host does not import core: remove it";
        check(&[], &["host"], &[unused]);
        let above = wrong_edges(
            &[("core", &["cli"]), ("cli", &[])],
            &[("core", vec!["cli"])],
        );
        assert_eq!(above, ["house: core may not import cli: it is above"]);
        let stranger = wrong_edges(&[], &[("new", Vec::new())]);
        assert_eq!(stranger, ["house: new is on no floor of the table"]);
    }

    #[test]
    fn the_dispatcher_reaches_the_system_through_its_effects() {
        let harmless = "use std::time::Duration;\nuse std::mem;\n// std::fs is for others.\n\
                        pid: std::process::id(),\n";
        assert_eq!(reaching(harmless), []);
        let harmful = "use std::collections::BTreeMap;\nuse std::fs;\nstd::thread::sleep(ECHO);\n\
                       use std::time::{Duration, Instant};\n";
        let expect = [
            (2, "std::fs"),
            (3, "std::thread::sleep(ECHO)"),
            (4, "std::time::{Duration, Instant}"),
        ];
        assert_eq!(reaching(harmful), expect);
    }

    #[test]
    fn the_list_only_shrinks() {
        let text = "# One table.\nfile a.rs = 900\ncircle x: a b\n\nfile b.rs = 800\n# Old.\n\
                    file c.rs = 9O1\n";
        let (listed, malformed) = parse_list(text);
        let expect = [
            "xtask/house.list:5: there is no reason above it",
            "xtask/house.list:7: \"9O1\" is no number",
        ];
        assert_eq!(malformed, expect);
        let found = |all: &[(&str, usize)]| {
            let all = all.iter().map(|(what, count)| ((*what).to_owned(), *count));
            compare(&all.collect(), &listed)
        };
        let circle = ("circle x: a b", 0);
        assert!(found(&[("file a.rs", 850), circle]).is_empty());
        assert_eq!(
            found(&[("file a.rs", 901), circle]),
            ["file a.rs: it has grown from 900 to 901"]
        );
        assert_eq!(
            found(&[("file a.rs", 900)]),
            ["circle x: a b: it is gone: remove it from xtask/house.list"]
        );
        assert_eq!(
            found(&[("file a.rs", 900), circle, ("fn c.rs f", 81)]),
            ["fn c.rs f = 81: split it, or list it in xtask/house.list"]
        );
    }
}
