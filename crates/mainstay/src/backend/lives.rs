//! Tests the scripts of OpenRC and System V init on a real system, with arbitrary programs and with
//! supervisors.

use std::time::Duration;

use mainstay_testkit::lab::Lab;
use mainstay_testkit::wait_until;

use super::golden::site;
use super::{Answer, Backend, Content, Question, openrc::OpenRc, sysv::Sysv};
use crate::{
    Accepts, Account, Definition, Limit, Manager, Readiness, ServiceStatus, State, StopScope,
    service,
};

const SOON: Duration = Duration::from_secs(20);

struct System<'a> {
    lab: Lab,
    backend: &'a dyn Backend,
}

impl System<'_> {
    /// Writes a program and its service.
    fn install(&self, definition: Definition, program: &str) -> String {
        let name = definition.name.clone();
        let path = format!("/opt/{name}");
        let definition = definition.executable(&path).arguments(["x"; 0]);
        let unit = self.backend.unit(&definition, &site()).unwrap();
        let Content::File { text, .. } = &unit.entries[0].content else {
            unreachable!("a unit is a file");
        };
        self.lab.script(&format!(
            "cat > {path} <<'END OF PROGRAM'\n#!/bin/sh\n{program}\nEND OF PROGRAM\n\
             cat > /etc/init.d/{name} <<'END OF UNIT'\n{text}END OF UNIT\nchmod 755 {path} /etc/init.d/{name}\n"
        ));
        name
    }

    fn run(&self, name: &str, verb: &str) -> Option<i32> {
        let script = format!("/etc/init.d/{name}");
        self.lab.run(&[&script, verb]).status.code()
    }

    fn status(&self, name: &str) -> ServiceStatus {
        let answers = self.backend.questions(name, &site()).into_iter();
        let answers = answers.map(|question| {
            let argv = match question {
                Question::Run(argv) => argv,
                Question::Read(path) => vec!["cat".to_owned(), path.display().to_string()],
            };
            let is_read = argv[0] == "cat";
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            let output = self.lab.run(&argv);
            let code = output.status.code().filter(|code| !is_read || *code == 0);
            Answer {
                code,
                output: output.stdout,
            }
        });
        self.backend.status(&answers.collect::<Vec<_>>()).unwrap()
    }

    /// Returns the number of processes whose command line matches.
    fn count(&self, of: &str) -> usize {
        let said = self.lab.script(&format!("pgrep -cfx '{of}' || true"));
        said.trim().parse().unwrap()
    }

    #[track_caller]
    fn pid(&self, name: &str) -> String {
        let pid = self.status(name).pid.expect("it runs");
        pid.to_string()
    }
}

fn direct(name: &str) -> Definition {
    service(name)
        .account(Account::LocalSystem)
        .readiness(Readiness::Exec)
        .graceful(Duration::from_secs(10))
}

