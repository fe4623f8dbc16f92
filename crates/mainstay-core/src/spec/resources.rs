//! The share of the machine that a service may use, and its sandbox.

use std::path::PathBuf;

/// The CPU priority of a service under contention: a nice value on Unix, a priority class on
/// Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Nice 19; `IDLE_PRIORITY_CLASS`.
    Low,
    /// Nice 10; `BELOW_NORMAL_PRIORITY_CLASS`.
    BelowNormal,
    /// Nice 0; `NORMAL_PRIORITY_CLASS`.
    Normal,
    /// Nice -5; `ABOVE_NORMAL_PRIORITY_CLASS`.
    AboveNormal,
    /// Nice -10; `HIGH_PRIORITY_CLASS`.
    High,
}

/// The setrlimit(2) limits of each process, soft and hard. `None` inherits the limit of the
/// supervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_NOFILE`: file descriptors.
    pub open_files: Option<u64>,
    /// `RLIMIT_NPROC`: processes and threads of the service's user.
    pub processes: Option<u64>,
    /// `RLIMIT_CORE`: the size of a core dump in bytes; 0 disables core dumps.
    pub core_size: Option<u64>,
    /// `RLIMIT_MEMLOCK`: bytes of memory that may be locked into RAM.
    pub locked_memory: Option<u64>,
}

impl Limits {
    /// The value that means no limit.
    pub const UNLIMITED: u64 = u64::MAX;
}

/// The exceptions from a service's sandbox (systemd.exec(5)). The default allows next to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Absolute paths that the service may write to, in addition to its own state.
    pub writable: Vec<PathBuf>,
    /// Names of capabilities, such as `CAP_NET_BIND_SERVICE` (capabilities(7)).
    pub capabilities: Vec<String>,
    /// Set if the service generates code at run time, as just-in-time compilers do.
    pub jit: bool,
    /// Set if the service may access the machine's devices.
    pub devices: bool,
}
