//! Job objects, and the completion port that reports when they are empty.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::windows::ffi::OsStringExt;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;
use windows_sys::Win32::Foundation::{ERROR_MORE_DATA, FILETIME, HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::System::IO::{
    CreateIoCompletionPort, GetQueuedCompletionStatus, PostQueuedCompletionStatus,
};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, IsProcessInJob, JOB_OBJECT_LIMIT_AFFINITY,
    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, JOB_OBJECT_LIMIT_PRIORITY_CLASS,
    JOBOBJECT_ASSOCIATE_COMPLETION_PORT, JOBOBJECT_BASIC_ACCOUNTING_INFORMATION,
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JOBOBJECTINFOCLASS,
    JobObjectAssociateCompletionPortInformation, JobObjectBasicAccountingInformation,
    JobObjectBasicProcessIdList, JobObjectExtendedLimitInformation, QueryInformationJobObject,
    SetInformationJobObject, TerminateJobObject,
};
use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
use windows_sys::Win32::System::SystemInformation::GetSystemDirectoryW;
use windows_sys::Win32::System::Threading::{
    GetProcessTimes, INFINITE, OpenProcess, PROCESS_QUERY_INFORMATION, PROCESS_SUSPEND_RESUME,
};

use super::cvt;
use crate::process::Usage;
use crate::threads::{self, Stack};

const STOP: usize = 0;
const JOB: usize = 1;

/// A completion port, and the thread that waits on it for all jobs.
pub(super) struct Port {
    port: Arc<OwnedHandle>,
    thread: Option<JoinHandle<()>>,
}

impl Port {
    /// Creates a port. Every message notifies `changed`.
    pub(super) fn new(changed: Arc<Notify>) -> io::Result<Self> {
        // SAFETY: a new port, which only this code owns.
        let port = unsafe {
            let port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, ptr::null_mut(), 0, 1);
            cvt(i32::from(!port.is_null()))?;
            Arc::new(OwnedHandle::from_raw_handle(port))
        };
        let listen = {
            let port = port.clone();
            move || {
                let (mut message, mut key, mut detail) = (0, 0, ptr::null_mut());
                // SAFETY: the thread holds the port; the output variables outlive the call.
                // `detail` is a number, never dereferenced.
                while unsafe {
                    GetQueuedCompletionStatus(
                        port.as_raw_handle(),
                        &mut message,
                        &mut key,
                        &mut detail,
                        INFINITE,
                    )
                } != 0
                    && key != STOP
                {
                    changed.notify_one();
                }
            }
        };
        let thread = threads::spawn("jobs", Stack::Small, listen)?;
        Ok(Self {
            port,
            thread: Some(thread),
        })
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // SAFETY: the port is open; the message contains no pointer.
        let posted =
            unsafe { PostQueuedCompletionStatus(self.port.as_raw_handle(), 0, STOP, ptr::null()) };
        if let Some(thread) = self.thread.take().filter(|_| posted != 0) {
            let _ = thread.join();
        }
    }
}

/// A job. Drop kills the processes in it.
pub(super) struct Job(OwnedHandle);

impl Job {
    /// Creates a job. Processes started in it also get this priority class and these processors, a
    /// bit set (0 is all).
    pub(super) fn new(port: &Port, class: Option<u32>, processors: usize) -> io::Result<Self> {
        // SAFETY: neither attributes nor a name are needed, and only this code owns the handle.
        let job = unsafe {
            let job = CreateJobObjectW(ptr::null(), ptr::null());
            cvt(i32::from(!job.is_null()))?;
            Self(OwnedHandle::from_raw_handle(job))
        };
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        let basic = &mut limits.BasicLimitInformation;
        basic.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
        if let Some(class) = class {
            basic.LimitFlags |= JOB_OBJECT_LIMIT_PRIORITY_CLASS;
            basic.PriorityClass = class;
        }
        if processors != 0 {
            basic.LimitFlags |= JOB_OBJECT_LIMIT_AFFINITY;
            basic.Affinity = processors;
        }
        job.set(JobObjectExtendedLimitInformation, &limits)?;
        let port = JOBOBJECT_ASSOCIATE_COMPLETION_PORT {
            CompletionKey: ptr::without_provenance_mut(JOB),
            CompletionPort: port.port.as_raw_handle(),
        };
        job.set(JobObjectAssociateCompletionPortInformation, &port)?;
        Ok(job)
    }

    fn set<T>(&self, class: JOBOBJECTINFOCLASS, value: &T) -> io::Result<()> {
        // SAFETY: the callers pass the structure of the class, and its size is passed.
        cvt(unsafe {
            SetInformationJobObject(
                self.0.as_raw_handle(),
                class,
                ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
            )
        })
    }

    pub(super) fn assign(&self, process: BorrowedHandle<'_>) -> io::Result<()> {
        // SAFETY: both handles are open.
        cvt(unsafe { AssignProcessToJobObject(self.0.as_raw_handle(), process.as_raw_handle()) })
    }

    pub(super) fn terminate(&self, code: u32) -> io::Result<()> {
        // SAFETY: the handle is open.
        cvt(unsafe { TerminateJobObject(self.0.as_raw_handle(), code) })
    }

