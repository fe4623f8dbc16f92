//! The page docs/tested.md: which suite of tests runs in which environment.
//!
//! A suite is a file of integration tests, and the first sentence of its head says what it tests.
//! Its environments follow from its source: the systems that it is compiled for, and the labs that
//! it boots. The page therefore changes with suites, not with single tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::{Result, root};

const PAGE: &str = "docs/tested.md";

/// The suites that are tables of their own, by directory.
const GROUPS: [(&str, &str); 3] = [
    ("The command", "crates/mainstay-cli/tests"),
    ("The library", "examples"),
    (
        "The library, without a running manager",
        "crates/mainstay/tests",
    ),
];

/// An environment of tests.
struct Environment {
    name: &'static str,
    /// The kind of lab, for managers that boot in one.
    lab: Option<&'static str>,
    tested: Tested,
    what: &'static str,
    lacks: &'static str,
}

/// The runs that cover an environment.
enum Tested {
    EachRun,
    /// The workflow `test` only. The date is that of the last run that passed.
    Workflow(Option<&'static str>),
}

/// An environment that each run of `cargo xtask test` as root on Debian covers.
const fn each_run(
    name: &'static str,
    lab: Option<&'static str>,
    what: &'static str,
    lacks: &'static str,
) -> Environment {
    Environment {
        name,
        lab,
        tested: Tested::EachRun,
        what,
        lacks,
    }
}

/// An environment that only the workflow `test` covers.
const fn in_workflow(
    name: &'static str,
    run: Option<&'static str>,
    what: &'static str,
    lacks: &'static str,
) -> Environment {
    Environment {
        name,
        lab: None,
        tested: Tested::Workflow(run),
        what,
        lacks,
    }
}

const LINUX: usize = 0;
const WINE: usize = 6;
const WINDOWS: usize = 7;
const MACOS: usize = 8;
const FREEBSD: usize = 9;

const ENVIRONMENTS: [Environment; 10] = [
    each_run(
        "Linux",
        None,
        "Debian 12, x86_64, cgroup v2 where it is writable",
        "other architectures; kernels before 5.3",
    ),
    each_run(
        "systemd",
        Some("systemd"),
        "systemd 252 as PID 1 of a container",
        "settings of later versions, which are generated only",
    ),
    each_run(
        "OpenRC",
        Some("openrc"),
        "OpenRC 0.45 on Debian",
        "Alpine and Gentoo",
    ),
    each_run(
        "SysV",
        Some("sysv"),
        "sysvinit 3.06 with insserv",
        "systems with chkconfig",
    ),
    each_run(
        "runit",
        Some("runit"),
        "runit 2.1.2 as PID 1",
        "Void's paths",
    ),
    each_run("s6", Some("s6"), "s6 2.11 as PID 1", "s6-rc"),
    each_run(
        "Wine",
        None,
        "Wine 8",
        "accounts, enforced access control, recovery actions, triggers, delayed start, the Event Log, \
         a shutdown",
    ),
    in_workflow(
        "Windows",
        None,
        "Windows Server, a runner of GitHub",
        "a shutdown with PRESHUTDOWN, domains and managed accounts, sessions of users",
    ),
    in_workflow(
        "macOS",
        None,
        "macOS, a runner of GitHub",
        "services in launchd",
    ),
    in_workflow(
        "FreeBSD",
        None,
        "FreeBSD in a virtual machine",
        "services in rc.d",
    ),
];

/// Writes the page.
pub(crate) fn write() -> Result<ExitCode> {
    fs::write(root().join(PAGE), page()?)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the problem that the page is not that of these sources.
pub(crate) fn problems() -> Result<Vec<String>> {
    let is_current = fs::read_to_string(root().join(PAGE))? == page()?;
    let problem = format!("{PAGE} is out of date: run `cargo xtask tested`");
    Ok(if is_current {
        Vec::new()
    } else {
        vec![problem]
    })
}

fn page() -> Result<String> {
    let mut page = "\
# Tested, and not yet tested

`cargo xtask tested` writes this page from the sources of the tests, and `cargo xtask house` checks it.

| environment | what it is | tested | cannot show |
|---|---|---|---|
"
    .to_owned();
    for it in &ENVIRONMENTS {
        let when = match it.tested {
            Tested::EachRun => "in every test run",
            Tested::Workflow(Some(date)) => &format!("last on {date}"),
            Tested::Workflow(None) => "not yet",
        };
        page += &format!("| {} | {} | {when} | {} |\n", it.name, it.what, it.lacks);
    }
    page += "
Every test run: `cargo xtask test` as root on Debian. It counts what a machine cannot run as skipped, with the reason. Windows, macOS and
FreeBSD are jobs of the workflow `test`. In the tables below, *no* means that the suite is written for an environment that is not tested
yet. [Services of other managers](managers.md) has those that cannot run here at all.
";
    for (title, dir) in GROUPS {
        page += &format!("\n## {title}\n\n| suite |");
        let names = ENVIRONMENTS.map(|it| it.name);
        page += &format!(
            " {} |\n|---|{}\n",
            names.join(" | "),
            "---|".repeat(names.len())
        );
        for path in suites(&root().join(dir))? {
            let text = fs::read_to_string(&path)?;
            let (subject, runs) = (subject(&text), environments(&path, &text)?);
            let cell = |(index, it): (usize, &Environment)| match it.tested {
                _ if !runs.contains(&index) => "",
                Tested::EachRun | Tested::Workflow(Some(_)) => "yes",
                Tested::Workflow(None) => "no",
            };
            let cells: Vec<&str> = ENVIRONMENTS.iter().enumerate().map(cell).collect();
            page += &format!("| {subject} | {} |\n", cells.join(" | "));
        }
    }
    Ok(page)
}

/// Returns the files with tests below a directory, sorted.
fn suites(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|it| it == "rs")
                && path.components().any(|it| it.as_os_str() == "tests")
                && fs::read_to_string(&path)?.contains("#[test]")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the first sentence of a file's head.
fn subject(text: &str) -> String {
    let head = text.lines().map_while(|line| line.strip_prefix("//!"));
    let head = head.map(str::trim).take_while(|line| !line.is_empty());
    let head = head.collect::<Vec<_>>().join(" ");
    let end = head.find(". ").unwrap_or(head.len());
    head[..end].trim_end_matches('.').to_owned()
}

/// Returns the environments of a file, as indices.
fn environments(path: &Path, text: &str) -> Result<BTreeSet<usize>> {
    let (parent, stem) = (path.with_file_name("main.rs"), path.file_stem());
    let stem = stem.unwrap_or_default().to_string_lossy();
    let is_named = |kind: &str| stem == kind || text.contains(&format!("under_{kind}("));
    // Or it uses the lab of the suite that is named after the manager.
    let boots = |kind: &str| {
        text.contains("lab::Lab") && is_named(kind) || text.contains(&format!("super::{kind}::"))
    };
    let labs = ENVIRONMENTS.iter().enumerate();
    let labs = labs.filter(|(_, it)| it.lab.is_some_and(boots));
    let labs: BTreeSet<usize> = labs.map(|(index, _)| index).collect();
    if !labs.is_empty() {
        return Ok(labs);
    }
    let parent = fs::read_to_string(parent).unwrap_or_default();
    let is_for = |system: &str| {
        let inside = format!("#![cfg({system})]");
        text.contains(&inside)
            || parent.contains(&inside)
            || parent.contains(&format!("#[cfg({system})]\nmod {stem};"))
    };
    Ok(if is_for("windows") && stem == "real" {
        [WINDOWS].into()
    } else if is_for("windows") {
        [WINE, WINDOWS].into()
    } else if is_for("target_os = \"linux\"") {
        [LINUX].into()
    } else if is_for("unix") {
        [LINUX, MACOS, FREEBSD].into()
    } else {
        [LINUX, WINE, WINDOWS, MACOS, FREEBSD].into()
    })
}
