//! Windows: one job object per program, which no process in it can leave, and one console without a
//! window per program, so that ctrl-c can be sent to that program alone.
//!
//! A program is created suspended, assigned to its job, and then resumed, so it can never start a
//! child outside of the job. The job ends with the supervisor's handle
//! (`JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE`): if the supervisor is killed, no process is left.
//!
//! Changes are reported by two sources: a wait on each main process, which cannot be lost, and the
//! jobs' completion port, read by one thread, for the end of the last process. Sources: "Job
//! Objects", "CreateProcessW", "Console Functions", Microsoft Learn.

pub(crate) mod access;
mod acl;
mod ask;
mod create;
mod job;
pub(crate) mod pipe;
pub(crate) mod sockets;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{OsString, c_void};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use mainstay_core::log::encoding::pages::{self, Page};
use mainstay_core::spec::{Priority, Signal, StopAsk, StopScope};
use tokio::sync::Notify;
use windows_sys::Win32::Foundation::{
    ERROR_INVALID_PARAMETER, FILETIME, HANDLE, INVALID_HANDLE_VALUE, SYSTEMTIME, WAIT_OBJECT_0,
};
use windows_sys::Win32::Globalization::{CPINFO, GetCPInfo, GetOEMCP, MultiByteToWideChar};
use windows_sys::Win32::Security::{
    GetTokenInformation, TOKEN_ELEVATION, TOKEN_QUERY, TokenElevation,
};
use windows_sys::Win32::System::Console::{
    CONSOLE_SCREEN_BUFFER_INFO, GetConsoleScreenBufferInfo, SMALL_RECT,
};
use windows_sys::Win32::System::Threading::{
    ABOVE_NORMAL_PRIORITY_CLASS, BELOW_NORMAL_PRIORITY_CLASS, GetCurrentProcess, GetCurrentThread,
    GetExitCodeProcess, HIGH_PRIORITY_CLASS, IDLE_PRIORITY_CLASS, INFINITE, NORMAL_PRIORITY_CLASS,
    OpenProcess, OpenProcessToken, PROCESS_SYNCHRONIZE, RegisterWaitForSingleObject, ResumeThread,
    SetPriorityClass, SetProcessAffinityMask, SetThreadPriority, THREAD_MODE_BACKGROUND_BEGIN,
    TerminateProcess, UnregisterWaitEx, WT_EXECUTEINWAITTHREAD, WT_EXECUTEONLYONCE,
    WaitForSingleObject,
};
use windows_sys::Win32::System::Time::{
    FileTimeToSystemTime, SystemTimeToFileTime, SystemTimeToTzSpecificLocalTimeEx,
};

use self::create::create;
use self::job::{Job, Port};
use crate::process::{Command, Containment, Exit, RefusedSetting, SpawnError, TreeId, Usage};

pub use self::ask::run_as_helper;
pub use self::create::unusable_paths;

/// A standard stream of a child.
pub type Stream<'a> = BorrowedHandle<'a>;

/// Borrows an open handle as a child's stream.
pub fn stream(end: &impl AsHandle) -> Stream<'_> {
    end.as_handle()
}

/// Writes all of `bytes` at an offset of a file.
pub fn write_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_write(file, bytes, at)?;
        bytes = &bytes[count..];
        at += count as u64;
    }
    Ok(())
}

