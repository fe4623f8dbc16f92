//! Nothing that services, clients or other programs do stops the supervisor, or keeps it from
//! answering.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use mainstay_testkit::procs;
use rustix::process::Signal;

use super::*;

/// Starts `mainstay daemon` and waits until it answers.
fn daemon(sandbox: &Sandbox) -> Supervisor {
    let mut command = sandbox.command(mainstay());
    command.args(["daemon", "--json"]);
    let supervisor = Supervisor::spawn(command);
    wait_until("a daemon that answers", SOON, || {
        verb(sandbox, &["list"]).status.success().then_some(())
    });
    supervisor
}

/// Runs a verb that must succeed.
#[track_caller]
fn ok(sandbox: &Sandbox, args: &[&str]) {
    let output = verb(sandbox, args);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {complaint}");
}

/// Waits until this file exists.
#[track_caller]
fn wait_for_file(sandbox: &Sandbox, name: &str) {
    let path = sandbox.path().join(name);
    wait_until(name, SOON, || path.exists().then_some(()));
}

/// Returns the names of the supervisor's threads.
fn threads(supervisor: &Supervisor) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", supervisor.id())).expect("it runs");
    let names = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}

/// A service can be removed while an operation for it is in progress. The late result affects
/// nothing, not even the service that is installed next.
#[test]
fn what_is_under_way_for_a_removed_service_ends_without_a_trace() {
    const BEGUN: &str = r#"["sh", "-c", "touch HERE/NAME.begun; exec sleep 1000"]"#;
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", server.local_addr().expect("an address"));
    let hang = r#"command = ["PUPPET", "hang"]"#;
    let fail = "command = [\"PUPPET\", \"exit\", \"3\"]\nrecovery = { policy = \"never\" }";
    let late = r#"timeout = "1h", ready ="#;
    let kinds = [
        (
            "thaw",
            hang,
            format!(
                "snapshot = {{ paths = [\"HERE/data\"], quiesce = [\"true\"], thaw = {BEGUN} }}"
            ),
        ),
        (
            "quiesce",
            hang,
            format!(
                "snapshot = {{ paths = [\"HERE/data\"], quiesce = {BEGUN}, thaw = [\"true\"] }}"
            ),
        ),
        (
            "copy",
            hang,
            "snapshot = { paths = [\"HERE/data\"] }".to_owned(),
        ),
        ("reload", hang, format!("reload = {{ exec = {BEGUN} }}")),
        (
            "probe",
            hang,
            format!("start = {{ {late} {{ exec = {BEGUN} }} }}"),
        ),
        (
            "request",
            hang,
            format!("start = {{ {late} {{ http = \"{url}\" }} }}"),
        ),
        (
            "condition",
            hang,
            format!("wait_for = [{{ exec = {BEGUN}, deadline = \"1h\" }}]"),
        ),
        ("alert", fail, format!("on_alert = {BEGUN}")),
        (
            "webhook",
            fail,
            format!("on_alert = {{ webhook = {{ url = \"{url}\", secret_file = \"HERE/key\" }} }}"),
        ),
    ];
    let mut services = format!("[service.neighbour]\n{hang}\n");
    for (name, command, more) in &kinds {
        services += &format!(
            "[service.{name}]\n{command}\n{}\n",
            more.replace("NAME", name)
        );
    }
    services += &format!("[service.update]\n{hang}\n");
    let (sandbox, manifest) = sandbox(&services);
    let key = sandbox.write("key", "whsec_dGhpcnR5LXR3byBieXRlcyB0aGF0IGFyZSBzZWNyZXQ=");
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    fs::create_dir(sandbox.path().join("data")).expect("a directory");
    let supervisor = daemon(&sandbox);
    let install = [
        "install",
        "--manager",
        "embedded",
        &manifest.display().to_string(),
    ];
    ok(&sandbox, &install);
    ok(&sandbox, &["start", "neighbour"]);
    let neighbour = || {
        let entry = service(&sandbox, "neighbour");
        (entry["pid"].clone(), entry["since"].clone())
    };
    let before = neighbour();

    for (name, ..) in kinds {
        let mut clients = Vec::new();
        let mut client = |verb: &[&str]| {
            let mut command = sandbox.command(mainstay());
            clients.push(command.args(verb).spawn().expect("mainstay runs"));
        };
        let mut copying = None;
        match name {
            "copy" => {
                ok(&sandbox, &["start", name]);
                // Simulates another copy in progress.
                let dir = sandbox.state_dir().join("snapshots/copy");
                fs::create_dir_all(&dir).expect("a directory");
                // A lock file that others can open would be replaced.
                let mut options = fs::File::options();
                options.write(true).create(true).truncate(false).mode(0o600);
                let lock = options.open(dir.join("lock")).expect("a lock");
                lock.lock().expect("nobody else has it");
                copying = Some(lock);
                client(&["snapshot", "create", name]);
                wait_until("its copy is under way", SOON, || {
                    let name = "mainstay-snapshot".get(..15);
                    threads(&supervisor)
                        .iter()
                        .any(|it| Some(&**it) == name)
                        .then_some(())
                });
            }
            "thaw" | "quiesce" => {
                ok(&sandbox, &["start", name]);
                client(&["snapshot", "create", name]);
            }
            "reload" => {
                ok(&sandbox, &["start", name]);
                ok(&sandbox, &["reload", name]);
            }
            _ => client(&["start", name]),
        }
        let held = match name {
            "copy" => None,
            "request" | "webhook" => Some(server.accept().expect("a request")),
            _ => {
                wait_for_file(&sandbox, &format!("{name}.begun"));
                None
            }
        };
        ok(&sandbox, &["uninstall", name]);
        drop((held, copying));
        for mut client in clients {
            client.wait().expect("it ends");
        }
        wait_until("nothing is under way any more", SOON, || {
            let helpers = sandbox.processes().into_iter();
            let mut helpers = helpers.filter(|pid| procs::is_named(*pid, "sleep"));
            helpers.next().is_none().then_some(())
        });
        assert_eq!(neighbour(), before, "{name}");
    }
    let _ = fs::remove_dir_all(sandbox.path().join("data"));
    ok(&sandbox, &install);
    assert_eq!(neighbour(), before);

    // An update in progress is ended first.
    let text = fs::read_to_string(&manifest).expect("a manifest");
    let update = sandbox.write("update.toml", &(text + "env = { CHANGED = \"yes\" }\n"));
    let update = update.display().to_string();
    let mut client = sandbox.command(mainstay());
    client.args(["update", &update, "update", "--canary", "1h"]);
    ok(&sandbox, &["start", "update"]);
    let mut client = client.spawn().expect("mainstay runs");
    wait_until("the new definition is tried", SOON, || {
        let phase = service(&sandbox, "update")["update"]["phase"].clone();
        (phase == "canary").then_some(())
    });
    assert!(!verb(&sandbox, &["uninstall", "update"]).status.success());
    ok(&sandbox, &["stop", "update"]);
    assert!(!client.wait().expect("it ends").success());
    ok(&sandbox, &["uninstall", "update"]);
    assert_eq!(neighbour(), before);
    ok(&sandbox, &["stop"]);
    stop(supervisor, &sandbox);
}

