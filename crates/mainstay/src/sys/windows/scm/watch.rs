//! `NotifyServiceStatusChange`: the manager notifies a thread of a service's change by an
//! asynchronous procedure call while that thread is in an alertable sleep.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use windows_sys::Win32::System::Services as services;
use windows_sys::Win32::System::Threading::SleepEx;

use super::Handle;
use crate::State;

/// Waits for services to change. It can be used only on the thread that created it.
pub(super) struct Watch {
    notice: NonNull<Notice>,
    /// Set if a wait has ended without a call.
    is_abandoned: bool,
}

/// The notification buffer that the system writes to and reports, at most once.
struct Notice {
    notify: services::SERVICE_NOTIFY_2W,
    /// The reported `SERVICE_NOTIFY_…` bits; 0 until the first report.
    told: AtomicU32,
}

impl Watch {
    pub(super) fn new() -> Self {
        let notice = Box::new(Notice {
            notify: services::SERVICE_NOTIFY_2W::default(),
            told: AtomicU32::new(0),
        });
        Self {
            notice: NonNull::from(Box::leak(notice)),
            is_abandoned: false,
        }
    }

    /// Waits until `service` is in another state than `seen`, for at most `time`. A service that is
    /// being deleted remains until its last handle is closed, so the handle is closed at the end.
    #[expect(unsafe_code, reason = "the system's own interface")]
    pub(super) fn wait(&mut self, service: Handle, seen: State, time: Duration) -> io::Result<()> {
        let deadline = Instant::now() + time;
        // The bits of the seven states are in the order of their numbers. The current state is
        // excluded because it would be reported at once.
        let states = 0x7f & !(1 << (seen as u32 - 1));
        // SAFETY: the notice lives until the system has reported. All calls share it, so a late
        // report is written to valid memory and causes at most one extra poll.
        let error = unsafe {
            let place = self.notice.as_ptr();
            (*place).told.store(0, Ordering::Relaxed);
            (*place).notify = services::SERVICE_NOTIFY_2W {
                dwVersion: services::SERVICE_NOTIFY_STATUS_CHANGE,
                pfnNotifyCallback: Some(tell),
                pContext: (&raw mut (*place).told).cast(),
                ..Default::default()
            };
            services::NotifyServiceStatusChangeW(
                service.0,
                states | services::SERVICE_NOTIFY_DELETE_PENDING,
                &raw const (*place).notify,
            )
        };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error.cast_signed()));
        }
        self.sleep_until(deadline);
        drop(service);
        // Receives a call that was already on its way.
        self.sleep_until(Instant::now());
        self.is_abandoned |= self.told() == 0;
        if self.told() & services::SERVICE_NOTIFY_DELETE_PENDING != 0 {
            thread::sleep(deadline.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// Sleeps until the deadline, or until a change is reported.
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn sleep_until(&self, deadline: Instant) {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let millis = u32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u32::MAX - 1);
            // SAFETY: it takes only numbers. During the sleep, only `tell` and callbacks of other
            // code run.
            unsafe { SleepEx(millis, 1) };
            if self.told() != 0 || Instant::now() >= deadline {
                return;
            }
        }
    }

    #[expect(unsafe_code, reason = "the system's own interface")]
    fn told(&self) -> u32 {
        // SAFETY: the notice lives as long as this value, and the system does not write this field.
        unsafe { (*self.notice.as_ptr()).told.load(Ordering::Acquire) }
    }
}

impl Drop for Watch {
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn drop(&mut self) {
        // Otherwise, the notice stays leaked. Microsoft documents that no call arrives after the
        // service's handle is closed, but a system that breaks this rule must not cause a use after
        // free.
        if !self.is_abandoned {
            // SAFETY: it was leaked when it was created, and the system no longer uses it.
            drop(unsafe { Box::from_raw(self.notice.as_ptr()) });
        }
    }
}

#[expect(unsafe_code, reason = "the system's own interface")]
unsafe extern "system" fn tell(notify: *const c_void) {
    // SAFETY: the system passes back the notice it was given, which is still alive.
    unsafe {
        let notify = &*notify.cast::<services::SERVICE_NOTIFY_2W>();
        let told = notify.dwNotificationTriggered.max(1);
        (*notify.pContext.cast::<AtomicU32>()).store(told, Ordering::Release);
    }
}
