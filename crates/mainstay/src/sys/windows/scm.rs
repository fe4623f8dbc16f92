//! The Service Control Manager's own calls ("Service Functions", Microsoft), as an implementation
//! of [`Scm`].

mod privilege;
mod rights;
mod watch;

use std::ffi::{OsString, c_void};
use std::io;
use std::os::windows::ffi::OsStringExt as _;
use std::path::Path;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{
    ERROR_FILE_NOT_FOUND, ERROR_INSUFFICIENT_BUFFER, ERROR_INVALID_DATA, ERROR_MORE_DATA, FALSE,
    WIN32_ERROR,
};
use windows_sys::Win32::System::Registry as registry;
use windows_sys::Win32::System::Services as services;
use windows_sys::Win32::System::Services::SC_HANDLE;
use windows_sys::core::GUID;

use self::privilege::Privilege;
use self::watch::Watch;
use super::{event_log, wide};
use crate::Trigger;
use crate::event::source_of;
use crate::scm::rights::{self as needed, PasswordForm};
use crate::scm::{
    Base, FailureActions, INTERACTIVE_PROCESS, Kind, SHARE_PROCESS, Scm, ServiceStatus, Setting,
    State,
};

/// The registry key of the services.
const SERVICES_KEY: &str = "SYSTEM\\CurrentControlSet\\Services\\";
const ENVIRONMENT: &str = "Environment";

/// A connection to this machine's manager.
pub(crate) struct Manager {
    handle: Handle,
    began: Instant,
    watch: Watch,
}

/// A service handle, closed on drop.
struct Handle(SC_HANDLE);

impl Drop for Handle {
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn drop(&mut self) {
        // SAFETY: the handle is owned and open.
        unsafe { services::CloseServiceHandle(self.0) };
    }
}

impl Manager {
    /// Connects with the given rights, `SC_MANAGER_…`, so that missing rights are detected before
    /// anything is changed.
    #[expect(unsafe_code, reason = "the system's own interface")]
    pub(crate) fn connect(rights: u32) -> io::Result<Self> {
        // SAFETY: two null names select this machine and its database of services.
        let handle = unsafe { services::OpenSCManagerW(ptr::null(), ptr::null(), rights) };
        Ok(Self {
            handle: owned(handle)?,
            began: Instant::now(),
            watch: Watch::new(),
        })
    }

    #[expect(unsafe_code, reason = "the system's own interface")]
    fn open(&self, name: &str, rights: u32) -> io::Result<Handle> {
        let name = wide(name);
        // SAFETY: the handle is open, and the name ends with a NUL.
        owned(unsafe { services::OpenServiceW(self.handle.0, name.as_ptr(), rights) })
    }
}

impl Scm for Manager {
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn create(&mut self, name: &str, base: &Base) -> io::Result<()> {
        let name = wide(name);
        let wide = WideBase::new(base);
        // SAFETY: all strings end with a NUL, the list with two, and they outlive the call.
        let service = unsafe {
            services::CreateServiceW(
                self.handle.0,
                name.as_ptr(),
                wide.display_name.as_ptr(),
                services::SERVICE_QUERY_STATUS, // the handle is closed at once
                wide.service_type,
                base.start_type,
                base.error_control,
                wide.image_path.as_ptr(),
                wide.load_order_group.as_ptr(),
                ptr::null_mut(),
                wide.dependencies.as_ptr(),
                wide.account.as_ptr(),
                wide.password(),
            )
        };
        owned(service).map(drop)
    }

    #[expect(unsafe_code, reason = "the system's own interface")]
    fn delete(&mut self, name: &str) -> io::Result<()> {
        let service = self.open(name, DELETE)?;
        // SAFETY: the handle is open.
        done(unsafe { services::DeleteService(service.0) })
    }

    fn read(&mut self, name: &str, kind: Kind) -> io::Result<Setting> {
        match kind {
            Kind::Environment => return environment(name).map(Setting::Environment),
            Kind::EventSource => {
                return event_log::message_file(&source_of(name)).map(Setting::EventSource);
            }
            _ => {}
        }
        let service = self.open(name, needed::to_read(kind))?;
        match kind {
            Kind::Base => read_base(&service).map(Setting::Base),
            Kind::Security => rights::security(&service).map(Setting::Security),
            Kind::LogonRight => {
                rights::may_log_on(&read_base(&service)?.account).map(Setting::LogonRight)
            }
            _ => read_more(&service, kind),
        }
    }