/// Starts a process whose standard output is a pipe that nobody reads.
fn unread(sandbox: &Sandbox, args: &[&str]) -> (std::process::Child, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let stderr = writer.try_clone().expect("a descriptor");
    let mut command = sandbox.command(mainstay());
    command.args(args).stdin(std::process::Stdio::null());
    let child = command.stdout(writer).stderr(stderr).spawn();
    (child.expect("mainstay runs"), reader)
}

/// Fills the pipe: the next write to it blocks.
fn fill(child: &std::process::Child) {
    let path = format!("/proc/{}/fd/1", child.id());
    let pipe = fs::File::options()
        .write(true)
        .open(path)
        .expect("its standard output");
    rustix::io::ioctl_fionbio(&pipe, true).expect("a description of its own");
    while std::io::Write::write(&mut &pipe, &[b' '; 4096]).is_ok() {}
    while std::io::Write::write(&mut &pipe, b" ").is_ok() {}
}

/// A supervisor does not wait for its output to be read: verbs and signals work while nobody reads
/// it.
#[test]
fn nobody_has_to_read_what_a_supervisor_shows() {
    let chatter = "[service.chatter]\ncommand = [\"sh\", \"-c\", \"yes\"]\nlog = { rotate = \"1MB\", keep = 1 }\n";
    let quiet = "[service.quiet]\ncommand = [\"PUPPET\", \"hang\"]\n";
    for (args, services) in [
        (&["run", "--follow"][..], format!("{chatter}{quiet}")),
        (&["run"], quiet.to_owned()),
        (&["run", "--json"], quiet.to_owned()),
        (&["daemon"], quiet.to_owned()),
    ] {
        let (sandbox, manifest) = sandbox(&services);
        let manifest = manifest.display().to_string();
        let mut args = args.to_vec();
        if args[0] == "daemon" {
            ok(&sandbox, &["install", "--manager", "embedded", &manifest]);
        } else {
            args.push(&manifest);
        }
        let (mut child, reader) = unread(&sandbox, &args);
        wait_until("it is up", SOON, || {
            let output = verb(&sandbox, &["status", "quiet"]);
            output.status.success().then_some(())
        });
        fill(&child);
        // More lines than a pipe holds, one at a time.
        for _ in 0..20 {
            ok(&sandbox, &["restart", "quiet"]);
        }
        assert_eq!(service(&sandbox, "quiet")["state"], "running", "{args:?}");
        // When the output is read again, it reports the missed lines.
        if args.contains(&"--follow") {
            let (told, missed) = std::sync::mpsc::channel();
            let look = std::thread::spawn(move || {
                let lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
                for line in lines.map_while(Result::ok) {
                    if line.contains("lines not shown") {
                        let _ = told.send(line);
                    }
                }
            });
            let line = missed.recv_timeout(SOON).expect("lines were missed");
            assert!(line.starts_with("mainstay: "), "{line}");
            signal(&child, Signal::TERM);
            child.wait().expect("it ends");
            look.join().expect("a reader");
        } else {
            signal(&child, Signal::TERM);
            let status = wait_until("it ends", SOON, || child.try_wait().expect("a child"));
            assert!(status.success(), "{args:?}: {status:?}");
        }
        sandbox.assert_no_leftovers();
    }
}

fn signal(child: &std::process::Child, signal: Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("it is not reaped yet");
}

/// A stopped supervisor (SIGSTOP) answers no request. Each verb reports that within its timeout,
/// and its request is not executed later.
#[test]
fn a_supervisor_that_does_not_respond_is_named() {
    let (supervisor, sandbox) = supervise("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
    event(&supervisor, "a", "started");
    let before = service(&sandbox, "a");
    supervisor.signal(Signal::STOP);
    let verbs = [
        &["status"][..],
        &["list", "--json"],
        &["stop", "a"],
        &["stop"],
        &["restart", "a"],
        &["pause", "a"],
        &["reload", "a"],
        &["events", "-f"],
        &["logs", "rotate", "a"],
    ];
    let clients = verbs.map(|args| {
        let mut command = sandbox.command(mainstay());
        command.args(args).stderr(std::process::Stdio::piped());
        (args, command.spawn().expect("mainstay runs"))
    });
    for (args, client) in clients {
        let output = client.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        let pid = supervisor.id();
        assert_eq!(code(output.status), 75, "{args:?}: {said}");
        let hint = format!("kill -CONT {pid}");
        assert!(
            said.contains("does not respond") && said.contains(&hint),
            "{args:?}: {said}"
        );
    }
    supervisor.signal(Signal::CONT);
    // When this request is answered, all earlier input has been read.
    let after = wait_until("it answers again", SOON, || {
        let output = verb(&sandbox, &["list", "--json"]);
        output.status.success().then(|| service(&sandbox, "a"))
    });
    assert_eq!(
        (&after["pid"], &after["state"]),
        (&before["pid"], &before["state"])
    );
    assert_eq!(order(&supervisor, "stopping"), [""; 0]);
    stop(supervisor, &sandbox);
}

/// A process that listens on a service's address and does not accept delays that service only.
#[test]
fn a_full_queue_of_connections_delays_nobody() {
    let (sandbox, manifest) = sandbox(
        "[service.a]\ncommand = [\"PUPPET\", \"hang\"]\nlisten = [\"HERE/a.sock\"]\n\
         [service.b]\ncommand = [\"PUPPET\", \"hang\"]\n",
    );
    let path = sandbox.path().join("a.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let address = rustix::net::SocketAddrUnix::new(&path).expect("a short path");
    let mut waiting = Vec::new();
    // Connects until the kernel reports that the queue is full.
    loop {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            None,
        );
        let socket = socket.expect("a socket");
        rustix::io::ioctl_fionbio(&socket, true).expect("a socket");
        if rustix::net::connect(&socket, &address).is_err() {
            break;
        }
        waiting.push(socket);
    }
    let supervisor = Supervisor::start(&sandbox, &manifest);
    let failed = supervisor.wait_event(SOON, |event| {
        event["service"] == "a" && event["event"] == "failed"
    });
    let why = failed["message"].as_str().unwrap_or_default();
    assert!(why.contains("another process listens there"), "{why}");
    assert_eq!(service(&sandbox, "b")["state"], "running");
    assert!(path.exists(), "it is somebody's");
    drop(waiting);
    let mut supervisor = supervisor;
    supervisor.ctrl_c();
    supervisor.wait(SOON);
}

/// The parent of the supervisor may have blocked signals, or may ignore SIGCHLD.
#[test]
fn a_signal_mask_is_not_inherited() {
    let (sandbox, manifest) = sandbox(
        "[service.ends]\ncommand = [\"PUPPET\", \"exit\", \"0\"]\n\
         [service.stays]\ncommand = [\"PUPPET\", \"hang\"]\n",
    );
    let mut command = sandbox.command(mainstay());
    command.args(["run", "--json"]).arg(manifest);
    procs::block_signals(&mut command);
    let mut supervisor = Supervisor::spawn(command);
    event(&supervisor, "ends", "stopped");
    supervisor.ctrl_c();
    assert!(supervisor.wait(SOON).success());
}

/// Returns a socket whose last close takes half a minute, because its peer does not read.
fn lingering() -> (std::net::TcpStream, std::net::TcpStream) {
    use std::io::Write as _;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut socket = std::net::TcpStream::connect(address).expect("a connection");
    let (peer, _) = listener.accept().expect("a connection");
    socket.set_nonblocking(true).expect("a socket");
    while socket.write(&[0; 65536]).is_ok() {}
    let linger = Some(Duration::from_secs(30));
    rustix::net::sockopt::set_socket_linger(&socket, linger).expect("a socket");
    (socket, peer)
}

/// Sends a message with a descriptor, of which the receiver then has the only copy.
fn send_descriptor(
    socket: &impl std::os::fd::AsFd,
    to: Option<&rustix::net::SocketAddrUnix>,
    sent: std::net::TcpStream,
) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [std::os::fd::AsFd::as_fd(&sent)];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let message = [std::io::IoSlice::new(b"STATUS=lingers")];
    let flags = SendFlags::empty();
    match to {
        Some(address) => {
            rustix::net::sendmsg_addr(socket, address, &message, &mut ancillary, flags)
        }
        None => rustix::net::sendmsg(socket, &message, &mut ancillary, flags),
    }
    .expect("sent");
}

