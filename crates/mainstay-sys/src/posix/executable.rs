//! Reasons why a file cannot be executed.

use std::io::Read;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use crate::guarded;

/// The advice for a script saved with Windows line endings.
const DOS_SCRIPT: &str = "its #! line ends in a carriage return; save it with Unix line endings";

enum LineEnd {
    Plain,
    CarriageReturn,
}

/// Reads the first 256 bytes of a file.
fn head(program: &Path) -> Option<Vec<u8>> {
    let mut head = vec![0; 256];
    let length = guarded::plain_file(program).ok()?.read(&mut head).ok()?;
    head.truncate(length);
    Some(head)
}

/// Returns the interpreter that a script's `#!` line names, and the line's ending.
fn interpreter(head: &[u8]) -> Option<(String, LineEnd)> {
    let line = head
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let (line, end) = match line.strip_suffix(b"\r") {
        Some(line) => (line, LineEnd::CarriageReturn),
        None => (line, LineEnd::Plain),
    };
    let mut words = line
        .split(|byte| b" \t".contains(byte))
        .filter(|word| !word.is_empty());
    let name = words.next().unwrap_or_default();
    Some((String::from_utf8_lossy(name).into_owned(), end))
}

/// Returns why a script has no interpreter, without executing it. With a carriage return, the
/// kernel or `env` looks for a name that ends in it.
pub fn lacks_interpreter(program: &Path) -> Option<String> {
    let head = head(program)?;
    let line = head.split(|byte| *byte == b'\n').next()?;
    let (name, end) = interpreter(line)?;
    let is_alone = line.trim_ascii().ends_with(name.as_bytes());
    let path = Path::new(&name);
    match end {
        LineEnd::CarriageReturn if is_alone || path.ends_with("env") => Some(DOS_SCRIPT.into()),
        _ if path.is_absolute() && !path.exists() => why_not_executed(program, libc::ENOENT),
        _ => None,
    }
}

/// Describes an ELF file by its header (elf(5)).
fn elf(head: &[u8]) -> String {
    let at = |place: usize| head.get(place).copied().unwrap_or(0);
    let (bits, order) = match (at(4), at(5)) {
        (1, 1) => (32, "little-endian"),
        (2, 1) => (64, "little-endian"),
        (1, 2) => (32, "big-endian"),
        (2, 2) => (64, "big-endian"),
        _ => return "a damaged ELF header".to_owned(),
    };
    let number = |place: usize| match order {
        "big-endian" => u16::from_be_bytes([at(place), at(place + 1)]),
        _ => u16::from_le_bytes([at(place), at(place + 1)]),
    };
    let kind = match number(16) {
        2 | 3 => "program",
        1 => return "an object file that was not linked".to_owned(),
        4 => return "a core dump".to_owned(),
        _ => return "a damaged ELF header".to_owned(),
    };
    let machine = match number(18) {
        3 => "x86",
        8 => "MIPS",
        20 => "PowerPC",
        21 => "PowerPC 64",
        22 => "s390",
        40 => "ARM",
        62 => "x86-64",
        183 => "AArch64",
        243 => "RISC-V",
        258 => "LoongArch",
        number => return format!("a {bits}-bit {order} ELF {kind} for machine number {number}"),
    };
    format!(
        "a {bits}-bit {order} ELF {kind} for {machine}; the file may be damaged if that is this machine"
    )
}

/// Explains a failed `execve` whose error is misleading. For example, a missing *interpreter* is
/// reported as a missing file.
pub fn why_not_executed(program: &Path, errno: i32) -> Option<String> {
    let metadata = std::fs::metadata(program).ok()?;
    if errno == libc::EACCES {
        return if metadata.is_dir() {
            Some("it is a directory".into())
        } else if metadata.file_type().is_fifo() || metadata.permissions().mode() & 0o111 == 0 {
            Some(format!(
                "it is not marked as executable; try: chmod +x {}",
                program.display()
            ))
        } else {
            Some("the user may not execute it, or its file system is mounted noexec".into())
        };
    }
    let head = head(program)?;
    match (errno, interpreter(&head)) {
        (libc::ENOENT, Some((_, LineEnd::CarriageReturn))) => Some(DOS_SCRIPT.into()),
        (libc::ENOENT, Some((name, LineEnd::Plain))) => Some(format!("the file exists, but the interpreter of its #! line does not: {name}")),
        (libc::ENOENT, None) => Some(
            "the file exists, but its dynamic loader does not: it was built for another C library or architecture".into(),
        ),
        (libc::ENOEXEC, None) if head.starts_with(b"\x7fELF") => Some(format!(
            "not an executable for this machine ({})",
            elf(&head)
        )),
        (libc::ENOEXEC, None) => Some("it is neither an executable nor a script that starts with #!".into()),
        _ => None,
    }
}
