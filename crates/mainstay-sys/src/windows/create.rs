//! Creation of processes: their strings, and the handles that they inherit.

use std::ffi::{OsStr, c_void};
use std::fs::File;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use std::ptr;

use windows_sys::Win32::Foundation::{
    DUPLICATE_SAME_ACCESS, DuplicateHandle, ERROR_BAD_EXE_FORMAT, ERROR_DIRECTORY,
    ERROR_ELEVATION_REQUIRED, ERROR_FILE_NOT_FOUND, ERROR_FILENAME_EXCED_RANGE, ERROR_INVALID_NAME,
    ERROR_PATH_NOT_FOUND, HANDLE,
};
use windows_sys::Win32::System::Threading::{
    CREATE_NO_WINDOW, CREATE_SUSPENDED, CREATE_UNICODE_ENVIRONMENT, CreateProcessW,
    DeleteProcThreadAttributeList, EXTENDED_STARTUPINFO_PRESENT, GetCurrentProcess,
    InitializeProcThreadAttributeList, PROC_THREAD_ATTRIBUTE_HANDLE_LIST, PROCESS_INFORMATION,
    STARTF_USESTDHANDLES, STARTUPINFOEXW, UpdateProcThreadAttribute,
};

use mainstay_core::windows::{paths, text};

use super::{cvt, job};
use crate::process::{Command, SpawnError};

/// Creates a main process, suspended before its first instruction. Returns its handle, its thread's
/// handle and its ID.
pub(super) fn create(
    command: &Command<'_>,
    null: &File,
) -> Result<(OwnedHandle, OwnedHandle, u32), SpawnError> {
    if let Some(user) = command.user {
        match *user {}
    }
    let mut image = Image::new(command)?;
    let output = |source| SpawnError {
        step: "connect the output".into(),
        source,
        hint: None,
        is_permanent: false,
    };
    let inherited = [
        command.stdin.unwrap_or(null.as_handle()),
        command.stdout,
        command.stderr,
    ]
    .map(inheritable);
    let [stdin, stdout, stderr] = inherited;
    let (stdin, stdout, stderr) = (
        stdin.map_err(output)?,
        stdout.map_err(output)?,
        stderr.map_err(output)?,
    );
    let handles = [
        stdin.as_raw_handle(),
        stdout.as_raw_handle(),
        stderr.as_raw_handle(),
    ];
    let mut attributes = Attributes::new(&handles).map_err(output)?;

    let mut startup = STARTUPINFOEXW::default();
    startup.StartupInfo.cb = size_of::<STARTUPINFOEXW>() as u32;
    startup.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
    [
        startup.StartupInfo.hStdInput,
        startup.StartupInfo.hStdOutput,
        startup.StartupInfo.hStdError,
    ] = handles;
    startup.lpAttributeList = attributes.as_mut_ptr();
    let mut made = PROCESS_INFORMATION::default();
    let flags = CREATE_SUSPENDED
        | CREATE_UNICODE_ENVIRONMENT
        | EXTENDED_STARTUPINFO_PRESENT
        | CREATE_NO_WINDOW;
    // SAFETY: every string ends in NUL (the environment in two), the line is writable, and all live
    // until the call returns.
    let done = unsafe {
        CreateProcessW(
            image.application.as_ptr(),
            image.line.as_mut_ptr(),
            ptr::null(),
            ptr::null(),
            1,
            flags,
            image.environment.as_ptr().cast(),
            image.working_dir.as_ptr(),
            &startup.StartupInfo,
            &mut made,
        )
    };
    if done == 0 {
        return Err(refusal(command, io::Error::last_os_error()));
    }
    // SAFETY: both were just opened, and only this code owns them.
    let (process, thread) = unsafe {
        (
            OwnedHandle::from_raw_handle(made.hProcess),
            OwnedHandle::from_raw_handle(made.hThread),
        )
    };
    Ok((process, thread, made.dwProcessId))
}

/// Describes why the system did not create the process.
fn refusal(command: &Command<'_>, source: io::Error) -> SpawnError {
    let code = source.raw_os_error().unwrap_or_default().unsigned_abs();
    let has_no_dir = code == ERROR_DIRECTORY || !command.working_dir.is_dir();
    let units = wide(plain(command.program)).len();
    let is_not_found = matches!(
        code,
        ERROR_FILE_NOT_FOUND
            | ERROR_PATH_NOT_FOUND
            | ERROR_INVALID_NAME
            | ERROR_FILENAME_EXCED_RANGE
    );
    if !has_no_dir && is_not_found && units > paths::LONGEST && command.program.is_file() {
        let why = format!(
            "the path has {units} UTF-16 units, and this Windows cannot start a program whose path has more than {}",
            paths::LONGEST
        );
        return SpawnError {
            step: format!("execute {}", command.program.display()),
            source: io::Error::new(io::ErrorKind::InvalidFilename, why),
            hint: Some("move the program to a shorter path".into()),
            is_permanent: true,
        };
    }
    SpawnError {
        step: if has_no_dir {
            format!("change to directory {}", command.working_dir.display())
        } else {
            format!("execute {}", command.program.display())
        },
        source,
        is_permanent: matches!(code, ERROR_BAD_EXE_FORMAT | ERROR_ELEVATION_REQUIRED),
        hint: match code {
            ERROR_BAD_EXE_FORMAT => Some(
                "it is not a program for this version of Windows; start a script with its interpreter"
                    .into(),
            ),
            ERROR_ELEVATION_REQUIRED => Some(
                "it requires administrator rights, which the supervisor does not have".into(),
            ),
            _ => None,
        },
    }
}