/// The sender of a message to a Unix socket controls how long the close of its descriptors takes.
/// That must not block the event loop.
#[test]
fn a_descriptor_that_lingers_delays_nobody() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{UnixDatagram, UnixStream};
    let (sandbox, manifest) = sandbox(
        r#"
        [service.notifies]
        command = ["PUPPET", "await", "HERE/go", "notify", "READY=1", "hang"]
        start = { ready = { notify = true } }
        [service.listens]
        command = ["PUPPET", "hang"]
        listen = ["HERE/listens.sock"]
        "#,
    );
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    let pid = event(&supervisor, "notifies", "started")["pid"].as_u64();
    let address = notification_socket(pid.expect("a pid"));
    let address = match address.as_abstract_name() {
        Some(name) => rustix::net::SocketAddrUnix::new_abstract_name(name),
        None => rustix::net::SocketAddrUnix::new(address.as_pathname().expect("a file")),
    };
    let address = address.expect("an address");
    event(&supervisor, "listens", "started");
    let outside = UnixDatagram::unbound().expect("a socket");

    // The supervisor receives the descriptor from the datagram queue.
    let (socket, peer) = lingering();
    send_descriptor(&outside, Some(&address), socket);
    assert_eq!(service(&sandbox, "notifies")["state"], "start-pending");
    // The descriptor is in the queue of a connection that is never accepted, and its listener is
    // closed.
    let (socket, other_peer) = lingering();
    let connection = UnixStream::connect(sandbox.path().join("listens.sock")).expect("a listener");
    send_descriptor(&connection, None, socket);
    drop(connection);
    ok(&sandbox, &["stop", "listens"]);
    assert_eq!(service(&sandbox, "listens")["state"], "stopped");

    // Later messages are not lost.
    drop(peer);
    fs::write(sandbox.path().join("go"), "").expect("written");
    event(&supervisor, "notifies", "ready");
    // The descriptors are in the datagram queue when the socket is closed.
    let (first, _peer) = lingering();
    let (second, _other) = lingering();
    send_descriptor(&outside, Some(&address), first);
    send_descriptor(&outside, Some(&address), second);
    ok(&sandbox, &["stop", "notifies"]);
    assert_eq!(service(&sandbox, "notifies")["state"], "stopped");
    supervisor.ctrl_c();
    assert!(supervisor.wait(SOON).success());
    drop(other_peer);
}

/// Returns the duration of `mainstay list`.
#[track_caller]
fn time_to_answer(sandbox: &Sandbox) -> Duration {
    let began = std::time::Instant::now();
    ok(sandbox, &["list"]);
    began.elapsed()
}

/// A name server that never answers delays the services that look up names, but no other service,
/// and not the end of the supervisor.
#[test]
fn names_are_looked_up_beside_the_loop() {
    let (sandbox, manifest) = sandbox(
        "[service.slow]\ncommand = [\"PUPPET\", \"hang\"]\n\
         start = { timeout = \"1h\", ready = { tcp = \"slow.example.org:1234\" } }\n\
         [service.waits]\ncommand = [\"PUPPET\", \"hang\"]\n\
         wait_for = [{ http = \"http://slow.example.org/\", deadline = \"1h\" }]\n\
         [service.b]\ncommand = [\"PUPPET\", \"hang\"]\n",
    );
    let resolver = std::net::UdpSocket::bind("127.77.0.1:53");
    let text = "nameserver 127.77.0.1\noptions timeout:10 attempts:2\n";
    let config = sandbox.write("resolv.conf", text);
    let mut command = sandbox.command("unshare");
    let script = "mount --bind \"$0\" /etc/resolv.conf || exit 99; exec \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(&config);
    command
        .arg(mainstay())
        .args(["run", "--json"])
        .arg(&manifest);
    let (true, Ok(_resolver)) = (rustix::process::geteuid().is_root(), resolver) else {
        return mainstay_testkit::skip("needs root, port 53 and a mount namespace");
    };
    let mut supervisor = Supervisor::spawn(command);
    event(&supervisor, "slow", "started");
    for _ in 0..2 {
        let mut restart = sandbox.command(mainstay());
        let restart = restart.args(["restart", "slow"]).spawn();
        let mut restart = restart.expect("mainstay runs");
        wait_until("it is started again", SOON, || {
            let took = time_to_answer(&sandbox);
            assert!(took < Duration::from_secs(5), "it answered after {took:?}");
            let state = service(&sandbox, "slow")["state"].clone();
            (state == "start-pending").then_some(())
        });
        let _ = restart.kill();
        let _ = restart.wait();
    }
    assert_eq!(service(&sandbox, "b")["state"], "running");
    let began = std::time::Instant::now();
    supervisor.ctrl_c();
    assert!(supervisor.wait(SOON).success());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "it ended after {took:?}");
    sandbox.assert_no_leftovers();
}

