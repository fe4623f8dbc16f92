//! Alerts reach a command and a webhook: real programs, a real HTTP server, and one with TLS.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc;
use std::{fs, thread};

#[cfg(target_os = "linux")]
use super::receiver::endless;
use super::receiver::{Request, next, receiver, write_key};
use super::*;

/// Returns the notices of the supervisor.
fn notices(supervisor: &Supervisor) -> Vec<String> {
    let mut events = supervisor.events();
    events.retain(|event| event["event"] == "notice");
    let texts = events
        .iter()
        .map(|event| event["message"].as_str().unwrap_or_default());
    texts.map(str::to_owned).collect()
}

#[track_caller]
fn notice(supervisor: &Supervisor, part: &str) {
    supervisor.wait_event(SOON, |event| {
        event["message"]
            .as_str()
            .is_some_and(|message| message.contains(part))
    });
}

/// A service that fails permanently.
const HALTS: &str = r#"
[service.orders]
command = ["PUPPET", "exit", "7"]
env = { TOKEN = "hunter2" }
recovery = { policy = "strict" }
"#;

#[test]
fn a_halt_is_told_before_the_supervisor_ends_however_busy_the_receiver() {
    let (address, got) = receiver(&["503 Service Unavailable\r\nretry-after: 2\r\n"]);
    let (sandbox, manifest) = sandbox(&format!(
        "{HALTS}on_alert = {{ webhook = {{ url = 'http://{address}/T0/hunter3', secret_file = 'webhook.key' }} }}\n"
    ));
    let secret = write_key(&sandbox);
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    let mut halted = event(&supervisor, "orders", "halted");
    let refused = next(&got);
    let shown = service(&sandbox, "orders").to_string() + &cmdlines(&sandbox);
    let requests: Vec<Request> = std::iter::from_fn(|| got.recv_timeout(SOON).ok())
        .take(2)
        .collect();
    assert_eq!(code(supervisor.wait(SOON)), 1);

    let again = requests
        .iter()
        .find(|it| it.header("webhook-id") == refused.header("webhook-id"));
    let again = again.expect("the refused one comes again");
    assert!(
        again.at - refused.at >= Duration::from_secs(2),
        "as late as the receiver wanted"
    );
    assert_eq!(again.body, refused.body, "the same in every try");
    assert_ne!(
        again.header("webhook-timestamp"),
        refused.header("webhook-timestamp")
    );
    let mut told: Vec<Value> = requests.iter().map(Request::judge).collect();
    assert_eq!(refused.judge()["event"], "failed");
    assert_eq!(refused.line, "POST /T0/hunter3 HTTP/1.1");
    assert!(refused.header("user-agent").starts_with("mainstay/"));
    let last = told
        .iter_mut()
        .find(|event| event["event"] == "halted")
        .expect("the halt");
    assert!(
        last["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("alert_")),
        "{last}"
    );
    assert!(
        last["host"].as_str().is_some_and(|host| !host.is_empty()),
        "{last}"
    );
    assert_eq!(last["suppressed"], 0);
    // Apart from these keys and the number of the event, the alert equals the event.
    for key in ["id", "host", "suppressed"] {
        last.as_object_mut().expect("an object").remove(key);
    }
    halted
        .as_object_mut()
        .expect("an object")
        .remove("sequence");
    assert_eq!(*last, halted);
    let shown = format!("{shown}{:?}", supervisor.events());
    assert!(shown.contains(&format!("http://{address}")), "{shown}");
    for hidden in ["hunter", &secret] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    assert!(got.try_recv().is_err(), "each alert is delivered once");
    sandbox.assert_no_leftovers();
}

/// Returns the command lines of all processes in the sandbox.
fn cmdlines(sandbox: &Sandbox) -> String {
    #[cfg(target_os = "linux")]
    {
        let of = |pid: rustix::process::Pid| {
            fs::read(mainstay_testkit::procs::path(pid, "cmdline")).unwrap_or_default()
        };
        let all = sandbox
            .processes()
            .into_iter()
            .flat_map(of)
            .collect::<Vec<u8>>();
        String::from_utf8_lossy(&all).into_owned()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = sandbox;
        String::new()
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_upgrade_of_the_program_does_not_keep_alerts_back() {
    let (address, got) = receiver(&[]);
    let (sandbox, manifest) = sandbox(&format!(
        "{HALTS}wait_for = [{{ file = 'HERE/go', deadline = '1m' }}]\n\
         on_alert.webhook = {{ url = 'http://{address}/', secret_file = 'webhook.key' }}\n"
    ));
    write_key(&sandbox);
    let program = sandbox.path().join("mainstay");
    fs::copy(mainstay(), &program).expect("a copy of the program");
    let mut command = sandbox.command(&program);
    command.args(["run", "--json"]).arg(&manifest);
    let mut supervisor = Supervisor::spawn(command);
    event(&supervisor, "orders", "waiting-for");
    // A package manager replaces the file by another one.
    let newer = sandbox.write("newer", "#!/bin/false\n");
    fs::rename(newer, program).expect("a newer program");
    sandbox.write("go", "");
    let told = [next(&got).judge(), next(&got).judge()];
    assert_eq!(told[1]["event"], "halted");
    assert_eq!(code(supervisor.wait(SOON)), 1);
    sandbox.assert_no_leftovers();
}

#[cfg(target_os = "linux")]
#[test]
fn a_receiver_without_end_costs_a_process_and_the_supervisor_nothing() {
    use mainstay_testkit::procs;
    let (head, quick) = (b"HTTP/1.1 200 OK\r\n", Duration::ZERO);
    let receivers = [
        ("hangs", endless(b"", b"", SOON)),
        ("trickles", endless(head, b"a", Duration::from_millis(50))),
        ("garbage", endless(b"\0\xff\r\n", &[0xff; 4096], quick)),
        ("heads", endless(head, &[b'a'; 4096], quick)),
        (
            "bodies",
            endless(b"HTTP/1.1 200 OK\r\n\r\n", &[b'a'; 4096], quick),
        ),
    ];
    let services = receivers.iter().map(|(name, address)| {
        let service = HALTS.replace("orders", name);
        format!(
            "{service}on_alert.webhook = {{ url = 'http://{address}/T0/hunter3', secret_file = 'webhook.key', timeout = '2s', deadline = '1s' }}\n"
        )
    });
    let services: String = services.collect();
    let neighbour = "[service.neighbour]\ncommand = ['PUPPET', 'hang']\n";
    let (sandbox, manifest) = sandbox(&(services + neighbour));
    let secret = write_key(&sandbox);
    let supervisor = Supervisor::start(&sandbox, &manifest);
    let requests = || {
        let mut processes = sandbox.processes();
        processes.retain(|pid| procs::is_named(*pid, "mainstay-alert"));
        processes
    };
    let request = wait_until("a request", SOON, || requests().first().copied());
    let read = |file| fs::read(procs::path(request, file)).expect("its own user reads it");
    assert_eq!(read("cmdline"), b"mainstay\0post-alert\0");
    let limits = String::from_utf8(read("limits")).expect("text");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core = core.expect("a limit").split_whitespace().nth(4);
    assert_eq!(core, Some("0"), "a core dump would contain the key");
    let environ = String::from_utf8_lossy(&read("environ")).into_owned();
    for hidden in ["hunter", &*secret] {
        assert!(!environ.contains(hidden), "{environ}");
    }
    service(&sandbox, "neighbour");

    for name in ["hangs", "trickles"] {
        notice(&supervisor, &format!("{name}: an alert was lost"));
    }
    let said = notices(&supervisor).join("\n");
    let late = said.matches("no response within 2s").count();
    assert!(late >= 2, "{said}");
    for name in ["garbage", "heads"] {
        notice(&supervisor, &format!("{name}: an alert was lost"));
    }
    wait_until("the end of all requests", SOON, || {
        requests().is_empty().then_some(())
    });
    let said = notices(&supervisor).join("\n");
    assert!(!said.contains("bodies"), "its status was received: {said}");
    let pid = rustix::process::Pid::from_raw(supervisor.id().cast_signed()).expect("a pid");
    let peak = procs::field(pid, "status", "VmHWM").expect("kB");
    assert!(peak < 64 << 10, "{peak} kB");
    stop(supervisor, &sandbox);
}

#[test]
fn while_services_run_a_busy_receiver_is_asked_again_later() {
    let (address, got) = receiver(&["500 Internal Server Error\r\n"]);
    let (sandbox, manifest) = sandbox(&format!(
        r#"
        [service.orders]
        command = ["sh", "-c", "test -e once && exec PUPPET hang; touch once; exit 3"]
        on_alert.webhook = {{ url = "http://{address}/", secret_file = "webhook.key" }}
        "#
    ));
    write_key(&sandbox);
    let supervisor = Supervisor::start(&sandbox, &manifest);
    let tries = [next(&got), next(&got)];
    assert_eq!(tries[0].judge(), tries[1].judge());
    assert!(tries[1].at - tries[0].at >= Duration::from_millis(900));
    let words = format!(
        "orders: cannot deliver an alert to http://{address}: the server returned 500; retrying"
    );
    assert_eq!(
        notices(&supervisor)
            .iter()
            .filter(|it| **it == words)
            .count(),
        1
    );
    stop(supervisor, &sandbox);
    assert!(got.try_recv().is_err());
}

#[test]
fn a_host_tells_of_the_halt_that_ends_it() {
    let (address, got) = receiver(&[]);
    let (sandbox, _) = sandbox(&format!(
        "{HALTS}on_alert.webhook = {{ url = 'http://{address}/', secret_file = 'webhook.key' }}\n"
    ));
    write_key(&sandbox);
    let output = verb(&sandbox, &["host", "orders", "--manifest", "mainstay.toml"]);
    assert_eq!(code(output.status), 7, "{output:?}");
    let told = [next(&got).judge(), next(&got).judge()];
    assert_eq!(
        told.map(|event| event["event"].to_string()),
        ["\"failed\"", "\"halted\""]
    );
}

#[test]
fn a_refusal_is_final_and_said() {
    let (address, got) = receiver(&["410 Gone\r\n", "308 Permanent Redirect\r\nlocation: /b\r\n"]);
    let (sandbox, manifest) = sandbox(&format!(
        "{HALTS}on_alert.webhook = {{ url = 'http://{address}/', secret_file = 'webhook.key' }}\n"
    ));
    write_key(&sandbox);
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    assert_eq!(code(supervisor.wait(SOON)), 1);
    let ids = [next(&got), next(&got)].map(|it| it.header("webhook-id").to_owned());
    assert_ne!(ids[0], ids[1]);
    assert!(got.try_recv().is_err());
    let said = notices(&supervisor).join("\n");
    for answer in ["410", "308"] {
        let words = format!(": http://{address}: the server returned {answer}");
        assert!(
            said.contains("orders: an alert was lost (") && said.contains(&words),
            "{said}"
        );
    }
}

#[test]
fn whoever_cannot_be_reached_keeps_no_supervisor_alive() {
    let (sandbox, manifest) = sandbox(&format!(
        "{HALTS}on_alert.webhook = {{ url = 'http://127.0.0.1:{}/', secret_file = 'webhook.key' }}\n",
        mainstay_testkit::free_port()
    ));
    write_key(&sandbox);
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    notice(&supervisor, "; retrying");
    notice(
        &supervisor,
        "waiting up to 30s for the delivery of 2 alerts",
    );
    supervisor.ctrl_c();
    notice(&supervisor, "waiting up to 5s for the delivery of 2 alerts");
    ctrl_c_again(&supervisor);
    assert_eq!(code(supervisor.wait(SOON)), 1);
    let lost = notices(&supervisor);
    let lost = lost.iter().filter(|it| it.contains("an alert was lost"));
    assert_eq!(lost.count(), 2, "{:?}", notices(&supervisor));
    sandbox.assert_no_leftovers();
}

/// Returns the documents that a command wrote, one per line.
fn documents(sandbox: &Sandbox, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(sandbox.path().join(name)).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn a_storm_of_alerts_is_counted_and_the_halt_goes_out_of_it() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.orders]
        command = ["PUPPET", "exit", "1"]
        env = { TOKEN = "hunter2" }
        recovery = { delay = "0s", limit = { restarts = 5, window = "1m", then = "halt" } }
        on_alert = { exec = ["sh", "-c", "cat >> HERE/alerts; env >> HERE/variables; echo paged $MAINSTAY_EVENT"], limit = { alerts = 2, window = "1h" } }
        "#,
    );
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    assert_eq!(code(supervisor.wait(SOON)), 1);
    assert_eq!(events(&supervisor, "orders", "failed", 6).len(), 6);
    let told = documents(&sandbox, "alerts");
    let kinds: Vec<_> = told
        .iter()
        .map(|it| it["event"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(kinds, ["failed", "failed", "halted"], "one after the other");
    assert_eq!(told[2]["suppressed"], 4);
    let said = notices(&supervisor).join("\n");
    assert!(
        said.contains("orders: more than 2 alerts within 1h"),
        "{said}"
    );
    assert!(
        said.contains("orders: the alert command reported: paged failed"),
        "{said}"
    );

    let variables = fs::read_to_string(sandbox.path().join("variables")).expect("variables");
    let id = told[2]["id"].as_str().unwrap_or_default();
    for line in [
        "MAINSTAY_SERVICE=orders",
        "MAINSTAY_EVENT=halted",
        "MAINSTAY_SUPPRESSED=4",
        &format!("MAINSTAY_ALERT_ID={id}"),
        &format!(
            "MAINSTAY_MESSAGE={}",
            told[2]["message"].as_str().unwrap_or_default()
        ),
    ] {
        assert!(
            variables.lines().any(|it| it == line),
            "{line}: {variables}"
        );
    }
    assert!(
        !variables.contains("hunter2"),
        "the service's own secrets are not for it"
    );
    sandbox.assert_no_leftovers();
}

#[test]
fn what_keeps_a_service_from_starting_does_not_keep_it_from_being_told() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.orders]
        command = ["PUPPET", "hang"]
        working_dir = "HERE/work"
        env_file = "HERE/orders.env"
        start = { ready = { file = "HERE/go" } }
        recovery = { policy = "strict" }
        on_alert = ["sh", "-c", "cat >> HERE/alerts"]
        "#,
    );
    fs::create_dir(sandbox.path().join("work")).expect("a directory");
    sandbox.write("orders.env", "A=1\n");
    sandbox.write("go", "");
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "orders", "ready");
    fs::remove_file(sandbox.path().join("orders.env")).expect("removed");
    fs::remove_dir(sandbox.path().join("work")).expect("removed");
    verb(&sandbox, &["restart", "orders"]);
    assert_eq!(code(supervisor.wait(SOON)), 1);
    let told = documents(&sandbox, "alerts");
    let last = told.last().expect("an alert");
    assert_eq!(last["event"], "halted");
    let why = last["message"].as_str().unwrap_or_default();
    assert!(why.contains("orders.env"), "{why}");
}

