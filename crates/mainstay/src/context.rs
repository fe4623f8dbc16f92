//! The running service's connection to its manager: incoming controls and outgoing status.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::{Control, Logger, Manager, Stop};

/// A running service's connection to its manager. Controls arrive one at a time, and none of them
/// blocks the manager.
///
/// Blocking programs call [`wait`](Self::wait) or [`wait_for`](Self::wait_for). Asynchronous
/// programs await [`recv`](Self::recv), on any runtime.
///
/// ```
/// use std::time::Duration;
///
/// use mainstay::{Context, Control, Exit};
///
/// fn orders(mut context: Context) -> Result<(), Exit> {
///     let queue = context.arguments().first().ok_or("a queue is required")?.clone();
///     // Connected: services that depend on this one can start.
///     context.ready();
///     loop {
///         match context.wait_for(Duration::from_secs(1)) {
///             None => context.logger().info(format!("polling {}", queue.display())),
///             Some(Control::Stop(_)) => return Ok(()),
///             Some(_) => {}
///         }
///     }
/// }
/// # let test = mainstay::testing::Context::new(["high"]);
/// # test.tell(Control::Stop(mainstay::Stop::Requested));
/// # assert!(orders(test.service()).is_ok());
/// ```
///
/// The same without blocking:
///
/// ```
/// use mainstay::{Context, Control};
///
/// async fn orders(mut context: Context) {
///     while !matches!(context.recv().await, Control::Stop(_)) {}
/// }
/// # let _ = orders;
/// ```
#[derive(Debug)]
pub struct Context {
    shared: Arc<Shared>,
    /// The control that the service is handling.
    taken: Option<Control>,
    manager: Manager,
    arguments: Vec<OsString>,
    logger: Logger,
}

/// A handle for reporting the service's status. It is cheap to clone and can be used from any
/// thread.
///
/// ```
/// use std::thread;
/// use std::time::Duration;
///
/// use mainstay::{Context, Control, Exit};
///
/// fn orders(mut context: Context) -> Result<(), Exit> {
///     let status = context.status();
///     let worker = thread::spawn(move || {
///         // Replaying the journal takes longer than the start timeout.
///         status.extend_timeout(Duration::from_secs(120));
///         status.text("replaying the journal");
///         status.ready();
///         while !status.is_stopping() {
///             status.text("serving");
///             thread::sleep(Duration::from_millis(100));
///         }
///     });
///     while !matches!(context.wait(), Control::Stop(_)) {}
///     worker.join().map_err(|_| "the worker has panicked")?;
///     Ok(())
/// }
/// # let test = mainstay::testing::Context::new::<&str>([]);
/// # test.tell(Control::Stop(mainstay::Stop::Requested));
/// # assert!(orders(test.service()).is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Status {
    shared: Arc<Shared>,
}

/// The state that both ends share.
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    voice: Box<dyn Voice>,
}

/// The channel that carries a service's reports to its manager.
pub(crate) trait Voice: Send + Sync {
    fn say(&self, said: Said<'_>);
}

/// A report of a service about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    Ready,
    Status(&'a str),
    Alive,
    ExtendTimeout(Duration),
    /// The service has begun to handle a control.
    Began(Control),
    /// The service has completed a control.
    Did(Control),
}

#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Control>,
    stop: Option<Stop>,
    is_ready: bool,
    waker: Option<Waker>,
}

impl Context {
    pub(crate) fn new(
        shared: Arc<Shared>,
        manager: Manager,
        arguments: Vec<OsString>,
        logger: Logger,
    ) -> Self {
        Self {
            shared,
            taken: None,
            manager,
            arguments,
            logger,
        }
    }

    /// Blocks until a control arrives. After [`Control::Stop`], every further call returns it
    /// again.
    ///
    /// ```
    /// use mainstay::{Control, Stop, testing};
    ///
    /// let test = testing::Context::new::<&str>([]);
    /// test.tell(Control::Stop(Stop::Requested));
    /// assert_eq!(test.service().wait(), Control::Stop(Stop::Requested));
    /// ```
    pub fn wait(&mut self) -> Control {
        loop {
            if let Some(control) = self.wait_for(Duration::MAX) {
                return control;
            }
        }
    }

