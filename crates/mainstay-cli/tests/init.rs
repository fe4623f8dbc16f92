//! `mainstay init`, on directories of each kind.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use mainstay_testkit::{Sandbox, make_pipe};
use serde_json::Value;

/// Projects by name, with their files. A name that ends with `*` is that of an executable file.
const PROJECTS: &[(&str, &[(&str, &str)])] = &[
    ("nothing", &[("README.md", "# Nothing\n")]),
    (
        "procfile",
        &[
            (
                "Procfile",
                "web: gunicorn -b 0.0.0.0:$PORT shop:app\nworker: LEVEL=2 python3 worker.py\n\
                 clock: while true; do date; sleep 60; done\nrelease: ./migrate\n",
            ),
            (".env", "SECRET=1\n"),
        ],
    ),
    (
        "node",
        &[
            (
                "package.json",
                r#"{ "name": "@acme/shop", "engines": { "node": ">=18" }, "scripts": { "start": "node server.js" }, "dependencies": { "express": "^5" } }"#,
            ),
            ("server.js", "app.listen(process.env.PORT || 4000);\n"),
        ],
    ),
    (
        "next",
        &[
            (
                "package.json",
                r#"{ "name": "site", "scripts": { "start": "next start" } }"#,
            ),
            ("pnpm-lock.yaml", ""),
        ],
    ),
    (
        "django",
        &[
            (
                "manage.py",
                "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')\n",
            ),
            ("requirements.txt", "Django==5.0\ngunicorn\n"),
        ],
    ),
    (
        "fastapi",
        &[
            (
                "pyproject.toml",
                "[project]\nname = \"quotes\"\ndependencies = [\"fastapi\"]\n",
            ),
            (
                "app/main.py",
                "from fastapi import FastAPI\n\napi = FastAPI()\n",
            ),
            (".venv/bin/python*", ""),
        ],
    ),
    (
        "flask",
        &[
            ("app.py", "from flask import Flask\napp = Flask(__name__)\n"),
            ("requirements.txt", "flask\n"),
        ],
    ),
    (
        "script",
        &[(
            "main.py",
            "port = int(os.environ.get(\"PORT\", \"9000\"))\n",
        )],
    ),
    (
        "cargo",
        &[
            (
                "Cargo.toml",
                "[package]\nname = \"shop\"\n\n[[bin]]\nname = \"shopd\"\npath = \"src/main.rs\"\n",
            ),
            ("src/main.rs", "fn main() { serve(\"0.0.0.0:8080\") }\n"),
            ("src/bin/tool.rs", "fn main() {}\n"),
        ],
    ),
    (
        "go",
        &[
            ("go.mod", "module example.com/acme/shop\n\ngo 1.22\n"),
            (
                "cmd/api/main.go",
                "package main\n\nfunc main() { http.ListenAndServe(\":8080\", nil) }\n",
            ),
            ("cmd/worker/main.go", "package main\n"),
        ],
    ),
    (
        "maven",
        &[(
            "pom.xml",
            "<project>\n<parent><artifactId>spring-boot-starter-parent</artifactId><version>3.3.0</version></parent>\n\
             <artifactId>orders</artifactId><version>1.4.2</version>\n\
             <dependencies><dependency><artifactId>spring-boot-starter-actuator</artifactId></dependency></dependencies>\n</project>\n",
        )],
    ),
    (
        "gradle",
        &[
            (
                "build.gradle",
                "plugins { id 'application' }\nversion = '2.0'\n",
            ),
            ("settings.gradle", "rootProject.name = 'billing'\n"),
            ("build/libs/billing-2.0.jar", ""),
            ("build/libs/billing-2.0-sources.jar", ""),
        ],
    ),
    ("jar", &[("server.jar", "")]),
    (
        "programs",
        &[
            ("serve*", "\x7fELF…"),
            ("legacy.exe", "MZ"),
            ("script*", "#!/bin/sh\n"),
            ("object", "\x7fELF…"),
        ],
    ),
];

/// Creates the files of a project in a directory `shop`.
fn project(sandbox: &Sandbox, files: &[(&str, &str)]) {
    for (path, text) in files {
        let full_path = sandbox.path().join("shop").join(path.trim_end_matches('*'));
        fs::create_dir_all(full_path.parent().expect("a parent")).expect("a directory");
        fs::write(&full_path, text).expect("a file");
        if path.ends_with('*') {
            fs::set_permissions(&full_path, fs::Permissions::from_mode(0o755)).expect("its mode");
        }
    }
}

fn run(sandbox: &Sandbox, args: &[&str]) -> Output {
    let mut command = sandbox.command(env!("CARGO_BIN_EXE_mainstay"));
    command.args(args).output().expect("mainstay runs")
}

