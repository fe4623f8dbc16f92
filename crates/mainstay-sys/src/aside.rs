//! Calls that may block for as long as other parties like (a resolver, a file system whose server
//! is gone, a locked database), away from the event loop.
//!
//! Each call has a thread of its own, so that one that hangs does not delay the others. Every call
//! returns: if no thread can be started or too many calls hang, it returns an error that says so.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use mainstay_core::engine::Human;
use tokio::sync::oneshot;

use crate::threads::{self, Stack};

/// The limit of concurrent threads, and of those on one subject: one that hangs must not take the
/// threads of the others.
const MOST: usize = 64;
const MOST_OF_ONE: usize = 2;
/// The limit of threads that the event loop started. Clients' questions do not count here.
const MOST_OF_LOOP: usize = 256;

/// The longest time that the event loop waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// Threads with a common limit, by their subjects.
struct Pool {
    most: usize,
    subjects: Mutex<Vec<String>>,
}

impl Pool {
    const fn new(most: usize) -> Self {
        let subjects = Mutex::new(Vec::new());
        Self { most, subjects }
    }

    fn subjects(&self) -> MutexGuard<'_, Vec<String>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static QUESTIONS: Pool = Pool::new(MOST);
static LOOP: Pool = Pool::new(MOST_OF_LOOP);

/// The registration of one thread.
struct Seat(&'static Pool, String);

impl Seat {
    fn take(pool: &'static Pool, subject: String) -> io::Result<Self> {
        let mut taken = pool.subjects();
        let same = taken.iter().filter(|it| **it == subject).count();
        let (kind, why) = match (same, taken.len()) {
            (MOST_OF_ONE.., _) => (io::ErrorKind::TimedOut, "earlier questions hang"),
            (_, all) if all >= pool.most => (io::ErrorKind::WouldBlock, "too many questions hang"),
            _ => {
                taken.push(subject.clone());
                return Ok(Self(pool, subject));
            }
        };
        Err(io::Error::new(kind, why))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.0.subjects();
        if let Some(ours) = taken.iter().position(|it| *it == self.1) {
            taken.swap_remove(ours);
        }
    }
}

/// Does work on `subject` in a thread. A caller that stops waiting leaves the thread running.
///
/// # Errors
/// If the work was not done. `TimedOut` if earlier work on this subject hangs.
pub async fn aside<T: Send + 'static>(
    subject: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, answer) = oneshot::channel();
    in_thread(&QUESTIONS, subject.into(), move || drop(done.send(work())))?;
    let gone = |_| io::Error::other("it ended without an answer");
    answer.await.map_err(gone)
}

/// Does work on `subject` in a thread and blocks for a second at most. For work that the event loop
/// cannot continue without and that almost never hangs. Does not block at all if earlier work on
/// this subject hangs.
///
/// # Errors
/// As with [`aside`]. `TimedOut` also if the second is exceeded.
pub fn wait<T: Send + 'static>(
    subject: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, answer) = mpsc::channel();
    in_thread(&LOOP, subject, move || drop(done.send(work())))?;
    answer.recv_timeout(PATIENCE).map_err(|_| {
        let why = format!(
            "no answer within {}; the file system may hang",
            Human(PATIENCE)
        );
        io::Error::new(io::ErrorKind::TimedOut, why)
    })
}

fn in_thread(
    pool: &'static Pool,
    subject: String,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let seat = Seat::take(pool, subject)?;
    let seated = move || {
        let _seat = seat;
        work();
    };
    threads::spawn("mainstay-aside", Stack::Large, seated).map(drop)
}

/// Returns the addresses of a host.
///
/// # Errors
/// The outer error if the resolver was not asked; the inner one is the resolver's.
pub async fn resolve(host: &str, port: u16) -> io::Result<io::Result<Vec<SocketAddr>>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Ok(vec![(address, port).into()]));
    }
    let host = host.to_owned();
    aside(host.clone(), move || {
        Ok((host.as_str(), port).to_socket_addrs()?.collect())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_hangs_takes_no_thread_from_others() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            let (release, hangs) = mpsc::channel::<()>();
            let hangs = std::sync::Arc::new(Mutex::new(hangs));
            let mut waiting = Vec::new();
            for _ in 0..MOST_OF_ONE {
                let hangs = std::sync::Arc::clone(&hangs);
                let work = move || drop(hangs.lock().map(|hangs| hangs.recv()));
                waiting.push(tokio::spawn(aside("hung", work)));
            }
            tokio::task::yield_now().await;
            let refused = aside("hung", || ()).await.map_err(|error| error.kind());
            assert_eq!(refused, Err(io::ErrorKind::TimedOut));
            assert_eq!(aside("other", || 1).await.expect("an answer"), 1);
            drop(release);
            for waiting in waiting {
                waiting.await.expect("no panic").expect("an answer");
            }
            assert!(aside("panics", || panic!("as it is meant")).await.is_err());
            assert_eq!(aside("panics", || 2).await.expect("an answer"), 2);
        });
    }
}
