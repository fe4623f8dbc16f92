//! The processor time of storing 10,000 events a second, compared with plain writes of the same
//! lines.

#![expect(clippy::print_stdout, reason = "it prints the figures")]

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    events::measure()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("only on Linux");
}

#[cfg(target_os = "linux")]
mod events {
    use std::error::Error;
    use std::fs::File;
    use std::io::Write as _;
    use std::path::Path;
    use std::thread;
    use std::time::{Duration, Instant};

    use mainstay_core::spec::ServiceName;
    use mainstay_logs::EventLog;
    use mainstay_testkit::Sandbox;

    const SERVICES: usize = 10;
    const RATE: usize = 10_000;
    const SECONDS: usize = 5;
    const ROUNDS: usize = 3;
    /// The number of events at a time, so that few of the wake-ups are those of the measurement.
    const BURST: usize = 10;

    pub(super) fn measure() -> Result<(), Box<dyn Error>> {
        let names =
            (0..SERVICES).filter_map(|number| ServiceName::new(&format!("service-{number}")));
        let names: Vec<ServiceName> = names.collect();
        println!("{RATE} events a second of {SERVICES} services, share of one processor:");
        for _ in 0..ROUNDS {
            let sandbox = Sandbox::new();
            let nothing = pace(|_| Ok(()))?;
            let mut file = File::create(sandbox.path().join("plain"))?;
            let plain = pace(|number| {
                let is_second = number % RATE == 0;
                file.write_all(line(number).as_bytes())?;
                if is_second { file.sync_data() } else { Ok(()) }
            })?;
            let log = EventLog::new(sandbox.path().join("events"), |event| println!("{event:?}"));
            let stored = pace(|number| {
                log.append(&names[number % SERVICES], line(number).as_bytes());
                Ok(())
            })?;
            log.close();
            let percent = |time: Duration| {
                time.saturating_sub(nothing).as_secs_f64() * 100.0 / SECONDS as f64
            };
            let (plain, stored) = (percent(plain), percent(stored));
            let size = size(&sandbox.path().join("events"))?;
            println!("plain writes {plain:.2} %, event log {stored:.2} %; {size} bytes");
        }
        Ok(())
    }

    fn line(number: usize) -> String {
        format!(
            "{{\"time\":\"2026-11-22T10:11:12.{:03}Z\",\"service\":\"service-{}\",\"alert\":false,\
             \"event\":\"exited\",\"exit\":{{\"code\":{}}},\"after_ms\":{number},\
             \"message\":\"exited after {number}ms: exit code 1\"}}\n",
            number % 1000,
            number % SERVICES,
            number % 256,
        )
    }

    /// Calls `act` at the rate, and returns the processor time of the process.
    fn pace(mut act: impl FnMut(usize) -> std::io::Result<()>) -> std::io::Result<Duration> {
        let (begin, used) = (Instant::now(), processor_time());
        let pause = Duration::from_secs(1) * u32::try_from(BURST).unwrap_or(1) / RATE as u32;
        for burst in 0..RATE * SECONDS / BURST {
            for number in 0..BURST {
                act(burst * BURST + number)?;
            }
            let next = begin + pause * (burst as u32 + 1);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(processor_time() - used)
    }

    fn processor_time() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    fn size(dir: &Path) -> std::io::Result<u64> {
        let mut size = 0;
        for entry in std::fs::read_dir(dir)? {
            for file in std::fs::read_dir(entry?.path())? {
                size += file?.metadata()?.len();
            }
        }
        Ok(size)
    }
}
