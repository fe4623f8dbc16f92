//! The thread of one target: takes blocks from the queue, sends them, and waits when necessary.
//!
//! The order of lines is: the block in hand, the spool, the queue in memory. The queue is also
//! served during a send or a wait: once much is queued in memory, or nothing can be sent at all,
//! the queue is moved to the spool. While there is nothing to send and the connection holds, the
//! thread does not wake up. A connection that breaks then is restored with the next line.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_core::log::Line;
use mainstay_core::spec::{Facility, Level, ServiceName, SinkTarget};

use super::delivery::Refusal;
use super::record::{self, Block, Source};
use super::spool::Spool;
use super::transport::Transport;
use super::{Events, Leftovers, Lost, Shared, SinkEvent};

/// The number of bytes in memory from which the queue is moved to the spool.
const SPILL: usize = super::QUEUE / 4;
/// The first pause before a reconnect, which doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The maximum pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The time after which a connection counts as stable: the next attempt is made at once, and its
/// loss alone is not reported.
const STEADY: Duration = Duration::from_secs(10);
/// The time without refusals after which a datagram receiver counts as recovered.
const QUIET: Duration = Duration::from_secs(2);

pub(super) struct Worker {
    shared: Arc<Shared>,
    transport: Transport,
    spool: Option<Spool>,
    alarm: Alarm,
    /// The number of consecutive failed attempts.
    tries: u32,
    connected_at: Instant,
    /// The time of the last refused datagram.
    refused_at: Option<Instant>,
    /// Mainstay's own lines, which are sent before all others.
    notices: Vec<Block>,
}

/// The reporter of failures, each once, and of recoveries.
struct Alarm {
    shared: Arc<Shared>,
    events: Events,
    reported: Option<Reported>,
}

/// A failure that was reported by [`SinkEvent::Failing`].
struct Reported {
    cause: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A failure that ends as soon as something is accepted.
    Connection,
    /// A failure that ends when nothing is queued any more.
    Overflow,
}

/// The origin of a block.
#[derive(Clone, Copy)]
enum Origin {
    /// One of Mainstay's own lines, which has no place among the other lines.
    Notice,
    Lines,
}

/// The result of a delivery. Except for `Sent`, some of the block may be left.
enum Outcome {
    Sent,
    Refused(Vec<(ServiceName, Lost)>, String),
    /// An existing connection failed.
    Broken(String),
    /// No connection could be made.
    Unreachable(String),
    TimeIsUp,
}

