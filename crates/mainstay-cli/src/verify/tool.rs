//! Tools of the system, asked for evidence: without input, in the C locale, and for a limited time.

use std::io::{self, Read as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The time within which a tool answers.
const TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The number of bytes that are read of an answer.
const LIMIT: u64 = 256 << 10;

/// The output of a tool.
pub(super) struct Output {
    pub(super) code: Option<i32>,
    pub(super) text: String,
}

/// Runs a tool and returns its exit code and its standard output. Blocks.
///
/// # Errors
/// If it cannot be run or does not exit in time, with the reason.
pub(super) fn run(argv: &[&str]) -> Result<Output, String> {
    let (program, arguments) = argv.split_first().ok_or("no tool is known")?;
    let spawned = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{program} is not installed"),
        _ => format!("cannot run {program}: {error}"),
    })?;
    let deadline = Instant::now() + TIMEOUT;
    let (sender, received) = mpsc::channel();
    let mut output = child.stdout.take();
    // Whoever else holds the pipe may keep this thread. It ends with this process.
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = output
            .as_mut()
            .map(|output| output.take(LIMIT).read_to_end(&mut bytes));
        drop(sender.send((bytes, read.is_some_and(|read| read.is_ok()))));
    });
    let late = || format!("{program} did not answer within {} s", TIMEOUT.as_secs());
    let answer = received.recv_timeout(TIMEOUT);
    let code = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status.code()),
            Ok(None) if answer.is_ok() && Instant::now() < deadline => thread::sleep(POLL_INTERVAL),
            Ok(None) => {
                drop(child.kill());
                drop(child.wait());
                break Err(late());
            }
            Err(error) => break Err(format!("cannot wait for {program}: {error}")),
        }
    };
    let (bytes, is_whole) = answer.map_err(|_| late())?;
    if !is_whole {
        return Err(format!("the output of {program} cannot be read"));
    }
    Ok(Output {
        code: code?,
        text: String::from_utf8_lossy(&bytes).into_owned(),
    })
}
