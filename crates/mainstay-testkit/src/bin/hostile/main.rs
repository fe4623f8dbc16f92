//! `hostile ROLE DIR SEED`: a service that attacks its supervisor, the machine and its neighbours.
//!
//! - `service`: one attack on the supervisor per run, from inside the supervised tree, then an
//!   exit.
//! - `accomplice`: an endless series of attacks on DIR from another service of the same account: it
//!   swaps files and directories while the supervisor works with them, and swaps them back.
//! - `diary`: numbered lines, one every millisecond, by which lost output is found.
//!
//! DIR belongs to the attacker's account. SEED and the number of earlier runs determine every
//! choice. The name of each attack is appended to `DIR/attacks` before it begins; anything that
//! should have stayed out of reach is appended to `DIR/leaks`.

#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod service;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use std::path::PathBuf;

    let mut args = std::env::args().skip(1);
    let role = args.next();
    let dir = args.next().map(PathBuf::from);
    let seed = args.next().and_then(|seed| seed.parse().ok());
    let (Some(role), Some(dir), Some(seed)) = (role, dir, seed) else {
        return ExitCode::from(64);
    };
    let record = Record { dir };
    let result = match role.as_str() {
        "service" => service::run(&record, seed),
        "accomplice" => files::run(&record, seed),
        "diary" => service::diary(&record),
        _ => return ExitCode::from(64),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            record.append("errors", &format!("{role}: {error}"));
            ExitCode::from(70)
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    ExitCode::from(64)
}

/// Parses the value of `NOTIFY_SOCKET`.
#[cfg(target_os = "linux")]
fn notify_address(value: &str) -> std::io::Result<std::os::unix::net::SocketAddr> {
    use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};
    match value.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(value),
    }
}

#[cfg(target_os = "linux")]
type Attack = fn(&Record, &mut fastrand::Rng) -> std::io::Result<()>;

/// The attacker's directory, which contains its records.
#[cfg(target_os = "linux")]
struct Record {
    dir: std::path::PathBuf,
}

#[cfg(target_os = "linux")]
impl Record {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.join(name)
    }

    /// Appends a line to one of the files that the soak reads.
    fn append(&self, name: &str, line: &str) {
        use std::io::Write as _;

        let file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.path(name));
        // An attack that makes its own directory unusable is not counted.
        let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
}