#[test]
fn a_command_has_its_time_and_then_is_killed_with_all_its_children() {
    let (sandbox, manifest) = sandbox(&format!(
        "{HALTS}on_alert = {{ exec = ['sh', '-c', 'sleep 1000 & echo $! >> HERE/children; wait'], timeout = '300ms' }}\n"
    ));
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    assert_eq!(code(supervisor.wait(SOON)), 1);
    let said = notices(&supervisor);
    let lost = said
        .iter()
        .filter(|it| it.contains("the alert command failed: no response within 300ms"));
    assert_eq!(lost.count(), 2, "{said:?}");
    let children = fs::read_to_string(sandbox.path().join("children")).expect("children");
    assert_eq!(children.lines().count(), 2);
    sandbox.assert_no_leftovers();
}

#[test]
fn a_command_that_cannot_be_had_is_said_at_the_start_and_so_is_a_key_that_others_know() {
    let (sandbox, manifest) = sandbox(&format!(
        "{HALTS}on_alert = {{ exec = ['no-such-pager'], webhook = {{ url = 'https://127.0.0.1:1/', secret_file = 'webhook.key' }} }}\n"
    ));
    let secret = write_key(&sandbox);
    let path = sandbox.path().join("webhook.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    notice(
        &supervisor,
        "orders: on_alert: program no-such-pager: not found in PATH",
    );
    notice(
        &supervisor,
        "on_alert: secret_file webhook.key: it is accessible to others (mode 0644): chmod 600",
    );
    notice(
        &supervisor,
        "an alert was lost (failed: exit code 7): find program no-such-pager",
    );
    notice(
        &supervisor,
        "cannot deliver an alert to https://127.0.0.1:1: secret_file webhook.key: it is accessible to others",
    );
    assert!(!notices(&supervisor).join("\n").contains(&secret));
}

