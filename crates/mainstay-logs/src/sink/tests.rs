//! Tests with real receivers if installed (rsyslogd, systemd-journald), and with test sockets that
//! stop reading, vanish and return.

use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use mainstay_core::log::Stream;
use mainstay_core::manifest::{Format, parse};
use mainstay_core::spec::{Facility, Level};
use mainstay_testkit::{Sandbox, free_port, skip, wait_until};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::spool::{Dropped, Spool};
use super::*;

const LIMIT: Duration = Duration::from_secs(20);

struct Rig {
    sandbox: Sandbox,
    hub: SinkHub,
    events: Receiver<SinkEvent>,
}

impl Rig {
    fn new() -> Self {
        Self::in_sandbox(Sandbox::new())
    }

    fn in_sandbox(sandbox: Sandbox) -> Self {
        let (sender, events) = mpsc::channel();
        let hub = SinkHub::new(sandbox.path().join("spool"), move |event| {
            let _the_test_may_be_over: Result<(), mpsc::SendError<_>> = sender.send(event);
        });
        Self {
            sandbox,
            hub,
            events,
        }
    }

    fn open(&mut self, service: &str, sink: &str) -> Sinks {
        self.hub
            .open(&name(service), &specs(sink), self.sandbox.path())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path().join(name)
    }

    #[track_caller]
    fn failing(&self) -> String {
        match self.events.recv_timeout(LIMIT) {
            Ok(SinkEvent::Failing { error, .. }) => error,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn recovered(&self) -> Vec<(ServiceName, Lost)> {
        match self.events.recv_timeout(LIMIT) {
            Ok(SinkEvent::Recovered { dropped, .. }) => dropped,
            other => panic!("{other:?}"),
        }
    }
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

/// Returns the sinks in the form of a manifest.
fn specs(sink: &str) -> Vec<SinkSpec> {
    let text = format!("[service.a]\ncommand = ['a']\nlog.sinks = [{sink}]");
    let specs = parse(&text, Format::Toml).unwrap();
    specs[0].log().sinks().to_vec()
}

fn line(message: &[u8]) -> Line<'_> {
    Line {
        time_ns: 1_795_342_272_123_456_789,
        level: Some(Level::Error),
        stream: Some(Stream::Stderr),
        pid: 4711,
        restart: 3,
        message,
        partial: false,
    }
}

fn send(sinks: &mut Sinks, message: &str) {
    sinks.push(&line(message.as_bytes()));
    sinks.flush();
}

/// Waits until the target's thread has taken most of the pushed lines, sent or not, because a test
/// pushes faster than any program writes.
fn settle(sinks: &Sinks) {
    let shared = &sinks.targets[0].1;
    wait_until("room in the queue", LIMIT, || {
        (shared.lock().bytes <= QUEUE / 2).then_some(())
    });
}

/// Accepts the next connection, with a time limit for it and for reading from it.
fn accept(listener: &TcpListener) -> TcpStream {
    set_socket_timeout(listener, Timeout::Recv, Some(LIMIT)).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn accept_local(listener: &UnixListener) -> UnixStream {
    set_socket_timeout(listener, Timeout::Recv, Some(LIMIT)).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Sends to a receiver until it accepts nothing more, from as many sockets as necessary.
fn fill(path: &Path) {
    loop {
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(path).unwrap();
        let mut sent = 0;
        while socket.send(b"-").is_ok() {
            sent += 1;
        }
        if sent == 0 {
            return;
        }
    }
}

/// A child process that is killed and waited for on drop.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _it_may_have_ended: std::io::Result<()> = self.0.kill();
        let _nothing_to_do: std::io::Result<std::process::ExitStatus> = self.0.wait();
    }
}

/// Reads the messages of a connection with octet counting.
fn read_counted(stream: &mut impl std::io::Read) -> Vec<String> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let mut rest = &all[..];
    let mut messages = Vec::new();
    while let Some(space) = rest.iter().position(|b| *b == b' ') {
        let length: usize = std::str::from_utf8(&rest[..space])
            .unwrap()
            .parse()
            .unwrap();
        let Some(frame) = rest.get(space + 1..space + 1 + length) else {
            break; // torn by a broken connection
        };
        let frame = String::from_utf8(frame.to_vec()).unwrap();
        messages.push(frame.split_once("] ").unwrap().1.to_owned());
        rest = &rest[space + 1 + length..];
    }
    messages
}

// Test receivers

#[test]
fn without_sinks_nothing_is_kept() {
    let mut rig = Rig::new();
    let mut sinks = rig.hub.open(&name("a"), &[], rig.sandbox.path());
    assert!(sinks.is_empty());
    send(&mut sinks, "x");
    assert!(sinks.pending.is_empty());
    assert_eq!(rig.hub.close(LIMIT), []);
}

#[test]
fn services_share_a_connection_and_all_is_sent_before_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sink = format!("'syslog+tcp://{}'", listener.local_addr().unwrap());
    let mut rig = Rig::new();
    let mut sinks = [rig.open("orders", &sink), rig.open("db", &sink)];
    let reader = thread::spawn(move || {
        let messages = read_counted(&mut accept(&listener));
        listener.set_nonblocking(true).unwrap();
        (messages, listener.accept().is_ok())
    });
    for i in 0..20_000 {
        send(&mut sinks[i % 2], &format!("line {i}"));
        if i % 500 == 0 {
            thread::yield_now();
        }
    }
    drop(sinks);
    assert_eq!(rig.hub.close(LIMIT), []);
    let (messages, again) = reader.join().unwrap();
    let expected: Vec<_> = (0..20_000).map(|i| format!("line {i}")).collect();
    assert_eq!(messages, expected);
    assert!(!again);
    assert_eq!(rig.events.try_recv().ok(), None);
}