/// Reads all of a file.
pub fn read_from_start(mut file: &File) -> io::Result<Vec<u8>> {
    use std::io::{Read as _, Seek as _};
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns why another account may control access to a file, because it owns the file.
pub fn exposure(path: &Path, _file: &File) -> io::Result<Option<String>> {
    let is_foreign = access::is_foreign(path)?;
    Ok(is_foreign.then(|| "it belongs to another user".to_owned()))
}

/// The null device, for writing.
pub fn null() -> io::Result<File> {
    OpenOptions::new().write(true).open("NUL")
}

/// Returns the lines and columns of a console's window; `None` if the handle is not a console. Its
/// buffer is larger, and scrolled.
pub fn console_size(console: &impl AsHandle) -> Option<(usize, usize)> {
    let mut info = CONSOLE_SCREEN_BUFFER_INFO::default();
    let console = console.as_handle().as_raw_handle();
    // SAFETY: the handle is open, and the structure is a local.
    if unsafe { GetConsoleScreenBufferInfo(console, &mut info) } == 0 {
        return None;
    }
    let SMALL_RECT {
        Left,
        Top,
        Right,
        Bottom,
    } = info.srWindow;
    let length =
        |first: i16, last: i16| usize::try_from(i32::from(last) - i32::from(first) + 1).ok();
    length(Top, Bottom).zip(length(Left, Right))
}

/// Returns the seconds by which local time is ahead of UTC at an instant, given in seconds since
/// 1970; 0 if unknown.
pub fn utc_offset(utc: i64) -> i32 {
    /// The `FILETIME` units per second, and the seconds between 1601 (its epoch) and 1970.
    const UNITS: i64 = 10_000_000;
    const AT_1970: i64 = 11_644_473_600;
    let number =
        |time: FILETIME| i64::from(time.dwHighDateTime) << 32 | i64::from(time.dwLowDateTime);
    let Some(units) = utc.checked_add(AT_1970).and_then(|s| s.checked_mul(UNITS)) else {
        return 0;
    };
    let (low, high) = (units & 0xffff_ffff, units >> 32);
    let (Ok(low), Ok(high)) = (u32::try_from(low), u32::try_from(high)) else {
        return 0;
    };
    let time = FILETIME {
        dwLowDateTime: low,
        dwHighDateTime: high,
    };
    let (mut global, mut local) = (SYSTEMTIME::default(), SYSTEMTIME::default());
    let mut local_time = FILETIME::default();
    // SAFETY: all pointers are to locals that outlive the calls; a null zone is the host's present
    // one, with the rules of that year.
    let is_told = unsafe {
        FileTimeToSystemTime(&time, &mut global) != 0
            && SystemTimeToTzSpecificLocalTimeEx(ptr::null(), &global, &mut local) != 0
            && SystemTimeToFileTime(&local, &mut local_time) != 0
    };
    if !is_told {
        return 0;
    }
    i32::try_from((number(local_time) - units) / UNITS).unwrap_or(0)
}

/// Returns the upper half of the OEM code page, in which console programs write; `None` if its
/// characters have several bytes.
pub fn oem_code_page() -> Option<Page> {
    // SAFETY: takes and returns numbers only.
    let number = unsafe { GetOEMCP() };
    if let Some(page) = pages::by_number(number) {
        return Some(*page);
    }
    let mut info = CPINFO::default();
    // SAFETY: the structure is a local.
    if unsafe { GetCPInfo(number, &mut info) } == 0 || info.MaxCharSize != 1 {
        return None;
    }
    let bytes: [u8; 128] = std::array::from_fn(|at| at as u8 + 0x80);
    let mut units = [0; 128];
    // SAFETY: both lengths are those of the arrays; each byte is one unit.
    let count =
        unsafe { MultiByteToWideChar(number, 0, bytes.as_ptr(), 128, units.as_mut_ptr(), 128) };
    let char = |unit: u16| char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER);
    (count == 128).then(|| units.map(char))
}

/// Returns whether no process with this ID is alive; `false` if unknown.
pub fn is_dead(pid: u32) -> bool {
    // SAFETY: takes numbers only.
    let process = unsafe { OpenProcess(PROCESS_SYNCHRONIZE, 0, pid) };
    if process.is_null() {
        let code = io::Error::last_os_error().raw_os_error();
        return code == Some(ERROR_INVALID_PARAMETER.cast_signed());
    }
    // SAFETY: the handle was just opened, and only this code owns it.
    let process = unsafe { OwnedHandle::from_raw_handle(process) };
    // SAFETY: the handle is open.
    unsafe { WaitForSingleObject(process.as_raw_handle(), 0) == WAIT_OBJECT_0 }
}

/// Lets this thread run, and use the disk, only when the system is otherwise idle. This is best
/// effort.
pub fn yield_to_others() {
    // SAFETY: the pseudo handle is this thread, and needs no closing.
    let _refused = unsafe { SetThreadPriority(GetCurrentThread(), THREAD_MODE_BACKGROUND_BEGIN) };
}