/// No setting that could keep a service from running applies to its alert command, except the
/// account.
#[test]
fn a_command_runs_with_the_account_of_its_service_and_no_other_setting() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root may start programs as another user");
    }
    let (sandbox, manifest) = sandbox(&format!(
        r#"{HALTS}
        account = 'user:nobody'
        inherit_env = ['MAINSTAY_TESTKIT_SANDBOX']
        working_dir = 'HERE/closed'
        limits = {{ open_files = 77 }}
        priority = 'low'
        on_alert = ['sh', '-c', 'echo $(id -un) $(pwd) $(ulimit -n) $(nice) $MAINSTAY_MESSAGE > HERE/who/alert']
        "#
    ));
    let closed = sandbox.path().join("closed");
    fs::create_dir(&closed).expect("a directory");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("mode");
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    let who = sandbox.path().join("who");
    fs::create_dir(&who).expect("a directory");
    fs::set_permissions(&who, fs::Permissions::from_mode(0o777)).expect("mode");
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    let status = supervisor.wait(SOON);
    let told = fs::read_to_string(who.join("alert")).unwrap_or_default();
    let seen = format!("{status:?} {told:?} {:#?}", supervisor.events());
    let words: Vec<&str> = told.split(' ').collect();
    let [user, dir, files, nice, message @ ..] = &*words else {
        panic!("{seen}");
    };
    assert_eq!((*user, *dir), ("nobody", "/"), "{seen}");
    assert!(*files != "77" && *nice != "19", "{seen}");
    assert!(message.join(" ").contains("halted: "), "{seen}");
    assert!(seen.contains("change to directory"), "{seen}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_supervisor_leaves_no_command_behind() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.orders]
        command = ["PUPPET", "exit", "7"]
        recovery = { policy = "strict" }
        on_alert = ["sh", "-c", "echo $$ > HERE/pager; exec sleep 1000"]

        [service.other]
        command = ["PUPPET", "hang"]
        "#,
    );
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    let pager = wait_until("a command", SOON, || {
        let text = fs::read_to_string(sandbox.path().join("pager")).ok()?;
        text.trim().parse::<i32>().ok()
    });
    supervisor.kill_dash_nine();
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "other", "adopted");
    let pager = rustix::process::Pid::from_raw(pager).expect("a pid");
    wait_until("its end", SOON, || {
        (!mainstay_testkit::procs::alive(pager)).then_some(())
    });
    supervisor.ctrl_c();
    notice(&supervisor, "stopping all services");
    ctrl_c_again(&supervisor);
    let mut supervisor = supervisor;
    supervisor.wait(SOON);
    sandbox.assert_no_leftovers();
}

