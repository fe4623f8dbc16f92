//! `stamp FILE MODE …`: a supervised program for measurements, which starts as fast as possible.
//!
//! It appends `KIND MONOTONIC_NS PID` records to FILE, beginning with S as its first instruction,
//! and then runs in MODE:
//!
//! | mode | does |
//! |---|---|
//! | `idle` | waits for a signal |
//! | `crash MS` | lives for MS milliseconds, records E, exits with 1 |
//! | `state FILE` | if FILE begins with `bad`, records E and exits with 201 |
//! | `stubborn` | ignores TERM, INT and HUP |
//! | `tree` | starts a child (G) and a double-forked process in its own session (D), both stubborn |
//! | `block FIFO LINES` | once FIFO is opened, writes numbered 120-byte lines in 64 KiB writes: B, E |
//! | `line FIFO LINES` | the same, with one write(2) per line |
//! | `burst FIFO LINES RATE` | the same, RATE lines per second in bursts of 10 ms; then L: the longest delay in nanoseconds |
//! | `tick FIFO COUNT EXTRA` | every 10 ms, writes EXTRA such lines and one with the time (CLOCK_MONOTONIC, ns) |
//!
//! `stamp verify LINES FILE…` reads the logged lines and prints how many are intact, lost,
//! duplicate, torn and reordered, and how many the log itself reports as lost. A timestamp before a
//! line is skipped, and the message of a JSON line is used.

#![cfg_attr(unix, no_main)]
#![expect(clippy::print_stdout, reason = "`verify` answers on stdout")]

