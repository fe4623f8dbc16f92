//! Stubs for listening sockets: Windows has no standard way to pass a program the sockets to accept
//! connections from.

use std::convert::Infallible;
use std::io;

use mainstay_core::spec::Listen;

/// A listening socket, of which there are none.
pub type Socket = Infallible;

/// Fails with `Unsupported`.
pub fn listen(_address: &Listen) -> io::Result<Socket> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "`listen` is not supported on Windows: remove it",
    ))
}

/// Never called, because there is no socket to share.
pub fn share(socket: &Socket) -> io::Result<Socket> {
    match *socket {}
}