/// Creates a CA and a certificate of it for 127.0.0.1.
fn certificates(sandbox: &Sandbox) -> bool {
    sandbox.write("san", "subjectAltName=IP:127.0.0.1\n");
    [
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile san",
    ]
    .iter()
    .all(|args| {
        let made = sandbox.command("openssl").args(args.split(' ')).output();
        made.is_ok_and(|output| output.status.success())
    })
}

#[test]
fn over_tls_only_whom_the_manifest_trusts_is_told() {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let webhook = format!("url = 'https://{address}/', secret_file = 'webhook.key'");
    let (sandbox, manifest) = sandbox(&format!(
        "{HALTS}on_alert.webhook = {{ {webhook}, ca = 'ca.pem' }}\n\
         {}on_alert.webhook = {{ {webhook} }}\n",
        HALTS.replace("orders", "stranger"),
    ));
    if !certificates(&sandbox) {
        return mainstay_testkit::skip("openssl, which makes the certificates, is not installed");
    }
    write_key(&sandbox);
    let chain = CertificateDer::pem_file_iter(sandbox.path().join("server.pem")).expect("a file");
    let key = PrivateKeyDer::from_pem_file(sandbox.path().join("server.key")).expect("a key");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain.map(|it| it.expect("a certificate")).collect(), key)
        .expect("a certificate and its key");
    let config = std::sync::Arc::new(config);
    let (tell, got) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let session = rustls::ServerConnection::new(config.clone()).expect("a session");
            let mut stream = rustls::StreamOwned::new(session, stream.expect("a connection"));
            if let Some(request) = Request::read(&mut stream) {
                let _ = stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.flush();
                let _ = tell.send(request);
            }
        }
    });
    let supervisor = Supervisor::start(&sandbox, &manifest);
    let told = [next(&got).judge(), next(&got).judge()];
    assert!(
        told.iter().all(|event| event["service"] == "orders"),
        "{told:?}"
    );
    notice(
        &supervisor,
        &format!("stranger: cannot deliver an alert to https://{address}"),
    );
    let said = notices(&supervisor).join("\n").to_lowercase();
    assert!(
        said.contains("unknownissuer") || said.contains("certificates"),
        "{said}"
    );
    supervisor.ctrl_c();
    notice(&supervisor, "stopping all services");
    ctrl_c_again(&supervisor);
    let mut supervisor = supervisor;
    supervisor.wait(SOON);
    assert!(got.try_recv().is_err());
}

