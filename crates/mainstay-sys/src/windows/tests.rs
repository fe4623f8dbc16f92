//! Tests on real children, which are this test binary in another role; see [`role`].

use std::error::Error as _;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead as _, BufReader, PipeReader, Read as _, Write as _};
use std::os::windows::io::{AsHandle as _, AsRawHandle as _};
use std::os::windows::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_core::spec::{Limits, Priority, Signal, StopAsk, StopScope};
use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, SetHandleInformation};
use windows_sys::Win32::System::Console::{
    COORD, SMALL_RECT, SetConsoleScreenBufferSize, SetConsoleWindowInfo,
};
use windows_sys::Win32::System::Threading::{
    BELOW_NORMAL_PRIORITY_CLASS, CREATE_NO_WINDOW, DETACHED_PROCESS, GetPriorityClass,
    GetProcessAffinityMask,
};

use super::{Processes, Tree};
use crate::process::{Command, Exit, SpawnError};

const ROLE: &str = "MAINSTAY_TEST_ROLE";

/// Runs a child's role; does nothing in the test run itself.
#[expect(clippy::disallowed_methods, reason = "no terminal looks on")]
#[test]
fn role() {
    if let Some(code) = super::run_as_helper() {
        return assert_eq!(code, std::process::ExitCode::SUCCESS);
    }
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let mut out = io::stdout();
    let mut say = |text: &str| {
        writeln!(out, "{text}").unwrap();
        out.flush().unwrap();
    };
    match role.as_str() {
        "exit" => {
            let code = std::env::var("CODE").unwrap();
            std::process::exit(code.parse::<u32>().unwrap().cast_signed());
        }
        "tell" => {
            say(&format!(
                "ARGS {:?}",
                std::env::args_os().collect::<Vec<_>>()
            ));
            say(&format!(
                "DIR {}",
                std::env::current_dir().unwrap().display()
            ));
            let mut stdin = String::new();
            io::stdin().read_to_string(&mut stdin).unwrap();
            say(&format!("STDIN {stdin:?}"));
            let names: Vec<_> = std::env::vars()
                .filter(|(name, _)| !name.starts_with("WINE"))
                .collect();
            say(&format!("ENV {names:?}"));
        }
        "polite" => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut ctrl_c = tokio::signal::windows::ctrl_c().unwrap();
                say("up");
                ctrl_c.recv().await;
            });
            std::process::exit(42);
        }
        "stubborn" => {
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            again.args(std::env::args_os().skip(1)).env(ROLE, "idle");
            let _grandchild = again.spawn().unwrap();
            std::process::exit(0);
        }
        "console" => say(&format!("SIZE {:?}", size_of_own_console())),
        "count" => loop {
            say("x");
        },
        "idle" => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let _ignored = tokio::signal::windows::ctrl_c().unwrap();
                say(&format!("PID {}", std::process::id()));
                std::future::pending::<()>().await;
            });
        }
        other => panic!("no role {other}"),
    }
}

/// Makes the window of this process's console smaller than its buffer.
fn size_of_own_console() -> Option<(usize, usize)> {
    let mut options = fs::File::options();
    let console = options.read(true).write(true).open("CONOUT$").unwrap();
    let handle = console.as_raw_handle();
    let window = |columns: i16, lines: i16| SMALL_RECT {
        Left: 0,
        Top: 0,
        Right: columns - 1,
        Bottom: lines - 1,
    };
    // A window is never larger than the buffer.
    let buffer = COORD { X: 120, Y: 300 };
    // SAFETY: the handle is open, and the structures outlive the calls.
    let done = unsafe {
        [
            SetConsoleWindowInfo(handle, 1, &window(10, 5)),
            SetConsoleScreenBufferSize(handle, buffer),
            SetConsoleWindowInfo(handle, 1, &window(90, 20)),
        ]
    };
    assert!(!done.contains(&0), "{done:?}");
    super::console_size(&console)
}

struct Rig {
    processes: Processes,
}

fn run(test: impl AsyncFnOnce(&mut Rig)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut rig = Rig {
            processes: Processes::new("mainstay-test").unwrap(),
        };
        tokio::time::timeout(Duration::from_secs(60), test(&mut rig))
            .await
            .unwrap();
    });
}

impl Rig {
    fn start(
        &mut self,
        role: &str,
        more: &[(&str, &str)],
        arguments: &[&str],
    ) -> (Tree, BufReader<PipeReader>) {
        let exe = std::env::current_exe().unwrap();
        let argv: Vec<OsString> = [
            exe.to_str().unwrap(),
            "--exact",
            "--nocapture",
            "windows::tests::role",
        ]
        .iter()
        .chain(arguments)
        .map(OsString::from)
        .collect();
        let mut env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        env.push((ROLE.into(), role.into()));
        env.extend(more.iter().map(|(name, value)| (name.into(), value.into())));
        self.spawn(&exe, &argv, &env, &std::env::temp_dir())
            .unwrap()
    }

