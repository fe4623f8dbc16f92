//! Calls that may block for as long as other parties like (a resolver, a file system whose server
//! is gone, a locked database), away from the event loop.
//!
//! Each call has a thread of its own, so that one that hangs does not delay the others. Every call
//! returns: if no thread can be started or too many calls hang, it returns an error that says so.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
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
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Threads with a common limit, by their subjects.
struct Pool {
    most: usize,
    taken: Mutex<Taken>,
}

/// The subject that each thread works on at present, by the number of its seat.
struct Taken {
    next: u64,
    subjects: BTreeMap<u64, String>,
}

impl Pool {
    const fn new(most: usize) -> Self {
        let taken = Mutex::new(Taken {
            next: 0,
            subjects: BTreeMap::new(),
        });
        Self { most, taken }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static QUESTIONS: Pool = Pool::new(MOST);
static LOOP: Pool = Pool::new(MOST_OF_LOOP);

/// The registration of one thread.
struct Seat {
    pool: &'static Pool,
    number: u64,
}

impl Seat {
    /// Takes a seat for work on these subjects, beginning with the first.
    ///
    /// # Errors
    /// With the index of the subject on which earlier work hangs, if that is the reason.
    fn take(pool: &'static Pool, subjects: &[String]) -> Result<Self, (usize, io::Error)> {
        let mut taken = pool.taken();
        let hangs = |subject: &String| {
            let same = taken.subjects.values().filter(|it| *it == subject);
            same.count() >= MOST_OF_ONE
        };
        let refused = |kind, why| io::Error::new(kind, why);
        if let Some(index) = subjects.iter().position(hangs) {
            let error = refused(io::ErrorKind::TimedOut, "earlier checks are still blocked");
            return Err((index, error));
        }
        if taken.subjects.len() >= pool.most {
            let error = refused(io::ErrorKind::WouldBlock, "too many checks are blocked");
            return Err((0, error));
        }
        let number = taken.next;
        taken.next += 1;
        let subject = subjects.first().cloned().unwrap_or_default();
        taken.subjects.insert(number, subject);
        Ok(Self { pool, number })
    }

    fn pass_to(&self, subject: String) {
        self.pool.taken().subjects.insert(self.number, subject);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.pool.taken().subjects.remove(&self.number);
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
    let seat = Seat::take(&QUESTIONS, &[subject.into()]).map_err(|(_, error)| error)?;
    in_thread(seat, move |_| work(), |result| drop(done.send(result)))?;
    let gone = |_| io::Error::other("the check ended without a result");
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
    let seat = Seat::take(&LOOP, &[subject]).map_err(|(_, error)| error)?;
    answer_in_time(seat, |_| work())
}

/// Does work on one subject and then on another in the same thread, as [`wait`] does.
///
/// # Errors
/// As with [`wait`], with the index of the subject that failed.
pub fn wait_for_both<S, T: Send + 'static>(
    subjects: [String; 2],
    first: impl FnOnce() -> S + Send + 'static,
    second: impl FnOnce(S) -> T + Send + 'static,
) -> Result<T, (usize, io::Error)> {
    let seat = Seat::take(&LOOP, &subjects)?;
    let is_second = Arc::new(AtomicBool::new(false));
    let work = {
        let is_second = Arc::clone(&is_second);
        move |seat: &Seat| {
            let found = first();
            let [_, subject] = subjects;
            seat.pass_to(subject);
            is_second.store(true, Ordering::Relaxed);
            second(found)
        }
    };
    answer_in_time(seat, work)
        .map_err(|error| (usize::from(is_second.load(Ordering::Relaxed)), error))
}

fn answer_in_time<T: Send + 'static>(
    seat: Seat,
    work: impl FnOnce(&Seat) -> T + Send + 'static,
) -> io::Result<T> {
    let (done, answer) = mpsc::channel();
    in_thread(seat, work, move |result| drop(done.send(result)))?;
    answer.recv_timeout(CALL_TIMEOUT).map_err(|_| {
        let why = format!(
            "no response within {}; the file system may be unresponsive",
            Human(CALL_TIMEOUT)
        );
        io::Error::new(io::ErrorKind::TimedOut, why)
    })
}

/// Does work in a thread, and passes on the result. The seat is free by then: the next question may
/// follow at once.
fn in_thread<T>(
    seat: Seat,
    work: impl FnOnce(&Seat) -> T + Send + 'static,
    done: impl FnOnce(T) + Send + 'static,
) -> io::Result<()> {
    let seated = move || {
        let result = work(&seat);
        drop(seat);
        done(result);
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

    /// The second subject counts once the work on it has begun.
    #[test]
    fn the_subject_that_hangs_is_named() {
        let subjects = |second: &str| ["one".to_owned(), second.to_owned()];
        let (release, hangs) = mpsc::channel::<()>();
        let hangs = Arc::new(Mutex::new(hangs));
        let ask = || {
            let hangs = Arc::clone(&hangs);
            let hang = move |()| drop(hangs.lock().map(|hangs| hangs.recv()));
            let failed = wait_for_both(subjects("two"), || (), hang);
            failed.map_err(|(index, error)| (index, error.to_string()))
        };
        let late = "no response within 1s; the file system may be unresponsive";
        assert_eq!(ask(), Err((1, late.to_owned())));
        assert_eq!(ask(), Err((1, late.to_owned())));
        assert_eq!(
            ask(),
            Err((1, "earlier checks are still blocked".to_owned()))
        );
        let other = wait_for_both(subjects("three"), || 1, |one| one + 1);
        assert_eq!(other.ok(), Some(2));
        drop(release);
    }

    #[test]
    fn work_that_hangs_takes_no_thread_from_others() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            let (release, hangs) = mpsc::channel::<()>();
            let hangs = Arc::new(Mutex::new(hangs));
            let mut waiting = Vec::new();
            for _ in 0..MOST_OF_ONE {
                let hangs = Arc::clone(&hangs);
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
        });
    }
}