fn programs(system: &System<'_>) {
    let lab = &system.lab;
    // The program exits and leaves a child that ignores SIGTERM.
    let tree =
        "sh -c 'trap \"\" TERM; sleep 1001' & trap 'exit 0' TERM; while :; do sleep 0.1; done";
    let name = system.install(direct("tree").limit(Limit::OpenFiles, 99).nice(3), tree);
    assert_eq!(system.run(&name, "start"), Some(0));
    assert_eq!(
        system.run(&name, "start"),
        Some(0),
        "it runs, which is well"
    );
    let pid = system.pid(&name);
    let said = lab.script(&format!(
        "cat /proc/{pid}/limits; cut -d' ' -f19 /proc/{pid}/stat"
    ));
    assert!(said.contains("Max open files            99 "), "{said}");
    assert!(said.ends_with("\n3\n"), "{said}");
    let said = lab.script(&format!(
        "readlink /proc/{pid}/fd/0; cut -d' ' -f6 /proc/{pid}/stat"
    ));
    assert_eq!(said, format!("/dev/null\n{pid}\n"));
    assert_eq!(system.count("sleep 1001"), 1);
    assert_eq!(system.run(&name, "stop"), Some(0));
    assert_eq!(system.count("sleep 1001"), 0);
    assert_eq!(system.status(&name).state, State::Stopped);
    assert_eq!(
        system.run(&name, "stop"),
        Some(0),
        "it is stopped, which is well"
    );

    // The stop signal is another one and goes to the whole tree, and the output is kept.
    let asks = direct("asks")
        .stop_signal("USR1")
        .stop_scope(StopScope::Tree)
        .reload_command(["sh", "-c", "echo \"again $0\" >> /tmp/asks", "it's"])
        .accepts(Accepts::RELOAD);
    let program = "(trap 'echo child >> /tmp/asks; exit' USR1; while :; do sleep 0.1; done) &\n\
                   trap 'wait; echo main >> /tmp/asks; exit' USR1; echo \"it's so\"; while :; do sleep 0.1; done";
    let name = system.install(asks, program);
    assert_eq!(system.run(&name, "start"), Some(0));
    wait_until("its output", SOON, || {
        let said = lab.script("cat /var/log/asks.log 2>/dev/null || true");
        said.contains("it's so").then_some(())
    });
    assert_eq!(system.run(&name, "reload"), Some(0));
    assert_eq!(system.run(&name, "stop"), Some(0));
    let said = lab.script("cat /tmp/asks");
    let mut said: Vec<&str> = said.lines().collect();
    said.sort_unstable();
    assert_eq!(said, ["again it's", "child", "main"]);

    // A shell makes background processes ignore SIGINT. The service must not inherit that.
    let interrupted = direct("interrupted").stop_signal("INT");
    let program =
        "trap 'echo interrupted > /tmp/interrupted; exit' INT; while :; do sleep 0.1; done";
    let name = system.install(interrupted, program);
    assert_eq!(system.run(&name, "start"), Some(0));
    assert_eq!(system.run(&name, "stop"), Some(0));
    assert_eq!(lab.script("cat /tmp/interrupted"), "interrupted\n");

    // The program ignores SIGTERM.
    let name = system.install(
        direct("deaf").graceful(Duration::from_secs(1)),
        "trap '' TERM; while :; do sleep 0.1; done",
    );
    assert_eq!(system.run(&name, "start"), Some(0));
    assert_eq!(system.run(&name, "stop"), Some(0));
    assert_eq!(system.count("/bin/sh /opt/deaf"), 0);

    // The program never becomes ready.
    let unready = direct("unready").ready_check(["sh", "-c", "exit 3"]);
    let name = system.install(unready, "exec sleep 1002");
    assert_ne!(system.run(&name, "start"), Some(0));
    assert_eq!(system.count("sleep 1002"), 0);
    assert_eq!(system.status(&name).state, State::Stopped);

    // The directory does not exist.
    let name = system.install(
        direct("nowhere").working_dir("/no/where"),
        "exec sleep 1003",
    );
    assert_ne!(system.run(&name, "start"), Some(0));
    assert_ne!(system.status(&name).state, State::Running);
}

/// Programs that a supervisor has started survive when it is killed, and the script leaves them
/// alone when it is stopped.
fn supervisors(system: &System<'_>) {
    let restarts = system.backend.manager() == Manager::OpenRc;
    let host = service("host")
        .account(Account::LocalSystem)
        .ready_check(["test", "-e", "/tmp/ready"])
        .supervises();
    let program = "touch /tmp/ready; pgrep -fx 'sleep 1004' || sleep 1004 & trap 'exit 3' TERM; while :; do sleep 0.1; done";
    let name = system.install(
        host,
        &program.replace("sleep 1004 &", "setsid sleep 1004 &"),
    );
    system.lab.script("touch /tmp/ready");
    assert_eq!(system.run(&name, "start"), Some(0));
    let first = system.pid(&name);
    wait_until("its program", SOON, || {
        (system.count("sleep 1004") == 1).then_some(())
    });
    system.lab.script(&format!("kill -KILL {first}"));
    let is_other = |status: ServiceStatus| {
        if restarts {
            status.state == State::Running
                && status.pid.map(|pid| pid.to_string()) != Some(first.clone())
        } else {
            status.state == State::Stopped && status.code != 0
        }
    };
    wait_until("what follows", SOON, || {
        is_other(system.status(&name)).then_some(())
    });
    assert_eq!(system.count("sleep 1004"), 1);
    if !restarts {
        assert_eq!(system.run(&name, "status"), Some(1));
        assert_eq!(system.run(&name, "start"), Some(0));
    }
    assert_eq!(system.run(&name, "restart"), Some(0));
    assert_eq!(system.status(&name).state, State::Running);
    assert_eq!(system.count("sleep 1004"), 1);
    assert_eq!(system.run(&name, "stop"), Some(0));
    assert_eq!(system.count("/bin/sh /opt/host"), 0);
    assert_eq!(system.count("sleep 1004"), 1);
}

fn life(backend: &dyn Backend) {
    match Lab::up(backend.manager().name(), &[]) {
        Ok(lab) => {
            let system = System { lab, backend };
            programs(&system);
            supervisors(&system);
        }
        Err(why) => mainstay_testkit::skip(why),
    }
}

#[test]
fn under_openrc() {
    life(&OpenRc);
}

#[test]
fn under_sysv() {
    life(&Sysv);
}