/// No signals except those for termination end a supervisor. Services get the default signal
/// handling.
#[test]
fn signals_that_mean_nothing_to_a_supervisor_are_ignored() {
    let services = "[service.a]\ncommand = [\"PUPPET\", \"print\", \"one\", \"hang\"]\n";
    let (supervisor, sandbox) = supervise(services);
    event(&supervisor, "a", "started");
    wait_until("its line is in the log", SOON, || {
        let log = verb(&sandbox, &["logs", "a"]).stdout;
        (!log.is_empty()).then_some(())
    });
    let before = service(&sandbox, "a");
    let names = [
        "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "XCPU", "XFSZ", "PIPE", "TTIN", "TTOU",
        "RTMIN", "RTMAX", "USR1", "USR2",
    ];
    for name in names {
        let mut kill = std::process::Command::new("bash");
        kill.args(["-c", &format!("kill -{name} {}", supervisor.id())]);
        assert!(kill.status().expect("bash runs").success(), "{name}");
        let after = service(&sandbox, "a");
        assert_eq!(after["pid"], before["pid"], "after SIG{name}");
    }
    let logs = sandbox.state_dir().join("logs/a");
    wait_until("USR1 has rotated its log", SOON, || {
        let files = fs::read_dir(&logs).expect("its logs").flatten();
        let rotated = |file: &fs::DirEntry| {
            let name = file.file_name().to_string_lossy().into_owned();
            name.contains(".log") && name != "current.log"
        };
        files.into_iter().any(|file| rotated(&file)).then_some(())
    });
    supervisor.wait_event(SOON, |event| {
        let message = event["message"].as_str().unwrap_or_default();
        event["event"] == "notice" && message.starts_with("a ") && message.contains("running")
    });
    let status = format!("/proc/{}/status", before["pid"]);
    let status = fs::read_to_string(status).expect("it runs");
    assert!(status.contains("SigIgn:\t0000000000000000"), "{status}");
    stop(supervisor, &sandbox);
}

/// However many status messages a service sends, the last one counts, and neither its supervisor
/// nor other services are affected.
#[test]
fn a_flood_of_statuses_is_the_last_one_of_each_second() {
    const SCRIPT: &str = r#"
import os, socket, time
address = os.environ["NOTIFY_SOCKET"]
link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
link.connect("\0" + address[1:] if address[0] == "@" else address)
link.send(b"READY=1")
message = b"STATUS=busy\n" * 50
for _ in range(20000):
    link.send(message)
link.send(b"STATUS=the last")
time.sleep(1000)
"#;
    if std::process::Command::new("python3")
        .arg("-V")
        .output()
        .is_err()
    {
        return mainstay_testkit::skip("python3 is missing");
    }
    let (sandbox, manifest) = sandbox(
        "[service.noisy]\ncommand = [\"python3\", \"HERE/noisy.py\"]\nstart = { ready = { notify = true } }\n\
         [service.quiet]\ncommand = [\"PUPPET\", \"hang\"]\n",
    );
    sandbox.write("noisy.py", SCRIPT);
    let began = std::time::Instant::now();
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "noisy", "ready");
    let pid = rustix::process::Pid::from_raw(supervisor.id().cast_signed()).expect("a pid");
    let detail = || service(&sandbox, "noisy")["detail"].clone();
    wait_until("the last status is shown", 3 * SOON, || {
        let took = time_to_answer(&sandbox);
        assert!(took < Duration::from_secs(5), "it answered after {took:?}");
        (detail() == "the last").then_some(())
    });
    let told = events(&supervisor, "noisy", "status", 1).len();
    let seconds = began.elapsed().as_secs() as usize;
    assert!(told <= seconds + 2, "{told} statuses in {seconds} s");
    let peak = procs::field(pid, "status", "VmHWM").expect("it runs");
    assert!(peak < 64 << 10, "{peak} KiB");
    stop(supervisor, &sandbox);
}

/// Clients that do not finish their requests use up neither the supervisor's descriptors nor, for
/// long, its memory.
#[test]
fn half_requests_take_nothing_from_services() {
    let (sandbox, manifest) = sandbox(
        "[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n\
         liveness = { exec = [\"true\"], every = \"50ms\", misses = 1 }\n",
    );
    let mut command = sandbox.command("bash");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "bash"]);
    command
        .arg(mainstay())
        .args(["run", "--json"])
        .arg(&manifest);
    let supervisor = Supervisor::spawn(command);
    event(&supervisor, "a", "started");
    let pid = rustix::process::Pid::from_raw(supervisor.id().cast_signed()).expect("a pid");
    let memory = || procs::field(pid, "status", "VmRSS").expect("it runs");
    let before = memory();
    let socket = sandbox.state_dir().join("control.sock");
    let mut hanging = Vec::new();
    for i in 0..2_000 {
        let Ok(mut stream) = std::os::unix::net::UnixStream::connect(&socket) else {
            continue;
        };
        let body = [b'x'; 4096];
        let _ = std::io::Write::write_all(
            &mut stream,
            b"POST /v1/services/a/update HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n",
        );
        let _ = std::io::Write::write_all(&mut stream, &body);
        if i % 20 == 0 {
            hanging.push(stream);
        }
        if i % 500 == 0 {
            ok(&sandbox, &["list"]);
        }
    }
    for _ in 0..3 {
        ok(&sandbox, &["restart", "a"]);
    }
    drop(hanging);
    wait_until("its memory is given back", SOON, || {
        (memory() < before + (8 << 10)).then_some(())
    });
    assert_eq!(service(&sandbox, "a")["state"], "running");
    let events = supervisor.events();
    let is_bad = |event: &&Value| event["event"] == "missed" || event["event"] == "failed";
    assert_eq!(events.iter().find(is_bad), None);
    stop(supervisor, &sandbox);
}

