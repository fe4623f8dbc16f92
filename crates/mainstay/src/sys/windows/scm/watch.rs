//! `NotifyServiceStatusChange`: the manager tells a thread of a service's change by an asynchronous procedure call, while that thread
//! sleeps alertably.

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

/// Waits for services to change. Of use to the thread that made it alone.
pub(super) struct Watch {
    notice: NonNull<Notice>,
    /// A wait has ended without a call.
    is_abandoned: bool,
}

/// What the system writes into, and tells of, at most once.
struct Notice {
    notify: services::SERVICE_NOTIFY_2W,
    /// `SERVICE_NOTIFY_…`; 0 as long as it has told nothing.
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

    /// For this long, or until `service` is in another state than `seen`. A service that is being deleted goes when nobody holds it open any
    /// more, so it is let go in the end.
    #[expect(unsafe_code, reason = "the system's own interface")]
    pub(super) fn wait(&mut self, service: Handle, seen: State, time: Duration) -> io::Result<()> {
        let deadline = Instant::now() + time;
        // The bits of the seven states stand in the order of their numbers; one that it is in would be told of at once.
        let states = 0x7f & !(1 << (seen as u32 - 1));
        // SAFETY: the notice lives until the system has told; it is the same for all calls, so that one that comes late finds it there,
        // and brings no more than a look too many.
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
        // A call that was on its way comes now.
        self.sleep_until(Instant::now());
        self.is_abandoned |= self.told() == 0;
        if self.told() & services::SERVICE_NOTIFY_DELETE_PENDING != 0 {
            thread::sleep(deadline.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// Or until something is told.
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn sleep_until(&self, deadline: Instant) {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let millis = u32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u32::MAX - 1);
            // SAFETY: takes numbers only; what is called meanwhile is `tell`, or other people's.
            unsafe { SleepEx(millis, 1) };
            if self.told() != 0 || Instant::now() >= deadline {
                return;
            }
        }
    }

    #[expect(unsafe_code, reason = "the system's own interface")]
    fn told(&self) -> u32 {
        // SAFETY: the notice lives as long as this does, and the system leaves this field alone.
        unsafe { (*self.notice.as_ptr()).told.load(Ordering::Acquire) }
    }
}

impl Drop for Watch {
    #[expect(unsafe_code, reason = "the system's own interface")]
    fn drop(&mut self) {
        // Else it stays leaked: that no call comes after the service's handle was closed is documented, but a use after free would be
        // too high a price for a system that does not keep to it.
        if !self.is_abandoned {
            // SAFETY: it was leaked when it was made, and the system is done with it.
            drop(unsafe { Box::from_raw(self.notice.as_ptr()) });
        }
    }
}

#[expect(unsafe_code, reason = "the system's own interface")]
unsafe extern "system" fn tell(notify: *const c_void) {
    // SAFETY: the system gives back what it was given, a notice that lives until then.
    unsafe {
        let notify = &*notify.cast::<services::SERVICE_NOTIFY_2W>();
        let told = notify.dwNotificationTriggered.max(1);
        (*notify.pContext.cast::<AtomicU32>()).store(told, Ordering::Release);
    }
}
