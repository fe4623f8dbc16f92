//! One target's thread: takes from the queue, sends, and waits where it must.
//!
//! The order of lines is: the block in hand, the spool, the queue in memory. While something is sent or waited for, the queue is still looked
//! after: once much waits in memory, or nothing can be sent at all, it goes to the spool. Without something to send, and while the connection stands,
//! nothing wakes up; a connection that breaks then is made again with the next line.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_core::log::Line;
use mainstay_core::spec::{Facility, Level, ServiceName, SinkTarget};

use super::record::{self, Block, Source};
use super::spool::Spool;
use super::transport::{Refusal, Transport};
use super::{Events, Leftovers, Lost, Shared, SinkEvent};

/// Bytes in memory from which on they go to the spool.
const SPILL: usize = super::QUEUE / 4;
/// The first pause before a connection is tried again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A connection that lived this long was a good one: the next one is tried at once, and its loss alone is no trouble.
const STEADY: Duration = Duration::from_secs(10);
/// A receiver of datagrams that refused some is well again when it has refused none for so long.
const QUIET: Duration = Duration::from_secs(2);

pub(super) struct Worker {
    shared: Arc<Shared>,
    transport: Transport,
    spool: Option<Spool>,
    events: Events,
    trouble: Option<Trouble>,
    /// Failed tries in a row.
    tries: u32,
    connected_at: Instant,
    /// When a datagram was refused last.
    refused_at: Option<Instant>,
    /// Lines of ours that are sent before all else.
    notices: Vec<Block>,
}

/// What has been told by [`SinkEvent::Failing`].
struct Trouble {
    cause: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is over as soon as something is taken.
    Connection,
    /// It is over when nothing waits any more.
    Overflow,
}

