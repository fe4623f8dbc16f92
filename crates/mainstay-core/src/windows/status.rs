//! Exit codes of Windows that have names: the NTSTATUS values with which the system ends a program
//! ([MS-ERREF] section 2.3.1).

/// The names and their values, which are exit codes as unsigned numbers.
pub const NAMES: [(&str, u32); 25] = [
    ("STATUS_FATAL_APP_EXIT", 0x4000_0015),
    ("STATUS_GUARD_PAGE_VIOLATION", 0x8000_0001),
    ("STATUS_DATATYPE_MISALIGNMENT", 0x8000_0002),
    ("STATUS_BREAKPOINT", 0x8000_0003),
    ("STATUS_SINGLE_STEP", 0x8000_0004),
    ("STATUS_ACCESS_VIOLATION", 0xC000_0005),
    ("STATUS_IN_PAGE_ERROR", 0xC000_0006),
    ("STATUS_NO_MEMORY", 0xC000_0017),
    ("STATUS_ILLEGAL_INSTRUCTION", 0xC000_001D),
    ("STATUS_NONCONTINUABLE_EXCEPTION", 0xC000_0025),
    ("STATUS_INVALID_IMAGE_FORMAT", 0xC000_007B),
    ("STATUS_ARRAY_BOUNDS_EXCEEDED", 0xC000_008C),
    ("STATUS_FLOAT_DIVIDE_BY_ZERO", 0xC000_008E),
    ("STATUS_INTEGER_DIVIDE_BY_ZERO", 0xC000_0094),
    ("STATUS_INTEGER_OVERFLOW", 0xC000_0095),
    ("STATUS_PRIVILEGED_INSTRUCTION", 0xC000_0096),
    ("STATUS_STACK_OVERFLOW", 0xC000_00FD),
    ("STATUS_DLL_NOT_FOUND", 0xC000_0135),
    ("STATUS_ENTRYPOINT_NOT_FOUND", 0xC000_0139),
    ("STATUS_CONTROL_C_EXIT", 0xC000_013A),
    ("STATUS_DLL_INIT_FAILED", 0xC000_0142),
    ("STATUS_HEAP_CORRUPTION", 0xC000_0374),
    ("STATUS_STACK_BUFFER_OVERRUN", 0xC000_0409),
    ("STATUS_INVALID_CRUNTIME_PARAMETER", 0xC000_0417),
    ("STATUS_ASSERTION_FAILURE", 0xC000_0420),
];

/// Returns the exit code with this name.
pub fn by_name(name: &str) -> Option<i32> {
    let found = NAMES.iter().find(|(known, _)| *known == name);
    found.map(|(_, code)| code.cast_signed())
}

/// Returns the name of an exit code.
pub fn name_of(code: i32) -> Option<&'static str> {
    let found = NAMES.iter().find(|(_, known)| known.cast_signed() == code);
    found.map(|(name, _)| *name)
}
