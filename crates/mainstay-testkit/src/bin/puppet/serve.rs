//! Listeners, each on its own thread.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::step::{Protocol, Serve};
use crate::sys;

/// Binds after `what.after`, in the background. If the address is not available, the puppet exits
/// with 70.
pub(crate) fn start(what: Serve) {
    thread::spawn(move || {
        thread::sleep(what.after);
        if let Err(error) = serve(&what) {
            eprintln!("puppet: serve {}: {error}", what.address);
            std::process::exit(70);
        }
    });
}

fn serve(what: &Serve) -> io::Result<()> {
    match what.protocol {
        Protocol::Tcp => listener(&what.address)?
            .incoming()
            .try_for_each(|stream| stream.map(drop)),
        Protocol::Unix => sys::serve_unix(&what.address),
        Protocol::Http if what.drain => {
            let listener = listener(&what.address)?;
            sys::accept_until_term(&listener, |mut stream| {
                let _ = answer(&mut stream, what.status);
            })?;
            std::process::exit(0);
        }
        Protocol::Http => listener(&what.address)?.incoming().try_for_each(|stream| {
            // A client that disconnects half-way must not end the listener.
            let _ = answer(&mut stream?, what.status);
            Ok(())
        }),
    }
}

/// Returns the listener. `given:N` is the N-th socket of sd_listen_fds(3), counted from 0.
fn listener(address: &str) -> io::Result<TcpListener> {
    match address.strip_prefix("given:") {
        Some(number) => sys::given(number.parse().map_err(io::Error::other)?),
        None => TcpListener::bind(address),
    }
}

fn answer(stream: &mut (impl Read + Write), status: u16) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    write!(
        stream,
        "HTTP/1.1 {status} Puppet\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    )
}