    fn spawn(
        &mut self,
        program: &Path,
        argv: &[OsString],
        env: &[(OsString, OsString)],
        working_dir: &Path,
    ) -> Result<(Tree, BufReader<PipeReader>), SpawnError> {
        let (reader, writer) = io::pipe().unwrap();
        let tree = self.processes.spawn(&Command {
            name: "orders",
            program,
            argv,
            env,
            working_dir,
            stdin: None,
            stdout: writer.as_handle(),
            stderr: writer.as_handle(),
            user: None,
            priority: None,
            cpus: &[],
            sockets: &[],
            limits: Limits::default(),
            capabilities: &[],
        })?;
        Ok((tree, BufReader::new(reader)))
    }

    async fn exit_of(&mut self, tree: &Tree) -> Exit {
        loop {
            self.processes.reap();
            if let Some(exit) = tree.exit() {
                return exit;
            }
            self.processes.changed().await;
        }
    }

    async fn until_empty(&mut self, tree: &Tree) {
        self.processes.reap();
        while !tree.is_empty() {
            self.processes.changed().await;
            self.processes.reap();
        }
    }
}

/// Returns the rest of the first line that contains `start`.
fn line(output: &mut BufReader<PipeReader>, start: &str) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(
            output.read_line(&mut line).unwrap(),
            0,
            "no line begins with {start}"
        );
        // The test harness may have written something before it on the same line.
        if let Some(at) = line.find(start) {
            return line[at + start.len()..].trim_end().to_owned();
        }
    }
}

fn all(mut output: BufReader<PipeReader>) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn exits() {
    run(async |rig| {
        for code in [0, 201, 0xC000_0005_u32] {
            let (tree, _output) = rig.start("exit", &[("CODE", &code.to_string())], &[]);
            assert!(!tree.is_empty());
            let exit = rig.exit_of(&tree).await;
            assert_eq!(
                exit,
                Exit {
                    code: Some(code.cast_signed()),
                    signal: None,
                    core_dumped: false
                }
            );
            rig.until_empty(&tree).await;
            tree.kill().unwrap();
            assert!(
                !tree
                    .ask_to_stop(StopAsk::Signal(Signal::Term), StopScope::Tree)
                    .unwrap()
            );
        }
    });
}