/// Ctrl-S stops the output on the terminal, and nothing else.
#[test]
fn a_stopped_terminal_stops_nothing() {
    let services = "[service.chatter]\ncommand = [\"sh\", \"-c\", \"yes\"]\nlog = { rotate = \"1MB\", keep = 1 }\n\
         [service.a]\ncommand = [\"PUPPET\", \"hang\"]\n";
    for more in [&[][..], &["--follow"]] {
        let (sandbox, manifest) = sandbox(services);
        let mut command = sandbox.command(mainstay());
        command.arg("run").arg(&manifest).args(more);
        let terminal = mainstay_testkit::Terminal::start(command);
        let supervisor = wait_until("a supervisor that answers", SOON, || {
            let output = verb(&sandbox, &["status", "a"]);
            let mut processes = sandbox.processes().into_iter();
            let supervisor = processes.find(|pid| procs::is_named(*pid, "mainstay"));
            supervisor.filter(|_| output.status.success())
        });
        // Does what the line discipline does on Ctrl-S.
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let mode = rustix::fs::Mode::empty();
        let tty = rustix::fs::open(procs::path(supervisor, "fd/1"), flags, mode);
        let tty = tty.expect("its terminal");
        rustix::termios::tcflow(&tty, rustix::termios::Action::OOff).expect("a terminal");
        for _ in 0..5 {
            ok(&sandbox, &["restart", "a"]);
        }
        let took = time_to_answer(&sandbox);
        assert!(took < Duration::from_secs(5), "it answered after {took:?}");
        rustix::process::kill_process(supervisor, Signal::TERM).expect("it runs");
        wait_until("it ends", SOON, || {
            (!procs::alive(supervisor)).then_some(())
        });
        drop(tty);
        let (status, _) = terminal.finish();
        assert!(status.success(), "{status:?}");
        sandbox.assert_no_leftovers();
    }
}

/// A process that locks the registry delays neither the supervisor nor, for long, a verb, and is
/// named in the error.
#[test]
fn a_locked_registry_delays_only_who_needs_it() {
    use std::io::{Read as _, Write as _};
    const SERVICE: &str = "[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n";
    let (sandbox, manifest) = sandbox(SERVICE);
    let manifest = manifest.display().to_string();
    let supervisor = daemon(&sandbox);
    ok(&sandbox, &["install", "--manager", "embedded", &manifest]);
    let registry = sandbox.state_dir().join("registry.db");
    let holder = rusqlite::Connection::open(registry).expect("it is there");
    let lock = "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE;";
    holder.execute_batch(lock).expect("nobody else is at it");

    let socket = sandbox.state_dir().join("control.sock");
    let send = |what: &str| {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("it listens");
        write!(stream, "{what} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        stream
    };
    let receive = |mut stream: std::os::unix::net::UnixStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    };
    let changes = ["PUT /v1/services/a", "DELETE /v1/services/a"].map(send);
    // This request is read after them.
    assert!(receive(send("GET /v1/services/a")).starts_with("HTTP/1.1 200"));
    for mut change in &changes {
        change.set_nonblocking(true).expect("a socket");
        let early = change.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(early, Err(std::io::ErrorKind::WouldBlock), "it waits");
        change.set_nonblocking(false).expect("a socket");
    }
    for change in changes {
        let answer = receive(change);
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("locked"), "{answer}");
    }

    let begun = std::time::Instant::now();
    let verbs = [
        &["uninstall", "a"][..],
        &["update", &manifest],
        &["history", "a"],
    ];
    let clients = verbs.map(|args| {
        let mut command = sandbox.command(mainstay());
        command.args(args);
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::piped());
        (args, command.spawn().expect("mainstay runs"))
    });
    let holder_pid = format!("process {} ", std::process::id());
    for (args, client) in clients {
        let output = client.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(output.status), 75, "{args:?}: {said}");
        assert!(said.contains(&holder_pid), "{args:?}: {said}");
    }
    // The changes run one after the other, because they modify the same installation.
    assert!(begun.elapsed() < std::time::Duration::from_secs(29));
    drop(holder);
    ok(&sandbox, &["uninstall", "a"]);
    stop(supervisor, &sandbox);
}

/// Waits until the supervisor is suspended.
#[track_caller]
fn wait_until_suspended(supervisor: &Supervisor) {
    wait_until("a suspended supervisor", SOON, || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", supervisor.id())).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.starts_with('T').then_some(())
    });
}

/// A time limit of the service that expires while the supervisor is suspended.
const LIMIT: Duration = Duration::from_secs(2);

/// Actions of services count as timely if the supervisor was suspended at that time. A probe whose
/// answer was not received is repeated.
#[test]
fn a_suspension_of_the_supervisor_counts_against_no_service() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    let (holds, (keep, held)) = (Arc::new(AtomicBool::new(false)), mpsc::channel());
    let is_to_hold = Arc::clone(&holds);
    std::thread::spawn(move || answer(&server, &is_to_hold, &keep));
    // The last service to start suspends the supervisor; another one does so when it is asked to
    // stop.
    let (supervisor, sandbox) = supervise(&format!(
        r#"
[service.file]
command = ["PUPPET", "await", "HERE/go", "touch", "HERE/file", "hang"]
start = {{ timeout = "2s", ready = {{ file = "HERE/file" }} }}

[service.line]
command = ["PUPPET", "await", "HERE/go", "print", "up", "touch", "HERE/line", "hang"]
start = {{ timeout = "2s", ready = {{ log = "up" }} }}

[service.notice]
command = ["PUPPET", "await", "HERE/go", "notify", "READY=1", "touch", "HERE/notice", "hang"]
start = {{ timeout = "2s", ready = {{ notify = true }} }}

[service.probed]
command = ["PUPPET", "hang"]
liveness = {{ http = "http://127.0.0.1:{port}/", every = "10ms", timeout = "2s", misses = 1 }}

[service.slow]
command = ["sh", "-c", "trap 'kill -STOP $PPID; exec PUPPET await HERE/leave exit 0' TERM; touch HERE/slow; while :; do sleep 0.01; done"]
stop = {{ graceful = "2s" }}

[service.suspends]
command = ["sh", "-c", "kill -STOP $PPID; exec PUPPET hang"]
"#
    ));
    let suspended = || {
        wait_until_suspended(&supervisor);
        std::thread::sleep(LIMIT + LIMIT / 2);
    };

    suspended();
    sandbox.write("go", "");
    for name in ["file", "line", "notice", "slow"] {
        wait_for_file(&sandbox, name);
    }
    supervisor.signal(Signal::CONT);
    for name in ["file", "line", "notice"] {
        event(&supervisor, name, "ready");
    }

    holds.store(true, Ordering::Relaxed);
    let question = held.recv().expect("a question");
    supervisor.signal(Signal::STOP);
    suspended();
    drop(question);
    supervisor.signal(Signal::CONT);

    let mut client = sandbox.command(mainstay());
    let mut client = client.args(["stop", "slow"]).spawn().expect("it runs");
    suspended();
    let slow = procs::descendants();
    let slow = slow
        .into_iter()
        .find(|pid| procs::has_env(*pid, "MAINSTAY_SERVICE", "slow"));
    sandbox.write("leave", "");
    wait_until("its exit", SOON, || {
        slow.is_none_or(|pid| !procs::alive(pid)).then_some(())
    });
    supervisor.signal(Signal::CONT);
    let status = client.wait().expect("a child");
    assert!(status.success(), "{status:?}");

    for kind in ["missed", "failed", "killing"] {
        assert_eq!(
            order(&supervisor, kind),
            [""; 0],
            "{:#?}",
            supervisor.events()
        );
    }
    stop(supervisor, &sandbox);
}

