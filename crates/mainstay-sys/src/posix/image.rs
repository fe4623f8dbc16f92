//! The strings of a program to start: its path, arguments and environment.

use std::ffi::{OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::{io, ptr};

use crate::process::{Command, INSTANCE};

/// The strings needed to start a program, in one block, in the layout that `execve` expects.
pub(crate) struct Image {
    /// The buffer that the pointers below point into. It is neither grown nor freed before them.
    _text: Vec<u8>,
    pub(super) program: *const c_char,
    pub(super) working_dir: *const c_char,
    /// Ends in a null pointer, as does `env`.
    pub(super) argv: Vec<*const c_char>,
    pub(super) env: Vec<*const c_char>,
    /// The place for the child's pid in the value of the variable [`PID`]; null without sockets.
    pid: *mut u8,
}

/// The variable by which a program recognizes that sockets are meant for it (sd_listen_fds(3)).
const PID: &str = "LISTEN_PID=";
/// The maximum number of digits in a pid.
const PID_DIGITS: usize = 10;

impl Image {
    /// Lays out the strings of `command`.
    ///
    /// # Errors
    /// `InvalidInput` if a string contains a NUL byte, which no Unix can pass on.
    pub(crate) fn new(command: &Command<'_>, instance: Option<&str>) -> io::Result<Self> {
        let mut text = Vec::with_capacity(4096);
        let mut push = |parts: &[&OsStr]| {
            let start = text.len();
            for part in parts {
                text.extend_from_slice(part.as_bytes());
            }
            if text[start..].contains(&0) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "an argument or a variable contains a NUL byte",
                ));
            }
            text.push(0);
            Ok(start)
        };
        let equals = OsStr::new("=");
        let program = push(&[command.program.as_os_str()])?;
        let working_dir = push(&[command.working_dir.as_os_str()])?;
        let argv: Vec<usize> = command
            .argv
            .iter()
            .map(|word| push(&[word]))
            .collect::<io::Result<_>>()?;
        let mut env: Vec<usize> = command
            .env
            .iter()
            .map(|(name, value)| push(&[name, equals, value]))
            .collect::<io::Result<_>>()?;
        if let Some(id) = instance {
            env.push(push(&[OsStr::new(INSTANCE), equals, OsStr::new(id)])?);
        }
        let mut pid = None;
        if !command.sockets.is_empty() {
            let count = command.sockets.len().to_string();
            env.push(push(&[OsStr::new("LISTEN_FDS="), OsStr::new(&count)])?);
            let digits = "0".repeat(PID_DIGITS);
            let room = [PID, &digits].map(OsStr::new);
            let variable = push(&room)?;
            env.push(variable);
            pid = Some(variable + PID.len());
        }
        let pid = pid.map_or(ptr::null_mut(), |at| text.as_mut_ptr().wrapping_add(at));
        let base: *const c_char = text.as_ptr().cast();
        let at = |offset: usize| base.wrapping_add(offset);
        let list = |offsets: Vec<usize>| {
            let pointers = offsets.into_iter().map(at);
            pointers.chain([ptr::null()]).collect()
        };
        Ok(Self {
            program: at(program),
            working_dir: at(working_dir),
            argv: list(argv),
            env: list(env),
            pid,
            _text: text,
        })
    }

    /// Writes the pid of this process into its environment, if there is a place for it.
    ///
    /// # Safety
    /// Only in the child that the image is for, while nothing else reads the image. It is
    /// async-signal-safe.
    pub(super) unsafe fn write_pid(&self) {
        if self.pid.is_null() {
            return;
        }
        // SAFETY: the call cannot fail.
        let mut rest = unsafe { libc::getpid() };
        // No leading zeros: some programs would read the number as octal.
        let digits = rest.unsigned_abs().ilog10() as usize + 1;
        for place in (0..digits).rev() {
            // SAFETY: there is room for the maximum number of digits.
            unsafe { *self.pid.add(place) = b'0' + u8::try_from(rest % 10).unwrap_or(0) };
            rest /= 10;
        }
        // SAFETY: the place directly after the digits is at most the NUL that ends the text.
        unsafe { *self.pid.add(digits) = 0 };
    }
}
