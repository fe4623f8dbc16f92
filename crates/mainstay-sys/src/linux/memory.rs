//! Release of memory that is not needed at present.

use std::fs;
use std::io;
use std::ops::Range;

/// Releases the memory that this process does not use at present: free parts of the heap, the stack
/// below the caller, and all pages of the program and its libraries, of which those that are needed
/// are mapped again (from the page cache, 64 KiB around each fault). A supervisor waits for months,
/// without the code that reads manifests and the command line, or that answers requests.
///
/// Nothing is lost: dropped pages are unchanged copies of files. A failure leaves the memory as it
/// was.
pub fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time. Nothing follows from there being nothing to release.
    let _is_released = unsafe { libc::malloc_trim(0) };
    if let Ok(Some(stack)) = stack() {
        forget_below(stack);
    }
    clean().into_iter().flatten().for_each(forget);
}

/// Releases the part of the main thread's `stack` below the caller's frame, if the caller is that
/// thread: earlier calls went deeper.
#[inline(never)]
pub(super) fn forget_below(stack: Range<usize>) {
    // The frames of this function and of what it calls.
    const OWN: usize = 8 << 10;
    let here = 0_u8;
    let end = (&raw const here).addr().saturating_sub(OWN);
    let end = end - end % rustix::param::page_size();
    if stack.contains(&end) {
        forget(stack.start..end);
    }
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
    mapping(" [heap]")
}

/// Returns the address range of the main thread's stack, as far as it has grown.
pub(super) fn stack() -> io::Result<Option<Range<usize>>> {
    mapping(" [stack]")
}

fn mapping(name: &str) -> io::Result<Option<Range<usize>>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let found = maps.lines().find(|line| line.ends_with(name));
    Ok(found.and_then(|line| parse(line.split(' ').next()?)))
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
