//! The behavior required of every Unix implementation, tested on real children. Each implementation
//! includes this file, so that `super` is the one under test.
//!
//! Each test runs in a separate process, which is this test binary again: the subreaper, signal
//! dispositions and the reaping of *any* child affect a whole process.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_core::spec::{Limits, Priority, Signal, StopAsk, StopScope};

use super::{Processes, Tree};
use crate::User;
use crate::process::{CONTAINMENT, Command, Containment, Exit, INSTANCE, SpawnError};

/// Runs `test` in a separate process for each available containment; `name` is the name of the
/// test.
pub(super) fn isolated(name: &str, test: impl AsyncFnOnce(&mut Rig)) {
    isolated_with(name, || {}, test);
}

/// Runs a test like [`isolated`], with `before` called in that process before the supervisor
/// starts.
pub(super) fn isolated_with(name: &str, before: impl FnOnce(), test: impl AsyncFnOnce(&mut Rig)) {
    const INSIDE: &str = "MAINSTAY_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        // SAFETY: no memory is involved. SIGALRM ends a test that hangs.
        unsafe { libc::alarm(60) };
        before();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(async { test(&mut Rig::new()).await });
    }
    let module = module_path!()
        .split_once("::")
        .unwrap()
        .1
        .trim_end_matches("::suite");
    let names = ["suite", "tests"].map(|file| format!("{module}::{file}::{name}"));
    // The second one only makes a difference on Linux.
    let containments = if module.contains("linux") {
        &["", "subreaper"][..]
    } else {
        &[""]
    };
    for containment in containments {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .args(&names)
            .env(INSIDE, "1")
            .env(CONTAINMENT, containment)
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success(),
            "{name} {containment}: {}\n{text}",
            output.status
        );
        assert!(text.contains("1 passed"), "{name}: no such test\n{text}");
    }
}

pub(super) struct Rig {
    pub(super) processes: Processes,
    pub(super) dir: PathBuf,
    started: Vec<u32>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A test failed halfway; the processes that it started lead groups with these IDs.
        for pid in self.started.drain(..).filter(|_| std::thread::panicking()) {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Rig {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("mainstay-sys-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let processes = Processes::new("mainstay-test").unwrap();
        Self {
            processes,
            dir: dir.canonicalize().unwrap(),
            started: Vec::new(),
        }
    }

    /// Starts `/bin/sh -c SCRIPT` and returns its output pipe.
    pub(super) fn shell(&mut self, script: &str) -> (Tree, BufReader<PipeReader>) {
        self.start(&["/bin/sh", "-c", script], |_| {}).unwrap()
    }

    /// Starts `argv`, after `change` has modified the command.
    pub(super) fn start(
        &mut self,
        argv: &[&str],
        change: impl for<'a> FnOnce(&mut Changes<'a>),
    ) -> Result<(Tree, BufReader<PipeReader>), SpawnError> {
        let mut changes = Changes {
            program: Path::new(argv[0]),
            env: vec![("PATH".into(), "/usr/bin:/bin:/usr/sbin:/sbin".into())],
            working_dir: self.dir.clone(),
            user: None,
            priority: None,
            cpus: Vec::new(),
        };
        change(&mut changes);
        let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
        let (reader, writer) = io::pipe().unwrap();
        let tree = self.processes.spawn(&Command {
            name: "orders",
            program: changes.program,
            argv: &argv,
            env: &changes.env,
            working_dir: &changes.working_dir,
            stdin: None,
            stdout: writer.as_fd(),
            stderr: writer.as_fd(),
            user: changes.user.as_ref(),
            priority: changes.priority,
            cpus: &changes.cpus,
            sockets: &[],
            limits: Limits::default(),
            capabilities: &[],
        })?;
        self.started.push(tree.pid());
        Ok((tree, BufReader::new(reader)))
    }

    pub(super) async fn exit_of(&mut self, tree: &Tree) -> Exit {
        loop {
            let ended = self.processes.reap();
            if let Some(exit) = tree.exit() {
                let mut ended = ended.iter().map(|(id, exit, _)| (*id, *exit));
                assert!(ended.len() == 0 || ended.any(|it| it == (tree.id(), exit)));
                return exit;
            }
            self.processes.changed().await;
        }
    }

    pub(super) async fn until_empty(&mut self, tree: &Tree) {
        self.processes.reap();
        while !tree.is_empty() {
            self.processes.changed().await;
            self.processes.reap();
        }
    }

    pub(super) fn is_group(&self) -> bool {
        self.processes.containment() == Containment::Group
    }
}

pub(super) struct Changes<'a> {
    pub(super) program: &'a Path,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) working_dir: PathBuf,
    pub(super) user: Option<User>,
    pub(super) priority: Option<Priority>,
    pub(super) cpus: Vec<u16>,
}