impl Worker {
    /// Until the target is closed. Returns what was lost by that.
    pub(super) fn run(
        shared: Arc<Shared>,
        transport: Transport,
        spool: Option<(PathBuf, u64)>,
        events: Events,
    ) -> Leftovers {
        let mut worker = Self {
            shared,
            transport,
            spool: None,
            events,
            trouble: None,
            tries: 0,
            connected_at: Instant::now(),
            refused_at: None,
            notices: Vec::new(),
        };
        if let Some((dir, limit)) = spool {
            let shown = dir.display().to_string();
            match Spool::open(dir, limit) {
                Ok(spool) => worker.spool = Some(spool),
                // Memory alone has to do.
                Err(error) => worker.fail(Kind::Overflow, format!("open spool {shown}: {error}")),
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => {
                runtime.block_on(worker.work());
                // A name may still be looked up, which nothing can cut short.
                runtime.shutdown_background();
            }
            Err(error) => worker.fail(Kind::Connection, format!("start a runtime: {error}")),
        }
        worker.leave()
    }

    async fn work(&mut self) {
        loop {
            self.tell_overflow();
            let Some(block) = self.next() else {
                if self
                    .trouble
                    .as_ref()
                    .is_some_and(|t| t.kind == Kind::Overflow)
                {
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
            if !self.deliver(block).await {
                return;
            }
        }
    }

    /// Waits for something to do.
    async fn idle(&mut self) {
        let broken = tokio::select! {
            biased;
            broken = self.transport.broken() => Some(broken),
            () = self.shared.wake.notified() => None,
        };
        match broken {
            Some(Refusal::Datagram { lost, cause }) => self.refused(lost, cause),
            Some(Refusal::Connection { .. }) => self.transport.disconnect(),
            None => {}
        }
    }

    /// Whether to go on.
    async fn deliver(&mut self, mut block: Block) -> bool {
        if !self.transport.is_connected() {
            if self.closing().is_some() && self.tries > 0 {
                self.put_back(&block);
                return false;
            }
            let connected = while_taking_in(
                &self.shared,
                &mut self.spool,
                self.tries > 0,
                self.transport.connect(),
            );
            let outcome = connected.await;
            match outcome {
                Some(Ok(())) => self.connected_at = Instant::now(),
                Some(Err(cause)) => {
                    self.put_back(&block);
                    return self.failed(cause).await;
                }
                None => {
                    self.put_back(&block);
                    return false;
                }
            }
        }
        let sent = while_taking_in(
            &self.shared,
            &mut self.spool,
            false,
            self.transport.send(&mut block),
        );
        let outcome = sent.await;
        match outcome {
            Some(Ok(())) => {
                self.sent();
                true
            }
            Some(Err(Refusal::Datagram { lost, cause })) => {
                self.put_back(&block);
                self.refused(lost, cause);
                true
            }
            Some(Err(Refusal::Connection { cause })) => {
                self.transport.disconnect();
                self.put_back(&block);
                if self.connected_at.elapsed() >= STEADY {
                    self.tries = 0;
                    return true;
                }
                self.failed(cause).await
            }
            None => {
                self.put_back(&block);
                false
            }
        }
    }

    fn sent(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.confirm();
        }
        if self.connected_at.elapsed() >= STEADY {
            self.tries = 0;
        }
        let is_over = self
            .trouble
            .as_ref()
            .is_some_and(|t| t.kind == Kind::Connection)
            && self.refused_at.is_none_or(|at| at.elapsed() >= QUIET);
        if is_over {
            self.recover();
        }
    }

    /// The next try comes after a pause. Returns whether to go on.
    async fn failed(&mut self, cause: String) -> bool {
        self.fail(Kind::Connection, cause);
        let pause = pause(self.tries);
        self.tries = self.tries.saturating_add(1);
        let deadline = Instant::now() + pause;
        loop {
            if self.closing().is_some() {
                return false;
            }
            spill(&self.shared, &mut self.spool, true);
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => return true,
                () = self.shared.wake.notified() => {}
            }
        }
    }

    /// Datagrams were refused, which is learnt too late for them. Others may come through.
    fn refused(&mut self, lost: Vec<(ServiceName, Lost)>, cause: String) {
        self.refused_at = Some(Instant::now());
        let mut queue = self.shared.lock();
        for (service, lost) in lost {
            *queue.dropped.entry(service).or_default() += lost;
        }
        drop(queue);
        self.fail(Kind::Connection, cause);
    }

    fn next(&mut self) -> Option<Block> {
        if let Some(notice) = self.notices.pop() {
            return Some(notice);
        }
        if let Some(spool) = &mut self.spool {
            let mut damaged = Lost::default();
            let block = spool.next(&mut damaged);
            if damaged != Lost::default() {
                let message = format!(
                    "read spool: {} bytes are damaged and left out",
                    damaged.bytes
                );
                self.fail(Kind::Overflow, message);
            }
            if block.is_some() {
                return block;
            }
        }
        self.shared.lock().pop_front()
    }

    /// What is left of `block` will be the next again.
    fn put_back(&mut self, block: &Block) {
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

    /// Says it once.
    fn fail(&mut self, kind: Kind, cause: String) {
        if self.trouble.is_some() {
            return;
        }
        let (sink, services) = self.who();
        (self.events)(SinkEvent::Failing {
            sink,
            services,
            error: cause.clone(),
        });
        self.trouble = Some(Trouble { cause, kind });
    }

    fn tell_overflow(&mut self) {
        if self.trouble.is_none() && !self.shared.lock().dropped.is_empty() {
            self.fail(
                Kind::Overflow,
                "lines come faster than it takes them".to_owned(),
            );
        }
    }

    fn recover(&mut self) {
        let Some(trouble) = self.trouble.take() else {
            return;
        };
        self.refused_at = None;
        let dropped = std::mem::take(&mut self.shared.lock().dropped);
        let dropped: Vec<_> = dropped.into_iter().collect();
        let notices = dropped.iter().rev();
        let notices = notices.map(|(name, lost)| notice(name, *lost, &trouble.cause));
        self.notices.extend(notices);
        let (sink, services) = self.who();
        (self.events)(SinkEvent::Recovered {
            sink,
            services,
            dropped,
        });
    }

    fn who(&self) -> (SinkTarget, Vec<ServiceName>) {
        let services = self.shared.lock().services.iter().cloned().collect();
        (self.shared.target.clone(), services)
    }

    /// Puts what is left where the next process finds it; returns what has no such place.
    fn leave(mut self) -> Leftovers {
        for notice in std::mem::take(&mut self.notices) {
            self.put_back(&notice);
        }
        spill(&self.shared, &mut self.spool, true);
        let mut queue = self.shared.lock();
        while let Some(block) = queue.pop_front() {
            queue.count(&block);
        }
        std::mem::take(&mut queue.dropped)
    }
}

/// Does `work`, and meanwhile looks after the queue; `down` where nothing can be sent. `None` if time is up.
async fn while_taking_in<T>(
    shared: &Shared,
    spool: &mut Option<Spool>,
    down: bool,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    loop {
        spill(shared, spool, down);
        let closing = shared.lock().closing;
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

/// Moves the queue to the spool, if there is one and it is time. What the disk refuses stays in memory, whose own bound holds.
fn spill(shared: &Shared, spool: &mut Option<Spool>, down: bool) {
    let Some(spool) = spool else { return };
    let blocks = {
        let mut queue = shared.lock();
        if queue.bytes == 0 || (!down && queue.bytes < SPILL) {
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

/// A line of ours, in the name of the service that it is about.
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

/// Doubling, and up to a half shorter by chance, so that hosts that lost one receiver do not return to it together.
fn pause(tries: u32) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let exact = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(tries.min(16)));
    let random = RandomState::new().hash_one(tries) >> 32;
    exact - exact.mul_f64(random as f64 / (1_u64 << 33) as f64)
}

#[cfg(test)]
mod tests {
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
}