/// The receiver stops reading: the queue fills, then the spool, then lines are dropped. When it
/// reads again, the remaining lines arrive in order, and the number of dropped ones is reported
/// exactly.
#[test]
fn a_slow_receiver_costs_only_the_oldest_lines_and_is_told_how_many() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut rig = Rig::new();
    let mut sinks = rig.open(
        "orders",
        &format!("{{ to = 'syslog+tcp://{address}', spool = '1MB' }}"),
    );
    send(&mut sinks, "0");
    let mut stream = accept(&listener);
    let filler = "x".repeat(1000);
    let total = 40_000;
    for i in 1..total {
        send(&mut sinks, &format!("{i} {filler}"));
        if i % 250 == 0 {
            settle(&sinks);
        }
    }
    assert!(rig.failing().contains("faster"));
    let spool_dir = rig.path("spool");
    let size: u64 = wait_until("a full spool", LIMIT, || {
        let dir = fs::read_dir(&spool_dir).ok()?.next()?.ok()?.path();
        let files = fs::read_dir(dir).ok()?;
        let size = files
            .filter_map(|f| Some(f.ok()?.metadata().ok()?.len()))
            .sum();
        (size > 500_000).then_some(size)
    });
    // During the check, one segment may be removed and another added.
    assert!(size <= 1_000_100 + 1_000_000 / 8, "{size}");

    let reader = thread::spawn(move || read_counted(&mut stream));
    assert_eq!(rig.hub.close(LIMIT), []);
    let messages = reader.join().unwrap();
    let number = |message: &String| message.split(' ').next().unwrap().parse::<usize>().ok();
    let numbers: Vec<_> = messages.iter().filter_map(number).collect();
    assert!(
        numbers.is_sorted_by(|a, b| a < b),
        "in order, and none twice"
    );
    assert_eq!(numbers.last(), Some(&(total - 1)), "the newest are there");
    // Usually once; more often if this test was delayed for so long that everything could be sent
    // in between.
    let mut all = Lost::default();
    let mut expected = Vec::new();
    for event in rig.events.try_iter() {
        let SinkEvent::Recovered { dropped, .. } = event else {
            continue;
        };
        let [(service, lost)] = &*dropped else {
            panic!("{dropped:?}")
        };
        assert_eq!(service.as_str(), "orders");
        all += *lost;
        let Lost { lines, bytes } = lost;
        expected.push(format!(
            "mainstay: {lines} lines ({bytes} bytes) of orders were dropped: lines arrive faster than it accepts them"
        ));
    }
    assert!(all.lines > 1000);
    assert_eq!(
        numbers.len() as u64 + all.lines,
        total as u64,
        "sent + dropped = pushed"
    );
    let pushed: usize = 1
        + (1..total)
            .map(|i| i.to_string().len() + 1001)
            .sum::<usize>();
    let (notices, lines): (Vec<_>, Vec<_>) = messages
        .into_iter()
        .partition(|message| message.starts_with("mainstay: "));
    let sent: usize = lines.iter().map(String::len).sum();
    assert_eq!(sent as u64 + all.bytes, pushed as u64);
    assert_eq!(notices, expected);
}

