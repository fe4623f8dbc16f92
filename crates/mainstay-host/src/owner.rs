//! Lookup of the process that listens on a local TCP address or Unix socket. The inode of the
//! socket comes from `/proc/net/tcp`, `tcp6` and `unix` (proc_pid_net(5)), the process from
//! `/proc/PID/fd`. In the worst case, a lookup reads every descriptor of every process, so it
//! belongs on a thread of its own. Only Linux supports it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use mainstay_sys::Members;

/// A local address on which a process listens.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    /// The name of a Unix socket, and the process that began to listen there.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "only Linux tells who listens")
    )]
    Unix(PathBuf, Option<u32>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => at.fmt(f),
            Self::Unix(path, _) => path.display().fmt(f),
        }
    }
}

/// The owner of a local address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A process of the tree, or this one.
    Ours,
    /// Another process, by name and pid. No process of the tree listens there.
    Stranger(String),
    /// The owner cannot be determined.
    Unknown,
}

/// Returns the owner of a local address. If `ours` is `None`, only this process counts as ours.
#[cfg(target_os = "linux")]
pub(crate) fn of(at: &Place, ours: Option<&Members>) -> Owner {
    let sockets = match at {
        Place::Tcp(at) => linux::listening(*at),
        Place::Unix(path, _) => linux::listening_unix(path),
    };
    let is_ours = |pid: u32| pid == std::process::id() || ours.is_some_and(|it| it.has(pid));
    if sockets.is_empty() {
        return match at {
            Place::Unix(_, Some(listener)) if is_ours(*listener) => Owner::Ours,
            _ => Owner::Unknown,
        };
    }
    let (mine, others): (Vec<u32>, Vec<u32>) = match ours {
        Some(_) => linux::every_pid().partition(|pid| is_ours(*pid)),
        None => (Vec::new(), linux::every_pid().collect()),
    };
    let mut is_hidden = false;
    for pid in mine {
        match linux::holds(pid, &sockets) {
            Some(true) => return Owner::Ours,
            Some(false) => {}
            // This process may be the owner.
            None => is_hidden = true,
        }
    }
    if is_hidden {
        return Owner::Unknown;
    }
    let stranger = others
        .into_iter()
        .find(|pid| linux::holds(*pid, &sockets) == Some(true));
    match stranger {
        // The process may have joined the tree since.
        Some(pid) if is_ours(pid) => Owner::Ours,
        Some(pid) => Owner::Stranger(format!("{} (pid {pid})", linux::name(pid))),
        None => Owner::Unknown,
    }
}

/// Returns whether a process listens on this address, or on all addresses of its port.
#[cfg(target_os = "linux")]
pub(crate) fn is_listening(at: SocketAddr) -> bool {
    !linux::listening(at).is_empty()
}

/// Always `false`: this system does not support the lookup.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_listening(_at: SocketAddr) -> bool {
    false
}

/// Always `Unknown`: this system does not support the lookup.
#[cfg(not(target_os = "linux"))]
pub(crate) fn of(_at: &Place, _ours: Option<&Members>) -> Owner {
    Owner::Unknown
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    /// Returns the sockets that accept connections to this address, by the names that
    /// `/proc/PID/fd` uses. Those that are bound to exactly this address come first, as the system
    /// prefers them; if there are none, the ones that are bound to all addresses are returned.
    pub(super) fn listening(at: SocketAddr) -> Vec<String> {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        let tables = tables.map(|path| fs::read_to_string(path).unwrap_or_default());
        let lines = tables.iter().flat_map(|table| table.lines());
        let sockets: Vec<(IpAddr, &str)> =
            lines.filter_map(|line| parse(line, at.port())).collect();
        let asked = at.ip().to_canonical();
        let bound_to = |is_it: &dyn Fn(IpAddr) -> bool| -> Vec<String> {
            let found = sockets.iter().filter(|(ip, _)| is_it(*ip));
            found
                .map(|(_, inode)| format!("socket:[{inode}]"))
                .collect()
        };
        let exactly = bound_to(&|ip| ip == asked);
        if exactly.is_empty() {
            // An IPv6 wildcard socket also accepts IPv4 connections unless configured otherwise.
            bound_to(&|ip| ip.is_unspecified() && (ip.is_ipv6() || asked.is_ipv4()))
        } else {
            exactly
        }
    }

    /// Returns the sockets that listen under this name. A socket that was bound by another name for
    /// the same file, such as a relative path, is not found.
    pub(super) fn listening_unix(path: &Path) -> Vec<String> {
        const ACCEPTS: &str = "00010000";
        let table = fs::read("/proc/net/unix").unwrap_or_default();
        let lines = table.split(|byte| *byte == b'\n');
        let inode_of = |line: &[u8]| {
            let at = line.iter().position(|byte| *byte == b'/')?;
            let (head, name) = line.split_at_checked(at)?;
            let fields: Vec<&str> = str::from_utf8(head)
                .ok()?
                .split_ascii_whitespace()
                .collect();
            let is_it = name == path.as_os_str().as_bytes() && fields.get(3) == Some(&ACCEPTS);
            is_it.then(|| format!("socket:[{}]", fields.get(6).unwrap_or(&"")))
        };
        lines.filter_map(inode_of).collect()
    }

    /// Parses the address and the inode of a socket that listens on the port.
    fn parse(line: &str, port: u16) -> Option<(IpAddr, &str)> {
        const LISTENS: &str = "0A";
        let mut fields = line.split_ascii_whitespace();
        let (ip, at) = fields.nth(1)?.split_once(':')?;
        if u16::from_str_radix(at, 16) != Ok(port) || fields.nth(1)? != LISTENS {
            return None;
        }
        let inode = fields.nth(5)?;
        // The address consists of words of 32 bits, each in native byte order.
        let word = |i: usize| u32::from_str_radix(ip.get(8 * i..8 * (i + 1))?, 16).ok();
        let ip = match ip.len() {
            8 => Ipv4Addr::from(word(0)?.to_ne_bytes()).into(),
            _ => {
                let mut bytes = [0; 16];
                for (i, four) in bytes.chunks_exact_mut(4).enumerate() {
                    four.copy_from_slice(&word(i)?.to_ne_bytes());
                }
                IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
            }
        };
        Some((ip, inode))
    }

    pub(super) fn every_pid() -> impl Iterator<Item = u32> {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    /// Returns whether the process has one of these sockets open; `None` if permission is denied.
    pub(super) fn holds(pid: u32, sockets: &[String]) -> Option<bool> {
        let is_it = |path: std::path::PathBuf| {
            fs::read_link(path)
                .is_ok_and(|to| sockets.iter().any(|it| to.as_os_str() == it.as_str()))
        };
        match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(fds) => Some(fds.flatten().any(|fd| is_it(fd.path()))),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
            // The process has exited.
            Err(_) => Some(false),
        }
    }

    pub(super) fn name(pid: u32) -> String {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim_end().to_owned()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_socket_of_its_own_address_comes_before_one_of_all() {
            let all = std::net::TcpListener::bind("[::]:0").unwrap();
            let port = all.local_addr().unwrap().port();
            let here = SocketAddr::from(([127, 0, 0, 1], port));
            let of_all = listening(here);
            assert_eq!(of_all.len(), 1);
            assert_eq!(holds(std::process::id(), &of_all), Some(true));
            // The same port can be bound twice, as the addresses differ.
            let Ok(_one) = std::net::TcpListener::bind(here) else {
                return;
            };
            let of_one = listening(here);
            assert_ne!(of_one, of_all);
            assert_eq!(listening(([127, 0, 0, 2], port).into()), of_all);
        }
    }
}