/// Answers every probe except for one that it holds.
fn answer(server: &TcpListener, holds: &AtomicBool, held: &mpsc::Sender<TcpStream>) {
    for question in server.incoming() {
        let mut question = question.expect("a question");
        if holds.swap(false, Ordering::Relaxed) {
            held.send(question).expect("the test waits for it");
            continue;
        }
        // The sender of the probe may be gone.
        let request = BufReader::new(&question).lines();
        request
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .for_each(drop);
        let _ = question.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    }
}

/// Returns the time of an event line, in seconds of the day.
fn second_of_day(event: &Value) -> f64 {
    let time = event["time"].as_str().expect("a time");
    let part = |from: usize, to: usize| time[from..to].parse::<f64>().expect("a number");
    part(11, 13) * 3600.0 + part(14, 16) * 60.0 + part(17, 23)
}

/// The time of this day that it is now, as [`second_of_day`] has it.
fn now() -> f64 {
    let since = std::time::UNIX_EPOCH.elapsed();
    since.expect("a clock that is set").as_secs_f64() % 86_400.0
}

/// The loop waits a second for a file on a network mount whose server is gone. Meanwhile one
/// service exits and another becomes ready. Both events bear the time at which they happened.
#[test]
fn what_happens_while_the_loop_is_late_bears_its_own_time() {
    // Only one child ends at a time: the system may report two that end at once as one.
    let (sandbox, manifest) = sandbox(
        r#"
        [service.stuck]
        command = ["PUPPET", "await", "HERE/hang", "exit", "1"]
        env_file = "mount/stuck"
        recovery = { delay = "1ms" }
        [service.brief]
        command = ["PUPPET", "await", "HERE/go", "touch", "HERE/gone", "exit", "0"]
        [service.talker]
        command = ["PUPPET", "await", "HERE/go", "print", "up", "hang"]
        start = { ready = { log = "up" }, timeout = "1m" }
        "#,
    );
    let dir = sandbox.path().join("mount");
    fs::create_dir(&dir).expect("the sandbox is writable");
    sandbox.write("mount/stuck", "");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "talker", "started");
    let Some(mount) = mainstay_testkit::HungMount::cover(&dir) else {
        return mainstay_testkit::skip("this user may not mount a FUSE file system");
    };
    sandbox.write("hang", "");
    mount.wait_until_asked(SOON);
    sandbox.write("go", "");
    let log = sandbox.state_dir().join("logs/talker/current.log");
    wait_until("the line", SOON, || {
        fs::read_to_string(&log)
            .is_ok_and(|log| log.contains("up"))
            .then_some(())
    });
    wait_for_file(&sandbox, "gone");
    let done = now();
    let exited = second_of_day(&event(&supervisor, "brief", "exited"));
    let ready = second_of_day(&event(&supervisor, "talker", "ready"));
    for (what, at) in [("exited", exited), ("ready", ready)] {
        let late = (at - done + 43_200.0).rem_euclid(86_400.0) - 43_200.0;
        assert!(
            late < 0.3,
            "{what} is told as {late} s after it was seen: {:#?}",
            supervisor.events()
        );
    }
    mount.release();
    stop(supervisor, &sandbox);
}

/// Sends a request to the control socket.
fn send(sandbox: &Sandbox, request: &str) -> std::os::unix::net::UnixStream {
    let socket = sandbox.state_dir().join("control.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("it listens");
    let request = format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    stream
}

/// Sends this request from many clients, which disconnect while it is being processed.
fn send_and_leave(sandbox: &Sandbox, request: &str, times: usize) {
    for _ in 0..times.div_ceil(16) {
        let clients: Vec<_> = (0..16).map(|_| send(sandbox, request)).collect();
        // Later requests are processed later.
        for _ in 0..3 {
            let mut answer = BufReader::new(send(sandbox, "GET /v1"));
            answer.read_line(&mut String::new()).expect("an answer");
        }
        drop(clients);
    }
}

/// Clients repeat a request for a slow removal and disconnect. Only one of the requests counts.
#[test]
fn removals_that_nobody_waits_for_do_not_pile_up() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.slow]
        command = ["PUPPET", "ignore", "TERM", "notify", "READY=1", "hang"]
        start = { ready = { notify = true } }
        stop = { graceful = "1h" }
        "#,
    );
    let supervisor = daemon(&sandbox);
    let manifest = manifest.display().to_string();
    ok(&sandbox, &["install", "--manager", "embedded", &manifest]);
    ok(&sandbox, &["start", "slow"]);
    send_and_leave(&sandbox, "DELETE /v1/services/slow", 480);
    supervisor.signal(Signal::USR2);
    let line = supervisor.wait_event(SOON, |event| event.to_string().contains("requests waiting"));
    let line = line.to_string();
    let count = line
        .split(" requests waiting")
        .next()
        .and_then(|it| it.rsplit(' ').next());
    let count: usize = count
        .and_then(|count| count.parse().ok())
        .expect("a number");
    assert!((1..=64).contains(&count), "{line}");
}

/// A disk hangs, and with it the log thread. Requests that need the log thread are bounded, then
/// refused; everything else continues.
#[test]
fn what_waits_for_a_log_on_a_hung_disk_is_bounded() {
    let (supervisor, sandbox) =
        supervise("[service.worker]\ncommand = [\"PUPPET\", \"print\", \"up\", \"hang\"]");
    event(&supervisor, "worker", "started");
    let dir = sandbox.state_dir().join("logs");
    wait_until("its log", SOON, || {
        let log = fs::read_to_string(dir.join("worker/current.log"));
        log.is_ok_and(|log| log.contains("up")).then_some(())
    });
    let Some(mount) = mainstay_testkit::HungMount::cover(&dir) else {
        return mainstay_testkit::skip("this user may not mount a FUSE file system");
    };
    let rotate = "POST /v1/services/worker/logs/rotate";
    send_and_leave(&sandbox, rotate, 16);
    mount.wait_until_asked(SOON);
    send_and_leave(&sandbox, rotate, 1100);
    let refused = verb(&sandbox, &["logs", "rotate", "worker"]);
    let why = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(75), "{why}");
    assert!(why.contains("the disk does not respond"), "{why}");
    let before = service(&sandbox, "worker");
    ok(&sandbox, &["restart", "worker"]);
    assert_ne!(service(&sandbox, "worker")["pid"], before["pid"]);
    mount.release();
    wait_until("the log thread to catch up", SOON, || {
        verb(&sandbox, &["logs", "rotate", "worker"])
            .status
            .success()
            .then_some(())
    });
    stop(supervisor, &sandbox);
}