/// Returns whether `/dev/log` is absent, or leads into `/run`, which the test replaces.
#[cfg(target_os = "linux")]
fn syslog_may_be_ours() -> bool {
    let place = fs::canonicalize("/dev/log");
    place.map_or(true, |place| place.starts_with("/run"))
}

#[cfg(target_os = "linux")]
#[test]
fn a_daemon_tells_the_log_of_the_system_of_alerts_and_of_nothing_else() {
    let (sandbox, manifest) = sandbox(HALTS);
    let run_dir = sandbox.path().join("run");
    fs::create_dir(&run_dir).expect("a directory");
    let syslog = std::os::unix::net::UnixDatagram::bind(run_dir.join("syslog")).expect("a socket");
    syslog.set_nonblocking(true).expect("a socket");
    let manifest = manifest.display().to_string();
    let installed = verb(&sandbox, &["install", "--manager", "embedded", &manifest]);
    assert!(installed.status.success(), "{installed:?}");
    let script = "mount --bind run /run && exec \"$0\" \"$@\"";
    let mut command = sandbox.command("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(mainstay())
        .args(["daemon", "--json", "--exit-when-done"]);
    let may_mount = sandbox
        .command("unshare")
        .args(["--mount", "true"])
        .status();
    if !syslog_may_be_ours() || !may_mount.is_ok_and(|status| status.success()) {
        return mainstay_testkit::skip("this user may not mount, or a syslog daemon is in the way");
    }
    let mut daemon = Supervisor::spawn(command);
    assert_eq!(code(daemon.wait(SOON)), 7);
    let mut entries = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = syslog.recv(&mut buffer) {
        entries.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    let pid = daemon.id();
    assert_eq!(
        entries,
        [
            format!("<28>mainstay[{pid}]: orders: failed: exit code 7"),
            format!(
                "<28>mainstay[{pid}]: orders: halted: exit code 7; its recovery policy does not restart it"
            ),
        ]
    );
}
