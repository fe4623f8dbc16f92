//! The documentation: its links lead somewhere, its manifests are valid, its tutorials run, and
//! both READMEs say the same.
#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mainstay_testkit::{Sandbox, free_port, skip};
use regex::Regex;

/// The address of a file of this repository, for links that leave the site.
const REPOSITORY: &str = "https://github.com/mainstay-rs/mainstay/blob/main/";
const SUMMARY: &str = "docs/SUMMARY.md";

/// A code block: its language, its text, and the last line before it.
#[derive(Debug, PartialEq)]
struct Block<'a> {
    language: &'a str,
    text: String,
    before: &'a str,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a regular expression")
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// Returns the paths of all pages, relative to the repository's root.
fn pages() -> Vec<String> {
    let pages = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md"];
    let mut found = pages.map(str::to_owned).to_vec();
    for dir in ["docs", "docs/howto"] {
        let entries = fs::read_dir(root().join(dir)).expect("docs");
        let names = entries.map(|it| {
            it.expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        });
        let names = names.filter(|name| name.ends_with(".md"));
        found.extend(names.map(|name| format!("{dir}/{name}")));
    }
    found.sort();
    assert!(found.len() > 25, "{found:?}");
    found
}

/// Splits a page into its code blocks, fenced and indented ones, and the rest.
fn split(page: &str) -> (Vec<Block<'_>>, Vec<&str>) {
    let (mut blocks, mut prose) = (Vec::<Block<'_>>::new(), Vec::<&str>::new());
    let (mut is_fenced, mut is_indented) = (false, false);
    for line in page.lines() {
        let fence = line.trim_start().strip_prefix("```");
        let before = || prose.iter().rev().find(|it| !it.is_empty()).copied();
        if let Some(language) = fence {
            if !is_fenced {
                blocks.push(Block {
                    language,
                    text: String::new(),
                    before: before().unwrap_or_default(),
                });
            }
            is_fenced = !is_fenced;
            continue;
        }
        let indented = line.strip_prefix("    ").filter(|_| !is_fenced);
        if let Some(line) = indented {
            // Below a list, indented lines are its text.
            let is_list = before().is_some_and(|it| it.trim_start().starts_with("- "));
            let begins = !is_indented && prose.last().is_none_or(|it| it.is_empty()) && !is_list;
            if begins {
                blocks.push(Block {
                    language: "",
                    text: String::new(),
                    before: before().unwrap_or_default(),
                });
            }
            is_indented |= begins;
            if is_indented {
                let text = &mut blocks.last_mut().expect("a block").text;
                text.push_str(line);
                text.push('\n');
                continue;
            }
        } else if !line.is_empty() {
            is_indented = false;
        }
        if is_fenced {
            let text = &mut blocks.last_mut().expect("a block").text;
            text.push_str(line);
            text.push('\n');
        } else {
            prose.push(line);
        }
    }
    assert!(!is_fenced, "a block has no end");
    (blocks, prose)
}

fn headings<'a>(prose: &[&'a str]) -> Vec<(usize, &'a str)> {
    let level = |line: &str| line.chars().take_while(|it| *it == '#').count();
    let lines = prose.iter().filter(|line| line.starts_with('#'));
    lines
        .map(|line| (level(line), line.trim_start_matches('#').trim()))
        .collect()
}

/// Returns the anchors of headings, as GitHub and mdBook make them.
fn anchors(prose: &[&str]) -> BTreeSet<String> {
    let anchor = |(_, title): (usize, &str)| {
        let title = title.to_lowercase().replace(' ', "-");
        title
            .chars()
            .filter(|it| it.is_alphanumeric() || matches!(it, '-' | '_'))
            .collect()
    };
    headings(prose).into_iter().map(anchor).collect()
}

