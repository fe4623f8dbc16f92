//! Process creation without copying the supervisor. The child borrows the supervisor's memory, on a
//! stack of its own, until it has executed the program or ended. The calling thread sleeps
//! meanwhile (`vfork(2)`, as a function call instead of a return that happens twice).
//!
//! `clone3` can also create the child inside its cgroup, which costs a tenth of moving it there. If
//! `clone3` is missing, or a container's seccomp filter refuses it, `clone` is used and the child
//! moves itself.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{io, ptr};

use crate::posix::{Child, SignalsBlocked, cvt};

const FLAGS: c_int = libc::CLONE_VM | libc::CLONE_VFORK;

/// The stack for children, used by one at a time. Below it is an inaccessible guard page.
pub(super) struct Stack(*mut c_void);

impl Stack {
    const GUARD: usize = 64 << 10; // the largest page size in use
    const SIZE: usize = Self::GUARD + (64 << 10);

    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a new mapping, which does not overlap any existing one.
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
        // SAFETY: the lowest part of this mapping.
        cvt(unsafe { libc::mprotect(base, Self::GUARD, libc::PROT_NONE) })?;
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: this mapping; no child runs on it once `clone` has returned.
        unsafe { libc::munmap(self.0, Self::SIZE) };
    }
}

/// The entry point of the child.
extern "C" fn entry(child: *mut c_void) -> c_int {
    // SAFETY: the parent passed a `Child` and sleeps until the child is done with it; every signal
    // is blocked.
    unsafe {
        (*child.cast::<Child<'_>>()).become_program();
        libc::_exit(127)
    }
}

/// Starts `child`. The caller then checks `child.failure()`, and reaps the child if there is one.
pub(super) fn clone(stack: &mut Stack, child: &Child<'_>) -> io::Result<u32> {
    let _blocked = SignalsBlocked::new();
    // SAFETY: the stack is borrowed exclusively (`&mut`), `child` outlives the call, and the call
    // lasts until the child no longer uses this process's memory.
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

/// Starts `child` like [`clone`], inside the cgroup of the given directory.
///
/// # Errors
/// `Unsupported` if the system lacks the call or a filter refuses it.
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
    // SAFETY: as in `clone`. The child starts after the system call with the parent's registers but
    // its own stack, calls `entry`, and never returns from it. This block is therefore left once,
    // by the parent, with only the result changed.
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
    // SAFETY: as above.
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
            // The call is missing, `struct clone_args` is older, or a filter refuses it.
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