    fn write(&mut self, name: &str, setting: &Setting) -> io::Result<()> {
        match setting {
            Setting::Environment(variables) => return set_environment(name, variables),
            Setting::EventSource(Some(program)) => {
                return event_log::register(&source_of(name), Path::new(program)).map(drop);
            }
            Setting::EventSource(None) => {
                return event_log::unregister(&source_of(name)).map(drop);
            }
            _ => {}
        }
        let service = self.open(name, needed::to_write(setting))?;
        let _enabled = needed::privilege(setting)
            .map(Privilege::enable)
            .transpose()?;
        match setting {
            Setting::Base(base) => write_base(&service, base),
            Setting::Security(sddl) => rights::set_security(&service, sddl),
            Setting::LogonRight(is_granted) => {
                rights::let_log_on(&read_base(&service)?.account, *is_granted)
            }
            _ => write_more(&service, setting),
        }
    }

    #[expect(unsafe_code, reason = "the system's own interface")]
    fn start(&mut self, name: &str, arguments: &[OsString]) -> io::Result<()> {
        let service = self.open(name, services::SERVICE_START)?;
        let arguments: Vec<Vec<u16>> = arguments.iter().map(wide).collect();
        let pointers: Vec<*const u16> = arguments.iter().map(|text| text.as_ptr()).collect();
        let count = u32::try_from(pointers.len()).unwrap_or(u32::MAX);
        // SAFETY: there are as many strings as given, each ending with a NUL.
        done(unsafe { services::StartServiceW(service.0, count, pointers.as_ptr()) })
    }

    #[expect(unsafe_code, reason = "the system's own interface")]
    fn control(&mut self, name: &str, code: u32) -> io::Result<()> {
        let right = match code {
            services::SERVICE_CONTROL_STOP => services::SERVICE_STOP,
            128.. => services::SERVICE_USER_DEFINED_CONTROL,
            _ => services::SERVICE_PAUSE_CONTINUE,
        };
        let service = self.open(name, right)?;
        let mut status = services::SERVICE_STATUS::default();
        // SAFETY: the handle is open, and the status is valid.
        done(unsafe { services::ControlService(service.0, code, &raw mut status) })
    }

    #[expect(unsafe_code, reason = "the system's own interface")]
    fn query(&mut self, name: &str) -> io::Result<ServiceStatus> {
        let service = self.open(name, services::SERVICE_QUERY_STATUS)?;
        let mut status = services::SERVICE_STATUS_PROCESS::default();
        let size = size_of_val(&status) as u32;
        let mut needed = 0;
        // SAFETY: the structure is the one of this level, and its size is given.
        done(unsafe {
            services::QueryServiceStatusEx(
                service.0,
                services::SC_STATUS_PROCESS_INFO,
                (&raw mut status).cast(),
                size,
                &raw mut needed,
            )
        })?;
        let unknown = || io::Error::from_raw_os_error(ERROR_INVALID_DATA.cast_signed());
        Ok(ServiceStatus {
            state: State::from_number(status.dwCurrentState).ok_or_else(unknown)?,
            pid: Some(status.dwProcessId).filter(|pid| *pid != 0),
            code: status.dwWin32ExitCode,
            own_code: status.dwServiceSpecificExitCode,
            checkpoint: status.dwCheckPoint,
            wait_hint: Duration::from_millis(u64::from(status.dwWaitHint)),
        })
    }

    #[expect(unsafe_code, reason = "the system's own interface")]
    fn names(&mut self) -> io::Result<Vec<String>> {
        // The maximum size that the call accepts, so that it need not be repeated with a larger
        // buffer. A longer list is returned in parts.
        let mut buffer = vec![0_u64; 32 * 1024];
        let size = u32::try_from(size_of_val(&*buffer)).unwrap_or(0);
        let (mut names, mut next) = (Vec::new(), 0);
        loop {
            let (mut needed, mut count) = (0, 0);
            // SAFETY: the buffer has the given size.
            let listed = done(unsafe {
                services::EnumServicesStatusExW(
                    self.handle.0,
                    services::SC_ENUM_PROCESS_INFO,
                    services::SERVICE_WIN32,
                    services::SERVICE_STATE_ALL,
                    buffer.as_mut_ptr().cast(),
                    size,
                    &raw mut needed,
                    &raw mut count,
                    &raw mut next,
                    ptr::null(),
                )
            });
            let has_more = match listed {
                Ok(()) => false,
                Err(error) if is(&error, ERROR_MORE_DATA) => true,
                Err(error) => return Err(error),
            };
            let first = buffer
                .as_ptr()
                .cast::<services::ENUM_SERVICE_STATUS_PROCESSW>();
            // SAFETY: the buffer contains this many entries and is aligned for them; each name ends
            // with a NUL.
            unsafe {
                let part = std::slice::from_raw_parts(first, count as usize);
                names.extend(part.iter().map(|entry| text(entry.lpServiceName)));
            }
            if !has_more || count == 0 {
                return Ok(names);
            }
        }
    }

