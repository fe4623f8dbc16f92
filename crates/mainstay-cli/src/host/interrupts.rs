//! What the operator, or the system, asks of the supervisor as a whole.

use std::io;

use tokio::sync::mpsc::UnboundedReceiver;

/// A wish, mostly that everything end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// In good order: ctrl-c, SIGTERM, the user logs off.
    Stop,
    /// SIGHUP: the terminal is closed, or somebody wants a reload.
    Hangup,
    /// At once: SIGQUIT (ctrl-\), ctrl-break.
    Quit,
}

#[cfg(unix)]
use unix::Signals;
#[cfg(windows)]
use windows::Signals;

/// Where they come from.
pub(super) enum Interrupts {
    /// A terminal, or whoever sends signals.
    Signals(Signals),
    /// The manager that started us.
    Manager(UnboundedReceiver<Interrupt>),
}

impl Interrupts {
    /// Those of the system, from now on.
    pub(super) fn new() -> io::Result<Self> {
        Signals::new().map(Self::Signals)
    }

    /// The next one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Interrupt {
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