impl Worker {
    /// Runs until the target is closed. Returns the lines that were lost at the end.
    pub(super) fn run(
        shared: Arc<Shared>,
        transport: Transport,
        spool: Option<(PathBuf, u64)>,
        events: Events,
    ) -> Leftovers {
        let alarm = Alarm {
            shared: shared.clone(),
            events,
            reported: None,
        };
        let mut worker = Self {
            shared,
            transport,
            spool: None,
            alarm,
            tries: 0,
            connected_at: Instant::now(),
            refused_at: None,
            notices: Vec::new(),
        };
        if let Some((dir, limit)) = spool {
            let shown = dir.display().to_string();
            match Spool::open(dir, limit) {
                Ok(spool) => worker.spool = Some(spool),
                // Continue with the memory queue alone.
                Err(error) => {
                    let cause = format!("open spool {shown}: {error}");
                    worker.alarm.fail(Kind::Overflow, cause);
                }
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => {
                runtime.block_on(worker.work());
                // A name lookup may still be running, and cannot be interrupted.
                runtime.shutdown_background();
            }
            Err(error) => {
                let cause = format!("start a runtime: {error}");
                worker.alarm.fail(Kind::Connection, cause);
            }
        }
        worker.leave()
    }

    async fn work(&mut self) {
        loop {
            self.alarm.report_overflow();
            let Some((mut block, origin)) = self.next() else {
                if self.alarm.kind() == Some(Kind::Overflow) {
                    self.recover();
                    if !self.notices.is_empty() {
                        continue;
                    }
                }
                if self.closing().is_some() {
                    return self.transport.finish().await;
                }
                self.idle().await;
                continue;
            };
            let is_last_try = self.closing().is_some();
            let outcome = self.deliver(&mut block).await;
            match outcome {
                Outcome::Sent => {}
                _ => self.put_back(&block, origin),
            }
            match outcome {
                Outcome::Sent => self.sent(),
                Outcome::Refused(lost, cause) => self.refused(lost, cause),
                Outcome::Broken(cause) => self.broken(cause).await,
                Outcome::Unreachable(cause) => {
                    self.alarm.fail(Kind::Connection, cause);
                    if is_last_try {
                        return;
                    }
                    self.pause().await;
                }
                Outcome::TimeIsUp => return,
            }
        }
    }

    /// Waits for work.
    async fn idle(&mut self) {
        let refusal = tokio::select! {
            biased;
            refusal = self.transport.broken() => refusal,
            () = self.shared.wake.notified() => return,
        };
        match refusal {
            Refusal::Datagram { lost, cause } => self.refused(lost, cause),
            Refusal::Connection { cause } => self.broken(cause).await,
            Refusal::Closed => self.transport.disconnect(),
        }
    }

    /// Connects if necessary, and marks in `block` the lines that were sent.
    async fn deliver(&mut self, block: &mut Block) -> Outcome {
        // A closed connection is detected only once the runtime has polled the system again, which
        // it does when a task yields. Polling it together with the queue would not be enough,
        // because a new line alone would wake the task.
        tokio::task::yield_now().await;
        let refusal = tokio::select! {
            biased;
            refusal = self.transport.broken() => Err(refusal),
            () = std::future::ready(()) => Ok(()),
        };
        match refusal {
            Ok(()) => {}
            Err(Refusal::Datagram { lost, cause }) => return Outcome::Refused(lost, cause),
            Err(Refusal::Connection { cause }) => return Outcome::Broken(cause),
            Err(Refusal::Closed) => self.transport.disconnect(),
        }
        if !self.transport.is_connected() {
            let connection = match self.tries {
                0 => Connection::Up,
                _ => Connection::Down,
            };
            let connect = self.transport.connect();
            match while_taking_in(&mut self.alarm, &mut self.spool, connection, connect).await {
                Some(Ok(())) => self.connected_at = Instant::now(),
                Some(Err(error)) => return Outcome::Unreachable(error.to_string()),
                None => return Outcome::TimeIsUp,
            }
        }
        let send = self.transport.send(block);
        match while_taking_in(&mut self.alarm, &mut self.spool, Connection::Up, send).await {
            Some(Ok(())) => Outcome::Sent,
            Some(Err(Refusal::Datagram { lost, cause })) => Outcome::Refused(lost, cause),
            Some(Err(Refusal::Connection { cause })) => Outcome::Broken(cause),
            Some(Err(Refusal::Closed)) => Outcome::Broken("closed by the receiver".to_owned()),
            None => Outcome::TimeIsUp,
        }
    }

    /// Handles a lost connection, which may have lost lines that it had accepted.
    async fn broken(&mut self, cause: String) {
        self.transport.disconnect();
        if self.connected_at.elapsed() >= STEADY {
            self.tries = 0;
            return;
        }
        self.alarm.fail(Kind::Connection, cause);
        self.pause().await;
    }

    fn sent(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.confirm();
        }
        if self.connected_at.elapsed() >= STEADY {
            self.tries = 0;
        }
        let is_over = self.alarm.kind() == Some(Kind::Connection)
            && self.refused_at.is_none_or(|at| at.elapsed() >= QUIET);
        if is_over {
            self.recover();
        }
    }

    /// Pauses before the next attempt. During closing the pause is short, so that a target that has
    /// just disappeared may return in time.
    async fn pause(&mut self) {
        let began = Instant::now();
        let pause = pause(self.tries);
        self.tries = self.tries.saturating_add(1);
        loop {
            let pause = match self.closing() {
                Some(_) => pause.min(FIRST_PAUSE),
                None => pause,
            };
            spill(&self.shared, &mut self.spool, Connection::Down);
            tokio::select! {
                () = tokio::time::sleep_until((began + pause).into()) => return,
                () = self.shared.wake.notified() => {}
            }
        }
    }