    fn wait(&mut self, name: &str, seen: State, time: Duration) {
        let service = self.open(name, services::SERVICE_QUERY_STATUS);
        let waited = service.and_then(|service| self.watch.wait(service, seen, time));
        if waited.is_err() {
            thread::sleep(time);
        }
    }

    fn sleep(&mut self, time: Duration) {
        thread::sleep(time);
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

/// An access right (winnt.h).
const DELETE: u32 = 0x0001_0000;

/// The arguments of `CreateService` and `ChangeServiceConfig`.
struct WideBase {
    service_type: u32,
    display_name: Vec<u16>,
    image_path: Vec<u16>,
    load_order_group: Vec<u16>,
    dependencies: Vec<u16>,
    account: Vec<u16>,
    password: Option<Secret>,
}

/// A secret that is wiped on drop.
struct Secret(Vec<u16>);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

impl WideBase {
    fn new(base: &Base) -> Self {
        Self {
            service_type: base.service_type(),
            display_name: wide(&base.display_name),
            image_path: wide(&base.image_path),
            load_order_group: wide(&base.load_order_group),
            dependencies: wide_list(&base.dependencies),
            account: wide(&base.account),
            password: match needed::password_form(&base.account, base.password.is_some()) {
                PasswordForm::Null => None,
                PasswordForm::Empty => Some(Secret(wide(""))),
                PasswordForm::Given => base
                    .password
                    .as_ref()
                    .map(|password| Secret(wide(password.reveal()))),
            },
        }
    }

    /// Returns the password in the form that its account requires.
    fn password(&self) -> *const u16 {
        self.password
            .as_ref()
            .map_or(ptr::null(), |password| password.0.as_ptr())
    }
}

#[expect(unsafe_code, reason = "the system's own interface")]
fn write_base(service: &Handle, base: &Base) -> io::Result<()> {
    let wide = WideBase::new(base);
    // Naming an account requires its password. If none is named, the account is unchanged.
    let is_same = base.password.is_none()
        && read_base(service).is_ok_and(|now| now.account.eq_ignore_ascii_case(&base.account));
    let (account, password) = if is_same {
        (ptr::null(), ptr::null())
    } else {
        (wide.account.as_ptr(), wide.password())
    };
    // SAFETY: all strings end with a NUL, the list with two, and they outlive the call.
    done(unsafe {
        services::ChangeServiceConfigW(
            service.0,
            wide.service_type,
            base.start_type,
            base.error_control,
            wide.image_path.as_ptr(),
            wide.load_order_group.as_ptr(),
            ptr::null_mut(),
            wide.dependencies.as_ptr(),
            account,
            password,
            wide.display_name.as_ptr(),
        )
    })
}

#[expect(unsafe_code, reason = "the system's own interface")]
fn read_base(service: &Handle) -> io::Result<Base> {
    let buffer = read_structure(|buffer, size, needed| {
        // SAFETY: the buffer has the given size.
        unsafe { services::QueryServiceConfigW(service.0, buffer.cast(), size, needed) }
    })?;
    // SAFETY: the system has written this structure at the start of the buffer, which is aligned
    // for it.
    let config = unsafe { &*buffer.as_ptr().cast::<services::QUERY_SERVICE_CONFIGW>() };
    // SAFETY: its strings are in the same buffer, each ending with a NUL, the list with two.
    unsafe {
        Ok(Base {
            display_name: text(config.lpDisplayName),
            shows_windows: config.dwServiceType & INTERACTIVE_PROCESS != 0,
            shares_process: config.dwServiceType & SHARE_PROCESS != 0,
            start_type: config.dwStartType,
            error_control: config.dwErrorControl,
            image_path: text(config.lpBinaryPathName),
            load_order_group: text(config.lpLoadOrderGroup),
            dependencies: list(config.lpDependencies),
            account: text(config.lpServiceStartName),
            password: None,
        })
    }
}

/// Returns the information level, `SERVICE_CONFIG_…`.
fn level(kind: Kind) -> u32 {
    match kind {
        Kind::Description => services::SERVICE_CONFIG_DESCRIPTION,
        Kind::DelayedStart => services::SERVICE_CONFIG_DELAYED_AUTO_START_INFO,
        Kind::Failure => services::SERVICE_CONFIG_FAILURE_ACTIONS,
        Kind::FailureFlag => services::SERVICE_CONFIG_FAILURE_ACTIONS_FLAG,
        Kind::Preshutdown => services::SERVICE_CONFIG_PRESHUTDOWN_INFO,
        Kind::Sid => services::SERVICE_CONFIG_SERVICE_SID_INFO,
        Kind::Privileges => services::SERVICE_CONFIG_REQUIRED_PRIVILEGES_INFO,
        Kind::Triggers => services::SERVICE_CONFIG_TRIGGER_INFO,
        // These have their own calls.
        Kind::Base | Kind::Environment | Kind::EventSource | Kind::Security | Kind::LogonRight => 0,
    }
}

#[expect(unsafe_code, reason = "the system's own interface")]
fn write_more(service: &Handle, setting: &Setting) -> io::Result<()> {
    let write = |info: *const c_void| {
        // SAFETY: the structure is the one of this level, and outlives the call with everything it
        // points to.
        done(unsafe { services::ChangeServiceConfig2W(service.0, level(setting.kind()), info) })
    };
    match setting {
        Setting::Description(text) => {
            let mut text = wide(text);
            let info = services::SERVICE_DESCRIPTIONW {
                lpDescription: text.as_mut_ptr(),
            };
            write((&raw const info).cast())
        }
        Setting::DelayedStart(is_delayed) => {
            let info = services::SERVICE_DELAYED_AUTO_START_INFO {
                fDelayedAutostart: i32::from(*is_delayed),
            };
            write((&raw const info).cast())
        }
        Setting::Failure(failure) => {
            let actions = failure.actions.iter();
            let mut actions: Vec<services::SC_ACTION> = actions
                .map(|(kind, delay)| services::SC_ACTION {
                    Type: kind.cast_signed(),
                    Delay: *delay,
                })
                .collect();
            let mut command = wide(&failure.command);
            let mut message = wide(&failure.reboot_message);
            let info = services::SERVICE_FAILURE_ACTIONSW {
                dwResetPeriod: failure.reset_after,
                lpRebootMsg: message.as_mut_ptr(),
                lpCommand: command.as_mut_ptr(),
                cActions: u32::try_from(actions.len()).unwrap_or(0),
                // An empty list deletes the actions. A null pointer would leave them unchanged.
                lpsaActions: actions.as_mut_ptr(),
            };
            write((&raw const info).cast())
        }
        Setting::FailureFlag(is_set) => {
            let info = services::SERVICE_FAILURE_ACTIONS_FLAG {
                fFailureActionsOnNonCrashFailures: i32::from(*is_set),
            };
            write((&raw const info).cast())
        }
        Setting::Preshutdown(timeout) => {
            let info = services::SERVICE_PRESHUTDOWN_INFO {
                dwPreshutdownTimeout: *timeout,
            };
            write((&raw const info).cast())
        }
        Setting::Sid(kind) => {
            let info = services::SERVICE_SID_INFO {
                dwServiceSidType: *kind,
            };
            write((&raw const info).cast())
        }
        Setting::Privileges(names) => {
            let mut names = wide_list(names);
            let info = services::SERVICE_REQUIRED_PRIVILEGES_INFOW {
                pmszRequiredPrivileges: names.as_mut_ptr(),
            };
            write((&raw const info).cast())
        }
        Setting::Triggers(triggers) => with_triggers(triggers, write),
        Setting::Base(_)
        | Setting::Environment(_)
        | Setting::EventSource(_)
        | Setting::Security(_)
        | Setting::LogonRight(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[expect(unsafe_code, reason = "the system's own interface")]
fn read_more(service: &Handle, kind: Kind) -> io::Result<Setting> {
    let buffer = read_structure(|buffer, size, needed| {
        // SAFETY: the buffer has the given size.
        unsafe {
            services::QueryServiceConfig2W(service.0, level(kind), buffer.cast(), size, needed)
        }
    })?;
    let start = buffer.as_ptr();
    // SAFETY: the system has written the structure of this level at the start of the buffer, which
    // is aligned for it. Everything it points to is in the same buffer, strings ending with a NUL,
    // lists with two.
    unsafe {
        Ok(match kind {
            Kind::Description => {
                let info = &*start.cast::<services::SERVICE_DESCRIPTIONW>();
                Setting::Description(text(info.lpDescription))
            }
            Kind::DelayedStart => {
                let info = &*start.cast::<services::SERVICE_DELAYED_AUTO_START_INFO>();
                Setting::DelayedStart(info.fDelayedAutostart != FALSE)
            }
            Kind::Failure => {
                let info = &*start.cast::<services::SERVICE_FAILURE_ACTIONSW>();
                let actions = if info.lpsaActions.is_null() {
                    &[]
                } else {
                    std::slice::from_raw_parts(info.lpsaActions, info.cActions as usize)
                };
                let actions = actions.iter();
                Setting::Failure(FailureActions {
                    reset_after: info.dwResetPeriod,
                    reboot_message: text(info.lpRebootMsg),
                    command: text(info.lpCommand),
                    actions: actions
                        .map(|action| (action.Type.cast_unsigned(), action.Delay))
                        .collect(),
                })
            }
            Kind::FailureFlag => {
                let info = &*start.cast::<services::SERVICE_FAILURE_ACTIONS_FLAG>();
                Setting::FailureFlag(info.fFailureActionsOnNonCrashFailures != FALSE)
            }
            Kind::Preshutdown => {
                let info = &*start.cast::<services::SERVICE_PRESHUTDOWN_INFO>();
                Setting::Preshutdown(info.dwPreshutdownTimeout)
            }
            Kind::Sid => {
                let info = &*start.cast::<services::SERVICE_SID_INFO>();
                Setting::Sid(info.dwServiceSidType)
            }
            Kind::Privileges => {
                let info = &*start.cast::<services::SERVICE_REQUIRED_PRIVILEGES_INFOW>();
                Setting::Privileges(list(info.pmszRequiredPrivileges))
            }
            Kind::Triggers => {
                Setting::Triggers(triggers(&*start.cast::<services::SERVICE_TRIGGER_INFO>()))
            }
            Kind::Base
            | Kind::Environment
            | Kind::EventSource
            | Kind::Security
            | Kind::LogonRight => {
                return Err(io::ErrorKind::Unsupported.into());
            }
        })
    }
}

/// Passes a `SERVICE_TRIGGER_INFO` to `write`, valid for the duration of the call.
fn with_triggers(
    triggers: &[Trigger],
    write: impl FnOnce(*const c_void) -> io::Result<()>,
) -> io::Result<()> {
    let mut subtypes: Vec<GUID> = triggers
        .iter()
        .map(|trigger| GUID::from_u128(trigger.subtype))
        .collect();
    let mut texts: Vec<Vec<Vec<u16>>> = triggers
        .iter()
        .map(|trigger| trigger.data.iter().map(wide).collect())
        .collect();
    let item = |text: &mut Vec<u16>| services::SERVICE_TRIGGER_SPECIFIC_DATA_ITEM {
        dwDataType: services::SERVICE_TRIGGER_DATA_TYPE_STRING,
        cbData: u32::try_from(size_of_val(&**text)).unwrap_or(u32::MAX),
        pData: text.as_mut_ptr().cast(),
    };
    let mut items: Vec<Vec<_>> = texts
        .iter_mut()
        .map(|texts| texts.iter_mut().map(item).collect())
        .collect();
    let parts = triggers.iter().zip(&mut subtypes).zip(&mut items);
    let mut list: Vec<services::SERVICE_TRIGGER> = parts
        .map(|((trigger, subtype), items)| services::SERVICE_TRIGGER {
            dwTriggerType: trigger.kind,
            dwAction: if trigger.stops {
                services::SERVICE_TRIGGER_ACTION_SERVICE_STOP
            } else {
                services::SERVICE_TRIGGER_ACTION_SERVICE_START
            },
            pTriggerSubtype: subtype,
            cDataItems: u32::try_from(items.len()).unwrap_or(0),
            pDataItems: items.as_mut_ptr(),
        })
        .collect();
    let info = services::SERVICE_TRIGGER_INFO {
        cTriggers: u32::try_from(list.len()).unwrap_or(0),
        pTriggers: list.as_mut_ptr(),
        pReserved: ptr::null_mut(),
    };
    write((&raw const info).cast())
}

/// # Safety
/// The structure and everything it points to must come from the system.
#[expect(unsafe_code, reason = "the system's own interface")]
unsafe fn triggers(info: &services::SERVICE_TRIGGER_INFO) -> Vec<Trigger> {
    if info.pTriggers.is_null() {
        return Vec::new();
    }
    // SAFETY: by contract, there are this many triggers, and each has as many items as given.
    unsafe {
        let list = std::slice::from_raw_parts(info.pTriggers, info.cTriggers as usize);
        let trigger = |trigger: &services::SERVICE_TRIGGER| {
            let items = if trigger.pDataItems.is_null() {
                &[]
            } else {
                std::slice::from_raw_parts(trigger.pDataItems, trigger.cDataItems as usize)
            };
            let subtype = &*trigger.pTriggerSubtype;
            let tail = u64::from_be_bytes(subtype.data4);
            let head = u128::from(subtype.data1) << 32
                | u128::from(subtype.data2) << 16
                | u128::from(subtype.data3);
            Trigger {
                kind: trigger.dwTriggerType,
                subtype: head << 64 | u128::from(tail),
                data: items.iter().map(|item| text(item.pData.cast())).collect(),
                stops: trigger.dwAction == services::SERVICE_TRIGGER_ACTION_SERVICE_STOP,
            }
        };
        list.iter().map(trigger).collect()
    }
}

/// Queries the size, then the structure. The buffer consists of 64-bit words because the structure
/// contains pointers.
fn read_structure(read: impl Fn(*mut u64, u32, *mut u32) -> i32) -> io::Result<Vec<u64>> {
    let mut buffer = vec![0_u64; 32];
    loop {
        let mut needed = 0;
        let size = u32::try_from(size_of_val(&*buffer)).unwrap_or(u32::MAX);
        match done(read(buffer.as_mut_ptr(), size, &raw mut needed)) {
            Ok(()) => return Ok(buffer),
            Err(error) if is(&error, ERROR_INSUFFICIENT_BUFFER) && needed > size => {
                buffer = vec![0; (needed as usize).div_ceil(size_of::<u64>())];
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads the environment variables that the manager adds for a service: a list in the registry.
#[expect(unsafe_code, reason = "the system's own interface")]
fn environment(name: &str) -> io::Result<Vec<(String, String)>> {
    let (key, value) = (wide(format!("{SERVICES_KEY}{name}")), wide(ENVIRONMENT));
    let mut buffer: Vec<u16> = vec![0; 1024];
    loop {
        let mut size = u32::try_from(size_of_val(&*buffer)).unwrap_or(u32::MAX);
        // SAFETY: the strings end with a NUL; the buffer has the given size.
        let error = unsafe {
            registry::RegGetValueW(
                registry::HKEY_LOCAL_MACHINE,
                key.as_ptr(),
                value.as_ptr(),
                registry::RRF_RT_REG_MULTI_SZ,
                ptr::null_mut(),
                buffer.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        match error {
            0 => break,
            ERROR_FILE_NOT_FOUND => return Ok(Vec::new()),
            ERROR_MORE_DATA => buffer = vec![0; buffer.len() * 2],
            error => return Err(io::Error::from_raw_os_error(error.cast_signed())),
        }
    }
    // SAFETY: the system ensures that such a list ends with two NULs.
    let variables = unsafe { list(buffer.as_ptr()) };
    let pairs = variables.iter().filter_map(|line| line.split_once('='));
    Ok(pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

#[expect(unsafe_code, reason = "the system's own interface")]
fn set_environment(name: &str, variables: &[(String, String)]) -> io::Result<()> {
    let (key, value) = (wide(format!("{SERVICES_KEY}{name}")), wide(ENVIRONMENT));
    let machine = registry::HKEY_LOCAL_MACHINE;
    if variables.is_empty() {
        // SAFETY: the strings end with a NUL.
        let error = unsafe { registry::RegDeleteKeyValueW(machine, key.as_ptr(), value.as_ptr()) };
        return match error {
            0 | ERROR_FILE_NOT_FOUND => Ok(()),
            error => Err(io::Error::from_raw_os_error(error.cast_signed())),
        };
    }
    let lines: Vec<String> = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let data = wide_list(&lines);
    let size = u32::try_from(size_of_val(&*data)).unwrap_or(u32::MAX);
    // SAFETY: the strings end with a NUL, the list with two; its size is given in bytes.
    let error = unsafe {
        registry::RegSetKeyValueW(
            machine,
            key.as_ptr(),
            value.as_ptr(),
            registry::REG_MULTI_SZ,
            data.as_ptr().cast(),
            size,
        )
    };
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.cast_signed())),
    }
}

fn wide_list(texts: &[String]) -> Vec<u16> {
    let texts = texts.iter().flat_map(wide);
    // An empty list also consists of two NULs.
    texts.chain([0, 0]).collect()
}

/// # Safety
/// `wide` must be null or end with a NUL.
#[expect(unsafe_code, reason = "the system's own interface")]
unsafe fn text(wide: *const u16) -> String {
    if wide.is_null() {
        return String::new();
    }
    // SAFETY: by contract, there are this many elements.
    let wide = unsafe { std::slice::from_raw_parts(wide, length(wide)) };
    OsString::from_wide(wide).to_string_lossy().into_owned()
}

/// # Safety
/// `wide` must be null, or a list of strings that each end with a NUL, with an empty string at the
/// end.
#[expect(unsafe_code, reason = "the system's own interface")]
unsafe fn list(wide: *const u16) -> Vec<String> {
    let mut texts = Vec::new();
    let mut start = wide;
    // SAFETY: by contract.
    while !start.is_null() && unsafe { *start } != 0 {
        // SAFETY: by contract, a string begins here, followed by another one, which may be the
        // empty one.
        let text = unsafe { text(start) };
        // SAFETY: as above.
        start = unsafe { start.add(length(start) + 1) };
        texts.push(text);
    }
    texts
}

/// # Safety
/// `wide` must end with a NUL.
#[expect(unsafe_code, reason = "the system's own interface")]
unsafe fn length(wide: *const u16) -> usize {
    // SAFETY: by contract.
    (0..)
        .take_while(|at| unsafe { *wide.add(*at) } != 0)
        .count()
}

fn owned(handle: SC_HANDLE) -> io::Result<Handle> {
    if handle.is_null() {
        Err(io::Error::last_os_error())
    } else {
        Ok(Handle(handle))
    }
}

fn done(result: i32) -> io::Result<()> {
    match result {
        FALSE => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn is(error: &io::Error, code: WIN32_ERROR) -> bool {
    error.raw_os_error() == Some(code.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_written_and_read_back() {
        let wanted = [
            Trigger::network_up(),
            Trigger::network_down().stops(),
            Trigger::named_pipe("orders"),
            Trigger::domain_joined(),
            Trigger::domain_left(),
        ];
        with_triggers(&wanted, |info| {
            // SAFETY: it was built from these triggers and is valid for this call.
            #[expect(unsafe_code, reason = "as the system would read it")]
            let (read, subtypes) = unsafe {
                let info = &*info.cast::<services::SERVICE_TRIGGER_INFO>();
                let list = std::slice::from_raw_parts(info.pTriggers, info.cTriggers as usize);
                let subtypes = list.iter().map(|trigger| *trigger.pTriggerSubtype);
                (triggers(info), subtypes.collect::<Vec<GUID>>())
            };
            assert_eq!(read, wanted);
            let known = [
                services::NETWORK_MANAGER_FIRST_IP_ADDRESS_ARRIVAL_GUID,
                services::NETWORK_MANAGER_LAST_IP_ADDRESS_REMOVAL_GUID,
                services::NAMED_PIPE_EVENT_GUID,
                services::DOMAIN_JOIN_GUID,
                services::DOMAIN_LEAVE_GUID,
            ];
            let number = |guid: &GUID| (guid.data1, guid.data2, guid.data3, guid.data4);
            assert!(subtypes.iter().map(number).eq(known.iter().map(number)));
            Ok(())
        })
        .unwrap();
    }
}