/// Returns whether this process has administrator rights (is "elevated"), as services of
/// LocalSystem do.
pub fn is_privileged() -> bool {
    let mut token = ptr::null_mut();
    // SAFETY: `token` is written on success only; the pseudo handle needs no closing.
    if unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &mut token) } == 0 {
        return false;
    }
    // SAFETY: the handle was just opened, and only this code owns it.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    let mut elevation = TOKEN_ELEVATION::default();
    let mut length = 0;
    // SAFETY: the structure is the one that this class requires, and its size is passed.
    let done = unsafe {
        let size = size_of_val(&elevation) as u32;
        GetTokenInformation(
            token.as_raw_handle(),
            TokenElevation,
            (&raw mut elevation).cast(),
            size,
            &mut length,
        )
    };
    done != 0 && elevation.TokenIsElevated != 0
}

/// Fails with `Unsupported`: on Windows files are replaced, not written in place.
pub fn open_own(_path: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns `false`: only Unix has numeric user IDs.
pub fn is_current_user(_uid: u32) -> bool {
    false
}

/// Returns no names: only Linux has capabilities, and nothing replaces them on Windows.
pub fn lacking_capabilities(_names: &[String]) -> Vec<&String> {
    Vec::new()
}

/// Returns `None`: Windows has none of these limits.
pub fn refused_limit(_limits: mainstay_core::spec::Limits) -> Option<String> {
    None
}

/// Returns `Processors` if Windows cannot number one of them. Windows refuses no priority, and has
/// no capabilities.
pub fn refused_settings(
    cpus: &[u16],
    _priority: Option<Priority>,
    _capabilities: &[String],
) -> Option<RefusedSetting> {
    processors(cpus).err().map(|_| RefusedSetting::Processors)
}

/// Another user, of which there are none: to start a process as another user, Windows requires a
/// password or a service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {}

impl User {
    /// Fails with `Unsupported`.
    pub fn lookup(_name: &str) -> io::Result<Option<Self>> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "only the service manager can start a program as another user",
        ))
    }
    /// Returns the user ID, which exists on Unix only.
    pub fn uid(&self) -> u32 {
        match *self {}
    }
    /// Returns whether the user has all privileges.
    pub fn is_root(&self) -> bool {
        match *self {}
    }
    /// Returns whether this process already runs as the user.
    pub fn is_current(&self) -> bool {
        match *self {}
    }
    /// Returns the variables that a login sets.
    pub fn environment(&self) -> [(OsString, OsString); 4] {
        match *self {}
    }
    /// Makes the user the owner of a file or directory.
    pub fn give(&self, _path: &Path) -> io::Result<()> {
        match *self {}
    }
}

/// The exit code of a killed tree's processes: 128 plus the number of SIGKILL, as in a Unix shell.
const KILLED: u32 = 137;

/// The parent of all trees; one per supervisor. See the [module](super) for the rules.
pub struct Processes {
    mains: BTreeMap<TreeId, Rc<Main>>,
    changed: Arc<Notify>,
    port: Port,
    null: File,
    started: u64,
}

struct Main {
    id: TreeId,
    pid: u32,
    exit: Cell<Option<Exit>>,
    _wait: Wait,
    process: OwnedHandle,
}

impl Processes {
    /// Creates the parent. `label` is for systems whose trees have names.
    pub fn new(_label: &str) -> io::Result<Self> {
        let changed = Arc::new(Notify::new());
        Ok(Self {
            mains: BTreeMap::new(),
            port: Port::new(changed.clone())?,
            changed,
            null: File::open("NUL")?,
            started: 0,
        })
    }

    /// Returns the mechanism that holds the trees together.
    pub fn containment(&self) -> Containment {
        Containment::Job
    }