#[test]
fn what_nobody_takes_survives_the_supervisor_and_comes_once_and_in_order() {
    let port = free_port();
    let sink = format!("'syslog+tcp://127.0.0.1:{port}'");
    let mut sandbox = Sandbox::new();
    for run in 0..3 {
        let mut rig = Rig::in_sandbox(sandbox);
        let mut sinks = rig.open("orders", &sink);
        for i in 0..2000 {
            send(&mut sinks, &format!("line {run} {i}"));
        }
        assert!(rig.failing().contains("connect to 127.0.0.1"));
        drop(sinks);
        assert_eq!(rig.hub.close(Duration::from_secs(5)), []);
        sandbox = rig.sandbox;
    }
    let dir = fs::read_dir(sandbox.path().join("spool")).unwrap();
    let dir = dir.map(|entry| entry.unwrap().path()).next().unwrap();
    assert!(
        dir.ends_with(format!("syslog+tcp%3A%2F%2F127.0.0.1%3A{port}")),
        "{dir:?}"
    );
    assert_eq!(
        fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
    for file in fs::read_dir(&dir).unwrap() {
        assert_eq!(
            file.unwrap().metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut rig = Rig::in_sandbox(sandbox);
    let mut sinks = rig.open("orders", &sink);
    send(&mut sinks, "the newest");
    drop(sinks);
    let reader = thread::spawn(move || read_counted(&mut accept(&listener)));
    assert_eq!(rig.hub.close(LIMIT), []);
    let mut expected: Vec<_> = (0..6000)
        .map(|i| format!("line {} {}", i / 2000, i % 2000))
        .collect();
    expected.push("the newest".to_owned());
    assert_eq!(reader.join().unwrap(), expected);
    let left = fs::read_dir(&dir).unwrap().filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".spool")
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn a_receiver_that_ends_the_connection_while_nothing_is_sent_costs_no_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut rig = Rig::new();
    let mut sinks = rig.open(
        "a",
        &format!("'syslog+tcp://{}'", listener.local_addr().unwrap()),
    );
    let mut expected = Vec::new();
    let mut messages = Vec::new();
    for i in 0..200 {
        let message = format!("line {}", i % 10);
        send(&mut sinks, &message);
        let mut stream = accept(&listener);
        let mut frame = vec![0; 4];
        stream.read_exact(&mut frame).unwrap();
        let (length, part) = std::str::from_utf8(&frame)
            .unwrap()
            .split_once(' ')
            .unwrap();
        let mut rest = vec![0; length.parse::<usize>().unwrap() - part.len()];
        stream.read_exact(&mut rest).unwrap();
        let text = String::from_utf8(rest).unwrap();
        messages.push(text.split_once("] ").unwrap().1.to_owned());
        expected.push(message);
        // Either the end is detected while nothing is to be sent, or the next line arrives at the
        // same moment.
        if i % 2 == 0 {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
    }
    assert_eq!(messages, expected);
}

#[test]
fn a_receiver_that_breaks_the_connection_gets_the_rest_over_the_next_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut rig = Rig::new();
    let mut sinks = rig.open(
        "a",
        &format!("'syslog+tcp://{}'", listener.local_addr().unwrap()),
    );
    let filler = "x".repeat(2000);
    let reader = thread::spawn(move || {
        // Reads a little, and closes with much unread: lines that the system had accepted are lost.
        accept(&listener).read_exact(&mut [0; 5000]).unwrap();
        read_counted(&mut accept(&listener))
    });
    for i in 0..5000 {
        send(&mut sinks, &format!("{i} {filler}"));
        if i % 100 == 0 {
            settle(&sinks);
        }
    }
    drop(sinks);
    assert_eq!(rig.hub.close(LIMIT), []);
    let messages = reader.join().unwrap();
    let number = |message: &String| message.split(' ').next()?.parse::<usize>().ok();
    let numbers: Vec<_> = messages.iter().filter_map(number).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "no gap, and none twice"
    );
    assert_eq!(numbers.last(), Some(&4999));
}

/// The connection is lost just before the end, which is no reason to leave lines behind.
#[test]
fn a_receiver_that_is_back_at_the_end_gets_what_waits() {
    let mut rig = Rig::new();
    let (port, path) = (free_port(), rig.path("log"));
    let mut remote = rig.open("a", &format!("'syslog+tcp://127.0.0.1:{port}'"));
    send(&mut remote, "waits");
    assert!(rig.failing().contains("connect to 127.0.0.1"));
    let mut local = rig.open("a", &format!("'syslog+unix://{}'", path.display()));
    send(&mut local, "waits");
    assert!(rig.failing().contains("log: "));
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(LIMIT)).unwrap();
    let reader = thread::spawn(move || read_counted(&mut accept(&listener)));
    drop((remote, local));
    assert_eq!(rig.hub.close(LIMIT), []);
    assert_eq!(reader.join().unwrap(), ["waits"]);
    let mut buffer = [0; 100];
    let size = receiver.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..size], b"<27>a[4711]: waits");
}

