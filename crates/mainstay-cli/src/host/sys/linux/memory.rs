//! Memory that only start-up needed.

use std::fs;
use std::io;
use std::ops::Range;

/// Unmaps what the program and its libraries have of files, so that only what runs from now on comes back (from the page cache, by 64 KiB
/// around each fault). Reading a manifest, the command line and its help are two thirds of the program, and a supervisor lives for months
/// without them.
///
/// See [`clean`] for why nothing can be lost. Where it fails nothing has changed but the hope.
pub(super) fn forget_start_up() -> io::Result<()> {
    clean()?.into_iter().for_each(forget);
    Ok(())
}

/// The mappings of which every page is a copy of a file, as nobody can write to it and nobody has (smaps in proc_pid_smaps(5): no page is
/// anonymous, which relocated ones are): forgotten pages come again at the next touch.
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

/// Where the heap lies.
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

/// Gives back the pages of a mapping (madvise(2), `MADV_DONTNEED`). Those of a file come again; others are zero at the next touch, so
/// nobody may need what they hold.
pub(super) fn forget(range: Range<usize>) {
    let start = std::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: the callers' mappings hold nothing that is needed and does not come again.
    let _stays_where_refused = unsafe { libc::madvise(start, range.len(), libc::MADV_DONTNEED) };
}