#[cfg(unix)]
#[unsafe(no_mangle)]
extern "C" fn main(argc: libc::c_int, argv: *const *const libc::c_char) -> libc::c_int {
    // SAFETY: the C runtime passes its own argc and argv.
    let args = unsafe { mainstay_testkit::c_args(argc, argv) };
    unix::run(&args).unwrap_or(98)
}

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
mod unix {
    use std::fs::{self, File, OpenOptions};
    use std::io::{self, BufRead, BufReader, Write};
    use std::os::fd::AsFd;
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    pub(crate) fn run(args: &[String]) -> io::Result<i32> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if let ["verify", lines, files @ ..] = &args[..] {
            return verify(number(lines)?, files).map(|()| 0);
        }
        let [file, mode @ ..] = &args[..] else {
            return Ok(2);
        };
        let mut records = OpenOptions::new().append(true).create(true).open(file)?;
        record(&mut records, 'S')?;
        match *mode {
            ["idle"] => {}
            ["crash", ms] => {
                let ms = number(ms)?;
                if ms > 0 {
                    std::thread::sleep(Duration::from_millis(ms));
                }
                record(&mut records, 'E')?;
                return Ok(1);
            }
            ["state", file] => {
                if fs::read(file)?.starts_with(b"bad") {
                    record(&mut records, 'E')?;
                    return Ok(201);
                }
            }
            ["stubborn"] => become_stubborn(),
            ["tree"] => {
                if fork()? {
                    become_stubborn();
                    record(&mut records, 'G')?;
                } else if fork()? {
                    rustix::process::setsid()?;
                    if !fork()? {
                        return Ok(0);
                    }
                    become_stubborn();
                    record(&mut records, 'D')?;
                }
            }
            [how @ ("block" | "line"), fifo, lines] => {
                drop(File::open(fifo)?);
                record(&mut records, 'B')?;
                Lines::new(if how == "block" { BLOCK } else { 1 })?.write(number(lines)?)?;
                record(&mut records, 'E')?;
            }
            ["burst", fifo, lines, rate] => {
                drop(File::open(fifo)?);
                record(&mut records, 'B')?;
                let late = burst(number(lines)?, number(rate)?)?;
                record(&mut records, 'E')?;
                record_time(&mut records, 'L', late)?;
            }
            ["tick", fifo, count, extra] => {
                drop(File::open(fifo)?);
                let mut out = Lines::new(1)?;
                for _ in 0..number(count)? {
                    std::thread::sleep(PERIOD);
                    out.write(number(extra)?)?;
                    writeln!(out.stdout, "{}", now())?;
                }
                record(&mut records, 'E')?;
            }
            _ => return Ok(2),
        }
        loop {
            std::thread::park();
        }
    }

    fn number(word: &str) -> io::Result<u64> {
        word.parse().map_err(io::Error::other)
    }

    fn now() -> i64 {
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec * 1_000_000_000 + now.tv_nsec
    }

    fn record(file: &mut File, kind: char) -> io::Result<()> {
        record_time(file, kind, now())
    }

    fn record_time(file: &mut File, kind: char, ns: i64) -> io::Result<()> {
        file.write_all(format!("{kind} {ns} {}\n", std::process::id()).as_bytes())
    }

    fn become_stubborn() {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            // SAFETY: ignoring a signal runs no code of this program.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }

    /// Forks. Returns whether this is the child.
    fn fork() -> io::Result<bool> {
        // SAFETY: this process has one thread, so the child may do whatever the parent may.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            pid => Ok(pid == 0),
        }
    }

    /// The length of a line in bytes, including the newline: 12 digits, a space, and a filler of
    /// one repeated letter.
    const LEN: usize = 120;
    /// The number of lines in a block: 65,520 bytes.
    const BLOCK: usize = 546;

    /// The time between two bursts.
    const PERIOD: Duration = Duration::from_millis(10);

    /// A writer of numbered lines to stdout.
    struct Lines {
        stdout: File,
        block: Vec<u8>,
        next: u64,
    }

    impl Lines {
        fn new(at_once: usize) -> io::Result<Self> {
            let mut block = vec![b'\n'; at_once * LEN];
            for (index, line) in block.chunks_exact_mut(LEN).enumerate() {
                line[12] = b' ';
                line[13..LEN - 1].fill(b'a' + (index % 26) as u8);
            }
            let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            Ok(Self {
                stdout,
                block,
                next: 0,
            })
        }

        fn write(&mut self, lines: u64) -> io::Result<()> {
            let end = self.next + lines;
            while self.next < end {
                let count = (end - self.next).min((self.block.len() / LEN) as u64) as usize;
                for line in self.block.chunks_exact_mut(LEN).take(count) {
                    let mut rest = self.next;
                    for digit in line[..12].iter_mut().rev() {
                        *digit = b'0' + (rest % 10) as u8;
                        rest /= 10;
                    }
                    self.next += 1;
                }
                self.stdout.write_all(&self.block[..count * LEN])?;
            }
            Ok(())
        }
    }

    /// Writes lines in bursts and returns the longest delay of the end of a burst, in nanoseconds.
    fn burst(lines: u64, rate: u64) -> io::Result<i64> {
        let mut out = Lines::new(1)?;
        let each = rate / 100;
        let mut due = now();
        let mut late = 0;
        while out.next < lines {
            out.write(each.min(lines - out.next))?;
            due += PERIOD.as_nanos() as i64;
            let ahead = due - now();
            late = late.max(-ahead);
            std::thread::sleep(Duration::from_nanos(ahead.max(0) as u64));
        }
        Ok(late)
    }

    /// Prints `INTACT LOST DUPLICATE TORN REORDERED SAID`. The files are given oldest first.
    fn verify(lines: u64, files: &[&str]) -> io::Result<()> {
        let mut seen = vec![false; lines as usize];
        let (mut distinct, mut duplicate, mut torn, mut reordered) = (0, 0, 0, 0);
        let (mut previous, mut said) = (None, 0);
        for file in files {
            let mut reader = BufReader::with_capacity(1 << 16, fs::File::open(file)?);
            let mut line = Vec::with_capacity(LEN);
            while reader.read_until(b'\n', &mut line)? > 0 {
                match parse(&line).filter(|number| *number < lines) {
                    None => match said_lost(&line) {
                        Some(count) => said += count,
                        None => torn += 1,
                    },
                    Some(number) => {
                        let again = std::mem::replace(&mut seen[number as usize], true);
                        duplicate += u64::from(again);
                        distinct += u64::from(!again);
                        reordered += u64::from(previous > Some(number));
                        previous = Some(number);
                    }
                }
                line.clear();
            }
        }
        println!(
            "{distinct} {} {duplicate} {torn} {reordered} {said}",
            lines - distinct
        );
        Ok(())
    }

    /// Parses the number of lines in `mainstay: N bytes (M lines) were lost: …`.
    fn said_lost(line: &[u8]) -> Option<u64> {
        let line = std::str::from_utf8(line).ok()?;
        let (_, lines) = line.strip_prefix("mainstay: ")?.split_once(" bytes (")?;
        lines.split(' ').next()?.parse().ok()
    }

    fn parse(line: &[u8]) -> Option<u64> {
        let line = line.strip_suffix(b"\n")?;
        let line = line.strip_suffix(b"\"}").unwrap_or(line);
        let (before, line) = line.split_at_checked(line.len().checked_sub(LEN - 1)?)?;
        let is_time =
            before.ends_with(b" ") && (before.starts_with(b"@4") || before.starts_with(b"20"));
        if !before.is_empty() && !is_time && !before.ends_with(br#""message":""#) {
            return None;
        }
        let filler = &line[13..];
        let whole = line[12] == b' ' && filler.iter().all(|byte| *byte == filler[0]);
        let digits = std::str::from_utf8(&line[..12]).ok()?;
        digits.parse().ok().filter(|_| whole)
    }
}
