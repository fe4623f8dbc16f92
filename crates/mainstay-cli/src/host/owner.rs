//! Which process listens on a local TCP address or Unix socket: the inode of the socket from `/proc/net/tcp`, `tcp6` and `unix`
//! (proc_pid_net(5)), the process from `/proc/PID/fd`. A look reads every descriptor of every process at worst, so it belongs on a thread of its own. Only Linux tells.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::sys::Members;

/// Where something listens on this machine.
#[derive(Clone, Debug)]
pub(super) enum Place {
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

/// Who answers on an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "only Linux tells")
)]
pub(super) enum Owner {
    /// A process of the tree, or this one.
    Ours,
    /// Another process, by name and pid, and no process of the tree.
    Stranger(String),
    /// It cannot be seen.
    Unknown,
}

/// Who listens there; where `ours` is not given, no process is ours.
#[cfg(target_os = "linux")]
pub(super) fn of(at: &Place, ours: Option<&Members>) -> Owner {
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
            // It may be the one.
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
        // It may have come since.
        Some(pid) if is_ours(pid) => Owner::Ours,
        Some(pid) => Owner::Stranger(format!("{} (pid {pid})", linux::name(pid))),
        None => Owner::Unknown,
    }
}

/// Nobody tells.
#[cfg(not(target_os = "linux"))]
pub(super) fn of(_at: &Place, _ours: Option<&Members>) -> Owner {
    Owner::Unknown
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    /// The sockets that take connections to this address, as `/proc/PID/fd` names them: those that are bound to it alone where there are
    /// any, as the system prefers these, else those that are bound to all addresses.
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
        match exactly.is_empty() {
            // One of IPv6 takes connections of IPv4, too, if it was not told otherwise.
            true => bound_to(&|ip| ip.is_unspecified() && (ip.is_ipv6() || asked.is_ipv4())),
            false => exactly,
        }
    }

    /// The sockets that listen under this name. One that was bound by another name for the same file, such as a relative path, is not seen.
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

    /// The address and the inode of a socket that listens on the port.
    fn parse(line: &str, port: u16) -> Option<(IpAddr, &str)> {
        const LISTENS: &str = "0A";
        let mut fields = line.split_ascii_whitespace();
        let (ip, at) = fields.nth(1)?.split_once(':')?;
        if u16::from_str_radix(at, 16) != Ok(port) || fields.nth(1)? != LISTENS {
            return None;
        }
        let inode = fields.nth(5)?;
        // Words of 32 bits, each in the machine's own order.
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

    /// Whether the process has one of these sockets; `None` if we may not know.
    pub(super) fn holds(pid: u32, sockets: &[String]) -> Option<bool> {
        let is_it = |path: std::path::PathBuf| {
            fs::read_link(path)
                .is_ok_and(|to| sockets.iter().any(|it| to.as_os_str() == it.as_str()))
        };
        match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(fds) => Some(fds.flatten().any(|fd| is_it(fd.path()))),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
            // It has ended.
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
            // The same port twice, as the addresses differ.
            let Ok(_one) = std::net::TcpListener::bind(here) else {
                return;
            };
            let of_one = listening(here);
            assert_ne!(of_one, of_all);
            assert_eq!(listening(([127, 0, 0, 2], port).into()), of_all);
        }
    }
}
