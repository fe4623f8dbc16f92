//! Removal of messages and connections that other accounts have put into a socket's queue, away
//! from the event loop.
//!
//! A process that may send to a Unix socket may send file descriptors (`SCM_RIGHTS`, unix(7)), and
//! a queue can hold the last reference to a file. Removing such a message, or closing the socket,
//! then closes that file, which may take as long as the sender likes: a TCP socket with unsent data
//! and `SO_LINGER` blocks its last close for years. So the loop only removes messages that carry no
//! descriptors.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_sys::threads::{self, Stack};
#[cfg(target_os = "linux")]
use rustix::net::{RecvFlags, recv};
#[cfg(target_os = "linux")]
use tokio::sync::oneshot;

/// The longest time for a close that does not linger. The address is free afterwards.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);

fn in_thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    threads::spawn("mainstay-release", Stack::Small, work).map(drop)
}

/// Removes the next message of a datagram socket. The receiver resolves when the message and its
/// descriptors are gone.
#[cfg(target_os = "linux")]
pub(super) fn remove_next(socket: &impl AsFd) -> io::Result<oneshot::Receiver<()>> {
    let socket = socket.as_fd().try_clone_to_owned()?;
    let (done, gone) = oneshot::channel();
    in_thread(move || {
        // The text was read before.
        let _ = recv(&socket, &mut [0_u8; 0][..], RecvFlags::DONTWAIT);
        drop(socket);
        let _ = done.send(());
    })?;
    Ok(gone)
}

/// Removes all messages of a datagram socket to which nothing can be sent any more.
#[cfg(target_os = "linux")]
pub(super) fn remove_all(socket: &impl AsFd, most: usize) {
    let Ok(socket) = socket.as_fd().try_clone_to_owned() else {
        return;
    };
    let place = Arc::new(socket);
    let theirs = Arc::clone(&place);
    let begun = in_thread(move || {
        for _ in 0..most {
            let _ = recv(&theirs, &mut [0_u8; 0][..], RecvFlags::DONTWAIT);
        }
    });
    if begun.is_err() {
        std::mem::forget(place);
    }
}

/// Closes a listening socket, with the connections that were not accepted. Returns when that is
/// done, or takes longer than usual.
pub(super) fn close(socket: OwnedFd) {
    let place = Arc::new(Mutex::new(Some(socket)));
    let (done, closed) = channel();
    let theirs = Arc::clone(&place);
    let begun = in_thread(move || {
        drop(theirs.lock().ok().and_then(|mut socket| socket.take()));
        let _ = done.send(());
    });
    match begun {
        Ok(()) => match closed.recv_timeout(CLOSE_TIMEOUT) {
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        },
        // Without a thread, the socket stays open: a leaked descriptor is better than a blocked
        // loop.
        Err(_) => std::mem::forget(place),
    }
}