/// The strings of a program to start, in the form that `CreateProcessW` expects.
struct Image {
    application: Vec<u16>,
    line: Vec<u16>,
    environment: Vec<u16>,
    working_dir: Vec<u16>,
}

impl Image {
    fn new(command: &Command<'_>) -> Result<Self, SpawnError> {
        let invalid = |what: String| SpawnError {
            step: "prepare the arguments".into(),
            source: io::Error::new(io::ErrorKind::InvalidInput, what),
            hint: None,
            is_permanent: true,
        };
        let argv: Vec<Vec<u16>> = command.argv.iter().map(wide).collect();
        let script = wide(plain(command.program));
        refuse_paths(command)?;
        let (application, line) = if text::is_batch(&script) {
            let arguments = argv.get(1..).unwrap_or_default();
            let line = text::batch_command_line(&script, arguments);
            (wide(job::system_dir().join("cmd.exe").as_os_str()), line)
        } else {
            (
                application(command.program, script),
                text::command_line(&argv),
            )
        };
        let line = line.map_err(|why| invalid(why.to_string()))?;
        let variables = command
            .env
            .iter()
            .map(|(name, value)| (wide(name), wide(value)));
        let environment = text::environment(variables).ok_or_else(|| {
            invalid("a variable contains a NUL, or its name is empty or contains =".to_owned())
        })?;
        Ok(Self {
            application: terminated(application),
            line,
            environment,
            working_dir: terminated(wide(plain(command.working_dir))),
        })
    }
}

/// Returns the reason why this system cannot start a program with these paths. The errors of
/// `CreateProcessW` and `cmd.exe` name another cause, or none.
pub fn unusable_paths(program: &Path, working_dir: &Path) -> Option<paths::Unusable> {
    paths::Unusable::check(&wide(plain(program)), &wide(plain(working_dir))).err()
}

fn refuse_paths(command: &Command<'_>) -> Result<(), SpawnError> {
    let (program, working_dir) = (command.program, command.working_dir);
    match unusable_paths(program, working_dir) {
        None => Ok(()),
        Some(why) => Err(SpawnError {
            step: if why.is_of_working_dir() {
                format!("change to directory {}", working_dir.display())
            } else {
                format!("execute {}", program.display())
            },
            source: io::Error::new(io::ErrorKind::InvalidFilename, why.to_string()),
            hint: Some(why.hint().to_owned()),
            is_permanent: true,
        }),
    }
}

/// Returns the path of a program, in the form without a limit if it is long.
fn application(program: &Path, wide_path: Vec<u16>) -> Vec<u16> {
    if wide_path.len() <= paths::LONGEST {
        return wide_path;
    }
    match std::path::absolute(program) {
        Ok(path) => paths::extended(&wide(path)),
        Err(_) => wide_path,
    }
}

fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().collect()
}

/// Appends the terminating NUL. A path truncated at a NUL would name another file, but no path
/// contains one, because each comes from the system or was checked before.
fn terminated(mut text: Vec<u16>) -> Vec<u16> {
    text.retain(|unit| *unit != 0);
    text.push(0);
    text
}

/// Strips the `\\?\` that `canonicalize` puts before a drive, which neither `cmd.exe` nor a current
/// directory supports.
fn plain(path: &Path) -> &Path {
    let stripped = path.to_str().and_then(|path| path.strip_prefix(r"\\?\"));
    stripped
        .filter(|rest| rest.as_bytes().get(1) == Some(&b':'))
        .map_or(path, Path::new)
}

/// Duplicates a handle so that a child may inherit it. Only children that list the handle inherit
/// it; see [`Attributes`].
fn inheritable(handle: BorrowedHandle<'_>) -> io::Result<OwnedHandle> {
    let mut duplicate = ptr::null_mut();
    // SAFETY: the handle is open while it is borrowed, and only this code owns the new one.
    unsafe {
        let own = GetCurrentProcess();
        cvt(DuplicateHandle(
            own,
            handle.as_raw_handle(),
            own,
            &mut duplicate,
            0,
            1,
            DUPLICATE_SAME_ACCESS,
        ))?;
        Ok(OwnedHandle::from_raw_handle(duplicate))
    }
}

/// An attribute list for a new process with one entry: the only handles that the process inherits.
struct Attributes<'a> {
    list: Vec<usize>,
    _handles: &'a [HANDLE],
}

impl<'a> Attributes<'a> {
    fn new(handles: &'a [HANDLE]) -> io::Result<Self> {
        let mut size = 0;
        // SAFETY: without a list, the call only returns the required size.
        unsafe { InitializeProcThreadAttributeList(ptr::null_mut(), 1, 0, &mut size) };
        let mut list = vec![0_usize; size.div_ceil(size_of::<usize>())];
        // SAFETY: the list has the requested size, and the handles outlive it by the type's
        // lifetime.
        unsafe {
            cvt(InitializeProcThreadAttributeList(
                list.as_mut_ptr().cast(),
                1,
                0,
                &mut size,
            ))?;
            let mut attributes = Self {
                list,
                _handles: handles,
            };
            cvt(UpdateProcThreadAttribute(
                attributes.as_mut_ptr(),
                0,
                PROC_THREAD_ATTRIBUTE_HANDLE_LIST as usize,
                handles.as_ptr().cast(),
                size_of_val(handles),
                ptr::null_mut(),
                ptr::null(),
            ))?;
            Ok(attributes)
        }
    }

    fn as_mut_ptr(&mut self) -> *mut c_void {
        self.list.as_mut_ptr().cast()
    }
}

impl Drop for Attributes<'_> {
    fn drop(&mut self) {
        // SAFETY: the list was initialized.
        unsafe { DeleteProcThreadAttributeList(self.as_mut_ptr()) };
    }
}
