//! The groups of the process at the other end of a Unix socket, as the kernel recorded them when it
//! connected.

use std::io;
use std::os::fd::AsFd;

/// Returns whether the peer of a stream had this supplementary group when it connected. `None` if
/// the system does not tell.
///
/// # Errors
/// If the stream is not one of a Unix socket.
#[cfg(target_os = "linux")]
pub fn has_group(stream: impl AsFd, group: u32) -> io::Result<Option<bool>> {
    use std::os::fd::AsRawFd as _;
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let room = groups.len() * size_of::<libc::gid_t>();
        let mut length = libc::socklen_t::try_from(room).map_err(io::Error::other)?;
        // SAFETY: `groups` has room for `length` bytes, and both outlive the call.
        let asked = unsafe {
            libc::getsockopt(
                stream.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut length,
            )
        };
        let count = usize::try_from(length).map_err(io::Error::other)? / size_of::<libc::gid_t>();
        match super::cvt(asked) {
            Ok(_) => return Ok(Some(groups[..count].contains(&group))),
            // The kernel has stored the length that is needed.
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() => {
                groups.resize(count, 0);
            }
            // Linux 4.13 is the first to have this.
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Returns whether the peer of a stream had this supplementary group when it connected. `None` if
/// the system does not tell.
///
/// # Errors
/// If the stream is not one of a Unix socket.
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
pub fn has_group(stream: impl AsFd, group: u32) -> io::Result<Option<bool>> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: an xucred consists of integers and pointers, for all of which zero is valid.
    let mut peer: libc::xucred = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&peer)).map_err(io::Error::other)?;
    const SOL_LOCAL: libc::c_int = 0; // unix(4)
    // SAFETY: `peer` has room for `length` bytes, and both outlive the call.
    super::cvt(unsafe {
        libc::getsockopt(
            stream.as_fd().as_raw_fd(),
            SOL_LOCAL,
            libc::LOCAL_PEERCRED,
            (&raw mut peer).cast(),
            &mut length,
        )
    })?;
    let count = usize::try_from(peer.cr_ngroups)
        .unwrap_or(0)
        .min(peer.cr_groups.len());
    let has_it = peer.cr_groups[..count].contains(&group);
    // A full list may be cut.
    Ok((has_it || count < peer.cr_groups.len()).then_some(has_it))
}

/// Returns `None`: the modes of the socket and its directory decide.
///
/// # Errors
/// Never.
#[cfg(not(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd")))]
#[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
pub fn has_group(_stream: impl AsFd, _group: u32) -> io::Result<Option<bool>> {
    Ok(None)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_groups_of_a_peer_are_those_of_its_process() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let mine = rustix::process::getgroups().expect("groups");
        for group in mine.iter().map(|group| group.as_raw()) {
            assert_eq!(
                has_group(&one, group).expect("an answer"),
                Some(true),
                "{group}"
            );
        }
        assert_eq!(
            has_group(&one, u32::MAX - 1).expect("an answer"),
            Some(false)
        );
        let file = std::fs::File::open("/dev/null").expect("a file");
        assert!(has_group(file, 0).is_err());
    }
}
