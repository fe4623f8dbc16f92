//! Requests to stop: ctrl-c through a process's console, and `WM_CLOSE` to its windows.
//!
//! A ctrl-c can only be sent from a process of the same console, and a process has at most one
//! console. A supervisor without a console (a service) attaches itself for a moment. A supervisor
//! with a console would lose it, with all output written meanwhile, so it starts itself again as a
//! helper that only sends the ctrl-c.

use std::ffi::OsString;
use std::io;
use std::os::windows::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Once;

use windows_sys::Win32::Foundation::{HWND, LPARAM};
use windows_sys::Win32::System::Console::{
    AttachConsole, CTRL_C_EVENT, FreeConsole, GenerateConsoleCtrlEvent, GetConsoleCP, GetStdHandle,
    STD_ERROR_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, SetConsoleCtrlHandler, SetStdHandle,
};
use windows_sys::Win32::System::Threading::DETACHED_PROCESS;
use windows_sys::Win32::UI::WindowsAndMessaging::{
    EnumWindows, GetClassNameW, GetWindowThreadProcessId, PostMessageW, WM_CLOSE,
};

use super::cvt;

/// The variable that passes the helper its targets: process IDs, separated by spaces.
const HELPER: &str = "MAINSTAY_CTRL_C";

/// Sends a ctrl-c to every process that shares the console of the first of `processes` that has
/// one; `false` if none has.
///
/// If the supervisor has a console of its own, it returns `true` at once, and a helper sends the
/// ctrl-c a moment later.
pub(super) fn ctrl_c(processes: &[u32]) -> io::Result<bool> {
    if processes.is_empty() {
        return Ok(false);
    }
    // SAFETY: no memory is involved. Zero is "no console".
    if unsafe { GetConsoleCP() } == 0 {
        return Ok(send(processes));
    }
    let list: Vec<String> = processes.iter().map(u32::to_string).collect();
    let mut helper = Command::new(std::env::current_exe()?);
    helper
        .args(helper_arguments())
        .env(HELPER, list.join(" "))
        .creation_flags(DETACHED_PROCESS);
    helper
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(true)
}

fn helper_arguments() -> Vec<OsString> {
    if cfg!(test) {
        ["--exact", "windows::tests::role"]
            .map(OsString::from)
            .into()
    } else {
        Vec::new()
    }
}

/// Runs the helper if this process was started as one. Must be called first in `main`.
pub fn run_as_helper() -> Option<ExitCode> {
    let list = std::env::var(HELPER).ok()?;
    let processes: Vec<u32> = list.split(' ').filter_map(|pid| pid.parse().ok()).collect();
    Some(if send(&processes) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Sends the ctrl-c. Must be called without a console only.
fn send(processes: &[u32]) -> bool {
    unsafe extern "system" fn swallow(event: u32) -> i32 {
        i32::from(event == CTRL_C_EVENT)
    }
    // The event also reaches this process, perhaps after it has detached. A process without a
    // console receives no other ctrl-c.
    static SWALLOW: Once = Once::new();
    // SAFETY: the handler accesses no memory.
    SWALLOW.call_once(|| unsafe {
        SetConsoleCtrlHandler(Some(swallow), 1);
    });
    const STREAMS: [u32; 3] = [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE];
    // SAFETY: no memory is involved. This process is attached to one console at a time and to none
    // afterwards, which changes its standard handles meanwhile.
    unsafe {
        let streams = STREAMS.map(|stream| GetStdHandle(stream));
        FreeConsole(); // a detached process has the remains of one under Wine
        let sent = processes.iter().any(|pid| {
            let sent = AttachConsole(*pid) != 0 && GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0) != 0;
            FreeConsole();
            sent
        });
        for (stream, handle) in STREAMS.into_iter().zip(streams) {
            SetStdHandle(stream, handle);
        }
        sent
    }
}

/// Posts `WM_CLOSE` to the top-level windows of `processes`, like a click on the close button;
/// `false` if there are none.
pub(super) fn close_windows(processes: &[u32]) -> io::Result<bool> {
    struct Search<'a> {
        processes: &'a [u32],
        found: bool,
    }
    unsafe extern "system" fn visit(window: HWND, search: LPARAM) -> i32 {
        // SAFETY: the pointer that `EnumWindows` was given below, valid during that call.
        let search = unsafe { &mut *(search as *mut Search<'_>) };
        let mut owner = 0;
        let mut class = [0; 32];
        // SAFETY: both buffers have the lengths that are passed; for a destroyed window the calls
        // fail.
        let length = unsafe {
            GetWindowThreadProcessId(window, &mut owner);
            GetClassNameW(window, class.as_mut_ptr(), class.len() as i32)
        };
        let class = String::from_utf16_lossy(&class[..usize::try_from(length).unwrap_or_default()]);
        // A console window reports its program as the owner; closing it would end the program
        // within seconds.
        if search.processes.contains(&owner)
            && class != "ConsoleWindowClass"
            && class != "PseudoConsoleWindow"
        {
            // SAFETY: no memory is involved.
            search.found |= unsafe { PostMessageW(window, WM_CLOSE, 0, 0) } != 0;
        }
        1
    }
    let mut search = Search {
        processes,
        found: false,
    };
    // SAFETY: `search` outlives the call, which alone uses it.
    cvt(unsafe { EnumWindows(Some(visit), &raw mut search as LPARAM) })?;
    Ok(search.found)
}
