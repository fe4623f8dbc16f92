//! A service that logs every few seconds that it is alive. `heartbeat install` installs it;
//! `heartbeat` alone runs it in the foreground.

#![forbid(unsafe_code)]

use std::num::NonZeroU32;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use mainstay::{Accepts, Context, Control, Exit};

const USAGE: NonZeroU32 = NonZeroU32::new(2).unwrap();
/// The exit code of a requested failure.
const TEMPORARY_FAILURE: NonZeroU32 = NonZeroU32::new(75).unwrap();

fn main() -> ExitCode {
    let service = mainstay::service("heartbeat")
        .display_name("Heartbeat")
        .description("Says every few seconds that it lives")
        .version(env!("CARGO_PKG_VERSION"))
        .accepts(Accepts::PAUSE | Accepts::RELOAD);
    // Not necessary under a manager that keeps the output.
    let service = match std::env::var_os("HEARTBEAT_LOG_DIR") {
        Some(dir) => service.log_dir(dir),
        None => service,
    };
    service.main(heartbeat)
}

/// Runs the service. `heartbeat start SECONDS` (on Windows) or `heartbeat run SECONDS` sets the
/// interval, 5 by default. A second number is the duration of the last beat. The third argument
/// `panic`, `chatter` or `starting` demonstrates the handling of a panic, of a service's output and
/// of a stop before the service is ready; `corrupt` and `alone` are failures with a meaning.
fn heartbeat(mut context: Context) -> Result<(), Exit> {
    let seconds = |index: usize, default| {
        let text = context
            .arguments()
            .get(index)
            .map(|text| text.to_string_lossy());
        let seconds = text.as_ref().map_or(Ok(default), |text| text.parse());
        seconds.map(Duration::from_secs).map_err(|_| {
            Exit::new(
                USAGE,
                format!("{} is no number of seconds", text.unwrap_or_default()),
            )
        })
    };
    let (mut every, last) = (seconds(0, 5)?, seconds(1, 0)?);
    match context.arguments().get(2).and_then(|word| word.to_str()) {
        Some("panic") => panic!("asked for"),
        Some("chatter") => chatter(),
        Some("corrupt") => return Err(Exit::state_failed("asked for")),
        Some("alone") => return Err(Exit::unavailable("asked for")),
        Some("starting") => {
            let status = context.status();
            while !status.is_stopping() {
                thread::sleep(Duration::from_millis(10));
            }
            return Ok(());
        }
        _ => {}
    }
    let log = context.logger().clone();
    let status = context.status();
    let mut beats = 0;
    let mut is_paused = false;
    log.info("begun");
    loop {
        match context.wait_for(every) {
            None if is_paused => {}
            None => {
                beats += 1;
                log.info("alive");
                status.text(&format!("{beats} beats"));
            }
            Some(Control::Pause) => {
                is_paused = true;
                log.info("paused");
            }
            Some(Control::Continue) => {
                is_paused = false;
                log.info("continued");
            }
            Some(Control::Reload) => log.info("there is nothing to read again"),
            // `heartbeat control 129` beats every second, and so on. Code 255 fails, to demonstrate
            // recovery.
            Some(Control::Custom(code @ 129..255)) => {
                every = Duration::from_secs(u64::from(code) - 128)
            }
            Some(Control::Custom(255)) => return Err(Exit::new(TEMPORARY_FAILURE, "asked for")),
            Some(Control::Stop(_)) => {
                thread::sleep(last);
                return Ok(());
            }
            Some(_) => {}
        }
    }
}

#[expect(clippy::print_stdout, reason = "it is about printing")]
fn chatter() -> ! {
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                for line in 0..3_000 {
                    println!("{number} {line} {}", "x".repeat(500));
                }
            });
        }
    });
    panic!("enough said")
}
