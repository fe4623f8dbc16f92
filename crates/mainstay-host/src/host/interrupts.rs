//! Requests of the operator or the system to the supervisor as a whole.
//!
//! All other signals that would terminate the supervisor are ignored (`sys`).

use std::io;

use tokio::sync::mpsc::UnboundedReceiver;

/// A request to the supervisor, in most cases to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// An orderly stop: ctrl-c, SIGTERM, or the user logs off.
    Stop,
    /// SIGHUP: the terminal was closed, or a reload is requested.
    #[cfg_attr(all(windows, not(test)), expect(dead_code, reason = "no such signal"))]
    Hangup,
    /// An immediate stop: SIGQUIT (ctrl-\), ctrl-break.
    Quit,
    /// A rotation of all services' logs: SIGUSR1.
    #[cfg_attr(all(windows, not(test)), expect(dead_code, reason = "no such signal"))]
    RotateLogs,
    /// A report of the complete state on the supervisor's own output: SIGUSR2.
    #[cfg_attr(all(windows, not(test)), expect(dead_code, reason = "no such signal"))]
    WriteState,
}

#[cfg(unix)]
use unix::{Signals, UserSignals};
#[cfg(windows)]
use windows::{Signals, UserSignals};

/// The source of interrupts.
pub(super) struct Interrupts {
    source: Source,
    user: UserSignals,
}

enum Source {
    /// Signals, from a terminal or another process.
    Signals(Signals),
    /// Requests of the service manager that started this process.
    Manager(UnboundedReceiver<Interrupt>),
}

impl Interrupts {
    /// Listens for the system's signals from now on.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            source: Source::Signals(Signals::new()?),
            user: UserSignals::new()?,
        })
    }

    /// Listens for requests of the service manager that started this process.
    pub(super) fn of_manager(requests: UnboundedReceiver<Interrupt>) -> io::Result<Self> {
        Ok(Self {
            source: Source::Manager(requests),
            user: UserSignals::new()?,
        })
    }

    pub(super) fn has_manager(&self) -> bool {
        matches!(self.source, Source::Manager(_))
    }

    /// Returns the next interrupt. Cancel-safe.
    pub(super) async fn next(&mut self) -> Interrupt {
        tokio::select! {
            interrupt = self.source.next() => interrupt,
            interrupt = self.user.next() => interrupt,
        }
    }
}

impl Source {
    async fn next(&mut self) -> Interrupt {
        match self {
            Self::Signals(signals) => signals.next().await,
            Self::Manager(manager) => match manager.recv().await {
                Some(interrupt) => interrupt,
                // The manager sends no more requests.
                None => std::future::pending().await,
            },
        }
    }
}

#[cfg(unix)]
mod unix {
    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::{Interrupt, io};

    /// SIGINT, SIGTERM, SIGHUP and SIGQUIT, from now on.
    pub(crate) struct Signals {
        interrupt: Signal,
        terminate: Signal,
        hangup: Signal,
        quit: Signal,
    }

    /// SIGUSR1 and SIGUSR2, from now on.
    pub(crate) struct UserSignals {
        first: Signal,
        second: Signal,
    }

    impl UserSignals {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self {
                first: signal(SignalKind::user_defined1())?,
                second: signal(SignalKind::user_defined2())?,
            })
        }

        /// Returns the next interrupt. Cancel-safe.
        pub(crate) async fn next(&mut self) -> Interrupt {
            tokio::select! {
                _ = self.first.recv() => Interrupt::RotateLogs,
                _ = self.second.recv() => Interrupt::WriteState,
            }
        }
    }

    impl Signals {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
                hangup: signal(SignalKind::hangup())?,
                quit: signal(SignalKind::quit())?,
            })
        }

        /// Returns the next interrupt. Cancel-safe.
        pub(crate) async fn next(&mut self) -> Interrupt {
            tokio::select! {
                _ = self.interrupt.recv() => Interrupt::Stop,
                _ = self.terminate.recv() => Interrupt::Stop,
                _ = self.hangup.recv() => Interrupt::Hangup,
                _ = self.quit.recv() => Interrupt::Quit,
            }
        }
    }
}

#[cfg(windows)]
mod windows {
    use tokio::signal::windows::{
        CtrlBreak, CtrlC, CtrlClose, CtrlLogoff, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close,
        ctrl_logoff, ctrl_shutdown,
    };

    use super::{Interrupt, io};

    /// The console's control events, from now on. After close, logoff and shutdown, Windows waits
    /// only some seconds.
    pub(crate) struct Signals {
        interrupt: CtrlC,
        quit: CtrlBreak,
        close: CtrlClose,
        logoff: CtrlLogoff,
        shutdown: CtrlShutdown,
    }

    /// A placeholder: Windows has no such signals.
    pub(crate) struct UserSignals;

    impl UserSignals {
        #[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(crate) async fn next(&mut self) -> Interrupt {
            std::future::pending().await
        }
    }

    impl Signals {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self {
                interrupt: ctrl_c()?,
                quit: ctrl_break()?,
                close: ctrl_close()?,
                logoff: ctrl_logoff()?,
                shutdown: ctrl_shutdown()?,
            })
        }

        /// Returns the next interrupt. Cancel-safe.
        pub(crate) async fn next(&mut self) -> Interrupt {
            tokio::select! {
                _ = self.interrupt.recv() => Interrupt::Stop,
                _ = self.close.recv() => Interrupt::Stop,
                _ = self.logoff.recv() => Interrupt::Stop,
                _ = self.shutdown.recv() => Interrupt::Stop,
                _ = self.quit.recv() => Interrupt::Quit,
            }
        }
    }
}