/// Nothing waits for the disk of the logs for ever: a rotation, a removal and the end of the daemon
/// are given up in time. What was not written is written by the next daemon.
#[test]
fn what_a_hung_log_disk_holds_up_is_given_up_and_told() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.rotated]
        command = ["PUPPET", "hang"]
        [service.removed]
        command = ["PUPPET", "print", "up", "hang"]
        [service.late]
        command = ["PUPPET", "await", "HERE/go", "print", "late", "touch", "HERE/gone", "hang"]
        "#,
    );
    let mut supervisor = daemon(&sandbox);
    let manifest = manifest.display().to_string();
    ok(&sandbox, &["install", "--manager", "embedded", &manifest]);
    ok(&sandbox, &["start", "rotated", "removed", "late"]);
    let dir = sandbox.state_dir().join("logs");
    wait_until("its log", SOON, || {
        let log = fs::read_to_string(dir.join("removed/current.log"));
        log.is_ok_and(|log| log.contains("up")).then_some(())
    });
    let Some(mount) = mainstay_testkit::HungMount::cover(&dir) else {
        return mainstay_testkit::skip("this user may not mount a FUSE file system");
    };
    let client = |args: &[&str]| {
        let mut command = sandbox.command(mainstay());
        command.args(args).stderr(std::process::Stdio::piped());
        command.spawn().expect("mainstay runs")
    };
    let clients = [
        &["logs", "rotate", "rotated"][..],
        &["uninstall", "removed"],
    ];
    let clients = clients.map(|args| (args, client(args)));
    mount.wait_until_asked(SOON);
    sandbox.write("go", "");
    wait_for_file(&sandbox, "gone");
    for (args, client) in clients {
        let output = client.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        let waited_for = format!("the disk of {} did not respond for 10s", dir.display());
        assert!(said.contains(&waited_for), "{args:?}: {said}");
        assert_eq!(code(output.status), 75, "{args:?}");
    }
    // The daemon does not have the service any more, but its directory cannot be removed.
    let mut purge = client(&["uninstall", "removed", "--purge"]);
    let stderr = lines(purge.stderr.take().expect("a pipe"));
    let line = stderr.recv_timeout(SOON).expect("it says why");
    assert!(line.contains("no response within 1s"), "{line}");

    supervisor.ctrl_c();
    for said in ["waiting for the logs", "the logs are not complete"] {
        let event = supervisor.wait_event(SOON, |event| event.to_string().contains(said));
        let place = dir.display().to_string();
        assert!(event.to_string().contains(&place), "{event}");
    }
    wait_until("the end of its main thread", SOON, || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", supervisor.id())).ok()?;
        stat.rsplit_once(") ")?.1.starts_with('Z').then_some(())
    });
    mount.release();
    assert_eq!(code(purge.wait().expect("it ends")), 75);
    assert_eq!(code(supervisor.wait(SOON)), 75);

    let supervisor = daemon(&sandbox);
    wait_until("the line", SOON, || {
        let log = fs::read_to_string(dir.join("late/current.log"));
        log.is_ok_and(|log| log.starts_with("late\n")).then_some(())
    });
    ok(&sandbox, &["uninstall", "removed", "--purge"]);
    assert!(!dir.join("removed").exists());
    stop(supervisor, &sandbox);
}

/// A file that a probe checks is on a mount whose server is gone: a missing answer counts as a
/// failed probe, and delays nothing else.
#[test]
fn a_probe_of_a_file_on_a_hung_mount_delays_nobody() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.file]
        command = ["PUPPET", "hang"]
        liveness = { file = "HERE/mount/file", every = "50ms", misses = 4 }
        [service.neighbour]
        command = ["PUPPET", "hang"]
        liveness = { file = "HERE/other", every = "50ms", misses = 4 }
        "#,
    );
    let dir = sandbox.path().join("mount");
    fs::create_dir(&dir).expect("the sandbox is writable");
    sandbox.write("mount/file", "");
    sandbox.write("other", "");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "file", "started");
    let neighbour = event(&supervisor, "neighbour", "started");
    let Some(mount) = mainstay_testkit::HungMount::cover(&dir) else {
        return mainstay_testkit::skip("this user may not mount a FUSE file system");
    };
    mount.wait_until_asked(SOON);
    let began = std::time::Instant::now();
    assert_eq!(service(&sandbox, "neighbour")["pid"], neighbour["pid"]);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "it answered after {took:?}");
    event(&supervisor, "file", "failed");
    let neighbour_events = supervisor.events();
    let is_missed = |event: &&Value| event["service"] == "neighbour" && event["event"] == "missed";
    assert_eq!(neighbour_events.iter().find(is_missed), None);
    mount.release();
    stop(supervisor, &sandbox);
}

/// The `env_file` of a service is on a mount whose server is gone: its start fails and is retried.
#[test]
fn an_env_file_on_a_hung_mount_fails_a_start_and_nothing_else() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.far]
        command = ["PUPPET", "await", "HERE/go", "exit", "1"]
        env_file = "mount/env"
        recovery = { delay = "10ms", max_delay = "100ms", limit = "none" }
        "#,
    );
    let dir = sandbox.path().join("mount");
    fs::create_dir(&dir).expect("the sandbox is writable");
    sandbox.write("mount/env", "A=b\n");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "far", "started");
    let Some(mount) = mainstay_testkit::HungMount::cover(&dir) else {
        return mainstay_testkit::skip("this user may not mount a FUSE file system");
    };
    sandbox.write("go", "");
    mount.wait_until_asked(SOON);
    supervisor.wait_event(SOON, |event| {
        event["event"] == "failed"
            && event
                .to_string()
                .contains("earlier checks are still blocked")
    });
    let began = std::time::Instant::now();
    assert_ne!(service(&sandbox, "far")["state"], "running");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "it answered after {took:?}");
    fs::remove_file(sandbox.path().join("go")).expect("it is there");
    mount.release();
    wait_until("it to run", SOON, || {
        (service(&sandbox, "far")["state"] == "running").then_some(())
    });
    stop(supervisor, &sandbox);
}

