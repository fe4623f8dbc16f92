//! `mainstay check`, as seen by users and scripts.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Checks every broken manifest in `tests/check`: the output for people, and the output for
/// scripts. Absolute paths differ on Windows, and so do the snapshots.
#[cfg(unix)]
#[test]
fn broken_manifests() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check");
    let mut files: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".snap") && !name.ends_with(".snap.new"))
        .collect();
    files.sort();
    assert!(files.len() >= 25);
    for file in files {
        let shown = mainstay(&["check", &file], &dir, "");
        let json = mainstay(&["check", "--json", &file], &dir, "");
        assert_eq!(shown.status.code(), Some(78), "{file}");
        assert_eq!(json.status.code(), Some(78), "{file}");
        assert!(shown.stdout.is_empty(), "{file}");
        let (shown, json) = (text(&shown.stderr), text(&json.stdout));
        assert!(
            !shown.contains("secret") || file.contains("secret"),
            "{shown}"
        );
        insta::with_settings!({ snapshot_path => "check", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(file, format!("{shown}\n{json}"));
        });
    }
}

#[test]
fn good_manifests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let schema = mainstay(&["schema"], &root, "");
    assert!(text(&schema.stdout).contains("https://json-schema.org/draft/2020-12/schema"));
    let examples = fs::read_dir(root.join("examples")).unwrap();
    for example in examples {
        let manifest = example.unwrap().path().join("mainstay.toml");
        if manifest.is_file() {
            let output = mainstay(&["check".as_ref(), manifest.as_os_str()], &root, "");
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        }
    }
    check(
        &["check", "examples/orders/mainstay.toml"],
        "",
        0,
        "examples/orders/mainstay.toml: 2 services
  orders  /usr/bin/orders
  db      /usr/lib/postgresql/17/bin/postgres
",
    );
    let manifest = "[service.a]\ncommand = ['a']";
    check(&["check", "-"], manifest, 0, "<stdin>: 1 service\n  a  a\n");
    check(&["check", "--json", "-"], manifest, 0, "[]\n");
    let manifest = "service: { a: { command: [a] } }";
    check(
        &["check", "-", "--format", "yaml"],
        manifest,
        0,
        "<stdin>: 1 service\n  a  a\n",
    );
}

#[test]
#[cfg(target_os = "linux")]
fn files_that_cannot_be_read() {
    check(
        &["check", "nowhere.toml"],
        "",
        78,
        "error: cannot read nowhere.toml: No such file or directory (os error 2)
hint: a manifest is usually named mainstay.toml
",
    );
    check(
        &["check", "nowhere"],
        "",
        78,
        "error: cannot read nowhere: No such file or directory (os error 2)
hint: a manifest is usually named mainstay.toml
",
    );
    check(
        &["check", "examples"],
        "",
        78,
        "error: cannot read examples: Is a directory (os error 21)
hint: pass the manifest file in it
",
    );
    check(
        &["check", "LICENSE-MIT"],
        "",
        2,
        "error: cannot read LICENSE-MIT: its extension does not show its format
hint: pass --format toml, yaml or json
",
    );
}

#[test]
fn a_manifest_that_is_not_utf8_is_invalid() {
    let mut child = command(&["check", "-"], Path::new("."));
    let mut child = child
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"a = \"\xff\"")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let expect = "error: cannot read <stdin>: byte 5 is not UTF-8\nhint: save it as UTF-8\n";
    assert_eq!(text(&output.stderr), expect);
}

/// `cmd.exe` would run the batch file in the directory of Windows, and the error of a start with a
/// long path would be misleading.
#[test]
#[cfg(windows)]
fn paths_that_windows_cannot_use() {
    let manifest = r"
        [service.share]
        command = ['C:\run.cmd']
        working_dir = '\\srv\share'
        [service.deep]
        command = ['C:\run.exe']
        working_dir = 'C:\DEEP'
    ";
    let manifest = manifest.replace("DEEP", &"x".repeat(256));
    let output = mainstay(&["check", "--json", "-"], Path::new("."), &manifest);
    assert_eq!(output.status.code(), Some(78));
    let found = text(&output.stdout);
    assert_eq!(found.matches("\"unusable-path\"").count(), 2, "{found}");
    for part in [
        "service.share.working_dir",
        "in a directory on a server",
        "service.deep.working_dir",
        "has 259 UTF-16 units",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
}

/// A program that everyone can replace is refused for root only.
#[test]
#[cfg(unix)]
fn world_writable_programs() {
    use std::os::unix::fs::PermissionsExt;
    let dir = std::env::temp_dir().join(format!("mainstay-check-{}", std::process::id()));
    let program = dir.join("open/program");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::write(&program, "").unwrap();
    let judge = |account: &str| {
        let manifest = format!(
            "[service.a]\naccount = '{account}'\ncommand = ['open/program']\nworking_dir = 'open'\n"
        );
        fs::write(dir.join("m.toml"), manifest).unwrap();
        let output = mainstay(&["check", "--json", "m.toml"], &dir, "");
        text(&output.stdout).matches("\"world-writable\"").count()
    };
    let allow =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    allow(&dir, 0o755);
    allow(&dir.join("open"), 0o755);
    allow(&program, 0o757);
    assert_eq!(judge("local-system"), 1);
    allow(&program, 0o755);
    assert_eq!(judge("local-system"), 0);
    allow(&dir.join("open"), 0o777);
    assert_eq!(judge("user:root"), 2);
    assert_eq!(judge("network-service"), 0);
    fs::remove_dir_all(&dir).unwrap();
}

/// Runs `mainstay` at the root of the repository, and checks that its output is `expect`.
#[track_caller]
fn check(arguments: &[&str], stdin: &str, code: i32, expect: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = mainstay(arguments, &root, stdin);
    let printed = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(
        (output.status.code(), printed.as_str()),
        (Some(code), expect)
    );
}

fn mainstay<A: AsRef<OsStr>>(arguments: &[A], dir: &Path, stdin: &str) -> Output {
    let mut child = command(arguments, dir);
    child
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = child.spawn().expect("mainstay starts");
    let mut pipe = child.stdin.take().expect("stdin is a pipe");
    // It need not read all of its input.
    let _ = pipe.write_all(stdin.as_bytes());
    drop(pipe);
    child.wait_with_output().expect("mainstay ends")
}

fn command<A: AsRef<OsStr>>(arguments: &[A], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(arguments).current_dir(dir);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("mainstay prints UTF-8")
}
