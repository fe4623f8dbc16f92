//! Child processes that misbehave on purpose, and fixtures.
//!
//! The programs are `puppet` (executes the steps of a test), `stamp` (is measured) and `bare` (the
//! baseline). A test that runs real programs owns a [`Sandbox`]: a directory, and every process
//! that was started in it, wherever it has been reparented.

#[cfg(target_os = "linux")]
mod hung;
#[cfg(target_os = "linux")]
pub mod lab;
#[cfg_attr(all(unix, not(target_os = "linux")), path = "procs_unix.rs")]
#[cfg(unix)]
pub mod procs;
#[cfg(windows)]
pub mod procs_windows;
mod programs;
mod sandbox;
#[cfg(windows)]
pub mod scm_windows;
mod supervisor;
#[cfg(unix)]
mod terminal;

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
pub use hung::HungMount;
pub use programs::{mainstay, puppet};
pub use sandbox::Sandbox;
#[cfg(unix)]
pub use sandbox::make_pipe;
pub use supervisor::Supervisor;
#[cfg(unix)]
pub use terminal::Terminal;

/// The environment variable with the file that [`skip`] appends to, set by `cargo xtask test`.
pub const SKIPS_VARIABLE: &str = "MAINSTAY_SKIPS";

/// Reports that this test was skipped, and the reason: a line `skipped: REASON`, which `cargo xtask
/// test` counts. The caller must return.
#[expect(clippy::print_stdout, reason = "a test speaks to whoever runs it")]
pub fn skip(reason: impl Display) {
    println!("skipped: {reason}");
    let Some(skips_path) = std::env::var_os(SKIPS_VARIABLE) else {
        return;
    };
    let thread = thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(skips_path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the file of skips is writable");
}

/// Polls `probe` until it returns `Some`.
///
/// # Panics
/// After `limit`, naming `what` was waited for.
#[track_caller]
pub fn wait_until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Returns a loopback TCP port that was free a moment ago.
///
/// # Panics
/// If loopback has none left.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("loopback has a free port")
        .port()
}

/// Returns the arguments of a C `main` without the program's name. Invalid UTF-8 is replaced.
///
/// # Safety
/// `argc` and `argv` must be those that the C runtime passed to `main`.
#[cfg(unix)]
pub unsafe fn c_args(argc: libc::c_int, argv: *const *const libc::c_char) -> Vec<String> {
    let argument = |index| {
        // SAFETY: the caller guarantees `argc` pointers to C strings.
        let text = unsafe { std::ffi::CStr::from_ptr(*argv.add(index)) };
        text.to_string_lossy().into_owned()
    };
    (1..argc as usize).map(argument).collect()
}