/// A start completes an interrupted restore, whose paths may be on a mount whose server is gone.
#[test]
fn a_restore_on_a_hung_mount_fails_a_start_and_nothing_else() {
    use mainstay_core::snapshot::{Journal, Move, Raw, SnapshotId};
    let (sandbox, manifest) = sandbox(
        r#"
        [service.far]
        command = ["PUPPET", "await", "HERE/go", "exit", "1"]
        snapshot = { paths = ["HERE/mount/data"] }
        recovery = { delay = "10ms", max_delay = "100ms", limit = "none" }
        "#,
    );
    let dir = sandbox.path().join("mount");
    fs::create_dir_all(dir.join("data")).expect("the sandbox is writable");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "far", "started");
    let Some(mount) = mainstay_testkit::HungMount::cover(&dir) else {
        return mainstay_testkit::skip("this user may not mount a FUSE file system");
    };
    let raw = |text: &str| Raw(text.as_bytes().to_vec());
    let one = Move {
        parent: raw(dir.to_str().expect("UTF-8")),
        target: raw("data"),
        new: raw(".new"),
        old: raw(".old"),
        inode: None,
        old_inode: None,
    };
    let id = SnapshotId::new(1, None);
    let mut journal = Journal::new(id, None, vec![one]);
    journal.committed = true;
    let text = journal.to_text().expect("JSON");
    let store = sandbox.state_dir().join("snapshots/far");
    fs::write(store.join(format!("restore-{id}.json")), text).expect("written");
    sandbox.write("go", "");
    mount.wait_until_asked(SOON);
    supervisor.wait_event(SOON, |event| {
        event["event"] == "failed"
            && event
                .to_string()
                .contains("earlier checks are still blocked")
    });
    let began = std::time::Instant::now();
    assert_ne!(service(&sandbox, "far")["state"], "running");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "it answered after {took:?}");
    fs::remove_file(sandbox.path().join("go")).expect("it is there");
    mount.release();
    stop(supervisor, &sandbox);
}

/// Everything that a start touches may lie on a mount whose server is gone, and so may the programs
/// of probes and alerts. Each fails by itself, from the daemon's start on.
#[test]
fn programs_places_and_sockets_on_a_hung_mount_stop_nobody_else() {
    const AGAIN: &str = r#"recovery = { delay = "10ms", max_delay = "100ms", limit = "none" }"#;
    let services = r#"
        [service.place]
        command = ["PUPPET", "hang"]
        working_dir = "HERE/mount/place"
        AGAIN
        [service.program]
        command = ["HERE/mount/puppet", "hang"]
        AGAIN
        [service.socket]
        command = ["PUPPET", "hang"]
        listen = ["HERE/mount/socket"]
        AGAIN
        [service.probed]
        command = ["PUPPET", "hang"]
        liveness = { exec = ["HERE/mount/puppet", "exit", "0"], every = "50ms", misses = 3 }
        AGAIN
        [service.alerts]
        command = ["PUPPET", "exit", "1"]
        recovery = { policy = "never" }
        on_alert = ["HERE/mount/puppet", "exit", "0"]
        [service.neighbour]
        command = ["PUPPET", "hang"]
        "#;
    let (sandbox, manifest) = sandbox(&services.replace("AGAIN", AGAIN));
    let dir = sandbox.path().join("mount");
    fs::create_dir_all(dir.join("place")).expect("the sandbox is writable");
    fs::copy(mainstay_testkit::puppet(), dir.join("puppet")).expect("a copy");
    let path = manifest.display().to_string();
    ok(&sandbox, &["install", "--manager", "embedded", &path]);
    let Some(mount) = mainstay_testkit::HungMount::cover(&dir) else {
        return mainstay_testkit::skip("this user may not mount a FUSE file system");
    };
    let mut command = sandbox.command(mainstay());
    command.args(["daemon", "--json"]);
    let mut supervisor = Supervisor::spawn(command);
    event(&supervisor, "neighbour", "started");
    for (name, what) in [
        ("place", "mount/place: no response within 1s"),
        ("program", "mount/puppet: no response within 1s"),
        ("socket", "mount/socket: no response within 1s"),
        ("probed", "mount/puppet: "),
        ("alerts", "an alert was lost"),
        ("probed", "its commands could not be checked: no response"),
    ] {
        supervisor.wait_event(SOON, |event| {
            let text = event.to_string();
            text.contains(name) && text.contains(what)
        });
    }
    for name in ["place", "program", "socket"] {
        supervisor.wait_event(SOON, |event| {
            event["service"] == name
                && event
                    .to_string()
                    .contains("earlier checks are still blocked")
        });
    }
    event(&supervisor, "probed", "missed");
    let neighbour = || json(&sandbox, &["status", "neighbour", "--json"])["services"][0].clone();
    let before = neighbour();
    let began = std::time::Instant::now();
    ok(&sandbox, &["restart", "neighbour"]);
    let after = neighbour();
    let took = began.elapsed();
    assert_eq!(after["state"], "running");
    assert_ne!(after["pid"], before["pid"]);
    assert!(took < Duration::from_secs(4), "it took {took:?}");
    // It looks at the programs itself.
    let mut list = sandbox.command(mainstay());
    let list = list.arg("list").stdout(std::process::Stdio::piped());
    let mut list = list.spawn().expect("it runs");
    let shown = lines(list.stdout.take().expect("a pipe"));
    shown.recv_timeout(SOON).expect("the head of the list");
    supervisor.ctrl_c();
    // Its threads on the mount hold up the end of the process, not that of its work.
    wait_until("the end of its main thread", SOON, || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", supervisor.id())).ok()?;
        stat.rsplit_once(") ")?.1.starts_with('Z').then_some(())
    });
    mount.release();
    list.wait().expect("a child");
    let status = supervisor.wait(SOON);
    // `alerts` has halted.
    assert_eq!(code(status), 1, "{:#?}", supervisor.events());
    sandbox.assert_no_leftovers();
}

/// The lines that a program writes, as they come.
fn lines(pipe: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    told
}

/// `run` checks a service before it starts any: a mount that hangs is told, and not waited for.
#[test]
fn run_refuses_a_program_on_a_hung_mount() {
    let (sandbox, manifest) = sandbox("[service.far]\ncommand = [\"HERE/mount/puppet\", \"hang\"]");
    let dir = sandbox.path().join("mount");
    fs::create_dir(&dir).expect("the sandbox is writable");
    let Some(mount) = mainstay_testkit::HungMount::cover(&dir) else {
        return mainstay_testkit::skip("this user may not mount a FUSE file system");
    };
    let mut command = sandbox.command(mainstay());
    command.arg("run").arg(&manifest);
    command.stderr(std::process::Stdio::piped());
    let mut run = command.spawn().expect("it runs");
    let line = lines(run.stderr.take().expect("a pipe")).recv_timeout(SOON);
    mount.release();
    let status = run.wait().expect("a child");
    let line = line.expect("it says why");
    assert!(
        line.contains("cannot start far: its files could not be checked: no response"),
        "{line}"
    );
    assert_eq!(code(status), 75);
}