    /// Starts a program with a console of its own that has no window, and no handles except the
    /// standard ones. A batch file is run by `cmd.exe`, and refused if an argument contains
    /// characters that `cmd.exe` would treat as syntax.
    pub fn spawn(&mut self, command: &Command<'_>) -> Result<Tree, SpawnError> {
        let failed = |step: &'static str| {
            move |source: io::Error| SpawnError {
                step: step.into(),
                is_permanent: source.kind() == io::ErrorKind::InvalidInput,
                source,
                hint: None,
            }
        };
        let class = command.priority.map(class);
        let processors = processors(command.cpus).map_err(failed("set its CPU affinity"))?;
        let job = Job::new(&self.port, class, processors).map_err(failed("create a job object"))?;
        let (process, thread, pid) = create(command, &self.null)?;
        let begun = job.assign(process.as_handle()).and_then(|()| {
            // The job sets the same for all later processes, but Wine ignores that. SAFETY: the
            // handle is open.
            unsafe {
                if let Some(class) = class {
                    cvt(SetPriorityClass(process.as_raw_handle(), class))?;
                }
                if processors != 0 {
                    cvt(SetProcessAffinityMask(process.as_raw_handle(), processors))?;
                }
            }
            let wait = Wait::new(process.as_handle(), self.changed.clone())?;
            // SAFETY: the handle of the only thread, which has been suspended since its creation.
            cvt_count(unsafe { ResumeThread(thread.as_raw_handle()) })?;
            Ok(wait)
        });
        let wait = begun.map_err(|source| {
            // SAFETY: a process created here, which has not run a single instruction.
            unsafe { TerminateProcess(process.as_raw_handle(), KILLED) };
            failed("put the process into its job")(source)
        })?;
        let main = Rc::new(Main {
            id: TreeId(self.started),
            pid,
            exit: Cell::new(None),
            _wait: wait,
            process,
        });
        self.started += 1;
        self.mains.insert(main.id, main.clone());
        Ok(Tree {
            main,
            job,
            is_frozen: Cell::new(false),
        })
    }

    /// Resolves when a child or a tree may have changed since the last call. Cancel-safe.
    pub async fn changed(&mut self) {
        self.changed.notified().await;
    }

    /// Returns the main processes that have ended, with the time at which that was detected.
    pub fn reap(&mut self) -> Vec<(TreeId, Exit, std::time::Instant)> {
        let mut ended = Vec::new();
        self.mains.retain(|id, main| {
            let exit = main.look();
            main.exit.set(exit);
            ended.extend(exit.map(|exit| (*id, exit, std::time::Instant::now())));
            exit.is_none()
        });
        ended
    }
}

impl Main {
    fn look(&self) -> Option<Exit> {
        let process = self.process.as_raw_handle();
        let mut code = 0;
        // SAFETY: the handle is open and owned here; `code` outlives the call.
        let has_ended = unsafe {
            WaitForSingleObject(process, 0) == WAIT_OBJECT_0
                && GetExitCodeProcess(process, &mut code) != 0
        };
        has_ended.then_some(Exit {
            code: Some(code.cast_signed()),
            signal: None,
            core_dumped: false,
        })
    }
}

/// One started program with all of its descendants.
///
/// Drop closes the job, whose remaining processes the system then kills. Unlike on Unix, nothing
/// survives its tree.
pub struct Tree {
    main: Rc<Main>,
    job: Job,
    is_frozen: Cell<bool>,
}

impl Tree {
    /// Returns the ID that [`Processes::reap`] reports.
    pub fn id(&self) -> TreeId {
        self.main.id
    }

    /// Returns the main process's ID, which is not reused while the tree exists.
    pub fn pid(&self) -> u32 {
        self.main.pid
    }

    /// Returns how the main process ended, once it was reaped.
    pub fn exit(&self) -> Option<Exit> {
        self.main.exit.get()
    }