#[test]
fn a_receiver_that_does_not_read_delays_the_end_no_longer_than_it_may() {
    let mut rig = Rig::new();
    let (datagrams, stream) = (rig.path("datagrams"), rig.path("stream"));
    let _datagrams = UnixDatagram::bind(&datagrams).unwrap();
    let _stream = UnixListener::bind(&stream).unwrap();
    let remote = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = [datagrams, stream].map(|path| format!("'syslog+unix://{}'", path.display()));
    let remote_sink = format!("'syslog+tcp://{}'", remote.local_addr().unwrap());
    let mut sinks = [&*local[0], &local[1], &remote_sink].map(|sink| rig.open("a", sink));
    let message = "x".repeat(30_000);
    for _ in 0..1000 {
        for sinks in &mut sinks {
            send(sinks, &message);
        }
    }
    drop(sinks);
    let began = Instant::now();
    let lost = rig.hub.close(Duration::from_millis(200));
    // The limit, plus the time to store the rest on a disk.
    assert!(began.elapsed() < Duration::from_secs(10));
    for kind in ["datagrams", "stream"] {
        let of = |(sink, ..): &&(SinkTarget, ServiceName, Lost)| sink.to_string().ends_with(kind);
        let (_, _, lost) = lost.iter().find(of).unwrap();
        assert!(
            lost.lines > 900 && lost.bytes == lost.lines * 30_000,
            "{lost:?}"
        );
    }
}

#[test]
fn refused_datagrams_are_counted_and_sending_goes_on() {
    let port = free_port();
    let mut rig = Rig::new();
    let mut sinks = rig.open("a", &format!("'syslog+udp://127.0.0.1:{port}'"));
    send(&mut sinks, "lost");
    assert!(rig.failing().contains("refused"));
    let receiver = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut buffer = [0; 9000];
    let long = "ü".repeat(8000);
    send(&mut sinks, &long);
    let size = wait_until("a datagram", LIMIT, || receiver.recv(&mut buffer).ok());
    let text = std::str::from_utf8(&buffer[..size]).unwrap();
    assert!(
        size > 8100 && size <= 8192 && text.contains(" cut=\""),
        "{size}"
    );
    // A receiver has recovered if it has refused nothing for a while; it is told with the next
    // lines.
    let (dropped, notice) = wait_until("the end of trouble", LIMIT, || {
        send(&mut sinks, "more");
        let size = receiver.recv(&mut buffer).ok()?;
        let text = String::from_utf8(buffer[..size].to_vec()).unwrap();
        text.contains("mainstay: ").then(|| (rig.recovered(), text))
    });
    assert_eq!(dropped, [(name("a"), Lost { lines: 1, bytes: 4 })]);
    assert!(
        notice.contains("mainstay: 1 lines (4 bytes) of a were dropped"),
        "{notice}"
    );
}

#[test]
fn a_local_daemon_that_does_not_read_costs_the_oldest_lines() {
    let mut rig = Rig::new();
    let path = rig.path("log");
    let receiver = UnixDatagram::bind(&path).unwrap();
    fill(&path);
    let mut sinks = rig.open("a", &format!("'syslog+unix://{}'", path.display()));
    let filler = "x".repeat(1000);
    let total = 10_000_u64;
    for i in 0..total {
        send(&mut sinks, &format!("{i} {filler}"));
    }
    // Reported while the receiver hangs, not only once it is given up.
    assert!(rig.failing().contains("faster"));
    receiver.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = [0; 2000];
    let mut numbers = Vec::new();
    let lost = loop {
        let size = receiver.recv(&mut buffer).unwrap();
        if size == 1 {
            continue; // sent by `fill`
        }
        let text = std::str::from_utf8(&buffer[..size]).unwrap();
        let message = text.split_once(": ").unwrap().1;
        let word = message.split(' ').next().unwrap();
        match word.parse::<u64>() {
            Ok(number) => numbers.push(number),
            Err(_) => break message.split(' ').nth(1).unwrap().parse::<u64>().unwrap(),
        }
    };
    assert!(numbers.is_sorted_by(|a, b| a < b));
    assert_eq!(numbers.last(), Some(&(total - 1)));
    assert_eq!(numbers.len() as u64 + lost, total);
    assert_eq!(rig.recovered()[0].1.lines, lost);
    // The receiver disappears and returns: only bounded memory is available.
    drop(receiver);
    fs::remove_file(&path).unwrap();
    send(&mut sinks, "waits");
    assert!(rig.failing().contains("log: "));
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(LIMIT)).unwrap();
    let size = receiver.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..size], b"<27>a[4711]: waits");
    assert_eq!(rig.recovered(), []);
}

#[test]
fn what_a_local_daemon_never_took_is_told_at_the_end() {
    let mut rig = Rig::new();
    let path = rig.path("nobody");
    let mut sinks = rig.open("a", &format!("'journald+unix://{}'", path.display()));
    send(&mut sinks, "four");
    rig.failing();
    drop(sinks);
    let lost = rig.hub.close(LIMIT);
    let [(sink, service, Lost { lines: 1, bytes: 4 })] = &*lost else {
        panic!("{lost:?}")
    };
    assert_eq!(
        (sink.to_string(), service.as_str()),
        (format!("journald+unix://{}", path.display()), "a")
    );
}

