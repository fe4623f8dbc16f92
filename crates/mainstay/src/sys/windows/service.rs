//! The calls with which a process runs its services ("Service Program Functions", Microsoft).

use std::ffi::{OsString, c_void};
use std::io;
use std::os::windows::ffi::OsStringExt as _;
use std::sync::OnceLock;

use windows_sys::Win32::Foundation::FALSE;
use windows_sys::Win32::System::RemoteDesktop::WTSSESSION_NOTIFICATION;
use windows_sys::Win32::System::Services as services;
use windows_sys::core::PWSTR;

use super::wide;

/// The body of `ServiceMain`. It runs again if its service is started again in the same process.
pub(crate) type Main = Box<dyn Fn(Vec<OsString>) + Send + Sync>;
/// The services by name, for `ServiceMain`, which receives no context.
static SERVICES: OnceLock<Vec<(String, Main)>> = OnceLock::new();

/// Connects this process to the manager, runs each service that it starts with the arguments of the
/// start on a thread of the system, and blocks until all have ended (`StartServiceCtrlDispatcher`).
#[expect(unsafe_code, reason = "the system's own interface")]
pub(crate) fn dispatch(services: Vec<(String, Main)>) -> io::Result<()> {
    let mut names: Vec<_> = services.iter().map(|(name, _)| wide(name)).collect();
    let _first: Result<(), _> = SERVICES.set(services);
    let entries = names.iter_mut().map(|name| services::SERVICE_TABLE_ENTRYW {
        lpServiceName: name.as_mut_ptr(),
        lpServiceProc: Some(service_main),
    });
    let end = services::SERVICE_TABLE_ENTRYW::default();
    let table: Vec<_> = entries.chain([end]).collect();
    // SAFETY: the table ends with an empty entry; it and its names outlive the call.
    match unsafe { services::StartServiceCtrlDispatcherW(table.as_ptr()) } {
        FALSE => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// `ServiceMain`. The first argument is the service's own name.
#[expect(unsafe_code, reason = "the system's own interface")]
unsafe extern "system" fn service_main(count: u32, arguments: *mut PWSTR) {
    let arguments = (0..count as usize).map(|index| {
        // SAFETY: the system passes `count` strings that end with a NUL.
        unsafe { text(*arguments.add(index)) }
    });
    let mut arguments = arguments.collect::<Vec<_>>().into_iter();
    let name = arguments.next().unwrap_or_default();
    let name = name.to_string_lossy().to_lowercase();
    let services = SERVICES.get().map_or(&[][..], Vec::as_slice);
    let main = match services {
        // The name of the only service in a process is of no consequence ("SERVICE_TABLE_ENTRYW").
        [(_, main)] => Some(main),
        all => {
            let mut all = all.iter();
            all.find(|(own, _)| own.to_lowercase() == name)
                .map(|(_, main)| main)
        }
    };
    if let Some(main) = main {
        main(arguments.collect());
    }
}

/// # Safety
/// `wide` must end with a NUL.
#[expect(unsafe_code, reason = "the system's own interface")]
unsafe fn text(wide: PWSTR) -> OsString {
    let mut length = 0;
    // SAFETY: by this function's contract, each element up to the NUL can be read.
    while unsafe { *wide.add(length) } != 0 {
        length += 1;
    }
    // SAFETY: this many elements were just read.
    OsString::from_wide(unsafe { std::slice::from_raw_parts(wide, length) })
}

/// A request of the manager (`HandlerEx`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// `SERVICE_CONTROL_…`.
    pub(crate) control: u32,
    /// The subject of a control that reports an event.
    pub(crate) event: u32,
    /// The session of `SERVICE_CONTROL_SESSIONCHANGE`.
    pub(crate) session: u32,
}

/// Handles a request. Returns the error code for the manager.
type Handler = Box<dyn Fn(Request) -> u32 + Send + Sync>;

/// The handle through which a service reports its status.
#[derive(Debug)]
pub(crate) struct StatusHandle(services::SERVICE_STATUS_HANDLE);

// SAFETY: the system accepts the handle on any thread ("SetServiceStatus").
#[expect(unsafe_code, reason = "a number in the shape of a pointer")]
unsafe impl Send for StatusHandle {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a number in the shape of a pointer")]
unsafe impl Sync for StatusHandle {}

impl StatusHandle {
    /// Calls `handler` for each request from now on, on the thread of [`dispatch`]
    /// (`RegisterServiceCtrlHandlerEx`).
    #[expect(unsafe_code, reason = "the system's own interface")]
    pub(crate) fn register(
        name: &str,
        handler: impl Fn(Request) -> u32 + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let name = wide(name);
        let handler: Box<Handler> = Box::new(Box::new(handler));
        // Never freed: the system may call the handler as long as the process lives.
        let context = Box::into_raw(handler).cast::<c_void>();
        // SAFETY: `context` is a `Handler` that lives as long as the process, and `handle` casts it
        // to one.
        let status = unsafe {
            services::RegisterServiceCtrlHandlerExW(name.as_ptr(), Some(handle), context)
        };
        if status.is_null() {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(status))
    }

    /// Reports the status (`SetServiceStatus`).
    #[expect(unsafe_code, reason = "the system's own interface")]
    pub(crate) fn report(&self, status: &services::SERVICE_STATUS) -> io::Result<()> {
        // SAFETY: the system returned this handle, and the status is valid.
        match unsafe { services::SetServiceStatus(self.0, status) } {
            FALSE => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// `HandlerEx`.
#[expect(unsafe_code, reason = "the system's own interface")]
unsafe extern "system" fn handle(
    control: u32,
    event: u32,
    data: *mut c_void,
    context: *mut c_void,
) -> u32 {
    // SAFETY: it is the registered `Handler`, which is never freed.
    let handler = unsafe { &*context.cast::<Handler>() };
    let notification = match control {
        // SAFETY: the system passes this structure with this control.
        services::SERVICE_CONTROL_SESSIONCHANGE => unsafe {
            data.cast::<WTSSESSION_NOTIFICATION>().as_ref()
        },
        _ => None,
    };
    handler(Request {
        control,
        event,
        session: notification.map_or(0, |notification| notification.dwSessionId),
    })
}