#[test]
fn arguments_environment_and_directory_are_exact() {
    run(async |rig| {
        let arguments = ["a b", "", "q\"q", r"back\slash\", "%PATH% & calc", "ü"];
        let (_tree, output) = rig.start("tell", &[("EMPTY", ""), ("Spaced", " x ")], &arguments);
        let text = all(output);
        let wanted: Vec<String> = arguments.iter().map(|word| format!("{word:?}")).collect();
        assert!(
            text.contains(&format!("{}]\n", wanted.join(", "))),
            "{text}"
        );
        assert!(text.contains("(\"Spaced\", \" x \")"), "{text}");
        assert!(text.contains("STDIN \"\""), "{text}");
        let dir = text
            .lines()
            .find_map(|line| line.strip_prefix("DIR "))
            .unwrap();
        assert_eq!(
            PathBuf::from(dir).canonicalize().unwrap(),
            std::env::temp_dir().canonicalize().unwrap()
        );
    });
}

#[test]
fn nothing_else_is_inherited() {
    run(async |rig| {
        let (mut reader, writer) = io::pipe().unwrap();
        // SAFETY: the handle is open and owned here.
        let done = unsafe {
            SetHandleInformation(
                writer.as_raw_handle(),
                HANDLE_FLAG_INHERIT,
                HANDLE_FLAG_INHERIT,
            )
        };
        assert_ne!(done, 0);
        let (tree, mut output) = rig.start("idle", &[], &[]);
        line(&mut output, "PID ");
        drop(writer);
        assert_eq!(
            reader.read(&mut [0]).unwrap(),
            0,
            "the child holds our pipe"
        );
        assert_eq!(tree.exit(), None);
    });
}

#[test]
fn failed_starts() {
    run(async |rig| {
        let dir = std::env::temp_dir().join(format!("mainstay-sys-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let text = dir.join("text.exe");
        fs::write(&text, "no program").unwrap();
        let env: Vec<_> = std::env::vars_os().collect();
        let argv = ["x".into()];
        for (program, working_dir, step, has_hint) in [
            (
                dir.join("none.exe"),
                dir.clone(),
                format!("execute {}", dir.join("none.exe").display()),
                false,
            ),
            (
                text.clone(),
                dir.clone(),
                format!("execute {}", text.display()),
                true,
            ),
            (
                std::env::current_exe().unwrap(),
                dir.join("none"),
                format!("change to directory {}", dir.join("none").display()),
                false,
            ),
        ] {
            let error = rig
                .spawn(&program, &argv, &env, &working_dir)
                .err()
                .unwrap();
            assert_eq!(error.to_string(), step);
            assert!(error.source().is_some());
            assert_eq!(error.hint().is_some(), has_hint, "{error:?}");
        }
        let script = dir.join("run.cmd");
        fs::write(&script, "@echo %1\r\n@exit /b 7\r\n").unwrap();
        let error = rig
            .spawn(&script, &["run".into(), "%PATH%".into()], &env, &dir)
            .err()
            .unwrap();
        assert_eq!(error.to_string(), "prepare the arguments");
        let (tree, output) = rig
            .spawn(
                &script,
                &["run".into(), "a & b".into()],
                &env,
                &dir.canonicalize().unwrap(),
            )
            .unwrap();
        assert_eq!(rig.exit_of(&tree).await.code, Some(7));
        assert!(all(output).contains("\"a & b\""));
        fs::remove_dir_all(dir).unwrap();
    });
}

/// A program may have any path, if the system starts it, which Wine does not. A path that cannot be
/// used is named as the cause.
#[test]
fn paths_that_are_too_long() {
    run(async |rig| {
        let dir = std::env::temp_dir().join(format!("mainstay-long-{}", std::process::id()));
        let deep = dir
            .join("d".repeat(100))
            .join("e".repeat(100))
            .join("f".repeat(60));
        fs::create_dir_all(&deep).unwrap();
        let program = deep.join("program.exe");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let argv: Vec<OsString> = ["x", "--exact", "--nocapture", "windows::tests::role"]
            .map(OsString::from)
            .into();
        let mut env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        env.extend([(ROLE.into(), "exit".into()), ("CODE".into(), "3".into())]);
        match rig.spawn(&program, &argv, &env, &dir) {
            Ok((tree, _output)) => assert_eq!(rig.exit_of(&tree).await.code, Some(3)),
            Err(error) => {
                let source = error.source().unwrap().to_string();
                assert!(source.contains("this Windows cannot start"), "{source}");
            }
        }

        let script = deep.join("run.cmd");
        fs::write(&script, "@exit /b 7\r\n").unwrap();
        let short = dir.join("run.cmd");
        fs::write(&short, "@exit /b 7\r\n").unwrap();
        let here = std::env::current_exe().unwrap();
        for (program, working_dir, step, why) in [
            (
                &here,
                &*deep,
                "change to directory",
                "for a working directory",
            ),
            (&script, &dir, "execute", "for a batch file"),
            (
                &short,
                Path::new(r"\\srv\share"),
                "change to directory",
                "on a server",
            ),
        ] {
            let error = rig.spawn(program, &argv, &env, working_dir).err().unwrap();
            assert!(error.to_string().starts_with(step), "{error}");
            let source = error.source().unwrap().to_string();
            assert!(source.contains(why), "{source}");
            assert!(error.is_permanent && error.hint().is_some());
        }
        fs::remove_dir_all(dir).unwrap();
    });
}

#[test]
fn a_console_is_as_large_as_its_window() {
    run(async |rig| {
        let (tree, mut output) = rig.start("console", &[], &[]);
        assert_eq!(line(&mut output, "SIZE "), "Some((20, 90))");
        rig.exit_of(&tree).await;
    });
    let (reader, _writer) = io::pipe().unwrap();
    assert_eq!(super::console_size(&reader), None);
}

#[test]
fn names_of_variables_stay_as_given() {
    run(async |rig| {
        let (tree, output) = rig.start("tell", &[("MixedCase", "x")], &[]);
        // The pipe has no room for the whole environment.
        assert!(all(output).contains(r#"("MixedCase", "x")"#));
        rig.exit_of(&tree).await;
    });
}

#[test]
fn a_ctrl_c_reaches_one_tree_alone() {
    const INSIDE: &str = "MAINSTAY_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_none() {
        // Without a console, like a service, and with one, which requires a helper.
        for flags in [DETACHED_PROCESS, CREATE_NO_WINDOW] {
            // Not a pipe: under Wine, the first process that enumerates windows starts the desktop,
            // which would hold the pipe forever.
            let path =
                std::env::temp_dir().join(format!("mainstay-{}-{flags}", std::process::id()));
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "windows::tests::a_ctrl_c_reaches_one_tree_alone"])
                .env(INSIDE, "1")
                .creation_flags(flags)
                .stdout(fs::File::create(&path).unwrap())
                .status()
                .unwrap();
            let text = fs::read_to_string(&path).unwrap();
            let _ = fs::remove_file(path);
            assert!(
                status.success() && text.contains("1 passed"),
                "{flags:x}: {text}"
            );
        }
        return;
    }
    run(async |rig| {
        let (one, mut one_output) = rig.start("polite", &[], &[]);
        let (two, mut two_output) = rig.start("polite", &[], &[]);
        line(&mut one_output, "up");
        line(&mut two_output, "up");
        assert!(
            one.ask_to_stop(StopAsk::Signal(Signal::Term), StopScope::Tree)
                .unwrap()
        );
        assert_eq!(rig.exit_of(&one).await.code, Some(42), "ctrl-c");
        assert_eq!(two.exit(), None);
        assert!(
            !two.ask_to_stop(StopAsk::Close, StopScope::Tree).unwrap(),
            "it has no window"
        );
        two.signal(Signal::Int, StopScope::Main).unwrap();
        assert_eq!(rig.exit_of(&two).await.code, Some(42));
        assert!(two.signal(Signal::Hup, StopScope::Main).is_err());
    });
}

#[test]
fn a_grandchild_does_not_survive() {
    run(async |rig| {
        let (tree, mut output) = rig.start("stubborn", &[], &[]);
        line(&mut output, "PID ");
        assert_eq!(rig.exit_of(&tree).await.code, Some(0));
        assert!(!tree.is_empty());
        let usage = tree.usage().unwrap();
        assert!(
            (1..=2).contains(&usage.processes),
            "and perhaps its console's host: {usage:?}"
        );
        assert!(usage.resident > 100_000, "{usage:?}");
        tree.kill().unwrap();
        rig.until_empty(&tree).await;
        all(output); // ends: no process holds the pipe

        let (tree, mut output) = rig.start("idle", &[], &[]);
        line(&mut output, "PID ");
        tree.kill().unwrap();
        assert_eq!(rig.exit_of(&tree).await.code, Some(137));

        let (tree, mut output) = rig.start("stubborn", &[], &[]);
        line(&mut output, "PID ");
        drop(tree);
        all(output); // ends: the job was closed
    });
}

#[test]
fn a_frozen_tree_makes_no_progress() {
    run(async |rig| {
        let (tree, output) = rig.start("count", &[], &[]);
        let mut output = output.into_inner();
        let (sender, received) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while output.read(&mut buffer).is_ok_and(|count| count > 0) {
                let _ = sender.send(());
            }
        });
        let timeout = Duration::from_millis(300);
        received.recv_timeout(timeout * 100).unwrap();
        tree.freeze().unwrap();
        tree.freeze().unwrap();
        while received.recv_timeout(timeout).is_ok() {}
        assert!(received.recv_timeout(timeout).is_err());
        tree.thaw().unwrap();
        received.recv_timeout(timeout * 100).unwrap();
        tree.freeze().unwrap();
        tree.kill().unwrap();
        rig.until_empty(&tree).await;
        reader.join().unwrap();
    });
}