pub(super) fn line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

pub(super) fn all(mut output: impl Read) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    text
}

pub(super) fn exists(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn exits() {
    isolated("exits", async |rig| {
        for (script, code, signal) in [
            ("exit 0", Some(0), None),
            ("exit 201", Some(201), None),
            ("exit 255", Some(255), None),
            ("kill -TERM $$", None, Some(libc::SIGTERM)),
            ("kill -KILL $$", None, Some(libc::SIGKILL)),
        ] {
            let (tree, _output) = rig.shell(script);
            assert!(!tree.is_empty() && tree.exit().is_none());
            let exit = rig.exit_of(&tree).await;
            assert_eq!((exit.code, exit.signal), (code, signal), "{script}");
            rig.until_empty(&tree).await;
            // The pid may belong to another process now.
            assert_eq!(tree.handles(Signal::Term), None);
            assert!(
                !tree
                    .ask_to_stop(StopAsk::Signal(Signal::Term), StopScope::Tree)
                    .unwrap()
            );
            tree.signal(Signal::Term, StopScope::Main).unwrap();
            tree.signal(Signal::Term, StopScope::Tree).unwrap();
            tree.kill().unwrap();
        }
    });
}

#[test]
fn failed_starts() {
    isolated("failed_starts", async |rig| {
        let dir = rig.dir.clone();
        let file = |name: &str, content: &[u8], mode: u32| {
            let path = dir.join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let mut foreign = fs::read("/bin/sh").unwrap();
        foreign[18] ^= 0x55; // e_machine
        let rows = [
            (dir.join("none"), libc::ENOENT, None),
            (dir.clone(), libc::EACCES, Some("directory")),
            (
                file("plain", b"#!/bin/sh\n", 0o644),
                libc::EACCES,
                Some("chmod +x"),
            ),
            (
                file("lost", b"#! /no/such/python3 -u\n", 0o755),
                libc::ENOENT,
                Some("/no/such/python3"),
            ),
            (
                file("dos", b"#!/bin/sh\r\nexit 0\r\n", 0o755),
                libc::ENOENT,
                Some("carriage return"),
            ),
            (file("text", b"exit 0\n", 0o755), libc::ENOEXEC, Some("#!")),
            (
                file("foreign", &foreign, 0o755),
                libc::ENOEXEC,
                Some("not an executable for this machine"),
            ),
        ];
        // The directory that a failed start leaves for the next one is created once.
        assert!(rig.start(&["/no/such"], |_| {}).is_err());
        let before = open_fds();
        for (program, errno, hint) in rows {
            let error = rig
                .start(&["x"], |command| {
                    command.program = Box::leak(Box::new(program.clone()))
                })
                .err()
                .unwrap();
            assert_eq!(error.to_string(), format!("execute {}", program.display()));
            let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
            assert_eq!(source.raw_os_error(), Some(errno), "{}", program.display());
            let given = error.hint().unwrap_or_default();
            assert_eq!(given.is_empty(), hint.is_none(), "{given}");
            assert!(given.contains(hint.unwrap_or_default()), "{given}");
        }
        let error = rig
            .start(&["/bin/sh"], |command| {
                command.working_dir = "/no/such".into()
            })
            .err()
            .unwrap();
        assert_eq!(error.to_string(), "change to directory /no/such");
        let error = rig.start(&["/bin/sh", "a\0b"], |_| {}).err().unwrap();
        assert_eq!(error.to_string(), "prepare the arguments");
        assert_eq!(open_fds(), before);
        assert!(rig.processes.reap().is_empty());
        assert_eq!(
            rig.processes.orphans(),
            0,
            "a failed child is collected at once"
        );
    });
}

fn open_fds() -> usize {
    fs::read_dir("/dev/fd").unwrap().count()
}

#[test]
fn arguments_environment_and_directory_are_exact() {
    isolated(
        "arguments_environment_and_directory_are_exact",
        async |rig| {
            let contained = rig.processes.containment() == Containment::Cgroup;
            let (_tree, output) = rig
                .start(&["/usr/bin/env"], |command| {
                    command.env = vec![("A".into(), "1 2\n=".into()), ("EMPTY".into(), "".into())];
                })
                .unwrap();
            let text = all(output);
            let rest = text.strip_prefix("A=1 2\n=\nEMPTY=\n").unwrap();
            assert!(
                if contained {
                    rest.is_empty()
                } else {
                    rest.starts_with(&format!("{INSTANCE}="))
                },
                "{rest}"
            );

            let (_tree, output) = rig
                .start(
                    &["another name", "/proc/self/cmdline", "", "/dev/null"],
                    |command| {
                        command.program = Path::new("/bin/cat");
                    },
                )
                .unwrap();
            assert!(all(output).starts_with("another name\0/proc/self/cmdline\0\0/dev/null\0"));

            let (_tree, mut output) = rig.start(&["/bin/pwd", "-P"], |_| {}).unwrap();
            assert_eq!(line(&mut output), rig.dir.to_str().unwrap());
        },
    );
}

#[test]
fn the_inherited_state_is_clean() {
    let before = || {
        // SAFETY: this process exists for the test alone.
        unsafe {
            for signal in [
                libc::SIGHUP,
                libc::SIGINT,
                libc::SIGPIPE,
                libc::SIGRTMIN() + 5,
            ] {
                libc::signal(signal, libc::SIG_IGN);
            }
            let mut blocked: libc::sigset_t = std::mem::zeroed();
            for signal in [libc::SIGTERM, libc::SIGUSR1, libc::SIGRTMIN() + 6] {
                libc::sigaddset(&mut blocked, signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, std::ptr::null_mut());
            for fd in [7, 100, 1000] {
                assert_eq!(libc::dup2(0, fd), fd);
            }
        }
    };
    isolated_with("the_inherited_state_is_clean", before, async |rig| {
        // SAFETY: as above; these descriptors are opened after the supervisor has marked the
        // inherited ones.
        unsafe { assert_eq!(libc::dup2(0, 500), 500) };
        let (_tree, output) = rig
            .start(&["/bin/cat", "/proc/self/status"], |_| {})
            .unwrap();
        let text = all(output);
        for name in ["SigBlk", "SigIgn", "SigCgt"] {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            assert_eq!(
                value.map(|value| u64::from_str_radix(value, 16)),
                Some(Ok(0)),
                "{name}: {text}"
            );
        }
        let (_tree, output) = rig
            .start(&["/bin/ls", "-l", "/proc/self/fd"], |_| {})
            .unwrap();
        let text = all(output);
        // Descriptor 3 is the directory that ls reads.
        let fds: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split(" -> ").next()?.split(' ').nth_back(0))
            .collect();
        assert_eq!(fds[1..], ["0", "1", "2", "3"], "{text}");
        assert!(text.contains(" 0 -> /dev/null\n"), "{text}");

        let (tree, output) = rig.start(&["/bin/cat", "/proc/self/stat"], |_| {}).unwrap();
        let text = all(output);
        let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
        assert_eq!(
            fields[2..5],
            [&*tree.pid().to_string(), &*tree.pid().to_string(), "0"],
            "group, session, terminal"
        );
    });
}

/// Writes its pid, then ignores every request to stop, outside its parent's session.
const STUBBORN: &str =
    "setsid sh -c 'trap \"\" TERM HUP INT; echo $$; while :; do sleep 1000; done'";

#[test]
fn a_stubborn_daemon_does_not_survive_its_dead_parent() {
    isolated(
        "a_stubborn_daemon_does_not_survive_its_dead_parent",
        async |rig| {
            if rig.is_group() {
                return eprintln!("skipped: a session alone does not hold it");
            }
            let (tree, mut output) = rig.shell(&format!("({STUBBORN} &)"));
            let pid = line(&mut output);
            assert_eq!(rig.exit_of(&tree).await.code, Some(0));
            assert!(!tree.is_empty());
            assert!(
                tree.ask_to_stop(StopAsk::Signal(Signal::Term), StopScope::Tree)
                    .unwrap()
            );
            assert!(!tree.is_empty() && exists(&pid));
            tree.kill().unwrap();
            rig.until_empty(&tree).await;
            assert!(!exists(&pid));
            assert_eq!(all(output), "", "nobody holds the pipe");
        },
    );
}

#[test]
fn a_daemon_without_marks_does_not_survive() {
    isolated("a_daemon_without_marks_does_not_survive", async |rig| {
        if rig.is_group() {
            return eprintln!("skipped: a session alone does not hold it");
        }
        // The process is still a descendant when it is killed.
        let (tree, mut output) = rig.shell(&format!("env -i {STUBBORN} & exec sleep 1000"));
        let pid = line(&mut output);
        tree.kill().unwrap();
        rig.until_empty(&tree).await;
        assert!(!exists(&pid));
        assert_eq!(tree.exit().unwrap().signal, Some(libc::SIGKILL));

        // The process was seen as a descendant when asked to stop, and is an orphan when killed.
        let (tree, mut output) = rig.shell(&format!(
            "env -i {STUBBORN} & trap 'exit 7' TERM; while :; do wait; done"
        ));
        let pid = line(&mut output);
        while tree.handles(Signal::Term) != Some(true) {
            std::thread::yield_now();
        }
        tree.signal(Signal::Term, StopScope::Tree).unwrap();
        assert_eq!(rig.exit_of(&tree).await.code, Some(7));
        assert!(!tree.is_empty());
        tree.kill().unwrap();
        rig.until_empty(&tree).await;
        assert!(!exists(&pid));
    });
}

#[test]
fn trees_do_not_touch_each_other() {
    isolated("trees_do_not_touch_each_other", async |rig| {
        let (one, mut one_output) = rig.shell("sleep 1000 & echo $!; exec sleep 1000");
        let (two, mut two_output) = rig.shell("sleep 1000 & echo $!; exec sleep 1000");
        let (one_child, two_child) = (line(&mut one_output), line(&mut two_output));
        one.kill().unwrap();
        rig.until_empty(&one).await;
        assert!(!exists(&one_child) && exists(&two_child));
        assert!(two.exit().is_none());
        two.kill().unwrap();
        rig.until_empty(&two).await;
        assert!(!exists(&two_child));
    });
}

#[test]
fn a_fork_storm_is_killed() {
    isolated("a_fork_storm_is_killed", async |rig| {
        // Each generation dies after starting the next one, each time in a new session.
        let storm = "f() { (setsid sh -c \"$S\" &) ; exit; }; f";
        for _ in 0..5 {
            let argv = [
                "/bin/sh",
                "-c",
                "echo up; (sh -c \"$S\" &); (sh -c \"$S\" &); exec sleep 1000",
            ];
            let env = |changes: &mut Changes<'_>| changes.env.push(("S".into(), storm.into()));
            if rig.is_group() {
                return eprintln!("skipped: a session alone does not hold it");
            }
            let (tree, mut output) = rig.start(&argv, env).unwrap();
            assert_eq!(line(&mut output), "up");
            tree.kill().unwrap();
            rig.until_empty(&tree).await;
            assert_eq!(all(output), "", "nobody holds the pipe");
        }
    });
}

#[test]
fn a_signal_has_a_scope() {
    isolated("a_signal_has_a_scope", async |rig| {
        let script = "trap 'echo main' USR1
            sh -c 'trap \"echo child\" USR1; echo up; while :; do sleep 1000 & wait; done' &
            while :; do wait; done";
        let (tree, mut output) = rig.shell(script);
        assert_eq!(line(&mut output), "up");
        let handles = [Signal::Usr1, Signal::Usr2].map(|signal| tree.handles(signal));
        let expect = if rig.is_group() {
            [None; 2]
        } else {
            [Some(true), Some(false)]
        };
        assert_eq!(handles, expect);
        tree.signal(Signal::Usr1, StopScope::Main).unwrap();
        assert_eq!(line(&mut output), "main");
        tree.signal(Signal::Usr1, StopScope::Tree).unwrap();
        let mut both = [line(&mut output), line(&mut output)];
        both.sort();
        assert_eq!(both, ["child", "main"]);
        tree.kill().unwrap();
        rig.until_empty(&tree).await;
    });
}

#[test]
fn a_frozen_tree_makes_no_progress() {
    isolated("a_frozen_tree_makes_no_progress", async |rig| {
        let (tree, output) = rig.shell(if rig.is_group() {
            "yes & yes"
        } else {
            "yes & setsid yes & yes"
        });
        rustix::io::ioctl_fionbio(output.get_ref(), true).unwrap();
        let mut output = output.into_inner();
        let mut drain = |timeout: Duration| {
            let mut count = 0;
            let mut buffer = [0; 65536];
            loop {
                match output.read(&mut buffer) {
                    Ok(read) => count += read,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
                let mut poll = [rustix::event::PollFd::new(
                    &output,
                    rustix::event::PollFlags::IN,
                )];
                let timeout = rustix::event::Timespec::try_from(timeout).unwrap();
                match rustix::event::poll(&mut poll, Some(&timeout)) {
                    Ok(0) => return count,
                    Ok(_) if count > 10_000_000 => return count,
                    Ok(_) | Err(rustix::io::Errno::INTR) => {} // a child that stops sends SIGCHLD
                    Err(error) => panic!("{error}"),
                }
            }
        };
        assert!(drain(Duration::from_secs(10)) > 10_000_000);
        tree.freeze().unwrap();
        drain(Duration::from_millis(100)); // output from before they stopped
        assert_eq!(drain(Duration::from_millis(100)), 0);
        tree.thaw().unwrap();
        assert!(drain(Duration::from_secs(10)) > 10_000_000);
        tree.freeze().unwrap();
        tree.kill().unwrap();
        rig.until_empty(&tree).await;
    });
}

#[test]
fn orphans_are_collected() {
    isolated("orphans_are_collected", async |rig| {
        if rig.is_group() {
            return eprintln!("skipped: init collects them");
        }
        let (tree, _output) =
            rig.shell("for i in 1 2 3 4 5 6 7 8 9; do (sh -c 'exit 3' &); done; exec sleep 1000");
        while rig.processes.orphans() < 9 {
            rig.processes.changed().await;
            assert!(rig.processes.reap().is_empty());
        }
        // No wake-ups once the signals of children that were reaped before have been received.
        let mut wakes = 0;
        let timeout = Duration::from_millis(50);
        while tokio::time::timeout(timeout, rig.processes.changed())
            .await
            .is_ok()
        {
            wakes += 1;
            assert!(wakes < 9);
        }
        tree.kill().unwrap();
        rig.until_empty(&tree).await;
    });
}

#[test]
fn two_hundred_starts_leave_nothing() {
    isolated("two_hundred_starts_leave_nothing", async |rig| {
        // The watches that the first kill creates are created once.
        let (tree, _output) = rig.shell("exec sleep 1000");
        tree.kill().unwrap();
        rig.until_empty(&tree).await;
        drop((tree, _output));
        let before = open_fds();
        let mut trees: Vec<_> = (0..100).map(|_| rig.shell("exec sleep 1000")).collect();
        for (tree, _) in &trees {
            tree.kill().unwrap();
        }
        for (tree, _) in &trees {
            rig.until_empty(tree).await;
        }
        trees.clear();
        let rounds = if rig.is_group() { 2 } else { 100 }; // init may reap orphans late
        for _ in 0..rounds {
            let (tree, output) = rig.shell("(sleep 1000 &); echo x");
            assert_eq!(rig.exit_of(&tree).await.code, Some(0));
            tree.kill().unwrap();
            rig.until_empty(&tree).await;
            assert_eq!(all(output), "x\n");
        }
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn usage_is_measured() {
    isolated("usage_is_measured", async |rig| {
        let (tree, mut output) = rig.shell(
            "sleep 1000 & i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done; while :; do wait; done",
        );
        assert_eq!(line(&mut output), "done");
        let Some(usage) = tree.usage() else {
            assert!(rig.is_group());
            return tree.kill().unwrap();
        };
        assert!(
            usage.cpu > Duration::from_millis(10) && usage.cpu < Duration::from_secs(20),
            "{usage:?}"
        );
        assert!(
            usage.resident > 500_000 && usage.resident < 100_000_000,
            "{usage:?}"
        );
        assert_eq!(usage.processes, 2);
        tree.kill().unwrap();
        rig.until_empty(&tree).await;
        assert_eq!(tree.usage().map(|usage| usage.processes), Some(0));
    });
}

#[test]
fn another_user() {
    isolated("another_user", async |rig| {
        assert_eq!(User::lookup("no-such-user").unwrap(), None);
        let nobody = User::lookup("nobody").unwrap().unwrap();
        if !is_root() {
            eprintln!("only in part: not root");
            let error = rig
                .start(&["/bin/true"], |command| command.user = Some(nobody))
                .err()
                .unwrap();
            assert_eq!(error.to_string(), "set the groups of user nobody");
            return assert!(error.hint().is_some());
        }
        let (tree, output) = rig
            .start(&["/usr/bin/id"], |command| {
                command.user = Some(nobody.clone())
            })
            .unwrap();
        let text = all(output);
        assert!(
            text.starts_with("uid=") && text.contains("(nobody)") && !text.contains("=0("),
            "{text}"
        );
        rig.until_empty(&tree).await;
        // This process has the same user as before, in every thread.
        assert!(is_root());

        fs::set_permissions(&rig.dir, fs::Permissions::from_mode(0o700)).unwrap();
        let error = rig
            .start(&["/bin/true"], |command| command.user = Some(nobody))
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            format!("change to directory {}", rig.dir.display())
        );
    });
}

#[test]
fn output_may_lie_among_the_standard_streams() {
    isolated("output_may_lie_among_the_standard_streams", async |rig| {
        let (reader, writer) = io::pipe().unwrap();
        // SAFETY: this process exists for the test alone; 0 and 2 become the pipe.
        unsafe { libc::dup2(writer.as_raw_fd(), 0) };
        // SAFETY: open until the process ends.
        let stdin = unsafe { std::os::fd::BorrowedFd::borrow_raw(0) };
        let argv = [
            "/bin/sh",
            "-c",
            "echo one; echo two >&2; cat; ls -l /proc/self/fd/0",
        ]
        .map(OsString::from);
        let tree = rig
            .processes
            .spawn(&Command {
                name: "orders",
                program: Path::new("/bin/sh"),
                argv: &argv,
                env: &[("PATH".into(), "/bin:/usr/bin".into())],
                working_dir: Path::new("/"),
                stdin: None,
                stdout: stdin,
                stderr: stdin,
                user: None,
                priority: None,
                cpus: &[],
                sockets: &[],
                limits: Limits::default(),
                capabilities: &[],
            })
            .unwrap();
        rig.until_empty(&tree).await;
        // SAFETY: as above.
        unsafe { libc::close(0) };
        drop(writer);
        let text = all(reader);
        assert!(
            text.starts_with("one\ntwo\n") && text.ends_with("-> /dev/null\n"),
            "{text}"
        );
    });
}
