//! Threads with stacks smaller than the standard library's 2 MiB, which a kernel with transparent
//! huge pages may back entirely.
//!
//! A stack overflow aborts the supervisor, so each size is at least twice the deepest use of any
//! thread that has it. In unit tests on Linux, those of this crate and those of its users, every
//! such thread compares the two when it ends; debug builds use the most stack.

use std::io;
use std::thread::{self, JoinHandle};

/// The size of a thread's stack. Only pages that were used count as memory.
#[derive(Clone, Copy, Debug)]
pub enum Stack {
    /// For threads that move bytes and whose buffers are on the heap.
    Small,
    /// For compression, TLS and name resolution, whose frames belong to other crates and the
    /// system's libraries.
    Large,
}

impl Stack {
    const fn bytes(self) -> usize {
        match self {
            Self::Small => 256 << 10,
            Self::Large => 1 << 20,
        }
    }
}

/// Starts a thread. Systems that display thread names truncate `name` to 15 bytes.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    stack: Stack,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let builder = thread::Builder::new().name(name.into());
    let builder = builder.stack_size(stack.bytes());
    #[cfg(all(debug_assertions, target_os = "linux"))]
    let work = measured::within_half(stack, work);
    builder.spawn(work)
}

#[cfg(all(debug_assertions, target_os = "linux"))]
mod measured {
    use std::fs;
    use std::sync::LazyLock;

    use super::Stack;

    /// Set if this process is a test: Cargo runs tests from `deps`, and programs from the directory
    /// above it. `cfg(test)` would be set in the tests of this crate only.
    static IS_TEST: LazyLock<bool> = LazyLock::new(|| {
        let path = std::env::current_exe().unwrap_or_default();
        path.parent().is_some_and(|dir| dir.ends_with("deps"))
    });

    /// Aborts a test if `work` used more than half of its thread's stack.
    pub(super) fn within_half<T>(stack: Stack, work: impl FnOnce() -> T) -> impl FnOnce() -> T {
        move || {
            let done = work();
            if !*IS_TEST {
                return done;
            }
            let used = used().expect("a mapping that holds this stack");
            let half = stack.bytes() / 2;
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            #[expect(clippy::print_stderr, reason = "a panic of this thread fails no test")]
            if used > half {
                eprintln!("thread {name} used {used} bytes of stack, more than {half}");
                std::process::abort();
            }
            done
        }
    }

    /// Returns the resident bytes of this thread's stack: at least its deepest use so far.
    fn used() -> Option<usize> {
        let here = 0_u8;
        let here = (&raw const here).addr();
        let mappings = fs::read_to_string("/proc/self/smaps").ok()?;
        let mut is_ours = false;
        for line in mappings.lines() {
            let mut words = line.split_ascii_whitespace();
            let first = words.next()?;
            if let Some((from, to)) = first.split_once('-') {
                let number = |text| usize::from_str_radix(text, 16).ok();
                is_ours = (number(from)?..number(to)?).contains(&here);
            } else if is_ours && first == "Rss:" {
                return Some(words.next()?.parse::<usize>().ok()? << 10);
            }
        }
        None
    }

    #[cfg(test)]
    #[test]
    fn what_a_stack_has_used_is_seen() {
        #[inline(never)]
        fn deep() -> u8 {
            std::hint::black_box([7_u8; 150 << 10])[0]
        }
        let deep = super::spawn("deep", Stack::Large, || (used(), deep(), used()));
        let (before, _, after) = deep.unwrap().join().unwrap();
        let [before, after] = [before, after].map(Option::unwrap);
        assert!(before < 64 << 10, "{before}");
        assert!(
            (150 << 10..400 << 10).contains(&(after - before)),
            "{after}"
        );
    }
}