#[test]
fn a_local_daemon_may_listen_for_a_stream() {
    let mut rig = Rig::new();
    let path = rig.path("log");
    let listener = UnixListener::bind(&path).unwrap();
    let mut sinks = rig.open(
        "a",
        &format!(
            "{{ to = 'syslog+unix://{}', facility = 'local7' }}",
            path.display()
        ),
    );
    send(&mut sinks, "one");
    send(&mut sinks, "two\0three");
    let expected = "<187>a[4711]: one\0<187>a[4711]: two three\0";
    let mut stream = accept_local(&listener);
    let mut all = vec![0; expected.len()];
    stream.read_exact(&mut all).unwrap();
    assert_eq!(String::from_utf8_lossy(&all), expected);
    // The receiver closes the connection: the next line goes over another one.
    drop(stream);
    send(&mut sinks, "four");
    let mut rest = String::new();
    let mut stream = accept_local(&listener);
    drop(sinks);
    assert_eq!(rig.hub.close(LIMIT), []);
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "<187>a[4711]: four\0");
}

// The spool

fn block(text: &str, lines: usize) -> Block {
    let mut data = Vec::new();
    for i in 0..lines {
        record::put(&line(format!("{text} {i}").as_bytes()), &mut data);
    }
    let source = Source {
        service: name("orders"),
        facility: Facility::Local3,
    };
    Block::new(Arc::new(source), Arc::new(data))
}

fn messages(block: &Block) -> Vec<String> {
    let text = |(line, _): (Line<'_>, usize)| String::from_utf8(line.message.to_vec()).unwrap();
    block.lines().map(text).collect()
}

fn drain(spool: &mut Spool) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(block) = spool.next(&mut Lost::default()) {
        assert_eq!(block.source.facility, Facility::Local3);
        all.extend(messages(&block));
        spool.confirm();
    }
    assert!(spool.is_empty());
    all
}

#[test]
fn a_spool_keeps_order_and_place_over_restarts() {
    let sandbox = Sandbox::new();
    let open = || Spool::open(sandbox.path().join("spool"), 1_000_000).unwrap();
    let dropped = &mut Dropped::new();
    let mut spool = open();
    assert!(spool.is_empty() && !sandbox.path().join("spool").exists());
    for text in ["a", "b", "c"] {
        spool.append(&block(text, 2), dropped).unwrap();
    }
    let mut first = spool.next(&mut Lost::default()).unwrap();
    spool.confirm();
    assert_eq!(messages(&first), ["a 0", "a 1"]);
    first = spool.next(&mut Lost::default()).unwrap();
    let end = first.first().unwrap().1;
    first.sent_up_to(end);
    spool.put_back(&first).unwrap();
    drop(spool);
    // A second process: the sent half does not arrive again, and new blocks come last.
    let mut spool = open();
    spool.append(&block("d", 1), dropped).unwrap();
    let second = spool.next(&mut Lost::default()).unwrap();
    assert_eq!(messages(&second), ["b 1"]);
    drop(spool);
    // A third process, because the second one was killed before the block was confirmed.
    let mut spool = open();
    assert_eq!(drain(&mut spool), ["b 1", "c 0", "c 1", "d 0"]);
    // A block taken from memory goes before all later ones.
    spool.append(&block("f", 1), dropped).unwrap();
    spool.put_back(&block("e", 1)).unwrap();
    drop(spool);
    assert_eq!(drain(&mut open()), ["e 0", "f 0"]);
    // The old cursor does not apply to new segments.
    let mut spool = open();
    spool.append(&block("g", 1), dropped).unwrap();
    drop(spool);
    assert_eq!(drain(&mut open()), ["g 0"]);
    assert!(dropped.is_empty());
}

#[test]
fn a_torn_or_changed_segment_loses_no_more_than_its_end() {
    let sandbox = Sandbox::new();
    let dir = sandbox.path().join("spool");
    let write = || {
        let mut spool = Spool::open(dir.clone(), 1_000_000).unwrap();
        for text in ["a", "b"] {
            spool.append(&block(text, 1), &mut Dropped::new()).unwrap();
        }
        let files = fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path());
        let segments = files.filter(|path| path.extension().is_some_and(|e| e == "spool"));
        segments.max().unwrap()
    };
    let whole = fs::read(write()).unwrap();
    drain(&mut Spool::open(dir.clone(), 1_000_000).unwrap());
    let second = whole.len() - (whole.len() - 17) / 2;
    for size in 0..whole.len() {
        let path = write();
        fs::write(&path, &whole[..size]).unwrap();
        let mut spool = Spool::open(dir.clone(), 1_000_000).unwrap();
        spool.append(&block("c", 1), &mut Dropped::new()).unwrap();
        let expected: &[&str] = if size < second {
            &["c 0"]
        } else {
            &["a 0", "c 0"]
        };
        assert_eq!(drain(&mut spool), expected, "{size}");
        let mut changed = whole.clone();
        changed[size] ^= 1;
        let path = write();
        fs::write(&path, &changed).unwrap();
        let mut spool = Spool::open(dir.clone(), 1_000_000).unwrap();
        assert!(drain(&mut spool).len() < 2, "{size}");
    }
}