    /// Handles refused datagrams, which cannot be sent again. Others may arrive.
    fn refused(&mut self, lost: Vec<(ServiceName, Lost)>, cause: String) {
        self.refused_at = Some(Instant::now());
        let mut queue = self.shared.lock();
        for (service, lost) in lost {
            *queue.dropped.entry(service).or_default() += lost;
        }
        drop(queue);
        self.alarm.fail(Kind::Connection, cause);
    }

    fn next(&mut self) -> Option<(Block, Origin)> {
        if let Some(notice) = self.notices.pop() {
            return Some((notice, Origin::Notice));
        }
        if let Some(spool) = &mut self.spool {
            let mut damaged = Lost::default();
            let block = spool.next(&mut damaged);
            if damaged != Lost::default() {
                let message = format!("skipped {} damaged bytes of the spool", damaged.bytes);
                self.alarm.fail(Kind::Overflow, message);
            }
            if let Some(block) = block {
                return Some((block, Origin::Lines));
            }
        }
        let block = self.shared.lock().pop_front()?;
        Some((block, Origin::Lines))
    }

    /// Makes the rest of `block` the next block again.
    fn put_back(&mut self, block: &Block, origin: Origin) {
        if let Origin::Notice = origin {
            if !block.rest().is_empty() {
                self.notices.push(block.clone());
            }
            return;
        }
        if block.rest().is_empty() {
            if let Some(spool) = &mut self.spool {
                spool.confirm();
            }
            return;
        }
        let kept = self.spool.as_mut().map(|spool| spool.put_back(block));
        if !matches!(kept, Some(Ok(()))) {
            self.shared.lock().push_front(block.clone());
        }
    }

    fn closing(&self) -> Option<Instant> {
        self.shared.lock().closing
    }

    fn recover(&mut self) {
        self.refused_at = None;
        let notices = self.alarm.recover();
        self.notices.extend(notices);
    }

    /// Stores remaining lines for the next process, and returns those that cannot be stored.
    fn leave(mut self) -> Leftovers {
        spill(&self.shared, &mut self.spool, Connection::Down);
        let mut dropped = Leftovers::new();
        if let Some(spool) = &mut self.spool {
            for notice in &self.notices {
                // The event has already reported it; the notice is added if possible.
                let _as_well_as_it_goes: std::io::Result<()> = spool.append(notice, &mut dropped);
            }
        }
        let mut queue = self.shared.lock();
        while let Some(block) = queue.pop_front() {
            queue.count(&block);
        }
        for (service, lost) in std::mem::take(&mut queue.dropped) {
            *dropped.entry(service).or_default() += lost;
        }
        dropped
    }
}

impl Alarm {
    fn kind(&self) -> Option<Kind> {
        self.reported.as_ref().map(|reported| reported.kind)
    }

    /// Reports a failure once.
    fn fail(&mut self, kind: Kind, cause: String) {
        if self.reported.is_some() {
            return;
        }
        let (sink, services) = self.who();
        (self.events)(SinkEvent::Failing {
            sink,
            services,
            error: cause.clone(),
        });
        self.reported = Some(Reported { cause, kind });
    }

    fn report_overflow(&mut self) {
        if self.reported.is_none() && !self.shared.lock().dropped.is_empty() {
            self.fail(
                Kind::Overflow,
                "lines arrive faster than it accepts them".to_owned(),
            );
        }
    }

    /// Returns the notices for the target, the last one first.
    fn recover(&mut self) -> Vec<Block> {
        let Some(reported) = self.reported.take() else {
            return Vec::new();
        };
        let dropped = std::mem::take(&mut self.shared.lock().dropped);
        let dropped: Vec<_> = dropped.into_iter().collect();
        let notices = dropped.iter().rev();
        let notices = notices
            .map(|(name, lost)| notice(name, *lost, &reported.cause))
            .collect();
        let (sink, services) = self.who();
        (self.events)(SinkEvent::Recovered {
            sink,
            services,
            dropped,
        });
        notices
    }

