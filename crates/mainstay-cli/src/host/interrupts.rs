//! What the operator, or the system, asks of the supervisor as a whole.
//!
//! Every other signal that would end it is ignored (`sys`).

use std::io;

use tokio::sync::mpsc::UnboundedReceiver;

/// A request, mostly to end everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// In good order: ctrl-c, SIGTERM, the user logs off.
    Stop,
    /// SIGHUP: the terminal is closed, or somebody wants a reload.
    #[cfg_attr(windows, expect(dead_code, reason = "no such signal"))]
    Hangup,
    /// At once: SIGQUIT (ctrl-\), ctrl-break.
    Quit,
    /// Rotate the logs of all services: SIGUSR1.
    #[cfg_attr(windows, expect(dead_code, reason = "no such signal"))]
    RotateLogs,
    /// Write the state of everything to the supervisor's own output: SIGUSR2.
    #[cfg_attr(windows, expect(dead_code, reason = "no such signal"))]
    WriteState,
}

#[cfg(unix)]
use unix::{Signals, UserSignals};
#[cfg(windows)]
use windows::{Signals, UserSignals};

/// Where they come from.
pub(super) struct Interrupts {
    source: Source,
    user: UserSignals,
}

enum Source {
    /// A terminal, or whoever sends signals.
    Signals(Signals),
    /// The manager that started us.
    Manager(UnboundedReceiver<Interrupt>),
}

impl Interrupts {
    /// Those of the system, from now on.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            source: Source::Signals(Signals::new()?),
            user: UserSignals::new()?,
        })
    }

    /// What the manager that started us requests.
    pub(super) fn of_manager(requests: UnboundedReceiver<Interrupt>) -> io::Result<Self> {
        Ok(Self {
            source: Source::Manager(requests),
            user: UserSignals::new()?,
        })
    }

    pub(super) fn has_manager(&self) -> bool {
        matches!(self.source, Source::Manager(_))
    }

    /// The next one. Cancel-safe.
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
                // It wants nothing more.
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

        /// The next one. Cancel-safe.
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

        /// The next one. Cancel-safe.
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

    /// The console's control events, from now on. After close, logoff and shutdown Windows waits some seconds only.
    pub(crate) struct Signals {
        interrupt: CtrlC,
        quit: CtrlBreak,
        close: CtrlClose,
        logoff: CtrlLogoff,
        shutdown: CtrlShutdown,
    }

    /// Windows has none.
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

        /// The next one. Cancel-safe.
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
