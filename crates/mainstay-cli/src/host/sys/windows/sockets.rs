//! Windows has no way of giving a program the sockets that it is to accept connections from.

use std::convert::Infallible;
use std::io;

use mainstay_core::spec::Listen;

/// There is none.
pub(crate) type Socket = Infallible;

/// Fails.
pub(crate) fn listen(_address: &Listen) -> io::Result<Socket> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "Windows passes no sockets on: leave out `listen`",
    ))
}

/// There is none to share.
pub(crate) fn share(socket: &Socket) -> io::Result<Socket> {
    match *socket {}
}
