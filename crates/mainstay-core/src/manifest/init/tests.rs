//! Drafts of directories that exist in memory only. `mainstay-cli/tests/init.rs` covers each kind
//! of project on disk.

use super::*;
use crate::spec::Spec;

/// A directory by its files. A text that begins with ELF is a program.
struct Fake<'a>(&'a str, &'a [(&'a str, &'a str)]);

impl Directory for Fake<'_> {
    fn name(&self) -> &str {
        self.0
    }

    fn entries(&self, dir: &str) -> Vec<Entry> {
        let prefix = if dir.is_empty() {
            String::new()
        } else {
            format!("{dir}/")
        };
        let rest = self.1.iter().filter_map(|(path, text)| {
            let rest = path.strip_prefix(&prefix)?;
            Some(match rest.split_once('/') {
                Some((name, _)) => (name, EntryKind::Directory),
                None if text.starts_with("ELF") => (rest, EntryKind::Program),
                None => (rest, EntryKind::File),
            })
        });
        let mut all: Vec<Entry> = rest
            .map(|(name, kind)| Entry {
                name: name.to_owned(),
                kind,
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup();
        all
    }

    fn text(&self, path: &str) -> Option<String> {
        let found = self.1.iter().find(|(it, _)| *it == path)?;
        Some(found.1.to_owned())
    }
}

fn specs(draft: &Draft) -> Vec<Spec> {
    parse(&draft.manifest, Format::Toml)
        .unwrap_or_else(|found| panic!("{}\n{found:#?}", draft.manifest))
}

/// Returns the name and the command of each service.
#[track_caller]
fn commands(name: &str, platform: Platform, files: &[(&str, &str)]) -> Vec<String> {
    let draft = draft(&Fake(name, files), platform, None);
    assert_eq!(specs(&draft).len(), draft.services.len().max(1));
    let line = |it: &Found| format!("{}: {}", it.name, it.command.join(" "));
    draft.services.iter().map(line).collect()
}

#[test]
fn scripts_have_their_command() {
    let check = |files: &[(&str, &str)], expect: &[&str]| {
        assert_eq!(commands("shop", Platform::Unix, files), expect);
    };
    check(&[], &[]);
    check(
        &[("package.json", "{ \"name\": \"x\" }"), ("a.py", "")],
        &[],
    );
    check(&[("package.json", "not json")], &[]);
    let start = |script: &str| format!("{{ \"scripts\": {{ \"start\": \"{script}\" }} }}");
    check(
        &[("package.json", &start("node a.js"))],
        &["shop: node a.js"],
    );
    check(
        &[("package.json", &start("tsc && node a"))],
        &["shop: npm start"],
    );
    let next = start("next start");
    check(
        &[("package.json", &next), ("yarn.lock", "")],
        &["shop: yarn start"],
    );
    check(
        &[("package.json", &next), ("bun.lock", "")],
        &["shop: bun run start"],
    );
    check(&[("app.py", "print(1)")], &["shop: python3 app.py"]);
    check(&[("shop/__main__.py", "")], &["shop: python3 -m shop"]);
    check(
        &[
            ("src/a.py", ""),
            ("api/main.py", "app = FastAPI()"),
            (".venv/bin/python", ""),
        ],
        &["shop: .venv/bin/python -m uvicorn api.main:app --host 127.0.0.1 --port 8000"],
    );
    check(
        &[
            ("app.py", "site = Flask(__name__)"),
            ("requirements.txt", "Flask\nwaitress==3\n"),
        ],
        &["shop: python3 -m waitress --listen=127.0.0.1:8000 app:site"],
    );
    check(
        &[(
            "pyproject.toml",
            "[project]\nname = 'A_b'\n[project.scripts]\nserve = 'a:b'\n",
        )],
        &["serve: serve"],
    );
}

#[test]
fn programs_have_their_command() {
    let check = |files: &[(&str, &str)], expect: &[&str]| {
        assert_eq!(commands("shop", Platform::Unix, files), expect);
    };
    check(
        &[
            ("Cargo.toml", "[workspace]\nmembers = ['crates/*']"),
            ("crates/a/Cargo.toml", "[package]\nname = 'a'"),
            ("crates/a/src/main.rs", ""),
            ("crates/b/Cargo.toml", "[package]\nname = 'b'"),
            ("crates/b/src/lib.rs", ""),
        ],
        &["a: target/release/a"],
    );
    check(
        &[
            ("go.mod", "module example.com/Shop/v2\n"),
            ("main.go", "package main\n"),
            ("cmd/tool/main.go", "package main\n"),
        ],
        &["shop: ./Shop", "tool: ./tool"],
    );
    check(
        &[("b.jar", ""), ("b-sources.jar", "")],
        &["b: java -jar b.jar"],
    );
    check(
        &[("serve", "ELF"), ("run.exe", "ELF"), ("x", "")],
        &["run: ./run.exe", "serve: ./serve"],
    );
    check(
        &[
            (
                "Procfile",
                "web: a -p $PORT\nrelease: migrate\n# x: y\nworker: A=1 b 'c d'\n",
            ),
            ("app.py", ""),
        ],
        &["web: a -p 5000", "worker: b c d"],
    );
}

#[test]
fn windows_has_its_own_shell_and_suffixes() {
    let check = |files: &[(&str, &str)], expect: &[&str]| {
        assert_eq!(commands("shop", Platform::Windows, files), expect);
    };
    check(&[("Procfile", "web: a | b\n")], &["web: cmd /c a | b"]);
    check(
        &[("app.py", ""), ("venv/Scripts/python.exe", "")],
        &["shop: venv/Scripts/python.exe app.py"],
    );
    let cargo = "[package]\nname = 'a'\n";
    check(
        &[("Cargo.toml", cargo), ("src/main.rs", "")],
        &["a: target/release/a.exe"],
    );
}

/// A port is checked only if it is known for certain.
#[test]
fn readiness_is_checked_at_known_ports() {
    let ports = |file: &str, text: &str| {
        let start = "{ \"scripts\": { \"start\": \"node a.js\" }, \"dependencies\": { \"express\": \"5\" } }";
        let files = [("package.json", start), (file, text)];
        let draft = draft(&Fake("shop", &files), Platform::Unix, None);
        let has_probe = specs(&draft)[0].start().ready().is_some();
        let found = &draft.services[0];
        assert_eq!(has_probe, found.port.is_some(), "{text}");
        (found.port, found.likely_port)
    };
    assert_eq!(ports("a.js", "x.listen(4000)"), (Some(4000), None));
    assert_eq!(
        ports("a.js", "process.env.PORT ?? 4000"),
        (Some(4000), None)
    );
    assert_eq!(ports("a.js", "x.listen(config.port)"), (None, Some(3000)));
    assert_eq!(ports("b.js", "x.listen(4000)"), (None, Some(3000)));
}

#[test]
fn names_are_valid_and_unique() {
    let procfile = "Web_1: a\nweb-1: b\nCON: c\n_: d\n";
    let names = commands("x", Platform::Unix, &[("Procfile", procfile)]);
    assert_eq!(names, ["web-1: a", "web-1-2: b", "con-app: c", "app: d"]);
    let long = "x".repeat(300);
    let [one] = &commands(&long, Platform::Unix, &[("app.py", "")])[..] else {
        panic!("one service");
    };
    assert_eq!(one.len(), 56 + ": python3 app.py".len());
    assert_eq!(
        commands("ä ö", Platform::Unix, &[("app.py", "")]),
        ["app: python3 app.py"]
    );
}

/// No text of a file becomes a key of the manifest.
#[test]
fn text_of_files_stays_within_its_quotes() {
    let script = "{ \"name\": \"a\\n[service.evil]\\n\", \"scripts\": { \"start\": \"node 'a\\u0007\\\"]\\u007f' ''\" }, \"engines\": { \"node\": \"1\\nx = 1\" } }";
    let draft = draft(
        &Fake("x", &[("package.json", script)]),
        Platform::Unix,
        None,
    );
    let specs = specs(&draft);
    assert_eq!(specs.len(), 1, "{}", draft.manifest);
    assert_eq!(specs[0].command().args(), ["a\u{7}\"]\u{7f}", ""]);
    let procfile = [("Procfile", "a: A='${B}' b\nb: \0\nc: d\n")];
    let draft = super::draft(&Fake("x", &procfile), Platform::Unix, None);
    assert_eq!(draft.services.len(), 2, "{}", draft.manifest);
    assert_eq!(
        draft.notes,
        ["Procfile: b: b is left out: its command cannot be written"]
    );
    assert!(
        draft.manifest.contains("A = \"$${B}\""),
        "{}",
        draft.manifest
    );
}

#[test]
fn a_manifest_elsewhere_has_the_path_of_the_directory() {
    let files = [("Procfile", "web: bin/web\nworker: worker\n"), (".env", "")];
    let draft = draft(&Fake("x", &files), Platform::Unix, Some("/srv/x"));
    let text = &draft.manifest;
    assert!(
        text.contains("command = [\"/srv/x/bin/web\"]\nworking_dir = \"/srv/x\"\n"),
        "{text}"
    );
    assert!(
        text.contains("command = [\"worker\"]\nworking_dir = \"/srv/x\"\n"),
        "{text}"
    );
    assert!(text.contains("# env_file = \"/srv/x/.env\""), "{text}");
}