    fn who(&self) -> (SinkTarget, Vec<ServiceName>) {
        let services = self.shared.lock().services.iter().cloned().collect();
        (self.shared.target.clone(), services)
    }
}

/// The connection to a target, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Up,
    /// Nothing can be sent.
    Down,
}

/// Performs `work`, and meanwhile serves the queue and reports an overflow. Returns `None` if the
/// time limit has passed.
async fn while_taking_in<T>(
    alarm: &mut Alarm,
    spool: &mut Option<Spool>,
    connection: Connection,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    let shared = alarm.shared.clone();
    loop {
        spill(&shared, spool, connection);
        alarm.report_overflow();
        let closing = shared.lock().closing;
        // Work that never waits would not give the timer below a chance to run.
        if closing.is_some_and(|deadline| Instant::now() >= deadline) {
            return None;
        }
        let time_is_up = async {
            match closing {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = shared.wake.notified() => {}
            () = time_is_up => return None,
        }
    }
}

/// Moves the queue to the spool, if there is one and it is due. Blocks that the disk refuses stay
/// in memory, which has a limit of its own.
fn spill(shared: &Shared, spool: &mut Option<Spool>, connection: Connection) {
    let Some(spool) = spool else { return };
    let blocks = {
        let mut queue = shared.lock();
        if queue.bytes == 0 || (connection == Connection::Up && queue.bytes < SPILL) {
            return;
        }
        queue.bytes = 0;
        std::mem::take(&mut queue.blocks)
    };
    let mut dropped = Leftovers::new();
    let mut blocks = blocks.into_iter();
    let mut refused = None;
    for block in blocks.by_ref() {
        if spool.append(&block, &mut dropped).is_err() {
            refused = Some(block);
            break;
        }
    }
    let mut queue = shared.lock();
    for (service, lost) in dropped {
        *queue.dropped.entry(service).or_default() += lost;
    }
    let kept: Vec<Block> = refused.into_iter().chain(blocks).collect();
    for block in kept.into_iter().rev() {
        queue.push_front(block);
    }
}

/// Creates a line by Mainstay itself, in the name of the service that it is about.
fn notice(service: &ServiceName, lost: Lost, cause: &str) -> Block {
    let Lost { lines, bytes } = lost;
    let message =
        format!("mainstay: {lines} lines ({bytes} bytes) of {service} were dropped: {cause}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let line = Line {
        time_ns: now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)),
        level: Some(Level::Warn),
        stream: None,
        pid: std::process::id(),
        restart: 0,
        message: message.as_bytes(),
        partial: false,
    };
    let mut data = Vec::new();
    record::put(&line, &mut data);
    let source = Source {
        service: service.clone(),
        facility: Facility::Daemon,
    };
    Block::new(Arc::new(source), Arc::new(data))
}

