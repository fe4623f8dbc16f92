//! Release of memory that only start-up needed.

use std::fs;
use std::io;
use std::ops::Range;

/// Drops the file-backed pages of the program and its libraries, so that only the code that runs
/// from now on is mapped again (from the page cache, 64 KiB around each fault). Reading a manifest,
/// the command line and its help are two thirds of the program, and a supervisor runs for months
/// without them.
///
/// See [`clean`] for why nothing can be lost. A failure leaves the memory as it was.
pub(super) fn forget_start_up() -> io::Result<()> {
    clean()?.into_iter().for_each(forget);
    Ok(())
}

/// Returns the mappings whose every page is a copy of a file: they are not writable and have never
/// been written to (smaps in proc_pid_smaps(5): no page is anonymous, as relocated ones are).
/// Dropped pages are read again at the next access.
pub(super) fn clean() -> io::Result<Vec<Range<usize>>> {
    let smaps = fs::read_to_string("/proc/self/smaps")?;
    let mut clean = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        // 55d0c0a4e000-55d0c0cb1000 r-xp 000d3000 fe:00 326279    /usr/bin/mainstay
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields[..] {
            [range, "r-xp" | "r--p", _, _, _, path] if path.starts_with('/') => {
                current = parse(range);
            }
            [_, rights, _, _, _, ..] if rights.len() == 4 => current = None,
            ["Anonymous:", "0", _] => clean.extend(current.take()),
            _ => {}
        }
    }
    Ok(clean)
}

/// Returns the address range of the heap.
pub(super) fn heap() -> io::Result<Option<Range<usize>>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let heap = maps.lines().find(|line| line.ends_with(" [heap]"));
    Ok(heap.and_then(|line| parse(line.split(' ').next()?)))
}

fn parse(range: &str) -> Option<Range<usize>> {
    let (start, end) = range.split_once('-')?;
    let bound = |text| usize::from_str_radix(text, 16).ok();
    Some(bound(start)?..bound(end)?)
}

/// Releases the pages of a mapping (madvise(2), `MADV_DONTNEED`). Pages of a file are read again at
/// the next access. Others are zero then, so their content must not be needed.
pub(super) fn forget(range: Range<usize>) {
    let start = std::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: the callers' mappings contain nothing that is needed and cannot be read again.
    let _stays_where_refused = unsafe { libc::madvise(start, range.len(), libc::MADV_DONTNEED) };
}