#[track_caller]
fn succeeds(output: &Output) -> (String, String) {
    let [out, err] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    assert!(output.status.success(), "{out}{err}");
    (out.into_owned(), err.into_owned())
}

/// The manifests, as they are, and with every key set that they suggest.
#[test]
fn every_project_gets_a_manifest_that_passes_check() {
    for (name, files) in PROJECTS {
        let sandbox = Sandbox::new();
        project(&sandbox, files);
        fs::create_dir_all(sandbox.path().join("shop")).unwrap();
        let (report, notes) = succeeds(&run(&sandbox, &["init", "shop"]));
        succeeds(&run(&sandbox, &["check", "shop/mainstay.toml"]));
        let text = fs::read_to_string(sandbox.path().join("shop/mainstay.toml")).unwrap();
        // Text has no `=` after its first word.
        let is_key = |rest: &str| rest.split(' ').nth(1) == Some("=");
        let full = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_key(rest) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        });
        let full: String = full.collect();
        assert_ne!(full, text);
        let path = sandbox.write("full.toml", &full);
        succeeds(&run(&sandbox, &["check", path.to_str().unwrap()]));
        insta::with_settings!({ snapshot_path => "init", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(*name, format!("{report}{notes}---\n{text}"));
        });
    }
}

#[test]
fn an_existing_file_is_replaced_only_by_force() {
    let sandbox = Sandbox::new();
    project(&sandbox, &[("app.py", "")]);
    let target_path = sandbox.write("shop/mainstay.toml", "mine\n");
    fs::set_permissions(&target_path, fs::Permissions::from_mode(0o640)).unwrap();
    let output = run(&sandbox, &["init", "shop"]);
    assert_eq!(output.status.code(), Some(73));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        message,
        "error: cannot write shop/mainstay.toml: the file exists\n\
         hint: replace it with --force, or name another file with --output\n"
    );
    assert_eq!(fs::read_to_string(&target_path).unwrap(), "mine\n");

    succeeds(&run(&sandbox, &["init", "shop", "--force"]));
    assert!(
        fs::read_to_string(&target_path)
            .unwrap()
            .contains("[service.shop]")
    );
    let mode = fs::metadata(&target_path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);

    let link = sandbox.path().join("link.toml");
    std::os::unix::fs::symlink(&target_path, &link).unwrap();
    let output = run(&sandbox, &["init", "shop", "-o", "link.toml", "--force"]);
    assert_eq!(output.status.code(), Some(73));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_manifest_elsewhere_names_the_directory() {
    let sandbox = Sandbox::new();
    project(&sandbox, &[("serve*", "\x7fELF…")]);
    let shop = sandbox.path().join("shop").display().to_string();
    let (text, _) = succeeds(&run(&sandbox, &["init", "shop", "-o", "-"]));
    assert!(text.contains("command = [\"./serve\"]\n"), "{text}");
    assert!(!sandbox.path().join("shop/mainstay.toml").exists());

    let args = ["init", "shop", "-o", "other.toml", "--json"];
    let document: Value = serde_json::from_str(&succeeds(&run(&sandbox, &args)).0).unwrap();
    let text = fs::read_to_string(sandbox.path().join("other.toml")).unwrap();
    let expect = format!("command = [\"{shop}/serve\"]\nworking_dir = \"{shop}\"\n");
    assert!(text.contains(&expect), "{text}");
    assert_eq!(document["manifest"], text);
    assert_eq!(document["path"], "other.toml");
    let service = &document["services"][0];
    assert_eq!(
        (&service["name"], &service["kind"]),
        (&"serve".into(), &"program".into())
    );
    assert_eq!(service["source"], "serve");
    assert_eq!(document["notes"], Value::Array(Vec::new()));
}

/// Files that block, never end, are too large, or lead elsewhere.
#[test]
fn hostile_files_are_not_read() {
    let sandbox = Sandbox::new();
    let large = format!("web: a\n{}", "#".repeat(300 << 10));
    project(
        &sandbox,
        &[("Procfile", &large), ("app.py", ""), ("x\ny.exe", "MZ")],
    );
    let at = |name: &str| sandbox.path().join("shop").join(name);
    make_pipe(&at("package.json"));
    std::os::unix::fs::symlink("/dev/zero", at("Cargo.toml")).unwrap();
    std::os::unix::fs::symlink(".", at("loop")).unwrap();
    fs::write(at("requirements.txt"), b"\xff\xfe").unwrap();
    let (report, _) = succeeds(&run(&sandbox, &["init", "shop"]));
    assert_eq!(
        report,
        "shop/mainstay.toml: 1 service\n  shop  app.py\nedit it, then: mainstay run shop/mainstay.toml\n"
    );

    let output = run(&sandbox, &["init", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: cannot read nowhere: "));
    assert!(!Path::new("nowhere").exists());
}
