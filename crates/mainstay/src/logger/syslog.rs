//! A client for the local syslog daemon, with the protocol of syslog(3). The time is omitted
//! because daemons add it themselves.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Entry, Sink, fall_back};
use crate::event::Severity;

/// The socket paths on Linux, macOS and the BSDs.
const SOCKETS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// The daemon facility, in the upper bits of a priority (RFC 3164).
const DAEMON: u8 = 3 << 3;

/// A sender of datagrams to the daemon, which may be restarted at any time. It never waits for the
/// daemon.
pub(super) struct Syslog {
    name: String,
    paths: Vec<PathBuf>,
    socket: Mutex<Option<UnixDatagram>>,
}

impl Syslog {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            paths: SOCKETS.map(PathBuf::from).to_vec(),
            socket: Mutex::new(None),
        }
    }

    /// Sends all lines. After the first line that is not accepted, no more are sent.
    fn send(&self, entry: &Entry<'_>) -> io::Result<()> {
        let priority = DAEMON
            | match entry.event.severity() {
                Severity::Info => 6,
                Severity::Warning => 4,
                Severity::Error => 3,
            };
        let (name, pid) = (&self.name, std::process::id());
        entry.message.lines().try_for_each(|line| {
            let line = line.replace('\0', " ");
            self.send_line(format!("<{priority}>{name}[{pid}]: {line}").as_bytes())
        })
    }

    fn send_line(&self, datagram: &[u8]) -> io::Result<()> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*socket
            && open.send(datagram).is_ok()
        {
            return Ok(());
        }
        let open = connect(&self.paths)?;
        open.send(datagram)?;
        *socket = Some(open);
        Ok(())
    }
}

impl Sink for Syslog {
    fn log(&self, entry: &Entry<'_>) {
        if self.send(entry).is_err() {
            fall_back(entry);
        }
    }
}

/// Returns whether a daemon is listening.
pub(super) fn listens() -> bool {
    connect(&SOCKETS).is_ok()
}

/// Connects to the first socket that has a listener.
fn connect(paths: &[impl AsRef<Path>]) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let mut result = Err(io::ErrorKind::NotFound.into());
    for path in paths {
        result = socket.connect(path);
        if result.is_ok() {
            break;
        }
    }
    result.map(|()| socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn entry<'a>(event: Event, message: &'a str) -> Entry<'a> {
        Entry {
            event,
            message,
            fields: &[],
        }
    }

    #[test]
    fn each_line_is_a_datagram_and_a_daemon_may_be_restarted() {
        let path = std::env::temp_dir().join(format!("mainstay-syslog-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let syslog = Syslog {
            name: "orders".into(),
            paths: vec!["/nobody/listens/here".into(), path.clone()],
            socket: Mutex::new(None),
        };
        let pid = std::process::id();
        let received = |daemon: &UnixDatagram| {
            let mut buffer = [0; 256];
            let length = daemon.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        syslog.send(&entry(Event::Error, "nobody")).unwrap_err();

        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.send(&entry(Event::Warning, "a\nb\0c")).unwrap();
        assert_eq!(received(&daemon), format!("<28>orders[{pid}]: a"));
        assert_eq!(received(&daemon), format!("<28>orders[{pid}]: b c"));

        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        syslog.send(&entry(Event::Error, "nobody")).unwrap_err();
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.send(&entry(Event::Started, "again")).unwrap();
        assert_eq!(received(&daemon), format!("<30>orders[{pid}]: again"));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_daemon_that_does_not_read_is_not_waited_for() {
        let path =
            std::env::temp_dir().join(format!("mainstay-syslog-full-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let _daemon = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog {
            name: "orders".into(),
            paths: vec![path.clone()],
            socket: Mutex::new(None),
        };
        let refused = (0..100_000).find_map(|_| syslog.send(&entry(Event::Error, "x")).err());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