/// A PID in a file does not identify a process with another start time or from another boot. The
/// exit codes are those of the LSB.
#[test]
fn a_number_is_no_process_under_sysv() {
    let lab = match Lab::up("sysv", &[]) {
        Ok(lab) => lab,
        Err(why) => return mainstay_testkit::skip(why),
    };
    let system = System {
        lab,
        backend: &Sysv,
    };
    let name = system.install(direct("orders"), "exec sleep 1005");
    assert_eq!(system.run(&name, "status"), Some(3));
    assert_eq!(system.run(&name, "nonsense"), Some(2));
    assert_eq!(system.run(&name, "reload"), Some(3));
    assert_eq!(system.run(&name, "try-restart"), Some(0));
    assert_eq!(system.run(&name, "start"), Some(0));
    let pid = system.pid(&name);
    assert_eq!(system.run(&name, "try-restart"), Some(0));
    assert_ne!(system.pid(&name), pid);
    let nobody = [
        "runuser",
        "-u",
        "nobody",
        "--",
        "/etc/init.d/orders",
        "stop",
    ];
    system.lab.check(4, &nobody);
    assert_eq!(system.run(&name, "status"), Some(0));
    system.lab.script("cp /run/orders.pid /tmp/pid");
    for lie in ["s/ [0-9]* \\([0-9]* [0-9]* 18446\\)/ 1 \\1/", "3s/^./-/"] {
        system.lab.script(&format!(
            "sed '{lie}' /tmp/pid > /run/orders.pid; ! cmp -s /tmp/pid /run/orders.pid"
        ));
        assert_eq!(system.run(&name, "status"), Some(1), "{lie}");
        assert_eq!(system.run(&name, "stop"), Some(0));
        assert_eq!(system.count("sleep 1005"), 1, "{lie}");
    }
    system.lab.script("cp /tmp/pid /run/orders.pid");
    assert_eq!(system.run(&name, "status"), Some(0));
    system.lab.script("chmod 644 /opt/orders");
    assert_eq!(system.run(&name, "stop"), Some(0));
    assert_eq!(system.run(&name, "start"), Some(5));
}

/// Any account that can open a file for reading can hold a lock on it forever.
#[test]
fn nobody_else_can_hold_the_lock_of_a_script_under_sysv() {
    let lab = match Lab::up("sysv", &[]) {
        Ok(lab) => lab,
        Err(why) => return mainstay_testkit::skip(why),
    };
    let system = System {
        lab,
        backend: &Sysv,
    };
    let name = system.install(direct("orders"), "exec sleep 1006");
    assert_eq!(system.run(&name, "start"), Some(0));
    // Another account locks every file of the service that it can open: the script, the program and
    // the pid file.
    let held = system.lab.script(
        "for file in /etc/init.d/orders /opt/orders /run/orders*; do\n\
         runuser -u nobody -- sh -c 'exec 9< \"$1\" && flock 9 && { sleep 1007 < /dev/null > /dev/null 2>&1 & }' sh $file || true\n\
         done\n\
         pgrep -fxc 'sleep 1007'",
    );
    assert_eq!(held, "3\n");
    let script = format!("/etc/init.d/{name}");
    for verb in ["restart", "stop", "start"] {
        system.lab.check(0, &["timeout", "20", &script, verb]);
    }
}

#[test]
fn its_output_goes_to_syslog_under_sysv() {
    let lab = match Lab::up("sysv", &[]) {
        Ok(lab) => lab,
        Err(why) => return mainstay_testkit::skip(why),
    };
    // A system log that writes one line per message.
    lab.script(
        "cat > /opt/syslog.pl <<'END'\n\
         use Socket; socket(my $s, AF_UNIX, SOCK_DGRAM, 0); bind($s, sockaddr_un('/dev/log')) or die;\n\
         open(my $f, '>>', '/tmp/syslog'); $f->autoflush(1);\n\
         while (defined(recv($s, my $m, 8192, 0))) { print $f \"$m\\n\" }\n\
         END\n\
         setsid -f perl -MIO::Handle /opt/syslog.pl < /dev/null > /dev/null 2>&1\n\
         until [ -S /dev/log ]; do sleep 0.05; done",
    );
    let system = System {
        lab,
        backend: &Sysv,
    };
    let program = "echo 'to be kept'; echo 'as is this' >&2; trap 'echo last; exit' TERM; while :; do sleep 0.1; done";
    let name = system.install(direct("talks"), program);
    assert_eq!(system.run(&name, "start"), Some(0));
    assert_eq!(system.run(&name, "stop"), Some(0));
    for text in ["to be kept", "as is this", "last"] {
        wait_until("its output", SOON, || {
            let said = system.lab.script("cat /tmp/syslog 2>/dev/null || true");
            let line = said.lines().find(|line| line.ends_with(text))?;
            line.contains("talks: ").then_some(())
        });
    }
    wait_until("the end of its logger", SOON, || {
        (system.count("logger -t talks.*") == 0).then_some(())
    });
    system.lab.check(
        2,
        &[
            "sh",
            "-c",
            "ls /run/talks.pid /run/talks.pid.log /var/log/talks.log",
        ],
    );
}