    /// Sends a signal. Windows has none: INT is a ctrl-c, and the others are `Unsupported`.
    pub fn signal(&self, signal: Signal, scope: StopScope) -> io::Result<()> {
        match signal {
            Signal::Int => self.ask_to_stop(StopAsk::Signal(signal), scope).map(drop),
            _ => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "Windows has no such signal",
            )),
        }
    }

    /// Asks the tree to stop, and returns whether there was a process to ask. A ctrl-c, whatever
    /// the signal, reaches every process that shares the tree's console. A `WM_CLOSE` reaches the
    /// windows of this desktop, whatever the scope. They affect different programs, so both may be
    /// tried at once.
    pub fn ask_to_stop(&self, ask: StopAsk, _scope: StopScope) -> io::Result<bool> {
        let processes = self.job.processes()?;
        match ask {
            StopAsk::Signal(_) => ask::ctrl_c(&processes),
            StopAsk::Close => ask::close_windows(&processes),
        }
    }

    /// Terminates every process of the tree with exit code 137. They end a moment later; see
    /// [`Tree::is_empty`].
    pub fn kill(&self) -> io::Result<()> {
        self.job.terminate(KILLED)
    }

    /// Returns whether no process of the tree is left. If the tree is not empty although the main
    /// process has ended, [`Processes::changed`] resolves when the caller should check again.
    pub fn is_empty(&self) -> bool {
        self.exit().is_some()
            && self
                .job
                .processes()
                .is_ok_and(|processes| processes.is_empty())
    }

    /// Suspends every thread of every process. Thaw before a graceful stop.
    pub fn freeze(&self) -> io::Result<()> {
        // Suspensions are counted, and one thaw must be enough.
        if self.is_frozen.replace(true) {
            Ok(())
        } else {
            self.job.suspend()
        }
    }

    /// Undoes [`Tree::freeze`].
    pub fn thaw(&self) -> io::Result<()> {
        if self.is_frozen.replace(false) {
            self.job.resume()
        } else {
            Ok(())
        }
    }

    /// Returns `None`: the system does not report it.
    pub fn handles(&self, _signal: Signal) -> Option<bool> {
        None
    }

    /// Returns the resource usage of the tree; `None` if it cannot be read.
    pub fn usage(&self) -> Option<Usage> {
        self.job.usage().ok()
    }
}

/// Maps a priority to its class ("Scheduling Priorities", Microsoft Learn).
fn class(priority: Priority) -> u32 {
    match priority {
        Priority::Low => IDLE_PRIORITY_CLASS,
        Priority::BelowNormal => BELOW_NORMAL_PRIORITY_CLASS,
        Priority::Normal => NORMAL_PRIORITY_CLASS,
        Priority::AboveNormal => ABOVE_NORMAL_PRIORITY_CLASS,
        Priority::High => HIGH_PRIORITY_CLASS,
    }
}

/// Returns the processors as a bit set, which covers one processor group.
fn processors(cpus: &[u16]) -> io::Result<usize> {
    let bit = |cpu: &u16| 1_usize.checked_shl((*cpu).into());
    let set = cpus.iter().try_fold(0, |set, cpu| Some(set | bit(cpu)?));
    set.ok_or_else(|| {
        let text = "on Windows, processors are numbered from 0 to 63";
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// A wait that notifies `changed` once when a process ends, from a thread of the system's pool.
/// Must not outlive the process's handle.
struct Wait {
    handle: HANDLE,
    /// The notifier that the callback borrows.
    _changed: Arc<Notify>,
}

impl Wait {
    fn new(process: BorrowedHandle<'_>, changed: Arc<Notify>) -> io::Result<Self> {
        unsafe extern "system" fn ended(changed: *mut c_void, _timed_out: bool) {
            // SAFETY: `Wait` keeps it alive until no callback is running any more.
            unsafe { (*changed.cast::<Notify>()).notify_one() };
        }
        let mut handle = ptr::null_mut();
        let context = Arc::as_ptr(&changed).cast_mut().cast();
        let flags = WT_EXECUTEONLYONCE | WT_EXECUTEINWAITTHREAD; // it neither blocks nor runs long
        // SAFETY: the context outlives the wait; see drop.
        cvt(unsafe {
            RegisterWaitForSingleObject(
                &mut handle,
                process.as_raw_handle(),
                Some(ended),
                context,
                INFINITE,
                flags,
            )
        })?;
        Ok(Self {
            handle,
            _changed: changed,
        })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        // SAFETY: it is unregistered once; the second argument makes the call wait for a running
        // callback.
        unsafe { UnregisterWaitEx(self.handle, INVALID_HANDLE_VALUE) };
    }
}

/// Converts a result of zero into the error from `GetLastError`.
fn cvt(result: i32) -> io::Result<()> {
    if result == 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Converts a result of `u32::MAX` into the error from `GetLastError`.
fn cvt_count(result: u32) -> io::Result<()> {
    if result == u32::MAX {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