    /// Returns the IDs of the processes currently in the job.
    pub(super) fn processes(&self) -> io::Result<Vec<u32>> {
        // JOBOBJECT_BASIC_PROCESS_ID_LIST: two u32, then one usize per process.
        const HEAD: usize = 8 / size_of::<usize>();
        let mut list = vec![0_usize; HEAD + 32];
        loop {
            let size = size_of_val(&*list) as u32;
            // SAFETY: the list has the length that is passed, and is aligned for its content.
            let done = cvt(unsafe {
                let list = list.as_mut_ptr().cast();
                QueryInformationJobObject(
                    self.0.as_raw_handle(),
                    JobObjectBasicProcessIdList,
                    list,
                    size,
                    ptr::null_mut(),
                )
            });
            // SAFETY: the list begins with two u32, whatever the call wrote.
            let [assigned, listed] =
                unsafe { list.as_ptr().cast::<[u32; 2]>().read() }.map(|count| count as usize);
            match done {
                Err(error) if error.raw_os_error() != Some(ERROR_MORE_DATA.cast_signed()) => {
                    return Err(error);
                }
                Ok(()) if listed >= assigned || assigned <= list.len() - HEAD => {
                    let ids = list.into_iter().skip(HEAD).take(listed);
                    return Ok(ids.filter_map(|id| u32::try_from(id).ok()).collect());
                }
                _ => list = vec![0; HEAD + (2 * list.len()).max(assigned + 16)],
            }
        }
    }

    /// Opens a process of this job by its ID. Returns `None` if the process has ended and the ID
    /// belongs to another one.
    fn open(&self, pid: u32, access: u32) -> Option<OwnedHandle> {
        // SAFETY: an ID may belong to any process; the handle is owned here. It keeps the ID from
        // being reused, so the checked process is the used one.
        unsafe {
            let process = OpenProcess(access | PROCESS_QUERY_INFORMATION, 0, pid);
            if process.is_null() {
                return None;
            }
            let process = OwnedHandle::from_raw_handle(process);
            let mut is_member = 0;
            let asked = IsProcessInJob(
                process.as_raw_handle(),
                self.0.as_raw_handle(),
                &mut is_member,
            );
            (asked != 0 && is_member != 0).then_some(process)
        }
    }

    /// Suspends all threads of all processes, repeatedly until no new process is found.
    pub(super) fn suspend(&self) -> io::Result<()> {
        let mut known = BTreeSet::new();
        loop {
            let mut processes = self.processes()?;
            processes.retain(|pid| known.insert(*pid));
            if processes.is_empty() {
                return Ok(());
            }
            for process in processes
                .iter()
                .filter_map(|pid| self.open(*pid, PROCESS_SUSPEND_RESUME))
            {
                // SAFETY: the handle has the right that the call needs. A process that is ending
                // refuses, which is harmless.
                unsafe { NtSuspendProcess(process.as_raw_handle()) };
            }
        }
    }

    pub(super) fn resume(&self) -> io::Result<()> {
        for process in self
            .processes()?
            .iter()
            .filter_map(|pid| self.open(*pid, PROCESS_SUSPEND_RESUME))
        {
            // SAFETY: as in `suspend`.
            unsafe { NtResumeProcess(process.as_raw_handle()) };
        }
        Ok(())
    }

    pub(super) fn usage(&self) -> io::Result<Usage> {
        let pids = self.processes()?;
        let processes: Vec<_> = pids.iter().filter_map(|pid| self.open(*pid, 0)).collect();
        let mut total = JOBOBJECT_BASIC_ACCOUNTING_INFORMATION::default();
        // SAFETY: the structure is the one of the class, and its size is passed.
        let has_total = unsafe {
            let size = size_of_val(&total) as u32;
            let job = self.0.as_raw_handle();
            QueryInformationJobObject(
                job,
                JobObjectBasicAccountingInformation,
                (&raw mut total).cast(),
                size,
                ptr::null_mut(),
            ) != 0
        };
        let ticks = if has_total {
            (total.TotalUserTime + total.TotalKernelTime).unsigned_abs()
        } else {
            processes.iter().map(cpu).sum() // never on a real Windows
        };
        Ok(Usage {
            cpu: Duration::from_nanos(ticks * 100),
            resident: processes.iter().map(resident).sum(),
            processes: u32::try_from(pids.len()).unwrap_or(u32::MAX),
        })
    }
}

/// Returns the CPU time in units of 100 ns.
fn cpu(process: &OwnedHandle) -> u64 {
    let [mut created, mut ended, mut kernel, mut user] = [FILETIME::default(); 4];
    // SAFETY: the handle is open; all four outlive the call.
    unsafe {
        GetProcessTimes(
            process.as_raw_handle(),
            &mut created,
            &mut ended,
            &mut kernel,
            &mut user,
        )
    };
    [kernel, user]
        .iter()
        .map(|time| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime))
        .sum()
}

/// Returns the resident memory in bytes.
fn resident(process: &OwnedHandle) -> u64 {
    let mut counters = PROCESS_MEMORY_COUNTERS::default();
    // SAFETY: the handle is open, and the structure's size is passed.
    unsafe {
        K32GetProcessMemoryInfo(
            process.as_raw_handle(),
            &mut counters,
            size_of_val(&counters) as u32,
        )
    };
    counters.WorkingSetSize as u64
}

/// Returns the directory that contains `cmd.exe`.
pub(super) fn system_dir() -> PathBuf {
    let mut path = [0; 260];
    // SAFETY: the buffer has the length that is passed.
    let length = unsafe { GetSystemDirectoryW(path.as_mut_ptr(), path.len() as u32) } as usize;
    OsString::from_wide(path.get(..length).unwrap_or_default()).into()
}

// These functions are not in Microsoft's metadata, but unchanged since Windows XP; debuggers use
// them.
#[link(name = "ntdll")]
unsafe extern "system" {
    fn NtSuspendProcess(process: HANDLE) -> i32;
    fn NtResumeProcess(process: HANDLE) -> i32;
}