/// Returns the targets of links, without those in `code`.
fn links(prose: &[&str]) -> Vec<String> {
    let code = pattern("`[^`]*`");
    let link = pattern(r"\]\(([^)\s]+)\)");
    let text = prose.join("\n");
    let text = code.replace_all(&text, "code");
    let found = link.captures_iter(&text);
    found.map(|it| it[1].to_owned()).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut problems = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        let dir = Path::new(&page).parent().expect("a directory").to_owned();
        for link in links(&split(&text).1) {
            count += 1;
            let (target, anchor) = match link.split_once('#') {
                Some((target, anchor)) => (target, Some(anchor)),
                None => (link.as_str(), None),
            };
            let path = match target.strip_prefix(REPOSITORY) {
                Some(path) => PathBuf::from(path),
                None if target.starts_with("https://") => continue,
                None if target.is_empty() => PathBuf::from(&page),
                // The site has no other files.
                None if page.starts_with("docs/") && escapes(&dir, target) => {
                    problems.push(format!("{page}: {link}: use {REPOSITORY}"));
                    continue;
                }
                None => dir.join(target),
            };
            let exists = root().join(&path).exists();
            let has_anchor = anchor.is_none_or(|anchor| {
                exists && anchors(&split(&read(&path.display().to_string())).1).contains(anchor)
            });
            if !exists || !has_anchor {
                problems.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(count > 150, "{count} links");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Returns whether a link from a directory in `docs` leads out of `docs`.
fn escapes(dir: &Path, target: &str) -> bool {
    let depth = dir.components().count() - 1;
    Path::new(target)
        .components()
        .take_while(|it| it.as_os_str() == "..")
        .count()
        > depth
}

#[test]
fn the_site_has_every_page_once() {
    let summary = read(SUMMARY);
    let mut listed = links(&split(&summary).1);
    listed.sort();
    let mut pages = pages();
    pages.retain(|page| page.starts_with("docs/") && page != SUMMARY);
    let pages: Vec<&str> = pages.iter().map(|it| &it["docs/".len()..]).collect();
    assert_eq!(listed, pages);
}

/// `mdbook` finds faults of its own, such as a chapter that does not exist, and makes anchors and
/// addresses by rules of its own.
#[test]
fn the_site_is_built() {
    let sandbox = Sandbox::new();
    let site = sandbox.path().join("book");
    let mut book = Command::new("mdbook");
    book.arg("build").arg(root()).arg("--dest-dir");
    let Ok(output) = book.arg(&site).output() else {
        return skip("mdbook is not installed");
    };
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    assert!(!complaint.contains("WARN"), "{complaint}");

    let names = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(site.join(dir)).expect("a directory of the site");
        let names = entries.map(|it| it.expect("an entry").file_name());
        names
            .map(|name| format!("{dir}{}", name.display()))
            .collect()
    };
    let top = names("");
    let has_index = top.iter().any(|name| name.starts_with("searchindex"));
    assert!(has_index, "no offline search: {top:?}");
    let pages: BTreeMap<PathBuf, String> = [top, names("howto/")]
        .concat()
        .into_iter()
        // The page for printing repeats all others; the one for wrong addresses belongs to any
        // directory.
        .filter(|name| name.ends_with(".html") && name != "print.html" && name != "404.html")
        .map(|name| (name.as_str().into(), fs::read_to_string(site.join(&name))))
        .map(|(name, text)| (name, text.expect("a page of the site")))
        .collect();
    let link = pattern(r#"(?:href|src)="([^":#]*)(?:#([^"]*))?""#);
    let (mut problems, mut count) = (Vec::new(), 0);
    for (page, text) in &pages {
        for found in link.captures_iter(text) {
            count += 1;
            let dir = page.parent().expect("a directory").components();
            let mut target: PathBuf = dir.collect();
            match &found[1] {
                "" => target.clone_from(page),
                path => Path::new(path).components().for_each(|part| {
                    if part.as_os_str() != ".." {
                        target.push(part);
                    } else if !target.pop() {
                        problems.push(format!("{}: {path} leaves the site", page.display()));
                    }
                }),
            }
            let is_good = match (found.get(2), pages.get(&target)) {
                (Some(anchor), Some(text)) => text.contains(&format!("id=\"{}\"", anchor.as_str())),
                _ => site.join(&target).exists(),
            };
            if !is_good {
                problems.push(format!("{}: {}", page.display(), &found[0]));
            }
        }
    }
    assert!(count > 1000, "{count} links");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Manifests of Windows that `check` refuses elsewhere.
const OF_WINDOWS: [(&str, &str); 1] = [("docs/exit-codes.md", "3010")];

#[test]
fn manifests_are_valid() {
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        for block in split(&text).0 {
            let is_of_windows = OF_WINDOWS
                .iter()
                .any(|(it, word)| *it == page && block.text.contains(word));
            if block.language != "toml" || is_of_windows {
                continue;
            }
            count += 1;
            let manifest = if block.text.contains("[service.") {
                block.text
            } else {
                format!("[service.a]\ncommand = [\"a\"]\n{}", block.text)
            };
            let mut check = Command::new(env!("CARGO_BIN_EXE_mainstay"));
            check.args(["check", "-"]).stdin(Stdio::piped());
            let mut check = check
                .stderr(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("mainstay runs");
            let pipe = check.stdin.take();
            pipe.expect("a pipe")
                .write_all(manifest.as_bytes())
                .expect("mainstay runs");
            let output = check.wait_with_output().expect("mainstay runs");
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{page}: {complaint}\n{manifest}");
        }
    }
    assert!(count >= 15, "{count} manifests");
}

#[test]
fn the_oldest_rust_is_documented() {
    let oldest = concat!("need Rust ", env!("CARGO_PKG_RUST_VERSION"), " or later");
    assert!(read("docs/library.md").contains(oldest), "{oldest}");
}

/// Both READMEs have the same outline, blocks of code, commands and links.
#[test]
fn readmes_agree() {
    let [english, chinese] = ["README.md", "README.zh-CN.md"].map(read);
    let [english, chinese] = [split(&english), split(&chinese)];
    let levels = |prose: &[&str]| -> Vec<usize> {
        headings(prose).iter().map(|(level, _)| *level).collect()
    };
    assert_eq!(levels(&chinese.1), levels(&english.1));
    let texts = |blocks: Vec<Block<'_>>| -> Vec<(String, String)> {
        let text = |it: Block<'_>| (it.language.to_owned(), it.text.trim_end().to_owned());
        blocks.into_iter().map(text).collect()
    };
    assert_eq!(texts(chinese.0), texts(english.0));
    let commands = |prose: &[&str]| -> Vec<String> {
        let command = pattern("`((?:mainstay|cargo) [^`]*)`");
        let text = prose.join("\n");
        let mut all: Vec<_> = command
            .captures_iter(&text)
            .map(|it| it[1].to_owned())
            .collect();
        all.sort();
        all
    };
    assert_eq!(commands(&chinese.1), commands(&english.1));
    let targets = |prose: &[&str]| {
        let mut all = links(prose);
        all.retain(|it| !it.starts_with("README"));
        all.sort();
        all
    };
    assert_eq!(targets(&chinese.1), targets(&english.1));
}

/// Turns a page into a script. A block after the name of a file in `code` and a colon becomes that
/// file, and the commands of `sh` blocks are executed. A block that ends with `mainstay run` or
/// `daemon` leaves that running until the next one. A line with the comment `fails` must fail.
fn script(text: &str) -> String {
    let file = pattern(r"`([^`]+\.\w+)`:$");
    let stop = "[ -z \"$S\" ] || { kill -TERM $S; wait $S; S=; }\n";
    let mut script = "set -eu; S=; trap '[ -z \"$S\" ] || kill -TERM $S' EXIT\n".to_owned();
    for block in split(text).0 {
        if block.language != "sh" {
            if let Some(path) = file.captures(block.before) {
                let (path, text) = (&path[1], &block.text);
                script += &format!("mkdir -p \"$(dirname '{path}')\"\n");
                script += &format!("cat > '{path}' <<'END_OF_FILE'\n{text}END_OF_FILE\n");
            }
            continue;
        }
        for line in block.text.lines() {
            let (command, remark) = line.split_once("  # ").unwrap_or((line, ""));
            let command = command.trim();
            if remark == "fails" {
                script += &format!(
                    "if {command}; then echo 'it does not fail: {command}' >&2; exit 1; fi\n"
                );
            } else if command.starts_with("mainstay run") || command.starts_with("mainstay daemon")
            {
                script += &format!("{stop}{command} & S=$!\n");
                script += "while ! [ -S \"$MAINSTAY_STATE_DIR/control.sock\" ]; do kill -0 $S; sleep 0.1; done\n";
            } else {
                script += &format!("{command}\n");
            }
        }
    }
    script + stop
}

/// Follows a page in a directory that is at `place` in it, with free ports instead of those in it.
/// Returns the output.
fn follow(page: &str, place: &str, programs: &[&str], ports: &[&str]) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let is_there =
        |program: &&&str| std::env::split_paths(&path).any(|dir| dir.join(program).exists());
    if let Some(missing) = programs.iter().find(|it| !is_there(it)) {
        skip(format!("{missing} is not installed"));
        return None;
    }
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let mut text = read(page);
    for port in ports {
        assert!(text.contains(port), "{port}");
        text = text.replace(port, &free_port().to_string());
    }
    if !place.is_empty() {
        text = text.replace(place, &sandbox.path().join("place").display().to_string());
    }
    let script = script(&text);
    let program = Path::new(env!("CARGO_BIN_EXE_mainstay"));
    let dir = program.parent().expect("a directory").display();
    let mut shell = sandbox.command("sh");
    shell
        .args(["-c", &script])
        .env("PATH", format!("{dir}:{path}"));
    let output = shell.output().expect("sh runs");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{page}: {}\n{shown}\n{complaint}\n{script}",
        output.status
    );
    Some(shown)
}

#[track_caller]
fn assert_in_order(shown: &str, expect: &[&str]) {
    let mut rest = shown;
    for text in expect {
        let at = rest.find(text);
        let at = at.unwrap_or_else(|| panic!("{text:?} is missing from {rest:?} of {shown}"));
        rest = &rest[at + text.len()..];
    }
}

#[test]
fn the_tutorial_runs() {
    let shown = follow(
        "docs/tutorial.md",
        "",
        &["python3", "curl", "awk"],
        &["18090"],
    );
    let expect = [
        "shop  app.py\n",
        "running",
        "\nhello\n",
        "serving\n",
        "killed by SIGKILL",
        "shop: installed",
        "updated from version 1 to version 2",
        "\ngood morning\n",
        "good morning\n",
        "rolled-back",
        "\nhello\n",
        "shop: uninstalled",
    ];
    if let Some(shown) = shown {
        assert_in_order(&shown, &expect);
    }
}

#[test]
fn a_python_service_waits_for_its_database() {
    let page = "docs/howto/python-database.md";
    let shown = follow(page, "", &["python3", "redis-server"], &["16390"]);
    if let Some(shown) = shown {
        assert_in_order(
            &shown,
            &["redis", "ready", "app", "started", "redis: running"],
        );
    }
}

#[test]
fn a_failure_at_night_is_explained() {
    let shown = follow("docs/howto/failed-at-night.md", "", &[], &[]).expect("it needs nothing");
    let expect = [
        "failed: exit code 7",
        "halted",
        "cannot write /srv/orders/today",
        "137",
    ];
    assert_in_order(&shown, &expect);
}

#[test]
fn a_container_runs_two_programs() {
    let page = "docs/howto/container.md";
    if let Some(shown) = follow(page, "", &["python3"], &["18092"]) {
        assert_in_order(&shown, &["worker | working", "running", "working\n"]);
    }
}

#[test]
fn postgresql_gets_its_table_back() {
    let page = "docs/howto/postgresql.md";
    if !rustix::process::geteuid().is_root() {
        return skip("not root");
    }
    let programs = ["postgres", "initdb", "pg_isready", "psql", "runuser"];
    if let Some(shown) = follow(page, "/srv/shop", &programs, &["15490"]) {
        assert_in_order(
            &shown,
            &["SELECT 1", "whole", "DROP TABLE", "restored", "(1 row)"],
        );
    }
}
