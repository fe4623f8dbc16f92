//! Job objects, and the port on which they tell that they are empty.

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

use super::super::threads::{self, Stack};
use super::{Usage, cvt};

const STOP: usize = 0;
const JOB: usize = 1;

/// A completion port, and the thread that waits there for all jobs.
pub(super) struct Port {
    port: Arc<OwnedHandle>,
    thread: Option<JoinHandle<()>>,
}

impl Port {
    /// `changed` is told of every message.
    pub(super) fn new(changed: Arc<Notify>) -> io::Result<Self> {
        // SAFETY: a new port; nobody else has it.
        let port = unsafe {
            let port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, ptr::null_mut(), 0, 1);
            cvt(i32::from(!port.is_null()))?;
            Arc::new(OwnedHandle::from_raw_handle(port))
        };
        let listen = {
            let port = port.clone();
            move || {
                let (mut message, mut key, mut detail) = (0, 0, ptr::null_mut());
                // SAFETY: the thread holds the port; what is written outlives the call. `detail` is a number, never followed.
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
        // SAFETY: the port is open; the message holds no pointer.
        let posted =
            unsafe { PostQueuedCompletionStatus(self.port.as_raw_handle(), 0, STOP, ptr::null()) };
        if let Some(thread) = self.thread.take().filter(|_| posted != 0) {
            let _ = thread.join();
        }
    }
}

/// A job. Drop kills what is in it.
pub(super) struct Job(OwnedHandle);

impl Job {
    /// What is started in it keeps this class of priority and these processors, a set of bits (0 is all), too.
    pub(super) fn new(port: &Port, class: Option<u32>, processors: usize) -> io::Result<Self> {
        // SAFETY: neither attributes nor a name are needed; nobody else has the handle.
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
        // SAFETY: the callers pass the structure of the class, whose size is said.
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

    /// The ids of the processes in it at this moment.
    pub(super) fn processes(&self) -> io::Result<Vec<u32>> {
        // JOBOBJECT_BASIC_PROCESS_ID_LIST: two u32, then a usize for each.
        const HEAD: usize = 8 / size_of::<usize>();
        let mut list = vec![0_usize; HEAD + 32];
        loop {
            let size = size_of_val(&*list) as u32;
            // SAFETY: the list is as long as is said, and aligned for what it holds.
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

    /// A process of this job by its id, or nothing if it has ended and the id is somebody else's.
    fn open(&self, pid: u32, access: u32) -> Option<OwnedHandle> {
        // SAFETY: an id may be anybody's; the handle is ours. It keeps the id, so what is checked is what is used.
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

    /// Suspends all threads of all processes, again and again until nobody new is found.
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
                // SAFETY: the handle has the right that the call needs. One that is ending refuses, and that is fine.
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
        // SAFETY: the structure of the class, whose size is said.
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
            processes.iter().map(cpu).sum() // not on a real Windows
        };
        Ok(Usage {
            cpu: Duration::from_nanos(ticks * 100),
            resident: processes.iter().map(resident).sum(),
            processes: u32::try_from(pids.len()).unwrap_or(u32::MAX),
        })
    }
}

/// In units of 100 ns.
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

/// Bytes.
fn resident(process: &OwnedHandle) -> u64 {
    let mut counters = PROCESS_MEMORY_COUNTERS::default();
    // SAFETY: the handle is open, and the structure's size is said.
    unsafe {
        K32GetProcessMemoryInfo(
            process.as_raw_handle(),
            &mut counters,
            size_of_val(&counters) as u32,
        )
    };
    counters.WorkingSetSize as u64
}

/// Where `cmd.exe` lies.
pub(super) fn system_dir() -> PathBuf {
    let mut path = [0; 260];
    // SAFETY: the buffer is as long as is said.
    let length = unsafe { GetSystemDirectoryW(path.as_mut_ptr(), path.len() as u32) } as usize;
    OsString::from_wide(path.get(..length).unwrap_or_default()).into()
}

// Not in Microsoft's metadata, but unchanged since Windows XP; what debuggers use.
#[link(name = "ntdll")]
unsafe extern "system" {
    fn NtSuspendProcess(process: HANDLE) -> i32;
    fn NtResumeProcess(process: HANDLE) -> i32;
}
