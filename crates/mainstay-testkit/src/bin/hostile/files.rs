//! Attacks on the paths that a manifest names: the attacker moves everything that its account can
//! move.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::{Attack, Record};

/// An attack, by name. Each one undoes itself, so that the next one finds the paths that the
/// manifest names.
const ATTACKS: [(&str, Attack); 11] = [
    ("link to root's directory", link_directory),
    ("flickering link", flickering_link),
    ("deep directories", deep_directories),
    ("environment file: FIFO", fifo_environment),
    ("environment file: endless", endless_environment),
    ("environment file: root's", roots_environment),
    ("socket: directory link", link_socket_directory),
    ("socket: regular file", file_for_socket),
    ("socket: full backlog", full_backlog),
    ("forged notifications", forged_notifications),
    ("lock and control socket", lock_and_control),
];

/// Attacks until it is killed.
pub(crate) fn run(record: &Record, seed: u64) -> io::Result<ExitCode> {
    repair(record)?;
    let mut rng = Rng::with_seed(seed);
    loop {
        let (name, attack) = ATTACKS[rng.usize(..ATTACKS.len())];
        record.append("attacks", name);
        if let Err(error) = attack(record, &mut rng) {
            record.append("errors", &format!("{name}: {error}"));
        }
        repair(record)?;
        thread::sleep(Duration::from_millis(rng.u64(..300)));
    }
}

/// Restores the paths after an attack that was killed half-way.
fn repair(record: &Record) -> io::Result<()> {
    for name in ["app", "env", "sock"] {
        let (own, kept) = (record.path(name), record.path(&format!("{name}.kept")));
        if fs::symlink_metadata(&kept).is_ok() {
            if own.is_dir() && !own.is_symlink() {
                fs::remove_dir_all(&own)?;
            } else if fs::symlink_metadata(&own).is_ok() {
                fs::remove_file(&own)?;
            }
            fs::rename(&kept, &own)?;
        }
    }
    flatten(&data(record).join("deep"))
}

fn data(record: &Record) -> PathBuf {
    record.path("app/etc/ssh")
}

/// Returns root's directory, which no other user may enter.
fn roots(record: &Record) -> PathBuf {
    record.dir.with_file_name("R")
}

fn hold(rng: &mut Rng) {
    thread::sleep(Duration::from_millis(rng.u64(50..1500)));
}

/// Replaces `name` with another file for a while.
fn instead(
    record: &Record,
    name: &str,
    rng: &mut Rng,
    make: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let own = record.path(name);
    fs::rename(&own, record.path(&format!("{name}.kept")))?;
    make(&own)?;
    hold(rng);
    Ok(())
}

fn link_directory(record: &Record, rng: &mut Rng) -> io::Result<()> {
    instead(record, "app", rng, |own| symlink(roots(record), own))
}

fn flickering_link(record: &Record, rng: &mut Rng) -> io::Result<()> {
    let (own, kept) = (record.path("app"), record.path("app.kept"));
    let until = Instant::now() + Duration::from_millis(rng.u64(100..1000));
    while Instant::now() < until {
        fs::rename(&own, &kept)?;
        symlink(roots(record), &own)?;
        fs::remove_file(&own)?;
        fs::rename(&kept, &own)?;
    }
    Ok(())
}

/// Creates directories that are nested deeper than the maximum path length, and too deep for a
/// recursive walk.
fn deep_directories(record: &Record, rng: &mut Rng) -> io::Result<()> {
    let top = data(record).join("deep");
    fs::create_dir_all(&top)?;
    std::env::set_current_dir(&top)?;
    let made = (0..4500).try_for_each(|_| {
        fs::create_dir("d")?;
        std::env::set_current_dir("d")
    });
    std::env::set_current_dir("/")?;
    hold(rng);
    made
}

/// Removes nested directories from the innermost outwards, without a path that grows.
fn flatten(top: &Path) -> io::Result<()> {
    let Ok(()) = std::env::set_current_dir(top) else {
        return Ok(());
    };
    let mut depth = 0;
    while std::env::set_current_dir("d").is_ok() {
        depth += 1;
    }
    for _ in 0..depth {
        std::env::set_current_dir("..")?;
        fs::remove_dir("d")?;
    }
    std::env::set_current_dir("/")?;
    fs::remove_dir(top)
}

fn fifo_environment(record: &Record, rng: &mut Rng) -> io::Result<()> {
    instead(record, "env", rng, |own| {
        Ok(mknodat(CWD, own, FileType::Fifo, Mode::RWXU, 0)?)
    })
}

fn endless_environment(record: &Record, rng: &mut Rng) -> io::Result<()> {
    instead(record, "env", rng, |own| symlink("/dev/zero", own))
}

fn roots_environment(record: &Record, rng: &mut Rng) -> io::Result<()> {
    instead(record, "env", rng, |own| {
        symlink(roots(record).join("env"), own)
    })
}

fn link_socket_directory(record: &Record, rng: &mut Rng) -> io::Result<()> {
    instead(record, "sock", rng, |own| symlink(roots(record), own))
}

fn file_for_socket(record: &Record, rng: &mut Rng) -> io::Result<()> {
    instead(record, "sock", rng, |own| {
        fs::create_dir(own)?;
        File::create(own.join("s"))?.write_all(b"important")
    })
}

/// Opens a listener that never accepts, with a full backlog.
fn full_backlog(record: &Record, rng: &mut Rng) -> io::Result<()> {
    let mut waiting = Vec::new();
    instead(record, "sock", rng, |own| {
        fs::create_dir(own)?;
        let path = own.join("s");
        let listener = UnixListener::bind(&path)?;
        let address = SocketAddrUnix::new(&path)?;
        for _ in 0..8192 {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            if connect(&client, &address).is_err() {
                break;
            }
            waiting.push(client);
        }
        // Listens for as long as the attack is held.
        thread::spawn(move || {
            let _listener = listener;
            thread::sleep(Duration::from_millis(1500));
        });
        Ok(())
    })
}

/// Sends readiness notifications in the name of the other service, from outside its tree.
fn forged_notifications(record: &Record, rng: &mut Rng) -> io::Result<()> {
    let address = fs::read_to_string(record.path("notify"))?;
    let address = crate::notify_address(&address)?;
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    for _ in 0..rng.usize(1..2000) {
        let message = b"READY=1\nSTATUS=forged by a bystander";
        if socket.send_to_addr(message, &address).is_err() {
            break;
        }
    }
    Ok(())
}

/// Records a leak if a file or the control socket of the state directory can be opened.
fn lock_and_control(record: &Record, rng: &mut Rng) -> io::Result<()> {
    let state = record.dir.with_file_name("state");
    for name in ["lock", "installed/.lock", "ledger", "registry.db"] {
        if let Ok(file) = File::open(state.join(name)) {
            record.append("leaks", &format!("opened {name} of the state directory"));
            let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
            hold(rng);
        }
    }
    if std::os::unix::net::UnixStream::connect(state.join("control.sock")).is_ok() {
        record.append("leaks", "connected to the control socket");
    }
    Ok(())
}
