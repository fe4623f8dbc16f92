//! `bare CONF LOG_DIR`: a minimal supervisor. It is the baseline of `cargo xtask bench`, not a
//! product.
//!
//! It uses one thread and one epoll instance, and one pipe and one log file per service. It
//! restarts a service immediately, and SIGTERM stops all services. It has no configuration
//! language, state, backoff, rotation or escalation. CONF contains one service per line: its name
//! and its argv, separated by tabs. `Command` without a `pre_exec` is `posix_spawn`, hence `vfork`:
//! the fastest possible start.

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    linux::run()
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::ffi::OsString;
    use std::fs::{self, File};
    use std::io::{self, PipeReader, PipeWriter, Read, Write};
    use std::os::fd::IntoRawFd;
    use std::path::Path;
    use std::process::Command;
    use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

    use rustix::event::epoll;
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

    struct Service {
        argv: Vec<String>,
        output: PipeReader,
        /// Kept open, so that the pipe survives restarts.
        input: PipeWriter,
        log: File,
    }

    /// The epoll key of the signals; services have their index.
    const SIGNALS: u64 = u64::MAX;

    pub(crate) fn run() -> io::Result<()> {
        let args: Vec<OsString> = std::env::args_os().skip(1).collect();
        let [conf, log_dir] = &args[..] else {
            return Err(io::Error::other("usage: bare CONF LOG_DIR"));
        };
        let mut signals = read_signals()?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let key = epoll::EventData::new_u64;
        epoll::add(&poll, &signals, key(SIGNALS), epoll::EventFlags::IN)?;
        let mut services = read_conf(conf.as_ref(), log_dir.as_ref())?;
        let mut running = HashMap::with_capacity(services.len());
        for (index, service) in services.iter().enumerate() {
            epoll::add(
                &poll,
                &service.output,
                key(index as u64),
                epoll::EventFlags::IN,
            )?;
            running.insert(service.launch()?, index);
        }
        let mut stopping = false;
        let mut events = Vec::with_capacity(64);
        let mut buffer = vec![0; 1 << 18];
        while !running.is_empty() {
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            if epoll::wait(&poll, room, None) == Err(rustix::io::Errno::INTR) {
                continue;
            }
            for event in &events {
                if event.data.u64() != SIGNALS {
                    services[event.data.u64() as usize].drain(&mut buffer)?;
                    continue;
                }
                let size = signals.read(&mut buffer)?;
                if buffer[..size].contains(&(libc::SIGTERM as u8)) {
                    stopping = true;
                    running
                        .keys()
                        .try_for_each(|pid| kill_process(*pid, Signal::TERM))?;
                }
                while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
                    if let Some(index) = running.remove(&pid).filter(|_| !stopping) {
                        running.insert(services[index].launch()?, index);
                    }
                }
            }
        }
        Ok(())
    }

    /// The descriptor that the handler writes to.
    static SIGNAL_INPUT: AtomicI32 = AtomicI32::new(-1);

    /// Returns a pipe with one byte for each SIGCHLD and SIGTERM. Handlers are used because
    /// children inherit a blocked mask from `Command`, but no handler.
    fn read_signals() -> io::Result<PipeReader> {
        extern "C" fn pass_on(signal: libc::c_int) {
            // SAFETY: write(2) is async-signal-safe, and the byte outlives it.
            unsafe {
                libc::write(
                    SIGNAL_INPUT.load(Relaxed),
                    [signal as u8].as_ptr().cast(),
                    1,
                )
            };
        }
        let (output, input) = io::pipe()?;
        SIGNAL_INPUT.store(input.into_raw_fd(), Relaxed);
        for signal in [libc::SIGCHLD, libc::SIGTERM] {
            let handler = pass_on as extern "C" fn(libc::c_int) as libc::sighandler_t;
            // SAFETY: the handler is async-signal-safe. System calls are restarted after it, as
            // signal(3) describes.
            unsafe { libc::signal(signal, handler) };
        }
        Ok(output)
    }

    fn read_conf(conf: &Path, log_dir: &Path) -> io::Result<Vec<Service>> {
        let service = |line: &str| {
            let mut words = line.split('\t').map(str::to_owned);
            let name = words.next().unwrap_or_default();
            let (output, input) = io::pipe()?;
            let log = File::create(log_dir.join(name + ".log"))?;
            Ok(Service {
                argv: words.collect(),
                output,
                input,
                log,
            })
        };
        fs::read_to_string(conf)?.lines().map(service).collect()
    }

    impl Service {
        fn launch(&self) -> io::Result<Pid> {
            let child = Command::new(&self.argv[0])
                .args(&self.argv[1..])
                .stdout(self.input.try_clone()?)
                .stderr(self.input.try_clone()?)
                .spawn()?;
            Ok(Pid::from_child(&child))
        }

        fn drain(&mut self, buffer: &mut [u8]) -> io::Result<()> {
            let size = self.output.read(buffer)?;
            self.log.write_all(&buffer[..size])
        }
    }
}
