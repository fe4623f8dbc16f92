//! Attacks from inside: output, notifications, state, processes and exit codes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::{Attack, Record};

/// Sequences that would take over a terminal: title, clear, right-to-left, C1, carriage return.
const ESCAPES: &str = "\x1b]0;owned\x07\x1b[2J\u{202e}\u{9b}31m\roverwritten";

/// An attack, by name.
const ATTACKS: [(&str, Attack); 8] = [
    ("flood of statuses", flood_statuses),
    ("flood of output", flood_output),
    ("a line without an end", endless_line),
    ("terminal escapes", escapes),
    ("orphans that ignore TERM", orphans),
    ("many processes", many_processes),
    ("strange files in its state", strange_files),
    ("state that never rests", restless_state),
];

/// Runs one attack and then exits in a way that makes the supervisor handle its effects.
pub(crate) fn run(record: &Record, seed: u64) -> io::Result<ExitCode> {
    look_for_secrets(record);
    if let Ok(address) = std::env::var("NOTIFY_SOCKET") {
        fs::write(record.path("notify"), address)?;
    }
    let runs = fs::read_to_string(record.path("attacks")).unwrap_or_default();
    let mut rng = Rng::with_seed(seed ^ runs.lines().count() as u64);
    // Most runs become ready. The others exit or hang before.
    if rng.u8(..4) > 0 {
        notify("READY=1");
    }
    let (name, attack) = ATTACKS[rng.usize(..ATTACKS.len())];
    record.append("attacks", name);
    attack(record, &mut rng)?;
    thread::sleep(Duration::from_millis(rng.u64(..2000)));
    match rng.u8(..6) {
        0 => loop {
            thread::park();
        },
        1 => std::process::abort(),
        2 | 3 => Ok(ExitCode::from(201)),
        4 => Ok(ExitCode::from(202)),
        _ => Ok(ExitCode::FAILURE),
    }
}

/// Writes numbered lines until it is killed, and the number of the last one to a file.
pub(crate) fn diary(record: &Record) -> io::Result<ExitCode> {
    let mut output = io::stdout().lock();
    let mut counter = File::create(record.path("diary"))?;
    for number in 1_u64.. {
        // The line is written before the count, so the log may be one line ahead and never behind.
        writeln!(output, "entry {number}")?;
        output.flush()?;
        use std::os::unix::fs::FileExt as _;
        counter.write_all_at(format!("{number:020}").as_bytes(), 0)?;
        thread::sleep(Duration::from_millis(1));
    }
    counter.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Records a leak if a secret of root's environment or files is accessible.
fn look_for_secrets(record: &Record) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("SOAK_SECRET") {
            record.append("leaks", &format!("{name} is in the environment"));
        }
    }
}

fn notify(message: &str) {
    let send = || {
        let address = std::env::var("NOTIFY_SOCKET").map_err(io::Error::other)?;
        let address = crate::notify_address(&address)?;
        UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)
    };
    // A missing socket is the supervisor's concern.
    let _: io::Result<usize> = send();
}

fn flood_statuses(_: &Record, rng: &mut Rng) -> io::Result<()> {
    let message = format!("STATUS={ESCAPES} {}\n", rng.u64(..)).repeat(50);
    let until = Instant::now() + Duration::from_millis(rng.u64(200..2000));
    while Instant::now() < until {
        notify(&message);
    }
    Ok(())
}

fn flood_output(_: &Record, rng: &mut Rng) -> io::Result<()> {
    let block = format!("noise {}\n", rng.u64(..)).repeat(4096);
    let mut output = io::stdout().lock();
    (0..rng.usize(1..200)).try_for_each(|_| output.write_all(block.as_bytes()))
}

fn endless_line(_: &Record, rng: &mut Rng) -> io::Result<()> {
    let block = [b'x'; 65536];
    let mut output = io::stdout().lock();
    (0..rng.usize(1..300)).try_for_each(|_| output.write_all(&block))
}

fn escapes(_: &Record, rng: &mut Rng) -> io::Result<()> {
    notify(&format!("STATUS={ESCAPES}"));
    let mut output = io::stdout().lock();
    (0..rng.usize(1..50)).try_for_each(|_| writeln!(output, "{ESCAPES}"))
}

fn orphans(_: &Record, rng: &mut Rng) -> io::Result<()> {
    for _ in 0..rng.usize(1..8) {
        let script = "trap '' TERM HUP INT; (setsid sleep 1000 &) ; exec sleep 1000";
        let mut child = Command::new("/bin/sh");
        child.args(["-c", script]).process_group(0);
        child.spawn()?;
    }
    Ok(())
}

fn many_processes(_: &Record, rng: &mut Rng) -> io::Result<()> {
    for _ in 0..rng.usize(10..100) {
        let mut child = Command::new("/bin/sleep");
        child.arg("1000").stdin(Stdio::null()).env_clear();
        child.spawn()?;
    }
    Ok(())
}

/// Creates files that a copy must not follow or open, and must not fail on.
fn strange_files(record: &Record, rng: &mut Rng) -> io::Result<()> {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    let data = record.path("app/etc/ssh");
    let place = data.join(format!(
        "{}\u{1b}[31m\n{}",
        ESCAPES.replace('/', ""),
        rng.u16(..)
    ));
    fs::create_dir_all(&place)?;
    std::os::unix::fs::symlink("/etc/shadow", place.join("shadow"))?;
    std::os::unix::fs::symlink("..", place.join("loop"))?;
    mknodat(CWD, place.join("fifo"), FileType::Fifo, Mode::RWXU, 0)?;
    File::create(place.join("sparse"))?.set_len(1 << 40)?;
    for number in 0..rng.usize(1..200) {
        File::create(place.join(number.to_string()))?;
    }
    // The number of files is limited, because the soak would otherwise measure the disk.
    let all: Vec<_> = fs::read_dir(&data)?.flatten().collect();
    for old in all.iter().filter(|_| all.len() > 20) {
        let _ = fs::remove_dir_all(old.path());
    }
    Ok(())
}

fn restless_state(record: &Record, rng: &mut Rng) -> io::Result<()> {
    let file = record.path("app/etc/ssh/restless");
    let until = Instant::now() + Duration::from_millis(rng.u64(200..2500));
    while Instant::now() < until {
        fs::write(&file, rng.u64(..).to_le_bytes())?;
        let _ = fs::remove_file(&file);
    }
    Ok(())
}
