//! `stamp FILE MODE …`: a supervised program for measurements, which starts as fast as a program can.
//!
//! It appends `KIND MONOTONIC_NS PID` records to FILE, S as its first instruction, and then behaves as MODE says:
//!
//! | mode | does |
//! |---|---|
//! | `idle` | waits for a signal |
//! | `crash MS` | lives so long, records E, exits 1 |
//! | `stubborn` | ignores TERM, INT and HUP |
//! | `tree` | starts a grandchild (G) and a double-forked one with a session of its own (D), both stubborn |
//! | `block FIFO LINES` | once FIFO is opened writes numbered 120-byte lines in 64 KiB writes: B, E |
//! | `line FIFO LINES` | the same, one write(2) a line |
//!
//! `stamp verify LINES FILE…` reads what became of those lines and prints how many are intact, lost, duplicate, torn and reordered.

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
                write_lines(number(lines)?, if how == "block" { BLOCK } else { 1 })?;
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

    fn record(file: &mut File, kind: char) -> io::Result<()> {
        let now = clock_gettime(ClockId::Monotonic);
        let ns = now.tv_sec * 1_000_000_000 + now.tv_nsec;
        file.write_all(format!("{kind} {ns} {}\n", std::process::id()).as_bytes())
    }

    fn become_stubborn() {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            // SAFETY: ignoring a signal runs no code of ours.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }

    /// Whether this is the child.
    fn fork() -> io::Result<bool> {
        // SAFETY: this process has one thread, so the child may do whatever the parent may.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            pid => Ok(pid == 0),
        }
    }

    /// Bytes of a line, newline included: 12 digits, a space, a filler of one repeated letter.
    const LEN: usize = 120;
    /// Lines of a block: 65,520 bytes.
    const BLOCK: usize = 546;

    fn write_lines(lines: u64, at_once: usize) -> io::Result<()> {
        let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let mut block = vec![b'\n'; at_once * LEN];
        for (index, line) in block.chunks_exact_mut(LEN).enumerate() {
            line[12] = b' ';
            line[13..LEN - 1].fill(b'a' + (index % 26) as u8);
        }
        let mut next = 0;
        while next < lines {
            let count = (lines - next).min(at_once as u64) as usize;
            for line in block.chunks_exact_mut(LEN).take(count) {
                let mut rest = next;
                for digit in line[..12].iter_mut().rev() {
                    *digit = b'0' + (rest % 10) as u8;
                    rest /= 10;
                }
                next += 1;
            }
            stdout.write_all(&block[..count * LEN])?;
        }
        Ok(())
    }

    /// Prints `INTACT LOST DUPLICATE TORN REORDERED`; the files are given oldest first.
    fn verify(lines: u64, files: &[&str]) -> io::Result<()> {
        let mut seen = vec![false; lines as usize];
        let (mut distinct, mut duplicate, mut torn, mut reordered) = (0, 0, 0, 0);
        let mut previous = None;
        for file in files {
            let mut reader = BufReader::with_capacity(1 << 16, fs::File::open(file)?);
            let mut line = Vec::with_capacity(LEN);
            while reader.read_until(b'\n', &mut line)? > 0 {
                match parse(&line).filter(|number| *number < lines) {
                    None => torn += 1,
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
            "{distinct} {} {duplicate} {torn} {reordered}",
            lines - distinct
        );
        Ok(())
    }

    fn parse(line: &[u8]) -> Option<u64> {
        let line: &[u8; LEN] = line.try_into().ok()?;
        let filler = &line[13..LEN - 1];
        let whole = line[12] == b' '
            && line[LEN - 1] == b'\n'
            && filler.iter().all(|byte| *byte == filler[0]);
        let digits = std::str::from_utf8(&line[..12]).ok()?;
        digits.parse().ok().filter(|_| whole)
    }
}
