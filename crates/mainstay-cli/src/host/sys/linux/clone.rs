//! Starting a process without copying this one: the child borrows our memory, on a stack of its own, until it has become another
//! program or ended; this thread sleeps meanwhile (`vfork(2)`, as a function call instead of a return that happens twice).
//!
//! `clone3` can also place the child into its cgroup at birth, which costs a tenth of moving it there. Where it is missing, or a
//! container's seccomp filter refuses it, `clone` does the rest and the child moves itself.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{io, ptr};

use super::super::posix::{Child, SignalsBlocked, cvt};

const FLAGS: c_int = libc::CLONE_VM | libc::CLONE_VFORK;

/// The children's stack, used by one at a time; below it lies a page that nobody may touch.
pub(super) struct Stack(*mut c_void);

impl Stack {
    const GUARD: usize = 64 << 10; // the largest page size in use
    const SIZE: usize = Self::GUARD + (64 << 10);

    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a new mapping, of which nothing exists yet.
        let base = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags =
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
            libc::mmap(ptr::null_mut(), Self::SIZE, protection, flags, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self(base);
        // SAFETY: the lowest part of our own mapping.
        cvt(unsafe { libc::mprotect(base, Self::GUARD, libc::PROT_NONE) })?;
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping; no child runs on it once `clone` has returned.
        unsafe { libc::munmap(self.0, Self::SIZE) };
    }
}

/// What runs in the child.
extern "C" fn entry(child: *mut c_void) -> c_int {
    // SAFETY: the parent passed a `Child` and sleeps until we are done with it; every signal is blocked.
    unsafe {
        (*child.cast::<Child<'_>>()).become_program();
        libc::_exit(127)
    }
}

/// Starts `child`; the caller then asks `child.failure()`, and collects it if there is one.
pub(super) fn clone(stack: &mut Stack, child: &Child<'_>) -> io::Result<u32> {
    let _blocked = SignalsBlocked::new();
    // SAFETY: the stack is ours alone (`&mut`), `child` outlives the call, and the call lasts until the child has left our memory.
    let pid = cvt(unsafe {
        let top = stack.0.byte_add(Stack::SIZE);
        libc::clone(
            entry,
            top,
            FLAGS | libc::SIGCHLD,
            ptr::from_ref(child).cast_mut().cast(),
        )
    })?;
    Ok(pid.unsigned_abs())
}

/// As [`clone`], born in the cgroup of that directory. `Unsupported` if this system or its filter has no such call.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) fn clone_into(
    stack: &mut Stack,
    child: &Child<'_>,
    cgroup: BorrowedFd<'_>,
) -> io::Result<u32> {
    /// `struct clone_args` of linux/sched.h, third version (5.7).
    #[repr(C)]
    #[derive(Default)]
    struct Arguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

    let arguments = Arguments {
        flags: FLAGS as u64 | CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.0 as u64,
        stack_size: Stack::SIZE as u64,
        cgroup: cgroup.as_raw_fd() as u64,
        ..Default::default()
    };
    let _blocked = SignalsBlocked::new();
    let result: isize;
    // SAFETY: as in `clone`. The child starts behind the system call with our registers but its own stack, calls `entry`, and
    // never comes back from it; so this block is left once, by the parent, with nothing but the result changed.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r8",
            "call r9",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") &arguments,
            in("rsi") size_of::<Arguments>(),
            in("r8") ptr::from_ref(child),
            in("r9") entry as extern "C" fn(*mut c_void) -> c_int,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    // SAFETY: the same.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x2",
            "blr x3",
            "brk 1",
            "2:",
            inlateout("x0") &arguments => result,
            in("x1") size_of::<Arguments>(),
            in("x2") ptr::from_ref(child),
            in("x3") entry as extern "C" fn(*mut c_void) -> c_int,
            in("x8") libc::SYS_clone3,
            options(nostack),
        );
    }
    match u32::try_from(result) {
        Ok(pid) => Ok(pid),
        Err(_) => match -result as c_int {
            // Not there; an older `struct clone_args`; a filter.
            libc::ENOSYS | libc::E2BIG | libc::EINVAL | libc::EPERM => {
                Err(io::ErrorKind::Unsupported.into())
            }
            errno => Err(io::Error::from_raw_os_error(errno)),
        },
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn clone_into(_: &mut Stack, _: &Child<'_>, _: BorrowedFd<'_>) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}