#[test]
fn a_full_spool_drops_the_oldest_and_counts_it() {
    let sandbox = Sandbox::new();
    let mut spool = Spool::open(sandbox.path().join("spool"), 1_000_000).unwrap();
    let mut dropped = Dropped::new();
    let mut held = None;
    for i in 0..3000 {
        spool
            .append(&block(&i.to_string(), 20), &mut dropped)
            .unwrap();
        if i == 1 {
            held = spool.next(&mut Lost::default());
        }
    }
    let lost = dropped[&name("orders")].lines;
    // The block in hand is not counted, because it may still be sent; here it is put back before
    // all others.
    spool.put_back(held.as_ref().unwrap()).unwrap();
    let left = drain(&mut spool);
    assert_eq!(left[0], "0 0");
    assert_eq!(
        left[20].split(' ').next().unwrap().parse::<u64>().unwrap(),
        lost / 20 + 1
    );
    assert_eq!(left.last().unwrap(), "2999 19");
    assert_eq!(lost + left.len() as u64, 60_000);
}

// Programs

fn program(path: &str) -> bool {
    Path::new(path).exists()
}

fn rsyslogd(sandbox: &Sandbox, config: &str) -> Daemon {
    let config = sandbox.write("rsyslog.conf", config);
    let pid_path = sandbox.path().join("rsyslog.pid");
    let child = sandbox
        .command("/usr/sbin/rsyslogd")
        .args(["-n", "-f"])
        .arg(&config)
        .arg("-i")
        .arg(pid_path)
        .stdout(Stdio::null())
        .stderr(fs::File::create(sandbox.path().join("rsyslog.err")).unwrap())
        .spawn();
    Daemon(child.unwrap())
}

/// An rsyslog template that prints the properties of a message.
const TEMPLATE: &str = r#"template(name="told" type="string" string="%inputname%|%pri%|%timereported:::date-rfc3339%|%app-name%|%procid%|%structured-data%|%msg%\n")"#;

#[test]
fn rsyslog_takes_lines_over_udp_tcp_and_its_socket() {
    if !program("/usr/sbin/rsyslogd") {
        return skip("rsyslog is not installed");
    }
    let mut rig = Rig::new();
    let (tcp, udp) = (free_port(), free_port());
    let (out, socket) = (rig.path("out"), rig.path("log"));
    let (out_shown, socket_shown) = (out.display(), socket.display());
    let config = format!(
        r#"module(load="imtcp") module(load="imudp") module(load="imuxsock" SysSock.Use="on" SysSock.Name="{socket_shown}")
input(type="imtcp" address="127.0.0.1" port="{tcp}")
input(type="imudp" address="127.0.0.1" port="{udp}")
{TEMPLATE}
*.* action(type="omfile" file="{out_shown}" template="told")
"#
    );
    let _daemon = rsyslogd(&rig.sandbox, &config);
    wait_until("rsyslogd", LIMIT, || {
        TcpStream::connect(("127.0.0.1", tcp)).ok()
    });
    for (sink, input) in [
        (format!("'syslog+tcp://127.0.0.1:{tcp}'"), "imtcp"),
        (format!("'syslog+udp://127.0.0.1:{udp}'"), "imudp"),
        (format!("'syslog+unix://{socket_shown}'"), "imuxsock"),
    ] {
        let mut sinks = rig.open("orders", &sink);
        send(&mut sinks, &format!("bücher \"]\\ over {input}"));
    }
    let told = wait_until("three lines", LIMIT, || {
        let text = fs::read_to_string(&out).ok()?;
        let lines: Vec<_> = text
            .lines()
            .filter(|l| l.contains("cher "))
            .map(str::to_owned)
            .collect();
        (lines.len() == 3).then_some(lines)
    });
    let find = |input: &str| told.iter().find(|l| l.starts_with(input)).unwrap().as_str();
    let rest = "27|2026-11-22T10:11:12.123456Z|orders|4711|[mainstay@32473 stream=\"stderr\" restart=\"3\"]|bücher \"]\\ over";
    for input in ["imtcp", "imudp"] {
        // An instant in UTC is shown sometimes in one form, sometimes in the other.
        let told = find(input).replacen("+00:00|", "Z|", 1);
        assert_eq!(told, format!("{input}|{rest} {input}"));
    }
    let local: Vec<_> = find("imuxsock").split('|').collect();
    assert_eq!(
        (local[1], local[3], local[4], local[6]),
        ("27", "orders", "4711", " bücher \"]\\ over imuxsock")
    );
    // Many lines, in order.
    let mut sinks = rig.open("many", &format!("'syslog+tcp://127.0.0.1:{tcp}'"));
    for i in 0..5000 {
        send(&mut sinks, &format!("number {i}"));
    }
    let all = wait_until("all lines", LIMIT, || {
        let text = fs::read_to_string(&out).ok()?;
        let lines: Vec<_> = text
            .lines()
            .filter(|l| l.contains("|number "))
            .map(str::to_owned)
            .collect();
        (lines.len() >= 5000).then_some(lines)
    });
    assert!(
        all.iter()
            .enumerate()
            .all(|(i, l)| l.ends_with(&format!("|number {i}")))
    );
}

