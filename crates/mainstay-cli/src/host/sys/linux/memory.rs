//! Memory that only start-up needed.

use std::fs;
use std::io;

/// Unmaps the program's code, so that only what runs from now on comes back (from the page cache, by 64 KiB around each fault). Reading a
/// manifest, the command line and its help are two thirds of the program, and a supervisor lives for months without them.
///
/// Only the executable's own read-only code is touched: private, backed by the file, never written, so nothing can be lost (madvise(2),
/// MADV_DONTNEED). Where it fails nothing has changed but the hope.
pub(super) fn forget_start_up() -> io::Result<()> {
    let program = fs::read_link("/proc/self/exe")?;
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        // 55d0c0a4e000-55d0c0cb1000 r-xp 000d3000 fe:00 326279    /usr/bin/mainstay
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some("r-xp")) = (fields.next(), fields.next()) else {
            continue;
        };
        if !program.to_str().is_some_and(|path| line.ends_with(path)) {
            continue;
        }
        let bound = |text| usize::from_str_radix(text, 16).ok();
        let Some((Some(start), Some(end))) =
            range.split_once('-').map(|(a, b)| (bound(a), bound(b)))
        else {
            continue;
        };
        // SAFETY: the range is a mapping of ours as the kernel lists it; its pages are clean copies of the file, which it gives again
        // at the next touch.
        if unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) }
            != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
