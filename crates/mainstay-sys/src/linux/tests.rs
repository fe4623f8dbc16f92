//! Tests of Linux-specific behavior.

use std::fs;
use std::path::{Path, PathBuf};

use mainstay_core::spec::{Signal, StopScope};

use super::cgroup::Cgroup;
use super::suite::{all, exists, isolated, isolated_with, line};
use crate::process::Containment;

/// Collects the directories of this process's nests in the file system.
fn nest_dirs(root: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().starts_with(name) {
                found.push(entry.path());
            }
            nest_dirs(&entry.path(), name, found);
        }
    }
}

fn nest_dir() -> PathBuf {
    let mut found = Vec::new();
    nest_dirs(
        Path::new("/sys/fs/cgroup"),
        &format!("mainstay-test-{}-", std::process::id()),
        &mut found,
    );
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn subdirs(dir: &Path) -> usize {
    fs::read_dir(dir)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .count()
}

#[test]
fn every_tree_has_a_cgroup_by_either_way_of_birth() {
    isolated(
        "every_tree_has_a_cgroup_by_either_way_of_birth",
        async |rig| {
            if rig.processes.containment() != Containment::Cgroup {
                return eprintln!("skipped: no writable cgroup v2");
            }
            let nest = nest_dir();
            // The second tree gets the directory that the first one left.
            for has_clone3 in [true, false] {
                rig.processes.has_clone3 = has_clone3;
                let (tree, output) = rig
                    .start(&["/bin/cat", "/proc/self/cgroup"], |_| {})
                    .unwrap();
                let text = all(output);
                let own = text
                    .lines()
                    .find_map(|line| line.strip_prefix("0::"))
                    .unwrap();
                assert!(
                    own.ends_with("/orders.0") && nest.join("orders.0").exists(),
                    "{own}"
                );
                rig.until_empty(&tree).await;
                drop(tree);
                rig.processes.reap();
                assert_eq!(subdirs(&nest), 1, "kept for the next run");
            }
            assert!(rig.start(&["/no/such"], |_| {}).is_err());
            rig.processes.reap();
            assert_eq!(subdirs(&nest), 1, "a failed start leaves none");
        },
    );
}

#[test]
fn a_run_has_not_used_what_earlier_runs_in_its_cgroup_used() {
    let name = "a_run_has_not_used_what_earlier_runs_in_its_cgroup_used";
    isolated(name, async |rig| {
        if rig.processes.containment() != Containment::Cgroup {
            return eprintln!("skipped: no writable cgroup v2");
        }
        let busy = |rounds: u32| format!("i=0; while [ $i -lt {rounds} ]; do i=$((i+1)); done");
        let (tree, output) = rig.shell(&busy(600_000));
        all(output);
        rig.until_empty(&tree).await;
        let first = tree.usage().unwrap().cpu;
        drop(tree);
        rig.processes.reap();

        let script = format!("{}; echo done; exec sleep 1000", busy(100_000));
        let (tree, mut output) = rig.shell(&script);
        assert_eq!(line(&mut output), "done");
        let second = tree.usage().unwrap().cpu;
        assert!(
            second > first / 20 && second < first / 2,
            "{first:?} {second:?}"
        );
        // A supervisor that adopts the run does not know of the earlier one.
        let nest = rig.processes.nest.as_ref().unwrap();
        let adopted = Cgroup::adopted(nest, "orders.0", Some(tree.pid())).unwrap();
        let second = adopted.cpu().unwrap();
        assert!(
            second > first / 20 && second < first / 2,
            "{first:?} {second:?}"
        );

        tree.kill().unwrap();
        rig.until_empty(&tree).await;
    });
}

/// The open files of a removed cgroup cannot be read any more.
#[test]
fn a_cgroup_that_was_removed_is_empty() {
    isolated("a_cgroup_that_was_removed_is_empty", async |rig| {
        if rig.processes.containment() != Containment::Cgroup {
            return eprintln!("skipped: no writable cgroup v2");
        }
        let (tree, _output) = rig.start(&["/bin/true"], |_| {}).unwrap();
        while tree.exit().is_none() {
            rig.processes.changed().await;
            rig.processes.reap();
        }
        // The directory is busy until the kernel has released the process.
        let dir = nest_dir().join("orders.0");
        while fs::remove_dir(&dir).is_err() {
            std::thread::yield_now();
        }
        assert!(tree.is_empty());
    });
}

#[test]
fn cgroups_go_with_their_processes() {
    isolated("cgroups_go_with_their_processes", async |rig| {
        if rig.processes.containment() != Containment::Cgroup {
            return eprintln!("skipped: no writable cgroup v2");
        }
        let nest = nest_dir();
        // Dropped while a process lives in it, and with a cgroup of the program's own below.
        let (tree, mut output) = rig.shell("sleep 1000 & echo $!; exec sleep 1000");
        let child = line(&mut output);
        fs::create_dir(nest.join("orders.0/own")).unwrap();
        fs::write(nest.join("orders.0/own/cgroup.procs"), &child).unwrap();
        tree.signal(Signal::Term, StopScope::Tree).unwrap();
        rig.until_empty(&tree).await;
        assert!(!exists(&child), "the signal reaches the cgroup below");
        drop(tree);
        rig.processes.reap();
        assert_eq!(subdirs(&nest), 0);

        let (tree, _output) = rig.shell("exec sleep 1000");
        let pid = tree.pid();
        drop(tree);
        assert!(
            Path::new(&format!("/proc/{pid}")).exists(),
            "drop kills nothing"
        );
        assert_eq!(subdirs(&nest), 1);
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        while subdirs(&nest) > 0 {
            rig.processes.changed().await;
            rig.processes.reap();
        }
    });
}

#[test]
fn stale_nests_are_removed() {
    let made = std::cell::RefCell::new(None);
    let before = || {
        let Ok((dir, _)) = super::cgroup::own_cgroup() else {
            return;
        };
        // The largest pid that Linux can give is 2^22.
        let stale = dir.join("mainstay-test-9999999/orders.0");
        if fs::create_dir_all(&stale).is_ok() {
            *made.borrow_mut() = Some(dir.join("mainstay-test-9999999"));
        }
    };
    isolated_with("stale_nests_are_removed", before, async |rig| {
        super::settle_in(&rig.processes);
        match made.borrow_mut().take() {
            Some(stale) if rig.processes.containment() == Containment::Cgroup => {
                assert!(!stale.exists())
            }
            Some(stale) => {
                fs::remove_dir(stale.join("orders.0")).unwrap();
                fs::remove_dir(stale).unwrap();
            }
            None => eprintln!("skipped: no writable cgroup v2"),
        }
    });
}

/// A process of another account that bears a stolen mark is not a member.
#[test]
fn a_stolen_mark_does_not_count() {
    isolated("a_stolen_mark_does_not_count", async |rig| {
        use crate::User;
        if rig.processes.containment() == Containment::Cgroup
            || !rustix::process::geteuid().is_root()
        {
            return eprintln!("skipped: there are marks without cgroups only, and users for root");
        }
        let user = |name: &str| User::lookup(name).unwrap().unwrap();
        let (victim, mut output) = rig
            .start(
                &["/bin/sh", "-c", "echo $MAINSTAY_INSTANCE; exec sleep 1000"],
                |command| {
                    command.user = Some(user("daemon"));
                },
            )
            .unwrap();
        let mark = line(&mut output);
        let bears = |account: &str| {
            let script = format!(
                "(setsid env -i MAINSTAY_INSTANCE={mark} sh -c 'echo $$; exec sleep 1000' &)"
            );
            (user(account), script)
        };
        let (thief_account, script) = bears("nobody");
        let (thief, mut stolen) = rig
            .start(&["/bin/sh", "-c", &script], |command| {
                command.user = Some(thief_account)
            })
            .unwrap();
        let stranger = line(&mut stolen);
        let (own_account, script) = bears("daemon");
        let (_helper, mut inherited) = rig
            .start(&["/bin/sh", "-c", &script], |command| {
                command.user = Some(own_account)
            })
            .unwrap();
        let own = line(&mut inherited);
        let pid = |text: &str| text.parse::<u32>().unwrap();
        assert!(!victim.members().has(pid(&stranger)));
        assert!(victim.members().has(pid(&own)));
        let members = victim.usage().unwrap().processes;
        assert_eq!(members, 2, "its main process, and the one of its account");
        victim.kill().unwrap();
        rig.until_empty(&victim).await;
        assert!(exists(&stranger) && !exists(&own));
        // The process belongs to no tree and ends with the supervisor.
        while thief.exit().is_none() {
            rig.processes.changed().await;
            rig.processes.reap();
        }
        assert!(thief.is_empty());
        assert_eq!(rig.processes.end_orphans(None), 1);
        assert!(!exists(&stranger));
    });
}

/// Runs in a separate process, because the zone is read from its environment. The rules for Berlin
/// are spelled out, so that no database is needed.
#[test]
fn local_time_knows_summer() {
    const NAME: &str = "linux::tests::local_time_knows_summer";
    const ZONE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
    if std::env::var_os("TZ").is_some_and(|zone| zone == ZONE) {
        for (utc, hours) in [
            (1_774_745_999, 1), // 2026-03-29T00:59:59Z
            (1_774_746_000, 2),
            (1_792_889_999, 2), // 2026-10-25T00:59:59Z
            (1_792_890_000, 1),
            (0, 1),
        ] {
            assert_eq!(crate::utc_offset(utc), hours * 3600, "{utc}");
        }
        return;
    }
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    let status = again.args([NAME, "--exact"]).env("TZ", ZONE).status();
    assert!(status.unwrap().success());
}

/// Only the calling thread yields.
#[test]
fn only_the_thread_that_yields_yields() {
    let policy = || {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields: Vec<_> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        // proc_pid_stat(5): nice is field 19, policy field 41; the state is 3.
        (fields[16].to_owned(), fields[38].to_owned())
    };
    let before = policy();
    let yielding = std::thread::spawn(move || {
        crate::yield_to_others();
        policy()
    });
    let idle = libc::SCHED_IDLE.to_string();
    assert_eq!(yielding.join().unwrap(), ("19".to_owned(), idle));
    assert_eq!(policy(), before);
}