#[test]
fn a_program_has_the_priority_and_the_processors_that_it_is_given() {
    run(async |rig| {
        let exe = std::env::current_exe().unwrap();
        let argv = [exe.to_str().unwrap(), "--exact", "windows::tests::role"].map(OsString::from);
        let mut env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        env.push((ROLE.into(), "polite".into()));
        let null = super::null().unwrap();
        let mut command = Command {
            name: "orders",
            program: &exe,
            argv: &argv,
            env: &env,
            working_dir: &std::env::temp_dir(),
            stdin: None,
            stdout: null.as_handle(),
            stderr: null.as_handle(),
            user: None,
            priority: Some(Priority::BelowNormal),
            cpus: &[0],
            sockets: &[],
            limits: Limits::default(),
            capabilities: &[],
        };
        let tree = rig.processes.spawn(&command).unwrap();
        let (mut own, mut all) = (0, 0);
        let process = tree.main.process.as_raw_handle();
        // SAFETY: the handle is open, and both variables outlive the call.
        let class = unsafe {
            assert_ne!(GetProcessAffinityMask(process, &mut own, &mut all), 0);
            GetPriorityClass(process)
        };
        assert_eq!((class, own), (BELOW_NORMAL_PRIORITY_CLASS, 1));
        command.cpus = &[64];
        let error = rig.processes.spawn(&command).err().unwrap();
        assert!(error.to_string().contains("CPU affinity"), "{error}");
    });
}