/// Returns the next pause: doubled, and randomly up to half shorter, so that hosts that lost the
/// same receiver do not reconnect at the same time.
fn pause(tries: u32) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let exact = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(tries.min(16)));
    let random = RandomState::new().hash_one(tries) >> 32;
    exact - exact.mul_f64(random as f64 / (1_u64 << 33) as f64)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::path::Path;

    use mainstay_core::manifest::{Format, parse};

    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        for tries in [0, 1, 2, 8, 9, 100, u32::MAX] {
            let exact = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(tries.min(16)));
            for _ in 0..100 {
                let pause = pause(tries);
                assert!(pause <= exact && pause >= exact / 2, "{tries}: {pause:?}");
            }
        }
    }

    /// Creates a worker with the spool in `dir/spool`.
    fn worker(sink: &str, dir: &Path) -> Worker {
        let text = format!("[service.a]\ncommand = ['a']\nlog.sinks = ['{sink}']");
        let specs = parse(&text, Format::Toml).unwrap();
        let spec = &specs[0].log().sinks()[0];
        let shared = Arc::new(Shared {
            target: spec.target().clone(),
            queue: Default::default(),
            wake: Default::default(),
        });
        Worker {
            shared: shared.clone(),
            transport: Transport::new(spec, dir).unwrap(),
            spool: Some(Spool::open(dir.join("spool"), 1 << 20).unwrap()),
            alarm: Alarm {
                shared,
                events: Arc::new(|_| ()),
                reported: None,
            },
            tries: 0,
            connected_at: Instant::now(),
            refused_at: None,
            notices: Vec::new(),
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    }

    /// Creates blocks in one segment of a spool; their content does not matter.
    fn spooled(dir: &Path) -> [Block; 3] {
        let mut spool = Spool::open(dir.into(), 1 << 20).unwrap();
        let blocks = [1, 2, 3].map(|lines| {
            let service = ServiceName::new("a").unwrap();
            notice(&service, Lost { lines, bytes: 0 }, "block")
        });
        for block in &blocks {
            spool.append(block, &mut Leftovers::new()).unwrap();
        }
        blocks
    }

    fn check_spool(dir: &Path, blocks: &[&Block]) {
        let mut spool = Spool::open(dir.into(), 1 << 20).unwrap();
        for expected in blocks {
            let block = spool.next(&mut Lost::default()).unwrap();
            assert_eq!(block.rest(), expected.rest());
            spool.confirm();
        }
        assert!(spool.is_empty());
    }

    #[test]
    fn a_line_of_ours_that_cannot_be_sent_brings_no_other_line_back() {
        let sandbox = mainstay_testkit::Sandbox::new();
        let dir = sandbox.path().join("spool");
        let blocks = spooled(&dir);
        let mut worker = worker("syslog+tcp://127.0.0.1:9", sandbox.path());
        let (first, _) = worker.next().unwrap();
        assert_eq!(first.rest(), blocks[0].rest());
        worker.sent();
        let ours = notice(&blocks[0].source.service, Lost::default(), "cause");
        worker.notices.push(ours.clone());
        for _ in 0..2 {
            let (block, origin) = worker.next().unwrap();
            assert_eq!(block.rest(), ours.rest());
            worker.put_back(&block, origin);
        }
        assert_eq!(worker.leave(), Leftovers::new());
        check_spool(&dir, &[&blocks[1], &blocks[2], &ours]);
    }

    #[test]
    fn a_connection_that_is_over_takes_no_block_even_if_nothing_was_waited_for_since() {
        let sandbox = mainstay_testkit::Sandbox::new();
        let blocks = spooled(&sandbox.path().join("spool"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let sink = format!("syslog+tcp://{}", listener.local_addr().unwrap());
        let mut worker = worker(&sink, sandbox.path());
        runtime().block_on(async {
            for mut block in blocks {
                assert!(matches!(worker.deliver(&mut block).await, Outcome::Sent));
                listener.set_nonblocking(true).unwrap();
                let mut stream = listener.accept().expect("a connection of its own").0;
                stream.set_nonblocking(false).unwrap();
                // Unread data would be lost, which is not tested here.
                assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
            }
        });
        assert_eq!(worker.tries, 0, "nothing is wrong with it");
    }

    #[test]
    fn once_time_is_up_a_receiver_that_takes_all_gets_no_more() {
        let sandbox = mainstay_testkit::Sandbox::new();
        let dir = sandbox.path().join("spool");
        let blocks = spooled(&dir);
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let sink = format!("syslog+udp://{}", receiver.local_addr().unwrap());
        let mut worker = worker(&sink, sandbox.path());
        runtime().block_on(async {
            let (mut first, _) = worker.next().unwrap();
            assert!(matches!(worker.deliver(&mut first).await, Outcome::Sent));
            worker.sent();
            worker.shared.lock().closing = Some(Instant::now());
            worker.work().await;
        });
        assert_eq!(worker.leave(), Leftovers::new());
        check_spool(&dir, &[&blocks[1], &blocks[2]]);
    }
}