    /// Blocks until a control arrives, for at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let test = mainstay::testing::Context::new::<&str>([]);
    /// assert_eq!(test.service().wait_for(Duration::from_millis(1)), None);
    /// ```
    pub fn wait_for(&mut self, timeout: Duration) -> Option<Control> {
        self.finish();
        let deadline = Instant::now().checked_add(timeout);
        let mut inbox = self.shared.lock();
        loop {
            if let Some(control) = inbox.next() {
                drop(inbox);
                return Some(self.begin(control));
            }
            let left = match deadline {
                Some(deadline) => deadline.checked_duration_since(Instant::now())?,
                None => Duration::MAX,
            };
            let woken = self.shared.arrived.wait_timeout(inbox, left);
            (inbox, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until a control arrives. After [`Control::Stop`], it returns that at once. It is
    /// cancel-safe: no control is lost.
    ///
    /// ```
    /// use mainstay::{Context, Control};
    ///
    /// async fn serve(mut context: Context) {
    ///     while !matches!(context.recv().await, Control::Stop(_)) {}
    /// }
    /// ```
    pub async fn recv(&mut self) -> Control {
        self.finish();
        let control = self.poll(Inbox::next).await;
        self.begin(control)
    }

    /// Waits for a stop while the service is still starting or handling another control. It takes
    /// no other control and does not mark the current one as completed. Use it in a `select!`
    /// around long work. It is cancel-safe: no control is lost.
    ///
    /// ```
    /// use mainstay::{Context, Stop};
    ///
    /// async fn migrate(mut context: Context) -> Stop {
    ///     // In a `select!` beside the migration.
    ///     context.stop().await
    /// }
    /// ```
    pub async fn stop(&mut self) -> Stop {
        self.poll(|inbox| inbox.stop).await
    }

    /// Returns a handle with which other threads can report the service's status.
    ///
    /// ```
    /// let test = mainstay::testing::Context::new(["high"]);
    /// test.service().status().text("serving");
    /// ```
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            shared: self.shared.clone(),
        }
    }

    /// Reports that the service is ready; see [`Status::ready`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use mainstay::testing::{self, Said};
    ///
    /// let test = testing::Context::new::<&str>([]);
    /// test.service().ready();
    /// assert_eq!(test.next(Duration::ZERO), Some(Said::Ready));
    /// ```
    pub fn ready(&self) {
        self.shared.ready();
    }

    /// Returns the system log under this service's name; on a terminal, standard error.
    ///
    /// ```
    /// let test = mainstay::testing::Context::new(["high"]);
    /// test.service().logger().info("3 tenants");
    /// ```
    #[must_use]
    pub fn logger(&self) -> &Logger {
        &self.logger
    }

    /// Returns the manager that started this process.
    ///
    /// ```
    /// let test = mainstay::testing::Context::new(["high"]);
    /// assert_eq!(test.service().manager(), mainstay::Manager::None);
    /// ```
    #[must_use]
    pub fn manager(&self) -> Manager {
        self.manager
    }

    /// Returns the arguments that the service was started with: those of `StartService` on Windows,
    /// and the command line without the program and `run` elsewhere.
    ///
    /// ```
    /// let test = mainstay::testing::Context::new(["high"]);
    /// assert_eq!(test.service().arguments(), ["high"]);
    /// ```
    #[must_use]
    pub fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    async fn poll<T>(&self, mut take: impl FnMut(&mut Inbox) -> Option<T>) -> T {
        poll_fn(|cx| {
            let mut inbox = self.shared.lock();
            match take(&mut inbox) {
                Some(taken) => Poll::Ready(taken),
                None => {
                    inbox.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Marks the last control as completed.
    fn finish(&mut self) {
        self.shared.ready();
        if let Some(control) = self.taken.take() {
            self.shared.voice.say(Said::Did(control));
        }
    }

    fn begin(&mut self, control: Control) -> Control {
        if !matches!(control, Control::Stop(_)) {
            self.taken = Some(control);
        }
        self.shared.voice.say(Said::Began(control));
        control
    }
}

impl Status {
    /// Reports that the service is ready, so that services that depend on it can start. Only the
    /// first call has an effect. Waiting for the first control also reports it.
    ///
    /// ```
    /// let test = mainstay::testing::Context::new(["high"]);
    /// test.service().status().ready();
    /// ```
    pub fn ready(&self) {
        self.shared.ready();
    }

    /// Reports the current activity in one line (shown by systemd and `mainstay status`).
    ///
    /// ```
    /// let test = mainstay::testing::Context::new(["high"]);
    /// test.service().status().text("serving 3 tenants");
    /// ```
    pub fn text(&self, text: &str) {
        self.shared.voice.say(Said::Status(text));
    }

    /// Sends a watchdog keep-alive. Call it at least twice in each
    /// [`notify::watchdog_interval`](crate::notify::watchdog_interval).
    ///
    /// ```
    /// let test = mainstay::testing::Context::new(["high"]);
    /// test.service().status().alive();
    /// ```
    pub fn alive(&self) {
        self.shared.voice.say(Said::Alive);
    }

    /// Extends the timeout of the start or stop in progress by this much, counted from now.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let test = mainstay::testing::Context::new(["high"]);
    /// test.service().status().extend_timeout(Duration::from_secs(120));
    /// ```
    pub fn extend_timeout(&self, by: Duration) {
        self.shared.voice.say(Said::ExtendTimeout(by));
    }

    /// Returns whether the service was asked to stop, for loops that cannot wait on a [`Context`].
    ///
    /// ```
    /// let test = mainstay::testing::Context::new(["high"]);
    /// assert!(!test.service().status().is_stopping());
    /// ```
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.lock().stop.is_some()
    }
}

impl Shared {
    pub(crate) fn new(voice: impl Voice + 'static) -> Arc<Self> {
        Arc::new(Self {
            inbox: Mutex::default(),
            arrived: Condvar::new(),
            voice: Box::new(voice),
        })
    }

    /// Sends a control to the service. Returns `false` if the service was already asked to stop.
    /// Never blocks.
    pub(crate) fn tell(&self, control: Control) -> bool {
        let mut inbox = self.lock();
        // A stop supersedes all other controls, and its first reason is kept.
        if inbox.stop.is_some() {
            return false;
        }
        match control {
            Control::Stop(stop) => {
                inbox.waiting.clear();
                inbox.stop = Some(stop);
            }
            other => inbox.waiting.push_back(other),
        }
        let waker = inbox.waker.take();
        drop(inbox);
        self.arrived.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    pub(crate) fn ready(&self) {
        if !std::mem::replace(&mut self.lock().is_ready, true) {
            self.voice.say(Said::Ready);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Inbox {
    fn next(&mut self) -> Option<Control> {
        self.stop
            .map(Control::Stop)
            .or_else(|| self.waiting.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::mpsc::{self, Sender};
    use std::task::{Context as TaskContext, Wake};
    use std::thread;

    use super::*;

    /// Forwards the service's reports.
    struct Told(Mutex<Sender<String>>);

    impl Voice for Told {
        fn say(&self, said: Said<'_>) {
            let _ = self.0.lock().unwrap().send(format!("{said:?}"));
        }
    }

    fn context() -> (Context, Arc<Shared>, mpsc::Receiver<String>) {
        let (sender, told) = mpsc::channel();
        let shared = Shared::new(Told(Mutex::new(sender)));
        let logger = Logger::new("test", Manager::None);
        let context = Context::new(shared.clone(), Manager::None, Vec::new(), logger);
        (context, shared, told)
    }

    const STOP: Control = Control::Stop(Stop::Requested);

    #[test]
    fn a_control_is_done_when_the_next_is_asked_for() {
        let (mut context, shared, told) = context();
        shared.tell(Control::Pause);
        shared.tell(Control::Custom(200));
        assert_eq!(context.wait(), Control::Pause);
        assert_eq!(context.wait(), Control::Custom(200));
        assert_eq!(context.wait_for(Duration::ZERO), None);
        context.ready();
        let told: Vec<String> = told.try_iter().collect();
        let expected = [
            "Ready",
            "Began(Pause)",
            "Did(Pause)",
            "Began(Custom(200))",
            "Did(Custom(200))",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_stop_comes_before_all_else_and_again_and_again() {
        let (mut context, shared, _told) = context();
        let status = context.status();
        assert!(shared.tell(Control::Pause));
        assert!(!status.is_stopping());
        assert!(shared.tell(STOP));
        assert!(status.is_stopping());
        assert!(!shared.tell(Control::Stop(Stop::Shutdown)), "it knows");
        assert!(!shared.tell(Control::Continue));
        for _ in 0..3 {
            assert_eq!(context.wait_for(Duration::ZERO), Some(STOP));
        }
    }

    #[test]
    fn a_thread_that_waits_is_woken() {
        let (mut context, shared, told) = context();
        let waiter = thread::spawn(move || context.wait());
        assert_eq!(told.recv().unwrap(), "Ready");
        shared.tell(Control::Reload);
        assert_eq!(waiter.join().unwrap(), Control::Reload);
    }

    #[test]
    fn a_task_that_waits_is_woken_and_may_be_cancelled() {
        struct Woken(Mutex<Sender<()>>);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                let _ = self.0.lock().unwrap().send(());
            }
        }
        let (sender, woken) = mpsc::channel();
        let waker = Waker::from(Arc::new(Woken(Mutex::new(sender))));
        let mut cx = TaskContext::from_waker(&waker);
        let (mut context, shared, _told) = context();
        assert!(pin!(context.recv()).poll(&mut cx).is_pending());
        {
            let mut again = pin!(context.recv());
            assert!(again.as_mut().poll(&mut cx).is_pending());
            shared.tell(Control::TimeChange);
            woken.recv().unwrap();
            // Dropped here without being polled again.
        }
        let mut last = pin!(context.recv());
        assert_eq!(
            last.as_mut().poll(&mut cx),
            Poll::Ready(Control::TimeChange)
        );
    }
}