/// Creates a CA, and a certificate for 127.0.0.1 signed by it.
fn certificates(dir: &Path) -> bool {
    let run = |args: &str| {
        let mut command = Command::new("openssl");
        command
            .args(args.split(' '))
            .current_dir(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    for ca in ["ca", "other"] {
        let request = format!(
            "req -x509 -newkey rsa:2048 -nodes -keyout {ca}.key -out {ca}.pem -subj /CN={ca} -days 2"
        );
        if !run(&request) {
            return false;
        }
    }
    for who in ["server", "client"] {
        let made = run(&format!(
            "req -newkey rsa:2048 -nodes -keyout {who}.key -out {who}.csr -subj /CN={who}"
        )) && run(&format!(
            "x509 -req -in {who}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {who}.pem -days 2 -extfile san"
        ));
        if !made {
            return false;
        }
    }
    true
}

#[test]
fn rsyslog_takes_lines_over_tls_from_those_it_trusts_and_who_trust_it() {
    let driver = "/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_ossl.so";
    if !program("/usr/sbin/rsyslogd") || !program(driver) {
        return skip("rsyslog and rsyslog-openssl are not installed");
    }
    let mut rig = Rig::new();
    if !certificates(rig.sandbox.path()) {
        return skip("openssl, which makes the certificates, is not installed");
    }
    let (open, strict) = (free_port(), free_port());
    let out = rig.path("out");
    let dir = rig.sandbox.path().display().to_string();
    let config = format!(
        r#"global(defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="{dir}/ca.pem" defaultNetstreamDriverCertFile="{dir}/server.pem" defaultNetstreamDriverKeyFile="{dir}/server.key")
module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1")
input(type="imtcp" address="127.0.0.1" port="{open}" streamdriver.mode="1" streamdriver.authmode="anon")
input(type="imtcp" address="127.0.0.1" port="{strict}" streamdriver.mode="1" streamdriver.authmode="x509/certvalid")
{TEMPLATE}
*.* action(type="omfile" file="{}" template="told")
"#,
        out.display()
    );
    let _daemon = rsyslogd(&rig.sandbox, &config);
    for port in [open, strict] {
        wait_until("rsyslogd", LIMIT, || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
    }
    let find = |text: &str, count: usize| {
        wait_until("lines over TLS", LIMIT, || {
            let all = fs::read_to_string(&out).ok()?;
            let lines: Vec<_> = all
                .lines()
                .filter(|l| l.contains(text))
                .map(str::to_owned)
                .collect();
            (lines.len() >= count).then_some(lines)
        })
    };

    let mut sinks = rig.open(
        "orders",
        &format!("{{ to = 'syslog+tls://127.0.0.1:{open}', ca = 'ca.pem' }}"),
    );
    for i in 0..1000 {
        send(&mut sinks, &format!("secure {i}"));
    }
    let lines = find("|secure ", 1000);
    assert!(
        lines
            .iter()
            .enumerate()
            .all(|(i, l)| l.ends_with(&format!("|secure {i}")))
    );
    assert!(lines[0].starts_with("imtcp|27|"), "{}", lines[0]);

    // A certificate of another CA, or a name that it does not contain: no line is sent.
    for (sink, cause) in [
        (
            format!("{{ to = 'syslog+tls://127.0.0.1:{open}', ca = 'other.pem' }}"),
            "UnknownIssuer",
        ),
        (
            format!("{{ to = 'syslog+tls://localhost:{open}', ca = 'ca.pem' }}"),
            "NotValidForName",
        ),
        (
            format!("{{ to = 'syslog+tls://localhost:{open}', ca = 'none.pem' }}"),
            "none.pem",
        ),
    ] {
        let mut other = Rig::new();
        for file in ["ca.pem", "other.pem"] {
            fs::copy(rig.path(file), other.path(file)).unwrap();
        }
        let mut sinks = other.open("orders", &sink);
        send(&mut sinks, "must not arrive");
        let error = other.failing();
        assert!(
            error.contains(cause) || error.contains("not valid for name"),
            "{error}"
        );
    }

    // A client without a certificate is refused before a line is lost; one with a certificate is
    // accepted.
    let mut sinks = rig.open(
        "b",
        &format!("{{ to = 'syslog+tls://127.0.0.1:{strict}', ca = 'ca.pem' }}"),
    );
    send(&mut sinks, "unknown");
    let error = rig.failing();
    assert!(error.contains("TLS with 127.0.0.1"), "{error}");
    drop(sinks);
    let strict_sink = format!(
        "{{ to = 'syslog+tls://127.0.0.1:{strict}', ca = 'ca.pem', cert = 'client.pem', key = 'client.key' }}"
    );
    let mut again = Rig::in_sandbox(Sandbox::new());
    for file in ["ca.pem", "client.pem", "client.key"] {
        fs::copy(rig.path(file), again.path(file)).unwrap();
    }
    let mut sinks = again.open("b", &strict_sink);
    send(&mut sinks, "known");
    find("|known", 1);
    let text = fs::read_to_string(&out).unwrap();
    assert!(
        !text.contains("unknown") && !text.contains("must not"),
        "{text}"
    );
}

/// Starts a journal for this test, in a mount namespace in which nothing else runs.
fn journald(sandbox: &Sandbox) -> Option<Daemon> {
    let path = sandbox.path();
    fs::create_dir_all(path.join("systemd/journal")).unwrap();
    fs::create_dir_all(path.join("log/journal")).unwrap();
    let config = "[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\nForwardToWall=no\nRateLimitIntervalSec=0\n";
    sandbox.write("journald.conf", config);
    let script = "mount --bind systemd /run/systemd && mount --bind log /run/log && \
        mount --bind journald.conf /etc/systemd/journald.conf && exec /lib/systemd/systemd-journald";
    let child = sandbox
        .command("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .stdout(Stdio::null())
        .stderr(fs::File::create(path.join("journald.err")).unwrap())
        .spawn();
    let mut daemon = Daemon(child.ok()?);
    let socket = path.join("systemd/journal/socket");
    wait_until("journald", LIMIT, || {
        let ended = daemon.0.try_wait().unwrap().is_some();
        (ended || socket.exists()).then_some(())
    });
    socket.exists().then_some(daemon)
}

#[test]
fn the_journal_takes_lines_with_their_fields_whatever_their_size() {
    let there = [
        "/lib/systemd/systemd-journald",
        "/run/systemd",
        "/run/log",
        "/etc/systemd/journald.conf",
    ];
    if let Some(lacks) = there.into_iter().find(|path| !program(path)) {
        return skip(format!("journald cannot run here: there is no {lacks}"));
    }
    let mut rig = Rig::new();
    let Some(_daemon) = journald(&rig.sandbox) else {
        return skip("journald cannot run here: this user may not mount");
    };
    let socket = rig.path("systemd/journal/socket");
    let mut sinks = rig.open("orders", &format!("'journald+unix://{}'", socket.display()));
    // Too large for a datagram, but small enough for the queue while the journal is still starting.
    let large = "large ".repeat(QUEUE / 10);
    for message in [
        b"plain \xc3\xbc".as_slice(),
        b"two\nlines",
        b"not \xff text \0",
        large.as_bytes(),
    ] {
        sinks.push(&line(message));
    }
    sinks.push(&Line {
        level: None,
        stream: None,
        pid: 0,
        partial: true,
        ..line(b"bare")
    });
    drop(sinks);
    let entries = wait_until("entries", LIMIT, || {
        let output = Command::new("journalctl")
            .args(["--output=json", "--all", "--directory"])
            .arg(rig.path("log/journal"))
            .arg("MAINSTAY_SERVICE=orders")
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let entries: Vec<serde_json::Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        (entries.len() >= 5).then_some(entries)
    });
    assert_eq!(entries.len(), 5);
    let first = &entries[0];
    for (field, value) in [
        ("MESSAGE", "plain ü"),
        ("PRIORITY", "3"),
        ("SYSLOG_FACILITY", "3"),
        ("SYSLOG_IDENTIFIER", "orders"),
        ("SYSLOG_PID", "4711"),
        ("MAINSTAY_RESTART", "3"),
        ("MAINSTAY_STREAM", "stderr"),
        ("MAINSTAY_TIME_NS", "1795342272123456789"),
        ("_TRANSPORT", "journal"),
    ] {
        assert_eq!(first[field], value, "{field}");
    }
    assert_eq!(entries[1]["MESSAGE"], "two\nlines");
    let bytes: Vec<u8> = serde_json::from_value(entries[2]["MESSAGE"].clone()).unwrap();
    assert_eq!(bytes, b"not \xff text \0");
    assert_eq!(
        entries[3]["MESSAGE"].as_str().map(str::len),
        Some(large.len()),
        "by a sealed file"
    );
    let last = &entries[4];
    assert_eq!(
        (&last["PRIORITY"], &last["MAINSTAY_PARTIAL"]),
        (&"6".into(), &"1".into())
    );
    assert!(last.get("SYSLOG_PID").is_none() && last.get("MAINSTAY_STREAM").is_none());
    assert_eq!(rig.events.try_recv().ok(), None);
}
